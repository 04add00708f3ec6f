"""Accuracy as lm-eval measures it, question by question, on pretrained models (its 0.4.13; extra `benchmarks`)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from tests.models import peer
from w2s.config.fields import Model
from w2s.models import load, score

QUESTIONS = int(os.environ.get("W2S_LM_EVAL_QUESTIONS", "200"))
NEAR = 2e-3
"""Scores this close may change places: float32 rounds a sum of log-probabilities in padded and in shared rows
differently."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("task", peer.FILES)
@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M-Instruct", "google/gemma-3-270m"])
def test_every_question_is_judged_as_by_lm_eval(real_models, shared, tmp_path, name, task):
    pytest.importorskip("lm_eval")
    rows = peer.read_rows(shared / "data", task, QUESTIONS)
    examples, right_N = zip(*(peer.as_example(row, task) for row in rows), strict=True)
    ours, prompt = {}, {"name": "qa", "question": ""}
    folder = as_folder(real_models, name, tmp_path / "model")
    for how in peer.METRICS.values():
        model = Model(path=str(folder), prompt=prompt, normalise=how)
        loaded = load.load(model, precision="float32", max_tokens=2048)
        ours[how] = {}
        for index, scores_NK in score.score_chunks(loaded, examples, batch_tokens=4096):
            ours[how] |= {at: row[: len(examples[at].choices)] for at, row in zip(index, scores_NK, strict=True)}
    theirs = peer.judge(loaded.module, loaded.tokenizer, task, rows, tmp_path)
    for at, found in enumerate(theirs):
        np.testing.assert_allclose(ours["sum"][at], found["scores"], atol=NEAR, err_msg=examples[at].prompt)
    differ = [
        (metric, examples[at].prompt, sorted(ours[how][at])[-2:])
        for metric, how in peer.METRICS.items()
        for at, right in enumerate(right_N)
        if (ours[how][at].argmax() == right) != (theirs[at][metric] == 1)
    ]
    assert not differ


def as_folder(root: Path, name: str, folder: Path) -> Path:
    """The model as safetensors: its folder under `root`, or its GGUF file unpacked into `folder`."""
    if (root / name).is_dir():
        return root / name
    file = {"gguf_file": str(root / f"{name}.gguf")}
    whole = transformers.AutoModelForCausalLM.from_pretrained(root, dtype=torch.float32, **file)
    del whole.config.quantization_config  # else it refuses to be saved
    plain = transformers.AutoModelForCausalLM.from_config(whole.config)
    plain.load_state_dict(whole.state_dict())
    plain.tie_weights()
    plain.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(root, **file).save_pretrained(folder)
    return folder
