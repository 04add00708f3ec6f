"""Objectives: their options, and TRL's trainers against our own log-likelihoods, tokens and positions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import logsigmoid

from tests.models import tiny
from tests.models.voices import moved
from w2s.config.fields import Learner, Model, Runtime, Train, Writing
from w2s.config.registry import pick
from w2s.models import batches, objectives, score, tokenizing, trl
from w2s.models.objectives import OBJECTIVES
from w2s.models.train import World
from w2s.store.records import BadInput, Example, example_id

BEST = [0, 1, 0]
ARCHITECTURES = ["gpt2", "llama", "bloom"]


def questions(task: str = "answer") -> list[Example]:
    return [Example(example_id(task, q, c[:2]), "t", task, q, c[:2]) for q, c in tiny.QUESTIONS]


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bases")
    for architecture in ARCHITECTURES:
        tiny.write(architecture, folder / architecture)
    return folder


def trainer_of(objective, loaded, data, folder, train=None, **more):
    train = Train(**{"steps": 2, "batch": 4, **(train or {})})
    return trl.make_trainer(objective, loaded, data, train, Runtime(), World(), folder / "trl", 0, **more)


def log_likelihoods(loaded, examples) -> torch.Tensor:
    with torch.no_grad():
        return score.scores(loaded, batches.collate(loaded, batches.encode(loaded, examples))).double()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("answer", {}),
        ("choice", {"beta": 0.3}),
        ("code", {"label_smoothing": 0.2}),
        ("answer", {"beta": 0.5, "label_smoothing": 0.45}),
        ("answer", {"loss": "robust", "label_smoothing": 0.1}),
    ],
)
def test_the_loss_of_dpo_is_that_of_our_own_log_likelihoods(bases, tmp_path, architecture, task, options):
    examples, reference = questions(task), tiny.read(bases / architecture)
    loaded = moved(tiny.read(bases / architecture), 1, 0.02)
    margin_N2 = log_likelihoods(loaded, examples) - log_likelihoods(reference, examples)
    best_N = torch.tensor(BEST)
    margin_N = (margin_N2.gather(1, best_N[:, None]) - margin_N2.gather(1, 1 - best_N[:, None]))[:, 0]
    beta, smoothing = options.get("beta", 0.1), options.get("label_smoothing", 0.0)
    kept_N, turned_N = -logsigmoid(beta * margin_N), -logsigmoid(-beta * margin_N)
    wanted_N = (1 - smoothing) * kept_N + smoothing * turned_N
    if options.get("loss") == "robust":
        wanted_N = ((1 - smoothing) * kept_N - smoothing * turned_N) / (1 - 2 * smoothing)
    assert margin_N.abs().min() > 1e-3  # else any beta would do
    tokens = trl.pair_tokens(loaded, examples, BEST)
    trainer = trainer_of(objectives.dpo(**options), loaded, tokens, tmp_path)
    for rows, wanted in (([0], wanted_N[0]), ([2, 1, 0], wanted_N.mean())):
        batch = trainer.data_collator([{"row": row} for row in rows])
        found = trainer.compute_loss(trainer.model, batch).item()
        assert found == pytest.approx(wanted.item(), abs=1e-5)


@pytest.mark.parametrize("task", ["answer", "choice", "code"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pairs_are_the_tokens_that_are_scored(bases, architecture, task):
    loaded, examples = tiny.read(bases / architecture), questions(task)
    prompts = tokenizing.encode_prompts(loaded, [one.prompt for one in examples])
    for at, made in enumerate(trl.pair_tokens(loaded, examples, BEST)):
        texts = [made["chosen_ids"], made["rejected_ids"]]
        assert made["prompt_ids"] == prompts[at]
        for text, wanted in zip(texts, (BEST[at], 1 - BEST[at]), strict=True):
            rows = batches.encode(loaded, [examples[at]])[0].rows  # one, or one for each candidate
            assert [text] == [r.token_P[r.owner_P == wanted].tolist() for r in rows if wanted in r.owner_P]
            ended = text[-1] == loaded.tokenizer.eos_token_id
            assert ended == (task != "choice")
            said = loaded.tokenizer.decode(text[:-1] if ended else text)
            assert said.strip() == examples[at].choices[wanted]


def test_a_pair_fits_the_model_whatever_its_length(bases):
    loaded = tiny.read(bases / "gpt2", max_tokens=12)
    (made,) = trl.pair_tokens(loaded, questions()[2:], [0])
    lengths = [len(made["prompt_ids"]) + len(made[key]) for key in ("chosen_ids", "rejected_ids")]
    assert max(lengths) == 12
    (made,) = trl.pair_tokens(tiny.read(bases / "gpt2", max_tokens=3), questions()[2:], [0])
    assert [len(one) for one in made.values()] == [1, 2, 2]


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_prompts_are_our_tokens_and_texts_end_where_a_stop_text_does(bases, tmp_path, name):
    loaded, examples, heard = tiny.read(bases / "gpt2"), questions(), []

    def judge(step, ids, texts):
        heard.extend(zip([step] * len(ids), ids, texts, strict=True))
        return [float(len(text)) for text in texts]

    trainer = trainer_of(
        OBJECTIVES[name](generations=2), loaded, examples, tmp_path, judge=judge, writing=Writing(12, ["e", "o"])
    )
    write, written = trainer._generate_single_turn, []
    trainer._generate_single_turn = lambda ids, *rest: written.append((ids, write(ids, *rest))) or written[-1][1]
    trainer.train()
    tokens = dict(
        zip([e.id for e in examples], tokenizing.encode_prompts(loaded, [e.prompt for e in examples]), strict=True)
    )
    rows = [row for ids, made in written for row in zip(ids, made[0] if isinstance(made, tuple) else made, strict=True)]
    assert [step for step, *_ in heard] == [0] * 4 + [1] * 4
    assert [prompt for prompt, _ in rows] == [tokens[key] for _, key, _ in heard]
    for (_, text), (_, _, told) in zip(rows, heard, strict=True):
        whole = loaded.tokenizer.decode(text, skip_special_tokens=True)
        assert not {"e", "o"} & set(told)
        assert whole.startswith(told)
        assert not {"e", "o"} & set(loaded.tokenizer.decode(text[:-1]))  # the last token alone may hold a stop text
    assert any(len(text) < 12 for _, text in rows)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_on_the_left_moves_no_log_probability(bases, architecture):
    loaded = tiny.read(bases / architecture)
    rows = tokenizing.encode_prompts(loaded, [one.prompt for one in questions()])
    alone = [loaded.module(input_ids=torch.tensor([row])).logits[0, -1] for row in rows]
    trl.count_positions(loaded.module)
    wide = max(map(len, rows))
    tokens = torch.tensor([[0] * (wide - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (wide - len(row)) + [1] * len(row) for row in rows])
    together = loaded.module(input_ids=tokens, attention_mask=mask).logits[:, -1]
    assert torch.allclose(together, torch.stack(alone), atol=1e-4)


def test_the_reference_is_the_student_as_it_was_read(bases, tmp_path):
    loaded = tiny.read(bases / "llama")
    tokens = trl.pair_tokens(loaded, questions(), BEST)
    trainer = trainer_of(objectives.dpo(), loaded, tokens, tmp_path, {"lr": 1e-2, "steps": 4, "batch": 3})
    history, count, weights = trl.fit(trainer)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert history[-1]["margin"] > history[0]["margin"] == 0
    assert count == 4 * sum(
        2 * len(one["prompt_ids"]) + len(one["chosen_ids"]) + len(one["rejected_ids"]) for one in tokens
    )
    before = dict(tiny.read(bases / "llama").module.named_parameters())
    reference = dict(trainer.ref_model.named_parameters())
    assert all(torch.equal(before[name], reference[name]) for name in before)
    assert set(weights) == set(before)
    assert any(not torch.equal(before[name], weights[name]) for name in before)


def test_only_what_is_trainable_changes(bases, tmp_path):
    loaded = tiny.read(bases / "gpt2", trainable="attention")
    tokens = trl.pair_tokens(loaded, questions(), BEST)
    *_, weights = trl.fit(trainer_of(objectives.dpo(), loaded, tokens, tmp_path, {"lr": 1e-2}))
    assert weights
    assert all("attn" in name or "wpe" in name for name in weights)


def test_nothing_is_told_to_anybody(bases, tmp_path, monkeypatch):
    import trl.trainer.base_trainer as made_by
    from huggingface_hub import constants

    monkeypatch.delenv("CI", raising=False)  # where TRL would say nothing anyway
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    told = []
    monkeypatch.setattr(
        made_by, "send_telemetry", lambda *given, **named: told.append(constants.HF_HUB_DISABLE_TELEMETRY)
    )
    loaded = tiny.read(bases / "llama")
    trainer = trainer_of(objectives.dpo(), loaded, trl.pair_tokens(loaded, questions(), BEST), tmp_path)
    assert trainer.args.report_to == []
    assert told == [True]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"name": "gpro"}, "'gpro' is not known (did you mean 'grpo'?); it can be: sft, dpo, grpo, rloo"),
        (
            {"name": "dpo", "label_smooth": 0.1},
            "'dpo' has no option 'label_smooth'; it takes: beta, label_smoothing, loss",
        ),
        ({"name": "dpo", "loss": "nca"}, "allowed: one of: sigmoid, hinge, ipo, robust"),
        (
            {"name": "dpo", "label_smoothing": 0.5},
            "label_smoothing: 0.5 given; allowed: a number (at least 0, below 0.5)",
        ),
        ({"name": "dpo", "label_smoothing": -0.1}, "label_smoothing: -0.1 given"),
        ({"name": "dpo", "label_smoothing": 0.1, "loss": "ipo"}, "label_smoothing: 0.1 given for loss ipo; allowed: 0"),
        ({"name": "dpo", "beta": 0}, "beta: 0 given; allowed: a number (above 0)"),
        ({"name": "dpo", "lr": 0.0}, "lr: 0.0 given; allowed: a number (above 0) or null"),
        ({"name": "grpo", "beta": -1}, "beta: -1 given; allowed: a number (0 or more)"),
        ({"name": "rloo", "generations": 1}, "generations: 1 given; allowed: a whole number (at least 2"),
        ({"name": "rloo", "temperature": 0}, "temperature: 0 given; allowed: a number (above 0)"),
        ({"name": "grpo", "steps": 0}, "steps: 0 given; allowed: a whole number (above 0) or null"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(spec, words):
    with pytest.raises(BadInput) as error:
        pick(OBJECTIVES, spec, key="student.objective")()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_learner_that_cannot_be_trained_so_is_refused():
    pair, odd = Learner(Model(kind="pair")), Learner(train=Train(batch=30))
    objectives.check(objectives.sft(), pair)
    with pytest.raises(BadInput, match=r"student.model.kind: 'pair' given; allowed with any objective but sft: lm"):
        objectives.check(objectives.dpo(), pair)
    with pytest.raises(BadInput, match=r"student.train.batch: 30 given; allowed: a multiple of .* generations, 4"):
        objectives.check(objectives.grpo(), odd)


def test_the_objective_may_have_steps_and_a_learning_rate_of_its_own():
    train = Train(steps=300, lr=3e-3, batch=16)
    assert objectives.dpo().training(train) == train
    assert objectives.rloo(steps=20, lr=1e-4).training(train) == Train(steps=20, lr=1e-4, batch=16)


def test_too_few_questions_for_one_step_are_refused(bases, tmp_path):
    loaded = tiny.read(bases / "llama")
    with pytest.raises(BadInput, match=r"train.batch: 16 given; allowed: at most 12 \(3 questions, 4 texts each\)"):
        trainer_of(objectives.grpo(), loaded, questions(), tmp_path, {"batch": 16}, judge=lambda *_: [])
