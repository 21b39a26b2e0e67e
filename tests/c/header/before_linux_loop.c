/* <linux/loop.h>, about loop devices, has many names that begin with lo and LO. */
#include <ringloop.h>

#include <linux/loop.h>

int main(void)
{
    return 0;
}
