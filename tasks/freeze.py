"""The round's candidates → one immutable shard, and the lineage of what is trained on it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.files import md5, write_whole
from data.layout import GATE, SPLITS, Round
from data.records import PEOPLE, Candidate
from data.shards import read_columns, write_candidates
from tasks.config.params import Params
from tasks.config.seeds import derive
from tasks.evaluation.metrics import BY_ANNOTATOR
from tasks.record.annotations import pulled, read_lines
from tasks.workspace import inputs
from tasks.workspace.checkout import image_spec
from tasks.workspace.git import WorkspaceError, git
from tasks.workspace.reproduce import environment
from tasks.workspace.rounds import closed

PATTERN = ("train", "train", "validation", "train", "test")  # dealt out in turn: three fifths train


def freeze(
    round_: Round,
    candidates: Sequence[Candidate],
    params: Params,
    target: Round | None,
    champions: Sequence[Round] = (),
) -> None:
    """Write the shard, copy the weights that params.yaml names, and write lineage.json, which says that all is whole.

    champions: the rounds before whose challengers were promoted; the gate compares this one's with the best of them.
    ValueError where the network or its weights are not what the campaign's images need.
    """
    take_weights(round_, params)
    before = closed(round_.workspace)
    write_candidates(round_.candidates, split(candidates, joined(before), params.seed, used(before)))
    write_whole(round_.lineage, json.dumps(lineage(round_, params, target, champions), indent=2) + "\n")


def take_weights(round_: Round, params: Params) -> None:
    """The user's weights → the round's folder, once they have been seen to fit: a clone gets them by `dvc pull`."""
    from tasks.engine import networks

    if not networks.is_given(params):
        return
    images = inputs.images(round_.workspace, "validation")
    path = networks.check_given(params, round_.number, round_.workspace.root, images)
    if path is not None:
        write_whole(round_.weights, path.read_bytes())


def joined(rounds: Iterable[Round]) -> dict[str, int]:
    """Annotator → the first of these rounds with a candidate of theirs."""
    first: dict[str, int] = {}
    for round_ in rounds:
        found = set(zip(*read_columns(round_.candidates, "annotator", "round", "source"), strict=True))
        for annotator, number, source in found:
            if source in PEOPLE:
                first[annotator] = min(number, first.get(annotator, number))
    return first


def used(rounds: Iterable[Round]) -> dict[str, str]:
    """Seed image → the split that its candidates of these rounds were given to: train if any was."""
    found: dict[str, str] = {}
    for round_ in rounds:
        for image, part in zip(*read_columns(round_.candidates, "seed_image", "split"), strict=True):
            if image and (part == "train" or image not in found):
                found[image] = part
    return found


def split(
    candidates: Sequence[Candidate], before: Mapping[str, int], seed: int, used: Mapping[str, str] | None = None
) -> list[Candidate]:
    """Give every candidate to train, validation or test. before: annotator → the round they joined the campaign in;
    used: seed image → its split in earlier rounds.

    People's candidates are split by annotator, in the order in which they joined the campaign, so that who was given to
    train stays there. With fewer than five annotators in the campaign they are split by task; machines' candidates
    always by seed image, which stays where it was when the pool is used up and begun again.
    """
    first = dict(before)
    for c in candidates:
        if c.by_people:
            first[c.annotator] = min(c.round, first.get(c.annotator, c.round))
    people = sorted(first, key=lambda name: (first[name], derive(seed, "annotator", name)))
    dealt = {name: PATTERN[i % len(PATTERN)] for i, name in enumerate(people)} if len(people) >= BY_ANNOTATOR else {}
    known = used or {}
    units = sorted({_unit(c) for c in candidates} - known.keys(), key=lambda unit: derive(seed, "split", unit))
    turns = {**known, **{unit: PATTERN[i % len(PATTERN)] for i, unit in enumerate(units)}}
    return [replace(c, split=dealt[c.annotator] if c.by_people and dealt else turns[_unit(c)]) for c in candidates]


def _unit(candidate: Candidate) -> str:
    return candidate.seed_image or candidate.key


def lineage(round_: Round, params: Params, target: Round | None, champions: Sequence[Round] = ()) -> dict[str, Any]:
    """What the round's challenger is made from: shards and splits by digest, target, code, environment."""
    workspace = round_.workspace
    before = closed(workspace)
    # As they were frozen, not as they lie here: whoever reads one holds it against this.
    shards = json.loads(before[-1].lineage.read_text(encoding="utf-8"))["shards"] if before else []
    own = {"round": round_.number, "path": _name(round_.candidates, round_), "md5": md5(round_.candidates)}
    return {
        "round": round_.number,
        "target": None
        if target is None
        else {
            "round": target.number,
            "path": _name(target.challenger.model, round_),
            "md5": md5(target.challenger.model),
        },
        "champions": [
            {
                "round": r.number,
                "path": _name(r.challenger.model, round_),
                "md5": md5(r.challenger.model),
                "accuracy": json.loads(r.gate.read_text(encoding="utf-8"))["accuracy"] if r.gate.exists() else {},
            }
            for r in champions
        ],
        "shards": [*shards, own],
        "weights": {"path": _name(round_.weights, round_), "md5": md5(round_.weights)}
        if round_.weights.exists()
        else None,
        "network": network(round_, params),
        "pulled": pulled(read_lines(round_.annotations), round_),
        "base": {name: md5(workspace.split(name)) for name in (*SPLITS, GATE) if workspace.split(name).exists()},
        "code": git(workspace, "rev-parse", "HEAD"),
        "environment": {**environment(params), **precision(round_, params)},
    }


def precision(round_: Round, params: Params) -> dict[str, str]:
    """{"precision": what `auto` came to when the round was opened or amended}, or comes to now; {} where nothing is
    auto."""
    if "auto" not in (params.train.precision, params.evaluate.precision):
        return {}
    opened = json.loads(round_.opened.read_text(encoding="utf-8")) if round_.opened.exists() else {}
    if "precision" in opened:
        return {"precision": opened["precision"]}
    from tasks.engine.precision import trial

    return {"precision": trial(params, image_spec(round_.workspace)).chosen}


def network(round_: Round, params: Params) -> dict[str, Any]:
    """The network's name and, of a user's own, the digest of its file. WorkspaceError if that is not committed."""
    from tasks.engine import networks

    path = networks.source(params.model.name)
    if path is None:
        return {"name": params.model.name}
    if path.is_relative_to(root := round_.workspace.root.resolve()):
        changed = git(round_.workspace, "status", "--porcelain", "--", str(path.relative_to(root)))
        if changed:
            raise WorkspaceError(f"the network's file must be committed, changed: {changed.split(maxsplit=1)[1]}")
    return {"name": params.model.name, "md5": md5(path)}


def _name(path: Path, round_: Round) -> str:
    return str(path.relative_to(round_.workspace.root))
