"""Rounds that run by themselves: a real Prefect server, its automations, real Label Studio, nobody at a shell."""

from __future__ import annotations

import base64
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import dadc, run
from open_round import model_server

from data.layout import Workspace
from tasks.workspace.git import git
from tasks.workspace.lock import busy
from tasks.workspace.rounds import State, state

HOUR = 3600


def ask(path: str, body: dict[str, Any] | None = None) -> Any:
    """Prefect's own API."""
    auth = base64.b64encode(os.environ["PREFECT_API_AUTH_STRING"].encode()).decode()
    request = urllib.request.Request(
        os.environ["PREFECT_API_URL"] + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Basic {auth}"},
    )
    return json.load(urllib.request.urlopen(request, timeout=30))


def completed(campaign: str) -> set[str]:
    """The names of its runs that came to their end."""
    runs = ask("/flow_runs/filter", {"flow_runs": {"name": {"like_": campaign}}, "limit": 200})
    return {run["name"] for run in runs if run["state"]["type"] == "COMPLETED"}


def events_of(campaign: str) -> set[str]:
    asked = {"filter": {"resource": {"id": [f"dadc.campaign.{campaign}"]}}, "limit": 50}
    return {event["event"] for event in ask("/events/filter", asked)["events"]}


def until(
    true: Callable[[], object], seconds: float, what: str, process: subprocess.Popen[bytes] | None = None
) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        assert process is None or process.poll() is None, f"{what}: the schedule has ended"
        time.sleep(0.5)


