"""lm-eval's own verdicts on questions of a local file: its tasks as published, its requests, its metrics."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from w2s.store.records import Example, example_id

METRICS = {"acc": "sum", "acc_norm": "per_character", "acc_bytes": "per_byte", "acc_mutual_info": "unconditional"}
"""lm-eval's metric -> model.normalise."""
FILES = {"arc_easy": ("arc", "ARC-Easy-Test.jsonl.gz"), "sciq": ("sciq", "test.jsonl.gz")}


def read_rows(data: Path, task: str, count: int) -> list[dict[str, Any]]:
    """The first `count` rows of a published test set that can be compared, in the format of the hub.

    SciQ's questions without a support passage cannot: lm-eval's prompt then begins with an empty line, ours does not.
    """
    with gzip.open(data.joinpath(*FILES[task]), "rt", encoding="utf-8") as file:
        rows = (json.loads(line) for line in file)
        kept = (row for row in rows if task != "sciq" or row["support"].strip())
        rows = list(itertools.islice(kept, count))
    return [as_on_the_hub(row) if task == "arc_easy" else row for row in rows]


def as_on_the_hub(row: dict[str, Any]) -> dict[str, Any]:
    choices = row["question"]["choices"]
    texts, labels = [choice["text"] for choice in choices], [choice["label"] for choice in choices]
    columns = {"question": row["question"]["stem"], "choices": {"text": texts, "label": labels}}
    return {"id": row["id"], **columns, "answerKey": row["answerKey"]}


def as_example(row: dict[str, Any], task: str) -> tuple[Example, int]:
    """The row as ours, with the right choice; SciQ with its support, as in lm-eval. For `qa` with `question: ""`."""
    if task == "arc_easy":
        prompt, texts = f"Question: {row['question']}", row["choices"]["text"]
        right = row["choices"]["label"].index(row["answerKey"])
    else:
        prompt = f"{row['support'].lstrip()}\nQuestion: {row['question']}"
        texts, right = [*(row[f"distractor{at}"] for at in (1, 2, 3)), row["correct_answer"]], 3
    return Example(example_id(task, prompt, texts), task, "choice", prompt, tuple(texts)), right


def judge(
    module: Any, tokenizer: Any, task: str, rows: Iterable[dict[str, Any]], folder: Path, *, chat: bool = False
) -> list[dict[str, Any]]:
    """Per row lm-eval's acc, acc_norm, acc_bytes and acc_mutual_info, and `scores`: its log-likelihoods by choice."""
    import lm_eval
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    published = Path(lm_eval.__file__).parent / "tasks" / task.split("_")[0] / f"{task}.yaml"
    config = yaml.safe_load(published.read_text())
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(folder / "cache")}
    config |= {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": files}
    config |= {"training_split": None, "validation_split": None, "should_decontaminate": False}
    config["metric_list"] = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS]
    made = ConfigurableTask(config={key: value for key, value in config.items() if key != "tag"})
    model = HFLM(pretrained=module, tokenizer=tokenizer, batch_size=16, device="cpu", backend="causal")
    # acc_mutual_info's requests come after all others of a question.
    template = {"apply_chat_template": chat, "chat_template": model.apply_chat_template if chat else None}
    made.build_all_requests(rank=0, world_size=1, fewshot_as_multiturn=chat, **template)
    found = model.loglikelihood(made.instances, disable_tqdm=True)
    by_row: dict[int, list[tuple[float, bool]]] = {}
    for request, answer in zip(made.instances, found, strict=True):
        by_row.setdefault(request.doc_id, []).append(answer)
    results = []
    for at, doc in enumerate(made.test_docs()):
        scores = np.array([score for score, _ in by_row[at]])
        results.append({**made.process_results(doc, by_row[at]), "scores": scores[: len(scores) // 2]})
    return results
