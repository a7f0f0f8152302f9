/*
 * The handshake: greeting, then options until the client has chosen an export.
 *
 * An option's data is read as a whole, in bounded memory, before anything looks at it; then its
 * handler replies. Text in error replies tells the client's user what was wrong. Runs in the main
 * context, as exports belong to the main thread; the client's deadline is watched by client.c.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>

#include "nbd/client.h"
#include "nbd/option-data.h"
#include "nbd/server.h"
#include "util/bswap.h"

/*
 * Data of an option that is looked at; longer ones are skipped and refused, or end the connection.
 */
#define OPTION_MAX_BYTES (64 * 1024)
#define OPTION_SKIP_MAX_BYTES (1024 * 1024)

typedef enum Step {
    STEP_NEXT,                  /* go on with the next option */
    STEP_TRANSMIT,              /* an export was chosen */
    STEP_END,                   /* the connection ends */
} Step;

/* An option that has arrived. */
typedef struct Option {
    uint32_t option;
    uint32_t len;
    const uint8_t *data;
} Option;

/*
 * Replies
 * ---------------------------------------------------------------------------------------------
 */

static Step coroutine_fn reply_parts(NbdClient *c, uint32_t option, uint32_t type,
                                     struct iovec *parts, unsigned n)
{
    uint8_t head[NBD_OPTION_REPLY_BYTES];
    struct iovec iov[4] = { { .iov_base = head, .iov_len = sizeof(head) } };
    uint32_t len = 0;

    g_assert(n < G_N_ELEMENTS(iov));
    for (unsigned i = 0; i < n; i++) {
        iov[i + 1] = parts[i];
        len += parts[i].iov_len;
    }
    stq_be_p(head, NBD_OPTION_REPLY_MAGIC);
    stl_be_p(head + 8, option);
    stl_be_p(head + 12, type);
    stl_be_p(head + 16, len);
    return nbd_send_all(c, iov, n + 1) ? STEP_NEXT : STEP_END;
}

static Step coroutine_fn reply(NbdClient *c, uint32_t option, uint32_t type)
{
    return reply_parts(c, option, type, NULL, 0);
}

static Step coroutine_fn reply_error(NbdClient *c, uint32_t option, uint32_t type, const char *why)
{
    struct iovec text = { .iov_base = (char *)why, .iov_len = strlen(why) };

    nbd_client_log(c, "refused option %" PRIu32 ": %s", option, why);
    return reply_parts(c, option, type, &text, 1);
}

static Step coroutine_fn reply_invalid(NbdClient *c, const Option *o, const char *why)
{
    return reply_error(c, o->option, NBD_REP_ERR_INVALID, why);
}

/* An export's information: its type and up to @len bytes of @data. */
static Step coroutine_fn reply_info(NbdClient *c, uint32_t option, uint16_t type, const void *data,
                                    size_t len)
{
    uint8_t head[2];
    struct iovec parts[2] = {
        { .iov_base = head, .iov_len = sizeof(head) }, { .iov_base = (void *)data, .iov_len = len },
    };

    stw_be_p(head, type);
    return reply_parts(c, option, NBD_REP_INFO, parts, 2);
}

/*
 * Choosing an export
 * ----------------------------------------------------------------------------------
 */

/*
 * Transmission flags as they are for this connection. @go: it begins now, and its contexts count.
 */
static uint16_t flags_for(const NbdClient *c, const NbdExport *exp, bool go)
{
    uint16_t flags = nbd_export_flags(exp);
    bool contexts = c->meta.n > 0 && c->meta.export_serial == exp->serial;

    if (!nbd_server_is_single()) {
        flags |= NBD_FLAG_CAN_MULTI_CONN;
    }
    if (c->terms.mode >= NBD_MODE_STRUCTURED) {
        flags |= NBD_FLAG_SEND_DF;
    }
    if (c->terms.mode == NBD_MODE_EXTENDED && (contexts || !go)) {
        flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    }
    return flags;
}

/* The client has its export from now on; contexts that it selected for another one do not count. */
static void choose(NbdClient *c, NbdExport *exp)
{
    c->terms.size = nbd_export_size(exp);
    c->terms.flags = flags_for(c, exp, true);
    if (c->meta.export_serial != exp->serial) {
        nbd_meta_clear(&c->meta);
    }
    c->terms.meta_contexts = c->meta.n > 0;
    c->exp = exp;
    block_export_ref(&exp->common);
}

