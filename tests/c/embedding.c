/* S26: loop_fd() and loop_flush(), once, and a host that waits while another thread posts. */
#include "check.h"

#include <pthread.h>
#include <semaphore.h>

static void a_host_is_told_of_what_is_ready(void)
{
    loop_t *loop = new_loop();
    struct pollfd host = {loop_fd(loop), POLLIN, 0};

    REQUIRE(host.fd, >=, 0);
    CHECK(loop_fd(loop), ==, host.fd);
    CHECK(poll(&host, 1, 0), ==, 0);
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_flush(loop), ==, 0);
    CHECK(poll(&host, 1, 0), ==, 1);
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK(poll(&host, 1, 0), ==, 0);
    CHECK(loop_call_later(loop, LOOP_MSEC(5), do_nothing, NULL), >, 0);
    CHECK(loop_flush(loop), ==, 0);
    CHECK(poll(&host, 1, 60000), ==, 1);
    CHECK(loop_run_once(loop, 0), ==, 1);
    close_loop(loop);
}

/* ---- posts while the host waits ---- */

enum { POSTS = 1000 };

static sem_t has_run;
static unsigned posts_run;

static void run_post(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    posts_run++;
    sem_post(&has_run);
}

/* Posts one callback at a time: the host already waits, or is about to wait. */
static void *post_one_by_one(void *remote)
{
    for (int i = 0; i < POSTS; i++) {
        REQUIRE(i % 2 ? loop_remote_call_soon(remote, run_post, NULL, NULL)
                      : loop_remote_call_later(remote, 1000, run_post, NULL, NULL), ==, 0);
        while (sem_wait(&has_run) != 0)
            REQUIRE(errno, ==, EINTR);
    }
    return NULL;
}

static void s26_each_of_many_posts_wakes_the_host(void)
{
    loop_t *loop = new_loop();
    loop_remote_t *remote;
    pthread_t poster;

    posts_run = 0;
    REQUIRE(loop_remote_new(loop, &remote), ==, 0);
    REQUIRE(sem_init(&has_run, 0, 0), ==, 0);
    REQUIRE(pthread_create(&poster, NULL, post_one_by_one, remote), ==, 0);
    while (posts_run < POSTS) {
        struct pollfd host = {loop_fd(loop), POLLIN, 0};

        REQUIRE(host.fd, >=, 0);
        REQUIRE(poll(&host, 1, 20000), ==, 1);
        REQUIRE(loop_run_once(loop, 0), >=, 0);
    }
    pthread_join(poster, NULL);
    loop_remote_release(remote);
    close_loop(loop);
    sem_destroy(&has_run);
}

static const struct check_test tests[] = {
    TEST(a_host_is_told_of_what_is_ready),
    TEST(s26_each_of_many_posts_wakes_the_host),
};

CHECK_MAIN(tests)
