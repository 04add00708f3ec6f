r"""Which texts are the same answer: 0.5 and \frac{1}{2}, two programs that do the same."""

from pathlib import Path

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import given, settings

from w2s.data.sources import SOURCES
from w2s.grading import candidates
from w2s.grading.candidates import merge, merge_all
from w2s.sandbox.program import Limits
from w2s.sandbox.tiers import Unsafe, tier
from w2s.store.records import BadInput, Example

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore:invalid escape sequence")
QUESTION = Example("q", "made", "answer", "How much?")
HEAD = 'def largest(numbers, least):\n    """The largest.\n    >>> largest([1, 5, 3], 0)\n    5\n    """\n'
TASK = Example("t", "made", "code", HEAD, meta={"entry_point": "largest"})
BY_MAX = "    return max(numbers + [least])\n"
BY_SORTING = "    # another way\n    return sorted([least, *numbers])[-1]\n"
BY_LOOP = "    for one in numbers:\n        if one > least:\n            least = one\n    return least\n"
IGNORES_LEAST = "    return max(numbers, default=least)\n"  # differs only where least is above all of them
FOREVER = "    while True:\n        pass\n"
RAISES = "    raise KeyError(least)\n"
RAISES_OTHER = "    raise IndexError(least)\n"
NO_PYTHON = "    return max(numbers\n"
PROGRAMS = (BY_MAX, BY_SORTING, BY_LOOP, IGNORES_LEAST, RAISES, RAISES_OTHER, NO_PYTHON, "", "   \n")
QUICK = Limits(0.5)


@pytest.fixture(scope="module")
def walls():
    try:
        return tier()
    except Unsafe as error:
        pytest.skip(str(error))


def parted(texts, merged):
    """The partition that the merging made, as sets of texts."""
    groups = {}
    for text, at in zip(texts, merged.index, strict=True):
        groups.setdefault(at, set()).add(text)
    return {frozenset(group) for at, group in groups.items() if at >= 0}, groups.get(-1, set())


GROUPS = [
    ["0.5", "1/2", r"\frac{1}{2}", r"$\dfrac{1}{2}$", "So it is half: #### 0.50", r"hence \boxed{\frac{2}{4}}"],
    ["12", "12 apples", "The answer is 12.", "12.0"],
    [r"\sqrt{8}", r"2\sqrt{2}"],
    ["x^2-1", "(x-1)(x+1)"],
    ["Paris", r"\text{paris}", "paris."],
    ["13"],
]


def test_equal_answers_in_any_notation_are_one_candidate_and_others_are_not():
    texts = [text for group in GROUPS for text in group]
    assert parted(texts, merge(QUESTION, texts)) == (set(map(frozenset, GROUPS)), set())


def shuffled(texts):
    """Lists of these texts, each with a permutation of itself."""
    lists = st.lists(st.sampled_from(texts), max_size=12)
    return lists.flatmap(lambda many: st.tuples(st.just(many), st.permutations(many)))


@settings(max_examples=30)
@given(shuffled([text for group in GROUPS for text in group] + ["", "12 km", "12 m"]))
def test_the_order_of_answers_changes_no_group(texts):
    one, other = texts
    assert parted(one, merge(QUESTION, one)) == parted(other, merge(QUESTION, other))


def test_units_that_differ_are_two_answers_and_a_bare_number_joins_the_more_frequent():
    assert merge(QUESTION, ["12 m", "12", "12 km", "12 km"]).index == (1, 0, 0, 0)


def test_a_candidate_is_named_by_its_most_frequent_spelling_and_keeps_the_whole_solution():
    texts = ["7", "It is \\boxed{1/2}", "So: #### 0.5", "Thus #### 0.5", "7.0"]
    merged = merge(QUESTION, texts)
    assert merged.texts == ("So: #### 0.5", "7")
    assert merged.index == (1, 0, 0, 0, 1)


def test_candidates_come_with_the_most_frequent_first_and_ties_by_first_appearance():
    assert merge(QUESTION, ["3", "1", "2", "1", "2"]).texts == ("1", "2", "3")


def test_empty_texts_are_no_answers():
    assert merge(QUESTION, ["", " \n", "####", "4"]).index == (-1, -1, -1, 0)
    assert merge(QUESTION, []) == candidates.Merged((), ())


def test_expressions_that_take_too_long_stop_the_comparing(monkeypatch):
    asked = []
    monkeypatch.setattr(candidates, "same", lambda *pair: asked.append(pair))
    texts = [f"x^{n}" for n in range(20)]
    assert len(merge(QUESTION, texts).texts) == 20
    assert len(asked) == candidates.COMPARISONS // candidates.SLOW


def test_programs_of_different_text_and_the_same_behaviour_are_one_candidate(walls):
    merged = merge(TASK, [BY_LOOP, BY_MAX, BY_SORTING, "```python\n" + HEAD + BY_MAX + "```\nThat is all."])
    assert merged.index == (0, 0, 0, 0)


