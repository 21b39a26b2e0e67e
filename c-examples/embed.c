/*
 * ringloop inside another event loop. The host is a poll(2) loop with a pipe of
 * its own, and only has to watch one descriptor for ringloop, loop_fd().
 * Timers make that descriptor readable too, so the host needs no time limit.
 *
 * A timer of ringloop writes into the host's pipe. The host then schedules a
 * callback, which starts the next timer.
 */
#include <ringloop.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 3 };

struct game {
    int to_host; /* the end of the pipe that ringloop writes to */
    int round;
    bool over;
};

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "embed: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

static void system_error(const char *what)
{
    fprintf(stderr, "embed: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static void on_timer(loop_t *loop, void *arg)
{
    struct game *game = arg;

    (void)loop;
    game->round++;
    printf("ringloop: timer %d, writing to the host's pipe\n", game->round);
    if (write(game->to_host, "x", 1) != 1)
        system_error("write");
}

static void on_answer(loop_t *loop, void *arg)
{
    struct game *game = arg;

    printf("ringloop: answer %d\n", game->round);
    if (game->round < ROUNDS)
        expect(loop_call_later(loop, LOOP_MSEC(50), on_timer, game));
    else
        game->over = true;
}

static void on_pipe(int fd, loop_t *loop, struct game *game)
{
    char byte;

    if (read(fd, &byte, 1) != 1)
        system_error("read");
    printf("host: the pipe is readable, scheduling an answer\n");
    expect(loop_call_soon(loop, on_answer, game));
}

int main(void)
{
    struct game game = {0, 0, false};
    struct pollfd fds[2];
    int ends[2];
    loop_t *loop;

    if (pipe(ends) < 0)
        system_error("pipe");
    game.to_host = ends[1];

    expect(loop_new(NULL, &loop));
    expect(loop_call_later(loop, LOOP_MSEC(50), on_timer, &game));

    fds[0].fd = loop_fd(loop); /* owned by the loop: the host polls it, and never reads or closes it */
    expect(fds[0].fd);
    fds[0].events = POLLIN;
    fds[1].fd = ends[0];
    fds[1].events = POLLIN;

    while (!game.over) {
        expect(loop_flush(loop)); /* before sleeping: loop_fd() then covers calls scheduled outside of a run */
        if (poll(fds, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            system_error("poll");
        }
        if (fds[0].revents)
            expect(loop_run_once(loop, 0)); /* 0: does not sleep; the host sleeps */
        if (fds[1].revents)
            on_pipe(ends[0], loop, &game);
    }

    expect(loop_close(loop));
    close(ends[0]);
    close(ends[1]);
    return EXIT_SUCCESS;
}
