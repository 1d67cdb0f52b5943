"""A battery: several attacks in order of cost, each only on what still stands, those without gradients last.

What survives all of them is the worst case, at a fraction of what they would cost one by one. An attack with a budget
of its own is outside the threat model: it is run on every image and takes no part in the worst case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from tasks.attacks import attack, cost, gradient_free, own_budget, pgd
from tasks.config.params import Threat
from tasks.config.seeds import derive

CURVE_STEPS = 20  # of PGD at each radius


@dataclass(frozen=True)
class Turn:
    """One attack of a battery, image by image. tried_N: still stood; broke_N: of those, the ones it fooled."""

    attack: str
    tried_N: torch.Tensor
    broke_N: torch.Tensor
    within: bool  # the threat model; else every image was tried, whether or not it stood

    @property
    def tried(self) -> int:
        return int(self.tried_N.sum())

    @property
    def broken(self) -> int:
        return int(self.broke_N.sum())


@dataclass(frozen=True)
class Battery:
    """What a battery made of N images. An image stands while the network answers it, attacked, with the label."""

    turns: tuple[Turn, ...]  # in the order they ran
    answers_N: torch.Tensor  # int64: the first wrong answer an attack got, else the answer before the battery
    apart: dict[str, torch.Tensor]  # of attacks with a budget of their own, by name: their answers, int64 N

    def standing(self, labels_N: torch.Tensor) -> torch.Tensor:
        """bool N: what no attack within the threat model broke."""
        return self.answers_N == labels_N


def battery(
    kinds: Mapping[str, tuple[Any, Any]],
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    answers: torch.Tensor,
    threat: Threat,
    seed: int,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Battery:
    """Run attacks on N images, the cheapest first, gradient-free ones last; of equal cost, in the order given.

    kinds: by name, an attack's module and its own parameters; answers: int64 N, the network's answers so far: to the
    clean images, or the worst under attacks that ran before. The same seed gives the same answers.
    """
    if answers.shape != labels.shape:
        raise ValueError(f"{len(labels)} labels want as many answers, got {tuple(answers.shape)}")
    worst, turns, apart = answers.clone(), [], {}
    for name, (module, own) in sorted(kinds.items(), key=lambda kind: (gradient_free(kind[1][0]), cost(*kind[1]))):
        within = not own_budget(module)
        index = (worst == labels).nonzero()[:, 0] if within else torch.arange(len(labels))
        seeded = derive(seed, name)
        found = attack(module, net, images[index], labels[index], threat, own, seeded, precision=precision)
        tried, broke = torch.zeros(2, len(labels), dtype=torch.bool)
        tried[index], broke[index] = True, found.success & found.right
        turns.append(Turn(name, tried, broke, within))
        if within:
            worst[index] = found.answers
        else:
            apart[name] = found.answers
    return Battery(tuple(turns), worst, apart)


def curve(
    epsilons: Sequence[float],
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    answers: torch.Tensor,
    threat: Threat,
    seed: int,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> dict[float, torch.Tensor]:
    """Whether each of N images stands under PGD at every radius, bool N, from the smallest on.

    What falls at one radius falls at all above it, and is not attacked again. answers: int64 N, to the clean images.
    """
    standing, found = answers == labels, {}
    for epsilon in sorted(epsilons):
        index = standing.nonzero()[:, 0]
        within = Threat(norm=threat.norm, epsilon=epsilon)
        own = pgd.Params(steps=CURVE_STEPS, drop=True)
        seeded = derive(seed, epsilon)
        tried = attack(pgd, net, images[index], labels[index], within, own, seeded, precision=precision)
        standing = standing.clone()
        standing[index] = ~tried.success
        found[epsilon] = standing
    return found
