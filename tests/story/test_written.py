"""Questions without choices: the story as a graph, and a tiny run from easy answers to a judged student."""

import dataclasses
import json
import re

import numpy as np
import pytest

from tests.story.test_main import ancestors, changed, told
from w2s.boosting import tokens
from w2s.cli import main
from w2s.config.fields import Learner, Model
from w2s.config.load import load
from w2s.store.artifacts import read_manifest
from w2s.store.records import (
    BadInput,
    Example,
    Outcome,
    PseudoLabels,
    TokenRanks,
    TokenTargets,
    TokenWeights,
    read_arrays,
    read_rows,
)
from w2s.story.main import build

ROUNDS = [r"(committee|bagged|answer_level) · round \d"]
TEXTS = [r".* (writes|samples) (transfer|hard_test)"]
SUITE = [r".* writes humaneval"]
LABELS = [r"labels by (committee|floor).*"]
# key -> (another value, the stages whose own options it is)
CHANGES = {
    "boosting.rounds": (3, [".* · who writes", ".* · candidates of .*", "long_learner"]),
    "boosting.booster": ({"name": "samme"}, [r"(committee|answer_level) · round \d"]),
    "boosting.tokens.window": (1, [r"(committee|bagged) · round \d"]),
    "boosting.tokens.cap": (9.0, ROUNDS),
    "boosting.tokens.count": ("final", ROUNDS),
    "boosting.weighting": ("loss", ROUNDS),
    "learners.0.train.lr": (0.5, [*ROUNDS, "floor", "long_learner"]),
    "writing.max_new_tokens": (9, TEXTS),
    "writing.stop": (["!"], TEXTS + SUITE),
    "writing.mixture": ("log_linear", [*ROUNDS, ".* · who writes", *TEXTS, *SUITE]),
    "writing.mix": ("disagree", TEXTS + SUITE),
    "writing.samples": (3, [r"answer_level · learner \d samples hard_test"]),
    "writing.temperature": (0.9, [r"answer_level · learner \d samples hard_test"]),
    "label.combiner": ({"name": "log_odds"}, ["answer_level votes on hard_test"]),
    "label.alphas": ({"name": "decorrelated"}, ["committee · who writes"]),
    "label.select": ({"name": "confidence"}, LABELS),
    "label.check_examples": (True, LABELS),
    "label.soft": (False, []),
    "label.temperature": (0.5, []),
    "label.top": (9, []),
    "controls.answer_level": (False, []),
    "evaluation.programs": (5, SUITE),
    "evaluation.max_new_tokens": (7, SUITE),
    "runtime.micro_batch": (2, []),
}


@pytest.fixture
def config(tiny_config):
    controls = ["controls.long_learner=true", "controls.naive_student=true"]
    return load(tiny_config.with_name("written.yaml"), controls)


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_field_gives_new_keys_to_exactly_the_stages_downstream(config, key):
    value, own = CHANGES[key]
    before, after = told(config), told(changed(config, key, value))
    common = set(before) & set(after)
    roots = {after[title].key for title in common if any(re.fullmatch(pattern, title) for pattern in own)}
    assert bool(roots) is bool(own)
    expected = {title for title in common if roots & set(ancestors(after[title]))}
    assert {title for title in common if before[title].key != after[title].key} == expected


@pytest.mark.parametrize("made", ["decoded", "distribution", "winner"])
def test_nothing_that_is_trained_descends_from_the_gold_of_hard_questions_or_from_verdicts(config, made):
    stages = told(changed(config, "label.made", made))
    locked = {stages[f"gold of {split}"].key for split in ("transfer", "hard_test")}
    for who in (
        "student",
        "naive_student",
        "shuffled",
        "easy_gold",
        "labels by committee",
        "committee writes hard_test",
    ):
        if who in stages:
            found = ancestors(stages[who])
            assert not locked & set(found), who
            assert not [one for one in found.values() if one.name == "judged"], who
    assert locked & set(ancestors(stages["ceiling"])) == {stages["gold of transfer"].key}
    other = [r for r, p in stages["student"].parents.items() if p.key != stages["ceiling"].parents[r].key]
    assert other == ["labels"]


def test_boosting_by_answers_has_the_rounds_that_the_control_has_anyway(config):
    before, after = told(config), told(changed(config, "boosting.tokens.by", "answer"))
    assert after["committee · round 2"].key == before["answer_level · round 2"].key
    assert after["committee · round 1"].key != before["committee · round 1"].key