static Step coroutine_fn do_export_name(NbdClient *c, const Option *o)
{
    NbdString name = { .text = (const char *)o->data, .len = o->len };
    uint8_t buf[10 + NBD_EXPORT_NAME_ZEROES] = { 0 };
    struct iovec iov = { .iov_base = buf };
    NbdExport *exp;

    /* This option has no way to tell of an error but to end. */
    if (c->terms.mode == NBD_MODE_EXTENDED) {
        nbd_client_log(c, "refused option EXPORT_NAME: extended headers were negotiated");
        return STEP_END;
    }
    exp = nbd_string_is_valid(name) ? nbd_export_find(name.text, name.len) : NULL;
    if (!exp) {
        nbd_client_log(c, "refused option EXPORT_NAME: there is no such export");
        return STEP_END;
    }
    choose(c, exp);
    stq_be_p(buf, c->terms.size);
    stw_be_p(buf + 8, c->terms.flags);
    iov.iov_len = c->no_zeroes ? 10 : sizeof(buf);
    return nbd_send_all(c, &iov, 1) ? STEP_TRANSMIT : STEP_END;
}

/* What INFO and GO say of an export. Replies take time: the strings are the caller's. */
typedef struct Facts {
    char *name, *description;
    uint64_t size;
    uint16_t flags;
    uint32_t minimum, preferred, maximum;
} Facts;

static void facts_find(Facts *f, const NbdClient *c, const NbdExport *exp, bool go)
{
    f->name = g_strdup(exp->name);
    f->description = g_strdup(exp->description);
    f->size = nbd_export_size(exp);
    f->flags = flags_for(c, exp, go);
    nbd_export_block_sizes(exp, &f->minimum, &f->preferred, &f->maximum);
}

static Step coroutine_fn send_facts(NbdClient *c, const Option *o, const NbdInfoData *info,
                                    const Facts *f)
{
    uint8_t export[10], sizes[12];
    Step step = STEP_NEXT;

    stq_be_p(export, f->size);
    stw_be_p(export + 8, f->flags);
    stl_be_p(sizes, f->minimum);
    stl_be_p(sizes + 4, f->preferred);
    stl_be_p(sizes + 8, f->maximum);
    if (info->wants_name) {
        step = reply_info(c, o->option, NBD_INFO_NAME, f->name, strlen(f->name));
    }
    if (step == STEP_NEXT && info->wants_description && f->description) {
        step =
            reply_info(c, o->option, NBD_INFO_DESCRIPTION, f->description, strlen(f->description));
    }
    if (step == STEP_NEXT) {
        step = reply_info(c, o->option, NBD_INFO_BLOCK_SIZE, sizes, sizeof(sizes));
    }
    if (step == STEP_NEXT) {
        step = reply_info(c, o->option, NBD_INFO_EXPORT, export, sizeof(export));
    }
    return step;
}

static Step coroutine_fn do_info(NbdClient *c, const Option *o)
{
    bool go = o->option == NBD_OPT_GO;
    NbdInfoData info;
    const char *why = nbd_parse_info(o->data, o->len, &info);
    Facts facts = { 0 };
    NbdExport *exp;
    Step step;

    if (why) {
        return reply_invalid(c, o, why);
    }
    exp = nbd_export_find(info.name.text, info.name.len);
    if (!exp) {
        return reply_error(c, o->option, NBD_REP_ERR_UNKNOWN, "there is no export of that name");
    }
    facts_find(&facts, c, exp, go);
    if (go) {
        choose(c, exp);
    }
    step = send_facts(c, o, &info, &facts);
    g_free(facts.name);
    g_free(facts.description);
    if (step == STEP_NEXT) {
        step = reply(c, o->option, NBD_REP_ACK);
    }
    return step == STEP_NEXT && go ? STEP_TRANSMIT : step;
}

/*
 * The other options
 * -----------------------------------------------------------------------------------
 */

static Step coroutine_fn do_abort(NbdClient *c, const Option *o)
{
    reply(c, o->option, NBD_REP_ACK);
    return STEP_END;
}

