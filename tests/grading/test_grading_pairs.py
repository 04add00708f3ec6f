"""Two hundred and more pairs of short answers, made by hand: which say the same, and which do not."""

import threading

import pytest

from w2s.data.sources import SOURCES
from w2s.grading.answers import compare
from w2s.grading.expressions import ask
from w2s.grading.judge import grade, judge
from w2s.store.records import Example, Gold

# A model's answer | the gold answer; a line for each pair, by kind.
SAME = r"""
numbers
18 | 18
18.0 | 18
+7 | 7
007 | 7
.5 | 0.5
0.50 | 0.5
-0 | 0
The answer is 42. | 42
#### 42 | 42
\boxed{42} | 42
$42$ | 42
x = 5 | 5
seven | 7
forty-two | 42
about 7 | 7
3 million | 3000000
2.5 thousand dollars | $2500
Twelve apples | 12
signs
−4 | -4
–4 | -4
- 4 | -4
-\frac{1}{2} | -0.5
\frac{-1}{2} | -\frac12
-(-3) | 3
thousands separators
1,234 | 1234
1,234,567 | 1234567
1{,}234 | 1234
1\,234 | 1234
10,\!000 | 10000
10,\! 000,\! 500 | 10000500
12 {, }345 | 12345
1 000 | 1000
12 345 678 | 12345678
1'250 | 1250
decimal commas
2,5 | 2.5
0,125 | 0.125
2500,75 | 2500.75
$1,234.50$ | 1234.5
fractions
3/4 | 0.75
3 / 4 | 3/4
\frac{3}{4} | 3/4
\dfrac34 | 0.75
\tfrac{6}{8} | \frac{3}{4}
\frac 1 2 | 1/2
½ | 0.5
¾ | 3/4
\frac{10}{5} | 2
\frac{1.5}{3} | 0.5
\frac{1}{-2} | -1/2
mixed numbers
2 1/2 | 2.5
2\frac{1}{2} | 5/2
2½ | 2.5
-1\frac{3}{4} | -1.75
1 3/4 cups | 7/4
3\frac{0}{5} | 3
rounded to six digits
0.0833333333 | \frac{1}{12}
0.6666667 | 2/3
percents
50% | 50
50\% | 50%
50 percent | 50%
50 pct | 50%
50 percentage | 50\%
50% | 0.5
50% | 1/2
0.5 | 50%
12.5\% | \frac{1}{8}
100% | 1
money
$5 | 5
\$5.00 | 5
$3.50 | 3.5
5 dollars | $5
500 cents | $5
$0.75 | 75 cents
75¢ | 75 cents
€20 | 20 euros
-$5 | -5
units
12 cm | 12
12 \text{ cm} | 12
12 cm | 12 centimeters
120 mm | 12 cm
1.5 km | 1500 m
2 hours | 120 minutes
1 foot | 12 inches
3 feet | 1 yard
2 kg | 2000 grams
1 liter | 1000 ml
60 km/h | 60 km per hour
36 km/h | 10 m/s
25 cm^2 | 25 \text{ cm}^2
25 square meters | 25 m^2
25 m² | 25 sq m
1 m^2 | 10000 cm^2
8 cubic feet | 8 ft^3
7 apples | 7
7 apple | 7 apples
7 red apples | 7 apples
degrees
45° | 45
45^\circ | 45°
45^{\circ} | 45 degrees
45 \text{ degrees} | 45
90^\circ | \frac{\pi}{2}
\pi | 180^\circ
20°C | 20 degrees Celsius
scientific notation
1e3 | 1000
3e8 | 3 \times 10^8
3.0 \times 10^{8} | 300000000
3.2 x 10^-5 | 0.000032
2.5 \cdot 10^{-3} | 0.0025
6.02*10^23 | 6.02e23
10^5 | 100000
bases
1011_2 | 1011_{2}
surds and powers
\sqrt{12} | 2\sqrt{3}
\frac{\sqrt{3}}{2} | \sqrt{3}/2
\frac{1}{\sqrt{2}} | \frac{\sqrt{2}}{2}
\sqrt{16} | 4
\sqrt[3]{27} | 3
2^{10} | 1024
8^{1/3} | 2
5\sqrt{2} \text{ cm} | 5\sqrt2
constants, functions
2\pi | \pi \cdot 2
\frac{\pi}{2} | \pi/2
0.5\pi | \frac{\pi}{2}
\log_2 8 | 3
\binom{5}{2} | 10
5! | 120
\sin 30^\circ | \frac12
\cos(0) | 1
expressions
(x+1)^2 | x^2+2x+1
x^2-1 | (x-1)(x+1)
2x+3 | 3+2x
\frac{x}{2} | x/2
x^{2}+1 | x^2 + 1
\dfrac{x+1}{2} | \frac{1}{2}x + \frac{1}{2}
y = 2x+1 | 2x+1
1+2i | 2i+1
(1+i)^2 | 2i
xy+1 | 1+yx
sets and lists
\{1,2,3\} | \{3,2,1\}
1, 2 | 2, 1
\pm 2 | 2, -2
1 \pm \sqrt{2} | 1 + \sqrt{2}, 1 - \sqrt{2}
\{0.5\} | \{\frac12\}
1 and 2 | 2, 1
3 or 5 | \{3,5\}
4, 6, and 8 | 4,6,8
$7$ or $9$ | 7, 9
6 \text{ and } 8 | \{6, 8\}
(5,9)or(9,5) | (9,5), (5,9)
-3; -2; 4 | \{-3, -2, 4\}
(1;0;2),(3;4;5) | (3,4,5), (1,0,2)
7; 5 | 7;5
KL=3, MN=8 | 3, 8
\frac{PQ}{QR}=\frac{2}{5} | 2/5
\emptyset | \varnothing
intervals and inequalities
(-\infty, 2] | (-\infty,2]
[0.5, 1) | [\frac{1}{2}, 1)
x \le 2 | (-\infty,2]
x > 3 | 3 < x
x \geq 1 | x \ge 1
x >= 1 | x \geq 1
x \lt 4 | x < 4
x != 6 | x \neq 6
y \gt 2 | y > 2
(-\infty,0)\cup(1,\infty) | (1,\infty)\cup(-\infty,0)
points, vectors, matrices
(1, 2) | (1,2)
\left( 1, 2 \right) | (1,2)
(0.5, 3) | (\frac{1}{2}, 3)
(2, \sqrt{4}) | (2,2)
\begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix} 1 \\ 2 \end{pmatrix}
\begin{pmatrix} \frac{2}{4} & 1 \\ 0 & 3 \end{pmatrix} | \begin{pmatrix}1/2&1\\0&3\end{pmatrix}
words
Paris | paris
\text{Paris} | Paris.
\textbf{Tuesday} | tuesday
grand mother | Grandmother
05/01/2021 | 05/01/2021
10:30 | 10:30
\text{(B)} | B
(C) | c
Yes | \text{yes}
"""

