"""The systems that are compared, with their programs and options."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class System:
    name: str
    title: str
    language: str  # c, rust, python
    program: str  # the file in c/ or rust/src/, or the argument of loops.py; Case.apart adds an ending
    package: str = ""  # the Debian package that the program needs
    options: dict = field(default_factory=dict)
    only: tuple = ()  # the cases of the system; all if empty
    extra: bool = False  # measured only if --systems names it


TASKS = ("task-spawn", "task-yield", "task-sleep", "task-channel")
RUNTIME = (*TASKS, "echo")


# ringloop's slack in the case "dense", in µs.
SLACKS = {50: "50 µs", 100: "100 µs", 200: "200 µs", 500: "500 µs", 1000: "1 ms", 2000: "2 ms", 5000: "5 ms", 10000: "10 ms"}

SYSTEMS = [
    System("ringloop-c", "ringloop (C)", "c", "ringloop"),
    System("ringloop-exact", "ringloop (C, exact)", "c", "ringloop", "", {"exact": 1}, ("timers-N", "lateness", "dense")),
    *(
        System(f"ringloop-{us}us", f"ringloop (C, {words})", "c", "ringloop", "", {"slack_us": us}, ("dense",))
        for us, words in SLACKS.items()
    ),
    System("ringloop-so", "ringloop (C, shared)", "c", "ringloop-so", extra=True),
    System("ringloop-spin", "ringloop (C, spin)", "c", "ringloop", options={"spin_us": 50}, only=("posts", "token")),
    System("ringloop-rust", "ringloop (Rust)", "rust", "bench-ringloop"),
    System("ringloop-async", "ringloop (async)", "rust", "bench-ringloop", only=RUNTIME),
    System("libuv", "libuv", "c", "libuv", "libuv1-dev"),
    System("libuv-allocate", "libuv (allocating)", "c", "libuv", "libuv1-dev", {"allocate": 1}, ("posts",)),
    System("libuv-each", "libuv (a send each)", "c", "libuv", "libuv1-dev", {"each": 1}, ("flood",)),
    System("libuv-blocks", "libuv (blocks)", "c", "libuv", "libuv1-dev", {"blocks": 1}, ("copy",)),
    System("libuv-write", "libuv (uv_write)", "c", "libuv", "libuv1-dev", {"write": 1}, ("echo",)),
    System("libev", "libev", "c", "libev", "libev-dev"),
    System("libev-starve", "libev (starving)", "c", "libev", "libev-dev", {"starve": 1}, ("soon-chain",)),
    System("libev-uring", "libev (io_uring)", "c", "libev", "libev-dev", {"uring": 1}, ("lateness",)),
    System("libevent", "libevent", "c", "libevent", "libevent-dev"),
    System("libevent-starve", "libevent (starving)", "c", "libevent", "libevent-dev", {"starve": 1}, ("soon-chain",)),
    System("libevent-precise", "libevent (precise)", "c", "libevent", "libevent-dev", {"precise": 1}, ("lateness",)),
    System("glib", "GLib", "c", "glib", "libglib2.0-dev"),
    System("asyncio", "asyncio", "python", "asyncio"),
    System("uvloop", "uvloop", "python", "uvloop", "python3-venv"),
    System("tokio", "tokio", "rust", "bench-tokio"),
    System("tokio-no-io", "tokio (without I/O)", "rust", "bench-tokio", options={"no_io": 1}, only=("soon-chain",)),
    System("tokio-mpsc", "tokio (mpsc)", "rust", "bench-tokio", options={"mpsc": 1}, only=("posts", "flood", "post-latency")),
    System("tokio-own", "tokio (own channel)", "rust", "bench-tokio", options={"own": 1}, only=("task-channel",)),
    System("ringloop-own", "ringloop (own queue)", "rust", "bench-ringloop", options={"own": 1}, only=("task-channel",)),
    System("compio", "compio", "rust", "bench-compio", only=RUNTIME),
    System("compio-main", "compio (not in a task)", "rust", "bench-compio", options={"main": 1}, only=("task-spawn",)),
    System("monoio", "monoio", "rust", "bench-monoio", only=RUNTIME),
    System("calloop", "calloop", "rust", "bench-calloop"),
    System("clock_nanosleep", "clock_nanosleep", "c", "clock_nanosleep", only=("lateness", "lateness-spin")),
    System("eventfd", "eventfd", "c", "eventfd", only=("post-latency", "token")),
    System("epoll", "epoll", "c", "epoll", only=("echo",)),
    System("liburing", "liburing", "c", "liburing", "liburing-dev", only=("echo",)),
    System("cp", "cp", "c", "cp", only=("copy",)),
]
