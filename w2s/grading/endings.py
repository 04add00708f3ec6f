r"""The final answer of a text, whatever comes before it.

A text announces its answer: \boxed{18}, #### 18, <answer>18</answer>, "the answer is **18**, as ...", below a heading
"Final Answer", "A: 18". The last announcement counts. Without one, the text may be nothing but an answer ("18 apples",
"Paris"), or math-verify finds its last formula or number. Every step is linear in the text's length.
"""

import re

from w2s.grading.expressions import ask, is_maths
from w2s.grading.quantities import LONGEST, read_quantity

LONGEST_TEXT = 200_000  # characters at the end of a text that are searched for its answer
TAIL = 2000  # characters at the end of a text that math-verify looks at
LAST = 50  # announcements that are tried, from the end
THOUGHT = re.compile(
    r"</think(?:ing)?>|</reason(?:ing)?>|</thought>|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>|<｜end▁of▁thinking｜>"
)
TURN = re.compile(
    r"(?:<\|(?:start_header_id|im_start|start)\|>|<start_of_turn>)[ \t]*\w*(?:<\|end_header_id\|>|<\|message\|>)?"
    r"|<\|[^|<>\n]{1,40}\|>|<｜[^｜\n]{1,40}｜>|</?s>|<(?:eos|bos|pad|end_of_turn|EOT|EOD)>|\[/?INST\]|\[(?:EOS|END)\]"
    r"|\n[ \t]*(?:\*\*)?(?:Q|Question|Problem|Human|User)(?:\*\*)?[ \t]*:"
)
"""Where a text ends and another begins: end-of-text tokens, headers of turns, the next question of a run-on text."""

