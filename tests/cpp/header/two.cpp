// Includes the header after many others, with `using` for std::chrono and ringloop. May be compiled with -fno-exceptions.
#include <algorithm>
#include <functional>
#include <linux/io_uring.h>
#include <map>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <thread>
#include <unistd.h>

using namespace std;
using namespace std::chrono;

#include <ringloop.hpp>

using namespace ringloop;

int two(loop_t *loop);

int two(loop_t *loop)
{
    const LoopRef ref(loop);
    int calls = 0;

    ref.call_later(milliseconds(1), [&calls] { calls++; });
    ref.call_soon([&calls, step = 1] { calls += step; });
    ref.run();
    return calls;
}
