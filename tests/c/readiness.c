/* Watchers of descriptors: S6, S11, S12, S14, S19. */
#include "io.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

/* ---- helpers ---- */

struct seen {
    int times;
    uint32_t events;
    int released;
    /* What the callback does. */
    bool reads;
    loop_handle_t cancels, updates;
    uint32_t to;
};

static int order[16], ordered;

static void note(loop_t *loop, int fd, uint32_t events, void *arg)
{
    struct seen *seen = arg;
    char byte;

    CHECK(seen->released, ==, 0);
    seen->times++;
    seen->events = events;
    if (seen->reads) CHECK(read(fd, &byte, 1), ==, 1);
    if (seen->cancels) CHECK(loop_cancel(loop, seen->cancels), ==, 0);
    if (seen->updates) CHECK(loop_watch_update(loop, seen->updates, seen->to), ==, 0);
    seen->cancels = seen->updates = 0;
}

static void note_order(loop_t *loop, int fd, uint32_t events, void *arg)
{
    (void)loop, (void)fd, (void)events;
    if (ordered < 16) order[ordered++] = (int)(intptr_t)arg;
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

static void break_loop(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_break(loop), ==, 0);
}

/* Runs what is ready by now, twice: for what one iteration arms the next one sees. */
static int run_ready(loop_t *loop)
{
    int first = loop_run_once(loop, 0), second = loop_run_once(loop, 0);

    CHECK(first, >=, 0);
    CHECK(second, >=, 0);
    return first + second;
}

/* ---- levels ---- */

static void s12_a_watcher_is_called_as_long_as_its_descriptor_is_ready(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    int fds[2];
    char bytes[2];
    loop_handle_t handle;

    make_pair(fds);
    handle = watch(loop, fds[0], POLLIN, &seen);
    CHECK(run_ready(loop), ==, 0);
    CHECK(write(fds[1], "ab", 2), ==, 2);
    for (int i = 1; i <= 3; i++) {
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
        CHECK(seen.times, ==, i);
        CHECK(seen.events, ==, POLLIN);
    }
    CHECK(read(fds[0], bytes, 2), ==, 2);
    run_ready(loop);
    seen.times = 0;
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 0);
    CHECK(seen.released, ==, 1);
    CHECK(loop_cancel(loop, handle), ==, -ENOENT);
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static void s06_watchers_of_a_descriptor_run_in_the_order_of_their_registration(void)
{
    loop_t *loop = new_loop();
    int fds[2];

    make_pair(fds);
    ordered = 0;
    CHECK(write(fds[1], "a", 1), ==, 1);
    for (int i = 0; i < 8; i++)
        REQUIRE(loop_watch_fd(loop, fds[0], i % 2 ? POLLIN : POLLIN | POLLOUT, note_order, (void *)(intptr_t)i), >, 0);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 8);
    CHECK(ordered, ==, 8);
    for (int i = 0; i < 8; i++) CHECK(order[i], ==, i);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
}

static void each_watcher_gets_what_it_asked_for(void)
{
    loop_t *loop = new_loop();
    struct seen in = {0}, out = {0}, both = {0};
    int fds[2];

    make_pair(fds);
    watch(loop, fds[0], POLLIN, &in);
    watch(loop, fds[0], POLLOUT, &out);
    watch(loop, fds[0], POLLIN | POLLOUT, &both);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 2);
    CHECK(in.times, ==, 0);
    CHECK(out.events, ==, POLLOUT);
    CHECK(both.events, ==, POLLOUT);
    CHECK(write(fds[1], "a", 1), ==, 1);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 3);
    CHECK(in.events, ==, POLLIN);
    CHECK(out.events, ==, POLLOUT);
    CHECK(both.events, ==, POLLIN | POLLOUT);
    CHECK(loop_close(loop), ==, 0);
    CHECK(in.released + out.released + both.released, ==, 3);
    close_pair(fds);
}

