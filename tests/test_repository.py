"""What the repository holds, and what it must not."""

from __future__ import annotations

import functools
import re
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("flows", "tasks", "models", "data")
LOCKS = sorted((ROOT / "locks").glob("*.txt"))
SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bhf_[A-Za-z0-9]{30,}\b"
    r"|(?i:password|token|secret)\w*\"?\s*[:=]\s*f?[\"'][A-Za-z0-9_+/-]{20,}[\"']"
)


def tracked() -> list[Path]:
    """The files that Git knows, or would take in."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> dict[Path, str]:
    found = {}
    for path in tracked():
        try:
            found[path.relative_to(ROOT)] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_hashed_versions_and_no_addresses(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"[\s(]/\w", text), "no path of the machine it was made on"
    assert not re.search(r"^--|^-[ief]", text, re.M), "no option of an installer, such as an index"
    pins = re.findall(r"^[a-z0-9][^\s=]*==\S+", text, re.M | re.I)
    assert pins
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.M)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    assert len(blocks) == len(pins), "every requirement is pinned"


def test_no_other_lock_file() -> None:
    """They record where things are downloaded from."""
    names = {path.name for path in tracked()}
    assert not names & {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "package-lock.json", "yarn.lock"}


def test_what_is_depended_on_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"].values()
    wanted = [*project["project"]["dependencies"], *(each for group in groups for each in group)]
    names = {re.split(r"[<>=!~\s\[;]", each)[0].lower() for each in wanted}
    locked = {pin.split("==")[0].split("[")[0].lower() for pin in (ROOT / "locks/dadc.txt").read_text().splitlines()}
    assert names <= locked, f"not locked: {sorted(names - locked)}; run `make lock`"


def test_no_secret_is_committed() -> None:
    assert SECRETS.search(f'"token": "{"0123456789" * 4}"'), "the pattern finds what it is for"
    found = {str(path): match.group()[:40] for path, text in texts().items() if (match := SECRETS.search(text))}
    assert found == {}


def test_nothing_is_unpickled() -> None:
    """A pickle runs code when it is opened; torch, numpy, pandas and joblib open theirs with it."""
    unpickles = re.compile(
        r"^\s*(?:from|import) (?:c?[pP]ickle|dill|cloudpickle|joblib|shelve|marshal)\b|\b(?:torch|joblib)\.load\("
        r"|read_pickle\(|allow_pickle\s*=\s*True|weights_only\s*=\s*False|yaml\.(?:unsafe_|full_)load|UnsafeLoader"
        r"|(?<![\w.\"'])(?:eval|exec)\(",
        re.M,
    )
    for line in ("import pickle", "torch.load(path)", "np.load(p, allow_pickle=True)", "x = eval(text)"):
        assert unpickles.search(line), "the pattern finds what it is for"
    advice = Path("models/_pretrained.py")  # tells how to turn a pickle that one trusts into safetensors
    for path, text in texts().items():
        if path.suffix == ".py" and path.parts[0] != "tests":
            found = [line.strip() for line in text.splitlines() if unpickles.search(line)]
            assert not [line for line in found if not (path == advice and "weights_only=True" in line)], path


def test_nothing_listens_to_other_machines() -> None:
    """Unless told otherwise; what the local services listen on is seen in tests/flows/stack/test_stack.py."""
    everywhere = re.compile(r"[\"'](?:0\.0\.0\.0|::)[\"']")
    assert everywhere.search('host="0.0.0.0"')
    found = [str(p) for p, text in texts().items() if p.suffix == ".py" and everywhere.search(text)]
    assert [path for path in found if not path.startswith("tests/")] == []


def test_a_module_has_at_most_400_lines() -> None:
    long = {str(p): n for p, text in texts().items() if p.suffix == ".py" and (n := text.count("\n")) > 400}
    assert long == {}


def test_modules_are_short() -> None:
    lengths = [text.count("\n") for p, text in texts().items() if p.suffix == ".py" and p.parts[0] in PACKAGES]
    assert len(lengths) > 200
    assert statistics.median(lengths) <= 120


def test_the_house_has_at_most_seven_floors() -> None:
    """A room or step of `tasks/` stands one floor above the highest of those that it imports."""
    graph = grimp.build_graph(*PACKAGES)
    below: dict[str, set[str]] = {name: set() for name in graph.find_children("tasks")}
    for module in graph.find_descendants("tasks"):
        for imported in graph.find_modules_directly_imported_by(module):
            above, under = (".".join(name.split(".")[:2]) for name in (module, imported))
            if above != under and under in below:
                below[above].add(under)

    @functools.cache
    def floor(name: str) -> int:
        return 1 + max(map(floor, below[name]), default=0)

    floors = {name: floor(name) for name in below}
    assert floors["tasks.config"] == 1
    assert max(floors.values()) <= 7, floors


def test_no_large_file() -> None:
    large = {str(p.relative_to(ROOT)): p.stat().st_size for p in tracked() if p.stat().st_size > 1_000_000}
    assert large == {}, "DVC keeps data"


def test_every_module_says_what_it_is() -> None:
    bare = [
        str(path)
        for path, text in texts().items()
        if path.suffix == ".py" and path.parts[0] != "tests" and not text.startswith('"""')
    ]
    assert bare == []


def test_modules_are_tested_or_reached_by_a_contract() -> None:
    """tests/ mirrors the tree: a folder of code has a folder of tests."""
    for folder in ("data", "flows", "models", "tasks"):
        assert list((ROOT / "tests" / folder).glob("test_*.py")), folder


@pytest.mark.parametrize("heavy", ["torch", "mlflow", "label_studio_sdk", "gradio", "sklearn"])
def test_the_command_starts_without_heavy_packages(heavy: str) -> None:
    code = f"import sys, flows.cli, tasks.workspace.services, tasks.config.params; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_imports_go_down_only() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
