#include <ringloop.h>
#include <stdio.h>

static void beat(loop_t *loop, void *arg)
{
    int *left = arg;

    printf("%d\n", *left);
    if (--*left == 0)
        loop_cancel(loop, loop_current(loop));
}

int main(void)
{
    loop_t *loop;
    int left = 3;

    if (loop_new(NULL, &loop) < 0 ||
        loop_call_every(loop, LOOP_MSEC(100), beat, &left) < 0 ||
        loop_run(loop) < 0) {
        fprintf(stderr, "%s\n", loop_last_error());
        return 1;
    }
    return loop_close(loop) < 0;
}
