/* The case "copy" with ringloop through its C API: loop_read() and loop_write(), COPY_DEPTH blocks at once. */
#include "copy.h"

#include <ringloop.h>

struct block {
    char *data;
    uint64_t offset;
    size_t length, done;
};

static int source, target;
static uint64_t next_offset, copied;

static loop_handle_t must(loop_handle_t result)
{
    if (result < 0) bench_fail(loop_last_error());
    return result;
}

/* Adds the result to the block; returns whether the block is complete. */
static bool is_complete(struct block *block, int32_t result)
{
    if (result < 0) bench_fail(loop_strerror(result));
    bench_check(result > 0, "the file has ended too soon");
    block->done += (size_t)result;
    return block->done == block->length;
}

static void on_read(loop_t *loop, int32_t result, uint32_t flags, void *arg);
static void on_written(loop_t *loop, int32_t result, uint32_t flags, void *arg);

static void read_rest(loop_t *loop, struct block *block)
{
    must(loop_read(loop, source, block->data + block->done, block->length - block->done, block->offset + block->done,
                   on_read, block));
}

static void write_rest(loop_t *loop, struct block *block)
{
    must(loop_write(loop, target, block->data + block->done, block->length - block->done, block->offset + block->done,
                    on_written, block));
}

static void read_next(loop_t *loop, struct block *block)
{
    if (next_offset == copy_size()) return;
    block->offset = next_offset;
    block->done = 0;
    next_offset += block->length;
    read_rest(loop, block);
}

static void on_written(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct block *block = arg;

    (void)flags;
    if (!is_complete(block, result)) {
        write_rest(loop, block);
        return;
    }
    copied += block->length;
    read_next(loop, block);
}

static void on_read(loop_t *loop, int32_t result, uint32_t flags, void *arg)
{
    struct block *block = arg;

    (void)flags;
    if (!is_complete(block, result)) {
        read_rest(loop, block);
        return;
    }
    block->done = 0;
    write_rest(loop, block);
}

static void copy(void)
{
    static struct block blocks[COPY_DEPTH];
    loop_options_t options = LOOP_OPTIONS_INIT;
    loop_t *loop;

    must(loop_new(&options, &loop));
    copy_begin();
    source = copy_open(COPY_SOURCE);
    target = copy_new(COPY_TARGET);
    for (int i = 0; i < COPY_DEPTH; i++) {
        blocks[i].data = bench_array(1, COPY_BLOCK);
        blocks[i].length = COPY_BLOCK;
        read_next(loop, &blocks[i]);
    }
    must(loop_run(loop));
    bench_check(copied == copy_size(), "not all was copied");
    close(source);
    close(target);
    copy_end();
    must(loop_close(loop));
}

int main(int argc, char **argv)
{
    return copy_main(argc, argv, loop_version(), copy);
}