NO = "".join(rf"(?<!{word}[ _])" for word in ("wrong", "incorrect", "common", "naive", "tempting", "partial"))
IS = r"(?:is|are|was|be|equals|becomes)(?:n['’]t)?(?![a-z])(?:[ \t]*:)?|[:：=≈→是为]|-{1,2}>|=>|[ \t][-–—][ \t]"
MARK = re.compile(
    rf"""(?ix)
    (?P<box>\\f?box(?:ed)?(?![a-z])\s{{0,5}})
    | (?P<tag><(?:final_?)?answer>|\[answer\])
    | ^[ \t]{{0,9}}(?P<hashes>\#\#\#\#)(?!\#) | (?P<glued>\#\#\#\#)(?=[ \t]{{0,9}}[-+$\\*\d])
    | ^[ \t>*_]{{0,9}}(?P<short>(?:A|Ans)[ \t*_]{{0,9}}:)
    | {NO}(?<![a-z])(?P<said>(?:answers?\b|答案)
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
    r"|(?<=\n)[-•][ \t]+(?![\\.])|(?<=\n)>|[:=≈*_#}\s]|\\approx(?![a-z]))\s{0,20}"
)
"""Words that may come between "the answer is" and the answer."""
NO_WORDS = re.compile(
    r"(?i)(?:not|in|on|at|to|as|by|of|for|below|above|here|given|obtained|found|derived|based|correct|incorrect|right|wrong"
    r"|clear|helpful|useful|reasonable|consistent|valid|important|that|what|which|how|because|since|if|when|and|but|so)\b"
)
SENTENCE = re.compile(
    r"(?i)\b(?:i|we|you|he|she|they|let|lets|is|are|was|were|has|have|had|will|would|can|cannot|can't|don't|do|does|did"
    r"|so|therefore|thus|hence|there|sorry|need|know|compute|calculate|find|first|then)\b"
)
YES_OR_NO = re.compile(r"(?i)(?:yes|no|true|false)\b(?=\s*[,;:–—]| (?:because|since|as)\b)")
CHOICE = re.compile(r"\(?([A-J])[).:]+\s+(?=\S)")  # the letter of a choice before its text
SENTENCE_END = re.compile(
    r"\n|。|\?|(?<!\\)!(?=\s|$)|"
    r"(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bDr)(?<!\bSt)(?<!\\)\.(?=[\s\"*”)]|$)(?!(?<=[ap]\.m\.)[ ][a-z])"
)
CLAUSE = re.compile(
    r"[ \t]*(?:[,;(–—-][ \t]*)?(?<![\w\\])(?:as|because|since|which|so|where|when|for|given|after|but|that|i hope"
    r"|in order|based|if|meaning|hence|thus|therefore|assuming|rounded|not|giving|i\.e|from|by \w+ing)\b.*",
    re.IGNORECASE | re.DOTALL,
)
PAIRS = {"$$": "$$", "\\[": "\\]", "$": "$", "\\(": "\\)", "**": "**", "`": "`", '"': '"'}
PAIRS |= {"“": "”", "'": "'", "‘": "’", "«": "»"}
FINISHED = re.compile(r"[.!?)\]}$*`\"”]\s*$|\d%?(?: ?[a-zA-Z°€£]+)?$")
RETRACTED = re.compile(
    r"(?i)\b(?:wait|oops|correction|scratch that|hold on|on second thoughts?|(?:made|is) an? (?:mistake|error)"
    r"|that(?:'s| is| was) (?:wrong|incorrect|not right|not correct))\b"
    r"|\b(?:actually|but|however|instead|no)\b[^.\n]{0,40}?\bit(?:['’]s| is| was| (?:should|must) be) (?=[-+$\\*\d])"
)
DENIES = (
    r"(?:\b(?:not|never|cannot|rather than|instead of|mistake (?:is|was))|n['’]t)(?: (?:be|equal to))?[\s$\\(\[*]{0,9}"
)
SUPPOSED = re.compile(
    r"(?i)(?:\b(?:if|suppose|assum(?:e|ing)|whether|not (?:true|the case))|n['’]t (?:think|believe))"
    r"(?: (?:that|the|my|final|correct))*\s*\Z"
)
DENIED = re.compile(rf"(?i){DENIES}\Z")
VALUE = r"(?<![\d,.])\d(?:[\d,.]{0,40}\d)?"
DENIED_VALUE = re.compile(rf"(?i){DENIES}{VALUE}|{VALUE} (?:is|was)(?: not|n['’]t)\b")
RELATIVE = re.compile(
    r"(?i)\b(?:than|between [^,.]{1,40} and|n?either [^,.]{1,40} n?or|from [^,.]{1,40} to"
    r"|(?:root|half|third|quarter|square|cube) of)[\s$\\]{0,9}[\d.,]{1,40}\W{0,9}\Z"
)
"""Before a number that is not the result of its sentence."""
STYLES = r"\\(?:mathbf|boldsymbol|bm|textbf)\{([^{}]*)\}"
REMARK = r"[ \t]+\((?=[a-zA-Z])[^()]*\)\s*\.?\s*$"
BETWEEN_BOXES = re.compile(r"(?i)\band\b|\bor\b|[,;]")
NO_LIST = re.compile(
    r"(?i)\b(?:so|then|thus|therefore|hence|is|get|answer|gives?|which|wait|no|not|we)\b|\.\s|\n\n.*\w"
)


def final_answer(text: str) -> str | None:
    r"""The answer that a text ends with, without its markup: \boxed{**18**} -> 18. None if none is recognised."""
    text = text[-LONGEST_TEXT:]
    thoughts = THOUGHT.split(text)
    turns = [turn for turn in TURN.split(thoughts[-1] if thoughts[-1].strip() else text) if turn.strip()]
    for turn in turns:
        said = announced(turn)
        if said is not None:
            return said or None
    return unannounced(turns[0].strip()) if turns else None


def announced(text: str) -> str | None:
    """The answer of the last announcement in a text: "" if it announces nothing, None if there is none."""
    marks = list(MARK.finditer(text))[-LAST:]
    words, closing, empty = None, None, False
    for at in range(len(marks) - 1, -1, -1):
        mark, kind = marks[at], marks[at].lastgroup
        if kind in ("box", "hashes", "glued") and DENIED.search(text[max(mark.start() - 40, 0) : mark.start()]):
            continue
        if kind == "box":
            closing = braces(text) if closing is None else closing
            said = boxes(text, marks, at, closing)
        elif kind == "tag":
            said = valued(re.split(r"</|\[/", text[mark.end() : mark.end() + LONGEST], maxsplit=1)[0])
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
    """Opening brace -> closing brace, by position in the text."""
    closing, open_ = {}, []
    for brace in re.finditer(r"\\\\|\\?[{}]", text):
        if brace[0] == "{":
            open_.append(brace.start())
        elif brace[0] == "}" and open_:
            closing[open_.pop()] = brace.start()
    return closing


def boxes(text: str, marks: list[re.Match], at: int, closing: dict[int, int]) -> str | None:
    r"""The content of a box, and of those before it in the same list: \boxed{1} and \boxed{2}."""
    start = marks[at].end()
    if start not in closing:
        bare = re.match(r"[ \t]*([-+]?[\w./]{1,40})", text[start : start + 60])
        return bare[1].rstrip(".") if bare else None
    answers = [bare_answer(text[start + 1 : closing[start]])]
    for mark in reversed(marks[:at]):
        end = closing.get(mark.end())
        if mark.lastgroup != "box" or end is None or not 0 <= start - end <= 90:
            break
        between = text[end + 1 : start].removesuffix("\\boxed").removesuffix("\\fbox").strip()
        if NO_LIST.search(between) or not (len(between) < 10 or BETWEEN_BOXES.search(between)):
            break
        start = mark.end()
        answers.append(bare_answer(text[start + 1 : end]))
    return ", ".join(filter(None, dict.fromkeys(reversed(answers))))


def stated(text: str, mark: re.Match) -> str | None:
    """What follows "the answer is", "####" and the like; "" at the text's end, None where that is no answer."""
    start = mark.end()
    supposed = SUPPOSED.search(text[max(mark.start() - 40, 0) : mark.start()])
    if supposed or DENIED.search(mark[0]) or DENIED_VALUE.match(text[start : start + 40].lstrip()):
        after = re.compile(r"(?i)(?:\bbut\b|[.;,]\s|\n)(?: ?it['’]s\b)?").search(text, start)  # not 17. It's 18
        return (unannounced(text[after.end() :].strip()) if after else None) or ""
    if re.search(r"(?i)\bnot\b|n['’]t\b", mark[0]):
        return None
    for _ in range(LAST):
        skip = ADVERB.match(text, start)
        if not skip or text.startswith("**", start):
            break
        start = skip.end()
    if not text[start : start + 200].strip():
        return ""
    rest = text[start : start + 4 * LONGEST]
    opening = next((sign for sign in PAIRS if rest.startswith(sign)), "")
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
    """Where the span that `text` begins with ends, after its closing sign; an inline formula ends on its line."""
    end = text.find(PAIRS[opening], len(opening))
    if end < 0 or (opening not in ("$$", "\\[") and "\n" in text[:end]):
        return None
    return end + len(PAIRS[opening])


def valued(said: str) -> str | None:
    """The short answer in an announcement: all of it, or the value in a sentence; None if there is none."""
    bare = bare_answer(said)
    if not bare or NO_WORDS.match(bare):
        return None
    if word := YES_OR_NO.match(bare):
        return word[0]
    if read_quantity(bare) or is_maths(bare):
        return bare
    if not re.search(r"\d", bare):
        return bare if len(bare.split()) <= 6 or not SENTENCE.search(bare) else None
    whole = bare[0].isdigit() or CHOICE.match(bare) or len(bare.split()) <= 3 or RELATIVE.search(bare)
    return bare if whole else bare_answer(ask(said[-TAIL:]) or "") or bare


def bare_answer(said: str) -> str:
    """An answer without markdown, quotes, formula delimiters, a label, a trailing clause or a full stop."""
    said = said.strip().removeprefix('\\"')
    if len(said) > 4 * LONGEST:
        return said
    if said.startswith(('"', "'", "“", "`", "‘", "«")) and (end := closed(said, said[:1])):
        said = said[1 : end - 1]
    said = re.sub(r"(?<!\\)\$([^$]*)(?<!\\)\$", r" \1 ", said.replace("$$", " "))
    said = re.sub(r"\\[()\[\]]|(?<!\\)\$(?!\d)|\*\*|__|`|\\\"|</?\w{1,6}>", " ", said)
    said = re.sub(r"(?i)^[\s*_]*(?:(?:the )?(?:final )?answer(?: is|:)?\s+|not\b.{1,80}?\bbut\b)", "", said)
    said = said.rstrip("}") if said.count("}") > said.count("{") else said
    if head := re.search(r"[\d\\]", said):
        clause = CLAUSE.search(said, head.end())
        said = said[: clause.start()] if clause else said
    said = re.sub(r"^\s*[*_]+(?=\S)|(?<=[\w)%])[*_]+\s*$|" + REMARK, "", said)
    before = said[: max(said.rfind("="), 0)]
    if re.search(r"\d *(?:[-+*/×÷]|\\[tcd])", before) and re.fullmatch(
        r"(?:[-+*/×÷\d.,() ]|\\(?:times|cdot|div))+", before
    ):
        said = said[said.rindex("=") + 1 :]  # a sum: 9 * 2 = 18
    said = " ".join(said.split()).rstrip(".,;:")
    return said if re.search(r"[\w)]!$", said) else said.rstrip("!").strip()


def unannounced(text: str) -> str | None:
    """The answer in a text without an announcement: the whole text if it is nothing else, or its last value."""
    if not text:
        return None
    if not re.search(r"\d", text) and (word := YES_OR_NO.match(text)):
        return word[0]
    one_line, bare = "\n" not in text, bare_answer(text) if len(text) <= LONGEST else ""
    one_line = one_line and not DENIED_VALUE.search(text)
    labelled = re.match(r"[^\W\d][\w ]{1,30}: +(.+)", bare)  # Total: 18
    bare = labelled[1] if labelled and read_quantity(labelled[1]) else bare
    if one_line and bare:
        begins = (bare[0].isdigit() and not SENTENCE.search(bare)) or (
            len(bare.split()) <= 3 and text[-1] not in ".!?:"
        )
        if read_quantity(bare) or is_maths(bare) or begins:
            return bare
        if not re.search(r"[\d\\=]", bare):
            return bare if len(bare.split()) <= 6 and not SENTENCE.search(bare) and text[-1] not in ":?" else None
    plain = re.sub(r"(?<!\w)[*_`]+(?=\S)|(?<=\S)[*_`]+(?!\w)|\\(?=\$)", "", text[-TAIL:])
    plain = DENIED_VALUE.sub(" ", re.sub(REMARK, "", re.sub(STYLES, r"\1", plain)))
    return None if cut_off(text) or RELATIVE.search(plain) else bare_answer(ask(plain) or "") or None


def cut_off(text: str) -> bool:
    """Whether a text of several lines stops in the middle of a sentence or value, or in a repeated line."""
    *before, last = text[-TAIL:].splitlines()
    return bool(before) and (not FINISHED.search(last) or before[-1].startswith(last))
