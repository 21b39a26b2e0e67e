/* S33: in a forked child the parent's loop is dead; in the parent it lives. wrong_calls.c checks every function in a child. */
#include "check.h"

#include <pthread.h>
#include <semaphore.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static void *call_some_in_a_thread(void *loop)
{
    CHECK(loop_call_soon(loop, do_nothing, NULL), ==, -EOWNERDEAD);
    CHECK(loop_run(loop), ==, -EOWNERDEAD);
    return NULL;
}

static int released;

static void count_release(void *arg)
{
    (void)arg;
    released++;
}

static void in_the_child(void *arg)
{
    pthread_t thread;
    loop_t *fresh;

    REQUIRE(pthread_create(&thread, NULL, call_some_in_a_thread, arg), ==, 0);
    pthread_join(thread, NULL);
    /* A loop made in the child works. */
    fresh = new_loop();
    trace_clear();
    CHECK(loop_call_later(fresh, LOOP_MSEC(1), record, (void *)"f"), >, 0);
    CHECK(loop_run(fresh), ==, LOOP_DONE);
    CHECK_TEXT(trace, "f");
    close_loop(fresh);
    /* Closing the parent's loop in the child only frees memory: it runs no hooks and closes no descriptors. */
    CHECK(loop_close(arg), ==, 0);
    CHECK(released, ==, 0);
}

static void s33_the_child_has_loops_of_its_own(void)
{
    loop_t *loop = new_loop();
    loop_handle_t timer;

    released = 0;
    trace_clear();
    CHECK(loop_run_once(loop, 0), ==, 0);
    timer = loop_call_later(loop, LOOP_MSEC(20), record, (void *)"t");
    CHECK(loop_on_release(loop, timer, count_release), ==, 0);
    CHECK_IN_CHILD(in_the_child, loop);
    /* The parent's loop is as before the fork. */
    CHECK_TRUE(loop_is_pending(loop, timer));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "t");
    CHECK(released, ==, 1);
    close_loop(loop);
}

static void leave_it_alone(void *arg)
{
    CHECK(loop_call_soon(arg, do_nothing, NULL), ==, -EOWNERDEAD);
}

static void s33_a_child_that_leaves_the_loop_alone(void)
{
    static loop_t *loop; /* static: still reachable when the child exits without closing the loop, so no leak */
    int fd;

    loop = new_loop();
    fd = loop_fd(loop);
    CHECK(loop_call_later(loop, LOOP_MSEC(10), do_nothing, NULL), >, 0);
    CHECK(loop_flush(loop), ==, 0);
    CHECK_IN_CHILD(leave_it_alone, loop);
    CHECK(loop_fd(loop), ==, fd);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_loop(loop);
}

static pid_t forked;

static void fork_in_callback(loop_t *loop, void *arg)
{
    (void)arg;
    fflush(NULL);
    forked = fork();
    REQUIRE(forked, >=, 0);
    if (forked == 0)
        CHECK(loop_call_soon(loop, do_nothing, NULL), ==, -EOWNERDEAD);
}

/* The child returns from the callback into the parent's loop: the run ends there. */
static void s33_a_child_forked_in_a_callback_leaves_the_run(void)
{
    loop_t *loop = new_loop();
    int result, status = -1;

    trace_clear();
    CHECK(loop_call_soon(loop, fork_in_callback, NULL), >, 0);
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_call_later(loop, LOOP_MSEC(5), record, (void *)"b"), >, 0);
    result = loop_run(loop);
    if (forked == 0) {
        CHECK(result, ==, -EOWNERDEAD);
        CHECK_TEXT(trace, "");
        CHECK(loop_run(loop), ==, -EOWNERDEAD);
        CHECK(loop_close(loop), ==, 0);
        fflush(NULL);
        _exit(check_failures != 0);
    }
    CHECK(result, ==, LOOP_DONE);
    CHECK_TEXT(trace, "ab");
    REQUIRE(waitpid(forked, &status, 0), ==, forked);
    CHECK(status, ==, 0);
    close_loop(loop);
}

/* A release hook that forks: callbacks and hooks after it must not run in the child. */
static void fork_in_release(void *arg)
{
    (void)arg;
    forked = fork();
}

static void count_call(loop_t *loop, void *arg)
{
    (void)loop;
    ++*(int *)arg;
}

