/* Operations on files and directories: each on success, on failure, and cancelled. S13, S22, S28. */
#include "io.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

/* ---- helpers ---- */

/* A temporary folder, which is the working directory until leave(). */
struct folder {
    char name[64];
    int former;
};

static struct folder enter(void)
{
    struct folder folder = {"/tmp/ringloop-files.XXXXXX", open(".", O_RDONLY | O_CLOEXEC)};

    REQUIRE(mkdtemp(folder.name) != NULL, ==, 1);
    REQUIRE(chdir(folder.name), ==, 0);
    return folder;
}

static void leave(struct folder folder)
{
    DIR *entries = opendir(folder.name);
    struct dirent *entry;

    while (entries && (entry = readdir(entries)) != NULL)
        if (unlinkat(dirfd(entries), entry->d_name, 0) < 0)
            unlinkat(dirfd(entries), entry->d_name, AT_REMOVEDIR);
    closedir(entries);
    CHECK(fchdir(folder.former), ==, 0);
    close(folder.former);
    CHECK(rmdir(folder.name), ==, 0);
}

static int make_file(const char *name, const char *text)
{
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    REQUIRE(fd, >=, 0);
    CHECK(write(fd, text, strlen(text)), ==, strlen(text));
    return fd;
}

static bool exists(const char *name)
{
    struct stat status;

    return lstat(name, &status) == 0;
}

static off_t size_of(int fd)
{
    struct stat status;

    CHECK(fstat(fd, &status), ==, 0);
    return status.st_size;
}

/* Overwrites and frees a path on the heap after the call: the library has copied the path. */
static loop_handle_t gone(loop_handle_t handle, char *path)
{
    memset(path, 'x', strlen(path));
    free(path);
    return handle;
}

/* ---- reading and writing ---- */

static void reading_and_writing_at_offsets_and_at_the_files_position(void)
{
    loop_t *loop = new_loop();
    struct folder folder = enter();
    struct outcome seen = {0};
    char buffer[8] = "";
    int fd = make_file("a", "");

    see(loop, loop_write(loop, fd, "abcdef", 6, 0, note_outcome, &seen), &seen, 6);
    see(loop, loop_write(loop, fd, "XY", 2, 2, note_outcome, &seen), &seen, 2);
    see(loop, loop_write_all(loop, fd, "12", 2, LOOP_CURRENT, note_outcome, &seen), &seen, 2);
    see(loop, loop_write_all(loop, fd, "gh", 2, 6, note_outcome, &seen), &seen, 2);
    see(loop, loop_read(loop, fd, buffer, 8, 0, note_outcome, &seen), &seen, 8);
    CHECK(memcmp(buffer, "12XYefgh", 8), ==, 0);
    see(loop, loop_read(loop, fd, buffer, 3, LOOP_CURRENT, note_outcome, &seen), &seen, 3);
    CHECK(memcmp(buffer, "XYe", 3), ==, 0);
    see(loop, loop_read(loop, fd, buffer, 8, 8, note_outcome, &seen), &seen, 0);
    close(fd);
    see(loop, loop_read(loop, fd, buffer, 8, 8, note_outcome, &seen), &seen, -EBADF);
    see(loop, loop_write_all(loop, fd, buffer, 8, 8, note_outcome, &seen), &seen, -EBADF);
    leave(folder);
    close_loop(loop);
}

