"""Checks the chapters of the book, which are the files that docs/SUMMARY.md names.

Rules for writers of chapters:

- A block ```c with a main() is a program. It is compiled with -std=c99 -Wall -Wextra -Wpedantic -Werror and linked. If a block
  ```console comes next, its lines that begin with "$ " are run in an empty folder, where the program has the name of the first
  ./NAME (a line with cc is not run). They must print the lines below them.
- Any other block ```c is a fragment. Lines that begin in the first column with #, static, struct, enum or typedef are put outside
  of functions, the rest inside a function that sees all of FRAME. A fragment may leave a function or a variable unused.
- ```rust, and in docs/guide a block without a language, is Rust: see src/guide.rs and src/lib.rs. Any other is not compiled.
- In ```sh, make's targets and files of the repository must exist.
- Names in all of the text: loop_* and LOOP_* must be in the header, S1 to S99 must be rules, RINGLOOP_* must be a variable that src reads.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WORK = ROOT / "build" / "book-checks"
FLAGS = "-std=c99 -O1 -Wall -Wextra -Wpedantic -Werror -Iinclude".split()
# Other needs of a program, by the headers that it includes: a package of pkg-config, or options.
PACKAGES = {"glib.h": "glib-2.0"}
OPTIONS = {"ev.h": ["-lev"], "pthread.h": ["-pthread"]}

FRAME_BEFORE = """#define _GNU_SOURCE
#include <ringloop.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/io_uring.h>
"""
# Declarations for fragments: a loop, one handle or object of each kind, and callbacks of each kind.
FRAME = """
extern loop_t *loop, *inner;
extern loop_handle_t handle, timer, operation;
extern loop_remote_t *remote;
extern int fd, result;
extern void *arg;
extern char buffer[4096];
void callback(loop_t *loop, void *arg);
void release(void *arg);
void work(void *arg);
void on_result(loop_t *loop, int32_t result, uint32_t flags, void *arg);
void on_data(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg);
void on_ready(loop_t *loop, int fd, uint32_t events, void *arg);
void on_signal(loop_t *loop, int signum, void *arg);
void on_child(loop_t *loop, pid_t pid, int wait_status, void *arg);
void on_done(loop_t *loop, int status, void *arg);
void on_addresses(loop_t *loop, int status, struct addrinfo *result, void *arg);
int fragment(void);
"""

problems = 0


def problem(where, words):
    global problems
    problems += 1
    print(f"{where}: error: {words}")


class Chapter:
    def __init__(self, path):
        self.path = path
        self.name = path.relative_to(ROOT).as_posix()
        self.text = path.read_text(encoding="utf-8")
        self.blocks, self.prose = split(self.text)

    def headings(self):
        return [re.sub(r"^#+ ", "", line) for _, line in self.prose if re.match(r"#+ ", line)]

    def anchors(self):
        found = []
        for heading in self.headings():
            words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
            same = sum(1 for each in found if re.sub(r"-\d+$", "", each) == words)
            found.append(f"{words}-{same}" if same else words)
        return found


class Block:
    def __init__(self, line, language):
        self.line, self.language, self.lines = line, language, []

    @property
    def text(self):
        return "\n".join(self.lines) + "\n"


def split(text):
    """Returns the blocks of code, and the numbered lines outside of them."""
    blocks, prose, block = [], [], None
    for number, line in enumerate(text.splitlines(), 1):
        fence = re.match(r" *```(.*)$", line)
        if fence and block is None:
            block = Block(number + 1, fence[1].strip())
            blocks.append(block)
        elif fence:
            block = None
        elif block is not None:
            block.lines.append(line)
        else:
            prose.append((number, line))
    return blocks, prose


def chapters():
    """Returns the chapters in the order of the summary, with their titles."""
    summary = (DOCS / "SUMMARY.md").read_text(encoding="utf-8")
    return [((DOCS / target).resolve(), title) for title, target in re.findall(r"\[([^]]+)\]\(([^)]+)\)", summary)]


def all_chapters():
    return [Chapter(path) for path, _ in chapters()]


# ---- C ----


def run(command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, **more)
    return done.returncode, done.stdout


def needs(text):
    """Returns the compiler and linker arguments that a block needs besides those for the library."""
    compile_with, link_with = [], []
    for header in re.findall(r"#include <([^>]+)>", text):
        if header in PACKAGES:
            compile_with += flags_of("--cflags", PACKAGES[header])
            link_with += flags_of("--libs", PACKAGES[header])
        link_with += OPTIONS.get(header, [])
    return compile_with, link_with


def flags_of(what, package):
    status, output = run(["pkg-config", what, package])
    # As a system header, so that the compiler reports no warnings about it.
    return [] if status else re.sub(r"-I", "-isystem ", output).split()


def outside(lines):
    """Splits a fragment into the lines outside of functions and the lines inside."""
    parts, inside_of_one = ([], []), False
    for number, line in enumerate(lines):
        begins = re.match(r"#|static\b|struct \w+ *\{|enum\b|typedef\b", line)
        is_outside = inside_of_one or bool(begins)
        parts[0 if is_outside else 1].append((number, line))
        if begins and not line.startswith("#"):
            inside_of_one = not re.search(r"[;}]\s*(/\*.*\*/)?$", line)
        elif inside_of_one and re.match(r"\}|.*\)\s*;$", line) and not line.startswith(" "):
            inside_of_one = False
    return parts


def numbered(parts, block, name):
    """Returns the lines with #line directives that give their place in the chapter."""
    return "".join(f'#line {block.line + number} "{name}"\n{line}\n' for number, line in parts)


