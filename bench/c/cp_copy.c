/* The case "copy" with cp, as a child. The measured part includes the start of the child: a millisecond. */
#include "copy.h"

#include <spawn.h>
#include <sys/wait.h>

static void copy(void)
{
    extern char **environ;
    char *arguments[] = {"cp", "--reflink=never", COPY_SOURCE, COPY_TARGET, NULL};
    int status;
    pid_t child;

    copy_begin();
    bench_check(posix_spawnp(&child, "cp", NULL, NULL, arguments, environ) == 0, "cannot start cp");
    bench_must(waitpid(child, &status, 0), "waitpid");
    bench_check(status == 0, "cp failed");
    copy_end();
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "version") == 0) return execlp("cp", "cp", "--version", NULL);
    return copy_main(argc, argv, "", copy);
}
