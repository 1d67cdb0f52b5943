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
from tasks.quality.trust import AccountStats, ProbeAnswer, account_stats, add_stats, closed_round_stats
from tasks.record.annotations import gather, lines
from tasks.record.votes import probe_answers
from tasks.workspace.dvc import pointer_digest
from tasks.workspace.rounds import closed


def cached_stats(round_: Round) -> dict[str, AccountStats]:
    """What every account did in a closed round, by that round's rules. The errors of `recorded`."""
    kept = round_.workspace.local / "past" / f"{round_.name}.json"
    files = [path for path in (round_.candidates, _here(round_)) if path.exists()]
    stamps = [[path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    rules = read(round_.params).validate_
    origin = {"files": stamps, "consensus": rules.consensus, "max_votes": rules.max_votes}
    if kept.exists():
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content["origin"] == origin:
            return {account: AccountStats(**did) for account, did in content["conduct"].items()}
    frozen_record(round_)
    found = add_stats(
        [closed_round_stats(read_candidates(round_.candidates), rules), account_stats((), probed(round_))]
    )
    content = {"origin": origin, "conduct": {account: asdict(did) for account, did in found.items()}}
    write_whole(kept, json.dumps(content) + "\n")
    return found


def frozen_record(round_: Round) -> Path:
    """The record of a closed round. FileNotFoundError if it is not here, ValueError if it is not the one that was
    frozen: of two clones that collected, one closed the round, and the other has what it had pulled by then."""
    path = _here(round_)
    if pointer(path).exists() and md5(path) != pointer_digest(pointer(path).read_text(encoding="utf-8")):
        raise ValueError(
            f"{path} is not what was frozen, as where another clone closed the round; `dvc pull --force` brings that"
        )
    return path


def _here(round_: Round) -> Path:
    path = round_.annotations
    if not path.exists() and pointer(path).exists():
        raise FileNotFoundError(f"{path} is wanted and is not there; `dvc pull` brings what DVC keeps")
    return path


def probed(round_: Round) -> list[ProbeAnswer]:
    """The answers to the round's probes. FileNotFoundError if the record of a closed round is not here."""
    _here(round_)
    splits: dict[str, Any] = json.loads(round_.workspace.splits.read_text(encoding="utf-8"))
    return probe_answers(round_, read(round_.params), splits)


def voting_seconds(round_: Round) -> dict[str, float]:
    """Account → the time it took over all it was asked to validate, probes too, as the page tells it.
    The errors of `recorded`."""
    spent: dict[str, float] = {}
    for annotation in gather(lines(frozen_record(round_)), "validate"):
        spent[annotation.first.author] = spent.get(annotation.first.author, 0.0) + annotation.last.seconds
    return spent


def stats_before(round_: Round) -> dict[str, AccountStats]:
    """What the record holds of people besides the round's candidates: what they did in the closed rounds before it, and
    their answers to probes. The errors of `tasks.record.history.recorded`."""
    before = [r for r in closed(round_.workspace) if 0 < r.number < round_.number]
    return add_stats([*(cached_stats(each) for each in before), account_stats((), probed(round_))])
