// Durations and time points: never early, never wrapped around.
#include "check.hpp"

#include <cmath>
#include <limits>
#include <ratio>

using std::chrono::duration;
using seconds_of_double = duration<double>;

// ---- checks at compile time ----

static_assert(to_ns(1500ms) == 1500000000u);
static_assert(to_ns(std::chrono::hours(1)) == LOOP_SEC(3600));
static_assert(to_ns(0s) == 0 && to_ns(-1ns) == 0 && to_ns(-1h) == 0);
static_assert(to_ns(duration<int64_t, std::pico>(1)) == 1);
static_assert(to_ns(duration<int64_t, std::pico>(2000)) == 2);
static_assert(to_ns(duration<int64_t, std::pico>(2001)) == 3);
static_assert(to_ns(duration<unsigned, std::micro>(7)) == 7000);
static_assert(to_ns(seconds_of_double(0.1)) == 100000000);
static_assert(to_ns(duration<double, std::nano>(2.25)) == 3);
static_assert(to_ns(duration<float, std::milli>(0.5f)) == 500000);
static_assert(to_ns(duration<long double, std::nano>(0.001L)) == 1);
static_assert(to_ns(seconds_of_double(-0.5)) == 0);
static_assert(to_ns(seconds_of_double(1e300)) == LOOP_NEVER);
static_assert(to_ns(std::chrono::hours::max()) == LOOP_NEVER && to_ns(std::chrono::hours::min()) == 0);
static_assert(to_ns(std::chrono::nanoseconds::max()) == LOOP_NEVER);
static_assert(to_ns(std::chrono::nanoseconds(9199999999999999999)) == 9199999999999999999u);
static_assert(to_ns(duration<uint64_t, std::nano>(UINT64_MAX)) == LOOP_NEVER);
static_assert(to_ns(Clock::time_point::max()) == LOOP_NEVER);
static_assert(to_ns(Clock::time_point(5s)) == LOOP_SEC(5) && to_ns(Clock::time_point(-5s)) == 0);
static_assert(to_time(LOOP_SEC(5)) == Clock::time_point(5s));
static_assert(to_time(LOOP_NEVER) == Clock::time_point::max() && to_time(UINT64_C(1) << 63) == Clock::time_point::max());

static void no_number_counts_as_0()
{
    CHECK(to_ns(seconds_of_double(std::nan(""))), ==, 0);
    CHECK(to_ns(seconds_of_double(std::numeric_limits<double>::infinity())), ==, LOOP_NEVER);
    CHECK(to_ns(seconds_of_double(-std::numeric_limits<double>::infinity())), ==, 0);
}

static void the_clock_is_that_of_steady_clock()
{
    Loop loop;
    const auto before = Clock::now(), time = loop.time(), after = Clock::now();

    CHECK_TRUE(before <= time && time <= after);
}

// Durations of every unit are rounded up.
static void nothing_is_early()
{
    Loop loop = virtual_loop();
    int calls = 0;
    const auto at_least = [&](auto delay) {
        const auto start = loop.time();
        loop.call_later(delay, [&, start, delay] {
            CHECK_TRUE(loop.time() - start >= delay);
            CHECK_TRUE(loop.time() - start - delay < 1us);
            calls++;
        });
    };

    at_least(1ms);
    at_least(seconds_of_double(1.0 / 3));
    at_least(duration<float>(1.0f / 3));
    at_least(duration<double, std::milli>(0.0000001));
    at_least(duration<int, std::ratio<1, 3>>(1));
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(calls, ==, 5);
}

static void call_at_takes_time_points()
{
    Loop loop = virtual_loop();

    trace_clear();
    loop.call_at(loop.time() + 20ms, [] { trace_add("b"); });
    loop.call_at(loop.time() + seconds_of_double(0.01), [] { trace_add("a"); });
    loop.call_at(Clock::time_point::min(), [] { trace_add("p"); });
    const loop_handle_t never_due = loop.call_at(Clock::time_point::max(), [] { never(); });
    CHECK_TRUE(loop.when(never_due) == Clock::time_point::max());
    CHECK_TRUE(loop.next_deadline() <= loop.time());
    loop.unref(never_due);
    loop.run();
    CHECK_TEXT(trace, "pab");
    CHECK(to_ns(loop.time()), ==, LOOP_MSEC(20));
    CHECK_TRUE(loop.next_deadline() == Clock::time_point::max());
}

static void huge_delays_saturate()
{
    Loop loop;
    const loop_handle_t timer = loop.call_later(std::chrono::hours::max(), [] { never(); });

    CHECK_TRUE(loop.when(timer) == Clock::time_point::max());
    loop.reschedule(timer, 1h);
    CHECK_TRUE(loop.when(timer) < loop.time() + 2h);
    loop.reschedule(timer, std::chrono::hours::max());
    CHECK_TRUE(loop.when(timer) == Clock::time_point::max());
    CHECK(loop.run_once(-5s), ==, 0);
}

static const check_test tests[] = {
    TEST(no_number_counts_as_0), TEST(the_clock_is_that_of_steady_clock), TEST(nothing_is_early),
    TEST(call_at_takes_time_points), TEST(huge_delays_saturate),
};

CHECK_MAIN(tests)
