/*
 * Tokens come in, and a stack of open arrays and objects grows and shrinks: no recursion, so depth
 * costs one stack entry and is limited by a number, not by the C stack. A value is attached to its
 * container as soon as it is complete.
 *
 * After a syntax error nothing is built any more, and brackets alone are counted, curly and square
 * ones apart, until both are balanced or one is closed that was never opened: the next byte then
 * begins a new value, which is where other servers of this protocol go on too.
 *
 * What a value costs is charged as it is built, with a rough upper bound of json-c's own memory per
 * element: a few bytes of "[{},{},..." must not become gigabytes.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include "monitor/json-lexer.h"
#include "monitor/json-stream.h"

#define COST_OBJECT_BYTES 1024
#define COST_ARRAY_BYTES 512
#define COST_SCALAR_BYTES 96
#define COST_MEMBER_BYTES 160

typedef enum Expect {
    EXPECT_VALUE,
    EXPECT_VALUE_OR_END,        /* just after [ */
    EXPECT_KEY,
    EXPECT_KEY_OR_END,          /* just after { */
    EXPECT_COLON,
    EXPECT_COMMA_OR_END,
} Expect;

typedef struct Frame {
    struct json_object *container;
    bool is_object;
    Expect expect;
    char *key;                  /* of the member whose value is awaited */
} Frame;

struct JSONStream {
    JSONLexer lexer;
    GArray *stack;              /* of Frame, outermost first */
    Error *err;                 /* the first error in this value: nothing is built any more */
    int64_t curly, square;      /* brackets open */
    uint64_t cost;              /* bytes charged for this value */
};

static void value_reset(JSONStream *s)
{
    for (guint i = 0; i < s->stack->len; i++) {
        Frame *f = &g_array_index(s->stack, Frame, i);

        g_free(f->key);
        /* Each container is owned by its frame until it is closed. */
        json_object_put(f->container);
    }
    g_array_set_size(s->stack, 0);
    s->curly = s->square = 0;
    s->cost = 0;
}

JSONStream *json_stream_new(void)
{
    JSONStream *s = g_new0(JSONStream, 1);

    json_lexer_init(&s->lexer);
    s->stack = g_array_new(FALSE, TRUE, sizeof(Frame));
    return s;
}

void json_stream_reset(JSONStream *s)
{
    value_reset(s);
    g_clear_pointer(&s->err, error_free);
    json_lexer_reset(&s->lexer);
}

void json_stream_free(JSONStream *s)
{
    if (!s) {
        return;
    }
    json_stream_reset(s);
    json_lexer_destroy(&s->lexer);
    g_array_free(s->stack, TRUE);
    g_free(s);
}

/* ---- strings and numbers ---- */

static int hex4(const char *p)
{
    int v = 0;

    for (int i = 0; i < 4; i++) {
        int d = g_ascii_xdigit_value(p[i]);
        if (d < 0) {
            return -1;
        }
        v = v * 16 + d;
    }
    return v;
}

/*
 * \uXXXX at @p (after the u), a surrogate pair included. Returns the bytes it takes after the u, or
 * 0 when it is no character.
 */
static int unescape_unicode(const char *p, const char *end, GString *out)
{
    int c = end - p >= 4 ? hex4(p) : -1;

    if (c >= 0xd800 && c < 0xdc00 && end - p >= 10 && p[4] == '\\' && p[5] == 'u') {
        int low = hex4(p + 6);
        if (low >= 0xdc00 && low < 0xe000) {
            g_string_append_unichar(out, 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00));
            return 10;
        }
    }
    if (c <= 0 || (c >= 0xd800 && c < 0xe000)) {
        return 0;
    }
    g_string_append_unichar(out, c);
    return 4;
}

static bool unescape_char(char c, GString *out)
{
    static const char from[] = "\"'\\/bfnrt";
    static const char to[] = "\"'\\/\b\f\n\r\t";
    const char *at = c ? strchr(from, c) : NULL;

    if (!at) {
        return false;
    }
    g_string_append_c(out, to[at - from]);
    return true;
}

/* @text is a string token, with its quotes. */
static GString *string_value(const GString *text, Error **errp)
{
    const char *p = text->str + 1, *end = text->str + text->len - 1;
    GString *out;

    if (!g_utf8_validate(p, end - p, NULL)) {
        error_setg(errp, "JSON parse error, invalid UTF-8 sequence in string");
        return NULL;
    }
    out = g_string_sized_new(end - p);
    while (p < end) {
        const char *escape = memchr(p, '\\', end - p);
        int used;

        g_string_append_len(out, p, (escape ? escape : end) - p);
        if (!escape) {
            break;
        }
        p = escape + 2;
        if (p[-1] != 'u') {
            if (!unescape_char(p[-1], out)) {
                error_setg(errp, "JSON parse error, invalid escape sequence '\\%c'",
                           g_ascii_isprint(p[-1]) ? p[-1] : '?');
                goto fail;
            }
            continue;
        }
        used = unescape_unicode(p, end, out);
        if (!used) {
            g_autofree char *seq = g_strndup(p, MIN(4, end - p));
            g_autofree char *shown = g_utf8_make_valid(seq, -1);
            error_setg(errp, "JSON parse error, \\u%s is not a valid Unicode character", shown);
            goto fail;
        }
        p += used;
    }
    return out;
fail:
    g_string_free(out, TRUE);
    return NULL;
}

