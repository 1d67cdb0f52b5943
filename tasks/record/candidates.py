"""The round's record → candidates.

What the lines hold is untrusted: a malformed annotation becomes a rejected candidate with its reason, never an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch

from data.layout import Round
from data.records import DELETED, HUMAN, PLAYED, PROBE, SIMULATED, SIMULATED_DOMAIN, Candidate, ImageSpec
from data.shards import encode_png, read_candidates, read_columns, read_images
from tasks.config.params import Params, read
from tasks.labelling import drawing
from tasks.labelling.projects import (
    INTENDED,
    PLAYER_DOMAIN,
    drawing_keys,
    editing_keys,
    guide_key,
    vote_key,
)
from tasks.record.annotations import Annotation, Line, gather
from tasks.record.pool import seed_images
from tasks.workspace.rounds import target


def candidates(recorded: Sequence[Line], round_: Round, params: Params, spec: ImageSpec) -> list[Candidate]:
    """Every candidate of the round, people's or a machine's, malformed ones too; not yet judged or validated.

    recorded: the lines of the round's record. FileNotFoundError if the machine's candidates are missing, as in a clone
    that has Git's files alone.
    """
    if not round_.attack.exists() and target(round_):
        remedy = f"`dvc pull` brings it, `dvc repro -s attack@{round_.name}` makes it again"
        raise FileNotFoundError(f"{round_.attack} is missing; {remedy}")
    machines = read_candidates(round_.attack) if round_.attack.exists() else []
    in_time = [line for line in recorded if not line.late]
    voted = _first_votes(in_time)
    drawn = drawings(gather(in_time, "draw"), round_, params, spec, voted)
    edited = edits(gather(in_time, "edit"), round_, params, spec, voted)
    return [*machines, *drawn, *edited, *_late([line for line in recorded if line.late], round_, spec)]


def _late(late: Sequence[Line], round_: Round, spec: ImageSpec) -> list[Candidate]:
    """What was made for closed rounds after they were frozen: candidates of this round, under the keys of its tasks."""
    made = []
    for name in sorted({line.late for line in late}):
        earlier = round_.workspace.round(int(name))
        params, lines = read(earlier.params), [line for line in late if line.late == name]
        since = [round_.workspace.round(number) for number in range(earlier.number, round_.number)]
        taken = {key for each in since if each.candidates.exists() for key in read_columns(each.candidates, "key")[0]}
        for c in (
            *drawings(gather(lines, "draw"), earlier, params, spec),
            *edits(gather(lines, "edit"), earlier, params, spec),
        ):
            candidate = replace(c, round=round_.number)
            if c.key in taken:
                candidate = replace(candidate, key=f"{c.key}/{c.annotation}", image=b"", intended=-1)
                candidate = candidate.rejected("the task has a drawing already", wellformed=False)
            made.append(candidate)
    return made


def _first_votes(recorded: Iterable[Line]) -> dict[str, str]:
    """Validation task → when the first vote in it was cast."""
    first: dict[str, str] = {}
    for line in recorded:
        if line.kind == "validate" and line.own:
            at = str(line.raw.get("created_at", ""))
            first[line.task] = min(first.get(line.task, at), at)
    return first


def drawings(
    annotations: Sequence[Annotation],
    round_: Round,
    params: Params,
    spec: ImageSpec,
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
        return drawing.drawing(result, spec.size, spec.channels)

    made = _decode(real, round_, redrawn, spec.classes, image, params, voted or {})
    return [c if c.source == SIMULATED else replace(c, seed_image="") for c in made]


def edits(
    annotations: Sequence[Annotation],
    round_: Round,
    params: Params,
    spec: ImageSpec,
    voted: Mapping[str, str] | None = None,
) -> list[Candidate]:
    """Editing annotations → candidates; a task has one, by the rules of drawings."""
    bases = edit_bases(round_, params, spec.channels) if annotations else {}
    seeds = _seed_keys(round_, params) if annotations else {}

    def image(task: str, result: object) -> torch.Tensor:
        return drawing.edited(result, bases[task])

    started = {key: seeds[key] for key in bases}
    return _decode(annotations, round_, started, spec.classes, image, params, voted or {})


def edit_bases(round_: Round, params: Params, channels: int) -> dict[str, torch.Tensor]:
    """Editing task → the seed image painted over in it, uint8 C×H×W."""
    if not params.collect.edits:
        return {}
    indices = seed_images(round_.number, params, len(_pool_keys(round_))).edits
    bases = read_images(round_.workspace.split("pool"), channels, indices)
    return dict(zip(editing_keys(round_, params), bases.pixels_NCHW, strict=True))


def _decode(
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
        return replace(candidate, image=encode_png(pixels), intended=drawing.choice(result, INTENDED, classes))

    taken: set[str] = set()
    made = []
    for annotation in annotations:
        first = annotation.first
        of_round = first.task in seeds
        candidate = Candidate(
            key=f"{first.task if of_round else f'{round_.name}/{first.kind}/unknown'}/{first.id}",
            round=round_.number,
            source={SIMULATED_DOMAIN: SIMULATED, PLAYER_DOMAIN: PLAYED}.get(first.author.rpartition("@")[2], HUMAN),
            image=b"",
            intended=-1,
            annotator=first.author,
            seed_image=seeds.get(first.task, ""),
            annotation=first.id,
        )

        form = annotation.last
        for given, after in pairwise(annotation.own if of_round and voted else ()):
            try:
                at = voted.get(vote_key(params, drawn(replace(candidate, key=first.task), given)))
            except ValueError:
                continue
            if at is not None and at < after.at:
                form = given
                break
        candidate = replace(candidate, at=form.at, seconds=form.seconds)
        reason = DELETED if annotation.withdrawn else annotation.fault(form)
        try:
            if not of_round:
                raise ValueError(f"expected a task of the round, got {first.task[:40]!r}")
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


def probes(round_: Round, params: Params, channels: int) -> list[Candidate]:
    """The round's probes, as if they were candidates, which they never become: pool images with their own class."""
    if not params.validate_.probes:
        return []
    indices = seed_images(round_.number, params, len(_pool_keys(round_))).probes
    shown = read_images(round_.workspace.split("pool"), channels, indices)
    return [
        Candidate(
            key=f"{round_.name}/probe/{number:04d}",
            round=round_.number,
            source=PROBE,
            image=encode_png(pixels_CHW),
            intended=label,
            seed_image=key,
        )
        for number, (pixels_CHW, label, key) in enumerate(
            zip(shown.pixels_NCHW, shown.labels_N.tolist(), shown.keys, strict=True)
        )
    ]


def _seed_keys(round_: Round, params: Params) -> dict[str, str]:
    """Drawing or editing task → the key of the pool image that is redrawn by simulated annotators or painted over."""
    pool = _pool_keys(round_)
    chosen = seed_images(round_.number, params, len(pool))
    tasks = [*drawing_keys(round_, params), *editing_keys(round_, params)]
    return {task: pool[index] for task, index in zip(tasks, [*chosen.drawings, *chosen.edits], strict=True)}


def _pool_keys(round_: Round) -> list[str]:
    return [str(key) for key in read_columns(round_.workspace.split("pool"), "key")[0]]
