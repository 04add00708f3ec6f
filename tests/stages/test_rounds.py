"""One boosting round as a stage, with scikit-learn-free stand-ins for the jobs."""

import json

import numpy as np
import pytest

from w2s.config.fields import Boosting, Learner
from w2s.data.difficulty import folds
from w2s.stages import Tools, rounds
from w2s.store.records import (
    Example,
    Gold,
    Predictions,
    PseudoLabels,
    Weights,
    candidate_mask,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)

COUNT = 40
IDS = [f"q{n}" for n in range(COUNT)]
GOLD_N = np.arange(COUNT) % 4


def worker(log: list):
    """Does a job as a worker would: a model that knows the rows it was fitted on, and errs on all others by a rule."""

    def run(folder):
        job = json.loads((folder / "job.json").read_text())
        log.append(job)
        if job["worker"] == "finetune":
            labels = read_arrays(folder / job["labels"], PseudoLabels)
            (folder / "model").mkdir(exist_ok=True)
            write_arrays(folder / "model" / "known.npz", labels)
            (folder / "train.json").write_text(json.dumps({"steps": 3, "tokens": 10}))
        else:
            known = set(read_arrays(folder / job["model"] / "known.npz", PseudoLabels).ids.tolist())
            for name, path in job["examples"].items():
                asked = (job.get("only") or {}).get(name)
                ids = [row.id for row in read_rows(path, Example) if asked is None or row.id in asked]
                probs_NK = np.full((len(ids), 4), 0.1)
                for at, key in enumerate(ids):
                    number = int(key.lstrip("qh"))
                    right = key in known or number % 5
                    probs_NK[at, (number if right else number + 1) % 4] = 0.7
                write_arrays(
                    folder / f"{name}.npz",
                    Predictions(
                        np.array(ids),
                        probs_NK,
                        candidate_mask(np.full(len(ids), 4)),
                        np.zeros(len(ids), bool),
                        job["by"],
                    ),
                )
        (folder / "done.json").write_text("{}")

    return run


@pytest.fixture
def inputs(tmp_path):
    found = {role: tmp_path / role for role in ("questions", "labels", "gold")}
    for path in found.values():
        path.mkdir()
    for split, ids in (("easy_fit", IDS), ("easy_holdout", [f"h{n}" for n in range(8)])):
        rows = [Example(key, "s", "choice", "p", tuple("abcd")) for key in ids]
        write_rows(found["questions"] / f"{split}.jsonl", rows)
    write_rows(found["gold"] / "gold.jsonl", [Gold(f"h{n}", n % 4) for n in range(8)])
    labels = PseudoLabels(np.array(IDS), np.eye(4)[GOLD_N], np.ones(COUNT), np.full(COUNT, "gold"))
    write_arrays(found["labels"] / "labels.npz", labels)
    return found


def do(tmp_path, inputs, log, *, index=0, seed=0, combiner=None, **boosting):
    here = tmp_path / f"made-{len(list(tmp_path.glob('made-*')))}"
    here.mkdir()
    recipe = Boosting(rounds=1, **boosting)
    facts = rounds.boosting_round(
        here, inputs, tools(log), index=index, learner=Learner(), boosting=recipe, combiner=combiner, seed=seed
    )
    return here, facts


def tools(log: list) -> Tools:
    from w2s.config.fields import Runtime

    return Tools(Runtime(), None, None, worker(log))


def test_cross_fitting_judges_every_row_by_a_model_that_did_not_train_on_it(tmp_path, inputs):
    log: list = []
    here, facts = do(tmp_path, inputs, log)
    assert [job["worker"] for job in log] == ["finetune", "predict"] * 2
    trained = [set(read_arrays(here / f"fit-{at}" / "labels.npz", PseudoLabels).ids.tolist()) for at in (0, 1)]
    judged = [set(read_arrays(here / f"ask-{at}" / "easy_fit.npz", Predictions).ids.tolist()) for at in (0, 1)]
    assert not trained[0] & judged[0]
    assert not trained[1] & judged[1]
    assert judged[0] | judged[1] == set(IDS)
    assert facts["error"] == pytest.approx(8 / COUNT)  # every fifth row, though each is known to one of the models
    opinion = read_arrays(here / "easy_fit.npz", Predictions)
    assert opinion.ids.tolist() == IDS
    weights = read_arrays(here / "weights.npz", Weights)
    assert weights.weight_N.sum() == pytest.approx(1)
    wrong = np.arange(COUNT) % 5 == 0
    assert weights.weight_N[wrong].min() > weights.weight_N[~wrong].max()


