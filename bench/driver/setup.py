"""Installs the packages of the peers as root, and builds every program. A system without its package is left out."""

import os
import re
import shutil
import subprocess
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
BUILD = TARGET / "bench"
VENV = BUILD / "venv"
LOAD = BUILD / "c/echo_load"
# Debian builds Python with all optimisations; another build may be slower.
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else "python3"

CC = ["cc", "-std=gnu11", "-O2", "-g", "-Wall", "-Wextra"]
# For each Debian package: a header, and the name of the library for pkg-config.
LIBRARIES = {
    "libuv1-dev": ("uv.h", "libuv"),
    "libev-dev": ("ev.h", ""),
    "libevent-dev": ("event2/event.h", "libevent_core"),
    "libglib2.0-dev": ("glib.h", "glib-2.0"),
    "liburing-dev": ("liburing.h", "liburing"),
}
# The system libraries that a Rust static library needs.
NATIVE = ["-lgcc_s", "-lpthread", "-lm", "-ldl"]


def run(command, log=None, **how):
    """Returns whether the command succeeded. Writes the output to a file, and prints it after a failure."""
    log = log or BUILD / "build.log"
    with open(log, "w", encoding="utf-8") as output:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **how)
    if done.returncode:
        print(f"failed: {' '.join(map(str, command))}")
        print("".join(log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-15:]), end="")
    return done.returncode == 0


def quietly(command):
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _has(package):
    if package == "python3-venv":
        return quietly([PYTHON, "-c", "import ensurepip, venv"]) is not None
    if package in LIBRARIES:
        header, _ = LIBRARIES[package]
        preprocess = ["cc", "-E", *_flags("--cflags", package), "-include", header, "-x", "c", "/dev/null"]
        return quietly(preprocess) is not None
    return shutil.which(package) is not None


def _flags(which, package):
    """Returns the flags of the compiler (--cflags) or the linker (--libs) for a package, which may be empty."""
    if package == "libev-dev":  # unknown to pkg-config
        return ["-lev"] if which == "--libs" else []
    _, name = LIBRARIES.get(package, ("", ""))
    return (quietly(["pkg-config", which, name]) or "").split() if name else []


def install(systems):
    """Installs missing Debian packages; returns those that are still missing."""
    wanted = {"pkg-config", "strace"} | {system.package for system in systems if system.package}
    missing = sorted(package for package in wanted if not _has(package))
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {' '.join(missing)}", flush=True)
        log = BUILD / "apt.log"
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], log, env=environment) and run(
            ["apt-get", "install", "-y", "--no-install-recommends", *missing], log, env=environment
        )
        missing = [package for package in missing if not _has(package)]
    if missing:
        print(f"not installed: {' '.join(missing)}")
    return missing


def _build_library():
    cargo = ["cargo", "build", "--release", "--features", "capi"]
    if not run(cargo, cwd=ROOT):
        raise SystemExit("ringloop does not build")


def program(system, case):
    """Returns the name of the program for the case."""
    return f"{system.program}_{case.apart}" if case.apart else system.program


def label(system, case):
    """Returns the name of a system that is left out. With separate programs, only some of them may not build."""
    return f"{system.name} in {case.name}" if case.apart else system.name


def _build_c(system, name):
    flags = _flags("--cflags", system.package) + _flags("--libs", system.package)
    if system.program == "libevent":
        flags.append("-levent_pthreads")
    if system.program == "ringloop":
        flags = [f"-I{ROOT}/include", str(TARGET / "release/libringloop.a"), *NATIVE]
    if system.program == "ringloop-so":
        flags = [f"-I{ROOT}/include", f"-L{BUILD}/c", "-lringloop", f"-Wl,-rpath,{BUILD}/c"]
        for link in ("libringloop.so", "libringloop.so.0"):
            shutil.copy(TARGET / "release/libringloop.so", BUILD / "c" / link)
    source = BENCH / "c" / f"{name.replace('-so', '')}.c"
    return run([*CC, source, *flags, "-o", BUILD / "c" / name])


def build_load():
    """Builds the client of the case "echo", the same for all systems."""
    if not run([*CC, BENCH / "c/echo_load.c", "-o", LOAD]):
        raise SystemExit("the load of the case echo does not build")


def _build_rust(system, name):
    cargo = ["cargo", "build", "--release", "--bin", name, "--target-dir", str(BUILD / "rust")]
    # compio is a feature, because it needs a newer Rust than the others.
    feature = ["--features", "compio"] if system.program == "bench-compio" else []
    return run(cargo + feature, cwd=BENCH / "rust")


def _build_python(system, _):
    if system.program == "asyncio":
        return True
    python = VENV / "bin/python"
    log = BUILD / "venv.log"
    return (python.exists() or run([PYTHON, "-m", "venv", VENV], log)) and (
        quietly([python, "-c", "import uvloop"]) is not None
        or run([python, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "uvloop"], log)
    )


def build(parts):
    """Builds the programs for pairs of a system and a case; returns a dictionary of left-out pairs with reasons."""
    (BUILD / "c").mkdir(parents=True, exist_ok=True)
    systems = [system for system, _ in parts]
    missing, left_out, built = install(systems), {}, {}
    print("building", flush=True)
    if any(system.program.startswith("ringloop") for system in systems):
        _build_library()
    if any(case.program == "echo" for _, case in parts):
        build_load()
    for system, case in parts:
        name = program(system, case)
        if system.package in missing:
            left_out[label(system, case)] = f"{system.package} is not installed"
            continue
        if name not in built:
            print(f"  {name}", flush=True)
            make = {"c": _build_c, "rust": _build_rust, "python": _build_python}[system.language]
            built[name] = make(system, name)
        if not built[name]:
            left_out[label(system, case)] = "does not build here"
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")
    return left_out


def command(system, case):
    if system.language == "c":
        return [str(BUILD / "c" / program(system, case))]
    if system.language == "rust":
        return [str(BUILD / "rust/release" / program(system, case))]
    python = PYTHON if system.program == "asyncio" else str(VENV / "bin/python")
    return [python, "-B", str(BENCH / "python/loops.py"), system.program]


def has_changes():
    """Returns whether the tree differs from its commit, except for results."""
    others = [":!bench/results", ":!bench/plots"]
    return bool(quietly(["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", "--", ".", *others]))


def commit():
    name = quietly(["git", "-C", str(ROOT), "describe", "--always"]) or "unknown"
    return f"{name} with changes" if has_changes() else name


def versions(parts):
    """Returns the versions of the compilers, and of the systems in these pairs, which were built."""
    lock = (BENCH / "rust/Cargo.lock").read_text(encoding="utf-8")
    found = {"rustc": quietly(["rustc", "--version"]), "cc": (quietly(["cc", "--version"]) or "").split("\n")[0]}
    for system, case in parts:
        name = "ringloop" if system.name.startswith("ringloop") else system.name
        if system.options or name in found:
            continue
        if system.language == "rust":
            crate = system.program.removeprefix("bench-")
            match = re.search(rf'^name = "{crate}"\nversion = "([^"]*)"', lock, re.MULTILINE)
            found[name] = match.group(1)
        elif system.package == "liburing-dev":
            found[name] = quietly(["pkg-config", "--modversion", "liburing"])
        else:
            found[name] = (quietly([*command(system, case), "version"]) or "").split("\n")[0]
    # Some versions begin with the name.
    return [version if (version or "").startswith(name) else f"{name} {version}" for name, version in found.items()]
