"""Pure operations on batches of images, each image with its own strength. What shifts and augmentation have in common.

Images are fp32 N×C×H×W with pixels in [0, 1], in and out, uint8 too where they are only moved; strengths are one number
or a tensor of one per image, B. Draws come from the generator, on its device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

Strength = float | Tensor
Fill = Literal["black", "edge", "reflect"]  # what lies outside of an image
_PAD = {"black": "constant", "edge": "replicate", "reflect": "reflect"}
_SAMPLE = {"black": "zeros", "edge": "border", "reflect": "reflection"}
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R 601)
_YIQ = (_LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def within(images_BCHW: Tensor, limits: Sequence[float], generator: Generator) -> Tensor:
    """One row for each limit: a number for each image, drawn evenly between minus and plus the limit."""
    drawn_KB = torch.rand(len(limits), len(images_BCHW), generator=generator, device=generator.device)
    return ((2 * drawn_KB - 1) * torch.tensor(limits, device=generator.device)[:, None]).to(images_BCHW.device)


def uniform(images_BCHW: Tensor, low: float, high: float, generator: Generator) -> Tensor:
    """One number for each image, drawn evenly between two."""
    drawn_B = torch.rand(len(images_BCHW), generator=generator, device=generator.device)
    return (low + (high - low) * drawn_B).to(images_BCHW.device)


def normal(like_BCHW: Tensor, generator: Generator) -> Tensor:
    """Drawn from N(0, 1), one number for each of these."""
    return torch.randn(like_BCHW.shape, generator=generator, device=generator.device).to(like_BCHW.device)


def rough_normal(like_BCHW: Tensor, generator: Generator) -> Tensor:
    """Drawn evenly from 2¹⁶ numbers that share out N(0, 1), the last at ±4.3: half the time of `normal`."""
    halves = _halves(like_BCHW.numel(), generator).view(torch.uint16).int()
    return _quantiles(generator.device).index_select(0, halves).to(like_BCHW.device).view(like_BCHW.shape)


Normal = Callable[[Tensor, Generator], Tensor]


def gaussian_noise(images_BCHW: Tensor, sigma: Strength, generator: Generator, draw: Normal = normal) -> Tensor:
    """images + σ·N(0, 1), independent in every pixel and channel."""
    noise_BCHW = draw(images_BCHW, generator)
    return noise_BCHW.mul_(_each(sigma)).add_(images_BCHW).clamp_(0, 1)


def poisson_noise(images_BCHW: Tensor, photons: Strength, generator: Generator, draw: Normal = normal) -> Tensor:
    """Counts of light with mean pixel × photons, divided by photons; fewer photons, more noise.

    Differs: the counts are rounded draws of a normal distribution of the same mean and variance, ten times as fast as
    Poisson's; black stays black.
    """
    root_BCHW = (images_BCHW * _each(photons)).sqrt_()  # of the mean, which is the variance too
    counts_BCHW = draw(images_BCHW, generator).add_(root_BCHW).mul_(root_BCHW).round_()
    return counts_BCHW.div_(_each(photons)).clamp_(0, 1)


def salt_and_pepper(images_BCHW: Tensor, amount: Strength, generator: Generator) -> Tensor:
    """A share of the pixels, in all channels at once, half of them black and half of them white."""
    drawn_B1HW = _even(images_BCHW[:, :1], generator)
    half = _each(amount) / 2
    # As numbers, and not as masks, which are neither made nor used several pixels at a time.
    white_B1HW = torch.ge(drawn_B1HW, 1 - half, out=torch.empty_like(drawn_B1HW))
    not_black_B1HW = torch.ge(drawn_B1HW, half, out=torch.empty_like(drawn_B1HW))
    return images_BCHW.clamp(white_B1HW, not_black_B1HW)


def flipped(images_BCHW: Tensor, which_B: Tensor, *, across: bool) -> Tensor:
    """The images `which` says (bool) mirrored: left and right if `across`, else top and bottom."""
    both = torch.cat([images_BCHW, images_BCHW.flip(3 if across else 2)])
    b, device = len(images_BCHW), images_BCHW.device
    # Choosing whole images copies each at once; putting some into the others goes pixel by pixel.
    return both.index_select(0, torch.arange(b, device=device) + b * which_B.to(device))


def moved(images_BCHW: Tensor, down_B: Tensor, right_B: Tensor, padding: int, fill: Fill) -> Tensor:
    """Every image moved by whole pixels, int64 between −padding and padding."""
    b, channels, height, width = images_BCHW.shape
    if fill == "reflect" and padding >= min(height, width):
        raise ValueError(f"an image of {height}×{width} pixels reflects less than its size, got padding {padding}")
    padded = F.pad(images_BCHW.contiguous(), (padding,) * 4, mode=_PAD[fill])
    down, across, image = padded.stride(2), padded.stride(3), padded.stride(0)
    start_B = torch.arange(b, device=padded.device) * image
    start_B += (padding - down_B.to(padded.device)) * down + (padding - right_B.to(padded.device)) * across
    # A view of the windows at every place in memory: choosing whole windows copies rows, six times as fast as indexing.
    places = (b - 1) * image + 2 * padding * (down + across) + 1
    windows = padded.as_strided((places, channels, height, width), (across, *padded.stride()[1:]))
    return windows.index_select(0, start_B)


def colour(images_BCHW: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Brightness, contrast, saturation (factors, 1 changes nothing) and hue (turns, 0 changes nothing), in this order.

    One 3×3 matrix for each image. Differs from torchvision's: hue turns in YIQ, which keeps the luma, and pixels are
    clipped once, at the end. Grey images have no saturation and no hue.
    """
    b, channels = images_BCHW.shape[:2]
    scale_B = brightness * contrast
    if channels == 1:
        mean_B = images_BCHW.mean((1, 2, 3))
        return (images_BCHW * _each(scale_B)).add_(_each((1 - contrast) * brightness * mean_B)).clamp_(0, 1)
    if channels != 3:
        raise ValueError(f"expected images of 1 or 3 channels, got {channels}")
    parts_39, luma_3 = _yiq(images_BCHW.device)
    turn_B = hue * (2 * math.pi)
    weights_B3 = torch.stack([torch.ones_like(hue), saturation * turn_B.cos(), saturation * turn_B.sin()], dim=1)
    matrix_B33 = (scale_B[:, None] * weights_B3 @ parts_39).view(b, 3, 3)
    flat_B3P = images_BCHW.flatten(2)
    offset_B = (1 - contrast) * brightness * (flat_B3P.mean(2) @ luma_3)
    changed_B3P = torch.baddbmm(offset_B[:, None, None], matrix_B33, flat_B3P)
    return changed_B3P.clamp_(0, 1).view(images_BCHW.shape)


