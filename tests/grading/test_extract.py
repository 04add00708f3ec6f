"""The program in what models write."""

import ast
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.data.programs import PROGRAMS
from w2s.grading.extract import extract_program
from w2s.store.records import Example

PROMPT = "from typing import List\n\n\ndef half(x):\n    return x / 2\n\n\ndef total(numbers: List[int]) -> int:\n"
PROMPT += '    """The sum of the numbers.\n    >>> total([1, 2])\n    3\n    """\n'
HEAD = Example("id", "made", "code", PROMPT, meta={"entry_point": "total"})
QUESTION = Example(
    "id", "made", "code", '"""\nWrite total.\nassert total([1]) == 1\n"""\n', meta={"entry_point": "total"}
)
RIGHT = "def total(numbers):\n    return sum(numbers)"
WRONG = "def total(numbers):\n    return 0"
BLOCK, DRAFT = f"```python\n{RIGHT}\n```", f"```python\n{WRONG}\n```"


def indented(text, by):
    return "".join(by + line for line in text.splitlines(keepends=True))


pytestmark = pytest.mark.filterwarnings("ignore:invalid escape sequence")
WHOLE = {
    "imports from the future": f"from __future__ import annotations\n\nimport math\n\n\n{RIGHT}",
    "bare": RIGHT,
    "a block": BLOCK,
    "CRLF in a fence": BLOCK.replace("\n", "\r\n"),
    "CR alone": RIGHT.replace("\n", "\r"),
    "a byte order mark": "\ufeff" + RIGHT,
    "a list item": f"1. Here it is:\n\n{indented(BLOCK, '   ')}\n2. Done.",
    "a list item with tabs": f"- Here it is:\n\n{indented(BLOCK, chr(9))}",
    "an inner list item": f"1. a\n    - b\n{indented(BLOCK, ' ' * 8)}",
    "a fence behind its item": f"1. {indented(BLOCK, '   ').lstrip()}",
    "a language of another name": BLOCK.replace("python", "py3"),
    "a fence without a language": BLOCK.replace("python", ""),
    "a fence with a title": BLOCK.replace("python", 'python title="a.py" {1,2}'),
    "a fence with a file": BLOCK.replace("python", "python:src/a.py"),
    "a fence in braces": BLOCK.replace("python", "{.python .numberLines}"),
    "tildes": BLOCK.replace("```", "~~~"),
    "a longer fence": BLOCK.replace("```", "`````"),
    "an unclosed fence": f"Sure!\n```python\n{RIGHT}",
    "an opening fence behind words": f"Here you go: {BLOCK}",
    "a closing fence behind code": f"```python\n{RIGHT}```",
    "a fence on one line": "```python def total(numbers): return sum(numbers)```",
    "a fence in a fence": f"```markdown\n# Answer\n{BLOCK}\n```",
    "a fence in the docstring": BLOCK.replace(
        "    return", '    """\n    ```\n    total([1])\n    ```\n    """\n    return'
    ),
    "prose around": f"Here's the code (it's short):\n\n{RIGHT}\n\nIt adds all numbers; don't worry.",
    "a heading of one word": f"Solution\n\n{RIGHT}\n\nDone",
    "prose that parses": f"Note: this\n\n{RIGHT}\n\nUser: thanks",
    "an open docstring in prose": f'Its docstring """ is missing.\n\n{RIGHT}',
    "marks of a few-shot prompt": f"[BEGIN]\n{RIGHT}\n[DONE]",
    "a mark behind code": f"{RIGHT}[DONE]",
    "marks of a chat model": f"[PYTHON]\n{RIGHT}\n[/PYTHON]",
    "tags": f"<answer>\n{BLOCK}\n</answer>",
    "tags around code": f"<code>\n{RIGHT}\n</code>",
    "a draft": f"<think>\n{DRAFT}\nNo.\n</think>\n\n{BLOCK}",
    "a draft and bare code": f"<think>easy</think>\n{RIGHT}",
    "a draft whose beginning is the prompt's": f"{WRONG}\nNo.\n</think>\n{RIGHT}",
    "a draft in capitals": f"<THINKING>\n{WRONG}\n</THINKING>\n{RIGHT}",
    "a draft in a channel": f"<|channel|>analysis<|message|>{WRONG}<|end|><|start|>final<|message|>{BLOCK}<|return|>",
    "nothing but a draft": f"<think>\nI take\n{BLOCK}\n",
    "two blocks": f"{DRAFT}\nBetter:\n{BLOCK}",
    "two bare ones": f"First:\n\n{WRONG}\n\nThat is wrong. Instead:\n\n{RIGHT}\n",
    "the last one cut off": f"{BLOCK}\nOr:\n```python\ndef total(numbers):\n    return (sum(",
    "a signature at the end": f"{BLOCK}\nIts head:\n```python\ndef total(numbers: List[int]) -> int:\n```",
    "a use before": f"Use:\n```\ntotal([1])\n```\n{BLOCK}",
    "a use behind": f"{BLOCK}\n```python\nprint(total([1]))\n```\nOutput:\n```\n1\n```",
    "a method of the same name": f"class Adder:\n    def total(self):\n        return 1\n\n\n{RIGHT}",
    "something cut off behind": f"{RIGHT}\n\n\ndef main():\n    print((",
    "a name of its own inside": "def total(numbers):\n\ttotal = 0\n\tfor n in numbers:\n\t\ttotal += n\n\treturn total",
    "the same with two spaces": "def total(numbers):\n  total = sum(numbers)\n  return total",
    "the same in a list item": "1. a\n   ```\ndef total(numbers):\n  total = sum(numbers)\n  return total\n   ```",
    "a lambda": "total = lambda numbers: sum(numbers)",
    "an annotated name": "total: object = lambda numbers: sum(numbers)",
    "imports and helpers under prose": "I use math!\n\nimport functools\n\n\ndef plus(a, b):\n    return a + b\n\n\n"
    "def total(numbers):\n    return functools.reduce(plus, numbers, 0)\n\nEnjoy it!",
    "a helper in another block": "```python\ndef plus(n):\n    return sum(n)\n```\n"
    "```python\ndef total(n):\n    return plus(n)\n```",
    "a helper behind": "```python\ndef total(n):\n    return plus(n)\n```\n"
    "```python\ndef plus(n):\n    return sum(n)\n```",
    "imports in another block": "```python\nimport functools as t\n```\n```python\n"
    "def total(n):\n    return t.reduce(lambda a, b: a + b, n, 0)\n```",
}
TOKENS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|EOT|>", "</s>", "<eos>", "<end_of_turn>\n", "<pad><pad>")
WHOLE |= {f"the token {token}": f"{RIGHT}{token}" for token in TOKENS}
WHOLE["a token and another turn"] = f"{RIGHT}<|im_end|>\n<|im_start|>user\nthanks"
WHOLE["a token of full width"] = f"{RIGHT}<\uff5cend\u2581of\u2581sentence\uff5c>"
BODIES = {
    "one line": "    return sum(numbers)",
    "one line without indent": "return sum(numbers)",
    "lines without indent": "t = 0\nfor n in numbers:\n    t += n\nreturn t",
    "a first line without indent": "t = 0\n    for n in numbers:\n        t += n\n    return t",
    "an empty line before": "\n    return sum(numbers)\n",
    "one line, then talk": "    return sum(numbers)\nThis adds the numbers.",
    "one line, then a word": "    return sum(numbers)\n\nDone",
    "one line, then a heading": "    return sum(numbers)\n\n## Why\nIt is a sum.",
    "one line, then a fence": "    return sum(numbers)\n```",
    "one line, then a fenced use": "    return sum(numbers)\n```\n\n```python\nprint(total([1]))\n```",
    "one line with a token": "    return sum(numbers)</s></s>",
    "one line with a fence": "    return sum(numbers)```",
    "a name like the function's": "  total = 0\n  for n in numbers:\n    total = total + n\n  return total",
    "the same in a block": "```\n  total = sum(numbers)\n  return total\n```",
    "CRLF": "    t = sum(numbers)\r\n    return t\r\n",
    "a block": "```\n    return sum(numbers)\n```",
    "a block under talk": "The body:\n```python\nreturn sum(numbers)\n```",
    "talk, then a body": "Answer:\n    return sum(numbers)",
    "a draft": "<think>hm</think>\n    return sum(numbers)",
    "another function behind": "    return sum(numbers)\n\n\ndef main():\n    pass",
    "something cut off behind": "    return sum(numbers)\n\n\nif __name__ == '__main__':\n    print(1",
}


