import dataclasses
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from w2s.pools.defects import EVERYONE, find_suspicious, pool_notes
from w2s.pools.read import read_pool
from w2s.pools.records import Opinions, Truth

YES_NO = ("causal_judgement", "formal_fallacies", "navigate", "sports_understanding", "web_of_lies")


def made(accuracy: list[float], *, size: int = 400, choices: int = 4, seed: int = 0, groups: int = 2):
    """Independent members on questions with choices; gold is spread evenly."""
    rng = np.random.default_rng(seed)
    gold_N = rng.integers(0, choices, size)
    right_MN = rng.random((len(accuracy), size)) < np.array(accuracy)[:, None]
    other_MN = (gold_N + rng.integers(1, choices, right_MN.shape)) % choices
    answer_MN = np.where(right_MN, gold_N, other_MN).astype(np.int16)
    texts_N = np.empty(size, object)
    texts_N.fill(tuple("abcdefgh"[:choices]))
    group_N = np.array([f"task{at % groups}" for at in range(size)], object)
    ids = np.arange(size).astype(str)
    members = np.array([f"m{at}" for at in range(len(accuracy))])
    empty_N = np.full(size, "", object)
    opinions = Opinions(ids, members, answer_MN, np.full(size, choices, np.int32), texts_N, group_N, empty_N)
    return opinions, Truth(ids, gold_N.astype(np.int16), right_MN.astype(np.float32))


def relabelled(opinions: Opinions, truth: Truth, gold_N: np.ndarray) -> Truth:
    return Truth(truth.ids, gold_N, (opinions.answer_MN == gold_N).astype(np.float32))


def test_members_far_below_chance_are_named_with_their_task_and_sound_labels_are_not():
    opinions, truth = made([0.7, 0.6, 0.8])
    assert find_suspicious(opinions, truth) == []
    gold_N = np.where(opinions.group_N == "task1", (truth.gold_N + 1) % 4, truth.gold_N)
    found = find_suspicious(opinions, relabelled(opinions, truth, gold_N))
    assert {group for group, *_ in found} == {"task1"}
    assert {member for _, member, *_ in found} == {"m0", "m1", "m2", EVERYONE}
    for _, member, accuracy, chance, n in found:
        assert accuracy < chance
        assert chance == (0.5 if member == EVERYONE else 0.25)
        assert n == (200 if member != EVERYONE else n)


def test_chance_alone_is_flagged_in_at_most_the_level():
    seeds = range(100)
    flagged = sum(bool(find_suspicious(*made([0.25, 0.25], seed=seed))) for seed in seeds)
    assert flagged <= 12  # 0.05 of 100, and three standard errors


def test_agreement_on_wrong_answers_is_flagged_where_no_member_is_below_chance():
    opinions, truth = made([0.9, 0.9, 0.9], choices=8)
    gold_N = np.random.default_rng(1).permutation(truth.gold_N)  # labels of other questions
    found = find_suspicious(opinions, relabelled(opinions, truth, gold_N))
    assert {member for _, member, *_ in found} == {EVERYONE}


def test_abstentions_are_no_evidence():
    opinions, truth = made([0.5, 0.5])
    refused_MN = (truth.right_MN > 0) & (np.random.default_rng(1).random(truth.right_MN.shape) < 0.6)
    shy = dataclasses.replace(opinions, answer_MN=np.where(refused_MN, -1, opinions.answer_MN))
    right_MN = np.where(refused_MN, 0, truth.right_MN)
    assert (right_MN.mean(1) < 0.22).all()  # with refusals counted as wrong both would be below chance
    assert find_suspicious(shy, dataclasses.replace(truth, right_MN=right_MN)) == []


def test_questions_without_choices_have_no_chance_to_be_below():
    opinions, truth = made([0.05, 0.05], choices=2)
    assert find_suspicious(opinions, truth)
    lost = dataclasses.replace(truth, gold_N=np.where(np.arange(400) % 50 < 2, -1, truth.gold_N))
    assert find_suspicious(opinions, lost) == []  # where gold is no candidate, candidates are what was answered


