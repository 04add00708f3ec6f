"""Probes as learners and as the student: which stages share hidden states, and a whole run on two architectures."""

import json
from pathlib import Path

import numpy as np
import pytest

import w2s
from tests.models import tiny
from w2s.cli import main
from w2s.config.fields import Runtime
from w2s.config.load import cross_checks, load
from w2s.evaluation.run.runs import open_run
from w2s.models.kinds import load_fitted
from w2s.models.world import World
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput, Rewards, align, read_arrays
from w2s.story.main import build
from w2s.workers.embed import find_states, open_body, read_base

CONFIG = """
name: probed
seeds: [0, 1]
data:
  sources: [{{name: file, path: {folder}/own.jsonl}}]
  difficulty: {{name: length}}
  easy_share: 0.5
  near: null
  sizes: {{easy_fit: 60, easy_holdout: 20, transfer: 50, hard_test: 40}}
learners: [{{model: {{path: {folder}/llama, kind: probe, layers: 1}}}}]
boosting: {{rounds: 2}}
student: {{model: {{path: {folder}/gemma3_text, kind: probe, pooling: mean}}}}
evaluation: {{suites: [{{name: file, path: {folder}/own.jsonl, limit: 10}}]}}
runtime: {{slots: 1, threads: 1, runs_dir: {folder}/runs}}
"""
WORDS = [
    "gas",
    "plants",
    "air",
    "carbon",
    "oxygen",
    "stone",
    "gravity",
    "heat",
    "moon",
    "earth",
    "month",
    "sun",
    "year",
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A config, 200 questions whose answer is the longer choice, and the two models."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(200):
        question = " ".join(rng.choice(WORDS, rng.integers(4, 9)))
        long, short = " ".join(rng.choice(WORDS, 5)), str(rng.choice(WORDS))
        at = int(rng.integers(2))
        rows.append({"prompt": question, "choices": [short, long] if at else [long, short], "answer": at})
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for architecture in ("llama", "gemma3_text"):
        tiny.write(architecture, tmp_path / architecture)
    (tmp_path / "probed.yaml").write_text(CONFIG.format(folder=tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tell(*overrides: str) -> list[Stage]:
    return build(load("probed.yaml", overrides, cross_checks), run_job=None)


def states_of(stages: list[Stage]) -> list[Stage]:
    return [stage for stage in stages if stage.name == "hidden_states"]


def test_all_seeds_rounds_and_models_of_one_layer_share_its_hidden_states(folder):
    assert len(states_of(tell())) == 4  # two models, on the run's questions and on the suite
    llama = "{path: '" + str(folder / "llama") + "', kind: probe, layers: 1, pooling: last, l2: 9}"
    same = tell(f"student.model={llama}")
    assert len(states_of(same)) == 2
    readers = [s for s in same if "states" in s.parents]
    assert {s.name for s in readers} == {"boosting_round", "opinion", "fit"}
    assert {s.tags["seed"] for s in readers} == {0, 1}


def test_seeds_that_draw_other_questions_have_their_own_states_and_a_smoke_run_only_those_of_its_splits(folder):
    world = [
        "data.sources=[{name: world, easy: 200, hard: 200}]",
        "data.difficulty={name: level}",
        "data.easy_share=null",
    ]
    world += ["data.easy_max=0", "data.hard_min=1", "evaluation.suites=[]"]
    assert len(states_of(tell(*world))) == 4
    limited = [s for s in states_of(tell("limit=10")) if "on" not in s.section]
    assert len(limited) == 4
    assert all("questions" in s.parents for s in limited)


def test_a_learner_that_is_fitted_at_once_has_no_longer_training(folder):
    titles = {stage.title for stage in tell("controls.long_learner=true")}
    assert "seed 0 · floor" in titles
    assert "seed 0 · long_learner" not in titles


def test_difficulty_by_learners_has_the_states_of_all_questions(folder):
    stages = tell("data.difficulty={name: loss}")
    assert all(stage.parents["states"].section["content"] for stage in stages if stage.name == "cross_fitted")
    assert len(states_of(stages)) == 4


def test_probes_run_from_questions_to_a_report_and_the_student_answers_alone(folder, capsys):
    run = w2s.run("probed.yaml")
    accuracy = run.metrics.set_index(["suite", "model", "name"]).value["hard_test"]
    assert accuracy["ceiling", "accuracy"] > 0.5
    assert accuracy["zero_shot", "accuracy"] == 0.5
    assert accuracy["zero_shot", "abstained"] == 1
    assert "head on a frozen model" in (run.student / "README.md").read_text()
    capsys.readouterr()
    main(["run", "probed.yaml"])
    assert " 0 to run" in capsys.readouterr().err
    main(["evaluate", str(run.student), "world", "limit=20", f"runtime.runs_dir={folder}/runs", "runtime.slots=1"])
    assert "world            accuracy" in capsys.readouterr().out


PROBED_REWARDS = ["label.reward.use=tilt", "rewards.members=1", "rewards.pairs={name: gold}", "seeds=[0]"]


def test_a_probe_is_a_reward_model_and_its_scores_are_its_heads_on_the_states(folder):
    model = "{model: {path: '" + str(folder / "gemma3_text") + "', kind: probe}}"
    less = ["boosting.rounds=1", "evaluation.suites=[]", "controls.bagged=false", f"rewards.models=[{model}]"]
    run = w2s.run("probed.yaml", *PROBED_REWARDS, *less)
    assert {"rewarded", "unrewarded"} <= set(run.metrics.model)
    opened = open_run(run.folder)
    (fitted,), scores = opened.find("reward_model"), [one for one in opened.artifacts if one.name == "scores"]
    rewards = next(read_arrays(path, Rewards) for one in scores for path in one.path.glob("transfer.npz"))
    head = fitted.path / "fit-0" / "model"
    body, rows = open_body(read_base(head), Runtime(), World()), list(opened.questions("transfer", 0).values())
    kind, weights = load_fitted(head)
    for states in find_states(body, rows):
        scores_NK = align(rewards, states.ids).scores_MNK[0]
        np.testing.assert_allclose(scores_NK, kind.scores(weights, states), atol=1e-4)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rewards.members=2", "rewards.members: 2 given; allowed with probes: at most 1"),
        ("rewards.kind=heads", "rewards.models.0.model.kind: 'probe' given; allowed: pair"),
        ("student.objective={name: grpo}", "student.objective: 'grpo' given; it needs rewards of kind pair"),
    ],
)
def test_probes_that_cannot_serve_as_reward_models_are_one_line(folder, override, words):
    models = "rewards.models=[{model: {path: '" + str(folder / "llama") + "', kind: probe}}]"
    with pytest.raises(BadInput) as refused:
        load("probed.yaml", [*PROBED_REWARDS, models, override], cross_checks)
    assert words in str(refused.value)


@pytest.mark.slow
def test_on_a_pretrained_model_a_later_layer_knows_more_and_students_rise_above_their_teachers(
    shared, real_models, tmp_path
):
    config = Path(__file__).parents[2] / "configs" / "real" / "sciq_probes.yaml"
    less = ["data.sources=[{name: sciq, form: pairs, limit: 1400}]", "seeds=[0]", "boosting.rounds=3"]
    less += ["data.sizes={easy_fit: 300, easy_holdout: 80, transfer: 300, hard_test: 300}"]
    where = [f"data.root={shared / 'data'}", f"models.root={real_models}", f"runtime.runs_dir={tmp_path}"]
    run = w2s.run(config, *less, *where)
    accuracy = run.metrics.set_index(["suite", "model", "name"]).value["hard_test"].unstack().accuracy
    assert accuracy["floor"] > 0.55
    assert accuracy["easy_gold"] > accuracy["floor"] + 0.05  # layer 18 against layer 8, on the same gold
    assert accuracy["student"] > accuracy["committee"] - 0.02
