"""Elastic deformation: every pixel fetched from a little beside it (Simard et al. 2003; arXiv:1903.12261)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen
from tasks.engine import imaging


class Params(Frozen):
    """Parameters of the shift."""

    strength: float = Field(gt=0, le=50)  # root mean square of the pull along each axis, pixels
    smoothness: float = Field(ge=1, le=100)  # of the field, pixels


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """The images, pulled about by a smooth random field; black where nothing was."""
    strength_B = torch.full((len(images_BCHW),), params.strength, device=images_BCHW.device)
    return imaging.elastic(images_BCHW, strength_B, params.smoothness, generator, "black")
