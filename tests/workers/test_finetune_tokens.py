"""The finetune worker on written answers: token weights, soft targets, adapters, resuming."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.models import tiny
from w2s.models import batches, builtin, load, score, tokens, train
from w2s.models.committee import decode
from w2s.prompts import plain
from w2s.store.records import (
    BadInput,
    Example,
    PseudoLabels,
    TokenTargets,
    Weights,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)
from w2s.workers import finetune
from w2s.workers.job_files import read_job

ANSWERS = ["w1 w2", "w3", "w4 w4 w5", "w6", "w7 w1", "w2 w9 w3 w8", "w5", "w9 w6 w7"]
# Shorter answers have longer prompts: rows are alike in length, so that steps do not fill with copies of one of them.
PROMPTS = [f"what {'? ' * (5 - len(text.split()))}w{at} =" for at, text in enumerate(ANSWERS)]
ASKED = list(zip(PROMPTS, ANSWERS, strict=True))
EXAMPLES = [Example(f"q{at}", "t", "answer", prompt, (text,)) for at, (prompt, text) in enumerate(ASKED)]
IDS = np.array([example.id for example in EXAMPLES])


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Two random models: of whole words, and of pieces of words."""
    folder = tmp_path_factory.mktemp("bases")
    builtin.make("strong", ["what ? =", *(f"w{n}" for n in range(10))], folder / "words", 0)
    tiny.write("gpt2", folder / "pieces")
    return folder


@pytest.fixture
def written_job(bases, tmp_path):
    """written_job(name, train={...}, model={...}, records={file: record}, **job) -> a folder with that job.json."""
    write_rows(tmp_path / "targets.jsonl", EXAMPLES)
    target_NK = np.tile([1.0, 0.0], (8, 1))  # a place more than there are candidates
    labels = PseudoLabels(IDS, target_NK, np.ones(8), np.full(8, "kept"))

    def write(name, train=None, model=None, records=None, base="words", **values):
        folder = tmp_path / name
        folder.mkdir()
        write_arrays(folder / "labels.npz", labels)
        for file, record in (records or {}).items():
            write_arrays(folder / file, record)
        job = {
            "worker": "finetune",
            "learner": {"model": model or {}, "train": {"steps": 6, "batch": 8, "lr": 1e-2, **(train or {})}},
            "path": str(bases / base),
            "seed": 1,
            "examples": "../targets.jsonl",
            "labels": "labels.npz",
            "weighting": "loss",
            "runtime": {},
            **values,
        }
        (folder / "job.json").write_text(json.dumps(job))
        return folder

    return write


def run(folder):
    finetune.run(folder, read_job(folder), train.World())
    return json.loads((folder / "train.json").read_text())


def weights_of(folder, name="words", seed=0):
    """Random token weights over the answers, in the tokenizer of the base `name`, rows in another order."""
    places = tokens.layout(tiny.read(folder / name), EXAMPLES[::-1])
    return dataclasses.replace(places, weight_T=np.random.default_rng(seed).dirichlet(np.ones(len(places.weight_T))))


def hard_as_soft(folder, name="words"):
    """Soft targets that are sure of the right tokens."""
    loaded = tiny.read(folder / name)
    rows = [one.rows[0].token_P for one in batches.encode(loaded, EXAMPLES)]
    token_TJ = np.stack([np.concatenate(rows), (np.concatenate(rows) + 1) % 10], 1)
    prob_TJ = np.tile(np.float16([1, 0]), (len(token_TJ), 1))
    length_N = np.array([len(row) for row in rows])
    return TokenTargets(IDS, length_N, token_TJ, prob_TJ, tokens.fingerprint(loaded))


def test_a_model_learns_to_write_its_answers_and_to_end_them(written_job):
    folder = written_job("job", {"steps": 60})
    losses = run(folder)["losses"]
    assert losses[0] == pytest.approx(np.log(15), abs=1)  # a token's loss, with 15 words to choose from
    assert losses[-1] < 0.05
    loaded = load.load_folder(folder / "model")
    found = {}
    for part in decode([loaded], [plain(example) for example in EXAMPLES], [1.0], max_new_tokens=8):
        found |= {one.prompt: (one.text, one.ended) for one in part}
    assert found == {at: (text, True) for at, text in enumerate(ANSWERS)}


