"""What every subcommand of `dadc` has in common: one app, one form of error, one workspace."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

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


class Command(TyperCommand):
    """A subcommand whose help names no Python types: `--simulate` without `<bool>`, `ROUND` without `<int>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """`dadc` itself, its subcommands in the order of use."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
        elif param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None
    return params


app = typer.Typer(
    name="dadc",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,  # its frames would show secrets
    help="""Harden an image classifier in rounds of dynamic adversarial data collection.

A **round** freezes a target model, attacks it, asks people to fool it through Label Studio, has other people check
the labels, freezes what they made as one DVC version, trains on it with an adversarial loss, fine-tunes with RiFT,
measures clean, robust and OOD accuracy, promotes the new model or not, and logs it all in MLflow.

Run `dadc` in a checkout of the project. A checkout holds one campaign, and `params.yaml` configures it.

To try it:  `dadc init` · `dadc up` · `dadc run --rounds 1 --simulate` · `dadc status` · `dadc down`

With people:  `dadc open`, `dadc invite`, then `dadc collect` as often as you like, then `dadc close`.

You can run every command twice: the second time changes nothing, and a command that was interrupted goes on.
""",
    epilog="A round is a folder, `data/rounds/NNN`. Once closed, it is also a commit and the tag `round-NNN`.",
)
# Where the caller stands: the launcher, which goes to the workspace's root, hands it on. Not to what we start.
CALLER = Path(os.environ.pop("DADC_FROM", "") or Path.cwd())
SETUP, ROUND, CHAMPION = "Set up", "A round", "The champion"
CAMPAIGN, RECORD = "The campaign", "The record"


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=lambda value: print_version(value), help="Print the version."
        ),
    ] = False,
) -> None:
    del version


def print_version(asked: bool) -> None:
    """The version, and the commit of the code that runs."""
    if not asked:
        return
    import tomllib

    code = Path(__file__).resolve().parents[2]
    version = tomllib.loads((code / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=code, capture_output=True, text=True, check=False
    )
    print(f"dadc {version}" + (f" (commit {done.stdout.strip()})" if done.returncode == 0 else ""))
    raise typer.Exit


def is_command(name: str) -> bool:
    """Whether there is a subcommand of this name."""
    return any(name == command.name for command in app.registered_commands)


def root() -> Path:
    """The root of the workspace one stands in."""
    from tasks.workspace.checkout import find_workspace

    return find_workspace(Path.cwd()).root


def resolve_cli_path(path: Path) -> Path:
    """A path of the command line, which is meant from where the caller stands."""
    return (CALLER / path.expanduser()).resolve()


def command(panel: str, *examples: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A subcommand whose faults are one clear line and exit code 1.

    panel: of `dadc --help`, in which the commands stand in the order in which they are defined; examples: whole command
    lines for its own help.
    """
    epilog = "Example: " + " · ".join(f"`{example}`" for example in examples)

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
        app.command(name, cls=Command, rich_help_panel=panel, epilog=epilog)(guarded)
        return guarded

    return wrap


def prefect(root: Path, *, needed: bool = False) -> None:
    """Point Prefect at the campaign's server if it is up; else a flow runs on a server of its own.

    ServiceDown if the server is needed and is not up, or was named in the environment and is not.
    """
    from flows.stack.health import health_of
    from tasks.workspace.services import PREFECT_AUTH, PREFECT_SERVER_AUTH, ServiceDown, configured_url, find_services

    server, auth = health_of(root, "prefect"), find_services(root).prefect_auth
    if server.url and server.state == "up":
        os.environ["PREFECT_API_URL"] = server.url  # from here on it counts as given by the environment
        if auth:
            os.environ[PREFECT_AUTH] = auth
    elif needed or configured_url("prefect"):
        raise ServiceDown("prefect", server.url)
    else:
        if server.url:
            print(f"the Prefect server does not answer at {server.url}; this flow brings its own")
        # That one lasts as long as the command. Without a log-in any page in a browser here could have it run code.
        os.environ[PREFECT_AUTH] = os.environ[PREFECT_SERVER_AUTH] = f"dadc:{secrets.token_urlsafe(24)}"
        os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = "https://no-page.invalid"
        os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "true"
    if "PREFECT_HOME" not in os.environ:  # profiles are a home's own
        os.environ.pop("PREFECT_PROFILE", None)
        os.environ.pop("PREFECT_PROFILES_PATH", None)
    home = Path(os.environ.setdefault("PREFECT_HOME", str(root / ".dadc" / "prefect")))
    home.mkdir(parents=True, exist_ok=True)


def _prefect_is_gone(error: BaseException) -> bool:
    """Whether a flow fell because its Prefect server does not answer: httpx's error, or one that it led to."""
    while not (type(error).__module__.startswith("httpx") and "prefect" in sys.modules):
        following = error.__cause__ or error.__context__
        if following is None:
            return False
        error = following
    return True
