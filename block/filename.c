/*
 * Images by name: what a person types becomes a description, here and nowhere else.
 *
 *    /path/to/image                              file, or host_device when it is a block device
 *    file:/path                                  the same, also for names with a colon
 *    nbd:HOST:PORT[:exportname=NAME]             nbd
 *    nbd:unix:PATH[:exportname=NAME]
 *    nbd://HOST[:PORT]/[NAME]
 *    nbd+unix:///[NAME]?socket=PATH
 *    null-co://
 *    json:{...}                                  a description in JSON
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>

#include "block/block-backend.h"
#include "block/driver.h"
#include "qapi/clone-visitor.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-visit-block-core.h"
#include "util/cutils.h"
#include "util/keyval.h"

#define PROBE_BYTES 2048
#define NBD_DEFAULT_PORT "10809"

/* ---- protocols ---- */

static BlockdevOptions *file_options(const char *path)
{
    BlockdevOptions *opts = g_new0(BlockdevOptions, 1);
    struct stat st;

    opts->driver = stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? BLOCKDEV_DRIVER_HOST_DEVICE
                                                               : BLOCKDEV_DRIVER_FILE;
    if (opts->driver == BLOCKDEV_DRIVER_FILE) {
        opts->u.file.filename = g_strdup(path);
    } else {
        opts->u.host_device.filename = g_strdup(path);
    }
    return opts;
}

static BlockdevOptions *nbd_options(SocketAddress *server, const char *export_name)
{
    BlockdevOptions *opts = g_new0(BlockdevOptions, 1);

    opts->driver = BLOCKDEV_DRIVER_NBD;
    opts->u.nbd.server = server;
    opts->u.nbd.export = export_name && *export_name ? g_strdup(export_name) : NULL;
    return opts;
}

static SocketAddress *unix_address(const char *path)
{
    SocketAddress *addr = g_new0(SocketAddress, 1);

    addr->type = SOCKET_ADDRESS_TYPE_UNIX;
    addr->u.q_unix.path = g_strdup(path);
    return addr;
}

static SocketAddress *inet_address(const char *host, const char *port)
{
    SocketAddress *addr = g_new0(SocketAddress, 1);

    addr->type = SOCKET_ADDRESS_TYPE_INET;
    addr->u.inet.host = g_strdup(host);
    addr->u.inet.port = g_strdup(port);
    return addr;
}

/* "[::1]:10809", "host:10809", "host": brackets are taken off. */
static bool split_host_port(const char *text, char **host, char **port)
{
    const char *end = *text == '[' ? strchr(text, ']') : NULL;
    const char *colon = strchr(end ? end : text, ':');

    if ((*text == '[' && !end) || (end && end[1] && end[1] != ':')) {
        return false;
    }
    *host = end ? g_strndup(text + 1, end - text - 1)
                : g_strndup(text, colon ? (size_t)(colon - text) : strlen(text));
    *port = g_strdup(colon ? colon + 1 : NBD_DEFAULT_PORT);
    return **host && **port;
}

/* After "nbd:". */
static BlockdevOptions *parse_nbd_legacy(const char *name, const char *rest, Error **errp)
{
    const char *mark = strstr(rest, ":exportname=");
    g_autofree char *place = mark ? g_strndup(rest, mark - rest) : g_strdup(rest);
    const char *export_name = mark ? mark + strlen(":exportname=") : NULL;
    g_autofree char *host = NULL, *port = NULL;

    if (g_str_has_prefix(place, "unix:")) {
        if (!place[strlen("unix:")]) {
            error_setg(errp, "'%s': the path of the socket is missing", name);
            return NULL;
        }
        return nbd_options(unix_address(place + strlen("unix:")), export_name);
    }
    if (!strchr(place, ':') || !split_host_port(place, &host, &port)) {
        error_setg(errp, "'%s': expected nbd:HOST:PORT or nbd:unix:PATH, and :exportname=NAME",
                   name);
        return NULL;
    }
    return nbd_options(inet_address(host, port), export_name);
}

