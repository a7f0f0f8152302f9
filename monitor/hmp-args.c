/*
 * The list of types is walked once, and each type has a function that takes its text from the line:
 * a new type is a function and a line of the table.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <string.h>
#include "monitor/hmp-args.h"

/* One "name:type" */
typedef struct ArgSpec {
    char *name;
    char type;
    char option;                /* X of -X */
    bool option_str;            /* -Xs */
    bool optional;              /* ? */
    bool dotted;                /* . */
} ArgSpec;

typedef struct Parse {
    const char *command;
    const char *p;              /* what is left of the line */
    HMPRegisterLookup lookup;
    HMPArgs *args;
} Parse;

static void skip_spaces(const char **p)
{
    while (g_ascii_isspace(**p)) {
        (*p)++;
    }
}

/* Take one specification from @types. False at the end. */
static bool next_spec(const char **types, ArgSpec *spec)
{
    const char *t = *types, *colon;

    memset(spec, 0, sizeof(*spec));
    if (!*t) {
        return false;
    }
    colon = strchr(t, ':');
    g_assert(colon && colon[1]);
    spec->name = g_strndup(t, colon - t);
    t = colon + 1;
    spec->type = *t++;
    if (spec->type == '-') {
        g_assert(*t);
        spec->option = *t++;
        spec->optional = true;
    }
    for (; *t && *t != ','; t++) {
        spec->optional |= *t == '?';
        spec->dotted |= *t == '.';
        spec->option_str |= *t == 's';
    }
    *types = *t ? t + 1 : t;
    return true;
}

/* ---- words ---- */

char *hmp_word(const char **pp, Error **errp)
{
    GString *out;
    const char *p;
    char quote;

    skip_spaces(pp);
    p = *pp;
    if (!*p) {
        return NULL;
    }
    if (*p != '"') {
        while (*p && !g_ascii_isspace(*p)) {
            p++;
        }
        out = g_string_new_len(*pp, p - *pp);
        *pp = p;
        return g_string_free(out, FALSE);
    }

    quote = *p++;
    out = g_string_new(NULL);
    for (; *p && *p != quote; p++) {
        if (*p == '\\') {
            static const char from[] = "nr\\'\"", to[] = "\n\r\\'\"";
            const char *at = p[1] ? strchr(from, p[1]) : NULL;

            if (!at) {
                error_setg(errp, "unsupported escape code: '\\%c'", p[1] ? p[1] : ' ');
                g_string_free(out, TRUE);
                return NULL;
            }
            g_string_append_c(out, to[at - from]);
            p++;
        } else {
            g_string_append_c(out, *p);
        }
    }
    if (!*p) {
        error_setg(errp, "unterminated string");
        g_string_free(out, TRUE);
        return NULL;
    }
    *pp = p + 1;
    return g_string_free(out, FALSE);
}

/* ---- one function per type; the text is not at its end. False with *errp set ---- */

typedef bool (*ArgParser)(Parse *s, const ArgSpec *spec, Error **errp);

static void add(Parse *s, const ArgSpec *spec, struct json_object *value)
{
    json_object_object_add(s->args, spec->name, value);
}

static bool parse_string(Parse *s, const ArgSpec *spec, Error **errp)
{
    Error *err = NULL;
    g_autofree char *word = hmp_word(&s->p, &err);

    if (!word) {
        error_propagate(errp, err);
        error_prepend(errp, "%s: ", s->command);
        return false;
    }
    add(s, spec, json_object_new_string(word));
    return true;
}

static bool parse_rest(Parse *s, const ArgSpec *spec, Error **errp)
{
    size_t len = strlen(s->p);

    while (len > 0 && g_ascii_isspace(s->p[len - 1])) {
        len--;
    }
    add(s, spec, json_object_new_string_len(s->p, len));
    s->p += strlen(s->p);
    return true;
}

static bool parse_integer(Parse *s, const ArgSpec *spec, Error **errp)
{
    int64_t v;

    if (!hmp_expr_parse(&s->p, s->lookup, &v, errp)) {
        error_prepend(errp, "%s: ", s->command);
        return false;
    }
    if (spec->type == 'i' && (v < INT32_MIN || v > (int64_t)UINT32_MAX)) {
        error_setg(errp, "'%s' has failed: integer is for 32-bit values", s->command);
        return false;
    }
    if (spec->type == 'M' && __builtin_mul_overflow(v, (int64_t)1 << 20, &v)) {
        error_setg(errp, "%s: too large value for '%s'", s->command, spec->name);
        return false;
    }
    if (spec->type == 'M' && v < 0) {
        error_setg(errp, "%s: enter a positive value", s->command);
        return false;
    }
    add(s, spec, json_object_new_int64(v));
    return true;
}

