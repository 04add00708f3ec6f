"""A run that never happened, with numbers like those of a real one: what the tests of the report are made of."""

import dataclasses

import numpy as np
import pytest

from tests.evaluation.written_runs import Written, write_run
from w2s.evaluation.run.contents import Cost, HeavyRow, ReportData, Reproduce, Sample, Step, Training, Vote
from w2s.evaluation.run.metrics import calibration_bins, difficulty_bins, judge, measure, measure_samples
from w2s.store.records import Predictions, softmax

SKILLS = {
    "floor": 0.5,
    "best_learner": 0.62,
    "committee": 1.05,
    "student": 1.3,
    "ceiling": 2.1,
    "uniform": 1.0,
    "bagged": 0.86,
    "answer_level": 0.84,
    "long_learner": 0.9,
    "naive_student": 0.6,
    "recorded_student": 1.2,
    "rewarded": 1.15,
    "sft_student": 1.25,
    "unrewarded": 1.2,
    "zero_shot": 0.2,
    "easy_gold": 2.05,
    "shuffled": -0.3,
}


def made_up_answers(seeds=(0, 1, 2, 3, 4), n=400, shift=0.0):
    """Opinions that share what makes a question hard, judged; and how hard each question is (1 to 29)."""
    answers, difficulty = {}, {}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        ids = np.array([f"{seed}-{i:04d}" for i in range(n)])
        gold_N, hard_N = rng.integers(4, size=n), rng.integers(1, 30, size=n)
        difficulty |= dict(zip(ids.tolist(), hard_N.tolist(), strict=True))
        mask_NK, lure_NK = np.ones((n, 4), bool), rng.normal(size=(n, 4))
        gold = dict(zip(ids.tolist(), gold_N.tolist(), strict=True))
        answers[seed] = {}
        for model, skill in SKILLS.items():
            reach_N = (skill + shift + 0.1 * rng.normal()) * (1.6 - hard_N / 20)
            scores_NK = lure_NK + 0.5 * rng.normal(size=(n, 4)) + reach_N[:, None] * (np.arange(4) == gold_N[:, None])
            opinion = Predictions(ids, softmax(1.3 * scores_NK, mask_NK), mask_NK, np.zeros(n, bool), model)
            answers[seed][model] = judge(opinion, gold)
    return answers, difficulty


