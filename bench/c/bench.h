/*
 * Parts of all C programs: options, the clocks, random numbers that are the same in all programs, and the line of JSON
 * that each run prints. rust/src/lib.rs and python/loops.py have the same for their languages.
 */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)
#define AN_HOUR (3600 * NS_PER_S)

/* The number of operations between two iterations of the loop, in cases without callbacks. */
#define BATCH 1000

static inline void bench_fail(const char *what)
{
    fprintf(stderr, "error: %s\n", what);
    exit(EXIT_FAILURE);
}

static inline void bench_check(bool kept, const char *what)
{
    if (!kept) bench_fail(what);
}

/* For system calls, which set errno. */
static inline int bench_must(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "error: %s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
    }
    return result;
}

/* Keeps the calling thread on the first or the second processor that the process may use, 0 or 1. */
static inline void bench_pin(int which)
{
    static cpu_set_t allowed;
    cpu_set_t one;
    int cpu = -1;

    /* The main thread calls first, before other threads exist. */
    if (CPU_COUNT(&allowed) == 0) bench_must(sched_getaffinity(0, sizeof allowed, &allowed), "sched_getaffinity");
    bench_check(CPU_COUNT(&allowed) >= 2, "needs two processors");
    for (int left = which; left >= 0; left--) {
        while (!CPU_ISSET(++cpu, &allowed))
            ;
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    bench_must(sched_setaffinity(0, sizeof one, &one), "sched_setaffinity");
}

/* ---- options: name=number on the command line, 0 if absent ---- */

static char **bench_options;

static inline uint64_t bench_option(const char *name)
{
    size_t length = strlen(name);

    for (char **option = bench_options; *option; option++) {
        if (strncmp(*option, name, length) == 0 && (*option)[length] == '=')
            return strtoull(*option + length + 1, NULL, 10);
    }
    return 0;
}

static inline uint64_t bench_batches(uint64_t operations)
{
    bench_check(operations % BATCH == 0, "n must be a multiple of 1000");
    return operations / BATCH;
}

static inline void *bench_array(uint64_t count, size_t size)
{
    void *array = malloc(count * size);

    bench_check(array != NULL, "out of memory");
    return array;
}

/* ---- random numbers: xorshift64* with a fixed seed ---- */

static uint64_t bench_state = UINT64_C(0x9E3779B97F4A7C15);

static inline uint64_t bench_random(void)
{
    bench_state ^= bench_state >> 12;
    bench_state ^= bench_state << 25;
    bench_state ^= bench_state >> 27;
    return bench_state * UINT64_C(0x2545F4914F6CDD1D);
}

static inline uint64_t bench_below(uint64_t limit)
{
    return (uint64_t)(((unsigned __int128)bench_random() * limit) >> 64);
}

/* The delay of the next timer of the case "timers": within span_ms, in whole milliseconds if whole=1. */
static inline uint64_t bench_delay(uint64_t span_ms, bool whole)
{
    return whole ? (1 + bench_below(span_ms)) * NS_PER_MS : bench_below(span_ms * NS_PER_MS);
}

/* A timeout that does not expire during the run: one to two minutes. */
static inline uint64_t bench_timeout(void)
{
    return 60 * NS_PER_S + bench_below(60 * NS_PER_S);
}

/* Rounds up, for libraries that count in milliseconds or microseconds, so that no deadline is too early. */
static inline uint64_t bench_round_up(uint64_t ns, uint64_t unit)
{
    return (ns + unit - 1) / unit;
}

/* ---- measuring: the part between bench_start() and bench_stop() ---- */

static struct {
    uint64_t wall, cpu, sleeps;
} bench_begin, bench_used;

static inline uint64_t bench_clock(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static inline uint64_t bench_now(void)
{
    return bench_clock(CLOCK_MONOTONIC);
}

/* The number of voluntary context switches of the process. */
static inline uint64_t bench_sleeps(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_nvcsw;
}

static inline void bench_start(void)
{
    bench_begin.sleeps = bench_sleeps();
    bench_begin.wall = bench_now();
    bench_begin.cpu = bench_clock(CLOCK_PROCESS_CPUTIME_ID);
}

static inline void bench_stop(void)
{
    bench_used.cpu = bench_clock(CLOCK_PROCESS_CPUTIME_ID) - bench_begin.cpu;
    bench_used.wall = bench_now() - bench_begin.wall;
    bench_used.sleeps = bench_sleeps() - bench_begin.sleeps;
}

/* Prints the result. `more` is a printf format of additional JSON members: ", \"name\": %d". */
static inline void bench_report(uint64_t operations, const char *more, ...)
{
    va_list arguments;

    printf("{\"ops\": %" PRIu64 ", \"wall_ns\": %" PRIu64 ", \"cpu_ns\": %" PRIu64 ", \"sleeps\": %" PRIu64,
           operations, bench_used.wall, bench_used.cpu, bench_used.sleeps);
    va_start(arguments, more);
    vprintf(more, arguments);
    va_end(arguments);
    printf("}\n");
}

/* ---- memory: resident memory of the process, and memory allocated by malloc ---- */

struct bench_memory {
    int64_t rss, heap;
};

static inline struct bench_memory bench_memory(void)
{
    struct bench_memory memory;
    struct mallinfo2 info = mallinfo2();
    FILE *statm = fopen("/proc/self/statm", "r");
    long pages = 0;

    bench_check(statm && fscanf(statm, "%*d %ld", &pages) == 1, "cannot read /proc/self/statm");
    fclose(statm);
    memory.rss = (int64_t)pages * sysconf(_SC_PAGESIZE);
    memory.heap = (int64_t)(info.uordblks + info.hblkhd);
    return memory;
}

/* Prints the memory that was added since `before`; `count` is the number of things. */
static inline void bench_report_memory(uint64_t count, struct bench_memory before)
{
    struct bench_memory after = bench_memory();

    bench_report(count, ", \"rss_bytes\": %" PRId64 ", \"heap_bytes\": %" PRId64, after.rss - before.rss,
                 after.heap - before.heap);
}

/* ---- the cases "lateness" and "lateness-spin": one timer at a time, and how late its callback is ---- */

static struct {
    uint64_t *late;
    uint64_t wanted, seen, early, when, base, span;
} bench_lateness;

static inline void lateness_begin(void)
{
    bench_lateness.wanted = bench_option("n");
    bench_lateness.late = bench_array(bench_lateness.wanted, sizeof *bench_lateness.late);
    bench_start();
}

/* The delay of the next timer, 0.05 to 10 ms from now. */
static inline uint64_t lateness_next_delay(void)
{
    uint64_t delay = 50 * NS_PER_US + bench_below(9950 * NS_PER_US);

    bench_lateness.when = bench_now() + delay;
    return delay;
}

/* The deadline of the next timer on CLOCK_MONOTONIC. */
static inline uint64_t lateness_next(void)
{
    lateness_next_delay();
    return bench_lateness.when;
}

/* Returns whether more timers follow. A callback calls this first. */
static inline bool lateness_fired(void)
{
    uint64_t now = bench_now();

    if (now < bench_lateness.when) bench_lateness.early++;
    bench_lateness.late[bench_lateness.seen++] = now < bench_lateness.when ? 0 : now - bench_lateness.when;
    return bench_lateness.seen < bench_lateness.wanted;
}

/*
 * The case "dense": many timers at once. The deadlines count from lead_ms after the start, when all timers have been
 * started. Each callback gets its deadline.
 */
static inline void dense_begin(void)
{
    bench_lateness.span = bench_option("span_ms") * NS_PER_MS;
    lateness_begin();
    bench_lateness.base = bench_begin.wall + bench_option("lead_ms") * NS_PER_MS;
}

static inline uint64_t dense_next(void)
{
    return bench_lateness.base + bench_below(bench_lateness.span);
}

static inline void dense_started(void)
{
    bench_check(bench_now() <= bench_lateness.base, "lead_ms is too short: a deadline passed before all was started");
}

static inline void dense_fired(uintptr_t when)
{
    bench_lateness.when = when;
    lateness_fired();
}

static inline int bench_order(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

static inline void bench_report_late(uint64_t *late, uint64_t count, uint64_t early)
{
    uint64_t sum = 0;

    qsort(late, count, sizeof *late, bench_order);
    for (uint64_t i = 0; i < count; i++) sum += late[i];
    bench_report(count,
                 ", \"p50_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64 ", \"early\": %" PRIu64 ", \"mean_ns\": %" PRIu64
                 ", \"max_ns\": %" PRIu64,
                 late[count / 2], late[count * 99 / 100], early, sum / count, late[count - 1]);
}

static inline void lateness_report(void)
{
    bench_stop();
    bench_check(bench_lateness.seen == bench_lateness.wanted, "not all timers fired");
    bench_report_late(bench_lateness.late, bench_lateness.seen, bench_lateness.early);
}

/* ---- pauses between posts, in which the loop goes to sleep ---- */

static inline void bench_pause(void)
{
    struct timespec pause = {0, (long)(200 * NS_PER_US + bench_below(800 * NS_PER_US))};

    nanosleep(&pause, NULL);
}

/* ---- the case "idle": the driver watches the process and then ends it; without a driver, the alarm ends it ---- */

static inline void idle_begin(void)
{
    printf("{\"ready\": true}\n");
    fflush(stdout);
    alarm((unsigned)bench_option("seconds"));
}

/* ---- main ---- */

struct bench_case {
    const char *name;
    void (*run)(void);
};

static inline int bench_main(int argc, char **argv, const char *version, const struct bench_case *cases)
{
    if (argc == 2 && strcmp(argv[1], "version") == 0) return puts(version) < 0;
    if (argc >= 2) {
        bench_options = argv + 2;
        for (; cases->name; cases++) {
            if (strcmp(cases->name, argv[1]) == 0) return cases->run(), EXIT_SUCCESS;
        }
    }
    fprintf(stderr, "usage: %s version | CASE [NAME=NUMBER]...\n", argv[0]);
    return EXIT_FAILURE;
}

#endif
