"""Next tokens of teachers with other vocabularies: against forward passes by hand, and a whole run of three kinds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import w2s
from tests.fusion.test_projection import byte_tokenizer, piece_tokenizer
from tests.models import tiny
from w2s.config.fields import Learner, Model, Train
from w2s.fusion.projection import spell
from w2s.models import batches, builtin, load
from w2s.models.world import World
from w2s.store.records import BadInput, Example, TokenTargets, read_arrays, write_rows
from w2s.workers import fuse
from w2s.workers.job import Base, Fuse

TEXTS = ["the moon", "ärger"]


def word_tokenizer() -> transformers.PreTrainedTokenizerFast:
    return builtin.word_tokenizer(["Question : Answer What is ? moon sea 0 1 2"])


MAKERS = {"bytes": byte_tokenizer, "bpe": tiny.tokenizer, "pieces": piece_tokenizer, "words": word_tokenizer}


def write_model(folder: Path, style: str, seed: int) -> Path:
    """A tiny Llama with random weights and a tokenizer of this style."""
    tokenizer = MAKERS[style]()
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=24, max_position_embeddings=128, eos_token_id=tokenizer.eos_token_id, initializer_range=0.5,
        bos_token_id=None, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def saved(folder: Path, style: str, seed: int, prompt: str = "qa") -> Path:
    """The same as a learner that w2s saved."""
    model = Model(path=str(write_model(folder / "base", style, seed)), prompt={"name": prompt})
    load.save(load.load(model), folder / "learner")
    return folder / "learner"


def write_texts(folder: Path) -> list[Example]:
    rows = [Example(str(at), "t", "answer", f"What is {at}?", (text,)) for at, text in enumerate(TEXTS)]
    write_rows(folder / "rows.jsonl", rows)
    return rows


def do(folder: Path, learners: list[Path], student: Path, alphas=(2.0, 1.0), **options) -> tuple[TokenTargets, dict]:
    base = Base(Learner(Model(path=str(student), prompt={"name": "qa"}), Train()), str(student))
    options = {"top": 400} | options
    job = Fuse([str(one) for one in learners], list(alphas), str(folder / "rows.jsonl"), base, **options)
    (folder / "job").mkdir(exist_ok=True)
    done = fuse.run(folder / "job", job, World())
    return read_arrays(folder / "job" / "soft.npz", TokenTargets), done


def dense(targets: TokenTargets, row: int, size: int) -> np.ndarray:
    ends = np.cumsum(targets.length_N)
    rows = slice(ends[row] - targets.length_N[row], ends[row])
    made = np.zeros((targets.length_N[row], size))
    np.put_along_axis(made, targets.token_TJ[rows], targets.prob_TJ[rows].astype(float), 1)
    return made


def starts(tokenizer, ids) -> list[int]:
    spelled = spell(tokenizer)
    sizes = [0 if spelled[at] is None else len(spelled[at]) for at in ids]
    return np.cumsum([0, *sizes])[:-1].tolist()


def test_the_targets_are_the_teachers_forward_passes_moved_to_the_students_tokens(tmp_path):
    rows = write_texts(tmp_path)
    learners = [saved(tmp_path / "a", "bpe", 1), saved(tmp_path / "b", "bytes", 2)]
    student = load.load(Model(path=str(write_model(tmp_path / "s", "pieces", 3)), prompt={"name": "qa"}))
    found, done = do(tmp_path, learners, tmp_path / "s")
    size, spelled = len(student.tokenizer), spell(student.tokenizer)
    own = batches.encode(student, rows)
    for at, row in enumerate(rows):
        ids = own[at].rows[0].token_P.tolist()
        wanted, heard = np.zeros((len(ids), size)), np.zeros(len(ids))
        for path, share in zip(learners, (2 / 3, 1 / 3), strict=True):
            teacher = load.load_folder(path)
            whole = teacher.tokenizer(f"Question: {row.prompt}\nAnswer: {row.choices[0]}", add_special_tokens=False)
            prompt = teacher.tokenizer(f"Question: {row.prompt}\nAnswer:", add_special_tokens=False)["input_ids"]
            tokens = [*whole["input_ids"][len(prompt) :], teacher.tokenizer.eos_token_id]
            assert batches.encode(teacher, [row])[0].rows[0].token_P.tolist() == tokens
            with torch.no_grad():
                logits = teacher.module(torch.tensor([[*whole["input_ids"]]])).logits[0, len(prompt) - 1 :]
            probs, mine, seen = logits.double().softmax(-1).numpy(), starts(teacher.tokenizer, tokens), set()
            for place, start in enumerate(starts(student.tokenizer, ids)):
                if start in mine and start not in seen:
                    heard[place] += share
                    for token, text in enumerate(spell(teacher.tokenizer)):
                        p = probs[mine.index(start), token]
                        if token == teacher.tokenizer.eos_token_id:
                            wanted[place, student.tokenizer.eos_token_id] += share * p
                        elif text is not None:
                            best = max((s for s in spelled if s and text.startswith(s)), key=len, default=None)
                            if best is not None:
                                wanted[place, spelled.index(best)] += share * p
                seen.add(start)
        wanted[heard > 0] /= heard[heard > 0, None]
        np.testing.assert_allclose(dense(found, at, size), wanted, atol=1e-3)  # kept as float16
    assert done["shared"] == int((found.prob_TJ.sum(1) > 0).sum())
    assert done["untargeted"] == 0
    assert found.tokenizer == fuse.fingerprint(student)


@pytest.mark.parametrize("mixture", ["linear", "log_linear"])
def test_learners_of_the_students_tokenizer_are_mixed_as_they_are(tmp_path, mixture):
    rows = write_texts(tmp_path)
    learners = [saved(tmp_path / name, "bpe", seed) for seed, name in enumerate("ab")]
    found, done = do(tmp_path, learners, tmp_path / "a" / "base", mixture=mixture)
    assert done["shared"] == done["tokens"]
    logs, probs = [], []
    for path in learners:
        teacher = load.load_folder(path)
        batch = batches.collate(teacher, batches.encode(teacher, rows))
        logits = fuse.lm.token_logits(teacher, batch).detach().double()
        probs.append(logits.softmax(-1))
        logs.append(logits.log_softmax(-1))
    wanted = (2 * probs[0] + probs[1]) / 3
    if mixture == "log_linear":
        wanted = ((2 * logs[0] + logs[1]) / 3).softmax(-1)
    size = wanted.shape[1]
    ours = np.concatenate([dense(found, at, size) for at in range(len(rows))])
    np.testing.assert_allclose(ours, wanted.numpy(), atol=1e-3)


def test_teachers_in_another_order_give_the_same_and_mince_hears_one(tmp_path):
    write_texts(tmp_path)
    learners = [saved(tmp_path / "a", "bpe", 1), saved(tmp_path / "b", "bytes", 2)]
    student = write_model(tmp_path / "s", "pieces", 3)
    first, _ = do(tmp_path, learners, student)
    turned, _ = do(tmp_path, learners[::-1], student, (1.0, 2.0))
    np.testing.assert_array_equal(first.prob_TJ, turned.prob_TJ)
    alone = [do(tmp_path, [one], student, (1.0,))[0] for one in learners]
    mince, _ = do(tmp_path, learners, student, combination="mince")
    ends = np.cumsum(mince.length_N)
    for end, length in zip(ends, mince.length_N, strict=True):
        rows = slice(end - length, end)
        assert any(np.allclose(mince.prob_TJ[rows], one.prob_TJ[rows], atol=1e-3) for one in alone)


def test_a_text_that_is_blank_or_that_a_teacher_does_not_read_whole_is_counted(tmp_path):
    texts = ["the moon", " ", "moon"]
    rows = [Example(str(at), "t", "answer", f"What is {at}?", (text,)) for at, text in enumerate(texts)]
    write_rows(tmp_path / "rows.jsonl", rows)
    learners = [saved(tmp_path / "a", "bpe", 1), saved(tmp_path / "b", "words", 2)]
    found, done = do(tmp_path, learners, write_model(tmp_path / "s", "pieces", 3))
    assert found.ids.tolist() == ["0", "1", "2"]
    assert [length > 0 for length in found.length_N] == [True, False, True]
    assert done["untargeted"] == 1
    assert done["unread"] == [0, 1]  # "the" is not one of its words
    alone, _ = do(tmp_path, learners[:1], tmp_path / "s", alphas=(1.0,))
    np.testing.assert_array_equal(dense(found, 0, 300), dense(alone, 0, 300))


WORDS = [None, b" moon", b" ,", b" sea"]
PIECES = [None, b"moon", b" moon", b",", b" ", b"sea", b" sea"]


@pytest.mark.parametrize(
    ("text", "words", "word_starts", "pieces", "piece_starts"),
    [
        (" moon sea", [1, 3, 0], [-1, 4, 8], [2, 6, 0], [-1, 4, 8]),
        ("moon sea", [1, 3, 0], [-1, 4, 8], [1, 6, 0], [0, 4, 8]),
        (" moon, sea", [1, 2, 3, 0], [-1, 4.5, 5, 9], [2, 3, 4, 5, 0], [-1, 4, 5, 6, 9]),
        ("\n moon\n\nsea", [1, 3, 0], [0.5, 6.5, 9], None, None),
        (" moon moon", [1, 0], None, [2, 0], None),
        (" moon tide", [1, 3, 0], None, [2, 6, 0], None),
    ],
)
def test_tokens_start_where_their_text_does_and_words_without_a_space_start_with_no_other_token(
    text, words, word_starts, pieces, piece_starts
):
    for tokens, spelled, wanted in ((words, WORDS, word_starts), (pieces, PIECES, piece_starts)):
        if tokens is not None:
            found = fuse.find_starts(tokens, text, spelled, 0)
            assert (found if found is None else found.tolist()) == wanted


def test_a_word_student_of_piece_teachers_and_alphas_of_0_are_refused(tmp_path):
    write_texts(tmp_path)
    learners = [saved(tmp_path / "a", "bpe", 1)]
    with pytest.raises(BadInput, match="alphas"):
        do(tmp_path, learners, tmp_path / "a" / "base", (0.0,))


CONFIG = """
name: unlike
data:
  sources: [{{name: file, path: {folder}/own.jsonl}}]
  difficulty: {{name: length}}
  easy_share: 0.5
  near: null
  sizes: {{easy_fit: 30, easy_holdout: 12, transfer: 16, hard_test: 12}}
