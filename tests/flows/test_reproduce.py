"""Three closed rounds in fresh clones: nothing to do, the same bytes again, never others; and every number checked."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from campaign_copies import Ground
from conftest import dadc, run

from data.files import md5, write_whole
from data.layout import Workspace
from data.records import Verdict
from data.shards import read_candidates, write_candidates
from flows.audit.verify import verify
from flows.campaign import load
from tasks.track import flat_metrics

pytestmark = pytest.mark.timeout(1800)  # the ground is made within the first test
OUTPUTS = (
    "attack.parquet",
    "train.safetensors",
    "model.safetensors",
    "predictions.parquet",
    "metrics.json",
    "gate.parquet",
    "gate.json",
)


@pytest.fixture(scope="module")
def three(ground: Ground) -> Path:
    """Rounds 000, 001 and 002, closed."""
    root = ground.copy("unharmed", "three")
    assert ground.dadc(root, "run", "--rounds", "2", "--simulate")[0] == 0, ground.said(root)
    return root


@pytest.fixture(scope="module")
def cloned(three: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone with what DVC keeps."""
    return fresh(three, tmp_path_factory.mktemp("clone") / "cloned")


def fresh(of: Path, made: Path) -> Path:
    run(made.parent, "git", "clone", "--quiet", str(of), str(made))
    run(made, "dvc", "pull", "--quiet")
    return made


@pytest.fixture
def clone(cloned: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(cloned, tmp_path / "clone", symlinks=True))


def test_a_clone_has_nothing_to_do(cloned: Path, clone: Path, three: Path) -> None:
    assert md5(Workspace(cloned).round(2).challenger.model) == md5(Workspace(three).round(2).challenger.model)
    said = run(cloned, "dvc", "repro").stdout
    assert "up to date" in said
    assert "Running stage" not in said
    path = clone / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 2", "epochs: 3"))
    assert "up to date" in run(clone, "dvc", "status").stdout, "closed rounds have parameters of their own"


def test_everything_is_made_again_to_the_same_bytes(clone: Path) -> None:
    made = [path for path in clone.glob("data/rounds/*/*") if path.name in OUTPUTS]
    digests = {path: md5(path) for path in made}
    assert len(made) == 6 * 3 + 2
    for path in made:
        path.unlink()
    cache = clone / ".dvc" / "cache" / "files" / "md5"
    for digest in digests.values():
        (cache / digest[:2] / digest[2:]).unlink(missing_ok=True)
    said = run(clone, "dvc", "repro", "evaluate@002", "gate@002").stdout
    assert "Running stage 'evaluate@002'" in said
    again = {path: md5(path) for path in made if path.exists()}
    wanted = {p for p in made if p.parent.name == "002" and p.name != "attack.parquet"}
    assert wanted < again.keys(), "the round, and the target it started from"
    assert again.items() <= digests.items()
    changed = run(clone, "git", "status", "--porcelain").stdout.splitlines()
    assert [line for line in changed if not line.startswith(" D")] == [], "dvc.lock and metrics.json are what they were"


def test_a_closed_round_is_never_redefined(clone: Path) -> None:
    path = clone / "tasks" / "evaluation" / "predictions.py"
    path.write_text(path.read_text().replace('"heal": metrics', '"healed": metrics'))
    done = run(clone, "dvc", "repro", "--force", "--single-item", "evaluate@001", check=False)
    assert done.returncode != 0
    assert "it can be made again, never redefined; `git checkout round-001` has its code" in done.stdout + done.stderr
    run(clone, "dvc", "checkout", "--quiet")
    run(clone, "git", "checkout", "--quiet", ".")
    assert "up to date" in run(clone, "dvc", "status").stdout


