/* Every macro can be used where a program would use it, without a warning. */
#include <ringloop.h>

static const loop_options_t constant = LOOP_OPTIONS_INIT;
static const uint64_t times[] = {LOOP_NSEC(1), LOOP_USEC(2), LOOP_MSEC(1 + 2), LOOP_SEC(4), LOOP_NEVER};

#if LOOP_VERSION_NUMBER < 0x000100
#error "LOOP_VERSION_NUMBER is for the preprocessor too"
#endif

static const char version[] = "ringloop " LOOP_VERSION_STRING;

static int kind(uint32_t value)
{
    switch (value) {
    case LOOP_KIND_CALL:
    case LOOP_KIND_TIMER:
    case LOOP_KIND_REPEAT:
    case LOOP_KIND_HOOK:
        return 1;
    case LOOP_VIRTUAL_TIME + 100:
    case LOOP_BEFORE_WAIT + 200:
    case LOOP_AFTER_WAIT + 200:
        return 2;
    default:
        return LOOP_DONE + LOOP_STOPPED + LOOP_BROKEN;
    }
}

int main(void)
{
    loop_options_t options = LOOP_OPTIONS_INIT;

    options.flags = LOOP_VIRTUAL_TIME;
    options.start_ns = LOOP_SEC(1);
    return !(options.size == constant.size && options.size == sizeof options && times[2] == 3000000 && kind(1) == 1 &&
             version[0] == 'r');
}
