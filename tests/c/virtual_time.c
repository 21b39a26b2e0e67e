/* S36: virtual time. */
#include "check.h"

#include <pthread.h>

static void sleep_for_long(void *arg)
{
    (void)arg;
    usleep(400000);
}

static void after_sleep(loop_t *loop, int status, void *arg)
{
    (void)loop;
    (void)arg;
    CHECK(status, ==, 0);
}

static void s36_starts_at_the_chosen_time_and_stands_still(void)
{
    loop_t *loop = new_virtual_loop(LOOP_SEC(86400) + 3);

    CHECK(loop_time(loop), ==, LOOP_SEC(86400) + 3);
    busy_wait(LOOP_USEC(100));
    CHECK(loop_time(loop), ==, LOOP_SEC(86400) + 3);
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_time(loop), ==, LOOP_SEC(86400) + 3);
    close_loop(loop);
}

/* The clock does not go on while the loop looks at it, and a loop that sleeps for real does not look. */
static void s36_a_virtual_clock_does_not_spin(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    struct timespec before, after;
    loop_t *loop = NULL;

    options.flags = LOOP_VIRTUAL_TIME;
    options.spin_ns = LOOP_SEC(1000);
    REQUIRE(loop_new(&options, &loop), ==, 0);
    CHECK(loop_call_later(loop, LOOP_SEC(500), do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_time(loop), ==, LOOP_SEC(500));
    CHECK(loop_run_in_executor(loop, sleep_for_long, after_sleep, NULL), >, 0);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    CHECK((after.tv_sec - before.tv_sec) * INT64_C(1000000000) + after.tv_nsec - before.tv_nsec, <, LOOP_MSEC(200));
    close_loop(loop);
}

static size_t ticks;

static void tick(loop_t *loop, void *arg)
{
    (void)arg;
    ticks++;
    CHECK(loop_time(loop), ==, LOOP_SEC(ticks));
}

static void s36_a_year_of_timers_takes_no_time(void)
{
    loop_t *loop = new_virtual_loop(0);
    uint64_t begin = monotonic();
    loop_handle_t timer;

    ticks = 0;
    timer = loop_call_every(loop, LOOP_SEC(1), tick, NULL);
    CHECK(loop_unref(loop, timer), ==, 0);
    CHECK(loop_call_later(loop, LOOP_SEC(3600), do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(ticks, ==, 3600);
    CHECK(loop_cancel(loop, timer), ==, 0);
    CHECK(loop_call_later(loop, LOOP_SEC(86400) * 365, do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_time(loop), ==, LOOP_SEC(3600) + LOOP_SEC(86400) * 365);
    CHECK(monotonic() - begin, <, LOOP_SEC(1800));
    CHECK(metrics_of(loop).asleep_ns, ==, loop_time(loop)); /* by the loop's own clock */
    close_loop(loop);
}

static uint64_t expected_time;

static void check_time(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_time(loop), ==, expected_time);
    expected_time += 17;
    if (expected_time < 17 * 50)
        CHECK(loop_call_at(loop, expected_time, check_time, NULL), >, 0);
}

static void s36_jumps_to_the_next_deadline_exactly(void)
{
    loop_t *loop = new_virtual_loop(0);

    expected_time = 17;
    CHECK(loop_call_at(loop, 17, check_time, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(expected_time, ==, 17 * 50);
    close_loop(loop);
}

static size_t spins;

static void spin(loop_t *loop, void *arg)
{
    CHECK(loop_time(loop), ==, 0);
    if (++spins < 1000)
        CHECK(loop_call_soon(loop, spin, arg), >, 0);
}

static void s36_does_not_jump_while_something_is_ready(void)
{
    loop_t *loop = new_virtual_loop(0);

    spins = 0;
    CHECK(loop_call_later(loop, 1, do_nothing, NULL), >, 0);
    CHECK(loop_call_soon(loop, spin, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(spins, ==, 1000);
    CHECK(loop_time(loop), ==, 1);
    close_loop(loop);
}

static void s36_run_once_with_nothing_to_do_spends_its_limit(void)
{
    loop_t *loop = new_virtual_loop(0);

    CHECK(loop_run_once(loop, LOOP_SEC(3600)), ==, 0);
    CHECK(loop_time(loop), ==, LOOP_SEC(3600));
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_time(loop), ==, LOOP_SEC(3600));
    close_loop(loop);
}

static void s36_a_stop_keeps_time_from_jumping(void)
{
    loop_t *loop = new_virtual_loop(0);

    CHECK(loop_call_later(loop, 100, do_nothing, NULL), >, 0);
    CHECK(loop_stop(loop), ==, 0);
    CHECK(loop_run_forever(loop), ==, LOOP_STOPPED);
    CHECK(loop_time(loop), ==, 0);
    close_loop(loop);
}

static void *read_time(void *loop)
{
    CHECK(loop_time(loop), ==, 42);
    return NULL;
}

static void s36_any_thread_reads_the_virtual_time(void)
{
    loop_t *loop = new_virtual_loop(42);
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, read_time, loop), ==, 0);
    pthread_join(thread, NULL);
    close_loop(loop);
}

static void s36_two_clocks_side_by_side(void)
{
    loop_t *virtual_loop = new_virtual_loop(5), *real = new_loop();
    uint64_t before = monotonic();

    CHECK(loop_time(virtual_loop), ==, 5);
    CHECK(loop_time(real), >=, before);
    CHECK(loop_call_later(virtual_loop, LOOP_SEC(100), do_nothing, NULL), >, 0);
    CHECK(loop_run(virtual_loop), ==, LOOP_DONE);
    CHECK(loop_time(virtual_loop), ==, LOOP_SEC(100) + 5);
    CHECK(loop_time(real), <=, monotonic());
    close_loop(real);
    close_loop(virtual_loop);
}

static const struct check_test tests[] = {
    TEST(s36_starts_at_the_chosen_time_and_stands_still),
    TEST_NOT_UNDER("valgrind", s36_a_virtual_clock_does_not_spin, "no other thread runs while one is in io_uring_enter()"),
    TEST(s36_a_year_of_timers_takes_no_time),
    TEST(s36_jumps_to_the_next_deadline_exactly),
    TEST(s36_does_not_jump_while_something_is_ready),
    TEST(s36_run_once_with_nothing_to_do_spends_its_limit),
    TEST(s36_a_stop_keeps_time_from_jumping),
    TEST(s36_any_thread_reads_the_virtual_time),
    TEST(s36_two_clocks_side_by_side),
};

CHECK_MAIN(tests)
