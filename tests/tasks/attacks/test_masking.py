"""Signs of gradient masking on networks whose gradients are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tasks.attacks._masking import black_box_signs, gradient_signs, large_radius, large_radius_sign, spread
from tasks.config.params import Gradients, Threat

LINF = Threat(norm="linf", epsilon=0.1)
RULES = Gradients(images=200, queries=60, starts=20, allowed=0.01, alpha=0.01)


class Bright(nn.Module):
    """Two classes by the mean of the pixels, as logits × a slope, after something is done to both."""

    def __init__(self, before: Callable[[torch.Tensor], torch.Tensor] | None = None, slope: float = 20.0) -> None:
        super().__init__()
        self.before, self.slope = before or (lambda images: images), slope

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        over = self.slope * (self.before(images).mean((1, 2, 3)) - 0.5)
        return torch.stack([-over, over], 1)


def pictures(n: int = 60, apart: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose mean lies `apart` from the border between the classes: within reach of ε 0.1."""
    labels = torch.arange(n) % 2
    noise = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.2
    images = noise - noise.mean((1, 2, 3), keepdim=True) + 0.5 + apart * (2 * labels - 1)[:, None, None, None]
    return images.float(), labels


def share(found: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: which.double().mean().item() for name, which in found.items()}


def test_an_honest_network_shows_no_sign() -> None:
    images, labels = pictures()
    assert set(share(gradient_signs(Bright(), images, labels, LINF, 0)).values()) == {0.0}
    assert share(large_radius_sign(Bright(), images, labels, LINF, 0)) == {"fell_large": 1.0}


def test_gradients_that_are_zero_or_not_finite_are_counted() -> None:
    images, labels = pictures()
    rounded = share(gradient_signs(Bright(lambda x: (16 * x).round() / 16), images, labels, LINF, 0))
    assert (rounded["zero_clean"], rounded["zero_start"], rounded["zero_cross_entropy"]) == (1, 1, 1)
    infinite = Bright(lambda x: x + 0 * (x - x.detach()).abs().sqrt())  # its slope at 0 is infinite, times 0
    assert share(gradient_signs(infinite, images, labels, LINF, 0))["zero_clean"] == 1
    assert share(large_radius_sign(infinite, images, labels, LINF, 0))["fell_large"] < 1, "no attack fails at NaN"
    half = Bright(lambda x: torch.where((x[:, :1, :1, :1] > x[0, 0, 0, 0]), x, x.detach() + 0 * x))
    assert 0 < share(gradient_signs(half, images, labels, LINF, 0))["zero_clean"] < 1, "image by image"


def test_a_saturated_network_has_no_cross_entropy_to_climb() -> None:
    images, labels = pictures()
    found = share(gradient_signs(Bright(slope=4000), images, labels, LINF, 0))
    assert (found["zero_clean"], found["zero_cross_entropy"]) == (0, 1)


def test_networks_that_draw_lots_and_outputs_that_are_probabilities_are_told() -> None:
    images, labels = pictures()
    drawing = Bright(lambda x: x + 0.01 * torch.randn_like(x))
    assert share(gradient_signs(drawing, images, labels, LINF, 0))["differs"] > 0.9
    found = share(gradient_signs(nn.Sequential(Bright(), nn.Softmax(1)), images, labels, LINF, 0))
    assert (found["probabilities"], found["differs"]) == (1, 0)


def test_what_asks_for_answers_only_finds_what_gradients_hide() -> None:
    images, labels = pictures(apart=0.05)
    rounded = Bright(lambda x: (16 * x).round() / 16)
    assert share(black_box_signs(rounded, images, labels, LINF, RULES, 0))["fell_square"] > 0.6
    far, labels = pictures(apart=0.3)
    assert set(share(black_box_signs(rounded, far, labels, LINF, RULES, 0)).values()) == {0.0}, (
        "nothing is within reach"
    )

    class Peak(nn.Module):
        """Right at the very image alone; anywhere else the answer is the other class."""

        def forward(self, asked: torch.Tensor) -> torch.Tensor:
            near = (asked[:, None] - images[None]).abs().amax((2, 3, 4)).amin(1) < 1e-3
            right = torch.stack([(labels == 0).double().mean().expand(len(asked)), near.double()], 1)
            return right.float()

    ones = torch.ones_like(labels)
    assert share(black_box_signs(Peak(), images, ones, LINF, RULES, 0))["fell_random"] == 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_image_can_be_made_grey_within_the_large_radius(norm: str) -> None:
    images, _ = pictures()
    far = torch.full_like(images, 0.5) - torch.rand_like(images).round()
    length = far.abs().amax((1, 2, 3)) if norm == "linf" else far.flatten(1).norm(dim=1)
    radius = large_radius(norm, images[0].numel())
    assert float(length.max()) <= radius + 1e-6
    assert radius == pytest.approx(0.5 if norm == "linf" else 0.5 * math.sqrt(64))
    wide = Threat.model_validate({"norm": norm, "epsilon": 0.1})
    assert share(large_radius_sign(Bright(), *pictures(), wide, 0))["fell_large"] == 1


def test_images_are_taken_evenly_over_their_order() -> None:
    which = torch.ones(1000, dtype=torch.bool)
    assert spread(which, 5).tolist() == [0, 250, 500, 749, 999]
    which[3:] = False
    assert spread(which, 5).tolist() == [0, 1, 2]
