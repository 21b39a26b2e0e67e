/* Operations on sockets: each on success, on failure, and cancelled. S13, S14, S22, S28. */
#include "io.h"

#include <linux/io_uring.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* ---- helpers ---- */

/* What an operation came to. */
struct seen {
    int finals;
    int32_t result;
    uint32_t flags;
    int released;
};

static void note(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct seen *seen = arg;

    (void)loop;
    CHECK(seen->finals, ==, 0);
    CHECK(flags & LOOP_MORE, ==, 0);
    seen->finals++;
    seen->result = result;
    seen->flags = flags;
}

static void note_release(void *arg)
{
    struct seen *seen = arg;

    seen->released++;
}

/* Asks for the end of an operation that waits, and sees it. */
static void cancel_and_see(loop_t *loop, loop_handle_t handle, struct seen *seen, int32_t result)
{
    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, note_release), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(seen->finals, ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(seen->finals, ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen->finals, ==, 1);
    CHECK(seen->released, ==, 1);
    CHECK(seen->result, ==, result);
}

static void see(loop_t *loop, loop_handle_t handle, struct seen *seen, int32_t result)
{
    REQUIRE(handle, >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen->finals, ==, 1);
    CHECK(seen->result, ==, result);
    memset(seen, 0, sizeof *seen);
}

/* A TCP connection: small buffers, so that a megabyte does not fit. */
static void make_connection(int fds[2])
{
    struct sockaddr_in address;
    int small = 4096, listener = listen_on_loopback(&address);

    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    REQUIRE(connect(fds[0], (struct sockaddr *)&address, sizeof address), ==, 0);
    fds[1] = accept(listener, NULL, NULL);
    REQUIRE(fds[1], >=, 0);
    close(listener);
}

/* Closing it resets the connection. */
static void reset(int fd)
{
    struct linger linger = {1, 0};

    REQUIRE(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), ==, 0);
    close(fd);
}

#define MEGABYTE (1 << 20)

static char *make_megabyte(void)
{
    char *data = malloc(MEGABYTE);

    REQUIRE(data != NULL, ==, 1);
    for (int i = 0; i < MEGABYTE; i++) data[i] = (char)(i % 251);
    return data;
}

static void expect_sigpipe(void)
{
    signal(SIGPIPE, SIG_DFL);
}

/* ---- receiving and sending ---- */

static void recv_receives_fails_and_is_cancelled(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char buffer[8] = "";
    int fds[2], file;

    make_pair(fds);
    CHECK(write(fds[1], "abc", 3), ==, 3);
    see(loop, loop_recv(loop, fds[0], buffer, sizeof buffer, MSG_PEEK, note, &seen), &seen, 3);
    see(loop, loop_recv(loop, fds[0], buffer, 2, 0, note, &seen), &seen, 2);
    CHECK(buffer[1], ==, 'b');
    see(loop, loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen), &seen, 1);
    file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    see(loop, loop_recv(loop, file, buffer, sizeof buffer, 0, note, &seen), &seen, -ENOTSOCK);
    see(loop, loop_recv(loop, 1000000, buffer, sizeof buffer, 0, note, &seen), &seen, -EBADF);
    cancel_and_see(loop, loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen), &seen, -ECANCELED);
    memset(&seen, 0, sizeof seen);
    close(fds[1]);
    see(loop, loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen), &seen, 0);
    close(file);
    close(fds[0]);
    close_loop(loop);
}

static void send_sends_fails_without_sigpipe_and_is_cancelled(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char *data = make_megabyte();
    int fds[2], full;

    expect_sigpipe();
    make_pair(fds);
    see(loop, loop_send(loop, fds[0], "abc", 3, 0, note, &seen), &seen, 3);
    while (send(fds[0], data, 4096, MSG_DONTWAIT) > 0)
        ;
    full = errno;
    CHECK(full, ==, EAGAIN);
    cancel_and_see(loop, loop_send(loop, fds[0], data, MEGABYTE, 0, note, &seen), &seen, -ECANCELED);
    memset(&seen, 0, sizeof seen);
    close(fds[1]);
    see(loop, loop_send(loop, fds[0], "abc", 3, 0, note, &seen), &seen, -EPIPE);
    see(loop, loop_send_all(loop, fds[0], "abc", 3, 0, note, &seen), &seen, -EPIPE);
    close(fds[0]);
    free(data);
    close_loop(loop);
}

