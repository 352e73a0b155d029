/* The wall clock of a host, as it seems to whoever has this preloaded: TTORCH_CLOCK names a file of eight bytes, the
 * seconds by which it is off. Clocks that cannot be set stay as they are. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *off_by;
static int (*clock_gettime_of_libc)(clockid_t clock, struct timespec *now);

__attribute__((constructor)) static void find(void) {
    const char *path = getenv("TTORCH_CLOCK");
    int file = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *start = file >= 0 ? mmap(NULL, sizeof *off_by, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
    if (start != MAP_FAILED)
        off_by = start;
    if (file >= 0)
        close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (clock_gettime_of_libc == NULL) /* others' constructors may ask before ours has run */
        *(void **)&clock_gettime_of_libc = dlsym(RTLD_NEXT, "clock_gettime");
    int code = clock_gettime_of_libc(clock, now);
    if (code == 0 && off_by != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *off_by;
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise) != 0)
        return -1;
    *now = (struct timeval){.tv_sec = precise.tv_sec, .tv_usec = precise.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise = {0};
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now != NULL)
        *now = precise.tv_sec;
    return precise.tv_sec;
}
