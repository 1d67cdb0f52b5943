"""CONTRIBUTING.md, followed to the letter in a copy of the checkout, passes the tests that run over every kind."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from conftest import copy_checkout, run

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
# A snippet, the file that is named last before it, and the row that follows it.
EXAMPLES = re.findall(r"`([\w/]+\.py)`:\n\n```python\n(.*?)```\n\n    (\| [^\n]*)", PAGE, re.S)
BESIDE = {  # the page and the row below which a family's next row stands
    "tasks/attacks": ("robustness.md", "spatial"),
    "tasks/losses": ("robustness.md", "score"),
    "tasks/shifts": ("robustness.md", "affine"),
    "tasks/augments": ("networks-and-data.md", "elastic"),
    "models": ("networks-and-data.md", "efficientnet_b0"),
}
TESTS = (
    *("tests/test_docs_kinds.py", "tests/test_docs_robustness.py", "tests/test_repository.py"),
    *(
        "tests/tasks/attacks/test_contract.py",
        "tests/tasks/losses/test_contract.py",
        "tests/tasks/shifts/test_contract.py",
        "tests/tasks/augments/test_contract.py",
    ),
    "tests/models/test_contract.py",
)


@pytest.fixture(scope="module")
def contributed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with every example in its place."""
    root = copy_checkout(tmp_path_factory.mktemp("contributed"))
    for path, code, row in EXAMPLES:
        (root / path).write_text(code)
        name, fellow = BESIDE[str(Path(path).parent)]
        page = root / "docs" / name
        lines = page.read_text().splitlines()
        lines.insert(1 + next(i for i, line in enumerate(lines) if line.startswith(f"| `{fellow}` |")), row)
        page.write_text("\n".join(lines) + "\n")
    return root


def test_every_snippet_has_its_file_and_its_row() -> None:
    assert PAGE.count("```python") == len(EXAMPLES) == len(BESIDE)
    assert not [path for path, _, _ in EXAMPLES if (ROOT / path).exists()], "a new kind, as the reader's would be"


@pytest.mark.services
def test_the_examples_are_as_the_house_wants_them(contributed: Path) -> None:
    for check in (("check",), ("format", "--check")):
        run(contributed, "ruff", *check, *(path for path, _, _ in EXAMPLES))


@pytest.mark.services
def test_the_examples_pass_the_tests_of_every_kind(contributed: Path) -> None:
    names = [Path(path).stem for path, _, _ in EXAMPLES]
    chosen = " or ".join([*names, "every_module_says_what_it_is"])
    done = run(contributed, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-vv", *TESTS, "-k", chosen)
    assert all(f"[{name}" in done.stdout or f"-{name}]" in done.stdout for name in names), done.stdout
