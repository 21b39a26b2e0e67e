/*
 * Child processes. The loop reads the output of each child through a pipe, and
 * waits for the child. A child is complete when it has ended and its pipe is
 * empty, in either order.
 */
#define _DEFAULT_SOURCE
#include <ringloop.h>

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

struct child {
    const char *script;
    pid_t pid;
    int output;
    char text[256];
    size_t length;
    int wait_status;
};

static struct child children[] = {
    {"echo first line; echo second line", 0, -1, "", 0, 0},
    {"sleep 0.1; echo late; exit 3", 0, -1, "", 0, 0},
    {"kill -TERM $$", 0, -1, "", 0, 0},
};

enum { CHILDREN = sizeof children / sizeof children[0] };

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "spawn: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
}

static void read_more(loop_t *loop, struct child *child);

static void has_read(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct child *child = arg;

    (void)flags;
    if (result > 0) {
        child->length += (size_t)result;
        read_more(loop, child);
    } else {
        close(child->output);
    }
}

static void read_more(loop_t *loop, struct child *child)
{
    size_t room = sizeof child->text - 1 - child->length;

    expect(loop_read(loop, child->output, child->text + child->length, room, LOOP_CURRENT, has_read, child));
}

static void has_ended(loop_t *loop, pid_t pid, int wait_status, void *arg)
{
    struct child *child = arg;

    (void)loop;
    (void)pid;
    child->wait_status = wait_status;
}

static void spawn(loop_t *loop, struct child *child)
{
    char *argv[] = {"sh", "-c", (char *)child->script, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];

    if (pipe(ends) != 0) abort();
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    if (posix_spawn(&child->pid, "/bin/sh", &actions, NULL, argv, environ) != 0) abort();
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    child->output = ends[0];
    read_more(loop, child);
    expect(loop_watch_child(loop, child->pid, has_ended, child));
}

int main(void)
{
    loop_t *loop;
    int i;

    expect(loop_new(NULL, &loop));
    for (i = 0; i < CHILDREN; i++) spawn(loop, &children[i]);
    /* Returns when all children have ended and all output has been read. */
    expect(loop_run(loop));
    expect(loop_close(loop));

    for (i = 0; i < CHILDREN; i++) {
        const struct child *child = &children[i];

        if (WIFEXITED(child->wait_status))
            printf("child %d ended with status %d\n%s", i + 1, WEXITSTATUS(child->wait_status), child->text);
        else
            printf("child %d was ended by signal %d\n%s", i + 1, WTERMSIG(child->wait_status), child->text);
    }
    return EXIT_SUCCESS;
}
