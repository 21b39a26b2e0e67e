/* S25: a loop belongs to one thread. wrong_calls.c checks the answers of every function on another thread. */
#include "io.h"

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

static void in_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, body, arg), ==, 0);
    REQUIRE(pthread_join(thread, NULL), ==, 0);
}

/* ---- adopt ---- */

static void *adopt_and_run(void *arg)
{
    loop_t *loop = arg;

    CHECK(loop_run(loop), ==, -EPERM);
    CHECK(loop_adopt(loop), ==, 0);
    CHECK(loop_call_soon(loop, record, (void *)"b"), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_adopt(loop), ==, -EBUSY);
    return NULL;
}

static void s25_adopt_hands_a_loop_to_the_calling_thread(void)
{
    loop_t *loop = new_loop();

    trace_clear();
    CHECK(loop_call_soon(loop, record, (void *)"a"), >, 0);
    CHECK(loop_call_later(loop, LOOP_MSEC(1), record, (void *)"t"), >, 0);
    in_thread(adopt_and_run, loop);
    CHECK(strlen(trace), ==, 3);
    CHECK(trace[0], ==, 'a');
    /* The worker has exited: no thread may do more than close the loop now. */
    CHECK(loop_call_soon(loop, do_nothing, NULL), ==, -EPERM);
    CHECK(loop_run(loop), ==, -EPERM);
    CHECK(loop_adopt(loop), ==, -EBUSY);
    close_loop(loop);
}

static pthread_barrier_t barrier;

static void *adopt_and_keep(void *arg)
{
    loop_t *loop = arg;

    CHECK(loop_adopt(loop), ==, 0);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_loop(loop);
    return NULL;
}

static void s25_the_former_owner_is_a_stranger(void)
{
    loop_t *loop = new_loop();
    loop_handle_t call = loop_call_soon(loop, do_nothing, NULL);
    pthread_t thread;

    REQUIRE(pthread_barrier_init(&barrier, NULL, 2), ==, 0);
    REQUIRE(pthread_create(&thread, NULL, adopt_and_keep, loop), ==, 0);
    pthread_barrier_wait(&barrier);
    CHECK(loop_call_soon(loop, do_nothing, NULL), ==, -EPERM);
    CHECK(loop_cancel(loop, call), ==, -EPERM);
    CHECK(loop_run(loop), ==, -EPERM);
    CHECK(loop_close(loop), ==, -EPERM);
    pthread_barrier_wait(&barrier);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&barrier);
}

static void *adopt_too_late(void *arg)
{
    CHECK(loop_adopt(arg), ==, -EBUSY);
    CHECK(loop_run_once(arg, 0), ==, -EPERM);
    return NULL;
}

static void s25_after_the_first_run_nobody_adopts(void)
{
    loop_t *loop = new_loop();

    CHECK(loop_run_once(loop, 0), ==, 0);
    in_thread(adopt_too_late, loop);
    CHECK(loop_run_once(loop, 0), ==, 0);
    close_loop(loop);
}

static void adopt_in_callback(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_adopt(loop), ==, -EBUSY);
    in_thread(adopt_too_late, loop);
}

