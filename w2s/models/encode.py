"""Sentence encoders: texts to vectors, for routers that need more than a question's words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from w2s.models import window
from w2s.models.folders import name_damage
from w2s.models.rows import mean_states
from w2s.store.records import BadInput


@torch.inference_mode()
def encode(
    path: str | Path, texts: Sequence[str], *, batch: int = 64, max_tokens: int = 256, device: str = "cpu"
) -> np.ndarray:
    """(N, D) float32 with rows of norm 1: the mean of the last layer over each text's real tokens.

    sentence-transformers' general models were trained with this pooling (Reimers and Gurevych 2019). `path` is a folder
    or hub name of an encoder and its tokenizer; code that comes with a model is never run. Longer texts are cut at
    max_tokens. Up to rounding, a text's vector does not depend on its batch. BadInput if the model cannot be read.
    """
    if batch < 1:
        raise BadInput(f"batch: {batch!r} given; allowed: at least 1")
    import transformers

    with name_damage(str(path)):
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        module = transformers.AutoModel.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
    module = module.to(device).eval()
    limit = window.limit_tokens(module.config, max_tokens)
    vectors_ND = np.zeros((len(texts), module.config.hidden_size), dtype=np.float32)
    # Texts of similar length share a batch, to save padding.
    order = np.argsort([len(text) for text in texts], kind="stable")
    for start in range(0, len(texts), batch):
        rows = order[start : start + batch]
        batch_B = [texts[row] for row in rows]
        inputs = tokenizer(batch_B, padding=True, truncation=True, max_length=limit, return_tensors="pt").to(device)
        mean_BD = mean_states(module(**inputs).last_hidden_state, inputs["attention_mask"])
        vectors_ND[rows] = torch.nn.functional.normalize(mean_BD, dim=-1).cpu().numpy()
    return vectors_ND
