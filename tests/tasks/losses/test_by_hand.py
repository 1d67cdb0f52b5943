"""Plain cross-entropy and NSL against values worked out by hand and against the loss written out naively."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models import nsl_cnn, space_cnn
from tasks.config.params import Threat
from tasks.engine.batch import Batch
from tasks.losses import Loss, nsl, plain, weighted_cross_entropy

THREAT = Threat(norm="linf", epsilon=0.1)
G = torch.Generator()


def two_pixels() -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (0, 3a − 4b) of an image of two pixels a and b, at (0.5, 0.5): (0, −0.5), with label 1."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0, 0.0], [3.0, -4.0]]))
    return net, torch.full((1, 1, 1, 2), 0.5), torch.tensor([1]), torch.ones(1)


def ce(logit: float) -> float:
    """Cross-entropy of label 1 where the logits are 0 and `logit`."""
    return math.log1p(math.exp(-logit))


def test_the_weighted_mean_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    labels, weights = torch.tensor([0, 1]), torch.tensor([1.0, 3.0])
    wanted = (1 * math.log(2) + 3 * math.log(4 / 3)) / 4
    assert weighted_cross_entropy(logits, labels, weights).item() == pytest.approx(wanted)


def test_plain_by_hand() -> None:
    net, image, label, weight = two_pixels()
    found = Loss(plain, plain.Params(), THREAT)(net, Batch(image, label, weight), G)
    assert found.item() == pytest.approx(ce(-0.5))


@pytest.mark.parametrize(
    ("norm", "steps", "epsilon", "adversarial"),
    [
        # The logit falls fastest along (−3, 4): by 7 a unit of step for its sign, by 5 at unit length.
        ("linf", 1, None, -0.5 - 7 * 0.06),
        ("l2", 1, None, -0.5 - 5 * 0.06),
        ("linf", 1, 0.01, -0.5 - 7 * 0.06),  # one step is not projected
        ("linf", 3, None, -0.5 - 7 * 0.1),  # the threat model's radius
        ("linf", 3, 0.15, -0.5 - 7 * 0.15),
        ("linf", 2, 0.15, -0.5 - 7 * 0.12),  # does not reach the edge
        ("l2", 3, 0.15, -0.5 - 5 * 0.15),
    ],
)
def test_nsl_by_hand(norm: str, steps: int, epsilon: float | None, adversarial: float) -> None:
    net, image, label, weight = two_pixels()
    params = nsl.Params.model_validate(
        {"multiplier": 0.2, "step_size": 0.06, "norm": norm, "steps": steps, "epsilon": epsilon}
    )
    found = Loss(nsl, params, THREAT)(net, Batch(image, label, weight), G)
    assert found.item() == pytest.approx(ce(-0.5) + 0.2 * ce(adversarial), rel=1e-5)


def test_one_step_may_leave_the_pixels_and_several_may_not() -> None:
    net, image, label, weight = two_pixels()
    image = torch.tensor([[[[0.0, 1.0]]]])  # the logit is −4, and would be −4.42 outside
    one = nsl.Params(multiplier=1.0, step_size=0.06)
    batch = Batch(image, label, weight)
    assert Loss(nsl, one, THREAT)(net, batch, G).item() == pytest.approx(ce(-4) + ce(-4.42), rel=1e-5)
    two = nsl.Params(multiplier=1.0, step_size=0.06, steps=2)
    assert Loss(nsl, two, THREAT)(net, batch, G).item() == pytest.approx(2 * ce(-4), rel=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_backward_gives_the_gradients_of_the_naive_three(norm: str, channels: int) -> None:
    torch.manual_seed(0)
    net = nsl_cnn.build(4, channels, 16)
    images, labels, weights = torch.rand(5, channels, 16, 16), torch.arange(5) % 4, torch.rand(5)
    params = nsl.Params.model_validate({"multiplier": 0.7, "step_size": 0.1, "norm": norm})
    fast = Loss(nsl, params, THREAT)(net, Batch(images, labels, weights), G)
    fast.backward()
    found = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()

    inputs = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(inputs), labels, reduction="sum"), inputs)
    step = gradient.sign() if norm == "linf" else gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]

    def mean(logits: torch.Tensor) -> torch.Tensor:
        return (F.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()

    naive = mean(net(images)) + 0.7 * mean(net(images + 0.1 * step))
    naive.backward()
    assert fast.item() == pytest.approx(naive.item(), rel=1e-5)
    assert len(found) == len(list(net.parameters()))
    for fast_gradient, p in zip(found, net.parameters(), strict=True):
        assert p.grad is not None
        assert torch.allclose(fast_gradient, p.grad, atol=1e-6)


def test_gradients_are_scaled_as_the_loss_is() -> None:
    net, image, label, weight = two_pixels()
    params = nsl.Params(step_size=0.05)
    gradients = []
    for factor in (1.0, 3.0):
        net.zero_grad()
        (factor * Loss(nsl, params, THREAT)(net, Batch(image, label, weight), G)).backward()
        gradients.append(next(net.parameters()).grad)
    assert gradients[0] is not None
    assert gradients[1] is not None
    assert torch.allclose(3 * gradients[0], gradients[1])


def test_a_network_with_dropout_trains_and_stays_in_its_mode() -> None:
    torch.manual_seed(0)
    net = space_cnn.build(3, 1, 16).train()
    net.head[3].eval()  # type: ignore[index,union-attr]
    before = [module.training for module in net.modules()]
    params = nsl.Params(step_size=0.05, steps=3)
    batch = Batch(torch.rand(4, 1, 16, 16), torch.arange(4) % 3, torch.ones(4))
    Loss(nsl, params, THREAT)(net, batch, G).backward()
    assert [module.training for module in net.modules()] == before


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"step_size": 8.0}, r"under 1, pixels lie in \[0, 1\], got 8; for 8/255 write 0\.03137"),
        ({"steps": 2, "norm": "l2"}, "an epsilon of their own"),
        ({"steps": 2, "step_size": 0.3}, r"at most 2 × epsilon = 0\.2"),
        ({"steps": 2, "step_size": 0.04}, r"must reach epsilon = 0\.1, .*got 2 × 0\.04"),
        ({"steps": 2, "epsilon": 8.0}, r"epsilon must be under 1, .*for 8/255 write 0\.03137"),
        (
            {"steps": 2, "norm": "l2", "epsilon": 9.0, "step_size": 128.0},
            r"step_size must be under 32, .*write 0\.50196",
        ),
    ],
)
def test_steps_that_make_no_sense_are_refused(given: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        nsl.Params.model_validate(given).check(THREAT)


@pytest.mark.parametrize(
    ("norm", "steps", "step_size", "epsilon", "moved"),
    [
        ("l2", 1, 0.1, None, (0.06, 0.08)),
        ("l2", 2, 0.1, 0.5, (0.12, 0.16)),
        ("l2", 2, 0.1, 0.15, (0.09, 0.12)),
        ("l2", 2, 0.1, 0.13, (0.078, 0.104)),
        ("linf", 1, 0.01, None, (0.01, 0.01)),
    ],
)
def test_the_neighbours_are_those_of_nsls_own_tests(
    norm: str, steps: int, step_size: float, epsilon: float | None, moved: tuple[float, float]
) -> None:
    """A gradient along (3, 4), the moves as its lib/adversarial_neighbor_test.py expects them."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0, 0.0], [-3.0, -4.0]]))
    seen: list[torch.Tensor] = []
    net.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].detach().clone()))
    image = torch.full((1, 1, 1, 2), 0.5)
    params = nsl.Params.model_validate({"norm": norm, "steps": steps, "step_size": step_size, "epsilon": epsilon})
    Loss(nsl, params, THREAT)(net, Batch(image, torch.tensor([1]), torch.ones(1)), G)
    assert torch.allclose(seen[-1].flatten() - 0.5, torch.tensor(moved), atol=1e-6)
