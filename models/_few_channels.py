"""A convolution of few channels, whose gradients in bf16 are matrix products: oneDNN's own kernels take several times
as long where there is nothing to vectorize over."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

FEW = 4  # input channels up to which the matrix products are the faster way


class FewChannels(torch.autograd.Function):
    """A convolution of stride 1; every gradient is one matrix product, the input's added up where each part belongs."""

    @staticmethod
    def forward(
        ctx: Any,
        maps_BCHW: torch.Tensor,
        weight_OCKL: torch.Tensor,
        bias_O: torch.Tensor | None,
        padding: tuple[int, int],
    ) -> torch.Tensor:
        ctx.padding = padding
        ctx.save_for_backward(maps_BCHW if ctx.needs_input_grad[1] else None, weight_OCKL)
        return F.conv2d(maps_BCHW, weight_OCKL, bias_O, padding=padding)

    @staticmethod
    def backward(ctx: Any, gradient_BOHW: torch.Tensor) -> Any:
        maps_BCHW, weight_OCKL = ctx.saved_tensors
        asked = ctx.needs_input_grad
        flat_PO = gradient_BOHW.permute(0, 2, 3, 1).reshape(-1, len(weight_OCKL))
        return (
            _of_input(gradient_BOHW, flat_PO, weight_OCKL, ctx.padding) if asked[0] else None,
            _of_weight(maps_BCHW, flat_PO, weight_OCKL, ctx.padding) if asked[1] else None,
            flat_PO.sum(0) if asked[2] else None,
            None,
        )


def suits(conv: nn.Conv2d) -> bool:
    """Whether `FewChannels` can stand for this layer, and is the faster way."""
    plain = conv.stride == conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    return plain and conv.in_channels <= FEW and not isinstance(conv.padding, str)


def in_bf16(images_BCHW: torch.Tensor) -> bool:
    """Whether autocast to bf16 is on for their device."""
    kind = images_BCHW.device.type
    return torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16


class FirstConv2d(nn.Conv2d):
    """torch's, for the first layer of a network: under bf16 autocast, where it suits, by `FewChannels`."""

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        if maps_BCHW.device.type != "cpu" or not in_bf16(maps_BCHW) or not suits(self):
            return super().forward(maps_BCHW)
        bias_O = None if self.bias is None else self.bias.bfloat16()
        found: torch.Tensor = FewChannels.apply(maps_BCHW.bfloat16(), self.weight.bfloat16(), bias_O, self.padding)
        return found


def _of_input(
    gradient_BOHW: torch.Tensor, flat_PO: torch.Tensor, weight_OCKL: torch.Tensor, padding: tuple[int, int]
) -> torch.Tensor:
    out, channels, rows, columns = weight_OCKL.shape
    b, _, height, width = gradient_BOHW.shape
    each = flat_PO @ weight_OCKL.permute(0, 2, 3, 1).reshape(out, -1)
    each = each.view(b, height, width, rows * columns, channels).permute(3, 4, 0, 1, 2)
    # As wide as the input, with nothing at the end of rows and images: a place further on is so many numbers on.
    whole_height, whole_width = height + rows - 1, width + columns - 1
    parts = gradient_BOHW.new_zeros(rows * columns, channels, b, whole_height, whole_width)
    parts[..., :height, :width] = each
    whole, *others = parts.flatten(1)
    for at, other in enumerate(others, start=1):
        further = at // columns * whole_width + at % columns
        whole[further:] += other[:-further]
    down, across = padding
    whole_BCHW = parts[0].transpose(0, 1)
    return whole_BCHW[:, :, down : whole_height - down, across : whole_width - across]


def _of_weight(
    maps_BCHW: torch.Tensor, flat_PO: torch.Tensor, weight_OCKL: torch.Tensor, padding: tuple[int, int]
) -> torch.Tensor:
    out, channels, rows, columns = weight_OCKL.shape
    down, across = padding
    seen = F.pad(maps_BCHW, (across, across, down, down)).unfold(2, rows, 1).unfold(3, columns, 1)
    seen_UP = seen.permute(1, 4, 5, 0, 2, 3).reshape(channels * rows * columns, -1)
    return (seen_UP @ flat_PO).view(channels, rows, columns, out).permute(3, 0, 1, 2)
