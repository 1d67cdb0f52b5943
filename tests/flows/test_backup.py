"""A campaign with an open round goes on in another workspace with another Label Studio as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import dadc
from ground import Ground, assert_same, outcome

from data.layout import Workspace
from flows.stack import down, up
from tasks.services import find

pytestmark = pytest.mark.timeout(1800)  # the ground is made within the first test


def test_an_open_round_goes_on_elsewhere(ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, folder, other = ground.copy("collected", "taken"), tmp_path / "backup", tmp_path / "other"
    assert ground.dadc(root, "backup", str(folder))[0] == 0, ground.said(root)
    assert ground.dadc(root, "backup", str(folder))[0] == 1, "never over another"
    assert ground.dadc(root, "restore", str(folder), str(other))[0] == 0, ground.said(root)
    try:
        services = up(other, {}, only=["label_studio"])
        assert services.label_studio_url != ground.environment["LABEL_STUDIO_URL"]
        monkeypatch.setitem(ground.environment, "LABEL_STUDIO_URL", services.label_studio_url or "")
        monkeypatch.setitem(ground.environment, "LABEL_STUDIO_API_KEY", services.label_studio_token or "")
        record = Workspace(other).round(1).annotations
        before = record.read_bytes()
        for _ in range(2):
            assert ground.dadc(other, "restore", str(folder))[0] == 0, ground.said(other)
        for command in ("collect", "simulate", "collect"):
            assert ground.dadc(other, command)[0] == 0, ground.said(other)
        assert record.read_bytes() == before, "what is there is known, and nobody is asked again"
        assert ground.dadc(other, "reconcile")[0] == 0, ground.said(other)
        assert "not pulled" not in ground.said(other)
        assert ground.dadc(other, "close")[0] == 0, ground.said(other)
        found = outcome(ground, other, find(other))
    finally:
        down(other)
    found.pop("runs")  # MLflow stayed where it was; `dadc track` fills another
    wanted = {part: content for part, content in ground.unharmed["close"].items() if part in found}
    assert_same(found, wanted, ["a move"])


def test_a_backup_that_was_changed_is_refused(initialised: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    (folder / "campaign.bundle").write_bytes(b"x")
    listed = {"form": 1, "campaign": "digits", "branch": "main", "files": {"campaign.bundle": "0" * 32}}
    (folder / "backup.json").write_text(json.dumps(listed))
    refused = dadc(initialised, "restore", str(folder), str(tmp_path / "other"), check=False)
    assert refused.returncode == 1
    assert "is not the file that was backed up" in refused.stderr
    assert not (tmp_path / "other").exists()
    assert "has no backup.json" in dadc(initialised, "restore", str(tmp_path), check=False).stderr
