/*
 * S31: a call that finds no memory returns -ENOMEM and loses nothing, and functions that end things allocate nothing.
 * tests/allocations.rs tests what is the same in Rust. This program is linked with --wrap for the allocation functions, so that
 * it can make any chosen allocation of the library fail.
 */
#include "check.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

static bool counting;
static size_t allocations, fail_from = SIZE_MAX, fail_to = SIZE_MAX;

static bool refused(void)
{
    size_t number;

    if (!counting)
        return false;
    number = allocations++;
    if (number < fail_from || number >= fail_to)
        return false;
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **out, size_t alignment, size_t size);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **out, size_t alignment, size_t size);

void *__wrap_malloc(size_t size)
{
    return refused() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return refused() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size)
{
    return refused() ? NULL : __real_realloc(block, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return refused() ? NULL : __real_aligned_alloc(alignment, size);
}

int __wrap_posix_memalign(void **out, size_t alignment, size_t size)
{
    return refused() ? ENOMEM : __real_posix_memalign(out, alignment, size);
}

/* From now on, allocations fail from number `first` up to, but not including, `end`. */
static void fail(size_t first, size_t end)
{
    allocations = 0;
    fail_from = first;
    fail_to = end;
    counting = true;
}

/* Ends the failures; returns the number of allocations since fail(). */
static size_t succeed(void)
{
    counting = false;
    fail_from = fail_to = SIZE_MAX;
    return allocations;
}

static void the_wrapping_works(void)
{
    loop_t *loop;

    fail(SIZE_MAX, SIZE_MAX);
    loop = new_loop();
    CHECK(succeed(), >, 0);
    close_loop(loop);
}

/* ---- making a loop ---- */

static void check_new_with_failures(bool only_one)
{
    size_t n, asked = 0;
    int result = -ENOMEM;

    for (n = 0; n < 1000; n++) {
        loop_t *const untouched = (loop_t *)(uintptr_t)0x5a5a;
        loop_t *loop = untouched;

        fail(n, only_one ? n + 1 : SIZE_MAX);
        result = loop_new(NULL, &loop);
        asked = succeed();
        if (result == 0) {
            CHECK(loop_call_soon(loop, do_nothing, NULL), >, 0);
            CHECK(loop_run(loop), ==, LOOP_DONE);
            close_loop(loop);
            if (asked <= n)
                break;
            continue;
        }
        CHECK(result, ==, -ENOMEM);
        CHECK_POINTER(loop, untouched);
        CHECK_TRUE(strlen(loop_last_error()) > 0);
    }
    CHECK(result, ==, 0);
    CHECK(asked, <=, n);
}

static void s31_loop_new_with_any_one_allocation_failing(void)
{
    check_new_with_failures(true);
}

static void s31_loop_new_with_all_allocations_failing_from_some_point(void)
{
    check_new_with_failures(false);
}

/* RINGLOOP_TRACE and RINGLOOP_DEBUG are set; the name of the trace is long, so that copies of it need memory. */
static void s31_loop_new_with_all_that_the_environment_asks_for(void)
{
    char directory[] = "/tmp/ringloop-memory-XXXXXX", name[600];

    REQUIRE(mkdtemp(directory) != NULL, ==, 1);
    snprintf(name, sizeof name, "%s%0500d/%%p", directory, 0);
    /* The name is long but denotes the same place. */
    for (char *at = name + strlen(directory); *at == '0'; at++) *at = '/';
    setenv("RINGLOOP_TRACE", name, 1);
    setenv("RINGLOOP_DEBUG", "1", 1);
    setenv("RINGLOOP_KERNEL", "6.1", 1);
    check_new_with_failures(true);
    check_new_with_failures(false);
    unsetenv("RINGLOOP_KERNEL");
    unsetenv("RINGLOOP_DEBUG");
    unsetenv("RINGLOOP_TRACE");
    snprintf(name, sizeof name, "%s/%d", directory, (int)getpid());
    CHECK(unlink(name), ==, 0);
    CHECK(rmdir(directory), ==, 0);
}

static void s31_a_failed_loop_new_leaves_no_descriptor_behind(void)
{
    int before = dup(STDERR_FILENO), after;

    close(before);
    for (size_t n = 0; n < 200; n++) {
        loop_t *loop = NULL;
        int result;

        fail(n, SIZE_MAX);
        result = loop_new(NULL, &loop);
        succeed();
        if (result == 0)
            close_loop(loop);
    }
    after = dup(STDERR_FILENO);
    close(after);
    CHECK(after, ==, before);
}

/* ---- scheduling ---- */

enum { MANY = 20000 };

static size_t ran;

static void count_run(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    ran++;
}

/* Allocations fail from the n-th on: schedules more than fits, and checks that every accepted callback runs. */
static void s31_calls_without_memory(void)
{
    for (size_t n = 0; n < 40; n++) {
        loop_t *loop = new_virtual_loop(0);
        size_t accepted = 0, refusals = 0;

        ran = 0;
        fail(n, SIZE_MAX);
        for (size_t i = 0; i < MANY; i++) {
            loop_handle_t handle = i % 2 ? loop_call_later(loop, i * 7919 % 5000, count_run, NULL)
                                         : loop_call_soon(loop, count_run, NULL);

            if (handle > 0)
                accepted++;
            else if (refusals++ == 0) {
                CHECK(handle, ==, -ENOMEM);
                CHECK_TRUE(strlen(loop_last_error()) > 0);
            } else if (handle != -ENOMEM)
                CHECK(handle, ==, -ENOMEM);
        }
        succeed();
        if (n == 0)
            CHECK(refusals, >, 0);
        /* The loop works again as soon as there is memory. */
        CHECK(loop_call_soon(loop, count_run, NULL), >, 0);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(ran, ==, accepted + 1);
        close_loop(loop);
        if (refusals == 0)
            break;
    }
}

static void s31_loop_fd_without_memory(void)
{
    loop_t *loop = new_loop();
    int fd;

    fail(0, SIZE_MAX);
    fd = loop_fd(loop);
    succeed();
    CHECK_TRUE(fd >= 0 || fd == -ENOMEM);
    CHECK(loop_fd(loop), >=, 0);
    close_loop(loop);
}

/* ---- functions that allocate nothing ---- */

/* All functions but these can return -ENOMEM; these could only abort, so the test runs in a child. */
static void words_without_memory(void *arg)
{
    (void)arg;
    fail(0, SIZE_MAX);
    CHECK_TRUE(strlen(loop_strerror(-ENOENT)) > 0);
    CHECK_TRUE(strlen(loop_version()) > 0);
    CHECK_TRUE(loop_last_error() != NULL);
    succeed();
}

static void s31_errors_in_words_without_memory(void)
{
    CHECK_IN_CHILD(words_without_memory, NULL);
}

/* ---- posts: this thread and others post in turn, so that the n-th allocation is always the same one ---- */

enum { SOON, SOON_UNGUARDED, LATER, LATER_UNGUARDED, THREADSAFE, OWN_CALL, POST_KINDS };

struct post {
    size_t number;
    int kind;
    unsigned accepted, ran, released;
};

static struct post posts[4000];
static size_t post_count, post_refusals, last_soon, last_later;
static loop_t *posted_to;
static loop_remote_t *remote_of_it;
static bool being_closed;

static void run_post(loop_t *loop, void *arg)
{
    struct post *post = arg;
    size_t *last = post->kind == LATER || post->kind == LATER_UNGUARDED ? &last_later : &last_soon;

    (void)loop;
    post->ran++;
    CHECK(post->number, >, *last);
    *last = post->number;
}

static void release_post(void *arg)
{
    struct post *post = arg;

    post->released++;
    CHECK_TRUE(post->ran == 1 || (post->ran == 0 && being_closed));
}

static void post_one(int kind)
{
    struct post *post = &posts[post_count++];
    int64_t result;

    REQUIRE(post_count, <=, sizeof posts / sizeof posts[0]);
    *post = (struct post){post_count, kind, 0, 0, 0};
    if (kind == SOON || kind == SOON_UNGUARDED)
        result = loop_remote_call_soon(remote_of_it, run_post, post, kind == SOON ? release_post : NULL);
    else if (kind == LATER || kind == LATER_UNGUARDED)
        result = loop_remote_call_later(remote_of_it, 10, run_post, post, kind == LATER ? release_post : NULL);
    else if (kind == THREADSAFE)
        result = loop_call_soon_threadsafe(posted_to, run_post, post);
    else
        result = loop_call_soon(posted_to, run_post, post);
    post->accepted = result >= 0;
    post_refusals += result < 0;
    if (result < 0) {
        CHECK(result, ==, -ENOMEM);
        CHECK_TRUE(strlen(loop_last_error()) > 0);
    } else if (kind != OWN_CALL) {
        CHECK(result, ==, 0);
    }
}

static void *post_some(void *arg)
{
    size_t count = *(size_t *)arg;

    for (size_t i = 0; i < count; i++)
        post_one((int)(i % OWN_CALL));
    return NULL;
}

static void post_from_another_thread(size_t count)
{
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, post_some, &count), ==, 0);
    REQUIRE(pthread_join(thread, NULL), ==, 0);
}

