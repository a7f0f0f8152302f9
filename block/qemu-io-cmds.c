/*
 * The table of commands, and what they have in common: arguments, numbers, reports.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "block/qemu-io-internal.h"
#include "util/cutils.h"

typedef struct QemuIOCommand {
    const char *name, *alias;
    const char *options;        /* letters; one that takes a value is followed by ':' */
    unsigned args_min, args_max;
    uint64_t perm;              /* BlockPermission */
    const char *params, *help;
    const char *more;           /* for "help NAME"; may be NULL */
    QemuIOCommandFn *fn;
} QemuIOCommand;

static const QemuIOCommand *find_command(const char *name);

/* ---- the object ---- */

QemuIO *qemu_io_new(BlockBackend *blk, QemuIOPrint *print, void *opaque)
{
    QemuIO *io = g_new0(QemuIO, 1);

    io->refcnt = 1;
    io->blk = blk;
    io->print = print;
    io->opaque = opaque;
    if (blk) {
        blk_ref(blk);
    }
    return io;
}

void qemu_io_ref(QemuIO *io)
{
    io->refcnt++;
}

void qemu_io_unref(QemuIO *io)
{
    if (--io->refcnt == 0) {
        blk_unref(io->blk);
        g_free(io);
    }
}

void qemu_io_free(QemuIO *io)
{
    if (io) {
        io->print = NULL;
        qemu_io_unref(io);
    }
}

void qemu_io_printf(QemuIO *io, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (io->print) {
        io->print(io->opaque, text);
    }
}

/* ---- numbers ---- */

bool qemu_io_number(QemuIO *io, const char *text, int64_t *value)
{
    Error *err = NULL;
    uint64_t n;

    if (!parse_size(text, &n, &err)) {
        qemu_io_printf(io, "Parsing error: %s\n", error_get_pretty(err));
        error_free(err);
        return false;
    }
    if (n > INT64_MAX) {
        qemu_io_printf(io, "Parsing error: argument too large -- %s\n", text);
        return false;
    }
    *value = n;
    return true;
}

char *qemu_io_size(double bytes)
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    unsigned i = 0;

    for (; bytes >= 1024 && i < G_N_ELEMENTS(units) - 1; i++) {
        bytes /= 1024;
    }
    return bytes == floor(bytes) ? g_strdup_printf("%.0f %s", bytes, units[i])
                                 : g_strdup_printf("%.3f %s", bytes, units[i]);
}

bool qemu_io_pattern(QemuIO *io, const QemuIOArgs *args, int otherwise, int *pattern)
{
    const char *text = args->opt['P'];
    uint64_t n;

    *pattern = otherwise;
    if (!text) {
        return true;
    }
    if (!parse_uint64(text, &n, NULL) || n > 255) {
        qemu_io_printf(io, "%s is not a valid pattern byte\n", text);
        return false;
    }
    *pattern = n;
    return true;
}

/* ---- requests and reports ---- */

bool qemu_io_request(QemuIO *io, const QemuIOArgs *args, const char *verb, QemuIORequest *req)
{
    *req = (QemuIORequest){ .verb = verb,
                            .quiet = qemu_io_has(args, 'q'),
                            .brief = qemu_io_has(args, 'C') };
    if (!qemu_io_number(io, args->pos[0], &req->offset) ||
        !qemu_io_number(io, args->pos[1], &req->bytes)) {
        return false;
    }
    req->start_ns = aio_clock_ns();
    return true;
}

void qemu_io_report(QemuIO *io, const QemuIORequest *req, int64_t done_ns)
{
    double seconds = (double)MAX(done_ns - req->start_ns, 1) / 1e9;
    g_autofree char *size = qemu_io_size(req->bytes), *rate = qemu_io_size(req->bytes / seconds);

    if (req->quiet) {
        return;
    }
    if (req->brief) {
        uint64_t whole = seconds;

        qemu_io_printf(io, "%" PRId64 ",1,%" PRIu64 ":%02d:%05.2f,%.3f,%.3f\n", req->bytes,
                       whole / 3600, (int)(whole / 60 % 60), seconds - (double)(whole - whole % 60),
                       req->bytes / seconds, 1 / seconds);
        return;
    }
    qemu_io_printf(io, "%s %" PRId64 "/%" PRId64 " bytes at offset %" PRId64 "\n", req->verb,
                   req->bytes, req->bytes, req->offset);
    qemu_io_printf(io, "%s, 1 ops; %05.2f sec (%s/sec and %.4f ops/sec)\n", size, seconds, rate,
                   1 / seconds);
}

int qemu_io_failed(QemuIO *io, const char *what, int ret)
{
    qemu_io_printf(io, "%s failed: %s\n", what, g_strerror(-ret));
    return -1;
}

