// With -fno-exceptions, errors are returned as in C. The test does without check.hpp, which needs exceptions.
#include <ringloop.hpp>

#include <cerrno>
#include <cstdio>
#include <memory>

using namespace ringloop;
using namespace std::chrono_literals;

#ifdef __cpp_exceptions
#error "compile this with -fno-exceptions"
#endif

static int failed;

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition);                         \
            failed++;                                                                                                  \
        }                                                                                                              \
    } while (0)

static void errors_are_returned()
{
    Loop loop;
    auto token = std::make_shared<int>(0);

    EXPECT(loop.break_() == -EINVAL);
    EXPECT(loop.call_every(0s, [token] {}) == -EINVAL);
    EXPECT(loop.reschedule(4711, 1s) == -ENOENT);
    EXPECT(!loop.cancel(4711));
    EXPECT(loop.shutdown() == 0);
    EXPECT(loop.call_soon([token] {}) == -ESHUTDOWN);
    EXPECT(!Handle(loop, loop_call_soon, [token] {}));
    EXPECT(loop.run() == -ESHUTDOWN);
    EXPECT(!loop.remote().call_soon([token] {}));
    EXPECT(token.use_count() == 1);
}

static void a_loop_that_cannot_be_made_is_empty()
{
    Options options;

    options.sq_entries = 1000000;
    EXPECT(!Loop(options));
    EXPECT(loop_last_error()[0] != '\0');
}

static void everything_else_is_as_ever()
{
    Loop loop;
    auto token = std::make_shared<int>(0);
    int calls = 0;

    loop.call_soon([&, token] { calls++; });
    loop.run_in_executor([token] { return 5; }, [&, token](Outcome<int> outcome) { calls += outcome.get(); });
    loop.remote().call_later(1ms, [&, token] { calls++; });
    EXPECT(loop.run() == LOOP_DONE);
    EXPECT(calls == 7);
    EXPECT(token.use_count() == 1);
}


int main()
{
    errors_are_returned();
    a_loop_that_cannot_be_made_is_empty();
    everything_else_is_as_ever();
    std::printf("%s\n", failed ? "FAILED" : "ok");
    return failed != 0;
}
