"""Convolutions of few channels, or of few places, whose gradients in bf16 are matrix products: oneDNN's own kernels
take up to several times as long where there is little to vectorize over."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

FEW = 4  # input channels up to which matrix products are the faster way for every gradient
PLACES = 16  # answers of an image up to which one is for the weight's


class FewChannels(torch.autograd.Function):
    """A convolution of stride 1; every gradient is one matrix product, the input's added up where each part belongs.

    Of one channel the answer is a matrix product too, with the bias as one more weight, as long as what every answer
    sees is less than what it says: it is kept for the weight's gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        maps_BCHW: torch.Tensor,
        weight_OCKL: torch.Tensor,
        bias_O: torch.Tensor | None,
        padding: tuple[int, int],
    ) -> torch.Tensor:
        out, channels, rows, columns = weight_OCKL.shape
        ctx.padding, ctx.shape = padding, maps_BCHW.shape
        kept_BCHW = maps_BCHW if ctx.needs_input_grad[1] else None
        if channels > 1 or rows * columns >= out:
            ctx.save_for_backward(weight_OCKL, kept_BCHW, None)
            return F.conv2d(maps_BCHW, weight_OCKL, bias_O, padding=padding)
        seen_UP = _seen(maps_BCHW, rows, columns, padding, biased=bias_O is not None)
        ctx.save_for_backward(weight_OCKL, kept_BCHW, None if kept_BCHW is None else seen_UP)
        weight_UO = weight_OCKL.reshape(out, -1).t()
        if bias_O is not None:
            weight_UO = torch.cat([weight_UO, bias_O[None]])
        b, height, width = _answers(maps_BCHW.shape, rows, columns, padding)
        return (seen_UP.t() @ weight_UO).view(b, height, width, out).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient_BOHW: torch.Tensor) -> Any:
        weight_OCKL, maps_BCHW, seen_UP = ctx.saved_tensors
        asked, (out, channels, rows, columns) = ctx.needs_input_grad, weight_OCKL.shape
        flat_PO = gradient_BOHW.permute(0, 2, 3, 1).reshape(-1, out)
        of_weight = of_bias = None
        if asked[1]:
            if seen_UP is None or torch.is_grad_enabled():  # what was kept does not know where it came from
                seen_UP = _seen(maps_BCHW, rows, columns, ctx.padding, biased=asked[2])
            found_UO, window = seen_UP @ flat_PO, channels * rows * columns
            of_weight = found_UO[:window].view(channels, rows, columns, out).permute(3, 0, 1, 2)
            of_bias = found_UO[window] if asked[2] else None
        elif asked[2]:
            of_bias = flat_PO.sum(0)
        of_input = _of_input(flat_PO, weight_OCKL, ctx.shape, ctx.padding) if asked[0] else None
        return of_input, of_weight, of_bias, None


class FewPlaces(torch.autograd.Function):
    """A convolution of stride 1, whose weight's gradient is one matrix product."""

    @staticmethod
    def forward(
        ctx: Any,
        maps_BCHW: torch.Tensor,
        weight_OCKL: torch.Tensor,
        bias_O: torch.Tensor | None,
        padding: tuple[int, int],
    ) -> torch.Tensor:
        ctx.padding = padding
        ctx.save_for_backward(maps_BCHW, weight_OCKL)
        return F.conv2d(maps_BCHW, weight_OCKL, bias_O, padding=padding)

    @staticmethod
    def backward(ctx: Any, gradient_BOHW: torch.Tensor) -> Any:
        maps_BCHW, weight_OCKL = ctx.saved_tensors
        out, channels, rows, columns = weight_OCKL.shape
        flat_PO = gradient_BOHW.permute(0, 2, 3, 1).reshape(-1, out)
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = conv2d_input(maps_BCHW.shape, weight_OCKL, gradient_BOHW, padding=ctx.padding)
        if ctx.needs_input_grad[1]:
            windows = _windows(maps_BCHW, rows, columns, ctx.padding)
            seen_PU = windows.permute(0, 2, 3, 4, 5, 1).reshape(len(flat_PO), -1)
            of_weight = (flat_PO.t() @ seen_PU).view(out, rows, columns, channels).permute(0, 3, 1, 2)
        return of_input, of_weight, flat_PO.sum(0) if ctx.needs_input_grad[2] else None, None


