# What is written to files is on disk, beside whatever else the interpreter does.

import os

cdef extern from *:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <unistd.h>
    #ifdef __linux__
    #define AIRLOCK_SYNC fdatasync
    /* Have what a file holds on its way before it is waited for; returns why it is not. A system that has no such call,
       or not for this file, has all of it sent by fdatasync; what else is told here, fdatasync need not tell again. */
    static int airlock_begin(int fd) {
        if (!sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE)) return 0;
        return errno == ENOSYS || errno == EPERM || errno == EINVAL || errno == ESPIPE || errno == EINTR ? 0 : errno;
    }
    #else
    #define AIRLOCK_SYNC fsync
    static int airlock_begin(int fd) { (void) fd; return 0; }
    #endif
    """
    int AIRLOCK_SYNC(int) nogil
    int airlock_begin(int) nogil
    int errno, EINTR


def sync(list files):
    """Wait until what was written to descriptors is on disk, beside whatever else runs here; raises OSError."""
    cdef int fds[64]
    cdef int i, count, failed = 0
    for start in range(0, len(files), 64):
        count = 0
        for fd in files[start:start + 64]:
            fds[count] = fd
            count += 1
        with nogil:
            if count > 1:
                for i in range(count):
                    failed = airlock_begin(fds[i])
                    if failed:
                        break
            for i in range(count):
                if failed:
                    break
                while AIRLOCK_SYNC(fds[i]):
                    if errno != EINTR:
                        failed = errno
                        break
        if failed:
            raise OSError(failed, os.strerror(failed))
