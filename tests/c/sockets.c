/* Operations on sockets: each on success, on failure, and cancelled. S13, S14, S22, S28. */
#include "io.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/uio.h>

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif
#define SPLICE_PAGES 0x8000000
#define SOCK_DEVMEM 0x2000000

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

/* ---- helpers ---- */

/* Cancels an operation that waits, and checks its result. */
static void cancel_and_see(loop_t *loop, loop_handle_t handle, struct outcome *seen, int32_t result)
{
    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, release_outcome), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(seen->finals, ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(seen->finals, ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen->finals, ==, 1);
    CHECK(seen->released, ==, 1);
    CHECK(seen->result, ==, result);
}

/* ---- receiving and sending ---- */

static void recv_receives_fails_and_is_cancelled(void)
{
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    char buffer[8] = "";
    int fds[2], file;

    make_pair(fds);
    CHECK(write(fds[1], "abc", 3), ==, 3);
    see(loop, loop_recv(loop, fds[0], buffer, sizeof buffer, MSG_PEEK, note_outcome, &seen), &seen, 3);
    see(loop, loop_recv(loop, fds[0], buffer, 2, 0, note_outcome, &seen), &seen, 2);
    CHECK(buffer[1], ==, 'b');
    see(loop, loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note_outcome, &seen), &seen, 1);
    file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    see(loop, loop_recv(loop, file, buffer, sizeof buffer, 0, note_outcome, &seen), &seen, -ENOTSOCK);
    see(loop, loop_recv(loop, 1000000, buffer, sizeof buffer, 0, note_outcome, &seen), &seen, -EBADF);
    cancel_and_see(loop, loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note_outcome, &seen), &seen, -ECANCELED);
    memset(&seen, 0, sizeof seen);
    close(fds[1]);
    see(loop, loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note_outcome, &seen), &seen, 0);
    close(file);
    close(fds[0]);
    close_loop(loop);
}

static void send_sends_fails_without_sigpipe_and_is_cancelled(void)
{
    static char data[1 << 20];
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    loop_handle_t handle;
    int fds[2];

    signal(SIGPIPE, SIG_DFL);
    make_pair(fds);
    see(loop, loop_send(loop, fds[0], "abc", 3, 0, note_outcome, &seen), &seen, 3);
    see(loop, loop_send_all(loop, fds[0], "defg", 4, 0, note_outcome, &seen), &seen, 4);
    CHECK(recv(fds[1], data, sizeof data, 0), ==, 7);
    CHECK_TEXT(data, "abcdefg");
    /* A cancelled send_all reports the number of bytes that it has sent. */
    handle = loop_send_all(loop, fds[0], data, sizeof data, 0, note_outcome, &seen);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.result, >, 0);
    CHECK(seen.result, <, sizeof data);
    memset(&seen, 0, sizeof seen);
    while (send(fds[0], data, 4096, MSG_DONTWAIT) > 0)
        ;
    CHECK(errno, ==, EAGAIN);
    cancel_and_see(loop, loop_send(loop, fds[0], data, sizeof data, 0, note_outcome, &seen), &seen, -ECANCELED);
    memset(&seen, 0, sizeof seen);
    close(fds[1]);
    see(loop, loop_send(loop, fds[0], "abc", 3, 0, note_outcome, &seen), &seen, -EPIPE);
    see(loop, loop_send_all(loop, fds[0], "abc", 3, 0, note_outcome, &seen), &seen, -EPIPE);
    close(fds[0]);
    close_loop(loop);
}

/* ---- messages ---- */

