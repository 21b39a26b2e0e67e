# ringloop. `make help` lists what can be made. Needs cargo, a C compiler and GNU make.

PREFIX ?= /usr/local
INCLUDEDIR ?= $(PREFIX)/include
LIBDIR ?= $(PREFIX)/lib
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
DESTDIR ?=
CARGO ?= cargo
CXX ?= g++
CFLAGS ?= -O2 -g
CXXFLAGS ?= -O2 -g
INSTALL ?= install

# The version stands in Cargo.toml, and nowhere else.
VERSION := $(shell sed -n 's/^version *= *"\(.*\)"/\1/p' Cargo.toml | head -n 1)
OLDEST_RUST := $(shell sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)
DESCRIPTION := $(shell sed -n 's/^description *= *"\(.*\)"/\1/p' Cargo.toml)
SONAME := libringloop.so.$(firstword $(subst ., ,$(VERSION)))

TARGET := $(or $(CARGO_TARGET_DIR),target)/release
LIBRARY := $(TARGET)/libringloop.a
C_FLAGS := -Iinclude $(CFLAGS) -Wall -Wextra -Wpedantic -Werror
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer

# What a program linked with the static library needs; gcc and clang add -lgcc_s and -lc themselves.
NATIVE_LIBS = $$(cat build/native-libs)

