"""The words a model sees: an example becomes a prompt, and each candidate a continuation of it.

A method of `PROMPTS` takes an Example and returns its prompt, which never ends in a space: a continuation begins with
one, so that tokenizers that glue the space to the following word see the same tokens in training and in scoring.
"""

from __future__ import annotations

from w2s.records import Example


def plain(example: Example) -> str:
    """The question as it is, nothing around it."""
    return example.prompt.rstrip(" ")


def qa(example: Example, *, question: str = "Question:", answer: str = "Answer:") -> str:
    """`Question: ...` and, on the next line, `Answer:`."""
    return f"{question} {example.prompt.strip()}\n{answer}".rstrip(" ")


def listed(example: Example, *, question: str = "Question:", answer: str = "Answer:") -> str:
    """Like qa, with the choices listed in between; the answer is still the text of a choice, not a letter."""
    choices = "".join(f"\n- {choice}" for choice in example.choices)
    return f"{question} {example.prompt.strip()}{choices}\n{answer}".rstrip(" ")


def continuation(text: str) -> str:
    """What follows the prompt if `text` is the answer."""
    return " " + text.strip()


PROMPTS = {"plain": plain, "qa": qa, "listed": listed}
