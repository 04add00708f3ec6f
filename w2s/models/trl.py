"""TRL's trainers around our models, with the tokens, optimizer and learning rate of all other training.

DPO reads pairs; GRPO and RLOO read questions, let the student write, and call a judge. The reference is the student
before this training. TRL (1.16) gets all it needs from here, and does nothing but `.train()`.

Letters: B rows of a batch, T tokens.
"""

import contextlib
import dataclasses
import functools
import inspect
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from torch.optim.lr_scheduler import LambdaLR

from w2s.config.fields import Runtime, Train, Writing
from w2s.models.batches import encode, worded
from w2s.models.chat import find_end
from w2s.models.committee import fitted
from w2s.models.engine import configuration
from w2s.models.generate import Voice, cut
from w2s.models.objectives import Objective
from w2s.models.records import Loaded
from w2s.models.rows import positions
from w2s.models.train import learning_rate
from w2s.models.world import World, make_optimizer
from w2s.store.log import progress
from w2s.store.records import BadInput, Example

Tokens = dict[str, list[int]]
"""A pair: "prompt_ids", "chosen_ids" and "rejected_ids"."""
Judge = Callable[[int, list[str], list[str]], list[float]]
"""(steps done, ids of the questions, texts) -> rewards, called by every process at once with its own texts."""


def pair_tokens(loaded: Loaded, examples: Sequence[Example], best_N: Sequence[int]) -> list[Tokens]:
    """Examples of two candidates in the tokens that `score` reads; `best_N` (0 or 1) is the chosen candidate.

    TRL also feeds a candidate's last token to the model, so a row at the limit has one token less than in `score`.
    """
    pairs, shorter = [], dataclasses.replace(loaded, max_tokens=loaded.max_tokens - 1)
    for encoded, best in zip(encode(shorter, examples), best_N, strict=True):
        first = encoded.rows[0]
        prompt = first.token_T[: first.first + 1].tolist()
        texts = [row.token_P[row.owner_P == at].tolist() for row in encoded.rows for at in dict.fromkeys(row.owner_P)]
        pairs.append({"prompt_ids": prompt, "chosen_ids": texts[best], "rejected_ids": texts[1 - best]})
    return pairs


def make_trainer(
    objective: Objective,
    loaded: Loaded,
    data: Sequence[Tokens] | Sequence[Example],
    train: Train,
    runtime: Runtime,
    world: World,
    folder: Path,
    seed: int,
    judge: Judge | None = None,
    writing: Writing | None = None,
) -> Any:
    """TRL's trainer, ready for `.train()`, which trains what is trainable in `loaded`; `folder` is for its files.

    `data`: pairs in tokens, or questions to answer as `writing` says (max_new_tokens, stop), with texts rewarded by
    `judge`. The reference is read from where `loaded` was read. Nothing is uploaded or downloaded. BadInput if the
    processes cannot share a batch evenly, or the questions give too few texts.
    """
    steps = count_steps(objective, len(data), train)
    optimizer = make_optimizer([p for p in loaded.module.parameters() if p.requires_grad], train)
    fields = objective.fields | arguments(train, runtime, world, folder, seed, steps)
    parts = {
        "model": loaded.module,
        "processing_class": loaded.tokenizer,
        "optimizers": (optimizer, LambdaLR(optimizer, lambda step: learning_rate(step, steps, train))),
    }
    if objective.reads == "pairs":
        rows = [{"prompt": "", "chosen": "", "rejected": "", "row": at} for at in range(len(data))]
        parts["data_collator"] = make_collator(loaded, data)
        return build(objective, fields | {"max_length": None}, rows, parts)
    rows = [{"prompt": example.id} for example in data]
    prompts, room = writing_room(loaded, data, writing.max_new_tokens)

    def reward(prompts: list[str], completions: list[str], *, trainer_state: Any, **_: Any) -> list[float]:
        return judge(trainer_state.global_step, prompts, [cut(text, writing.stop) for text in completions])

    parts["reward_funcs"] = reward
    trainer = build(objective, fields | {"max_completion_length": room}, rows, parts)
    own_tokens(trainer, loaded, prompts, writing.stop)
    for module in (trainer.model, getattr(trainer.ref_model, "module", trainer.ref_model)):
        count_positions(module)
    return trainer


