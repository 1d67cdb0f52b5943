"""What bad input gets: one clear line, exit code 1, nothing half-written; mended, the same command works."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import dadc, run
from PIL import Image
from round_states import mark_closed, mark_opened

from data.layout import Round, Workspace
from tasks.workspace.rounds import State, rounds, state

Make = Callable[..., Path]


def refused(root: Path, *arguments: str) -> str:
    """What a refused command said; it must be one line, and leave the workspace as it was."""
    before = run(root, "git", "status", "--porcelain").stdout, run(root, "git", "rev-parse", "HEAD").stdout
    done = dadc(root, *arguments, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    after = run(root, "git", "status", "--porcelain").stdout, run(root, "git", "rev-parse", "HEAD").stdout
    assert after == before
    return lines[0]


def elsewhere(folder: Path, checkout: Path) -> subprocess.CompletedProcess[str]:
    """`dadc status` in a folder, with the checkout's code."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "flows.cli", "status"],
        cwd=folder,
        env={"PYTHONPATH": str(checkout), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_names_every_command_and_the_way_to_go(checkout: Path) -> None:
    said = dadc(checkout, "--help").stdout
    for word in ("init", "up", "open", "collect", "close", "status", "abort", "down", "simulate", "run", "params.yaml"):
        assert word in said


def test_outside_a_checkout(tmp_path: Path, checkout: Path) -> None:
    done = elsewhere(tmp_path, checkout)
    assert done.returncode == 1
    assert "Clone the project first" in done.stderr


def test_code_of_another_checkout_is_refused(make_workspace: Make, checkout: Path) -> None:
    root = make_workspace()
    done = elsewhere(root, checkout)
    assert done.returncode == 1
    assert f"expected the code of {root}" in done.stderr


def test_a_workspace_that_is_not_ready(make_workspace: Make) -> None:
    root = make_workspace()
    assert refused(root, "collect") == "dadc: the campaign's data are not frozen yet; run `dadc init`"
    path = root / "params.yaml"
    text = path.read_text()
    path.write_text(text.replace("seed: 0", "seed: 1"))
    assert "code and params.yaml must be committed, changed: params.yaml" in refused(root, "init")
    path.write_text(text)
    run(root, "git", "checkout", "--quiet", "--detach")
    assert "HEAD is detached" in refused(root, "init")
    run(root, "git", "checkout", "--quiet", "main")
    assert "absolute path" in refused(root, "init", "--remote", "s3:/here")
    assert "is ready" in dadc(root, "init").stdout, "mended, the same command works"


def test_init_twice_is_init_once(initialised: Path) -> None:
    head = run(initialised, "git", "rev-parse", "HEAD").stdout
    assert "is ready" in dadc(initialised, "init").stdout
    assert run(initialised, "git", "rev-parse", "HEAD").stdout == head


def test_services_that_are_down_name_the_command_that_starts_them(
    initialised: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "x" * 40)
    assert "`dadc up`" in refused(initialised, "open")


def begun(root: Path) -> Round:
    """Round 000, opened."""
    round_ = Workspace(root).round(0)
    round_.folder.mkdir()
    shutil.copyfile(round_.workspace.params, round_.params)
    mark_opened(round_)
    return round_


def test_mlflow_is_missed_before_anything_is_frozen(initialised: Path) -> None:
    line = refused(initialised, "run", "--rounds", "0")
    assert line == "dadc: the MLflow server does not answer, no address is known; run `dadc up`"
    round_ = begun(initialised)
    assert "the MLflow server does not answer" in refused(initialised, "close")
    assert state(round_) is State.OPEN
    assert sorted(path.name for path in round_.folder.iterdir()) == ["opened.json", "params.yaml"]


def test_a_decision_by_hand_wants_mlflow_first(initialised: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    round_ = begun(initialised)
    round_.challenger.metrics.write_text('{"promoted": true}')
    mark_closed(round_)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = refused(initialised, "decide", "0", "--refuse", "--why", "x")
    assert "the MLflow server does not answer at http://127.0.0.1:9" in said
    assert not round_.decision.exists()


def test_devices_that_are_not_here_are_missed_before_anything_is_frozen(initialised: Path) -> None:
    path = initialised / "params.yaml"
    path.write_text(
        path.read_text().replace("accelerator: cpu", "accelerator: cuda").replace("devices: 1", "devices: 64")
    )
    run(initialised, "git", "commit", "--all", "--quiet", "--message", "a machine of 64 GPUs")
    for words in (["open"], ["run", "--rounds", "0"]):
        line = refused(initialised, *words)
        assert line.startswith("dadc: expected accelerator cuda with 64 devices, and torch ")
        assert line.endswith("; lower devices or set accelerator: cpu in params.yaml")
    assert rounds(Workspace(initialised)) == []


def test_a_params_yaml_of_another_campaign(initialised: Path) -> None:
    root = initialised
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("campaign: digits", "campaign: other"))
    run(root, "git", "commit", "--all", "--quiet", "--message", "another campaign")
    said = refused(root, "open")
    assert said.startswith("dadc: params.yaml: campaign: expected 'digits'")
    assert "another clone" in said


def test_a_wrong_parameter_is_named_by_its_path(make_workspace: Make) -> None:
    root = make_workspace(threat={"epsilon": 8})
    assert "params.yaml: threat.epsilon: expected a radius under 1" in refused(root, "init")


@pytest.mark.parametrize(
    ("folders", "said"),
    [([], "there is none"), (["train/a", "test/a"], "class"), (["train/a", "train/b"], "test")],
)
def test_a_folder_that_is_no_data_set(make_workspace: Make, tmp_path: Path, folders: list[str], said: str) -> None:
    images = tmp_path / "images"
    for folder in folders:
        (images / folder).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (30, 30), i * 50).save(images / folder / f"{i}.png")
    root = make_workspace(
        data={"set": "folder", "root": str(images), "pool": 2, "validation": 2, "gate": 0, "limit": None}
    )
    line = refused(root, "init")
    assert said in line
    assert str(images) in line
    assert not (root / "data" / "base").exists()


def test_nothing_to_show_yet(make_workspace: Make) -> None:
    said = dadc(make_workspace(), "status").stdout
    assert said.splitlines() == ["no rounds yet", "next: `dadc init` freezes the data"]