def adds(example, text) -> bool:
    space: dict = {}
    exec(extract_program(example, text), space)
    return space["total"]([2, 3]) == 5


@pytest.mark.parametrize("example", [HEAD, QUESTION], ids=["head", "question"])
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_function_is_found_in_what_models_write(name, example):
    assert adds(example, WHOLE[name])


@pytest.mark.parametrize("name", BODIES)
def test_a_body_goes_on_from_the_prompt(name):
    assert adds(HEAD, BODIES[name])


@pytest.mark.parametrize("text", [WRONG, DRAFT, f"{BLOCK}\nNo:\n{DRAFT}", "    return 0\nreturn sum(numbers)"])
def test_a_wrong_program_stays_wrong(text):
    assert not adds(HEAD, text)


def test_the_prompts_imports_and_functions_are_kept():
    text = "```python\ndef total(numbers: List[int]) -> int:\n    return half(2 * sum(numbers))\n```"
    assert adds(HEAD, text)
    whole = "import math\n\n\ndef total(numbers):\n    return math.fsum(numbers)"
    assert extract_program(QUESTION, whole) == whole


@pytest.mark.parametrize("name", PROGRAMS)
def test_reference_programs_come_out_as_they_are(name, shared):
    for example, gold in zip(*PROGRAMS[name](shared / "data"), strict=True):
        found, whole = (ast.dump(ast.parse(code)) for code in (extract_program(example, gold.answer), gold.answer))
        assert found.endswith(whole.removeprefix("Module(body=[")), example.meta["task_id"]


