"""One boosting round over the tokens of written answers as a stage, with stand-ins for the jobs."""

import json

import numpy as np
import pytest

from w2s.boosting.tokens import by_row
from w2s.config.fields import Boosting, Learner, Runtime, Tokens
from w2s.stages import Tools, tokens
from w2s.stages.writing import find_writers
from w2s.store.records import (
    Example,
    PseudoLabels,
    TokenRanks,
    TokenWeights,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)

COUNT = 20
IDS = [f"q{n}" for n in range(COUNT)]
HELD_OUT = [f"h{n}" for n in range(6)]


def make_ranks(ids, known):
    """Answers of 1 to 3 tokens, of which the last is missed in every fifth row that the model does not know."""
    length_N = np.array([1 + int(key[1:]) % 3 for key in ids])
    above_T = np.zeros(length_N.sum(), dtype=int)
    missed_N = np.array([int(key[1:]) % 5 == 0 and key not in known for key in ids])
    above_T[np.cumsum(length_N)[missed_N] - 1] = 4
    start_T = np.concatenate([np.arange(length) * 2 for length in length_N])
    ones_T = np.ones(len(above_T), dtype=int)
    return TokenRanks(np.array(ids), length_N, start_T, start_T + 2, above_T, ones_T, -1.0 * ones_T, 50, "tokenizer")


def worker(log):
    """Does a job as a worker would: a model that knows the rows it was fitted on."""

    def run(folder):
        job = json.loads((folder / "job.json").read_text())
        log.append(job)
        if job["worker"] == "finetune":
            (folder / "model").mkdir(exist_ok=True)
            write_arrays(folder / "model" / "known.npz", read_arrays(folder / job["labels"], PseudoLabels))
        else:
            only = (job.get("only") or {}).get("targets")
            ids = [row.id for row in read_rows(job["examples"]["targets"], Example) if only is None or row.id in only]
            for at, models in enumerate(job["stages"]):
                known = [read_arrays(f"{model}/known.npz", PseudoLabels).ids for model in models if model]
                write_arrays(
                    folder / f"targets-{at}.npz", make_ranks(ids, {key for keys in known for key in keys.tolist()})
                )
        (folder / "done.json").write_text("{}")

    return run


@pytest.fixture
def inputs(tmp_path):
    folders = {role: tmp_path / role for role in ("labels", "holdout", "untrained")}
    for path in folders.values():
        path.mkdir()
    for role, ids in (("labels", IDS), ("holdout", HELD_OUT)):
        write_rows(folders[role] / "targets.jsonl", [Example(key, "s", "answer", "p", ("ab cd 7",)) for key in ids])
    labels = PseudoLabels(np.array(IDS), np.ones((COUNT, 1)), np.ones(COUNT), np.full(COUNT, "gold"))
    write_arrays(folders["labels"] / "labels.npz", labels)
    tokens.ranked(folders["untrained"], folders, make_tools([]), learner=Learner())
    return folders


def make_tools(log):
    return Tools(Runtime(), None, None, worker(log))


def run_round(tmp_path, inputs, log, *, index=0, seed=0, weighing=None, **boosting):
    here = tmp_path / f"made-{len(list(tmp_path.glob('made-*')))}"
    here.mkdir()
    recipe = Boosting(rounds=1, tokens=Tokens(**(weighing or {})), **boosting)
    facts = tokens.token_round(
        here, inputs, make_tools(log), index=index, learner=Learner(), boosting=recipe, mixture="linear", seed=seed
    )
    return here, facts


