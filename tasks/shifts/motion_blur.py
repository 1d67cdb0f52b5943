"""Motion blur: the camera moved in a direction of each image's own (arXiv:1903.12261)."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen
from tasks.engine import imaging
from tasks.shifts._kernels import convolved, ways


class Params(Frozen):
    """Parameters of the shift."""

    length: float = Field(gt=0, le=100)  # of the way, pixels


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """The mean of the images along a straight way."""
    angle_B = imaging.uniform(images_BCHW, 0, math.pi, generator)
    return convolved(images_BCHW, ways(angle_B, params.length))
