import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.evaluation.pools import pictures

POISON = "<script>alert('x')</script> & $x_1$ \"q\""


def a_cost_curve(methods):
    singles = [{"name": f"model {at}", "cost": 0.1 * 2**at, "accuracy": 0.5 + 0.05 * at} for at in range(5)]
    points = {
        name: [{"point": "", "cost": cost, "accuracy": right, "low": right - 0.02, "high": right + 0.02}]
        for name, cost, right in methods
    }
    return {"singles": singles, "hull": [[0.1, 0.5], [1.6, 0.7]], "methods": points}


def some_agreement(rows=8):
    share_R = np.linspace(1, 0.3, rows)
    return [
        {"threshold": t, "coverage": 1.2 - t, "precision": 0.5 + 0.4 * t, "low": 0.45 + 0.4 * t, "high": 1.0, "n": 9}
        for t in share_R
    ]


def words_of(picture):
    return ["".join(text.itertext()) for text in ElementTree.fromstring(picture).iter() if text.tag.endswith("text")]


def drawn_with(name):
    phi = (np.eye(4) + 0.2 * (1 - np.eye(4))).tolist()
    number = {"number": [1, 2, 3], "lines": {name: [0.5, 0.6, None], "plurality": [0.5, 0.4, 0.3]}, "floor": [0.5] * 3}
    return {
        "number": pictures.by_number(number, name),
        "cost": pictures.cost(a_cost_curve([(name, 3.0, 0.75), ("other", 1.0, 0.6)]), name, "$"),
        "correlation": pictures.correlation([name, "b", "c", "d"], phi),
        "agreement": pictures.agreement(some_agreement()),
    }


@pytest.mark.parametrize("picture", ["number", "cost", "correlation", "agreement"])
def test_a_picture_is_well_formed_and_takes_its_colours_from_the_page(picture):
    drawn = drawn_with("stacking")[picture]
    assert words_of(drawn)
    assert "var(--" in drawn
    assert not re.search(r"#01020\d", drawn)
    assert not set(re.findall(r"(?:fill|stroke)[:=] ?\"?(#[0-9a-f]{6})", drawn)) - {"#ffffff"}
    assert len(drawn) < 60_000
    assert drawn == drawn_with("stacking")[picture]


@pytest.mark.parametrize("picture", ["number", "cost", "correlation"])
def test_a_name_of_unknown_origin_stays_text(picture):
    drawn = drawn_with(POISON)[picture]
    assert "<script" not in drawn
    shown = [word for word in words_of(drawn) if word.startswith("<scri")]
    assert len(shown) == 1  # cut to fit, and still there to be read


@given(st.integers(1, 60), st.integers(0, 3000))
def test_a_line_keeps_its_ends_and_loses_points_where_it_has_too_many(first, more):
    number = np.arange(first, first + more + 1, dtype=float)
    at = pictures.thinned(number)
    assert at[0] == 0
    assert at[-1] == len(number) - 1
    assert len(at) == min(len(number), pictures.MOST_NUMBERS) or pictures.MOST_NUMBERS / 3 < len(at) < 61
    assert (np.diff(at) > 0).all()


def test_the_winner_and_plurality_are_always_among_the_lines():
    lines = {f"method {at}": [0.5, 0.6 + at / 100] for at in range(12)} | {"plurality": [0.3, 0.3], "last": [0.2, 0.1]}
    drawn = words_of(pictures.by_number({"number": [1, 2], "lines": lines, "floor": None}, "last"))
    named = {word for word in drawn if not re.fullmatch(r"[\d.]+|models", word)}
    assert named == {"plurality", "last", "method 11", "method 10", "method 9", "method 8"}


def test_a_copula_far_from_what_was_measured_does_not_flatten_it():
    curve = {"number": [1, 2, 3], "lines": {"plurality": [0.70, 0.71, 0.72]}, "floor": [0.1, 0.05, 0.01]}
    ticks = [float(word) for word in words_of(pictures.by_number(curve, "x")) if re.fullmatch(r"\d\d\.?\d*", word)]
    assert min(ticks) > 65


def test_lines_without_any_value_are_no_picture():
    assert pictures.by_number({"number": [1], "lines": {"plurality": [None]}, "floor": None}, "plurality") == ""


