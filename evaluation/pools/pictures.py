"""Pictures of `w2s combine`'s page, drawn as `pictures` draws: inline SVG in the page's own colours.

They take the parts of combine.json under "curves": shares from 0 to 1, costs per 1,000 questions. The names of
members and methods may come from anywhere: they are escaped here.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from markupsafe import escape

from w2s.evaluation.run.pictures import ACCENT, FAINT, INK, PAPER, SOFT, apart, canvas, plain, svg

MOST_MEMBERS = 40  # rows of the heat map whose names can still be read
MOST_NUMBERS = 60  # points of a line
MOST_LINES = 6  # lines whose names fit at their ends
SHADES = 12
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
# Where a name may stand beside its point: right and up in printer's points, then how the text is anchored there.
PLACES = (
    *((4, 4, "left", "bottom"), (6, 0, "left", "center"), (0, 7, "center", "bottom"), (-4, 4, "right", "bottom")),
    *((4, -4, "left", "top"), (0, -7, "center", "top"), (-4, -4, "right", "top"), (-6, 0, "right", "center")),
    *((0, 18, "center", "bottom"), (0, -18, "center", "top")),
)


def by_number(curve: dict[str, Any], winner: str) -> str:
    """Accuracy against the number of models, a line per way to combine; dashed: what the copula says of a vote.

    Lines: the winner's, plurality's, and those that end highest, MOST_LINES in all. The axis is logarithmic above
    MOST_MEMBERS models, and a line has at most MOST_NUMBERS points.
    """
    number = np.array(curve["number"], dtype=float)
    at = thinned(number)
    lines = {name: 100 * np.array(values, dtype=float) for name, values in curve["lines"].items()}
    lines = {name: values for name, values in lines.items() if np.isfinite(values).any()}
    first = sorted(lines, key=lambda name: (name not in (winner, "plurality"), -last(lines[name]), name))[:MOST_LINES]
    if not first:
        return ""
    figure, (axis,) = canvas(2.9, left=0.07, right=0.74, top=0.97, bottom=0.17)
    dots = {"marker": "o", "ms": 2.5} if len(at) <= 12 else {}
    ends = []
    for name in first:
        colour, wide = (ACCENT, 2) if name == winner else (INK, 1.1)
        axis.plot(number[at], lines[name][at], color=colour, lw=wide, **dots)
        ends.append((last(lines[name]), name, colour))
    low, high = axis.get_ylim()
    vote = 100 * np.array(curve.get("floor") or [], dtype=float)
    if np.isfinite(vote).any():
        axis.plot(number[at], vote[at], color=SOFT, lw=1.1, ls=(0, (4, 2.5)))
        # Guesses far from what was measured must not flatten what was measured.
        room = 0.6 * (high - low)
        low, high = np.clip(axis.get_ylim(), [low - room, high], [low, high + room])
        ends.append((float(np.clip(last(vote), low, high)), "by the copula", SOFT))
    axis.set_ylim(low, high)
    count_axis(axis, number)
    name_ends(axis, ends)
    axis.grid(axis="y", color=FAINT, lw=0.6)
    axis.set_xlabel("models", color=SOFT, size=10)
    return svg(figure, "Accuracy against the number of models")


def thinned(number: np.ndarray) -> np.ndarray:
    """Positions in `number`, at most MOST_NUMBERS, evenly spaced on a log scale, with the first and the last."""
    if len(number) <= MOST_NUMBERS:
        return np.arange(len(number))
    wanted = np.linspace(np.log(number[0]), np.log(number[-1]), MOST_NUMBERS)
    return np.unique(np.abs(np.log(number) - wanted[:, None]).argmin(1))


def last(values: np.ndarray) -> float:
    """The last finite value."""
    return float(values[np.isfinite(values)][-1])


def count_axis(axis, number: np.ndarray) -> None:
    """Ticks at whole numbers; a log scale where there are many."""
    from matplotlib.ticker import MaxNLocator

    if number[-1] <= MOST_MEMBERS:
        axis.set_xlim(number[0] - 0.3, max(number[-1], number[0] + 1) + 0.3)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        return
    log_axis(axis, number[0], number[-1], (1, 2, 5))


def name_ends(axis, ends: Sequence[tuple[float, str, str]]) -> None:
    """(height, name, colour) of each line: its name beside its end, moved apart where lines end together."""
    low, high = axis.get_ylim()
    ends = sorted(ends)
    heights = np.array(apart([end[0] for end in ends], 0.072 * (high - low)))
    heights -= max(heights.max(initial=high) - high, 0)
    heights += max(low - heights.min(initial=low), 0)
    for (_, name, colour), y in zip(ends, heights, strict=True):
        across = axis.get_yaxis_transform()
        axis.text(1.03, y, plain(short(name, 20)), transform=across, color=colour, size=10, va="center")
    axis.set_ylim(low, high)


def cost(curve: dict[str, Any], winner: str, unit: str) -> str:
    """Accuracy against cost (log): single models and their hull, methods as dots or lines, the winner's intervals.

    Named, as far as there is room: the winner, the methods that no other method beats at their price, and the models
    on the hull. '' where nothing has a price.
    """
    methods = {name: sorted(points, key=lambda p: p["cost"]) for name, points in curve["methods"].items() if points}
    hull = [list(corner) for corner in curve.get("hull") or []]
    paid = [one["cost"] for one in sum(methods.values(), list(curve["singles"])) if one["cost"] > 0]
    if not paid:
        return ""
    least = min(paid) / 2  # on a log axis, what costs nothing stands at the left edge
    figure, (axis,) = canvas(3.6, left=0.07, right=0.99, top=0.98, bottom=0.14)
    most = max(*paid, 4 * least) * 1.3
    log_axis(axis, least, most, (1,) if max(paid) > 300 * least else (1, 2, 5))
    axis.set_xlim(least / 1.15, most)
    for (x, y), (x_next, y_next) in pairwise(hull):
        # Mixing two models at random is a straight line in costs, so a bent one on a log axis.
        x_T = np.geomspace(max(x, least), max(x_next, least), 40)
        axis.plot(x_T, 100 * np.interp(x_T, [x, x_next], [y, y_next]), color=SOFT, lw=1, zorder=1)
    for one in curve["singles"]:
        axis.plot(max(one["cost"], least), 100 * one["accuracy"], "o", color=SOFT, ms=4, mfc="none", mew=0.9)
    best = unbeaten(methods)
    for at, (name, points) in enumerate(methods.items()):
        draw_points(axis, points, ACCENT if name == winner else INK if name in best else SOFT, least, DASHES[at % 4])
    labels = [(name, where_ahead(methods[name], hull)) for name in dict.fromkeys([winner, *best]) if name in methods]
    labels += [(one["name"], one) for one in curve["singles"] if [one["cost"], one["accuracy"]] in hull]
    axis.margins(y=0.1)
    axis.grid(axis="y", color=FAINT, lw=0.6)
    axis.set_xlabel(f"{plain(unit)} per 1,000 questions", color=SOFT, size=10)
    colours = {winner: ACCENT} | {name: INK for name in best if name != winner}
    spots = [(max(p["cost"], least), 100 * p["accuracy"], name, colours.get(name, SOFT)) for name, p in labels]
    name_points(axis, spots)
    return svg(figure, "Accuracy against cost")


def draw_points(axis, points: Sequence[dict[str, Any]], colour: str, least: float, dashes: Any) -> None:
    """A method's operating points: a dot, or a line that has dots where they are few; the winner's with intervals."""
    x, y = [max(p["cost"], least) for p in points], [100 * p["accuracy"] for p in points]
    wide, dots = (1.8, 4.5) if colour == ACCENT else (1.1, 3.5)
    marker = "o" if len(points) <= 6 else ""
    axis.plot(x, y, color=colour, lw=wide, ls=dashes, marker=marker, ms=dots, mec=PAPER, mew=0.5)
    if colour == ACCENT:
        axis.vlines(x, [100 * p["low"] for p in points], [100 * p["high"] for p in points], color=ACCENT, alpha=0.45)


def where_ahead(points: Sequence[dict[str, Any]], hull: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The operating point that is farthest above the single models' hull: there its name stands."""
    if not hull:
        return max(points, key=lambda p: p["accuracy"])
    x, y = zip(*hull, strict=True)
    return max(points, key=lambda p: (p["accuracy"] - np.interp(p["cost"], x, y), p["accuracy"]))


