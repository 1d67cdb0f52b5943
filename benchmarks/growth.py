"""What the 51st round costs beside the first: 200,000 candidates over 50 closed rounds lie before it.

Two campaigns are laid out on disk, real Git, DVC and Parquet: one with no round but 000, one with 50 more. In each the
next round is opened (machine candidates with it), its record decoded, judged and validated, and closed: frozen, given
to DVC, pushed, committed, tagged. Each time in a process of its own, in turns. Not run: training, fine-tuning and
evaluating, which take what they are told to take, and Label Studio, Prefect and MLflow, which see one round at a time.
The drawings are digits, moved about; the networks are untrained.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks._frame import Measured, arguments, finish
from data.files import write_json
from data.layout import Round, Workspace
from data.records import Candidate, Verdict, Vote
from data.shards import Images, encode_png, read_candidates, write_candidates
from flows.candidates import candidates_now
from tasks.config.params import Params, read
from tasks.engine import checkpoint, networks
from tasks.freeze import lineage
from tasks.labelling import drawing as ink
from tasks.labelling import projects
from tasks.prepare import init
from tasks.record.annotations import Line
from tasks.record.candidates import probes
from tasks.record.record import Record
from tasks.workspace import inputs
from tasks.workspace.checkout import image_spec
from tasks.workspace.dvc import dvc
from tasks.workspace.git import commit, git
from tasks.workspace.rounds import write_index

CHECKOUT = Path(__file__).resolve().parent.parent
AT = "2026-01-01T00:00:00.000000Z"
ANNOTATORS, VALIDATORS, SKETCHES = 40, 20, 100
PARTS = ("open", "collect", "close")
FLAT: dict[str, Any] = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "n": 100}


def measure(rounds: int, each: int, repeats: int) -> list[Measured]:
    """Seconds, memory and disk of the first round and of the one after `rounds` with `each` candidates, and how many
    times the first the last takes."""
    with tempfile.TemporaryDirectory(prefix="dadc-growth-") as name:
        roots = {1: campaign(Path(name) / "young", 0, each), rounds + 1: campaign(Path(name) / "old", rounds, each)}
        found: dict[int, list[dict[str, float]]] = {number: [] for number in roots}
        for _ in range(repeats):
            for number, root in roots.items():
                found[number].append(child(root))
    return list(compared(found, rounds * each))


def compared(found: dict[int, list[dict[str, float]]], before: int) -> Iterator[Measured]:
    first, last = ({name: median(run[name] for run in runs) for name in runs[0]} for runs in found.values())
    one, other = found
    both = [sum(spent[part] for part in PARTS) for spent in (first, last)]
    yield Measured("the last round's seconds beside the first's", both[1] / both[0], "times", 1.5, "lower")
    yield Measured(
        "the last round's memory beside the first's", last["memory"] / first["memory"], "times", 1.25, "lower"
    )
    yield Measured("the last round's disk beside the first's", last["disk"] / first["disk"], "times", 1.25, "lower")
    for number, spent in ((one, first), (other, last)):
        name = f"round {number:03d}, {before if number == other else 0:,} candidates before it"
        for part in PARTS:
            yield Measured(f"{name}: {part}", spent[part], "s", None, "lower")
        yield Measured(f"{name}: memory at most", spent["memory"], "MB", None, "lower")
        yield Measured(f"{name}: new on disk", spent["disk"], "MB", None, "lower")
        yield Measured(
            f"{name}: what training reads", spent["reading"], "s, the candidates of all rounds", None, "lower"
        )


def child(root: Path) -> dict[str, float]:
    """One round in a process of its own, and the campaign as it was before."""
    workspace = Workspace(root)
    head, before = git(workspace, "rev-parse", "HEAD"), size(root)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", "--round", str(root)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"a round of {root} failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    found["disk"] = (size(root) - before) / 1e6
    name = f"{int(found.pop('round')):03d}"
    git(workspace, "tag", "--delete", f"round-{name}")
    git(workspace, "reset", "--quiet", "--hard", head)
    shutil.rmtree(workspace.rounds / name)
    for store in (root / ".dvc" / "cache", workspace.local / "remote"):  # the next time it is new again
        for path in sorted(store.rglob("*"), reverse=True):  # a folder after what is in it
            if path.is_file() and path.stat().st_mtime > found["began"]:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):  # of the run cache's, DVC expects something in each
                path.rmdir()
    return found


def size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def one_round(root: Path) -> dict[str, float]:
    """Open, collect and close the next round by the flows' own functions; seconds by part, megabytes of memory."""
    from flows import close, collect
    from flows import open as opening
    from flows.context import load

    spent: dict[str, float] = {"began": time.time()}

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        spent[part] = time.monotonic() - began

    with timed("open"):
        campaign_ = load(root)
        round_ = opening.round_to_open(campaign_)
        plain(opening.freeze_params)(campaign_, round_)
        plain(opening.attack)(round_)
        plain(opening.record)(round_)
    shutil.copyfile(root.parent / f"{root.name}.jsonl", round_.annotations)  # what a pull brings
    with timed("collect"):
        campaign_ = load(root)
        up_to_date(collect.the_open_round(campaign_))
    with timed("close"):
        campaign_ = load(root)
        _, candidates = up_to_date(close.round_to_close(campaign_))
        plain(close.freeze)(round_, candidates)
        plain(close.keep)(round_)
        stand_in(round_, read(round_.params))
        write_index(round_, "rounds", {"start": "data/rounds/000/model.safetensors"})
        stages = [f"{name}@{round_.name}" for name in ("train", "rift", "evaluate")]
        dvc(round_.workspace, "commit", "--force", *stages, quiet=True)
        plain(close.record)(round_)
    spent["memory"] = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    spent["memory"] *= 1024 / 1e6
    with timed("reading"):
        from tasks.engine.training_set import training_set

        shards = chain.from_iterable(map(read_candidates, inputs.lineage(round_).shards))
        training_set(inputs.images(round_.workspace, "train"), shards, read(round_.params).train.candidates)
    return spent | {"round": round_.number}


