/* loop_watch_child(): S10, S11, S14, S19, S22, S33. A second run acts as on a kernel that cannot wait for a child by io_uring. */
#include "check.h"

#include <fcntl.h>

static int ended, statuses[4];
static pid_t pids[4];

static void note(loop_t *loop, pid_t pid, int wait_status, void *arg)
{
    (void)loop;
    if (arg) ++*(int *)arg;
    pids[ended] = pid;
    statuses[ended++] = wait_status;
}

/* Forks a child that ends when `*end` is closed: with exit status `code`, or by signal -`code` when `code` is negative. */
static pid_t child(int code, int *end)
{
    int ends[2] = {-1, -1};
    char script[64];
    pid_t pid;

    snprintf(script, sizeof script, code < 0 ? "%skill -%d $$" : "%sexit %d", end ? "read x; " : "", abs(code));

    if (end) REQUIRE(pipe2(ends, O_CLOEXEC), ==, 0);
    fflush(NULL);
    pid = fork();
    REQUIRE(pid, >=, 0);
    if (pid == 0) {
        if (end) dup2(ends[0], STDIN_FILENO);
        execl("/bin/sh", "sh", "-c", script, (char *)NULL);
        _exit(127);
    }
    if (end) {
        close(ends[0]);
        *end = ends[1];
    }
    return pid;
}

static void await_zombie(pid_t pid)
{
    siginfo_t info;

    REQUIRE(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), ==, 0);
}

static bool is_reaped(pid_t pid)
{
    siginfo_t info;

    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG) != 0 && errno == ECHILD;
}

