"""PGD side by side with torchattacks, foolbox, ART and a loop written by hand; processor time of
one thread, each in a process of its own, taking turns, medians.

Ours is the whole of `tasks.attacks.attack`: checks, steps, and the fp32 verdicts on the clean and on the moved images;
the others give no verdicts, so its steps alone stand there too. It runs in a process that keeps its memory as every
stage does; the others run as they come, and torchattacks, and on the undefended network the loop, once more with their
memory kept. The peers lie in .peers, made by `make peers`; without them there is only the loop to stand beside, and no
target. Ratios are of seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks._frame import Measured, apart, main
from benchmarks._nets import tutorial
from benchmarks._profile import shares
from data.sets import digits
from tasks.attacks import attack, pgd
from tasks.config.kinds import module_of
from tasks.config.params import Threat
from tasks.engine import inference
from tasks.engine.bf16 import bf16_copy
from tasks.engine.devices import keep_memory

PEERS = Path(__file__).parent.parent / ".peers"
NETWORKS = (("nsl_cnn", 1, 28, 128, 3.5), ("resnet18", 3, 32, 64, 2.5))  # network, channels, pixels, batch, target
THREAT = Threat(norm="linf", epsilon=8 / 255)
STEP = 2 / 255
Batch = tuple[nn.Module, torch.Tensor, torch.Tensor]


def by_hand(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, epsilon: float, step: float, steps: int) -> Any:
    """The loop that everybody writes."""
    found = (images + torch.empty_like(images).uniform_(-epsilon, epsilon)).clamp(0, 1)
    for _ in range(steps):
        found.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(net(found), labels), found)
        found = found.detach() + step * gradient.sign()
        found = torch.min(torch.max(found, images - epsilon), images + epsilon).clamp(0, 1)
    return found


def peer(name: str, net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    """PGD-10 of a library that lies in PEERS."""
    sys.path.append(str(PEERS))
    if name == "torchattacks":
        import torchattacks

        return partial(
            torchattacks.PGD(net, eps=THREAT.epsilon, alpha=STEP, steps=10, random_start=True), images, labels
        )
    if name == "foolbox":
        import foolbox

        wrapped = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        of_foolbox = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=10, random_start=True)
        return partial(of_foolbox, wrapped, images, labels, epsilons=THREAT.epsilon)
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    shape, classes = tuple(images.shape[1:]), int(inference.logits_of(net, images[:1]).shape[1])
    estimator = PyTorchClassifier(net, nn.CrossEntropyLoss(), shape, classes, clip_values=(0, 1), device_type="cpu")
    of_art = ProjectedGradientDescentPyTorch(
        estimator, eps=THREAT.epsilon, eps_step=STEP, max_iter=10, num_random_init=1, batch_size=128, verbose=False
    )
    return partial(of_art.generate, images.numpy(), labels.numpy())


def prepared(variant: str, name: str, channels: int, size: int, n: int) -> Callable[[], object]:
    """One variant, on a network as everybody writes it: the tutorial's, and our ResNet."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if variant.startswith("ours") or variant.endswith("memory kept"):
        keep_memory()
    net = tutorial() if name == "nsl_cnn" else module_of("models", name, "model.name").build(10, channels, size)
    net.eval()
    images, labels = torch.rand(n, channels, size, size), torch.randint(0, 10, (n,))
    if variant == "loop":
        return partial(by_hand, net, images, labels, THREAT.epsilon, STEP, 10)
    if not variant.startswith("ours"):
        return peer(variant.removesuffix(", memory kept"), net, images, labels)
    params = pgd.Params(steps=10, step_size=STEP)
    if variant == "ours, bf16, unjudged":
        return partial(unjudged, net, images, labels, params)
    ours = partial(attack, pgd, net, images, labels, THREAT, params, 0)
    return partial(ours, precision="bf16") if variant == "ours, bf16" else ours


def unjudged(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, params: pgd.Params) -> torch.Tensor:
    """The steps alone: images, as the others give them, and nobody's word on which of them fool."""
    with torch.autocast("cpu", torch.bfloat16):
        return pgd.perturb(bf16_copy(net, images), images, labels, THREAT, params, torch.Generator().manual_seed(0))


