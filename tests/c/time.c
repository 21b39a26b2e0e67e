/* S1, S3, S36: the clock in C, and the options that concern time. */
#include "check.h"

#include <pthread.h>

static void s01_time_needs_no_loop(void)
{
    uint64_t before = monotonic();
    uint64_t time = loop_time(NULL);

    CHECK(time, >=, before);
    CHECK(time, <=, monotonic());
}

static void *read_times(void *arg)
{
    loop_t **loops = arg;
    uint64_t before = monotonic();
    uint64_t time = loop_time(loops[0]);

    CHECK(time, >=, before);
    CHECK(time, <=, monotonic());
    CHECK(loop_time(loops[1]), ==, 42);
    return NULL;
}

static void s01_any_thread_reads_the_clock(void)
{
    loop_t *loops[2] = {new_loop(), new_virtual_loop(42)};
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, read_times, loops), ==, 0);
    pthread_join(thread, NULL);
    read_times(loops);
    for (int i = 0; i < 2; i++)
        close_loop(loops[i]);
}

static void s03_the_options_of_time_reach_the_loop(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop;

    options.flags = LOOP_VIRTUAL_TIME;
    options.start_ns = 1000;
    options.slack_ns = 50;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    CHECK(loop_time(loop), ==, 1000);
    CHECK(loop_call_later(loop, 100, do_nothing, NULL), >, 0);
    CHECK(loop_next_deadline(loop), ==, 1100);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_time(loop), ==, 1150);
    close_loop(loop);

    options.slack_ns = LOOP_EXACT;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    CHECK(loop_call_later(loop, 100, do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_time(loop), ==, 1100);
    close_loop(loop);

    options = (loop_options_t)LOOP_OPTIONS_INIT;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    CHECK(metrics_of(loop).gap_ns, ==, 200000);
    close_loop(loop);
    options.slack_ns = LOOP_EXACT;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    CHECK(metrics_of(loop).gap_ns, ==, 0);
    CHECK(metrics_of(loop).wake_latency_ns, ==, 50000);
    close_loop(loop);

    /* With spin_ns the loop reads the clock instead of sleeping. */
    options = (loop_options_t)LOOP_OPTIONS_INIT;
    options.spin_ns = LOOP_SEC(1000);
    REQUIRE(loop_new(&options, &loop), ==, 0);
    CHECK(loop_call_later(loop, LOOP_MSEC(2), do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(metrics_of(loop).asleep_ns, ==, 0);
    close_loop(loop);
}

static void next_deadline_is_the_earliest(void)
{
    loop_t *loop = new_virtual_loop(0);

    CHECK(loop_next_deadline(loop), ==, LOOP_NEVER);
    CHECK(loop_call_at(loop, 300, do_nothing, NULL), >, 0);
    CHECK(loop_call_at(loop, 200, do_nothing, NULL), >, 0);
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

static const struct check_test tests[] = {
    TEST(s01_time_needs_no_loop),
    TEST(s01_any_thread_reads_the_clock),
    TEST(s03_the_options_of_time_reach_the_loop),
    TEST(next_deadline_is_the_earliest),
    TEST(time_macros),
};

CHECK_MAIN(tests)
