import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt

from w2s.evaluation.run.compare import compare
from w2s.evaluation.run.contents import ReportData
from w2s.evaluation.run.metrics import MODELS
from w2s.evaluation.run.report import block, cell, duration, write_report
from w2s.store.records import Metric

POISON = "<script>alert('x')</script> | `code` ![p](http://evil.example/p.png) $x_1$ </svg>"
POISON += " \x1b]0;x\x07\x1b[31m \x00 \u202e \ud800"  # what steers a terminal, and half a character
HEADINGS = [
    "What flowed where",
    "From the floor to the ceiling",
    "Differences, paired by question",
    "How the student learned",
    "The rounds",
    "How many rounds are worth having",
    "How far the learners err together",
    "The questions boosting kept coming back to",
    "Easy to hard",
    "Does it know what it knows?",
    "Other suites",
    "What it cost",
    "Samples: answers to the hard test",
    "Samples: labels of the transfer pool",
    "How to repeat it",
]


class Page(HTMLParser):
    """What a browser sees: tags, the addresses they name, the words between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action")]

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def pages(made_up, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(made_up[2], folder)
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


def test_the_page_begins_with_the_verdict_and_the_mark_of_synthetic_data_and_keeps_its_order(pages):
    html, markdown = pages
    heading = re.search(r"<h1>(.*?)</h1>", html)[1]
    assert heading.startswith("The student ")
    assert "PGR" in heading
    assert html.index("Synthetic questions") < html.index("What flowed where")
    assert re.findall(r"<h2>(.*?)</h2>", html) == HEADINGS
    assert "**The student " in markdown.splitlines()[2]
    assert "> Synthetic questions" in markdown


def test_the_page_is_one_file_without_scripts_and_asks_for_nothing(pages):
    page = Page(pages[0])
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert all(address.startswith("#") for address in page.addresses)
    assert "@import" not in pages[0]
    assert not re.search(r"url\((?!#)", pages[0])
    assert "prefers-color-scheme: dark" in pages[0]
    assert "@media print" in pages[0]


def test_pictures_are_well_formed_keep_text_as_text_and_take_their_colours_from_the_page(pages):
    drawn = re.findall(r"<figure>(<svg.*?</svg>)", pages[0], re.S)
    assert len(drawn) == 8
    for picture in drawn:
        root = ElementTree.fromstring(picture)
        words = "".join(root.itertext())
        assert re.search(r"[a-z]{4}", words)
        assert not re.search(r"#01020\d", picture)
        assert not set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", picture)) - {"#ffffff"}
        assert len(picture) < 60_000
    ids = re.findall(r' id="([^"]+)"', pages[0])
    assert len(ids) == len(set(ids))


def test_the_same_data_give_the_same_bytes(made_up, pages, tmp_path):
    write_report(made_up[2], tmp_path)
    assert (tmp_path / "report.html").read_text() == pages[0]
    assert (tmp_path / "report.md").read_text() == pages[1]


def test_text_of_unknown_origin_stays_text(made_up, make, tmp_path):
    answers, difficulty, _ = made_up
    data = make[1](answers, difficulty, poison=POISON)
    write_report(dataclasses.replace(data, run="run" + POISON), tmp_path)
    html, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    page = Page(html)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "alert('x')" in "".join(page.words)  # it is still there to be read
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", html + markdown)
    outside_fences = re.sub(r"^(`{3,})\n.*?^\1$", "", markdown, flags=re.S | re.M)
    assert "<script" not in outside_fences
    assert not re.search(r"(?<!\\)!\\?\[|(?<!\\)\]\(", outside_fences)
    rows = [line for line in outside_fences.splitlines() if line.startswith("| TALL")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4, 5}  # no bar of the text divides a cell


def outline(markdown):
    """A Markdown file as a reader's program sees it: its headings, the cells of its tables' rows, and what is neither
    text nor layout."""
    headings, rows, odd, tokens = [], [], [], MarkdownIt("commonmark").enable("table").parse(markdown)
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            headings.append(tokens[at + 1].content)
        elif token.type == "tr_open":
            rows.append(0)
        elif token.type in ("td_open", "th_open"):
            rows[-1] += 1
        odd += [one.type for one in (token, *(token.children or ())) if one.type in FOREIGN]
    return headings, rows, odd


FOREIGN = ("html_block", "html_inline", "link_open", "image", "hr", "code_block", "code_inline", "blockquote_open")
ODD_TEXTS = [
    "a | b || c \\| d",
    "```\n# fence\n~~~~\n````` x",
    "one\n\n# heading\n\n- item\n1. item",
    "<b>bold</b> <!-- <script> &lt;i&gt;",
    "[x](http://y.example) <http://z.example> ![p](q) [r]: s",
    "a\r| --- |\r\n***\r> quote",
    "    indented\n\ttab\u2028| line",
    "`one` ``two` \\` *three* __four__",
]


@pytest.mark.parametrize("written", [False, True], ids=["choices", "texts"])
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_no_text_breaks_the_markdown(made_up, make, tmp_path, text, written):
    found = []
    for poison in ("", text):
        data = make[1](*made_up[:2], poison=poison)
        write_report(dataclasses.replace(data, synthetic="", written=written), tmp_path)
        found.append(outline((tmp_path / "report.md").read_text()))
    assert found[1][:2] == found[0][:2]
    assert found[1][2] == found[0][2] == []


def test_a_fence_is_longer_than_the_fences_inside():
    assert block("a\n````\n<b>").startswith("`````\n")


def test_a_cell_is_one_line():
    assert cell("a\n| b\n# c") == r"a \| b \# c"


def test_an_empty_run_still_has_a_page(tmp_path):
    write_report(ReportData("empty", "hard", ()), tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "No verdict: this run has no student and no committee on hard." in html
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["How to repeat it"]


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(ReportData) if f.name not in ("run", "suite", "metrics")]
)
def test_every_section_may_stand_alone(made_up, tmp_path, field):
    alone = ReportData("alone", "hard qa", (), **{field: getattr(made_up[2], field)})
    write_report(alone, tmp_path)
    assert len(re.findall(r"<h2>", (tmp_path / "report.html").read_text())) <= 3
    assert (tmp_path / "report.md").read_text().startswith("# alone")


def test_controls_that_were_switched_off_are_named(made_up, tmp_path):
    write_report(dataclasses.replace(made_up[2], controls_off=("bagged", "shuffled")), tmp_path)
    for name in ("report.html", "report.md"):
        assert "Switched off in this run: bagged learners, shuffled labels." in (tmp_path / name).read_text()


def test_one_learner_and_one_round_can_be_drawn(made_up, tmp_path):
    data = made_up[2]
    first = data.committees[0]
    short = {key: first[key][:1] for key in ("rounds", "accuracy_by_rounds")} | {"used": 1}
    alone = data.dependence | {"error_correlation": [[1.0]]}
    write_report(dataclasses.replace(data, committees={0: short}, dependence=alone), tmp_path)
    assert "The rounds" in (tmp_path / "report.html").read_text()


def test_every_difference_is_told_with_its_interval_in_both_files(made_up, pages):
    gaps = [m for m in made_up[2].metrics if m.suite == "hard qa" and m.name.startswith("accuracy_minus_")]
    rows = [" ".join(Page(row).words) for row in re.findall(r"<tr.*?</tr>", pages[0], re.S) if 'class="ci"' in row]
    assert len(rows) == len(gaps) + 1  # and the heading
    for gap in gaps:
        told = [f"{100 * value:+.1f}".replace("-", "−") for value in (gap.value, gap.low, gap.high)]
        assert any(told[0] in row and f"{told[1]} to {told[2]}" in row for row in rows)
        plain = [one.removeprefix("+") for one in told]
        assert f"| {plain[0]} | {plain[1]} to {plain[2]} |" in pages[1]


def test_the_students_training_and_answers_are_in_both_files(made_up, pages):
    html, markdown = pages
    assert len(re.findall('aria-label="Training of ', html)) == 2  # the student's, and the learners'
    table = markdown[markdown.index("## How the student learned") : markdown.index("## The rounds")]
    assert "| student | 0 | 360 | 0.0278 | 0.0278 | 97.2 |" in table
    samples = markdown[markdown.index("## Samples: answers") : markdown.index("## Samples: labels")]
    assert "| question | gold | committee | student |" in samples
    assert samples.count("| quartz | ember ✗ | quartz ✓ |") == len(made_up[2].answers)
    assert html.count("<dt>student<dd>") == len(made_up[2].answers)


def test_equal_weights_of_the_heaviest_questions_are_explained(made_up, pages, tmp_path):
    words = "12 questions share the highest weight in every round, since the learners got them right or wrong"
    assert all(words in page for page in pages)
    alone = tuple(dataclasses.replace(row, alike=1) for row in made_up[2].heaviest)
    write_report(dataclasses.replace(made_up[2], heaviest=alone), tmp_path)
    assert "share the highest weight" not in (tmp_path / "report.html").read_text()


def test_a_number_that_cannot_be_had_shows_its_reason(tmp_path):
    undefined = Metric("hard", "student", "pgr", None, None, None, 9, (0,), "no ceiling in this run")
    write_report(ReportData("r", "hard", (undefined,)), tmp_path)
    assert "no ceiling in this run" in (tmp_path / "report.html").read_text()


def test_runs_side_by_side_are_paired_where_they_share_questions(made_up, make, tmp_path):
    answers, _, data = made_up
    better, difficulty = make[0](n=120, shift=0.2)
    other, difficulty_other = make[0](seeds=(7, 8), n=120)
    two, three = (
        make[1](better, difficulty, run="two"),
        make[1](other, difficulty_other, run="three"),
    )
    compare([(data, answers), (two, better), (three, other), (two, None)], tmp_path)
    markdown = (tmp_path / "compare.md").read_text()
    table = markdown[markdown.index("## Differences") :]
    row = next(line for line in table.splitlines() if line.startswith("| student |"))
    paired, other_seeds, without_answers = row.split(" | ")[1:]
    assert "*" not in paired
    assert "*" in other_seeds
    assert "*" in without_answers
    by_hand = 100 * sum((better[s]["student"].correct_N - answers[s]["student"].correct_N).mean() for s in answers) / 5
    assert float(paired.split()[0].replace("−", "-")) == pytest.approx(by_hand, abs=0.051)
    page = Page((tmp_path / "compare.html").read_text())
    assert "script" not in page.tags
    assert data_models(data) == set(MODELS) - {"merged", "merged_uniform", "experts", "dense_student", "dense_at_cost"}


def data_models(data):
    return {metric.model for metric in data.metrics}


@pytest.mark.parametrize(("seconds", "words"), [(5.31, "5.3 s"), (125, "2 min 5 s"), (7300, "2 h 1 min")])
def test_durations_read_well(seconds, words):
    assert duration(seconds) == words
