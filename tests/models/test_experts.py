"""Dense models as the experts of one: what must come out the same, and what is refused."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from tests.models import tiny
from w2s.models import batches, experts, internals, load, routing, score, sparse
from w2s.models.experts import Sizes
from w2s.store.records import BadInput, Example

DENSE = ("llama", "mistral", "qwen3")
TOKENS = torch.arange(3, 27).reshape(2, 12) * 7 % 300
NUMBERS = {"rms_norm_eps": 3e-4, "rope_parameters": {"rope_type": "default", "rope_theta": 321.0}}


@pytest.fixture(scope="module")
def dense_of(tmp_path_factory):
    """architecture -> the folder of a tiny model whose numbers are nobody's defaults."""
    made = {}

    def folder(architecture: str) -> str:
        if architecture not in made:
            path = tiny.write(architecture, tmp_path_factory.mktemp(architecture))
            config = json.loads((path / "config.json").read_text())
            (path / "config.json").write_text(json.dumps(config | NUMBERS))
            made[architecture] = str(path)
        return made[architecture]

    return folder


@pytest.fixture(scope="module")
def learners(dense_of, tmp_path_factory) -> list[str]:
    """Three Llamas of one start that differ in every MLP, but not in the rest."""
    return [change(dense_of("llama"), tmp_path_factory.mktemp("learner") / "model", seed, ".mlp.") for seed in range(3)]


