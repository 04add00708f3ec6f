"""Published datasets as (Example, Gold): one function per dataset, the same for local copies and for the hub.

Every source takes `root` (a folder with one folder per dataset; None: the Hugging Face hub) and, as options, `split`
(one or several published splits), `limit` (the size of a fixed sample) and `level` (for every question, in place of
the published one). Example.meta: level (a number, or None), split, row (the row's published id, or its place),
repeats (how many identical rows were left out), and what the dataset publishes: grade, bloom, depth, difficulty,
subject.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from w2s.data.arithmetic import asdiv, gsm8k, math
from w2s.data.own import file
from w2s.data.programs import PROGRAMS
from w2s.data.questions import Level, Limit, Published, Question, Questions, Split, by_label, read_choices, text
from w2s.data.reading import Row
from w2s.data.world import world
from w2s.store.records import BadInput, hash_texts

STANDARD = {"train": ["train"], "validation": ["validation", "dev"], "test": ["test"]}
AI2_SPLITS = {"train": "Train", "validation": "Dev", "test": "Test"}
Subjects = list[str] | None
Form = Literal["choices", "pairs"]
MMLU_LEVELS = {"elementary": 0.0, "high_school": 1.0, "college": 2.0, "professional": 3.0}


def arc_easy(root: Path | None, *, split: Split = "train", limit: Limit = None, level: Level = None) -> Questions:
    """AI2 reasoning challenge, the easy set: grade-school science, 3 to 5 choices. Level 0. CC BY-SA 4.0."""
    return read_arc(root, "ARC-Easy", 0.0, split, limit, level)


def arc_challenge(root: Path | None, *, split: Split = "train", limit: Limit = None, level: Level = None) -> Questions:
    """AI2 reasoning challenge, the set that retrieval and word overlap get wrong. Level 1. CC BY-SA 4.0."""
    return read_arc(root, "ARC-Challenge", 1.0, split, limit, level)


def read_arc(root: Path | None, config: str, default: float, split: Split, limit: Limit, level: Level) -> Questions:
    def fit(row: dict) -> Question:
        human = row.get("annotation") or {}
        labels = {key: human.get(column) for key, column in ARC_LABELS.items() if human.get(column) is not None}
        return ai2_question(row, {"level": default, **labels})

    splits = {name: [f"{config}-{file_name}"] for name, file_name in AI2_SPLITS.items()}
    published = Published(config.lower().replace("-", "_"), "arc", ("allenai/ai2_arc", config), splits)
    return published.read(root, fit, split, limit, level)


def ai2_question(row: dict[str, Any], meta: dict[str, Any]) -> Question:
    """id, question {stem, choices} (on the hub: question, choices), answerKey."""
    nested = row["question"] if isinstance(row["question"], dict) else {"stem": row["question"], **row}
    labels, texts = read_choices(nested["choices"])
    return Question(text(nested, "stem"), texts, by_label(labels, row["answerKey"]), {"row": row["id"], **meta})


ARC_LABELS = {"grade": "grade", "bloom": "bloom", "depth": "depth_of_knowledge", "difficulty": "difficulty"}


def sciq(
    root: Path | None, *, split: Split = "train", limit: Limit = None, level: Level = None, form: Form = "choices"
) -> Questions:
    """Crowd-written science questions, 4 choices, or as pairs of the correct and one wrong answer. CC BY-NC 3.0.

    The order of the choices is a hash of question and choice, since published rows name the correct one in a column of
    its own. form "pairs": two candidates, as in OpenAI's weak-to-strong work; from a file of labelled (question,
    answer) rows where there is one (correct and wrong answers of a question are paired in order), else from the
    4-choice rows.
    """
    pairs = form == "pairs"
    names = ("train", "validation", "test")
    splits = {name: [f"{name}_binary_pairs", name] if pairs else [name] for name in names}
    published = Published("sciq", "sciq", ("allenai/sciq", None), splits, sciq_pairs if pairs else iter)
    return published.read(root, sciq_question, split, limit, level)


def sciq_question(row: dict[str, Any]) -> Question | None:
    prompt, correct = text(row, "question").strip(), text(row, "correct_answer").strip()
    wrong = [text(row, f"distractor{n}").strip() for n in (1, 2, 3) if n == 1 or f"distractor{n}" in row]
    if set(wrong) == {correct}:
        return None  # two published pairs have the same answer marked right and wrong
    choices = sorted({correct, *wrong}, key=lambda choice: hash_texts(prompt, choice))
    return Question(prompt, choices, choices.index(correct), {})


def sciq_pairs(published: Iterator[Row]) -> Iterator[Row]:
    """Labelled (question, answer, label) rows, or 4-choice rows, as rows with a correct answer and one distractor."""
    waiting: dict[str, tuple[list[Row], list[Row]]] = {}
    for where, row in published:
        if "distractor1" in row:
            wrong = min((row[f"distractor{n}"] for n in (1, 2, 3)), key=lambda choice: hash_texts("pair", str(choice)))
            rest = {column: value for column, value in row.items() if not column.startswith("distractor")}
            yield where, rest | {"distractor1": wrong}
            continue
        if row.get("label") not in (0, 1):
            raise BadInput(f"{where}: label: {row.get('label')!r} given; allowed: 0, 1")
        sides = waiting.setdefault(str(row.get("question")), ([], []))
        sides[int(row["label"])].append((where, row))
        if sides[0] and sides[1]:
            (_, wrong), (where, right) = sides[0].pop(0), sides[1].pop(0)
            answers = {"correct_answer": right.get("answer"), "distractor1": wrong.get("answer")}
            yield where, {"question": right["question"], **answers}
    for sides in waiting.values():
        for where, _ in (*sides[0], *sides[1]):
            raise BadInput(f"{where}: this question has no row with the other label to make a pair with")


def openbookqa(root: Path | None, *, split: Split = "train", limit: Limit = None, level: Level = None) -> Questions:
    """Elementary science facts applied to new situations, 4 choices. ODC-BY."""

    def fit(row: dict) -> Question:
        if "question_stem" in row:
            labels, texts = read_choices(row["choices"])
            return Question(text(row, "question_stem"), texts, by_label(labels, row["answerKey"]), {"row": row["id"]})
        return indexed(row)

    published = Published("openbookqa", "openbookqa", ("allenai/openbookqa", "main"), STANDARD)
    return published.read(root, fit, split, limit, level)


def commonsenseqa(root: Path | None, *, split: Split = "train", limit: Limit = None, level: Level = None) -> Questions:
    """Everyday knowledge, 5 choices; the published test has no answers. MIT."""

    def fit(row: dict) -> Question:
        nested = row["question"] if isinstance(row["question"], dict) else row
        return ai2_question(row, {"subject": nested.get("question_concept")})

    splits = {"train": ["train"], "validation": ["validation", "dev"]}
    published = Published("commonsenseqa", "commonsenseqa", ("tau/commonsense_qa", None), splits)
    return published.read(root, fit, split, limit, level)


def boolq(
    root: Path | None, *, split: Split = "train", limit: Limit = None, level: Level = None, passage: bool = False
) -> Questions:
    """Yes/no questions that people asked a search engine; closed-book unless `passage`. CC BY-SA 3.0."""

    def fit(row: dict) -> Question:
        if not isinstance(row["answer"], bool):
            raise ValueError(f"answer: {row['answer']!r} given; allowed: true, false")
        prompt = f"{text(row, 'passage')}\n\n{text(row, 'question')}" if passage else text(row, "question")
        return Question(prompt, ("no", "yes"), int(row["answer"]), {})

    splits = {"train": ["train"], "validation": ["validation"]}
    published = Published("boolq", "boolq_closedbook", ("google/boolq", None), splits)
    return published.read(root, fit, split, limit, level)


def mmlu(
    root: Path | None, *, split: Split = "test", limit: Limit = None, level: Level = None, subjects: Subjects = None
) -> Questions:
    """57 exam subjects, 4 choices. Level: elementary 0, high school 1, college 2, professional 3, others none. MIT.

    `subjects`: only these (full names as published, "college_physics", or a level's prefix, "college").
    """

    def fit(row: dict) -> Question:
        levels = [number for prefix, number in MMLU_LEVELS.items() if text(row, "subject").startswith(prefix)]
        question = indexed(row)
        return question._replace(meta={"subject": row["subject"], "level": levels[0] if levels else None})

    def select(published: Iterator[Row]) -> Iterator[Row]:
        for where, row in published:
            subject = str(row.get("subject"))
            names = [name for name in subjects or () if subject == name or subject.startswith(name + "_")]
            seen.update(names)
            if names or subjects is None:
                yield where, row

    seen: set[str] = set()
    splits = {name: [name] for name in ("test", "validation", "dev", "auxiliary_train")}
    published = Published("mmlu", "mmlu", ("cais/mmlu", "all"), splits, select)
    questions = published.read(root, fit, split, limit, level)
    if missing := sorted(set(subjects or ()) - seen):
        searched = split if isinstance(split, str) else ", ".join(split)
        raise BadInput(f"mmlu: subjects: {', '.join(missing)} given, not found in {searched}")
    return questions


def indexed(row: dict[str, Any]) -> Question:
    """question, choices (a list of texts), answer (an index)."""
    if not isinstance(row["choices"], list) or not all(isinstance(choice, str) for choice in row["choices"]):
        raise ValueError("choices: a list of texts is expected")
    if type(row["answer"]) is not int:
        raise ValueError(f"answer: {row['answer']!r} given; allowed: the index of a choice")
    return Question(text(row, "question"), row["choices"], row["answer"], {})


PUBLISHED = (arc_easy, arc_challenge, sciq, openbookqa, commonsenseqa, boolq, mmlu, math, gsm8k, asdiv)
SOURCES = {source.__name__: source for source in (world, *PUBLISHED, *PROGRAMS.values(), file)}
