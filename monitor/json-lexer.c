/*
 * The lexer is a machine with a dozen states and a byte at a time drives it; what a byte means is
 * decided in one function per family of states. Text of a token is collected as it is spelled; what
 * it means (escapes, UTF-8, the range of numbers) is the parser's business, so that a string is
 * looked at only twice. A token that grows over the limit is reported once, freed, and skipped.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "monitor/json-lexer.h"

enum {
    START,
    IN_STRING,
    IN_ESCAPE,
    NUM_MINUS,                  /* "-" */
    NUM_ZERO,                   /* "0": no further digit may follow */
    NUM_DIGITS,
    NUM_POINT,                  /* "1." */
    NUM_FRACTION,
    NUM_E,                      /* "1e" */
    NUM_E_SIGN,
    NUM_EXPONENT,
    IN_KEYWORD,
    RECOVERY,
    SKIP_LINE,
};

/* Text of an error token is for a person: no more of it than this is kept. */
#define ERROR_TEXT_BYTES 64

void json_lexer_init(JSONLexer *lexer)
{
    lexer->state = START;
    lexer->quote = 0;
    lexer->text = g_string_new(NULL);
}

void json_lexer_destroy(JSONLexer *lexer)
{
    g_string_free(lexer->text, TRUE);
    lexer->text = NULL;
}

/* A big token's memory is given back; small ones reuse the buffer. */
static void text_clear(JSONLexer *lexer)
{
    if (lexer->text->allocated_len > 64 * 1024) {
        g_string_free(lexer->text, TRUE);
        lexer->text = g_string_new(NULL);
    } else {
        g_string_truncate(lexer->text, 0);
    }
}

void json_lexer_reset(JSONLexer *lexer)
{
    lexer->state = START;
    text_clear(lexer);
}

void json_lexer_skip_line(JSONLexer *lexer)
{
    text_clear(lexer);
    lexer->state = SKIP_LINE;
}

static bool ends_recovery(unsigned char c)
{
    return c < 0x20 || c >= 0xfe;
}

static JSONTokenType structural(char c)
{
    switch (c) {
    case '{':
        return JSON_TOKEN_LCURLY;
    case '}':
        return JSON_TOKEN_RCURLY;
    case '[':
        return JSON_TOKEN_LSQUARE;
    case ']':
        return JSON_TOKEN_RSQUARE;
    case ':':
        return JSON_TOKEN_COLON;
    case ',':
        return JSON_TOKEN_COMMA;
    default:
        return JSON_TOKEN_NONE;
    }
}

/* The byte does not fit what was begun; it belongs to the error's text unless it recovers. */
static JSONTokenType lex_error(JSONLexer *lexer, char c, bool *consumed)
{
    lexer->state = RECOVERY;
    if (lexer->text->len > ERROR_TEXT_BYTES) {
        g_string_truncate(lexer->text, ERROR_TEXT_BYTES);
        g_string_append(lexer->text, "...");
    } else if (lexer->text->len == 0 || !(structural(c) || ends_recovery(c))) {
        g_string_append_c(lexer->text, c);
    }
    if (ends_recovery(c)) {
        lexer->state = START;
    } else if (structural(c) != JSON_TOKEN_NONE) {
        *consumed = false;
    }
    return JSON_TOKEN_ERROR;
}

static JSONTokenType finish(JSONLexer *lexer, JSONTokenType type)
{
    lexer->state = START;
    return type;
}

static JSONTokenType feed_start(JSONLexer *lexer, char c, bool *consumed)
{
    JSONTokenType type = structural(c);

    text_clear(lexer);
    if (type != JSON_TOKEN_NONE) {
        g_string_append_c(lexer->text, c);
        return type;
    }
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
        return JSON_TOKEN_NONE;
    }
    if (c == '"' || c == '\'') {
        lexer->quote = c;
        lexer->state = IN_STRING;
    } else if (c == '-') {
        lexer->state = NUM_MINUS;
    } else if (c == '0') {
        lexer->state = NUM_ZERO;
    } else if (g_ascii_isdigit(c)) {
        lexer->state = NUM_DIGITS;
    } else if (g_ascii_islower(c)) {
        lexer->state = IN_KEYWORD;
    } else {
        return lex_error(lexer, c, consumed);
    }
    g_string_append_c(lexer->text, c);
    return JSON_TOKEN_NONE;
}

