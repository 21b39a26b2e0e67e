"""Runs one program once, and reads what it says."""

import json
import shutil
import subprocess
import time
from pathlib import Path

from . import setup

# No run of a case takes longer unless something hangs.
PATIENCE = 600
# Between the moment an idle loop is ready and the first look at it.
SETTLE = 0.4


class Failed(Exception):
    """A program that did not do its work; says why."""


def run(system, case, options):
    if case.program == "idle":
        return _idle(system, options)
    command = _command(system, system.says or case.program, options)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failed(f"still running after {PATIENCE} s") from None
    if done.returncode != 0:
        raise Failed((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return json.loads(done.stdout)


def _command(system, program, options):
    return [*setup.command(system), program, *(f"{name}={value}" for name, value in options.items())]


def _idle(system, options):
    """Watches one process through /proc, and another, which does the same, through strace."""
    seconds = options["seconds"]
    # Both are ended below; would this be killed, an alarm ends them.
    command = _command(system, "idle", options | {"seconds": seconds + 60})
    traced, log = None, setup.BUILD / "strace.log"
    if shutil.which("strace"):
        traced = _start(["strace", "-I2", "-f", "-ttt", "-o", str(log), *command])
    watched = _start(command)
    if not watched:
        raise Failed("did not become ready")
    begin = time.time() + SETTLE
    time.sleep(SETTLE)
    before = _usage(watched.pid)
    time.sleep(seconds)
    after = _usage(watched.pid)
    for process in filter(None, (traced, watched)):
        process.terminate()  # strace ends its program
        process.communicate()
    return {
        "ops": seconds,
        "calls": _calls(log, begin, begin + seconds) if traced else None,
        "wakeups": after[0] - before[0],
        "cpu_ns": after[1] - before[1],
    }


def _start(command):
    """The process when it is ready; None when it ends before, as strace does where it may not trace."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if "ready" in process.stdout.readline():
        return process
    process.communicate()
    return None


def _usage(pid):
    """How often the process went to sleep, and the processor time it has used, in nanoseconds."""
    sleeps = cpu = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text(encoding="utf-8")
        switches = next(line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))
        sleeps += int(switches.split()[1])
        cpu += int((task / "schedstat").read_text(encoding="utf-8").split()[0])
    return sleeps, cpu


def _calls(log, begin, end):
    """The system calls that began between two times."""
    calls = 0
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        _, when, what = line.split(maxsplit=2)
        calls += begin <= float(when) < end and what[0].isalpha()
    return calls