def up_to_date(round_: Round) -> tuple[Record, list[Candidate]]:
    """The record and what it comes to: `dadc collect` without Label Studio."""
    record = Record.read(round_)
    return record, candidates_now(record)


def plain(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step's function, without Prefect's task around it."""
    function: Callable[..., Any] = step.fn  # type: ignore[attr-defined]
    return function


def campaign(root: Path, rounds: int, each: int) -> Path:
    """A campaign of a closed round 000 and `rounds` more, with `each` candidates; the next round's record beside it."""
    subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(root)], check=True)
    workspace = Workspace(root)
    given = yaml.safe_load(workspace.params.read_text(encoding="utf-8"))
    given["data"] |= {"set": "folder", "root": str(root.parent / "images"), "size": 28, "channels": 1}
    given["data"] |= {"pool": each + 40, "validation": 40, "gate": 0}
    given["collect"] |= {"drawings": each}
    workspace.params.write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
    commit(workspace, "params", workspace.params)
    params = read(workspace.params)
    write_folder(root.parent / "images", each + 200)
    init(workspace, params, None, _say)
    pool = inputs.images(workspace, "pool")
    sketches = [_sketch(pool, i) for i in range(min(SKETCHES, len(pool)))]
    drawn = record(workspace.round(1), params, pool, each, sketches)
    for number in range(rounds + 1):
        close_by_hand(workspace.round(number), params, pool, each if number else 0, drawn)
    made = [path for r in range(rounds + 1) for path in _kept(workspace.round(r))]
    dvc(workspace, "add", *map(str, made), say=_say, quiet=True)
    dvc(workspace, "commit", "--force", say=_say, quiet=True)
    dvc(workspace, "push", say=_say, quiet=True)
    commit(workspace, "rounds", workspace.rounds, root / "dvc.lock")
    for number in range(rounds + 1):
        git(workspace, "tag", workspace.round(number).tag)
    new = workspace.round(rounds + 1)
    told = record(new, params, pool, each, sketches) + answers(new, params, each)
    (root.parent / f"{root.name}.jsonl").write_text(told)
    return root


def close_by_hand(round_: Round, params: Params, pool: Images, each: int, drawn: str) -> None:
    """Everything that a closed round leaves. drawn: round 001's annotations, which are every round's."""
    workspace, first = round_.workspace, round_.workspace.round(0)
    round_.folder.mkdir(parents=True)
    shutil.copyfile(workspace.params, round_.params)
    start = workspace.splits
    if round_.number:
        start = first.challenger.model
        write_candidates(round_.attack, [])
        renamed = drawn.replace('"001/draw/', f'"{round_.name}/draw/')
        round_.annotations.write_text(renamed + answers(round_, params, each))
        write_index(round_, "collected", {"target": str(first.challenger.model.relative_to(workspace.root))})
    write_candidates(round_.candidates, [candidate(round_, i, pool) for i in range(each)])
    round_.lineage.write_text(json.dumps(lineage(round_, params, first if round_.number else None), indent=2) + "\n")
    stand_in(round_, params)
    write_index(round_, "rounds", {"start": str(start.relative_to(workspace.root))})


def stand_in(round_: Round, params: Params) -> None:
    """What the stages of a closed round would have left; the same few figures in every one."""
    spec = image_spec(round_.workspace)
    torch.manual_seed(round_.number)
    net = networks.build(params.model.name, len(spec.classes), spec.channels, spec.size)
    card = checkpoint.Card(params.model.name, spec.classes, spec.channels, spec.size, round_.number)
    for path in (round_.challenger.trained, round_.challenger.model):
        checkpoint.save(path, net, card)
    write_candidates(round_.challenger.predictions, [])
    write_json(round_.challenger.history, {"kept": 0, "epochs": [], "images": 0})
    write_json(round_.challenger.rift, {"modules": []})
    told: dict[str, Any] = {
        "clean": FLAT,
        "robust": {"pgd": FLAT},
        "ood": {"mean": FLAT},
        "curve": {},
        "heal": {"rate": None},
    }
    told |= {"mer": None, "vmer": {"low": None}, "promoted": round_.number == 0, "champion": 0}
    write_json(round_.challenger.metrics, told | {"round": round_.number})


