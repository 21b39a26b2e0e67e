// Owned loops, handles and remotes: their destructors, wherever these run.
#include "check.hpp"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

static_assert(!std::is_copy_constructible_v<Loop> && !std::is_copy_assignable_v<Loop>);
static_assert(!std::is_copy_constructible_v<Handle> && !std::is_copy_assignable_v<Handle>);
static_assert(std::is_copy_constructible_v<Remote> && std::is_nothrow_move_constructible_v<Remote>);
static_assert(sizeof(LoopRef) == sizeof(void *) && std::is_trivially_copyable_v<LoopRef>);

// ---- loops ----

static void a_loop_that_was_moved_from_is_empty()
{
    Loop first;
    loop_t *raw = first.get();
    int calls = 0;

    first.call_soon([&] { calls++; });
    Loop second = std::move(first);
    CHECK_TRUE(!first);
    CHECK_POINTER(second.get(), raw);
    first = std::move(second);
    CHECK_POINTER(first.get(), raw);
    first = std::move(*&first);
    CHECK_POINTER(first.get(), raw);
    first.run();
    CHECK(calls, ==, 1);
    first = Loop();
    CHECK(first.run(), ==, LOOP_DONE);
}

static void release_and_taking_hand_the_loop_over()
{
    Loop loop;
    loop_t *raw = loop.release();

    CHECK_TRUE(!loop);
    loop = Loop(raw);
    CHECK(loop.close(), ==, 0);
    CHECK_TRUE(!loop);
}

static void close_that_is_refused_changes_nothing()
{
    Loop loop;

    loop.call_soon([&] {
        CHECK_THROWS(EBUSY, loop.close());
        CHECK_THROWS(EBUSY, loop.close_within(1s));
        CHECK_TRUE(bool(loop));
    });
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(loop.close_within(1s), ==, 0);
}

// An object that owns a loop is deleted in a callback of this loop.
static void a_loop_destroyed_in_its_callback_is_closed_after_it()
{
    auto token = std::make_shared<int>(0);
    auto loop = std::make_unique<Loop>();
    LoopRef ref = *loop;
    Remote remote = loop->remote();

    trace_clear();
    loop->call_soon([&loop, token](LoopRef running) {
        loop.reset();
        running.call_soon([] { never(); });
        trace_add("a");
    });
    loop->call_later(0ns, [token] { never(); });
    CHECK(ref.run(), ==, LOOP_BROKEN);
    CHECK_TEXT(trace, "a");
    CHECK(token.use_count(), ==, 1);
    CHECK_TRUE(!remote.wakeup());
}

// The last owner of the loop is a callable, which is released during the run.
static void a_loop_owned_by_its_callable_is_closed_after_the_run()
{
    auto loop = std::make_shared<Loop>();
    LoopRef ref = *loop;
    Remote remote = loop->remote();

    loop->call_soon([loop] {});
    loop.reset();
    CHECK(ref.run(), ==, LOOP_BROKEN);
    CHECK_TRUE(!remote.wakeup());
}

static void a_loop_destroyed_in_the_run_of_another_is_closed_after_its_own()
{
    auto outer = std::make_unique<Loop>();
    LoopRef ref = *outer;
    Loop inner;

    trace_clear();
    inner.call_soon([&] { outer.reset(); });
    outer->call_soon([&] {
        inner.run();
        trace_add("o");
    });
    outer->call_soon([] { never(); });
    CHECK(ref.run(), ==, LOOP_BROKEN);
    CHECK_TEXT(trace, "o");
}

static void an_exception_and_the_end_of_the_loop_in_one_callback()
{
    auto loop = std::make_unique<Loop>();
    LoopRef ref = *loop;
    Remote remote = loop->remote();

    loop->call_soon([&] {
        loop.reset();
        throw std::system_error(error_of(-EDOM));
    });
    CHECK_THROWS(EDOM, ref.run());
    CHECK_TRUE(!remote.wakeup());
}

static void a_loop_may_be_adopted_by_a_thread()
{
    Loop loop;
    int calls = 0;

    loop.call_soon([&] { calls++; });
    std::thread([loop = std::move(loop)]() mutable {
        loop.call(loop_adopt);
        loop.run();
        Loop end = std::move(loop);
    }).join();
    CHECK(calls, ==, 1);
}

