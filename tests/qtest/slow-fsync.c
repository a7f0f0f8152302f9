/*
 * A disk that has much in its cache, for LD_PRELOAD: the first fsync() of a file with contents takes
 * $FERRY_TEST_FSYNC_MS milliseconds, those after it find nothing left to do.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int fsync(int fd)
{
    static int called;
    const char *text = getenv("FERRY_TEST_FSYNC_MS");
    struct stat st;

    if (text && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size &&
        !__atomic_exchange_n(&called, 1, __ATOMIC_RELAXED)) {
        long ms = atol(text);
        struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

        nanosleep(&ts, NULL);
    }
    return syscall(SYS_fsync, fd);
}
