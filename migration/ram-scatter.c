/*
 * In the first pass most records hold the page after the one before, in the same block. So a read
 * is given a vector in which each record's header goes to a place where it can be checked, and each
 * page to where it belongs if the guess is right. Then a page is copied once, by the kernel, and
 * not once more from a buffer.
 *
 * From the first header that is not the expected one on, all bytes are collected from where they
 * went and given back to the stream. That may spoil guest pages, so the guess goes only as far as
 * pages which the source has not named before: nothing is lost, and what is spoiled is known to the
 * target, which sees to it that it becomes zero unless its contents still come. A guess may also
 * bring pages into existence that nobody needs, until the load is finished; so there is a limit to
 * wrong guesses. How far a guess goes grows while they are right, so that a stream of another shape
 * costs little.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/ram-scatter.h"

#include <inttypes.h>
#include <string.h>

#include "migration/ram-format.h"
#include "util/bitmap.h"
#include "util/bswap.h"

#define HEADER_BYTES 8
#define RECORD_BYTES (HEADER_BYTES + TARGET_PAGE_SIZE)
#define DEPTH_MIN 8
/* Memory that exists only for wrong guesses: at most this, and an eighth of what was right. */
#define SPOILED_PAGES_MAX 4096
/* All of it fits in the stream's buffer when it has to be given back. */
#define DEPTH_MAX (MFILE_DIRECT_MAX / RECORD_BYTES)

struct RamScatter {
    unsigned depth;             /* records to guess next time */
    uint64_t right_pages, spoiled_pages;        /* so far */
    uint8_t headers[DEPTH_MAX][HEADER_BYTES];
    struct iovec iov[2 * DEPTH_MAX];
};

RamScatter *ram_scatter_new(void)
{
    RamScatter *scatter = g_new0(RamScatter, 1);

    scatter->depth = DEPTH_MIN;
    return scatter;
}

void ram_scatter_free(RamScatter *scatter)
{
    g_free(scatter);
}

/* Pages from @first on, at most @most, that were not named yet. */
static uint64_t unnamed_pages(const RamTarget *target, uint64_t first, uint64_t most)
{
    uint64_t end = MIN(target->block->pages, first + most);

    return first < end ? find_next_bit(target->named, end, first) - first : 0;
}

/*
 * Set up headers and pages for @n records from page @first on, of which @have bytes were read
 * before. Returns the number of vector elements.
 */
static unsigned build_vector(RamScatter *scatter, const RamTarget *target, uint64_t first,
                             uint64_t n, size_t have)
{
    struct iovec *iov = scatter->iov;

    for (uint64_t i = 0; i < n; i++) {
        uint8_t *page = target->block->host + (first + i) * TARGET_PAGE_SIZE;
        size_t in_header = i ? 0 : MIN(have, HEADER_BYTES);
        size_t in_page = i || have < HEADER_BYTES ? 0 : have - HEADER_BYTES;

        if (in_header < HEADER_BYTES) {
            *iov++ = (struct iovec) { scatter->headers[i] + in_header, HEADER_BYTES - in_header };
        }
        *iov++ = (struct iovec) { page + in_page, TARGET_PAGE_SIZE - in_page };
    }
    return iov - scatter->iov;
}

/*
 * How many of the @n records from page @first on, for which @bytes were read, are whole and right.
 */
static uint64_t count_right(const RamScatter *scatter, uint64_t first, uint64_t n, size_t bytes)
{
    uint64_t right = 0;

    while (right < n && bytes >= (right + 1) * RECORD_BYTES &&
           ldq_be_p(scatter->headers[right]) ==
               ((first + right) << TARGET_PAGE_BITS | RAM_RECORD_PAGE | RAM_RECORD_CONTINUE)) {
        right++;
    }
    return right;
}

/* Give back bytes [from, bytes) of the records from page @first on. */
static void give_back(const RamScatter *scatter, const RamTarget *target, uint64_t first,
                      size_t from, size_t bytes, MigrationFile *f)
{
    for (uint64_t i = from / RECORD_BYTES; from < bytes; i++) {
        size_t len = MIN(bytes - from, RECORD_BYTES);

        mfile_give_back(f, scatter->headers[i], MIN(len, HEADER_BYTES));
        if (len > HEADER_BYTES) {
            mfile_give_back(f, target->block->host + (first + i) * TARGET_PAGE_SIZE,
                            len - HEADER_BYTES);
        }
        from += len;
    }
}

/*
 * Take what the stream's buffer holds of the next record. It must be the record of @next, or too
 * little to tell. Returns whether to go on.
 */
static bool take_beginning(RamScatter *scatter, RamTarget *target, uint64_t next,
                           MigrationFile *f, size_t *taken)
{
    size_t have;
    const uint8_t *p = mfile_peek_buffered(f, &have);

    if (have >= RECORD_BYTES ||
        (have >= HEADER_BYTES &&
         ldq_be_p(p) != (next << TARGET_PAGE_BITS | RAM_RECORD_PAGE | RAM_RECORD_CONTINUE))) {
        return false;
    }
    memcpy(scatter->headers[0], p, MIN(have, HEADER_BYTES));
    if (have > HEADER_BYTES) {
        memcpy(target->block->host + next * TARGET_PAGE_SIZE, p + HEADER_BYTES,
               have - HEADER_BYTES);
    }
    mfile_skip(f, have);
    *taken = have;
    return true;
}

int64_t ram_scatter_read(RamScatter *scatter, RamTarget *target, uint64_t next, MigrationFile *f,
                         Error **errp)
{
    int64_t done = 0;

    for (;;) {
        uint64_t n = unnamed_pages(target, next, scatter->depth), right;
        size_t bytes, got;

        if (scatter->spoiled_pages > SPOILED_PAGES_MAX + scatter->right_pages / 8) {
            return done;
        }
        if (!n || !take_beginning(scatter, target, next, f, &bytes)) {
            return done;
        }
        got = mfile_read_direct(f, scatter->iov, build_vector(scatter, target, next, n, bytes));
        if (!got) {
            mfile_check(f, errp);
            error_prepend(errp, "RAM block '%s', offset 0x%" PRIx64 " or after: ",
                          target->block->idstr, next << TARGET_PAGE_BITS);
            return -1;
        }
        bytes += got;
        right = count_right(scatter, next, n, bytes);
        ram_target_written(target, next, right);
        if (bytes > right * RECORD_BYTES) {
            uint64_t touched = (bytes + TARGET_PAGE_SIZE - 1) / RECORD_BYTES;

            ram_target_spoiled(target, next + right, touched - right);
            if (bytes >= (right + 1) * RECORD_BYTES) {
                scatter->spoiled_pages += touched - right;
            }
            give_back(scatter, target, next, right * RECORD_BYTES, bytes, f);
        }
        scatter->right_pages += right;
        done += right;
        next += right;
        if (bytes >= (right + 1) * RECORD_BYTES) {
            /* A whole record that was not the expected one. */
            scatter->depth = DEPTH_MIN;
            return done;
        }
        scatter->depth = MIN(scatter->depth * 2, DEPTH_MAX);
    }
}