def made_up_data(answers, difficulty, *, run="quickstart", poison=""):
    """A full ReportData; `poison` is put into every text that a data set or a model could have written."""
    rng = np.random.default_rng(9)
    labels, bins = difficulty_bins(difficulty)
    metrics = measure("hard qa", answers, bins=bins)
    metrics += measure_samples(
        "functions", "student", {0: [(f"f{i}", 5, int(rng.integers(6))) for i in range(60)]}, ks=(1, 10)
    )
    committees = {}
    for seed in answers:
        error_R = 0.36 + 0.025 * np.arange(8) + 0.01 * rng.normal(size=8)
        alpha_R = 0.5 * (np.log((1 - error_R) / error_R) + np.log(3))
        share_R = np.clip(1 - 0.1 * np.arange(8) + 0.03 * rng.normal(size=8), 0.3, 1)
        stop = "the committee on validation has not improved for 2 rounds"
        columns = zip(error_R.tolist(), alpha_R.tolist(), share_R.tolist(), [None] * 7 + [stop], strict=True)
        rounds = [dict(zip(("error", "alpha", "effective_share", "stop"), row, strict=True)) for row in columns]
        staged = 0.64 + 0.16 * (1 - np.exp(-np.arange(8) / 2.2)) + 0.006 * rng.normal(size=8)
        accuracy = {"accuracy_by_rounds": staged.tolist(), "used": int(staged.argmax()) + 1}
        committees[seed] = {"rounds": rounds, **accuracy}
    phi_RR = np.clip(np.eye(8) + (1 - np.eye(8)) * np.clip(0.35 + 0.15 * rng.normal(size=(8, 8)), -0.2, 1), -1, 1)
    phi_RR = np.round((phi_RR + phi_RR.T) / 2, 3)
    question = f"TALL otter basil quartz ember ?{poison}"
    heavy = [
        HeavyRow(f"h{i}", question, f"quartz{poison}", tuple((1.35 ** np.arange(8) * (1 - 0.05 * i)).tolist()), 0, 12)
        for i in range(8)
    ]
    votes = tuple(Vote(f"round {i + 1}", f"quartz{poison}" if i % 3 else "ember", 0.4 + 0.05 * i) for i in range(8))
    samples = [
        Sample(
            f"s{i}",
            question,
            ("otter", "basil", f"quartz{poison}", "ember"),
            votes,
            f"quartz{poison}",
            "agreement 0.71",
            "quartz",
        )
        for i in range(6)
    ]
    said = tuple(
        Vote(m, f"quartz{poison}" if i else "ember", 0.4, i > 0) for i, m in enumerate(("committee", "student"))
    )
    told = [dataclasses.replace(one, votes=said) for one in samples]
    falling = tuple((10 * at, 1 / at) for at in range(1, 40))
    agreed = tuple((step, 1 - value) for step, value in falling[::5])
    training = [Training("student", seed, falling, falling[::5], agreed) for seed in answers]
    training += [Training(f"round {i + 1}", 0, falling) for i in range(8)]
    costs = [
        ("pretrain the strong base", 71.2, 49_152_000),
        ("boosting rounds", 84.1, 9_216_000),
        ("controls", 92.8, 12_400_000),
    ]
    costs += [
        ("label the transfer pool", 6.4, 960_000),
        ("student", 41.3, 2_300_000),
        ("evaluate", 9.9, 1_100_000),
        ("report", 1.8, None),
    ]
    return ReportData(
        run=run,
        suite="hard qa",
        metrics=tuple(metrics),
        synthetic="Synthetic questions: made by the embedded world, not by people." + poison,
        flow=(
            Step("easy, with gold", "4,000 questions", "500 more held out"),
            Step("boosting", "8 rounds", "7 kept on validation"),
            Step("committee", "7 learners", "worth 2.4 voters"),
            Step("transfer pool", "4,000 questions", "no gold"),
            Step("labels kept", "3,412", "of 4,000, by agreement"),
            Step("student", "1 model", "attention only"),
            Step("suites", "hard qa, functions", f"{sum(len(m['student'].ids) for m in answers.values()):,} questions"),
        ),
        duplicates={"easy fit and hard test": 12, "transfer and hard test": 3},
        controls_off=("shuffled",) if "shuffled" not in next(iter(answers.values())) else (),
        committees=committees,
        dependence={
            "error_correlation": phi_RR.tolist(),
            "effective_voters": 2.4,
            "effective_directions": 4.1,
            "warning": f"the learners err together: the 8 learners are worth 2.4 independent voters{poison}",
        },
        heaviest=tuple(heavy),
        difficulty_bins=labels,
        difficulty_name="closeness of the best two, easy to hard",
        calibration={
            m: calibration_bins(next(iter(answers.values()))[m], 10)
            for m in ("floor", "committee", "student", "ceiling")
        },
        costs=tuple(Cost(*one) for one in costs),
        answers=tuple(told),
        samples=tuple(samples),
        training=tuple(training),
        reproduce=Reproduce(
            f"w2s run configs/quickstart.yaml seeds='[0,1,2,3,4]'{poison}",
            f"name: quickstart\nseeds: [0, 1, 2, 3, 4]\nboosting:\n  rounds: 8  # {poison}\n",
            {"python": "3.11.9", "torch": "2.13.0", "transformers": "5.23.0", "deepspeed": "0.19.8", "numpy": "2.4.6"},
            "3b24d05f0c",
            "seccomp and namespaces",
        ),
        notes=("2 near-duplicates were removed from the transfer pool" + poison,),
    )


@pytest.fixture(scope="session")
def made_up():
    """(answers, difficulty, ReportData) of a run that never happened."""
    answers, difficulty = made_up_answers(n=120)
    return answers, difficulty, made_up_data(answers, difficulty)


@pytest.fixture(scope="session")
def make():
    """The two functions above, for tests that need another such run."""
    return made_up_answers, made_up_data


@pytest.fixture(params=["answer", "code"])
def written(request, tmp_path) -> Written:
    """A finished run of short answers or of programs: no choices."""
    return write_run(tmp_path, request.param)


@pytest.fixture
def voted(tmp_path) -> Written:
    """A run of short answers whose labels are the winners of a vote over whole answers."""
    return write_run(tmp_path, "answer", made="winner")
