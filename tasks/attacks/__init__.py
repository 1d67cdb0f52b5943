"""Attacks: one file each, with `Params` and `perturb`; this is their base.

A file proposes images and no more. The base cuts what it gets to the threat model and to [0, 1], keeps the worst of
the clean image and of all restarts, and decides in fp32 what fooled the network: no attack marks its own work.
An attack whose Params has `restarts` is run that many times; Params with rules beyond their types have a method
`check(threat)`; `passes(params)` says what an image costs it, in gradients, where that is not steps ×
restarts. One with OWN_BUDGET, such as a rotation, is outside the norm ball: only [0, 1] holds for it, and its accuracy
is not one within the threat model. One with GRADIENT_FREE runs after those that follow gradients: what only it breaks,
gradients may have hidden.

Attack files know labels to get away from and nothing else. A targeted attack is the same file on another network, whose
two logits are "the target class" and "any other".

Tensors are N×C×H×W, pixels in [0, 1]; `norm` and `epsilon` are the threat model's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import torch
from torch import nn

from tasks.config.kinds import module_of
from tasks.config.params import Frozen, Threat
from tasks.config.seeds import derive
from tasks.engine.bf16 import bf16_copy
from tasks.engine.inference import channels_last, device_of, evaluating, logits_of, microbatches

Objective = Callable[
    [torch.Tensor, slice], torch.Tensor
]  # logits b×K, and which images of the batch they are → b numbers


@dataclass(frozen=True)
class Attacked:
    """What an attack made of N images."""

    images: torch.Tensor  # N×C×H×W, fp32, the worst found within the threat model
    success: torch.Tensor  # bool N: the answer is not the label; of a targeted attack, it is the target class
    answers: torch.Tensor  # int64 N, the network's answers to `images`
    right: torch.Tensor  # bool N: the clean image was answered with the label

    @property
    def success_rate(self) -> float:
        """Attack success rate: the share of rightly classified seed images that were flipped; NaN if there are none."""
        return float(self.success[self.right].double().mean())


def attack(
    name: str | ModuleType,
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    threat: Threat,
    params: Frozen,
    seed: int,
    *,
    batch: int = 256,
    targets: torch.Tensor | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Attacked:
    """Run one attack on labelled images, in batches, and judge it.

    name: a file of tasks/attacks/, or its module; images: fp32 N×C×H×W in [0, 1]; labels: int64 N; params: the
    attack's own; targets: int64 N, the class each image is to be answered with, or None for any wrong one; precision:
    of the attack's own steps. Verdicts are in fp32: an image that only bf16 takes for fooled is attacked anew in fp32.
    The same seed and batch give the same images. The network is in eval mode while it runs, and left as it was; the
    results lie on the CPU.
    ValueError: images or labels of the wrong kind, parameters that make no sense under this threat model.
    """
    module: Any = module_of("tasks.attacks", name, "attacks") if isinstance(name, str) else name
    _check(module, images, labels, threat, params)
    if targets is not None and (targets.shape != labels.shape or targets.dtype != torch.int64):
        raise ValueError(f"{len(labels)} labels want as many int64 targets, got {targets.dtype} {tuple(targets.shape)}")
    if targets is not None and bool((targets == labels).any()):
        raise ValueError(
            f"a target must be another class than the label, image {int((targets == labels).int().argmax())} has both"
        )
    parts = []
    with evaluating(net):
        swift = bf16_copy(net, images) if precision == "bf16" and len(images) else None
        for at in range(0, len(images), batch):
            one = slice(at, at + batch)
            aims = None if targets is None else targets[one].to(device_of(net))
            work = _Work(module, net, swift, threat, params, aims)
            parts.append(_worst(work, images[one], labels[one], derive(seed, f"tasks.attacks.{kind_name(module)}", at)))
    if not parts:
        none = torch.zeros(0, dtype=torch.bool)
        return Attacked(images.cpu(), none, torch.zeros(0, dtype=torch.long), none)
    return Attacked(*(torch.cat([getattr(part, f) for part in parts]) for f in Attacked.__dataclass_fields__))


def kind_name(module: Any) -> str:
    """The attack's name in params.yaml, which its random numbers hang on: where its file lies changes nothing."""
    return str(module.__name__).rpartition(".")[2]


def own_budget(module: Any) -> bool:
    """Whether an attack is outside the norm ball."""
    return bool(getattr(module, "OWN_BUDGET", False))


