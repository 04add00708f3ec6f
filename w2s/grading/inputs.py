"""The inputs on which programs are compared: a prompt's examples, read without running it, and more made from them."""

import ast
import collections
import itertools
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

from w2s.data.programs import literal
from w2s.grading.syntax import parse
from w2s.sandbox.compare import spelled
from w2s.sandbox.plain import NotPlain, encode
from w2s.store.records import Example

Arguments = list[Any]  # the arguments of a call
UNREADABLE = (SyntaxError, ValueError, TypeError, AttributeError, MemoryError, RecursionError, OverflowError)
RELATION = re.compile(
    r"[`\s]*(?:#\s*)?(?:=+>?|-+>|➞|→|➔|:|#|(?:(?:should|must|will|would)\s+)?"
    r"(?:returns?|outputs?|gives?|be|is|equals?)\b(?:\s+equal\s+to)?:?)[ \t`]*"
)
LONGEST_CALL, LONGEST_RESULT = 4000, 2000  # characters
DEEPEST = 4  # nested brackets; each level makes a value up to five times as large


def find_entry(example: Example) -> str:
    """The function that a program must define: named by the example, or else the last in the prompt."""
    named = str(example.meta.get("entry_point") or "")
    defined = re.findall(r"^(?:async\s+)?def\s+(\w+)", example.prompt, re.MULTILINE)
    called = re.findall(r"\bassert\s+(\w+)\(", example.prompt)
    return named or (defined or called or [""])[-1]


def find_examples(example: Example) -> list[tuple[Arguments, Any]]:
    """(arguments, expected result) of each example in the prompt, literals only.

    It reads doctests, `assert f(1) == 2`, `f(1) == 2` (or ->, =>, ➞, returns) and "Input: a = 1, b = 2 Output: 3".
    """
    calls = [(arguments, expected[0]) for arguments, expected in shown_calls(example) if expected]
    return calls or list(inputs_and_outputs(example))


def shown_calls(example: Example) -> list[tuple[Arguments, tuple]]:
    """(arguments, (expected,) or () where the prompt shows none) of each call of the function in the prompt."""
    entry, found = find_entry(example), {}
    prompt = re.sub(r"\n[ \t]*\.\.\. ", "\n", example.prompt)
    *_, below = re.split(r"(?m)^\s*Examples?\s*:?\s*$", prompt)  # above it, f(1) = 3 may be part of a definition
    prompt = below if entry and re.search(rf"\b{re.escape(entry)}\s*\(", below) else prompt
    for match in re.finditer(rf"(?<![\w.]){re.escape(entry)}\s*\(", prompt) if entry else ():
        before, after = prompt[: match.start()].rpartition("\n")[2], prompt[match.start() :][:LONGEST_CALL]
        ends = (end.end() for end in re.finditer(r"\)", after))
        call = next(((tree, end) for end in ends if (tree := expression(after[:end]))), None)
        if not call or re.search(r"\bdef\s+$", before) or not isinstance(call[0], ast.Call) or call[0].keywords:
            continue
        try:
            arguments = [literal(node) for node in call[0].args]
            coded = str(encode(arguments))
        except (*UNREADABLE, NotPlain):
            continue
        rest, bracket = after[call[1] :], re.search(r"(?:^|\s)\(\s*$", before)
        if bracket:  # assert (f(1)) == 2
            before, rest = before[: bracket.start()], rest.lstrip().removeprefix(")")
        if coded not in found or not found[coded][1]:
            part = re.search(r"(?:\bnot|[\w)\]]\s*[-+*/%=<>]+|\()\s*$", before)
            found[coded] = arguments, () if part else result_after(rest, ">>>" in before)
    return list(found.values())


def result_after(text: str, doctest: bool) -> tuple:
    """(expected,) after a call: on its line, or below it in a doctest; () if there is none."""
    line = RELATION.match(text)
    found = leading_literal(text[line.end() :]) if line and text[: line.end()].count("\n") < 2 else ()
    if not found and doctest:
        below = text.split("\n", 1)[1:]
        found = leading_literal(below[0]) if below else ()
    return found


def leading_literal(text: str) -> tuple:
    """(value,) of the longest literal at the start of `text`; () if there is none."""
    text = re.split(r"\n\s*(?:\n|>>>)", text[:LONGEST_RESULT].lstrip(" \t"))[0]
    if said := re.match(r"true\b|false\b", text):
        return (said[0] == "true",)
    if not re.match(r"[-+\d.\[({'\"]|(?:True|False|None|set|float|inf|nan)\b", text):
        return ()
    several = text[0] in "[({" or text.startswith(("set", "float"))
    ends = [m.end() for m in re.finditer(r"[\])}]" if several else r"['\"]|[\w.]+", text)]
    for end in reversed(ends[:200]):
        piece = text[:end] if several or text[0] in "'\"" else text[:end].rstrip(".")
        tree = expression(piece)
        if tree is None or (isinstance(tree, ast.Tuple) and not piece.startswith("(")):
            continue
        try:
            value = literal(tree)
            encode(value)
            if re.match(r"[ \t]*[+*/%=]", text[end:]):  # 100 - 2 - 3 = 95
                return ()
            if not re.match(r"(?!\"{3}|'{3})['\"\w]", text[end:]):
                return (value,)
        except (*UNREADABLE, NotPlain):
            continue
    return ()


