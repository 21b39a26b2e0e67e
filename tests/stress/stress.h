/* What the stress programs share: the harness of tests/c, threads, and how much of everything. */
#ifndef RINGLOOP_TESTS_STRESS_H
#define RINGLOOP_TESTS_STRESS_H

#include "../c/check.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>

/* The number in the environment, or else `usual`. */
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

/* Numbers that look random, the same in every run. */
static inline uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

#endif
