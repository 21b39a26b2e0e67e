/* S34, S35, loop_walk() and RINGLOOP_DEBUG: information about the loop. */
#include "check.h"

#include <regex.h>
#include <stddef.h>

static struct {
    int count;
    uint64_t duration;
    uint32_t kind;
    void *address, *arg;
} slow;

static void note_slow(loop_t *loop, uint64_t duration, uint32_t kind, void *address, void *arg)
{
    CHECK_TRUE(loop_is_running(loop));
    slow.count++;
    slow.duration = duration;
    slow.kind = kind;
    slow.address = address;
    slow.arg = arg;
}

static void take_5_ms(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    busy_wait(LOOP_MSEC(5));
}

static void take_5_ms_and_cancel(loop_t *loop, void *arg)
{
    take_5_ms(loop, arg);
    CHECK(loop_cancel(loop, loop_current(loop)), ==, 0);
}

static void *address_of(loop_callback_t callback)
{
    return (void *)(uintptr_t)callback;
}

static void s34_a_slow_callback_is_reported_with_what_it_was(void)
{
    static const uint32_t kinds[] = {LOOP_KIND_CALL, LOOP_KIND_TIMER, LOOP_KIND_REPEAT, LOOP_KIND_HOOK};
    loop_t *loop = new_loop();
    int marker;

    CHECK(loop_set_slow_callback(loop, LOOP_MSEC(5), note_slow, &marker), ==, 0);
    for (int i = 0; i < 4; i++) {
        loop_callback_t callback = i < 2 ? take_5_ms : take_5_ms_and_cancel;
        loop_handle_t handle = i == 0   ? loop_call_soon(loop, callback, NULL)
                               : i == 1 ? loop_call_later(loop, 0, callback, NULL)
                               : i == 2 ? loop_call_every(loop, 1, callback, NULL)
                                        : loop_add_hook(loop, LOOP_AFTER_WAIT, callback, NULL);

        memset(&slow, 0, sizeof slow);
        CHECK(handle, >, 0);
        CHECK(loop_run_once(loop, LOOP_MSEC(1)), ==, i < 3);
        CHECK(slow.count, ==, 1);
        CHECK(slow.duration, >=, LOOP_MSEC(5));
        CHECK(slow.kind, ==, kinds[i]);
        CHECK_POINTER(slow.address, address_of(callback));
        CHECK_POINTER(slow.arg, &marker);
    }
    close_loop(loop);
}