/* Bits to shift for a suffix, or -1. */
static int size_shift(char suffix)
{
    static const char suffixes[] = "bkmgtpe";
    const char *at = suffix ? strchr(suffixes, g_ascii_tolower(suffix)) : NULL;

    return at ? (int)(at - suffixes) * 10 : -1;
}

static bool parse_size(Parse *s, const ArgSpec *spec, Error **errp)
{
    g_autofree char *word = hmp_word(&s->p, NULL);
    char *end = NULL;
    double d = word ? g_ascii_strtod(word, &end) : 0;
    int shift = 20;

    if (!word || end == word || g_ascii_isspace(word[0])) {
        error_setg(errp, "%s: invalid size", s->command);
        return false;
    }
    if (*end) {
        shift = size_shift(*end);
        if (shift < 0 || end[1]) {
            error_setg(errp, "%s: invalid size '%s'", s->command, word);
            return false;
        }
    }
    d *= (double)(1ULL << shift);
    if (!(d >= 0) || d >= 9223372036854775808.0) {
        error_setg(errp, "%s: size '%s' is out of range", s->command, word);
        return false;
    }
    add(s, spec, json_object_new_int64((int64_t)d));
    return true;
}

static bool parse_time(Parse *s, const ArgSpec *spec, Error **errp)
{
    g_autofree char *word = hmp_word(&s->p, NULL);
    char *end = NULL;
    double d = word ? g_ascii_strtod(word, &end) : 0;

    if (!word || end == word || !(d - d == 0)) {
        error_setg(errp, "%s: invalid time", s->command);
        return false;
    }
    if (!strcmp(end, "ms")) {
        d /= 1e3;
    } else if (!strcmp(end, "us")) {
        d /= 1e6;
    } else if (!strcmp(end, "ns")) {
        d /= 1e9;
    } else if (*end && strcmp(end, "s")) {
        error_setg(errp, "%s: unknown unit suffix '%s'", s->command, end);
        return false;
    }
    add(s, spec, json_object_new_double(d));
    return true;
}

static bool parse_onoff(Parse *s, const ArgSpec *spec, Error **errp)
{
    g_autofree char *word = hmp_word(&s->p, NULL);

    if (g_strcmp0(word, "on") && g_strcmp0(word, "off")) {
        error_setg(errp, "Expected 'on' or 'off'");
        return false;
    }
    add(s, spec, json_object_new_boolean(word[1] == 'n'));
    return true;
}

static const struct {
    char type;
    const char *expected;       /* what is missing when it is missing */
    ArgParser parse;
} arg_types[] = {
    { 'F', "filename", parse_string },
    { 'B', "block device name", parse_string },
    { 's', "string", parse_string },
    { 'S', "string", parse_rest },
    { 'i', "integer", parse_integer },
    { 'l', "integer", parse_integer },
    { 'M', "integer", parse_integer },
    { 'o', "size", parse_size },
    { 'T', "time", parse_time },
    { 'b', "'on' or 'off'", parse_onoff },
};

/* ---- /NNfs ---- */

/*
 * Count, format letter and size in bytes; 0 where not given. The command remembers what it used
 * last and fills in.
 */
static bool parse_format(Parse *s, const ArgSpec *spec, Error **errp)
{
    int64_t count = 1;
    char format = 0;
    int size = 0;

    if (*s->p != '/') {
        return true;
    }
    s->p++;
    if (g_ascii_isdigit(*s->p)) {
        for (count = 0; g_ascii_isdigit(*s->p); s->p++) {
            count = MIN(count * 10 + (*s->p - '0'), INT32_MAX);
        }
    }
    for (; *s->p && !g_ascii_isspace(*s->p); s->p++) {
        if (strchr("oduxcis", *s->p)) {
            format = *s->p;
        } else if (strchr("bhwgL", *s->p)) {
            size = *s->p == 'b' ? 1 : *s->p == 'h' ? 2 : *s->p == 'w' ? 4 : 8;
        } else {
            error_setg(errp, "invalid char in format: '%c'",
                       g_ascii_isprint(*s->p) ? *s->p : '?');
            return false;
        }
    }
    json_object_object_add(s->args, "count", json_object_new_int64(count));
    json_object_object_add(s->args, "format", json_object_new_int64(format));
    json_object_object_add(s->args, "size", json_object_new_int64(size));
    return true;
}

/* ---- -X ---- */

