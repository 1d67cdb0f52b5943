"""The deployments of `dadc schedule`: the watch on its schedule and what its events start, served by one process."""

from __future__ import annotations

import asyncio
import math
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
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.events import DeploymentEventTrigger
from prefect.runner import Runner
from prefect.schedules import Cron
from pydantic import ValidationError

from data.layout import Workspace
from flows.campaign import load
from flows.schedule.due import Due, due
from tasks.workspace.git import WorkspaceError
from tasks.workspace.lock import Busy, busy
from tasks.workspace.services import StackError, find_services

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flows.schedule.alerts import notification
from flows.schedule.events import EVENTS, resource
from flows.schedule.watch import close_ready, open_next, watch

POLL_SECONDS = 1.0  # seconds between two looks for a hint
MIN_WATCH_INTERVAL = 15.0  # seconds between two watches that hints ask for
END_CHECK_SECONDS = 10.0  # seconds between two looks whether the campaign has ended
# What passes by itself, or when somebody sees to it, and ends no schedule: a params.yaml that is being edited, a file
# or a server that is away.
PASSING_ERRORS = (ValueError, WorkspaceError, StackError, OSError, httpx.HTTPError)
LAST_RUN_SECONDS = 120.0  # seconds in which the run that ended it may come to its own end


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
            match={"prefect.resource.id": resource(here)},
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
        when = f"at {cron}, {timezone or 'UTC'} time" if cron else f"every {every:g} s"
        return asyncio.run(_serve(root, deployments(root, every, cron, timezone), when, say))
    finally:
        alone.release()


async def _serve(root: Path, made: list[RunnerDeployment], when: str, say: Callable[[str], None]) -> Due | None:
    workspace = Workspace(root)
    runner = Runner(name=f"dadc {load(root).params.campaign}", pause_on_shutdown=True, query_seconds=2)
    ids = [await runner.aadd_deployment(deployment) for deployment in made]
    url = find_services(root).prefect_url or ""
    say(f"looking {when}; the runs are at {url.removesuffix('/api')}/runs")
    await _forget(ids)
    (workspace.local / "said").unlink(missing_ok=True)
    running, told = asyncio.create_task(runner.start()), asyncio.Event()
    await asyncio.sleep(POLL_SECONDS)  # until the runner has set its own handler, which would end the process at once
    for what in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(what, told.set)
    hinted, asked, looked, fault = 0.0, -math.inf, -math.inf, ""  # so that the first look is at once
    try:
        while not running.done() and not told.is_set():
            now = time.monotonic()  # which nobody sets back
            try:
                hint = workspace.hint.stat().st_mtime if workspace.hint.exists() else 0.0
                if (hint > hinted or asked == -math.inf) and now - asked >= MIN_WATCH_INTERVAL and not busy(workspace):
                    hinted, asked = hint, now
                    async with get_client() as client:
                        await client.create_flow_run_from_deployment(ids[0])
                if now - looked >= END_CHECK_SECONDS:
                    looked, found = now, due(load(root), time.time())
                    if found.what == "stop":
                        say(f"ended: {found.why}")
                        await _let_end()
                        return found
                    fault = ""
            except PASSING_ERRORS as error:
                if str(error) != fault:
                    fault = str(error)
                    say(f"{fault or type(error).__name__}; looking again")
            await asyncio.sleep(POLL_SECONDS)
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
    deadline = time.monotonic() + LAST_RUN_SECONDS
    while time.monotonic() < deadline and psutil.Process().children():
        await asyncio.sleep(POLL_SECONDS)
    await asyncio.sleep(POLL_SECONDS)  # in which the runner sees it too


def check_cron(expression: str, zone: str) -> None:
    """ValueError for a cron expression that Prefect does not take."""
    try:
        CronSchedule(cron=expression, timezone=zone)
    except ValidationError as error:
        raise ValueError(f'--cron: expected five fields such as "*/10 8-18 * * mon-fri", got {expression!r}') from error


def time_zone(asked: str | None) -> str:
    """The IANA name of a time zone, this machine's if none is asked for; ValueError for one that there is not."""
    import tzlocal

    name = asked or tzlocal.get_localzone_name()
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"--timezone: expected a zone such as Europe/Berlin, got {name!r}") from error
    return name
