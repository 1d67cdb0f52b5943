"""Commands import only what they need: each heavy package costs a person seconds before the first word."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Set
from pathlib import Path

import pytest
from conftest import run
from open_round import make_round, under_git
from round_states import mark_closed

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "mlflow", "prefect", "dvc", "gradio", "sklearn", "label_studio_sdk", "matplotlib", "lightning"}
NETWORK = {"torch"}
CODE = """
import atexit, sys
atexit.register(lambda: print("imported", *sys.modules, file=sys.stderr))
from flows.cli import app
app(prog_name="dadc")
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of another's code, with round 000 closed and round 001 open, and no service up."""
    play = make_round(tmp_path_factory.mktemp("imports") / "workspace", ROOT)
    workspace = play.round.workspace
    shutil.copyfile(play.round.params, workspace.params)
    shutil.copyfile(ROOT / "dvc.yaml", workspace.root / "dvc.yaml")
    (workspace.root / ".gitignore").write_text(".dadc\n")
    under_git(play)
    first = workspace.round(0)
    shutil.copyfile(play.round.params, first.params)
    share = {"accuracy": 0.5, "low": 0.4, "high": 0.6}
    metrics = {
        "collected": 0,
        "mer": None,
        "vmer": {"low": None, "high": None},
        "clean": share,
        "robust": {},
        "ood": {},
    }
    first.challenger.metrics.write_text(json.dumps(metrics | {"promoted": True, "gate": {"reasons": []}}))
    mark_closed(first)
    commit(workspace.root)
    return workspace.root


def commit(root: Path) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["add", "--all"], [*identity, "commit", "--quiet", "--message", "of a test"]):
        subprocess.run(["git", *words], cwd=root, check=True)


def imported(root: Path, *words: str) -> tuple[Set[str], str]:
    """The heavy packages that a command imported, and what it printed."""
    nowhere = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    nowhere |= {"LABEL_STUDIO_URL": "http://127.0.0.1:9", "LABEL_STUDIO_API_KEY": "x" * 40}
    environment = {**os.environ, **nowhere, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-P", "-c", CODE, *words]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    said, _, names = done.stderr.rpartition("imported ")
    assert "Traceback" not in said, said
    return HEAVY & set(names.split()), done.stdout + said


@pytest.mark.parametrize(
    ("words", "allowed", "says"),
    [
        (("--help",), set(), "Usage: dadc"),
        (("collect", "--help"), set(), "Usage: dadc collect"),
        (("status",), set(), "round 001 is open"),
        (("amend",), set(), "already has what params.yaml says"),
        (("invite",), {"label_studio_sdk"}, "does not answer at http://127.0.0.1:9"),
        (("decide", "0", "--refuse", "--why", "x"), {"mlflow"}, "does not answer at http://127.0.0.1:9"),
        (("reconcile",), NETWORK | {"label_studio_sdk"}, "does not answer at http://127.0.0.1:9"),
        (("verify", "1"), NETWORK, "round 001"),
    ],
)
def test_a_command_imports_only_what_it_needs(root: Path, words: tuple[str, ...], allowed: set[str], says: str) -> None:
    heavy, printed = imported(root, *words)
    assert says in printed
    assert heavy <= allowed


def test_an_amendment_of_a_number_needs_no_torch(root: Path) -> None:
    params = root / "params.yaml"
    params.write_text(re.sub(r"(?m)^(train:(?:\n .*)*?\n  epochs:) \d+", r"\1 9", params.read_text()))
    commit(root)
    heavy, printed = imported(root, "amend")
    assert "train.epochs" in printed
    assert heavy == set()
    assert run(root, "git", "log", "-1", "--format=%s").stdout.startswith("Amend round 001")