static void s25_nobody_adopts_a_running_loop(void)
{
    loop_t *loop = new_loop();

    CHECK(loop_call_soon(loop, adopt_in_callback, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_loop(loop);
}

static void s25_adopting_ones_own_loop_is_harmless(void)
{
    loop_t *loop = new_loop();

    CHECK(loop_adopt(loop), ==, 0);
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_loop(loop);
}

/* ---- an owner that has exited ---- */

static void *make_and_leave(void *arg)
{
    loop_t **loop = arg;

    *loop = new_loop();
    CHECK(loop_call_soon(*loop, record, (void *)"x"), >, 0);
    CHECK(loop_call_later(*loop, LOOP_SEC(1000), record, (void *)"y"), >, 0);
    return NULL;
}

static void *make_run_and_leave(void *arg)
{
    loop_t **loop = arg;

    make_and_leave(arg);
    CHECK(loop_run_once(*loop, 0), ==, 1);
    return NULL;
}

static int released;

static void count_release(void *arg)
{
    (void)arg;
    released++;
}

static void *make_hooked_run_and_leave(void *arg)
{
    loop_t **loop = arg;

    make_run_and_leave(arg);
    /* The timer is armed in the kernel when the thread exits. */
    CHECK(loop_run_once(*loop, LOOP_MSEC(1)), ==, 0);
    CHECK(loop_on_release(*loop, loop_call_soon(*loop, record, (void *)"z"), count_release), ==, 0);
    return NULL;
}

static void s25_when_the_owner_has_exited_any_thread_may_close(void)
{
    loop_t *loop = NULL;

    trace_clear();
    in_thread(make_and_leave, &loop);
    CHECK(loop_call_soon(loop, do_nothing, NULL), ==, -EPERM);
    close_loop(loop);

    in_thread(make_run_and_leave, &loop);
    CHECK(loop_run(loop), ==, -EPERM);
    close_loop(loop);

    released = 0;
    in_thread(make_hooked_run_and_leave, &loop);
    CHECK(loop_stop(loop), ==, -EPERM);
    CHECK(loop_close_within(loop, LOOP_SEC(100)), ==, 0);
    CHECK(released, ==, 1);
    CHECK_TEXT(trace, "xx");
}

/* A new thread may get the address, the stack and the thread id of the old one, but is a different thread. */
static void *try_to_use(void *arg)
{
    CHECK(loop_call_soon(arg, do_nothing, NULL), ==, -EPERM);
    return NULL;
}

static void s25_a_later_thread_is_not_the_exited_owner(void)
{
    loop_t *loop = NULL;

    in_thread(make_run_and_leave, &loop);
    for (int i = 0; i < 20; i++)
        in_thread(try_to_use, loop);
    close_loop(loop);
}

static void *close_it(void *arg)
{
    close_loop(arg);
    return NULL;
}

static void s25_the_closing_thread_need_not_be_the_main_one(void)
{
    loop_t *loop = NULL;

    in_thread(make_hooked_run_and_leave, &loop);
    in_thread(close_it, loop);
}

/* ---- a main thread that exits by pthread_exit: glibc runs no destructors of thread-locals there ---- */

struct left {
    loop_t *loop;
    sem_t refused; /* the other thread was refused while the owner was running */
    int fds[2];
    char buffer[16];
};

static void never_called(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop;
    (void)result;
    (void)flags;
    (void)arg;
    CHECK_TRUE(!"close runs no callback");
}

static void *close_for_main(void *arg)
{
    struct left *left = arg;
    uint64_t began;
    int closed;

    CHECK(loop_close(left->loop), ==, -EPERM);
    sem_post(&left->refused);
    began = monotonic();
    while ((closed = loop_close_within(left->loop, LOOP_SEC(5))) == -EPERM && monotonic() - began < LOOP_SEC(5))
        usleep(1000);
    CHECK(closed, ==, 0);
    CHECK(released, ==, 2);
    /* No operation of the closed loop receives the data. */
    CHECK(write(left->fds[1], "x", 1), ==, 1);
    CHECK(left->buffer[0], ==, 'a');
    CHECK(read(left->fds[0], left->buffer, 1), ==, 1);
    fflush(NULL);
    _exit(check_failures ? 1 : 0);
}

static void leave_by_pthread_exit(void *arg)
{
    static struct left left;
    loop_handle_t receiving;
    pthread_t thread;

    (void)arg;
    released = 0;
    left.loop = new_loop();
    memset(left.buffer, 'a', sizeof left.buffer);
    REQUIRE(sem_init(&left.refused, 0, 0), ==, 0);
    make_pair(left.fds);
    receiving = loop_recv(left.loop, left.fds[0], left.buffer, sizeof left.buffer, 0, never_called, NULL);
    CHECK(loop_on_release(left.loop, receiving, count_release), ==, 0);
    CHECK(loop_on_release(left.loop, loop_call_later(left.loop, LOOP_SEC(1000), do_nothing, NULL), count_release), ==, 0);
    CHECK(loop_run_once(left.loop, 0), ==, 0);
    REQUIRE(pthread_create(&thread, NULL, close_for_main, &left), ==, 0);
    while (sem_wait(&left.refused) != 0) REQUIRE(errno, ==, EINTR);
    pthread_exit(NULL);
}

static void s25_a_main_thread_that_left_by_pthread_exit_has_exited(void)
{
    CHECK_IN_CHILD(leave_by_pthread_exit, NULL);
}

/* ---- a loop and the threads of its own executor ---- */

struct own_thread {
    loop_t *loop;
    sem_t begun; /* the work has begun; or it has tried to close */
    sem_t left;  /* its owner has exited; or the work is done */
    int adopted, closed, closed_within, ran, done;
};

static void close_own(void *arg)
{
    struct own_thread *own = arg;

    sem_post(&own->begun);
    while (sem_wait(&own->left) != 0) REQUIRE(errno, ==, EINTR);
    own->closed = loop_close(own->loop);
    CHECK_TRUE(strstr(loop_last_error(), "executor"));
    own->closed_within = loop_close_within(own->loop, LOOP_SEC(1));
    /* The failed close has not made the thread the owner. */
    own->ran = loop_run(own->loop);
    sem_post(&own->begun);
    own->done = 1;
}

static void adopt_own(void *arg)
{
    struct own_thread *own = arg;

    own->adopted = loop_adopt(own->loop);
    own->closed = loop_close(own->loop);
    sem_post(&own->left);
}

static void never_done(loop_t *loop, int status, void *arg)
{
    (void)loop;
    (void)status;
    (void)arg;
    CHECK_TRUE(!"close runs no callback");
}

static void *make_with_work_and_leave(void *arg)
{
    struct own_thread *own = arg;

    own->loop = new_loop();
    CHECK(loop_run_in_executor(own->loop, close_own, never_done, own), >, 0);
    CHECK(loop_run_once(own->loop, 0), ==, 0);
    while (sem_wait(&own->begun) != 0) REQUIRE(errno, ==, EINTR);
    return NULL;
}

static void s25_closing_on_a_thread_of_its_own_executor_is_edeadlk(void)
{
    struct own_thread own = {0};

    REQUIRE(sem_init(&own.begun, 0, 0), ==, 0);
    REQUIRE(sem_init(&own.left, 0, 0), ==, 0);
    in_thread(make_with_work_and_leave, &own);
    sem_post(&own.left);
    /* The first thread that closes the loop owns it from then on. */
    while (sem_wait(&own.begun) != 0) REQUIRE(errno, ==, EINTR);
    close_loop(own.loop);
    CHECK(own.done, ==, 1);
    CHECK(own.closed, ==, -EDEADLK);
    CHECK(own.closed_within, ==, -EDEADLK);
    CHECK(own.ran, ==, -EPERM);
}

static void s25_a_thread_of_its_own_executor_cannot_adopt_it(void)
{
    struct own_thread own = {0};

    REQUIRE(sem_init(&own.left, 0, 0), ==, 0);
    own.loop = new_loop();
    CHECK(loop_run_in_executor(own.loop, adopt_own, never_done, &own), >, 0);
    while (sem_wait(&own.left) != 0) REQUIRE(errno, ==, EINTR);
    close_loop(own.loop);
    CHECK(own.adopted, ==, -EDEADLK);
    CHECK(own.closed, ==, -EPERM);
}

struct handed_down {
    loop_t *loop;
    sem_t has_begun, goes_on;
    int done;
};

static void count_done(loop_t *loop, int status, void *arg)
{
    struct handed_down *down = arg;

    (void)loop;
    CHECK(status, ==, 0);
    down->done++;
}

/* Work that waits until it may end. */
static void wait_to_go_on(void *arg)
{
    struct handed_down *down = arg;

    sem_post(&down->has_begun);
    while (sem_wait(&down->goes_on) != 0) REQUIRE(errno, ==, EINTR);
}

static void *make_with_long_work_and_leave(void *arg)
{
    struct handed_down *down = arg;

    down->loop = new_loop();
    CHECK(loop_run_in_executor(down->loop, wait_to_go_on, never_done, down), >, 0);
    CHECK(loop_run_once(down->loop, 0), ==, 0);
    while (sem_wait(&down->has_begun) != 0) REQUIRE(errno, ==, EINTR);
    return NULL;
}

static void *close_in_vain(void *arg)
{
    struct handed_down *down = arg;

    CHECK(loop_close_within(down->loop, LOOP_MSEC(1)), ==, -ETIMEDOUT);
    return NULL;
}

static void *close_that_of_an_heir(void *arg)
{
    struct handed_down *down = arg;

    CHECK(loop_close_within(down->loop, 0), ==, -EPERM);
    return NULL;
}

/* A thread that tries to close a loop whose owner has exited becomes the owner, until this thread exits itself. */
static void s25_a_close_that_gave_up_has_taken_the_loop_over(void)
{
    struct handed_down down = {0};

    REQUIRE(sem_init(&down.has_begun, 0, 0), ==, 0);
    REQUIRE(sem_init(&down.goes_on, 0, 0), ==, 0);
    in_thread(make_with_long_work_and_leave, &down);
    in_thread(close_in_vain, &down);
    CHECK(loop_close_within(down.loop, LOOP_MSEC(1)), ==, -ETIMEDOUT);
    in_thread(close_that_of_an_heir, &down);
    sem_post(&down.goes_on);
    close_loop(down.loop);
    sem_destroy(&down.has_begun);
    sem_destroy(&down.goes_on);
}

/* A thread closes loops in the destructor of thread-specific data, which runs after those of thread-local storage. */
struct leaving {
    pthread_key_t key;
    loop_t *kept[2], *left;
    sem_t has_begun, goes_on;
};

static void close_kept(void *arg)
{
    struct leaving *leaving = arg;

    sem_post(&leaving->has_begun);
    while (sem_wait(&leaving->goes_on) != 0) REQUIRE(errno, ==, EINTR);
    close_loop(leaving->kept[0]);
    close_loop(leaving->kept[1]);
}

static void *leave_with_loops(void *arg)
{
    struct leaving *leaving = arg;
    loop_t **const loops[] = {&leaving->kept[0], &leaving->left, &leaving->kept[1]};

    for (size_t i = 0; i < sizeof loops / sizeof loops[0]; i++) {
        *loops[i] = new_loop();
        CHECK(loop_run_once(*loops[i], 0), ==, 0);
    }
    REQUIRE(pthread_setspecific(leaving->key, leaving), ==, 0);
    return NULL;
}

/* Blocks of all sizes; one of them gets the memory of a freed loop. */
enum { BLOCKS = 1024, UNIT = 16 };
static unsigned char *blocks[BLOCKS];

static void fill_what_is_free(void)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(UNIT * (i + 1));
        REQUIRE(blocks[i] != NULL, ==, true);
        memset(blocks[i], 0xa5, UNIT * (i + 1));
    }
}

