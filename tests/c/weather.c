/*
 * S32 and bad weather: io_uring refused, descriptors, memory or locked memory
 * exhausted, the ring as small as it gets. Limits and filters are set in child
 * processes.
 */
#include "check.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* From here on system call `number` fails with `error` in this process. */
static void refuse(long number, int error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};

    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), ==, 0);
}

static int lowest_free_descriptor(void)
{
    int fd = dup(STDERR_FILENO);

    REQUIRE(fd, >=, 0);
    close(fd);
    return fd;
}

/* loop_new() says `error`, says more in a sentence, writes nothing and leaves nothing open. */
static void expect_refusal(int error)
{
    loop_t *const untouched = (loop_t *)(uintptr_t)0x5a5a;
    loop_t *loop = untouched;
    int before = lowest_free_descriptor();

    CHECK(loop_new(NULL, &loop), ==, -error);
    CHECK_POINTER(loop, untouched);
    CHECK(strlen(loop_last_error()), >, 20);
    CHECK(lowest_free_descriptor(), ==, before);
}

static void refused_with(void *arg)
{
    const int *error = arg;

    refuse(SYS_io_uring_setup, *error);
    for (int i = 0; i < 3; i++)
        expect_refusal(*error);
    if (*error == EPERM) {
        /* What to change: the container's filter, or the sysctl. */
        CHECK_TRUE(strstr(loop_last_error(), "seccomp") != NULL);
        CHECK_TRUE(strstr(loop_last_error(), "io_uring_disabled") != NULL);
    }
}

static void s32_io_uring_refused_with_eperm(void)
{
    int error = EPERM;

    CHECK_IN_CHILD(refused_with, &error);
}

static void s32_io_uring_refused_with_enosys(void)
{
    int error = ENOSYS;

    CHECK_IN_CHILD(refused_with, &error);
}

static void s32_io_uring_refused_with_enomem(void)
{
    int error = ENOMEM;

    CHECK_IN_CHILD(refused_with, &error);
}

/* Every flag refused: a kernel too old for what the loop needs. */
static void refused_with_einval(void *arg)
{
    loop_t *loop = NULL;
    int result;

    (void)arg;
    refuse(SYS_io_uring_setup, EINVAL);
    result = loop_new(NULL, &loop);
    CHECK_TRUE(result == -EINVAL || result == -ENOSYS);
    CHECK_POINTER(loop, NULL);
    CHECK(strlen(loop_last_error()), >, 20);
}

static void s32_io_uring_refused_with_einval(void)
{
    CHECK_IN_CHILD(refused_with_einval, NULL);
}

/* A filter that allows the one call and not the other. */
static void register_refused(void *arg)
{
    loop_t *loop = NULL;
    int before = lowest_free_descriptor(), result;

    (void)arg;
    refuse(SYS_io_uring_register, EPERM);
    result = loop_new(NULL, &loop);
    if (result == 0) {
        result = loop_run_once(loop, 0);
        CHECK_TRUE(result == 0 || result == -EPERM);
        CHECK(loop_close(loop), ==, 0);
    } else {
        CHECK(result, ==, -EPERM);
        CHECK(strlen(loop_last_error()), >, 20);
    }
    CHECK(lowest_free_descriptor(), ==, before);
}

static void s32_io_uring_register_refused(void)
{
    CHECK_IN_CHILD(register_refused, NULL);
}

/* Nothing is lost on an error, not even when the kernel stops answering. */
static void enter_refused(void *arg)
{
    loop_t *loop = new_loop();
    loop_handle_t timer = loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), call;

    (void)arg;
    refuse(SYS_io_uring_enter, EPERM);
    CHECK(loop_run_once(loop, LOOP_SEC(1)), ==, -EPERM);
    CHECK(loop_run_forever(loop), ==, -EPERM);
    CHECK_TRUE(loop_is_pending(loop, timer));
    call = loop_call_soon(loop, do_nothing, NULL);
    CHECK(call, >, 0);
    CHECK(loop_cancel(loop, call), ==, 0);
    CHECK(loop_cancel(loop, timer), ==, 0);
    CHECK(loop_close(loop), ==, 0);
}

static void a_refused_io_uring_enter_ends_the_run(void)
{
    CHECK_IN_CHILD(enter_refused, NULL);
}

/* ---- descriptors ---- */

static void allow_descriptors(rlim_t count)
{
    struct rlimit limit;

    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    limit.rlim_cur = count;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
}

