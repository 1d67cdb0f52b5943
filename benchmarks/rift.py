"""RiFT (arXiv:2308.02533): what fine-tuning one module, or batch norm's statistics, changes, beside the published rows.

    python -m benchmarks.rift cifar10 resnet18 pgd_at --seeds 3 --accelerator cuda --root DIR [--corrupted DIR]
    python -m benchmarks.rift cifar10|cifar100|tiny_imagenet resnet18|resnet34|wrn_34_10 pgd_at --root DIR
    python -m benchmarks.rift cifar10 resnet18 trades|mart|awp|score --root DIR
    python -m benchmarks.rift mnist benchmarks._residual:build pgd_at --epochs 10 --limit 4000 --root DIR

are the paper's rows, and a small one. A network is trained as in the paper, L∞ 8/255, PGD-10, SGD from 0.1, batches of
128, 110 epochs with decays at 100 and 105, or in proportion, flips and crops; on MNIST and the digits with Adam, at
their own radius. Then every arm starts from it: a module's weight alone, its weight with batch norm's statistics, as in
the published code, the statistics alone, and all parameters. For each, α is chosen on validation as the stage chooses
it, and the test split is answered again; robust is PGD-10, the worst of three. Images of all seeds that only one of the
two networks answers rightly are counted by McNemar's exact test.

Differs from the paper: a tenth of the training images is held out for every choice; the best epoch is kept; steps are
taken in bf16, verdicts in fp32. OOD is the mean over the official files of CIFAR-10-C or CIFAR-100-C where --corrupted
names their folder, and else over home-made shifts of the same kinds, whose level is not comparable.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import _frame, _nets
from benchmarks._arms import MODULES, Arm, Change, Right, answered, arms, changes, placed, pooled
from benchmarks._frame import Measured, finish
from data.external_sets import corrupted
from data.shards import Images
from data.splitting import split_train
from tasks.adaptation.criticality import characterise
from tasks.adaptation.shortcuts import shortcuts
from tasks.attacks._answers import shifted
from tasks.config.kinds import module_of
from tasks.config.params import Params
from tasks.engine import inference, stage
from tasks.engine.devices import launched
from tasks.engine.inference import to_float
from tasks.rift import attacked_once, choose, halves, path

PUBLISHED: Mapping[tuple[str, str], tuple[str, str, str]] = {  # PGD-AT: clean, OOD and robust, before → after
    ("cifar10", "resnet18"): ("81.46 → 83.44", "73.56 → 75.69", "53.63 → 53.65"),
    ("cifar10", "resnet34"): ("84.23 → 85.41", "75.37 → 77.15", "55.31 → 55.34"),
    ("cifar10", "wrn_34_10"): ("87.41 → 87.89", "78.75 → 79.31", "55.40 → 55.41"),
    ("cifar100", "resnet18"): ("57.10 → 58.74", "46.43 → 48.06", "30.15 → 30.17"),
    ("cifar100", "resnet34"): ("58.67 → 60.88", "48.24 → 49.97", "30.50 → 30.58"),
    ("cifar100", "wrn_34_10"): ("62.35 → 64.56", "50.61 → 52.69", "31.66 → 31.64"),
    ("tiny_imagenet", "resnet18"): ("49.10 → 50.61", "27.68 → 28.73", "23.28 → 23.34"),
    ("tiny_imagenet", "resnet34"): ("50.96 → 52.54", "27.91 → 30.07", "24.27 → 24.37"),
    ("tiny_imagenet", "wrn_34_10"): ("52.78 → 55.31", "31.81 → 33.86", "26.07 → 26.17"),
}
GAINED = {"trades": (0.33, 0.67), "mart": (0.37, 0.79), "awp": (0.39, 0.64), "score": (1.45, 1.55)}  # clean, OOD
LOSSES: Mapping[str, tuple[str, Mapping[str, Any], float | None]] = {  # the loss, its own parameters, AWP's gamma
    "pgd_at": ("pgd_at", {}, None),
    "trades": ("trades", {"beta": 6.0}, None),
    "mart": ("mart", {"beta": 5.0}, None),
    "awp": ("pgd_at", {}, 0.01),
    "score": ("score", {}, None),
}
RADII = {"digits": 0.1, "mnist": 0.3}  # L∞; 8/255 for the others
SMALL = tuple(RADII)
SHIFTS: Mapping[str, Mapping[str, float]] = {
    "gaussian_noise": {"sigma": 0.06},
    "poisson_noise": {"photons": 100.0},
    "salt_and_pepper": {"amount": 0.03},
    "speckle_noise": {"sigma": 0.2},
    "blur": {"sigma": 0.8},
    "zoom_blur": {"zoom": 0.15},
    "brightness": {"amount": 0.2},
    "contrast": {"factor": 0.5},
    "pixelate": {"block": 2},
    "fog": {"density": 0.4},
    "jpeg": {"quality": 40},
}
AS_PUBLISHED = "least critical, weight + statistics"  # of the arms
HELD_OUT = 0.1  # share of the training images


def settings(given: argparse.Namespace, seed: int) -> Params:
    """The paper's recipe; on MNIST and the digits, Adam."""
    epsilon = RADII.get(given.set, 8 / 255)
    loss, own, gamma = LOSSES[given.loss]
    small = given.set in SMALL
    attack = {"steps": 10, "step_size": epsilon / 4, "restarts": 1}
    return _nets.settings(
        {
            "seed": seed,
            "threads": given.threads,
            "accelerator": given.accelerator,
            "model": {"name": given.network},
            "threat": {"norm": "linf", "epsilon": epsilon},
            "train": {
                "optimizer": "adam" if small else "sgd",
                "learning_rate": given.rate or (1e-3 if small else 0.1),
                "schedule": "late_step",
                "weight_decay": 0.0 if small else 5e-4,
                "batch": 64 if small else 128,
                "epochs": given.epochs or (10 if small else 110),
                "precision": "bf16",
                "augment": {} if small else {"crop": {}, "flip": {}},
                "loss": {"name": loss, "params": {"steps": given.inner or (5 if small else 10), **own}},
                "awp": None if gamma is None else {"gamma": gamma},
            },
            "rift": {
                "steps_of_tuning": given.steps,
                "steps": 10,
                "attack": attack,
                "augment": {} if small else {"crop": {"fill": "reflect"}, "flip": {}},
            },
            "evaluate": {
                "shifts": {name: dict(strength) for name, strength in SHIFTS.items()},
            },
        }
    )


