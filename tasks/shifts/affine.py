"""A random affine map of each image: rotation, translation, scale and shear at once."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch.nn.functional import affine_grid, grid_sample

from tasks.params import Frozen


class Params(Frozen):
    """Each is drawn uniformly between minus and plus this, for every image anew."""

    degrees: float = Field(ge=0, le=180)  # of rotation
    translate: float = Field(ge=0, le=1)  # share of the image's height and width
    scale: float = Field(ge=0, lt=1)  # share added to, or taken from, the size
    shear: float = Field(ge=0, lt=90)  # degrees


def shift(images_BCHW: torch.Tensor, params: Params, generator: torch.Generator) -> torch.Tensor:
    """The images, moved about their centre; bilinear, black where nothing was."""
    b = len(images_BCHW)
    if b == 0:
        return images_BCHW

    def uniform(limit: float) -> torch.Tensor:
        return (2 * torch.rand(b, generator=generator) - 1) * limit

    angle_B, shear_B = uniform(math.radians(params.degrees)), uniform(math.radians(params.shear))
    scale_B = 1 + uniform(params.scale)
    across_B, down_B = 2 * uniform(params.translate), 2 * uniform(params.translate)
    # From output to input coordinates, in affine_grid's units of half an image.
    cos_B, sin_B = angle_B.cos() / scale_B, angle_B.sin() / scale_B
    first_B3 = torch.stack([cos_B, sin_B + shear_B.tan() * cos_B, -across_B], dim=1)
    second_B3 = torch.stack([-sin_B, cos_B - shear_B.tan() * sin_B, -down_B], dim=1)
    theta_B23 = torch.stack([first_B3, second_B3], dim=1).to(images_BCHW)
    grid_BHW2 = affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
    return grid_sample(images_BCHW, grid_BHW2, padding_mode="zeros", align_corners=False).clamp(0, 1)
