/*
 * Small fixed workloads for counting instructions: workload CASE N. With N = 0
 * a case does all of it but the N operations, so that a difference is theirs.
 */
#include <ringloop.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t left;

static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "workload: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

static void count(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
}

static void again(loop_t *loop, void *arg)
{
    if (left > 0) {
        left--;
        expect(loop_call_soon(loop, again, arg));
    }
}

static uint64_t random_number(void)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* A callback that schedules itself again. */
static void soon_chain(loop_t *loop, size_t n)
{
    left = n;
    expect(loop_call_soon(loop, again, NULL));
    expect(loop_run(loop));
}

/* The same while a timer waits: the loop has to read the clock. */
static void soon_chain_timer(loop_t *loop, size_t n)
{
    expect(loop_unref(loop, loop_call_later(loop, LOOP_SEC(3600), count, NULL)));
    soon_chain(loop, n);
}

/* Many calls, then a run. */
static void soon_bulk(loop_t *loop, size_t n)
{
    for (size_t i = 0; i < n; i++)
        expect(loop_call_soon(loop, count, NULL));
    expect(loop_run(loop));
}

/* Timers at random times within a second, all of which fire. */
static void timers(loop_t *loop, size_t n)
{
    for (size_t i = 0; i < n; i++)
        expect(loop_call_at(loop, random_number() % LOOP_SEC(1), count, NULL));
    expect(loop_run(loop));
}

/* Timers that are cancelled in random order and replaced. */
static void timers_cancel(loop_t *loop, size_t n)
{
    static loop_handle_t handles[1000];

    for (size_t i = 0; i < 1000; i++)
        handles[i] = loop_call_at(loop, random_number() % LOOP_SEC(1000), count, NULL);
    for (size_t i = 0; i < n; i++) {
        size_t which = random_number() % 1000;

        expect(loop_cancel(loop, handles[which]));
        expect(handles[which] = loop_call_at(loop, random_number() % LOOP_SEC(1000), count, NULL));
    }
}

/* Timers that are pushed back in random order. */
static void timers_move(loop_t *loop, size_t n)
{
    static loop_handle_t handles[1000];

    for (size_t i = 0; i < 1000; i++)
        handles[i] = loop_call_at(loop, LOOP_SEC(60) + i, count, NULL);
    for (size_t i = 0; i < n; i++)
        expect(loop_reschedule(loop, handles[random_number() % 1000], LOOP_SEC(60) + 1000 + i));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(loop_t *loop, size_t n);
    } cases[] = {
        {"soon-chain", soon_chain}, {"soon-chain-timer", soon_chain_timer}, {"soon-bulk", soon_bulk},
        {"timers", timers},         {"timers-cancel", timers_cancel},       {"timers-move", timers_move},
    };
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop;

    if (argc != 3)
        return EXIT_FAILURE;
    options.flags = LOOP_VIRTUAL_TIME;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(cases[i].name, argv[1]) == 0) {
            /* The chains measure the loop as it is; the others need no sleep. */
            expect(loop_new(i < 2 ? NULL : &options, &loop));
            cases[i].run(loop, strtoul(argv[2], NULL, 10));
            expect(loop_close(loop));
            return EXIT_SUCCESS;
        }
    }
    return EXIT_FAILURE;
}
