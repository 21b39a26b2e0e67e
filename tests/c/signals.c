/* S21: signals that interrupt a wait. loop_add_signal_handler(): S14, S19, S21, S33, and ownership of the disposition. */
#include "check.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static int came[64], times;

static void note(loop_t *loop, int signum, void *arg)
{
    (void)loop;
    CHECK(signum, ==, SIGUSR1);
    came[times++] = *(int *)arg;
}

static int numbers[] = {0, 1, 2, 3};

static loop_handle_t handle_usr1(loop_t *loop, int *number)
{
    loop_handle_t handle = loop_add_signal_handler(loop, SIGUSR1, note, number);

    REQUIRE(handle, >, 0);
    return handle;
}

static struct sigaction action_of(int signum)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    REQUIRE(sigaction(signum, NULL, &action), ==, 0);
    return action;
}

/* ---- order ---- */

static void all_handlers_of_all_loops_run_the_oldest_first(void)
{
    loop_t *loop = new_loop(), *other = new_loop();

    times = 0;
    handle_usr1(loop, &numbers[1]);
    handle_usr1(other, &numbers[3]);
    handle_usr1(loop, &numbers[2]);
    raise(SIGUSR1);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 2);
    CHECK(loop_run_once(other, LOOP_NEVER), ==, 1);
    CHECK(times, ==, 3);
    for (int i = 0; i < 3; i++) CHECK(came[i], ==, i + 1);
    /* Signals that arrive before the callback has run count as one. */
    times = 0;
    for (int i = 0; i < 5; i++) raise(SIGUSR1);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 2);
    CHECK(loop_run_once(loop, 0), ==, 0);
    CHECK(times, ==, 2);
    /* Signals also count as one while the callback is in the ready queue, where a call of loop_call_soon() puts it. */
    times = 0;
    for (int i = 0; i < 3; i++) {
        raise(SIGUSR1);
        REQUIRE(loop_call_soon(loop, do_nothing, NULL), >, 0);
    }
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 5);
    CHECK(times, ==, 2);
    close_loop(loop);
    close_loop(other);
}

/* ---- S11 ---- */

static void cancel_itself(loop_t *loop, int signum, void *arg)
{
    CHECK_TRUE(loop_is_pending(loop, loop_current(loop)));
    CHECK(loop_cancel(loop, loop_current(loop)), ==, 0);
    CHECK_TRUE(action_of(signum).sa_handler == SIG_DFL);
    *(int *)arg += 1;
}

static int released;

static void release(void *arg)
{
    CHECK(*(int *)arg, ==, 1);
    released++;
}

static void s14_a_handler_that_cancels_itself_is_released_after_it_has_returned(void)
{
    loop_t *loop = new_loop();
    int calls = 0;
    loop_handle_t handle = loop_add_signal_handler(loop, SIGUSR1, cancel_itself, &calls);

    released = 0;
    REQUIRE(loop_on_release(loop, handle, release), ==, 0);
    raise(SIGUSR1);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(released, ==, 1);
    CHECK(calls, ==, 1);
    close_loop(loop);
}

/* ---- S19 ---- */

static void s19_a_handler_keeps_no_run_alive(void)
{
    loop_t *loop = new_loop();
    loop_handle_t handle = handle_usr1(loop, &numbers[1]);

    times = 0;
    CHECK_TRUE(!loop_has_ref(loop, handle));
    CHECK(loop_ref(loop, handle), ==, -EINVAL);
    CHECK(loop_reschedule(loop, handle, 1), ==, -EINVAL);
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(times, ==, 0);
    /* A signal that has arrived is work. */
    raise(SIGUSR1);
    CHECK_TRUE(loop_is_alive(loop));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(times, ==, 1);
    close_loop(loop);
}

/* ---- S21 ---- */

static atomic_bool stop_sending;

static void *send_usr1(void *arg)
{
    /* Signals go to the thread, and to the process as from kill(1). */
    while (!stop_sending) {
        pthread_kill(*(pthread_t *)arg, SIGUSR1);
        kill(getpid(), SIGUSR1);
        sched_yield();
    }
    return NULL;
}