static void post_from_here(size_t count)
{
    for (size_t i = 0; i < count; i++)
        post_one((int)(i % POST_KINDS));
}

static void begin_posting(void)
{
    posted_to = new_virtual_loop(0);
    remote_of_it = NULL;
    post_count = post_refusals = last_soon = last_later = 0;
    being_closed = false;
}

/* Every accepted callback has run once, unless the loop was closed first, and was released once if it has a hook. */
static void end_posting(bool by_close)
{
    if (!by_close)
        CHECK(loop_run(posted_to), ==, LOOP_DONE);
    being_closed = true;
    fail(0, SIZE_MAX);
    CHECK(loop_close(posted_to), ==, 0);
    CHECK(succeed(), ==, 0);
    for (size_t i = 0; i < post_count; i++) {
        const struct post *post = &posts[i];
        bool guarded = post->kind == SOON || post->kind == LATER;

        if (by_close)
            CHECK(post->ran, <=, post->accepted);
        else
            CHECK(post->ran, ==, post->accepted);
        CHECK(post->released, ==, guarded ? post->accepted : 0);
    }
    fail(0, SIZE_MAX);
    CHECK(loop_remote_call_soon(remote_of_it, run_post, &posts[0], release_post), <, 0);
    loop_remote_release(remote_of_it);
    succeed();
}

