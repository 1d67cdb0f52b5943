"""The evaluate stage on two rounds of a small campaign, its figures recomputed from the record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from round_states import begin, mark_closed

from data.layout import Round, Workspace
from data.records import Candidate, Verdict
from data.shards import Images, encode_png, read_candidates
from tasks.attack import attack
from tasks.attacks._answers import answer_all, in_parts
from tasks.config.params import Params, read
from tasks.engine import checkpoint, inference, stage
from tasks.engine.devices import ONE_PROCESS
from tasks.evaluate import evaluate, transferred
from tasks.evaluation.predictions import Answered, measured
from tasks.evaluation.predictions import read as read_predictions
from tasks.freeze import freeze
from tasks.prepare import check_same, freeze_data, freeze_others
from tasks.train import train
from tasks.workspace import inputs
from tasks.workspace.dvc import dvc
from tasks.workspace.git import WorkspaceError
from tasks.workspace.rounds import write_index

PGD = {"steps": 4, "step_size": 0.01, "restarts": 1}
SECTIONS = {
    "data": {"size": 20, "limit": 600},
    "threat": {"epsilon": 0.02},
    "train": {"epochs": 4, "batch": 16},
    "attack": {"count": 6, "kinds": {"pgd": PGD}},
    "evaluate": {
        "attacks": {"square": {"queries": 20}, "fgsm": {}, "pgd": PGD},
        "battery": {"apgd_ce": {"steps": 6}},
        "epsilons": [0.05, 0.005],
        "sets": {"drawn": "other"},
    },
    "promote": {"margins": None, "clean_drop": 0.03, "robust_drop": 0.02},  # the rule of before
}


def finish(round_: Round) -> dict[str, Any]:
    stage.run("evaluate", evaluate, round_.challenger)
    mark_closed(round_)
    metrics: dict[str, Any] = json.loads(round_.challenger.metrics.read_text())
    return metrics


def people(net: torch.nn.Module, pool: Images) -> list[Candidate]:
    """Judged candidates of two annotators, pool images upside down, one of each kind that the rates tell apart."""
    flipped = pool.pixels_NCHW.flip(2)
    answers_N, _ = inference.answer(net, flipped)
    fools = [i for i in range(len(pool)) if answers_N[i] != pool.labels_N[i]][:18]
    harmless = [i for i in range(len(pool)) if answers_N[i] == pool.labels_N[i]][:2]
    assert (len(fools), len(harmless)) == (18, 2)
    verdicts = [Verdict.VERIFIED] * 16 + [Verdict.PENDING, Verdict.REJECTED] + [Verdict.VERIFIED, Verdict.PENDING]
    return [
        Candidate(
            f"001/p/{pool.keys[i]}",
            1,
            "simulated",
            encode_png(flipped[i]),
            int(pool.labels_N[i]),
            annotator=f"{n % 2}@x",
            answer=int(answers_N[i]),
            verdict=verdicts[n],
        )
        for n, i in enumerate([*fools, *harmless])
    ]


def put_elsewhere(workspace: Workspace, params: Params) -> None:
    """Ten pool images, upside down, in a folder for each class; frozen as `dadc init` does it."""
    pool = inputs.images(workspace, "pool")
    for i in range(10):
        folder = workspace.root / "other" / pool.classes[int(pool.labels_N[i])]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(encode_png(pool.pixels_NCHW[i].flip(1)))
    with pytest.raises(WorkspaceError, match=r"evaluate\.sets\.drawn is not frozen yet; `dadc init` does it"):
        check_same(workspace, params)
    freeze_others(workspace, params, print)
    dvc(workspace, "add", str(workspace.other("drawn")), quiet=True)
    check_same(workspace, params)


@dataclass(frozen=True)
class Evaluated:
    """Round 000 evaluated, and round 001 with the target's own weights as its challenger; what its evaluation gave."""

    first: Round
    second: Round
    before: dict[str, Any]  # round 000's metrics
    metrics: dict[str, Any]  # round 001's
    record: list[Answered]

    @property
    def table(self) -> dict[str, Any]:
        """The challenger's answers on the test split, by column."""
        (test,) = [part for part in self.record if part.images == "test"]
        return {"key": list(test.keys), **test.columns}

    def images(self, name: str) -> Images:
        return inputs.images(self.second.workspace, name)

    def net(self) -> torch.nn.Module:
        return checkpoint.load(self.second.challenger.model)[0]

    def shard(self) -> list[Candidate]:
        return read_candidates(self.second.candidates)


