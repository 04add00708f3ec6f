"""Code tasks: HumanEval, HumanEval+, MBPP and MBPP+ from local files or the hub.

`Gold.answer` is the reference program, whole. `Gold.tests` is one dict of JSON values (arguments in the coding of
`w2s.sandbox.plain`), of one of three kinds that `w2s.grading.judge` runs:
- check: `test` defines check(candidate); `setup` is the prompt, whose other functions the test may use.
- asserts: `asserts` call the `functions` of the program and use `values` that `setup`, run after the program, makes.
- inputs: the program's results on `base` and `plus` are compared (`compare`, `atol`) with those of the reference.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from w2s.data.reading import rows
from w2s.sandbox.plain import NotPlain, encode
from w2s.store.records import BadInput, Example, Gold, example_id

Loaded = tuple[list[Example], list[Gold]]
warnings.filterwarnings("ignore", module="<program>")  # escapes in the published programs; nobody will mend them
MBPP_SPLITS = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}
# Results that EvalPlus compares as sets: the tasks do not fix an order.
AS_SETS = (
    *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum"),
    *("intersection_array", "find_dissimilar", "Diff"),
)
# Results of which EvalPlus compares only whether there is one (a match object, say).
AS_TRUTH = ("check_str", "text_match_three", "text_starta_endb")


def humaneval(
    root: Path | None, *, split: Literal["test"] = "test", limit: int | None = None, level: float | None = None
) -> Loaded:
    """HumanEval (Chen et al. 2021): 164 functions to complete, with hand-written tests."""
    found = rows(root, "humaneval", ["HumanEval"], ("openai/openai_humaneval", None), split)

    def read(row: dict) -> tuple[str, str, dict, str]:
        prompt, entry = text(row, "prompt"), text(row, "entry_point")
        tests = {"kind": "check", "entry_point": entry, "setup": prompt, "test": text(row, "test")}
        return prompt, prompt + text(row, "canonical_solution"), tests, entry

    return load("humaneval", found, read, split, limit, level)


def humanevalplus(
    root: Path | None,
    *,
    split: Literal["test"] = "test",
    limit: int | None = None,
    level: float | None = None,
    mini: bool = False,
) -> Loaded:
    """HumanEval+ (Liu et al. 2023): HumanEval with many more inputs; `mini` takes the file with fewer of them."""
    names = ["HumanEvalPlus-Mini" if mini else "HumanEvalPlus-NoExtreme", "HumanEvalPlus"]
    found = rows(root, "humanevalplus", names, ("evalplus/humanevalplus", None), split)

    def read(row: dict) -> tuple[str, str, dict, str]:
        prompt, entry = text(row, "prompt"), text(row, "entry_point")
        tests = inputs(row, entry, lambda given, _: given) | ({"compare": "root"} if entry == "find_zero" else {})
        return prompt, prompt + text(row, "canonical_solution"), tests, entry

    return load("humanevalplus", found, read, split, limit, level)


def mbpp(
    root: Path | None,
    *,
    split: Literal["train", "validation", "test", "prompt"] = "test",
    limit: int | None = None,
    level: float | None = None,
    sanitized: bool = False,
) -> Loaded:
    """MBPP (Austin et al. 2021): 974 small functions, three asserts each; `sanitized` takes the 427 checked ones."""
    hub = ("google-research-datasets/mbpp", "sanitized" if sanitized else "full")
    found = rows(root, "mbpp", ["sanitized-mbpp" if sanitized else "mbpp"], hub, split)
    if root is not None:
        low, high = MBPP_SPLITS[split]
        found = ((where, row) for where, row in found if low <= number(row.get("task_id"), where) <= high)

    def read(row: dict) -> tuple[str, str, dict, str]:
        question, code = text(row, "prompt" if "prompt" in row else "text"), clean(text(row, "code"))
        setup = clean(row.get("test_setup_code") or "")
        tests = asserts([clean(one) for one in row["test_list"]], code, setup, list(row.get("test_imports") or []))
        return f'"""\n{question}\n{tests["asserts"][0]}\n"""\n', code, tests, tests["functions"][0]

    return load("mbpp", found, read, split, limit, level)


def mbppplus(
    root: Path | None, *, split: Literal["test"] = "test", limit: int | None = None, level: float | None = None
) -> Loaded:
    """MBPP+ (Liu et al. 2023): 378 checked MBPP tasks with many more inputs."""
    names = ["MbppPlus-NoExtreme", "MbppPlus"]
    found = rows(root, "mbppplus", names, ("evalplus/mbppplus", None), split)

    def read(row: dict) -> tuple[str, str, dict, str]:
        code = text(row, "canonical_solution" if "canonical_solution" in row else "code")
        shown = row.get("assertion") or "\n".join(row.get("test_list") or [])
        entry = row.get("entry_point") or asserts([shown], code, "", [])["functions"][0]
        tests = inputs(row, entry, retyped(called_with(shown, entry)))
        tests["compare"] = "set" if entry in AS_SETS else "truth" if entry in AS_TRUTH else "equal"
        prompt = text(row, "prompt")
        if not prompt.lstrip().startswith('"""'):  # the hub's rows have the bare question
            prompt = f'"""\n{prompt}\n{shown.strip().splitlines()[-1]}\n"""\n'
        return prompt, code, tests, entry

    return load("mbppplus", found, read, split, limit, level)


