"""Reward models in the main job: the graph, what is refused, and tiny runs from pairs to a student."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from tests.conftest import shorten
from tests.story.test_main import ancestors, changed, told
from w2s.cli import main
from w2s.config.fields import Config, LabelReward, Labels, Learner, Model, Train
from w2s.config.load import load
from w2s.evaluation.run.collect import finish, reward_notes
from w2s.evaluation.run.inspect import describe_row
from w2s.evaluation.run.runs import Artifact, Run
from w2s.rewards.tilt import tilt
from w2s.store import log
from w2s.store.artifacts import write_manifest
from w2s.store.records import BadInput, Example, Predictions, PseudoLabels, Rewards, read_arrays, read_rows

FITS = [r"reward model \d"]
LABELS = ["labels by rewarded.*"]
# key -> (another value, the stages whose own options it is)
CHANGES = {
    "rewards.members": (3, ["rewards of candidates"]),
    "rewards.models.0.train.lr": (0.5, FITS),
    "rewards.models.0.model.trainable": ("attention", FITS),
    "rewards.head_steps": (7, []),
    "rewards.layers": (1, []),
    "rewards.rank": (3, []),
    "rewards.pairs": ({"name": "gold", "per_question": 1}, ["pairs for reward models"]),
    "rewards.aggregate": ({"name": "median"}, ["the committee, tilted by rewards"]),
    "rewards.standardise": ("set", ["the committee, tilted by rewards"]),
    "label.reward.use": ("best_of_n", ["the committee, tilted by rewards"]),
    "label.reward.strength": (2.0, ["the committee, tilted by rewards"]),
    "label.reward.accept": ({"quantile": 0.2}, LABELS),
    "label.temperature": (0.5, ["labels by .*"]),
    "label.alphas": ({"name": "decorrelated"}, ["committee · who votes"]),
    "boosting.rounds": (3, [r"(committee|uniform|bagged) · who votes"]),
    "student.train.lr": (0.5, ["student", "unrewarded", "shuffled", "easy_gold", "ceiling"]),
    "controls.unrewarded": (False, []),
    "runtime.micro_batch": (2, []),
}
PAIR = Learner(Model(path="builtin:weak", kind="pair"), Train(steps=6, batch=32, lr=0.02))
WEAK_PAIR = "rewards.models=[{model: {path: 'builtin:weak', kind: pair}, train: {steps: 6, batch: 32, lr: 0.02}}]"
REWARDED = [WEAK_PAIR, "rewards.members=2", "label.reward.use=tilt"]
LOCKED = ("gold of transfer", "gold of hard_test")


@pytest.fixture
def config(tiny_config):
    return load(tiny_config, REWARDED)


@pytest.fixture
def written(tiny_config):
    pair = WEAK_PAIR.replace("builtin:weak", "builtin:weak_writer")
    return load(tiny_config.with_name("written.yaml"), [pair, *REWARDED[1:], "label.made=winner"])


# --- the graph --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_field_gives_new_keys_to_exactly_the_stages_downstream(config, key):
    value, own = CHANGES[key]
    after = told(changed(config, key, value))
    before = told(config)
    common = set(before) & set(after)
    roots = {after[title].key for title in common if any(re.fullmatch(pattern, title) for pattern in own)}
    assert bool(roots) is bool(own)
    expected = {title for title in common if roots & set(ancestors(after[title]))}
    assert {title for title in common if before[title].key != after[title].key} == expected
    if key.startswith(("rewards.aggregate", "label.reward")):
        assert not expected & {title for title in before if title.startswith(("reward", "pairs"))}


def test_a_run_with_rewards_has_every_stage_of_one_without_but_for_the_student(config):
    with_rewards, without = told(config), told(changed(config, "label.reward.use", "none"))
    for title, stage in without.items():
        if not title.startswith(("student", "shuffled", "labels by committee, shuffled")):
            assert with_rewards[title].key == stage.key, title
    # The control without rewards is the student of a run without them.
    assert with_rewards["unrewarded"].key == without["student"].key


@pytest.mark.parametrize("kind", ["separate", "warm", "heads", "adapters"])
@pytest.mark.parametrize("pairs", ["gold", "committee"])
@pytest.mark.parametrize("answers", ["choice", "written"])
def test_the_student_never_descends_from_the_gold_of_hard_questions(config, written, kind, pairs, answers):
    config = changed({"choice": config, "written": written}[answers], "rewards.kind", kind)
    stages = told(changed(config, "rewards.pairs", {"name": pairs}))
    locked = {stages[title].key for title in LOCKED}
    rewards = next(title for title in stages if title.startswith("rewards of"))
    for who in ("student", "unrewarded", "shuffled", rewards, "the committee, tilted by rewards", "labels by rewarded"):
        found = ancestors(stages[who])
        assert not locked & set(found), who
        assert not [one for one in found.values() if one.name == "judged"], who
    assert stages[rewards].key in ancestors(stages["student"])
    assert stages[rewards].key not in ancestors(stages["unrewarded"])
    gold = {
        one.tags.get("split") for one in ancestors(stages["pairs for reward models"]).values() if one.name == "gold"
    }
    assert gold == {"easy"}


def test_preference_pairs_are_known_by_their_content_and_bring_no_gold_of_the_run(config, tmp_path):
    own = tmp_path / "data" / "pairs.jsonl"
    rows = [{"prompt": f"p{at}", "chosen": "yes", "rejected": f"no {at}"} for at in range(9)]
    config = changed(config, "rewards.pairs", {"name": "preferences", "source": {"name": "file", "path": own.name}})
    keys = []
    for some in (rows, rows, rows[1:]):
        own.write_text("".join(json.dumps(row) + "\n" for row in some))
        keys.append(told(config)["pairs for reward models"].key)
    assert keys[0] == keys[1] != keys[2]
    assert not [one for one in ancestors(told(config)["pairs for reward models"]).values() if one.name == "gold"]
    own.unlink()
    with pytest.raises(BadInput, match="there is no file"):
        told(config)


def test_members_of_the_mean_start_from_one_head_and_differ_in_their_seeds(config):
    stages = told(changed(config, "rewards.kind", "warm"))
    members = [stages[f"reward model {n}, warm"] for n in (1, 2)]
    assert [one.section["seed"] for one in members] == [1000, 1001]
    assert all(one.parents["base"] is stages["the head of reward models"] for one in members)
    assert list(stages["the mean of reward models"].parents.values()) == members
    assert stages["the head of reward models"].section["learner"]["model"]["trainable"] == "head"


def test_separate_members_take_turns_of_bases(config):
    strong = dataclasses.replace(PAIR, model=Model(path="builtin:strong", kind="pair"))
    config = changed(changed(config, "rewards.models", [PAIR, strong]), "rewards.members", 3)
    paths = [told(config)[f"reward model {n}"].section["learner"]["model"]["path"] for n in (1, 2, 3)]
    assert paths == ["builtin:weak", "builtin:strong", "builtin:weak"]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("rewards.models.0.model.kind=lm", "rewards.models.0.model.kind: 'lm' given; allowed: pair"),
        ("rewards.members=0", "rewards.members: 0 given; allowed: above 0"),
        ("rewards.diversity=0.1", "rewards.diversity: 0.1 given; it needs kind: adapters"),
        ("rewards.models.0.train.lr=0", "rewards.models.0.train.lr: 0 given; allowed: above 0"),
        ("label.reward.strength=-1", "label.reward.strength: -1 given; allowed: 0 or more"),
        (
            "label.reward={use: best_of_n, strength: 1}",
            "label.reward.strength: 1 given; it needs label.reward.use: tilt",
        ),
        ("label.reward={use: none, accept: {quantile: 0.1}}", "label.reward.accept: .* it needs label.reward.use"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(tiny_config, override, words):
    with pytest.raises(BadInput, match=words) as refused:
        load(tiny_config, [*REWARDED, override])
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["warm", "heads", "adapters"])
def test_members_that_share_their_start_have_one_base(tiny_config, kind):
    several = f"rewards.models=[{', '.join(2 * ['{model: {kind: pair}}'])}]"
    with pytest.raises(BadInput, match=rf"rewards.models: 2 given; kind: {kind} allows 1"):
        load(tiny_config, [several, f"rewards.kind={kind}"])


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rewards.aggregate", {"name": "wurst"}, r"rewards.aggregate: 'wurst' .*did you mean 'worst'"),
        ("rewards.aggregate", {"name": "uncertainty", "strength": -1.0}, r"rewards.aggregate.strength: -1.0 given"),
        ("rewards.pairs", {"name": "preferences"}, r"rewards.pairs: 'preferences' needs the option 'source'"),
        ("rewards.pairs", {"name": "preferences", "source": {"name": "autojj"}}, r"rewards.pairs.source: 'autojj'"),
        ("rewards.pairs", {"name": "gold", "per_question": 0}, r"rewards.pairs.per_question: 0 given"),
        ("label.reward.accept", {"quantile": 2.0}, r"label.reward.accept.quantile: 2.0 given"),
        ("label.reward.accept", {"lest": 2.0}, r"label.reward.accept: 'accept' has no option 'lest'"),
        ("rewards.models", [Learner(Model("builtin:wek", kind="pair"))], r"rewards.models.0.model.path: 'builtin:wek'"),
        (
            "rewards.models",
            [Learner(Model("builtin:weak", kind="pair", prompt={"name": "listed"}))],
            r"rewards.models.0.model.prompt: 'listed' given; a pair lacks its question's other choices",
        ),
    ],
)
def test_methods_and_their_options_are_checked_before_anything_runs(config, key, value, words):
    with pytest.raises(BadInput, match=words) as refused:
        told(changed(config, key, value))
    assert len(str(refused.value).splitlines()) == 1


def test_rewards_of_written_answers_need_candidates(written):
    with pytest.raises(BadInput, match=r"^label.reward.use: 'tilt' given; written answers need label.made: winner$"):
        told(changed(written, "label.made", "decoded"))


# --- tiny runs --------------------------------------------------------------------------------------------------------


def stages_of(folder, name) -> dict:
    listed = json.loads((folder / "runs" / name / "stages.json").read_text())["stages"]
    return {one["title"].removeprefix("seed 0 · "): folder / "runs" / "store" / one["folder"] for one in listed}


PLAIN = "{{model: {{path: 'builtin:{0}', kind: pair}}, train: {{steps: 6, batch: 32, lr: 0.02}}}}"
TILT = """
base: tiny.yaml
name: rewarded
rewards: {members: 2, models: [%s]}
label: {reward: {use: tilt, strength: 0.5, accept: {of: margin, quantile: 0.25}}}
"""
KIND = """
base: tiny.yaml
name: KIND
rewards: {kind: KIND, members: 2, head_steps: 3, models: [%s]}
label: {reward: {use: best_of_n}}
controls: {unrewarded: false, shuffled: false, long_learner: false, naive_student: false}
"""
KINDS = ("warm", "heads", "adapters")


def run(folder, *arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shorten(patch)
        try:
            main(["run", *arguments])
        finally:
            log.to_file(None)


@pytest.fixture(scope="module")
def rewarded_runs(tiny_run, tmp_path_factory):
    """Runs of the tiny config with each kind of ensemble, made together from a copy of the tiny run."""
    texts = {"rewarded": TILT % PLAIN.format("weak")}
    texts |= {kind: KIND.replace("KIND", kind) % PLAIN.format("strong") for kind in KINDS}
    folder = tmp_path_factory.mktemp("rewarded") / "copy"
    shutil.copytree(tiny_run, folder)
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    run(folder, *(f"{name}.yaml" for name in texts))
    return folder


def test_a_tilted_committee_labels_the_pool_and_the_report_says_what_that_brought(rewarded_runs):
    tiny_run, stages = rewarded_runs, stages_of(rewarded_runs, "rewarded")
    pairs = read_rows(stages["pairs for reward models"] / "targets.jsonl", Example)
    assert len(pairs) == 3 * 160
    told = json.loads((stages["the committee, tilted by rewards"] / "rewards.json").read_text())
    assert told["strength"] == 0.5
    assert told["members"] == ["reward 1", "reward 2"]
    assert 0 <= told["agreement"] <= 1
    for name in ("transfer", "hard_test"):
        plain = read_arrays(stages["committee answers"] / f"{name}.npz", Predictions)
        found = read_arrays(stages["the committee, tilted by rewards"] / f"{name}.npz", Predictions)
        rewards = read_arrays(stages["the committee, tilted by rewards"] / f"{name}_rewards.npz", Rewards)
        members = read_arrays(stages["rewards of candidates"] / f"{name}.npz", Rewards).scores_MNK
        even_MNK = (members - members.mean(2, keepdims=True)) / members.std(2, keepdims=True)
        assert np.allclose(rewards.scores_MNK[0], even_MNK.mean(0))
        wanted = tilt(plain.probs_NK, plain.mask_NK, rewards.scores_MNK[0], strength=0.5)
        assert np.allclose(found.probs_NK, wanted)
    labels = read_arrays(stages["labels by rewarded"] / "labels.npz", PseudoLabels)
    assert np.allclose(labels.target_NK[labels.weight_N > 0].sum(1), 1)
    dropped = labels.weight_N == 0
    assert 0 < dropped.mean() <= 0.25
    assert all("the margin is" in why for why in labels.why_N[dropped])
    metrics = json.loads((tiny_run / "runs" / "rewarded" / "metrics.json").read_text())
    asked = {(one["model"], one["name"]): one["value"] for one in metrics["metrics"] if one["suite"] == "hard_test"}
    assert asked["rewarded", "accuracy_minus_committee"] is not None
    assert asked["student", "accuracy_minus_unrewarded"] is not None
    assert "rewards in labels brought" in metrics["verdict"]
    report = (tiny_run / "runs" / "rewarded" / "report.md").read_text()
    assert "two members have the same favourite" in report
    shown = describe_row(tiny_run / "runs" / "rewarded", labels.ids[0])
    assert all(words in shown for words in ("reward 2", "together (mean)", "tilted, strength 0.5", "label by rewarded"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_ensemble_makes_labels(rewarded_runs, kind):
    stages = stages_of(rewarded_runs, kind)
    found = read_arrays(stages["rewards of candidates"] / "transfer.npz", Rewards)
    assert len(found.models) == (1 if kind == "warm" else 2)
    opinion = read_arrays(stages["the committee, tilted by rewards"] / "transfer.npz", Predictions)
    rewards_NK = read_arrays(stages["the committee, tilted by rewards"] / "transfer_rewards.npz", Rewards).scores_MNK[0]
    assert (opinion.probs_NK.argmax(1) == rewards_NK.argmax(1)).all()
    assert opinion.probs_NK.max(1).min() == 1
    report = (rewarded_runs / "runs" / kind / "report.md").read_text()
    assert "the best of n alone" in report
    assert "begin as the student's base and learn from the easy gold" in report


def test_written_answers_are_sampled_judged_and_tilted(written_run):
    pair = WEAK_PAIR.replace("builtin:weak", "builtin:weak_writer")
    off = [f"controls.{name}=false" for name in ("unrewarded", "shuffled", "answer_level", "bagged")]
    run(written_run, "written.yaml", "name=rewarded", pair, *REWARDED[1:], "label.made=winner", *off)
    stages = stages_of(written_run, "rewarded")
    pairs = read_rows(stages["pairs for reward models"] / "targets.jsonl", Example)
    candidates = read_rows(stages["committee · candidates of easy_fit"] / "easy_fit.jsonl", Example)
    sampled = {row.id: row.choices for row in candidates}
    labels = read_arrays(stages["pairs for reward models"] / "labels.npz", PseudoLabels)
    worse = [(row.meta["question"], row.choices[at]) for row, at in zip(pairs, labels.target_NK.argmin(1), strict=True)]
    assert all(text in [one.strip() for one in sampled[key]] for key, text in worse)
    candidates = read_rows(stages["committee · candidates of transfer"] / "transfer.jsonl", Example)
    found = read_arrays(stages["the committee, tilted by rewards"] / "transfer.npz", Predictions)
    assert found.mask_NK.sum(1).tolist() == [len(row.choices) for row in candidates]
    labels = read_arrays(stages["labels by rewarded"] / "labels.npz", PseudoLabels)
    kept = labels.weight_N > 0
    assert np.allclose(labels.target_NK[kept], found.probs_NK[kept])
    assert (stages["rewarded answers hard_test"] / "hard_test_texts.jsonl").exists()
    assert finish(written_run / "runs" / "rewarded")
    metrics = json.loads((written_run / "runs" / "rewarded" / "metrics.json").read_text())["metrics"]
    assert [one["n"] for one in metrics if (one["model"], one["name"]) == ("rewarded", "accuracy")] == [60]


@pytest.mark.parametrize(("strength", "chose"), [(None, True), (0.5, False)])
def test_the_report_says_where_the_strength_was_chosen(tmp_path, strength, chose):
    told_by = {"use": "tilt", "strength": 0.5, "accuracy": {"rewarded": 0.9}, "agreement": None, "unjudged": {}}
    (folder := tmp_path / "store" / "tilted-0").mkdir(parents=True)
    (folder / "rewards.json").write_text(json.dumps(told_by))
    write_manifest(folder, {"stage": "tilted", "key": "0"})
    artifact = Artifact("tilted", folder, {"kind": "opinion", "model": "rewarded", "seed": 0})
    config = dataclasses.asdict(Config(label=Labels(reward=LabelReward(use="tilt", strength=strength))))
    words, *_ = reward_notes(Run(tmp_path, (artifact,), config, "w2s run"), 0)
    assert ("on which the strength was chosen" in words) is chose
