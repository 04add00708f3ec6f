r"""What a text gives as its answer, whatever it says on the way.

A text announces its answer: \boxed{18}, #### 18, <answer>18</answer>, "the answer is **18**, as ...", a heading "Final
Answer" over it, "A: 18". The last announcement counts. Without one, the text may be nothing but an answer ("18 apples",
"Paris"), or it is left to math-verify to find its last formula or number. Every step is linear in the text's length.
"""

from __future__ import annotations

import re

from w2s.answers.expressions import is_maths, read
from w2s.answers.quantities import LONGEST, quantity_of

LONGEST_TEXT = 200_000  # characters at the end of a text that can hold its answer
TAIL = 2000  # characters at the end of a text that math-verify looks at
LAST = 50  # announcements at its end that are tried
THOUGHT = re.compile(
    r"</think(?:ing)?>|</reason(?:ing)?>|</thought>|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>|<｜end▁of▁thinking｜>"
)
TURN = re.compile(
    r"(?:<\|(?:start_header_id|im_start|start)\|>|<start_of_turn>)[ \t]*\w*(?:<\|end_header_id\|>|<\|message\|>)?"
    r"|<\|[^|<>\n]{1,40}\|>|<｜[^｜\n]{1,40}｜>|</?s>|<(?:eos|bos|pad|end_of_turn|EOT|EOD)>|\[/?INST\]|\[(?:EOS|END)\]"
    r"|\n[ \t]*(?:\*\*)?(?:Q|Question|Problem|Human|User)(?:\*\*)?[ \t]*:"
)
"""Where a text ends and another begins: end-of-text tokens, heads of turns, the next question of a run-on."""