def test_the_loss_of_a_step_is_that_of_its_tokens_over_the_mean_length_of_an_answer(written_job, bases):
    loaded = tiny.read(bases / "words")
    encoded = batches.encode(loaded, EXAMPLES)
    logp = score.scores(loaded, batches.collate(loaded, encoded)).sum().item()
    wanted = -logp / sum(len(one.rows[0].token_P) for one in encoded)
    assert run(written_job("job", {"steps": 1}))["losses"][0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("weighting", ["loss", "resample"])
@pytest.mark.parametrize("tokenizer", ["words", "pieces"])
def test_token_weights_of_any_row_order_and_tokenizer_train(written_job, bases, weighting, tokenizer):
    records = {"tokens.npz": weights_of(bases, tokenizer)}
    history = run(written_job("job", {"steps": 30}, records=records, tokens="tokens.npz", weighting=weighting))
    assert np.mean(history["losses"][-5:]) < 0.6 * history["losses"][0]


def test_token_weights_that_are_all_alike_are_no_weights(written_job, bases):
    places = tokens.layout(tiny.read(bases / "words"), EXAMPLES)
    weighed = run(written_job("weighed", records={"tokens.npz": places}, tokens="tokens.npz"))
    assert weighed["losses"] == pytest.approx(run(written_job("plain"))["losses"], abs=1e-5)


def test_a_row_without_weight_is_not_trained_on(written_job, bases):
    weights = weights_of(bases)
    none_T = np.repeat(np.isin(weights.ids, ["q2", "q5"]), weights.length_N)
    weights = dataclasses.replace(weights, weight_T=np.where(none_T, 0, weights.weight_T))
    folder = written_job("job", records={"tokens.npz": weights}, tokens="tokens.npz", weighting="resample")
    assert run(folder)["rows"] == 6


@pytest.mark.parametrize("kind", ["tokens", "soft"])
@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches_change_nothing_but_rounding(written_job, bases, kind, micro_batch):
    records = {"tokens.npz": weights_of(bases), "soft.npz": hard_as_soft(bases)}
    options = {"records": records, "tokens": "tokens.npz", "soft": "soft.npz" if kind == "soft" else None}
    whole = run(written_job("whole", **options))
    cut = run(written_job("cut", **options, runtime={"micro_batch": micro_batch}))
    assert cut["losses"][0] == pytest.approx(whole["losses"][0], rel=1e-6)
    assert cut["losses"] == pytest.approx(whole["losses"], abs=1e-3)


def test_soft_targets_that_are_sure_train_as_the_texts_do(written_job, bases):
    options = {"train": {"holdout_share": 0.25, "eval_every": 2}}
    hard = run(written_job("hard", **options))
    soft = run(written_job("soft", **options, records={"soft.npz": hard_as_soft(bases)}, soft="soft.npz"))
    assert soft["losses"] == pytest.approx(hard["losses"], abs=1e-4)
    assert [loss for _, loss in soft["looks"]] == pytest.approx([loss for _, loss in hard["looks"]], abs=1e-4)


def test_looks_at_held_out_rows_leave_the_token_weights_out(written_job, bases):
    options = {"train": {"steps": 1, "holdout_share": 0.25, "eval_every": 1, "lr": 1e-12}}
    plain_looks = run(written_job("plain", **options))["looks"]
    weighed = run(written_job("weighed", **options, records={"tokens.npz": weights_of(bases)}, tokens="tokens.npz"))
    assert weighed["looks"][0][1] == pytest.approx(plain_looks[0][1], rel=1e-5)


def test_soft_targets_of_another_tokenizer_are_one_clear_line(written_job, bases):
    folder = written_job("job", records={"soft.npz": hard_as_soft(bases, "pieces")}, soft="soft.npz")
    with pytest.raises(BadInput, match=r"^label\.made: distribution needs a student with the learners' tokenizer; "):
        run(folder)


class Killed(Exception):
    pass


def test_a_resumed_fit_with_token_weights_is_the_uninterrupted_one_bit_for_bit(written_job, bases, monkeypatch):
    options = {
        "train": {"steps": 9, "batch": 4},
        "records": {"tokens.npz": weights_of(bases), "soft.npz": hard_as_soft(bases)},
        "tokens": "tokens.npz",
        "soft": "soft.npz",
        "weighting": "resample",
        "runtime": {"checkpoint_every": 4},
    }
    whole, cut = written_job("whole", **options), written_job("cut", **options)
    history = run(whole)
    calls, objective_of = iter(range(100)), finetune.make_objective

    def dying(*data):
        objective = objective_of(*data)

        def once(*asked):
            if next(calls) == 6:
                raise Killed
            return objective(*asked)

        return once

    monkeypatch.setattr(finetune, "make_objective", dying)
    with pytest.raises(Killed):
        run(cut)
    assert (cut / "checkpoint").exists()
    again = run(cut)
    assert next(calls) == 7 + 5  # it went on from step 4
    assert again["losses"] == history["losses"]
    assert (cut / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()


def test_an_adapter_is_saved_beside_the_model_that_has_it_merged(written_job, bases):
    folder = written_job("job", {"steps": 20}, {"trainable": "lora", "lora_rank": 2})
    run(folder)
    merged, base = load.load_folder(folder / "model"), tiny.read(bases / "words")
    adapter = load.read_adapter(folder / "model")
    before = dict(base.module.named_parameters())
    moved = [name for name, weight in merged.module.named_parameters() if torch.dist(weight, before[name]) > 1e-3]
    assert {name.removesuffix(".weight") for name in moved} == set(adapter)
    for name, (down_IR, up_RO) in adapter.items():
        delta_IO = merged.module.get_submodule(name).weight - base.module.get_submodule(name).weight
        torch.testing.assert_close(down_IR @ up_RO, delta_IO, atol=1e-5, rtol=1e-4)


def test_a_model_that_is_trained_whole_has_no_adapter(written_job):
    folder = written_job("job", {"steps": 1})
    run(folder)
    assert not (folder / "model/adapter.safetensors").exists()


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ({"kind": "pair"}, {}, "model.kind: 'pair' given for written answers; allowed: lm"),
        ({"kind": "sklearn", "pipeline": {"name": "tfidf"}}, {}, "model.kind: 'sklearn' given for written answers"),
        ({}, {"loss": {"name": "product"}}, "train.loss: 'product' compares choices; for written answers"),
    ],
)
def test_what_cannot_write_is_refused_before_a_model_is_read(written_job, model, settings, message):
    with pytest.raises(BadInput) as caught:
        run(written_job("job", settings, model, path="nowhere"))
    assert str(caught.value).startswith(message)