static Step coroutine_fn send_listed(NbdClient *c, const Option *o, char *name, char *description)
{
    uint8_t len[4];
    struct iovec parts[3] = {
        { .iov_base = len, .iov_len = sizeof(len) },
        { .iov_base = name, .iov_len = strlen(name) },
        { .iov_base = description, .iov_len = description ? strlen(description) : 0 },
    };

    stl_be_p(len, parts[1].iov_len);
    return reply_parts(c, o->option, NBD_REP_SERVER, parts, 3);
}

static Step coroutine_fn do_list(NbdClient *c, const Option *o)
{
    /* Exports may come and go while replies wait for the socket. */
    g_autoptr(GPtrArray) texts = g_ptr_array_new_with_free_func(g_free);
    Step step = STEP_NEXT;

    for (NbdExport *exp = nbd_export_next(NULL); exp; exp = nbd_export_next(exp)) {
        g_ptr_array_add(texts, g_strdup(exp->name));
        g_ptr_array_add(texts, g_strdup(exp->description));
    }
    for (guint i = 0; i < texts->len && step == STEP_NEXT; i += 2) {
        step = send_listed(c, o, g_ptr_array_index(texts, i), g_ptr_array_index(texts, i + 1));
    }
    return step == STEP_NEXT ? reply(c, o->option, NBD_REP_ACK) : step;
}

static Step coroutine_fn do_starttls(NbdClient *c, const Option *o)
{
    return reply_error(c, o->option, NBD_REP_ERR_POLICY, "this server has no TLS");
}

static Step coroutine_fn do_structured_reply(NbdClient *c, const Option *o)
{
    if (c->terms.mode == NBD_MODE_EXTENDED) {
        return reply_error(c, o->option, NBD_REP_ERR_EXT_HEADER_REQD,
                           "extended headers were negotiated");
    }
    if (c->terms.mode == NBD_MODE_STRUCTURED) {
        return reply_invalid(c, o, "structured replies were negotiated already");
    }
    c->terms.mode = NBD_MODE_STRUCTURED;
    return reply(c, o->option, NBD_REP_ACK);
}

static Step coroutine_fn do_extended_headers(NbdClient *c, const Option *o)
{
    if (c->terms.mode == NBD_MODE_EXTENDED) {
        return reply_invalid(c, o, "extended headers were negotiated already");
    }
    c->terms.mode = NBD_MODE_EXTENDED;
    return reply(c, o->option, NBD_REP_ACK);
}

static Step coroutine_fn send_contexts(NbdClient *c, const Option *o, const uint32_t *ids,
                                       GPtrArray *names)
{
    bool set = o->option == NBD_OPT_SET_META_CONTEXT;
    Step step = STEP_NEXT;

    for (guint i = 0; i < names->len && step == STEP_NEXT; i++) {
        char *name = g_ptr_array_index(names, i);
        uint8_t id[4];
        struct iovec parts[2] = {
            { .iov_base = id, .iov_len = sizeof(id) },
            { .iov_base = name, .iov_len = strlen(name) },
        };

        stl_be_p(id, set ? ids[i] : 0);
        step = reply_parts(c, o->option, NBD_REP_META_CONTEXT, parts, 2);
    }
    return step == STEP_NEXT ? reply(c, o->option, NBD_REP_ACK) : step;
}

static Step coroutine_fn do_meta_context(NbdClient *c, const Option *o)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    bool list = o->option == NBD_OPT_LIST_META_CONTEXT;
    NbdMeta found = { 0 };
    NbdMetaData data;
    NbdString query;
    NbdExport *exp;
    const char *why;
    Step step;

    if (!list) {
        nbd_meta_clear(&c->meta);
    }
    if (c->terms.mode == NBD_MODE_SIMPLE) {
        return reply_invalid(c, o, "structured replies were not negotiated");
    }
    why = nbd_parse_meta(o->data, o->len, &data);
    if (why) {
        return reply_invalid(c, o, why);
    }
    exp = nbd_export_find(data.name.text, data.name.len);
    if (!exp) {
        return reply_error(c, o->option, NBD_REP_ERR_UNKNOWN, "there is no export of that name");
    }
    found.export_serial = exp->serial;
    if (list && data.n_queries == 0) {
        nbd_meta_add_all(&found, exp);
    }
    while (nbd_next_query(&data, &query)) {
        nbd_meta_query(&found, exp, query.text, query.len, list);
    }
    for (unsigned i = 0; i < found.n; i++) {
        g_ptr_array_add(names, nbd_meta_name(exp, found.ids[i]));
    }
    step = send_contexts(c, o, found.ids, names);
    if (list) {
        nbd_meta_clear(&found);
    } else {
        c->meta = found;
    }
    return step;
}

