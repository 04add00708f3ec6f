"""The over-optimisation curve: its stages on made-up texts, and the command on a tiny config."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import shorten
from w2s.cli import main
from w2s.config.fields import RewardModels
from w2s.data.world import item_names
from w2s.stages import Tools, curve, rewards
from w2s.store import log
from w2s.store.records import BadInput, Example, Gold, PseudoLabels, Rewards, read_arrays, read_rows, write_rows

CONFIG = """
name: study
seeds: [0]
data:
  root: .
  sources: [{name: file, path: own.jsonl}]
  easy_max: 0
  hard_min: 1
  near: null
  sizes: {easy_fit: 60, easy_holdout: 30, transfer: 40, hard_test: 40}
learners:
  - model: {path: "builtin:weak_writer"}
    train: {steps: 80, batch: 32, lr: 0.02}
student:
  model: {path: "builtin:strong_writer", trainable: attention}
  train: {steps: 30, batch: 32, lr: 0.01}
  objective: {name: rloo, generations: 2, steps: 3, lr: 0.001}
writing: {max_new_tokens: 6, samples: 8}
rewards:
  members: 2
  models: [{model: {path: "builtin:strong_writer", kind: pair}, train: {steps: 4, batch: 8, lr: 0.002}}]
  head_steps: 2
  curve: {policy: student, pairs: 8, questions: 20, samples: 4, temperature: 1.2, optimised: [member, worst]}
