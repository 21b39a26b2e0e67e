/* Operations: loop_submit() and its requests to the kernel. S13, S14, S22, S28. */
#include "io.h"

#include <fcntl.h>
#include <pthread.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* ---- helpers ---- */

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
    struct outcome seen = {0};
    struct io_uring_sqe sqe = nop();
    loop_handle_t handle = loop_submit(loop, &sqe, note_outcome, &seen);

    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, release_outcome), ==, 0);
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

/* ---- cancelling ---- */

static void s13_cancelling_asks_and_the_final_callback_comes(void)
{
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    char buffer[16];
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note_outcome, &seen);
    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, release_outcome), ==, 0);
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

static void s13_a_deadline_cuts_an_operation_short(void)
{
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    char buffer[16];
    int fds[2];
    loop_handle_t handle;
    uint64_t due = loop_time(loop) + LOOP_MSEC(5);

    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note_outcome, &seen);
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
    struct outcome seen = {0};
    char buffer[16];
    int fds[2];
    loop_handle_t handle, timer = loop_call_later(loop, LOOP_MSEC(3), do_nothing, NULL);

    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note_outcome, &seen);
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

/* ---- chains ---- */

static struct io_uring_sqe transfer(uint8_t opcode, int fd, void *buffer, unsigned length)
{
    struct io_uring_sqe sqe = nop();

    sqe.opcode = opcode;
    sqe.fd = fd;
    sqe.addr = (uint64_t)(uintptr_t)buffer;
    sqe.len = length;
    return sqe;
}

static int order[8], ordered;

static void note_order(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct outcome *seen = arg;

    order[ordered++] = (int)(seen - (struct outcome *)loop_data(loop));
    note_outcome(loop, result, flags, arg);
}

/* Submits a chain; the callback of each operation writes to one element of `seen`. */
static int chain(loop_t *loop, const struct io_uring_sqe *sqes, size_t count, struct outcome *seen, loop_handle_t *handles)
{
    void *args[8];

    ordered = 0;
    loop_set_data(loop, seen);
    for (size_t i = 0; i < count; i++) args[i] = &seen[i];
    return loop_submit_chain(loop, sqes, count, note_order, args, handles);
}

