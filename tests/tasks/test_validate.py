"""Votes → verdicts, and the target's own answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from data.records import UNREADABLE, Candidate, Verdict, Vote
from data.shards import encode_png
from tasks.config.params import Validate
from tasks.engine import checkpoint, inference
from tasks.judge import judge
from tasks.validate import validate

RULES = Validate(consensus=2, max_votes=3, non_fooling_share=0.0, unsettled="pending")
CANDIDATE = Candidate("001/draw/0000", 1, "human", b"png", intended=3, annotator="a@x", answer=5)


def votes(*choices: int) -> list[Vote]:
    return [Vote(f"v{n}@x", choice, 10 + n, "") for n, choice in enumerate(choices)]


@pytest.mark.parametrize(
    ("choices", "verdict", "reason"),
    [
        ((), Verdict.PENDING, ""),
        ((3,), Verdict.PENDING, ""),
        ((3, 3), Verdict.VERIFIED, ""),
        ((3, 5, 3), Verdict.VERIFIED, ""),
        ((5, 5), Verdict.REJECTED, "another class"),
        ((UNREADABLE, UNREADABLE), Verdict.REJECTED, "unreadable"),
        ((3, 5), Verdict.PENDING, ""),
        ((3, 5, UNREADABLE), Verdict.PENDING, "no consensus in 3 votes"),
        ((3, 5, 7, 3, 3), Verdict.PENDING, "no consensus in 3 votes"),
    ],
)
def test_verdicts(choices: tuple[int, ...], verdict: Verdict, reason: str) -> None:
    cast = votes(*choices)
    (made,) = validate([CANDIDATE], {CANDIDATE.key: cast}, RULES)
    assert made.verdict is verdict
    assert reason in made.reason
    assert bool(made.reason) == bool(reason)
    assert len(made.votes) == len(choices)
    assert sum(vote.counted for vote in made.votes) == min(len(choices), RULES.max_votes)
    for seed in range(5):
        shuffled = random.Random(seed).sample(cast, len(cast))
        assert validate([CANDIDATE], {CANDIDATE.key: shuffled}, RULES) == [made]


def test_votes_that_do_not_count_decide_nothing() -> None:
    own = replace(votes(3)[0], counted=False, reason="a vote on one's own candidate")
    (made,) = validate([CANDIDATE], {CANDIDATE.key: [own, *votes(3)]}, RULES)
    assert made.verdict is Verdict.PENDING
    assert len(made.votes) == 2


def test_without_consensus_the_verdict_is_what_the_parameters_say() -> None:
    rejecting = RULES.model_copy(update={"unsettled": "rejected"})
    (made,) = validate([CANDIDATE], {CANDIDATE.key: votes(1, 2, 3)}, rejecting)
    assert made.verdict is Verdict.REJECTED
    assert made.wellformed


def test_one_vote_may_be_enough() -> None:
    single = RULES.model_copy(update={"consensus": 1})
    assert validate([CANDIDATE], {CANDIDATE.key: votes(3, 5)}, single)[0].verdict is Verdict.VERIFIED


def test_malformed_ones_stay_rejected() -> None:
    malformed = CANDIDATE.rejected("no ink", wellformed=False)
    assert validate([malformed], {CANDIDATE.key: votes(3, 3)}, RULES) == [malformed]


def test_the_judge_is_the_frozen_target_itself(open_round: Callable[..., Any]) -> None:
    play = open_round()
    target = play.round.workspace.round(0).challenger.model
    pixels = play.pool.pixels_NCHW[:20]
    made = [
        replace(CANDIDATE, key=str(n), image=encode_png(p), intended=n % 10, answer=-1) for n, p in enumerate(pixels)
    ]
    malformed = CANDIDATE.rejected("no ink", wellformed=False)
    judged = judge([malformed, *made], target)
    net, _ = checkpoint.load(target)
    answers, probabilities = inference.answer(net, pixels)
    assert [c.answer for c in judged[1:]] == answers.tolist()
    assert [c.probability for c in judged[1:]] == pytest.approx(probabilities.max(1).values.tolist())
    assert judged[0] == malformed
    assert [c.fooling for c in judged[1:]] == [a != n % 10 for n, a in enumerate(answers.tolist())]
    assert judge([malformed], target) == [malformed]
    small = replace(CANDIDATE, key="small", image=encode_png(torch.zeros(1, 8, 8, dtype=torch.uint8)))
    with pytest.raises(ValueError, match="28 pixels"):
        judge([small], target)
