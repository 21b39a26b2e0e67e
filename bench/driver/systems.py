"""The systems that are compared, and how each is started."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class System:
    name: str
    title: str
    language: str  # c, rust, python
    program: str  # the file in c/ or rust/src/, or the argument of loops.py
    package: str = ""  # Debian's, that it needs
    options: dict = field(default_factory=dict)
    only: tuple = ()  # the cases it takes part in; all when empty
    extra: bool = False  # measured only when --systems names it


SYSTEMS = [
    System("ringloop-c", "ringloop (C)", "c", "ringloop"),
    System("ringloop-so", "ringloop (C, shared)", "c", "ringloop-so", extra=True),
    System("ringloop-rust", "ringloop (Rust)", "rust", "bench-ringloop"),
    System("libuv", "libuv", "c", "libuv", "libuv1-dev"),
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
    System("calloop", "calloop", "rust", "bench-calloop"),
    System("clock_nanosleep", "clock_nanosleep", "c", "clock_nanosleep", only=("lateness", "lateness-spin")),
]

# All ratios are to this one.
REFERENCE = "ringloop-c"
