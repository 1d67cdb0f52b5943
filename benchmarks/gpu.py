"""One table within ten minutes on a GPU: adversarial training on CIFAR-10, then what each arm of RiFT changes.

    python -m benchmarks.gpu --pack FOLDER --data FILE            # once, where FOLDER/train/<class>/*.png lie
    python -m benchmarks.gpu --data FILE --out DIR --minutes 9

A ResNet-18 is trained by PGD-10 at L∞ 8/255, SGD from 0.1, for as many epochs as three fifths of the time permit, with
decays in proportion to the 100th and 105th of the paper's 110; a fifth of the training images is held out for every
choice. Then, as the paper does, one module at a time is fine-tuned on clean images for ten epochs (arXiv:2308.02533):
its weight alone, weight and batch norm's statistics, and the statistics alone. For each arm α is chosen on held-out
images, and the test images are answered at that α and at α = 1: clean, under PGD-20, under home-made shifts. Beside
each figure stand the images gained and lost against the base, with McNemar's exact test, two-sided. The time left at
the end goes to APGD-T.

Differs from the paper: batches of 256; attack steps and training in bf16, fine-tuning in TF32, verdicts in fp32; the
fastest kernels are taken, so that no run repeats another to the byte. After every arm DIR/gpu.json and DIR/gpu.md are
written anew: a run that is stopped leaves what it had. Without --data it takes scikit-learn's digits and a small
network.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import _frame, _nets, _packed
from benchmarks._arms import (
    MODULES,
    Change,
    Right,
    answered,
    arms,
    changes,
    placed,
    stands_apgd_t,
)
from benchmarks._frame import Measured, finish
from benchmarks.rift import SHIFTS
from data.files import write_whole
from data.sets import digits
from data.shards import Images
from data.splitting import split_train
from tasks.adaptation.criticality import characterise, report
from tasks.adaptation.shortcuts import shortcuts
from tasks.attacks._answers import shifted
from tasks.config.params import Params
from tasks.engine.devices import Compute
from tasks.engine.inference import to_float
from tasks.rift import attacked_once, choose, path

TRAINING = 0.6  # share of the time
HELD_OUT = 0.2  # share of the training images
CRITICAL = 1000  # held-out images that criticality is measured on; α is chosen on the others
PAPER = 110  # epochs at most
TRIAL = 2  # epochs by which the others are estimated
STRONGEST = 1000  # test images that APGD-T attacks


@dataclass
class Clock:
    """Minutes given, and what is left of them."""

    minutes: float
    began: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        """Seconds."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds."""
        return 60 * self.minutes - self.spent

    def say(self, line: str) -> None:
        """A line of progress with its time."""
        print(f"[{self.spent:4.0f} s] {line}", flush=True)


