import json
from pathlib import Path

import numpy as np
import pytest

from w2s.data.logs import logs_in, model_of
from w2s.data.outputs import read_pool
from w2s.opinions import ABSTAINED, NOT_ASKED, NOT_RECORDED
from w2s.records import BadInput, Example, Gold


def choice_row(doc: int, likely: list[float], gold: int, contexts=None, texts=None, **more) -> dict:
    """A sample of a multiple-choice task, as lm-eval 0.4.13 writes it."""
    contexts = contexts or [f"Q: q{doc}\nA:"] * len(likely)
    texts = texts or [" red", " blue", " green"][: len(likely)]
    pairs = zip(contexts, texts, strict=True)
    scored = [[str(one), "False"] for one in likely]
    return {
        "doc_id": doc,
        "doc": {"question": f"q{doc}"},
        "target": str(gold),
        "arguments": {f"gen_args_{at}": {"arg_0": c, "arg_1": t} for at, (c, t) in enumerate(pairs)},
        "resps": [[one] for one in scored],
        "filtered_resps": scored,
        "filter": "none",
        "metrics": ["acc", "acc_norm"],
        "doc_hash": f"hash{doc}",
        "acc": float(int(np.argmax(likely)) == gold),
        "acc_norm": 0.0,
        **more,
    }


def text_row(doc: int, said: str, target: str, right: float, name: str = "strict") -> dict:
    """A sample of a generate_until task."""
    return {
        "doc_id": doc,
        "doc": {"question": f"q{doc}"},
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": f"Q: q{doc}\nA:", "arg_1": {"until": ["\n"]}}},
        "resps": [[f"so {said}"]],
        "filtered_resps": [said],
        "filter": name,
        "metrics": ["exact_match"],
        "doc_hash": f"hash{doc}",
        "exact_match": right,
    }


def samples(folder: Path, model: str, task: str, rows: list[dict], date: str = "2026-11-21T03-02-04.744470") -> Path:
    path = folder / model / f"samples_{task}_{date}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_multiple_choice_samples_are_choices_with_probabilities(tmp_path):
    samples(
        tmp_path, "org__one", "colours", [choice_row(0, [-1.0, -2.0, -3.0], 0), choice_row(1, [-3.0, -1.0, -5.0], 2)]
    )
    samples(tmp_path, "org__two", "colours", [choice_row(0, [-9.0, -2.0, -3.0], 0)])
    opinions, truth = read_pool(tmp_path)
    assert opinions.members.tolist() == ["org/one", "org/two"]
    assert opinions.ids.tolist() == ["colours/0", "colours/1"]
    assert opinions.group_N.tolist() == ["colours", "colours"]
    assert opinions.prompt_N[0] == "Q: q0\nA:"
    assert opinions.texts_N[0] == ("red", "blue", "green")
    assert opinions.answer_MN.tolist() == [[0, 1], [1, NOT_ASKED]]
    assert truth.gold_N.tolist() == [0, 2]
    np.testing.assert_array_equal(truth.right_MN, [[1, 0], [0, np.nan]])
    likely = np.exp([-1.0, -2.0, -3.0])
    np.testing.assert_allclose(opinions.probs_MNK[0, 0], likely / likely.sum(), rtol=1e-6)


def test_choices_of_other_layouts_are_found(tmp_path):
    unconditional = choice_row(
        0, [-1.0, -2.0, -4.0, -4.0], 1, ["Q: q\nA:"] * 2 + ["A:"] * 2, [" no", " yes", " no", " yes"], acc=0.0
    )
    winogrande = choice_row(1, [-2.0, -1.0], 1, ["The cat", "The dog"], [" sat."] * 2)
    older = choice_row(2, [-2.0, -1.0], 1, target=" blue")
    older["arguments"] = [["Q: q2\nA:", " red"], ["Q: q2\nA:", " blue"]]
    opinions, truth = read_pool(samples(tmp_path, "m", "odd", [unconditional, winogrande, older]))
    assert opinions.members.tolist() == ["m"]
    assert opinions.texts_N.tolist() == [("no", "yes"), ("cat", "dog"), ("red", "blue")]
    assert opinions.answer_MN.tolist() == [[0, 1, 1]]
    assert truth.gold_N.tolist() == [1, 1, 1]
    assert truth.right_MN.tolist() == [[0, 1, 1]]


def test_generated_answers_are_grouped_by_what_they_mean_and_the_first_filter_counts(tmp_path):
    rows = [text_row(0, "18", "9 + 9 = 18\n#### 18", 1.0), text_row(1, "[invalid]", "#### 3", 0.0)]
    rows += [text_row(0, "9", "#### 18", 0.0, "flexible"), text_row(1, "3", "#### 3", 1.0, "flexible")]
    samples(tmp_path, "one", "gsm8k", rows)
    samples(
        tmp_path, "two", "gsm8k", [text_row(0, "$18.00", "9 + 9 = 18\n#### 18", 0.0), text_row(1, "4", "#### 3", 0.0)]
    )
    opinions, truth = read_pool(tmp_path)
    assert opinions.texts_N.tolist() == [("18",), ("4",)]
    assert opinions.answer_MN.tolist() == [[0, ABSTAINED], [0, 0]]
    assert truth.gold_N.tolist() == [0, -1]
    assert truth.right_MN.tolist() == [[1, 0], [0, 0]]  # the recorded verdict is trusted
    assert opinions.output_MN[1, 0] == "$18.00"