def side_by_side(name: str, channels: int, size: int, batch: int, target: float, quick: bool) -> list[Measured]:
    """PGD-10 without early exit."""
    n = 2 if quick else batch
    there = PEERS.is_dir()
    if not there:
        print("the peers are not there, only the loop stands beside: `make peers` brings them", file=sys.stderr)
    beside = "torchattacks" if there else "loop"
    variants = ["ours, bf16", "ours, bf16, unjudged", "ours, fp32", "loop"]
    variants += ["torchattacks", "torchattacks, memory kept", "foolbox", "ART"] if there else []
    found = apart({each: partial(prepared, each, name, channels, size, n) for each in variants}, 1 if quick else 5)
    of = f"{name}, PGD-10, batch {n}"
    taken = shares(prepared("ours, bf16", name, channels, size, n), 1)
    least = found["ours, bf16"] * sum(taken.values())
    floor = [Measured(f"{of}: ours, bf16, {what}", 100 * part, "%", None, "lower") for what, part in taken.items()]
    floor.append(Measured(f"{of}: these alone", found[beside] / least, f"× {beside}", None, "higher"))
    return [
        Measured(
            f"{of}: {variant}",
            found[beside] / seconds,
            f"× {beside}",
            target if variant == "ours, bf16" and there else None,
            "higher",
        )
        for variant, seconds in found.items()
    ] + floor


def undefended(variant: str, quick: bool) -> partial[Any]:
    """PGD-20 of the loop or of ours, dropping what is fooled or not, on a network trained on clean digits."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if variant != "loop":
        keep_memory()
    images = digits.load("train", root=PEERS, size=28, channels=1, seed=0)
    net = tutorial()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    floats, labels = inference.to_float(images.pixels_NCHW), images.labels_N
    for _ in range(20 if quick else 200):
        index = torch.randint(0, len(labels), (64,))
        optimizer.zero_grad()
        F.cross_entropy(net(floats[index]), labels[index]).backward()
        optimizer.step()
    net.eval().requires_grad_(False)
    floats, labels = floats[: 64 if quick else 512], labels[: 64 if quick else 512]
    threat, step = Threat(norm="linf", epsilon=0.1), 0.0125
    if variant.startswith("loop"):
        return partial(by_hand, net, floats, labels, threat.epsilon, step, 20)
    params = pgd.Params(steps=20, step_size=step, drop=variant != "whole")
    return partial(
        attack, pgd, net, floats, labels, threat, params, 0, precision="bf16" if variant == "bf16" else "fp32"
    )


def dropping(quick: bool) -> list[Measured]:
    """What dropping what is fooled saves, and whether the verdicts agree."""
    variants = ("bf16", "fp32", "loop", "loop, memory kept")
    found = apart({variant: partial(undefended, variant, quick) for variant in variants}, 1 if quick else 5)
    ours = undefended("fp32", quick)
    fast, slow = ours(precision="bf16").success, undefended("whole", quick)().success
    n, asked = len(slow), list[int]()
    with ours.args[1].register_forward_hook(lambda _, given, __: asked.append(len(given[0]))):
        ours()
    kept = 100 * (sum(asked) - 2 * n) / (20 * n)  # less the two verdicts
    away = abs(int(fast.sum()) - int(slow.sum())) / n * 100
    of = f"undefended, PGD-20, {n} digits"
    return [
        Measured(f"{of}: dropping, bf16", found["loop"] / found["bf16"], "× loop", 8, "higher"),
        Measured(f"{of}: dropping, fp32", found["loop"] / found["fp32"], "× loop", None, "higher"),
        Measured(f"{of}: loop, memory kept", found["loop"] / found[variants[-1]], "× loop", None, "higher"),
        Measured(f"{of}: gradients that dropping leaves", kept, "% of the loop's", None, "lower"),
        Measured(f"{of}: robust accuracy away from fp32's, 0.001 added", away + 1e-3, "points", 0.3, "lower"),
    ]


def measure(quick: bool) -> list[Measured]:
    """Ratios, one thread."""
    torch.set_num_threads(1)
    return [m for one in NETWORKS for m in side_by_side(*one, quick)] + dropping(quick)


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
