"""A run whose questions have no choices, its artifacts written by hand in the form in which the stages leave them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from w2s.store.files import write_json

from w2s.store.artifacts import write_listing, write_manifest
from w2s.store.records import (
    Example,
    Gold,
    Outcome,
    Predictions,
    PseudoLabels,
    TokenRanks,
    TokenWeights,
    write_arrays,
    write_rows,
)

SIZES = {"easy_fit": 6, "easy_holdout": 4, "transfer": 6, "hard_test": 8}
RIGHT = {  # of the 8 hard questions
    **{"floor": 2, "best_learner": 3, "committee": 5, "student": 6, "ceiling": 8, "uniform": 4},
    **{"bagged": 3, "answer_level": 4, "zero_shot": 1},
}
POISON = "<script>alert('x')</script>"
CONFIG = """
name: written
seeds: {seeds}
data: {{near: null, difficulty: {{name: level}}}}
student: {{model: {{path: "builtin:strong"}}}}
controls: {{answer_level: true, long_learner: false}}
evaluation: {{bins: 5, samples: 4}}
"""


@dataclass
class Written:
    """The run's folder, its gold, and `add`, which makes one more artifact of it."""

    folder: Path
    task: str
    stages: list = field(default_factory=list)
    manifests: dict = field(default_factory=dict)
    gold: dict = field(default_factory=dict)

    def add(self, name: str, facts: dict | None = None, **tags) -> Path:
        at = f"{name}-{len(self.stages):04}"
        path = self.folder.parent / "store" / at
        path.mkdir(parents=True)
        manifest = {"stage": name, "title": name, "key": f"{len(self.stages):04}", "facts": facts or {}}
        manifest |= {"seconds": 1.0, "commit": "abc", "versions": {}, "parents": {}, "section": {}}
        self.manifests[path] = manifest
        self.stages.append({"name": name, "title": name, "folder": at, "tags": tags, "parents": {}})
        return path

    def seal(self) -> None:
        """Manifests and stages.json of all that is there, as if it had been written so."""
        for path, manifest in self.manifests.items():
            write_manifest(path, manifest)
        told = {"command": "w2s run written.yaml", "stages": self.stages, "cores": 2}
        write_listing(self.folder, (self.folder / "config.yaml").read_text(), told)

    def question(self, source: str, key: str, n: int, hardness: float) -> Example:
        if self.task == "code":
            prompt = f'def add{n}(x):\n    """Return x + {n}, please ({key})."""\n'
            meta = {"entry_point": f"add{n}", "task_id": f"Own/{key}", "hardness": hardness}
            test = f"def check(candidate):\n    assert candidate(1) == {n + 1}\n    assert candidate(-1) == {n - 1}\n"
            tests = ({"kind": "check", "entry_point": f"add{n}", "setup": prompt, "test": test},)
            self.gold[key] = Gold(key, f"{prompt}    return x + {n}\n", tests)
            return Example(key, source, "code", prompt, meta=meta)
        self.gold[key] = Gold(key, str(2 * n))
        return Example(key, source, "answer", f"({key}) What is {n} plus {n}?", meta={"hardness": hardness})

    def text(self, n: int, right: bool) -> str:
        """A right or a wrong answer to the question with the number n."""
        if self.task == "code":
            return f"    return x + {n}\n" if right else f"    return '{POISON}'\n"
        return f"It is #### {2 * n}" if right else f" {2 * n + 1} {POISON}"


def write_run(root: Path, task: str, *, made: str = "decoded", seeds: tuple[int, ...] = (0,)) -> Written:
    run = Written(root / "runs" / "written", task)
    run.folder.mkdir(parents=True)
    for seed in seeds:
        write_seed(run, seed, made)
    add_suite(run, seeds)
    (run.folder / "config.yaml").write_text(CONFIG.format(seeds=list(seeds)))
    run.seal()
    return run