static void a_child_process_may_destroy_it()
{
    Loop loop;
    Handle timer(loop, loop_call_later, 1s, [] {});
    const auto body = [](void *arg) {
        Loop end = std::move(*static_cast<Loop *>(arg));
        CHECK_THROWS(EOWNERDEAD, end.run());
    };

    CHECK_IN_CHILD(body, &loop);
    CHECK_TRUE(bool(timer));
}

// ---- handles ----

static void a_handle_cancels_when_it_goes()
{
    Loop loop;
    auto token = std::make_shared<int>(0);
    {
        Handle timer(loop, loop_call_later, 0s, [token] { never(); });
        Handle call(loop, loop_call_soon, [token] { never(); });
        CHECK(token.use_count(), ==, 3);
        CHECK_TRUE(timer && call && timer.id() > 0);
    }
    CHECK(token.use_count(), ==, 1);
    CHECK(loop.run(), ==, LOOP_DONE);
}

static void a_handle_moves()
{
    Loop loop;
    int calls = 0;
    Handle first(loop, loop_call_later, 0s, [&] { calls++; });
    const loop_handle_t id = first.id();
    Handle second = std::move(first);

    CHECK_TRUE(!first && first.id() == 0);
    CHECK(second.id(), ==, id);
    std::vector<Handle> handles;
    handles.push_back(std::move(second));
    for (int i = 0; i < 10; i++)
        handles.emplace_back(loop, loop_call_later, 0s, [&] { calls++; });
    handles.erase(handles.begin() + 1, handles.begin() + 6);
    CHECK(handles[0].id(), ==, id);
    loop.run();
    CHECK(calls, ==, 6);
    for (const Handle &handle : handles)
        CHECK_TRUE(!handle);
}

static void a_handle_that_is_assigned_to_cancels_the_former()
{
    Loop loop;

    trace_clear();
    Handle timer(loop, loop_call_later, 0s, [] { never(); });
    timer = Handle(loop, loop_call_later, 0s, [] { trace_add("b"); });
    loop.run();
    CHECK_TEXT(trace, "b");
}

// As when the first element of a list is removed.
static void a_handle_may_be_assigned_from_what_it_owns()
{
    struct Step {
        Handle next;
    };
    Loop loop = virtual_loop();
    int calls = 0;
    auto step = std::make_unique<Step>();
    Step &last = *step;
    Handle first(loop, loop_call_later, 1h, [step = std::move(step)] { never(); });

    last.next = Handle(loop, loop_call_later, 1s, [&] { calls++; });
    first = std::move(last.next);
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(calls, ==, 1);
    CHECK_TRUE(!first);
}

static void a_timer_may_start_itself_again()
{
    Loop loop;
    Handle timer;
    int calls = 0;
    struct Again {
        Handle &timer;
        int &calls;
        void operator()(LoopRef loop) const
        {
            CHECK_TRUE(bool(timer));
            if (++calls < 5) timer = Handle(loop, loop_call_later, 1ns, Again{timer, calls});
        }
    };

    timer = Handle(loop, loop_call_later, 1ns, Again{timer, calls});
    loop.run();
    CHECK(calls, ==, 5);
    CHECK_TRUE(!timer);
}

static void a_handle_may_go_inside_its_callback()
{
    Loop loop;
    auto token = std::make_shared<int>(0);
    auto timer = std::make_unique<Handle>();

    *timer = Handle(loop, loop_call_every, 1ns, [&timer, token] {
        timer.reset();
        CHECK(token.use_count(), ==, 2);
    });
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(token.use_count(), ==, 1);
}

static void a_handle_may_outlive_its_loop()
{
    auto loop = std::make_unique<Loop>();
    Handle timer(*loop, loop_call_later, 1s, [] {});
    Handle other(*loop, loop_call_later, 2s, [] {});

    loop.reset();
    CHECK_TRUE(!timer && timer.id() == 0);
    std::thread([end = std::move(other)] {}).join();
}

// In a forked child no hook tells a Handle that its loop has been closed (S33).
struct Outlived {
    std::unique_ptr<Loop> loop = std::make_unique<Loop>();
    Handle timer{*loop, loop_call_later, 1h, [] { never(); }};
    Handle other;
};

