"""Stages that let models write."""

import pytest

from w2s.data.sources import SOURCES
from w2s.models.generate import cut
from w2s.stages.questions import gold_text
from w2s.stages.writing import STOPS, kind_of


@pytest.mark.parametrize(("source", "kind"), [("mbpp", "program"), ("humaneval", "code")])
def test_no_stop_text_cuts_the_reference_programs_of_a_suite(shared, source, kind):
    examples, gold = SOURCES[source](shared / "data")
    assert kind_of(examples) == kind
    whole = [gold_text(one, answer) for one, answer in zip(examples, gold, strict=True)]
    assert [cut(text, STOPS[kind]) for text in whole] == whole


def test_the_worlds_functions_are_continued():
    examples, _ = SOURCES["world"](None, task="code", easy=5, hard=5)
    assert kind_of(examples) == "code"
    assert kind_of(SOURCES["world"](None, task="answer", easy=5, hard=5)[0]) == "answer"