def test_a_question_in_words_does_not_become_part_of_the_program():
    assert "assert" not in extract_program(QUESTION, "def total(n):\n    return sum(n)")


@given(st.text(alphabet="`py\n def():retun 1~<|>[]\t\0", max_size=80))
def test_any_text_gives_some_program(text):
    assert isinstance(extract_program(HEAD, text), str)
    assert isinstance(extract_program(QUESTION, text), str)


@pytest.mark.parametrize("line", ["note; limit = 3", "from __future__ import annotations; limit = 3"])
def test_talk_takes_no_code_of_its_line_with_it(line):
    program = extract_program(HEAD, f"{line}\ndef total(numbers):\n    return sum(numbers[:limit])\n")
    assert "limit = 3" in program


LONG = {
    "a fence and spaces": "```" + " " * 90000,
    "fences and spaces": ("``` " + " " * 300) * 300,
    "lines of spaces": ("\n" + " " * 2000) * 45,
    "talk": RIGHT + "\n" + "foo bar baz\n" * 7000,
    "prose": "foo bar baz\n" * 7000 + RIGHT,
    "open blocks": RIGHT + "".join(f"\nif x{n}:" for n in range(7000)),
    "heads": "def total(n)\n" * 7000,
    "broken blocks": "```python\ndef total(n):\n x(\n```\n" * 3000,
    "tokens": "<|eot|>" * 14000,
    "drafts": "</think>" * 12000,
    "brackets": "[" * 90000,
    "names": RIGHT + "\n" + "x\n" * 40000,
    "helpers": "```python\ndef total(n):\n return a\n```\n" + "```python\na=b\n```\n" * 3000,
    "ten megabytes": RIGHT + "\n#" + "x" * 10**7,
}


@pytest.mark.parametrize("name", LONG)
def test_no_text_takes_long(name):
    started = time.process_time()
    extract_program(HEAD, LONG[name])
    assert time.process_time() - started < 20  # each was minutes by the square of its length, or 200 compilations


@pytest.mark.parametrize("text", ["I see.", "", "```\n```", "def total(numbers):\n    return (", "<think>"])
def test_what_has_no_program_does_not_become_one(text):
    with pytest.raises((SyntaxError, AssertionError)):
        assert adds(HEAD, text)
