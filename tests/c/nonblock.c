/* On a descriptor with O_NONBLOCK operations wait, as on any other. S13. */
#include "io.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <termios.h>

/* ---- what an operation waits for ---- */

/* Two ends: the operation is on the first, which does not block; `other` makes it ready. */
struct ends {
    int fd, other, third;
    char room[1 << 16];
    struct iovec vector;
    struct msghdr message;
    struct sockaddr_un address;
    loop_buffers_t *buffers;
};

static struct ends ends;
static int finals, results;
static int32_t last_result;

static void note(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop, (void)arg;
    finals += !(flags & LOOP_MORE);
    results++;
    last_result = result;
}

static void note_data(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg)
{
    (void)data;
    note(loop, result, flags, arg);
}

static void set_nonblock(int fd)
{
    REQUIRE(fd, >=, 0);
    REQUIRE(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), ==, 0);
}

static void open_pipe(bool writes)
{
    int fds[2];

    REQUIRE(pipe2(fds, O_CLOEXEC), ==, 0);
    ends.fd = fds[writes];
    ends.other = fds[!writes];
}

static void open_pipe_to_read(void)
{
    open_pipe(false);
}

static void fill(int fd)
{
    set_nonblock(fd);
    while (write(fd, ends.room, sizeof ends.room) > 0)
        ;
    while (write(fd, ends.room, 1) > 0)
        ;
    REQUIRE(errno, ==, EAGAIN);
}

static void open_full_pipe(void)
{
    open_pipe(true);
    fill(ends.fd);
}

static void open_kind(int kind)
{
    int fds[2];

    REQUIRE(socketpair(AF_UNIX, kind | SOCK_CLOEXEC, 0, fds), ==, 0);
    ends.fd = fds[0];
    ends.other = fds[1];
}

static void open_stream(void)
{
    open_kind(SOCK_STREAM);
}

static void open_datagram(void)
{
    open_kind(SOCK_DGRAM);
}

static void open_full_stream(void)
{
    open_kind(SOCK_STREAM);
    fill(ends.fd);
}

static void open_full_datagram(void)
{
    open_kind(SOCK_DGRAM);
    set_nonblock(ends.fd);
    while (send(ends.fd, ends.room, 1, 0) > 0)
        ;
    REQUIRE(errno, ==, EAGAIN);
}

static void open_full_tcp(void)
{
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address);

    ends.fd = connect_to(&address);
    ends.other = accept(listener, NULL, NULL);
    close(listener);
    fill(ends.fd);
}

static void open_terminal(void)
{
    struct termios raw;

    ends.other = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    REQUIRE(ends.other, >=, 0);
    REQUIRE(grantpt(ends.other), ==, 0);
    REQUIRE(unlockpt(ends.other), ==, 0);
    ends.fd = open(ptsname(ends.other), O_RDWR | O_NOCTTY | O_CLOEXEC);
    REQUIRE(tcgetattr(ends.fd, &raw), ==, 0);
    cfmakeraw(&raw);
    REQUIRE(tcsetattr(ends.fd, TCSANOW, &raw), ==, 0);
}

static void open_stopped_terminal(void)
{
    open_terminal();
    REQUIRE(tcflow(ends.fd, TCOOFF), ==, 0);
}

static void open_eventfd(void)
{
    ends.fd = eventfd(0, EFD_CLOEXEC);
}

static void open_timerfd(void)
{
    ends.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
}

static void open_inotify(void)
{
    ends.fd = inotify_init1(IN_CLOEXEC);
    REQUIRE(inotify_add_watch(ends.fd, "/tmp", IN_CREATE), >=, 0);
}

static void open_listener(void)
{
    struct sockaddr_in address;

    ends.fd = listen_on_loopback(&address);
}

/* A socket to connect to a listener whose queue is full. */
static void open_connecting(void)
{
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t length = sizeof ends.address;

    ends.address.sun_family = AF_UNIX;
    REQUIRE(bind(listener, (struct sockaddr *)&ends.address, sizeof(sa_family_t)), ==, 0);
    REQUIRE(listen(listener, 0), ==, 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&ends.address, &length), ==, 0);
    ends.third = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(connect(ends.third, (struct sockaddr *)&ends.address, length), ==, 0);
    ends.other = listener;
    ends.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ends.message.msg_namelen = length;
}

static void open_two_pipes(void)
{
    int fds[2];

    open_pipe(false);
    REQUIRE(pipe2(fds, O_CLOEXEC), ==, 0);
    ends.third = fds[1];
    close(fds[0]);
    set_nonblock(ends.third);
    open_pipe(false);
}