static struct json_object *number_value(const char *text, bool integer, Error **errp)
{
    double d;

    if (integer) {
        gint64 i;
        guint64 u;

        errno = 0;
        i = g_ascii_strtoll(text, NULL, 10);
        if (errno == 0) {
            return json_object_new_int64(i);
        }
        if (text[0] != '-') {
            errno = 0;
            u = g_ascii_strtoull(text, NULL, 10);
            if (errno == 0) {
                return json_object_new_uint64(u);
            }
        }
    }
    d = g_ascii_strtod(text, NULL);
    if (d - d != 0) {
        error_setg(errp, "JSON parse error, number out of range");
        return NULL;
    }
    return json_object_new_double(d);
}

/* ---- building ---- */

static Frame *top(JSONStream *s)
{
    return s->stack->len ? &g_array_index(s->stack, Frame, s->stack->len - 1) : NULL;
}

static bool charge(JSONStream *s, uint64_t bytes, Error **errp)
{
    s->cost += bytes;
    if (s->cost > JSON_MESSAGE_MAX_BYTES) {
        error_setg(errp, "JSON message size limit exceeded");
        return false;
    }
    return true;
}

/* Put a complete value where it belongs. Takes ownership. True when it is the outermost one. */
static bool attach(JSONStream *s, struct json_object *v, struct json_object **result)
{
    Frame *f = top(s);

    if (!f) {
        *result = v;
        return true;
    }
    if (f->is_object) {
        json_object_object_add(f->container, f->key, v);
        g_clear_pointer(&f->key, g_free);
    } else {
        json_object_array_add(f->container, v);
    }
    f->expect = EXPECT_COMMA_OR_END;
    return false;
}

static bool open_container(JSONStream *s, bool is_object, Error **errp)
{
    Frame f = {
        .is_object = is_object,
        .expect = is_object ? EXPECT_KEY_OR_END : EXPECT_VALUE_OR_END,
    };

    if (!charge(s, is_object ? COST_OBJECT_BYTES : COST_ARRAY_BYTES, errp)) {
        return false;
    }
    f.container = is_object ? json_object_new_object() : json_object_new_array();
    g_array_append_val(s->stack, f);
    return true;
}

static bool close_container(JSONStream *s, struct json_object **result)
{
    Frame f = *top(s);

    g_array_set_size(s->stack, s->stack->len - 1);
    return attach(s, f.container, result);
}

static bool take_key(JSONStream *s, Frame *f, JSONTokenType type, Error **errp)
{
    GString *key;

    if (type != JSON_TOKEN_STRING) {
        error_setg(errp, "JSON parse error, key is not a string in object");
        return false;
    }
    if (!charge(s, s->lexer.text->len + COST_MEMBER_BYTES, errp)) {
        return false;
    }
    key = string_value(s->lexer.text, errp);
    if (!key) {
        return false;
    }
    f->key = g_string_free(key, FALSE);
    if (json_object_object_get_ex(f->container, f->key, NULL)) {
        error_setg(errp, "JSON parse error, duplicate key");
        return false;
    }
    f->expect = EXPECT_COLON;
    return true;
}

static bool keyword_value(const char *word, struct json_object **v, Error **errp)
{
    if (!strcmp(word, "true") || !strcmp(word, "false")) {
        *v = json_object_new_boolean(word[0] == 't');
        return true;
    }
    if (!strcmp(word, "null")) {
        *v = NULL;
        return true;
    }
    error_setg(errp, "JSON parse error, invalid keyword '%.64s'", word);
    return false;
}

static bool scalar_value(JSONStream *s, JSONTokenType type, struct json_object **v, Error **errp)
{
    GString *text = s->lexer.text, *str;

    if (!charge(s, text->len + COST_SCALAR_BYTES, errp)) {
        return false;
    }
    switch (type) {
    case JSON_TOKEN_STRING:
        str = string_value(text, errp);
        if (!str) {
            return false;
        }
        *v = json_object_new_string_len(str->str, str->len);
        g_string_free(str, TRUE);
        return true;
    case JSON_TOKEN_INTEGER:
    case JSON_TOKEN_FLOAT:
        *v = number_value(text->str, type == JSON_TOKEN_INTEGER, errp);
        return *v != NULL;
    case JSON_TOKEN_KEYWORD:
        return keyword_value(text->str, v, errp);
    default:
        error_setg(errp, "JSON parse error, expecting value");
        return false;
    }
}

