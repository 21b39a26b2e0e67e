#!/usr/bin/env python3
"""Plants faults in a copy of src/ and checks that rooms.py finds each of them, and reports nothing in correct code."""

import shutil
import sys
import tempfile
from pathlib import Path

import rooms

SRC = Path(__file__).parents[2] / "src"

UPWARD = "no arrow event_loop -> op"
# The file, the text added to its end, and the expected finding, on the last line of the fault.
FAULTS = {
    "an upward arrow": ("event_loop/control.rs", "use crate::op::buffer;", UPWARD),
    "one in nested braces": ("event_loop/control.rs", "pub(crate) use crate::{error, op::{self as o, buffer}};", UPWARD),
    "one over several lines": ("event_loop/control.rs", "use crate::{\n    error::Error,\n    op::buffer,\n};", UPWARD),
    "one by super": ("event_loop/control.rs", "use super::super::op::buffer;", UPWARD),
    "one in an inner module": ("event_loop/control.rs", "mod inner {\n    type T = super::super::super::op::buffer::T;\n}", UPWARD),
    "one in an expression": ("event_loop/control.rs", "fn f() -> u32 { crate :: op::buffer::f() }", UPWARD),
    "one in a macro": ("event_loop/control.rs", "macro_rules! m { () => { $crate::op::buffer::f() } }", UPWARD),
    "one in an attribute": ("event_loop/control.rs", "#[derive(crate::op::Derived)]\nstruct S;", UPWARD),
    "one through lib.rs": ("event_loop/control.rs", "use crate::Buffers;", UPWARD),
    "one behind a string": ("event_loop/control.rs", """const S: &str = r#"a"b//"#; const C: char = '"'; use crate::op::x;""", UPWARD),
    "one between characters": ("event_loop/control.rs", r"const C: (char, op::T, char) = ('\'', crate::op::T, '\\');", UPWARD),
    "one that is not for tests": ("event_loop/control.rs", "#[cfg(all(not(test), not(loom)))]\nuse crate::op::buffer;", UPWARD),
    "an import of the whole crate": ("event_loop/control.rs", "use crate::*;", "no arrow event_loop -> *"),
    "a call of Loop's that is above": ("event_loop/control.rs", "impl Loop {\n    fn f(&self) { self.accept_multi(0) }\n}", UPWARD),
    "the same by its path": ("event_loop/control.rs", "fn f() { map(Loop::accept_multi) }", UPWARD),
    "a circle": ("pending/hooks.rs", "use crate::threads::inbox;", "must have no circle"),
    "unsafe in the wrong file": ("event_loop/control.rs", "fn f() { unsafe { g() } }", "not in UNSAFE_FILES"),
    "unsafe in its tests": ("event_loop/control.rs", "#[cfg(test)]\nmod tests { unsafe fn f() {} }", "not in UNSAFE_FILES"),
    "unsafe that is allowed there": ("event_loop/control.rs", "#[allow(unsafe_code)]\nfn f() {}", "not in UNSAFE_FILES"),
    "too many unsafe blocks": (
        "capi/mod.rs",
        "macro_rules! five { () => { unsafe {} unsafe {} unsafe {} unsafe {} unsafe {} } }\n" + "five!(); " * 50,
        f"{rooms.MOST_UNSAFE_BLOCKS} are the most",
    ),
    "an empty SAFETY": ("capi/mod.rs", "// SAFETY: as the caller\n// says.", "must name a guarantee"),
    "an impl Loop": ("threads/remote.rs", "impl Loop {\n}", "impl Loop in threads"),
    "a generic impl Loop": ("threads/remote.rs", "impl<T: Iterator<Item = u8>> crate::Loop where T: Copy {\n}", "impl Loop in threads"),
    "a long file": ("event_loop/control.rs", "fn f() {}\n" * rooms.LONGEST_FILE, "are the most"),
    "a wide line": ("event_loop/control.rs", "// " + "x" * rooms.WIDEST_LINE, "columns"),
    "a flat file": ("flat.rs", "// Lies there.", "belongs in a room"),
    "a new room": ("room/mod.rs", "use crate::error;", "room room is unknown"),
    "the crate io_uring": ("op/mod.rs", "const CODE: u8 = io_uring::opcode::Read::CODE;", "outside kernel"),
}
# Code that looks like a fault and is correct.
HARMLESS = """
/// See [`Events`](crate::Events) and crate::op::buffer. unsafe { }
const TEXT: &str = "crate::op::buffer \\" unsafe { } io_uring::opcode";
/* use crate::op; /* unsafe */ */
const RAW: &[u8] = br##"use crate::op; "# unsafe"##;
type Pointer = unsafe extern "C" fn(u32);
fn lifetimes<'a, 'b>(a: &'a str, _: &'b char) -> &'a str { let _ = ('"', '\\'', b'\\\\'); a }
use super::Loop as L;
trait Noun {}
impl Noun for Loop {}
#[cfg(test)]
use crate::op::buffer;
#[cfg(all(test, loom))]
const ROOM: crate::op::S = crate::op::S { a: 1 };
#[cfg(test)]
mod tests {
    use crate::op::buffer;
}
"""


def found_with(src, files, name, text):
    """Returns the findings of rooms.py with a fault in a file of `src`; `files` are the files of `src`, already read."""
    path = src / name
    path.parent.mkdir(exist_ok=True)
    sound = path.read_text() if path.exists() else ""
    path.write_text(sound + text + "\n")
    found = set(rooms.violations([file for file in files if file.name != name] + [rooms.File(src, path)]))
    path.write_text(sound)
    return found


def failures(src):
    shutil.copytree(SRC, src)
    files = rooms.read(src)
    before = set(rooms.violations(files))
    for name, (file, text, expected) in FAULTS.items():
        found = [line for line in found_with(src, files, file, text) - before if expected in line]
        print(f"{name}: {found[0] if found else 'NOT FOUND'}")
        if not found:
            yield f"{name} is not found"
    for line in found_with(src, files, "event_loop/control.rs", HARMLESS) - before:
        yield f"false alarm: {line}"
    if rooms.circle_in({"a": "b", "b": "c", "c": "ab"}) != ["a", "b", "c", "a"] or rooms.circle_in({"a": "bc", "b": "c"}):
        yield "circle_in is wrong"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.exit("\n".join(failures(Path(folder) / "src")) or 0)
