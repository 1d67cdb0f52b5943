"""What `precision: auto` comes to, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from data.layout import Workspace
from data.records import ImageSpec
from tasks import freeze
from tasks.config.params import Params, read
from tasks.engine import precision
from tasks.engine.precision import Trial, measured_gain, processor, trial
from tasks.workspace.inputs import Lineage

PARAMS = read(Path(__file__).parents[3] / "params.yaml")
DIGITS = ImageSpec(tuple("0123456789"), 1, 28)


def asked(train: str, evaluate: str) -> Params:
    return PARAMS.model_copy(
        update={
            "train": PARAMS.train.model_copy(update={"precision": train}),
            "evaluate": PARAMS.evaluate.model_copy(update={"precision": evaluate}),
        }
    )


def test_auto_is_the_default_and_takes_bf16_only_where_it_gains() -> None:
    assert (PARAMS.train.precision, PARAMS.evaluate.precision) == ("auto", "auto")
    assert Trial("a", native=True, gain=2.0).chosen == "bf16"
    assert Trial("a", native=True, gain=1.05).chosen == "fp32", "within what one run differs from another"
    assert Trial("a", native=False, gain=None).chosen == "fp32"
    assert Trial("a", native=False, gain=2.0).chosen == "fp32"


def test_what_auto_came_to_is_said_with_its_reason() -> None:
    assert Trial("this CPU", native=True, gain=2.0).lines(asked("auto", "auto")) == [
        "train.precision and evaluate.precision: auto is bf16 here, bf16 takes 0.50 times as long as fp32 on this CPU"
    ]
    assert Trial("this CPU", native=False, gain=None).lines(asked("auto", "fp32")) == [
        "train.precision: auto is fp32 here, no instructions for bf16 on this CPU"
    ]
    assert Trial("this CPU", native=True, gain=2.0).lines(asked("bf16", "fp32")) == []


def test_bf16_that_costs_time_is_warned_of_with_the_factor() -> None:
    assert Trial("this CPU", native=False, gain=0.18).lines(asked("bf16", "auto")) == [
        "evaluate.precision: auto is fp32 here, no instructions for bf16 on this CPU",
        "warning: train.precision: bf16 takes 5.6 times as long as fp32 on this CPU; auto would be fp32",
    ]


@pytest.mark.parametrize(("native", "wants", "tries"), [(True, "auto", 1), (False, "auto", 0), (False, "bf16", 1)])
def test_a_processor_without_bf16_is_tried_only_where_bf16_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, native: bool, wants: str, tries: int
) -> None:
    asks: list[Any] = []
    monkeypatch.setattr(precision, "processor", lambda _: ("a processor", native))
    monkeypatch.setattr(precision, "measured_gain", lambda *given: asks.append(given) or 3.0)
    found = trial(asked(wants, "fp32"), DIGITS)
    assert len(asks) == tries
    assert found.chosen == ("bf16" if native else "fp32")


def test_the_trial_measures_both_and_leaves_torch_as_it_was() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert 0.01 < measured_gain(PARAMS, DIGITS) < 100
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    name, native = processor()
    assert "bf16" in name
    assert native == ("no bf16" not in name)


def test_stages_take_what_the_lineage_says(tmp_path: Path) -> None:
    both = asked("auto", "fp32")
    came_to = Lineage(None, None, (), precision="bf16").settled(both)
    assert (came_to.train.precision, came_to.evaluate.precision) == ("bf16", "fp32")
    with pytest.raises(ValueError, match="must say what precision: auto came to"):
        Lineage(None, None, ()).settled(both)
    assert Lineage(None, None, ()).settled(asked("bf16", "fp32")).train.precision == "bf16"
    round_ = Workspace(tmp_path).round(1)
    round_.folder.mkdir(parents=True)
    round_.opened.write_text('{"at": "2026-01-01T00:00:00+00:00", "precision": "bf16"}')
    assert freeze.precision(round_, both) == {"precision": "bf16"}
    assert freeze.precision(round_, asked("fp32", "fp32")) == {}
