"""Numbers in short answers: exactly, with their unit.

The rules of equality where conventions differ: a unit that only one of two answers names is ignored; "50%" equals 50
(the question may ask for percent) and 1/2; a decimal is exact, so 0.33 is not 1/3, but six digits of a fraction that no
decimal equals stand for it.
"""

import re
import unicodedata
from fractions import Fraction

LONGEST = 400  # characters of a short answer that is compared as more than text

FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([-+]?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
POWER = re.compile(r"\s*(?:\\times|\\cdot|×|·|\*|x)\s*10\s*(?:\^|\*\*)\s*\{?\s*([-+]?\s*\d{1,3})\s*\}?")
NUMBER = re.compile(
    r"([-+]?)\s*(?:(\d+)\s+(\d+)/(\d+)|(\d+(?:\.\d*)?|\.\d+)(?:e([-+]?\d{1,3}))?(?:\s*/\s*(\d+(?:\.\d+)?))?)(?![\d^_!])"
)
UNIT = re.compile(r"(?:%|°\s*[cf]?|[a-z¢€£](?:[a-z.\s/^*-]|(?<=[a-z^])[23])*)?")
NO_UNIT = re.compile(r"[/^*]|(?:and|or|plus|minus|times|squared|cubed|factorial)\b")  # 5 and a half is not 5
GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!,?\d)|(?<![\d.,/])[1-9]\d{0,2}(?: \d{3})+(?! ?[\d/])")
DECIMAL_COMMA = re.compile(r"\D*(?:0,\d+|\d{4,},\d+|[1-9]\d{0,2},(?:\d{1,2}|\d{4,}))[^\d,]*")
COINS = {"$": "dollars", "€": "euros", "£": "pounds sterling"}
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NAMES += ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMERALS = {name: str(number) for number, name in enumerate(NAMES)} | {
    ten + ("-" + NAMES[one] if one else ""): str(10 * tens + one)
    for tens, ten in enumerate(TENS, 2)
    for one in range(10)
}
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

Quantity = tuple[Fraction, str]  # a number and its unit, "" where none is named


def read_quantity(answer: str) -> Quantity | None:
    r"""The exact number in an answer, and its unit; None if the answer is not a number.

    1,234.50, $3, 7 apples, 2 1/2, \frac{3}{4}, 50\% and 1e3 are numbers.
    """
    if len(answer) > LONGEST:
        return None
    answer = spelled(answer)
    coin = next((name for sign, name in COINS.items() if sign in answer), "")
    if coin == "dollars" and re.search(r"\$[^$]*\$", answer):  # LaTeX in dollars: $5$
        coin = "dollars" if "\\$" in answer else ""
    answer = re.sub(r"\\?\$|[€£]", " ", answer).strip().rstrip(" .")
    answer = re.sub(r"^(?:about|approximately|around|roughly|exactly|only|just|(?:[a-z]\w*\s*)?(?:=|≈))\s*", "", answer)
    answer = POWER.sub(lambda match: "e" + match[1].replace(" ", ""), re.sub(r"^([-+])\s+(?=[\d.])", r"\1", answer))
    word = re.match(r"[a-z]+(?:-[a-z]+)?\b", answer)
    if word and word[0] in NUMERALS:
        answer = NUMERALS[word[0]] + answer[word.end() :]
    match = NUMBER.match(answer)
    unit = answer[match.end() :].strip(" .()") if match else ""
    scale = SCALES.get(unit.split(" ")[0])
    unit = unit.partition(" ")[2] if scale else unit
    no_unit = not UNIT.fullmatch(unit) or NO_UNIT.match(unit) or (len(unit) == 1 and unit not in UNITS)  # 2x
    if not match or no_unit:
        return None
    sign, whole, above, beneath, digits, power, below = match.groups()
    if any(divisor and not float(divisor) for divisor in (beneath, below)):
        return None
    if whole:
        value = int(whole) + Fraction(int(above), int(beneath))
    else:
        value = Fraction(digits) * Fraction(10) ** (int(power or 0) + (scale or 0)) / Fraction(below or 1)
    return -value if sign == "-" else value, coin or unit


def spelled(answer: str) -> str:
    """An answer with plain signs for minus, fractions, thousands, degrees, percents, and units without LaTeX."""
    answer = "".join(map(spell_fraction, answer))
    answer = re.sub("[−–‐]", "-", " ".join(answer.split()).casefold().replace("⁄", "/"))
    answer = re.sub(r"^(?:minus|negative) (?=[\d.$])", "-", answer)
    answer = answer.replace("²", "^2").replace("³", "^3").replace("\\approx", "≈")
    answer = re.sub(r"\\(?:text(?:normal|rm|bf|it)?|math(?:rm|bf)|mbox|rm)\s*\{([^{}]*)\}", r" \1", answer)
    answer = re.sub(r"\\(?:left|right)(?![a-z])|\\[ ;:]|~", " ", answer)
    answer = re.sub(r" ?\{ ?, ?\} ?|, ?\\! ?|(?<=\d)(?:\\,|['’])(?=\d{3}(?!\d))", ",", answer)
    answer = answer.replace("\\!", "").replace("\\,", " ")
    answer = FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", answer)
    answer = re.sub(r"\^? ?\{?\\circ\}?|\\degree\b|\bdegrees?\b", "°", answer).replace("\\%", "%")
    answer = re.sub(r" ?\b(?:percent(?:age)?|pct)\b", "%", re.sub(r"° ?(c|f)(?:elsius|ahrenheit)?\b", r"°\1", answer))
    answer = re.sub(r"\^\{(\d)\}", r"^\1", answer)
    return GROUPS.sub(lambda match: re.sub("[, ]", "", match[0]), answer).strip()