static void a_chain_runs_one_after_the_other(void)
{
    loop_t *loop = new_loop();
    struct outcome seen[3] = {{0}};
    char received[8] = "";
    int fds[2];
    loop_handle_t handles[3];
    struct io_uring_sqe sqes[3];

    make_pair(fds);
    /* The send comes first in the chain, so that the receive finds data. */
    sqes[0] = transfer(IORING_OP_SEND, fds[1], (void *)"chain", 5);
    sqes[1] = nop();
    sqes[2] = transfer(IORING_OP_RECV, fds[0], received, sizeof received);
    CHECK(chain(loop, sqes, 3, seen, handles), ==, 0);
    for (int i = 0; i < 3; i++) CHECK_TRUE(loop_is_pending(loop, handles[i]));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(ordered, ==, 3);
    for (int i = 0; i < 3; i++) CHECK(order[i], ==, i);
    CHECK(seen[0].result, ==, 5);
    CHECK(seen[2].result, ==, 5);
    CHECK_TEXT(received, "chain");
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static void what_fails_ends_the_rest_of_its_chain(void)
{
    loop_t *loop = new_loop();
    struct outcome seen[3] = {{0}};
    /* The send fails when it begins. On 5.10 an operation that cannot be prepared (descriptor -1) ends a hard chain, too. */
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    struct io_uring_sqe sqes[3] = {transfer(IORING_OP_SEND, file, (void *)"x", 1), nop(), nop()};

    CHECK(chain(loop, sqes, 3, seen, NULL), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen[0].result, ==, -ENOTSOCK);
    CHECK(seen[1].result, ==, -ECANCELED);
    CHECK(seen[2].result, ==, -ECANCELED);
    /* A hard link does not cancel the rest of the chain. */
    memset(seen, 0, sizeof seen);
    sqes[0].flags = IOSQE_IO_HARDLINK;
    CHECK(chain(loop, sqes, 3, seen, NULL), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen[0].result, ==, -ENOTSOCK);
    CHECK(seen[1].result, ==, 0);
    CHECK(seen[2].result, ==, 0);
    close(file);
    CHECK(loop_close(loop), ==, 0);
}

/* An operation waits in a chain while it is cancelled, or while this number of its deadlines passes. */
static void wait_in_a_chain(int deadlines)
{
    loop_t *loop = new_loop();
    struct outcome seen[2] = {{0}};
    char received[8], second[8];
    int fds[2], others[2];
    loop_handle_t handles[2];
    struct io_uring_sqe sqes[2];
    uint64_t until;

    make_pair(fds);
    make_pair(others);
    sqes[0] = transfer(IORING_OP_RECV, fds[0], received, sizeof received);
    sqes[1] = transfer(IORING_OP_RECV, others[0], second, sizeof second);
    CHECK(chain(loop, sqes, 2, seen, handles), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    if (deadlines == 0)
        CHECK(loop_cancel(loop, handles[1]), ==, 1);
    for (int i = 0; i < deadlines || i == 0; i++) {
        if (deadlines)
            CHECK(loop_set_deadline(loop, handles[1], loop_time(loop) + LOOP_MSEC(5)), ==, 0);
        until = loop_time(loop) + LOOP_MSEC(20);
        while (loop_time(loop) < until) CHECK(loop_run_once(loop, until - loop_time(loop)), ==, 0);
    }
    /* The loop does not ask the kernel for the end again and again. */
    CHECK(metrics_of(loop).submitted, <, 30);
    CHECK(seen[1].times, ==, 0);
    CHECK(write(fds[1], "x", 1), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen[0].result, ==, 1);
    CHECK(seen[1].result, ==, deadlines ? -ETIMEDOUT : -ECANCELED);
    CHECK(seen[1].flags & LOOP_TIMED_OUT, ==, deadlines ? LOOP_TIMED_OUT : 0);
    close_pair(fds);
    close_pair(others);
    CHECK(loop_close(loop), ==, 0);
}

static void s13_cancelling_one_that_has_not_begun_ends_it_when_its_turn_comes(void)
{
    wait_in_a_chain(0);
}

/* The operation is still pending at its first deadline, and at a second deadline that is set before it ends. */
static void s13_deadlines_in_a_chain_come_when_its_turn_does(void)
{
    wait_in_a_chain(1);
    wait_in_a_chain(2);
}

/* A zero-copy send ends when the kernel no longer uses its buffer, but the operation linked to it begins when all is sent. */
static void s13_what_is_behind_a_send_without_a_copy_is_cancelled_at_once(void)
{
    loop_t *loop = new_loop();
    struct outcome seen[2] = {{0}};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    const int little = 16 << 10, much = 200 << 10;
    static char data[65536];
    loop_handle_t handles[2];
    struct io_uring_sqe sqes[2];
    int pipe_ends[2];
    int listener = socket(AF_INET, SOCK_STREAM, 0), sender = socket(AF_INET, SOCK_STREAM, 0), receiver;

    if (!loop_supports(loop, IORING_OP_SEND_ZC)) {
        close(sender);
        close(listener);
        CHECK(loop_close(loop), ==, 0);
        return;
    }
    REQUIRE(bind(listener, (struct sockaddr *)&address, sizeof address), ==, 0);
    REQUIRE(listen(listener, 1), ==, 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&address, &length), ==, 0);
    CHECK(setsockopt(sender, SOL_SOCKET, SO_SNDBUF, &little, sizeof little), ==, 0);
    REQUIRE(connect(sender, (struct sockaddr *)&address, length), ==, 0);
    receiver = accept(listener, NULL, NULL);
    REQUIRE(pipe(pipe_ends), ==, 0);
    /* The peer does not read: later data waits in the sender's queue, which has room again after this. */
    while (send(sender, data, sizeof data, MSG_DONTWAIT) > 0) {}
    CHECK(setsockopt(sender, SOL_SOCKET, SO_SNDBUF, &much, sizeof much), ==, 0);
    sqes[0] = transfer(IORING_OP_SEND_ZC, sender, data, 20000);
    sqes[1] = (struct io_uring_sqe){.opcode = IORING_OP_POLL_ADD, .fd = pipe_ends[0], .poll32_events = POLLIN};
    CHECK(chain(loop, sqes, 2, seen, handles), ==, 0);
    for (int i = 0; i < 10 && seen[0].times == 0; i++) CHECK(loop_run_once(loop, LOOP_MSEC(100)), >=, 0);
    CHECK(seen[0].times, ==, 1);
    if (seen[0].finals == 0) {
        CHECK(loop_cancel(loop, handles[1]), ==, 1);
        for (int i = 0; i < 10 && seen[1].finals == 0; i++) CHECK(loop_run_once(loop, LOOP_MSEC(100)), >=, 0);
        CHECK(seen[1].result, ==, -ECANCELED);
        CHECK(seen[0].finals, ==, 0);
    }
    close(receiver);
    CHECK(loop_cancel(loop, handles[1]), <=, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen[0].finals + seen[1].finals, ==, 2);
    close(sender);
    close(listener);
    close_pair(pipe_ends);
    CHECK(loop_close(loop), ==, 0);
}

static void s22_a_chain_ends_with_its_loop(void)
{
    loop_t *loop = new_loop();
    struct outcome seen[2] = {{0}};
    char received[2][8];
    int fds[2];
    struct io_uring_sqe sqes[2];

    make_pair(fds);
    for (int i = 0; i < 2; i++) sqes[i] = transfer(IORING_OP_RECV, fds[0], received[i], 8);
    CHECK(chain(loop, sqes, 2, seen, NULL), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_close(loop), ==, 0);
    CHECK(seen[0].times + seen[1].times, ==, 0);
    close_pair(fds);
}

static void chains_that_cannot_be_are_refused(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop;
    struct outcome seen[8];
    struct io_uring_sqe sqes[8];

    memset(seen, 0, sizeof seen);
    options.sq_entries = 4;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    for (int i = 0; i < 8; i++) sqes[i] = nop();
    CHECK(chain(loop, sqes, 8, seen, NULL), ==, -E2BIG);
    CHECK(chain(loop, sqes, 4, seen, NULL), ==, 0);
    /* A chain that does not fit into the queue is not split: queued entries are submitted first. */
    CHECK(chain(loop, sqes, 4, &seen[4], NULL), ==, 0);
    sqes[1].flags = IOSQE_IO_DRAIN;
    CHECK(chain(loop, sqes, 2, seen, NULL), ==, -EINVAL);
    sqes[1].flags = IOSQE_IO_LINK;
    CHECK(chain(loop, sqes, 2, seen, NULL), ==, -EINVAL);
    CHECK_TRUE(strstr(loop_last_error(), "IOSQE_IO_LINK"));
    CHECK(chain(loop, sqes, 0, seen, NULL), ==, 0);
    /* An empty chain may be NULL. */
    CHECK(loop_submit_chain(loop, NULL, 0, note_outcome, NULL, NULL), ==, 0);
    CHECK(loop_submit_chain(loop, NULL, 0, NULL, NULL, NULL), ==, -EINVAL);
    loop_set_data(loop, seen);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    for (int i = 0; i < 8; i++) CHECK(seen[i].finals, ==, 1);
    CHECK(loop_close(loop), ==, 0);
}

/* ---- registering with the ring ---- */

static void buffers_can_be_registered_with_the_ring(void)
{
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    char *page = calloc(1, 4096); /* 5.10 accepts no memory mapped from a file, as static data may be */
    struct iovec iovec = {page, 4096};
    struct io_uring_sqe sqe = nop();
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);

    REQUIRE(file, >=, 0);
    CHECK_TRUE(loop_supports(loop, IORING_OP_READ_FIXED));
    CHECK_TRUE(!loop_supports(loop, 200));
    CHECK_TRUE(!loop_supports(NULL, IORING_OP_NOP));
    REQUIRE(syscall(SYS_io_uring_register, loop_ring_fd(loop), IORING_REGISTER_BUFFERS, &iovec, 1), ==, 0);
    sqe.opcode = IORING_OP_READ_FIXED;
    sqe.fd = file;
    sqe.addr = (uint64_t)(uintptr_t)page;
    sqe.len = 5;
    REQUIRE(loop_submit(loop, &sqe, note_outcome, &seen), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.result, ==, 5);
    CHECK(memcmp(page, "Name:", 5), ==, 0);
    close(file);
    CHECK(loop_close(loop), ==, 0);
    free(page);
}

