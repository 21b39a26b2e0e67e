// The callables that are accepted, their arguments, and that each is destroyed exactly once, in whichever way a thing ends.
#include "check.hpp"

#include <array>
#include <csignal>
#include <functional>
#include <memory>

// ---- accepted callables ----

static void function(LoopRef loop)
{
    CHECK_TRUE(loop.is_running());
    trace_add("f");
}

static void a_callable_gets_the_loop_or_not()
{
    Loop loop;
    const auto generic = [&](auto... rest) { CHECK(sizeof...(rest), ==, 1); };

    loop.call_soon([] { trace_add("a"); });
    loop.call_soon([&](LoopRef ref) {
        CHECK_POINTER(ref.get(), loop.get());
        CHECK_POINTER(LoopRef::running().get(), loop.get());
        trace_add("b");
    });
    loop.call_soon(function);
    loop.call_soon(generic);
    loop.call_soon(std::function<void()>([] { trace_add("s"); }));
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK_TEXT(trace, "abfs");
    CHECK_TRUE(!LoopRef::running());
}

static void what_can_only_be_moved_is_moved_in()
{
    Loop loop;
    auto number = std::make_unique<int>(7);
    int seen = 0;

    loop.call_soon([number = std::move(number), &seen] { seen = *number; });
    CHECK_TRUE(!number);
    loop.run();
    CHECK(seen, ==, 7);
}

static void an_lvalue_is_copied()
{
    Loop loop;
    auto token = std::make_shared<int>(0);
    const auto callable = [token] { ++*token; };

    loop.call_soon(callable);
    loop.call_soon(callable);
    CHECK(token.use_count(), ==, 4);
    loop.run();
    CHECK(token.use_count(), ==, 2);
    CHECK(*token, ==, 2);
}

static void a_mutable_callable_keeps_its_state()
{
    Loop loop = virtual_loop();
    int last = 0;

    loop.call_every(1ms, [n = 0, &last](LoopRef ref) mutable {
        last = ++n;
        if (n == 5) ref.cancel(ref.current());
    });
    // This callable is as small as a pointer: a copy of it passed as `arg` would lose its count.
    loop.call_every(1ms, [n = 0](LoopRef ref) mutable {
        if (++n == 3) ref.cancel(ref.current());
    });
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(last, ==, 5);
    CHECK(loop.time().time_since_epoch() / 1ms, ==, 5);
}

struct alignas(64) Aligned {
    std::array<char, 64> bytes = {};
    void operator()() const { CHECK(reinterpret_cast<uintptr_t>(this) % 64, ==, 0); }
};

static void an_alignment_is_kept()
{
    Loop loop;

    loop.call_soon(Aligned());
    loop.call_later(1ns, Aligned());
    loop.run();
}

// ---- cost ----

static void a_small_callable_allocates_nothing()
{
    Loop loop;
    int count = 0;

    for (int i = 0; i < 100; i++)
        loop.call_soon([&count] { count++; });
    loop.run();
    const long before = allocations;
    for (int i = 0; i < 100; i++)
        loop.call_soon([&count] { count++; });
    loop.run();
    CHECK(allocations, ==, before);
    CHECK(count, ==, 200);
    loop.call_soon([&count, i = 1] { count += i; });
    CHECK(allocations, ==, before + 1);
}

// ---- destroyed exactly once ----

static void it_is_destroyed_after_its_last_call()
{
    Loop loop = virtual_loop();
    auto token = std::make_shared<int>(0);

    loop.call_soon([token] { CHECK(token.use_count(), ==, 4); });
    loop.call_later(1ms, [token] { CHECK(token.use_count(), ==, 3); });
    loop.call_every(2ms, [token](LoopRef ref) {
        CHECK(token.use_count(), ==, 2);
        ref.cancel(ref.current());
        CHECK(token.use_count(), ==, 2);
    });
    CHECK(token.use_count(), ==, 4);
    loop.run();
    CHECK(token.use_count(), ==, 1);
}

static void it_is_destroyed_when_cancelled()
{
    Loop loop;
    auto token = std::make_shared<int>(0);
    const loop_handle_t handle = loop.call_later(1h, [token] {});

    CHECK_TRUE(loop.is_pending(handle));
    CHECK_TRUE(loop.cancel(handle));
    CHECK(token.use_count(), ==, 1);
    CHECK_TRUE(!loop.cancel(handle));
}

static void it_is_destroyed_when_the_loop_is_closed()
{
    auto token = std::make_shared<int>(0);
    {
        Loop loop;
        loop.call_soon([token] { never(); });
        loop.call_every(1ms, [token] { never(); });
        loop.start(loop_add_hook, uint32_t(LOOP_BEFORE_WAIT), [token] { never(); });
        loop.add_signal_handler(SIGUSR1, [token](int) { never(); });
        loop.remote().call_soon([token] { never(); });
        CHECK(token.use_count(), ==, 6);
    }
    CHECK(token.use_count(), ==, 1);
}

