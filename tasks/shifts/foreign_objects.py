"""Foreign objects: discs and boxes pasted into the background, beside what the image shows."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Generator, Tensor

from tasks.config.params import Frozen


class Params(Frozen):
    """Parameters of the shift."""

    count: int = Field(ge=1, le=20)  # of objects in an image
    size: float = Field(gt=0, le=0.5)  # of an object, share of the image's height and width
    middle: float = Field(default=0.25, ge=0, lt=0.7)  # radius kept free around the centre, share of the image's size


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """Every object has a place outside of the middle, a form, a size and one colour of its own."""
    b, channels, height, width = images_BCHW.shape
    found_BCHW = images_BCHW
    down_H1 = ((torch.arange(height) + 0.5) / height - 0.5)[:, None]
    across_W = (torch.arange(width) + 0.5) / width - 0.5
    for _ in range(params.count):
        drawn = torch.rand(b, 4 + channels, generator=generator, device=generator.device).cpu()
        radius_B = params.size / 2 * (0.5 + drawn[:, 0] / 2)
        # On a circle around the middle, far enough out that nothing of the object is in it, and cut by the border.
        angle_B, away_B = 2 * math.pi * drawn[:, 1], params.middle + math.sqrt(2) * radius_B + 0.15 * drawn[:, 2]
        y_BHW = down_H1 - (away_B * angle_B.sin())[:, None, None]
        x_BHW = across_W - (away_B * angle_B.cos())[:, None, None]
        round_BHW = x_BHW.square() + y_BHW.square() <= radius_B.square()[:, None, None]
        square_BHW = torch.maximum(x_BHW.abs(), y_BHW.abs()) <= radius_B[:, None, None]
        inside_BHW = torch.where((drawn[:, 3] < 0.5)[:, None, None], round_BHW, square_BHW)
        colour_BC11 = drawn[:, 4:, None, None].to(images_BCHW.device)
        found_BCHW = torch.where(inside_BHW[:, None].to(images_BCHW.device), colour_BC11, found_BCHW)
    return found_BCHW
