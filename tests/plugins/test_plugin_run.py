"""A plug-in of twenty lines through a whole run: a source, a combiner and a kind of learner, in real workers."""

import hashlib
import json
import textwrap
from pathlib import Path

import numpy as np
import pytest

import w2s
from tests.conftest import shorten
from w2s.cli import main
from w2s.config import plugins
from w2s.config.load import cross_checks, load
from w2s.config.plugins import check_with_plugins, find_used, list_loaded, load_plugins
from w2s.config.registry import pick
from w2s.config.tables import load_table
from w2s.models.train import World
from w2s.store.artifacts import Stage
from w2s.store.records import BadInput
from w2s.story.main import build
from w2s.workers.job import Predict
from w2s.workers.job_files import write_job
from w2s.workers.serve import run_job

pytestmark = pytest.mark.usefixtures("own_tables")

PLUGIN = '''
import json
import numpy as np
from w2s.models.records import Estimator
from w2s.store.records import Example, Gold

def colours(root, *, count: int = 400):
    """Which of two pets is red?"""
    examples, gold = [], []
    for n in range(count):
        words = ("red cat", "blue dog") if n % 2 else ("blue dog", "red cat")
        examples.append(Example(f"c{n}", "colours", "choice", f"pets {n} {n * n} :", words, {"level": n % 3}))
        gold.append(Gold(f"c{n}", words.index("red cat")))
    return examples, gold

def middle(probs_RNK, mask_NK, alpha_R, abstained_RN=None):
    """The median of the learners' probabilities."""
    probs_NK = np.median(probs_RNK, axis=0) + 1e-9 * mask_NK
    return probs_NK / probs_NK.sum(1, keepdims=True)

def fit(model, examples, target_NK, weight_N, seed):
    right = {}
    for example, target_K, weight in zip(examples, target_NK, weight_N):
        for choice, target in zip(example.choices, target_K):
            right[choice] = right.get(choice, 0.0) + float(weight * (target - 0.5))
    return right

def scores(fitted, examples):
    return np.array([[np.sign(fitted.get(choice, 0.0)) for choice in example.choices] for example in examples])

def save(fitted, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "right.json").write_text(json.dumps(fitted))

def load(folder):
    return json.loads((folder / "right.json").read_text())

METHODS = {
    "sources": {"colours": colours},
    "combiners": {"middle": middle},
    "kinds": {"counted": Estimator(fit, scores, save, load, about="Counts how often a choice was right.")},
}
'''
CONFIG = """
name: plugged
plugins: [mine.py]
data:
  sources: [{name: colours, count: 240}]
  easy_max: 0
  hard_min: 1
  near: null
  sizes: {easy_fit: 50, easy_holdout: 20, transfer: 60, hard_test: 60}
learners: [{model: {kind: counted}}]
boosting: {rounds: 2}
label: {combiner: {name: middle}}
student:
  model: {path: "builtin:strong", trainable: attention}
  train: {steps: 4, batch: 32, lr: 0.003}
controls: {long_learner: false, naive_student: false, uniform: false, bagged: false, shuffled: false, easy_gold: false}
evaluation: {suites: []}
runtime: {slots: 1, threads: 1, runs_dir: runs}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shorten(monkeypatch)
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "plugged.yaml").write_text(CONFIG)
    return tmp_path


def forget() -> None:
    """Unload the test's plug-in, as a new process would begin."""
    for path in [path for path in plugins._loaded if path.name == "mine.py"]:
        for table, name in plugins._loaded.pop(path).added:
            load_table(table).pop(name)


def tell(*overrides: str) -> dict[str, Stage]:
    stages = build(load("plugged.yaml", overrides, check_with_plugins(cross_checks)), run_job=None)
    return {stage.title: stage for stage in stages}


def test_a_source_a_combiner_and_a_kind_of_learner_run_through_workers_to_a_report(folder, capsys):
    run = w2s.run("plugged.yaml")
    assert run.page.is_file()
    assert (run.student / "README.md").is_file()
    accuracy = run.metrics.set_index(["suite", "model", "name"]).value["hard_test"]
    assert accuracy["committee", "accuracy"] == 1.0
    sha256 = hashlib.sha256(PLUGIN.encode()).hexdigest()
    jobs = [json.loads(path.read_text()) for path in folder.glob("runs/store/*/**/job.json")]
    assert jobs
    assert all(job["plugins"] == {str(folder / "mine.py"): sha256} for job in jobs)
    assert {job["learner"]["model"]["kind"] for job in jobs if job["worker"] == "finetune"} == {"counted", "lm"}
    capsys.readouterr()
    main(["run", "plugged.yaml"])
    assert " 0 to run" in capsys.readouterr().err


def test_a_kind_that_is_fitted_at_once_may_be_the_student(folder):
    run = w2s.run("plugged.yaml", "student.model.kind=counted")
    accuracy = run.metrics.set_index(["suite", "model", "name"]).value["hard_test"]
    assert accuracy["student", "accuracy"] == 1.0
    assert (run.student / "right.json").is_file()
    assert "AutoModel" not in (run.student / "README.md").read_text()