runtime: {slots: 1, threads: 1, runs_dir: runs}
"""


def write_config(folder: Path) -> None:
    """FOLDER/study.yaml and its questions: who knows the two possible answers guesses half of them."""
    names = item_names(0)
    rows = [
        {"prompt": f"{names[at % 150]} {names[at // 2]} =", "answer": ("speed", "weight")[at % 2], "level": at % 3}
        for at in range(300)
    ]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "study.yaml").write_text(CONFIG)


QUESTIONS = [Example(f"q{at}", "own", "answer", f"what is {at} ?") for at in range(3)]
GOLD = [Gold(f"q{at}", f"{at}") for at in range(3)]
TEXTS = {"q0": ["0", "7", "0", " "], "q1": ["8", "9", "9", "9"], "q2": ["2", "", "5", "2"]}


@pytest.fixture
def folders(tmp_path, tools) -> tuple[dict, Tools]:
    """The questions (as sets easy, curve), what was written for them and their gold."""
    for name in ("questions", "texts", "gold", "here"):
        (tmp_path / name).mkdir()
    for on in ("easy", "curve"):
        write_rows(tmp_path / "questions" / f"{on}.jsonl", QUESTIONS)
        lines = [json.dumps({"id": key, "texts": texts}) + "\n" for key, texts in TEXTS.items()]
        (tmp_path / "texts" / f"{on}_texts.jsonl").write_text("".join(lines))
    write_rows(tmp_path / "gold" / "gold.jsonl", GOLD)
    return {name: tmp_path / name for name in ("questions", "texts", "gold", "here")}, tools


def test_pairs_are_a_right_sample_and_a_wrong_one_of_the_same_question(folders):
    inputs, tools = folders
    here = inputs["here"]
    facts = curve.sample_pairs(here, inputs, tools, on="easy", count=9, seed=0)
    pairs, labels = read_rows(here / "targets.jsonl", Example), read_arrays(here / "labels.npz", PseudoLabels)
    # q1 has no right sample, and empty texts are in no pair.
    assert facts == {"rows": 2, "asked": 9, "mixed": 2, "unjudged": 0}
    assert labels.ids.tolist() == [one.id for one in pairs]
    told = {
        one.prompt: (one.choices[best], one.choices[1 - best])
        for one, best in zip(pairs, labels.target_NK.argmax(1).tolist(), strict=True)
    }
    assert told == {"what is 0 ?": ("0", "7"), "what is 2 ?": ("2", "5")}
    assert curve.sample_pairs(here, inputs, tools, on="easy", count=1, seed=0)["rows"] == 1


def test_without_a_mixed_question_the_config_is_told_what_to_change(folders):
    inputs, tools = folders
    write_rows(inputs["gold"] / "gold.jsonl", [dataclasses.replace(one, answer="none of these") for one in GOLD])
    with pytest.raises(BadInput, match="no question of easy has a right and a wrong sample"):
        curve.sample_pairs(inputs["here"], inputs, tools, on="easy", count=9, seed=0)


def test_every_sample_finds_its_text_again_and_empty_ones_have_none(folders):
    inputs, tools = folders
    here = inputs["here"]
    assert curve.distinct(here, inputs, tools, on="curve") == {"rows": 3, "samples": 12, "empty": 2}
    texts = {one.id: one.choices for one in read_rows(here / "curve.jsonl", Example)}
    with np.load(here / "place.npz") as file:
        for key, place_S in zip(file["ids"].tolist(), file["place_NS"].tolist(), strict=True):
            back = [texts[key][place] if place >= 0 else None for place in place_S]
            assert back == [text if text.strip() else None for text in TEXTS[key]]
    graded = here / "graded"
    graded.mkdir()
    facts = curve.graded(graded, {"curve": here, "gold": inputs["gold"]}, tools, on="curve")
    assert facts == {"rows": 3, "texts": 6, "unjudged": 0}
    with np.load(graded / "gold.npz") as file:
        np.testing.assert_array_equal(file["gold_ND"], [[1, 0], [0, 0], [1, 0]])


def test_rollouts_are_graded_text_by_text(folders):
    inputs, tools = folders
    fit = inputs["here"] / "optimised" / "fit-0"
    fit.mkdir(parents=True)
    said = [(0, "q0", "0", 0.5), (0, "q1", "1", 0.1), (1, "q0", "3", 2.0), (1, "q2", "", -1.0)]
    lines = [{"step": s, "id": key, "text": t, "rewards": [r], "reward": r} for s, key, t, r in said]
    (fit / "rollouts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (fit / "train.json").write_text(json.dumps({"kl": [0.0, 0.2]}))
    facts = curve.graded_rollouts(
        inputs["here"], inputs | {"optimised": inputs["here"] / "optimised"}, tools, on="curve"
    )
    assert facts == {"rows": 4, "texts": 4, "unjudged": 0}
    with np.load(inputs["here"] / "rollouts.npz") as file:
        assert file["step_T"].tolist() == [0, 0, 1, 1]
        assert file["gold_T"].tolist() == [1, 1, 0, 0]
        assert file["reward_T"].tolist() == [0.5, 0.1, 2.0, -1.0]
        assert file["kl_S"].tolist() == [0.0, 0.2]


@pytest.fixture(scope="module")
def curve_run(tmp_path_factory):
    """The tiny curve, finished: the folder that holds study.yaml and runs/study."""
    folder = tmp_path_factory.mktemp("curve")
    write_config(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shorten(patch)
        try:
            main(["rewards", "curve", "study.yaml"])
        finally:
            log.to_file(None)
    return folder


def test_the_command_writes_numbers_and_pages(curve_run):
    run = curve_run / "runs" / "study"
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    found = {(one["suite"], one["model"], one["name"]): one for one in metrics}
    assert found["best_of_n", "member", "gold@1"]["value"] == found["best_of_n", "worst", "gold@1"]["value"]
    for way in ("member", "mean", "worst", "heads", "warm"):
        assert found["best_of_n", way, "turn_down"]["seeds"] == [0]
        assert found["best_of_n", way, "proxy@4"]["value"] > found["best_of_n", way, "proxy@1"]["value"]
    for way in ("member", "worst"):
        assert {name for suite, model, name in found if suite == "rl" and model == way} >= {"gold@1", "gold@3", "kl@3"}
    page = (run / "curve.html").read_text()
    assert page.count("<svg") == 5
    assert "one reward model" in page
    assert "worst case" in (run / "curve.md").read_text()


def test_the_same_command_again_does_nothing(curve_run, monkeypatch, capsys):
    monkeypatch.chdir(curve_run)
    shorten(monkeypatch)
    before = {path: path.stat().st_mtime_ns for path in (curve_run / "runs").rglob("*.npz")}
    pages = (curve_run / "runs" / "study" / "curve.html").stat().st_mtime_ns
    try:
        main(["rewards", "curve", "study.yaml"])
    finally:
        log.to_file(None)
    assert "0 to run" in "".join(capsys.readouterr())
    assert before == {path: path.stat().st_mtime_ns for path in (curve_run / "runs").rglob("*.npz")}
    assert pages == (curve_run / "runs" / "study" / "curve.html").stat().st_mtime_ns


def test_rl_on_an_ensemble_alone_has_a_report_too(curve_run, monkeypatch):
    monkeypatch.chdir(curve_run)
    shorten(monkeypatch)
    try:
        main(["rewards", "curve", "study.yaml", "name=alone", "rewards.curve.optimised=[worst]"])
    finally:
        log.to_file(None)
    assert "worst case" in (curve_run / "runs" / "alone" / "curve.html").read_text()


def test_a_finished_curve_can_be_reported_again_and_asked_about_a_question(curve_run, monkeypatch, capsys):
    monkeypatch.chdir(curve_run)
    run = curve_run / "runs" / "study"
    before = (run / "curve.html").read_bytes()
    (run / "curve.html").unlink()
    main(["report", "study"])
    assert (run / "curve.html").read_bytes() == before
    assert not (run / "report.html").exists()
    assert "curve.html" in capsys.readouterr().out
    asked = next(run.parent.glob("store/first_questions-*/curve.jsonl"))
    main(["why", "study", read_rows(asked, Example)[0].id])
    assert "hard_test" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["report", "study", "study"])
    assert "a run of `w2s rewards curve`" in capsys.readouterr().err


def test_heads_have_nothing_of_adapters():
    heads = RewardModels(kind="heads")
    asked = dataclasses.replace(heads, diversity=0.1, rank=3, layers=2)
    assert rewards.of_training(asked) == rewards.of_training(heads)


def test_nothing_that_scores_or_trains_has_seen_the_gold_of_the_hard_questions(curve_run):
    listed = json.loads((curve_run / "runs" / "study" / "stages.json").read_text())["stages"]
    by_folder = {one["folder"]: one for one in listed}

    def ancestors(folder: str) -> set[str]:
        parents = set(by_folder[folder]["parents"].values())
        return parents.union(*map(ancestors, parents)) if parents else parents

    gold = [one for one in listed if one["tags"].get("kind") == "gold"]
    hidden = {one["folder"] for one in gold if one["tags"]["split"] in ("transfer", "hard_test")}
    for one in listed:
        if one["tags"].get("kind") in ("model", "reward_model", "rewards", "samples", "optimised"):
            assert not hidden & ancestors(one["folder"]), one["title"]


def test_members_have_seeds_and_scores_of_their_own(curve_run):
    listed = json.loads((curve_run / "runs" / "study" / "stages.json").read_text())["stages"]
    store = curve_run / "runs" / "store"
    scored = [one for one in listed if one["tags"].get("kind") == "rewards" and one["tags"]["set"] == "curve"]
    counts = {}
    for one in scored:
        said = read_arrays(store / one["folder"] / "curve.npz", Rewards)
        counts[one["tags"]["model"]] = len(said.models)
        if len(said.models) > 1:
            assert not np.allclose(np.nan_to_num(said.scores_MNK[0]), np.nan_to_num(said.scores_MNK[1]))
    assert counts == {"separate": 2, "heads": 2, "warm": 1}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rewards.curve.optimised=[mena]", "rewards.curve.optimised: 'mena' given; allowed: member, mean"),
        ("rewards.members=1", "rewards.members: 1 given; allowed: 2 or more"),
        ("rewards.curve.samples=0", "rewards.curve.samples: 0 given; allowed: above 0"),
        ("rewards.models.0.model.kind=lm", "rewards.models.0.model.kind: 'lm' given; allowed: pair"),
        ("data.sources=[{name: world}]", "data.sources: questions with choices given"),
        ("student.objective={name: dpo}", "student.objective: 'dpo' given; allowed here: sft (no RL), grpo, rloo"),
        ("rewards.curve.optimised=[]", "rewards.curve.optimised: none given; rloo needs at least one of member"),
        (
            "rewards.curve.policy=learner; student.objective.generations=5; student.train.batch=40",
            "learners.0.train.batch: 32 given; allowed: a multiple of the objective's generations, 5",
        ),
    ],
)
def test_bad_input_is_one_line(override, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["rewards", "curve", "study.yaml", *override.split("; ")])
    log.to_file(None)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
