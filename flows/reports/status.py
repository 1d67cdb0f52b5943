"""Where a campaign stands: a table with a row a round, the open round in numbers, and the command that goes on."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.layout import Round, Workspace
from flows.reports.progress import open_round, open_round_lines
from tasks.evaluation.gate_words import line
from tasks.promote import champion, promoted, reasons, unsound
from tasks.workspace.checkout import initialised
from tasks.workspace.rounds import State, closed, current, rounds, state, target

COLUMNS = ("round", "state", "target", "collected", "MER", "vMER", "clean", "FGSM", "PGD", "OOD", "result")
WIDTH = 130  # characters in which every column fits, with its interval
LEFT_OUT = ("target", "result")  # where the terminal is narrower; ★ marks the champion there too


def status(root: Path) -> dict[str, Any]:
    """All that `dadc status` says, as JSON: shares between 0 and 1, times in ISO 8601 with their offset."""
    workspace = Workspace(root)
    now = current(workspace)
    return {
        "campaign": _campaign(workspace),
        **campaign_rounds(workspace),
        "open": open_round(now) if now is not None and state(now) is State.OPEN else None,
        "next": advice(root),
    }


def campaign_rounds(workspace: Workspace) -> dict[str, Any]:
    """The name of the round whose challenger is the champion, None if there is none, and what each round came to."""
    done = closed(workspace)
    best = champion(done)
    return {
        "champion": best.name if best else None,
        "rounds": [_round(round_, round_ in done, best) for round_ in rounds(workspace)],
    }


def _round(round_: Round, is_closed: bool, best: Round | None) -> dict[str, Any]:
    """result: champion, promoted (it was once), refused, or None as long as the round is not closed."""
    attacked = target(round_)
    row: dict[str, Any] = {
        "round": round_.name,
        "state": str(state(round_)),
        "target": attacked.name if attacked else None,
        "result": None,
        "by_hand": round_.decision.exists(),
        "reasons": [],
    }
    if not round_.challenger.metrics.exists():
        return row
    metrics = json.loads(round_.challenger.metrics.read_text(encoding="utf-8"))
    if is_closed:
        row["result"] = "champion" if round_ == best else "promoted" if promoted(round_) else "refused"
        row["reasons"] = reasons(round_)
    figures = {"clean": metrics["clean"], "robust": metrics["robust"], "ood": metrics["ood"].get("mean")}
    return row | {"collected": metrics["collected"], "mer": metrics["mer"], "vmer": metrics["vmer"], **figures}


def cells(row: dict[str, Any], *, intervals: bool = True) -> dict[str, str]:
    """A round's cells by their column: per cent, accuracies with the larger half of their 95% interval."""
    begin = {name: row[name] or "–" for name in ("round", "state", "target", "result")}
    if "clean" not in row:
        return {name: begin.get(name, "–") for name in COLUMNS}
    accuracies = {
        "clean": row["clean"],
        "FGSM": row["robust"].get("fgsm"),
        "PGD": row["robust"].get("pgd"),
        "OOD": row["ood"],
    }
    made = begin | {"collected": str(row["collected"]), "MER": _share(row["mer"]), "vMER": _bounds(row["vmer"])}
    made |= {name: _accuracy(value, intervals) for name, value in accuracies.items()}
    return {name: made[name] for name in COLUMNS}


def table(workspace: Workspace, width: int) -> Table:
    """A row for each round, with as much as `width` characters hold; accuracies are of the test split."""
    rows = campaign_rounds(workspace)["rounds"]
    title = f"campaign {_campaign(workspace)}, in per cent"
    full = _table(rows, f"{title}, ± 95% interval; ★ champion", COLUMNS, intervals=True)
    console = Console(width=2 * WIDTH)
    if console.measure(full).maximum <= width:
        return full
    narrow = tuple(name for name in COLUMNS if name not in LEFT_OUT)
    return _table(rows, f"{title}; ★ champion", narrow, intervals=False)


def _table(rows: list[dict[str, Any]], title: str, names: tuple[str, ...], intervals: bool) -> Table:
    shown = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in names:
        shown.add_column(name, justify="left" if name in ("round", "state", "result") else "right", no_wrap=True)
    for row in rows:
        shown_cells = cells(row, intervals=intervals)
        shown_cells["round"] += " ★" if row["result"] == "champion" else ""
        shown.add_row(*[shown_cells[name] for name in names])
    return shown