/* Reads a little now and then, and checks what. */
struct reader {
    int fd;
    size_t got, stop_at;
    loop_handle_t timer;
};

static void read_some(loop_t *loop, void *arg)
{
    struct reader *reader = arg;
    unsigned char part[30000];
    ssize_t got;

    if (reader->got >= reader->stop_at) {
        loop_cancel(loop, loop_current(loop));
        return;
    }
    got = recv(reader->fd, part, sizeof part, MSG_DONTWAIT);
    if (got < 0)
        return;
    for (ssize_t i = 0; i < got; i++, reader->got++)
        if (part[i] != reader->got % 251) {
            CHECK(part[i], ==, reader->got % 251);
            return;
        }
}

static void send_all_in_connection(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char *data = make_megabyte();
    struct reader reader = {0, 0, MEGABYTE, 0};
    int fds[2];

    make_connection(fds);
    reader.fd = fds[1];
    REQUIRE(loop_send_all(loop, fds[0], data, MEGABYTE, 0, note, &seen), >, 0);
    REQUIRE(loop_call_every(loop, LOOP_USEC(50), read_some, &reader), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.result, ==, MEGABYTE);
    CHECK(seen.flags & LOOP_TIMED_OUT, ==, 0);
    CHECK(reader.got, ==, MEGABYTE);
    close_pair(fds);
    free(data);
    close_loop(loop);
}

static void send_all_goes_on_until_a_slow_reader_has_all(void)
{
    send_all_in_connection();
}

/* Where the kernel does not go on by itself, the loop does. */
static void send_all_goes_on_on_an_old_kernel(void)
{
    setenv("RINGLOOP_KERNEL", "5.10", 1);
    send_all_in_connection();
    unsetenv("RINGLOOP_KERNEL");
}

enum ending { BY_CANCEL, BY_DEADLINE, BY_RESET };

static void end_in_mid_write(enum ending ending)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char *data = make_megabyte();
    struct reader reader = {0, 0, 100000, 0};
    int fds[2];
    loop_handle_t handle, timer;

    expect_sigpipe();
    make_connection(fds);
    reader.fd = fds[1];
    handle = loop_send_all(loop, fds[0], data, MEGABYTE, 0, note, &seen);
    REQUIRE(handle, >, 0);
    timer = loop_call_every(loop, LOOP_USEC(50), read_some, &reader);
    while (loop_is_pending(loop, timer)) CHECK(loop_run_once(loop, LOOP_MSEC(1)), >=, 0);
    CHECK(reader.got, >=, 100000);
    CHECK(seen.finals, ==, 0);
    if (ending == BY_CANCEL)
        CHECK(loop_cancel(loop, handle), ==, 1);
    else if (ending == BY_DEADLINE)
        CHECK(loop_set_deadline(loop, handle, loop_time(loop) + LOOP_MSEC(1)), ==, 0);
    else
        reset(fds[1]);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    /* What the kernel has taken, all that was read among it, and not an error. */
    CHECK(seen.result, >=, reader.got);
    CHECK(seen.result, <, MEGABYTE);
    CHECK(seen.flags & LOOP_TIMED_OUT, ==, ending == BY_DEADLINE ? LOOP_TIMED_OUT : 0);
    if (ending == BY_RESET) {
        memset(&seen, 0, sizeof seen);
        see(loop, loop_send_all(loop, fds[0], data, 10, 0, note, &seen), &seen, -EPIPE);
    } else {
        /* The count is exact: the peer gets so many, and no more. */
        shutdown(fds[0], SHUT_WR);
        for (;;) {
            ssize_t got = recv(fds[1], data, MEGABYTE, 0);

            if (got <= 0)
                break;
            reader.got += (size_t)got;
        }
        CHECK(reader.got, ==, seen.result);
        close(fds[1]);
    }
    close(fds[0]);
    free(data);
    close_loop(loop);
}

static void end_on_both_kernels(enum ending ending)
{
    end_in_mid_write(ending);
    setenv("RINGLOOP_KERNEL", "5.10", 1);
    end_in_mid_write(ending);
    unsetenv("RINGLOOP_KERNEL");
}