static void check_what_is_filled(void)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        for (size_t at = 0; at < UNIT * (i + 1); at++)
            REQUIRE(blocks[i][at], ==, 0xa5);
        free(blocks[i]);
    }
}

static void *make_with_long_work_and_leave_unrun(void *arg)
{
    struct handed_down *down = arg;

    down->loop = new_loop();
    CHECK(loop_run_in_executor(down->loop, wait_to_go_on, count_done, down), >, 0);
    while (sem_wait(&down->has_begun) != 0) REQUIRE(errno, ==, EINTR);
    return NULL;
}

/* While a loop has not run, its new owner may run it; after close, the owner's list does not have the loop. */
static void s25_what_an_heir_runs_and_closes_leaves_nothing_behind(void)
{
    struct handed_down down = {0};
    loop_t *other = new_loop();

    REQUIRE(sem_init(&down.has_begun, 0, 0), ==, 0);
    REQUIRE(sem_init(&down.goes_on, 0, 0), ==, 0);
    in_thread(make_with_long_work_and_leave_unrun, &down);
    CHECK(loop_close_within(down.loop, LOOP_MSEC(1)), ==, -ETIMEDOUT);
    sem_post(&down.goes_on);
    /* Polls without sleeping in the kernel, where valgrind lets no other thread run. */
    while (down.done == 0) {
        CHECK(loop_run_once(down.loop, 0), >=, 0);
        sched_yield();
    }
    CHECK(loop_run(down.loop), ==, LOOP_DONE);
    close_loop(down.loop);
    fill_what_is_free();
    CHECK(loop_run_once(other, 0), ==, 0);
    check_what_is_filled();
    close_loop(other);
    sem_destroy(&down.has_begun);
    sem_destroy(&down.goes_on);
}