static void a_child_ends_and_is_reaped(void)
{
    loop_t *loop = new_loop();
    int end, released = 0;
    pid_t pid = child(7, &end);

    ended = 0;
    REQUIRE(loop_watch_child(loop, pid, note, &released), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    close(end);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    REQUIRE(ended, ==, 1);
    CHECK(pids[0], ==, pid);
    CHECK_TRUE(WIFEXITED(statuses[0]));
    CHECK(WEXITSTATUS(statuses[0]), ==, 7);
    CHECK(released, ==, 1);
    CHECK_TRUE(is_reaped(pid));
    close_loop(loop);
}

static void children_that_nobody_waits_for(void)
{
    loop_t *loop = new_loop();
    int end;

    ended = 0;
    signal(SIGCHLD, SIG_IGN);
    REQUIRE(loop_watch_child(loop, child(7, &end), note, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    close(end);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    signal(SIGCHLD, SIG_DFL);
    CHECK(ended, ==, 1);
    CHECK(statuses[0], ==, -1);
    close_loop(loop);
}

/* ---- cancelling ---- */

static void count_release(void *arg)
{
    ++*(int *)arg;
}

static void s11_a_cancelled_watcher_leaves_the_child(void)
{
    loop_t *loop = new_loop();
    int end, released = 0, status;
    pid_t pid = child(7, &end);
    loop_handle_t handle = loop_watch_child(loop, pid, note, &released);

    ended = 0;
    REQUIRE(handle, >, 0);
    CHECK(loop_on_release(loop, handle, count_release), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 0);
    CHECK(released, ==, 1);
    CHECK(loop_cancel(loop, handle), ==, -ENOENT);
    CHECK_TRUE(!loop_is_alive(loop));
    close(end);
    await_zombie(pid);
    for (int i = 0; i < 3; i++) CHECK(loop_run_once(loop, LOOP_MSEC(1)), ==, 0);
    CHECK(ended, ==, 0);
    REQUIRE(waitpid(pid, &status, 0), ==, pid);
    CHECK(WEXITSTATUS(status), ==, 7);
    close_loop(loop);
}

/* ---- loop_is_alive and loop_walk ---- */

static void see_child(loop_t *loop, const loop_info_t *info, void *arg)
{
    (void)loop;
    CHECK(info->kind, ==, LOOP_KIND_CHILD);
    CHECK(info->fd, ==, -1);
    CHECK_POINTER(info->arg, arg);
    ++*(int *)arg;
}

static void s19_a_watcher_counts_for_a_run_unless_it_is_told_not_to(void)
{
    loop_t *loop = new_loop();
    int end, seen = 0;
    pid_t pid = child(7, &end);
    loop_handle_t handle = loop_watch_child(loop, pid, note, &seen);

    ended = 0;
    CHECK_TRUE(loop_is_alive(loop));
    CHECK(loop_walk(loop, see_child, &seen), ==, 0);
    CHECK(seen, ==, 1);
    CHECK(loop_unref(loop, handle), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_set_deadline(loop, handle, 0), ==, -EINVAL);
    CHECK(loop_ref(loop, handle), ==, 0);
    close(end);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(ended, ==, 1);
    close_loop(loop);
}

/* ---- closing ---- */

static int descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void sleep_a_while(void *arg)
{
    (void)arg;
    usleep(100000);
}

static void ignore_done(loop_t *loop, int status, void *arg)
{
    (void)loop;
    (void)status;
    (void)arg;
}

/* The kernel has been told to forget the child before close gives up. */
static void s22_a_close_that_gives_up_leaves_the_watcher(void)
{
    loop_t *loop = new_loop();
    int end;

    ended = 0;
    REQUIRE(loop_watch_child(loop, child(7, &end), note, NULL), >, 0);
    REQUIRE(loop_run_in_executor(loop, sleep_a_while, ignore_done, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    usleep(20000);
    CHECK(loop_close_within(loop, 0), ==, -ETIMEDOUT);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    close(end);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TRUE(ended == 1 && WEXITSTATUS(statuses[0]) == 7);
    close_loop(loop);
}

static void close_in_the_child(void *arg)
{
    int before = descriptors();

    CHECK(loop_watch_child(arg, getpid(), note, NULL), ==, -EOWNERDEAD);
    CHECK(loop_close(arg), ==, 0);
    CHECK(descriptors(), ==, before);
}

static void s33_a_forked_child_closes_nothing(void)
{
    loop_t *loop = new_loop();
    int end;

    ended = 0;
    REQUIRE(loop_watch_child(loop, child(7, &end), note, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK_IN_CHILD(close_in_the_child, loop);
    close(end);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TRUE(ended == 1 && WEXITSTATUS(statuses[0]) == 7);
    close_loop(loop);
}

static void s29_arguments(void)
{
    loop_t *loop = new_loop();
    pid_t pid = child(0, NULL);
    int status;

    CHECK(loop_watch_child(loop, 0, note, NULL), ==, -EINVAL);
    CHECK(loop_watch_child(loop, -pid, note, NULL), ==, -EINVAL);
    CHECK(loop_watch_child(loop, getppid(), note, NULL), ==, -ECHILD);
    CHECK_TRUE(strstr(loop_last_error(), "child") != NULL);
    REQUIRE(waitpid(pid, &status, 0), ==, pid);
    CHECK(loop_watch_child(loop, pid, note, NULL), ==, -ECHILD);
    CHECK_TRUE(!loop_is_alive(loop));
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(a_child_ends_and_is_reaped),
    TEST(children_that_nobody_waits_for),
    TEST(s11_a_cancelled_watcher_leaves_the_child),
    TEST(s19_a_watcher_counts_for_a_run_unless_it_is_told_not_to),
    TEST_NOT_UNDER("valgrind", s22_a_close_that_gives_up_leaves_the_watcher,
                   "the work does not run while the loop is in io_uring_enter()"),
    TEST_NOT_UNDER("valgrind", s33_a_forked_child_closes_nothing, "it has copies of the parent's descriptors"),
    TEST(s29_arguments),
};

int main(int argc, char **argv)
{
    int result = check_run(argc, argv, tests, sizeof tests / sizeof tests[0]);

    if (is_under("valgrind")) {
        printf("left out under valgrind: all of it as on Linux 5.10: valgrind 3.19 knows no pidfd_open\n");
        return result;
    }
    setenv("RINGLOOP_KERNEL", "5.10", 1);
    return check_run(argc, argv, tests, sizeof tests / sizeof tests[0]) || result;
}
