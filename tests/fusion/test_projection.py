"""Distributions moved to another vocabulary, on tokenizers made here and on the two real ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.models import tiny
from w2s.data import sources
from w2s.fusion import projection, targets
from w2s.store.records import BadInput

TEXTS = ["the moon pulls the sea", "Ärger über Öl", "naïve 日本語 text", "a  b\n\tc", "emoji 🙂 done"]


def byte_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token for each byte, as byte-level vocabularies spell them."""
    letters = {letter: at + 1 for letter, at in projection.byte_alphabet().items()}
    made = Tokenizer(models.BPE(vocab={"<end>": 0} | letters, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def piece_tokenizer(pieces=("▁the", "▁m", "oon", "▁", "ä")) -> transformers.PreTrainedTokenizerFast:
    """A SentencePiece vocabulary with bytes to fall back on."""
    vocab = {"<unk>": 0, "<s>": 1} | {f"<0x{byte:02X}>": 2 + byte for byte in range(256)}
    for piece in [*pieces, *"themonpulsa"]:
        vocab.setdefault(piece, len(vocab))
    made = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize("make", [byte_tokenizer, tiny.tokenizer, piece_tokenizer])
@pytest.mark.parametrize("text", TEXTS)
def test_the_bytes_of_a_texts_tokens_are_the_bytes_of_the_text(make, text):
    tokenizer = make()
    spelled = projection.spell(tokenizer)
    found = b"".join(spelled[at] for at in tokenizer(text, add_special_tokens=False)["input_ids"])
    assert found == text.encode()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_the_same_holds_for_any_text_of_a_byte_level_vocabulary(text):
    spelled = projection.spell(BPE)
    assert b"".join(spelled[at] for at in BPE(text, add_special_tokens=False)["input_ids"]) == text.encode(
        "utf-8", "replace"
    )


BPE = tiny.tokenizer()


@pytest.mark.parametrize("make", [byte_tokenizer, tiny.tokenizer, piece_tokenizer])
def test_the_same_vocabulary_is_the_identity_bit_for_bit(make):
    tokenizer = make()
    map_T = projection.project(tokenizer, make())
    probs = np.random.default_rng(0).dirichlet(np.ones(len(tokenizer)), 3).astype(np.float32)
    np.testing.assert_array_equal(projection.move(probs, map_T, len(tokenizer)), probs)


def test_a_byte_student_hears_the_first_byte_of_each_token_by_hand():
    teacher, student = tiny.tokenizer(), byte_tokenizer()
    map_T = projection.project(teacher, student, (teacher.eos_token_id, student.eos_token_id))
    probs_T = np.random.default_rng(1).dirichlet(np.ones(len(teacher)))
    spelled, ids = projection.spell(teacher), student.get_vocab()
    found = projection.move(probs_T[None], map_T, len(student))[0]
    for letter, byte in projection.byte_alphabet().items():
        wanted = sum(probs_T[at] for at, text in enumerate(spelled) if text is not None and text[0] == byte)
        assert found[ids[letter]] == pytest.approx(wanted)
    assert found[student.eos_token_id] == pytest.approx(probs_T[teacher.eos_token_id])
    lost = sum(probs_T[at] for at, text in enumerate(spelled) if text is None and at != teacher.eos_token_id)
    assert found.sum() == pytest.approx(1 - lost)


def test_a_longer_token_goes_to_the_longest_beginning_that_the_student_has():
    teacher, student = tiny.tokenizer(), piece_tokenizer()
    map_T, spelled = projection.project(teacher, student), projection.spell(student)
    for at, text in enumerate(projection.spell(teacher)):
        if text is not None:
            found = spelled[map_T[at]]
            assert text.startswith(found)
            assert not any(other and text.startswith(other) and len(other) > len(found) for other in spelled)
    moon = student.convert_tokens_to_ids("▁m")
    assert any(
        map_T[at] == moon for at, text in enumerate(projection.spell(teacher)) if text and text.startswith(b" m")
    )


def test_whole_words_go_to_pieces_and_pieces_to_no_word():
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "moons": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")
    pieces = piece_tokenizer()
    map_T = projection.project(words, pieces)
    assert pieces.convert_ids_to_tokens(map_T[1:].tolist()) == ["▁the", "▁m"]
    with pytest.raises(BadInput, match="whole words"):
        projection.project(pieces, words)
    other = Tokenizer(models.WordLevel({"[UNK]": 0, "moon": 1, "the": 2}, unk_token="[UNK]"))
    other.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    other = transformers.PreTrainedTokenizerFast(tokenizer_object=other, unk_token="[UNK]")
    assert projection.project(words, other).tolist() == [-1, 2, -1]  # "moon" is another word than "moons"


def test_places_are_shared_where_both_start():
    found = targets.shared_places(np.array([0, 4, 4, 9, 12]), np.array([0, 2, 4, 9, 9, 12]))
    assert found.tolist() == [0, -1, 1, 3, -1, 4]


def test_mixtures_keep_their_mass_and_do_not_mind_the_order():
    rng = np.random.default_rng(0)
    parts = [0.9 * rng.dirichlet(np.ones(7), 4), rng.dirichlet(np.ones(7), 4)]
    share = np.array([0.3, 0.7])
    for mixture in ("linear", "log_linear"):
        found = targets.mix(parts, share, mixture=mixture)
        np.testing.assert_allclose(found.sum(1), 0.3 * 0.9 + 0.7)
        np.testing.assert_allclose(targets.mix(parts[::-1], share[::-1], mixture=mixture), found)
        np.testing.assert_allclose(targets.mix([parts[1]] * 2, share, mixture=mixture), parts[1])
    token_BJ, prob_BJ = targets.keep_most(parts[1], 3)
    np.testing.assert_allclose(prob_BJ, np.sort(parts[1], 1)[:, ::-1][:, :3])
    np.testing.assert_allclose(np.take_along_axis(parts[1], token_BJ, 1), prob_BJ)


def test_combinations_weigh_teachers_by_alpha_or_by_how_well_they_know_the_text():
    weight, nats = np.array([3.0, 1.0]), np.array([0.6, 0.5])
    assert targets.alphas(weight, nats).tolist() == [0.75, 0.25]
    assert targets.mince(weight, nats).tolist() == [0, 1]
    np.testing.assert_allclose(targets.avgce(weight, nats), np.exp([-0.6, -0.5]) / np.exp([-0.6, -0.5]).sum())


def read_texts(root: Path, per_source: int = 6, size: int = 420) -> list[str]:
    """Texts of up to 420 characters: textbooks, word problems and questions of science."""
    book = gzip.decompress(min((root / "openstax_text").glob("*.txt.gz")).read_bytes()).decode()
    starts = range(20_000, 20_000 + 3000 * per_source, 3000)
    found = [" ".join(book[at : at + 2 * size].split())[:size] for at in starts]
    for source, options in ((sources.gsm8k, {}), (sources.arc_easy, {}), (sources.mbpp, {})):
        texts = [row.prompt[:size] for row in source(root, **options)[0] if len(row.prompt) > 150]
        found += texts[:per_source]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_on_two_real_models_the_projected_teacher_knows_the_text_as_well_as_the_teacher(shared, real_models, tmp_path):
    """Any error of one place, or a match of whole strings, shows in the projected teacher's own cross-entropy."""
    import torch

    from w2s.workers import dequantise

    sides = {}
    for name in ("HuggingFaceTB/SmolLM2-135M-Instruct", "google/gemma-3-270m"):
        folder = tmp_path / name.replace("/", "-")
        dequantise.write_folder(real_models / f"{name}.gguf", folder)
        sides[name.split("/")[0]] = (
            transformers.AutoModelForCausalLM.from_pretrained(folder),
            transformers.AutoTokenizer.from_pretrained(folder),
        )
    (student_model, student), (teacher_model, teacher) = sides["HuggingFaceTB"], sides["google"]
    map_T, spelled = projection.project(teacher, student), projection.spell(student)
    names, ids = teacher.convert_ids_to_tokens(range(len(map_T))), student.get_vocab()
    exact_T = np.array([ids.get(name, -1) for name in names])
    nats = {"projected": [], "strings": [], "shifted": [], "student": [], "both": []}
    kept, places = [], 0
    for text in read_texts(shared / "data"):
        rows, starts = {}, {}
        for side, (model, tokenizer) in (("s", (student_model, student)), ("t", (teacher_model, teacher))):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            pieces = projection.spell(tokenizer)
            starts[side] = np.cumsum([0, *(len(pieces[at]) for at in ids)])[:-1]
            first = [tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id]
            with torch.inference_mode():
                rows[side] = model(torch.tensor([[*first, *ids]])).logits[0, :-1].softmax(-1).double().numpy()
            if side == "s":
                own = np.array(ids)
        at_S = targets.shared_places(starts["t"], starts["s"])
        places += len(at_S)
        both = np.flatnonzero(at_S >= 0)
        q = projection.move(rows["t"][at_S[both]], map_T, len(spelled))
        kept += q.sum(1).tolist()
        strings = projection.move(rows["t"][at_S[both]], exact_T, len(spelled))
        late = projection.move(rows["t"][np.minimum(at_S[both] + 1, len(rows["t"]) - 1)], map_T, len(spelled))
        plain = rows["s"][both][:, : len(spelled)]

        def cross_entropy(probs, chosen=own[both]):
            probs = probs / probs.sum(1, keepdims=True)
            return (-np.log(0.999 * probs[np.arange(len(chosen)), chosen] + 0.001 / probs.shape[1])).tolist()

        for name, probs in (("projected", q), ("strings", strings), ("shifted", late), ("student", plain)):
            nats[name] += cross_entropy(probs)
        nats["both"] += cross_entropy((plain + q) / 2)
    found = {name: float(np.mean(values)) for name, values in nats.items()}
    print({**found, "kept": np.mean(kept), "shared": len(kept) / places})
    assert np.mean(kept) > 0.999
    assert len(kept) / places > 0.95
    assert found["strings"] > 3 * found["projected"]
    assert found["shifted"] > 3 * found["projected"]
    assert found["both"] < min(found["projected"], found["student"])
