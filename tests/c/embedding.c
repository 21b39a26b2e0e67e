/* loop_fd() and loop_flush(): the loop inside another loop. */
#include "check.h"

#include <pthread.h>
#include <semaphore.h>

static bool is_readable(int fd, int timeout_ms)
{
    struct pollfd poller = {fd, POLLIN, 0};
    int count = poll(&poller, 1, timeout_ms);

    CHECK(count, >=, 0);
    if (count > 0)
        CHECK(poller.revents, ==, POLLIN);
    return count > 0;
}

/* Far more than a test needs, for what is expected to happen. */
enum { LONG_MS = 60000 };

static void fd_is_one_and_the_same(void)
{
    loop_t *loop = new_loop();
    int fd = loop_fd(loop);

    CHECK(fd, >=, 0);
    CHECK(loop_fd(loop), ==, fd);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_fd(loop), ==, fd);
    close_loop(loop);
}

static void fd_of_an_idle_loop_is_not_readable(void)
{
    loop_t *loop = new_loop();
    int fd = loop_fd(loop);

    CHECK_TRUE(!is_readable(fd, 0));
    CHECK(loop_flush(loop), ==, 0);
    CHECK_TRUE(!is_readable(fd, 0));
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK_TRUE(!is_readable(fd, 0));
    CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
    CHECK(loop_call_at(loop, LOOP_NEVER, do_nothing, NULL), >, 0);
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, do_nothing, NULL), >, 0);
    for (int i = 0; i < 3; i++) {
        CHECK(loop_flush(loop), ==, 0);
        CHECK_TRUE(!is_readable(fd, 0));
        CHECK(loop_run_once(loop, 0), ==, 0);
        CHECK_TRUE(!is_readable(fd, 0));
    }
    CHECK_TRUE(!is_readable(fd, 30));
    close_loop(loop);
}

static void fd_is_readable_for_a_ready_callback(void)
{
    loop_t *loop = new_loop();
    int fd = loop_fd(loop);

    for (int i = 0; i < 3; i++) {
        CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
        CHECK(loop_flush(loop), ==, 0);
        CHECK_TRUE(is_readable(fd, 0));
        CHECK_TRUE(is_readable(fd, 0)); /* polling does not use it up */
        CHECK(loop_run_once(loop, 0), ==, 1);
        CHECK_TRUE(!is_readable(fd, 0));
    }
    close_loop(loop);
}

static void fd_asked_for_late_knows_what_was_scheduled_before(void)
{
    loop_t *loop = new_loop();
    int fd;

    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    fd = loop_fd(loop);
    CHECK(loop_flush(loop), ==, 0);
    CHECK_TRUE(is_readable(fd, 0));
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TRUE(!is_readable(fd, 0));
    close_loop(loop);
}

static void fd_becomes_readable_when_a_timer_is_due(void)
{
    loop_t *loop = new_loop();
    int fd = loop_fd(loop);

    for (int i = 0; i < 5; i++) {
        uint64_t when = loop_time(loop) + LOOP_MSEC(10);

        CHECK(loop_call_at(loop, when, do_nothing, NULL), >, 0);
        CHECK(loop_flush(loop), ==, 0);
        CHECK_TRUE(is_readable(fd, LONG_MS));
        CHECK(loop_time(loop), >=, when);
        CHECK(loop_run_once(loop, 0), ==, 1);
        CHECK_TRUE(!is_readable(fd, 0));
    }
    close_loop(loop);
}

static void fd_is_readable_for_a_timer_that_is_due_already(void)
{
    loop_t *loop = new_loop();
    int fd = loop_fd(loop);

    CHECK(loop_call_at(loop, 0, do_nothing, NULL), >, 0);
    CHECK(loop_flush(loop), ==, 0);
    CHECK_TRUE(is_readable(fd, LONG_MS));
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TRUE(!is_readable(fd, 0));
    close_loop(loop);
}

static void fd_asked_for_after_a_timer_was_armed(void)
{
    loop_t *loop = new_loop();
    loop_handle_t timer = loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL);
    uint64_t when;

    CHECK(loop_run_once(loop, LOOP_MSEC(1)), ==, 0); /* armed in the kernel, and nobody asked for a descriptor yet */
    when = loop_time(loop) + LOOP_MSEC(10);
    CHECK(loop_reschedule(loop, timer, when), ==, 0);
    CHECK(loop_fd(loop), >=, 0);
    CHECK(loop_flush(loop), ==, 0);
    CHECK_TRUE(is_readable(loop_fd(loop), LONG_MS));
    CHECK(loop_time(loop), >=, when);
    CHECK(loop_run_once(loop, 0), ==, 1);
    close_loop(loop);
}