def affine(
    images_BCHW: Tensor, angle: Tensor, scale: Tensor, shear: Tensor, right: Tensor, down: Tensor, fill: Fill = "black"
) -> Tensor:
    """Every image sheared, scaled and turned about its centre, then moved; bilinear.

    angle: radians, counter-clockwise; shear: radians by which the top leans to the right; scale: a factor; right, down:
    pixels. One of each for each image, B.
    """
    height, width = images_BCHW.shape[2:]
    cos, sin, tan = angle.cos() / scale, angle.sin() / scale, -shear.tan()
    x_BW = _centred(width, images_BCHW) - right[:, None]
    y_BH = _centred(height, images_BCHW) - down[:, None]
    # From where in the input does an output pixel come? The screen's y runs down, hence the signs of the sines.
    from_x = ((cos - tan * sin)[:, None] * x_BW)[:, None, :], (-(sin + tan * cos)[:, None] * y_BH)[:, :, None]
    from_y = (sin[:, None] * x_BW)[:, None, :], (cos[:, None] * y_BH)[:, :, None]
    return _sampled(images_BCHW, from_x, from_y, fill)


def elastic(images_BCHW: Tensor, strength: Tensor, smoothness: float, generator: Generator, fill: Fill) -> Tensor:
    """Every pixel fetched from a little beside it, by a smooth random field (Simard et al. 2003, ICDAR).

    strength: root mean square of the shift along each axis, pixels, B; smoothness: deviation of the Gaussian by which
    the field is smoothed, pixels. Differs: the noise that is smoothed lies on a grid as coarse as the Gaussian.
    """
    height, width = images_BCHW.shape[2:]
    rows, columns = (_spread(size, smoothness, images_BCHW.device) for size in (height, width))
    shape = (len(images_BCHW), 2, columns.shape[1], rows.shape[1])
    noise = torch.randn(shape, generator=generator, device=generator.device).to(images_BCHW.device)
    field_B2HW = F.linear(F.linear(noise.mul_(_each(strength)), rows).transpose(2, 3), columns)
    from_x = field_B2HW[:, 0], _centred(width, images_BCHW)
    from_y = field_B2HW[:, 1], _centred(height, images_BCHW)[:, None]
    return _sampled(images_BCHW, from_x, from_y, fill)


