/*
 * S28, S29: the answers to bad arguments, the order in which errors are found, and that such a call writes and loses nothing.
 * wrong_calls.c passes NULL for each argument.
 */
#include "check.h"

#include <pthread.h>
#include <sys/mman.h>

static void slow(loop_t *loop, uint64_t duration, uint32_t kind, void *address, void *arg)
{
    (void)loop;
    (void)duration;
    (void)kind;
    (void)address;
    (void)arg;
}

static void *wrong_thread(void *arg)
{
    loop_t *loop = arg;

    /* -EINVAL is found before -EPERM; -EPERM is found before any error about the state of the loop or the handle. */
    CHECK(loop_call_soon(loop, NULL, NULL), ==, -EINVAL);
    CHECK(loop_call_every(loop, 0, do_nothing, NULL), ==, -EINVAL);
    CHECK(loop_add_hook(loop, 77, do_nothing, NULL), ==, -EINVAL);
    CHECK(loop_metrics(loop, NULL), ==, -EINVAL);
    CHECK(loop_walk(loop, NULL, NULL), ==, -EINVAL);
    CHECK(loop_when(loop, 1, NULL), ==, -EINVAL);
    CHECK(loop_cancel(loop, INT64_MAX), ==, -EPERM);
    CHECK(loop_run(loop), ==, -EPERM);
    CHECK(loop_close(loop), ==, -EPERM);
    CHECK(loop_break(loop), ==, -EPERM);
    return NULL;
}

static void s29_the_order_of_errors(void)
{
    loop_t *loop = new_loop();
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, wrong_thread, loop), ==, 0);
    pthread_join(thread, NULL);
    CHECK(loop_shutdown(loop), ==, 0);
    REQUIRE(pthread_create(&thread, NULL, wrong_thread, loop), ==, 0);
    pthread_join(thread, NULL);
    /* -EINVAL is found before -ESHUTDOWN. */
    CHECK(loop_call_soon(loop, NULL, NULL), ==, -EINVAL);
    CHECK(loop_call_every(loop, 0, do_nothing, NULL), ==, -EINVAL);
    CHECK(loop_add_hook(loop, 77, do_nothing, NULL), ==, -EINVAL);
    close_loop(loop);
}

static void s29_a_hook_has_to_say_when(void)
{
    static const uint32_t bad[] = {0, 4, 5, 1000, UINT32_MAX};
    loop_t *loop = new_virtual_loop(0);

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(loop_add_hook(loop, bad[i], do_nothing, NULL), ==, -EINVAL);
    close_loop(loop);
}

/* ---- options ---- */

static void s29_null_for_a_new_loop_is_invalid(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;

    CHECK(loop_new(NULL, NULL), ==, -EINVAL);
    CHECK(loop_new(&options, NULL), ==, -EINVAL);
}

static int try_options(const loop_options_t *options)
{
    loop_t *const untouched = (loop_t *)(uintptr_t)0x5a5a;
    loop_t *loop = untouched;
    int result = loop_new(options, &loop);

    if (result == 0) {
        CHECK_TRUE(loop != untouched && loop != NULL);
        CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        close_loop(loop);
    } else {
        CHECK_POINTER(loop, untouched);
        CHECK_TRUE(strlen(loop_last_error()) > 0);
    }
    return result;
}

static void options_of_every_size(void)
{
    struct {
        loop_options_t known;
        uint8_t tail[64];
    } options;
    uint32_t known = (uint32_t)sizeof(loop_options_t);

    memset(&options, 0, sizeof options);
    for (uint32_t size = 0; size <= sizeof options; size++) {
        options.known.size = size;
        CHECK(try_options(&options.known), ==, size < 4 ? -EINVAL : 0);
    }
    /* Sets bytes in the tail, which this library does not know. */
    for (uint32_t at = 0; at < sizeof options.tail; at += 21) {
        options.tail[at] = 1;
        options.known.size = known + at;
        CHECK(try_options(&options.known), ==, 0);
        options.known.size = known + at + 1;
        CHECK(try_options(&options.known), ==, -E2BIG);
        options.known.size = sizeof options;
        CHECK(try_options(&options.known), ==, -E2BIG);
        options.tail[at] = 0;
    }
    options.known.size = known;
    options.known.reserved = 1;
    CHECK(try_options(&options.known), ==, -E2BIG);
    CHECK(try_options(NULL), ==, 0);
}

/* The library reads nothing beyond the size that an older caller states: no page is mapped there. */
static void options_behind_the_stated_size_are_not_read(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uint32_t *words = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    loop_t *loop = NULL;

    REQUIRE(words != MAP_FAILED, ==, 1);
    REQUIRE(mprotect((char *)words + page, page, PROT_NONE), ==, 0);
    words += page / sizeof *words - 2;
    words[0] = 8; /* size and flags: the smallest options struct */
    words[1] = LOOP_VIRTUAL_TIME;
    CHECK(loop_new((const loop_options_t *)(const void *)words, &loop), ==, 0);
    CHECK(loop_time(loop), ==, 0);
    CHECK(loop_close(loop), ==, 0);
    words += 1;
    words[0] = 4;
    CHECK(loop_new((const loop_options_t *)(const void *)words, &loop), ==, 0);
    CHECK(loop_time(loop), >, 0);
    CHECK(loop_close(loop), ==, 0);
    munmap((char *)(words + 1) - page, 2 * page);
}

static void the_trace_goes_to_the_file_that_is_named(void)
{
    char name[] = "/tmp/ringloop-arguments-XXXXXX";
    loop_options_t options = LOOP_OPTIONS_INIT;
    int fd = mkstemp(name);

    REQUIRE(fd, >=, 0);
    options.trace = name;
    CHECK(try_options(&options), ==, 0);
    CHECK(lseek(fd, 0, SEEK_END), >, 0);
    close(fd);
    unlink(name);
    options.trace = "/dev/null/a";
    CHECK(try_options(&options), ==, -ENOTDIR);
}

