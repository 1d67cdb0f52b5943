"""The campaign at a workspace's root, and a line for whoever watches. It needs no Prefect, as most commands do not."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.layout import Round, Workspace
from data.records import ImageSpec
from tasks.config.params import Params, read
from tasks.workspace.checkout import check_initialised
from tasks.workspace.rounds import State, closed, current, states

if TYPE_CHECKING:
    from tasks.labelling.client import LabelStudio
    from tasks.workspace.services import Services


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


def say(text: str) -> None:
    """A line for whoever watches: on the terminal, and in the Prefect UI from within a run."""
    print(text, flush=True)
    if "prefect.context" not in sys.modules:  # then no flow runs, and Prefect takes a second to import
        return
    from prefect.context import FlowRunContext, TaskRunContext
    from prefect.logging import get_run_logger

    if FlowRunContext.get() or TaskRunContext.get():
        get_run_logger().log(logging.INFO, text)