bool qemu_io_verify(QemuIO *io, const uint8_t *buf, int64_t offset, int64_t bytes, int pattern)
{
    /* All bytes are the first one when each is the one before it. */
    if (bytes == 0 || (buf[0] == pattern && !memcmp(buf, buf + 1, bytes - 1))) {
        return true;
    }
    qemu_io_printf(io, "Pattern verification failed at offset %" PRId64 ", %" PRId64 " bytes\n",
                   offset, bytes);
    return false;
}

void qemu_io_dump(QemuIO *io, const uint8_t *buf, int64_t offset, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += 16) {
        int n = MIN(16, bytes - at);
        g_autoptr(GString) line = g_string_new(NULL);

        g_string_append_printf(line, "%08" PRIx64 ":  ", offset + at);
        for (int i = 0; i < n; i++) {
            g_string_append_printf(line, "%02x ", buf[at + i]);
        }
        g_string_append_c(line, ' ');
        for (int i = 0; i < n; i++) {
            g_string_append_c(line, g_ascii_isprint(buf[at + i]) ? buf[at + i] : '.');
        }
        qemu_io_printf(io, "%s\n", line->str);
    }
}

bool qemu_io_write_flags(QemuIO *io, const QemuIOArgs *args, BdrvRequestFlags *flags)
{
    bool zero = qemu_io_has(args, 'z'), compressed = qemu_io_has(args, 'c');

    *flags = 0;
    if (compressed && (zero || qemu_io_has(args, 'f'))) {
        qemu_io_printf(io, "-c and -%c cannot be specified at the same time\n", zero ? 'z' : 'f');
        return false;
    }
    if (zero && qemu_io_has(args, 'P')) {
        qemu_io_printf(io, "-z and -P cannot be specified at the same time\n");
        return false;
    }
    if (!zero && (qemu_io_has(args, 'u') || qemu_io_has(args, 'n'))) {
        qemu_io_printf(io, "-%c requires -z to be specified\n", qemu_io_has(args, 'u') ? 'u' : 'n');
        return false;
    }
    *flags |= qemu_io_has(args, 'f') ? BDRV_REQ_FUA : 0;
    *flags |= qemu_io_has(args, 'u') ? BDRV_REQ_MAY_UNMAP : 0;
    *flags |= qemu_io_has(args, 'n') ? BDRV_REQ_NO_FALLBACK : 0;
    return true;
}

/* ---- help ---- */

static int qemu_io_help(QemuIO *io, const QemuIOArgs *args);

static const QemuIOCommand commands[] = {
    { "aio_flush", NULL, "", 0, 0, 0, "", "waits until all asynchronous requests are done", NULL,
      qemu_io_aio_flush },
    { "aio_read", NULL, "CqvP:", 2, 2, 0, "[-Cqv] [-P pattern] off len",
      "starts to read; goes on without waiting for the end",
      " -C  report for programs\n -P  compare with bytes of that value\n -q  no report\n"
      " -v  show what was read\n",
      qemu_io_aio_read },
    { "aio_write", NULL, "CfqunzP:", 2, 2, BLK_PERM_WRITE, "[-Cfqunz] [-P pattern] off len",
      "starts to write; goes on without waiting for the end",
      " -C  report for programs\n -f  on stable storage when it is done\n -n  with -z: fail rather "
      "than "
      "write buffers\n -P  write bytes of that value (0xcd)\n -q  no report\n -u  with -z: may "
      "deallocate\n"
      " -z  write zeroes\n",
      qemu_io_aio_write },
    { "alloc", NULL, "", 1, 2, 0, "offset [count]",
      "tells how much of a range (one sector) the image itself holds", NULL, qemu_io_alloc },
    { "discard", "d", "Cq", 2, 2, BLK_PERM_WRITE, "[-Cq] off len", "discards a range", NULL,
      qemu_io_discard },
    { "flush", "f", "", 0, 0, 0, "", "brings all that was written to stable storage", NULL,
      qemu_io_flush },
    { "help", "?", "", 0, 1, 0, "[command]", "tells about all commands, or about one", NULL,
      qemu_io_help },
    { "info", "i", "", 0, 0, 0, "", "tells about the image", NULL, qemu_io_info },
    { "length", "l", "", 0, 0, 0, "", "tells the length of the disk", NULL, qemu_io_length },
    { "map", NULL, "", 0, 0, 0, "", "tells which ranges the image itself holds", NULL,
      qemu_io_map },
    { "read", "r", "CqvpP:s:l:", 2, 2, 0, "[-Cqv] [-P pattern [-s off] [-l len]] off len",
      "reads a range",
      " -C  report for programs\n -l  with -P: compare that many bytes\n -P  compare with bytes of "
      "that value\n"
      " -q  no report\n -s  with -P: compare from there on, counted from off\n -v  show what was "
      "read\n",
      qemu_io_read },
    { "truncate", "t", "m:", 1, 1, BLK_PERM_WRITE | BLK_PERM_RESIZE, "[-m prealloc_mode] off",
      "changes the length of the disk", " -m  off, metadata, falloc or full\n", qemu_io_truncate },
    { "write", "w", "cCfnpquzP:s:", 2, 2, BLK_PERM_WRITE,
      "[-cCfnquz] [-P pattern | -s source_file] off len", "writes a range",
      " -c  write it compressed\n -C  report for programs\n -f  on stable storage when it is done\n"
      " -n  with -z: fail rather than write buffers\n -P  write bytes of that value (0xcd)\n -q  "
      "no report\n"
      " -s  write the content of that file, again and again\n -u  with -z: may deallocate\n"
      " -z  write zeroes\n",
      qemu_io_write },
};