static void s12_hang_ups_reach_every_watcher_the_paused_too(void)
{
    loop_t *loop = new_loop();
    struct seen in = {0}, paused = {0};
    int fds[2];

    make_pair(fds);
    watch(loop, fds[0], POLLIN, &in);
    watch(loop, fds[0], 0, &paused);
    CHECK(run_ready(loop), ==, 0);
    close(fds[1]);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 2);
    CHECK(in.events, ==, POLLIN | POLLHUP);
    CHECK(paused.events, ==, POLLHUP);
    CHECK(loop_close(loop), ==, 0);
    close(fds[0]);
}

static void s12_errors_are_reported_to_who_waits_for_room(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    int fds[2];

    REQUIRE(pipe2(fds, O_CLOEXEC), ==, 0);
    watch(loop, fds[1], 0, &seen);
    CHECK(run_ready(loop), ==, 0);
    close(fds[0]);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(seen.events, ==, POLLERR);
    CHECK(loop_close(loop), ==, 0);
    close(fds[1]);
}

/* ---- cancel, update ---- */

static void s12_cancelling_drops_what_is_queued(void)
{
    loop_t *loop = new_loop();
    struct seen first = {0}, second = {0};
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    watch(loop, fds[0], POLLOUT, &first);
    handle = watch(loop, fds[0], POLLOUT, &second);
    first.cancels = handle;
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(second.times, ==, 0);
    CHECK(second.released, ==, 1);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
}

static void s12_an_update_drops_what_is_asked_for_no_more(void)
{
    loop_t *loop = new_loop();
    struct seen first = {0}, second = {0};
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    watch(loop, fds[0], POLLOUT, &first);
    handle = watch(loop, fds[0], POLLIN | POLLOUT, &second);
    CHECK(write(fds[1], "a", 1), ==, 1);
    first.updates = handle;
    first.to = POLLIN;
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 2);
    CHECK(second.events, ==, POLLIN);
    first.updates = handle;
    first.to = 0;
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(second.times, ==, 1);
    /* Paused, and back again. */
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(loop_watch_update(loop, handle, POLLIN), ==, 0);
    loop_run_once(loop, LOOP_NEVER);
    loop_run_once(loop, LOOP_NEVER);
    CHECK(second.times, >=, 2);
    CHECK(loop_watch_update(loop, handle, 1u << 31), ==, -EINVAL);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
}

static void an_update_reaches_a_sleeping_poll(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    handle = watch(loop, fds[0], POLLIN, &seen);
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_watch_update(loop, handle, POLLIN | POLLOUT), ==, 0);
    CHECK(loop_run_once(loop, LOOP_SEC(5)) + loop_run_once(loop, LOOP_SEC(5)), >=, 1);
    CHECK(seen.events, ==, POLLOUT);
    CHECK(loop_watch_update(loop, handle, POLLIN), ==, 0);
    run_ready(loop);
    seen.times = 0;
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 0);
    CHECK(loop_watch_update(loop, handle, POLLIN), ==, -ENOENT);
    CHECK(loop_watch_update(loop, loop_call_soon(loop, do_nothing, NULL), POLLIN), ==, -EINVAL);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
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

static void a_watcher_in_the_rest_of_a_batch_stands_there_once(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    int fds[2];

    make_pair(fds);
    REQUIRE(loop_call_soon(loop, break_loop, NULL), >, 0);
    watch(loop, fds[0], POLLOUT, &seen);
    CHECK(loop_run_forever(loop), ==, LOOP_BROKEN);
    for (int i = 0; i < 3; i++) {
        REQUIRE(loop_call_soon(loop, break_loop, NULL), >, 0);
        CHECK(loop_run_forever(loop), ==, LOOP_BROKEN);
    }
    CHECK(seen.times, <=, 3);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
}

/* ---- refusals ---- */

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
    CHECK(loop_watch_fd(loop, 0, POLLIN, NULL, &seen), ==, -EINVAL);
    CHECK(loop_watch_fd(loop, 0, 1u << 30, note, &seen), ==, -EINVAL);
    CHECK(loop_watch_fd(NULL, 0, POLLIN, note, &seen), ==, -EINVAL);
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
    /* What is armed next fails: the watcher is told, and has ended. */
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
    /* The hang-up of the file that was, then the data of the one that is. */
    CHECK(seen.times, >=, 2);
    CHECK(seen.events, ==, POLLIN);
    CHECK(loop_close(loop), ==, 0);
    CHECK(seen.released, ==, 1);
    close_pair(others);
}

