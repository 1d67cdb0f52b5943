"""A random affine map of each image: shear, scale, rotation and translation at once."""

from __future__ import annotations

import math

from pydantic import Field
from torch import Generator, Tensor

from tasks.augments import Augment
from tasks.engine import imaging
from tasks.engine.imaging import Fill


class Params(Augment):
    """Each is drawn evenly between minus and plus this, for every image anew."""

    degrees: float = Field(default=10.0, ge=0, le=180)  # of rotation
    translate: float = Field(default=0.1, ge=0, le=1)  # share of the image's height and width
    scale: float = Field(default=0.1, ge=0, lt=1)  # share added to, or taken from, the size
    shear: float = Field(default=5.0, ge=0, lt=90)  # degrees
    fill: Fill = "black"


def augment(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    height, width = images_BCHW.shape[2:]
    turn, shear = math.radians(params.degrees), math.radians(params.shear)
    limits = (turn, params.scale, shear, params.translate * width, params.translate * height)
    angle, scale, slant, right, down = imaging.within(images_BCHW, limits, generator)
    return imaging.affine(images_BCHW, angle, 1 + scale, slant, right, down, params.fill)
