"""The cases: the options of each program, the figures from its output, and limits for slow systems."""

from collections.abc import Callable
from dataclasses import dataclass

from .systems import SLACKS

# The divisor of all ratios, unless a case has another one.
REFERENCE = "ringloop-c"


@dataclass(frozen=True)
class Figure:
    """One number of a run. The first figure of a case is compared and plotted."""

    name: str
    title: str
    value: Callable  # arguments: the run's output and its options; None if absent
    more: bool = False  # more is better; otherwise less is better


@dataclass(frozen=True)
class Case:
    name: str
    work: str
    program: str  # the case's name in the programs
    figures: tuple
    points: dict  # label: options
    quick: dict
    rounds: int = 99  # at most
    systems: tuple = ()  # all if empty
    lines: bool = False  # plotted as lines over n
    curve: bool = False  # its first figure is plotted against its second
    reference: str = REFERENCE
    floor: str = ""  # the system without a loop, for a second ratio
    apart: str = ""  # ending of the names of programs in separate files: c/SYSTEM_APART.c


def _each(name, scale=1.0):
    return lambda run, _: run[name] / run["ops"] / scale


def _rate(name):
    return lambda run, _: None if run[name] is None else run[name] / run["ops"]


def _scaled(name, scale=1.0):
    return lambda run, _: run[name] / scale


def _per_second(name):
    return lambda run, _: run["ops"] / run[name] * 1e9


def _over(name, option):
    return lambda run, options: run[name] / options[option] if name in run else None


def _cost(what):
    return (
        Figure("cpu", f"CPU ns a {what}", _each("cpu_ns")),
        Figure("wall", f"wall ns a {what}", _each("wall_ns")),
        Figure("sleeps", "sleeps", _scaled("sleeps")),
    )


_LATENESS = (
    Figure("p50", "p50 µs late", _scaled("p50_ns", 1e3)),
    Figure("p99", "p99 µs late", _scaled("p99_ns", 1e3)),
    Figure("early", "early", _scaled("early")),
    Figure("cpu", "CPU µs a timer", _each("cpu_ns", 1e3)),
    Figure("sleeps", "sleeps", _scaled("sleeps")),
)
_LATENCY = (
    Figure("p50", "p50 µs", _scaled("p50_ns", 1e3)),
    Figure("p99", "p99 µs", _scaled("p99_ns", 1e3)),
)
_SIZES = (1_000, 100_000, 1_000_000, 10_000_000)
_QUICK_SIZES = (1_000, 10_000)


def _chains(n):
    return {"no timer pending": {"n": n}, "one timer, an hour away": {"n": n, "far": 1}}


def _bulks(n):
    return {f"{n:,} callbacks, the first time": {"n": n}, f"{n:,} callbacks, again": {"n": n, "again": 1}}


def _posts(each, batches):
    """Fewer posts if a thread waits for each post."""
    points = {}
    for threads in (1, 4):
        for batch in batches:
            n = each // 50 if batch == 1 else each
            who = "1 thread" if threads == 1 else f"{threads} threads"
            points[f"{who} x {n:,}, batches of {min(batch, n):,}"] = {"threads": threads, "n": n, "batch": batch}
    return points


def _echo(numbers, **options):
    """Server and load on one processor each; short messages on many connections also on the same processor."""
    points = {}
    for size, words in ((64, "64 bytes"), (16384, "16 KiB")):
        for n in numbers:
            label = f"{words}, {n:,} connection{'s' if n > 1 else ''}"
            points[label] = {"connections": n, "size": size, **options}
            if size == 64 and n > 1:
                points[f"{label}, one processor"] = {**points[label], "together": 1}
    return points


def _task_case(name, work, what, points, quick):
    """A case with tasks, for the systems that are runtimes."""
    systems = ("ringloop-async", "ringloop-own", "tokio", "tokio-own", "compio", "compio-main", "monoio")
    return Case(name, work, name, _cost(what), points, quick, systems=systems, reference="ringloop-async", apart="tasks")


def _spawns(n):
    return {f"{n:,} at once": {"n": n}, f"{n:,} one by one": {"n": n, "each": 1}}


