/* S1 to S4: the clock, and what a deadline means. */
#include "check.h"

#include <pthread.h>

static void s01_time_is_clock_monotonic(void)
{
    loop_t *loop = new_loop();

    for (int i = 0; i < 1000; i++) {
        uint64_t before = monotonic();
        uint64_t time = loop_time(loop);
        uint64_t after = monotonic();

        CHECK(time, >=, before);
        CHECK(time, <=, after);
    }
    close_loop(loop);
}

static void s01_time_needs_no_loop(void)
{
    uint64_t before = monotonic();
    uint64_t time = loop_time(NULL);

    CHECK(time, >=, before);
    CHECK(time, <=, monotonic());
}

static void see_time_pass(loop_t *loop, void *arg)
{
    uint64_t begin = loop_time(loop);

    (void)arg;
    busy_wait(LOOP_USEC(200));
    CHECK(loop_time(loop) - begin, >=, LOOP_USEC(200));
}

static void s01_time_is_not_cached_in_a_callback(void)
{
    loop_t *loop = new_loop();

    CHECK(loop_call_soon(loop, see_time_pass, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_loop(loop);
}

static void *read_time(void *loop)
{
    uint64_t before = monotonic();
    uint64_t time = loop_time(loop);

    CHECK(time, >=, before);
    CHECK(time, <=, monotonic());
    return NULL;
}

static void s01_time_from_another_thread(void)
{
    loop_t *loop = new_loop();
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, read_time, loop), ==, 0);
    pthread_join(thread, NULL);
    close_loop(loop);
}

enum { MANY = 2000 };

static uint64_t deadlines[MANY];
static int early, fired;

static void never_early(loop_t *loop, void *arg)
{
    const uint64_t *when = arg;

    early += loop_time(loop) < *when;
    fired++;
}

static void s02_no_timer_runs_early(void)
{
    loop_t *loop = new_loop();
    uint64_t random = 12345;

    early = fired = 0;
    for (int i = 0; i < MANY; i++) {
        random = random * UINT64_C(6364136223846793005) + 1;
        deadlines[i] = loop_time(loop) + (random >> 33) % LOOP_MSEC(30);
        CHECK(loop_call_at(loop, deadlines[i], never_early, &deadlines[i]), >, 0);
    }
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(fired, ==, MANY);
    CHECK(early, ==, 0);
    close_loop(loop);
}

/* One timer at a time, so that each one ends a sleep of the kernel's. */
static void s02_no_sleep_ends_early(void)
{
    loop_t *loop = new_loop();

    early = fired = 0;
    for (int i = 0; i < 200; i++) {
        deadlines[0] = loop_time(loop) + LOOP_USEC(i);
        CHECK(loop_call_at(loop, deadlines[0], never_early, &deadlines[0]), >, 0);
        CHECK(loop_run(loop), ==, LOOP_DONE);
    }
    CHECK(fired, ==, 200);
    CHECK(early, ==, 0);
    close_loop(loop);
}

static void s03_delays_are_kept_to_the_nanosecond(void)
{
    static const uint64_t delays[] = {1, 999, LOOP_USEC(50), LOOP_USEC(1100), LOOP_MSEC(1) + 1, LOOP_SEC(3600) + 7};
    loop_t *loop = new_virtual_loop(LOOP_SEC(1));

    for (size_t i = 0; i < sizeof delays / sizeof delays[0]; i++) {
        uint64_t begin = loop_time(loop);

        CHECK(loop_call_later(loop, delays[i], do_nothing, NULL), >, 0);
        CHECK(loop_next_deadline(loop), ==, begin + delays[i]);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(loop_time(loop), ==, begin + delays[i]);
    }
    close_loop(loop);
}

