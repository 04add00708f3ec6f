"""Chat prompts: what the model reads is what transformers' template makes, with BOS once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.models import chats, tiny
from w2s.config.fields import Model
from w2s.models import batches, chat, committee, generate, load, score, tokens, window
from w2s.models.generate import Voice
from w2s.prompts import as_shot
from w2s.store.records import BadInput, Example

QUESTION = Example("a", "t", "choice", "What pulls a falling stone down?", ("gravity", "the moon"))
SHOTS = [as_shot(dataclasses.replace(QUESTION, prompt="Which gas?", choices=("air", "stone")), 0)]
PROMPT = {"name": "chat", "system": "Be brief."}
LONG = "the stone and the moon and the sun " * 30 + "What falls?"


def of_rows(loaded, example) -> list[list[int]]:
    """The tokens of each candidate's text from the beginning, whatever rows they are in."""
    (made,) = batches.encode(loaded, [example])
    if made.rows[0].token_P is None:
        return [row.token_T.tolist() for row in made.rows]
    starts = {row.owner_P[0]: row.token_T[: row.first + 1].tolist() for row in made.rows}
    start = next(iter(starts.values()))
    return [
        start + [t for row in made.rows for t in row.token_P[row.owner_P == at].tolist()] for at in range(made.count)
    ]