static BlockdevOptions *parse_nbd_uri(const char *name, Error **errp)
{
    g_autoptr(GError) gerr = NULL;
    g_autoptr(GUri) uri = g_uri_parse(name, G_URI_FLAGS_NONE, &gerr);
    g_autoptr(GHashTable) params = NULL;
    const char *export_name, *socket_path;
    g_autofree char *port = NULL;

    if (!uri) {
        error_setg(errp, "'%s' is not a URI: %s", name, gerr->message);
        return NULL;
    }
    export_name = g_uri_get_path(uri);
    export_name += *export_name == '/';
    params = g_uri_parse_params(g_uri_get_query(uri) ? g_uri_get_query(uri) : "", -1, "&",
                                G_URI_PARAMS_NONE, NULL);
    socket_path = params ? g_hash_table_lookup(params, "socket") : NULL;
    if (!strcmp(g_uri_get_scheme(uri), "nbd+unix")) {
        if (!socket_path || g_hash_table_size(params) != 1) {
            error_setg(errp, "'%s': expected nbd+unix:///NAME?socket=PATH", name);
            return NULL;
        }
        return nbd_options(unix_address(socket_path), export_name);
    }
    if (strcmp(g_uri_get_scheme(uri), "nbd") && strcmp(g_uri_get_scheme(uri), "nbd+tcp")) {
        error_setg(errp, "'%s': scheme '%s' is not supported", name, g_uri_get_scheme(uri));
        return NULL;
    }
    if (!g_uri_get_host(uri) || !*g_uri_get_host(uri) || (params && g_hash_table_size(params))) {
        error_setg(errp, "'%s': expected nbd://HOST[:PORT]/NAME", name);
        return NULL;
    }
    port = g_uri_get_port(uri) > 0 ? g_strdup_printf("%d", g_uri_get_port(uri))
                                   : g_strdup(NBD_DEFAULT_PORT);
    return nbd_options(inet_address(g_uri_get_host(uri), port), export_name);
}

/* Member @key of @obj, an object, made when it is not there; NULL with @errp set. */
static struct json_object *member_object(struct json_object *obj, const char *key, Error **errp)
{
    struct json_object *member;

    if (!json_object_object_get_ex(obj, key, &member)) {
        member = json_object_new_object();
        json_object_object_add(obj, key, member);
    }
    if (!json_object_is_type(member, json_type_object)) {
        error_setg(errp, "'%s' is given as a whole and in parts", key);
        return NULL;
    }
    return member;
}

/* "a.b.c": x becomes a: { b: { c: x } }. The caller's reference to @value is taken. */
static bool add_nested(struct json_object *obj, const char *key, struct json_object *value,
                       Error **errp)
{
    g_auto(GStrv) parts = g_strsplit(key, ".", -1);
    unsigned n = g_strv_length(parts);

    for (unsigned i = 0; obj && i + 1 < n; i++) {
        obj = member_object(obj, parts[i], errp);
    }
    if (obj && json_object_object_get_ex(obj, parts[n - 1], NULL)) {
        error_setg(errp, "'%s' is given twice", key);
        obj = NULL;
    }
    if (!obj) {
        json_object_put(value);
        return false;
    }
    json_object_object_add(obj, parts[n - 1], value);
    return true;
}

/* JSON may have dotted keys, too, at its top, as the command line has. */
static bool nest_dotted_keys(struct json_object *obj, Error **errp)
{
    g_autoptr(GPtrArray) dotted = g_ptr_array_new_with_free_func(g_free);

    if (!json_object_is_type(obj, json_type_object)) {
        return true;                    /* the visitor says what it is not */
    }
    json_object_object_foreach(obj, key, unused) {
        if (strchr(key, '.')) {
            g_ptr_array_add(dotted, g_strdup(key));
        }
    }
    for (guint i = 0; i < dotted->len; i++) {
        const char *name = dotted->pdata[i];
        struct json_object *value = json_object_get(json_object_object_get(obj, name));

        json_object_object_del(obj, name);
        if (strlen(name) > KEYVAL_KEY_MAX_CHARS) {
            error_setg(errp, "a key is longer than %d characters", KEYVAL_KEY_MAX_CHARS);
            json_object_put(value);
            return false;
        }
        if (!add_nested(obj, name, value, errp)) {
            return false;
        }
    }
    return true;
}

