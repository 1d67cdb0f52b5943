"""A seeded campaign of two rounds without any server, and the digests of all that it makes: run it before a change of
structure and after it, on one machine, and the bytes must be the same.

    PYTHONPATH=.:tests python tests/seeded_campaign.py --save before.json     # in the old code
    PYTHONPATH=.:tests python tests/seeded_campaign.py --against before.json  # in the new; exit status 1 if they differ

It covers every stage, the reference arm, a battery, RiFT, two losses and three shifts. People's drawings and votes are
written into annotations.jsonl as a pull writes them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from conftest import copy_checkout, dadc, run

from data.layout import Round, Workspace
from data.shards import read_images
from flows.candidates import candidates_now
from flows.close import index_stages
from tasks.config.params import read
from tasks.freeze import freeze
from tasks.labelling import drawing, projects
from tasks.record.annotations import Line, append
from tasks.record.pool import seed_images
from tasks.record.record import Record
from tasks.simulation.strokes import redraw, strokes
from tasks.workspace.rounds import write_index

PARAMS: dict[str, dict[str, object]] = {
    "data": {"limit": 300, "pool": 60, "validation": 60, "gate": 60},
    "attack": {"count": 3, "kinds": {"pgd": {"steps": 4}, "square": {"queries": 40}}},
    "collect": {"drawings": 8, "edits": 4},
    "train": {
        "epochs": 2,
        "precision": "fp32",
        "augment": {"flip": {}, "crop": {}, "gaussian_noise": {}},
        "loss": {"name": "trades", "params": {"steps": 3}},
        "awp": {"gamma": 0.005},
    },
    "first": {"loss": {"name": "nsl", "params": {"steps": 2, "step_size": 0.1}}, "rift": True},
    "rift": {"steps": 2, "steps_of_tuning": 1, "candidates": 2, "tolerance": 0.1, "attack": {"steps": 3}},
    "evaluate": {
        "precision": "fp32",
        "attacks": {"fgsm": {}, "pgd": {"steps": 4}},
        "battery": {"apgd_ce": {"steps": 5}, "square": {"queries": 40}},
        "epsilons": [0.05],
        "shifts": {
            "gaussian_noise": {"sigma": 0.2},
            "affine": {"degrees": 20.0, "translate": 0.1, "scale": 0.15, "shear": 10.0},
            "elastic": {"strength": 1.5, "smoothness": 3.0},
        },
    },
}
RANDOM = ("id",)  # keys of splits.json that are drawn anew for every campaign
CODE = ("code",)  # keys of lineage.json that name the code


def play(root: Path) -> None:
    """Init, rounds 000 and 001, up to metrics.json."""
    dadc(root, "init")
    workspace = Workspace(root)
    first, second = workspace.round(0), workspace.round(1)
    begin(first)
    freeze(first, [], read(first.params), None)
    repro(root, *index_stages(first))
    begin(second)
    write_index(second, "collected", {"target": "data/rounds/000/model.safetensors"})
    repro(root, "attack@001")
    append(second.annotations, list(drawn(Record.read(second))))
    append(second.annotations, list(voted(Record.read(second))))
    record = Record.read(second)
    freeze(second, candidates_now(record), record.params, first, [first])
    repro(root, *index_stages(second))


def begin(round_: Round) -> None:
    """The round's folder with its parameters."""
    round_.folder.mkdir(parents=True)
    shutil.copyfile(round_.workspace.params, round_.params)


def repro(root: Path, *stages: str) -> None:
    print(run(root, sys.executable, "-m", "dvc", "repro", "-s", *stages).stdout)


def drawn(record: Record) -> Iterator[Line]:
    """Every pool image of the round redrawn, or painted over, by one of six annotators."""
    round_, params, spec = record.round, record.params, record.spec
    pool = read_images(round_.workspace.split("pool"), spec.channels)
    chosen = seed_images(round_.number, params, len(pool))
    canvas, rng = drawing.canvas_size(spec.size), np.random.default_rng(0)
    tasks = [*projects.drawing_keys(round_, params), *projects.editing_keys(round_, params)]
    for number, (task, index) in enumerate(zip(tasks, [*chosen.drawings, *chosen.edits], strict=True)):
        kind: projects.Kind = "draw" if "/draw/" in task else "edit"
        if kind == "draw":
            alpha = redraw(strokes(pool.pixels_NCHW[index, 0].numpy()), canvas, 0.7, rng)
            pen = projects.PEN
        else:
            alpha, pen = np.zeros((canvas, canvas), np.uint8), "white"
            alpha[canvas // 3 : canvas // 2, canvas // 4 : 3 * canvas // 4] = 255
        name = spec.classes[int(pool.labels_N[index])]
        result = [drawing.region(alpha, f"ink{number}", pen), drawing.chosen(projects.INTENDED, f"class{number}", name)]
        yield line(kind, task, number + 1, f"annotator{number % 6}@example.org", result)


def voted(record: Record) -> Iterator[Line]:
    """Two votes for the intended class of every candidate but each fifth, which another class gets."""
    classes = record.spec.classes
    for number, candidate in enumerate(record.candidates):
        right = number % 5 != 0
        name = classes[candidate.intended if right else (candidate.intended + 1) % len(classes)]
        for voter in range(2):
            at = 100 + 2 * number + voter
            result = [drawing.chosen(projects.SEEN, f"seen{at}", name)]
            task = projects.vote_key(record.params, candidate)
            yield replace(line("validate", task, at, f"validator{voter}@example.org", result), task_id=1000 + number)


def line(kind: projects.Kind, task: str, number: int, author: str, result: list[dict[str, Any]]) -> Line:
    at = f"2026-01-01T00:{number // 60:02d}:{number % 60:02d}.000000Z"
    raw = {"id": number, "result": result, "lead_time": 5.0, "created_at": at, "updated_at": at, "was_cancelled": False}
    return Line(kind, task, number, number, author, author, at, deleted=False, raw=raw)


def digests(root: Path) -> dict[str, str]:
    """Path → SHA-256 of every file that the campaign made, without what names the code or is drawn anew."""
    made = sorted(p for part in ("base", "rounds") for p in (root / "data" / part).rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(content(p)).hexdigest() for p in made if p.suffix != ".gitignore"}


def content(path: Path) -> bytes:
    if path.name in ("splits.json", "lineage.json"):
        told = json.loads(path.read_text())
        return json.dumps({k: v for k, v in told.items() if k not in RANDOM + CODE}, sort_keys=True).encode()
    return path.read_bytes()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = arguments.add_mutually_exclusive_group(required=True)
    where.add_argument("--save", type=Path, help="write the digests there")
    where.add_argument("--against", type=Path, help="compare with those that were written there")
    arguments.add_argument("--keep", type=Path, help="leave the campaign there")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = copy_checkout((given.keep or Path(name)) / "workspace", PARAMS)
        play(root)
        made = digests(root)
    if given.save:
        given.save.write_text(json.dumps(made, indent=2) + "\n")
        return 0
    wanted = json.loads(given.against.read_text())
    differing = [name for name in sorted(made.keys() | wanted.keys()) if made.get(name) != wanted.get(name)]
    print(
        f"{len(made) - len(differing)} of {len(made)} files have the same bytes"
        + "".join(f"\n  {n}" for n in differing)
    )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
