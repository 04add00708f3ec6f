"""The start of a seed: its questions, their gold, the further suites, and labels by gold or by recorded opinions."""

import dataclasses
from collections.abc import Sequence

from w2s.config.fields import Config
from w2s.data.rows import hash_folder, hash_rows, suite_name
from w2s.stages import questions, rounds
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput, Example
from w2s.story.models import find_base, find_states
from w2s.story.teller import FIT, HOLDOUT, TEST, TRANSFER, UNSEEDED, Sets, Stages, Teller

GOLD = {"easy": (FIT, HOLDOUT), TRANSFER: (TRANSFER,), TEST: (TEST,)}


def is_written(examples: Sequence[Example]) -> bool:
    """Whether the questions have no choices; a mixture is a BadInput."""
    tasks = {row.task for row in examples}
    if "choice" in tasks and len(tasks) > 1:
        raise BadInput("data.sources: questions with and without choices in one run; give each kind its own run")
    return "choice" not in tasks


def split_questions(teller: Teller) -> Sets:
    """Easy and hard questions in four splits, their gold in separate stages, and the further suites."""
    config, seed, content = teller.config, teller.seed, hash_rows(teller.tools.rows(teller.seed))
    data = dataclasses.replace(config.data, root=None)  # the rows count, not their folder
    options = {"data": data, "seed": seed, "content": content}
    options |= {"limit": config.limit} if config.limit else {}  # absent from the keys of a whole run
    count = count_shots(config)
    options |= {"shots": count} if count else {}
    difficulty = find_difficulty(teller, content)
    split = teller.tell(questions.questions, "questions", difficulty, options, {"kind": "questions"})
    gold = {}
    for name, splits in GOLD.items():
        options, tags = {"splits": splits, "seed": seed, "content": content}, {"kind": "gold", "split": name}
        gold[name] = teller.tell(questions.gold, f"gold of {name}", {"questions": split}, options, tags)
    suites, written_suites = {}, {}
    for name in map(suite_name, config.evaluation.suites):
        rows = teller.tools.suite_rows(name)
        options, tags = {"name": name, "content": hash_rows(rows)}, {"suite": name, "seed": UNSEEDED}
        suite = teller.tell(questions.suite, name, {}, options, {"kind": "suite", **tags})
        suite_gold = teller.tell(questions.suite_gold, f"gold of {name}", {}, options, {"kind": "suite_gold", **tags})
        if all(row.task == "choice" for row in rows[0]):
            suites[name] = suite
        else:
            written_suites[name] = suite, suite_gold
    return Sets(split, gold, suites, written_suites, solve_shots(teller, split, content) if count else None)


def count_shots(config: Config) -> int:
    """How many solved examples are drawn: the most that a prompt shows. The others show the first of them."""
    models = [learner.model for learner in (*config.learners, config.student)]
    return max([model.shots for model in models if isinstance(model.shots, int)], default=0)


def solve_shots(teller: Teller, split: Stage, content: str) -> Stage:
    """The questions that prompts show, with their gold."""
    options, tags = {"seed": teller.seed, "content": content}, {"kind": "shots"}
    return teller.tell(questions.solved, "solved examples for prompts", {"questions": split}, options, tags)


def find_difficulty(teller: Teller, content: str) -> Stages:
    """The stage that scores how hard questions are, if learners decide it."""
    config = teller.config
    if config.data.difficulty["name"] != "loss":
        return {}
    learner = config.learners[0]
    if isinstance(learner.model.shots, int):  # questions are not split yet, so that none are set apart for prompts
        learner = dataclasses.replace(learner, model=dataclasses.replace(learner.model, shots=0))
    options = {"learner": learner, "folds": config.boosting.folds, "seed": teller.seed, "content": content}
    base = {**find_base(teller, learner), **find_states(teller, learner, {}, content=content)}
    return {"difficulty": teller.tell(rounds.cross_fitted, "how hard each question is", base, options)}


def label_by_gold(teller: Teller, sets: Sets, split: str) -> Stage:
    """The gold of a split as training targets."""
    parents = {"questions": sets.questions, "gold": sets.gold[split if split in sets.gold else "easy"]}
    return teller.tell(questions.gold_targets, f"gold of {split} as targets", parents, {"split": split})


def label_by_record(teller: Teller, sets: Sets) -> Stage:
    """Labels by models from outside the run, written by `w2s combine labels`."""
    folder = teller.tools.recorded
    content = hash_folder(folder)
    if content is None or not (folder / "labels.npz").is_file():
        allowed = "a folder that `w2s combine labels` wrote"
        raise BadInput(f"label.recorded: {str(folder)!r} given; allowed: {allowed}")
    parents, tags = {"questions": sets.questions}, {"kind": "labels", "model": "recorded"}
    return teller.tell(questions.recorded_targets, "recorded labels", parents, {"content": content}, tags)
