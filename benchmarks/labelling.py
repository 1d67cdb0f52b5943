"""A real Label Studio under load: 5,000 tasks published and pulled, and eight people writing at once.

The server is the one that `dadc up` starts, empty, in a folder of its own. What is timed are the steps that a campaign
runs: `publish_validation` with a candidate's picture in every task, and `pull` into annotations.jsonl. The 5,000
drawings come into the server by its own import of tasks with annotations, because five written a second would take
seventeen minutes; the eight people write through their own sessions as their browsers do, while the record is pulled.

A pull asks again for what changed in the ten seconds before the record's latest line, so the first one after an import
of 5,000 within seconds would read most of it twice. It is made before "what is new" is timed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml

from benchmarks._frame import Measured, main
from data.layout import Round, Workspace
from data.records import Candidate
from data.sets import digits
from data.shards import encode_png, write_candidates, write_images
from flows.stack.lifecycle import down, up
from tasks.config.params import Params, read
from tasks.labelling import drawing as ink
from tasks.labelling import label_config, projects
from tasks.labelling.account import Account
from tasks.labelling.client import LabelStudio, connect
from tasks.publish import publish_drawing, publish_validation
from tasks.pull import pull
from tasks.record.record import Record
from tasks.simulation import strokes
from tasks.workspace.checkout import image_spec
from tasks.workspace.rounds import write_index

PEOPLE = 8
BATCH = 1000  # tasks of one import
ROOT = Path(__file__).resolve().parent.parent


def open_round(folder: Path, drawings: int) -> tuple[Round, Params]:
    """An open round of a campaign that nobody else has, and its parameters."""
    workspace = Workspace(folder)
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["campaign"] = f"labelling-{folder.name}"
    content["collect"]["drawings"] = drawings
    content["validate"]["probes"] = 0
    round_ = workspace.round(1)
    round_.folder.mkdir(parents=True)
    round_.params.write_text(yaml.safe_dump(content), encoding="utf-8")
    workspace.base.mkdir(parents=True)
    pool = digits.load("train", root=folder, size=None, channels=None, seed=0)
    write_images(workspace.split("pool"), pool.take(range(len(pool))))
    splits = {"classes": list(pool.classes), "channels": 1, "size": 28, "splits": {}}
    workspace.splits.write_text(json.dumps(splits), encoding="utf-8")
    workspace.index.write_text('{"rounds": {}, "collected": {}}', encoding="utf-8")
    write_index(round_, "collected", {"target": "data/rounds/000/model.safetensors"})
    write_candidates(round_.attack, [])
    return round_, read(round_.params)


def candidates(round_: Round, count: int) -> list[Candidate]:
    """As many different fooling candidates: digits with a little noise."""
    pool = digits.load("train", root=round_.workspace.root, size=None, channels=None, seed=0)
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        pixels, label = pool.pixels_NCHW[number % len(pool)].clone(), int(pool.labels_N[number % len(pool)])
        pixels[0, rng.integers(28, size=8), rng.integers(28, size=8)] = 255
        found.append(
            Candidate(f"001/pgd/{number}", 1, "pgd", encode_png(pixels), intended=label, answer=(label + 1) % 10)
        )
    return found


def drawn(number: int) -> list[dict[str, Any]]:
    """A drawing of three strokes and its class, as the page sends them."""
    rng = np.random.default_rng(number)
    walks = [np.cumsum(rng.normal(0, 0.04, (40, 2)), axis=0) % 0.9 + 0.05 for _ in range(3)]
    alpha = strokes.redraw(walks, ink.canvas_size(28), 0.0, rng)
    return [ink.region(alpha, "ink"), ink.chosen(projects.INTENDED, "class", str(number % 10))]


def import_drawn(studio: LabelStudio, round_: Round, params: Params, authors: list[int]) -> int:
    """The round's drawing tasks, each with a drawing by one of the accounts; the project."""
    title = projects.title(params.campaign, round_, "draw")
    project = studio.ensure_project(title, label_config.draw_page([str(digit) for digit in range(10)]), instruction="")
    canvas, kept = ink.blank(28, 1), [drawn(number) for number in range(100)]
    tasks = [
        {
            "data": {"image": canvas, "note": "", "key": key},
            "annotations": [{"completed_by": authors[n % len(authors)], "result": kept[n % 100], "lead_time": 9.0}],
        }
        for n, key in enumerate(projects.drawing_keys(round_, params))
    ]
    for start in range(0, len(tasks), BATCH):
        studio._sdk.projects.import_tasks(project, request=tasks[start : start + BATCH])
    return project