static void check_posts_with_failures(bool only_one)
{
    size_t asked = SIZE_MAX, n, refusals = 0;

    for (n = 0; asked > n && n < 1000; n++) {
        begin_posting();
        fail(n, only_one ? n + 1 : SIZE_MAX);
        REQUIRE(loop_remote_new(posted_to, &remote_of_it), ==, 0);
        CHECK(allocations, ==, 0);
        CHECK_POINTER(loop_remote_retain(remote_of_it), remote_of_it);
        loop_remote_release(remote_of_it);
        post_from_here(12);
        post_from_another_thread(10);
        for (int i = 0; i < 2; i++) {
            int result = loop_run_once(posted_to, 0);

            if (result < 0)
                CHECK(result, ==, -ENOMEM);
            post_from_another_thread(10);
            post_from_here(12);
        }
        asked = succeed();
        refusals += post_refusals;
        end_posting(n % 2 == 1);
    }
    CHECK(asked, <=, n);
    CHECK(refusals, >, 0);
}

static void s31_posts_with_any_one_allocation_failing(void)
{
    check_posts_with_failures(true);
}

static void s31_posts_with_all_allocations_failing_from_some_point(void)
{
    check_posts_with_failures(false);
}

static size_t posts_that_ran(void)
{
    size_t count = 0;

    for (size_t i = 0; i < post_count; i++)
        count += posts[i].ran;
    return count;
}

