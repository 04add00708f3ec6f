"""`w2s combine`, `combine apply` and `combine labels`, by the real command line on small files."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.pools.made import made_up
from w2s.cli import main
from w2s.evaluation.pools.pool import fill_costs
from w2s.pools.records import read_fitted
from w2s.store.records import PseudoLabels, read_arrays


def write(folder, opinions, truth, *, gold=True):
    """The documented format: outputs.jsonl and questions.jsonl."""
    folder.mkdir(parents=True)
    texts = [list(one) for one in opinions.texts_N]
    golds = [str(one) for one in truth.gold_N] if gold else [""] * len(texts)
    rows = {"id": opinions.ids, "group": opinions.group_N, "prompt": opinions.prompt_N, "choices": texts, "gold": golds}
    pd.DataFrame(rows).to_json(folder / "questions.jsonl", orient="records", lines=True)
    outputs = []
    for at, member in enumerate(opinions.members):
        for row, key in enumerate(opinions.ids):
            answer = opinions.answer_MN[at, row]
            outputs.append(
                {
                    "id": key,
                    "model": member,
                    "answer": str(answer) if answer >= 0 else None,
                    "cost": float(opinions.cost_MN[at, row]),
                }
            )
    pd.DataFrame(outputs).to_json(folder / "outputs.jsonl", orient="records", lines=True)
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished `w2s combine` over most methods; its folder."""
    folder = tmp_path_factory.mktemp("combine")
    write(folder / "pool", *made_up(questions=160))
    main(
        [
            "combine",
            str(folder / "pool"),
            "--repeats",
            "2",
            "--out",
            str(folder / "out"),
            "--methods",
            "votes,samme,stacking,top_k,knn,frugal,one_coin",
            "top_k.k=2",
        ]
    )
    return folder


def test_the_folder_holds_numbers_a_page_predictions_and_the_fitted_methods(done):
    found = json.loads((done / "out" / "combine.json").read_text())
    names = [one["name"] for one in found["methods"]]
    assert {"best_single", "plurality", "samme", "logistic", "gradient_boosted", "top_k", "knn", "picked"} <= set(names)
    accuracy = [one["accuracy"][0] for one in found["methods"]]
    assert accuracy == sorted(accuracy, reverse=True)
    for one in found["methods"]:
        low, high = one["accuracy"][1:]
        assert low <= one["accuracy"][0] <= high
    assert found["bounds"]["oracle"][0] >= max(accuracy)
    assert [one["name"] for one in found["left_out"]] == ["mean_of_probabilities", "log_pool"]
    assert next(one for one in found["methods"] if one["name"] == "top_k")["options"] == {"k": 2}
    assert (
        "<svg" in (done / "out" / "combine.html").read_text() or "<img" in (done / "out" / "combine.html").read_text()
    )
    assert {path.stem for path in (done / "out" / "fitted").glob("*.npz")} == set(names) - {"picked"}


def test_predictions_are_a_row_for_each_method_and_question_and_agree_with_the_table(done):
    rows = pq.read_table(done / "out" / "predictions.parquet").to_pandas()
    found = json.loads((done / "out" / "combine.json").read_text())
    assert set(rows.method) == {one["name"] for one in found["methods"]} - {"picked"}
    assert (rows.groupby("method").id.nunique() == 160).all()
    assert rows.right.between(0, 1).all()
    questions = pd.read_json(done / "pool" / "questions.jsonl", lines=True, dtype={"gold": str})
    gold = questions.set_index("id").gold.astype(int)
    logistic = rows[rows.method == "logistic"].set_index("id")
    np.testing.assert_array_equal(logistic.candidate == gold[logistic.index], logistic.right == 1)


