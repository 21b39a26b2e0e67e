// An exception that a callback throws leaves the run that called it, and nothing is lost.
#include "check.hpp"

#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>

static_assert(std::is_nothrow_destructible_v<Loop> && std::is_nothrow_destructible_v<Handle>);
static_assert(std::is_nothrow_move_constructible_v<Loop> && std::is_nothrow_move_assignable_v<Loop>);
static_assert(std::is_nothrow_move_constructible_v<Handle> && std::is_nothrow_move_assignable_v<Handle>);

// Runs, and returns the text of the exception; "" without an exception.
template <class Run>
static std::string thrown_by(Run &&run)
{
    try {
        run();
    } catch (const std::runtime_error &error) {
        return error.what();
    }
    return "";
}

[[noreturn]] static void fail(const char *what)
{
    throw std::logic_error(what);
}

static std::string logic_error_of(LoopRef loop)
{
    try {
        loop.run();
    } catch (const std::logic_error &error) {
        return error.what();
    }
    return "";
}

static void an_exception_comes_out_of_its_run()
{
    Loop loop;
    int way = 0;

    for (auto run : {+[](LoopRef ref) { ref.run(); }, +[](LoopRef ref) { ref.run_forever(); },
                     +[](LoopRef ref) { ref.run_once(0ns); }, +[](LoopRef ref) { ref.run_once(); }}) {
        loop.call_soon([] { throw std::runtime_error("thrown"); });
        CHECK_TEXT(thrown_by([&] { run(loop); }).c_str(), "thrown");
        CHECK_TRUE(!loop.is_running());
        way++;
    }
    CHECK(way, ==, 4);
}

static void the_rest_of_the_batch_stays_first_in_line()
{
    Loop loop;

    trace_clear();
    loop.call_soon([](LoopRef ref) {
        trace_add("a");
        ref.call_soon([] { trace_add("d"); });
        throw std::runtime_error("b");
    });
    loop.call_soon([] { trace_add("c"); });
    CHECK_TEXT(thrown_by([&] { loop.run(); }).c_str(), "b");
    CHECK_TEXT(trace, "a");
    CHECK_TEXT(thrown_by([&] { loop.run(); }).c_str(), "");
    CHECK_TEXT(trace, "acd");
}

static void a_repeating_timer_that_throws_goes_on()
{
    Loop loop = virtual_loop();
    int calls = 0;
    Handle timer(loop, loop_call_every, 1ms, [&] {
        if (++calls < 3) fail("tick");
    });

    CHECK_TEXT(logic_error_of(loop).c_str(), "tick");
    CHECK_TEXT(logic_error_of(loop).c_str(), "tick");
    CHECK(loop.run_once(), ==, 1);
    CHECK(calls, ==, 3);
}

static void the_innermost_run_throws()
{
    Loop outer, inner;

    trace_clear();
    inner.call_soon([] { throw std::runtime_error("inner"); });
    outer.call_soon([&] {
        CHECK_TEXT(thrown_by([&] { inner.run(); }).c_str(), "inner");
        trace_add("i");
    });
    outer.call_soon([&] {
        inner.call_soon([] { throw std::runtime_error("through"); });
        inner.run();
    });
    CHECK_TEXT(thrown_by([&] { outer.run(); }).c_str(), "through");
    CHECK_TEXT(trace, "i");
}

