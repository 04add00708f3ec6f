"""The twelve rules of DESIGN, section 9, one test each.

What a rule needs in full is tested in its own room's tests; here each is held to where its bug would show.
"""

import dataclasses
import json

import numpy as np
import pytest
import torch

from tests import spine
from tests.models import tiny
from w2s.config.fields import Data, Sizes
from w2s.config.load import load
from w2s.config.registry import fits, pick
from w2s.data.splits import split
from w2s.evaluation.run.metrics import measure
from w2s.grading.judge import grade
from w2s.models import losses
from w2s.models.train import World, fit
from w2s.store.artifacts import Stage, Store
from w2s.store.records import BadInput, Example, Gold, Predictions, align, example_id
from w2s.story.main import build


def example(prompt: str, **meta) -> tuple[Example, Gold]:
    key = example_id("s", prompt, ("a", "b"))
    return Example(key, "s", "choice", prompt, ("a", "b"), meta), Gold(key, 0)


def test_rule_1_a_finished_stage_is_read_never_rebuilt(tmp_path):
    made = []
    stage = Stage("s", "s", {}, {}, lambda here, inputs: made.append(here.name))
    for _ in range(3):
        Store(tmp_path).make(stage)
    assert made == [f"{stage.folder_name}.partial"]  # bit for bit after a kill: tests/test_kill.py


def test_rule_2_done_is_written_after_the_work_in_one_step(tmp_path):
    seen = []

    def work(here, inputs):
        (here / "a").write_text("a")
        seen.append((here.name.endswith(".partial"), Store(tmp_path).done(stage), (here / "manifest.json").exists()))
        raise KeyboardInterrupt

    stage = Stage("s", "s", {}, {}, work)
    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).make(stage)
    assert seen == [(True, False, False)]
    assert not Store(tmp_path).done(stage)


def test_rule_3_a_key_forgets_nothing_that_matters(tiny_config):
    """Field by field: tests/test_pipeline.py. Here: every option of every stage is in what its key is made of."""
    for stage in build(load(tiny_config), None):
        options = {key: value for key, value in stage.work.keywords.items() if key != "tools"}
        assert json.loads(json.dumps(options, default=dataclasses.asdict)) == stage.section, stage.title


def test_rule_4_nothing_is_joined_by_position():
    probs_NK = np.array([[0.9, 0.1], [0.2, 0.8]])
    one = Predictions(np.array(["a", "b"]), probs_NK, np.ones((2, 2), bool), np.zeros(2, bool), "m")
    assert np.array_equal(align(one, np.array(["b", "a"])).probs_NK, probs_NK[::-1])
    with pytest.raises(ValueError, match="1 ids are missing"):
        align(one, np.array(["a", "c"]))


def test_rule_5_a_loss_warm_up_ramps_from_0_to_1_and_stays_there():
    assert [losses.ramp(share, 0.2) for share in (0.0, 0.1, 0.2, 1.0)] == [0, 0.5, 1, 1]
    scores_BK, target_BK = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.3, 0.7]])
    confident = pick(losses.LOSSES, {"name": "confidence", "strength": 1.0, "warmup_share": 0.5})
    plain = losses.cross_entropy(scores_BK, target_BK)
    own = losses.cross_entropy(scores_BK, torch.tensor([[1.0, 0.0]]))
    assert torch.equal(confident(scores_BK, target_BK, 0.0), plain)
    for share in (0.5, 1.0):
        assert torch.allclose(confident(scores_BK, target_BK, share), own)


def test_rule_6_the_last_real_token_is_found_from_the_mask(tmp_path):
    """A text of token 0 alone scores the same with padding behind it as without."""
    loaded = tiny.read(tiny.write("gpt2", tmp_path / "m"))
    word = loaded.tokenizer.decode([0])
    assert loaded.tokenizer(word)["input_ids"] == [0] == [loaded.pad_id]
    short, long = (Example(str(n), "s", "choice", word * n, (word, word * 2)) for n in (1, 9))
    from w2s.models.score import predict

    alone = next(predict(loaded, [short], by="m"))
    beside = list(predict(loaded, [long, short], by="m"))
    found = {key: row for part in beside for key, row in zip(part.ids.tolist(), part.probs_NK, strict=True)}
    assert np.allclose(found["1"], alone.probs_NK[0], atol=1e-6)


