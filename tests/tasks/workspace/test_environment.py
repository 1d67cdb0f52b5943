"""A user's settings of Git, DVC, Prefect and MLflow, and their proxies, change nothing of what a round does."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import httpx
import pytest
import requests
from conftest import run

from data.layout import Workspace
from flows.context import campaign_flow, step
from tasks import track
from tasks.workspace.dvc import dvc
from tasks.workspace.environment import bypass_proxies
from tasks.workspace.git import WorkspaceError, check_committed, commit, git, latest_if_subject, round_tags
from tasks.workspace.services import Services

GITCONFIG = """
[column]
    ui = always
    tag = always
[color]
    ui = always
    status = always
[log]
    showSignature = true
    follow = true
[status]
    showUntrackedFiles = no
    short = true
    branch = true
[diff]
    relative = true
    noprefix = true
    external = false
[commit]
    gpgSign = true
[tag]
    gpgSign = true
[gpg]
    program = false
[core]
    excludesFile = ~/ignored
    fsmonitor = false-monitor
[user]
    name = u
    email = u@localhost
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody with settings of their own."""
    home = tmp_path / "home"
    (home / ".config" / "dvc").mkdir(parents=True)
    (home / ".gitconfig").write_text(GITCONFIG)
    (home / "ignored").write_text("*.json\n*.dvc\ndata/\n.DS_Store\n")
    (home / ".config" / "dvc" / "config").write_text("[core]\n    no_scm = true\n    autostage = true\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    for name in ("GIT_LITERAL_PATHSPECS", "GIT_ICASE_PATHSPECS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "another-index"))
    monkeypatch.setenv("DVC_STAGE", "of another")
    return home


def test_git_says_the_same_whatever_somebody_has_set(settings: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    round_ = workspace.round(1)
    round_.folder.mkdir(parents=True)
    git(workspace, "init", "--quiet")
    round_.opened.write_text("{}")
    assert commit(workspace, "Open round 001", round_.opened), "though data/ and *.json are ignored elsewhere"
    for name in ("round-000", "round-001"):
        git(workspace, "tag", name)
    assert round_tags(workspace) == {"round-000", "round-001"}
    assert latest_if_subject(round_.opened, "Open round 001", workspace) == git(workspace, "rev-parse", "HEAD")
    check_committed(workspace)
    (workspace.root / "flows").mkdir()
    (workspace.root / "flows" / ".DS_Store").touch()
    check_committed(workspace)
    (workspace.root / "flows" / "new.py").touch()
    with pytest.raises(WorkspaceError, match="changed: flows/"):
        check_committed(workspace)


@pytest.mark.services
def test_dvc_does_the_same_whatever_somebody_has_set(settings: Path, make_workspace: Callable[..., Path]) -> None:
    with pytest.MonkeyPatch.context() as shell:
        shell.delenv("GIT_INDEX_FILE")
        shell.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        workspace = Workspace(make_workspace())
    file = workspace.root / "data" / "rounds" / "made.bin"
    file.write_bytes(b"made")
    dvc(workspace, "add", str(file), quiet=True)
    assert file.with_name("made.bin.dvc").exists()
    assert "made.bin" in file.with_name(".gitignore").read_text(), "DVC works with Git"
    assert git(workspace, "diff", "--cached", "--name-only") == "", "and stages nothing by itself"


class Mlflow(http.server.BaseHTTPRequestHandler):
    """Answers a search for experiments."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps({"experiments": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def local_url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mlflow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("exempt", [None, "NO_PROXY", "no_proxy"])
def test_a_server_on_this_machine_is_asked_without_a_proxy(
    exempt: str | None, local_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    if exempt:
        monkeypatch.setenv(exempt, "intranet.example")
    with pytest.raises(httpx.ConnectError):
        httpx.get(local_url)
    values = {field.name: None for field in fields(Services)} | {"mlflow_url": local_url}
    track.check(Services(**values))  # type: ignore[arg-type]
    bypass_proxies()
    assert httpx.get(local_url).status_code == 200
    assert requests.get(local_url, timeout=10).status_code == 200
    assert urllib.request.urlopen(local_url, timeout=10).status == 200
    for url in ("http://example.org", *(["http://intranet.example"] if not exempt else [])):
        with pytest.raises(httpx.ConnectError, match="refused"):  # the proxy's, which is still asked for others
            httpx.get(url)


def test_no_proxy_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", "a")
    monkeypatch.setenv("NO_PROXY", "b")
    bypass_proxies()
    assert run(Path.cwd(), "printenv", "no_proxy", "NO_PROXY").stdout.split() == ["a", "b"]
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    bypass_proxies()
    assert set(run(Path.cwd(), "printenv", "no_proxy", "NO_PROXY").stdout.split()) == {"a,b,127.0.0.1,localhost,::1"}
    monkeypatch.setenv("no_proxy", "*")
    bypass_proxies()
    assert run(Path.cwd(), "printenv", "no_proxy").stdout.strip() == "*"


def test_prefects_defaults_do_not_reach_a_flow_or_a_step() -> None:
    """PREFECT_FLOWS_DEFAULT_RETRIES, PREFECT_TASKS_DEFAULT_RETRIES, PREFECT_RESULTS_PERSIST_BY_DEFAULT."""

    def work(root: Path) -> None:
        pass

    for made in (step("work")(work), campaign_flow("work")(work)):
        assert (made.retries, made.persist_result) == (0, False)  # type: ignore[attr-defined]
