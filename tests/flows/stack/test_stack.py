"""The real services: started together, mended, ended, and nothing else touched."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from flows.cli import make_private
from flows.stack import lifecycle as stacks
from flows.stack.access import login, missing
from flows.stack.lifecycle import ALL, down, health, up
from flows.stack.processes import Leader, end, free_port, is_free, start
from tasks.labelling.client import connect
from tasks.labelling.http import LabellingError
from tasks.workspace.services import ServiceDown, StackError, find_services, make_secrets, read_secrets, read_stack


def quiet(_: str) -> None:
    """Says nothing."""


@contextmanager
def answering() -> Iterator[int]:
    """Somebody else's server, which answers 200 to everything; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def write_stack(root: Path, content: dict[str, Any]) -> None:
    (root / ".dadc").mkdir(exist_ok=True)
    (root / ".dadc" / "stack.json").write_text(json.dumps(content))


def pids(root: Path) -> dict[str, int]:
    return {name: record["pid"] for name, record in read_stack(root)["services"].items()}


def test_all_are_up_and_listen_on_loopback_only(stack: Path) -> None:
    assert {name: how.state for name, how in health(stack).items()} == dict.fromkeys(ALL, "up")
    for record in read_stack(stack)["services"].values():
        listening = Leader.of(record).listens()
        assert ("127.0.0.1", record["port"]) in listening
        assert {address for address, _ in listening} == {"127.0.0.1"}
    assert missing(stack) == []


def test_secrets_are_the_owners_and_in_no_log_and_no_command_line(stack: Path) -> None:
    path = stack / ".dadc" / "secrets.json"
    assert path.stat().st_mode & 0o777 == 0o600
    kept = read_secrets(stack)
    hidden = [kept["label_studio"]["token"], kept["label_studio"]["password"], kept["model"]["password"]]
    hidden.append(kept["prefect"]["password"])
    lines = [" ".join(p.cmdline()) for pid in pids(stack).values() for p in Leader(pid, _began(pid)).group()]
    texts = lines + [log.read_text(errors="replace") for log in (stack / ".dadc" / "logs").iterdir()]
    texts.append(repr(find_services(stack)))
    assert not [secret for secret in hidden for text in texts if secret in text]
    assert kept["label_studio"]["password"] in login(stack), "the one who asks for the log-in gets it"
    assert kept["prefect"]["password"] in login(stack)


