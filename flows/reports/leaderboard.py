"""The leaderboard: what each annotator, validator and attack did, as tables and as a file for paying people."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.files import write_whole
from data.layout import Round, Workspace
from flows.candidates import candidates_now
from tasks.workspace.checkout import check_initialised
from tasks.workspace.git import WorkspaceError
from tasks.workspace.rounds import State, rounds, state, target

if TYPE_CHECKING:
    from data.records import Candidate
    from tasks.quality.leaderboard import Annotator, Attack, Validator
    from tasks.record.record import Record

SHARES = ("mer", "agreement", "skill", "probe_accuracy", "attack_success_rate", "verified_rate")


@dataclass(frozen=True)
class Board:
    """The rows of a round, or of several."""

    annotators: list[Annotator]
    validators: list[Validator]
    attacks: list[Attack]


def board(root: Path, number: int | None = None) -> Board:
    """The rows of a round, or of all rounds that collected. The open round as it was last pulled."""
    from data.shards import read_candidates
    from tasks.quality import leaderboard
    from tasks.record.history import recorded, voting_seconds

    records = [recorded(round_) for round_ in _rounds(Workspace(root), number)]
    by_round = [
        candidates_now(record) if state(record.round) is State.OPEN else read_candidates(record.round.candidates)
        for record in records
    ]
    candidates = [c for part in by_round for c in part]
    seconds: Counter[str] = Counter()
    for record in records:
        seconds.update(voting_seconds(record))
    return Board(
        annotators=leaderboard.annotators(candidates),
        validators=leaderboard.validators(
            candidates,
            [answer for record in records for answer in record.probe_answers],
            {record.round.number: record.params.validate_ for record in records},
            seconds,
        ),
        attacks=[
            row
            for record, part in zip(records, by_round, strict=True)
            for row in leaderboard.attacks(record.round.name, _by_source(record, part))
        ],
    )


def show(root: Path, number: int | None = None, file: Path | None = None, as_json: bool = False) -> None:
    """Print the tables, or the rows as JSON; write the rows to a file if one is named."""
    found = board(root, number)
    if as_json:
        print(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        console = Console()
        console.width = max(console.width, 160)
        for title in ("annotators", "validators", "attacks"):
            console.print(table(title, getattr(found, title)))
    if file is not None:
        write_whole(file, as_csv(found))
        print(f"wrote {file}", file=sys.stderr)


def table(title: str, found: list[Annotator] | list[Validator] | list[Attack]) -> Table:
    """A row a person, or an attack; shares in per cent."""
    shown = Table(title=title if found else f"{title}: none yet", title_justify="left")
    for name in [field.name for field in fields(found[0])] if found else ["account"]:
        text = name in ("account", "set_aside")
        heading = "MER" if name == "mer" else name.replace("_", " ")
        shown.add_column(heading, justify="left" if text else "right", no_wrap=name == "account")
    for row in found:
        shown.add_row(*[escape(_cell(name, value)) for name, value in asdict(row).items()])
    return shown


def as_csv(found: Board) -> str:
    """A line a person and role, or an attack and round; shares between 0 and 1, times in seconds, empty where there is
    nothing to share.

    A spreadsheet takes a cell that begins with =, +, - or @ for a formula, and an account's name is what its owner
    typed: such a cell gets an apostrophe before it.
    """
    lines = [{"role": "annotator", **asdict(row)} for row in found.annotators]
    lines += [{"role": "validator", **asdict(row)} for row in found.validators]
    lines += [{"role": "attack", **asdict(row)} for row in found.attacks]
    names = list(dict.fromkeys(name for line in lines for name in line)) or ["role", "account"]
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _plain(value) for name, value in line.items()})
    return buffer.getvalue()


def _rounds(workspace: Workspace, number: int | None) -> list[Round]:
    check_initialised(workspace)
    collected = [r for r in rounds(workspace) if r.number > 0 and state(r) in (State.OPEN, State.CLOSING, State.CLOSED)]
    chosen = [r for r in collected if number is None or r.number == number]
    if not chosen:
        which = "no round has" if number is None else f"round {number:03d} has not"
        names = f"; rounds that have: {', '.join(r.name for r in collected)}" if collected else ""
        raise WorkspaceError(f"{which} collected anything{names}; `dadc open` opens a round")
    return chosen


def _by_source(record: Record, candidates: list[Candidate]) -> dict[str, Any]:
    """What metrics.json says of each source, or will."""
    from data.shards import read_columns, read_images
    from tasks.evaluation.metrics import by_source
    from tasks.judge import rightly_classified

    round_ = record.round
    if round_.challenger.metrics.exists():
        figures: dict[str, Any] = json.loads(round_.challenger.metrics.read_text(encoding="utf-8"))["by_source"]
        return figures
    attacked, seeds = target(round_), {c.seed_image for c in candidates if not c.by_people}
    assert attacked is not None  # only round 000 has none
    pool = round_.workspace.split("pool")
    rows = [index for index, key in enumerate(read_columns(pool, "key")[0]) if key in seeds]
    started = read_images(pool, record.spec.channels, rows)
    right = rightly_classified(started, attacked.challenger.model) if rows else []
    return by_source(candidates, right, seeds_must_be_right=record.params.evaluate.resamples is not None)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name in SHARES:
        return f"{100 * value:.1f}"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4f}" if isinstance(value, float) else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