def test_the_tag_is_the_round_and_elsewhere_its_figures_agree(
    three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = fresh(three, tmp_path / "clone")  # of a copied one, DVC would not take files away that it did not put there
    run(clone, "git", "checkout", "--quiet", "round-001")
    run(clone, "dvc", "checkout", "--quiet")
    assert "up to date" in run(clone, "dvc", "status").stdout
    assert not Workspace(clone).round(2).challenger.model.exists()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # torch then uses no vector instructions
    said = run(clone, "dvc", "repro", "--force", "--single-item", "evaluate@001").stdout
    assert "made again in another environment (cpu" in said
    assert "figures lie within the intervals of round-001" in said


def test_rounds_are_laid_side_by_side(clone: Path) -> None:
    last = run(clone, "dvc", "metrics", "diff", "round-001").stdout
    assert ["round", "1", "2", "1"] in [line.split()[1:] for line in last.splitlines()], "at one path in both"
    run(clone, "dvc", "plots", "show", "--out", "plots")
    page = (clone / "plots" / "index.html").read_text()
    for title in ("accuracy over rounds", "module robust criticality"):
        assert title in page
    assert "accuracy by radius" not in page, "of one radius there is no curve"
    assert '"values": [{' in page
    assert max(map(len, run(clone, "dvc", "metrics", "show").stdout.splitlines())) <= 120
    facts = json.loads(dadc(clone, "compare", "1", "2", "--json", "--html", "charts.html").stdout)
    accuracy = [
        json.loads(Workspace(clone).round(n).challenger.metrics.read_text())["clean"]["accuracy"] for n in (1, 2)
    ]
    clean = facts["figures"][0]
    assert (clean["figure"], clean["before"]["share"], clean["after"]["share"]) == ("clean", *accuracy)
    charts = (clone / "charts.html").read_text()
    assert charts.count("<svg") >= 2
    assert "<script" not in charts
    rows = (clone / "data" / "rounds" / "plots" / "accuracy.csv").read_text().splitlines()
    assert rows[0] == "round,accuracy,series"
    assert {row.split(",")[0] for row in rows[1:]} == {"000", "001", "002"}
    assert "| evaluate |" in run(clone, "dvc", "dag", "--collapse-foreach-matrix").stdout


def test_every_number_follows_from_the_record(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{three}/.dadc/mlflow.db")
    round_ = Workspace(three).round(1)

    def faults() -> list[str]:
        seen, found = verify(load(three), 1)
        assert len(seen) == 3
        return found

    def tampered(path: Path, change: Callable[[], None]) -> list[str]:
        before = path.read_bytes()
        path.chmod(0o644)
        change()
        found = faults()
        path.write_bytes(before)
        return found

    assert faults() == []
    content = json.loads(round_.challenger.metrics.read_text())
    wrong = {**content, "clean": {**content["clean"], "accuracy": 0.999}}
    found = tampered(round_.challenger.metrics, lambda: write_whole(round_.challenger.metrics, json.dumps(wrong)))
    assert any(line.startswith("clean.accuracy: 0.999 in metrics.json") for line in found)
    assert any("in MLflow, 0.999 in metrics.json" in line for line in found)
    shard = read_candidates(round_.candidates)
    other = [replace(shard[0], verdict=Verdict.REJECTED if shard[0].verified else Verdict.VERIFIED), *shard[1:]]
    found = tampered(round_.candidates, lambda: write_candidates(round_.candidates, other))
    assert any(f"{shard[0].key}: verdict" in line for line in found)
    assert any("candidates.parquet is not the file that round-001 holds" in line for line in found)
    lines = round_.annotations.read_bytes().splitlines(keepends=True)
    gone = [line for line in lines if json.loads(line)["kind"] == "draw"][-1]
    kept = b"".join(line for line in lines if line != gone)
    found = tampered(round_.annotations, lambda: write_whole(round_.annotations, kept))
    assert any("is in candidates.parquet alone" in line for line in found)

    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    (experiment,) = client.search_experiments(filter_string="attribute.name != 'Default'")
    (logged,) = client.search_runs([experiment.experiment_id], "tags.\"dadc.round\" = '001'")
    client.log_metric(logged.info.run_id, "clean", 0.123)
    (told,) = faults()
    assert told == f"clean: 0.123 in MLflow, {flat_metrics(content)['clean']!r} in metrics.json"
