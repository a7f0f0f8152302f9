/*
 * The command line of ferry-nbd: one table of options, from which parsing and --help follow. A test
 * holds the manual page against it.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "tools/ferry-nbd-options.h"

#include <getopt.h>
#include <string.h>

#include "nbd/server.h"
#include "qapi/util.h"
#include "util/cutils.h"

#define DEFAULT_BIND "0.0.0.0"
#define DEFAULT_PORT "10809"
#define DEFAULT_SHARED 1

typedef struct OptionDef OptionDef;
struct OptionDef {
    const char *name;
    char letter;                        /* 0: none */
    const char *argument;               /* NULL: it has none */
    const char *help;
    int (*apply)(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp);
    size_t field;                       /* of NbdToolOptions, for some of them */
};

/*
 * What options do
 * ---------------------------------------------------------------------------------------
 */

static int set_text(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    char **field = G_STRUCT_MEMBER_P(o, def->field);

    g_free(*field);
    *field = g_strdup(arg);
    return 0;
}

static int set_true(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    G_STRUCT_MEMBER(bool, o, def->field) = true;
    return 0;
}

static int set_number(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    uint64_t n;

    if (!parse_uint64_range(arg, 0, INT32_MAX, &n, errp)) {
        return -1;
    }
    G_STRUCT_MEMBER(unsigned, o, def->field) = n;
    return 0;
}

static int set_threads(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    uint64_t n;

    if (!parse_uint64_range(arg, 1, NBD_THREADS_MAX, &n, errp)) {
        return -1;
    }
    o->threads = n;
    return 0;
}

static int set_mode(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    o->mode = def->letter == 'h'   ? NBD_TOOL_HELP
              : def->letter == 'V' ? NBD_TOOL_VERSION
                                   : NBD_TOOL_LIST;
    return 0;
}

static int set_cache(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    const struct {
        const char *name;
        bool direct, no_flush, writethrough;
    } modes[] = {
        { "writeback", false, false, false },
        { "writethrough", false, false, true },
        { "none", true, false, false },
        { "directsync", true, false, true },
        { "unsafe", false, true, false },
    };

    if (o->has_cache) {
        error_setg(errp, "-n and --cache can only be given once");
        return -1;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        if (strcmp(arg ? arg : "none", modes[i].name) == 0) {
            o->has_cache = true;
            o->cache_direct = modes[i].direct;
            o->cache_no_flush = modes[i].no_flush;
            o->writethrough = modes[i].writethrough;
            return 0;
        }
    }
    error_setg(
        errp,
        "cache mode '%s' is not known: it is writeback, writethrough, none, directsync or unsafe",
        arg);
    return -1;
}

static int set_aio(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    int value = qapi_enum_parse(&BlockdevAioOptions_lookup, arg, -1, errp);

    o->has_aio = true;
    o->aio = value;
    return value < 0 ? -1 : 0;
}

static int set_discard(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    bool ignore = strcmp(arg, "ignore") == 0 || strcmp(arg, "off") == 0;

    o->discard_unmap = strcmp(arg, "unmap") == 0 || strcmp(arg, "on") == 0;
    if (!ignore && !o->discard_unmap) {
        error_setg(errp, "'%s' is neither 'ignore' nor 'unmap'", arg);
        return -1;
    }
    return 0;
}

static int set_detect_zeroes(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    int value = qapi_enum_parse(&BlockdevDetectZeroesOptions_lookup, arg, -1, errp);

    o->detect_zeroes = value;
    return value < 0 ? -1 : 0;
}

static int set_offset(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    return parse_size(arg, &o->offset, errp) ? 0 : -1;
}

static int add_bitmap(NbdToolOptions *o, const OptionDef *def, const char *arg, Error **errp)
{
    g_ptr_array_add(o->bitmaps, g_strdup(arg));
    return 0;
}

#define FIELD(name) offsetof(NbdToolOptions, name)

