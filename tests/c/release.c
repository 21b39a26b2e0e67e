/* S14: release hooks run exactly once, whichever way a thing ends, and may call anything. */
#include "check.h"

#include <pthread.h>

static loop_t *the_loop;
static int released, depth, depth_at_release;
static void *released_arg;

static void note_release(void *arg)
{
    released++;
    released_arg = arg;
    depth_at_release = depth;
}

static void expect_released(int times)
{
    CHECK(released, ==, times);
}

static loop_t *begin(void)
{
    released = depth = 0;
    depth_at_release = -1;
    released_arg = NULL;
    trace_clear();
    the_loop = new_virtual_loop(0);
    return the_loop;
}

static loop_handle_t with_release(loop_handle_t handle, loop_release_t release)
{
    CHECK(handle, >, 0);
    CHECK(loop_on_release(the_loop, handle, release), ==, 0);
    return handle;
}

static void not_yet_released(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    depth++;
    expect_released(0);
    depth--;
}

static void s14_after_a_call_has_run(void)
{
    loop_t *loop = begin();
    int arg = 5;

    with_release(loop_call_soon(loop, not_yet_released, &arg), note_release);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    expect_released(1);
    CHECK(depth_at_release, ==, 0);
    CHECK_POINTER(released_arg, &arg);
    close_loop(loop);
    expect_released(1);
}

static void s14_after_a_timer_has_run(void)
{
    loop_t *loop = begin();

    with_release(loop_call_later(loop, 5, not_yet_released, NULL), note_release);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    expect_released(1);
    CHECK(depth_at_release, ==, 0);
    close_loop(loop);
    expect_released(1);
}

static void s14_a_repeating_timer_only_when_it_ends(void)
{
    loop_t *loop = begin();
    loop_handle_t timer = with_release(loop_call_every(loop, 5, not_yet_released, NULL), note_release);

    for (int i = 0; i < 3; i++)
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    expect_released(0);
    CHECK(loop_cancel(loop, timer), ==, 0);
    expect_released(1);
    close_loop(loop);
    expect_released(1);
}

static void s14_at_cancel_before_it_returns(void)
{
    loop_t *loop = begin();

    for (int i = 0; i < 4; i++) {
        loop_handle_t handle = i == 0   ? loop_call_soon(loop, do_nothing, NULL)
                               : i == 1 ? loop_call_later(loop, 5, do_nothing, NULL)
                               : i == 2 ? loop_call_every(loop, 5, do_nothing, NULL)
                                        : loop_add_hook(loop, LOOP_BEFORE_WAIT, do_nothing, NULL);

        with_release(handle, note_release);
        CHECK(loop_cancel(loop, handle), ==, 0);
        expect_released(i + 1);
        CHECK(loop_cancel(loop, handle), ==, -ENOENT);
        expect_released(i + 1);
    }
    close_loop(loop);
    expect_released(4);
}

static void cancel_oneself(loop_t *loop, void *arg)
{
    (void)arg;
    depth++;
    CHECK(loop_cancel(loop, loop_current(loop)), ==, 0);
    expect_released(0);
    depth--;
}

static void s14_not_while_its_callback_is_on_the_stack(void)
{
    loop_t *loop = begin();

    with_release(loop_call_every(loop, 5, cancel_oneself, NULL), note_release);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    expect_released(1);
    CHECK(depth_at_release, ==, 0);
    close_loop(loop);
    expect_released(1);
}

static void s14_a_hook_that_cancels_itself(void)
{
    loop_t *loop = begin();

    with_release(loop_add_hook(loop, LOOP_BEFORE_WAIT, cancel_oneself, NULL), note_release);
    CHECK(loop_run_once(loop, 0), ==, 0);
    expect_released(1);
    CHECK(depth_at_release, ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 0);
    close_loop(loop);
    expect_released(1);
}

static loop_handle_t victim;

static void cancel_victim(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_cancel(loop, victim), ==, 0);
    expect_released(1);
}

static void s14_cancelled_in_the_batch(void)
{
    loop_t *loop = begin();

    CHECK(loop_call_soon(loop, cancel_victim, NULL), >, 0);
    victim = with_release(loop_call_soon(loop, record, (void *)"x"), note_release);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    expect_released(1);
    CHECK_TEXT(trace, "");
    close_loop(loop);
    expect_released(1);
}