static void s21_a_signal_brings_its_callback_and_not_eintr(void)
{
    loop_t *loop = new_loop();
    pthread_t self = pthread_self(), sender;
    int number = 1;

    times = 0;
    stop_sending = false;
    handle_usr1(loop, &number);
    REQUIRE(pthread_create(&sender, NULL, send_usr1, &self), ==, 0);
    while (times < 60) CHECK(loop_run_once(loop, LOOP_NEVER), >=, 0);
    stop_sending = true;
    pthread_join(sender, NULL);
    close_loop(loop);
}

static void *raise_there(void *arg)
{
    (void)arg;
    raise(SIGUSR1);
    return NULL;
}

static void a_signal_on_another_thread_wakes_the_loop(void)
{
    loop_t *loop = new_loop();
    pthread_t other;

    times = 0;
    handle_usr1(loop, &numbers[1]);
    for (int i = 1; i <= 50; i++) {
        REQUIRE(pthread_create(&other, NULL, raise_there, NULL), ==, 0);
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
        CHECK(times, ==, i);
        pthread_join(other, NULL);
    }
    close_loop(loop);
}

/* ---- a signal that the program handles itself ---- */

static atomic_uint signals;

static void count_signal(int signum)
{
    (void)signum;
    signals++;
}

static atomic_bool storm_is_over;

static void *send_storm(void *arg)
{
    while (!storm_is_over)
        pthread_kill(*(const pthread_t *)arg, SIGUSR1);
    return NULL;
}

static void begin_storm(pthread_t *sender, pthread_t *target, int flags)
{
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = flags};

    *target = pthread_self();
    signals = 0;
    storm_is_over = false;
    REQUIRE(sigaction(SIGUSR1, &action, NULL), ==, 0);
    REQUIRE(pthread_create(sender, NULL, send_storm, target), ==, 0);
}

static void end_storm(pthread_t sender)
{
    storm_is_over = true;
    pthread_join(sender, NULL);
    signal(SIGUSR1, SIG_DFL);
}

static uint64_t end;

static void note_end(loop_t *loop, void *arg)
{
    CHECK(loop_time(loop), >=, end);
    ++*(int *)arg;
}

/* A timer, run by loop_run() or loop_run_once(), is neither early nor lost, and the run does not return before it. */
static unsigned sleep_in_the_storm(loop_t *loop, bool once)
{
    unsigned interrupted = 0;
    int came = 0, result;

    end = loop_time(loop) + LOOP_MSEC(2);
    CHECK(loop_call_at(loop, end, note_end, &came), >, 0);
    if (once) {
        while ((result = loop_run_once(loop, LOOP_SEC(1000))) == -EINTR)
            interrupted++;
        CHECK(result, ==, 1);
    } else {
        CHECK(loop_run(loop), ==, LOOP_DONE);
    }
    CHECK(came, ==, 1);
    /* A lost timer would run at the limit at the earliest. */
    CHECK(loop_time(loop), <, end + LOOP_SEC(60));
    return interrupted;
}

static void s21_a_storm_of_signals_makes_no_timer_early_and_loses_none(void)
{
    for (int round = 0; round < 4; round++) {
        unsigned interrupted = 0;
        pthread_t self, sender;
        loop_t *loop = new_loop();

        begin_storm(&sender, &self, round % 2 ? SA_RESTART : 0);
        /* On a slow machine the first 3,000 signals may all arrive between two waits. */
        while (signals < 3000 || interrupted < (unsigned)round / 2)
            interrupted += sleep_in_the_storm(loop, round / 2);
        end_storm(sender);
        CHECK(interrupted > 0, ==, round / 2);
        CHECK_TRUE(!loop_is_alive(loop));
        close_loop(loop);
    }
}

/* ---- ownership of the disposition ---- */

static atomic_int own_calls;

static void own_handler(int signum)
{
    CHECK(signum, ==, SIGUSR1);
    own_calls++;
}

static void own_info_handler(int signum, siginfo_t *info, void *context)
{
    CHECK(signum, ==, SIGUSR1);
    CHECK(info->si_signo, ==, SIGUSR1);
    CHECK_TRUE(context != NULL);
    own_calls++;
}

