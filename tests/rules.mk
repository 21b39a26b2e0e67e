# Builds the test programs in C: build/KIND/NAME. The Makefile includes this file; cpp/rules.mk is for C++.

CXX ?= g++
CXXFLAGS ?= -O2 -g
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# Python writes the calls of wrong_calls.
C_TESTS := $(filter-out $(if $(shell command -v python3),,wrong_calls),$(patsubst tests/c/%.c,%,$(sort $(wildcard tests/c/*.c))))
STRESS := $(patsubst tests/stress/%.c,%,$(sort $(wildcard tests/stress/*.c)))
SYSCALLS := $(patsubst tests/syscalls/%.c,%,$(sort $(wildcard tests/syscalls/*.c)))
NEEDS := include/ringloop.h $(LIBRARY) build/native-libs
CHECKED := tests/c/check.h tests/c/io.h $(NEEDS)
LINK = $(LDFLAGS) $< $(LIBRARY) $(NATIVE_LIBS) -o $@

.PHONY: c-tests c-tests-checked kernel-tests

c-tests: $(C_TESTS:%=build/tests/%) $(EXAMPLES:%=build/examples/%)

# Programs with sanitizers, and the programs for valgrind and strace.
c-tests-checked: $(C_TESTS:%=build/asan/%) $(EXAMPLES:%=build/asan/%) $(CLIENTS_THERE:%=build/examples/%) $(CLIENTS_THERE:%=build/asan/%) \
    $(STRESS:%=build/stress/%) $(STRESS:%=build/stress-asan/%) $(SYSCALLS:%=build/syscalls/%) build/instructions

# The programs that tests/kernels runs on other kernels.
kernel-tests: c-tests build/kernel-tests/features build/kernel-tests/refused

# memory.c makes chosen allocations of the library fail.
build/tests/memory build/asan/memory: \
    WRAP := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc,--wrap=posix_memalign

# The calls of every function of the header.
build/prototypes.h: tests/c/prototypes.py include/ringloop.h
	@mkdir -p $(@D)
	python3 $^ >$@

build/tests/wrong_calls build/asan/wrong_calls: build/prototypes.h
build/asan/redis: c-examples/ringloop_hiredis.h

# With -rdynamic, dladdr() finds the names of callbacks.
build/tests/%: tests/c/%.c $(CHECKED)
	@mkdir -p $(@D)
	$(CC) -std=c11 $(C_FLAGS) -rdynamic $(WRAP) $(LINK)

build/asan/%: tests/c/%.c $(CHECKED)
	@mkdir -p $(@D)
	$(CC) -std=c11 $(C_FLAGS) $(SANITIZE) -rdynamic $(WRAP) $(LINK)

build/asan/%: c-examples/%.c $(NEEDS)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(C_FLAGS) $(SANITIZE) $(LDFLAGS) $< $(LIBRARY) $(PACKAGE_FLAGS) $(NATIVE_LIBS) -o $@

build/kernel-tests/%: tests/kernels/%.c $(CHECKED)
	@mkdir -p $(@D)
	$(CC) -std=c11 $(C_FLAGS) $(LINK)

build/stress/%: tests/stress/%.c tests/stress/stress.h tests/c/check.h $(NEEDS)
	@mkdir -p $(@D)
	$(CC) -std=c11 $(C_FLAGS) $(LINK)

build/stress-asan/%: tests/stress/%.c tests/stress/stress.h tests/c/check.h $(NEEDS)
	@mkdir -p $(@D)
	$(CC) -std=c11 $(C_FLAGS) $(SANITIZE) $(LINK)

build/syscalls/%: tests/syscalls/%.c $(NEEDS)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(C_FLAGS) $(LINK)

build/instructions: tests/instructions/workload.c $(NEEDS)
	@mkdir -p $(@D)
	$(CC) -std=c99 $(C_FLAGS) $(LINK)

build/tests/throw: tests/c/throw.cpp $(NEEDS)
	@mkdir -p $(@D)
	$(CXX) -std=c++11 -Iinclude $(CXXFLAGS) -Wall -Wextra -Wpedantic -Werror $(LINK)

include tests/cpp/rules.mk
