"""Reward models as members of one ensemble: shared layers are computed once per batch.

heads: one body with a linear head per member (Zhang et al., arXiv 2401.16635; one head is a plain model of kind
`pair`). adapters: the first n - L of the base's n layers are shared and frozen; in the last L every member has its own
low-rank adapters (Hu et al. 2021), followed by its own copy of all linear layers of the head.

A reward is the classification head's only output for prompt and candidate. Cross-entropy over the two candidates of a
pair is the Bradley-Terry loss: -log sigmoid(r_chosen - r_rejected).

Letters: M members, B examples, K candidates, G rows of tokens, I inputs and O outputs of a layer, R rank.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from w2s.config.fields import Model
from w2s.models import batches, encoders, load, shortcuts, trainable
from w2s.models.folders import read_marks, write_marks
from w2s.models.internals import copied, is_linear, is_turned, named_facts
from w2s.models.records import Batch, Encoded, Loaded
from w2s.models.train import set_weights
from w2s.store.records import BadInput, Example

FILE = "members.safetensors"
SCALE = 2.0
"""The factor of an update, as for the adapters of `load`, whose alpha is 2 · rank."""


@dataclass(frozen=True)
class Ensemble:
    """The kind and number of members; for adapters also how many last layers have them (None: all), and their rank."""

    kind: Literal["heads", "adapters"] = "heads"
    members: int = 4
    layers: int | None = None
    rank: int = 8

    def __post_init__(self):
        for key in ("members", "rank"):
            if getattr(self, key) < 1:
                raise BadInput(f"{key}: {getattr(self, key)} given; allowed: at least 1")


class Low(nn.Module):
    """A frozen linear layer with a trained low-rank update: x W + SCALE · x down up."""

    def __init__(self, layer: nn.Module, rank: int):
        super().__init__()
        self.layer, self.turned = layer, is_turned(layer)
        inputs, outputs = layer.weight.shape if self.turned else layer.weight.T.shape
        self.down_IR = nn.Parameter(layer.weight.new_zeros(inputs, rank))
        self.up_RO = nn.Parameter(layer.weight.new_zeros(rank, outputs))

    @property
    def weight(self) -> Tensor:
        return self.layer.weight  # some models ask a layer for it

    def merged(self) -> Tensor:
        """The layer's weight with the update in it."""
        low_IR, up_RO = (self.down_IR, self.up_RO) if self.turned else (self.up_RO.T, self.down_IR.T)
        return torch.addmm(self.layer.weight, low_IR, up_RO, alpha=SCALE)

    def forward(self, x: Tensor) -> Tensor:
        # Rows far outnumber R, so in prediction changing the weight is cheaper; bfloat16 would round it.
        if torch.is_inference_mode_enabled() and x.dtype == torch.float32:
            weight = self.merged()
            return nn.functional.linear(x, weight.T if self.turned else weight, self.layer.bias)
        return self.layer(x) + (x @ self.down_IR) @ self.up_RO * SCALE


class Split(nn.Module):
    """Replaces a module by one version per member, each for its own rows: M · G rows come out, by member.

    `first`: G rows come in, shared by all members; else each member has G of M · G. The other arguments (masks,
    positions) are about G rows.
    """

    def __init__(self, members: Sequence[nn.Module], *, first: bool):
        super().__init__()
        self.__dict__.update(named_facts(members[0]))
        self.members, self.first = nn.ModuleList(members), first

    def forward(self, x: Tensor, *rest, **named):
        parts = [x] * len(self.members) if self.first else x.chunk(len(self.members))
        outputs = [member(part, *rest, **named) for member, part in zip(self.members, parts, strict=True)]
        if type(outputs[0]) is tuple:
            return torch.cat([output[0] for output in outputs]), *outputs[0][1:]
        return torch.cat(outputs)


class Members(nn.Module):
    """M reward models as one module: Members(...)(batch) -> scores_MBK. `loaded` is the shared model."""

    def __init__(self, loaded: Loaded, ensemble: Ensemble, splits: Mapping[str, Split]):
        super().__init__()
        self.loaded, self.ensemble, self.splits = loaded, ensemble, dict(splits)
        self.module = copied(loaded.module, splits)

    def forward(self, batch: Batch) -> Tensor:
        """scores_MBK in float32, -inf where there is no candidate; gradients flow to what is trainable."""
        count, last_token = self.ensemble.members, encoders.scores_last_token(self.loaded.module)
        logit_MG = encoders.head_outputs(self.module, batch, last_token=last_token).float().view(count, -1)
        flat_MP = logit_MG.new_zeros(count, batch.mask_BK.numel()).index_copy(1, batch.owner_P, logit_MG)
        return flat_MP.view(count, *batch.mask_BK.shape).masked_fill(~batch.mask_BK, -torch.inf)

    def around(self, module: nn.Module) -> "Members":
        """The same ensemble in another module."""
        twin = copy.copy(self)
        twin._modules = {"module": module}
        return twin

    def own(self) -> dict[str, nn.Parameter]:
        """The parameters that the members do not share with `loaded`, by name."""
        shared = {id(parameter) for parameter in self.loaded.module.parameters()}
        return {name: parameter for name, parameter in self.named_parameters() if id(parameter) not in shared}

    def stacks(self) -> Iterator[list[Low]]:
        """For each layer that has adapters, those of all members."""
        for split in self.splits.values():
            lows = [[layer for layer in member.modules() if isinstance(layer, Low)] for member in split.members]
            yield from map(list, zip(*lows, strict=True))