def _sampled(images_BCHW: Tensor, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor], fill: Fill) -> Tensor:
    """Pixels fetched from x and y, in pixels from the centre: each the sum of two that broadcast to B×H×W, fastest with
    the larger of the two first."""
    b, _, height, width = images_BCHW.shape
    grid_BHW2 = images_BCHW.new_empty(b, height, width, 2)  # filled in place: a third of the time of torch.stack
    for at, (one, other), size in ((0, x, width), (1, y, height)):
        torch.add(other * (2 / size), one, alpha=2 / size, out=grid_BHW2[..., at])
    found = F.grid_sample(images_BCHW, grid_BHW2, padding_mode=_SAMPLE[fill], align_corners=False)
    return found.clamp_(0, 1)


@lru_cache
def _spread(size: int, smoothness: float, device: torch.device) -> Tensor:
    """Pixels × coarse points: Gaussian weights, of length 1 for each pixel so that the field keeps the noise's size."""
    margin = 3 * smoothness
    points = torch.arange(-margin, size - 1 + margin + smoothness, smoothness, device=device)
    distance = (torch.arange(size, device=device)[:, None] - points) / smoothness
    return F.normalize((-(distance**2) / 2).exp(), dim=1)


@lru_cache
def _yiq(device: torch.device) -> tuple[Tensor, Tensor]:
    """By RGB's way to YIQ and back, as rows of 9: what keeps the luma, keeps the colour, and turns it by a quarter. And
    the luma's own three weights."""
    to_yiq = torch.tensor(_YIQ, dtype=torch.float64)
    luma, colour, quarter = torch.zeros(3, 3, 3, dtype=torch.float64)
    luma[0, 0] = colour[1, 1] = colour[2, 2] = quarter[2, 1] = 1
    quarter[1, 2] = -1
    parts = [to_yiq.inverse() @ part @ to_yiq for part in (luma, colour, quarter)]
    return torch.stack(parts).view(3, 9).float().to(device), to_yiq[0].float().to(device)


def _centred(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2


def _even(like_BCHW: Tensor, generator: Generator) -> Tensor:
    """Drawn evenly from [0, 1), in steps of 2⁻¹⁶: a third of the time of torch.rand."""
    halves = _halves(like_BCHW.numel(), generator)
    return halves.to(like_BCHW.device, torch.float32).mul_(2**-16).add_(0.5).view(like_BCHW.shape)


def _halves(n: int, generator: Generator) -> Tensor:
    """n draws of 16 bits, int16, four out of every 64 bits that are drawn."""
    bits = torch.empty(-(-n // 4), dtype=torch.int64, device=generator.device)
    return bits.random_(-(2**63), None, generator=generator).view(torch.int16)[:n]


@lru_cache
def _quantiles(device: torch.device) -> Tensor:
    """2¹⁶ numbers from below to above, each for as much of N(0, 1); of variance 1."""
    shares = (torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16
    found: Tensor = torch.special.ndtri(shares)
    return (found / found.square().mean().sqrt()).float().to(device)


def _each(strength: Strength) -> Strength:
    return strength[:, None, None, None] if isinstance(strength, Tensor) else strength