def test_choices_and_written_answers_are_not_trained_on_together(written_job):
    folder = written_job("job")
    rows = read_rows(folder / "../targets.jsonl", Example)
    rows[3] = dataclasses.replace(rows[3], task="choice", choices=("a", "b"))
    write_rows(folder / "../targets.jsonl", rows)
    with pytest.raises(BadInput, match="choice questions and written answers are mixed"):
        run(folder)


def test_several_candidate_texts_are_weighed_by_their_targets(written_job):
    folder = written_job("job", {"steps": 100, "lr": 5e-3})
    rows = [dataclasses.replace(one, choices=(one.choices[0], "w0 w0")) for one in EXAMPLES]
    write_rows(folder / "../targets.jsonl", rows)
    labels = read_arrays(folder / "labels.npz", PseudoLabels)
    write_arrays(folder / "labels.npz", dataclasses.replace(labels, target_NK=np.tile([0.7, 0.3], (8, 1))))
    run(folder)
    loaded = load.load_folder(folder / "model")
    scores_BK = score.scores(loaded, batches.collate(loaded, batches.encode(loaded, rows))).detach().exp()
    assert scores_BK[:, 0].mean().item() == pytest.approx(0.7, abs=0.1)
    assert scores_BK[:, 1].mean().item() == pytest.approx(0.3, abs=0.1)


def test_rows_are_still_drawn_by_order_where_there_are_no_token_weights(written_job):
    order = Weights(IDS, np.array([1.0, 0, 0, 0, 1, 0, 0, 0]) / 2)
    assert run(written_job("job", records={"order.npz": order}, order="order.npz"))["rows"] == 2