static void close_before_its_handles(void *arg)
{
    auto &outlived = *static_cast<Outlived *>(arg);

    // The child destroys no object of the user; the callable stays reachable, so that it is no leak.
    static unsigned char in_sight[sizeof(Handle)];
    std::memcpy(in_sight, &outlived.timer, sizeof in_sight);
    asm volatile("" : : "r"(in_sight) : "memory");
    outlived.loop = nullptr;
    // Freed memory is used by other objects.
    std::vector<std::unique_ptr<char[]>> others;
    for (std::size_t size = 16; size < 8192; size += 16) {
        others.push_back(std::make_unique<char[]>(size));
        std::memset(others.back().get(), 0x5a, size);
    }
    CHECK_TRUE(bool(outlived.timer));
    CHECK_THROWS(EOWNERDEAD, outlived.timer.reschedule(1s));
    outlived.other = std::move(outlived.timer);
    outlived.other.cancel();
    CHECK_TRUE(!outlived.other);
    // Loops made in the child do not affect the handle.
    Loop fresh;
    int calls = 0;
    Handle timer(fresh, loop_call_later, 1ms, [&] { calls++; });
    CHECK(fresh.run(), ==, LOOP_DONE);
    CHECK(calls, ==, 1);
}

static void s33_a_handle_may_outlive_its_loop_in_a_child()
{
    Outlived outlived;

    CHECK_IN_CHILD(close_before_its_handles, &outlived);
    CHECK_TRUE(bool(outlived.timer));
    CHECK_TRUE(outlived.loop->is_pending(outlived.timer.id()));
}

static void a_handle_that_a_callable_owns_goes_with_it()
{
    Loop loop;

    loop.call_later(1s, [timer = Handle(loop, loop_call_later, 2s, [] { never(); })] {});
    loop.call_later(1s, [timer = Handle(loop, loop_call_later, 2s, [] { never(); })] {});
    loop.run_once(0ns);
}

static void a_detached_one_goes_on()
{
    Loop loop;
    int calls = 0;
    loop_handle_t id = 0;
    {
        Handle call(loop, loop_call_soon, [&] { calls++; });
        id = call.detach();
        CHECK_TRUE(!call);
    }
    CHECK_TRUE(loop.is_pending(id));
    loop.run();
    CHECK(calls, ==, 1);
}

static void a_handle_reschedules_its_timer()
{
    Loop loop = virtual_loop();
    Handle timer(loop, loop_call_later, 1s, [](LoopRef ref) { CHECK(to_ns(ref.time()), ==, LOOP_SEC(4)); });

    timer.reschedule(3s);
    CHECK(to_ns(loop.when(timer.id())), ==, LOOP_SEC(3));
    timer.reschedule(loop.time() + 4s);
    loop.run();
    CHECK_THROWS(ENOENT, timer.reschedule(1s));
    CHECK_THROWS(ENOENT, Handle().reschedule(1s));
    timer = Handle(loop, loop_call_soon, [] {});
    loop.close();
    CHECK_THROWS(ENOENT, timer.reschedule(1s));
}

static void an_operation_whose_handle_goes_is_asked_to_end()
{
    Loop loop;
    Pair pair;
    char buffer[4];
    int32_t result = 0;
    {
        Handle receive(loop, loop_recv, pair[0], buffer, sizeof buffer, 0, [&](int32_t r, uint32_t) { result = r; });
        loop.run_once(0ns);
    }
    CHECK(loop.run(), ==, LOOP_DONE);
    CHECK(result, ==, -ECANCELED);
}

// ---- remotes ----

static void posts_come_from_other_threads()
{
    Loop loop;
    int calls = 0;
    auto token = std::make_shared<int>(0);
    std::vector<std::thread> threads;

    for (int i = 0; i < 4; i++)
        threads.emplace_back([&calls, token, remote = loop.remote()] {
            for (int j = 0; j < 100; j++)
                CHECK_TRUE(remote.call_soon([&calls, token] { calls++; }));
            CHECK_TRUE(remote.call_later(1ms, [&calls](LoopRef ref) {
                if (++calls == 404) ref.stop();
            }));
        });
    loop.run_forever();
    for (std::thread &thread : threads)
        thread.join();
    CHECK(calls, ==, 404);
    threads.clear();
    CHECK(token.use_count(), ==, 1);
}

