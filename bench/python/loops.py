#!/usr/bin/env python3
"""The cases with asyncio and uvloop: loops.py asyncio|uvloop CASE [NAME=NUMBER]...

c/bench.h describes the parts that all languages share. Random numbers are drawn before the measured part, since drawing
one costs as much in Python as scheduling a timer in another loop. "post-latency" draws them in the pauses.
"""

import asyncio
import os
import resource
import signal
import sys
import threading
import time

AN_HOUR = 3600
# The processors that the process may use.
ALLOWED = sorted(os.sched_getaffinity(0))
# The number of operations in one iteration of the loop, in cases without callbacks.
BATCH = 1000


def check(kept, what):
    if not kept:
        sys.exit(f"error: {what}")


def new_loop():
    if SYSTEM == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()


def batches(operations):
    check(operations % BATCH == 0, "n must be a multiple of 1000")
    return operations // BATCH


class Random:
    """xorshift64* with a fixed seed."""

    MASK = (1 << 64) - 1

    def __init__(self):
        self.state = 0x9E3779B97F4A7C15

    def below(self, limit):
        state = self.state
        state ^= state >> 12
        state ^= state << 25 & self.MASK
        state ^= state >> 27
        self.state = state
        return (state * 0x2545F4914F6CDD1D & self.MASK) * limit >> 64

    def delay(self, span_ms, whole):
        """In seconds, as the other methods."""
        return (1 + self.below(span_ms)) / 1e3 if whole else self.below(span_ms * 1_000_000) / 1e9

    def timeout(self):
        return 60 + self.below(60_000_000_000) / 1e9


class Measure:
    def __enter__(self):
        self.sleeps = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        self.wall, self.cpu = time.monotonic_ns(), time.process_time_ns()
        return self

    def __exit__(self, *exception):
        self.cpu = time.process_time_ns() - self.cpu
        self.wall = time.monotonic_ns() - self.wall
        self.sleeps = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - self.sleeps

    def report(self, operations, more=""):
        print(
            f'{{"ops": {operations}, "wall_ns": {self.wall}, "cpu_ns": {self.cpu}, "sleeps": {self.sleeps}{more}}}',
            flush=True,
        )

    def report_late(self, late, early=0):
        late, n = sorted(late), len(late)
        self.report(n, f', "p50_ns": {late[n // 2]}, "p99_ns": {late[n * 99 // 100]}, "early": {early}')


def rss():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


class Count:
    """A callback that counts its calls, and stops the loop after the last one."""

    def __init__(self, loop, wanted):
        self.loop, self.wanted, self.calls = loop, wanted, 0

    def __call__(self):
        self.calls += 1
        if self.calls == self.wanted:
            self.loop.stop()


def soon_chain(n, far=0):
    loop, left = new_loop(), n

    def again():
        nonlocal left
        left -= 1
        if left:
            loop.call_soon(again)
        else:
            loop.stop()

    if far:
        loop.call_later(AN_HOUR, check, False, "the far timer fired")
    with Measure() as measure:
        loop.call_soon(again)
        loop.run_forever()
    check(left == 0, "not all callbacks ran")
    measure.report(n)


def soon_bulk(n, again=0):
    loop = new_loop()
    for _ in range(again + 1):
        count = Count(loop, n)
        with Measure() as measure:
            for _ in range(n):
                loop.call_soon(count)
            loop.run_forever()
        check(count.calls == n, "not all callbacks ran")
    measure.report(n)


def timers(n, span_ms, whole=0, slack_us=0):
    """asyncio has no slack."""
    loop, random = new_loop(), Random()
    count = Count(loop, n)
    delays = [random.delay(span_ms, whole) for _ in range(n)]
    with Measure() as measure:
        base = loop.time()
        for delay in delays:
            loop.call_at(base + delay, count)
        loop.run_forever()
    check(count.calls == n, "not all timers fired")
    measure.report(n)


