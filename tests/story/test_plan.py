"""What would run, said before it runs."""

import pytest

from w2s.config.load import load
from w2s.store.artifacts import Store
from w2s.story.main import build
from w2s.story.plan import describe_plan, refuse


def test_the_table_counts_seeds_and_rounds_and_adds_up(tiny_config):
    said = describe_plan(load(tiny_config, ["seeds=[0,1]", "boosting.rounds=3"]))
    rows = [line.split() for line in said.splitlines() if line.rstrip().endswith(" boosting_round")]
    assert [row[-2] for row in rows] == ["6", "6"]  # committee and bagged: 2 seeds of 3 rounds
    table = said.splitlines()[2 : said.splitlines().index("") - 1]
    total = said.splitlines()[said.splitlines().index("") - 1].split()
    assert sum(int(line[51:58]) for line in table) == int(total[-1])


def test_the_rows_are_those_that_the_run_would_have(tiny_config):
    said = describe_plan(load(tiny_config))
    counts = {
        line.split()[0]: line.split()[1]
        for line in said.splitlines()
        if line.startswith(("easy_fit ", "easy_hold", "transfer ", "hard_"))
    }
    assert counts == {"easy_fit": "160", "easy_holdout": "60", "transfer": "100", "hard_test": "80"}


def test_a_smoke_run_is_marked_its_sets_are_cut_and_it_shares_no_stage_that_holds_questions(tiny_config):
    said = describe_plan(load(tiny_config, ["limit=30"]))
    assert said.startswith("smoke run: the first 30 questions by id of every set")
    assert [line.split()[1] for line in said.splitlines() if line.startswith(("easy_fit ", "hard_test "))] == ["30"] * 2
    told = [{stage.folder_name for stage in build(load(tiny_config, more), None)} for more in ([], ["limit=30"])]
    shared = {name.split("-")[0] for name in told[0] & told[1]}
    assert shared <= {"suite", "suite_gold", "pretrain"}  # suites of 3 and 12 questions, and a base of random weights


def test_a_finished_run_has_nothing_to_do(in_tiny_run):
    said = describe_plan(load("tiny.yaml"))
    assert said.split("\n\n")[0].splitlines()[-1].split()[-1] == "0"
    assert "easy_fit" in said


def test_a_plan_runs_no_job(tmp_path):
    with pytest.raises(RuntimeError, match="a plan runs no job"):
        refuse(tmp_path)
    assert not Store(tmp_path).path.__self__.folder.joinpath("store").exists()