static void s28_what_is_refused_is_named(void)
{
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    static const struct {
        uint8_t opcode, flags;
        int error;
        const char *name;
    } refusals[] = {
        {IORING_OP_NOP, IOSQE_IO_DRAIN, -EINVAL, "IOSQE_IO_DRAIN"},
        {IORING_OP_NOP, IOSQE_IO_LINK, -EINVAL, "IOSQE_IO_LINK"},
        {IORING_OP_ASYNC_CANCEL, 0, -EINVAL, "IORING_OP_ASYNC_CANCEL"},
        {IORING_OP_MSG_RING, 0, -EINVAL, "IORING_OP_MSG_RING"},
        {63, 0, -EINVAL, "128"},
        {250, 0, -ENOSYS, "loop_supports"},
    };

    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct io_uring_sqe sqe = nop();

        sqe.opcode = refusals[i].opcode;
        sqe.flags = refusals[i].flags;
        CHECK(loop_submit(loop, &sqe, note_outcome, &seen), ==, refusals[i].error);
        CHECK_TRUE(strstr(loop_last_error(), refusals[i].name));
    }
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_close(loop), ==, 0);
}

/* ---- closing ---- */

struct inherited {
    loop_t *loop;
    struct outcome reading, receiving;
    int pipe[2], fds[2];
    char buffers[2][16];
};