def settings(given: argparse.Namespace, epochs: int, images: int) -> Params:
    """The recipe; for the digits, at their own radius."""
    small = given.data is None
    epsilon = 0.1 if small else 8 / 255
    changed: dict[str, Any] = {} if small else {"crop": {}, "flip": {}}
    batch = 64 if small else 128
    return _nets.settings(
        {
            "seed": given.seed,
            "threat": {"norm": "linf", "epsilon": epsilon},
            "train": {
                "optimizer": "sgd",
                "learning_rate": 0.1,
                "schedule": "late_step",
                "weight_decay": 5e-4,
                "batch": 64 if small else 256,
                "epochs": epochs,
                "precision": "bf16" if given.accelerator == "cuda" else "fp32",
                "augment": changed,
                "loss": {"name": "pgd_at", "params": {"steps": given.inner}},
                "awp": None,
            },
            "rift": {
                "steps_of_tuning": 4 if given.quick else max(1, 10 * images // batch),
                "batch": batch,
                "steps": 2 if given.quick else 10,
                "augment": changed and {"crop": {"fill": "reflect"}, "flip": {}},
                "attack": {"steps": 2 if given.quick else 10, "step_size": epsilon / 2, "restarts": 1},
                "tolerance": 0.001,
            },
            "evaluate": {
                "precision": "bf16" if given.accelerator == "cuda" else "fp32",
                "shifts": {name: dict(strength) for name, strength in SHIFTS.items()},
            },
        }
    )


def loaded(given: argparse.Namespace) -> tuple[Images, Images, Images]:
    """Training, held-out and test images."""
    if given.data is None:
        train, test = (digits.load(part, root=Path(), size=12, channels=None, seed=0) for part in ("train", "test"))
    else:
        train, test = (_packed.read(given.data, part) for part in ("train", "test"))
    if given.quick:
        train, test = _nets.some(train, 200), _nets.some(test, 50)
    parts = split_train(train, pool=0, validation=round(len(train) * HELD_OUT), limit=len(train), seed=given.seed)
    return parts["train"], parts["validation"], test


def new(given: argparse.Namespace, images: Images, params: Params) -> nn.Module:
    """An untrained network."""
    name = given.network or ("benchmarks._residual:build" if given.data is None else "resnet18")
    return _nets.new(images, params.model_copy(update={"model": params.model.model_copy(update={"name": name})}))


def epochs_in(seconds: float, given: argparse.Namespace, train: Images, validation: Images, compute: Compute) -> int:
    """How many epochs of training fit: measured on two whole ones, validation included, of a network thrown away."""
    params = settings(given, TRIAL, len(train))
    began = time.monotonic()
    _nets.trained("trial", new(given, train, params), train, validation, params, compute)
    trial = time.monotonic() - began
    return max(1, min(PAPER, int(0.9 * (seconds - trial) / (trial / TRIAL))))


@contextmanager
def fastest(threads: int) -> Iterator[None]:
    """Kernels by their speed; what was set before comes back."""
    before = torch.backends.cudnn.benchmark, torch.get_num_threads()
    torch.backends.cudnn.benchmark = True
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before[0]
        torch.set_num_threads(before[1])


@contextmanager
def fp32(precision: str) -> Iterator[None]:
    """What fp32 means on a GPU inside: `ieee`, or `tf32`, several times as fast with ten bits of mantissa."""
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [each.fp32_precision for each in kinds]
    for each in kinds:
        each.fp32_precision = precision
    try:
        yield
    finally:
        for each, old in zip(kinds, before, strict=True):
            each.fp32_precision = old


@dataclass
class Table:
    """What has been measured so far, and where it is written."""

    about: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, role: str, what: str, alpha: float, found: dict[str, Change]) -> None:
        figures = {name: asdict(each) | {"p": each.p, "verdict": each.verdict} for name, each in found.items()}
        self.rows.append({"arm": role, "tuned": what, "alpha": alpha, "figures": figures})

    def write(self, folder: Path | None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            content = {**self.about, "rows": self.rows}
            write_whole(folder / "gpu.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
            write_whole(folder / "gpu.md", self.markdown())

    def markdown(self) -> str:
        """The base's figures, then a row for each arm and α."""
        lines = [" · ".join(f"{key} {value}" for key, value in self.about.items() if not isinstance(value, list))]
        names = list(dict.fromkeys(name for row in self.rows for name in row["figures"]))
        lines += ["", "| arm | tuned | α | " + " | ".join(names) + " |", "|---|---|---|" + "---|" * len(names)]
        for row in self.rows:
            cells = []
            for name in names:
                each = row["figures"].get(name)
                if each is None:
                    cells.append("")
                elif row["arm"] == "base":
                    cells.append(f"{each['after']:.2f}")
                else:
                    cells.append(
                        f"{each['after']:.2f} ({each['after'] - each['before']:+.2f}; +{each['gained']} "
                        f"−{each['lost']}, p {each['p']:.2g}, {each['verdict']})"
                    )
            lines.append(f"| {row['arm']} | {row['tuned']} | {row['alpha']:g} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def measure(given: argparse.Namespace) -> list[Measured]:
    """The whole run; figures as every benchmark gives them."""
    clock, compute = Clock(given.minutes), Compute(torch.device(given.accelerator))
    train, validation, test = loaded(given)
    clock.say(f"{len(train)} training, {len(validation)} held-out and {len(test)} test images on {_device(compute)}")
    with fastest(given.threads), fp32("ieee"):
        epochs = (
            1
            if given.quick
            else epochs_in(60 * given.minutes * TRAINING - clock.spent, given, train, validation, compute)
        )
        params = settings(given, epochs, len(train))
        clock.say(f"{epochs} epochs fit")
        net, history = _nets.trained("base", new(given, train, params), train, validation, params, compute)
        net = net.to(compute.device).to(memory_format=torch.channels_last).requires_grad_(True)
        moved, batch = dict(shifted(to_float(test.pixels_NCHW), params)), 64 if given.quick else 1000
        table = Table(
            {
                "device": _device(compute),
                "torch": torch.__version__,
                "network": given.network or "default",
                "seed": given.seed,
                "train": len(train),
                "held out": len(validation),
                "test": len(test),
                "epochs": epochs,
                "kept": history["kept"],
                "inner PGD steps": given.inner,
                "steps of tuning": params.rift.steps_of_tuning,
            }
        )

        def figures() -> Right:
            return answered(net, test, moved, params, steps=4 if given.quick else 20, batch=batch)

        before = figures()
        table.add("base", "", 0.0, changes(before, before))
        table.write(given.out)
        clock.say("base: " + ", ".join(f"{name} {100 * float(right.mean()):.2f}" for name, right in before.items()))
        critical = min(CRITICAL, len(validation) // 2)
        some, others = validation.take(torch.arange(critical)), validation.take(torch.arange(critical, len(validation)))
        modules = characterise(net, attacked_once(net, some, params), params)
        report(modules)
        beside = shortcuts(net) or frozenset()
        table.about |= {"modules": [asdict(each) for each in modules], "shortcuts": sorted(beside)}
        clock.say("criticality of every module is known")
        kept: list[tuple[str, dict[str, torch.Tensor], float]] = []
        longest = 0.0
        for role, arm in arms(net, modules, beside, given.modules).items():
            if clock.left < 1.15 * longest + given.reserve:
                table.about.setdefault("left out for want of time", []).append(role)
                clock.say(f"{role}: left out, {clock.left:.0f} s are left")
                continue
            began = clock.spent
            with fp32("tf32"):
                tuned = dict(arm.tuned(net, train, params))
            points = path(net, tuned, others, params, given.alphas)
            alpha = choose(points, params.rift).alpha
            for at in dict.fromkeys((alpha, 1.0)):
                with placed(net, tuned, at):
                    found = changes(before, before if at == 0 else figures())
                table.add(role, arm.what, at, found)
                clock.say(
                    f"{role} ({arm.what}) at α {at:g}{' (chosen)' if at == alpha else ''}: "
                    + ", ".join(f"{name} {each.after:.2f} ({each.points:+.2f})" for name, each in found.items())
                )
            if alpha > 0:
                kept.append((role, tuned, alpha))
            table.write(given.out)
            longest = max(longest, clock.spent - began)
        _apgd_t(net, test, before, kept, table, params, clock, given)
        table.about["seconds"] = round(clock.spent)
        table.write(given.out)
    print(table.markdown())
    return [
        Measured(
            f"{row['arm']} at α {row['alpha']:g}, {name}", each["after"] - each["before"], "points", None, "higher"
        )
        for row in table.rows
        for name, each in row["figures"].items()
    ]


def _apgd_t(
    net: nn.Module,
    test: Images,
    before: Right,
    kept: Sequence[tuple[str, dict[str, torch.Tensor], float]],
    table: Table,
    params: Params,
    clock: Clock,
    given: argparse.Namespace,
) -> None:
    """APGD-T on some test images, of the base and of every arm that moved, while there is time."""
    some = _nets.some(test, 20 if given.quick else STRONGEST)
    everyone, batch = torch.ones(len(some), dtype=torch.bool), 64 if given.quick else 500
    began = clock.spent
    if clock.left < given.reserve:
        return
    base = {"APGD-T": stands_apgd_t(net, some, everyone, params, batch)}
    table.add("base", f"APGD-T, {len(some)} images", 0.0, changes(base, base))
    took = clock.spent - began
    clock.say(f"base under APGD-T: {100 * float(base['APGD-T'].mean()):.1f}")
    for role, tuned, alpha in kept:
        if clock.left < 1.2 * took:
            return
        with placed(net, tuned, alpha):
            found = changes(base, {"APGD-T": stands_apgd_t(net, some, everyone, params, batch)})
        table.add(role, f"APGD-T, {len(some)} images", alpha, found)
        clock.say(f"{role} under APGD-T: {found['APGD-T'].points:+.1f} points")


def _device(compute: Compute) -> str:
    return torch.cuda.get_device_name() if compute.device.type == "cuda" else "CPU"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = _frame.arguments(__doc__)
    parser.add_argument("--data", type=Path, metavar="FILE", help="a packed set; without it scikit-learn's digits")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write gpu.json and gpu.md there")
    parser.add_argument(
        "--pack", type=Path, metavar="FOLDER", help="write its train/ and test/ pictures to --data, end"
    )
    parser.add_argument("--train", type=int, default=25_000, help="training images that --pack takes")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it")
    parser.add_argument("--network", help="a file of models/ instead of resnet18")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--inner", type=int, default=10, help="steps of the training's PGD")
    parser.add_argument("--modules", nargs="+", choices=MODULES, default=["least", "middle", "main", "most", "all"])
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads, for the shifts")
    given = parser.parse_args(arguments)
    given.accelerator = given.accelerator or ("cuda" if torch.cuda.is_available() else "cpu")
    given.alphas, given.reserve = tuple(step / 5 for step in range(6)), 15.0
    if given.quick:
        few = {"modules": ["middle"], "inner": 2, "alphas": (0.0, 1.0), "reserve": 0.0}
        given = argparse.Namespace(**(vars(given) | few))
    if given.pack is not None and given.data is None:
        parser.error("--pack writes to --data FILE")
    return given


def main(given: argparse.Namespace) -> int:
    """Pack, or measure."""
    if given.pack is not None:
        _packed.pack(given.pack, given.data, given.train)
        return 0
    return finish(measure(given), given)


if __name__ == "__main__":
    sys.exit(main(options()))
