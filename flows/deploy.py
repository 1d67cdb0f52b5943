"""Rounds that run by themselves: a watch on a schedule says what is due, and Prefect's automations have it done.

The watch collects, sees from the workspace what comes next, and emits an event for it, which names the round. The flow
that the event starts asks again whether that is still so: an event lost is emitted again by the next watch, one that
comes twice changes nothing, whatever was killed in between.
"""

from __future__ import annotations

import asyncio
import math
import re
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import psutil
from filelock import FileLock, Timeout
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events import DeploymentEventTrigger, emit_event
from prefect.runner import Runner
from prefect.schedules import Cron

from data.files import write_whole
from data.layout import Round, Workspace
from flows.base import Campaign, campaign_flow, load, say
from flows.campaign import campaign as run_until
from flows.close import close_round
from flows.collect import Tally, collect
from flows.due import Call, Due, calls, due
from flows.open import open_round
from flows.report import markdown
from tasks.services import StackError
from tasks.workspace import Busy, State, WorkspaceError, busy, state

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

# What is due, and the event that says so; `collect` needs none.
EVENTS = {"open": "dadc.round.wanted", "close": "dadc.round.ready", "stop": "dadc.campaign.ended"}
CALL = "dadc.person.wanted"
LOOK = 1.0  # seconds between two looks for a hint
AGAIN = 300.0  # seconds after which an event that nothing came of is emitted again
HURRY = 15.0  # seconds between two watches that hints ask for
PATIENCE = 900.0  # seconds that opening and closing wait for another command
END = 10.0  # seconds between two looks whether the campaign has ended
# What passes by itself, or when somebody sees to it, and ends no schedule: a params.yaml that is being edited, a file
# or a server that is away.
PASSING = (ValueError, WorkspaceError, StackError, OSError, httpx.HTTPError)
LAST = 120.0  # seconds in which the run that ended it may come to its own end


@campaign_flow("watch", patience=0)
def watch(root: Path) -> str:
    """Collect if a round is open, and say what is due."""
    return attend(root, collect(root) if _collects(load(root)) else None).what


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
    attend(root)


@campaign_flow("close ready", patience=PATIENCE)
def close_ready(root: Path, number: str) -> None:
    """Close round `number` if it is still open; Label Studio is asked once more for what came meanwhile."""
    here = load(root)
    if here.current is None or here.current.name != number or state(here.current) is State.OPENING:
        say(f"round {number} is not to be closed any more")
        return
    close_round(root)
    attend(root)


def attend(root: Path, tally: Tally | None = None) -> Due:
    """Show where the campaign stands, call a person where one is wanted, and emit the event for what is due."""
    here, now = load(root), time.time()
    found = due(here, now, tally)
    show(here, tally)
    say(f"round {found.round.name}, {found.what}: {found.why}")
    if found.what in EVENTS and not _just_said(here, found):
        _emit(here, EVENTS[found.what], found.round, found.why)
    for call in calls(here, now, tally):
        tell(here, call)
    return found


def deployments(
    root: Path, every: float, cron: str | None = None, timezone: str | None = None
) -> list[RunnerDeployment]:
    """The three deployments of a campaign: the watch on its schedule, and what its events start.

    timezone: in which `cron` is meant, such as Europe/Berlin; UTC if None.
    """
    here = load(root)
    name, parameters = here.params.campaign, {"root": str(root)}
    timing: dict[str, Any] = {"interval": timedelta(seconds=every)}
    if cron:
        timing = {"schedule": Cron(cron, timezone=timezone)}
    made: list[RunnerDeployment] = [watch.to_deployment(name, parameters=parameters, **timing)]  # type: ignore[attr-defined]
    for flow, event in ((open_next, EVENTS["open"]), (close_ready, EVENTS["close"])):
        trigger = DeploymentEventTrigger(
            name=f"{name}: {event}",
            expect={event},
            match={"prefect.resource.id": _resource(here)},
            parameters=parameters | {"number": "{{ event.payload.round }}"},
        )
        made.append(flow.to_deployment(name, parameters=parameters, triggers=[trigger]))  # type: ignore[attr-defined]
    return made


def serve(
    root: Path,
    every: float,
    cron: str | None = None,
    timezone: str | None = None,
    say: Callable[[str], None] = print,
) -> Due | None:
    """Serve the deployments until the campaign has ended, and what it ended with; None when told to stop before.

    Busy if another does: the first to stop would pause the watch of both.
    """
    here = load(root)
    if here.params.schedule.notify is not None:
        notification(here.params.schedule.notify)
    path = here.workspace.local / "locks" / "schedule.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    alone = FileLock(path)
    try:
        alone.acquire(timeout=0)
    except Timeout:
        raise Busy("another `dadc schedule` runs this campaign; stop it first") from None
    try:
        return asyncio.run(_serve(root, deployments(root, every, cron, timezone), say))
    finally:
        alone.release()


