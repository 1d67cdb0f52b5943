"""What adversarial training costs in clean accuracy: one network, one budget of image gradients, every loss.

    python -m benchmarks.losses --root DIR [--epsilon 0.3] [--gradients 600000]

Each loss trains NSL's network on the same 10,000 images until it has used its image gradients: a pass there and back
for one image, whether for the weights or for an adversarial image. How many passes an image takes is counted on a
batch, so plain training has many epochs and TRADES few. Clean accuracy is the test split's, the others' that of its
first images; no choice is made on either.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks import _nets
from benchmarks._frame import Measured, finish, table
from data.shards import Images
from tasks.attacks import apgd_ce, attack, fgsm, pgd
from tasks.config.params import Params
from tasks.engine import inference
from tasks.engine.batch import Batch
from tasks.losses import loss_of
from tasks.losses._awp import perturbed

STEPS = 5  # of the PGD that makes a loss's images
GIVEN, HELD_OUT, ATTACKED = 10_000, 500, 1_000
LOSSES: tuple[tuple[str, str, Mapping[str, Any], float | None], ...] = (  # name, loss, its own parameters, AWP's gamma
    ("plain", "plain", {}, None),
    ("nsl", "nsl", {"multiplier": 0.2, "step_size": 0.2}, None),
    ("pgd_at", "pgd_at", {"steps": STEPS}, None),
    ("trades", "trades", {"steps": STEPS, "beta": 1.0}, None),
    ("mart", "mart", {"steps": STEPS}, None),
    ("score", "score", {"steps": STEPS}, None),
    ("pgd_at with awp", "pgd_at", {"steps": STEPS}, 0.005),
)


def passes(given: Images, params: Params) -> float:
    """Gradients that one image takes in one training step, counted."""
    net = _nets.new(given, params)
    loss = loss_of(params.train.loss.name, params.train.loss.params, params.threat)
    images, labels = inference.to_float(given.pixels_NCHW[:8]), given.labels_N[:8]
    counted = 0

    def count(_: object, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal counted
        counted += len(inputs[0]) if output.requires_grad else 0

    net.register_forward_hook(count)
    batch, generator = Batch(images, labels, torch.ones(len(labels))), torch.Generator()
    if params.train.awp is None:
        loss(net, batch, generator)
    else:
        again = loss.repeatable(net, batch, generator)
        with perturbed(net, again, params.train.awp):
            again()
    return counted / len(labels)


def trained(name: str, given: Images, validation: Images, params: Params, gradients: int) -> tuple[Any, float, int]:
    """The network after its budget, the passes an image took in a step, and the epochs that made."""
    each = passes(given, params)
    epochs = max(1, round(gradients / each / len(given)))
    params = params.model_copy(update={"train": params.train.model_copy(update={"epochs": epochs})})
    return _nets.fitted(name, given, validation, params), each, epochs


def figures(name: str, net: Any, test: Images, params: Params, quick: bool) -> list[Measured]:
    """Per cent of the test split: clean, and of its first images under FGSM, PGD and APGD."""
    answers, _ = inference.answer(net, test.pixels_NCHW)
    few = 32 if quick else ATTACKED
    images, labels = inference.to_float(test.pixels_NCHW[:few]), test.labels_N[:few]
    step = params.threat.epsilon / 8
    kinds: dict[str, tuple[Any, Any]] = {
        "FGSM": (fgsm, fgsm.Params()),
        "PGD-20": (pgd, pgd.Params(steps=20, step_size=step, drop=True)),
        "APGD-CE": (apgd_ce, apgd_ce.Params(steps=5 if quick else 100)),
    }
    found = [Measured(f"{name}: clean", 100 * float((answers == test.labels_N).double().mean()), "%", None, "higher")]
    for attacked, (module, own) in kinds.items():
        made = attack(module, net, images, labels, params.threat, own, 0)
        right = 100 * float((made.answers == labels).double().mean())
        found.append(Measured(f"{name}: {attacked}", right, "%", None, "higher"))
    return found


def measure(given: argparse.Namespace) -> list[Measured]:
    """Every loss, one thread."""
    torch.set_num_threads(1)
    n, held_out, gradients = (128, 32, 128) if given.quick else (GIVEN, HELD_OUT, given.gradients)
    both = _nets.some(_nets.images(given.root, "train"), n + held_out)
    train, validation = both.take(range(len(both) - held_out)), both.take(range(len(both) - held_out, len(both)))
    test = _nets.images(given.root, "test")
    found: list[Measured] = []
    for name, loss, own, gamma in LOSSES:
        chosen = {
            "threat": {"norm": "linf", "epsilon": given.epsilon},
            "train": {
                "learning_rate": 1e-3,
                "precision": "bf16",
                "loss": {"name": loss, "params": dict(own)},
                "awp": None if gamma is None else {"gamma": gamma},
            },
        }
        params = _nets.settings(chosen)
        net, each, epochs = trained(name, train, validation, params, gradients)
        some = figures(f"{name}, {each:g} passes × {epochs} epochs", net, test, params, given.quick)
        print(table(some), file=sys.stderr, flush=True)
        found += some
    return found


if __name__ == "__main__":
    parser = _nets.arguments(__doc__)
    parser.add_argument("--epsilon", type=float, default=0.3, help="L∞ radius, pixels in [0, 1]")
    parser.add_argument("--gradients", type=int, default=600_000, help="image gradients each loss may use")
    options = parser.parse_args()
    sys.exit(finish(measure(options), options))
