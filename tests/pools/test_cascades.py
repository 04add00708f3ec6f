"""Cascades by agreement and by visible checks: brute-force oracles, the two ends, orders, missing answers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.config.registry import pick
from w2s.ensemble.ballots import NotApplicable
from w2s.pools import cascades
from w2s.pools.cascades import METHODS
from w2s.pools.records import NOT_ASKED, Opinions, Truth, rightness
from w2s.store.records import BadInput


def pool_of(members, answer_MN, gold_N=None, size=3, **recorded):
    """A pool with `size` candidates everywhere; without gold the truth has the recorded `right_MN` alone."""
    answer_MN, right_MN = np.asarray(answer_MN, np.int16), recorded.pop("right_MN", None)
    ids = np.array([f"q{at:03}" for at in range(answer_MN.shape[1])])
    texts = np.empty(len(ids), object)
    texts[:] = [tuple("abcdefgh"[:size])] * len(ids)
    blank = np.full(len(ids), "")
    count_N = np.full(len(ids), size)
    opinions = Opinions(ids, np.array(members), answer_MN, count_N, texts, blank, blank, **recorded)
    if gold_N is None:
        return opinions, Truth(ids, np.full(len(ids), -2), np.asarray(right_MN, float))
    right_MN = np.where(answer_MN == NOT_ASKED, np.nan, (answer_MN >= 0) & (answer_MN == gold_N))
    return opinions, Truth(ids, np.asarray(gold_N, np.int16), right_MN)


WEAK = ["small/cot#0", "small/cot#1", "small/cot#2", "small/pot#0", "small/pot#1", "small/pot#2"]
STRONG = ["big#0", "big#1"]


def random_pool(seed, rows=40, least=-2):
    """Three samples of two weak prompt kinds and two of a better strong model, with gaps of every kind."""
    rng = np.random.default_rng(seed)
    gold_N = rng.integers(-1, 3, rows)
    answer_MN = rng.integers(least, 3, (8, rows))
    knows_MN = rng.random((8, rows)) < np.array([0.4] * 6 + [0.8] * 2)[:, None]
    return pool_of(WEAK + STRONG, np.where(knows_MN & (gold_N >= 0), gold_N, answer_MN), gold_N)


def cut(truth, opinions, members):
    return Truth(truth.ids, truth.gold_N, truth.right_MN[[opinions.members.tolist().index(name) for name in members]])


def decide(fitted, opinions, point=None):
    point = fitted.point if point is None else point
    return cascades.APPLY[fitted.kind](fitted, opinions.only(fitted.members), point)


def one_by_one(answers, by, abstentions):
    """(distribution over candidates, agreement or None) of one question's weak answers, by kind, in exact fractions."""
    if by == "vote":
        ballots = [[answer] for kind in answers for answer in kind if answer > (-2 if abstentions else -1)]
    else:
        ballots = []
        for kind in answers:
            counts = {answer: kind.count(answer) for answer in kind if answer >= 0}
            best = [answer for answer, count in counts.items() if count == max(counts.values())]
            if best or abstentions:
                ballots.append(best)
    votes = {}
    for ballot in ballots:
        for answer in ballot:
            if answer >= 0:
                votes[answer] = votes.get(answer, 0) + Fraction(1, len(ballot))
    return votes, max(votes.values()) / len(ballots) if votes else None


