/* A clock of the day that can be stepped while a program runs, to be preloaded: what the program
 * reads of CLOCK_REALTIME is shifted by the seconds in the file that $STEPPED_CLOCK names. Waits
 * until a time of that clock are given to the system in the system's own time. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>

/* The shift, shared with whoever writes the file: eight bytes, the machine's own order. */
static volatile long *shift;

__attribute__((constructor)) static void open_shift(void) {
    int file = open(getenv("STEPPED_CLOCK"), O_RDONLY);
    shift = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (shift == MAP_FAILED) abort();
}

static long seconds(void) { return shift ? *shift : 0; }

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += seconds();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    REAL(gettimeofday);
    int result = real(now, zone);
    now->tv_sec += seconds();
    return result;
}

int timespec_get(struct timespec *now, int base) {
    return clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}

time_t time(time_t *now) {
    struct timespec read;
    clock_gettime(CLOCK_REALTIME, &read);
    if (now) *now = read.tv_sec;
    return read.tv_sec;
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    REAL(cnd_timedwait);
    struct timespec system = {until->tv_sec - seconds(), until->tv_nsec};
    return real(condition, mutex, &system);
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                           const struct timespec *until) {
    REAL(pthread_cond_timedwait);
    struct timespec system = {until->tv_sec - seconds(), until->tv_nsec};
    return real(condition, mutex, &system);
}
