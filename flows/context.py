"""What every flow starts from: the campaign at a workspace's root, and a voice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from data.layout import Round, Workspace
from data.records import ImageSpec
from tasks.config.params import Params, read
from tasks.workspace.checkout import check_initialised
from tasks.workspace.lock import WAIT_SECONDS, Busy, lock
from tasks.workspace.rounds import State, closed, current, states

if TYPE_CHECKING:
    from tasks.labelling.client import LabelStudio
    from tasks.workspace.services import Services

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


@dataclass(frozen=True)
class Campaign:
    """A workspace with its checked parameters, and what its images are."""

    workspace: Workspace
    params: Params
    spec: ImageSpec

    @property
    def current(self) -> Round | None:
        """The round that is neither closed nor aborted."""
        return current(self.workspace)

    @property
    def closed(self) -> list[Round]:
        return closed(self.workspace)

    @property
    def services(self) -> Services:
        """Where the campaign's servers are."""
        from tasks.workspace.services import find_services

        return find_services(self.workspace.root)

    @property
    def studio(self) -> LabelStudio:
        """A client of Label Studio; ServiceDown if it does not answer."""
        from tasks.labelling.client import connect

        return connect(self.services)

    def check_studio(self) -> None:
        """The same errors if Label Studio does not let us in, before a flow is started."""
        from tasks.labelling.client import connect

        connect(self.services)

    def check_model(self) -> None:
        """ServiceDown if there is no model server, which Label Studio is to ask for the target's answer."""
        from tasks.workspace.services import ServiceDown

        services = self.services
        if not (services.model_url and services.model_user and services.model_password):
            raise ServiceDown("model", services.model_url)

    def check_mlflow(self) -> None:
        """ServiceDown if MLflow, which a round is told to last, does not answer now."""
        from tasks.track import check

        check(self.services)

    @property
    def next(self) -> Round:
        """The round that comes after all there are."""
        begun = [r for r, how in states(self.workspace).items() if how is not State.ABSENT]
        return self.workspace.round(begun[-1].number + 1 if begun else 0)


def load(root: Path) -> Campaign:
    """The campaign at a workspace's root; clear errors for what is missing."""
    workspace = Workspace(root)
    return Campaign(workspace, read(workspace.params), check_initialised(workspace))


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


def say(text: str) -> None:
    """A line for whoever watches: on the terminal, and in the Prefect UI from within a run."""
    print(text, flush=True)
    if FlowRunContext.get() or TaskRunContext.get():
        get_run_logger().log(logging.INFO, text)
