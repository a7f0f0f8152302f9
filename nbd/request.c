/*
 * Validation of requests. For each command a row of a table says which flags it may carry, what of
 * the length and offset matters, and which error a range beyond the end gives.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "nbd/request.h"

#include <errno.h>
#include <stddef.h>

#include "util/bswap.h"

typedef struct CommandRules {
    const char *name;
    uint16_t flags;             /* allowed besides FUA, which every command may carry */
    uint16_t needs;             /* transmission flag without which the command may not be sent */
    bool writes, range, data;   /* changes the export; has a range; moves data, so has a limit */
    uint32_t beyond;            /* error for a range that is not inside the export */
} CommandRules;

static const CommandRules rules[] = {
    [NBD_CMD_READ] = {
        .name = "READ", .flags = NBD_CMD_FLAG_DF, .range = true, .data = true, .beyond = NBD_EINVAL,
    },
    [NBD_CMD_WRITE] = {
        .name = "WRITE", .flags = NBD_CMD_FLAG_PAYLOAD_LEN, .writes = true, .range = true,
        .data = true,
        .beyond = NBD_ENOSPC,
    },
    [NBD_CMD_DISC] = { .name = "DISC" },
    [NBD_CMD_FLUSH] = { .name = "FLUSH", .needs = NBD_FLAG_SEND_FLUSH },
    [NBD_CMD_TRIM] = {
        .name = "TRIM", .needs = NBD_FLAG_SEND_TRIM, .writes = true, .range = true,
        .beyond = NBD_EINVAL,
    },
    [NBD_CMD_CACHE] = { .name = "CACHE", .range = true, .data = true, .beyond = NBD_EINVAL },
    [NBD_CMD_WRITE_ZEROES] = {
        .name = "WRITE_ZEROES", .flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
        .needs = NBD_FLAG_SEND_WRITE_ZEROES, .writes = true, .range = true, .beyond = NBD_ENOSPC,
    },
    [NBD_CMD_BLOCK_STATUS] = {
        .name = "BLOCK_STATUS", .flags = NBD_CMD_FLAG_REQ_ONE | NBD_CMD_FLAG_PAYLOAD_LEN,
        .range = true,
        .beyond = NBD_EINVAL,
    },
};

static const CommandRules *rules_of(uint16_t command)
{
    return command < sizeof(rules) / sizeof(rules[0]) ? &rules[command] : NULL;
}

const char *nbd_command_name(uint16_t command)
{
    const CommandRules *r = rules_of(command);

    return r ? r->name : "unknown";
}

bool nbd_request_parse(const uint8_t *header, NbdMode mode, NbdRequest *req)
{
    bool extended = mode == NBD_MODE_EXTENDED;
    uint64_t length = extended ? ldq_be_p(header + 24) : ldl_be_p(header + 24);
    bool has_payload;

    if (ldl_be_p(header) != (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC)) {
        return false;
    }
    *req = (NbdRequest) {
        .flags = lduw_be_p(header + 4),
        .command = lduw_be_p(header + 6),
        .cookie = ldq_be_p(header + 8),
        .offset = ldq_be_p(header + 16),
        .length = length,
    };
    has_payload = extended ? req->flags & NBD_CMD_FLAG_PAYLOAD_LEN : req->command == NBD_CMD_WRITE;
    if (has_payload) {
        req->payload = length;
    }
    return true;
}

/* What a command may carry, as things were agreed. */
static uint16_t allowed_flags(const CommandRules *r, const NbdTerms *terms)
{
    uint16_t flags = r->flags | NBD_CMD_FLAG_FUA;

    if (!(terms->flags & NBD_FLAG_SEND_FUA)) {
        flags &= ~NBD_CMD_FLAG_FUA;
    }
    if (!(terms->flags & NBD_FLAG_SEND_DF)) {
        flags &= ~NBD_CMD_FLAG_DF;
    }
    if (!(terms->flags & NBD_FLAG_SEND_FAST_ZERO)) {
        flags &= ~NBD_CMD_FLAG_FAST_ZERO;
    }
    if (terms->mode != NBD_MODE_EXTENDED ||
        (r == &rules[NBD_CMD_BLOCK_STATUS] && !(terms->flags & NBD_FLAG_BLOCK_STATUS_PAYLOAD))) {
        flags &= ~NBD_CMD_FLAG_PAYLOAD_LEN;
    }
    return flags;
}

static NbdVerdict refuse(uint32_t code, const char *text, uint32_t *error, const char **why)
{
    *error = code;
    *why = text;
    return NBD_REFUSE;
}

static NbdVerdict check_range(const NbdRequest *req, const CommandRules *r, const NbdTerms *terms,
                              uint32_t *error, const char **why)
{
    uint64_t end;

    if (__builtin_add_overflow(req->offset, req->length, &end) || end > terms->size) {
        return refuse(r->beyond, "the range ends beyond the end of the export", error, why);
    }
    return NBD_DO;
}