def test_the_newest_run_of_a_task_counts(tmp_path):
    samples(tmp_path, "m", "colours", [choice_row(0, [-1.0, -2.0], 0)], "2026-11-21T03-02-04.744470")
    samples(tmp_path, "m", "colours", [choice_row(0, [-2.0, -1.0], 0)], "2026-11-22T01-00-00.000000")
    opinions, _ = read_pool(tmp_path)
    assert opinions.answer_MN.tolist() == [[1]]


def test_models_that_were_asked_different_questions_are_refused(tmp_path):
    samples(tmp_path, "a", "colours", [choice_row(0, [-1.0, -2.0], 0)])
    samples(tmp_path, "b", "colours", [choice_row(0, [-1.0, -2.0], 0, doc_hash="other")])
    with pytest.raises(BadInput, match=r"b/samples_colours_.*:1: colours/0 is not the question that other models got"):
        read_pool(tmp_path)


@pytest.mark.parametrize("spoiled", [{"arguments": None}, {"filtered_resps": [["nan", "False"], ["-1", "False"]]}])
def test_a_sample_that_is_none_is_one_line_with_its_place(tmp_path, spoiled):
    rows = [choice_row(0, [-1.0, -2.0], 0), choice_row(1, [-1.0, -2.0], 0, **spoiled)]
    with pytest.raises(BadInput, match=r"samples_colours_.*:2: not a sample of lm-eval"):
        read_pool(samples(tmp_path, "m", "colours", rows))


ADD = Example("e1", "tiny", "code", "def add(a, b):\n", meta={"entry_point": "add", "task_id": "Tiny/0"})
TESTS = {"kind": "check", "entry_point": "add", "setup": ADD.prompt + "    pass\n"}
TESTS["test"] = "def check(candidate):\n    assert candidate(2, 3) == 5\n"
SUITE = [ADD], [Gold("e1", "def add(a, b):\n    return a + b\n", (TESTS,))]


def test_evalplus_samples_are_judged_in_the_sandbox(tmp_path):
    rows = {
        "right": [{"task_id": "Tiny/0", "solution": "def add(a, b):\n    return a + b\n"}],
        "mixed": [{"task_id": "Tiny/0", "completion": f"    return a {sign} b\n"} for sign in "-+"],
        "right.raw": [{"task_id": "Tiny/0", "solution": "the uncut text is not read"}],
    }
    for name, listed in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    opinions, truth = read_pool(tmp_path, suite=SUITE)
    assert opinions.members.tolist() == ["mixed#0", "mixed#1", "right"]
    assert opinions.ids.tolist() == ["Tiny/0"]
    assert (opinions.answer_MN == NOT_RECORDED).all()
    assert truth.right_MN.tolist() == [[0], [1], [1]]
    assert opinions.output_MN[1, 0] == "    return a + b\n"
    one, _ = read_pool(tmp_path / "mixed.jsonl", suite=SUITE)
    assert one.members.tolist() == ["mixed#0", "mixed#1"]


@pytest.mark.parametrize(
    ("names", "read", "models"),
    [
        (["m.jsonl", "m-sanitized.jsonl"], ["m-sanitized.jsonl"], ["m"]),
        (["m-sanitized.jsonl"], ["m-sanitized.jsonl"], ["m"]),
        (["m.raw.jsonl"], ["m.raw.jsonl"], ["m"]),
        (["m.jsonl.gz", "m-sanitized.jsonl.gz", "m.raw.jsonl.gz"], ["m-sanitized.jsonl.gz"], ["m"]),
        (["m-sanitized_calibrated.jsonl", "m-sanitized.jsonl"], ["m-sanitized_calibrated.jsonl"], ["m"]),
        (["s.jsonl", "s.jsonl_results.jsonl"], ["s.jsonl"], ["s"]),
        (["s_results.jsonl", "s.jsonl", "s_eval_results.jsonl"], ["s.jsonl"], ["s"]),
        (["m_eval_results.json", "m.jsonl", "m-sanitized_eval_results.json"], ["m.jsonl"], ["m"]),
        (["gpt-4.1.jsonl", "gpt-4.jsonl", "raw.jsonl"], ["gpt-4.1.jsonl", "gpt-4.jsonl", "raw.jsonl"],
         ["gpt-4.1", "gpt-4", "raw"]),
        (["a/m.jsonl", "a/m-sanitized.jsonl", "b/n.jsonl"], ["a/m-sanitized.jsonl", "b/n.jsonl"], ["m", "n"]),
    ],
)  # fmt: skip
def test_a_model_has_one_file_and_what_is_left_out_is_said(names, read, models, tmp_path, capsys):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    found = logs_in(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found] == sorted(read)
    assert [model_of(path) for path in found] == models
    left_out = {name for name in names if name not in read and not name.endswith(".json")}
    said = capsys.readouterr().err
    assert said.count("\n") == bool(left_out)
    assert all(name.rpartition("/")[2] in said for name in left_out)


def test_evalplus_samples_need_a_suite_that_has_their_tasks(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"task_id": "Tiny/7", "solution": ""}) + "\n")
    with pytest.raises(BadInput, match=r"m.jsonl: programs without verdicts: name the suite"):
        read_pool(path)
    with pytest.raises(BadInput, match=r"m.jsonl:1: task_id: 'Tiny/7' given; allowed: those of the suite, Tiny/0"):
        read_pool(path, suite=SUITE)