/* ---- loop_forget_fd() ---- */

/* The poll of the one before still stands in the kernel then, on the other file. */
static void s12_a_number_that_is_another_file_by_now_is_watched_anew(void)
{
    loop_t *loop = new_loop();
    struct seen former = {0}, seen = {0};
    int first[2], second[2];
    loop_handle_t handle;

    make_pair(first);
    handle = watch(loop, first[0], POLLIN, &former);
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 0);
    close(first[0]);
    make_pair(second);
    REQUIRE(second[0], ==, first[0]);
    seen.reads = true;
    handle = watch(loop, second[0], POLLIN, &seen);
    CHECK(run_ready(loop), ==, 0);
    CHECK(write(second[1], "a", 1), ==, 1);
    CHECK(loop_run_once(loop, LOOP_SEC(5)), ==, 1);
    CHECK(seen.times, ==, 1);
    CHECK(former.times, ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 0);
    close(first[1]);
    close_pair(second);
    CHECK(loop_close(loop), ==, 0);
}

static void s12_a_descriptor_that_is_forgotten_really_closes(void)
{
    loop_t *loop = new_loop();
    struct seen seen[2] = {{0}};
    int fds[2];
    char byte;

    make_pair(fds);
    watch(loop, fds[0], POLLIN, &seen[0]);
    watch(loop, fds[0], POLLIN, &seen[1]);
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 0);
    CHECK(seen[0].released + seen[1].released, ==, 2);
    close(fds[0]);
    /* The peer sees the end of file at once. */
    CHECK(recv(fds[1], &byte, 1, MSG_DONTWAIT), ==, 0);
    close(fds[1]);
    CHECK(loop_forget_fd(loop, 12345), ==, 0);
    CHECK(loop_forget_fd(loop, -1), ==, -EBADF);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_close(loop), ==, 0);
}

static void note_result(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    int32_t *at = arg;

    (void)loop;
    CHECK(flags, ==, 0);
    *at = result;
}

static void s12_operations_on_it_end_too(void)
{
    loop_t *loop = new_loop();
    int32_t results[3] = {1, 1, 1};
    int fds[2], dup_of_it;
    char buffer[3][8], byte;
    loop_handle_t other;

    make_pair(fds);
    dup_of_it = dup(fds[0]);
    for (int i = 0; i < 2; i++) REQUIRE(loop_recv(loop, fds[0], buffer[i], 8, 0, note_result, &results[i]), >, 0);
    other = loop_recv(loop, dup_of_it, buffer[2], 8, 0, note_result, &results[2]);
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 0);
    CHECK(results[0], ==, 1);
    close(fds[0]);
    CHECK(loop_run_once(loop, 0), ==, 2);
    CHECK(results[0], ==, -ECANCELED);
    CHECK(results[1], ==, -ECANCELED);
    /* Another descriptor of the same file is another thing. */
    CHECK(results[2], ==, 1);
    CHECK(loop_forget_fd(loop, dup_of_it), ==, 0);
    close(dup_of_it);
    CHECK(recv(fds[1], &byte, 1, MSG_DONTWAIT), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TRUE(!loop_is_pending(loop, other));
    close(fds[1]);
    CHECK(loop_close(loop), ==, 0);
}

static int results;

static void count_result(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop, (void)result, (void)flags, (void)arg;
    results++;
}

