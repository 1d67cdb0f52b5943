"""How the services do, asked over plain HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data.layout import Workspace
from flows.stack.processes import LOOPBACK, Leader
from tasks.workspace.services import (
    PREFECT_AUTH,
    VARIABLES,
    ServiceDown,
    StackError,
    configured_url,
    find_services,
    local_prefect_auth,
    read_secrets,
    read_stack,
)


@dataclass(frozen=True)
class Health:
    """How a service does. foreign: its port answers, but what answers is not what `dadc up` started."""

    state: Literal["up", "down", "foreign"]
    url: str | None


def health_of(root: Path, name: str) -> Health:
    """How one service of the workspace does, local or given by the environment."""
    url = configured_url(name)
    if url:
        well = not url.startswith("http") or not _unhealthy(name, url, local=False)
        return Health("up" if well else "down", url)
    record = read_stack(root)["services"].get(name)
    if not record:
        return Health("down", None)
    auth = local_prefect_auth(read_secrets(root))
    if _unhealthy(name, record["url"], local=True, auth=auth):
        return Health("down", record["url"])
    ours = (LOOPBACK, record["port"]) in Leader.of(record).listens()
    return Health("up" if ours else "foreign", record["url"])


def check_given(name: str) -> None:
    """ServiceDown if the environment gives this service and it does not answer, or refuses the token."""
    url = configured_url(name)
    if not url:
        return
    if not url.startswith(("http://", "https://")):
        if name == "mlflow":  # a store in a file needs no server
            return
        raise StackError(f"{VARIABLES[name]} must begin with http:// or https://, got {url}")
    reason = ""
    for wait in (0.0, 1.0, 2.0):
        time.sleep(wait)
        reason = _unhealthy(name, url, local=False)
        if not reason:
            return
    raise ServiceDown(name, url, reason)


def _unhealthy(name: str, url: str, *, local: bool, auth: str | None = None) -> str:
    """Why the service does not answer well; empty when it does. auth: the log-in of a local Prefect server."""
    if name == "prefect":
        return _get(url + "/health", local=local) or _prefect_refuses(
            url, auth if local else os.environ.get(PREFECT_AUTH), local=local
        )
    if name == "label_studio" and not local:
        return _refused(url, os.environ.get("LABEL_STUDIO_API_KEY"))
    return _get(url + "/health", local=local)


def _prefect_refuses(url: str, auth: str | None, *, local: bool) -> str:
    """Why the Prefect server does not let its clients in; empty when it does. Its /health answers everybody."""
    if not local and "PREFECT_API_KEY" in os.environ:  # Prefect Cloud's, which has another log-in
        return ""
    headers = {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth else {}
    reason = _get(url + "/admin/version", headers, local=local)
    if not reason.startswith(("HTTP 401", "HTTP 403")):
        return ""
    return reason.partition(",")[0] + (
        ", it was started with another log-in" if local else f", {PREFECT_AUTH} must be its log-in, USER:PASSWORD"
    )


def check_token(root: Path) -> None:
    """StackError if the local Label Studio does not take the token that was made for it."""
    services = find_services(root)
    assert services.label_studio_url is not None
    reason = _refused(services.label_studio_url, services.label_studio_token, local=True)
    if reason:
        folder = Workspace(root).local
        raise StackError(
            f"Label Studio does not take the token in {folder / 'secrets.json'} ({reason}): switch legacy tokens on in "
            f"its organization's settings, or remove {folder / 'label-studio'} to begin with an empty Label Studio"
        )


def _refused(url: str, token: str | None, *, local: bool = False) -> str:
    """Why Label Studio does not take the token; empty when it does."""
    if not token:
        return "LABEL_STUDIO_API_KEY is not set"
    if token.count(".") == 2:  # a personal access token, which is exchanged for a short-lived one
        body = json.dumps({"refresh": token}).encode()
        return _get(url + "/api/token/refresh", {"Content-Type": "application/json"}, body=body, local=local)
    return _get(url + "/api/current-user/whoami", {"Authorization": f"Token {token}"}, local=local)


def _get(url: str, headers: Mapping[str, str] | None = None, *, body: bytes | None = None, local: bool = True) -> str:
    """Ask; why the answer is not well, empty when it is. A local address is not asked through a proxy."""
    handlers = [urllib.request.ProxyHandler({})] if local else []
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}))  # noqa: S310
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=5):
            return ""
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code}" + (", the token is wrong" if error.code in (401, 403) else "")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
