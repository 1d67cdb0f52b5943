"""`dadc init` by real Git and DVC, and again after a set from elsewhere was named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data.layout import Workspace
from tasks import stage
from tasks.init import check_same, init
from tasks.params import ParamsError, read
from tasks.workspace import WorkspaceError, git


def test_a_set_from_elsewhere_is_frozen_when_it_is_named(make_workspace: Callable[..., Path], tmp_path: Path) -> None:
    workspace = Workspace(make_workspace())
    init(workspace, read(workspace.params), None, print)
    frozen = workspace.splits.read_bytes()
    (tmp_path / "drawn" / "7").mkdir(parents=True)
    Image.new("L", (40, 30), 90).save(tmp_path / "drawn" / "7" / "one.png")
    text = workspace.params.read_text()
    workspace.params.write_text(text.replace("sets: {}", f"sets: {{drawn: '{tmp_path / 'drawn'}'}}"))
    params = read(workspace.params)
    with pytest.raises(WorkspaceError, match=r"evaluate\.sets\.drawn is not frozen yet; `dadc init` does it"):
        check_same(workspace, params)
    git(workspace, "commit", "--quiet", "--all", "--message", "a set from elsewhere")
    init(workspace, params, None, print)
    check_same(workspace, params)
    assert workspace.splits.read_bytes() == frozen, "round 000 hangs on it"
    assert git(workspace, "status", "--porcelain") == ""
    found = stage.other(workspace, "drawn")
    assert (len(found), found.labels_N.tolist(), found.size) == (1, [7], 28)
    made = git(workspace, "rev-parse", "HEAD")
    (tmp_path / "drawn" / "7" / "one.png").unlink()  # a clone elsewhere has no such folder
    init(workspace, params, None, print)
    assert git(workspace, "rev-parse", "HEAD") == made
    workspace.other("drawn").write_bytes(b"another")
    with pytest.raises(ValueError, match="is not what was frozen: wanted md5"):
        stage.other(workspace, "drawn")


def test_a_set_under_a_shifts_name_is_refused(make_workspace: Callable[..., Path]) -> None:
    workspace = Workspace(make_workspace(evaluate={"sets": {"affine": "somewhere"}}))
    with pytest.raises(ParamsError, match="sets under names of their own, affine is a shift's or the mean's"):
        read(workspace.params)
