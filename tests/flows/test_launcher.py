"""`dadc` as `make setup` writes it: from wherever one stands in a checkout."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PRINT = 'launcher: ; @printf "%s\\n" "$$LAUNCHER"'


@pytest.fixture
def launcher(tmp_path: Path, checkout: Path) -> Path:
    """The launcher of a checkout, beside a `python` that is the tests' own."""
    folder = tmp_path / "made" / ".venv" / "bin"
    folder.mkdir(parents=True)
    for package in ("data", "flows", "models", "tasks"):
        (tmp_path / "made" / package).symlink_to(checkout / package)
    printed = ["make", "--silent", "--no-print-directory", f"--eval={PRINT}", "launcher"]
    text = subprocess.run(printed, cwd=checkout, capture_output=True, text=True, check=True).stdout
    for name, content in (("dadc", text), ("python", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')):
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    return folder / "dadc"


def run(launcher: Path, folder: Path, *arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [launcher, *arguments], cwd=folder, env={**os.environ, **given}, capture_output=True, text=True, check=False
    )


def test_paths_are_meant_from_where_one_stands(launcher: Path, initialised: Path, tmp_path: Path) -> None:
    folder = initialised / "docs"
    done = run(launcher, folder, "backup", "taken")
    assert (folder / "taken" / "backup.json").exists(), done.stderr
    done = run(launcher, folder, "restore", "taken", "../../other")
    assert (tmp_path / "other" / "data" / "base" / "splits.json").exists(), done.stderr
    assert "has no backup.json" in run(launcher, folder, "restore", ".").stderr
    assert f"{folder} has no" in run(launcher, folder, "restore", ".").stderr
    done = run(launcher, folder, "init", "--remote", "../../remote")
    assert done.returncode == 0, done.stderr
    assert f"url = {tmp_path / 'remote'}" in (initialised / ".dvc" / "config").read_text()
    assert "an absolute path or an address, got 's3:/x'" in run(launcher, folder, "init", "--remote", "s3:/x").stderr


def test_what_git_says_is_said(launcher: Path, initialised: Path, tmp_path: Path) -> None:
    outside = run(launcher, tmp_path, "status").stderr
    assert "Clone the project first" in outside
    assert "not a git repository" in outside
    for command in ([launcher, "status"], [sys.executable, "-m", "flows.cli", "status"]):
        done = subprocess.run(
            command,
            cwd=initialised,
            env={**os.environ, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"},  # git's own switch for this
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "detected dubious ownership" in done.stderr
        assert f"git config --global --add safe.directory {initialised}" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_what_git_tells_its_hooks_leads_nowhere_else(launcher: Path, initialised: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path / "other"], check=True)
    given = {"GIT_DIR": str(tmp_path / "other" / ".git"), "GIT_INDEX_FILE": str(tmp_path / "index")}
    done = run(launcher, initialised / "docs", "status", **given)
    assert "no rounds yet" in done.stdout, done.stderr


def test_outside_a_checkout_help_and_mistakes_are_answered(launcher: Path, tmp_path: Path) -> None:
    mistyped = run(launcher, tmp_path, "stauts")
    assert (mistyped.returncode, "Did you mean 'status'?" in mistyped.stderr) == (2, True), mistyped.stderr
    assert run(launcher, tmp_path, "--version").stdout.startswith("dadc 0.1.0 (commit ")
    assert "Example: dadc collect" in run(launcher, tmp_path, "collect", "--help").stdout


def test_a_mistake_names_the_command_one_typed(launcher: Path, initialised: Path) -> None:
    assert "Usage: dadc run" in run(launcher, initialised, "run").stderr
    assert "Usage: dadc" in run(launcher, initialised, "--help").stdout


@pytest.mark.parametrize("name", [".venv", ".venv-label-studio"])
def test_packages_go_into_the_environment_whatever_uv_is_told(tmp_path: Path, checkout: Path, name: str) -> None:
    """With UV_SYSTEM_PYTHON, which images of containers set, uv takes the system's Python over VIRTUAL_ENV, and `sync`
    removes from there what the lock does not hold."""
    shutil.copy(checkout / "Makefile", tmp_path)
    shutil.copytree(checkout / "locks", tmp_path / "locks")
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\necho "$@" >> told\nmkdir -p .venv/bin .venv-label-studio/bin\n')
    uv.chmod(0o755)
    subprocess.run(["make", "--silent", f"UV={uv}", f"{name}/.synced"], cwd=tmp_path, check=True)
    (synced,) = [line for line in (tmp_path / "told").read_text().splitlines() if line.startswith("pip sync")]
    assert f"--python {name}/bin/python " in synced
