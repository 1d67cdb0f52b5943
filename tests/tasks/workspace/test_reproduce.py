"""A closed round made again: the same, or refused; elsewhere at the tag only, and within its intervals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.files import md5, write_whole
from data.layout import Arm, Round, Workspace
from tasks.config.params import Params, read
from tasks.engine import stage
from tasks.workspace.git import git
from tasks.workspace.reproduce import differences, environment

PARAMS = read(Path(__file__).parents[3] / "params.yaml")


def figures(clean: float) -> str:
    accuracy = {"accuracy": clean, "n": 100, "low": 0.85, "high": 0.95}
    return json.dumps({"round": 1, "clean": accuracy, "robust": {"pgd": accuracy}, "mer": None})


@pytest.fixture
def closed(tmp_path: Path, checkout: Path) -> Round:
    """Round 001 as DVC and Git leave it, closed, in this very environment; on a branch that went on from there."""
    workspace = Workspace(tmp_path)
    round_ = workspace.round(1)
    round_.folder.mkdir(parents=True)
    shutil.copy(checkout / "params.yaml", round_.params)
    write_whole(round_.challenger.metrics, figures(0.9))
    write_whole(round_.lineage, json.dumps({"environment": environment(PARAMS)}))
    out = {"path": "data/rounds/001/metrics.json", "hash": "md5", "md5": md5(round_.challenger.metrics), "size": 1}
    lines = [f"    - path: {out['path']}", f"      md5: {out['md5']}"]
    write_whole(tmp_path / "dvc.lock", "\n".join(["schema: '2.0'", "stages:", "  evaluate@001:", "    outs:", *lines]))
    git(workspace, "init", "--quiet", "--initial-branch=main")
    for key in ("name", "email"):
        git(workspace, "config", f"user.{key}", "test@localhost")
    close(round_)
    return round_


def close(round_: Round) -> None:
    for path in (round_.opened, round_.closed):
        path.write_text("{}")
    commit(round_, "Close round 001")
    git(round_.workspace, "tag", "--force", round_.tag)
    git(round_.workspace, "commit", "--quiet", "--allow-empty", "--message", "another")


def commit(round_: Round, message: str) -> None:
    git(round_.workspace, "add", "--all")
    git(round_.workspace, "commit", "--quiet", "--message", message)


def remake(round_: Round, clean: float) -> None:
    """Run the evaluate stage with these figures as its work."""

    def work(arm: Arm, params: Params, compute: object) -> None:
        write_whole(arm.metrics, figures(clean))

    stage.run("evaluate", work, round_.challenger)


def elsewhere(round_: Round, *, clean: float = 0.9) -> None:
    """As if the round had been closed on another processor."""
    content: dict[str, Any] = json.loads(round_.lineage.read_text())
    content["environment"]["cpu"] = "AVX9000"
    write_whole(round_.lineage, json.dumps(content))
    write_whole(round_.challenger.metrics, figures(clean))
    round_.closed.unlink()
    commit(round_, "not closed yet")
    close(round_)


def test_the_same_is_made_again_and_another_is_refused(closed: Round) -> None:
    closed.challenger.metrics.unlink()
    remake(closed, 0.9)
    assert closed.challenger.metrics.read_text() == figures(0.9)
    closed.challenger.metrics.unlink()  # as DVC does before it runs a stage
    with pytest.raises(ValueError, match=r"closed.*never redefined; `git checkout round-001`"):
        remake(closed, 0.91)
    assert not closed.challenger.metrics.exists()
    assert list(closed.folder.glob("*.tmp")) == []
    git(closed.workspace, "checkout", "--quiet", "round-001")
    with pytest.raises(ValueError, match="by other code, or on another machine"):
        remake(closed, 0.91)


def test_a_clone_without_the_tag_keeps_the_round_as_it_is_too(closed: Round) -> None:
    git(closed.workspace, "tag", "--delete", closed.tag)
    remake(closed, 0.9)
    with pytest.raises(ValueError, match="never redefined"):
        remake(closed, 0.91)


def test_a_round_that_no_commit_closed_is_open_to_change(closed: Round) -> None:
    git(closed.workspace, "tag", "--delete", closed.tag)
    closed.closed.unlink()
    commit(closed, "closing, as it was before its commit")
    remake(closed, 0.91)
    assert closed.challenger.metrics.read_text() == figures(0.91)


def test_in_another_environment_the_figures_must_agree_and_it_is_said(
    closed: Round, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere(closed)
    with pytest.raises(ValueError, match=r"in another environment \(cpu AVX9000, here"):
        remake(closed, 0.91)
    git(closed.workspace, "checkout", "--quiet", "round-001")
    remake(closed, 0.91)
    said = capsys.readouterr().out
    assert "made again in another environment (cpu AVX9000, here" in said
    assert "its 2 figures lie within the intervals of round-001" in said
    with pytest.raises(ValueError, match="clean is 80.0%, 85.0% to 95.0% was expected; robust.pgd"):
        remake(closed, 0.8)


def test_an_environment_is_compared_by_what_was_recorded() -> None:
    now = environment(PARAMS)
    assert {"python", "torch", "threads", "cpu", "pyarrow"} <= set(now)
    assert differences(now, environment(PARAMS)) == ""
    assert differences({"torch": now["torch"]}, now) == "", "an older record knew fewer names"
    assert differences({**now, "threads": 2}, now) == "threads 2, here 1"