/* A run or a loop_call_soon() collects the posts: posts that find no room stay posted, before later posts. */
static void check_posts_that_find_no_room(bool by_call)
{
    size_t n, torn = 0;
    int64_t result = -ENOMEM;

    for (n = 0; result < 0 && n < 200; n++) {
        size_t taken;

        begin_posting();
        REQUIRE(loop_remote_new(posted_to, &remote_of_it), ==, 0);
        post_from_another_thread(3000);
        CHECK(post_refusals, ==, 0);
        fail(n, SIZE_MAX);
        if (by_call) {
            post_one(OWN_CALL);
            result = posts[post_count - 1].accepted ? 0 : -ENOMEM;
        } else {
            result = loop_run_once(posted_to, 0);
        }
        succeed();
        if (result < 0) {
            CHECK(result, ==, -ENOMEM);
            CHECK(posts_that_ran(), ==, 0);
            CHECK_TRUE(loop_is_alive(posted_to));
        }
        taken = metrics_of(posted_to).posts;
        torn += taken > 0 && taken < 3000;
        if (n % 3 == 0)
            CHECK(loop_run_once(posted_to, 0), >=, result < 0 ? 1 : 0);
        post_from_another_thread(20);
        post_from_here(20);
        end_posting(n % 3 == 2);
    }
    CHECK(result, >=, 0);
    CHECK(torn, >, 0);
}

static void s31_posts_that_a_run_has_no_room_for_wait_in_order(void)
{
    check_posts_that_find_no_room(false);
}

static void s31_posts_that_call_soon_has_no_room_for_wait_in_order(void)
{
    check_posts_that_find_no_room(true);
}

static void s31_waking_and_stopping_a_loop_without_memory(void)
{
    int posted;

    begin_posting();
    REQUIRE(loop_remote_new(posted_to, &remote_of_it), ==, 0);
    fail(0, SIZE_MAX);
    CHECK(loop_wakeup(posted_to), ==, 0);
    CHECK(loop_remote_wakeup(remote_of_it), ==, 0);
    CHECK(allocations, ==, 0);
    /* A stop is a post: it fails when the thread's memory for posts is used up, and then does not stop the loop. */
    do
        posted = loop_remote_call_soon(remote_of_it, do_nothing, NULL, NULL);
    while (posted == 0);
    CHECK(posted, ==, -ENOMEM);
    CHECK(loop_remote_stop(remote_of_it), ==, -ENOMEM);
    succeed();
    CHECK(loop_run(posted_to), ==, LOOP_DONE);
    CHECK(loop_remote_stop(remote_of_it), ==, 0);
    CHECK(loop_run_forever(posted_to), ==, LOOP_STOPPED);
    end_posting(false);
}

/* ---- work and children ---- */

struct piece {
    atomic_int worked;
    unsigned accepted, done, released;
};

static struct piece pieces[40];

static void work_piece(void *arg)
{
    ((struct piece *)arg)->worked++;
}

static void piece_done(loop_t *loop, int status, void *arg)
{
    (void)loop;
    CHECK_TRUE(status == 0 || status == -ECANCELED);
    ((struct piece *)arg)->done++;
}

static void release_piece(void *arg)
{
    ((struct piece *)arg)->released++;
}

/* Runs to the end, also under valgrind, where a thread in io_uring_enter() lets no other thread run. */
static void run_what_is_left(loop_t *loop)
{
    while (loop_is_alive(loop)) {
        REQUIRE(loop_run_once(loop, 0), >=, 0);
        usleep(100);
    }
}

/* Accepted work is done once, even if the loop or its threads are refused memory meanwhile. */
static void check_work_with_failures(bool only_one)
{
    size_t asked = SIZE_MAX, n, refusals = 0;

    for (n = 0; asked > n && n < 1000; n++) {
        loop_t *loop = new_loop();

        memset(pieces, 0, sizeof pieces);
        fail(n, only_one ? n + 1 : SIZE_MAX);
        for (int i = 0; i < 40; i++) {
            loop_handle_t handle = loop_run_in_executor(loop, work_piece, piece_done, &pieces[i]);

            if (handle < 0) {
                CHECK(handle, ==, -ENOMEM);
                refusals++;
                continue;
            }
            pieces[i].accepted = 1 + (loop_on_release(loop, handle, release_piece) == 0);
            if (i % 3 == 0) CHECK(loop_cancel(loop, handle), ==, 1);
            if (i % 10 == 0) CHECK_TRUE(loop_run_once(loop, 0) >= -ENOMEM);
        }
        asked = succeed();
        run_what_is_left(loop);
        for (int i = 0; i < 40; i++) {
            CHECK(pieces[i].done, ==, pieces[i].accepted > 0);
            CHECK(pieces[i].released, ==, pieces[i].accepted == 2);
            CHECK(pieces[i].worked, <=, pieces[i].done);
        }
        close_loop(loop);
    }
    CHECK(asked, <=, n);
    CHECK(refusals, >, 0);
}