def join(loaded: Loaded, ensemble: Ensemble, *, seed: int = 0) -> Members:
    """`ensemble` around a model of kind pair, whose weights it shares.

    The first member's head is the model's own; the last layers of the others' heads are drawn from `seed`, as are all
    adapters, which start without effect. With heads, the heads and all parameters that already were are trainable; with
    adapters, only adapters and heads. BadInput for another kind of model, or an architecture that lacks such layers or
    mixes rows.
    """
    if loaded.model.kind != "pair":
        raise BadInput(f"model.kind: {loaded.model.kind!r} given; allowed: pair (a reward model has a head)")
    last, module = last_layer(loaded), loaded.module
    if ensemble.kind == "heads":
        splits = {last: copies(module.get_submodule(last), ensemble.members, first=True)}
    else:
        module.requires_grad_(False)
        splits = adapt(loaded, ensemble)
    members = Members(loaded, ensemble, splits)
    check_rows(members)
    with torch.random.fork_rng(), torch.no_grad():
        for at in range(ensemble.members):
            torch.manual_seed(np.random.SeedSequence([seed, at]).generate_state(1, np.uint64).item() >> 1)
            for low in (lows[at] for lows in members.stacks()):
                # As peft initialises; drawn on the CPU, so that the device changes nothing.
                low.down_IR.copy_((2 * torch.rand(low.down_IR.shape) - 1) / len(low.down_IR) ** 0.5)
            if at:
                head = splits[last].members[at]
                head.weight.copy_(torch.randn(head.weight.shape) * getattr(module.config, "initializer_range", 0.02))
                if head.bias is not None:
                    head.bias.zero_()
    return members


def adapt(loaded: Loaded, ensemble: Ensemble) -> dict[str, Split]:
    """The last layers with adapters, and each linear layer of the head, for every member; all still equal."""
    module, found = loaded.module, trainable.find_layers(loaded.module)
    if found is None:
        kind = module.config.model_type
        raise BadInput(f"kind: 'adapters': the layers of a {kind} model are not found; allowed: heads")
    prefix, count = found
    adapted = count if ensemble.layers is None else ensemble.layers
    if not 1 <= adapted <= count:
        raise BadInput(f"layers: {ensemble.layers} given; allowed: 1 to {count}, as {loaded.model.path} has")
    splits = {}
    for at in range(count - adapted, count):
        layer = module.get_submodule(f"{prefix}.{at}")
        linear = {p: m for p, m in layer.named_modules() if is_linear(m)}
        lows = [{path: Low(m, ensemble.rank) for path, m in linear.items()} for _ in range(ensemble.members)]
        splits[f"{prefix}.{at}"] = Split([copied(layer, own) for own in lows], first=at == count - adapted)
    for path, layer in module.named_modules():
        if type(layer) is nn.Linear and not path.startswith(prefix + ".") and trainable.HEADS.search(path + "."):
            splits[path] = copies(layer, ensemble.members, first=False)
    return splits


def copies(layer: nn.Linear, count: int, *, first: bool) -> Split:
    return Split([copy.deepcopy(layer).requires_grad_(True) for _ in range(count)], first=first)


def last_layer(loaded: Loaded) -> str:
    """Path of the linear layer whose only output is the reward."""
    named = loaded.module.named_modules()
    paths = [p for p, m in named if type(m) is nn.Linear and m.out_features == 1 and trainable.HEADS.search(p + ".")]
    if not paths:
        kind = loaded.module.config.model_type
        raise BadInput(f"model.path: {loaded.model.path}: the head of a {kind} model has no linear layer of one output")
    return paths[-1]


