"""The text a model sees: an example becomes a prompt, and each candidate a continuation of it.

A method of `PROMPTS` takes an Example and returns its prompt, which never ends in a space: a continuation begins with
one, so that tokenizers that glue the space to the following word see the same tokens in training and in scoring. A code
prompt ends where the program continues, usually in a newline: its continuation is the program's text, unchanged.
A method whose continuations are others returns both, as Words.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from w2s.store.records import BadInput, Example, Task

Turn = dict[str, str]
"""One turn of a conversation: its `role` (system, user, assistant) and `content`."""
Wording = Literal["plain", "qa", "listed", "letters"]


class Words(NamedTuple):
    """An example in words."""

    prompt: str | list[Turn]
    """A text, or a conversation for the tokenizer's chat template."""
    answers: tuple[str, ...]
    """What follows the prompt, by candidate."""


class Shot(NamedTuple):
    """A solved example, shown before a question."""

    example: Example
    right: int
    """The right candidate."""


def plain(example: Example) -> str:
    """The question alone."""
    return example.prompt.rstrip(" ")


def qa(example: Example, *, question: str = "Question:", answer: str = "Answer:") -> str:
    """`Question: ...` and, on the next line, `Answer:`; for code the answer begins on a line of its own."""
    return f"{begin(example, question)}\n{answer}".rstrip(" ") + ("\n" if example.task == "code" else "")


def listed(example: Example, *, question: str = "Question:", answer: str = "Answer:") -> str:
    """Like qa, with the choices listed in between; the answer is still the text of a choice, not a letter.

    The candidates of a written answer are not part of its question and are not listed.
    """
    if example.task != "choice":
        return qa(example, question=question, answer=answer)
    choices = "".join(f"\n- {choice}" for choice in example.choices)
    return f"{begin(example, question)}{choices}\n{answer}".rstrip(" ")


def letters(example: Example, *, question: str = "Question:", answer: str = "Answer:") -> str | Words:
    """Like listed, with the choices lettered `A. ...`, `B. ...`; the answer is the letter alone, as in MMLU.

    BadInput for more than 26 choices.
    """
    if example.task != "choice":
        return qa(example, question=question, answer=answer)
    if len(example.choices) > len(string.ascii_uppercase):
        raise BadInput(f"prompt: 'letters' given, and {example.id} has {len(example.choices)} choices; allowed: 26")
    marks = string.ascii_uppercase[: len(example.choices)]
    choices = "".join(f"\n{mark}. {choice}" for mark, choice in zip(marks, example.choices, strict=True))
    return Words(f"{begin(example, question)}{choices}\n{answer}".rstrip(" "), tuple(f" {mark}" for mark in marks))


def chat(
    example: Example,
    *,
    system: str | None = None,
    wording: Wording = "plain",
    question: str = "Question:",
    answer: str = "Answer:",
    variables: dict | None = None,
) -> Words:
    """The question as the user's turn, in the tokenizer's own chat template; the answer begins the model's turn.

    wording: how the question is put (the other methods' names); `question` and `answer` are theirs. system: a system
    turn; without one, the template decides. variables: further variables of the template, such as {enable_thinking:
    false}. The model's turn begins without a space, as in lm-eval.
    """
    ask = PROMPTS[wording]
    made = in_words(ask if wording == "plain" else lambda row: ask(row, question=question, answer=answer), example)
    turns = [] if system is None else [{"role": "system", "content": system}]
    answers = made.answers if example.task == "code" else tuple(text.strip() for text in made.answers)
    return Words([*turns, {"role": "user", "content": made.prompt.rstrip()}], answers)


def begin(example: Example, question: str) -> str:
    return f"{question} {example.prompt.strip()}".lstrip(" ")


def continuation(text: str, task: Task = "choice") -> str:
    """What follows the prompt if `text` is the answer."""
    return text if task == "code" else " " + text.strip()


PROMPTS = {"plain": plain, "qa": qa, "listed": listed, "letters": letters, "chat": chat}
SHOW_CHOICES = ("listed", "letters")


def shows_choices(spec: Mapping[str, Any]) -> bool:
    """Whether a prompt, given as {name, options}, holds the choices of its question."""
    return spec["name"] in SHOW_CHOICES or (spec["name"] == "chat" and spec.get("wording") in SHOW_CHOICES)


def in_words(ask: Callable[[Example], str | Words], example: Example, shots: Sequence[Shot] = ()) -> Words:
    """The example in the words of a method, after solved examples of its task.

    As in lm-eval, an empty line follows each of them; in a conversation they are turns of the user and the model.
    """
    made = ask(example)
    if isinstance(made, str):
        made = Words(made, tuple(continuation(text, example.task) for text in example.choices))
    shown = [(in_words(ask, shot.example), shot.right) for shot in shots if shot.example.task == example.task]
    if isinstance(made.prompt, str):
        before = "".join(f"{(shot.prompt + shot.answers[right]).rstrip()}\n\n" for shot, right in shown)
        return made._replace(prompt=before + made.prompt)
    *system, asked = made.prompt
    solved = [
        turn
        for shot, right in shown
        for turn in (shot.prompt[-1], {"role": "assistant", "content": shot.answers[right]})
    ]
    return made._replace(prompt=[*system, *solved, asked])


def show(prompt: str | list[Turn]) -> str:
    """A prompt for people; a conversation without the marks of the chat template, which only the tokenizer knows."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join([*(f"[{turn['role']}] {turn['content']}" for turn in prompt), "[assistant]"])


def as_shot(example: Example, answer: int | str) -> dict[str, Any]:
    """A solved example as plain values, which `read_shots` reads; answer: as in Gold, or a program's continuation."""
    choices = {"choices": list(example.choices)} if example.task == "choice" else {}
    return {"task": example.task, "prompt": example.prompt, **choices, "answer": answer}


def read_shots(values: Sequence[Mapping[str, Any]], key: str = "model.shots") -> list[Shot]:
    """Solved examples from {prompt, answer} or {prompt, choices, answer (an index or the right choice)}.

    `task` is choice where there are choices, else answer, unless it is given. BadInput names key and item.
    """
    shots = []
    for at, value in enumerate(values):
        try:
            if unknown := set(value) - {"task", "prompt", "choices", "answer"}:
                raise BadInput(f"{min(unknown, key=str)!r} given; allowed: task, prompt, choices, answer")
            choices, answer = value.get("choices") or [], value.get("answer")
            if not isinstance(choices, list | tuple):
                raise BadInput(f"choices: {choices!r} given; allowed: a list of texts")
            task = value.get("task") or ("choice" if choices else "answer")
            example = Example(f"shot {at}", "shots", task, value.get("prompt"), tuple(choices))
            if task != "choice":
                if not isinstance(answer, str) or not answer.strip():
                    raise BadInput(f"answer: {answer!r} given; allowed: a text")
                example, answer = replace(example, choices=(answer,)), 0
            elif answer in example.choices:
                answer = example.choices.index(answer)
            elif not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(example.choices):
                raise BadInput(f"answer: {answer!r} given; allowed: a choice, or 0 to {len(example.choices) - 1}")
        except BadInput as error:
            raise BadInput(f"{key}.{at}: {error}") from None
        shots.append(Shot(example, answer))
    return shots