static void *leave_operations(void *arg)
{
    struct inherited *inherited = arg;
    loop_handle_t reading, receiving;
    loop_t *loop = new_loop();

    reading = loop_read(loop, inherited->pipe[0], inherited->buffers[0], 16, LOOP_CURRENT, note_outcome, &inherited->reading);
    receiving = loop_recv(loop, inherited->fds[0], inherited->buffers[1], 16, 0, note_outcome, &inherited->receiving);
    CHECK(loop_on_release(loop, reading, release_outcome), ==, 0);
    CHECK(loop_on_release(loop, receiving, release_outcome), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    inherited->loop = loop;
    return NULL;
}

/* The kernel ended the thread's operations when it exited; the exit waited for those that a device might have. */
static void s25_who_closes_for_a_thread_that_has_exited_releases_all_it_had(void)
{
    static struct inherited inherited;
    pthread_t thread;

    REQUIRE(pipe2(inherited.pipe, O_CLOEXEC), ==, 0);
    make_pair(inherited.fds);
    REQUIRE(pthread_create(&thread, NULL, leave_operations, &inherited), ==, 0);
    REQUIRE(pthread_join(thread, NULL), ==, 0);
    CHECK(inherited.reading.released + inherited.receiving.released, ==, 0);
    CHECK(loop_close(inherited.loop), ==, 0);
    CHECK(inherited.reading.times + inherited.receiving.times, ==, 0);
    CHECK(inherited.receiving.released, ==, 1);
    CHECK(inherited.reading.released, ==, 1);
    close_pair(inherited.fds);
    close_pair(inherited.pipe);
}

enum { DIRECT_READS = 32, DIRECT_LENGTH = 1 << 20 };

struct direct {
    loop_t *loops[2];
    int fd;
    char *buffers;
    int released;
    bool runs;
};

/* Some of the reads may end while the thread still runs. */
static void end_direct_read(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop;
    (void)flags;
    (void)arg;
    CHECK(result, ==, DIRECT_LENGTH);
}

static void release_direct_read(void *arg)
{
    ++*(int *)arg;
}

static void *leave_direct_reads(void *arg)
{
    struct direct *direct = arg;

    /* One of the two loops is closed before the exit; the library must still find the other one. */
    for (int i = 0; i < 2; i++) direct->loops[i] = new_loop();
    for (int i = 0; i < 2; i++) CHECK(loop_run_once(direct->loops[i], 0), ==, 0);
    CHECK(loop_close(direct->loops[1]), ==, 0);
    for (int i = 0; i < DIRECT_READS; i++) {
        char *buffer = direct->buffers + (size_t)i * DIRECT_LENGTH;
        loop_handle_t handle = loop_read(direct->loops[0], direct->fd, buffer, DIRECT_LENGTH,
                                         (uint64_t)i * DIRECT_LENGTH, end_direct_read, &direct->released);

        REQUIRE(handle, >, 0);
        CHECK(loop_on_release(direct->loops[0], handle, release_direct_read), ==, 0);
    }
    /* When the thread exits, some of the reads are in the kernel, or none has been submitted. */
    if (direct->runs) CHECK(loop_run_once(direct->loops[0], 0), >=, 0);
    return NULL;
}

static void leave_and_close(struct direct *direct)
{
    size_t length = (size_t)DIRECT_READS * DIRECT_LENGTH;
    pthread_t thread;

    direct->released = 0;
    memset(direct->buffers, 'a', length);
    REQUIRE(pthread_create(&thread, NULL, leave_direct_reads, direct), ==, 0);
    REQUIRE(pthread_join(thread, NULL), ==, 0);
    CHECK(loop_close(direct->loops[0]), ==, 0);
    CHECK(direct->released, ==, DIRECT_READS);
    /* The kernel does not write to buffers that have been released. */
    memset(direct->buffers, 'b', length);
    usleep(20000);
    for (size_t at = 0; at < length; at += 512) {
        if (direct->buffers[at] == 'b') continue;
        CHECK(at, ==, length);
        return;
    }
}

static void s25_reads_of_a_device_are_released_after_the_threads_exit(void)
{
    struct direct direct = {.buffers = aligned_alloc(4096, (size_t)DIRECT_READS * DIRECT_LENGTH)};
    char name[] = "direct-XXXXXX";

    REQUIRE(direct.buffers != NULL, ==, 1);
    direct.fd = mkstemp(name);
    REQUIRE(direct.fd, >=, 0);
    memset(direct.buffers, 'c', DIRECT_LENGTH);
    for (int i = 0; i < DIRECT_READS; i++)
        REQUIRE(write(direct.fd, direct.buffers, DIRECT_LENGTH), ==, DIRECT_LENGTH);
    fsync(direct.fd);
    close(direct.fd);
    direct.fd = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
    /* Some file systems in memory do not support O_DIRECT. */
    if (direct.fd < 0) direct.fd = open(name, O_RDONLY | O_CLOEXEC);
    unlink(name);
    for (int round = 0; round < 3; round++) {
        direct.runs = true;
        leave_and_close(&direct);
        direct.runs = false;
        leave_and_close(&direct);
    }
    close(direct.fd);
    free(direct.buffers);
}

static void a_version_that_is_none_is_refused(void)
{
    const char *before = getenv("RINGLOOP_KERNEL");
    char *kept = before ? strdup(before) : NULL;
    loop_t *loop;

    setenv("RINGLOOP_KERNEL", "banana", 1);
    CHECK(loop_new(NULL, &loop), ==, -EINVAL);
    CHECK_TRUE(strstr(loop_last_error(), "RINGLOOP_KERNEL"));
    unsetenv("RINGLOOP_KERNEL");
    if (kept) setenv("RINGLOOP_KERNEL", kept, 1);
    free(kept);
    loop = new_loop();
    CHECK(loop_close(loop), ==, 0);
}

/* Running work has time to end; loop_shutdown_within() counts the work that it had to cut off. */
static void s48_shutdown_within_a_limit(void)
{
    static const struct {
        uint64_t limit, timer;
        int cancelled;
    } cases[] = {{LOOP_NEVER, LOOP_MSEC(5), 0}, {LOOP_SEC(100), LOOP_MSEC(5), 0}, {LOOP_MSEC(20), LOOP_SEC(1000), 2}, {0, LOOP_MSEC(5), 2}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        loop_t *loop = new_loop();
        struct outcome seen = {0};
        char received[8];
        int fds[2];
        loop_handle_t unref;
        bool ends = cases[i].cancelled == 0;

        make_pair(fds);
        CHECK(loop_recv(loop, fds[0], received, sizeof received, 0, note_outcome, &seen), >, 0);
        CHECK(loop_call_later(loop, cases[i].timer, do_nothing, NULL), >, 0);
        unref = loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL);
        CHECK(loop_unref(loop, unref), ==, 0);
        CHECK(loop_stop(loop), ==, 0);
        if (ends)
            CHECK(write(fds[1], "x", 1), ==, 1);
        CHECK(loop_shutdown_within(loop, cases[i].limit), ==, cases[i].cancelled);
        CHECK(seen.finals, ==, 1);
        CHECK(seen.result, ==, ends ? 1 : -ECANCELED);
        CHECK(loop_call_soon(loop, do_nothing, NULL), ==, -ESHUTDOWN);
        CHECK(loop_shutdown_within(loop, 0), ==, 0);
        close_pair(fds);
        CHECK(loop_close(loop), ==, 0);
    }
}