static void s12_what_is_spliced_from_is_forgotten_too(void)
{
    loop_t *loop = new_loop();
    int from[2], to[2], left;

    REQUIRE(pipe2(from, O_CLOEXEC), ==, 0);
    REQUIRE(pipe2(to, O_CLOEXEC), ==, 0);
    results = 0;
    REQUIRE(loop_splice(loop, from[0], LOOP_CURRENT, to[1], LOOP_CURRENT, 100, 0, count_result, NULL), >, 0);
    CHECK(loop_run_once(loop, LOOP_MSEC(1)), ==, 0);
    /* It may be a thread of the kernel's that has it, which lets go a little later. */
    left = loop_forget_fd(loop, from[0]);
    CHECK_TRUE(left == 0 || left == 1);
    while (!results) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    CHECK(loop_forget_fd(loop, from[0]), ==, 0);
    close(from[0]);
    signal(SIGPIPE, SIG_IGN);
    CHECK(write(from[1], "a", 1), ==, -1);
    CHECK(errno, ==, EPIPE);
    signal(SIGPIPE, SIG_DFL);
    close(from[1]);
    close_pair(to);
    CHECK(loop_close(loop), ==, 0);
}

static uint64_t enters(const loop_t *loop)
{
    loop_metrics_t metrics = {0};

    metrics.size = sizeof metrics;
    REQUIRE(loop_metrics(loop, &metrics), ==, 0);
    return metrics.enters;
}

static bool has_ended(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static void s12_a_file_is_closed_by_close_after_its_last_watcher(void)
{
    loop_t *loop = new_loop();
    struct seen seen[2] = {{0}};
    loop_handle_t first, last;
    uint64_t before;
    int fds[2];

    make_pair(fds);
    first = watch(loop, fds[0], POLLIN, &seen[0]);
    last = watch(loop, fds[0], POLLIN, &seen[1]);
    CHECK(loop_run_once(loop, 0), ==, 0);
    before = enters(loop);
    CHECK(loop_cancel(loop, first), ==, 0);
    CHECK(enters(loop) - before, ==, 0);
    CHECK(loop_cancel(loop, last), ==, 0);
    CHECK(enters(loop) - before, ==, 1);
    close(fds[0]);
    CHECK_TRUE(has_ended(fds[1]));
    close(fds[1]);
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

/* The kernel does not know what waits in a chain, and so does not end it, however often it is asked. */
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
    before = enters(loop);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 1);
    CHECK(enters(loop) - before, <=, 3);
    CHECK(seen.released, ==, 1);
    before = enters(loop);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 1);
    CHECK(enters(loop) - before, <=, 3);
    CHECK(loop_run_once(loop, 0), ==, 10);
    /* It is asked again when its turn in the chain has come. */
    CHECK(loop_cancel(loop, handles[0]), ==, 1);
    while (results < 12) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 0);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
    close_pair(elsewhere);
}

