"""Poisson noise: an image taken with little light; how noisy is drawn for every image."""

from __future__ import annotations

from pydantic import Field
from torch import Generator, Tensor

from tasks.augments import Augment
from tasks.engine import imaging


class Params(Augment):
    """Noise's deviation at white, 1/√photons, is drawn evenly between almost 0 and the strength."""

    photons: float = Field(default=50.0, ge=1)  # counted at a white pixel, at the least


def augment(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    deviation_B = imaging.uniform(images_BCHW, 1e-3, params.photons**-0.5, generator)
    return imaging.poisson_noise(images_BCHW, deviation_B**-2, generator, imaging.rough_normal)
