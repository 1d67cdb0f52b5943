"""Every number of a closed round worked out again from its record, and where the round's files say otherwise."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from itertools import chain
from typing import Any

from data.files import md5
from data.layout import Round
from data.records import Candidate
from data.shards import read_candidates
from flows.campaign import Campaign
from flows.candidates import candidates_now
from tasks import freeze as freezing
from tasks.config.params import read
from tasks.promote import champion
from tasks.workspace.git import WorkspaceError
from tasks.workspace.rounds import State, closed, state
from tasks.workspace.services import ServiceDown

CLOSE = 1e-4  # by which a probability may differ from machine to machine


def verify(campaign: Campaign, number: int) -> tuple[list[str], list[str]]:
    """What was compared, and what disagrees, a line each."""
    round_ = campaign.workspace.round(number)
    if state(round_) is not State.CLOSED:
        raise WorkspaceError(f"only a closed round can be verified, round {round_.name} is {state(round_)}")
    faults = list(files(round_))
    shard = read_candidates(round_.candidates)
    if round_.number > 0:
        faults += candidates(shard, from_record(round_))
    recorded, again = json.loads(round_.challenger.metrics.read_text()), from_predictions(round_)
    faults += differences(recorded, again, "metrics.json", "predictions.parquet and the shards")
    gate: dict[str, Any] = {}
    if round_.gate.exists():
        gate = from_gate_answers(round_)
        faults += differences(json.loads(round_.gate.read_text()), gate, "gate.json", "gate.parquet and the shards")
    seen = [
        f"{len(shard)} candidates with their answers, votes and verdicts from the raw annotations",
        f"{sum(1 for part in (again, gate) for _ in leaves(part))} figures from the predictions and the shards",
    ]
    try:
        from tasks.track import disagreements

        faults += disagreements(round_, campaign.services, champion(campaign.closed))
        seen.append("MLflow's figures")
    except ServiceDown as error:
        seen.append(f"not MLflow's: {error}")
    return seen, faults


def files(round_: Round) -> Iterator[str]:
    """Files of the round that are not those that its tag holds."""
    from tasks.workspace.reproduce import digests

    for path, digest in digests(round_).items():
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; `dvc pull` brings what DVC keeps")
        if md5(path) != digest:
            yield f"{path.relative_to(round_.workspace.root)} is not the file that {round_.tag} holds"


def from_record(round_: Round) -> list[Candidate]:
    """The shard as closing made it: annotations and attacks, judged, validated and split once more."""
    from tasks.record.record import Record

    record = Record.read(round_)
    before = [r for r in closed(round_.workspace) if r.number < round_.number]
    return freezing.split(candidates_now(record), freezing.joined(before), record.params.seed, freezing.used(before))


def from_predictions(round_: Round) -> dict[str, Any]:
    """metrics.json as evaluate made it, by the shards that lie here, whatever their digests."""
    from tasks.evaluation import predictions

    lineage = json.loads(round_.lineage.read_text())
    root, attacked = round_.workspace.root, lineage["target"]
    campaign = list(chain.from_iterable(read_candidates(root / shard["path"]) for shard in lineage["shards"]))
    parts = predictions.read(round_.challenger.predictions)
    number = attacked and attacked["round"]
    made = predictions.measured(parts, campaign, round_.number, number, read(round_.params))
    content: dict[str, Any] = json.loads(json.dumps(made))
    return content


def from_gate_answers(round_: Round) -> dict[str, Any]:
    """gate.json as the gate stage made it, by the shards that lie here, whatever their digests."""
    from tasks.evaluation import gate_answers, predictions

    root, lineage = round_.workspace.root, json.loads(round_.lineage.read_text())
    campaign = list(chain.from_iterable(read_candidates(root / shard["path"]) for shard in lineage["shards"]))
    parts, before = predictions.read(round_.gate_answers), gate_answers.past(round_)
    made = gate_answers.judged(parts, campaign, round_.number, before, read(round_.params))
    content: dict[str, Any] = json.loads(json.dumps(made))
    return content


def candidates(frozen: list[Candidate], again: list[Candidate]) -> Iterator[str]:
    """In what the shard and the record disagree."""
    shard, record = ({c.key: _compared(c) for c in each} for each in (frozen, again))
    for key in sorted(shard.keys() ^ record.keys()):
        yield f"{key} is in {'candidates.parquet' if key in shard else 'the record'} alone"
    for key in sorted(shard.keys() & record.keys()):
        for name in (each.name for each in fields(Candidate)):
            one, other = getattr(shard[key], name), getattr(record[key], name)
            near = name == "probability" and math.isclose(one, other, abs_tol=CLOSE)
            if one != other and not near:
                shown = ("", "") if isinstance(one, bytes | tuple) else (f" {one!r}", f" {other!r}")
                yield f"{key}: {name}{shown[0]} in candidates.parquet, by the record it is{shown[1] or ' another'}"


def _compared(candidate: Candidate) -> Candidate:
    """A candidate with its reasons as far as they are compared: later code may put them in better words, so of them
    count the figures, and of one that says why an annotation is malformed, that there is one."""

    def figures(reason: str, malformed: bool) -> str:
        return " ".join(["…", *([] if malformed else re.findall(r"\d+", reason))]) if reason else ""

    votes = tuple(replace(vote, reason=figures(vote.reason, not vote.counted)) for vote in candidate.votes)
    return replace(candidate, votes=votes, reason=figures(candidate.reason, not candidate.wellformed))


def differences(recorded: Mapping[str, Any], again: Mapping[str, Any], where: str, by: str) -> Iterator[str]:
    """Figures that are not what they come to when they are worked out again."""
    one, other = dict(leaves(recorded)), dict(leaves(again))
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield f"{name}: {one.get(name)!r} in {where}, {other.get(name)!r} by {by}"


def leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value by its path."""
    for key, value in content.items():
        name = f"{prefix}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            yield from leaves(value, name)
        else:
            yield name, value
