/*
 * The data of NBD options, byte by byte; and the command line of ferry-nbd.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <string.h>

#include "nbd/option-data.h"
#include "nbd/protocol.h"
#include "tools/ferry-nbd-options.h"
#include "util/bswap.h"

/*
 * Building data
 * -----------------------------------------------------------------------------------------
 */

static GByteArray *data;

static void begin(void)
{
    g_clear_pointer(&data, g_byte_array_unref);
    data = g_byte_array_new();
}

static void u16(uint16_t value)
{
    uint8_t buf[2];

    stw_be_p(buf, value);
    g_byte_array_append(data, buf, 2);
}

static void u32(uint32_t value)
{
    uint8_t buf[4];

    stl_be_p(buf, value);
    g_byte_array_append(data, buf, 4);
}

static void bytes(const char *text, size_t len)
{
    g_byte_array_append(data, (const uint8_t *)text, len);
}

static void string(const char *text)
{
    u32(strlen(text));
    bytes(text, strlen(text));
}

/* A copy without a byte to spare, so that a checker sees any look beyond the end. */
static uint8_t *exact(size_t len)
{
    return g_memdup2(data->data, len);
}

/*
 * INFO and GO
 * -------------------------------------------------------------------------------------------
 */

static void test_info(void)
{
    NbdInfoData info;

    begin();
    string("disk");
    u16(4);
    u16(NBD_INFO_EXPORT);
    u16(NBD_INFO_BLOCK_SIZE);
    u16(NBD_INFO_NAME);
    u16(4711);
    g_assert_null(nbd_parse_info(data->data, data->len, &info));
    g_assert_cmpuint(info.name.len, ==, 4);
    g_assert_true(memcmp(info.name.text, "disk", 4) == 0);
    g_assert_true(info.wants_name && info.wants_block_size && !info.wants_description);

    /* Every shorter piece of it is wrong, and so is a longer one. */
    for (size_t len = 0; len < data->len; len++) {
        g_autofree uint8_t *copy = exact(len);

        g_assert_nonnull(nbd_parse_info(copy, len, &info));
    }
    u16(NBD_INFO_DESCRIPTION);
    g_assert_nonnull(nbd_parse_info(data->data, data->len, &info));
}

static void test_info_names(void)
{
    g_autofree char *longest = g_strnfill(NBD_STRING_MAX_BYTES, 'n');
    g_autofree char *longer = g_strnfill(NBD_STRING_MAX_BYTES + 1, 'n');
    NbdInfoData info;

    begin();
    string("");
    u16(0);
    g_assert_null(nbd_parse_info(data->data, data->len, &info));
    g_assert_cmpuint(info.name.len, ==, 0);
    begin();
    string(longest);
    u16(0);
    g_assert_null(nbd_parse_info(data->data, data->len, &info));
    begin();
    string(longer);
    u16(0);
    g_assert_nonnull(nbd_parse_info(data->data, data->len, &info));
    begin();
    string("\xff\xfe");
    u16(0);
    g_assert_nonnull(nbd_parse_info(data->data, data->len, &info));
    begin();
    u32(3);
    bytes("a\0b", 3);
    u16(0);
    g_assert_nonnull(nbd_parse_info(data->data, data->len, &info));
    begin();
    u32(UINT32_MAX);
    u16(0);
    g_assert_nonnull(nbd_parse_info(data->data, data->len, &info));
}

/*
 * LIST_META_CONTEXT and SET_META_CONTEXT
 * ----------------------------------------------------------------
 */

static void test_meta(void)
{
    const char *const queries[] = { "base:", "qemu:dirty-bitmap:b", "x-y:z" };
    NbdMetaData meta;
    NbdString query;

    begin();
    string("disk");
    u32(3);
    for (size_t i = 0; i < 3; i++) {
        string(queries[i]);
    }
    for (size_t len = 0; len < data->len; len++) {
        g_autofree uint8_t *copy = exact(len);

        g_assert_nonnull(nbd_parse_meta(copy, len, &meta));
    }
    g_assert_null(nbd_parse_meta(data->data, data->len, &meta));
    for (size_t i = 0; i < 3; i++) {
        g_assert_true(nbd_next_query(&meta, &query));
        g_assert_cmpuint(query.len, ==, strlen(queries[i]));
        g_assert_true(memcmp(query.text, queries[i], query.len) == 0);
    }
    g_assert_false(nbd_next_query(&meta, &query));
    bytes("", 1);
    g_assert_nonnull(nbd_parse_meta(data->data, data->len, &meta));
}