static void s13_send_all_that_is_cancelled_says_how_far_it_came(void)
{
    end_on_both_kernels(BY_CANCEL);
}

static void s13_send_all_with_a_deadline_says_how_far_it_came(void)
{
    end_on_both_kernels(BY_DEADLINE);
}

static void send_all_to_a_peer_that_resets_says_how_far_it_came(void)
{
    end_on_both_kernels(BY_RESET);
}

static void a_reset_is_an_error_and_no_signal(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char buffer[8] = "";
    int fds[2];

    expect_sigpipe();
    make_connection(fds);
    reset(fds[1]);
    see(loop, loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen), &seen, -ECONNRESET);
    see(loop, loop_send(loop, fds[0], "x", 1, 0, note, &seen), &seen, -EPIPE);
    close(fds[0]);
    close_loop(loop);
}

/* ---- messages ---- */

static void messages_carry_vectors_names_and_descriptors(void)
{
    loop_t *loop = new_loop();
    struct seen sent = {0}, received = {0};
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
    REQUIRE(loop_recvmsg(loop, receiver, &in_message, 0, note, &received), >, 0);
    out[0] = (struct iovec){(char *)(uintptr_t)"abc", 3};
    out[1] = (struct iovec){(char *)(uintptr_t)"defg", 4};
    out_message->msg_name = &address;
    out_message->msg_namelen = sizeof address;
    out_message->msg_iov = out;
    out_message->msg_iovlen = 2;
    REQUIRE(loop_sendmsg(loop, sender, out_message, 0, note, &sent), >, 0);
    /* They have been copied. */
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

static void a_descriptor_goes_through_a_message(void)
{
    loop_t *loop = new_loop();
    struct seen sent = {0}, received = {0};
    char byte = 'x', got = 0;
    struct iovec out = {&byte, 1}, in = {&got, 1};
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } out_control, in_control;
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
    REQUIRE(loop_recvmsg(loop, fds[0], &in_message, MSG_CMSG_CLOEXEC, note, &received), >, 0);
    REQUIRE(loop_sendmsg(loop, fds[1], &out_message, 0, note, &sent), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(sent.result, ==, 1);
    CHECK(received.result, ==, 1);
    CHECK(in_message.msg_controllen, ==, sizeof in_control);
    control = CMSG_FIRSTHDR(&in_message);
    REQUIRE(control != NULL, ==, 1);
    memcpy(&passed, CMSG_DATA(control), sizeof passed);
    CHECK(write(fds[1], "y", 1), ==, 1);
    CHECK(read(passed, &got, 1), ==, 1);
    CHECK(got, ==, 'y');
    close(passed);
    close_pair(fds);
    close_loop(loop);
}

static void messages_fail_and_are_cancelled(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char byte;
    struct iovec vector = {&byte, 1}, huge[2] = {{&byte, SIZE_MAX}, {&byte, 2}};
    struct msghdr message = {0};
    int fds[2];

    expect_sigpipe();
    make_pair(fds);
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_flags = 77;
    cancel_and_see(loop, loop_recvmsg(loop, fds[0], &message, 0, note, &seen), &seen, -ECANCELED);
    CHECK(message.msg_flags, ==, 77);
    memset(&seen, 0, sizeof seen);
    close(fds[1]);
    see(loop, loop_sendmsg(loop, fds[0], &message, 0, note, &seen), &seen, -EPIPE);
    see(loop, loop_recvmsg(loop, fds[0], &message, 0, note, &seen), &seen, 0);
    CHECK(message.msg_flags, ==, 0);
    CHECK(loop_recvmsg(loop, fds[0], NULL, 0, note, &seen), ==, -EINVAL);
    CHECK(loop_sendmsg(loop, fds[0], NULL, 0, note, &seen), ==, -EINVAL);
    message.msg_iov = NULL;
    CHECK(loop_sendmsg(loop, fds[0], &message, 0, note, &seen), ==, -EINVAL);
    message.msg_iov = huge;
    message.msg_iovlen = 2;
    CHECK(loop_sendmsg(loop, fds[0], &message, 0, note, &seen), ==, -EINVAL);
    close(fds[0]);
    close_loop(loop);
}

/* ---- connections ---- */

/* Also where the kernel makes none (before 5.19), which is said by name. */
static int make_socket(loop_t *loop)
{
    struct seen made = {0};

    if (!loop_supports(loop, IORING_OP_SOCKET)) {
        CHECK(loop_socket(loop, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, note, &made), ==, -ENOSYS);
        return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    }
    REQUIRE(loop_socket(loop, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0, note, &made), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    return made.result;
}

static void sockets_are_made_connected_accepted_and_shut_down(void)
{
    loop_t *loop = new_loop();
    struct seen connected = {0}, accepted = {0}, seen = {0};
    struct sockaddr_in address;
    char byte;
    int listener = listen_on_loopback(&address), client = make_socket(loop);

    REQUIRE(client, >, 2);
    REQUIRE(loop_accept(loop, listener, SOCK_CLOEXEC, note, &accepted), >, 0);
    REQUIRE(loop_connect(loop, client, (struct sockaddr *)&address, sizeof address, note, &connected), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(connected.result, ==, 0);
    REQUIRE(accepted.result, >=, 0);
    if (loop_supports(loop, IORING_OP_SHUTDOWN))
        see(loop, loop_shutdown_fd(loop, client, SHUT_WR, note, &seen), &seen, 0);
    else
        CHECK(shutdown(client, SHUT_WR), ==, 0);
    CHECK(recv(accepted.result, &byte, 1, 0), ==, 0);
    see(loop, loop_close_fd(loop, accepted.result, note, &seen), &seen, 0);
    CHECK(write(accepted.result, "x", 1), ==, -1);
    CHECK(errno, ==, EBADF);
    see(loop, loop_close_fd(loop, client, note, &seen), &seen, 0);
    close(listener);
    close_loop(loop);
}

static void connections_fail_and_are_cancelled(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    loop_handle_t handle;

    cancel_and_see(loop, loop_accept(loop, listener, 0, note, &seen), &seen, -ECANCELED);
    memset(&seen, 0, sizeof seen);
    see(loop, loop_accept(loop, client, 0, note, &seen), &seen, -EINVAL);
    if (loop_supports(loop, IORING_OP_SHUTDOWN))
        see(loop, loop_shutdown_fd(loop, client, SHUT_WR, note, &seen), &seen, -ENOTCONN);
    else
        CHECK(loop_shutdown_fd(loop, client, SHUT_WR, note, &seen), ==, -ENOSYS);
    close(listener);
    see(loop, loop_connect(loop, client, (struct sockaddr *)&address, sizeof address, note, &seen), &seen, -ECONNREFUSED);
    if (loop_supports(loop, IORING_OP_SOCKET))
        see(loop, loop_socket(loop, 12345, SOCK_STREAM, 0, note, &seen), &seen, -EAFNOSUPPORT);
    see(loop, loop_close_fd(loop, 1000000, note, &seen), &seen, -EBADF);
    CHECK(loop_connect(loop, client, NULL, sizeof address, note, &seen), ==, -EINVAL);
    /* What does not wait: the request is taken, and one final callback comes. */
    if (loop_supports(loop, IORING_OP_SOCKET)) {
        handle = loop_socket(loop, AF_INET, SOCK_STREAM, 0, note, &seen);
        CHECK(loop_cancel(loop, handle), ==, 1);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(seen.finals, ==, 1);
        if (seen.result >= 0)
            close(seen.result);
        memset(&seen, 0, sizeof seen);
    }
    handle = loop_close_fd(loop, client, note, &seen);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.finals, ==, 1);
    CHECK_TRUE(seen.result == 0 || seen.result == -ECANCELED);
    /* Closed if it says so, and only then. */
    CHECK(close(client), ==, seen.result == 0 ? -1 : 0);
    close_loop(loop);
}

/* A connection that is waited for: the listener's queue is full. */
static void s13_connecting_is_cancelled(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address), fillers[3], client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(listen(listener, 0), ==, 0);
    for (int i = 0; i < 3; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)!connect(fillers[i], (struct sockaddr *)&address, sizeof address);
    }
    cancel_and_see(loop, loop_connect(loop, client, (struct sockaddr *)&address, sizeof address, note, &seen), &seen,
                   -ECANCELED);
    for (int i = 0; i < 3; i++) close(fillers[i]);
    close(client);
    close(listener);
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

    CHECK(loop_recv(loop, 0, &byte, too_long, 0, note, NULL), ==, -EINVAL);
    CHECK(loop_send(loop, 0, &byte, too_long, 0, note, NULL), ==, -EINVAL);
    CHECK(loop_send_all(loop, 0, &byte, too_long, 0, note, NULL), ==, -EINVAL);
    CHECK(loop_send_all(loop, 0, NULL, 1, 0, note, NULL), ==, -EINVAL);
    CHECK(loop_recv(loop, 0, NULL, 1, 0, note, NULL), ==, -EINVAL);
    CHECK(loop_send_all(loop, 0, &byte, 1, 0, NULL, NULL), ==, -EINVAL);
    CHECK(loop_send_all(NULL, 0, &byte, 1, 0, note, NULL), ==, -EINVAL);
    /* What no kernel would take is refused before it is read: these are longer than what they name. */
    CHECK(loop_connect(loop, 0, &address, UINT32_MAX, note, NULL), ==, -EINVAL);
    CHECK(loop_writev(loop, 0, &vector, 1025, 0, note, NULL), ==, -EINVAL);
    CHECK(loop_readv(loop, 0, &vector, SIZE_MAX, 0, note, NULL), ==, -EINVAL);
    message.msg_iov = &vector;
    message.msg_iovlen = SIZE_MAX;
    CHECK(loop_sendmsg(loop, 0, &message, 0, note, NULL), ==, -EINVAL);
    CHECK(loop_recvmsg(loop, 0, &message, 0, note, NULL), ==, -EINVAL);
    CHECK_TRUE(!loop_is_alive(loop));
    setenv("RINGLOOP_KERNEL", "5.10", 1);
    /* What is wrong with the arguments is said before what is wrong with the loop. */
    CHECK(loop_shutdown(loop), ==, 0);
    CHECK(loop_recv(loop, 0, NULL, 1, 0, note, NULL), ==, -EINVAL);
    CHECK(loop_recv(loop, 0, &byte, 1, 0, note, NULL), ==, -ESHUTDOWN);
    close_loop(loop);
    loop = new_loop();
    unsetenv("RINGLOOP_KERNEL");
    CHECK(loop_socket(loop, AF_INET, SOCK_STREAM, 0, note, NULL), ==, -ENOSYS);
    CHECK(loop_shutdown_fd(loop, 0, SHUT_WR, note, NULL), ==, -ENOSYS);
    CHECK_TRUE(!loop_is_alive(loop));
    close_loop(loop);
}