learners:
  - {{model: {{path: {folder}/bpe, prompt: {{name: qa}}}}, train: {{steps: 2, batch: 8, lr: 0.01}}}}
  - {{model: {{path: {folder}/bytes, prompt: {{name: qa}}}}, train: {{steps: 2, batch: 8, lr: 0.01}}}}
boosting: {{rounds: 2, booster: {{name: ensemw2s, clip: [0.05, 3.0]}}, errors: rotate}}
writing: {{max_new_tokens: 6, samples: 1}}
label: {{made: fused, top: 8}}
student: {{model: {{path: {folder}/pieces, prompt: {{name: qa}}}}, train: {{steps: 2, batch: 8, lr: 0.01}}}}
controls: {{bagged: false, uniform: false, long_learner: false, naive_student: false, shuffled: false, easy_gold: false,
  ceiling: false, zero_shot: false, answer_level: false}}
runtime: {{slots: 1, threads: 1, runs_dir: {folder}/runs}}
"""


@pytest.mark.slow
def test_learners_of_two_vocabularies_teach_a_student_of_a_third(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": " ".join(["moon"] * int(rng.integers(1, 9))) + f" {at}?", "answer": str(at % 7)} for at in range(90)
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for seed, style in enumerate(("bytes", "bpe", "pieces")):
        write_model(tmp_path / style, style, seed)
    (tmp_path / "unlike.yaml").write_text(CONFIG.format(folder=tmp_path))
    monkeypatch.chdir(tmp_path)
    run = w2s.run("unlike.yaml")
    assert {"student", "committee"} <= set(run.metrics.model)
    (manifest,) = [
        json.loads(path.read_text())
        for path in (tmp_path / "runs" / "store").glob("*/manifest.json")
        if '"stage": "fused"' in path.read_text()
    ]
    assert 0 < manifest["facts"]["shared"] <= manifest["facts"]["tokens"]