# Examples that are clients of a server, and the libraries they need: those are built whose library is there.
CLIENTS := curl redis postgres resolve
PACKAGE_curl := libcurl
PACKAGE_redis := hiredis
PACKAGE_postgres := libpq
PACKAGE_resolve := libcares
CLIENTS_THERE := $(foreach client,$(CLIENTS),$(shell pkg-config --exists $(PACKAGE_$(client)) 2>/dev/null && echo $(client)))
PACKAGE_FLAGS = $(if $(PACKAGE_$*),$$(pkg-config --cflags --libs $(PACKAGE_$*)))
EXAMPLES := $(filter-out $(CLIENTS),$(patsubst c-examples/%.c,%,$(sort $(wildcard c-examples/*.c))))
C_TESTS := $(patsubst tests/c/%.c,%,$(sort $(wildcard tests/c/*.c)))
STRESS := $(patsubst tests/stress/%.c,%,$(sort $(wildcard tests/stress/*.c)))
SYSCALLS := $(patsubst tests/syscalls/%.c,%,$(sort $(wildcard tests/syscalls/*.c)))
# Examples that want arguments.
PROGRAMS := echo cat proxy
# What the Rust API offers to other libraries.
LIBRARIES := futures-core,futures-io,hyper
RUST_EXAMPLES := call_soon call_later call_at cores

.PHONY: all help library examples demo c-tests kernel-tests test test-kernels test-newcomer loom stress tsan fuzz mutants lint bench header man book install install-man uninstall deb abi clean
.DELETE_ON_ERROR:

all: library build/native-libs man ## What install takes: the library, in target/release, and the manual pages (the default)

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

# Who installs, by sudo say, may have no cargo: then what has been built is taken.
library:
	@if command -v '$(CARGO)' >/dev/null || ! test -e '$(LIBRARY)'; then set -x; $(CARGO) build --release --features capi; \
	else echo '$(CARGO) is not in the PATH: $(LIBRARY) is taken as it is'; fi

# Cargo knows whether there is something to do; when there was not, nothing that depends on the library is made anew.
$(LIBRARY): library ;

build/native-libs: Cargo.toml
	@mkdir -p $(@D)
	printf '' | rustc --crate-type staticlib --print native-static-libs -o build/empty.a - 2>&1 | \
	    sed -n 's/.*native-static-libs: //p' | sed 's/-lgcc_s *//; s/ *-lc$$//' >$@

# ---- examples ----

examples: $(EXAMPLES:%=build/examples/%) $(CLIENTS_THERE:%=build/examples/%) ## The example programs in C, in build/examples

build/examples/redis build/asan/redis: c-examples/ringloop_hiredis.h

build/examples/%: c-examples/%.c include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CC) -std=c99 $(C_FLAGS) $(LDFLAGS) $< $(LIBRARY) $(PACKAGE_FLAGS) $(NATIVE_LIBS) -o $@

demo: examples ## Builds everything and runs the example programs
	$(CARGO) build --release --features capi $(RUST_EXAMPLES:%=--example %)
	@set -e; for program in $(RUST_EXAMPLES) $(filter-out $(RUST_EXAMPLES) $(PROGRAMS),$(EXAMPLES)); do \
	    printf '\n==== %s, in C ====\n' $$program; build/examples/$$program; \
	    if test -e examples/$$program.rs; then \
	        printf '\n==== %s, in Rust ====\n' $$program; $(TARGET)/examples/$$program; \
	    fi; \
	done

# ---- tests ----

test: ## Runs all tests; installs the tools that it needs where it may
	@scripts/setup-tests
	@tests/run

test-kernels: ## Runs the tests on Debian's kernels 5.10, 6.1, 6.12 and the newest, under QEMU; writes nothing
	@scripts/setup-tests
	@tests/kernels/run

test-newcomer: ## Does what README.md says on a bare Debian 12, in a chroot; as root, about an hour
	@tests/newcomer/run

loom: ## Checks the inbox, and tasks that stand in it, in every order of their steps
	LOOM_MAX_PREEMPTIONS=3 RUSTFLAGS='--cfg loom' $(CARGO) test --release --lib --target-dir target/loom -- inbox:: task::

stress: $(STRESS:%=build/stress/%) ## Millions of posts, ten thousand loops, a thousand connections: 80 s; POSTS, UNBOUNDED, WOKEN, ROUNDS, SOAK_MS say how many
	build/stress/posts
	build/stress/closing
	build/stress/soak

tsan: build/native-libs ## What has to do with threads, under the thread sanitizer
	tests/tsan/run

FUZZ_SECONDS ?= 60
FUZZ_FLAGS := --cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 -Cpasses=sancov-module \
    $(addprefix -Cllvm-args=-sanitizer-coverage-,level=4 inline-8bit-counters pc-table trace-compares)

# The compiler's sanitizers are not stable, hence the bootstrap. What it finds new is kept in build/fuzz.
fuzz: ## Looks for calls of the C API that break a rule, FUZZ_SECONDS long (60)
	@mkdir -p build/fuzz/corpus
	RUSTC_BOOTSTRAP=1 RUSTFLAGS='$(FUZZ_FLAGS)' $(CARGO) run --release --manifest-path fuzz/Cargo.toml \
	    --target "$$(rustc -vV | sed -n 's/^host: //p')" -- -max_total_time=$(FUZZ_SECONDS) -max_len=600 -len_control=0 \
	    -timeout=30 -artifact_prefix=build/fuzz/ build/fuzz/corpus

# What tests/kernels runs on other kernels, besides.
kernel-tests: $(C_TESTS:%=build/tests/%) $(EXAMPLES:%=build/examples/%) build/kernel-tests/features build/kernel-tests/refused

c-tests: $(C_TESTS:%=build/tests/%) $(C_TESTS:%=build/asan/%) $(EXAMPLES:%=build/examples/%) $(EXAMPLES:%=build/asan/%) \
    $(SYSCALLS:%=build/syscalls/%) $(STRESS:%=build/stress/%) $(STRESS:%=build/stress-asan/%) build/instructions \
    $(CLIENTS_THERE:%=build/examples/%) $(CLIENTS_THERE:%=build/asan/%)

# memory.c lets chosen allocations of the library fail.
build/tests/memory build/asan/memory: \
    WRAP := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc,--wrap=posix_memalign

# A call of every function of the header.
build/prototypes.h: tests/c/prototypes.py include/ringloop.h
	@mkdir -p $(@D)
	python3 $^ >$@

build/tests/wrong_calls build/asan/wrong_calls: build/prototypes.h

# -rdynamic: dladdr() shall find the names of callbacks.
build/tests/%: tests/c/%.c tests/c/check.h tests/c/io.h include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CC) -std=c11 $(C_FLAGS) -rdynamic $(WRAP) $(LDFLAGS) $< $(LIBRARY) $(NATIVE_LIBS) -o $@

build/kernel-tests/%: tests/kernels/%.c tests/c/check.h tests/c/io.h include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CC) -std=c11 $(C_FLAGS) $(LDFLAGS) $< $(LIBRARY) $(NATIVE_LIBS) -o $@

build/asan/%: tests/c/%.c tests/c/check.h tests/c/io.h include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CC) -std=c11 $(C_FLAGS) $(SANITIZE) -rdynamic $(WRAP) $(LDFLAGS) $< $(LIBRARY) $(NATIVE_LIBS) -o $@

