"""Augmentation: random changes of training images, in batch, one file each; this is their base.

A file has `Params`, whose fields have defaults, and `augment(images_BCHW, params, generator)`: fp32 pixels in [0, 1]
in and out, every image changed by draws of its own. One that only moves pixels about says so by `Params.moves`, and is
given them as bytes where nothing else came before it: a quarter of the memory, and the same images. `train.augment` in
params.yaml switches them on, by name and in order. A name that tasks/shifts/ has too is the same change, so that a
shift trained on can be reported as seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from tasks.config.kinds import kind
from tasks.config.params import Frozen, KindParams, Share
from tasks.engine.inference import to_float


class Augment(Frozen):
    """What the parameters of every kind have."""

    share: Share = 1.0  # of the images, drawn anew for each, that are changed

    @property
    def moves(self) -> bool:
        """Whether pixels are only moved about, so that bytes may be."""
        return False


@dataclass(frozen=True)
class Chosen:
    """A kind of augmentation and its checked parameters."""

    module: Any
    params: Any


def chosen(kinds: Mapping[str, KindParams], where: str = "train.augment") -> tuple[Chosen, ...]:
    """What that key of params.yaml asks for, checked once before training; ParamsError says what is wrong with it."""
    return tuple(Chosen(*kind("augments", name, given, f"{where}.{name}")) for name, given in kinds.items())


def augmented(images_BCHW: Tensor, kinds: tuple[Chosen, ...], generator: Generator) -> Tensor:
    """uint8 pixels, or fp32 images in [0, 1] → fp32 images in [0, 1], each changed at random by every kind in turn.

    The input is left as it was. The same generator state gives the same images, of bytes and of their fp32. Without
    kinds nothing is drawn, and fp32 images are given back.
    """
    if images_BCHW.ndim != 4 or images_BCHW.dtype not in (torch.float32, torch.uint8):
        raise ValueError(
            f"expected uint8 or fp32 images of shape N×C×H×W, got {images_BCHW.dtype} {tuple(images_BCHW.shape)}"
        )
    if kinds:
        images_BCHW = images_BCHW.contiguous()  # plane by plane, as these operations are fast
    for one in kinds:
        if images_BCHW.dtype == torch.uint8 and not one.params.moves:
            images_BCHW = to_float(images_BCHW)
        images_BCHW = _done(images_BCHW, one, generator)
    return to_float(images_BCHW) if images_BCHW.dtype == torch.uint8 else images_BCHW


def _done(images_BCHW: Tensor, one: Chosen, generator: Generator) -> Tensor:
    share = one.params.share
    if share == 1:
        changed: Tensor = one.module.augment(images_BCHW, one.params, generator)
        return changed
    drawn_B = torch.rand(len(images_BCHW), generator=generator, device=generator.device)
    index = (drawn_B < share).nonzero()[:, 0].to(images_BCHW.device)
    if len(index) == 0:
        return images_BCHW
    return images_BCHW.index_copy(0, index, one.module.augment(images_BCHW[index], one.params, generator))