static bool parse_option(Parse *s, const ArgSpec *spec, Error **errp)
{
    if (s->p[0] != '-' || s->p[1] != spec->option ||
        (s->p[2] && !g_ascii_isspace(s->p[2]))) {
        return true;            /* another option's, or an argument; that is found out below */
    }
    s->p += 2;
    skip_spaces(&s->p);
    if (!spec->option_str) {
        add(s, spec, json_object_new_boolean(true));
        return true;
    }
    if (!*s->p) {
        error_setg(errp, "%s: value expected for -%c", s->command, spec->option);
        return false;
    }
    return parse_string(s, spec, errp);
}

/* Options may come in any order, so all that follow one another are tried until none fits. */
static bool parse_options(Parse *s, const char **types, ArgSpec *spec, bool *more, Error **errp)
{
    const char *before;
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GArray) specs = g_array_new(FALSE, FALSE, sizeof(ArgSpec));
    bool ok = true;

    do {
        g_array_append_val(specs, *spec);
        g_ptr_array_add(names, spec->name);
    } while ((*more = next_spec(types, spec)) && spec->type == '-');

    do {
        skip_spaces(&s->p);
        before = s->p;
        for (guint i = 0; i < specs->len && ok; i++) {
            ok = parse_option(s, &g_array_index(specs, ArgSpec, i), errp);
            skip_spaces(&s->p);
        }
    } while (ok && s->p != before);

    /* No argument of ours begins with '-' and a letter, except what follows an option list. */
    if (ok && s->p[0] == '-' && g_ascii_isalpha(s->p[1]) &&
        (!s->p[2] || g_ascii_isspace(s->p[2]))) {
        error_setg(errp, "%s: unsupported option -%c", s->command, s->p[1]);
        ok = false;
    }
    return ok;
}

/* ---- all of them ---- */

static bool parse_one(Parse *s, const ArgSpec *spec, Error **errp)
{
    skip_spaces(&s->p);
    if (spec->type == '/') {
        return parse_format(s, spec, errp);
    }
    if (spec->dotted) {
        if (*s->p != '.') {
            return true;
        }
        s->p++;
        skip_spaces(&s->p);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(arg_types); i++) {
        if (arg_types[i].type != spec->type) {
            continue;
        }
        if (*s->p) {
            return arg_types[i].parse(s, spec, errp);
        }
        if (!spec->optional) {
            error_setg(errp, "%s: %s expected", s->command, arg_types[i].expected);
            return false;
        }
        return true;
    }
    g_assert_not_reached();
}

HMPArgs *hmp_args_parse(const char *name, const char *types, const char *text,
                        HMPRegisterLookup lookup, Error **errp)
{
    Parse s = { .command = name, .p = text, .lookup = lookup,
                .args = json_object_new_object() };
    ArgSpec spec;
    bool more = next_spec(&types, &spec), ok = true;

    while (more && ok) {
        if (spec.type == '-') {
            ok = parse_options(&s, &types, &spec, &more, errp);
            continue;
        }
        ok = parse_one(&s, &spec, errp);
        g_free(spec.name);
        more = ok && next_spec(&types, &spec);
    }
    if (!ok && more) {
        g_free(spec.name);
    }
    skip_spaces(&s.p);
    if (ok && *s.p) {
        error_setg(errp, "%s: extraneous characters at the end of line", name);
        ok = false;
    }
    if (!ok) {
        json_object_put(s.args);
        return NULL;
    }
    return s.args;
}

char hmp_args_type(const char *types, unsigned n, char **name)
{
    ArgSpec spec;

    while (next_spec(&types, &spec)) {
        if (spec.type != '-' && spec.type != '/' && n-- == 0) {
            if (name) {
                *name = spec.name;
            } else {
                g_free(spec.name);
            }
            return spec.type;
        }
        g_free(spec.name);
    }
    return '\0';
}

bool hmp_has(HMPArgs *args, const char *name)
{
    return json_object_object_get_ex(args, name, NULL);
}

const char *hmp_str(HMPArgs *args, const char *name)
{
    struct json_object *v;

    return json_object_object_get_ex(args, name, &v) ? json_object_get_string(v) : NULL;
}

int64_t hmp_int(HMPArgs *args, const char *name, int64_t otherwise)
{
    struct json_object *v;

    return json_object_object_get_ex(args, name, &v) ? json_object_get_int64(v) : otherwise;
}

bool hmp_bool(HMPArgs *args, const char *name, bool otherwise)
{
    struct json_object *v;

    return json_object_object_get_ex(args, name, &v) ? json_object_get_boolean(v) : otherwise;
}