def _yields(n):
    return {f"1 task, {n:,} times": {"n": n, "tasks": 1}, f"1,000 tasks, {n // 1000:,} times each": {"n": n, "tasks": 1000}}


def _sleeps(n, span_ms):
    span = {"n": n, "span_ms": span_ms}
    return {
        f"exact, {n:,} tasks": span,
        f"whole ms, {n:,} tasks": {**span, "whole": 1},
        f"slack of 1 ms, {n:,} tasks": {**span, "slack_us": 1000},
    }


def _sizes(sizes, label="{:,} timers", **options):
    return {label.format(n): {"n": n, **options} for n in sizes}


def _dense(leads, **options):
    """The deadlines count from `lead_ms` after the start, when each system has started all timers."""
    return {f"{n:,} timers": {"n": n, "lead_ms": lead, **options} for n, lead in leads.items()}


CASES = [
    Case(
        "soon-chain",
        "a callback that schedules itself again for the next iteration",
        "soon-chain",
        _cost("call"),
        _chains(10_000_000),
        _chains(100_000),
    ),
    Case(
        "soon-bulk",
        "schedule many callbacks, then run them",
        "soon-bulk",
        _cost("callback"),
        _bulks(1_000_000),
        _bulks(100_000),
    ),
    Case(
        "timers-N",
        "one-shot timers at random deadlines within 1 s; all fire",
        "timers",
        _cost("timer"),
        _sizes(_SIZES, span_ms=1000),
        _sizes(_QUICK_SIZES, span_ms=200),
        lines=True,
    ),
    Case(
        "timers-ms",
        "the same in whole milliseconds, and at random deadlines with 1 ms of slack",
        "timers",
        _cost("timer"),
        _sizes(_SIZES, "whole ms, {:,} timers", span_ms=1000, whole=1)
        | _sizes(_SIZES, "slack of 1 ms, {:,} timers", span_ms=1000, slack_us=1000),
        _sizes(_QUICK_SIZES, "whole ms, {:,} timers", span_ms=200, whole=1)
        | _sizes(_QUICK_SIZES, "slack of 1 ms, {:,} timers", span_ms=200, slack_us=1000),
        lines=True,
    ),
    Case(
        "timers-cancel",
        "cancel a random one of many pending timers and start another",
        "timers-cancel",
        _cost("pair"),
        {"1,000,000 pending": {"n": 10_000_000, "pending": 1_000_000}},
        {"10,000 pending": {"n": 10_000, "pending": 10_000}},
    ),
    Case(
        "timers-move",
        "push back the idle timeout of a random connection; in the end all time out",
        "timers-move",
        _cost("push"),
        {"100,000 connections": {"n": 10_000_000, "connections": 100_000, "timeout_ms": 5000}},
        {"1,000 connections": {"n": 10_000, "connections": 1_000, "timeout_ms": 300}},
    ),
    Case(
        "timers-memory",
        "memory of a pending timer, its callback and argument included",
        "timers-memory",
        (
            Figure("rss", "bytes resident a timer", _over("rss_bytes", "pending")),
            Figure("heap", "bytes by malloc a timer", _over("heap_bytes", "pending")),
        ),
        {"1,000,000 pending": {"pending": 1_000_000}},
        {"50,000 pending": {"pending": 50_000}},
        rounds=3,
    ),
    Case(
        "lateness",
        "lone timers 0.05 to 10 ms ahead: how late their callbacks are",
        "lateness",
        _LATENESS,
        {"2,000 timers": {"n": 2_000}},
        {"100 timers": {"n": 100}},
    ),
    Case(
        "lateness-spin",
        "the same, looking at the clock for the last 200 µs instead of sleeping",
        "lateness",
        _LATENESS,
        {"2,000 timers": {"n": 2_000, "spin_us": 200}},
        {"100 timers": {"n": 100, "spin_us": 200}},
        systems=("ringloop-c", "ringloop-so", "ringloop-rust", "clock_nanosleep"),
    ),
    Case(
        "dense",
        "many timers at random deadlines within 1 s: what they cost, and how late they are",
        "dense",
        (
            Figure("cpu", "CPU ns a timer", _each("cpu_ns")),
            Figure("mean", "mean µs late", _scaled("mean_ns", 1e3)),
            Figure("p99", "p99 µs late", _scaled("p99_ns", 1e3)),
            Figure("max", "max µs late", _scaled("max_ns", 1e3)),
            Figure("early", "early", _scaled("early")),
            Figure("sleeps", "sleeps", _scaled("sleeps")),
        ),
        _dense({1_000: 100, 100_000: 500, 1_000_000: 3_000}, span_ms=1000),
        _dense({100: 100, 10_000: 200}, span_ms=100),
        systems=(
            *("ringloop-exact", "ringloop-c", *(f"ringloop-{us}us" for us in SLACKS)),
            *("libuv", "libev", "libevent", "glib", "tokio"),
        ),
        curve=True,
    ),
    Case(
        "idle",
        "a loop whose timers are an hour away",
        "idle",
        (
            Figure("calls", "system calls a second", _rate("calls")),
            Figure("wakeups", "wakeups a second", _rate("wakeups")),
            Figure("cpu", "CPU ms a second", lambda run, _: run["cpu_ns"] / run["ops"] / 1e6),
        ),
        {"100,000 timers": {"pending": 100_000, "seconds": 5}},
        {"1,000 timers": {"pending": 1_000, "seconds": 1}},
        rounds=1,
    ),
    Case(
        "start",
        "make a loop and close it; and the memory of one that is open",
        "start",
        (
            Figure("cpu", "CPU µs a loop", _each("cpu_ns", 1e3)),
            Figure("wall", "wall µs a loop", _each("wall_ns", 1e3)),
            Figure("heap", "bytes by malloc a loop", _over("heap_bytes", "open")),
            Figure("rss", "bytes resident a loop", _over("rss_bytes", "open")),
        ),
        {"1,000 times": {"n": 1_000, "open": 100}},
        {"50 times": {"n": 50, "open": 20}},
    ),
    Case(
        "posts",
        "other threads post callbacks, and wait at the end of each batch until it has run",
        "posts",
        _cost("post"),
        _posts(1_000_000, (1, 100, 1_000_000)),
        _posts(20_000, (1, 100, 1_000_000)),
    ),
    Case(
        "flood",
        "other threads post callbacks without waiting, while the loop runs them",
        "posts",
        _cost("post"),
        {
            f"{threads} thread{'s' * (threads > 1)} x {4_000_000 // threads:,}": {
                "n": 4_000_000 // threads,
                "batch": 4_000_000 // threads,
                "threads": threads,
            }
            for threads in (1, 4)
        },
        {"1 thread x 100,000": {"n": 100_000, "batch": 100_000, "threads": 1}},
        systems=("ringloop-c", "ringloop-rust", "libuv", "libuv-each", "libev", "libevent", "tokio-mpsc"),
    ),
    Case(
        "post-latency",
        "from a post by another thread to its callback, on a loop that sleeps",
        "post-latency",
        (
            *_LATENCY,
            Figure("cpu", "CPU µs a post", _each("cpu_ns", 1e3)),
            Figure("sleeps", "sleeps", _scaled("sleeps")),
        ),
        {"3,000 posts": {"n": 3_000}},
        {"200 posts": {"n": 200}},
        floor="eventfd",
    ),
    Case(
        "token",
        "two loops on two threads post to each other in turn",
        "token",
        (
            Figure("wall", "wall ns a hop", _each("wall_ns")),
            Figure("cpu", "CPU ns a hop", _each("cpu_ns")),
            Figure("sleeps", "sleeps", _scaled("sleeps")),
        ),
        {"100,000 hops": {"n": 100_000}},
        {"2,000 hops": {"n": 2_000}},
        floor="eventfd",
    ),
    Case(
        "echo",
        "a TCP server sends back what comes; each connection has one message under way",
        "echo",
        (
            Figure("rate", "requests a CPU second", _per_second("cpu_ns"), more=True),
            Figure("wall", "a second", _per_second("wall_ns"), more=True),
            *_LATENCY,
            Figure("sleeps", "requests a sleep", lambda run, _: run["ops"] / max(run["sleeps"], 1), more=True),
            Figure("to_load", "of the load's CPU", lambda run, _: run["cpu_ns"] / run["load_cpu_ns"]),
            Figure("load", "load busy %", lambda run, _: run["load_cpu_ns"] / run["wall_ns"] * 100),
        ),
        _echo((1, 50, 1_000), warm_ms=500, ms=3_000),
        _echo((1, 50, 1_000), warm_ms=50, ms=150),
        systems=(
            *("ringloop-c", "ringloop-so", "ringloop-async", "libuv", "libuv-write", "libev"),
            *("tokio", "compio", "monoio", "epoll", "liburing"),
        ),
        apart="echo",
    ),
    Case(
        "copy",
        "copy a file that is in the page cache",
        "copy",
        (
            Figure("cpu", "CPU ms a GiB", _each("cpu_ns", 1e6 / 1024)),
            Figure("wall", "wall ms a GiB", _each("wall_ns", 1e6 / 1024)),
            Figure("sleeps", "sleeps", _scaled("sleeps")),
        ),
        {"1 GiB": {"mib": 1024}},
        {"64 MiB": {"mib": 64}},
        systems=("ringloop-c", "ringloop-so", "libuv", "libuv-blocks", "cp"),
        apart="copy",
    ),
    _task_case(
        "task-spawn",
        "spawn tasks and join them, all at once or one by one",
        "task",
        _spawns(1_000_000),
        _spawns(20_000),
    ),
    _task_case(
        "task-yield",
        "tasks that yield",
        "yield",
        _yields(10_000_000),
        _yields(100_000),
    ),
    _task_case(
        "task-sleep",
        "tasks that sleep until random deadlines within 1 s",
        "task",
        _sleeps(1_000_000, 1000),
        _sleeps(10_000, 200),
    ),
    _task_case(
        "task-channel",
        "two tasks play ping-pong through two channels",
        "round trip",
        {"1,000,000 round trips": {"n": 1_000_000}},
        {"20,000 round trips": {"n": 20_000}},
    ),
]


