"""What `make check` leaves out and what the suite says that it did not run, seen on a suite of four tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent
SUITE = """
from conftest import copy_checkout, program

def test_alone():
    pass

def test_with_a_fixture_that_makes_a_workspace(initialised):
    raise AssertionError("without services this does not run")

def test_that_makes_a_workspace_and_is_not_marked(tmp_path):
    copy_checkout(tmp_path / "workspace")

def test_of_a_program_that_is_missing():
    program("Chromium", "chromium", None)
"""


SERVERS = """
import os
import subprocess
import sys
import time
from pathlib import Path

def test_that_starts_servers(tmp_path):
    sleep = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)"]
    marked = subprocess.Popen(sleep, start_new_session=True, cwd="/")
    below = subprocess.Popen(sleep, start_new_session=True, cwd=tmp_path, env={"PATH": os.environ["PATH"]})
    Path(os.environ["PIDS"]).write_text(f"{marked.pid} {below.pid}")
    time.sleep(99)
"""


@pytest.mark.parametrize(("number", "processes"), [(signal.SIGTERM, "0"), (signal.SIGHUP, "1"), (signal.SIGKILL, "0")])
def test_a_run_that_is_ended_by_a_signal_leaves_no_server(tmp_path: Path, number: int, processes: str) -> None:
    """Servers with this run's environment and with one of their own, which do not end at SIGTERM; xdist's too."""
    (tmp_path / "test_servers.py").write_text(SERVERS)
    pids = tmp_path / "pids"
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "conftest", "-n", processes, "--basetemp", str(tmp_path / "t")]
    suite = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_servers.py")],
        cwd=ROOT,
        env={**os.environ, "PIDS": str(pids)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 2, 60)
    servers = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    other = subprocess.Popen(["sleep", "99"], cwd=tmp_path)
    try:
        suite.send_signal(number)
        suite.wait(60)
        wait_until(lambda: not any(server.is_running() for server in servers), 60)
        assert other.poll() is None, "not the run's"
    finally:
        other.kill()
        other.wait()


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


def run_suite(folder: Path, *arguments: str, **environment: str) -> str:
    """What pytest prints for SUITE with the conftest of these tests."""
    (folder / "test_small.py").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "conftest", str(folder), *arguments],
        cwd=ROOT,
        env={**{key: value for key, value in os.environ.items() if key != "CI_RUN"}, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_make_check_leaves_out_what_needs_a_workspace_and_refuses_what_is_not_marked(tmp_path: Path) -> None:
    assert '-m "not services"' in (ROOT / "Makefile").read_text()
    output = run_suite(tmp_path, "-m", "not services")
    assert "1 failed, 1 passed, 1 skipped, 1 deselected" in output
    assert "mark it `@pytest.mark.services`" in output
    assert "`make test` runs them" in output


def test_what_did_not_run_is_said_with_how_to_get_it(tmp_path: Path) -> None:
    output = run_suite(tmp_path, "-k", "of_a_program or test_alone")
    assert "not run" in output
    assert "1 test: Chromium is not installed (Debian: apt-get install chromium)" in output
    assert "not run" not in run_suite(tmp_path, "-k", "test_alone")


def test_under_ci_a_missing_program_is_a_failure(tmp_path: Path) -> None:
    assert "1 failed" in run_suite(tmp_path, "-k", "of_a_program", CI_RUN="1")
