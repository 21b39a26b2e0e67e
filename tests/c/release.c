/* S14: a release hook in C gets the argument exactly once, in whichever way a thing ends, and may call any function. */
#include "check.h"

static loop_t *the_loop;
static int released, depth, depth_at_release;
static void *released_arg;

static void note_release(void *arg)
{
    released++;
    released_arg = arg;
    depth_at_release = depth;
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
    CHECK(released, ==, 0);
    depth--;
}

static void s14_after_the_last_run(void)
{
    loop_t *loop;
    loop_handle_t timer;
    int arg;

    for (int i = 0; i < 2; i++) {
        loop = begin();
        with_release(i == 0 ? loop_call_soon(loop, not_yet_released, &arg) : loop_call_later(loop, 5, not_yet_released, &arg),
                     note_release);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(released, ==, 1);
        CHECK(depth_at_release, ==, 0);
        CHECK_POINTER(released_arg, &arg);
        close_loop(loop);
        CHECK(released, ==, 1);
    }
    loop = begin();
    timer = with_release(loop_call_every(loop, 5, not_yet_released, NULL), note_release);
    for (int i = 0; i < 3; i++)
        CHECK(loop_run_once(loop, LOOP_NEVER), ==, 1);
    CHECK(released, ==, 0);
    CHECK(loop_cancel(loop, timer), ==, 0);
    CHECK(released, ==, 1);
    close_loop(loop);
    CHECK(released, ==, 1);
}

/* Schedules one of each kind: a call, timers, a repeating timer, a hook. */
static loop_handle_t schedule(loop_t *loop, int kind)
{
    switch (kind) {
    case 0:
        return loop_call_soon(loop, record, (void *)"c");
    case 1:
        return loop_call_later(loop, 0, record, (void *)"l");
    case 2:
        return loop_call_at(loop, LOOP_NEVER, record, (void *)"n");
    case 3:
        return loop_call_every(loop, 5, record, (void *)"e");
    default:
        return loop_add_hook(loop, LOOP_AFTER_WAIT, do_nothing, (void *)"h");
    }
}

enum { KINDS = 5 };

static void s14_at_cancel_before_it_returns(void)
{
    loop_t *loop = begin();

    for (int kind = 0; kind < KINDS; kind++) {
        loop_handle_t handle = with_release(schedule(loop, kind), note_release);

        CHECK(loop_cancel(loop, handle), ==, 0);
        CHECK(released, ==, kind + 1);
        CHECK(*(const char *)released_arg, ==, "clneh"[kind]);
        CHECK(loop_cancel(loop, handle), ==, -ENOENT);
        CHECK(released, ==, kind + 1);
    }
    close_loop(loop);
    CHECK(released, ==, KINDS);
    CHECK_TEXT(trace, "");
}

static void s14_at_shutdown_and_close_without_being_run(void)
{
    for (int shuts_down = 0; shuts_down < 2; shuts_down++) {
        loop_t *loop = begin();

        for (int kind = 0; kind < KINDS; kind++)
            with_release(schedule(loop, kind), note_release);
        if (shuts_down) {
            CHECK(loop_shutdown(loop), ==, 0);
            CHECK(released, ==, KINDS);
        }
        close_loop(loop);
        CHECK(released, ==, KINDS);
        CHECK_TEXT(trace, "");
    }
}

static void cancel_oneself(loop_t *loop, void *arg)
{
    (void)arg;
    depth++;
    CHECK(loop_cancel(loop, loop_current(loop)), ==, 0);
    CHECK(released, ==, 0);
    depth--;
}

static void s14_not_while_its_callback_is_on_the_stack(void)
{
    for (int i = 0; i < 2; i++) {
        loop_t *loop = begin();

        with_release(i == 0 ? loop_call_every(loop, 5, cancel_oneself, NULL)
                            : loop_add_hook(loop, LOOP_BEFORE_WAIT, cancel_oneself, NULL),
                     note_release);
        CHECK(loop_run_once(loop, 5), ==, i == 0);
        CHECK(released, ==, 1);
        CHECK(depth_at_release, ==, 0);
        close_loop(loop);
        CHECK(released, ==, 1);
    }
}

static loop_handle_t victim;

static void cancel_victim_and_break(loop_t *loop, void *arg)
{
    (void)arg;
    CHECK(loop_cancel(loop, victim), ==, 0);
    CHECK(released, ==, 1);
    CHECK(loop_break(loop), ==, 0);
}

static void s14_in_the_batch_and_what_break_left_of_it(void)
{
    loop_t *loop = begin();

    CHECK(loop_call_soon(loop, cancel_victim_and_break, NULL), >, 0);
    victim = with_release(loop_call_soon(loop, record, (void *)"x"), note_release);
    with_release(loop_call_soon(loop, record, (void *)"y"), note_release);
    CHECK(loop_run(loop), ==, LOOP_BROKEN);
    CHECK(released, ==, 1);
    close_loop(loop);
    CHECK(released, ==, 2);
    CHECK_TEXT(trace, "");
}