def loaded(given: argparse.Namespace) -> tuple[Images, Images, Images]:
    """Training, held-out and test images, the first two by chance and never the same."""
    module = module_of("data.sets", given.set, "SET")
    train, test = (
        module.load(split, root=given.root or Path(), size=None, channels=None, seed=0) for split in ("train", "test")
    )
    n = min(len(train), given.limit or len(train))
    parts = split_train(train, pool=0, validation=round(n * HELD_OUT), limit=n, seed=0)
    return parts["train"], parts["validation"], _nets.some(test, given.tested or len(test))


def one_seed(given: argparse.Namespace, seed: int) -> dict[str, dict[str, Change]]:
    """What each arm changes, by the arm's name and the figure's."""
    params = settings(given, seed)
    train, validation, test = loaded(given)
    found, name = {}, f"{given.network}, seed {seed}"
    with (
        launched(params) as where,
        stage.reproducible(params, "benchmarks.rift", strict=where.device.type == "cpu"),
    ):
        net = _nets.fitted(name, train, validation, params, where).to(where.device).requires_grad_(True)
        measured = partial(figures, test=test, folder=given.corrupted, params=params, restarts=1 if given.quick else 3)
        before = measured(net)
        first, second = halves(validation)
        modules = characterise(net, attacked_once(net, first, params), params)
        done: dict[Arm, dict[str, Change]] = {}  # two roles may fall on one module
        for role, arm in arms(net, modules, shortcuts(net) or frozenset(), given.modules).items():
            if arm not in done:
                tuned = arm.tuned(net, train, params)
                point = choose(path(net, tuned, second, params), params.rift)
                with placed(net, tuned, point.alpha):
                    done[arm] = changes(before, before if point.alpha == 0 else measured(net))
                line = ", ".join(f"{key} {each.before:.2f} → {each.after:.2f}" for key, each in done[arm].items())
                print(f"seed {seed}, {role} ({arm.what}) at α {point.alpha:g}: {line}", file=sys.stderr)
            found[role] = done[arm]
    return found


