"""What every subcommand of `dadc` has in common: one app, one form of error, one workspace."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

import typer

P = ParamSpec("P")
T = TypeVar("T")

QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # what matters is said in a line of its own
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # where none is up, a command brings its own
}

app = typer.Typer(
    name="dadc",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # its frames would show secrets
    help="""Harden an image classifier in rounds of dynamic adversarial data collection.

A **round** freezes a target model, attacks it, asks people to fool it through Label Studio, has other people
validate the labels blind, freezes what they made as one DVC version, retrains with an adversarial loss,
fine-tunes with RiFT, measures clean, robust and OOD accuracy, promotes the challenger or not, and logs it all
in MLflow. Run `dadc` in a checkout of the project: one checkout holds one campaign, `params.yaml` says how.

The first time:  `dadc init` · `dadc up` · `dadc run --rounds 1 --simulate` · `dadc status`

With people:  `dadc open`, then `dadc collect` as often as you like, then `dadc close`.
Every command may be run twice: the second time changes nothing, and one that was cut short goes on.
""",
    epilog="A round is a folder, `data/rounds/NNN`; once closed it is a commit and the tag `round-NNN`.",
)
# Where the caller stands: the launcher, which goes to the workspace's root, hands it on. Not to what we start.
CALLER = Path(os.environ.pop("DADC_FROM", "") or Path.cwd())
CAMPAIGN, ROUND, RECORD, STACK = "The campaign", "A round", "The record", "The local services"


def root() -> Path:
    """The root of the workspace one stands in."""
    from tasks.workspace.checkout import find_workspace

    return find_workspace(Path.cwd()).root


def resolve_cli_path(path: Path) -> Path:
    """A path of the command line, which is meant from where the caller stands."""
    return (CALLER / path.expanduser()).resolve()


def command(panel: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A subcommand whose faults are one clear line and exit code 1."""

    def wrap(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            from tasks.config.params import ParamsError
            from tasks.labelling.http import LabellingError
            from tasks.workspace.git import WorkspaceError
            from tasks.workspace.services import StackError

            try:
                return function(*args, **kwargs)
            except (ParamsError, StackError, LabellingError, WorkspaceError, ValueError, FileNotFoundError) as error:
                for line in str(error).splitlines():
                    print(f"dadc: {line}", file=sys.stderr)
                raise typer.Exit(1) from error
            except OSError as error:  # a full disk, say
                print(f"dadc: {error}; see to it, and the same command goes on from here", file=sys.stderr)
                raise typer.Exit(1) from error
            except Exception as error:
                if not _prefect_is_gone(error):
                    raise
                print("dadc: the Prefect server went away under the flow; `dadc up` starts it again,", file=sys.stderr)
                print("dadc: and the same command goes on from here", file=sys.stderr)
                raise typer.Exit(1) from error
            except KeyboardInterrupt:
                print("dadc: stopped; the same command goes on from here", file=sys.stderr)
                raise typer.Exit(130) from None

        name = function.__name__.rstrip("_")
        app.command(name, rich_help_panel=panel)(guarded)
        return guarded

    return wrap


def prefect(root: Path) -> bool:
    """Point Prefect at the campaign's server if it is up; else a flow runs on a server of its own. Whether it is up.

    What can be refused is refused before a flow is started: at once, and without a failed run.
    """
    from flows.stack.health import health_of
    from tasks.workspace.services import ServiceDown, configured_url

    known = health_of(root, "prefect")
    if known.url and known.state == "up":
        os.environ["PREFECT_API_URL"] = known.url
    elif configured_url("prefect"):
        raise ServiceDown("prefect", known.url)
    elif known.url:
        print(f"the Prefect server does not answer at {known.url}; this flow brings its own")
    home = Path(os.environ.setdefault("PREFECT_HOME", str(root / ".dadc" / "prefect")))
    home.mkdir(parents=True, exist_ok=True)
    return known.state == "up"


def _prefect_is_gone(error: BaseException) -> bool:
    """Whether a flow fell because its Prefect server does not answer: httpx's error, or one that it led to."""
    while not (type(error).__module__.startswith("httpx") and "prefect" in sys.modules):
        following = error.__cause__ or error.__context__
        if following is None:
            return False
        error = following
    return True
