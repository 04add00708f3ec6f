import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.data.reading import file_rows
from w2s.pools.columns import OUTPUTS, QUESTIONS, quick_table, rows_source
from w2s.pools.read import read_pool
from w2s.pools.records import ABSTAINED, NOT_ASKED, NOT_RECORDED
from w2s.pools.tables import find_places
from w2s.store.problems import Problems
from w2s.store.records import BadInput

ASKED = [
    {"id": "q1", "group": "quiz", "prompt": "Which?", "choices": ["a", "b", "c"], "gold": "1"},
    {"id": "q2", "group": "quiz", "prompt": 'Say "so",\nor not', "choices": ["no", "yes"], "gold": "0"},
    {"id": "q3", "group": "sums", "prompt": "1+1", "choices": [], "gold": "2"},
    {"id": "q4", "group": "", "prompt": "", "choices": ["x", "y"], "gold": None},
    {"id": "q5", "group": "code", "prompt": "def f", "choices": [], "gold": None},
]
GIVEN = [
    {"id": "q1", "model": "b", "answer": "1", "correct": True, "probs": [0.25, 0.5, 0.25], "score": 0.5, "cost": 0.25},
    {"id": "q2", "model": "b", "answer": None, "correct": False, "cost": 0.125},
    {"id": "q3", "model": "b", "answer": "2", "correct": True},
    {"id": "q4", "model": "b", "answer": "1"},
    {"id": "q5", "model": "b", "answer": None, "correct": True, "text": "def f(): pass", "visible_pass": True},
    {"id": "q1", "model": "a", "sample": 0, "answer": "0"},
    {"id": "q1", "model": "a", "sample": 10, "answer": "1", "correct": False},
    {"id": "q3", "model": "a", "sample": 0, "answer": "1,5", "quality": 0.25},
    {"id": "q3", "model": "a", "sample": 10, "answer": "10"},
    {"id": "q3", "model": "a", "sample": 2, "answer": "2"},
    {"id": "q5", "model": "a", "sample": 2, "answer": None, "correct": False, "visible_pass": False},
]


def write(path: Path, rows: list[dict], types: dict) -> Path:
    """The rows in the format of the path's suffix."""
    columns = [name for name in types if any(name in row for row in rows)]
    if path.suffix == ".parquet":
        arrays = {name: pa.array([row.get(name) for row in rows], typed(name, rows, types)) for name in columns}
        pq.write_table(pa.table(arrays), path)
        return path
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        if ".jsonl" in path.name:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            listed = lambda value: json.dumps(value) if isinstance(value, list) else value  # noqa: E731
            writer.writerows({name: listed(value) for name, value in row.items()} for row in rows)
    return path


def typed(name: str, rows: list[dict], types: dict) -> pa.DataType:
    flags = {type(row.get(name)) for row in rows} <= {bool, type(None)} and types[name] == pa.float64()
    return pa.bool_() if flags else types[name]


def pool(folder: Path, given=GIVEN, asked=ASKED, suffix=".parquet", **options):
    write(folder / f"questions{suffix}", asked, QUESTIONS)
    write(folder / f"outputs{suffix}", given, OUTPUTS)
    return read_pool(folder, **options)


def fields(opinions, truth) -> dict:
    found = {f"opinions.{name}": value for name, value in vars(opinions).items()}
    return found | {f"truth.{name}": value for name, value in vars(truth).items()}


def assert_equal(one, other):
    for name, value in fields(*one).items():
        twin = fields(*other)[name]
        assert (value is None) == (twin is None), name
        if value is not None:
            np.testing.assert_array_equal(value, twin, err_msg=name)
            assert value.dtype == twin.dtype, name


# --- what is read ----------------------------------------------------------------------------------------------------


