/*
 * Character devices from command-line text.
 *
 * Both text forms become one set of QMP arguments (ChardevBackend): the short form of -serial is
 * rewritten as the long one, the long one is read by keyval, a few names that differ from QMP's are
 * changed, and the schema's visitor of the kind does the rest, so that types, missing and unknown
 * options are reported in one way.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <json-c/json.h>
#include <string.h>

#include "chardev/char-class.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-visit-char.h"
#include "qapi/util.h"
#include "util/cutils.h"
#include "util/keyval.h"

/* JSON helpers ------------------------------------------------------------------------------- */

static struct json_object *string(const char *text)
{
    return json_object_new_string(text);
}

/* Take a member out; the caller owns it. NULL when there is none. */
static struct json_object *take(struct json_object *obj, const char *key)
{
    struct json_object *value = NULL;

    if (json_object_object_get_ex(obj, key, &value)) {
        json_object_get(value);
        json_object_object_del(obj, key);
    }
    return value;
}

/* Take a text out; g_free() it. An object (from dotted keys) counts as none and stays. */
static char *take_string(struct json_object *obj, const char *key)
{
    struct json_object *value;

    if (!json_object_object_get_ex(obj, key, &value) ||
        !json_object_is_type(value, json_type_string)) {
        return NULL;
    }
    char *text = g_strdup(json_object_get_string(value));
    json_object_object_del(obj, key);
    return text;
}

static void move(struct json_object *from, const char *key, struct json_object *to,
                 const char *new_key)
{
    struct json_object *value = take(from, key);

    if (value) {
        json_object_object_add(to, new_key, value);
    }
}

static void set_default(struct json_object *obj, const char *key, const char *value)
{
    if (!json_object_object_get_ex(obj, key, NULL)) {
        json_object_object_add(obj, key, string(value));
    }
}

static bool is_on(struct json_object *obj, const char *key)
{
    struct json_object *value;
    bool on;

    return json_object_object_get_ex(obj, key, &value) &&
           json_object_is_type(value, json_type_string) &&
           parse_bool(key, json_object_get_string(value), &on, NULL) && on;
}

/* The long form ------------------------------------------------------------------------------ */

/*
 * Words without `=` mean on or, with `no` before them, off, as people still write `server,nowait`.
 * Returns the text with that spelt out; commas are only looked at, so `,,` stays what it is.
 */
