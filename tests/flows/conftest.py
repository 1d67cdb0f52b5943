"""What the tests of flows share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign_copies import Ground, make_ground


@pytest.fixture(scope="session")
def ground(stack: Path, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Round 000 is closed in `begin`; an unharmed round 001 was watched from there, in `unharmed`."""
    with make_ground(stack, template, tmp_path_factory.mktemp("ground")) as made:
        yield made