static void vectors_are_read_and_written(void)
{
    loop_t *loop = new_loop();
    struct folder folder = enter();
    struct outcome seen = {0};
    char first[3] = "", second[8] = "";
    struct iovec *vectors = malloc(2 * sizeof *vectors);
    int fd = make_file("a", "");
    loop_handle_t handle;

    vectors[0] = (struct iovec){(char *)(uintptr_t)"abc", 3};
    vectors[1] = (struct iovec){(char *)(uintptr_t)"defg", 4};
    handle = loop_writev(loop, fd, vectors, 2, 0, note_outcome, &seen);
    memset(vectors, 0xff, 2 * sizeof *vectors);
    see(loop, handle, &seen, 7);
    vectors[0] = (struct iovec){first, 2};
    vectors[1] = (struct iovec){second, 7};
    handle = loop_readv(loop, fd, vectors, 2, 1, note_outcome, &seen);
    memset(vectors, 0xff, 2 * sizeof *vectors);
    see(loop, handle, &seen, 6);
    CHECK_TEXT(first, "bc");
    CHECK_TEXT(second, "defg");
    vectors[0] = (struct iovec){first, INT32_MAX};
    vectors[1] = (struct iovec){second, 1};
    CHECK(loop_readv(loop, fd, vectors, 2, 0, note_outcome, &seen), ==, -EINVAL);
    see(loop, loop_readv(loop, fd, NULL, 0, 0, note_outcome, &seen), &seen, 0);
    vectors[0] = (struct iovec){first, 1};
    see(loop, loop_readv(loop, 1000000, vectors, 1, 0, note_outcome, &seen), &seen, -EBADF);
    free(vectors);
    close(fd);
    leave(folder);
    close_loop(loop);
}

