/* loop_run_in_executor() and loop_getaddrinfo(): S13, S14, S19, S22, S28, S33. */
#include "check.h"

#include <netdb.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>

struct work {
    int number;
    atomic_int worked;
    int done, status, released;
    sem_t *begun, *may_end; /* NULL: the work does not wait for it */
    pthread_t thread;
};

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0) REQUIRE(errno, ==, EINTR);
}

static void work(void *arg)
{
    struct work *work = arg;

    work->thread = pthread_self();
    if (work->begun) sem_post(work->begun);
    if (work->may_end) wait_for(work->may_end);
    work->worked++;
}

static void done(loop_t *loop, int status, void *arg)
{
    struct work *work = arg;

    (void)loop;
    CHECK(work->released, ==, 0);
    work->done++;
    work->status = status;
}

static void note_release(void *arg)
{
    ((struct work *)arg)->released++;
}

static loop_t *loop_with_threads(uint32_t threads)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop = NULL;

    options.executor_threads = threads;
    REQUIRE(loop_new(&options, &loop), ==, 0);
    return loop;
}

static loop_handle_t begin(loop_t *loop, struct work *what)
{
    loop_handle_t handle = loop_run_in_executor(loop, work, done, what);

    REQUIRE(handle, >, 0);
    REQUIRE(loop_on_release(loop, handle, note_release), ==, 0);
    return handle;
}

/* Runs as loop_run() does, also under valgrind, where a thread in io_uring_enter() lets no other thread run. */
static void run_to_end(loop_t *loop)
{
    if (!is_under("valgrind")) {
        CHECK(loop_run(loop), ==, LOOP_DONE);
        return;
    }
    while (loop_is_alive(loop)) {
        struct pollfd fd = {loop_fd(loop), POLLIN, 0};

        poll(&fd, 1, -1);
        REQUIRE(loop_run_once(loop, 0), >=, 0);
    }
}

/* Work that has begun and waits, with its semaphores and its handle. */
struct blocker {
    struct work work;
    sem_t begun, may_end;
    loop_handle_t handle;
};

static void block(loop_t *loop, struct blocker *blocker)
{
    memset(blocker, 0, sizeof *blocker);
    sem_init(&blocker->begun, 0, 0);
    sem_init(&blocker->may_end, 0, 0);
    blocker->work.begun = &blocker->begun;
    blocker->work.may_end = &blocker->may_end;
    blocker->handle = begin(loop, &blocker->work);
    wait_for(&blocker->begun);
}

/* ---- threads ---- */

static sigset_t mask_of_work;
static char name_of_work[16];

static void look_around(void *arg)
{
    work(arg);
    pthread_sigmask(SIG_SETMASK, NULL, &mask_of_work);
    prctl(PR_GET_NAME, name_of_work);
}

static void work_runs_on_a_thread_that_blocks_signals(void)
{
    loop_t *loop = new_loop();
    struct work one = {0};
    sigset_t mask;

    REQUIRE(loop_run_in_executor(loop, look_around, done, &one), >, 0);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    CHECK_TRUE(!sigismember(&mask, SIGTERM));
    run_to_end(loop);
    CHECK(one.worked, ==, 1);
    CHECK(one.done, ==, 1);
    CHECK(one.status, ==, 0);
    CHECK_TRUE(!pthread_equal(one.thread, pthread_self()));
    CHECK_TRUE(sigismember(&mask_of_work, SIGTERM) && sigismember(&mask_of_work, SIGCHLD));
    CHECK_TEXT(name_of_work, "ringloop");
    close_loop(loop);
}

static void no_thread_can_be_started(void *arg)
{
    loop_t *loop = new_loop();
    struct rlimit limit, none;
    struct work one = {0};

    (void)arg;
    REQUIRE(getrlimit(RLIMIT_AS, &limit), ==, 0);
    none = limit;
    none.rlim_cur = 1 << 20;
    REQUIRE(setrlimit(RLIMIT_AS, &none), ==, 0);
    CHECK(loop_run_in_executor(loop, work, done, &one), ==, -EAGAIN);
    CHECK_TRUE(strstr(loop_last_error(), "thread") != NULL);
    CHECK_TRUE(!loop_is_alive(loop));
    REQUIRE(setrlimit(RLIMIT_AS, &limit), ==, 0);
    begin(loop, &one);
    run_to_end(loop);
    CHECK(one.done, ==, 1);
    close_loop(loop);
}

