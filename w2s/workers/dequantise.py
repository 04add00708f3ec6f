"""The model in a GGUF file as a folder of safetensors with its tokenizer: the worker of job.Dequantise."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers

from w2s.models import gguf
from w2s.models.folders import name_damage
from w2s.models.world import World
from w2s.store.records import BadInput
from w2s.workers.job import Dequantise


def run(folder: Path, job: Dequantise, world: World) -> dict[str, Any]:
    """Do the job in `folder`; returns the summary for done.json."""
    file = Path(job.file)
    if world.rank == 0:
        shutil.rmtree(folder / "model", ignore_errors=True)
        with name_damage(job.file):
            write_folder(file, folder / "model")
    header = gguf.read_header(file)
    return {"quantised": header.quantised, "values": header.values}


def write_folder(file: Path, folder: Path) -> None:
    """Write the model in `file` as transformers reads it, every weight in float32, which holds any quantised value
    exactly. BadInput if a weight of the model is not in the file, or one of the file's is not in the model."""
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, "local_files_only": True}
    # Not the architecture's own class, which AutoTokenizer takes: it may add tokens of its own, and is slow to build.
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(**where)
    loader = transformers.AutoModelForCausalLM
    module, told = loader.from_pretrained(**where, dtype=torch.float32, output_loading_info=True)
    if faults := sorted(name for what in ("missing_keys", "mismatched_keys") for name in map(str, told[what])):
        raise BadInput(f"{file}: {len(faults)} weights of the model are not in the file, such as {faults[0]}")
    values, read = gguf.read_header(file).values, sum(one.numel() for one in module.parameters())
    if values != read:
        raise BadInput(f"{file}: it holds {values:,} weights, of which transformers reads {read:,}")
    unquantised(module).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def unquantised(module: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """A model with the same weights (not copies) that can be saved: transformers saves none that it read from GGUF."""
    del module.config.quantization_config
    with torch.device("meta"):
        fresh = type(module)(module.config)
    fresh.load_state_dict(module.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config = module.generation_config
    return fresh
