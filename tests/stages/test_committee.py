"""Stages that make one opinion of many, and labels of opinions."""

import dataclasses
import json

import numpy as np
import pytest

from w2s.ensemble.alphas import ALPHAS
from w2s.ensemble.combiners import sharpen
from w2s.ensemble.temperature import fit_temperature
from w2s.stages import committee
from w2s.store.files import write_json
from w2s.store.records import (
    Example,
    Gold,
    Predictions,
    PseudoLabels,
    Round,
    candidate_mask,
    read_arrays,
    softmax,
    write_arrays,
    write_rows,
)

IDS = np.array([f"q{n}" for n in range(60)])
MASK_NK = candidate_mask(np.where(np.arange(60) % 3 == 0, 3, 4))
GOLD_N = np.arange(60) % 3
SOFT = {"name": "soft_vote"}


def opinion(seed: int, skill: float, ids=IDS) -> Predictions:
    """A learner that leans to the right answer by `skill`; its rows in an order of its own."""
    rng = np.random.default_rng(seed)
    scores_NK = rng.normal(size=MASK_NK.shape)
    scores_NK[np.arange(60), GOLD_N] += skill
    order = rng.permutation(60)
    probs_NK = softmax(scores_NK, MASK_NK)
    return Predictions(ids[order], probs_NK[order], MASK_NK[order], np.zeros(60, bool), f"learner {seed}")


@pytest.fixture
def inputs(tmp_path):
    """Three rounds (alphas 1, 0.5 and -0.2), their learners' opinions, and the gold of easy_holdout."""
    found = {"gold": tmp_path / "gold"}
    (tmp_path / "gold").mkdir()
    write_rows(tmp_path / "gold" / "gold.jsonl", [Gold(key, int(gold)) for key, gold in zip(IDS, GOLD_N, strict=True)])
    for at, (alpha, skill) in enumerate(((1.0, 1.5), (0.5, 1.0), (-0.2, 0.0))):
        for role in (f"round-{at}", f"opinion-{at}"):
            found[role] = tmp_path / role
            found[role].mkdir()
        stop = "error 0.7 is not better than chance" if alpha < 0 else None
        write_json(found[f"round-{at}"] / "round.json", dataclasses.asdict(Round(at, "l", 0.3, alpha, 0.9, stop)))
        write_arrays(found[f"round-{at}"] / "easy_holdout.npz", opinion(at, skill))
        write_arrays(found[f"opinion-{at}"] / "transfer.npz", opinion(10 + at, skill))
    return found


def voters(folder, inputs, **changes) -> dict:
    folder.mkdir(exist_ok=True)
    choices = {"combiner": SOFT, "alphas": {"name": "boosting"}, "rounds": 3} | changes
    committee.committee(folder, inputs, None, **choices)
    return json.loads((folder / "committee.json").read_text())


def test_who_votes_is_chosen_on_held_out_easy_questions(tmp_path, inputs):
    found = voters(tmp_path / "c", inputs)
    accuracy = found["accuracy_by_rounds"]
    assert found["used"] == int(np.argmax(accuracy)) + 1
    assert found["alphas"] == [1.0, 0.5, 0.0][: found["used"]]
    assert found["stop"] == "error 0.7 is not better than chance"
    assert found["best_learner"] == int(np.argmax(found["learner_accuracy"]))
    assert np.shape(found["error_correlation"]) == (found["used"], found["used"])
    assert 1 <= found["effective_voters"] <= 3


@pytest.mark.parametrize("name", ALPHAS)
def test_every_way_to_weigh_the_voters_of_a_fixed_pool_serves_the_committee_too(tmp_path, inputs, name):
    found = voters(tmp_path / "c", inputs, alphas={"name": name})
    assert len(found["alphas"]) == found["used"]
    assert min(found["alphas"]) >= 0
    assert max(found["alphas"]) > 0


def test_alphas_of_the_uniform_control_are_all_alike(tmp_path, inputs):
    assert set(voters(tmp_path / "c", inputs, alphas={"name": "uniform"})["alphas"]) == {1.0}


def test_where_no_round_beat_its_reference_the_first_learner_stands_alone(tmp_path, inputs):
    for at in range(3):
        path = inputs[f"round-{at}"] / "round.json"
        write_json(path, json.loads(path.read_text()) | {"alpha": -0.1})
    found = voters(tmp_path / "c", inputs)
    assert (found["used"], found["alphas"]) == (1, [1.0])


def test_rounds_after_the_stop_have_no_say(tmp_path, inputs):
    write_json(inputs["round-2"] / "round.json", None)
    assert len(voters(tmp_path / "c", inputs)["rounds"]) == 2


def combine(tmp_path, inputs, *, best_alone=False, **changes) -> Predictions:
    found = voters(tmp_path / "c", inputs, **changes)
    here = tmp_path / ("best" if best_alone else "all")
    here.mkdir(exist_ok=True)
    committee.combined(
        here, inputs | {"committee": tmp_path / "c"}, None, by="committee", combiner=SOFT, sets=("transfer",),
        best_alone=best_alone,
    )  # fmt: skip
    return read_arrays(here / "transfer.npz", Predictions) if found else None