static void open_stream_and_pipe(void)
{
    int fds[2];

    open_kind(SOCK_STREAM);
    REQUIRE(pipe2(fds, O_CLOEXEC), ==, 0);
    ends.third = fds[1];
    set_nonblock(ends.third);
    /* The reading end stays open. */
    REQUIRE(fcntl(fds[0], F_DUPFD_CLOEXEC, 100), >=, 0);
    close(fds[0]);
}

/* ---- what makes it ready ---- */

static void put(void)
{
    CHECK(write(ends.other, "x", 1), ==, 1);
}

static void drain(void)
{
    static char room[1 << 16];

    set_nonblock(ends.other);
    while (read(ends.other, room, sizeof room) > 0)
        ;
}

static void start_terminal(void)
{
    CHECK(tcflow(ends.fd, TCOON), ==, 0);
}

static void count_event(void)
{
    uint64_t one = 1;

    CHECK(write(ends.fd, &one, sizeof one), ==, 8);
}

static void start_timer(void)
{
    struct itimerspec soon = {.it_value = {0, 1}};

    CHECK(timerfd_settime(ends.fd, 0, &soon, NULL), ==, 0);
}

static void make_file(void)
{
    char name[] = "/tmp/ringloop-nonblock-XXXXXX";

    close(mkstemp(name));
    unlink(name);
}

static void connect_client(void)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;

    CHECK(getsockname(ends.fd, (struct sockaddr *)&address, &length), ==, 0);
    ends.other = connect_to(&address);
}

/* ---- operations ---- */

#define BUFFER ends.room, sizeof ends.room

static loop_handle_t do_read(loop_t *loop)
{
    return loop_read(loop, ends.fd, BUFFER, LOOP_CURRENT, note, NULL);
}

static loop_handle_t do_readv(loop_t *loop)
{
    return loop_readv(loop, ends.fd, &ends.vector, 1, LOOP_CURRENT, note, NULL);
}

static loop_handle_t do_write(loop_t *loop)
{
    return loop_write(loop, ends.fd, BUFFER, LOOP_CURRENT, note, NULL);
}

static loop_handle_t do_writev(loop_t *loop)
{
    return loop_writev(loop, ends.fd, &ends.vector, 1, LOOP_CURRENT, note, NULL);
}

static loop_handle_t do_write_all(loop_t *loop)
{
    return loop_write_all(loop, ends.fd, ends.room, 1, LOOP_CURRENT, note, NULL);
}

static loop_handle_t do_recv(loop_t *loop)
{
    return loop_recv(loop, ends.fd, BUFFER, 0, note, NULL);
}

static loop_handle_t do_recvmsg(loop_t *loop)
{
    return loop_recvmsg(loop, ends.fd, &ends.message, 0, note, NULL);
}

static loop_handle_t do_send(loop_t *loop)
{
    return loop_send(loop, ends.fd, ends.room, 1, 0, note, NULL);
}

static loop_handle_t do_send_all(loop_t *loop)
{
    return loop_send_all(loop, ends.fd, ends.room, 1, 0, note, NULL);
}

static loop_handle_t do_sendmsg(loop_t *loop)
{
    ends.vector.iov_len = 1;
    return loop_sendmsg(loop, ends.fd, &ends.message, 0, note, NULL);
}

static loop_handle_t do_accept(loop_t *loop)
{
    return loop_accept(loop, ends.fd, SOCK_CLOEXEC, note, NULL);
}

static loop_handle_t do_accept_multi(loop_t *loop)
{
    return loop_accept_multi(loop, ends.fd, SOCK_CLOEXEC, note, NULL);
}

static loop_handle_t do_recv_multi(loop_t *loop)
{
    REQUIRE(loop_buffers_new(loop, 4, 4096, &ends.buffers), ==, 0);
    return loop_recv_multi(loop, ends.fd, ends.buffers, note_data, NULL);
}

static loop_handle_t do_connect(loop_t *loop)
{
    return loop_connect(loop, ends.fd, (struct sockaddr *)&ends.address, ends.message.msg_namelen, note, NULL);
}

static loop_handle_t do_splice(loop_t *loop)
{
    return loop_splice(loop, ends.fd, LOOP_CURRENT, ends.third, LOOP_CURRENT, 100, 0, note, NULL);
}

