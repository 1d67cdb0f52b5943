"""Zoom blur: the camera came nearer while it looked (arXiv:1903.12261)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen
from tasks.engine import imaging

STEPS = 8


class Params(Frozen):
    """Parameters of the shift."""

    zoom: float = Field(gt=0, le=2)  # largest share by which the image grows; drawn from half of it on


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """The mean of the images at STEPS sizes, from their own to the largest."""
    zoom_B = imaging.uniform(images_BCHW, params.zoom / 2, params.zoom, generator)
    still_B = torch.zeros_like(zoom_B)
    parts = [
        imaging.affine(images_BCHW, still_B, 1 + zoom_B * (step / (STEPS - 1)), still_B, still_B, still_B, "edge")
        for step in range(STEPS)
    ]
    return torch.stack(parts).mean(0)
