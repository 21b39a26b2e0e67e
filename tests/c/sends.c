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

/* ---- sends of all on one stream ---- */

/* What a send came to. */
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
    seen->finals++;
    seen->result = result;
    seen->flags = flags;
}

static void note_release(void *arg)
{
    ((struct seen *)arg)->released++;
}

#define PART (1 << 20)
#define PARTS 6

static char parts[PARTS][PART];

static void make_parts(void)
{
    for (int i = 0; i < PARTS; i++)
        memset(parts[i], 'a' + i, PART);
}

/* Receives what is there, and checks that it goes up from `last` letter by letter. Returns the last letter. */
static char receive(int fd, char last, size_t *count)
{
    static char room[1 << 16];
    ssize_t length;

    while ((length = recv(fd, room, sizeof room, MSG_DONTWAIT)) > 0) {
        *count += (size_t)length;
        for (ssize_t i = 0; i < length; i++) {
            if (room[i] != last)
                CHECK(room[i], ==, last + 1);
            last = room[i];
        }
    }
    return last;
}

static void s13_sends_of_all_on_one_stream_do_not_mix(void)
{
    loop_t *loop = new_loop();
    struct seen seen[PARTS];
    size_t count = 0;
    char last = 'a';
    int fds[2];

    memset(seen, 0, sizeof seen);
    make_parts();
    make_pair(fds);
    for (int i = 0; i < PARTS; i++) {
        /* The two are of one kind. */
        loop_handle_t handle = i % 2 ? loop_write_all(loop, fds[0], parts[i], PART, LOOP_CURRENT, note, &seen[i])
                                     : loop_send_all(loop, fds[0], parts[i], PART, 0, note, &seen[i]);

        REQUIRE(handle, >, 0);
    }
    while (seen[PARTS - 1].finals == 0) {
        REQUIRE(loop_run_once(loop, LOOP_MSEC(100)), >=, 0);
        last = receive(fds[1], last, &count);
        for (int i = 1; i < PARTS; i++)
            CHECK(seen[i].finals, <=, seen[i - 1].finals);
    }
    last = receive(fds[1], last, &count);
    CHECK(last, ==, 'a' + PARTS - 1);
    CHECK(count, ==, (size_t)PARTS * PART);
    for (int i = 0; i < PARTS; i++)
        CHECK(seen[i].result, ==, PART);
    close_loop(loop);
    close_pair(fds);
}

/* Those in the middle of the line are cancelled and time out; then the first. Those behind begin, and nothing of the others is sent. */
static void s13_a_send_of_all_that_waits_can_be_cancelled(void)
{
    loop_t *loop = new_loop();
    struct seen seen[PARTS];
    loop_handle_t handles[PARTS];
    size_t count = 0;
    int fds[2];

    memset(seen, 0, sizeof seen);
    make_parts();
    make_pair(fds);
    for (int i = 0; i < PARTS; i++)
        handles[i] = loop_send_all(loop, fds[0], parts[i], PART, 0, note, &seen[i]);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_cancel(loop, handles[2]), ==, 1);
    CHECK(loop_set_deadline(loop, handles[1], loop_time(loop) + 1), ==, 0);
    CHECK(loop_set_deadline(loop, handles[5], loop_time(loop) + 1), ==, 0);
    while (seen[1].finals + seen[2].finals + seen[5].finals < 3)
        REQUIRE(loop_run_once(loop, LOOP_MSEC(100)), >=, 0);
    CHECK(seen[2].result, ==, -ECANCELED);
    CHECK(seen[1].result, ==, -ETIMEDOUT);
    CHECK_TRUE(seen[1].flags & LOOP_TIMED_OUT);
    CHECK(seen[5].result, ==, -ETIMEDOUT);
    CHECK(seen[0].finals + seen[3].finals + seen[4].finals, ==, 0);
    CHECK(loop_cancel(loop, handles[0]), ==, 1);
    while (seen[0].finals == 0)
        REQUIRE(loop_run_once(loop, LOOP_MSEC(100)), >=, 0);
    CHECK(seen[0].result, >, 0);
    CHECK(seen[0].result, <, PART);
    /* The 'a's that were sent, then all of the fourth and the fifth. */
    for (size_t i = 0; i < PARTS; i++)
        memset(parts[i], i == 3 ? 'b' : 'c', PART);
    for (char last = 'a'; seen[4].finals == 0;) {
        REQUIRE(loop_run_once(loop, LOOP_MSEC(100)), >=, 0);
        last = receive(fds[1], last, &count);
    }
    receive(fds[1], 'c', &count);
    CHECK(count, ==, (size_t)seen[0].result + 2 * PART);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_loop(loop);
    close_pair(fds);
}

