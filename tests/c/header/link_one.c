/* Linked with link_two.c: the header defines nothing that two files would define twice. */
#include <ringloop.h>

#ifdef __cplusplus
extern "C"
#endif
int two(loop_t *loop);

int main(void)
{
    loop_t *loop;

    if (loop_new(0, &loop) < 0)
        return 1;
    return two(loop) + loop_close(loop);
}