def test_a_changed_plug_in_gives_new_keys_to_exactly_the_stages_that_use_it_and_their_descendants(folder):
    before = tell()
    (folder / "mine.py").write_text(PLUGIN + "\n")
    forget()
    after = tell()
    assert before.keys() == after.keys()
    own = {title for title, stage in before.items() if "plugins" in stage.section}
    assert {f"seed 0 · {title}" for title in ("questions", "committee · round 1", "committee answers")} <= own

    def uses(stage: Stage) -> bool:
        return stage.title in own or any(map(uses, stage.parents.values()))

    changed = {title for title in before if before[title].key != after[title].key}
    assert changed == {title for title, stage in before.items() if uses(stage)}
    assert {title for title in before if "base model" in title}.isdisjoint(changed)


def test_a_plug_in_that_nothing_uses_changes_no_key(folder):
    used = ["data.sources=[{name: world, easy: 200, hard: 200}]", "learners=[{model: {path: 'builtin:weak'}}]"]
    used += ["label.combiner={name: soft_vote}"]
    listed = {title: stage.key for title, stage in tell(*used).items()}
    forget()
    assert {title: stage.key for title, stage in tell(*used, "plugins=[]").items()} == listed


def test_names_are_looked_up_in_the_table_of_their_key(folder):
    load_plugins(["mine.py"])
    assert list(find_used({"combiner": {"name": "middle"}})) == ["combiners.middle"]
    assert list(find_used({"learner": {"model": {"kind": "counted"}}})) == ["kinds.counted"]
    assert list(find_used({"by": {"name": "middle"}})) == ["combiners.middle"]
    assert find_used({"alphas": {"name": "middle"}, "title": "middle", "select": {"name": "counted"}}) == {}


def test_without_its_plug_in_a_config_is_refused_in_a_line_for_each_problem(folder, capsys):
    with pytest.raises(SystemExit):
        main(["plan", "plugged.yaml", "plugins=[]"])
    words = "learners.0.model.kind: 'counted' given; allowed: one of: lm, pair, towers, probe, sklearn"
    assert capsys.readouterr().err.splitlines() == [f"w2s: plugged.yaml: {words}"]


def test_a_worker_refuses_another_content_than_the_run_s(folder):
    load_plugins(["mine.py"])
    job = folder / "job"
    job.mkdir()
    write_job(job, Predict(examples={}, by="x", model="nowhere"), list_loaded())
    (folder / "mine.py").write_text(PLUGIN + "\n")
    forget()
    answer = run_job(job, World())
    assert answer["kind"] == "BadInput"
    place = str(folder / "mine.py")
    assert answer["message"].startswith(f"plugins: {place}: it has changed since the run began (sha256 ")
    assert "\n" not in answer["message"]
    assert not load_table("kinds").keys() & {"counted"}


def test_a_kind_must_be_a_record(folder):
    (folder / "mine.py").write_text("METHODS = {'kinds': {'mine': print}}")
    with pytest.raises(BadInput, match="kinds: 'mine': <built-in function print> given; allowed: Network or Estimator"):
        load_plugins(["mine.py"])


def test_evaluate_takes_plug_ins_as_a_key(folder, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "nowhere", "colours"])
    assert "suite: 'colours' is not known" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "nowhere", "colours", "plugins=[mine.py]"])
    assert "suite" not in capsys.readouterr().err


def test_methods_are_listed_with_their_plug_in(folder, capsys):
    main(["methods", "kinds", "--plugins", "mine.py"])
    assert f"counted            Counts how often a choice was right. [{folder / 'mine.py'}]" in capsys.readouterr().out


def test_the_config_of_a_run_is_data(folder, tmp_path):
    """A config.yaml in a run's folder never loads what it lists."""
    run = tmp_path / "runs" / "other"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("plugins: [mine.py]\n")
    (run / "stages.json").write_text("{}")
    before = dict(plugins._loaded)
    with pytest.raises(BadInput):
        w2s.load_run(run)
    assert plugins._loaded == before


def test_the_example_of_the_documentation_is_a_plug_in(folder, capsys):
    blocks = [block for block in plugins.__doc__.split("\n\n") if block.startswith("    ")]
    code = [block for block in blocks if not block.startswith("    w2s run")]
    example = textwrap.dedent("\n\n".join(code))
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert example in readme.replace("\n\n\n", "\n\n")  # as ruff lays it out
    Path("mine.py").write_text(example)
    base = ["learners=[{model: {path: 'builtin:weak'}}]", "data.sources=[{name: world, easy: 200, hard: 200}]"]
    stages = tell(*base, "plugins=[mine.py]", "label.combiner={name: trimmed, share: 0.2}")
    assert "combiners.trimmed" in stages["seed 0 · committee answers"].section["plugins"]
    probs_RNK = np.random.default_rng(0).dirichlet([1, 1, 1], (5, 4))
    combine = pick(load_table("combiners"), {"name": "trimmed", "share": 0.2})
    probs_NK = combine(probs_RNK, np.ones((4, 3), dtype=bool), np.ones(5))
    middle_NK = np.sort(probs_RNK, axis=0)[1:4].mean(0)
    np.testing.assert_allclose(probs_NK, middle_NK / middle_NK.sum(1, keepdims=True))
    forget()
    main(["config", "schema", "--plugins", "mine.py"])
    assert '"trimmed"' in capsys.readouterr().out
