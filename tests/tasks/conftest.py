"""Open rounds, Label Studio and model servers for the tests of the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import unset
from open_round import Play, make_round
from open_round import model_server as serve
from voting_scene import Voting, make_voting

from tasks.labelling.client import LabelStudio, connect
from tasks.workspace.services import Services, find_services


@pytest.fixture
def open_round(tmp_path: Path, checkout: Path) -> Callable[..., Play]:
    """Makes an open round; keyword arguments change sections of params.yaml."""

    def make(**changes: dict[str, object]) -> Play:
        return make_round(tmp_path, checkout, **changes)

    return make


@pytest.fixture(scope="session")
def studio(stack: Path) -> LabelStudio:
    """The session's Label Studio."""
    with unset():
        return connect(find_services(stack))


@pytest.fixture
def model_server() -> Iterator[Callable[[Path], Services]]:
    """Serves the target of a workspace on a free port."""
    with ExitStack() as running:
        yield lambda root: running.enter_context(serve(root))


@pytest.fixture
def voting(studio: LabelStudio, open_round: Callable[..., Play]) -> Voting:
    """A round with one drawing, ann's, of a 3, and its validation task; two of at most five must agree."""
    return make_voting(studio, open_round(validate={"non_fooling_share": 1.0, "consensus": 2, "max_votes": 5}))
