"""Killed at every step of a round and simply started again, a round ends with what an unharmed one ends with.

The steps are found, not listed: an unharmed round is watched, and each file it opens for writing or renames, each
program it starts and each request that changes something in Label Studio or MLflow is a point at which the next ones
are killed (tests/crash/). Taken are those that would hurt most and an even choice of the others; `make crash` takes
every one, by DADC_CRASH=all.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from campaign_copies import COMMANDS, Ground, assert_same, outcome
from conftest import run

from data.layout import Workspace
from flows.stack.lifecycle import up
from tasks.workspace.rounds import State, state
from tasks.workspace.services import find_services, read_stack

pytestmark = pytest.mark.timeout(5400 if os.environ.get("DADC_CRASH") == "all" else 1800)  # the ground is made in it
CHAINS = {"open": (1, 5), "simulate": (1, 4), "close": (2, 13), "decide": (1, 3)}  # rounds, and kills in all of them
NAMED = {  # points that are always among them: before and after what would hurt most
    "open": (r"rename .*params\.yaml", r"tasks\.attack: rename data", "run git commit", "after POST .*/import"),
    "simulate": (r"write .*annotations\.jsonl", "before POST .*/annotations", "after POST .*/annotations"),
    "close": (
        *(r"rename .*candidates\.parquet", r"rename .*lineage\.json", "run python dvc add", "run python dvc repro"),
        *(rf"tasks\.{stage}: rename data" for stage in ("train", "rift", "evaluate")),
        *("after create_run", "after create_model_version", "before set_terminated"),
        *("run python dvc push", "run git commit", r"run git tag round-\d+$"),
    ),
    "decide": ("run git commit", "before set_registered_model_alias", "after set_registered_model_alias"),
}
BELOW = ("dvc: ", "tasks.")  # points of what `dadc` runs


def chosen(command: str, points: list[str]) -> list[str]:
    """The points at which to kill, in their order: the named ones, then an even choice of the others."""
    wanted = CHAINS[command][1]
    if os.environ.get("DADC_CRASH") == "all" or len(points) <= wanted:
        return points
    picked = {next(point for point in points if re.search(name, point)) for name in NAMED[command]}
    rest = [point for point in points if point not in picked]
    missing = max(0, wanted - len(picked))
    picked |= {rest[(2 * i + 1) * len(rest) // (2 * missing)] for i in range(missing)}
    return [point for point in points if point in picked]


def doomed(point: str, following: list[str]) -> str:
    """Who is killed there. What is left running ends its work, so it is left only where it reaches no later point."""
    below = [later for later in following if later.startswith(BELOW)]
    if not point.startswith(BELOW):
        return "self"
    if not below:
        return "dadc"  # DVC goes on
    if point.startswith("tasks.") and point.split(":")[0] != below[0].split(":")[0]:
        return "dvc"  # the stage goes on
    return "all" if len(below) % 2 else "self"


@pytest.mark.parametrize(
    ("command", "turn"), [(c, turn) for c, (chains, _) in CHAINS.items() for turn in range(chains)]
)
def test_killed_and_started_again(ground: Ground, command: str, turn: int) -> None:
    root = ground.copy({"close": "collected", "decide": "unharmed"}.get(command, "begin"), f"{command}-{turn}")
    if command == "simulate":
        assert ground.dadc(root, "open")[0] == 0
    points = chosen(command, ground.points[command])[turn :: CHAINS[command][0]]
    for number, point in enumerate(points):
        whom = doomed(point, points[number + 1 :])
        code, seen = ground.dadc(root, *COMMANDS[command], at=point, whom=whom)
        assert point in seen, f"{point} was not reached\n{ground.said(root)}"
        # `dadc` itself was killed, or it says that what it runs was.
        below = point.startswith(BELOW) and whom in ("self", "dvc")
        assert code == (1 if below else -signal.SIGKILL), f"{point}\n{ground.said(root)}"
        ground.killed.add((command, point))
    code, _ = ground.dadc(root, *COMMANDS[command])
    assert code == 0, f"after {points}:\n{ground.said(root)}"
    assert_same(outcome(ground, root), ground.unharmed[command], points)
    assert not list(root.glob("data/**/*.tmp"))


STRAY = {  # moments between all that a command makes, at which somebody commits whatever lies there
    "open": (r"rename .*params\.yaml", r"tasks\.attack: rename data", "before POST", r"rename .*opened\.json"),
    "close": (
        *(r"rename .*candidates\.parquet", "run python dvc add", r"tasks\.train: rename .*train\.json"),
        *(r"tasks\.rift: rename .*rift\.json", r"tasks\.evaluate: rename .*metrics\.json"),
        *("after create_run", "run python dvc push", r"rename .*closed\.json"),
    ),
}


@pytest.mark.parametrize("command", STRAY)
def test_a_stray_commit_at_every_step(ground: Ground, command: str) -> None:
    """`git add -A && git commit` of a half-done command decides nothing: the same command finishes it."""
    root = ground.copy("collected" if command == "close" else "begin", f"stray-{command}")
    for number, name in enumerate(STRAY[command]):
        run(root, "git", "add", "--all")
        run(root, "git", "commit", "--quiet", "--allow-empty", "--message", f"work in progress {number}")
        point = next(point for point in ground.points[command] if re.search(name, point))
        _, seen = ground.dadc(root, *COMMANDS[command], at=point, whom="all")
        assert point in seen, f"{point} was not reached\n{ground.said(root)}"
    run(root, "git", "add", "--all")
    run(root, "git", "commit", "--quiet", "--allow-empty", "--message", "work in progress")
    code, _ = ground.dadc(root, *COMMANDS[command])
    assert code == 0, ground.said(root)
    assert_same(outcome(ground, root), ground.unharmed[command], list(STRAY[command]))
    assert state(Workspace(root).round(1)) is (State.CLOSED if command == "close" else State.OPEN)


@pytest.mark.parametrize(
    ("service", "command", "point"),
    [
        ("label_studio", "simulate", "Label Studio: before POST /api/projects/N/import"),
        ("prefect", "open", "dadc: run python dvc repro"),
        ("mlflow", "close", "MLflow: before create_model_version"),
    ],
)
def test_a_server_killed_under_way(ground: Ground, service: str, command: str, point: str) -> None:
    (at,) = [p for p in ground.points[command] if p.startswith(point)][:1]
    root = ground.copy("collected" if command == "close" else "begin", f"without-{service}")
    if service == "mlflow":
        ground.environment["MLFLOW_TRACKING_URI"] = find_services(ground.stack).mlflow_url or ""
    try:
        if command == "simulate":
            assert ground.dadc(root, "open")[0] == 0
        server = str(read_stack(ground.stack)["services"][service]["pid"])
        code, seen = ground.dadc(root, command, at=at, whom=server)
        assert at in seen
        assert code == 1, ground.said(root)
        said = ground.said(root)
        assert "`dadc up`" in said
        assert "Traceback" not in said
        up(ground.stack)
        assert ground.dadc(root, command)[0] == 0, ground.said(root)
    finally:
        ground.environment.pop("MLFLOW_TRACKING_URI", None)
        up(ground.stack)
    found, wanted = outcome(ground, root), ground.unharmed[command]
    if service == "mlflow":
        found.pop("runs")
    assert_same(found, {name: content for name, content in wanted.items() if name in found}, [at])


FULL = """
mount -t tmpfs -o size=256m tmpfs "$1" && cp -a "$2/." "$1" && cd "$1" || exit 90
room=$(df --output=avail -k . | tail -1)
dd if=/dev/zero of=.dadc/ballast bs=1k count=$((room - 160)) 2>/dev/null || exit 91
"$3" -B -m flows.cli close; echo "exit $?"
rm .dadc/ballast
"$3" -B -m flows.cli close; echo "exit $?"
cp -a . "$2"
"""


def test_a_full_disk(ground: Ground, tmp_path: Path) -> None:
    """A file system with 160 KiB left, which root mounts, or who may be root in a namespace of their own."""
    root = ground.copy("collected", "full")
    folder = tmp_path / "small"
    folder.mkdir()
    environment = {**os.environ, **ground.environment, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/.dadc/mlflow.db"}
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", FULL, "sh", folder, root, sys.executable],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr:
        pytest.skip(f"no namespace may be made here, so no disk can be filled: {done.stderr.strip()}")
    first, second = done.stdout.split("exit 1\n")
    assert "No space left" in first + done.stderr, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert second.endswith("exit 0\n"), done.stdout + done.stderr
    assert_same(outcome(ground, root), ground.unharmed["close"], ["a full disk"])


def test_there_were_enough(ground: Ground) -> None:
    """The last test here."""
    assert len(ground.killed) >= 25
    for command, names in NAMED.items():
        for name in names:
            assert any(c == command and re.search(name, point) for c, point in ground.killed), f"{command}: {name}"