/* A value begins with this token. False on error; *done when the outermost value is complete. */
static bool take_value(JSONStream *s, JSONTokenType type, struct json_object **result, bool *done,
                       Error **errp)
{
    struct json_object *v = NULL;

    if (type == JSON_TOKEN_LCURLY || type == JSON_TOKEN_LSQUARE) {
        return open_container(s, type == JSON_TOKEN_LCURLY, errp);
    }
    if (!scalar_value(s, type, &v, errp)) {
        return false;
    }
    *done = attach(s, v, result);
    return true;
}

static bool build(JSONStream *s, JSONTokenType type, struct json_object **result, bool *done,
                  Error **errp)
{
    Frame *f = top(s);
    JSONTokenType end;

    if (!f) {
        return take_value(s, type, result, done, errp);
    }
    end = f->is_object ? JSON_TOKEN_RCURLY : JSON_TOKEN_RSQUARE;
    if (type == end && (f->expect == EXPECT_KEY_OR_END || f->expect == EXPECT_VALUE_OR_END ||
                        f->expect == EXPECT_COMMA_OR_END)) {
        *done = close_container(s, result);
        return true;
    }
    switch (f->expect) {
    case EXPECT_KEY:
    case EXPECT_KEY_OR_END:
        return take_key(s, f, type, errp);
    case EXPECT_COLON:
        if (type != JSON_TOKEN_COLON) {
            error_setg(errp, "JSON parse error, missing : in object pair");
            return false;
        }
        f->expect = EXPECT_VALUE;
        return true;
    case EXPECT_COMMA_OR_END:
        if (type != JSON_TOKEN_COMMA) {
            error_setg(errp, "JSON parse error, expected separator in %s",
                       f->is_object ? "dict" : "list");
            return false;
        }
        f->expect = f->is_object ? EXPECT_KEY : EXPECT_VALUE;
        return true;
    default:
        return take_value(s, type, result, done, errp);
    }
}

/* ---- tokens ---- */

static void count_bracket(JSONStream *s, JSONTokenType type)
{
    s->curly += (type == JSON_TOKEN_LCURLY) - (type == JSON_TOKEN_RCURLY);
    s->square += (type == JSON_TOKEN_LSQUARE) - (type == JSON_TOKEN_RSQUARE);
}

static JSONStreamResult fail_now(JSONStream *s, Error **errp)
{
    error_propagate(errp, g_steal_pointer(&s->err));
    value_reset(s);
    return JSON_STREAM_ERROR;
}

/* Errors that end a value wherever it stands: there is no use in waiting for its brackets. */
static bool check_fatal(JSONStream *s, JSONTokenType type, Error **errp)
{
    if (type == JSON_TOKEN_ERROR) {
        g_autofree char *shown = g_utf8_make_valid(s->lexer.text->str, s->lexer.text->len);
        error_setg(errp, "JSON parse error, stray '%s'", shown);
        return false;
    }
    if (type == JSON_TOKEN_TOO_LONG) {
        error_setg(errp, "JSON token size limit exceeded");
        return false;
    }
    if (s->curly + s->square > JSON_NESTING_MAX) {
        error_setg(errp, "JSON nesting depth limit exceeded");
        json_lexer_skip_line(&s->lexer);
        return false;
    }
    return true;
}

static JSONStreamResult take_token(JSONStream *s, JSONTokenType type, struct json_object **value,
                                   Error **errp)
{
    bool done = false, outside;

    count_bracket(s, type);
    if (!check_fatal(s, type, errp)) {
        g_clear_pointer(&s->err, error_free);
        value_reset(s);
        return JSON_STREAM_ERROR;
    }
    if (!s->err && build(s, type, value, &done, &s->err)) {
        if (done) {
            value_reset(s);
        }
        return done ? JSON_STREAM_VALUE : JSON_STREAM_MORE;
    }
    if (s->cost > JSON_MESSAGE_MAX_BYTES) {
        json_lexer_skip_line(&s->lexer);
        return fail_now(s, errp);
    }
    outside = s->curly < 0 || s->square < 0 || (s->curly == 0 && s->square == 0);
    return outside ? fail_now(s, errp) : JSON_STREAM_MORE;
}

JSONStreamResult json_stream_feed(JSONStream *s, const char *data, size_t size, size_t *used,
                                  struct json_object **value, Error **errp)
{
    size_t i = 0;

    while (i < size) {
        bool consumed;
        JSONTokenType type;

        i += json_lexer_feed_run(&s->lexer, data + i, size - i);
        if (i == size) {
            break;
        }
        type = json_lexer_feed(&s->lexer, data[i], &consumed);
        i += consumed;
        if (type != JSON_TOKEN_NONE) {
            JSONStreamResult r = take_token(s, type, value, errp);
            if (r != JSON_STREAM_MORE) {
                *used = i;
                return r;
            }
        }
    }
    *used = size;
    return JSON_STREAM_MORE;
}