/* JSON text as an object in which every node below says its driver; NULL with @errp set. */
static struct json_object *parse_json_text(const char *text, Error **errp)
{
    struct json_object *obj;

    if (json_parse_text(text, &obj, errp) < 0) {
        return NULL;
    }
    if (!nest_dotted_keys(obj, errp)) {
        json_object_put(obj);
        return NULL;
    }
    if (json_object_is_type(obj, json_type_object)) {
        bdrv_imply_file_drivers(obj);
    }
    return obj;
}

static BlockdevOptions *parse_json(const char *text, Error **errp)
{
    struct json_object *obj = parse_json_text(text, errp);
    BlockdevOptions *opts = NULL;
    Visitor *v;

    if (!obj) {
        error_prepend(errp, "json: ");
        return NULL;
    }
    v = json_input_visitor_new(obj);
    visit_type_BlockdevOptions(v, NULL, &opts, errp);
    visit_free(v);
    json_object_put(obj);
    return opts;
}

static BlockdevOptions *protocol_options(const char *name, Error **errp)
{
    const char *colon = strchr(name, ':'), *slash = strchr(name, '/');
    const char *rest;

    if (!*name) {
        error_setg(errp, "The name of the image is empty");
        return NULL;
    }
    if (!colon || (slash && slash < colon)) {
        return file_options(name);
    }
    if (g_str_has_prefix(name, "nbd://") || g_str_has_prefix(name, "nbd+")) {
        return parse_nbd_uri(name, errp);
    }
    if (g_str_has_prefix(name, "nbd:")) {
        return parse_nbd_legacy(name, name + strlen("nbd:"), errp);
    }
    if (g_str_has_prefix(name, "null-co:")) {
        BlockdevOptions *opts = g_new0(BlockdevOptions, 1);

        opts->driver = BLOCKDEV_DRIVER_NULL_CO;
        return opts;
    }
    if (g_str_has_prefix(name, "file:")) {
        rest = name + strlen("file:");
        return file_options(g_str_has_prefix(rest, "///") ? rest + 2 : rest);
    }
    error_setg(
        errp, "Unknown protocol '%.*s' in '%s' (for a file with a colon in its name write file:%s)",
        (int)(colon - name), name, name, name);
    return NULL;
}

/* ---- formats ---- */

static bool is_protocol_driver(const BlockDriver *drv)
{
    return !drv->is_format && !drv->is_filter && drv->driver != BLOCKDEV_DRIVER_RAW;
}

static BlockdevRef *definition_ref(BlockdevOptions *opts)
{
    BlockdevRef *ref = g_new0(BlockdevRef, 1);

    ref->type = QTYPE_QDICT;
    ref->u.definition = *opts;
    g_free(opts);
    return ref;
}

/* @protocol becomes the child "file" of a new description. */
static BlockdevOptions *put_format_above(const BlockDriver *drv, BlockdevOptions *protocol,
                                         Error **errp)
{
    BlockdevOptions *opts = g_new0(BlockdevOptions, 1);

    opts->driver = drv->driver;
    switch (drv->driver) {
    case BLOCKDEV_DRIVER_RAW:
        opts->u.raw.file = definition_ref(protocol);
        return opts;
    case BLOCKDEV_DRIVER_QCOW2:
        opts->u.qcow2.file = definition_ref(protocol);
        return opts;
    default:
        error_setg(errp, "'%s' is not a format of images", drv->format_name);
        qapi_free_BlockdevOptions(protocol);
        g_free(opts);
        return NULL;
    }
}

static const char *probe_node(const BlockdevOptions *protocol, Error **errp)
{
    g_autoptr(BlockdevOptions) opts = QAPI_CLONE(BlockdevOptions, protocol);
    g_autofree uint8_t *buf = g_malloc0(PROBE_BYTES);
    const BlockDriver *best = bdrv_driver_of(BLOCKDEV_DRIVER_RAW);
    BlockBackend *blk;
    int64_t length;
    int score = 0, ret;

    opts->has_read_only = opts->read_only = true;
    opts->has_force_share = opts->force_share = true;
    blk = blk_new_open(opts, errp);
    if (!blk) {
        return NULL;
    }
    length = MIN(blk_getlength(blk), PROBE_BYTES);
    ret = length > 0 ? blk_pread(blk, 0, length, buf, 0) : length;
    blk_unref(blk);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read image for determining its format");
        return NULL;
    }
    for (size_t i = 0; block_drivers[i]; i++) {
        int s = block_drivers[i]->probe ? block_drivers[i]->probe(buf, length) : 0;

        if (s > score) {
            score = s;
            best = block_drivers[i];
        }
    }
    return best->format_name;
}

