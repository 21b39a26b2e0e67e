/* Operations with many results: loop_accept_multi(), loop_recv_multi() and their buffers. S13, S14, S22. */
#include "io.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* ---- helpers ---- */

static bool is_at_end(int fd)
{
    char byte;
    struct pollfd poll_fd = {fd, POLLIN, 0};

    return poll(&poll_fd, 1, 5000) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) <= 0;
}

static int released;

static void note_release(void *arg)
{
    (void)arg;
    released++;
}

/* ---- accepting ---- */

static int accepted[64], accepts, accept_errors;
static int32_t last_accept;

static void on_accept(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop, (void)arg;
    last_accept = result;
    if (result >= 0) {
        CHECK(flags & LOOP_MORE, ==, LOOP_MORE);
        accepted[accepts++] = result;
    } else {
        accept_errors++;
    }
}

static void start_accepting(void)
{
    accepts = accept_errors = released = 0;
}

static void close_accepted(void)
{
    while (accepts) close(accepted[--accepts]);
}

static void one_accept_takes_many_connections(void)
{
    loop_t *loop = new_loop();
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address), clients[20];
    loop_handle_t handle;

    start_accepting();
    handle = loop_accept_multi(loop, listener, SOCK_CLOEXEC, on_accept, NULL);
    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, note_release), ==, 0);
    for (int i = 0; i < 20; i++) {
        clients[i] = connect_to(&address);
        if (i % 5 == 4)
            while (accepts <= i) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    }
    CHECK(accepts, ==, 20);
    for (int i = 0; i < 20; i++) CHECK(fcntl(accepted[i], F_GETFD), ==, FD_CLOEXEC);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(last_accept, ==, -ECANCELED);
    CHECK(accept_errors, ==, 1);
    CHECK(released, ==, 1);
    for (int i = 0; i < 20; i++) close(clients[i]);
    close_accepted();
    close(listener);
    CHECK(loop_close(loop), ==, 0);
}

static void without_descriptors_accepting_rests_and_goes_on(void)
{
    loop_t *loop = new_loop();
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address), client, spare = -1;
    struct rlimit limit, small;
    loop_handle_t handle;
    uint64_t until, before;

    start_accepting();
    client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    small = limit;
    spare = dup(client);
    small.rlim_cur = (rlim_t)spare;
    close(spare);
    REQUIRE(setrlimit(RLIMIT_NOFILE, &small), ==, 0);
    /* The kernel reads the descriptor limit when it takes the entry. */
    handle = loop_accept_multi(loop, listener, SOCK_CLOEXEC, on_accept, NULL);
    REQUIRE(handle, >, 0);
    REQUIRE(connect(client, (struct sockaddr *)&address, sizeof address), ==, 0);
    while (!accept_errors) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    CHECK(last_accept, ==, -EMFILE);
    CHECK(accepts, ==, 0);
    /* The loop does not spin: it tries a few times in 330 ms, each time in a few iterations. */
    before = metrics_of(loop).iterations;
    until = loop_time(loop) + LOOP_MSEC(330);
    while (loop_time(loop) < until) CHECK(loop_run_once(loop, until - loop_time(loop)), >=, 0);
    CHECK(metrics_of(loop).iterations - before, <, 20);
    CHECK(accept_errors, ==, 1);
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    while (!accepts) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    CHECK_TRUE(loop_is_pending(loop, handle));
    close(client);
    close_accepted();
    /* The accept can be cancelled while it waits to try again. */
    close(listener);
    CHECK(loop_close(loop), ==, 0);
}

static void s22_connections_that_nobody_has_seen_are_closed(void)
{
    loop_t *loop = new_loop();
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address), clients[3];

    start_accepting();
    REQUIRE(loop_accept_multi(loop, listener, SOCK_CLOEXEC, on_accept, NULL), >, 0);
    REQUIRE(loop_flush(loop), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    for (int i = 0; i < 3; i++) clients[i] = connect_to(&address);
    CHECK(loop_close(loop), ==, 0);
    CHECK(accepts, ==, 0);
    close(listener);
    for (int i = 0; i < 3; i++) {
        CHECK_TRUE(is_at_end(clients[i]));
        close(clients[i]);
    }
}

/* ---- receiving ---- */