static void s14_at_close_without_being_run(void)
{
    loop_t *loop = begin();

    with_release(loop_call_soon(loop, record, (void *)"x"), note_release);
    with_release(loop_call_later(loop, 0, record, (void *)"y"), note_release);
    with_release(loop_call_every(loop, 5, record, (void *)"z"), note_release);
    with_release(loop_call_at(loop, LOOP_NEVER, record, (void *)"n"), note_release);
    with_release(loop_add_hook(loop, LOOP_AFTER_WAIT, record, (void *)"h"), note_release);
    close_loop(loop);
    expect_released(5);
    CHECK_TEXT(trace, "");
}

static void s14_at_shutdown(void)
{
    loop_t *loop = begin();

    with_release(loop_call_soon(loop, record, (void *)"x"), note_release);
    with_release(loop_call_every(loop, 5, record, (void *)"z"), note_release);
    with_release(loop_add_hook(loop, LOOP_AFTER_WAIT, do_nothing, NULL), note_release);
    CHECK(loop_shutdown(loop), ==, 0);
    CHECK_TEXT(trace, "");
    close_loop(loop);
    expect_released(3);
}

static void break_off(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_break(loop), ==, 0);
}

static void s14_what_break_left_in_the_batch_is_released_at_close(void)
{
    loop_t *loop = begin();

    CHECK(loop_call_soon(loop, break_off, NULL), >, 0);
    with_release(loop_call_soon(loop, record, (void *)"x"), note_release);
    CHECK(loop_run(loop), ==, LOOP_BROKEN);
    expect_released(0);
    close_loop(loop);
    expect_released(1);
    CHECK_TEXT(trace, "");
}

static void note_other_release(void *arg)
{
    (void)arg;
    released += 100;
}

static void s14_a_second_hook_replaces_the_first(void)
{
    loop_t *loop = begin();
    loop_handle_t timer = with_release(loop_call_later(loop, 5, do_nothing, NULL), note_release);

    CHECK(loop_on_release(loop, timer, note_other_release), ==, 0);
    CHECK(loop_cancel(loop, timer), ==, 0);
    expect_released(100);
    close_loop(loop);
}

static void s14_null_removes_the_hook(void)
{
    loop_t *loop = begin();
    loop_handle_t timer = with_release(loop_call_later(loop, 5, do_nothing, NULL), note_release);

    CHECK(loop_on_release(loop, timer, NULL), ==, 0);
    CHECK(loop_cancel(loop, timer), ==, 0);
    close_loop(loop);
    expect_released(0);
}

static void free_and_count(void *arg)
{
    free(arg);
    released++;
}

/* The usual use: the argument is on the heap, and whoever ends the timer need not know. */
static void s14_the_hook_may_free_the_argument(void)
{
    loop_t *loop = begin();

    for (int i = 0; i < 300; i++) {
        loop_handle_t handle = loop_call_later(loop, (uint64_t)i % 7, do_nothing, malloc(16));

        with_release(handle, free_and_count);
        if (i % 3 == 0)
            CHECK(loop_cancel(loop, handle), ==, 0);
    }
    CHECK(released, ==, 100);
    CHECK(loop_run_once(loop, 3), >, 0);
    CHECK(released, >, 100);
    close_loop(loop);
    CHECK(released, ==, 300);
}

/* ---- every function from within a hook ---- */

static loop_handle_t pending_timer, own_handle;

