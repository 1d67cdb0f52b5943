"""Gradients of convolutions as matrix products, beside torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models._convolution import FewChannels, FewPlaces, QuickConv2d

WAYS = [FewChannels, FewPlaces]


@pytest.mark.parametrize(
    ("channels", "kernel", "padding", "bias"),
    [(1, 3, 0, True), (1, 5, (2, 1), False), (3, 3, 1, True), (4, (1, 3), 0, True), (3, 1, 0, True)],
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("out", [7, 26])  # of one channel, fewer than the pixels that each sees, and more
def test_all_three_gradients_are_those_of_a_convolution(
    channels: int,
    kernel: int | tuple[int, int],
    padding: int | tuple[int, int],
    bias: bool,
    out: int,
    way: type[torch.autograd.Function],
) -> None:
    torch.manual_seed(0)
    layer = QuickConv2d(channels, out, kernel, padding=padding, bias=bias).double()
    images = torch.rand(4, channels, 11, 9, dtype=torch.double, requires_grad=True)
    assert isinstance(layer.padding, tuple)
    given = way.apply(images, layer.weight, layer.bias, layer.padding)
    wanted = layer(images)
    assert given.stride() == wanted.stride() or given.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(given, wanted, rtol=1e-12)
    slope = torch.rand_like(wanted)
    asked = [images, *layer.parameters()]
    for got, known in zip(
        torch.autograd.grad(given, asked, slope), torch.autograd.grad(wanted, asked, slope), strict=True
    ):
        assert torch.allclose(got, known, rtol=1e-12)


@pytest.mark.parametrize(("channels", "out"), [(1, 4), (1, 10), (2, 3)])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_gradients_can_be_gone_back_through(
    channels: int, out: int, frozen: bool, way: type[torch.autograd.Function]
) -> None:
    torch.manual_seed(0)
    layer = QuickConv2d(channels, out, 3, padding=1).double()
    layer.weight.requires_grad_(not frozen)
    images = torch.rand(2, channels, 5, 4, dtype=torch.double, requires_grad=True)

    def through(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = way.apply(images, weight, bias, (1, 1))
        return found

    assert torch.autograd.gradcheck(through, (images, layer.weight, layer.bias))
    assert torch.autograd.gradgradcheck(through, (images, layer.weight, layer.bias))


@pytest.mark.parametrize(("channels", "side", "way"), [(1, 12, "FewChannels"), (8, 6, "FewPlaces"), (8, 9, "Conv")])
def test_under_autocast_a_layer_learns_what_torchs_learns(channels: int, side: int, way: str) -> None:
    torch.manual_seed(0)
    ours, theirs = QuickConv2d(channels, 16, 3), nn.Conv2d(channels, 16, 3)
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(16, channels, side, side)
    slope = torch.rand(16, 16, side - 2, side - 2)
    for layer in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16):
            answers = layer(images)
        assert answers.dtype == torch.bfloat16
        assert layer is theirs or way in type(answers.grad_fn).__name__
        answers.backward(slope.bfloat16())
    for got, known in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert got.grad is not None
        assert known.grad is not None
        assert got.grad.dtype == torch.float32
        assert torch.allclose(got.grad, known.grad, rtol=2e-2)


@pytest.mark.parametrize("given", [{"stride": 2}, {"dilation": 2}, {"padding": "same"}, {"padding_mode": "circular"}])
def test_what_does_not_suit_is_torchs(given: dict[str, object]) -> None:
    torch.manual_seed(0)
    layer = QuickConv2d(1, 4, 3, **given)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        answers = layer(torch.rand(2, 1, 12, 12))
    assert "Few" not in type(answers.grad_fn).__name__