static unsigned char received[1 << 20];
static size_t received_length;
static int receive_ends, pieces;
static int32_t receive_end;
static loop_buffers_t *buffers;
static bool keeps;
static const void *kept[4096];
static int kept_count;

static void on_data(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg)
{
    (void)loop, (void)arg;
    CHECK(receive_ends, ==, 0);
    if (result <= 0) {
        CHECK(flags & LOOP_MORE, ==, 0);
        receive_ends++;
        receive_end = result;
        return;
    }
    CHECK(flags & LOOP_MORE, ==, LOOP_MORE);
    pieces++;
    REQUIRE(received_length + (size_t)result, <=, sizeof received);
    memcpy(received + received_length, data, (size_t)result);
    received_length += (size_t)result;
    if (keeps) {
        REQUIRE(kept_count, <, 4096);
        CHECK(loop_buffer_keep(buffers, data), ==, 0);
        kept[kept_count++] = data;
    }
}

static loop_handle_t start_receiving(loop_t *loop, int fd, uint32_t count, uint32_t size)
{
    loop_handle_t handle;

    received_length = 0;
    receive_ends = pieces = kept_count = released = 0;
    keeps = false;
    REQUIRE(loop_buffers_new(loop, count, size, &buffers), ==, 0);
    handle = loop_recv_multi(loop, fd, buffers, on_data, NULL);
    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, note_release), ==, 0);
    return handle;
}

static unsigned char pattern(size_t at)
{
    return (unsigned char)(at * 7 + at / 251);
}

static void send_pattern(int fd, size_t from, size_t length)
{
    unsigned char bytes[65536];

    for (size_t done = 0; done < length;) {
        size_t part = length - done < sizeof bytes ? length - done : sizeof bytes;
        ssize_t sent;

        for (size_t i = 0; i < part; i++) bytes[i] = pattern(from + done + i);
        sent = send(fd, bytes, part, MSG_NOSIGNAL);
        REQUIRE(sent, >, 0);
        done += (size_t)sent;
    }
}

static void check_pattern(size_t length)
{
    size_t wrong = 0;

    CHECK(received_length, ==, length);
    for (size_t i = 0; i < received_length; i++) wrong += received[i] != pattern(i);
    CHECK(wrong, ==, 0);
}

static void one_receive_takes_all_that_comes(void)
{
    loop_t *loop = new_loop();
    int fds[2];

    make_pair(fds);
    start_receiving(loop, fds[0], 8, 64);
    CHECK(loop_run_once(loop, 0), ==, 0);
    for (size_t i = 0; i < 100; i++) {
        send_pattern(fds[1], i * 10, 10);
        while (received_length < (i + 1) * 10) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    }
    check_pattern(1000);
    close(fds[1]);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(receive_ends, ==, 1);
    CHECK(receive_end, ==, 0);
    CHECK(released, ==, 1);
    CHECK(loop_buffers_free(buffers), ==, 0);
    close(fds[0]);
    CHECK(loop_close(loop), ==, 0);
}

static void without_buffers_it_waits_until_one_is_returned(void)
{
    loop_t *loop = new_loop();
    uint64_t submitted, until;
    int fds[2];
    size_t so_far;

    make_pair(fds);
    start_receiving(loop, fds[0], 4, 128);
    keeps = true;
    send_pattern(fds[1], 0, 4000);
    for (int i = 0; i < 10; i++) CHECK(loop_run_once(loop, LOOP_MSEC(1)), >=, 0);
    CHECK(received_length, ==, 4 * 128);
    CHECK(loop_buffers_free(buffers), ==, -EBUSY);
    submitted = metrics_of(loop).submitted;
    until = loop_time(loop) + LOOP_MSEC(20);
    while (loop_time(loop) < until) CHECK(loop_run_once(loop, until - loop_time(loop)), ==, 0);
    /* The loop slept. */
    CHECK(metrics_of(loop).submitted - submitted, <, 20);
    /* The kept parts hold the received data. */
    for (size_t at = 0, i = 0; i < (size_t)kept_count; i++) {
        CHECK(*(const unsigned char *)kept[i], ==, pattern(at));
        at += 128;
    }
    keeps = false;
    so_far = received_length;
    CHECK(loop_buffer_return(buffers, kept[--kept_count]), ==, 0);
    while (received_length < 4000) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    CHECK(received_length, >, so_far);
    check_pattern(4000);
    while (kept_count) CHECK(loop_buffer_return(buffers, kept[--kept_count]), ==, 0);
    close(fds[1]);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_buffers_free(buffers), ==, 0);
    close(fds[0]);
    CHECK(loop_close(loop), ==, 0);
}

