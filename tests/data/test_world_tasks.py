import numpy as np
import pytest

from w2s.data import world_tasks
from w2s.data.world import corpus, item_names, world
from w2s.data.world_tasks import EASY_GAP, END, FUNCTIONS, HIDDEN, OPERATORS, SHOWN, THINGS, TRAITS, rankings, run
from w2s.grading.answers import same_answer
from w2s.grading.extract import extract_program
from w2s.grading.judge import judge
from w2s.models.builtin import SPECIAL, word_tokenizer


def ranks_of(example, words):
    """rank_2C: of the things in `words` under the two traits of the question."""
    index = {name: at for at, name in enumerate(item_names(example.meta["world"])[:THINGS])}
    traits = [TRAITS.index(trait) for trait in example.meta["subject"].split()]
    return rankings(example.meta["world"])[traits][:, [index[word] for word in words]]


def things_of(example):
    if example.task == "answer":
        return example.prompt.split(" ? ")[1].removesuffix(" =").split()
    return example.prompt.split("def f(")[1].removesuffix("):").split(", ")


@pytest.mark.parametrize("seed", [0, 1])
def test_an_answer_names_the_highest_thing_of_each_trait(seed):
    examples, gold = world(None, task="answer", easy=150, hard=150, seed=seed)
    assert len({example.id for example in examples}) == 300
    for example, row in zip(examples, gold, strict=True):
        words, (first, second) = things_of(example), example.meta["subject"].split()
        one, two = ranks_of(example, words).argmin(1)
        assert row.answer == f"{first} {words[one]} {second} {words[two]}"
        assert same_answer(row.answer, row.answer)
        assert not same_answer(f"{first} {words[one]} {second} {words[two - 1]}", row.answer)


@pytest.mark.parametrize("task", ["answer", "code"])
def test_both_gaps_of_an_easy_question_are_wide_and_levels_rise_as_the_narrower_one_shrinks(task):
    examples, _ = world(None, task=task, easy=200, hard=200)
    for example in examples:
        rank_2C = np.sort(ranks_of(example, things_of(example)), axis=1)
        gap = int((rank_2C[:, 1] - rank_2C[:, 0]).min())
        assert example.meta["level"] == max(0, EASY_GAP - gap)
        assert example.meta["synthetic"]
        assert example.task == task
    assert [example.meta["level"] >= 1 for example in examples] == [False] * 200 + [True] * 200


def test_the_reference_programs_pass_and_other_ones_fail():
    examples, gold = world(None, task="code", easy=4, hard=4, seed=1)
    rows, wanted = [], []
    for example, row in zip(examples, gold, strict=True):
        text = row.answer.removeprefix(example.prompt)
        worse = text.replace(text.split()[-1], next(word for word in things_of(example) if word not in text))
        assert f"{example.prompt}{text}" == row.answer
        for program, right in ((text, True), (text.strip(), True), (row.answer, True), (worse, False), ("9", False)):
            rows.append((example, row, program))
            wanted.append(right)
    assert [verdict[0] for verdict in judge(rows)] == wanted


def test_the_example_in_the_comment_of_a_function_is_true_of_the_reference_program():
    for example, row in zip(*world(None, task="code", easy=100, hard=100), strict=True):
        space: dict = {}
        exec(row.answer, space)
        assert f"f(2, 3, 5, 7) == {space['f'](*SHOWN)}\n" in example.prompt
        assert extract_program(example, row.answer.removeprefix(example.prompt)).startswith(example.prompt)


def test_what_a_function_gives_is_what_python_makes_of_it():
    for traits, places in FUNCTIONS:
        line = world_tasks.body(traits, ["abcd"[place] for place in places]).removeprefix("return ")
        for arguments in (SHOWN, *HIDDEN):
            assert run(traits, places, arguments) == eval(line, dict(zip("abcd", arguments, strict=True)))


def test_the_hidden_arguments_tell_functions_apart_that_are_not_the_same():
    many = np.random.default_rng(0).integers(1, 100, size=(200, 4)).tolist()
    by_hidden = [tuple(run(*one, arguments) for arguments in HIDDEN) for one in FUNCTIONS]
    by_many = [tuple(run(*one, arguments) for arguments in many) for one in FUNCTIONS]
    # 9 * x % x is 0 whatever x is, and so on: some functions that are written differently are the same.
    assert 100 < len(set(by_many)) < len(FUNCTIONS)
    assert len(set(by_hidden)) == len(set(zip(by_hidden, by_many, strict=True))) == len(set(by_many))


def test_a_gold_text_that_a_word_tokenizer_spells_is_the_same_text():
    tokenizer = word_tokenizer(corpus(0, 20_000, task="code"))
    for task in ("answer", "code"):
        for example, row in zip(*world(None, task=task, easy=50, hard=50), strict=True):
            text = row.answer.removeprefix(example.prompt).strip()
            ids = tokenizer(example.prompt + " " + text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(tokenizer(" " + text)["input_ids"]) == text
            assert len(ids) + 1 <= 48
    assert tokenizer(END)["input_ids"] == [tokenizer.eos_token_id]
    assert not {"[", "eos", "]"} & set(tokenizer.get_vocab())
    assert END in SPECIAL


def test_one_corpus_serves_both_tasks_and_tells_the_highest_but_no_answer():
    lines = list(corpus(0, 2000, task="answer"))
    assert lines == list(corpus(0, 2000, task="code"))
    texts, asked = lines[:2000], lines[2000:]
    index, rank_AI = {name: at for at, name in enumerate(item_names(0))}, rankings(0)
    traits = {OPERATORS[trait]: trait for trait in TRAITS} | {trait: trait for trait in TRAITS}
    for line in texts:
        assert line.endswith(f" {END}")
        words, told = line.removesuffix(f" {END}").split("): return 9 " if line.startswith("def") else " ; ")
        things = [index[word] for word in words.removeprefix("def f(").replace(",", "").split()]
        told = told.replace(" ,", "").split()
        for trait, word in zip(told[::2], told[1::2], strict=True):
            assert index[word] == min(things, key=lambda thing: rank_AI[TRAITS.index(traits[trait])][thing])
    assert sum(line.startswith("def") for line in texts) == 600
    assert len(asked) == 40
    assert all(line.endswith(("=", "):")) for line in asked)
    assert not any("\n" in line for line in lines)


def test_the_seed_draws_the_questions_and_picks_the_world():
    first, again, other = (world(None, task="code", easy=30, hard=30, seed=seed)[0] for seed in (0, 2, 1))
    assert {e.meta["world"] for e in first} == {e.meta["world"] for e in again} == {0}
    assert {e.meta["world"] for e in other} == {1}
    assert {e.id for e in first}.isdisjoint(e.id for e in again)
    assert world(None, task="code", easy=30, hard=30, seed=5) == world(None, task="code", easy=30, hard=30, seed=5)
    assert (rankings(0) != rankings(1)).any()


def test_a_split_a_limit_and_a_level_are_kept_to():
    examples, gold = world(None, task="answer", split="hard", hard=20, limit=7, level=3.0)
    assert [row.id for row in gold] == [example.id for example in examples]
    assert len(examples) == 7
    assert {example.meta["level"] for example in examples} == {3.0}


def test_every_operator_belongs_to_one_trait():
    assert set(OPERATORS) == set(TRAITS)
    assert set(world_tasks.TIGHTNESS) == set(world_tasks.COMPUTE) == set(OPERATORS.values())
