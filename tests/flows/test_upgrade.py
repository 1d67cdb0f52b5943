"""A campaign made by the code before the regrouping of tasks/, gone on with by the code of now.

Rounds 000 and 001 are closed, round 002 is open with six drawings and their votes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import dadc, run
from old_campaign import unpacked, with_the_code_of_now
from open_round import model_server

from data.layout import Workspace
from tasks.workspace.rounds import State, states

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def upgraded(old: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_the_code_of_now(old, tmp_path_factory.mktemp("upgraded"))


def test_its_rounds_are_what_they_were(upgraded: Path) -> None:
    found = {round_.name: how for round_, how in states(Workspace(upgraded)).items()}
    assert found == {"000": State.CLOSED, "001": State.CLOSED, "002": State.OPEN}
    said = dadc(upgraded, "status").stdout
    assert "round 002 is open" in said
    assert "up to date" in run(upgraded, "dvc", "status", "evaluate@000", "evaluate@001").stdout
    assert "didn't change, skipping" in run(upgraded, "dvc", "repro", "--dry", "evaluate@001").stdout


def test_its_numbers_follow_from_its_record(upgraded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{upgraded}/.dadc/mlflow.db")
    dadc(upgraded, "track")
    for number in ("0", "1"):
        assert "all agree" in dadc(upgraded, "verify", number).stdout


def test_a_round_is_made_again_by_its_own_code(old: Path, tmp_path: Path) -> None:
    """In another environment within its intervals, in the same one to its bytes."""
    root = Path(shutil.copytree(old, tmp_path / "campaign", symlinks=True))
    run(root, "git", "checkout", "--quiet", "round-001")
    run(root, "dvc", "checkout", "--quiet")
    assert "Running stage 'evaluate@001'" in run(root, "dvc", "repro", "--force", "-s", "evaluate@001").stdout


@pytest.mark.usefixtures("services")
def test_the_campaign_goes_on(upgraded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(shutil.copytree(upgraded, tmp_path / "campaign", symlinks=True))
    run(root, "dvc", "remote", "modify", "--local", "store", "url", str(root / ".dadc" / "remote"))
    dadc(root, "abort", "--why", "its Label Studio is elsewhere")
    with model_server(root) as model:
        monkeypatch.setenv("DADC_MODEL_URL", model.model_url or "")
        monkeypatch.setenv("DADC_MODEL_USER", model.model_user or "")
        monkeypatch.setenv("DADC_MODEL_PASSWORD", model.model_password or "")
        dadc(root, "run", "--rounds", "3", "--simulate")
    found = {round_.name: how for round_, how in states(Workspace(root)).items()}
    assert found == {"000": State.CLOSED, "001": State.CLOSED, "002": State.ABORTED, "003": State.CLOSED}
    assert "didn't change, skipping" in run(root, "dvc", "repro", "--dry", "evaluate@001").stdout