static void the_former_disposition_is_back_when_the_last_handler_has_gone(void)
{
    struct sigaction mine, back;
    loop_t *loop = new_loop(), *other = new_loop();
    loop_handle_t first, last;

    memset(&mine, 0, sizeof mine);
    mine.sa_handler = own_handler;
    mine.sa_flags = SA_RESTART | SA_NODEFER;
    sigemptyset(&mine.sa_mask);
    sigaddset(&mine.sa_mask, SIGHUP);
    sigaddset(&mine.sa_mask, SIGRTMAX);
    REQUIRE(sigaction(SIGUSR1, &mine, NULL), ==, 0);
    for (int round = 0; round < 3; round++) {
        own_calls = times = 0;
        first = handle_usr1(loop, &numbers[1]);
        handle_usr1(other, &numbers[2]);
        last = handle_usr1(loop, &numbers[3]);
        CHECK(loop_cancel(loop, first), ==, 0);
        raise(SIGUSR1);
        CHECK(own_calls, ==, 0);
        CHECK(loop_cancel(loop, last), ==, 0);
        raise(SIGUSR1);
        CHECK(own_calls, ==, 0);
        /* Closing the loop removes the last handler. */
        close_loop(other);
        raise(SIGUSR1);
        CHECK(own_calls, ==, 1);
        back = action_of(SIGUSR1);
        CHECK_TRUE(back.sa_handler == own_handler);
        CHECK(back.sa_flags & (SA_RESTART | SA_NODEFER | SA_SIGINFO), ==, SA_RESTART | SA_NODEFER);
        CHECK(sigismember(&back.sa_mask, SIGHUP), ==, 1);
        CHECK(sigismember(&back.sa_mask, SIGRTMAX), ==, 1);
        CHECK(sigismember(&back.sa_mask, SIGTERM), ==, 0);
        other = new_loop();
    }
    /* A disposition that the program has installed over the loops' handler stays. */
    last = handle_usr1(loop, &numbers[1]);
    signal(SIGUSR1, SIG_IGN);
    CHECK(loop_cancel(loop, last), ==, 0);
    CHECK_TRUE(action_of(SIGUSR1).sa_handler == SIG_IGN);
    signal(SIGUSR1, SIG_DFL);
    close_loop(loop);
    close_loop(other);
}

static struct sigaction before_chain;
static volatile sig_atomic_t chain_calls;

/* As libraries do, this handler also calls the previous one. */
static void chain(int signum, siginfo_t *info, void *context)
{
    chain_calls++;
    if (before_chain.sa_flags & SA_SIGINFO)
        before_chain.sa_sigaction(signum, info, context);
    else if (before_chain.sa_handler != SIG_DFL && before_chain.sa_handler != SIG_IGN)
        before_chain.sa_handler(signum);
}

static void a_handler_that_calls_the_one_before_it_has_an_end(void)
{
    struct sigaction chained = {.sa_sigaction = chain, .sa_flags = SA_SIGINFO};
    loop_t *loop = new_loop();
    loop_handle_t handle = handle_usr1(loop, &numbers[1]);

    times = chain_calls = 0;
    REQUIRE(sigaction(SIGUSR1, &chained, &before_chain), ==, 0);
    raise(SIGUSR1);
    CHECK(chain_calls, ==, 1);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(loop_cancel(loop, handle), ==, 0);
    /* Now the previous handler is the chain, whose own previous handler is the loops'. */
    handle = handle_usr1(loop, &numbers[1]);
    raise(SIGUSR1);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(loop_cancel(loop, handle), ==, 0);
    chain_calls = 0;
    raise(SIGUSR1);
    CHECK(chain_calls, >=, 1);
    CHECK(chain_calls, <=, 2);
    signal(SIGUSR1, SIG_DFL);
    close_loop(loop);
}

static void all_signals_wait_while_the_handler_runs(void)
{
    loop_t *loop = new_loop();
    struct sigaction action;

    handle_usr1(loop, &numbers[1]);
    action = action_of(SIGUSR1);
    for (int signum = 1; signum <= SIGRTMAX; signum++)
        if (signum != SIGKILL && signum != SIGSTOP && (signum < 32 || signum >= SIGRTMIN))
            CHECK(sigismember(&action.sa_mask, signum), ==, 1);
    close_loop(loop);
}