def score(votes, gold):
    best = [answer for answer, count in votes.items() if count == max(votes.values())]
    return Fraction(gold in best, max(len(best), 1))


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(["vote", "verification"]), st.booleans())
def test_every_point_equals_the_cascade_played_question_by_question(seed, by, abstentions):
    opinions, truth = random_pool(seed)
    fitted = METHODS["consistency"](
        opinions, truth, weak=["small/*"], strong=["big"], by=by, abstentions=abstentions, tolerance=0.05
    )
    curve = []
    for point in range(len(fitted.points)):
        decision = decide(fitted, opinions, point)
        right_N = rightness(decision, cut(truth, opinions, fitted.members))
        escalated, total = 0, Fraction(0)
        for row, gold in enumerate(truth.gold_N.tolist()):
            column = opinions.answer_MN[:, row].tolist()
            votes, agreement = one_by_one([column[:3], column[3:6]], by, abstentions)
            up = agreement is None or float(agreement) < fitted.arrays["threshold_P"][point] - 1e-6
            strong, _ = one_by_one([column[6:]], "vote", False)
            expected = score(strong if up and strong else votes, gold)
            assert right_N[row] == pytest.approx(float(expected))
            paid = [answer != NOT_ASKED for answer in column[:6]] + [
                up and answer != NOT_ASKED for answer in column[6:]
            ]
            assert decision.asked_MN[:, row].tolist() == paid
            escalated, total = escalated + up, total + expected
        assert fitted.arrays["escalated_P"][point] == pytest.approx(escalated / 40)
        assert fitted.arrays["accuracy_P"][point] == pytest.approx(float(total / 40))
        curve.append((escalated, total / 40))
    assert [escalated for escalated, _ in curve] == sorted({escalated for escalated, _ in curve})
    enough = max(accuracy for _, accuracy in curve) - Fraction(1, 20)
    assert curve[fitted.point][0] == min(escalated for escalated, accuracy in curve if accuracy >= enough)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_the_points_are_all_that_thresholds_can_do(seed):
    opinions, truth = random_pool(seed)
    fitted = METHODS["consistency"](opinions, truth, weak=["small/*"], strong=["big"])
    _, agreement_N, _ = cascades.count_both(opinions.only(fitted.members), fitted.arrays["kind_M"], fitted.meta)
    possible = {int((agreement_N < threshold).sum()) for threshold in np.linspace(0, 1.2, 2000)}
    assert {round(share * 40) for share in fitted.arrays["escalated_P"]} == possible


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_a_larger_share_to_escalate_never_lowers_the_accuracy_on_the_fit_questions(seed):
    opinions, truth = random_pool(seed, least=0)
    last = -1
    for escalate in np.linspace(0, 1, 9):
        options = {"weak": ["small/*"], "strong": ["big"], "escalate": float(escalate)}
        fitted = METHODS["consistency"](opinions, truth, **options)
        assert fitted.arrays["escalated_P"][fitted.point] <= escalate + 1e-9
        assert fitted.arrays["accuracy_P"][fitted.point] >= last
        last = fitted.arrays["accuracy_P"][fitted.point]


def test_escalating_nothing_is_the_weak_vote_and_escalating_all_is_the_strong_vote():
    opinions, truth = random_pool(1, least=0)
    fitted = METHODS["consistency"](opinions, truth, weak=["small/*"], strong=["big"])
    first, last = decide(fitted, opinions, 0), decide(fitted, opinions, len(fitted.points) - 1)
    np.testing.assert_allclose(first.probs_NK, np.eye(3)[opinions.answer_MN[:6]].mean(0))
    np.testing.assert_allclose(last.probs_NK, np.eye(3)[opinions.answer_MN[6:]].mean(0))
    assert not first.asked_MN[6:].any()
    assert last.asked_MN.all()


def test_verification_of_two_prompt_kinds_asks_whether_their_majorities_are_the_same():
    #                             same        not         one is silent
    answer_MN = np.array([[0, 0, 1], [0, 2, 1], [1, 0, -1], [0, 1, -1], [0, 1, -1], [2, 1, -1], [1, 1, 1], [1, 1, 1]])
    opinions, truth = pool_of(WEAK + STRONG, answer_MN, np.array([0, 1, 1]))
    fitted = METHODS["consistency"](opinions, truth, weak=["small/*"], strong=["big"], by="verification")
    decision = decide(fitted, opinions)
    assert decision.asked_MN[6].tolist() == [False, True, True]
    np.testing.assert_allclose(decision.probs_NK[0], [1, 0, 0])
    assert rightness(decision, truth).tolist() == [1, 1, 1]
    # Where abstentions are left out, one kind's answer agrees with itself: 1 instead of a half.
    for abstentions, agreement in ((True, 0.5), (False, 1.0)):
        meta = fitted.meta | {"abstentions": abstentions}
        assert cascades.count_both(opinions, fitted.arrays["kind_M"], meta)[1][2] == agreement