def test_in_sample_errors_are_those_of_a_model_that_knows_its_rows(tmp_path, inputs):
    _, facts = do(tmp_path, inputs, [], errors="in_sample")
    assert facts["error"] == 0
    assert facts["stop"] == "error 0: nothing is left to learn from"


def test_rotation_judges_one_fold_in_turn(tmp_path, inputs):
    for index in (0, 1):
        log: list = []
        _, facts = do(tmp_path, inputs, log, index=index, errors="rotate", folds=2, booster={"name": "bagging"})
        assert [job["worker"] for job in log] == ["finetune", "predict"]
        fold = folds(IDS, 2, index) == index % 2
        assert facts["error"] == pytest.approx((np.arange(COUNT)[fold] % 5 == 0).mean())


def test_the_next_round_is_fitted_with_the_weights_of_the_one_before(tmp_path, inputs):
    first, _ = do(tmp_path, inputs, [])
    second, _ = do(tmp_path, inputs | {"round-0": first}, [], index=1)
    order = read_arrays(second / "fit-0" / "order.npz", Weights)
    weights = read_arrays(first / "weights.npz", Weights)
    by_id = dict(zip(weights.ids.tolist(), weights.weight_N.tolist(), strict=True))
    share = np.array([by_id[key] for key in order.ids.tolist()])
    assert np.allclose(order.weight_N, share / share.sum())


def test_after_a_stop_a_round_only_says_so(tmp_path, inputs):
    first, _ = do(tmp_path, inputs, [], errors="in_sample")
    log: list = []
    here, facts = do(tmp_path, inputs | {"round-0": first}, log, index=1, errors="in_sample")
    assert log == []
    assert facts == {"skipped": "error 0: nothing is left to learn from"}
    assert rounds.read_round(here) is None


def test_patience_stops_where_the_committee_stands_still(tmp_path, inputs):
    asked = {"combiner": {"name": "soft_vote"}, "patience": 1, "booster": {"name": "samme", "clip": [0.05, 3.0]}}
    first, facts = do(tmp_path, inputs, [], **asked)
    assert facts["stop"] is None
    _, facts = do(tmp_path, inputs | {"round-0": first}, [], index=1, **asked)
    assert facts["stop"] == "the committee has not improved on 0.750 on validation (round 1) for 1 rounds"


def test_bagging_draws_rows_anew_and_keeps_the_weights(tmp_path, inputs):
    here, facts = do(tmp_path, inputs, [], booster={"name": "bagging"})
    assert facts["alpha"] == 1
    assert np.allclose(read_arrays(here / "weights.npz", Weights).weight_N, 1 / COUNT)
    drawn = read_arrays(here / "fit-0" / "order.npz", Weights).weight_N
    assert len(set(np.round(drawn * len(drawn)).tolist())) > 2  # some rows twice, some never
    other, _ = do(tmp_path, inputs, [], booster={"name": "bagging"}, seed=1)
    assert not np.array_equal(read_arrays(other / "fit-0" / "order.npz", Weights).weight_N, drawn)


def test_jobs_that_are_done_are_not_asked_for_again(tmp_path, inputs):
    log: list = []
    here, _ = do(tmp_path, inputs, log)
    rounds.boosting_round(
        here, inputs, tools(log), index=0, learner=Learner(), boosting=Boosting(rounds=1), combiner=None, seed=0
    )
    assert len(log) == 4
