import json
import re
from pathlib import Path

import numpy as np
import pytest

from w2s.pools.logs import logs_in, model_of
from w2s.pools.read import read_pool
from w2s.pools.records import ABSTAINED, NOT_ASKED, NOT_RECORDED
from w2s.store.records import BadInput, Example, Gold


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


def filtered(shares: dict[str, list[str]], targets: list[str], **more) -> list[dict]:
    """A generated task's rows under several filters, one after the other, as lm-eval writes them."""
    return [
        text_row(doc, said, f"#### {target}", float(said == target), name) | more
        for name, answers in shares.items()
        for doc, (said, target) in enumerate(zip(answers, targets, strict=True))
    ]


def read_with_notes(path, **options):
    notes: list[str] = []
    opinions, truth = read_pool(path, notes=notes, **options)
    return opinions, truth, notes


def test_generated_answers_are_grouped_by_what_they_mean(tmp_path):
    rows = [text_row(0, "18", "9 + 9 = 18\n#### 18", 1.0), text_row(1, "[invalid]", "#### 3", 0.0)]
    samples(tmp_path, "one", "gsm8k", rows)
    rows = [text_row(0, "$18.00", "9 + 9 = 18\n#### 18", 0.0), text_row(1, "4", "#### 3", 0.0)]
    samples(tmp_path, "two", "gsm8k", rows)
    opinions, truth = read_pool(tmp_path)
    assert opinions.texts_N.tolist() == [("18",), ("4",)]
    assert opinions.answer_MN.tolist() == [[0, ABSTAINED], [0, 0]]
    assert truth.gold_N.tolist() == [0, -1]
    assert truth.right_MN.tolist() == [[1, 0], [0, 0]]  # the recorded verdict is trusted
    assert opinions.output_MN[1, 0] == "$18.00"


NO = "[invalid]"


@pytest.mark.parametrize("named", [True, False], ids=["named filters", "filters without names, before 0.4.7"])
def test_the_filter_that_finds_most_answers_counts_for_the_whole_task_over_all_models(tmp_path, named):
    # In the first model strict finds more, over both models flexible does.
    first = {"strict": ["1", "2"], "flexible": [NO, "2"]}
    second = {"strict": [NO, NO], "flexible": ["1", "2"]}
    for model, answers in (("a", first), ("b", second)):
        rows = filtered(answers, ["1", "2"])
        if not named:
            for row in rows:
                del row["filter"], row["metrics"]
        samples(tmp_path, model, "sums", rows)
    opinions, truth, notes = read_with_notes(tmp_path)
    assert opinions.answer_MN.tolist() == [[ABSTAINED, 0], [0, 0]]
    assert truth.right_MN.tolist() == [[0, 1], [1, 1]]
    used, other = ("flexible", "strict") if named else ("unnamed 2", "none")
    told = f"filter {used}, which finds an answer in 75.0% of its rows ({other}: 50.0%)"
    assert notes == [f"lm-eval's sums: metric exact_match, {told}"]
    opinions, _, _ = read_with_notes(tmp_path / "a", filters=[other])
    assert opinions.answer_MN.tolist() == [[0, 0]]
    with pytest.raises(BadInput, match="sums: no filter first; there are: "):
        read_pool(tmp_path, filters=["first"])


def test_a_filter_that_one_model_lacks_is_not_taken(tmp_path):
    samples(tmp_path, "a", "sums", filtered({"strict": ["1", NO], "flexible": ["1", "2"]}, ["1", "2"]))
    samples(tmp_path, "b", "sums", filtered({"strict": ["1", "2"]}, ["1", "2"]))
    opinions, _, notes = read_with_notes(tmp_path)
    assert opinions.answer_MN.tolist() == [[0, ABSTAINED], [0, 0]]
    assert "filter strict" in notes[0]
    samples(tmp_path, "b", "sums", filtered({"other": ["1", "2"]}, ["1", "2"]))
    with pytest.raises(BadInput, match="sums: no filter is in every model's log; there are: strict, flexible, other"):
        read_pool(tmp_path)


@pytest.mark.parametrize("share", [0.6, "0.25", float("nan"), [1, 0], 2])
def test_a_metric_that_is_a_share_leaves_its_task_out_with_a_line(tmp_path, share):
    samples(tmp_path, "m", "mc2", [choice_row(0, [-1.0, -2.0], 0), choice_row(1, [-1.0, -2.0], 0, acc=share)])
    with pytest.raises(
        BadInput, match=r"mc2: acc is .* at .*samples_mc2_.*:2: a share, not right \(1\) or wrong \(0\)"
    ):
        read_pool(tmp_path)
    samples(tmp_path, "m", "colours", [choice_row(0, [-1.0, -2.0], 0)])
    opinions, _, notes = read_with_notes(tmp_path)
    assert opinions.ids.tolist() == ["colours/0"]
    assert notes[0] == "lm-eval's colours: metric acc (not acc_norm), filter none"
    assert notes[1].startswith("left out: mc2: acc is ")
    assert len(notes) == 2


