/*
 * S32 and failures of the system: io_uring refused; descriptors, memory or locked memory exhausted. Limits and filters are set in
 * child processes. tests/semantics/errors.rs tests other refusals by a filter.
 */
#include "io.h"

#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <semaphore.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* From here on, system call `number` fails with `error` in this process. */
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

/* loop_new() returns the error, explains it in loop_last_error(), writes nothing and leaves no descriptor open. */
static void setup_refused(void *arg)
{
    loop_t *const untouched = (loop_t *)(uintptr_t)0x5a5a;
    loop_t *loop = untouched;
    int before = lowest_free_descriptor();

    (void)arg;
    refuse(SYS_io_uring_setup, EPERM);
    for (int i = 0; i < 3; i++) {
        CHECK(loop_new(NULL, &loop), ==, -EPERM);
        CHECK_POINTER(loop, untouched);
        /* The sentence names what to change: the container's filter, or the sysctl. */
        CHECK_TRUE(strstr(loop_last_error(), "seccomp") != NULL);
        CHECK_TRUE(strstr(loop_last_error(), "io_uring_disabled") != NULL);
        CHECK(lowest_free_descriptor(), ==, before);
    }
}

static void s32_io_uring_refused(void)
{
    CHECK_IN_CHILD(setup_refused, NULL);
}

static unsigned ran_here, released_here;

static void count_ran(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    ran_here++;
}

static void count_released(void *arg)
{
    (void)arg;
    released_here++;
}

static void *post_in_thread(void *arg)
{
    CHECK(loop_remote_call_soon(arg, count_ran, NULL, count_released), ==, 0);
    CHECK(loop_remote_call_later(arg, LOOP_MSEC(1), count_ran, NULL, count_released), ==, 0);
    return NULL;
}

/* The kernel has taken entries before, such as the poll for wakes, and takes no more: posts stay, and close frees all. */
static void enter_refused_amid_posts(void *arg)
{
    const int *error = arg;
    loop_t *loop = new_loop();
    loop_handle_t timer = loop_call_later(loop, LOOP_SEC(1000), count_ran, NULL);
    loop_remote_t *remote;
    pthread_t thread;

    REQUIRE(loop_remote_new(loop, &remote), ==, 0);
    CHECK(loop_on_release(loop, timer, count_released), ==, 0);
    CHECK(loop_run_once(loop, LOOP_USEC(100)), ==, 0);
    refuse(SYS_io_uring_enter, *error);
    CHECK(loop_run_once(loop, LOOP_SEC(500)), ==, -*error);
    CHECK(strlen(loop_last_error()), >, 10);
    REQUIRE(pthread_create(&thread, NULL, post_in_thread, remote), ==, 0);
    pthread_join(thread, NULL);
    CHECK(loop_call_soon_threadsafe(loop, count_ran, NULL), ==, 0);
    /* A loop whose sleep failed is awake, and needs no wake. */
    CHECK(metrics_of(loop).wakes, ==, 0);
    for (int i = 0; i < 3; i++)
        CHECK(loop_run_once(loop, 0), ==, -*error);
    CHECK(loop_run(loop), ==, -*error);
    CHECK(loop_run_forever(loop), ==, -*error);
    CHECK_TRUE(loop_is_alive(loop));
    CHECK_TRUE(loop_is_pending(loop, timer));
    CHECK(loop_on_release(loop, loop_call_soon(loop, count_ran, NULL), count_released), ==, 0);
    CHECK(ran_here, ==, 0);
    CHECK(released_here, ==, 0);
    CHECK(loop_close(loop), ==, 0);
    CHECK(ran_here, ==, 0);
    CHECK(released_here, ==, 4);
    CHECK(loop_remote_call_soon(remote, count_ran, NULL, count_released), ==, -ESHUTDOWN);
    loop_remote_release(remote);
}

static void s28_what_was_posted_is_not_lost_when_io_uring_enter_is_refused(void)
{
    const int errors[] = {EPERM, ENOSYS, EINVAL};

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        CHECK_IN_CHILD(enter_refused_amid_posts, (void *)&errors[i]);
}

static void count_result(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)result;
    (void)flags;
    count_ran(loop, arg);
}

static void *close_the_loop_of_another(void *loop)
{
    CHECK(loop_close(loop), ==, -EPERM);
    CHECK(loop_close_within(loop, 0), ==, -EPERM);
    return NULL;
}

struct left_behind {
    loop_t *loop;
    int fds[2];
    char buffer[64];
};