def test_rule_7_weighted_loss_divides_by_the_whole_steps_count(tmp_path):
    """Batch 8x1 and 1x8 give the same weights after a step; two ranks: tests/workers/test_ranks.py."""
    from w2s.config.fields import Runtime, Train

    found = []
    for micro in (8, 1):
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 1)
        data_N3, weight_N = torch.arange(24.0).reshape(8, 3) / 10, np.array([0, 1, 2, 3, 0.5, 1, 1, 4.0])
        here = tmp_path / str(micro)
        here.mkdir()
        _, weights = fit(
            module, [np.arange(8)], lambda call, rows, share, x=data_N3: call(x[rows])[:, 0] ** 2,
            Train(steps=1, batch=8, lr=0.1), Runtime(micro_batch=micro), folder=here, weight_N=weight_N,
            world=World(0, 1, torch.device("cpu")),
        )  # fmt: skip
        found.append({name: value.clone() for name, value in weights.items()})
    for name, value in found[0].items():
        assert torch.allclose(value, found[1][name], atol=1e-6), name


def test_rule_8_booleans_on_the_command_line_are_parsed_as_booleans(tiny_config):
    assert load(tiny_config, ["label.soft=false"]).label.soft is False
    assert load(tiny_config, ["label.soft=true"]).label.soft is True
    with pytest.raises(BadInput, match="allowed: true or false"):
        load(tiny_config, ["label.soft='false'"])
    assert not fits("False", bool)


def test_rule_9_rows_that_were_asked_for_and_not_found_are_an_error():
    rows = [example(f"easy {n}", level=0) for n in range(9)] + [example(f"hard {n}", level=1) for n in range(8)]
    examples, gold = map(list, zip(*rows, strict=True))
    level_N = np.array([one.meta["level"] for one in examples], float)
    asked = {"easy_max": 0, "hard_min": 1, "near": None, "sizes": Sizes(transfer=20, hard_test=3)}
    with pytest.raises(BadInput, match="transfer: 20 needed, 5 found"):
        split(examples, gold, level_N, Data(**asked))
    assert len(split(examples, gold, level_N, Data(allow_fewer=True, **asked)).transfer) == 5


def test_rule_10_no_question_leaks_from_one_split_to_another():
    words = "which gas do green plants take in from the air around them during the day"
    rows = [example(f"{words} on a {n} morning?", level=0) for n in ("cold", "warm")]
    rows += [
        example(f"{words.upper()} on a  COLD morning?", level=1),
        example("what pulls a stone down to earth?", level=1),
    ]
    rows += [example(f"an easy question of another kind, the {n}th of them", level=0) for n in range(6)]
    rows += [example(f"hard question {n * 7919}: what comes of {n * 31} and {n * 17}?", level=1) for n in range(9)]
    examples, gold = map(list, zip(*rows, strict=True))
    level_N = np.array([one.meta["level"] for one in examples], float)
    found = split(examples, gold, level_N, Data(easy_max=0, hard_min=1, near=0.8, sizes=Sizes(easy_holdout=1)))
    prompt = {one.id: " ".join(one.prompt.lower().split()) for one in examples}
    seen = [
        {prompt[key] for key in getattr(found, name).tolist()}
        for name in ("easy_fit", "easy_holdout", "transfer", "hard_test")
    ]
    assert sum(map(len, seen)) == len(set.union(*seen))
    removed = found.counts["removed_exact"], found.counts["removed_near"]
    assert sum(sum(one.values()) for one in removed) >= 1  # counted, for the report


def test_rule_11_an_empty_set_has_no_accuracy():
    with pytest.raises(ValueError, match="an empty set has no accuracy"):
        measure("hard_test", {})
    with pytest.raises(ValueError, match="an empty set has no accuracy"):
        measure("hard_test", {0: {}})


def test_rule_12_expected_values_never_enter_the_process_that_runs_the_program(tmp_path):
    """A program that searches its process, its environment and its files finds no answer."""
    from w2s.data.sources import SOURCES

    examples, gold = pick(SOURCES, {"name": "humaneval"})(spine.write_data(tmp_path))
    search = (
        "def add(a, b):\n"
        "    import gc, os\n"
        "    texts = [o for o in gc.get_objects() if isinstance(o, (str, bytes))] + list(os.environ.values())\n"
        "    for root, _, names in os.walk('.'):\n"
        "        for name in names:\n"
        "            texts.append(open(os.path.join(root, name), errors='replace').read())\n"
        "    found = [str(t) for t in texts if 'candidate' + '(1, 2)' in str(t)]\n"
        "    return 3 if found else 'nothing found'\n"
    )
    correct, status = grade(examples[0], gold[0], search)
    assert correct is False, status
    assert grade(examples[0], gold[0], "def add(a, b):\n    return a + b\n")[0] is True
