import copy
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.evaluation.pools.report import PICKED, SINGLE, make_scale, make_verdict, price, render, signed, table

POISON = "<script>alert('x')</script> $x_1$ \x1b[31m </svg> {{ 7 * 7 }}"
HEADINGS = [
    "The methods, ranked",
    "Left out",
    "Online: each answer is revealed after the question",
    "How many models are worth asking",
    "What quality costs",
    "Who errs together",
    "When many agree",
    "The members alone",
    "By group of questions",
    "How to repeat it",
    "What the words mean",
]


def a_method(name, accuracy, gap, **others):
    found = {
        "name": name,
        "family": "votes",
        "summary": f"What {name} does.",
        "options": {"k": 3, "budget": None},
        "accuracy": [accuracy, accuracy - 0.02, accuracy + 0.02],
        "over_best": None if gap is None else [gap, gap - 0.01, gap + 0.01],
        "over_plurality": [accuracy - 0.6, accuracy - 0.62, accuracy - 0.58],
        "abstained": 0.0,
        "cost": 2.5,
        "asked": 3.0,
        "seconds": 0.2,
    }
    return {**found, **others}


def made_up_pool(poison=""):
    """combine.json of four members whose vote is worse than the best of them; `poison` is in every outside text."""
    members = [f"model {at}{poison}" for at in "abcd"]
    interval = {"cost": 2.5, "accuracy": 0.74, "low": 0.72, "high": 0.76}
    return {
        "command": f"w2s combine answers.parquet{poison}",
        "outputs": f"answers.parquet{poison}",
        "questions": 500,
        "judged": 480,
        "members": members,
        "repeats": 5,
        "seed": 0,
        "remarks": [f"3 answers could not be read{poison}"],
        "methods": [
            a_method("stacking", 0.74, 0.03),
            a_method(PICKED, 0.73, 0.02, asked=None, cost=None, abstained=None),
            a_method("samme", 0.72, 0.01, abstained=0.02),
            a_method(SINGLE, 0.71, None, asked=1.0),
            a_method("plurality", 0.60, -0.11, over_plurality=None, asked=4.0),
        ],
        "winner": "stacking",
        "left_out": [{"name": "mean_probability", "reason": f"no probabilities were recorded{poison}"}],
        "singles": [
            {"name": name, "accuracy": [0.7 - at / 9, 0.68 - at / 9, 0.72 - at / 9], "abstained": 0.01 * at}
            | {"not_asked": 0.0, "cost": 0.2 + at}
            for at, name in enumerate(members)
        ],
        "bounds": {
            "oracle": [0.9, 0.87, 0.92],
            "all_wrong": [0.1, 0.08, 0.13],
            "copula_floor": 0.2,
        },
        "curves": {
            "by_number": {"number": [1, 2, 3, 4], "lines": {"plurality": [0.7, 0.66, 0.64, 0.6]}, "floor": [0.7] * 4},
            "cost": {
                "singles": [
                    {"name": name, "cost": 0.2 + at, "accuracy": 0.7 - at / 9} for at, name in enumerate(members)
                ],
                "hull": [[0.2, 0.7]],
                "methods": {"stacking": [{"point": "", **interval}], "samme": [{"point": "", **interval}]},
            },
            "agreement": [
                {"threshold": t, "coverage": 1.3 - t, "precision": t, "low": t - 0.1, "high": t, "n": 40}
                for t in (1.0, 0.75, 0.5)
            ],
            "correlation": {"members": members, "phi": [[1.0 if i == j else 0.3 for i in range(4)] for j in range(4)]}
            | {"effective_voters": 2.1, "mean": 0.3},
        },
        "groups": [
            {"group": f"law{poison}", "n": 49, "best_single": [members[0], 0.6], "winner": 0.7, "plurality": 0.5},
            {"group": "", "n": 431, "best_single": [members[0], 0.72], "winner": 0.73, "plurality": None},
        ],
        "online": [{"name": "hedge", "accuracy": [0.7, 0.68, 0.72]}],
    }


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.addresses = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def page():
    return render(made_up_pool())


def verdict_with(*gaps, winner=None, **others):
    """The verdict on methods a, b, ... with these differences to the best single model, low and high around them."""
    methods = [a_method(name, 0.7 + gap, gap) for name, gap in zip("abcdef", gaps, strict=False)]
    found = {**made_up_pool(), "methods": methods, "winner": winner or "a", **others}
    return make_verdict(found)


def test_the_page_begins_with_the_verdict_and_keeps_its_order(page):
    heading = re.search(r"<h1>(.*?)</h1>", page)[1]
    assert heading.startswith(
        "First of 4 methods, stacking beats the best single model by 3.0 points (95% CI 2.0 to 4.0"
    )
    assert heading.endswith("some member is right on 90.0% of the questions.")
    assert re.findall(r"<h2>(.*?)</h2>", page) == HEADINGS
    assert page.index("3 answers could not be read") < page.index("The methods, ranked")