def test_a_committee_that_votes_is_labelled_by_candidates_and_one_that_writes_by_texts(config):
    voting = told(changed(config, "label.made", "winner"))
    assert set(voting["labels by committee"].parents) == {"questions", "opinion", "candidates"}
    assert set(voting["labels by floor"].parents) == {"questions", "texts"}
    assert set(told(config)["labels by committee"].parents) == {"questions", "texts"}
    agreeing = told(changed(config, "label.select", {"name": "agreement"}))
    assert {"texts-00", "texts-01"} < set(agreeing["labels by committee"].parents)
    assert agreeing["labels by committee"].parents["texts-01"] is agreeing["committee · learner 2 writes transfer"]


def test_questions_of_both_kinds_in_one_run_are_one_clear_line(config):
    both = [{"name": "world", "easy": 9, "hard": 9}, {"name": "world", "task": "answer", "easy": 9, "hard": 9}]
    with pytest.raises(BadInput, match=r"^data.sources: questions with and without choices in one run"):
        told(changed(config, "data.sources", both))


def test_all_that_written_answers_rule_out_is_said_at_once(config):
    towers = Learner(model=Model(path="somewhere", kind="towers"))
    config = dataclasses.replace(config, learners=[towers])
    config = changed(changed(config, "boosting.patience", 3), "student.train.loss", {"name": "product"})
    config = changed(config, "label.temperature", None)
    with pytest.raises(BadInput) as refused:
        told(config)
    lines = str(refused.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "learners.0.model.kind",
        "boosting.patience",
        "label.temperature",
        "student.train.loss",
    ]


def test_only_learners_of_one_base_share_its_weights(config):
    (one,) = config.learners
    deeper = dataclasses.replace(one, model=dataclasses.replace(one.model, layers=1))
    for learners, alike in (([one, one], True), ([one, deeper], False)):
        found = build(dataclasses.replace(config, learners=learners), run_job=None)
        stages = {stage.title.removeprefix("seed 0 · "): stage for stage in found}
        for on in ("transfer", "hard_test", "humaneval"):
            assert stages[f"committee writes {on}"].section["one_base"] is alike, on


def test_how_the_student_is_trained_does_not_change_what_its_base_writes(config):
    before, after = told(config), told(changed(config, "student.train.lr", 0.5))
    for title in ("zero_shot writes hard_test", "zero_shot writes humaneval"):
        assert before[title].key == after[title].key
    assert before["student writes humaneval"].key != after["student writes humaneval"].key


def test_learners_that_write_together_need_the_same_prompt_and_those_that_vote_do_not(config):
    (one,) = config.learners
    asked = dataclasses.replace(one, model=dataclasses.replace(one.model, prompt={"name": "qa"}))
    config = dataclasses.replace(config, learners=[one, asked])
    with pytest.raises(BadInput, match=r"^learners\.1\.model\.prompt: .* given; allowed: as for learners\.0"):
        build(config, run_job=None)
    assert build(changed(config, "label.made", "winner"), run_job=None)


# --- a tiny run, end to end -------------------------------------------------------------------------------------------


def stages_of(folder, name="tiny_written") -> dict:
    listed = json.loads((folder / "runs" / name / "stages.json").read_text())["stages"]
    return {one["title"].removeprefix("seed 0 · "): folder / "runs" / "store" / one["folder"] for one in listed}


