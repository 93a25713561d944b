/* Make calls on chosen files fail, in a program that is run with this as LD_PRELOAD.
 *
 * $FAULTS is a directory. While it holds a file named after a call (`sync`, `write`), which says
 * "<error number> <part of a path>", that call fails on descriptors whose path has that part.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Return the error with which a call on a descriptor is to fail, or 0. */
static int fault(const char *call, int descriptor) {
    const char *directory = getenv("FAULTS");
    char path[PATH_MAX], text[256], target[PATH_MAX];
    int before = errno, number = 0;
    if (directory == NULL) return 0;
    snprintf(path, sizeof path, "%s/%s", directory, call);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t size = read(file, text, sizeof text - 1);
        close(file);
        snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (size > 0 && length > 0) {
            text[size] = target[length] = 0;
            char *part = strchr(text, ' ');
            if (part != NULL && strstr(target, part + 1) != NULL) number = atoi(text);
        }
    }
    errno = before;
    return number;
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
