"""RiFT's three steps on small networks, and the stage on a network that was really trained."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import frozen
from small_networks import ATTACK, blobs, given, network, state
from torch import nn

from data.layout import Round
from tasks.engine import checkpoint, inference, stage
from tasks.evaluation.plots import interpolated
from tasks.rift import Point, best_trial, choose, halves, images_needed, path, rift, tune
from tasks.train import train
from tasks.workspace import inputs as inputs_

pytestmark = pytest.mark.usefixtures("one_thread")


def point(alpha: float, clean: str, robust: str) -> Point:
    return Point(alpha, *(tuple(letter == "+" for letter in text) for text in (clean, robust)))


def test_halves_share_nothing_and_both_have_every_class() -> None:
    first, second = halves(blobs(21))
    assert sorted([*first.keys, *second.keys]) == sorted(blobs(21).keys)
    assert first.labels_N.tolist() == [0] * 6 + [1] * 5
    assert second.labels_N.tolist() == [0] * 5 + [1] * 5


class Headed(nn.Module):
    """A frozen first layer, and a second head that no answer comes from."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head, self.unused = nn.Linear(64, 8), nn.Linear(8, 2), nn.Linear(8, 3)
        self.first.requires_grad_(False)

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK: torch.Tensor = self.head(self.first(images_BCHW.flatten(1)).relu())
        return logits_BK


def test_what_is_frozen_or_unused_is_passed_over() -> None:
    torch.manual_seed(0)
    net = Headed()
    before = state(net)
    free = given(selection="trial", learning_rate=0.5, steps_of_tuning=20, tolerance=1.0)
    told = tune(net, blobs(64), blobs(40, seed=1), free)
    assert [each["module"] for each in told["modules"]] == ["head"]
    assert told["alpha"] > 0
    now = net.state_dict()
    assert [name for name in before if not torch.equal(before[name], now[name])] == ["head.weight"]
    net.head.requires_grad_(False)
    with pytest.raises(ValueError, match="that may be trained and is used"):
        tune(net, blobs(64), blobs(40, seed=1), given())


def test_the_path_begins_at_the_network_and_ends_at_the_tuned_one() -> None:
    net, images = network(), blobs(20)
    before = state(net)
    points = path(net, {"5.weight": torch.zeros(2, 144)}, images, given())
    assert [each.alpha for each in points] == [i / 10 for i in range(11)]
    answers, _ = inference.answer(net, images.pixels_NCHW)
    assert points[0].clean == tuple((answers == images.labels_N).tolist())
    assert len(set(points[-1].clean)) == 2, "a weight of zero gives every image the same answer"
    assert sum(points[-1].clean) == 10
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_the_choice_is_paired_within_tolerance() -> None:
    points = [
        point(0.0, "++--", "++--"),
        point(0.1, "+++-", "--++"),  # as many robust ones, if not the same
        point(0.2, "+++-", "++--"),  # no better than the one before
        point(0.3, "++++", "+---"),  # gains most, and loses one of four
    ]
    assert choose(points, given(tolerance=0.2).rift).alpha == 0.1
    assert choose(points, given(tolerance=0.25).rift).alpha == 0.3
    assert choose([points[0], point(0.5, "+-+-", "++++")], given().rift).alpha == 0.0


def test_the_best_trial() -> None:
    trials = {"a": point(0.0, "++-", "+--"), "b": point(0.5, "+++", "---"), "c": point(0.5, "+++", "+--")}
    assert best_trial(trials) == "c"
    assert best_trial({"a": trials["c"], "b": trials["c"]}) == "a"


@pytest.mark.parametrize(("selection", "tried"), [("trial", 2), ("paper", 0)])
def test_tuning_gains_and_moves_one_weight(selection: str, tried: int) -> None:
    net = network()
    before = state(net)
    params = given(selection=selection, candidates=2, steps_of_tuning=24, learning_rate=0.02, batch=16, tolerance=1.0)
    found = tune(net, blobs(64), blobs(60, seed=1), params)
    assert len(found["trials"]) == tried
    if selection == "paper":
        assert found["module"] == found["modules"][0]["module"]
    start, end = found["path"][0], next(each for each in found["path"] if each["alpha"] == found["alpha"])
    assert end["clean"] > start["clean"]
    changed = [name for name, value in net.state_dict().items() if not torch.equal(before[name], value)]
    assert changed == [f"{found['module']}.weight"]
    assert found["n"] == 30
    assert found["verdict"] == "taken"


def test_on_fewer_images_than_the_tolerance_can_tell_it_is_undecided(capsys: pytest.CaptureFixture[str]) -> None:
    assert [images_needed(share) for share in (0.001, 0.1, 0.2, 1.0, 0.0)] == [3000, 30, 15, 3, math.inf]
    net = network()
    before = state(net)
    choices = {"steps_of_tuning": 24, "learning_rate": 0.02, "batch": 16}
    found = tune(net, blobs(64), blobs(58, seed=1), given(tolerance=0.1, **choices))
    assert (found["verdict"], found["alpha"], found["n"], found["needs"]) == ("undecided", 0.0, 29, 30)
    assert [each["module"] for each in found["modules"]]
    assert not {"module", "path"} & found.keys(), "nothing is fine-tuned that could not be taken"
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    said = capsys.readouterr().out
    assert "29 images, half of validation, cannot tell a robust loss of 10.00% (rift.tolerance), 30 can" in said
    assert interpolated(found) == []
    assert tune(net, blobs(64), blobs(60, seed=1), given(tolerance=0.1, **choices))["verdict"] != "undecided"