static void no_descriptors(void *arg)
{
    int free_one = lowest_free_descriptor();
    loop_t *loop = NULL;
    int result = -EMFILE, more;

    (void)arg;
    allow_descriptors((rlim_t)free_one);
    CHECK(loop_new(NULL, &loop), ==, -EMFILE);
    CHECK_POINTER(loop, NULL);
    CHECK(strlen(loop_last_error()), >, 20);
    for (more = 1; result == -EMFILE && more < 20; more++) {
        allow_descriptors((rlim_t)(free_one + more));
        result = loop_new(NULL, &loop);
        CHECK_TRUE(result == 0 || result == -EMFILE);
    }
    CHECK(result, ==, 0);
    CHECK(loop_call_later(loop, LOOP_MSEC(1), do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_close(loop), ==, 0);
    CHECK(lowest_free_descriptor(), ==, free_one);
}

static void s32_no_descriptor_left(void)
{
    CHECK_IN_CHILD(no_descriptors, NULL);
}

static void no_descriptor_for_loop_fd(void *arg)
{
    loop_t *loop = new_loop();
    int fd;

    (void)arg;
    allow_descriptors((rlim_t)lowest_free_descriptor());
    fd = loop_fd(loop);
    /* A loop may well have made it in advance. */
    CHECK_TRUE(fd >= 0 || fd == -EMFILE);
    CHECK(loop_call_later(loop, LOOP_MSEC(1), do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    allow_descriptors(256);
    CHECK(loop_fd(loop), >=, 0);
    CHECK(loop_close(loop), ==, 0);
}

static void s32_no_descriptor_left_for_loop_fd(void)
{
    CHECK_IN_CHILD(no_descriptor_for_loop_fd, NULL);
}

/* ---- memory ---- */

static rlim_t address_space(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;

    REQUIRE(file != NULL, ==, 1);
    REQUIRE(fscanf(file, "%lu", &pages), ==, 1);
    fclose(file);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void too_little_memory(void *arg)
{
    rlim_t used = address_space(), more;
    size_t refusals = 0;
    int result = -ENOMEM;

    (void)arg;
    for (more = 0; result == -ENOMEM && more <= (64u << 20); more += 4096) {
        struct rlimit limit = {used + more, RLIM_INFINITY};
        loop_t *loop = NULL;

        REQUIRE(setrlimit(RLIMIT_AS, &limit), ==, 0);
        result = loop_new(NULL, &loop);
        if (result == 0) {
            CHECK(loop_call_later(loop, LOOP_MSEC(1), do_nothing, NULL), >, 0);
            CHECK(loop_run(loop), ==, LOOP_DONE);
            CHECK(loop_close(loop), ==, 0);
        } else {
            CHECK(result, ==, -ENOMEM);
            CHECK_POINTER(loop, NULL);
            CHECK(strlen(loop_last_error()), >, 20);
            refusals++;
        }
    }
    CHECK(result, ==, 0);
    CHECK(refusals, >, 0);
}

static void s32_too_little_address_space(void)
{
    CHECK_IN_CHILD(too_little_memory, NULL);
}

static void no_locked_memory(void *arg)
{
    struct rlimit none = {0, 0};
    loop_t *loop = NULL;
    int result;

    (void)arg;
    REQUIRE(setrlimit(RLIMIT_MEMLOCK, &none), ==, 0);
    if (geteuid() == 0) /* root is above this limit */
        REQUIRE(setuid(65534), ==, 0);
    result = loop_new(NULL, &loop);
    if (result == 0) {
        /* Since Linux 5.12 the ring is no longer counted as locked memory. */
        CHECK(loop_call_later(loop, LOOP_MSEC(1), do_nothing, NULL), >, 0);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(loop_close(loop), ==, 0);
    } else {
        CHECK(result, ==, -ENOMEM);
        CHECK_TRUE(strstr(loop_last_error(), "locked memory") != NULL);
    }
}

static void s32_no_locked_memory(void)
{
    CHECK_IN_CHILD(no_locked_memory, NULL);
}

/* ---- small rings ---- */

enum { CROWD = 500 };

static uint64_t deadlines[CROWD];
static loop_handle_t timers[CROWD];
static size_t fired, early;

static void note(loop_t *loop, void *arg)
{
    const uint64_t *when = arg;

    fired++;
    early += loop_time(loop) < *when;
}

/* Ever earlier deadlines, so that each iteration has the armed timeout moved, on a ring with room for next to nothing. */
static void a_tiny_ring_loses_no_timer(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    size_t cancelled = 0;
    uint64_t now;
    loop_t *loop;

    options.sq_entries = 1;
    options.cq_entries = 1;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    fired = early = 0;
    now = loop_time(loop);
    for (size_t i = 0; i < CROWD; i++) {
        deadlines[i] = now + LOOP_MSEC(300) - LOOP_USEC(500 * i);
        timers[i] = loop_call_at(loop, deadlines[i], note, &deadlines[i]);
        CHECK(timers[i], >, 0);
        if (i % 5 == 4)
            cancelled += loop_cancel(loop, timers[i - 2]) == 0;
        CHECK(loop_run_once(loop, LOOP_USEC(20)), >=, 0);
    }
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(fired, ==, CROWD - cancelled);
    CHECK(early, ==, 0);
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(s32_io_uring_refused_with_eperm),
    TEST(s32_io_uring_refused_with_enosys),
    TEST(s32_io_uring_refused_with_enomem),
    TEST(s32_io_uring_refused_with_einval),
    TEST(s32_io_uring_register_refused),
    TEST(a_refused_io_uring_enter_ends_the_run),
    TEST(s32_no_descriptor_left),
    TEST(s32_no_descriptor_left_for_loop_fd),
    TEST_NOT_UNDER("", s32_too_little_address_space, "the tool itself needs more address space than it allows"),
    TEST(s32_no_locked_memory),
    TEST(a_tiny_ring_loses_no_timer),
};

CHECK_MAIN(tests)
