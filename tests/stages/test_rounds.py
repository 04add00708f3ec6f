"""One boosting round as a stage, with scikit-learn-free stand-ins for the jobs."""

import json

import numpy as np
import pytest

from w2s.config.fields import Boosting, Learner, Runtime, Train
from w2s.data.difficulty import folds
from w2s.stages import Tools, costs, models, rounds
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
from w2s.workers.finetune import count_labels
from w2s.workers.job import count_steps
from w2s.workers.job_files import read_job

COUNT = 40
IDS = [f"q{n}" for n in range(COUNT)]
GOLD_N = np.arange(COUNT) % 4


def worker(log: list, dies_at: int = 0):
    """Does a job as a worker would: a model that knows the rows it was fitted on, and errs on all others by a rule."""

    def run(folder):
        if len(log) + 1 == dies_at:
            raise KeyboardInterrupt
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


def again(here, inputs, tools, *, index=0, learner=None, boosting=None, refit=None):
    recipe = boosting or Boosting(rounds=1, refit=refit)
    learner = learner or Learner()
    rounds.boosting_round(here, inputs, tools, index=index, learner=learner, boosting=recipe, combiner=None, seed=0)


def tools(log: list, dies_at: int = 0) -> Tools:
    return Tools(Runtime(), None, None, worker(log, dies_at))


def test_cross_fitting_judges_every_row_by_a_model_that_did_not_train_on_it(tmp_path, inputs):
    log: list = []
    here, facts = do(tmp_path, inputs, log, refit=False)
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
        recipe = {"errors": "rotate", "folds": 2, "booster": {"name": "bagging"}}
        _, facts = do(tmp_path, inputs, log, index=index, refit=False, **recipe)
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
    again(here, inputs, tools(log))
    assert len(log) == 6


# --- refit -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("errors", ["cross_fit", "rotate"])
@pytest.mark.parametrize("booster", ["samme", "bagging"])
def test_a_refitted_model_sees_all_rows_and_alone_speaks(tmp_path, inputs, errors, booster):
    recipe = {"errors": errors, "folds": 3, "booster": {"name": booster}}
    asked, log = {}, []
    for refit in (False, True):
        asked[refit] = do(tmp_path, inputs, log, index=1, refit=refit, **recipe)
    (here, facts), (plain, plain_facts) = asked[True], asked[False]
    # What errors and weights come from is the same.
    assert facts == plain_facts | {"refit": True}
    for name in ("weights.npz", "easy_fit.npz", "round.json"):
        assert (here / name).read_bytes() == (plain / name).read_bytes()
    folds_fitted = 3 if errors == "cross_fit" else 1
    assert len(list(plain.glob("fit-*/model"))) == len(list(here.glob("fold-*/model"))) == folds_fitted
    assert [path.parent.name for path in here.glob("fit-*/model")] == ["fit-0"]
    assert set(read_arrays(here / "fit-0" / "labels.npz", PseudoLabels).ids.tolist()) == set(IDS)
    order = read_arrays(here / "fit-0" / "order.npz", Weights)
    assert order.ids.tolist() == IDS
    assert order.weight_N.sum() == pytest.approx(1)
    finetuned = [job for job in log[-2 * (folds_fitted + 1) :] if job["worker"] == "finetune"]
    assert len({job["seed"] for job in finetuned}) == folds_fitted + 1
    predicted = [list(job["examples"]) for job in log[-2 * (folds_fitted + 1) :] if job["worker"] == "predict"]
    assert predicted == [["easy_fit"]] * folds_fitted + [["easy_holdout"]]
    assert read_arrays(here / "easy_holdout.npz", Predictions).by == "round-1"


@pytest.mark.parametrize("refit", [False, True])
def test_a_round_killed_at_any_job_ends_like_one_that_was_not(tmp_path, inputs, refit):
    whole, _ = do(tmp_path, inputs, [], refit=refit)
    for jobs in range(1, 7 if refit else 5):
        here, log = tmp_path / f"killed-{jobs}", []
        here.mkdir()
        with pytest.raises(KeyboardInterrupt):
            again(here, inputs, tools(log, dies_at=jobs), refit=refit)
        again(here, inputs, tools(log), refit=refit)
        assert len(log) == (6 if refit else 4)
        for name in ("weights.npz", "easy_fit.npz", "easy_holdout.npz", "round.json"):
            assert (here / name).read_bytes() == (whole / name).read_bytes()


def test_rounds_refit_where_a_fold_leaves_few_rows():
    few = costs.REFIT_BELOW
    for folds_cut in (2, 3, 5):
        rows = next(n for n in range(few, 9 * few) if n - len(range(0, n, folds_cut)) >= few)
        assert min_seen(rows, folds_cut) >= few > min_seen(rows - 1, folds_cut)
        assert costs.refits(Boosting(folds=folds_cut), rows - 1)
        assert not costs.refits(Boosting(folds=folds_cut), rows)
        assert costs.refits(Boosting(folds=folds_cut, refit=True), 10 * rows)
        assert not costs.refits(Boosting(folds=folds_cut, refit=False), folds_cut)
    assert not costs.refits(Boosting(errors="in_sample"), 10)


def min_seen(rows: int, count: int) -> int:
    """The fewest rows that a fold's model is fitted on, by the folds themselves."""
    return rows - int(np.bincount(folds([f"q{n}" for n in range(rows)], count, 0)).max())


@pytest.mark.parametrize("length", [{"epochs": 1.5, "holdout_share": 0.1}, {"steps": 7}], ids=["epochs", "steps"])
@pytest.mark.parametrize("refit", [False, True, None])
@pytest.mark.parametrize("errors", ["cross_fit", "rotate", "in_sample"])
@pytest.mark.parametrize("booster", ["samme", "bagging"])
def test_a_long_learner_takes_the_steps_of_all_models_of_all_rounds(tmp_path, inputs, length, refit, errors, booster):
    log, learner = [], Learner(train=Train(batch=4, **length))
    recipe = Boosting(rounds=3, errors=errors, folds=3, refit=refit, booster={"name": booster})
    for index in range(recipe.rounds):
        here = tmp_path / f"cost-{index}"
        here.mkdir()
        again(here, inputs, tools(log), index=index, learner=learner, boosting=recipe)
    spent = sum(count_job_steps(tmp_path, folder) for folder in tmp_path.glob("cost-*/f*-*"))
    here = tmp_path / "long"
    here.mkdir()
    models.fit(here, inputs, tools(log), learner=learner, seed=0, split="easy_fit", steps_of=recipe)
    assert log[-1]["learner"]["train"]["steps"] == spent
    assert spent == count_job_steps(tmp_path, here / "fit-0")


def count_job_steps(tmp_path, folder) -> int:
    """The steps that the worker of a job plans: by the rows that are labelled, drawn or not."""
    job = read_job(folder)
    return count_steps(job.learner.train, count_labels(folder, job))