static void s33_a_child_forked_in_a_release_hook_leaves_the_run(void)
{
    loop_t *loop = new_loop();
    int calls = 0, result, status;

    CHECK(loop_on_release(loop, loop_call_soon(loop, do_nothing, NULL), fork_in_release), ==, 0);
    CHECK(loop_call_soon(loop, count_call, &calls), >, 0);
    result = loop_run(loop);
    if (forked == 0)
        _exit(result == -EOWNERDEAD && calls == 0 && loop_close(loop) == 0 ? 0 : 1);
    CHECK(result, ==, LOOP_DONE);
    CHECK(calls, ==, 1);
    CHECK(waitpid(forked, &status, 0), ==, forked);
    CHECK(status, ==, 0);
    close_loop(loop);
}

/* Overwrites freed memory, as far as the allocator returns this memory. */
static void use_what_is_free(void)
{
    enum { LARGEST = 16384 };
    char *blocks[LARGEST / 16];

    for (size_t i = 0; i < LARGEST / 16; i++) {
        blocks[i] = malloc(16 * (i + 1));
        REQUIRE(blocks[i] != NULL, ==, true);
        memset(blocks[i], 0xa5, 16 * (i + 1));
    }
    for (size_t i = 0; i < LARGEST / 16; i++)
        free(blocks[i]);
}

static bool is_dead_here(loop_t *loop)
{
    use_what_is_free();
    return loop_wakeup(loop) == -EOWNERDEAD && loop_run(loop) == -EOWNERDEAD && loop_close(loop) == -EOWNERDEAD;
}

static void s33_a_child_forked_in_a_release_hook_leaves_the_close(void)
{
    loop_t *loop = new_loop();
    int result, status;

    released = 0;
    CHECK(loop_on_release(loop, loop_call_soon(loop, do_nothing, NULL), fork_in_release), ==, 0);
    CHECK(loop_on_release(loop, loop_call_soon(loop, do_nothing, NULL), count_release), ==, 0);
    result = loop_close(loop);
    if (forked == 0)
        _exit(result == 0 && released == 0 && is_dead_here(loop) ? 0 : 1);
    CHECK(result, ==, 0);
    CHECK(released, ==, 1);
    CHECK(waitpid(forked, &status, 0), ==, forked);
    CHECK(status, ==, 0);
}

/* ---- forks while another thread posts: all posts belong to the parent ---- */

enum fork_place { IN_CALLBACK, IN_POSTED_CALLBACK, IN_RELEASE, IN_POSTED_RELEASE, IN_HOOK, AT_CLOSE, FORK_PLACES };

/* The largest number of posts that are not released: the thread posts faster than a loop that forks runs. */
enum { IN_FLIGHT = 200 };

struct posting {
    loop_t *loop;
    loop_remote_t *remote;
    sem_t room;
    unsigned accepted, ran, released, last;
};

struct numbered {
    struct posting *posting;
    unsigned number;
};

static void run_numbered(loop_t *loop, void *arg)
{
    struct numbered *post = arg;

    (void)loop;
    post->posting->ran++;
    CHECK(post->number, ==, ++post->posting->last);
}

static void release_numbered(void *arg)
{
    struct numbered *post = arg;

    post->posting->released++;
    sem_post(&post->posting->room);
    free(post);
}

static void *post_until_closed(void *arg)
{
    struct posting *posting = arg;

    for (;;) {
        struct numbered *post = malloc(sizeof *post);
        int result;

        while (sem_wait(&posting->room) != 0)
            REQUIRE(errno, ==, EINTR);
        *post = (struct numbered){posting, posting->accepted + 1};
        result = loop_remote_call_soon(posting->remote, run_numbered, post, release_numbered);
        if (result != 0) {
            CHECK(result, ==, -ESHUTDOWN);
            free(post);
            return NULL;
        }
        posting->accepted++;
    }
}

static struct posting *posting_of_fork;
static unsigned ran_at_fork, released_at_fork;

static void fork_now(void)
{
    forked = fork();
    if (forked == 0) {
        ran_at_fork = posting_of_fork->ran;
        released_at_fork = posting_of_fork->released;
    }
}

static void fork_in_call(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    if (forked < 0)
        fork_now();
}

