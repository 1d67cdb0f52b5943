"""A closed round → MLflow: a projection of the round's files, which `rebuild` makes again from nothing.

An experiment per campaign; in it a run per round, and one campaign run with step = round, which draws the curves over
rounds. Models are stored as safetensors: nothing is pickled. The only importer of MLflow.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.files import md5
from data.layout import Round, Workspace
from tasks.config.params import Params, read
from tasks.evaluation.gate_words import line
from tasks.workspace.environment import bypass_proxies
from tasks.workspace.git import commits_adding
from tasks.workspace.rounds import closed, closed_at, opened_at
from tasks.workspace.services import ServiceDown, Services

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHAMPION = "champion"  # the alias, and the tag of runs
MODEL = "dadc.model"  # the tag of the experiment that names the registered model
BATCH = 100  # metrics or parameters in one request; MLflow takes no more


def track(
    round_: Round, services: Services, champion: Round | None = None, outcome: Mapping[str, str] | None = None
) -> None:
    """Log the round, once; give the alias and the tag `champion` to the champion's, or leave them if None.

    outcome: tags that a decision by hand may change later, `promoted` and `reason`. What is logged already from the
    same files is left as it is; from other files, it is replaced.
    """
    store = _connect(round_.workspace, services)
    origin = digest(round_)
    with _answering(services):
        run = store.run(round_.name)
        if run and run.data.tags.get("dadc.digest", origin) != origin:
            store.drop(round_.name)
            run = None
        if run is None or run.info.status != "FINISHED" or store.version(round_.name) is None:
            began = int(1000 * opened_at(round_))
            _log(store, run or store.create(round_.name, f"round-{round_.name}", began), round_, origin)
        if outcome and (run := store.run(round_.name)) and store.label(run, outcome) and round_.decision.exists():
            store.client.log_artifact(run.info.run_id, str(round_.decision))
        if champion is not None:
            store.crown(champion.name)


def check(services: Services) -> None:
    """ServiceDown if there is no server or it does not answer; nothing is made there."""
    client = _client(services)
    with _answering(services):
        client.search_experiments(max_results=1)


def rebuild(
    workspace: Workspace,
    services: Services,
    champion: Round | None = None,
    outcome: Callable[[Round], Mapping[str, str]] | None = None,
) -> None:
    """Log every closed round, from the rounds' own files. outcome: of a closed round, as for `track`."""
    for round_ in closed(workspace):
        track(round_, services, outcome=outcome(round_) if outcome else None)
    if champion is not None:
        store = _connect(workspace, services)
        with _answering(services):
            store.crown(champion.name)


def disagreements(round_: Round, services: Services, best: Round | None) -> list[str]:
    """Where MLflow tells of a round, or of the campaign's champion, otherwise than the files do, a line each.

    best: the champion by the rounds' files. ServiceDown if MLflow does not answer.
    """
    store = _connect(round_.workspace, services)
    with _answering(services):
        run, crowned = store.run(round_.name), None if best is None else store.crowned()
    if run is None:
        return [f"MLflow has no run of round {round_.name}; `dadc track` logs it"]
    found = []
    told, wanted = run.data.metrics, figures(round_)
    for name in sorted(told.keys() | wanted.keys()):
        if told.get(name) != wanted.get(name):
            found.append(f"{name}: {told.get(name)!r} in MLflow, {wanted.get(name)!r} in metrics.json")
    if run.data.tags.get("dadc.digest") != digest(round_):
        found.append("MLflow's run was logged from other files than lie here; `dadc track` logs it anew")
    if best is not None and crowned != best.name:
        found.append(f"MLflow's champion is round {crowned or 'none'}, by the rounds it is {best.name}")
    return found


