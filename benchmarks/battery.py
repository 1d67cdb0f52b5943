"""Our battery against APGD, FAB and Square of torchattacks at AutoAttack's budgets, on digits and a robust network.

The slow way is AutoAttack's, in its order and in fp32: APGD on the cross-entropy, APGD towards nine targets, 100 steps
each, FAB with 100 steps, Square with 5,000 queries, each on what still stands. (torchattacks' own AutoAttack gives APGD
10 steps and is not comparable; so its parts are called one by one.) Ours: PGD, APGD on both losses, and Square with
1,000 queries, steps in bf16, verdicts in fp32. Processor time of one thread. The network is nsl_cnn, trained here by
PGD. Without .peers, which `make peers` makes, there is only ours.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from torch import nn

from benchmarks import _nets
from benchmarks._frame import Measured, main
from benchmarks.attacks import PEERS
from data.shards import Images
from tasks.attacks import apgd_ce, apgd_t, pgd, square
from tasks.attacks._battery import battery
from tasks.config.params import Threat
from tasks.engine import inference

EPSILON = 0.1
THREAT = Threat(norm="linf", epsilon=EPSILON)
SPARE = 1e-6  # by which a peer's image may lie outside of the ball, in fp32


def network(train: Images, validation: Images, quick: bool) -> nn.Module:
    changes = {
        "threat": {"norm": "linf", "epsilon": EPSILON},
        "train": {
            "epochs": 1 if quick else 15,
            "precision": "bf16",
            "loss": {"name": "pgd_at", "params": {"steps": 7, "step_size": 0.03}},
        },
    }
    return _nets.fitted("battery", train, validation, _nets.settings(changes))


def ours(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, quick: bool) -> torch.Tensor:
    """bool N: what stands."""
    steps = 10 if quick else 100
    kinds: dict[str, tuple[Any, Any]] = {
        "pgd": (pgd, pgd.Params(steps=10, step_size=EPSILON / 4, drop=True)),
        "apgd_ce": (apgd_ce, apgd_ce.Params(steps=steps)),
        "apgd_t": (apgd_t, apgd_t.Params(steps=steps)),
        "square": (square, square.Params(queries=50 if quick else 1000)),
    }
    answers = inference.logits_of(net, images).argmax(1)
    return battery(kinds, net, images, labels, answers, THREAT, 0, precision="bf16").standing(labels)


def theirs(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, quick: bool) -> torch.Tensor:
    """The same, of torchattacks' parts; each verdict is fp32's, on images cut to the ball."""
    if str(PEERS) not in sys.path:
        sys.path.append(str(PEERS))
    import torchattacks

    steps, queries = (10, 50) if quick else (100, 5000)
    stands = inference.logits_of(net, images).argmax(1) == labels
    for part in (
        torchattacks.APGD(net, eps=EPSILON, steps=steps, loss="ce", seed=0),
        torchattacks.APGDT(net, eps=EPSILON, steps=steps, n_classes=10, seed=0),
        torchattacks.FAB(net, eps=EPSILON, steps=steps, n_classes=10, seed=0),
        torchattacks.Square(net, eps=EPSILON, n_queries=queries, seed=0),
    ):
        index = stands.nonzero()[:, 0]
        if len(index) == 0:
            break
        found = part(images[index], labels[index]).detach()
        outside = (found - images[index]).abs().amax((1, 2, 3)) > EPSILON + SPARE
        fooled = (inference.logits_of(net, found).argmax(1) != labels[index]) & ~outside
        stands[index[fooled]] = False
        print(f"{type(part).__name__}: broke {int(fooled.sum())} of {len(index)}", file=sys.stderr)
    return stands


def measure(quick: bool) -> list[Measured]:
    """One run of each: they take minutes."""
    torch.set_num_threads(1)
    digits = _nets.some(_nets.images(None, "train"), 1400)
    train = digits.take(torch.arange(1200))
    net = network(train, digits.take(torch.arange(1200, len(digits))), quick)
    test = _nets.some(_nets.images(None, "test"), 20 if quick else 200)
    images, labels = inference.to_float(test.pixels_NCHW), test.labels_N
    ours(net, images[:8], labels[:8], quick)  # to warm up
    began = time.process_time()
    standing = ours(net, images, labels, quick)
    spent = time.process_time() - began
    of = f"{len(labels)} digits"
    figures = [
        Measured(f"{of}: stand after ours", float(standing.double().mean()) * 100, "%", None, "higher"),
        Measured(f"{of}: ours", spent, "s", None, "lower"),
    ]
    if not PEERS.is_dir():
        print("the peers are not there, ours stands alone: `make peers` brings them", file=sys.stderr)
        return figures
    began = time.process_time()
    slow = theirs(net, images, labels, quick)
    far = time.process_time() - began
    return [
        *figures,
        Measured(f"{of}: stand after APGD, FAB and Square", float(slow.double().mean()) * 100, "%", None, "higher"),
        Measured(f"{of}: APGD, FAB and Square", far, "s", None, "lower"),
        Measured(f"{of}: ours, of their time", spent / far * 100, "%", None if quick else 25, "lower"),
        Measured(
            f"{of}: images judged alike",
            float((standing == slow).double().mean()) * 100,
            "%",
            None if quick else 100,
            "higher",
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