def test_the_same_command_again_writes_the_same_numbers(done, tmp_path):
    main(
        [
            "combine",
            str(done / "pool"),
            "--repeats",
            "2",
            "--out",
            str(tmp_path / "again"),
            "--methods",
            "votes,samme,stacking,top_k,knn,frugal,one_coin",
            "top_k.k=2",
        ]
    )
    drop = {"command", "methods"}
    first, second = (json.loads((at / "combine.json").read_text()) for at in (done / "out", tmp_path / "again"))
    assert {k: v for k, v in first.items() if k not in drop} == {k: v for k, v in second.items() if k not in drop}
    for one, other in zip(first["methods"], second["methods"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize("method", ["logistic", "gradient_boosted", "samme", "knn", "frugal", "plurality"])
def test_a_fitted_method_is_applied_to_new_questions_without_gold(done, tmp_path, capsys, method):
    opinions, truth = made_up(seed=9, questions=60)
    new = write(tmp_path / "new", opinions, truth, gold=False)
    main(["combine", "apply", str(done / "out"), str(new), "--method", method, "--out", str(tmp_path / "a.parquet")])
    assert "60 questions" in capsys.readouterr().out
    rows = pq.read_table(tmp_path / "a.parquet").to_pandas().set_index("id")
    assert rows.right.isna().all()
    right = rows.candidate.to_numpy() == pd.Series(truth.gold_N, opinions.ids)[rows.index].to_numpy()
    assert right.mean() > 0.6


def test_what_is_applied_is_what_was_fitted(done):
    fitted = read_fitted(done / "out" / "fitted" / "top_k.npz")
    assert fitted.kind == "vote"
    _, truth = made_up(questions=160)
    best = np.argsort(-truth.right_MN.mean(1))[:2]
    assert sorted(fitted.members.tolist()) == sorted(f"m{at}" for at in best)


def test_labels_are_distributions_that_sum_to_one_and_know_no_gold(done, tmp_path):
    opinions, truth = made_up(seed=9, questions=60)
    found = []
    for gold in (True, False):
        new = write(tmp_path / f"new{gold}", opinions, truth, gold=gold)
        main(
            [
                "combine",
                "labels",
                str(done / "out"),
                str(new),
                "--method",
                "logistic",
                "--select",
                "confidence",
                "--keep-share",
                "0.5",
                "--out",
                str(tmp_path / f"labels{gold}"),
            ]
        )
        found.append(read_arrays(tmp_path / f"labels{gold}" / "labels.npz", PseudoLabels))
    np.testing.assert_allclose(found[0].target_NK.sum(1), 1)
    np.testing.assert_array_equal(found[0].target_NK, found[1].target_NK)
    assert (found[0].weight_N > 0).sum() == 30
    assert len((tmp_path / "labelsTrue" / "questions.jsonl").read_text().splitlines()) == 60


def test_a_config_file_has_the_flags_as_keys_and_the_flags_go_over_it(done, tmp_path):
    config = tmp_path / "pool.yaml"
    config.write_text(f"outputs: {done / 'pool'}\nrepeats: 3\nmethods: [{{name: top_k, k: 4}}, boosting]\n")
    main(["combine", "--config", str(config), "--repeats", "1", "--out", str(tmp_path / "o"), "samme.rounds=5"])
    found = json.loads((tmp_path / "o" / "combine.json").read_text())
    assert found["repeats"] == 1
    options = {one["name"]: one["options"] for one in found["methods"]}
    assert options["top_k"] == {"k": 4}
    assert options["samme"] == {"rounds": 5}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--methods", "plurallity"], "methods: 'plurallity' is not known (did you mean 'plurality'?)"),
        (["--models", "m9"], "m9"),
        (["--groups", "groop 1"], "groups: 'groop 1' is not there (did you mean 'group 1'?)"),
        (["--methods", "samme", "knn.neighbours=3"], "knn.neighbours=3: 'knn' is not among the methods"),
        (["--methods", "samme", "samme.rounds=many"], "methods.rounds: 'many' given; allowed: a whole number"),
        (["--methods", "samme", "samme.round=3"], "methods: 'samme' has no option 'round'; it takes: rounds"),
        (["--methods", "samme", "samme.rounds=0"], "rounds: 0 given; allowed: a whole number above 0"),
        (["--methods", "routing", "knn.seed=-1"], "methods.seed: -1 given; allowed: 0 and above"),
        (["--seed", "-1"], "seed: -1 given; allowed: 0 and above"),
        (["--repeats", "0"], "repeats: 0 given; allowed: a whole number above 0"),
        (["elsewhere"], "2 given; allowed: one file or folder of outputs"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(done, tmp_path, capsys, words, line):
    with pytest.raises(SystemExit) as stopped:
        main(["combine", str(done / "pool"), "--out", str(tmp_path / "o"), *words])
    assert stopped.value.code == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert line in told[-1]
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["combine", "apply", "nowhere", "x"], "nowhere: no combine.json there"),
        (
            ["combine", "apply", "OUT", "POOL", "--method", "logistik"],
            "'logistik' was not fitted there (did you mean 'log",
        ),
        (["combine", "labels", "OUT", "POOL", "--select", "confidenc"], "select: 'confidenc' is not known"),
        (["combine"], "outputs: none given"),
    ],
)
def test_a_wrong_folder_or_method_is_said_in_one_line(done, capsys, words, line):
    words = [{"OUT": str(done / "out"), "POOL": str(done / "pool")}.get(word, word) for word in words]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert line in capsys.readouterr().err


