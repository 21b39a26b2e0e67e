"""Results: a table for each case, which is printed, written to results/CASE.md, and read to draw the plots."""

import os
import platform
import statistics
import time
from dataclasses import dataclass

from .cases import Case
from .systems import SYSTEMS

TITLES = {system.name: system.title for system in SYSTEMS}
_NAMES = {title: name for name, title in TITLES.items()}


@dataclass(frozen=True)
class Row:
    """One system at one point of a case."""

    found: list  # for each figure of the case: median, minimum and maximum of the rounds; None if absent
    note: str  # options that are smaller than for others, or the reason for leaving it out

    @property
    def is_measured(self):
        return any(self.found)


@dataclass(frozen=True)
class Result:
    case: Case
    head: dict  # date, machine and command of the measurement, in words
    points: dict  # label: {name of a system: Row}


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"Linux {platform.release()}, {models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "load": f"{os.getloadavg()[0]:.2f}",
    }


def _summary(values):
    values = [value for value in values if value is not None]
    return (statistics.median(values), min(values), max(values)) if values else None


def row(case, options, runs, note):
    """Summarizes the runs of one system; `runs` has the output of its program."""
    return Row([_summary([figure.value(run, options) for run in runs]) for figure in case.figures], note)


def number(value):
    """Formats three digits, or all digits of the integer part."""
    digits = 0 if float(value).is_integer() else sum(value < limit for limit in (100, 10, 1))
    return f"{value:,.{digits}f}"


def _cell(summary):
    if summary is None:
        return "-"
    median, least, greatest = map(number, summary)
    return median if least == greatest else f"{median} ({least}..{greatest})"


def _parse_cell(cell):
    median, _, spread = cell.replace(",", "").rstrip(")").partition(" (")
    if median in ("", "-"):
        return None
    least, _, greatest = (spread or f"{median}..{median}").partition("..")
    return float(median), float(least), float(greatest)


def _ratio(figure, entries, name, reference):
    """The ratio of costs of the first figure; inverted if more is better."""
    pair = [entries[one].found[0] if one in entries else None for one in (name, reference)]
    if not all(pair) or not pair[0][0] or not pair[1][0]:
        return ""
    ratio = pair[0][0] / pair[1][0]
    return f"{1 / ratio if figure.more else ratio:.2f}"


def _rows(result):
    """The cells of the table; only the first row of a point has its label."""
    case = result.case
    ratios = {"ratio": case.reference} | ({f"to {TITLES[case.floor]}": case.floor} if case.floor else {})
    yield ["point", "system", *(figure.title for figure in case.figures), *ratios, "note"]
    for label, entries in result.points.items():
        for name, entry in entries.items():
            found = map(_cell, entry.found) if entry.is_measured else ["-", *[""] * (len(case.figures) - 1)]
            costs = (_ratio(case.figures[0], entries, name, reference) for reference in ratios.values())
            yield [label, TITLES[name], *found, *costs, entry.note]
            label = ""


def table(result):
    """The result as Markdown, in aligned columns."""
    case, rows = result.case, list(_rows(result))
    widths = [max(map(len, column)) for column in zip(*rows)]
    # Words are aligned to the left, figures to the right.
    aligns = [str.ljust if column in (0, 1, len(widths) - 1) else str.rjust for column in range(len(widths))]
    rows.insert(1, ["-" if align is str.ljust else "-:" for align in aligns])
    lines = [f"# {case.name}: {case.work}", "", *(f"- {key}: {value}" for key, value in result.head.items()), ""]
    for row in rows:
        fill = "-" if row is rows[1] else " "
        lines.append(f"| {' | '.join(align(cell, width, fill) for align, cell, width in zip(aligns, row, widths))} |")
    return "\n".join([*lines, ""])


def write(folder, result):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result.case.name}.md").write_text(table(result), encoding="utf-8")


def read(folder, cases):
    """Returns the existing tables, each with its case."""
    paths = {path.stem: path for path in folder.glob("*.md")}
    return [(case, paths[case.name].read_text(encoding="utf-8")) for case in cases if case.name in paths]


def parse(case, text):
    """Converts a table to a result."""
    lines = text.splitlines()
    head = dict(line[2:].split(": ", 1) for line in lines if line.startswith("- "))
    titles, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("|")]
    columns = [titles.index(figure.title) for figure in case.figures]
    points = {}
    for cells in rows:
        label = cells[0] or label
        found = [_parse_cell(cells[column]) for column in columns]
        points.setdefault(label, {})[_NAMES[cells[1]]] = Row(found, cells[-1])
    return Result(case, head, points)