def timers_cancel(n, pending):
    loop, random, left = new_loop(), Random(), batches(n)
    count = Count(loop, 1)
    now = loop.time()
    handles = [loop.call_at(now + random.timeout(), count) for _ in range(pending)]
    work = iter([(random.below(pending), random.timeout()) for _ in range(n)])

    def batch():
        nonlocal left
        now = loop.time()
        for _, (index, delay) in zip(range(BATCH), work):
            handles[index].cancel()
            handles[index] = loop.call_at(now + delay, count)
        left -= 1
        if left:
            loop.call_soon(batch)
        else:
            loop.stop()

    with Measure() as measure:
        loop.call_soon(batch)
        loop.run_forever()
    check(not any(handle.cancelled() for handle in handles), "a timer was not pending")
    check(count.calls == 0, "a timer fired")
    measure.report(n)


def timers_move(n, connections, timeout_ms):
    """Neither loop can move a timer: each move cancels it and makes a new one, as asyncio's timeouts do."""
    loop, random, left, timeout = new_loop(), Random(), batches(n), timeout_ms / 1e3
    count = Count(loop, connections)
    work = iter([random.below(connections) for _ in range(n)])
    handles = [loop.call_later(timeout, count) for _ in range(connections)]

    def batch():
        nonlocal left
        when = loop.time() + timeout
        for _, index in zip(range(BATCH), work):
            handles[index].cancel()
            handles[index] = loop.call_at(when, count)
        left -= 1
        if left:
            loop.call_soon(batch)
        else:
            check(count.calls == 0, "a timer fired too soon")

    with Measure() as measure:
        loop.call_soon(batch)
        loop.run_forever()
    check(count.calls == connections, "not all timers fired")
    measure.report(n)


