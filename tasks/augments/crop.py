"""Pad an image and cut a window of the old size out of it, as is usual on CIFAR (He et al., arXiv:1512.03385)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Generator, Tensor

from tasks.augments import Augment
from tasks.engine import imaging
from tasks.engine.imaging import Fill


class Params(Augment):
    padding: int = Field(default=4, ge=1)  # pixels on each side
    fill: Fill = "black"

    @property
    def moves(self) -> bool:
        return self.fill == "black"  # torch may mirror and repeat no bytes on a GPU


def augment(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    shape, device = (2, len(images_BCHW)), generator.device
    down_B, right_B = torch.randint(-params.padding, params.padding + 1, shape, generator=generator, device=device)
    return imaging.moved(images_BCHW, down_B, right_B, params.padding, params.fill)
