"""JPEG: what a strong compression leaves (arXiv:1903.12261)."""

from __future__ import annotations

import io

import torch
from pydantic import Field
from torch import Generator, Tensor

from data.shards import decode_png, to_image
from tasks.config.params import Frozen
from tasks.engine.inference import to_float


class Params(Frozen):
    """Parameters of the shift."""

    quality: int = Field(ge=1, le=95)  # of the encoder, at the least; each image draws up to 5 more


def shift(images_BCHW: Tensor, params: Params, generator: Generator) -> Tensor:
    """The images, written as JPEG and read again."""
    more_B = torch.randint(0, 6, (len(images_BCHW),), generator=generator, device=generator.device).tolist()
    if not more_B:
        return images_BCHW
    pixels = (images_BCHW.detach().cpu() * 255).round().to(torch.uint8)
    read = [_compressed(image, params.quality + more) for image, more in zip(pixels, more_B, strict=True)]
    return to_float(torch.stack(read)).to(images_BCHW.device)


def _compressed(pixels_CHW: Tensor, quality: int) -> Tensor:
    buffer = io.BytesIO()
    to_image(pixels_CHW).save(buffer, format="JPEG", quality=quality)
    return decode_png(buffer.getvalue(), len(pixels_CHW))
