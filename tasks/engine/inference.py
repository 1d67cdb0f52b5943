"""What a network answers: logits in fp32 and in eval mode, whatever the caller works in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

MICROBATCH = 64  # images; of more, a small network's layers leave the cache


def to_float(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 pixels 0…255 → fp32 in [0, 1]."""
    if pixels.dtype != torch.uint8:
        raise ValueError(f"expected uint8 pixels, got {pixels.dtype}")
    return pixels.to(torch.float32).div_(255)


def answer(net: nn.Module, pixels_NCHW: torch.Tensor, *, batch: int = 512) -> tuple[torch.Tensor, torch.Tensor]:
    """The network's answer to uint8 pixels: classes_N (int64) and probabilities_NK, in fp32, on the CPU."""
    if pixels_NCHW.ndim != 4:
        raise ValueError(f"pixels of shape expected pixels of shape N×C×H×W, got {tuple(pixels_NCHW.shape)}")
    if len(pixels_NCHW) == 0:
        logits_NK = logits_of(net, to_float(torch.zeros(1, *pixels_NCHW.shape[1:], dtype=torch.uint8)))[:0]
    else:
        logits_NK = torch.cat(
            [logits_of(net, to_float(pixels_NCHW[at : at + batch])) for at in range(0, len(pixels_NCHW), batch)]
        )
    return logits_NK.argmax(1).cpu(), logits_NK.softmax(1).cpu()


def logits_of(net: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Logits in fp32 and eval mode, whatever precision the caller works in; on the network's device."""
    device = device_of(net)
    images_BCHW = images_BCHW.to(device, torch.float32)
    with evaluating(net), torch.no_grad(), torch.autocast(device.type, enabled=False):
        parts = [net(channels_last(images_BCHW[part])) for part in microbatches(net, images_BCHW)]
    logits_BK: torch.Tensor = torch.cat(parts)
    if logits_BK.dtype != torch.float32:
        raise ValueError(f"what is reported is measured in fp32, and the network answers in {logits_BK.dtype}")
    return logits_BK


def channels_last(images_BCHW: torch.Tensor) -> torch.Tensor:
    """The same images, a pixel's channels side by side, as convolutions are fastest; no gradient leads back to them.

    Copied even where it is both layouts at once, with one channel: strides decide which way a convolution goes.
    """
    images_BCHW = images_BCHW.detach()
    if images_BCHW.shape[1] > 1:
        return images_BCHW.contiguous(memory_format=torch.channels_last)
    return torch.empty_like(images_BCHW, memory_format=torch.channels_last).copy_(images_BCHW)


def microbatches(net: nn.Module, images_BCHW: torch.Tensor) -> list[slice]:
    """The parts in which a network goes through a batch fastest: on the CPU, few enough that its layers stay cached.

    One part where images lie elsewhere, and where batch norm in training mode makes an answer hang on the others.
    """
    whole = images_BCHW.device.type != "cpu" or any(isinstance(m, _BatchNorm) and m.training for m in net.modules())
    size = len(images_BCHW) if whole else MICROBATCH
    return [slice(at, at + size) for at in range(0, max(len(images_BCHW), 1), max(size, 1))]


def device_of(net: nn.Module) -> torch.device:
    """Where a network's weights lie; the CPU if it has none."""
    return next((p.device for p in net.parameters()), torch.device("cpu"))


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module is in the mode it had."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
