# Makes the manual pages from the header, in build/man.

build/man/man7/ringloop.7: build/man-pages include/ringloop.h docs/man/ringloop.7.in docs/man/first.c CHANGELOG.md
	build/man-pages include/ringloop.h docs/man/ringloop.7.in build/man

# rustc builds the program, which is not part of a crate.
build/man-pages: $(wildcard docs/man/*.rs)
	@mkdir -p $(@D)
	rustc --edition 2024 docs/man/main.rs -o $@
