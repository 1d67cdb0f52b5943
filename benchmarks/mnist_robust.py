"""MNIST within ε 0.3 for 1.2 million image gradients: the recipe, and what stands of it under PGD and the battery.

A gradient is one pass there and back of one image, an inner step's or the training step's: three steps of PGD and the
step of the weights make four. Without --root the digits of scikit-learn stand in, to see that it runs: no target then.
Evaluation takes its steps in bf16; every verdict is in fp32. What Square breaks is printed, for it needs no gradient.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import _frame, _nets
from benchmarks._frame import Measured
from data.shards import Images
from tasks.attacks import apgd_ce, apgd_t, attack, pgd, square
from tasks.attacks._battery import battery
from tasks.config.params import Threat
from tasks.engine import inference, networks
from tasks.engine.batch import Batch
from tasks.losses import Loss, pgd_at

THREAT = Threat(norm="linf", epsilon=0.3)
STEPS, BATCH = 3, 128
RATE, WARM = 3e-3, 0.2  # Adam's, rising to it over this share of the steps, then falling to 0 along a cosine
GROWING = 0.3  # share of the steps over which the radius grows to the threat model's


@dataclass(frozen=True)
class Trained:
    net: nn.Module
    gradients: int  # spent
    seconds: float


def train(images: Images, budget: int) -> Trained:
    """A new stretched_cnn for so many image gradients."""
    torch.manual_seed(0)
    net = networks.build("stretched_cnn", len(images.classes), images.channels, images.size)
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    generator, began = torch.Generator().manual_seed(0), time.monotonic()
    batch = min(BATCH, len(images))
    order, count = torch.randperm(len(images), generator=generator), budget // (batch * (STEPS + 1))
    for step in range(count):
        done = step / count
        rate = done / WARM if done < WARM else (1 + math.cos(math.pi * (done - WARM) / (1 - WARM))) / 2
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate
        if len(order) < batch:
            order = torch.randperm(len(images), generator=generator)
        index, order = order[:batch], order[batch:]
        pixels = inference.to_float(images.pixels_NCHW.index_select(0, index))
        own = pgd_at.Params(steps=STEPS, epsilon=THREAT.epsilon * min(1, (done + 0.02) / GROWING))
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        step_batch = Batch(pixels, images.labels_N[index], torch.ones(batch))
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            value = Loss(pgd_at, own, THREAT)(net, step_batch, generator)
        value.backward()
        optimizer.step()
        if step % max(1, count // 10) == 0:
            print(f"step {step} of {count}: loss {value.item():.3f}", file=sys.stderr)
    net = net.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    return Trained(net, count * batch * (STEPS + 1), time.monotonic() - began)


def stand(net: nn.Module, test: Images, steps: int, restarts: int, queries: int) -> dict[str, float]:
    """Accuracies in per cent: under PGD, under the battery, under both."""
    images, labels = inference.to_float(test.pixels_NCHW), test.labels_N
    answers, _ = inference.answer(net, test.pixels_NCHW)
    params = pgd.Params(steps=steps, step_size=max(0.02, THREAT.epsilon / steps), restarts=restarts)
    under = {"PGD": attack(pgd, net, images, labels, THREAT, params, 0, precision="bf16").answers == labels}
    kinds: dict[str, tuple[Any, Any]] = {
        "apgd_ce": (apgd_ce, apgd_ce.Params(steps=2 * steps + 20)),
        "apgd_t": (apgd_t, apgd_t.Params(steps=2 * steps + 20)),
        "square": (square, square.Params(queries=queries)),
    }
    found = battery(kinds, net, images, labels, answers, THREAT, 0, precision="bf16")
    for turn in found.turns:
        print(f"{turn.attack}: broke {turn.broken} of {turn.tried}", file=sys.stderr)
    under["the battery"] = found.standing(labels)
    under["both"] = torch.stack(list(under.values())).all(0)
    return {name: float(kept.double().mean()) * 100 for name, kept in under.items()}


def measure(quick: bool, root: Path | None) -> list[Measured]:
    torch.set_num_threads(1)
    real = root is not None and not quick
    images, test = _nets.images(root, "train"), _nets.images(root, "test")
    trained = train(images, 60_000 if quick else 1_200_000)
    answers, _ = inference.answer(trained.net, test.pixels_NCHW)
    clean = float((answers == test.labels_N).double().mean()) * 100
    few = _nets.some(test, 40 if quick else 1000)
    found = stand(trained.net, few, *((5, 1, 20) if quick else (40, 5, 1000)))
    wanted = {"PGD": 93.0, "the battery": 90.0} if real else {}
    return [
        Measured("image gradients", trained.gradients / 1e6, "million", 1.2, "lower"),
        Measured("training", trained.seconds, "s", None, "lower"),
        Measured(f"clean, {len(test)} images", clean, "%", 98.5 if real else None, "higher"),
        *(
            Measured(f"under {name}, {len(few)} images", value, "%", wanted.get(name), "higher")
            for name, value in found.items()
        ),
    ]


if __name__ == "__main__":
    given = _nets.arguments(__doc__).parse_args()
    sys.exit(_frame.finish(measure(given.quick, given.root), given))
