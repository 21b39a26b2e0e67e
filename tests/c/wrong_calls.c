/*
 * S25, S29, S33: the answer of every function of the header where the call is wrong: on another thread, in a forked child, with
 * NULL, after loop_shutdown(), while the loop is being closed. prototypes.py reads the functions from the header.
 */
#include "io.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* Wide enough for every result of a function. */
typedef check_wide_t answer_t;

/* Marks answers that are not checked, and functions that are not called. */
#define ANY ((answer_t)1 << 100)
#define SKIP ((answer_t)1 << 101)

enum place { WRONG_THREAD, FORKED_CHILD, SHUT_DOWN, CLOSING, PLACES };

/* The arguments for the functions. */
struct world {
    loop_t *loop, *new_loop;
    loop_remote_t *remote, *new_remote;
    loop_buffers_t *buffers, *new_buffers;
    loop_handle_t handle, handles[1];
    loop_options_t options;
    loop_metrics_t metrics;
    struct io_uring_sqe sqes[1];
    void *args[1];
    struct iovec vector;
    struct msghdr message;
    struct sockaddr_storage address;
    struct statx statx;
    struct addrinfo hints;
    uint64_t number;
    char bytes[16];
    pid_t pid;
    int fd;
    /* The thread that the loop belongs to. */
    pthread_t thread;
    _Atomic pid_t tid;
    enum place place;
};

static const char *const place_names[PLACES] = {"on a wrong thread", "in a forked child", "after loop_shutdown()",
                                                "while the loop is being closed"};

struct function {
    const char *name;
    answer_t (*call)(struct world *w, int null);
    unsigned nulls; /* a bit for each argument that must not be NULL */
    bool carries_error;
    bool is_for_any_thread;
    answer_t answers[PLACES];
};

/* ---- callbacks; wrong calls run none of them, but posts are right calls ---- */

static void on_call(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
}

static void on_release(void *arg)
{
    (void)arg;
}

static void on_fd(loop_t *loop, int fd, uint32_t events, void *arg)
{
    (void)loop;
    (void)arg;
    CHECK(fd + (int)events, ==, INT32_MIN);
}

static void on_io(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop;
    (void)flags;
    (void)arg;
    CHECK(result, ==, INT32_MIN);
}

static void on_recv(loop_t *loop, int32_t result, const void *data, uint32_t flags, void *arg)
{
    (void)data;
    on_io(loop, result, flags, arg);
}

static void on_signal(loop_t *loop, int signum, void *arg)
{
    on_io(loop, signum, 0, arg);
}

static void on_child(loop_t *loop, pid_t pid, int wait_status, void *arg)
{
    (void)wait_status;
    on_io(loop, pid, 0, arg);
}

static void on_work(void *arg)
{
    on_io(NULL, 0, 0, arg);
}

static void on_done(loop_t *loop, int status, void *arg)
{
    on_io(loop, status, 0, arg);
}

static void on_addrinfo(loop_t *loop, int status, struct addrinfo *result, void *arg)
{
    (void)result;
    on_io(loop, status, 0, arg);
}

static void on_slow(loop_t *loop, uint64_t duration_ns, uint32_t kind, void *callback_address, void *arg)
{
    (void)duration_ns;
    (void)callback_address;
    on_io(loop, 0, kind, arg);
}

static void on_walk(loop_t *loop, const loop_info_t *info, void *arg)
{
    (void)info;
    on_io(loop, 0, 0, arg);
}

#include "../../build/prototypes.h"

enum { FUNCTIONS = sizeof functions / sizeof functions[0], NO_NULL = -1 };

/* ---- calling ---- */

static void expect(const char *name, const char *what, answer_t answer, answer_t expected)
{
    char text[160];

    snprintf(text, sizeof text, "%s %s", name, what);
    if (expected != ANY)
        check_compare(__FILE__, __LINE__, text, answer == expected, answer, expected);
}

