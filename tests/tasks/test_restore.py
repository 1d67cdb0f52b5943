"""What somebody changed in the round's projects is put back, on a real Label Studio."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from open_round import pulled_now
from voting_scene import Voting, drawn, seen

from data.records import Verdict
from tasks.labelling import projects
from tasks.labelling.attached import attached
from tasks.labelling.projects import drawing_keys
from tasks.publish import attach_model
from tasks.pull import pull
from tasks.restore import Restored, restore
from tasks.workspace.services import Services


def test_a_page_that_somebody_changed_is_put_back(voting: Voting) -> None:
    assert voting.restored() == []
    page = voting.studio.described(voting.project)["page"]
    voting.studio._sdk.projects.update(
        voting.project,
        label_config=page.replace("unreadable", "3"),
        show_skip_button=True,
        description="Paste this address into your browser",
        sampling="Uniform sampling",
    )
    (line,) = voting.restored()
    assert line.endswith("description, label_config, sampling, show_skip_button")
    assert voting.studio.described(voting.project)["page"] == page
    assert voting.restored() == []


def test_a_renamed_project_is_known_by_its_tasks_and_gets_its_title_again(voting: Voting) -> None:
    title, project = projects.title(voting.play.params.campaign, voting.play.round, "draw"), voting.find("draw")
    assert project is not None
    voting.studio.rename(project, "renamed")
    assert pulled_now(voting.studio, voting.play.round) == 0
    voting.studio.ensure_project(title, "<View></View>", instruction="")  # an empty one in its place
    assert pulled_now(voting.studio, voting.play.round) == 0
    assert voting.made().wellformed
    (line,) = voting.restored()
    assert line == f"the project {project} has its title {title!r} again, which somebody had changed"
    assert voting.find("draw") == project
    assert voting.restored() == []


def test_a_deleted_project_takes_nothing_along_and_is_made_anew(voting: Voting) -> None:
    voting.person("bob").submit(voting.task, seen("3"), 1.0)
    assert [vote.counted for vote in voting.made().votes] == [True]
    for kind in projects.KINDS:
        if (project := voting.find(kind)) is not None:
            voting.studio._sdk.projects.delete(project)
    said: list[str] = []
    pull(voting.studio, voting.play.record, said.append)
    assert len(said) == 2, said
    assert all("any more: it was deleted; what was pulled from it stands" in line for line in said)
    made = voting.made()
    assert (made.wellformed, made.intended, [vote.counted for vote in made.votes]) == (True, 3, [True])

    assert len(voting.restored()) == 2, "made anew, with the tasks"
    assert voting.restored() == []
    keys = drawing_keys(voting.play.round, voting.play.params)
    project = voting.find("draw")
    assert project is not None
    assert set(voting.studio.tasks(project)) == {projects.guide_key(voting.play.round), *keys[1:]}
    voting.published()
    project = voting.find("validate")
    assert project is not None
    voting.person("cat").submit(voting.studio.tasks(project)[voting.key].id, seen("3"), 1.0)
    assert voting.made().verdict is Verdict.VERIFIED, "with the vote that was cast before"


def test_a_drawing_that_another_account_deleted_stands(voting: Voting) -> None:
    eve, project = voting.person("eve"), voting.find("draw")
    assert project is not None
    eve.delete(voting.drawing)
    assert voting.made().wellformed
    assert voting.restored() == []
    key = drawing_keys(voting.play.round, voting.play.params)[0]
    assert key not in voting.studio.tasks(project), "nobody is asked to draw it again"
    assert voting.made().wellformed, "nor does it go with its task"


def test_what_a_task_holds_is_put_back_and_a_changed_key_loses_no_drawing(voting: Voting) -> None:
    project = voting.find("draw")
    assert project is not None
    _, second, third, _ = drawing_keys(voting.play.round, voting.play.params)
    number = voting.studio.tasks(project)[second].id
    voting.studio.show(number, {"image": "", "note": "Draw an 8, always", "key": third})
    voting.person("bob").submit(number, drawn("7"), 1.0)
    pulled_now(voting.studio, voting.play.round)
    assert {c.key: c.intended for c in voting.play.record.candidates if c.wellformed}[second] == 7
    (line,) = voting.restored()
    assert line == f"put back what task {number} of project {project} held, which somebody had changed"
    assert voting.studio.task_data(project)[number]["key"] == second
    assert voting.restored() == []

    votes = voting.studio.task_data(voting.project)[voting.task]
    voting.studio.show(voting.task, {**votes, "key": "of nobody"})
    voting.person("cat").submit(voting.task, seen("3"), 1.0)
    made = voting.play.record.candidates[0]
    pulled_now(voting.studio, voting.play.round)
    assert [vote.choice for vote in voting.play.record.votes[made.key]] == [3]
    assert len(voting.restored()) == 1
    assert voting.studio.tasks(voting.project)[voting.key].id == voting.task


@pytest.mark.usefixtures("services")
def test_another_model_server_and_webhook_are_seen_and_taken_away(
    voting: Voting, model_server: Callable[[Path], Services]
) -> None:
    studio, play, project = voting.studio, voting.play, voting.find("draw")
    assert project is not None
    own, other = (model_server(play.round.workspace.root) for _ in range(2))
    assert (own.model_url, other.model_url) != (None, None)
    attach_model(studio, play.round, play.params, own)
    assert restore(studio, play.record, own, print) == Restored()
    (server,) = studio.sdk.ml.list(project=project)
    log_in = {"auth_method": "BASIC_AUTH", "basic_auth_user": "dadc", "basic_auth_pass": "secret"}
    studio.sdk.ml.update(server.id, project=project, url=other.model_url, is_interactive=True, **log_in)
    studio.sdk.webhooks.create(url="http://127.0.0.1:9/all", project=project, send_payload=True)
    said: list[str] = []
    assert restore(studio, play.record, own, said.append) == Restored(True, (str(other.model_url),))
    assert any(line.endswith("which went to http://127.0.0.1:9/all") for line in said), said
    attach_model(studio, play.round, play.params, own)
    assert attached(studio, project) == [(own.model_url, "dadc", True)]
    assert restore(studio, play.record, own, said.append) == Restored()

    voting.person("bob").submit(voting.task, seen("3"), 1.0)  # of which Label Studio tells our server, and it looks
    path = play.round.workspace.local / "seen" / f"{play.round.name}.jsonl"
    deadline = time.monotonic() + 120
    while not path.exists() or "bob." not in path.read_text():
        assert time.monotonic() < deadline, "nothing was seen"
        time.sleep(0.2)