def lines_of(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_everybody_is_judged_on_the_hard_answers(written_run):
    found = json.loads((written_run / "runs" / "tiny_written" / "metrics.json").read_text())
    rows = {(one["model"], one["name"]): one for one in found["metrics"] if one["suite"] == "hard_test"}
    asked = (
        "floor",
        "committee",
        "uniform",
        "bagged",
        "best_learner",
        "answer_level",
        "student",
        "ceiling",
        "zero_shot",
    )
    for model in asked:
        assert rows[model, "accuracy"]["n"] == 60, model
    assert rows["committee", "accuracy_minus_answer_level"]["value"] is not None
    assert found["verdict"]
    suites = {(one["suite"], one["name"]) for one in found["metrics"]}
    assert ("humaneval", "pass@1") in suites


def test_the_label_of_a_question_is_what_the_committee_wrote_for_it(written_run):
    stages = stages_of(written_run)
    said = lines_of(stages["committee writes transfer"] / "transfer_texts.jsonl")
    targets = {row.id: row for row in read_rows(stages["labels by committee"] / "targets.jsonl", Example)}
    labels = read_arrays(stages["labels by committee"] / "labels.npz", PseudoLabels)
    assert [row["id"] for row in said] == labels.ids.tolist()
    for row, weight in zip(said, labels.weight_N, strict=True):
        assert targets[row["id"]].choices == (row["texts"][0],)
        assert weight == (bool(row["texts"][0].strip()) and row["ended"][0])
    dealt = read_rows(stages["labels by committee, shuffled"] / "targets.jsonl", Example)
    assert sorted(row.choices for row in dealt) == sorted(row.choices for row in targets.values())
    assert [row.id for row in dealt] == labels.ids.tolist()


def test_a_round_raises_the_weight_of_the_tokens_that_it_missed(written_run):
    stages = stages_of(written_run)
    folder = stages["committee · round 1"]
    ranks, weights = (
        read_arrays(folder / n, k) for n, k in (("easy_fit.npz", TokenRanks), ("weights.npz", TokenWeights))
    )
    wrong_T = tokens.wrongness(ranks.above_T, ranks.tied_T)
    assert weights.ids.tolist() == ranks.ids.tolist()
    assert 0 < wrong_T.mean() < 1
    assert weights.weight_T[wrong_T == 1].mean() > weights.weight_T[wrong_T == 0].mean()
    found = json.loads((folder / "round.json").read_text())
    assert found["error"] == pytest.approx(wrong_T.mean())  # the first round's weights are equal
    other = read_arrays(stages["answer_level · round 1"] / "weights.npz", TokenWeights)
    shares = [part / part.sum() for part in np.split(other.weight_T, np.cumsum(other.length_N)[:-1])]
    assert all(np.allclose(part, 1 / len(part)) for part in shares)  # a whole answer shares its weight equally


@pytest.mark.parametrize("made", ["winner", "distribution"])
def test_labels_are_made_of_candidates_or_of_token_distributions_as_well(written_run, monkeypatch, made):
    from tests.conftest import shorten

    monkeypatch.chdir(written_run)
    shorten(monkeypatch)
    fitted = ["label.temperature=null"] if made == "winner" else []
    main(["run", "written.yaml", f"label.made={made}", f"name={made}", *fitted])
    folder = stages_of(written_run, made)["labels by committee"]
    labels = read_arrays(folder / "labels.npz", PseudoLabels)
    targets = read_rows(folder / "targets.jsonl", Example)
    count_N = np.array([len(row.choices) for row in targets])
    assert labels.target_NK.shape == (80, count_N.max())
    assert np.allclose(labels.target_NK.sum(1), 1)
    if made == "winner":
        temperature = read_manifest(folder)["facts"]["fitted_temperature"]
        assert temperature["temperature"] > 0
        assert temperature["rows"] <= 40  # of easy_holdout, those with a right candidate
        assert count_N.max() > 1
        assert not labels.target_NK[np.arange(count_N.max()) >= count_N[:, None]].any()
    else:
        soft = read_arrays(folder / "soft.npz", TokenTargets)
        assert soft.ids.tolist() == labels.ids.tolist()
        assert (soft.prob_TJ.astype(float).sum(1) < 1 + 1e-2).all()
        kept_N = labels.weight_N > 0
        assert kept_N.any()
        assert (soft.length_N[kept_N] > 0).all()


def test_outcomes_are_what_was_written_and_judged(written_run):
    stages = stages_of(written_run)
    said = {row["id"]: row["texts"] for row in lines_of(stages["student writes hard_test"] / "hard_test_texts.jsonl")}
    outcomes = read_rows(stages["student judged on hard_test"] / "outcomes.jsonl", Outcome)
    assert {one.id: [one.text] for one in outcomes} == said
    assert all(one.correct is not None for one in outcomes)


def test_the_same_command_again_runs_nothing_and_why_shows_the_votes(written_run, monkeypatch, capsys):
    from tests.conftest import shorten

    monkeypatch.chdir(written_run)
    shorten(monkeypatch)
    before = (written_run / "runs" / "tiny_written" / "metrics.json").read_bytes()
    main(["run", "written.yaml"])
    assert "0 to run" in capsys.readouterr().err
    assert (written_run / "runs" / "tiny_written" / "metrics.json").read_bytes() == before
    key = read_rows(stages_of(written_run)["questions"] / "transfer.jsonl", Example)[0].id
    main(["why", "runs/tiny_written", key])
    told_of = capsys.readouterr().out
    assert "committee · learner 2" in told_of
    assert "label by committee" in told_of
