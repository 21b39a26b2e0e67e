"""Draws a result as SVG: bars for each system, or lines over the number of timers; medians, marks from min to max."""

import math
import textwrap
from html import escape

from .cases import REFERENCE
from .report import TITLES, number
from .systems import SYSTEMS

WIDTH = 860
LEFT, RIGHT = 190, 130  # margins of the bars: names on the left, figures on the right
ROW = 24
OURS, EXACT, THEIRS = "#c2410c", "#78350f", "#94a3b8"
# Colours of the lines: a system has the same colour in every plot.
_PALETTE = "#c2410c #f59e0b #2563eb #16a34a #9333ea #0891b2 #db2777 #65a30d #475569 #7f1d1d".split()
COLOURS = dict(zip((system.name for system in SYSTEMS if not system.only and not system.extra), _PALETTE))
STYLE = (
    "text{font:13px sans-serif;fill:#1e293b}.title{font-size:16px;font-weight:bold}.small{font-size:11px;fill:#64748b}"
    ".label{font-weight:bold}.grid{stroke:#e2e8f0}.mark{stroke:#334155;stroke-width:1.5}"
)


class Picture:
    def __init__(self):
        self.parts, self.height = [], 0

    def text(self, x, y, words, kind="", anchor="start"):
        kind = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}"{kind} text-anchor="{anchor}">{escape(words)}</text>')

    def line(self, x1, y1, x2, y2, kind):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>')

    def draw(self, part):
        self.parts.append(part)

    def svg(self):
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.height:.0f}" '
            f'viewBox="0 0 {WIDTH} {self.height:.0f}">\n<style>{STYLE}</style>\n'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(self.parts) + "\n</svg>\n"
        )


class Scale:
    """Maps values to pixels; logarithmic, with a note in the title, if the values lie far apart."""

    def __init__(self, values, start, end):
        low, high = min(values), max(values)
        self.logarithmic = low > 0 and high > 20 * low
        self.start, self.end = start, end
        if self.logarithmic:
            self.low, self.high = 10 ** math.floor(math.log10(low / 1.3)), high
            self.ticks = [10.0**n for n in range(round(math.log10(self.low)), math.floor(math.log10(high)) + 1)]
        else:
            self.low, self.high = 0, high or 1
            step = 10 ** math.floor(math.log10(self.high))
            step = next(s for s in (step / 5, step / 2, step, 2 * step) if self.high / s <= 6)
            self.ticks = [n * step for n in range(math.floor(self.high / step) + 1)]

    def __call__(self, value):
        if self.logarithmic:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = value / self.high
        return self.start + part * (self.end - self.start)

    def name(self, title):
        return f"{title}{', logarithmic scale' if self.logarithmic else ''}"


def _tick(value):
    for limit, letter in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{letter}"
    return f"{value:g}"


def _head(picture, result):
    case, head = result.case, result.head
    picture.text(20, 30, f"{case.name}: {case.work}", "title")
    picture.text(20, 50, f"{head['date']}, {head['machine']}. {head['command']}", "small")
    better = "More" if case.figures[0].more else "Less"
    marks = "" if case.curve else ", marks from min to max"
    median = "One round." if head["rounds"] == "1" else f"Median of {head['rounds']} rounds{marks}."
    picture.text(20, 66, f"{median} {better} is better.", "small")
    return 76


def _left_out(picture, y, entries):
    words = [f"{TITLES[name]} ({entry.note})" for name, entry in entries.items() if not entry.is_measured]
    if words:
        for line in textwrap.wrap(f"Left out: {', '.join(words)}", 140):
            picture.text(20, y, line, "small")
            y += 16
    return y


def _bars(picture, y, figures, label, entries):
    found = {name: entry.found for name, entry in entries.items() if entry.found[0]}
    if not found:
        return y
    scale = Scale([value for each in found.values() for value in each[0]], LEFT, WIDTH - RIGHT)
    picture.text(20, y + 18, label, "label")
    picture.text(WIDTH - 20, y + 18, scale.name(figures[0].title), "small", "end")
    top = y + 30
    bottom = top + ROW * len(found)
    for tick in scale.ticks:
        picture.line(scale(tick), top, scale(tick), bottom, "grid")
        picture.text(scale(tick), bottom + 14, _tick(tick), "small", "middle")
    for row, (name, each) in enumerate(found.items()):
        median, least, greatest = each[0]
        middle = top + ROW * (row + 0.5)
        colour = OURS if name.startswith("ringloop") else THEIRS
        picture.text(LEFT - 8, middle + 4, TITLES[name], anchor="end")
        picture.draw(
            f'<rect x="{LEFT}" y="{middle - 8:.1f}" width="{scale(median) - LEFT:.1f}" height="16" fill="{colour}"/>'
        )
        picture.line(scale(least), middle, scale(greatest), middle, "mark")
        words = number(median)
        for figure, summary in zip(figures[1:], each[1:]):
            if figure.name == "p99":
                words += f", p99 {number(summary[0])}"
            elif figure.name == "early" and summary[0]:
                words += f", {number(summary[0])} early"
        picture.text(max(scale(median), scale(greatest)) + 6, middle + 4, words)
    return _left_out(picture, bottom + 32, entries)


def _apart(wanted, gap):
    """Returns positions near the wanted ones, in the same order, and at least `gap` apart."""
    placed = []
    for y in wanted:
        placed.append(max(y, placed[-1] + gap) if placed else y)
    return placed