def test_nothing_with_a_price_is_no_picture_and_what_is_free_stands_at_the_left():
    curve = a_cost_curve([("free", 0.0, 0.6)])
    assert "free" in words_of(pictures.cost(curve, "free", "$"))
    for one in curve["singles"]:
        one["cost"] = 0.0
    assert pictures.cost(curve, "free", "$") == ""


def test_the_winner_is_named_however_crowded_its_place_is():
    crowd = [(f"method {at}", 3.0 + at / 100, 0.7 + (at % 7) / 1000) for at in range(200)]
    assert "the winner" in words_of(
        pictures.cost(a_cost_curve([*crowd, ("the winner", 3.5, 0.703)]), "the winner", "$")
    )


def test_names_do_not_overlap_in_the_picture_of_costs():
    crowd = [(f"method number {at}", 0.5 + at / 10, 0.6 + at / 100) for at in range(12)]
    picture = pictures.cost(a_cost_curve(crowd), "method number 11", "$")
    found = [word for word in words_of(picture) if word.startswith("method")]
    assert 2 <= len(found) <= 12
    assert len(set(found)) == len(found)


POINTS = st.dictionaries(
    st.sampled_from("abcdef"),
    st.lists(st.fixed_dictionaries({"cost": st.integers(0, 5), "accuracy": st.integers(1, 9)}), min_size=1, max_size=3),
    min_size=1,
)


@given(POINTS)
def test_unbeaten_is_what_no_other_method_beats_at_its_price(methods):
    def beaten(point, name):
        return any(
            p["accuracy"] >= point["accuracy"] and (p["cost"], -p["accuracy"], other) < (*price(point), name)
            for other, points in methods.items()
            for p in points
        )

    def price(point):
        return point["cost"], -point["accuracy"]

    expected = {name for name, points in methods.items() if any(not beaten(point, name) for point in points)}
    assert set(pictures.unbeaten(methods)) == expected


@given(st.permutations(range(9)))
def test_members_of_a_family_stand_together_in_whatever_order_they_come(order):
    family = np.arange(9) // 3
    phi = np.where(family[:, None] == family, 0.7, 0.1)
    found = family[np.array(order)][pictures.clustered(phi[np.ix_(order, order)])]
    assert (np.diff(found) != 0).sum() == 2


def test_the_map_of_many_members_is_capped_and_small_and_every_name_in_it_is_readable():
    size = 356
    phi = np.full((size, size), 0.3)
    phi[0, 1] = phi[1, 0] = np.nan
    picture = pictures.correlation([f"member {at} of a pool of many" for at in range(size)], phi.tolist())
    names = [word for word in words_of(picture) if "ol of many" in word]
    assert len(names) == len(set(names)) == pictures.MOST_MEMBERS
    assert len(picture) < 60_000


def test_correlations_that_are_not_known_are_left_empty_and_few_are_written_out():
    phi = [[1, 0.5, None], [0.5, 1, -0.25], [None, -0.25, 1]]
    picture = pictures.correlation(["a", "b", "c"], phi)
    shown = sorted(word for word in words_of(picture) if "." in word)
    assert shown == sorted([".50", ".50", "−.25", "−.25", "0.50"])
    assert pictures.squares(np.array([[np.nan, np.nan], [np.nan, 0.0]])) == ""


@given(st.text(min_size=0, max_size=80), st.integers(6, 40))
def test_a_short_name_keeps_both_ends(text, most):
    found = pictures.short(text, most)
    assert len(found) <= most
    assert found == text or (found[0] == text[0] and found[-1] == text[-1] and "…" in found)


def test_agreement_of_nobody_is_no_picture():
    assert pictures.agreement([dict(some_agreement()[0], n=0)]) == ""


def test_a_line_is_named_where_it_is_farthest_above_a_mixture_of_single_models():
    points = [{"cost": cost, "accuracy": right} for cost, right in ((0, 0.5), (4, 0.75), (10, 0.8))]
    assert pictures.where_ahead(points, [[0, 0.5], [10, 0.8]]) == points[1]  # the mixture reaches 0.62 there
    assert pictures.where_ahead(points, []) == points[2]