def source(block, name):
    if is_program(block):
        return f'#line {block.line} "{name}"\n{block.text}'
    above, inside = outside(block.lines)
    return (
        f"{FRAME_BEFORE}{FRAME}{numbered(above, block, name)}"
        f"int fragment(void)\n{{\n{numbered(inside, block, name)}return 0;\n}}\n"
    )


def is_program(block):
    return re.search(r"^int main\(", block.text, re.M) is not None


def compile_block(block, chapter, program):
    path = program.with_suffix(".c")
    path.write_text(source(block, chapter.name), encoding="utf-8")
    compile_with, link_with = needs(block.text)
    command = ["cc", *FLAGS, *compile_with, str(path)]
    if is_program(block):
        native = (ROOT / "build/native-libs").read_text(encoding="utf-8").split()
        command += ["-o", str(program), "target/release/libringloop.a", *link_with, *native]
    else:
        command += ["-Wno-unused-function", "-Wno-unused-variable", "-c", "-o", "/dev/null"]
    status, output = run(command, cwd=ROOT)
    print(output, end="")
    if status:
        problem(f"{chapter.name}:{block.line}", f"it does not compile: {shlex.join(command)}")
    return status == 0


def run_block(program, console, chapter):
    """Runs the commands of a block, and compares what they print."""
    name = re.search(r"\./(\w+)", console.text)
    if not name:
        return
    ran = 0
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        (Path(folder) / name[1]).symlink_to(program)
        for commanded in re.split(r"^\$ ", console.text, flags=re.M)[1:]:
            command, _, expected = commanded.partition("\n")
            if command.startswith("cc "):
                continue
            status, output = run(["timeout", "20", "bash", "-c", command], cwd=folder)
            ran += 1
            if output != expected or status:
                problem(
                    f"{chapter.name}:{console.line}",
                    f"'{command}' (exit status {status}) printed\n{output}instead of\n{expected}",
                )
    if not ran:
        problem(f"{chapter.name}:{console.line}", "no command to run")
    print(f"{chapter.name}:{console.line}: {ran} commands")


def check_c():
    WORK.mkdir(parents=True, exist_ok=True)
    programs = fragments = ran = 0
    for chapter in all_chapters():
        for index, block in enumerate(chapter.blocks):
            if block.language != "c":
                continue
            program = WORK / f"{chapter.path.stem}-{block.line}"
            if not compile_block(block, chapter, program):
                continue
            if not is_program(block):
                fragments += 1
                continue
            programs += 1
            following = chapter.blocks[index + 1] if index + 1 < len(chapter.blocks) else None
            if following and following.language == "console":
                run_block(program, following, chapter)
                ran += 1
    library = "".join((ROOT / "src" / name).read_text(encoding="utf-8") for name in ("lib.rs", "guide.rs"))
    for chapter in all_chapters():
        rust = "|rust.*" if chapter.path.parent.name == "guide" else "rust.*"
        has_rust = any(re.fullmatch(rust, block.language) for block in chapter.blocks)
        if has_rust and f'"../{chapter.name}"' not in library:
            problem(chapter.name, "has a block of Rust that no test compiles: name it in src/lib.rs")
    print(f"{programs} programs, {ran} of them run, and {fragments} fragments")
    if not (programs and fragments and ran):
        problem("docs", "no blocks of C were found")


