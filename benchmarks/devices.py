"""Images a second in training on one device and on two, which must be idle.

    python -m benchmarks.devices [--accelerator cuda]

The stage `train` is run on workspaces that differ in `devices` alone, in turns: adversarial training, the batch split
between the devices. The figures are those that it prints, without its first epoch. On the CPU a device is a process of
one thread, and the processes speak through gloo.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks._frame import Measured, arguments, finish
from benchmarks._workspaces import cloned
from data.layout import Round, Workspace
from tasks.config.params import read
from tasks.freeze import freeze
from tasks.prepare import freeze_data

SPEED = re.compile(r"epoch \d+/\d+ .* (\d+) images/s")
DEVICES = (1, 2)


def measure(accelerator: str, quick: bool) -> list[Measured]:
    """Images a second on one and two devices, and the ratio."""
    with tempfile.TemporaryDirectory(prefix="dadc-devices-") as folder:
        rounds = {n: ready(Path(folder) / str(n), n, accelerator, quick) for n in DEVICES}
        found: dict[int, list[float]] = {n: [] for n in DEVICES}
        for _ in range(1 if quick else 3):
            for n, round_ in rounds.items():
                found[n].append(median(speeds(round_)))
    one, two = (median(found[n]) for n in DEVICES)
    return [
        Measured("two devices beside one", two / one, "×", None if quick else 1.7, "higher"),
        Measured("one device", one, "images/s", None, "higher"),
        Measured("two devices", two, "images/s", None, "higher"),
    ]


def ready(root: Path, devices: int, accelerator: str, quick: bool) -> Round:
    """Round 000 of a campaign of digits, frozen and ready to be trained."""
    loss: dict[str, Any] = {"name": "pgd_at", "params": {"steps": 2 if quick else 5}}
    changes: dict[str, Any] = {
        "devices": devices,
        "accelerator": accelerator,
        "train": {"epochs": 2 if quick else 5, "batch": 256},
        "first": {"loss": loss},
    }
    workspace = Workspace(cloned(root, changes))
    params = read(workspace.params)
    freeze_data(workspace, params, _say)
    round_ = workspace.round(0)
    round_.folder.mkdir(parents=True)
    shutil.copyfile(workspace.params, round_.params)
    freeze(round_, [], params, None)
    return round_


def speeds(round_: Round) -> list[float]:
    """Images a second in each epoch of a training but the first."""
    root = round_.workspace.root
    done = subprocess.run(
        [sys.executable, "-m", "tasks.train", round_.name], cwd=root, capture_output=True, text=True, check=False
    )
    found = [float(speed) for speed in SPEED.findall(done.stdout)]
    if done.returncode != 0 or len(found) < 2:
        raise RuntimeError(f"training in {root} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return found[1:]


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def main(given: argparse.Namespace) -> int:
    return finish(measure(given.accelerator, given.quick), given)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = arguments(__doc__)
    parser.add_argument("--accelerator", default="cpu", choices=("cpu", "cuda"))
    sys.exit(main(parser.parse_args()))
