"""Small kernels, one for each image, and convolution by them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def convolved(images_BCHW: Tensor, kernels_BKK: Tensor) -> Tensor:
    """Every image under a kernel of its own, of odd size; outside, the edge's pixels go on."""
    b, channels, height, _ = images_BCHW.shape
    if b == 0:
        return images_BCHW
    reach = kernels_BKK.shape[1] // 2
    padded = F.pad(images_BCHW, (reach,) * 4, mode="replicate").reshape(1, b * channels, height + 2 * reach, -1)
    each = kernels_BKK.repeat_interleave(channels, 0)[:, None].to(images_BCHW)
    return F.conv2d(padded, each, groups=b * channels).view(images_BCHW.shape).clamp(0, 1)


def gaussians(sigma_B: Tensor) -> Tensor:
    """Gaussians of these deviations, pixels, each of sum 1."""
    reach = max(1, math.ceil(3 * float(sigma_B.max()))) if len(sigma_B) else 1
    offsets = torch.arange(-reach, reach + 1, dtype=sigma_B.dtype, device=sigma_B.device)
    line_BK = (-(offsets**2) / (2 * sigma_B[:, None] ** 2)).exp()
    line_BK = line_BK / line_BK.sum(1, keepdim=True)
    return line_BK[:, :, None] * line_BK[:, None, :]


def ways(angle_B: Tensor, length: float) -> Tensor:
    """Straight ways through the middle, `length` pixels long, each of sum 1; angle: radians from the horizontal."""
    reach = max(1, math.ceil(length / 2))
    offsets = torch.arange(-reach, reach + 1, dtype=angle_B.dtype, device=angle_B.device)
    x_KK, y_KK = offsets[None, :], offsets[:, None]
    cos_B, sin_B = angle_B.cos()[:, None, None], angle_B.sin()[:, None, None]
    along, beside = (x_KK * cos_B + y_KK * sin_B).abs(), (y_KK * cos_B - x_KK * sin_B).abs()
    kernels = (1 - beside).clamp_min(0) * (length / 2 + 0.5 - along).clamp(0, 1)
    return kernels / kernels.sum((1, 2), keepdim=True)
