"""Max-pooling with its ReLU, beside torch's two layers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models._pooling import RectifiedMaxPool

LAST = torch.channels_last


def known(maps: torch.Tensor) -> torch.Tensor:
    return F.max_pool2d(maps, 2).relu()


def maps_of(shape: tuple[int, int, int, int], dtype: torch.dtype, layout: torch.memory_format) -> torch.Tensor:
    """Half of them negative, many alike, and every sort of zero and of very large and small numbers."""
    torch.manual_seed(0)
    maps = (torch.randn(shape) * 3).round() / 3
    odd = torch.tensor([0.0, -0.0, 1e-39, -1e-39, 3e38, -3e38, float("inf"), -float("inf")])
    some = torch.rand(shape) < 0.1
    maps[some] = odd[torch.randint(len(odd), (int(some.sum()),))]
    return maps.to(dtype).contiguous(memory_format=layout).requires_grad_()


@pytest.mark.parametrize(
    "shape", [(3, 32, 8, 6), (5, 10, 4, 4), (2, 1, 6, 2), (1, 7, 2, 2), (3, 8, 7, 6), (3, 8, 6, 9)]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [LAST, torch.contiguous_format])
def test_answers_and_gradients_are_torchs_to_the_bit(
    shape: tuple[int, int, int, int], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    maps = maps_of(shape, dtype, layout)
    ours, wanted = RectifiedMaxPool()(maps), known(maps)
    assert ours.dtype == dtype
    assert torch.equal(ours, wanted)
    slope = torch.randn_like(wanted)
    (got,), (right,) = (torch.autograd.grad(answer, maps, slope) for answer in (ours, wanted))
    assert torch.equal(got, right)
    with torch.no_grad():
        assert torch.equal(RectifiedMaxPool()(maps), wanted)


def test_a_gradient_may_lie_in_memory_as_it_likes() -> None:
    maps = maps_of((3, 32, 8, 6), torch.bfloat16, LAST)
    assert "Pooled" in type(RectifiedMaxPool()(maps).grad_fn).__name__, "not the quick way"
    slope = torch.randn(3, 32, 4, 3, dtype=torch.bfloat16)
    for given in (slope, slope[:1, :1, :1, :1].expand_as(slope)):
        (got,) = torch.autograd.grad(RectifiedMaxPool()(maps), maps, given)
        assert torch.equal(got, torch.autograd.grad(known(maps), maps, given)[0])


def test_a_penalty_on_the_gradient_can_be_gone_back_through() -> None:
    found = []
    for pool in (RectifiedMaxPool(), known):
        maps = maps_of((3, 32, 8, 6), torch.bfloat16, LAST).detach().clamp(-3, 3).requires_grad_()
        slope = torch.linspace(-1, 1, 3 * 32 * 4 * 3, dtype=torch.bfloat16).view(3, 32, 4, 3).requires_grad_()
        (gradient,) = torch.autograd.grad(pool(maps), maps, slope, create_graph=True)
        penalty = (gradient * gradient.detach().cos()).sum()
        found.append((gradient.detach(), *torch.autograd.grad(penalty, slope)))
    for got, wanted in zip(*found, strict=True):
        assert torch.equal(got, wanted)


def test_a_nan_stays_one_where_verdicts_are_given() -> None:
    for sign in (1, -1):
        maps = torch.zeros(1, 2, 4, 4).contiguous(memory_format=LAST)
        maps[0, 1, 2, 3] = torch.copysign(torch.tensor(float("nan")), torch.tensor(float(sign)))
        with torch.no_grad():
            assert RectifiedMaxPool()(maps)[0, 1, 1, 1].isnan()