static void fork_at_release(void *arg)
{
    (void)arg;
    if (forked < 0)
        fork_now();
}

static void fork_at(struct posting *posting, enum fork_place place)
{
    loop_t *loop = posting->loop;

    switch (place) {
    case IN_CALLBACK:
        CHECK(loop_call_soon(loop, fork_in_call, NULL), >, 0);
        break;
    case IN_POSTED_CALLBACK:
        CHECK(loop_remote_call_soon(posting->remote, fork_in_call, NULL, fork_at_release), ==, 0);
        break;
    case IN_RELEASE:
        CHECK(loop_on_release(loop, loop_call_soon(loop, do_nothing, NULL), fork_at_release), ==, 0);
        break;
    case IN_POSTED_RELEASE:
        CHECK(loop_remote_call_soon(posting->remote, do_nothing, NULL, fork_at_release), ==, 0);
        break;
    case IN_HOOK:
        CHECK(loop_add_hook(loop, LOOP_AFTER_WAIT, fork_in_call, NULL), >, 0);
        break;
    default:
        CHECK(loop_remote_call_soon(posting->remote, do_nothing, NULL, fork_at_release), ==, 0);
        break;
    }
}

/* Ends the child: no callback and no release hook has run in it since the fork, and none runs now. */
static void be_the_child(struct posting *posting, int result, bool closed)
{
    loop_t *fresh;

    alarm(60);
    CHECK(result, ==, closed ? 0 : -EOWNERDEAD);
    CHECK(loop_remote_call_soon(posting->remote, do_nothing, NULL, NULL), ==, -EOWNERDEAD);
    CHECK(loop_remote_call_later(posting->remote, 1, do_nothing, NULL, NULL), ==, -EOWNERDEAD);
    CHECK(loop_remote_wakeup(posting->remote), ==, -EOWNERDEAD);
    CHECK(loop_remote_stop(posting->remote), ==, -EOWNERDEAD);
    if (!closed) {
        CHECK(loop_run(posting->loop), ==, -EOWNERDEAD);
        CHECK(loop_run_once(posting->loop, 0), ==, -EOWNERDEAD);
        CHECK(loop_wakeup(posting->loop), ==, -EOWNERDEAD);
        CHECK(loop_close(posting->loop), ==, 0);
    }
    loop_remote_release(posting->remote);
    CHECK(posting->ran, ==, ran_at_fork);
    CHECK(posting->released, ==, released_at_fork);
    fresh = new_loop();
    CHECK(loop_call_later(fresh, LOOP_MSEC(1), do_nothing, NULL), >, 0);
    CHECK(loop_run(fresh), ==, LOOP_DONE);
    close_loop(fresh);
    fflush(NULL);
    _exit(check_failures != 0);
}

static void fork_amid_posts(enum fork_place place)
{
    struct posting posting;
    pthread_t thread;
    int result = 0, status = -1;
    unsigned goal;

    memset(&posting, 0, sizeof posting);
    posting_of_fork = &posting;
    forked = -1;
    posting.loop = new_loop();
    REQUIRE(loop_remote_new(posting.loop, &posting.remote), ==, 0);
    REQUIRE(sem_init(&posting.room, 0, IN_FLIGHT), ==, 0);
    REQUIRE(pthread_create(&thread, NULL, post_until_closed, &posting), ==, 0);
    while (posting.ran < 100)
        REQUIRE(loop_run_once(posting.loop, 0), >=, 0);
    fork_at(&posting, place);
    while (place != AT_CLOSE && forked < 0 && result >= 0)
        result = loop_run_once(posting.loop, 0);
    if (forked == 0)
        be_the_child(&posting, result, false);
    /* The parent's loop works as before. */
    for (goal = posting.ran + 1000; place != AT_CLOSE && posting.ran < goal;)
        REQUIRE(loop_run_once(posting.loop, 0), >=, 0);
    result = loop_close(posting.loop);
    if (forked == 0)
        be_the_child(&posting, result, true);
    CHECK(result, ==, 0);
    REQUIRE(forked, >, 0);
    pthread_join(thread, NULL);
    CHECK(posting.released, ==, posting.accepted);
    CHECK(posting.ran, <=, posting.accepted);
    loop_remote_release(posting.remote);
    sem_destroy(&posting.room);
    REQUIRE(waitpid(forked, &status, 0), ==, forked);
    CHECK(status, ==, 0);
}