static void s31_work_with_any_one_allocation_failing(void)
{
    check_work_with_failures(true);
}

static void s31_work_with_all_allocations_failing_from_some_point(void)
{
    check_work_with_failures(false);
}

static void s31_threads_cancelling_and_closing_allocate_nothing(void)
{
    for (int round = 0; round < 2; round++) {
        loop_t *loop = new_loop();
        loop_handle_t last = 0;

        memset(pieces, 0, sizeof pieces);
        for (int i = 0; i < 40; i++) {
            last = loop_run_in_executor(loop, work_piece, piece_done, &pieces[i]);
            REQUIRE(last, >, 0);
            CHECK(loop_on_release(loop, last, release_piece), ==, 0);
        }
        fail(0, SIZE_MAX);
        CHECK(loop_cancel(loop, last), ==, 1);
        for (int i = 0; i < 39; i++)
            while (!pieces[i].worked) usleep(100);
        if (round == 1) CHECK(loop_close(loop), ==, 0);
        CHECK(succeed(), ==, 0);
        if (round == 0) {
            run_what_is_left(loop);
            close_loop(loop);
        }
        for (int i = 0; i < 40; i++) {
            CHECK(pieces[i].done, ==, round == 0);
            CHECK(pieces[i].released, ==, 1);
        }
    }
}

static void end_of_child(loop_t *loop, pid_t pid, int wait_status, void *arg)
{
    (void)loop;
    CHECK(pid, ==, *(pid_t *)arg);
    CHECK(wait_status, ==, 0);
    ran++;
}

static void s31_child_watchers_without_memory(void)
{
    size_t asked = SIZE_MAX, n;
    pid_t pids[5];
    int ends[2], status;

    for (n = 0; asked > n && n < 100; n++) {
        loop_t *loop = new_loop();
        size_t accepted = 0, refusals = 0;

        ran = 0;
        REQUIRE(pipe(ends), ==, 0);
        for (int i = 0; i < 5; i++) {
            pids[i] = fork();
            if (pids[i] == 0) {
                dup2(ends[0], STDIN_FILENO);
                close(ends[1]);
                execl("/bin/sh", "sh", "-c", "read x; exit 0", (char *)NULL);
                _exit(127);
            }
        }
        close(ends[0]);
        fail(n, SIZE_MAX);
        for (int i = 0; i < 5; i++) {
            loop_handle_t handle = loop_watch_child(loop, pids[i], end_of_child, &pids[i]);

            if (handle < 0) {
                CHECK(handle, ==, -ENOMEM);
                refusals++;
                continue;
            }
            accepted++;
            if (i % 2) {
                size_t before = allocations;

                CHECK(loop_cancel(loop, handle), ==, 0);
                CHECK(allocations, ==, before);
                accepted--;
            }
        }
        asked = succeed();
        close(ends[1]);
        CHECK(loop_run(loop), ==, LOOP_DONE);
        CHECK(ran, ==, accepted);
        close_loop(loop);
        while (waitpid(-1, &status, 0) > 0) {}
        if (refusals == 0) break;
    }
    CHECK(n, >, 0);
    CHECK(n, <, 100);
}

/* ---- operations ---- */

static void count_result(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    (void)loop;
    (void)flags;
    (void)arg;
    ran++;
    if (result >= 0 && arg)
        close(result);
}

