import json
import math
from collections import Counter, OrderedDict, namedtuple
from enum import IntEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.sandbox.plain import MAX_DEPTH, NotPlain, Object, TooLarge, decode, encode

SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(), st.binary()),
    st.sampled_from([int, dict, Object(3)]),
    st.integers().map(lambda number: number << 20_000),
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=4) | st.sets(HASHABLE, max_size=4) | st.dictionaries(HASHABLE, inner, max_size=4)
    ),
    max_leaves=12,
)


def spelled(value):
    """A text that tells 1 from True and 1.0, -0.0 from 0.0, and does not mind the order of sets."""
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}{sorted(map(spelled, value))}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}{list(map(spelled, value))}"
    if isinstance(value, dict):
        return f"dict{[(spelled(k), spelled(v)) for k, v in value.items()]}"
    return f"{type(value).__name__}{hex(value) if type(value) is int else repr(value)}"


@given(VALUES)
def test_plain_data_arrive_as_they_were_sent(value):
    assert spelled(decode(json.loads(json.dumps(encode(value))))) == spelled(value)


@settings(max_examples=40)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda i: st.lists(i) | st.dictionaries(st.text(), i)))
def test_whatever_json_is_sent_it_is_decoded_to_builtins_or_refused(tree):
    try:
        value = decode(tree)
    except NotPlain:
        return
    assert type(value) in (type(None), int, float, complex, str, bytes, list, tuple, set, frozenset, dict, Object, type)


def test_subclasses_are_sent_as_the_builtin_that_they_hold_whatever_they_claim():
    class Liar(int):
        def __eq__(self, other):
            return True

        def __int__(self):
            return 99

        __hash__ = int.__hash__
        __index__ = __repr__ = __str__ = __int__

    class Listed(list):
        def __iter__(self):
            return iter([1, 2, 3])

        def __len__(self):
            return 3

    for value, held in [
        *((Liar(5), 5), (Listed([7]), [7]), (Counter("aab"), {"a": 2, "b": 1}), (OrderedDict(x=1), {"x": 1})),
        *((namedtuple("P", "x y")(1, 2), (1, 2)), (IntEnum("E", "A").A, 1), (bytearray(b"x"), b"x")),
    ]:
        arrived = decode(json.loads(json.dumps(encode(value))))
        assert type(arrived) is type(held)
        assert arrived == held


def test_cycles_and_deep_nesting_are_not_plain():
    cycle: list = []
    cycle.append(cycle)
    deep: list = []
    for _ in range(MAX_DEPTH + 2):
        deep = [deep]
    for value in (cycle, deep, object(), lambda: 0, iter([]), range(3), math):
        with pytest.raises(NotPlain):
            encode(value)


def test_too_many_parts_are_noticed_before_they_are_built():
    shared = [0] * 1000
    for _ in range(4):
        shared = [shared] * 1000  # 10**15 parts in 40 kB
    with pytest.raises(TooLarge):
        encode(shared, most=10**5)


def test_an_object_is_numbered_by_keep_and_found_again():
    kept = [object()]
    tree = encode([kept[0], 1], keep=lambda value: Object(kept.index(value)))
    assert decode(tree, kept.__getitem__)[0] is kept[0]
