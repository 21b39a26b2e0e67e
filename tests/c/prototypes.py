#!/usr/bin/env python3
"""Writes a call of every function of ringloop.h, in C, for wrong_calls.c.

    tests/c/prototypes.py include/ringloop.h >build/prototypes.h

The type and name of a parameter determine the argument; the type of the result determines the expected answer. A function with
other arguments or answers needs a line in the tables below: without this line the script fails, and the test with it.
"""

import re
import sys

# Parameters by type, and by name where the type is not enough. `w` is the world of wrong_calls.c.
ARGUMENTS = {
    "loop_t *": "w->loop",
    "struct loop_remote_t *": "w->remote",
    "struct loop_buffers_t *": "w->buffers",
    "struct loop_options_t *": "&w->options",
    "struct loop_metrics_t *": "&w->metrics",
    "loop_t **": "&w->new_loop",
    "struct loop_remote_t **": "&w->new_remote",
    "struct loop_buffers_t **": "&w->new_buffers",
    "struct io_uring_sqe *": "w->sqes",
    "struct iovec *": "&w->vector",
    "struct msghdr *": "&w->message",
    "struct sockaddr *": "(struct sockaddr *)&w->address",
    "struct statx *": "&w->statx",
    "struct addrinfo *": "&w->hints",
    "void **": "w->args",
    "loop_handle_t *": "w->handles",
    "loop_handle_t": "w->handle",
    "uint64_t *": "&w->number",
    "char *": '"/dev/null"',
    "loop_callback_t": "on_call",
    "loop_release_t": "on_release",
    "loop_fd_callback_t": "on_fd",
    "loop_io_callback_t": "on_io",
    "loop_recv_callback_t": "on_recv",
    "loop_signal_callback_t": "on_signal",
    "loop_child_callback_t": "on_child",
    "loop_work_t": "on_work",
    "loop_done_t": "on_done",
    "loop_addrinfo_callback_t": "on_addrinfo",
    "loop_slow_callback_t": "on_slow",
    "loop_walk_callback_t": "on_walk",
    ("void *", "arg"): "w",
    ("void *", "data"): "w->bytes",
    ("void *", "buffer"): "w->bytes",
    ("int", "fd"): "w->fd",
    ("int", "fd_in"): "w->fd",
    ("int", "fd_out"): "w->fd",
    ("int", "dirfd"): "AT_FDCWD",
    ("int", "olddirfd"): "AT_FDCWD",
    ("int", "newdirfd"): "AT_FDCWD",
    ("int", "flags"): "0",
    ("int", "mode"): "0",
    ("int", "how"): "SHUT_WR",
    ("int", "domain"): "AF_UNIX",
    ("int", "type"): "SOCK_STREAM",
    ("int", "protocol"): "0",
    ("int", "signum"): "SIGUSR1",
    ("int", "error"): "EINVAL",
    ("mode_t", "mode"): "0600",
    ("pid_t", "pid"): "w->pid",
    ("socklen_t", "length"): "sizeof w->address",
    ("size_t", "length"): "sizeof w->bytes",
    ("size_t", "count"): "1",
    ("uint8_t", "opcode"): "0",
    ("uint32_t", "count"): "4",
    ("uint32_t", "size"): "64",
    ("uint32_t", "flags"): "0",
    ("uint32_t", "mask"): "0",
    ("uint32_t", "when"): "LOOP_BEFORE_WAIT",
    ("uint32_t", "events"): "POLLIN",
    ("uint64_t", "delay_ns"): "LOOP_SEC(1)",
    ("uint64_t", "period_ns"): "LOOP_SEC(1)",
    ("uint64_t", "threshold_ns"): "LOOP_SEC(1)",
    ("uint64_t", "timeout_ns"): "0",
    ("uint64_t", "when_ns"): "LOOP_NEVER",
    ("uint64_t", "offset"): "0",
    ("uint64_t", "offset_in"): "LOOP_CURRENT",
    ("uint64_t", "offset_out"): "LOOP_CURRENT",
    ("uint64_t", "length"): "1",
    ("uint64_t", "size"): "0",
}

