"""Rounds in a real MLflow server, and its pages in a real browser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from conftest import chromium
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from round_states import CLOSED_AT, OPENED_AT, mark_closed, mark_opened

from data.files import md5, write_whole
from data.layout import Round, Workspace
from data.records import Candidate
from data.shards import encode_png, write_candidates
from models import nsl_cnn
from tasks.engine import checkpoint
from tasks.promote import decide, outcome
from tasks.track import disagreements, figures, flat_metrics, flat_params, rebuild, track, verdicts
from tasks.workspace.git import git
from tasks.workspace.services import ServiceDown, Services, find_services

PICTURES = Path(__file__).parents[2] / "docs" / "images"  # written anew with DADC_SCREENSHOTS=1
CLEAN = {0: 0.91, 1: 0.94}


def write_round(workspace: Workspace, number: int, champion: int = 0) -> Round:
    """A closed round as the stages leave it, with a real network and a small shard."""
    round_ = workspace.round(number)
    round_.folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(workspace.params, round_.params)
    image = encode_png(torch.full((1, 28, 28), number, dtype=torch.uint8))
    write_candidates(round_.candidates, [Candidate(f"{number}-a", number, "simulated", image, 3)] * number)
    torch.manual_seed(number)
    classes = tuple("0123456789")
    checkpoint.save(
        round_.challenger.model,
        nsl_cnn.build(10, 1, 28),
        checkpoint.Card("nsl_cnn", classes, channels=1, size=28, round=number),
    )
    accuracy = {"accuracy": CLEAN[number], "n": 800, "low": CLEAN[number] - 0.02, "high": CLEAN[number] + 0.02}
    metrics: dict[str, Any] = {
        "round": number,
        "collected": number,
        "mer": 0.25 if number else None,
        "vmer": {"low": 0.125, "high": 0.5},
        "clean": accuracy,
        "robust": {"fgsm": accuracy, "pgd": {**accuracy, "accuracy": 0.5 + number / 10}},
        "ood": {"affine": accuracy, "mean": accuracy},
        "gate": {"promoted": champion == number, "reasons": ["of a test"]},
        "promoted": champion == number,
        "champion": champion,
    }
    write_whole(round_.challenger.metrics, json.dumps(metrics))
    code = git(workspace, "rev-parse", "HEAD")
    mark_opened(round_)
    write_whole(round_.lineage, json.dumps({"round": number, "code": code, "shards": []}))
    git(workspace, "add", "--force", str(round_.folder))
    mark_closed(round_)
    return round_


@pytest.fixture
def campaign(make_workspace: Callable[..., Path]) -> Workspace:
    """A campaign with two closed rounds; its commit of the data, by which MLflow knows it, is no other test's."""
    workspace = Workspace(make_workspace())
    write_whole(workspace.splits, "{}")
    git(workspace, "add", "--force", str(workspace.splits))
    git(workspace, "commit", "--quiet", "--message", "data", "--message", uuid4().hex)  # two may be made in one second
    write_round(workspace, 0)
    write_round(workspace, 1, champion=1)
    return workspace


@pytest.fixture
def mlflow(services: Path) -> Services:
    return find_services(services)


def runs(mlflow: Services, workspace: Workspace) -> dict[str, Run]:
    """The campaign's runs by name; fails if two share one."""
    client = MlflowClient(mlflow.mlflow_url)
    origin = git(workspace, "log", "--format=%H", "--grep=^data$")
    (experiment,) = client.search_experiments(filter_string=f"tags.`dadc.origin` = '{origin}'")
    found = client.search_runs([experiment.experiment_id])
    named = {each.info.run_name: each for each in found}
    assert len(named) == len(found)
    return named


def versions(mlflow: Services, workspace: Workspace) -> dict[str, Any]:
    """The model versions of the campaign, by round."""
    client = MlflowClient(mlflow.mlflow_url)
    (experiment,) = {each.info.experiment_id for each in runs(mlflow, workspace).values()}
    name = client.get_experiment(experiment).name
    return {v.tags["dadc.round"]: v for v in client.search_model_versions(f"name = '{name}'")}