def candidate(round_: Round, i: int, pool: Images) -> Candidate:
    """A frozen candidate as people leave it: fooling, verified, with two votes."""
    label = int(pool.labels_N[i])
    votes = [Vote(_person("v", i + k, VALIDATORS), label, 2 * i + k, AT) for k in range(2)]
    return Candidate(
        f"{round_.name}/draw/{i:04d}",
        round=round_.number,
        source="human",
        image=encode_png(_moved(pool.pixels_NCHW[i], i + round_.number)),
        intended=label,
        annotator=_person("a", i, ANNOTATORS),
        annotation=100_000 * round_.number + i,
        at=AT,
        seconds=9.0,
        answer=(label + 1) % 10,
        probability=0.9,
        votes=tuple(votes),
        verdict=Verdict.VERIFIED,
        split=("train", "validation", "test")[i % 3],
    )


def record(round_: Round, params: Params, pool: Images, each: int, sketches: list[Any]) -> str:
    """The round's annotations.jsonl: its drawings, and two votes on each."""
    spec = image_spec(round_.workspace)
    found = []
    for i in range(each):
        region, pixels, label = sketches[i % len(sketches)]
        key, name = f"{round_.name}/draw/{i:04d}", spec.classes[label]
        drawing = [region, ink.chosen(projects.INTENDED, "intended", name)]
        found.append(_line("draw", key, 3 * i, _person("a", i, ANNOTATORS), drawing))
        drawn = Candidate(key, round_.number, "human", encode_png(pixels), label)
        for k in range(2):
            seen = [ink.chosen(projects.SEEN, "seen", name)]
            who = _person("v", i + k, VALIDATORS)
            found.append(_line("validate", projects.vote_key(params, drawn), 3 * i + 1 + k, who, seen))
    return "".join(line.dump() for line in found)


def answers(round_: Round, params: Params, each: int) -> str:
    """The end of annotations.jsonl: every validator's answers to the probes."""
    spec, found = image_spec(round_.workspace), []
    for n, probe in enumerate(probes(round_, params, spec.channels)):
        for k in range(VALIDATORS):
            seen = [ink.chosen(projects.SEEN, "seen", spec.classes[probe.intended])]
            who, number = _person("v", k, VALIDATORS), 3 * each + n * VALIDATORS + k
            found.append(_line("validate", projects.vote_key(params, probe), number, who, seen))
    return "".join(line.dump() for line in found)


def _line(kind: projects.Kind, task: str, number: int, who: str, result: list[Any]) -> Line:
    raw = {"id": number, "result": result, "lead_time": 9.0, "updated_at": AT, "created_at": AT, "was_cancelled": False}
    return Line(kind, task, number, number, who, who, AT, deleted=False, raw=raw)


def _sketch(pool: Images, i: int) -> tuple[dict[str, Any], torch.Tensor, int]:
    """A drawing as the page sends it, the image it makes, and its class."""
    scale = ink.canvas_size(pool.size) // pool.size
    alpha = np.kron(pool.pixels_NCHW[i, 0].numpy(), np.ones((scale, scale), dtype=np.uint8))
    region = ink.region(alpha, "ink")
    return region, ink.drawing([region], pool.size, pool.channels), int(pool.labels_N[i])


def write_folder(root: Path, n: int) -> None:
    """n images to train on and 100 to test on, in folders by class: scikit-learn's digits, moved about."""
    if root.exists():
        return
    from data.sets import digits

    known = digits.load("train", root=root, size=28, channels=1, seed=0)
    for i in range(n + 100):
        part, image = "train" if i < n else "test", i % len(known)
        folder = root / part / known.classes[int(known.labels_N[image])]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:05d}.png").write_bytes(encode_png(_moved(known.pixels_NCHW[image], i // len(known))))


def _moved(pixels_CHW: torch.Tensor, by: int) -> torch.Tensor:
    return torch.roll(pixels_CHW, (by % 5 - 2, by // 5 % 5 - 2), (1, 2))


def _person(role: str, i: int, people: int) -> str:
    return f"{role}-{i % people:03d}@example.org"


def _kept(round_: Round) -> list[Path]:
    return [path for path in (round_.candidates, round_.annotations) if path.exists()]


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = arguments(__doc__)
    parser.add_argument("--round", type=Path, metavar="ROOT", help="run the next round there, and print its figures")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of each campaign, in turns")
    given = parser.parse_args()
    if given.round:
        print(json.dumps(one_round(given.round)))
        sys.exit(0)
    sys.exit(finish(measure(2, 20, 1) if given.quick else measure(50, 4000, given.repeats), given))
