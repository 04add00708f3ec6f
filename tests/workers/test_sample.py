"""The sample worker in this process."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.models import tiny as tiny_models
from tests.models.voices import moved, with_adapters
from w2s.config.fields import Model
from w2s.models import batches, builtin, committee, lm, load, train
from w2s.models.adapters import adapter_of
from w2s.models.tokens import layout
from w2s.store.records import BadInput, Example, TokenRanks, TokenTargets, read_arrays, write_rows
from w2s.workers import sample
from w2s.workers.job import Rank
from w2s.workers.job_files import read_job, write_job
from w2s.workers.serve import run_job

WORDS = [f"w{n}" for n in range(40)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with words-0 to words-2 (whole words) and pieces-0, pieces-1 (pieces of words)."""
    folder = tmp_path_factory.mktemp("models")
    for seed in range(3):
        builtin.make("weak", [*WORDS, "most ? ="], folder / "plain", seed)
        words = moved(load.load(Model(path=str(folder / "plain"))), seed, 0.5)
        load.save(words, folder / f"words-{seed}")
    for seed in range(2):
        load.save(moved(tiny_models.read(tiny_models.write("gpt2", folder / "gpt2")), seed), folder / f"pieces-{seed}")
    return folder


@pytest.fixture
def examples(tmp_path):
    rng = np.random.default_rng(1)
    prompts = [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(48)]
    rows = [Example(f"e{at}", "t", "answer", prompt) for at, prompt in enumerate(prompts)]
    write_rows(tmp_path / "examples.jsonl", rows)
    return rows


@pytest.fixture
def job(models, tmp_path, examples):
    """job(name, models, **values) -> a folder with a job that has `models` write."""

    def write(name, names, **values):
        folder = tmp_path / name
        folder.mkdir()
        told = {
            "worker": "sample",
            "models": [None if one is None else str(models / one) for one in names],
            "alphas": [1.0] * len(names),
            "mixture": "linear",
            "mix": "all",
            "base": {"learner": {"model": {"path": str(models / "words-0")}}},
            "examples": "../examples.jsonl",
            "samples": 1,
            "temperature": 0.0,
            "max_new_tokens": 6,
            "stop": [],
            "seed": 3,
            "top": 0,
            "runtime": {},
        }
        (folder / "job.json").write_text(json.dumps(told | values))
        return folder

    return write


def done(folder):
    """The lines of samples.jsonl, and what done.json says."""
    assert run_job(folder, train.World()) == {"done": str(folder)}
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    return lines, json.loads((folder / "done.json").read_text())


def refused(folder, match):
    with pytest.raises(BadInput, match=match):
        sample.run(folder, read_job(folder), train.World())


def test_texts_come_back_in_the_order_of_the_examples_as_decode_writes_them(job, models, examples):
    told = {"samples": 3, "temperature": 1.2, "alphas": [0.5, 1.5]}
    folder = job("job", ["words-0", "words-1"], **told)
    lines, facts = done(folder)
    assert [line["id"] for line in lines] == [one.id for one in examples]
    learners = [load.load_folder(models / f"words-{at}") for at in range(2)]
    options = {"max_new_tokens": 6, "samples": 3, "temperature": 1.2, "seed": 3}
    every = [
        w for part in committee.decode(learners, [e.prompt for e in examples], [0.5, 1.5], **options) for w in part
    ]
    for one in every:
        assert lines[one.prompt]["texts"][one.number] == one.text
        assert lines[one.prompt]["logps"][one.number] == pytest.approx(one.logp, abs=1e-5)
    assert facts["rows"] == 48
    assert facts["unfinished"] == sum(not one.ended for one in every) > 0
    assert sorted(path.name for path in folder.iterdir()) == ["done.json", "job.json", "samples.jsonl"]


def test_null_is_the_untrained_base_and_greedy_samples_are_alike(job):
    null, _ = done(job("null", [None], samples=2))
    assert null == done(job("named", ["words-0"], samples=2))[0]
    assert all(line["texts"][0] == line["texts"][1] and len(line["logps"]) == 2 for line in null)
    assert null != done(job("other", ["words-1"], samples=2))[0]


def test_a_stop_text_ends_a_text(job):
    whole, _ = done(job("whole", ["words-0"]))
    stop = next(line["texts"][0].split()[1] for line in whole if len(line["texts"][0].split()) > 1)
    found, facts = done(job("stopped", ["words-0"], stop=[f" {stop}"]))
    assert [line["texts"][0] for line in found] == [line["texts"][0].split(f" {stop}")[0] for line in whole]
    assert facts["unfinished"] < done(job("again", ["words-0"]))[1]["unfinished"]


