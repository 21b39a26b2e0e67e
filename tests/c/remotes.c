/* S23, S26, S27, S33: posts and wakeups from other threads, from signal handlers, and in a forked child. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- many threads post many callbacks: each runs once, and those of one thread run in order ---- */

#define POSTERS 8

struct poster {
    pthread_t thread;
    loop_remote_t *remote;
    uintptr_t posts, seen;
};

struct stamp {
    struct poster *poster;
    uintptr_t turn;
};

static uintptr_t still_missing;
static bool none_is_missing;

static void check_turn(loop_t *loop, void *arg)
{
    struct stamp *stamp = arg;

    (void)loop;
    CHECK(stamp->turn, ==, stamp->poster->seen);
    stamp->poster->seen++;
    none_is_missing = --still_missing == 0;
}

static void *post_all(void *arg)
{
    struct poster *poster = arg;

    for (uintptr_t turn = 0; turn < poster->posts; turn++) {
        struct stamp *stamp = malloc(sizeof *stamp);

        stamp->poster = poster;
        stamp->turn = turn;
        REQUIRE(loop_remote_call_soon(poster->remote, check_turn, stamp, free), ==, 0);
    }
    loop_remote_release(poster->remote);
    return NULL;
}

static void post_from_many_threads(const loop_options_t *options)
{
    const char *wanted = getenv("POSTS");
    uintptr_t each = (wanted ? strtoul(wanted, NULL, 10) : 80000) / POSTERS;
    struct poster posters[POSTERS] = {0};
    loop_t *loop;

    REQUIRE(loop_new(options, &loop), ==, 0);
    none_is_missing = false;
    still_missing = POSTERS * each;
    for (int i = 0; i < POSTERS; i++) {
        posters[i].posts = each;
        REQUIRE(loop_remote_new(loop, &posters[i].remote), ==, 0);
        REQUIRE(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), ==, 0);
    }
    run_until(loop, &none_is_missing);
    for (int i = 0; i < POSTERS; i++) {
        pthread_join(posters[i].thread, NULL);
        CHECK(posters[i].seen, ==, each);
    }
    CHECK(metrics_of(loop).posts, ==, POSTERS * each);
    close_loop(loop);
}

static void s26_many_threads_post_and_each_post_runs_once_in_order(void)
{
    loop_options_t tiny = LOOP_OPTIONS_INIT;

    tiny.sq_entries = tiny.cq_entries = 1;
    post_from_many_threads(NULL);
    post_from_many_threads(&tiny);
}

/* ---- loops are closed while others post: accepted callbacks are released once, refused ones never ---- */

static atomic_uint ran, released, accepted, refused;

static void run_it(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    ran++;
}

static void release_it(void *arg)
{
    (void)arg;
    released++;
}

/* The most posts of one thread: four threads post faster than one loop runs. */
#define MOST 5000

static void *post_until_refused(void *arg)
{
    loop_remote_t *remote = arg;
    unsigned posts = 0;

    for (;;) {
        int posted = posts < MOST ? loop_remote_call_soon(remote, run_it, NULL, release_it)
                                  : loop_remote_wakeup(remote);

        if (posted == -ESHUTDOWN) break;
        REQUIRE(posted, ==, 0);
        if (posts < MOST) {
            posts++;
            accepted++;
        } else {
            usleep(50);
        }
    }
    refused++;
    CHECK(loop_remote_wakeup(remote), ==, -ESHUTDOWN);
    CHECK(loop_remote_stop(remote), ==, -ESHUTDOWN);
    CHECK(loop_remote_call_later(remote, 1, run_it, NULL, release_it), ==, -ESHUTDOWN);
    loop_remote_release(remote);
    return NULL;
}

static void s23_what_is_accepted_is_released_once_and_what_is_refused_is_not(void)
{
    unsigned rounds = is_under("valgrind") || is_under("TSan") ? 20 : 300;

    for (unsigned round = 0; round < rounds; round++) {
        pthread_t threads[4];
        loop_t *loop = new_loop();
        unsigned before;

        ran = released = accepted = refused = 0;
        for (int i = 0; i < 4; i++) {
            loop_remote_t *remote;

            REQUIRE(loop_remote_new(loop, &remote), ==, 0);
            REQUIRE(pthread_create(&threads[i], NULL, post_until_refused, remote), ==, 0);
        }
        for (unsigned i = 0; i < round % 7; i++) REQUIRE(loop_run_once(loop, LOOP_MSEC(1)), >=, 0);
        before = ran;
        close_loop(loop);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        CHECK(ran, ==, before);
        CHECK(released, ==, accepted);
        CHECK(refused, ==, 4);
    }
}

/* ---- a release hook runs once, after the callback ---- */

static int noted[4], notes;

