"""Max-pooling of 2×2 and the ReLU on it in one layer, several pixels at a time: torch's own goes pixel by pixel, and
keeps 8 bytes for each, which on small images takes as long as a convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class RectifiedMaxPool(nn.Module):
    """`nn.MaxPool2d(2)` and then `nn.ReLU()`, the same answers and gradients; no weights.

    On the CPU, of channels-last maps. Differs: in bf16, where a gradient is asked for, a NaN may count as negative.
    """

    def forward(self, maps_BCHW: torch.Tensor) -> torch.Tensor:
        whole = maps_BCHW.is_contiguous(memory_format=torch.channels_last) and maps_BCHW.shape[2] % 2 == 0
        if maps_BCHW.device.type == "cpu" and whole and maps_BCHW.shape[3] % 2 == 0:
            if not (torch.is_grad_enabled() and maps_BCHW.requires_grad):
                left, right = _columns(maps_BCHW)
                rows = torch.maximum(left, right)
                return torch.maximum(rows[:, :, 0], rows[:, :, 1]).relu_().permute(0, 3, 1, 2)
            if maps_BCHW.dtype == torch.bfloat16:
                found: torch.Tensor = _Pooled.apply(maps_BCHW)
                return found
        return F.max_pool2d(maps_BCHW, 2).relu()


class _Pooled(torch.autograd.Function):
    """In bf16 on the bits, as int16: the order of numbers that are not negative is that of their bits, and the negative
    ones are no more after a ReLU. Where several are the largest, the first one gets the gradient, as torch has it."""

    @staticmethod
    def forward(ctx: Any, maps_BCHW: torch.Tensor) -> torch.Tensor:
        left, right = _columns(maps_BCHW.view(torch.int16))
        first = left.relu()
        rows = torch.maximum(first, right)
        across = first.sub_(rows).bitwise_right_shift_(15)  # every bit set where the right one is larger
        found = torch.maximum(rows[:, :, 0], rows[:, :, 1])
        down = (rows[:, :, 0] - found).bitwise_right_shift_(15)
        ctx.save_for_backward(across, down, found)
        return found.view(torch.bfloat16).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient_BCHW: torch.Tensor) -> torch.Tensor:
        across, down, found = ctx.saved_tensors
        b, height, width, channels = found.shape
        gradient = gradient_BCHW.permute(0, 2, 3, 1).contiguous()
        if torch.is_grad_enabled():  # it will be gone back through itself
            gradient = gradient * (found > 0)
            rows = torch.stack((gradient * (1 + down), gradient * -down), 2)
            whole = torch.stack((rows * (1 + across), rows * -across), 4)
            return whole.view(b, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        gradient = (-found).bitwise_right_shift_(15).bitwise_and_(gradient.view(torch.int16))
        rows = torch.empty_like(across)
        torch.bitwise_and(gradient, down, out=rows[:, :, 1])
        torch.bitwise_xor(gradient, rows[:, :, 1], out=rows[:, :, 0])
        whole = rows.new_empty(b, height, 2, width, 2, channels)
        torch.bitwise_and(rows, across, out=whole[..., 1, :])
        torch.bitwise_xor(rows, whole[..., 1, :], out=whole[..., 0, :])
        return whole.view(b, 2 * height, 2 * width, channels).view(torch.bfloat16).permute(0, 3, 1, 2)


def _columns(maps_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The left and the right pixels of every window of channels-last maps, each B×H/2×2×W/2×C."""
    b, channels, height, width = maps_BCHW.shape
    pairs = maps_BCHW.permute(0, 2, 3, 1).view(b, height // 2, 2, width // 2, 2, channels)
    return pairs[..., 0, :], pairs[..., 1, :]
