/* Versions, and sentences for errors. */
#include "check.h"

#include <pthread.h>

static void the_version_is_one_and_the_same(void)
{
    unsigned major, minor, patch;

    CHECK_TEXT(loop_version(), LOOP_VERSION_STRING);
    REQUIRE(sscanf(LOOP_VERSION_STRING, "%u.%u.%u", &major, &minor, &patch), ==, 3);
    CHECK(LOOP_VERSION_NUMBER, ==, major << 16 | minor << 8 | patch);
}

static void strerror_names_every_error(void)
{
    CHECK_TEXT(loop_strerror(-EINVAL), "EINVAL: Invalid argument");
    CHECK_TEXT(loop_strerror(EINVAL), "EINVAL: Invalid argument");
    CHECK(strncmp(loop_strerror(-EOWNERDEAD), "EOWNERDEAD", 10), ==, 0);
    CHECK(strncmp(loop_strerror(-ESHUTDOWN), "ESHUTDOWN", 9), ==, 0);
    for (int error = 1; error < 134; error++) {
        CHECK_TRUE(strlen(loop_strerror(error)) > 0);
        CHECK_TEXT(loop_strerror(-error), loop_strerror(error));
    }
}

static void strerror_of_what_is_no_error(void)
{
    static const int odd[] = {0, 4095, 100000, -100000, INT32_MAX, INT32_MIN};

    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++)
        CHECK_TRUE(loop_strerror(odd[i]) != NULL && strlen(loop_strerror(odd[i])) > 0);
}

static void *last_error_is_empty(void *arg)
{
    (void)arg;
    CHECK_TEXT(loop_last_error(), "");
    CHECK(loop_run(NULL), ==, -EINVAL);
    CHECK_TRUE(strlen(loop_last_error()) > 0);
    return NULL;
}

static void s28_last_error_belongs_to_the_thread(void)
{
    pthread_t thread;
    char mine[512];

    CHECK(loop_call_every(NULL, 0, do_nothing, NULL), ==, -EINVAL);
    snprintf(mine, sizeof mine, "%s", loop_last_error());
    CHECK_TRUE(strlen(mine) > 0);
    REQUIRE(pthread_create(&thread, NULL, last_error_is_empty, NULL), ==, 0);
    pthread_join(thread, NULL);
    CHECK_TEXT(loop_last_error(), mine);
}

static void s28_last_error_says_what_went_wrong(void)
{
    loop_t *loop = new_loop();
    char first[512];

    CHECK(loop_call_every(loop, 0, do_nothing, NULL), ==, -EINVAL);
    snprintf(first, sizeof first, "%s", loop_last_error());
    CHECK_TRUE(strstr(first, "period") != NULL);
    /* A success leaves the last error in place; another failure replaces it. */
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK_TEXT(loop_last_error(), first);
    CHECK(loop_call_soon(loop, NULL, NULL), ==, -EINVAL);
    CHECK_TRUE(strcmp(loop_last_error(), first) != 0);
    CHECK_TRUE(strchr(loop_last_error(), '\n') == NULL);
    close_loop(loop);
}

/* Programs tell errors apart by the result; the library leaves errno unchanged. */
static void errno_is_left_alone(void)
{
    loop_t *loop = new_loop();

    errno = 4711;
    CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
    CHECK(loop_cancel(loop, INT64_MAX), <, 0);
    CHECK(loop_time(loop), >, 0);
    CHECK(errno, ==, 4711);
    close_loop(loop);
}

static void data_is_kept(void)
{
    loop_t *loop = new_loop();
    int marker;

    CHECK_POINTER(loop_data(loop), NULL);
    loop_set_data(loop, &marker);
    CHECK_POINTER(loop_data(loop), &marker);
    loop_set_data(loop, NULL);
    CHECK_POINTER(loop_data(loop), NULL);
    close_loop(loop);
}

static const struct check_test tests[] = {
    TEST(the_version_is_one_and_the_same),
    TEST(strerror_names_every_error),
    TEST(strerror_of_what_is_no_error),
    TEST(s28_last_error_belongs_to_the_thread),
    TEST(s28_last_error_says_what_went_wrong),
    TEST(errno_is_left_alone),
    TEST(data_is_kept),
};

CHECK_MAIN(tests)