static char *spell_out_flags(const char *text)
{
    static const char *const negated[] = { "noserver", "nowait", NULL };
    g_autoptr(GString) out = g_string_new(NULL);

    for (bool first = true; *text; first = false) {
        size_t len = 0;

        while (text[len] && !(text[len] == ',' && text[len + 1] != ',')) {
            len += text[len] == ',' ? 2 : 1;
        }
        g_autofree char *word = g_strndup(text, len);
        if (first || strchr(word, '=')) {
            g_string_append(out, word);
        } else if (g_strv_contains(negated, word)) {
            g_string_append_printf(out, "%s=off", word + 2);
        } else {
            g_string_append_printf(out, "%s=on", word);
        }
        text += len;
        if (*text) {
            g_string_append_c(out, *text++);
        }
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}

/* Gather a socket's address from the members that are spread between its options. */
static bool gather_address(struct json_object *obj, Error **errp)
{
    static const char *const inet[] = { "host", "port", "to", "ipv4", "ipv6", "numeric" };
    static const char *const unix_[] = { "path", "abstract", "tight" };
    bool is_unix = json_object_object_get_ex(obj, "path", NULL);
    bool is_fd = json_object_object_get_ex(obj, "fd", NULL);
    bool is_inet = json_object_object_get_ex(obj, "port", NULL);
    struct json_object *addr, *data;

    if (is_unix + is_fd + is_inet != 1) {
        error_setg(errp, "chardev: socket: exactly one of 'path', 'port' and 'fd' is required");
        return false;
    }
    data = json_object_new_object();
    if (is_inet) {
        set_default(obj, "host", "");
    }
    for (size_t i = 0; is_inet && i < G_N_ELEMENTS(inet); i++) {
        move(obj, inet[i], data, inet[i]);
    }
    for (size_t i = 0; is_unix && i < G_N_ELEMENTS(unix_); i++) {
        move(obj, unix_[i], data, unix_[i]);
    }
    move(obj, "fd", data, "str");

    addr = json_object_new_object();
    json_object_object_add(addr, "type", string(is_inet ? "inet" : is_unix ? "unix" : "fd"));
    json_object_object_add(addr, "data", data);
    json_object_object_add(obj, "addr", addr);
    return true;
}

/* From option names to the members of the kind's struct in the schema. */
static bool rename_members(ChardevBackendKind kind, struct json_object *obj, Error **errp)
{
    switch (kind) {
    case CHARDEV_BACKEND_KIND_FILE:
        move(obj, "path", obj, "out");
        return true;
    case CHARDEV_BACKEND_KIND_PIPE:
        move(obj, "path", obj, "device");
        return true;
    case CHARDEV_BACKEND_KIND_SOCKET:
        set_default(obj, "server", "off");
        if (is_on(obj, "server")) {
            set_default(obj, "wait", "on");
        }
        if (json_object_object_get_ex(obj, "delay", NULL)) {
            bool delay = is_on(obj, "delay");
            json_object_put(take(obj, "delay"));
            json_object_object_add(obj, "nodelay", string(delay ? "off" : "on"));
        }
        return gather_address(obj, errp);
    default:
        return true;
    }
}

static bool visit_options(Visitor *v, ChardevBackend *b, Error **errp)
{
    switch (b->type) {
    case CHARDEV_BACKEND_KIND_FD:
        return visit_type_ChardevFd(v, NULL, &b->u.fd.data, errp);
    case CHARDEV_BACKEND_KIND_FILE:
        return visit_type_ChardevFile(v, NULL, &b->u.file.data, errp);
    case CHARDEV_BACKEND_KIND_MUX:
        return visit_type_ChardevMux(v, NULL, &b->u.mux.data, errp);
    case CHARDEV_BACKEND_KIND_NULL:
        return visit_type_ChardevCommon(v, NULL, &b->u.null.data, errp);
    case CHARDEV_BACKEND_KIND_PIPE:
        return visit_type_ChardevHostdev(v, NULL, &b->u.pipe.data, errp);
    case CHARDEV_BACKEND_KIND_PTY:
        return visit_type_ChardevCommon(v, NULL, &b->u.pty.data, errp);
    case CHARDEV_BACKEND_KIND_SOCKET:
        return visit_type_ChardevSocket(v, NULL, &b->u.socket.data, errp);
    case CHARDEV_BACKEND_KIND_STDIO:
        return visit_type_ChardevStdio(v, NULL, &b->u.stdio.data, errp);
    default:
        g_assert_not_reached();
    }
}

/* The QMP argument that the options describe; id, backend and mux have been taken out of @obj. */
static ChardevBackend *make_backend(const char *kind_name, struct json_object *obj, Error **errp)
{
    g_autoptr(ChardevBackend) b = NULL;
    int kind = qapi_enum_parse(&ChardevBackendKind_lookup, kind_name, -1, NULL);

    if (kind < 0) {
        error_setg(errp, "'%s' is not a valid char driver name", kind_name);
        return NULL;
    }
    if (!rename_members(kind, obj, errp)) {
        return NULL;
    }
    b = g_new0(ChardevBackend, 1);
    b->type = kind;

    Visitor *v = json_input_visitor_new_keyval(obj);
    bool ok = visit_options(v, b, errp);
    visit_free(v);
    return ok ? g_steal_pointer(&b) : NULL;
}

static Chardev *new_mux(const char *id, const char *base_id, Error **errp)
{
    ChardevMux mux = { .chardev = (char *)base_id };
    ChardevBackend backend = { .type = CHARDEV_BACKEND_KIND_MUX, .u.mux.data = &mux };

    return chardev_new(id, &backend, errp);
}

static Chardev *new_from_object(struct json_object *obj, Error **errp)
{
    g_autofree char *kind = take_string(obj, "backend");
    g_autofree char *id = take_string(obj, "id");
    g_autofree char *mux_text = take_string(obj, "mux");
    g_autoptr(ChardevBackend) backend = NULL;
    bool mux = false;

    if (!kind) {
        error_setg(errp, "chardev: \"%s\" missing backend", id ?: "");
        return NULL;
    }
    if (!id) {
        error_setg(errp, "chardev: no id specified");
        return NULL;
    }
    if (mux_text && !parse_bool("mux", mux_text, &mux, errp)) {
        return NULL;
    }
    backend = make_backend(kind, obj, errp);
    if (!backend) {
        return NULL;
    }
    if (!mux) {
        return chardev_new(id, backend, errp);
    }

    g_autofree char *base_id = g_strdup_printf("%s-base", id);
    if (!chardev_new(base_id, backend, errp)) {
        return NULL;
    }
    Chardev *chr = new_mux(id, base_id, errp);
    if (!chr) {
        chardev_delete(base_id, NULL);
    }
    return chr;
}

Chardev *chardev_new_from_opts(const char *optarg, Error **errp)
{
    g_autofree char *text = spell_out_flags(optarg);
    struct json_object *obj = keyval_parse(text, "backend", NULL, errp);
    Chardev *chr = obj ? new_from_object(obj, errp) : NULL;

    json_object_put(obj);
    return chr;
}

/* The short form ----------------------------------------------------------------------------- */

/* Double the commas, for use as a value. */
static char *escape(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);

    return g_strjoinv(",,", parts);
}