static const OptionDef option_defs[] = {
    { "help", 'h', NULL, "show this text and exit", set_mode },
    { "version", 'V', NULL, "show the version and exit", set_mode },
    { "socket", 'k', "PATH", "listen on the UNIX socket PATH", set_text, FIELD(socket) },
    { "bind", 'b', "ADDRESS", "address to listen on (default: " DEFAULT_BIND ")", set_text,
      FIELD(bind) },
    { "port", 'p', "PORT", "port to listen on (default: " DEFAULT_PORT ")", set_text, FIELD(port) },
    { "shared", 'e', "N", "serve up to N clients at once, 0: any number (default: 1)", set_number,
      FIELD(shared) },
    { "persistent", 't', NULL, "go on when the last client has left", set_true, FIELD(persistent) },
    { "handshake-limit", 0, "SECONDS", "time for a handshake, 0: any (default: 10)", set_number,
      FIELD(handshake_seconds) },
    { "threads", 0, "N", "threads that serve clients (default: one a processor, up to 4)",
      set_threads },
    { "fork", 0, NULL, "go into the background when the server is ready", set_true, FIELD(fork) },
    { "pid-file", 0, "PATH", "write the process id to PATH", set_text, FIELD(pid_file) },
    { "verbose", 'v', NULL, "tell of clients on standard error", set_true, FIELD(verbose) },
    { "export-name", 'x', "NAME", "name of the export (default: the empty name)", set_text,
      FIELD(export_name) },
    { "description", 'D', "TEXT", "description of the export", set_text, FIELD(description) },
    { "bitmap", 'B', "NAME", "let clients query a dirty bitmap; may be given again", add_bitmap },
    { "allocation-depth", 'A', NULL, "let clients query the depth of the allocation", set_true,
      FIELD(allocation_depth) },
    { "format", 'f', "FORMAT", "format of the image (default: what it looks like)", set_text,
      FIELD(format) },
    { "image-opts", 0, NULL, "the image is options of a node: driver=...,...", set_true,
      FIELD(image_opts) },
    { "read-only", 'r', NULL, "clients may not write", set_true, FIELD(read_only) },
    { "load-snapshot", 'l', "SNAPSHOT", "serve an internal snapshot, read-only: ID, NAME or "
      "snapshot.id=ID,snapshot.name=NAME", set_text, FIELD(snapshot) },
    { "offset", 'o', "OFFSET", "serve what begins at OFFSET", set_offset },
    { "nocache", 'n', NULL, "the same as --cache=none", set_cache },
    { "cache", 0, "MODE", "writeback, writethrough, none, directsync or unsafe", set_cache },
    { "aio", 0, "ENGINE", "threads, native or io_uring", set_aio },
    { "discard", 0, "MODE", "what TRIM does: ignore or unmap (default: ignore)", set_discard },
    { "detect-zeroes", 0, "MODE", "what writing zeroes does: off, on or unmap", set_detect_zeroes },
    { "list", 'L', NULL, "list the exports of the server that the address leads to", set_mode },
};

const char *nbd_tool_option(unsigned i, char *letter)
{
    if (i >= G_N_ELEMENTS(option_defs)) {
        return NULL;
    }
    *letter = option_defs[i].letter;
    return option_defs[i].name;
}

char *nbd_tool_help(void)
{
    GString *text = g_string_new("Usage: ferry-nbd [OPTION]... IMAGE\n"
                                 "  or:  ferry-nbd -L [-k PATH | -b ADDRESS -p PORT]\n"
                                 "Serve a disk image to NBD clients.\n\n");

    for (size_t i = 0; i < G_N_ELEMENTS(option_defs); i++) {
        const OptionDef *def = &option_defs[i];
        g_autofree char *name = g_strdup_printf("--%s%s%s", def->name, def->argument ? "=" : "",
                                                def->argument ? def->argument : "");

        if (def->letter) {
            g_string_append_printf(text, "  -%c, %-26s %s\n", def->letter, name, def->help);
        } else {
            g_string_append_printf(text, "      %-26s %s\n", name, def->help);
        }
    }
    return g_string_free(text, FALSE);
}

/*
 * Parsing
 * -----------------------------------------------------------------------------------------------
 */

static const OptionDef *find_letter(int letter)
{
    for (size_t i = 0; i < G_N_ELEMENTS(option_defs); i++) {
        if (option_defs[i].letter == letter) {
            return &option_defs[i];
        }
    }
    return NULL;
}

static char *getopt_letters(void)
{
    GString *s = g_string_new(":");

    for (size_t i = 0; i < G_N_ELEMENTS(option_defs); i++) {
        if (option_defs[i].letter) {
            g_string_append_printf(s, "%c%s", option_defs[i].letter,
                                   option_defs[i].argument ? ":" : "");
        }
    }
    return g_string_free(s, FALSE);
}

