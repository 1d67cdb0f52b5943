"""A random affine map of each image: rotation, translation, scale and shear at once."""

from __future__ import annotations

import math

import torch
from pydantic import Field

from tasks.config.params import Frozen
from tasks.engine import imaging


class Params(Frozen):
    """Each is drawn uniformly between minus and plus this, for every image anew."""

    degrees: float = Field(ge=0, le=180)  # of rotation
    translate: float = Field(ge=0, le=1)  # share of the image's height and width
    scale: float = Field(ge=0, lt=1)  # share added to, or taken from, the size
    shear: float = Field(ge=0, lt=90)  # degrees


def shift(images_BCHW: torch.Tensor, params: Params, generator: torch.Generator) -> torch.Tensor:
    """The images, moved about their centre; bilinear, black where nothing was."""
    if len(images_BCHW) == 0:
        return images_BCHW
    height, width = images_BCHW.shape[2:]
    turn, shear = math.radians(params.degrees), math.radians(params.shear)
    limits = (turn, params.scale, shear, params.translate * width, params.translate * height)
    angle, scale, slant, right, down = imaging.within(images_BCHW, limits, generator)
    return imaging.affine(images_BCHW, angle, 1 + scale, slant, right, down)
