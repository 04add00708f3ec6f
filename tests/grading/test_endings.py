"""Which answer a text gives: the ways in which models end a solution, and what only looks like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from w2s.grading.answers import compare
from w2s.grading.candidates import merge
from w2s.grading.endings import final_answer
from w2s.grading.judge import grade
from w2s.store.records import Example, Gold

QUESTION = Example("q", "made", "answer", "How many?")
STYLES = r"""
boxed | so it is $\boxed{N}$
boxed with words behind | \boxed{N} eggs are left, as every box holds three.
boxed, bold | **\boxed{N}**
boxed without braces | \boxed N.
framed | \fbox{N}
boxed twice | $\boxed{N}$. So the final answer is $\boxed{N}$.
plain | Add them. The answer is N.
bold label | **Answer:** N
bold label, bold number | **Final Answer: N**
bold number | The answer is **N**.
bold number with a unit | The answer is **N eggs**, since two hens lay.
italic | The answer is *N*
backquotes | The answer is `N`
hashes | Add them.¶#### N
hashes, bold | #### **N**
hashes, a unit | #### N eggs
hashes, more behind | #### N¶¶I hope this answer is clear.
a heading | ### Final Answer¶¶N
a heading with a colon | ## Answer:¶N
a bold heading | **Final Answer**¶¶N eggs
a heading and a sentence | ### Final Answer¶¶The hens lay N eggs.
a heading and a list | **Final answer:**¶- N
a heading of four hashes | #### Step 1: add¶2 and 3¶¶#### Conclusion¶The answer is N.
colon and new line | The final answer is:¶¶N
display | The answer is:¶\[ N \]
display over lines | The answer is¶¶$$¶N¶$$
a formula in the line | The answer is \(N\).
a chain | The answer is $1 + 2 = N$.
a sum | The answer is 1 + 2 = N.
minerva | Final Answer: The final answer is $N$. I hope it is correct.
a clause behind | The answer is N, as computed above.
a reason behind | The answer is N because the rest was sold.
a remark behind | The answer is N (see the table).
end-of-text token | #### N<|eot_id|>
another token | The answer is N</s>
a turn behind | The answer is N<|im_end|>¶<|im_start|>user¶The answer is 99
a turn before | <|start_header_id|>assistant<|end_header_id|>¶¶The answer is N.
gemma | The answer is N.<end_of_turn>
a next question | The answer is N.¶¶Question: What is 90 + 9?¶Answer: The answer is 99.
a thought before | <think>Perhaps the answer is 99.</think>¶¶It is N.
channels | <|channel|>analysis<|message|>answer: 99?<|end|><|start|>assistant<|channel|>final<|message|>N<|return|>
a tag | <answer> N </answer>
JSON | {"reasoning": "2 and 3", "answer": N}
JSON text | {"answer": "N", "sure": true}
short | 2 and 3¶A: N
abbreviated | Ans: N
arrow | Answer → N
therefore | the answer is therefore N
would be | The answer would be N.
must be | So the answer must be: N.
to the question | The answer to the question is N.
in a unit | The answer (in eggs) is N.
equals | final answer = N
roughly | The answer is approximately N.
with an exclamation | The answer is N!
taken back at the very end | The answer is N. Wait
denied before | The answer isn't 99. It's N.
denied in the same sentence | The answer cannot be 99, so it must be N.
with a denial | The answer is not 99 but N.
with a denial and a sentence | The answer is not 99. It is N.
with a short denial | The answer isn't 99; it's N.
corrected | I first thought the answer was 99. However, it is N.
a denied box behind | \boxed{N} (not \boxed{99}).
a letter before | The correct answer is (B) N.
in brackets | 2 and 3 are all. [ANSWER] N [/ANSWER]
in other quotes | The answer is «N».
a longer tag | <final_answer>N</final_answer>
a longer key | {"final_answer": "N"}
in Chinese | 一共有 2 和 3。¶答案：N。
taken back | The answer is 99. Wait, I forgot the red hen. So it is N.
no announcement | Two hens lay 2 eggs each. So they lay N eggs in all.
no announcement, money | He sells 4 of them for $2 each, which makes $N.
no announcement, escaped dollars | Therefore, he makes \$N per day.
no announcement, a product | So it is $9 \times 2 = N$ dollars.
no announcement, a formula | Hence the hens lay $x = N$ eggs.
no announcement, bold | So there are **N** eggs.
no announcement, a remark | So they lay N eggs a day (two hens lay 2 each).
no announcement, not another | So it's N, not 99.
no announcement, a bold formula | Thus \(x=\mathbf{N}\).
small talk behind | So there are N eggs.¶¶I hope this helps!
a label | Total: N
the number alone | N
the number, quoted | "N"
the number in a formula | \(N\)
the number, bold | **N**
"""
WRONG = r"""
on the way | First N eggs, then 2 more. The answer is 99.
on the way, boxed | We get N, so \boxed{99}
boxed before | I get \boxed{N} for one hen. For all of them the answer is \boxed{99}.
hashes behind an announcement | The answer is N?¶#### 99
a common error | A common wrong answer is N. The answer is 99.
an error behind | The answer is 99. A common wrong answer is N.
in the clause behind | The answer is 99, not N.
in the remark behind | The answer is 99 (N for one hen).
in the next question | The answer is 99.¶¶Q: And now?¶A: N
in the thought | <think>the answer is N</think>The answer is 99.
taken back | The answer is N. Wait, that is wrong: there were 3 more. So it is 99.
denied, and given | The answer isn't N; it's 99.
taken back politely | The answer might be N, but checking shows it is 99.
taken back at once | The answer is N? Well no, it is 99.
supposed | Suppose the answer is N. Then one hen lays none. Hence it is 99.
disbelieved | I don't think the answer is N, but that it is 99.
neither | The answer is neither 9 nor N.
a denied box | \boxed{99} (not \boxed{N}).
a common box | \boxed{99}. A common mistake is \boxed{N}.
beside it | The answer is one less than N.
between | The answer is between 9 and N.
one of two | The answer is either 9 or N.
the root of it | The answer is the square root of N.
raised | The answer is N².
a bound | The answer is > N
two numbers | The answer is 99 or N.
denied | The correct answer isn't N. It's 99.
denied in the same sentence | The answer cannot be N, so it must be 99.
denied in the line above | The answer can't be N.¶We get 99.
a list | The answers are 99 and N.
no announcement | Of N eggs they eat some, and 99 are left.
no announcement, two lines | There are N eggs.¶So 99 are left.
a part of a number | The answer is 9N9.
half more | The answer is N and a half.
"""
SILENT = (
    "We compute the number of eggs.",
    "I don't know.",
    "Let me think about this step by step.",
    "I'm sorry, but I cannot help with that.",
    "The answer is",
    "The answer is not 5.",
    "The answer can't be 5.",
    "We know it's not 5.",
    "Two hens lay 2 eggs each, 5 and 7.\n\n#### ",
    "So we add them up.\n$\\boxed{}$",
    "The first hen lays 5 eggs a week.\nThe second hen lays 7 eggs, which makes the sum of all the eggs that",
    "The hen lays 5 eggs\nThe hen lays 5 eggs\nThe hen lays 5",
    "```\n```",
    "<|eot_id|>",
    " \n ",
    "",
)


def table(text: str) -> dict[str, str]:
    rows = (line.split(" | ", 1) for line in text.strip().splitlines())
    return {name.strip(): body.replace("¶", "\n") for name, body in rows}


@pytest.mark.parametrize("style", table(STYLES))
@pytest.mark.parametrize("number", ["18", "70000", "7.5"])
def test_the_ways_in_which_models_end_a_solution_are_read(style, number):
    text = table(STYLES)[style].replace("N", number)
    assert compare(text, number) is True, final_answer(text)
    assert compare(text, "41") is False


@pytest.mark.parametrize("style", table(WRONG))
def test_a_text_that_says_the_right_number_on_the_way_to_a_wrong_one_is_wrong(style):
    text = table(WRONG)[style].replace("N", "18")
    assert grade(QUESTION, Gold("q", "18"), text) == (False, "judged"), final_answer(text)


@pytest.mark.parametrize("text", SILENT)
def test_a_text_without_a_recognisable_answer_is_no_wrong_answer(text):
    assert final_answer(text) is None
    assert grade(QUESTION, Gold("q", "5"), text) == (False, "no answer found")
    assert merge(QUESTION, [text, "5"]).index == (-1, 0)


def test_answers_in_all_styles_are_one_candidate():
    texts = [text.replace("N", "18") for text in table(STYLES).values()]
    assert set(merge(QUESTION, [*texts, "The answer is 19."]).index) == {0, 1}
    assert merge(QUESTION, texts).index == (0,) * len(texts)


@pytest.mark.parametrize(
    "text",
    ["Answer: Yes, because 3 > 2", "The answer is yes, since 3 > 2.", "#### Yes", "It is clear: answer = Yes."],
)
def test_yes_is_an_answer_whatever_numbers_are_its_reason(text):
    assert compare(text, "Yes") is True
    assert compare(text, "No") is False
    assert compare(text, "2") is False


@pytest.mark.parametrize(
    "text", ["The answer is Paris.", "**Answer:** Paris", "#### Paris", "paris", "Answer: *Paris*"]
)
def test_words_are_answers_too(text):
    assert compare(text, "Paris") is True
    assert compare(text, "London") is False


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        (r"\boxed{2} and \boxed{-3}", "-3, 2"),
        (r"$$\boxed{(1, 2)} \quad \text{or} \quad \boxed{(2, 1)}$$", "(2,1), (1,2)"),
        (r"The roots are $\boxed{2}$, $\boxed{5}$, and $\boxed{7}$.", r"\{2, 5, 7\}"),
        (r"The answers are $4$ and $9$.", r"\boxed{9, 4}"),
        (r"So $x \ge 4$ is the solution.", "x >= 4"),
        (r"We see that $y \lt 7$.", "y < 7"),
        (r"Hence $\begin{bmatrix}2 & 1\\0 & 3\end{bmatrix}$.", r"\begin{pmatrix}2&1\\0&3\end{pmatrix}"),
        (r"Final Answer: The final answer is $\frac{7}{4}$. I hope it is correct.", "1.75"),
        (r"The limit is $\boxed{\frac{\pi}{6}}$, that is about 0.52.", r"\pi/6"),
        (r"It moves $\boxed{40\textnormal{ km}}$.", "40"),
        (r"\\boxed{\\frac{1}{4}}", "0.25"),
        ("The answer is 2 000.", "2000"),
        ("It costs 2,75 €.", "2.75"),
        ("a rise of 15 pct", "15%"),
        ("The answer is negative 4.", "-4"),
        ("The answer is no, because 3 is odd.", "No"),
        ("Yes, because it holds for all of them.", "yes"),
        ("The answer is 3:30 p.m.", "3:30 PM"),
        ("The answer is 03:30.", "3:30 pm"),
        ("The answer is (B) 42 apples.", "B"),
        ("The answer is (B) 42 apples.", "42"),
        ("The answer is B", "(B) 42 apples"),
    ],
)
def test_formulas_lists_and_units_are_read_where_they_end_a_text(text, gold):
    assert compare(text, gold) is True, final_answer(text)


@pytest.mark.parametrize(
    ("text", "gold"),
    [(r"I first got \boxed{2}, so I get \boxed{5}", "2, 5"), (r"\boxed{1} no no no no no \boxed{2}", "1, 2")],
)
def test_boxes_that_are_no_list_are_not_read_as_one(text, gold):
    assert compare(text, gold) is False


@given(st.text(max_size=300) | st.text(alphabet="answer is:#*$\\boxed{}18 \n,.", max_size=300))
def test_any_text_has_an_answer_or_none_and_gets_a_verdict(text):
    said = final_answer(text)
    assert said is None or said
    correct, status = grade(QUESTION, Gold("q", "18"), text)
    assert status in ("judged", "no answer found") or correct is None


@pytest.mark.parametrize(
    ("text", "gold"),
    [("The answer is 3:30 am.", "3:30 pm"), ("The answer is (A) 42.", "B"), ("The answer is not yes.", "Yes")],
)
def test_answers_of_another_letter_or_half_of_the_day_are_others(text, gold):
    assert compare(text, gold) is False
