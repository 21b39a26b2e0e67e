/*
 * Four threads post to loops that are closed at random moments: each post runs and is released, or is only released, or
 * is refused, and this happens once. Some loops are closed by another thread after their owner has exited; some are
 * adopted by a worker, which runs them.
 *
 *   ROUNDS  number of loops; 10,000
 */
#include "stress.h"

enum { POSTERS = 4, MOST = 64 };

enum { OWN, INHERITED, ADOPTED, WAYS };

struct post {
    atomic_uint ran, released;
    unsigned poster, number;
    bool accepted, later;
};

struct poster {
    pthread_t thread;
    loop_remote_t *remote;
    sem_t begin, end;
    uint32_t random;
    struct post posts[MOST];
    unsigned count, accepted, last;
};

static struct poster posters[POSTERS];
static bool no_more_rounds;
static bool is_closing; /* written and read by the thread that runs or closes the loop */

/* Posts of one thread without a delay run in the order of posting. */
static void run_post(loop_t *loop, void *arg)
{
    struct post *post = arg;

    (void)loop;
    CHECK_TRUE(!is_closing);
    CHECK(post->ran++, ==, 0);
    CHECK(post->released, ==, 0);
    if (!post->later) {
        CHECK(post->number, >, posters[post->poster].last);
        posters[post->poster].last = post->number;
    }
}

static void release_post(void *arg)
{
    struct post *post = arg;

    CHECK(post->released++, ==, 0);
    CHECK_TRUE(post->ran == 1 || is_closing);
}

static void post_until_refused(struct poster *poster)
{
    for (;;) {
        struct post *post = &poster->posts[poster->count];
        int result;

        if (poster->count == MOST) {
            result = loop_remote_wakeup(poster->remote);
            if (result == 0) {
                sched_yield();
                continue;
            }
        } else {
            post->later = next_random(&poster->random) % 4 == 0;
            result = post->later ? loop_remote_call_later(poster->remote, next_random(&poster->random) % 5000, run_post,
                                                          post, release_post)
                                 : loop_remote_call_soon(poster->remote, run_post, post, release_post);
            poster->count++;
        }
        if (result != 0) {
            CHECK(result, ==, -ESHUTDOWN);
            return;
        }
        post->accepted = true;
        poster->accepted++;
    }
}

static void *be_a_poster(void *arg)
{
    struct poster *poster = arg;

    for (;;) {
        take(&poster->begin);
        if (no_more_rounds)
            return NULL;
        post_until_refused(poster);
        loop_remote_release(poster->remote);
        sem_post(&poster->end);
    }
}

static uint32_t random_state = 2463534242;

static void begin_posting(loop_t *loop)
{
    is_closing = false;
    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i].count = posters[i].accepted = posters[i].last = 0;
        for (unsigned number = 0; number < MOST; number++) {
            struct post *post = &posters[i].posts[number];

            post->ran = post->released = 0;
            post->poster = i;
            post->number = number + 1;
            post->accepted = post->later = false;
        }
        REQUIRE(loop_remote_new(loop, &posters[i].remote), ==, 0);
    }
    for (unsigned i = 0; i < POSTERS; i++)
        sem_post(&posters[i].begin);
}

static void run_for_a_while(loop_t *loop)
{
    for (unsigned i = next_random(&random_state) % 12; i > 0; i--)
        REQUIRE(loop_run_once(loop, next_random(&random_state) % 3 ? 0 : LOOP_USEC(20)), >=, 0);
}

static uint64_t total_ran, total_dropped, total_refused;

static void count_up(void)
{
    for (unsigned i = 0; i < POSTERS; i++) {
        struct poster *poster = &posters[i];
        unsigned accepted = 0;

        take(&poster->end);
        for (unsigned number = 0; number < poster->count; number++) {
            const struct post *post = &poster->posts[number];

            CHECK(post->released, ==, post->accepted);
            CHECK(post->ran, <=, post->accepted);
            accepted += post->accepted;
            total_ran += post->ran;
            total_dropped += post->released - post->ran;
            total_refused += !post->accepted;
        }
        CHECK(accepted, ==, poster->accepted);
    }
}

/* No post may run after this flag is set. */
static void close_now(loop_t *loop)
{
    is_closing = true;
    close_loop(loop);
}

static void *make_post_and_leave(void *arg)
{
    loop_t *loop = *(loop_t **)arg = new_loop();

    begin_posting(loop);
    run_for_a_while(loop);
    return NULL;
}

static void *adopt_and_run(void *arg)
{
    loop_t *loop = arg;

    CHECK(loop_adopt(loop), ==, 0);
    run_for_a_while(loop);
    if (next_random(&random_state) % 2)
        close_now(loop);
    return loop;
}

static void one_round(unsigned way)
{
    pthread_t worker;
    loop_t *loop;

    switch (way) {
    case OWN:
        loop = new_loop();
        begin_posting(loop);
        run_for_a_while(loop);
        close_now(loop);
        break;
    case INHERITED:
        REQUIRE(pthread_create(&worker, NULL, make_post_and_leave, &loop), ==, 0);
        pthread_join(worker, NULL);
        CHECK(loop_run_once(loop, 0), ==, -EPERM);
        close_now(loop);
        break;
    default:
        loop = new_loop();
        begin_posting(loop);
        REQUIRE(pthread_create(&worker, NULL, adopt_and_run, loop), ==, 0);
        pthread_join(worker, NULL);
        if (!is_closing)
            close_now(loop);
        break;
    }
    count_up();
}

static void s23_whatever_the_moment_of_closing_each_post_ends_once(void)
{
    uint64_t rounds = scale("ROUNDS", 10000), begin = monotonic();

    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i].random = 88172645 + i;
        REQUIRE(sem_init(&posters[i].begin, 0, 0), ==, 0);
        REQUIRE(sem_init(&posters[i].end, 0, 0), ==, 0);
        REQUIRE(pthread_create(&posters[i].thread, NULL, be_a_poster, &posters[i]), ==, 0);
    }
    for (uint64_t round = 0; round < rounds; round++)
        one_round(round % WAYS);
    no_more_rounds = true;
    for (unsigned i = 0; i < POSTERS; i++)
        sem_post(&posters[i].begin);
    for (unsigned i = 0; i < POSTERS; i++)
        pthread_join(posters[i].thread, NULL);
    printf("%" PRIu64 " loops: %" PRIu64 " posts ran, %" PRIu64 " were closed away, %" PRIu64 " refused: %.1f s\n",
           rounds, total_ran, total_dropped, total_refused, (double)(monotonic() - begin) / 1e9);
    CHECK(total_ran, >, 0);
    CHECK(total_dropped, >, 0);
    CHECK(total_refused, >, 0);
}

static const struct check_test tests[] = {
    TEST(s23_whatever_the_moment_of_closing_each_post_ends_once),
};

CHECK_MAIN(tests)