static void s34_the_limit_can_be_removed_and_replaced(void)
{
    loop_t *loop = new_loop();

    memset(&slow, 0, sizeof slow);
    CHECK(loop_set_slow_callback(loop, 1, note_slow, NULL), ==, 0);
    CHECK(loop_set_slow_callback(loop, 1, NULL, NULL), ==, 0);
    CHECK(loop_call_soon(loop, take_5_ms, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(slow.count, ==, 0);

    CHECK(loop_set_slow_callback(loop, 1, note_slow, NULL), ==, 0);
    CHECK(loop_set_slow_callback(loop, 0, note_slow, NULL), ==, 0);
    CHECK(loop_call_soon(loop, take_5_ms, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(slow.count, ==, 0);

    CHECK(loop_set_slow_callback(loop, LOOP_SEC(1000), note_slow, NULL), ==, 0);
    CHECK(loop_set_slow_callback(loop, LOOP_MSEC(5), note_slow, loop), ==, 0);
    CHECK(loop_call_soon(loop, take_5_ms, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(slow.count, ==, 1);
    CHECK_POINTER(slow.arg, loop);
    close_loop(loop);
}

/* ---- S35 ---- */

static uint64_t late_sum(const loop_metrics_t *metrics)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < sizeof metrics->late / sizeof metrics->late[0]; i++)
        sum += metrics->late[i];
    return sum;
}

static void s35_metrics_are_exact(void)
{
    loop_t *loop = new_virtual_loop(0);
    loop_metrics_t metrics = metrics_of(loop);
    loop_handle_t every;

    CHECK(metrics.iterations, ==, 0);
    CHECK(metrics.callbacks, ==, 0);
    for (int i = 0; i < 3; i++)
        CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_cancel(loop, loop_call_soon(loop, do_nothing, NULL)), ==, 0);
    for (uint64_t i = 1; i <= 5; i++)
        CHECK(loop_call_at(loop, 10 * i, do_nothing, NULL), >, 0);
    CHECK(loop_cancel(loop, loop_call_at(loop, 20, do_nothing, NULL)), ==, 0);
    CHECK(loop_cancel(loop, loop_call_at(loop, LOOP_NEVER, do_nothing, NULL)), ==, 0);
    every = loop_call_every(loop, 25, do_nothing, NULL);
    CHECK(loop_unref(loop, every), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);

    metrics = metrics_of(loop);
    CHECK(metrics.callbacks, ==, 3 + 5 + 2);
    CHECK(metrics.timers_fired, ==, 5 + 2);
    CHECK(metrics.timers_cancelled, ==, 2);
    CHECK(metrics.timers_skipped, ==, 0);
    /* One iteration for the calls, and one for each of 10, 20, 25, 30, 40 and 50. */
    CHECK(metrics.iterations, ==, 7);
    CHECK(late_sum(&metrics), ==, metrics.timers_fired);
    CHECK(metrics.late[0], ==, metrics.timers_fired);
    CHECK(metrics.overflows, ==, 0);
    CHECK(metrics.posts, ==, 0);
    CHECK(metrics.wakes, ==, 0);
    close_loop(loop);
}

static void s35_metrics_of_a_real_sleep(void)
{
    loop_t *loop = new_loop();
    loop_metrics_t metrics;
    uint64_t begin = monotonic(), took;

    /* This run sleeps for certain: a timer might be due before the loop reaches its sleep. */
    CHECK(loop_run_once(loop, LOOP_MSEC(20)), ==, 0);
    took = monotonic() - begin;
    metrics = metrics_of(loop);
    CHECK(metrics.iterations, ==, 1);
    CHECK(metrics.callbacks, ==, 0);
    CHECK(metrics.enters, ==, 1);
    CHECK(metrics.submitted, ==, 2); /* the timeout, and the poll for wakes of other threads */
    /* A kernel may return at the deadline, and post the timeout's completion only at the next enter (seen on 7.2). */
    CHECK(metrics.completed, <=, 1);
    CHECK(metrics.asleep_ns, >=, LOOP_MSEC(20));
    CHECK(metrics.asleep_ns, <=, took);
    CHECK(loop_call_later(loop, LOOP_MSEC(1), do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    metrics = metrics_of(loop);
    CHECK(metrics.iterations, ==, 2);
    CHECK(metrics.callbacks, ==, 1);
    CHECK(metrics.timers_fired, ==, 1);
    CHECK(late_sum(&metrics), ==, 1);
    close_loop(loop);
}

static void s35_metrics_of_every_size(void)
{
    struct {
        loop_metrics_t known;
        uint8_t tail[16];
    } room;
    loop_t *loop = new_virtual_loop(0);

    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    for (uint32_t size = 0; size <= sizeof room; size++) {
        const uint8_t *bytes = (const uint8_t *)&room;
        size_t changed = 0;

        memset(&room, 0xa5, sizeof room);
        room.known.size = size;
        CHECK(loop_metrics(loop, &room.known), ==, size < 4 ? -EINVAL : 0);
        for (size_t i = size < 4 ? 4 : size; i < sizeof room; i++)
            changed += bytes[i] != 0xa5;
        CHECK(changed, ==, 0);
        for (size_t i = 0; i < sizeof room.tail; i++)
            changed += room.tail[i] != 0xa5;
        CHECK(changed, ==, 0);
        if (size >= offsetof(loop_metrics_t, callbacks) + sizeof room.known.callbacks) {
            CHECK(room.known.iterations, ==, 1);
            CHECK(room.known.callbacks, ==, 1);
        }
    }
    close_loop(loop);
}

/* ---- walk ---- */

static struct {
    loop_info_t infos[16];
    size_t count;
} seen;

static void note_info(loop_t *loop, const loop_info_t *info, void *arg)
{
    CHECK_TRUE(loop != NULL);
    CHECK_POINTER(arg, &seen);
    CHECK(info->size, >=, sizeof *info);
    if (seen.count < 16)
        seen.infos[seen.count] = *info;
    seen.count++;
}

static const loop_info_t *seen_handle(loop_handle_t handle)
{
    static const loop_info_t none;

    for (size_t i = 0; i < seen.count && i < 16; i++)
        if (seen.infos[i].handle == handle)
            return &seen.infos[i];
    return &none;
}

static void walk_shows_what_is_pending(void)
{
    loop_t *loop = new_virtual_loop(7);
    loop_handle_t handles[4];
    int args[4];

    memset(&seen, 0, sizeof seen);
    CHECK(loop_walk(loop, note_info, &seen), ==, 0);
    CHECK(seen.count, ==, 0);

    handles[0] = loop_call_soon(loop, do_nothing, &args[0]);
    handles[1] = loop_call_at(loop, 100, do_nothing, &args[1]);
    handles[2] = loop_call_every(loop, 50, do_stop, &args[2]);
    handles[3] = loop_add_hook(loop, LOOP_BEFORE_WAIT, do_nothing, &args[3]);
    CHECK(loop_unref(loop, handles[2]), ==, 0);
    CHECK(loop_cancel(loop, loop_call_soon(loop, do_nothing, NULL)), ==, 0);
    CHECK(loop_walk(loop, note_info, &seen), ==, 0);
    CHECK(seen.count, ==, 4);
    for (uint32_t i = 0; i < 4; i++) {
        const loop_info_t *info = seen_handle(handles[i]);

        CHECK(info->kind, ==, LOOP_KIND_CALL + i);
        CHECK_POINTER(info->arg, &args[i]);
        CHECK_POINTER(info->callback_address, address_of(i == 2 ? do_stop : do_nothing));
        CHECK(info->when_ns, ==, i == 1 ? 100 : i == 2 ? 57 : LOOP_NEVER);
        CHECK(info->fd, ==, -1);
        CHECK(info->referenced, ==, i < 2);
    }
    close_loop(loop);
}

/* ---- RINGLOOP_DEBUG ---- */

/* Not static, so that dladdr() finds these functions in a program linked with -rdynamic. */
void hold_for_110_ms(loop_t *loop, void *arg);
void a_pending_callback(loop_t *loop, void *arg);

void hold_for_110_ms(loop_t *loop, void *arg)
{
    (void)arg;
    busy_wait(LOOP_MSEC(110));
    if (loop_is_pending(loop, loop_current(loop)))
        CHECK(loop_cancel(loop, loop_current(loop)), ==, 0);
}

void a_pending_callback(loop_t *loop, void *arg)
{
    do_nothing(loop, arg);
}

static int child_slow(void)
{
    loop_t *loop = new_loop();

    CHECK(loop_call_soon(loop, hold_for_110_ms, NULL), >, 0);
    CHECK(loop_call_later(loop, 0, hold_for_110_ms, NULL), >, 0);
    CHECK(loop_call_every(loop, 1, hold_for_110_ms, NULL), >, 0);
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    close_loop(loop);
    return check_failures != 0;
}

static int child_pending(void)
{
    loop_t *loop = new_virtual_loop(LOOP_SEC(10));
    loop_handle_t timer;

    CHECK(loop_call_soon(loop, a_pending_callback, NULL), >, 0);
    timer = loop_call_later(loop, LOOP_MSEC(1500), a_pending_callback, NULL);
    CHECK(loop_unref(loop, timer), ==, 0);
    CHECK(loop_call_every(loop, LOOP_SEC(2), a_pending_callback, NULL), >, 0);
    CHECK(loop_add_hook(loop, LOOP_AFTER_WAIT, a_pending_callback, NULL), >, 0);
    CHECK(loop_cancel(loop, loop_call_soon(loop, hold_for_110_ms, NULL)), ==, 0);
    close_loop(loop);
    return check_failures != 0;
}

static size_t count_lines(const char *text, const char *pattern)
{
    char copy[8192], *rest = copy, *line;
    size_t count = 0;
    regex_t regex;

    REQUIRE(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), ==, 0);
    snprintf(copy, sizeof copy, "%s", text);
    while ((line = strsep(&rest, "\n")) != NULL)
        count += regexec(&regex, line, 0, NULL, 0) == 0;
    regfree(&regex);
    return count;
}

static void check_lines(const char *text, const char *pattern, size_t expected)
{
    size_t count = count_lines(text, pattern);

    CHECK(count, ==, expected);
    if (count != expected)
        fprintf(stderr, "lines like \"%s\" in:\n%s", pattern, text);
}

static void debug_reports_slow_callbacks(void)
{
    char text[8192];

    CHECK(check_spawn_self("slow", "1", text, sizeof text), ==, 0);
    check_lines(text,
                "^ringloop: slow callback: call 0x[0-9a-f]+ \\(hold_for_110_ms\\) held the loop for [0-9]+\\.[0-9]{3} ms$",
                1);
    check_lines(text,
                "^ringloop: slow callback: timer 0x[0-9a-f]+ \\(hold_for_110_ms\\) held the loop for [0-9]+\\.[0-9]{3} ms$",
                1);
    check_lines(text,
                "^ringloop: slow callback: repeating timer 0x[0-9a-f]+ \\(hold_for_110_ms\\) held the loop for "
                "[0-9]+\\.[0-9]{3} ms$",
                1);
    check_lines(text, "^ringloop: ", 3);
}

static void debug_reports_what_is_pending_at_close(void)
{
    char text[8192];

    CHECK(check_spawn_self("pending", "1", text, sizeof text), ==, 0);
    check_lines(text, "^ringloop: pending at close: call 0x[0-9a-f]+ \\(a_pending_callback\\), handle [0-9]+$", 1);
    check_lines(text,
                "^ringloop: pending at close: timer 0x[0-9a-f]+ \\(a_pending_callback\\), handle [0-9]+, due in 1\\.500000 s$",
                1);
    check_lines(text,
                "^ringloop: pending at close: repeating timer 0x[0-9a-f]+ \\(a_pending_callback\\), handle [0-9]+, due in "
                "2\\.000000 s$",
                1);
    check_lines(text, "^ringloop: pending at close: hook 0x[0-9a-f]+ \\(a_pending_callback\\), handle [0-9]+$", 1);
    check_lines(text, "^ringloop: ", 4);
}

static void without_debug_nothing_is_said(void)
{
    static const char *const off[] = {NULL, "", "0"};
    char text[8192];

    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
        CHECK(check_spawn_self("slow", off[i], text, sizeof text), ==, 0);
        CHECK_TEXT(text, "");
        CHECK(check_spawn_self("pending", off[i], text, sizeof text), ==, 0);
        CHECK_TEXT(text, "");
    }
}

static const struct check_child children[] = {
    {"slow", child_slow},
    {"pending", child_pending},
};

static const struct check_test tests[] = {
    TEST(s34_a_slow_callback_is_reported_with_what_it_was),
    TEST(s34_the_limit_can_be_removed_and_replaced),
    TEST(s35_metrics_are_exact),
    TEST(s35_metrics_of_a_real_sleep),
    TEST(s35_metrics_of_every_size),
    TEST(walk_shows_what_is_pending),
    TEST(debug_reports_slow_callbacks),
    TEST(debug_reports_what_is_pending_at_close),
    TEST(without_debug_nothing_is_said),
};

int main(int argc, char **argv)
{
    int status = check_child_main(argc, argv, children, sizeof children / sizeof children[0]);

    return status >= 0 ? status : check_run(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
