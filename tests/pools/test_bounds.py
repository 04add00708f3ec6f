import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from w2s.pools.bounds import (
    all_wrong,
    both_below,
    clopper_pearson,
    copula_curve,
    copula_floor,
    joint_tail,
    mean_correlation,
    tetrachoric,
)


def errors(rng, error_R, rho, n):
    """Who errs on n questions: equally correlated latent normals below each voter's threshold."""
    common_N, own_RN = rng.normal(size=n), rng.normal(size=(len(error_R), n))
    return np.sqrt(rho) * common_N + np.sqrt(1 - rho) * own_RN < stats.norm.ppf(error_R)[:, None]


def test_all_wrong_by_hand():
    right_MN = np.array([[1.0, 0, 0, np.nan, np.nan], [0, 0, 0.5, 0, np.nan]])
    found = all_wrong(right_MN)
    assert (found.rate, found.n) == (0.5, 4)  # of the last question nothing is known
    assert (found.low, found.high) == clopper_pearson(2, 4)
    with pytest.raises(ValueError, match="empty"):
        all_wrong(np.full((2, 3), np.nan))


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_is_scipys(case):
    count, n = case
    expected = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(count, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("n", [20, 200])
def test_the_exact_interval_never_covers_less_than_95_percent(n):
    inside = np.array([clopper_pearson(count, n) for count in range(n + 1)])
    for p in np.linspace(0.01, 0.99, 99):
        assert stats.binom.pmf(np.arange(n + 1), n, p)[(inside[:, 0] <= p) & (p <= inside[:, 1])].sum() >= 0.95


@pytest.mark.parametrize(("error", "rho"), [(0.3, 0.2), (0.2, 0.5), (0.4, 0.7)])
def test_the_floor_and_the_curve_are_what_simulated_voters_do(error, rho):
    rng, n, sizes = np.random.default_rng(0), 40_000, np.array([1, 2, 5, 8, 21])
    wrong_RN = errors(rng, np.full(21, error), rho, n)
    measured = []
    for size in sizes:
        count_N = wrong_RN[:size].sum(0)
        measured.append(((2 * count_N > size) + 0.5 * (2 * count_N == size)).mean())
    assert copula_curve(error, rho, sizes) == pytest.approx(measured, abs=4 * 0.5 / np.sqrt(n))
    # Ever more voters: given the common factor all that is left is whether more than half of them err.
    share_N = stats.norm.cdf((stats.norm.ppf(error) - np.sqrt(rho) * rng.normal(size=n)) / np.sqrt(1 - rho))
    assert copula_floor(error, rho) == pytest.approx((share_N > 0.5).mean(), abs=4 * 0.5 / np.sqrt(n))


def test_the_curve_starts_at_the_error_falls_and_ends_at_the_floor():
    curve = copula_curve(0.3, 0.4, [1, 3, 5, 25, 101, 10_001])
    assert curve[0] == pytest.approx(0.3, abs=1e-9)
    assert (np.diff(curve) < 0).all()
    assert curve[-1] == pytest.approx(copula_floor(0.3, 0.4), abs=1e-3)


def test_independent_voters_have_no_floor_and_copies_gain_nothing():
    sizes = np.array([1, 3, 9])
    binomial = [stats.binom.sf(size // 2, size, 0.3) for size in sizes]
    assert copula_curve(0.3, 0.0, sizes) == pytest.approx(binomial, abs=1e-9)
    assert copula_floor(0.3, 0.0) == 0
    assert copula_floor(0.3, 1.0) == pytest.approx(0.3)
    assert copula_curve(0.3, 1.0, sizes) == pytest.approx(0.3, abs=0.01)


@given(st.floats(-2.5, 2.5), st.floats(-2.5, 2.5), st.floats(-0.99, 0.99))
def test_the_bivariate_normal_is_scipys(x, y, rho):
    expected = stats.multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf([x, y])
    assert both_below(x, y, rho) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8])
def test_the_latent_correlation_is_recovered(rho):
    wrong_RN = errors(np.random.default_rng(1), np.array([0.2, 0.35, 0.5, 0.7]), rho, 60_000)
    assert tetrachoric(wrong_RN)[np.triu_indices(4, 1)] == pytest.approx(rho, abs=0.03)
    assert mean_correlation(wrong_RN) == pytest.approx(rho, abs=0.015)


def test_copies_opposites_and_members_that_never_fail():
    one_N = np.array([1, 0, 1, 0, 0, 1])
    rho_RR = tetrachoric(np.stack([one_N, one_N, 1 - one_N, np.zeros(6)]))
    assert rho_RR[0, 1] == pytest.approx(1, abs=1e-3)
    assert rho_RR[0, 2] == pytest.approx(-1, abs=1e-3)
    assert np.isnan(rho_RR[0, 3])
    assert mean_correlation(np.zeros((3, 4))) == 0
    assert mean_correlation(one_N[None]) == 0


def test_the_copula_prices_its_own_tail_and_underprices_that_of_questions_no_one_can_answer():
    rng, error_R = np.random.default_rng(2), np.array([0.3, 0.4, 0.5, 0.6, 0.45, 0.35])
    own = joint_tail(errors(rng, error_R, 0.4, 30_000))
    assert own.measured.low < own.copula < own.measured.high
    assert own.correlation == pytest.approx(0.4, abs=0.02)
    hard = joint_tail((rng.random((6, 30_000)) < 0.3) | (rng.random(30_000) < 0.15))  # 15% are beyond all
    assert hard.copula < hard.measured.low


def test_the_tail_of_real_models_lies_on_either_side_of_the_copulas(shared):
    from w2s.pools.read import read_pool

    names = ["gemma-7b", "Yi-6B", "Yi-6b-Chat", "Llama-2-7b-hf", "Llama-2-13b-hf"]
    names += [f"Mistral-7B-{version}" for version in ("v0.1", "v0.2-hf", "Instruct-v0.1", "Instruct-v0.2")]
    weak = joint_tail(1 - np.nan_to_num(read_pool(shared / "recorded" / "mmlu_pro", models=names)[1].right_MN))
    assert weak.measured.rate == pytest.approx(1 - 0.6935, abs=5e-4)  # the oracle that the set's README tells
    assert weak.copula > weak.measured.high
    imdb = joint_tail(1 - np.nan_to_num(read_pool(shared / "recorded" / "frugalml_imdb")[1].right_MN))
    assert imdb.copula < imdb.measured.low
