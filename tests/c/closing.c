/* S22, S24, and what is left of a loop after shutdown. */
#include "check.h"

#include <linux/io_uring.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static void close_oneself(loop_t *loop, void *arg)
{
    (void)arg;
    trace_add("c");
    CHECK(loop_close(loop), ==, -EBUSY);
    CHECK(loop_close_within(loop, 0), ==, -EBUSY);
    CHECK(loop_close_within(loop, LOOP_NEVER), ==, -EBUSY);
    CHECK(loop_shutdown(loop), ==, -EBUSY);
}

static void s22_closing_a_running_loop_is_busy_and_nothing_is_lost(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_soon(loop, close_oneself, NULL), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_call_later(loop, 5, close_oneself, NULL), >, 0);
    CHECK(loop_call_later(loop, 6, record, (void *)"b"), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "cacb");
    close_loop(loop);
}

static void s22_closing_in_a_hook_is_busy(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, close_oneself, NULL), >, 0);
    CHECK(loop_add_hook(loop, LOOP_AFTER_WAIT, close_oneself, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK_TEXT(trace, "cc");
    close_loop(loop);
}

static void close_while_walking(loop_t *loop, const loop_info_t *info, void *arg)
{
    (void)info;
    close_oneself(loop, arg);
}

static void s22_closing_in_a_walk_is_busy(void)
{
    loop_t *loop = new_virtual_loop(0);

    trace_clear();
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_walk(loop, close_while_walking, NULL), ==, 0);
    CHECK_TEXT(trace, "c");
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "ca");
    close_loop(loop);
}

static void close_when_slow(loop_t *loop, uint64_t duration, uint32_t kind, void *address, void *arg)
{
    (void)duration;
    (void)kind;
    (void)address;
    close_oneself(loop, arg);
}

static void s22_closing_in_a_slow_callback_is_busy(void)
{
    loop_t *loop = new_loop();

    trace_clear();
    CHECK(loop_set_slow_callback(loop, 1, close_when_slow, NULL), ==, 0);
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "c");
    close_loop(loop);
}

static void s22_close_runs_no_callback(void)
{
    loop_t *loop = new_loop();

    trace_clear();
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_call_at(loop, 0, record, (void *)"b"), >, 0);
    CHECK(loop_call_every(loop, 1, record, (void *)"c"), >, 0);
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, record, (void *)"h"), >, 0);
    close_loop(loop);
    CHECK_TEXT(trace, "");
}

/* A timeout armed in the kernel is an operation that close has to end first. */
static void s22_close_with_a_timer_armed_in_the_kernel(void)
{
    loop_t *loop = new_loop();

    CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, LOOP_MSEC(1)), ==, 0);
    close_loop(loop);
}

static void s22_close_a_loop_that_never_ran(void)
{
    close_loop(new_loop());
    close_loop(new_virtual_loop(5));
}

static void s22_close_leaves_no_descriptor_behind(void)
{
    int before = dup(STDERR_FILENO), after;

    close(before);
    for (int i = 0; i < 20; i++) {
        loop_t *loop = new_loop();

        CHECK(loop_fd(loop), >=, 0);
        CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
        CHECK(loop_run_once(loop, 0), ==, 0);
        close_loop(loop);
    }
    after = dup(STDERR_FILENO);
    close(after);
    CHECK(after, ==, before);
}

static void s22_close_within(void)
{
    static const uint64_t limits[] = {0, 1, LOOP_SEC(1), LOOP_NEVER};

    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        loop_t *loop = new_loop();
        int result;

        CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
        CHECK(loop_run_once(loop, 0), ==, 0);
        /* The kernel lets go of a timeout at once, but a limit of next to nothing may pass before. */
        result = loop_close_within(loop, limits[i]);
        if (limits[i] >= LOOP_SEC(1))
            CHECK(result, ==, 0);
        if (result != 0) {
            CHECK(result, ==, -ETIMEDOUT);
            close_loop(loop);
        }
    }
}

static void s22_close_of_nothing_is_nothing(void)
{
    CHECK(loop_close(NULL), ==, 0);
    CHECK(loop_close_within(NULL, 0), ==, 0);
}

static void s22_shutdown_cancels_everything_and_takes_nothing_new(void)
{
    loop_t *loop = new_loop();
    loop_metrics_t metrics;
    loop_handle_t call, timer;

    trace_clear();
    call = loop_call_soon(loop, record, (void *)"a");
    timer = loop_call_later(loop, LOOP_SEC(1000), record, (void *)"b");
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 1);
    call = loop_call_soon(loop, record, (void *)"x");
    CHECK(loop_shutdown(loop), ==, 0);
    CHECK_TEXT(trace, "a");

    CHECK(loop_call_soon(loop, do_nothing, NULL), ==, -ESHUTDOWN);
    CHECK(loop_call_later(loop, 1, do_nothing, NULL), ==, -ESHUTDOWN);
    CHECK(loop_call_at(loop, 1, do_nothing, NULL), ==, -ESHUTDOWN);
    CHECK(loop_call_every(loop, 1, do_nothing, NULL), ==, -ESHUTDOWN);
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, do_nothing, NULL), ==, -ESHUTDOWN);
    CHECK(loop_run(loop), ==, -ESHUTDOWN);
    CHECK(loop_run_forever(loop), ==, -ESHUTDOWN);
    CHECK(loop_run_once(loop, 0), ==, -ESHUTDOWN);
    CHECK(loop_adopt(loop), <, 0);

    CHECK(loop_cancel(loop, call), ==, -ENOENT);
    CHECK(loop_cancel(loop, timer), ==, -ENOENT);
    CHECK_TRUE(!loop_is_pending(loop, timer));
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_next_deadline(loop), ==, LOOP_NEVER);
    CHECK(loop_time(loop), >=, 1);
    CHECK(loop_walk(loop, close_while_walking, NULL), ==, 0);
    metrics.size = sizeof metrics;
    CHECK(loop_metrics(loop, &metrics), ==, 0);
    CHECK(metrics.callbacks, ==, 1);
    CHECK_TEXT(trace, "a");
    close_loop(loop);
}

