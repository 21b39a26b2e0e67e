/*
 * A small test harness in C, and helpers that most of the tests share.
 *
 * A test is a function named after the rule it proves. CHECK() reports a failed comparison, and the test continues. REQUIRE()
 * ends the program; it is for conditions that the rest of a test needs. A program runs all its tests, or those named on the
 * command line, and prints one line of totals at its end. Its exit status is 1 if a test failed.
 */
#ifndef RINGLOOP_TESTS_CHECK_H
#define RINGLOOP_TESTS_CHECK_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* gettid, MAP_ANONYMOUS, pipe2 and friends */
#endif

#include <ringloop.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Wide enough for every int64_t and every uint64_t, so that -1 is never equal to UINT64_MAX. */
__extension__ typedef __int128 check_wide_t;

static int check_failures;

static inline void check_print_wide(check_wide_t value)
{
    if (value < 0 && value >= -133)
        fprintf(stderr, "%d (%s)", (int)value, strerror((int)-value));
    else if (value < 0)
        fprintf(stderr, "%" PRId64, (int64_t)value);
    else
        fprintf(stderr, "%" PRIu64, (uint64_t)value);
}

static inline void check_compare(const char *file, int line, const char *text, bool holds, check_wide_t left,
                                 check_wide_t right)
{
    if (holds)
        return;
    check_failures++;
    fprintf(stderr, "%s:%d: %s does not hold: left is ", file, line, text);
    check_print_wide(left);
    fprintf(stderr, ", right is ");
    check_print_wide(right);
    fprintf(stderr, "\n");
}

static inline void check_text(const char *file, int line, const char *what, const char *actual, const char *expected)
{
    if (actual && strcmp(actual, expected) == 0)
        return;
    check_failures++;
    fprintf(stderr, "%s:%d: %s is \"%s\", not \"%s\"\n", file, line, what, actual ? actual : "(NULL)", expected);
}

/* CHECK(loop_cancel(loop, handle), ==, -ENOENT): integers and bools; each side is evaluated once. */
#define CHECK(left, op, right)                                                                                         \
    do {                                                                                                               \
        check_wide_t check_left = (check_wide_t)(left);                                                                \
        check_wide_t check_right = (check_wide_t)(right);                                                              \
        check_compare(__FILE__, __LINE__, #left " " #op " " #right, check_left op check_right, check_left,             \
                      check_right);                                                                                    \
    } while (0)

#define CHECK_TRUE(condition) CHECK(!!(condition), ==, 1)

#define CHECK_POINTER(left, right) CHECK((uintptr_t)(left), ==, (uintptr_t)(right))

#define CHECK_TEXT(actual, expected) check_text(__FILE__, __LINE__, #actual, actual, expected)

#define REQUIRE(left, op, right)                                                                                       \
    do {                                                                                                               \
        check_wide_t check_left = (check_wide_t)(left);                                                                \
        check_wide_t check_right = (check_wide_t)(right);                                                              \
        check_compare(__FILE__, __LINE__, #left " " #op " " #right, check_left op check_right, check_left,             \
                      check_right);                                                                                    \
        if (!(check_left op check_right))                                                                              \
            check_give_up();                                                                                           \
    } while (0)

static inline void check_give_up(void)
{
    fprintf(stderr, "the test cannot continue\n");
    fflush(NULL);
    _exit(1);
}

/* ---- running tests ---- */

struct check_test {
    const char *name;
    void (*run)(void);
    const char *tool;   /* the tools that leave the test out: "valgrind", "valgrind TSan", "" for all tools, NULL for none */
    const char *reason; /* the reason */
};

#define TEST(name) {#name, name, NULL, NULL}
#define TEST_NOT_UNDER(tool, name, reason) {#name, name, tool, reason}

/* A program for tests of a whole process: `program --child NAME`. */
struct check_child {
    const char *name;
    int (*run)(void);
};

static inline bool check_is_named(const char *name, int argc, char **argv)
{
    if (argc < 2)
        return true;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return false;
}

static inline int check_run(int argc, char **argv, const struct check_test *tests, size_t count)
{
    const char *tool = getenv("CHECK_TOOL"); /* the tool that runs this program, or NULL */
    int run = 0, failed = 0, left_out = 0;

    for (size_t i = 0; i < count; i++) {
        if (!check_is_named(tests[i].name, argc, argv))
            continue;
        if (tool && tests[i].tool && (tests[i].tool[0] == '\0' || strstr(tests[i].tool, tool))) {
            printf("left out under %s: %s: %s\n", tool, tests[i].name, tests[i].reason);
            left_out++;
            continue;
        }
        check_failures = 0;
        tests[i].run();
        printf("%s %s\n", check_failures ? "FAILED" : "ok", tests[i].name);
        fflush(stdout);
        failed += check_failures != 0;
        run++;
    }
    printf("%d tests run, %d failed, %d left out\n", run, failed, left_out);
    return failed != 0 || run + left_out == 0;
}

#define CHECK_MAIN(tests)                                                                                              \
    int main(int argc, char **argv)                                                                                    \
    {                                                                                                                  \
        return check_run(argc, argv, tests, sizeof(tests) / sizeof(tests)[0]);                                         \
    }

