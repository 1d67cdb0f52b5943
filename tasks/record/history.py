"""What a closed round says of people, worked out once: the files it follows from never change again.

It is kept in `.dadc/past`, with the files' size and time and the rules it was worked out by. Removing it loses nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.files import md5, write_whole
from data.layout import Round, pointer
from data.shards import read_candidates
from tasks.config.params import read
from tasks.quality.account_stats import AccountStats, account_stats, add_stats, closed_round_stats
from tasks.record.annotations import gather
from tasks.record.record import Record
from tasks.workspace.dvc import pointer_digest
from tasks.workspace.rounds import closed

FORM = 2  # of the cache; counted up when AccountStats changes


def closed_stats(round_: Round) -> dict[str, AccountStats]:
    """What every account did in a closed round, by that round's rules. The errors of `frozen_record`."""
    cache = round_.workspace.local / "past" / f"{round_.name}.json"
    files = [path for path in (round_.candidates, _annotations(round_)) if path.exists()]
    stamps = [[path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    rules = read(round_.params).validate_
    origin = {"files": stamps, "consensus": rules.consensus, "max_votes": rules.max_votes, "form": FORM}
    if cache.exists():
        content = json.loads(cache.read_text(encoding="utf-8"))
        if content["origin"] == origin:
            return {account: _from_json(did) for account, did in content["conduct"].items()}
    on_probes = account_stats((), recorded(round_).probe_answers)
    stats = add_stats([closed_round_stats(read_candidates(round_.candidates), rules), on_probes])
    content = {"origin": origin, "conduct": {account: asdict(did) for account, did in stats.items()}}
    write_whole(cache, json.dumps(content) + "\n")
    return stats


def _from_json(did: dict[str, Any]) -> AccountStats:
    return AccountStats(**{**did, "sided_with": {whose: (k, n) for whose, (k, n) in did["sided_with"].items()}})


def frozen_record(round_: Round) -> Path:
    """Where a round's record lies. Of a closed round: FileNotFoundError if it is missing, ValueError if it is not the
    one that was frozen: of two clones that collected, one closed the round, and the other has what it had by then."""
    path = _annotations(round_)
    if pointer(path).exists() and md5(path) != pointer_digest(pointer(path).read_text(encoding="utf-8")):
        raise ValueError(
            f"{path} is not what was frozen: another clone closed the round; `dvc pull --force` brings its record"
        )
    return path


def _annotations(round_: Round) -> Path:
    path = round_.annotations
    if not path.exists() and pointer(path).exists():
        raise FileNotFoundError(f"{path} is missing; `dvc pull` brings what DVC keeps")
    return path


def recorded(round_: Round) -> Record:
    """The record of a round, open or closed. The errors of `frozen_record`."""
    frozen_record(round_)
    return Record.read(round_)


def voting_seconds(record: Record) -> dict[str, float]:
    """Account → the time it took over all it was asked to validate, probes too, as the page tells it."""
    spent: dict[str, float] = {}
    for annotation in gather(record.lines, "validate"):
        spent[annotation.first.author] = spent.get(annotation.first.author, 0.0) + annotation.last.seconds
    return spent


def past_stats(record: Record) -> dict[str, AccountStats]:
    """What is known of accounts besides the candidates of a record: what they did in the closed rounds before it, and
    their answers to its probes. The errors of `frozen_record`."""
    round_ = record.round
    earlier = [r for r in closed(round_.workspace) if 0 < r.number < round_.number]
    return add_stats([*map(closed_stats, earlier), account_stats((), record.probe_answers)])