def test_the_page_is_one_file_without_scripts_and_asks_for_nothing(page):
    read = Page(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
    assert all(address.startswith("#") for address in read.addresses)
    assert not re.search(r"url\((?!#)", page)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert page == render(made_up_pool())


def test_the_remarks_say_what_luck_and_plurality_are_worth(page):
    assert "chosen anew for each half, beats the best single model by 2.0 points" in page
    assert "Plurality is behind the best single model by 11.0 points" in page
    assert "The winner, stacking, beats plurality by 14.0 points" in page
    assert "Every member is wrong on 10.0% (95% CI 8.0 to 13.0) of the questions" in page


def test_what_could_not_be_told_is_not_claimed():
    said = verdict_with(0.005, -0.002, smallest_difference=0.014)
    assert said.startswith("No method can be told from the best single model: the first, a, differs by +0.5 points")
    assert "(95% CI -0.5 to +1.5, n = 480)" in said
    assert "these questions could have shown a difference of 1.4 points" in said
    assert "could have shown" not in verdict_with(0.03, smallest_difference=0.014)


def test_a_second_method_that_is_clearly_better_is_named_beside_an_unclear_first():
    methods = [a_method("a", 0.72, 0.02, over_best=[0.02, -0.01, 0.05]), a_method("b", 0.715, 0.015)]
    said = make_verdict({**made_up_pool(), "methods": methods, "winner": "a"})
    assert said.startswith("First of 2 methods, a cannot be told from the best single model")
    assert "; b beats the best single model by 1.5 points" in said


def test_the_choice_on_other_questions_is_no_method_of_its_own():
    methods = [a_method(PICKED, 0.75, 0.04), a_method("a", 0.7, 0.005)]
    said = make_verdict({**made_up_pool(), "methods": methods, "winner": "a"})
    assert said.startswith("No method can be told from the best single model: the first, a,")


def test_methods_that_are_all_worse_are_said_to_be():
    assert verdict_with(-0.05, -0.06).startswith("No method is above the best single model: the first, a, is behind")
    alone = make_verdict({**made_up_pool(), "methods": [a_method(SINGLE, 0.7, None)], "winner": SINGLE})
    assert alone.startswith("No method is above the best single model, 70.0% right (n = 480)")


def test_without_methods_or_without_a_best_single_model_there_is_still_a_sentence():
    assert make_verdict({**made_up_pool(), "methods": []}) == "No method could be used on answers.parquet."
    only = make_verdict({**made_up_pool(), "methods": [a_method("a", 0.7, None)], "winner": "a"})
    assert only.startswith("The one method tried, a: 70.0% (95% CI 68.0 to 72.0) right, n = 480")


@given(st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=5))
def test_a_verdict_is_one_sentence_and_claims_a_win_only_where_an_interval_shows_one(gaps):
    said = verdict_with(*gaps)
    assert said[0].isupper()
    assert said.endswith(".")
    assert "\n" not in said
    assert ("beats" in said) == any(gap - 0.01 > 0 for gap in gaps)


def test_names_stay_on_one_line_and_keep_the_spaces_of_their_language():
    found = {**made_up_pool(), "methods": [a_method("two\nlines\tof\u3000many", 0.7, None)], "winner": "two\nlines"}
    assert "two lines of\u3000many" in table(found)


def test_text_of_unknown_origin_stays_text_and_moves_no_cursor():
    found = made_up_pool(POISON)
    html, printed = render(found), table(found)
    read = Page(html)
    assert "script" not in read.tags
    assert "alert('x')" in "".join(read.words)
    assert "\x1b" not in html + printed
    assert "49" not in re.sub(r"<td class=\"n\">49", "", " ".join(re.findall(r"law.{0,90}", html)))  # 7 * 7
    assert re.findall(r"<h2>(.*?)</h2>", html) == HEADINGS


OPTIONAL = ["bounds", "curves", "groups", "online", "left_out", "singles", "remarks", "methods"]


@pytest.mark.parametrize("part", OPTIONAL)
def test_a_page_can_do_without_any_part(part):
    found = made_up_pool()
    found[part] = type(found[part])()
    assert len(re.findall("<h2>", render(found))) < len(HEADINGS) or part in ("remarks", "bounds")
    assert table(found)


def test_a_page_of_almost_nothing_still_says_how_to_repeat_it():
    found = made_up_pool() | {part: [] for part in OPTIONAL} | {"curves": None, "bounds": None, "winner": None}
    del found["online"], found["groups"]
    assert re.findall(r"<h2>(.*?)</h2>", render(found)) == HEADINGS[-2:]


