"""The record of what people did in a round, annotations.jsonl, and what it says: candidates and votes.

A line is one form of one annotation as Label Studio gave it, or says that it was deleted; nothing is ever changed.
What the lines hold is untrusted: a malformed annotation becomes a rejected candidate with its reason, never an error.
"""

from __future__ import annotations

import gc
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from data.layout import Round
from data.records import HUMAN, PLAYED, PROBE, SIMULATED, UNREADABLE, Candidate, Vote
from data.shards import encode_png, read_candidates, read_images, read_table
from tasks import ink
from tasks.labelling import UNTOLD
from tasks.params import Params, read
from tasks.projects import (
    INTENDED,
    PLAYER_DOMAIN,
    SEEN,
    SIMULATED_DOMAIN,
    UNREADABLE_CHOICE,
    Kind,
    drawing_keys,
    editing_keys,
    guide_key,
    vote_key,
)
from tasks.seeds import seed_images
from tasks.shown import shown
from tasks.trust import Answer
from tasks.workspace import target

DELETED = "deleted after it was pulled"
SKIPPED = "skipped"
_VOTE_TYPES = {SEEN: "choices"}


@dataclass(frozen=True)
class Line:
    """One form of one annotation."""

    kind: Kind
    task: str  # the task's key
    task_id: int
    id: int  # of the annotation
    author: str  # e-mail of the account it was submitted with
    editor: str  # e-mail of the account that changed it last
    task_at: str  # when the task last changed, ISO 8601 UTC; the cursor is the latest of these
    deleted: bool
    raw: dict[str, Any]  # the annotation as Label Studio gave it; empty if deleted
    late: str = ""  # the closed round in whose project it was made, after that round was frozen; empty: this one's
    shown: str = ""  # of a vote, the digest of the task's picture when this was pulled

    @property
    def own(self) -> bool:
        """Whether its author handed it in like this; nobody did what was imported."""
        return not self.deleted and self.author == self.editor != ""

    @property
    def at(self) -> str:
        return str(self.raw.get("updated_at", ""))

    @property
    def seconds(self) -> float:
        """The time it took, as the page says; 0 if that is no sensible number."""
        lead = self.raw.get("lead_time")
        usable = isinstance(lead, int | float) and math.isfinite(lead) and 0 <= lead < 1e9
        return float(lead) if isinstance(lead, int | float) and usable else 0.0

    def dump(self) -> str:
        """A line of JSON, ASCII only: whatever a string holds, it can be written."""
        return json.dumps(self.__dict__, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Annotation:
    """All forms of one annotation, in the order in which they were pulled."""

    forms: tuple[Line, ...]

    @property
    def first(self) -> Line:
        return self.forms[0]

    @cached_property
    def latest(self) -> Line:
        """The latest form that was not the news of its deletion, whoever gave it."""
        return next((line for line in reversed(self.forms) if not line.deleted), self.forms[0])

    @cached_property
    def own(self) -> tuple[Line, ...]:
        """The forms that its author gave it."""
        return tuple(line for line in self.forms if line.own and line.author == self.first.author)

    @property
    def last(self) -> Line:
        """The form that counts, if any does: the author's latest, whatever others made of it."""
        return self.own[-1] if self.own else self.latest

    @property
    def deleted(self) -> bool:
        return self.forms[-1].deleted

    def fault(self, form: Line) -> str:
        """Why one of its forms does not count whatever it holds; empty if it may."""
        if not form.own or form.author != self.first.author:
            changed = f"changed by another account than its author's, {form.editor!r}"
            return changed if form.editor else "handed in by nobody: it was imported, or its account is gone"
        if form.raw.get("was_cancelled"):
            return SKIPPED
        if UNTOLD in form.raw:
            return "an annotation that Label Studio can tell was wanted, and it fails at this one"
        if "oversize" in form.raw:
            return f"an annotation of at most 8 MiB was wanted, got {form.raw['oversize']!r} characters"
        return ""


def lines(path: Path) -> list[Line]:
    """The whole lines of the record; a last one that a crash tore is not there."""
    if not path.exists():
        return []
    whole = path.read_bytes().decode("ascii").split("\n")[:-1]
    collecting = gc.isenabled()
    gc.disable()  # nothing made here is garbage, and looking for some takes as long as reading
    try:
        return [Line(**json.loads(line)) for line in whole]
    finally:
        if collecting:
            gc.enable()


def gather(found: Iterable[Line], kind: Kind) -> list[Annotation]:
    """The annotations of one project, by id."""
    forms: dict[int, list[Line]] = {}
    for line in found:
        if line.kind == kind:
            forms.setdefault(line.id, []).append(line)
    return [Annotation(tuple(forms[number])) for number in sorted(forms)]


def pulled(round_: Round) -> dict[str, int]:
    """How many annotations of each project the round's record holds that are neither deleted nor skipped: `001 draw`
    → 24. What came late is counted with the round it was made for."""
    last: dict[tuple[str, Kind, int], Line] = {}
    for line in lines(round_.annotations):
        last[line.late or round_.name, line.kind, line.id] = line
    counts = Counter(
        f"{name} {kind}"
        for (name, kind, _), line in last.items()
        if not (line.deleted or line.raw.get("was_cancelled"))
    )
    return dict(sorted(counts.items()))


def candidates(round_: Round, params: Params, splits: dict[str, Any]) -> list[Candidate]:
    """Every candidate of the round, people's or a machine's, malformed ones too; not yet judged or validated.
    FileNotFoundError if what the machine made is not here, as in a clone that was given Git's files alone."""
    if not round_.attack.exists() and target(round_):
        told = f"`dvc pull` brings it, `dvc repro -s attack@{round_.name}` makes it again"
        raise FileNotFoundError(f"{round_.attack} is wanted and is not there; {told}")
    machines = read_candidates(round_.attack) if round_.attack.exists() else []
    everything = lines(round_.annotations)
    found = [line for line in everything if not line.late]
    voted = _voted(found)
    drawn = drawings(gather(found, "draw"), round_, params, splits, voted)
    edited = edits(gather(found, "edit"), round_, params, splits, voted)
    return [*machines, *drawn, *edited, *_late([line for line in everything if line.late], round_, splits)]


def _late(found: Sequence[Line], round_: Round, splits: dict[str, Any]) -> list[Candidate]:
    """What was made for closed rounds after they were frozen: candidates of this round, under the keys of its tasks."""
    made = []
    for name in sorted({line.late for line in found}):
        theirs = round_.workspace.round(int(name))
        params, own = read(theirs.params), [line for line in found if line.late == name]
        rest = [round_.workspace.round(number) for number in range(theirs.number, round_.number)]
        taken = {c.key for each in rest if each.candidates.exists() for c in read_candidates(each.candidates)}
        for c in (
            *drawings(gather(own, "draw"), theirs, params, splits),
            *edits(gather(own, "edit"), theirs, params, splits),
        ):
            candidate = replace(c, round=round_.number)
            if c.key in taken:
                candidate = replace(candidate, key=f"{c.key}/{c.annotation}", image=b"", intended=-1)
                candidate = candidate.rejected("the task has a drawing already", wellformed=False)
            made.append(candidate)
    return made


def _voted(found: Iterable[Line]) -> dict[str, str]:
    """Validation task → when the first vote in it was cast."""
    first: dict[str, str] = {}
    for line in found:
        if line.kind == "validate" and line.own:
            at = str(line.raw.get("created_at", ""))
            first[line.task] = min(first.get(line.task, at), at)
    return first


def drawings(
    annotations: Sequence[Annotation],
    round_: Round,
    params: Params,
    splits: dict[str, Any],
    voted: Mapping[str, str] | None = None,
) -> list[Candidate]:
    """Drawing annotations → candidates, those of the practice task left out. A task has one drawing, the first that is
    well-formed, and gives it its key; the key of every other ends in the annotation's id.

    An author may correct a drawing until somebody has voted on it. voted: validation task → when that was.
    """
    seeds = _seed_keys(round_, params)
    redrawn = {key: seeds[key] for key in drawing_keys(round_, params)}
    real = [a for a in annotations if a.first.task != guide_key(round_)]

    def image(_: str, result: object) -> torch.Tensor:
        return ink.drawing(result, splits["size"], splits["channels"])

    made = _made(real, round_, redrawn, splits["classes"], image, params, voted or {})
    return [c if c.source == SIMULATED else replace(c, seed_image="") for c in made]


def edits(
    annotations: Sequence[Annotation],
    round_: Round,
    params: Params,
    splits: dict[str, Any],
    voted: Mapping[str, str] | None = None,
) -> list[Candidate]:
    """Editing annotations → candidates; a task has one, by the rules of drawings."""
    bases = edit_bases(round_, params, splits) if annotations else {}
    seeds = _seed_keys(round_, params) if annotations else {}

    def image(task: str, result: object) -> torch.Tensor:
        return ink.edited(result, bases[task])

    started = {key: seeds[key] for key in bases}
    return _made(annotations, round_, started, splits["classes"], image, params, voted or {})


def edit_bases(round_: Round, params: Params, splits: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Editing task → the seed image painted over in it, uint8 C×H×W."""
    if not params.collect.edits:
        return {}
    pool = read_images(round_.workspace.split("pool"), splits["channels"])
    indices = seed_images(round_.number, params, len(pool)).edits
    return {key: pool.pixels_NCHW[i] for key, i in zip(editing_keys(round_, params), indices, strict=True)}


def _made(
    annotations: Sequence[Annotation],
    round_: Round,
    seeds: Mapping[str, str],
    classes: Sequence[str],
    image: Callable[[str, object], torch.Tensor],
    params: Params,
    voted: Mapping[str, str],
) -> list[Candidate]:
    """Annotations of one kind of task → candidates. seeds: its tasks → pool image; image: task and result → pixels."""

    def drawn(candidate: Candidate, form: Line) -> Candidate:
        """ValueError for a form that is no drawing."""
        result = form.raw.get("result")
        pixels = image(candidate.key, result)
        return replace(candidate, image=encode_png(pixels), intended=ink.choice(result, INTENDED, classes))

    taken: set[str] = set()
    made = []
    for annotation in annotations:
        first = annotation.first
        known = first.task in seeds
        candidate = Candidate(
            key=f"{first.task if known else f'{round_.name}/{first.kind}/unknown'}/{first.id}",
            round=round_.number,
            source={SIMULATED_DOMAIN: SIMULATED, PLAYER_DOMAIN: PLAYED}.get(first.author.rpartition("@")[2], HUMAN),
            image=b"",
            intended=-1,
            annotator=first.author,
            seed_image=seeds.get(first.task, ""),
            annotation=first.id,
        )

        form = annotation.last
        for given, after in pairwise(annotation.own if known and voted else ()):
            try:
                at = voted.get(vote_key(params, drawn(replace(candidate, key=first.task), given)))
            except ValueError:
                continue
            if at is not None and at < after.at:
                form = given
                break
        candidate = replace(candidate, at=form.at, seconds=form.seconds)
        reason = DELETED if annotation.deleted else annotation.fault(form)
        try:
            if not known:
                raise ValueError(f"a task of the round was wanted, got {first.task[:40]!r}")
            whole = drawn(replace(candidate, key=first.task), form)
        except ValueError as error:
            made.append(candidate.rejected(reason or str(error), wellformed=False))
            continue
        if not reason and first.task in taken:
            reason = "the task has a drawing already"
        if reason:
            made.append(candidate.rejected(reason, wellformed=False))
            continue
        taken.add(first.task)
        made.append(whole)
    return made


def votes(round_: Round, params: Params, splits: dict[str, Any], given: Sequence[Candidate]) -> dict[str, list[Vote]]:
    """The votes on each candidate that has any, by the candidate's key, in the order in which they were cast.

    A person's first vote on a candidate counts, in the latest form that this person gave it, and stays when it is
    deleted: anybody may delete there. Never the author's own, and none that was cast on another picture. The others are
    kept with the reason why they do not count. A vote whose image is another by now is not among them; the record keeps
    it.
    """
    by_task = {vote_key(params, c): c for c in given if c.wellformed}
    cast_on = [a for a in gather(lines(round_.annotations), "validate") if a.first.task in by_task]
    belongs = shown(round_, {a.first.task: by_task[a.first.task] for a in cast_on}, splits["channels"])
    found: dict[str, list[Vote]] = {}
    for annotation in cast_on:
        form, candidate = annotation.last, by_task[annotation.first.task]
        cast = found.setdefault(candidate.key, [])
        author = annotation.first.author
        choice, reason = UNREADABLE, annotation.fault(form)
        try:
            names = (*splits["classes"], UNREADABLE_CHOICE)
            chosen = ink.choice(form.raw.get("result"), SEEN, names, _VOTE_TYPES)
            choice = chosen if chosen < len(splits["classes"]) else UNREADABLE
        except ValueError as error:
            reason = reason or str(error)
        if not reason and form.shown not in ("", belongs[annotation.first.task]):
            reason = "cast on another picture, which somebody put into the task"
        if not reason and author == candidate.annotator:
            reason = "a vote on one's own candidate"
        if not reason and any(vote.counted and vote.validator == author for vote in cast):
            reason = "a second vote of the same person"
        told = DELETED if annotation.deleted else ""
        cast.append(Vote(author, choice, annotation.first.id, form.at, counted=not reason, reason=reason or told))
    return found


def probes(round_: Round, params: Params, splits: Mapping[str, Any]) -> list[Candidate]:
    """The round's probes, as if they were candidates, which they never become: pool images with their own class."""
    if not params.validate_.probes:
        return []
    pool = read_images(round_.workspace.split("pool"), splits["channels"])
    return [
        Candidate(
            key=f"{round_.name}/probe/{number:04d}",
            round=round_.number,
            source=PROBE,
            image=encode_png(pool.pixels_NCHW[index]),
            intended=int(pool.labels_N[index]),
            seed_image=pool.keys[index],
        )
        for number, index in enumerate(seed_images(round_.number, params, len(pool)).probes)
    ]


def probe_answers(round_: Round, params: Params, splits: dict[str, Any]) -> list[Answer]:
    """What validators answered to the round's probes; `unreadable` is wrong, and one answer a person counts."""
    known = probes(round_, params, splits)
    cast = votes(round_, params, splits, known)
    return [
        Answer(vote.validator, vote.choice == probe.intended)
        for probe in known
        for vote in cast.get(probe.key, ())
        if vote.counted
    ]


def _seed_keys(round_: Round, params: Params) -> dict[str, str]:
    """Drawing or editing task → the key of the pool image that is redrawn by simulated annotators or painted over."""
    pool: list[str] = read_table(round_.workspace.split("pool"), ["key"])["key"].to_pylist()
    chosen = seed_images(round_.number, params, len(pool))
    tasks = [*drawing_keys(round_, params), *editing_keys(round_, params)]
    return {task: pool[index] for task, index in zip(tasks, [*chosen.drawings, *chosen.edits], strict=True)}
