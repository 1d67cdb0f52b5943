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
from tasks.config.params import read
from tasks.workspace.checkout import check_initialised
from tasks.workspace.git import WorkspaceError
from tasks.workspace.rounds import State, rounds, state, target

if TYPE_CHECKING:
    from data.records import Candidate
    from tasks.quality.leaderboard import Annotator, Attack, Validator

SHARES = ("mer", "agreement", "skill", "probe_accuracy", "attack_success_rate", "verified_rate")


@dataclass(frozen=True)
class Board:
    """The rows of a round, or of several."""

    annotators: list[Annotator]
    validators: list[Validator]
    attacks: list[Attack]


def board(root: Path, number: int | None = None) -> Board:
    """The rows of a round, or of all rounds that collected. The open round as it was last pulled."""
    from tasks.quality import leaderboard
    from tasks.record.history import probed, voting_seconds

    chosen = _rounds(Workspace(root), number)
    by_round = {round_: _candidates(round_) for round_ in chosen}
    candidates = [c for own in by_round.values() for c in own]
    answers = [answer for round_ in chosen for answer in probed(round_)]
    seconds: Counter[str] = Counter()
    for round_ in chosen:
        seconds.update(voting_seconds(round_))
    rules = {round_.number: read(round_.params).validate_ for round_ in chosen}
    return Board(
        annotators=leaderboard.annotators(candidates),
        validators=leaderboard.validators(candidates, answers, rules, seconds),
        attacks=[
            row for round_, own in by_round.items() for row in leaderboard.attacks(round_.name, _told(round_, own))
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
    from tasks.record.candidates import candidates
    from tasks.record.history import stats_before
    from tasks.record.votes import cast_votes
    from tasks.validate import validate

    if state(round_) is not State.OPEN:
        return read_candidates(round_.candidates)
    params, attacked = read(round_.params), target(round_)
    assert attacked is not None  # only round 000 has none
    judged = judge(candidates(round_, params, check_initialised(round_.workspace)), attacked.challenger.model)
    return validate(judged, cast_votes(round_), params.validate_, stats_before(round_))


def _told(round_: Round, candidates: list[Candidate]) -> dict[str, Any]:
    """What metrics.json tells of each source, or will."""
    from data.shards import read_images
    from tasks.evaluation.metrics import by_source
    from tasks.judge import rightly_classified

    if round_.challenger.metrics.exists():
        told: dict[str, Any] = json.loads(round_.challenger.metrics.read_text(encoding="utf-8"))["by_source"]
        return told
    attacked, seeds = target(round_), {c.seed_image for c in candidates if not c.by_people}
    assert attacked is not None  # only round 000 has none
    pool = read_images(round_.workspace.split("pool"), check_initialised(round_.workspace)["channels"])
    started = pool.take([index for index, key in enumerate(pool.keys) if key in seeds])
    return by_source(candidates, rightly_classified(started, attacked.challenger.model) if len(started) else [])


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
