"""Runs `dadc` often: imports what it needs once, and forks for each run. A line of JSON in, its exit status out.

{"root", "arguments", "environment", "log"} → a number as subprocess has it, below zero for a signal.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

ASKED = ("POST", "PATCH", "PUT", "DELETE")
LOGGED = (
    *("create_experiment", "create_run", "log_batch", "log_artifact", "create_logged_model", "log_model_artifact"),
    *("finalize_logged_model", "log_outputs", "create_registered_model", "create_model_version", "set_terminated"),
    "set_registered_model_alias",
)


def load() -> None:
    """Import all that a command imports."""
    from importlib import import_module

    for name in ("label_studio_sdk.base_client", "mlflow", "torch", "flows.run", "flows.cli", "tasks.labelling.client"):
        import_module(name)
    for name in ("publish", "pull", "simulation.people", "track"):
        import_module(f"tasks.{name}")


def run(asked: dict[str, Any]) -> None:
    """In the child: become `dadc` in that workspace."""
    os.setsid()
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.chdir(asked["root"])
    os.environ.update(asked["environment"], CRASH_TOP=str(os.getpid()), CRASH_ROOT=asked["root"])
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    import httpx
    import sitecustomize
    from mlflow import MlflowClient

    def request(_: Any, asked: httpx.Request, **__: Any) -> str:
        if asked.method not in ASKED or not str(asked.url).startswith(os.environ["LABEL_STUDIO_URL"]):
            return ""
        if asked.url.path == "/user/signup/":  # an account outlives the campaign that it was made for
            return ""
        path = "/".join("N" if part.isdigit() else part for part in asked.url.path.split("/"))
        body = asked.read()
        many = f" of {len(json.loads(body))}" if body[:1] == b"[" else ""
        return f"{asked.method} {path}{many}"

    sitecustomize.around(httpx.Client, "send", "Label Studio", request)
    for name in LOGGED:
        sitecustomize.around(MlflowClient, name, "MLflow", lambda *_, _name=name, **__: _name)
    sitecustomize.install("dadc")
    from flows.cli import app

    sys.argv = ["dadc", *asked["arguments"]]
    app()


def main() -> None:
    """Until standard input ends."""
    load()
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 0
            try:
                run(json.loads(line))
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            except BaseException:
                traceback.print_exc()
                code = 70
            sys.stdout.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)


if __name__ == "__main__":
    main()
