#include "base/time.h"

#include <time.h>

nsec time_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (nsec)now.tv_sec * NSEC_PER_SEC + (nsec)now.tv_nsec;
}

uint64_t time_wall_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
