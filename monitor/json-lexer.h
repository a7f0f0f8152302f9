/*
 * Cuts a stream of bytes into JSON tokens, one byte at a time.
 *
 * The language is RFC 8259 with one extension that QMP clients use when people type: strings may
 * stand in single quotes, and \' is an escape. Nothing is looked ahead further than one byte, so a
 * token is reported as soon as it can be: closing brackets and quotes at once, numbers and keywords
 * at the byte that follows them.
 *
 * The lexer holds at most JSON_TOKEN_MAX_BYTES of text whatever comes in. After an error it skips
 * input up to something that can begin a new token again: a control character (a line feed, say), a
 * byte 0xFE or 0xFF, or one of {}[],: which is then a token itself.
 *
 * One thread at a time.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MONITOR_JSON_LEXER_H
#define MONITOR_JSON_LEXER_H

#include <glib.h>
#include <stdbool.h>

/* Longest string, number or keyword, in bytes of its spelling. */
#define JSON_TOKEN_MAX_BYTES (64u << 20)

typedef enum JSONTokenType {
    JSON_TOKEN_NONE,            /* no token ends at this byte */
    JSON_TOKEN_LCURLY,
    JSON_TOKEN_RCURLY,
    JSON_TOKEN_LSQUARE,
    JSON_TOKEN_RSQUARE,
    JSON_TOKEN_COLON,
    JSON_TOKEN_COMMA,
    JSON_TOKEN_STRING,          /* text: with its quotes and escapes */
    JSON_TOKEN_INTEGER,
    JSON_TOKEN_FLOAT,
    JSON_TOKEN_KEYWORD,         /* lower-case letters */
    JSON_TOKEN_ERROR,           /* text: what cannot be a token */
    JSON_TOKEN_TOO_LONG,        /* over the limit; the rest of it is being skipped */
} JSONTokenType;

typedef struct JSONLexer {
    unsigned state;             /* private */
    char quote;                 /* private: the quote that ends the string */
    GString *text;              /* spelling of the token that was last reported */
} JSONLexer;

/* Ready for the first byte; what it allocates goes with destroy. */
void json_lexer_init(JSONLexer *lexer);
void json_lexer_destroy(JSONLexer *lexer);
/* Forget a token that has begun. */
void json_lexer_reset(JSONLexer *lexer);
/*
 * Skip, from now on, to the next control character, 0xFE or 0xFF: for a message that is not wanted
 * any more.
 */
void json_lexer_skip_line(JSONLexer *lexer);

/*
 * json_lexer_feed:
 * @lexer: the lexer
 * @byte: the next byte of input
 * @consumed: false when the byte ended a token without being part of it: it must be fed again
 *
 * Returns: the type of the token that ends here, or JSON_TOKEN_NONE. lexer->text is its spelling,
 * valid until the next call.
 */
JSONTokenType json_lexer_feed(JSONLexer *lexer, char byte, bool *consumed);

/*
 * Eat what cannot end a token, at the beginning of @data, many bytes at a time: text within a
 * string and input that is skipped. Returns how many of @size bytes that is, maybe 0.
 */
size_t json_lexer_feed_run(JSONLexer *lexer, const char *data, size_t size);

#endif
