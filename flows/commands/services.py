"""The commands about the local services."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.shell import STACK, command, root


@command(STACK)
def up(
    label_studio_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
    prefect_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
    mlflow_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
    model_port: Annotated[int | None, typer.Option(help="[a free one]")] = None,
) -> None:
    """Start Label Studio, Prefect, MLflow and the model server on 127.0.0.1, and wait until they answer."""
    at = root()
    from flows.stack.access import login
    from flows.stack.lifecycle import up as start

    asked = {"label_studio": label_studio_port, "prefect": prefect_port, "mlflow": mlflow_port, "model": model_port}
    start(at, {name: port for name, port in asked.items() if port is not None})
    print(login(at))


@command(STACK)
def down() -> None:
    """Stop what `dadc up` started, and nothing else."""
    at = root()
    from flows.stack.lifecycle import down as stop

    stop(at)


@command(STACK)
def serve(port: Annotated[int, typer.Option(help="on 127.0.0.1")]) -> None:
    """Serve the target's answer to an image; `dadc up` does it for you."""
    from tasks.serving.model_server import serve as run_server

    run_server(root(), port)
