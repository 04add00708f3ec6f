"""Fine-tune a model on labels over candidates, as a learner or as the student: the worker of job.Finetune."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from w2s.boosting.tokens import by_row
from w2s.config.fields import Train
from w2s.models import batches, below, experts, load, losses, score, tokens, train
from w2s.models.adapters import adapter_of
from w2s.models.below import Below
from w2s.models.engine import configuration, is_sliced
from w2s.models.internals import checkpoint_activations
from w2s.models.kinds import KINDS, save_fitted
from w2s.models.records import Encoded, Estimator, Factors, Soft
from w2s.models.states import join
from w2s.models.world import World
from w2s.store.records import (
    BadInput,
    Example,
    PseudoLabels,
    TokenTargets,
    TokenWeights,
    Weights,
    align,
    read_arrays,
    take,
)
from w2s.workers.embed import describe_base, find_states, open_body
from w2s.workers.examples import count_cuts, read_examples
from w2s.workers.job import Base, Finetune, Objective, Pairs, Reward, count_steps


@dataclass(frozen=True)
class Rows:
    """Examples in tokens with their labels, and for written answers also their tokens' factors and soft targets."""

    loaded: load.Loaded
    encoded: list[Encoded]
    labels: PseudoLabels
    factors: Factors = None
    soft: Soft = None
    below: Below | None = None
    """What frozen layers say of the examples, where `call` goes on from there."""

    @property
    def length_N(self) -> np.ndarray:
        return np.array([example.tokens for example in self.encoded])

    def score(self, call: Callable, index_B: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The output of `call` for the rows `index_B` (its last axis is the candidates), and target_BK."""
        columns = (self.encoded, self.factors, self.soft)
        encoded, factors, soft = (column and [column[at] for at in index_B] for column in columns)
        target_BK = self.labels.target_NK[index_B]
        if self.below:
            self.below.feed(index_B)
        scores = call(batches.collate(self.loaded, encoded, target_BK.shape[1], factors, soft))
        return scores, torch.from_numpy(target_BK).to(scores)

    def count_tokens(self, steps: list[np.ndarray]) -> int:
        length_N = self.length_N
        return int(sum(length_N[step].sum() for step in steps))


def run(folder: Path, job: Finetune, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    settings, model = job.learner.train, job.learner.model
    examples, labels, order_N = read_labels(folder, job)
    batches.check_kind(model.kind, examples)
    loss, held_loss = (losses.pick_loss(spec, examples[0].task) for spec in (settings.loss, "cross_entropy"))
    if isinstance(KINDS[model.kind], Estimator):
        return fit_at_once(folder, job, examples, labels, order_N, world)
    loaded = load_start(job, world)
    experts.say_unbalanced(loaded.module, model.path)
    if job.runtime.gradient_checkpointing:
        checkpoint_activations(loaded.module)
    fit_N, held_N = hold_out(len(examples), settings.holdout_share, job.seed)
    settings = dataclasses.replace(settings, steps=count_steps(settings, count_labels(folder, job)))
    encoded = batches.encode(loaded, examples)
    cut = count_cuts(loaded, {Path(job.examples).stem: examples}, model.path, world)
    rows = Rows(loaded, encoded, labels, *read_tokens(folder, job, loaded, examples, fit_N))
    steps, weight_N = plan(rows.length_N, labels.weight_N, order_N, fit_N, job.weighting, settings, job.seed)
    module, seconds = score.Scorer(loaded), train.timer()
    rows = keep_below(module, rows, (steps, held_N), job, world, folder)
    is_choice = examples[0].task == "choice"
    scale = 1.0 if is_choice else 1 / tokens.text_lengths(encoded, labels.target_NK)[fit_N].mean()
    look = make_look(rows, held_N, held_loss, scale, world, settings.batch, chosen=is_choice)
    trained = rows.below.upper if rows.below else module
    objective = make_objective(rows, loss, scale, trained)
    state, weights = train.fit(
        trained, steps, objective, settings, job.runtime, folder, world, weight_N=weight_N, look=look, seed=job.seed
    )
    read = rows.count_tokens(steps[: state.step])
    summary = {"rows": len(fit_N), "held_out": len(held_N), "steps": state.step, "most_steps": len(steps)}
    summary |= {"tokens": read, **cut}
    below.drop(folder, world)
    if world.rank == 0:
        trained = export(loaded, module, weights, job, folder)
        if mixture := experts.measure(trained, [encoded[at] for at in fit_N]):
            summary |= {"mixture": mixture, **experts.count_parameters(trained.module)}
        train.write_history(folder, summary, state, seconds())
    return summary


def keep_below(
    scorer: torch.nn.Module,
    rows: Rows,
    reads: tuple[list[np.ndarray], np.ndarray],
    job: Finetune | Reward,
    world: World,
    folder: Path,
) -> Rows:
    """The rows with what the frozen lower layers say of them, if only the last layers learn and it saves time.

    reads: the rows of each step, and those held out for every look. Several machines share no file of states.
    """
    model, settings, (steps, held_N) = job.learner.model, job.learner.train, reads
    learning = model.top if model.trainable == "top" else None
    if isinstance(job, Reward) and job.kind == "adapters":
        learning = job.layers
    if learning is None or job.runtime.hostfile:
        return rows
    looks = math.ceil(len(steps) / settings.eval_every)
    frozen = scorer.loaded.module.config.get_text_config().num_hidden_layers - learning
    states = below.compute(scorer, frozen, rows.encoded, [*steps, *[held_N] * looks], settings, world, folder)
    return dataclasses.replace(rows, below=states)


def load_start(job: Finetune | Objective | Reward, world: World) -> load.Loaded:
    """The model that the job starts from, in float32, as the optimizer needs; BadInput if ZeRO cannot slice it.

    Trained, it predicts in what it was trained in.
    """
    stage = (configuration(job.runtime, world) or {}).get("zero_optimization", {}).get("stage")
    if stage == 3 and job.learner.model.quantise != "none":
        words = f"{job.learner.model.quantise!r} given under ZeRO 3; allowed: none, or ZeRO 0 to 2"
        raise BadInput(f"model.quantise: {words}")
    where = {"path": job.path, "device": world.device, "trust_remote_code": job.runtime.trust_remote_code}
    settings = job.learner.train
    loaded = load.load(job.learner.model, seed=job.seed, precision="float32", max_tokens=settings.max_tokens, **where)
    return dataclasses.replace(loaded, precision="bfloat16" if settings.precision == "bfloat16" else "float32")


def read_labels(folder: Path, job: Finetune | Reward | Pairs) -> tuple[list[Example], PseudoLabels, np.ndarray]:
    """The examples that have a label of weight above 0, in the labels' order, and their boosting weights (or ones)."""
    labels = read_arrays(folder / job.labels, PseudoLabels)
    order_N = read_order(folder, job, labels.ids) if isinstance(job, Finetune) else np.ones(len(labels.ids))
    kept = np.flatnonzero((labels.weight_N > 0) & (order_N > 0))
    if not len(kept):
        raise BadInput(f"{job.labels}: no row left to train on: {labels.why_none or 'no labelled row was drawn'}")
    by_id = {example.id: example for example in read_examples(folder / job.examples)}
    ids = labels.ids[kept].tolist()
    missing = [key for key in ids if key not in by_id]
    if missing:
        raise ValueError(f"{job.examples}: {len(missing)} labelled ids are missing ({', '.join(missing[:3])})")
    examples = [by_id[key] for key in ids]
    if len({example.task == "choice" for example in examples}) > 1:
        raise BadInput(f"{job.examples}: choice questions and written answers are mixed; train on one kind at a time")
    return examples, take(labels, kept), order_N[kept]


def count_labels(folder: Path, job: Finetune) -> int:
    """How many rows are labelled. Those outside a bootstrap sample count: an epoch of it draws as many rows as of all
    labels."""
    return int((read_arrays(folder / job.labels, PseudoLabels).weight_N > 0).sum())


def read_order(folder: Path, job: Finetune, ids: np.ndarray) -> np.ndarray:
    """The boosting weights of these rows, or ones.

    Token weights multiply the loss token by token: a row then has weight 1, or 0 if its tokens have none.
    """
    if job.tokens:
        order_N = align(by_row(read_arrays(folder / job.tokens, TokenWeights))[0], ids).weight_N
        return order_N if job.weighting == "resample" else (order_N > 0).astype(float)
    if job.order:
        return align(read_arrays(folder / job.order, Weights), ids).weight_N
    return np.ones(len(ids))


def read_tokens(
    folder: Path, job: Finetune, loaded: load.Loaded, examples: list[Example], fit_N: np.ndarray
) -> tuple[Factors, Soft]:
    if not job.tokens and not job.soft:
        return None, None
    places, factors, soft = tokens.layout(loaded, examples), None, None
    if job.tokens:
        weights = read_arrays(folder / job.tokens, TokenWeights)
        factors = tokens.factors(weights, places, fit_N, drawn=job.weighting == "resample")
    if job.soft:
        soft = tokens.soft_targets(read_arrays(folder / job.soft, TokenTargets), places)
    return factors, soft


def hold_out(rows: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions to fit on, and a random `share` held out for early stopping (none if there are too few)."""
    held = int(rows * share)
    index_N = np.random.default_rng([seed, 1]).permutation(rows)
    return np.sort(index_N[held:]), np.sort(index_N[:held])


def plan(
    length_N: np.ndarray,
    label_weight_N: np.ndarray,
    order_N: np.ndarray,
    fit_N: np.ndarray,
    weighting: str,
    settings: Train,
    seed: int,
) -> tuple[list[np.ndarray], np.ndarray]:
    """The rows of each step, and each row's factor in the loss (mean 1 over the rows to fit on).

    "resample": rows are drawn in proportion to the boosting weights `order_N`, by systematic sampling over the whole
    fit (each row as often as expected, rounded up or down); "loss": the weights multiply the loss.
    """
    total = (settings.steps or math.ceil(settings.epochs * len(fit_N) / settings.batch)) * settings.batch
    factor_N = label_weight_N.astype(float).copy()
    if weighting == "resample":
        share_N = order_N[fit_N] / order_N[fit_N].sum()
        ticks = (np.arange(total) + np.random.default_rng([seed, 2]).random()) / total
        drawn = fit_N[np.minimum(np.searchsorted(np.cumsum(share_N), ticks), len(fit_N) - 1)]
        drawn = np.random.default_rng([seed, 3]).permutation(drawn)
    else:
        factor_N *= order_N
        drawn = fit_N
    factor_N /= factor_N[fit_N].mean()
    steps = batches.plan_batches(length_N[drawn], settings.batch, total // settings.batch, seed)
    return [drawn[step] for step in steps], factor_N


def make_objective(rows: Rows, loss: Callable, scale: float, scorer: score.Scorer) -> train.Objective:
    """The loss of the scores by `call`, which is `scorer` or an engine around it, and a mixture's balance."""

    def objective(call: Callable, index_B: np.ndarray, share: float) -> torch.Tensor:
        loss_B = scale * loss(*rows.score(call, index_B), progress=share)
        return loss_B if scorer.balance_B is None else loss_B + scorer.balance_B

    return objective


def make_look(
    rows: Rows, held_N: np.ndarray, loss: Callable, scale: float, world: World, batch: int, *, chosen: bool = False
) -> train.Look | None:
    """The mean loss on the held-out rows, weighted by their labels; the processes share out the rows.

    It measures the fit to the labels, however training weights their tokens. chosen: scores are of candidates, so the
    share of rows whose top candidate is the label's is measured too. None if no row is held out.
    """
    if not len(held_N):
        return None
    rows = dataclasses.replace(rows, factors=None)
    mine = np.array_split(held_N[np.argsort(rows.length_N[held_N])], max(1, len(held_N) // batch))
    turns = math.ceil(len(mine) / world.size)

    def look(call: Callable) -> tuple[float, float | None]:
        sums = torch.zeros(3, dtype=torch.float64)
        for turn in range(turns):
            at = turn * world.size + world.rank
            index_B = mine[min(at, len(mine) - 1)]  # every process makes the same calls
            scores_BK, target_BK = rows.score(call, index_B)
            loss_B = scale * loss(scores_BK, target_BK).cpu().double()
            weight_B = torch.from_numpy(rows.labels.weight_N[index_B].astype(float)) * (at < len(mine))
            same_B = (scores_BK.argmax(-1) == target_BK.argmax(-1)).cpu() if chosen else torch.zeros(len(index_B))
            sums += torch.stack([(weight_B * loss_B).sum(), (weight_B * same_B).sum(), weight_B.sum()])
        missed, same, weight = world.sum(sums).tolist()
        return missed / weight, same / weight if chosen else None

    return look


def export(
    loaded: load.Loaded, module: score.Scorer, weights: dict[str, torch.Tensor], job: Finetune, folder: Path
) -> load.Loaded:
    """Write model/ from the trained parameters; returns the model."""
    if is_sliced(module):  # ZeRO 3 left only slices in the module
        loaded = load_start(job, World())
        module = score.Scorer(loaded)
    train.set_weights(module, weights)
    load.save(loaded, folder / "model")
    if job.learner.model.trainable == "lora" and KINDS[job.learner.model.kind].writes:
        # For a committee that shares its base's weights; in the model beside it the adapter is merged.
        load.save_adapter(folder / "model", adapter_of(loaded.module))
    return loaded


def fit_at_once(
    folder: Path, job: Finetune, examples: list[Example], labels: PseudoLabels, order_N: np.ndarray, world: World
) -> dict[str, Any]:
    """Fit a learner without steps; for it, drawing rows by weight and multiplying the loss are the same."""
    cut = {}
    if world.rank == 0:
        weight_N, model = labels.weight_N * order_N, job.learner.model
        weight_N = weight_N / weight_N.mean()
        rows, marks, kind = examples, {}, KINDS[model.kind]
        if kind.reads_states:
            base = Base(job.learner, job.path)
            source = folder / job.states if job.states else open_body(base, job.runtime, world)
            rows, marks = join(list(find_states(source, examples)), labels.ids), describe_base(base)
            if isinstance(source, load.Loaded):
                cut = count_cuts(source, {Path(job.examples).stem: examples}, model.path, World())
        fitted = kind.fit(model, rows, labels.target_NK, weight_N, job.seed)
        save_fitted(fitted, model, folder / "model", marks)
    return {"rows": len(examples), "held_out": 0, "steps": 0, "tokens": 0, **cut}
