"""The search of a merge's coefficients, from job to result."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.models import tiny
from w2s.models import load, score
from w2s.models.world import World
from w2s.store.records import PseudoLabels, candidate_mask, write_arrays, write_rows
from w2s.workers import merge, search
from w2s.workers.job import Merge, Search


@pytest.fixture
def asked(tmp_path) -> Search:
    base = tiny.write("llama", tmp_path / "base")
    for at in range(2):
        moved = tiny.read(base)
        with torch.no_grad():
            for value in moved.module.parameters():
                value += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(at))
        load.save(moved, tmp_path / f"learner-{at}")
    rows = tiny.examples()
    count_N = np.array([len(row.choices) for row in rows])
    target_NK = np.zeros((len(rows), count_N.max()))
    target_NK[:, 0] = 1
    assert candidate_mask(count_N)[:, 0].all()
    write_rows(tmp_path / "rows.jsonl", rows)
    ids = np.array([row.id for row in rows])
    write_arrays(tmp_path / "gold.npz", PseudoLabels(ids, target_NK, np.ones(len(ids)), np.full(len(ids), "kept")))
    models = [str(tmp_path / f"learner-{at}") for at in range(2)]
    return Search(models, [2, 1], str(base), str(tmp_path / "rows.jsonl"), str(tmp_path / "gold.npz"), 12)


@pytest.mark.parametrize("groups", ["one", "blocks"])
def test_a_search_starts_at_the_weights_and_says_what_it_gained_on_other_questions(asked, tmp_path, groups):
    (tmp_path / "s").mkdir()
    done = search.run(tmp_path / "s", dataclasses.replace(asked, groups=groups), World())
    assert set(done["coefficients"]) == ({"all"} if groups == "one" else {"attention", "mlp", "rest"})
    assert all(len(row) == 2 for row in done["coefficients"].values())
    total = sum(done["questions"].values())
    assert total == len(tiny.examples())
    assert done["gain"]["mean"] == pytest.approx(
        done["on_certified"]["searched"] - done["on_certified"]["start"], abs=1e-9
    )
    again = search.run(tmp_path / "s", dataclasses.replace(asked, groups=groups), World())  # replayed from its log
    assert again["coefficients"] == done["coefficients"]


def test_a_candidate_in_memory_is_the_merge_on_disk(asked, tmp_path):
    (tmp_path / "m").mkdir()
    merge.run(tmp_path / "m", Merge(asked.models, [2, 1], {"name": "mean"}, asked.base, scale=1.2), World())
    judge = search.Judge(tmp_path, asked, tiny.examples(), np.zeros(len(tiny.examples()), dtype=int), World())
    found = judge.each_on(0, np.array([0.8, 0.4]))
    rows = [tiny.examples()[at] for at in judge.halves[0]]
    wanted = {}
    for opinion in score.predict(load.load_folder(tmp_path / "m" / "model"), rows):
        wanted |= dict(zip(opinion.ids.tolist(), np.log(opinion.probs_NK[:, 0]), strict=True))
    np.testing.assert_allclose(found, [wanted[row.id] for row in rows], atol=1e-5)
