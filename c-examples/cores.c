/*
 * A loop for each processor. Each loop gets a piece of work from its neighbour,
 * does its part and posts the piece to the next loop. The loops share no lock
 * and no data except the piece, which belongs to one loop at a time.
 */
#include <ringloop.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define PIECES 8
#define ROUNDS 1000

struct core {
    pthread_t thread;
    loop_t *loop;
    loop_remote_t *next; /* the neighbour */
    uint64_t handled;
};

struct piece {
    uint64_t hops;
};

static struct core *cores;
static unsigned count;
static uint64_t finished; /* only the last core uses it */

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "cores: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

static void handle(loop_t *loop, void *arg)
{
    struct core *core = loop_data(loop);
    struct piece *piece = arg;

    core->handled++;
    if (++piece->hops < (uint64_t)ROUNDS * count) {
        expect(loop_remote_call_soon(core->next, handle, piece, NULL));
        return;
    }
    /* Each piece ends at the last core, whose neighbour is the first. */
    free(piece);
    if (++finished == PIECES) {
        for (unsigned i = 0; i < count; i++) expect(loop_remote_stop(cores[i].next));
    }
}

static void *run(void *arg)
{
    struct core *core = arg;

    /* main() made the loop, where a failure is easy to report. The loop now belongs to this thread. */
    expect(loop_adopt(core->loop));
    expect(loop_run_forever(core->loop));
    return NULL;
}

int main(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t handled = 0;

    count = online < 2 ? 2 : (unsigned)online;
    cores = calloc(count, sizeof *cores);
    if (!cores) abort();
    for (unsigned i = 0; i < count; i++) {
        expect(loop_new(NULL, &cores[i].loop));
        loop_set_data(cores[i].loop, &cores[i]);
    }
    for (unsigned i = 0; i < count; i++) expect(loop_remote_new(cores[(i + 1) % count].loop, &cores[i].next));
    for (unsigned i = 0; i < PIECES; i++) {
        struct piece *piece = calloc(1, sizeof *piece);

        if (!piece) abort();
        expect(loop_call_soon(cores[0].loop, handle, piece));
    }
    for (unsigned i = 0; i < count; i++) {
        if (pthread_create(&cores[i].thread, NULL, run, &cores[i]) != 0) abort();
    }
    for (unsigned i = 0; i < count; i++) pthread_join(cores[i].thread, NULL);
    for (unsigned i = 0; i < count; i++) {
        loop_remote_release(cores[i].next);
        /* The owner of the loop has exited: any thread may close the loop. */
        expect(loop_close(cores[i].loop));
        handled += cores[i].handled;
    }
    free(cores);
    printf("%s\n", handled == (uint64_t)PIECES * ROUNDS * count ? "every piece went all the way round"
                                                                 : "pieces were lost");
    return EXIT_SUCCESS;
}
