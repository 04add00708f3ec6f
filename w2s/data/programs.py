"""Code tasks: HumanEval, HumanEval+, MBPP and MBPP+ from local files or the hub.

`Gold.answer` is the whole reference program. `Gold.tests` is one dict of JSON values (arguments as `w2s.sandbox.plain`
encodes them), of one of three kinds that `w2s.grading.judge` runs:
- check: `test` defines check(candidate); `setup` is the prompt, whose other functions the test may use.
- asserts: `asserts` call the `functions` of the program and use `values` that `setup`, run after the program, defines.
- inputs: the program's results on `base` and `plus` are compared (`compare`, `atol`) with those of the reference.
"""

import ast
import builtins
import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from w2s.data.questions import Level, Limit, Questions
from w2s.data.reading import Row, fit_rows, rows
from w2s.sandbox.plain import encode
from w2s.store.problems import Problems
from w2s.store.records import BadInput, Example, Gold, example_id

warnings.filterwarnings("ignore", module="<program>")  # invalid escapes in published programs
Test = Literal["test"]
MbppSplit = Literal["train", "validation", "test", "prompt"]
MBPP_SPLITS = {"prompt": (1, 10), "test": (11, 510), "validation": (511, 600), "train": (601, 974)}
# Functions whose results EvalPlus compares as sets, since the tasks fix no order.
AS_SETS = (
    *("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum"),
    *("intersection_array", "find_dissimilar", "Diff"),
)
# Functions for which EvalPlus compares only whether there is a result (a match object, say).
AS_TRUTH = ("check_str", "text_match_three", "text_starta_endb")


def humaneval(root: Path | None, *, split: Test = "test", limit: Limit = None, level: Level = None) -> Questions:
    """HumanEval (Chen et al. 2021): 164 functions to complete, with hand-written tests."""
    published = rows(root, "humaneval", ["HumanEval"], ("openai/openai_humaneval", None), split)

    def read(row: dict) -> tuple[str, str, dict, str]:
        prompt, entry = text(row, "prompt"), text(row, "entry_point")
        tests = {"kind": "check", "entry_point": entry, "setup": prompt, "test": text(row, "test")}
        return prompt, prompt + text(row, "canonical_solution"), tests, entry

    return load("humaneval", published, read, split, limit, level)


def humanevalplus(
    root: Path | None, *, split: Test = "test", limit: Limit = None, level: Level = None, mini: bool = False
) -> Questions:
    """HumanEval+ (Liu et al. 2023): HumanEval with many more inputs; `mini` takes the file with fewer of them."""
    names = ["HumanEvalPlus-Mini" if mini else "HumanEvalPlus-NoExtreme", "HumanEvalPlus"]
    published = rows(root, "humanevalplus", names, ("evalplus/humanevalplus", None), split)

    def read(row: dict) -> tuple[str, str, dict, str]:
        prompt, entry = text(row, "prompt"), text(row, "entry_point")
        tests = inputs_tests(row, entry, list) | ({"compare": "root"} if entry == "find_zero" else {})
        return prompt, prompt + text(row, "canonical_solution"), tests, entry

    return load("humanevalplus", published, read, split, limit, level)


def mbpp(
    root: Path | None, *, split: MbppSplit = "test", limit: Limit = None, level: Level = None, sanitized: bool = False
) -> Questions:
    """MBPP (Austin et al. 2021): 974 small functions, three asserts each; `sanitized` takes the 427 checked ones."""
    hub = ("google-research-datasets/mbpp", "sanitized" if sanitized else "full")
    published = rows(root, "mbpp", ["sanitized-mbpp" if sanitized else "mbpp"], hub, split)
    if root is not None:
        low, high = MBPP_SPLITS[split]
        published = ((where, row) for where, row in published if low <= number(row.get("task_id"), where) <= high)

    def read(row: dict) -> tuple[str, str, dict, str]:
        question, code = text(row, "prompt" if "prompt" in row else "text"), clean(text(row, "code"))
        setup = clean(row.get("test_setup_code") or "")
        imports = list(row.get("test_imports") or [])
        tests = asserts_tests([clean(line) for line in row["test_list"]], code, setup, imports)
        return f'"""\n{question}\n{tests["asserts"][0]}\n"""\n', code, tests, tests["functions"][0]

    return load("mbpp", published, read, split, limit, level)


