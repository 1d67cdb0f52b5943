"""Git at a workspace's root: what it says, and its lock files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from data.layout import Workspace
from tasks.workspace.git import WorkspaceError, git


@pytest.fixture
def workspace(make_workspace: Callable[..., Path]) -> Workspace:
    return Workspace(make_workspace())


def test_what_git_says_of_a_failure_is_its_error_and_not_its_advice(workspace: Workspace) -> None:
    (workspace.root / ".gitignore").write_text("*.json\n")
    (workspace.root / "x.json").write_text("{}")
    with pytest.raises(WorkspaceError, match="git add -- failed: The following paths are ignored"):
        git(workspace, "add", "--", "x.json")


def test_a_lock_file_of_git_is_waited_for_and_named_but_never_removed(
    make_workspace: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever language git speaks, and whatever the folder is called."""
    workspace = Workspace(make_workspace("Bob's"))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    lock_file = workspace.root / ".git" / "index.lock"
    lock_file.touch()
    threading.Timer(0.5, lock_file.unlink).start()
    git(workspace, "add", "params.yaml")
    assert not lock_file.exists(), "another git has ended"

    lock_file.touch()
    monkeypatch.setattr("tasks.workspace.git.PATIENCE", 0.5)
    with pytest.raises(WorkspaceError, match=r"git add params.yaml waited .* for .*/\.git/index\.lock, .* remove that"):
        git(workspace, "add", "params.yaml")
    assert lock_file.exists()