def can_c():
    missing = []
    for chapter in all_chapters():
        for block in chapter.blocks:
            for header in re.findall(r"#include <([^>]+)>", block.text) if block.language == "c" else ():
                extra = flags_of("--cflags", PACKAGES[header]) if header in PACKAGES else []
                if header in PACKAGES or header in OPTIONS:
                    status, _ = run(["cc", *extra, "-E", "-include", header, "-x", "c", "/dev/null"])
                    if status and header not in missing:
                        missing.append(header)
    if missing:
        print(f"not installed: {', '.join(missing)}")
        sys.exit(1)


# ---- names ----


def check_names():
    header = set(re.findall(r"\b(?:loop_[a-z_]+|LOOP_[A-Z_]+)", (ROOT / "include/ringloop.h").read_text()))
    rules = set(re.findall(r"^- \*\*(S\d+)\*\*", (DOCS / "semantics.md").read_text(), re.M))
    library = "".join(path.read_text() for path in sorted((ROOT / "src").rglob("*.rs")))
    variables = set(re.findall(r'"(RINGLOOP_[A-Z_]+)"', library + (ROOT / "build.rs").read_text()))
    errors = re.sub(r"\\\n *", "", (ROOT / "src/error.rs").read_text())
    sentences = set(re.findall(r'^    \w+(?: = \w+\(\w+\))?: c"(.*)",$', errors, re.M))
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    counts = dict.fromkeys(("names", "rules", "variables", "sentences", "commands"), 0)

    def expect(kind, name, known, where):
        counts[kind] += 1
        if name not in known:
            problem(where, f"{name}: there is no such thing")

    for chapter in all_chapters():
        for number, line in enumerate(chapter.text.splitlines(), 1):
            where = f"{chapter.name}:{number}"
            for name in re.findall(r"\b(?:loop_[a-z_]+|LOOP_[A-Z_]+)(?![*\w])", line):
                expect("names", name, header, where)
            for name in re.findall(r"\bS\d{1,2}\b", line):
                expect("rules", name, rules, where)
            for name in re.findall(r"\bRINGLOOP_[A-Z_]+\b", line):
                # Makefile and build.rs use the other variables, such as RINGLOOP_WRITE_HEADER.
                if name not in makefile:
                    expect("variables", name, variables, where)
        for number, line in chapter.prose if chapter.path.name == "errors.md" else ():
            for sentence in re.findall(r'"([^"]{12,})"', line):
                expect("sentences", sentence, sentences, f"{chapter.name}:{number}")
        for block in chapter.blocks:
            if block.language == "sh":
                for offset, line in enumerate(block.lines):
                    check_command(chapter, block.line + offset, line, targets, counts)
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    if not all(counts.values()):
        problem("docs", "one kind was not found at all")


def check_command(chapter, number, line, targets, counts):
    where = f"{chapter.name}:{number}"
    words = line.split("#")[0].split()
    for before, word in zip(["", *words], words):
        if before == "make" and re.fullmatch(r"[a-z-]+", word):
            counts["commands"] += 1
            if word not in targets:
                problem(where, f"make {word}: there is no such target")
        elif before == "--example":
            counts["commands"] += 1
            manifest = (ROOT / "Cargo.toml").read_text()
            if not (ROOT / f"examples/{word}.rs").exists() and f'name = "{word}"' not in manifest:
                problem(where, f"there is no example {word}")
        elif built := re.fullmatch(r"(?:\./)?build/examples/(\w+)", word):
            counts["commands"] += 1
            if not (ROOT / f"c-examples/{built[1]}.c").exists():
                problem(where, f"there is no example {built[1]}")
        elif re.fullmatch(r"(bench|tests|scripts|docs|c-examples|examples|src|include)/[\w./-]+", word):
            counts["commands"] += 1
            if not (ROOT / word).exists():
                problem(where, f"{word}: there is no such file")


# ---- links ----


