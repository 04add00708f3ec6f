import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from w2s.evaluation.statistics import (
    Scores,
    contrast,
    pass_at_k,
    rate,
    ratio,
    smallest_difference,
    tango,
    wilson,
)

MINUS = [-1.0, 1.0]


def one_seed(values_NM, start=0):
    values_NM = np.asarray(values_NM, dtype=float)
    return Scores(np.arange(start, start + len(values_NM)), values_NM)


def answers(rng, n, skill_M, alike=0.5):
    """Right or wrong answers of models with these accuracies; `alike`: the share of questions hard for all at once."""
    hard_N = rng.random(n)
    own_NM = rng.random((n, len(skill_M)))
    return (np.where(rng.random((n, 1)) < alike, hard_N[:, None], own_NM) < np.asarray(skill_M)).astype(float)


def world(rng, seeds, n, *, seed_sd, shared, gain=0.05):
    """Right or wrong answers of two models in several seeds; a seed shifts what the second model gains."""
    hard_N = rng.random(n)
    scores = []
    for index in range(seeds):
        hard_N = hard_N if shared else rng.random(n)
        shift = np.clip(gain + seed_sd * rng.normal(), -0.3, 0.3)
        mix_NM = np.where(rng.random((n, 2)) < 0.6, hard_N[:, None], rng.random((n, 2)))
        scores.append(one_seed(mix_NM < np.array([0.5, 0.5 + shift]), start=0 if shared else index * n))
    return scores


def two_level_bootstrap(rng, scores, draws=400):
    """The textbook two-level bootstrap of a paired difference, as a reference: seeds, then items inside each."""
    seeds = len(scores)
    means_SBP = np.empty((seeds, draws, seeds))
    for one, means_BP in zip(scores, means_SBP, strict=True):
        gaps, times = np.unique(one.values_NM @ MINUS, return_counts=True)
        means_BP[:] = rng.multinomial(len(one.ids), times / times.sum(), size=(draws, seeds)) @ gaps / len(one.ids)
    chosen_BP = rng.integers(seeds, size=(draws, seeds))
    drawn = means_SBP[chosen_BP, np.arange(draws)[:, None], np.arange(seeds)].mean(1)
    return np.quantile(drawn, [0.025, 0.975])


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1)]
)
def test_wilson_agrees_with_the_examples_of_newcombe_1998(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("n", [50, 200, 1000])
def test_wilson_covers_close_to_95_percent(n):
    right = np.arange(n + 1)
    inside = np.array([wilson(r, n) for r in right])
    covered = [
        stats.binom.pmf(right, n, p)[(inside[:, 0] <= p) & (p <= inside[:, 1])].sum() for p in np.linspace(0.1, 0.9, 81)
    ]
    assert 0.935 <= np.mean(covered) <= 0.97  # exact, no simulation


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.floats(0, 1))))
def test_the_ends_of_tangos_interval_lie_196_deviations_off_at_the_likeliest_rates(case):
    n, plus, share = case
    minus = int(share * (n - plus))
    low, high = tango(plus, minus, n)
    assert (low, high) == pytest.approx((-tango(minus, plus, n)[1], -tango(minus, plus, n)[0]), abs=1e-9)
    assert -1 <= low <= (plus - minus) / n <= high <= 1
    for d in {low, high} - {-1.0, 1.0}:
        grid = np.linspace(max(0, -d), (1 - d) / 2, 20_001)[1:-1]  # rates of `minus`; `plus` has d more
        likely = stats.multinomial.logpmf(
            [plus, minus, n - plus - minus], n, np.stack([grid + d, grid, 1 - 2 * grid - d], 1)
        )
        rate = grid[likely.argmax()]
        assert abs(plus - minus - n * d) / np.sqrt(n * (2 * rate + d - d * d)) == pytest.approx(1.96, abs=0.01)


def test_tangos_interval_of_all_for_it_and_of_nothing_at_all():
    assert tango(50, 0, 50) == pytest.approx(((50 - 1.96**2) / (50 + 1.96**2), 1), abs=1e-4)
    assert tango(0, 0, 50) == pytest.approx((-(1.96**2) / (50 + 1.96**2), 1.96**2 / (50 + 1.96**2)), abs=1e-4)
    with pytest.raises(ValueError, match="empty"):
        tango(0, 0, 0)


