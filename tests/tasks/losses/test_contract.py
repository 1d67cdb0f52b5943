"""The contract of every file of tasks/losses/."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from models import nsl_cnn
from tasks import losses
from tasks.config.kinds import names_in
from tasks.config.params import Threat
from tasks.engine.batch import Batch

NAMES = names_in("tasks.losses")
THREAT = Threat(norm="linf", epsilon=0.1)
REQUIRED: dict[str, dict[str, Any]] = {}  # parameters of kinds without defaults for all

Given = tuple[nn.Module, torch.Tensor, torch.Tensor]


@pytest.fixture(params=[1, 3])
def given(request: pytest.FixtureRequest) -> Given:
    torch.manual_seed(0)
    channels = request.param
    return nsl_cnn.build(3, channels, 12).train(), torch.rand(6, channels, 12, 12), torch.arange(6) % 3


def loss_of(
    name: str, net: nn.Module, images: torch.Tensor, labels: torch.Tensor, weights: list[float]
) -> torch.Tensor:
    batch = Batch(images, labels, torch.tensor(weights))
    return losses.loss_of(name, REQUIRED.get(name, {}), THREAT)(net, batch, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_keeps_the_contract(name: str, given: Given) -> None:
    net, images, labels = given
    before = [value.clone() for value in (images, labels, *net.state_dict().values())]
    value = loss_of(name, net, images, labels, [1.0] * 6)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert torch.isfinite(value)
    for now, old in zip((images, labels, *net.state_dict().values()), before, strict=True):
        assert torch.equal(now, old)
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    assert all(p.grad is None for p in net.parameters()), "gradients are for the trainer's backward"
    assert not images.requires_grad
    value.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    again = copy.deepcopy(net)
    again.zero_grad()
    assert loss_of(name, again, images, labels, [1.0] * 6) == value


@pytest.mark.parametrize("name", NAMES)
def test_training_on_it_lowers_it(name: str, given: Given) -> None:
    net, images, labels = given
    for image, label in zip(images, labels, strict=True):  # a light bar for each class: to be learned against an attack
        image.mul_(0.3)[:, 4 * int(label) : 4 * int(label) + 4] += 0.7
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    values = []
    for _ in range(15):
        optimizer.zero_grad()
        value = loss_of(name, net, images, labels, [1.0] * 6)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_without_weight_counts_for_nothing(name: str, given: Given) -> None:
    net, images, labels = given
    wanted = loss_of(name, net, images[:4], labels[:4], [1.0] * 4)
    assert loss_of(name, net, images, labels, [1.0] * 4 + [0.0] * 2).item() == pytest.approx(wanted.item(), abs=1e-5)
    assert loss_of(name, net, images, labels, [2.0] * 6).item() == pytest.approx(
        loss_of(name, net, images, labels, [1.0] * 6).item(), abs=1e-5
    )
    nothing = loss_of(name, net, images, labels, [0.0] * 6)
    assert nothing.item() == 0
    nothing.backward()
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_weight_stays_without_gradient(name: str, given: Given) -> None:
    net, images, labels = given
    for p in list(net.parameters())[:-2]:
        p.requires_grad_(False)
    loss_of(name, net, images, labels, [1.0] * 6).backward()
    assert [p.grad is not None for p in net.parameters()] == [False] * (len(list(net.parameters())) - 2) + [True] * 2


@pytest.mark.parametrize("name", NAMES)
def test_it_is_near_fp32_under_bf16(name: str, given: Given) -> None:
    net, images, labels = given
    wanted = loss_of(name, net, images, labels, [1.0] * 6)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss_of(name, net, images, labels, [1.0] * 6)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(wanted.item(), rel=0.05)
    value.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_the_whole_loss_or_its_second_half(name: str, given: Given) -> None:
    """In halves the base makes the adversarial images once, and the loss on them is the loss."""
    net, images, labels = given
    loss = losses.loss_of(name, REQUIRED.get(name, {}), THREAT)
    assert loss.name == name
    assert hasattr(loss.module, "loss") != loss.in_halves, "one of the two"
    batch, draws = Batch(images, labels, torch.ones(6)), torch.Generator
    whole = loss(net, batch, draws().manual_seed(3))
    again = loss.repeatable(net, batch, draws().manual_seed(3))
    assert again() == whole
    assert again() == whole, "with the same draws"
    if loss.in_halves:
        made = loss.adversarial(net, batch, draws().manual_seed(3))
        assert made.shape == images.shape
        assert not made.requires_grad
        assert float((made - images).abs().max()) <= THREAT.epsilon + 1e-6
        assert loss.loss_at(net, batch, made) == whole
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.05)
    assert again() != whole, "of the weights as they are now"


def test_parameters_that_make_no_sense_are_refused_once_before_training() -> None:
    for name in NAMES:
        if name != "plain":
            with pytest.raises(ValueError, match=rf"^{name}: .* must"):
                losses.loss_of(name, {"step_size": 0.9, "steps": 2}, THREAT)