// Callbacks of every kind, in one loop.
static void all_kinds_of_callbacks_may_throw()
{
    Loop loop;
    Pair pair;
    char buffer[4];
    const auto thrower = [](auto &&...) { throw std::runtime_error("thrown"); };
    const auto expect = [&] {
        CHECK_TEXT(thrown_by([&] { loop.run_forever(); }).c_str(), "thrown");
    };

    loop.call_later(1ns, thrower);
    expect();
    loop.start(loop_recv, pair[0], buffer, sizeof buffer, 0, thrower);
    loop.start(loop_send, pair[1], "abc", 3, 0, [](int32_t, uint32_t) {});
    expect();
    {
        Handle watcher(loop, loop_watch_fd, pair[0], POLLOUT, thrower);
        expect();
        expect();
    }
    {
        Handle hook(loop, loop_add_hook, LOOP_BEFORE_WAIT, thrower);
        expect();
    }
    {
        Handle handler(loop, loop_add_signal_handler, SIGUSR1, thrower);
        raise(SIGUSR1);
        expect();
    }
    const pid_t child = fork();
    if (child == 0) _exit(0);
    loop.watch_child(child, thrower);
    expect();
    loop.run_in_executor([] {}, thrower);
    expect();
    loop.getaddrinfo("127.0.0.1", nullptr, nullptr, thrower);
    expect();
    loop.remote().call_soon(thrower);
    expect();
    CHECK(loop.run(), ==, LOOP_DONE);
}

static void what_work_throws_comes_to_its_outcome()
{
    Loop loop;

    trace_clear();
    loop.run_in_executor([]() -> int { throw std::runtime_error("work"); },
                         [](Outcome<int> outcome) {
                             CHECK(outcome.status(), ==, 0);
                             CHECK_TRUE(outcome.error() != nullptr);
                             CHECK_TEXT(thrown_by([&] { outcome.get(); }).c_str(), "work");
                             trace_add("a");
                         });
    // An exception that the callable lets through leaves the run.
    loop.run_in_executor([] { throw std::runtime_error("through"); }, [](Outcome<void> outcome) { outcome.get(); });
    CHECK_TEXT(thrown_by([&] {
                   loop.run();
                   loop.run();
               }).c_str(),
               "through");
    loop.run();
    CHECK_TEXT(trace, "a");

    // The error's sentence is not that of an earlier error.
    CHECK_THROWS(EINVAL, loop.call_every(0ns, [] {}));
    Outcome<int> none;
    for (int i = 0; i < 5; i++) {
        const loop_handle_t work = loop.run_in_executor([] { return usleep(20000); },
                                                        [&](Outcome<int> outcome) { none = std::move(outcome); });
        if (i == 4) loop.cancel(work);
    }
    while (loop.is_alive() && none.status() == 0) loop.run_once();
    CHECK(none.status(), ==, -ECANCELED);
    CHECK_TRUE(thrown_by([&] { none.get(); }).find("the work was cancelled, and never ran: ") == 0);
    loop.run();
}

static void what_a_walk_throws_ends_the_walk()
{
    Loop loop;
    int shown = 0;

    loop.call_soon([] {});
    loop.call_soon([] {});
    CHECK_TEXT(thrown_by([&] {
                   loop.walk([&](const loop_info_t &info) {
                       CHECK(info.kind, ==, LOOP_KIND_CALL);
                       shown++;
                       throw std::runtime_error("walk");
                   });
               }).c_str(),
               "walk");
    CHECK(shown, ==, 1);
    loop.walk([&](LoopRef, const loop_info_t &) { shown++; });
    CHECK(shown, ==, 3);
}

static void shutdown_throws_when_all_have_ended()
{
    Loop loop;
    Pair one, two;
    char buffers[2][4];
    int ended = 0;

    for (int i = 0; i < 2; i++)
        loop.start(loop_recv, i ? one[0] : two[0], buffers[i], 4, 0, [&](int32_t result, uint32_t) {
            CHECK(result, ==, -ECANCELED);
            ended++;
            throw std::runtime_error("ended");
        });
    loop.run_once(0ns);
    CHECK_TEXT(thrown_by([&] { loop.shutdown(); }).c_str(), "ended");
    CHECK(ended, ==, 2);
}

