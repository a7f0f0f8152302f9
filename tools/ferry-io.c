/*
 * ferry-io: read, write and inspect an image by hand or from a script, in qemu-io's spelling. The
 * commands are those of block/qemu-io-cmds.h; here are the options, the loop that reads lines, and
 * what only a program of its own can do (quit, sleep).
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <getopt.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/drive.h"
#include "block/driver.h"
#include "block/qemu-io-cmds.h"
#include "qapi/json-input-visitor.h"
#include "qapi/qapi-visit-block-core.h"
#include "util/cutils.h"

#define NS_PER_MS INT64_C(1000000)
#define SLEEP_MAX_MS (3600 * 1000)

typedef struct Options {
    const char *format, *filename;
    bool image_opts;
    bool read_only, force_share, copy_on_read;
    bool direct, no_flush, writethrough;
    bool has_aio;
    BlockdevAioOptions aio;
    bool discard;
    GPtrArray *commands;        /* of const char * */
} Options;

static G_GNUC_NORETURN void usage(FILE *to, int status)
{
    fputs("Usage: ferry-io [OPTIONS]... [-c STRING]... FILE\n"
          "Read, write and inspect a disk image by hand\n"
          "\n"
          "  -c, --cmd STRING     run that command; may be given several times\n"
          "  -f, --format FMT     format of the image (default: look into it)\n"
          "  --image-opts         FILE is a description: driver=...,key=value...\n"
          "  -r, --read-only      open the image for reading only\n"
          "  -U, --force-share    open it although others write to it; with -r\n"
          "  -n, --nocache        go past the page cache, as -t none\n"
          "  -t, --cache MODE     writeback, none, writethrough, directsync or unsafe\n"
          "  -k, --native-aio     as -i native\n"
          "  -i, --aio MODE       threads, native or io_uring\n"
          "  -d, --discard MODE   unmap (also: on) or ignore (also: off)\n"
          "  -C, --copy-on-read   copy what is read from a backing file into the image\n"
          "  -h, --help           show this text\n"
          "  -V, --version        show the version\n"
          "\n"
          "Without -c commands are read from standard input. \"help\" lists them.\n", to);
    exit(status);
}

static void fail(Error *err)
{
    error_report_err(err);
    exit(EXIT_FAILURE);
}

/* ---- options ---- */

static void set_cache(Options *o, const char *mode)
{
    if (!drive_parse_cache_mode(mode, &o->direct, &o->no_flush, &o->writethrough)) {
        error_report("Invalid cache option: %s", mode);
        exit(EXIT_FAILURE);
    }
}

static void set_discard(Options *o, const char *mode)
{
    o->discard = !strcmp(mode, "unmap") || !strcmp(mode, "on");
    if (!o->discard && strcmp(mode, "ignore") && strcmp(mode, "off")) {
        error_report("Invalid discard option: %s", mode);
        exit(EXIT_FAILURE);
    }
}

static void set_aio(Options *o, const char *mode)
{
    Error *err = NULL;

    o->has_aio = true;
    o->aio = qapi_enum_parse(&BlockdevAioOptions_lookup, mode, 0, &err);
    if (err) {
        error_free(err);
        error_report("Invalid aio option: %s", mode);
        exit(EXIT_FAILURE);
    }
}

enum { OPT_IMAGE_OPTS = 256 };