def test_the_metric_can_be_named_and_the_answers_are_those_that_it_judges(tmp_path):
    texts = [" a", " a much longer choice"]
    row = choice_row(0, [-2.0, -3.0], 1, texts=texts, acc=0.0, acc_norm=1.0)
    samples(tmp_path, "m", "colours", [row])
    samples(tmp_path, "m", "sums", filtered({"none": ["1"]}, ["1"]))
    opinions, truth, _ = read_with_notes(tmp_path)
    assert opinions.answer_MN[0, 0] == 0
    assert truth.right_MN[0, 0] == 0
    opinions, truth, notes = read_with_notes(tmp_path, metrics=["acc_norm"])
    assert opinions.answer_MN.tolist() == [[1]]
    assert truth.right_MN.tolist() == [[1]]
    assert opinions.probs_MNK[0, 0].argmax() == 1
    assert any(note.startswith("left out: sums: no metric acc_norm in every model's log; there are:") for note in notes)
    both, _, _ = read_with_notes(tmp_path, metrics=["acc_norm", "exact_match"])
    assert both.answer_MN.tolist() == [[1, 0]]


def test_unconditional_likelihoods_are_taken_off_where_that_metric_is_named(tmp_path):
    contexts, texts = ["Q: q\nA:"] * 2 + ["A:"] * 2, [" no", " yes"] * 2
    row = choice_row(0, [-2.0, -3.0, -1.0, -6.0], 1, contexts, texts, acc=0.0, acc_mutual_info=1.0)
    row["metrics"].append("acc_mutual_info")
    opinions, truth, _ = read_with_notes(samples(tmp_path, "m", "odd", [row]), metrics=["acc_mutual_info"])
    assert opinions.answer_MN.tolist() == [[1]]
    assert truth.right_MN.tolist() == [[1]]


def test_a_task_with_unknown_metrics_asks_for_a_name(tmp_path):
    row = text_row(0, "1", "#### 1", 1.0)
    row["metrics"], row["harmless"], row["bleu"] = ["bleu", "harmless"], True, 0.3
    del row["exact_match"]
    path = samples(tmp_path, "m", "talk", [row])
    with pytest.raises(BadInput, match=r"talk: no metric that is known as right or wrong .* bleu, harmless \(--metric"):
        read_pool(path)
    _, truth, _ = read_with_notes(path, metrics=["harmless"])
    assert truth.right_MN.tolist() == [[1]]


def test_several_right_answers_or_several_samples_are_judged_by_the_flag_alone(tmp_path):
    aliases = text_row(0, "Paris", "['Paris', 'paris, France']", 1.0)
    repeats = text_row(1, "", "#### 3", 0.0) | {"filtered_resps": [["3", "4", "5"]]}
    program = text_row(2, "def f(): pass", "assert f()", 0.0) | {"pass@1": 1, "metrics": ["pass@1"]}
    opinions, truth = read_pool(samples(tmp_path, "m", "open", [aliases, repeats]))
    assert opinions.answer_MN.tolist() == [[0, ABSTAINED]]
    assert truth.gold_N.tolist() == [-2, -1]
    assert truth.right_MN.tolist() == [[1, 0]]
    opinions, truth = read_pool(samples(tmp_path / "code", "m", "humaneval", [program]))
    assert opinions.answer_MN.tolist() == [[NOT_RECORDED]]
    assert truth.right_MN.tolist() == [[1]]


@pytest.mark.parametrize("name", ["samples_colours.jsonl", "samples_colours.json", "colours.jsonl"])
def test_a_json_list_is_read_under_every_name(tmp_path, name):
    rows = [choice_row(0, [-1.0, -2.0], 0), choice_row(1, [-1.0, -2.0], 1)]
    for row in rows:
        row["arguments"] = [list(one.values()) for one in row["arguments"].values()]
        row["filtered_resps"] = [[float(one), False] for one, _ in row["filtered_resps"]]
        row["target"] = int(row["target"])
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / name).write_text(json.dumps(rows, indent=2))
    opinions, truth = read_pool(tmp_path)
    assert opinions.ids.tolist() == ["colours/0", "colours/1"]
    assert truth.right_MN.tolist() == [[1, 0]]


