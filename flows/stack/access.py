"""What a person needs of the services: their addresses and log-ins, and what is still missing."""

from __future__ import annotations

from pathlib import Path

from flows.stack.lifecycle import health
from flows.stack.programs import _check_label_studio
from tasks.workspace.services import (
    NAMES,
    StackError,
    configured_url,
    find_services,
    read_secrets,
)


def missing(root: Path) -> list[str]:
    """What a campaign still needs of its services, a line each; empty when all is there."""
    lines = []
    if not configured_url("label_studio"):
        try:
            _check_label_studio()
        except StackError as error:
            lines.append(str(error))
    lacking = [NAMES[name] for name, how in health(root).items() if how.state != "up"]
    if lacking:
        lines.append(f"{', '.join(lacking)}: not up, `dadc up` starts what is local")
    return lines


def login(root: Path) -> str:
    """Where the services are and how to log in. Holds a password: for the terminal of the one who asked."""
    services, account = find_services(root), read_secrets(root).get("label_studio", {})
    interface = (services.prefect_url or "").removesuffix("/api") or None
    rows = [
        ("Label Studio", services.label_studio_url),
        ("MLflow", services.mlflow_url),
        ("Prefect", interface),
        ("model server", services.model_url),
    ]
    logins = {}
    if account and not configured_url("label_studio"):
        logins["Label Studio"] = f"log in as {account['username']}, password {account['password']}"
    if services.prefect_auth and not configured_url("prefect"):
        logins["Prefect"] = f"its page asks for {services.prefect_auth}"
    lines = []
    for title, url in rows:
        if url:
            lines.append(f"{title:<14}{url}")
            lines += [f"{'':<14}{logins[title]}"] if title in logins else []
    return "\n".join(lines)
