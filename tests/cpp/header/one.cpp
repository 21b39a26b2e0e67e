// The header comes before anything else, and meets the C header; the other half of the program is two.cpp.
#include <ringloop.hpp>
#include <ringloop.h>
#include <ringloop.hpp>

int two(loop_t *loop);

int main()
{
    ringloop::Loop loop;
    int calls = 0;

    loop.call_soon([&calls] { calls++; });
    loop.call_soon([&calls, step = 1] { calls += step; });
    loop.run();
    return calls + two(loop.get()) == 4 ? 0 : 1;
}
