/*
 * ringloop for C++17 and later, in one header over ringloop.h.
 *
 *     #include <ringloop.hpp>
 *
 *     ringloop::Loop loop;
 *     loop.call_later(100ms, [] { std::puts("hello"); });
 *     loop.run();
 *
 * Compile with `pkg-config --cflags --libs ringloop`. ringloop.h is the manual: its rules for order, time,
 * threads, forks, costs and errors hold here too. Every function of ringloop.h can be called with `loop.get()` and the
 * handles of this header. This header adds:
 *
 *   Ownership  A Loop closes itself, a Handle cancels, a Remote counts. LoopRef is a pointer to a loop that another
 *              object owns, and has all the functions; callbacks get one.
 *   Callbacks  Every callable is accepted, also one that can only be moved. It gets the arguments of the C callback
 *              without `arg`, with or without a LoopRef before them: `[](LoopRef loop, int fd, uint32_t events)`,
 *              `[](int fd, uint32_t events)`. The callable is moved in, and destroyed exactly once, on the loop's
 *              thread: after its last call, when it is cancelled, when the loop is closed, or at once when it was
 *              refused. Therefore a buffer that the callable owns lives as long as the kernel uses it. Take the address
 *              of such a buffer before the call, since the compiler chooses which of two arguments is made first, the
 *              address or the callable.
 *   Cost       A callable travels in the `arg`, without an allocation, if it is trivial to copy and to destroy, no
 *              larger than a pointer, and callable while const (a lambda that captures `this`, or one reference). Each
 *              call is then a call of a copy. Every other callable costs an allocation and a release hook.
 *   Time       Durations and time points of std::chrono. A duration that is not a whole number of nanoseconds is
 *              rounded up, so that nothing is early; a negative duration and NaN count as 0; from 9.2e18 ns (291 years)
 *              on a duration is LOOP_NEVER. Time points are those of std::chrono::steady_clock, which is
 *              CLOCK_MONOTONIC in libstdc++ and in libc++ on Linux. The time points of a loop with LOOP_VIRTUAL_TIME
 *              are on its own clock.
 *   Errors     A function that fails throws std::system_error, with the errno as its code() (of
 *              std::generic_category()) and the sentence of loop_last_error() in its what(). Nothing is lost then, as
 *              in C, except a callable that was moved in. The result of an operation is not an exception: see
 *              error_of(). `new` throws std::bad_alloc.
 *   Exceptions An exception of a callback ends the run as loop_break() does: the rest of the batch stays at the front
 *              of the ready queue, and run(), run_forever() or run_once() throws the exception. In a run of C's
 *              loop_run() no function can take the exception, and it ends the program by std::terminate(). So does an
 *              exception of a callable's destructor, and an exception of a callback of a plugin (dlopen()) in a run of
 *              the program, unless the program is linked with -rdynamic.
 *   Without    With -fno-exceptions, a function that would throw returns -errno (or false) as in C, and a loop that
 *              could not be made is empty: `if (!loop) puts(loop_last_error());`. If `new` gets no memory, the program
 *              ends.
 *
 * Threads: a LoopRef, a Loop and a Handle are for the loop's thread, unless a function says otherwise. A Remote is for
 * any thread.
 */
#ifndef RINGLOOP_HPP
#define RINGLOOP_HPP

#include <ringloop.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <netdb.h>
#include <new>
#include <optional>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace ringloop {

namespace per_thread {

/*
 * A run on this thread. Callbacks leave an exception here, or the order to close the loop. The runs of a thread form a
 * list, innermost first.
 */
struct Run {
    loop_t *loop;
    Run *outer;
    std::exception_ptr error;
    bool closes;
};

/*
 * Visible, so that all shared objects of a program share one. A plugin (dlopen()) has another, unless the program is
 * linked with -rdynamic.
 */
__attribute__((visibility("default"))) inline thread_local Run *innermost = nullptr;

} // namespace per_thread

