/* Operations: loop_submit() and what is asked of the kernel through it. S13, S14, S22, S28. */
#include "check.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/socket.h>

/* ---- helpers ---- */

/* What an operation came to. */
struct seen {
    int times, finals;
    int32_t result;
    uint32_t flags;
    int released;
};

static void note(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct seen *seen = arg;

    (void)loop;
    CHECK(seen->finals, ==, 0);
    CHECK(seen->released, ==, 0);
    seen->times++;
    seen->finals += !(flags & LOOP_MORE);
    seen->result = result;
    seen->flags = flags;
}

static void note_release(void *arg)
{
    struct seen *seen = arg;

    seen->released++;
}

static void make_pair(int fds[2])
{
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
}

static void close_pair(const int fds[2])
{
    close(fds[0]);
    close(fds[1]);
}

static struct io_uring_sqe nop(void)
{
    struct io_uring_sqe sqe;

    memset(&sqe, 0, sizeof sqe);
    sqe.opcode = IORING_OP_NOP;
    return sqe;
}

/* ---- submitting ---- */

static void an_operation_gives_its_result_once(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    struct io_uring_sqe sqe = nop();
    loop_handle_t handle = loop_submit(loop, &sqe, note, &seen);

    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, note_release), ==, 0);
    CHECK_TRUE(loop_is_pending(loop, handle));
    CHECK_TRUE(loop_is_alive(loop));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.times, ==, 1);
    CHECK(seen.result, ==, 0);
    CHECK(seen.released, ==, 1);
    CHECK_TRUE(!loop_is_pending(loop, handle));
    CHECK(loop_cancel(loop, handle), ==, -ENOENT);
    CHECK(loop_close(loop), ==, 0);
}

static void data_goes_through_a_socket(void)
{
    loop_t *loop = new_loop();
    struct seen sent = {0}, received = {0};
    char buffer[16] = "";
    int fds[2];

    make_pair(fds);
    REQUIRE(loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &received), >, 0);
    REQUIRE(loop_send(loop, fds[1], "hello", 5, 0, note, &sent), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(sent.result, ==, 5);
    CHECK(received.result, ==, 5);
    CHECK_TEXT(buffer, "hello");
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static void a_full_submission_queue_loses_nothing(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop;
    struct seen seen[1000];
    struct io_uring_sqe sqe = nop();

    options.sq_entries = 4;
    options.cq_entries = 4;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < 1000; i++) REQUIRE(loop_submit(loop, &sqe, note, &seen[i]), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    for (int i = 0; i < 1000; i++) CHECK(seen[i].finals, ==, 1);
    CHECK(loop_close(loop), ==, 0);
}

/* ---- cancelling ---- */

static void s13_cancelling_asks_and_the_final_callback_comes(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char buffer[16];
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen);
    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, note_release), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(seen.times, ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.finals, ==, 1);
    CHECK(seen.result, ==, -ECANCELED);
    CHECK(seen.released, ==, 1);
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static void s13_an_operation_cancelled_before_the_kernel_knows_it_ends_too(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char buffer[16];
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen);
    REQUIRE(handle, >, 0);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.result, ==, -ECANCELED);
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static void s13_a_deadline_cuts_an_operation_short(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char buffer[16];
    int fds[2];
    loop_handle_t handle;
    uint64_t due = loop_time(loop) + LOOP_MSEC(5);

    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen);
    REQUIRE(handle, >, 0);
    CHECK(loop_set_deadline(loop, handle, due), ==, 0);
    CHECK(loop_next_deadline(loop), ==, due);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_time(loop), >=, due);
    CHECK(seen.result, ==, -ETIMEDOUT);
    CHECK(seen.flags & LOOP_TIMED_OUT, ==, LOOP_TIMED_OUT);
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static void a_deadline_that_is_removed_cuts_nothing_short(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char buffer[16];
    int fds[2];
    loop_handle_t handle, timer = loop_call_later(loop, LOOP_MSEC(3), do_nothing, NULL);

    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen);
    CHECK(loop_set_deadline(loop, timer, LOOP_NEVER), ==, -EINVAL);
    CHECK(loop_set_deadline(loop, handle, loop_time(loop) + LOOP_MSEC(1)), ==, 0);
    CHECK(loop_set_deadline(loop, handle, LOOP_NEVER), ==, 0);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(seen.times, ==, 0);
    CHECK(write(fds[1], "x", 1), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.result, ==, 1);
    CHECK(seen.flags, ==, 0);
    CHECK(loop_next_deadline(loop), ==, LOOP_NEVER);
    CHECK(loop_set_deadline(loop, handle, 1), ==, -ENOENT);
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

/* ---- the end ---- */

static void s22_closing_waits_for_the_kernel_and_calls_nobody(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char buffer[16];
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen);
    CHECK(loop_on_release(loop, handle, note_release), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_close(loop), ==, 0);
    CHECK(seen.times, ==, 0);
    CHECK(seen.released, ==, 1);
    /* The kernel does not read for it any more. */
    memset(buffer, 'a', sizeof buffer);
    CHECK(write(fds[1], "x", 1), ==, 1);
    CHECK(buffer[0], ==, 'a');
    close_pair(fds);
}

static void s22_shutdown_runs_until_the_last_final_callback(void)
{
    loop_t *loop = new_loop();
    struct seen seen[3] = {{0}};
    char buffer[3][16];
    int fds[2];

    make_pair(fds);
    for (int i = 0; i < 3; i++) REQUIRE(loop_recv(loop, fds[0], buffer[i], 16, 0, note, &seen[i]), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_shutdown(loop), ==, 0);
    for (int i = 0; i < 3; i++) CHECK(seen[i].result, ==, -ECANCELED);
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_recv(loop, fds[0], buffer[0], 16, 0, note, &seen[0]), ==, -ESHUTDOWN);
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static const struct check_test tests[] = {
    TEST(an_operation_gives_its_result_once),
    TEST(data_goes_through_a_socket),
    TEST(a_full_submission_queue_loses_nothing),
    TEST(s13_cancelling_asks_and_the_final_callback_comes),
    TEST(s13_an_operation_cancelled_before_the_kernel_knows_it_ends_too),
    TEST(s13_a_deadline_cuts_an_operation_short),
    TEST(a_deadline_that_is_removed_cuts_nothing_short),
    TEST(s22_closing_waits_for_the_kernel_and_calls_nobody),
    TEST(s22_shutdown_runs_until_the_last_final_callback),
};

CHECK_MAIN(tests)