static void note_other_release(void *arg)
{
    (void)arg;
    released += 100;
}

static void s14_a_second_hook_replaces_the_first_and_null_removes_it(void)
{
    loop_t *loop = begin();

    for (int i = 0; i < 2; i++) {
        loop_handle_t timer = with_release(loop_call_later(loop, 5, do_nothing, NULL), note_release);

        CHECK(loop_on_release(loop, timer, i == 0 ? note_other_release : NULL), ==, 0);
        CHECK(loop_cancel(loop, timer), ==, 0);
        CHECK(released, ==, 100);
    }
    close_loop(loop);
    CHECK(released, ==, 100);
}

static void free_and_count(void *arg)
{
    free(arg);
    released++;
}

/* The usual use: the argument is on the heap, and code that ends the timer need not know the argument. */
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

static loop_handle_t pending_timer, own_handle;

static void call_everything(void *arg)
{
    loop_t *loop = the_loop;
    loop_handle_t handle;
    uint64_t when = 0;

    (void)arg;
    released++;
    CHECK_TRUE(!loop_is_pending(loop, own_handle));
    CHECK(loop_on_release(loop, own_handle, note_release), ==, -ENOENT);
    with_release(loop_call_soon(loop, record, (void *)"s"), note_release);
    CHECK(loop_call_later(loop, 1, record, (void *)"l"), >, 0);
    handle = loop_call_every(loop, 3, record, (void *)"e");
    CHECK(loop_unref(loop, handle), ==, 0);
    CHECK(loop_ref(loop, handle), ==, 0);
    CHECK(loop_cancel(loop, handle), ==, 0);
    CHECK(loop_reschedule(loop, pending_timer, 2000), ==, 0);
    CHECK(loop_when(loop, pending_timer, &when), ==, 0);
    CHECK(when, ==, 2000);
    CHECK_TRUE(loop_is_alive(loop));
    CHECK(loop_next_deadline(loop), <=, 2000);
    CHECK(metrics_of(loop).callbacks, <=, 1);
    CHECK(loop_set_slow_callback(loop, 0, NULL, NULL), ==, 0);
    CHECK(loop_flush(loop), ==, 0);
    loop_set_data(loop, loop);
    CHECK_POINTER(loop_data(loop), loop);
    CHECK(loop_close(loop), ==, -EBUSY);
    CHECK(loop_close_within(loop, 5), ==, -EBUSY);
    CHECK(loop_shutdown(loop), ==, -EBUSY);
}

static void s14_the_hook_may_call_everything(void)
{
    for (int runs = 0; runs < 2; runs++) {
        loop_t *loop = begin();

        pending_timer = loop_call_at(loop, 1000, do_nothing, NULL);
        own_handle = with_release(loop_call_soon(loop, do_nothing, NULL), call_everything);
        if (runs)
            CHECK(loop_run_once(loop, 0), ==, 1);
        else
            CHECK(loop_cancel(loop, own_handle), ==, 0);
        CHECK(loop_cancel(loop, pending_timer), ==, 0);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK_TEXT(trace, "sl");
        close_loop(loop);
        CHECK(released, ==, 2);
    }
}

static void reschedule_itself(void *arg)
{
    loop_handle_t handle = loop_call_soon(the_loop, do_nothing, arg);

    released++;
    if (handle > 0)
        CHECK(loop_on_release(the_loop, handle, reschedule_itself), ==, 0);
    else
        CHECK(handle, ==, -ESHUTDOWN);
}

/* The hooks schedule without end, but close must return. */
static void s14_close_and_shutdown_end_though_every_hook_schedules_anew(void)
{
    for (int shuts_down = 0; shuts_down < 2; shuts_down++) {
        loop_t *loop = begin();

        with_release(loop_call_soon(loop, do_nothing, NULL), reschedule_itself);
        for (int i = 0; i < 10; i++)
            CHECK(loop_run_once(loop, 0), ==, 1);
        CHECK(released, ==, 10);
        if (shuts_down)
            CHECK(loop_shutdown(loop), ==, 0);
        close_loop(loop);
        CHECK(released, ==, 11);
    }
}

static const struct check_test tests[] = {
    TEST(s14_after_the_last_run),
    TEST(s14_at_cancel_before_it_returns),
    TEST(s14_at_shutdown_and_close_without_being_run),
    TEST(s14_not_while_its_callback_is_on_the_stack),
    TEST(s14_in_the_batch_and_what_break_left_of_it),
    TEST(s14_a_second_hook_replaces_the_first_and_null_removes_it),
    TEST(s14_the_hook_may_free_the_argument),
    TEST(s14_the_hook_may_call_everything),
    TEST(s14_close_and_shutdown_end_though_every_hook_schedules_anew),
};

CHECK_MAIN(tests)