static void a_remote_outlives_its_loop()
{
    auto token = std::make_shared<int>(0);
    Remote remote;
    {
        Loop loop;
        remote = loop.remote();
        CHECK_TRUE(remote.wakeup());
        CHECK_TRUE(remote.call_soon([token] { never(); }));
    }
    CHECK(token.use_count(), ==, 1);
    Remote copy = remote;
    CHECK_TRUE(!copy.call_soon([token] { never(); }));
    CHECK_TRUE(!copy.call_later(1s, [token] { never(); }));
    CHECK(token.use_count(), ==, 1);
    CHECK_TRUE(!copy.wakeup() && !copy.stop());
    copy = *&copy;
    Remote moved = std::move(copy);
    CHECK_THROWS(EINVAL, copy.call_soon([] {}));
    CHECK_TRUE(!moved.stop());
}

static void a_remote_stops_its_loop()
{
    Loop loop;

    CHECK_TRUE(loop.remote().stop());
    CHECK(loop.run_forever(), ==, LOOP_STOPPED);
}

// ---- destructors that can do nothing ----

static void destroyed_on_another_thread()
{
    auto loop = std::make_unique<Loop>();

    loop->run_once(0ns);
    std::thread([&] { loop.reset(); }).join();
}

static void handle_destroyed_on_another_thread()
{
    Loop loop;
    Handle timer(loop, loop_call_later, 1s, [] {});

    std::thread([&] { timer = Handle(); }).join();
}

static void destroyed_without_a_run()
{
    auto loop = std::make_unique<Loop>();

    loop->call_soon([&] { loop.reset(); });
    loop_run(loop->get());
}

template <void (*body)()>
static int die()
{
    body();
    return 5;
}

static const check_child children[] = {
    {"destroyed_on_another_thread", die<destroyed_on_another_thread>},
    {"handle_destroyed_on_another_thread", die<handle_destroyed_on_another_thread>},
    {"destroyed_without_a_run", die<destroyed_without_a_run>},
};

static void a_destructor_that_can_do_nothing_ends_the_program()
{
    for (const check_child &child : children) {
        char text[4096];
        const int status = check_spawn_self(child.name, nullptr, text, sizeof text);

        CHECK_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        CHECK_TRUE(strstr(text, "ringloop: a "));
    }
}

static const check_test tests[] = {
    TEST(a_loop_that_was_moved_from_is_empty),
    TEST(release_and_taking_hand_the_loop_over),
    TEST(close_that_is_refused_changes_nothing),
    TEST(a_loop_destroyed_in_its_callback_is_closed_after_it),
    TEST(a_loop_owned_by_its_callable_is_closed_after_the_run),
    TEST(a_loop_destroyed_in_the_run_of_another_is_closed_after_its_own),
    TEST(an_exception_and_the_end_of_the_loop_in_one_callback),
    TEST(a_loop_may_be_adopted_by_a_thread),
    TEST(a_child_process_may_destroy_it),
    TEST(a_handle_cancels_when_it_goes),
    TEST(a_handle_moves),
    TEST(a_handle_that_is_assigned_to_cancels_the_former),
    TEST(a_handle_may_be_assigned_from_what_it_owns),
    TEST(a_timer_may_start_itself_again),
    TEST(a_handle_may_go_inside_its_callback),
    TEST(a_handle_may_outlive_its_loop),
    TEST(s33_a_handle_may_outlive_its_loop_in_a_child),
    TEST(a_handle_that_a_callable_owns_goes_with_it),
    TEST(a_detached_one_goes_on),
    TEST(a_handle_reschedules_its_timer),
    TEST(an_operation_whose_handle_goes_is_asked_to_end),
    TEST_NOT_UNDER("valgrind", posts_come_from_other_threads, "no other thread runs while one is in io_uring_enter()"),
    TEST(a_remote_outlives_its_loop),
    TEST(a_remote_stops_its_loop),
    TEST(a_destructor_that_can_do_nothing_ends_the_program),
};

int main(int argc, char **argv)
{
    const int child = check_child_main(argc, argv, children, sizeof children / sizeof children[0]);

    return child >= 0 ? child : check_run(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