build/asan/%: c-examples/%.c include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CC) -std=c99 $(C_FLAGS) $(SANITIZE) $(LDFLAGS) $< $(LIBRARY) $(PACKAGE_FLAGS) $(NATIVE_LIBS) -o $@

build/stress/%: tests/stress/%.c tests/stress/stress.h tests/c/check.h include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CC) -std=c11 $(C_FLAGS) $(LDFLAGS) $< $(LIBRARY) $(NATIVE_LIBS) -o $@

build/stress-asan/%: tests/stress/%.c tests/stress/stress.h tests/c/check.h include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CC) -std=c11 $(C_FLAGS) $(SANITIZE) $(LDFLAGS) $< $(LIBRARY) $(NATIVE_LIBS) -o $@

build/syscalls/%: tests/syscalls/%.c include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CC) -std=c99 $(C_FLAGS) $(LDFLAGS) $< $(LIBRARY) $(NATIVE_LIBS) -o $@

build/instructions: tests/instructions/workload.c include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CC) -std=c99 $(C_FLAGS) $(LDFLAGS) $< $(LIBRARY) $(NATIVE_LIBS) -o $@

build/tests/throw: tests/c/throw.cpp include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CXX) -std=c++11 -Iinclude $(CXXFLAGS) -Wall -Wextra -Wpedantic -Werror $(LDFLAGS) $< $(LIBRARY) $(NATIVE_LIBS) -o $@

include $(wildcard tests/cpp/rules.mk)

# SEED and COUNT say which sample; ONLY, a regular expression of names, takes those instead.
mutants: ## Breaks src/ in COUNT places (60), drawn by SEED (1), and sees a test fail for 95 % of them: about an hour
	@SEED='$(SEED)' COUNT='$(COUNT)' tests/mutants/run $(if $(ONLY),'$(ONLY)')

lint: ## Formatting, clippy, documentation, the header: a warning is an error
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path bench/rust/Cargo.toml
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	rustfmt --check --edition 2024 docs/man/main.rs
	@mkdir -p build
	CARGO_PKG_RUST_VERSION=$(OLDEST_RUST) clippy-driver --edition 2024 -D warnings --emit=metadata -o build/man-pages.lint docs/man/main.rs
	$(CARGO) fmt --check --manifest-path tests/api/Cargo.toml
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) clippy --all-targets --features capi -- -D warnings
	$(CARGO) clippy --all-targets --features $(LIBRARIES) -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --features capi,$(LIBRARIES)
	scripts/oldest-rust
	scripts/header-drift
	tests/policy/run rooms
	@if command -v shellcheck >/dev/null; then set -x; shellcheck .ci/run scripts/* tests/run tests/*/run tests/kernels/guest; \
	elif [ "$$CI" = true ]; then echo 'shellcheck is not installed' >&2; exit 1; \
	else echo 'skipped: shellcheck, which is not installed'; fi

BENCH ?=

bench: ## Measures beside other event loops (bench/README.md); BENCH=--quick for a small run
	bench/run $(BENCH)

book: ## The book, in build/book; compiles mdbook where it is not there
	docs/make-book "$$(scripts/cargo-tool mdbook)/mdbook"

header: ## Writes include/ringloop.h anew, after a change in src/capi
	RINGLOOP_WRITE_HEADER=1 $(CARGO) build --features capi

abi: ## Writes the C ABI and the Rust API down anew, in tests/abi and tests/api, after a change
	tests/abi/run write
	tests/api/run write

# ---- manual pages ----