static void it_is_destroyed_when_it_was_refused()
{
    Loop loop;
    auto token = std::make_shared<int>(0);

    CHECK_THROWS(EINVAL, loop.start(loop_recv, 0, nullptr, 5, 0, [token](int32_t, uint32_t) {}));
    CHECK_THROWS(EINVAL, loop.call_every(0ns, [token] {}));
    loop.shutdown();
    CHECK_THROWS(ESHUTDOWN, loop.call_soon([token] {}));
    CHECK_THROWS(ESHUTDOWN, loop.run_in_executor([token] {}, [token](Outcome<void>) {}));
    CHECK_THROWS(ESHUTDOWN, Handle(loop, loop_call_later, 1s, [token] {}));
    CHECK(token.use_count(), ==, 1);
}

static void it_is_destroyed_when_its_hook_is_refused()
{
    Loop loop;
    Pair pair;
    auto token = std::make_shared<int>(0);

    CHECK_THROWS(EINVAL, loop.call_every(0ns, [token] { never(); }));
    refuse_hooks = true;
    CHECK_THROWS(ENOMEM, loop.call_soon([token] { never(); }));
    CHECK_THROWS(ENOMEM, loop.call_every(1ns, [token] { never(); }));
    CHECK_THROWS(ENOMEM, Handle(loop, loop_call_later, 1ns, [token] { never(); }));
    CHECK_THROWS(ENOMEM, loop.watch_fd(pair[0], POLLOUT, [token](int, uint32_t) { never(); }));
    CHECK_THROWS(ENOMEM, loop.add_signal_handler(SIGUSR1, [token](int) { never(); }));
    // The error's sentence is about the refused hook, not about the library's test that this is no operation.
    try {
        loop.watch_fd(pair[0], POLLOUT, [token](int, uint32_t) { never(); });
    } catch (const std::system_error &error) {
        CHECK_TRUE(!strstr(error.what(), "operation"));
    }
    refuse_hooks = false;
    CHECK(token.use_count(), ==, 1);
    CHECK(loop.run(), ==, LOOP_DONE);
}

// The kernel may use the operation's buffer, so the operation continues.
static void an_operation_whose_hook_is_refused_ends_as_usual()
{
    Loop loop;
    Pair pair;
    auto token = std::make_shared<int>(0);
    char buffer[8];
    int calls = 0;

    refuse_hooks = true;
    loop.start(loop_recv, pair[0], buffer, sizeof buffer, 0, [&, token](int32_t result, uint32_t) {
        CHECK(result, ==, 3);
        calls++;
    });
    Handle handle(loop, loop_accept_multi, pair[0], 0, [&, token](int32_t result, uint32_t) {
        CHECK(result, <, 0);
        calls++;
    });
    refuse_hooks = false;
    CHECK(write(pair[1], "abc", 3), ==, 3);
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(calls, ==, 2);
    CHECK(token.use_count(), ==, 1);
    CHECK_TRUE(!handle);
}

static void work_whose_hook_is_refused_ends_as_usual()
{
    Loop loop;
    auto token = std::make_shared<int>(0);
    int value = 0;

    refuse_hooks = true;
    loop.run_in_executor([token] { return 5; }, [&](Outcome<int> outcome) { value = outcome.get(); });
    refuse_hooks = false;
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(value, ==, 5);
    CHECK(token.use_count(), ==, 1);
}

// A destructor may call any function of the loop, as a release hook may.
static void a_destructor_may_schedule()
{
    struct Last {
        LoopRef loop;
        ~Last() { loop.call_soon([] { trace_add("z"); }); }
    };
    Loop loop;

    loop.call_soon([last = std::make_unique<Last>(Last{loop})] { trace_add("a"); });
    trace_clear();
    loop.run();
    CHECK_TRUE(strchr(trace, 'a') && trace[strlen(trace) - 1] == 'z');
}

static const check_test tests[] = {
    TEST(a_callable_gets_the_loop_or_not),
    TEST(what_can_only_be_moved_is_moved_in),
    TEST(an_lvalue_is_copied),
    TEST(a_mutable_callable_keeps_its_state),
    TEST(an_alignment_is_kept),
    TEST(a_small_callable_allocates_nothing),
    TEST(it_is_destroyed_after_its_last_call),
    TEST(it_is_destroyed_when_cancelled),
    TEST(it_is_destroyed_when_the_loop_is_closed),
    TEST(it_is_destroyed_when_it_was_refused),
    TEST(it_is_destroyed_when_its_hook_is_refused),
    TEST(an_operation_whose_hook_is_refused_ends_as_usual),
    TEST_NOT_UNDER("valgrind", work_whose_hook_is_refused_ends_as_usual, "no other thread runs while one is in io_uring_enter()"),
    TEST(a_destructor_may_schedule),
};

CHECK_MAIN(tests)
