/*
 * JSON values out of a stream of bytes, in bounded memory.
 *
 * A JSONStream is fed bytes as they arrive and gives back one value, or one error, at a time. It
 * builds the value while it reads; there is no second copy of the text. Limits, per value:
 *
 *   JSON_TOKEN_MAX_BYTES     one string or number
 *   JSON_MESSAGE_MAX_BYTES   memory that the value takes: its text and an estimate per element
 *   JSON_NESTING_MAX         open brackets
 *
 * A value over a limit gives one error, and input is skipped to the end of the line. A value that
 * is wrong otherwise is read to where its brackets balance (or close once too often) and then gives
 * one error; text that cannot be JSON at all gives an error at once.
 *
 * Strings are checked to be UTF-8; U+0000 is refused, since no interface of ours takes it. A name
 * that comes twice in an object is an error. Integers are 64 bits, signed or else unsigned; larger
 * ones become floating point.
 *
 * One thread at a time.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MONITOR_JSON_STREAM_H
#define MONITOR_JSON_STREAM_H

#include <json-c/json.h>
#include "util/error.h"

#define JSON_MESSAGE_MAX_BYTES (64u << 20)
#define JSON_NESTING_MAX 1024

typedef struct JSONStream JSONStream;

/* Ready for the first byte. Free it with json_stream_free(). */
JSONStream *json_stream_new(void);
void json_stream_free(JSONStream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(JSONStream, json_stream_free)
/* Forget what was begun: the peer has gone, another comes. */
void json_stream_reset(JSONStream *stream);

typedef enum JSONStreamResult {
    JSON_STREAM_MORE,           /* all input eaten, nothing complete */
    JSON_STREAM_VALUE,          /* *value is set; the caller owns it (NULL is JSON's null) */
    JSON_STREAM_ERROR,          /* *errp is set; reading may go on */
} JSONStreamResult;

/*
 * json_stream_feed:
 * @stream: the stream
 * @data: input
 * @size: bytes of input
 * @used: set to the number of bytes eaten; the rest is to be fed again
 * @value: where a value goes
 * @errp: where an error goes: "JSON parse error, ..." or "JSON ... limit exceeded"
 *
 * Reads up to the end of the first value or error.
 */
JSONStreamResult json_stream_feed(JSONStream *stream, const char *data, size_t size, size_t *used,
                                  struct json_object **value, Error **errp);

#endif
