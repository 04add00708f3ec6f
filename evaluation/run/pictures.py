"""Pictures of the report, as inline SVG that takes its colours and its typeface from the page.

matplotlib draws with stand-in colours that are replaced by CSS variables, so one picture serves light, dark and paper.
Text stays text. 4.9 inches are 353 units, shown at about 0.95 times their size on a phone, 1.4 times on a desktop.
"""

import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

from w2s.evaluation.run.contents import Training
from w2s.evaluation.run.metrics import MODELS
from w2s.evaluation.run.verdict import points
from w2s.store.log import printable
from w2s.store.records import Metric

# Stand-in colours that occur nowhere else -> their names on the page.
INK, SOFT, FAINT, ACCENT, PAPER = "#010203", "#010204", "#010205", "#010206", "#010207"
VARIABLES = {INK: "--ink", SOFT: "--soft", FAINT: "--faint", ACCENT: "--accent", PAPER: "--paper"}
WIDTH = 4.9

LABELS = {model: label for model, (label, _) in MODELS.items()}
LADDER = ("floor", "committee", "rewarded", "student", "ceiling")


def title(axis, text: str, *, size: float = 11, pad: float = 8) -> None:
    axis.set_title(text, loc="left", size=size, color=INK, pad=pad)


def name_x(axis, text: str, *, size: float = 10, loc: str = "center") -> None:
    axis.set_xlabel(text, color=SOFT, size=size, loc=loc)


def rule(axis) -> None:
    """Horizontal lines across the axes."""
    axis.grid(axis="y", color=FAINT, lw=0.6)


def whole_steps(axis, most: int, **limits: int) -> None:
    """At most `most` ticks along x, at whole numbers, and few along y, with a line across the axes at each."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(most, integer=True, **limits))
    axis.yaxis.set_major_locator(MaxNLocator(4))
    rule(axis)


def canvas(height: float, columns: int = 1, **spacing: float):
    """A figure as wide as the page, and its axes, without frames."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots(1, columns, squeeze=False)[0]
    figure.subplots_adjust(**spacing)
    for axis in axes:
        axis.set_facecolor("none")
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
        axis.spines["bottom"].set_color(FAINT)
        axis.tick_params(length=0, labelsize=10, labelcolor=SOFT, pad=5)
    return figure, axes


def svg(figure, words: str) -> str:
    """The figure as one <svg> element, the same bytes each time; `words` is for screen readers."""
    import matplotlib

    # The salt makes ids differ between the pictures of a page and not between two runs.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": words, "font.family": "sans-serif"}):
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)  # figure_1, axes_1...: the same in every picture of the page
    text = re.sub(r"font-family: [^;\"]*; ?", "", text)  # the page's typeface
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)  # as older matplotlib writes it
    text = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", text)
    for stand_in, variable in VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    box = re.search(r'viewBox="[^"]*"', text)[0]
    head = f'<svg {box} role="img" aria-label="{words}" xmlns="http://www.w3.org/2000/svg" '
    head += 'xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + text[text.index(">") + 1 :].strip()


def ladder(metrics: dict[str, Metric]) -> str:
    """Accuracy with its interval: floor -> committee -> student -> ceiling, then the controls, in points."""
    steps = [m for m in LADDER if m in metrics]
    controls = [m for m in LABELS if m in metrics and m not in LADDER]
    rows = [*steps, *controls]
    height = 0.55 + 0.27 * len(rows)
    figure, (axis,) = canvas(height, left=0.37, right=0.87, top=0.995, bottom=0.42 / height)
    for model in ("floor", "ceiling"):
        if model in metrics:
            axis.axvline(100 * metrics[model].value, color=FAINT, lw=0.8, zorder=0)
    for at, model in enumerate(rows):
        y = -at - (0.5 if model in controls and steps else 0)
        colour = ACCENT if model == "student" else INK if model in steps else SOFT
        interval(axis, y, metrics[model], LABELS[model], colour, dot=6 if model in steps else 4)
    axis.set_ylim(-len(rows) - (0.1 if controls and steps else -0.4), 0.6)
    axis.set_yticks([])
    axis.margins(x=0.04)
    name_x(axis, "accuracy, % (bars: 95% interval)")
    return svg(figure, "Accuracy of every model with its 95 percent interval")


def interval(axis, y: float, metric: Metric, name: str, colour: str, *, dot: float, size: float = 11) -> None:
    """One row: a dot and its interval, in points, with the name to the left and the figure to the right."""
    axis.plot([100 * metric.low, 100 * metric.high], [y, y], color=colour, lw=1.6, alpha=0.45, solid_capstyle="butt")
    axis.plot(100 * metric.value, y, "o", color=colour, ms=dot, mec=PAPER, mew=0.8)
    across = axis.get_yaxis_transform()
    for x, text, side in ((-0.04, name, "right"), (1.05, points(metric.value), "left")):
        axis.text(x, y, text, transform=across, ha=side, va="center", color=colour, size=size)


def band(axis, x: Sequence[float], metrics: Sequence[Metric], colour: str, scale: float = 100) -> None:
    """The 95% intervals around a line, shaded."""
    low, high = ([scale * getattr(metric, edge) for metric in metrics] for edge in ("low", "high"))
    axis.fill_between(x, low, high, color=colour, alpha=0.1, lw=0)