/* ---- the kernel lets go ---- */

struct guarded {
    struct seen seen;
    int peer;
    char *page;
    size_t size;
};

static void guard(void *arg)
{
    struct guarded *guarded = arg;

    note_release(&guarded->seen);
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
 * Data that arrives when the release hook runs does not go into the buffer, which is unreachable soon after. A kernel of 5.10 would
 * put it there as soon as it arrives, a newer one when the loop enters it.
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
        handle = loop_recvmsg(loop, fds[0], &header, 0, note, &guarded);
    else
        handle = loop_recv(loop, fds[0], guarded.page, guarded.size, 0, note, &guarded);
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
    struct seen seen = {0};
    char buffer[8] = "";
    int fds[2];
    loop_handle_t handle;

    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen);
    CHECK(loop_run_once(loop, 0), ==, 0);
    close(fds[0]);
    CHECK(loop_run_once(loop, LOOP_MSEC(2)), ==, 0);
    CHECK(seen.finals, ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.result, ==, -ECANCELED);
    /* And the file with it: the peer sees the end. */
    CHECK(recv(fds[1], buffer, 1, 0), ==, 0);
    close(fds[1]);
    close_loop(loop);
}

/* Whether the peer of a socket has closed it, or the kernel has for it. */
static bool has_ended(int fd)
{
    struct pollfd end = {fd, POLLIN, 0};
    char byte;
    int ready;

    do
        ready = poll(&end, 1, 5000);
    while (ready < 0 && errno == EINTR);
    return ready == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) <= 0;
}

