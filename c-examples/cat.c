/*
 * Concatenates files into one, with up to 32 blocks in flight. Each block is
 * read from its offset in the input and written at its offset in the output,
 * in any order of blocks. On a terminal a line shows the progress.
 *
 *     build/examples/cat FILE... OUTPUT
 */
#define _GNU_SOURCE
#include <ringloop.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH = 32, BLOCK = 128 * 1024 };

struct block {
    size_t length;
    uint64_t from, to; /* offsets in the file and in the output */
    int fd;
    char *data;
};

static struct block blocks[DEPTH];
static char **files;
static int file_count, current = -1, output;
static int *fds;
static uint64_t read_at, file_size, write_at, done, total;
static loop_handle_t progress;

static void fail(const char *what, int error)
{
    fprintf(stderr, "cat: %s: %s\n", what, strerror(error));
    exit(EXIT_FAILURE);
}

static int64_t expect(int64_t result)
{
    if (result < 0) {
        fprintf(stderr, "cat: %s\n", loop_last_error());
        exit(EXIT_FAILURE);
    }
    return result;
}

static void has_read(loop_t *loop, int32_t result, uint32_t flags, void *arg);

static void read_block(loop_t *loop, struct block *block)
{
    expect(loop_read(loop, block->fd, block->data, block->length, block->from, has_read, block));
}

/* Starts the next block, or leaves this one idle: the loop ends when all blocks are idle. */
static void next_block(loop_t *loop, struct block *block)
{
    while (read_at == file_size) {
        if (++current == file_count) {
            current--;
            return;
        }
        struct stat status;
        if (fstat(fds[current], &status) < 0) fail(files[current], errno);
        read_at = 0;
        file_size = (uint64_t)status.st_size;
    }
    block->fd = fds[current];
    block->length = file_size - read_at < BLOCK ? (size_t)(file_size - read_at) : BLOCK;
    block->from = read_at;
    block->to = write_at;
    read_at += block->length;
    write_at += block->length;
    read_block(loop, block);
}

static void has_written(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct block *block = arg;

    (void)flags;
    if (result < 0) fail("write", -result);
    if (result == 0) fail("write", EIO);
    done += (uint64_t)result;
    if ((size_t)result < block->length) {
        /* After a short read or write, the rest of the block is read again. */
        block->length -= (size_t)result;
        block->from += (uint64_t)result;
        block->to += (uint64_t)result;
        read_block(loop, block);
        return;
    }
    next_block(loop, block);
    if (done == total && progress) expect(loop_cancel(loop, progress));
}

static void has_read(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct block *block = arg;

    (void)flags;
    if (result < 0) fail("read", -result);
    if (result == 0) fail("read", ENODATA); /* the file has become shorter */
    expect(loop_write(loop, output, block->data, (size_t)result, block->to, has_written, block));
}

static void show_progress(loop_t *loop, void *arg)
{
    (void)loop;
    (void)arg;
    fprintf(stderr, "\r%3.0f %% of %.1f MiB", total ? 100.0 * (double)done / (double)total : 100.0,
            (double)total / 1048576);
}

int main(int argc, char **argv)
{
    loop_t *loop;

    if (argc < 3) {
        fprintf(stderr, "usage: cat FILE... OUTPUT\n");
        return EXIT_FAILURE;
    }
    files = argv + 1;
    file_count = argc - 2;
    fds = calloc((size_t)file_count, sizeof *fds);
    if (!fds) fail("memory", ENOMEM);
    for (int i = 0; i < file_count; i++) {
        struct stat status;

        fds[i] = open(files[i], O_RDONLY | O_CLOEXEC);
        if (fds[i] < 0 || fstat(fds[i], &status) < 0) fail(files[i], errno);
        if (!S_ISREG(status.st_mode)) fail(files[i], EINVAL);
        total += (uint64_t)status.st_size;
    }
    output = open(argv[argc - 1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (output < 0) fail(argv[argc - 1], errno);

    expect(loop_new(NULL, &loop));
    if (isatty(STDERR_FILENO) && total > 0) {
        progress = loop_call_every(loop, LOOP_MSEC(100), show_progress, NULL);
        expect(progress);
    }
    for (int i = 0; i < DEPTH; i++) {
        blocks[i].data = malloc(BLOCK);
        if (!blocks[i].data) fail("memory", ENOMEM);
        next_block(loop, &blocks[i]);
    }
    expect(loop_run(loop));
    if (progress) {
        show_progress(loop, NULL);
        fprintf(stderr, "\n");
    }
    expect(loop_close(loop));
    if (close(output) < 0) fail(argv[argc - 1], errno);
    for (int i = 0; i < DEPTH; i++) free(blocks[i].data);
    for (int i = 0; i < file_count; i++) close(fds[i]);
    free(fds);
    printf("%" PRIu64 " bytes\n", done);
    return EXIT_SUCCESS;
}
