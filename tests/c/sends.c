/* What is sent: whose the buffer is, and in which order. S13. */
#include "io.h"

#include <linux/io_uring.h>

#include <string.h>
#include <sys/socket.h>

#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif
#define SPLICE_PAGES 0x8000000
#define SOCK_DEVMEM 0x2000000

static void ignore(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop, (void)result, (void)flags, (void)arg;
}

/* That a flag is refused, by a sentence that begins with its name or has the words given. */
static void check_refused(loop_handle_t submitted, unsigned flag, const char *said)
{
    CHECK(submitted, ==, -EINVAL);
    if (!strstr(loop_last_error(), said)) {
        fprintf(stderr, "%#x is refused with \"%s\", not \"%s\"\n", flag, loop_last_error(), said);
        CHECK_TRUE(false);
    }
}

static void s13_flags_that_keep_the_buffer_are_refused_by_name(void)
{
    const unsigned sending = MSG_CONFIRM | MSG_DONTROUTE | MSG_DONTWAIT | MSG_EOR | MSG_FASTOPEN | MSG_MORE | MSG_NOSIGNAL |
                             MSG_OOB | MSG_WAITALL;
    const unsigned receiving = MSG_CMSG_CLOEXEC | MSG_DONTWAIT | MSG_ERRQUEUE | MSG_NOSIGNAL | MSG_OOB | MSG_PEEK |
                               MSG_TRUNC | MSG_WAITALL;
    static char room[16];
    loop_t *loop = new_loop();
    int fds[2];

    make_pair(fds);
    for (int bit = 0; bit < 32; bit++) {
        unsigned flag = 1u << bit;
        struct iovec vector = {room, sizeof room};
        struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
        const char *send_refusal = flag == MSG_ZEROCOPY   ? "MSG_ZEROCOPY is refused"
                                   : flag == SPLICE_PAGES ? "MSG_SPLICE_PAGES is refused"
                                                          : "have another bit";
        const char *recv_refusal = flag == SOCK_DEVMEM ? "MSG_SOCK_DEVMEM is refused" : "have another bit";

        if (!(flag & sending)) {
            check_refused(loop_send(loop, fds[0], room, 1, (int)flag, ignore, NULL), flag, send_refusal);
            check_refused(loop_send_all(loop, fds[0], room, 1, (int)flag, ignore, NULL), flag, send_refusal);
            check_refused(loop_sendmsg(loop, fds[0], &message, (int)flag, ignore, NULL), flag, send_refusal);
        }
        if (!(flag & receiving)) {
            check_refused(loop_recv(loop, fds[0], room, 1, (int)flag, ignore, NULL), flag, recv_refusal);
            check_refused(loop_recvmsg(loop, fds[0], &message, (int)flag, ignore, NULL), flag, recv_refusal);
        }
    }
    CHECK(loop_send(loop, fds[0], room, 1, (int)sending, ignore, NULL), >, 0);
    CHECK(loop_recv(loop, fds[0], room, 1, (int)receiving, ignore, NULL), >, 0);
    close_loop(loop);
    close_pair(fds);
}

static void s13_entries_that_keep_the_buffer_are_refused_by_name(void)
{
    static const struct {
        uint8_t opcode;
        unsigned flag;
        const char *said;
    } cases[] = {
        {IORING_OP_SEND, MSG_ZEROCOPY, "MSG_ZEROCOPY is refused"},
        {IORING_OP_SENDMSG, MSG_ZEROCOPY, "MSG_ZEROCOPY is refused"},
        {IORING_OP_SEND, SPLICE_PAGES, "MSG_SPLICE_PAGES is refused"},
        {IORING_OP_SENDMSG, SPLICE_PAGES, "MSG_SPLICE_PAGES is refused"},
        {IORING_OP_RECV, SOCK_DEVMEM, "MSG_SOCK_DEVMEM is refused"},
        {IORING_OP_RECVMSG, SOCK_DEVMEM, "MSG_SOCK_DEVMEM is refused"},
    };
    loop_t *loop = new_loop();
    int fds[2];

    make_pair(fds);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct io_uring_sqe entry;
        void *arg = NULL;

        memset(&entry, 0, sizeof entry);
        entry.opcode = cases[i].opcode;
        entry.fd = fds[0];
        entry.msg_flags = cases[i].flag;
        check_refused(loop_submit(loop, &entry, ignore, NULL), cases[i].flag, cases[i].said);
        check_refused(loop_submit_chain(loop, &entry, 1, ignore, &arg, NULL), cases[i].flag, cases[i].said);
    }
    close_loop(loop);
    close_pair(fds);
}

static const struct check_test tests[] = {
    TEST(s13_flags_that_keep_the_buffer_are_refused_by_name),
    TEST(s13_entries_that_keep_the_buffer_are_refused_by_name),
};

CHECK_MAIN(tests)