def gradient_free(module: Any) -> bool:
    """Whether an attack asks for answers only, within the norm ball."""
    return bool(getattr(module, "GRADIENT_FREE", False))


def cost(module: Any, params: Any) -> float:
    """What an attack takes for one image at most, in gradients: the order in which a battery runs."""
    if hasattr(module, "passes"):
        return float(module.passes(params))
    return float(getattr(params, "steps", 1) * getattr(params, "restarts", 1))


def margin(net: nn.Module, images_BCHW: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """How far the strongest wrong class stands over the label, B; above 0 the image fools. No gradient."""
    with torch.no_grad():
        found = [_over(net(images_BCHW[part]).float(), labels_B[part]) for part in microbatches(net, images_BCHW)]
    return torch.cat(found)


def input_gradient(
    net: nn.Module, images_BCHW: torch.Tensor, labels_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """∂ odds against the label / ∂ image, of each image's own, and the logits on the way. No weight gets a gradient."""
    gradient_BCHW, _, logits_BK = value_and_gradient(net, images_BCHW, odds_against(labels_B))
    return gradient_BCHW, logits_BK


def odds_against(labels_B: torch.Tensor) -> Objective:
    """What to climb to get away from the labels: log((1 − p) / p), p a label's probability.

    The cross-entropy, −log p, rises along the same direction, to the same highest image. But where p rounds to 1 its
    gradient has lost the label, and later is 0, so that a network that is merely very sure would pass for robust.
    """

    def rise(logits_bK: torch.Tensor, part: slice) -> torch.Tensor:
        own_b1 = labels_B[part][:, None]
        others_b = logits_bK.scatter(1, own_b1, -torch.inf).logsumexp(1)
        return others_b - logits_bK.gather(1, own_b1)[:, 0]

    return rise


def value_and_gradient(
    net: nn.Module, images_BCHW: torch.Tensor, rise: Objective
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """∂ rise / ∂ image, of each image's own; what is to rise, B; and the logits, fp32. No weight gets a gradient."""
    found = []
    for part in microbatches(net, images_BCHW):
        with torch.enable_grad():
            asked_bCHW = channels_last(images_BCHW[part]).requires_grad_()
            logits_bK = net(asked_bCHW).float()
            value_b = rise(logits_bK, part)
            (gradient_bCHW,) = torch.autograd.grad(value_b.sum(), asked_bCHW)
        found.append((gradient_bCHW, value_b.detach(), logits_bK.detach()))
    gradient_BCHW, value_B, logits_BK = found[0] if len(found) == 1 else map(torch.cat, zip(*found, strict=True))
    return gradient_BCHW, value_B, logits_BK


def direction(gradient_BCHW: torch.Tensor, norm: str) -> torch.Tensor:
    """The step of length 1 in `norm` along which a linear loss grows most; 0 where the gradient is 0 or not finite."""
    gradient_BCHW = gradient_BCHW.nan_to_num(0.0, 0.0, 0.0)
    if norm == "linf":
        return gradient_BCHW.sign()
    if norm == "l2":
        # Squares of what is below 1e-22 are 0, so the largest entry is made 1 first.
        tiny = torch.finfo(gradient_BCHW.dtype).tiny
        scaled_BCHW = gradient_BCHW / gradient_BCHW.abs().amax((1, 2, 3), keepdim=True).clamp_min(tiny)
        return scaled_BCHW / _lengths(scaled_BCHW)
    raise ValueError(f"norm must be linf or l2, got {norm!r}")


def usual_step(steps: int, epsilon: float) -> float:
    """2.5 radii over all steps, which reaches every point of the ball from every other (arXiv:1706.06083)."""
    return min(2.5 / steps, 1.0) * epsilon


def check_steps(name: str, steps: int, step: float, threat: Threat, *, reaches: bool = True) -> None:
    """ValueError for a step wider than the ball, and, if they must reach from its middle to its edge, for steps that
    all together do not: written for another radius, they would find little and call it robust."""
    usual = "2.5 × epsilon / steps is usual, as step_size: null is; pixels lie in [0, 1]"
    if step > 2 * threat.epsilon:
        raise ValueError(
            f"{name}: step_size must be at most 2 × epsilon = {2 * threat.epsilon:g}, the ball's width, got {step:g}; "
            + usual
        )
    if reaches and steps * step < threat.epsilon * (1 - 1e-6):
        raise ValueError(
            f"{name}: steps × step_size must reach epsilon = {threat.epsilon:g}, the ball's edge, "
            f"got {steps} × {step:g} = {steps * step:g}; {usual}"
        )


def project(images_BCHW: torch.Tensor, clean_BCHW: torch.Tensor, norm: str, epsilon: float) -> torch.Tensor:
    """The nearest images within `epsilon` of the clean ones, then cut to [0, 1]."""
    if norm == "linf":
        within = images_BCHW.clamp(clean_BCHW - epsilon, clean_BCHW + epsilon)
    elif norm == "l2":
        change = images_BCHW - clean_BCHW
        within = clean_BCHW + change * (epsilon / _lengths(change)).clamp(max=1)
    else:
        raise ValueError(f"norm must be linf or l2, got {norm!r}")
    return within.clamp(0, 1)


def random_start(clean_BCHW: torch.Tensor, norm: str, epsilon: float, generator: torch.Generator) -> torch.Tensor:
    """Images drawn evenly from the ball around the clean ones, cut to [0, 1]."""
    shape = clean_BCHW.shape
    if norm == "linf":
        change = torch.rand(shape, generator=generator, device=generator.device) * 2 - 1
    elif norm == "l2":
        towards = direction(torch.randn(shape, generator=generator, device=generator.device), "l2")
        depth = torch.rand(shape[0], 1, 1, 1, generator=generator, device=generator.device)
        change = towards * depth ** (1 / shape[1:].numel())
    else:
        raise ValueError(f"norm must be linf or l2, got {norm!r}")
    return (clean_BCHW + epsilon * change.to(clean_BCHW)).clamp(0, 1)


@dataclass(frozen=True)
class _Work:
    """One attack on one batch of images."""

    module: Any
    net: nn.Module
    bf16_copy: nn.Module | None  # the network's fast copy in bf16, or None for fp32
    threat: Threat
    params: Frozen
    targets: torch.Tensor | None

    def judged(self, images: torch.Tensor, labels: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """How far the wrong answer stands over the right one, the answers, and whether the aim is reached; fp32."""
        logits = logits_of(self.net, images)
        if not torch.isfinite(logits).all():
            raise ValueError("the network answers with NaN or infinity, which is no robustness; train it anew")
        for what, given in (("labels", labels), ("targets", self.targets)):
            if given is not None and (given.min() < 0 or given.max() >= logits.shape[1]):
                got = f"{int(given.min())}..{int(given.max())}"
                raise ValueError(f"{what} must lie in 0..{logits.shape[1] - 1}, the network's classes, got {got}")
        answers = logits.argmax(1)
        if self.targets is None:
            return _over(logits, labels), answers, answers != labels
        return -_over(logits, self.targets[index]), answers, answers == self.targets[index]

    def proposed(
        self, clean: torch.Tensor, labels: torch.Tensor, index: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, ...]:
        """What the attack makes of the images `index` names, cut to the threat model and to [0, 1]; and as judged."""
        if self.bf16_copy is None:
            found = self._run(self.net, clean, labels, index, seed)
            return found, *self.judged(found, labels, index)
        with torch.autocast(clean.device.type, torch.bfloat16):
            found = self._run(self.bf16_copy, clean, labels, index, seed)
        verdict = self.judged(found, labels, index)
        false = self._false(found, labels, index, (~verdict[2]).nonzero()[:, 0])
        if len(false):
            found[false] = self._run(self.net, clean[false], labels[false], index[false], derive(seed, "fp32"))
            for all_, anew in zip(verdict, self.judged(found[false], labels[false], index[false]), strict=True):
                all_[false] = anew
        return found, *verdict

    def _false(
        self, found: torch.Tensor, labels: torch.Tensor, index: torch.Tensor, standing: torch.Tensor
    ) -> torch.Tensor:
        """Which of the images that stand look fooled to the fast copy: an attack may have left them alone too early."""
        if self.bf16_copy is None or len(standing) == 0:
            return standing[:0]
        with torch.no_grad(), torch.autocast(found.device.type, torch.bfloat16):
            answers = self.bf16_copy(found[standing]).argmax(1)
        return standing[self._reached(answers, labels[standing], index[standing])]

    def _reached(self, answers: torch.Tensor, labels: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return answers != labels if self.targets is None else answers == self.targets[index]

    def _run(
        self, net: nn.Module, clean: torch.Tensor, labels: torch.Tensor, index: torch.Tensor, seed: int
    ) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        if self.targets is None:
            found: torch.Tensor = self.module.perturb(net, clean, labels, self.threat, self.params, generator)
        else:
            found = clean.clone()
            for target in self.targets[index].unique().tolist():
                group = (self.targets[index] == target).nonzero()[:, 0]
                away = torch.zeros_like(labels[group])
                towards = _Towards(net, target)
                found[group] = self.module.perturb(towards, clean[group], away, self.threat, self.params, generator)
        if found.shape != clean.shape or not torch.isfinite(found).all():
            raise ValueError(
                f"{self.module.__name__} was given images of shape {tuple(clean.shape)} and must give as many finite "
                f"ones, got shape {tuple(found.shape)}, {int((~torch.isfinite(found)).sum())} pixels not finite"
            )
        found = found.detach().float()
        if own_budget(self.module):
            return found.clamp(0, 1)
        return project(found, clean, self.threat.norm, self.threat.epsilon)


class _Towards(nn.Module):
    """A network that answers 0 for any class but one, and 1 for that: to get away from 0 is to get to it.

    Its cross-entropy for 0 rises along the same direction as that for the class falls.
    """

    def __init__(self, net: nn.Module, target: int) -> None:
        super().__init__()
        self.net, self.target = net, target
        self.training = net.training

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        logits_BK = self.net(images_BCHW).float()
        wanted = torch.zeros(logits_BK.shape[1], dtype=torch.bool, device=logits_BK.device)
        wanted[self.target] = True
        return torch.stack([logits_BK[:, ~wanted].logsumexp(1), logits_BK[:, self.target]], dim=1)


def _worst(work: _Work, images: torch.Tensor, labels: torch.Tensor, seed: int) -> Attacked:
    device = device_of(work.net)
    clean, labels = images.to(device), labels.to(device)
    best, everyone = clean.clone(), torch.arange(len(labels), device=device)
    reach, answers, done = work.judged(clean, labels, everyone)
    right = answers == labels
    for restart in range(getattr(work.params, "restarts", 1)):
        # every image gets the first run, for training and RiFT want the worst of all; a further one is for what stands
        index = everyone if restart == 0 else (~done).nonzero()[:, 0]
        if len(index) == 0:
            break
        found, found_reach, found_answers, found_done = work.proposed(
            clean[index], labels[index], index, derive(seed, restart)
        )
        before = done[index]
        better = (found_done & ~before) | ((found_done == before) & (found_reach > reach[index]))
        taken = index[better]
        best[taken], reach[taken] = found[better], found_reach[better]
        answers[taken], done[taken] = found_answers[better], found_done[better]
    return Attacked(best.cpu(), done.cpu(), answers.cpu(), right.cpu())


def _over(logits_BK: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """The strongest other class's logit less the label's."""
    others_B = logits_BK.scatter(1, labels_B[:, None], -torch.inf).amax(1)
    return others_B - logits_BK.gather(1, labels_B[:, None])[:, 0]


def _check(module: Any, images: torch.Tensor, labels: torch.Tensor, threat: Threat, params: Frozen) -> None:
    if images.ndim != 4 or images.dtype != torch.float32:
        raise ValueError(
            f"attacks want fp32 images of shape N×C×H×W, got {images.dtype} {tuple(images.shape)}; "
            "tasks.engine.inference.to_float makes them of uint8 pixels"
        )
    if len(images) and not (0 <= float(images.min()) and float(images.max()) <= 1):
        raise ValueError(f"pixels must lie in [0, 1], got {float(images.min()):g} to {float(images.max()):g}")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"{len(images)} images want as many int64 labels, got {labels.dtype} {tuple(labels.shape)}")
    if not isinstance(params, module.Params):
        raise ValueError(f"{module.__name__} wants its own Params, got {type(params).__module__}.Params")  # noqa: TRY004
    if hasattr(params, "check"):
        params.check(threat)


def _lengths(images_BCHW: torch.Tensor) -> torch.Tensor:
    """L2 length of each image, B×1×1×1, never 0."""
    lengths_B: torch.Tensor = torch.linalg.vector_norm(images_BCHW.flatten(1), dim=1)
    return lengths_B.clamp_min(torch.finfo(images_BCHW.dtype).tiny)[:, None, None, None]
