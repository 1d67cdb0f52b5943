"""RiFT (arXiv:2308.02533): clean, OOD and robust accuracy before and after it, beside the published figures.

    python -m benchmarks.rift cifar10 resnet18 pgd_at --seeds 3 --accelerator cuda --root DIR [--corrupted DIR]
    python -m benchmarks.rift cifar10|cifar100|tiny_imagenet resnet18|resnet34|wrn_34_10 pgd_at --root DIR
    python -m benchmarks.rift cifar10 resnet18 trades|mart|awp|score --root DIR
    python -m benchmarks.rift mnist nsl_cnn pgd_at --epochs 10 --limit 10000 --root DIR

are the paper's rows, and a small one. A network is trained as in the paper, L∞ 8/255, PGD-10, SGD from 0.1, batches of
128, 110 epochs, flips and crops, and evaluated on the test split; RiFT is run on a copy of it for each way to choose a
module, and what it made is evaluated again. Robust is PGD-10, the worst of three, as in the paper.

Differs from the paper: a tenth of the training images is held out for every choice; the best epoch is kept; the rate
falls to a tenth at half and at three quarters of the epochs; steps are taken in bf16, verdicts in fp32. OOD is the mean
over the official files of CIFAR-10-C or CIFAR-100-C where --corrupted names their folder, and else over home-made
shifts of the same kinds, whose level is not comparable.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn

from benchmarks import _frame, _nets
from benchmarks._frame import Measured, finish
from data.external_sets import corrupted
from data.shards import Images
from data.splitting import split_train
from tasks import evaluate, rift
from tasks.config.kinds import module_of
from tasks.config.params import Params
from tasks.engine import inference, stage
from tasks.engine.devices import launched

Figures = dict[str, float]  # clean, OOD and robust, per cent
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
WAYS = ("paper", "trial")  # rift.selection
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
                "schedule": "constant" if small else "step",
                "weight_decay": 0.0 if small else 5e-4,
                "batch": 64 if small else 128,
                "epochs": given.epochs or (10 if small else 110),
                "precision": "bf16",
                "augment": {} if small else {"crop": {}, "flip": {}},
                "loss": {"name": loss, "params": {"steps": given.inner or (5 if small else 10), **own}},
                "awp": None if gamma is None else {"gamma": gamma},
            },
            "rift": {"epochs": 10, "steps": 10, "attack": attack},
            "evaluate": {
                "attacks": {"pgd": attack | {"restarts": 3, "drop": True}},
                "battery": {},
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


def measured(net: nn.Module, test: Images, corrupted: Path | None, params: Params) -> Figures:
    """Clean, OOD and robust accuracy on the test split, per cent."""
    answers = evaluate.answer_all(net, test, params, shifts=corrupted is None)
    shifted = [share(found, test.labels_N) for name, found in answers.items() if name.startswith("shift_")]
    return {
        "clean": share(answers["clean"], test.labels_N),
        "OOD": mean(shifted) if corrupted is None else official(net, corrupted),
        "robust": share(answers["attack_pgd"], test.labels_N),
    }


def share(answers_N: torch.Tensor, labels_N: torch.Tensor) -> float:
    """Per cent of the answers that are right."""
    return 100 * float((answers_N == labels_N).double().mean())


def official(net: nn.Module, folder: Path) -> float:
    """Per cent over all kinds and severities of CIFAR-10-C or CIFAR-100-C: a file for each kind, and labels.npy."""
    kinds, labels_N = corrupted(folder)
    return mean(share(inference.answer(net, pixels_NCHW)[0], labels_N) for pixels_NCHW in kinds.values())


def one_seed(given: argparse.Namespace, seed: int) -> dict[str, tuple[Figures, Figures]]:
    """Before and after RiFT, for each way to choose the module."""
    params = settings(given, seed)
    train, validation, test = loaded(given)
    found, name = {}, f"{given.network}, seed {seed}"
    with (
        launched(params) as where,
        stage.reproducible(params, "benchmarks.rift", strict=where.device.type == "cpu"),
    ):
        net = _nets.fitted(name, train, validation, params, where).to(where.device).requires_grad_(True)
        before = measured(net, test, given.corrupted, params)
        for selection in WAYS:
            own = params.model_copy(update={"rift": params.rift.model_copy(update={"selection": selection})})
            tuned = copy.deepcopy(net)
            told = rift.tune(tuned, train, validation, own)
            # α = 0 leaves every weight as it was
            after = before if told["alpha"] == 0 else measured(tuned, test, given.corrupted, params)
            found[selection] = before, after
            line = ", ".join(f"{name} {before[name]:.2f} → {after[name]:.2f}" for name in before)
            print(f"seed {seed}, {selection}: {told['module']} at α {told['alpha']:g}: {line}", file=sys.stderr)
    return found


def measure(given: argparse.Namespace) -> list[Measured]:
    """Gains, the mean over the seeds."""
    seeds = [one_seed(given, seed) for seed in range(given.seeds)]
    real = not (given.quick or given.epochs or given.limit or given.tested or given.inner or given.rate)
    found = []
    for selection in WAYS:
        pairs = [each[selection] for each in seeds]
        for at, name in enumerate(("clean", "OOD", "robust")):
            before, after = (mean(pair[i][name] for pair in pairs) for i in (0, 1))
            told = f"{given.set} {given.network} {given.loss}, {selection}, {name}: {before:.2f} → {after:.2f}"
            goal = target(given, name) if (real or given.set in SMALL) and not given.quick else None
            found.append(Measured(told + published(given, at), after - before, "points", goal, "higher"))
    return found


def target(given: argparse.Namespace, name: str) -> float | None:
    """Points that RiFT must gain, or may lose: of robust accuracy a tenth."""
    if name == "robust":
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
    parser.add_argument("network", nargs="?", default="nsl_cnn", help="a file of models/")
    parser.add_argument("loss", nargs="?", default="pgd_at", choices=LOSSES)
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder that the set lies in")
    parser.add_argument("--corrupted", type=Path, metavar="DIR", help="folder of CIFAR-10-C's or CIFAR-100-C's files")
    parser.add_argument("--seeds", type=int, default=1, help="networks trained, each from a seed of its own")
    parser.add_argument("--epochs", type=int, help="instead of the paper's 110")
    parser.add_argument("--inner", type=int, help="steps of the loss's PGD instead of the paper's 10")
    parser.add_argument("--rate", type=float, help="learning rate instead of the paper's 0.1")
    parser.add_argument("--limit", type=int, help="training images instead of all")
    parser.add_argument("--tested", type=int, help="test images instead of all")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cpu", help="where it computes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    given = parser.parse_args(arguments)
    if given.quick:
        given = argparse.Namespace(**(vars(given) | {"epochs": 1, "limit": 200, "tested": 48, "seeds": 1}))
    return given


if __name__ == "__main__":
    chosen = options()
    sys.exit(finish(measure(chosen), chosen))