def plain(conv: nn.Conv2d) -> bool:
    """Whether the functions here can stand for this layer."""
    usual = conv.stride == conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    return usual and not isinstance(conv.padding, str)


def suits(conv: nn.Conv2d) -> bool:
    """Whether `FewChannels` can stand for this layer, and is the faster way."""
    return plain(conv) and conv.in_channels <= FEW


def in_bf16(images_BCHW: torch.Tensor) -> bool:
    """Whether autocast to bf16 is on for their device."""
    kind = images_BCHW.device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


class QuickConv2d(nn.Conv2d):
    """torch's; under bf16 autocast on the CPU by `FewChannels` or `FewPlaces`, where one of them is the faster way."""

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        if maps_BCHW.device.type != "cpu" or not in_bf16(maps_BCHW) or not plain(self):
            return super().forward(maps_BCHW)
        (rows, columns), padding = self.kernel_size, cast("tuple[int, int]", self.padding)
        _, height, width = _answers(maps_BCHW.shape, rows, columns, padding)
        if self.in_channels > FEW and height * width > PLACES:
            return super().forward(maps_BCHW)
        way = FewChannels if self.in_channels <= FEW else FewPlaces
        bias_O = None if self.bias is None else self.bias.bfloat16()
        found: torch.Tensor = way.apply(maps_BCHW.bfloat16(), self.weight.bfloat16(), bias_O, padding)
        return found


def _answers(shape: torch.Size, rows: int, columns: int, padding: tuple[int, int]) -> tuple[int, int, int]:
    """Images, and rows and columns of the answer."""
    b, _, height, width = shape
    return b, height + 2 * padding[0] - rows + 1, width + 2 * padding[1] - columns + 1


def _windows(maps_BCHW: torch.Tensor, rows: int, columns: int, padding: tuple[int, int]) -> torch.Tensor:
    """What is seen from every place: B×C×H×W×rows×columns."""
    down, across = padding
    return F.pad(maps_BCHW, (across, across, down, down)).unfold(2, rows, 1).unfold(3, columns, 1)


def _seen(maps_BCHW: torch.Tensor, rows: int, columns: int, padding: tuple[int, int], *, biased: bool) -> torch.Tensor:
    """A row for each weight: the pixels that it meets, in all P = B·H·W places; then a row of ones for the bias."""
    windows, channels = _windows(maps_BCHW, rows, columns, padding), maps_BCHW.shape[1]
    window, places = channels * rows * columns, _answers(maps_BCHW.shape, rows, columns, padding)
    seen_UP = maps_BCHW.new_empty(window + biased, math.prod(places))
    seen_UP[:window].view(channels, rows, columns, *places).copy_(windows.permute(1, 4, 5, 0, 2, 3))
    seen_UP[window:] = 1
    return seen_UP


def _of_input(
    flat_PO: torch.Tensor, weight_OCKL: torch.Tensor, shape: torch.Size, padding: tuple[int, int]
) -> torch.Tensor:
    out, channels, rows, columns = weight_OCKL.shape
    b, height, width = _answers(shape, rows, columns, padding)
    each = weight_OCKL.permute(2, 3, 1, 0).reshape(-1, out) @ flat_PO.t()
    # As wide as the input, with nothing at the end of rows and images: a place further on is so many numbers on.
    whole_height, whole_width = height + rows - 1, width + columns - 1
    parts = flat_PO.new_zeros(rows * columns, channels, b, whole_height, whole_width)
    parts[..., :height, :width] = each.view(rows * columns, channels, b, height, width)
    lines = parts.flatten(1)
    for at in range(1, rows * columns):
        further = at // columns * whole_width + at % columns
        lines[0][further:].add_(lines[at][:-further])
    down, across = padding
    whole_BCHW = parts[0].transpose(0, 1)
    return whole_BCHW[:, :, down : whole_height - down, across : whole_width - across]