static void s28_without_a_thread_the_call_says_so(void)
{
    CHECK_IN_CHILD(no_thread_can_be_started, NULL);
}

/* When a thread exists, new work waits for this thread. */
static void no_second_thread_can_be_started(void *arg)
{
    loop_t *loop = new_loop();
    struct rlimit limit, none;
    struct blocker blocker;
    struct work one = {0};

    (void)arg;
    block(loop, &blocker);
    REQUIRE(getrlimit(RLIMIT_AS, &limit), ==, 0);
    none = limit;
    none.rlim_cur = 1 << 20;
    REQUIRE(setrlimit(RLIMIT_AS, &none), ==, 0);
    begin(loop, &one);
    REQUIRE(setrlimit(RLIMIT_AS, &limit), ==, 0);
    sem_post(&blocker.may_end);
    run_to_end(loop);
    CHECK_TRUE(pthread_equal(one.thread, blocker.work.thread));
    close_loop(loop);
}

static void work_waits_for_the_threads_there_are(void)
{
    CHECK_IN_CHILD(no_second_thread_can_be_started, NULL);
}

/* ---- cancelling ---- */

static void s13_work_that_has_not_begun_never_runs(void)
{
    loop_t *loop = loop_with_threads(1);
    struct blocker blocker;
    struct work works[3];
    loop_handle_t handles[3];

    memset(works, 0, sizeof works);
    block(loop, &blocker);
    for (int i = 0; i < 3; i++) handles[i] = begin(loop, &works[i]);
    CHECK(loop_cancel(loop, handles[1]), ==, 1);
    CHECK_TRUE(loop_is_pending(loop, handles[1]));
    CHECK(loop_cancel(loop, handles[1]), ==, 1);
    CHECK(works[1].done, ==, 0);
    /* Cancelled work ends without waiting for its turn. */
    CHECK(loop_run_once(loop, 0) + loop_run_once(loop, 0), ==, 1);
    CHECK(works[1].done, ==, 1);
    CHECK(works[1].status, ==, -ECANCELED);
    CHECK(works[1].released, ==, 1);
    CHECK(loop_cancel(loop, handles[1]), ==, -ENOENT);
    sem_post(&blocker.may_end);
    run_to_end(loop);
    CHECK(works[1].worked, ==, 0);
    for (int i = 0; i < 3; i++) CHECK(works[i].done, ==, 1);
    CHECK(works[0].worked + works[2].worked, ==, 2);
    close_loop(loop);
}

/* ---- loop_is_alive and loop_walk ---- */

static void see_work(loop_t *loop, const loop_info_t *info, void *arg)
{
    struct blocker *blocker = arg;

    (void)loop;
    CHECK(info->kind, ==, LOOP_KIND_WORK);
    CHECK(info->handle, ==, blocker->handle);
    CHECK_POINTER(info->arg, &blocker->work);
    CHECK_POINTER(info->callback_address, (uintptr_t)done);
    CHECK(info->fd, ==, -1);
    blocker->work.number++;
}