@pytest.mark.parametrize("by", ["vote", "verification"])
def test_no_order_of_members_or_questions_changes_a_decision(by):
    opinions, truth = random_pool(3)
    rng = np.random.default_rng(0)
    members, rows = rng.permutation(8), rng.permutation(40)
    mixed = opinions.only(opinions.members[members]).questions(rows)
    mixed_truth = Truth(mixed.ids, truth.gold_N[rows], truth.right_MN[members][:, rows])
    one = METHODS["consistency"](opinions, truth, by=by, samples=2, strong=["big"], weak=["small/cot", "small/pot"])
    two = METHODS["consistency"](mixed, mixed_truth, by=by, samples=2, strong=["big"], weak=["small/pot", "small/cot"])
    assert (one.points, one.point) == (two.points, two.point)
    for point in range(len(one.points)):
        first, second = decide(one, opinions, point), decide(two, mixed, point)
        np.testing.assert_allclose(first.probs_NK[rows], second.probs_NK, atol=1e-12)
        np.testing.assert_array_equal(first.asked_MN.sum(0)[rows], second.asked_MN.sum(0))


def test_left_out_the_strong_model_is_the_most_accurate_and_the_weak_ones_have_more_samples():
    opinions, truth = random_pool(5, rows=200)
    fitted = METHODS["consistency"](opinions, truth)
    assert fitted.members.tolist() == WEAK + STRONG
    alone, alone_truth = opinions.only(["small/cot#0", "big#0"]), cut(truth, opinions, ["small/cot#0", "big#0"])
    with pytest.raises(NotApplicable, match="no model has more samples than the strong one"):
        METHODS["consistency"](alone, alone_truth)


def test_the_first_samples_are_those_with_the_smallest_numbers():
    members = [f"weak#{number}" for number in (10, 2, 0, 1)] + ["strong"]
    opinions, truth = pool_of(members, np.zeros((5, 4)), np.zeros(4, int))
    fitted = METHODS["consistency"](opinions, truth, weak=["weak"], strong=["strong"], samples=3)
    assert fitted.members.tolist() == ["weak#0", "weak#1", "weak#2", "strong"]


def test_questions_without_gold_take_no_part_in_the_fit():
    opinions, truth = random_pool(7)
    kept = np.arange(40) % 3 > 0
    part = Truth(truth.ids, np.where(kept, truth.gold_N, -2), np.where(kept, truth.right_MN, np.nan))
    whole = METHODS["consistency"](opinions, part, weak=["small/*"], strong=["big"])
    alone = METHODS["consistency"](opinions.questions(kept), truth.questions(kept), weak=["small/*"], strong=["big"])
    assert (whole.points, whole.point) == (alone.points, alone.point)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weak": ["tiny"]}, "weak: 'tiny' given; there are: big, small/cot, small/pot"),
        ({"strong": ["huge*"]}, r"strong: 'huge\*' given; there are"),
        ({"weak": ["small/*"], "strong": ["*cot"]}, "weak: 'small/cot' is among the strong members too"),
        ({"weak": []}, "weak: no member is named"),
        ({"samples": 0}, "samples: 0 given; allowed: a whole number .above 0. or null"),
        ({"tolerance": -0.1}, "tolerance: -0.1 given; allowed: a number .from 0 to 1."),
        ({"escalate": 35.0}, "escalate: 35.0 given; allowed: a number .from 0 to 1. or null"),
    ],
)
def test_a_bad_option_is_refused(options, message):
    with pytest.raises(BadInput, match=message):
        pick(METHODS, {"name": "consistency", **options})(*random_pool(0))


def test_without_recorded_answers_there_is_no_agreement():
    opinions, truth = pool_of(["a#0", "a#1", "b"], np.full((3, 5), -3), right_MN=np.ones((3, 5)))
    with pytest.raises(NotApplicable, match="recorded answers"):
        METHODS["consistency"](opinions, truth)


def programs(check_MN, right_MN, **recorded):
    names = [f"m{at}" for at in range(len(check_MN))]
    return pool_of(names, np.full(np.shape(check_MN), -3), right_MN=right_MN, size=0, check_MN=check_MN, **recorded)