static void schedule_timer(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_call_later(loop, LOOP_MSEC(10), do_nothing, NULL), >, 0);
}

static void schedule_call(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_call_soon(loop, schedule_timer, NULL), >, 0);
}

/* loop_flush() is only for what was scheduled outside: run_once() leaves the descriptor right. */
static void run_once_leaves_the_fd_right(void)
{
    loop_t *loop = new_loop();
    int fd = loop_fd(loop);

    CHECK(loop_call_soon(loop, schedule_call, NULL), >, 0);
    CHECK(loop_flush(loop), ==, 0);
    CHECK_TRUE(is_readable(fd, 0));
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TRUE(is_readable(fd, 0));
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TRUE(is_readable(fd, LONG_MS));
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TRUE(!is_readable(fd, 0));
    close_loop(loop);
}

static void an_earlier_timer_moves_the_wakeup(void)
{
    loop_t *loop = new_loop();
    int fd = loop_fd(loop);
    loop_handle_t timer = loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL);
    uint64_t when;

    CHECK(loop_flush(loop), ==, 0);
    CHECK_TRUE(!is_readable(fd, 0));
    when = loop_time(loop) + LOOP_MSEC(10);
    CHECK(loop_call_at(loop, when, do_nothing, NULL), >, 0);
    CHECK(loop_flush(loop), ==, 0);
    CHECK_TRUE(is_readable(fd, LONG_MS));
    CHECK(loop_time(loop), >=, when);
    CHECK(loop_run_once(loop, 0), ==, 1);
    when = loop_time(loop) + LOOP_MSEC(10);
    CHECK(loop_reschedule(loop, timer, when), ==, 0);
    CHECK(loop_flush(loop), ==, 0);
    CHECK_TRUE(is_readable(fd, LONG_MS));
    CHECK(loop_time(loop), >=, when);
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TRUE(!is_readable(fd, 0));
    close_loop(loop);
}

/* A timer that was cancelled may still wake the host once, in vain, but not over and over. */
static void a_cancelled_timer_does_not_make_the_host_spin(void)
{
    loop_t *loop = new_loop();
    int fd = loop_fd(loop), in_vain = 0;
    loop_handle_t timer = loop_call_later(loop, LOOP_MSEC(10), do_nothing, NULL);

    CHECK(loop_flush(loop), ==, 0);
    CHECK(loop_cancel(loop, timer), ==, 0);
    CHECK(loop_flush(loop), ==, 0);
    while (in_vain < 10 && is_readable(fd, 50)) {
        CHECK(loop_run_once(loop, 0), ==, 0);
        in_vain++;
    }
    CHECK(in_vain, <=, 1);
    close_loop(loop);
}

static void flush_twice_costs_no_system_call(void)
{
    loop_t *loop = new_loop();
    uint64_t enters;

    CHECK(loop_fd(loop), >=, 0);
    CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
    CHECK(loop_flush(loop), ==, 0);
    enters = metrics_of(loop).enters;
    for (int i = 0; i < 100; i++)
        CHECK(loop_flush(loop), ==, 0);
    CHECK(metrics_of(loop).enters, ==, enters);
    close_loop(loop);
}

static void flush_without_fd_does_no_harm(void)
{
    loop_t *loop = new_loop();

    CHECK(loop_flush(loop), ==, 0);
    CHECK(loop_call_later(loop, LOOP_MSEC(2), do_nothing, NULL), >, 0);
    CHECK(loop_flush(loop), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_loop(loop);
}

static void flush_in_callback(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_call_later(loop, LOOP_MSEC(5), do_nothing, NULL), >, 0);
    CHECK(loop_flush(loop), ==, 0);
    CHECK(loop_fd(loop), >=, 0);
    trace_add("f");
}

