/*
 * The NBD protocol: the bytes on the wire and the numbers in them.
 *
 * All integers are big-endian. Strings have a length, no terminator, and are at most 4096 bytes of
 * UTF-8. Offsets in the tables count from the beginning of each message.
 *
 * Handshake (fixed newstyle)
 *
 *     server   0  8  "NBDMAGIC"
 *              8  8  "IHAVEOPT"
 *             16  2  handshake flags
 *     client   0  4  client flags, a subset of those
 *
 *     then options, one after the other, until EXPORT_NAME or GO succeeds:
 *
 *     client   0  8  "IHAVEOPT"                  server   0  8  option reply magic
 *              8  4  option                               8  4  the option it answers
 *             12  4  length of data                      12  4  reply type; bit 31: an error
 *             16  .  data                                16  4  length of data
 *                                                        20  .  data; of an error: text
 *
 *     EXPORT_NAME alone has no such reply: size (8), transmission flags (2) and, without NO_ZEROES,
 *     124 zero bytes; or the connection ends.
 *
 *     data of INFO, GO:            0  4  n: length of the name
 *                                  4  n  name
 *                                4+n  2  number of information requests
 *                                6+n  2  each of them
 *     data of LIST_META_CONTEXT,   0  4  n: length of the name
 *     SET_META_CONTEXT:            4  n  name
 *                                4+n  4  number of queries
 *                                  .  .  each: 4 bytes length, query
 *
 *     data of replies: SERVER        name length (4), name, description
 *                      INFO          type (2), then EXPORT: size (8), flags (2); NAME, DESCRIPTION: text;
 *                                    BLOCK_SIZE: minimum (4), preferred (4), maximum (4)
 *                      META_CONTEXT  id (4), name
 *
 * Transmission
 *
 *     request   0  4  magic                      extended request   0  4  magic
 *               4  2  flags                                         4  2  flags
 *               6  2  command                                       6  2  command
 *               8  8  cookie                                        8  8  cookie
 *              16  8  offset                                       16  8  offset
 *              24  4  length                                       24  8  length
 *              28  .  data of WRITE                                32  .  payload, with PAYLOAD_LEN
 *
 *     payload of an extended BLOCK_STATUS: 0 8 length of the range, 8 4n ids of contexts
 *
 *     simple    0  4  magic      chunk   0  4  magic     extended   0  4  magic
 *               4  4  error              4  2  flags     chunk      4  2  flags
 *               8  8  cookie             6  2  type                 6  2  type
 *              16  .  data of READ       8  8  cookie               8  8  cookie
 *                                       16  4  length              16  8  offset of the request
 *                                       20  .  payload             24  8  length
 *                                                                  32  .  payload
 *
 *     payload of chunks: OFFSET_DATA       offset (8), data
 *                        OFFSET_HOLE       offset (8), length (4)
 *                        BLOCK_STATUS      context id (4), then each extent: length (4), flags (4)
 *                        BLOCK_STATUS_EXT  context id (4), count (4), then each: length (8), flags (8)
 *                        ERROR             error (4), text length (2), text
 *                        ERROR_OFFSET      error (4), text length (2), text, offset (8)
 *
 * The cookie is the client's and comes back as it was. A request may have many chunks; the last one
 * has the flag DONE. Chunks of different requests may be mixed.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NBD_PROTOCOL_H
#define NBD_PROTOCOL_H

#include <stdint.h>

#define NBD_INIT_MAGIC UINT64_C(0x4e42444d41474943)         /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054)       /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define NBD_REQUEST_MAGIC UINT32_C(0x25609513)
#define NBD_EXTENDED_REQUEST_MAGIC UINT32_C(0x21e41c71)
#define NBD_SIMPLE_REPLY_MAGIC UINT32_C(0x67446698)
#define NBD_CHUNK_MAGIC UINT32_C(0x668e33ef)
#define NBD_EXTENDED_CHUNK_MAGIC UINT32_C(0x6e8a278c)

#define NBD_GREETING_BYTES 18
#define NBD_OPTION_BYTES 16
#define NBD_OPTION_REPLY_BYTES 20
#define NBD_REQUEST_BYTES 28
#define NBD_EXTENDED_REQUEST_BYTES 32
#define NBD_SIMPLE_REPLY_BYTES 16
#define NBD_CHUNK_BYTES 20
#define NBD_EXTENDED_CHUNK_BYTES 32
#define NBD_STRING_MAX_BYTES 4096
#define NBD_EXPORT_NAME_ZEROES 124

#define NBD_DEFAULT_PORT 10809

/* Handshake flags; those of the client have the same bits. */
enum {
    NBD_FLAG_FIXED_NEWSTYLE = 1 << 0,
    NBD_FLAG_NO_ZEROES = 1 << 1,
};