def test_the_main_path_is_tried_before_shortcuts() -> None:
    """The shortcut is the least critical module, and of two trials none is spent on it."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.aside, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 1), nn.Linear(256, 2)
            with torch.no_grad():
                self.aside.weight.mul_(1e-3)

        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            maps_BCHW = (self.inner(images_BCHW).relu() + self.aside(images_BCHW)).relu()
            logits_BK: torch.Tensor = self.head(maps_BCHW.flatten(1))
            return logits_BK

    torch.manual_seed(0)
    net = Residual()
    found = tune(net, blobs(64), blobs(60, seed=1), given(candidates=2, selection="trial"))
    assert found["modules"][0]["module"] == "aside"
    assert found["shortcuts"] == ["aside"]
    assert {each["module"] for each in found["trials"]} == {"inner", "head"}
    assert tune(net, blobs(64), blobs(60, seed=1), given(selection="paper"))["module"] == "aside", "as published"


def test_the_statistics_that_follow_are_interpolated_with_the_weight() -> None:
    net = network()
    before = state(net)
    found = tune(
        net, blobs(64), blobs(60, seed=1), given(statistics="follow", batch=16, tolerance=1.0, learning_rate=0.02)
    )
    assert 0 < found["alpha"]
    changed = [name for name, value in net.state_dict().items() if not torch.equal(before[name], value)]
    assert sorted(changed) == sorted([f"{found['module']}.weight", "1.running_mean", "1.running_var"])


def test_paths_of_rounds_that_reported_several_are_still_drawn() -> None:
    points = [{"alpha": 0.0, "clean": 0.5, "robust": 0.2}, {"alpha": 1.0, "clean": 0.7, "robust": 0.1}]
    paths = {"least": {"module": "a", "path": points}, "all": {"module": None, "path": points}}
    rows = interpolated({"module": "a", "path": points, "paths": paths})
    assert len(rows) == 2 * 2 * 2
    assert (1.0, 0.1, "robust, all parameters") in rows
    assert (1.0, 0.7, "clean, chosen (a)") in interpolated({"module": "a", "path": points})


@pytest.fixture
def trained(make_workspace: Callable[..., Path]) -> Round:
    """Round 000 after its train stage, with RiFT switched on for it."""
    rates = {
        "steps_of_tuning": 48,
        "learning_rate": 0.1,
        "batch": 16,
        "tolerance": 1.0,
        "candidates": 5,
        "attack": ATTACK,
    }
    round_ = frozen(
        make_workspace(data={"size": 20}, rift=rates, first={"rift": True}, train={"epochs": 3, "batch": 16})
    )
    stage.run("train", train, round_.challenger)
    return round_


def test_the_stage_gains_on_an_undertrained_network_and_makes_the_same_bytes_again(trained: Round) -> None:
    stage.run("rift", rift, trained.challenger)
    weights_, told = trained.challenger.model.read_bytes(), trained.challenger.rift.read_bytes()
    found = json.loads(told)
    assert found["enabled"]
    assert found["alpha"] > 0
    net, card = checkpoint.load(trained.challenger.model)
    before, _ = checkpoint.load(trained.challenger.trained)
    changed = [n for n, value in net.state_dict().items() if not torch.equal(before.state_dict()[n], value)]
    assert changed == [f"{found['module']}.weight"]
    _, second = halves(inputs_.images(trained.workspace, "validation"))
    answers, _ = inference.answer(net, second.pixels_NCHW)
    at = next(each for each in found["path"] if each["alpha"] == found["alpha"])
    assert (answers == second.labels_N).double().mean().item() == pytest.approx(at["clean"])
    assert card.round == 0

    stage.run("rift", rift, trained.challenger)
    assert trained.challenger.model.read_bytes() == weights_
    assert trained.challenger.rift.read_bytes() == told


def test_where_nothing_is_gained_or_it_is_off_the_trained_weights_are_kept(trained: Round) -> None:
    text = trained.params.read_text()
    trained.params.write_text(text.replace("learning_rate: 0.1", "learning_rate: 1.0e-12"))
    stage.run("rift", rift, trained.challenger)
    assert json.loads(trained.challenger.rift.read_text())["alpha"] == 0.0
    assert trained.challenger.model.read_bytes() == trained.challenger.trained.read_bytes()
    trained.params.write_text(text.replace("rift: true", "rift: false"))
    stage.run("rift", rift, trained.challenger)
    assert json.loads(trained.challenger.rift.read_text()) == {"enabled": False, "alpha": 0.0}
    assert trained.challenger.model.read_bytes() == trained.challenger.trained.read_bytes()
