"""A campaign on real services, from `dadc init` to a clone that has it all."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import conftest
import pyarrow.parquet as pq
import pytest
from conftest import chromium, run

from data.files import md5
from data.layout import Workspace
from data.shards import read_candidates
from tasks.config.params import read
from tasks.workspace.git import git
from tasks.workspace.rounds import State, state
from tasks.workspace.services import find_services, read_secrets

# Secrets that a user's shell may hold while the commands run; nobody asks for them here.
GIVEN = {
    "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
    "MLFLOW_TRACKING_TOKEN": secrets.token_hex(16),
    "PREFECT_API_AUTH_STRING": f"somebody:{secrets.token_hex(16)}",
}
said: list[str] = []  # by every command of this module


def dadc(root: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `dadc`, and keep what it says for the last test."""
    done = conftest.dadc(root, *arguments, check=check)
    said.extend([done.stdout, done.stderr])
    return done


@pytest.fixture(scope="module")
def campaign(stack: Path) -> Iterator[Workspace]:
    """Round 000 and one simulated round, closed."""
    with pytest.MonkeyPatch.context() as shell:
        for name, value in GIVEN.items():
            shell.setenv(name, value)
        params = stack / "params.yaml"
        params.write_text(params.read_text().replace("reference: false", "reference: true"))
        run(stack, "git", "commit", "--quiet", "--message", "Train references", "--", "params.yaml")
        dadc(stack, "init")
        done = dadc(stack, "run", "--rounds", "1", "--simulate")
        assert "round 001 is closed" in done.stdout
        yield Workspace(stack)


