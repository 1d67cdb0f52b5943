"""Brightness: all pixels lighter (arXiv:1903.12261)."""

from __future__ import annotations

from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen
from tasks.engine import imaging

SEEN_WITH = ("colour_jitter",)  # the augmentation that does this too


class Params(Frozen):
    """Parameters of the shift."""

    amount: float = Field(gt=0, le=1)  # most that is added, pixels in [0, 1]; drawn from half of it on


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """images + amount, clipped to [0, 1]."""
    amount_B = imaging.uniform(images_BCHW, params.amount / 2, params.amount, generator)
    return (images_BCHW + amount_B[:, None, None, None]).clamp(0, 1)
