"""params.yaml: its schema, read and checked here and nowhere else.

A wrong file gives one line for each fault: the path of the key, what was expected, what came.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MantissaNoDotYAML1_1Warning, YAMLError

from tasks.config import errors

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
KindName = Annotated[str, Field(pattern=errors.KIND)]
NetworkName = Annotated[str, Field(pattern=errors.NETWORK)]
Precision = Literal["auto", "fp32", "bf16"]  # a round's lineage.json says what auto came to; unresolved it is fp32
KindParams = dict[str, Any]  # checked against the kind's own Params by `check_kinds`


class ParamsError(ValueError):
    """params.yaml does not say what it must; the message has a line for each fault."""


class Frozen(BaseModel):
    """Base of every set of parameters: no unknown key, no silent conversion, no change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Data(Frozen):
    set: KindName
    root: str | None
    size: Annotated[int, Field(ge=8, le=1024)] | None
    channels: Literal[1, 3] | None
    limit: Count | None
    pool: Count
    validation: Count
    # Defaults, here and below: what a campaign has that was begun before there was the key.
    fit: Literal["crop", "pad", "stretch"] = "crop"
    test_share: float | None = Field(default=None, gt=0, lt=1)
    gate: Annotated[int, Field(ge=0)] = 0


class Model(Frozen):
    name: NetworkName  # a file of models/, or package.module:build
    weights: str | None


LARGEST = {"linf": 1.0, "l2": 32.0}  # radii from which on a number is meant for pixels of 0 to 255; 3 is usual in L2


def check_length(what: str, norm: str, length: float) -> None:
    """ValueError, beginning with `what`, for a radius or a step that no image with pixels in [0, 1] bears."""
    if length >= LARGEST[norm]:
        raise ValueError(
            f"{what} under {LARGEST[norm]:g}, pixels lie in [0, 1], got {length:g}; "
            f"for {length:g}/255 write {length / 255:.5f}"
        )


class Threat(Frozen):
    """A threat model: what an attack may do to an image."""

    norm: Literal["linf", "l2"]
    epsilon: float = Field(gt=0)  # radius in that norm, pixels in [0, 1]

    @field_validator("epsilon")
    @classmethod
    def _in_pixels(cls, epsilon: float, known: ValidationInfo) -> float:
        if "norm" in known.data:
            check_length("a radius", known.data["norm"], epsilon)
        return epsilon


class Attack(Frozen):
    count: Annotated[int, Field(ge=0)]
    kinds: dict[KindName, KindParams]
    targeted: bool = False


class Collect(Frozen):
    drawings: Count
    edits: Annotated[int, Field(ge=0)]
    threshold: Count
    deadline: float | None = Field(gt=0)
    every: Count


class Aside(Frozen):
    """Who is set aside (tasks/quality/trust.py)."""

    alpha: float = Field(gt=0, lt=1)  # chance at most that an honest account ever is
    excess: Share  # rate of errors above the campaign's median that is still an honest account's
    siding: Share  # the same of votes for the wrong label on mislabelled candidates


SHARE_RULES = frozenset(  # the keys of `validate` that `aside` replaces
    {"probe_votes", "probe_accuracy", "judged_from", "annotator_rejected", "validator_dissent", "validator_siding"}
)


class Validate(Frozen):
    consensus: Count
    max_votes: Count
    non_fooling_share: Share
    unsettled: Literal["pending", "rejected"]
    # Defaults: what a round is held to that was opened before there were these rules.
    probes: Annotated[int, Field(ge=0)] = 0
    aside: Aside | None = None
    # Keys of rounds opened before `aside`, and what they are where a still earlier round has none.
    probe_votes: Count = 1
    probe_accuracy: Share = 0.0
    judged_from: Count = 1
    annotator_rejected: Share = 1.0
    validator_dissent: Share = 1.0
    validator_siding: Share = 1.0

    @model_validator(mode="after")
    def _enough_votes(self) -> Validate:
        if self.max_votes < self.consensus:
            raise ValueError(f"max_votes of at least consensus ({self.consensus}), got {self.max_votes}")
        replaced = sorted(SHARE_RULES & self.model_fields_set)
        if self.aside is not None and replaced:
            raise ValueError(f"either aside or the keys it replaces, got {', '.join(replaced)} too; remove those")
        return self


class Loss(Frozen):
    name: KindName
    params: KindParams


class TrainCandidates(Frozen):
    weight: float = Field(ge=0)
    repeat: Count
    non_fooling: bool


class Awp(Frozen):
    """Adversarial weight perturbation (arXiv:2004.05884), an addition to any loss."""

    gamma: float = Field(gt=0, lt=1)  # length of the move of a weight, as a share of its own
    from_epoch: Count = 1  # the first one with it: from the first step on it may keep a network from learning anything


