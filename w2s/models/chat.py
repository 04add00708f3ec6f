"""Conversations as text: the tokenizer's own chat template, always by transformers."""

from collections.abc import Sequence

from w2s.models.folders import first_words
from w2s.models.records import Loaded
from w2s.models.tokenizing import bare, encode_prompts, specials
from w2s.prompts import Turn
from w2s.store.records import BadInput

DAY = {"date_string": "26 Jul 2024"}
"""What Llama 3's templates, which write the day, are told (their own fallback): a run resumed tomorrow reads the same.
Templates that ask the clock themselves cannot be told."""
MARK = "QUESTION"


def is_chat(loaded: Loaded) -> bool:
    return loaded.model.prompt["name"] == "chat"


def render(loaded: Loaded, turns: Sequence[Turn], *, goes_on: bool = True) -> str:
    """The conversation as one text; `goes_on`: up to where the model's next turn begins."""
    variables = loaded.model.prompt.get("variables") or {}
    return loaded.tokenizer.apply_chat_template(
        list(turns), tokenize=False, add_generation_prompt=goes_on, **{**DAY, **variables}
    )


def check(loaded: Loaded, source: str) -> None:
    """BadInput if its prompt is a chat and the tokenizer has no template, or one that refuses our turns."""
    if not is_chat(loaded):
        return
    if not getattr(loaded.tokenizer, "chat_template", None):
        raise BadInput(f"model.prompt: 'chat' given, but the tokenizer of {source} has no chat template")
    try:
        render(loaded, [*opening(loaded), {"role": "assistant", "content": MARK}, {"role": "user", "content": MARK}])
    except Exception as error:  # templates are programs of their own and raise anything
        raise BadInput(f"model.prompt: the chat template of {source} refuses it: {first_words(error)}") from None


def opening(loaded: Loaded) -> list[Turn]:
    """How every conversation begins; its first question is MARK."""
    system = loaded.model.prompt.get("system")
    return [*([] if system is None else [{"role": "system", "content": system}]), {"role": "user", "content": MARK}]


def find_head(loaded: Loaded) -> list[int]:
    """The tokens before the first question of a conversation; none for other prompts."""
    if not is_chat(loaded):
        return []
    before, mark, _ = render(loaded, opening(loaded)).rpartition(MARK)
    return encode_prompts(loaded, [before])[0] if mark and before else []


def find_end(loaded: Loaded) -> int | None:
    """The token that ends a written answer: in a chat the first special one after the model's turn, if there is one.

    Else the tokenizer's end token; None if it has none.
    """
    end = loaded.tokenizer.eos_token_id
    if not is_chat(loaded):
        return end
    whole = render(loaded, [*opening(loaded), {"role": "assistant", "content": MARK * 2}], goes_on=False)
    after = bare(loaded.tokenizer, [whole.rpartition(MARK)[2]])[0]
    return next((token for token in after if token in specials(loaded.tokenizer)), end)