static void no_mask_is_changed(void)
{
    loop_t *loop = new_loop();
    sigset_t before, after;

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    handle_usr1(loop, &numbers[1]);
    raise(SIGUSR1);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    CHECK(sigismember(&before, SIGUSR1), ==, 0);
    CHECK(sigismember(&after, SIGUSR1), ==, 0);
    close_loop(loop);
}

static void what_cannot_be_caught_is_refused(void)
{
    static const int refused[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, 0, -1, 65, 1000, 32, 33};
    loop_t *loop = new_loop();

    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        CHECK(loop_add_signal_handler(loop, refused[i], note, NULL), ==, -EINVAL);
        CHECK_TRUE(strstr(loop_last_error(), "signal") != NULL);
    }
    REQUIRE(loop_shutdown(loop), ==, 0);
    CHECK(loop_add_signal_handler(loop, SIGUSR1, note, NULL), ==, -ESHUTDOWN);
    CHECK_TRUE(action_of(SIGUSR1).sa_handler == SIG_DFL);
    CHECK_TRUE(action_of(SIGSEGV).sa_flags == 0 || action_of(SIGSEGV).sa_handler != SIG_IGN);
    close_loop(loop);
}

static void see_signal(loop_t *loop, const loop_info_t *info, void *arg)
{
    (void)loop;
    CHECK(info->kind, ==, LOOP_KIND_SIGNAL);
    CHECK_POINTER(info->callback_address, note);
    CHECK_POINTER(info->arg, arg);
    CHECK_TRUE(!info->referenced);
    times++;
}

static void walk_shows_a_handler(void)
{
    loop_t *loop = new_loop();

    times = 0;
    handle_usr1(loop, &numbers[1]);
    CHECK(loop_walk(loop, see_signal, &numbers[1]), ==, 0);
    CHECK(times, ==, 1);
    close_loop(loop);
}

/* ---- S33 ---- */

static void raise_in_child(void *arg)
{
    (void)arg;
    raise(SIGUSR1);
}

static int expected_calls;
static struct sigaction expected_action;

static void raise_and_count(void *arg)
{
    struct sigaction now = action_of(SIGUSR1);

    CHECK_TRUE(now.sa_handler == expected_action.sa_handler);
    CHECK(now.sa_flags, ==, expected_action.sa_flags);
    raise(SIGUSR1);
    CHECK(own_calls, ==, expected_calls);
    CHECK(times, ==, 0);
    CHECK(loop_close(arg), ==, 0);
}

static void handle_in_child(void *arg)
{
    loop_t *loop = new_loop();
    loop_handle_t handle = handle_usr1(loop, &numbers[2]);

    raise(SIGUSR1);
    CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(came[0], ==, 2);
    CHECK(own_calls, ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 0);
    raise(SIGUSR1);
    CHECK(own_calls, ==, 1);
    CHECK_TRUE(action_of(SIGUSR1).sa_handler == own_handler);
    close_loop(loop);
    CHECK(loop_close(arg), ==, 0);
    CHECK_TRUE(action_of(SIGUSR1).sa_handler == own_handler);
}

