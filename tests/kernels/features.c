/*
 * Tries each feature of ringloop and checks its result: the kernel supports it, the library replaces it, or it is absent.
 *
 * Prints a line for each, "NAME: native", "fallback" or "absent". A function for one operation has no fallback: it is native, or
 * returns -ENOSYS where loop_supports() returns false. The test learns from outside how a thing was done: from the number of
 * submitted entries (loop_metrics), or from the descriptor that was made.
 */
#include "../c/io.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>

struct seen {
    int times;
    int32_t result;
    const char *data;
};

static void note(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct seen *seen = arg;

    (void)loop, (void)flags;
    seen->times++;
    seen->result = result;
}

static void note_data(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg)
{
    note(loop, result, flags, arg);
    ((struct seen *)arg)->data = data;
}

static void say(const char *name, const char *how) { printf("%s: %s\n", name, how); }

static void say_whether(const char *name, bool is_native) { say(name, is_native ? "native" : "fallback"); }

static uint64_t submitted(loop_t *loop)
{
    loop_metrics_t metrics = {.size = sizeof metrics};

    REQUIRE(loop_metrics(loop, &metrics), ==, 0);
    return metrics.submitted;
}

static uint64_t completed(loop_t *loop)
{
    loop_metrics_t metrics = {.size = sizeof metrics};

    REQUIRE(loop_metrics(loop, &metrics), ==, 0);
    return metrics.completed;
}

/* Runs until the callback has run this number of times, without a timer in the kernel. */
static void until(loop_t *loop, const struct seen *seen, int times)
{
    uint64_t end = loop_time(NULL) + LOOP_SEC(60);

    while (seen->times < times && loop_time(NULL) < end) REQUIRE(loop_run_once(loop, 0), >=, 0);
    REQUIRE(seen->times, ==, times);
}

/* ---- the loop itself ---- */

static void *enter_from_elsewhere(void *arg)
{
    return (void *)(intptr_t)(syscall(SYS_io_uring_enter, *(int *)arg, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0) < 0 ? errno : 0);
}

/* A ring with DEFER_TASKRUN belongs to the thread that has used it: other threads get EEXIST from the kernel. */
static void completions_that_interrupt_nobody(loop_t *loop)
{
    int fd = loop_ring_fd(loop);
    pthread_t thread;
    void *error;

    REQUIRE(pthread_create(&thread, NULL, enter_from_elsewhere, &fd), ==, 0);
    pthread_join(thread, &error);
    say_whether("completions posted only when the loop asks", (intptr_t)error == EEXIST);
}

static void *post(void *arg)
{
    CHECK(loop_call_soon_threadsafe(arg, do_nothing, NULL), ==, 0);
    return NULL;
}

static void embedding(loop_t *loop)
{
    int fd = loop_fd(loop);
    char link[32], what[64] = "";
    uint64_t before, completions;
    loop_handle_t timer;
    pthread_t thread;

    REQUIRE(fd, >=, 0);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    REQUIRE(readlink(link, what, sizeof what - 1), >, 0);
    say_whether("loop_fd is an eventfd of the ring", strstr(what, "eventfd"));

    timer = loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL);
    REQUIRE(timer, >, 0);
    REQUIRE(loop_flush(loop), ==, 0);
    before = submitted(loop);
    completions = completed(loop);
    REQUIRE(loop_reschedule(loop, timer, loop_time(loop) + LOOP_SEC(500)), ==, 0);
    REQUIRE(loop_flush(loop), ==, 0);
    say_whether("the armed timeout is moved", submitted(loop) - before == 1);
    say_whether("without a completion", completed(loop) == completions);
    REQUIRE(loop_cancel(loop, timer), ==, 0);

    before = submitted(loop);
    REQUIRE(pthread_create(&thread, NULL, post, loop), ==, 0);
    pthread_join(thread, NULL);
    REQUIRE(loop_run_once(loop, 0), ==, 1);
    REQUIRE(loop_flush(loop), ==, 0);
    say_whether("one poll for all wakes", submitted(loop) == before);
}

static void note_events(loop_t *loop, int fd, uint32_t events, void *arg)
{
    (void)loop, (void)fd, (void)events;
    ++*(int *)arg;
}

