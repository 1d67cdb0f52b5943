"""Mirror an image with a chance of one half, left and right, top and bottom, or both. Digits do not bear it."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from tasks.augments import Augment
from tasks.engine import imaging


class Params(Augment):
    horizontal: bool = True  # left and right
    vertical: bool = False  # top and bottom

    @property
    def moves(self) -> bool:
        return True


def augment(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    for wanted, across in ((params.horizontal, True), (params.vertical, False)):
        if wanted:
            which_B = torch.rand(len(images_BCHW), generator=generator, device=generator.device) < 0.5
            images_BCHW = imaging.flipped(images_BCHW, which_B, across=across)
    return images_BCHW
