"""The evaluate stage on two rounds of a small campaign, its figures recomputed from the record."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from round_states import mark_closed

from data.layout import Round, Workspace
from data.records import Candidate, Verdict
from data.shards import Images, encode_png, read_candidates
from tasks.attack import attack
from tasks.config.params import Params, read
from tasks.engine import checkpoint, inference, stage
from tasks.engine.devices import ONE_PROCESS
from tasks.evaluate import answer_all, evaluate, in_parts, transferred
from tasks.evaluation.metrics import accuracy
from tasks.evaluation.predictions import Answered, elsewhere, measured, ood, trained_on
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
}


def begin(workspace: Workspace, number: int) -> Round:
    round_ = workspace.round(number)
    round_.folder.mkdir(parents=True)
    shutil.copyfile(workspace.params, round_.params)
    return round_


def finish(round_: Round) -> dict[str, Any]:
    stage.run("evaluate", evaluate, round_)
    mark_closed(round_)
    metrics: dict[str, Any] = json.loads(round_.metrics.read_text())
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


@pytest.fixture
def campaign(make_workspace: Callable[..., Path]) -> tuple[Round, Round, dict[str, Any]]:
    """Round 000 evaluated, round 001 frozen with the target's own weights as its challenger."""
    workspace = Workspace(make_workspace(**SECTIONS))
    params = read(workspace.params)
    freeze_data(workspace, params, print)
    put_elsewhere(workspace, params)
    first = begin(workspace, 0)
    freeze(first, [], params, None)
    stage.run("train", train, first)
    shutil.copyfile(first.trained, first.model)
    told = finish(first)

    second = begin(workspace, 1)
    write_index(second, "collected", {"target": "data/rounds/000/model.safetensors"})
    stage.run("attack", attack, second)
    machines = [replace(c, verdict=Verdict.VERIFIED) for c in read_candidates(second.attack)]
    net, _ = checkpoint.load(first.model)
    broken = Candidate("001/p/broken", 1, "simulated", b"", -1, annotator="0@x").rejected("no ink", wellformed=False)
    freeze(second, [*people(net, inputs.images(workspace, "pool")), broken, *machines], params, first)
    shutil.copyfile(first.model, second.model)
    return first, second, told


def test_two_rounds(campaign: tuple[Round, Round, dict[str, Any]]) -> None:
    _, second, before = campaign
    assert (before["round"], before["promoted"], before["champion"]) == (0, True, 0)
    assert before["collected"] == 0
    assert before["mer"] is None
    assert before["heal"]["rate"] is None

    stage.run("evaluate", evaluate, second)
    metrics, record = json.loads(second.metrics.read_text()), read_predictions(second.predictions)
    (part,) = [part for part in record if part.images == "test"]
    table = {"key": list(part.keys), **part.columns}
    assert metrics["collected"] == 20
    assert metrics["fooling"] == 18
    assert metrics["verified_fooling"] == 16
    assert metrics["pending"] == 1
    assert metrics["mer"] == 0.9
    assert metrics["vmer"] == {"low": 0.8, "high": 0.85}
    assert metrics["split_by"] == "task"
    assert metrics["by_source"]["simulated"]["mer"] == 0.9

    test, net = inputs.images(second.workspace, "test"), checkpoint.load(second.model)[0]
    answers, _ = inference.answer(net, test.pixels_NCHW)
    assert table["key"] == list(test.keys)
    assert table["clean"] == answers.tolist()
    columns = {"clean": metrics["clean"], **{f"attack_{k}": v for k, v in metrics["robust"].items()}}
    columns |= {f"shift_{k}": v for k, v in metrics["ood"].items() if k not in ("mean", "drawn")}
    others = {f"{what}_{name}" for what in ("tried", "broke") for name in ("apgd_ce", "square", "transfer")}
    others |= {"radius_0.005", "radius_0.05"}
    assert set(table) == {"key", "label", "confidence", *columns, *others}
    told = metrics["calibration"]
    assert told["n"] == len(test) == sum(each["n"] for each in told["bins"])
    assert 0 <= told["low"] <= told["high"] <= 1
    assert {(each.net, each.images) for each in record} == {
        *((net, images) for net in ("challenger", "target") for images in ("validation", "candidates")),
        *(("challenger", "test"), ("target", "pool"), ("challenger", "set:drawn")),
    }
    for column, told in columns.items():
        right = sum(a == b for a, b in zip(table[column], table["label"], strict=True))
        assert told["accuracy"] == right / len(test), column
        assert told["n"] == len(test)
        assert told["low"] < told["accuracy"] < told["high"] or told["accuracy"] in (0, 1)
    other = inputs.external_set(second.workspace, "drawn")
    answers, _ = inference.answer(net, other.pixels_NCHW)
    told = metrics["ood"]["drawn"]
    assert (told["n"], told["accuracy"]) == (10, (answers == other.labels_N).double().mean().item())
    shifts = [metrics["ood"][name]["accuracy"] for name in metrics["ood_home_made"]]
    assert metrics["ood_home_made"] == ["affine", "gaussian_noise"]
    assert metrics["ood"]["mean"]["accuracy"] == pytest.approx(sum(shifts) / len(shifts))
    assert metrics["robust"]["worst"]["accuracy"] <= min(
        metrics["robust"][name]["accuracy"] for name in ("fgsm", "pgd")
    )
    told, blind = metrics["battery"]["apgd_ce"], metrics["battery"]["square"]
    assert 0 < told["tried"] < len(test)
    assert told["tried"] - told["broken"] == blind["tried"], "what needs no gradient counts after all that follow it"
    assert blind["tried"] - blind["broken"] == round(metrics["robust"]["worst"]["accuracy"] * len(test))
    assert metrics["masking"]["square"] == blind["broken"] / len(test) < 1 - metrics["robust"]["square"]["accuracy"]
    told = metrics["battery"]["transfer"]
    assert told["tried"] == round(metrics["robust"]["worst"]["accuracy"] * len(test))
    assert metrics["masking"]["transfer"] == told["broken"] / len(test) < 0.05, "PGD on the same weights is not blind"
    assert "transfer" not in before["battery"], "round 000 has no target"
    assert list(metrics["curve"]) == ["0.005", "0.05"]
    assert metrics["clean"]["accuracy"] >= metrics["curve"]["0.005"]["accuracy"] > metrics["curve"]["0.05"]["accuracy"]
    assert metrics["clean"]["accuracy"] > 0.5
    assert metrics["clean"] == before["clean"], "the same weights have the same figures in every round"
    assert metrics["robust"] == before["robust"]

    assert metrics["promoted"] is False, "the target's own weights gain nothing over it"
    assert metrics["champion"] == 0
    assert "nothing was gained" in metrics["gate"]["reasons"][0]
    assert metrics["heal"]["rate"] == 0, "the target's weights heal nothing that fooled the target"
    verified = sum(c.fooling and c.verified for c in read_candidates(second.candidates))
    assert metrics["heal"]["n"] == verified >= 16
    assert metrics["heal"]["relapse"]["n"] == 0

    shard = read_candidates(second.candidates)
    held_out = [c for c in shard if c.split == "validation" and c.fooling and c.verified]
    assert held_out
    assert set(metrics["gate"]["challenger"]) == {"clean", "robust", "candidates"}
    assert metrics["gate"]["champion"]["candidates"] == 0, "they fooled the champion"

    told, pool = metrics["by_source"]["pgd"], inputs.images(second.workspace, "pool")
    answers, _ = inference.answer(net, pool.pixels_NCHW)
    right_keys = {k for k, a, b in zip(pool.keys, answers.tolist(), pool.labels_N.tolist(), strict=True) if a == b}
    tried = [c for c in shard if c.source == "pgd" and c.seed_image in right_keys]
    assert tried
    assert told["attack_success_rate"] == sum(c.fooling for c in tried) / len(tried)
    assert (told["verified_rate"], told["collected"]) == (1.0, 6)

    params = read(second.params)
    assert measured(record, shard, 1, 0, params) == metrics, "every figure follows from the record"
    made = [path.read_bytes() for path in (second.metrics, second.predictions)]
    stage.run("evaluate", evaluate, second)
    assert [path.read_bytes() for path in (second.metrics, second.predictions)] == made