def test_cross_fitting_ranks_every_row_by_a_model_that_did_not_train_on_it(tmp_path, inputs):
    log = []
    here, facts = run_round(tmp_path, inputs, log, refit=False)
    assert [job["worker"] for job in log] == ["finetune", "rank"] * 2 + ["rank"]
    trained = [set(read_arrays(here / f"fit-{at}" / "labels.npz", PseudoLabels).ids.tolist()) for at in (0, 1)]
    ranked = [set(read_arrays(here / f"rank-{at}" / "targets-0.npz", TokenRanks).ids.tolist()) for at in (0, 1)]
    assert not trained[0] & ranked[0]
    assert not trained[1] & ranked[1]
    ranks = read_arrays(here / "easy_fit.npz", TokenRanks)
    assert ranks.ids.tolist() == IDS
    assert facts["error"] == pytest.approx((ranks.above_T > 0).mean())
    assert read_arrays(here / "easy_holdout.npz", TokenRanks).ids.tolist() == HELD_OUT
    weight_T = read_arrays(here / "weights.npz", TokenWeights).weight_T
    assert weight_T.sum() == pytest.approx(1)
    assert weight_T[ranks.above_T > 0].min() > weight_T[ranks.above_T == 0].max()


@pytest.mark.parametrize("booster", ["samme", "bagging"])
def test_a_refitted_model_sees_all_rows_and_alone_writes(tmp_path, inputs, booster):
    log, recipe = [], {"folds": 3, "booster": {"name": booster}}
    plain, plain_facts = run_round(tmp_path, inputs, [], refit=False, **recipe)
    here, facts = run_round(tmp_path, inputs, log, refit=True, **recipe)
    assert [job["worker"] for job in log] == ["finetune", "rank"] * 3 + ["finetune", "rank"]
    assert facts == plain_facts | {"refit": True}
    for name in ("weights.npz", "easy_fit.npz", "round.json"):  # errors are those of the folds' models
        assert (here / name).read_bytes() == (plain / name).read_bytes()
    assert set(read_arrays(here / "fit-0" / "labels.npz", PseudoLabels).ids.tolist()) == set(IDS)
    assert read_arrays(here / "fit-0" / "tokens.npz", TokenWeights).ids.tolist() == IDS
    mine = [str(here / "fit-0" / "model")]
    assert log[-1]["stages"] == [mine]
    assert find_writers({"model": here}, best_alone=False) == (mine, [1.0])


def test_the_next_round_is_fitted_with_the_weights_of_the_one_before(tmp_path, inputs):
    first, _ = run_round(tmp_path, inputs, [])
    second, _ = run_round(tmp_path, inputs | {"round-0": first}, [], index=1)
    fitted = read_arrays(second / "fit-0" / "tokens.npz", TokenWeights)
    weights = read_arrays(first / "weights.npz", TokenWeights)
    rows_N = np.isin(weights.ids, fitted.ids)
    share_T = weights.weight_T[np.repeat(rows_N, weights.length_N)]
    np.testing.assert_allclose(fitted.weight_T, share_T / share_T.sum())


def test_bagging_draws_rows_anew_and_keeps_the_weights(tmp_path, inputs):
    here, facts = run_round(tmp_path, inputs, [], booster={"name": "bagging"}, weighing={"by": "answer"})
    assert facts["alpha"] == 1
    weights = read_arrays(here / "weights.npz", TokenWeights)
    np.testing.assert_allclose(by_row(weights)[0].weight_N, 1 / COUNT)
    drawn = by_row(read_arrays(here / "fit-0" / "tokens.npz", TokenWeights))[0].weight_N
    times = drawn * len(drawn)
    np.testing.assert_allclose(times, np.round(times), atol=1e-9)
    assert len(set(np.round(times).tolist())) > 1  # some rows twice, some never


def test_after_a_stop_a_round_only_says_so_and_the_writers_are_those_before(tmp_path, inputs):
    first, facts = run_round(tmp_path, inputs, [], errors="in_sample")
    assert facts["stop"] == "error 0: nothing is left to learn from"
    log = []
    second, facts = run_round(tmp_path, inputs | {"round-0": first}, log, index=1, errors="in_sample")
    assert log == []
    assert facts == {"skipped": "error 0: nothing is left to learn from"}
    here = tmp_path / "writers"
    here.mkdir()
    parents = {"holdout": inputs["holdout"], "round-0": first, "round-1": second}
    alphas = {"name": "boosting"}
    facts = tokens.writers(here, parents, make_tools(log), alphas=alphas, mixture="linear", rounds=2)
    assert facts == {"rounds": 1, "used": 1}
    assert len(json.loads((here / "committee.json").read_text())["alphas"]) == 1
