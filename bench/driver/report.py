"""Results: the JSON files, and the tables on the terminal."""

import json
import os
import platform
import statistics
import time

from .cases import CASES
from .systems import SYSTEMS

TITLES = {system.name: system.title for system in SYSTEMS}
FIGURES = {case.name: case.figures for case in CASES}
# What the ratios of a case are to: a title, and the name of a system.
RATIOS = {
    case.name: [("ratio", case.reference), *([(f"to {TITLES[case.floor]}", case.floor)] if case.floor else ())]
    for case in CASES
}


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": models[0] if models else "unknown",
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def write(folder, result):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['case']}.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(folder):
    """The results that are there, in the order of the cases."""
    paths = (folder / f"{case.name}.json" for case in CASES)
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def summary(values):
    """Median, least and greatest of the numbers that are there; None when there is none."""
    values = [value for value in values if value is not None]
    return (statistics.median(values), min(values), max(values)) if values else None


def summaries(result, entry):
    """For each figure of the case, the summary of the runs of one system."""
    return [
        summary([figure.value(run, entry["options"]) for run in entry.get("runs", ())])
        for figure in FIGURES[result["case"]]
    ]


def number(value):
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _spread(found):
    if found is None:
        return ("-", "")
    median, least, greatest = map(number, found)
    return (median, "" if least == greatest else f"{least}..{greatest}")


def _ratio(found, reference, more):
    """A ratio of costs: turned round where more is better."""
    if not found or not reference or not found[0] or not reference[0]:
        return ""
    return f"{reference[0] / found[0] if more else found[0] / reference[0]:.2f}"


def _point_rows(result, entries):
    """The table of one point: its first row names the columns."""
    figures = FIGURES[result["case"]]
    ratios = RATIOS[result["case"]]
    titles = [part for figure in figures for part in (figure.title, "min..max")]
    yield ["", *titles, *(title for title, _ in ratios), ""]
    measured = [entries[name] if "runs" in entries.get(name, ()) else None for _, name in ratios]
    references = [entry and summaries(result, entry)[0] for entry in measured]
    for name, entry in entries.items():
        if not entry.get("runs"):
            yield [TITLES[name], "-", *[""] * (2 * len(figures) - 1 + len(ratios)), entry.get("note", "")]
            continue
        found = summaries(result, entry)
        columns = [part for each in found for part in _spread(each)]
        yield [TITLES[name], *columns, *(_ratio(found[0], each, figures[0].more) for each in references), entry.get("note", "")]


def table(result):
    """The case as text. A ratio is that of the first figure."""
    lines = [f"\n==== {result['case']}: {result['work']} ===="]
    for label, entries in result["points"].items():
        rows = list(_point_rows(result, entries))
        widths = [max(map(len, column)) for column in zip(*rows)]
        # A column of spreads that are all empty is not shown.
        shown = [any(row[i] for row in rows[1:]) or i == 0 for i in range(len(widths))]
        lines.append(f"\n{label}")
        for row in rows:
            cells = [
                text.ljust(width) if i in (0, len(row) - 1) else text.rjust(width)
                for i, (text, width) in enumerate(zip(row, widths))
                if shown[i]
            ]
            lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
