"""The rank worker in this process."""

import json

import numpy as np
import pytest

from w2s.boosting.tokens import take_rows
from w2s.config.fields import Model
from w2s.models import builtin, load, ranks, train
from w2s.store.records import BadInput, Example, TokenRanks, read_arrays, write_rows
from w2s.workers import rank
from w2s.workers.job_files import read_job
from w2s.workers.serve import run_job

WORDS = [f"w{n}" for n in range(40)]


@pytest.fixture
def targets(tmp_path):
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 6))) for _ in range(30)]
    rows = [Example(f"e{at}", "t", "answer", " ".join(rng.choice(WORDS, 5)), (text,)) for at, text in enumerate(texts)]
    write_rows(tmp_path / "targets.jsonl", rows)
    write_rows(tmp_path / "some.jsonl", rows[20::-2])
    return rows


@pytest.fixture
def job(tiny, tmp_path, targets):
    """job(name, stages, alphas, **values) -> a folder with a job about both sets; models by seed, None the base."""
    for seed in range(3):
        builtin.make("weak", [*WORDS, "most ? ="], tmp_path / f"plain-{seed}", seed)
        load.save(load.load(Model(path=str(tmp_path / f"plain-{seed}"))), tmp_path / f"model-{seed}")

    def write(name, stages, alphas=(1.0,), **values):
        folder = tmp_path / name
        folder.mkdir()
        told = {
            "worker": "rank",
            "stages": [[None if seed is None else f"../model-{seed}" for seed in stage] for stage in stages],
            "alphas": list(alphas),
            "mixture": "linear",
            "base": {"learner": {"model": {"path": "builtin:weak"}, "train": {}}, "path": str(tiny / "base")},
            "examples": {"targets": "../targets.jsonl", "some": str(tmp_path / "some.jsonl")},
            "runtime": {},
            **values,
        }
        (folder / "job.json").write_text(json.dumps(told))
        return folder

    return write


def done(folder):
    assert run_job(folder, train.World()) == {"done": str(folder)}
    return folder


def found(folder, name, at=0):
    return read_arrays(folder / f"{name}-{at}.npz", TokenRanks)


def same(one, two):
    for name in ("ids", "length_N", "start_T", "end_T", "above_T", "tied_T"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    np.testing.assert_allclose(one.logp_T, two.logp_T, atol=1e-5)


def test_every_stage_of_every_set_comes_back_in_its_own_order(job, targets):
    folder = done(job("job", [[0], [1, 2], [None]], [1.0, 0.5, 2.0]))
    for at in range(3):
        every, some = found(folder, "targets", at), found(folder, "some", at)
        assert every.ids.tolist() == [row.id for row in targets]
        assert every.length_N.tolist() == [len(row.choices[0].split()) + 1 for row in targets]
        same(some, take_rows(every, np.arange(20, -1, -2)))
    assert json.loads((folder / "done.json").read_text())["rows"] == {"targets": 30, "some": 11}
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["done.json", "job.json", *(f"{s}-{at}.npz" for s in ("some", "targets") for at in range(3))]


def test_stages_of_one_model_are_that_model_and_null_is_the_base(job):
    alone = done(job("alone", [[1]]))
    mixed = done(job("mixed", [[1], [1, 1]], [0.3, 2.0]))
    for at in range(2):
        same(found(mixed, "targets", at), found(alone, "targets"))
    base = found(done(job("base", [[None]])), "targets")
    assert abs(base.logp_T - found(alone, "targets").logp_T).max() > 0.01


def test_only_some_rows_are_asked_about(job, targets):
    ids = [targets[at].id for at in (17, 3, 4)]
    some = found(done(job("only", [[0]], only={"targets": ids})), "targets")
    same(some, take_rows(found(done(job("all", [[0]])), "targets"), np.array([3, 4, 17])))


def test_a_killed_job_goes_on_with_the_chunks_that_are_missing(job, monkeypatch):
    whole, chunks = ranks.rank_chunks, []

    def cut(stages, alphas, examples, *, skip, **options):
        for at, part in enumerate(whole(stages, alphas, examples, skip=skip, **options), skip):
            chunks.append(at)
            if len(chunks) == 4:
                raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(ranks.batches, "most_tokens", lambda _: 60)
    monkeypatch.setattr(rank, "rank_chunks", cut)
    killed, uncut = job("killed", [[0], [1]], [1.0, 1.0]), job("uncut", [[0], [1]], [1.0, 1.0])
    with pytest.raises(KeyboardInterrupt):
        run_job(killed, train.World())
    assert not (killed / "targets-0.npz").exists()
    done(killed)
    assert chunks[:6] == [0, 1, 2, 3, 3, 4]
    monkeypatch.setattr(rank, "rank_chunks", whole)
    done(uncut)
    for name in ("targets", "some"):
        for at in range(2):
            assert (killed / f"{name}-{at}.npz").read_bytes() == (uncut / f"{name}-{at}.npz").read_bytes()


def test_two_processes_share_the_rows_and_find_the_same(job):
    class Second(train.World):
        def barrier(self):
            """The first has waited for nothing: it runs after this one."""

        def sum(self, values):
            return values

    alone, both = done(job("alone", [[0], [2]], [1.0, 1.0])), job("both", [[0], [2]], [1.0, 1.0])
    told = read_job(both)
    rank.run(both, told, Second(1, 2))
    assert not (both / "targets-0.npz").exists()
    rank.run(both, told, Second(0, 2))
    for at in range(2):
        same(found(both, "targets", at), found(alone, "targets", at))


def test_models_of_unlike_tokenizers_are_one_line(job, tmp_path):
    builtin.make("weak", [*WORDS, "another"], tmp_path / "plain", 0)
    load.save(load.load(Model(path=str(tmp_path / "plain"))), tmp_path / "model-9")
    folder = job("job", [[0], [9]], [1.0, 1.0])
    with pytest.raises(BadInput, match=r"stages\.1: a model's tokenizer differs"):
        rank.run(folder, read_job(folder), train.World())
