# ringloop. `make help` lists the targets. Needs cargo, a C compiler, pkg-config and GNU make.
# Longer recipes are scripts: scripts/, tests/run. The rules.mk of c-examples/, docs/man/ and tests/ build the programs.

PREFIX ?= /usr/local
INCLUDEDIR ?= $(PREFIX)/include
LIBDIR ?= $(PREFIX)/lib
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
DESTDIR ?=
CARGO ?= cargo
CFLAGS ?= -O2 -g
INSTALL ?= install

TARGET := $(or $(CARGO_TARGET_DIR),target)/release
LIBRARY := $(TARGET)/libringloop.a
C_FLAGS := -Iinclude $(CFLAGS) -Wall -Wextra -Wpedantic -Werror
# The libraries that a program with the static library needs; gcc and clang add -lgcc_s and -lc themselves.
NATIVE_LIBS = $$(cat build/native-libs)

.PHONY: all help library examples demo test check lint header abi man book install uninstall deb clean
.PHONY: test-kernels test-newcomer loom stress fuzz mutants bench
.DELETE_ON_ERROR:

all: library build/native-libs man ## The library, in target/release, and the manual pages

help: ## Lists the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

# sudo may hide cargo; `make install` then installs the library that has been built.
library:
	@if command -v '$(CARGO)' >/dev/null || ! test -e '$(LIBRARY)'; then set -x; $(CARGO) build --release --features capi; \
	else echo '$(CARGO) is not in the PATH: $(LIBRARY) is taken as it is'; fi

# Cargo decides whether the library is out of date. make rebuilds the dependents only of a new library.
$(LIBRARY): library ;

build/native-libs: Cargo.toml
	@mkdir -p $(@D)
	printf '' | rustc --crate-type staticlib --print native-static-libs -o build/empty.a - 2>&1 | \
	    sed -n 's/.*native-static-libs: //p' | sed 's/-lgcc_s *//; s/ *-lc$$//' >$@

# ---- examples ----

include c-examples/rules.mk

examples: $(EXAMPLES:%=build/examples/%) $(CLIENTS_THERE:%=build/examples/%) ## The examples in C, in build/examples

demo: examples ## Runs the examples that need no arguments
	scripts/demo

# ---- before each commit ----

test: ## Unit tests, rules, model, C tests, examples, header: a few minutes
	@scripts/setup-tests test && tests/run test

lint: ## Formatting, clippy, documentation, header, rooms: a warning is an error
	scripts/lint

header: ## Writes include/ringloop.h after a change in src/capi
	RINGLOOP_WRITE_HEADER=1 $(CARGO) build --features capi

abi: ## Writes the lists of the C ABI and the Rust API after a change
	tests/abi/run write
	tests/api/run write

# ---- more checks; `make check` includes all except test-newcomer, mutants and bench ----

check: ## Lint, sanitizers, valgrind, loom, fuzz, stress, packages, kernels
	@scripts/setup-tests check && tests/run check

test-kernels: ## The tests on Debian's 5.10, 6.1, 6.12 and newest kernel, in QEMU
	@scripts/setup-tests check && tests/kernels/run

test-newcomer: ## Follows the README on a bare Debian 12, in a chroot: as root, an hour
	tests/newcomer/run

loom: ## Checks posts and tasks in every order of their steps
	scripts/loom

stress: ## Millions of posts, thousands of loops and connections: 80 s
	tests/stress/run

fuzz: ## Runs random programs of calls, guided by coverage: FUZZ_SECONDS=60
	scripts/fuzz

mutants: ## Breaks src/ in COUNT=60 places drawn by SEED=1: an hour
	@SEED='$(SEED)' COUNT='$(COUNT)' tests/mutants/run $(if $(ONLY),'$(ONLY)')

bench: ## Compares with other event loops: BENCH=--quick for a small run
	bench/run $(BENCH)

-include tests/rules.mk

# ---- documents and packages ----

include docs/man/rules.mk

man: build/man/man7/ringloop.7 ## The manual pages, in build/man

book: ## The book, in build/book
	docs/make-book "$$(scripts/cargo-tool mdbook)/mdbook"

# The variables are not exported: `make deb` would pass them to the `make install` of the package.
INTO = PREFIX='$(PREFIX)' INCLUDEDIR='$(INCLUDEDIR)' LIBDIR='$(LIBDIR)' DATADIR='$(DATADIR)' \
    MANDIR='$(MANDIR)' DESTDIR='$(DESTDIR)' INSTALL='$(INSTALL)' LIBRARY='$(LIBRARY)'

install: library build/native-libs man ## Installs below PREFIX=/usr/local and DESTDIR
	@$(INTO) scripts/install files
	@$(INTO) scripts/install man

uninstall: man ## Removes the installed files
	@$(INTO) scripts/install remove

deb: ## Debian packages, in build/deb
	@scripts/deb

clean: ## Removes all build output
	$(CARGO) clean
	rm -rf build