def test_a_round_becomes_a_run_with_every_figure(mlflow: Services, campaign: Workspace, tmp_path: Path) -> None:
    round_ = campaign.round(1)
    track(round_, mlflow, champion=round_)
    found = runs(mlflow, campaign)
    assert set(found) == {"round-001", "campaign"}
    logged = found["round-001"]
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["clean"] == CLEAN[1]
    assert logged.data.metrics["robust.pgd"] == 0.6
    assert logged.data.metrics == flat_metrics(json.loads(round_.challenger.metrics.read_text()))
    assert logged.data.params["train.loss.params.norm"] == "linf"
    assert logged.data.params["seed"] == "0"
    assert logged.data.tags["dadc.data"] == md5(round_.candidates)
    assert logged.data.tags["dadc.tag"] == "round-001"
    assert logged.data.tags["dadc.code"] == json.loads(round_.lineage.read_text())["code"]
    there = download_artifacts(
        run_id=logged.info.run_id, tracking_uri=mlflow.mlflow_url, dst_path=str(tmp_path / "artifacts")
    )
    assert {p.name for p in Path(there).iterdir()} == {"metrics.json", "params.yaml", "lineage.json"}
    assert (Path(there) / "metrics.json").read_bytes() == round_.challenger.metrics.read_bytes()


def test_the_model_is_safetensors_and_the_champion_has_the_alias(
    mlflow: Services, campaign: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuild(campaign, mlflow, champion=campaign.round(1))
    found = versions(mlflow, campaign)
    assert set(found) == {"000", "001"}
    client = MlflowClient(mlflow.mlflow_url)
    crowned = client.get_model_version_by_alias(found["001"].name, "champion")
    assert crowned.version == found["001"].version
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.mlflow_url or "")
    there = Path(download_artifacts(f"models:/{crowned.name}@champion", dst_path=str(tmp_path / "model")))
    (file,) = [p for p in there.rglob("*") if p.is_file() and p.name != "registered_model_meta"]
    assert file.read_bytes() == campaign.round(1).challenger.model.read_bytes()
    assert checkpoint.load(file)[1].round == 1
    track(campaign.round(1), mlflow, champion=campaign.round(0))
    assert client.get_model_version_by_alias(crowned.name, "champion").version == found["000"].version


def test_what_was_done_is_logged(mlflow: Services, campaign: Workspace) -> None:
    """The loss that round 000 was trained with, when each round began and ended, and what became of its challenger."""
    rebuild(campaign, mlflow, campaign.round(1), outcome)
    first, second = (runs(mlflow, campaign)[name] for name in ("round-000", "round-001"))
    assert (first.data.params["train.loss.name"], second.data.params["train.loss.name"]) == ("plain", "nsl")
    assert (first.data.params["rift.enabled"], second.data.params["rift.enabled"]) == ("false", "true")
    assert not any(name.startswith("first.") for name in second.data.params)
    for run in (first, second):
        at = [datetime.fromtimestamp(each / 1000, UTC).isoformat() for each in (run.info.start_time, run.info.end_time)]
        assert at == [OPENED_AT, CLOSED_AT]

    def tags() -> list[tuple[str, str, str]]:
        found = runs(mlflow, campaign)
        return [
            tuple(found[f"round-{n}"].data.tags[tag] for tag in ("promoted", "champion", "reason"))  # type: ignore[misc]
            for n in ("000", "001")
        ]

    assert tags() == [("true", "false", "of a test"), ("true", "true", "of a test")]
    decide(campaign.round(1), False, "it learned a watermark")
    decide(campaign.round(0), True, "the last that is sound")
    rebuild(campaign, mlflow, champion=campaign.round(0), outcome=outcome)
    assert tags() == [("true", "true", "the last that is sound"), ("false", "false", "it learned a watermark")]
    logged = MlflowClient(mlflow.mlflow_url).list_artifacts(second.info.run_id)
    assert "decision.json" in {each.path for each in logged}


def test_a_second_time_changes_nothing(mlflow: Services, campaign: Workspace) -> None:
    def picture() -> object:
        found = runs(mlflow, campaign)
        client = MlflowClient(mlflow.mlflow_url)
        history = {name: len(client.get_metric_history(each.info.run_id, "clean")) for name, each in found.items()}
        entries = {name: (each.info.run_id, each.data.to_dictionary()) for name, each in found.items()}
        return entries, history, {k: (v.version, v.aliases) for k, v in versions(mlflow, campaign).items()}

    rebuild(campaign, mlflow, champion=campaign.round(1))
    before = picture()
    rebuild(campaign, mlflow, champion=campaign.round(1))
    track(campaign.round(0), mlflow)
    assert picture() == before