@pytest.mark.parametrize("kind", ["words", "pieces"])
def test_targets_are_the_mixture_at_the_tokens_that_the_text_is_read_as(job, models, examples, tmp_path, kind):
    programs = [dataclasses.replace(one, task="code", prompt=one.prompt + "\n") for one in examples]
    write_rows(tmp_path / "examples.jsonl", programs)
    stop = ["w2"] if kind == "words" else list("aeinrst123 ")
    folder = job("job", [f"{kind}-0", f"{kind}-1"], top=4, temperature=1.0, max_new_tokens=12, stop=stop)
    lines, facts = done(folder)
    soft = read_arrays(folder / "soft.npz", TokenTargets)
    learners = [load.load_folder(models / f"{kind}-{at}") for at in range(2)]
    read = [dataclasses.replace(e, choices=tuple(line["texts"])) for e, line in zip(programs, lines, strict=True)]
    place = layout(learners[0], read)
    assert (soft.ids.tolist(), soft.tokenizer) == (place.ids.tolist(), place.tokenizer)
    assert len(soft.token_TJ) == soft.length_N.sum()
    assert soft.prob_TJ.dtype == np.float16
    fits = np.flatnonzero(soft.length_N)
    assert len(fits) > 3
    assert soft.length_N.max() > 2
    assert soft.length_N[fits].tolist() == place.length_N[fits].tolist()
    assert facts["untargeted"] == len(examples) - len(fits) >= facts["unfinished"]
    batch = batches.collate(learners[0], batches.encode(learners[0], [read[at] for at in fits]))
    with torch.no_grad():
        probs_LTV = torch.stack([lm.token_logits(one, batch) for one in learners]).softmax(-1)
    wanted_TV = probs_LTV.mean(0).numpy()
    np.testing.assert_allclose(soft.prob_TJ, -np.sort(-wanted_TV, 1)[:, :4], atol=1e-3)
    np.testing.assert_allclose(np.take_along_axis(wanted_TV, soft.token_TJ, 1), soft.prob_TJ, atol=1e-3)


def test_all_tokens_told_are_the_whole_distribution(job, models):
    folder = job("job", ["words-0", "words-2"], top=1000, temperature=1.0, max_new_tokens=20)
    lines, _ = done(folder)
    soft = read_arrays(folder / "soft.npz", TokenTargets)
    tokenizer, begin = load.load_folder(models / "words-0").tokenizer, 0
    assert soft.prob_TJ.shape[1] == len(tokenizer)
    assert (soft.length_N > 0).sum() > 3
    np.testing.assert_allclose(soft.prob_TJ.astype(float).sum(1), 1, atol=5e-3)
    for line, length in zip(lines, soft.length_N.tolist(), strict=True):
        if length:  # it ended by an end mark, as no stop text was given
            tokens = [*tokenizer(line["texts"][0])["input_ids"], tokenizer.eos_token_id]
            at = soft.token_TJ[begin : begin + length] == np.array(tokens)[:, None]
            prob_T = soft.prob_TJ[begin : begin + length].astype(float)[at]
            assert np.log(prob_T).sum() == pytest.approx(line["logps"][0], abs=0.02)
        begin += length


@pytest.mark.parametrize("mixture", ["linear", "log_linear"])
def test_a_texts_log_probability_is_the_sum_of_what_the_rank_worker_finds_at_its_tokens(
    job, tmp_path, examples, mixture
):
    names, alphas = ["words-0", "words-2"], [0.6, 1.3]
    folder = job("job", names, top=1, temperature=1.0, max_new_tokens=20, alphas=alphas, mixture=mixture)
    lines, _ = done(folder)
    length_N = read_arrays(folder / "soft.npz", TokenTargets).length_N
    read = [dataclasses.replace(e, choices=tuple(line["texts"])) for e, line in zip(examples, lines, strict=True)]
    write_rows(tmp_path / "targets.jsonl", [one for one, length in zip(read, length_N, strict=True) if length])
    stages = [[model] for model in read_job(folder).models]
    (tmp_path / "ranked").mkdir()
    write_job(ranked := tmp_path / "ranked", Rank(stages, alphas, {"t": "../targets.jsonl"}, mixture))
    assert run_job(ranked, train.World()) == {"done": str(ranked)}
    found = read_arrays(ranked / "t-1.npz", TokenRanks)
    logp_N = np.add.reduceat(found.logp_T, np.cumsum(found.length_N) - found.length_N)
    assert len(logp_N) > 3
    wanted = [line["logps"][0] for line, length in zip(lines, length_N, strict=True) if length]
    np.testing.assert_allclose(logp_N, wanted, atol=1e-4)


