"""Label Studio's client, the only one. It tells nothing about rounds: projects, tasks, annotations and accounts.

Errors: `ServiceDown` if the server does not answer, `LabellingError` if it refuses. A 5xx or 429 is tried again by the
SDK, a time-out or a connection that broke by `Patient`, twice and with growing pauses; a refusal is never retried.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from tasks.labelling import id_map
from tasks.labelling.account import Account
from tasks.labelling.http import (
    LabellingError,
    NotThere,
    RetryTransport,
    ServerFailed,
    errors,
    http_client,
    refused,
    retried,
)
from tasks.workspace.services import ServiceDown, Services

PAGE = 1000  # tasks a request
ANNOTATED_PAGE = 256  # tasks a request that asks for annotations too: of larger answers the server makes fewer a second
_RAW = (  # of a task and, within it, of its annotations; all but what the server makes up for each answer
    "id,data,updated_at,annotations,result,completed_by,updated_by,created_at,draft_created_at,lead_time,was_cancelled,"
    "ground_truth,parent_annotation,parent_prediction,last_action,last_created_by,import_id,bulk_created"
)
UNTOLD = "untold"  # a key of an annotation that the server stored and cannot tell
SETTINGS: dict[str, Any] = {  # of every project
    "show_skip_button": False,
    "enable_empty_annotation": False,
    "show_instruction": True,
    "show_collab_predictions": False,
    "evaluate_predictions_automatically": False,
    "description": "",
    "sampling": "Sequential sampling",
    "overlap_cohort_percentage": 100,
    "show_overlap_first": False,
}


def connect(services: Services, hurry: float | None = None) -> LabelStudio:
    """A client that has been let in. ServiceDown if there is no server, LabellingError if the token is wrong.

    hurry: seconds within which each request is answered, or not asked again; for a client that somebody waits for.
    """
    if not services.label_studio_url:
        raise ServiceDown("label_studio")
    if not services.label_studio_token:
        raise LabellingError(
            f"expected a token for Label Studio at {services.label_studio_url}; set LABEL_STUDIO_API_KEY"
        )
    ids = id_map.read(services.moved)
    studio = LabelStudio(services.label_studio_url, services.label_studio_token, ids, hurry)
    studio.check()
    return studio


@dataclass(frozen=True)
class Task:
    """A task as far as publishing needs it."""

    id: int
    people: int  # it is given to
    annotations: int  # there are, without skipped ones
    open: bool  # whether it still wants somebody
    image: object  # what it shows, as it is there now


class LabelStudio:
    """One Label Studio server, seen with the rights of the token's owner."""

    def __init__(self, url: str, token: str, ids: id_map.IdMap | None = None, hurry: float | None = None) -> None:
        """url: such as http://127.0.0.1:8080; token: legacy or personal access token; ids: where projects were put
        into this server from a backup; hurry: as for `connect`."""
        # The SDK's client without its helpers for labelling configs, which import pandas and boto3: two seconds.
        from label_studio_sdk.base_client import LabelStudioBase

        self.url = url.rstrip("/")
        self._token, self._ids = token, ids or id_map.IdMap()
        self._retries, self._log_in = (2, 30.0) if hurry is None else (0, hurry)
        asks = http_client(self.url, RetryTransport) if hurry is None else http_client(self.url, timeout=hurry)
        self._sdk = LabelStudioBase(base_url=self.url, api_key=token, httpx_client=asks)

    @property
    def sdk(self) -> Any:
        """The SDK's client, for what else this room asks."""
        return self._sdk

    def check(self) -> None:
        """Whether the server answers and the token is right; at once, without a second try."""
        with errors(self.url, "log in"):
            self._sdk.users.whoami(request_options={"max_retries": 0, "timeout_in_seconds": self._log_in})

    def find(self, title: str) -> int | None:
        """The id of the project with exactly this title, the oldest if somebody made a second."""
        query = {"title": title, "include": "id,title", "page_size": 100, "ordering": "id"}
        found = [int(p["id"]) for p in self._get("api/projects/", query)["results"] if p["title"] == title]
        return min(found, default=None)

    def project_of(self, task: int, key: str) -> int | None:
        """The project that holds a task, known by the record's id and its key; None if the task is gone."""
        try:
            found = self._get(f"api/tasks/{self._ids.task_on_server(task)}/")
        except NotThere:
            return None
        data = found.get("data")
        return int(found["project"]) if isinstance(data, dict) and data.get("key") == key else None

    def rename(self, project: int, title: str) -> None:
        """Give a project its title again."""
        with errors(self.url, f"name project {project} {title!r}"):
            self._sdk.projects.update(project, title=title)

    def projects(self, beginning: str) -> dict[str, tuple[int, int]]:
        """Every project whose title begins so: title → its id, the oldest if it is there twice, and how many
        annotations it holds, without skipped ones."""
        found: dict[str, tuple[int, int]] = {}
        page = 1
        while True:
            what = "id,title,total_annotations_number"
            query = {"title": beginning, "include": what, "page_size": 100, "page": page, "ordering": "id"}
            answer = self._get("api/projects/", query)
            for project in answer["results"]:
                if project["title"].startswith(beginning):
                    own = (int(project["id"]), int(project["total_annotations_number"] or 0))
                    found.setdefault(project["title"], own)
            if not answer.get("next"):
                return found
            page += 1

    def ensure_project(self, title: str, page: str, *, instruction: str, votes: int = 1) -> int:
        """The project with this title, made if it is not there.

        page: labelling config in XML; instruction: HTML, shown before the first task; votes: how many people are
        given a task published from now on.
        """
        found = self.find(title)
        if found is not None:
            return found
        with errors(self.url, f"make project {title!r}"):
            made = self._sdk.projects.create(
                title=title, label_config=page, expert_instruction=instruction, maximum_annotations=votes, **SETTINGS
            )
        oldest = self.find(title)
        if oldest is not None and oldest != int(made.id):  # made by a try whose answer never came
            with errors(self.url, f"delete the second project {title!r}"):
                self._sdk.projects.delete(int(made.id))
            return oldest
        return int(made.id)

    def tasks(self, project: int) -> dict[str, Task]:
        """Every task by its `data.key`; the oldest of a key that is there twice."""
        found: dict[str, Task] = {}
        for task in self._tasks(project, "id,data,overlap,is_labeled,total_annotations"):
            data = task["data"]
            if isinstance(data, dict) and isinstance(data.get("key"), str):
                annotations, people = int(task["total_annotations"] or 0), int(task["overlap"])
                wanting = not task["is_labeled"] and annotations < people  # two at once may leave it not labelled
                own = Task(int(task["id"]), people, annotations, wanting, data.get("image"))
                found.setdefault(data["key"], own)
        return found

    def recorded_task(self, number: int) -> int:
        """The record's id of a task."""
        return self._ids.task_in_record(number)

    def task_data(self, project: int) -> dict[int, Any]:
        """What every task of the project holds."""
        return {int(task["id"]): task["data"] for task in self._tasks(project, "id,data")}

    def free(self, project: int) -> dict[str, int]:
        """Tasks that have no annotation yet: key → id."""
        query = _filter("equal", "Number", 0, "total_annotations")
        found = self._tasks(project, "id,data", query=query)
        return {str(task["data"].get("key")): int(task["id"]) for task in found if isinstance(task["data"], dict)}

    def publish(self, project: int, tasks: Mapping[str, Mapping[str, Any] | Callable[[], Mapping[str, Any]]]) -> int:
        """Publish the tasks whose key is not there yet; how many. tasks: key → the task's other data, or what makes
        them: of the next thousand while the server takes the last."""
        there = self.tasks(project) if tasks else {}
        new = [key for key in tasks if key not in there]
        with errors(self.url, f"publish {len(new)} tasks"), ThreadPoolExecutor(1) as sender:
            sent: Future[Any] | None = None
            for start in range(0, len(new), PAGE):
                made = [(key, tasks[key]) for key in new[start : start + PAGE]]
                batch = [{"data": {**(data() if callable(data) else data), "key": key}} for key, data in made]
                if sent is not None:
                    sent.result()
                sent = sender.submit(self._sdk.projects.import_tasks, project, request=batch)
            if sent is not None:
                sent.result()
        if new and self._total(project) > len(there) + len(new):
            self._drop_twice(project)
        return len(new)

    def _total(self, project: int) -> int:
        with errors(self.url, f"look at project {project}"):
            return int(self._sdk.projects.get(project).task_number or 0)

    def _drop_twice(self, project: int) -> None:
        """Delete what a request stored that was sent again because its answer never came; never an annotated task."""
        keys: set[str] = set()
        for task in self._tasks(project, "id,data,total_annotations"):
            key = task["data"].get("key") if isinstance(task["data"], dict) else None
            if key in keys and not task["total_annotations"]:
                with errors(self.url, f"delete task {task['id']}, which is there twice"):
                    self._sdk.tasks.delete(str(task["id"]))
            elif isinstance(key, str):
                keys.add(key)

    def changed(self, project: int, since: str | None) -> Iterator[dict[str, Any]]:
        """Tasks with their annotations, raw: those changed after `since` (ISO 8601, UTC, ending in Z), else all that
        have an annotation, a skipped one too. Each is `{"id", "data", "annotations", "updated_at"}`."""
        if since is None:
            wanted = _filter("greater", "Number", 0, "total_annotations", "cancelled_annotations")
        else:
            wanted = _filter("greater", "Datetime", since, "updated_at")
        return self._tasks(project, _RAW, ANNOTATED_PAGE, fields="all", query=wanted)

    def recorded(self, project: int, since: str | None, also: str = "") -> Iterator[dict[str, Any]]:
        """As `changed`, with the ids that the record knows. also: further fields of a task."""
        found = (
            self._tasks(project, f"{_RAW},{also}", ANNOTATED_PAGE, fields="all")
            if also
            else self.changed(project, since)
        )
        return self._ids.recorded(found)

    def described(self, project: int) -> dict[str, Any]:
        """What `ensure_project` makes a project from: {"title", "page", "instruction", "votes"}."""
        with errors(self.url, f"look at project {project}"):
            found = self._sdk.projects.get(project)
        votes, instruction = int(found.maximum_annotations or 1), str(found.expert_instruction or "")
        return {"title": found.title, "page": found.label_config, "instruction": instruction, "votes": votes}

    def annotations(self, project: int) -> int:
        """How many there are, without skipped ones."""
        with errors(self.url, f"look at project {project}"):
            return int(self._sdk.projects.get(project).total_annotations_number or 0)

    def emails(self) -> dict[int, str]:
        """Account → its e-mail in lower case."""
        with errors(self.url, "list accounts"):
            return {int(user.id): str(user.email).lower() for user in self._sdk.users.list()}

    def ask_for(self, task: int, people: int) -> None:
        """Give a task to so many people in all."""
        with errors(self.url, f"change task {task}"):
            self._sdk.tasks.update(str(task), overlap=people, is_labeled=False)

    def ask_nobody(self, task: Task) -> None:
        """Give a task to nobody any more: it goes if it has no annotation, and is finished with those it has."""
        with errors(self.url, f"take back task {task.id}"):
            if task.annotations:
                self._sdk.tasks.update(str(task.id), overlap=task.annotations, is_labeled=True)
            else:
                self._sdk.tasks.delete(str(task.id))

    def show(self, task: int, data: Mapping[str, Any]) -> None:
        """Put back what a task holds."""
        with errors(self.url, f"change task {task}"):
            self._sdk.tasks.update(str(task), data=dict(data))

    def put_back(self, project: int, page: str, instruction: str, votes: int) -> list[str]:
        """Make a project again what `ensure_project` made it; the names of what somebody had changed."""
        wanted = {"label_config": page, "expert_instruction": instruction, "maximum_annotations": votes, **SETTINGS}
        with errors(self.url, f"look at project {project}"):
            found = self._sdk.projects.get(project)
        changed = {name: value for name, value in wanted.items() if getattr(found, name, value) != value}
        if changed:
            with errors(self.url, f"put back {', '.join(changed)} of project {project}"):
                self._sdk.projects.update(project, **changed)
        return sorted(changed)

    def drafts(self, task: int) -> list[dict[str, Any]]:
        """Everybody's drafts of a task, raw."""
        found = self._get(f"api/tasks/{task}/drafts")
        return [draft for draft in found if isinstance(draft, dict)] if isinstance(found, list) else []

    def invite(self) -> str:
        """The address at which an annotator makes an account."""
        path = str(self._get("api/invite")["invite_url"])
        return path if path.startswith("http") else f"{self.url}{path}"

    def person(self, email: str, password: str) -> Account:
        """The account of this e-mail, logged in; made through the invite, as a person would, if it is not there."""

        def enter() -> Account:
            known = email.lower() in self.emails().values()
            return Account(self.url, email, password, invite=None if known else self.invite())

        return retried(enter)

    def _tasks(self, project: int, include: str, size: int = PAGE, **parameters: str) -> Iterator[dict[str, Any]]:
        """Raw, a page after the other: the SDK's own models would change what hostile annotations hold."""
        wanted = {"project": project, "include": include, **parameters}
        seen, page = 0, 1
        with ThreadPoolExecutor(1) as ahead:  # the next page is on its way while one is read
            coming = ahead.submit(self._page, wanted, page, size)
            while True:
                tasks, total = coming.result()
                seen, page = seen + len(tasks), page + 1
                if more := bool(tasks) and seen < total:
                    coming = ahead.submit(self._page, wanted, page, size)
                yield from tasks
                if not more:
                    return

    def _page(self, wanted: dict[str, Any], page: int, size: int) -> tuple[list[dict[str, Any]], int]:
        """Its tasks, and how many there are in all."""
        try:
            answer = self._get("api/tasks/", {**wanted, "page": page, "page_size": size})
        except ServerFailed:
            if not wanted["include"].startswith(_RAW):
                raise
            total = int(self._get("api/tasks/", {**wanted, "include": "id", "page_size": 1})["total"])
            return self._search(wanted, page, size, total), total
        return answer["tasks"], int(answer["total"])

    def _search(self, wanted: dict[str, Any], page: int, size: int, total: int) -> list[dict[str, Any]]:
        """A page that the server fails to tell, half by half, down to the one task that it chokes on.

        It stores half a surrogate pair or an infinite `lead_time` from anybody, and then fails whatever holds it.
        """
        if (page - 1) * size >= total:
            return []
        if size > 1:
            half = size // 2
            found = []
            for part in (2 * page - 1, 2 * page):
                if (part - 1) * half >= total:
                    continue
                try:
                    at = {**wanted, "page": part, "page_size": half}
                    found += self._get("api/tasks/", at, retries=0 if half > 1 else 2)["tasks"]
                except ServerFailed:
                    found += self._search(wanted, part, half, total)
            return found
        told = wanted["include"].replace(",result", "").replace(",lead_time", "")  # what it can always tell
        at = {**wanted, "include": told, "page": page, "page_size": 1}
        tasks: list[dict[str, Any]] = self._get("api/tasks/", at)["tasks"]
        for task in tasks:
            task["annotations"] = [self._annotation(told) for told in task["annotations"]]
        return tasks

    def _annotation(self, told: dict[str, Any]) -> dict[str, Any]:
        """An annotation by itself; what can be told of it, marked, if the server fails."""
        try:
            whole = self._get(f"api/annotations/{told['id']}/", retries=0)
        except ServerFailed:
            return {**told, "result": None, UNTOLD: True}
        return {name: whole[name] for name in _RAW.split(",") if name in whole and name not in ("data", "annotations")}

    def _get(self, path: str, parameters: Mapping[str, Any] | None = None, retries: int | None = None) -> Any:
        """What the SDK has no method for, with its log-in and its retries."""
        times = {"max_retries": self._retries if retries is None else retries}
        with errors(self.url, f"get {path}"):
            response: httpx.Response = self._sdk._client_wrapper.httpx_client.request(
                path, method="GET", params=parameters, request_options=times
            )
        if response.status_code >= 400:
            raise refused(self.url, f"get {path}", response.status_code, response.text)
        return response.json()


def _filter(operator: str, kind: str, value: object, *columns: str) -> str:
    """Tasks of which one of the columns is so."""
    item = {"operator": operator, "type": kind, "value": value}
    items = [{**item, "filter": f"filter:tasks:{column}"} for column in columns]
    return json.dumps({"filters": {"conjunction": "or", "items": items}})
