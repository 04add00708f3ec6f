"""The objective worker in this process, on the written answers of the embedded world."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from w2s.config.registry import pick
from w2s.data.world import corpus, world
from w2s.models import batches, builtin, load, score
from w2s.models.members import open_members
from w2s.models.train import World
from w2s.rewards.aggregators import AGGREGATORS
from w2s.store.records import (
    BadInput,
    Example,
    Gold,
    Predictions,
    PseudoLabels,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)
from w2s.workers import finetune, objective, predict
from w2s.workers.job import Judges, Predict
from w2s.workers.job_files import read_job
from w2s.workers.serve import run_job

QUESTIONS = 96
WRITER = {"path": "builtin:strong_writer"}


def paired(rows: list[tuple[Example, Gold]]) -> tuple[list[Example], PseudoLabels]:
    """Each question with its answer and one that names other things, in either order; the answer is preferred."""
    rng, made = np.random.default_rng(0), []
    for at, (example, gold) in enumerate(rows):
        words = gold.answer.split()
        words[1::2] = rng.permutation([word for word in example.prompt.split()[3:-1] if word not in words])[:2]
        texts = (gold.answer, " ".join(words))
        made.append(Example(example.id, "world", "answer", example.prompt, texts if at % 2 == 0 else texts[::-1]))
    return made, labels(made, np.eye(2)[np.arange(len(made)) % 2])


def labels(examples: list[Example], target_NK: np.ndarray) -> PseudoLabels:
    ids = np.array([one.id for one in examples])
    return PseudoLabels(ids, target_NK, np.ones(len(ids)), np.full(len(ids), "kept"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """student/model (knows the form of answers), judge-0 and judge-1/model (reward models), questions and pairs."""
    folder = tmp_path_factory.mktemp("made")
    examples, gold = world(None, task="answer", easy=2 * QUESTIONS, hard=0)
    rows = [(e, g) for e, g in zip(examples, gold, strict=True) if len(set(g.answer.split())) == 4]
    write_rows(folder / "questions.jsonl", [e for e, _ in rows[:QUESTIONS]])
    pairs, preferred = paired(rows)
    write_rows(folder / "pairs.jsonl", pairs)
    write_arrays(folder / "pairs.npz", preferred)
    write_rows(folder / "answers.jsonl", [Example(e.id, "w", "answer", e.prompt, (g.answer,)) for e, g in rows])
    write_arrays(folder / "answers.npz", labels(pairs, np.ones((len(rows), 1))))
    builtin.make("strong_writer", corpus(0, 2000, task="answer"), folder / "base", 0)
    start = {"path": str(folder / "base"), "runtime": {}}
    fit(folder / "student", {"model": WRITER, "train": {"steps": 60, "lr": 4e-3}}, "answers", start)
    for at in range(2):
        kind = {"model": {**WRITER, "kind": "pair"}, "train": {"steps": 40, "lr": 2e-3}}
        fit(folder / f"judge-{at}", kind, "pairs", start | {"seed": at})
    return folder


def fit(folder: Path, learner: dict, on: str, start: dict) -> None:
    folder.mkdir()
    examples = folder.parent / f"{on}.jsonl"
    if learner["model"].get("kind") == "pair":  # a reward model reads answers as choices
        rows = [json.loads(line) | {"task": "choice"} for line in examples.read_text().splitlines()]
        examples = folder / "examples.jsonl"
        examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {"seed": 0, "examples": str(examples), "labels": str(folder.parent / f"{on}.npz"), **start}
    (folder / "job.json").write_text(json.dumps({"worker": "finetune", "learner": learner, **job}))
    finetune.run(folder, read_job(folder), World())


@pytest.fixture
def job_of(made, tmp_path) -> Callable[..., tuple[Path, dict]]:
    """job_of(objective, train={...}, **job) -> a folder and a job for it."""

    def write(objective: dict, train: dict | None = None, **values) -> tuple[Path, dict]:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        job = {
            "worker": "objective",
            "objective": objective,
            "learner": {"model": WRITER, "train": {"steps": 20, "batch": 32, "lr": 3e-3, **(train or {})}},
            "path": str(made / "student" / "model"),
            "seed": 3,
            "examples": str(made / "questions.jsonl"),
            "pairs": {"examples": str(made / "pairs.jsonl"), "labels": str(made / "pairs.npz")},
            "rewards": {
                "models": [str(made / f"judge-{at}" / "model") for at in range(2)],
                "aggregate": {"name": "mean"},
            },
            "writing": {"max_new_tokens": 6},
            "runtime": {},
            **values,
        }
        (folder / "job.json").write_text(json.dumps(job))
        return folder, job

    return write


def run(folder: Path, job: dict) -> dict:
    (folder / "job.json").write_text(json.dumps(job))
    return objective.run(folder, read_job(folder), World())


def rollouts(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]


def train_of(folder: Path) -> dict:
    return json.loads((folder / "train.json").read_text())


def quarter_means(rows: list[dict]) -> tuple[float, float]:
    steps = 1 + max(row["step"] for row in rows)
    parts = (range(steps // 4), range(steps - steps // 4, steps))
    return tuple(float(np.mean([row["reward"] for row in rows if row["step"] in part])) for part in parts)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_reinforcement_raises_the_reward_of_what_the_student_writes(job_of, made, name):
    folder, job = job_of({"name": name}, {"steps": 24})
    done = run(folder, job)
    rows = rollouts(folder)
    assert len(rows) == 24 * 32
    first, last = quarter_means(rows)
    assert last > first + 0.4
    assert (done["reward_first"], done["reward_last"]) == pytest.approx((first, last), abs=1e-5)
    assert (done["rows"], done["steps"]) == (QUESTIONS, 24)
    history = train_of(folder)
    assert history["reward"] == pytest.approx(
        [np.mean([r["reward"] for r in rows if r["step"] == at]) for at in range(24)]
    )
    assert history["kl"][0] == pytest.approx(0, abs=1e-5)
    assert np.mean(history["kl"][-6:]) > 0.05
    # What was learned from are the members' scores of the question and the text that stand beside it.
    asked = {row["id"]: row for row in map(json.loads, (made / "questions.jsonl").read_text().splitlines())}
    some = [row for row in rows if row["text"].strip()][:16]
    told = [Example(str(at), "w", "answer", asked[row["id"]]["prompt"], (row["text"],)) for at, row in enumerate(some)]
    for at in range(2):
        judge = open_members(made / f"judge-{at}" / "model")
        assert [row["rewards"][at] for row in some] == pytest.approx(
            objective.member_scores([judge], told)[0], abs=1e-4
        )
    assert all(row["reward"] == pytest.approx(np.mean(row["rewards"])) for row in some)


def margins(made: Path, model: Path) -> np.ndarray:
    """log-likelihood of the preferred less that of the other, by `model`."""
    loaded, examples = load.load_folder(model), read_rows(made / "pairs.jsonl", Example)
    with torch.no_grad():
        scores_N2 = score.scores(loaded, batches.collate(loaded, batches.encode(loaded, examples))).numpy()
    return np.where(np.arange(len(examples)) % 2, -1, 1) * (scores_N2[:, 0] - scores_N2[:, 1])


def test_preferences_raise_the_margin_of_what_is_preferred(job_of, made):
    folder, job = job_of({"name": "dpo", "beta": 0.3, "label_smoothing": 0.1}, {"steps": 20})
    done = run(folder, job)
    assert done["margin_last"] > done["margin_first"] + 0.1
    assert done["equal"] == 0
    before, after = margins(made, made / "student" / "model"), margins(made, folder / "model")
    assert (after - before).mean() > 0.5
    history = train_of(folder)
    assert history["loss"][0] == pytest.approx(np.log(2), abs=1e-5)
    assert len(history["margin"]) == 20
    assert not (folder / "rollouts.jsonl").exists()


def test_a_job_that_starts_again_ends_the_same_and_tells_no_text_twice(job_of):
    ends = []
    for before in (None, '{"step": 0, "id": "a text of the killed job"'):
        folder, job = job_of({"name": "rloo", "generations": 2}, {"steps": 3, "batch": 8})
        if before:
            (folder / "rollouts.jsonl").write_text(before)
        run(folder, job)
        ends.append((rollouts(folder), load_file(folder / "model" / "model.safetensors")))
        assert not (folder / "trl").exists()
    (rows, weights), (again, same) = ends
    assert len(rows) == 24
    assert rows == again
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_the_objective_s_own_steps_count_and_the_model_answers_and_writes(job_of, made):
    folder, _ = job_of({"name": "grpo", "generations": 2, "steps": 2, "lr": 1e-4}, {"steps": 50, "batch": 4})
    assert run_job(folder, World()) == {"done": str(folder)}
    assert json.loads((folder / "done.json").read_text())["steps"] == 2
    asked = Predict({"pairs": str(made / "pairs.jsonl")}, by="student", model=str(folder / "model"))
    predict.run(folder, asked, World())
    opinion = read_arrays(folder / "pairs.npz", Predictions)
    assert np.allclose(opinion.probs_NK.sum(1), 1)
    assert load.load_folder(folder / "model").module.config.to_dict() == load.load_folder(
        made / "student" / "model"
    ).module.config.to_dict() | {"_name_or_path": str(folder / "model")}


def judge_of(made: Path, folder: Path, told: dict) -> tuple[Callable, list[Example], dict]:
    examples, counts = read_rows(made / "questions.jsonl", Example), {}
    return objective.make_judge(folder, Judges(**told), examples, World(), counts), examples, counts


def test_rewards_are_in_the_members_units_and_aggregated(made, tmp_path):
    models = [str(made / f"judge-{at}" / "model") for at in range(2)]
    plain, examples, _ = judge_of(made, tmp_path, {"models": models, "aggregate": {"name": "worst"}})
    ids, texts = [one.id for one in examples[:6]], ["price bafa", "height zodo speed pifa"] * 3
    plain(0, ids, texts)
    raw = np.array([row["rewards"] for row in rollouts(tmp_path)])
    told = {"models": models, "aggregate": {"name": "worst"}, "centre_M": [1.0, -2.0], "scale_M": [0.5, 4.0]}
    judge, *_ = judge_of(made, tmp_path, told)
    found = judge(7, ids, texts)
    wanted = ((raw - [1.0, -2.0]) / [0.5, 4.0]).min(1)
    assert found == pytest.approx(wanted)
    rows = rollouts(tmp_path)
    assert [(row["step"], row["id"], row["text"]) for row in rows] == [
        (7, *one) for one in zip(ids, texts, strict=True)
    ]
    assert [row["reward"] for row in rows] == found


def test_a_text_without_a_reward_gets_the_lowest_of_its_batch_and_is_counted(made, tmp_path):
    models = [str(made / "judge-0" / "model")]
    judge, examples, counts = judge_of(made, tmp_path, {"models": models, "aggregate": {"name": "mean"}})
    ids = [one.id for one in examples[:4]]
    found = judge(0, ids, ["price bafa", " ", "height zodo", ""])
    assert found[1] == found[3] == min(found[0], found[2]) < max(found)
    assert counts == {"unjudged": 2}
    shutil.copytree(made / "judge-0" / "model", tmp_path / "blind")
    weights, token = load_file(tmp_path / "blind" / "model.safetensors"), load.load_folder(tmp_path / "blind").tokenizer
    weights["transformer.wte.weight"][token.convert_tokens_to_ids("zodo")] = float("nan")
    save_file(weights, tmp_path / "blind" / "model.safetensors", {"format": "pt"})
    texts = ["price bafa", "height bafa", "height zodo", "zodo"]
    judge, _, counts = judge_of(made, tmp_path, {"models": ["blind"], "aggregate": {"name": "mean"}})
    found = judge(0, ids, texts)
    assert found[2] == found[3] == min(found[:2])
    assert judge(1, ids, ["zodo"] * 4) == [0, 0, 0, 0]
    assert counts == {"unjudged": 6}
    assert rollouts(tmp_path)[2]["rewards"] == [None]
    both, *_ = judge_of(made, tmp_path, {"models": ["blind", *models], "aggregate": {"name": "mean"}})
    alone, _, counts = judge_of(made, tmp_path, {"models": models, "aggregate": {"name": "mean"}})
    assert both(0, ids, texts)[2:] == pytest.approx(alone(0, ids, texts)[2:])  # who can judge has the say
    assert counts == {"unjudged": 0}


def test_texts_are_ranked_among_those_of_their_question():
    rank = pick(AGGREGATORS, "rank_average")
    scores_MB = np.array([[1.0, 5.0, 3.0, 2.0, 9.0], [10.0, 1.0, 20.0, 30.0, 2.0]])
    assert objective.compare(scores_MB, ["a", "b", "a", "a", "b"], rank).tolist() == [0, 0, 0.75, 0.75, 1]


@pytest.mark.parametrize(
    ("objective", "change", "words"),
    [
        ({"name": "sft"}, {}, "objective: 'sft' given; the student has already learned from its labels"),
        ({"name": "rloo"}, {"rewards": None}, "objective: 'rloo' given; it needs rewards, which are missing"),
        ({"name": "dpo"}, {"pairs": None}, "objective: 'dpo' given; it needs pairs, which are missing"),
        ({"name": "dop"}, {}, "'dop' is not known (did you mean 'dpo'?)"),
        (
            {"name": "dpo", "label_smoothing": 0.5},
            {},
            "label_smoothing: 0.5 given; allowed: a number (at least 0, below 0.5)",
        ),
        ({"name": "dpo"}, {"learner": {"model": {**WRITER, "kind": "pair"}}}, "model.kind: 'pair' given"),
        (
            {"name": "grpo", "generations": 5},
            {},
            "learner.train.batch: 32 given; allowed: a multiple of the objective's",
        ),
        ({"name": "grpo"}, {"scale_M": [1.0, 0.0]}, "rewards.scale_M: [1.0, 0.0] given; allowed: 2 numbers above 0"),
        ({"name": "grpo"}, {"centre_M": [0.0]}, "as many in centre_M"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(job_of, objective, change, words):
    folder, job = job_of(objective)
    units = {key: value for key, value in change.items() if key.endswith("_M")}
    job |= {key: value for key, value in change.items() if key not in units}
    job["rewards"] = None if job["rewards"] is None else job["rewards"] | units
    with pytest.raises(BadInput) as error:
        run(folder, job)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_pairs_without_a_preference_are_left_out_and_counted(job_of, made, tmp_path):
    examples = read_rows(made / "pairs.jsonl", Example)[:8]
    examples[1] = dataclasses.replace(examples[1], choices=("price bafa", " price bafa "))
    target_NK = np.eye(2)[np.arange(8) % 2]
    target_NK[2] = 0.5
    given = {"examples": str(tmp_path / "pairs.jsonl"), "labels": str(tmp_path / "pairs.npz")}
    for count, wanted in ((8, 2), (2, None)):
        write_rows(tmp_path / "pairs.jsonl", examples[1 : 1 + count])
        write_arrays(tmp_path / "pairs.npz", labels(examples[1 : 1 + count], target_NK[1 : 1 + count]))
        folder, job = job_of({"name": "dpo"}, {"steps": 1, "batch": 2}, pairs=given)
        if wanted is None:
            with pytest.raises(BadInput, match="every pair's texts are equal or equally good: nothing to prefer"):
                run(folder, job)
        else:
            done = run(folder, job)
            assert (done["rows"], done["equal"]) == (5, 2)
    three = [dataclasses.replace(examples[0], choices=("a", "b", "c"))]
    write_rows(tmp_path / "pairs.jsonl", three)
    write_arrays(tmp_path / "pairs.npz", labels(three, np.array([[1.0, 0, 0]])))
    folder, job = job_of({"name": "dpo"}, pairs=given)
    with pytest.raises(BadInput, match=r"pairs.jsonl: \w+: 3 candidates given; allowed: 2"):
        run(folder, job)


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_in_bfloat16_the_weights_stay_in_float32(job_of, name):
    folder, _ = job_of({"name": name}, {"steps": 2, "precision": "bfloat16"})
    objective.run(folder, read_job(folder), World())
    assert np.isfinite(json.loads((folder / "train.json").read_text())["loss"]).all()
    assert json.loads((folder / "model" / "w2s.json").read_text())["precision"] == "bfloat16"
    assert {tensor.dtype for tensor in load_file(folder / "model" / "model.safetensors").values()} == {torch.float32}
