// Watchers, signals, children, work and operations with callables.
#include "check.hpp"

#include <array>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <memory>
#include <netinet/in.h>
#include <string>
#include <sys/stat.h>
#include <thread>
#include <vector>

static void a_watcher_gets_the_descriptor_and_events()
{
    Loop loop;
    Pair pair;
    int calls = 0;

    loop.watch_fd(pair[0], POLLIN, [&](LoopRef ref, int fd, uint32_t events) {
        char byte = 0;
        CHECK(fd, ==, pair[0]);
        CHECK(events, ==, POLLIN);
        CHECK(read(fd, &byte, 1), ==, 1);
        if (++calls == 3) ref.cancel(ref.current());
    });
    CHECK(write(pair[1], "abc", 3), ==, 3);
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(calls, ==, 3);
    CHECK(loop.call(loop_forget_fd, pair[0]), ==, 0);
    loop.call(loop_set_data, &pair);
    CHECK_TRUE(loop.call(loop_data) == &pair);
}

static void a_handler_gets_the_signal()
{
    Loop loop;
    Handle handler(loop, loop_add_signal_handler, SIGUSR1, [](LoopRef ref, int signum) {
        CHECK(signum, ==, SIGUSR1);
        ref.stop();
    });

    raise(SIGUSR1);
    CHECK(loop.run_forever(), ==, LOOP_STOPPED);
}

