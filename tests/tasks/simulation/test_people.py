"""A round played through a real Label Studio and a real model server, from blank canvases to verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from open_round import pulled_now

from data.records import SIMULATED, Candidate, Verdict
from tasks.judge import judge
from tasks.labelling.client import LabelStudio
from tasks.publish import publish_drawing, publish_validation, unfinished
from tasks.record.pool import seed_images
from tasks.simulation import people, strokes
from tasks.validate import validate
from tasks.workspace.services import ServiceDown, Services


def verdicts(play: Any) -> list[Candidate]:
    """What the record says by now."""
    made = judge(play.record.candidates, play.round.workspace.round(0).challenger.model)
    return validate(made, play.record.votes, play.params.validate_)


def test_a_round_is_played_to_its_end_and_not_beyond(
    studio: LabelStudio, open_round: Callable[..., Any], model_server: Callable[[Path], Services]
) -> None:
    play = open_round(
        simulate={"label_error": 0.3, "vote_error": 0.0}, validate={"non_fooling_share": 1.0, "consensus": 2}
    )
    round_, params = play.round, play.params
    services = model_server(round_.workspace.root)
    publish_drawing(studio, round_, params, play.spec)
    assert people.draw(studio, services, round_, params, play.spec) == 4
    assert people.draw(studio, services, round_, params, play.spec) == 0
    assert pulled_now(studio, round_) == 4
    drawn = sorted(verdicts(play), key=lambda c: c.key)
    assert [c.key for c in drawn] == ["001/draw/0000", "001/draw/0001", "001/draw/0002", "001/draw/0003"]
    assert [c.source for c in drawn] == [SIMULATED] * 4
    assert all(c.wellformed and c.judged and c.reason == "" for c in drawn)
    assert len({c.annotator for c in drawn}) == 2
    seeds = seed_images(1, params, len(play.pool)).drawings
    assert [c.seed_image for c in drawn] == [play.pool.keys[i] for i in seeds]

    assert publish_validation(studio, play.record, drawn) == 4
    rounds = 0
    while people.vote(studio, services, play.record):
        pulled_now(studio, round_)
        drawn = verdicts(play)
        assert publish_validation(studio, play.record, drawn) == 0
        rounds += 1
    assert rounds == 1, "nobody errs, so two votes settle each label"
    assert unfinished(studio, round_) == 0
    truth = dict(zip([f"001/draw/{n:04d}" for n in range(4)], play.pool.labels_N[list(seeds)].tolist(), strict=True))
    for candidate in drawn:
        right = candidate.intended == truth[candidate.key]
        assert candidate.verdict == (Verdict.VERIFIED if right else Verdict.REJECTED)
        assert len(candidate.votes) == 2
        assert len({vote.validator for vote in candidate.votes} | {candidate.annotator}) == 3
    assert pulled_now(studio, round_) == 0


def test_simulated_validators_answer_every_probe(
    studio: LabelStudio, open_round: Callable[..., Any], model_server: Callable[[Path], Services]
) -> None:
    play = open_round(
        simulate={"label_error": 0.0, "vote_error": 0.0}, validate={"non_fooling_share": 1.0, "probes": 2}
    )
    round_, params = play.round, play.params
    services = model_server(round_.workspace.root)
    publish_drawing(studio, round_, params, play.spec)
    people.draw(studio, services, round_, params, play.spec)
    pulled_now(studio, round_)
    publish_validation(studio, play.record, verdicts(play))
    assert people.vote(studio, services, play.record) == 4 * 2 + 2 * 3
    assert people.vote(studio, services, play.record) == 0
    pulled_now(studio, round_)
    answers = play.record.probe_answers
    assert Counter(a.validator.split(".")[0] for a in answers) == {f"validator-{n}": 2 for n in (1, 2, 3)}
    assert all(a.right for a in answers)
    assert unfinished(studio, round_) == 0
    assert {c.key for c in verdicts(play)} == {f"001/draw/{n:04d}" for n in range(4)}, "no probe is a candidate"


def test_split_votes_bring_a_third(
    studio: LabelStudio, open_round: Callable[..., Any], model_server: Callable[[Path], Services]
) -> None:
    play = open_round(
        simulate={"label_error": 0.0, "vote_error": 0.35, "validators": 4},
        # Nobody is set aside, as those who err so often would be: others would be asked in their place.
        validate={"non_fooling_share": 1.0, "consensus": 2, "max_votes": 3, "probes": 0, "aside": None},
        collect={"drawings": 12},  # by chance none agrees at once in a thousandth of the cases
    )
    round_, params = play.round, play.params
    services = model_server(round_.workspace.root)
    publish_drawing(studio, round_, params, play.spec)
    people.draw(studio, services, round_, params, play.spec)
    drawn = []
    for _ in range(5):
        pulled_now(studio, round_)
        drawn = verdicts(play)
        publish_validation(studio, play.record, drawn)
        if not people.vote(studio, services, play.record):
            break
    cast = Counter(len(c.votes) for c in drawn)
    assert set(cast) == {2, 3}, f"some agree at once, some need a third: {cast}"
    for candidate in drawn:
        choices = Counter(vote.choice for vote in candidate.votes)
        if len(candidate.votes) == 2:
            assert len(choices) == 1
        if candidate.verdict is Verdict.PENDING:
            assert len(choices) == 3
    assert unfinished(studio, round_) == 0


def test_without_a_model_server_nothing_is_drawn(studio: LabelStudio, open_round: Callable[..., Any]) -> None:
    play = open_round()
    publish_drawing(studio, play.round, play.params, play.spec)
    nowhere = Services()
    with pytest.raises(ServiceDown, match="model server"):
        people.draw(studio, nowhere, play.round, play.params, play.spec)
    log_in = {"model_user": "a", "model_password": "b"}
    dead = replace(nowhere, model_url="http://127.0.0.1:9", **log_in, root=play.round.workspace.root)
    with pytest.raises(ServiceDown, match="http://127.0.0.1:9"):
        people.draw(studio, dead, play.round, play.params, play.spec)
    assert pulled_now(studio, play.round) == 0


def test_strokes_keep_the_class(open_round: Callable[..., Any]) -> None:
    """A nearest neighbour among the pictures themselves reads most of what was redrawn with a quiet hand."""
    play = open_round()
    pixels = play.pool.pixels_NCHW[:, 0].numpy()
    redrawn = []
    for number, picture in enumerate(pixels):
        alpha = strokes.redraw(strokes.strokes(picture), 280, 0.2, np.random.default_rng(number))
        redrawn.append(alpha.reshape(28, 10, 28, 10).mean((1, 3)))

    def blurred(images: Any) -> Any:
        flat = np.asarray(images, dtype=float).reshape(len(images), 14, 2, 14, 2).mean((2, 4)).reshape(len(images), -1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    nearest = (blurred(redrawn) @ blurred(pixels).T).argmax(1)
    labels = play.pool.labels_N.numpy()
    assert (labels[nearest] == labels).mean() > 0.7


def test_the_hand_is_seeded_and_strays_with_strength() -> None:
    picture = np.zeros((28, 28), dtype=np.uint8)
    picture[5:23, 13:16] = 255
    lines = strokes.strokes(picture)

    def draw(strength: float, seed: int) -> Any:
        return strokes.redraw(lines, 280, strength, np.random.default_rng(seed)).astype(float)

    assert (draw(1.0, 3) == draw(1.0, 3)).all()
    assert (draw(1.0, 3) != draw(1.0, 4)).any()
    spread = [np.std([np.argwhere(draw(s, seed) > 0).mean(0) for seed in range(20)]) for s in (0.0, 1.0)]
    assert spread[0] < spread[1]


@pytest.mark.parametrize(
    "picture", [np.zeros((28, 28), np.uint8), np.full((28, 28), 255, np.uint8), np.eye(64, dtype=np.uint8)]
)
def test_any_picture_can_be_redrawn(picture: Any) -> None:
    for strength in (0.0, 1.0):
        alpha = strokes.redraw(strokes.strokes(picture), 280, strength, np.random.default_rng(0))
        assert alpha.shape == (280, 280)
        assert alpha.max() == 255
