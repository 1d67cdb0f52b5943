"""The leaderboard: what each annotator and validator did, as two tables and as a file for paying people."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.files import write_whole
from data.layout import Round, Workspace
from tasks.params import read
from tasks.workspace import State, WorkspaceError, check_initialised, rounds, state, target

if TYPE_CHECKING:
    from data.records import Candidate
    from tasks.leaderboard import Annotator, Validator

SHARES = ("mer", "agreement", "skill", "probe_accuracy")


def board(root: Path, number: int | None = None) -> tuple[list[Annotator], list[Validator]]:
    """The rows of a round, or of all rounds that collected. The open round as it was last pulled."""
    from tasks import leaderboard
    from tasks.pull import probed

    chosen = _rounds(Workspace(root), number)
    candidates = [c for round_ in chosen for c in _candidates(round_)]
    answers = [answer for round_ in chosen for answer in probed(round_)]
    rules = read(chosen[-1].params).validate_
    return leaderboard.annotators(candidates), leaderboard.validators(candidates, answers, rules)


def show(root: Path, number: int | None = None, file: Path | None = None) -> None:
    """Print both tables; write them to a file if one is named."""
    people, voters = board(root, number)
    console = Console()
    console.width = max(console.width, 160)
    console.print(table("annotators", people))
    console.print(table("validators", voters))
    if file is not None:
        write_whole(file, as_csv(people, voters))
        print(f"wrote {file}")


def table(title: str, found: list[Annotator] | list[Validator]) -> Table:
    """A row a person; shares in per cent."""
    shown = Table(title=title if found else f"{title}: none yet", title_justify="left")
    for name in [field.name for field in fields(found[0])] if found else ["account"]:
        text = name in ("account", "set_aside")
        heading = "MER" if name == "mer" else name.replace("_", " ")
        shown.add_column(heading, justify="left" if text else "right", no_wrap=name == "account")
    for row in found:
        shown.add_row(*[escape(_cell(name, value)) for name, value in asdict(row).items()])
    return shown


def as_csv(people: list[Annotator], voters: list[Validator]) -> str:
    """A line a person and role; shares between 0 and 1, times in seconds, empty where there is nothing to share.

    A spreadsheet takes a cell that begins with =, +, - or @ for a formula, and an account's name is what its owner
    typed: such a cell gets an apostrophe before it.
    """
    lines = [{"role": "annotator", **asdict(row)} for row in people]
    lines += [{"role": "validator", **asdict(row)} for row in voters]
    names = list(dict.fromkeys(name for line in lines for name in line)) or ["role", "account"]
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _plain(value) for name, value in line.items()})
    return buffer.getvalue()


def _rounds(workspace: Workspace, number: int | None) -> list[Round]:
    check_initialised(workspace)
    there = [r for r in rounds(workspace) if r.number > 0 and state(r) in (State.OPEN, State.CLOSING, State.CLOSED)]
    chosen = [r for r in there if number is None or r.number == number]
    if not chosen:
        names = ", ".join(r.name for r in there) or "none"
        asked = "a round that collects" if number is None else f"round {number:03d}"
        raise WorkspaceError(f"{asked} was wanted, there is {names}; `dadc open` opens one")
    return chosen


def _candidates(round_: Round) -> list[Candidate]:
    """From the shard; of the open round, from the record as it is."""
    from data.shards import read_candidates
    from tasks.judge import judge
    from tasks.pull import candidates, past, votes
    from tasks.validate import validate

    if state(round_) is not State.OPEN:
        return read_candidates(round_.candidates)
    params, attacked = read(round_.params), target(round_)
    assert attacked is not None  # only round 000 has none
    judged = judge(candidates(round_, params, check_initialised(round_.workspace)), attacked.model)
    return validate(judged, votes(round_), params.validate_, past(round_))


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
