/*
 * Runs a loop with one timer, due in an hour. SIGALRM kills the program, without a system call of its own, after as
 * many seconds as the argument states.
 */
#define _POSIX_C_SOURCE 200809L

#include <ringloop.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void never(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    abort();
}

int main(int argc, char **argv)
{
    loop_t *loop;

    if (argc != 2 || loop_new(NULL, &loop) < 0 || loop_call_later(loop, LOOP_SEC(3600), never, NULL) < 0) {
        fprintf(stderr, "idle: %s\n", loop_last_error());
        return EXIT_FAILURE;
    }
    alarm((unsigned)atoi(argv[1]));
    loop_run(loop);
    return EXIT_FAILURE; /* reached only if the run ends */
}