NO = "".join(rf"(?<!{word}[ ])" for word in ("wrong", "incorrect", "common", "naive", "tempting", "partial"))
IS = r"(?:is|are|was|be|equals|becomes)(?![a-z])(?:[ \t]*:)?|[:：=≈→]|-{1,2}>|=>|[ \t][-–—][ \t]"
MARK = re.compile(
    rf"""(?ix)
    (?P<box>\\f?box(?:ed)?(?![a-z])\s{{0,5}})
    | (?P<tag><answer>)
    | ^[ \t]{{0,9}}(?P<hashes>\#\#\#\#)(?!\#) | (?P<glued>\#\#\#\#)(?=[ \t]{{0,9}}[-+$\\*\d])
    | ^[ \t>*_]{{0,9}}(?P<short>(?:A|Ans)[ \t*_]{{0,9}}:)
    | {NO}\b(?P<said>answers?\b
        (?: ["'*_`)\]]{{0,4}} (?:[ \t]\([^()\n]{{1,40}}\))? [*_]{{0,3}} [ \t]{{0,3}}
            (?: (?:{IS}) | (?:[^.\n:=*?$\\]|\.(?=\d)){{0,80}}?[*_]{{0,2}}(?:(?<=[ \t*_])(?:{IS})|:) | (?=[\$\\\d*`]) )
          | [*_:\s\#]{{0,9}}\n )
      )
    """,
    re.MULTILINE,
)
ADVERB = re.compile(
    r"(?i)(?:(?:therefore|thus|then|hence|simply|just|exactly|clearly|indeed|now|also|always|equal to|given by|be"
    r"|as follows|approximately|about|likely|probably|definitely|actually|found to be|the following)\b[ \t]*[,:]?"
    r"|(?<=\n)[-•][ \t]+(?![\\.])|[:=≈*_#>}\s]|\\approx(?![a-z]))\s{0,20}"
)
"""What may stand between "the answer is" and the answer."""
NO_WORDS = re.compile(
    r"(?i)(?:not|in|on|at|to|as|by|of|for|below|above|here|given|obtained|found|derived|based|correct|incorrect|right|wrong"
    r"|clear|helpful|useful|reasonable|consistent|valid|important|that|what|which|how|because|since|if|when|and|but|so)\b"
)
SENTENCE = re.compile(
    r"(?i)\b(?:i|we|you|he|she|they|let|lets|is|are|was|were|has|have|had|will|would|can|cannot|can't|don't|do|does|did"
    r"|so|therefore|thus|hence|there|sorry|need|know|compute|calculate|find|first|then)\b"
)
SENTENCE_END = re.compile(
    r"\n|\?|(?<!\\)!(?=\s|$)|"
    r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\\)\.(?=[\s\"*”)]|$)(?!(?<=[ap]\.m\.)[ ][a-z])"
)
CLAUSE = re.compile(
    r"[ \t]*(?:[,;(–—-][ \t]*)?(?<![\w\\])(?:as|because|since|which|so|where|when|for|given|after|but|that|i hope"
    r"|in order|based|if|meaning|hence|thus|therefore|assuming|rounded|not|giving|i\.e|from|by \w+ing)\b.*",
    re.IGNORECASE | re.DOTALL,
)
DECIDED = re.compile(r"(?i)(?:yes|no|true|false)(?=\s*[,;:.–—]|\s+(?:because|since)\b)")
PAIRS = {"$$": "$$", "\\[": "\\]", "$": "$", "\\(": "\\)", "**": "**", "`": "`", '"': '"', "“": "”", "'": "'"}
FINISHED = re.compile(r"[.!?)\]}$*`\"”]\s*$|\d%?(?: ?[a-zA-Z°€£]+)?$")
DENIED = re.compile(r"(?i)\banswers?\b[^.,;\n]{0,40}?(?:not\b|n['’]t\b|\bnever\b)[^.,;\n]{0,80}")
RETRACTED = re.compile(
    r"(?i)\b(?:wait|oops|correction|scratch that|hold on|on second thoughts?|(?:made|is) an? (?:mistake|error)"
    r"|that(?:'s| is| was) (?:wrong|incorrect|not right|not correct))\b"
)
BETWEEN_BOXES = re.compile(r"(?i)\band\b|\bor\b|[,;]")
NO_LIST = re.compile(
    r"(?i)\b(?:so|then|thus|therefore|hence|is|get|answer|gives?|which|wait|no|not|we)\b|\.\s|\n\n.*\w"
)


def final_answer(text: str) -> str | None:
    r"""The answer that a text ends in, without what dresses it: \boxed{**18**} -> 18. None where none is recognised."""
    text = text[-LONGEST_TEXT:]
    thoughts = THOUGHT.split(text)
    turns = [turn for turn in TURN.split(thoughts[-1] if thoughts[-1].strip() else text) if turn.strip()]
    for turn in turns:
        said = announced(turn)
        if said is not None:
            return said or None
    return unannounced(turns[0].strip()) if turns else None


def announced(text: str) -> str | None:
    """What the last announcement in a text announces: "" where that is nothing, None where there is no announcement."""
    marks = list(MARK.finditer(text))[-LAST:]
    words, closing, empty = None, None, False
    for at in range(len(marks) - 1, -1, -1):
        mark, kind = marks[at], marks[at].lastgroup
        if kind == "box":
            closing = braces(text) if closing is None else closing
            said = boxes(text, marks, at, closing)
        elif kind == "tag":
            said = valued(text[mark.end() : mark.end() + LONGEST].partition("</answer>")[0])
        else:
            said = stated(text, mark)
        if said and (kind in ("box", "tag") or re.search(r"[\d\\=<>^]", said)):
            taken_back = RETRACTED.search(text, mark.end()) if kind in ("said", "short") else None
            return (unannounced(text[taken_back.end() :].strip()) if taken_back else None) or said
        words = words or said
        if at == len(marks) - 1 and said == "":
            empty = True
    return words or ("" if empty else None)


def braces(text: str) -> dict[int, int]:
    """Where each opening brace of a text is closed."""
    found, open_ = {}, []
    for brace in re.finditer(r"\\\\|\\?[{}]", text):
        if brace[0] == "{":
            open_.append(brace.start())
        elif brace[0] == "}" and open_:
            found[open_.pop()] = brace.start()
    return found


def boxes(text: str, marks: list[re.Match], at: int, closing: dict[int, int]) -> str | None:
    r"""What is in the box, and in those before it that belong to the same list: \boxed{1} and \boxed{2}."""
    start = marks[at].end()
    if start not in closing:
        bare = re.match(r"[ \t]*([-+]?[\w./]{1,40})", text[start : start + 60])
        return bare[1].rstrip(".") if bare else None
    found = [bare_answer(text[start + 1 : closing[start]])]
    for mark in reversed(marks[:at]):
        end = closing.get(mark.end())
        if mark.lastgroup != "box" or end is None or not 0 <= start - end <= 90:
            break
        between = text[end + 1 : start].removesuffix("\\boxed").removesuffix("\\fbox").strip()
        if NO_LIST.search(between) or not (len(between) < 10 or BETWEEN_BOXES.search(between)):
            break
        start = mark.end()
        found.append(bare_answer(text[start + 1 : end]))
    listed = [one for one in dict.fromkeys(reversed(found)) if one]
    return ", ".join(listed)


def stated(text: str, mark: re.Match) -> str | None:
    """What stands behind "the answer is", "####" and the like; "" at the text's end, None where it is no answer."""
    start = mark.end()
    if re.search(r"(?i)not\b|n't\b|\bnever\b", mark[0]):
        return None
    for _ in range(LAST):
        skip = ADVERB.match(text, start)
        if not skip or text.startswith("**", start):
            break
        start = skip.end()
    if not text[start : start + 200].strip():
        return ""
    rest = text[start : start + 4 * LONGEST]
    opening = next((one for one in PAIRS if rest.startswith(one)), "")
    length = 0
    if opening:
        end = closed(rest, opening)
        if end is None and re.match(r"\$(?![\d$])|\\\(", rest) and mark.lastgroup == "said":
            return ""  # a formula that is not closed
        length = end or 0
    line = SENTENCE_END.split(rest[length:], maxsplit=1)[0]
    if mark.lastgroup in ("hashes", "glued"):
        after = text[start + length + len(line) :].strip()
        numbered = re.match(r"(?i)(?:step|part|case)\b|\d+[.)]\s+[a-z]", rest)
        if numbered or (after and not re.match(r"[-+$\\*(\[{\d.]|[a-z]\s*=", rest)):
            return None  # a heading
    return valued(rest[:length] + line)


def closed(text: str, opening: str) -> int | None:
    """The end of what `text` begins with, behind the closing sign; a formula in a line ends in it."""
    end = text.find(PAIRS[opening], len(opening))
    if end < 0 or (opening not in ("$$", "\\[") and "\n" in text[:end]):
        return None
    return end + len(PAIRS[opening])


def valued(said: str) -> str | None:
    """A short answer in what was announced: the whole, or the value that a sentence gives; None where there is none."""
    bare = bare_answer(said)
    if not bare or NO_WORDS.match(bare):
        return None
    if decided := DECIDED.match(bare):
        return decided[0]
    if quantity_of(bare) or is_maths(bare):
        return bare
    if not re.search(r"\d", bare):
        return bare if len(bare.split()) <= 6 or not SENTENCE.search(bare) else None
    return bare if bare[0].isdigit() or len(bare.split()) <= 3 else bare_answer(read(said[-TAIL:]) or "") or bare


def bare_answer(said: str) -> str:
    """An answer without markdown, quotes, signs around formulas, a label, a clause behind it, or a full stop."""
    said = said.strip().removeprefix('\\"')
    if len(said) > 4 * LONGEST:
        return said
    if said.startswith(('"', "'", "“", "`")) and (end := closed(said, said[:1])):
        said = said[1 : end - 1]
    said = re.sub(r"(?<!\\)\$([^$]*)(?<!\\)\$", r" \1 ", said.replace("$$", " "))
    said = re.sub(r"\\[()\[\]]|(?<!\\)\$(?!\d)|\*\*|__|`|\\\"|</?\w{1,6}>", " ", said)
    said = re.sub(r"(?i)^[\s*_]*(?:(?:the )?(?:final )?answer(?: is|:)?\s+|not\b.{1,80}?\bbut\b)", "", said)
    said = said.rstrip("}") if said.count("}") > said.count("{") else said
    if head := re.search(r"[\d\\]", said):
        clause = CLAUSE.search(said, head.end())
        said = said[: clause.start()] if clause else said
    said = re.sub(r"^\s*[*_]+(?=\S)|(?<=[\w)%])[*_]+\s*$|\s+\((?=[a-zA-Z])[^()]*\)\s*\.?\s*$", "", said)
    before = said[: max(said.rfind("="), 0)]
    if re.search(r"\d *(?:[-+*/×÷]|\\[tcd])", before) and re.fullmatch(
        r"(?:[-+*/×÷\d.,() ]|\\(?:times|cdot|div))+", before
    ):
        said = said[said.rindex("=") + 1 :]  # a sum: 9 * 2 = 18
    said = " ".join(said.split()).rstrip(".,;:")
    return said if re.search(r"[\w)]!$", said) else said.rstrip("!").strip()


def unannounced(text: str) -> str | None:
    """The answer in a text without announcement: the whole, where it is nothing else, or the last value in it."""
    text = DENIED.sub(" ", text).strip()
    if not text:
        return None
    one_line, bare = "\n" not in text, bare_answer(text) if len(text) <= LONGEST else ""
    labelled = re.match(r"[^\W\d][\w ]{1,30}: +(.+)", bare)  # Total: 18
    bare = labelled[1] if labelled and quantity_of(labelled[1]) else bare
    if one_line and bare:
        begins = (bare[0].isdigit() and not SENTENCE.search(bare)) or (
            len(bare.split()) <= 3 and text[-1] not in ".!?:"
        )
        if quantity_of(bare) or is_maths(bare) or begins:
            return bare
        if not re.search(r"[\d\\=]", bare):
            return bare if len(bare.split()) <= 6 and not SENTENCE.search(bare) and text[-1] not in ":?" else None
    plain = re.sub(r"(?<!\w)[*_`]+(?=\S)|(?<=\S)[*_`]+(?!\w)|\\(?=\$)", "", text[-TAIL:])
    return None if cut_off(text) else bare_answer(read(plain) or "") or None


def cut_off(text: str) -> bool:
    """Whether a text of several lines stops where no sentence and no value ends, or in a line that it repeats."""
    *before, last = text[-TAIL:].splitlines()
    return bool(before) and (not FINISHED.search(last) or before[-1].startswith(last))
