"""Salt-and-pepper noise, impulse noise: pixels turned black or white (arXiv:1903.12261)."""

from __future__ import annotations

from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen
from tasks.engine import imaging


class Params(Frozen):
    """Parameters of the shift."""

    amount: float = Field(gt=0, le=1)  # share of the pixels


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """A share of the pixels, in all channels at once, half of them black and half white."""
    return imaging.salt_and_pepper(images_BCHW, params.amount, generator)