def check_links():
    known = {path: Chapter(path) for path, _ in chapters()}
    count = 0
    for chapter in known.values():
        for number, line in chapter.prose:
            for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "``", line)):
                where = f"{chapter.name}:{number}"
                if re.match(r"(https?:|crate::)", target):
                    continue
                count += 1
                path, _, anchor = target.partition("#")
                file = (chapter.path.parent / path).resolve() if path else chapter.path
                if not file.exists():
                    problem(where, f"{target}: there is no such file")
                elif file.suffix == ".md" and file not in known:
                    problem(where, f"{target}: not a chapter of docs/SUMMARY.md, so that the book has no such page")
                elif anchor and file in known and anchor not in known[file].anchors():
                    problem(where, f"{target}: there is no such heading")
    for file in sorted(DOCS.rglob("*.md")):
        if file not in known and file.name != "SUMMARY.md":
            problem(file.relative_to(ROOT), "not in docs/SUMMARY.md")
    print(f"{count} links in {len(known)} chapters")


# ---- indexes ----


def check_indexes():
    for folder in ("examples", "c-examples"):
        text = (ROOT / folder / "README.md").read_text(encoding="utf-8")
        files = sorted(path.name for path in (ROOT / folder).iterdir() if path.name not in ("README.md", "rules.mk"))
        named = re.findall(r"^\| \[`?([\w.]+)`?\]\(([\w.]+)\)", text, re.M)
        for file in files:
            lines = [name for name, target in named if target == file]
            if len(lines) != 1:
                problem(f"{folder}/README.md", f"{len(lines)} lines for {file}, not one")
        for _, target in named:
            if target not in files:
                problem(f"{folder}/README.md", f"{target}: there is no such file")
        print(f"{folder}: {len(files)} files")
    header = (ROOT / "include/ringloop.h").read_text()
    declared = dict(re.findall(r"\b(loop_[a-z_]+)\(([^()]*)\)", re.sub(r"/\*.*?\*/", "", header, flags=re.S)))
    # One row of the chapter is for all operations.
    named = {name for name, parameters in declared.items() if "loop_io_callback_t" in parameters}
    named |= set(re.findall(r"`(loop_[a-z_]+)`", (DOCS / "complexity.md").read_text(encoding="utf-8")))
    for name in sorted(declared.keys() - named):
        problem("docs/complexity.md", f"nothing about {name}()")
    print(f"{len(declared)} functions")
    plots = {path.name for path in (ROOT / "bench/plots").glob("*.svg")}
    shown = set(re.findall(r"\]\(\.\./bench/plots/([\w.-]+)\)", (DOCS / "figures.md").read_text(encoding="utf-8")))
    for name in sorted(plots - shown):
        problem("docs/figures.md", f"bench/plots/{name} is not shown")
    print(f"{len(plots)} plots")


# ---- the built book ----


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.ids.add(attributes["id"])
        for name in ("href", "src"):
            if tag != "link" and attributes.get(name):
                self.links.append(attributes[name])


def check_pages():
    book = ROOT / "build/book"
    # print.html has all chapters again, with links that are relative to the chapters' own pages.
    pages = {path: Page(path) for path in sorted(book.rglob("*.html")) if path.name not in ("print.html", "404.html")}
    count = 0
    for path, page in pages.items():
        for link in page.links:
            target, _, anchor = unquote(link).partition("#")
            if re.match(r"\w+:", target):
                continue
            count += 1
            file = (path.parent / target).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            if not file.exists():
                problem(path.relative_to(ROOT), f"{link} leads nowhere")
            elif anchor and file in pages and anchor not in pages[file].ids:
                problem(path.relative_to(ROOT), f"{link}: there is no such heading")
    print(f"{count} links in {len(pages)} pages")
    if len(pages) < len(chapters()):
        problem("build/book", f"{len(pages)} pages for {len(chapters())} chapters")


CHECKS = {"c": check_c, "names": check_names, "links": check_links, "indexes": check_indexes, "pages": check_pages}


def main():
    wanted = sys.argv[1:]
    if wanted[:1] == ["can"]:
        if wanted[1:] == ["c"]:
            can_c()
        return
    if len(wanted) != 1 or wanted[0] not in CHECKS:
        sys.exit(f"tests/book/run {' | '.join(CHECKS)} | plots")
    CHECKS[wanted[0]]()
    if problems:
        print(f"{problems} errors")
        sys.exit(1)


if __name__ == "__main__":
    main()
