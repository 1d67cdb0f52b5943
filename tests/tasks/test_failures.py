"""Servers that fail: asked again with growing pauses, nothing done twice; a wrong token is not tried again."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bad_networks import Fault, misbehaving
from mlflow import MlflowClient

from data.layout import Workspace
from tasks import track
from tasks.labelling import http
from tasks.labelling.client import LabelStudio, connect
from tasks.labelling.http import LabellingError
from tasks.workspace.services import ServiceDown, find_services

PAGE = '<View><Image name="image" value="$image"/></View>'


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_failing_label_studio_is_asked_again_with_growing_pauses(stack: Path, status: int) -> None:
    known = find_services(stack)
    fault = Fault(lambda method, path: path == "/api/projects/", times=2, status=status)
    with misbehaving(known.label_studio_url or "", fault) as url:
        assert connect(replace(known, label_studio_url=url)).find("nothing of that name") is None
    first, second, third = fault.at
    assert third - second > second - first > 0.2


@pytest.mark.parametrize(
    ("status", "said", "tries"), [(500, "its log says why, try again", 3), (401, "did not accept the token", 1)]
)
def test_what_keeps_failing_is_said_and_a_wrong_token_is_not_tried_again(
    stack: Path, status: int, said: str, tries: int
) -> None:
    known = find_services(stack)
    fault = Fault(lambda method, path: path == "/api/projects/", times=99, status=status)
    with misbehaving(known.label_studio_url or "", fault) as url:
        studio = connect(replace(known, label_studio_url=url))
        with pytest.raises(LabellingError, match=said):
            studio.find("anything")
    assert len(fault.at) == tries


def test_one_that_does_not_answer_is_asked_again(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 1.0)
    known = find_services(stack)
    fault = Fault(lambda method, path: path == "/api/projects/", times=1, status=0)
    with misbehaving(known.label_studio_url or "", fault) as url:
        assert connect(replace(known, label_studio_url=url)).find("nothing of that name") is None
    assert len(fault.at) == 2


def test_what_was_stored_but_not_answered_is_there_once(stack: Path, studio: LabelStudio) -> None:
    known, name = find_services(stack), f"twice {uuid.uuid4().hex[:8]}"
    faults = [
        Fault(lambda method, path: (method, path) == ("POST", "/api/projects/"), times=1, status=502, after=True),
        Fault(lambda method, path: method == "POST" and path.endswith("/import"), times=1, status=502, after=True),
    ]
    with misbehaving(known.label_studio_url or "", *faults) as url:
        client = connect(replace(known, label_studio_url=url))
        project = client.ensure_project(name, PAGE, instruction="")
        assert client.publish(project, {f"k{n}": {"image": "data:,"} for n in range(3)}) == 3
    assert [len(fault.at) for fault in faults] == [2, 2], "each was sent twice"
    assert list(studio.projects(name)) == [name]
    everything = studio.changed(project, "1970-01-01T00:00:00.000000Z")
    assert sorted(task["data"]["key"] for task in everything) == ["k0", "k1", "k2"]


@pytest.fixture
def store(stack: Path) -> Any:
    """An experiment of one's own."""
    name, known = f"t-{uuid.uuid4().hex[:8]}", find_services(stack)
    return name, MlflowClient(known.mlflow_url).create_experiment(name), known.mlflow_url


def test_a_run_that_was_made_twice_is_there_once(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    name, experiment, address = store
    fault = Fault(lambda method, path: path.endswith("/runs/create"), times=1, status=502, after=True)
    with misbehaving(address, fault) as url:
        made = track._Store(MlflowClient(url, url), experiment, name).create("001", "round-001")
    assert len(fault.at) == 2
    (found,) = MlflowClient(address).search_runs([experiment])
    assert found.info.run_id == made.info.run_id


def test_an_mlflow_that_refuses_is_not_asked_again(stack: Path, initialised: Path) -> None:
    known = find_services(stack)
    fault = Fault(lambda method, path: "experiments" in path, times=99, status=401)
    with (
        misbehaving(known.mlflow_url or "", fault) as url,
        pytest.raises(ServiceDown, match="MLflow server does not answer"),
    ):
        track.rebuild(Workspace(initialised), replace(known, mlflow_url=url), Workspace(initialised).round(0))
    assert len(fault.at) == 1