def test_a_program_that_differs_on_a_generated_input_alone_is_another(walls):
    assert merge(TASK, [BY_MAX, IGNORES_LEAST, BY_LOOP], QUICK).index == (0, 1, 0)
    assert merge(TASK, [BY_MAX, IGNORES_LEAST, BY_LOOP], QUICK, inputs=0).index == (0, 0, 0)


def test_endless_loops_exceptions_and_what_is_no_program_are_told_apart(walls):
    texts = [
        FOREVER,
        BY_MAX,
        RAISES,
        FOREVER + "    return 1\n",
        RAISES_OTHER,
        NO_PYTHON,
        "",
        RAISES + "    return 2\n",
    ]
    assert merge(TASK, texts, QUICK).index == (0, 2, 1, 0, 3, -1, -1, 1)


def test_a_text_without_the_wanted_function_is_no_answer(walls):
    task = Example("m", "made", "code", '"""\nTwice.\nassert twice(2) == 4\n"""\n', meta={"entry_point": "twice"})
    texts = ["def twice(n):\n    return n + n", "def thrice(n):\n    return 3 * n", "twice = lambda n: 2 * n", "no"]
    assert merge(task, texts, QUICK).index == (0, -1, 0, -1)


def test_without_examples_the_annotations_of_the_head_say_what_to_call(walls):
    typed = Example(
        "h", "made", "code", 'def double(n: int) -> int:\n    """Twice n."""\n', meta={"entry_point": "double"}
    )
    assert merge(typed, ["    return 2 * n", "    return n + n", "    return 3 * n"]).index == (0, 0, 1)
    asked = Example("m", "made", "code", "Write double.", meta={"entry_point": "double"})
    programs = [
        "def double(n: int):\n    return 2 * n",
        "def double(m: int):\n    return m + m",
        "def double(n):\n    return",
    ]
    assert merge(asked, programs).index == (0, 0, 1)


def test_where_nothing_can_be_called_programs_are_compared_by_source_without_layout_and_comments():
    task = Example("s", "made", "code", "def double(n):\n    ", meta={"entry_point": "double"})
    assert merge(task, ["    return 2*n", "    return (2 * n)  # twice", "    return n + n"]).index == (0, 0, 1)


def test_results_that_cannot_be_seen_keep_programs_apart(walls):
    texts = ["    return (n for n in numbers)", "    return (2 * n for n in numbers)"]
    assert merge(TASK, texts).index == (0, 1)


def test_long_results_are_compared_whole(walls):
    texts = ["    return numbers * 5000 + [1]", "    return 5000 * numbers + [1]", "    return 5000 * numbers + [2]"]
    assert merge(TASK, texts).index == (0, 0, 1)


def test_failures_where_most_fail_are_left_out_of_account():
    assert candidates.select_calls(
        [("1", "<exception KeyError>", "2"), ("1", "<timeout>", "<timeout>"), ("1", "3", "4")], 1
    ) == [0, 2]
    assert candidates.select_calls([("<timeout>", "<timeout>"), ("1", "3")], 1) == [0, 1]


@settings(max_examples=8)
@given(shuffled(PROGRAMS))
def test_the_order_of_programs_changes_no_group(walls, texts):
    one, other = texts
    assert parted(one, merge(TASK, one)) == parted(other, merge(TASK, other))


def test_many_rows_in_threads_are_merged_as_one_by_one(walls):
    rows = [(TASK, [BY_MAX, IGNORES_LEAST]), (QUESTION, ["1", "1.0", "2"]), (TASK, [BY_LOOP, BY_MAX]), (QUESTION, [])]
    seen = []
    assert merge_all(rows, progress=lambda *done: seen.append(done)) == [merge(*row) for row in rows]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_programs_are_not_run_where_there_are_no_walls(monkeypatch):
    def refuse(**_):
        raise Unsafe("no walls")

    monkeypatch.setattr("w2s.grading.threads.tier", refuse)
    with pytest.raises(BadInput, match="no walls"):
        merge_all([(TASK, [BY_MAX])])
    with pytest.raises(ValueError, match="its choices"):
        merge(Example("c", "made", "choice", "Which?", ("a", "b")), ["a"])


@pytest.mark.slow
def test_recorded_programs_that_merge_nearly_always_pass_together(shared: Path, walls):
    table = pd.read_parquet(shared / "recorded" / "humaneval_programs" / "outputs.parquet")
    examples = SOURCES["humaneval"](shared / "data")[0]
    rows, flags = [], []
    for number in range(0, 164, 8):
        part = table[table.id == examples[number].meta["task_id"]].sample(30, random_state=number)
        rows.append((examples[number], list(part.text)))
        flags.append(list(part.correct))
    pairs = mixed = 0
    for merged, passed in zip(merge_all(rows), flags, strict=True):
        for at in range(len(merged.texts)):
            right = [bool(flag) for flag, where in zip(passed, merged.index, strict=True) if where == at]
            pairs += len(right) * (len(right) - 1) // 2
            mixed += sum(right) * (len(right) - sum(right))
    print(f"{mixed} of {pairs} merged pairs have different recorded flags")
    assert mixed < 0.1 * pairs
