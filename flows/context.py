"""What makes a function a flow or a step of one: Prefect's decorators, with one campaign in mind."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.states import Completed

from data.layout import Workspace
from flows.campaign import Campaign, load, say
from tasks.workspace.lock import WAIT_SECONDS, Busy, lock

__all__ = ["Campaign", "campaign_flow", "load", "say", "start", "step"]

# Whatever defaults somebody has set for Prefect: a step is not tried again under the lock, and results are not pickled.
PLAIN: dict[str, Any] = {"retries": 0, "persist_result": False}
P = ParamSpec("P")
T = TypeVar("T")


def step(name: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A Prefect task; what is done already is seen from the round's files, not from a cache."""

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        made: Callable[P, T] = task(name=name, cache_policy=NO_CACHE, **PLAIN)(function)
        return made

    return wrap


def campaign_flow(
    name: str,
    *,
    requires: Callable[..., object] | None = None,
    patience: float | None = None,
) -> Callable[[Callable[Concatenate[Path, P], T]], Callable[Concatenate[Path, P], T]]:
    """A Prefect flow over one campaign, named after it and its round, alone in the workspace while it runs.

    requires: called with the campaign and the flow's other arguments, raises where the campaign is not fit for that;
    the flow begins with it, and `start` calls it before.
    patience: seconds that a scheduled run waits for another command, a moment at least; it then ends as done, `Busy`,
    and leaves a hint, with which the schedule comes again when the other has ended. None: it fails.
    """

    def wrap(function: Callable[Concatenate[Path, P], T]) -> Callable[Concatenate[Path, P], T]:
        @wraps(function)
        def alone(root: Path, *args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                with lock(Workspace(Path(root)), patience or WAIT_SECONDS):
                    if requires is not None:
                        requires(load(Path(root)), *args, **kwargs)
                    return function(Path(root), *args, **kwargs)
            except Busy as busy:
                if patience is None:
                    raise
                Workspace(Path(root)).hint.touch()
                say(str(busy))
                return Completed(name="Busy", message=str(busy))

        made: Any = flow(name=name, flow_run_name=_run_name, validate_parameters=False, **PLAIN)(alone)
        made.requires = requires
        return cast(Callable[Concatenate[Path, P], T], made)

    return wrap


def start(campaign_flow: Callable[Concatenate[Path, P], T], root: Path, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a flow, if the campaign is fit for it: refused at once, and not as a failed run."""
    requires = campaign_flow.requires  # type: ignore[attr-defined]
    if requires is not None:
        requires(load(root), *args, **kwargs)
    return campaign_flow(root, *args, **kwargs)


def _run_name() -> str:
    here = load(Path(flow_run.parameters["root"]))
    begun = here.next if str(flow_run.flow_name).startswith("open") else (here.closed or [here.next])[-1]
    number = flow_run.parameters.get("number") or (here.current or begun).name
    return f"{here.params.campaign} {number} {flow_run.flow_name}"
