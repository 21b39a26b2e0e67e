/* S5 to S8: what runs in an iteration, and in which order. */
#include "check.h"

#include <linux/io_uring.h>
#include <pthread.h>
#include <semaphore.h>

static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

static void *letter(size_t i)
{
    return (void *)(uintptr_t)&letters[i];
}

/* ---- completions ---- */

static void record_completion(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    CHECK(result, ==, 0);
    CHECK(flags & LOOP_MORE, ==, 0);
    record(loop, arg);
}

/* Completes as soon as the kernel has it. */
static void submit_nop(loop_t *loop, loop_io_callback_t cb, void *arg)
{
    struct io_uring_sqe sqe;

    memset(&sqe, 0, sizeof sqe);
    sqe.opcode = IORING_OP_NOP;
    REQUIRE(loop_submit(loop, &sqe, cb, arg), >, 0);
}

static sem_t waits;

static void say_that_it_waits(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    sem_post(&waits);
}

static void *post_amid_the_wait(void *arg)
{
    const struct timespec moment = {0, 2000000};

    while (sem_wait(&waits) != 0)
        REQUIRE(errno, ==, EINTR);
    /* Nothing is tested when the post comes before the spin begins. */
    nanosleep(&moment, NULL);
    REQUIRE(loop_remote_call_soon(arg, record, letter(0), NULL), ==, 0);
    return NULL;
}

static void s05_posts_come_before_completions_after_a_sleep(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_remote_t *remote;
    pthread_t thread;
    loop_t *loop;

    /* Until somebody wants it, the loop spins in the place of its sleep, and submits only then. */
    options.spin_ns = LOOP_SEC(20);
    REQUIRE(loop_new(&options, &loop), ==, 0);
    REQUIRE(loop_remote_new(loop, &remote), ==, 0);
    REQUIRE(sem_init(&waits, 0, 0), ==, 0);
    trace_clear();
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, say_that_it_waits, NULL), >, 0);
    submit_nop(loop, record_completion, letter(1));
    REQUIRE(pthread_create(&thread, NULL, post_amid_the_wait, remote), ==, 0);
    CHECK(loop_run_once(loop, LOOP_SEC(50)), ==, 2);
    pthread_join(thread, NULL);
    CHECK_TEXT(trace, "ab");
    loop_remote_release(remote);
    close_loop(loop);
    sem_destroy(&waits);
}

static void ignore_completion(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop;
    (void)result;
    (void)flags;
    (void)arg;
}

static void s09_a_batch_of_completions_is_bounded_after_a_sleep(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop;

    options.sq_entries = 1024;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    for (int i = 0; i < 1000; i++)
        submit_nop(loop, ignore_completion, NULL);
    CHECK(loop_run_once(loop, LOOP_SEC(50)), ==, 256);
    CHECK(metrics_of(loop).completed, ==, 256);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(metrics_of(loop).callbacks, ==, 1000);
    close_loop(loop);
}

static void s06_calls_run_in_the_order_of_scheduling(void)
{
    loop_t *loop = new_loop();

    trace_clear();
    for (size_t i = 0; i < 52; i++)
        CHECK(loop_call_soon(loop, record, letter(i)), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 52);
    CHECK_TEXT(trace, letters);
    close_loop(loop);
}

static void s06_a_due_timer_runs_after_an_earlier_call(void)
{
    loop_t *loop = new_virtual_loop(1000);

    trace_clear();
    CHECK(loop_call_soon(loop, record, letter(0)), >, 0);
    CHECK(loop_call_at(loop, 500, record, letter(1)), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 2);
    CHECK_TEXT(trace, "ab");
    close_loop(loop);
}

/* A timer enters the ready queue when the iteration looks at the clock, a call at once. */
static void s06_a_call_is_ready_before_a_due_timer(void)
{
    loop_t *loop = new_virtual_loop(1000);

    trace_clear();
    CHECK(loop_call_at(loop, 500, record, letter(1)), >, 0);
    CHECK(loop_call_soon(loop, record, letter(0)), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 2);
    CHECK_TEXT(trace, "ab");
    close_loop(loop);
}

