"""Attacks: one file each, with `Params` and `perturb`; this is their base.

A file proposes images and no more. The base cuts what it gets to the threat model and to [0, 1], keeps the worst of
the clean image and of all restarts, and decides in fp32 what fooled the network: no attack marks its own work.
An attack whose Params has `restarts` is run that many times; one that has rules for its parameters beyond their types
brings `check(params, threat)`.

Tensors are N×C×H×W, pixels in [0, 1]; `norm` and `epsilon` are the threat model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tasks.checkpoint import device_of, evaluating, logits_of
from tasks.params import Frozen, Threat, module_of
from tasks.seeds import derive


@dataclass(frozen=True)
class Attacked:
    """What an attack made of N images."""

    images: torch.Tensor  # N×C×H×W, fp32, the worst found within the threat model
    success: torch.Tensor  # bool N: the answer is not the label
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
) -> Attacked:
    """Run one attack on labelled images, in batches, and judge it.

    name: a file of tasks/attacks/, or its module; images: fp32 N×C×H×W in [0, 1]; labels: int64 N; params: the
    attack's own. The same seed and batch give the same images. The network is in eval mode while it runs, and left as
    it was; the results lie on the CPU.
    ValueError: images or labels of the wrong kind, parameters that make no sense under this threat model.
    """
    module: Any = module_of("tasks.attacks", name, "attacks") if isinstance(name, str) else name
    _check(module, images, labels, threat, params)
    parts = []
    with evaluating(net):
        for at in range(0, len(images), batch):
            part, part_labels = images[at : at + batch], labels[at : at + batch]
            parts.append(_worst(module, net, part, part_labels, threat, params, derive(seed, module.__name__, at)))
    if not parts:
        none = torch.zeros(0, dtype=torch.bool)
        return Attacked(images.cpu(), none, torch.zeros(0, dtype=torch.long), none)
    return Attacked(*(torch.cat([getattr(part, f) for part in parts]) for f in Attacked.__dataclass_fields__))


def input_gradient(
    net: nn.Module, images_BCHW: torch.Tensor, labels_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """∂ cross-entropy / ∂ image, of each image's own loss, and the logits on the way. No weight gets a gradient."""
    with torch.enable_grad():
        images_BCHW = images_BCHW.detach().requires_grad_()
        logits_BK = net(images_BCHW)
        loss = F.cross_entropy(logits_BK.float(), labels_B, reduction="sum")
        (gradient_BCHW,) = torch.autograd.grad(loss, images_BCHW)
    return gradient_BCHW, logits_BK.detach()


def direction(gradient_BCHW: torch.Tensor, norm: str) -> torch.Tensor:
    """The step of length 1 in `norm` along which a linear loss grows most; 0 where the gradient is 0."""
    if norm == "linf":
        return gradient_BCHW.sign()
    if norm == "l2":
        return gradient_BCHW / _lengths(gradient_BCHW)
    raise ValueError(f"norm must be linf or l2, got {norm!r}")


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


def _worst(
    module: Any,
    net: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    threat: Threat,
    params: Frozen,
    seed: int,
) -> Attacked:
    device = device_of(net)
    clean, labels = images.to(device), labels.to(device)
    best = clean.clone()
    margin, answers = _judged(net, clean, labels)
    right = answers == labels
    for restart in range(getattr(params, "restarts", 1)):
        # every image gets the first run, for training and RiFT want the worst of all; a further one is for what stands
        index = torch.arange(len(labels), device=device) if restart == 0 else (answers == labels).nonzero()[:, 0]
        if len(index) == 0:
            break
        generator = torch.Generator().manual_seed(derive(seed, restart))
        found = module.perturb(net, clean[index], labels[index], threat, params, generator)
        if found.shape != clean[index].shape or not torch.isfinite(found).all():
            raise ValueError(
                f"{module.__name__} was given images of shape {tuple(clean[index].shape)} and must give as many finite "
                f"ones, got shape {tuple(found.shape)}, {int((~torch.isfinite(found)).sum())} pixels not finite"
            )
        found = project(found.detach().float(), clean[index], threat.norm, threat.epsilon)
        found_margin, found_answers = _judged(net, found, labels[index])
        fooled, before = found_answers != labels[index], answers[index] != labels[index]
        better = (fooled & ~before) | ((fooled == before) & (found_margin > margin[index]))
        taken = index[better]
        best[taken], margin[taken], answers[taken] = found[better], found_margin[better], found_answers[better]
    return Attacked(best.cpu(), (answers != labels).cpu(), answers.cpu(), right.cpu())


def _judged(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far the strongest wrong class stands over the label, and the answers; fp32."""
    logits = logits_of(net, images)
    if not torch.isfinite(logits).all():
        raise ValueError("the network answers with NaN or infinity, which is no robustness; train it anew")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        got = f"{int(labels.min())}..{int(labels.max())}"
        raise ValueError(f"labels must lie in 0..{logits.shape[1] - 1}, the network's classes, got {got}")
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (others.amax(1) - own[:, 0]), logits.argmax(1)


def _check(module: Any, images: torch.Tensor, labels: torch.Tensor, threat: Threat, params: Frozen) -> None:
    if images.ndim != 4 or images.dtype != torch.float32:
        raise ValueError(
            f"attacks want fp32 images of shape N×C×H×W, got {images.dtype} {tuple(images.shape)}; "
            "tasks.checkpoint.to_float makes them of uint8 pixels"
        )
    if len(images) and not (0 <= float(images.min()) and float(images.max()) <= 1):
        raise ValueError(f"pixels must lie in [0, 1], got {float(images.min()):g} to {float(images.max()):g}")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise ValueError(f"{len(images)} images want as many int64 labels, got {labels.dtype} {tuple(labels.shape)}")
    if not isinstance(params, module.Params):
        raise ValueError(f"{module.__name__} wants its own Params, got {type(params).__module__}.Params")  # noqa: TRY004
    if hasattr(module, "check"):
        module.check(params, threat)


def _lengths(images_BCHW: torch.Tensor) -> torch.Tensor:
    """L2 length of each image, B×1×1×1, never 0."""
    lengths_B: torch.Tensor = torch.linalg.vector_norm(images_BCHW.flatten(1), dim=1)
    return lengths_B.clamp_min(torch.finfo(images_BCHW.dtype).tiny)[:, None, None, None]