static void messages_carry_vectors_names_and_descriptors(void)
{
    loop_t *loop = new_loop();
    struct outcome sent = {0}, received = {0};
    struct sockaddr_in address = {0}, from = {0};
    char first[3] = "", second[8] = "";
    struct iovec *out = malloc(2 * sizeof *out), *in = malloc(2 * sizeof *in);
    struct msghdr *out_message = calloc(1, sizeof *out_message), in_message;
    socklen_t length = sizeof address;
    int receiver = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(receiver, (struct sockaddr *)&address, sizeof address), ==, 0);
    REQUIRE(getsockname(receiver, (struct sockaddr *)&address, &length), ==, 0);
    in[0] = (struct iovec){first, 2};
    in[1] = (struct iovec){second, 2};
    memset(&in_message, 0, sizeof in_message);
    in_message.msg_name = &from;
    in_message.msg_namelen = sizeof from + 100;
    in_message.msg_iov = in;
    in_message.msg_iovlen = 2;
    REQUIRE(loop_recvmsg(loop, receiver, &in_message, 0, note_outcome, &received), >, 0);
    out[0] = (struct iovec){(char *)(uintptr_t)"abc", 3};
    out[1] = (struct iovec){(char *)(uintptr_t)"defg", 4};
    out_message->msg_name = &address;
    out_message->msg_namelen = sizeof address;
    out_message->msg_iov = out;
    out_message->msg_iovlen = 2;
    REQUIRE(loop_sendmsg(loop, sender, out_message, 0, note_outcome, &sent), >, 0);
    /* The headers and vectors have been copied. */
    memset(in, 0xff, 2 * sizeof *in);
    memset(out, 0xff, 2 * sizeof *out);
    memset(out_message, 0xff, sizeof *out_message);
    free(in);
    free(out);
    free(out_message);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(sent.result, ==, 7);
    CHECK(received.result, ==, 4);
    CHECK_TEXT(first, "ab");
    CHECK_TEXT(second, "cd");
    CHECK(in_message.msg_namelen, ==, sizeof from);
    CHECK(in_message.msg_flags & MSG_TRUNC, ==, MSG_TRUNC);
    CHECK(from.sin_addr.s_addr, ==, htonl(INADDR_LOOPBACK));
    close(receiver);
    close(sender);
    close_loop(loop);
}

union control {
    struct cmsghdr header;
    char room[CMSG_SPACE(16 * sizeof(int)) + CMSG_SPACE(sizeof(int))];
};

static void a_descriptor_goes_through_a_message(void)
{
    loop_t *loop = new_loop();
    struct outcome sent = {0}, received = {0};
    char byte = 'x', got = 0;
    struct iovec out = {&byte, 1}, in = {&got, 1};
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } out_control;
    union control in_control;
    struct msghdr out_message = {0}, in_message = {0};
    struct cmsghdr *control;
    int fds[2], passed;

    make_pair(fds);
    memset(&out_control, 0, sizeof out_control);
    memset(&in_control, 0, sizeof in_control);
    out_message.msg_iov = &out;
    out_message.msg_iovlen = 1;
    out_message.msg_control = &out_control;
    out_message.msg_controllen = sizeof out_control;
    control = CMSG_FIRSTHDR(&out_message);
    control->cmsg_level = SOL_SOCKET;
    control->cmsg_type = SCM_RIGHTS;
    control->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(control), &fds[0], sizeof(int));
    in_message.msg_iov = &in;
    in_message.msg_iovlen = 1;
    in_message.msg_control = &in_control;
    in_message.msg_controllen = sizeof in_control;
    REQUIRE(loop_recvmsg(loop, fds[0], &in_message, MSG_CMSG_CLOEXEC, note_outcome, &received), >, 0);
    REQUIRE(loop_sendmsg(loop, fds[1], &out_message, 0, note_outcome, &sent), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(sent.result, ==, 1);
    CHECK(received.result, ==, 1);
    CHECK(in_message.msg_controllen, ==, sizeof out_control);
    /* Descriptors in a message that a callback has seen belong to the program. */
    close_loop(loop);
    control = CMSG_FIRSTHDR(&in_message);
    REQUIRE(control != NULL, ==, 1);
    memcpy(&passed, CMSG_DATA(control), sizeof passed);
    CHECK(write(fds[1], "y", 1), ==, 1);
    CHECK(read(passed, &got, 1), ==, 1);
    CHECK(got, ==, 'y');
    close(passed);
    close_pair(fds);
}

static void messages_fail_and_are_cancelled(void)
{
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    char byte;
    struct iovec vector = {&byte, 1}, huge[2] = {{&byte, SIZE_MAX}, {&byte, 2}};
    struct msghdr message = {0};
    int fds[2];

    signal(SIGPIPE, SIG_DFL);
    make_pair(fds);
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_flags = 77;
    cancel_and_see(loop, loop_recvmsg(loop, fds[0], &message, 0, note_outcome, &seen), &seen, -ECANCELED);
    CHECK(message.msg_flags, ==, 77);
    memset(&seen, 0, sizeof seen);
    close(fds[1]);
    see(loop, loop_sendmsg(loop, fds[0], &message, 0, note_outcome, &seen), &seen, -EPIPE);
    see(loop, loop_recvmsg(loop, fds[0], &message, 0, note_outcome, &seen), &seen, 0);
    CHECK(message.msg_flags, ==, 0);
    message.msg_iov = NULL;
    CHECK(loop_sendmsg(loop, fds[0], &message, 0, note_outcome, &seen), ==, -EINVAL);
    message.msg_iov = huge;
    message.msg_iovlen = 2;
    CHECK(loop_sendmsg(loop, fds[0], &message, 0, note_outcome, &seen), ==, -EINVAL);
    close(fds[0]);
    close_loop(loop);
}

