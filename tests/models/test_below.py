"""States below the layers that learn, computed once: the same scores and gradients as running all layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models import tiny
from w2s.config.fields import Train
from w2s.models import batches, below, members, score
from w2s.models.world import World

READS = [np.array([0, 1]), np.array([2, 0])]


def halves_of(loaded, folder, scorer=None, reads=READS, **train) -> tuple:
    encoded = batches.encode(loaded, tiny.examples())
    scorer = scorer or score.Scorer(loaded)
    return encoded, scorer, below.compute(scorer, 1, encoded, reads, Train(**train), World(), folder)


def compare(loaded, encoded, scorer, kept, index_B, tolerance) -> None:
    """Scores and gradients of both ways."""
    found = []
    for call in (scorer, kept.upper):
        scorer.zero_grad()
        if call is kept.upper:
            kept.feed(index_B)
        scores_BK = call(batches.collate(loaded, [encoded[at] for at in index_B]))
        scores_BK.log_softmax(-1)[..., 0].sum().backward()
        own = {name: p.grad.clone() for name, p in scorer.named_parameters() if p.grad is not None}
        found.append((scores_BK.detach(), own))
    (plain, grads), (again, fed) = found
    torch.testing.assert_close(again, plain, rtol=tolerance, atol=tolerance)
    assert grads.keys() == fed.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(fed[name], grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("llama", "lm"),
        ("gemma3_text", "lm"),
        ("gemma2", "lm"),
        ("gpt2", "lm"),
        ("llama", "pair"),
        ("gemma3_text", "pair"),
        ("bert", "pair"),
        ("bert", "towers"),
        ("gpt2", "towers"),
    ],
)
def test_scores_and_gradients_from_kept_states_are_those_of_all_layers(folder_of, tmp_path, architecture, kind):
    loaded = tiny.read(folder_of(architecture), kind=kind, trainable="top", top=1)
    encoded, scorer, kept = halves_of(loaded, tmp_path)
    for index_B in (np.array([2, 0, 1]), np.array([1]), np.array([0, 0])):
        compare(loaded, encoded, scorer, kept, index_B, 1e-4)
    assert not list(tmp_path.iterdir())  # so little is kept in memory


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_an_ensembles_shared_layers_are_computed_once_too(folder_of, tmp_path, architecture):
    loaded = tiny.read(folder_of(architecture), kind="pair")
    ensemble = members.join(loaded, members.Ensemble("adapters", 2, layers=1))
    encoded, scorer, kept = halves_of(loaded, tmp_path, ensemble)
    compare(loaded, encoded, scorer, kept, np.array([2, 0, 1]), 1e-4)


def test_a_file_of_states_is_used_again_where_a_killed_job_left_it(folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(below, "IN_MEMORY", 0)
    monkeypatch.setattr(below.batches, "most_tokens", lambda _: 1)  # a chunk per example
    loaded, ran = tiny.read(folder_of("llama"), trainable="top", top=1), []
    inner = below.Halves.states

    def dying(self, batch):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(batch)
        return inner(self, batch)

    monkeypatch.setattr(below.Halves, "states", dying)
    with pytest.raises(KeyboardInterrupt):  # the trial, two chunks, and the third dies
        halves_of(loaded, tmp_path)
    ran[:] = ran[:1]
    encoded, scorer, kept = halves_of(loaded, tmp_path)
    assert len(ran) == 3  # the trial and the third chunk
    compare(loaded, encoded, scorer, kept, np.array([2, 0, 1]), 1e-4)
    below.drop(tmp_path, World())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("reads", [[np.array([0, 1]), np.array([2])], [np.array([1])]])
def test_nothing_is_kept_where_every_example_is_read_once(folder_of, tmp_path, reads):
    loaded = tiny.read(folder_of("llama"), trainable="top", top=1)
    assert halves_of(loaded, tmp_path, reads=reads)[2] is None


def test_an_architecture_that_lets_no_states_in_runs_all_layers(folder_of, tmp_path, capsys):
    loaded = tiny.read(folder_of("bloom"), trainable="top", top=1)
    assert halves_of(loaded, tmp_path)[2] is None


def test_training_in_bfloat16_keeps_states_in_bfloat16(folder_of, tmp_path):
    loaded = tiny.read(folder_of("llama"), trainable="top", top=1)
    encoded, scorer, kept = halves_of(loaded, tmp_path, precision="bfloat16")
    assert kept.states_SD.dtype == torch.bfloat16
    kept.feed(np.array([2, 0]))
    batch = batches.collate(loaded, [encoded[at] for at in (2, 0)])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(kept.upper(batch), scorer(batch), rtol=0.05, atol=0.3)