def _lines(picture, y, figure, title, points):
    """Draws lines, log-log; `points` has the numbers of timers and their results."""
    left, right, top, bottom = 70, WIDTH - 190, y + 34, y + 374
    series = {}
    for n, entries in points:
        for name, entry in entries.items():
            if entry.found[0]:
                series.setdefault(name, []).append((n, entry.found[0]))
    if not series:
        return y
    values = [value for line in series.values() for _, found in line for value in found]
    xs = [n for n, _ in points]
    across = Scale([1, 1000], left, right)
    across.low, across.high = min(xs) / 1.5, max(xs) * 1.5
    up = Scale([1, 1000], bottom, top)
    up.low, up.high = 10 ** math.floor(math.log10(min(values))), max(values) * 1.2
    picture.text(20, y + 18, title, "label")
    picture.text(WIDTH - 20, y + 18, f"{figure.title}, logarithmic scales", "small", "end")
    for n in xs:
        picture.line(across(n), top, across(n), bottom, "grid")
        picture.text(across(n), bottom + 16, _tick(n), "small", "middle")
    for power in range(round(math.log10(up.low)), math.floor(math.log10(up.high)) + 1):
        picture.line(left, up(10**power), right, up(10**power), "grid")
        picture.text(left - 6, up(10**power) + 4, _tick(10**power), "small", "end")
    order = sorted(series, key=lambda name: up(series[name][-1][1][0]))
    heights = _apart([up(series[name][-1][1][0]) for name in order], 15)
    for name, label in zip(order, heights):
        colour = COLOURS.get(name, EXACT)
        width = 3 if name.startswith("ringloop") else 1.5
        line = " ".join(f"{across(n):.1f},{up(found[0]):.1f}" for n, found in series[name])
        picture.draw(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        for n, (median, least, greatest) in series[name]:
            picture.draw(f'<circle cx="{across(n):.1f}" cy="{up(median):.1f}" r="3" fill="{colour}"/>')
            picture.line(across(n), up(least), across(n), up(greatest), "mark")
        n, (median, _, _) = series[name][-1]
        words = f"{TITLES[name]}: {number(median)}{f' at {_tick(n)}' if n != max(xs) else ''}"
        picture.draw(
            f'<polyline points="{across(n) + 5:.1f},{up(median):.1f} {right + 6},{label:.1f}" '
            f'fill="none" stroke="{colour}" stroke-width="0.7"/>'
        )
        picture.draw(f'<text x="{right + 10}" y="{label + 4:.1f}" style="fill:{colour}">{escape(words)}</text>')
    y = max(bottom, heights[-1]) + 36
    notes = {name: entry for _, entries in points for name, entry in entries.items() if not entry.is_measured}
    return _left_out(picture, y, {name: entry for name, entry in notes.items() if name not in series})


def _logarithmic(values, start, end):
    """A scale that fits the values, with ticks at 1, 2 and 5 of each power of ten."""
    scale = Scale([1, 1000], start, end)
    scale.low, scale.high = min(values) / 1.8, max(values) * 1.3
    powers = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)))
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    scale.ticks = [tick for tick in ticks if scale.low <= tick <= scale.high]
    return scale


def _curve(picture, y, figures, label, entries):
    """The first figure against the second, log-log: ringloop's slacks as a curve, the others as points."""
    left, right, top, bottom = 70, WIDTH - 100, y + 34, y + 334
    places = {name: (entry.found[1][0], entry.found[0][0]) for name, entry in entries.items() if entry.found[0]}
    if not places:
        return y
    across = _logarithmic([late for late, _ in places.values()], left, right)
    up = _logarithmic([cost for _, cost in places.values()], bottom, top)
    picture.text(20, y + 18, label, "label")
    picture.text(WIDTH - 20, y + 18, f"{figures[0].title} against {figures[1].title}, logarithmic scales", "small", "end")
    for tick in across.ticks:
        picture.line(across(tick), top, across(tick), bottom, "grid")
        picture.text(across(tick), bottom + 16, _tick(tick), "small", "middle")
    for tick in up.ticks:
        picture.line(left, up(tick), right, up(tick), "grid")
        picture.text(left - 6, up(tick) + 4, _tick(tick), "small", "end")
    curve = [place for name, place in places.items() if name.startswith("ringloop") and name != REFERENCE]
    line = " ".join(f"{across(late):.1f},{up(cost):.1f}" for late, cost in curve)
    picture.draw(f'<polyline points="{line}" fill="none" stroke="{OURS}" stroke-width="2"/>')
    for name, (late, cost) in places.items():
        x, height, colour = across(late), up(cost), COLOURS.get(name, OURS)
        radius = 7 if name == REFERENCE else 4
        picture.draw(f'<circle cx="{x:.1f}" cy="{height:.1f}" r="{radius}" fill="{colour}"/>')
        if name == REFERENCE:
            picture.text(x + 10, height - 7, "ringloop, default", "label")
        elif name.startswith("ringloop"):
            picture.text(x - 4, height + 16, TITLES[name].rpartition(", ")[2].rstrip(")"), "small", "end")
        else:
            picture.draw(f'<text x="{x + 8:.1f}" y="{height - 5:.1f}" style="fill:{colour}">{TITLES[name]}</text>')
    return _left_out(picture, bottom + 36, entries)


def draw(result):
    """Returns the picture of one case as text."""
    picture, figures = Picture(), result.case.figures
    y = _head(picture, result)
    if result.case.lines:
        panels = {}
        for label, entries in result.points.items():
            title, _, size = label.rpartition(", ")
            n = int(size.split()[0].replace(",", ""))
            panels.setdefault(title, []).append((n, entries))
        for title, points in panels.items():
            y = _lines(picture, y, figures[0], title, points)
    else:
        for label, entries in result.points.items():
            y = (_curve if result.case.curve else _bars)(picture, y, figures, label, entries)
    picture.height = y + 6
    return picture.svg()