@dataclass(frozen=True)
class Limit:
    """A limit for slow systems: `most` of `option`. With a reason in `left_out`, they are left out instead."""

    cases: str
    systems: str
    option: str
    most: int
    left_out: str = ""  # the reason


_SEARCH = "each insertion looks through all timers"
LIMITS = [
    Limit("soon-chain", "asyncio uvloop calloop", "n", 1_000_000),
    Limit("timers-N timers-ms", "asyncio uvloop", "n", 1_000_000, "takes minutes and gigabytes"),
    Limit("timers-N timers-ms", "calloop", "n", 100_000, _SEARCH),
    Limit("timers-cancel", "asyncio uvloop", "n", 1_000_000),
    Limit("timers-move", "asyncio uvloop", "n", 200_000),
    Limit("timers-cancel", "glib", "n", 10_000),
    Limit("timers-cancel", "calloop", "n", 1_000),
    Limit("timers-cancel", "calloop", "pending", 100_000),
    Limit("timers-move", "glib", "n", 100_000),
    Limit("timers-move", "calloop", "n", 50_000),
    Limit("timers-move", "calloop", "connections", 10_000),
    Limit("timers-memory", "calloop", "pending", 100_000),
    Limit("posts", "glib", "n", 200_000),
    Limit("posts", "asyncio uvloop", "n", 50_000),
    Limit("token", "asyncio uvloop", "n", 50_000),
]


def options_for(case, system, options):
    """Returns the options for `system` and a note of smaller options, or None and the reason for leaving it out."""
    wanted, less = options | system.options, {}
    for limit in LIMITS:
        if case.name not in limit.cases.split() or system.name not in limit.systems.split():
            continue
        if wanted.get(limit.option, 0) <= limit.most:
            continue
        if limit.left_out:
            return None, limit.left_out
        less[limit.option] = wanted[limit.option] = limit.most
    return wanted, ", ".join(f"{name}={value}" for name, value in less.items())


def takes_part(case, system):
    return (not case.systems or system.name in case.systems) and (not system.only or case.name in system.only)
