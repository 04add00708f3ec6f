"""The words a person types: exits, lines, and no traceback for what they got wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from w2s.cli import main, make_parser

HEAVY = ("torch", "transformers", "deepspeed", "sklearn", "matplotlib", "datasets", "pandas")


def fails(capsys, *words: str) -> tuple[int, list[str]]:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return caught.value.code, capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["rewards", "--help"], ["rewards", "run", "--help"]])
def test_help_is_printed(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    assert "usage: w2s" in capsys.readouterr().out


def test_the_version_is_told_with_the_commit_where_there_is_one(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert re.fullmatch(r"w2s \d+(\.\d+)+\S*( \(commit \w+\))?\n", capsys.readouterr().out)


@pytest.mark.parametrize("words", [["--limit", "20", "name=x"], ["name=x", "--limit=20"], ["limit=20", "name=x"]])
def test_keys_and_flags_come_in_any_order(capsys, tiny_config, words):
    main(["plan", str(tiny_config), *words])
    assert "the first 20 questions" in capsys.readouterr().out


@pytest.mark.parametrize("given", ["0", "-3", "2.5", "many"])
def test_a_limit_is_a_whole_number_above_0(capsys, given):
    code, lines = fails(capsys, "plan", "x.yaml", f"--limit={given}")
    assert (code, lines[-1]) == (
        2,
        f"w2s plan: error: argument --limit: {given!r} given; allowed: a whole number above 0",
    )


@pytest.mark.parametrize(("study", "config"), [("run", "hh_rlhf"), ("curve", "overoptimisation")])
def test_a_study_of_rewards_refuses_a_limit(capsys, study, config):
    path = Path(__file__).parents[1] / "configs" / "rewards" / f"{config}.yaml"
    words = "w2s: command line: limit: 5 given; it goes with `w2s run` and `w2s evaluate`"
    assert fails(capsys, "rewards", study, str(path), "limit=5") == (2, [words])


def test_every_command_of_the_readme_is_there():
    commands = next(action for action in make_parser()._actions if action.choices).choices
    combining = {"combine", "combine apply", "combine labels"}
    rewards = {"rewards", "rewards run", "rewards curve"}
    alone = {"run", "plan", "show", "why", "report", "evaluate", "experts", "merge", "judge", "methods", "env", "init"}
    configs = {"config", "config reference", "config schema"}
    assert set(commands) == alone | combining | rewards | configs
    assert all(parser.description for parser in commands.values())


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["rn"],
        ["run"],
        ["rewards"],
        ["rewards", "walk"],
        ["config"],
        ["config", "keys"],
        ["init", "poems"],
        ["evaluate", "m"],
        ["why", "run"],
        ["plan", "--seed", "3", "x"],
    ],
)
def test_a_command_that_is_not_understood_exits_2(capsys, words):
    code, lines = fails(capsys, *words)
    assert code == 2
    assert lines[-1].startswith("w2s")


def test_methods_are_listed_with_their_options(capsys):
    main(["methods"])
    everything = capsys.readouterr().out
    for table in ("sources", "boosters", "combiners", "losses", "pipelines", "selectors", "prompts", "difficulty"):
        assert f"\n{table}\n" in f"\n{everything}"
    main(["methods", "boosters"])
    assert "shrinkage: a number (default 1.0)" in capsys.readouterr().out
    assert fails(capsys, "methods", "booster") == (2, [
        "w2s: table: 'booster' is not known (did you mean 'boosters'?); it can be: sources, difficulty, prompts, "
        "boosters, combiners, alphas, selectors, pairs, preferences, aggregators, objectives, "
        "combine, combine_families, combine_apply, combine_online, merges, kinds, losses, pipelines"
    ])  # fmt: skip


def test_env_says_what_a_bug_report_needs(capsys):
    main(["env"])
    facts = json.loads(capsys.readouterr().out)
    assert {"python", "torch", "deepspeed", "commit", "cores", "accelerators", "sandbox"} <= set(facts)


@pytest.mark.parametrize("command", ["why", "report", "show"])
def test_what_is_not_there_is_said(capsys, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    code, lines = fails(capsys, command, "nothing", *(["row"] if command == "why" else []))
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("w2s: nothing: no")


def test_plan_shows_stages_rows_and_prompts_and_runs_nothing(capsys, tiny_config):
    main(["plan", str(tiny_config)])
    said = capsys.readouterr().out
    for words in ("boosting_round", "easy_fit", "learner 1 (builtin:weak, lm) would see:", "candidate: ' "):
        assert words in said
    assert not (tiny_config.parent / "runs").exists()


@pytest.mark.parametrize("words", ["--help", "run bad.yaml", "run good.yaml boosting.rounds=0", "report nothing"])
def test_nothing_heavy_is_imported_where_nothing_heavy_is_done(tmp_path, words):
    (tmp_path / "bad.yaml").write_text("seed: 1\n")
    (tmp_path / "good.yaml").write_text("data: {easy_max: 0, hard_min: 1}\n")
    program = f"""
import sys
from w2s.cli import main
try:
    main({words.split()!r})
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stderr.splitlines()[-1] == "[]"


def test_a_method_that_is_not_there_costs_no_torch(tmp_path):
    (tmp_path / "c.yaml").write_text("data: {easy_max: 0, hard_min: 1}\nlabel: {combiner: {name: softvote}}\n")
    program = (
        "import sys; from w2s.cli import main\ntry: main(['run', 'c.yaml'])\nfinally: print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip()) == (2, "False")
    assert ran.stderr.startswith("w2s: label.combiner: 'softvote' is not known (did you mean 'soft_vote'?)")
    assert list(Path(tmp_path).iterdir()) == [tmp_path / "c.yaml"]