static void s48_shutdown_within_counts_what_it_cancels()
{
    for (const bool ends : {true, false}) {
        Loop loop;
        int calls = 0;

        loop.call_later(2ms, [&] { calls++; });
        if (!ends) loop.call_later(1h, [&] { calls++; });
        CHECK(loop.shutdown_within(ends ? Clock::duration::max() : Clock::duration(20ms)), ==, ends ? 0 : 1);
        CHECK(calls, ==, 1);
        CHECK_THROWS(ESHUTDOWN, loop.call_soon([] {}));
    }
    Loop loop;
    loop.call_soon([] { throw std::runtime_error("on the way"); });
    CHECK_TEXT(thrown_by([&] { loop.shutdown_within(1s); }).c_str(), "on the way");
}

static void an_error_is_an_errno_and_a_sentence()
{
    Loop loop;

    loop.call_soon([](LoopRef ref) { CHECK_THROWS(EBUSY, ref.run()); });
    loop.run();
    CHECK_THROWS(EINVAL, loop.break_());
    std::thread([&] { CHECK_THROWS(EPERM, loop.call_soon([] {})); }).join();
    try {
        loop.call_every(0ns, [] {});
        CHECK_TEXT("nothing", "thrown");
    } catch (const std::system_error &error) {
        CHECK_TRUE(error.code() == std::errc::invalid_argument);
        CHECK_TRUE(std::string(error.what()).find(loop_last_error()) == 0);
        CHECK_TRUE(loop_last_error()[0] != '\0');
    }
    Options options;
    options.sq_entries = 1000000;
    CHECK_THROWS(EINVAL, Loop{options});
    CHECK_TRUE(error_of(-ECONNRESET) == std::errc::connection_reset);
    CHECK_TRUE(!error_of(5));
}

// ---- no run of the header to throw to ----

static void without_a_run_of_the_header()
{
    Loop loop;

    loop.call_soon([] { throw std::runtime_error("nobody takes it"); });
    loop_run(loop.get());
}

// The run of the header that is on the stack belongs to another loop.
static void in_a_run_of_c_inside()
{
    Loop outer, inner;

    inner.call_soon([] { throw std::runtime_error("nobody takes it"); });
    outer.call_soon([&] { loop_run(inner.get()); });
    thrown_by([&] { outer.run(); });
}

static void in_a_destructor()
{
    struct Thrower {
        ~Thrower() noexcept(false) { throw std::runtime_error("nobody takes it"); }
    };
    Loop loop;

    loop.call_soon([last = std::make_shared<Thrower>()] {});
    loop.run();
}

template <void (*body)()>
static int die()
{
    body();
    return 5;
}

static const check_child children[] = {
    {"without_a_run", die<without_a_run_of_the_header>},
    {"in_a_run_of_c_inside", die<in_a_run_of_c_inside>},
    {"in_a_destructor", die<in_a_destructor>},
};

static void without_a_run_to_throw_it_ends_the_program()
{
    for (const check_child &child : children) {
        char text[4096];
        const int status = check_spawn_self(child.name, nullptr, text, sizeof text);

        CHECK_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        CHECK_TRUE(strstr(text, "nobody takes it"));
    }
}

static const check_test tests[] = {
    TEST(an_exception_comes_out_of_its_run),
    TEST(the_rest_of_the_batch_stays_first_in_line),
    TEST(a_repeating_timer_that_throws_goes_on),
    TEST(the_innermost_run_throws),
    TEST_NOT_UNDER("valgrind", all_kinds_of_callbacks_may_throw, "no other thread runs while one is in io_uring_enter()"),
    TEST_NOT_UNDER("valgrind", what_work_throws_comes_to_its_outcome, "no other thread runs while one is in io_uring_enter()"),
    TEST(what_a_walk_throws_ends_the_walk),
    TEST(shutdown_throws_when_all_have_ended),
    TEST(s48_shutdown_within_counts_what_it_cancels),
    TEST(an_error_is_an_errno_and_a_sentence),
    TEST(without_a_run_to_throw_it_ends_the_program),
};

int main(int argc, char **argv)
{
    const int child = check_child_main(argc, argv, children, sizeof children / sizeof children[0]);

    return child >= 0 ? child : check_run(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