def build(objective: Objective, fields: dict[str, Any], rows: list[dict[str, Any]], parts: dict[str, Any]) -> Any:
    """TRL's trainer of the objective: `fields` of its config, `rows` of its dataset, `parts` as keyword arguments."""
    # TRL reports usage to its makers; huggingface_hub, once imported, reads only the constant.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    constants.HF_HUB_DISABLE_TELEMETRY = True
    import trl
    from datasets import Dataset, disable_progress_bars
    from transformers.trainer_callback import PrinterCallback

    disable_progress_bars()
    config = getattr(trl, f"{objective.trainer}Config")(**fields)
    make = getattr(trl, f"{objective.trainer}Trainer")
    trainer = make(args=config, train_dataset=Dataset.from_list(rows), **parts)
    trainer.remove_callback(PrinterCallback)
    return trainer


def make_collator(loaded: Loaded, data: Sequence[Tokens]) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """A collator that looks up a row's tokens: TRL gets no texts, because it would tokenise them its own way."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    plain = DataCollatorForPreference(pad_token_id=loaded.pad_id)
    return lambda rows: plain([data[row["row"]] for row in rows])


def count_steps(objective: Objective, rows: int, train: Train) -> int:
    """Steps of the fit; BadInput if TRL would find no whole batch."""
    if rows * objective.generations < train.batch and objective.generations > 1:
        allowed = f"at most {rows * objective.generations} ({rows} questions, {objective.generations} texts each)"
        raise BadInput(f"train.batch: {train.batch} given; allowed: {allowed}")
    return train.steps or math.ceil(train.epochs * rows * objective.generations / train.batch)


def arguments(train: Train, runtime: Runtime, world: World, folder: Path, seed: int, steps: int) -> dict[str, Any]:
    """The fields that TRL's three configs share."""
    share, odd = divmod(train.batch, world.size)
    if odd:
        raise BadInput(f"train.batch: {train.batch} given; allowed: a multiple of the {world.size} processes")
    micro = next(size for size in range(min(runtime.micro_batch or share, share), 0, -1) if share % size == 0)
    deepspeed = None if world.device.type == "cpu" else configuration(runtime, world)
    if not (deepspeed or {}).get("zero_optimization", {}).get("stage", 0):
        deepspeed = None  # stage 0 shares out nothing
    else:
        auto = dict.fromkeys(("train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "auto")
        auto |= {"gradient_clipping": "auto", "bf16": {"enabled": "auto"}, "steps_per_print": 10**12}
        deepspeed = deepspeed | auto | {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": share // micro,
        "learning_rate": train.lr,
        "max_grad_norm": train.clip,
        "seed": seed,
        "bf16": train.precision == "bfloat16",
        "use_cpu": world.device.type == "cpu",
        checkpointing(): runtime.gradient_checkpointing,
        "deepspeed": deepspeed,
        "remove_unused_columns": False,
        "dataloader_pin_memory": world.device.type != "cpu",
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
    }


def checkpointing() -> str:
    """The Trainer's name for recomputing activations: the second one before transformers 5.24."""
    from transformers import TrainingArguments

    known = inspect.signature(TrainingArguments).parameters
    return next(name for name in ("activation_checkpointing", "gradient_checkpointing") if name in known)


def writing_room(loaded: Loaded, examples: Sequence[Example], max_new_tokens: int) -> tuple[dict, int]:
    """Each question's prompt in tokens, as for `sample`, and how many tokens may follow any of them."""
    words = [row.prompt for row in worded(loaded, examples)]
    prompts, room_N, cut_N = fitted([Voice(loaded)], words, max_new_tokens)
    loaded.cuts.update({example.id: (True, False) for example, cut in zip(examples, cut_N, strict=True) if cut})
    return {example.id: row for example, row in zip(examples, prompts, strict=True)}, min(room_N)


def own_tokens(trainer: Any, loaded: Loaded, prompts: dict[str, list[int]], stop: Sequence[str]) -> None:
    """Use our tokens of prompts, and end texts after a `stop` text, by two private names of TRL's trainers.

    TRL tokenises prompts with whatever the tokenizer adds to a text, and transformers' own stop strings fail on
    tokenizers of whole words.
    """
    trainer._tokenize_prompts = lambda ids: ([prompts[key] for key in ids], None, {})
    end = find_end(loaded)
    if end is not None and end != loaded.tokenizer.eos_token_id:  # TRL knows only the tokenizer's
        stop = [*stop, loaded.tokenizer.decode([end])]
    if not stop:
        return
    write = trainer._generate_single_turn

    def stopped(row: list[int]) -> list[int]:
        whole = loaded.tokenizer.decode(row)
        if not any(end in whole for end in stop):
            return row
        upto = (loaded.tokenizer.decode(row[: at + 1]) for at in range(len(row)))
        return row[: 1 + next(at for at, text in enumerate(upto) if any(end in text for end in stop))]

    @functools.wraps(write)
    def write_to_stop(*args: Any, **named: Any) -> Any:
        turn = write(*args, **named)
        if isinstance(turn, tuple):  # GRPO's: with log-probabilities, which are None without vLLM
            return [stopped(row) for row in turn[0]], *turn[1:]
        return [stopped(row) for row in turn]

    trainer._generate_single_turn = write_to_stop


def count_positions(module: torch.nn.Module | None) -> None:
    """Let `module` count positions from the first real token, as in generation.

    TRL pads prompts on the left and leaves positions to the model, which then counts the padding too (trl 1.16): with
    learned positions, short prompts would get log-probabilities of wrong positions.
    """
    if module is None or "position_ids" not in inspect.signature(type(module).forward).parameters:
        return

    def add(_: torch.nn.Module, args: tuple, named: dict) -> tuple[tuple, dict]:
        mask_BT, tokens_BT = named.get("attention_mask"), named.get("input_ids")
        if mask_BT is None or tokens_BT is None or mask_BT.dim() != 2 or named.get("position_ids") is not None:
            return args, named
        return args, named | {"position_ids": positions(mask_BT.long())[:, -tokens_BT.shape[1] :]}

    module.register_forward_pre_hook(add, with_kwargs=True)


def fit(trainer: Any) -> tuple[list[dict[str, float | None]], int, dict[str, torch.Tensor]]:
    """Train; returns ("loss", "reward" or "margin", "kl" by step), tokens read, and on every process the parameters.

    Margins are of the pairs, times beta, averaged over a step; kl is in nats per text, None if beta is 0.
    BadInput if the loss becomes nan or infinite.
    """
    from transformers.trainer_callback import TrainerCallback

    with progress(trainer.args.max_steps, "training steps") as advance:

        class Steps(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                advance()

        trainer.add_callback(Steps())
        trainer.train()
    steps = [row for row in trainer.state.log_history if "loss" in row]
    bad = next((row["step"] for row in steps if not math.isfinite(row["loss"])), None)
    if bad is not None:
        raise BadInput(f"train.lr: the loss is not a number from step {bad} on; a smaller learning rate may help")
    history = []
    for row in steps:
        if "reward" in row:  # without a reference (beta 0) the divergence is unknown
            kl = row["kl"] * row["completions/mean_length"] if "kl" in row else None
            history.append({"loss": row["loss"], "reward": row["reward"], "kl": kl})
        else:
            history.append({"loss": row["loss"], "margin": row["rewards/margins"]})
    return history, int(steps[-1].get("num_tokens", 0)) if steps else 0, read_weights(trainer)


def read_weights(trainer: Any) -> dict[str, torch.Tensor]:
    """The trained parameters by name, on the CPU; ZeRO 3's slices are gathered, so every process must call it."""
    shared = trainer.is_deepspeed_enabled and trainer.accelerator.state.deepspeed_plugin.zero_stage == 3
    weights = {}
    for name, parameter in trainer.model.named_parameters():
        if not parameter.requires_grad:
            continue
        whole = contextlib.nullcontext()
        if shared:
            import deepspeed

            whole = deepspeed.zero.GatheredParameters([parameter])
        with whole:
            weights[name] = parameter.detach().float().cpu().clone()
    if trainer.is_deepspeed_enabled:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()  # else ZeRO 3 slices the next model of this process too
    return weights
