"""Defaults <- base <- file <- command line, and everything that is wrong at once."""

import textwrap
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from w2s.config import load as configs
from w2s.config import registry
from w2s.config.fields import Config
from w2s.config.load import from_overrides, load, to_yaml
from w2s.config.smoke import shrink, smoke
from w2s.evaluation.pools.settings import read_settings
from w2s.store.records import BadInput
from w2s.story import curve, reward_study

CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
POOLS = [path for path in CONFIGS if path.parent.name == "pools"]  # of `w2s combine`
CONFIGS = [path for path in CONFIGS if path not in POOLS]
GOOD = "data: {easy_max: 0, hard_min: 1}\n"


@pytest.fixture
def write(tmp_path):
    def put(text: str, name: str = "c.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return put


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        load(path, overrides)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_repository_is_good(path):
    of_study = {"w2s rewards run": reward_study.checks, "w2s rewards curve": curve.checks}
    text = path.read_text()
    checks = next(
        (found for command, found in of_study.items() if f"# {command}" in text or f"#   {command}" in text), None
    )
    assert load(path, checks=checks).seeds


@pytest.mark.parametrize("path", POOLS, ids=lambda path: path.stem)
def test_every_pool_config_of_the_repository_is_good(path):
    settings, specs = read_settings(str(path), {"outputs": "FOLDER"}, [])
    assert settings.models or settings.costs
    assert {"best_single", "plurality"} <= {spec["name"] for spec in specs}


def test_later_layers_win_key_by_key(write):
    write("data: {easy_max: 0, hard_min: 1, near: null}\nstudent: {train: {steps: 5, lr: 0.1}}", "below.yaml")
    found = load(write("base: below.yaml\nstudent: {train: {lr: 0.2}}"), ["student.train.batch=7", "data.hard_min=2"])
    assert (found.student.train.steps, found.student.train.lr, found.student.train.batch) == (5, 0.2, 7)
    assert (found.data.easy_max, found.data.hard_min, found.data.near) == (0, 2, None)
    assert found.boosting == Config().boosting


def test_a_mapping_with_a_name_replaces_the_one_below_whole(write):
    write(GOOD + "label: {select: {name: confidence, keep_share: 0.2}}", "below.yaml")
    above = write("base: below.yaml\nlabel: {select: {name: agreement}}")
    assert load(above).label.select == {"name": "agreement"}
    assert load(above, ["label.select={name: per_class}"]).label.select == {"name": "per_class"}
    assert load(above, ["label.select.threshold=0.7"]).label.select == {"name": "agreement", "threshold": 0.7}


def test_list_items_are_numbered_from_0(write):
    path = write(GOOD + "learners: [{}, {train: {steps: 3}}]")
    assert load(path, ["learners.1.train.steps=9"]).learners[1].train.steps == 9
    assert problems(path, "learners.2.train.steps=9") == [
        "command line: learners.2: there is no such item; the list has 2"
    ]


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("1", None), ("on 1", None), ("", None)])
def test_booleans_are_parsed_as_booleans_and_nothing_else_is_one(write, text, value):
    path = write(GOOD)
    if value is None:
        assert problems(path, f"controls.floor={text}")[0].endswith("allowed: true or false")
    else:
        assert load(path, [f"controls.floor={text}"]).controls.floor is value


