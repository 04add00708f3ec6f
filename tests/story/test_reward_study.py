"""`w2s rewards run`: all of it with tiny encoders, what stages depend on, leaks, and what is wrong with a config."""

import json
import shlex

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.models import tiny
from w2s.cli import main
from w2s.config.load import load
from w2s.data.pairs import hash_instruction
from w2s.evaluation.rewards.reward_study_report import left_out
from w2s.store import log
from w2s.store.records import BadInput, Example, PseudoLabels, read_arrays, read_rows
from w2s.story import reward_study
from w2s.story.main import build

WORDS = ["gas", "stone", "moon", "earth", "sun", "air", "heat", "plants", "water", "light"]


def rows(count: int, start: int = 0) -> list[dict]:
    """Pairs about `count` instructions, two each; the text that says `gravity` is preferred."""
    found = []
    for at in range(start, start + count):
        prompt = f"What does the {WORDS[at % 10]} number {at} do to the {WORDS[at // 10 % 10]}?"
        for more in ("", " and friction"):
            found.append({"prompt": prompt, "chosen": f"gravity{more} {at}", "rejected": f"heat{more} {at} oxygen"})
    return found


def write_pairs(path, found: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


def read_pairs(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_pool(folder, prompts: list[str]) -> None:
    """Three models and a probe; one answer is empty."""
    folder.mkdir()
    questions = [{"id": f"q{at}", "prompt": prompt} for at, prompt in enumerate(prompts)]
    answers = [
        {"id": row["id"], "model": model, "text": f"{model} says {at}", "preference": (at * 7 + place * 3) % 10 / 10}
        for at, row in enumerate(questions)
        for place, model in enumerate(("good", "poor", "plain", "fool"))
    ]
    answers[0]["text"] = ""
    pq.write_table(pa.Table.from_pylist(questions), folder / "questions.parquet")
    pq.write_table(pa.Table.from_pylist(answers), folder / "outputs.parquet")


CONFIG = """
name: study
seeds: [0, 1]
data: {{root: {root}}}
rewards:
  pairs: {{name: preferences, source: {{name: file, path: mine.jsonl}}}}
  members: 2
  head_steps: 2
  standardise: set
  models:
    - model: {{path: "{encoder}", kind: pair}}
      train: {{steps: 3, batch: 4, lr: 1e-3, max_tokens: 32}}
  study:
    held_out: 0.4
    compare: [warm, heads]
    shared_start: true
    suites: [{{name: file, path: theirs.jsonl}}]
    pool: {{outputs: answers, instructions: 4, probes: [fool]}}
runtime: {{slots: 1, threads: 1, runs_dir: runs}}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with study.yaml and its data, in which the run has finished."""
    folder = tmp_path_factory.mktemp("study")
    encoder = tiny.write("bert", folder / "encoder")
    root = folder / "data"
    root.mkdir()
    mine = rows(16)
    # The first instruction of theirs is one of mine in other letters.
    theirs = [{**mine[0], "prompt": mine[0]["prompt"].upper(), "chosen": "gravity alone"}, *rows(6, start=50)]
    write_pairs(root / "mine.jsonl", mine)
    write_pairs(root / "theirs.jsonl", theirs)
    write_pool(root / "answers", [row["prompt"] for row in mine[::2]])
    (folder / "study.yaml").write_text(CONFIG.format(root=root, encoder=encoder))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        try:
            main(["rewards", "run", "study.yaml"])
        finally:
            log.to_file(None)
    return folder


@pytest.fixture
def here(study, monkeypatch):
    monkeypatch.chdir(study)
    yield study
    log.to_file(None)


def listed(folder) -> list[dict]:
    return json.loads((folder / "runs/study/stages.json").read_text())["stages"]


def told(*overrides: str) -> dict[str, str]:
    """title -> key of every stage that the config declares; nothing runs."""
    config = load("study.yaml", overrides, reward_study.checks)
    return {stage.title: stage.key for stage in build(config, None, reward_study.tell_reward_study)}


def refusal(*overrides: str) -> str:
    """What the command says of a bad config: one line."""
    with pytest.raises(BadInput) as caught:
        told(*overrides)
    (line,) = str(caught.value).splitlines()
    return line


def test_the_run_leaves_numbers_and_pages_for_every_ensemble_set_and_probe(here):
    found = json.loads((here / "runs/study/metrics.json").read_text())["metrics"]
    accuracy = {(one["suite"], one["model"]) for one in found if one["name"] == "accuracy"}
    whom = {"member", "member 1", "member 2", "mean", "median", "worst", "warm", "heads", "length", "random"}
    for suite in ("held_out", "theirs"):
        assert whom <= {model for where, model in accuracy if where == suite}
    assert ("theirs", "best_member") in accuracy
    assert ("held_out", "best_member") not in accuracy  # it was chosen there
    picked = {one["model"] for one in found if one["name"] == "picked:fool@2"}
    assert {"mean", "warm", "heads", "best_member"} <= picked
    for page in ("report.html", "report.md"):
        text = (here / "runs/study" / page).read_text()
        assert "fool" in text
        assert "mean of weights" in text
        assert "theirs" in text


def test_the_report_of_a_finished_run_can_be_made_again(here, capsys):
    page, numbers = (here / "runs/study" / name for name in ("report.html", "metrics.json"))
    before, was = numbers.read_bytes(), page.read_bytes()
    page.unlink()
    main(["report", "study"])
    assert (numbers.read_bytes(), page.read_bytes()) == (before, was)
    assert "held-out instructions" in capsys.readouterr().out


def test_the_same_command_again_makes_nothing(here, capsys):
    before = {path: path.stat().st_mtime_ns for path in (here / "runs").rglob("*.npz")}
    main(["rewards", "run", "study.yaml"])
    assert {path: path.stat().st_mtime_ns for path in (here / "runs").rglob("*.npz")} == before
    assert "0 to run" in capsys.readouterr().err


def test_no_instruction_that_is_judged_was_trained_on(here):
    for one in listed(here):
        if one["tags"].get("kind") != "pairs":
            continue
        folder, seed = here / "runs/store" / one["folder"], one["tags"]["seed"]
        groups = {row.meta["group"] for row in read_rows(folder / "targets.jsonl", Example)}
        judged = {row.meta["group"] for row in read_rows(folder / "held_out.jsonl", Example)}
        judged |= {hash_instruction(row["prompt"]) for row in read_pairs(here / "data/theirs.jsonl")}
        (pool,) = [s for s in listed(here) if s["tags"].get("kind") == "pool" and s["tags"]["seed"] == seed]
        asked = read_rows(here / "runs/store" / pool["folder"] / "pool.jsonl", Example)
        assert len(asked) == 4
        assert not groups & (judged | {row.meta["group"] for row in asked})
        assert "fool" in asked[0].meta["models"]
        held = read_rows(folder / "held_out.jsonl", Example)
        leaked = hash_instruction(rows(1)[0]["prompt"])
        # Two pairs have that instruction: either they were held out anyway, or they were taken out.
        assert one["tags"]["removed"]["theirs"] == (0 if leaked in {row.meta["group"] for row in held} else 2)


def test_nothing_that_is_trained_descends_from_what_is_judged(here):
    stages = {one["folder"]: one for one in listed(here)}

    def ancestors(folder: str) -> set[str]:
        parents = set(stages[folder]["parents"].values())
        return parents.union(*(ancestors(one) for one in parents))

    models = [one for one in stages.values() if one["tags"].get("kind") == "reward_model"]
    assert len(models) == 2 * (1 + 2 + 1 + 1)  # start, members, their mean, heads; two seeds
    for one in models:
        kinds = {stages[folder]["tags"].get("kind") for folder in ancestors(one["folder"])}
        assert kinds <= {"pairs", "reward_model", "base", None}


def test_labels_are_what_was_chosen(here):
    chosen = {(row["prompt"], row["chosen"]) for row in read_pairs(here / "data/mine.jsonl")}
    (first, *_) = [one for one in listed(here) if one["tags"].get("kind") == "pairs"]
    folder = here / "runs/store" / first["folder"]
    labels = read_arrays(folder / "labels.npz", PseudoLabels)
    by_id = {row.id: row for row in read_rows(folder / "targets.jsonl", Example)}
    assert set(labels.ids.tolist()) == set(by_id)
    for key, target_K in zip(labels.ids.tolist(), labels.target_NK, strict=True):
        row = by_id[key]
        assert (row.prompt, row.choices[int(np.argmax(target_K))]) in chosen


def test_members_of_a_seed_train_with_seeds_of_their_own(here):
    seeds = {}
    for one in listed(here):
        if one["tags"].get("model", "").startswith("reward ") and one["name"] == "fit":
            manifest = json.loads((here / "runs/store" / one["folder"] / "manifest.json").read_text())
            seeds[one["tags"]["seed"], one["tags"]["model"]] = manifest["section"]["seed"]
    assert seeds[0, "reward 1"] == 1000
    assert seeds[0, "reward 2"] == 1001
    assert seeds[1, "reward 2"] == 2001


def test_a_further_suite_adds_stages_and_changes_none(here):
    write_pairs(here / "data/more.jsonl", rows(3, start=80))
    before = told()
    after = told("rewards.study.suites=[{name: file, path: theirs.jsonl}, {name: file, path: more.jsonl}]")
    assert before.items() < after.items()
    new = {title for title in after if title not in before}
    assert new
    assert all("more" in title for title in new)


def test_how_scores_are_used_retrains_nothing(here):
    before = told()
    assert told("rewards.standardise=question", "rewards.aggregate={name: worst}") == before
    assert told("rewards.study.pool.outputs=null").items() < before.items()
    fitted = {title: key for title, key in told("rewards.members=3").items() if title.endswith("reward model 1, warm")}
    assert fitted
    assert fitted.items() <= before.items()


def test_members_without_a_shared_start_draw_their_own_heads_and_the_mean_has_members_of_its_own(here):
    titles = told("rewards.study.shared_start=false")
    first, head = "seed 0 · reward model 1", "seed 0 · the head of reward models"
    assert {first, f"{first}, warm", head} <= set(titles)
    assert titles[first] not in told().values()
    assert first not in told()


def test_the_asked_for_aggregator_leads_the_report_whose_command_can_be_pasted(here):
    words = ["rewards", "run", "study.yaml", "rewards.aggregate={name: worst}", "name=by_worst"]
    main(words)
    found = json.loads((here / "runs/by_worst/metrics.json").read_text())
    assert found["verdict"].startswith("on held-out instructions the worst case of the reward models ")
    assert shlex.split(json.loads((here / "runs/by_worst/stages.json").read_text())["command"]) == ["w2s", *words]


def test_rows_that_make_no_pair_are_told_by_why():
    assert left_out({"rows": 1000, "kept": 990, "equal": 9, "empty": 1, "ties": 0}) == "9 equal, 1 empty of 1,000"
    assert left_out({"rows": 3, "kept": 3, "equal": 0}) == ""


def test_a_killed_run_goes_on_with_what_is_missing(here, tmp_path):
    """Interrupted after some stages, the run ends with the same scores, bit for bit."""
    from w2s.story import execution

    config = load("study.yaml", [f"runtime.runs_dir={tmp_path}", "seeds=[0]"], reward_study.checks)
    done = []

    real_run = execution.Workers.run
    with pytest.MonkeyPatch.context() as patch:

        def run(self, folder):
            if len(done) == 3:
                raise RuntimeError("killed")
            done.append(folder)
            return real_run(self, folder)

        patch.setattr(execution.Workers, "run", run)
        with pytest.raises(RuntimeError, match="killed"):
            execution.run([config], reward_study.tell_reward_study)
    execution.run([config], reward_study.tell_reward_study)
    for one in listed(here):
        if one["tags"].get("kind") == "rewards" and one["tags"]["seed"] == 0:
            name = one["tags"]["set"] + ".npz"
            first, second = (np.load(root / "store" / one["folder"] / name) for root in (here / "runs", tmp_path))
            assert np.array_equal(first["scores_MNK"], second["scores_MNK"], equal_nan=True)


def test_what_is_wrong_is_said_in_one_line(here):
    model = "rewards.models.0.model"
    assert "'autoj'" in refusal("rewards.study.suites=[{name: autoi}]")
    assert "there is no file" in refusal("rewards.study.suites=[{name: file, path: nowhere.jsonl}]")
    assert "taken" in refusal(
        "rewards.study.suites=[{name: file, path: theirs.jsonl}, {name: file, path: theirs.jsonl}]"
    )
    apart = ["rewards.study.compare=[]", "rewards.study.shared_start=false"]
    assert "allowed: pair, probe" in refusal(f"{model}.kind=lm", *apart)
    assert "allowed with probes: at most 1" in refusal(f"{model}.kind=probe", *apart)
    assert "need members of one base" in refusal(
        "rewards.models=[{model: {path: a, kind: pair}}, {model: {path: b, kind: pair}}]"
    )
    assert "allowed here: preferences" in refusal("rewards.pairs={name: gold}")
    assert "rewards.study.held_out" in refusal("rewards.study.held_out=1")
    assert "did you mean 'pool'" in refusal("rewards.study.pol=null")
    assert "builtin:" in refusal(f"{model}.path=builtin:strongg")
    assert "rewards.models.0.model.layers: 99 given; allowed: at most" in refusal(f"{model}.layers=99")
    assert "rewards.layers: 9 given; allowed: at most" in refusal(
        "rewards.layers=9", "rewards.study.compare=[adapters]"
    )
    assert "rewards.models.0.model.path: ./no: there is no such folder" in refusal(f"{model}.path=./no")
    assert "rewards.members: 1 given" in refusal("rewards.members=1")
    assert "allowed: each kind once" in refusal("rewards.study.compare=[warm, warm]")
    assert "it needs rewards.study.compare: adapters" in refusal("rewards.layers=2")
    assert "it needs rewards.study.compare: heads or adapters" in refusal(
        "rewards.bootstrap=true", "rewards.study.compare=[warm]"
    )


def test_a_pool_that_cannot_be_used_is_said_in_one_line(here):
    assert "no file or folder" in refusal("rewards.study.pool.outputs=nowhere")
    assert "'fool'" in refusal("rewards.study.pool.probes=[foul]")
    assert "are not trained on" in refusal("rewards.study.pool.instructions=15")
    folder = here / "data/short"
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{"id": "q0", "prompt": "Why?"}]), folder / "questions.parquet")
    answer = {"id": "q0", "model": "good", "text": "so"}
    for row, words in (
        (answer, "'preference' is missing"),
        ({**answer, "preference": 2.0}, "0 to 1"),
        ({**answer, "preference": 0.5, "id": "q9"}, "not a question's id"),
        ({**answer, "preference": 0.5}, "no instruction with 2 ordinary answers"),
    ):
        pq.write_table(pa.Table.from_pylist([row]), folder / "outputs.parquet")
        assert words in refusal("rewards.study.pool.outputs=short", "rewards.study.pool.probes=[]")


def test_a_set_without_pairs_is_refused(here):
    write_pairs(here / "data/equal.jsonl", [{"prompt": "q", "chosen": "same", "rejected": "same"}])
    assert "0 found" in refusal("rewards.study.suites=[{name: file, path: equal.jsonl}]")
    write_pairs(here / "data/all.jsonl", rows(16))
    assert "instructions that are also in a suite" in refusal("rewards.study.suites=[{name: file, path: all.jsonl}]")


@pytest.mark.parametrize("name", ["alpaca_eval", "hh_rlhf"])
def test_the_published_configs_are_understood(name):
    from pathlib import Path

    path = Path(__file__).parents[2] / "configs" / "rewards" / f"{name}.yaml"
    config = load(path, [], reward_study.checks)
    assert config.rewards.study.compare == ["warm", "heads"]
    assert len(config.seeds) >= 3
    assert yaml.safe_load(path.read_text())["rewards"]["pairs"]["source"]["name"] == name