def load(
    source: str,
    found: Iterator[tuple[str, dict]],
    read: Callable[[dict], tuple],
    split: str,
    limit: int | None,
    level: float | None,
) -> Loaded:
    """Rows -> records of this level; a row that `read` cannot use is a BadInput that names its place."""
    examples, golds = [], []
    for where, row in itertools.islice(found, limit):
        try:
            prompt, answer, tests, entry = read(row)
            meta = {"entry_point": entry, "task_id": str(row["task_id"]), "split": split}
            meta |= {} if level is None else {"level": level}
            name = example_id(source, prompt)
            examples.append(Example(name, source, "code", prompt, meta=meta))
            golds.append(Gold(name, answer, (tests,)))
        except KeyError as error:
            raise BadInput(f"{where}: the column {error} is missing") from None
        except (TypeError, ValueError, IndexError, SyntaxError, AttributeError, NotPlain) as error:
            raise BadInput(f"{where}: {error}") from None
    if not examples:
        raise BadInput(f"{source}: split {split!r} has no rows")
    return examples, golds


def text(row: Mapping[str, Any], column: str) -> str:
    if not isinstance(row[column], str) or not row[column].strip():
        raise ValueError(f"{column}: {row[column]!r} given; allowed: a text that is not empty")
    return row[column]


