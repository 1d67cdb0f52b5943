"""Networks that no attack can measure are told from sound ones, on real images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from data.sets import digits
from models import nsl_cnn, resnet18
from tasks.engine import networks, trial
from tasks.engine.inference import to_float

Function = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """A few digits of several classes, fp32."""
    return to_float(trial.sample(digits.load("test", root=None, size=None, channels=None, seed=0)))


class Around(nn.Module):
    """A network between a function of its images and one of its logits."""

    def __init__(self, before: Function | None = None, after: Function | None = None) -> None:
        super().__init__()
        self.inner = nsl_cnn.build(10, 1, 28)
        self.before, self.after = before or nn.Identity(), after or nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.after(self.inner(self.before(images)))
        return logits


def straight_through(images: torch.Tensor) -> torch.Tensor:
    """Rounded on the way there, and as if it were not on the way back."""
    return images + (torch.round(images * 255) / 255 - images).detach()


@pytest.mark.parametrize(
    "net",
    [nsl_cnn.build(10, 1, 28), resnet18.build(10, 1, 28), Around(straight_through)],
    ids=["nsl_cnn", "batch norm", "straight through"],
)
def test_sound_networks_have_no_fault(net: nn.Module, images: torch.Tensor) -> None:
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert trial.faults(net, images) == []
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Around(lambda x: nn.functional.dropout(x, 0.3, training=True)), "asked twice about one image"),
        (Around(lambda x: x - x.mean(0, keepdim=True)), "changes with the other images of the batch"),
        (Around(lambda x: x + torch.linspace(0, 1, len(x))[:, None, None, None]), "changes with the other images"),
        (Around(lambda x: torch.round(x * 255) / 255), "16 of 16 images has no gradient"),
        (Around(after=lambda logits: (1e6 * logits).softmax(1)), "of 16 images has no gradient"),
        (Around(after=lambda logits: nn.functional.one_hot(logits.argmax(1), 10) + 0 * logits), "has no gradient"),
        (Around(after=lambda logits: logits / 0), "gives different answers"),
    ],
    ids=["dropout", "the batch's mean", "by the place", "rounding", "saturated", "one class alone", "no numbers"],
)
def test_what_no_attack_can_measure_is_told(net: nn.Module, said: str, images: torch.Tensor) -> None:
    faults = trial.faults(net, images)
    assert len(faults) == 1 or "different" in said
    assert said in faults[0]
    with pytest.raises(ValueError, match=r"model\.name: own:build (cannot be evaluated under attack|must turn)"):
        networks.check(net, "own:build", 10, 1, 28)


def test_the_random_numbers_of_who_asks_stay_as_they_were(images: torch.Tensor) -> None:
    net = Around(lambda x: nn.functional.dropout(x, 0.3, training=True))
    torch.manual_seed(3)
    next_number = torch.rand(1)
    torch.manual_seed(3)
    trial.faults(net, images)
    assert torch.equal(torch.rand(1), next_number)