DIFFERENT = r"""
numbers
18.5 | 18
180 | 18
81 | 18
1.8 | 18
5 or 6 | 5
2 4 | 24
seven | 8
forty-two | 40
3 million | 3000
5 and a half | 5
5 or 3 | 5
5 squared | 5
1000001 | 1000000
0.667 | 2/3
0.33 | 1/3
3.14 | \pi
 | 0
signs
-5 | 5
5 | −5
-\frac{1}{2} | \frac{1}{2}
\pm 2 | 2
thousands separators
1,23 | 123
1,234 | 1.234
12,345 | 1234
1 000 | 1
32, 500 | 32500
27 7 | 34
120 200 | 320
2,5 | 25
10{,}000 | 1000
fractions
3/4 | 4/3
\frac{3}{4} | \frac{4}{3}
\frac12 | 12
\frac{1}{3} | 0.3
1/0 | 0
½ | 1.2
mixed numbers
2 1/2 | 21/2
2\frac{1}{2} | 1
2½ | 21/2
-1\frac{3}{4} | -0.25
percents
50% | 5
50% | 500
0.5 | 5%
50\% | 0.05
25% | 1/2
money
$5 | 5 cents
$3.50 | 350
75 cents | $75
€20 | $20
\$5.00 | 500
units
12 cm | 12 m
5 kg | 5 g
5 kg | 5 meters
2 hours | 2 minutes
25 cm^2 | 25 cm^3
25 cm | 25 cm^2
60 km/h | 60 m/s
60 km | 60 km/h
1 km | 100 m
7 apples | 7 pears
5\sqrt{2} \text{ cm} | 5\sqrt{2} \text{ m}
degrees
45° | 54°
90^\circ | \pi
45^\circ | 45 \text{ radians}
20°C | 20°F
scientific notation
3 \times 10^8 | 3 \times 10^7
3e8 | 38
3.2 \times 10^{-5} | 3.2 \times 10^5
2.5 \cdot 10^3 | 25
10^5 | 105
bases
1011_2 | 1011_3
1011_2 | 1010_2
surds and powers
\sqrt{12} | 3\sqrt{2}
\sqrt{2} | 2
2^{10} | 20
2^3 | 3^2
x^2 | 2x
x^2 | 2
1.41 | \sqrt{2}
constants, functions
2\pi | \pi
\pi | 3
\log_2 8 | 4
\binom{5}{2} | 5/2
5! | 5
\sin x | \cos x
expressions
(x+1)^2 | x^2+1
x^2-1 | x^2+1
2x | 2
2x+3 | 3x+2
1+2i | 1-2i
2i | 2
x+y | x-y
a | b
sets and lists
\{1,2,3\} | \{1,2\}
1, 2 | 1, 3
1, 2 | 12
1 | 1, 2
\{1\} | \{2\}
7; 5 | 5; 7
1 and 2 | 1
3 or 5 | 5
4, 6, and 8 | 4, 6
(5,9)or(9,5) | (5,9)
intervals and inequalities
[1,2] | (1,2)
[1,2) | (1,2]
(-\infty,2] | [2,\infty)
x > 3 | x < 3
x \ge 3 | x > 3
(0,1)\cup(2,3) | (0,1)
points, vectors, matrices
(1,2) | (2,1)
(1,2) | (1,2,3)
(1,2) | (1,-2)
\begin{pmatrix}1\\2\end{pmatrix} | \begin{pmatrix}2\\1\end{pmatrix}
words
Paris | London
east | seat
05/01/2021 | 10/02/2021
05/01/2021 | 5/2021
10:30 | 9:30
12:00 | 1:00
4 and Paris | 4
even | odd
Yes | No
(B) | (C)
Monday | Tuesday
infinity | 8
none | one
"""


