"""RiFT's arms: which module is fine-tuned, and whether batch norm's statistics follow; what each changes, in pairs.

The published code fine-tunes in training mode, so that what it interpolates is a weight and the statistics of every
batch norm. Here they are held apart: the weight alone, weight and statistics, the statistics alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from data.shards import Images
from tasks import attacks
from tasks.adaptation.criticality import Criticality
from tasks.adaptation.fine_tuning import fine_tuned
from tasks.attacks import apgd_t, pgd
from tasks.config.params import Params
from tasks.config.seeds import derive
from tasks.engine import inference
from tasks.evaluation.paired import Paired, mcnemar
from tasks.rift import Tensors, named, place

MODULES = ("least", "main", "middle", "most", "all")
Right = dict[str, torch.Tensor]  # by figure, N: the share of its conditions under which each image is answered rightly


@dataclass(frozen=True)
class Arm:
    """What is fine-tuned: parameters by name, and whether statistics follow."""

    parameters: tuple[str, ...]
    follow: bool

    @property
    def what(self) -> str:
        """The parameters, in short."""
        if len(self.parameters) > 1:
            return f"{len(self.parameters)} parameters"
        return self.parameters[0] if self.parameters else "no parameter"

    def tuned(self, net: nn.Module, train: Images, params: Params) -> Tensors:
        """What fine-tuning makes of the network's tensors."""
        choices = params.rift.model_copy(update={"statistics": "follow" if self.follow else "frozen"})
        return fine_tuned(net, self.parameters, train, params.model_copy(update={"rift": choices}))


@dataclass(frozen=True)
class Change:
    """A figure before and after, in per cent, and the images that tell the two apart."""

    before: float
    after: float
    gained: int
    lost: int

    @property
    def points(self) -> float:
        return self.after - self.before

    @property
    def p(self) -> float:
        """McNemar's exact test, two-sided: that as many were gained or lost by chance."""
        more, less = max(self.gained, self.lost), min(self.gained, self.lost)
        return min(1.0, 2 * mcnemar(Paired(0, more, less, 0)))

    @property
    def verdict(self) -> str:
        if self.p > 0.05:
            return "undecided"
        return "better" if self.gained > self.lost else "worse"


def arms(
    net: nn.Module, modules: Sequence[Criticality], beside: Collection[str], chosen: Sequence[str]
) -> dict[str, Arm]:
    """The arms of the chosen modules, by role; those whose statistics follow only where there is batch norm.

    modules: from the least critical on; beside: those on a shortcut; chosen: some of MODULES: the least critical
    module, the least critical one of the main path, the one halfway along the main path, the most critical one, and all
    parameters together, which is the paper's full fine-tuning.
    """
    order = [each.module for each in modules]
    ranked = [name for name in order if name not in beside]
    along = [name for name, _ in net.named_modules() if name in ranked]
    roles = {
        "least": ("least critical", order[0]),
        "main": ("least critical of the main path", ranked[0]),
        "middle": ("middle of the main path", along[len(along) // 2]),
        "most": ("most critical", order[-1]),
    }
    normed = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in net.modules())
    found = {"statistics alone": Arm((), follow=True)} if normed else {}
    for role, module in (roles[each] for each in chosen if each in roles):
        found[f"{role}, weight"] = Arm((f"{module}.weight",), follow=False)
        if normed:
            found[f"{role}, weight + statistics"] = Arm((f"{module}.weight",), follow=True)
    if "all" in chosen:
        everything = tuple(name for name, weight in net.named_parameters() if weight.requires_grad)
        found["all parameters" + (" + statistics" if normed else "")] = Arm(everything, follow=normed)
    return found


@contextmanager
def placed(net: nn.Module, tuned: Tensors, alpha: float) -> Iterator[None]:
    """The network at that α inside, as it was afterwards."""
    start = {name: tensor.detach().clone() for name, tensor in named(net).items() if name in tuned}
    place(net, tuned, alpha)
    try:
        yield
    finally:
        place(net, start, 1.0)


def answered(
    net: nn.Module,
    images: Images,
    moved: Mapping[str, torch.Tensor],
    params: Params,
    *,
    steps: int,
    restarts: int = 1,
    batch: int = 256,
) -> Right:
    """Clean, OOD (where `moved` has some) and robust under PGD, image by image."""
    answers_N, _ = inference.answer(net, images.pixels_NCHW, batch=batch)
    found = {"clean": (answers_N == images.labels_N).double()}
    if moved:
        each = [inference.answer(net, pixels, batch=batch)[0] == images.labels_N for pixels in moved.values()]
        found["OOD"] = torch.stack(each).double().mean(0)
    own = pgd.Params(steps=steps, step_size=params.threat.epsilon / 4, restarts=restarts, drop=True)
    start_NCHW, seed = inference.to_float(images.pixels_NCHW), derive(params.seed, "benchmarks", "attack")
    precision = params.evaluate.of_steps
    under = attacks.attack(
        pgd, net, start_NCHW, images.labels_N, params.threat, own, seed, batch=batch, precision=precision
    )
    return found | {f"PGD-{steps}": (~under.success).double()}


def stands_apgd_t(net: nn.Module, images: Images, standing_N: torch.Tensor, params: Params, batch: int) -> torch.Tensor:
    """Which images still stand when APGD-T has attacked those that stood, N."""
    index = standing_N.nonzero()[:, 0]
    start_NCHW = inference.to_float(images.pixels_NCHW[index])
    labels_N, seed = images.labels_N[index], derive(params.seed, "benchmarks", "apgd_t")
    under = attacks.attack(
        apgd_t, net, start_NCHW, labels_N, params.threat, apgd_t.Params(steps=50, targets=3), seed, batch=batch
    )
    found = torch.zeros(len(images), dtype=torch.float64)
    found[index] = (~under.success).double()
    return found


def changes(before: Right, after: Right) -> dict[str, Change]:
    """Each figure that both have. Of OOD, an image is gained where it is right under more shifts than before."""
    return {
        name: Change(
            100 * float(before[name].mean()),
            100 * float(after[name].mean()),
            int((after[name] > before[name]).sum()),
            int((after[name] < before[name]).sum()),
        )
        for name in before
        if name in after
    }


def pooled(parts: Sequence[Change]) -> Change:
    """Several seeds' changes: the mean of the figures, all their images together."""
    n = len(parts)
    return Change(
        sum(each.before for each in parts) / n,
        sum(each.after for each in parts) / n,
        sum(each.gained for each in parts),
        sum(each.lost for each in parts),
    )
