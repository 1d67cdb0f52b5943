"""The model server's password, made anew while the server runs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from data.layout import Workspace
from tasks.serving.model_server import app
from tasks.workspace.services import find_services, make_secrets, read_secrets, renew_secret


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with a log-in for the model server, and another secret."""
    make_secrets(tmp_path, {"model": {"user": "label-studio", "password": "old"}, "accounts": {"secret": "kept"}})
    return tmp_path


def status(server: TestClient, password: str) -> int:
    return server.post("/predict", json={}, auth=("label-studio", password)).status_code


def test_a_password_made_anew_holds_at_once_and_the_old_one_no_more(root: Path) -> None:
    server = TestClient(app(root, "label-studio", "old", renewable=True))
    assert (status(server, "old"), status(server, "")) == (200, 401)
    assert renew_secret(root, "model", "password", "DADC_MODEL_PASSWORD")
    new = find_services(root).model_password
    assert new is not None
    assert (status(server, "old"), status(server, new)) == (401, 200)
    assert read_secrets(root)["accounts"] == {"secret": "kept"}
    assert stat.S_IMODE((Workspace(root).local / "secrets.json").stat().st_mode) == 0o600


def test_a_password_of_the_environment_is_nobody_s_to_make_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DADC_MODEL_PASSWORD", "given")
    before = read_secrets(root)
    assert not renew_secret(root, "model", "password", "DADC_MODEL_PASSWORD")
    assert read_secrets(root) == before
