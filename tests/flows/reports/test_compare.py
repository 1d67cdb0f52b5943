"""What `dadc compare` says of two rounds, and what it draws."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from open_round import make_round, under_git
from round_states import mark_closed

from data.layout import Round, Workspace
from flows.reports.charts import write_page
from flows.reports.compare import compare, show
from tasks.evaluation.plots import lines_of
from tasks.workspace.git import WorkspaceError


def close(round_: Round, clean: float, healed: float | None) -> None:
    share: dict[str, Any] = {"accuracy": clean, "low": clean - 0.05, "high": clean + 0.05}
    unknown = {"rate": None, "low": None, "high": None}
    metrics = {
        "promoted": True,
        "mer": None,
        "vmer": {"low": None, "high": None},
        "clean": share,
        "robust": {"pgd": share},
        "ood": {},
        "heal": {"rate": healed, "low": None, "high": None, "relapse": unknown},
    }
    round_.challenger.metrics.write_text(json.dumps(metrics))
    mark_closed(round_)


@pytest.fixture
def workspace(tmp_path: Path, checkout: Path) -> Workspace:
    """Rounds 000 and 001, closed; 001 was trained longer."""
    play = make_round(tmp_path / "workspace", checkout)
    under_git(play)
    workspace = play.round.workspace
    text = play.round.params.read_text()
    workspace.round(0).params.write_text(re.sub(r"epochs: \d+", "epochs: 1", text))
    play.round.params.write_text(re.sub(r"epochs: \d+", "epochs: 7", text))
    close(workspace.round(0), 0.9, None)
    close(workspace.round(1), 0.8, 0.25)
    return workspace


def test_a_round_is_laid_beside_its_target(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    facts = compare(workspace.root, [])
    assert (facts["before"], facts["after"]) == ("000", "001")
    assert facts == compare(workspace.root, [1]) == compare(workspace.root, [0, 1])
    rows = {row["figure"]: row for row in facts["figures"]}
    assert rows["clean"]["change"] == pytest.approx(-0.1)
    assert (rows["healed"]["before"], rows["healed"]["change"]) == (None, None)
    assert {"key": "train.epochs", "before": 1, "after": 7} in facts["parameters"]
    assert not any(row["before"] == row["after"] for row in facts["parameters"])
    show(workspace.root, [])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "clean 90.0 (85.0–95.0) 80.0 (75.0–85.0) -10.0" in [" ".join(line.split()) for line in lines]
    assert "train.epochs: 1 → 7" in lines


def test_what_cannot_be_compared_is_said(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match=r"round 002 is not closed.*\(000, 001\)"):
        compare(workspace.root, [2])
    with pytest.raises(WorkspaceError, match="no second round to compare with"):
        compare(workspace.root, [0])
    with pytest.raises(ValueError, match="at most two rounds to compare, got 3"):
        compare(workspace.root, [0, 1, 0])


def test_charts_load_nothing_and_no_line_has_one_point(workspace: Workspace, checkout: Path, tmp_path: Path) -> None:
    page, plots = tmp_path / "charts.html", workspace.rounds / "plots"
    shutil.copyfile(checkout / "dvc.yaml", workspace.root / "dvc.yaml")
    plots.mkdir()
    (plots / "accuracy.csv").write_text("round,accuracy,series\n000,0.5,clean\n")
    with pytest.raises(WorkspaceError, match="nothing to draw yet"):
        write_page(workspace.root, page)
    (plots / "accuracy.csv").write_text("round,accuracy,series\n000,0.5,clean\n001,0.6,clean\n")
    assert write_page(workspace.root, page) == 1
    text = page.read_text()
    assert "<svg" in text
    for loading in ("<script", "<link", "@import", "src="):
        assert loading not in text
    assert lines_of([("0", 0.1, "a"), ("1", 0.1, "a"), ("0", 0.1, "b")]) == [("0", 0.1, "a"), ("1", 0.1, "a")]
