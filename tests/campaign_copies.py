"""A campaign whose open round can be killed, copied and moved: shared by the tests that do so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import run, shared_secret
from open_round import model_server

from data.files import md5
from data.layout import Workspace
from data.shards import read_candidates
from tasks.config.params import read
from tasks.labelling.client import connect
from tasks.labelling.projects import KINDS, title
from tasks.record.annotations import read_lines
from tasks.workspace.git import git
from tasks.workspace.services import Services, find_services

CRASH = Path(__file__).parent / "crash"
COMMANDS = {  # what is watched and killed, and how it is given; the gate does not promote round 001, so a person does
    "open": ["open"],
    "simulate": ["simulate"],
    "close": ["close"],
    "decide": ["decide", "1", "--promote", "--why", "to see it done"],
}


@dataclass
class Ground:
    """Where it is done: copies of one workspace on the session's servers, each with an MLflow store of its own."""

    folder: Path
    stack: Path
    environment: dict[str, str]
    zygote: subprocess.Popen[str]
    points: dict[str, list[str]] = field(default_factory=dict)
    unharmed: dict[str, Any] = field(default_factory=dict)
    killed: set[tuple[str, str]] = field(default_factory=set)  # command and point

    def dadc(self, root: Path, *arguments: str, at: str = "", whom: str = "self") -> tuple[int, list[str]]:
        """Run `dadc`; its exit status, and the points it came by."""
        log = self.folder / f"{uuid.uuid4().hex}.points"
        environment = {**self.environment, "CRASH_LOG": str(log), "CRASH_AT": at, "CRASH_WHOM": whom}
        environment.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{root}/.dadc/mlflow.db")
        asked = {
            "root": str(root),
            "arguments": arguments,
            "environment": environment,
            "log": str(self.folder / f"{root.name}.log"),
        }
        assert self.zygote.stdin is not None
        assert self.zygote.stdout is not None
        self.zygote.stdin.write(json.dumps(asked) + "\n")
        self.zygote.stdin.flush()
        code = int(self.zygote.stdout.readline())
        return code, log.read_text().splitlines() if log.exists() else []

    def copy(self, of: str, name: str) -> Path:
        """A copy of a workspace, whose DVC remembers no run, so that the stages do run; of one whose round is not open
        yet, with projects of its own in Label Studio."""
        runs = shutil.ignore_patterns("runs")
        root = Path(shutil.copytree(self.folder / of, self.folder / name, symlinks=True, ignore=runs))
        if of == "begin" and name != "unharmed":
            splits = root / "data" / "base" / "splits.json"
            content = json.loads(splits.read_text())
            splits.write_text(json.dumps({**content, "id": uuid.uuid4().hex[:6]}))
            run(root, "git", "commit", "--quiet", "--all", "--message", "another campaign")
        return root

    def said(self, root: Path) -> str:
        return (self.folder / f"{root.name}.log").read_text()[-3000:]


