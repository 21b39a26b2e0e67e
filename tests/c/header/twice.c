/* The header may be included twice. */
#include <ringloop.h>
#include <ringloop.h>

int main(void)
{
    return 0;
}