/* Functions with and without exceptions are different functions. One program may contain both. */
#ifndef __cpp_exceptions
inline namespace without_exceptions {
#endif

class LoopRef;
class Handle;
class Remote;
template <class T>
class Outcome;

/* The clock of all times in this header. */
using Clock = std::chrono::steady_clock;

/* ==== time and errors ==== */

/** Converts a duration for C: nanoseconds, rounded up, 0 if it is negative, LOOP_NEVER from 9.2e18 on. */
template <class Rep, class Period>
constexpr uint64_t to_ns(std::chrono::duration<Rep, Period> duration)
{
    const long double about = std::chrono::duration<long double, std::nano>(duration).count();

    if (!(about > 0)) return 0;
    if (about >= 9.2e18L) return LOOP_NEVER;
    return static_cast<uint64_t>(std::chrono::ceil<std::chrono::nanoseconds>(duration).count());
}

/**
 * Converts a time for C: on CLOCK_MONOTONIC, or on a loop's own clock. A time before the beginning of the clock is 0,
 * which is past.
 */
template <class Duration>
constexpr uint64_t to_ns(std::chrono::time_point<Clock, Duration> when)
{
    return to_ns(when.time_since_epoch());
}

/** Converts a time from C. LOOP_NEVER becomes Clock::time_point::max(), which to_ns() converts back. */
constexpr Clock::time_point to_time(uint64_t when_ns)
{
    if (when_ns > static_cast<uint64_t>(INT64_MAX)) return Clock::time_point::max();
    return Clock::time_point(std::chrono::nanoseconds(static_cast<int64_t>(when_ns)));
}

/** Converts the result of an operation to an error: no error if the result is 0 or more. */
inline std::error_code error_of(int result)
{
    return std::error_code(result < 0 ? -result : 0, std::generic_category());
}

namespace detail {

/* Throws a negative answer of a C function, and returns every other answer. */
template <class T>
T checked(T answer, const char *sentence = nullptr)
{
    (void)sentence;
#ifdef __cpp_exceptions
    if constexpr (std::is_signed_v<T>) {
        if (answer < 0) throw std::system_error(error_of(static_cast<int>(answer)), sentence ? sentence : loop_last_error());
    }
#endif
    return answer;
}

template <class T>
struct IsTime : std::false_type {};
template <class Rep, class Period>
struct IsTime<std::chrono::duration<Rep, Period>> : std::true_type {};
template <class Duration>
struct IsTime<std::chrono::time_point<Clock, Duration>> : std::true_type {};

/* Converts an argument for a parameter of a C function: whole numbers as C converts them, and times. */
template <class P, class A>
P to_c(A &&argument)
{
    using Value = std::decay_t<A>;
    if constexpr (IsTime<Value>::value) {
        return to_ns(argument);
    } else if constexpr (std::is_integral_v<P> && (std::is_integral_v<Value> || std::is_enum_v<Value>)) {
        return static_cast<P>(argument);
    } else {
        return std::forward<A>(argument);
    }
}

/* Calls `call`, and returns the exception that was thrown, if any. */
template <class Call>
std::exception_ptr attempt(Call &&call) noexcept
{
#ifdef __cpp_exceptions
    try {
        call();
    } catch (...) {
        return std::current_exception();
    }
#else
    call();
#endif
    return nullptr;
}

/*
 * Gives the exception of a callback to the run of that callback. Without such a run, the exception leaves this
 * function, which is noexcept.
 */
inline void hand_over(loop_t *loop, std::exception_ptr error) noexcept
{
    per_thread::Run *run = per_thread::innermost;

    if (!run || run->loop != loop) std::rethrow_exception(std::move(error));
    if (!run->error) run->error = std::move(error);
    loop_break(loop);
}

[[noreturn]] inline void give_up(const char *what) noexcept
{
    std::fprintf(stderr, "ringloop: %s: %s\n", what, loop_last_error());
    std::terminate();
}

/* Closes a loop whose owner is destroyed: at once, or after the run of the loop has returned. */
inline void close_or_defer(loop_t *loop) noexcept
{
    if (loop_close(loop) == 0) return;
    for (per_thread::Run *run = per_thread::innermost; run; run = run->outer) {
        if (run->loop == loop) {
            run->closes = true;
            loop_break(loop);
            return;
        }
    }
    give_up("a loop is destroyed where it cannot be closed");
}

/* Runs the loop with a C function, and then does the actions that the callbacks have left. */
template <class... P>
int run(loop_t *loop, int (*function)(loop_t *, P...), P... args)
{
    per_thread::Run run{loop, per_thread::innermost, nullptr, false};

    per_thread::innermost = &run;
    const int answer = function(loop, args...);
    per_thread::innermost = run.outer;
    if (run.closes) close_or_defer(loop);
    if (run.error) std::rethrow_exception(std::move(run.error));
    return answer;
}

/* Calls `f` with the loop or without, whichever compiles. */
template <class F, class... A>
void invoke(F &f, LoopRef loop, A &&...args);

/*
 * The data of every stored callable: the Handle that owns it, if any, and whether the callable frees itself after its
 * last call.
 */
struct Block {
    Handle *owner = nullptr;
    bool frees_itself = false;

    void belongs_to(Handle *handle, loop_t *loop, loop_handle_t id) noexcept;
    void has_ended() noexcept;
};

/* Every callable starts here. Defined below. */
template <class... P, class... Args>
loop_handle_t start(loop_t *loop, Handle *owner, loop_handle_t (*function)(loop_t *, P...), Args &&...args);

template <class Function, class F, class... Delay>
bool post(loop_remote_t *remote, Function function, F &&f, Delay... delay);

inline bool accepted(int answer)
{
    return answer != -ESHUTDOWN && checked(answer) >= 0;
}

template <class Work, class Done>
struct Job;

} // namespace detail

/* ==== a loop that is not owned ==== */

/** The addresses that getaddrinfo() has found. freeaddrinfo() frees them. */
struct FreeAddrInfo {
    void operator()(addrinfo *list) const noexcept { freeaddrinfo(list); }
};
using AddrInfo = std::unique_ptr<addrinfo, FreeAddrInfo>;

/**
 * A loop, not owned. A LoopRef is one pointer: pass it by value. Callbacks get a LoopRef. A LoopRef must not be used
 * after the loop has been closed.
 */
class LoopRef {
public:
    explicit LoopRef(loop_t *loop) noexcept : loop_(loop) {}

    /** Gets the innermost loop that is running on this thread; empty if there is none. */
    static LoopRef running() noexcept { return LoopRef(loop_running()); }

    /** The loop, for the functions of ringloop.h. */
    loop_t *get() const noexcept { return loop_; }

    explicit operator bool() const noexcept { return loop_ != nullptr; }

    /* ---- scheduling: these return a handle, for cancel() and all other functions that take one ---- */

    /**
     * Calls any function of ringloop.h that takes a callback and returns a handle. A callable replaces `callback` and
     * `arg`, and the loop is passed automatically:
     *
     *     loop.start(loop_recv, fd, buffer, sizeof buffer, 0, [](LoopRef loop, int32_t result, uint32_t flags) { ... });
     *     loop.start(loop_submit, &sqe, [](int32_t result, uint32_t flags) { ... });
     *     loop.start(loop_call_every, 20ms, [] { ... });
     *
     * The arguments of the callable, the errors and the cost are those of the C function.
     */
    template <class... P, class... Args>
    loop_handle_t start(loop_handle_t (*function)(loop_t *, P...), Args &&...args) const
    {
        return detail::start(loop_, nullptr, function, std::forward<Args>(args)...);
    }

    /** loop_call_soon(): calls `f` in the next iteration. */
    template <class F>
    loop_handle_t call_soon(F &&f) const { return start(loop_call_soon, std::forward<F>(f)); }

    /** loop_call_later(): calls `f` once, `delay` from now. */
    template <class Rep, class Period, class F>
    loop_handle_t call_later(std::chrono::duration<Rep, Period> delay, F &&f) const
    {
        return start(loop_call_later, delay, std::forward<F>(f));
    }

    /** loop_call_at(): calls `f` once, at `when`. */
    template <class Duration, class F>
    loop_handle_t call_at(std::chrono::time_point<Clock, Duration> when, F &&f) const
    {
        return start(loop_call_at, when, std::forward<F>(f));
    }

    /** loop_call_every(): calls `f` every `period`, for the first time a period from now. */
    template <class Rep, class Period, class F>
    loop_handle_t call_every(std::chrono::duration<Rep, Period> period, F &&f) const
    {
        return start(loop_call_every, period, std::forward<F>(f));
    }

    /** loop_watch_fd(): `f(int fd, uint32_t events)` whenever `fd` is ready for one of `events`. */
    template <class F>
    loop_handle_t watch_fd(int fd, uint32_t events, F &&f) const
    {
        return start(loop_watch_fd, fd, events, std::forward<F>(f));
    }

    /** loop_add_signal_handler(): `f(int signum)` whenever the process gets the signal. */
    template <class F>
    loop_handle_t add_signal_handler(int signum, F &&f) const
    {
        return start(loop_add_signal_handler, signum, std::forward<F>(f));
    }

    /** loop_watch_child(): `f(pid_t pid, int wait_status)` once when the child has ended. */
    template <class F>
    loop_handle_t watch_child(pid_t pid, F &&f) const { return start(loop_watch_child, pid, std::forward<F>(f)); }

    /**
     * loop_run_in_executor(): calls `work()` on another thread, then `done(Outcome<T> outcome)` on the loop's thread. T
     * is the type that `work` returns. Both callables are destroyed on the loop's thread.
     */
    template <class Work, class Done>
    loop_handle_t run_in_executor(Work &&work, Done &&done) const;

    /** loop_getaddrinfo(): `f(int status, AddrInfo result)`, where `status` is 0 or EAI_*. */
    template <class F>
    loop_handle_t getaddrinfo(const char *node, const char *service, const addrinfo *hints, F &&f) const
    {
        return start(loop_getaddrinfo, node, service, hints,
                     [f = std::decay_t<F>(std::forward<F>(f))](LoopRef loop, int status, addrinfo *result) mutable {
                         detail::invoke(f, loop, status, AddrInfo(result));
                     });
    }

    /**
     * loop_submit_chain(): calls `f(size_t index, int32_t result, uint32_t flags)` for each entry. Each entry gets a
     * copy of `f`. Returns the handles; with -fno-exceptions, none if the chain was refused.
     */
    template <class F>
    std::vector<loop_handle_t> submit_chain(const io_uring_sqe *sqes, std::size_t count, const F &f) const;

    /* ---- handles: a handle that has ended is no error for cancel() and is_pending() only ---- */

    /** loop_cancel(): true if the thing is gone, or was asked to end; false if it had ended before. */
    bool cancel(loop_handle_t handle) const
    {
        const int answer = loop_cancel(loop_, handle);
        return answer != -ENOENT && detail::checked(answer) >= 0;
    }

    /** loop_reschedule(): moves a timer to a time, or to a duration from now. */
    template <class When>
    int reschedule(loop_handle_t timer, When when) const { return call(loop_reschedule, timer, from_now(when)); }

    /** loop_set_deadline(): cuts an operation short at a time, or a duration from now. */
    template <class When>
    int set_deadline(loop_handle_t operation, When when) const { return call(loop_set_deadline, operation, from_now(when)); }

    /** loop_when(): gets the time at which a timer is due. */
    Clock::time_point when(loop_handle_t timer) const
    {
        uint64_t when_ns = LOOP_NEVER;
        call(loop_when, timer, &when_ns);
        return to_time(when_ns);
    }

    /** loop_unref(): makes a handle not count for run(). */
    int unref(loop_handle_t handle) const { return call(loop_unref, handle); }

    bool is_pending(loop_handle_t handle) const noexcept { return loop_is_pending(loop_, handle); }

    /** loop_current(): gets the handle of the callback that is running, or 0. */
    loop_handle_t current() const noexcept { return loop_current(loop_); }

    /* ---- running: these functions throw the exceptions of callbacks ---- */

    /** loop_run(): runs until nothing is left. Returns LOOP_DONE, LOOP_STOPPED or LOOP_BROKEN. */
    int run() const { return detail::checked(detail::run(loop_, loop_run)); }

    /** loop_run_forever(): runs until stop() or break_(). Returns LOOP_STOPPED or LOOP_BROKEN. */
    int run_forever() const { return detail::checked(detail::run(loop_, loop_run_forever)); }

    /**
     * loop_run_once(): runs one iteration, which sleeps for at most `limit`. Returns how many callbacks ran; also 0 if
     * a signal ended the wait.
     */
    template <class Rep, class Period>
    int run_once(std::chrono::duration<Rep, Period> limit) const
    {
        const int answer = detail::run(loop_, loop_run_once, to_ns(limit));
        return answer == -EINTR ? 0 : detail::checked(answer);
    }

    /** As run_once(limit), without a limit. */
    int run_once() const { return run_once(Clock::duration::max()); }

    /**
     * loop_shutdown(): cancels everything, and runs until the last final callback has run. Then it throws the first
     * exception of these callbacks.
     */
    int shutdown() const { return detail::checked(detail::run(loop_, loop_shutdown)); }

    /**
     * loop_shutdown_within(): runs until nothing is left, for at most `limit`, then shuts down as shutdown() does.
     * Returns how many things had to be cancelled.
     */
    template <class Rep, class Period>
    int shutdown_within(std::chrono::duration<Rep, Period> limit) const
    {
        return detail::checked(detail::run(loop_, loop_shutdown_within, to_ns(limit)));
    }

    int stop() const { return call(loop_stop); }
    int break_() const { return call(loop_break); }
    bool is_running() const noexcept { return loop_is_running(loop_); }
    bool is_alive() const noexcept { return loop_is_alive(loop_); }

    /** loop_time(): gets the time of the loop's clock. Any thread. */
    Clock::time_point time() const noexcept { return to_time(loop_time(loop_)); }

    /** loop_next_deadline(); Clock::time_point::max() if there is none. */
    Clock::time_point next_deadline() const noexcept { return to_time(loop_next_deadline(loop_)); }

    /* ---- the rest ---- */

    /**
     * Calls any other function of ringloop.h, with the loop as its first argument: `loop.call(loop_forget_fd, fd)`. A
     * negative result is thrown.
     */
    template <class L, class R, class... P, class... Args>
    R call(R (*function)(L *, P...), Args &&...args) const
    {
        if constexpr (std::is_void_v<R>) {
            function(loop_, detail::to_c<P>(std::forward<Args>(args))...);
        } else {
            return detail::checked(function(loop_, detail::to_c<P>(std::forward<Args>(args))...));
        }
    }

    /** loop_remote_new(): makes a remote of the loop, for other threads. */
    Remote remote() const;

    /**
     * loop_buffers_new(): makes buffers for loop_recv_multi(). They are freed with the loop, or by loop_buffers_free().
     */
    loop_buffers_t *buffers(uint32_t count, uint32_t size) const
    {
        loop_buffers_t *buffers = nullptr;
        call(loop_buffers_new, count, size, &buffers);
        return buffers;
    }

    /** loop_metrics(). */
    loop_metrics_t metrics() const
    {
        loop_metrics_t metrics = {};
        metrics.size = sizeof metrics;
        call(loop_metrics, &metrics);
        return metrics;
    }

    /**
     * loop_walk(): calls `f(const loop_info_t &info)` for each thing that is pending. The first exception of `f` ends
     * its calls, and walk() throws it.
     */
    template <class F>
    int walk(F &&f) const;

protected:
    template <class Rep, class Period>
    uint64_t from_now(std::chrono::duration<Rep, Period> delay) const
    {
        const uint64_t now = loop_time(loop_), delay_ns = to_ns(delay);
        return delay_ns > LOOP_NEVER - now ? LOOP_NEVER : now + delay_ns;
    }

    template <class Duration>
    uint64_t from_now(std::chrono::time_point<Clock, Duration> when) const { return to_ns(when); }

    loop_t *loop_;
};

/* ==== owners ==== */

/**
 * Settings for a Loop; see loop_options_t: `Options options; options.slack_ns = to_ns(1ms);`.
 */
struct Options : loop_options_t {
    Options() noexcept : loop_options_t LOOP_OPTIONS_INIT {}
};

/**
 * A loop that is owned. A Loop can be moved, not copied. A Loop that was moved from is empty. LoopRefs stay valid when
 * the Loop is moved.
 *
 * The destructor closes the loop: it cancels everything that is pending and destroys the callables, and calls none. If
 * a callback destroys the Loop, by its callable or by an object that the callable owns, the run is broken off, and the
 * loop is closed after its run has returned; until then LoopRefs to the loop are valid. If neither is possible, the
 * destructor ends the program by std::terminate(), with a message: on another thread than the loop's, while that thread
 * has not ended; inside cancel() or walk() outside a run of this header.
 */
class Loop : public LoopRef {
public:
    /** loop_new(). With -fno-exceptions the Loop may be empty. */
    Loop() : LoopRef(nullptr) { detail::checked(loop_new(nullptr, &loop_)); }
    explicit Loop(const loop_options_t &options) : LoopRef(nullptr) { detail::checked(loop_new(&options, &loop_)); }

    /** Takes over a loop that loop_new() made; it may be NULL. */
    explicit Loop(loop_t *loop) noexcept : LoopRef(loop) {}

    Loop(Loop &&other) noexcept : LoopRef(other.release()) {}
    Loop &operator=(Loop &&other) noexcept
    {
        Loop former(std::exchange(loop_, other.release()));
        return *this;
    }
    Loop(const Loop &) = delete;
    Loop &operator=(const Loop &) = delete;

    ~Loop() { if (loop_) detail::close_or_defer(std::exchange(loop_, nullptr)); }

    /** Gives up the loop: the caller must call loop_close(). */
    loop_t *release() noexcept { return std::exchange(loop_, nullptr); }

    /**
     * loop_close(), which fails with EBUSY inside a run or a callback: the loop then stays open. After success the Loop
     * is empty.
     */
    int close() { return end(loop_close); }

    /**
     * loop_close_within(): fails with ETIMEDOUT if the kernel has not released the operations, or work has not ended.
     * The loop then stays open.
     */
    template <class Rep, class Period>
    int close_within(std::chrono::duration<Rep, Period> limit) { return end(loop_close_within, to_ns(limit)); }

private:
    /* Destructors of callables may destroy this object: it is not used after the loop has been closed. */
    template <class... P>
    int end(int (*function)(loop_t *, P...), P... args)
    {
        loop_t *loop = std::exchange(loop_, nullptr);
        const int answer = function(loop, args...);
        if (answer < 0) loop_ = loop;
        return detail::checked(answer);
    }
};

/**
 * Something that was started, owned. The thing is cancelled when its Handle is destroyed or assigned to. A Handle can
 * be moved, not copied.
 *
 *     Handle timer(loop, loop_call_every, 20ms, [this] { tick(); });
 *     Handle watcher(loop, loop_watch_fd, fd, POLLIN, [this](int fd, uint32_t events) { ready(); });
 *
 * A Handle becomes empty when its thing has ended, and may outlive the loop. (In a forked child nothing reports that
 * end, and the Handle does not change: its destructor does nothing there, whether the loop has been closed or not.)
 * After the destructor, the callable of a call, a timer, a watcher, a signal handler or a child is not called. An
 * operation is asked to end: its final callback is still to come, and the memory that the operation uses must live
 * until then. A Handle costs an allocation and a release hook, also for small callables.
 *
 * Threads: a Handle is used, moved and destroyed on the loop's thread, or on any thread after the loop has been closed.
 * If the destructor cannot cancel because it runs on another thread, it ends the program by std::terminate(), with a
 * message.
 */
class Handle {
public:
    Handle() noexcept = default;

    /** As LoopRef::start(). */
    template <class... P, class... Args>
    Handle(LoopRef loop, loop_handle_t (*function)(loop_t *, P...), Args &&...args)
    {
        detail::start(loop.get(), this, function, std::forward<Args>(args)...);
    }

    Handle(Handle &&other) noexcept { take(other); }
    Handle &operator=(Handle &&other) noexcept
    {
        if (this != &other) {
            /* The former callable may own `other`: it is destroyed last. */
            Handle former(std::move(*this));
            take(other);
        }
        return *this;
    }
    Handle(const Handle &) = delete;
    Handle &operator=(const Handle &) = delete;
    ~Handle() { cancel(); }

    /** Whether the thing has not ended yet. Inside its last callback this is still true. */
    explicit operator bool() const noexcept { return block_ != nullptr; }

    /** Gets the handle, for the functions that take one; 0 after the thing has ended. */
    loop_handle_t id() const noexcept { return id_; }

    /** Cancels the thing, as loop_cancel(). The Handle is empty afterwards. */
    void cancel() noexcept
    {
        loop_t *loop = loop_;
        const loop_handle_t id = detach();
        if (id != 0 && loop_cancel(loop, id) == -EPERM) detail::give_up("a Handle is destroyed on another thread");
    }

    /** Gives up the thing without a cancel, and returns its handle. The Handle is empty afterwards. */
    loop_handle_t detach() noexcept
    {
        if (block_) block_->owner = nullptr;
        block_ = nullptr;
        return std::exchange(id_, 0);
    }

    /** Moves a timer, as LoopRef::reschedule(). Fails with ENOENT if the timer has ended. */
    template <class When>
    int reschedule(When when)
    {
        return block_ ? LoopRef(loop_).reschedule(id_, when) : detail::checked(-ENOENT, "the handle is empty: the timer has ended");
    }

private:
    friend struct detail::Block;

    void take(Handle &other) noexcept
    {
        loop_ = other.loop_;
        block_ = std::exchange(other.block_, nullptr);
        id_ = std::exchange(other.id_, 0);
        if (block_) block_->owner = this;
    }

    loop_t *loop_ = nullptr;
    loop_handle_t id_ = 0;
    detail::Block *block_ = nullptr;
};

/**
 * A counted reference to a loop, for other threads (loop_remote_t). A Remote can be copied and moved, and may outlive
 * its loop.
 *
 * Any thread. As with a std::shared_ptr, no thread may assign to a Remote while another thread uses it.
 */
class Remote {
public:
    Remote() noexcept = default;

    /** loop_remote_new(). The loop's thread. */
    explicit Remote(LoopRef loop) { detail::checked(loop_remote_new(loop.get(), &remote_)); }

    Remote(const Remote &other) noexcept : remote_(loop_remote_retain(other.remote_)) {}
    Remote(Remote &&other) noexcept : remote_(std::exchange(other.remote_, nullptr)) {}
    Remote &operator=(Remote other) noexcept
    {
        std::swap(remote_, other.remote_);
        return *this;
    }
    ~Remote() { loop_remote_release(remote_); }

    /** The remote, for the functions of ringloop.h. */
    loop_remote_t *get() const noexcept { return remote_; }

    /**
     * loop_remote_call_soon(): calls `f` on the loop's thread, and destroys it there, or on the thread that closes the
     * loop. Returns false if the loop is shut down, being closed or closed: then `f` is not called, and the object that
     * was moved from it is destroyed here.
     */
    template <class F>
    bool call_soon(F &&f) const { return detail::post(remote_, loop_remote_call_soon, std::forward<F>(f)); }

    /** loop_remote_call_later(): calls `f` as call_soon() does, `delay` from now. */
    template <class Rep, class Period, class F>
    bool call_later(std::chrono::duration<Rep, Period> delay, F &&f) const
    {
        return detail::post(remote_, loop_remote_call_later, std::forward<F>(f), to_ns(delay));
    }

    /** loop_remote_wakeup(), which signal handlers may also call. Returns false after the loop was closed. */
    bool wakeup() const noexcept { return loop_remote_wakeup(remote_) == 0; }

    /**
     * loop_remote_stop(): stops the loop, in order with other posts. Returns false if the loop is shut down, being
     * closed or closed.
     */
    bool stop() const { return detail::accepted(loop_remote_stop(remote_)); }

private:
    loop_remote_t *remote_ = nullptr;
};

inline Remote LoopRef::remote() const
{
    return Remote(*this);
}

/** The outcome of the work of run_in_executor(): a value, an exception, or a cancel before the work ran. */
template <class T>
class Outcome {
public:
    /** 0, or -ECANCELED. */
    int status() const noexcept { return status_; }

    /** The exception of the work, if any. */
    std::exception_ptr error() const noexcept { return error_; }

    /**
     * Gets the value that the work returned, once. Throws the exception of the work, or std::system_error with
     * ECANCELED. With -fno-exceptions, check status() first.
     */
    T get()
    {
        if (error_) std::rethrow_exception(error_);
        detail::checked(status_, "the work was cancelled, and never ran");
        if constexpr (!std::is_void_v<T>) return std::move(*value_);
    }

private:
    template <class Work, class Done>
    friend struct detail::Job;

    struct Nothing {};

    int status_ = 0;
    std::exception_ptr error_;
    std::optional<std::conditional_t<std::is_void_v<T>, Nothing, T>> value_;
};

/* ==== storage of callables ==== */

namespace detail {

template <class F, class... A>
void invoke(F &f, LoopRef loop, A &&...args)
{
    if constexpr (std::is_invocable_v<F &, LoopRef, A...>) {
        f(loop, std::forward<A>(args)...);
    } else {
        static_assert(std::is_invocable_v<F &, A...>, "the callable does not take what its callback gets, with a LoopRef first or without");
        f(std::forward<A>(args)...);
    }
}

template <class F>
struct Stored : Block {
    F f;

    template <class G>
    explicit Stored(G &&g) : f(std::forward<G>(g))
    {
    }
};

inline void Block::belongs_to(Handle *handle, loop_t *loop, loop_handle_t id) noexcept
{
    owner = handle;
    handle->loop_ = loop;
    handle->id_ = id;
    handle->block_ = this;
}

inline void Block::has_ended() noexcept
{
    if (owner) owner->detach();
}

/* The release hook. The Handle becomes empty here, and before the destructor of its callable runs. */
template <class F>
void release(void *arg) noexcept
{
    auto *stored = static_cast<Stored<F> *>(arg);

    stored->has_ended();
    delete stored;
}

/*
 * The callbacks of operations, whose last argument but one is `flags`, and the callbacks of work. The callbacks of
 * watchers have the type of the former, those of signal handlers the type of the latter.
 */
template <class C>
constexpr bool has_flags = std::is_same_v<C, loop_io_callback_t> || std::is_same_v<C, loop_recv_callback_t>;
template <class C>
constexpr bool is_of_work = std::is_same_v<C, loop_done_t> || std::is_same_v<C, loop_addrinfo_callback_t>;

/* A C callback for a callable. Its last argument is `arg`. */
template <class F, class C>
struct Adapter;

template <class F, class... Rest>
struct Adapter<F, void (*)(loop_t *, Rest...)> {
    using C = void (*)(loop_t *, Rest...);
    using Arguments = std::tuple<Rest...>;
    static constexpr std::size_t arg = sizeof...(Rest) - 1;

    template <class G, std::size_t... I>
    static constexpr bool takes(std::index_sequence<I...>)
    {
        return std::is_invocable_v<G &, LoopRef, std::tuple_element_t<I, Arguments>...> ||
               std::is_invocable_v<G &, std::tuple_element_t<I, Arguments>...>;
    }

    /*
     * A callable that cannot be called while const may change, and would lose the change from one call to the next. (A
     * callable is never assigned to, and g++ 12 reports that some lambdas that capture a reference are not trivially
     * copyable, because they have no assignment.)
     */
    static constexpr bool is_small = sizeof(F) <= sizeof(void *) && std::is_trivially_copy_constructible_v<F> &&
                                     std::is_trivially_destructible_v<F> && takes<const F>(std::make_index_sequence<arg>());

    template <std::size_t... I>
    static void pass(F &f, loop_t *loop, Arguments &values, std::index_sequence<I...>)
    {
        (void)values;
        if (auto error = attempt([&] { invoke(f, LoopRef(loop), std::get<I>(values)...); })) hand_over(loop, std::move(error));
    }

    /* For a callable that is stored in `arg` itself. */
    static void *pack(const F &f) noexcept
    {
        void *packed = nullptr;
        if constexpr (!std::is_empty_v<F>) std::memcpy(&packed, std::addressof(f), sizeof f);
        return packed;
    }

    static void call_packed(loop_t *loop, Rest... rest) noexcept
    {
        Arguments values(rest...);
        alignas(F) unsigned char bytes[sizeof(F)] = {};
        std::memcpy(bytes, &std::get<arg>(values), sizeof(F));
        pass(*std::launder(reinterpret_cast<F *>(bytes)), loop, values, std::make_index_sequence<arg>());
    }

    static void call_stored(loop_t *loop, Rest... rest) noexcept
    {
        Arguments values(rest...);
        auto *stored = static_cast<Stored<F> *>(std::get<arg>(values));
        pass(stored->f, loop, values, std::make_index_sequence<arg>());
        if constexpr (has_flags<C> || is_of_work<C>) {
            bool is_last = true;
            if constexpr (has_flags<C>) is_last = !(std::get<arg - 1>(values) & LOOP_MORE);
            if (stored->frees_itself && is_last) release<F>(stored);
        }
    }
};

/*
 * Makes the started thing free its callable. If no memory is left for the release hook, the thing is cancelled as if it
 * had never been started. An operation or work cannot be cancelled that way: it continues, and its callable frees
 * itself after the last call (but not if the loop is closed before).
 */
template <class C, class F>
loop_handle_t keep(loop_t *loop, loop_handle_t handle, std::unique_ptr<Stored<F>> &stored, Handle *owner)
{
    if (const int refused = loop_on_release(loop, handle, release<F>)) {
        const char *const sentence = loop_last_error();
        const bool is_operation = has_flags<C> && loop_set_deadline(loop, handle, LOOP_NEVER) != -EINVAL;
        const bool is_work = is_of_work<C> && loop_ref(loop, handle) == 0;

        if (!is_operation && !is_work) {
            loop_cancel(loop, handle);
            return checked(refused, sentence);
        }
        stored->frees_itself = true;
    }
    if (owner) stored->belongs_to(owner, loop, handle);
    stored.release();
    return handle;
}

template <class... P, class Args, std::size_t... I>
loop_handle_t start_with(loop_t *loop, Handle *owner, loop_handle_t (*function)(loop_t *, P...), Args args, std::index_sequence<I...>)
{
    using Parameters = std::tuple<P...>;
    using Given = std::tuple_element_t<sizeof...(I), Args>;
    using F = std::decay_t<Given>;
    using C = std::tuple_element_t<sizeof...(I), Parameters>;
    using With = Adapter<F, C>;
    auto &&f = std::get<sizeof...(I)>(args);

    if constexpr (With::is_small) {
        if (!owner) {
            return checked(function(loop, to_c<std::tuple_element_t<I, Parameters>>(std::get<I>(std::move(args)))...,
                                    With::call_packed, With::pack(f)));
        }
    }
    auto stored = std::make_unique<Stored<F>>(std::forward<Given>(f));
    const loop_handle_t handle = checked(function(loop, to_c<std::tuple_element_t<I, Parameters>>(std::get<I>(std::move(args)))...,
                                                  With::call_stored, static_cast<void *>(stored.get())));
    return handle < 0 ? handle : keep<C>(loop, handle, stored, owner);
}

template <class... P, class... Args>
loop_handle_t start(loop_t *loop, Handle *owner, loop_handle_t (*function)(loop_t *, P...), Args &&...args)
{
    static_assert(sizeof...(Args) + 1 == sizeof...(P),
                  "give the arguments of the C function, without the loop, and a callable in the place of callback and arg");
    return start_with(loop, owner, function, std::forward_as_tuple(std::forward<Args>(args)...),
                      std::make_index_sequence<sizeof...(Args) - 1>());
}

template <class Function, class F, class... Delay>
bool post(loop_remote_t *remote, Function function, F &&f, Delay... delay)
{
    using Value = std::decay_t<F>;
    using With = Adapter<Value, loop_callback_t>;

    if constexpr (With::is_small) {
        return accepted(function(remote, delay..., With::call_packed, With::pack(f), nullptr));
    } else {
        auto stored = std::make_unique<Stored<Value>>(std::forward<F>(f));
        const bool taken = accepted(function(remote, delay..., With::call_stored, stored.get(), release<Value>));
        if (taken) stored.release();
        return taken;
    }
}

/* Work and its `done`, in one callable. */
template <class Work, class Done>
struct Job {
    using Value = std::decay_t<std::invoke_result_t<Work &>>;

    Work work;
    Done done;
    Outcome<Value> outcome;

    static void run(void *arg) noexcept
    {
        Job &job = static_cast<Stored<Job> *>(arg)->f;
        job.outcome.error_ = attempt([&] {
            if constexpr (std::is_void_v<Value>) {
                job.work();
            } else {
                job.outcome.value_.emplace(job.work());
            }
        });
    }

    void operator()(LoopRef loop, int status)
    {
        outcome.status_ = status;
        invoke(done, loop, std::move(outcome));
    }
};

/* One entry of a chain. */
template <class F>
struct Link {
    F f;
    std::size_t index;

    void operator()(LoopRef loop, int32_t result, uint32_t flags) { invoke(f, loop, index, result, flags); }
};

} // namespace detail

template <class Work, class Done>
loop_handle_t LoopRef::run_in_executor(Work &&work, Done &&done) const
{
    using Job = detail::Job<std::decay_t<Work>, std::decay_t<Done>>;
    return start(loop_run_in_executor, Job::run, Job{std::forward<Work>(work), std::forward<Done>(done), {}});
}

template <class F>
std::vector<loop_handle_t> LoopRef::submit_chain(const io_uring_sqe *sqes, std::size_t count, const F &f) const
{
    using Link = detail::Link<std::decay_t<F>>;
    using Stored = detail::Stored<Link>;
    std::vector<std::unique_ptr<Stored>> links;
    std::vector<void *> args;
    std::vector<loop_handle_t> handles(count);

    for (std::size_t index = 0; index < count; index++) {
        links.push_back(std::make_unique<Stored>(Link{f, index}));
        args.push_back(links.back().get());
    }
    if (detail::checked(loop_submit_chain(loop_, sqes, count, detail::Adapter<Link, loop_io_callback_t>::call_stored, args.data(),
                                          handles.data())) < 0) {
        return {};
    }
    for (std::size_t index = 0; index < count; index++)
        detail::keep<loop_io_callback_t>(loop_, handles[index], links[index], nullptr);
    return handles;
}

template <class F>
int LoopRef::walk(F &&f) const
{
    struct Walk {
        std::remove_reference_t<F> &f;
        std::exception_ptr error;
    } walk{f, nullptr};

    const auto show = [](loop_t *loop, const loop_info_t *info, void *arg) noexcept {
        auto &to = *static_cast<Walk *>(arg);
        if (!to.error) to.error = detail::attempt([&] { detail::invoke(to.f, LoopRef(loop), *info); });
    };
    const int answer = detail::checked(loop_walk(loop_, show, &walk));
    if (walk.error) std::rethrow_exception(walk.error);
    return answer;
}

#ifndef __cpp_exceptions
} // namespace without_exceptions
#endif

} // namespace ringloop

#endif /* RINGLOOP_HPP */
