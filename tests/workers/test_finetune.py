"""The finetune worker in this process; two processes are in test_ranks.py."""

import json

import numpy as np
import pytest

from w2s.config.fields import Train
from w2s.models import train
from w2s.store.records import BadInput, Example, PseudoLabels, Weights, read_arrays, read_rows, write_arrays
from w2s.workers import finetune
from w2s.workers.job import count_steps
from w2s.workers.job_files import read_job
from w2s.workers.serve import run_job


def run(folder):
    return finetune.run(folder, read_job(folder), train.World())


def history(folder):
    return json.loads((folder / "train.json").read_text())


def test_the_loss_falls_and_the_saved_model_loads_by_its_folder_alone(finetune_job):
    from w2s.models.load import load_folder

    folder = finetune_job("job", {"steps": 80, "lr": 3e-2})
    summary = run(folder)
    losses = history(folder)["losses"]
    assert summary["steps"] == len(losses) == 80
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) - 0.1
    assert load_folder(folder / "model").model.path == "builtin:weak"
    assert not (folder / "checkpoint").exists()


def test_looks_tell_how_often_the_held_out_labels_are_met(finetune_job, tiny):
    from w2s.models import load, score

    folder = finetune_job("job", {"steps": 8, "lr": 3e-2, "holdout_share": 0.5, "eval_every": 4})
    run(folder)
    told = history(folder)
    labels = read_arrays(tiny / "labels.npz", PseudoLabels)
    _, held_N = finetune.hold_out(len(labels.ids), 0.5, 1)
    by_id = {row.id: row for row in read_rows(tiny / "examples.jsonl", Example)}
    held = [by_id[key] for key in labels.ids[held_N].tolist()]
    parts = score.predict(load.load_folder(folder / "model"), held, by="model")
    said = {key: probs_K.argmax() for part in parts for key, probs_K in zip(part.ids, part.probs_NK, strict=True)}
    share = np.mean([said[labels.ids[at]] == labels.target_NK[at].argmax() for at in held_N])
    best = min(range(2), key=lambda at: told["looks"][at][1])
    assert len(told["agreements"]) == len(told["looks"]) == 2
    assert told["agreements"][best] == pytest.approx(share)


@pytest.mark.parametrize("micro_batch", [1, 3, 5])
def test_cutting_a_step_into_micro_batches_changes_nothing_but_rounding(finetune_job, tiny, micro_batch):
    labels = read_arrays(tiny / "labels.npz", PseudoLabels)
    weight_N = np.random.default_rng(3).uniform(0.1, 2.0, len(labels.ids))
    path = finetune_job("whole", labels="../weighted.npz").parent / "weighted.npz"
    write_arrays(path, PseudoLabels(labels.ids, labels.target_NK, weight_N, labels.why_N))
    cut = finetune_job("cut", labels="../weighted.npz", runtime={"micro_batch": micro_batch})
    whole = cut.parent / "whole"
    run(whole), run(cut)
    assert history(cut)["losses"][0] == pytest.approx(history(whole)["losses"][0], abs=1e-6)
    # AdamW makes a step of full size of a gradient that is nothing but rounding, so the fits drift apart a little.
    assert history(cut)["losses"] == pytest.approx(history(whole)["losses"], abs=1e-3)


def test_a_row_of_weight_two_counts_as_much_as_two_rows(tiny, finetune_job):
    labels = read_arrays(tiny / "labels.npz", PseudoLabels)
    length_N, order_N = np.full(8, 6), np.ones(8)
    steps, factor_N = finetune.plan(
        length_N, np.array([2.0, 1, 1, 1, 1, 1, 1, 0.5]), order_N, np.arange(8), "loss", Train(steps=3, batch=8), 0
    )
    assert [sorted(step) for step in steps] == [list(range(8))] * 3
    assert factor_N[0] == pytest.approx(2 * factor_N[1])
    assert factor_N.mean() == pytest.approx(1)
    assert labels.weight_N.sum() == len(labels.ids)


