"""Over two hundred malformed annotations and votes, sent to a real Label Studio beside good ones.

They are generated: every part of a sound drawing is replaced by everything that a hostile client could put there. Those
that come as a list are brought in by the server's own import of tasks with annotations, which keeps them as they are;
the others through people's sessions. What the server refuses is counted apart.
"""

from __future__ import annotations

import base64
import copy
import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.core.api_error import ApiError
from people import Play, make_round
from PIL import Image
from rich.console import Console

from data.records import Candidate, Verdict
from data.sets import digits
from data.shards import read_candidates, write_candidates
from flows import board
from flows.collect import Tally
from tasks import ink, leaderboard, projects, pull
from tasks.annotations import DELETED, candidates, gather, lines
from tasks.judge import judge
from tasks.labelling import LabelStudio, Person
from tasks.past import voting_seconds
from tasks.projects import INTENDED, SEEN
from tasks.publish import publish_drawing, publish_validation
from tasks.validate import validate

PREFIX = "data:image/png;base64,"
EVIL = {
    "a script": "<script>alert(1)</script>",
    "an image tag": "<img src=x onerror=alert(1)>\"'",
    "control characters": "\0\x07\x1b[31m\r\n",
    "text turned around": "\u202e3\u2066",
    "a path": "../../../../etc/passwd\0.png",
    "an address": "http://127.0.0.1:1/secret<",
    "a long text": "A" * 2**17,
}
ODD: dict[str, Any] = {
    "null": None,
    "true": True,
    "a number": -1e308,
    "a large number": 10**400,
    "an empty text": "",
    "a list": [],
    "a list in lists": [[[]]],
    "an object": {"value": {"value": {}}},
    "a deep list": json.loads("[" * 200 + "]" * 200),
    "a deep object": json.loads('{"a":' * 200 + "1" + "}" * 200),
}
PATHS: dict[str, tuple[str | int, ...]] = {
    "the ink": (0,),
    "its tag": (0, "from_name"),
    "its type": (0, "type"),
    "its value": (0, "value"),
    "its picture": (0, "value", "imageDataURL"),
    "the class": (1,),
    "the class's tag": (1, "from_name"),
    "the class's value": (1, "value"),
    "the classes": (1, "value", "choices"),
    "the one class": (1, "value", "choices", 0),
}
STRINGS = {name: PATHS[name] for name in ("its tag", "its type", "its picture", "the class's tag", "the one class")}
STRINGS |= {
    f"{field} of the {part}": (n, field) for n, part in enumerate(("ink", "class")) for field in ("id", "to_name")
}
STRINGS |= {f"origin of the {part}": (n, "origin") for n, part in enumerate(("ink", "class"))}


@cache
def _sound() -> str:
    alpha = np.zeros((280, 280), np.uint8)
    alpha[60:220, 120:160] = 255
    return json.dumps([ink.region(alpha, "ink"), ink.chosen(INTENDED, "class", "3")])


def sound() -> list[Any]:
    """A good drawing of a class."""
    found: list[Any] = json.loads(_sound())
    return found


def voted(name: Any = "3") -> list[Any]:
    return [ink.chosen(SEEN, "seen", name)]


def at(result: list[Any], path: tuple[str | int, ...], value: Any) -> list[Any]:
    """The result with something else at a place."""
    place: Any = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return result