def check_rows(members: Members) -> None:
    """BadInput unless the members, while still equal, score made-up tokens as `loaded` does."""
    loaded = members.loaded
    rng = np.random.default_rng(0)
    rows = [rng.integers(loaded.module.get_input_embeddings().weight.shape[0], size=size) for size in (5, 3, 4)]
    encoded = [Encoded(tuple(encoders.whole_row(row.tolist(), None, at) for at, row in enumerate(rows)), 3)]
    alone = shortcuts.reading(loaded, encoded)
    together = shortcuts.attempt(lambda: members(batches.collate(loaded, encoded)))
    if alone is None or not shortcuts.same(loaded, together, alone.expand(members.ensemble.members, -1, -1)):
        kind, allowed = loaded.module.config.model_type, "heads" if members.ensemble.kind == "adapters" else "BERT, ..."
        raise BadInput(f"kind: {members.ensemble.kind!r}: a {kind} model cannot share its layers; allowed: {allowed}")


def encode(loaded: Loaded, examples: Sequence[Example]) -> list[Encoded]:
    """Every example in order, a row per prompt and candidate; also written answers, which reward models only read."""
    return batches.note_cuts(loaded, examples, encoders.encode_pair(loaded, batches.worded(loaded, examples), examples))


def loss_of(loss: Callable, scores_MBK: Tensor, target_BK: Tensor, progress: float = 1.0) -> Tensor:
    """loss_MB: one of losses.LOSSES, for each member separately."""
    count, rows, _ = scores_MBK.shape
    return loss(scores_MBK.flatten(0, 1), target_BK.repeat(count, 1), progress).view(count, rows)


def diversity(members: Members) -> Tensor:
    """How far apart the adapters are, to be maximised: a scalar between 1 and the root of M · R, with a gradient.

    Nuclear norm over Frobenius norm of the members' `down` matrices stacked to (M · R, I), a convex stand-in for the
    rank, averaged over the layers that have adapters. UP-RLHF (Zhai et al., arXiv 2401.00243), second term of eq. 12.
    Their first term is the loss of the mean reward; here every member has its own loss.
    """
    ratios = []
    for lows in members.stacks():
        stacked_SI = torch.cat([low.down_IR.T for low in lows]).float()
        ratios.append(torch.linalg.svdvals(stacked_SI).sum() / stacked_SI.norm())
    return torch.stack(ratios).mean()


def rewards(
    members: Members,
    examples: Sequence[Example],
    *,
    batch_tokens: int | None = None,
    width: int | None = None,
    skip: int = 0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(positions in `examples`, their scores_MNK) chunk by chunk, longest first.

    nan where a score is not finite or there is no candidate; K = `width` or the most candidates. The chunks depend only
    on the examples and `batch_tokens` (None: batches.most_tokens); the first `skip` are left out.
    """
    loaded, encoded = members.loaded, encode(members.loaded, examples)
    width = width or max((example.count for example in encoded), default=1)
    batch_tokens = batch_tokens or batches.most_tokens(loaded)
    members.eval()
    for chunk in batches.plan_chunks([example.tokens for example in encoded], batch_tokens)[skip:]:
        scores_MNK = np.full((members.ensemble.members, len(chunk), width), np.nan)
        some = np.flatnonzero([encoded[at].count > 0 for at in chunk])
        if len(some):
            with torch.inference_mode():
                batch = batches.collate(loaded, [encoded[at] for at in chunk[some]], width)
                scores_MNK[:, some] = members(batch).double().cpu().numpy()
        yield chunk, np.where(np.isfinite(scores_MNK), scores_MNK, np.nan)


def save(members: Members, folder: str | Path) -> None:
    """Write a folder for `open_members`: the shared weights, members.safetensors, tokenizer, w2s.json.

    w2s.json describes it under "members", so that the folder is not mistaken for a plain model.
    """
    folder, loaded = Path(folder), members.loaded
    load.save(loaded, folder)
    load.write_tensors(folder / FILE, members.own())
    write_marks(folder, {"members": load.note(loaded) | {"ensemble": dataclasses.asdict(members.ensemble)}})


def open_members(folder: str | Path, *, device: str = "cpu", precision: str | None = None) -> Members:
    """The ensemble that `save` wrote, or a plain model of kind pair as an ensemble of one."""
    marks = read_marks(folder).get("members")
    if marks is None:
        return join(load.load_folder(folder, device=device, precision=precision), Ensemble("heads", 1))
    loaded = load.load_saved(Model(**marks["model"]), folder, marks, device=device, precision=precision)
    members = join(loaded, Ensemble(**marks["ensemble"]))
    weights = load.read_tensors(Path(folder) / FILE)
    written, expected = ({name: value.shape for name, value in named.items()} for named in (weights, members.own()))
    if written != expected:
        wrong = sorted(name for name in written | expected if written.get(name) != expected.get(name))
        raise BadInput(f"{folder}/{FILE}: {wrong[0]}: does not fit the model beside it")
    set_weights(members, weights)
    return members
