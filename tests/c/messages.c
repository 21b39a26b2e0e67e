/* Messages: descriptors that come with one that nobody sees; sockets of messages with loop_recv_multi(). S13, S22. */
#include "io.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

/* How many descriptors the process has. */
static int count_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;

    REQUIRE(folder != NULL, ==, 1);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(16 * sizeof(int)) + CMSG_SPACE(sizeof(int))];
};

/* Sends `count` descriptors with a byte. */
static void send_descriptors(int fd, int count)
{
    union control control;
    char byte = 'x';
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.room};
    int fds[16];

    for (int i = 0; i < count; i++)
        fds[i] = fd;
    memset(&control, 0, sizeof control);
    message.msg_controllen = CMSG_SPACE((size_t)count * sizeof(int));
    CMSG_FIRSTHDR(&message)->cmsg_level = SOL_SOCKET;
    CMSG_FIRSTHDR(&message)->cmsg_type = SCM_RIGHTS;
    CMSG_FIRSTHDR(&message)->cmsg_len = CMSG_LEN((size_t)count * sizeof(int));
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), fds, (size_t)count * sizeof(int));
    CHECK(sendmsg(fd, &message, 0), ==, 1);
}

static void must_not_run(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop, (void)flags, (void)arg;
    CHECK(result, ==, -12345);
}

static void keep_result(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop, (void)flags;
    *(int32_t *)arg = result;
}

/* Where the completion is when the loop is closed. */
enum { IN_THE_KERNEL, IN_THE_READY_QUEUE };

static void break_loop(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_break(loop), ==, 0);
}

/* A message with `count` descriptors is received into room for `room` of them, and the loop is closed before the callback. */
static void close_unseen(int where, int count, int room, bool pidfd)
{
    /* Zeroed below for valgrind, which does not see that the kernel writes to it. */
    union control control;
    char byte;
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.room};
    int fds[2], on = 1, before;
    loop_t *loop = new_loop();

    memset(&control, 0, sizeof control);
    make_pair(fds);
    if (pidfd && setsockopt(fds[0], SOL_SOCKET, SO_PASSPIDFD, &on, sizeof on) != 0)
        pidfd = false; /* before Linux 6.5 */
    before = count_descriptors();
    message.msg_controllen = pidfd ? sizeof control.room : CMSG_LEN((size_t)room * sizeof(int));
    REQUIRE(loop_recvmsg(loop, fds[0], &message, MSG_CMSG_CLOEXEC, must_not_run, NULL), >, 0);
    if (where == IN_THE_KERNEL) {
        CHECK(loop_run_once(loop, 0), ==, 0);
        send_descriptors(fds[1], count);
    } else {
        /* The callback of the call runs first, and breaks the batch off before that of the message. */
        send_descriptors(fds[1], count);
        CHECK(loop_flush(loop), ==, 0);
        REQUIRE(loop_call_soon(loop, break_loop, NULL), >, 0);
        CHECK(loop_run(loop), ==, LOOP_BROKEN);
    }
    close_loop(loop);
    /* The loop's own have gone too. */
    loop = new_loop();
    CHECK(count_descriptors(), ==, before);
    close_loop(loop);
    close_pair(fds);
}

static void s22_descriptors_of_a_message_that_nobody_sees_are_closed(void)
{
    for (int where = IN_THE_KERNEL; where <= IN_THE_READY_QUEUE; where++) {
        close_unseen(where, 1, 1, false);
        close_unseen(where, 16, 16, false);
        /* MSG_CTRUNC: the kernel has passed as many as there was room for. */
        close_unseen(where, 5, 3, false);
        close_unseen(where, 5, 0, false);
        close_unseen(where, 2, 2, true);
    }
}

/* Those that a callback has seen are the program's. */
static void s22_descriptors_of_a_message_that_was_seen_stay(void)
{
    union control control;
    char byte;
    struct iovec vector = {&byte, 1};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.room};
    loop_t *loop = new_loop();
    int32_t result = 0;
    int fds[2], fd;

    memset(&control, 0, sizeof control);
    make_pair(fds);
    message.msg_controllen = sizeof control.room;
    CHECK(loop_recvmsg(loop, fds[0], &message, 0, keep_result, &result), >, 0);
    send_descriptors(fds[1], 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(result, ==, 1);
    close_loop(loop);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    CHECK(fcntl(fd, F_GETFD), >=, 0);
    close(fd);
    close_pair(fds);
}

/* ---- loop_recv_multi() on what is no stream ---- */

/* What has come: lengths as letters, and the end. */
struct received {
    char text[64];
    int finals;
    int32_t result;
};

static void note_data(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg)
{
    struct received *received = arg;
    char text[2] = {(char)('0' + result), 0};

    (void)loop;
    if (flags & LOOP_MORE) {
        CHECK(data != NULL, ==, result > 0);
        strcat(received->text, text);
        return;
    }
    received->finals++;
    received->result = result;
}