def test_members_answers_candidates_and_truth_are_as_documented(tmp_path):
    opinions, truth = pool(tmp_path)
    assert opinions.members.tolist() == ["a#0", "a#2", "a#10", "b"]
    assert opinions.answer_MN.dtype == np.int16
    assert opinions.texts_N[2] == ("1,5", "10", "2")
    assert opinions.texts_N[0] == ("a", "b", "c")
    assert opinions.count_N.tolist() == [3, 2, 3, 2, 0]
    no = NOT_ASKED
    assert opinions.answer_MN.tolist() == [
        [0, no, 0, no, no],
        [no, no, 2, no, NOT_RECORDED],
        [1, no, 1, no, no],
        [1, ABSTAINED, 2, 1, NOT_RECORDED],
    ]
    assert truth.gold_N.tolist() == [1, 0, 2, -2, -2]
    nan = np.nan
    np.testing.assert_array_equal(
        truth.right_MN,
        [[0, nan, 0.25, nan, nan], [nan, nan, 1, nan, 0], [0, nan, 0, nan, nan], [1, 0, 1, nan, 1]],
    )
    assert opinions.group_N.tolist() == ["quiz", "quiz", "sums", "", "code"]
    assert opinions.prompt_N[1] == 'Say "so",\nor not'
    np.testing.assert_array_equal(opinions.probs_MNK[3, 0], np.float32([0.25, 0.5, 0.25]))
    assert np.isnan(opinions.probs_MNK).sum() == opinions.probs_MNK.size - 3
    assert opinions.score_MN[3, 0] == 0.5
    assert np.nansum(opinions.cost_MN) == 0.375
    assert np.nansum(opinions.check_MN) == 1
    assert np.isfinite(opinions.check_MN).sum() == 2
    assert opinions.output_MN[3, 4] == "def f(): pass"
    assert opinions.output_MN[0, 0] is None


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".jsonl.gz", ".csv.gz"])
def test_every_format_gives_the_same_arrays(tmp_path, suffix):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert_equal(pool(tmp_path / "one"), pool(tmp_path / "other", suffix=suffix))


def test_a_file_with_its_questions_beside_it_or_named_is_the_folder(tmp_path):
    whole = pool(tmp_path)
    assert_equal(whole, read_pool(tmp_path / "outputs.parquet"))
    elsewhere = write(tmp_path / "asked.jsonl", ASKED, QUESTIONS)
    assert_equal(whole, read_pool(tmp_path / "outputs.parquet", elsewhere))


@given(st.permutations(range(len(GIVEN))))
def test_the_order_of_the_outputs_changes_nothing(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("order")
    whole = pool(folder)
    assert_equal(whole, pool(folder, given=[GIVEN[at] for at in order]))


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=30, unique=True),
    st.lists(st.integers(-1, 30), min_size=1, max_size=60),
    st.integers(-1, 3),
)
def test_an_id_is_found_in_whatever_order_they_come(known, wanted, last):
    ids = pa.array([str(one) if one >= 0 else None for one in wanted], pa.string())
    found, _ = find_places(ids, pa.array([str(one) for one in known]), min(last, len(known) - 1))
    assert found.tolist() == [known.index(one) if one in known else -1 for one in wanted]


@pytest.mark.parametrize("by", ["question", "model"])
def test_rows_in_the_order_of_the_questions_are_found_without_a_search(by, monkeypatch):
    known = pa.array([f"{at:03}" for at in range(50)])
    rows = [key for key in known.to_pylist() for _ in range(3)] if by == "question" else known.to_pylist() * 3
    monkeypatch.setattr("w2s.pools.tables.pc.index_in", None)
    found, last = [], -1
    for start in range(0, 150, 20):
        part, last = find_places(pa.array(rows[start : start + 20]), known, last)
        found += part.tolist()
    assert [known[at].as_py() for at in found] == rows


def test_models_can_be_chosen(tmp_path):
    opinions, truth = pool(tmp_path, models=["a"])
    assert opinions.members.tolist() == ["a#0", "a#2", "a#10"]
    assert opinions.texts_N[2] == ("1,5", "10", "2")
    opinions, truth = pool(tmp_path, models=["b"])
    assert opinions.members.tolist() == ["b"]
    assert opinions.texts_N[2] == ("2",)
    assert truth.gold_N[2] == 0
    with pytest.raises(BadInput, match=r"outputs.parquet: no model 'bb' \(did you mean 'b'\?\); known: a, b"):
        pool(tmp_path, models=["bb"])


def test_gold_that_nobody_gave_is_no_candidate(tmp_path):
    opinions, truth = pool(tmp_path, given=[row for row in GIVEN if row["answer"] != "2"])
    assert opinions.texts_N[2] == ("1,5", "10")
    assert truth.gold_N[2] == -1


