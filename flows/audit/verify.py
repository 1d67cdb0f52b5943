"""Every number of a closed round worked out again from its record, and where it is told otherwise."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import chain
from typing import Any

from data.files import md5
from data.layout import Round
from data.records import Candidate
from data.shards import read_candidates
from flows.context import Campaign
from tasks import freeze as freezing
from tasks.config.params import read
from tasks.promote import champion
from tasks.workspace.git import WorkspaceError
from tasks.workspace.rounds import State, closed, state, target
from tasks.workspace.services import ServiceDown

CLOSE = 1e-4  # by which a probability may differ from machine to machine


def verify(campaign: Campaign, number: int) -> tuple[list[str], list[str]]:
    """What was compared, and what disagrees, a line each."""
    round_ = campaign.workspace.round(number)
    if state(round_) is not State.CLOSED:
        raise WorkspaceError(f"a closed round is wanted, round {round_.name} is {state(round_)}")
    faults = list(files(round_))
    shard = read_candidates(round_.candidates)
    if round_.number > 0:
        faults += candidates(shard, from_record(campaign, round_))
    told, found = json.loads(round_.challenger.metrics.read_text()), from_predictions(round_)
    faults += differences(told, found, "metrics.json", "predictions.parquet and the shards")
    seen = [
        f"{len(shard)} candidates with their answers, votes and verdicts from the raw annotations",
        f"{sum(1 for _ in leaves(found))} figures from the predictions and the shards",
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

    for path, wanted in digests(round_).items():
        if not path.exists():
            raise FileNotFoundError(f"{path} is wanted and is not there; `dvc pull` brings what DVC keeps")
        if md5(path) != wanted:
            yield f"{path.relative_to(round_.workspace.root)} is not the file that {round_.tag} holds"


def from_record(campaign: Campaign, round_: Round) -> list[Candidate]:
    """The shard as closing made it: annotations and attacks, judged, validated and split once more."""
    from tasks import judge, validate
    from tasks.record import candidates as candidates_
    from tasks.record import history, votes

    params, attacked = read(round_.params), target(round_)
    assert attacked is not None  # only round 000 has none, and it collects nothing
    found = judge.judge(candidates_.candidates(round_, params, campaign.splits), attacked.challenger.model)
    found = validate.validate(found, votes.cast_votes(round_), params.validate_, history.stats_before(round_))
    before = [r for r in closed(round_.workspace) if r.number < round_.number]
    return freezing.split(found, freezing.joined(before), params.seed, freezing.used(before))


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


def candidates(told: list[Candidate], found: list[Candidate]) -> Iterator[str]:
    """In what the shard and the record disagree."""
    shard, record = ({c.key: c for c in each} for each in (told, found))
    for key in sorted(shard.keys() ^ record.keys()):
        yield f"{key} is in {'candidates.parquet' if key in shard else 'the record'} alone"
    for key in sorted(shard.keys() & record.keys()):
        for name in (each.name for each in fields(Candidate)):
            one, other = getattr(shard[key], name), getattr(record[key], name)
            near = name == "probability" and math.isclose(one, other, abs_tol=CLOSE)
            if one != other and not near:
                shown = ("", "") if isinstance(one, bytes | tuple) else (f" {one!r}", f" {other!r}")
                yield f"{key}: {name}{shown[0]} in candidates.parquet, by the record it is{shown[1] or ' another'}"


def differences(told: Mapping[str, Any], found: Mapping[str, Any], where: str, by: str) -> Iterator[str]:
    """Figures that are told otherwise than they are found."""
    one, other = dict(leaves(told)), dict(leaves(found))
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