class Train(Frozen):
    init: Literal["scratch", "target"]
    optimizer: Literal["adam", "sgd"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    batch: Count
    epochs: Count
    precision: Precision
    augment: dict[KindName, KindParams]
    loss: Loss
    candidates: TrainCandidates
    schedule: Literal["constant", "cosine", "one_cycle", "step", "late_step"] = "constant"
    patience: Count | None = None
    awp: Awp | None = None  # defaults, here and elsewhere: what a round has that was opened before there was the key


class First(Frozen):
    """Round 000: what differs from the rounds after it."""

    loss: Loss
    rift: bool
    weights: str | None = None  # the network itself, trained elsewhere; round 000 then trains nothing


class Rift(Frozen):
    enabled: bool
    radius: float = Field(gt=0)
    steps: Count
    ascent_rate: float = Field(gt=0)
    candidates: Count
    selection: Literal["paper", "trial"]
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    batch: Count
    tolerance: Share
    attack: KindParams
    statistics: Literal["frozen", "follow"] = "frozen"
    steps_of_tuning: Count | None = None
    augment: dict[KindName, KindParams] | None = None
    epochs: Count | None = None  # of fine-tuning, in rounds opened before there was steps_of_tuning
    report: bool = False  # of rounds opened before: benchmarks.rift measures what it asked for

    @model_validator(mode="after")
    def _one_length(self) -> Rift:
        if (self.epochs is None) == (self.steps_of_tuning is None):
            got = "neither" if self.epochs is None else "both"
            raise ValueError(f"steps_of_tuning, or epochs in its place, got {got}")
        return self


class Gradients(Frozen):
    """How gradient masking is looked for (tasks/evaluation/masking.py)."""

    images: Count  # at most, that the costly checks are made on
    queries: Count  # of Square, on each of them
    starts: Count  # random points of the ball, for each of them
    allowed: float = Field(gt=0, lt=1)  # share of images that an honest network may show a sign on
    alpha: float = Field(gt=0, lt=1)  # probability of any false alarm


class Evaluate(Frozen):
    attacks: dict[KindName, KindParams]
    shifts: dict[KindName, KindParams]
    masking: Share | None = None  # the rule of rounds that were opened before there was `gradients`
    gradients: Gradients | None = None
    one_step: Share = 0.15
    resamples: Count | None = None  # None in rounds opened before there was it: their figures are those of then
    battery: dict[KindName, KindParams] = {}
    epsilons: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(), strict=False)
    precision: Precision = "fp32"
    sets: dict[KindName, Annotated[str, Field(min_length=1)]] = {}

    @property
    def of_steps(self) -> Literal["fp32", "bf16"]:
        """The precision of the attacks' steps; an `auto` that nothing has settled is fp32."""
        return "bf16" if self.precision == "bf16" else "fp32"

    @model_validator(mode="after")
    def _named_once(self) -> Evaluate:
        both = sorted(self.attacks.keys() & self.battery.keys())
        if both:
            raise ValueError(f"each attack in attacks or in battery, {', '.join(both)} stands in both")
        if self.masking is not None and self.gradients is not None:
            raise ValueError("no masking beside gradients, which replaces it together with one_step; delete masking")
        taken = sorted(self.sets.keys() & {*self.shifts, "mean"})
        if taken:
            raise ValueError(f"sets under names of their own, {', '.join(taken)} is a shift's or the mean's")
        return self


class Margins(Frozen):
    """What a challenger may lose of each figure, as a share."""

    clean: Share
    robust: Share
    ood: Share
    fools: Share  # of people's held-out verified fooling candidates


class Promote(Frozen):
    margins: Margins | None = None
    alpha: float = Field(default=0.05, gt=0, lt=1)  # probability of any false gain, over the whole campaign
    undecided: Literal["keep", "promote"] = "keep"
    reference: bool = False
    clean_drop: Share | None = None  # with robust_drop the rule of rounds that were opened before there were margins
    robust_drop: Share | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Promote:
        drops = [self.clean_drop is not None, self.robust_drop is not None]
        if self.margins is not None and any(drops):
            raise ValueError("no clean_drop or robust_drop beside margins, which replace them; delete both")
        if self.margins is None and not all(drops):
            raise ValueError("margins, one for each of clean, robust, ood and fools")
        return self


class Schedule(Frozen):
    rounds: Annotated[int, Field(ge=0)] | None
    vmer: Share | None
    alpha: float | None = Field(ge=-1, le=1)
    notify: Annotated[str, Field(pattern=errors.BLOCK)] | None


class Simulate(Frozen):
    annotators: Annotated[int, Field(ge=1, le=50)]
    validators: Annotated[int, Field(ge=1, le=50)]
    tries: Count
    label_error: Share
    vote_error: Share


class Params(Frozen):
    """All of params.yaml."""

    campaign: str = Field(pattern=errors.CAMPAIGN)
    seed: int = Field(ge=0, lt=2**31)
    threads: Annotated[int, Field(ge=1, le=256)]
    accelerator: Literal["cpu", "cuda"] = "cpu"
    devices: Annotated[int, Field(ge=1, le=64)] = 1
    data: Data
    model: Model
    threat: Threat
    attack: Attack
    collect: Collect
    validate_: Validate = Field(alias="validate")  # pydantic has a method of that name
    train: Train
    first: First
    rift: Rift
    evaluate: Evaluate
    promote: Promote
    schedule: Schedule
    simulate: Simulate

    def with_precision(self, came_to: str) -> Params:
        """The same with this precision wherever it is `auto`."""
        sections = {
            name: section.model_copy(update={"precision": came_to})
            for name in ("train", "evaluate")
            if (section := getattr(self, name)).precision == "auto"
        }
        return self.model_copy(update=sections)


def read(path: Path) -> Params:
    """The parameters in a file; ParamsError says all that is wrong with it."""
    if not path.exists():
        raise ParamsError(f"expected {path}, and there is none; run dadc in a checkout of the project")
    return parse(path.read_bytes(), path)


def parse(text: str | bytes, path: Path) -> Params:
    """The parameters in a text; ParamsError, which names the file it is of, says all that is wrong with it."""
    try:
        content = _load(text.decode() if isinstance(text, bytes) else text)
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not sound YAML: {errors.of_yaml(error)}") from error
    if not isinstance(content, dict):
        raise ParamsError(f"{path} must be a mapping of keys, got {type(content).__name__}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(errors.of_keys(error, path.name, "")) from error


def _load(text: str) -> Any:
    """The content of a YAML 1.1 text, in which `yes` is true; a key that stands twice is an error."""
    yaml = YAML(typ="safe")
    yaml.version = "1.1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MantissaNoDotYAML1_1Warning)  # 1e-3 is a number here too
        return yaml.load(text)
