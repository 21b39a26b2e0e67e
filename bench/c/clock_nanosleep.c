/*
 * The limit of the kernel, without a loop. The process sleeps with clock_nanosleep() and a timer slack of 1 ns. With
 * spin_us, the process wakes so many microseconds before the deadline, and then polls the clock.
 */
#include "bench.h"

#include <sys/prctl.h>

static void lateness(void)
{
    uint64_t spin = bench_option("spin_us") * NS_PER_US;
    bool more = true;

    bench_check(prctl(PR_SET_TIMERSLACK, 1) == 0, "cannot set the timer slack");
    lateness_begin();
    while (more) {
        uint64_t when = lateness_next(), until = when - spin;
        struct timespec time = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};

        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) != 0)
            ;
        while (bench_now() < when)
            ;
        more = lateness_fired();
    }
    lateness_report();
}

int main(int argc, char **argv)
{
    static const struct bench_case cases[] = {{"lateness", lateness}, {NULL, NULL}};

    return bench_main(argc, argv, "the kernel's", cases);
}