static void schedule_call_and_timer(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("S");
    CHECK(loop_call_at(loop, 0, record, letter(1)), >, 0);
    CHECK(loop_call_soon(loop, record, letter(0)), >, 0);
}

static void s05_what_a_callback_schedules_runs_in_the_next_iteration(void)
{
    loop_t *loop = new_virtual_loop(1000);

    trace_clear();
    CHECK(loop_call_soon(loop, schedule_call_and_timer, NULL), >, 0);
    CHECK(loop_call_soon(loop, record, letter(25)), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 2);
    CHECK_TEXT(trace, "Sz");
    CHECK(loop_run_once(loop, 0), ==, 2);
    CHECK_TEXT(trace, "Szab");
    CHECK(loop_run_once(loop, 0), ==, 0);
    close_loop(loop);
}

static void s05_a_ready_callback_keeps_the_loop_from_sleeping(void)
{
    loop_t *loop = new_loop();
    uint64_t begin = monotonic();

    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, LOOP_SEC(100)), ==, 1);
    CHECK(monotonic() - begin, <, LOOP_SEC(50));
    CHECK(metrics_of(loop).asleep_ns, ==, 0);
    close_loop(loop);
}

static void s05_an_iteration_that_does_not_sleep_does_not_enter_the_kernel(void)
{
    loop_t *loop = new_loop();
    uint64_t enters = metrics_of(loop).enters;

    CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
    for (int i = 0; i < 1000; i++) {
        CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    }
    CHECK(metrics_of(loop).enters, ==, enters);
    close_loop(loop);
}

static int spins;

static void spin(loop_t *loop, void *arg)
{
    (void)arg;
    if (spins++ == 0)
        CHECK(loop_call_later(loop, LOOP_MSEC(5), do_stop, NULL), >, 0);
    CHECK(loop_call_soon(loop, spin, NULL), >, 0);
}

static void s07_rescheduling_starves_no_timer(void)
{
    loop_t *loop = new_loop();

    spins = 0;
    CHECK(loop_call_soon(loop, spin, NULL), >, 0);
    CHECK(loop_run_forever(loop), ==, LOOP_STOPPED);
    CHECK(spins, >, 1);
    CHECK(loop_run_once(loop, 0), ==, 1);
    close_loop(loop);
}

static void rearm(loop_t *loop, void *arg)
{
    spins++;
    CHECK(loop_call_later(loop, 0, rearm, arg), >, 0);
}

static void s07_a_zero_delay_timer_runs_once_an_iteration(void)
{
    loop_t *loop = new_virtual_loop(0);

    spins = 0;
    CHECK(loop_call_later(loop, 0, rearm, NULL), >, 0);
    for (int i = 1; i <= 100; i++) {
        CHECK(loop_run_once(loop, 0), ==, 1);
        CHECK(spins, ==, i);
    }
    CHECK(loop_call_later(loop, 0, do_stop, NULL), >, 0);
    CHECK(loop_run_forever(loop), ==, LOOP_STOPPED);
    CHECK(spins, ==, 101);
    close_loop(loop);
}

static loop_handle_t moved;

static void move_to_the_past(loop_t *loop, void *arg)
{
    (void)arg;
    spins++;
    CHECK(loop_reschedule(loop, moved, 0), ==, 0);
}

static void s07_a_timer_moved_to_the_past_by_itself_runs_once_an_iteration(void)
{
    loop_t *loop = new_virtual_loop(0);

    spins = 0;
    moved = loop_call_every(loop, 10, move_to_the_past, NULL);
    CHECK(loop_reschedule(loop, moved, 0), ==, 0);
    for (int i = 1; i <= 100; i++) {
        CHECK(loop_run_once(loop, 0), ==, 1);
        CHECK(spins, ==, i);
    }
    close_loop(loop);
}

static void s08_equal_deadlines_run_in_the_order_of_scheduling(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    for (size_t i = 0; i < 52; i++)
        CHECK(loop_call_at(loop, 5000, record, letter(i)), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, letters);
    close_loop(loop);
}