MAN := build/man/man7/ringloop.7

man: $(MAN) ## The manual pages, in build/man: `man -M build/man ringloop` shows the first

$(MAN): build/man-pages include/ringloop.h docs/man/ringloop.7.in docs/man/first.c CHANGELOG.md
	build/man-pages include/ringloop.h docs/man/ringloop.7.in build/man

# Of rustc alone: it needs no crate, and is not part of one.
build/man-pages: $(wildcard docs/man/*.rs)
	@mkdir -p $(@D)
	rustc --edition 2024 docs/man/main.rs -o $@

# ---- installation ----

HEADERS := $(wildcard include/*.h include/*.hpp)
CMAKE_FILES := $(wildcard cmake/*.cmake)
DOCUMENTS := README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT

# The same files, but for ringloop.pc's list of libraries, that `cargo cinstall` puts there (Cargo.toml, package.metadata.capi).
install: library build/native-libs install-man ## Headers, libraries, manual pages, ringloop.pc and the CMake package, below PREFIX (/usr/local) and DESTDIR
	$(INSTALL) -d '$(DESTDIR)$(INCLUDEDIR)' '$(DESTDIR)$(LIBDIR)/pkgconfig' '$(DESTDIR)$(DATADIR)/ringloop/cmake' \
	    '$(DESTDIR)$(DATADIR)/doc/ringloop'
	$(INSTALL) -m 644 $(HEADERS) '$(DESTDIR)$(INCLUDEDIR)'
	$(INSTALL) -m 644 $(LIBRARY) '$(DESTDIR)$(LIBDIR)/libringloop.a'
	$(INSTALL) -m 755 $(TARGET)/libringloop.so '$(DESTDIR)$(LIBDIR)/libringloop.so.$(VERSION)'
	ln -sf libringloop.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	ln -sf libringloop.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/libringloop.so'
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR:$(PREFIX)/%=$${prefix}/%)|' \
	    -e 's|@INCLUDEDIR@|$(INCLUDEDIR:$(PREFIX)/%=$${prefix}/%)|' \
	    -e "s|@DESCRIPTION@|$(DESCRIPTION)|; s|@VERSION@|$(VERSION)|; s|@LIBS_PRIVATE@|$(NATIVE_LIBS)|" ringloop.pc.in >build/ringloop.pc
	$(INSTALL) -m 644 build/ringloop.pc '$(DESTDIR)$(LIBDIR)/pkgconfig/ringloop.pc'
	$(INSTALL) -m 644 $(CMAKE_FILES) '$(DESTDIR)$(DATADIR)/ringloop/cmake'
	$(INSTALL) -m 644 $(DOCUMENTS) '$(DESTDIR)$(DATADIR)/doc/ringloop'

install-man: man
	$(INSTALL) -d '$(DESTDIR)$(MANDIR)/man3' '$(DESTDIR)$(MANDIR)/man7'
	$(INSTALL) -m 644 build/man/man3/* '$(DESTDIR)$(MANDIR)/man3'
	$(INSTALL) -m 644 build/man/man7/* '$(DESTDIR)$(MANDIR)/man7'

uninstall: man ## Removes what install has put there
	for page in build/man/*/*; do rm -f '$(DESTDIR)$(MANDIR)'/"$${page#build/man/}"; done
	rm -f $(HEADERS:include/%='$(DESTDIR)$(INCLUDEDIR)/%') '$(DESTDIR)$(LIBDIR)/libringloop.a' \
	    '$(DESTDIR)$(LIBDIR)/libringloop.so.$(VERSION)' '$(DESTDIR)$(LIBDIR)/$(SONAME)' \
	    '$(DESTDIR)$(LIBDIR)/libringloop.so' '$(DESTDIR)$(LIBDIR)/pkgconfig/ringloop.pc'
	rm -rf '$(DESTDIR)$(DATADIR)/ringloop' '$(DESTDIR)$(DATADIR)/doc/ringloop'

deb: ## Debian packages, in build/deb; needs debhelper
	@scripts/deb

clean: ## Removes everything that was built
	$(CARGO) clean
	rm -rf build
