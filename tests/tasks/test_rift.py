"""RiFT's three steps on small networks, and the stage on a network that was really trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import frozen
from torch import nn
from torch.nn import functional

from data.layout import Round
from data.shards import Images
from tasks.config.params import Params, read
from tasks.engine import checkpoint, inference, stage
from tasks.evaluation.plots import interpolated
from tasks.rift import (
    AttackedImages,
    Point,
    attacked_once,
    best_trial,
    characterise,
    choose,
    fine_tuned,
    halves,
    held_against,
    path,
    place,
    rift,
    tune,
    weights,
)
from tasks.train import train
from tasks.workspace import inputs as inputs_

PARAMS = read(Path(__file__).parents[2] / "params.yaml")
ATTACK = {"steps": 2, "step_size": 0.1, "restarts": 1}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def given(**changes: object) -> Params:
    chosen = {"steps": 5, "epochs": 2, "attack": ATTACK, **changes}
    return PARAMS.model_copy(update={"rift": PARAMS.rift.model_copy(update=chosen)})


def blobs(n: int, seed: int = 0) -> Images:
    """Two classes that differ in the brightness of the left half."""
    torch.manual_seed(seed)
    labels = torch.arange(n) % 2
    pixels = torch.randint(60, 140, (n, 1, 8, 8))
    pixels[:, :, :, :4] += 60 * labels.reshape(-1, 1, 1, 1)
    return Images(pixels.to(torch.uint8), labels, tuple(f"k{i}" for i in range(n)), ("dark", "light"))


def network() -> nn.Module:
    """Convolution, batch norm and dropout, statistics as if it had been trained."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 2)]
    net = nn.Sequential(*layers)
    net.train()
    for _ in range(50):
        net(inference.to_float(blobs(32).pixels_NCHW))
    return net.eval()


def state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def point(alpha: float, clean: str, robust: str) -> Point:
    return Point(alpha, *(tuple(letter == "+" for letter in text) for text in (clean, robust)))


def test_halves_share_nothing_and_both_have_every_class() -> None:
    first, second = halves(blobs(21))
    assert sorted([*first.keys, *second.keys]) == sorted(blobs(21).keys)
    assert first.labels_N.tolist() == [0] * 6 + [1] * 5
    assert second.labels_N.tolist() == [0] * 5 + [1] * 5


def test_only_the_weights_of_convolutions_and_linear_layers_move() -> None:
    assert list(weights(network())) == ["0", "5"]
    with pytest.raises(ValueError, match="Conv2d or Linear"):
        weights(nn.Flatten())


def test_characterising_leaves_the_network_as_it_was_and_sorts() -> None:
    net = network()
    before = state(net)
    found = characterise(net, attacked_once(net, blobs(20), given()), given())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [each.mrc for each in found] == sorted(each.mrc for each in found)
    assert {each.module: each.parameters for each in found} == {"0": 36, "5": 288}
    assert len({each.loss for each in found}) == 1, "the images are attacked once, for all modules"
    assert all(each.mrc == each.reached - each.loss > 0 for each in found)