/* Transmission flags: what an export can do. */
enum {
    NBD_FLAG_HAS_FLAGS = 1 << 0,
    NBD_FLAG_READ_ONLY = 1 << 1,
    NBD_FLAG_SEND_FLUSH = 1 << 2,
    NBD_FLAG_SEND_FUA = 1 << 3,
    NBD_FLAG_ROTATIONAL = 1 << 4,
    NBD_FLAG_SEND_TRIM = 1 << 5,
    NBD_FLAG_SEND_WRITE_ZEROES = 1 << 6,
    NBD_FLAG_SEND_DF = 1 << 7,
    NBD_FLAG_CAN_MULTI_CONN = 1 << 8,
    NBD_FLAG_SEND_RESIZE = 1 << 9,
    NBD_FLAG_SEND_CACHE = 1 << 10,
    NBD_FLAG_SEND_FAST_ZERO = 1 << 11,
    NBD_FLAG_BLOCK_STATUS_PAYLOAD = 1 << 12,
};

enum {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
    NBD_OPT_EXTENDED_HEADERS = 11,
};

#define NBD_REP_ERR(n) (UINT32_C(0x80000000) + (n))
#define NBD_REP_ACK UINT32_C(1)
#define NBD_REP_SERVER UINT32_C(2)
#define NBD_REP_INFO UINT32_C(3)
#define NBD_REP_META_CONTEXT UINT32_C(4)
#define NBD_REP_ERR_UNSUP NBD_REP_ERR(1)
#define NBD_REP_ERR_POLICY NBD_REP_ERR(2)
#define NBD_REP_ERR_INVALID NBD_REP_ERR(3)
#define NBD_REP_ERR_PLATFORM NBD_REP_ERR(4)
#define NBD_REP_ERR_TLS_REQD NBD_REP_ERR(5)
#define NBD_REP_ERR_UNKNOWN NBD_REP_ERR(6)
#define NBD_REP_ERR_SHUTDOWN NBD_REP_ERR(7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD NBD_REP_ERR(8)
#define NBD_REP_ERR_TOO_BIG NBD_REP_ERR(9)
#define NBD_REP_ERR_EXT_HEADER_REQD NBD_REP_ERR(10)

enum {
    NBD_INFO_EXPORT = 0,
    NBD_INFO_NAME = 1,
    NBD_INFO_DESCRIPTION = 2,
    NBD_INFO_BLOCK_SIZE = 3,
};

enum {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_CACHE = 5,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

enum {
    NBD_CMD_FLAG_FUA = 1 << 0,
    NBD_CMD_FLAG_NO_HOLE = 1 << 1,
    NBD_CMD_FLAG_DF = 1 << 2,
    NBD_CMD_FLAG_REQ_ONE = 1 << 3,
    NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
    NBD_CMD_FLAG_PAYLOAD_LEN = 1 << 5,
};

#define NBD_REPLY_FLAG_DONE 1

enum {
    NBD_REPLY_TYPE_NONE = 0,
    NBD_REPLY_TYPE_OFFSET_DATA = 1,
    NBD_REPLY_TYPE_OFFSET_HOLE = 2,
    NBD_REPLY_TYPE_BLOCK_STATUS = 5,
    NBD_REPLY_TYPE_BLOCK_STATUS_EXT = 6,
    NBD_REPLY_TYPE_ERROR = (1 << 15) + 1,
    NBD_REPLY_TYPE_ERROR_OFFSET = (1 << 15) + 2,
};

/* Errors on the wire: Linux's numbers, on every system. */
enum {
    NBD_SUCCESS = 0,
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

/* Extent flags, by metadata context. */
enum {
    NBD_STATE_HOLE = 1 << 0,            /* base:allocation */
    NBD_STATE_ZERO = 1 << 1,
    NBD_STATE_DIRTY = 1 << 0,           /* qemu:dirty-bitmap:NAME */
};

#endif