const char *bdrv_probe_format(const char *filename, Error **errp)
{
    g_autoptr(BlockdevOptions) protocol = protocol_options(filename, errp);

    return protocol ? probe_node(protocol, errp) : NULL;
}

BlockdevOptions *bdrv_options_for_file(const char *filename, const char *format, Error **errp)
{
    BlockdevOptions *protocol;
    const BlockDriver *drv;

    if (g_str_has_prefix(filename, "json:")) {
        return parse_json(filename + strlen("json:"), errp);
    }
    protocol = protocol_options(filename, errp);
    if (!protocol) {
        return NULL;
    }
    if (!format) {
        format = probe_node(protocol, errp);
    }
    drv = format ? bdrv_find_driver(format, errp) : NULL;
    if (!drv) {
        qapi_free_BlockdevOptions(protocol);
        return NULL;
    }
    if (is_protocol_driver(drv)) {
        if (drv->driver == protocol->driver) {
            return protocol;
        }
        error_setg(errp, "'%s' is not for the driver '%s'", filename, drv->format_name);
        qapi_free_BlockdevOptions(protocol);
        return NULL;
    }
    return put_format_above(drv, protocol, errp);
}

/*
 * Descriptions as text
 * -----------------------------------------------------------------------------------------
 */

void bdrv_imply_file_drivers(struct json_object *obj)
{
    struct json_object *name;
    struct stat st;

    json_object_object_foreach(obj, key, value) {
        if (!json_object_is_type(value, json_type_object)) {
            continue;
        }
        bdrv_imply_file_drivers(value);
        if (!json_object_object_get_ex(value, "driver", NULL) &&
            json_object_object_get_ex(value, "filename", &name) && strcmp(key, "cache")) {
            bool device = stat(json_object_get_string(name), &st) == 0 && S_ISBLK(st.st_mode);

            json_object_object_add(value, "driver",
                                   json_object_new_string(device ? "host_device" : "file"));
        }
    }
}

/* JSON has its types, key=value text is all strings. */
static BlockdevOptions *visit_description(struct json_object *obj, bool json, Error **errp)
{
    Visitor *v = json ? json_input_visitor_new(obj) : json_input_visitor_new_keyval(obj);
    BlockdevOptions *opts = NULL;

    visit_type_BlockdevOptions(v, NULL, &opts, errp);
    visit_free(v);
    return opts;
}

/* A description of what holds an image, and not of its format: look into it. */
static bool find_format(struct json_object *obj, bool json, Error **errp)
{
    g_autoptr(BlockdevOptions) protocol = NULL;
    struct json_object *file;
    const char *format;

    if (!json_object_is_type(obj, json_type_object) ||
        json_object_object_get_ex(obj, "driver", NULL) ||
        !json_object_object_get_ex(obj, "file", &file) ||
        !json_object_is_type(file, json_type_object)) {
        return true;
    }
    protocol = visit_description(file, json, errp);
    format = protocol ? probe_node(protocol, errp) : NULL;
    if (!format) {
        error_prepend(errp, "file: ");
        return false;
    }
    json_object_object_add(obj, "driver", json_object_new_string(format));
    return true;
}

BlockdevOptions *bdrv_options_from_text(const char *text, Error **errp)
{
    bool json = text[0] == '{';
    struct json_object *obj = json ? parse_json_text(text, errp)
                                   : keyval_parse(text, "driver", NULL, errp);
    BlockdevOptions *opts = NULL;

    if (!obj) {
        return NULL;
    }
    if (!json) {
        bdrv_imply_file_drivers(obj);
    }
    if (find_format(obj, json, errp)) {
        opts = visit_description(obj, json, errp);
    }
    json_object_put(obj);
    return opts;
}