@pytest.mark.parametrize("n", [50, 200, 1000])
@pytest.mark.parametrize("skills", [(0.5, 0.6), (0.3, 0.35), (0.8, 0.9)])
def test_paired_intervals_cover_close_to_95_percent(n, skills):
    rng = np.random.default_rng(n)
    hits = []
    for _ in range(500):
        found = contrast([one_seed(answers(rng, n, skills))], MINUS)
        hits.append(found.low <= skills[1] - skills[0] <= found.high)
    assert 0.935 - 0.02 <= np.mean(hits) <= 0.97 + 0.02  # 500 trials: two standard errors are 0.02


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 200, 1000])
@pytest.mark.parametrize("skills", [(0.5, 0.6), (0.3, 0.35), (0.8, 0.9)])
def test_paired_intervals_cover_close_to_95_percent_in_many_trials(n, skills):
    rng = np.random.default_rng(n)
    hits = []
    for _ in range(6000):
        found = contrast([one_seed(answers(rng, n, skills))], MINUS)
        hits.append(found.low <= skills[1] - skills[0] <= found.high)
    assert 0.935 <= np.mean(hits) <= 0.97


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("shared", [False, True], ids=["own questions", "shared questions"])
@pytest.mark.parametrize("seed_sd", [0.0, 0.03, 0.08])
def test_intervals_over_few_seeds_cover_training_noise_too(seeds, shared, seed_sd):
    rng = np.random.default_rng(seeds * 10 + shared)
    hits = []
    for _ in range(600):
        found = contrast(world(rng, seeds, 200, seed_sd=seed_sd, shared=shared), MINUS)
        hits.append(found.low <= 0.05 <= found.high)
    assert np.mean(hits) >= 0.935 - 0.02


def test_the_plain_two_level_bootstrap_misses_where_ours_does_not():
    rng = np.random.default_rng(3)
    ours, plain = [], []
    for _ in range(120):
        scores = world(rng, 5, 800, seed_sd=0.12, shared=False, gain=0.0)
        low, high = two_level_bootstrap(rng, scores)
        found = contrast(scores, MINUS)
        plain.append(low <= 0 <= high)
        ours.append(found.low <= 0 <= found.high)
    assert np.mean(plain) < 0.9 < 0.92 < np.mean(ours)


@pytest.mark.parametrize("seeds", [1, 5])
def test_the_interval_of_pgr_covers_the_truth(seeds):
    rng = np.random.default_rng(8)
    hits = []
    for _ in range(150):
        scores = [one_seed(answers(rng, 300, (0.4, 0.55, 0.7)), start=300 * s) for s in range(seeds)]
        found = ratio(scores, [-1, 1, 0], [-1, 0, 1])
        hits.append(found.low <= 0.5 <= found.high)
    assert np.mean(hits) >= 0.92


def test_without_shared_questions_it_is_the_t_interval_on_the_differences_of_the_seeds():
    rng = np.random.default_rng(0)
    scores = world(rng, 5, 400, seed_sd=0.1, shared=False)
    differences = [float((s.values_NM @ MINUS).mean()) for s in scores]
    low, high = stats.t.interval(0.95, 4, np.mean(differences), stats.sem(differences))
    found = contrast(scores, MINUS)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.n == 2000


def test_an_interval_over_seeds_is_never_narrower_than_the_questions_alone():
    rng = np.random.default_rng(0)
    values = answers(rng, 100, (0.4, 0.6))
    twins = [one_seed(values), one_seed(values, start=100)]  # the two seeds agree to the last digit by accident
    found = contrast(twins, MINUS)
    assert found.high - found.low > 1.9 * np.std(values @ MINUS) / np.sqrt(200)


def test_pgr_is_the_ratio_of_the_paired_differences_and_fieller_agrees_with_its_closed_form():
    rng = np.random.default_rng(1)
    scores = [one_seed(answers(rng, 500, (0.4, 0.5, 0.7)), start=500 * s) for s in range(4)]
    found = ratio(scores, [-1, 1, 0], [-1, 0, 1])
    mean_SM = np.array([s.values_NM.mean(0) for s in scores])
    a, b = mean_SM[:, 1] - mean_SM[:, 0], mean_SM[:, 2] - mean_SM[:, 0]
    assert found.value == pytest.approx(a.mean() / b.mean())
    cov, t2 = np.cov(a, b) / 4, stats.t.ppf(0.975, 3) ** 2
    roots = np.roots(
        [b.mean() ** 2 - t2 * cov[1, 1], -2 * (a.mean() * b.mean() - t2 * cov[0, 1]), a.mean() ** 2 - t2 * cov[0, 0]]
    )
    assert (found.low, found.high) == pytest.approx(
        sorted(roots), abs=0.02
    )  # 0.02: where the questions alone are wider