static void s33_a_child_forked_amid_posts_takes_none_of_them(void)
{
    int rounds = getenv("CHECK_TOOL") ? 2 : 20;

    for (int round = 0; round < rounds; round++)
        for (enum fork_place place = IN_CALLBACK; place < FORK_PLACES; place++)
            fork_amid_posts(place);
}

/* ---- forks while other threads make and close loops: the child can make its own loops ---- */

static atomic_bool no_more_loops;

/* Each thread becomes an owner of loops, and exits. */
static void *make_a_loop(void *arg)
{
    (void)arg;
    close_loop(new_loop());
    return NULL;
}

static void *make_owners(void *arg)
{
    (void)arg;
    while (!no_more_loops) {
        pthread_t thread;

        REQUIRE(pthread_create(&thread, NULL, make_a_loop, NULL), ==, 0);
        pthread_join(thread, NULL);
    }
    return NULL;
}

static void own_a_loop(void *arg)
{
    (void)arg;
    alarm(60);
    close_loop(new_loop());
}

static void s33_a_child_forked_while_others_make_loops_makes_its_own(void)
{
    int rounds = getenv("CHECK_TOOL") ? 50 : 500;
    pthread_t threads[2];

    no_more_loops = false;
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&threads[i], NULL, make_owners, NULL), ==, 0);
    for (int i = 0; i < rounds && check_failures == 0; i++)
        CHECK_IN_CHILD(own_a_loop, NULL);
    no_more_loops = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

/* ---- forks by a thread that does not own the loop; the owner may be anywhere in the library then ---- */

struct elsewhere {
    loop_t *loop;
    atomic_int tid; /* the id of the loop's thread; 0 until the loop exists */
    sem_t begun, may_end;
};

/* Waits until the loop's thread is in this system call, in which the thread has parts of the loop borrowed. */
static void until_in(struct elsewhere *elsewhere, long call)
{
    char path[64], text[32];
    long current = -2;

    while (elsewhere->tid == 0) sched_yield();
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", elsewhere->tid);
    for (uint64_t end = monotonic() + LOOP_SEC(20); current != call && monotonic() < end; usleep(100)) {
        FILE *file = fopen(path, "r");

        REQUIRE(file != NULL, ==, 1);
        current = fgets(text, sizeof text, file) && text[0] != 'r' ? strtol(text, NULL, 10) : -2;
        fclose(file);
    }
    CHECK(current, ==, call);
}

static void close_the_others(void *arg)
{
    struct elsewhere *elsewhere = arg;

    alarm(60);
    CHECK(loop_call_soon(elsewhere->loop, do_nothing, NULL), ==, -EOWNERDEAD);
    CHECK(loop_close(elsewhere->loop), ==, 0);
    CHECK(loop_call_soon(elsewhere->loop, do_nothing, NULL), ==, -EOWNERDEAD);
    CHECK(loop_close(elsewhere->loop), ==, -EOWNERDEAD);
    CHECK(released, ==, 0);
    own_a_loop(NULL);
}

static void *run_it_forever(void *arg)
{
    struct elsewhere *elsewhere = arg;

    elsewhere->loop = new_loop();
    CHECK(loop_on_release(elsewhere->loop, loop_call_later(elsewhere->loop, LOOP_SEC(1000), do_nothing, NULL), count_release),
          ==, 0);
    elsewhere->tid = gettid();
    CHECK(loop_run_forever(elsewhere->loop), ==, LOOP_STOPPED);
    CHECK(loop_close(elsewhere->loop), ==, 0);
    return NULL;
}

static void stop_it(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_stop(loop), ==, 0);
}

static void s33_another_thread_forks_while_the_loop_sleeps(void)
{
    struct elsewhere elsewhere = {0};
    pthread_t thread;

    released = 0;
    REQUIRE(pthread_create(&thread, NULL, run_it_forever, &elsewhere), ==, 0);
    until_in(&elsewhere, SYS_io_uring_enter);
    CHECK_IN_CHILD(close_the_others, &elsewhere);
    CHECK(loop_call_soon_threadsafe(elsewhere.loop, stop_it, NULL), ==, 0);
    pthread_join(thread, NULL);
    CHECK(released, ==, 1);
}