/* Calls all functions as is right but for the place, and with NULL for each argument, which is found first (S29). */
static void call_all(struct world *w, bool for_any_thread)
{
    for (size_t i = 0; i < FUNCTIONS; i++) {
        const struct function *function = &functions[i];
        answer_t expected = function->answers[w->place];

        if (expected == SKIP || function->is_for_any_thread != for_any_thread)
            continue;
        for (int at = 0; at < 32; at++)
            if (function->nulls & 1u << at)
                expect(function->name, "with a NULL", function->call(w, at),
                       function->carries_error ? -EINVAL : function->answers[FORKED_CHILD]);
        expect(function->name, place_names[w->place], function->call(w, NO_NULL), expected);
    }
}

static void call_everything(struct world *w, enum place place)
{
    w->place = place;
    /* Functions that wake the loop come last: until then the loop sleeps, with all its state borrowed. */
    call_all(w, false);
    call_all(w, true);
    CHECK_POINTER(w->new_loop, NULL);
    CHECK_POINTER(w->new_remote, NULL);
    CHECK_POINTER(w->new_buffers, NULL);
    CHECK(w->handles[0], ==, 0);
    CHECK(w->number, ==, 4711);
}

static void call_in_child(void *arg)
{
    struct world *w = arg;

    call_everything(w, FORKED_CHILD);
}

/* A loop that was closed in a child still answers calls with its pointer. */
static void close_in_child(void *arg)
{
    struct world *w = arg;

    CHECK(loop_close(w->loop), ==, 0);
    w->place = FORKED_CHILD;
    for (size_t i = 0; i < FUNCTIONS; i++)
        if (functions[i].nulls & 1u && !strstr(functions[i].name, "_buffer"))
            expect(functions[i].name, "on a loop that a child has closed", functions[i].call(w, NO_NULL),
                   functions[i].answers[FORKED_CHILD]);
    CHECK(loop_time(w->loop), >, 0);
    CHECK(loop_close(w->loop), ==, -EOWNERDEAD);
    loop_remote_release(w->remote);
}

static void *call_from_thread(void *arg)
{
    call_everything(arg, WRONG_THREAD);
    return NULL;
}

/* ---- worlds ---- */

static void make_world(struct world *w)
{
    memset(w, 0, sizeof *w);
    w->loop = new_loop();
    w->fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    REQUIRE(w->fd, >=, 0);
    w->pid = fork();
    REQUIRE(w->pid, >=, 0);
    if (w->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pause();
        _exit(0);
    }
    w->options = (loop_options_t)LOOP_OPTIONS_INIT;
    w->metrics.size = sizeof w->metrics;
    w->address.ss_family = AF_UNIX;
    w->number = 4711;
    REQUIRE(loop_remote_new(w->loop, &w->remote), ==, 0);
    REQUIRE(loop_buffers_new(w->loop, 4, 64, &w->buffers), ==, 0);
    w->handle = loop_call_later(w->loop, LOOP_SEC(3600), on_call, NULL);
    REQUIRE(w->handle, >, 0);
    CHECK(loop_run_once(w->loop, 0), ==, 0);
}

static void end_world(struct world *w)
{
    loop_remote_release(w->remote);
    close(w->fd);
    kill(w->pid, SIGKILL);
    while (waitpid(w->pid, NULL, 0) < 0)
        REQUIRE(errno, ==, EINTR);
}

static void *run_forever(void *arg)
{
    struct world *w = arg;
    int answer;

    REQUIRE(loop_adopt(w->loop), ==, 0);
    w->tid = (pid_t)syscall(SYS_gettid);
    do
        answer = loop_run_forever(w->loop);
    while (answer == LOOP_STOPPED && loop_data(w->loop) == NULL);
    CHECK(answer, ==, LOOP_STOPPED);
    close_loop(w->loop);
    return NULL;
}

static void finish(loop_t *loop, void *arg)
{
    loop_set_data(loop, arg);
    CHECK(loop_stop(loop), ==, 0);
}

