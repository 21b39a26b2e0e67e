/* <linux/loop.h>, about loop devices, has many names that begin with lo and LO. */
#include <linux/loop.h>

#include <ringloop.h>

int main(void)
{
    return 0;
}