def test_ascent_beats_chance_and_stays_in_the_ball() -> None:
    """For a linear network the loss is convex in the weight: the maximum in the ball is at least what chance finds."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    params = given(steps=20, attack={"steps": 1, "step_size": 1e-6, "restarts": 1})
    params = params.model_copy(update={"threat": params.threat.model_copy(update={"epsilon": 1e-6})})
    images = blobs(20)
    (found,) = characterise(net, attacked_once(net, images, params), params)
    inputs, weight = inference.to_float(images.pixels_NCHW).flatten(1), net[1].weight
    radius = params.rift.radius * weight.norm()
    with torch.no_grad():

        def loss(delta: torch.Tensor) -> float:
            logits = functional.linear(inputs, weight + delta, net[1].bias)
            return functional.cross_entropy(logits, images.labels_N).item()

        chance = [torch.randn(2, 64) for _ in range(200)]
        reached = max(loss(delta * radius / delta.norm()) for delta in chance)
        # A softmax with two classes: to first order the loss rises fastest along its gradient; no Δ of this norm can
        # raise it by more than the inputs' largest norm times √2.
        bound = loss(torch.zeros_like(weight)) + 2**0.5 * radius.item() * inputs.norm(dim=1).max().item()
    assert reached < found.reached <= bound


def test_fine_tuning_lowers_the_loss_by_one_weight_only() -> None:
    net, images = network(), blobs(64)
    before = state(net)
    tuned = fine_tuned(net, ["5.weight"], images, given(epochs=5, learning_rate=0.01, batch=16))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not net.training
    inputs = inference.to_float(images.pixels_NCHW)
    with torch.no_grad():
        start = functional.cross_entropy(net(inputs), images.labels_N)
        place(net, tuned, 1.0)
        end = functional.cross_entropy(net(inputs), images.labels_N)
    assert end < 0.8 * start
    changed = [name for name, value in net.state_dict().items() if not torch.equal(before[name], value)]
    assert changed == ["5.weight"]
    assert all(weight.grad is None for weight in net.parameters())


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
    free = given(report=True, selection="trial", learning_rate=0.5, epochs=20, tolerance=1.0)
    told = tune(net, blobs(64), blobs(40, seed=1), free)
    assert [each["module"] for each in told["modules"]] == ["head"]
    assert told["alpha"] > 0
    now = net.state_dict()
    assert [name for name in before if not torch.equal(before[name], now[name])] == ["head.weight"]
    net.head.requires_grad_(False)
    with pytest.raises(ValueError, match="that may be trained and is used"):
        tune(net, blobs(64), blobs(40, seed=1), given())


def test_fine_tuning_augments_as_training_does() -> None:
    net, params = network(), given()
    flips = params.model_copy(update={"train": params.train.model_copy(update={"augment": {"flip": {}}})})
    plain, once, twice = (fine_tuned(net, ["5.weight"], blobs(64), each)["5.weight"] for each in (params, flips, flips))
    assert torch.equal(once, twice)
    assert not torch.allclose(plain, once)


def test_a_rate_too_high_is_an_error_and_leaves_the_network() -> None:
    net = network()
    before = state(net)
    with pytest.raises(ValueError, match=r"lower rift\.learning_rate"):
        fine_tuned(net, ["0.weight"], blobs(32), given(learning_rate=1e38, epochs=5, batch=8))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


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
    params = given(selection=selection, candidates=2, epochs=6, learning_rate=0.02, batch=16, tolerance=1.0)
    found = tune(net, blobs(64), blobs(60, seed=1), params)
    assert len(found["trials"]) == tried
    if selection == "paper":
        assert found["module"] == found["modules"][0]["module"]
    start, end = found["path"][0], next(each for each in found["path"] if each["alpha"] == found["alpha"])
    assert end["clean"] > start["clean"]
    changed = [name for name, value in net.state_dict().items() if not torch.equal(before[name], value)]
    assert changed == [f"{found['module']}.weight"]
    assert found["n"] == 30


def test_robust_accuracy_falls_with_the_module_and_an_ascent_that_stops_short_is_told() -> None:
    net, images = network(), blobs(20)
    place(net, fine_tuned(net, ["0.weight", "5.weight"], images, given(epochs=30, learning_rate=0.02, batch=5)), 1.0)
    fixed = AttackedImages(inference.to_float(images.pixels_NCHW), images.labels_N)
    strong, weak = given(radius=1.0, steps=20, ascent_rate=20.0), given(radius=1.0, steps=1, ascent_rate=1e-3)
    found = {each.module: each for each in characterise(net, fixed, strong)}
    assert all(0 < each.drop <= 1 for each in found.values())
    short = characterise(net, fixed, weak)
    assert all(each.exceeded and each.drop == 0 for each in short), "one tiny step is no maximum"
    before = state(net)
    tuned = {"5.weight": -net[5].weight.detach()}  # twice the radius away: the ball's surface is what counts
    worse = held_against(net, replace(found["5"], elsewhere=-1.0), tuned, fixed, strong.rift)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    with torch.no_grad():
        net[5].weight.zero_()
        rise = functional.cross_entropy(net(fixed.images_NCHW), fixed.labels_N).item() - found["5"].loss
    assert worse.elsewhere == pytest.approx(rise, abs=1e-5)


def test_the_report_lays_both_selections_and_full_fine_tuning_over_each_other() -> None:
    changes = {"selection": "paper", "candidates": 2, "epochs": 6, "learning_rate": 0.02, "batch": 16, "tolerance": 1.0}
    train, validation = blobs(64), blobs(60, seed=1)
    bare, told = network(), network()
    wanted = tune(bare, train, validation, given(**changes))
    found = tune(told, train, validation, given(report=True, **changes))
    assert all(torch.equal(value, bare.state_dict()[name]) for name, value in told.state_dict().items())
    assert (found["module"], found["path"], found["alpha"]) == (wanted["module"], wanted["path"], wanted["alpha"])
    order = [each["module"] for each in found["modules"]]
    paths = found["paths"]
    assert (paths["least"]["module"], paths["most"]["module"]) == (order[0], order[-1])
    assert paths["least"]["path"] == found["path"]
    starts = [paths[which]["path"][0] for which in ("least", "most", "all")]
    assert starts[0] == starts[1] == starts[2], "every path begins at the trained network"
    assert paths["all"]["path"] != paths["least"]["path"]
    best = max(found["trials"], key=lambda each: (each["clean"], each["robust"]))
    assert {way: end["module"] for way, end in found["selections"].items()} == {
        "paper": order[0],
        "trial": best["module"],
    }
    assert found["selections"]["paper"]["alpha"] == found["alpha"]
    assert not {"selections", "paths"} & wanted.keys()
    rows = interpolated(found)
    assert len(rows) == 3 * 2 * 11
    assert (0.5, paths["all"]["path"][5]["robust"], "robust, all parameters") in rows
    name = f"clean, chosen ({wanted['module']})"
    assert [row[1] for row in interpolated(wanted) if row[2] == name] == [each["clean"] for each in wanted["path"]]
    assert interpolated({"enabled": False, "alpha": 0.0}) == []


@pytest.fixture
def trained(make_workspace: Callable[..., Path]) -> Round:
    """Round 000 after its train stage, with RiFT switched on for it."""
    rates = {"epochs": 4, "learning_rate": 0.1, "batch": 16, "tolerance": 1.0, "candidates": 5, "attack": ATTACK}
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