def mbppplus(root: Path | None, *, split: Test = "test", limit: Limit = None, level: Level = None) -> Questions:
    """MBPP+ (Liu et al. 2023): 378 checked MBPP tasks with many more inputs."""
    names = ["MbppPlus-NoExtreme", "MbppPlus"]
    published = rows(root, "mbppplus", names, ("evalplus/mbppplus", None), split)

    def read(row: dict) -> tuple[str, str, dict, str]:
        code = text(row, "canonical_solution" if "canonical_solution" in row else "code")
        shown = row.get("assertion") or "\n".join(row.get("test_list") or [])
        entry = row.get("entry_point") or asserts_tests([shown], code, "", [])["functions"][0]
        tests = inputs_tests(row, entry, make_retype(called_with(shown, entry)))
        tests["compare"] = "set" if entry in AS_SETS else "truth" if entry in AS_TRUTH else "equal"
        prompt = text(row, "prompt")
        if not prompt.lstrip().startswith('"""'):  # the hub's rows have the bare question
            prompt = f'"""\n{prompt}\n{shown.strip().splitlines()[-1]}\n"""\n'
        return prompt, code, tests, entry

    return load("mbppplus", published, read, split, limit, level)


def load(
    source: str, published: Iterator[Row], read: Callable[[dict], tuple], split: str, limit: Limit, level: Level
) -> Questions:
    """The first `limit` rows as records; read: row -> prompt, reference program, tests, name of the function."""

    def make(where: str, row: dict) -> tuple[Example, Gold]:
        prompt, answer, tests, entry = read(row)
        meta = {"entry_point": entry, "task_id": str(row["task_id"]), "split": split}
        meta |= {} if level is None else {"level": level}
        key = example_id(source, prompt)
        return Example(key, source, "code", prompt, meta=meta), Gold(key, answer, (tests,))

    problems = Problems()
    pairs = list(fit_rows(itertools.islice(published, limit), make, problems))
    problems.tell()
    if not pairs:
        raise BadInput(f"{source}: split {split!r} has no rows")
    return [example for example, _ in pairs], [gold for _, gold in pairs]


def text(row: Mapping[str, Any], column: str) -> str:
    if not isinstance(row[column], str) or not row[column].strip():
        raise ValueError(f"{column}: {row[column]!r} given; allowed: a non-empty text")
    return row[column]


def number(value: Any, where: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise BadInput(f"{where}: task_id: {value!r} given; allowed: a whole number") from None


def clean(code: str) -> str:
    return code.replace("\r\n", "\n").replace("\r", "\n")


def asserts_tests(lines: Sequence[str], code: str, setup: str, imports: Sequence[str]) -> dict[str, Any]:
    """The tests of kind asserts; names are sorted by what defines them: the program, the setup, or an import."""
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
    tests = {"kind": "asserts", "imports": "\n".join([*imports, *map(ast.unparse, imported)]), "functions": functions}
    return tests | {"values": values, "setup": setup, "asserts": list(lines)}


def inputs_tests(row: Mapping[str, Any], entry: str, retype: Callable[[list], list]) -> dict[str, Any]:
    """The tests of kind inputs, from the columns base_input and plus_input or from the hub's `test` program."""
    if "base_input" in row:
        parts = {name: [retype(call) for call in row[f"{name}_input"] or []] for name in ("base", "plus")}
        atol = row["atol"]
    else:
        inputs, atol = read_inputs(text(row, "test"))
        parts = {"base": inputs, "plus": []}
    coded = {name: [[encode(value) for value in call] for call in calls] for name, calls in parts.items()}
    return {"kind": "inputs", "entry_point": entry, **coded, "atol": float(atol), "compare": "equal"}


def read_inputs(test: str) -> tuple[list, float]:
    """The literal after `inputs =` and the tolerance (last argument of assertion(...)) in one of the hub's tests."""
    inputs, atol = None, 0.0
    for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "inputs":
            inputs = literal(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "assertion" and len(node.args) == 3:
            atol = float(literal(node.args[2]))
    if inputs is None:
        raise ValueError("test: it has no list named inputs")
    return inputs, atol


def literal(node: ast.expr) -> Any:
    """A literal, which may contain the names inf and nan, and arithmetic on numbers."""
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


def make_retype(examples: list[list]) -> Callable[[list], list]:
    """A function that gives JSON arguments the Python types that they have in the row's asserts.

    JSON has no tuples, sets or complex numbers; the asserts show, argument by argument and level by level, which type a
    list stands for, and where a text stands for a number. Below the levels they show, lists stay lists, except that
    everything below tuples of tuples is a tuple.
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

    def retype(given: list) -> list:
        return [argument(one, [e[at] for e in examples if at < len(e)]) for at, one in enumerate(given)]

    return retype


PROGRAMS = {source.__name__: source for source in (humaneval, humanevalplus, mbpp, mbppplus)}
