/*
 * memsave and pmemsave. The addresses are checked before the file is touched; what then still goes
 * wrong is the file, and a file that could not be written to its end is emptied, and removed when
 * it was made here, so that no part is taken for the whole.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/fd-resolver.h"
#include "system/cpus.h"
#include "system/memory.h"
#include "system/page-walk.h"
#include "qapi/qapi-commands-machine.h"

/* Copied in pieces of this size: memory that is contiguous for the guest need not be for us. */
#define PIECE_BYTES (1024 * 1024)

/* Where the bytes come from: virtual memory of a vCPU, or physical memory when @env is NULL. */
typedef struct Source {
    const X86CPUState *env;
    uint64_t start, size;
} Source;

static int source_read(const Source *source, uint64_t address, void *buf, uint64_t len)
{
    return source->env ? page_walk_read(source->env, address, buf, len)
                       : address_space_read(address, buf, len);
}

/*
 * Whether every byte can be read. One byte a page tells, as nothing is mapped in smaller parts; it
 * is asked for by translation, without touching the memory.
 */
static bool source_is_readable(const Source *source)
{
    uint64_t address = source->start, left = source->size;

    while (left) {
        uint64_t gpa = address, n = left;

        if (source->env && page_walk(source->env, address, &gpa, &n) < 0) {
            return false;
        }
        n = MIN(n, left);
        if (!address_space_map(gpa, &n, false)) {
            uint8_t byte;

            /* Not RAM: perhaps a device. */
            if (address_space_read(gpa, &byte, 1) < 0) {
                return false;
            }
            n = MIN(left, TARGET_PAGE_SIZE - (gpa & (TARGET_PAGE_SIZE - 1)));
        }
        address += n;
        left -= n;
    }
    return true;
}

/* A pipe would have everybody wait for who reads it, the machine and the monitors. */
static int open_target(const char *filename, Error **errp)
{
    int fd = io_open(filename, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK, 0666, errp);
    struct stat st;

    if (fd >= 0 && fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))) {
        error_setg(errp, "'%s' is a pipe or socket: memory is saved into files only", filename);
        close(fd);
        return -1;
    }
    return fd;
}

static int write_all(int fd, const uint8_t *buf, size_t len)
{
    while (len) {
        ssize_t n = write(fd, buf, len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        buf += n;
        len -= n;
    }
    return 0;
}

static int copy_to_fd(const Source *source, int fd, const char *filename, Error **errp)
{
    g_autofree uint8_t *piece = g_malloc(MIN(source->size, PIECE_BYTES) + 1);

    for (uint64_t done = 0; done < source->size;) {
        uint64_t n = MIN(source->size - done, PIECE_BYTES);
        int ret;

        if (source_read(source, source->start + done, piece, n) < 0) {
            error_setg(errp, "Invalid addr 0x%016" PRIx64 "/size %" PRIu64 " specified",
                       source->start + done, n);
            return -1;
        }
        ret = write_all(fd, piece, n);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "Could not write memory to '%s'", filename);
            return -1;
        }
        done += n;
    }
    return 0;
}

static void save(const Source *source, const char *filename, Error **errp)
{
    bool existed = access(filename, F_OK) == 0;
    int fd, ret;
    uint64_t end;

    if (__builtin_add_overflow(source->start, source->size, &end) ||
        !source_is_readable(source)) {
        error_setg(errp, "Invalid addr 0x%016" PRIx64 "/size %" PRIu64 " specified", source->start,
                   source->size);
        return;
    }
    fd = open_target(filename, errp);
    if (fd < 0) {
        return;
    }
    ret = copy_to_fd(source, fd, filename, errp);
    if (ret < 0) {
        struct stat st;

        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && ftruncate(fd, 0) == 0 && !existed) {
            unlink(filename);
        }
    }
    if (close(fd) < 0 && ret == 0) {
        error_setg_errno(errp, errno, "Could not write memory to '%s'", filename);
        if (!existed) {
            unlink(filename);
        }
    }
}

void qmp_memsave(uint64_t val, uint64_t size, const char *filename, bool has_cpu_index,
                 int64_t cpu_index, Error **errp)
{
    CPUState *cpu;

    if (!has_cpu_index) {
        cpu_index = 0;
    }
    cpu = cpu_index >= 0 && cpu_index < cpus_count() ? cpu_get(cpu_index) : NULL;
    if (!cpu) {
        error_setg(errp, "Parameter 'cpu-index' expects a CPU number");
        return;
    }
    if (cpu_synchronize_state(cpu, errp) < 0) {
        return;
    }
    save(&(Source){ .env = &cpu->env, .start = val, .size = size }, filename, errp);
}

void qmp_pmemsave(uint64_t val, uint64_t size, const char *filename, Error **errp)
{
    save(&(Source){ .start = val, .size = size }, filename, errp);
}
