"""A round's candidates as they stand now: decoded from the record, judged by the target, validated by the votes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.records import Candidate
from tasks.workspace.rounds import target

if TYPE_CHECKING:
    from tasks.record.record import Record


def candidates_now(record: Record) -> list[Candidate]:
    """Every candidate of a round that collects, with the target's answer and the verdict it has by now.

    Votes of accounts that the campaign's record says not to trust do not count. FileNotFoundError if the target's
    weights, the machine's candidates or the record of an earlier round are missing.
    """
    from tasks.judge import judge
    from tasks.record.history import past_stats
    from tasks.validate import validate

    attacked = target(record.round)
    assert attacked is not None  # only round 000 has none, and it collects nothing
    judged = judge(record.candidates, attacked.challenger.model)
    return validate(judged, record.votes, record.params.validate_, past_stats(record))