def inputs_and_outputs(example: Example) -> Iterator[tuple[Arguments, Any]]:
    """Examples in prose, for functions whose signature is in the prompt: every argument by name, then the output."""
    names = [parameter.arg for parameter in parameters(example.prompt, find_entry(example))]
    for part in re.split(r"\b(?:[Ii]nputs?\s*:|For\b)", example.prompt)[1:] if names else ():
        given, *rest = re.split(r"(?i)\b(?:output|result|return)s?\b", part, maxsplit=1)
        written = [re.search(rf"\b{re.escape(name)}\s*[=:]\s*", given) for name in names]
        if len(names) == 1 and not written[0]:
            written = [re.match(r"\s*", given)]
        values = [leading_literal(given[one.end() :]) if one else () for one in written]
        relation = RELATION.match(rest[0]) if rest else None
        expected = leading_literal(rest[0][relation.end() if relation else 0 :].lstrip()) if rest else ()
        if all(values) and expected:
            yield [value for (value,) in values], expected[0]


def expression(text: str) -> ast.expr | None:
    try:
        return parse(text.strip(), "eval").body
    except UNREADABLE:
        return None


def parameters(source: str, entry: str) -> list[ast.arg]:
    """The required parameters of the function `entry` in `source`; [] if it is not defined there."""
    for text in (source, source.rstrip() + "\n    pass\n"):
        try:
            tree = parse(text)
        except UNREADABLE:
            continue
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == entry:
                return node.args.args[: len(node.args.args) - len(node.args.defaults)]
    return []


def generated_inputs(seeds: Sequence[Arguments], *, count: int = 32, seed: str) -> list[Arguments]:
    """Up to `count` further argument lists of the same types, made by small changes to `seeds` and to one another.

    Type-aware mutation in the spirit of EvalPlus (Liu et al. 2023, arXiv 2305.01210, section 2.2), without its
    contracts: some may be inputs that the task rules out. In a quarter, part of one argument replaces another argument,
    to cover the case that they are equal. The same `seed` gives the same inputs.
    """
    rng, pool = random.Random(seed), [list(arguments) for arguments in seeds if arguments]
    by_name = {(type(leaf).__name__, spelled(leaf)): leaf for leaf in leaves(pool)}
    parts = [by_name[key] for key in sorted(by_name)]
    equal = [variant for arguments in pool for variant in with_equal_parts(arguments)]
    rng.shuffle(equal)
    known, made = {spelled(arguments) for arguments in pool}, []
    for _ in range(20 * count if pool else 0):
        if len(made) == count:
            break
        if equal and len(made) < count // 4:
            new = equal.pop()
        else:
            new = list(rng.choice(pool))
            for at in {rng.randrange(len(new)) for _ in range(rng.choice((1, 1, 2)))}:
                new[at] = mutated(new[at], rng, parts)
        if spelled(new) not in known:
            known.add(spelled(new))
            made.append(new)
            pool.append(new)
    return made


def with_equal_parts(arguments: Arguments) -> Iterator[Arguments]:
    """The arguments with one of them replaced by a part, of its type, of another."""
    for at, argument in enumerate(arguments):
        before, after = arguments[:at], arguments[at + 1 :]
        yield from ([*before, part, *after] for part in leaves(before + after) if type(part) is type(argument))


def leaves(value: Any) -> Iterator[Any]:
    """The numbers and texts in a value."""
    if isinstance(value, list | tuple | set | frozenset | dict):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value