static void call_everything_open(void *arg)
{
    loop_t *loop = the_loop;
    loop_metrics_t metrics;
    loop_handle_t handle;
    uint64_t when = 0;

    (void)arg;
    released++;
    CHECK_TRUE(!loop_is_pending(loop, own_handle));
    CHECK(loop_cancel(loop, own_handle), ==, -ENOENT);
    CHECK(loop_on_release(loop, own_handle, note_release), ==, -ENOENT);

    handle = loop_call_soon(loop, record, (void *)"s");
    CHECK(handle, >, 0);
    CHECK(loop_on_release(loop, handle, note_release), ==, 0);
    CHECK(loop_call_later(loop, 1, record, (void *)"l"), >, 0);
    CHECK(loop_call_at(loop, 2, record, (void *)"t"), >, 0);
    handle = loop_call_every(loop, 3, record, (void *)"e");
    CHECK(handle, >, 0);
    CHECK(loop_unref(loop, handle), ==, 0);
    CHECK(loop_ref(loop, handle), ==, 0);
    CHECK_TRUE(loop_has_ref(loop, handle));
    CHECK(loop_cancel(loop, handle), ==, 0);
    handle = loop_add_hook(loop, LOOP_BEFORE_WAIT, do_nothing, NULL);
    CHECK(handle, >, 0);
    CHECK(loop_cancel(loop, handle), ==, 0);
    CHECK(loop_reschedule(loop, pending_timer, 2000), ==, 0);
    CHECK(loop_when(loop, pending_timer, &when), ==, 0);
    CHECK(when, ==, 2000);
    CHECK(loop_skipped(loop, pending_timer, &when), ==, 0);
    CHECK_TRUE(loop_is_pending(loop, pending_timer));
    CHECK_TRUE(loop_is_alive(loop));
    CHECK(loop_next_deadline(loop), <=, 2000);
    CHECK(loop_time(loop), <, 100);
    metrics.size = sizeof metrics;
    CHECK(loop_metrics(loop, &metrics), ==, 0);
    CHECK(loop_set_slow_callback(loop, 0, NULL, NULL), ==, 0);
    CHECK(loop_flush(loop), ==, 0);
    loop_set_data(loop, loop);
    CHECK_POINTER(loop_data(loop), loop);
    CHECK(loop_close(loop), ==, -EBUSY);
    CHECK(loop_close_within(loop, 5), ==, -EBUSY);
    CHECK(loop_shutdown(loop), ==, -EBUSY);
    if (loop_is_running(loop)) {
        CHECK(loop_run(loop), ==, -EBUSY);
        CHECK(loop_run_forever(loop), ==, -EBUSY);
        CHECK(loop_run_once(loop, 0), ==, -EBUSY);
    }
}

static void finish_everything(void)
{
    CHECK(loop_cancel(the_loop, pending_timer), ==, 0);
    CHECK(loop_run(the_loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "slt");
    expect_released(2);
    close_loop(the_loop);
    expect_released(2);
}

static void s14_everything_is_allowed_after_a_run(void)
{
    loop_t *loop = begin();

    pending_timer = loop_call_at(loop, 1000, do_nothing, NULL);
    own_handle = with_release(loop_call_soon(loop, do_nothing, NULL), call_everything_open);
    CHECK(loop_run_once(loop, 0), ==, 1);
    finish_everything();
}

static void s14_everything_is_allowed_at_cancel(void)
{
    loop_t *loop = begin();

    pending_timer = loop_call_at(loop, 1000, do_nothing, NULL);
    own_handle = with_release(loop_call_soon(loop, do_nothing, NULL), call_everything_open);
    CHECK(loop_cancel(loop, own_handle), ==, 0);
    finish_everything();
}

static void cancel_own_handle(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_cancel(loop, own_handle), ==, 0);
}

static void s14_everything_is_allowed_at_cancel_in_a_callback(void)
{
    loop_t *loop = begin();

    pending_timer = loop_call_at(loop, 1000, do_nothing, NULL);
    CHECK(loop_call_soon(loop, cancel_own_handle, NULL), >, 0);
    own_handle = with_release(loop_call_every(loop, 50, do_nothing, NULL), call_everything_open);
    CHECK(loop_run_once(loop, 0), ==, 1);
    finish_everything();
}

static void s14_everything_is_allowed_after_a_repeating_timer_cancels_itself(void)
{
    loop_t *loop = begin();

    pending_timer = loop_call_at(loop, 1000, do_nothing, NULL);
    own_handle = with_release(loop_call_every(loop, 50, cancel_own_handle, NULL), call_everything_open);
    CHECK(loop_reschedule(loop, own_handle, 0), ==, 0);
    CHECK(loop_run_once(loop, 0), ==, 1);
    finish_everything();
}

static void never_called(loop_t *loop, const loop_info_t *info, void *arg)
{
    (void)loop;
    (void)info;
    (void)arg;
    CHECK_TRUE(!"a walk during close");
}

