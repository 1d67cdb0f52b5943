"""Where everything lies in a workspace. Paths only: nothing is read or written here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "pool", "validation", "test")
GATE = "gate"  # a fifth split, of campaigns whose params.yaml asks for one
CHALLENGER, REFERENCE, CONTROL = ARMS = ("challenger", "reference", "control")


def pointer(path: Path) -> Path:
    """The .dvc file by which Git knows a file that DVC keeps."""
    return path.with_name(path.name + ".dvc")


@dataclass(frozen=True)
class Workspace:
    """A Git checkout that holds one campaign."""

    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def base(self) -> Path:
        return self.root / "data" / "base"

    @property
    def splits(self) -> Path:
        return self.base / "splits.json"

    def split(self, name: str) -> Path:
        """The frozen images of one split, `train`, `pool`, `validation`, `test` or `gate`."""
        if name not in (*SPLITS, GATE):
            raise ValueError(f"split must be one of {', '.join((*SPLITS, GATE))}, got {name!r}")
        return self.base / f"{name}.parquet"

    @property
    def rounds(self) -> Path:
        return self.root / "data" / "rounds"

    @property
    def index(self) -> Path:
        return self.rounds / "index.json"

    @property
    def local(self) -> Path:
        """Git-ignored: ports, logs, databases and secrets of this machine."""
        return self.root / ".dadc"

    def other(self, name: str) -> Path:
        """The frozen images of a set of `evaluate.sets`."""
        return self.base / f"ood-{name}.parquet"

    def pixels(self, digest: str) -> Path:
        """Raw pixels of the images in the file of that digest, made where they are wanted."""
        return self.local / "pixels" / f"{digest}.u8"

    @property
    def hint(self) -> Path:
        """Touched when Label Studio says that something was annotated."""
        return self.local / "hint"

    def round(self, number: int) -> Round:
        return Round(self, number)


@dataclass(frozen=True)
class Round:
    """One round's folder, `data/rounds/NNN/`, and what the round makes in it."""

    workspace: Workspace
    number: int

    @property
    def name(self) -> str:
        return f"{self.number:03d}"

    @property
    def tag(self) -> str:
        return f"round-{self.name}"

    @property
    def folder(self) -> Path:
        return self.workspace.rounds / self.name

    @property
    def params(self) -> Path:
        """params.yaml as it was when the round opened."""
        return self.folder / "params.yaml"

    @property
    def opened(self) -> Path:
        """Says when the round was opened; the last file that opening writes."""
        return self.folder / "opened.json"

    @property
    def attack(self) -> Path:
        """Machine candidates, made by the attack stage."""
        return self.folder / "attack.parquet"

    @property
    def annotations(self) -> Path:
        """What Label Studio held, as pulled: raw, append-only."""
        return self.folder / "annotations.jsonl"

    @property
    def candidates(self) -> Path:
        """The shard: every candidate with its votes and verdict."""
        return self.folder / "candidates.parquet"

    @property
    def lineage(self) -> Path:
        """What the round was trained on and by which code and environment."""
        return self.folder / "lineage.json"

    @property
    def weights(self) -> Path:
        """A user's trained weights that the round starts from; there only where params.yaml names some."""
        return self.folder / "weights.safetensors"

    def arm(self, name: str) -> Arm:
        """What the round trains and evaluates under that name, one of ARMS."""
        return Arm(self, name)

    @property
    def challenger(self) -> Arm:
        """The arm that may become the next target."""
        return Arm(self)

    @property
    def gate(self) -> Path:
        """The gate's verdict on the challenger; rounds opened before there was the gate stage have none."""
        return self.folder / "gate.json"

    @property
    def gate_answers(self) -> Path:
        """What the networks answered that the gate compared, image by image."""
        return self.folder / "gate.parquet"

    @property
    def decision(self) -> Path:
        """A promotion decided by hand, over the gate's verdict."""
        return self.folder / "decision.json"

    @property
    def closed(self) -> Path:
        """Says when the round was closed; the last file that closing writes."""
        return self.folder / "closed.json"

    @property
    def aborted(self) -> Path:
        """Says when and why a round was given up."""
        return self.folder / "aborted.json"


@dataclass(frozen=True)
class Arm:
    """A network that a round trains and evaluates, apart from what the round collects.

    The challenger's files lie in the round's folder itself; every other arm's lie in a folder of its own in there.
    """

    round: Round
    name: str = CHALLENGER

    def __post_init__(self) -> None:
        if self.name not in ARMS:
            raise ValueError(f"an arm must be one of {', '.join(ARMS)}, got {self.name!r}")

    @property
    def label(self) -> str:
        """The arm in words, and what its random numbers are derived from: `001`, or `001/reference`."""
        return self.round.name if self.name == CHALLENGER else f"{self.round.name}/{self.name}"

    @property
    def folder(self) -> Path:
        return self.round.folder if self.name == CHALLENGER else self.round.folder / self.name

    @property
    def trained(self) -> Path:
        """Weights as the train stage left them."""
        return self.folder / "train.safetensors"

    @property
    def history(self) -> Path:
        """How training went, epoch by epoch."""
        return self.folder / "train.json"

    @property
    def model(self) -> Path:
        """Weights after RiFT."""
        return self.folder / "model.safetensors"

    @property
    def rift(self) -> Path:
        """How RiFT went, module by module."""
        return self.folder / "rift.json"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def predictions(self) -> Path:
        """What the networks answered while the arm was evaluated, image by image."""
        return self.folder / "predictions.parquet"
