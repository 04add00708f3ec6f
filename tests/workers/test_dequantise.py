"""A GGUF file becomes a folder with exactly its weights, its tokenizer and its chat template."""

import json
from pathlib import Path

import gguf
import pytest
import torch
import transformers

from tests.models import gguf_files
from w2s.models.gguf import ARCHITECTURES, READ_SCALING, read_header
from w2s.models.world import World
from w2s.store.records import BadInput
from w2s.workers import dequantise
from w2s.workers.job import Dequantise
from w2s.workers.job_files import read_job, write_job

TEXTS = ["Which gas do plants take in?", " carbon dioxide", "", "  two  spaces\n\nand lines", "naïve 東京 [SEP] x"]


def done(file: Path, folder: Path) -> dict:
    folder.mkdir()
    write_job(folder, Dequantise(str(file)))
    return dequantise.run(folder, read_job(folder), World())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_weights_tokens_and_logits_are_those_of_the_safetensors(architecture, kind, tied, tmp_path):
    file, folder = gguf_files.make(architecture, kind, tmp_path, tied=tied)
    told = done(file, tmp_path / "job")
    assert told["quantised"] == kind
    here = tmp_path / "job" / "model"
    loader, reader = transformers.AutoModelForCausalLM, transformers.AutoTokenizer
    module, other = (loader.from_pretrained(path, dtype=torch.float32) for path in (here, folder))
    ours, theirs = module.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert told["values"] == sum(one.numel() for one in other.parameters())
    assert module.config.tie_word_embeddings == tied
    tokenizer, known = reader.from_pretrained(here), reader.from_pretrained(folder)
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids == known(text)["input_ids"]
        assert ids[0] == 1  # BOS, once
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[1:]
    chat = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == known.apply_chat_template(chat, tokenize=False)
    ids_BT = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        assert torch.equal(module(ids_BT).logits, other(ids_BT).logits)


def test_other_ranks_write_nothing(tmp_path):
    file, _ = gguf_files.make("llama", "F32", tmp_path)
    (tmp_path / "job").mkdir()
    dequantise.run(tmp_path / "job", Dequantise(str(file)), World(rank=1, size=2))
    assert not (tmp_path / "job" / "model").exists()


def rewritten(file: Path, out: Path, drop: str = "", add: str = "") -> Path:
    """The file without the tensor `drop`, or with one more, `add`."""
    reader = gguf.GGUFReader(file)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    tensors = {one.name: (one.data, one.tensor_type) for one in reader.tensors if one.name != drop}
    if add:
        tensors[add] = next(iter(tensors.values()))
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def test_a_weight_that_is_missing_is_an_error_and_is_not_drawn(tmp_path):
    file, _ = gguf_files.make("llama", "F32", tmp_path)
    with pytest.raises(BadInput, match=r"1 weights of the model are not in the file, such as .*up_proj") as caught:
        done(rewritten(file, tmp_path / "less.gguf", drop="blk.1.ffn_up.weight"), tmp_path / "job")
    assert "\n" not in str(caught.value)


def test_a_weight_that_the_model_does_not_know_is_an_error(tmp_path):
    file, _ = gguf_files.make("llama", "F32", tmp_path)
    with pytest.raises(BadInput, match=r"it holds [\d,]+ weights, of which transformers reads [\d,]+$"):
        done(rewritten(file, tmp_path / "more.gguf", add="blk.1.unknown.weight"), tmp_path / "job")
    assert not (tmp_path / "job" / "model").exists()


def test_transformers_reads_the_architectures_that_are_let_in():
    from transformers.integrations.gguf import GGUF_ARCHS
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    known = {name.replace("_", "-") for name in (*GGUF_SUPPORTED_ARCHITECTURES, *GGUF_ARCHS)}
    known |= {name.replace("-", "") for name in known}  # qwen2moe is qwen2_moe there
    assert set(ARCHITECTURES) <= known
    assert set(READ_SCALING) <= set(ARCHITECTURES)


def test_the_header_knows_what_the_reader_of_gguf_knows(tmp_path):
    file, folder = gguf_files.make("gemma3", "Q8_0", tmp_path)
    header, reader = read_header(file), gguf.GGUFReader(file)
    assert header.values == sum(int(one.n_elements) for one in reader.tensors)
    assert header.layers == json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    assert (header.architecture, header.quantised, header.has_tokenizer) == ("gemma3", "Q8_0", True)
