"""A battery against running everything on everything, and the curve over radii."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from tasks.attacks import apgd_ce, attack, fgsm, pgd, spatial, square
from tasks.attacks._battery import battery, curve
from tasks.config.params import Threat
from tasks.config.seeds import derive
from tasks.engine.inference import logits_of

THREAT = Threat(norm="linf", epsilon=0.01)
KINDS = {
    "square": (square, square.Params(queries=60)),
    "spatial": (spatial, spatial.Params()),
    "fgsm": (fgsm, fgsm.Params()),
    "apgd_ce": (apgd_ce, apgd_ce.Params(steps=8)),
    "pgd": (pgd, pgd.Params(steps=4, step_size=0.01, drop=True)),
}


def network() -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.Tanh(), nn.Linear(32, 4)).eval()
    with torch.no_grad():
        net[1].weight.mul_(8)  # type: ignore[union-attr,operator]
    images = torch.rand(40, 1, 16, 16)
    answers = logits_of(net, images).argmax(1)
    labels = answers.clone()
    labels[:5] = (labels[:5] + 1) % 4  # wrong from the start
    return net, images, labels, answers


def test_it_runs_the_cheapest_first_each_on_what_still_stands() -> None:
    net, images, labels, answers = network()
    found = battery(KINDS, net, images, labels, answers, THREAT, 7)
    assert [turn.attack for turn in found.turns] == ["fgsm", "spatial", "pgd", "apgd_ce", "square"]
    inside = [turn for turn in found.turns if turn.within]
    assert inside[0].tried == 35
    for before, after in pairwise(inside):
        assert after.tried == before.tried - before.broken
    standing = found.standing(labels)
    assert int(standing.sum()) == inside[-1].tried - inside[-1].broken
    assert not standing[:5].any()
    assert torch.equal(found.answers_N[:5], answers[:5]), "what was wrong before keeps its answer"
    assert 0 < int(standing.sum()) < 35
    again = battery(KINDS, net, images, labels, answers, THREAT, 7)
    assert torch.equal(again.answers_N, found.answers_N)


def test_what_needs_no_gradient_runs_last_however_cheap() -> None:
    """Else it would break first what gradients find too, and pass for a sign that they are masked."""
    net, images, labels, answers = network()
    found = battery({**KINDS, "square": (square, square.Params(queries=3))}, net, images, labels, answers, THREAT, 7)
    assert [turn.attack for turn in found.turns][-1] == "square"


def test_the_worst_case_is_that_of_every_attack_on_every_image() -> None:
    net, images, labels, answers = network()
    one = {"fgsm": KINDS["fgsm"]}
    found = battery(one, net, images, labels, answers, THREAT, 7)
    alone = attack("fgsm", net, images, labels, THREAT, fgsm.Params(), 0)
    assert torch.equal(found.standing(labels), (answers == labels) & ~alone.success)
    more = battery({**one, "apgd_ce": KINDS["apgd_ce"]}, net, images, labels, answers, THREAT, 7)
    assert not (more.standing(labels) & ~found.standing(labels)).any()


def test_a_budget_of_its_own_is_apart() -> None:
    net, images, labels, answers = network()
    found = battery({"spatial": KINDS["spatial"]}, net, images, labels, answers, THREAT, 7)
    alone = attack("spatial", net, images, labels, THREAT, spatial.Params(), derive(7, "spatial"))
    assert torch.equal(found.answers_N, answers), "no part in the worst case"
    assert torch.equal(found.apart["spatial"], alone.answers)
    (turn,) = found.turns
    assert (turn.tried, turn.within) == (40, False)
    assert turn.broken == int((alone.success & alone.right).sum())


def test_nothing_to_run_and_nothing_left() -> None:
    net, images, labels, answers = network()
    assert torch.equal(battery({}, net, images, labels, answers, THREAT, 7).answers_N, answers)
    wrong = (answers + 1) % 4
    found = battery({"fgsm": KINDS["fgsm"]}, net, images, wrong, answers, THREAT, 7)
    assert (found.turns[0].tried, found.turns[0].broken) == (0, 0)
    with pytest.raises(ValueError, match="40 labels want as many answers"):
        battery({}, net, images, labels, answers[:3], THREAT, 7)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_curve_falls_as_the_radius_rises(norm: str) -> None:
    net, images, labels, answers = network()
    threat = Threat.model_validate({"norm": norm, "epsilon": 0.3})
    radii = (0.04, 0.0001, 0.01) if norm == "linf" else (0.5, 0.001, 0.1)
    found = curve(radii, net, images, labels, answers, threat, 7)
    assert list(found) == sorted(radii)
    counts = [int(stands.sum()) for stands in found.values()]
    assert counts[0] == 35
    assert counts[0] > counts[1] > counts[2]