def metrics(workspace: Workspace, number: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(workspace.round(number).challenger.metrics.read_text())
    return content


def test_both_rounds_are_closed_commits(campaign: Workspace) -> None:
    for number in (0, 1):
        round_ = campaign.round(number)
        assert state(round_) is State.CLOSED
        assert git(campaign, "log", "-1", "--format=%s", round_.tag) == f"Close round {round_.name}"
    assert git(campaign, "status", "--porcelain") == ""


def test_the_record_holds_people_and_machines(campaign: Workspace) -> None:
    candidates = read_candidates(campaign.round(1).candidates)
    people = [c for c in candidates if c.source == "simulated"]
    machines = [c for c in candidates if c.source == "pgd"]
    assert len(people) == 4
    assert len(machines) == 2
    assert all(c.judged and c.image and c.annotator.endswith("@simulated.invalid") for c in people)
    assert all(v.validator != c.annotator for c in people for v in c.votes)
    due = [c for c in candidates if c.fooling]
    assert all(len({v.validator for v in c.votes}) >= 2 for c in due), "every fooling candidate was voted on"
    assert {c.split for c in candidates} <= {"train", "validation", "test"}


def test_metrics_have_the_promised_form(campaign: Workspace) -> None:
    first, second = metrics(campaign, 0), metrics(campaign, 1)
    assert (first["collected"], first["mer"]) == (0, None)
    assert (second["round"], second["collected"]) == (1, 4)
    people = [c for c in read_candidates(campaign.round(1).candidates) if c.by_people and c.wellformed]
    fooling = [c for c in people if c.fooling]
    assert second["mer"] == pytest.approx(len(fooling) / len(people))
    assert second["vmer"]["low"] == pytest.approx(sum(c.verified for c in fooling) / len(people))
    for figure in (second["clean"], second["robust"]["fgsm"], second["robust"]["pgd"], second["ood"]["mean"]):
        assert figure["low"] <= figure["accuracy"] <= figure["high"]
        assert figure["n"] > 0
    assert set(second["by_source"]) == {"pgd", "simulated"}


def test_the_gate_compares_with_the_target_and_with_a_reference(campaign: Workspace) -> None:
    first, second = (json.loads(campaign.round(number).gate.read_text()) for number in (0, 1))
    assert (first["promoted"], first["champion"]) == (True, 0)
    assert second["champion"] == (1 if second["promoted"] else 0)
    assert {"clean", "robust", "ood"} == set(second["target"]) <= set(second["reference"])
    assert {each["n"] for each in second["target"].values()} == {40}, "data.gate"
    reference = campaign.round(1).arm("reference")
    assert reference.model.read_bytes() != campaign.round(1).challenger.model.read_bytes()
    assert str(reference.history.relative_to(campaign.root)) in git(campaign, "ls-files")
    shown = dadc(campaign.root, "status").stdout
    assert f"gate of round 001: {second['verdict']}" in shown
    assert "against the target: clean" in shown
    assert "against the reference: robust" in shown
    for number in ("0", "1"):
        assert "all agree" in dadc(campaign.root, "verify", number).stdout
    stages = ("train_reference@001", "rift_reference@001", "gate@001")
    assert "up to date" in run(campaign.root, "dvc", "status", *stages).stdout


def test_the_leaderboard_is_read_off_the_record(campaign: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    shown = dadc(campaign.root, "leaderboard", "--round", "001", "--csv", str(file)).stdout
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    annotators = [row for row in rows if row["role"] == "annotator"]
    validators = [row for row in rows if row["role"] == "validator"]
    assert all(row["account"] in shown for row in rows)
    people = [c for c in read_candidates(campaign.round(1).candidates) if c.by_people]
    assert sum(int(row["tries"]) for row in annotators) == sum(c.wellformed for c in people)
    assert sum(int(row["fools"]) + int(row["duplicates"]) for row in annotators) == sum(c.fooling for c in people)
    probes = read(campaign.round(1).params).validate_.probes
    assert {row["probes"] for row in validators} == {str(probes)}, "every validator answered every probe"
    assert len(validators) == 2
    refused = dadc(campaign.root, "leaderboard", "--round", "7", check=False)
    assert (
        refused.stderr.strip()
        == "dadc: round 007 has not collected anything; rounds that have: 001; `dadc open` opens a round"
    )


def test_running_it_again_changes_nothing(campaign: Workspace) -> None:
    def picture() -> dict[str, str]:
        files = [p for p in campaign.rounds.rglob("*") if p.is_file()]
        return {"HEAD": git(campaign, "rev-parse", "HEAD"), **{str(p): md5(p) for p in files}}

    before = picture()
    dadc(campaign.root, "run", "--rounds", "1", "--simulate")
    dadc(campaign.root, "init")
    dadc(campaign.root, "close")
    assert picture() == before
    assert git(campaign, "status", "--porcelain") == ""


def prefect_of(root: Path) -> dict[str, str]:
    """What a client of the workspace's Prefect server has in its environment."""
    services = find_services(root)
    return {
        "PREFECT_API_URL": services.prefect_url or "",
        "PREFECT_API_AUTH_STRING": services.prefect_auth or "",
    }


def scheduled_collect(root: Path) -> None:
    """A real Prefect server schedules the collect flow, and a run of it happens."""
    address = find_services(root).prefect_url
    assert address
    code = (
        "from pathlib import Path\nfrom flows.collect import collect\n"
        "collect.serve(name='often', interval=10, limit=1, parameters={'root': str(Path.cwd())})"
    )
    environment = {**os.environ, **prefect_of(root)}
    server = subprocess.Popen([sys.executable, "-c", code], cwd=root, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        done = {"state": {"type": {"any_": ["COMPLETED"]}}}
        body = json.dumps({"deployments": {"name": {"any_": ["often"]}}, "flow_runs": done}).encode()
        while time.monotonic() < deadline:
            auth = base64.b64encode(environment["PREFECT_API_AUTH_STRING"].encode()).decode()
            headers = {"Content-Type": "application/json", "Authorization": f"Basic {auth}"}
            asked = urllib.request.Request(f"{address}/flow_runs/filter", data=body, headers=headers)
            runs = json.load(urllib.request.urlopen(asked, timeout=30))
            if any(r["auto_scheduled"] for r in runs):
                return
            time.sleep(1)
        raise AssertionError("no scheduled run completed")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def test_by_hand_open_collect_abort(campaign: Workspace) -> None:
    """The commands a person types, and what they say out of turn. The last test here: it leaves an aborted round."""
    root = campaign.root
    refused = dadc(root, "collect", check=False)
    assert refused.returncode == 1
    assert refused.stderr.strip() == "dadc: no round is open; `dadc open` opens one"
    assert "round 002 is open" in dadc(root, "open").stdout
    made = md5(campaign.round(2).attack)
    assert (root / ".dadc" / "remote" / "files" / "md5" / made[:2] / made[2:]).exists(), "a clone can go on with it"
    head = git(campaign, "rev-parse", "HEAD")
    assert "round 002 is open" in dadc(root, "open").stdout
    assert git(campaign, "rev-parse", "HEAD") == head
    assert json.loads(dadc(root, "status", "--json").stdout)["open"]["counted"] is None
    assert "0 collected" in dadc(root, "collect").stdout
    assert json.loads(dadc(root, "status", "--json").stdout)["open"]["counted"]["collected"] == 0
    scheduled_collect(root)
    assert "round 002 is open" in dadc(root, "status").stdout
    path = root / "params.yaml"
    text = path.read_text()
    path.write_text(text + "# mine\n")
    refused = dadc(root, "close", check=False)
    assert refused.returncode == 1
    assert "params.yaml" in refused.stderr
    assert state(campaign.round(2)) is State.OPEN, "a refusal leaves the round as it was"
    path.write_text(text)
    dadc(root, "abort", "--why", "a trial")
    assert state(campaign.round(2)) is State.ABORTED
    assert git(campaign, "status", "--porcelain") == ""
    assert dadc(root, "abort", check=False).returncode == 1
    assert "next: `dadc open`" in dadc(root, "status").stdout


def test_a_real_prefect_server_saw_the_flows(campaign: Workspace) -> None:
    code = (
        "import asyncio\nfrom prefect import get_client\n"
        "async def main():\n"
        "    async with get_client() as client:\n"
        "        for run in await client.read_flow_runs(limit=50): print(run.name, '|', run.state_name)\n"
        "asyncio.run(main())"
    )
    with pytest.MonkeyPatch.context() as shell:
        for name, value in prefect_of(campaign.root).items():
            shell.setenv(name, value)
        said = run(campaign.root, sys.executable, "-c", code).stdout
    assert "digits 001 close | Completed" in said
    assert os.environ.get("PREFECT_API_URL") is None


READ_RUNS = """async ([api, auth]) => {
    const sent = {"Content-Type": "application/json", ...(auth && {Authorization: "Basic " + btoa(auth)})};
    try {
        return (await fetch(api + "/flow_runs/filter", {method: "POST", headers: sent, body: "{}"})).status;
    } catch (error) {
        return error.name;
    }
}"""


def test_prefects_page_shows_the_runs_to_who_logs_in_and_nothing_to_other_pages(campaign: Workspace) -> None:
    from playwright.sync_api import sync_playwright

    services = find_services(campaign.root)
    api, auth = str(services.prefect_url), str(services.prefect_auth)
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=quiet)
        page = browser.new_page()
        page.goto(api.removesuffix("/api") + "/runs", timeout=60_000)
        page.locator("input[type=password]").fill(auth, timeout=60_000)
        assert "digits 001" not in page.inner_text("body")
        page.keyboard.press("Enter")
        page.get_by_text("digits 001 close", exact=True).first.wait_for(timeout=60_000)
        assert page.evaluate(READ_RUNS, [api, auth]) == 200, "it is their own page's script"
        foreign = browser.new_page()
        foreign.goto(str(services.mlflow_url), timeout=60_000)  # a page of another origin that this machine serves
        for sent in (None, auth):
            assert foreign.evaluate(READ_RUNS, [api, sent]) == "TypeError", "the browser lets it see no answer"
        browser.close()


def test_no_secret_stands_where_others_look(campaign: Workspace) -> None:
    """The last of all: after every command above. Label Studio's own database, which has to know them, is left out."""
    root = campaign.root
    kept, services = read_secrets(root), find_services(root)
    people = {c.annotator for c in read_candidates(campaign.round(1).candidates) if c.by_people}
    hidden = [kept["label_studio"]["password"], kept["label_studio"]["token"], kept["model"]["password"]]
    hidden += [kept["prefect"]["password"], kept["accounts"]["secret"], *map(services.password_for, people)]
    hidden += [value.rpartition(":")[2] for value in GIVEN.values()]
    sent = [f"{services.model_user}:{services.model_password}", GIVEN["PREFECT_API_AUTH_STRING"]]
    sent.append(str(services.prefect_auth))
    hidden += [base64.b64encode(each.encode()).decode() for each in sent]  # as a request's header holds them
    wanted = {form.encode() for each in hidden for form in (each, quote(each, safe=""))}

    objects = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=root, capture_output=True, check=True
    ).stdout
    texts = {"Git's history": objects, "what the commands said": "".join(said).encode()}
    own = (campaign.local / "secrets.json", campaign.local / "label-studio")
    for path in (
        p for part in (campaign.local, campaign.rounds, campaign.base, root / ".dvc") for p in part.rglob("*")
    ):
        if path.is_file() and not any(path.is_relative_to(each) for each in own):
            texts[str(path.relative_to(root))] = path.read_bytes()
            if path.suffix == ".parquet":  # compressed
                texts[f"{path.relative_to(root)}, unpacked"] = str(pq.read_table(path).to_pylist()).encode()
    assert {".dadc/logs/label_studio.log", ".dadc/prefect/prefect.db", ".dadc/mlflow/mlflow.db"} <= texts.keys()
    assert b"Close round 001" in texts["Git's history"], "Git's objects are unpacked"
    assert any("/artifacts/" in name for name in texts), "MLflow's artifacts are looked at"
    assert b"001" in texts[".dadc/prefect/prefect.db"]
    found = sorted(name for name, text in texts.items() if any(form in text for form in wanted))
    assert found == []