def markdown(workspace: Workspace) -> str:
    """The same rows as a Markdown table."""
    rows = [list(cells(row).values()) for row in campaign_rounds(workspace)["rounds"]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [list(COLUMNS), ["---"] * len(COLUMNS), *rows])


def verdicts(workspace: Workspace) -> list[str]:
    """A line for each round that was refused, or decided by hand, with the reason."""
    return [
        f"round {row['round']} was {'refused' if row['result'] == 'refused' else 'promoted'}"
        f"{' by hand' if row['by_hand'] else ''}: {'; '.join(row['reasons'])}"
        for row in campaign_rounds(workspace)["rounds"]
        if row["result"] == "refused" or row["by_hand"]
    ]


def show(root: Path) -> None:
    """Print the table, and why challengers were refused."""
    workspace = Workspace(root)
    if not rounds(workspace):
        ways = "; `dadc run --rounds 1 --simulate` plays one, `dadc open` opens one for people"
        print("no rounds yet" + (ways if initialised(workspace) else ""))
        return
    console = terminal()
    console.print(table(workspace, console.width))
    for shown in (*verdicts(workspace), *gate_lines(workspace)):
        console.print(escape(shown), highlight=False)


def gate_lines(workspace: Workspace) -> list[str]:
    """What the gate said of the last challenger that it judged: the verdict, and every comparison."""
    judged = [round_ for round_ in closed(workspace) if round_.gate.exists()]
    if not judged:
        return []
    last = judged[-1]
    gate = json.loads(last.gate.read_text())
    against = [("the target", name, each) for name, each in gate.get("target", {}).items()]
    against += [(f"round {each['round']:03d}", name, each) for name, each in gate.get("best", {}).items()]
    against += [("the reference", name, each) for name, each in gate.get("reference", {}).items()]
    outcome = "promoted" if gate["promoted"] else "not promoted"
    if gate.get("data"):
        outcome += f"; what this round's data did: {gate['data']}"
    warning = unsound(last)
    return [
        f"gate of round {last.name}: {gate['verdict']}, {outcome}",
        *(f"  against {who}: {line(name, each)}" for who, name, each in against),
        *([warning] if warning else []),
    ]


def show_all(root: Path) -> None:
    """Print the table, how the open round stands, and the command that goes on."""
    show(root)
    now = current(Workspace(root))
    if now is not None and state(now) is State.OPEN:
        console = terminal()
        for line in open_round_lines(open_round(now), datetime.now().astimezone()):
            console.print(escape(line), highlight=False, soft_wrap="://" in line)
    print(advice(root))


def terminal() -> Console:
    """As wide as the terminal; without one, as in a file, wide enough for every column."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDTH
    return console


def advice(root: Path) -> str:
    """The command that goes on from where the campaign stands."""
    workspace = Workspace(root)
    if not initialised(workspace):
        return f"next: `dadc init` {'again, it was cut short' if workspace.splits.exists() else 'freezes the data'}"
    now = current(workspace)
    if now is None:
        return "next: `dadc open` opens a round, `dadc run --rounds N` runs rounds"
    if state(now) is State.OPEN:
        return f"round {now.name} is open: `dadc collect` brings it up to date, `dadc close` closes it"
    return (
        f"round {now.name} is {state(now)}: `dadc {'open' if state(now) is State.OPENING else 'close'}` goes on with it"
    )


def _campaign(workspace: Workspace) -> str:
    return str(json.loads(workspace.splits.read_text())["campaign"]) if workspace.splits.exists() else "–"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _bounds(value: dict[str, float | None]) -> str:
    low, high = value["low"], value["high"]
    if low is None or high is None:
        return "–"
    return _share(low) if low == high else f"{_share(low)}–{_share(high)}"


def _accuracy(value: dict[str, Any] | None, intervals: bool) -> str:
    if value is None:
        return "–"
    half = max(value["accuracy"] - value["low"], value["high"] - value["accuracy"])
    return _share(value["accuracy"]) + (f" ±{100 * half:.1f}" if intervals else "")