def test_without_flags_the_gold_answer_is_right_and_an_abstention_is_not(tmp_path):
    bare = [{key: row[key] for key in ("id", "model", "answer")} for row in GIVEN[:4]]
    _, truth = pool(tmp_path, given=bare)
    np.testing.assert_array_equal(truth.right_MN, [[1, 0, 1, np.nan, np.nan]])


def test_a_recorded_flag_is_trusted_where_it_disagrees_with_gold(tmp_path):
    _, truth = pool(tmp_path, given=[{**GIVEN[0], "correct": False}])
    assert truth.right_MN[0, 0] == 0


def test_numbers_for_ids_and_answers_are_texts(tmp_path):
    asked = write(tmp_path / "questions.jsonl", [{"id": 7, "choices": ["a", "b"], "gold": 1}], {"id": 0, "choices": 0})
    outputs = write(tmp_path / "outputs.jsonl", [{"id": 7, "model": "m", "answer": 1.0}], {})
    opinions, truth = read_pool(outputs, asked)
    assert opinions.ids.tolist() == ["7"]
    assert truth.right_MN.tolist() == [[1]]
    pq.write_table(pa.table({"id": [7], "model": ["m"], "answer": pa.array([1], pa.int8())}), tmp_path / "o.parquet")
    assert_equal((opinions, truth), read_pool(tmp_path / "o.parquet", asked))


