"""What a person sees of a campaign: one table, a row a round, and where to look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data.layout import Round, Workspace
from tasks.promote import champion
from tasks.workspace.checkout import initialised
from tasks.workspace.rounds import State, closed, current, rounds, state, target

COLUMNS = ("round", "state", "target", "collected", "MER", "vMER", "clean", "FGSM", "PGD", "OOD", "champion")


def table(workspace: Workspace) -> Table:
    """A row for each round; accuracies on the test split, in per cent with 95% intervals."""
    shown = Table(title=f"campaign {_campaign(workspace)}: per cent, ± 95% interval", title_justify="left")
    for column in COLUMNS:
        shown.add_column(column, justify="left" if column in ("round", "state") else "right", no_wrap=True)
    for round_ in rounds(workspace):
        shown.add_row(*row(round_))
    return shown


def markdown(workspace: Workspace) -> str:
    """The same rows as a Markdown table."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *(row(round_) for round_ in rounds(workspace))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def row(round_: Round) -> list[str]:
    """The round's cells, in the order of COLUMNS."""
    how = state(round_)
    attacked = target(round_)
    begin = [round_.name, str(how), attacked.name if attacked else "–"]
    if not round_.challenger.metrics.exists():
        return [*begin, *["–"] * (len(COLUMNS) - len(begin))]
    metrics = json.loads(round_.challenger.metrics.read_text())
    best = champion([r for r in closed(round_.workspace) if r.number <= round_.number])
    return [
        *begin,
        str(metrics["collected"]),
        _share(metrics["mer"]),
        _bounds(metrics["vmer"]),
        _accuracy(metrics["clean"]),
        _accuracy(metrics["robust"].get("fgsm")),
        _accuracy(metrics["robust"].get("pgd")),
        _accuracy(metrics["ood"].get("mean")),
        "–" if best is None or how is not State.CLOSED else ("yes" if best == round_ else best.name),
    ]


def show(root: Path) -> None:
    """Print the table."""
    workspace = Workspace(root)
    if not rounds(workspace):
        ways = "; `dadc run --rounds 1 --simulate` plays one, `dadc open` opens one for people"
        print("no rounds yet" + (ways if initialised(workspace) else ""))
        return
    console = Console()
    console.width = max(console.width, 120)  # a table cut at eighty columns says nothing
    console.print(table(workspace))


def _campaign(workspace: Workspace) -> str:
    return str(json.loads(workspace.splits.read_text())["campaign"]) if workspace.splits.exists() else "–"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _bounds(value: dict[str, float | None]) -> str:
    low, high = value["low"], value["high"]
    if low is None or high is None:
        return "–"
    return _share(low) if low == high else f"{_share(low)}–{_share(high)}"


def _accuracy(value: dict[str, Any] | None) -> str:
    """Per cent, with the larger half of the 95% interval: it is not quite symmetric."""
    if value is None:
        return "–"
    half = max(value["accuracy"] - value["low"], value["high"] - value["accuracy"])
    return f"{_share(value['accuracy'])} ±{100 * half:.1f}"


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


def invitation(root: Path) -> str:
    """Where people make an account, and the pages of the open round, a line each."""
    from tasks.config.params import read
    from tasks.labelling.client import connect
    from tasks.labelling.projects import KINDS, title
    from tasks.workspace.services import find_services

    studio = connect(find_services(root))
    lines = [f"{'account':<9} {studio.invite()}"]
    now = current(Workspace(root))
    if now is not None and state(now) is State.OPEN:
        campaign = read(now.params).campaign
        for kind in KINDS:
            project = studio.find(title(campaign, now, kind))
            if project is not None:
                lines.append(f"{kind:<9} {studio.url}/projects/{project}/data?labeling=1")
    return "\n".join(lines)