def mutated(value: Any, rng: random.Random, parts: Sequence[Any] = ()) -> Any:
    """A value of the same type, a small change away; the same value for types without such changes.

    parts: numbers and texts of other arguments, which may take its place (EvalPlus' ingredients).
    """
    others = [part for part in parts if type(part) is type(value)]
    if isinstance(value, bool):
        return not value
    if others and rng.random() < 0.3:
        return rng.choice(others)
    if isinstance(value, int):
        near = [value + 1, value - 1, value + rng.randint(2, 9), abs(value) // 2, rng.randint(0, 20)]
        return rng.choice([*near, 0, -value, 2 * value + 1 if abs(value) < 10**6 else value - 2])
    if isinstance(value, float):
        return rng.choice([value + 1, value - 0.5, round(value * rng.random(), 3), value * 2, 0.0, -value])
    if isinstance(value, str | bytes):
        return changed_sequence(value, rng)
    if isinstance(value, list | tuple):
        if value and rng.random() < 0.5:
            at = rng.randrange(len(value))
            return type(value)([*value[:at], mutated(value[at], rng, parts), *value[at + 1 :]])
        return changed_sequence(value, rng)
    if isinstance(value, set | frozenset):
        ordered = sorted(value, key=spelled)
        more = [mutated(rng.choice(ordered), rng, parts)] if ordered else []
        return type(value)(rng.choice([ordered + more, ordered[1:], ordered[: len(ordered) // 2]]))
    if isinstance(value, dict) and value:
        key, other = rng.choice(list(value)), {**value}
        kept = other.pop(key)
        changed = {**value, key: mutated(kept, rng, parts)}
        return rng.choice([other, changed, {**other, mutated(key, rng, parts): kept}])
    return value


def changed_sequence(value: Any, rng: random.Random) -> Any:
    """A text, list or tuple cut, reversed, doubled, emptied, or with an element removed, repeated or moved."""
    size = len(value)
    at, half = rng.randrange(size + 1), size // 2
    ways = [value[:at] + value[at + 1 :], value[:at] + value[max(at - 1, 0) :], value[:half], value[half:]]
    ways += [value[::-1], value[at:] + value[:at], value[:0]] + ([value + value] if size < 100 else [])
    if isinstance(value, str):
        ways += [value.swapcase(), value[:at] + rng.choice("aAbz ") + value[at:], value[:at] + rng.choice("aAbz019")]
    return rng.choice(ways)


def typed_inputs(hints: Sequence[str | None], *, count: int = 4, seed: str) -> list[Arguments]:
    """Arguments for annotations such as int, list[str] or Optional[Tuple[int, ...]]; [] if any is unknown."""
    rng = random.Random(seed)
    depths = [itertools.accumulate((sign == "[") - (sign == "]") for sign in str(hint)) for hint in hints]
    if any(max(depth, default=0) > DEEPEST for depth in depths):  # models repeat themselves: list[list[list[...
        return []
    try:
        trees = [parse(str(hint), "eval").body for hint in hints]
        return [[typed(tree, rng) for tree in trees] for _ in range(count)] if trees else []
    except UNREADABLE:
        return []


def typed(hint: ast.expr, rng: random.Random) -> Any:
    """A value of the type that an annotation names. ValueError for an unknown type."""
    if isinstance(hint, ast.BinOp):
        return typed(hint.left, rng)
    name = ast.unparse(hint.value if isinstance(hint, ast.Subscript) else hint).rpartition(".")[2].lower()
    inner = getattr(hint, "slice", ast.Name("int"))
    several = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    size = rng.randint(1, 5)
    if name in ("optional", "union"):
        return typed(several[0], rng)
    if name in ("list", "sequence", "iterable", "collection"):
        return [typed(inner, rng) for _ in range(size)]
    if name == "tuple":
        fixed = isinstance(inner, ast.Tuple) and not any(ast.unparse(one) == "..." for one in several)
        return tuple(typed(one, rng) for one in (several if fixed else several[:1] * size))
    if name in ("set", "frozenset"):
        return {"set": set, "frozenset": frozenset}[name](typed(inner, rng) for _ in range(size))
    if name in ("dict", "mapping"):
        return {typed(several[0], rng): typed(several[-1], rng) for _ in range(size)}
    plain = {"int": lambda: rng.randint(0, 12), "float": lambda: round(rng.uniform(-5, 20), 2), "any": lambda: size}
    plain |= {"bool": lambda: size > 2, "str": lambda: "".join(rng.choice("abcAB 12") for _ in range(2 * size))}
    if name not in plain:
        raise ValueError(f"{name}: no such type")
    return plain[name]()


def calls_for(example: Example, programs: Sequence[str], *, count: int = 32) -> tuple[list[Arguments], list[Arguments]]:
    """(certain, generated) argument lists on which programs are compared; both empty if no types are known.

    The prompt's own calls, and inputs generated from them; without such calls, inputs generated from the annotations of
    the prompt's function, or of the most frequent signature among `programs` (their order does not matter).
    """
    entry = find_entry(example)
    shown = [arguments for arguments, _ in shown_calls(example)]
    seeds = shown or [arguments for arguments, _ in inputs_and_outputs(example)]
    if not seeds:
        heads = collections.Counter()
        for source in [example.prompt] if parameters(example.prompt, entry) else programs:
            hints = [one.annotation and ast.unparse(one.annotation) for one in parameters(source, entry)]
            heads[tuple(hints)] += bool(hints) and None not in hints
        ranked = sorted(heads, key=lambda hints: (-heads[hints], str(hints)))
        seeds = typed_inputs(ranked[0] if ranked and heads[ranked[0]] else (), seed=example.id)
    return seeds, generated_inputs(seeds, count=count, seed=example.id)