def test_all_problems_come_at_once_each_in_a_line_with_file_and_key(write):
    path = write("data: {easy_mx: 0}\nstudent: {train: {lr: fast}}\nseeds: 3\n")
    assert problems(path, "boosting.rounds=x", "lonely") == [
        "command line: 'lonely': not understood; an override is written key=value",
        f"{path}: data.easy_mx: there is no such key (did you mean 'easy_max'?)",
        f"{path}: student.train.lr: 'fast' given; allowed: a number",
        f"{path}: seeds: 3 given; allowed: a list of whole numbers",
        "command line: boosting.rounds: 'x' given; allowed: a whole number",
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("studnet.path=x", "studnet: there is no such key (did you mean 'student'?)"),
        ("student.path=x", "student.path: there is no such key (did you mean student.model.path?)"),
        ("rounds=3", "rounds: there is no such key (did you mean boosting.rounds?)"),
        ("student.train.lr=0", "student.train.lr: 0 given; allowed: above 0"),
        ("data.easy_max=5", "data.hard_min: 1 given; allowed: above data.easy_max (5)"),
        ("boosting.rounds.x=1", "boosting.rounds: {'x': 1} given; allowed: a whole number"),
    ],
)
def test_what_the_command_line_got_wrong_is_not_blamed_on_the_file(write, override, said):
    assert problems(write(GOOD), override) == [f"command line: {said}"]
    bad = write(GOOD + "seed: 1")
    assert f"{bad}: seed: there is no such key (did you mean 'seeds'?)" in problems(bad, override)


def test_a_key_from_further_inside_is_named_with_its_whole_path(write):
    keys = "learners.0.train.lr or rewards.models.0.train.lr or student.train.lr"
    assert problems(write("lr: 3\n" + GOOD))[0].endswith(f"lr: there is no such key (did you mean {keys}?)")


def test_a_smoke_run_has_a_name_of_its_own_and_trains_for_a_few_steps(write):
    text = """
    name: whole
    learners: [{train: {steps: 250, epochs: 3}}, {train: {epochs: 0.5}}]
    student: {train: {steps: 7}, objective: {name: dpo, steps: 900}}
    rewards: {models: [{model: {kind: pair}, train: {steps: 400}}], head_steps: 500}
    """
    path = write(GOOD + textwrap.dedent(text))
    found = load(path, ["limit=200"])
    assert (found.name, found.limit) == ("whole-limit-200", 200)
    assert [(one.train.steps, one.train.epochs) for one in found.learners] == [(100, 3), (None, 0.5)]
    assert (found.student.train.steps, found.student.objective) == (7, {"name": "dpo", "steps": 100})
    assert (found.rewards.models[0].train.steps, found.rewards.head_steps) == (100, 100)
    assert load(write(to_yaml(found), "again.yaml")) == found
    assert shrink(load(path)) == load(path)
    assert smoke(None) == ""
    assert "the first 1,200 questions by id" in smoke(1200)


def test_ranges_and_keys_that_depend_on_each_other_are_all_named(write):
    path = write(
        "name: a/b\nseeds: [1, 1]\ndata: {easy_max: 2, hard_min: 1}\nboosting: {rounds: 0, folds: 1}\n"
        "learners: [{model: {kind: sklearn}}]\nstudent: {train: {lr: -1, patience: 3}}\n"
    )
    keys = [line.removeprefix(f"{path}: ").split(":")[0] for line in problems(path)]
    assert sorted(keys) == sorted([
        "boosting.rounds", "student.train.lr", "seeds", "name", "data.hard_min", "boosting.folds",
        "learners.0.model.pipeline", "student.train.patience",
    ])  # fmt: skip


def test_only_the_command_line_can_switch_on_what_is_dangerous(write):
    for key in configs.COMMAND_LINE_ONLY:
        section, name = key.split(".")
        path = write(GOOD + f"{section}: {{{name}: true}}")
        assert problems(path) == [f"{path}: {key}: only the command line can switch this on ({key}=true)"]
        assert getattr(load(write(GOOD), [f"{key}=true"]).runtime, name) is True


def test_a_base_has_no_base_of_its_own(write):
    write("base: c.yaml", "below.yaml")
    assert "cannot have a base of its own" in problems(write("base: below.yaml"))[0]


def test_a_value_can_stand_for_another_key_after_the_command_line_has_spoken(write):
    path = write(GOOD + "student: {model: {path: one}}\nlearners: [{model: {path: '${student.model.path}'}}]")
    assert load(path, ["student.model.path=two"]).learners[0].model.path == "two"


def test_what_is_written_down_can_be_read_again_and_holds_no_secret(write):
    secret = "data: {easy_max: 0, hard_min: 1, sources: [{name: world}, {name: file, path: x, hub_token: abc}]}"
    text = to_yaml(load(write(secret)))
    assert "abc" not in text
    assert load(write(text, "again.yaml")).data.sources[1]["hub_token"] == "[redacted]"
    assert OmegaConf.create(text).runtime.runs_dir == "runs"