def test_pgr_has_no_number_where_ceiling_and_floor_cannot_be_told_apart():
    rng = np.random.default_rng(2)
    found = ratio(
        [one_seed(answers(rng, 100, (0.5, 0.5, 0.5)))],
        [-1, 1, 0],
        [-1, 0, 1],
        unclear="ceiling and floor cannot be told apart",
    )
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.reason.startswith("ceiling and floor cannot be told apart: difference ")
    assert "95% CI -" in found.reason


@given(st.integers(1, 6), st.integers(0, 2**16))
@settings(max_examples=25, deadline=None)
def test_swapping_two_models_mirrors_their_difference(seeds, seed):
    rng = np.random.default_rng(seed)
    scores = world(rng, seeds, 40, seed_sd=0.05, shared=bool(seed % 2))
    there, back = contrast(scores, MINUS), contrast(scores, [1.0, -1.0])
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))
    assert there.low <= there.value <= there.high


def test_the_order_of_seeds_and_of_questions_changes_nothing():
    rng = np.random.default_rng(4)
    scores = world(rng, 3, 80, seed_sd=0.05, shared=True)
    order = rng.permutation(80)
    shuffled = [Scores(s.ids[order], s.values_NM[order]) for s in reversed(scores)]
    first, second = contrast(scores, MINUS), contrast(shuffled, MINUS)
    assert (first.value, first.low, first.high) == pytest.approx((second.value, second.low, second.high))


def test_a_shared_question_is_not_counted_twice():
    rng = np.random.default_rng(5)
    values = answers(rng, 200, (0.4, 0.6))
    once = contrast([one_seed(values)], MINUS)
    again = contrast([one_seed(values)] * 5, MINUS)  # five seeds that answered the same are not five times the evidence
    assert again.n == 200
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.06)


def test_models_that_tie_everywhere_still_have_an_interval():
    tied = np.ones((60, 2))
    found = contrast([one_seed(tied)], MINUS)
    assert found.value == 0
    assert found.low < 0 < found.high
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 60))
    assert smallest_difference([one_seed(tied)], MINUS) is None


def test_a_rate_of_all_right_over_seeds_stays_within_0_and_1_and_is_not_certain():
    found = rate([one_seed(np.ones((30, 1)), start=30 * s) for s in range(3)])
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.9 < found.low < 1


@pytest.mark.parametrize("scores", [[], [Scores(np.array([], dtype=int), np.zeros((0, 2)))]])
def test_an_empty_set_raises(scores):
    for call in (lambda: rate(scores), lambda: contrast(scores, MINUS), lambda: ratio(scores, MINUS, MINUS)):
        with pytest.raises(ValueError, match="empty"):
            call()
    with pytest.raises(ValueError, match="empty"):
        wilson(0, 0)
    with pytest.raises(ValueError, match="empty"):
        pass_at_k(np.array([]), np.array([]), 1)


def test_a_question_twice_in_one_seed_is_refused():
    with pytest.raises(ValueError, match="one row"):
        rate([Scores(np.array(["a", "a"]), np.ones((2, 1)))])


def test_the_smallest_difference_is_found_with_80_percent_power():
    rng = np.random.default_rng(6)
    n, discordant = 400, 0.2
    pilot_N = rng.choice([-1.0, 1.0, 0.0], size=n, p=[discordant / 2, discordant / 2, 1 - discordant])
    as_pairs = lambda d_N: one_seed(np.stack([d_N < 0, d_N > 0], 1))  # noqa: E731
    smallest = smallest_difference([as_pairs(pilot_N)], MINUS)
    assert smallest == pytest.approx(2.80 * np.sqrt(discordant / n), rel=0.1)
    chance = [(discordant - smallest) / 2, (discordant + smallest) / 2, 1 - discordant]
    found = [contrast([as_pairs(rng.choice([-1.0, 1.0, 0.0], size=n, p=chance))], MINUS).low > 0 for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 3), (6, 0, 2), (6, 6, 4), (7, 5, 3), (4, 1, 1)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_samples_that_hold_a_pass(n, c, k):
    samples = [1] * c + [0] * (n - c)
    share = np.mean([max(chosen) for chosen in itertools.combinations(samples, k)])
    assert pass_at_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(share)


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="needs at least 5"):
        pass_at_k(np.array([5, 4]), np.array([1, 1]), 5)
