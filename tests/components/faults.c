/* Make calls on chosen files fail, and the wall clock wrong, in a program that is run with this as
 * LD_PRELOAD.
 *
 * $FAULTS is a directory. While it holds a file named after a call (`sync`, `write`), which says
 * "<error number> <part of a path>", that call fails on descriptors whose path has that part.
 * A sync that is asked of the kernel (io_submit) fails when its result is fetched. While it holds
 * a file `aio`, which says "<error number>", the kernel cannot be asked. While it holds a file
 * `interrupt`, a signal seems to come whenever a result is fetched, every other time. While it holds
 * a file `clock`, the wall clock is ahead by the seconds that it says.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Read a file of $FAULTS into `text`, as a string; return its size, 0 if it is not there. */
static ssize_t told(const char *name, char *text, size_t most) {
    const char *directory = getenv("FAULTS");
    char path[PATH_MAX];
    ssize_t size = 0;
    if (directory == NULL) return 0;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    size = read(file, text, most - 1);
    close(file);
    text[size > 0 ? size : 0] = 0;
    return size;
}

/* Return the error with which a call on a descriptor is to fail, or 0. */
static int fault(const char *call, int descriptor) {
    char path[64], text[256], target[PATH_MAX];
    int before = errno, number = 0;
    if (told(call, text, sizeof text) > 0) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(path, target, sizeof target - 1);
        char *part = strchr(text, ' ');
        if (length > 0 && part != NULL) {
            target[length] = 0;
            if (strstr(target, part + 1) != NULL) number = atoi(text);
        }
    }
    errno = before;
    return number;
}

static long ahead(void) {
    char text[32];
    int before = errno;
    long seconds = told("clock", text, sizeof text) > 0 ? atol(text) : 0;
    errno = before;
    return seconds;
}

#define FAIL(call, descriptor)                    \
    do {                                          \
        int number = fault(call, descriptor);     \
        if (number) return errno = number, -1;    \
    } while (0)

int fdatasync(int descriptor) {
    FAIL("sync", descriptor);
    return NEXT(fdatasync)(descriptor);
}

int fsync(int descriptor) {
    FAIL("sync", descriptor);
    return NEXT(fsync)(descriptor);
}

ssize_t write(int descriptor, const void *data, size_t size) {
    FAIL("write", descriptor);
    return NEXT(write)(descriptor, data, size);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    FAIL("write", descriptor);
    return NEXT(pwrite)(descriptor, data, size, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    FAIL("write", descriptor);
    return NEXT(pwrite64)(descriptor, data, size, offset);
}

long syscall(long number, ...) {
    long given[6], result;
    char text[32];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) given[i] = va_arg(arguments, long);
    va_end(arguments);
    static int fetched;
    if (number == SYS_io_getevents && told("interrupt", text, sizeof text) > 0 && fetched++ % 2 == 0)
        return errno = EINTR, -1;
    if (number == SYS_io_setup && told("aio", text, sizeof text) > 0)
        return errno = atoi(text), -1;
    result = NEXT(syscall)(number, given[0], given[1], given[2], given[3], given[4], given[5]);
    if (number == SYS_io_getevents)
        for (long i = 0; i < result; i++) {
            struct io_event *event = (struct io_event *)given[3] + i;
            struct iocb *asked = (struct iocb *)(unsigned long)event->obj;
            int error = fault("sync", asked->aio_fildes);
            if (error) event->res = -error;
        }
    return result;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = NEXT(clock_gettime)(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += ahead();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = NEXT(gettimeofday)(now, zone);
    if (result == 0) now->tv_sec += ahead();
    return result;
}

time_t time(time_t *place) {
    time_t now = NEXT(time)(NULL) + ahead();
    if (place != NULL) *place = now;
    return now;
}
