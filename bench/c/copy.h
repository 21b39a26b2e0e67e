/*
 * Parts of all programs of the case "copy": a source of mib=N MiB, which each run writes anew and which is then in the
 * page cache; a destination that does not exist; and a comparison of the two after the measured part. Both files are in
 * the current folder, and are removed at the end.
 */
#ifndef COPY_H
#define COPY_H

#include "bench.h"

#include <fcntl.h>
#include <sys/stat.h>

#define COPY_SOURCE "copy-source"
#define COPY_TARGET "copy-target"
/* The size of a block, and the number of blocks in flight, in programs that copy in blocks. */
#define COPY_BLOCK (128 * 1024)
#define COPY_DEPTH 32
/* The longest run, in seconds: the alarm ends a program that hangs. */
#define COPY_PATIENCE 300

static inline uint64_t copy_size(void)
{
    return bench_option("mib") << 20;
}

static inline void copy_remove(void)
{
    unlink(COPY_SOURCE);
    unlink(COPY_TARGET);
}

/* Random bytes, different in each block, so that no data can be skipped as zeros. */
static inline void copy_fill(uint64_t *block)
{
    for (size_t i = 0; i < COPY_BLOCK / sizeof *block; i++) block[i] = bench_random();
}

static inline int copy_open(const char *path)
{
    return bench_must(open(path, O_RDONLY | O_CLOEXEC), path);
}

static inline int copy_new(const char *path)
{
    return bench_must(open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), path);
}

/* Writes a new file of copy_size() bytes; returns its descriptor. */
static inline int copy_write(const char *path)
{
    int fd = copy_new(path);
    uint64_t *block = bench_array(1, COPY_BLOCK);

    for (uint64_t at = 0; at < copy_size(); at += COPY_BLOCK) {
        copy_fill(block);
        bench_check(write(fd, block, COPY_BLOCK) == COPY_BLOCK, "cannot write a file");
    }
    free(block);
    return fd;
}

static inline void copy_begin(void)
{
    int fd;

    bench_check(copy_size() >= 1 << 20, "mib must be 1 or more");
    copy_remove();
    atexit(copy_remove);
    alarm(COPY_PATIENCE);
    fd = copy_write(COPY_SOURCE);
    /* The kernel writes the file to the disk now, and not during the measured part. */
    bench_must(fsync(fd), "fsync");
    close(fd);
    /*
     * Uses and frees as much memory as the copy needs. A virtual machine may have to get memory that has been free for
     * long from its host first, which costs several times the copy.
     */
    close(copy_write(COPY_TARGET));
    bench_must(unlink(COPY_TARGET), "unlink");
    bench_start();
}

static inline uint64_t copy_ns(struct timeval time)
{
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_usec * NS_PER_US;
}

/* Ends the measured part, which includes children that were waited for; compares both files; reports MiB. */
static inline void copy_end(void)
{
    char *left = bench_array(1, COPY_BLOCK), *right = bench_array(1, COPY_BLOCK);
    struct rusage children;
    struct stat status;
    int source, target;

    bench_stop();
    getrusage(RUSAGE_CHILDREN, &children);
    bench_used.cpu += copy_ns(children.ru_utime) + copy_ns(children.ru_stime);
    bench_used.sleeps += (uint64_t)children.ru_nvcsw;
    source = copy_open(COPY_SOURCE);
    target = copy_open(COPY_TARGET);
    bench_must(fstat(target, &status), "fstat");
    bench_check((uint64_t)status.st_size == copy_size(), "the copy has another size");
    for (uint64_t at = 0; at < copy_size(); at += COPY_BLOCK) {
        bench_check(read(source, left, COPY_BLOCK) == COPY_BLOCK, "cannot read the source");
        bench_check(read(target, right, COPY_BLOCK) == COPY_BLOCK, "cannot read the copy");
        bench_check(memcmp(left, right, COPY_BLOCK) == 0, "the copy is not the same");
    }
    close(source);
    close(target);
    free(left);
    free(right);
    bench_report(bench_option("mib"), "");
}

static inline int copy_main(int argc, char **argv, const char *version, void (*copy)(void))
{
    const struct bench_case cases[] = {{"copy", copy}, {NULL, NULL}};

    return bench_main(argc, argv, version, cases);
}

#endif
