"""How models, alone and mixed, rank the right tokens of written answers, given the right tokens before them.

Letters: N examples, R stages, P right tokens of a chunk, V vocabulary.
"""

import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from w2s.boosting.tokens import take_rows
from w2s.models import batches, generate, lm
from w2s.models.committee import Mixture, find_mixture
from w2s.models.generate import Voice
from w2s.models.records import Encoded, Loaded
from w2s.models.tokens import fingerprint, layout
from w2s.store.records import BadInput, Example, TokenRanks

Stages = Sequence[Sequence[Loaded]]
PROBABILITIES_AT_ONCE = 2**25
"""Most values of a running mixture (P times V): about 1 GB in float64, with intermediate results."""


def rank_chunks(
    stages: Stages, alpha_R: Sequence[float], examples: Sequence[Example], *, mixture: str = "linear", skip: int = 0
) -> Iterator[list[TokenRanks]]:
    """The ranks under the first stage, the first two mixed, ..., R of them, chunk by chunk (longest examples first).

    A stage is the models of one round, which share its alpha equally; alphas are >= 0, of any scale, the first above 0.
    Only exact ties count: equal logits of a single model, or equal log-probabilities of the mixture in float64. Where
    any value is nan, the right token counts as wrong, with a log-probability of -inf. Each model reads an example's
    only candidate in its own prompt. Chunks depend only on the arguments; the first `skip` are left out. BadInput:
    different tokenizers, an alpha out of range, or models that cut an answer differently.
    """
    models = [loaded for stage in stages for loaded in stage]
    check(stages, alpha_R)
    mixed, vocabulary = find_mixture(mixture), generate.vocabulary([Voice(loaded) for loaded in models])
    unlike = {key(loaded): loaded for loaded in models}
    encoded = {at: batches.encode(loaded, examples) for at, loaded in unlike.items()}
    place = layout(models[0], examples) if examples else None
    for chunk in plan(encoded[key(models[0])], vocabulary, batches.most_tokens(models[0]))[skip:]:
        rows = take_rows(place, chunk)
        here = {at: [whole[n] for n in chunk] for at, whole in encoded.items()}
        with torch.inference_mode():
            ranked = list(rank_stages(stages, alpha_R, here, mixed, vocabulary))
        columns = [[column_P.cpu().numpy() for column_P in stage] for stage in ranked]
        where = (rows.ids, rows.length_N, rows.start_T, rows.end_T)
        yield [TokenRanks(*where, *stage, vocabulary, rows.tokenizer) for stage in columns]


def rank_stages(
    stages: Stages, alpha_R: Sequence[float], encoded: dict[tuple, list[Encoded]], mixture: Mixture, vocabulary: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(above_P, tied_P, logp_P) of each stage; only the running sum of the models' distributions is kept."""
    sum_PV, total, token_P = None, 0.0, None
    for at, (stage, alpha) in enumerate(zip(stages, alpha_R, strict=True)):
        for loaded in stage if alpha > 0 else ():
            loaded.module.eval()
            batch = batches.collate(loaded, encoded[key(loaded)])
            token_P = batch.token_P if token_P is None else token_P
            if not torch.equal(token_P, batch.token_P):
                raise BadInput(f"stages.{at}: a model cuts answers unlike those before it (by max_tokens or prompt)")
            logits_PV = lm.token_logits(loaded, batch)[:, :vocabulary]
            part_PV = mixture.part(logits_PV.double()).mul_(alpha / len(stage))
            sum_PV = part_PV if sum_PV is None else sum_PV.add_(part_PV)
        alone, total = not total and len(stage) == 1, total + alpha
        logp_PV = mixture.log(sum_PV / total)
        yield ranks(logits_PV if alone else logp_PV, logp_PV, token_P)


def ranks(scores_PV: Tensor, logp_PV: Tensor, token_P: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How many tokens score above each right one, how many tie with it (including itself), and its log-probability."""
    right_P1 = scores_PV.gather(1, token_P[:, None])
    above_P = scores_PV.shape[1] - (scores_PV <= right_P1).sum(1)  # nan counts as above
    tied_P = (scores_PV == right_P1).sum(1).clamp(min=1)
    logp_P = logp_PV.gather(1, token_P[:, None])[:, 0].float()
    return above_P.int(), tied_P.int(), logp_P.nan_to_num(nan=-torch.inf, neginf=-torch.inf)


def plan(encoded: Sequence[Encoded], vocabulary: int, tokens: int) -> list[np.ndarray]:
    """Chunks of examples within both budgets: at most `tokens` read, and probabilities held."""
    right_N = np.array([sum(len(row.owner_P) for row in example.rows) for example in encoded])
    held_N = right_N * vocabulary * tokens // PROBABILITIES_AT_ONCE
    size_N = np.maximum([example.tokens for example in encoded], held_N)
    return batches.plan_chunks(size_N, tokens)


def key(loaded: Loaded) -> tuple:
    """What decides how a language model's examples are cut, besides the tokenizer."""
    words = [loaded.model.prompt, loaded.model.shots]
    return json.dumps(words, sort_keys=True), loaded.max_tokens, loaded.shares_prompt


def check(stages: Stages, alpha_R: Sequence[float]) -> None:
    """BadInput unless these models can be mixed with these alphas."""
    if not stages or not all(stages):
        raise BadInput("stages: none given, or one has no model")
    if len(alpha_R) != len(stages):
        raise BadInput(f"alphas: {len(alpha_R)} given; allowed: {len(stages)}, one for each stage")
    if not (np.isfinite(alpha_R).all() and min(alpha_R) >= 0 and alpha_R[0] > 0):
        raise BadInput(f"alphas: {list(alpha_R)} given; allowed: finite, not negative, the first above 0")
    first = fingerprint(stages[0][0])
    for at, loaded in ((at, loaded) for at, stage in enumerate(stages) for loaded in stage):
        if loaded.model.kind != "lm":
            raise BadInput(f"model.kind: {loaded.model.kind!r} given; allowed: lm (only a language model ranks tokens)")
        if fingerprint(loaded) != first:
            raise BadInput(f"stages.{at}: a model's tokenizer differs from the first's, so they cannot be mixed")