def pairs(table: str) -> list[tuple[str, str]]:
    return [tuple(side.strip() for side in line.split(" | ")) for line in table.splitlines() if " | " in line]


def test_there_are_two_hundred_pairs_and_more_of_both_kinds():
    assert len(set(pairs(SAME))) == len(pairs(SAME)) > 100
    assert len(set(pairs(DIFFERENT))) == len(pairs(DIFFERENT)) > 90


@pytest.mark.parametrize(("answer", "gold"), pairs(SAME))
def test_the_same_answer_in_another_notation_is_right(answer, gold):
    assert compare(answer, gold) is True
    assert compare(gold, gold) is True


@pytest.mark.parametrize(("answer", "gold"), pairs(DIFFERENT))
def test_another_answer_is_wrong(answer, gold):
    assert compare(answer, gold) is False
    if answer and "%" not in answer + gold:  # a percent sign is optional where the question asks for percents
        assert compare(gold, answer) is False


HOSTILE = (r"9^{9^{9^{9^9}}}", r"\binom{10^9}{5 \cdot 10^8}", "1e999", "(" * 150 + "1" + ")" * 150, r"\frac{" * 90)


@pytest.mark.parametrize("answer", HOSTILE)
def test_what_cannot_be_computed_is_ended_and_not_called_right(answer, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("w2s.grading.expressions.COMPARE_S", 1.0)
        assert compare(answer, r"\sqrt{2}") is not True
    assert compare(r"\sqrt{8}", r"2\sqrt{2}") is True  # the next answer is judged as ever


def test_what_takes_too_long_could_not_be_judged(monkeypatch):
    monkeypatch.setattr("w2s.grading.expressions.COMPARE_S", 0.5)
    example, gold = Example("id", "made", "answer", "How many?"), Gold("id", r"\sqrt{3}")
    assert grade(example, gold, HOSTILE[0]) == (None, "the answers could not be compared in 5 s of processor time")


def test_answers_are_compared_by_several_threads_at_once():
    ask.cache_clear()
    found = {}

    def work(start: int) -> None:
        for n in range(start, start + 8):
            found[n] = compare(rf"\sqrt{{{n}}} \cdot \sqrt{{{n}}} + x", f"x + {n}") is True

    threads = [threading.Thread(target=work, args=(start,)) for start in (2, 10, 18)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == dict.fromkeys(range(2, 26), True)


@pytest.mark.parametrize(
    ("suite", "options"),
    [("gsm8k", {"split": "test"}), ("asdiv", {}), ("math", {"split": "test"}), ("math", {"split": "train"})],
)
def test_the_gold_answers_of_a_suite_are_right_against_themselves(suite, options, shared):
    examples, golds = SOURCES[suite](shared / "data", **options)
    rows = [(e, g, g.answer) for e, g in zip(examples, golds, strict=True)]
    rows += [(e, g, rf"So the answer is \boxed{{{g.answer}}}.") for e, g in zip(examples, golds, strict=True)]
    failed = [(row[1].answer, found) for row, found in zip(rows, judge(rows), strict=True) if found[0] is not True]
    assert not failed
