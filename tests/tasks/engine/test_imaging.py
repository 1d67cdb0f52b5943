"""Operations on batches of images, against torchvision's on one image and against what they are defined to be."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as peer

from tasks.engine import imaging


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(value: float, n: int = 64, channels: int = 3, size: int = 32) -> Tensor:
    return torch.full((n, channels, size, size), value)


@pytest.fixture
def photos() -> Tensor:
    """Smooth random colour images."""
    return torch.nn.functional.interpolate(torch.rand(8, 3, 5, 5, generator=seeded(9)), size=(28, 28), mode="bilinear")


DRAWS = [imaging.normal, imaging.rough_normal]


def constants(n: int, *values: float) -> list[Tensor]:
    return [torch.full((n,), value) for value in values]


@pytest.mark.parametrize("draw", DRAWS)
def test_gaussian_noise_has_the_deviation_asked_for_of_each_image(draw: imaging.Normal) -> None:
    sigma = torch.tensor([0.02, 0.1])
    noisy = imaging.gaussian_noise(grey(0.5, 2, size=200), sigma, seeded(), draw)
    assert noisy[0].std().item() == pytest.approx(0.02, rel=0.02)
    assert noisy[1].std().item() == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("value", [0.0, 0.1, 0.5])
def test_poisson_noise_has_poissons_mean_and_variance(value: float, draw: imaging.Normal) -> None:
    photons = 40.0
    ours = imaging.poisson_noise(grey(value), photons, seeded(), draw) * photons
    theirs = torch.poisson(grey(value) * photons, generator=seeded()).clamp_max(photons)
    assert torch.equal(ours.round(), ours.round().clamp(0, photons))
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.03)
    assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.03)


@pytest.mark.parametrize("draw", DRAWS)
def test_draws_are_normal_and_independent(draw: imaging.Normal) -> None:
    drawn = draw(grey(0, 333, 3, 33), seeded()).double().flatten().sort().values  # no multiple of four
    n = len(drawn)
    shares = torch.special.ndtr(drawn)
    steps = (torch.arange(n, dtype=torch.double) + 0.5) / n
    assert (shares - steps).abs().max().item() < 1.63 / math.sqrt(n)  # Kolmogorov and Smirnov, 1%
    assert drawn.square().mean().item() == pytest.approx(1, abs=5 * math.sqrt(2 / n))
    assert drawn.abs().max().item() > 4
    apart = draw(grey(0, 333, 3, 33), seeded()).double().flatten()
    for by in (1, 2, 3, 4, 33):
        assert abs((apart[:-by] * apart[by:]).mean().item()) < 4 / math.sqrt(n)


def test_salt_and_pepper_are_as_many_and_hit_whole_pixels() -> None:
    noisy = imaging.salt_and_pepper(grey(0.5, 2, size=200), torch.tensor([0.0, 0.3]), seeded())
    assert torch.equal(noisy[0], grey(0.5, 1, size=200)[0])
    assert (noisy[1] == noisy[1, :1]).all()
    assert (noisy[1] == 0).float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert (noisy[1] == 1).float().mean().item() == pytest.approx(0.15, abs=0.01)
    rest = (noisy[1] > 0) & (noisy[1] < 1)
    assert (noisy[1][rest] == 0.5).all()
    every = imaging.salt_and_pepper(grey(0.5, 1, size=9), 1.0, seeded())  # 81 pixels, no multiple of four
    assert ((every == 0) | (every == 1)).all()


def test_what_hits_one_pixel_says_nothing_of_its_neighbours() -> None:
    hit = (imaging.salt_and_pepper(grey(0.5, 64, 1, 64), 0.5, seeded()) != 0.5).double().flatten()
    for apart in (1, 2, 3, 4, 64):
        assert torch.corrcoef(torch.stack([hit[:-apart], hit[apart:]]))[0, 1].abs().item() < 0.01


@pytest.mark.parametrize(("across", "axis"), [(True, 3), (False, 2)])
def test_only_the_images_that_are_named_are_flipped(photos: Tensor, across: bool, axis: int) -> None:
    which = torch.arange(8) % 3 == 0
    found = imaging.flipped(photos, which, across=across)
    assert torch.equal(found[which], photos[which].flip(axis))
    assert torch.equal(found[~which], photos[~which])


def test_images_move_by_whole_pixels(photos: Tensor) -> None:
    down, right = torch.arange(8) % 5 - 2, torch.arange(8) % 3 - 1
    found = imaging.moved(photos, down, right, 2, "black")
    for i in range(8):
        wanted = photos[i].roll((int(down[i]), int(right[i])), (1, 2))
        inside = (slice(None), slice(2, -2), slice(2, -2))
        assert torch.equal(found[i][inside], wanted[inside])
    assert (found[0, :, -2:] == 0).all()  # moved up by two
    with pytest.raises(ValueError, match="reflects less than its size, got padding 28"):
        imaging.moved(photos, down, right, 28, "reflect")


def test_brightness_contrast_and_saturation_are_torchvisions(photos: Tensor) -> None:
    photos = 0.3 + 0.4 * photos  # so that nothing is clipped on the way
    factors = torch.linspace(0.7, 1.3, 8)
    one, zero = constants(8, 1, 0)
    cases = [
        ((factors, one, one, zero), peer.adjust_brightness),
        ((one, factors, one, zero), peer.adjust_contrast),
        ((one, one, factors, zero), peer.adjust_saturation),
    ]
    for given, theirs in cases:
        wanted = torch.stack([theirs(photo, float(f)) for photo, f in zip(photos, factors, strict=True)])
        assert torch.allclose(imaging.colour(photos, *given), wanted, atol=2e-3)
    bright = imaging.colour(photos[:, :1], factors, one, one, zero)
    assert torch.allclose(bright, (photos[:, :1] * factors.view(-1, 1, 1, 1)).clamp(0, 1), atol=1e-6)


def test_hue_turns_and_keeps_the_luma(photos: Tensor) -> None:
    photos = 0.4 + 0.2 * photos
    one, third, whole = constants(8, 1, 1 / 3, 1)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    turned = imaging.colour(photos, one, one, one, third)
    assert (turned - photos).abs().max() > 0.02
    assert torch.allclose((turned * luma).sum(1), (photos * luma).sum(1), atol=1e-3)
    assert torch.allclose(imaging.colour(photos, one, one, one, whole), photos, atol=1e-5)
    assert torch.allclose(imaging.colour(grey(0.5, 8), one, one, one, third), grey(0.5, 8), atol=2e-3)


@pytest.mark.parametrize(
    ("degrees", "scale", "shear", "right", "down"),
    [(90, 1, 0, 0, 0), (0, 1, 0, 3, -5), (0, 1.25, 0, 0, 0), (0, 1, 15, 0, 0), (20, 0.9, 10, 2, 1)],
)
def test_affine_maps_are_torchvisions(
    photos: Tensor, degrees: float, scale: float, shear: float, right: int, down: int
) -> None:
    theirs = peer.affine(  # it turns clockwise
        photos, -degrees, [right, down], scale, [shear, 0.0], interpolation=InterpolationMode.BILINEAR
    )
    ours = imaging.affine(
        photos, *constants(8, math.radians(degrees), scale, math.radians(shear), float(right), float(down))
    )
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_each_image_gets_its_own_map(photos: Tensor) -> None:
    zero, one = constants(8, 0, 1)
    turn = torch.tensor([0.0, math.pi / 2] * 4)
    found = imaging.affine(photos, turn, one, zero, zero, zero)
    assert torch.allclose(found[::2], photos[::2], atol=1e-5)
    assert torch.allclose(found[1::2], photos[1::2].rot90(1, (2, 3)), atol=1e-5)


@pytest.mark.parametrize("size", [28, 32])
def test_the_elastic_field_is_smooth_and_as_strong_as_asked_for(size: int) -> None:
    ramp = torch.linspace(0, 1, size).expand(size, size)  # a pixel's value says where it came from
    images = torch.stack([ramp, ramp.T]).expand(256, 2, size, size)
    strength = torch.full((256,), 1.5)
    found = imaging.elastic(images, strength, 4.0, seeded(), "edge")
    pull = ((found - images) * (size - 1))[:, :, 6:-6, 6:-6]
    assert pull.square().mean().sqrt().item() == pytest.approx(1.5, rel=0.08)
    assert pull.mean().abs().item() < 0.1
    neighbours = (pull[..., 1:] - pull[..., :-1]).square().mean().sqrt().item()
    assert neighbours < 0.5
    still = imaging.elastic(images, torch.zeros(256), 4.0, seeded(), "edge")
    assert torch.allclose(still, images, atol=1e-5)