static void s03_slack_gathers_timers_and_is_never_early(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    uint64_t now;
    loop_t *loop;

    options.slack_ns = LOOP_MSEC(200);
    REQUIRE(loop_new(&options, &loop), ==, 0);
    early = fired = 0;
    now = loop_time(loop);
    for (int i = 0; i < 4; i++) {
        deadlines[i] = i == 0 ? now : now + LOOP_MSEC(100 + 20 * i);
        CHECK(loop_call_at(loop, deadlines[i], never_early, &deadlines[i]), >, 0);
    }
    /*
     * The first is past already: it is due in the next iteration. The other three wait for each other: one sleep is for
     * all that are not due by then on a slow machine.
     */
    CHECK(loop_run_once(loop, LOOP_NEVER), >=, 1);
    CHECK(metrics_of(loop).enters, ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(metrics_of(loop).enters, <=, 1);
    CHECK(fired, ==, 4);
    CHECK(early, ==, 0);
    close_loop(loop);
}

static void s03_without_slack_timers_do_not_wait_for_each_other(void)
{
    loop_t *loop = new_virtual_loop(0);

    CHECK(loop_call_later(loop, 1, do_nothing, NULL), >, 0);
    CHECK(loop_call_later(loop, 2, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    close_loop(loop);
}

static void s04_call_later_counts_from_the_call(void)
{
    loop_t *loop = new_loop();
    uint64_t before = monotonic(), after, when = 0;
    loop_handle_t timer = loop_call_later(loop, LOOP_SEC(100), do_nothing, NULL);

    after = monotonic();
    CHECK(timer, >, 0);
    CHECK(loop_when(loop, timer, &when), ==, 0);
    CHECK(when, >=, before + LOOP_SEC(100));
    CHECK(when, <=, after + LOOP_SEC(100));
    close_loop(loop);
}

static void s04_call_later_saturates(void)
{
    loop_t *loop = new_virtual_loop(LOOP_SEC(5));
    uint64_t when = 0;
    loop_handle_t timer = loop_call_later(loop, UINT64_MAX, do_nothing, NULL);

    CHECK(timer, >, 0);
    CHECK(loop_when(loop, timer, &when), ==, 0);
    CHECK(when, ==, UINT64_MAX);
    timer = loop_call_later(loop, UINT64_MAX - LOOP_SEC(5), do_nothing, NULL);
    CHECK(loop_when(loop, timer, &when), ==, 0);
    CHECK(when, ==, UINT64_MAX);
    timer = loop_call_later(loop, UINT64_MAX - LOOP_SEC(5) - 1, do_nothing, NULL);
    CHECK(loop_when(loop, timer, &when), ==, 0);
    CHECK(when, ==, UINT64_MAX - 1);
    close_loop(loop);
}

static void s04_a_timer_at_the_end_of_time_is_pending_and_never_fires(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t timer = loop_call_at(loop, LOOP_NEVER, record, (void *)"n");

    trace_clear();
    CHECK(timer, >, 0);
    CHECK_TRUE(loop_is_pending(loop, timer));
    CHECK_TRUE(loop_is_alive(loop));
    CHECK(loop_call_later(loop, LOOP_SEC(1000000), do_stop, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_STOPPED);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK_TRUE(loop_is_pending(loop, timer));
    CHECK_TEXT(trace, "");
    /* It can be brought back from there. */
    CHECK(loop_reschedule(loop, timer, loop_time(loop) + 1), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "n");
    close_loop(loop);
}

static void s04_unreferenced_at_the_end_of_time_does_not_keep_run(void)
{
    loop_t *loop = new_loop();
    loop_handle_t timer = loop_call_at(loop, LOOP_NEVER, do_nothing, NULL);

    CHECK(loop_unref(loop, timer), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_loop(loop);
}

static void s04_a_deadline_in_the_past_is_due_at_once(void)
{
    static const uint64_t past[] = {0, 1, 999};
    loop_t *loop = new_virtual_loop(1000);

    for (size_t i = 0; i < sizeof past / sizeof past[0]; i++) {
        uint64_t when = 77;
        loop_handle_t timer = loop_call_at(loop, past[i], do_nothing, NULL);

        CHECK(timer, >, 0);
        CHECK(loop_when(loop, timer, &when), ==, 0);
        CHECK(when, ==, past[i]);
        CHECK(loop_run_once(loop, 0), ==, 1);
        CHECK(loop_time(loop), ==, 1000);
    }
    close_loop(loop);
}

static void s04_time_close_to_its_end(void)
{
    loop_t *loop = new_virtual_loop(UINT64_MAX - 10);

    trace_clear();
    CHECK(loop_call_later(loop, 9, record, (void *)"a"), >, 0);
    CHECK(loop_call_later(loop, 10, record, (void *)"b"), >, 0);
    CHECK(loop_call_later(loop, 100, record, (void *)"c"), >, 0);
    CHECK(loop_call_every(loop, 4, record, (void *)"e"), >, 0);
    CHECK(loop_run_once(loop, 5), ==, 1);
    CHECK(loop_run_once(loop, 5), ==, 1);
    CHECK(loop_run_once(loop, 5), ==, 1);
    CHECK_TEXT(trace, "eea");
    CHECK(loop_run_once(loop, 0), ==, 0);
    close_loop(loop);
}

static void next_deadline_is_the_earliest(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_handle_t early_one;

    CHECK(loop_next_deadline(loop), ==, LOOP_NEVER);
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_next_deadline(loop), ==, LOOP_NEVER);
    CHECK(loop_call_at(loop, 300, do_nothing, NULL), >, 0);
    early_one = loop_call_at(loop, 100, do_nothing, NULL);
    CHECK(loop_call_at(loop, 200, do_nothing, NULL), >, 0);
    CHECK(loop_next_deadline(loop), ==, 100);
    CHECK(loop_cancel(loop, early_one), ==, 0);
    CHECK(loop_next_deadline(loop), ==, 200);
    close_loop(loop);
}

static void time_macros(void)
{
    CHECK(LOOP_NSEC(7), ==, 7);
    CHECK(LOOP_USEC(7), ==, 7000);
    CHECK(LOOP_MSEC(1 + 1), ==, 2000000);
    CHECK(LOOP_SEC(3600), ==, INT64_C(3600000000000));
    CHECK(sizeof LOOP_SEC(1), ==, sizeof(uint64_t));
    CHECK(LOOP_NEVER, ==, UINT64_MAX);
}

/* ---- deadlines that fall due while the loop reads the clock, arms its timeout and goes to sleep ---- */

enum { BURST = 8 };

static uint64_t near_deadlines[BURST];
static size_t near_fired;

static void note_near(loop_t *loop, void *arg)
{
    const uint64_t *when = arg;

    CHECK(loop_time(loop), >=, *when);
    near_fired++;
}

/* Nothing else would wake the loop before the limit: a timer that it overslept would come with it at the earliest. */
static void s02_no_deadline_falls_between_the_clock_and_the_sleep(void)
{
    size_t rounds = getenv("CHECK_TOOL") ? 500 : 20000;
    const uint64_t limit = LOOP_SEC(20);
    loop_t *loop = new_loop();
    uint64_t offset = 0;

    for (size_t round = 0; round < rounds; round++) {
        uint64_t begin;

        near_fired = 0;
        begin = monotonic();
        for (size_t i = 0; i < 1 + round % BURST; i++) {
            offset = (offset + 769) % 2001;
            near_deadlines[i] = loop_time(loop) + offset;
            CHECK(loop_call_at(loop, near_deadlines[i], note_near, &near_deadlines[i]), >, 0);
        }
        while (near_fired < 1 + round % BURST) {
            int ran = loop_run_once(loop, limit);

            CHECK(ran, >=, 0);
            if (monotonic() - begin >= limit)
                break;
        }
        CHECK(near_fired, ==, 1 + round % BURST);
        CHECK(monotonic() - begin, <, limit);
        if (near_fired != 1 + round % BURST)
            break;
    }
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(s01_time_is_clock_monotonic),
    TEST(s01_time_needs_no_loop),
    TEST(s01_time_is_not_cached_in_a_callback),
    TEST(s01_time_from_another_thread),
    TEST(s02_no_timer_runs_early),
    TEST(s02_no_sleep_ends_early),
    TEST(s03_delays_are_kept_to_the_nanosecond),
    TEST(s03_slack_gathers_timers_and_is_never_early),
    TEST(s03_without_slack_timers_do_not_wait_for_each_other),
    TEST(s04_call_later_counts_from_the_call),
    TEST(s04_call_later_saturates),
    TEST(s04_a_timer_at_the_end_of_time_is_pending_and_never_fires),
    TEST(s04_unreferenced_at_the_end_of_time_does_not_keep_run),
    TEST(s04_a_deadline_in_the_past_is_due_at_once),
    TEST(s04_time_close_to_its_end),
    TEST(next_deadline_is_the_earliest),
    TEST(time_macros),
    TEST(s02_no_deadline_falls_between_the_clock_and_the_sleep),
};

CHECK_MAIN(tests)
