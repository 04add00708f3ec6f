import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.data.duplicates import groups, near_prompts, normalise, remove_leaks
from w2s.data.sources import SOURCES
from w2s.store.records import BadInput, Example


def ask(prompt: str, *choices: str, key: str = "") -> Example:
    return Example(key or f"{prompt}{choices}", "made", "choice" if choices else "answer", prompt, choices)


def found(one: Example, other: Example, near: float | None = 0.8) -> str | None:
    """How `one` duplicates `other`: exact, near, or not."""
    _, leaks = remove_leaks([one], [other], near=near)
    return leaks[0].kind if leaks else None


LONG = "which of the two metals in the picture is the better conductor of electric current at room temperature"


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        (ask("What is 2?"), ask("  what IS\t2 "), "exact"),
        (ask("“Iron,” he said."), ask('"Iron", he said'), "exact"),
        (ask("The ____ rusts."), ask("the _ rusts"), "exact"),
        (ask("What is 3.5 + 1?"), ask("What is 35 + 1?"), None),
        (ask("What is 3 + 1?"), ask("What is 3 - 1?"), None),
        (ask("What is 1,000?"), ask("What is 1000?"), None),
        (ask("Which is a mammal?", "cow", "hen"), ask("Which is a mammal?", "hen", "Cow"), "exact"),
        (ask("Which is a mammal?", "cow", "hen"), ask("Which is a mammal?", "cat", "fly"), None),
        (ask("Which is a mammal?", "cow", "hen"), ask("Which is a mammal?", "cow", "hen", "fly", "bee"), "near"),
        (ask("Which is a mammal?", "cow", "hen", "ant", "bat"), ask("Which is a mammal?", "cow", "1", "2", "3"), None),
        (ask(LONG, "iron", "tin"), ask(LONG, "zinc", "gold"), "exact"),
        (ask(LONG, "iron", "tin"), ask(LONG.replace("picture", "drawing"), "zinc", "gold"), "near"),
        (ask(LONG, "iron", "tin"), ask(LONG.replace("electric current", "heat"), "iron", "tin"), None),
        (ask("???", "a", "b"), ask("!!!", "a", "b"), None),
    ],
)
def test_what_counts_as_the_same_question(one, other, kind):
    assert found(one, other) == found(other, one) == kind
    assert found(one, other, near=None) == ("exact" if kind == "exact" else None)


WORDS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=12).map(" ".join)


def jaccard(one: str, other: str) -> float:
    sets = [{*p.split(), *map(" ".join, itertools.pairwise(p.split()))} for p in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@settings(max_examples=50, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=30, unique=True), st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]))
def test_the_search_finds_what_comparing_every_pair_finds(prompts, near):
    pairs = list(itertools.combinations(range(len(prompts)), 2))
    expected = {(i, j): jaccard(prompts[i], prompts[j]) for i, j in pairs}
    actual = {(i, j): similarity for i, j, similarity in near_prompts(prompts, near)}
    assert actual == pytest.approx({pair: s for pair, s in expected.items() if s >= near - 1e-9})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(WORDS, st.sampled_from([(), ("x", "y"), ("y", "x"), ("x", "y", "z")])), max_size=20))
def test_the_order_of_the_questions_does_not_matter(rows):
    examples = [ask(prompt, *choices, key=str(n)) for n, (prompt, choices) in enumerate(rows)]

    def relation(shuffled):
        group_N, like = groups(shuffled, near=0.5)
        of = {e.id: group for e, group in zip(shuffled, group_N.tolist(), strict=True)}
        return {(a, b, like.get(of[a], {}).get(of[b], 1.0 if of[a] == of[b] else 0.0)) for a in of for b in of}

    assert relation(examples) == relation(examples[::-1])


def test_the_suite_stays_whole_and_the_rest_of_training_is_kept():
    train = [ask(f"question number {n} about something", "a", "b", key=str(n)) for n in range(5)]
    kept, leaks = remove_leaks(train, [ask("Question number 3, about something!", "b", "a", key="held")])
    assert [example.id for example in kept] == ["0", "1", "2", "4"]
    assert [tuple(leak) for leak in leaks] == [("3", "held", "exact", 1.0)]
    assert remove_leaks(train, []) == (train, [])


def test_a_world_of_template_questions_has_no_false_duplicates():
    first, _ = SOURCES["world"](None, seed=0)
    _, leaks = remove_leaks(first[:3000], first[3000:])
    assert leaks == []


KNOWN = {  # leaks that the data's README counts by the whole prompt; short prompts with other choices are not the same
    "arc_easy": ({"split": "train"}, "arc_easy", {"split": "test"}, 6),
    "arc_challenge": ({"split": "train"}, "arc_challenge", {"split": "test"}, 4),
    "arc_easy and challenge": ({"split": "train"}, "arc_challenge", {"split": "test"}, 1),
    "sciq": ({"split": "train", "form": "pairs"}, "sciq", {"split": "test"}, 1),
    "mmlu": ({"split": ["validation", "dev"]}, "mmlu", {"split": "test"}, 33),
    "gsm8k": ({"split": "train"}, "gsm8k", {"split": "test"}, 0),
    "math": ({"split": "train"}, "math", {"split": "test"}, 1),
}


@pytest.mark.parametrize("case", KNOWN)
def test_known_leaks_of_published_sets_are_found(shared, case):
    options, suite, suite_options, exact = KNOWN[case]
    train, _ = SOURCES[case.split()[0]](shared / "data", **options)
    held_out, _ = SOURCES[suite](shared / "data", **suite_options)
    kept, leaks = remove_leaks(train, held_out)
    kinds = [leak.kind for leak in leaks]
    assert kinds.count("exact") >= exact
    assert kinds.count("near") <= 0.06 * len(train)
    assert len(kept) + len(leaks) == len(train)
    if case == "sciq":  # the README's two: one prompt is short and shares its answer only
        prompts = {example.id: example.prompt for example in train}
        assert {"What are the two most common silicates?"} < {prompts[leak.removed] for leak in leaks}
    if case == "math":  # "9 after stripping symbols": ours are those and the reworded ones
        assert len(leaks) >= 9


def test_normalising_keeps_what_has_meaning():
    assert normalise("  Ünïcode　wide ＡＢＣ; x_1 = -2.5!") == "ünïcode wide abc x 1 = -2.5"
    assert normalise("?!") == "?!"


@pytest.mark.parametrize("near", [0, -1, 1.5, float("nan")])
def test_a_threshold_out_of_range_is_refused(near):
    with pytest.raises(BadInput, match="allowed: above 0, at most 1, or null"):
        groups([], near=near)


def test_no_questions_have_no_duplicates():
    group_N, like = groups([])
    assert (len(group_N), like) == (0, {})
    assert group_N.dtype == np.int64
