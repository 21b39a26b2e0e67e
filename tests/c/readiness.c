/* Watchers of descriptors: their callbacks in C, and descriptors closed while they are watched. S12, S14, S33. */
#include "io.h"

#include <fcntl.h>
#include <linux/io_uring.h>

/* ---- helpers ---- */

struct seen {
    int times, fd;
    uint32_t events;
    int released;
    loop_handle_t cancels; /* by the callback */
};

static void note(loop_t *loop, int fd, uint32_t events, void *arg)
{
    struct seen *seen = arg;

    CHECK(seen->released, ==, 0);
    seen->times++;
    seen->fd = fd;
    seen->events = events;
    if (seen->cancels) CHECK(loop_cancel(loop, seen->cancels), ==, 0);
    seen->cancels = 0;
}

static void note_release(void *arg)
{
    struct seen *seen = arg;

    seen->released++;
}

static loop_handle_t watch(loop_t *loop, int fd, uint32_t events, struct seen *seen)
{
    loop_handle_t handle = loop_watch_fd(loop, fd, events, note, seen);

    REQUIRE(handle, >, 0);
    REQUIRE(loop_on_release(loop, handle, note_release), ==, 0);
    return handle;
}

/* Runs two iterations without waiting: polls that the first one arms complete in the second one. */
static int run_ready(loop_t *loop)
{
    int first = loop_run_once(loop, 0), second = loop_run_once(loop, 0);

    CHECK(first, >=, 0);
    CHECK(second, >=, 0);
    return first + second;
}

static void remember(loop_t *loop, const loop_info_t *info, void *arg)
{
    (void)loop;
    memcpy(arg, info, sizeof *info);
}

static void s12_a_watcher_is_called_as_long_as_its_descriptor_is_ready(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    loop_info_t info;
    int fds[2];
    char bytes[2];
    loop_handle_t handle;

    make_pair(fds);
    handle = watch(loop, fds[0], POLLIN, &seen);
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_walk(loop, remember, &info), ==, 0);
    CHECK(info.kind, ==, LOOP_KIND_WATCH);
    CHECK(info.fd, ==, fds[0]);
    CHECK(write(fds[1], "ab", 2), ==, 2);
    for (int i = 1; i <= 3; i++) {
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
        CHECK(seen.times, ==, i);
        CHECK(seen.fd, ==, fds[0]);
        CHECK(seen.events, ==, POLLIN);
    }
    CHECK(read(fds[0], bytes, 2), ==, 2);
    run_ready(loop);
    seen.times = 0;
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_watch_update(loop, handle, POLLOUT), ==, 0);
    CHECK(loop_run_once(loop, LOOP_SEC(5)) + loop_run_once(loop, LOOP_SEC(5)), >=, 1);
    CHECK(seen.events, ==, POLLOUT);
    CHECK(loop_watch_update(loop, handle, 1u << 31), ==, -EINVAL);
    CHECK(loop_watch_update(loop, loop_call_soon(loop, do_nothing, NULL), POLLIN), ==, -EINVAL);
    CHECK(loop_cancel(loop, handle), ==, 0);
    CHECK(seen.released, ==, 1);
    CHECK(loop_cancel(loop, handle), ==, -ENOENT);
    CHECK(loop_watch_update(loop, handle, POLLIN), ==, -ENOENT);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static void s14_a_watcher_may_cancel_itself(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    int fds[2];

    make_pair(fds);
    seen.cancels = watch(loop, fds[0], POLLOUT, &seen);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.times, ==, 1);
    CHECK(seen.released, ==, 1);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
}

static void what_epoll_refuses_is_refused(void)
{
    loop_t *loop = new_loop();
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), directory = open("/", O_RDONLY | O_CLOEXEC);
    struct seen seen = {0};

    CHECK(loop_watch_fd(loop, file, POLLIN, note, &seen), ==, -EPERM);
    CHECK(loop_watch_fd(loop, directory, POLLIN, note, &seen), ==, -EPERM);
    close(file);
    CHECK(loop_watch_fd(loop, file, POLLIN, note, &seen), ==, -EBADF);
    CHECK(loop_watch_fd(loop, -1, POLLIN, note, &seen), ==, -EBADF);
    CHECK(loop_watch_fd(loop, 0, 1u << 30, note, &seen), ==, -EINVAL);
    CHECK_TRUE(!loop_is_alive(loop));
    close(directory);
    CHECK(loop_close(loop), ==, 0);
}

static void a_descriptor_closed_under_a_watcher_ends_it(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    handle = watch(loop, fds[0], POLLOUT, &seen);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    close(fds[0]);
    /* The next poll fails: the watcher gets POLLNVAL, and ends. */
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.events, ==, POLLNVAL);
    CHECK(seen.times, ==, 2);
    CHECK(seen.released, ==, 1);
    CHECK_TRUE(!loop_is_pending(loop, handle));
    close(fds[1]);
    CHECK(loop_close(loop), ==, 0);
}

static void a_descriptor_reused_under_a_watcher_is_watched(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    int fds[2], others[2];

    make_pair(fds);
    watch(loop, fds[0], POLLIN, &seen);
    CHECK(run_ready(loop), ==, 0);
    close_pair(fds);
    make_pair(others);
    REQUIRE(others[0], ==, fds[0]);
    CHECK(write(others[1], "a", 1), ==, 1);
    for (int i = 0; i < 5; i++) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    /* The watcher gets the hang-up of the former file, then the data of the new one. */
    CHECK(seen.times, >=, 2);
    CHECK(seen.events, ==, POLLIN);
    CHECK(loop_close(loop), ==, 0);
    CHECK(seen.released, ==, 1);
    close_pair(others);
}

