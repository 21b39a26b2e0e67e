"""Runs one program once, and reads its output."""

import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from . import setup

# The longest run of a case, in seconds; a longer run hangs.
PATIENCE = 600
# Seconds from the time an idle loop is ready to its first measurement.
SETTLE = 0.4
# Seconds that a server has to end after its last connection.
ENDING = 5


class Failed(Exception):
    """A program failed; the message has the reason."""


def run(system, case, options):
    if case.program == "idle":
        return _idle(setup.command(system, case), options)
    command = _command(setup.command(system, case), case.program, options)
    if case.program == "echo":
        return _echo(command, options)
    if case.program == "copy":
        return _copy(command)
    return _answer(command)


def _answer(command, **how):
    """Runs a program to its end; returns its output."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, **how
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"still running after {PATIENCE} s") from None
    if done.returncode != 0:
        raise Failed((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return json.loads(done.stdout)


def _command(command, program, options):
    return [*command, program, *(f"{name}={value}" for name, value in options.items())]


def _echo(command, options):
    """The server prints its port; the load measures both and ends; then the server ends by itself."""
    with tempfile.TemporaryFile("w+") as errors:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            first = server.stdout.readline()
            if not first:
                server.wait()
                errors.seek(0)
                raise Failed((errors.read().strip().splitlines() or ["the server ended"])[-1])
            more = {"port": json.loads(first)["port"], "pid": server.pid}
            found = _answer(_command([str(setup.LOAD)], "echo", options | more))
            try:
                status = server.wait(ENDING)
            except subprocess.TimeoutExpired:
                raise Failed("the server did not end when all connections were closed") from None
            if status:
                errors.seek(0)
                raise Failed((errors.read().strip().splitlines() or [f"server: exit status {status}"])[-1])
            return found
        finally:
            if server.poll() is None:
                server.kill()
            server.communicate()


def _copy(command):
    """Runs in a new folder, on the disk that holds target/."""
    with tempfile.TemporaryDirectory(dir=setup.BUILD, prefix="copy-") as folder:
        return _answer(command, cwd=folder)


def _idle(command, options):
    """Watches one process through /proc, and another with the same work through strace."""
    seconds = options["seconds"]
    # Both processes are ended below. If this process is killed, an alarm ends them.
    command = _command(command, "idle", options | {"seconds": seconds + 60})
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
    """Returns the process when it is ready; None if it ends before, as strace does without permission to trace."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if "ready" in process.stdout.readline():
        return process
    process.communicate()
    return None


def _usage(pid):
    """Returns the number of voluntary context switches and the CPU time of the process, in nanoseconds."""
    sleeps = cpu = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text(encoding="utf-8")
        switches = next(line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches"))
        sleeps += int(switches.split()[1])
        cpu += int((task / "schedstat").read_text(encoding="utf-8").split()[0])
    return sleeps, cpu


def _calls(log, begin, end):
    """Counts the system calls that began between two times."""
    calls = 0
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        _, when, what = line.split(maxsplit=2)
        calls += begin <= float(when) < end and what[0].isalpha()
    return calls