def change(source: str, folder: Path, seed: int, part: str) -> str:
    """A copy of the model with noise in the weights whose names contain `part`."""
    shutil.copytree(source, folder)
    draw = torch.Generator().manual_seed(seed)
    tensors = load_file(folder / "model.safetensors")
    for name, value in tensors.items():
        if part in name:
            tensors[name] = value + 0.1 * torch.randn(value.shape, generator=draw)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def logits(module: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return module.eval()(TOKENS).logits


def dense(folder: str) -> torch.Tensor:
    return logits(experts.open_dense(folder).module)


@pytest.mark.parametrize("architecture", DENSE)
@pytest.mark.parametrize(("count", "active"), [(4, 2), (4, 1), (3, 3), (1, 1)])
def test_copies_with_a_router_of_zeros_give_the_dense_models_logits(dense_of, architecture, count, active):
    folder = dense_of(architecture)
    mixture = experts.assemble([folder] * count, [1.0] * count, Sizes(count, active, 0.01)).module
    if count == 3:  # a gate of a third is rounded
        torch.testing.assert_close(logits(mixture), dense(folder), rtol=0, atol=1e-5)
    else:
        assert torch.equal(logits(mixture), dense(folder))


@pytest.mark.parametrize("architecture", DENSE)
def test_copies_with_any_router_give_the_dense_models_logits_but_for_rounding(dense_of, architecture):
    folder = dense_of(architecture)
    mixture = experts.assemble([folder] * 4, [1, 2, 3, 4], Sizes(4, 2, 0.01)).module
    experts.scatter(mixture, 0, 1.0)
    torch.testing.assert_close(logits(mixture), dense(folder), rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", DENSE)
def test_a_saved_mixture_is_a_folder_like_any_other_and_reads_back_bit_for_bit(dense_of, architecture, tmp_path):
    loaded = experts.assemble([dense_of(architecture)] * 4, [1.0] * 4, Sizes(4, 2, 0.02))
    experts.scatter(loaded.module, 0, 1.0)
    experts.save(loaded, tmp_path / "moe", dense_of(architecture))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "moe")
    assert torch.equal(logits(again), logits(loaded.module))
    assert type(again).__name__ == {"qwen3": "Qwen3MoeForCausalLM"}.get(architecture, "MixtralForCausalLM")
    assert not (tmp_path / "moe" / "w2s.json").exists()
    ours = tiny.read(tmp_path / "moe")
    assert ours.head_alone
    assert ours.shares_prompt
    assert ours.module.config.router_aux_loss_coef == 0.02


@pytest.mark.parametrize("architecture", DENSE)
def test_what_the_outputs_depend_on_is_copied_from_the_dense_configuration(dense_of, architecture):
    source = transformers.AutoConfig.from_pretrained(dense_of(architecture))
    made = experts.configure(source, Sizes(4, 2, 0.01), "it")
    for name in ("rms_norm_eps", "rope_parameters", "hidden_act", "tie_word_embeddings", "vocab_size", "hidden_size"):
        assert getattr(made, name) == getattr(source, name), name
    assert made.head_dim == experts.head_dim(source)
    assert made.sliding_window is None
    assert architecture != "qwen3" or made.norm_topk_prob


def test_notes_of_a_learner_come_with_the_mixture(learners, tmp_path):
    loaded = tiny.read(Path(learners[0]), prompt={"name": "qa"})
    load.save(loaded, tmp_path / "own")
    mixture = experts.assemble([str(tmp_path / "own")] * 2, [1, 1], Sizes(2, 1, 0.01))
    experts.save(mixture, tmp_path / "moe", str(tmp_path / "own"))
    assert load.load_folder(tmp_path / "moe").model.prompt == {"name": "qa"}


# --- distinct experts ------------------------------------------------------------------------------------------------


def test_with_one_active_expert_and_a_router_that_wants_it_the_mixture_is_that_learner(learners):
    mixture = experts.assemble(learners, [1, 1, 1], Sizes(3, 1, 0.01)).module
    for wanted, folder in enumerate(learners):
        with wanting(mixture, wanted):
            torch.testing.assert_close(logits(mixture), dense(folder), rtol=0, atol=1e-5)


@contextlib.contextmanager
def wanting(module: torch.nn.Module, wanted: int):
    """Meanwhile one expert's row of every router is large, whatever the sign of its input."""

    def push(router, inputs, _):
        large = torch.zeros(inputs[0].shape[0], router.num_experts)
        large[:, wanted] = 1e4
        return large, torch.ones(len(large), 1), large.argmax(1, keepdim=True)

    hooks = [router.register_forward_hook(push) for router in internals.routers(module)]
    yield
    for hook in hooks:
        hook.remove()


def test_a_large_row_of_the_router_itself_picks_its_expert_where_the_input_points_along_it(learners):
    mixture = experts.assemble(learners, [1, 1, 1], Sizes(3, 1, 0.01)).module
    router = internals.routers(mixture)[0]
    with routing.watch([router]) as seen:
        logits(mixture)
    input_SD = seen[0][0]
    router.weight.data[2] = 100 * input_SD[0]
    with torch.inference_mode():
        assert router(input_SD[:1])[2].tolist() == [[2]]


def test_with_all_experts_active_and_a_router_of_zeros_the_ffn_is_their_mean(learners):
    mixture = experts.assemble(learners, [1, 1, 1], Sizes(3, 3, 0.01)).module
    blocks = [experts.open_dense(folder).module.model.layers[0].mlp for folder in learners]
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    wanted = torch.stack([block(x) for block in blocks]).mean(0)
    torch.testing.assert_close(mixture.model.layers[0].mlp(x), wanted, rtol=1e-5, atol=1e-5)


def test_experts_and_their_router_rows_can_be_permuted_together(learners):
    order = [2, 0, 1]
    one = experts.assemble(learners, [1, 1, 1], Sizes(3, 2, 0.01)).module
    other = experts.assemble([learners[at] for at in order], [1, 1, 1], Sizes(3, 2, 0.01)).module
    experts.scatter(one, 0, 1.0)
    for ours, theirs in zip(internals.routers(other), internals.routers(one), strict=True):
        ours.weight.data.copy_(theirs.weight[order])
    torch.testing.assert_close(logits(other), logits(one), rtol=0, atol=1e-5)


def test_the_rest_is_the_weighted_mean_or_the_bases(dense_of, tmp_path):
    base = dense_of("llama")
    moved = [change(base, tmp_path / str(seed), seed, "self_attn") for seed in range(2)]
    name = "model.layers.1.self_attn.v_proj.weight"
    read = [experts.open_dense(folder).module.state_dict()[name] for folder in (*moved, base)]
    mean = experts.assemble(moved, [3, 1], Sizes(2, 1, 0.01)).module.state_dict()[name]
    torch.testing.assert_close(mean, 0.75 * read[0] + 0.25 * read[1])
    kept = experts.assemble(moved, [3, 1], Sizes(2, 1, 0.01), base=base).module.state_dict()
    assert torch.equal(kept[name], read[2])
    assert torch.equal(kept["model.layers.0.mlp.experts.down_proj"][0], kept["model.layers.0.mlp.experts.down_proj"][1])


# --- routers ---------------------------------------------------------------------------------------------------------


def test_a_routers_row_is_the_unit_mean_of_what_it_sees_whatever_the_padding(learners):
    examples = tiny.examples()
    weight_EN = np.array([[1.0, 0, 0], [0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    loaded = experts.assemble(learners, [1, 1, 1], Sizes(3, 1, 0.01))
    largest = experts.direct(loaded, examples, weight_EN)
    rows = internals.routers(loaded.module)[0].weight.detach().clone()
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    # By hand: in the first layer the router's input does not depend on routers.
    first = loaded.module.model.layers[0]
    seen = []
    hook = first.post_attention_layernorm.register_forward_hook(lambda _, __, out: seen.append(out))
    means = []
    for example in examples:
        seen.clear()
        with torch.inference_mode():
            score.scores(loaded, batches.collate(loaded, batches.encode(loaded, [example])))
        means.append(seen[0][0].mean(0))
    hook.remove()
    wanted = torch.from_numpy(weight_EN).float() @ torch.stack(means)
    torch.testing.assert_close(rows, torch.nn.functional.normalize(wanted, dim=1), rtol=1e-4, atol=1e-5)
    assert largest == pytest.approx(max(experts.condition(r.weight) for r in internals.routers(loaded.module)))
    assert experts.condition(torch.tensor([[1.0, 0], [0, 1]])) == pytest.approx(1)
    assert experts.condition(torch.tensor([[1.0, 1], [1, 1]])) == float("inf")


def test_prompts_without_candidates_turn_routers_too(learners):
    loaded = experts.assemble(learners[:2], [1, 1], Sizes(2, 1, 0.01))
    rows = [Example(f"r{n}", "t", "answer", text, ()) for n, text in enumerate(("The moon turns.", "Which gas?"))]
    assert experts.direct(loaded, rows, np.eye(2)) >= 1
    assert all(router.top_k == 1 and router.weight.abs().sum() > 0 for router in internals.routers(loaded.module))


# --- load ------------------------------------------------------------------------------------------------------------


def test_the_balance_of_one_example_is_transformers_loss_layer_by_layer(learners):
    loaded = experts.assemble(learners, [1, 1, 1], Sizes(3, 2, 0.01))
    experts.scatter(loaded.module, 0, 1.0)
    encoded = batches.encode(loaded, tiny.examples())
    routers, wanted = internals.routers(loaded.module), []
    for one in encoded:
        batch = batches.collate(loaded, [one])
        with routing.watch(routers) as seen:
            score.scores(loaded, batch)
        wanted.append(np.mean([load_balancing_loss_func((logits_SE.detach(),), 3, 2).item() for _, logits_SE in seen]))
    batch = batches.collate(loaded, encoded)  # now with padding
    with routing.watch(routers) as seen:
        score.scores(loaded, batch)
    found_B = routing.balance([logits_SE for _, logits_SE in seen], batch, 2)
    assert found_B.tolist() == pytest.approx(wanted, abs=1e-5)


def test_training_has_the_balance_loss_and_prediction_has_none(learners):
    loaded = experts.assemble(learners, [1, 1, 1], Sizes(3, 2, 0.25))
    experts.scatter(loaded.module, 0, 1.0)
    scorer = score.Scorer(loaded)
    batch = batches.collate(loaded, batches.encode(loaded, tiny.examples()))
    scorer.train()
    trained = scorer(batch)
    # With a quarter of it, about a quarter of 2, the value of two active experts at balance.
    assert scorer.balance_B.shape == (3,)
    assert 0.5 <= scorer.balance_B.mean().item() < 1.5
    scorer.balance_B.sum().backward()
    assert all(router.weight.grad.abs().sum() > 0 for router in internals.routers(loaded.module))
    scorer.eval()
    assert torch.equal(scorer(batch), trained)
    assert scorer.balance_B is None


def test_load_is_measured_over_real_tokens_and_starved_experts_are_counted(learners):
    loaded = experts.assemble(learners, [1, 1, 1], Sizes(3, 1, 0.01))
    encoded = batches.encode(loaded, tiny.examples())
    told = experts.measure(loaded, encoded)  # zeros: a tie, which always goes to the same expert
    assert sorted(told["load"]) == [0, 0, 1]
    assert (told["starved"], told["least"], told["load_entropy"]) == (4, 0, 0)
    assert told["router_entropy"] == pytest.approx(1)
    experts.scatter(loaded.module, 1, 1e-3)
    told = experts.measure(loaded, encoded)
    assert sum(told["load"]) == pytest.approx(1, abs=1e-3)
    assert told["load_entropy"] > 0.5
    assert experts.measure(experts.open_dense(learners[0]), encoded) == {}


def test_parameters_are_counted_whole_active_and_dense(learners):
    plain = sum(parameter.numel() for parameter in experts.open_dense(learners[0]).module.parameters())
    mlp, router, layers = 3 * 32 * 48, 3 * 32, 2
    told = experts.count_parameters(experts.assemble(learners, [1, 1, 1], Sizes(3, 2, 0.01)).module)
    assert told["dense_parameters"] == plain
    assert told["active_parameters"] == plain + layers * (mlp + router)
    assert told["parameters"] == plain + layers * (2 * mlp + router)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "gemma3_text"}, "a gemma3_text model cannot become experts; allowed: llama (becomes mixtral)"),
        ({"model_type": "qwen2"}, "a qwen2 model cannot become experts"),
        ({"model_type": "llama", "attention_bias": True}, "attention_bias is true, which a mixtral model cannot have"),
        ({"model_type": "llama", "mlp_bias": True}, "mlp_bias is true"),
        ({"model_type": "qwen3", "use_sliding_window": True}, "use_sliding_window is true"),
    ],
)
def test_models_that_no_sparse_architecture_can_hold_are_refused_by_name(config, told):
    assert told in sparse.find_fault(config)