/* ---- loop_forget_fd() ---- */

static int results;

static void count_result(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop, (void)flags, (void)arg;
    CHECK(result, ==, -ECANCELED);
    results++;
}

static void s12_a_descriptor_that_is_forgotten_really_closes(void)
{
    loop_t *loop = new_loop();
    struct seen seen[2] = {{0}};
    int fds[2];
    char byte;

    make_pair(fds);
    results = 0;
    watch(loop, fds[0], POLLIN, &seen[0]);
    watch(loop, fds[0], POLLIN, &seen[1]);
    REQUIRE(loop_recv(loop, fds[0], &byte, 1, 0, count_result, NULL), >, 0);
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 0);
    CHECK(seen[0].released, ==, 1);
    CHECK(seen[1].released, ==, 1);
    CHECK(results, ==, 0);
    close(fds[0]);
    /* The peer gets end of file at once. */
    CHECK(recv(fds[1], &byte, 1, MSG_DONTWAIT), ==, 0);
    close(fds[1]);
    CHECK(loop_forget_fd(loop, 12345), ==, 0);
    CHECK(loop_forget_fd(loop, -1), ==, -EBADF);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(results, ==, 1);
    CHECK(loop_close(loop), ==, 0);
}

static struct io_uring_sqe poll_for_ever(int fd)
{
    struct io_uring_sqe sqe;

    memset(&sqe, 0, sizeof sqe);
    sqe.opcode = IORING_OP_POLL_ADD;
    sqe.fd = fd;
    sqe.poll_events = POLLPRI;
    return sqe;
}

/* The kernel does not know operations that wait in a chain, and cannot end them, however often the loop asks. */
static void s12_what_does_not_end_costs_no_more_calls(void)
{
    enum { OTHERS = 1000 };
    loop_t *loop = new_loop();
    struct io_uring_sqe sqes[2];
    loop_handle_t handles[2];
    void *args[2] = {NULL, NULL};
    struct seen seen = {0};
    int fds[2], elsewhere[2];
    uint64_t before;

    make_pair(fds);
    make_pair(elsewhere);
    sqes[0] = poll_for_ever(elsewhere[0]);
    results = 0;
    for (int i = 0; i < OTHERS; i++) REQUIRE(loop_submit(loop, &sqes[0], count_result, NULL), >, 0);
    sqes[1] = poll_for_ever(fds[0]);
    REQUIRE(loop_submit_chain(loop, sqes, 2, count_result, args, handles), ==, 0);
    watch(loop, fds[0], POLLIN, &seen);
    for (int i = 0; i < 10; i++) REQUIRE(loop_submit(loop, &sqes[1], count_result, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    before = metrics_of(loop).enters;
    CHECK(loop_forget_fd(loop, fds[0]), ==, 1);
    CHECK(metrics_of(loop).enters - before, <=, 3);
    CHECK(seen.released, ==, 1);
    before = metrics_of(loop).enters;
    CHECK(loop_forget_fd(loop, fds[0]), ==, 1);
    CHECK(metrics_of(loop).enters - before, <=, 3);
    CHECK(loop_run_once(loop, 0), ==, 10);
    /* The loop asks again when the operation's turn in the chain has come. */
    CHECK(loop_cancel(loop, handles[0]), ==, 1);
    while (results < 12) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 0);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
    close_pair(elsewhere);
}

static bool is_child;

static void fork_in_release(void *arg)
{
    pid_t pid = fork();
    int status = 0;

    (void)arg;
    REQUIRE(pid, >=, 0);
    is_child = pid == 0;
    if (is_child) return;
    CHECK(waitpid(pid, &status, 0), ==, pid);
    CHECK(status, ==, 0);
}

/* The submission queue is shared with the parent: the child must not write to it. */
static void s33_a_child_forked_by_forgetting_submits_nothing(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    loop_handle_t handle;
    int fds[2], forgotten;
    uint64_t before;
    char byte;

    make_pair(fds);
    results = 0;
    REQUIRE(loop_recv(loop, fds[0], &byte, 1, 0, count_result, NULL), >, 0);
    handle = loop_watch_fd(loop, fds[0], POLLIN, note, &seen);
    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, fork_in_release), ==, 0);
    CHECK(run_ready(loop), ==, 0);
    before = metrics_of(loop).submitted;
    forgotten = loop_forget_fd(loop, fds[0]);
    if (is_child) _exit(forgotten == -EOWNERDEAD ? 0 : 1);
    CHECK(forgotten, ==, 0);
    CHECK(metrics_of(loop).submitted - before, ==, 2);
    while (!results) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static const struct check_test tests[] = {
    TEST(s12_a_watcher_is_called_as_long_as_its_descriptor_is_ready),
    TEST(s14_a_watcher_may_cancel_itself),
    TEST(what_epoll_refuses_is_refused),
    TEST(a_descriptor_closed_under_a_watcher_ends_it),
    TEST(a_descriptor_reused_under_a_watcher_is_watched),
    TEST(s12_a_descriptor_that_is_forgotten_really_closes),
    TEST(s12_what_does_not_end_costs_no_more_calls),
    TEST_NOT_UNDER("valgrind", s33_a_child_forked_by_forgetting_submits_nothing,
                   "it reports the memory that the child abandons as a leak"),
};

CHECK_MAIN(tests)
