"""Gaussian noise, its deviation drawn for every image."""

from __future__ import annotations

from pydantic import Field
from torch import Generator, Tensor

from tasks.augments import Augment
from tasks.engine import imaging


class Params(Augment):
    sigma: float = Field(default=0.1, gt=0, le=1)  # largest deviation, pixels in [0, 1]; drawn evenly from 0 on


def augment(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    sigma_B = imaging.uniform(images_BCHW, 0, params.sigma, generator)
    return imaging.gaussian_noise(images_BCHW, sigma_B, generator, imaging.rough_normal)