static void call_everything_closing(void *arg)
{
    loop_t *loop = the_loop;
    loop_metrics_t metrics;
    uint64_t untouched = 4711;

    (void)arg;
    released++;
    CHECK(loop_call_soon(loop, record, (void *)"s"), ==, -ESHUTDOWN);
    CHECK(loop_call_later(loop, 1, record, (void *)"l"), ==, -ESHUTDOWN);
    CHECK(loop_call_at(loop, 1, record, (void *)"t"), ==, -ESHUTDOWN);
    CHECK(loop_call_every(loop, 1, record, (void *)"e"), ==, -ESHUTDOWN);
    CHECK(loop_add_hook(loop, LOOP_BEFORE_WAIT, record, (void *)"h"), ==, -ESHUTDOWN);
    CHECK(loop_run(loop), ==, -ESHUTDOWN);
    CHECK(loop_run_forever(loop), ==, -ESHUTDOWN);
    CHECK(loop_run_once(loop, 0), ==, -ESHUTDOWN);
    CHECK(loop_stop(loop), ==, -ESHUTDOWN);
    CHECK(loop_break(loop), ==, -ESHUTDOWN);
    CHECK(loop_adopt(loop), ==, -ESHUTDOWN);
    CHECK(loop_close(loop), ==, -ESHUTDOWN);
    CHECK(loop_close_within(loop, 5), ==, -ESHUTDOWN);
    CHECK(loop_shutdown(loop), ==, -ESHUTDOWN);
    CHECK(loop_cancel(loop, pending_timer), ==, -ESHUTDOWN);
    CHECK(loop_reschedule(loop, pending_timer, 5), ==, -ESHUTDOWN);
    CHECK(loop_when(loop, pending_timer, &untouched), ==, -ESHUTDOWN);
    CHECK(loop_skipped(loop, pending_timer, &untouched), ==, -ESHUTDOWN);
    CHECK(untouched, ==, 4711);
    CHECK(loop_ref(loop, pending_timer), ==, -ESHUTDOWN);
    CHECK(loop_unref(loop, pending_timer), ==, -ESHUTDOWN);
    CHECK(loop_on_release(loop, pending_timer, note_release), ==, -ESHUTDOWN);
    CHECK(loop_set_slow_callback(loop, 0, NULL, NULL), ==, -ESHUTDOWN);
    CHECK(loop_fd(loop), ==, -ESHUTDOWN);
    CHECK(loop_flush(loop), ==, -ESHUTDOWN);
    metrics.size = sizeof metrics;
    CHECK(loop_metrics(loop, &metrics), ==, -ESHUTDOWN);
    CHECK(loop_walk(loop, never_called, NULL), ==, -ESHUTDOWN);
    CHECK_TRUE(!loop_is_running(loop));
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK_TRUE(!loop_is_pending(loop, pending_timer));
    CHECK_TRUE(!loop_has_ref(loop, pending_timer));
    CHECK(loop_time(loop), <, 100);
    CHECK_POINTER(loop_data(loop), &released);
}

static void s14_during_close_every_function_says_eshutdown(void)
{
    loop_t *loop = begin();

    loop_set_data(loop, &released);
    with_release(loop_call_soon(loop, record, (void *)"x"), call_everything_closing);
    pending_timer = with_release(loop_call_at(loop, 5, record, (void *)"y"), call_everything_closing);
    with_release(loop_call_every(loop, 5, record, (void *)"z"), call_everything_closing);
    with_release(loop_add_hook(loop, LOOP_AFTER_WAIT, record, (void *)"h"), call_everything_closing);
    close_loop(loop);
    expect_released(4);
    CHECK_TEXT(trace, "");
}

/* ---- release hooks that end each other ---- */

static loop_handle_t chain[64];
static size_t chained;

static void cancel_next(void *arg)
{
    released++;
    (void)arg;
    if (chained < 64)
        CHECK(loop_cancel(the_loop, chain[chained++]), ==, 0);
}

static void s14_a_hook_may_cancel_others(void)
{
    loop_t *loop = begin();

    chained = 1;
    for (int i = 0; i < 64; i++)
        chain[i] = with_release(i % 2 ? loop_call_soon(loop, record, (void *)"x") : loop_call_at(loop, 5, record, (void *)"y"),
                                cancel_next);
    CHECK(loop_cancel(loop, chain[0]), ==, 0);
    expect_released(64);
    CHECK_TRUE(!loop_is_alive(loop));
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK_TEXT(trace, "");
    close_loop(loop);
}

