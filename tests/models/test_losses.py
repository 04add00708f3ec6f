"""Losses on candidates' scores: what they are at the start, at the end of the warm-up and at the end of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s.config.registry import pick
from w2s.models.losses import LOSSES, confidence, cross_entropy, kl, likelihood, pick_loss, pooled, product, ramp
from w2s.store.records import BadInput

SCORES = torch.tensor([[2.0, 0.0, -1.0], [0.3, 0.1, -torch.inf]])
TARGET = torch.tensor([[0.1, 0.7, 0.2], [0.4, 0.6, 0.0]])
HARD = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])


def by_hand(scores_BK, target_BK):
    """Cross-entropy in NumPy, candidate by candidate."""
    found = []
    for scores, target in zip(scores_BK.double().numpy(), target_BK.double().numpy(), strict=True):
        real = np.isfinite(scores)
        logp = scores[real] - np.log(np.exp(scores[real]).sum())
        found.append(-(target[real] * logp).sum())
    return torch.tensor(found, dtype=torch.float32)


def test_cross_entropy_is_that_of_the_real_candidates():
    torch.testing.assert_close(cross_entropy(SCORES, TARGET), by_hand(SCORES, TARGET))


@pytest.mark.parametrize("loss", [confidence, product])
def test_without_warm_up_passed_the_label_alone_counts(loss):
    torch.testing.assert_close(loss(SCORES, TARGET, 0.0), by_hand(SCORES, TARGET))


def test_the_confidence_loss_ramps_to_its_strength_and_stays_there():
    at = {p: confidence(SCORES, TARGET, p, strength=0.6, warmup_share=0.2) for p in (0.0, 0.1, 0.2, 0.5, 1.0)}
    own, label = by_hand(SCORES, HARD), by_hand(SCORES, TARGET)
    for progress, share in ((0.0, 0.0), (0.1, 0.3), (0.2, 0.6), (0.5, 0.6), (1.0, 0.6)):
        torch.testing.assert_close(at[progress], (1 - share) * label + share * own)


def test_an_unsure_own_answer_is_not_believed():
    sure = confidence(SCORES, TARGET, 1.0, strength=0.5, threshold=0.7)
    label, own = by_hand(SCORES, TARGET), by_hand(SCORES, HARD)
    torch.testing.assert_close(sure[0], 0.5 * label[0] + 0.5 * own[0])  # its top candidate has .84
    torch.testing.assert_close(sure[1], label[1])  # and here .55


@pytest.mark.parametrize(("progress", "power"), [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (1.0, 1.0)])
def test_the_product_loss_multiplies_label_and_own_opinion(progress, power):
    own = torch.softmax(SCORES, -1)
    mixed = TARGET * own**power
    wanted = by_hand(SCORES, mixed / mixed.sum(-1, keepdim=True))
    torch.testing.assert_close(product(SCORES, TARGET, progress, warmup_share=0.2), wanted)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_divergence_is_zero_exactly_where_both_agree(reverse):
    own = torch.softmax(SCORES, -1)
    torch.testing.assert_close(kl(SCORES, own, reverse=reverse), torch.zeros(2), atol=1e-6, rtol=0)
    assert (kl(SCORES, TARGET, reverse=reverse) > 0.01).all()


def test_the_divergence_from_the_label_has_the_gradient_of_cross_entropy():
    gradients = []
    for loss in (kl, cross_entropy):
        scores_BK = SCORES.clone().requires_grad_()
        loss(scores_BK, TARGET).sum().backward()
        gradients.append(scores_BK.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("progress", [0.0, 0.2, 1.0])
def test_a_missing_candidate_has_no_gradient_and_makes_nothing_infinite(name, progress):
    scores_BK = SCORES.clone().requires_grad_()
    target_BK = torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    loss_B = pick(LOSSES, name)(scores_BK, target_BK, progress=progress)
    loss_B.sum().backward()
    assert torch.isfinite(loss_B).all()
    assert torch.isfinite(scores_BK.grad).all()
    assert scores_BK.grad[1, 2] == 0


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 1000), progress=st.floats(0, 1))
@settings(max_examples=15, deadline=None)
def test_a_row_does_not_feel_the_rest_of_its_batch_nor_the_order_of_candidates(name, seed, progress):
    made = torch.Generator().manual_seed(seed)
    scores_BK = torch.randn(4, 5, generator=made)
    target_BK = torch.softmax(2 * torch.randn(4, 5, generator=made), -1)
    whole_B = LOSSES[name](scores_BK, target_BK, progress)
    alone_B = torch.cat([LOSSES[name](scores_BK[at : at + 1], target_BK[at : at + 1], progress) for at in range(4)])
    torch.testing.assert_close(whole_B, alone_B)
    turn = torch.randperm(5, generator=made)
    torch.testing.assert_close(whole_B, LOSSES[name](scores_BK[:, turn], target_BK[:, turn], progress))


def test_a_ramp_is_zero_at_first_one_from_the_end_of_the_warm_up_and_linear_between():
    assert [ramp(p, 0.5) for p in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0.0, 0.5, 1.0, 1.0, 1.0]
    assert ramp(0.0, 0.0) == 1.0


def pooled_by_hand(logits_PV, token_PJ, prob_PJ):
    """sum_j q_j log p_j + q_rest log(1 - sum_j p_j), the rest summed over its own tokens, in float64 and NumPy."""
    found = []
    for logits_V, token_J, prob_J in zip(logits_PV.double().numpy(), token_PJ.numpy(), prob_PJ.double(), strict=True):
        logp_V = logits_V - np.logaddexp.reduce(logits_V)
        others_V = np.delete(logp_V, token_J)
        rest = max(0.0, 1 - float(prob_J.sum()))
        found.append(float((prob_J.numpy() * logp_V[token_J]).sum()) + rest * np.logaddexp.reduce(others_V))
    return torch.tensor(found, dtype=torch.float32)


@given(seed=st.integers(0, 1000), size=st.floats(0.1, 60))
@settings(max_examples=40, deadline=None)
def test_pooled_soft_targets_by_hand_however_sure_the_model_is(seed, size):
    made = torch.Generator().manual_seed(seed)
    logits_PV = (size * torch.randn(6, 11, generator=made)).requires_grad_()
    token_PJ = torch.rand(6, 11, generator=made).argsort(-1)[:, :3]
    prob_PJ = torch.softmax(torch.randn(6, 4, generator=made), -1)[:, :3]
    found_P = pooled(logits_PV, token_PJ, prob_PJ)
    torch.testing.assert_close(found_P, pooled_by_hand(logits_PV.detach(), token_PJ, prob_PJ), rtol=1e-4, atol=1e-4)
    found_P.sum().backward()
    assert torch.isfinite(logits_PV.grad).all()
    torch.testing.assert_close(logits_PV.grad.sum(-1), torch.zeros(6), atol=1e-4, rtol=0)  # a softmax has no level


@pytest.mark.parametrize("kept", [torch.float32, torch.float16])
def test_soft_targets_on_the_whole_vocabulary_are_the_full_cross_entropy(kept):
    made = torch.Generator().manual_seed(4)
    logits_PV = torch.randn(5, 300, generator=made).requires_grad_()
    target_PV = torch.softmax(2 * torch.randn(5, 300, generator=made), -1)
    token_PJ = target_PV.argsort(-1, descending=True)
    prob_PJ = target_PV.gather(-1, token_PJ).to(kept).float()  # in float16 they do not quite sum to 1
    found_P, wanted_P = pooled(logits_PV, token_PJ, prob_PJ), (target_PV * logits_PV.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(found_P, wanted_P, rtol=1e-3, atol=1e-4)
    found, wanted = (torch.autograd.grad(one.sum(), logits_PV)[0] for one in (found_P, wanted_P))
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-5)


def test_a_soft_target_without_a_rest_is_a_hard_one_even_where_the_model_is_sure():
    logits_PV = torch.tensor([[40.0, 0.0, -40.0, 1.0], [0.0, 90.0, 0.0, 0.0]]).requires_grad_()
    token_PJ, prob_PJ = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    found_P = pooled(logits_PV, token_PJ, prob_PJ)
    torch.testing.assert_close(found_P, logits_PV.log_softmax(-1)[:, [0, 1]].diagonal())
    found, wanted = (
        torch.autograd.grad(one.sum(), logits_PV)[0]
        for one in (found_P, logits_PV.log_softmax(-1)[:, [0, 1]].diagonal())
    )
    torch.testing.assert_close(found, wanted)


def test_the_likelihood_of_texts_is_weighed_by_their_targets_and_texts_do_not_compete():
    scores_BK = torch.tensor([[-5.0, -1.0, -9.0], [-2.0, -4.0, -torch.inf]])
    torch.testing.assert_close(likelihood(scores_BK, TARGET), torch.tensor([0.5 + 0.7 + 1.8, 0.8 + 2.4]))
    lower = scores_BK - torch.tensor([0.0, 3.0, 0.0])  # the second text alone has become less probable
    torch.testing.assert_close(likelihood(lower, TARGET) - likelihood(scores_BK, TARGET), 3 * TARGET[:, 1])


def test_a_loss_that_compares_choices_is_refused_for_written_answers_in_one_line():
    assert pick_loss({"name": "cross_entropy"}, "answer") is not pick_loss("cross_entropy", "choice")
    assert pick_loss({"name": "confidence", "strength": 0.1}, "choice").keywords == {"strength": 0.1}
    with pytest.raises(BadInput) as caught:
        pick_loss({"name": "confidence"}, "code", key="student.train.loss")
    assert str(caught.value) == (
        "student.train.loss: 'confidence' compares choices; for written answers it can be: cross_entropy"
    )
    with pytest.raises(BadInput, match="'mse' is not known"):
        pick_loss({"name": "mse"}, "answer")