@pytest.mark.parametrize("curve", ["by_number", "cost", "agreement", "correlation"])
def test_a_picture_that_cannot_be_drawn_takes_its_heading_along(curve):
    found = made_up_pool()
    found["curves"] = {curve: found["curves"][curve]}
    found["bounds"] = None
    assert set(re.findall(r"<h2>(.*?)</h2>", render(found))) & set(HEADINGS[3:7]) == {
        dict(zip(("by_number", "cost", "correlation", "agreement"), HEADINGS[3:7], strict=True))[curve]
    }


def test_two_members_and_one_method_have_a_page():
    found = made_up_pool()
    found |= {"members": ["a", "b"], "methods": found["methods"][:1], "singles": found["singles"][:2], "groups": []}
    correlation = {"members": ["a", "b"], "phi": [[1, 0.4], [0.4, 1]], "effective_voters": 2.1, "mean": 0.3}
    found["curves"] = {"correlation": correlation, "by_number": None}
    html = render(found)
    assert "The one method tried, stacking" in html
    assert "2 members are worth 2.1 independent voters" in html


def test_the_page_says_what_the_members_are_worth():
    said = "4 members are worth 2.1 independent voters: their errors correlate by 0.30 on average."
    assert said in render(made_up_pool())


def test_hundreds_of_members_fold_and_the_caps_are_stated():
    found = made_up_pool()
    names = [f"run {at // 15}#{at}" for at in range(356)]
    found["members"], found["singles"] = names, [dict(found["singles"][0], name=name) for name in names]
    phi = [[1.0 if i == j else 0.3 for i in range(356)] for j in range(356)]
    curve = {"number": list(range(1, 357)), "lines": {"plurality": [0.6] * 356}, "floor": None}
    found["curves"] = {"correlation": {"members": names, "phi": phi}, "by_number": curve}
    html = render(found)
    assert "<summary>316 more</summary>" in html
    assert "40 of 356 members" in html
    assert "Drawn at 60 of 356 numbers" in html
    found["curves"]["correlation"] = {"members": names[:30], "phi": [row[:30] for row in phi[:30]]}
    assert "30 of 356 members" in render(found)


def test_columns_that_tell_nothing_are_left_out():
    found = made_up_pool()
    for method in found["methods"]:
        method |= {"cost": None, "abstained": 0.0, "asked": 4.0, "over_plurality": None}
    ranked = render(found).split("The methods, ranked")[1].split("</table>")[0]
    assert re.findall(r"<th[^>]*>([^<]*)", ranked) == ["method", "right, %", "", "− best single", "time"]
    assert not {"asked", "$/1,000", "abstained"} & set(table(found).split())
    assert {"asked", "$/1,000", "abstained"} <= set(table(made_up_pool()).split())


def test_the_table_is_aligned_and_says_what_it_leaves_out():
    printed = table(made_up_pool(), rows=3).splitlines()
    head = next(at for at, line in enumerate(printed) if "right, %" in line)
    rows = printed[head + 1 : head + 4]
    assert [row.split()[1] for row in rows] == ["stacking", PICKED, "samme"]
    for name in ("right, %", "vs best single", "asked", "$/1,000"):
        end = printed[head].index(name) + len(name)
        assert all(row[end - 1] != " " and row[end : end + 1] in ("", " ") for row in rows)
    assert "2 more methods are on the page" in printed
    assert printed[-1] == "left out: mean_probability (no probabilities were recorded)"
    assert " ".join(printed[:2]).startswith("First of 4 methods, stacking beats")


SHARES = st.floats(0, 1)


@given(st.lists(st.lists(SHARES, min_size=3, max_size=3), max_size=12), st.none() | SHARES)
def test_every_bar_that_is_drawn_lies_on_its_axis_and_the_best_single_model_too(triples, best):
    rows = [{"accuracy": [mid, low, high]} for low, mid, high in map(sorted, triples)]
    scale = make_scale(rows, best)
    assert bool(scale) == bool(rows)
    if rows:
        drawn = [row["accuracy"] for row in rows if row["accuracy"][0] >= scale["low"]]
        assert max(rows, key=lambda row: row["accuracy"][0])["accuracy"] in drawn
        assert all(high - scale["low"] <= scale["width"] + 1e-9 for _, _, high in drawn)
        assert best is None or -1e-9 <= scale["best"] <= 100 + 1e-9


def test_the_page_does_not_change_what_it_shows():
    found = made_up_pool()
    before = copy.deepcopy(found)
    assert render(json.loads(json.dumps(found))) == render(found)
    assert found == before


@pytest.mark.parametrize(("share", "words"), [(0.031, "+3.1"), (-0.0004, "0.0"), (0.0, "0.0"), (-0.2, "-20.0")])
def test_differences_carry_their_sign_and_nothing_has_none(share, words):
    assert signed(share) == words


@pytest.mark.parametrize(("value", "words"), [(None, "–"), (0.0, "0.00"), (0.0123, "0.012"), (1234.5, "1,234.50")])
def test_prices_read_well(value, words):
    assert price(value) == words