def test_a_healed_candidate_counts_and_a_worse_network_is_refused(
    campaign: tuple[Round, Round, dict[str, Any]],
) -> None:
    first, second, _ = campaign
    net, card = checkpoint.load(second.model)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()  # answers class 0 to everything
    checkpoint.save(second.model, net, card)
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
    shutil.copyfile(first.model, third.model)
    metrics = finish(third)
    assert (metrics["collected"], metrics["mer"], metrics["by_source"]) == (0, None, {})
    assert metrics["heal"]["relapse"] == {**metrics["heal"]["relapse"], "n": healed, "rate": 1.0 if healed else None}
    assert (metrics["promoted"], metrics["champion"]) == (True, 2)


def test_a_target_that_was_changed_is_an_error(campaign: tuple[Round, Round, dict[str, Any]]) -> None:
    first, second, _ = campaign
    first.model.write_bytes(first.model.read_bytes() + b" ")
    with pytest.raises(ValueError, match="is not what was frozen: wanted md5"):
        stage.run("evaluate", evaluate, second)
    assert not second.metrics.exists()


def test_a_shift_trained_on_is_seen_and_left_out_of_the_mean(checkout: Path) -> None:
    params = read(checkout / "params.yaml")
    shifts = {"gaussian_noise": {"sigma": 0.2}, "brightness": {"amount": 0.3}, "blur": {"sigma": 1.0}}
    augment = {"gaussian_noise": {}, "colour_jitter": {}, "flip": {}}
    changed = params.model_copy(
        update={
            "evaluate": params.evaluate.model_copy(update={"shifts": shifts}),
            "train": params.train.model_copy(update={"augment": augment}),
        }
    )
    seen = trained_on(changed)
    assert seen == ["brightness", "gaussian_noise"], "colour_jitter trains brightness too"
    told = ood({name: accuracy(10 * i, 100) for i, name in enumerate(shifts, start=5)}, seen)
    assert told["mean"] == told["blur"]
    assert trained_on(params) == []


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


def test_an_image_counts_once_however_many_corrupted_copies_there_are() -> None:
    labels = [0, 1, 1, 0] * 5
    keys = tuple(f"{kind}/{i:05d}" for kind in ("blur", "fog") for i in range(20))
    found = elsewhere(Answered("challenger", "set:c", keys, {"label": labels * 2, "clean": [0] * 40}))
    assert found == accuracy(2, 4)


def test_a_large_set_is_answered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = Images(
        torch.arange(7, dtype=torch.uint8).reshape(7, 1, 1, 1), torch.zeros(7).long(), tuple("abcdefg"), ("x",)
    )
    seen = []

    def answering(part: Images) -> dict[str, torch.Tensor]:
        seen.append(len(part))
        return {"pixel": part.pixels_NCHW.flatten().long()}

    monkeypatch.setattr("tasks.evaluate.AT_ONCE", 3)
    assert in_parts(images, answering, ONE_PROCESS)["pixel"].tolist() == list(range(7))
    assert seen == [3, 3, 1]
