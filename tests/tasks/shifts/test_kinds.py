"""What the shifts do, on images where it can be told."""

from __future__ import annotations

import math

import pytest
import torch

from tasks.shifts import (
    blur,
    brightness,
    contrast,
    fog,
    foreign_objects,
    jpeg,
    motion_blur,
    pixelate,
    poisson_noise,
    salt_and_pepper,
    speckle_noise,
    stripe,
    zoom_blur,
)
from tasks.shifts._kernels import gaussians, ways


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(value: float, n: int = 50, channels: int = 3, size: int = 20) -> torch.Tensor:
    return torch.full((n, channels, size, size), value)


def test_noise_has_the_size_it_says() -> None:
    light = poisson_noise.shift(grey(0.5), poisson_noise.Params(photons=100.0), seeded()) - 0.5
    assert float(light.std()) == pytest.approx(math.sqrt(0.5 / 100), rel=0.05)
    assert not poisson_noise.shift(grey(0), poisson_noise.Params(photons=100.0), seeded()).any()
    salted = salt_and_pepper.shift(grey(0.5), salt_and_pepper.Params(amount=0.2), seeded())
    assert float((salted != 0.5).double().mean()) == pytest.approx(0.2, abs=0.02)
    assert set(salted.unique().tolist()) == {0, 0.5, 1}
    speckled = speckle_noise.shift(grey(0.5), speckle_noise.Params(sigma=0.2), seeded()) - 0.5
    assert float(speckled.std()) == pytest.approx(0.1, rel=0.05)
    assert not speckle_noise.shift(grey(0), speckle_noise.Params(sigma=0.2), seeded()).any()


def test_blurring_keeps_the_light_and_spreads_it() -> None:
    point = torch.zeros(30, 1, 41, 41)
    point[:, :, 20, 20] = 1
    found = blur.shift(point, blur.Params(sigma=2.0), seeded())
    assert found.sum((1, 2, 3)).tolist() == pytest.approx([1] * 30, abs=1e-4)
    places = torch.arange(41) - 20
    deviation = (found.sum((1, 2)) * places**2).sum(1).sqrt()
    assert 0.9 < deviation.min() < 1.3
    assert 1.7 < deviation.max() < 2.05
    moved = motion_blur.shift(point, motion_blur.Params(length=9.0), seeded())
    assert moved.sum((1, 2, 3)).tolist() == pytest.approx([1] * 30, abs=1e-4)
    assert (moved > 0.02).sum((1, 2, 3)).float().mean() < 20, "a line, not a disc"
    zoomed = zoom_blur.shift(grey(0.4), zoom_blur.Params(zoom=0.5), seeded())
    assert torch.allclose(zoomed, grey(0.4), atol=1e-5)


def test_kernels_sum_to_one_and_lie_along_their_way() -> None:
    assert torch.allclose(gaussians(torch.tensor([0.5, 2.0])).sum((1, 2)), torch.ones(2))
    level, upright = ways(torch.tensor([0.0, math.pi / 2]), 5.0)
    assert level[3].tolist() == pytest.approx([0, 0.2, 0.2, 0.2, 0.2, 0.2, 0], abs=1e-6)
    assert torch.allclose(level.T, upright, atol=1e-6)


def test_light_and_contrast() -> None:
    found = brightness.shift(grey(0.3), brightness.Params(amount=0.4), seeded())[:, 0, 0, 0]
    assert 0.5 - 1e-6 <= found.min() < 0.54
    assert 0.66 < found.max() <= 0.7 + 1e-6
    images = torch.rand(50, 3, 8, 8)
    flat = contrast.shift(images, contrast.Params(factor=0.2), seeded())
    assert torch.allclose(flat.mean((2, 3)), images.mean((2, 3)), atol=1e-5)
    left = flat.std((2, 3)) / images.std((2, 3))
    assert 0.2 - 1e-4 <= left.min() < 0.25
    assert 0.55 < left.max() <= 0.6 + 1e-4
    hidden = fog.shift(grey(0.0), fog.Params(density=0.7), seeded())
    assert hidden.amax((1, 2, 3)).tolist() == pytest.approx([0.7] * 50, abs=1e-4)
    assert hidden.amin((1, 2, 3)).max() < 1e-4


def test_blocks_have_one_colour() -> None:
    images = torch.arange(12 * 12).reshape(1, 1, 12, 12).repeat(20, 2, 1, 1) / 144
    found = pixelate.shift(images, pixelate.Params(block=3), seeded())
    assert all(len(image[0].unique()) in (16, 20, 25) for image in found)
    assert torch.equal(found[:, 0], found[:, 1])


def test_a_stripe_is_inverted_and_the_rest_is_not() -> None:
    found = stripe.shift(grey(0.2), stripe.Params(width=0.25), seeded())
    assert ((found - 0.8).abs() < 1e-6).sum((1, 2, 3)).tolist() == [3 * 20 * 5] * 50
    assert (found[..., 0, :] == found[..., 19, :]).all()


def test_objects_are_pasted_beside_the_middle() -> None:
    given = foreign_objects.Params(count=4, size=0.2, middle=0.25)
    found = foreign_objects.shift(grey(0.5, size=40), given, seeded())
    changed = (found != 0.5).any(1)
    places = (torch.arange(40) + 0.5) / 40 - 0.5
    near = (places[:, None] ** 2 + places[None, :] ** 2).sqrt() < 0.25
    assert not changed[:, near].any(), "what the image shows stays free"
    assert changed.flatten(1).any(1).all()
    assert 0.005 < float(changed.double().mean()) < 4 * 0.2**2


def test_jpeg_is_worse_at_low_quality_and_never_leaves_the_picture() -> None:
    images = torch.rand(4, 3, 16, 16, generator=seeded(3))
    far = [float((jpeg.shift(images, jpeg.Params(quality=q), seeded()) - images).abs().mean()) for q in (5, 90)]
    assert far[0] > 1.2 * far[1] > 0