def test_what_was_cut_short_goes_on_in_the_same_run(mlflow: Services, campaign: Workspace) -> None:
    track(campaign.round(1), mlflow)
    client = MlflowClient(mlflow.mlflow_url)
    before = runs(mlflow, campaign)["round-001"].info.run_id
    client.update_run(before, status="RUNNING")
    track(campaign.round(1), mlflow)
    after = runs(mlflow, campaign)["round-001"]
    assert (after.info.run_id, after.info.status) == (before, "FINISHED")
    assert len(client.get_metric_history(before, "clean")) == 1
    assert set(versions(mlflow, campaign)) == {"001"}


ASKED = (
    *("create_experiment", "create_run", "log_batch", "log_artifact", "create_logged_model", "log_model_artifact"),
    *("finalize_logged_model", "log_outputs", "create_registered_model", "create_model_version", "set_terminated"),
    "set_registered_model_alias",
)


def test_the_answer_to_each_kind_of_request_is_lost_once(
    mlflow: Services, campaign: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: set[str] = set()

    def losing(name: str) -> Callable[..., Any]:
        inner = getattr(MlflowClient, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            answer = inner(*args, **kwargs)
            if name not in lost:
                lost.add(name)
                raise MlflowException("the answer was lost")
            return answer

        return outer

    with monkeypatch.context() as patch:
        for name in ASKED:
            patch.setattr(MlflowClient, name, losing(name))
        for before in range(len(ASKED)):
            with pytest.raises(ServiceDown, match="the answer was lost"):
                track(campaign.round(1), mlflow, champion=campaign.round(1))
            assert len(lost) == before + 1
        track(campaign.round(1), mlflow, champion=campaign.round(1))
    assert lost == set(ASKED)
    assert {name: run.info.status for name, run in runs(mlflow, campaign).items()} == {
        "round-001": "FINISHED",
        "campaign": "FINISHED",
    }
    client, found = MlflowClient(mlflow.mlflow_url), versions(mlflow, campaign)
    history = client.get_metric_history(runs(mlflow, campaign)["round-001"].info.run_id, "clean")
    assert [entry.value for entry in history] == [CLEAN[1]]
    assert set(found) == {"001"}
    assert client.get_model_version_by_alias(found["001"].name, "champion").version == found["001"].version


def test_the_campaign_run_has_a_step_per_round(mlflow: Services, campaign: Workspace) -> None:
    rebuild(campaign, mlflow)
    run_id = runs(mlflow, campaign)["campaign"].info.run_id
    history = MlflowClient(mlflow.mlflow_url).get_metric_history(run_id, "clean")
    assert {entry.step: entry.value for entry in history} == CLEAN


def test_an_experiment_may_be_renamed_and_a_version_that_is_gone_comes_back(
    mlflow: Services, campaign: Workspace
) -> None:
    rebuild(campaign, mlflow, champion=campaign.round(0))
    before = versions(mlflow, campaign)
    client = MlflowClient(mlflow.mlflow_url)
    (experiment,) = {each.info.experiment_id for each in runs(mlflow, campaign).values()}
    client.rename_experiment(experiment, f"renamed-{experiment}")
    client.delete_model_version(before["001"].name, before["001"].version)
    track(campaign.round(1), mlflow, champion=campaign.round(1))
    found = client.get_model_version_by_alias(before["001"].name, "champion")
    assert found.tags["dadc.round"] == "001"
    assert disagreements(campaign.round(1), mlflow, campaign.round(1)) == []
    assert {run.info.status for run in runs(mlflow, campaign).values()} == {"FINISHED"}


def test_other_files_replace_the_run(mlflow: Services, campaign: Workspace) -> None:
    rebuild(campaign, mlflow)
    before = runs(mlflow, campaign)
    round_ = campaign.round(1)
    content = json.loads(round_.challenger.metrics.read_text())
    content["clean"]["accuracy"] = 0.75
    write_whole(round_.challenger.metrics, json.dumps(content))
    track(round_, mlflow)
    after = runs(mlflow, campaign)
    assert after["round-001"].info.run_id != before["round-001"].info.run_id
    assert after["round-000"].info.run_id == before["round-000"].info.run_id
    history = MlflowClient(mlflow.mlflow_url).get_metric_history(after["campaign"].info.run_id, "clean")
    assert {entry.step: entry.value for entry in history} == {0: CLEAN[0], 1: 0.75}
    assert set(versions(mlflow, campaign)) == {"000", "001"}


def test_no_server_and_a_dead_one_are_one_clear_line(campaign: Workspace, services: Path) -> None:
    nobody = Services()
    with pytest.raises(ServiceDown, match="MLflow server does not answer, no address is known"):
        track(campaign.round(0), nobody)
    dead = Services(mlflow_url="http://127.0.0.1:1")
    with pytest.raises(ServiceDown, match=r"127\.0\.0\.1:1"):
        track(campaign.round(0), dead)


def test_the_gates_figures_are_numbers_and_its_verdicts_tags(tmp_path: Path) -> None:
    round_ = Workspace(tmp_path).round(1)
    round_.folder.mkdir(parents=True)
    round_.challenger.metrics.write_text('{"clean": {"accuracy": 0.5, "n": 10}}')
    assert (figures(round_), verdicts(round_)) == ({"clean": 0.5, "clean.n": 10}, {})
    robust = {"difference": 0.031, "low": 0.012, "high": 0.05, "n": 240, "verdict": "better", "more": None}
    gate = {"verdict": "better", "promoted": True, "target": {"robust": robust}, "accuracy": {"clean": 0.9}}
    round_.gate.write_text(json.dumps(gate))
    found = figures(round_)
    assert (found["clean"], found["gate.clean"], found["gate.promoted"]) == (0.5, 0.9, 1)
    assert (found["gate.target.robust.difference"], found["gate.target.robust.n"]) == (0.031, 240)
    assert verdicts(round_) == {
        "dadc.gate": "better",
        "dadc.gate.target.robust": "robust +3.1 points [+1.2, +5.0], n 240: better",
    }


def test_names_of_figures_and_parameters() -> None:
    metrics = {
        "round": 3,
        "mer": None,
        "promoted": True,
        "clean": {"accuracy": 0.5, "n": 10, "low": 0.2},
        "heal": {"rate": 0.1, "held_out": {"rate": None, "n": 0}},
        "gate": {"reasons": ["x"], "gain": -0.5},
    }
    wanted = {"promoted": 1, "clean": 0.5, "clean.n": 10, "clean.low": 0.2, "heal": 0.1, "heal.held_out.n": 0}
    assert flat_metrics(metrics) == {**wanted, "gate.gain": -0.5}
    assert flat_params({"a": {"b": 1, "c": {}}, "d": None, "e": "x"}) == {
        "a.b": "1",
        "a.c": "{}",
        "d": "null",
        "e": "x",
    }


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of the real browser."""
    from playwright.sync_api import sync_playwright

    browser_path = chromium()
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, headless=True, args=quiet)
        yield browser.new_page(viewport={"width": 1400, "height": 900})
        browser.close()


def test_the_browser_compares_two_rounds(mlflow: Services, campaign: Workspace, page: Any, tmp_path: Path) -> None:
    rebuild(campaign, mlflow, champion=campaign.round(1))
    found = runs(mlflow, campaign)
    experiment = found["campaign"].info.experiment_id
    page.goto(f"{mlflow.mlflow_url}/#/experiments/{experiment}/runs", timeout=60_000)
    for name in ("round-000", "round-001"):
        page.get_by_role("link", name=name, exact=True).first.wait_for(timeout=60_000)
    ids = json.dumps([found[name].info.run_id for name in ("round-000", "round-001")])
    page.goto(f"{mlflow.mlflow_url}/#/compare-runs?runs={ids}&experiments={json.dumps([experiment])}", timeout=60_000)
    page.get_by_role("button", name="Close", exact=True).click()  # MLflow's assistant covers a third of the page
    page.get_by_text("Show diff only", exact=True).nth(1).click()  # parameters, metrics, tags
    figure = page.get_by_role("link", name="clean", exact=True)
    figure.wait_for(timeout=60_000)
    figure.scroll_into_view_if_needed()
    shown = page.inner_text("main").splitlines()
    assert {"round-000", "round-001", "clean", str(CLEAN[0]), str(CLEAN[1])} <= {line.strip() for line in shown}
    box = figure.bounding_box()
    page.mouse.move(box["x"] + 400, box["y"])  # the values scroll, and the names with them
    pgd = page.get_by_role("link", name="robust.pgd", exact=True)
    for _ in range(20):
        if pgd.is_visible():
            break
        page.mouse.wheel(0, 100)
        page.wait_for_timeout(200)
    assert {"0.5", "0.6"} <= set(page.inner_text("main").splitlines())
    folder = PICTURES if os.environ.get("DADC_SCREENSHOTS") else tmp_path
    page.screenshot(path=str(folder / "mlflow-compare.png"))