static void reschedule_itself(void *arg)
{
    loop_handle_t handle;

    released++;
    handle = loop_call_soon(the_loop, do_nothing, arg);
    if (handle > 0)
        CHECK(loop_on_release(the_loop, handle, reschedule_itself), ==, 0);
    else
        CHECK(handle, ==, -ESHUTDOWN);
}

/* Without an end of its own, close must still come to an end. */
static void s14_close_ends_though_every_hook_schedules_anew(void)
{
    loop_t *loop = begin();

    with_release(loop_call_soon(loop, do_nothing, NULL), reschedule_itself);
    for (int i = 0; i < 10; i++)
        CHECK(loop_run_once(loop, 0), ==, 1);
    expect_released(10);
    close_loop(loop);
    expect_released(11);
}

static void s14_shutdown_ends_though_every_hook_schedules_anew(void)
{
    loop_t *loop = begin();

    with_release(loop_call_soon(loop, do_nothing, NULL), reschedule_itself);
    CHECK(loop_shutdown(loop), ==, 0);
    expect_released(1);
    close_loop(loop);
    expect_released(1);
}

enum { LINKS = 100000, NESTED = 16 };

struct link {
    struct link *next;
    loop_handle_t timer;
};

/* Inside of sixteen hooks the next one waits until the sixteenth returns. */
static void cancel_the_next(void *arg)
{
    struct link *link = arg, *next = link->next;
    int before = ++released;

    if (!next) return;
    depth++;
    CHECK(loop_cancel(the_loop, next->timer), ==, 0);
    CHECK(loop_cancel(the_loop, next->timer), ==, -ENOENT);
    CHECK(released, ==, depth < NESTED ? LINKS : before);
    depth--;
}

static void *run_the_chain(void *arg)
{
    loop_t *loop = begin();
    struct link *links = calloc(LINKS, sizeof *links);

    (void)arg;
    REQUIRE(links != NULL, ==, true);
    for (int i = 0; i < LINKS; i++) {
        links[i].next = i + 1 < LINKS ? &links[i + 1] : NULL;
        links[i].timer = with_release(loop_call_at(loop, LOOP_NEVER, do_nothing, &links[i]), cancel_the_next);
    }
    CHECK(loop_cancel(loop, links[0].timer), ==, 0);
    expect_released(LINKS);
    CHECK(loop_is_alive(loop), ==, false);
    close_loop(loop);
    expect_released(LINKS);
    free(links);
    return NULL;
}

static void s14_a_chain_of_hooks_takes_no_stack(void)
{
    pthread_attr_t small;
    pthread_t thread;

    REQUIRE(pthread_attr_init(&small), ==, 0);
    REQUIRE(pthread_attr_setstacksize(&small, 256 << 10), ==, 0);
    REQUIRE(pthread_create(&thread, &small, run_the_chain, NULL), ==, 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&small);
}

static const struct check_test tests[] = {
    TEST(s14_after_a_call_has_run),
    TEST(s14_after_a_timer_has_run),
    TEST(s14_a_repeating_timer_only_when_it_ends),
    TEST(s14_at_cancel_before_it_returns),
    TEST(s14_not_while_its_callback_is_on_the_stack),
    TEST(s14_a_hook_that_cancels_itself),
    TEST(s14_cancelled_in_the_batch),
    TEST(s14_at_close_without_being_run),
    TEST(s14_at_shutdown),
    TEST(s14_what_break_left_in_the_batch_is_released_at_close),
    TEST(s14_a_second_hook_replaces_the_first),
    TEST(s14_null_removes_the_hook),
    TEST(s14_the_hook_may_free_the_argument),
    TEST(s14_everything_is_allowed_after_a_run),
    TEST(s14_everything_is_allowed_at_cancel),
    TEST(s14_everything_is_allowed_at_cancel_in_a_callback),
    TEST(s14_everything_is_allowed_after_a_repeating_timer_cancels_itself),
    TEST(s14_during_close_every_function_says_eshutdown),
    TEST(s14_a_hook_may_cancel_others),
    TEST(s14_close_ends_though_every_hook_schedules_anew),
    TEST(s14_shutdown_ends_though_every_hook_schedules_anew),
    TEST(s14_a_chain_of_hooks_takes_no_stack),
};

CHECK_MAIN(tests)