static void wait_for_the_end(void *arg)
{
    struct elsewhere *elsewhere = arg;

    sem_post(&elsewhere->begun);
    while (sem_wait(&elsewhere->may_end) != 0) REQUIRE(errno, ==, EINTR);
}

static void never_done(loop_t *loop, int status, void *arg)
{
    (void)loop;
    (void)status;
    (void)arg;
    CHECK_TRUE(!"close runs no callback");
}

/* Closes a loop whose work lasts: the thread waits in close, with the work's state borrowed. */
static void *close_it_for_long(void *arg)
{
    struct elsewhere *elsewhere = arg;

    elsewhere->loop = new_loop();
    CHECK(loop_run_in_executor(elsewhere->loop, wait_for_the_end, never_done, elsewhere), >, 0);
    while (sem_wait(&elsewhere->begun) != 0) REQUIRE(errno, ==, EINTR);
    elsewhere->tid = gettid();
    CHECK(loop_close(elsewhere->loop), ==, 0);
    return NULL;
}

static void s33_another_thread_forks_while_the_loop_is_closed(void)
{
    struct elsewhere elsewhere = {0};
    pthread_t thread;

    released = 0;
    REQUIRE(sem_init(&elsewhere.begun, 0, 0), ==, 0);
    REQUIRE(sem_init(&elsewhere.may_end, 0, 0), ==, 0);
    REQUIRE(pthread_create(&thread, NULL, close_it_for_long, &elsewhere), ==, 0);
    until_in(&elsewhere, SYS_futex);
    CHECK_IN_CHILD(close_the_others, &elsewhere);
    sem_post(&elsewhere.may_end);
    pthread_join(thread, NULL);
}

static void go_round(loop_t *loop, void *arg)
{
    CHECK(loop_on_release(loop, loop_call_soon(loop, go_round, arg), free), ==, 0);
    CHECK(loop_call_later(loop, LOOP_USEC(1), do_nothing, NULL), >, 0);
}

static void *run_round_and_round(void *arg)
{
    struct elsewhere *elsewhere = arg;

    elsewhere->loop = new_loop();
    go_round(elsewhere->loop, NULL);
    elsewhere->tid = gettid();
    CHECK(loop_run_forever(elsewhere->loop), ==, LOOP_STOPPED);
    CHECK(loop_close(elsewhere->loop), ==, 0);
    return NULL;
}

static void s33_another_thread_forks_at_any_moment_of_a_run(void)
{
    int rounds = getenv("CHECK_TOOL") ? 20 : 300;
    struct elsewhere elsewhere = {0};
    pthread_t thread;

    released = 0;
    REQUIRE(pthread_create(&thread, NULL, run_round_and_round, &elsewhere), ==, 0);
    while (elsewhere.tid == 0) sched_yield();
    for (int i = 0; i < rounds && check_failures == 0; i++)
        CHECK_IN_CHILD(close_the_others, &elsewhere);
    CHECK(loop_call_soon_threadsafe(elsewhere.loop, stop_it, NULL), ==, 0);
    pthread_join(thread, NULL);
}

static const struct check_test tests[] = {
    TEST(s33_the_child_has_loops_of_its_own),
    TEST(s33_a_child_that_leaves_the_loop_alone),
    TEST(s33_a_child_forked_in_a_callback_leaves_the_run),
    TEST(s33_a_child_forked_in_a_release_hook_leaves_the_run),
    TEST(s33_a_child_forked_in_a_release_hook_leaves_the_close),
    TEST_NOT_UNDER("valgrind", s33_a_child_forked_amid_posts_takes_none_of_them,
                   "it reports the memory that the child abandons as a leak"),
    TEST_NOT_UNDER("valgrind ASan", s33_a_child_forked_while_others_make_loops_makes_its_own,
                   "it reports memory of threads that the child lacks, or keeps a lock of such a thread"),
    TEST_NOT_UNDER("valgrind", s33_another_thread_forks_while_the_loop_sleeps, "no other thread runs meanwhile"),
    TEST_NOT_UNDER("valgrind", s33_another_thread_forks_while_the_loop_is_closed, "its threads are in other system calls"),
    TEST_NOT_UNDER("valgrind", s33_another_thread_forks_at_any_moment_of_a_run, "no other thread runs meanwhile"),
};

CHECK_MAIN(tests)
