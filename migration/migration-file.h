/*
 * MigrationFile: the migration stream, buffered, over a QIOChannel.
 *
 * An output collects bytes and references to memory and writes them in large vectors; an input
 * reads ahead in large pieces. Integers are big-endian. Errors are sticky: after the first one puts
 * do nothing and gets return zeroes, so a sequence of fields is written without a test after each
 * and the error is looked at where it matters. One thread uses a MigrationFile at a time;
 * mfile_shutdown() may come from any thread.
 *
 * While an input waits for bytes it drops the big lock if the calling thread holds it, and takes it
 * again: a slow peer never holds the monitors.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_MIGRATION_FILE_H
#define MIGRATION_MIGRATION_FILE_H

#include "io/channel.h"
#include "util/error.h"

typedef struct MigrationFile MigrationFile;

/* Both take a reference to @ioc. The offset of a seekable channel is where it stands now. */
MigrationFile *mfile_new_output(QIOChannel *ioc);
MigrationFile *mfile_new_input(QIOChannel *ioc);
/* Flushes nothing; drops the reference, does not close the channel. NULL is allowed. */
void mfile_free(MigrationFile *f);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MigrationFile, mfile_free)

/* What the bytes go to or come from; belongs to the file. */
QIOChannel *mfile_channel(MigrationFile *f);

/* 0, or -1 with a copy of the sticky error in @errp. */
int mfile_check(MigrationFile *f, Error **errp);
bool mfile_has_error(MigrationFile *f);
/* Make @err (taken) the sticky error, unless there is one. */
void mfile_set_error(MigrationFile *f, Error *err);
/* Wake whoever waits in it, and fail from now on with "the migration was cancelled". */
void mfile_shutdown(MigrationFile *f);

/*
 * The same with the reason @err (taken) and, for an input, without harm to what the channel
 * writes: for a thread whose trouble is the reason why nothing more need be read. Any thread.
 */
void mfile_abort(MigrationFile *f, Error *err);

/* Output */
void mfile_put_buffer(MigrationFile *f, const void *buf, size_t len);
/*
 * From now on write without copying where the channel can lend memory (io/channel.h). For a stream
 * whose reader will say that it has read all: until then it reads guest pages as they are when it
 * comes to them. Before the first byte is put.
 */
void mfile_lend(MigrationFile *f);
/*
 * Put a reference: @buf must stay valid, and what is read of it may change, until the next
 * mfile_flush() returns (or the reader has read, with mfile_lend()). For guest pages.
 */
void mfile_put_ref(MigrationFile *f, const void *buf, size_t len);
void mfile_put_u8(MigrationFile *f, uint8_t v);
void mfile_put_be16(MigrationFile *f, uint16_t v);
void mfile_put_be32(MigrationFile *f, uint32_t v);
void mfile_put_be64(MigrationFile *f, uint64_t v);
/* u8 length and the bytes, no NUL; at most 255 bytes. */
void mfile_put_counted_string(MigrationFile *f, const char *s);
/* Write out everything. */
int mfile_flush(MigrationFile *f, Error **errp);

/* Input */
/* Returns the bytes read, fewer than @len only with the sticky error set. */
size_t mfile_get_buffer(MigrationFile *f, void *buf, size_t len);
uint8_t mfile_get_u8(MigrationFile *f);
uint16_t mfile_get_be16(MigrationFile *f);
uint32_t mfile_get_be32(MigrationFile *f);
uint64_t mfile_get_be64(MigrationFile *f);
/* @s has room for 256 bytes and is NUL-terminated; false at an error or with a NUL inside. */
bool mfile_get_counted_string(MigrationFile *f, char s[256]);
/*
 * Look ahead: at least @want bytes (at most 64 KiB) that can be read in place, *have bytes in fact.
 * Returns NULL (sticky error set) when the stream ends before.
 */
const uint8_t *mfile_peek(MigrationFile *f, size_t want, size_t *have);
/* The same without waiting: what is in the buffer now, which may be nothing. */
const uint8_t *mfile_peek_buffered(MigrationFile *f, size_t *have);
/* Go past @len bytes that were peeked. */
void mfile_skip(MigrationFile *f, size_t len);
/*
 * For a parser that can guess where bytes belong: one read straight into @iov (at most
 * MFILE_DIRECT_MAX bytes), when nothing is left in the buffer. Returns the bytes read, at least 1;
 * 0 with the sticky error set. What turns out to have been guessed wrongly is given back, in order,
 * before anything else is called; it is then read again as if nothing had happened.
 */
#define MFILE_DIRECT_MAX (512 * 1024)
size_t mfile_read_direct(MigrationFile *f, const struct iovec *iov, unsigned niov);
void mfile_give_back(MigrationFile *f, const void *buf, size_t len);
/* True when the stream ends cleanly here; waits for a byte or the end. */
bool mfile_at_eof(MigrationFile *f);

/* Bytes put or got since it was made. */
uint64_t mfile_transferred(MigrationFile *f);

/* Seekable channels: absolute offset in the file of the next byte put or got. */
uint64_t mfile_offset(MigrationFile *f);
/* Flush (output) or drop what was read ahead (input) and go on at @offset, absolute. */
int mfile_seek(MigrationFile *f, uint64_t offset, Error **errp);
bool mfile_seekable(MigrationFile *f);

#endif
