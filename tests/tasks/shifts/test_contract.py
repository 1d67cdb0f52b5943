"""The contract of every file of tasks/shifts/: seeded, in [0, 1], each image changed by draws of its own."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tasks.config.kinds import names_in
from tasks.shifts import affine, gaussian_noise

NAMES = names_in("tasks.shifts")
REQUIRED: dict[str, dict[str, Any]] = {  # parameters of kinds without defaults for all
    "affine": {"degrees": 20.0, "translate": 0.1, "scale": 0.15, "shear": 10.0},
    "gaussian_noise": {"sigma": 0.2},
    "blur": {"sigma": 1.5},
    "brightness": {"amount": 0.4},
    "contrast": {"factor": 0.2},
    "elastic": {"strength": 1.5, "smoothness": 3.0},
    "fog": {"density": 0.8},
    "foreign_objects": {"count": 3, "size": 0.3},
    "jpeg": {"quality": 10},
    "motion_blur": {"length": 6.0},
    "pixelate": {"block": 4},
    "poisson_noise": {"photons": 20.0},
    "salt_and_pepper": {"amount": 0.1},
    "speckle_noise": {"sigma": 0.4},
    "stripe": {"width": 0.2},
    "zoom_blur": {"zoom": 0.5},
}
STILL = {"degrees": 0.0, "translate": 0.0, "scale": 0.0, "shear": 0.0}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shift(name: str, images: torch.Tensor, seed: int) -> torch.Tensor:
    module = importlib.import_module(f"tasks.shifts.{name}")
    shifted: torch.Tensor = module.shift(images, module.Params(**REQUIRED.get(name, {})), seeded(seed))
    return shifted


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_shift_keeps_the_contract(name: str, channels: int) -> None:
    images = torch.rand(1, channels, 20, 20, generator=seeded(1)).expand(6, -1, -1, -1).contiguous()
    before = images.clone()
    state = torch.get_rng_state()
    found = shift(name, images, 3)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state), "randomness comes from the generator alone"
    assert found.shape == images.shape
    assert found.dtype == torch.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert not torch.allclose(found, images, atol=0.01)
    assert torch.equal(shift(name, images, 3), found)
    assert any(not torch.equal(found[0], other) for other in found[1:]), "each image has draws of its own"
    assert shift(name, images[:0], 3).shape == (0, channels, 20, 20)


def test_the_noise_has_its_deviation_in_every_channel() -> None:
    images = torch.full((40, 3, 20, 20), 0.5)
    noise = gaussian_noise.shift(images, gaussian_noise.Params(sigma=0.1), seeded()) - images
    assert noise.mean().abs() < 0.005
    assert noise.std(dim=(0, 2, 3)).tolist() == pytest.approx([0.1] * 3, rel=0.05)
    assert abs(float((noise[:, 0] * noise[:, 1]).mean())) < 0.001, "channels are independent"


def test_nothing_moves_by_nothing() -> None:
    images = torch.rand(4, 3, 15, 15)
    found = affine.shift(images, affine.Params.model_validate(STILL), seeded())
    assert torch.allclose(found, images, atol=1e-5)


def middle(images: torch.Tensor) -> torch.Tensor:
    """Centre of mass of each image, pixels from its middle: B×2, across and down."""
    b, _, height, width = images.shape
    mass = images.sum(1) / images.sum((1, 2, 3)).view(b, 1, 1)
    across = (mass.sum(1) * (torch.arange(width) - (width - 1) / 2)).sum(1)
    down = (mass.sum(2) * (torch.arange(height) - (height - 1) / 2)).sum(1)
    return torch.stack([across, down], dim=1)


def blob(size: int, across: int, down: int) -> torch.Tensor:
    """200 copies of a bright square of 3×3 pixels, that far from the middle."""
    images = torch.zeros(200, 1, size, size)
    y, x = size // 2 + down, size // 2 + across
    images[:, :, y - 1 : y + 2, x - 1 : x + 2] = 1
    return images


def test_translation_is_a_share_of_the_size() -> None:
    params = affine.Params.model_validate({**STILL, "translate": 0.2})
    moved = middle(affine.shift(blob(41, 0, 0), params, seeded()))
    assert moved.abs().max() <= 0.2 * 41 + 0.1
    assert moved.abs().amax(0).min() > 0.17 * 41
    assert moved.mean(0).abs().max() < 0.8


def test_rotation_keeps_the_distance_and_stays_within_its_degrees() -> None:
    params = affine.Params.model_validate({**STILL, "degrees": 30.0})
    found = middle(affine.shift(blob(41, 12, 0), params, seeded()))
    assert found.norm(dim=1).tolist() == pytest.approx([12] * 200, abs=0.3)
    angles = torch.atan2(found[:, 1], found[:, 0]).rad2deg()
    assert angles.abs().max() <= 31
    assert angles.max() > 25
    assert angles.min() < -25


def test_scale_is_a_share_of_the_size() -> None:
    params = affine.Params.model_validate({**STILL, "scale": 0.25})
    found = middle(affine.shift(blob(41, 12, 0), params, seeded()))[:, 0]
    assert 12 * 0.75 - 0.3 <= found.min() < 12 * 0.8
    assert 12 * 1.2 < found.max() <= 12 * 1.25 + 0.3


def test_shear_moves_along_one_side_in_proportion_to_the_other() -> None:
    params = affine.Params.model_validate({**STILL, "shear": 20.0})
    moved = middle(affine.shift(blob(41, 0, 10), params, seeded())) - torch.tensor([0.0, 10.0])
    assert moved[:, 1].abs().max() < 0.3
    assert 2.8 < moved[:, 0].abs().max() < 10 * 0.364 + 0.3  # tan 20° = 0.364
    kept = middle(affine.shift(blob(41, 10, 0), params, seeded())) - torch.tensor([10.0, 0.0])
    assert kept.abs().max() < 0.3


@pytest.mark.parametrize(
    ("kind", "given", "key"),
    [
        (gaussian_noise, {"sigma": 0.0}, "sigma"),
        (gaussian_noise, {"sigma": 25.0}, "sigma"),
        (affine, {**STILL, "translate": 1.5}, "translate"),
        (affine, {**STILL, "scale": 1.0}, "scale"),
        (affine, {**STILL, "shear": 90.0}, "shear"),
        (affine, {**STILL, "degrees": -1.0}, "degrees"),
        (affine, {**STILL, "zoom": 1.0}, "zoom"),
    ],
)
def test_strengths_that_make_no_sense_are_refused(kind: Any, given: dict[str, float], key: str) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.Params(**given)
    assert [fault["loc"] for fault in caught.value.errors()] == [(key,)]