def flat_metrics(content: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """metrics.json as names and numbers: `clean`, `robust.pgd`, `robust.pgd.low`, `ood.mean`, `mer`, `vmer.low`, …

    An accuracy or a rate bears its parent's name; what is null, or is no number, is left out.
    """
    flat: dict[str, float] = {}
    for key, value in content.items():
        name = prefix if key in ("accuracy", "rate") and prefix else f"{prefix}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            flat |= flat_metrics(value, name)
        elif isinstance(value, int | float) and name != "round":
            flat[name] = float(value)
    return flat


def figures(round_: Round) -> dict[str, float]:
    """The numbers of metrics.json and, where the gate is a stage, of gate.json under `gate.`."""
    found = flat_metrics(json.loads(round_.challenger.metrics.read_text()))
    if round_.gate.exists():
        found |= flat_metrics(json.loads(round_.gate.read_text()), "gate")
    return found


def verdicts(round_: Round) -> dict[str, str]:
    """The gate's verdicts as tags: `dadc.gate`, and `dadc.gate.target.clean` with difference, interval and n."""
    if not round_.gate.exists():
        return {}
    content = json.loads(round_.gate.read_text())
    tags = {"dadc.gate": str(content["verdict"])}
    for against in ("target", "best", "reference"):
        for name, comparison in content.get(against, {}).items():
            tags[f"dadc.gate.{against}.{name}"] = line(name, comparison)
    return tags


def flat_params(content: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """params.yaml as names and texts: `train.loss.params.steps`, …"""
    flat: dict[str, str] = {}
    for key, value in content.items():
        name = f"{prefix}.{key}".lstrip(".")
        if isinstance(value, Mapping) and value:
            flat |= flat_params(value, name)
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def effective(params: Params, number: int) -> dict[str, Any]:
    """The parameters that took effect in a round: round 000 is trained and fine-tuned as `first` says, no other is."""
    content = params.model_dump(by_alias=True)
    first = content.pop("first")
    if number > 0:
        return content
    content["rift"]["enabled"] = params.rift.enabled and params.first.rift
    if params.first.weights is None:
        content["train"]["loss"] = first["loss"]
    else:
        del content["train"]
        content["first"] = {"weights": params.first.weights}
    return content


def digest(round_: Round) -> str:
    """One name for all that is logged of a round."""
    parts = [
        md5(path)
        for path in (
            round_.params,
            round_.candidates,
            round_.lineage,
            round_.challenger.model,
            round_.challenger.metrics,
            round_.gate,
        )
        if path.exists() or path != round_.gate
    ]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Store:
    """The campaign's experiment on an MLflow server, and its registered model."""

    client: MlflowClient
    experiment: str  # id
    name: str  # of the model, and of the experiment until somebody gives that another

    def run(self, round_name: str) -> Run | None:
        """The run of a round, or of the `campaign`."""
        found = self.client.search_runs([self.experiment], f"tags.\"dadc.round\" = '{round_name}'", max_results=1)
        return found[0] if found else None

    def create(self, round_name: str, title: str, began: int | None = None) -> Run:
        """A new run that began then, in milliseconds since 1970, or now.

        What a request made that was sent again, because its answer never came, is deleted.
        """
        tags = {"dadc.round": round_name, "dadc.campaign": self.name}
        made = self.client.create_run(self.experiment, began, tags, run_name=title)
        for other in self.client.search_runs([self.experiment], f"tags.\"dadc.round\" = '{round_name}'"):
            if other.info.run_id != made.info.run_id:
                self.client.delete_run(other.info.run_id)
        return made

    def model(self, run_id: str, name: str, tags: Mapping[str, str]) -> Any:
        """The run's LoggedModel, made if it is not there; one, whatever was killed or sent twice."""
        query = f"source_run_id = '{run_id}'"
        if not self.client.search_logged_models([self.experiment], query):
            self.client.create_logged_model(self.experiment, name, run_id, dict(tags), model_type="classifier")
        first, *others = sorted(
            self.client.search_logged_models([self.experiment], query), key=lambda m: m.creation_timestamp
        )
        for other in others:
            self.client.delete_logged_model(other.model_id)
        return first

    def version(self, round_name: str) -> Any | None:
        """The model version of a round."""
        return next((v for v in self.versions() if v.tags.get("dadc.round") == round_name), None)

    def versions(self) -> list[Any]:
        """All model versions."""
        return list(self.client.search_model_versions(f"name = '{self.name}'"))

    def drop(self, round_name: str) -> None:
        """Delete the run of a round that was logged from other files, and draw the campaign run again without it."""
        for name in (round_name, "campaign"):
            if run := self.run(name):
                self.client.delete_run(run.info.run_id)
        if version := self.version(round_name):
            self.client.delete_model_version(self.name, version.version)
        for run in self.client.search_runs([self.experiment], "attributes.status = 'FINISHED'", max_results=1000):
            if run.data.tags.get("dadc.round", "").isdigit():
                self.draw(run.data.tags["dadc.round"], run.data.metrics, run.info.start_time)

    def draw(self, round_name: str, metrics: Mapping[str, float], at: int) -> None:
        """Put a round's figures on the campaign's curves."""
        run = self.run("campaign") or self.create("campaign", "campaign")
        self.log_metrics(run.info.run_id, metrics, at, step=int(round_name))
        self.client.set_terminated(run.info.run_id)

    def log_metrics(
        self, run: str, metrics: Mapping[str, float], at: int, step: int = 0, model: str | None = None
    ) -> None:
        """at: milliseconds since 1970. The same figure at the same time and step is one figure."""
        from mlflow.entities import Metric

        entries = [Metric(name, value, at, step, model_id=model, run_id=run) for name, value in sorted(metrics.items())]
        for i in range(0, len(entries), BATCH):
            self.client.log_batch(run, metrics=entries[i : i + BATCH])

    def label(self, run: Run, tags: Mapping[str, str]) -> bool:
        """Put tags on a run; whether one was another before."""
        from mlflow.entities import RunTag

        if all(run.data.tags.get(name) == value for name, value in tags.items()):
            return False
        self.client.log_batch(run.info.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        return True

    def crown(self, round_name: str) -> None:
        """Give alias and tag to a round's model and run; a round that is not logged yet gets them when it is."""
        version = self.version(round_name)
        if version and self.crowned() != round_name:
            self.client.set_registered_model_alias(self.name, CHAMPION, version.version)
        for run in self.client.search_runs([self.experiment], max_results=1000):
            name = run.data.tags.get("dadc.round", "")
            if name.isdigit():
                self.label(run, {CHAMPION: "true" if name == round_name else "false"})

    def crowned(self) -> str:
        """The round whose model has the alias; empty if none has. A search does not tell aliases."""
        from mlflow.exceptions import MlflowException

        try:
            version = self.client.get_model_version_by_alias(self.name, CHAMPION)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return ""
        return str(version.tags.get("dadc.round", ""))


def _client(services: Services) -> MlflowClient:
    if not services.mlflow_url:
        raise ServiceDown("mlflow")
    bypass_proxies()
    os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"  # what was logged is read again at once
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    return MlflowClient(services.mlflow_url, services.mlflow_url)


def _connect(workspace: Workspace, services: Services) -> _Store:
    """The campaign's experiment, made if it is not there. ServiceDown if there is no server or it does not answer."""
    client = _client(services)
    from mlflow.entities import ViewType

    campaign, origin = read(workspace.params).campaign, _origin(workspace)
    with _answering(services):
        found = client.search_experiments(ViewType.ALL, filter_string=f"tags.\"dadc.origin\" = '{origin}'")
        if not found:
            name = campaign if client.get_experiment_by_name(campaign) is None else f"{campaign}-{origin[:7]}"
            tags = {"dadc.origin": origin, MODEL: name}
            return _Store(client, client.create_experiment(name, tags=tags), name)
        if found[0].lifecycle_stage == "deleted":
            client.restore_experiment(found[0].experiment_id)
    return _Store(client, found[0].experiment_id, found[0].tags.get(MODEL, found[0].name))


@contextmanager
def _answering(services: Services) -> Iterator[None]:
    """ServiceDown where the server does not answer, goes away under way or gives up; what was logged stays logged."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise ServiceDown("mlflow", services.mlflow_url, str(error).splitlines()[0][:200]) from error


def _origin(workspace: Workspace) -> str:
    """The commit that froze the campaign's data: two campaigns of one name on one server are told apart by it."""
    return commits_adding(workspace.splits, workspace)[-1]


def _log(store: _Store, run: Run, round_: Round, origin: str) -> None:
    """Log all of a round, or the rest of it; the run is finished last."""
    from mlflow.entities import Param, RunTag

    run_id, at = run.info.run_id, run.info.start_time
    lineage = json.loads(round_.lineage.read_text())
    metrics = figures(round_)
    tags = {
        "dadc.digest": origin,
        "dadc.data": md5(round_.candidates),
        "dadc.code": lineage["code"],
        "dadc.tag": round_.tag,
        "mlflow.source.git.commit": lineage["code"],
        **verdicts(round_),
    }
    chosen = read(round_.params)
    if came_to := lineage.get("environment", {}).get("precision"):
        chosen = chosen.with_precision(came_to)
    params = flat_params(effective(chosen, round_.number))
    entries = [Param(name, value) for name, value in sorted(params.items())]
    for i in range(0, len(entries), BATCH):
        store.client.log_batch(run_id, params=entries[i : i + BATCH])
    store.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    for path in (
        round_.params,
        round_.challenger.metrics,
        round_.lineage,
        round_.challenger.history,
        round_.challenger.rift,
        round_.gate,
        round_.decision,
    ):
        if path.exists():
            store.client.log_artifact(run_id, str(path))
    store.log_metrics(run_id, metrics, at, model=_log_model(store, run_id, round_, tags))
    store.draw(round_.name, metrics, at)
    store.client.set_terminated(run_id, end_time=int(1000 * (closed_at(round_) or time.time())))


def _log_model(store: _Store, run_id: str, round_: Round, tags: Mapping[str, str]) -> str:
    """The challenger as a LoggedModel and a version of the registered model; its model id."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    if version := store.version(round_.name):
        return str(version.tags["dadc.model"])
    model = store.model(run_id, f"round-{round_.name}", {**tags, "dadc.round": round_.name})
    store.client.log_model_artifact(model.model_id, str(round_.challenger.model))
    store.client.finalize_logged_model(model.model_id, "READY")
    outputs = store.client.get_run(run_id).outputs
    if not any(output.model_id == model.model_id for output in (outputs.model_outputs if outputs else ())):
        store.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])  # refused a second time
    try:
        store.client.create_registered_model(store.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    store.client.create_model_version(
        store.name,
        source=f"models:/{model.model_id}",
        run_id=run_id,
        model_id=model.model_id,
        await_creation_for=0,
        tags={"dadc.round": round_.name, "dadc.model": model.model_id},
    )
    own = [v for v in store.versions() if v.tags.get("dadc.round") == round_.name]
    for other in sorted(own, key=lambda v: int(v.version))[1:]:
        store.client.delete_model_version(store.name, other.version)
    return str(model.model_id)