def test_models_of_different_shapes_or_settings_are_refused_by_what_differs(dense_of, learners, tmp_path):
    with pytest.raises(BadInput, match=r"differs from .* in architecture; allowed: models of one base"):
        experts.assemble([learners[0], dense_of("mistral")], [1, 1], Sizes(2, 1, 0.01))
    other = tmp_path / "other"
    shutil.copytree(learners[0], other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    with pytest.raises(BadInput, match="in rms_norm_eps"):
        experts.assemble([learners[0], str(other)], [1, 1], Sizes(2, 1, 0.01))


def test_lora_needs_names_of_layers_as_it_cannot_reach_experts(learners, tmp_path):
    experts.save(experts.assemble(learners, [1, 1, 1], Sizes(3, 2, 0.01)), tmp_path / "moe", learners[0])
    with pytest.raises(BadInput, match="lora_targets: null given for a mixture of experts; allowed: some of q_proj"):
        tiny.read(tmp_path / "moe", trainable="lora")
    named = tiny.read(tmp_path / "moe", trainable="lora", lora_targets=["q_proj"])
    assert all("q_proj" in name for name, p in named.module.named_parameters() if p.requires_grad)


@pytest.mark.slow
def test_smollm2_from_its_gguf_as_four_experts_is_itself_bit_for_bit(real_models, tmp_path):
    from w2s.workers.dequantise import write_folder

    write_folder(real_models / "HuggingFaceTB" / "SmolLM2-135M-Instruct.gguf", tmp_path / "dense")
    source = str(tmp_path / "dense")
    mixture = experts.assemble([source] * 4, [1.0] * 4, Sizes(4, 2, 0.01))
    assert torch.equal(logits(mixture.module), dense(source))
    assert experts.count_parameters(mixture.module)["dense_parameters"] == 134_515_008
    experts.scatter(mixture.module, 0, 1.0)
    torch.testing.assert_close(logits(mixture.module), dense(source), rtol=0, atol=2e-3)