static void s13_cancelled_it_gives_what_had_come_and_ends(void)
{
    loop_t *loop = new_loop();
    loop_handle_t handle;
    int fds[2];

    make_pair(fds);
    handle = start_receiving(loop, fds[0], 4, 128);
    CHECK(loop_run_once(loop, 0), ==, 0);
    send_pattern(fds[1], 0, 100);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(receive_end, ==, -ECANCELED);
    check_pattern(received_length);
    CHECK(released, ==, 1);
    /* Cancels it also while it waits for a buffer. */
    CHECK(loop_buffers_free(buffers), ==, 0);
    handle = start_receiving(loop, fds[0], 1, 8);
    keeps = true;
    send_pattern(fds[1], 100, 100);
    for (int i = 0; i < 5; i++) CHECK(loop_run_once(loop, LOOP_MSEC(1)), >=, 0);
    CHECK(received_length, ==, 8);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(receive_end, ==, -ECANCELED);
    CHECK(loop_buffer_return(buffers, kept[0]), ==, 0);
    CHECK(loop_buffers_free(buffers), ==, 0);
    close(fds[0]);
    close(fds[1]);
    CHECK(loop_close(loop), ==, 0);
}

static void s29_what_makes_no_sense_is_refused_first(void)
{
    loop_t *loop = new_loop(), *other = new_loop();
    loop_buffers_t *made = NULL, *foreign = NULL;
    char mine[16];

    CHECK(loop_buffers_new(loop, 0, 64, &made), ==, -EINVAL);
    CHECK(loop_buffers_new(loop, 32769, 64, &made), ==, -EINVAL);
    CHECK(loop_buffers_new(loop, 4, 0, &made), ==, -EINVAL);
    CHECK_TRUE(made == NULL);
    CHECK(loop_buffers_new(loop, 3, 64, &made), ==, 0);
    CHECK(loop_buffers_new(other, 4, 64, &foreign), ==, 0);
    CHECK(loop_buffer_keep(made, mine), ==, -EINVAL);
    CHECK(loop_buffer_return(made, mine), ==, -EINVAL);
    CHECK(loop_recv_multi(loop, 0, foreign, on_data, NULL), ==, -EINVAL);
    CHECK(loop_buffers_free(NULL), ==, 0);
    CHECK(loop_buffers_free(foreign), ==, 0);
    CHECK(loop_close(other), ==, 0);
    /* Errors of the arguments are reported before errors of the loop's state. */
    CHECK(loop_shutdown(loop), ==, 0);
    CHECK(loop_buffers_new(loop, 0, 64, &foreign), ==, -EINVAL);
    CHECK(loop_buffers_new(loop, 4, 64, &foreign), ==, -ESHUTDOWN);
    CHECK(loop_close(loop), ==, 0);
}

static void s22_closing_frees_what_is_kept(void)
{
    loop_t *loop = new_loop();
    int fds[2];

    make_pair(fds);
    start_receiving(loop, fds[0], 4, 128);
    keeps = true;
    send_pattern(fds[1], 0, 50);
    while (!kept_count) CHECK(loop_run_once(loop, LOOP_SEC(5)), >=, 0);
    send_pattern(fds[1], 50, 50);
    CHECK(loop_close(loop), ==, 0);
    CHECK(released, ==, 1);
    CHECK(receive_ends, ==, 0);
    close(fds[0]);
    close(fds[1]);
}

static const struct check_test tests[] = {
    TEST(one_accept_takes_many_connections),
    TEST_NOT_UNDER("valgrind", without_descriptors_accepting_rests_and_goes_on,
                   "it keeps the limit of descriptors from the kernel"),
    TEST(s22_connections_that_nobody_has_seen_are_closed),
    TEST(one_receive_takes_all_that_comes),
    TEST(without_buffers_it_waits_until_one_is_returned),
    TEST(s13_cancelled_it_gives_what_had_come_and_ends),
    TEST(s29_what_makes_no_sense_is_refused_first),
    TEST(s22_closing_frees_what_is_kept),
};

CHECK_MAIN(tests)
