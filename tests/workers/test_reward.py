"""The reward worker in this process: training, scoring, averaging; TRL's RewardTrainer as the oracle of the loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models import apart, tiny
from tests.workers.pairs import PAIRS, make_labels, make_pairs
from w2s.config.fields import Model
from w2s.models import batches, load, losses, members, score, train
from w2s.store.records import BadInput, Example, Rewards, read_arrays, write_arrays, write_rows
from w2s.workers import finetune, reward
from w2s.workers import score as scoring
from w2s.workers.job import Finetune, Reward, Score
from w2s.workers.job_files import read_job
from w2s.workers.serve import run_job


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    """bert/ and llama/ (random weights), pairs.jsonl and labels.npz."""
    folder = tmp_path_factory.mktemp("bases")
    for architecture in ("bert", "llama"):
        tiny.write(architecture, folder / architecture)
    examples = make_pairs()
    write_rows(folder / "pairs.jsonl", examples)
    write_arrays(folder / "labels.npz", make_labels(examples))
    return folder


@pytest.fixture
def job_of(bases, tmp_path) -> Callable[..., Path]:
    """job_of(name, train={...}, **job) -> a folder with that job.json."""

    def write(name: str, train: dict | None = None, base: str = "bert", worker: str = "reward", **values) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        settings = {"steps": 6, "batch": 8, "lr": 3e-3, **(train or {})}
        job = {
            "worker": worker,
            **({"kind": "heads", "members": 3} if worker == "reward" else {}),
            "learner": {"model": {"path": str(bases / base), "kind": "pair"}, "train": settings},
            "path": str(bases / base),
            "seed": 1,
            "examples": str(bases / "pairs.jsonl"),
            "labels": str(bases / "labels.npz"),
            **values,
        }
        (folder / "job.json").write_text(json.dumps(job))
        return folder

    return write


def run(folder: Path) -> dict:
    job = read_job(folder)
    worker = {Finetune: finetune, Reward: reward, Score: scoring}[type(job)]
    return worker.run(folder, job, train.World())


def history(folder: Path) -> dict:
    return json.loads((folder / "train.json").read_text())


def weights_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "model").iterdir()}


def test_the_loss_of_a_pair_and_its_gradient_are_those_of_trls_reward_trainer(bases, tmp_path):
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    loaded = load.load(Model(path=str(bases / "llama"), kind="pair"), seed=3)
    examples, target_NK = make_pairs(), make_labels(make_pairs()).target_NK
    encoded = batches.encode(loaded, examples)
    rows = [
        {"chosen_ids": one.rows[int(t[1])].token_T.tolist(), "rejected_ids": one.rows[int(t[0])].token_T.tolist()}
        for one, t in zip(encoded, target_NK, strict=True)
    ]
    settings = RewardConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, max_length=None, bf16=False)
    trainer = RewardTrainer(
        model=loaded.module, args=settings, train_dataset=Dataset.from_list(rows), processing_class=loaded.tokenizer
    )
    loaded.module.eval()

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        loaded.module.zero_grad()
        loss.backward()
        return torch.cat([p.grad.flatten() for p in loaded.module.parameters() if p.grad is not None])

    wanted = trainer.compute_loss(loaded.module, trainer.data_collator(rows))
    data = finetune.Rows(loaded, encoded, make_labels(examples))
    scorer = score.Scorer(loaded)
    objective = finetune.make_objective(data, losses.cross_entropy, 1.0, scorer)
    found = objective(scorer, np.arange(PAIRS), 0.0).mean()
    assert found.item() == pytest.approx(wanted.item(), abs=1e-6)
    assert wanted.item() > 0.1
    wanted_gradient = gradient(wanted)
    torch.testing.assert_close(gradient(found), wanted_gradient, rtol=1e-3, atol=1e-5)
    one = members.join(loaded, members.Ensemble("heads", 1))
    ours = reward.make_objective(one, data, np.ones((1, PAIRS)), losses.cross_entropy, 0.0)
    assert ours(one, np.arange(PAIRS), 0.0).mean().item() == pytest.approx(wanted.item(), abs=1e-6)


@pytest.mark.parametrize("base", ["bert", "llama"])
def test_one_head_is_trained_as_the_plain_model_is(job_of, base):
    settings = {"holdout_share": 0.25, "eval_every": 3}
    plain, one = job_of("plain", settings, base, worker="finetune"), job_of("one", settings, base, members=1)
    run(plain), run(one)
    assert history(one)["losses"] == pytest.approx(history(plain)["losses"], abs=1e-6)
    assert np.array(history(one)["looks"]) == pytest.approx(np.array(history(plain)["looks"]), abs=1e-6)
    found = apart.alone(members.open_members(one / "model"), 0).module.state_dict()
    wanted = load.load_folder(plain / "model").module.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], rtol=0, atol=1e-6) for name in wanted)


@pytest.mark.parametrize("kind", ["heads", "adapters"])
def test_the_members_learn_to_prefer_and_the_trunk_of_adapters_stays(job_of, bases, kind):
    folder = job_of("job", {"steps": 60, "lr": 2e-2 if kind == "adapters" else 3e-3}, kind=kind, layers=1, rank=4)
    summary = run(folder)
    told = history(folder)
    assert summary["rows"] == PAIRS
    assert summary["equal"] == 0
    assert np.mean(told["losses"][-10:]) < np.mean(told["losses"][:10]) - 0.1
    made = members.open_members(folder / "model")
    base = load.load(Model(path=str(bases / "bert"), kind="pair"), seed=1).module.state_dict()
    moved = [name for name, value in made.loaded.module.state_dict().items() if not torch.equal(value, base[name])]
    assert bool(moved) == (kind == "heads")
    assert not list(folder.glob("checkpoint*"))


@pytest.mark.parametrize("kind", ["heads", "adapters"])
def test_micro_batches_and_checkpointed_activations_change_nothing_but_rounding(job_of, kind):
    how = {"kind": kind, "rank": 2, "bootstrap": True, "diversity": 0.1 if kind == "adapters" else 0.0}
    whole = job_of("whole", **how)
    cut = job_of("cut", **how, runtime={"micro_batch": 3, "gradient_checkpointing": True})
    run(whole), run(cut)
    assert history(cut)["losses"][0] == pytest.approx(history(whole)["losses"][0], abs=1e-6)
    assert history(cut)["losses"] == pytest.approx(history(whole)["losses"], abs=1e-3)


def test_deepspeed_in_one_process_trains_as_plain_torch_does(job_of):
    plain = job_of("plain", kind="adapters", rank=2, diversity=0.1)
    run(plain)
    for stage in ("zero1", "zero2"):
        folder = job_of(stage, kind="adapters", rank=2, diversity=0.1, runtime={"deepspeed": stage})
        run(folder)
        assert history(folder)["losses"] == pytest.approx(history(plain)["losses"], abs=1e-3)
    with pytest.raises(BadInput, match=r"diversity: 0.1 given under ZeRO 3"):
        run(job_of("zero3", kind="adapters", diversity=0.1, runtime={"deepspeed": "zero3"}))


@pytest.mark.parametrize("kind", ["heads", "adapters"])
def test_a_killed_fit_goes_on_bit_for_bit(job_of, kind, monkeypatch):
    how = {"kind": kind, "rank": 2, "bootstrap": True, "runtime": {"checkpoint_every": 2}}
    whole, cut = (job_of(name, {"holdout_share": 0.2, "eval_every": 2}, **how) for name in ("whole", "cut"))
    run(whole)
    step, calls = train.run_step, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return step(*args)

    monkeypatch.setattr(train, "run_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    monkeypatch.setattr(train, "run_step", step)
    assert (cut / "checkpoint").exists()
    run(cut)
    assert {**history(cut), "seconds": 0} == {**history(whole), "seconds": 0}
    assert weights_of(cut) == weights_of(whole)


def test_diversity_keeps_the_adapters_of_members_apart(job_of):
    found = []
    for strength in (0.0, 5.0):
        folder = job_of(f"at-{strength}", kind="adapters", rank=2, diversity=strength)
        run(folder)
        found.append(history(folder)["diversity"])
    assert found[0] < found[1] <= 6**0.5 + 1e-6


def test_a_bootstrap_draws_as_many_rows_for_each_member_and_none_that_is_held_out():
    fit_N = np.arange(0, 40, 2)
    count_MN = reward.draws(3, fit_N, 40, 7, True)
    assert (count_MN[:, fit_N].sum(1) == 20).all()
    assert (count_MN[0] != count_MN[1]).any()
    assert (count_MN == reward.draws(3, fit_N, 40, 7, True)).all()
    assert (reward.draws(2, fit_N, 40, 7, False) == 1).all()


def test_pairs_of_equal_texts_are_left_out_and_counted(job_of):
    examples = make_pairs(6)
    same = Example("same", "pairs", "choice", "How many?", ("one", "one "))
    folders = []
    for name, rows in (("with", [*examples, same]), ("without", examples)):
        folders.append(job_of(name, examples="pairs.jsonl", labels="labels.npz"))
        write_rows(folders[-1] / "pairs.jsonl", rows)
        write_arrays(folders[-1] / "labels.npz", make_labels(rows))
    assert [run(folder)["equal"] for folder in folders] == [1, 0]
    assert history(folders[0])["losses"] == history(folders[1])["losses"]
    none = job_of("none", examples="pairs.jsonl", labels="labels.npz")
    write_rows(none / "pairs.jsonl", [same])
    write_arrays(none / "labels.npz", make_labels([same]))
    with pytest.raises(BadInput, match="the candidates of every row are equal"):
        run(none)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"task": "fit"}, "job.json: task: there is no such key"),
        ({"kind": "trees"}, "kind: 'trees' given"),
        ({"members": 0}, "members: 0 given"),
        ({"kind": "adapters", "layers": 9}, "layers: 9 given; allowed: 1 to 2"),
        ({"diversity": 0.5}, "diversity: 0.5 given; allowed: 0, or more with kind 'adapters'"),
        ({"kind": "adapters", "diversity": -1.0}, "diversity: -1.0 given"),
    ],
)
def test_bad_input_is_one_line(job_of, values, line):
    folder = job_of("job", **values)
    told = run_job(folder, train.World())
    assert told["kind"] == "BadInput"
    assert line in told["message"]
    assert "\n" not in told["message"]


@pytest.fixture
def score_job(job_of, tmp_path) -> Callable[[str], Path]:
    """A job that scores two sets by a plain model, heads and adapters (fitted once)."""
    fitted = [job_of("plain", worker="finetune"), job_of("many"), job_of("low", kind="adapters", layers=1, members=2)]
    for folder in fitted:
        run(folder)

    def write(name: str, **values) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        written = [Example(str(at), "t", "answer", "How many?", ("one", "two", "3")[:at]) for at in range(4)]
        write_rows(folder / "written.jsonl", written)
        write_rows(folder / "pairs.jsonl", make_pairs(10, seed=1))
        models = [str(one / "model") for one in fitted]
        job = {"worker": "score", "models": models, "names": ["plain", "many", "low"]}
        job |= {"examples": {"pairs": "pairs.jsonl", "written": "written.jsonl"}, **values}
        (folder / "job.json").write_text(json.dumps(job))
        return folder

    return write


def read_rewards(folder: Path) -> dict[str, Rewards]:
    return {name: read_arrays(folder / f"{name}.npz", Rewards) for name in ("pairs", "written")}


def test_models_of_all_kinds_score_every_candidate_in_the_order_of_the_examples(score_job):
    folder = score_job("score")
    assert run_job(folder, train.World()) == {"done": str(folder)}
    found = read_rewards(folder)
    names = ["plain", "many/0", "many/1", "many/2", "low/0", "low/1"]
    assert [found[name].models.tolist() for name in found] == [names, names]
    assert found["pairs"].ids.tolist() == [example.id for example in make_pairs(10, seed=1)]
    assert found["written"].ids.tolist() == ["0", "1", "2", "3"]
    assert np.isfinite(found["written"].scores_MNK[0]).sum(1).tolist() == [0, 1, 2, 3]
    job = json.loads((folder / "job.json").read_text())
    plain = load.load_folder(job["models"][0])
    wanted_NK = np.zeros((10, 2))
    for index, scores_NK in score.score_chunks(plain, make_pairs(10, seed=1)):
        wanted_NK[index] = scores_NK
    np.testing.assert_allclose(found["pairs"].scores_MNK[0], wanted_NK, atol=1e-5)
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".jsonl") == [
        "done.json",
        "job.json",
        "pairs.npz",
        "written.npz",
    ]


def test_a_killed_score_job_goes_on_with_the_chunks_and_models_that_are_missing(score_job, monkeypatch):
    chunks, opened = [], []

    def small(made, examples, *, width, skip):
        for at, part in enumerate(members.rewards(made, examples, width=width, skip=skip, batch_tokens=60), skip):
            chunks.append((opened[-1], len(examples), at))
            if len(chunks) == 18:
                raise KeyboardInterrupt
            yield part

    def counted(folder, **how):
        opened.append(folder.parent.name)
        return members.open_members(folder, **how)

    whole, cut = score_job("whole"), score_job("cut")
    run(whole)
    monkeypatch.setattr(scoring, "rewards", small)
    monkeypatch.setattr(scoring, "open_members", counted)
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    run(cut)
    assert opened == ["plain", "many", "many", "low"], "the first was through"
    assert chunks[17] == chunks[18], "the one that was lost comes first"
    assert len(set(chunks)) == len(chunks) - 1, "no other is made twice"
    for name, one in read_rewards(whole).items():
        np.testing.assert_allclose(read_rewards(cut)[name].scores_MNK, one.scores_MNK, atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_and_score_as_one_does(job_of, score_job):
    from w2s.config.fields import Runtime
    from w2s.stages.jobs import Workers

    how = {"kind": "adapters", "rank": 2, "bootstrap": True}
    alone, one, both = job_of("alone", **how), score_job("one"), score_job("both")
    run(alone), run(one)
    with Workers(Runtime(slots=1, processes=2, threads=1)) as workers:
        for stage in ("zero1", "zero2", "zero3"):
            folder = job_of(stage, **how, runtime={"deepspeed": stage, "micro_batch": 2})
            workers.run(folder)
            assert history(folder)["losses"] == pytest.approx(history(alone)["losses"], abs=1e-3), stage
        workers.run(both)
    for name, found in read_rewards(both).items():
        assert found.ids.tolist() == read_rewards(one)[name].ids.tolist()
        np.testing.assert_allclose(found.scores_MNK, read_rewards(one)[name].scores_MNK, atol=1e-5)


def test_what_cannot_score_is_one_line(score_job, bases, job_of):
    with pytest.raises(BadInput, match=r"models: .* given; allowed: at least 1, all with different names"):
        run(score_job("none", models=[], names=None))
    with pytest.raises(BadInput, match="allowed: at least 1, all with different names"):
        run(score_job("twins", names=["a", "a", "b"]))
    with pytest.raises(BadInput, match="not a saved model"):
        run(score_job("bare", models=[str(bases / "bert")], names=None))
    folder = score_job("empty")
    (folder / "pairs.jsonl").write_text("")
    with pytest.raises(BadInput, match=r"pairs\.jsonl: there is no example in it"):
        run(folder)


def test_a_warm_job_writes_a_plain_model(job_of, tmp_path):
    fitted = [job_of(f"member-{seed}", worker="finetune", seed=seed) for seed in (1, 2)]
    for folder in fitted:
        run(folder)
    folder = tmp_path / "warm"
    folder.mkdir()
    models = [str(one / "model") for one in fitted]
    (folder / "job.json").write_text(json.dumps({"worker": "average", "models": models}))
    assert run_job(folder, train.World()) == {"done": str(folder)}
    assert load.load_folder(folder / "model").model.kind == "pair"