def timers_memory(pending):
    loop, random = new_loop(), Random()
    count = Count(loop, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    measure, before, now = Measure(), rss(), loop.time()
    for _ in range(pending):
        loop.call_at(now + random.timeout(), count)
    loop.call_soon(loop.stop)
    loop.run_forever()
    check(count.calls == 0, "a timer fired")
    measure.wall = measure.cpu = measure.sleeps = 0
    measure.report(pending, f', "rss_bytes": {rss() - before}')


def lateness(n):
    loop, random, late, early = new_loop(), Random(), [], 0
    delays = [(50_000 + random.below(9_950_000)) for _ in range(n)]
    when = 0

    def later():
        nonlocal when
        delay = delays[len(late)]
        when = time.monotonic_ns() + delay
        loop.call_later(delay / 1e9, fired)

    def fired():
        nonlocal early
        now = time.monotonic_ns()
        early += now < when
        late.append(max(now - when, 0))
        if len(late) < n:
            later()
        else:
            loop.stop()

    with Measure() as measure:
        later()
        loop.run_forever()
    measure.report_late(late, early)


def idle(pending, seconds):
    """The driver watches the process and then ends it; without a driver, the alarm ends it."""
    loop, random = new_loop(), Random()
    count = Count(loop, 1)
    for _ in range(pending):
        loop.call_later(AN_HOUR + random.below(1_000_000_000) / 1e9, count)
    print('{"ready": true}', flush=True)
    signal.alarm(seconds)
    loop.run_forever()


def start(n, open):
    with Measure() as measure:
        for _ in range(n):
            new_loop().close()
    before = rss()
    loops = [new_loop() for _ in range(open)]
    measure.report(n, f', "rss_bytes": {rss() - before}')
    for loop in loops:
        loop.close()


# ---- posts from other threads: c/threads.h describes these cases ----


def pin(which):
    check(len(ALLOWED) >= 2, "needs two processors")
    os.sched_setaffinity(0, {ALLOWED[which]})  # of the calling thread


class Poster:
    """Posts its batches, and waits on a lock where the other languages have a semaphore."""

    def __init__(self, loop, n, batch, processor, finished):
        self.loop, self.n, self.batch, self.processor, self.finished = loop, n, batch, processor, finished
        self.ran, self.due = 0, min(batch, n)
        self.batch_ran = threading.Lock()
        self.batch_ran.acquire()

    def called(self, number):
        check(number == self.ran, "a post ran twice, out of order or not at all")
        self.ran += 1
        if self.ran == self.due:
            self.due = min(self.ran + self.batch, self.n)
            if self.ran == self.n:
                self.finished()
            self.batch_ran.release()

    def post_all(self, ready):
        call_soon, called, n = self.loop.call_soon_threadsafe, self.called, self.n
        pin(self.processor)
        ready.wait()
        for begin in range(0, n, self.batch):
            for number in range(begin, min(begin + self.batch, n)):
                call_soon(called, number)
            self.batch_ran.acquire()


def posts(n, batch, threads):
    pin(1)
    loop, left = new_loop(), threads

    def finished():
        nonlocal left
        left -= 1
        if not left:
            loop.stop()

    ready = threading.Barrier(threads + 1)
    posters = [Poster(loop, n, batch, which % 2, finished) for which in range(threads)]
    running = [threading.Thread(target=poster.post_all, args=(ready,)) for poster in posters]
    for thread in running:
        thread.start()
    with Measure() as measure:
        ready.wait()
        loop.run_forever()
    for thread in running:
        thread.join()
    check(all(poster.ran == n for poster in posters), "not all posts ran")
    measure.report(n * threads)


def post_latency(n):
    pin(1)
    loop, random, late = new_loop(), Random(), []
    ready = threading.Barrier(2)

    def called(posted):
        late.append(time.monotonic_ns() - posted)
        if len(late) == n:
            loop.stop()

    def post_all():
        pin(0)
        ready.wait()
        for i in range(n):
            time.sleep((200_000 + random.below(800_000)) / 1e9)
            # Pauses again if the loop has not run the last post yet.
            while len(late) < i:
                time.sleep((200_000 + random.below(800_000)) / 1e9)
            loop.call_soon_threadsafe(called, time.monotonic_ns())

    thread = threading.Thread(target=post_all)
    thread.start()
    with Measure() as measure:
        ready.wait()
        loop.run_forever()
    thread.join()
    check(len(late) == n, "not all posts ran")
    measure.report_late(late)


def token(n):
    pin(1)
    loops, hops = [new_loop()], 0
    ready = threading.Barrier(2)

    def hop(number):
        nonlocal hops
        check(number == hops, "a post ran twice or not at all")
        hops += 1
        here, there = loops[number % 2], loops[(number + 1) % 2]
        if hops < n:
            there.call_soon_threadsafe(hop, hops)
        else:
            there.call_soon_threadsafe(there.stop)
            here.stop()

    def other():
        pin(0)
        loops.append(new_loop())
        ready.wait()
        loops[1].run_forever()

    thread = threading.Thread(target=other)
    thread.start()
    ready.wait()
    with Measure() as measure:
        loops[0].call_soon_threadsafe(hop, 0)
        loops[0].run_forever()
    thread.join()
    check(hops == n, "not all posts ran")
    measure.report(n)


CASES = {
    "soon-chain": soon_chain,
    "soon-bulk": soon_bulk,
    "timers": timers,
    "timers-cancel": timers_cancel,
    "timers-move": timers_move,
    "timers-memory": timers_memory,
    "lateness": lateness,
    "idle": idle,
    "start": start,
    "posts": posts,
    "post-latency": post_latency,
    "token": token,
}

if __name__ == "__main__":
    SYSTEM, CASE, *options = sys.argv[1:]
    if CASE == "version":
        print(__import__("uvloop").__version__ if SYSTEM == "uvloop" else sys.version.split()[0])
    else:
        CASES[CASE](**{name: int(value) for name, value in (option.split("=") for option in options)})
