"""The first layer's gradients as matrix products, beside torch's own in fp32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models._few_channels import FewChannels, FirstConv2d


@pytest.mark.parametrize(
    ("channels", "kernel", "padding", "bias"),
    [(1, 3, 0, True), (1, 5, (2, 1), False), (3, 3, 1, True), (4, (1, 3), 0, True), (3, 1, 0, True)],
)
def test_all_three_gradients_are_those_of_a_convolution(
    channels: int, kernel: int | tuple[int, int], padding: int | tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    layer = FirstConv2d(channels, 7, kernel, padding=padding, bias=bias).double()
    images = torch.rand(4, channels, 11, 9, dtype=torch.double, requires_grad=True)
    assert isinstance(layer.padding, tuple)
    given = FewChannels.apply(images, layer.weight, layer.bias, layer.padding)
    wanted = layer(images)
    assert torch.equal(given, wanted)
    slope = torch.rand_like(wanted)
    asked = [images, *layer.parameters()]
    for got, known in zip(
        torch.autograd.grad(given, asked, slope), torch.autograd.grad(wanted, asked, slope), strict=True
    ):
        assert torch.allclose(got, known, rtol=1e-12)


def test_under_autocast_a_first_layer_learns_what_torchs_learns() -> None:
    torch.manual_seed(0)
    ours, theirs = FirstConv2d(1, 8, 3), nn.Conv2d(1, 8, 3)
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(16, 1, 12, 12)
    slope = torch.rand(16, 8, 10, 10)
    for layer in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16):
            answers = layer(images)
        assert answers.dtype == torch.bfloat16
        answers.backward(slope.bfloat16())
    for got, known in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert got.grad is not None
        assert known.grad is not None
        assert got.grad.dtype == torch.float32
        assert torch.allclose(got.grad, known.grad, rtol=2e-2)


@pytest.mark.parametrize("given", [{"stride": 2}, {"dilation": 2}, {"padding": "same"}, {"padding_mode": "circular"}])
def test_what_does_not_suit_is_torchs(given: dict[str, object]) -> None:
    torch.manual_seed(0)
    layer = FirstConv2d(1, 4, 3, **given)  # type: ignore[arg-type]
    with torch.autocast("cpu", torch.bfloat16):
        answers = layer(torch.rand(2, 1, 12, 12))
    assert "FewChannels" not in type(answers.grad_fn).__name__