def test_the_committees_opinion_is_joined_by_id_and_weighted_by_alpha(tmp_path, inputs):
    from w2s.store.records import align

    combined = align(combine(tmp_path, inputs), IDS)
    found = json.loads((tmp_path / "c" / "committee.json").read_text())
    members = [align(opinion(10 + at, skill), IDS).probs_NK for at, skill in enumerate((1.5, 1.0, 0.0))]
    wanted = sum(a * p for a, p in zip(found["alphas"], members, strict=False)) / sum(found["alphas"])
    assert np.allclose(combined.probs_NK, wanted, atol=1e-12)
    with np.load(tmp_path / "all" / "transfer_votes.npz") as votes:
        assert votes["votes_RNK"].shape == (found["used"], 60, 4)


def test_the_best_learner_alone_says_what_it_said(tmp_path, inputs):
    from w2s.store.records import align

    found = combine(tmp_path, inputs, best_alone=True)
    best = json.loads((tmp_path / "c" / "committee.json").read_text())["best_learner"]
    assert np.allclose(
        align(found, IDS).probs_NK, align(opinion(10 + best, (1.5, 1.0, 0.0)[best]), IDS).probs_NK, atol=1e-12
    )


@pytest.fixture
def labelled(tmp_path, inputs):
    """pseudo_labels(**changes) -> PseudoLabels by id."""
    combine(tmp_path, inputs)
    (tmp_path / "q").mkdir()
    rows = [Example(key, "s", "choice", "p", tuple("abcd"[: MASK_NK[at].sum()])) for at, key in enumerate(IDS)]
    write_rows(tmp_path / "q" / "transfer.jsonl", rows)

    def run(**changes) -> PseudoLabels:
        choices = {"select": {"name": "everything"}, "soft": True, "temperature": 1.0, "seed": 0} | changes
        committee.pseudo_labels(tmp_path, {"opinion": tmp_path / "all", "questions": tmp_path / "q"}, None, **choices)
        return read_arrays(tmp_path / "labels.npz", PseudoLabels)

    return run


def test_soft_labels_are_the_opinion_and_hard_ones_its_winner(labelled, tmp_path):
    told = read_arrays(tmp_path / "all" / "transfer.npz", Predictions)
    soft, hard = labelled(), labelled(soft=False)
    assert np.allclose(soft.target_NK, told.probs_NK)
    assert np.array_equal(hard.target_NK.argmax(1), told.probs_NK.argmax(1))
    assert set(hard.target_NK.max(1)) == {1.0}
    sharp = labelled(temperature=0.5)
    assert (sharp.target_NK.max(1) >= soft.target_NK.max(1) - 1e-12).all()


def test_a_null_temperature_is_the_one_that_fits_easy_holdout_best(labelled, tmp_path, inputs):
    rows = [Example(key, "s", "choice", "p", tuple("abcd"[: MASK_NK[at].sum()])) for at, key in enumerate(IDS)]
    write_rows(tmp_path / "q" / "easy_holdout.jsonl", rows)
    held_out, blunt_N = opinion(3, 1.5), np.arange(60) < 7
    held_out = dataclasses.replace(held_out, probs_NK=sharpen(held_out.probs_NK, held_out.mask_NK, 4.0))
    gold_N = np.array([GOLD_N[IDS.tolist().index(key)] for key in held_out.ids.tolist()])
    says = ~blunt_N
    best = fit_temperature(held_out.probs_NK[says], held_out.mask_NK[says], gold_N[says])
    write_arrays(inputs["round-0"] / "easy_holdout.npz", dataclasses.replace(held_out, abstained_N=blunt_N))
    parents = {"opinion": tmp_path / "all", "questions": tmp_path / "q"}
    parents |= {"holdout": inputs["round-0"], "gold": inputs["gold"]}
    how = {"select": {"name": "everything"}, "soft": True, "temperature": None, "seed": 0}
    facts = committee.pseudo_labels(tmp_path, parents, None, **how)
    assert facts["fitted_temperature"] == best._asdict()
    assert best.temperature < 0.6
    fitted = read_arrays(tmp_path / "labels.npz", PseudoLabels)
    assert np.array_equal(fitted.target_NK, labelled(temperature=best.temperature).target_NK)
    assert committee.pseudo_labels(tmp_path, parents, None, **how, shuffled=True) == facts
    assert committee.pseudo_labels(tmp_path, parents, None, **{**how, "soft": False}) == {"rows": 60, "kept": 60}


def test_dropped_rows_stay_with_weight_0_and_a_reason(labelled):
    labels = labelled(select={"name": "confidence", "keep_share": 0.25})
    assert (labels.weight_N > 0).sum() == 15
    assert all(why != "kept" for why in labels.why_N[labels.weight_N == 0].tolist())


def test_what_nobody_could_judge_is_not_kept(labelled, tmp_path):
    path = tmp_path / "all" / "transfer.npz"
    told = read_arrays(path, Predictions)
    write_arrays(path, dataclasses.replace(told, abstained_N=np.arange(60) < 5))
    labels = labelled()
    assert (labels.weight_N[:5] == 0).all()
    assert set(labels.why_N[:5].tolist()) == {"the committee abstained"}


def test_shuffled_labels_are_the_same_targets_on_other_questions_with_as_many_candidates(labelled):
    straight, dealt = labelled(), labelled(shuffled=True)
    assert not np.allclose(straight.target_NK, dealt.target_NK)
    for count in (3, 4):
        rows = (straight.target_NK > 0).sum(1) == count
        assert np.allclose(np.sort(straight.target_NK[rows], 0), np.sort(dealt.target_NK[rows], 0))
    assert np.array_equal(dealt.target_NK, labelled(shuffled=True).target_NK)
    assert not np.array_equal(dealt.target_NK, labelled(shuffled=True, seed=1).target_NK)
