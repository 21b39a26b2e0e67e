# Builds the tests and examples of ringloop.hpp with two compilers and two standards, with and without sanitizers:
# build/cpp/KIND/NAME, build/cpp/KIND/example-NAME. `make cpp-tests-KIND` builds all programs of a kind.

CLANGXX ?= clang++
CPP_TESTS := $(patsubst tests/cpp/%.cpp,%,$(sort $(wildcard tests/cpp/*.cpp)))
CPP_EXAMPLES := $(patsubst cpp-examples/%.cpp,example-%,$(sort $(wildcard cpp-examples/*.cpp)))
CPP_KINDS := g++ clang++ asan-g++ asan-clang++
CPP_FLAGS := -Iinclude $(CXXFLAGS) -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror

CPP_g++ := $(CXX) -std=c++17
CPP_clang++ := $(CLANGXX) -std=c++20
# Without optimization the programs compile three times as fast.
CPP_asan-g++ := $(CPP_g++) $(SANITIZE)
CPP_asan-clang++ := $(CPP_clang++) $(SANITIZE)
CPP_OPTIMIZE_asan-g++ := -O0
CPP_OPTIMIZE_asan-clang++ := -O0

CPP_NEEDS := include/ringloop.hpp include/ringloop.h $(LIBRARY) build/native-libs tests/cpp/rules.mk

# With these wrappers the tests can make loop_on_release() and loop_set_deadline() fail, and count allocations.
comma := ,
CPP_WRAP = $(if $(filter without_exceptions,$*),-fno-exceptions,-Wl$(comma)--wrap=loop_on_release$(comma)--wrap=loop_set_deadline$(comma)--wrap=_Znwm)

define cpp_kind
.PHONY: cpp-tests-$(1)
cpp-tests-$(1): $(CPP_TESTS:%=build/cpp/$(1)/%) $(CPP_EXAMPLES:%=build/cpp/$(1)/%)

build/cpp/$(1)/example-%: cpp-examples/%.cpp $$(CPP_NEEDS)
	@mkdir -p $$(@D)
	$$(CPP_$(1)) $$(CPP_FLAGS) $$(CPP_OPTIMIZE_$(1)) $$(LDFLAGS) $$< $$(LIBRARY) $$(NATIVE_LIBS) -o $$@

build/cpp/$(1)/%: tests/cpp/%.cpp tests/cpp/check.hpp tests/c/check.h $$(CPP_NEEDS)
	@mkdir -p $$(@D)
	$$(CPP_$(1)) $$(CPP_FLAGS) $$(CPP_OPTIMIZE_$(1)) $$(CPP_WRAP) $$(LDFLAGS) $$< $$(LIBRARY) $$(NATIVE_LIBS) -o $$@
endef

$(foreach kind,$(CPP_KINDS),$(eval $(call cpp_kind,$(kind))))