static void accept_and_close(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    REQUIRE(loop_accept(loop, listener, SOCK_CLOEXEC, note, &seen), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    REQUIRE(connect(client, (struct sockaddr *)&address, sizeof address), ==, 0);
    close_loop(loop);
    CHECK(seen.finals, ==, 0);
    /* If the kernel had not accepted it before it was cancelled, closing the listener resets it. */
    close(listener);
    CHECK_TRUE(has_ended(client));
    close(client);
}

/* On a kernel of 5.10 the connection is accepted as soon as it is there, on a newer one when the loop enters the kernel. */
static void s22_a_connection_that_no_callback_has_seen_is_closed(void)
{
    accept_and_close();
    setenv("RINGLOOP_KERNEL", "5.10", 1);
    accept_and_close();
    unsetenv("RINGLOOP_KERNEL");
}

/* What the callback before it has stopped short is a result that nobody sees. */
static void stop_short(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    note(loop, result, flags, arg);
    CHECK(loop_break(loop), ==, 0);
}

static void s22_a_connection_in_the_ready_queue_is_closed(void)
{
    loop_t *loop = new_loop();
    struct seen first = {0}, second = {0};
    struct sockaddr_in address;
    int clients[2], listener = listen_on_loopback(&address);

    for (int i = 0; i < 2; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE(connect(clients[i], (struct sockaddr *)&address, sizeof address), ==, 0);
    }
    REQUIRE(loop_accept(loop, listener, SOCK_CLOEXEC, stop_short, &first), >, 0);
    REQUIRE(loop_accept(loop, listener, SOCK_CLOEXEC, note, &second), >, 0);
    CHECK(loop_run(loop), ==, LOOP_BROKEN);
    CHECK(first.finals, ==, 1);
    CHECK(second.finals, ==, 0);
    close_loop(loop);
    CHECK(second.finals, ==, 0);
    /* The listener is open: an end of file can only come of closing the accepted socket. */
    CHECK_TRUE(has_ended(clients[1]));
    close(first.result);
    close(clients[0]);
    close(clients[1]);
    close(listener);
}

static void an_embedded_loop_hears_of_a_cancel(void)
{
    loop_t *loop = new_loop();
    struct seen seen = {0};
    char buffer[8] = "";
    int fds[2];
    loop_handle_t handle;
    struct pollfd host = {loop_fd(loop), POLLIN, 0};

    REQUIRE(host.fd, >=, 0);
    make_pair(fds);
    handle = loop_recv(loop, fds[0], buffer, sizeof buffer, 0, note, &seen);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_flush(loop), ==, 0);
    for (int i = 0; i < 10 && seen.finals == 0; i++) {
        REQUIRE(poll(&host, 1, 5000), ==, 1);
        CHECK(loop_run_once(loop, 0), >=, 0);
    }
    CHECK(seen.result, ==, -ECANCELED);
    close_pair(fds);
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(recv_receives_fails_and_is_cancelled),
    TEST(send_sends_fails_without_sigpipe_and_is_cancelled),
    TEST(send_all_goes_on_until_a_slow_reader_has_all),
    TEST(send_all_goes_on_on_an_old_kernel),
    TEST(s13_send_all_that_is_cancelled_says_how_far_it_came),
    TEST(s13_send_all_with_a_deadline_says_how_far_it_came),
    TEST(send_all_to_a_peer_that_resets_says_how_far_it_came),
    TEST(a_reset_is_an_error_and_no_signal),
    TEST(messages_carry_vectors_names_and_descriptors),
    TEST(a_descriptor_goes_through_a_message),
    TEST(messages_fail_and_are_cancelled),
    TEST(sockets_are_made_connected_accepted_and_shut_down),
    TEST(connections_fail_and_are_cancelled),
    TEST(s13_connecting_is_cancelled),
    TEST(s29_wrong_arguments_are_refused_first),
    TEST(s14_a_buffer_that_is_released_is_not_the_kernels),
    TEST(s14_a_buffer_that_is_released_at_close_is_not_the_kernels),
    TEST(s13_an_operation_whose_descriptor_is_closed_ends_when_cancelled),
    TEST(s22_a_connection_that_no_callback_has_seen_is_closed),
    TEST(s22_a_connection_in_the_ready_queue_is_closed),
    TEST(an_embedded_loop_hears_of_a_cancel),
};

CHECK_MAIN(tests)