def test_resampling_draws_every_row_its_expected_number_of_times():
    order_N = np.random.default_rng(0).dirichlet(np.ones(50))
    fit_N = np.arange(0, 50, 2)
    steps, factor_N = finetune.plan(
        np.full(50, 4), np.ones(50), order_N, fit_N, "resample", Train(steps=40, batch=10), 7
    )
    drawn_N = np.bincount(np.concatenate(steps), minlength=50)
    expected_N = 400 * order_N / order_N[fit_N].sum()
    assert not drawn_N[1::2].any()
    assert np.abs(drawn_N - expected_N)[fit_N].max() < 1
    assert np.allclose(factor_N, 1)


def test_dropped_labels_and_their_targets_change_nothing(finetune_job, tiny):
    labels = read_arrays(tiny / "labels.npz", PseudoLabels)
    dropped_N = np.arange(len(labels.ids)) % 3 == 0
    spoiled_NK = np.where(dropped_N[:, None], 0.25, labels.target_NK)
    jobs = {}
    for name, target_NK, keep in (("spoiled", spoiled_NK, slice(None)), ("absent", labels.target_NK, ~dropped_N)):
        jobs[name] = finetune_job(name, labels="labels.npz")
        weight_N = np.where(dropped_N, 0.0, 1.0)
        fields = [array[keep] for array in (labels.ids, target_NK, weight_N, labels.why_N)]
        write_arrays(jobs[name] / "labels.npz", PseudoLabels(*fields))
        run(jobs[name])
    assert history(jobs["spoiled"])["losses"] == history(jobs["absent"])["losses"]


def test_boosting_weights_are_joined_by_id_and_not_by_position(finetune_job, tiny):
    labels = read_arrays(tiny / "labels.npz", PseudoLabels)
    weight_N = np.random.default_rng(1).dirichlet(np.ones(len(labels.ids)))
    jobs = []
    for name, index in (("in_order", np.arange(len(weight_N))), ("reversed", np.arange(len(weight_N))[::-1])):
        jobs.append(finetune_job(name, order="order.npz", weighting="resample"))
        write_arrays(jobs[-1] / "order.npz", Weights(labels.ids[index], weight_N[index]))
        run(jobs[-1])
    assert history(jobs[0])["losses"] == history(jobs[1])["losses"]


def test_a_labelled_example_that_is_not_there_is_an_error(finetune_job, tiny):
    labels = read_arrays(tiny / "labels.npz", PseudoLabels)
    folder = finetune_job("job", labels="labels.npz")
    ids = labels.ids.copy()
    ids[0] = "nowhere"
    write_arrays(folder / "labels.npz", PseudoLabels(ids, labels.target_NK, labels.weight_N, labels.why_N))
    with pytest.raises(ValueError, match="1 labelled ids are missing \\(nowhere\\)"):
        run(folder)


def test_with_every_label_dropped_there_is_one_clear_line(finetune_job, tiny):
    labels = read_arrays(tiny / "labels.npz", PseudoLabels)
    folder = finetune_job("job", labels="labels.npz")
    write_arrays(folder / "labels.npz", PseudoLabels(labels.ids, labels.target_NK, 0 * labels.weight_N, labels.why_N))
    with pytest.raises(BadInput, match="no row left to train on"):
        run(folder)


def test_a_finished_job_is_not_run_again(finetune_job):
    folder = finetune_job("job")
    assert run_job(folder, train.World()) == {"done": str(folder)}
    before = (folder / "train.json").read_bytes()
    (folder / "job.json").write_text("{}")
    assert run_job(folder, train.World()) == {"done": str(folder)}
    assert (folder / "train.json").read_bytes() == before


def test_an_epoch_of_a_bootstrap_sample_takes_as_many_steps_as_one_of_all_labels(finetune_job, tiny):
    ids = read_arrays(tiny / "labels.npz", PseudoLabels).ids
    length = {"epochs": 1.5, "steps": None, "batch": 8, "holdout_share": 0.25}
    whole, drawn = (finetune_job(name, length, order="order.npz", weighting="resample") for name in ("whole", "drawn"))
    write_arrays(whole / "order.npz", Weights(ids, np.full(len(ids), 1 / len(ids))))
    write_arrays(drawn / "order.npz", Weights(ids, np.where(np.arange(len(ids)) % 3 == 0, 3 / len(ids), 0.0)))
    assert run(whole)["steps"] == run(drawn)["steps"] == count_steps(Train(**length), len(ids)) == 14
