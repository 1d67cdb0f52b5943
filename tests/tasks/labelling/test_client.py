"""Label Studio's client: what it says when it is not let in."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

import httpx
import pytest

from tasks.labelling.account import Account
from tasks.labelling.client import LabelStudio, connect
from tasks.labelling.http import LabellingError
from tasks.workspace.services import ServiceDown, Services

NOBODY = Services()


def test_a_server_that_is_down_is_named_with_the_command_that_starts_it() -> None:
    with pytest.raises(ServiceDown, match="dadc up"):
        connect(NOBODY)
    started = time.monotonic()
    with pytest.raises(ServiceDown, match="Label Studio.*http://127.0.0.1:9.*dadc up"):
        connect(replace(NOBODY, label_studio_url="http://127.0.0.1:9", label_studio_token="x"))
    assert time.monotonic() - started < 20


def test_a_wrong_token_is_said_and_not_tried_again(studio: LabelStudio) -> None:
    known = replace(NOBODY, label_studio_url=studio.url)
    with pytest.raises(LabellingError, match="token"):
        connect(known)
    with pytest.raises(LabellingError, match="did not accept the token"):
        connect(replace(known, label_studio_token="0" * 39 + "x"))
    stranger = LabelStudio(studio.url, "0" * 39 + "x")
    started = time.monotonic()
    with pytest.raises(LabellingError, match="did not accept the token"):
        stranger.find("anything")
    assert time.monotonic() - started < 20


def test_an_account_is_made_once_and_its_password_is_checked(studio: LabelStudio) -> None:
    email = f"Eva.{uuid.uuid4().hex[:8]}@example.org"
    studio.person(email, "correct-horse-7").close()
    before = studio.emails()
    studio.person(email, "correct-horse-7").close()
    assert studio.emails() == before
    assert email.lower() in before.values()
    with pytest.raises(LabellingError, match="another password"):
        studio.person(email, "something-else-7")


def test_nobody_signs_up_without_the_invite(studio: LabelStudio) -> None:
    assert httpx.get(studio.invite()).status_code == 200
    with pytest.raises(LabellingError):
        Account(studio.url, f"{uuid.uuid4().hex}@example.org", "correct-horse-7", f"{studio.url}/user/signup/?token=no")


def test_publishing_in_bulk_twice_adds_nothing(studio: LabelStudio) -> None:
    page = '<View><Image name="image" value="$image"/></View>'
    project = studio.ensure_project(f"bulk {uuid.uuid4().hex[:8]}", page, instruction="")
    tasks = {f"k{n}": {"image": "data:,"} for n in range(1500)}
    assert studio.publish(project, dict(list(tasks.items())[:700])) == 700
    assert studio.publish(project, tasks) == 800
    assert studio.publish(project, tasks) == 0
    assert len(studio.tasks(project)) == 1500
    assert sum(task.open for task in studio.tasks(project).values()) == 1500
    assert studio.annotations(project) == 0
