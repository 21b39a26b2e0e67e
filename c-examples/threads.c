/*
 * Worker threads post their progress and their result to a loop. Each post has
 * memory of its own, which the release hook frees, whether the post ran or the
 * loop was closed first.
 */
#include <ringloop.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define WORKERS 4
#define LIMIT 40000
#define STEPS 10

struct worker {
    pthread_t thread;
    loop_remote_t *remote;
    unsigned from, to;
};

struct note {
    unsigned percent, primes;
};

static struct {
    unsigned progress, done, primes;
    loop_handle_t ticker;
} state;

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "threads: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

/* ---- on the loop's thread ---- */

static void progress(loop_t *loop, void *arg)
{
    const struct note *note = arg;

    (void)loop;
    state.progress += note->percent;
}

static void result(loop_t *loop, void *arg)
{
    const struct note *note = arg;

    state.primes += note->primes;
    if (++state.done == WORKERS) expect(loop_stop(loop));
}

static void show(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    fprintf(stderr, "%u %%\n", state.progress / WORKERS);
}

/* ---- on the workers' threads ---- */

static void post(const struct worker *worker, loop_callback_t callback, unsigned percent, unsigned primes)
{
    struct note *note = malloc(sizeof *note);

    if (!note) abort();
    note->percent = percent;
    note->primes = primes;
    /* A post fails if the loop has been closed; the memory then still belongs to this thread. */
    if (loop_remote_call_soon(worker->remote, callback, note, free) < 0) free(note);
}

static unsigned is_prime(unsigned number)
{
    unsigned divisor;

    for (divisor = 2; divisor * divisor <= number; divisor++)
        if (number % divisor == 0) return 0;
    return number > 1;
}

static void *work(void *arg)
{
    const struct worker *worker = arg;
    unsigned share = (worker->to - worker->from) / STEPS, number, primes = 0;

    for (number = worker->from; number < worker->to; number++) {
        primes += is_prime(number);
        if ((number + 1 - worker->from) % share == 0) post(worker, progress, 100 / STEPS, 0);
    }
    post(worker, result, 0, primes);
    loop_remote_release(worker->remote);
    return NULL;
}

int main(void)
{
    struct worker workers[WORKERS];
    loop_t *loop;
    unsigned i;

    expect(loop_new(NULL, &loop));
    for (i = 0; i < WORKERS; i++) {
        workers[i].from = LIMIT / WORKERS * i;
        workers[i].to = LIMIT / WORKERS * (i + 1);
        expect(loop_remote_new(loop, &workers[i].remote));
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) abort();
    }
    state.ticker = loop_call_every(loop, LOOP_MSEC(20), show, NULL);
    expect(state.ticker);
    expect(loop_run_forever(loop));

    for (i = 0; i < WORKERS; i++) pthread_join(workers[i].thread, NULL);
    expect(loop_close(loop));
    printf("progress: %u %%\n", state.progress / WORKERS);
    printf("primes below %u: %u\n", LIMIT, state.primes);
    return EXIT_SUCCESS;
}