def rounds(seeds: Sequence[Sequence[dict[str, float]]]) -> str:
    """Error, alpha and effective share by round, side by side; a line per seed, the mean in the accent colour."""
    figure, axes = canvas(1.75, 3, left=0.075, right=0.99, top=0.8, bottom=0.2, wspace=0.32)
    for axis, name in zip(axes, ("error", "alpha", "effective_share"), strict=True):
        lines(axis, [[row[name] for row in one] for one in seeds])
        title(axis, name.replace("_", " "))
        low, high = axis.get_ylim()
        axis.set_ylim(min(0, low), high * 1.05)
    name_x(axes[0], "round", loc="left")
    return svg(figure, "Error, alpha and effective sample size by round")


def training(fits: Sequence[Training]) -> str:
    """The fits of one model, a panel per quantity and a line per seed; held-out labels in the accent colour."""
    panels = [panel for panel in PANELS if any(getattr(one, panel) for one in fits)][:3]
    figure, axes = canvas(1.85, len(panels), left=0.085, right=0.99, top=0.8, bottom=0.22, wspace=0.3)
    for panel, axis in zip(panels, axes, strict=True):
        for one in fits:
            curve_over_steps(axis, getattr(one, panel), INK if panel != "agreement" else ACCENT, PANELS[panel][1])
            if panel == "loss":
                curve_over_steps(axis, one.held_loss, ACCENT, 1)
        over_steps(axis, PANELS[panel][0])
    return svg(figure, f"Training of {fits[0].who.replace('_', ' ')}")


PANELS = {"loss": ("loss", 1), "agreement": ("answers as held-out labels, %", 100), "reward": ("reward", 1)}
PANELS |= {"margin": ("margin", 1), "kl": ("KL from its start, nats", 1)}
"""Quantity -> its title and the factor of its values."""


def learners(rounds: Sequence[Training]) -> str:
    """The loss of each round's learner by step; later rounds have stronger colours."""
    figure, (axis,) = canvas(2.1, left=0.09, right=0.86, top=0.88, bottom=0.2)
    for at, one in enumerate(rounds):
        (line,) = curve_over_steps(axis, one.loss, ACCENT if at == len(rounds) - 1 else INK, 1)
        line.set_alpha(0.25 + 0.6 * (at + 1) / len(rounds))
    over_steps(axis, "loss")
    ends = sorted([rounds[0], *rounds[1:][-1:]], key=lambda one: one.loss[-1][1])
    low, high = axis.get_ylim()
    at_y = apart([one.loss[-1][1] for one in ends], 0.1 * (high - low))
    for one, y in zip(ends, at_y, strict=True):
        colour = ACCENT if one is rounds[-1] else INK
        axis.text(1.02, y, one.who, transform=axis.get_yaxis_transform(), color=colour, size=10, va="center")
    return svg(figure, "Training of the learners, round by round")


def curve_over_steps(axis, line: Sequence[tuple[int, float]], colour: str, times: float):
    marked = {"marker": "o", "ms": 2.5} if len(line) < 25 else {}
    return axis.plot([step for step, _ in line], [times * value for _, value in line], color=colour, lw=1.1, **marked)


def over_steps(axis, words: str) -> None:
    title(axis, words, size=10.5)
    name_x(axis, "step", loc="left")
    whole_steps(axis, 4)


def validation(committees: Sequence[dict[str, Any]]) -> str:
    """Committee accuracy on held-out easy questions by number of rounds; a dot marks the number that was kept."""
    figure, (axis,) = canvas(2.1, left=0.09, right=0.97, top=0.93, bottom=0.2)
    lines(axis, [[100 * value for value in one["accuracy_by_rounds"]] for one in committees])
    for one in committees:
        if 0 < one["used"] <= len(one["accuracy_by_rounds"]):
            kept = 100 * one["accuracy_by_rounds"][one["used"] - 1]
            axis.plot(one["used"], kept, "o", color=INK, ms=4.5, mec=PAPER, mew=0.8)
    name_x(axis, "rounds in the committee")
    return svg(figure, "Committee accuracy on validation by number of rounds")


def lines(axis, series: Sequence[Sequence[float]]) -> None:
    """A thin line per seed over rounds 1, 2, ...; with several seeds also their mean, over the rounds that all have."""
    for values in series:
        axis.plot(range(1, len(values) + 1), values, color=SOFT if len(series) > 1 else ACCENT, lw=1, alpha=0.6)
        axis.plot(1, values[0], ".", color=SOFT, ms=2)  # a single round is a dot, not an empty line
    if len(series) > 1:
        mean = [sum(values) / len(series) for values in zip(*series, strict=False)]
        axis.plot(range(1, len(mean) + 1), mean, color=ACCENT, lw=2)
    whole_steps(axis, 5, min_n_ticks=1)


