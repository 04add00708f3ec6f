"""The search for weights: it climbs, it does not chase noise, and a killed one goes on as if nothing had happened."""

from __future__ import annotations

import numpy as np
import pytest

from w2s.merging.search import LARGEST, block_of, read_log, search
from w2s.store.records import BadInput

BEST = np.array([0.9, 0.1, 0.4])


def hill(x_D: np.ndarray) -> float:
    return -float(np.square(x_D - BEST).sum())


def test_the_mean_comes_near_to_the_best_and_stays_in_bounds(tmp_path):
    found = search(np.full(3, 1 / 3), hill, tmp_path / "log", evaluations=300, seed=0)
    np.testing.assert_allclose(found, BEST, atol=0.05)
    far = search(np.full(2, 1.0), lambda x: float(x.sum()), tmp_path / "far", evaluations=300, seed=0)
    assert (far <= LARGEST).all()
    assert (far > 1.5).all()


@pytest.mark.parametrize("lines", [1, 5])
@pytest.mark.parametrize("torn", [False, True])
def test_a_search_that_was_killed_gives_the_same_bits(tmp_path, lines, torn):
    whole = search(np.full(3, 1 / 3), hill, tmp_path / "whole", evaluations=70, seed=3)
    written = (tmp_path / "whole").read_text().splitlines(keepends=True)
    (tmp_path / "half").write_text("".join(written[:lines]) + (written[lines][:20] if torn else ""))
    asked = []
    again = search(np.full(3, 1 / 3), lambda x: asked.append(x) or hill(x), tmp_path / "half", evaluations=70, seed=3)
    np.testing.assert_array_equal(again, whole)
    assert (tmp_path / "half").read_text() == (tmp_path / "whole").read_text()
    assert len(asked) == (len(written) - lines) * len(read_log(tmp_path / "whole")[0]["values"])


def test_the_log_of_another_search_is_refused(tmp_path):
    search(np.full(3, 1 / 3), hill, tmp_path / "log", evaluations=20, seed=3)
    with pytest.raises(BadInput, match="line 1 is of another search"):
        search(np.full(3, 1 / 3), hill, tmp_path / "log", evaluations=20, seed=4)
    (tmp_path / "log").write_text("{\n")
    with pytest.raises(BadInput, match="not readable"):
        search(np.full(3, 1 / 3), hill, tmp_path / "log", evaluations=20, seed=3)


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "attention"),
        ("model.layers.3.mlp.down_proj.weight", "mlp"),
        ("transformer.h.0.attn.c_attn.weight", "attention"),
        ("model.embed_tokens.weight", "rest"),
        ("model.layers.3.input_layernorm.weight", "rest"),
    ],
)
def test_tensors_belong_to_attention_mlp_or_the_rest(name, block):
    assert block_of(name) == block
