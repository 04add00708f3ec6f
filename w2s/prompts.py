"""The text a model sees: an example becomes a prompt, and each candidate a continuation of it.

A method of `PROMPTS` takes an Example and returns its prompt, which never ends in a space: a continuation begins with
one, so that tokenizers that glue the space to the following word see the same tokens in training and in scoring. A code
prompt ends where the program continues, usually in a newline: its continuation is the program's text, unchanged.
"""

from w2s.store.records import Example, Task


def plain(example: Example) -> str:
    """The question alone."""
    return example.prompt.rstrip(" ")


def qa(example: Example, *, question: str = "Question:", answer: str = "Answer:") -> str:
    """`Question: ...` and, on the next line, `Answer:`; for code the answer begins on a line of its own."""
    return f"{question} {example.prompt.strip()}\n{answer}".rstrip(" ") + ("\n" if example.task == "code" else "")


def listed(example: Example, *, question: str = "Question:", answer: str = "Answer:") -> str:
    """Like qa, with the choices listed in between; the answer is still the text of a choice, not a letter.

    The candidates of a written answer are not part of its question and are not listed.
    """
    if example.task != "choice":
        return qa(example, question=question, answer=answer)
    choices = "".join(f"\n- {choice}" for choice in example.choices)
    return f"{question} {example.prompt.strip()}{choices}\n{answer}".rstrip(" ")


def continuation(text: str, task: Task = "choice") -> str:
    """What follows the prompt if `text` is the answer."""
    return text if task == "code" else " " + text.strip()


PROMPTS = {"plain": plain, "qa": qa, "listed": listed}
