/*
 * Requests of the transmission phase: from bytes to a struct, and whether it may be carried out.
 *
 * Nothing here does what a request asks for, or any I/O at all: one function looks at every field
 * of a request before anything acts on it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef NBD_REQUEST_H
#define NBD_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "nbd/protocol.h"

/*
 * Longest READ and longest payload that is served: what the server announces as maximum block size.
 */
#define NBD_MAX_DATA_BYTES (UINT32_C(32) << 20)
/*
 * A payload that is refused is read and thrown away up to this length; beyond it the client has to
 * go.
 */
#define NBD_MAX_SKIP_BYTES (UINT32_C(64) << 20)
/* Context ids in the payload of BLOCK_STATUS. */
#define NBD_MAX_STATUS_IDS 1024

/* How headers look; each one has all that the one before it has. */
typedef enum NbdMode {
    NBD_MODE_SIMPLE,
    NBD_MODE_STRUCTURED,
    NBD_MODE_EXTENDED,
} NbdMode;

typedef struct NbdRequest {
    uint16_t flags;             /* NBD_CMD_FLAG_* */
    uint16_t command;           /* NBD_CMD_* */
    uint64_t cookie;
    uint64_t offset;
    uint64_t length; /* of the range; of a BLOCK_STATUS with payload it comes with that */
    uint64_t payload;           /* bytes that follow the header */
} NbdRequest;

/* What the connection agreed on. */
typedef struct NbdTerms {
    NbdMode mode;
    uint16_t flags;             /* transmission flags as sent to the client */
    bool meta_contexts;         /* at least one was selected */
    uint64_t size;              /* of the export */
} NbdTerms;

typedef enum NbdVerdict {
    NBD_DO,         /* receive the payload, if any, and carry it out */
    NBD_REFUSE,     /* skip the payload, if any, and reply with an error */
    NBD_DISCONNECT, /* the stream cannot be followed any more, or the client wants to end */
} NbdVerdict;

/* Bytes of a request header in @mode. */
static inline unsigned nbd_request_bytes(NbdMode mode)
{
    return mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
}

/* Take a header apart. False: the magic number is wrong. */
bool nbd_request_parse(const uint8_t *header, NbdMode mode, NbdRequest *req);

/*
 * nbd_request_validate:
 * @error: where to store the error for the client (NBD_E*), when it is to be refused
 * @why: where to store a text that says why, when it is to be refused or disconnected; NULL for
 * DISC
 *
 * The payload of BLOCK_STATUS has not been read yet: nbd_status_payload_validate() follows.
 */
NbdVerdict nbd_request_validate(const NbdRequest *req, const NbdTerms *terms, uint32_t *error,
                                const char **why);

/*
 * Look at the payload of a BLOCK_STATUS, req->payload bytes: the range, which is stored in
 * req->length, and the ids, each of which must be one of @n_known in @known. Stores the ids in @ids
 * (room for NBD_MAX_STATUS_IDS) and their number in @n_ids.
 */
NbdVerdict nbd_status_payload_validate(NbdRequest *req, const uint8_t *payload,
                                       const NbdTerms *terms, const uint32_t *known,
                                       unsigned n_known, uint32_t *ids, unsigned *n_ids,
                                       uint32_t *error, const char **why);

/* "READ", or "unknown". */
const char *nbd_command_name(uint16_t command);
/* The protocol's number for a negative errno. */
uint32_t nbd_error_from_errno(int err);

#endif
