"""Brightness, contrast, saturation and hue, each drawn for every image; grey images have the first two only."""

from __future__ import annotations

from pydantic import Field
from torch import Generator, Tensor

from tasks.augments import Augment
from tasks.engine import imaging


class Params(Augment):
    """Factors are drawn evenly between 1 − strength and 1 + strength."""

    brightness: float = Field(default=0.2, ge=0, le=1)
    contrast: float = Field(default=0.2, ge=0, le=1)
    saturation: float = Field(default=0.2, ge=0, le=1)
    hue: float = Field(default=0.02, ge=0, le=0.5)  # turns of the colour wheel, either way


def augment(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    strengths = (params.brightness, params.contrast, params.saturation, params.hue)
    brightness, contrast, saturation, hue = imaging.within(images_BCHW, strengths, generator)
    return imaging.colour(images_BCHW, 1 + brightness, 1 + contrast, 1 + saturation, hue)