/* All receives of a descriptor end in as many calls as it takes to queue that, and one or two more. */
static void s12_many_operations_on_a_descriptor_end_together(void)
{
    enum { RECEIVES = 2000, ENTRIES = 128 };
    loop_t *loop = new_loop();
    static char bytes[RECEIVES];
    uint64_t before;
    int fds[2];

    make_pair(fds);
    results = 0;
    for (int i = 0; i < RECEIVES; i++) REQUIRE(loop_recv(loop, fds[0], &bytes[i], 1, 0, count_result, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    before = enters(loop);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 0);
    CHECK(enters(loop) - before, <=, RECEIVES / ENTRIES + 4);
    close(fds[0]);
    CHECK_TRUE(has_ended(fds[1]));
    while (results < RECEIVES) CHECK(loop_run_once(loop, 0), >, 0);
    close(fds[1]);
    CHECK(loop_close(loop), ==, 0);
}

/* Somebody else reads what has woken a poll, before the kernel looks: it refuses to change the poll then, which goes on to wait for what it
 * was armed for. */
static void s12_an_update_reaches_a_poll_that_was_woken_in_vain(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    loop_handle_t handle;
    int fds[2];
    char byte;

    make_pair(fds);
    handle = watch(loop, fds[0], POLLIN, &seen);
    CHECK(run_ready(loop), ==, 0);
    for (int i = 0; i < 3; i++) {
        seen.events = 0;
        CHECK(write(fds[1], "a", 1), ==, 1);
        CHECK(read(fds[0], &byte, 1), ==, 1);
        CHECK(loop_watch_update(loop, handle, POLLIN | POLLOUT), ==, 0);
        for (int j = 0; j < 5 && !(seen.events & POLLOUT); j++) CHECK(loop_run_once(loop, LOOP_SEC(1)), >=, 0);
        CHECK_TRUE(seen.events & POLLOUT);
        CHECK(loop_watch_update(loop, handle, POLLIN), ==, 0);
        run_ready(loop);
    }
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
}

/* What a release hook ends, and closes. */
static struct {
    loop_t *loop;
    loop_handle_t watcher;
    int fd, peer, calls;
} hooked;

static void cancel_another_and_close(void *arg)
{
    (void)arg;
    hooked.calls++;
    CHECK(loop_cancel(hooked.loop, hooked.watcher), ==, 0);
    close(hooked.fd);
    CHECK_TRUE(has_ended(hooked.peer));
}

static void s12_a_hook_of_forget_fd_may_cancel_another_and_close(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    loop_handle_t first;
    int fds[2], others[2];

    make_pair(fds);
    make_pair(others);
    first = loop_watch_fd(loop, fds[0], POLLIN, note, &seen);
    REQUIRE(first, >, 0);
    CHECK(loop_on_release(loop, first, cancel_another_and_close), ==, 0);
    hooked.loop = loop;
    hooked.watcher = watch(loop, others[0], POLLIN, &seen);
    hooked.fd = others[0];
    hooked.peer = others[1];
    hooked.calls = 0;
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 0);
    CHECK(hooked.calls, ==, 1);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
    close(others[1]);
}

/* What completes elsewhere fills the queue of completions, and what ends here waits in the kernel behind it. */
static void s12_forgetting_sees_the_end_behind_a_full_queue(void)
{
    enum { OTHERS = 30 };
    loop_options_t options = LOOP_OPTIONS_INIT;
    static int others[OTHERS][2];
    static char bytes[OTHERS + 1];
    loop_t *loop;
    int fds[2];

    options.sq_entries = 2;
    options.cq_entries = 4;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    results = 0;
    for (int i = 0; i < OTHERS; i++) {
        make_pair(others[i]);
        REQUIRE(loop_recv(loop, others[i][0], &bytes[i], 1, 0, count_result, NULL), >, 0);
    }
    make_pair(fds);
    REQUIRE(loop_recv(loop, fds[0], &bytes[OTHERS], 1, 0, count_result, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    for (int i = 0; i < OTHERS; i++) CHECK(write(others[i][1], "a", 1), ==, 1);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 0);
    close(fds[0]);
    CHECK_TRUE(has_ended(fds[1]));
    while (results <= OTHERS) REQUIRE(loop_run_once(loop, LOOP_SEC(5)), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_close(loop), ==, 0);
    close(fds[1]);
    for (int i = 0; i < OTHERS; i++) close_pair(others[i]);
}

/* Where others have a descriptor, the entry of a WAITID has the number of a process. */
static void forgetting_a_number_ends_nothing_else(void)
{
    enum { WAITID = 50 };
    loop_t *loop = new_loop();
    struct io_uring_sqe entry;
    pid_t pid = fork();

    REQUIRE(pid, >=, 0);
    if (pid == 0) {
        pause();
        _exit(0);
    }
    memset(&entry, 0, sizeof entry);
    entry.opcode = WAITID;
    entry.fd = pid;
    entry.len = P_PID;
    entry.splice_fd_in = WEXITED | WNOWAIT;
    results = 0;
    if (loop_supports(loop, WAITID)) {
        REQUIRE(loop_submit(loop, &entry, count_result, NULL), >, 0);
        CHECK(loop_forget_fd(loop, pid), ==, 0);
        CHECK(loop_run_once(loop, LOOP_MSEC(10)), ==, 0);
        CHECK(results, ==, 0);
    }
    CHECK(loop_close(loop), ==, 0);
    CHECK(kill(pid, SIGKILL), ==, 0);
    CHECK(waitpid(pid, NULL, 0), ==, pid);
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

/* The queue to the kernel is the parent's: the child must leave it alone. */
static void s33_a_child_forked_by_forgetting_submits_nothing(void)
{
    loop_t *loop = new_loop();
    loop_metrics_t before, after;
    struct seen seen = {0};
    loop_handle_t handle;
    int fds[2], forgotten;
    char byte;

    memset(&before, 0, sizeof before);
    before.size = sizeof before;
    after = before;
    make_pair(fds);
    results = 0;
    REQUIRE(loop_recv(loop, fds[0], &byte, 1, 0, count_result, NULL), >, 0);
    handle = loop_watch_fd(loop, fds[0], POLLIN, note, &seen);
    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, fork_in_release), ==, 0);
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_metrics(loop, &before), ==, 0);
    forgotten = loop_forget_fd(loop, fds[0]);
    if (is_child) _exit(forgotten == -EOWNERDEAD ? 0 : 1);
    CHECK(forgotten, ==, 0);
    CHECK(loop_metrics(loop, &after), ==, 0);
    CHECK(after.submitted - before.submitted, ==, 2);
    while (!results) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static void a_port_is_free_after_forget_and_close(void)
{
    loop_t *loop = new_loop();
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    int32_t result = 1;
    struct seen seen = {0};

    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < 3; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        REQUIRE(bind(fd, (struct sockaddr *)&address, sizeof address), ==, 0);
        REQUIRE(listen(fd, 5), ==, 0);
        REQUIRE(getsockname(fd, (struct sockaddr *)&address, &length), ==, 0);
        watch(loop, fd, POLLIN, &seen);
        REQUIRE(loop_accept(loop, fd, SOCK_CLOEXEC, note_result, &result), >, 0);
        CHECK(run_ready(loop), ==, 0);
        CHECK(loop_forget_fd(loop, fd), ==, 0);
        close(fd);
        CHECK(run_ready(loop), ==, 1);
        CHECK(result, ==, -ECANCELED);
    }
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_close(loop), ==, 0);
}

