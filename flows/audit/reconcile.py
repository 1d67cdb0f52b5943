"""Every annotation in Label Studio, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from data.layout import Round
from data.records import Candidate
from data.shards import read_candidates
from flows.context import Campaign
from tasks.config.params import read
from tasks.workspace.rounds import State, rounds, state

if TYPE_CHECKING:
    from tasks.labelling.projects import Kind

BECAME = ("verified", "rejected", "pending", "malformed", "late", "practice", "not pulled")
VOTES = ("counted", "not counted", "on probes", "on nothing that is asked", "not pulled")


def reconcile(campaign: Campaign) -> list[str]:
    """A line for the drawings and edits of each round, and one for its votes: their number in Label Studio, and the
    parts that it is the sum of."""
    from tasks.record.annotations import lines

    collected = [r for r in rounds(campaign.workspace) if r.number > 0 and state(r) in COLLECTED]
    found = {r: _candidates(campaign, r) for r in collected}
    record = {r: lines(r.annotations) for r in collected}
    told = []
    for round_ in collected:
        there = _there(campaign, round_)
        missing = {line.kind for line in record[round_] if not line.late} - there.keys()
        told += [_missing(campaign, round_, kind) for kind in sorted(missing)]
        became = {c.annotation: _verdict(c) for c in found[round_] if c.annotation and not c.late}
        became |= {
            c.annotation: "late" for r in collected if r != round_ for c in found[r] if c.late and _of(c, round_)
        }
        pulled = {line.id for r in collected for line in record[r] if (line.late or r.name) == round_.name}
        became |= dict.fromkeys(pulled - became.keys(), "practice")
        made = there.get("draw", set()) | there.get("edit", set())
        told.append(_line(round_, "annotations", Counter(became.get(i, "not pulled") for i in made), BECAME))
        asked = {"draw", "edit"} & there.keys()
        gone = {line.id for line in record[round_] if line.kind in asked and not line.late} - made
        cast = {v.annotation: "counted" if v.counted else "not counted" for c in found[round_] for v in c.votes}
        others = {line.id: line.task for line in record[round_] if line.kind == "validate" and line.id not in cast}
        probed = _probe_tasks(campaign, round_)
        cast |= {i: "on probes" if task in probed else "on nothing that is asked" for i, task in others.items()}
        told.append(
            _line(round_, "votes", Counter(cast.get(i, "not pulled") for i in there.get("validate", ())), VOTES)
        )
        if gone:
            told.append(f"round {round_.name}: {len(gone)} deleted in Label Studio after they were pulled, kept here")
    return told


COLLECTED = (State.OPEN, State.CLOSING, State.CLOSED)


def _line(round_: Round, what: str, counts: Mapping[str, int], parts: Sequence[str]) -> str:
    shown = " + ".join(f"{counts[part]} {part}" for part in parts if counts.get(part)) or "0"
    return f"round {round_.name}: {sum(counts.values())} {what} in Label Studio = {shown}"


def _there(campaign: Campaign, round_: Round) -> dict[str, set[int]]:
    """The ids of what Label Studio holds in each of the round's projects that is there."""
    from tasks.labelling.projects import KINDS, title

    studio, name = campaign.studio, read(round_.params).campaign
    found: dict[str, set[int]] = {}
    for kind in KINDS:
        project = studio.find(title(name, round_, kind))
        if project is not None:
            found[kind] = {int(a["id"]) for task in studio.recorded(project, None) for a in task["annotations"]}
    return found


def _missing(campaign: Campaign, round_: Round, kind: Kind) -> str:
    from tasks.labelling.projects import title

    wanted = title(read(round_.params).campaign, round_, kind)
    return f"round {round_.name}: Label Studio has no project {wanted!r}; was it renamed, or deleted?"


def _candidates(campaign: Campaign, round_: Round) -> list[Candidate]:
    """The round's candidates, by its shard or, while it is open, by its record as pulled last."""
    if round_.candidates.exists():
        return read_candidates(round_.candidates)
    from tasks import validate
    from tasks.record import candidates, history, votes

    params = read(round_.params)
    found = candidates.candidates(round_, params, campaign.splits)
    return validate.validate(found, votes.cast_votes(round_), params.validate_, history.stats_before(round_))


def _probe_tasks(campaign: Campaign, round_: Round) -> set[str]:
    from tasks.labelling.projects import vote_key
    from tasks.record.candidates import probes

    params = read(round_.params)
    return {vote_key(params, probe) for probe in probes(round_, params, campaign.splits)}


def _verdict(candidate: Candidate) -> str:
    return str(candidate.verdict) if candidate.wellformed else "malformed"


def _of(candidate: Candidate, round_: Round) -> bool:
    return candidate.key.startswith(f"{round_.name}/")