def log_axis(axis, least: float, most: float, steps: Sequence[int]) -> None:
    """A log scale with ticks at these multiples of the powers of ten from `least` to `most`."""
    axis.set_xscale("log")
    ticks = [step * 10.0**power for power in range(-9, 10) for step in steps]
    ticks = [tick for tick in ticks if least <= tick <= most]
    axis.set_xticks(ticks, [f"{tick:,.9g}" for tick in ticks])
    axis.set_xticks([], minor=True)


def unbeaten(methods: dict[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Methods with a point that no point of a method is better than at the same price or less, best first."""
    points = sorted((p["cost"], -p["accuracy"], name) for name, some in methods.items() for p in some)
    found: list[str] = []
    reached = 0.0
    for _, minus, name in points:
        if -minus > reached:
            reached = -minus
            found.append(name)
    return list(dict.fromkeys(reversed(found)))


def name_points(axis, named: Sequence[tuple[float, float, str, str]], *, places: Sequence[tuple] = PLACES) -> None:
    """(x, y, name, colour), the most important first: each name where it hides no line's points and no other name.

    A name that finds no room is left out; the first never is.
    """
    from matplotlib.transforms import Bbox

    axis.figure.draw_without_rendering()  # the limits are final from here on
    frame, scale = axis.get_window_extent(), axis.figure.dpi / 72
    points = axis.transData.transform(np.concatenate([line.get_xydata() for line in axis.lines]))
    taken = [Bbox.from_bounds(x - 1, y - 1, 2, 2) for x, y in points]
    for x, y, name, colour in named:
        first = name == named[0][2]
        for place in places:
            right, up, ha, va = place
            look = {"color": colour, "size": 9, "ha": ha, "va": va, "textcoords": "offset points"}
            text = axis.annotate(plain(short(name, 24)), (x, y), xytext=(right, up), **look)
            box = text.get_window_extent().padded(scale)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0
            if (inside and not any(box.overlaps(other) for other in taken)) or (first and place is places[-1]):
                taken.append(box)
                break
            text.remove()


def agreement(rows: Sequence[dict[str, Any]]) -> str:
    """Precision of the plurality answer against the share of questions on which so many agree; shaded: 95% interval."""
    rows = sorted((row for row in rows if row["n"] > 0), key=lambda row: row["coverage"])
    if not rows:
        return ""
    figure, (axis,) = canvas(2.7, left=0.07, right=0.97, top=0.95, bottom=0.18)
    x = [100 * row["coverage"] for row in rows]
    low, high, precision = ([100 * row[key] for row in rows] for key in ("low", "high", "precision"))
    axis.fill_between(x, low, high, color=ACCENT, alpha=0.13, lw=0)
    axis.plot(x, precision, color=ACCENT, lw=1.8, marker="o", ms=3)
    axis.set_xlim(0, 107)
    axis.set_xticks(range(0, 101, 20))
    axis.margins(y=0.12)
    axis.grid(axis="y", color=FAINT, lw=0.6)
    axis.set_xlabel("questions answered, % (beside the dots: least agreement)", color=SOFT, size=10)
    labels = [(100 * row["coverage"], 100 * row["precision"], f"{100 * row['threshold']:.0f}%", INK) for row in rows]
    name_points(axis, labels, places=(PLACES[0], PLACES[2]))
    return svg(figure, "Coverage against precision of the agreement")


def correlation(members: Sequence[str], phi: Sequence[Sequence[float | None]]) -> str:
    """The map of error correlations, like beside like. Written by hand: matplotlib needs 200 bytes for a square.

    Rows are ordered by clustering; of more than MOST_MEMBERS members that many are shown, evenly spaced along this
    order. Accent: positive, grey: negative, empty: not known or the member itself; the stronger the farther from 0.
    """
    phi_MM = np.array(phi, dtype=float)
    order = clustered(phi_MM)
    if len(order) > MOST_MEMBERS:
        order = order[np.linspace(0, len(order) - 1, MOST_MEMBERS).round().astype(int)]
    phi_MM = phi_MM[np.ix_(order, order)]
    np.fill_diagonal(phi_MM, np.nan)
    most = max(float(np.nanmax(np.abs(phi_MM), initial=0.0)), 0.01)
    step = min(20.0, 250 / len(order))
    font, longest = min(9.0, 0.82 * step), max(len(str(members[member])) for member in order)
    left = min(353 - step * len(order), 0.6 * font * longest + 8)
    words = []
    for at, member in enumerate(order):
        name = escape(short(str(members[member]), max(int((left - 6) / (0.52 * font)), 6)))
        words.append(f'<text x="{left - 5:.1f}" y="{(at + 0.5) * step + 0.35 * font:.1f}">{name}</text>')
    inside = numbers(phi_MM, left, step) if len(order) <= 10 else ""
    return (
        f'<svg viewBox="0 0 353 {step * len(order) + 24:.0f}" role="img" aria-label="Error correlations" '
        f'xmlns="http://www.w3.org/2000/svg"><g font-size="{font:.1f}" text-anchor="end" fill="var(--ink)">'
        f'{"".join(words)}</g><g transform="translate({left:.2f} 0) scale({step:.4f})">{squares(phi_MM / most)}</g>'
        f"{inside}{legend(most, left, step * len(order) + 10, font)}</svg>"
    )


def clustered(phi_MM: np.ndarray) -> np.ndarray:
    """An order of the members in which those that err together are neighbours (average linkage on 1 - phi)."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    if len(phi_MM) < 3:
        return np.arange(len(phi_MM))
    distance_MM = 1 - np.nan_to_num((phi_MM + phi_MM.T) / 2)
    np.fill_diagonal(distance_MM, 0)
    return leaves_list(linkage(squareform(distance_MM, checks=False), "average", optimal_ordering=len(phi_MM) <= 400))


def squares(strength_MM: np.ndarray) -> str:
    """Unit squares, one path for each shade: a fiftieth of the bytes of as many rectangles."""
    shade_MM = np.where(np.isfinite(strength_MM), np.round(SHADES * np.nan_to_num(strength_MM)), 0).astype(int)
    paths = []
    for shade in np.unique(shade_MM[shade_MM != 0]):
        cells = "".join(f"M{column} {row}h.94v.94h-.94z" for row, column in np.argwhere(shade_MM == shade))
        paths.append(f'<path {fill_of(shade / SHADES)} d="{cells}"/>')
    return "".join(paths)


def fill_of(strength: float) -> str:
    """Colour of -1 to 1; steeper than linear, because most pools err together a little and families much more."""
    return f'fill="var({"--accent" if strength > 0 else "--soft"})" fill-opacity="{0.9 * abs(strength) ** 1.6:.3f}"'


def numbers(phi_MM: np.ndarray, left: float, step: float) -> str:
    """The correlations in their squares, where there are few."""
    texts = []
    for row, column in np.argwhere(np.isfinite(phi_MM)):
        shown = f"{phi_MM[row, column]:.2f}".replace("0.", ".").replace("-", "−")
        texts.append(f'<text x="{left + (column + 0.47) * step:.1f}" y="{(row + 0.47) * step + 3:.1f}">{shown}</text>')
    return f'<g font-size="{0.36 * step:.1f}" text-anchor="middle" fill="var(--ink)">{"".join(texts)}</g>'


def legend(most: float, left: float, top: float, font: float) -> str:
    """The shades from 0 to `most`, with both ends named."""
    start, wide = left + 1.2 * font, 0.6 * font
    size = f'y="{top:.1f}" width="{wide:.1f}" height="{0.8 * font:.1f}"'
    boxes = (f'<rect x="{start + wide * at:.1f}" {size} {fill_of((at + 1) / SHADES)}/>' for at in range(SHADES))
    shades, line = "".join(boxes), top + 0.75 * font
    return (
        f'{shades}<g font-size="{font:.1f}" fill="var(--soft)"><text x="{left:.1f}" y="{line:.1f}">0</text>'
        f'<text x="{start + wide * (SHADES + 0.8):.1f}" y="{line:.1f}">{most:.2f}</text></g>'
    )


def short(text: str, most: int) -> str:
    """A name of at most `most` letters: what tells versions apart stands at its ends, so the middle goes."""
    return text if len(text) <= most else text[: most - most // 2 - 1] + "…" + text[-(most // 2) :]