/* `HOST:PORT,OPTIONS` as options; NULL when it is not that. */
static char *expand_tcp(const char *rest)
{
    size_t len = strcspn(rest, ",");
    g_autofree char *where = g_strndup(rest, len);
    char *colon = strrchr(where, ':');

    if (!colon || !colon[1]) {
        return NULL;
    }
    *colon = '\0';
    size_t host_len = strlen(where);
    char *host = where;
    if (host_len >= 2 && host[0] == '[' && host[host_len - 1] == ']') {
        host[host_len - 1] = '\0';
        host++;
    }
    return g_strdup_printf("socket,host=%s,port=%s%s", host, colon + 1, rest + len);
}

/* The long form of @spec, without id; NULL when it is none of those known. */
static char *expand(const char *spec)
{
    static const char *const words[] = { "null", "stdio", "pty", NULL };
    const char *rest = strchr(spec, ':');

    if (g_strv_contains(words, spec)) {
        return g_strdup(spec);
    }
    if (!rest || !*++rest) {
        return NULL;
    }
    if (g_str_has_prefix(spec, "unix:")) {
        return g_strdup_printf("socket,path=%s", rest);
    }
    if (g_str_has_prefix(spec, "tcp:")) {
        return expand_tcp(rest);
    }

    static const char *const kinds[][2] = {
        { "file:", "file,path=" }, { "pipe:", "pipe,path=" }, { "fd:", "fd,fd=" },
    };
    g_autofree char *value = escape(rest);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (g_str_has_prefix(spec, kinds[i][0])) {
            return g_strconcat(kinds[i][1], value, NULL);
        }
    }
    return NULL;
}

Chardev *chardev_new_legacy(const char *id, const char *spec, bool permit_mon_mux, Error **errp)
{
    bool mux = permit_mon_mux && g_str_has_prefix(spec, "mon:");
    const char *device = mux ? spec + strlen("mon:") : spec;

    if (!strcmp(device, "none") && !mux) {
        return NULL;
    }
    if (g_str_has_prefix(device, "chardev:") && !mux) {
        const char *name = device + strlen("chardev:");
        Chardev *chr = chardev_find(name);

        if (!chr) {
            error_setg(errp, "chardev \"%s\" not found", name);
        }
        return chr;
    }

    g_autofree char *opts = expand(device);
    if (!opts) {
        error_setg(errp, "'%s' is not a valid char driver", spec);
        return NULL;
    }
    g_autofree char *whole = g_strdup_printf("%s,id=%s%s%s", opts, id, mux ? ",mux=on" : "",
                                             mux && !strcmp(device, "stdio") ? ",signal=off" : "");
    return chardev_new_from_opts(whole, errp);
}
