"""The stages of a student's objective, their jobs run in this process; the objective in the story of one seed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests import spine
from w2s.config.fields import Learner, Model, Runtime, Train
from w2s.config.load import load as load_config
from w2s.data.world import corpus, world
from w2s.models import builtin, load
from w2s.models.train import World
from w2s.stages import Tools, objective
from w2s.store.records import (
    BadInput,
    Example,
    Predictions,
    PseudoLabels,
    Rewards,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)
from w2s.story.main import build
from w2s.workers.serve import run_job

TEXTS = [("a", "b", "c"), ("d", "e", "f"), ("g", "h"), ("i ", "i", "x"), ("k", "l", "m")]
PROBS = [(0.2, 0.5, 0.3), (0.6, 0.3, 0.1), (0.9, 0.1, 0), (0.9, 0.1, 0), (0.5, 0.3, 0.2)]
SCORES = [(1, 9, 5), (1, 2, 3), (4, 3, 0), (8, 2, 9), (9, 5, 1)]
MODEL = Model(path="builtin:strong_writer")
LEARNER = Learner(MODEL, Train(steps=2, batch=4, lr=1e-3))


def tools() -> Tools:
    return Tools(Runtime(), None, None, lambda folder: run_job(folder, World()))


@pytest.fixture
def opinions(tmp_path) -> dict[str, Path]:
    """questions/, opinion/ and scores/ of five questions; the second member scores as the first, in another unit."""
    ids = np.array([f"q{at}" for at in range(5)])
    mask_NK = np.array([[at < len(texts) for at in range(3)] for texts in TEXTS])
    rows = [Example(key, "s", "choice", f"{key}?", texts) for key, texts in zip(ids.tolist(), TEXTS, strict=True)]
    folders = {name: tmp_path / name for name in ("questions", "opinion", "scores")}
    for folder in folders.values():
        folder.mkdir()
    write_rows(folders["questions"] / "transfer.jsonl", rows[::-1])
    abstained_N = np.arange(5) == 4
    write_arrays(folders["opinion"] / "transfer.npz", Predictions(ids, np.array(PROBS), mask_NK, abstained_N, "all"))
    scores_NK = np.where(mask_NK, np.array(SCORES, dtype=float), np.nan)
    both_MNK = np.stack([scores_NK, 100 - 0.01 * scores_NK, 7 + 50 * scores_NK])
    found = Rewards(ids[::-1], both_MNK[:, ::-1], np.array(["1", "2", "3"]))
    write_arrays(folders["scores"] / "transfer.npz", found)
    return folders


def test_pairs_are_the_top_and_the_bottom_of_both_and_the_rest_is_counted_by_reason(opinions, tmp_path):
    how = {"aggregate": {"name": "median"}, "standardised": "question"}
    facts = objective.agreed_pairs(tmp_path, opinions, tools(), **how)
    rows = read_rows(tmp_path / "targets.jsonl", Example)
    assert [(row.id, row.prompt, row.choices) for row in rows] == [("q0", "q0?", ("b", "a")), ("q2", "q2?", ("g", "h"))]
    labels = read_arrays(tmp_path / "labels.npz", PseudoLabels)
    assert labels.ids.tolist() == ["q0", "q2"]
    assert labels.target_NK.tolist() == [[1, 0], [1, 0]]
    assert labels.weight_N.tolist() == [1, 1]
    apart = "they put different candidates first"
    assert facts == {"rows": 2, "dropped": {objective.NO_OPINION: 1, apart: 2}}


def test_equal_texts_are_no_pair_and_without_any_pair_there_is_no_dpo(opinions, tmp_path):
    how = {"aggregate": {"name": "mean"}, "standardised": "none"}
    opinion = read_arrays(opinions["opinion"] / "transfer.npz", Predictions)
    same_MNK = np.where(opinion.mask_NK, opinion.probs_NK, np.nan)[None]
    write_arrays(opinions["scores"] / "transfer.npz", Rewards(opinion.ids, -same_MNK, np.array(["1"])))
    with pytest.raises(BadInput, match=r"no question of transfer is left for dpo: they put different .* \(4 of 5\)"):
        objective.agreed_pairs(tmp_path, opinions, tools(), **how)
    write_arrays(opinions["scores"] / "transfer.npz", Rewards(opinion.ids, same_MNK, np.array(["1"])))
    rows = read_rows(opinions["questions"] / "transfer.jsonl", Example)
    write_rows(
        opinions["questions"] / "transfer.jsonl",
        [dataclasses.replace(row, choices=("i ", "x", "i")) if row.id == "q3" else row for row in rows],
    )
    facts = objective.agreed_pairs(tmp_path, opinions, tools(), **how)
    assert facts == {"rows": 3, "dropped": {objective.NO_OPINION: 1, objective.ALIKE: 1}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    """model/ and judge-00/ with a model in fit-0, questions/, pairs/ and scores/ as their stages leave them."""
    top = tmp_path_factory.mktemp("trained")
    folders = {name: top / name for name in ("model", "judge-00", "questions", "pairs", "scores")}
    for folder in folders.values():
        folder.mkdir()
    builtin.make("strong_writer", corpus(0, 1000, task="answer"), top / "base", 0)
    for name, model in (("model", MODEL), ("judge-00", dataclasses.replace(MODEL, kind="pair"))):
        load.save(load.load(model, path=str(top / "base")), folders[name] / "fit-0" / "model")
    examples, gold = world(None, task="answer", easy=12, hard=0)
    write_rows(folders["questions"] / "transfer.jsonl", examples)
    pairs = [dataclasses.replace(e, choices=(g.answer, "price")) for e, g in zip(examples, gold, strict=True)]
    write_rows(folders["pairs"] / "targets.jsonl", pairs)
    ids, ones = np.array([e.id for e in examples]), np.ones(12)
    target_NK = np.tile([1.0, 0.0], (12, 1))
    write_arrays(folders["pairs"] / "labels.npz", PseudoLabels(ids, target_NK, ones, np.full(12, "agreed")))
    scores_MNK = np.array([np.arange(24.0).reshape(12, 2)])
    scores_MNK[0, 0, 0] = np.nan
    write_arrays(folders["scores"] / "transfer.npz", Rewards(ids, scores_MNK, np.array(["1"])))
    return folders


def test_the_student_goes_on_with_pairs(trained, tmp_path):
    inputs = {name: trained[name] for name in ("model", "pairs")}
    facts = objective.optimise(tmp_path, inputs, tools(), objective={"name": "dpo"}, learner=LEARNER, seed=1)
    assert set(facts) == {"rows", "steps", "tokens", "equal", "margin_first", "margin_last"}
    assert (facts["rows"], facts["steps"], facts["equal"]) == (12, 2, 0)
    assert load.load_folder(tmp_path / "fit-0" / "model").model == MODEL
    again = objective.optimise(tmp_path, inputs, tools(), objective={"name": "dpo"}, learner=LEARNER, seed=1)
    assert again == facts  # a job that is done is read


@pytest.mark.parametrize("standardised", [True, False])
def test_the_student_goes_on_with_rewards_in_their_members_units(trained, tmp_path, standardised):
    inputs = {name: trained[name] for name in ("model", "questions", "scores", "judge-00")}
    facts = objective.optimise(
        tmp_path,
        inputs,
        tools(),
        objective={"name": "rloo", "generations": 2},
        learner=LEARNER,
        seed=1,
        aggregate={"name": "mean"},
        standardised=standardised,
        writing={"max_new_tokens": 4, "stop": []},
    )
    assert set(facts) == {"rows", "steps", "tokens", "unjudged", "reward_first", "reward_last"}
    job = json.loads((tmp_path / "fit-0" / "job.json").read_text())
    known = np.arange(1.0, 24)
    wanted = ([known.mean()], [pytest.approx(known.std())]) if standardised else (None, None)
    assert (job["rewards"]["centre_M"], job["rewards"]["scale_M"]) == wanted
    lines = (tmp_path / "fit-0" / "rollouts.jsonl").read_text().splitlines()
    assert len(lines) == 8


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("configs")
    spine.write_config(folder)
    return folder


def told(configs: Path, name: str, *changes: str) -> dict[str, dict]:
    """The stages that a config tells, by title."""
    stages = build(load_config(configs / f"{name}.yaml", ["evaluation.suites=[]", *changes]), run_job=lambda _: None)
    return {stage.title.removeprefix("seed 0 · "): stage for stage in stages}


def ancestors(stage) -> set[str]:
    return {stage.key}.union(*(ancestors(parent) for parent in stage.parents.values()))


@pytest.mark.parametrize("name", ["tiny", "written"])
def test_with_an_objective_the_student_follows_a_student_of_the_labels(configs, name):
    plain, with_dpo = told(configs, name), told(configs, name, "student.objective={name: dpo}")
    student = with_dpo["student, dpo"]
    assert student.tags == {"seed": 0, "kind": "model", "model": "student"}
    assert student.parents["model"].key == plain["student"].key  # what learns from labels is the same
    assert with_dpo["sft_student"].tags["model"] == "sft_student"
    assert set(plain) - {"student"} < set(with_dpo)
    secret = with_dpo["gold of transfer"].key
    assert secret not in ancestors(student)
    assert with_dpo["gold of easy"].key in ancestors(student)  # what the reward models learned from


def test_rewards_reach_a_student_that_writes(configs):
    stages = told(configs, "written", "student.objective={name: rloo}", "rewards.members=3")
    student = stages["student, rloo"]
    assert sorted(student.parents) == ["judge-00", "judge-01", "judge-02", "model", "questions", "scores"]
    assert stages["gold of transfer"].key not in ancestors(student)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["student.objective={name: grpo}"], "'grpo' given; allowed for questions with choices: sft, dpo"),
        (["student.objective={name: dop}"], "student.objective: 'dop' is not known (did you mean 'dpo'?)"),
        (["student.objective={name: dpo, label_smoothing: 0.5}"], "student.objective.label_smoothing: 0.5 given"),
        (["student.objective={name: rloo, generations: 5}"], "student.train.batch: 32 given; allowed: a multiple"),
        (
            ["student.objective={name: dpo}", "student.model.kind=pair"],
            "student.model.kind: 'pair' given; allowed with",
        ),
        (
            ["student.objective={name: dpo}", "student.model.prompt={name: listed}"],
            "'listed' given with dpo; a pair lacks",
        ),
    ],
)
def test_an_objective_that_cannot_be_is_refused_before_anything_runs(configs, changes, words):
    with pytest.raises(BadInput) as error:
        told(configs, "tiny", *changes)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