static void watching(loop_t *loop)
{
    int fds[2], calls = 0;
    uint64_t before, end = loop_time(NULL) + LOOP_SEC(60);
    loop_handle_t watcher;

    make_pair(fds);
    watcher = loop_watch_fd(loop, fds[0], POLLIN, note_events, &calls);
    REQUIRE(watcher, >, 0);
    REQUIRE(loop_run_once(loop, 0), ==, 0);
    before = submitted(loop);
    REQUIRE(loop_watch_update(loop, watcher, POLLIN | POLLOUT), ==, 0);
    while (calls == 0 && loop_time(NULL) < end) REQUIRE(loop_run_once(loop, 0), >=, 0);
    REQUIRE(calls, >=, 1);
    /* A native change takes one entry; the fallback cancels and polls again. */
    say_whether("loop_watch_update changes the poll", submitted(loop) - before == 1);
    REQUIRE(loop_cancel(loop, watcher), ==, 0);
    close_pair(fds);
}

/* ---- many results ---- */

static void accept_many(loop_t *loop)
{
    struct sockaddr_in address;
    struct seen seen = {0};
    int listener = listen_on_loopback(&address), fds[3];
    uint64_t before;
    loop_handle_t accepting = loop_accept_multi(loop, listener, SOCK_CLOEXEC, note, &seen);

    REQUIRE(accepting, >, 0);
    REQUIRE(loop_run_once(loop, 0), ==, 0);
    before = submitted(loop);
    for (int i = 0; i < 3; i++) {
        fds[i] = connect_to(&address);
        until(loop, &seen, i + 1);
        REQUIRE(seen.result, >=, 0);
        close(seen.result);
        close(fds[i]);
    }
    say_whether("loop_accept_multi", submitted(loop) == before);
    REQUIRE(loop_cancel(loop, accepting), ==, 1);
    until(loop, &seen, 4);
    close(listener);
}

static void receive_many(loop_t *loop)
{
    loop_buffers_t *buffers;
    struct seen seen = {0};
    const char *first = NULL;
    int fds[2];
    uint64_t before;
    loop_handle_t receiving;
    bool in_parts = true;

    make_pair(fds);
    REQUIRE(loop_buffers_new(loop, 4, 4096, &buffers), ==, 0);
    receiving = loop_recv_multi(loop, fds[0], buffers, note_data, &seen);
    REQUIRE(receiving, >, 0);
    REQUIRE(loop_run_once(loop, 0), ==, 0);
    before = submitted(loop);
    for (int i = 0; i < 3; i++) {
        REQUIRE(write(fds[1], "ab", 2), ==, 2);
        until(loop, &seen, i + 1);
        REQUIRE(seen.result, ==, 2);
        if (i == 0)
            first = seen.data;
        in_parts &= seen.data == first + 2 * i;
    }
    say_whether("loop_recv_multi", submitted(loop) == before);
    say_whether("a buffer is filled bit by bit", in_parts);
    REQUIRE(loop_cancel(loop, receiving), ==, 1);
    until(loop, &seen, 4);
    REQUIRE(loop_buffers_free(buffers), ==, 0);
    close_pair(fds);
}

static void send_all(loop_t *loop)
{
    static char data[1 << 20];
    struct seen seen = {0};
    int fds[2];
    ssize_t count, received = 0;
    uint64_t before = submitted(loop), end = loop_time(NULL) + LOOP_SEC(60);

    make_pair(fds);
    fcntl(fds[1], F_SETFL, O_NONBLOCK);
    REQUIRE(loop_send_all(loop, fds[0], data, sizeof data, 0, note, &seen), >, 0);
    while (seen.times == 0 && loop_time(NULL) < end) {
        REQUIRE(loop_run_once(loop, 0), >=, 0);
        while ((count = recv(fds[1], data, sizeof data, 0)) > 0) received += count;
    }
    REQUIRE(seen.result, ==, (int32_t)sizeof data);
    while ((count = recv(fds[1], data, sizeof data, 0)) > 0) received += count;
    REQUIRE(received, ==, (ssize_t)sizeof data);
    say_whether("loop_send_all", submitted(loop) - before == 1);
    close_pair(fds);
}

/* ---- operations ---- */

/* The number of entries submitted before the operation under test. */
static uint64_t submitted_before;

/* Checks an operation with one result: refused because the kernel lacks it, or successful with one entry. Returns the result. */
static int32_t operation(loop_t *loop, uint8_t opcode, loop_handle_t handle, struct seen *seen)
{
    int32_t result;

    if (handle == -ENOSYS) {
        REQUIRE(loop_supports(loop, opcode), ==, false);
        submitted_before = submitted(loop);
        return -ENOSYS;
    }
    REQUIRE(handle, >, 0);
    until(loop, seen, 1);
    result = seen->result;
    REQUIRE(result, >=, 0);
    REQUIRE(loop_supports(loop, opcode), ==, true);
    REQUIRE(submitted(loop) - submitted_before, ==, 1);
    submitted_before = submitted(loop);
    *seen = (struct seen){0};
    return result;
}

