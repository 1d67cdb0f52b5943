"""The Prefect server: its own page and who logs in may use it, nobody else."""

from __future__ import annotations

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import run

from flows.commands.shell import QUIET
from flows.commands.shell import prefect as point_at_prefect
from flows.stack import programs
from flows.stack.lifecycle import up
from tasks.workspace.services import ServiceDown, StackError, find_services


def quiet(_: str) -> None:
    """Says nothing."""


def ask_prefect(
    url: str, auth: str | None = None, *, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of Prefect's answer; `_` in a header's name stands for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if auth:
        sent["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    request = urllib.request.Request(url, headers=sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()


def test_prefect_answers_its_own_page_and_who_logs_in(stack: Path) -> None:
    """Whoever may use its API can have it run code, and any page in a browser on this machine can reach it."""
    services = find_services(stack)
    api = str(services.prefect_url)
    origin = api.removesuffix("/api")
    assert ask_prefect(f"{api}/health")[0] == 200
    assert ask_prefect(f"{api}/admin/settings")[0] == 401
    assert ask_prefect(f"{api}/admin/settings", "dadc:wrong")[0] == 401
    assert ask_prefect(f"{api}/admin/settings", services.prefect_auth)[0] == 200
    page = json.loads(ask_prefect(f"{origin}/ui-settings")[2])
    assert (page["api_url"], page["auth"]) == (api, "BASIC")
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
    for other in ("https://example.org", "http://127.0.0.1:1", "null"):
        status, headers, _ = ask_prefect(f"{api}/flow_runs/filter", method="OPTIONS", Origin=other, **asked)
        assert (status, headers.get("access-control-allow-origin")) == (400, None), other
        _, headers, _ = ask_prefect(f"{api}/admin/settings", services.prefect_auth, Origin=other)
        assert "access-control-allow-origin" not in headers, other
    status, headers, _ = ask_prefect(f"{api}/flow_runs/filter", method="OPTIONS", Origin=origin, **asked)
    assert (status, headers["access-control-allow-origin"]) == (200, origin)


def test_a_prefect_log_in_of_ones_own(stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(find_services(stack).prefect_url))
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "dadc:wrong")
    with pytest.raises(ServiceDown, match="HTTP 401, PREFECT_API_AUTH_STRING must be its log-in, USER:PASSWORD"):
        up(stack, only=["prefect"], say=quiet)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", str(find_services(stack).prefect_auth or ""))
    monkeypatch.delenv("PREFECT_API_URL")
    programs._make_secrets(tmp_path)
    made = find_services(tmp_path).prefect_auth
    assert programs._command(tmp_path, "prefect", 1)[1]["PREFECT_SERVER_API_AUTH_STRING"] == made
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "team:a:b")
    assert programs._command(tmp_path, "prefect", 1)[1]["PREFECT_SERVER_API_AUTH_STRING"] == "team:a:b"
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "no colon")
    with pytest.raises(StackError, match="PREFECT_SERVER_API_AUTH_STRING must be USER:PASSWORD"):
        programs._command(tmp_path, "prefect", 1)
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING")
    assert find_services(tmp_path).prefect_auth == "team:a:b", "a shell without the variable finds it too"


def test_a_flow_without_a_server_brings_one_that_wants_a_log_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"):
        monkeypatch.setenv(name, "somebody's")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    point_at_prefect(tmp_path)
    said = run(tmp_path, sys.executable, "-c", OWN_SERVER).stdout.split()
    assert said == ["200", "401", "400"], "with the log-in; without; another page's origin"


OWN_SERVER = """
import asyncio
import httpx
from prefect import get_client

async def main():
    async with get_client() as client:
        print((await client._client.get("/admin/version")).status_code)
        url = f"{client.api_url}".rstrip("/")
        origin = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        print(httpx.get(f"{url}/admin/version", trust_env=False).status_code)
        print(httpx.options(f"{url}/flow_runs/filter", headers=origin, trust_env=False).status_code)

asyncio.run(main())
"""


def test_prefect_forgets_runs(stack: Path) -> None:
    services = find_services(stack)
    answer = ask_prefect(f"{services.prefect_url}/admin/settings", services.prefect_auth)[2]
    kept = json.loads(answer)["server"]["services"]["db_vacuum"]
    assert "flow_runs" in kept["enabled"], "a watch a minute would fill the disk in a year"
    assert kept["retention_period"] == "P30D"


def test_a_command_sends_the_local_servers_log_in_whatever_the_shell_holds(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "another:server's")
    services = find_services(stack)
    point_at_prefect(stack)
    assert os.environ["PREFECT_API_URL"] == services.prefect_url
    assert os.environ["PREFECT_API_AUTH_STRING"] == services.prefect_auth
