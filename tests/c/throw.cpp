// S30: a callback must return. A callback that throws ends the process by SIGABRT and with a message, without unwinding
// through frames that cannot be unwound.
//
// Without an argument, this program runs itself once for each kind of callback, and checks how the child ended.

#include <ringloop.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <sys/wait.h>
#include <unistd.h>

namespace {

void throw_it(loop_t *, void *)
{
    throw std::runtime_error("thrown in a callback");
}

void throw_in_release(void *)
{
    throw 1;
}

void throw_in_walk(loop_t *, const loop_info_t *, void *)
{
    throw 2;
}

void throw_in_work(void *)
{
    throw 4;
}

void throw_when_done(loop_t *, int, void *)
{
    throw 5;
}

void work(void *)
{
}

void throw_for_child(loop_t *, pid_t, int, void *)
{
    throw 6;
}

void throw_when_slow(loop_t *, uint64_t, uint32_t, void *, void *)
{
    throw 3;
}

void do_nothing(loop_t *, void *)
{
}

const char *const kinds[] = {"call", "timer", "repeat", "hook", "release", "release-at-close", "walk", "slow", "work",
                             "done", "child"};

int die(const char *kind)
{
    loop_t *loop = nullptr;

    if (loop_new(nullptr, &loop) != 0)
        return 3;
    if (std::strcmp(kind, "call") == 0)
        loop_call_soon(loop, throw_it, nullptr);
    else if (std::strcmp(kind, "timer") == 0)
        loop_call_later(loop, 1, throw_it, nullptr);
    else if (std::strcmp(kind, "repeat") == 0)
        loop_call_every(loop, 1, throw_it, nullptr);
    else if (std::strcmp(kind, "hook") == 0)
        loop_add_hook(loop, LOOP_BEFORE_WAIT, throw_it, nullptr);
    else if (std::strcmp(kind, "slow") == 0)
        loop_set_slow_callback(loop, 1, throw_when_slow, nullptr);
    else if (std::strcmp(kind, "work") == 0)
        loop_run_in_executor(loop, throw_in_work, throw_when_done, nullptr);
    else if (std::strcmp(kind, "done") == 0)
        loop_run_in_executor(loop, work, throw_when_done, nullptr);
    else if (std::strcmp(kind, "child") == 0) {
        pid_t child = fork();

        if (child == 0)
            _exit(0);
        loop_watch_child(loop, child, throw_for_child, nullptr);
    }

    loop_handle_t handle = loop_call_soon(loop, do_nothing, nullptr);

    if (std::strcmp(kind, "walk") == 0)
        loop_walk(loop, throw_in_walk, nullptr);
    if (std::strncmp(kind, "release", 7) == 0)
        loop_on_release(loop, handle, throw_in_release);
    if (std::strcmp(kind, "release-at-close") == 0)
        loop_close(loop);
    try {
        for (int i = 0; i < 500; i++)
            loop_run_once(loop, LOOP_MSEC(10));
    } catch (...) {
        std::fputs("the exception came through\n", stderr);
        return 4;
    }
    return 5;
}

bool dies_by_abort(const char *self, const char *kind)
{
    char text[4096];
    size_t length = 0;
    int ends[2], status = 0;

    if (pipe(ends) != 0)
        return false;

    pid_t pid = fork();

    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        execl(self, self, kind, static_cast<char *>(nullptr));
        _exit(127);
    }
    close(ends[1]);
    for (ssize_t got; length + 1 < sizeof text && (got = read(ends[0], text + length, sizeof text - 1 - length)) > 0;)
        length += static_cast<size_t>(got);
    text[length] = '\0';
    close(ends[0]);
    waitpid(pid, &status, 0);

    bool good = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && length > 0;

    std::printf("%s s30_a_throw_in_a_%s_aborts_with_a_message\n", good ? "ok" : "FAILED", kind);
    if (!good)
        std::fprintf(stderr, "wait status 0x%x, stderr: %s\n", static_cast<unsigned>(status), text);
    return good;
}

} // namespace

int main(int argc, char **argv)
{
    int failed = 0;

    if (argc > 1)
        return die(argv[1]);
    for (const char *kind : kinds)
        failed += !dies_by_abort("/proc/self/exe", kind);
    std::printf("%d tests run, %d failed\n", static_cast<int>(sizeof kinds / sizeof kinds[0]), failed);
    return failed != 0;
}
