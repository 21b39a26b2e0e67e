# Builds the examples in C: build/examples/NAME.

# Clients of servers. A client is built only if its library is installed.
CLIENTS := curl redis postgres resolve
PACKAGE_curl := libcurl
PACKAGE_redis := hiredis
PACKAGE_postgres := libpq
PACKAGE_resolve := libcares
CLIENTS_THERE := $(foreach client,$(CLIENTS),$(shell pkg-config --exists $(PACKAGE_$(client)) 2>/dev/null && echo $(client)))
PACKAGE_FLAGS = $(if $(PACKAGE_$*),$$(pkg-config --cflags --libs $(PACKAGE_$*)))
EXAMPLES := $(filter-out $(CLIENTS),$(patsubst c-examples/%.c,%,$(sort $(wildcard c-examples/*.c))))

build/examples/redis: c-examples/ringloop_hiredis.h

build/examples/%: c-examples/%.c include/ringloop.h $(LIBRARY) build/native-libs
	@mkdir -p $(@D)
	$(CC) -std=c99 $(C_FLAGS) $(LDFLAGS) $< $(LIBRARY) $(PACKAGE_FLAGS) $(NATIVE_LIBS) -o $@
