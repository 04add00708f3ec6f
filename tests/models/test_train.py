"""The training loop on a model of a few numbers."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w2s.config.fields import Runtime, Train
from w2s.models import train
from w2s.store.records import BadInput

ROWS = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
TARGET = ROWS @ torch.tensor([1.0, -2.0, 0.5])
STEPS = [np.random.default_rng(at).permutation(40)[:8] for at in range(30)]


def model():
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))


def objective(call, index_B, share):
    return (call(ROWS[index_B])[:, 0] - TARGET[index_B]) ** 2


def look(call):
    return float(((call(ROWS)[:, 0] - TARGET) ** 2).mean()), None


SETTINGS = Train(lr=0.05, eval_every=4, schedule="cosine", warmup_share=0.2)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("when", "precision"), [*((when, "float32") for when in (1, 7, 8, 13, 29)), (7, "bfloat16"), (13, "bfloat16")]
)
def test_a_resumed_fit_equals_the_uninterrupted_one_bit_for_bit(tmp_path, when, precision):
    runtime, settings = Runtime(checkpoint_every=4), dataclasses.replace(SETTINGS, precision=precision)
    calls = 0

    def dying(call, index_B, share):
        nonlocal calls
        calls += 1
        if calls == when + 1:
            raise Killed
        return objective(call, index_B, share)

    (tmp_path / "whole").mkdir(), (tmp_path / "cut").mkdir()
    whole = train.fit(model(), STEPS, objective, settings, runtime, folder=tmp_path / "whole", look=look, seed=3)
    with pytest.raises(Killed):
        train.fit(model(), STEPS, dying, settings, runtime, folder=tmp_path / "cut", look=look, seed=3)
    assert (tmp_path / "cut" / "checkpoint").exists() == (when >= 4)
    resumed = train.fit(model(), STEPS, objective, settings, runtime, folder=tmp_path / "cut", look=look, seed=3)
    assert resumed[0] == whole[0]
    assert all(torch.equal(tensor, resumed[1][name]) for name, tensor in whole[1].items())


def test_the_best_look_is_kept_and_patience_ends_the_fit(tmp_path):
    told, seen = iter([3.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.4]), []
    module = model()

    def scripted(call):
        seen.append({name: p.detach().clone() for name, p in module.named_parameters()})
        return next(told), 0.5

    settings = dataclasses.replace(SETTINGS, patience=3)
    state, weights = train.fit(module, STEPS, objective, settings, Runtime(), folder=tmp_path, look=scripted)
    assert state.looks == [(4, 3.0), (8, 1.0), (12, 2.0), (16, 1.5), (20, 1.0)]
    assert state.agreements == [0.5] * 5
    assert (state.step, state.best()) == (20, (8, 1.0))
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in weights.items())


def test_a_loss_that_is_not_a_number_is_one_line_that_names_the_step(tmp_path):
    calls = iter(range(100))

    def broken(call, index_B, share):
        return objective(call, index_B, share) * (float("nan") if next(calls) >= 6 else 1.0)

    with pytest.raises(BadInput, match="the loss is not a number from step 6 on") as caught:
        train.fit(model(), STEPS, broken, SETTINGS, Runtime(), folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_was_being_replaced_is_still_found(tmp_path):
    runtime = Runtime(checkpoint_every=10)
    whole = train.fit(model(), STEPS, objective, SETTINGS, runtime, folder=tmp_path, seed=3)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    (tmp_path / "checkpoint.partial").mkdir()
    fresh = model()
    with torch.no_grad():
        fresh[0].weight.zero_()  # only a resume brings back what was trained
    again = train.fit(fresh, STEPS, objective, SETTINGS, runtime, folder=tmp_path, seed=3)
    assert again[0] == whole[0]
    assert all(torch.equal(tensor, again[1][name]) for name, tensor in whole[1].items())


def test_checkpoints_hold_no_pickle(tmp_path):
    train.fit(model(), STEPS, objective, SETTINGS, Runtime(checkpoint_every=10), folder=tmp_path, look=look)
    names = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    assert names == ["best.safetensors", "state.json", "state.safetensors"]
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["step"] == 20


@given(st.integers(1, 40), st.integers(1, 5), st.none() | st.integers(1, 12))
def test_every_row_of_a_step_counts_once_however_it_is_cut(rows, size, micro_batch):
    index_B = np.random.default_rng(rows).permutation(100)[:rows]
    counted, calls = [], set()
    for rank in range(size):
        parts = train.Cut(rows, train.World(rank, size), micro_batch).parts(index_B)
        calls.add((len(parts), len(parts[0][0])))
        for index_M, counts_M in parts:
            counted += (index_M if counts_M is None else index_M[counts_M > 0]).tolist()
    assert sorted(counted) == sorted(index_B.tolist())
    assert len(calls) == 1  # the same calls everywhere: a collective would wait for ever


@given(st.integers(1, 300), st.sampled_from(["linear", "cosine", "constant"]), st.floats(0, 0.9))
def test_the_learning_rate_rises_and_falls_within_its_bounds(steps, schedule, warmup_share):
    settings = Train(schedule=schedule, warmup_share=warmup_share)
    rates = [train.learning_rate(step, steps, settings) for step in range(steps)]
    top = int(np.argmax(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[int(warmup_share * steps)] == pytest.approx(1)


def test_the_loss_sees_the_share_of_the_fit_that_is_done_from_0_to_1(tmp_path):
    seen = []

    def watching(call, index_B, share):
        seen.append(share)
        return objective(call, index_B, share)

    train.fit(model(), STEPS, watching, SETTINGS, Runtime(), folder=tmp_path)
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    assert seen == sorted(seen)


def test_the_loss_is_the_weighted_sum_over_the_number_of_rows(tmp_path):
    weight_N = np.random.default_rng(0).uniform(0, 3, 40)
    module = model().eval()
    module.train = lambda mode=True: module  # no dropout
    with torch.no_grad():
        loss_B = objective(module, STEPS[0], 0.0).numpy()
    state, _ = train.fit(module, STEPS[:1], objective, SETTINGS, Runtime(), folder=tmp_path, weight_N=weight_N)
    assert state.losses == pytest.approx([(weight_N[STEPS[0]] * loss_B).sum() / len(loss_B)], rel=1e-5)