static void files(loop_t *loop)
{
    char folder[] = "/tmp/features-XXXXXX";
    struct seen seen = {0};
    struct statx status;
    char byte[4];
    int fd, at, ends[2];

    REQUIRE(mkdtemp(folder) != NULL, ==, true);
    at = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(at, >=, 0);
    REQUIRE(pipe2(ends, O_CLOEXEC), ==, 0);
    submitted_before = submitted(loop);
    fd = operation(loop, IORING_OP_OPENAT, loop_openat(loop, at, "a", O_RDWR | O_CREAT | O_CLOEXEC, 0600, note, &seen), &seen);
    operation(loop, IORING_OP_WRITE, loop_write(loop, fd, "four", 4, 0, note, &seen), &seen);
    operation(loop, IORING_OP_READ, loop_read(loop, fd, byte, 4, 0, note, &seen), &seen);
    operation(loop, IORING_OP_FSYNC, loop_fsync(loop, fd, 0, note, &seen), &seen);
    operation(loop, IORING_OP_FALLOCATE, loop_fallocate(loop, fd, 0, 0, 4096, note, &seen), &seen);
    operation(loop, IORING_OP_STATX, loop_statx(loop, at, "a", 0, 0x7ff, &status, note, &seen), &seen);
    operation(loop, IORING_OP_SPLICE, loop_splice(loop, fd, 0, ends[1], LOOP_CURRENT, 4, 0, note, &seen), &seen);
    operation(loop, 55 /* IORING_OP_FTRUNCATE */, loop_ftruncate(loop, fd, 2, note, &seen), &seen);
    operation(loop, 37, loop_mkdirat(loop, at, "d", 0700, note, &seen), &seen);
    operation(loop, 38, loop_symlinkat(loop, "a", at, "s", note, &seen), &seen);
    operation(loop, 39, loop_linkat(loop, at, "a", at, "b", 0, note, &seen), &seen);
    operation(loop, IORING_OP_RENAMEAT, loop_renameat(loop, at, "a", at, "c", 0, note, &seen), &seen);
    operation(loop, IORING_OP_UNLINKAT,
              loop_unlinkat(loop, at, loop_supports(loop, IORING_OP_RENAMEAT) ? "c" : "a", 0, note, &seen), &seen);
    operation(loop, IORING_OP_CLOSE, loop_close_fd(loop, fd, note, &seen), &seen);
    unlinkat(at, "a", 0), unlinkat(at, "b", 0), unlinkat(at, "s", 0), unlinkat(at, "d", AT_REMOVEDIR);
    close(at);
    close_pair(ends);
    REQUIRE(rmdir(folder), ==, 0);
}

static void sockets(loop_t *loop)
{
    struct seen seen = {0};
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address), server;
    int client;

    submitted_before = submitted(loop);
    client = operation(loop, 45, loop_socket(loop, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, note, &seen), &seen);
    if (client < 0)
        client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    operation(loop, IORING_OP_CONNECT,
              loop_connect(loop, client, (struct sockaddr *)&address, sizeof address, note, &seen), &seen);
    server = operation(loop, IORING_OP_ACCEPT, loop_accept(loop, listener, SOCK_CLOEXEC, note, &seen), &seen);
    operation(loop, IORING_OP_SEND, loop_send(loop, client, "a", 1, 0, note, &seen), &seen);
    operation(loop, IORING_OP_RECV, loop_recv(loop, server, &(char){0}, 1, 0, note, &seen), &seen);
    operation(loop, IORING_OP_SHUTDOWN, loop_shutdown_fd(loop, client, SHUT_WR, note, &seen), &seen);
    close(client), close(server), close(listener);
}

static void submitting(loop_t *loop)
{
    int known = 0;

    for (int opcode = 0; opcode < 256; opcode++) known += loop_supports(loop, (uint8_t)opcode);
    printf("operations that loop_submit knows: %d\n", known);
}

int main(void)
{
    loop_t *loop;

    REQUIRE(loop_new(NULL, &loop), ==, 0);
    submitting(loop);
    watching(loop);
    completions_that_interrupt_nobody(loop);
    accept_many(loop);
    receive_many(loop);
    send_all(loop);
    files(loop);
    sockets(loop);
    embedding(loop);
    REQUIRE(loop_shutdown(loop), ==, 0);
    REQUIRE(loop_close(loop), ==, 0);
    return check_failures > 0;
}