def number(value: Any, where: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: task_id: {value!r} given; allowed: a whole number") from None


def clean(code: str) -> str:
    return code.replace("\r\n", "\n").replace("\r", "\n")


def asserts(lines: Sequence[str], code: str, setup: str, imports: Sequence[str]) -> dict[str, Any]:
    """The tests of kind asserts; names are told apart by who defines them: the program, the setup, or an import."""
    used = [node for line in lines for node in ast.walk(ast.parse(line, "<program>"))]
    names = list(dict.fromkeys(node.id for node in used if isinstance(node, ast.Name)))
    program = ast.parse(code, "<program>").body
    defined = {node.name for node in program if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    made = {node.id for node in ast.walk(ast.parse(setup)) if isinstance(node, ast.Name | ast.arg)} if setup else set()
    imported = [node for node in program if isinstance(node, ast.Import) and {a.name for a in node.names} & set(names)]
    functions = [name for name in names if name in defined]
    if not functions:
        raise ValueError(f"the asserts call none of the program's functions ({', '.join(sorted(defined)) or 'none'})")
    values = [name for name in names if name in made and name not in defined and not hasattr(builtins, name)]
    found = {"functions": functions, "values": values, "setup": setup, "asserts": list(lines)}
    return {"kind": "asserts", "imports": "\n".join([*imports, *map(ast.unparse, imported)]), **found}


def inputs(row: Mapping[str, Any], entry: str, retype: Callable[[list, str], list]) -> dict[str, Any]:
    """The tests of kind inputs, from the columns base_input and plus_input or from the hub's `test` program."""
    if "base_input" in row:
        parts = {name: [retype(given, name) for given in row[f"{name}_input"] or []] for name in ("base", "plus")}
        atol = row["atol"]
    else:
        given, atol = listed(text(row, "test"))
        parts = {"base": given, "plus": []}
    coded = {name: [[encode(one) for one in arguments] for arguments in calls] for name, calls in parts.items()}
    return {"kind": "inputs", "entry_point": entry, **coded, "atol": float(atol), "compare": "equal"}


def listed(test: str) -> tuple[list, float]:
    """The literal after `inputs =` and the tolerance (last argument of assertion(...)) in a test program of the hub."""
    given, atol = None, 0.0
    for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "inputs":
            given = literal(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "assertion" and len(node.args) == 3:
            atol = float(literal(node.args[2]))
    if given is None:
        raise ValueError("test: it has no list named inputs")
    return given, atol


def literal(node: ast.expr) -> Any:
    """A literal in which the names inf and nan, and arithmetic on numbers, may stand."""
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return getattr(math, node.id)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(literal(one) for one in node.elts)
    if isinstance(node, ast.Dict):
        return {literal(key): literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("set", "float", "complex"):
        return {"set": set, "float": float, "complex": complex}[node.func.id](*map(literal, node.args))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -literal(node.operand)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        left, right = literal(node.left), literal(node.right)
        return {ast.Add: left.__add__, ast.Sub: left.__sub__, ast.Mult: left.__mul__}[type(node.op)](right)
    return ast.literal_eval(node)


def called_with(shown: str, entry: str) -> list[list]:
    """The arguments of each call of `entry` in `shown`, as literals."""
    calls = [node for node in ast.walk(ast.parse(shown)) if isinstance(node, ast.Call)]
    return [[literal(one) for one in call.args] for call in calls if ast.unparse(call.func) == entry]


def retyped(examples: list[list]) -> Callable[[list, str], list]:
    """A function that gives JSON arguments the Python types which they have in the row's asserts.

    JSON knows no tuples, sets or complex numbers; the asserts show, argument by argument and level by level, which
    lists are meant as which, and where a text stands for a number. Deeper than they go,
    lists stay lists, but below tuples of tuples all are tuples.
    """

    def convert(value: Any, seen: list, parent: type = list, unseen: type = list) -> Any:
        if isinstance(value, list):
            kinds = [type(one) for one in seen if isinstance(one, list | tuple | set)]
            kind = max(kinds, key=kinds.count) if kinds else unseen
            if kind is set and not value:  # written {}, which is a dict
                return {}
            below = [one for many in seen if isinstance(many, list | tuple | set) for one in many]
            deeper = tuple if kind is parent is tuple else list
            return kind(convert(one, below, kind, deeper) for one in value)
        if isinstance(value, dict):
            below = [one for many in seen if isinstance(many, dict) for one in many.values()]
            return {key: convert(one, below) for key, one in value.items()}
        return value

    def argument(value: Any, seen: list) -> Any:
        if isinstance(value, str) and seen and all(isinstance(one, int | float | complex) for one in seen):
            with contextlib.suppress(ValueError):
                return complex(value) if "j" in value else float(value)
        return convert(value, seen)

    def retype(given: list, _: str) -> list:
        return [argument(one, [e[at] for e in examples if at < len(e)]) for at, one in enumerate(given)]

    return retype


PROGRAMS = {"humaneval": humaneval, "humanevalplus": humanevalplus, "mbpp": mbpp, "mbppplus": mbppplus}