def test_the_token_opens_label_studio_and_a_wrong_one_does_not(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = find_services(stack)
    address = f"{services.label_studio_url}/api/current-user/whoami"

    def ask(token: str | None) -> int:
        request = urllib.request.Request(address, headers={"Authorization": f"Token {token}"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert ask(services.label_studio_token) == 200
    assert ask("0" * 40) == 401
    assert "." not in connect(services).projects(""), "Label Studio made no project of its own"
    monkeypatch.setenv("LABEL_STUDIO_URL", services.label_studio_url or "")
    assert find_services(stack).label_studio_token is None, "a local token goes to no server that the environment names"
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    with pytest.raises(ServiceDown, match="the token is wrong") as caught:
        up(stack, only=["label_studio"], say=quiet)
    assert "\n" not in str(caught.value)


def test_what_the_token_opens_is_nobodys_account(stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio sends it to whatever model server an account attaches."""
    services, studio = find_services(stack), connect(find_services(stack))
    others = replace(services, label_studio_token="0" * 40)
    elsewhere, name = find_services(tmp_path), "a@simulated.invalid"
    assert services.password_for(name) == others.password_for("A@simulated.invalid"), "whatever the token"
    assert services.key("players") == others.key("players")
    found = {services.password_for(name), services.password_for("b@simulated.invalid"), elsewhere.password_for(name)}
    assert len(found) == 3, "each account and each workspace has its own"
    studio.person(name, services.password_for(name)).close()
    from_token = hmac.new((services.label_studio_token or "").encode(), name.encode(), hashlib.sha256).hexdigest()[:32]
    with pytest.raises(LabellingError, match="another password"):
        studio.person(name, from_token)
    path = tmp_path / ".dadc" / "secrets.json"
    assert (path.stat().st_mode & 0o777, list(read_secrets(tmp_path))) == (0o600, ["accounts"])
    made = find_services(stack).key("x")
    monkeypatch.setenv("DADC_SECRET", "ours, on every machine of the team")
    assert find_services(stack).key("x") == find_services(tmp_path).key("x") != made
    monkeypatch.setenv("DADC_SECRET", "short")
    with pytest.raises(StackError, match="DADC_SECRET must have 32 characters or more, got 5"):
        find_services(stack).key("x")


def test_processes_that_need_the_secret_at_once_make_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: find_services(tmp_path).key("x"), range(32)))) == 1
    kept = read_secrets(tmp_path)["accounts"]
    assert make_secrets(tmp_path, {"model": {"user": "x"}, "accounts": {"secret": "y"}})["accounts"] == kept
    assert list(read_secrets(tmp_path)) == ["model", "accounts"], "what is there stays"


def test_a_second_up_changes_nothing(stack: Path) -> None:
    before = (stack / ".dadc" / "stack.json").read_bytes()
    began = time.monotonic()
    up(stack, say=quiet)
    assert time.monotonic() - began < 20
    assert (stack / ".dadc" / "stack.json").read_bytes() == before


def test_only_what_is_dead_is_started_again_on_its_port(stack: Path) -> None:
    before, record = pids(stack), read_stack(stack)["services"]["model"]
    os.killpg(before["model"], signal.SIGKILL)
    psutil.wait_procs([psutil.Process(before["model"])], timeout=10)
    assert health(stack)["model"].state == "down"
    up(stack, say=quiet)
    after = pids(stack)
    assert health(stack)["model"].state == "up"
    assert read_stack(stack)["services"]["model"]["port"] == record["port"]
    assert after.pop("model") != before.pop("model")
    assert after == before


def test_an_up_that_was_killed_is_mended_by_the_next(make_workspace: Callable[..., Path]) -> None:
    root = make_workspace()
    said: list[str] = []
    code = "from pathlib import Path; from flows.stack.lifecycle import up; up(Path.cwd(), only=['model'])"
    try:
        with answering() as taken:
            write_stack(root, {"services": {}, "ports": {"model": taken}})
            first = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.DEVNULL)
            deadline = time.monotonic() + 60
            while "model" not in pids(root) and time.monotonic() < deadline:
                time.sleep(0.05)
        first.kill()
        first.wait()
        record = read_stack(root)["services"]["model"]
        assert record["port"] != taken, "the last port is used again, unless somebody has it"
        up(root, only=["model"], say=quiet)
        assert read_stack(root)["services"]["model"] == record
        assert health(root)["model"].state == "up"
        leader = Leader.of(record)
        assert replace(leader, started=leader.started - 3600).alive, "the clock was set"
        assert replace(leader, started=leader.started - 3600).group()
        for other in (replace(leader, boot="another"), replace(leader, tick=leader.tick + 1)):
            assert not other.alive
            assert not other.group()
        with pytest.raises(StackError, match="is up on port .* `dadc down` first"):
            up(root, {"model": 1}, only=["model"], say=quiet)
    finally:
        down(root, say=quiet)
    assert not Leader.of(record).group()
    assert is_free(record["port"])
    assert read_stack(root) == {"services": {}, "ports": {"model": record["port"]}}
    down(root, say=said.append)
    assert said == ["no service is up"]


def test_a_named_port_that_somebody_has(tmp_path: Path) -> None:
    with answering() as port, pytest.raises(StackError) as caught:
        up(tmp_path, {"prefect": port}, only=["prefect", "mlflow"], say=quiet)
    assert str(caught.value) == f"port {port}, named for the Prefect server, is taken; name another, or none"
    assert pids(tmp_path) == {}
    assert not (tmp_path / ".dadc" / "logs").exists(), "nothing was started"


def test_a_port_that_is_taken_meanwhile_is_exchanged(
    make_workspace: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where two stacks that start at once are given the same free port."""
    root, said = make_workspace(), list[str]()
    with answering() as port:
        chosen = iter([port])
        monkeypatch.setattr(stacks, "free_port", lambda taken: next(chosen, None) or free_port(taken))
        try:
            found = up(root, only=["model"], say=said.append)
            assert f"the model server's port {port} was taken meanwhile; starting once more" in said
            assert found.model_url not in (None, f"http://127.0.0.1:{port}")
            assert health(root)["model"].state == "up"
        finally:
            down(root, say=quiet)
        monkeypatch.setattr(stacks, "free_port", lambda taken: port)
        monkeypatch.setattr(stacks, "TRIES", 1)
        (root / ".dadc" / "stack.json").unlink()
        with pytest.raises(StackError, match=r"ended while it started(.|\n)*its port is taken by another program"):
            up(root, only=["model"], say=quiet)
    assert pids(root) == {}


def test_a_service_that_dies_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"the model server ended while it started(.|\n)*No module named"):
        up(tmp_path, only=["model"], say=quiet)
    assert pids(tmp_path) == {}


def test_a_missing_label_studio_names_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DADC_LABEL_STUDIO", str(tmp_path / "nothing"))
    with pytest.raises(StackError, match="DADC_LABEL_STUDIO must be Label Studio's program"):
        up(tmp_path, only=["label_studio"], say=quiet)
    monkeypatch.delenv("DADC_LABEL_STUDIO")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    half = tmp_path / "venv-label-studio" / "bin"
    half.mkdir(parents=True)
    (half / "label-studio").write_text("#!/bin/sh\n")
    (half / "label-studio").chmod(0o755)
    with pytest.raises(StackError, match="missing or half-made; run `make setup`"):
        up(tmp_path, only=["label_studio"], say=quiet)
    assert "make setup" in missing(tmp_path)[0]
    assert pids(tmp_path) == {}


def test_a_given_service_is_used_and_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering() as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}/")
        assert up(tmp_path, only=["mlflow"], say=quiet).mlflow_url == f"http://127.0.0.1:{port}"
        with pytest.raises(StackError, match="MLFLOW_TRACKING_URI gives the MLflow server"):
            up(tmp_path, {"mlflow": 5000}, only=["mlflow"], say=quiet)
    with pytest.raises(ServiceDown, match="the MLflow server does not answer at") as caught:
        up(tmp_path, only=["mlflow"], say=quiet)
    assert "unset MLFLOW_TRACKING_URI and run `dadc up`" in str(caught.value)
    assert pids(tmp_path) == {}


def test_what_answers_on_our_port_and_is_not_ours(tmp_path: Path) -> None:
    with answering() as port:
        record = {"url": f"http://127.0.0.1:{port}", "pid": 2**22 + 1, "started": 1.0, "port": port, "log": "x"}
        write_stack(tmp_path, {"services": {"mlflow": record}, "ports": {}})
        assert health(tmp_path)["mlflow"].state == "foreign"


def test_down_leaves_a_reused_pid_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        record = {"url": "http://127.0.0.1:1", "pid": other.pid, "started": 1.0, "port": 1, "log": "x"}
        write_stack(tmp_path, {"services": {"mlflow": record}, "ports": {}})
        down(tmp_path, say=quiet)
        assert other.poll() is None
        assert pids(tmp_path) == {}
    finally:
        other.kill()
        other.wait()


def test_a_group_is_ended_whole_though_it_ignores_term_and_its_leader_is_gone(tmp_path: Path) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "child = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True);"
        " time.sleep(99)'\n"
        "subprocess.Popen([sys.executable, '-c', child])\n"
    )
    log = tmp_path / "log"
    leader = start([sys.executable, "-c", code], folder=tmp_path, environment=dict(os.environ), log=log)
    deadline = time.monotonic() + 20
    while (leader.alive or "1" not in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    members = leader.group()
    assert len(members) == 1
    end([leader], patience=0.5)
    assert not members[0].is_running() or members[0].status() == psutil.STATUS_ZOMBIE
    assert leader.group() == []


def test_a_broken_stack_file_is_one_clear_line(tmp_path: Path) -> None:
    write_stack(tmp_path, {})
    (tmp_path / ".dadc" / "stack.json").write_text("{")
    with pytest.raises(StackError, match="stack.json must be JSON"):
        find_services(tmp_path)


def test_ports_can_be_told_free_from_taken() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def _began(pid: int) -> float:
    return float(psutil.Process(pid).create_time())


def test_what_a_workspace_keeps_is_its_owners_alone(tmp_path: Path) -> None:
    """Logs, databases and secrets, those of a workspace that an earlier version made too."""
    local = tmp_path / ".dadc"
    make_private(tmp_path)
    assert local.stat().st_mode & 0o777 == 0o700
    local.chmod(0o755)
    make_private(tmp_path)
    assert local.stat().st_mode & 0o777 == 0o700