static void *leave_a_receive(void *arg)
{
    struct left_behind *left = arg;

    left->loop = new_loop();
    CHECK(loop_recv(left->loop, left->fds[0], left->buffer, sizeof left->buffer, 0, count_result, NULL), >, 0);
    CHECK(loop_run_once(left->loop, 0), ==, 0);
    return NULL;
}

static void asking_for_threads_refused(void *arg)
{
    const int *error = arg;
    loop_t *loop = new_loop();
    struct left_behind left;
    pthread_t thread;

    make_pair(left.fds);
    CHECK(loop_on_release(loop, loop_call_soon(loop, count_ran, NULL), count_released), ==, 0);
    refuse(SYS_tgkill, *error);
    REQUIRE(pthread_create(&thread, NULL, close_the_loop_of_another, loop), ==, 0);
    pthread_join(thread, NULL);
    CHECK(released_here, ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(ran_here, ==, 1);
    close_loop(loop);
    /* The library still learns that this thread has exited, and waits for its operations. */
    REQUIRE(pthread_create(&thread, NULL, leave_a_receive, &left), ==, 0);
    pthread_join(thread, NULL);
    close_loop(left.loop);
    close_pair(left.fds);
}

/* A thread that cannot ask the kernel whether the owner still exists does not become the owner. */
static void s25_a_filter_makes_nobody_the_heir_of_a_thread_that_lives(void)
{
    const int errors[] = {EPERM, ENOSYS, EAGAIN};

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        CHECK_IN_CHILD(asking_for_threads_refused, (void *)&errors[i]);
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
        if (result != 0) {
            CHECK_TRUE(strstr(loop_last_error(), "ulimit -n") != NULL);
            CHECK(lowest_free_descriptor(), ==, free_one);
        }
    }
    CHECK(result, ==, 0);
    /* The ring and the eventfd need a descriptor each: each of them was refused once. */
    CHECK(more, ==, 3);
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
    /* A loop may have made the descriptor in advance. */
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

static void loop_fd_refused(void *arg)
{
    loop_t *loop = new_loop();
    int before;

    (void)arg;
    CHECK(loop_run_once(loop, LOOP_USEC(1)), ==, 0);
    before = lowest_free_descriptor();
    refuse(SYS_io_uring_register, EPERM);
    refuse(SYS_epoll_create1, EPERM); /* makes loop_fd's descriptor on a ring without DEFER_TASKRUN */
    for (int i = 0; i < 3; i++) {
        CHECK(loop_fd(loop), ==, -EPERM);
        CHECK(lowest_free_descriptor(), ==, before);
    }
    CHECK(loop_call_later(loop, LOOP_MSEC(1), do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_close(loop), ==, 0);
}

static void s28_a_refused_loop_fd_leaves_nothing_open(void)
{
    CHECK_IN_CHILD(loop_fd_refused, NULL);
}

static void no_entries_taken_for_a_host(void *arg)
{
    loop_t *loop = new_loop();
    struct pollfd host = {.fd = loop_fd(loop), .events = POLLIN};

    (void)arg;
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(poll(&host, 1, 0), ==, 0);
    CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
    refuse(SYS_io_uring_enter, EAGAIN);
    CHECK(loop_flush(loop), ==, 0);
    CHECK(poll(&host, 1, 0), ==, 1);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(poll(&host, 1, 0), ==, 1);
    CHECK(loop_close(loop), ==, 0);
}

static void s28_a_host_comes_again_when_the_kernel_takes_no_entries(void)
{
    CHECK_IN_CHILD(no_entries_taken_for_a_host, NULL);
}

/* ---- a loop that was made before descriptors ran out ---- */

static sem_t has_run;
static unsigned turns;
static bool all_turns;

enum { TURNS = 500 };

static void take_turn(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    all_turns = ++turns == TURNS;
    sem_post(&has_run);
}

/* Posts one at a time: the loop has nothing left to do, and sleeps before the next post, or just after it. */
static void *post_by_turns(void *arg)
{
    for (int i = 0; i < TURNS; i++) {
        REQUIRE(loop_remote_call_soon(arg, take_turn, NULL, NULL), ==, 0);
        while (sem_wait(&has_run) != 0)
            REQUIRE(errno, ==, EINTR);
    }
    return NULL;
}

static void descriptors_run_out(void *arg)
{
    loop_t *loop = new_loop(), *another = NULL;
    int free_one = lowest_free_descriptor();
    loop_remote_t *remote;
    pthread_t thread;

    (void)arg;
    allow_descriptors((rlim_t)free_one);
    CHECK(loop_new(NULL, &another), ==, -EMFILE);
    CHECK(loop_fd(loop), ==, -EMFILE);
    REQUIRE(loop_remote_new(loop, &remote), ==, 0);
    CHECK(loop_call_later(loop, LOOP_MSEC(2), do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    REQUIRE(sem_init(&has_run, 0, 0), ==, 0);
    REQUIRE(pthread_create(&thread, NULL, post_by_turns, remote), ==, 0);
    run_until(loop, &all_turns);
    pthread_join(thread, NULL);
    CHECK(metrics_of(loop).wakes, >, 0);
    CHECK(loop_close(loop), ==, 0);
    loop_remote_release(remote);
    allow_descriptors(256);
    /* The ring and the eventfd have been closed with the loop. */
    CHECK(lowest_free_descriptor(), <, free_one);
    CHECK(loop_new(NULL, &another), ==, 0);
    CHECK(loop_close(another), ==, 0);
}

static void s28_a_loop_made_before_descriptors_ran_out_sleeps_and_is_woken(void)
{
    CHECK_IN_CHILD(descriptors_run_out, NULL);
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
    if (geteuid() == 0) /* the limit does not apply to root */
        REQUIRE(setuid(65534), ==, 0);
    result = loop_new(NULL, &loop);
    if (result == 0) {
        /* Many kernels do not count the ring as locked memory: docs/limits.md. */
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

enum { DEFAULT_KIB = 28, LEAST_KIB = 8 };

/* Keeps the loops reachable, so that a tool does not report them as lost. */
static loop_t *volatile loops[8];
static size_t kept;

static int new_loop_within(rlim_t kib, uint32_t sq_entries, uint32_t cq_entries)
{
    struct rlimit limit = {kib << 10, RLIM_INFINITY};
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop;

    options.sq_entries = sq_entries;
    options.cq_entries = cq_entries;
    REQUIRE(getrlimit(RLIMIT_MEMLOCK, &limit), ==, 0);
    limit.rlim_cur = kib << 10;
    REQUIRE(setrlimit(RLIMIT_MEMLOCK, &limit), ==, 0);
    /* The loop stays open: after a close, the kernel would return the locked memory only a moment later. */
    int result = loop_new(&options, &loop);

    if (result == 0 && kept < sizeof loops / sizeof *loops) loops[kept++] = loop;
    return result;
}

/* The figures of docs/limits.md, where the kernel counts rings as locked memory. A new user, since a user's loops add up. */
static void locked_memory_of_a_user(void *arg)
{
    rlim_t held = 0;

    (void)arg;
    REQUIRE(setuid(100000 + (uid_t)getpid()), ==, 0);
    if (new_loop_within(0, 0, 0) == 0) return;
    for (int i = 0; i < 3; i++, held += DEFAULT_KIB) {
        CHECK(new_loop_within(held + DEFAULT_KIB - 4, 0, 0), ==, -ENOMEM);
        CHECK_TRUE(strstr(loop_last_error(), "locked memory (ulimit -l;") != NULL);
        CHECK_TRUE(strstr(loop_last_error(), "28 KiB each") != NULL);
        CHECK_TRUE(strstr(loop_last_error(), "sq_entries and cq_entries") != NULL);
        CHECK(new_loop_within(held + DEFAULT_KIB, 0, 0), ==, 0);
    }
    CHECK(new_loop_within(held + LEAST_KIB - 4, 64, 128), ==, -ENOMEM);
    CHECK(new_loop_within(held + LEAST_KIB, 64, 128), ==, 0);
}

static void s32_what_a_loop_locks_is_counted_by_user(void)
{
    /* Only root can become a user without other loops. */
    if (geteuid() == 0)
        CHECK_IN_CHILD(locked_memory_of_a_user, NULL);
}

static const struct check_test tests[] = {
    TEST(s32_io_uring_refused),
    TEST(s28_what_was_posted_is_not_lost_when_io_uring_enter_is_refused),
    TEST(s25_a_filter_makes_nobody_the_heir_of_a_thread_that_lives),
    TEST(s32_no_descriptor_left),
    TEST(s32_no_descriptor_left_for_loop_fd),
    TEST(s28_a_refused_loop_fd_leaves_nothing_open),
    TEST(s28_a_host_comes_again_when_the_kernel_takes_no_entries),
    TEST_NOT_UNDER("valgrind", s28_a_loop_made_before_descriptors_ran_out_sleeps_and_is_woken,
                   "it keeps the poster from running while the loop sleeps"),
    TEST_NOT_UNDER("", s32_too_little_address_space, "the tool itself needs more address space than it allows"),
    TEST(s32_no_locked_memory),
    TEST(s32_what_a_loop_locks_is_counted_by_user),
};

CHECK_MAIN(tests)
