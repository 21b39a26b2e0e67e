// A timer that ticks five times, and one that ends the program.
#include <ringloop.hpp>

#include <cstdio>

using namespace std::chrono_literals;

int main()
{
    ringloop::Loop loop;
    const auto begin = loop.time();

    loop.call_every(100ms, [&] { std::printf("tick after %lld ms\n", static_cast<long long>((loop.time() - begin) / 1ms)); });
    loop.call_later(550ms, [&] { loop.stop(); });
    loop.run_forever();
}
