"""Ensembles of reward models that share a trunk, against each member as a model of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models import apart, tiny
from w2s.models import batches, load, losses, members, records, score
from w2s.models.internals import checkpoint_activations
from w2s.models.members import Ensemble
from w2s.models.warm import warm
from w2s.store.records import BadInput, Example

ARCHITECTURES = ["bert", "llama", "gpt2"]
KINDS = [Ensemble("heads", 3), Ensemble("adapters", 3, layers=1, rank=2), Ensemble("adapters", 3, rank=2)]


def plain(folder, **options) -> load.Loaded:
    return tiny.read(folder, kind="pair", **options)


def moved(folder, ensemble: Ensemble, seed: int = 0, **options) -> members.Members:
    """An ensemble whose members have all gone their ways."""
    made = members.join(plain(folder, **options), ensemble, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.own().values():
            parameter.normal_(0, 0.3, generator=generator)
    return made


def batch_of(loaded: load.Loaded, examples=None) -> records.Batch:
    return batches.collate(loaded, members.encode(loaded, tiny.examples() if examples is None else examples))


def finite(scores: torch.Tensor) -> torch.Tensor:
    return scores.masked_fill(scores.isneginf(), 0)


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "gpt_neox", "qwen2", "gemma2"])
@pytest.mark.parametrize("ensemble", KINDS, ids=str)
def test_members_score_as_they_do_as_models_of_their_own(folder_of, architecture, ensemble):
    made = moved(folder_of(architecture), ensemble)
    batch = batch_of(made.loaded)
    with torch.no_grad():
        with_updates_MBK = made(batch)
    with torch.inference_mode():
        merged_MBK = made(batch)
    assert (finite(merged_MBK[0]) - finite(merged_MBK[1])).abs().max() > 0.01
    for at in range(3):
        alone = apart.alone(made, at)
        with torch.no_grad():
            wanted_BK = score.scores(alone, batch)
        scale = max(1.0, float(finite(wanted_BK).abs().max()))
        torch.testing.assert_close(merged_MBK[at], wanted_BK, rtol=0, atol=1e-5 * scale)
        torch.testing.assert_close(with_updates_MBK[at], wanted_BK, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_head_is_the_plain_model_bit_for_bit_with_its_gradient(folder_of, architecture):
    loaded, made = plain(folder_of(architecture)), members.join(plain(folder_of(architecture)), Ensemble("heads", 1))
    batch = batch_of(loaded)
    scores_BK, scores_MBK = score.scores(loaded, batch), made(batch)
    assert torch.equal(scores_MBK[0], scores_BK)
    target_BK = torch.eye(4)[[1, 2, 0]]
    losses.cross_entropy(scores_BK, target_BK).mean().backward()
    members.loss_of(losses.cross_entropy, scores_MBK, target_BK).mean().backward()
    wanted = [p.grad for p in loaded.module.parameters() if p.grad is not None]
    found = [p.grad for p in made.parameters() if p.grad is not None]
    assert len(found) == len(wanted) > 10
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapters_begin_without_effect(folder_of, architecture):
    made = members.join(plain(folder_of(architecture)), Ensemble("adapters", 3), seed=5)
    batch = batch_of(made.loaded)
    with torch.no_grad():
        base_BK = score.scores(made.loaded, batch)
        assert torch.equal(made(batch)[0], base_BK)
        for split in made.splits.values():  # the heads differ from the start
            for member in split.members[1:]:
                member.load_state_dict(split.members[0].state_dict())
        torch.testing.assert_close(made(batch), base_BK.expand(3, -1, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("ensemble", KINDS, ids=str)
def test_members_in_another_order_give_the_scores_in_that_order(folder_of, ensemble):
    made = moved(folder_of("bert"), ensemble)
    batch = batch_of(made.loaded)
    with torch.no_grad():
        before_MBK, order = made(batch), [2, 0, 1]
        for split in made.splits.values():
            states = [{k: v.clone() for k, v in split.members[at].state_dict().items()} for at in order]
            for member, state in zip(split.members, states, strict=True):
                member.load_state_dict(state)
        torch.testing.assert_close(made(batch), before_MBK[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("ensemble", KINDS, ids=str)
def test_a_loss_of_one_member_moves_that_member_alone(folder_of, ensemble):
    made = moved(folder_of("llama"), ensemble)
    finite(made(batch_of(made.loaded))[1]).sum().backward()
    for name, parameter in made.own().items():
        assert (parameter.grad is not None and parameter.grad.abs().max() > 0) == (".members.1." in name), name
    shared = [p for p in made.loaded.module.parameters() if p.grad is not None]
    assert bool(shared) == (ensemble.kind == "heads"), "adapters leave their trunk as it is"


def test_one_examples_scores_depend_on_no_other_row(folder_of):
    made = moved(folder_of("bert"), KINDS[1])
    with torch.no_grad():
        whole_MBK = made(batch_of(made.loaded))
        for at, example in enumerate(tiny.examples()):
            alone_MBK = made(batch_of(made.loaded, [example]))[:, 0]
            torch.testing.assert_close(whole_MBK[:, at, : len(example.choices)], alone_MBK, rtol=1e-4, atol=1e-4)


def test_checkpointed_activations_change_no_gradient(folder_of):
    found = []
    for on in (False, True):
        made = moved(folder_of("llama"), KINDS[2])
        if on:
            checkpoint_activations(made.loaded.module)
            again = members.join(made.loaded, KINDS[2])
            with torch.no_grad():
                for one, other in zip(again.own().values(), made.own().values(), strict=True):
                    one.copy_(other)
            made = again.train()
        made.loaded.module.train()
        (finite(made(batch_of(made.loaded))) * torch.arange(1, 4)[:, None, None]).sum().backward()
        found.append([p.grad for p in made.own().values()])
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(*found, strict=True))


def test_the_diversity_is_the_nuclear_norm_over_the_frobenius_norm_and_grows_when_members_differ(folder_of):
    made = moved(folder_of("bert"), Ensemble("adapters", 3, layers=1, rank=2))
    ratios = []
    for lows in made.stacks():
        stacked = np.concatenate([low.down_IR.detach().numpy().T for low in lows])
        ratios.append(np.linalg.norm(stacked, "nuc") / np.linalg.norm(stacked))
    assert len(ratios) == 6  # the linear layers of a layer of BERT
    assert members.diversity(made).item() == pytest.approx(np.mean(ratios), abs=1e-5)
    found = []
    with torch.no_grad():
        for share in (0.0, 0.1, 0.5, 1.0):
            one = moved(folder_of("bert"), Ensemble("adapters", 3, layers=1, rank=2))
            for lows in one.stacks():
                for low in lows[1:]:
                    low.down_IR.copy_(share * low.down_IR + (1 - share) * lows[0].down_IR)
            found.append(members.diversity(one).item())
        assert found == sorted(found)
        assert found[0] <= 2**0.5 + 1e-5  # equal members: the rank of one
        for lows in one.stacks():
            for at, low in enumerate(lows):
                low.down_IR.copy_(torch.eye(len(low.down_IR))[:, 2 * at : 2 * at + 2])
        assert members.diversity(one).item() == pytest.approx(6**0.5, abs=1e-5)


def test_a_step_up_the_diversity_makes_equal_members_differ(folder_of):
    one = members.join(plain(folder_of("bert")), Ensemble("adapters", 2, layers=1, rank=2))
    before = members.diversity(one)
    before.backward()
    with torch.no_grad():
        for lows in one.stacks():
            for low in lows:
                assert torch.isfinite(low.down_IR.grad).all()
                low.down_IR += 0.01 * low.down_IR.grad
    assert members.diversity(one) > before


def test_rewards_are_keyed_by_place_whatever_the_chunks_and_nan_where_there_is_nothing(folder_of):
    made = moved(folder_of("bert"), KINDS[1])
    written = Example("w", "t", "answer", "What is 2 + 2?", ("4",))
    empty = Example("e", "t", "code", "Write nothing.", ())
    blank = Example("b", "t", "answer", "What is 2 + 2?", ("4", ""))
    examples = [*tiny.examples(), written, empty, blank]
    found = []
    for tokens in (1, 10_000):
        scores_MNK = np.zeros((3, 6, 5))
        for index, part_MNK in members.rewards(made, examples, batch_tokens=tokens, width=5):
            scores_MNK[:, index] = part_MNK
        found.append(scores_MNK)
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    count_N = np.array([len(example.choices) for example in examples])
    assert (np.isfinite(found[0]) == (np.arange(5) < count_N[:, None])).all()
    later = list(members.rewards(made, examples, batch_tokens=1, width=5, skip=4))
    assert [index.tolist() for index, _ in later] == [
        index.tolist() for index, _ in members.rewards(made, examples, batch_tokens=1)
    ][4:]


def test_a_score_that_is_not_finite_is_nan(folder_of):
    made = moved(folder_of("bert"), KINDS[0])
    with torch.no_grad():
        made.splits["classifier"].members[1].bias.fill_(torch.inf)
    ((_, scores_MNK),) = members.rewards(made, tiny.examples()[:1])
    assert np.isnan(scores_MNK[1]).all()
    assert np.isfinite(scores_MNK[[0, 2]]).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("ensemble", KINDS, ids=str)
def test_a_saved_ensemble_comes_back_by_its_folder_alone(folder_of, tmp_path, architecture, ensemble):
    made = moved(folder_of(architecture), ensemble)
    members.save(made, tmp_path)
    again = members.open_members(tmp_path)
    assert again.ensemble == ensemble
    batch = batch_of(made.loaded)
    with torch.inference_mode():
        assert torch.equal(again(batch), made(batch))
    with pytest.raises(BadInput, match="not a saved model"):
        load.load_folder(tmp_path)


def test_heads_on_a_trunk_with_adapters_are_saved_with_these_merged(folder_of, tmp_path):
    made = moved(folder_of("llama"), KINDS[0], trainable="lora")
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    members.save(made, tmp_path)
    batch = batch_of(made.loaded)
    with torch.inference_mode():
        torch.testing.assert_close(members.open_members(tmp_path)(batch), made(batch), rtol=1e-4, atol=1e-4)


def test_a_plain_model_opens_as_an_ensemble_of_one_and_so_does_a_member(folder_of, tmp_path):
    made = moved(folder_of("bert"), KINDS[1])
    batch = batch_of(made.loaded)
    load.save(apart.alone(made, 2), tmp_path)
    with torch.inference_mode():
        found_MBK = members.open_members(tmp_path)(batch)
        assert len(found_MBK) == 1
        torch.testing.assert_close(found_MBK[0], made(batch)[2], rtol=0, atol=1e-5)


def test_what_is_no_ensemble_is_one_line(folder_of, tmp_path):
    with pytest.raises(BadInput, match=r"model\.kind: 'lm' given; allowed: pair"):
        members.join(tiny.read(folder_of("llama")), Ensemble())
    with pytest.raises(BadInput, match="layers: 3 given; allowed: 1 to 2"):
        members.join(plain(folder_of("bert")), Ensemble("adapters", 2, layers=3))
    with pytest.raises(BadInput, match="members: 0 given; allowed: at least 1"):
        Ensemble("heads", 0)
    members.save(moved(folder_of("bert"), KINDS[1]), tmp_path)
    file = tmp_path / members.FILE
    whole = file.read_bytes()
    load.save_file({"x": torch.zeros(2)}, file)
    with pytest.raises(BadInput, match=r"members\.safetensors: .*: does not fit the model beside it"):
        members.open_members(tmp_path)
    file.write_bytes(whole[:100])
    with pytest.raises(BadInput, match=r"members\.safetensors: not readable"):
        members.open_members(tmp_path)


def test_an_architecture_whose_head_looks_at_the_mask_cannot_have_adapters_and_says_so(tmp_path):
    import transformers

    config = transformers.ModernBertConfig(
        **tiny.SMALL, intermediate_size=48, classifier_pooling="mean", pad_token_id=0, cls_token_id=1, sep_token_id=2
    )
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    tiny.tokenizer(pairs=True).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="kind: 'adapters': a modernbert model cannot share its layers"):
        members.join(plain(tmp_path), Ensemble("adapters", 2))
    assert members.join(plain(tmp_path), Ensemble("heads", 2)).ensemble.members == 2


def saved(folder_of, folder, seed: int, architecture: str = "bert", **options):
    """A plain reward model, all of whose weights depend on the seed."""
    loaded = plain(folder_of(architecture), **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    load.save(loaded, folder)
    return folder


def weights(folder):
    return load.load_folder(folder).module.state_dict()


def test_warm_of_one_model_and_of_equal_ones_is_that_model_bit_for_bit(folder_of, tmp_path):
    one = saved(folder_of, tmp_path / "one", 1)
    for count in (1, 2, 3):
        warm([one] * count, tmp_path / "out")
        found, wanted = weights(tmp_path / "out"), weights(one)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_warm_is_the_mean_of_the_weights_in_any_order(folder_of, tmp_path):
    folders = [saved(folder_of, tmp_path / str(seed), seed) for seed in range(3)]
    warm(folders, tmp_path / "out")
    warm(folders[::-1], tmp_path / "turned")
    found, turned, apart = weights(tmp_path / "out"), weights(tmp_path / "turned"), [weights(one) for one in folders]
    for name in found:
        wanted = torch.stack([one[name] for one in apart]).double().mean(0)
        torch.testing.assert_close(found[name].double(), wanted, rtol=0, atol=1e-7)
        torch.testing.assert_close(found[name], turned[name], rtol=0, atol=1e-7)


def test_models_that_share_no_start_are_not_averaged(folder_of, tmp_path):
    one = saved(folder_of, tmp_path / "one", 1)
    shorter = saved(folder_of, tmp_path / "shorter", 1, layers=1)
    other = saved(folder_of, tmp_path / "other", 1, "llama")
    for folder, what in ((shorter, "shape"), (other, "base")):
        with pytest.raises(BadInput, match=f"models: .* differs in {what} from"):
            warm([one, folder], tmp_path / "out")
    retold = saved(folder_of, tmp_path / "retold", 1)
    tiny.tokenizer().save_pretrained(retold)
    words = retold / "tokenizer.json"
    words.write_text(words.read_text().replace('"add_prefix_space": false', '"add_prefix_space": true'))
    with pytest.raises(BadInput, match="differs in tokenizer from"):
        warm([one, retold], tmp_path / "out")
    with pytest.raises(BadInput, match="models: none given"):
        warm([], tmp_path / "out")


def test_every_loss_of_the_register_is_each_members_own(folder_of):
    made = moved(folder_of("bert"), KINDS[0])
    with torch.no_grad():
        scores_MBK = made(batch_of(made.loaded))
    target_BK = torch.eye(4)[[0, 1, 1]]
    for loss in losses.LOSSES.values():
        found_MB = members.loss_of(loss, scores_MBK, target_BK, 0.5)
        for at in range(3):
            torch.testing.assert_close(found_MB[at], loss(scores_MBK[at], target_BK, 0.5))
