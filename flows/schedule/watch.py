"""Rounds that run by themselves: a watch on a schedule says what is due, and Prefect's automations have it done.

The watch collects, sees from the workspace what comes next, and emits an event for it, which names the round. The flow
that the event starts asks again whether that is still so: an event lost is emitted again by the next watch, one that
comes twice changes nothing, whatever was killed in between.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.artifacts import create_markdown_artifact

from flows.close import close_round
from flows.collect import collect
from flows.context import Campaign, campaign_flow, load, say
from flows.open import open_round
from flows.reports.status import markdown
from flows.run import campaign as run_until
from flows.schedule.alerts import alerts, notify
from flows.schedule.due import Due, due
from tasks.quality.progress import Progress
from tasks.workspace.rounds import State, state

if TYPE_CHECKING:
    pass
from flows.schedule.events import EVENTS, emit, recently_announced, slug

PATIENCE = 900.0  # seconds that opening and closing wait for another command


@campaign_flow("watch", patience=0)
def watch(root: Path) -> str:
    """Collect if a round is open, and say what is due."""
    return announce_next(root, collect(root) if _collects(load(root)) else None).what


@campaign_flow("open next", patience=PATIENCE)
def open_next(root: Path, number: str) -> None:
    """Open round `number` if it is still the one to open. Round 000 is closed at once: it collects nothing."""
    found = due(load(root), time.time())
    if (found.what, found.round.name) != ("open", number):
        say(f"round {number} is not to be opened any more: round {found.round.name}, {found.what}")
        return
    if number == "000":
        run_until(root, 0)
    else:
        open_round(root)
    announce_next(root)


@campaign_flow("close ready", patience=PATIENCE)
def close_ready(root: Path, number: str) -> None:
    """Close round `number` if it is still open; Label Studio is asked once more for what came meanwhile."""
    here = load(root)
    if here.current is None or here.current.name != number or state(here.current) is State.OPENING:
        say(f"round {number} is not to be closed any more")
        return
    close_round(root)
    announce_next(root)


def announce_next(root: Path, tally: Progress | None = None) -> Due:
    """Show where the campaign stands, call a person where one is wanted, and emit the event for what is due."""
    here, now = load(root), time.time()
    found = due(here, now, tally)
    show(here, tally)
    say(f"round {found.round.name}, {found.what}: {found.why}")
    if found.what in EVENTS and not recently_announced(here, found):
        emit(here, EVENTS[found.what], found.round, found.why)
    for call in alerts(here, now, tally):
        notify(here, call)
    return found


def show(campaign: Campaign, tally: Progress | None = None) -> None:
    """The campaign's table, and where to look, as an artifact in the Prefect UI."""
    services = campaign.services
    links = [
        f"[{title}]({url})"
        for title, url in (("Label Studio", services.label_studio_url), ("MLflow", services.mlflow_url))
        if url
    ]
    lines = [markdown(campaign.workspace), "", " · ".join(links)]
    if tally is not None and campaign.current is not None:
        lines = [f"Round {campaign.current.name} is open: {tally}.", "", *lines]
    create_markdown_artifact(
        "\n".join(lines), key=slug(campaign), description=f"campaign {campaign.params.campaign}, round by round"
    )


def _collects(campaign: Campaign) -> bool:
    round_ = campaign.current
    return round_ is not None and round_.number > 0 and state(round_) is State.OPEN