static void s13_a_send_of_all_behind_one_that_fails_goes_on(void)
{
    loop_t *loop = new_loop();
    struct seen seen[2];
    int fds[2];

    memset(seen, 0, sizeof seen);
    make_pair(fds);
    for (int i = 0; i < 2; i++)
        CHECK(loop_send_all(loop, fds[0], parts[i], PART, 0, note, &seen[i]), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    close(fds[1]);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen[0].finals, ==, 1);
    CHECK(seen[0].result, <, PART);
    CHECK(seen[1].finals, ==, 1);
    CHECK(seen[1].result, ==, -EPIPE);
    close(fds[0]);
    close_loop(loop);
}

/* The number that was forgotten is another socket's, whose sends wait for nobody. */
static void s13_sends_of_all_end_with_forget_fd(void)
{
    loop_t *loop = new_loop();
    struct seen seen[3], other;
    size_t count = 0;
    int fds[2], fresh[2];

    memset(seen, 0, sizeof seen);
    memset(&other, 0, sizeof other);
    make_parts();
    make_pair(fds);
    make_pair(fresh);
    for (int i = 0; i < 3; i++)
        CHECK(loop_send_all(loop, fds[0], parts[i], PART, 0, note, &seen[i]), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_forget_fd(loop, fds[0]), ==, 0);
    REQUIRE(dup2(fresh[0], fds[0]), ==, fds[0]);
    CHECK(loop_send_all(loop, fds[0], parts[0], PART, 0, note, &other), >, 0);
    while (other.finals == 0) {
        REQUIRE(loop_run_once(loop, LOOP_MSEC(100)), >=, 0);
        receive(fresh[1], 'a', &count);
    }
    CHECK(other.result, ==, PART);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    for (int i = 0; i < 3; i++)
        CHECK(seen[i].finals, ==, 1);
    CHECK(seen[0].result, <, PART);
    CHECK(seen[1].result, ==, -ECANCELED);
    CHECK(seen[2].result, ==, -ECANCELED);
    close_loop(loop);
    close_pair(fds);
    close_pair(fresh);
}

static void s22_sends_of_all_that_wait_are_released_at_close(void)
{
    loop_t *loop = new_loop();
    struct seen seen[3];
    int fds[2];

    memset(seen, 0, sizeof seen);
    make_pair(fds);
    for (int i = 0; i < 3; i++) {
        loop_handle_t handle = loop_send_all(loop, fds[0], parts[i], PART, 0, note, &seen[i]);

        REQUIRE(handle, >, 0);
        CHECK(loop_on_release(loop, handle, note_release), ==, 0);
    }
    CHECK(loop_run_once(loop, 0), ==, 0);
    close_loop(loop);
    for (int i = 0; i < 3; i++) {
        CHECK(seen[i].finals, ==, 0);
        CHECK(seen[i].released, ==, 1);
    }
    close_pair(fds);
}

/* Each part has its place in the file. */
static void s13_writes_of_all_at_offsets_do_not_wait(void)
{
    loop_t *loop = new_loop();
    FILE *file = tmpfile();
    struct seen seen[2];
    loop_metrics_t before, after;

    REQUIRE(file != NULL, ==, 1);
    memset(seen, 0, sizeof seen);
    before.size = after.size = sizeof before;
    CHECK(loop_metrics(loop, &before), ==, 0);
    for (int i = 0; i < 2; i++)
        CHECK(loop_write_all(loop, fileno(file), parts[i], 10, (uint64_t)i * 10, note, &seen[i]), >, 0);
    CHECK(loop_run_once(loop, 0), >=, 0);
    CHECK(loop_metrics(loop, &after), ==, 0);
    CHECK(after.submitted - before.submitted, >=, 2);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen[0].result + seen[1].result, ==, 20);
    close_loop(loop);
    fclose(file);
}

/* ---- flags ---- */

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
    TEST(s13_sends_of_all_on_one_stream_do_not_mix),
    TEST(s13_a_send_of_all_that_waits_can_be_cancelled),
    TEST(s13_a_send_of_all_behind_one_that_fails_goes_on),
    TEST(s13_sends_of_all_end_with_forget_fd),
    TEST(s22_sends_of_all_that_wait_are_released_at_close),
    TEST(s13_writes_of_all_at_offsets_do_not_wait),
};

CHECK_MAIN(tests)
