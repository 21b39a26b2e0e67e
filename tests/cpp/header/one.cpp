// Includes the header first, and the C header after it; two.cpp is the other half of the program.
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