@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("kind", ["lm", "pair", "towers"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_a_row_is_the_template_of_transformers_with_bos_once_whoever_writes_it(
    folder_of, architecture, kind, adds, writes
):
    shots = SHOTS if kind == "lm" else 0
    loaded = chats.read(folder_of(architecture), writes=writes, adds=adds, kind=kind, prompt=PROMPT, shots=shots)
    bos = loaded.tokenizer.bos_token_id
    shown = [{"role": "user", "content": "Which gas?"}, {"role": "assistant", "content": "air"}] if shots else []
    turns = [{"role": "system", "content": "Be brief."}, *shown, {"role": "user", "content": QUESTION.prompt}]
    text = loaded.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    text = text.removeprefix("<s>")
    front = [bos] if adds or writes else []
    if kind == "towers":
        (made,) = batches.encode(loaded, [QUESTION])
        assert made.prompt.token_T.tolist() == front + loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        return
    for row, choice in zip(of_rows(loaded, QUESTION), QUESTION.choices, strict=True):
        assert row.count(bos) == len(front)
        assert row == front + loaded.tokenizer(text + choice, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("task", ["answer", "code"])
def test_a_written_answer_ends_as_the_models_turn_does_and_so_does_what_it_writes(folder_of, task):
    loaded = chats.read(folder_of("llama"), prompt=PROMPT)
    text = "    return 1\n" if task == "code" else " the moon"
    example = Example("a", "t", task, "What falls?", (text,))
    (row,) = batches.encode(loaded, [example])[0].rows
    end = loaded.tokenizer.convert_tokens_to_ids("<|end|>")
    assert row.token_P[-1] == end != loaded.tokenizer.eos_token_id
    written = text if task == "code" else text.strip()
    assert loaded.tokenizer.decode(row.token_P[:-1]) == written
    assert {end, loaded.tokenizer.eos_token_id} <= set(generate.end_marks(loaded))
    assert end not in generate.end_marks(dataclasses.replace(loaded, model=Model()))
    place = tokens.layout(loaded, [example])
    spans = [text[a:b] for a, b in zip(place.start_T, place.end_T, strict=True)]
    assert "".join(spans) == written
    assert place.tokenizer != tokens.layout(dataclasses.replace(loaded, model=Model()), [example]).tokenizer


def test_writing_stops_at_the_end_of_the_models_turn(folder_of):
    loaded = chats.read(folder_of("llama"), prompt=PROMPT)
    end = loaded.tokenizer.convert_tokens_to_ids("<|end|>")
    prompts = [row.prompt for row in batches.worded(loaded, [QUESTION])]
    chosen = iter([7, 7, end, 7])

    def choose(logits_LBV, luck_B):
        return torch.full((logits_LBV.shape[1],), next(chosen)), logits_LBV[0].log_softmax(-1)

    rows, _, _ = committee.fitted([Voice(loaded)], prompts, 10)
    with torch.inference_mode():
        (made,) = generate.write([Voice(loaded)], rows, np.zeros((1, 10)), choose)
    assert made.tokens == [7, 7, end]
    text = committee.finish(loaded, 0, 0, made, ())
    assert (text.tokens, text.ended) == ([7, 7], True)
    assert "<|end|>" not in text.text


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (chats.TEMPLATE, "<|end|>"),
        ("{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}", "[SEP]"),
        ("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} {% endfor %}", "[SEP]"),  # no special one
        ("{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' <|end|>' }}{% endfor %}", "<|end|>"),
    ],
)
def test_the_end_of_a_turn_is_its_first_special_token_or_the_tokenizers_end(folder_of, template, end):
    loaded = chats.read(folder_of("llama"), prompt={"name": "chat"}, template=template)
    assert chat.find_end(loaded) == loaded.tokenizer.convert_tokens_to_ids(end)


@pytest.mark.parametrize("shots", [0, SHOTS])
@pytest.mark.parametrize("adds", [False, True])
def test_a_conversation_that_is_cut_keeps_its_head_and_its_end(folder_of, adds, shots):
    loaded = chats.read(folder_of("llama"), adds=adds, prompt=PROMPT, shots=shots)
    loaded = dataclasses.replace(loaded, max_tokens=80)
    head = ("<s>" if adds else "") + "<|system|>\nBe brief.<|end|>\n<|user|>\n"
    for task in ("choice", "answer"):
        example = dataclasses.replace(QUESTION, task=task, prompt=LONG)
        (row,) = batches.encode(loaded, [example])[0].rows
        text = loaded.tokenizer.decode(row.token_T[: row.first + 1])
        assert text.startswith(head)
        assert text.endswith("What falls?<|end|>\n<|assistant|>\n")
        assert "Which gas?" not in text
        assert len(row.token_T[: row.first + 1]) <= 80
        assert loaded.cuts[example.id] == (True, False)


def test_a_written_prompt_is_cut_alike(folder_of, monkeypatch):
    loaded = chats.read(folder_of("llama"), prompt=PROMPT)
    monkeypatch.setattr(loaded.module.config, "max_position_embeddings", 90)
    prompts = [row.prompt for row in batches.worded(loaded, [dataclasses.replace(QUESTION, prompt=LONG)])]
    rows, limits, cuts = committee.fitted([Voice(loaded)], prompts, 30)
    text = loaded.tokenizer.decode(rows[0])
    assert text.startswith("<|system|>\nBe brief.<|end|>\n<|user|>\n")
    assert text.endswith("What falls?<|end|>\n<|assistant|>\n")
    assert (len(rows[0]), limits, cuts) == (60, [30], [True])


def test_a_tokenizer_without_a_template_and_a_template_that_refuses_are_one_line_when_loaded(tmp_path):
    folder = tiny.write("llama", tmp_path / "plain")
    with pytest.raises(BadInput, match=r"^model.prompt: 'chat' given, but the tokenizer of \S+ has no chat template$"):
        load.load(Model(path=str(folder), prompt={"name": "chat"}))
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    loaded = chats.read(folder, template=refusing + chats.TEMPLATE)
    loaded.module.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    load.load(Model(path=str(folder), prompt={"name": "chat"}))
    with pytest.raises(BadInput, match=r"^model.prompt: the chat template of \S+ refuses it: no system here$"):
        load.load(Model(path=str(folder), prompt=PROMPT))


def test_a_template_is_told_one_day_and_its_own_variables(folder_of):
    template = "{{ date_string }}{% if not loud %} quiet{% endif %}" + chats.TEMPLATE
    loaded = chats.read(folder_of("llama"), template=template, prompt={"name": "chat"})
    assert batches.worded(loaded, [QUESTION])[0].prompt.startswith("26 Jul 2024 quiet<|user|>")
    louder = dataclasses.replace(loaded, model=Model(prompt={"name": "chat", "variables": {"loud": True}}))
    assert batches.worded(louder, [QUESTION])[0].prompt.startswith("26 Jul 2024<|user|>")


def test_shots_that_nobody_drew_are_refused(folder_of):
    with pytest.raises(BadInput, match=r"^model.shots: 3 given; allowed here: the examples themselves"):
        batches.encode(tiny.read(folder_of("llama"), shots=3), tiny.examples())


def test_a_head_is_none_of_a_plain_prompts_business(folder_of):
    assert window.lead_of(chats.tokenizer(adds=True), [[1, 2, 3]], [1, 2, 9]) == [2]
    assert chat.find_head(tiny.read(folder_of("llama"))) == []


# --- scores ----------------------------------------------------------------------------------------------------------

DIVISORS = {
    "sum": lambda text, tokens: 1,
    "per_token": lambda text, tokens: len(tokens),
    "per_character": lambda text, tokens: len(text),
    "per_byte": lambda text, tokens: len(text.encode()),
    "unconditional": None,
}
UNICODE = Example("u", "t", "choice", "Which gas?", ("café é", "the moon is far", "x"))


@pytest.mark.parametrize("normalise", DIVISORS)
@pytest.mark.parametrize(
    "prompt", [{"name": "qa"}, {"name": "letters"}, {"name": "chat", "wording": "letters"}], ids=str
)
@pytest.mark.parametrize(("architecture", "shares"), [("llama", True), ("llama", False), ("gemma3_text", True)])
def test_scores_are_those_of_plain_forward_passes(folder_of, architecture, shares, prompt, normalise):
    adds = architecture == "gemma3_text"
    loaded = chats.read(folder_of(architecture), adds=adds, prompt=prompt, normalise=normalise, shots=SHOTS)
    loaded = dataclasses.replace(loaded, shares_prompt=shares)
    examples = [UNICODE, *tiny.examples()]
    scores_BK = score.scores(loaded, batches.collate(loaded, batches.encode(loaded, examples)))
    first = loaded.tokenizer.bos_token_id
    for row, words, example in zip(scores_BK, batches.worded(loaded, examples), examples, strict=True):
        start = loaded.tokenizer(words.prompt)["input_ids"]
        for at, answer in enumerate(words.answers):
            own = loaded.tokenizer(words.prompt + answer)["input_ids"][len(start) :]
            wanted = chats.log_likelihood(loaded.module, start, own)
            if normalise == "unconditional":
                wanted = wanted - chats.log_likelihood(loaded.module, [first], own)
            else:
                wanted = wanted / DIVISORS[normalise](answer.strip(), own)
            assert row[at].item() == pytest.approx(wanted.item(), abs=2e-3, rel=1e-4), (example.prompt, answer)
    assert scores_BK[0, 0].requires_grad


@pytest.mark.parametrize("normalise", ["per_token", "unconditional"])
def test_a_normalised_score_trains_as_it_is_judged(folder_of, normalise):
    loaded = tiny.read(folder_of("llama"), normalise=normalise)
    batch = batches.collate(loaded, batches.encode(loaded, tiny.examples()))
    optimizer, losses = torch.optim.Adam(loaded.module.parameters(), lr=3e-3), []
    for _ in range(12):
        loss = -score.scores(loaded, batch).log_softmax(-1)[:, 0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_written_answers_keep_their_sum(folder_of):
    written = [dataclasses.replace(UNICODE, task="answer")]
    found = []
    for how in ("sum", "per_byte"):
        loaded = tiny.read(folder_of("llama"), normalise=how)
        found.append(score.scores(loaded, batches.collate(loaded, batches.encode(loaded, written))))
    torch.testing.assert_close(*found)