def heatmap(phi_RR: Sequence[Sequence[float]]) -> str:
    """Correlations of being wrong between the learners: the stronger the colour, the more they err together."""
    from matplotlib.patches import Rectangle

    size, gap = len(phi_RR), 0.03
    side = min(3.8, 0.42 * size)
    figure, (axis,) = canvas(side + 0.35, left=0.2, right=0.2 + side / WIDTH, top=1, bottom=0.35 / (side + 0.35))
    look = {"ha": "center", "va": "center", "size": 8.5 if size <= 9 else 7, "color": INK}
    for row, column in itertools.permutations(range(size), 2):
        value, corner = phi_RR[row][column], (column + gap, -row + gap)
        colour, strength = ACCENT if value > 0 else SOFT, 0.75 * min(abs(value), 1.0)
        axis.add_patch(Rectangle(corner, 1 - 2 * gap, 1 - 2 * gap, color=colour, alpha=strength, lw=0))
        if size <= 12:
            shown = f"{value:.2f}".replace("0.", ".").replace("-", "−")
            axis.text(column + 0.5, -row + 0.46, shown, **look)
    axis.set_xlim(0, size)
    axis.set_ylim(-size + 1, 1)
    axis.set_aspect("equal")
    axis.spines["bottom"].set_visible(False)
    ticks = range(0, size, max(1, size // 12))
    axis.set_yticks([-at + 0.5 for at in ticks], [str(at + 1) for at in ticks])
    axis.set_xticks([at + 0.5 for at in ticks], [str(at + 1) for at in ticks])
    return svg(figure, "Error correlations between the learners")


def plain(text: str) -> str:
    """A name for matplotlib to draw, with dollar signs escaped so that they do not start mathematics."""
    return printable(text).replace("$", r"\$")


def curve(bins: Sequence[str], models: dict[str, Sequence[Metric | None]], axis_name: str) -> str:
    """Accuracy by bin of difficulty, easy to hard, for the models of the ladder, each named at the end of its line."""
    figure, (axis,) = canvas(2.7, left=0.09, right=0.78, top=0.97, bottom=0.2)
    ends = []
    for model, values in models.items():
        points_x = [at for at, one in enumerate(values) if one is not None]
        if not points_x:
            continue
        colour = ACCENT if model == "student" else INK if model == "committee" else SOFT
        shown = [100 * values[at].value for at in points_x]
        if model in ("student", "committee"):
            band(axis, points_x, [values[at] for at in points_x], colour)
        axis.plot(points_x, shown, color=colour, lw=2 if model == "student" else 1.3, marker="o", ms=3)
        ends.append([shown[-1], model, colour])
    low, high = axis.get_ylim()
    ends.sort()
    for (_, model, colour), y in zip(ends, apart([end[0] for end in ends], 0.075 * (high - low)), strict=True):
        axis.text(len(bins) - 0.88, y, LABELS.get(model, model), color=colour, size=10.5, va="center")
    axis.set_ylim(low, high)
    axis.set_xlim(-0.15, len(bins) - 0.9)
    axis.set_xticks(range(len(bins)), [plain(label) for label in bins])
    axis.tick_params(axis="x", labelsize=9)
    rule(axis)
    name_x(axis, plain(axis_name))
    return svg(figure, "Accuracy by difficulty")


def apart(heights: list[float], gap: float) -> list[float]:
    """Sorted heights, moved apart as little as needed so that labels do not overlap."""
    placed = list(heights)
    for _ in range(100):
        for at in range(1, len(placed)):
            missing = gap - (placed[at] - placed[at - 1])
            if missing > 1e-9:
                placed[at - 1] -= missing / 2
                placed[at] += missing / 2
    return placed


def calibration(models: dict[str, Sequence[tuple[float, float, int]]]) -> str:
    """Confidence against accuracy, a panel per model; on the diagonal a model is calibrated."""
    shown = dict(list(models.items())[:4])
    figure, axes = canvas(1.65, max(len(shown), 3), left=0.07, right=0.99, top=0.84, bottom=0.25, wspace=0.3)
    for axis, (model, bins) in zip(axes, shown.items(), strict=False):
        confidence, accuracy, _ = zip(*bins, strict=True)
        axis.plot([0, 1], [0, 1], color=FAINT, lw=1)
        axis.plot(confidence, accuracy, color=ACCENT, lw=1.2, marker="o", ms=3, clip_on=False)
        title(axis, LABELS.get(model, model), pad=6)
        axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
        axis.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    name_x(axes[0], "confidence → accuracy ↑", size=9.5, loc="left")
    return svg(figure, "Confidence against accuracy")


def sparkline(values: Sequence[float]) -> str:
    """The history of a weight, as a line as high as the text."""
    top = max([*values, 1e-12])
    step = 60 / max(len(values) - 1, 1)
    path = " ".join(f"{2 + at * step:.1f},{16 - 14 * value / top:.1f}" for at, value in enumerate(values))
    last = path.split(" ")[-1].split(",")
    return (
        '<svg class="spark" viewBox="0 0 64 18" role="img" aria-label="weight by round">'
        f'<polyline points="{path}" fill="none" stroke="var(--soft)" stroke-width="1.2"/>'
        f'<circle cx="{last[0]}" cy="{last[1]}" r="2" fill="var(--accent)"/></svg>'
    )
