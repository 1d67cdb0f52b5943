"""A campaign with an open round goes on in another workspace with another Label Studio as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from campaign_copies import Ground, assert_same, outcome
from conftest import dadc

from data.files import md5
from data.layout import Workspace
from flows.stack.lifecycle import down, up
from tasks.workspace.dvc import dvc, dvc_remote
from tasks.workspace.git import commit, git
from tasks.workspace.services import find_services

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
        found = outcome(ground, other, find_services(other))
    finally:
        down(other)
    found.pop("runs")  # MLflow stayed where it was; `dadc track` fills another
    wanted = {part: content for part, content in ground.unharmed["close"].items() if part in found}
    assert_same(found, wanted, ["a move"])


def test_a_backup_holds_all_or_there_is_none(initialised: Path, tmp_path: Path) -> None:
    workspace, folder = Workspace(initialised), tmp_path / "backup"
    git(workspace, "switch", "--quiet", "--detach")
    refused = dadc(initialised, "backup", str(folder), check=False)
    assert "HEAD is detached" in refused.stderr
    git(workspace, "switch", "--quiet", "--create", "kept", "-")
    git(workspace, "switch", "--quiet", "--create", "campaign")
    own = initialised / ".dadc" / "remote"  # the template's stays whole
    dvc(workspace, "remote", "modify", "store", "url", str(own), quiet=True)
    commit(workspace, "its own store", initialised / ".dvc" / "config")
    for where in (initialised / ".dvc" / "cache" / "files", own / "files"):
        where.rename(where.with_name("away"))
    refused = dadc(initialised, "backup", str(folder), check=False)
    assert (
        refused.returncode,
        "data/base/gate.parquet is neither in DVC's cache nor in its remote" in refused.stderr,
    ) == (1, True), refused.stderr
    assert not folder.exists()
    (own / "away").rename(own / "files")
    dadc(initialised, "backup", str(folder))

    dvc(workspace, "remote", "modify", "store", "url", "s3://bucket/digits", quiet=True)
    dvc(workspace, "remote", "modify", "store", "endpointurl", "http://127.0.0.1:1", quiet=True)
    commit(workspace, "Where S3 is", initialised / ".dvc" / "config")
    git(workspace, "bundle", "create", "--quiet", str(folder / "campaign.bundle"), "--all", "HEAD")
    listed = json.loads((folder / "backup.json").read_text())
    listed["files"]["campaign.bundle"] = md5(folder / "campaign.bundle")
    (folder / "backup.json").write_text(json.dumps(listed))
    done = dadc(initialised, "restore", str(folder), str(tmp_path / "other"))
    assert "go to the campaign's remote, s3://bucket/digits, as before" in done.stdout
    other = Workspace(tmp_path / "other")
    assert other.split("train").exists()
    assert git(other, "branch", "--format=%(refname:short)").split() == ["campaign", "kept", "main"]
    assert git(other, "symbolic-ref", "--short", "HEAD") == "campaign"
    assert git(other, "status", "--porcelain") == ""
    assert dvc_remote(other) == ("store", "s3://bucket/digits")


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
