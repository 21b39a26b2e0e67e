/* Shared by the stress programs: the harness of tests/c, threads, and the size of each test. */
#ifndef RINGLOOP_TESTS_STRESS_H
#define RINGLOOP_TESTS_STRESS_H

#include "../c/check.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>

/* Returns the number in the environment variable, or `usual`. */
static inline uint64_t scale(const char *name, uint64_t usual)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : usual;
}

static inline void take(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0)
        REQUIRE(errno, ==, EINTR);
}

/* Pseudo-random numbers, the same in every run. */
static inline uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

#endif
