"""Real services for the whole session, and workspaces that are real Git and DVC checkouts of the code under test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from reaper import start_reaper

from data.layout import Round, Workspace

CHECKOUT = Path(__file__).resolve().parent.parent
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
}
OWN = (  # variables that name servers, which the tests have of their own
    *("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "PREFECT_API_URL", "MLFLOW_TRACKING_URI", "DADC_MODEL_URL"),
    *("DADC_LABEL_STUDIO", "DADC_SECRET", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"),
)
SMALL: dict[str, dict[str, object]] = {  # a round in seconds: enough to see every step, too little to learn anything
    "data": {"limit": 300, "pool": 60, "validation": 60, "gate": 40},
    "attack": {"count": 2},
    "collect": {"drawings": 4},
    "train": {"epochs": 2, "precision": "fp32"},  # as everywhere; what auto comes to depends on the processor
    "rift": {"steps": 1, "steps_of_tuning": 1, "candidates": 1, "attack": {"steps": 2}},
    "evaluate": {
        "precision": "fp32",
        "attacks": {"fgsm": {}, "pgd": {"steps": 4}},
        "battery": {"apgd_t": {"steps": 2, "targets": 1}},
        "gradients": {"images": 10, "queries": 5, "starts": 2, "allowed": 0.01, "alpha": 0.01},
    },
    "promote": {"reference": False},
    # An account's errors are seeded by its name, so by the campaign's, which may be drawn at random; of two validators
    # neither may be set aside for them.
    "simulate": {"annotators": 2, "validators": 2, "tries": 2, "vote_error": 0.0},
}


ONE_GROUND = ("test_backup.py", "test_crashes.py", "test_reproduce.py")  # stand on one campaign, which takes minutes
LONG = ("test_schedule.py", "test_round.py", "test_team.py", "test_label_studio.py", "test_benchmarks.py")


WITHOUT_SERVICES = "not services"  # what `make check` runs
NEEDS_SERVICES = {"stack", "template", "make_workspace"}  # the fixtures below which a server or a workspace stands


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs servers, a browser or a workspace; the longest tests begin first, so that the processes end
    together."""
    for item in items:
        if NEEDS_SERVICES & set(getattr(item, "fixturenames", ())):  # those of its fixtures' fixtures included
            item.add_marker("services")
    order = (*ONE_GROUND, *LONG)
    items.sort(key=lambda item: order.index(item.path.name) if item.path.name in order else len(order))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file's tests share what they set up, so they stay in one process, and so do those on one ground.

    xdist's own groups (3.8) are lost on pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return "ground" if file.endswith(ONE_GROUND) else file

    return Together(config, log)


def pytest_configure(config: pytest.Config) -> None:
    os.environ.update(QUIET)
    if config.option.markexpr == WITHOUT_SERVICES:
        os.environ["DADC_WITHOUT_SERVICES"] = "1"
    for key in OWN:
        os.environ.pop(key, None)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What did not run, and how to get it."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", ())
    )
    lines = [f"{count} test{'' if count == 1 else 's'}: {reason}" for reason, count in sorted(reasons.items())]
    if config.option.markexpr == WITHOUT_SERVICES:
        lines.append("every test that starts servers or a browser or makes a workspace: `make test` runs them")
    if lines:
        terminalreporter.section("not run")
        for line in lines:
            terminalreporter.write_line(line)


