"""The stage that asks learners of any vocabulary what they expect next in the committee's texts."""

import dataclasses
import json
from pathlib import Path

from w2s.config.fields import Learner
from w2s.stages import Facts, Inputs, Tools
from w2s.stages.jobs import do_job
from w2s.stages.models import base_folder, with_shots
from w2s.stages.writing import find_writers, read_texts
from w2s.store.files import open_whole
from w2s.store.records import Example, read_rows, write_rows
from w2s.workers.job import Base, Fuse


def fused(
    here: Path, inputs: Inputs, tools: Tools, *, on: str, student: Learner, top: int, mixture: str, combination: str
) -> Facts:
    """The texts of the parent `texts` for the set `on`, with the committee's next tokens in `student`'s vocabulary.

    Parents: questions, texts, committee and its rounds, `student` (its base). Writes SET_texts.jsonl and soft.npz.
    """
    written = read_texts(inputs["texts"], on)
    rows = read_rows(inputs["questions"] / f"{on}.jsonl", Example)
    texts = {key: line["texts"][0] for key, line in written.items()}
    write_rows(here / "examples.jsonl", [dataclasses.replace(row, choices=(texts[row.id],)) for row in rows])
    models, alphas = find_writers(inputs)
    start = {"base": inputs["student"]} if "student" in inputs else {}
    base = Base(with_shots(inputs, student), base_folder(start, tools, student))
    job = Fuse(models, alphas, "examples.jsonl", base, top, mixture, combination, tools.runtime)
    done = do_job(here, tools, job)
    with open_whole(here / f"{on}_texts.jsonl") as file:
        for key, line in written.items():
            file.write(json.dumps({"id": key, **line, "ended": [True]}) + "\n")
    return {key: done[key] for key in ("rows", "tokens", "shared", "untargeted", "unread")}