/*
 * The phase
 * -------------------------------------------------------------------------------------------
 */

typedef struct OptionRules {
    uint32_t option;
    bool no_data;
    Step coroutine_fn (*handle)(NbdClient *c, const Option *o);
} OptionRules;

static const OptionRules options[] = {
    { NBD_OPT_EXPORT_NAME, false, do_export_name },
    { NBD_OPT_ABORT, false, do_abort },
    { NBD_OPT_LIST, true, do_list },
    { NBD_OPT_STARTTLS, true, do_starttls },
    { NBD_OPT_INFO, false, do_info },
    { NBD_OPT_GO, false, do_info },
    { NBD_OPT_STRUCTURED_REPLY, true, do_structured_reply },
    { NBD_OPT_LIST_META_CONTEXT, false, do_meta_context },
    { NBD_OPT_SET_META_CONTEXT, false, do_meta_context },
    { NBD_OPT_EXTENDED_HEADERS, true, do_extended_headers },
};

static Step coroutine_fn handle_option(NbdClient *c, const Option *o)
{
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        if (options[i].option == o->option) {
            if (options[i].no_data && o->len > 0) {
                return reply_invalid(c, o, "the option has no data");
            }
            return options[i].handle(c, o);
        }
    }
    return reply_error(c, o->option, NBD_REP_ERR_UNSUP, "the option is not known");
}

/* Data that is too long to be looked at. */
static Step coroutine_fn refuse_long(NbdClient *c, const Option *o)
{
    if (o->len > OPTION_SKIP_MAX_BYTES || o->option == NBD_OPT_EXPORT_NAME) {
        nbd_client_log(c, "option %" PRIu32 " has %" PRIu32 " bytes of data", o->option, o->len);
        return STEP_END;
    }
    if (nbd_receive_skip(c, o->len) <= 0) {
        return STEP_END;
    }
    return reply_error(c, o->option, NBD_REP_ERR_TOO_BIG, "the option's data is too long");
}

static Step coroutine_fn take_option(NbdClient *c)
{
    g_autofree uint8_t *data = NULL;
    const uint8_t *head;
    Option o;

    if (nbd_receive_peek(c, NBD_OPTION_BYTES, &head) <= 0) {
        return STEP_END;
    }
    o.option = ldl_be_p(head + 8);
    o.len = ldl_be_p(head + 12);
    if (ldq_be_p(head) != NBD_OPTION_MAGIC) {
        nbd_client_log(c, "an option has a wrong magic number");
        return STEP_END;
    }
    if (!c->fixed && o.option != NBD_OPT_EXPORT_NAME) {
        nbd_client_log(c, "an option other than EXPORT_NAME without fixed newstyle");
        return STEP_END;
    }
    if (o.len > OPTION_MAX_BYTES) {
        return refuse_long(c, &o);
    }
    o.data = data = g_malloc(o.len + 1);
    if (o.len > 0 && nbd_receive(c, data, o.len) <= 0) {
        return STEP_END;
    }
    return handle_option(c, &o);
}

static bool coroutine_fn greet(NbdClient *c)
{
    uint8_t hello[NBD_GREETING_BYTES];
    struct iovec iov = { .iov_base = hello, .iov_len = sizeof(hello) };
    const uint8_t *answer;
    uint32_t flags;

    stq_be_p(hello, NBD_INIT_MAGIC);
    stq_be_p(hello + 8, NBD_OPTION_MAGIC);
    stw_be_p(hello + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    if (!nbd_send_all(c, &iov, 1) || nbd_receive_peek(c, 4, &answer) <= 0) {
        return false;
    }
    flags = ldl_be_p(answer);
    c->fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
    c->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
        nbd_client_log(c, "unknown client flags 0x%" PRIx32, flags);
        return false;
    }
    return true;
}

bool coroutine_fn nbd_handshake(NbdClient *c)
{
    Step step = greet(c) ? STEP_NEXT : STEP_END;

    while (step == STEP_NEXT) {
        step = take_option(c);
    }
    return step == STEP_TRANSMIT;
}
