"""Salt-and-pepper noise: pixels turned black or white; how many is drawn for every image."""

from __future__ import annotations

from pydantic import Field
from torch import Generator, Tensor

from tasks.augments import Augment
from tasks.engine import imaging


class Params(Augment):
    amount: float = Field(default=0.05, gt=0, le=1)  # largest share of the pixels; drawn evenly from 0 on


def augment(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    amount_B = imaging.uniform(images_BCHW, 0, params.amount, generator)
    return imaging.salt_and_pepper(images_BCHW, amount_B, generator)
