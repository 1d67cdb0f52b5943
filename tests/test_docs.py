"""The docs say what there is: every command, every word, every variable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = {path.name: path.read_text() for path in (*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md")}
WORDS = [
    *("campaign", "round", "target", "challenger", "champion", "candidate", "source", "annotator", "validator"),
    *("collected", "judged", "fooling", "vote", "consensus", "verdict", "MER", "vMER", "shard", "epsilon", "heal"),
    *("relapse", "gate", "MRC", "RiFT", "shift", "workspace", "probe", "set aside", "agreement"),
    *("record", "kind", "step", "stage", "arm", "pool", "late", "reference", "control"),
]


def test_every_command_stands_in_the_docs() -> None:
    from typer.main import get_command

    from flows.cli import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) > 10
    for name in commands:
        assert f"`dadc {name}" in DOCS["campaign.md"], f"docs/campaign.md has no row for dadc {name}"


@pytest.mark.parametrize("word", WORDS)
def test_every_word_is_explained(word: str) -> None:
    first = [line.split("|")[1] for line in DOCS["words.md"].splitlines() if line.startswith("|")]
    assert any(word in cell for cell in first)


def test_every_variable_of_the_environment_stands_in_the_docs() -> None:
    used = set()
    for path in (*ROOT.glob("flows/**/*.py"), *ROOT.glob("tasks/**/*.py")):
        used |= set(re.findall(r'"((?:DADC|LABEL_STUDIO)_[A-Z_]+)"', path.read_text()))
    own = {name for name in used if name.startswith("DADC_") or name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY")}
    assert own, "no variable found: the pattern is wrong"
    for name in own:
        assert f"`{name}`" in DOCS["campaign.md"], name


def test_every_benchmark_stands_in_the_docs() -> None:
    for path in ROOT.glob("benchmarks/[a-z]*.py"):
        assert f"`benchmarks.{path.stem}`" in DOCS["evidence.md"], path.stem


def test_every_link_between_the_docs_leads_somewhere() -> None:
    for name, text in DOCS.items():
        folder = ROOT / "docs" if (ROOT / "docs" / name).exists() else ROOT
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (folder / target).exists(), f"{name} → {target}"


def test_every_picture_is_shown() -> None:
    shown = {target for text in DOCS.values() for target in re.findall(r"!\[[^]]*\]\((?:docs/)?(images/[^)]+)\)", text)}
    assert {f"images/{path.name}" for path in (ROOT / "docs" / "images").iterdir()} == shown


def test_every_file_of_a_round_stands_in_the_readme(tmp_path: Path) -> None:
    """`weights.safetensors` lies there only where a user gives some, the other two where a person decided."""
    from data.layout import Workspace

    round_ = Workspace(tmp_path).round(0)
    paths = [getattr(round_, name) for name, kind in vars(type(round_)).items() if isinstance(kind, property)]
    files = {path.name for path in paths if isinstance(path, Path) and path.suffix}
    for name in files - {"weights.safetensors", "decision.json", "aborted.json"}:
        assert f"`{name}`" in DOCS["README.md"], name


def test_a_decision_can_be_told_either_way() -> None:
    for name in ("README.md", "campaign.md"):
        assert "--promote" in DOCS[name], name
        assert "`--refuse`" in DOCS[name], name


def test_no_path_of_a_machine_in_the_docs() -> None:
    for name, text in DOCS.items():
        assert not re.search(r"(?<![\w.])/(home|root|Users)/", text), name
