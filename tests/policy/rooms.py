#!/usr/bin/env python3
"""Reads src/ and prints each violation of the rules for its rooms.

    tests/policy/rooms.py [SRC]

A room is a folder directly under src/. The tables below are the rules; CONTRIBUTING.md ("Where things are") explains the rooms.
A line of output is one violation: file:line, the offending code, the rule. Without violations, the script succeeds.
"""

import itertools
import re
import sys
from pathlib import Path

# The rooms that each room, and each file directly in src/, may import. All others are forbidden. lib.rs may import everything.
ALLOWED = {
    "guide": "",
    "abi": "",
    "error": "",
    "time": "error",
    "sys": "abi error time",
    "observe": "abi error time sys",
    "kernel": "abi error time sys",
    "pending": "abi error time sys observe",
    "threads": "abi error time sys observe pending",
    "event_loop": "abi error time sys observe pending threads kernel",
    "op": "abi error time sys observe pending threads kernel event_loop",
    "task": "abi error time sys observe pending threads kernel event_loop",
    "io": "abi error time sys observe pending threads kernel event_loop op task",
    "capi": "abi error time sys observe pending threads kernel event_loop op task io",
}
FLAT_FILES = {"lib.rs", "error.rs", "time.rs", "guide.rs"}
ROOMS_OF_LOOP = {"event_loop", "op", "task", "io"}
ROOM_OF_IO_URING = "kernel"
LONGEST_FILE = 500
WIDEST_LINE = 100

# The files that may contain unsafe code, in addition to the room that is full of it. Tests are included.
UNSAFE_FILES = """
    abi/sqe.rs
    event_loop/raw.rs event_loop/thread/mod.rs
    io/in_flight.rs
    kernel/buffers.rs kernel/uring/queues.rs
    op/buffer.rs op/data.rs op/mod.rs op/operation.rs
    pending/callback.rs pending/chain.rs pending/post_box.rs pending/posts.rs
    sys/c_library.rs sys/memory.rs sys/signals.rs
    task/body.rs task/header.rs
    threads/inbox.rs
"""
ROOM_FULL_OF_UNSAFE = "capi"
MOST_UNSAFE_FILES = 20
MOST_UNSAFE_BLOCKS = 220

# ---- reading Rust ----

LITERAL = re.compile(
    r"""(?P<comment> //[^\n]* | /\* (?: [^*/] | \*(?!/) | /(?!\*) | /\*.*?\*/ )* \*/ )
      | (?P<string> \b(?:b|c)?r(?P<hashes>\#*)".*?"(?P=hashes)
                  | (?:\b[bc])?"(?:\\.|[^"\\])*"
                  | (?:\bb)?'(?:\\.[^'\n]*|[^\\'\n])' )""",
    re.VERBOSE | re.DOTALL,
)
USE = re.compile(r"\buse\s+(?=[\w:{$])[^;]*;")
PATH = re.compile(r"(?<![\w:])\$?(?:crate|self|super)\b(?:\s*::\s*\w+)+")
TEST_ITEM = re.compile(r"#\[cfg\((?![^\]]*\bnot\(test)(?:test\b|all\([^\]]*\btest\b)[^\]]*\]")
INLINE_MODULE = re.compile(r"\bmod\s+(\w+)\s*\{")
FUNCTION = re.compile(r"\bfn\s+(\w+)")
LOOP_CALL = re.compile(r"\b(self|lp)\s*\.\s*(\w+)\s*\(|\b(Self|Loop)\s*::\s*(\w+)")
IMPL_LOOP = re.compile(r"\bimpl\s*(?:<[^{;]*?>)?\s*(?:[\w:]+::)?Loop\s*(?:where\b[^{]*)?\{")
# A pointer to an unsafe function is a type, and not unsafe code.
UNSAFE = re.compile(r"\bunsafe\b(?!\s*(?:extern\s*)?fn\s*\()")
UNSAFE_BLOCK = re.compile(r"\bunsafe\s*\{")
ALLOW_UNSAFE = re.compile(r"#(!?)\[(?:allow|expect)\(unsafe_code\b[^\]]*\](?:\s*#\[[^\]]*\])*\s*(?:pub(?:\([^)]*\))?\s+)?(?:mod\s+(\w+)\s*;)?")
MACRO = re.compile(r"\bmacro_rules!\s*(\w+)\s*\{")
# Matches a sentence that gives no guarantee. A sentence that goes on to name the caller's guarantee does not match.
EMPTY_SAFETY = re.compile(r"SAFETY:\s*(?:\w+\s+){0,3}(?:as )?the caller says(?: so)?\W*$")


