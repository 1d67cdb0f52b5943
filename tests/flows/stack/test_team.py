"""A team's stack: the servers' databases in PostgreSQL, DVC's and MLflow's files in S3; real ones, on loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import team_stack
from conftest import SMALL, copy_checkout, dadc, run

from data.layout import Workspace
from flows.stack.lifecycle import down, up
from tasks.workspace.dvc import lock_outputs
from tasks.workspace.git import git
from tasks.workspace.rounds import State, state
from tasks.workspace.services import read_secrets

pytestmark = pytest.mark.services
DATABASES = ("label_studio", "prefect", "mlflow")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[team_stack.Postgres, Path]]:
    """PostgreSQL and S3, and an environment that names them as docs/deploy.md says; the folder of the buckets."""
    folder = tmp_path_factory.mktemp("s3") / "buckets"
    with (
        team_stack.postgres(*DATABASES) as database,
        team_stack.s3(folder, "dvc", "mlflow") as access,
        pytest.MonkeyPatch.context() as shell,
    ):
        stores = {
            "POSTGRE_HOST": "127.0.0.1",
            "POSTGRE_PORT": str(database.port),
            "POSTGRE_NAME": "label_studio",
            "POSTGRE_USER": "dadc",
            "POSTGRE_PASSWORD": database.password,
            "PREFECT_API_DATABASE_CONNECTION_URL": database.url("prefect", "asyncpg"),
            "MLFLOW_BACKEND_STORE_URI": database.url("mlflow", "psycopg2"),
            "MLFLOW_ARTIFACTS_DESTINATION": "s3://mlflow/artifacts",
        }
        for name, value in (stores | access).items():
            shell.setenv(name, value)
        yield database, folder


@pytest.mark.timeout(1200)
def test_a_round_on_postgresql_and_s3(servers: tuple[team_stack.Postgres, Path], tmp_path: Path) -> None:
    database, buckets = servers
    root = copy_checkout(tmp_path / "workspace", SMALL)
    try:
        up(root, only=["label_studio"])  # alone: it has a hundred and more tables to lay out
        up(root)
        dadc(root, "init", "--remote", "s3://dvc/digits")
        dadc(root, "run", "--rounds", "1", "--simulate")
    finally:
        down(root)
    round_ = Workspace(root).round(1)
    assert state(round_) is State.CLOSED

    ((drawn,),) = database.ask("label_studio", "SELECT count(*) FROM task_completion")
    assert drawn >= 4, "the drawings, and the votes"
    flows = {name for (name,) in database.ask("prefect", "SELECT name FROM flow_run WHERE state_type = 'COMPLETED'")}
    assert "digits 001 close" in flows
    runs = {name for (name,) in database.ask("mlflow", "SELECT name FROM runs WHERE status = 'FINISHED'")}
    assert "round-001" in runs
    databases = [p for p in (root / ".dadc").rglob("*") if p.suffix in (".db", ".sqlite3")]
    assert databases == [], "nothing is in a file of the workspace"
    assert list((buckets / "mlflow").rglob("*.safetensors")), "MLflow's models"
    assert not [p for p in (root / ".dadc" / "mlflow").rglob("*") if p.is_file()]

    digest = lock_outputs((root / "dvc.lock").read_text(), "rift@001")["data/rounds/001/model.safetensors"]
    assert (buckets / "dvc" / "digits" / "files" / "md5" / digest[:2] / digest[2:]).is_file()
    clone = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(root), str(clone))
    run(clone, "dvc", "pull", "--quiet")
    assert Workspace(clone).round(1).challenger.model.read_bytes() == round_.challenger.model.read_bytes()

    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=root, capture_output=True, check=True
    ).stdout
    logs = b"".join(p.read_bytes() for p in (root / ".dadc" / "logs").iterdir())
    for secret in (database.password, read_secrets(root)["label_studio"]["token"]):
        assert secret.encode() not in objects + logs
    assert git(Workspace(root), "status", "--porcelain") == ""