static void s22_shutdown_of_an_idle_loop(void)
{
    loop_t *loop = new_virtual_loop(0);

    CHECK(loop_shutdown(loop), ==, 0);
    CHECK(loop_call_soon(loop, do_nothing, NULL), ==, -ESHUTDOWN);
    close_loop(loop);
}

static void s22_shutdown_twice_does_no_harm(void)
{
    loop_t *loop = new_virtual_loop(0);
    int second;

    CHECK(loop_shutdown(loop), ==, 0);
    second = loop_shutdown(loop);
    CHECK_TRUE(second == 0 || second == -ESHUTDOWN);
    close_loop(loop);
}

/* S24: the pointer is dead after close. The same memory may serve the next loop, which owes nothing to the last. */
static void s24_a_new_loop_owes_nothing_to_a_closed_one(void)
{
    for (int i = 0; i < 50; i++) {
        loop_t *loop = new_virtual_loop((uint64_t)i);
        loop_metrics_t metrics = metrics_of(loop);

        CHECK(metrics.iterations + metrics.callbacks + metrics.timers_fired + metrics.timers_cancelled, ==, 0);
        CHECK(loop_time(loop), ==, i);
        CHECK(loop_next_deadline(loop), ==, LOOP_NEVER);
        CHECK_POINTER(loop_data(loop), NULL);
        CHECK_TRUE(!loop_is_alive(loop));
        loop_set_data(loop, loop);
        CHECK(loop_stop(loop), ==, 0);
        CHECK(loop_call_at(loop, 100, do_nothing, NULL), >, 0);
        close_loop(loop);
    }
}

static void many_loops_at_once(void)
{
    loop_t *loops[32];

    trace_clear();
    for (int i = 0; i < 32; i++) {
        loops[i] = new_loop();
        CHECK(loop_call_soon(loops[i], record, (void *)"r"), >, 0);
    }
    for (int i = 0; i < 32; i++)
        CHECK(loop_run(loops[i]), ==, LOOP_DONE);
    for (int i = 32; i-- > 0;)
        close_loop(loops[i]);
    CHECK(strlen(trace), ==, 32);
}

static int results, releases;

static void note_result(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop, (void)result, (void)flags, (void)arg;
    results++;
}

static void note_release(void *arg)
{
    (void)arg;
    releases++;
}

/* The end of a registered file posts a completion whose number is the tag: none of them is the end of the receive. */
static void s22_tags_of_registered_files_are_ends_of_nothing(void)
{
    enum { FILES = 8 };
    loop_t *loop = new_loop();
    struct io_uring_rsrc_register files;
    struct io_uring_rsrc_update2 update;
    __u64 tags[FILES];
    int fds[2], registered[FILES], none[FILES];
    char byte;

    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    results = releases = 0;
    REQUIRE(loop_on_release(loop, loop_recv(loop, fds[0], &byte, 1, 0, note_result, NULL), note_release), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    for (int i = 0; i < FILES; i++) {
        registered[i] = fds[0];
        none[i] = -1;
        tags[i] = (__u64)i + 1;
    }
    memset(&files, 0, sizeof files);
    files.nr = FILES;
    files.data = (uintptr_t)registered;
    files.tags = (uintptr_t)tags;
    REQUIRE(syscall(SYS_io_uring_register, loop_ring_fd(loop), IORING_REGISTER_FILES2, &files, sizeof files), ==, 0);
    memset(&update, 0, sizeof update);
    update.nr = FILES;
    update.data = (uintptr_t)none;
    REQUIRE(syscall(SYS_io_uring_register, loop_ring_fd(loop), IORING_REGISTER_FILES_UPDATE2, &update, sizeof update), ==, FILES);
    for (int i = 0; i < 3; i++) CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(results, ==, 0);
    CHECK(releases, ==, 0);
    CHECK(loop_close(loop), ==, 0);
    CHECK(releases, ==, 1);
    close(fds[0]);
    close(fds[1]);
}

static const struct check_test tests[] = {
    TEST(s22_closing_a_running_loop_is_busy_and_nothing_is_lost),
    TEST(s22_closing_in_a_hook_is_busy),
    TEST(s22_closing_in_a_walk_is_busy),
    TEST(s22_closing_in_a_slow_callback_is_busy),
    TEST(s22_close_runs_no_callback),
    TEST(s22_close_with_a_timer_armed_in_the_kernel),
    TEST(s22_close_a_loop_that_never_ran),
    TEST(s22_close_leaves_no_descriptor_behind),
    TEST(s22_close_within),
    TEST(s22_close_of_nothing_is_nothing),
    TEST(s22_shutdown_cancels_everything_and_takes_nothing_new),
    TEST(s22_shutdown_of_an_idle_loop),
    TEST(s22_shutdown_twice_does_no_harm),
    TEST(s24_a_new_loop_owes_nothing_to_a_closed_one),
    TEST(many_loops_at_once),
    TEST(s22_tags_of_registered_files_are_ends_of_nothing),
};

CHECK_MAIN(tests)