def test_a_damaged_fitted_file_is_refused(done, tmp_path, capsys):
    bad = done / "out" / "fitted" / "damaged.npz"
    bad.write_bytes(b"no archive")
    try:
        with pytest.raises(SystemExit):
            main(["combine", "apply", str(done / "out"), str(done / "pool"), "--method", "damaged"])
        assert "not a fitted combiner" in capsys.readouterr().err
    finally:
        bad.unlink()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("methods: [[1]]", "methods: [1] given; allowed: a name, or a mapping with a name and options"),
        ("methods: [{name: [1]}]", "methods: {'name': [1]} given; allowed: a name, or"),
        ("methods: [{k: 1}]", "methods: {'k': 1} given; allowed: a name, or"),
        ("costs: {1: 0.5}", "costs: 1 given; allowed: a member's name or pattern, as text"),
    ],
)
def test_what_is_wrong_in_a_config_file_is_said_in_one_line(done, tmp_path, capsys, line, told):
    config = tmp_path / "pool.yaml"
    config.write_text(f"outputs: {done / 'pool'}\nout: {tmp_path / 'o'}\n{line}\n")
    with pytest.raises(SystemExit) as stopped:
        main(["combine", "--config", str(config)])
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_a_file_in_the_place_of_the_results_is_told_before_the_work(done, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for words in (
        ["combine", str(done / "pool"), "--out", str(tmp_path / "file")],
        ["combine", "apply", str(done / "out"), str(done / "pool"), "--out", str(tmp_path / "file" / "a.parquet")],
        ["combine", "apply", str(done / "out"), str(done / "pool"), "--out", str(tmp_path)],
        ["combine", "labels", str(done / "out"), str(done / "pool"), "--out", str(tmp_path / "file")],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        assert "out: " in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_members_whose_names_hold_a_hash_are_found_again(tmp_path, capsys):
    opinions, truth = made_up(questions=40)
    opinions = dataclasses.replace(opinions, members=np.array(["org/m#1", "org/m#x", "m2", "m3", "#"]))
    write(tmp_path / "pool", opinions, truth)
    main(["combine", str(tmp_path / "pool"), "--repeats", "1", "--methods", "votes", "--out", str(tmp_path / "o")])
    main(["combine", "apply", str(tmp_path / "o"), str(tmp_path / "pool"), "--method", "plurality"])
    assert "plurality: 40 questions" in capsys.readouterr().out


def test_samples_of_a_model_are_found_again(tmp_path, capsys):
    opinions, truth = made_up(questions=40)
    write(tmp_path / "pool", opinions, truth)
    outputs = pd.read_json(tmp_path / "pool" / "outputs.jsonl", lines=True, dtype={"answer": object})
    outputs["sample"], outputs["model"] = outputs.model.str[1:].astype(int), "m"
    outputs.to_json(tmp_path / "pool" / "outputs.jsonl", orient="records", lines=True)
    main(["combine", str(tmp_path / "pool"), "--repeats", "1", "--methods", "selection", "--out", str(tmp_path / "o")])
    assert set(read_fitted(tmp_path / "o" / "fitted" / "top_k.npz").members.tolist()) == {"m#0", "m#1", "m#2"}
    main(["combine", "apply", str(tmp_path / "o"), str(tmp_path / "pool"), "--method", "top_k"])
    assert "top_k: 40 questions" in capsys.readouterr().out


def test_a_method_whose_evidence_is_not_there_says_so_in_one_line(done, tmp_path, capsys):
    """Fitted on confidences, applied where none were recorded."""
    opinions, truth = made_up(questions=40)
    scored = write(tmp_path / "scored", opinions, truth)
    outputs = pd.read_json(scored / "outputs.jsonl", lines=True, dtype={"answer": object})
    outputs.assign(score=0.5).to_json(scored / "outputs.jsonl", orient="records", lines=True)
    main(["combine", str(scored), "--repeats", "1", "--methods", "stacking", "--out", str(tmp_path / "o")])
    for method in ("logistic", "gradient_boosted"):
        with pytest.raises(SystemExit) as stopped:
            main(["combine", "apply", str(tmp_path / "o"), str(done / "pool"), "--method", method])
        assert stopped.value.code == 2
        assert "fitted with the members' confidences, and none were recorded" in capsys.readouterr().err
    main(["combine", "apply", str(done / "out"), str(scored), "--method", "logistic"])  # more than it knows is no harm
    assert "logistic: 40 questions" in capsys.readouterr().out


def test_fits_of_an_earlier_run_do_not_stay_behind(done, tmp_path):
    for methods in ("votes", "selection"):
        words = ["--repeats", "1", "--methods", methods, "--out", str(tmp_path / "o"), "--replace"]
        main(["combine", str(done / "pool"), *words])
    there = {path.stem for path in (tmp_path / "o" / "fitted").glob("*.npz")}
    assert "decorrelated" not in there
    assert "top_k" in there


def test_results_of_another_pool_or_of_other_methods_are_not_written_over(done, tmp_path, capsys):
    shutil.copytree(done / "out", tmp_path / "o")
    before = {path: path.read_bytes() for path in (tmp_path / "o").rglob("*") if path.is_file()}
    same = ["--repeats", "2", "--methods", "votes,samme,stacking,top_k,knn,frugal,one_coin"]
    shutil.copytree(done / "pool", tmp_path / "pool")
    for pool, words, told in (
        (tmp_path / "pool", [*same, "top_k.k=2"], "outputs is "),
        (done / "pool", [*same, "top_k.k=3"], ".k is 2 there, 3 here"),
        (done / "pool", [*same, "--seed", "1", "top_k.k=2"], "seed is 0 there, 1 here"),
        (done / "pool", [*same, "--models", "a,b", "top_k.k=2"], "models is [] there, ['a', 'b'] here"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["combine", str(pool), *words, "--out", str(tmp_path / "o")])
        line = capsys.readouterr().err
        assert stopped.value.code == 2
        assert told in line
        assert "--replace to replace it" in line
        assert line.count("\n") == 1
    assert before == {path: path.read_bytes() for path in (tmp_path / "o").rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors", "combine.json"])
def test_a_folder_of_something_else_is_not_written_into(done, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(SystemExit):
        main(["combine", str(done / "pool"), "--repeats", "1", "--methods", "votes", "--out", str(tmp_path)])
    assert f"out: {tmp_path} is in use: it" in capsys.readouterr().err
    for words, out in (("apply", tmp_path / name), ("labels", tmp_path)):
        with pytest.raises(SystemExit):
            main(["combine", words, str(done / "out"), str(done / "pool"), "--method", "plurality", "--out", str(out)])
        assert f"out: {out} is in use: it" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def test_labels_that_a_kill_left_without_their_questions_are_written_again(done, tmp_path):
    (tmp_path / "labels.npz").write_bytes(b"")
    main(["combine", "labels", str(done / "out"), str(done / "pool"), "--method", "plurality", "--out", str(tmp_path)])
    assert (tmp_path / "questions.jsonl").stat().st_size
    assert (tmp_path / "labels.npz").stat().st_size


def test_a_folder_with_a_broken_report_or_a_cut_file_is_refused(done, tmp_path, capsys):
    (tmp_path / "fitted").mkdir()
    whole = (done / "out" / "fitted" / "plurality.npz").read_bytes()
    (tmp_path / "fitted" / "plurality.npz").write_bytes(whole[:200])
    for text, words, told in (
        ("{", [], "not what `w2s combine` wrote"),
        ("{}", [], "not what `w2s combine` wrote"),
        ("{}", ["--method", "plurality"], "not a fitted combiner"),
    ):
        (tmp_path / "combine.json").write_text(text)
        with pytest.raises(SystemExit) as stopped:
            main(["combine", "apply", str(tmp_path), str(done / "pool"), *words])
        assert stopped.value.code == 2
        assert told in capsys.readouterr().err


def test_one_new_question_that_a_member_leaves_open_is_no_fault(done, tmp_path, capsys):
    opinions, truth = made_up(seed=9, questions=60)
    answer_MN = opinions.answer_MN.copy()
    answer_MN[0, 0], answer_MN[1:, 0] = -1, 1
    opinions = dataclasses.replace(opinions, answer_MN=answer_MN)
    new = write(tmp_path / "new", opinions.questions(np.arange(1)), truth.questions(np.arange(1)), gold=False)
    main(["combine", "apply", str(done / "out"), str(new), "--method", "plurality", "--out", str(tmp_path / "a")])
    assert "plurality: 1 questions, 0 without an answer" in capsys.readouterr().out


def test_a_gap_in_the_costs_gets_its_member_s_mean_and_a_member_without_any_leaves_them_out(capsys):
    opinions, _ = made_up(questions=20)
    cost_MN = opinions.cost_MN.copy()
    cost_MN[1, :10] = np.nan
    filled = fill_costs(dataclasses.replace(opinions, cost_MN=cost_MN)).cost_MN
    np.testing.assert_allclose(filled, opinions.cost_MN)
    cost_MN[1] = np.nan
    assert fill_costs(dataclasses.replace(opinions, cost_MN=cost_MN)).cost_MN is None
    assert "m1 has none" in capsys.readouterr().err


def test_prices_by_pattern_make_a_cost_of_each_answer(done, tmp_path):
    frame = pd.read_json(done / "pool" / "outputs.jsonl", lines=True, dtype={"answer": str}).drop(columns="cost")
    shutil.copytree(done / "pool", tmp_path / "pool")
    frame.to_json(tmp_path / "pool" / "outputs.jsonl", orient="records", lines=True)
    main(
        [
            "combine",
            str(tmp_path / "pool"),
            "--methods",
            "best_single",
            "--repeats",
            "1",
            "--costs",
            "m0=0.5,*=0.25",
            "--out",
            str(tmp_path / "o"),
        ]
    )
    found = json.loads((tmp_path / "o" / "combine.json").read_text())
    prices = {one["name"]: one["cost"] for one in found["singles"]}
    assert prices == {"m0": 500.0, **{f"m{at}": 250.0 for at in range(1, 5)}}


def test_a_smoke_run_takes_the_first_questions_by_id_and_says_so_everywhere(done, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["combine", str(done / "pool"), "--methods", "plurality", "--repeats", "1", "--limit", "40"])
    folder = tmp_path / "runs" / "combine" / "pool-limit-40"
    found = json.loads((folder / "combine.json").read_text())
    ids = sorted(pd.read_json(done / "pool" / "questions.jsonl", lines=True, dtype=str).id)
    assert set(pq.read_table(folder / "predictions.parquet").to_pandas().id) == set(ids[:40])
    told = "a smoke run: the first 40 of 160 questions by id"
    assert found["remarks"][0] == told
    assert "(the first 40 questions)" in found["outputs"]
    assert told in (folder / "combine.html").read_text().replace("A smoke", "a smoke")
    assert told in capsys.readouterr().err


def test_costs_in_another_unit_are_shown_in_it(done, tmp_path, capsys):
    words = ["--methods", "plurality,top_k", "--repeats", "1", "--unit", "tokens", "--out", str(tmp_path / "o")]
    main(["combine", str(done / "pool"), *words])
    assert "tokens/1,000" in capsys.readouterr().out
    page = (tmp_path / "o" / "combine.html").read_text()
    assert "tokens per 1,000" in page
    assert "$" not in page.split("How to repeat it")[0].split("<body>")[-1]
    main(["combine", "apply", str(tmp_path / "o"), str(done / "pool"), "--method", "plurality"])
    assert "tokens per 1,000 questions" in capsys.readouterr().out


def log_rows(model: int, questions: int = 24) -> list[dict]:
    """A generated task under a filter that finds nothing and one that does; a third of the answers is wrong."""
    rows = []
    for name in ("strict", "flexible"):
        for at in range(questions):
            said = at + (at % 3 == model)
            rows.append(
                {
                    "doc_id": at,
                    "doc": {},
                    "target": f"#### {at}",
                    "arguments": [[f"q{at}", {}]],
                    "resps": [[f"{said}"]],
                    "filtered_resps": ["[invalid]" if name == "strict" else f"{said}"],
                    "filter": name,
                    "metrics": ["exact_match"],
                    "exact_match": float(name == "flexible" and said == at),
                }
            )
    return rows


def test_the_choice_of_a_log_s_filter_is_in_the_report_and_holds_when_the_method_is_applied(tmp_path, capsys):
    for model in range(3):
        path = tmp_path / "log" / f"m{model}" / "samples_sums_2026-01-02T03-04-05.6.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in log_rows(model)))
    words = ["--methods", "plurality", "--repeats", "1", "--out", str(tmp_path / "o"), "--filter", "flexible"]
    main(["combine", str(tmp_path / "log"), *words])
    found = json.loads((tmp_path / "o" / "combine.json").read_text())
    assert next(one for one in found["methods"] if one["name"] == "plurality")["accuracy"][0] == 1
    assert "filter flexible" in found["remarks"][0]
    assert found["log"] == {"metrics": [], "filters": ["flexible"]}
    capsys.readouterr()
    main(["combine", "apply", str(tmp_path / "o"), str(tmp_path / "log"), "--method", "plurality"])
    said = capsys.readouterr()
    assert "filter flexible" in said.err
    assert "right: 100.0%" in said.out
    with pytest.raises(SystemExit) as stopped:
        main(["combine", str(tmp_path / "log"), *words[:-1], "flexibel", "--replace"])
    assert stopped.value.code == 2
    assert "no filter flexibel (did you mean 'flexible'?); there are: strict, flexible" in capsys.readouterr().err


def test_predictions_and_labels_of_another_method_are_not_written_over(done, tmp_path, capsys):
    pool, out = str(done / "pool"), {"apply": tmp_path / "a.parquet", "labels": tmp_path / "labels"}
    read = {"apply": out["apply"], "labels": out["labels"] / "labels.npz"}
    for command, place in out.items():
        words = ["combine", command, str(done / "out"), pool, "--out", str(place), "--method"]
        main([*words, "plurality"])
        before = read[command].read_bytes()
        main([*words, "plurality"])  # the same again is no harm
        assert read[command].read_bytes() == before
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([*words, "logistic"])
        assert stopped.value.code == 2
        line = capsys.readouterr().err
        assert f"out: {place} is in use: method is plurality there, logistic here" in line
        assert "--replace to replace it" in line
        assert line.count("\n") == 1
        assert read[command].read_bytes() == before
        main([*words, "logistic", "--replace"])
        assert read[command].read_bytes() != before


def test_predictions_of_unknown_origin_and_labels_without_their_recipe_are_not_written_over(done, tmp_path, capsys):
    pd.DataFrame({"id": ["mine"]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "labels").mkdir()
    for name in ("labels.npz", "questions.jsonl"):
        (tmp_path / "labels" / name).write_text("mine")
    for command, name in (("apply", "a.parquet"), ("labels", "labels")):
        words = ["combine", command, str(done / "out"), str(done / "pool"), "--method", "plurality"]
        with pytest.raises(SystemExit):
            main([*words, "--out", str(tmp_path / name)])
        assert f"out: {tmp_path / name} is in use: " in capsys.readouterr().err
    assert pd.read_parquet(tmp_path / "a.parquet").id.tolist() == ["mine"]
