/*
 * Eight threads post callbacks to one loop: each callback runs once, those of a thread in order, and is released once,
 * after it has run.
 *
 *   POSTS      number of posts, with at most 10,000 of a thread in flight; 10,000,000
 *   UNBOUNDED  number of posts, with no limit to those in flight; 1,000,000
 *   WOKEN      number of posts where each thread waits until its post has run, so that the loop often sleeps; 200,000
 */
#include "stress.h"

enum { THREADS = 8 };

struct post {
    uint64_t turn;
    unsigned poster;
};

struct poster {
    pthread_t thread;
    loop_remote_t *remote;
    uint64_t posts, ran, released;
    sem_t room;
    struct post *made; /* posts run in order, so their slots are reused in order */
    uint64_t in_flight;
};

static struct poster posters[THREADS];
static uint64_t missing;
static bool all_have_run;

static void run_post(loop_t *loop, void *arg)
{
    struct post *post = arg;
    struct poster *poster = &posters[post->poster];

    (void)loop;
    CHECK(post->turn, ==, poster->ran);
    CHECK(poster->released, ==, poster->ran);
    poster->ran++;
}

static void release_post(void *arg)
{
    struct post *post = arg;
    struct poster *poster = &posters[post->poster];

    CHECK(post->turn, ==, poster->released);
    poster->released++;
    CHECK(poster->released, ==, poster->ran);
    post->turn = UINT64_MAX;
    all_have_run = --missing == 0;
    sem_post(&poster->room);
}

static void *post_all(void *arg)
{
    struct poster *poster = arg;

    for (uint64_t turn = 0; turn < poster->posts; turn++) {
        struct post *post = &poster->made[turn % poster->in_flight];

        take(&poster->room);
        *post = (struct post){turn, (unsigned)(poster - posters)};
        REQUIRE(loop_remote_call_soon(poster->remote, run_post, post, release_post), ==, 0);
    }
    loop_remote_release(poster->remote);
    return NULL;
}

static void post_from_all_threads(uint64_t posts, uint64_t in_flight)
{
    loop_t *loop = new_loop();
    uint64_t begin = monotonic();

    memset(posters, 0, sizeof posters);
    missing = posts / THREADS * THREADS;
    all_have_run = missing == 0;
    for (unsigned i = 0; i < THREADS; i++) {
        struct poster *poster = &posters[i];

        poster->posts = posts / THREADS;
        poster->in_flight = in_flight;
        poster->made = calloc(in_flight, sizeof *poster->made);
        REQUIRE(poster->made != NULL, ==, 1);
        REQUIRE(sem_init(&poster->room, 0, (unsigned)in_flight), ==, 0);
        REQUIRE(loop_remote_new(loop, &poster->remote), ==, 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), ==, 0);
    run_until(loop, &all_have_run);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(posters[i].thread, NULL);
        CHECK(posters[i].ran, ==, posts / THREADS);
        CHECK(posters[i].released, ==, posts / THREADS);
        sem_destroy(&posters[i].room);
        free(posters[i].made);
    }
    CHECK(metrics_of(loop).posts, ==, posts / THREADS * THREADS);
    CHECK_TRUE(!loop_is_alive(loop));
    printf("%" PRIu64 " posts, %" PRIu64 " of a thread in flight: %.1f s, %" PRIu64 " wakes\n", posts, in_flight,
           (double)(monotonic() - begin) / 1e9, metrics_of(loop).wakes);
    close_loop(loop);
}

static void s26_bounded_posts_run_once_and_in_order(void)
{
    post_from_all_threads(scale("POSTS", 10000000), 10000);
}

static void s26_unbounded_posts_run_once_and_in_order(void)
{
    uint64_t posts = scale("UNBOUNDED", 1000000);

    post_from_all_threads(posts, posts / THREADS + 1);
}

static void s26_posts_to_a_loop_that_sleeps_run_once_and_in_order(void)
{
    post_from_all_threads(scale("WOKEN", 200000), 1);
}

static const struct check_test tests[] = {
    TEST(s26_bounded_posts_run_once_and_in_order),
    TEST(s26_unbounded_posts_run_once_and_in_order),
    TEST(s26_posts_to_a_loop_that_sleeps_run_once_and_in_order),
};

CHECK_MAIN(tests)
