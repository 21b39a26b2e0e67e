/* S21: what a signal does to a wait. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>

static volatile sig_atomic_t signals;

static void count_signal(int number)
{
    (void)number;
    signals++;
}

static timer_t ticker;

/* SIGUSR1 every 10 ms, without SA_RESTART, until stop_signals(): no single signal has to hit the sleep. */
static void start_signals(void)
{
    struct sigaction action;
    struct sigevent event;
    struct itimerspec interval = {{0, 10000000}, {0, 10000000}};

    memset(&action, 0, sizeof action);
    action.sa_handler = count_signal;
    sigemptyset(&action.sa_mask);
    REQUIRE(sigaction(SIGUSR1, &action, NULL), ==, 0);
    signals = 0;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGUSR1;
    REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &ticker), ==, 0);
    REQUIRE(timer_settime(ticker, 0, &interval, NULL), ==, 0);
}

static void stop_signals(void)
{
    timer_delete(ticker);
    signal(SIGUSR1, SIG_IGN);
}

static void s21_run_once_says_eintr(void)
{
    loop_t *loop = new_loop();

    start_signals();
    CHECK(loop_run_once(loop, LOOP_SEC(1000)), ==, -EINTR);
    CHECK(signals, >, 0);
    /* And nothing is lost by that. */
    stop_signals();
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, LOOP_SEC(1000)), ==, 1);
    close_loop(loop);
}

/*
 * A call that submits the timer and sleeps, when interrupted, does not say EINTR
 * but how much it submitted; the next one, with nothing to submit, does. Both count.
 */
static void s21_run_once_says_eintr_whether_or_not_it_submitted(void)
{
    loop_t *loop = new_loop();

    start_signals();
    for (int i = 0; i < 5; i++) {
        CHECK(loop_call_later(loop, LOOP_SEC(1000 - i), do_nothing, NULL), >, 0);
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, -EINTR);
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, -EINTR);
    }
    stop_signals();
    close_loop(loop);
}

static uint64_t end;

static void stop_at_end(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_time(loop), >=, end);
    CHECK(loop_stop(loop), ==, 0);
}

/* The iterations that did not come to this callback were ended by a signal. */
static void stop_when_interrupted(loop_t *loop, void *arg)
{
    const uint64_t *before = arg;
    loop_metrics_t metrics = metrics_of(loop);

    CHECK(loop_time(loop), >=, end);
    if (metrics.iterations - metrics.callbacks >= *before + 2) {
        CHECK(loop_stop(loop), ==, 0);
    } else {
        end = loop_time(loop) + LOOP_MSEC(50);
        CHECK(loop_call_at(loop, end, stop_when_interrupted, arg), >, 0);
    }
}

static void s21_run_and_run_forever_go_on(void)
{
    loop_t *loop = new_loop();

    for (int i = 0; i < 2; i++) {
        uint64_t before = metrics_of(loop).iterations - metrics_of(loop).callbacks;

        start_signals();
        end = loop_time(loop) + LOOP_MSEC(50);
        CHECK(loop_call_at(loop, end, stop_when_interrupted, &before), >, 0);
        CHECK(i == 0 ? loop_run_forever(loop) : loop_run(loop), ==, LOOP_STOPPED);
        stop_signals();
    }
    close_loop(loop);
}

static void s21_an_interrupted_wait_does_not_run_timers_early(void)
{
    loop_t *loop = new_loop();
    int result;

    start_signals();
    end = loop_time(loop) + LOOP_MSEC(55);
    CHECK(loop_call_at(loop, end, stop_at_end, NULL), >, 0);
    do {
        result = loop_run_once(loop, LOOP_NEVER);
        CHECK_TRUE(result == 1 || result == -EINTR);
    } while (result == -EINTR);
    stop_signals();
    CHECK(signals, >, 0);
    CHECK(loop_time(loop), >=, end);
    close_loop(loop);
}

static void s21_callbacks_that_ran_are_counted_not_the_signal(void)
{
    loop_t *loop = new_loop();

    start_signals();
    while (signals == 0)
        ;
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, LOOP_SEC(1000)), ==, 1);
    stop_signals();
    close_loop(loop);
}

/* ---- a storm of them: another thread sends as many as it can while the loop sleeps for one short timer after another ---- */

enum { STORM = 3000 };

static atomic_bool storm_is_over;

static void *send_storm(void *arg)
{
    const pthread_t *target = arg;

    while (!storm_is_over)
        pthread_kill(*target, SIGUSR1);
    return NULL;
}

static void note_end(loop_t *loop, void *arg)
{
    CHECK(loop_time(loop), >=, end);
    ++*(int *)arg;
}

/* One timer, by loop_run() or by loop_run_once(): not early, not lost, and the run does not return before it. */
static void sleep_in_the_storm(loop_t *loop, bool once)
{
    int came = 0, result;

    end = loop_time(loop) + LOOP_MSEC(2);
    CHECK(loop_call_at(loop, end, note_end, &came), >, 0);
    if (once) {
        do {
            result = loop_run_once(loop, LOOP_SEC(1000));
            CHECK_TRUE(result == 1 || result == -EINTR);
        } while (result == -EINTR);
    } else {
        CHECK(loop_run(loop), ==, LOOP_DONE);
    }
    CHECK(came, ==, 1);
    /* A lost one would come with the limit at the earliest. */
    CHECK(loop_time(loop), <, end + LOOP_SEC(60));
}

static void s21_a_storm_of_signals_makes_no_timer_early_and_loses_none(void)
{
    for (int round = 0; round < 4; round++) {
        pthread_t self = pthread_self(), sender;
        loop_t *loop = new_loop();
        struct sigaction action;

        memset(&action, 0, sizeof action);
        action.sa_handler = count_signal;
        action.sa_flags = round % 2 ? SA_RESTART : 0;
        sigemptyset(&action.sa_mask);
        REQUIRE(sigaction(SIGUSR1, &action, NULL), ==, 0);
        signals = 0;
        storm_is_over = false;
        REQUIRE(pthread_create(&sender, NULL, send_storm, &self), ==, 0);
        while (signals < STORM)
            sleep_in_the_storm(loop, round / 2);
        storm_is_over = true;
        pthread_join(sender, NULL);
        signal(SIGUSR1, SIG_IGN);
        CHECK_TRUE(!loop_is_alive(loop));
        close_loop(loop);
    }
}

#define BLOCKS "it keeps signals away from a thread that is in io_uring_enter()"

static const struct check_test tests[] = {
    TEST_NOT_UNDER("valgrind", s21_run_once_says_eintr, BLOCKS),
    TEST_NOT_UNDER("valgrind", s21_run_once_says_eintr_whether_or_not_it_submitted, BLOCKS),
    TEST_NOT_UNDER("valgrind", s21_run_and_run_forever_go_on, BLOCKS),
    TEST_NOT_UNDER("valgrind", s21_an_interrupted_wait_does_not_run_timers_early, BLOCKS),
    TEST(s21_callbacks_that_ran_are_counted_not_the_signal),
    TEST_NOT_UNDER("valgrind", s21_a_storm_of_signals_makes_no_timer_early_and_loses_none, BLOCKS),
};

CHECK_MAIN(tests)