static void s25_a_thread_that_exits_leaves_alone_what_others_closed(void)
{
    struct leaving leaving = {0};
    pthread_t thread;

    /* With one arena, all threads share freed memory, if no other arena exists yet. Sanitizers refuse, and do not need it. */
    (void)mallopt(M_ARENA_MAX, 1);
    REQUIRE(pthread_key_create(&leaving.key, close_kept), ==, 0);
    REQUIRE(sem_init(&leaving.has_begun, 0, 0), ==, 0);
    REQUIRE(sem_init(&leaving.goes_on, 0, 0), ==, 0);
    REQUIRE(pthread_create(&thread, NULL, leave_with_loops, &leaving), ==, 0);
    while (sem_wait(&leaving.has_begun) != 0) REQUIRE(errno, ==, EINTR);
    /* The thread counts as exited, so any thread may close the loop that it leaves. */
    close_loop(leaving.left);
    fill_what_is_free();
    sem_post(&leaving.goes_on);
    pthread_join(thread, NULL);
    check_what_is_filled();
    pthread_key_delete(leaving.key);
}

static const struct check_test tests[] = {
    /* This test comes first: see its mallopt(). */
    TEST(s25_a_thread_that_exits_leaves_alone_what_others_closed),
    TEST(s25_adopt_hands_a_loop_to_the_calling_thread),
    TEST(s25_the_former_owner_is_a_stranger),
    TEST(s25_after_the_first_run_nobody_adopts),
    TEST(s25_nobody_adopts_a_running_loop),
    TEST(s25_adopting_ones_own_loop_is_harmless),
    TEST(s25_when_the_owner_has_exited_any_thread_may_close),
    TEST(s25_a_later_thread_is_not_the_exited_owner),
    TEST(s25_the_closing_thread_need_not_be_the_main_one),
    TEST_NOT_UNDER("valgrind TSan", s25_a_main_thread_that_left_by_pthread_exit_has_exited,
                   "it cannot handle a process whose main thread has exited"),
    TEST_NOT_UNDER("valgrind", s25_closing_on_a_thread_of_its_own_executor_is_edeadlk,
                   "a thread in io_uring_enter() lets no other run"),
    TEST(s25_what_an_heir_runs_and_closes_leaves_nothing_behind),
    TEST(s25_a_close_that_gave_up_has_taken_the_loop_over),
    TEST(s25_a_thread_of_its_own_executor_cannot_adopt_it),
};

CHECK_MAIN(tests)
