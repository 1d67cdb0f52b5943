"""Where a campaign's servers are: from the environment, else from what `dadc up` wrote down."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.layout import Workspace

NAMES = {
    "label_studio": "Label Studio",
    "prefect": "the Prefect server",
    "mlflow": "the MLflow server",
    "model": "the model server",
}
VARIABLES = {
    "label_studio": "LABEL_STUDIO_URL",
    "prefect": "PREFECT_API_URL",
    "mlflow": "MLFLOW_TRACKING_URI",
    "model": "DADC_MODEL_URL",
}


class StackError(RuntimeError):
    """The local services are not as a command needs them; the message says what to do."""


class ServiceDown(StackError):
    """A server does not answer; the message names it, its address and the command that starts it."""

    def __init__(self, service: str, address: str | None = None, reason: str = "") -> None:
        """service: a key of NAMES; address: as `find` gave it; reason: what it said, if anything."""
        where = f" at {address}" if address else ", no address is known"
        why = f" ({reason})" if reason else ""
        cure = (
            f"look after it, or unset {VARIABLES[service]} and run `dadc up`"
            if os.environ.get(VARIABLES[service])
            else "run `dadc up`"
        )
        super().__init__(f"{NAMES[service]} was wanted and does not answer{where}{why}; {cure}")
        self.service = service


@dataclass(frozen=True, repr=False)
class Services:
    """Addresses and log-ins; None where there is none. No service is asked whether it is up."""

    label_studio_url: str | None
    label_studio_token: str | None
    prefect_url: str | None  # of its API: http://127.0.0.1:PORT/api
    mlflow_url: str | None
    model_url: str | None
    model_user: str | None
    model_password: str | None
    moved: Path | None = None  # the file that says which ids of Label Studio are which in the record

    def __repr__(self) -> str:
        """Addresses only: a log or a traceback must not hold a secret."""
        urls = ("label_studio_url", "prefect_url", "mlflow_url", "model_url")
        return f"Services({', '.join(f'{name}={getattr(self, name)!r}' for name in urls)})"


def find(root: Path) -> Services:
    """The services of the workspace at `root`. The environment wins; the log-in of a local one goes to no other."""
    known = read_stack(root)["services"]
    secrets = read_secrets(root)

    def url(service: str) -> str | None:
        return given(service) or known.get(service, {}).get("url")

    def secret(service: str, key: str, variable: str) -> str | None:
        own: str | None = None if given(service) else secrets.get(service, {}).get(key)
        return os.environ.get(variable) or own

    return Services(
        label_studio_url=url("label_studio"),
        label_studio_token=secret("label_studio", "token", "LABEL_STUDIO_API_KEY"),
        prefect_url=url("prefect"),
        mlflow_url=url("mlflow"),
        model_url=url("model"),
        model_user=secret("model", "user", "DADC_MODEL_USER"),
        model_password=secret("model", "password", "DADC_MODEL_PASSWORD"),
        moved=Workspace(root).local / "moved.json",
    )


def given(service: str) -> str | None:
    """The address that the environment gives for a service, without a slash at its end."""
    return os.environ.get(VARIABLES[service], "").strip().rstrip("/") or None


def read_stack(root: Path) -> dict[str, Any]:
    """.dadc/stack.json: {"services": {name: {"url", "pid", "started", "port", "log"}}, "ports": {name: port}}."""
    return {"services": {}, "ports": {}} | _read(Workspace(root).local / "stack.json")


def read_secrets(root: Path) -> dict[str, dict[str, str]]:
    """.dadc/secrets.json: {"label_studio": {"username", "password", "token"}, "model": {"user", "password"}}."""
    return _read(Workspace(root).local / "secrets.json")


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StackError(f"{path} must be JSON and is not: {error}; remove it and run `dadc up`") from error
    if not isinstance(content, dict):
        raise StackError(f"{path} must hold a JSON object, got {type(content).__name__}; remove it and run `dadc up`")
    return content
