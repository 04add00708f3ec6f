"""THE STORY: from easy questions with gold to a strong model judged on hard ones, stage by stage.

`chain` is the story of one seed. It only declares: every option given to `tell` becomes part of the stage's key, and
nothing runs before `run`. The strong model's labels never see the gold of the transfer pool; the ceiling's do.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from w2s.config.fields import Config
from w2s.data.rows import make_row_reader, make_suite_reader
from w2s.stages import Tools
from w2s.store.artifacts import Stage
from w2s.story import objective as aligned
from w2s.story import rewards as rewarded
from w2s.story.checks import check_methods
from w2s.story.choices import Story
from w2s.story.written import WrittenStory, is_written

# Of a stage's work, grown by hand when the same inputs may give another result.
JUDGING = ("judged", "graded", "graded_rollouts", "candidates", "written_labels")
VERSIONS = dict.fromkeys((*JUDGING, "reward_pairs", "tilted", "sample_pairs"), 2)


def build(config: Config, run_job: Callable[[Path], None], tell_seed: Callable | None = None) -> list[Stage]:
    """Every stage of the run, parents before children. Reads the sources, since their rows are part of the keys.

    tell_seed: the story of one seed, where it is another than `chain`.
    """
    check_methods(config)
    recorded = Path(config.label.recorded) if config.label.recorded else None
    tools = Tools(
        config.runtime,
        make_row_reader(config),
        make_suite_reader(config),
        run_job,
        recorded,
        rewarded.preferences_of(config),
    )
    told: dict[str, Stage] = {}

    def tell(work: Callable, title: str, parents: Mapping[str, Stage], tags: dict[str, Any], **choices: Any) -> Stage:
        section = json.loads(json.dumps(choices, default=dataclasses.asdict))
        name = tags.pop("name", work.__name__)
        version = VERSIONS.get(work.__name__, 1)
        stage = Stage(name, title, section, dict(parents), partial(work, tools=tools, **choices), version, tags)
        return told.setdefault(stage.key, stage)

    for seed in config.seeds:
        (tell_seed or chain)(config, seed, tools, tell)
    return list(told.values())


def chain(config: Config, seed: int, tools: Tools, tell: Callable[..., Stage]) -> None:
    """The story of one seed."""
    story = (WrittenStory if is_written(tools.rows(seed)[0]) else Story)(config, seed, tools, tell)

    # 1. Easy questions with gold, hard questions without, and the gold under lock.
    story.split_questions()
    easy = story.gold_targets("easy_fit")

    # 2. Weak learners: one after the other on re-weighted rows, and the controls beside them.
    story.boost("committee", config.boosting, easy)
    if config.controls.uniform:
        story.combine("uniform", "committee", alphas={"name": "uniform"})
    story.combine("best_learner", "committee", best_alone=True)
    if config.controls.bagged:
        bagging = dataclasses.replace(config.boosting, booster={"name": "bagging"}, patience=None)
        story.boost("bagged", bagging, easy)
    if config.controls.answer_level:
        story.answer_level(easy)
    if config.controls.floor or config.controls.naive_student:
        story.fit("floor", config.learners[0], easy, "easy_fit")
    if config.controls.long_learner:
        story.fit("long_learner", config.learners[0], easy, "easy_fit", longer=config.boosting.rounds)

    # 3. The committee, tilted by reward models if asked, labels the hard questions; the student learns from these
    # labels, and if asked goes on from there.
    teacher = rewarded.teacher(story)
    aligned.student(story, story.label(teacher))

    # 4. The student's own controls: other labels for the same base.
    if config.controls.naive_student:
        story.fit("naive_student", story.student, story.label("floor"), "transfer")
    if config.controls.unrewarded and teacher != "committee":
        story.fit("unrewarded", story.student, story.label("committee"), "transfer")
    if config.label.recorded:
        story.fit("recorded_student", story.student, story.recorded(), "transfer")
    if config.controls.shuffled:
        story.fit("shuffled", story.student, story.label(teacher, shuffled=True), "transfer")
    if config.controls.easy_gold:
        story.fit("easy_gold", story.student, easy, "easy_fit")
    if config.controls.ceiling:
        story.fit("ceiling", story.student, story.gold_targets("transfer"), "transfer")
    if config.controls.zero_shot:
        story.ask("zero_shot", learner=story.student)
