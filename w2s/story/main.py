"""THE STORY: from easy questions with gold to a strong model judged on hard ones, stage by stage.

`chain` is the story of one seed, to be read from top to bottom: the arguments of a line show what its stage descends
from. It only declares: every option becomes part of the stage's key, and nothing runs before `execution.run`. The
student's labels never see the gold of the transfer pool; the ceiling's do.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from w2s.config.fields import Boosting, Config
from w2s.config.plugins import find_used
from w2s.data.rows import make_row_reader, make_suite_reader
from w2s.models.kinds import find_kind
from w2s.models.records import Network
from w2s.stages import Tools, precision
from w2s.store.artifacts import Stage
from w2s.story import choices, written
from w2s.story.checks import check_methods, check_written
from w2s.story.experts import fit_dense_students, mix_learners
from w2s.story.merging import MERGED, ask_merged, merge
from w2s.story.models import find_places, fit_learner, fit_student
from w2s.story.objective import train_student
from w2s.story.questions import is_written, label_by_gold, label_by_record, split_questions
from w2s.story.rewards import make_preference_reader, score_candidates, tilt
from w2s.story.teller import FIT, TRANSFER, Answers, Form, Sets, Speaker, Stages, Teller

# The version of a stage's work, raised by hand when the same inputs may give another result.
JUDGING = ("judged", "graded", "graded_rollouts", "candidates", "written_labels")
VERSIONS = dict.fromkeys((*JUDGING, "reward_pairs", "sample_pairs"), 2) | {"tilted": 3}

TellStudy = Callable[[Config, Tools, Callable[..., Stage]], None]
"""(config, tools, declare): declares every stage of a study, for all seeds."""

UNIFORM, BOOSTED = {"name": "uniform"}, {"name": "boosting"}


def tell_chain(config: Config, tools: Tools, declare: Callable[..., Stage]) -> None:
    """The study of `w2s run`."""
    for seed in config.seeds:
        chain(Teller(config, seed, tools, declare))


def chain(teller: Teller) -> None:
    """The story of one seed."""
    config, form = teller.config, choose_form(teller)

    # 1. Easy questions with gold, hard questions without, and the gold under lock.
    sets = split_questions(teller)
    easy = label_by_gold(teller, sets, FIT)

    # 2. Weak learners, one after the other on re-weighted rows, and their controls.
    learners = form.boost(teller, sets, "committee", config.boosting, easy)
    committee = form.combine(teller, sets, "committee", learners, config.label.alphas)
    if config.controls.uniform:
        form.combine(teller, sets, "uniform", learners, UNIFORM)
    form.combine(teller, sets, "best_learner", learners, config.label.alphas, alone=True)
    floor = tell_weak_controls(teller, sets, form, easy)
    if config.controls.experts:
        mix_learners(teller, sets, form, committee)
    merged = ask_merged(teller, sets, form, committee)
    if config.student.start == MERGED:
        teller = dataclasses.replace(teller, start={"base": merge(teller, sets, committee)})

    # 3. The committee, optionally tilted by reward models or merged into one model, labels the transfer pool. The
    # student learns from these labels, and optionally continues with its objective.
    scored = score_candidates(teller, sets, form, committee)
    tilted = config.label.reward.use != "none"
    teacher = tilt(teller, sets, form, committee, scored) if tilted else committee.answers
    teacher = merged if config.label.teacher == MERGED else teacher
    labels = form.label(teller, sets, teacher)
    train_student(teller, sets, form, labels, committee, scored)

    # 4. The student's controls: other labels for the same base.
    if config.controls.naive_student:
        fit_student(teller, sets, form, "naive_student", form.label(teller, sets, floor))
    if config.controls.unrewarded and tilted:
        fit_student(teller, sets, form, "unrewarded", form.label(teller, sets, committee.answers))
    if config.label.recorded:
        fit_student(teller, sets, form, "recorded_student", label_by_record(teller, sets))
    if config.controls.dense_student:
        fit_dense_students(teller, sets, form, labels)
    if config.controls.shuffled:
        fit_student(teller, sets, form, "shuffled", form.label(teller, sets, teacher, shuffled=True))
    if config.controls.easy_gold:
        fit_student(teller, sets, form, "easy_gold", easy, split=FIT)
    if config.controls.ceiling:
        fit_student(teller, sets, form, "ceiling", label_by_gold(teller, sets, TRANSFER))
    if config.controls.zero_shot:
        form.ask(teller, sets, Speaker("zero_shot", teller.student, is_student=True))


def choose_form(teller: Teller) -> Form:
    if not is_written(teller.tools.rows(teller.seed)[0]):
        return choices
    check_written(teller.config)
    return written


def tell_weak_controls(teller: Teller, sets: Sets, form: Form, easy: Stage) -> Answers | None:
    """The committee's controls, at the same cost if compared with it. Returns the floor's answers."""
    config, controls = teller.config, teller.config.controls
    if controls.bagged:
        bagging = dataclasses.replace(config.boosting, booster={"name": "bagging"}, patience=None)
        form.combine(teller, sets, "bagged", form.boost(teller, sets, "bagged", bagging, easy), BOOSTED)
    if controls.answer_level and form is written:  # with choices every round already uses whole answers
        by_answer = form.boost(teller, sets, written.VOTERS, written.boost_answers(config.boosting), easy)
        form.combine(teller, sets, written.VOTERS, by_answer, BOOSTED)
    floor = None
    if controls.floor or controls.naive_student:
        floor = fit_learner(teller, sets, form, "floor", easy)
    if controls.long_learner and is_trained_longer(config):
        own = config.boosting
        priced = Boosting(own.rounds, errors=own.errors, folds=own.folds, refit=own.refit)  # nothing else costs steps
        fit_learner(teller, sets, form, "long_learner", easy, steps_of=priced)
    return floor


def is_trained_longer(config: Config) -> bool:
    """Whether longer training changes the first learner: one that is fitted at once would be the floor again."""
    return isinstance(find_kind(config.learners[0].model.kind), Network)


def build(config: Config, run_job: Callable[[Path], None], tell_study: TellStudy = tell_chain) -> list[Stage]:
    """Every stage of the run, parents before children. Reads the sources, as their rows are part of the keys."""
    check_methods(config)
    config = precision.resolve(config)
    readers = make_row_reader(config), make_suite_reader(config)
    recorded = Path(config.label.recorded) if config.label.recorded else None
    preferences = make_preference_reader(config)
    tools = Tools(config.runtime, *readers, run_job, recorded, preferences, find_places(config))
    stages: dict[str, Stage] = {}

    def declare(work: Callable, title: str, parents: Stages, options: Mapping, tags: Mapping) -> Stage:
        section = json.loads(json.dumps(options, default=dataclasses.asdict))
        if used := find_used(section):
            section["plugins"] = used
        name, do = work.__name__, partial(work, tools=tools, **options)
        stage = Stage(name, title, section, dict(parents), do, VERSIONS.get(name, 1), dict(tags))
        return stages.setdefault(stage.key, stage)

    tell_study(config, tools, declare)
    return list(stages.values())
