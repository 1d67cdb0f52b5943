"""Every annotation in Label Studio, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from data.layout import Round
from data.records import Candidate
from data.shards import read_candidates
from flows.campaign import Campaign
from flows.candidates import candidates_now
from tasks.config.params import read
from tasks.labelling.projects import KINDS, Kind, title, vote_key
from tasks.workspace.rounds import State, rounds, state

if TYPE_CHECKING:
    from tasks.record.record import Record

BECAME = ("verified", "rejected", "pending", "malformed", "late", "practice", "not pulled")
VOTES = ("counted", "not counted", "on probes", "on nothing that is asked", "not pulled")


def reconcile(campaign: Campaign) -> list[str]:
    """A line for the drawings and edits of each round, and one for its votes: their number in Label Studio, and the
    parts that it is the sum of."""
    from tasks.record.record import Record

    collected = [r for r in rounds(campaign.workspace) if r.number > 0 and state(r) in COLLECTED]
    records = {r: Record.read(r) for r in collected}
    candidates = {
        r: read_candidates(r.candidates) if r.candidates.exists() else candidates_now(record)
        for r, record in records.items()
    }
    report = []
    for round_, record in records.items():
        existing = _existing(campaign, round_)
        missing = {line.kind for line in record.lines if not line.late} - existing.keys()
        report += [_missing(record, kind) for kind in sorted(missing)]
        became = {c.annotation: _verdict(c) for c in candidates[round_] if c.annotation and not c.late}
        became |= {
            c.annotation: "late" for r in collected if r != round_ for c in candidates[r] if c.late and _of(c, round_)
        }
        pulled = {line.id for r in collected for line in records[r].lines if (line.late or r.name) == round_.name}
        became |= dict.fromkeys(pulled - became.keys(), "practice")
        made = existing.get("draw", set()) | existing.get("edit", set())
        report.append(_line(round_, "annotations", Counter(became.get(i, "not pulled") for i in made), BECAME))
        kinds = {"draw", "edit"} & existing.keys()
        gone = {line.id for line in record.lines if line.kind in kinds and not line.late} - made
        cast = {v.annotation: "counted" if v.counted else "not counted" for c in candidates[round_] for v in c.votes}
        others = {line.id: line.task for line in record.lines if line.kind == "validate" and line.id not in cast}
        probe_tasks = {vote_key(record.params, probe) for probe in record.probes}
        cast |= {i: "on probes" if task in probe_tasks else "on nothing that is asked" for i, task in others.items()}
        report.append(
            _line(round_, "votes", Counter(cast.get(i, "not pulled") for i in existing.get("validate", ())), VOTES)
        )
        if gone:
            report.append(f"round {round_.name}: {len(gone)} deleted in Label Studio after they were pulled, kept here")
    return report


COLLECTED = (State.OPEN, State.CLOSING, State.CLOSED)


def _line(round_: Round, what: str, counts: Mapping[str, int], parts: Sequence[str]) -> str:
    shown = " + ".join(f"{counts[part]} {part}" for part in parts if counts.get(part)) or "0"
    return f"round {round_.name}: {sum(counts.values())} {what} in Label Studio = {shown}"


def _existing(campaign: Campaign, round_: Round) -> dict[str, set[int]]:
    """The ids of what Label Studio holds in each of the round's projects that is there."""
    studio, name = campaign.studio, read(round_.params).campaign
    found: dict[str, set[int]] = {}
    for kind in KINDS:
        project = studio.find(title(name, round_, kind))
        if project is not None:
            found[kind] = {int(a["id"]) for task in studio.recorded(project, None) for a in task["annotations"]}
    return found


def _missing(record: Record, kind: Kind) -> str:
    name = title(record.params.campaign, record.round, kind)
    return f"round {record.round.name}: Label Studio has no project {name!r}; was it renamed, or deleted?"


def _verdict(candidate: Candidate) -> str:
    return str(candidate.verdict) if candidate.wellformed else "malformed"


def _of(candidate: Candidate, round_: Round) -> bool:
    return candidate.key.startswith(f"{round_.name}/")