/* ---- processes ---- */

/* Runs `body` in a forked child; a CHECK() that fails there fails the test here. Returns the wait status, or 0. */
static inline int check_fork(void (*body)(void *), void *arg)
{
    int status = 0;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    REQUIRE(pid, >=, 0);
    if (pid == 0) {
        check_failures = 0;
        body(arg);
        fflush(NULL);
        _exit(check_failures ? 1 : 0);
    }
    while (waitpid(pid, &status, 0) < 0)
        REQUIRE(errno, ==, EINTR);
    return status;
}

#define CHECK_IN_CHILD(body, arg) CHECK(check_fork(body, arg), ==, 0)

/*
 * Runs this program again as `--child NAME`, with RINGLOOP_DEBUG set to `debug` (NULL: unset), and with stderr written to `text`,
 * which is always terminated. Returns the wait status.
 */
static inline int check_spawn_self(const char *name, const char *debug, char *text, size_t size)
{
    size_t length = 0;
    char self[4096] = "";
    int ends[2], status = 0;
    pid_t pid;

    /* valgrind answers this readlink; an exec of the link itself would run valgrind. */
    REQUIRE(readlink("/proc/self/exe", self, sizeof self - 1), >, 0);
    REQUIRE(pipe(ends), ==, 0);
    fflush(NULL);
    pid = fork();
    REQUIRE(pid, >=, 0);
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        if (debug)
            setenv("RINGLOOP_DEBUG", debug, 1);
        else
            unsetenv("RINGLOOP_DEBUG");
        execl(self, self, "--child", name, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    for (;;) {
        char rest[256];
        bool full = length + 1 >= size;
        ssize_t got = read(ends[0], full ? rest : text + length, full ? sizeof rest : size - 1 - length);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += full ? 0 : (size_t)got;
    }
    text[length] = '\0';
    close(ends[0]);
    while (waitpid(pid, &status, 0) < 0)
        REQUIRE(errno, ==, EINTR);
    return status;
}

/* For main(): runs `--child NAME` and returns its exit status, or returns -1 for other arguments. */
static inline int check_child_main(int argc, char **argv, const struct check_child *children, size_t count)
{
    if (argc != 3 || strcmp(argv[1], "--child") != 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (strcmp(argv[2], children[i].name) == 0)
            return children[i].run();
    fprintf(stderr, "no child named %s\n", argv[2]);
    return 2;
}

/* ---- loops ---- */

static inline loop_t *new_loop(void)
{
    loop_t *loop = NULL;

    REQUIRE(loop_new(NULL, &loop), ==, 0);
    REQUIRE(loop != NULL, ==, 1);
    return loop;
}

/* The time only jumps to the next deadline: tests do not depend on the machine's speed. */
static inline loop_t *new_virtual_loop(uint64_t start_ns)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop = NULL;

    options.flags = LOOP_VIRTUAL_TIME;
    options.start_ns = start_ns;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    REQUIRE(loop != NULL, ==, 1);
    return loop;
}

static inline void close_loop(loop_t *loop)
{
    REQUIRE(loop_close(loop), ==, 0);
}

static inline loop_metrics_t metrics_of(const loop_t *loop)
{
    loop_metrics_t metrics;

    memset(&metrics, 0, sizeof metrics);
    metrics.size = sizeof metrics;
    CHECK(loop_metrics(loop, &metrics), ==, 0);
    return metrics;
}

/* Returns whether the program runs under this tool. */
static inline bool is_under(const char *name)
{
    const char *tool = getenv("CHECK_TOOL");

    return tool && strcmp(tool, name) == 0;
}

/*
 * Runs until a callback has set `done`, which may depend on other threads. valgrind 3.19 lets no other thread run while one is in
 * io_uring_enter(), so under valgrind the loop waits in poll().
 */
static inline void run_until(loop_t *loop, const bool *done)
{
    bool polls = is_under("valgrind");

    while (!*done) {
        struct pollfd fd = {polls ? loop_fd(loop) : -1, POLLIN, 0};

        if (polls) {
            REQUIRE(fd.fd, >=, 0);
            poll(&fd, 1, -1);
        }
        REQUIRE(loop_run_once(loop, polls ? 0 : LOOP_NEVER), >=, 0);
    }
}

/* The callbacks that ran, in order: record() appends the first letter of its argument. */
static char trace[4096];

static inline void trace_clear(void)
{
    trace[0] = '\0';
}

static inline void trace_add(const char *letter)
{
    size_t length = strlen(trace);

    if (length + 1 < sizeof trace) {
        trace[length] = letter[0];
        trace[length + 1] = '\0';
    }
}

static inline void record(loop_t *loop, void *arg)
{
    (void)loop;
    trace_add((const char *)arg);
}

static inline void do_nothing(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
}

static inline void do_stop(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_stop(loop), ==, 0);
}

/* CLOCK_MONOTONIC in nanoseconds, read without the library. */
static inline uint64_t monotonic(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static inline void busy_wait(uint64_t duration_ns)
{
    uint64_t end = monotonic() + duration_ns;

    while (monotonic() < end)
        ;
}

#endif