static void parse_options(Options *o, int argc, char **argv)
{
    static const struct option longs[] = {
        { "cmd", required_argument, NULL, 'c' },
        { "format", required_argument, NULL, 'f' },
        { "image-opts", no_argument, NULL, OPT_IMAGE_OPTS },
        { "read-only", no_argument, NULL, 'r' },
        { "force-share", no_argument, NULL, 'U' },
        { "nocache", no_argument, NULL, 'n' },
        { "cache", required_argument, NULL, 't' },
        { "native-aio", no_argument, NULL, 'k' },
        { "aio", required_argument, NULL, 'i' },
        { "discard", required_argument, NULL, 'd' },
        { "copy-on-read", no_argument, NULL, 'C' },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "c:f:rUnt:ki:d:ChV", longs, NULL)) != -1) {
        switch (c) {
        case 'c': g_ptr_array_add(o->commands, optarg); break;
        case 'f': o->format = optarg; break;
        case OPT_IMAGE_OPTS: o->image_opts = true; break;
        case 'r': o->read_only = true; break;
        case 'U': o->force_share = true; break;
        case 'n': set_cache(o, "none"); break;
        case 't': set_cache(o, optarg); break;
        case 'k': set_aio(o, "native"); break;
        case 'i': set_aio(o, optarg); break;
        case 'd': set_discard(o, optarg); break;
        case 'C': o->copy_on_read = true; break;
        case 'h': usage(stdout, EXIT_SUCCESS);
        case 'V':
            puts("ferry-io version " FERRY_VERSION "\nCopyright (C) 2026 The Ferry developers");
            exit(EXIT_SUCCESS);
        default: usage(stderr, EXIT_FAILURE);
        }
    }
    if (argc - optind > 1) {
        error_report("Only one image can be opened, not also '%s'", argv[optind + 1]);
        exit(EXIT_FAILURE);
    }
    o->filename = argv[optind];
    if (o->image_opts && (o->format || !o->filename)) {
        error_report(o->format ? "--image-opts and --format are mutually exclusive"
                               : "--image-opts requires a filename argument");
        exit(EXIT_FAILURE);
    }
}

/* ---- the image ---- */

/* The engine of the files of @opts that were described here; not of nodes by name. */
static void apply_aio(BlockdevOptions *opts, BlockdevAioOptions aio)
{
    BlockdevRef *file = NULL;

    switch (opts->driver) {
    case BLOCKDEV_DRIVER_FILE:
    case BLOCKDEV_DRIVER_HOST_DEVICE: {
        BlockdevOptionsFile *f =
            opts->driver == BLOCKDEV_DRIVER_FILE ? &opts->u.file : &opts->u.host_device;

        if (!f->has_aio) {
            f->has_aio = true;
            f->aio = aio;
        }
        return;
    }
    case BLOCKDEV_DRIVER_RAW:
        file = opts->u.raw.file;
        break;
    case BLOCKDEV_DRIVER_QCOW2:
        file = opts->u.qcow2.file;
        break;
    default:
        return;
    }
    if (file && file->type == QTYPE_QDICT) {
        apply_aio(&file->u.definition, aio);
    }
}

static void apply_generic(const Options *o, BlockdevOptions *opts)
{
    if (o->read_only) {
        opts->has_read_only = opts->read_only = true;
    }
    if (o->force_share) {
        opts->has_force_share = opts->force_share = true;
    }
    if (o->discard) {
        opts->has_discard = true;
        opts->discard = BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    }
    if (o->direct || o->no_flush) {
        if (!opts->cache) {
            opts->cache = g_new0(BlockdevCacheOptions, 1);
        }
        opts->cache->has_direct = opts->cache->direct = o->direct;
        opts->cache->has_no_flush = opts->cache->no_flush = o->no_flush;
    }
    if (o->has_aio) {
        apply_aio(opts, o->aio);
    }
}

/* A filter above that copies on read. Takes @opts. */
static BlockdevOptions *put_copy_on_read_above(BlockdevOptions *opts)
{
    BlockdevOptions *top = g_new0(BlockdevOptions, 1);

    top->driver = BLOCKDEV_DRIVER_COPY_ON_READ;
    top->u.copy_on_read.file = g_new0(BlockdevRef, 1);
    top->u.copy_on_read.file->type = QTYPE_QDICT;
    top->u.copy_on_read.file->u.definition = *opts;
    g_free(opts);
    return top;
}

static BlockBackend *open_image(const Options *o, Error **errp)
{
    BlockdevOptions *opts = o->image_opts ? bdrv_options_from_text(o->filename, errp)
                                          : bdrv_options_for_file(o->filename, o->format, errp);
    BlockBackend *blk;

    if (!opts) {
        return NULL;
    }
    apply_generic(o, opts);
    if (o->copy_on_read) {
        opts = put_copy_on_read_above(opts);
    }
    blk = blk_new_open(opts, errp);
    qapi_free_BlockdevOptions(opts);
    if (blk && o->writethrough) {
        blk_set_enable_write_cache(blk, false);
    }
    return blk;
}