static const QemuIOCommand *find_command(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (!strcmp(commands[i].name, name) || !g_strcmp0(commands[i].alias, name)) {
            return &commands[i];
        }
    }
    return NULL;
}

static void print_usage(QemuIO *io, const QemuIOCommand *cmd)
{
    qemu_io_printf(io, "%s%s%s -- %s\n", cmd->name, *cmd->params ? " " : "", cmd->params,
                   cmd->help);
}

static int qemu_io_help(QemuIO *io, const QemuIOArgs *args)
{
    const QemuIOCommand *cmd = args->n ? find_command(args->pos[0]) : NULL;

    if (cmd) {
        print_usage(io, cmd);
        if (cmd->more) {
            qemu_io_printf(io, "\n%s\n", cmd->more);
        }
        return 0;
    }
    if (args->n) {
        qemu_io_printf(io, "command \"%s\" not found\n", args->pos[0]);
        return -1;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        print_usage(io, &commands[i]);
    }
    qemu_io_printf(io, "\nUse 'help command' for its options.\n");
    return 0;
}

/* ---- from line to call ---- */

/* "-qP 5" or "-P5": options before the others; "--" ends them. False: what is wrong was printed. */
static bool take_options(QemuIO *io, const QemuIOCommand *cmd, char **words, QemuIOArgs *args)
{
    for (; *words && (*words)[0] == '-' && (*words)[1]; words++) {
        if (!strcmp(*words, "--")) {
            words++;
            break;
        }
        for (const char *p = *words + 1; *p; p++) {
            const char *known = *p == ':' ? NULL : strchr(cmd->options, *p);

            if (!known) {
                qemu_io_printf(io, "%s: invalid option -- '%c'\n", cmd->name, *p);
                return false;
            }
            args->opt[(unsigned char)*p] = "";
            if (known[1] == ':') {
                args->opt[(unsigned char)*p] = p[1] ? p + 1 : *++words;
                if (!args->opt[(unsigned char)*p]) {
                    qemu_io_printf(io, "%s: option requires an argument -- '%c'\n", cmd->name, *p);
                    return false;
                }
                break;
            }
        }
    }
    for (; *words && args->n < QEMU_IO_ARGS_MAX; words++) {
        args->pos[args->n++] = *words;
    }
    return true;
}

static bool check_count(QemuIO *io, const QemuIOCommand *cmd, unsigned n)
{
    if (n >= cmd->args_min && n <= cmd->args_max) {
        return true;
    }
    if (cmd->args_min == cmd->args_max) {
        qemu_io_printf(io, "bad argument count %u to %s, expected %u arguments\n", n, cmd->name,
                       cmd->args_min);
    } else {
        qemu_io_printf(io, "bad argument count %u to %s, expected between %u and %u arguments\n", n,
                       cmd->name, cmd->args_min, cmd->args_max);
    }
    return false;
}

static bool take_perms(QemuIO *io, const QemuIOCommand *cmd)
{
    uint64_t perm, shared;
    Error *err = NULL;

    if (cmd->fn == qemu_io_help) {
        return true;
    }
    if (!io->blk || !blk_is_available(io->blk)) {
        qemu_io_printf(io, "%s: there is no disk\n", cmd->name);
        return false;
    }
    blk_get_perm(io->blk, &perm, &shared);
    if (!(cmd->perm & ~perm) || blk_set_perm(io->blk, perm | cmd->perm, shared, &err) == 0) {
        return true;
    }
    qemu_io_printf(io, "%s: %s\n", cmd->name, error_get_pretty(err));
    error_free(err);
    return false;
}

int qemu_io_command(QemuIO *io, const char *line)
{
    g_auto(GStrv) split = g_strsplit_set(line, " \t\r\n", -1);
    g_autofree char **words = g_new0(char *, g_strv_length(split) + 1);
    QemuIOArgs args = {};
    const QemuIOCommand *cmd;
    unsigned n = 0;

    for (char **word = split; *word; word++) {
        if (**word) {
            words[n++] = *word;
        }
    }
    if (!n) {
        return 0;
    }
    cmd = find_command(words[0]);
    if (!cmd) {
        qemu_io_printf(io, "command \"%s\" not found\n", words[0]);
        return -1;
    }
    if (!take_options(io, cmd, words + 1, &args)) {
        print_usage(io, cmd);
        return -1;
    }
    return check_count(io, cmd, args.n) && take_perms(io, cmd) ? cmd->fn(io, &args) : -1;
}