def figures(net: nn.Module, test: Images, folder: Path | None, params: Params, restarts: int) -> Right:
    """Clean, OOD and robust, image by image; the official files' images in place of home-made shifts where given."""
    moved = dict(shifted(to_float(test.pixels_NCHW), params)) if folder is None else {}
    found = answered(net, test, moved, params, steps=10, restarts=restarts)
    if folder is not None:
        found["OOD"] = official(net, folder)
    return found


def official(net: nn.Module, folder: Path) -> torch.Tensor:
    """Each image's share of kinds, in a folder of CIFAR-10-C's or CIFAR-100-C's files, that is answered rightly."""
    kinds, labels_N = corrupted(folder)
    right = [inference.answer(net, pixels_NCHW)[0] == labels_N for pixels_NCHW in kinds.values()]
    return torch.stack(right).double().mean(0)


def measure(given: argparse.Namespace) -> list[Measured]:
    """What every arm gains, the mean over the seeds."""
    seeds = [one_seed(given, seed) for seed in range(given.seeds)]
    full = not (given.quick or given.epochs or given.limit or given.tested or given.inner or given.rate)
    found = []
    for role in seeds[0]:
        for at, name in enumerate(seeds[0][role]):
            change = pooled([each[role][name] for each in seeds])
            line = f"{given.set} {given.network} {given.loss}, {role}, {name}: {change.before:.2f} → {change.after:.2f}"
            line += f", {change.gained} gained and {change.lost} lost, p {change.p:.2g}, {change.verdict}"
            goal = target(given, name) if full and role == AS_PUBLISHED else None
            found.append(Measured(line + published(given, at), change.points, "points", goal, "higher"))
    return found


def target(given: argparse.Namespace, name: str) -> float | None:
    """Points that RiFT as published must gain, or may lose: of robust accuracy a tenth."""
    if name.startswith("PGD"):
        return -0.1
    return 1.5 if (given.set, given.network, given.loss) == ("cifar10", "resnet18", "pgd_at") else 0.0


def published(given: argparse.Namespace, at: int) -> str:
    """What the paper prints for clean, OOD or robust accuracy (0, 1, 2), where it has this row."""
    if given.loss == "pgd_at" and (given.set, given.network) in PUBLISHED:
        return f" (published {PUBLISHED[given.set, given.network][at]})"
    if (given.set, given.network) == ("cifar10", "resnet18") and given.loss in GAINED and at < 2:
        return f" (published +{GAINED[given.loss][at]})"
    return ""


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = _frame.arguments(__doc__)
    parser.add_argument("set", nargs="?", default="digits", help="a file of data/sets/")
    parser.add_argument("network", nargs="?", default="benchmarks._residual:build", help="a file of models/")
    parser.add_argument("loss", nargs="?", default="pgd_at", choices=LOSSES)
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder that the set lies in")
    parser.add_argument("--corrupted", type=Path, metavar="DIR", help="folder of CIFAR-10-C's or CIFAR-100-C's files")
    parser.add_argument("--seeds", type=int, default=1, help="networks trained, each from a seed of its own")
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=list(MODULES), help="which to fine-tune")
    parser.add_argument("--steps", type=int, default=3900, help="of a fine-tuning")
    parser.add_argument("--epochs", type=int, help="instead of the paper's 110")
    parser.add_argument("--inner", type=int, help="steps of the loss's PGD instead of the paper's 10")
    parser.add_argument("--rate", type=float, help="learning rate instead of the paper's 0.1")
    parser.add_argument("--limit", type=int, help="training images instead of all")
    parser.add_argument("--tested", type=int, help="test images instead of all")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu", help="where it computes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    given = parser.parse_args(arguments)
    if given.quick:
        few = {"epochs": 1, "limit": 200, "tested": 48, "seeds": 1, "steps": 4, "modules": ["main"]}
        given = argparse.Namespace(**(vars(given) | few))
    return given


if __name__ == "__main__":
    chosen = options()
    sys.exit(finish(measure(chosen), chosen))
