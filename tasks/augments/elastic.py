"""Elastic deformation (Simard, Steinkraus & Platt 2003, ICDAR): a smooth random field pulls every pixel aside."""

from __future__ import annotations

from pydantic import Field
from torch import Generator, Tensor

from tasks.augments import Augment
from tasks.engine import imaging
from tasks.engine.imaging import Fill


class Params(Augment):
    strength: float = Field(default=1.0, gt=0)  # largest root mean square of the pull, pixels; drawn evenly from 0 on
    smoothness: float = Field(default=4.0, ge=1)  # deviation of the Gaussian that smooths the field, pixels
    fill: Fill = "black"


def augment(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    strength_B = imaging.uniform(images_BCHW, 0, params.strength, generator)
    return imaging.elastic(images_BCHW, strength_B, params.smoothness, generator, params.fill)