static atomic_bool has_begun;

static void work_a_while(void *arg)
{
    (void)arg;
    has_begun = true;
    usleep(20000);
}

static void work_done(loop_t *loop, int status, void *arg)
{
    (void)loop;
    (void)arg;
    CHECK(status, ==, 0);
}

static void s22_a_close_that_gives_up_has_cancelled(void)
{
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    char received[8];
    int fds[2];

    make_pair(fds);
    CHECK(loop_recv(loop, fds[0], received, sizeof received, 0, note_outcome, &seen), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    has_begun = false;
    CHECK(loop_run_in_executor(loop, work_a_while, work_done, NULL), >, 0);
    while (!has_begun) sched_yield();
    CHECK(loop_close_within(loop, 0), ==, -ETIMEDOUT);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.finals, ==, 1);
    CHECK(seen.result, ==, -ECANCELED);
    close_pair(fds);
    CHECK(loop_close(loop), ==, 0);
}

static const struct check_test tests[] = {
    TEST(an_operation_gives_its_result_once),
    TEST(s13_cancelling_asks_and_the_final_callback_comes),
    TEST(s13_a_deadline_cuts_an_operation_short),
    TEST(a_deadline_that_is_removed_cuts_nothing_short),
    TEST(a_chain_runs_one_after_the_other),
    TEST(what_fails_ends_the_rest_of_its_chain),
    TEST(s13_cancelling_one_that_has_not_begun_ends_it_when_its_turn_comes),
    TEST(s13_what_is_behind_a_send_without_a_copy_is_cancelled_at_once),
    TEST(s13_deadlines_in_a_chain_come_when_its_turn_does),
    TEST(s22_a_chain_ends_with_its_loop),
    TEST(chains_that_cannot_be_are_refused),
    TEST(buffers_can_be_registered_with_the_ring),
    TEST(s28_what_is_refused_is_named),
    TEST(s25_who_closes_for_a_thread_that_has_exited_releases_all_it_had),
    TEST(s25_reads_of_a_device_are_released_after_the_threads_exit),
    TEST(a_version_that_is_none_is_refused),
    TEST(s48_shutdown_within_a_limit),
    TEST_NOT_UNDER("valgrind", s22_a_close_that_gives_up_has_cancelled, "no other thread runs while one is in io_uring_enter()"),
};

CHECK_MAIN(tests)
