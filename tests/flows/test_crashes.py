"""Killed at every step of a round and simply started again, a round ends with what an unharmed one ends with.

The steps are found, not listed: an unharmed round is watched, and each file it opens for writing or renames, each
program it starts and each request that changes something in Label Studio or MLflow is a point at which the next ones
are killed (tests/crash/). DADC_CRASH=all takes every point; without, an even choice with some of every kind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run
from ground import Ground, assert_same, outcome

from flows.stack import up
from tasks.services import find, read_stack

pytestmark = pytest.mark.timeout(1800)  # the ground is made within the first test
CHAINS = {"open": (2, 8), "simulate": (2, 8), "close": (3, 15), "stages": (1, 4)}  # rounds, and kills in all of them


def chosen(points: list[str], wanted: int) -> list[str]:
    """So many points, in their order: one of every kind, then evenly spread."""
    if os.environ.get("DADC_CRASH") == "all" or len(points) <= wanted:
        return points
    kinds: dict[str, list[str]] = {}
    for point in points:
        kinds.setdefault(" ".join(point.split()[:2]), []).append(point)
    picked = {own[len(own) // 2] for own in kinds.values()}
    rest = [point for point in points if point not in picked]
    missing = max(0, wanted - len(picked))
    picked |= {rest[i * len(rest) // missing] for i in range(missing)}
    return [point for point in points if point in picked]


@pytest.mark.parametrize(("phase", "turn"), [(p, turn) for p, (chains, _) in CHAINS.items() for turn in range(chains)])
def test_killed_and_started_again(ground: Ground, phase: str, turn: int) -> None:
    chains, wanted = CHAINS[phase]
    command = "close" if phase == "stages" else phase
    root = ground.copy("collected" if command == "close" else "begin", f"{phase}-{turn}")
    if phase == "simulate":
        assert ground.dadc(root, "open")[0] == 0
    if phase == "stages":  # with a cache that remembers no run, so that the stages do run
        shutil.copytree(ground.folder / "cache", root / ".dvc" / "cache", ignore=shutil.ignore_patterns("runs"))
        run(root, "dvc", "cache", "dir", "--local", "--unset")
    killed = []
    for number, point in enumerate(chosen(ground.points[phase], wanted)[turn::chains]):
        who = point.split(":")[0]
        whoms = {"dvc": ("self", "dadc", "all")}.get(who, ("dvc", "dadc", "all") if "tasks." in who else ("self",))
        code, seen = ground.dadc(root, command, at=point, whom=whoms[number % len(whoms)])
        if point in seen:
            assert code != 0, f"{point}\n{ground.said(root)}"
            killed.append(point)
        else:
            assert code == 0, f"{point} was done with, and then:\n{ground.said(root)}"
    assert len(killed) >= 2
    ground.kills += len(killed)
    code, _ = ground.dadc(root, command)
    assert code == 0, f"after {killed}:\n{ground.said(root)}"
    assert_same(outcome(ground, root), ground.unharmed[phase], killed)
    assert not list(root.glob("data/**/*.tmp"))


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
        ground.environment["MLFLOW_TRACKING_URI"] = find(ground.stack).mlflow_url or ""
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
    assert ground.kills >= 25
