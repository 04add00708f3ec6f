"""A run's answers in the file formats of other tools, under RUN/exports/; the same run gives the same bytes.

lm-eval/seed-S/MODEL/samples_TASK_seed-S.jsonl and results_seed-S.json: choices and short answers as lm-eval's
EvaluationTracker writes them under its output path (lm_eval/loggers/evaluation_tracker.py at commit 034ab03), with the
seed where it puts the date. `w2s combine RUN/exports/lm-eval/seed-S` reads them. doc_id counts a suite's questions from
0, and leaves out those that repeat a training question; the prompt is the bare question, without the words
that a model's config puts around it; exact_match is w2s' own verdict, 0 where there is none; log-likelihoods are logs
of the probabilities, so they sum to 1 over the choices, and acc takes the first of tied choices.

evalplus/seed-S/SUITE/MODEL.jsonl: programs as evalplus reads them, {"task_id", "solution"} with a whole program, a
line for each sample (pypi.org/project/evalplus, schema of samples.jsonl). `w2s judge FILE --suite NAME` judges them
again. Programs for the run's own hard questions go by the data set that these are of: SUITE is hard_test_SOURCE.
"""

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from w2s.evaluation.run.metrics import MODELS
from w2s.evaluation.run.runs import SUITE, Run, outcomes_of
from w2s.grading.extract import extract_program
from w2s.prompts import continuation
from w2s.store.records import Example, Outcome, Predictions, read_arrays, read_rows

Row = dict[str, Any]


def write_exports(run: Run) -> None:
    """Write RUN/exports: answers of every model in MODELS to hard_test and the further suites, by seed."""
    out = run.folder / "exports"
    shutil.rmtree(out, ignore_errors=True)
    for seed in run.seeds:
        samples: dict[str, dict[str, list[Row]]] = defaultdict(dict)
        for suite in (SUITE, *run.suites):
            rows, gold = read_questions(run, suite, seed), run.gold(suite, seed)
            for artifact in run.outcomes(suite, seed=seed):
                model, said = artifact.tags["model"], group_texts(outcomes_of(artifact))
                if model in MODELS and any(row.task == "code" for row in rows.values()):
                    write_programs(out / "evalplus" / f"seed-{seed}", suite, model, rows.values(), said)
                elif model in MODELS:
                    answered = [(at, row, str(gold[row.id])) for at, row in rows.items() if row.id in said]
                    samples[model][suite] = [text_sample(at, row, right, said[row.id]) for at, row, right in answered]
            for artifact in run.find("opinion", seed=seed) if not run.outcomes(suite) else ():
                path, model = artifact.path / f"{suite}.npz", artifact.tags["model"]
                if model in MODELS and path.exists():
                    asked = [(at, row, int(gold[row.id])) for at, row in rows.items()]
                    probs = probs_by_id(read_arrays(path, Predictions))
                    samples[model][suite] = [choice_sample(at, row, right, probs[row.id]) for at, row, right in asked]
        for model, suites in samples.items():
            suites = {task: found for task, found in suites.items() if found}
            write_lm_eval(out / "lm-eval" / f"seed-{seed}" / model, model, f"seed-{seed}", suites)


def read_questions(run: Run, suite: str, seed: int) -> dict[int, Example]:
    """The questions of a suite by position, without those that repeat a training question."""
    if suite == SUITE:
        return dict(enumerate(run.questions(SUITE, seed).values()))
    (artifact,) = run.find("suite", suite=suite)
    rows = enumerate(read_rows(artifact.path / f"{suite}.jsonl", Example))
    return {at: row for at, row in rows if row.id not in run.leaked[suite, seed]}


def group_texts(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    by_id: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_id[outcome.id].append(outcome)
    return by_id


def probs_by_id(opinion: Predictions) -> dict[str, np.ndarray]:
    """id -> the probabilities of its choices."""
    rows = zip(opinion.ids.tolist(), opinion.probs_NK, opinion.mask_NK, strict=True)
    return {key: probs_K[mask_K] for key, probs_K, mask_K in rows}


def write_programs(
    folder: Path, suite: str, model: str, rows: Iterable[Example], said: Mapping[str, list[Outcome]]
) -> None:
    """Write the programs of a model for the tasks of a suite, one file per dataset."""
    files: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        name = suite if suite == row.source else f"{suite}_{row.source}"
        task = str(row.meta.get("task_id", row.id))
        files[name] += [{"task_id": task, "solution": extract_program(row, one.text)} for one in said.get(row.id, ())]
    for name, found in files.items():
        write_lines(folder / name / f"{model}.jsonl", found)


def text_sample(at: int, row: Example, gold: str, said: list[Outcome]) -> Row:
    """A sample of a generate_until task; the first of several texts is the answer."""
    right = float(said[0].correct is True)
    requests = [(row.prompt, {"until": []})]
    return sample(at, row, gold, requests, [[one.text for one in said]], [said[0].text], {"exact_match": right})


def choice_sample(at: int, row: Example, gold: int, probs_K: np.ndarray) -> Row:
    """A sample of a multiple_choice task: each choice's log-likelihood, and False for "greedy", which is not
    measured."""
    with np.errstate(divide="ignore"):
        likely = [[repr(one), "False"] for one in np.log(probs_K).tolist()]
    requests = [(row.prompt, continuation(choice)) for choice in row.choices]
    right = float(int(np.argmax(probs_K)) == gold)
    return sample(at, row, str(gold), requests, [[one] for one in likely], likely, {"acc": right})


def sample(
    at: int, row: Example, target: str, requests: list[tuple], resps: list, filtered: list, metrics: dict[str, float]
) -> Row:
    doc = {"id": row.id, "question": row.prompt, "choices": list(row.choices), "answer": target}
    return {
        "doc_id": at,
        "doc": doc,
        "target": target,
        "arguments": {f"gen_args_{n}": {"arg_0": one[0], "arg_1": one[1]} for n, one in enumerate(requests)},
        "resps": resps,
        "filtered_resps": filtered,
        "filter": "none",
        "metrics": list(metrics),
        "doc_hash": digest(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": digest(row.prompt),
        "target_hash": digest(target),
        **metrics,
    }


def digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def write_lm_eval(folder: Path, model: str, run: str, suites: Mapping[str, list[Row]]) -> None:
    """The samples of each task, and results_RUN.json with their means and standard errors."""
    results, higher = {}, {}
    for task, rows in suites.items():
        write_lines(folder / f"samples_{task}_{run}.jsonl", rows)
        (name,) = rows[0]["metrics"]
        right_N = np.array([row[name] for row in rows])
        spread = float(right_N.std(ddof=1) / len(right_N) ** 0.5) if len(right_N) > 1 else "N/A"
        results[task] = {"alias": task, f"{name},none": float(right_N.mean()), f"{name}_stderr,none": spread}
        higher[task] = {name: True}
    counts = {task: {"original": len(rows), "effective": len(rows)} for task, rows in suites.items()}
    found = {"results": results, "higher_is_better": higher, "n-samples": counts, "model_name": model}
    (folder / f"results_{run}.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
