"""On logistic regression of real digits the L∞ attacks end at ε · sign(w), to the last bit; and against brute force."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from data.sets import digits
from tasks.attacks import apgd_ce, apgd_t, attack, fgsm, pgd, square
from tasks.config.params import Threat
from tasks.engine.inference import logits_of, to_float

EPSILON, EDGE = 0.08, 0.05
KINDS: dict[str, Any] = {
    "fgsm": fgsm.Params(),
    "pgd": pgd.Params(steps=5, step_size=EPSILON),
    "apgd_ce": apgd_ce.Params(steps=50),
    "apgd_t": apgd_t.Params(steps=50),
}


class Logistic(nn.Module):
    """A logit for each class, and so sure that every right answer's probability rounds to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(28 * 28, 2)
        self.sure = 1.0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.sure * self.linear(images.flatten(1))
        return logits


@pytest.fixture(scope="module")
def threes_and_sevens() -> tuple[Logistic, torch.Tensor, torch.Tensor]:
    """Trained on the digits' threes and sevens; those of the test part."""
    torch.manual_seed(0)
    parts = []
    for split in ("train", "test"):
        found = digits.load(split, root=Path(), size=None, channels=None, seed=0)
        index = ((found.labels_N == 3) | (found.labels_N == 7)).nonzero()[:, 0]
        parts += [to_float(found.pixels_NCHW[index]), (found.labels_N[index] == 7).long()]
    images, labels, tested, wanted = parts
    net = Logistic()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
    net.sure = 1000.0
    assert net(tested).softmax(1).amax(1).median() == 1
    return net.eval(), tested, wanted


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_attacks_are_the_closed_form(
    name: str, threes_and_sevens: tuple[Logistic, torch.Tensor, torch.Tensor]
) -> None:
    net, images, labels = threes_and_sevens
    away = torch.where(labels == 0, 1.0, -1.0)[:, None, None, None]
    worst = (images + EPSILON * away * net.linear.weight.detach().diff(dim=0).sign().reshape(1, 1, 28, 28)).clamp(0, 1)
    stands = logits_of(net, worst).argmax(1) == labels
    assert 10 < stands.sum() < len(labels) - 10, "some must stand and some fall"
    found = attack(name, net, images, labels, Threat(norm="linf", epsilon=EPSILON), KINDS[name], 0)
    assert torch.equal(found.answers == labels, stands)
    whole = stands if name.startswith("apgd") else torch.ones_like(stands)  # which leaves what is fooled alone
    assert torch.equal(found.images[whole], worst[whole])


@pytest.mark.parametrize(
    ("name", "params", "classes"),
    [
        ("apgd_ce", apgd_ce.Params(steps=50), 2),  # among more, cross-entropy may climb to the wrong one
        ("apgd_t", apgd_t.Params(steps=50), 3),
        ("square", square.Params(queries=2000), 3),
    ],
)
def test_what_brute_force_breaks_is_broken(name: str, params: Any, classes: int) -> None:
    """All 512 corners of the ball around images of nine pixels, on a network that bends."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 24), nn.Tanh(), nn.Linear(24, classes))
    images = 0.3 + 0.4 * torch.rand(200, 1, 3, 3)
    with torch.no_grad():
        net[3].bias -= net(images).mean(0)  # so that every class is answered
    labels = logits_of(net, images).argmax(1)
    corners = torch.tensor(list(product((-1.0, 1.0), repeat=9))).reshape(-1, 1, 3, 3)
    answers = torch.stack([logits_of(net, image + EDGE * corners).argmax(1) for image in images])
    broken = (answers != labels[:, None]).any(1)
    assert 40 < broken.sum() < 160, "some must stand and some fall"
    found = attack(name, net, images, labels, Threat(norm="linf", epsilon=EDGE), params, 0).success
    assert not (found & ~broken).any()
    assert (broken & ~found).sum() <= 1, "half a point"