@contextmanager
def scheduled(root: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "flows.cli", "schedule", *arguments]
    with (root / "schedule.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=root, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.timeout(900)
def test_a_campaign_runs_by_itself_to_its_end(
    services: Path, make_workspace: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"alone-{uuid.uuid4().hex[:6]}"
    root = make_workspace(campaign=name, collect={"threshold": 1, "every": 3600}, schedule={"rounds": 1})
    dadc(root, "init")
    workspace = Workspace(root)
    with model_server(root) as served:
        monkeypatch.setenv("DADC_MODEL_URL", str(served.model_url))
        monkeypatch.setenv("DADC_MODEL_USER", str(served.model_user))
        monkeypatch.setenv("DADC_MODEL_PASSWORD", str(served.model_password))
        with scheduled(root, "--every", "20") as first:
            until(lambda: state(workspace.round(0)) is State.CLOSED, 300, "round 000 closes", first)
            kill(first)  # in the middle of whatever comes next
        with scheduled(root) as process:  # an hour between two looks: from here on only events and hints work
            until(lambda: state(workspace.round(1)) is State.OPEN, 300, "round 001 opens", process)
            until(lambda: f"{name} 001 open next" in completed(name), 120, "the run that opened it ends", process)
            sound = workspace.params.read_text()
            workspace.params.write_text("seed: : 0")  # somebody is typing, and no run is under way
            log = root / "schedule.log"
            until(lambda: "not sound YAML" in log.read_text(), 60, "it is said", process)
            workspace.params.write_text(sound)
            dadc(root, "simulate")
            assert process.wait(300) == 0
    assert state(workspace.round(1)) is State.CLOSED
    assert git(workspace, "status", "--porcelain", "--untracked-files=no") == ""
    said = (root / "schedule.log").read_text()
    assert "ended: round 001 is closed, and schedule.rounds is 1" in said
    assert said.count("; looking again") == 1, "once"

    assert {f"{name} 000 close", f"{name} 001 open next", f"{name} 001 close ready"} <= completed(name)
    runs = ask("/flow_runs/filter", {"flow_runs": {"name": {"like_": name}}, "limit": 200})
    closings = [r for r in runs if r["name"] == f"{name} 001 close" and r["state"]["type"] == "COMPLETED"]
    assert len(closings) == 1, "a round is closed once"
    logs = ask("/logs/filter", {"logs": {"flow_run_id": {"any_": [closings[0]["id"]]}}, "limit": 200})
    assert any("epoch 1/2" in line["message"] for line in logs), "what a stage prints is there, line by line"
    wanted = {"dadc.round.wanted", "dadc.round.ready", "dadc.campaign.ended"}
    until(lambda: wanted <= events_of(name), 30, "Prefect writes events down, in batches")
    automations = {one["name"] for one in ask("/automations/filter", {"limit": 200})}
    assert {f"{name}: dadc.round.wanted", f"{name}: dadc.round.ready"} <= automations
    (artifact,) = ask("/artifacts/latest/filter", {"artifacts": {"key": {"any_": [f"dadc-{name}"]}}})
    assert "| 001 | closed |" in artifact["data"]
    assert os.environ["MLFLOW_TRACKING_URI"] in artifact["data"]
    deployments = ask("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    assert len(deployments) == 3
    assert all(one["paused"] for one in deployments), "nothing is scheduled any more"


HOLD = """
import sys
from pathlib import Path
from data.layout import Workspace
from tasks.workspace.lock import lock

with lock(Workspace(Path.cwd())):
    print("held", flush=True)
    sys.stdin.read()
"""
WATCH = """
from pathlib import Path
from flows.schedule.watch import watch

print(watch(Path.cwd(), return_state=True).name)
"""


def test_a_watch_that_finds_another_command_at_work_leaves_a_hint(
    services: Path, make_workspace: Callable[..., Path]
) -> None:
    root = make_workspace(campaign=f"busy-{uuid.uuid4().hex[:6]}")
    dadc(root, "init")
    workspace = Workspace(root)
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert busy(workspace)
        assert not workspace.hint.exists()
        assert "Busy" in run(root, sys.executable, "-c", WATCH).stdout
        assert workspace.hint.exists(), "the schedule comes again"
        other.communicate()
    assert not busy(workspace)


class Receiver(http.server.BaseHTTPRequestHandler):
    """Where notifications go: what a team's chat would be."""

    got: list[str]

    def do_POST(self) -> None:
        self.got.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


SAVE = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock

json_data = {"text": "{{subject}}: {{body}}"}
CustomWebhookNotificationBlock(name="team", url=sys.argv[1], json_data=json_data).save(sys.argv[2])
"""
CALL = """
import sys
from pathlib import Path
from prefect import flow
from flows.campaign import load
from flows.schedule.alerts import Alert, notify

@flow
def twice(root: Path) -> None:
    here = load(root)
    for _ in range(2):
        notify(here, Alert("refused", here.workspace.round(3), "its challenger was refused"))

twice(Path.cwd())
"""


def test_a_person_is_told_once_through_a_notification_block(
    services: Path, make_workspace: Callable[..., Path], tmp_path: Path
) -> None:
    """Prefect's own block, saved on the server as an engineer would in its UI."""
    got: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Receiver,), {"got": got}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    block = f"team-{uuid.uuid4().hex[:6]}"
    name = f"called-{uuid.uuid4().hex[:6]}"
    try:
        root = make_workspace(campaign=name, schedule={"notify": f"custom-webhook/{block}"})
        dadc(root, "init")
        refused = dadc(root, "schedule", check=False)
        assert (
            f"schedule.notify: expected a notification block of Prefect's, got 'custom-webhook/{block}'"
            in refused.stderr
        )
        assert "could not be sent" in run(root, sys.executable, "-c", CALL).stdout
        run(root, sys.executable, "-c", SAVE, f"http://127.0.0.1:{server.server_port}/", block)
        run(root, sys.executable, "-c", CALL)
        run(root, sys.executable, "-c", CALL)
    finally:
        server.shutdown()
        thread.join(10)
    assert [json.loads(body) for body in got] == [
        {"text": f"dadc: {name} needs a person: campaign {name}, round 003: its challenger was refused"}
    ]


def test_a_worker_of_a_pool_runs_what_prefect_yaml_deploys(
    services: Path, make_workspace: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"pooled-{uuid.uuid4().hex[:6]}"
    root = make_workspace(campaign=name)
    dadc(root, "init")
    monkeypatch.setenv("DADC_WORKSPACE", str(root))
    monkeypatch.setenv("DADC_CAMPAIGN", name)
    run(root, "prefect", "--no-prompt", "work-pool", "create", "--type", "process", name)
    monkeypatch.setenv("PREFECT_DEFAULT_WORK_POOL_NAME", name)
    run(root, "prefect", "--no-prompt", "deploy", "--prefect-file", "flows/schedule/prefect.yaml", "--all")
    deployed = ask("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
    assert [one["work_pool_name"] for one in deployed] == [name] * 3
    (ready,) = [one for one in ask("/automations/filter", {"limit": 200}) if one["name"] == f"{name}: dadc.round.ready"]
    (action,) = ready["actions"]
    assert action["parameters"] == {"root": str(root), "number": "{{ event.payload.round }}"}
    run(root, "prefect", "deployment", "run", f"watch/{name}")
    run(root, "prefect", "worker", "start", "--pool", name, "--run-once", "--limit", "1")
    runs = ask("/flow_runs/filter", {"flow_runs": {"name": {"like_": name}}, "limit": 50})
    assert f"{name} 000 watch" in {one["name"] for one in runs if one["state"]["type"] == "COMPLETED"}