def run(root: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command at a workspace's root, the environment's own programs first."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} → {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done


def dadc(root: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `dadc` at a workspace's root."""
    return run(root, sys.executable, "-m", "flows.cli", *arguments, check=check)


def program(name: str, package: str, *paths: str | Path | None) -> str:
    """The first path that exists. Without one the test is skipped; under .ci/run, which installs both, it fails."""
    path = next((str(path) for path in paths if path), None)
    if path is None:
        reason = f"{name} is not installed (Debian: apt-get install {package})"
        if "CI_RUN" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def chromium() -> str:
    """The browser of the browser tests."""
    return program("Chromium", "chromium", *map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))


def copy_checkout(folder: Path, changes: dict[str, dict[str, object]] | None = None) -> Path:
    """A Git checkout of the code as it is now, committed, with some parameters changed."""
    if "DADC_WITHOUT_SERVICES" in os.environ:
        pytest.fail("this test makes a workspace: mark it `@pytest.mark.services`, so that `make check` leaves it out")
    listed = run(CHECKOUT, "git", "ls-files", "-co", "--exclude-standard", "-z").stdout.split("\0")
    for name in filter(None, listed):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    shutil.rmtree(folder / "data" / "base", ignore_errors=True)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for section, values in (changes or {}).items():
        if isinstance(values, dict):
            params[section].update(values)
        else:
            params[section] = values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "git", "config", "user.name", "test")
    run(folder, "git", "config", "user.email", "test@localhost")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "code")
    return folder


def frozen(root: Path) -> Round:
    """Round 000 of a new workspace, its data and its lineage frozen: ready to be trained."""
    from round_states import begin

    from tasks.config.params import read
    from tasks.freeze import freeze
    from tasks.prepare import freeze_data

    workspace = Workspace(root)
    params = read(workspace.params)
    freeze_data(workspace, params, print)
    round_ = begin(workspace, 0)
    freeze(round_, [], params, None)
    return round_


@pytest.fixture(scope="session", autouse=True)
def reaped(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No server outlives the run, whatever ends it."""
    if "DADC_WITHOUT_SERVICES" not in os.environ:
        start_reaper(tmp_path_factory.getbasetemp())


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread: the same bytes everywhere, and networks that are not many times slower on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The checkout under test."""
    return CHECKOUT


@pytest.fixture(scope="session")
def make_workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a small workspace; keyword arguments change sections of params.yaml."""

    def make(name: str = "workspace", **changes: object) -> Path:
        merged: dict[str, object] = {k: dict(v) for k, v in SMALL.items()}
        for section, values in changes.items():
            if isinstance(values, dict):
                merged[section] = {**merged.get(section, {}), **values}  # type: ignore[dict-item]
            else:
                merged[section] = values
        return copy_checkout(tmp_path_factory.mktemp("made") / name, merged)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small workspace after `dadc init`, to be copied."""
    root = copy_checkout(tmp_path_factory.mktemp("template") / "workspace", SMALL)
    dadc(root, "init")
    return root


@pytest.fixture
def initialised(template: Path, tmp_path: Path) -> Path:
    """A workspace of one's own after `dadc init`."""
    return Path(shutil.copytree(template, tmp_path / "initialised", symlinks=True))


@contextmanager
def unset() -> Iterator[None]:
    """Without the variables that name servers, whatever the test that wants a session's fixture first has set."""
    with pytest.MonkeyPatch.context() as patch:
        for key in OWN:
            patch.delenv(key, raising=False)
        yield


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a workspace whose Label Studio, Prefect, MLflow and model server are up for the whole session."""
    from flows.stack.lifecycle import down, up

    root = copy_checkout(tmp_path_factory.mktemp("stack") / "workspace", SMALL)
    try:
        with unset():
            up(root, {})
        yield root
    finally:
        down(root)


def shared_secret(stack: Path) -> str:
    """The stack's own, for other workspaces that use its Label Studio: they play accounts of the same names."""
    from tasks.workspace.services import find_services, read_secrets

    with unset():
        find_services(stack).key("")
    return read_secrets(stack)["accounts"]["secret"]


@pytest.fixture
def services(stack: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Any workspace uses the session's servers, as a user with servers of their own would; the stack's root."""
    from tasks.workspace.services import find_services

    found = find_services(stack)
    values = {
        "LABEL_STUDIO_URL": found.label_studio_url,
        "LABEL_STUDIO_API_KEY": found.label_studio_token,
        "PREFECT_API_URL": found.prefect_url,
        "PREFECT_API_AUTH_STRING": found.prefect_auth,
        "MLFLOW_TRACKING_URI": found.mlflow_url,
        "DADC_SECRET": shared_secret(stack),
    }
    for key, value in values.items():
        assert value, f"the stack gave no {key}"
        monkeypatch.setenv(key, value)
    return stack
