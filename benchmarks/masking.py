"""Whether the default evaluation finds gradient masking where it is, and nowhere else.

    python -m benchmarks.masking [--root DIR] [--seeds 3]

For each seed three honest networks are trained: plainly, with NSL's loss and adversarially. Six masked ones are made of
the plain one: their answers differ little from its own, and their gradients lead nowhere. Each is evaluated by
params.yaml as it comes, on the test images, as the evaluate stage does it. stderr says which signs gave each away.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks import _nets
from benchmarks._frame import Measured, finish
from data.shards import Images
from tasks import evaluate
from tasks.attacks import _answers
from tasks.config.params import Params
from tasks.engine.devices import ONE_PROCESS
from tasks.evaluation.masking import masking

HONEST: dict[str, Mapping[str, Any]] = {
    "plain": {"name": "plain", "params": {}},
    "nsl": {"name": "nsl", "params": {"multiplier": 2.0, "step_size": 0.04, "steps": 4}},
    "pgd_at": {"name": "pgd_at", "params": {"steps": 7}},
}
Answer = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def levels(images: torch.Tensor) -> torch.Tensor:
    """Pixels on 17 levels, 0 to 1."""
    return (images * 16).round() / 16


def tiny_constant(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """A gradient that is the same everywhere and leads nowhere."""
    logits: torch.Tensor = net(levels(images))
    return logits + 1e-6 * images.mean((1, 2, 3))[:, None] * torch.arange(logits.shape[1])


MASKED: dict[str, Answer] = {
    "zero gradient": lambda net, images: net(levels(images)),
    "tiny constant gradient": tiny_constant,
    "ragged": lambda net, images: net(images + 0.02 * (400 * images).sin()),
    "saturated, logits × 1000": lambda net, images: 1000 * net(images),
    "randomised": lambda net, images: net(images + 0.1 * torch.randn_like(images)),
    "quantised logits": lambda net, images: (net(images) * 4).round() / 4,
}


class Wrapped(nn.Module):
    """A network that answers by another one."""

    def __init__(self, net: nn.Module, answer: Answer) -> None:
        super().__init__()
        self.net, self.answer = net, answer

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        return self.answer(self.net, images_BCHW)


def report(net: nn.Module, images: Images, params: Params) -> tuple[dict[str, Any], dict[str, float]]:
    """What metrics.json would have under `masking`, and the accuracies in per cent."""
    torch.manual_seed(params.seed)  # of what a randomised network draws
    answers = _answers.answer_all(net, images, params, shifts=False)
    answers |= evaluate.masking_signs(net, images, answers, params, ONE_PROCESS)
    columns = {name: column_N.tolist() for name, column_N in {"label": images.labels_N, **answers}.items()}
    right = {name: answers[name] == images.labels_N for name in ("clean", "attack_fgsm", "attack_pgd", "attack_worst")}
    accuracy = {name.removeprefix("attack_"): 100 * right_N.double().mean().item() for name, right_N in right.items()}
    return masking(columns, params.evaluate.gradients), accuracy


def measure(given: argparse.Namespace) -> list[Measured]:
    """One thread."""
    torch.set_num_threads(1)
    train, test = _nets.images(given.root, "train"), _nets.images(given.root, "test")
    both = _nets.some(train, 300 if given.quick else given.train)
    kept = len(both) * 7 // 8
    given_, validation = both.take(range(kept)), both.take(range(kept, len(both)))
    tested = _nets.some(test, 40 if given.quick else given.images)
    seeds = 1 if given.quick else given.seeds
    found: dict[str, list[bool]] = {}
    for seed in range(seeds):
        nets: dict[str, nn.Module] = {}
        for name, loss in HONEST.items():
            changes = {"seed": seed, "train": {"loss": loss, "epochs": 1 if given.quick else 10}}
            nets[name] = _nets.fitted(name, given_, validation, _nets.settings(changes))
        nets |= {name: Wrapped(nets["plain"], answer).eval() for name, answer in MASKED.items()}
        for name, net in nets.items():
            told, accuracy = report(net, tested, _nets.settings({"seed": seed}))
            found.setdefault(name, []).append(told["found"])
            shown = "  ".join(f"{which} {value:.1f}" for which, value in accuracy.items())
            print(
                f"seed {seed}, {name}: {shown}  {', '.join(told['alarms']) or 'no alarm'}", file=sys.stderr, flush=True
            )
    share = {name: 100 * sum(each) / seeds for name, each in found.items()}
    goal = None if given.quick else 1
    rows = [Measured(f"honest: {name}, accused", share[name], "%", goal and 0, "lower") for name in HONEST]
    return rows + [Measured(f"masked: {name}, found", share[name], "%", goal and 100, "higher") for name in MASKED]


if __name__ == "__main__":
    parser = _nets.arguments(__doc__)
    parser.add_argument("--images", type=int, default=360, help="test images")
    parser.add_argument("--train", type=int, default=4_000, help="images the networks are trained on, at most")
    parser.add_argument("--seeds", type=int, default=3, help="of training and of the attacks")
    options = parser.parse_args()
    sys.exit(finish(measure(options), options))
