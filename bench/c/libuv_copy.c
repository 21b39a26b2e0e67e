/*
 * The case "copy" with libuv, on its four threads: uv_fs_copyfile(), which makes the kernel copy. blocks=1:
 * uv_fs_read() and uv_fs_write(), COPY_DEPTH blocks at once, as a program that reads the data that it copies.
 */
#include "copy.h"

#include <uv.h>

struct block {
    uv_fs_t request;
    char *data;
    uint64_t offset;
    size_t length, done;
};

static uv_loop_t *loop;
static int source, target;
static uint64_t next_offset, copied;

static void must(ssize_t result)
{
    if (result < 0) bench_fail(uv_strerror((int)result));
}

/* ---- the kernel copies ---- */

static void on_copied(uv_fs_t *request)
{
    must(request->result);
    uv_fs_req_cleanup(request);
}

static void copy_whole(void)
{
    uv_fs_t request;

    must(uv_fs_copyfile(loop, &request, COPY_SOURCE, COPY_TARGET, 0, on_copied));
    uv_run(loop, UV_RUN_DEFAULT);
}

/* ---- blocks=1 ---- */

static void on_read(uv_fs_t *request);

static uv_buf_t rest_of(const struct block *block)
{
    return uv_buf_init(block->data + block->done, (unsigned)(block->length - block->done));
}

static void read_rest(struct block *block)
{
    uv_buf_t buffer = rest_of(block);

    must(uv_fs_read(loop, &block->request, source, &buffer, 1, (int64_t)(block->offset + block->done), on_read));
}

static void read_next(struct block *block)
{
    if (next_offset == copy_size()) return;
    block->offset = next_offset;
    block->done = 0;
    next_offset += block->length;
    read_rest(block);
}

/* Adds the result to the block; returns whether the block is complete. */
static bool is_complete(uv_fs_t *request)
{
    struct block *block = request->data;

    must(request->result);
    bench_check(request->result > 0, "the file has ended too soon");
    block->done += (size_t)request->result;
    uv_fs_req_cleanup(request);
    return block->done == block->length;
}

static void on_written(uv_fs_t *request);

static void write_rest(struct block *block)
{
    uv_buf_t buffer = rest_of(block);

    must(uv_fs_write(loop, &block->request, target, &buffer, 1, (int64_t)(block->offset + block->done), on_written));
}

static void on_written(uv_fs_t *request)
{
    struct block *block = request->data;

    if (!is_complete(request)) {
        write_rest(block);
        return;
    }
    copied += block->length;
    read_next(block);
}

static void on_read(uv_fs_t *request)
{
    struct block *block = request->data;

    if (!is_complete(request)) {
        read_rest(block);
        return;
    }
    block->done = 0;
    write_rest(block);
}

static void copy_blocks(void)
{
    static struct block blocks[COPY_DEPTH];

    source = copy_open(COPY_SOURCE);
    target = copy_new(COPY_TARGET);
    for (int i = 0; i < COPY_DEPTH; i++) {
        blocks[i].request.data = &blocks[i];
        blocks[i].length = COPY_BLOCK;
        blocks[i].data = bench_array(1, COPY_BLOCK);
        read_next(&blocks[i]);
    }
    uv_run(loop, UV_RUN_DEFAULT);
    bench_check(copied == copy_size(), "not all was copied");
    close(source);
    close(target);
}

static void copy(void)
{
    uv_loop_t here;

    loop = &here;
    must(uv_loop_init(loop));
    copy_begin();
    if (bench_option("blocks"))
        copy_blocks();
    else
        copy_whole();
    copy_end();
    must(uv_loop_close(loop));
}

int main(int argc, char **argv)
{
    return copy_main(argc, argv, uv_version_string(), copy);
}