static void a_child_gives_its_status()
{
    Loop loop;
    const pid_t child = fork();
    int status = 0;

    if (child == 0) _exit(7);
    loop.watch_child(child, [&](pid_t pid, int wait_status) {
        CHECK(pid, ==, child);
        status = wait_status;
    });
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

static void work_gives_what_it_returns()
{
    Loop loop;
    const auto here = std::this_thread::get_id();
    auto number = std::make_unique<int>(20);

    trace_clear();
    loop.run_in_executor(
        [number = std::move(number), here]() mutable {
            CHECK_TRUE(std::this_thread::get_id() != here);
            ++*number;
            return std::move(number);
        },
        [here](LoopRef ref, Outcome<std::unique_ptr<int>> outcome) {
            CHECK_TRUE(std::this_thread::get_id() == here && ref.is_running());
            CHECK(*outcome.get(), ==, 21);
            trace_add("a");
        });
    loop.run_in_executor([] {},
                         [](Outcome<void> outcome) {
                             outcome.get();
                             CHECK(outcome.status(), ==, 0);
                         });
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK_TEXT(trace, "a");
}

static void work_that_was_cancelled_never_runs()
{
    Options options;
    options.executor_threads = 1;
    Loop loop(options);
    std::array<int, 2> ends = {};
    int status = 0;

    CHECK(pipe(ends.data()), ==, 0);
    loop.run_in_executor(
        [&] {
            char byte = 0;
            return read(ends[0], &byte, 1);
        },
        [](Outcome<ssize_t> outcome) { CHECK(outcome.get(), ==, 1); });
    const loop_handle_t second = loop.run_in_executor([] { never(); }, [&](Outcome<void> outcome) {
        status = outcome.status();
        CHECK_THROWS(ECANCELED, outcome.get());
    });
    CHECK_TRUE(loop.cancel(second));
    loop.run_once(0ns);
    CHECK(write(ends[1], "a", 1), ==, 1);
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(status, ==, -ECANCELED);
    close(ends[0]);
    close(ends[1]);
}

static void work_and_its_value_go_with_the_loop()
{
    auto token = std::make_shared<int>(0);
    {
        Loop loop;
        loop.run_in_executor([token] { return token; }, [token](Outcome<std::shared_ptr<int>>) { never(); });
    }
    CHECK(token.use_count(), ==, 1);
}

static void addresses_are_freed_by_their_owner()
{
    Loop loop;
    addrinfo hints = {};
    int calls = 0;

    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST;
    loop.getaddrinfo("127.0.0.1", "80", &hints, [&](int status, AddrInfo list) {
        CHECK(status, ==, 0);
        CHECK(list->ai_family, ==, AF_INET);
        calls++;
    });
    loop.getaddrinfo("no number", nullptr, &hints, [&](LoopRef, int status, AddrInfo list) {
        CHECK(status, ==, EAI_NONAME);
        CHECK_TRUE(!list);
        calls++;
    });
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(calls, ==, 2);
}

// The callable owns the buffer: the buffer lives as long as the kernel uses it, even when the loop is closed.
static void a_buffer_of_the_callable_outlives_the_operation()
{
    Pair pair;
    Loop loop;
    std::string text;
    const auto receive = [&] {
        auto buffer = std::make_unique<std::array<char, 16>>();
        char *data = buffer->data();
        loop.start(loop_recv, pair[0], data, 16, 0,
                   [&, buffer = std::move(buffer)](int32_t result, uint32_t) {
                       if (result > 0) text.assign(buffer->data(), static_cast<size_t>(result));
                   });
    };

    receive();
    loop.start(loop_send_all, pair[1], "hello", 5, MSG_NOSIGNAL, [](int32_t result, uint32_t) { CHECK(result, ==, 5); });
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK_TEXT(text.c_str(), "hello");
    receive();
    loop.run_once(0ns);
}

static void an_operation_may_have_a_deadline()
{
    Loop loop;
    Pair pair;
    char byte = 0;
    uint32_t how = 0;

    loop.set_deadline(loop.start(loop_recv, pair[0], &byte, 1, 0,
                                 [&](int32_t result, uint32_t flags) {
                                     CHECK(result, ==, -ETIMEDOUT);
                                     how = flags;
                                 }),
                      1ms);
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK_TRUE(how & LOOP_TIMED_OUT);
}

static void connections_are_accepted_and_received_from()
{
    Loop loop;
    sockaddr_in address = {};
    socklen_t length = sizeof address;
    const int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    int connection = -1;
    std::string text;
    loop_buffers_t *buffers = loop.buffers(8, 64);

    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const auto *generic = reinterpret_cast<const sockaddr *>(&address);
    CHECK(bind(listener, generic, sizeof address), ==, 0);
    CHECK(listen(listener, 8), ==, 0);
    CHECK(getsockname(listener, reinterpret_cast<sockaddr *>(&address), &length), ==, 0);

    Handle accepting(loop, loop_accept_multi, listener, SOCK_CLOEXEC, [&](LoopRef ref, int32_t result, uint32_t flags) {
        if (result < 0) {
            CHECK(result, ==, -ECANCELED);
            return;
        }
        CHECK_TRUE(flags & LOOP_MORE);
        connection = result;
        ref.start(loop_recv_multi, connection, buffers, [&](int32_t size, const void *data, uint32_t more) {
            if (size > 0) text.append(static_cast<const char *>(data), static_cast<size_t>(size));
            if (!(more & LOOP_MORE)) accepting.cancel();
        });
    });
    loop.start(loop_connect, client, generic, length, [&](LoopRef ref, int32_t result, uint32_t) {
        CHECK(result, ==, 0);
        ref.start(loop_write_all, client, "ping", 4, LOOP_CURRENT, [&](int32_t, uint32_t) { shutdown(client, SHUT_WR); });
    });
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK_TEXT(text.c_str(), "ping");
    CHECK_TRUE(!accepting);
    close(connection);
    close(listener);
    close(client);
}

static void files_are_read_and_written()
{
    Loop loop;
    char path[] = "/tmp/ringloop-XXXXXX";
    const int fd = mkstemp(path);
    std::array<char, 8> buffer = {};
    int calls = 0;

    loop.start(loop_write_all, fd, "contents", 8, 0, [&](LoopRef ref, int32_t result, uint32_t) {
        CHECK(result, ==, 8);
        ref.start(loop_read, fd, buffer.data(), buffer.size(), 3, [&](int32_t length, uint32_t) {
            CHECK(length, ==, 5);
            CHECK_TEXT(buffer.data(), "tents");
            calls++;
        });
    });
    loop.start(loop_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, mode_t(0), [&](int32_t result, uint32_t) {
        CHECK(result, >=, 0);
        close(result);
        calls++;
    });
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(calls, ==, 2);
    close(fd);
    unlink(path);
}

static void ignore(size_t, int32_t result, uint32_t)
{
    CHECK(result, ==, 0);
}

static void any_entry_may_be_submitted_and_chained()
{
    Loop loop;
    std::array<io_uring_sqe, 3> chain = {};
    auto token = std::make_shared<int>(0);
    std::vector<size_t> order;

    for (io_uring_sqe &sqe : chain)
        sqe.opcode = IORING_OP_NOP;
    loop.start(loop_submit, &chain[0], [&](int32_t result, uint32_t) { CHECK(result, ==, 0); });
    const auto handles = loop.submit_chain(chain.data(), chain.size(),
                                           [&, token](LoopRef, size_t index, int32_t result, uint32_t) {
                                               CHECK(result, ==, 0);
                                               order.push_back(index);
                                           });
    CHECK(handles.size(), ==, 3);
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK_TRUE((order == std::vector<size_t>{0, 1, 2}));
    CHECK(token.use_count(), ==, 1);
    CHECK(loop.submit_chain(chain.data(), chain.size(), ignore).size(), ==, chain.size());
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(loop.submit_chain(nullptr, 0, ignore).size(), ==, 0);
    chain[1].flags = IOSQE_IO_DRAIN;
    CHECK_THROWS(EINVAL, loop.submit_chain(chain.data(), 3, [token](size_t, int32_t, uint32_t) { never(); }));
    CHECK(token.use_count(), ==, 1);
}

static void the_loop_may_be_inside_of_another()
{
    Loop loop;
    int calls = 0;

    loop.call_later(1ms, [&] { calls++; });
    CHECK(loop.call(loop_flush), ==, 0);
    pollfd fd = {loop.call(loop_fd), POLLIN, 0};
    CHECK(poll(&fd, 1, 5000), ==, 1);
    while (calls == 0)
        loop.run_once(0s);
    CHECK(loop.metrics().timers_fired, ==, 1);
}

#define NOT_UNDER_VALGRIND(name) TEST_NOT_UNDER("valgrind", name, "no other thread runs while one is in io_uring_enter()")

static const check_test tests[] = {
    TEST(a_watcher_gets_the_descriptor_and_events),
    TEST(a_handler_gets_the_signal),
    TEST(a_child_gives_its_status),
    NOT_UNDER_VALGRIND(work_gives_what_it_returns),
    NOT_UNDER_VALGRIND(work_that_was_cancelled_never_runs),
    NOT_UNDER_VALGRIND(work_and_its_value_go_with_the_loop),
    NOT_UNDER_VALGRIND(addresses_are_freed_by_their_owner),
    TEST(a_buffer_of_the_callable_outlives_the_operation),
    TEST(an_operation_may_have_a_deadline),
    TEST(connections_are_accepted_and_received_from),
    TEST(files_are_read_and_written),
    TEST(any_entry_may_be_submitted_and_chained),
    TEST(the_loop_may_be_inside_of_another),
};

CHECK_MAIN(tests)