static void test_meta_bad(void)
{
    NbdMetaData meta;

    /* A number of queries that there are not. */
    begin();
    string("");
    u32(UINT32_MAX);
    g_assert_nonnull(nbd_parse_meta(data->data, data->len, &meta));
    begin();
    string("");
    u32(1);
    u32(UINT32_MAX);
    g_assert_nonnull(nbd_parse_meta(data->data, data->len, &meta));
    /* No namespace, no UTF-8, nothing at all. */
    begin();
    string("");
    u32(1);
    string("base");
    g_assert_nonnull(nbd_parse_meta(data->data, data->len, &meta));
    begin();
    string("");
    u32(1);
    string("base:\x80");
    g_assert_nonnull(nbd_parse_meta(data->data, data->len, &meta));
    begin();
    string("");
    u32(1);
    string("");
    g_assert_nonnull(nbd_parse_meta(data->data, data->len, &meta));
    begin();
    string("");
    u32(0);
    g_assert_null(nbd_parse_meta(data->data, data->len, &meta));
}

/* Any bytes: what is accepted lies inside them. */
static void test_random(void)
{
    for (int i = 0; i < 200000; i++) {
        size_t len = g_test_rand_int_range(0, 40);
        g_autofree uint8_t *buf = g_malloc(len);
        NbdInfoData info;
        NbdMetaData meta;
        NbdString query;

        for (size_t j = 0; j < len; j++) {
            /* Small numbers mostly: then more of it makes sense. */
            buf[j] = g_test_rand_int_range(0, 4) ? 0 : g_test_rand_int_range(0, 64);
        }
        if (!nbd_parse_info(buf, len, &info)) {
            g_assert_true(info.name.text >= (char *)buf &&
                          info.name.text + info.name.len <= (char *)buf + len);
        }
        if (!nbd_parse_meta(buf, len, &meta)) {
            while (nbd_next_query(&meta, &query)) {
                g_assert_true(query.text >= (char *)buf &&
                              query.text + query.len <= (char *)buf + len);
            }
        }
    }
}

/*
 * The command line
 * --------------------------------------------------------------------------------------
 */

static NbdToolOptions *parse(const char *line, Error **errp)
{
    g_autofree char *whole = g_strconcat("ferry-nbd ", line, NULL);
    g_auto(GStrv) argv = NULL;
    int argc;

    g_assert_true(g_shell_parse_argv(whole, &argc, &argv, NULL));
    return nbd_tool_parse(argc, argv, errp);
}

static void test_command_line(void)
{
    g_autoptr(NbdToolOptions) o = parse("img", &error_abort);

    g_assert_cmpint(o->mode, ==, NBD_TOOL_SERVE);
    g_assert_cmpstr(o->image, ==, "img");
    g_assert_true(!o->socket && !o->bind && !o->port && !o->format && !o->export_name &&
                  !o->snapshot);
    g_assert_cmpuint(o->shared, ==, 1);
    g_assert_cmpuint(o->handshake_seconds, ==, 10);
    g_assert_true(!o->read_only && !o->persistent && !o->fork && !o->discard_unmap &&
                  !o->has_cache);

    g_clear_pointer(&o, nbd_tool_options_free);
    o = parse(
        "-k sock img -t -e 7 -r -f qcow2 -x name -D 'a b' -B one --bitmap=two -A -v --fork "
        "--pid-file=p --cache=directsync --aio=native --discard=on --detect-zeroes=unmap -o 64k "
        "--handshake-limit=0 --threads=3",
        &error_abort);
    g_assert_cmpstr(o->image, ==, "img");
    g_assert_cmpstr(o->socket, ==, "sock");
    g_assert_cmpstr(o->format, ==, "qcow2");
    g_assert_cmpstr(o->export_name, ==, "name");
    g_assert_cmpstr(o->description, ==, "a b");
    g_assert_cmpstr(o->pid_file, ==, "p");
    g_assert_cmpuint(o->bitmaps->len, ==, 2);
    g_assert_cmpstr(g_ptr_array_index(o->bitmaps, 1), ==, "two");
    g_assert_true(o->persistent && o->read_only && o->allocation_depth && o->verbose && o->fork);
    g_assert_true(o->has_cache && o->cache_direct && o->writethrough && !o->cache_no_flush);
    g_assert_true(o->has_aio && o->aio == BLOCKDEV_AIO_OPTIONS_NATIVE && o->discard_unmap);
    g_assert_cmpint(o->detect_zeroes, ==, BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP);
    g_assert_cmpuint(o->offset, ==, 65536);
    g_assert_cmpuint(o->shared, ==, 7);
    g_assert_cmpuint(o->threads, ==, 3);
    g_assert_cmpuint(o->handshake_seconds, ==, 0);

    g_clear_pointer(&o, nbd_tool_options_free);
    o = parse("-n -b ::1 -p 99 -- -img", &error_abort);
    g_assert_cmpstr(o->image, ==, "-img");
    g_assert_true(o->has_cache && o->cache_direct && !o->writethrough);
    g_clear_pointer(&o, nbd_tool_options_free);
    o = parse("-L -k sock", &error_abort);
    g_assert_cmpint(o->mode, ==, NBD_TOOL_LIST);
}