/* ---- descriptors that arrive with a message that no callback sees ---- */

/* The number of open descriptors of the process. */
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

/* The place of the completion when the loop is closed. */
enum { IN_THE_KERNEL, IN_THE_READY_QUEUE };

static void break_loop(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_break(loop), ==, 0);
}

/* Receives a message with `count` descriptors into space for `room`, and closes the loop before the callback. */
static void close_unseen(int where, int count, int room, bool pidfd)
{
    /* valgrind does not see that the kernel writes here, so the struct is zeroed below. */
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
        /* The callback of the call runs first, and breaks off the batch before the callback of the message. */
        send_descriptors(fds[1], count);
        CHECK(loop_flush(loop), ==, 0);
        REQUIRE(loop_call_soon(loop, break_loop, NULL), >, 0);
        CHECK(loop_run(loop), ==, LOOP_BROKEN);
    }
    close_loop(loop);
    /* The descriptors of the closed loop have been closed, too. */
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
        /* MSG_CTRUNC: the kernel has passed as many descriptors as fit. */
        close_unseen(where, 5, 3, false);
        close_unseen(where, 5, 0, false);
        close_unseen(where, 2, 2, true);
    }
}

/* ---- flags ---- */

static void check_refused(loop_handle_t submitted, const char *said)
{
    CHECK(submitted, ==, -EINVAL);
    CHECK_TRUE(strstr(loop_last_error(), said) != NULL);
}

static void s13_flags_that_keep_the_buffer_are_refused_by_name(void)
{
    const int sends[] = {MSG_ZEROCOPY, SPLICE_PAGES, 1 << 23}, receives[] = {SOCK_DEVMEM, 1 << 23};
    const char *send_refusals[] = {"MSG_ZEROCOPY is refused", "MSG_SPLICE_PAGES is refused", "have a bit that a"};
    const char *recv_refusals[] = {"MSG_SOCK_DEVMEM is refused", "have a bit that a"};
    static char room[16];
    struct iovec vector = {room, sizeof room};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    loop_t *loop = new_loop();
    int fds[2];

    make_pair(fds);
    for (int i = 0; i < 3; i++) {
        check_refused(loop_send(loop, fds[0], room, 1, sends[i], note_outcome, NULL), send_refusals[i]);
        check_refused(loop_send_all(loop, fds[0], room, 1, sends[i], note_outcome, NULL), send_refusals[i]);
        check_refused(loop_sendmsg(loop, fds[0], &message, sends[i], note_outcome, NULL), send_refusals[i]);
    }
    for (int i = 0; i < 2; i++) {
        check_refused(loop_recv(loop, fds[0], room, 1, receives[i], note_outcome, NULL), recv_refusals[i]);
        check_refused(loop_recvmsg(loop, fds[0], &message, receives[i], note_outcome, NULL), recv_refusals[i]);
    }
    CHECK_TRUE(!loop_is_alive(loop));
    close_loop(loop);
    close_pair(fds);
}

/* ---- connections ---- */