static void unknown_flags_are_invalid(void)
{
    for (int bit = 0; bit < 32; bit++) {
        loop_options_t options = LOOP_OPTIONS_INIT;

        options.flags = UINT32_C(1) << bit;
        CHECK(try_options(&options), ==, options.flags == LOOP_VIRTUAL_TIME ? 0 : -EINVAL);
    }
}

static void ring_sizes_out_of_range_are_invalid(void)
{
    static const uint32_t bad[] = {65537, 100000, 1u << 31, UINT32_MAX};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        loop_options_t options = LOOP_OPTIONS_INIT;

        options.sq_entries = bad[i];
        CHECK(try_options(&options), ==, -EINVAL);
        options.sq_entries = 0;
        options.cq_entries = bad[i];
        CHECK(try_options(&options), ==, -EINVAL);
    }
}

/* ---- the largest numbers there are ---- */

static void the_largest_numbers_in_the_options(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop = NULL;

    options.spin_ns = UINT64_MAX;
    CHECK(try_options(&options), ==, 0);
    REQUIRE(loop_new(&options, &loop), ==, 0);
    CHECK(loop_call_later(loop, LOOP_MSEC(2), do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_run_once(loop, LOOP_MSEC(2)), ==, 0);
    close_loop(loop);

    options.spin_ns = 0;
    options.slack_ns = UINT64_MAX;
    CHECK(try_options(&options), ==, 0);
    REQUIRE(loop_new(&options, &loop), ==, 0);
    CHECK(loop_call_at(loop, 0, do_nothing, NULL), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(loop_call_later(loop, LOOP_SEC(1000), do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, LOOP_MSEC(2)), ==, 0);
    close_loop(loop);

    options.slack_ns = 0;
    options.flags = LOOP_VIRTUAL_TIME;
    options.start_ns = UINT64_MAX;
    CHECK(try_options(&options), ==, 0);
    REQUIRE(loop_new(&options, &loop), ==, 0);
    CHECK(loop_time(loop), ==, UINT64_MAX);
    CHECK(loop_call_later(loop, 0, do_nothing, NULL), >, 0);
    CHECK(loop_call_at(loop, UINT64_MAX - 1, do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, 0), ==, 1);
    CHECK(loop_run_once(loop, 5), ==, 0);
    close_loop(loop);

    options.start_ns = UINT64_MAX - 1;
    options.spin_ns = UINT64_MAX;
    options.slack_ns = UINT64_MAX;
    CHECK(try_options(&options), ==, 0);
}

static void the_largest_numbers_in_calls(void)
{
    loop_t *loop = new_loop();
    loop_handle_t timer;
    uint64_t when = 0, skipped = 99;

    CHECK(loop_call_later(loop, UINT64_MAX, do_nothing, NULL), >, 0);
    CHECK(loop_call_at(loop, UINT64_MAX - 1, do_nothing, NULL), >, 0);
    timer = loop_call_every(loop, UINT64_MAX, do_nothing, NULL);
    CHECK(timer, >, 0);
    CHECK(loop_skipped(loop, timer, &skipped), ==, 0);
    CHECK(skipped, ==, 0);
    CHECK(loop_reschedule(loop, timer, UINT64_MAX), ==, 0);
    CHECK(loop_when(loop, timer, &when), ==, 0);
    CHECK(when, ==, UINT64_MAX);
    CHECK(loop_call_soon(loop, do_nothing, (void *)UINTPTR_MAX), >, 0);
    CHECK(loop_run_once(loop, UINT64_MAX), ==, 1);
    CHECK(loop_call_later(loop, LOOP_MSEC(1), do_nothing, NULL), >, 0);
    CHECK(loop_run_once(loop, UINT64_MAX - 1), ==, 1);
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_set_slow_callback(loop, UINT64_MAX, slow, NULL), ==, 0);
    CHECK(loop_run_once(loop, UINT64_MAX), ==, 1);
    CHECK(loop_close_within(loop, UINT64_MAX), ==, 0);
}

/* A deadline must fit the kernel's timespec: these are years away, and no sleep may end at once. */
static void a_deadline_beyond_the_kernels_clock(void)
{
    static const uint64_t whens[] = {UINT64_MAX - 1, (uint64_t)INT64_MAX, (uint64_t)INT64_MAX + 1};
    loop_t *loop = new_loop();

    for (size_t i = 0; i < sizeof whens / sizeof whens[0]; i++) {
        loop_handle_t timer = loop_call_at(loop, whens[i], do_nothing, NULL);
        uint64_t begin = monotonic();

        CHECK(timer, >, 0);
        CHECK(loop_run_once(loop, LOOP_MSEC(3)), ==, 0);
        CHECK(monotonic() - begin, >=, LOOP_MSEC(3));
        CHECK_TRUE(loop_is_pending(loop, timer));
        CHECK(loop_cancel(loop, timer), ==, 0);
    }
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(s29_the_order_of_errors),
    TEST(s29_a_hook_has_to_say_when),
    TEST(s29_null_for_a_new_loop_is_invalid),
    TEST(options_of_every_size),
    TEST(the_trace_goes_to_the_file_that_is_named),
    TEST(options_behind_the_stated_size_are_not_read),
    TEST(unknown_flags_are_invalid),
    TEST(ring_sizes_out_of_range_are_invalid),
    TEST(the_largest_numbers_in_the_options),
    TEST(the_largest_numbers_in_calls),
    TEST(a_deadline_beyond_the_kernels_clock),
};

CHECK_MAIN(tests)