static void test_command_line_bad(void)
{
    const struct {
        const char *line, *message;
    } rows[] = {
        { "", "no image given" },
        { "a b", "unexpected argument 'b'" },
        { "--nonsense a", "unknown option '--nonsense'" },
        { "-Z a", "unknown option '-Z'" },
        { "a -k", "option '-k' needs an argument" },
        { "a --socket", "option '--socket' needs an argument" },
        { "-k s -p 1 a", "--socket does not go together with --bind and --port" },
        { "-L a", "--list takes no image" },
        { "--image-opts -f raw a", "--image-opts and --format do not go together" },
        { "--aio=native a", "--aio=native needs --cache=none or --cache=directsync" },
        { "--detect-zeroes=unmap a", "--detect-zeroes=unmap needs --discard=unmap" },
        { "--cache=some a", "--cache: cache mode 'some' is not known: it is writeback, "
                            "writethrough, none, directsync or unsafe" },
        { "-n --cache=none a", "--cache: -n and --cache can only be given once" },
        { "--discard=maybe a", "--discard: 'maybe' is neither 'ignore' nor 'unmap'" },
        { "-l snap -o 512 a", "--load-snapshot and --offset do not go together" },
        { "-l snap -B b a",
          "--load-snapshot and --bitmap do not go together: bitmaps are not about a snapshot" },
        { "-e x a", NULL },
        { "-e -1 a", NULL },
        { "-e 99999999999 a", NULL },
        { "-o 1x a", NULL },
        { "--aio=magic a", NULL },
        { "--detect-zeroes=yes a", NULL },
        { "--threads=0 a", NULL },
        { "--threads=65 a", NULL },
        { "--handshake-limit=-1 a", NULL },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(Error) err = NULL;

        g_assert_null(parse(rows[i].line, &err));
        g_assert_nonnull(err);
        if (rows[i].message) {
            g_assert_cmpstr(error_get_pretty(err), ==, rows[i].message);
        }
    }
}

/* Each option has an item of its own in the manual page, and a line in --help. */
static void test_manual(void)
{
    g_autofree char *path = g_test_build_filename(G_TEST_DIST, "docs", "user", "ferry-nbd.1", NULL);
    g_autofree char *manual = NULL, *help = nbd_tool_help();
    const char *name;
    char letter;

    g_assert_true(g_file_get_contents(path, &manual, NULL, NULL));
    for (unsigned i = 0; (name = nbd_tool_option(i, &letter)); i++) {
        g_autofree char *item = letter ? g_strdup_printf("\n.It Fl %c , -%s", letter, name)
                                       : g_strdup_printf("\n.It Fl -%s", name);
        const char *found = strstr(manual, item);

        while (found && !strchr("= \n", found[strlen(item)])) {
            found = strstr(found + 1, item);
        }
        if (!found) {
            g_error("the manual page does not describe --%s", name);
        }
        g_assert_nonnull(strstr(help, name));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/nbd/options/info", test_info);
    g_test_add_func("/nbd/options/info-names", test_info_names);
    g_test_add_func("/nbd/options/meta", test_meta);
    g_test_add_func("/nbd/options/meta-bad", test_meta_bad);
    g_test_add_func("/nbd/options/random", test_random);
    g_test_add_func("/nbd/options/command-line", test_command_line);
    g_test_add_func("/nbd/options/command-line-bad", test_command_line_bad);
    g_test_add_func("/nbd/options/manual", test_manual);
    return g_test_run();
}