static JSONTokenType feed_string(JSONLexer *lexer, char c, bool *consumed)
{
    if (ends_recovery(c)) {
        return lex_error(lexer, c, consumed);
    }
    g_string_append_c(lexer->text, c);
    if (lexer->state == IN_ESCAPE) {
        lexer->state = IN_STRING;
    } else if (c == '\\') {
        lexer->state = IN_ESCAPE;
    } else if (c == lexer->quote) {
        return finish(lexer, JSON_TOKEN_STRING);
    }
    return JSON_TOKEN_NONE;
}

/* The state after a digit, or -1 where none may stand. */
static int after_digit(unsigned state, char c)
{
    switch (state) {
    case NUM_MINUS:
        return c == '0' ? NUM_ZERO : NUM_DIGITS;
    case NUM_DIGITS:
        return NUM_DIGITS;
    case NUM_POINT:
    case NUM_FRACTION:
        return NUM_FRACTION;
    case NUM_E:
    case NUM_E_SIGN:
    case NUM_EXPONENT:
        return NUM_EXPONENT;
    default:
        return -1;
    }
}

static JSONTokenType feed_number(JSONLexer *lexer, char c, bool *consumed)
{
    unsigned s = lexer->state;
    int next = -1;

    if (g_ascii_isdigit(c)) {
        next = after_digit(s, c);
        if (next < 0) {
            return lex_error(lexer, c, consumed);
        }
    } else if (c == '.' && (s == NUM_ZERO || s == NUM_DIGITS)) {
        next = NUM_POINT;
    } else if ((c == 'e' || c == 'E') &&
               (s == NUM_ZERO || s == NUM_DIGITS || s == NUM_FRACTION)) {
        next = NUM_E;
    } else if ((c == '+' || c == '-') && s == NUM_E) {
        next = NUM_E_SIGN;
    }
    if (next >= 0) {
        g_string_append_c(lexer->text, c);
        lexer->state = next;
        return JSON_TOKEN_NONE;
    }

    switch (s) {
    case NUM_ZERO:
    case NUM_DIGITS:
        *consumed = false;
        return finish(lexer, JSON_TOKEN_INTEGER);
    case NUM_FRACTION:
    case NUM_EXPONENT:
        *consumed = false;
        return finish(lexer, JSON_TOKEN_FLOAT);
    default:
        return lex_error(lexer, c, consumed);
    }
}

static JSONTokenType feed_state(JSONLexer *lexer, char c, bool *consumed)
{
    switch (lexer->state) {
    case START:
        return feed_start(lexer, c, consumed);
    case IN_STRING:
    case IN_ESCAPE:
        return feed_string(lexer, c, consumed);
    case IN_KEYWORD:
        if (g_ascii_islower(c)) {
            g_string_append_c(lexer->text, c);
            return JSON_TOKEN_NONE;
        }
        *consumed = false;
        return finish(lexer, JSON_TOKEN_KEYWORD);
    case RECOVERY:
        if (structural(c) != JSON_TOKEN_NONE) {
            lexer->state = START;
            *consumed = false;
        } else if (ends_recovery(c)) {
            lexer->state = START;
        }
        return JSON_TOKEN_NONE;
    case SKIP_LINE:
        if (ends_recovery(c)) {
            lexer->state = START;
        }
        return JSON_TOKEN_NONE;
    default:
        return feed_number(lexer, c, consumed);
    }
}

JSONTokenType json_lexer_feed(JSONLexer *lexer, char byte, bool *consumed)
{
    JSONTokenType type;

    *consumed = true;
    type = feed_state(lexer, byte, consumed);
    if (type == JSON_TOKEN_NONE && lexer->text->len > JSON_TOKEN_MAX_BYTES) {
        json_lexer_skip_line(lexer);
        return JSON_TOKEN_TOO_LONG;
    }
    return type;
}

size_t json_lexer_feed_run(JSONLexer *lexer, const char *data, size_t size)
{
    size_t n = 0;

    if (lexer->state == SKIP_LINE) {
        while (n < size && !ends_recovery(data[n])) {
            n++;
        }
    } else if (lexer->state == IN_STRING && lexer->text->len < JSON_TOKEN_MAX_BYTES) {
        size = MIN(size, JSON_TOKEN_MAX_BYTES - lexer->text->len);
        while (n < size && !ends_recovery(data[n]) && data[n] != '\\' &&
               data[n] != lexer->quote) {
            n++;
        }
        g_string_append_len(lexer->text, data, n);
    }
    return n;
}