static void flush_inside_a_callback_does_no_harm(void)
{
    loop_t *loop = new_loop();

    trace_clear();
    CHECK(loop_call_soon(loop, flush_in_callback, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "f");
    CHECK(metrics_of(loop).timers_fired, ==, 1);
    close_loop(loop);
}

static size_t fired;

static void count_fired(loop_t *loop, void *arg)
{
    const uint64_t *when = arg;

    CHECK(loop_time(loop), >=, *when);
    fired++;
}

/* A host with nothing but poll() runs a few hundred timers, and is not woken much oftener than there is work. */
static void a_poll_loop_alone_runs_all_timers(void)
{
    enum { TIMERS = 300 };
    static uint64_t whens[TIMERS];
    loop_t *loop = new_loop();
    int fd = loop_fd(loop);
    size_t wakeups = 0;
    uint64_t random = 5;

    fired = 0;
    for (int i = 0; i < TIMERS; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        whens[i] = loop_time(loop) + (random >> 33) % LOOP_MSEC(100);
        CHECK(loop_call_at(loop, whens[i], count_fired, &whens[i]), >, 0);
    }
    CHECK(loop_flush(loop), ==, 0);
    while (loop_is_alive(loop)) {
        REQUIRE(is_readable(fd, LONG_MS), ==, 1);
        CHECK(loop_run_once(loop, 0), >=, 0);
        wakeups++;
    }
    CHECK(fired, ==, TIMERS);
    CHECK(wakeups, <=, 2 * TIMERS);
    CHECK_TRUE(!is_readable(fd, 0));
    close_loop(loop);
}

/* The loop can still be run as a loop of its own, and go back to its host. */
static void fd_after_a_run_that_slept(void)
{
    loop_t *loop = new_loop();
    int fd = loop_fd(loop);

    for (int i = 0; i < 3; i++) {
        CHECK(loop_call_later(loop, LOOP_MSEC(5), do_nothing, NULL), >, 0);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK_TRUE(!is_readable(fd, 0));
        CHECK(loop_call_later(loop, LOOP_MSEC(5), do_nothing, NULL), >, 0);
        CHECK(loop_flush(loop), ==, 0);
        CHECK_TRUE(is_readable(fd, LONG_MS));
        CHECK(loop_run_once(loop, 0), ==, 1);
        CHECK_TRUE(!is_readable(fd, 0));
    }
    close_loop(loop);
}

static void break_off(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_break(loop), ==, 0);
}

static void fd_after_break_knows_the_rest_of_the_batch(void)
{
    loop_t *loop = new_loop();
    int fd = loop_fd(loop);

    CHECK(loop_call_soon(loop, break_off, NULL), >, 0);
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TRUE(is_readable(fd, 0));
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK_TRUE(!is_readable(fd, 0));
    close_loop(loop);
}

/* ---- posts while the host waits ---- */

enum { POSTS = 1000 };

static sem_t has_run;
static unsigned posts_run;

static void run_post(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    posts_run++;
    sem_post(&has_run);
}

/* One at a time: the host has begun to wait, or is about to. */
static void *post_one_by_one(void *remote)
{
    for (int i = 0; i < POSTS; i++) {
        REQUIRE(i % 2 ? loop_remote_call_soon(remote, run_post, NULL, NULL)
                      : loop_remote_call_later(remote, 1000, run_post, NULL, NULL), ==, 0);
        while (sem_wait(&has_run) != 0)
            REQUIRE(errno, ==, EINTR);
    }
    return NULL;
}

static void s26_each_of_many_posts_wakes_the_host(void)
{
    loop_t *loop = new_loop();
    loop_remote_t *remote;
    pthread_t poster;

    posts_run = 0;
    REQUIRE(loop_remote_new(loop, &remote), ==, 0);
    REQUIRE(sem_init(&has_run, 0, 0), ==, 0);
    REQUIRE(pthread_create(&poster, NULL, post_one_by_one, remote), ==, 0);
    while (posts_run < POSTS) {
        struct pollfd host = {loop_fd(loop), POLLIN, 0};

        REQUIRE(host.fd, >=, 0);
        REQUIRE(poll(&host, 1, 20000), ==, 1);
        REQUIRE(loop_run_once(loop, 0), >=, 0);
    }
    pthread_join(poster, NULL);
    loop_remote_release(remote);
    close_loop(loop);
    sem_destroy(&has_run);
}

static const struct check_test tests[] = {
    TEST(fd_is_one_and_the_same),
    TEST(fd_of_an_idle_loop_is_not_readable),
    TEST(fd_is_readable_for_a_ready_callback),
    TEST(fd_asked_for_late_knows_what_was_scheduled_before),
    TEST(fd_becomes_readable_when_a_timer_is_due),
    TEST(fd_is_readable_for_a_timer_that_is_due_already),
    TEST(fd_asked_for_after_a_timer_was_armed),
    TEST(run_once_leaves_the_fd_right),
    TEST(an_earlier_timer_moves_the_wakeup),
    TEST(a_cancelled_timer_does_not_make_the_host_spin),
    TEST(flush_twice_costs_no_system_call),
    TEST(flush_without_fd_does_no_harm),
    TEST(flush_inside_a_callback_does_no_harm),
    TEST(a_poll_loop_alone_runs_all_timers),
    TEST(fd_after_a_run_that_slept),
    TEST(fd_after_break_knows_the_rest_of_the_batch),
    TEST(s26_each_of_many_posts_wakes_the_host),
};

CHECK_MAIN(tests)