static bool has_status_payload(const NbdRequest *req)
{
    return req->command == NBD_CMD_BLOCK_STATUS && req->flags & NBD_CMD_FLAG_PAYLOAD_LEN;
}

static NbdVerdict check_status(const NbdRequest *req, const NbdTerms *terms, uint32_t *error,
                               const char **why)
{
    if (terms->mode == NBD_MODE_SIMPLE || !terms->meta_contexts) {
        return refuse(NBD_EINVAL, "no metadata context was selected", error, why);
    }
    if (has_status_payload(req)) {
        if (req->payload < 8 || (req->payload - 8) % 4 != 0 ||
            (req->payload - 8) / 4 > NBD_MAX_STATUS_IDS) {
            return refuse(NBD_EINVAL, "the payload has a wrong length", error, why);
        }
        return NBD_DO;
    }
    if (req->length == 0) {
        return refuse(NBD_EINVAL, "the range is empty", error, why);
    }
    return NBD_DO;
}

/* All that does not depend on whether there is a payload. */
static NbdVerdict check(const NbdRequest *req, const NbdTerms *terms, uint32_t *error,
                        const char **why)
{
    const CommandRules *r = rules_of(req->command);
    NbdVerdict verdict;

    if (!r) {
        return refuse(NBD_EINVAL, "the command is not known", error, why);
    }
    if (r->writes && terms->flags & NBD_FLAG_READ_ONLY) {
        return refuse(NBD_EPERM, "the export is read-only", error, why);
    }
    if (r->needs && !(terms->flags & r->needs)) {
        return refuse(NBD_EINVAL, "the export does not have this command", error, why);
    }
    if (req->flags & ~allowed_flags(r, terms)) {
        return refuse(NBD_EINVAL, "the command may not have these flags", error, why);
    }
    if (req->command == NBD_CMD_WRITE && terms->mode == NBD_MODE_EXTENDED &&
        !(req->flags & NBD_CMD_FLAG_PAYLOAD_LEN)) {
        return refuse(NBD_EINVAL, "an extended write needs its flag for a payload", error, why);
    }
    if (req->command == NBD_CMD_FLUSH && (req->offset || req->length)) {
        return refuse(NBD_EINVAL, "a flush has no range", error, why);
    }
    if (req->command == NBD_CMD_BLOCK_STATUS) {
        verdict = check_status(req, terms, error, why);
        if (verdict != NBD_DO || has_status_payload(req)) {
            return verdict;
        }
    }
    if (r->data && req->length > NBD_MAX_DATA_BYTES) {
        return refuse(NBD_EINVAL, "the request is longer than 32 MiB", error, why);
    }
    return r->range ? check_range(req, r, terms, error, why) : NBD_DO;
}

NbdVerdict nbd_request_validate(const NbdRequest *req, const NbdTerms *terms, uint32_t *error,
                                const char **why)
{
    NbdVerdict verdict;

    if (req->command == NBD_CMD_DISC) {
        *why = NULL;
        return NBD_DISCONNECT;
    }
    verdict = check(req, terms, error, why);
    if (verdict == NBD_REFUSE && req->payload > NBD_MAX_SKIP_BYTES) {
        *why = "the payload is too long to be skipped";
        return NBD_DISCONNECT;
    }
    return verdict;
}

static bool is_one_of(uint32_t id, const uint32_t *ids, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

NbdVerdict nbd_status_payload_validate(NbdRequest *req, const uint8_t *payload,
                                       const NbdTerms *terms, const uint32_t *known,
                                       unsigned n_known, uint32_t *ids, unsigned *n_ids,
                                       uint32_t *error, const char **why)
{
    unsigned n = (req->payload - 8) / 4;

    req->length = ldq_be_p(payload);
    if (req->length == 0 || n == 0) {
        return refuse(NBD_EINVAL, "the range is empty, or no context is asked for", error, why);
    }
    for (unsigned i = 0; i < n; i++) {
        uint32_t id = ldl_be_p(payload + 8 + 4 * i);

        if (!is_one_of(id, known, n_known) || is_one_of(id, ids, i)) {
            return refuse(NBD_EINVAL, "a context was not selected, or is named twice", error, why);
        }
        ids[i] = id;
    }
    *n_ids = n;
    return check_range(req, &rules[NBD_CMD_BLOCK_STATUS], terms, error, why);
}

uint32_t nbd_error_from_errno(int err)
{
    switch (-err) {
    case 0:
        return NBD_SUCCESS;
    case EPERM:
    case EROFS:
    case EACCES:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case EFBIG:
    case ENOSPC:
    case EDQUOT:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}