def test_names_without_a_date_are_tasks_of_their_own(tmp_path):
    for task in ("arc_easy", "arc_challenge"):
        path = samples(tmp_path, "m", task, [choice_row(0, [-1.0, -2.0], 0)])
        path.rename(path.with_name(f"samples_{task}.jsonl"))
    opinions, _ = read_pool(tmp_path)
    assert opinions.ids.tolist() == ["arc_challenge/0", "arc_easy/0"]


def test_an_old_name_of_model_and_task_is_refused_in_one_line(tmp_path):
    path = tmp_path / "pretrained__org__one_arc_easy.jsonl"
    path.write_text(json.dumps(choice_row(0, [-1.0, -2.0], 0)) + "\n")
    with pytest.raises(BadInput, match=r"one_arc_easy.jsonl: model and task share one name, .*; rename it MODEL/"):
        read_pool(tmp_path)


def test_the_newest_run_of_a_task_counts(tmp_path):
    samples(tmp_path, "m", "colours", [choice_row(0, [-1.0, -2.0], 0)], "2026-11-21T03-02-04.744470")
    samples(tmp_path, "m", "colours", [choice_row(0, [-2.0, -1.0], 0)], "2026-11-22T01-00-00.000000")
    opinions, _, notes = read_with_notes(tmp_path)
    assert opinions.answer_MN.tolist() == [[1]]
    assert notes[0].startswith("an older log of the same model and task not read, since the newest counts: ")
    assert "2026-11-21" in notes[0]


def test_models_that_were_asked_different_questions_are_refused(tmp_path):
    samples(tmp_path, "a", "colours", [choice_row(0, [-1.0, -2.0], 0)])
    samples(tmp_path, "b", "colours", [choice_row(0, [-1.0, -2.0], 0, doc_hash="other")])
    with pytest.raises(BadInput, match=r"b/samples_colours_.*:1: colours/0 is not the question that other models got"):
        read_pool(tmp_path)


SPOILED = {
    "no arguments": {"arguments": None},
    "no requests": {"arguments": {}},
    "not a number": {"filtered_resps": [["nan", "False"], ["-1", "False"]]},
    "beyond all numbers": {"filtered_resps": [["-1e999", "False"], ["-1e999", "False"]]},
    "deep": {"arguments": [[[[[]]]]] * 2},
    "a text for answers": {"filtered_resps": 7},
}


@pytest.mark.parametrize("case", SPOILED)
def test_samples_that_are_none_are_one_line_each_with_their_place(tmp_path, case):
    spoiled = SPOILED[case]
    rows = [choice_row(0, [-1.0, -2.0], 0), *(choice_row(at, [-1.0, -2.0], 0, **spoiled) for at in (1, 2))]
    with pytest.raises(BadInput) as caught:
        read_pool(samples(tmp_path, "m", "colours", rows))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    for at, line in enumerate(lines, 2):
        assert re.search(rf"samples_colours_.*:{at}: not a sample of lm-eval", line)


def test_damaged_logs_are_one_line_each(tmp_path):
    path = samples(tmp_path, "m", "colours", [choice_row(0, [-1.0, -2.0], 0)])
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100] + b"\n[]\n" + whole)
    with pytest.raises(BadInput) as caught:
        read_pool(path)
    lines = str(caught.value).splitlines()
    assert [re.search(r"jsonl:(\d)", line)[1] for line in lines] == ["2", "3"]
    path.write_bytes(b"")
    with pytest.raises(BadInput, match=r"samples_colours_.*jsonl"):
        read_pool(path)
    samples(tmp_path, "n", "colours", [choice_row(0, [-1.0, -2.0], 0)])
    with pytest.raises(BadInput, match=r"m/samples_colours_.*jsonl: the file has no rows"):
        read_pool(tmp_path)


def test_a_model_name_that_is_no_unicode_is_refused_in_one_line(tmp_path):
    samples(tmp_path, "m\udcff", "sums", [text_row(0, "1", "#### 1", 0.0)])
    with pytest.raises(BadInput, match=r"model: 'm\\udcff' given; allowed: a text"):
        read_pool(tmp_path)


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
        (
            ["gpt-4.1.jsonl", "gpt-4.jsonl", "raw.jsonl"],
            ["gpt-4.1.jsonl", "gpt-4.jsonl", "raw.jsonl"],
            ["gpt-4.1", "gpt-4", "raw"],
        ),
        (["a/m.jsonl", "a/m-sanitized.jsonl", "b/n.jsonl"], ["a/m-sanitized.jsonl", "b/n.jsonl"], ["m", "n"]),
    ],
)
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
    path.write_text(path.read_text() + json.dumps({"task_id": "Tiny/0", "solution": 7}) + "\n")
    with pytest.raises(BadInput, match=r"(?s)m.jsonl:1: task_id: .*\n.*m.jsonl:2: solution: 7 given"):
        read_pool(path, suite=SUITE)