# Arguments that may be NULL.
NULL_IS_FINE = {
    ("*", "arg"),
    ("loop_remote_call_soon", "release"),
    ("loop_remote_call_later", "release"),
    ("loop_on_release", "release"),
    ("loop_set_slow_callback", "callback"),
    ("loop_set_data", "data"),
    ("loop_submit_chain", "handles"),
    ("loop_getaddrinfo", "node"),
    ("loop_getaddrinfo", "service"),
    ("loop_getaddrinfo", "hints"),
    ("loop_close", "loop"),
    ("loop_close_within", "loop"),
    ("loop_buffers_free", "buffers"),
    ("loop_time", "loop"),
    ("loop_remote_retain", "remote"),
    ("loop_remote_release", "remote"),
}

# Functions that work whatever the state of the loop.
NEED_NO_LOOP = {
    "loop_new",
    "loop_running",
    "loop_version",
    "loop_strerror",
    "loop_last_error",
    "loop_remote_retain",
    "loop_remote_release",
}

# Functions whose result cannot be an error number, but is a handle or another number.
CARRY_NO_ERROR = {"loop_current"}

# The answers on a wrong thread, in a forked child, after loop_shutdown() and while the loop is being closed. An error number
# stands for itself. ANY is not checked, SKIP is not called. For other functions, RESULTS has the answers by type of the result.
ANY, SKIP = "ANY", "SKIP"
RESULTS = {
    "int": ("-EPERM", "-EOWNERDEAD", None, "-ESHUTDOWN"),
    "loop_handle_t": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "bool": ("0", "0", "0", "0"),
    "void": (ANY, ANY, ANY, ANY),
}
EXPECTED = {
    # Functions for any thread.
    "loop_adopt": ("-EBUSY", "-EOWNERDEAD", "-EBUSY", "-EBUSY"),
    "loop_time": (ANY, ANY, ANY, ANY),
    "loop_call_soon_threadsafe": ("0", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_wakeup": ("0", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_remote_call_soon": ("0", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_remote_call_later": ("0", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_remote_wakeup": ("0", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_remote_stop": ("0", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    # Functions that cannot carry an error, or that have answers of their own.
    "loop_current": ("0", "0", "0", "0"),
    "loop_data": ("0", "0", ANY, ANY),
    "loop_next_deadline": ("LOOP_NEVER", "LOOP_NEVER", "LOOP_NEVER", "LOOP_NEVER"),
    "loop_supports": ("0", "0", "1", "1"),
    # Functions that add nothing work after loop_shutdown().
    "loop_shutdown": ("-EPERM", "-EOWNERDEAD", "0", "-ESHUTDOWN"),
    "loop_shutdown_within": ("-EPERM", "-EOWNERDEAD", "0", "-ESHUTDOWN"),
    "loop_run_forever": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_run": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_run_once": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_stop": ("-EPERM", "-EOWNERDEAD", "0", "-ESHUTDOWN"),
    "loop_break": ("-EPERM", "-EOWNERDEAD", "-EINVAL", "-ESHUTDOWN"),
    "loop_cancel": ("-EPERM", "-EOWNERDEAD", "-ENOENT", "-ESHUTDOWN"),
    "loop_reschedule": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_when": ("-EPERM", "-EOWNERDEAD", "-ENOENT", "-ESHUTDOWN"),
    "loop_skipped": ("-EPERM", "-EOWNERDEAD", "-ENOENT", "-ESHUTDOWN"),
    "loop_ref": ("-EPERM", "-EOWNERDEAD", "-ENOENT", "-ESHUTDOWN"),
    "loop_unref": ("-EPERM", "-EOWNERDEAD", "-ENOENT", "-ESHUTDOWN"),
    "loop_on_release": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_remote_new": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_watch_update": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_forget_fd": ("-EPERM", "-EOWNERDEAD", "0", "-ESHUTDOWN"),
    "loop_submit_chain": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_ring_fd": ("-EPERM", "-EOWNERDEAD", ANY, "-ESHUTDOWN"),
    "loop_set_deadline": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_buffers_new": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_buffer_keep": ("-EPERM", "-EOWNERDEAD", "-EINVAL", "-ESHUTDOWN"),
    "loop_buffer_return": ("-EPERM", "-EOWNERDEAD", "-EINVAL", "-ESHUTDOWN"),
    "loop_fd": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_flush": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_metrics": ("-EPERM", "-EOWNERDEAD", "0", "-ESHUTDOWN"),
    "loop_set_slow_callback": ("-EPERM", "-EOWNERDEAD", "-ESHUTDOWN", "-ESHUTDOWN"),
    "loop_walk": ("-EPERM", "-EOWNERDEAD", "0", "-ESHUTDOWN"),
    # These functions free objects that the others need: wrong_calls.c calls them itself.
    "loop_buffers_free": ("-EPERM", "-EOWNERDEAD", SKIP, "-ESHUTDOWN"),
    "loop_close": ("-EPERM", SKIP, SKIP, "-ESHUTDOWN"),
    "loop_close_within": ("-EPERM", SKIP, SKIP, "-ESHUTDOWN"),
}

PROTOTYPE = re.compile(
    r"(?P<comment>/\*\*.*?\*/)\s*(?P<result>[A-Za-z_][\w ]*[ *]+)(?P<name>loop_\w+)\((?P<parameters>[^()]*)\);", re.S
)


def parameter(text):
    """Returns the type, without const, and the name."""
    kind, name = re.fullmatch(r"(.*?)(\w+)", " ".join(text.split())).groups()
    return " ".join(re.sub(r"\bconst\b", "", kind).replace("*", " * ").split()).replace("* *", "**"), name


def words(comment):
    """Returns the words of the last comment, on one line."""
    return " ".join(comment.rsplit("/**", 1)[1].replace("\n *", " ").split())


def argument(function, kind, name):
    found = ARGUMENTS.get((kind, name)) or ARGUMENTS.get(kind)
    if found is None:
        sys.exit(f"{function}(): what is to be given for `{kind} {name}`? Say it in {__file__}.")
    return found


def expected(function, result, comment):
    if function in EXPECTED:
        return EXPECTED[function]
    known = RESULTS.get(result)
    if known is None or None in known:
        sys.exit(f"{function}(): what does it answer to wrong calls? Say it in {__file__}.")
    if "Any thread" in comment:
        sys.exit(f"{function}() is for any thread: what does it answer? Say it in {__file__}.")
    return known


def main():
    header = open(sys.argv[1], encoding="utf-8").read()
    found = list(PROTOTYPE.finditer(header))
    declared = re.findall(r"^(?!typedef)[A-Za-z_][\w *]*?\b(loop_\w+)\(", header, re.M)
    if [match["name"] for match in found] != declared:
        sys.exit(f"prototypes that this script cannot read: {set(declared) - {match['name'] for match in found}}")
    calls, table = [], []
    for match in found:
        name, result, comment = match["name"], match["result"].strip(), words(match["comment"])
        if name in NEED_NO_LOOP:
            continue
        given, nulls = [], []
        for at, (kind, parameter_name) in enumerate(map(parameter, match["parameters"].split(","))):
            value = argument(name, kind, parameter_name)
            if kind.endswith("*") or value.startswith("on_"):
                given.append(f"null == {at} ? NULL : {value}")
                if ("*", parameter_name) not in NULL_IS_FINE and (name, parameter_name) not in NULL_IS_FINE:
                    nulls.append(f"1u << {at}")
            else:
                given.append(value)
        call = f"{name}({', '.join(given)})"
        body = {"void": f"{call};\n    return 0;"}.get(result, f"return (answer_t){call};")
        if result.endswith("*"):
            body = f"return (answer_t)(intptr_t){call};"
        calls.append(f"static answer_t call_{name}(struct world *w, int null)\n{{\n    {body}\n}}\n")
        carries = "true" if result in ("int", "loop_handle_t") and name not in CARRY_NO_ERROR else "false"
        answers = ", ".join(expected(name, result, comment))
        any_thread = "true" if "Any thread" in comment else "false"
        table.append(f'    {{"{name}", call_{name}, {" | ".join(nulls) or "0"}, {carries}, {any_thread}, {{{answers}}}}},\n')
    print("/* Made of ringloop.h by tests/c/prototypes.py. */\n")
    print("\n".join(calls))
    print(f"static const struct function functions[] = {{\n{''.join(table)}}};")


main()