/* Submits one of each kind of operation: some of them wait, some end at once. */
static loop_handle_t submit(loop_t *loop, int kind, const int fds[2], struct msghdr *message)
{
    static char byte;
    struct sockaddr_in nowhere = {0};

    switch (kind) {
    case 0:
        return loop_recv(loop, fds[0], &byte, 1, 0, count_result, NULL);
    case 1:
        return loop_recvmsg(loop, fds[0], message, 0, count_result, NULL);
    case 2:
        return loop_readv(loop, fds[0], message->msg_iov, 1, LOOP_CURRENT, count_result, NULL);
    case 3:
        return loop_send_all(loop, fds[0], "", 1, 0, count_result, NULL);
    case 4:
        return loop_openat(loop, AT_FDCWD, "/dev/null", O_RDONLY | O_CLOEXEC, 0, count_result, &byte);
    case 5:
        return loop_renameat(loop, AT_FDCWD, "/dev/null/a", AT_FDCWD, "/dev/null/b", 0, count_result, NULL);
    default:
        return loop_connect(loop, fds[0], (struct sockaddr *)&nowhere, sizeof nowhere, count_result, NULL);
    }
}

static void s31_operations_without_memory(void)
{
    enum { KINDS = 7 };

    for (size_t n = 0; n < 40; n++) {
        loop_t *loop = new_loop();
        char byte;
        struct iovec vector = {&byte, 1};
        struct msghdr message = {0};
        size_t accepted = 0;
        loop_handle_t handles[KINDS];
        int fds[2];

        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
        message.msg_iov = &vector;
        message.msg_iovlen = 1;
        ran = 0;
        fail(n, SIZE_MAX);
        for (int kind = 0; kind < KINDS; kind++) {
            handles[kind] = submit(loop, kind, fds, &message);
            if (handles[kind] > 0)
                accepted++;
            else
                CHECK(handles[kind], ==, -ENOMEM);
        }
        fail(0, SIZE_MAX);
        for (int kind = 0; kind < KINDS; kind++)
            if (handles[kind] > 0)
                CHECK(loop_cancel(loop, handles[kind]), ==, 1);
        CHECK(succeed(), ==, 0);
        if (n % 2 == 0) {
            CHECK(loop_run(loop), ==, LOOP_DONE);
            CHECK(ran, ==, accepted);
        }
        close_loop(loop);
        close(fds[0]);
        close(fds[1]);
        if (accepted == KINDS && n % 2 == 0)
            break;
        CHECK(n, <, 39);
    }
}

/* A refused call leaves nothing in the kernel that makes the next call fail. */
static void s31_buffers_with_any_one_allocation_failing(void)
{
    int made = -ENOMEM;
    size_t n;

    for (n = 0; made != 0 && n < 100; n++) {
        loop_t *loop = new_loop();
        loop_buffers_t *buffers = NULL;

        fail(n, n + 1);
        made = loop_buffers_new(loop, 4, 100, &buffers);
        CHECK(made, ==, succeed() > n ? -ENOMEM : 0);
        if (made != 0)
            CHECK(loop_buffers_new(loop, 4, 100, &buffers), ==, 0);
        CHECK(loop_buffers_free(buffers), ==, 0);
        close_loop(loop);
    }
    CHECK(n, >, 3);
}

static const struct check_test tests[] = {
    TEST(the_wrapping_works),
    TEST(s31_loop_new_with_any_one_allocation_failing),
    TEST(s31_loop_new_with_all_allocations_failing_from_some_point),
    TEST(s31_a_failed_loop_new_leaves_no_descriptor_behind),
    TEST(s31_calls_without_memory),
    TEST(s31_loop_fd_without_memory),
    TEST(s31_errors_in_words_without_memory),
    TEST(s31_posts_with_any_one_allocation_failing),
    TEST(s31_posts_with_all_allocations_failing_from_some_point),
    TEST(s31_posts_that_a_run_has_no_room_for_wait_in_order),
    TEST(s31_posts_that_call_soon_has_no_room_for_wait_in_order),
    TEST(s31_waking_and_stopping_a_loop_without_memory),
    TEST(s31_work_with_any_one_allocation_failing),
    TEST(s31_work_with_all_allocations_failing_from_some_point),
    TEST(s31_threads_cancelling_and_closing_allocate_nothing),
    TEST(s31_child_watchers_without_memory),
    TEST(s31_operations_without_memory),
    TEST(s31_buffers_with_any_one_allocation_failing),
    /* This test comes last: it leaves names of callbacks, which a tool reports as lost in a child that is forked later. */
    TEST(s31_loop_new_with_all_that_the_environment_asks_for),
};

CHECK_MAIN(tests)
