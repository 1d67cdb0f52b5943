"""Fog: light clouds of several sizes over the image (arXiv:1903.12261; MNIST-C, arXiv:1906.02337)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional as F

from tasks.config.params import Frozen

OCTAVES = 4


class Params(Frozen):
    """Parameters of the shift."""

    density: float = Field(gt=0, le=1)  # share of a pixel that the thickest fog hides


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """The images under smooth white noise. Differs: it is bilinear, in place of plasma fractals."""
    b, _, height, width = images_BCHW.shape
    if b == 0:
        return images_BCHW
    cloud_B1HW = torch.zeros(b, 1, height, width, device=images_BCHW.device)
    for octave in range(OCTAVES):
        points = 2 ** (octave + 1) + 1
        drawn = torch.rand(b, 1, points, points, generator=generator, device=generator.device).to(images_BCHW.device)
        cloud_B1HW += F.interpolate(drawn, (height, width), mode="bilinear", align_corners=True) / 2**octave
    low, high = (each(cloud_B1HW, (2, 3), True) for each in (torch.amin, torch.amax))
    hidden_B1HW = params.density * (cloud_B1HW - low) / (high - low).clamp_min(1e-6)
    return (images_BCHW * (1 - hidden_B1HW) + hidden_B1HW).clamp(0, 1)