def blank(text):
    """Replaces `text` by spaces, and keeps its line breaks."""
    return re.sub(r"[^\n]", " ", text)


def end_of_braces(code, start):
    """Returns the offset after the brace that closes the first brace at or after `start`."""
    depth = 0
    for brace in re.finditer(r"[{}]", code[start:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return start + brace.end()
    return len(code)


def end_of_item(code, start):
    """Returns the offset after the item at `start`: after its semicolon, or after its braces if these come first."""
    item = re.compile(r"\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?(use|const|static|let)?\b").match(code, start)
    semicolon, brace = code.find(";", start), code.find("{", start)
    ends_with_semicolon = item and item[1] or brace < 0 or 0 <= semicolon < brace
    return semicolon + 1 if ends_with_semicolon and semicolon >= 0 else end_of_braces(code, start)


def leaves(tree, at):
    """Returns the paths in a `use` tree as `(path, offset)`; the braces may be nested."""
    brace = tree.find("{")
    if brace < 0:
        path = tree.split(" as ")[0]
        return [(re.sub(r"\s", "", path), at + len(tree) - len(tree.lstrip()))] if path.strip() else []
    prefix = re.sub(r"\s", "", tree[:brace])
    found, depth, begin = [], 0, brace + 1
    for i in range(brace, len(tree)):
        depth += {"{": 1, "}": -1}.get(tree[i], 0)
        if depth == 0 or depth == 1 and tree[i] == ",":
            found += leaves(tree[begin:i], at + begin)
            begin = i + 1
        if depth == 0:
            break
    return [(prefix + path, offset) for path, offset in found]


class File:
    """A source file: `code` is without comments, strings and tests, at the same offsets as `text`."""

    def __init__(self, src, path):
        self.name = str(path.relative_to(src))
        self.text = path.read_text()
        self.with_strings = LITERAL.sub(lambda m: blank(m[0]) if m["comment"] else m[0], self.text)
        self.all_code = LITERAL.sub(lambda m: blank(m[0]), self.text)
        self.code = self.without_tests(self.all_code) if path.name != "tests.rs" else ""
        parts = list(path.relative_to(src).with_suffix("").parts)
        self.module = parts[:-1] if parts[-1] in ("mod", "lib") else parts
        self.room = "lib" if self.name == "lib.rs" else parts[0]

    @staticmethod
    def without_tests(code):
        for test in reversed(list(TEST_ITEM.finditer(code))):
            end = end_of_item(code, test.end())
            code = code[: test.start()] + blank(code[test.start() : end]) + code[end:]
        return code

    def line(self, offset):
        return self.text.count("\n", 0, offset) + 1

    def lines_of_code(self):
        return sum(1 for line in self.with_strings.splitlines() if line.strip())

    def paths(self):
        """Yields paths that begin with `crate`, `self` or `super` as lists of names from the crate's root, with their offsets."""
        inline = [(m[1], m.end(), end_of_braces(self.code, m.start())) for m in INLINE_MODULE.finditer(self.code)]
        found, rest = [], self.code
        for use in USE.finditer(self.code):
            begin = use.start() + len("use")
            found += leaves(self.code[begin : use.end() - 1], begin)
            rest = rest[: use.start()] + blank(use[0]) + rest[use.end() :]
        found += [(re.sub(r"\s", "", m[0]), m.start()) for m in PATH.finditer(rest)]
        for path, offset in found:
            names = path.removeprefix("$").split("::")
            if names[0] not in ("crate", "self", "super") and self.name != "lib.rs":
                continue
            module = self.module + [name for name, begin, end in inline if begin <= offset < end]
            if names[0] == "crate":
                names, module = names[1:], []
            while names and names[0] in ("self", "super"):
                module = module[:-1] if names[0] == "super" else module
                names = names[1:]
            yield module + names, offset


def read(src):
    return [File(src, path) for path in sorted(src.rglob("*.rs"))]


# ---- the rules ----


def exports_of_root(files):
    """Returns the room of each name that lib.rs exports: `crate::Loop` is an arrow to event_loop."""
    root = next(file for file in files if file.name == "lib.rs")
    return {names[-1]: names[0] for names, _ in root.paths() if len(names) > 1}


def imports(files):
    """Yields the imports of other rooms: `(file, offset, room, name)`."""
    exports = exports_of_root(files)
    for file in files:
        if file.room == "lib":
            continue
        for names, offset in file.paths():
            first = names[0] if names else "*"
            target = first if first in ALLOWED else exports.get(first, first)
            if target != file.room:
                yield file, offset, target, "::".join(names)


def calls_of_loop(files):
    """Yields calls of functions of Loop whose impl is in another room, which imports do not show: `(file, offset, room, name)`."""
    impls = {file: [(m.start(), end_of_braces(file.code, m.start())) for m in IMPL_LOOP.finditer(file.code)] for file in files}
    homes = {m[1]: file.room for file in files for impl in impls[file] for m in FUNCTION.finditer(file.code, *impl)}
    for file in files:
        for call in LOOP_CALL.finditer(file.code):
            receiver, name = call[1] or call[3], call[2] or call[4]
            is_of_loop = receiver in ("lp", "Loop") or any(begin < call.start() < end for begin, end in impls[file])
            if is_of_loop and homes.get(name, file.room) != file.room:
                yield file, call.start(), homes[name], f"Loop::{name}"


def circle_in(graph):
    """Returns a cycle in `graph` as a list of rooms, or None."""
    done = set()

    def visit(room, way):
        if room in way:
            return way[way.index(room) :] + [room]
        if room in done:
            return None
        circles = (visit(other, way + [room]) for other in sorted(graph.get(room, ())))
        circle = next(filter(None, circles), None)
        done.add(room)
        return circle

    return next(filter(None, (visit(room, []) for room in graph)), None)


def check_arrows(files):
    allowed = {room: set(rooms.split()) for room, rooms in ALLOWED.items()}
    found = {}
    for file, offset, target, name in itertools.chain(imports(files), calls_of_loop(files)):
        found.setdefault(file.room, set()).add(target)
        if file.room not in allowed:
            yield file, offset, f"room {file.room} is unknown: give it a line in ALLOWED"
        elif target not in allowed[file.room]:
            yield file, offset, f"{name}: ALLOWED has no arrow {file.room} -> {target}"
    for name, graph in ("ALLOWED", allowed), ("the rooms", found):
        if circle := circle_in(graph):
            yield None, 0, f"{name} must have no circle, but has: {' -> '.join(circle)}"


def weights_of_macros(files):
    """Returns the number of unsafe blocks of each macro: those of all its arms, and of the macros used in these."""
    bodies = {m[1]: f.all_code[m.end() : end_of_braces(f.all_code, m.start())] for f in files for m in MACRO.finditer(f.all_code)}

    def weight(name, outer):
        inner = (m for m in re.findall(r"\b(\w+)!", bodies[name]) if m in bodies and m not in outer)
        return len(UNSAFE_BLOCK.findall(bodies[name])) + sum(weight(m, outer | {name}) for m in inner)

    return {name: weight(name, {name}) for name in bodies}


def count_unsafe_blocks(files):
    weights, count = weights_of_macros(files), 0
    for file in files:
        code = file.all_code
        for macro in MACRO.finditer(code):
            end = end_of_braces(code, macro.start())
            code = code[: macro.start()] + blank(code[macro.start() : end]) + code[end:]
        count += len(UNSAFE_BLOCK.findall(code)) + sum(weights.get(name, 0) for name in re.findall(r"\b(\w+)!", code))
    return count


def check_unsafe(files):
    listed = set(UNSAFE_FILES.split())
    names = {file.name: file for file in files}
    for file in files:
        is_free = file.room == ROOM_FULL_OF_UNSAFE
        unsafe = [m.start() for m in UNSAFE.finditer(file.all_code)]
        for allow in ALLOW_UNSAFE.finditer(file.all_code):
            if allow[2] is None:
                unsafe.append(allow.start())
                continue
            folder = "/".join(file.module + [allow[2]])
            there = [name for name in (f"{folder}.rs", f"{folder}/mod.rs") if name in names]
            if allow[2] != ROOM_FULL_OF_UNSAFE and not listed & set(there):
                yield file, allow.start(), f"unsafe is allowed in {' '.join(there)}, which is not in UNSAFE_FILES"
        if file.name in listed:
            if not unsafe:
                yield file, 0, "it stands in UNSAFE_FILES and has no unsafe"
            if not re.match(r"(?://![^\n]*\n)*?//![^\n]*\bunsafe\b", file.text):
                yield file, 0, "it has unsafe: the comment that it begins with (//!) must say why, with the word unsafe"
        elif unsafe and not is_free:
            yield file, min(unsafe), f"unsafe ({len(unsafe)} times) in a file that is not in UNSAFE_FILES"
        for safety in re.finditer(r"// SAFETY:[^\n]*(?:\n\s*//[^\n]*)*", file.text):
            if EMPTY_SAFETY.match(re.sub(r"\s*\n\s*//\s*", " ", safety[0]).removeprefix("// ")):
                yield file, safety.start(), "a SAFETY comment must name a guarantee, not only who gives it"
    for name in sorted(listed - names.keys()):
        yield None, 0, f"{name} stands in UNSAFE_FILES and is no file"
    if len(listed) > MOST_UNSAFE_FILES:
        yield None, 0, f"{len(listed)} files have unsafe outside {ROOM_FULL_OF_UNSAFE}, {MOST_UNSAFE_FILES} may"
    if (blocks := count_unsafe_blocks(files)) > MOST_UNSAFE_BLOCKS:
        yield None, 0, f"{blocks} unsafe blocks, {MOST_UNSAFE_BLOCKS} are the most"


def check_impl_loop(files):
    for file in files:
        if file.room not in ROOMS_OF_LOOP:
            for impl in IMPL_LOOP.finditer(file.code):
                yield file, impl.start(), f"impl Loop in {file.room}: only {', '.join(sorted(ROOMS_OF_LOOP))} may have one"


def check_files(files):
    for file in files:
        if (lines := file.lines_of_code()) > LONGEST_FILE:
            yield file, 0, f"{lines} lines of code, {LONGEST_FILE} are the most"
        for line in re.finditer(rf"^.{{{WIDEST_LINE + 1},}}$", file.text, re.MULTILINE):
            yield file, line.start(), f"a line of {len(line[0])} columns, {WIDEST_LINE} are the most"
        if "/" not in file.name and file.name not in FLAT_FILES:
            yield file, 0, f"only {', '.join(sorted(FLAT_FILES))} are flat in src/: this file belongs in a room"


def check_io_uring(files):
    for file in files:
        if file.room != ROOM_OF_IO_URING:
            for name in re.finditer(r"\bio_uring\s*::", file.all_code):
                yield file, name.start(), f"io_uring:: outside {ROOM_OF_IO_URING}, the only room that knows the crate"


def violations(files):
    for rule in check_arrows, check_unsafe, check_impl_loop, check_files, check_io_uring:
        for file, offset, what in rule(files):
            yield f"src/{file.name}:{file.line(offset)}: {what}" if file else f"src: {what}"


def main():
    src = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "src"
    found = list(violations(read(src)))
    for line in found:
        print(line)
    sys.exit(f"{len(found)} violations of the rules of the rooms: tests/policy/rooms.py" if found else 0)


if __name__ == "__main__":
    main()
