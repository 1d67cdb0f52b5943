"""The commands that set a campaign up: its data and its services."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.shell import SETUP, command, resolve_cli_path, root

Port = Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535, help="[a free one]")]


@command(SETUP, "dadc init", "dadc init --dry-run", "dadc init --remote s3://bucket/digits")
def init(
    remote: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="DVC remote: a folder, or an address such as s3://… [.dadc/remote]"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="refuse what would be warned of")] = False,
    again: Annotated[bool, typer.Option("--again", help="freeze anew, while there is no round")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="read and check, write a contact sheet, freeze nothing")
    ] = False,
) -> None:
    """Check the workspace, freeze the data set and its splits under DVC, commit."""
    from data.layout import Workspace
    from tasks.config.params import read
    from tasks.prepare import How
    from tasks.prepare import init as freeze
    from tasks.workspace.git import check_branch, check_committed
    from tasks.workspace.lock import lock

    if remote and ":" not in remote:  # a folder
        remote = str(resolve_cli_path(Path(remote)))
    workspace = Workspace(root())
    params = read(workspace.params)
    check_branch(workspace)
    check_committed(workspace)
    with lock(workspace):
        freeze(workspace, params, remote, print, How(strict, again, dry_run))
    if dry_run:
        return
    from flows.stack.access import missing

    print(f"campaign {params.campaign} is ready in {workspace.root}")
    for line in missing(workspace.root):
        print(f"still missing: {line}")


@command(SETUP, "dadc up")
def up(
    label_studio_port: Port = None, prefect_port: Port = None, mlflow_port: Port = None, model_port: Port = None
) -> None:
    """Start Label Studio, Prefect, MLflow and the model server on 127.0.0.1, and print their addresses."""
    at = root()
    from data.layout import Workspace
    from flows.stack.access import login
    from flows.stack.lifecycle import up as start
    from tasks.workspace.checkout import check_place

    check_place(Workspace(at))
    asked = {"label_studio": label_studio_port, "prefect": prefect_port, "mlflow": mlflow_port, "model": model_port}
    start(at, {name: port for name, port in asked.items() if port is not None})
    print(login(at))


@command(SETUP, "dadc down")
def down() -> None:
    """Stop what `dadc up` started, and nothing else."""
    at = root()
    from flows.stack.lifecycle import down as stop

    stop(at)


@command(SETUP, "dadc serve --port 9090")
def serve(port: Annotated[int, typer.Option(metavar="PORT", min=1, max=65535, help="on 127.0.0.1")]) -> None:
    """Serve the target's answers to images; `dadc up` does it for you."""
    from tasks.serving.model_server import serve as run_server

    run_server(root(), port)
