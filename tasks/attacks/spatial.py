"""Rotation and translation (Engstrom et al., arXiv:1712.02779): the attack closest to what a hand does.

Its budget is its own, degrees and pixels, and the norm ball plays no part. `random` tries so many at random, the
paper's worst of ten; `grid` tries every combination of evenly spaced ones. Both begin from the images as they are.
Differs: what lies outside of the image is chosen; an image that is fooled is left alone from then on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from tasks.attacks import margin
from tasks.config.params import Count, Frozen, Share, Threat
from tasks.engine import imaging

OWN_BUDGET = True  # tells the base that the norm ball does not hold here


class Params(Frozen):
    degrees: float = Field(default=30.0, ge=0, le=180)  # of rotation, either way, at most
    translate: Share = 0.1  # share of the image's height and width, either way, at most
    search: Literal["random", "grid"] = "random"
    tries: Count = 10  # of random
    rotations: Count = 31  # of grid, from one end to the other
    translations: Count = 5  # of grid, along each axis
    fill: imaging.Fill = "black"


def passes(params: Params) -> float:
    """In gradients: a pass forward costs about a third of one there and back."""
    tries = params.tries if params.search == "random" else params.rotations * params.translations**2
    return tries / 3


def perturb(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    threat: Threat,
    params: Params,
    generator: torch.Generator,
) -> torch.Tensor:
    """B×C×H×W pixels in [0, 1] → as many, turned and moved; the worst that was tried."""
    found_BCHW, margin_B = images_BCHW.clone(), margin(net, images_BCHW, labels_B)
    for angle, across, down in (
        _random(images_BCHW, params, generator) if params.search == "random" else _grid(images_BCHW, params)
    ):
        standing = (margin_B <= 0).nonzero()[:, 0]
        if len(standing) == 0:
            break
        angle_S, across_S, down_S = (each.to(images_BCHW.device)[standing] for each in (angle, across, down))
        still_S = torch.ones_like(angle_S)
        tried = imaging.affine(
            images_BCHW[standing], angle_S, still_S, torch.zeros_like(still_S), across_S, down_S, params.fill
        )
        margin_S = margin(net, tried, labels_B[standing])
        better = margin_S > margin_B[standing]
        taken = standing[better]
        found_BCHW[taken], margin_B[taken] = tried[better], margin_S[better]
    return found_BCHW


Move = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # radians, pixels to the right, pixels down; B each


def _random(images_BCHW: torch.Tensor, params: Params, generator: torch.Generator) -> Iterator[Move]:
    turn = math.radians(params.degrees)
    down, across = (params.translate * size for size in images_BCHW.shape[2:])
    for _ in range(params.tries):
        angle_B, across_B, down_B = imaging.within(images_BCHW, (turn, across, down), generator)
        yield angle_B, across_B, down_B


def _grid(images_BCHW: torch.Tensor, params: Params) -> Iterator[Move]:
    turn = math.radians(params.degrees)
    down, across = (params.translate * size for size in images_BCHW.shape[2:])
    for angle, right, low in itertools.product(
        _spaced(turn, params.rotations), _spaced(across, params.translations), _spaced(down, params.translations)
    ):
        angle_B, across_B, down_B = (torch.full((len(images_BCHW),), value) for value in (angle, right, low))
        yield angle_B, across_B, down_B


def _spaced(limit: float, count: int) -> list[float]:
    return [0.0] if count == 1 else [limit * (2 * i / (count - 1) - 1) for i in range(count)]