def spell_fraction(sign: str) -> str:
    """½ as 1⁄2, after a space; any other sign as it is."""
    plain = unicodedata.normalize("NFKC", sign)
    return f" {plain}" if unicodedata.category(sign) == "No" and "⁄" in plain else sign


def with_point(answer: str) -> str:
    """An answer that may be one number with a decimal comma, with a decimal point: 2,5 -> 2.5; others unchanged."""
    return answer.replace(",", ".") if len(answer) <= LONGEST and DECIMAL_COMMA.fullmatch(answer) else answer


def same_quantity(answer: Quantity, gold: Quantity) -> bool:
    """Equal, or equal after converting units; beside a number without a unit, a percentage p equals p or p/100."""
    (one, unit), (other, gold_unit) = answer, gold
    if unit == gold_unit:
        return same_number(one, other)
    if not unit or not gold_unit:
        parts = (unit + gold_unit == "%") * [(one / 100, other) if unit else (one, other / 100)]
        return same_number(one, other) or any(same_number(a, b) for a, b in parts)
    known, known_gold = read_unit(unit), read_unit(gold_unit)
    if known and known_gold:
        return known[1] == known_gold[1] and same_number(one * known[0], other * known_gold[0])
    return same_number(one, other) and not (known or known_gold) and bool(things(unit) & things(gold_unit))


def same_number(one: Fraction, other: Fraction) -> bool:
    """Equal; or a decimal and a fraction that no decimal equals, which agree to six digits."""
    endless = [pow(10, side.denominator.bit_length(), side.denominator) != 0 for side in (one, other)]
    return one == other or (endless[0] != endless[1] and abs(one - other) * 500_000 <= abs(other))


def things(unit: str) -> set[str]:
    """The words of an unknown unit, in the singular: red apples -> red, apple."""
    return {re.sub(r"(?<=[a-z])(?:es|s)$", "", word).rstrip("e") for word in re.findall(r"[a-z]+", unit)}


DIMENSIONS = {
    "length": "mm,millimeter,millimetre=1/1000 cm,centimeter,centimetre=1/100 m,meter,metre=1 km,kilometer,kilometre="
    "1000 in,inch,inche=254/10000 ft,foot,feet=3048/10000 yd,yard=9144/10000 mi,mile=1609344/1000",
    "mass": "mg,milligram=1/1000 g,gram=1 kg,kilogram=1000 lb,pound=45359237/100000 oz,ounce=28349523125/1000000000",
    "time": "s,sec,second=1 min,minute=60 h,hr,hour=3600 day=86400 week=604800",
    "volume": "ml,milliliter,millilitre=1/1000 l,liter,litre=1",
    "dollars": "dollar,usd=1 cent,¢=1/100",
    **{"euros": "euro=1", "sterling": "gbp=1", "angle": "°=1", "radians": "rad,radian=1", "percent": "%=1"},
    **{"celsius": "°c=1", "fahrenheit": "°f=1"},
}
"""Dimension -> its units, as name=factor or name,name=factor; each has a plural too."""
UNITS = {
    unit: (Fraction(factor), dimension)
    for dimension, units in DIMENSIONS.items()
    for names, factor in (part.split("=") for part in units.split())
    for name in names.split(",")
    for unit in (name, f"{name}s")
}


def read_unit(text: str) -> tuple[Fraction, str] | None:
    """(factor, dimension) of a unit: km, square feet, cm^2, km/h, miles per hour; None if it is unknown."""
    text = re.sub(r"\s*\bper\b\s*|\s*/\s*", "/", text.casefold().strip(" ."))
    factor, dimensions = Fraction(1), []
    for at, part in enumerate(text.split("/")):
        found = re.fullmatch(r"(square|cubic|sq\.?)?\s*([a-z°%¢][a-z]?[a-z ]*?)\.?\s*(?:\^?([23]))?", part.strip())
        name = (found[2].strip() if found else "").replace("° ", "°")
        if name not in UNITS:
            return None
        power = {"s": 2, "c": 3}.get((found[1] or "")[:1], int(found[3] or 1))
        factor *= UNITS[name][0] ** (-power if at else power)
        dimensions.append(f"{UNITS[name][1]}^{power}")
    return factor, "/".join(dimensions)