def test_what_a_person_should_know_is_said_with_counts():
    opinions, truth = made([0.7, 0.6, 0.8], size=100)
    answer_MN, right_MN, gold_N = opinions.answer_MN.copy(), truth.right_MN.copy(), truth.gold_N.copy()
    answer_MN[0, :10], right_MN[0, :10] = -1, 0
    answer_MN[1, 90:], right_MN[1, 90:] = -2, np.nan
    gold_N[80:85], right_MN[:, 80:83] = -2, np.nan
    right_MN[2, 50] = 1 - right_MN[2, 50]
    cost_MN = np.full(answer_MN.shape, 0.01)
    cost_MN[2, :7] = np.nan
    spoiled = dataclasses.replace(opinions, answer_MN=answer_MN, cost_MN=cost_MN)
    notes = pool_notes(spoiled, Truth(truth.ids, gold_N, right_MN))
    assert notes == [
        "10 of 290 answers are abstentions (3.4%); above 5%: m0 10.0%",
        "1 members were not asked all 100 questions: m1 90",
        "3 of 100 questions have neither gold nor flags: they are not used",
        "2 of 100 questions have flags but no gold: votes cannot be judged on them",
        "1 flags disagree with the gold answer: the flag is trusted",
        "7 answers have no cost: their member's mean stands in (--costs gives prices)",
    ]


def test_a_sound_pool_has_no_notes():
    assert pool_notes(*made([0.7, 0.6, 0.8])) == []


# --- real outputs ----------------------------------------------------------------------------------------------------


def test_reversed_labels_of_real_tasks_are_flagged(shared, tmp_path):
    """bbh_repaired with yes and no reversed in the tasks whose labels its source had reversed.

    web_of_lies cannot show: its best member is right on 56% of the 250 questions, so with reversed labels on 44%, which
    chance does in one of 30 tasks.
    """
    source = shared / "recorded" / "bbh_repaired"
    shutil.copy(source / "outputs.parquet", tmp_path)
    table = pq.read_table(source / "questions.parquet")
    rows = table.select(["group", "gold"]).to_pylist()
    gold = [str(1 - int(row["gold"])) if row["group"] in YES_NO else row["gold"] for row in rows]
    shipped = table.set_column(table.schema.get_field_index("gold"), "gold", pa.array(gold))
    pq.write_table(shipped, tmp_path / "questions.parquet")
    answers = pq.read_table(source / "outputs.parquet").drop_columns(["correct"])  # the flags follow the labels
    pq.write_table(answers, tmp_path / "outputs.parquet")
    opinions, truth = read_pool(tmp_path)
    flagged = {group for group, *_ in find_suspicious(opinions, truth)}
    assert flagged == {*YES_NO, "geometric_shapes"} - {"web_of_lies"}
    assert any("sports_understanding" in note and "wrong labels?" in note for note in pool_notes(opinions, truth))


def test_repaired_labels_are_not_flagged_but_for_a_model_that_has_one_answer(shared):
    opinions, truth = read_pool(shared / "recorded" / "bbh_repaired")
    assert [found[:2] for found in find_suspicious(opinions, truth)] == [("geometric_shapes", "Llama-2-70b-chat")]
    # A defect of the model: 222 of its 250 answers are one choice, and that choice is never right.
    rows = opinions.group_N == "geometric_shapes"
    favourite = opinions.only(["Llama-2-70b-chat"]).answer_MN[0, rows]
    assert np.bincount(favourite).max() == 222
    assert not (truth.gold_N[rows] == np.bincount(favourite).argmax()).any()


def test_refusals_are_counted_and_no_label_error(shared):
    opinions, truth = read_pool(shared / "recorded" / "routerbench")
    assert find_suspicious(opinions, truth) == []  # claude-v2 is below chance on Winogrande by its refusals alone
    notes = pool_notes(opinions, truth)
    assert "1,104 of 34,650 answers are abstentions (3.2%); above 5%: claude-v2 33.9%" in notes
    assert "2 flags disagree with the gold answer: the flag is trusted" in notes