static const struct {
    const char *name;
    void (*open)(void);
    loop_handle_t (*begin)(loop_t *loop);
    void (*make_ready)(void);
} cases[] = {
    {"read of a pipe", open_pipe_to_read, do_read, put},
    {"read of a stream", open_stream, do_read, put},
    {"read of datagrams", open_datagram, do_read, put},
    {"read of a terminal", open_terminal, do_read, put},
    {"read of an eventfd", open_eventfd, do_read, count_event},
    {"read of a timerfd", open_timerfd, do_read, start_timer},
    {"read of an inotify", open_inotify, do_read, make_file},
    {"readv of a pipe", open_pipe_to_read, do_readv, put},
    {"readv of a terminal", open_terminal, do_readv, put},
    {"write to a pipe", open_full_pipe, do_write, drain},
    {"write to a stream", open_full_stream, do_write, drain},
    {"write to TCP", open_full_tcp, do_write, drain},
    {"write to a terminal", open_stopped_terminal, do_write, start_terminal},
    {"writev to a pipe", open_full_pipe, do_writev, drain},
    {"write_all to a pipe", open_full_pipe, do_write_all, drain},
    {"recv of a stream", open_stream, do_recv, put},
    {"recv of datagrams", open_datagram, do_recv, put},
    {"recvmsg of a stream", open_stream, do_recvmsg, put},
    {"recvmsg of datagrams", open_datagram, do_recvmsg, put},
    {"recv_multi of a stream", open_stream, do_recv_multi, put},
    {"send to a stream", open_full_stream, do_send, drain},
    {"send to TCP", open_full_tcp, do_send, drain},
    {"send to datagrams", open_full_datagram, do_send, drain},
    {"send_all to a stream", open_full_stream, do_send_all, drain},
    {"sendmsg to a stream", open_full_stream, do_sendmsg, drain},
    {"accept", open_listener, do_accept, connect_client},
    {"accept_multi", open_listener, do_accept_multi, connect_client},
};

static void open_ends(void (*open)(void))
{
    memset(&ends, 0, sizeof ends);
    ends.fd = ends.other = ends.third = -1;
    ends.vector = (struct iovec){ends.room, sizeof ends.room};
    ends.message = (struct msghdr){.msg_iov = &ends.vector, .msg_iovlen = 1};
    finals = results = 0;
    last_result = 0;
    open();
    set_nonblock(ends.fd);
}

static void close_ends(void)
{
    close(ends.fd);
    close(ends.other);
    close(ends.third);
}

static void s13_operations_wait_on_a_descriptor_with_o_nonblock(void)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        loop_t *loop = new_loop();
        loop_handle_t handle;

        open_ends(cases[i].open);
        handle = cases[i].begin(loop);
        CHECK(handle, >, 0);
        for (uint64_t end = monotonic() + LOOP_MSEC(20); monotonic() < end;)
            CHECK(loop_run_once(loop, LOOP_MSEC(1)), >=, 0);
        if (results > 0)
            fprintf(stderr, "%s does not wait: %s\n", cases[i].name, loop_strerror(last_result));
        CHECK(results, ==, 0);
        cases[i].make_ready();
        for (int turns = 0; turns < 100 && results == 0; turns++)
            CHECK(loop_run_once(loop, LOOP_MSEC(50)), >=, 0);
        if (results != 1 || last_result < 0)
            fprintf(stderr, "%s: %d results, %s\n", cases[i].name, results, loop_strerror(last_result));
        CHECK(last_result, >=, 0);
        CHECK(results, ==, 1);
        close_loop(loop);
        close_ends();
    }
}

/* As the system calls have it. */
static void s13_splice_and_a_full_listener_say_eagain_with_o_nonblock(void)
{
    static const struct {
        void (*open)(void);
        loop_handle_t (*begin)(loop_t *loop);
    } exceptions[] = {
        {open_connecting, do_connect},
        {open_two_pipes, do_splice},
        {open_stream_and_pipe, do_splice},
    };

    for (size_t i = 0; i < sizeof exceptions / sizeof exceptions[0]; i++) {
        loop_t *loop = new_loop();

        open_ends(exceptions[i].open);
        CHECK(exceptions[i].begin(loop), >, 0);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(finals, ==, 1);
        CHECK(last_result, ==, -EAGAIN);
        close_loop(loop);
        close_ends();
    }
}

static const struct check_test tests[] = {
    TEST(s13_operations_wait_on_a_descriptor_with_o_nonblock),
    TEST(s13_splice_and_a_full_listener_say_eagain_with_o_nonblock),
};

CHECK_MAIN(tests)