static int take_option(NbdToolOptions *o, int ret, int index, char **argv, Error **errp)
{
    const OptionDef *def = ret == 0 ? &option_defs[index] : find_letter(ret);
    g_autofree char *shown = NULL;

    if (ret == '?' || ret == ':' || !def) {
        shown = optopt > 0 && optopt < 256 && find_letter(optopt) ? g_strdup_printf("-%c", optopt)
                                                                  : g_strdup(argv[optind - 1]);
        error_setg(errp, ret == ':' ? "option '%s' needs an argument" : "unknown option '%s'",
                   shown);
        return -1;
    }
    if (def->apply(o, def, optarg, errp) < 0) {
        error_prepend(errp, "--%s: ", def->name);
        return -1;
    }
    return 0;
}

static int parse_options(NbdToolOptions *o, int argc, char **argv, Error **errp)
{
    struct option long_options[G_N_ELEMENTS(option_defs) + 1] = { 0 };
    g_autofree char *letters = getopt_letters();
    int ret, index = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(option_defs); i++) {
        long_options[i].name = option_defs[i].name;
        long_options[i].has_arg = option_defs[i].argument ? required_argument : no_argument;
    }
    optind = 0;
    opterr = 0;
    while ((ret = getopt_long(argc, argv, letters, long_options, &index)) >= 0) {
        if (take_option(o, ret, index, argv, errp) < 0) {
            return -1;
        }
    }
    return 0;
}

/* What does not go together. */
static int check(const NbdToolOptions *o, Error **errp)
{
    if (o->socket && (o->bind || o->port)) {
        error_setg(errp, "--socket does not go together with --bind and --port");
        return -1;
    }
    if (o->mode == NBD_TOOL_SERVE && !o->image) {
        error_setg(errp, "no image given");
        return -1;
    }
    if (o->mode == NBD_TOOL_LIST && o->image) {
        error_setg(errp, "--list takes no image");
        return -1;
    }
    if (o->image_opts && o->format) {
        error_setg(errp, "--image-opts and --format do not go together");
        return -1;
    }
    if (o->snapshot && o->offset > 0) {
        error_setg(errp, "--load-snapshot and --offset do not go together");
        return -1;
    }
    if (o->snapshot && o->bitmaps->len > 0) {
        error_setg(errp, "--load-snapshot and --bitmap do not go together: bitmaps are not about a snapshot");
        return -1;
    }
    if (o->has_aio && o->aio == BLOCKDEV_AIO_OPTIONS_NATIVE && !o->cache_direct) {
        error_setg(errp, "--aio=native needs --cache=none or --cache=directsync");
        return -1;
    }
    if (o->detect_zeroes == BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP && !o->discard_unmap) {
        error_setg(errp, "--detect-zeroes=unmap needs --discard=unmap");
        return -1;
    }
    return 0;
}

NbdToolOptions *nbd_tool_parse(int argc, char **argv, Error **errp)
{
    g_autoptr(NbdToolOptions) o = g_new0(NbdToolOptions, 1);

    o->bitmaps = g_ptr_array_new_with_free_func(g_free);
    o->shared = DEFAULT_SHARED;
    o->handshake_seconds = NBD_DEFAULT_HANDSHAKE_SECONDS;
    if (parse_options(o, argc, argv, errp) < 0) {
        return NULL;
    }
    if (optind + 1 < argc) {
        error_setg(errp, "unexpected argument '%s'", argv[optind + 1]);
        return NULL;
    }
    o->image = optind < argc ? g_strdup(argv[optind]) : NULL;
    if (o->mode <= NBD_TOOL_LIST && check(o, errp) < 0) {
        return NULL;
    }
    return g_steal_pointer(&o);
}

void nbd_tool_options_free(NbdToolOptions *o)
{
    if (!o) {
        return;
    }
    g_ptr_array_free(o->bitmaps, TRUE);
    g_free(o->image);
    g_free(o->socket);
    g_free(o->bind);
    g_free(o->port);
    g_free(o->export_name);
    g_free(o->description);
    g_free(o->format);
    g_free(o->snapshot);
    g_free(o->pid_file);
    g_free(o);
}
