// The example c-examples/call_soon.c in C++, with the same output.
#include <ringloop.h>
#if __has_include(<ringloop.hpp>)
#include <ringloop.hpp>
#endif

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

struct arguments {
    int number;
    std::string word;
};

void expect(loop_handle_t result)
{
    if (result < 0) {
        std::fprintf(stderr, "use: %s\n", loop_last_error());
        std::exit(EXIT_FAILURE);
    }
}

void callback(loop_t *, void *arg)
{
    const auto *args = static_cast<const arguments *>(arg);

    std::printf("callback invoked with %d and %s\n", args->number, args->word.c_str());
}

} // namespace

int main()
{
    arguments first{1, "default"}, second{2, "not default"};
    loop_t *loop = nullptr;

    expect(loop_new(nullptr, &loop));
    std::puts("entering event loop");
    std::puts("registering callbacks");
    expect(loop_call_soon(loop, callback, &first));
    expect(loop_call_soon(loop, callback, &second));
    expect(loop_call_later(loop, LOOP_MSEC(1), [](loop_t *self, void *) { expect(loop_stop(self)); }, nullptr));
    expect(loop_run_forever(loop));
    std::puts("closing event loop");
    expect(loop_close(loop));
}