def test_evaluate_takes_the_same_keys_without_a_file():
    assert from_overrides(["evaluation.programs=4"]).evaluation.programs == 4
    with pytest.raises(BadInput, match=r"evaluation\.programs: 0 given; allowed: above 0"):
        from_overrides(["evaluation.programs=0"])


def test_a_range_of_a_learner_is_checked_wherever_there_is_a_learner(write):
    path = write(GOOD + "learners: [{}, {train: {lr: 0}}]\nrewards: {models: [{model: {kind: pair, layers: -1}}]}")
    assert problems(path, "student.train.beta2=1") == [
        f"{path}: learners.1.train.lr: 0 given; allowed: above 0",
        f"{path}: rewards.models.0.model.layers: -1 given; allowed: above 0",
        "command line: student.train.beta2: 1 given; allowed: from 0 up to, not including, 1",
    ]


def test_an_old_key_is_answered_with_its_new_name_wherever_it_stands(write, monkeypatch):
    monkeypatch.setitem(registry.RENAMED, "label.votes", "label.combiner")
    monkeypatch.setitem(registry.RENAMED, "learners.0.train.rate", "learners.0.train.lr")
    path = write(GOOD + "label: {votes: {name: soft_vote}}\nlearners: [{}, {train: {rate: 1}}]")
    assert problems(path) == [
        f"{path}: label.votes: is called label.combiner now",
        f"{path}: learners.1.train.rate: is called learners.0.train.lr now",
    ]


def test_every_renamed_key_is_gone_and_its_new_name_is_a_key():
    keys = registry.keys_below(Config)
    assert not set(registry.RENAMED) & set(keys)
    assert set(registry.RENAMED.values()) <= set(keys)


def test_paths_of_plug_ins_are_relative_to_the_file_that_lists_them(write):
    (write("", "x").parent / "inner").mkdir()
    write("plugins: [mine.py, pack/, module]", "inner/below.yaml")
    path = write("base: inner/below.yaml\n" + GOOD)
    folder = path.parent / "inner"
    assert load(path).plugins == [str(folder / "mine.py"), str(folder / "pack"), "module"]
    assert load(path, ["plugins=[mine.py]"]).plugins == ["mine.py"]


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (
            "{trainable: top}",
            "student.model.top: null given; trainable: top needs a number, and nothing else takes one",
        ),
        ("{top: 2}", "student.model.top: 2 given; trainable: top needs a number, and nothing else takes one"),
        ("{lora_targets: [q_proj]}", "student.model.lora_targets: ['q_proj'] given; allowed: at least one name, and"),
        ("{trainable: lora, lora_targets: []}", "student.model.lora_targets: [] given; allowed: at least one name"),
        ("{quantise: 4bit}", "student.model.quantise: '4bit' given with trainable: all; allowed: trainable: lora"),
        ("{trainable: lora, quantise: 3bit}", "student.model.quantise: '3bit' given; allowed: one of: none, 4bit"),
    ],
)
def test_keys_of_a_model_that_do_not_go_together_are_one_line(write, model, line):
    assert [found for found in problems(write(GOOD + f"student: {{model: {model}}}")) if line in found]


def test_quantised_models_are_not_for_ensembles_and_objectives_and_flash_not_for_float32(write):
    quantised = "{model: {kind: pair, trainable: lora, quantise: 4bit}}"
    assert "kind: separate or warm" in problems(write(GOOD + f"rewards: {{kind: heads, models: [{quantised}]}}"))[0]
    student = "{model: {trainable: lora, quantise: 4bit}, objective: {name: dpo}}"
    assert "student.model.quantise" in problems(write(GOOD + f"student: {student}"))[0]
    flash = "{model: {attn: flash_attention_2}, train: {precision: float32}}"
    assert "student.model.attn" in problems(write(GOOD + f"student: {flash}"))[0]