/* Makes a socket; a kernel before 5.19 cannot, and the function returns -ENOSYS. */
static int make_socket(loop_t *loop)
{
    struct outcome made = {0};

    if (!loop_supports(loop, IORING_OP_SOCKET)) {
        CHECK(loop_socket(loop, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, note_outcome, &made), ==, -ENOSYS);
        return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    }
    REQUIRE(loop_socket(loop, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, note_outcome, &made), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    return made.result;
}

static void sockets_are_made_connected_accepted_and_shut_down(void)
{
    loop_t *loop = new_loop();
    struct outcome connected = {0}, accepted = {0}, seen = {0};
    struct sockaddr_in address;
    char byte;
    int listener = listen_on_loopback(&address), client = make_socket(loop);

    REQUIRE(client, >, 2);
    REQUIRE(loop_accept(loop, listener, SOCK_CLOEXEC, note_outcome, &accepted), >, 0);
    REQUIRE(loop_connect(loop, client, (struct sockaddr *)&address, sizeof address, note_outcome, &connected), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(connected.result, ==, 0);
    REQUIRE(accepted.result, >=, 0);
    if (loop_supports(loop, IORING_OP_SHUTDOWN))
        see(loop, loop_shutdown_fd(loop, client, SHUT_WR, note_outcome, &seen), &seen, 0);
    else
        CHECK(shutdown(client, SHUT_WR), ==, 0);
    CHECK(recv(accepted.result, &byte, 1, 0), ==, 0);
    see(loop, loop_close_fd(loop, accepted.result, note_outcome, &seen), &seen, 0);
    CHECK(write(accepted.result, "x", 1), ==, -1);
    CHECK(errno, ==, EBADF);
    see(loop, loop_close_fd(loop, client, note_outcome, &seen), &seen, 0);
    close(listener);
    close_loop(loop);
}

static void connections_fail_and_are_cancelled(void)
{
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    loop_handle_t handle;

    cancel_and_see(loop, loop_accept(loop, listener, 0, note_outcome, &seen), &seen, -ECANCELED);
    memset(&seen, 0, sizeof seen);
    see(loop, loop_accept(loop, client, 0, note_outcome, &seen), &seen, -EINVAL);
    if (loop_supports(loop, IORING_OP_SHUTDOWN))
        see(loop, loop_shutdown_fd(loop, client, SHUT_WR, note_outcome, &seen), &seen, -ENOTCONN);
    else
        CHECK(loop_shutdown_fd(loop, client, SHUT_WR, note_outcome, &seen), ==, -ENOSYS);
    close(listener);
    see(loop, loop_connect(loop, client, (struct sockaddr *)&address, sizeof address, note_outcome, &seen), &seen, -ECONNREFUSED);
    if (loop_supports(loop, IORING_OP_SOCKET))
        see(loop, loop_socket(loop, 12345, SOCK_STREAM, 0, note_outcome, &seen), &seen, -EAFNOSUPPORT);
    see(loop, loop_close_fd(loop, 1000000, note_outcome, &seen), &seen, -EBADF);
    /* An operation that does not wait: the cancel is accepted, and one final callback comes. */
    if (loop_supports(loop, IORING_OP_SOCKET)) {
        handle = loop_socket(loop, AF_INET, SOCK_STREAM, 0, note_outcome, &seen);
        CHECK(loop_cancel(loop, handle), ==, 1);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(seen.finals, ==, 1);
        if (seen.result >= 0)
            close(seen.result);
        memset(&seen, 0, sizeof seen);
    }
    handle = loop_close_fd(loop, client, note_outcome, &seen);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.finals, ==, 1);
    CHECK_TRUE(seen.result == 0 || seen.result == -ECANCELED);
    /* The descriptor is closed if, and only if, the result is 0. */
    CHECK(close(client), ==, seen.result == 0 ? -1 : 0);
    close_loop(loop);
}

static void s29_wrong_arguments_are_refused_first(void)
{
    loop_t *loop = new_loop();
    char byte = 0;
    size_t too_long = (size_t)INT32_MAX + 1;
    struct sockaddr address = {0};
    struct iovec vector = {&byte, 1};
    struct msghdr message = {0};

    CHECK(loop_recv(loop, 0, &byte, too_long, 0, note_outcome, NULL), ==, -EINVAL);
    CHECK(loop_send(loop, 0, &byte, too_long, 0, note_outcome, NULL), ==, -EINVAL);
    CHECK(loop_send_all(loop, 0, &byte, too_long, 0, note_outcome, NULL), ==, -EINVAL);
    /* Values that no kernel accepts are refused before the memory is read: these lengths exceed the objects. */
    CHECK(loop_connect(loop, 0, &address, UINT32_MAX, note_outcome, NULL), ==, -EINVAL);
    CHECK(loop_writev(loop, 0, &vector, 1025, 0, note_outcome, NULL), ==, -EINVAL);
    CHECK(loop_readv(loop, 0, &vector, SIZE_MAX, 0, note_outcome, NULL), ==, -EINVAL);
    message.msg_iov = &vector;
    message.msg_iovlen = SIZE_MAX;
    CHECK(loop_sendmsg(loop, 0, &message, 0, note_outcome, NULL), ==, -EINVAL);
    CHECK(loop_recvmsg(loop, 0, &message, 0, note_outcome, NULL), ==, -EINVAL);
    CHECK_TRUE(!loop_is_alive(loop));
    setenv("RINGLOOP_KERNEL", "5.10", 1);
    /* Errors of the arguments are reported before errors of the loop's state. */
    CHECK(loop_shutdown(loop), ==, 0);
    CHECK(loop_recv(loop, 0, NULL, 1, 0, note_outcome, NULL), ==, -EINVAL);
    CHECK(loop_recv(loop, 0, &byte, 1, 0, note_outcome, NULL), ==, -ESHUTDOWN);
    close_loop(loop);
    loop = new_loop();
    unsetenv("RINGLOOP_KERNEL");
    CHECK(loop_socket(loop, AF_INET, SOCK_STREAM, 0, note_outcome, NULL), ==, -ENOSYS);
    CHECK(loop_shutdown_fd(loop, 0, SHUT_WR, note_outcome, NULL), ==, -ENOSYS);
    CHECK_TRUE(!loop_is_alive(loop));
    close_loop(loop);
}

/* ---- the kernel does not use released buffers ---- */

struct guarded {
    struct outcome seen;
    int peer;
    char *page;
    size_t size;
};

static void guard(void *arg)
{
    struct guarded *guarded = arg;

    release_outcome(&guarded->seen);
    CHECK(write(guarded->peer, "data", 4), ==, 4);
    REQUIRE(mprotect(guarded->page, guarded->size, PROT_NONE), ==, 0);
}

static struct guarded make_guarded(void)
{
    struct guarded guarded = {{0}, -1, NULL, (size_t)sysconf(_SC_PAGESIZE)};

    guarded.page = mmap(NULL, guarded.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(guarded.page != MAP_FAILED, ==, 1);
    return guarded;
}

/*
 * Data that arrives while the release hook runs is not written to the buffer, which becomes inaccessible soon after. Linux 5.10
 * would write the data on arrival, newer kernels when the loop enters the kernel.
 */
static void check_let_go(bool message, bool at_close)
{
    loop_t *loop = new_loop();
    struct guarded guarded = make_guarded();
    struct iovec vector = {guarded.page, guarded.size};
    struct msghdr header = {0};
    char buffer[8] = "";
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    guarded.peer = fds[1];
    header.msg_iov = &vector;
    header.msg_iovlen = 1;
    if (message)
        handle = loop_recvmsg(loop, fds[0], &header, 0, note_outcome, &guarded);
    else
        handle = loop_recv(loop, fds[0], guarded.page, guarded.size, 0, note_outcome, &guarded);
    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, guard), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    if (at_close) {
        close_loop(loop);
        CHECK(guarded.seen.finals, ==, 0);
    } else {
        CHECK(loop_cancel(loop, handle), ==, 1);
        CHECK(guarded.seen.released, ==, 0);
        guarded.page[0] = 'a';
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(guarded.seen.result, ==, -ECANCELED);
    }
    CHECK(guarded.seen.released, ==, 1);
    if (!at_close) {
        CHECK(loop_run_once(loop, LOOP_MSEC(1)), ==, 0);
        close_loop(loop);
    }
    CHECK(recv(fds[0], buffer, sizeof buffer, MSG_DONTWAIT), ==, 4);
    CHECK_TEXT(buffer, "data");
    close_pair(fds);
    munmap(guarded.page, guarded.size);
}

static void check_let_go_on_both_kernels(bool at_close)
{
    for (int message = 0; message <= 1; message++) {
        check_let_go(message, at_close);
        setenv("RINGLOOP_KERNEL", "5.10", 1);
        check_let_go(message, at_close);
        unsetenv("RINGLOOP_KERNEL");
    }
}

static void s14_a_buffer_that_is_released_is_not_the_kernels(void)
{
    check_let_go_on_both_kernels(false);
}

static void s14_a_buffer_that_is_released_at_close_is_not_the_kernels(void)
{
    check_let_go_on_both_kernels(true);
}

static void s13_an_operation_whose_descriptor_is_closed_ends_when_cancelled(void)
{
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    char buffer[8] = "";
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note_outcome, &seen);
    CHECK(loop_run_once(loop, 0), ==, 0);
    close(fds[0]);
    CHECK(loop_run_once(loop, LOOP_MSEC(2)), ==, 0);
    CHECK(seen.finals, ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.result, ==, -ECANCELED);
    /* The file is closed as well: the peer gets end of file. */
    CHECK(recv(fds[1], buffer, 1, 0), ==, 0);
    close(fds[1]);
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(recv_receives_fails_and_is_cancelled),
    TEST(send_sends_fails_without_sigpipe_and_is_cancelled),
    TEST(messages_carry_vectors_names_and_descriptors),
    TEST(a_descriptor_goes_through_a_message),
    TEST(messages_fail_and_are_cancelled),
    TEST(s22_descriptors_of_a_message_that_nobody_sees_are_closed),
    TEST(s13_flags_that_keep_the_buffer_are_refused_by_name),
    TEST(sockets_are_made_connected_accepted_and_shut_down),
    TEST(connections_fail_and_are_cancelled),
    TEST(s29_wrong_arguments_are_refused_first),
    TEST(s14_a_buffer_that_is_released_is_not_the_kernels),
    TEST(s14_a_buffer_that_is_released_at_close_is_not_the_kernels),
    TEST(s13_an_operation_whose_descriptor_is_closed_ends_when_cancelled),
};

CHECK_MAIN(tests)