/* ---- commands ---- */

static void print(void *opaque, const char *text)
{
    fputs(text, stdout);
    fflush(stdout);
}

static void wake(void *opaque)
{
    *(bool *)opaque = true;
}

static int sleep_ms(const char *text)
{
    AioTimer *timer;
    bool over = false;
    uint64_t ms;

    if (!parse_uint64_range(text, 0, SLEEP_MAX_MS, &ms, NULL)) {
        printf("%s is not a number of milliseconds up to an hour\n", text);
        return -1;
    }
    timer = aio_timer_new(aio_context_main(), wake, &over);
    aio_timer_mod(timer, aio_clock_ns() + (int64_t)ms * NS_PER_MS);
    AIO_WAIT_WHILE(!over);
    aio_timer_free(timer);
    return 0;
}

/* *@quit: no more commands. */
static int run_line(QemuIO *io, char *line, bool *quit)
{
    g_strstrip(line);
    if (!strcmp(line, "quit") || !strcmp(line, "q")) {
        *quit = true;
        return 0;
    }
    if (g_str_has_prefix(line, "sleep ")) {
        return sleep_ms(g_strstrip(line + strlen("sleep")));
    }
    return qemu_io_command(io, line);
}

static int run_commands(QemuIO *io, const GPtrArray *commands)
{
    bool quit = false;
    int ret = 0;

    for (guint i = 0; i < commands->len && !quit; i++) {
        g_autofree char *line = g_strdup(commands->pdata[i]);

        if (run_line(io, line, &quit) < 0) {
            ret = -1;
        }
    }
    return ret;
}

static gboolean input_ready(gint fd, GIOCondition condition, gpointer opaque)
{
    *(bool *)opaque = true;
    return G_SOURCE_REMOVE;
}

/* The next bytes of the input; meanwhile what the image has to do in the background goes on. */
static ssize_t read_input(char *buf, size_t size)
{
    bool ready = false;

    g_unix_fd_add(STDIN_FILENO, G_IO_IN | G_IO_HUP | G_IO_ERR, input_ready, &ready);
    while (!ready) {
        g_main_context_iteration(NULL, TRUE);
    }
    return read(STDIN_FILENO, buf, size);
}

/* The next line, without its end; NULL: there is none. @input: what was read beyond it. */
static char *next_line(GString *input)
{
    char buf[4096];
    char *end;
    ssize_t n;

    while (!(end = memchr(input->str, '\n', input->len))) {
        n = read_input(buf, sizeof(buf));
        if (n <= 0 && input->len == 0) {
            return NULL;
        }
        g_string_append_len(input, n > 0 ? buf : "\n", n > 0 ? n : 1);
    }

    char *line = g_strndup(input->str, end - input->str);
    g_string_erase(input, 0, end - input->str + 1);
    return line;
}

/* From a person or a pipe: a prompt before each, and failures do not end it. */
static int run_stdin(QemuIO *io)
{
    g_autoptr(GString) input = g_string_new(NULL);
    bool quit = false;
    int ret = 0;

    while (!quit) {
        print(NULL, "ferry-io> ");

        g_autofree char *line = next_line(input);
        if (!line) {
            print(NULL, "\n");
            break;
        }
        if (run_line(io, line, &quit) < 0) {
            ret = -1;
        }
    }
    return ret;
}

int main(int argc, char **argv)
{
    Options o = { .commands = g_ptr_array_new() };
    BlockBackend *blk = NULL;
    Error *err = NULL;
    QemuIO *io;
    int ret;

    g_set_prgname("ferry-io");
    signal(SIGPIPE, SIG_IGN);
    parse_options(&o, argc, argv);
    aio_context_main();
    if (o.filename) {
        blk = open_image(&o, &err);
        if (!blk) {
            error_prepend(&err, "can't open device %s: ", o.filename);
            fail(err);
        }
    }
    io = qemu_io_new(blk, print, NULL);
    ret = o.commands->len ? run_commands(io, o.commands) : run_stdin(io);
    if (blk) {
        qemu_io_command(io, "aio_flush");
    }
    qemu_io_free(io);
    blk_unref(blk);
    bdrv_close_all();
    g_ptr_array_free(o.commands, TRUE);
    return ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