def test_many_row_groups_and_batches_are_one_table(tmp_path):
    size = 280_000  # more than one batch
    ids = [f"{at:06}" for at in range(size)]
    asked = pa.table({"id": ids, "choices": pa.array([["A", "B"]] * size), "gold": ["0", "1"] * (size // 2)})
    pq.write_table(asked, tmp_path / "questions.parquet")
    answers = np.random.default_rng(0).integers(0, 2, (2, size))
    outputs = pa.table({"id": ids * 2, "model": ["m"] * size + ["n"] * size, "answer": answers.ravel().astype(str)})
    pq.write_table(outputs, tmp_path / "outputs.parquet", row_group_size=70_001)
    opinions, truth = read_pool(tmp_path)
    np.testing.assert_array_equal(opinions.answer_MN, answers)
    np.testing.assert_array_equal(truth.right_MN, answers == np.arange(size) % 2)
    assert len({id(texts) for texts in opinions.texts_N}) == 1  # one tuple is shared by all
    shuffled = np.random.default_rng(1).permutation(2 * size)
    pq.write_table(outputs.take(shuffled), tmp_path / "outputs.parquet")
    assert_equal((opinions, truth), read_pool(tmp_path))


PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=4)
CELLS = {
    "id": PLAIN,
    "model": st.sampled_from(["m", "n", "m, n", 7]),
    "sample": st.none() | st.integers(0, 3),
    "answer": st.none() | PLAIN | st.integers(0, 9) | st.floats(0, 2).map(lambda one: round(one, 1)),
    "correct": st.none() | st.booleans() | st.floats(0, 1),
    "cost": st.none() | st.floats(0, 1e9) | st.just("free"),
    "probs": st.none() | st.lists(st.floats(0, 1), max_size=3),
    "colour": PLAIN,
}


@given(st.lists(st.fixed_dictionaries({}, optional=CELLS), min_size=1, max_size=6))
def test_what_arrow_reads_quickly_is_what_is_read_row_by_row(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("quick")
    for suffix in (".jsonl", ".csv"):
        path = write(folder / f"outputs{suffix}", rows, CELLS)
        quick = quick_table(path, OUTPUTS, ["id", "model"])
        if quick is None:
            continue
        problems = Problems()
        slow = rows_source(str(path), file_rows(path, problems), OUTPUTS, ["id", "model"], problems)
        for name in quick.columns:
            one, other = (next(source.batches([name])).column(0).to_pylist() for source in (quick, slow))
            assert str(one) == str(other)  # as text, for NaN is not itself
        assert all(
            next(slow.batches([name])).column(0).null_count == len(rows) for name in set(OUTPUTS) - set(quick.columns)
        )
        assert set(quick.unused) == set(slow.unused)


@pytest.mark.parametrize(
    "text",
    [
        'id,model,answer\n1,m,"a\n2,m,b\n3,m,c\n',
        'id,model,answer\n1,m,"a\n2,m,b\n3,m,"c\n',
        'id,model,answer\n1,m,"a"b\n',
        'id,model,answer\n1,m,a "b"\n',
        "id,model,answer, correct\n1,m,x,1\n",
        "id,model,answer,answer\n1,m,x,y\n",
        "id,model,answer,\n1,m,x,y\n",
        "",
    ],
)
def test_a_csv_with_unusual_quotes_or_names_is_not_read_quickly(tmp_path, text):
    path = tmp_path / "outputs.csv"
    path.write_text(text)
    assert quick_table(path, OUTPUTS, ["id", "model"]) is None


@pytest.mark.parametrize(
    "text",
    [
        ",id,model,answer\n0,1,m,x\n",
        'id,model,answer\r\n1,m,"a, ""b"""\r\n"2","m","c\nd"',
        "id,model,answer\n1,m,x\n\n2,m,y\n",
    ],
)
def test_indices_quotes_and_blank_lines_of_a_csv_are_read_quickly(tmp_path, text):
    path = tmp_path / "outputs.csv"
    path.write_text(text, newline="")
    quick = quick_table(path, OUTPUTS, ["id", "model"])
    slow = rows_source(str(path), file_rows(path), OUTPUTS, ["id", "model"], Problems())
    for name in quick.columns:
        one, other = (next(source.batches([name])).column(0).to_pylist() for source in (quick, slow))
        assert one == other
    assert quick.unused == slow.unused


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_plain_files_are_read_quickly(tmp_path, suffix):
    path = write(tmp_path / f"outputs{suffix}", GIVEN, OUTPUTS)
    assert quick_table(path, OUTPUTS, ["id", "model"]) is not None


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("choices", ["no column", "null", "null first", "empty"])
def test_choices_are_optional(tmp_path, suffix, choices):
    asked = [{"id": f"q{at}", "gold": str(at)} for at in range(4)]
    if choices != "no column":
        for at, row in enumerate(asked):
            row["choices"] = [] if choices == "empty" else None
            row |= {"choices": ["a", "b", "c", "d"]} if choices == "null first" and at == 3 else {}
    given = [{"id": f"q{at}", "model": model, "answer": str(at)} for model in "mn" for at in range(4)]
    opinions, truth = pool(tmp_path, given, asked, suffix)
    assert (truth.right_MN == 1).all()
    assert opinions.count_N.tolist() == [1, 1, 1, 4 if choices == "null first" else 1]


def test_columns_that_are_not_used_are_named(tmp_path):
    (tmp_path / "questions.csv").write_text("id,A,B,gold\nq1,red,blue,B\n")
    (tmp_path / "outputs.jsonl").write_text('{"id": "q1", "model": "m", "answer": "B", "latency": 3}\n')
    notes: list[str] = []
    read_pool(tmp_path / "outputs.jsonl", notes=notes)
    assert notes == [
        f"{tmp_path}/questions.csv: columns not read: A, B",
        f"{tmp_path}/outputs.jsonl: columns not read: latency",
    ]


def test_indices_with_a_point_are_those_of_a_column_with_gaps(tmp_path):
    (tmp_path / "questions.csv").write_text('id,choices,gold\nq1,"[""a"", ""b""]",1.0\nq2,"[""a"", ""b""]",\n')
    (tmp_path / "outputs.csv").write_text("id,model,answer\nq1,m,1.0\nq2,m,\n")
    opinions, truth = read_pool(tmp_path)
    assert opinions.answer_MN.tolist() == [[1, ABSTAINED]]
    assert truth.right_MN[0, 0] == 1


# --- what is refused -------------------------------------------------------------------------------------------------


def changed(at: int, **values) -> list[dict]:
    return [{**row, **values} if here == at else row for here, row in enumerate(GIVEN)]


CHOICE = "allowed: the index of a choice, 0 to 2, or null"
BAD_OUTPUTS = {
    "a row twice": (
        GIVEN + GIVEN[3:5],
        "row 12: question q4, model b, sample 0 appears twice; allowed: once",
        "row 13: question q5, model b, sample 0 appears twice; allowed: once",
    ),
    "an answer beyond the choices": (changed(0, answer="3"), f"row 1: answer: '3' given; {CHOICE}"),
    "a letter for an index": (changed(0, answer="B"), f"row 1: answer: 'B' given; {CHOICE}"),
    "a negative index": (changed(5, answer="-1"), f"row 6: answer: '-1' given; {CHOICE}"),
    "a question nobody asked": (changed(3, id="q9"), "row 4: id: q9 is not a question's id"),
    "an id missing": (changed(3, id=None), "row 4: id:"),
    "a model missing": (changed(3, model=None), "row 4: model: missing"),
    "probs that are not whole": (changed(0, probs=[0.5, 0.2, 0.2]), "row 1: probs: [0.5, 0.2, 0.2] given; allowed"),
    "probs that are negative": (changed(0, probs=[-0.5, 1, 0.5]), "row 1: probs: [-0.5, 1, 0.5] given"),
    "probs that are no numbers": (changed(0, probs=[float("nan"), 0.5, 0.5]), "row 1: probs: [nan, 0.5, 0.5] given"),
    "a probability missing": (changed(0, probs=[None, 0.5, 0.5]), "row 1: probs: [nan, 0.5, 0.5] given"),
    "too few probs": (changed(0, probs=[0.5, 0.5]), "row 1: probs: 2 given; allowed: one for each of the question's 3"),
    "probs of an open question": (changed(2, probs=[1.0]), "row 3: probs: 1 given"),
    "a negative cost": (changed(1, cost=-0.5), "row 2: cost: -0.5 given; allowed: US dollars, 0 or more, or null"),
    "an endless cost": (changed(1, cost=float("inf")), "row 2: cost: inf given"),
    "a quality above 1": (changed(7, quality=1.5), "row 8: quality: 1.5 given; allowed: 0 to 1"),
    "a model without any answer": (
        [*GIVEN, {"id": "q1", "model": "c"}, {"id": "q2", "model": "c", "answer": ""}],
        "row 12: model 'c' has no answer in any row",
    ),
    "several faults": (
        [{**GIVEN[0], "answer": "x"}, {**GIVEN[1], "cost": -1.0}, {**GIVEN[3], "id": "q9"}],
        "row 1: answer: 'x' given",
        "row 2: cost: -1 given; allowed: US dollars, 0 or more, or null",
        "row 3: id: q9 is not a question's id",
    ),
    "a fault many times, and another behind it": (
        [{**GIVEN[0], "sample": at, "cost": -1.0} for at in range(30)] + [{**GIVEN[3], "id": "q9"}],
        *(f"row {at}: cost: -1 given; allowed: US dollars, 0 or more, or null" for at in range(1, 20)),
        "row 31: id: q9 is not a question's id",
        "... and 11 more problems",
    ),
    "two models without any answer": (
        [*GIVEN, {"id": "q1", "model": "c"}, {"id": "q1", "model": "d"}],
        "row 12: model 'c' has no answer in any row",
        "row 13: model 'd' has no answer in any row",
    ),
}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_bad_outputs_are_one_line_each_with_file_and_row(tmp_path, case, suffix):
    rows, *said = BAD_OUTPUTS[case]
    with pytest.raises(BadInput) as caught:
        pool(tmp_path, given=rows, suffix=suffix)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(said)
    for line, words in zip(lines, said, strict=True):
        assert (words if words.startswith("...") else f"outputs{suffix}: {words}") in line


BAD_QUESTIONS = {
    "an id twice": ([*ASKED, ASKED[1]], "row 6: id: 'q2' appears twice; allowed: once"),
    "an id missing": ([{**ASKED[0], "id": None}], "row 1: id: missing"),
    "gold that is no choice": ([ASKED[0], {**ASKED[1], "gold": "2"}], "row 2: gold: '2' given; allowed: the index of"),
    "gold that is a text": ([{**ASKED[1], "gold": "no"}], "row 1: gold: 'no' given"),
}


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize("case", BAD_QUESTIONS)
def test_bad_questions_are_one_line_with_file_and_row(tmp_path, case, suffix):
    rows, said = BAD_QUESTIONS[case]
    with pytest.raises(BadInput) as caught:
        pool(tmp_path, asked=rows, suffix=suffix)
    assert f"questions{suffix}: {said}" in str(caught.value)


FILES = {
    "an empty parquet": ("outputs.parquet", b"", "not Parquet"),
    "a parquet that is none": ("outputs.parquet", b"\x80\x04K\x01.", "not Parquet"),
    "an empty jsonl": ("outputs.jsonl", b"", "the file has no rows"),
    "a csv with a header alone": ("outputs.csv", b"id,model\n", "the file has no rows"),
    "a pickle": ("outputs.pkl", b"\x80\x04K\x01.", "pickles can run code when they are read; allowed: .jsonl"),
    "an unknown kind": ("outputs.xlsx", b"PK", "not a known kind of file; allowed: .jsonl"),
    "a column missing": ("outputs.csv", b"id,modle\nq1,b\n", "row 1: the column 'model' is missing (did you mean"),
    "a list for a model": ("outputs.jsonl", b'{"id": "q1", "model": ["b"]}', "1: model: ['b'] given; allowed: a text"),
    "a word for a cost": ("outputs.csv", b"id,model,cost\nq1,b,free\n", "2: cost: 'free' given; allowed: a number"),
    "half a sample": ("outputs.csv", b"id,model,sample\nq1,b,0.5\n", "2: sample: '0.5' given; allowed: a whole number"),
    "a sample beyond counting": (
        "outputs.csv",
        b"id,model,sample\nq1,b,9999999999\n",
        "2: sample: '9999999999' given; allowed: a whole number",
    ),
    "a list that is none": ("outputs.csv", b'id,model,probs\nq1,b,"[0.5,"\n', "2: probs: '[0.5,' given; allowed:"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_table_of_outputs_is_named(tmp_path, case):
    name, content, said = FILES[case]
    (tmp_path / name).write_bytes(content)
    asked = write(tmp_path / "asked.jsonl", ASKED, QUESTIONS)
    with pytest.raises(BadInput) as caught:
        read_pool(tmp_path / name, asked)
    assert name in str(caught.value)
    assert said in str(caught.value)


def test_a_parquet_column_of_a_wrong_type_or_without_rows_is_named(tmp_path):
    write(tmp_path / "questions.parquet", ASKED, QUESTIONS)
    table = pa.table({"id": ["q1"], "model": ["b"], "cost": [["free"]]})
    pq.write_table(table, tmp_path / "outputs.parquet")
    with pytest.raises(BadInput, match=r"outputs.parquet: cost: the column holds list.*; allowed: a number"):
        read_pool(tmp_path)
    pq.write_table(table.slice(0, 0), tmp_path / "outputs.parquet")
    with pytest.raises(BadInput, match=r"outputs.parquet: the file has no rows"):
        read_pool(tmp_path)
    pq.write_table(table.select(["id"]), tmp_path / "outputs.parquet")
    with pytest.raises(BadInput, match=r"outputs.parquet: row 1: the column 'model' is missing"):
        read_pool(tmp_path)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_null_among_the_choices_is_named(tmp_path, suffix):
    table = pa.table({"id": ["q1", "q2"], "choices": [["a", "b"], ["a", None]]})
    if suffix == ".parquet":
        pq.write_table(table, tmp_path / "questions.parquet")
    else:
        (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, table.to_pylist())))
    (tmp_path / "outputs.csv").write_text("id,model,answer\nq1,b,0\n")
    with pytest.raises(BadInput, match=r"questions.*: row 2: choices: null among them; allowed: a list of texts"):
        read_pool(tmp_path / "outputs.csv")


def test_missing_files_are_said(tmp_path):
    outputs = write(tmp_path / "outputs.csv", GIVEN, OUTPUTS)
    with pytest.raises(BadInput, match=r"outputs.csv: the questions are missing"):
        read_pool(outputs)
    with pytest.raises(BadInput, match=r"no file questions|questions are missing"):
        read_pool(tmp_path)
    with pytest.raises(BadInput, match=r"asked.csv: there is no such file"):
        read_pool(outputs, tmp_path / "asked.csv")
    with pytest.raises(BadInput, match=r"nowhere: there is no such file or folder"):
        read_pool(tmp_path / "nowhere")


# --- real outputs ----------------------------------------------------------------------------------------------------

# What the sets' own README files say: set, members, questions, rows, group ('' for all), its best model, accuracy in %.
README = [
    ("bbh_repaired", 5, 5761, 28805, "", "Mixtral-8x7B-Instruct", 49.36),
    ("conformal_llm", 10, 2886, 28860, "", "llama-13b/prompt8", 41.86),
    ("frugalml_imdb", 4, 25000, 100000, "", "google-nl", 86.45),
    ("gsm8k_weak", 3, 7000, 21000, "", "mistral-7b", 66.03),
    ("humaneval_programs", 219, 164, 35916, "", "ldbfinal:reflexion/gpt-4o-2024-05-13", 98.17),
    ("mmlu_pro", 29, 7720, 222748, "", "gemini-1.5-pro-002", 70.31),
    ("mot_date", 356, 369, 131364, "", "gpt-4/cot2", 89.07),
    ("openai_gsm8k", 4, 1319, 5276, "", "gpt3-175b-verification", 56.25),
    ("routellm", 2, 15361, 30722, "gsm8k", "gpt-4-1106-preview", 85.67),
    ("routerbench", 11, 3150, 34650, "arc-challenge", "gpt-4-1106-preview", 95.4),
    ("routerbench", 11, 3150, 34650, "mbpp", "gpt-4-1106-preview", 68.62),
    ("routerdc", 7, 13770, 96390, "mmlu", "meta-llama/Meta-Llama-3-8B", 64.52),
    ("routerdc", 7, 13770, 96390, "humaneval-js", "cognitivecomputations/dolphin-2.9-llama3-8b", 54.52),
    ("sciq_weak", 1, 10000, 10000, "", "qwen-1.8b", 72.93),
]


@pytest.mark.parametrize("row", README, ids=lambda row: f"{row[0]} {row[4]}")
def test_real_sets_have_their_published_accuracies(shared, row):
    name, members, questions, asked, group, best, accuracy = row
    opinions, truth = read_pool(shared / "recorded" / name)
    assert opinions.answer_MN.shape == (members, questions)
    assert np.count_nonzero(opinions.answer_MN != NOT_ASKED) == asked
    right_MN = truth.right_MN[:, opinions.group_N == group] if group else truth.right_MN
    model_M = np.array([member.split("#")[0] for member in opinions.members])
    found = {m: 100 * np.nanmean(right_MN[model_M == m], dtype=np.float64) for m in set(model_M)}
    assert found[best] == max(found.values())
    assert found[best] == pytest.approx(accuracy, abs=0.0051)  # two decimals


def test_a_set_of_judged_texts_has_texts_and_no_truth(shared):
    opinions, truth = read_pool(shared / "recorded" / "alpaca_eval_prefs")
    assert opinions.answer_MN.shape == (58, 805)
    assert np.count_nonzero(opinions.answer_MN == NOT_RECORDED) == 46680
    assert not truth.known_N.any()
    assert sum(text is not None for text in opinions.output_MN.ravel()) == 46680


def test_groups_without_recorded_answers_are_not_abstentions(shared):
    opinions, truth = read_pool(shared / "recorded" / "routellm")
    mmlu_N = np.char.startswith(opinions.group_N.astype(str), "mmlu/")
    assert (opinions.answer_MN[:, mmlu_N] == NOT_RECORDED).all()
    assert (truth.gold_N[mmlu_N] == -2).all()
    assert (opinions.answer_MN[:, ~mmlu_N] >= ABSTAINED).all()
    right_M = truth.right_MN[:, mmlu_N].mean(1)
    assert 100 * np.sort(right_M) == pytest.approx([68.08, 80.58], abs=0.0051)


def test_real_plurality_and_oracle_are_as_published(shared):
    opinions, truth = read_pool(shared / "recorded" / "openai_gsm8k")
    assert 100 * truth.right_MN.max(0).mean() == pytest.approx(67.25, abs=0.0051)
    accuracy_M = truth.right_MN.mean(1)
    votes_NK = np.zeros(opinions.mask_NK.shape)
    for answer_N, accuracy in zip(opinions.answer_MN, accuracy_M, strict=True):
        rows = np.flatnonzero(answer_N >= 0)
        votes_NK[rows, answer_N[rows]] += 1 + 1e-3 * accuracy  # ties go to the more accurate system
    assert 100 * (votes_NK.argmax(1) == truth.gold_N).mean() == pytest.approx(56.33, abs=0.0051)