@contextmanager
def make_ground(stack: Path, template: Path, folder: Path) -> Iterator[Ground]:
    """Round 000 is closed in `begin`; an unharmed round 001 was watched from there, in `unharmed`."""
    begin = Path(shutil.copytree(template, folder / "begin", symlinks=True))
    services = find_services(stack)
    environment = {
        "LABEL_STUDIO_URL": services.label_studio_url or "",
        "LABEL_STUDIO_API_KEY": services.label_studio_token or "",
        "DADC_SECRET": shared_secret(stack),
        "PREFECT_API_URL": services.prefect_url or "",
        "PREFECT_API_AUTH_STRING": services.prefect_auth or "",
        "PREFECT_HOME": str(folder / "prefect"),
        "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    }
    zygote = subprocess.Popen(
        [sys.executable, str(CRASH / "zygote.py")],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **environment, "PYTHONPATH": f"{CRASH}{os.pathsep}{Path(__file__).parents[1]}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert zygote.stdin is not None
    assert zygote.stdout is not None
    assert zygote.stdout.readline() == "ready\n"
    made = Ground(folder, stack, environment, zygote)
    try:
        assert made.dadc(begin, "run", "--rounds", "0")[0] == 0, made.said(begin)
        with model_server(begin) as model:
            environment |= {
                "DADC_MODEL_URL": model.model_url or "",
                "DADC_MODEL_USER": model.model_user or "",
                "DADC_MODEL_PASSWORD": model.model_password or "",
            }
            watch(made)
            yield made
    finally:
        zygote.stdin.close()
        zygote.wait(30)


def watch(ground: Ground) -> None:
    """The unharmed round: its points, in the order in which they are first reached, and what it ends with."""
    root = ground.copy("begin", "unharmed")
    for command, words in COMMANDS.items():
        if command == "close":
            ground.copy("unharmed", "collected")
        if command == "decide":
            root = ground.copy("unharmed", "decided")
        code, points = ground.dadc(root, *words)
        assert code == 0, ground.said(root)
        ground.points[command], ground.unharmed[command] = list(dict.fromkeys(points)), outcome(ground, root)


def outcome(ground: Ground, root: Path, services: Services | None = None) -> dict[str, Any]:
    """What a round came to, without what differs from campaign to campaign: ids and times. services: those of its Label
    Studio, if it is not the session's."""
    workspace = Workspace(root)
    round_ = workspace.round(1)
    studio, params = connect(services or find_services(ground.stack)), read(round_.params)
    asked: dict[str, Any] = {}
    for kind in KINDS:
        project = studio.find(title(params.campaign, round_, kind))
        found = [] if project is None else list(studio.changed(project, "1970-01-01T00:00:00.000000Z"))
        asked[kind] = sorted((t["data"]["key"], sorted(str(a["result"]) for a in t["annotations"])) for t in found)
        assert max(Counter(t["data"]["key"] for t in found).values(), default=1) == 1, "no task is published twice"
    record = sorted(
        (line.kind, line.task, line.author, line.deleted, str(line.raw["result"]))
        for line in read_lines(round_.annotations)
    )
    assert len(set(record)) == len(record), "no annotation is pulled twice"
    shard = []
    if round_.candidates.exists():
        for c in read_candidates(round_.candidates):
            votes = sorted((v.validator, v.choice, v.counted, v.reason) for v in c.votes)
            shard.append((c.key, c.source, c.image, c.intended, c.annotator, c.answer, c.verdict, c.split, votes))
    digests = {
        p.name: md5(p)
        for p in (round_.attack, round_.challenger.trained, round_.challenger.model, round_.challenger.metrics)
        if p.exists()
    }
    return {
        "asked": asked,
        "record": record,
        "shard": shard,
        "digests": digests,
        "files": sorted(p.name for p in round_.folder.iterdir()),
        "commits": git(workspace, "log", "--format=%s", "--grep=round 001").splitlines(),
        "tags": git(workspace, "tag").splitlines(),
        "changed": git(workspace, "status", "--porcelain", "--", "data", "dvc.lock"),
        "runs": logged(root),
    }


def logged(root: Path) -> dict[str, Any]:
    """What MLflow holds: runs by round, figures in each, versions of the model."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root}/.dadc/mlflow.db")
    found: dict[str, Any] = {}
    for experiment in client.search_experiments(filter_string="attribute.name != 'Default'"):
        for each in client.search_runs([experiment.experiment_id]):
            name = each.data.tags["dadc.round"]
            assert name not in found, "one run per round"
            history = client.get_metric_history(each.info.run_id, "clean")
            found[name] = (each.info.status, each.data.metrics, sorted((m.step, m.value) for m in history))
        versions = client.search_model_versions(f"name = '{experiment.name}'")
        found["versions"] = sorted((v.tags["dadc.round"], v.aliases) for v in versions)
        models = client.search_logged_models([experiment.experiment_id])
        found["models"] = sorted(m.name for m in models)
    return found


def assert_same(found: dict[str, Any], wanted: dict[str, Any], killed: list[str]) -> None:
    for part, content in wanted.items():
        assert found[part] == content, f"{part} after {killed}"