/* Deadlines far from and close to each other, so that a queue that sorts by digits shuffles them. */
static void s08_equal_deadlines_keep_their_order_among_others(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    for (size_t i = 0; i < 13; i++) {
        CHECK(loop_call_at(loop, LOOP_SEC(3), record, letter(39 + i)), >, 0);
        CHECK(loop_call_at(loop, 1025, record, letter(13 + i)), >, 0);
        CHECK(loop_call_at(loop, LOOP_SEC(3) - 1, record, letter(26 + i)), >, 0);
        CHECK(loop_call_at(loop, 1024, record, letter(i)), >, 0);
    }
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, letters);
    close_loop(loop);
}

static void s08_equal_deadlines_in_the_past_keep_their_order(void)
{
    loop_t *loop = new_virtual_loop(1000);

    trace_clear();
    for (size_t i = 0; i < 26; i++) {
        CHECK(loop_call_at(loop, 900, record, letter(26 + i)), >, 0);
        CHECK(loop_call_at(loop, 800, record, letter(i)), >, 0);
    }
    CHECK(loop_run_once(loop, 0), ==, 52);
    CHECK_TEXT(trace, letters);
    close_loop(loop);
}

static void s08_deadlines_run_in_order_however_they_were_scheduled(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    for (size_t i = 52; i-- > 0;)
        CHECK(loop_call_at(loop, 1000 + i, record, letter(i)), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, letters);
    close_loop(loop);
}

/* Everything is due in one iteration: the order is that of the deadlines, not of discovery. */
static void s05_due_timers_enter_in_the_order_of_deadlines(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_at(loop, 300, record, letter(2)), >, 0);
    CHECK(loop_call_at(loop, 100, record, letter(0)), >, 0);
    CHECK(loop_call_at(loop, 200, record, letter(1)), >, 0);
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "abc");
    close_loop(loop);
}

enum { CROWD = 100000 };

static uint64_t crowd[CROWD], last;
static size_t out_of_order, crowd_fired;

static void in_order(loop_t *loop, void *arg)
{
    const uint64_t *when = arg;

    out_of_order += *when < last || loop_time(loop) != *when;
    last = *when;
    crowd_fired++;
}

static void s08_a_crowd_of_timers_stays_in_order(void)
{
    loop_t *loop = new_virtual_loop(0);
    uint64_t random = 99;

    last = out_of_order = crowd_fired = 0;
    for (size_t i = 0; i < CROWD; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        crowd[i] = 1 + (random >> 24) % LOOP_SEC(60);
        REQUIRE(loop_call_at(loop, crowd[i], in_order, &crowd[i]), >, 0);
    }
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(crowd_fired, ==, CROWD);
    CHECK(out_of_order, ==, 0);
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(s05_what_a_callback_schedules_runs_in_the_next_iteration),
    TEST(s05_a_ready_callback_keeps_the_loop_from_sleeping),
    TEST(s05_an_iteration_that_does_not_sleep_does_not_enter_the_kernel),
    TEST(s05_due_timers_enter_in_the_order_of_deadlines),
    TEST(s05_posts_come_before_completions_after_a_sleep),
    TEST(s06_calls_run_in_the_order_of_scheduling),
    TEST(s06_a_due_timer_runs_after_an_earlier_call),
    TEST(s06_a_call_is_ready_before_a_due_timer),
    TEST(s07_rescheduling_starves_no_timer),
    TEST(s07_a_zero_delay_timer_runs_once_an_iteration),
    TEST(s07_a_timer_moved_to_the_past_by_itself_runs_once_an_iteration),
    TEST(s08_equal_deadlines_run_in_the_order_of_scheduling),
    TEST(s08_equal_deadlines_keep_their_order_among_others),
    TEST(s08_equal_deadlines_in_the_past_keep_their_order),
    TEST(s08_deadlines_run_in_order_however_they_were_scheduled),
    TEST(s08_a_crowd_of_timers_stays_in_order),
    TEST(s09_a_batch_of_completions_is_bounded_after_a_sleep),
};

CHECK_MAIN(tests)
