/* The header needs nothing before it. */
#include <ringloop.h>

int main(void)
{
    return 0;
}
