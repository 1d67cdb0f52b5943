"""Contrast: pixels drawn together to the image's mean (arXiv:1903.12261)."""

from __future__ import annotations

from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen
from tasks.engine import imaging

SEEN_WITH = ("colour_jitter",)  # the augmentation that does this too


class Params(Frozen):
    """Parameters of the shift."""

    factor: float = Field(gt=0, lt=1)  # least that is left of the distance to the mean; drawn up to halfway to 1


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """mean + factor · (images − mean), the mean that of each image's channels."""
    factor_B = imaging.uniform(images_BCHW, params.factor, (1 + params.factor) / 2, generator)
    mean_BC11 = images_BCHW.mean((2, 3), keepdim=True)
    return (mean_BC11 + factor_B[:, None, None, None] * (images_BCHW - mean_BC11)).clamp(0, 1)