@pytest.fixture(scope="module")
def frozen_campaign(make_workspace: Callable[..., Path]) -> Path:
    """A workspace whose round 000 is closed and whose round 001 is frozen, with the target's own weights."""
    workspace = Workspace(make_workspace(**SECTIONS))
    params = read(workspace.params)
    freeze_data(workspace, params, print)
    put_elsewhere(workspace, params)
    first = begin(workspace, 0)
    freeze(first, [], params, None)
    stage.run("train", train, first.challenger)
    shutil.copyfile(first.challenger.trained, first.challenger.model)
    finish(first)

    second = begin(workspace, 1)
    write_index(second, "collected", {"target": "data/rounds/000/model.safetensors"})
    stage.run("attack", stage.of_round(attack), second.challenger)
    machines = [replace(c, verdict=Verdict.VERIFIED) for c in read_candidates(second.attack)]
    net, _ = checkpoint.load(first.challenger.model)
    broken = Candidate("001/p/broken", 1, "simulated", b"", -1, annotator="0@x").rejected("no ink", wellformed=False)
    freeze(second, [*people(net, inputs.images(workspace, "pool")), broken, *machines], params, first)
    shutil.copyfile(first.challenger.model, second.challenger.model)
    return workspace.root


@pytest.fixture
def campaign(frozen_campaign: Path, tmp_path: Path) -> tuple[Round, Round]:
    """Both rounds in a copy of their own, which a test may change."""
    workspace = Workspace(Path(shutil.copytree(frozen_campaign, tmp_path / "workspace", symlinks=True)))
    return workspace.round(0), workspace.round(1)