def test_adapters_that_share_their_base_write_what_separate_models_write(job, tmp_path):
    base = tiny_models.write("gpt2", tmp_path / "base")
    adapters = with_adapters(base)[1]
    for at, adapter in enumerate(adapters):
        learner = tiny_models.read(base)
        for name, (down, up) in adapter.items():
            learner.module.get_submodule(name).weight.data += down @ up
        load.save(learner, tmp_path / f"learner-{at}")
        load.save_adapter(tmp_path / f"learner-{at}", adapter)
    names = [str(tmp_path / f"learner-{at}") for at in range(3)]
    start = {"learner": {"model": {"path": str(base), "trainable": "lora"}}, "path": str(base)}
    told = {"alphas": [0.5, 0.2, 0.9], "samples": 2, "temperature": 0.7, "top": 3, "max_new_tokens": 10}
    apart, shared = job("apart", names, **told), job("shared", names, base=start, one_base=True, **told)
    opened = sample.open_voices(shared, read_job(shared), train.World())
    assert [voice.count for voice in opened] == [3]
    one, two = done(apart)[0], done(shared)[0]
    assert [line["texts"] for line in one] == [line["texts"] for line in two]
    assert np.abs(np.array([a["logps"] for a in one]) - np.array([b["logps"] for b in two])).max() < 1e-3
    soft, same = (read_arrays(folder / "soft.npz", TokenTargets) for folder in (apart, shared))
    np.testing.assert_array_equal(soft.length_N, same.length_N)
    np.testing.assert_allclose(soft.prob_TJ.astype(float), same.prob_TJ.astype(float), atol=2e-3)


def test_learners_that_drew_their_own_first_weights_share_no_base(job, tmp_path):
    builtin.make("weak", [*WORDS, "most ? ="], tmp_path / "base", 0, from_scratch=True)
    for seed in (1, 2):
        learner = load.load(Model(path=str(tmp_path / "base"), trainable="lora"), seed=seed)
        load.save(learner, tmp_path / f"learner-{seed}")
        load.save_adapter(tmp_path / f"learner-{seed}", adapter_of(learner.module))
    start = {
        "learner": {"model": {"path": str(tmp_path / "base"), "trainable": "lora"}},
        "path": str(tmp_path / "base"),
    }
    names = [str(tmp_path / f"learner-{seed}") for seed in (1, 2)]
    shared, _ = done(job("shared", names, base=start, one_base=True))
    assert shared == done(job("apart", names))[0]


def test_a_killed_job_goes_on_with_the_texts_that_are_missing(job, monkeypatch):
    whole, made = committee.decode, []

    def cut(*learners, skip, **options):
        for at, part in enumerate(whole(*learners, skip=skip, **options), skip):
            made.append(at)
            if len(made) == 3:
                raise KeyboardInterrupt
            yield part

    told = {"samples": 5, "temperature": 1.0, "top": 2}
    wanted, facts = done(job("uncut", ["words-0", "words-1"], **told))
    monkeypatch.setattr(committee, "TOKENS_AT_ONCE", 100)
    monkeypatch.setattr(sample, "decode", cut)
    killed = job("killed", ["words-0", "words-1"], **told)
    with pytest.raises(KeyboardInterrupt):
        run_job(killed, train.World())
    assert not (killed / "samples.jsonl").exists()
    found, again = done(killed)
    assert made[:5] == [0, 1, 2, 2, 3]
    assert [line["texts"] for line in found] == [line["texts"] for line in wanted]
    assert again | {"seconds": 0} == facts | {"seconds": 0}


def test_two_processes_share_the_examples_and_write_the_same(job):
    class Second(train.World):
        def barrier(self):
            """The first has waited for nothing: it runs after this one."""

        def sum(self, values):
            return values

    told = {"samples": 2, "temperature": 1.0, "top": 2}
    wanted, facts = done(job("alone", ["words-0"], **told))
    both = job("both", ["words-0"], **told)
    values = read_job(both)
    sample.run(both, values, Second(1, 2))
    found = sample.run(both, values, Second(0, 2))
    lines = [json.loads(line) for line in (both / "samples.jsonl").read_text().splitlines()]
    assert [line["texts"] for line in lines] == [line["texts"] for line in wanted]
    assert found == {key: facts[key] for key in ("rows", "unfinished", "untargeted")}


def test_what_cannot_write_is_one_line(job, models, tmp_path):
    refused(job("kinds", ["words-0", "pieces-0"]), "tokenizers differ")
    refused(job("alphas", ["words-0"], alphas=[1.0, 2.0]), "alphas: 2 given; allowed: 1")
    start = {"learner": {"model": {"path": str(models / "words-0"), "kind": "pair"}}}
    refused(job("pair", [None], base=start), r"model\.kind: 'pair' given; allowed: lm")
    start = {"learner": {"model": {"path": str(models / "words-0"), "prompt": {"name": "qa"}}}}
    refused(job("prompts", ["words-1", None], base=start), r"model\.prompt")
    (tmp_path / "none.jsonl").write_text("")
    refused(job("none", ["words-0"], examples="../none.jsonl"), r"none\.jsonl: there is no example in it")
