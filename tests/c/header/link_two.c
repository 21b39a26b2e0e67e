/* See link_one.c. */
#include <ringloop.h>

#ifdef __cplusplus
extern "C"
#endif
int two(loop_t *loop);

int two(loop_t *loop)
{
    return loop_run(loop);
}