/* Makes a loop that runs and sleeps on its own thread, with its state borrowed. */
static void make_running_world(struct world *w)
{
    char name[64], state = 0;

    make_world(w);
    /* A loop that has not run can be adopted. */
    loop_remote_release(w->remote);
    close_loop(w->loop);
    w->loop = new_loop();
    REQUIRE(loop_remote_new(w->loop, &w->remote), ==, 0);
    REQUIRE(loop_buffers_new(w->loop, 4, 64, &w->buffers), ==, 0);
    w->handle = loop_call_later(w->loop, LOOP_SEC(3600), on_call, NULL);
    REQUIRE(pthread_create(&w->thread, NULL, run_forever, w), ==, 0);
    while (w->tid == 0)
        sched_yield();
    snprintf(name, sizeof name, "/proc/self/task/%d/stat", (int)w->tid);
    while (state != 'S') {
        FILE *file = fopen(name, "r");

        REQUIRE(file != NULL, ==, 1);
        REQUIRE(fscanf(file, "%*d (%*[^)]) %c", &state), ==, 1);
        fclose(file);
    }
}

static void end_running_world(struct world *w)
{
    CHECK(loop_remote_call_soon(w->remote, finish, w, NULL), ==, 0);
    pthread_join(w->thread, NULL);
    end_world(w);
}

/* ---- the tests ---- */

static void s29_every_function_on_a_wrong_thread(void)
{
    struct world w;
    pthread_t thread;

    make_world(&w);
    REQUIRE(pthread_create(&thread, NULL, call_from_thread, &w), ==, 0);
    pthread_join(thread, NULL);
    /* Nothing was lost, and nothing was added but posts, which any thread may make: two calls, a delayed one, and the stop. */
    CHECK_TRUE(loop_is_pending(w.loop, w.handle));
    CHECK(loop_run_once(w.loop, 0), >=, 2);
    close_loop(w.loop);
    end_world(&w);
}

static void s29_every_function_on_a_wrong_thread_while_it_runs(void)
{
    static struct world w;

    make_running_world(&w);
    call_everything(&w, WRONG_THREAD);
    end_running_world(&w);
}

static void s33_every_function_in_a_child_of_the_owner(void)
{
    static struct world w; /* static: reachable when the child exits, so no leak */

    make_world(&w);
    CHECK_IN_CHILD(call_in_child, &w);
    CHECK_TRUE(loop_is_pending(w.loop, w.handle));
    close_loop(w.loop);
    end_world(&w);
}

static void s33_every_function_in_a_child_of_another_thread(void)
{
    static struct world w;

    make_running_world(&w);
    CHECK_IN_CHILD(call_in_child, &w);
    CHECK_IN_CHILD(close_in_child, &w);
    end_running_world(&w);
}

static void s33_a_loop_that_a_child_has_closed_answers_eownerdead(void)
{
    static struct world w;

    make_world(&w);
    CHECK_IN_CHILD(close_in_child, &w);
    CHECK_TRUE(loop_is_pending(w.loop, w.handle));
    close_loop(w.loop);
    end_world(&w);
}

static void s29_every_function_after_shutdown(void)
{
    struct world w;

    make_world(&w);
    CHECK(loop_shutdown(w.loop), ==, 0);
    call_everything(&w, SHUT_DOWN);
    CHECK(loop_buffers_free(w.buffers), ==, 0);
    close_loop(w.loop);
    end_world(&w);
}

static void call_while_closing(void *arg)
{
    call_everything(arg, CLOSING);
}

static void s22_every_function_while_the_loop_is_being_closed(void)
{
    struct world w;
    loop_handle_t timer;

    make_world(&w);
    timer = loop_call_later(w.loop, LOOP_SEC(3600), on_call, &w);
    CHECK(loop_on_release(w.loop, timer, call_while_closing), ==, 0);
    close_loop(w.loop);
    CHECK(w.place, ==, CLOSING);
    end_world(&w);
}

#define SLEEPS "valgrind lets no other thread run while the loop sleeps in the kernel"

static const struct check_test tests[] = {
    TEST(s29_every_function_on_a_wrong_thread),
    TEST_NOT_UNDER("valgrind", s29_every_function_on_a_wrong_thread_while_it_runs, SLEEPS),
    TEST(s33_every_function_in_a_child_of_the_owner),
    TEST_NOT_UNDER("valgrind", s33_every_function_in_a_child_of_another_thread, SLEEPS),
    TEST(s33_a_loop_that_a_child_has_closed_answers_eownerdead),
    TEST(s29_every_function_after_shutdown),
    TEST(s22_every_function_while_the_loop_is_being_closed),
};

CHECK_MAIN(tests)