static void s33_in_a_child_the_former_disposition_is_in_force(void)
{
    loop_t *loop = new_loop();
    struct sigaction mine;
    int status;

    times = own_calls = 0;
    handle_usr1(loop, &numbers[1]);
    status = check_fork(raise_in_child, NULL);
    CHECK_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1);
    close_loop(loop);

    for (int info = 0; info < 2; info++) {
        memset(&mine, 0, sizeof mine);
        if (info) {
            mine.sa_sigaction = own_info_handler;
            mine.sa_flags = SA_SIGINFO;
        } else {
            mine.sa_handler = own_handler;
        }
        REQUIRE(sigaction(SIGUSR1, &mine, NULL), ==, 0);
        loop = new_loop();
        expected_action = action_of(SIGUSR1);
        handle_usr1(loop, &numbers[1]);
        expected_calls = 1;
        CHECK_IN_CHILD(raise_and_count, loop);
        if (!info) CHECK_IN_CHILD(handle_in_child, loop);
        /* The parent's handler is unchanged. */
        raise(SIGUSR1);
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
        CHECK(times, ==, 1);
        CHECK(own_calls, ==, 0);
        times = 0;
        close_loop(loop);
    }
    signal(SIGUSR1, SIG_IGN);
    loop = new_loop();
    expected_action = action_of(SIGUSR1);
    handle_usr1(loop, &numbers[1]);
    expected_calls = 0;
    CHECK_IN_CHILD(raise_and_count, loop);
    close_loop(loop);
    CHECK_TRUE(action_of(SIGUSR1).sa_handler == SIG_IGN);
    signal(SIGUSR1, SIG_DFL);
}

/* ---- handlers come and go on several threads while signals come ---- */

static void ignore_signal(loop_t *loop, int signum, void *arg)
{
    (void)loop;
    (void)signum;
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void *come_and_go(void *arg)
{
    for (int round = 0; round < 300; round++) {
        loop_t *loop = new_loop();
        loop_handle_t handles[4];

        for (int i = 0; i < 4; i++) {
            handles[i] = loop_add_signal_handler(loop, i % 2 ? SIGUSR1 : SIGUSR2, ignore_signal, arg);
            REQUIRE(handles[i], >, 0);
        }
        raise(SIGUSR1);
        CHECK(loop_run_once(loop, LOOP_SEC(20)), >=, 1);
        CHECK(loop_cancel(loop, handles[round % 4]), ==, 0);
        raise(SIGUSR2);
        CHECK(loop_run_once(loop, LOOP_SEC(20)), >=, 1);
        close_loop(loop);
    }
    return NULL;
}

static void handlers_come_and_go_in_a_storm(void)
{
    struct sigaction ignored = {.sa_handler = own_handler};
    pthread_t threads[3], sender, self = pthread_self();
    atomic_int calls = 0;

    stop_sending = false;
    REQUIRE(sigaction(SIGUSR1, &ignored, NULL), ==, 0);
    REQUIRE(sigaction(SIGUSR2, &ignored, NULL), ==, 0);
    REQUIRE(pthread_create(&sender, NULL, send_usr1, &self), ==, 0);
    for (int i = 0; i < 3; i++) REQUIRE(pthread_create(&threads[i], NULL, come_and_go, &calls), ==, 0);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    stop_sending = true;
    pthread_join(sender, NULL);
    CHECK(calls, >=, 3 * 300 * 3);
    CHECK_TRUE(action_of(SIGUSR1).sa_handler == own_handler);
    CHECK_TRUE(action_of(SIGUSR2).sa_handler == own_handler);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
}

#define BLOCKS "valgrind blocks signals in io_uring_enter"

static const struct check_test tests[] = {
    TEST(all_handlers_of_all_loops_run_the_oldest_first),
    TEST(s14_a_handler_that_cancels_itself_is_released_after_it_has_returned),
    TEST(s19_a_handler_keeps_no_run_alive),
    TEST_NOT_UNDER("valgrind", s21_a_signal_brings_its_callback_and_not_eintr, BLOCKS),
    TEST_NOT_UNDER("valgrind", a_signal_on_another_thread_wakes_the_loop, BLOCKS),
    TEST_NOT_UNDER("valgrind", s21_a_storm_of_signals_makes_no_timer_early_and_loses_none, BLOCKS),
    TEST(the_former_disposition_is_back_when_the_last_handler_has_gone),
    TEST(a_handler_that_calls_the_one_before_it_has_an_end),
    TEST(all_signals_wait_while_the_handler_runs),
    TEST(no_mask_is_changed),
    TEST(what_cannot_be_caught_is_refused),
    TEST(walk_shows_a_handler),
    TEST(s33_in_a_child_the_former_disposition_is_in_force),
    TEST_NOT_UNDER("valgrind", handlers_come_and_go_in_a_storm, BLOCKS),
};

CHECK_MAIN(tests)