@settings(max_examples=60)
@given(st.integers(0, 10**6))
def test_the_first_program_that_passes_is_taken_and_the_last_as_it_is(seed):
    rng = np.random.default_rng(seed)
    check_MN = rng.choice([0, 1, np.nan], (3, 20))
    opinions, truth = programs(check_MN, rng.integers(0, 2, (3, 20)))
    opinions.answer_MN[rng.random((3, 20)) < 0.2] = NOT_ASKED
    opinions.answer_MN[rng.random((3, 20)) < 0.2] = -1
    fitted = METHODS["checked"](opinions, truth, order=["m2", "m0", "m1"])
    assert fitted.members.tolist() == ["m2", "m0", "m1"]
    shown = opinions.only(fitted.members)
    decision = decide(fitted, opinions)
    for row in range(20):
        taken, asked = None, []
        for at in range(3):
            asked.append(bool(shown.answer_MN[at, row] != NOT_ASKED))
            if shown.answer_MN[at, row] in (-1, NOT_ASKED):
                continue
            taken = at
            if shown.check_MN[at, row] == 1:
                break
        assert decision.abstained_N[row] == (taken is None)
        assert taken is None or decision.member_N[row] == taken
        assert decision.asked_MN[:, row].tolist() == asked + [False] * (3 - len(asked))


def test_checks_that_all_pass_are_the_first_member_and_checks_that_all_fail_the_last():
    right_MN = np.random.default_rng(0).integers(0, 2, (3, 20))
    for value, member in ((1, 0), (0, 2)):
        opinions, truth = programs(np.full((3, 20), float(value)), right_MN)
        decision = decide(METHODS["checked"](opinions, truth, order=["m0", "m1", "m2"]), opinions)
        assert (decision.member_N == member).all()
        np.testing.assert_array_equal(rightness(decision, truth), right_MN[member])


def test_left_out_the_order_is_by_accuracy_or_by_cost_where_it_is_known():
    right_MN = np.repeat([[0.9], [0.2], [0.5], [0.7]], 10, axis=1)
    check_MN = np.ones((4, 10))
    assert METHODS["checked"](*programs(check_MN, right_MN)).members.tolist() == ["m2", "m3", "m0"]
    cost_MN = np.repeat([[0.1], [0.2], [0.3], [0.2]], 10, axis=1)
    assert METHODS["checked"](*programs(check_MN, right_MN, cost_MN=cost_MN)).members.tolist() == ["m0", "m3", "m2"]
    check_MN[0] = np.nan
    assert METHODS["checked"](*programs(check_MN, right_MN), length=2).members.tolist() == ["m2", "m3"]


def test_a_cascade_by_checks_needs_checks_and_names_that_exist():
    opinions, truth = random_pool(0)
    with pytest.raises(NotApplicable, match="no checks were recorded"):
        METHODS["checked"](opinions, truth)
    opinions, truth = programs(np.ones((2, 4)), np.ones((2, 4)))
    with pytest.raises(BadInput, match="order: 'm7' given; 0 members have this name"):
        METHODS["checked"](opinions, truth, order=["m0", "m7"])
    with pytest.raises(BadInput, match="order: no member is named"):
        METHODS["checked"](opinions, truth, order=[])
    with pytest.raises(BadInput, match="length: 0 given"):
        pick(METHODS, {"name": "checked", "length": 0})


def test_mixtures_of_prompts_reach_88_percent_at_35_percent_escalation_on_real_samples(shared):
    from w2s.pools.read import read_pool

    opinions, truth = read_pool(shared / "recorded" / "mot_date")
    right, escalated = [], []
    for seed in range(5):
        rows = np.random.default_rng(seed).permutation(len(opinions.ids))
        fit, judged = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        options = {"weak": ["gpt-3.5/cot2", "gpt-3.5/pot2"], "strong": ["gpt-4/cot2"], "escalate": 0.35}
        fitted = METHODS["consistency"](opinions.questions(fit), truth.questions(fit), **options)
        decision = decide(fitted, opinions.questions(judged))
        right.append(rightness(decision, truth.questions(judged)).mean())
        escalated.append(decision.asked_MN[fitted.arrays["kind_M"] < 0].any(0).mean())
    assert np.mean(right) >= 0.88
    assert np.mean(escalated) <= 0.35


def test_gpt_4_behind_gpt_3_5_by_docstring_tests_is_better_than_both(shared):
    from w2s.pools.read import read_pool

    opinions, truth = read_pool(shared / "recorded" / "humaneval_programs")
    order = ["ldbseed:gpt-3.5-turbo-0613", "ldbseed:gpt-4-1106-preview"]
    fitted = METHODS["checked"](opinions, truth, order=order)
    decision = decide(fitted, opinions)
    assert rightness(decision, cut(truth, opinions, order)).mean() == pytest.approx(0.890, abs=0.001)
    assert decision.asked_MN[1].mean() == pytest.approx(0.22, abs=0.001)