static void s13_recv_multi_on_what_is_no_socket_says_enotsock(void)
{
    loop_t *loop = new_loop();
    loop_buffers_t *buffers;
    struct received received;
    int fds[2];

    REQUIRE(pipe(fds), ==, 0);
    REQUIRE(loop_buffers_new(loop, 4, 100, &buffers), ==, 0);
    /* An idle pipe, a file, and what is no descriptor. */
    for (int i = 0; i < 3; i++) {
        int fd = i == 0 ? fds[0] : i == 1 ? open("/dev/null", O_RDWR | O_CLOEXEC) : 1000;

        memset(&received, 0, sizeof received);
        CHECK(loop_recv_multi(loop, fd, buffers, note_data, &received), >, 0);
        for (int turns = 0; turns < 100 && received.finals == 0; turns++)
            CHECK(loop_run_once(loop, LOOP_MSEC(10)), >=, 0);
        CHECK(received.finals, ==, 1);
        CHECK(received.result, ==, i == 2 ? -EBADF : -ENOTSOCK);
        if (i == 1)
            close(fd);
    }
    close_loop(loop);
    close_pair(fds);
}

/* Messages of these lengths arrive, empty ones among them, before and after the receive has begun. */
static void receive_messages(int kind, bool before)
{
    loop_t *loop = new_loop();
    loop_buffers_t *buffers;
    struct received received;
    loop_handle_t handle;
    int fds[2];

    memset(&received, 0, sizeof received);
    REQUIRE(socketpair(AF_UNIX, kind | SOCK_CLOEXEC, 0, fds), ==, 0);
    REQUIRE(loop_buffers_new(loop, 8, 100, &buffers), ==, 0);
    handle = loop_recv_multi(loop, fds[0], buffers, note_data, &received);
    CHECK(handle, >, 0);
    if (!before)
        CHECK(loop_run_once(loop, 0), ==, 0);
    for (const char *length = "0300210"; *length; length++)
        CHECK(send(fds[1], "abc", (size_t)(*length - '0'), 0), ==, *length - '0');
    for (int turns = 0; turns < 100 && strlen(received.text) < 7; turns++)
        CHECK(loop_run_once(loop, LOOP_MSEC(10)), >=, 0);
    CHECK_TEXT(received.text, "0300210");
    CHECK(received.finals, ==, 0);
    if (kind == SOCK_SEQPACKET) {
        /* What was sent before the end comes before it. */
        CHECK(send(fds[1], "", 0, 0), ==, 0);
        CHECK(send(fds[1], "", 0, 0), ==, 0);
        CHECK(send(fds[1], "ab", 2, 0), ==, 2);
        close(fds[1]);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK_TEXT(received.text, "0300210002");
        CHECK(received.result, ==, 0);
    } else {
        CHECK(loop_cancel(loop, handle), ==, 1);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(received.result, ==, -ECANCELED);
        close(fds[1]);
    }
    CHECK(received.finals, ==, 1);
    close_loop(loop);
    close(fds[0]);
}

static void s13_an_empty_message_does_not_end_recv_multi(void)
{
    receive_messages(SOCK_DGRAM, false);
    receive_messages(SOCK_DGRAM, true);
    receive_messages(SOCK_SEQPACKET, false);
    receive_messages(SOCK_SEQPACKET, true);
}

/* What has come before it is received first. From Linux 6.0 on, the kernel goes on to wait for datagrams. */
static void s13_recv_multi_of_what_is_shut_down_does_not_spin(void)
{
    loop_t *loop = new_loop();
    loop_buffers_t *buffers;
    struct received received;
    loop_handle_t handle;
    int fds[2];

    memset(&received, 0, sizeof received);
    REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    REQUIRE(loop_buffers_new(loop, 4, 100, &buffers), ==, 0);
    CHECK(send(fds[1], "", 0, 0), ==, 0);
    CHECK(send(fds[1], "a", 1, 0), ==, 1);
    /* It wakes nobody who waits already. */
    CHECK(shutdown(fds[0], SHUT_RD), ==, 0);
    handle = loop_recv_multi(loop, fds[0], buffers, note_data, &received);
    CHECK(handle, >, 0);
    for (int turns = 0; turns < 50 && received.finals == 0; turns++)
        CHECK(loop_run_once(loop, LOOP_MSEC(1)), >=, 0);
    CHECK_TEXT(received.text, "01");
    /* When receiving that goes on came. */
    CHECK(received.finals, ==, !loop_supports(loop, IORING_OP_SEND_ZC));
    CHECK(received.result, ==, 0);
    if (received.finals == 0) {
        CHECK(loop_cancel(loop, handle), ==, 1);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(received.result, ==, -ECANCELED);
    }
    close_loop(loop);
    close_pair(fds);
}

static const struct check_test tests[] = {
    TEST(s22_descriptors_of_a_message_that_nobody_sees_are_closed),
    TEST(s22_descriptors_of_a_message_that_was_seen_stay),
    TEST(s13_recv_multi_on_what_is_no_socket_says_enotsock),
    TEST(s13_an_empty_message_does_not_end_recv_multi),
    TEST(s13_recv_multi_of_what_is_shut_down_does_not_spin),
};

CHECK_MAIN(tests)