def png(array: Any, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format=kind)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int, height: int, *chunks: bytes) -> bytes:
    """A PNG that promises so many pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def pictures() -> Iterator[tuple[str, bytes]]:
    """What is sent for a PNG."""
    full = np.full((280, 280, 4), 255, np.uint8)
    good = png(full)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 10**6))
    yield "nothing", b""
    for kind in ("JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        yield f"a {kind}", png(full[..., :3], kind)
    yield "an SVG", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
    yield "a script", b"#!/bin/sh\nrm -rf /\n"
    yield "a pickle", b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x94."
    for side in (0, 281, 20_000, 60_000, 2**31 - 1):
        yield f"a bomb of {side} pixels", header(side, side, body)
    yield "20,000 pixels wide", png(np.full((1, 20_000, 4), 255, np.uint8))
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 20_000_000))
    yield "a bomb of text", header(280, 280, text, body)
    yield "no pixels", header(280, 280)
    yield "pixels that are none", header(280, 280, chunk(b"IDAT", b"no zlib stream at all"))
    for width, height in ((1, 1), (28, 28), (279, 280), (280, 279), (560, 560), (10, 3000)):
        yield f"{width}×{height}", png(np.full((height, width, 4), 255, np.uint8))
    for mode in ("RGB", "L", "1", "P"):
        buffer = io.BytesIO()
        Image.fromarray(full[..., 0]).convert(mode).save(buffer, format="PNG")
        yield f"mode {mode}, without alpha", buffer.getvalue()
    for name, alpha in (("empty", 0), ("faint", 120)):
        yield f"{name} ink", png(np.dstack([full[..., :3], np.full((280, 280), alpha, np.uint8)]))
    rng = np.random.default_rng(0)
    for n in range(8):
        yield f"cut off, {n}", good[: int(rng.integers(9, len(good) - 60))]
    for n in range(8):
        broken = bytearray(good)
        broken[int(rng.integers(16, 33))] ^= int(rng.integers(1, 256))  # the header and its checksum
        yield f"a broken header, {n}", bytes(broken)


def drawings() -> dict[str, list[Any]]:
    """Every malformed drawing that is at least a list."""
    made: dict[str, list[Any]] = {
        "no region": [],
        "no ink": sound()[1:],
        "no class": sound()[:1],
        "two classes": [*sound(), ink.chosen(INTENDED, "other", "4")],
        "the same class twice": [*sound(), sound()[1]],
        "two classes at once": at(sound(), PATHS["the classes"], ["3", "4"]),
        "a region of another tag's": [*sound(), {"from_name": "mask", "type": "brushlabels", "value": {"rle": [1]}}],
        "a rectangle": [*sound(), {"from_name": "box", "type": "rectanglelabels", "value": {"x": 1}}],
        "a vote": [*sound(), *voted()],
        "a broken region among sound ones": [*sound(), at(sound(), PATHS["its picture"], PREFIX + "AAAA")[0]],
        "too many regions": [sound()[1], *sound()[:1] * (ink.MAX_REGIONS + 1)],
    }
    for name, odd in ODD.items():
        for place, path in PATHS.items():
            made[f"{name} as {place}"] = at(sound(), path, copy.deepcopy(odd))
    for name, text in EVIL.items():
        for place, path in STRINGS.items():
            made[f"{name} as {place}"] = at(sound(), path, text)
    for path in (
        *((0, f) for f in ("from_name", "type", "value")),
        (0, "value", "imageDataURL"),
        (1, "value", "choices"),
    ):
        holds: Any = (found := sound())
        for step in path[:-1]:
            holds = holds[step]
        del holds[path[-1]]
        made[f"without {path}"] = found
    for name in ("10", "-1", "NaN", " 3", "3 ", "3\u200b", "\uff13", "three", "unreadable", "3\0"):
        made[f"class {name!r}"] = at(sound(), PATHS["the one class"], name)
    for name, blob in pictures():
        made[f"picture: {name}"] = at(sound(), PATHS["its picture"], PREFIX + base64.b64encode(blob).decode())
    good = sound()[0]["value"]["imageDataURL"].removeprefix(PREFIX)
    for name, url in {
        "no base64": PREFIX + "***",
        "spaces in base64": PREFIX + good[:40] + " " + good[40:],
        "base64 of addresses": PREFIX + "_-_-" + good,
        "base64 without its end": PREFIX + good[:-5],
        "another kind of picture": "data:image/svg+xml;base64," + good,
        "a prefix in capitals": PREFIX.upper() + good,
        "a prefix twice": PREFIX * 2 + good,
        "a file": "file:///etc/passwd",
        "an address": "http://127.0.0.1:1/a.png",
        "a script": "javascript:alert(1)",
        "too long": PREFIX + "A" * (ink.MAX_TEXT + 4),
    }.items():
        made[f"address: {name}"] = at(sound(), PATHS["its picture"], url)
    return made


def votes() -> dict[str, list[Any]]:
    """Every malformed vote that is at least a list."""
    made = {"nothing": [], "two": [*voted("3"), *voted("4")], "both": voted() + at(voted(), (0, "from_name"), "x")}
    made["a drawing"] = sound()
    for name in ("10", "", " 3", "Unreadable", "3\0", *EVIL.values()):
        made[f"class {name[:30]!r}"] = voted(name)
    for name, odd in ODD.items():
        for path in ((0, "value"), (0, "value", "choices"), (0, "value", "choices", 0), (0, "from_name"), (0, "type")):
            made[f"{name} at {path}"] = at(voted(), path, copy.deepcopy(odd))
    return made


GOOD = [f"good {n}" for n in range(4)]
SOUND = [*GOOD, "changed by its author", "changed by another", "deleted", "two drafts", "two drafts, then submitted"]

# What only the server's own interface takes, as the text of a body.
BODIES = {
    "not JSON": "{{",
    "a list": "[1]",
    "result is null": '{"result": null}',
    "result is an object": '{"result": {"a": 1}}',
    "result is a number": '{"result": 7}',
    "result is text": '{"result": "<script>"}',
    "no result": "{}",
    "regions that are null": '{"result": [null]}',
    "regions that are text": '{"result": ["x", 1, [[]]]}',
    "NaN": '{"result": [{"value": NaN}]}',
    "more than a number can be": '{"result": [{"value": 1e999}]}',
    "a number of 5,000 digits": '{"result": [{"value": ' + "9" * 5000 + "}]}",
    "800 lists deep": '{"result": [{"value": ' + "[" * 800 + "]" * 800 + "}]}",
    "2,000 lists deep": '{"result": [{"value": ' + "[" * 2000 + "]" * 2000 + "}]}",
    "half a character": '{"result": [{"value": {"text": "\\ud800"}}]}',
    "an endless time": '{"result": [], "lead_time": 1e999}',
    "skipped": '{"result": ' + _sound() + ', "was_cancelled": true}',
}


def post(person: Person, task: int, body: str) -> int:
    """Send a body as it is; the status."""
    headers = {"X-CSRFToken": person._http.cookies.get("csrftoken") or "", "Referer": person.url}
    headers["Content-Type"] = "application/json"
    return person._http.post(f"/api/tasks/{task}/annotations/", content=body.encode(), headers=headers).status_code


@dataclass(frozen=True)
class Scene:
    """An open round after everything hostile was sent."""

    play: Play
    studio: LabelStudio
    people: dict[str, Person]
    stored: dict[int, str]  # task → what is wrong with the annotation that was sent for it and that the server took
    refused: dict[str, int]  # what it did not take, and its status

    def project(self, kind: projects.Kind) -> int:
        found = self.studio.find(projects.title(self.play.params.campaign, self.play.round, kind))
        assert found is not None
        return found

    def task(self, key: str) -> int:
        return self.studio.tasks(self.project("draw"))[key].id

    def made(self) -> list[Candidate]:
        play = self.play
        found = judge(candidates(play.round, play.params, play.splits), play.round.workspace.round(0).model)
        return validate(found, pull.votes(play.round), play.params.validate_)


def bring_in(studio: LabelStudio, project: int, tasks: list[dict[str, Any]]) -> dict[str, int]:
    """Import tasks with their annotations; the keys of those that the server refuses, and its status."""
    try:
        studio._sdk.projects.import_tasks(project, request=tasks)
    except ApiError as error:
        if len(tasks) == 1:
            return {tasks[0]["data"]["key"]: error.status_code or 0}
        half = len(tasks) // 2
        return bring_in(studio, project, tasks[:half]) | bring_in(studio, project, tasks[half:])
    return {}


@pytest.fixture(scope="module")
def scene(studio: LabelStudio, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    bad = drawings()
    play = make_round(
        tmp_path_factory.mktemp("hostile"),
        checkout,
        digits.load("train", root=checkout, size=None, channels=None, seed=0),
        collect={"drawings": len(bad) + len(BODIES) + len(SOUND)},
        validate={"consensus": 2, "max_votes": 5, "non_fooling_share": 1.0, "probes": 0},
    )
    params, round_ = play.params, play.round
    people = {
        n: studio.person(f"{n}.{params.campaign}@example.org", "correct-horse-7") for n in ("ann", "bob", "cat", "eve")
    }
    accounts = {email: number for number, email in studio.emails().items()}

    few = params.model_copy(update={"collect": params.collect.model_copy(update={"drawings": 0})})
    publish_drawing(
        studio, round_, few, play.splits
    )  # the page and the practice alone: the others bring their drawings
    project = studio.find(projects.title(params.campaign, round_, "draw"))
    assert project is not None
    names = [*bad, *BODIES, *SOUND]
    keys = dict(zip(names, projects.drawing_keys(round_, params), strict=True))

    def task(name: str, author: str, result: list[Any]) -> dict[str, Any]:
        data = {"image": ink.blank(28, 1), "note": "", "key": keys[name]}
        made = {"completed_by": accounts[people[author].email], "result": result, "lead_time": 1.0}
        return {"data": data, "annotations": [made]}

    tasks = [task(name, "eve", result) for name, result in bad.items()]
    tasks += [task(name, "ann", sound()) for name in GOOD]
    said: dict[str, int] = {}
    for start in range(0, len(tasks), 64):
        said |= bring_in(studio, project, tasks[start : start + 64])
    publish_drawing(studio, round_, params, play.splits)
    free = studio.tasks(project)
    for name, body in BODIES.items():
        said[keys[name]] = post(people["eve"], free[keys[name]].id, body)
    counted = studio._tasks(project, "id,total_annotations,cancelled_annotations")
    holding = {t["id"] for t in counted if t["total_annotations"] or t["cancelled_annotations"]}
    sent = {name: free[keys[name]].id for name in (*bad, *BODIES)}
    stored = {task: name for name, task in sent.items() if task in holding}
    return Scene(
        play, studio, people, stored, {n: said.get(keys[n], 201) for n, task in sent.items() if task not in stored}
    )


def test_none_is_accepted_and_each_has_its_reason(scene: Scene) -> None:
    play = scene.play
    stored = scene.stored
    print(f"{len(stored)} stored, {len(scene.refused)} refused by the server: {scene.refused}")
    assert len(stored) >= 200
    assert all(status >= 400 for status in scene.refused.values()), scene.refused
    assert any(name in scene.refused for name in BODIES), "the server refuses what is no annotation at all"
    assert pull.pull(scene.studio, play.round) == len(stored) + len(GOOD)
    assert pull.pull(scene.studio, play.round) == 0, "nothing is new, whatever the record holds"

    made = {c.annotation: c for c in scene.made()}
    record = gather(lines(play.round.annotations), "draw")
    assert {a.first.task_id for a in record} >= stored.keys()
    for annotation in record:
        candidate = made[annotation.first.id]
        name = stored.get(annotation.first.task_id)
        if name is None:
            assert (candidate.wellformed, candidate.intended, candidate.judged) == (True, 3, True)
            assert candidate.annotator == scene.people["ann"].email
            continue
        assert (candidate.wellformed, candidate.verdict) == (False, Verdict.REJECTED), name
        assert candidate.reason, name
        assert candidate.reason.isprintable(), name
        assert candidate.annotator == scene.people["eve"].email, name
        assert candidate.image == b"", name
    assert sum(c.wellformed for c in made.values()) == len(GOOD)

    file = play.round.folder / "hostile.parquet"
    write_candidates(file, list(made.values()))
    assert read_candidates(file) == sorted(made.values(), key=lambda c: c.key)
    tally = Tally.of(list(made.values()))
    assert (tally.collected, tally.malformed) == (len(GOOD), len(stored))
    rows = {row.account: row for row in leaderboard.annotators(list(made.values()))}
    assert (rows[scene.people["eve"].email].tries, rows[scene.people["eve"].email].malformed) == (0, len(stored))
    assert rows[scene.people["ann"].email].tries == len(GOOD)


def test_no_vote_of_theirs_counts_and_the_others_settle_it(scene: Scene) -> None:
    studio, play = scene.studio, scene.play
    pull.pull(studio, play.round)
    made = scene.made()
    first = next(c for c in made if c.wellformed)
    publish_validation(studio, play.round, [], play.params)
    bad = votes()
    accounts = {email: number for number, email in studio.emails().items()}
    eve = accounts[scene.people["eve"].email]
    key = projects.vote_key(play.params, first)
    cast = [{"completed_by": eve, "result": result, "lead_time": 1.0} for result in bad.values()]
    task = {"data": {"image": ink.blank(28, 1), "key": key}, "annotations": cast}
    assert bring_in(studio, scene.project("validate"), [task]) == {}
    assert publish_validation(studio, play.round, made, play.params) == len(GOOD) - 1, "it is there already"
    number = studio.tasks(scene.project("validate"))[key].id
    for person in scene.people.values():
        if person.email not in (first.annotator, scene.people["eve"].email):
            person.submit(number, voted(), 1.0)
    assert pull.pull(studio, play.round) == len(bad) + 2
    assert pull.pull(studio, play.round) == 0

    made = scene.made()
    settled = {c.key: c for c in made}[first.key]
    theirs = [vote for vote in settled.votes if vote.validator == scene.people["eve"].email]
    assert len(theirs) == len(bad)
    for vote in theirs:
        assert not vote.counted
        assert vote.reason
        assert vote.reason.isprintable()
    assert (settled.verdict, settled.wellformed) == (Verdict.VERIFIED, True)
    voters = leaderboard.validators(made, [], play.params.validate_, voting_seconds(play.round))
    rows = {row.account: row for row in voters}
    assert (rows[scene.people["eve"].email].votes, rows[scene.people["eve"].email].counted) == (len(bad), 0)
    found = board.Board(leaderboard.annotators(made), voters, [])
    assert scene.people["eve"].email in board.as_csv(found)
    with io.StringIO() as file:
        for title, people in (("annotators", found.annotators), ("validators", found.validators)):
            Console(file=file, width=300).print(board.table(title, people))
        assert scene.people["eve"].email in file.getvalue()


def test_an_author_s_latest_form_counts_and_nobody_else_s(scene: Scene) -> None:
    studio, play, ann = scene.studio, scene.play, scene.people["ann"]
    keys = dict(zip(SOUND, projects.drawing_keys(play.round, play.params)[-len(SOUND) :], strict=True))
    own = ann.submit(scene.task(keys["changed by its author"]), sound(), 1.0)
    pushed = ann.submit(scene.task(keys["changed by another"]), sound(), 1.0)
    gone = ann.submit(scene.task(keys["deleted"]), sound(), 1.0)
    for name in ("3", "4"):
        drawn = at(sound(), PATHS["the one class"], name)
        ann.save_draft(scene.task(keys["two drafts"]), drawn)
        ann.save_draft(scene.task(keys["two drafts, then submitted"]), drawn)
    ann.submit(scene.task(keys["two drafts, then submitted"]), sound(), 1.0)
    assert pull.pull(studio, play.round) == 4
    ann.edit(own, at(sound(), PATHS["the one class"], "7"))
    scene.people["eve"].edit(pushed, at(sound(), PATHS["the one class"], "7"))
    studio._sdk.annotations.delete(gone)
    assert pull.pull(studio, play.round) == 3
    made = {c.annotation: c for c in scene.made()}
    by_key = {c.key: c for c in made.values()}
    assert (made[own].wellformed, made[own].intended) == (True, 7)
    assert (made[pushed].wellformed, "another account" in made[pushed].reason) == (False, True)
    assert (made[gone].wellformed, made[gone].reason) == (False, DELETED)
    assert keys["two drafts"] not in by_key, "a draft is nothing that was handed in"
    assert by_key[keys["two drafts, then submitted"]].intended == 3
    forms = [line for line in lines(play.round.annotations) if line.id == gone]
    assert [line.deleted for line in forms] == [False, True]
    assert forms[0].raw["result"] == sound(), "what was pulled stays in the record"
