"""Probes against scikit-learn, against torch's own optimum, and against a classification head on the same model."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.models import tiny
from w2s.config.fields import Model
from w2s.models import batches, probes, score, states
from w2s.models.records import States
from w2s.store.records import BadInput, candidate_mask, softmax


def made(seed: int, examples: int = 40, width: int = 6, most: int = 4):
    """Random states, soft targets and weights of `examples` with 2 to `most` candidates."""
    rng = np.random.default_rng(seed)
    count_N = rng.integers(2, most + 1, examples)
    states_RD = rng.normal(size=(count_N.sum(), width)) * rng.uniform(0.01, 100, width)
    target_NK = softmax(3 * rng.normal(size=candidate_mask(count_N).shape), candidate_mask(count_N))
    return States(np.arange(examples).astype(str), count_N, states_RD), target_NK, rng.uniform(0.1, 3, examples)


def in_units(data: States, weight_N: np.ndarray) -> np.ndarray:
    """What a state is divided by, D values, written out question by question."""
    total_D, parts = 0.0, np.split(data.states_RD, np.cumsum(data.count_N)[:-1])
    for part_KD, weight in zip(parts, weight_N, strict=True):
        total_D = total_D + weight * ((part_KD - part_KD.mean(0)) ** 2).sum(0)
    return np.sqrt(total_D / (weight_N * data.count_N).sum() * data.states_RD.shape[1])


@pytest.mark.parametrize("l2", [0.01, 1.0, 30.0])
def test_two_candidates_are_logistic_regression_on_their_difference(l2):
    data, target_NK, weight_N = made(0, examples=200, most=2)
    size_D = in_units(data, weight_N)
    difference_ND = (data.states_RD[0::2] - data.states_RD[1::2]) / size_D
    rows, right = np.concatenate([difference_ND] * 2), np.repeat([1, 0], 200)
    weights = np.concatenate([weight_N * target_NK[:, 0], weight_N * target_NK[:, 1]])
    theirs = LogisticRegression(C=1 / l2, fit_intercept=False, tol=1e-12, max_iter=10_000)
    theirs.fit(rows, right, sample_weight=weights)
    ours = probes.fit(Model(l2=l2), data, target_NK, weight_N, 0)
    assert ours * size_D == pytest.approx(theirs.coef_[0], rel=1e-6, abs=1e-6)


@hypothesis.given(
    seed=st.integers(0, 99),
    examples=st.integers(1, 30),
    width=st.sampled_from([1, 5, 70]),
    l2=st.sampled_from([1e-3, 1.0, 50.0]),
)
@hypothesis.settings(max_examples=30)
def test_the_fit_is_the_optimum_of_the_loss_whatever_the_number_of_candidates(seed, examples, width, l2):
    data, target_NK, weight_N = made(seed, examples, width)
    size_D, mask_NK = in_units(data, weight_N), candidate_mask(data.count_N)
    found_D = torch.tensor(probes.fit(Model(l2=l2), data, target_NK, weight_N, 0) * size_D, requires_grad=True)
    scores_NK = torch.full(mask_NK.shape, -torch.inf, dtype=torch.float64)
    scores_NK[torch.tensor(mask_NK)] = torch.tensor(data.states_RD / size_D) @ found_D
    logp_NK = scores_NK.log_softmax(1).masked_fill(~torch.tensor(mask_NK), 0.0)
    loss = -(torch.tensor(weight_N)[:, None] * torch.tensor(target_NK) * logp_NK).sum() + l2 / 2 * found_D @ found_D
    loss.backward()
    assert found_D.grad.abs().max() < 1e-6 * max(1, examples)


def test_only_what_differs_between_the_candidates_of_a_question_counts():
    data, target_NK, weight_N = made(1)
    rng = np.random.default_rng(2)
    moved_RD = data.states_RD + np.repeat(100 * rng.normal(size=(40, 6)), data.count_N, axis=0)
    dull_RD = np.concatenate([moved_RD, np.repeat(rng.normal(size=(40, 1)), data.count_N, axis=0) * 0 + 7], axis=1)
    plain, moved = (
        probes.fit(Model(), States(data.ids, data.count_N, rows_RD), target_NK, weight_N, 0)
        for rows_RD in (data.states_RD, moved_RD)
    )
    assert moved == pytest.approx(plain, rel=1e-6)
    scaled = probes.fit(Model(), States(data.ids, data.count_N, data.states_RD * 8), target_NK, weight_N, 0)
    assert scaled * 8 == pytest.approx(plain, rel=1e-6)
    assert probes.fit(Model(), States(data.ids, data.count_N, dull_RD), target_NK, weight_N, 0)[-1] == 0


def test_a_row_of_weight_two_counts_as_two_rows():
    data, target_NK, weight_N = made(3)
    twice = np.concatenate([np.arange(40), np.arange(10)])
    rows = states.rows_of((np.cumsum(data.count_N) - data.count_N)[twice], data.count_N[twice])
    repeated = States(data.ids[twice], data.count_N[twice], data.states_RD[rows])
    heavy_N = weight_N * np.where(np.arange(40) < 10, 2, 1)
    ours = probes.fit(Model(), data, target_NK, heavy_N, 0)
    assert ours == pytest.approx(probes.fit(Model(), repeated, target_NK[twice], weight_N[twice], 0), rel=1e-6)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_a_probe_of_the_last_layer_is_the_head_of_kind_pair_on_a_frozen_body_at_its_optimum(folder_of, architecture):
    examples, l2 = tiny.examples(), 0.05
    body = states.load_body(Model(path=str(folder_of(architecture)), kind="probe"))
    made_of = states.join(list(states.make_states(body, examples)), np.array([row.id for row in examples]))
    target_NK, weight_N = np.eye(4)[[0, 1, 1]], np.array([1.0, 0.5, 1.5])
    weight_D = probes.fit(Model(l2=l2), made_of, target_NK, weight_N, 0)
    size_D = torch.tensor(in_units(made_of, weight_N), dtype=torch.float32)

    pair = tiny.read(folder_of(architecture), kind="pair", trainable="head")
    trained = [name for name, parameter in pair.module.named_parameters() if parameter.requires_grad]
    assert trained == ["score.weight"]
    pair.module.score.weight.data = torch.tensor(weight_D, dtype=torch.float32)[None]
    scores_NK = score.scores(pair, batches.collate(pair, batches.encode(pair, examples), 4))
    ours_NK = probes.scores(weight_D, made_of)
    mask_NK = candidate_mask(made_of.count_N)
    assert scores_NK.detach().numpy()[mask_NK] == pytest.approx(ours_NK[mask_NK], abs=5e-3)
    logp_NK = scores_NK.log_softmax(1).masked_fill(~torch.tensor(mask_NK), 0.0)
    loss = -(torch.tensor(weight_N, dtype=torch.float32)[:, None] * torch.tensor(target_NK) * logp_NK).sum()
    loss = loss + l2 / 2 * ((pair.module.score.weight[0] * size_D) ** 2).sum()
    loss.backward()
    assert (pair.module.score.weight.grad[0] / size_D).abs().max() < 2e-2 * l2


def test_what_is_saved_is_read_again_and_damage_is_named(tmp_path):
    probes.save(np.arange(3.0), tmp_path / "model")
    assert probes.load(tmp_path / "model").tolist() == [0, 1, 2]
    (tmp_path / "model" / probes.FILE).write_bytes(b"no")
    with pytest.raises(BadInput, match=r"probe.npz: not readable"):
        probes.load(tmp_path / "model")
    np.savez(tmp_path / "model" / probes.FILE, weight_D=np.arange(3))
    with pytest.raises(BadInput, match=r"probe.npz: a probe's weights are expected"):
        probes.load(tmp_path / "model")