async def _serve(root: Path, made: list[RunnerDeployment], say: Callable[[str], None]) -> Due | None:
    workspace = Workspace(root)
    runner = Runner(name=f"dadc {load(root).params.campaign}", pause_on_shutdown=True, query_seconds=2)
    ids = [await runner.aadd_deployment(deployment) for deployment in made]
    await _forget(ids)
    (workspace.local / "said").unlink(missing_ok=True)
    running, told = asyncio.create_task(runner.start()), asyncio.Event()
    await asyncio.sleep(LOOK)  # until the runner has set its own handler, which would end the process at once
    for what in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(what, told.set)
    hinted, asked, looked, fault = 0.0, -math.inf, -math.inf, ""  # so that the first look is at once
    try:
        while not running.done() and not told.is_set():
            now = time.monotonic()  # which nobody sets back
            try:
                hint = workspace.hint.stat().st_mtime if workspace.hint.exists() else 0.0
                if (hint > hinted or asked == -math.inf) and now - asked >= HURRY and not busy(workspace):
                    hinted, asked = hint, now
                    async with get_client() as client:
                        await client.create_flow_run_from_deployment(ids[0])
                if now - looked >= END:
                    looked, found = now, due(load(root), time.time())
                    if found.what == "stop":
                        say(f"ended: {found.why}")
                        await _let_end()
                        return found
                    fault = ""
            except PASSING as error:
                if str(error) != fault:
                    fault = str(error)
                    say(f"{fault or type(error).__name__}; looking again")
            await asyncio.sleep(LOOK)
        if told.is_set():
            return None
        await running
        raise RuntimeError("Prefect's runner has ended by itself; its lines above say why")
    finally:
        if not running.done():
            await runner.astop()
            await running


async def _forget(deployments: list[UUID]) -> None:
    """Drop the runs that were scheduled before and are late: what they were for is due again, or is not any more."""
    late = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=deployments),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING])),
    )
    async with get_client() as client:
        while runs := await client.read_flow_runs(flow_run_filter=late, limit=200):
            for one in runs:
                await client.delete_flow_run(one.id)


async def _let_end() -> None:
    """Wait for the processes of the runs under way, which this one started: the runner, when it is stopped, shows every
    run whose process is there as cancelled, even one that has completed already."""
    deadline = time.monotonic() + LAST
    while time.monotonic() < deadline and psutil.Process().children():
        await asyncio.sleep(LOOK)
    await asyncio.sleep(LOOK)  # in which the runner sees it too


def show(campaign: Campaign, tally: Tally | None = None) -> None:
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
        "\n".join(lines), key=_slug(campaign), description=f"campaign {campaign.params.campaign}, round by round"
    )


def tell(campaign: Campaign, call: Call) -> None:
    """Call a person, once for each round and reason: an event, and a notification where a block is named. One that
    cannot be sent is tried again at the next look; nothing waits for it."""
    done = campaign.workspace.local / "told" / f"{call.round.name}-{call.name}"
    sent = done.with_name(f"{done.name}-sent")
    text = f"campaign {campaign.params.campaign}, round {call.round.name}: {call.text}"
    done.parent.mkdir(parents=True, exist_ok=True)
    if not done.exists():
        say(text)
        _emit(campaign, CALL, call.round, call.text)
        write_whole(done, text + "\n")
    if campaign.params.schedule.notify is not None and not sent.exists():
        try:
            block = notification(campaign.params.schedule.notify)
            block.notify(text, subject=f"dadc: {campaign.params.campaign} needs a person")
        except Exception as error:  # whatever a block of anybody's raises
            say(f"schedule.notify: {campaign.params.schedule.notify} could not be sent ({error}); tried again")
            return
        write_whole(sent, text + "\n")


def notification(name: str) -> Any:
    """The block through which a person is called; ValueError if Prefect has none of this name."""
    from prefect.blocks.core import Block

    try:
        return Block.load(name)
    except ValueError as error:
        raise ValueError(
            f"schedule.notify: wanted a notification block of Prefect's, got {name!r} ({error}); make it on its page "
            "Blocks, or set schedule.notify to null"
        ) from error


def _collects(campaign: Campaign) -> bool:
    round_ = campaign.current
    return round_ is not None and round_.number > 0 and state(round_) is State.OPEN


def _just_said(campaign: Campaign, found: Due) -> bool:
    """Whether the same was said a moment ago, and the run that it started may be on its way; if not, it is noted."""
    note, text = campaign.workspace.local / "said", f"{found.what} {found.round.name}\n"
    if note.exists() and note.read_text() == text and 0 <= time.time() - note.stat().st_mtime < AGAIN:
        return True
    write_whole(note, text)
    return False


def _emit(campaign: Campaign, event: str, round_: Round, why: str) -> None:
    resource = {
        "prefect.resource.id": _resource(campaign),
        "prefect.resource.name": f"campaign {campaign.params.campaign}",
    }
    emit_event(event=event, resource=resource, payload={"round": round_.name, "why": why})


def _resource(campaign: Campaign) -> str:
    return f"dadc.campaign.{campaign.params.campaign}"


def _slug(campaign: Campaign) -> str:
    """A name as Prefect's artifacts take it: small letters, digits and dashes."""
    return "dadc-" + re.sub("[^a-z0-9]+", "-", campaign.params.campaign.lower()).strip("-")