static void s13_write_all_to_a_full_pipe_says_how_far_it_came(void)
{
    loop_t *loop = new_loop();
    struct outcome seen = {0};
    static char data[1 << 20];
    int ends[2], size, written = 0;
    loop_handle_t handle;

    REQUIRE(pipe2(ends, O_CLOEXEC), ==, 0);
    size = fcntl(ends[1], F_GETPIPE_SZ);
    handle = loop_write_all(loop, ends[1], data, sizeof data, LOOP_CURRENT, note_outcome, &seen);
    REQUIRE(handle, >, 0);
    /* On a kernel that writes on a worker thread, the write begins at any time. */
    while (written < size) {
        loop_run_once(loop, LOOP_MSEC(1));
        REQUIRE(ioctl(ends[0], FIONREAD, &written), ==, 0);
    }
    CHECK(loop_set_deadline(loop, handle, loop_time(loop) + LOOP_MSEC(5)), ==, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    CHECK(seen.finals, ==, 1);
    CHECK(seen.result, ==, size);
    CHECK(seen.flags & LOOP_TIMED_OUT, ==, LOOP_TIMED_OUT);
    close(ends[0]);
    close(ends[1]);
    close_loop(loop);
}

static void splice_moves_data(void)
{
    loop_t *loop = new_loop();
    struct folder folder = enter();
    struct outcome seen = {0};
    char buffer[8] = "";
    int ends[2], fd = make_file("a", "abcdef");

    REQUIRE(pipe2(ends, O_CLOEXEC), ==, 0);
    see(loop, loop_splice(loop, fd, 2, ends[1], LOOP_CURRENT, 3, 0, note_outcome, &seen), &seen, 3);
    CHECK(read(ends[0], buffer, sizeof buffer), ==, 3);
    CHECK_TEXT(buffer, "cde");
    CHECK(write(ends[1], "xy", 2), ==, 2);
    see(loop, loop_splice(loop, ends[0], LOOP_CURRENT, fd, 1, 100, 0, note_outcome, &seen), &seen, 2);
    CHECK(pread(fd, buffer, 6, 0), ==, 6);
    CHECK(memcmp(buffer, "axydef", 6), ==, 0);
    see(loop, loop_splice(loop, fd, 6, ends[1], LOOP_CURRENT, 3, 0, note_outcome, &seen), &seen, 0);
    see(loop, loop_splice(loop, fd, 0, fd, 0, 3, 0, note_outcome, &seen), &seen, -EINVAL);
    CHECK(loop_splice(loop, fd, 0, ends[1], 0, (size_t)INT32_MAX + 1, 0, note_outcome, &seen), ==, -EINVAL);
    close(ends[0]);
    close(ends[1]);
    close(fd);
    leave(folder);
    close_loop(loop);
}

/* ---- a full disk ---- */

#define MAY_NOT_MOUNT 77

static void write_to_a_full_disk(void *arg)
{
    struct folder *folder = arg;
    struct outcome seen = {0};
    static char data[1 << 17];
    loop_t *loop;
    int fd;

    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", folder->name, "tmpfs", 0, "size=64k") != 0)
        _exit(MAY_NOT_MOUNT);
    REQUIRE(chdir(folder->name), ==, 0);
    loop = new_loop();
    fd = make_file("a", "");
    see(loop, loop_write(loop, fd, data, 4096, 0, note_outcome, &seen), &seen, 4096);
    see(loop, loop_write_all(loop, fd, data, sizeof data, 4096, note_outcome, &seen), &seen, 65536 - 4096);
    see(loop, loop_write_all(loop, fd, data, 1, 65536, note_outcome, &seen), &seen, -ENOSPC);
    see(loop, loop_write(loop, fd, data, 1, 65536, note_outcome, &seen), &seen, -ENOSPC);
    see(loop, loop_fallocate(loop, fd, 0, 65536, 4096, note_outcome, &seen), &seen, -ENOSPC);
    close_loop(loop);
}

static void a_full_disk_is_a_short_count_and_then_enospc(void)
{
    struct folder folder = enter();

    int status = check_fork(write_to_a_full_disk, &folder);

    if (WIFEXITED(status) && WEXITSTATUS(status) == MAY_NOT_MOUNT)
        printf("left out under a user who may not mount: %s: it mounts a small file system\n", __func__);
    else
        CHECK(status, ==, 0);
    leave(folder);
}

/* ---- operations on files and directories ---- */

static void files_are_opened_synced_sized_and_looked_at(void)
{
    loop_t *loop = new_loop();
    struct folder folder = enter();
    struct outcome seen = {0};
    struct statx status;
    char *path = strdup("a");
    int fd, dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    REQUIRE(gone(loop_openat(loop, dir, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640, note_outcome, &seen), path), >, 0);
    CHECK(loop_run(loop), ==, LOOP_DONE);
    fd = seen.result;
    REQUIRE(fd, >, 2);
    memset(&seen, 0, sizeof seen);
    CHECK(fcntl(fd, F_GETFD), ==, FD_CLOEXEC);
    see(loop, loop_openat(loop, dir, "a", O_CREAT | O_EXCL, 0600, note_outcome, &seen), &seen, -EEXIST);
    see(loop, loop_openat(loop, AT_FDCWD, "b", O_RDONLY, 0, note_outcome, &seen), &seen, -ENOENT);
    see(loop, loop_fallocate(loop, fd, 0, 0, 10000, note_outcome, &seen), &seen, 0);
    CHECK(size_of(fd), ==, 10000);
    if (loop_supports(loop, 55 /* IORING_OP_FTRUNCATE */))
        see(loop, loop_ftruncate(loop, fd, 5000, note_outcome, &seen), &seen, 0);
    else
        CHECK(loop_ftruncate(loop, fd, 5000, note_outcome, &seen), ==, -ENOSYS);
    CHECK(ftruncate(fd, 5000), ==, 0);
    CHECK(size_of(fd), ==, 5000);
    see(loop, loop_fsync(loop, fd, 0, note_outcome, &seen), &seen, 0);
    see(loop, loop_fsync(loop, fd, LOOP_DATASYNC, note_outcome, &seen), &seen, 0);
    see(loop, loop_fsync(loop, fd, 1u << 31, note_outcome, &seen), &seen, -EINVAL);
    see(loop, loop_fsync(loop, 1000000, 0, note_outcome, &seen), &seen, -EBADF);
    see(loop, loop_fallocate(loop, dir, 0, 0, 1, note_outcome, &seen), &seen, -EBADF);
    memset(&status, 0, sizeof status);
    path = strdup("a");
    see(loop, gone(loop_statx(loop, dir, path, 0, STATX_BASIC_STATS, &status, note_outcome, &seen), path), &seen, 0);
    CHECK(status.stx_size, ==, 5000);
    CHECK(status.stx_mode & 0777, ==, 0640);
    memset(&status, 0, sizeof status);
    see(loop, loop_statx(loop, fd, "", AT_EMPTY_PATH, STATX_SIZE, &status, note_outcome, &seen), &seen, 0);
    CHECK(status.stx_size, ==, 5000);
    see(loop, loop_statx(loop, dir, "b", 0, STATX_SIZE, &status, note_outcome, &seen), &seen, -ENOENT);
    see(loop, loop_close_fd(loop, fd, note_outcome, &seen), &seen, 0);
    CHECK(fcntl(fd, F_GETFD), ==, -1);
    close(dir);
    leave(folder);
    close_loop(loop);
}

/* A function whose operation an older kernel lacks returns -ENOSYS. */
static const uint8_t RENAMES = 35 /* 5.11 */, MAKES_DIRECTORIES = 37 /* 5.15 */;

static void directories_and_links_are_made(void)
{
    loop_t *loop = new_loop();
    struct folder folder = enter();
    struct outcome seen = {0};
    char target[16] = "", *path = strdup("d");
    int dir;

    if (!loop_supports(loop, MAKES_DIRECTORIES)) {
        CHECK(gone(loop_mkdirat(loop, AT_FDCWD, path, 0700, note_outcome, &seen), path), ==, -ENOSYS);
        CHECK(loop_linkat(loop, AT_FDCWD, "a", AT_FDCWD, "b", 0, note_outcome, &seen), ==, -ENOSYS);
        CHECK(loop_symlinkat(loop, "to", AT_FDCWD, "s", note_outcome, &seen), ==, -ENOSYS);
        CHECK_TRUE(!loop_is_alive(loop));
        leave(folder);
        close_loop(loop);
        return;
    }
    see(loop, gone(loop_mkdirat(loop, AT_FDCWD, path, 0700, note_outcome, &seen), path), &seen, 0);
    see(loop, loop_mkdirat(loop, AT_FDCWD, "d", 0700, note_outcome, &seen), &seen, -EEXIST);
    dir = open("d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(dir, >=, 0);
    close(make_file("a", "text"));
    path = strdup("a");
    see(loop, gone(loop_linkat(loop, AT_FDCWD, path, dir, "b", 0, note_outcome, &seen), path), &seen, 0);
    CHECK_TRUE(exists("d/b") && exists("a"));
    see(loop, loop_linkat(loop, AT_FDCWD, "x", dir, "b", 0, note_outcome, &seen), &seen, -ENOENT);
    path = strdup("to");
    see(loop, gone(loop_symlinkat(loop, path, dir, "s", note_outcome, &seen), path), &seen, 0);
    CHECK(readlink("d/s", target, sizeof target), ==, 2);
    CHECK_TEXT(target, "to");
    see(loop, loop_symlinkat(loop, "to", dir, "s", note_outcome, &seen), &seen, -EEXIST);
    close(dir);
    CHECK(unlink("d/b"), ==, 0);
    CHECK(unlink("d/s"), ==, 0);
    leave(folder);
    close_loop(loop);
}

static void names_are_renamed_and_removed(void)
{
    loop_t *loop = new_loop();
    struct folder folder = enter();
    struct outcome seen = {0};
    char *path = strdup("c");
    int dir;

    if (!loop_supports(loop, RENAMES)) {
        CHECK(gone(loop_renameat(loop, AT_FDCWD, "a", AT_FDCWD, path, 0, note_outcome, &seen), path), ==, -ENOSYS);
        CHECK(loop_unlinkat(loop, AT_FDCWD, "a", 0, note_outcome, &seen), ==, -ENOSYS);
        CHECK_TRUE(!loop_is_alive(loop));
        leave(folder);
        close_loop(loop);
        return;
    }
    REQUIRE(mkdir("d", 0700), ==, 0);
    dir = open("d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(dir, >=, 0);
    close(make_file("a", "text"));
    close(make_file("d/b", "text"));
    REQUIRE(symlink("to", "d/s"), ==, 0);
    see(loop, gone(loop_renameat(loop, dir, "b", AT_FDCWD, path, 0, note_outcome, &seen), path), &seen, 0);
    CHECK_TRUE(exists("c") && !exists("d/b"));
    see(loop, loop_renameat(loop, AT_FDCWD, "a", AT_FDCWD, "c", 1 /* RENAME_NOREPLACE */, note_outcome, &seen), &seen, -EEXIST);
    path = strdup("s");
    see(loop, gone(loop_unlinkat(loop, dir, path, 0, note_outcome, &seen), path), &seen, 0);
    see(loop, loop_unlinkat(loop, dir, "s", 0, note_outcome, &seen), &seen, -ENOENT);
    see(loop, loop_unlinkat(loop, AT_FDCWD, "d", 0, note_outcome, &seen), &seen, -EISDIR);
    see(loop, loop_unlinkat(loop, AT_FDCWD, "d", AT_REMOVEDIR, note_outcome, &seen), &seen, 0);
    CHECK_TRUE(!exists("d"));
    close(dir);
    leave(folder);
    close_loop(loop);
}

/* ---- closing ---- */

static int count_descriptors(void)
{
    DIR *entries = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(entries)) count++;
    closedir(entries);
    return count;
}

static void s22_a_file_that_no_callback_has_seen_is_closed(void)
{
    int before = count_descriptors();
    struct folder folder = enter();
    loop_t *loop = new_loop();
    struct outcome seen[8] = {{0}};

    close(make_file("a", "text"));
    for (int i = 0; i < 8; i++)
        REQUIRE(loop_openat(loop, AT_FDCWD, "a", O_RDONLY | O_CLOEXEC, 0, note_outcome, &seen[i]), >, 0);
    close_loop(loop);
    for (int i = 0; i < 8; i++) CHECK(seen[i].finals, ==, 0);
    leave(folder);
    CHECK(count_descriptors(), ==, before);
}

/* An open into the ring's table of files has the result 0, which is no descriptor. */
static void s22_a_place_in_the_rings_table_is_not_closed_as_a_descriptor(void)
{
    loop_t *loop = new_loop();
    struct folder folder = enter();
    struct outcome seen = {0};
    struct io_uring_sqe sqe = {0};
    int32_t table = -1;
    int stdin_copy = dup(0), replaced = dup2(folder.former, 0);

    REQUIRE(replaced, ==, 0);
    close(make_file("a", "text"));
    CHECK(loop_run_once(loop, 0), ==, 0);
    if (syscall(SYS_io_uring_register, loop_ring_fd(loop), IORING_REGISTER_FILES, &table, 1) == 0) {
        sqe.opcode = IORING_OP_OPENAT;
        sqe.fd = AT_FDCWD;
        sqe.addr = (uintptr_t)"a";
        sqe.file_index = 1;
        REQUIRE(loop_submit(loop, &sqe, note_outcome, &seen), >, 0);
    }
    close_loop(loop);
    CHECK(seen.finals, ==, 0);
    CHECK(fcntl(0, F_GETFD), >=, 0);
    if (stdin_copy >= 0) {
        dup2(stdin_copy, 0);
        close(stdin_copy);
    } else {
        close(0);
    }
    leave(folder);
}

static const struct check_test tests[] = {
    TEST(reading_and_writing_at_offsets_and_at_the_files_position),
    TEST(vectors_are_read_and_written),
    TEST(s13_write_all_to_a_full_pipe_says_how_far_it_came),
    TEST(splice_moves_data),
    TEST(a_full_disk_is_a_short_count_and_then_enospc),
    TEST(files_are_opened_synced_sized_and_looked_at),
    TEST(directories_and_links_are_made),
    TEST(names_are_renamed_and_removed),
    TEST(s22_a_file_that_no_callback_has_seen_is_closed),
    TEST(s22_a_place_in_the_rings_table_is_not_closed_as_a_descriptor),
};

CHECK_MAIN(tests)