def write_seed(run: Written, seed: int, made: str) -> None:
    facts = {**SIZES, "rows": sum(SIZES.values())}
    at = run.add("questions", facts, kind="questions", seed=seed)
    rows = {
        split: [run.question("own", f"{split}-{seed}-{n}", n, float(n // 4)) for n in range(size)]
        for split, size in SIZES.items()
    }
    for split, found in rows.items():
        write_rows(at / f"{split}.jsonl", found)
    for name, splits in {
        "easy": ("easy_fit", "easy_holdout"),
        "transfer": ("transfer",),
        "hard_test": ("hard_test",),
    }.items():
        folder = run.add("gold", kind="gold", split=name, seed=seed)
        write_rows(folder / "gold.jsonl", [run.gold[row.id] for split in splits for row in rows[split]])
    write_rounds(run, seed, rows)
    write_hard_test(run, seed, rows["hard_test"])
    write_pool(run, seed, rows["transfer"], made)


def write_rounds(run: Written, seed: int, rows: dict[str, list[Example]]) -> None:
    """Two rounds with tokenizers of their own (2 and 3 tokens a row); the second row is the heaviest."""
    ids = np.array([row.id for row in rows["easy_fit"]])
    told = []
    for index in range(2):
        folder = run.add("token_round", kind="round", model="committee", index=index, seed=seed)
        length_N = np.full(len(ids), 2 + index)
        weight_T = np.repeat(np.where(np.arange(len(ids)) == 1, 4.0 + index, 1.0), length_N)
        end_T = np.tile(np.arange(2 + index), len(ids)) + 1
        weights = TokenWeights(ids, length_N, end_T - 1, end_T, weight_T / weight_T.sum(), f"tokenizer {index}")
        write_arrays(folder / "weights.npz", weights)
        above_T = np.zeros(len(weight_T), dtype=int)
        above_T[length_N[0] : length_N[0] + 1 + index] = 3  # tokens of the second row
        shape = {"start_T": end_T - 1, "end_T": end_T, "above_T": above_T, "tied_T": above_T * 0 + 1}
        ranks = TokenRanks(ids, length_N, **shape, logp_T=above_T * 0.0, vocabulary=50, tokenizer=weights.tokenizer)
        write_arrays(folder / "easy_fit.npz", ranks)
        told.append({"index": index, "learner": f"round-{index}", "error": 0.3, "alpha": 0.5 - index / 4,
                     "effective_share": 0.8, "stop": None})  # fmt: skip
        write_json(folder / "round.json", told[-1])
    for who in ("committee", "uniform", "answer_level"):
        folder = run.add("writers", kind="committee", model=who, seed=seed)
        voters = {"rounds": told, "used": 2, "alphas": [0.5, 0.25], "accuracy_by_rounds": [0.5, 0.75]}
        voters |= {"learner_accuracy": [0.5, 0.25], "best_learner": 0, "error_correlation": [[1.0, 0.2], [0.2, 1.0]]}
        voters |= {"effective_voters": 1.7, "effective_directions": 1.9, "warning": None, "stop": None}
        write_json(folder / "committee.json", voters)


def write_texts(path: Path, said: dict[str, list[str]]) -> None:
    lines = [
        {"id": key, "texts": texts, "logps": [-0.5 - at for at in range(len(texts))]} for key, texts in said.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def rewrite_texts(path: Path, said: dict[str, list[str]]) -> None:
    """Other texts in an artifact, as if they had been written from the beginning."""
    write_texts(path, said)
    facts = json.loads((path.parent / "manifest.json").read_text())
    write_manifest(path.parent, {name: value for name, value in facts.items() if name not in ("files", "seal")})


def write_hard_test(run: Written, seed: int, rows: list[Example]) -> None:
    """Each model's texts and their verdicts; the last wrong one of the floor could not be judged."""
    for model, right in RIGHT.items():
        said = {row.id: [run.text(n, n < right)] for n, row in enumerate(rows)}
        write_texts(run.add("texts", kind="texts", model=model, seed=seed) / "hard_test_texts.jsonl", said)
        folder = run.add("judged", {"sandbox": "seccomp"}, kind="outcomes", model=model, suite="hard_test", seed=seed)
        found = [
            Outcome(row.id, "hard_test", model, said[row.id][0], n < right, "judged", 0.1) for n, row in enumerate(rows)
        ]
        if model == "floor":
            found[-1] = Outcome(rows[-1].id, "hard_test", model, said[rows[-1].id][0], None, "the sandbox failed", 0.1)
        write_rows(folder / "outcomes.jsonl", found)


def write_pool(run: Written, seed: int, rows: list[Example], made: str) -> None:
    """The transfer pool: what the two learners wrote (the second is always wrong), the labels; the last is dropped."""
    ids, options = np.array([row.id for row in rows]), {"kind": "member_texts", "seed": seed}
    for learner in range(2):
        path = run.add("texts", model=f"committee · learner {learner + 1}", **options) / "transfer_texts.jsonl"
        write_texts(path, {row.id: [run.text(n, learner == 0)] for n, row in enumerate(rows)})
    labels = {row.id: [run.text(n, n % 2 == 0)] for n, row in enumerate(rows)}
    probs_NK = np.ones((len(rows), 1))
    if made == "decoded":
        path = run.add("texts", kind="texts", model="committee", seed=seed) / "transfer_texts.jsonl"
        write_texts(path, labels)
    else:
        labels = {row.id: [run.text(n, False), run.text(n, True)] for n, row in enumerate(rows)}
        probs_NK = np.where(np.arange(len(rows))[:, None] % 2 == 0, [0.25, 0.75], [0.875, 0.125])
        vote_on(run, seed, rows, labels, probs_NK)
    weight_N = np.where(np.arange(len(rows)) == len(rows) - 1, 0.0, 1.0)
    why_N = np.where(weight_N > 0, "kept", "the log-probability is low")
    for who in ("committee", "shuffled"):
        folder = run.add("written_labels", {"rows": len(rows)}, kind="labels", model=who, seed=seed)
        write_arrays(folder / "labels.npz", PseudoLabels(ids, probs_NK, weight_N, why_N))
        targets = [Example(r.id, r.source, r.task, r.prompt, tuple(labels[r.id]), r.meta) for r in rows]
        write_rows(folder / "targets.jsonl", targets)


def vote_on(run: Written, seed: int, rows: list[Example], texts: dict[str, list[str]], probs_NK: np.ndarray) -> None:
    """Candidates of the committee, and what the learners and the committee make of them."""
    folder = run.add("candidates", kind="candidates", model="committee", seed=seed)
    asked = [Example(r.id, r.source, r.task, r.prompt, tuple(texts[r.id]), r.meta) for r in rows]
    write_rows(folder / "transfer.jsonl", asked)
    ids, none_N = np.array([row.id for row in rows]), np.zeros(len(rows), bool)
    for learner in range(2):
        who = f"committee · learner {learner + 1}"
        sure_NK = np.tile([0.1, 0.9] if learner == 0 else [0.8, 0.2], (len(rows), 1))
        path = run.add("opinion", kind="member_opinion", model=who, seed=seed) / "transfer.npz"
        write_arrays(path, Predictions(ids, sure_NK, np.ones((len(rows), 2), bool), none_N, who))
    path = run.add("combined", kind="opinion", model="committee", seed=seed) / "transfer.npz"
    write_arrays(path, Predictions(ids, probs_NK, np.ones((len(rows), 2), bool), none_N, "committee"))


def add_suite(run: Written, seeds: tuple[int, ...]) -> None:
    """A further suite of 4 tasks, `own`, 3 samples each; the first of them repeats a question trained on."""
    folder = run.add("suite", kind="suite", suite="own", seed=None)
    rows = [run.question("own", f"suite-{n}", 20 + n, 0.0) for n in range(4)]
    trained = run.question("own", f"easy_fit-{seeds[0]}-0", 0, 0.0)
    rows.append(Example("suite-leak", "own", run.task, trained.prompt, meta=trained.meta))
    run.gold["suite-leak"] = Gold("suite-leak", run.gold[trained.id].answer, run.gold[trained.id].tests)
    write_rows(folder / "own.jsonl", rows)
    gold = run.add("suite_gold", kind="suite_gold", suite="own", seed=None)
    write_rows(gold / "gold.jsonl", [run.gold[row.id] for row in rows])
    for seed in seeds:
        for model, right in {"committee": 1, "student": 2}.items():
            at = run.add("judged", kind="outcomes", model=model, suite="own", seed=seed)
            found = [
                Outcome(row.id, "own", model, run.text(20 + n, ok := sample < right), ok)
                for n, row in enumerate(rows)
                for sample in range(3)
            ]
            write_rows(at / "outcomes.jsonl", found)