@pytest.fixture(scope="module")
def evaluated(frozen_campaign: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    root = tmp_path_factory.mktemp("evaluated") / "workspace"
    workspace = Workspace(Path(shutil.copytree(frozen_campaign, root, symlinks=True)))
    first, second = workspace.round(0), workspace.round(1)
    stage.run("evaluate", evaluate, second.challenger)
    before, metrics = (json.loads(round_.challenger.metrics.read_text()) for round_ in (first, second))
    return Evaluated(first, second, before, metrics, read_predictions(second.challenger.predictions))


def test_the_first_round_is_champion_and_collects_nothing(evaluated: Evaluated) -> None:
    before = evaluated.before
    assert (before["round"], before["promoted"], before["champion"]) == (0, True, 0)
    assert before["collected"] == 0
    assert before["mer"] is None
    assert before["heal"]["rate"] is None


def test_the_error_rates_count_people_and_their_verdicts(evaluated: Evaluated) -> None:
    metrics = evaluated.metrics
    counts = {name: metrics[name] for name in ("collected", "fooling", "verified_fooling", "pending")}
    assert counts == {"collected": 20, "fooling": 18, "verified_fooling": 16, "pending": 1}
    assert metrics["mer"] == 0.9
    assert metrics["vmer"] == {"low": 0.8, "high": 0.85}
    assert metrics["split_by"] == "task"
    assert metrics["by_source"]["simulated"]["mer"] == 0.9


def test_every_answer_is_recorded(evaluated: Evaluated) -> None:
    test, table = evaluated.images("test"), evaluated.table
    answers, _ = inference.answer(evaluated.net(), test.pixels_NCHW)
    assert table["key"] == list(test.keys)
    assert table["clean"] == answers.tolist()
    battery = {f"{what}_{name}" for what in ("tried", "broke") for name in ("apgd_ce", "square", "transfer")}
    radii = {"radius_0.005", "radius_0.05"}
    signs = {"zero_clean", "zero_start", "zero_cross_entropy", "differs", "probabilities"}
    signs |= {f"{what}_{name}" for what in ("asked", "fell") for name in ("square", "random", "large")}
    accuracies = accuracy_columns(evaluated.metrics)
    named = {"key", "label", "confidence", "label_probability", "squares"}
    assert set(table) == named | accuracies.keys() | battery | radii | signs
    assert {(each.net, each.images) for each in evaluated.record} == {
        *((net, images) for net in ("challenger", "target") for images in ("validation", "candidates")),
        *(("challenger", "test"), ("target", "pool"), ("challenger", "set:drawn")),
    }


def accuracy_columns(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The column of predictions.parquet behind each accuracy on the test split, with the accuracy."""
    columns = {"clean": metrics["clean"], **{f"attack_{k}": v for k, v in metrics["robust"].items()}}
    return columns | {f"shift_{k}": v for k, v in metrics["ood"].items() if k not in ("mean", "drawn")}


def test_every_accuracy_is_the_share_of_right_answers_with_its_interval(evaluated: Evaluated) -> None:
    table = evaluated.table
    for column, accuracy_ in accuracy_columns(evaluated.metrics).items():
        right = sum(a == b for a, b in zip(table[column], table["label"], strict=True))
        assert accuracy_["n"] == len(table["label"])
        assert accuracy_["accuracy"] == right / accuracy_["n"], column
        assert accuracy_["low"] < accuracy_["accuracy"] < accuracy_["high"] or accuracy_["accuracy"] in (0, 1)


def test_calibration_counts_every_test_image_once(evaluated: Evaluated) -> None:
    calibration = evaluated.metrics["calibration"]
    assert calibration["n"] == len(evaluated.images("test")) == sum(each["n"] for each in calibration["bins"])
    assert 0 <= calibration["calibrated"]["low"] <= calibration["calibrated"]["high"] <= 1
    assert 0 < calibration["brier"] < 2


def test_ood_accuracy_is_the_mean_of_the_shifts_and_a_set_from_elsewhere_stands_beside_it(evaluated: Evaluated) -> None:
    ood_ = evaluated.metrics["ood"]
    shifts = [ood_[name]["accuracy"] for name in evaluated.metrics["ood_home_made"]]
    assert evaluated.metrics["ood_home_made"] == ["affine", "gaussian_noise"]
    assert ood_["mean"]["accuracy"] == pytest.approx(sum(shifts) / len(shifts))
    drawn = inputs.external_set(evaluated.second.workspace, "drawn")
    answers, _ = inference.answer(evaluated.net(), drawn.pixels_NCHW)
    expected = (10, (answers == drawn.labels_N).double().mean().item())
    assert (ood_["drawn"]["n"], ood_["drawn"]["accuracy"]) == expected


def test_the_worst_case_is_no_better_than_any_attack_and_the_battery_tries_what_still_stands(
    evaluated: Evaluated,
) -> None:
    metrics, n = evaluated.metrics, len(evaluated.images("test"))
    robust, battery = metrics["robust"], metrics["battery"]
    assert robust["worst"]["accuracy"] <= min(robust[name]["accuracy"] for name in ("fgsm", "pgd"))
    gradient, blind = battery["apgd_ce"], battery["square"]
    assert 0 < gradient["tried"] < n
    assert gradient["tried"] - gradient["broken"] == blind["tried"], (
        "what needs no gradient counts after all that follow it"
    )
    assert blind["tried"] - blind["broken"] == round(robust["worst"]["accuracy"] * n)


def test_signs_of_masking_are_what_blind_attacks_and_transfer_break(evaluated: Evaluated) -> None:
    metrics, n = evaluated.metrics, len(evaluated.images("test"))
    battery, signs = metrics["battery"], metrics["masking"]["signs"]
    assert (metrics["masking"]["found"], metrics["masking"]["alarms"]) == (False, [])
    square = battery["square"]
    assert (signs["fell_square"]["shown"], signs["fell_square"]["of"]) == (square["broken"], square["tried"])
    assert signs["fell_random"]["of"] == signs["stands_at_large_radius"]["of"] == 10, "evaluate.gradients.images"
    transfer = battery["transfer"]
    assert transfer["tried"] == round(metrics["robust"]["worst"]["accuracy"] * n)
    assert signs["broke_transfer"]["shown"] == transfer["broken"] < 0.05 * n, "PGD on the same weights is not blind"
    assert "transfer" not in evaluated.before["battery"], "round 000 has no target"


def test_one_step_overfitting_is_looked_for_in_defended_losses_only(evaluated: Evaluated) -> None:
    assert evaluated.metrics["one_step"]["found"] is False, "NSL promises something under attack"
    plain = evaluated.before["one_step"]["found"]
    assert plain is None, "a plain network falls further under PGD than under FGSM, as it must"


def test_accuracy_falls_with_the_radius(evaluated: Evaluated) -> None:
    clean, curve = evaluated.metrics["clean"], evaluated.metrics["curve"]
    assert list(curve) == ["0.005", "0.05"]
    assert clean["accuracy"] >= curve["0.005"]["accuracy"] > curve["0.05"]["accuracy"]
    assert clean["accuracy"] > 0.5


def test_the_same_weights_have_the_same_figures_in_every_round(evaluated: Evaluated) -> None:
    assert evaluated.metrics["clean"] == evaluated.before["clean"]
    assert evaluated.metrics["robust"] == evaluated.before["robust"]


def test_the_targets_own_weights_are_not_promoted_over_it(evaluated: Evaluated) -> None:
    metrics = evaluated.metrics
    assert metrics["promoted"] is False
    assert metrics["champion"] == 0
    assert "nothing was gained" in metrics["gate"]["reasons"][0]
    assert [c for c in evaluated.shard() if c.split == "validation" and c.fooling and c.verified]
    assert set(metrics["gate"]["challenger"]) == {"clean", "robust", "candidates"}
    assert metrics["gate"]["champion"]["candidates"] == 0, "they fooled the champion"


def test_the_targets_weights_heal_nothing_that_fooled_the_target(evaluated: Evaluated) -> None:
    heal = evaluated.metrics["heal"]
    assert heal["rate"] == 0
    assert heal["n"] == sum(c.fooling and c.verified for c in evaluated.shard()) >= 16
    assert heal["relapse"]["n"] == 0


def test_attack_success_is_counted_over_seeds_that_the_target_had_right(evaluated: Evaluated) -> None:
    pgd, pool = evaluated.metrics["by_source"]["pgd"], evaluated.images("pool")
    answers, _ = inference.answer(evaluated.net(), pool.pixels_NCHW)
    right_keys = {k for k, a, b in zip(pool.keys, answers.tolist(), pool.labels_N.tolist(), strict=True) if a == b}
    tried = [c for c in evaluated.shard() if c.source == "pgd" and c.seed_image in right_keys]
    assert tried
    assert pgd["attack_success_rate"] == sum(c.fooling for c in tried) / len(tried)
    assert (pgd["verified_rate"], pgd["collected"]) == (1.0, 6)


def test_every_figure_follows_from_the_record_and_is_made_again_to_the_byte(evaluated: Evaluated) -> None:
    second = evaluated.second
    assert measured(evaluated.record, evaluated.shard(), 1, 0, read(second.params)) == evaluated.metrics
    made = [path.read_bytes() for path in (second.challenger.metrics, second.challenger.predictions)]
    stage.run("evaluate", evaluate, second.challenger)
    assert [path.read_bytes() for path in (second.challenger.metrics, second.challenger.predictions)] == made


def test_a_healed_candidate_counts_and_a_worse_network_is_refused(
    campaign: tuple[Round, Round],
) -> None:
    first, second = campaign
    net, card = checkpoint.load(second.challenger.model)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()  # answers class 0 to everything
    checkpoint.save(second.challenger.model, net, card)
    metrics = finish(second)
    record = [c for c in read_candidates(second.candidates) if c.fooling and c.verified]
    healed = sum(c.intended == 0 for c in record)
    assert metrics["heal"]["rate"] == healed / len(record)
    assert not metrics["promoted"]
    assert metrics["champion"] == 0
    assert any(reason.startswith("clean accuracy fell by") for reason in metrics["gate"]["reasons"])

    # A third round with the first one's weights, against the second's as the target: what class 0 had healed relapses.
    third = begin(second.workspace, 2)
    freeze(third, [], read(third.params), second)
    shutil.copyfile(first.challenger.model, third.challenger.model)
    metrics = finish(third)
    assert (metrics["collected"], metrics["mer"], metrics["by_source"]) == (0, None, {})
    assert metrics["heal"]["relapse"] == {**metrics["heal"]["relapse"], "n": healed, "rate": 1.0 if healed else None}
    assert (metrics["promoted"], metrics["champion"]) == (True, 2)


def test_a_target_that_was_changed_is_an_error(campaign: tuple[Round, Round]) -> None:
    first, second = campaign
    first.challenger.model.write_bytes(first.challenger.model.read_bytes() + b" ")
    with pytest.raises(ValueError, match="is not what was frozen: expected md5"):
        stage.run("evaluate", evaluate, second.challenger)
    assert not second.challenger.metrics.exists()


def test_what_transfer_breaks_is_told_where_gradients_are_masked() -> None:
    """A network whose gradients vanish stands under PGD, and falls to images made on the same network without that."""
    torch.manual_seed(0)
    labels = torch.arange(40) % 2
    pixels = (torch.rand(40, 1, 8, 8) * 60 + 100 + 8 * (2 * labels - 1).reshape(-1, 1, 1, 1)).to(torch.uint8)
    images = Images(pixels, labels, tuple(map(str, range(40))), ("dark", "light"))
    open_ = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    with torch.no_grad():
        open_[1].weight.copy_(torch.tensor([-1.0, 1.0])[:, None].expand(2, 64))
        open_[1].bias.copy_(torch.tensor([32.0, -32.0]))
    level = float(inference.to_float(pixels).mean())
    with torch.no_grad():
        open_[1].bias.copy_(torch.tensor([64 * level, -64 * level]))
    masked = torch.nn.Sequential(open_, Rounded())
    params = read(Path(__file__).parents[2] / "params.yaml")
    pgd = {"pgd": {"steps": 10, "step_size": 0.025}}
    params = params.model_copy(
        update={"evaluate": params.evaluate.model_copy(update={"attacks": pgd, "battery": {}, "shifts": {}})}
    )
    found = answer_all(masked, images, params, shifts=False)
    stood = found["attack_worst"] == labels
    assert stood.float().mean() > 0.9, "no gradient, no harm"
    told = transferred(masked, open_, images, found["attack_worst"], params)
    assert torch.equal(told["tried_transfer"], stood)
    assert told["broke_transfer"].float().mean() > 0.5
    none = transferred(masked, masked, images, found["attack_worst"], params)
    assert not none["broke_transfer"].any()


class Rounded(torch.nn.Module):
    """Logits without a slope."""

    def forward(self, logits_BK: torch.Tensor) -> torch.Tensor:
        return logits_BK.sign() + 0 * logits_BK


def test_a_large_set_is_answered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(
        torch.arange(7, dtype=torch.uint8).reshape(7, 1, 1, 1), torch.zeros(7).long(), tuple("abcdefg"), ("x",)
    )
    seen = []

    def answering(part: Images) -> dict[str, torch.Tensor]:
        seen.append(len(part))
        return {"pixel": part.pixels_NCHW.flatten().long()}

    monkeypatch.setattr("tasks.attacks._answers.AT_ONCE", 3)
    assert (in_parts(images, answering, ONE_PROCESS)["pixel"].tolist(), seen) == (list(range(7)), [3, 3, 1])
