"""Which answers the gate compares: whose fools, which champion, and without the shifts that were trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.layout import Round, Workspace
from data.records import Candidate, Verdict
from tasks.evaluation.gate_answers import Past, figures, held_out, past
from tasks.evaluation.predictions import Answered


def fool(key: str, round_: int, annotator: str = "a@x", **changes: object) -> Candidate:
    given = {"source": "human", "split": "validation", "verdict": Verdict.VERIFIED, **changes}
    return Candidate(key, round_, image=b"", intended=1, answer=0, annotator=annotator, **given)  # type: ignore[arg-type]


def test_machine_candidates_and_those_that_somebody_trains_on_take_no_part() -> None:
    campaign = [
        fool("kept", 1),
        fool("machine", 1, source="pgd"),
        fool("trained on", 1, split="train"),
        fool("tested on", 1, split="test"),
        fool("pending", 1, verdict=Verdict.PENDING),
    ]
    assert [c.key for c in held_out(campaign)] == ["kept"]


@pytest.mark.parametrize(("target", "counted"), [(0, []), (1, [[True], [False]])])
def test_fools_of_the_same_target_are_no_earlier_fools(target: int, counted: list[list[bool]]) -> None:
    """Round 001's fools were chosen to fool round 000: against round 000 any other network has more of them right."""
    campaign = [fool("one", 1, "a@x"), fool("two", 1, "b@x"), fool("new", 2, "a@x"), fool("newer", 2, "a@x")]
    images = Answered("n", "gate", ("i", "j"), {"label": [1, 0], "clean": [1, 1], "attack_worst": [0, 1]})
    fools = Answered("n", "fools", ("one", "two", "new", "newer"), {"label": [1, 1, 1, 1], "clean": [1, 0, 1, 0]})
    sheet = figures(images, fools, campaign, 2, Past(target, {1: 0, 2: target}, {}), [])
    assert sheet["clean"] == [[True], [False]]
    assert sheet["robust"] == [[False], [False]]
    assert sheet["ood"] == []
    assert sheet["earlier_fools"] == counted, "a cluster for each annotator"
    assert sheet["fools"] == [[True, False]]


def test_a_shift_that_was_trained_on_is_left_out() -> None:
    columns = {"label": [1, 0], "clean": [1, 0], "attack_worst": [1, 0], "shift_blur": [1, 1], "shift_affine": [0, 0]}
    images = Answered("n", "gate", ("i", "j"), columns)
    assert figures(images, None, [], 1, Past(0, {}, {}), [])["ood"] == [[True, False], [False, True]]
    assert figures(images, None, [], 1, Past(0, {}, {}), ["affine"])["ood"] == [[True], [False]]


def write_lineage(workspace: Workspace, number: int, target: int | None, **more: object) -> Round:
    round_ = workspace.round(number)
    round_.folder.mkdir(parents=True)
    lineage = {"target": None if target is None else {"round": target}, "shards": [], **more}
    round_.lineage.write_text(json.dumps(lineage))
    return round_


def test_the_best_champion_is_remembered_figure_by_figure(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for number, target in ((0, None), (1, 0), (2, 1)):
        write_lineage(workspace, number, target)
    champions = [
        {"round": 0, "accuracy": {"clean": 0.96, "robust": 0.2}},
        {"round": 1, "accuracy": {"clean": 0.95, "robust": 0.7}},
        {"round": 2, "accuracy": {"clean": 0.95, "robust": 0.7, "ood": 0.8}},
    ]
    last = write_lineage(workspace, 3, 2, shards=[{"round": r} for r in range(4)], champions=champions)
    before = past(last)
    assert (before.target, before.targets) == (2, {0: None, 1: 0, 2: 1, 3: 2})
    assert before.best == {"clean": 0}, "where others are no better than the target, the target is the best"


@pytest.mark.parametrize("more", [{}, {"champions": [{"round": 0, "accuracy": {}}]}])
def test_champions_of_before_there_was_the_gate_stage_are_not_ranked(tmp_path: Path, more: dict[str, object]) -> None:
    workspace = Workspace(tmp_path)
    write_lineage(workspace, 0, None)
    assert past(write_lineage(workspace, 1, 0, shards=[{"round": 0}, {"round": 1}], **more)).best == {}
