// Shared by the tests of ringloop.hpp, on top of the harness of the C tests.
#ifndef RINGLOOP_TESTS_CHECK_HPP
#define RINGLOOP_TESTS_CHECK_HPP

#include <ringloop.hpp>

#include "../c/check.h"

#include <cstdlib>
#include <sys/socket.h>

using namespace ringloop;
using namespace std::chrono_literals;

// The program is linked with --wrap=loop_on_release, so that tests can refuse a hook as when there is no memory.
static bool refuse_hooks;

extern "C" int __real_loop_on_release(loop_t *loop, loop_handle_t handle, loop_release_t release);
extern "C" int __wrap_loop_on_release(loop_t *loop, loop_handle_t handle, loop_release_t release);

int __wrap_loop_on_release(loop_t *loop, loop_handle_t handle, loop_release_t release)
{
    return refuse_hooks ? -ENOMEM : __real_loop_on_release(loop, handle, release);
}

// A deadline is refused memory then, too; other errors of the call come first.
extern "C" int __real_loop_set_deadline(loop_t *loop, loop_handle_t handle, uint64_t when_ns);
extern "C" int __wrap_loop_set_deadline(loop_t *loop, loop_handle_t handle, uint64_t when_ns);

int __wrap_loop_set_deadline(loop_t *loop, loop_handle_t handle, uint64_t when_ns)
{
    const int answer = __real_loop_set_deadline(loop, handle, when_ns);

    return refuse_hooks && answer == 0 ? -ENOMEM : answer;
}

// The program is linked with --wrap=_Znwm, which is operator new, to count its calls.
static long allocations;

extern "C" void *__real__Znwm(std::size_t size);
extern "C" void *__wrap__Znwm(std::size_t size);

void *__wrap__Znwm(std::size_t size)
{
    allocations++;
    return __real__Znwm(size);
}

// Checks that the statement throws std::system_error with this errno.
#define CHECK_THROWS(error, ...)                                                                                       \
    do {                                                                                                               \
        int check_thrown = 0;                                                                                          \
        try {                                                                                                          \
            __VA_ARGS__;                                                                                               \
        } catch (const std::system_error &check_caught) {                                                              \
            check_thrown = check_caught.code().value();                                                                \
            CHECK_TRUE(check_caught.code().category() == std::generic_category());                                     \
        }                                                                                                              \
        CHECK(check_thrown, ==, error);                                                                                \
    } while (0)

// The body of a callable that must not be called.
static inline void never()
{
    CHECK_TEXT("called", "not called");
}

// A connected pair of stream sockets.
class Pair {
public:
    explicit Pair(int flags = 0) { REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0, ends_), ==, 0); }
    Pair(const Pair &) = delete;
    Pair &operator=(const Pair &) = delete;
    ~Pair()
    {
        ::close(ends_[0]);
        ::close(ends_[1]);
    }
    int operator[](int end) const { return ends_[end]; }

private:
    int ends_[2] = {-1, -1};
};

static inline Loop virtual_loop()
{
    Options options;

    options.flags = LOOP_VIRTUAL_TIME;
    return Loop(options);
}

#endif