static int in_vain, emptied;

static void read_and_forget(loop_t *loop, int fd, uint32_t events, void *arg)
{
    char byte;

    (void)events;
    if (recv(fd, &byte, 1, MSG_DONTWAIT) < 0) in_vain++;
    emptied++;
    if (arg) {
        CHECK(loop_forget_fd(loop, fd), ==, 0);
        close(fd);
    }
}

/* What is ready beside it is not polled before its callback has run: that would tell of what has been read by then. */
static void forgetting_leaves_the_rest_of_the_batch_alone(void)
{
    enum { PAIRS = 400 };
    loop_t *loop = new_loop();
    static int fds[PAIRS][2];
    loop_metrics_t metrics;

    in_vain = emptied = 0;
    for (int i = 0; i < PAIRS; i++) {
        make_pair(fds[i]);
        CHECK(write(fds[i][1], "a", 1), ==, 1);
        REQUIRE(loop_watch_fd(loop, fds[i][0], POLLIN, read_and_forget, i % 2 ? fds : NULL), >, 0);
    }
    while (emptied < PAIRS) REQUIRE(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    for (int i = 0; i < 3; i++) CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(in_vain, ==, 0);
    CHECK(emptied, ==, PAIRS);
    memset(&metrics, 0, sizeof metrics);
    metrics.size = sizeof metrics;
    CHECK(loop_metrics(loop, &metrics), ==, 0);
    /* Each is armed once, those that are left once more, and half of them have nothing to cancel. */
    CHECK(metrics.submitted, <, 3 * PAIRS);
    CHECK(loop_close(loop), ==, 0);
    for (int i = 0; i < PAIRS; i++) {
        close(fds[i][1]);
        if (i % 2 == 0) close(fds[i][0]);
    }
}

/* ---- the rest ---- */

static void remember(loop_t *loop, const loop_info_t *info, void *arg)
{
    (void)loop;
    memcpy(arg, info, sizeof *info);
}

static void walk_shows_the_descriptor(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    loop_info_t info;
    int fds[2];

    memset(&info, 0, sizeof info);
    make_pair(fds);
    watch(loop, fds[0], POLLIN, &seen);
    CHECK(run_ready(loop), ==, 0);
    CHECK(loop_walk(loop, remember, &info), ==, 0);
    CHECK(info.kind, ==, LOOP_KIND_WATCH);
    CHECK(info.fd, ==, fds[0]);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
}

static void s19_an_unreferenced_watcher_keeps_no_run_alive(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    int fds[2];

    make_pair(fds);
    CHECK(loop_unref(loop, watch(loop, fds[0], POLLIN, &seen)), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
}

static void a_thousand_watchers_come_and_go(void)
{
    loop_t *loop = new_loop();
    static struct seen seen[1000];
    static loop_handle_t handles[1000];
    int fds[2];
    loop_metrics_t metrics;

    make_pair(fds);
    for (int round = 0; round < 3; round++) {
        memset(seen, 0, sizeof seen);
        for (int i = 0; i < 1000; i++) handles[i] = watch(loop, fds[i % 2], POLLOUT, &seen[i]);
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1000);
        for (int i = 0; i < 1000; i++) CHECK(loop_cancel(loop, handles[i]), ==, 0);
        for (int i = 0; i < 1000; i++) CHECK(seen[i].released, ==, 1);
        run_ready(loop);
    }
    memset(&metrics, 0, sizeof metrics);
    metrics.size = sizeof metrics;
    CHECK(loop_metrics(loop, &metrics), ==, 0);
    /* One poll for each descriptor, not one for each watcher. */
    CHECK(metrics.submitted, <, 50);
    CHECK(loop_close(loop), ==, 0);
    close_pair(fds);
}

static const struct check_test tests[] = {
    TEST(s12_a_watcher_is_called_as_long_as_its_descriptor_is_ready),
    TEST(s06_watchers_of_a_descriptor_run_in_the_order_of_their_registration),
    TEST(each_watcher_gets_what_it_asked_for),
    TEST(s12_hang_ups_reach_every_watcher_the_paused_too),
    TEST(s12_errors_are_reported_to_who_waits_for_room),
    TEST(s12_cancelling_drops_what_is_queued),
    TEST(s12_an_update_drops_what_is_asked_for_no_more),
    TEST(an_update_reaches_a_sleeping_poll),
    TEST(s14_a_watcher_may_cancel_itself),
    TEST(a_watcher_in_the_rest_of_a_batch_stands_there_once),
    TEST(what_epoll_refuses_is_refused),
    TEST(a_descriptor_closed_under_a_watcher_ends_it),
    TEST(a_descriptor_reused_under_a_watcher_is_watched),
    TEST(s12_a_number_that_is_another_file_by_now_is_watched_anew),
    TEST(s12_a_descriptor_that_is_forgotten_really_closes),
    TEST(s12_operations_on_it_end_too),
    TEST(s12_what_is_spliced_from_is_forgotten_too),
    TEST(s12_a_file_is_closed_by_close_after_its_last_watcher),
    TEST(s12_what_does_not_end_costs_no_more_calls),
    TEST(s12_many_operations_on_a_descriptor_end_together),
    TEST(s12_an_update_reaches_a_poll_that_was_woken_in_vain),
    TEST(s12_a_hook_of_forget_fd_may_cancel_another_and_close),
    TEST(s12_forgetting_sees_the_end_behind_a_full_queue),
    TEST(forgetting_a_number_ends_nothing_else),
    TEST_NOT_UNDER("valgrind", s33_a_child_forked_by_forgetting_submits_nothing,
                   "what the child forgets is a leak there, as it must be"),
    TEST(a_port_is_free_after_forget_and_close),
    TEST(forgetting_leaves_the_rest_of_the_batch_alone),
    TEST(walk_shows_the_descriptor),
    TEST(s19_an_unreferenced_watcher_keeps_no_run_alive),
    TEST(a_thousand_watchers_come_and_go),
};

CHECK_MAIN(tests)