def write_at_once(people: list[Account], tasks: list[int], meanwhile: Callable[[], object]) -> float:
    """Everybody submits their share of the tasks; `meanwhile` is called over and over. The seconds it took."""
    faults: list[BaseException] = []
    start = threading.Barrier(len(people) + 1)

    def write(number: int) -> None:
        try:
            start.wait(60)
            for n, task in enumerate(tasks[number :: len(people)]):
                people[number].submit(task, drawn(1000 * number + n), 9.0)
        except BaseException as error:
            faults.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(len(people))]
    for writer in writers:
        writer.start()
    start.wait(60)
    began = time.perf_counter()
    while any(writer.is_alive() for writer in writers):
        meanwhile()
        writers[0].join(0.5)
    for writer in writers:
        writer.join()
    if faults:
        raise faults[0]
    return time.perf_counter() - began


def pulled_now(studio: LabelStudio, round_: Round) -> int:
    """Read the record and pull; how many lines are new."""
    before = Record.read(round_)
    return len(pull(studio, before).lines) - len(before.lines)


def timed(call: Callable[[], int]) -> tuple[int, float]:
    """What it says, and the seconds until then."""
    began = time.perf_counter()
    said = call()
    return said, time.perf_counter() - began


def load(studio: LabelStudio, folder: Path, count: int, each: int) -> list[Measured]:
    """All figures. count: tasks published and pulled; each: annotations that a person writes."""
    round_, params = open_round(folder / "many", count)
    record, made = Record.read(round_), candidates(round_, count)
    new, first = timed(lambda: publish_validation(studio, record, made))
    again, second = timed(lambda: publish_validation(studio, record, made))
    voting = studio.find(projects.title(params.campaign, round_, "validate"))
    assert voting is not None
    there = sum(task.open for task in studio.tasks(voting).values())
    assert (new, again, there) == (count, 0, count), (new, again, there)

    names = [f"person-{number}@bench.example.org" for number in range(PEOPLE)]
    people = [studio.person(name, "correct-horse-7") for name in names]
    accounts = {email: number for number, email in studio.emails().items()}
    project = import_drawn(studio, round_, params, [accounts[name] for name in names])
    pulled, all_of_them = timed(lambda: pulled_now(studio, round_))
    assert pulled == count, pulled
    task = min(studio.tasks(project).values(), key=lambda t: t.id).id
    news = []
    for turn in range(6):
        for number in range(3):
            people[number].submit(task, drawn(turn), 9.0)
        seen, seconds = timed(lambda: pulled_now(studio, round_))
        assert seen == 3, seen
        news.append(seconds)

    crowd, rules = open_round(folder / "crowd", PEOPLE * each)
    publish_drawing(studio, crowd, rules, image_spec(crowd.workspace))
    drawing = studio.find(projects.title(rules.campaign, crowd, "draw"))
    assert drawing is not None
    tasks = studio.tasks(drawing)
    ids = [tasks[key].id for key in projects.drawing_keys(crowd, rules)]
    wrote = write_at_once(people, ids, lambda: pulled_now(studio, crowd))
    recorded = pull(studio, Record.read(crowd)).lines
    times = Counter(line.id for line in recorded)
    authors = Counter(line.author for line in recorded)
    assert set(authors.values()) == {each}, authors
    return [
        Measured(f"{count:,} tasks with pictures published", count / first, "1/s", 1500, "higher"),
        Measured(f"{count:,} published again, none new", second, "s", 15, "lower"),
        Measured(f"{count:,} annotated tasks pulled", all_of_them, "s", 10, "lower"),
        Measured("what is new since the last pull", median(news[1:]), "s", 0.5, "lower"),
        Measured(f"of {PEOPLE * each} written by {PEOPLE} at once, recorded", len(times), "", PEOPLE * each, "higher"),
        Measured("of these, recorded once", sum(n == 1 for n in times.values()), "", PEOPLE * each, "higher"),
        Measured(f"written, by {PEOPLE} at once", PEOPLE * each / wrote, "1/s", None, "higher"),
    ]


def measure(quick: bool) -> list[Measured]:
    """The figures of a server started for them alone."""
    with tempfile.TemporaryDirectory(prefix="labelling-") as name:
        folder = Path(name)
        try:
            services = up(folder / "server", only=["label_studio"], say=lambda _: None)
            return load(connect(services), folder, 60 if quick else 5000, 2 if quick else 100)
        finally:
            down(folder / "server", say=lambda _: None)


if __name__ == "__main__":
    sys.exit(main(measure, __doc__))