static void s19_work_counts_for_a_run_unless_it_is_told_not_to(void)
{
    loop_t *loop = new_loop();
    struct blocker blocker;

    block(loop, &blocker);
    CHECK_TRUE(loop_is_alive(loop) && loop_has_ref(loop, blocker.handle));
    CHECK(loop_walk(loop, see_work, &blocker), ==, 0);
    CHECK(blocker.work.number, ==, 1);
    CHECK(loop_set_deadline(loop, blocker.handle, 0), ==, -EINVAL);
    CHECK(loop_unref(loop, blocker.handle), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(blocker.work.done, ==, 0);
    CHECK(loop_ref(loop, blocker.handle), ==, 0);
    sem_post(&blocker.may_end);
    run_to_end(loop);
    CHECK(blocker.work.done, ==, 1);
    close_loop(loop);
}

/* ---- closing ---- */

static void *let_it_end(void *arg)
{
    usleep(20000);
    sem_post(&((struct blocker *)arg)->may_end);
    return NULL;
}

static void s22_closing_waits_for_what_has_begun_and_drops_the_rest(void)
{
    loop_t *loop = loop_with_threads(1);
    struct blocker blocker;
    struct work works[10];
    pthread_t thread;

    memset(works, 0, sizeof works);
    block(loop, &blocker);
    for (int i = 0; i < 10; i++) begin(loop, &works[i]);
    REQUIRE(pthread_create(&thread, NULL, let_it_end, &blocker), ==, 0);
    CHECK(loop_close(loop), ==, 0);
    CHECK(blocker.work.worked, ==, 1);
    CHECK(blocker.work.done, ==, 0);
    CHECK(blocker.work.released, ==, 1);
    for (int i = 0; i < 10; i++) {
        CHECK(works[i].worked + works[i].done, ==, 0);
        CHECK(works[i].released, ==, 1);
    }
    pthread_join(thread, NULL);
}

static void s22_close_within_gives_up_and_frees_nothing(void)
{
    loop_t *loop = loop_with_threads(1);
    struct blocker blocker;
    struct work one = {0};
    uint64_t before = loop_time(NULL);

    block(loop, &blocker);
    begin(loop, &one);
    trace_clear();
    CHECK(loop_call_soon(loop, record, (void *)"c"), >, 0);
    CHECK(loop_close_within(loop, LOOP_MSEC(5)), ==, -ETIMEDOUT);
    CHECK(loop_time(NULL) - before, >=, LOOP_MSEC(5));
    CHECK(loop_close_within(loop, 0), ==, -ETIMEDOUT);
    CHECK(blocker.work.released + one.released, ==, 0);
    /* The loop can still run: work that had not begun has been cancelled, and nothing else has changed. */
    CHECK(loop_run_once(loop, 0) + loop_run_once(loop, 0), ==, 2);
    CHECK_TEXT(trace, "c");
    CHECK(one.status, ==, -ECANCELED);
    sem_post(&blocker.may_end);
    run_to_end(loop);
    CHECK(blocker.work.done, ==, 1);
    CHECK(blocker.work.status, ==, 0);
    CHECK(loop_close_within(loop, 0), ==, 0);
    CHECK(one.worked, ==, 0);
}

/* ---- fork ---- */

static atomic_bool no_more;

static void keep_busy(void *arg)
{
    (void)arg;
}

static void again(loop_t *loop, int status, void *arg)
{
    (void)status;
    if (!no_more) loop_run_in_executor(loop, keep_busy, again, arg);
}

static void close_in_the_child(void *arg)
{
    alarm(60);
    CHECK(loop_run_in_executor(arg, work, done, NULL), ==, -EOWNERDEAD);
    CHECK(loop_close(arg), ==, 0);
    /* A loop made in the child has threads of its own. */
    {
        loop_t *fresh = new_loop();
        struct work one = {0};

        begin(fresh, &one);
        run_to_end(fresh);
        CHECK(one.done, ==, 1);
        close_loop(fresh);
    }
}

static void s33_a_child_closes_though_the_threads_are_not_there(void)
{
    loop_t *loop = new_loop();
    struct blocker blocker;

    block(loop, &blocker);
    no_more = false;
    for (int i = 0; i < 10; i++) again(loop, 0, NULL);
    for (int i = 0; i < 50; i++) {
        CHECK(loop_run_once(loop, 0), >=, 0);
        CHECK_IN_CHILD(close_in_the_child, loop);
    }
    CHECK(blocker.work.released, ==, 0);
    no_more = true;
    sem_post(&blocker.may_end);
    run_to_end(loop);
    CHECK(blocker.work.done, ==, 1);
    close_loop(loop);
}

static atomic_int child_of_work;

static void fork_in_work(void *arg)
{
    pid_t pid = fork();

    (void)arg;
    if (pid != 0) child_of_work = pid;
}

static void s33_a_child_forked_by_work_ends_with_it(void)
{
    loop_t *loop = new_loop();
    struct work one = {0};
    int status = -1;

    REQUIRE(loop_run_in_executor(loop, fork_in_work, done, &one), >, 0);
    run_to_end(loop);
    REQUIRE(waitpid(child_of_work, &status, 0), ==, child_of_work);
    CHECK(status, ==, 0);
    CHECK(one.done, ==, 1);
    close_loop(loop);
}

/* ---- names ---- */

static int looked_up, look_up_status;
static struct addrinfo *found;

static void note_addresses(loop_t *loop, int status, struct addrinfo *result, void *arg)
{
    (void)loop;
    CHECK_POINTER(arg, &looked_up);
    looked_up++;
    look_up_status = status;
    found = result;
}

static struct addrinfo numeric(void)
{
    struct addrinfo hints;

    memset(&hints, 0, sizeof hints);
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    return hints;
}

static void a_name_is_looked_up(void)
{
    loop_t *loop = new_loop();
    char node[] = "127.0.0.1", service[] = "80";
    struct addrinfo hints = numeric();

    looked_up = 0;
    REQUIRE(loop_getaddrinfo(loop, node, service, &hints, note_addresses, &looked_up), >, 0);
    /* The arguments have been copied. */
    memset(node, 'x', sizeof node - 1);
    memset(service, 'x', sizeof service - 1);
    memset(&hints, 0xff, sizeof hints);
    run_to_end(loop);
    REQUIRE(looked_up, ==, 1);
    REQUIRE(look_up_status, ==, 0);
    REQUIRE(found != NULL, ==, 1);
    CHECK(found->ai_family, ==, AF_INET);
    CHECK_TRUE(found->ai_next == NULL);
    freeaddrinfo(found);
    /* The result is the error of getaddrinfo(). */
    hints = numeric();
    REQUIRE(loop_getaddrinfo(loop, "no number", NULL, &hints, note_addresses, &looked_up), >, 0);
    run_to_end(loop);
    CHECK(look_up_status, ==, EAI_NONAME);
    CHECK_TRUE(found == NULL);
    REQUIRE(loop_getaddrinfo(loop, NULL, NULL, NULL, note_addresses, &looked_up), >, 0);
    run_to_end(loop);
    CHECK(look_up_status, ==, EAI_NONAME);
    close_loop(loop);
}

static void see_look_up(loop_t *loop, const loop_info_t *info, void *arg)
{
    (void)loop;
    if (info->handle != *(loop_handle_t *)arg) return;
    CHECK(info->kind, ==, LOOP_KIND_WORK);
    CHECK_POINTER(info->callback_address, (uintptr_t)note_addresses);
    CHECK_POINTER(info->arg, &looked_up);
}

static void s13_a_look_up_is_cancelled(void)
{
    loop_t *loop = loop_with_threads(1);
    struct addrinfo hints = numeric();
    struct blocker blocker;
    loop_handle_t handle;

    block(loop, &blocker);
    looked_up = 0;
    handle = loop_getaddrinfo(loop, "127.0.0.1", "80", &hints, note_addresses, &looked_up);
    REQUIRE(handle, >, 0);
    CHECK(loop_walk(loop, see_look_up, &handle), ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 1);
    CHECK(loop_run_once(loop, 0) + loop_run_once(loop, 0), ==, 1);
    CHECK(looked_up, ==, 1);
    CHECK(look_up_status, ==, EAI_CANCELED);
    CHECK_TRUE(found == NULL);
    sem_post(&blocker.may_end);
    close_loop(loop);
}

/* LeakSanitizer and valgrind report memory that is not freed. */
static void s22_addresses_that_no_callback_has_seen_are_freed(void)
{
    loop_t *loop = loop_with_threads(1);
    struct addrinfo hints = numeric();
    struct blocker blocker;

    looked_up = 0;
    REQUIRE(loop_getaddrinfo(loop, "127.0.0.1", "80", &hints, note_addresses, &looked_up), >, 0);
    block(loop, &blocker); /* so the look-up has ended */
    REQUIRE(loop_getaddrinfo(loop, "127.0.0.1", "80", &hints, note_addresses, &looked_up), >, 0);
    sem_post(&blocker.may_end);
    close_loop(loop);
    CHECK(looked_up, ==, 0);
}

static const struct check_test tests[] = {
    /* These tests come first: later, the C library keeps the stacks of threads that have ended. */
    TEST_NOT_UNDER("", s28_without_a_thread_the_call_says_so, "it limits the address space"),
    TEST_NOT_UNDER("", work_waits_for_the_threads_there_are, "it limits the address space"),
    TEST(work_runs_on_a_thread_that_blocks_signals),
    TEST(s13_work_that_has_not_begun_never_runs),
    TEST(s19_work_counts_for_a_run_unless_it_is_told_not_to),
    TEST(s22_closing_waits_for_what_has_begun_and_drops_the_rest),
    TEST(s22_close_within_gives_up_and_frees_nothing),
    TEST_NOT_UNDER("valgrind TSan ASan", s33_a_child_closes_though_the_threads_are_not_there,
                   "it reports memory of threads that the child lacks as leaks"),
    TEST_NOT_UNDER("valgrind TSan", s33_a_child_forked_by_work_ends_with_it,
                   "it reports memory of threads that the child lacks as leaks"),
    TEST(a_name_is_looked_up),
    TEST(s13_a_look_up_is_cancelled),
    TEST(s22_addresses_that_no_callback_has_seen_are_freed),
};

CHECK_MAIN(tests)
