"""Square Attack (Andriushchenko et al., arXiv:1912.00049): random squares that are kept where they help; no gradient.

Finds what gradients hide: where it breaks what PGD did not, gradients are masked. It climbs the margin of the strongest
wrong class over the label. Written from the paper: a square may lie at the last row and column, which the authors' code
leaves out. Differs: all images of a batch share the square's size and place in each query, and draw their own signs; an
image that is fooled is left alone from then on.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import nn

from tasks.attacks import margin
from tasks.config.params import Count, Frozen, Threat

GRADIENT_FREE = True  # tells a battery to run it last: what it alone breaks, gradients may have hidden
SHRINK = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries, of 10,000, at which the share is halved
TILES = 5  # a side, that an L2 attack starts from
TINY = 1e-10


class Params(Frozen):
    queries: Count = 1000  # forward passes of an image; the paper's is 10,000, AutoAttack's 5,000
    share: float = Field(default=0.8, gt=0, le=1)  # of the image's area that the first square covers
    restarts: Count = 1


def passes(params: Params) -> float:
    """In gradients: a pass forward costs about a third of one there and back."""
    return params.queries * params.restarts / 3


def perturb(
    net: nn.Module,
    images_BCHW: torch.Tensor,
    labels_B: torch.Tensor,
    threat: Threat,
    params: Params,
    generator: torch.Generator,
) -> torch.Tensor:
    """B×C×H×W pixels in [0, 1] → as many, within the threat model."""
    draw = _Draw(generator, images_BCHW)
    first = _stripes if threat.norm == "linf" else _tiles
    found_BCHW = first(images_BCHW, threat.epsilon, draw)
    margin_B = margin(net, found_BCHW, labels_B)
    for query in range(params.queries - 1):
        standing = (margin_B <= 0).nonzero()[:, 0]
        if len(standing) == 0:
            break
        side = math.sqrt(_shrunk(params.share, query, params.queries) * images_BCHW[0, 0].numel())
        move = _square if threat.norm == "linf" else _shifted
        tried = move(found_BCHW[standing], images_BCHW[standing], side, threat.epsilon, draw)
        tried_margin = margin(net, tried, labels_B[standing])
        better = tried_margin > margin_B[standing]
        taken = standing[better]
        found_BCHW[taken], margin_B[taken] = tried[better], tried_margin[better]
    return found_BCHW


class _Draw:
    """Draws for a batch of images, on their device."""

    def __init__(self, generator: torch.Generator, like: torch.Tensor) -> None:
        self.generator, self.like = generator, like

    def signs(self, *shape: int) -> torch.Tensor:
        drawn = torch.randint(0, 2, shape, generator=self.generator, device=self.generator.device)
        return (2 * drawn - 1).to(self.like)

    def below(self, limit: int) -> int:
        return int(torch.randint(0, limit, (), generator=self.generator, device=self.generator.device))


def _shrunk(share: float, query: int, queries: int) -> float:
    halved = sum(query * 10_000 / queries > at for at in SHRINK)
    return share * 0.5**halved


def _stripes(clean: torch.Tensor, epsilon: float, draw: _Draw) -> torch.Tensor:
    """Upright stripes of ±ε, one pixel wide."""
    b, channels, _, width = clean.shape
    return (clean + epsilon * draw.signs(b, channels, 1, width)).clamp(0, 1)


def _square(found: torch.Tensor, clean: torch.Tensor, side: float, epsilon: float, draw: _Draw) -> torch.Tensor:
    """One square of ±ε, a sign for each image and channel."""
    b, channels, height, width = clean.shape
    side = min(max(round(side), 1), height, width)
    rows, columns = _window(height, width, side, draw)
    tried = found.clone()
    tried[:, :, rows, columns] = clean[:, :, rows, columns] + epsilon * draw.signs(b, channels, 1, 1)
    return tried.clamp_(0, 1)


def _tiles(clean: torch.Tensor, epsilon: float, draw: _Draw) -> torch.Tensor:
    """A grid of five by five pairs in the middle, a sign for each, for image and channel, of length ε in all."""
    b, channels, height, width = clean.shape
    side = max(min(height, width) // TILES, 1)
    change = torch.zeros_like(clean)
    for top in _tiled(height, side):
        for left in _tiled(width, side):
            tile = _pair(side, clean, draw) * draw.signs(b, channels, 1, 1)
            change[:, :, top : top + side, left : left + side] = tile
    return _at_length(clean, change, epsilon)


def _tiled(length: int, side: int) -> range:
    """Where TILES tiles begin, or as many as there is room for, with what is left over on both sides."""
    count = min(TILES, length // side)
    return range((length - count * side) // 2, length - side + 1, side)[:count]


def _shifted(found: torch.Tensor, clean: torch.Tensor, side: float, epsilon: float, draw: _Draw) -> torch.Tensor:
    """Length taken from one window, and what is to spare, given to another as a new pair of bumps."""
    b, channels, height, width = clean.shape
    side = max(round(side), 3)
    side = min(side + 1 - side % 2, height, width)
    change = found - clean
    to, from_ = (_window(height, width, side, draw) for _ in range(2))
    both = torch.zeros(height, width, dtype=torch.bool, device=clean.device)
    both[to], both[from_] = True, True
    spare = (epsilon**2 - change.square().sum((1, 2, 3), keepdim=True)).clamp_min(0) / channels
    budget = (change.square() * both).sum((2, 3), keepdim=True) + spare
    old = change[:, :, to[0], to[1]]
    old = old / old.square().sum((2, 3), keepdim=True).sqrt().clamp_min(TINY)
    new = _pair(side, clean, draw) * draw.signs(b, channels, 1, 1) + old
    new = new * (budget.sqrt() / new.square().sum((2, 3), keepdim=True).sqrt().clamp_min(TINY))
    change[:, :, from_[0], from_[1]] = 0
    change[:, :, to[0], to[1]] = new
    return _at_length(clean, change, epsilon)


def _window(height: int, width: int, side: int, draw: _Draw) -> tuple[slice, slice]:
    top, left = draw.below(height - side + 1), draw.below(width - side + 1)
    return slice(top, top + side), slice(left, left + side)


def _pair(side: int, like: torch.Tensor, draw: _Draw) -> torch.Tensor:
    """A bump beside a dip, side × side, of length 1; lying or standing."""
    upper = side // 2
    pair: torch.Tensor = torch.cat([_bump(upper, side, like), -_bump(side - upper, side, like)])
    pair /= pair.norm()
    return pair.T if draw.below(2) else pair


def _bump(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Nested squares around the middle: Σ 1/(m + 1)² over those a pixel lies in, of length 1."""
    rows = (torch.arange(height, device=like.device) - height // 2).abs()[:, None]
    columns = (torch.arange(width, device=like.device) - width // 2).abs()[None, :]
    far = torch.maximum(rows, columns)
    count = max(height, width) // 2 + 1
    heights = 1 / torch.arange(1, count + 1, dtype=like.dtype, device=like.device).square()
    inside = heights.flip(0).cumsum(0).flip(0)
    bump: torch.Tensor = inside[far.clamp_max(count - 1)]
    bump /= bump.norm()
    return bump


def _at_length(clean: torch.Tensor, change: torch.Tensor, epsilon: float) -> torch.Tensor:
    length = change.square().sum((1, 2, 3), keepdim=True).sqrt().clamp_min(TINY)
    return (clean + change * (epsilon / length)).clamp(0, 1)
