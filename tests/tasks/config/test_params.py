"""params.yaml: every fault in one line with its path, what was expected, what came."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tasks.config.kinds import check_kinds, names_in
from tasks.config.params import ParamsError, read

YAML = (Path(__file__).parents[3] / "params.yaml").read_text()
POOL = YAML[: YAML.index("pool: 240")].count("\n") + 1  # its line


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def to_file(text: str) -> Path:
        path = tmp_path / "params.yaml"
        path.write_text(text)
        return path

    return to_file


def changed(path: str, value: object) -> str:
    content = yaml.safe_load(YAML)
    *parents, last = path.split(".")
    inner = content
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return yaml.safe_dump(content)


def test_the_committed_file_is_sound(write: Callable[[str], Path]) -> None:
    params = read(write(YAML))
    assert params.campaign == "digits"
    check_kinds(params)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("seed", -1, "params.yaml: seed: expected greater than or equal to 0, got -1"),
        ("seed", "one", "params.yaml: seed: expected a whole number, got 'one'"),
        ("threads", 1.5, "params.yaml: threads: expected a whole number, got 1.5"),
        ("data.pol", 3, "params.yaml: data.pol: no such key"),
        ("threat.epsilon", 8, "for 8/255 write 0.03137"),
        ("threat.norm", "l7", "params.yaml: threat.norm"),
        ("threat.epsilon", 8, "params.yaml: threat.epsilon: expected "),
        ("threat.epsilon", "8/255", "params.yaml: threat.epsilon: expected a number, got '8/255'; write 0.03137"),
        ("evaluate.epsilons", ["1/255"], "evaluate.epsilons.0: expected a number, got '1/255'; write 0.003922"),
        ("campaign", "a b", "campaign: expected 3 to 29 letters, digits, - and _, beginning with a letter or digit"),
        (
            "model.name",
            "a/b",
            "model.name: expected the name of a file of models/, or package.module:function",
        ),
        (
            "schedule.notify",
            "Slack",
            "schedule.notify: expected TYPE/NAME in small letters, digits and -, such as",
        ),
        (
            "evaluate.sets",
            {"A": "x"},
            "evaluate.sets.A: expected a name of small letters, digits and _, beginning",
        ),
        ("evaluate.sets", {"a": ""}, "evaluate.sets.a: expected at least 1 character, got ''"),
        ("data", None, "params.yaml: data: expected keys with their values, got None"),
        ("validate.max_votes", 1, "max_votes of at least consensus (2), got 1"),
        ("validate.non_fooling_share", 1.5, "less than or equal to 1, got 1.5"),
        ("train.learning_rate", "fast", "params.yaml: train.learning_rate: expected a number, got 'fast'"),
        ("train.learning_rate", float("nan"), "params.yaml: train.learning_rate"),
        ("rift.enabled", "yes please", "params.yaml: rift.enabled"),
    ],
)
def test_a_fault_is_one_line_with_its_path(write: Callable[[str], Path], path: str, value: object, said: str) -> None:
    with pytest.raises(ParamsError) as caught:
        read(write(changed(path, value)))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_faults_come_at_once(write: Callable[[str], Path]) -> None:
    text = YAML.replace("seed: 0", "sed: 0").replace("pool: 240", "pool: many")
    with pytest.raises(ParamsError) as caught:
        read(write(text))
    lines = str(caught.value).splitlines()
    assert "params.yaml: seed: expected a value, got none" in lines
    assert "params.yaml: sed: no such key" in lines
    assert "params.yaml: data.pool: expected a whole number, got 'many'" in lines


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00"])
def test_what_is_no_mapping_is_refused(write: Callable[[str], Path], text: str) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml"):
        read(write(text))


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("pool: 240", "pool: 240\n  pool: 30", f'line {POOL + 1}: found duplicate key "pool" with value "30"'),
        ("fgsm: {}", "fgsm: {steps: 1, steps: 2}", 'found duplicate key "steps"'),
        ("seed: 0", "\tseed: 0", "line 3: found character that cannot start any token"),
        ("pool: 240", "pool: a: b", f"line {POOL}: mapping values are not allowed in this context"),
    ],
)
def test_a_fault_of_yaml_has_its_line(write: Callable[[str], Path], was: str, now: str, said: str) -> None:
    with pytest.raises(ParamsError) as caught:
        read(write(YAML.replace(was, now, 1)))
    assert "params.yaml is not sound YAML: line" in str(caught.value)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_key_of_an_anchor_may_be_set_anew(write: Callable[[str], Path]) -> None:
    text = YAML.replace("fgsm: {}", "fgsm: &a {steps: 1}", 1).replace("pgd: {steps: 20", "pgd: {<<: *a, steps: 20", 1)
    assert read(write(text)).evaluate.attacks["pgd"]["steps"] == 20


def test_no_file_is_a_clear_word(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="and there is none"):
        read(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model.name", "resnet1001", "model.name: expected a file of models/"),
        ("data.set", "cifar11", "data.set: expected a file of data/sets/"),
        ("data.test_share", 0.2, "data.test_share: digits has no such choice; take the line out"),
        ("data.fit", "pad", "data.fit: digits has no such choice; take the line out"),
        ("train.loss.name", "magic", "train.loss: expected a file of tasks/losses/"),
        ("attack.kinds", {"pgd": {"stepz": 3}}, "attack.kinds.pgd.stepz: no such key"),
        ("evaluate.attacks", {}, "evaluate.attacks: expected an attack within the threat model, such as pgd, here or"),
        ("evaluate.attacks", {"spatial": {}}, "evaluate.battery, got spatial: what the gate compares as robust"),
        ("evaluate.shifts", {"fog_of_war": {}}, "evaluate.shifts.fog_of_war: expected a file of tasks/shifts/"),
    ],
)
def test_a_kind_that_is_not_there_is_named(write: Callable[[str], Path], path: str, value: object, said: str) -> None:
    params = read(write(changed(path, value)))
    alone = params.evaluate.model_copy(update={"battery": {}})
    with pytest.raises(ParamsError) as caught:
        check_kinds(params.model_copy(update={"evaluate": alone}))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("was", "now", "path", "value"),
    [
        ("learning_rate: 0.002", "learning_rate: 2e-3", "train.learning_rate", 0.002),
        ("weight_decay: 0.0 ", "weight_decay: .5 ", "train.weight_decay", 0.5),
        ("targeted: false", "targeted: yes", "attack.targeted", True),
        ("enabled: true", "enabled: Off", "rift.enabled", False),
        ("seed: 0", "seed: 010", "seed", 8),
        ("pool: 240", "pool: 1_000", "data.pool", 1000),
        ("limit: null", "limit: ~", "data.limit", None),
        ("limit: null", "limit:", "data.limit", None),
        ("root: null", "root: 'yes'", "data.root", "yes"),
    ],
)
def test_values_are_read_as_in_yaml_1_1(
    write: Callable[[str], Path], was: str, now: str, path: str, value: object, recwarn: pytest.WarningsRecorder
) -> None:
    """As PyYAML read them, by which the parameters of earlier rounds were frozen; 1e-3 is a number besides."""
    found: object = read(write(YAML.replace(was, now, 1)))
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)
    assert not recwarn.list


def test_the_rule_of_before_is_refused_beside_the_one_of_now(write: Callable[[str], Path]) -> None:
    before = changed("evaluate.gradients", None).replace("evaluate:\n", "evaluate:\n  masking: 0.15\n", 1)
    assert read(write(before)).evaluate.masking == 0.15
    both = YAML.replace("evaluate:", "evaluate:\n  masking: 0.15", 1)
    with pytest.raises(ParamsError, match="evaluate: expected no masking beside gradients"):
        read(write(both))


def test_every_key_has_a_comment() -> None:
    for line in YAML.splitlines():
        value = line.partition(":")[2].split("#")[0].strip()
        if value and not line.startswith("#") and not value.startswith("{"):
            assert "#" in line, f"{line.strip()} has no comment"


@pytest.mark.parametrize("family", ["models", "data.sets", "tasks.attacks", "tasks.losses", "tasks.shifts"])
def test_every_family_has_a_member(family: str) -> None:
    assert names_in(family)
