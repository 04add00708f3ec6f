import pytest

from w2s.evaluation.run.metrics import MODELS
from w2s.evaluation.run.pictures import LABELS
from w2s.evaluation.run.verdict import WORDS, remarks, verdict
from w2s.store.records import Metric


def gap(model, other, value, low, high, seeds=(0,)):
    return Metric("hard", model, f"accuracy_minus_{other}", value, low, high, 1000, seeds)


PGR = Metric("hard", "student", "pgr", 0.42, 0.05, 0.78, 1000, (0,))


def test_a_clear_win_reads_as_one():
    assert verdict([gap("student", "committee", 0.031, 0.004, 0.058), PGR], "hard") == (
        "the student beats its committee by 3.1 points (95% CI 0.4 to 5.8, n = 1000); PGR 0.42 (0.05 to 0.78)"
    )


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((-0.02, -0.03, -0.01), "is behind its committee by 2.0 points (95% CI 1.0 to 3.0"),
        ((0.004, -0.011, 0.019), "cannot be told from its committee: difference 0.4 points (95% CI -1.1 to 1.9"),
    ],
)
def test_a_loss_and_a_draw_are_not_dressed_up(numbers, words):
    assert words in verdict([gap("student", "committee", *numbers), PGR], "hard")


def test_an_undefined_pgr_gives_its_reason_and_seeds_are_counted():
    undefined = Metric("hard", "student", "pgr", None, None, None, 9, (0, 1), "ceiling and floor cannot be told apart")
    said = verdict([gap("student", "committee", 0.1, 0.05, 0.2, seeds=(0, 1)), undefined], "hard")
    assert said.endswith("n = 1000, 2 seeds); PGR is undefined: ceiling and floor cannot be told apart")


def test_without_a_committee_there_is_no_verdict():
    metrics = [Metric("hard", "student", "accuracy", 0.5, 0.4, 0.6, 100, (0,))]
    assert verdict(metrics, "hard") == "no verdict: this run has no committee on hard"


def test_remarks_say_when_boosting_is_not_above_bagging_and_when_a_shortcut_does_as_well():
    said = " ".join(
        remarks(
            [
                gap("committee", "bagged", 0.002, -0.01, 0.012),
                gap("student", "zero_shot", -0.07, -0.09, -0.05),
                gap("ceiling", "easy_gold", 0.01, -0.01, 0.03),
                gap("ceiling", "floor", 0.4, 0.38, 0.42),
                Metric("hard", "student", "smallest_difference_committee", 0.024, None, None, 1000, (0,)),
            ],
            "hard",
        )
    )
    assert "Boosting cannot be told from bagging" in said
    assert "The student is behind its untouched base by 7.0 points" in said
    assert "recovers 98% of floor to ceiling; weak labels are hardly needed here" in said
    assert "2.4 points (80% power, 5% level)" in said
    assert "One seed: the intervals cover the questions" in said


def test_token_level_against_answer_level_reads_as_a_sentence():
    said = remarks(
        [gap("committee", "answer_level", 0.03, 0.01, 0.05), gap("committee", "uniform", 0.01, -0.01, 0.03)], "hard"
    )
    assert said == [
        "Boosting by tokens beats boosting by whole answers by 3.0 points (95% CI 1.0 to 5.0).",
        "Weighting the learners cannot be told from equal alphas: difference 1.0 points (95% CI -1.0 to 3.0).",
    ]


def test_what_rewards_and_an_objective_brought_is_said_whatever_it_is():
    won = gap("student", "committee", 0.09, 0.07, 0.11)
    nothing, lost = gap("student", "unrewarded", 0.01, -0.01, 0.03), gap("student", "sft_student", -0.05, -0.08, -0.02)
    assert verdict([won, nothing], "hard").endswith(
        "; rewards in labels brought no gain that can be told: 1.0 points (95% CI -1.0 to 3.0)"
    )
    assert verdict([won, lost], "hard").endswith("; objective brought a loss: -5.0 points (95% CI -8.0 to -2.0)")
    gained = gap("student", "unrewarded", 0.05, 0.02, 0.08)
    assert "rewards in labels brought a gain: 5.0 points" in verdict([won, gained], "hard")


def test_every_model_has_its_words_and_its_label():
    assert set(WORDS) == set(MODELS) == set(LABELS)


def test_labels_that_teach_no_more_than_shuffled_ones_are_a_warning():
    said = remarks([gap("student", "shuffled", 0.01, -0.01, 0.03)], "hard")
    assert len(said) == 1
    assert said[0].startswith("A warning: the student cannot be told from a student of shuffled labels")


def test_a_student_that_is_not_above_its_untouched_base_has_its_headline_taken_back():
    won = [gap("student", "committee", 0.09, 0.07, 0.11), PGR]
    said = verdict([*won, gap("student", "zero_shot", -0.001, -0.04, 0.035)], "hard")
    assert said.endswith("PGR 0.42 (0.05 to 0.78); but it is not shown to be above its untouched base")
    assert "but" not in verdict([*won, gap("student", "zero_shot", 0.05, 0.02, 0.08)], "hard")