static void note_run(loop_t *loop, void *arg)
{
    (void)loop;
    noted[notes++] = *(int *)arg;
}

static void note_release(void *arg)
{
    noted[notes++] = -*(int *)arg;
}

static void s23_a_release_hook_comes_once_after_the_callback(void)
{
    static int one = 1, two = 2;
    loop_t *loop = new_loop();
    loop_remote_t *remote;

    REQUIRE(loop_remote_new(loop, &remote), ==, 0);
    REQUIRE(loop_remote_call_soon(remote, note_run, &one, note_release), ==, 0);
    REQUIRE(loop_run(loop), ==, LOOP_DONE);
    CHECK(notes, ==, 2);
    CHECK(noted[0], ==, 1);
    CHECK(noted[1], ==, -1);
    REQUIRE(loop_remote_call_later(remote, LOOP_SEC(60), note_run, &two, note_release), ==, 0);
    REQUIRE(loop_run_once(loop, 0), ==, 0);
    REQUIRE(loop_call_soon_threadsafe(loop, note_run, &one), ==, 0);
    close_loop(loop);
    CHECK(notes, ==, 3);
    CHECK(noted[2], ==, -2);
    CHECK(loop_remote_call_soon(remote, note_run, &one, note_release), ==, -ESHUTDOWN);
    CHECK(notes, ==, 3);
    CHECK_TRUE(loop_remote_retain(remote) == remote);
    loop_remote_release(remote);
    loop_remote_release(remote);
}

/* ---- from a signal handler ---- */

static loop_t *signalled;
static atomic_int handled;

static void wake_up(int number)
{
    int before = errno;

    (void)number;
    errno = E2BIG;
    if (loop_wakeup(signalled) == 0 && errno == E2BIG) handled++;
    /* The interrupted code may be about to read errno. */
    errno = before;
}

static void *send_signals(void *arg)
{
    pthread_t *target = arg;

    for (int i = 0; i < 1000; i++) pthread_kill(*target, SIGUSR1);
    return NULL;
}

static void s27_a_signal_handler_wakes_the_loop(void)
{
    struct sigaction action = {.sa_handler = wake_up, .sa_flags = SA_RESTART};
    pthread_t self = pthread_self(), sender;
    int ran_once;

    signalled = new_loop();
    REQUIRE(sigaction(SIGUSR1, &action, NULL), ==, 0);
    /* A wakeup that comes while the loop is awake ends its next sleep. */
    REQUIRE(raise(SIGUSR1), ==, 0);
    CHECK(loop_run_once(signalled, LOOP_NEVER), ==, 0);
    REQUIRE(pthread_create(&sender, NULL, send_signals, &self), ==, 0);
    while (handled < 2) {
        ran_once = loop_run_once(signalled, LOOP_NEVER);
        if (ran_once != -EINTR)
            CHECK(ran_once, ==, 0);
    }
    pthread_join(sender, NULL);
    signal(SIGUSR1, SIG_DFL);
    close_loop(signalled);
}

/* ---- in a forked child ---- */

struct loop_and_remote {
    loop_t *loop;
    loop_remote_t *remote;
};

/* ---- failures ---- */

/* The sentence is in thread-local storage, which is not async-signal-safe in a library loaded by dlopen(). */
static void s27_a_wakeup_that_fails_leaves_the_last_error(void)
{
    loop_t *loop = new_loop();
    loop_remote_t *remote = NULL;
    char sentence[256];

    REQUIRE(loop_remote_new(loop, &remote), ==, 0);
    CHECK(loop_cancel(loop, -1), ==, -ENOENT);
    snprintf(sentence, sizeof sentence, "%s", loop_last_error());
    CHECK_TRUE(strlen(sentence) > 0);
    CHECK(loop_wakeup(NULL), ==, -EINVAL);
    CHECK(loop_remote_wakeup(NULL), ==, -EINVAL);
    CHECK(loop_shutdown(loop), ==, 0);
    CHECK(loop_wakeup(loop), ==, -ESHUTDOWN);
    close_loop(loop);
    CHECK(loop_remote_wakeup(remote), ==, -ESHUTDOWN);
    CHECK_TEXT(loop_last_error(), sentence);
    loop_remote_release(remote);
}

static const struct check_test tests[] = {
    TEST(s26_many_threads_post_and_each_post_runs_once_in_order),
    TEST(s23_what_is_accepted_is_released_once_and_what_is_refused_is_not),
    TEST(s23_a_release_hook_comes_once_after_the_callback),
    TEST_NOT_UNDER("valgrind TSan", s27_a_signal_handler_wakes_the_loop, "it keeps signals away from io_uring_enter()"),
    TEST(s27_a_wakeup_that_fails_leaves_the_last_error),
};

CHECK_MAIN(tests)
