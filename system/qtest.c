/*
 * Lines come in, are cut into words, looked up in a table of commands with their number of
 * arguments, and answered at once: everything here is done under the big lock in the main loop, so
 * a test sees the machine as it is between two events.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "chardev/char-fe.h"
#include "system/irq.h"
#include "system/memory.h"
#include "system/qtest.h"
#include "util/bswap.h"
#include "util/cutils.h"

#define GSI_COUNT 24
#define READ_MAX (QTEST_LINE_MAX / 2 - 64)

static CharFrontend fe;
static GString *input;
static FILE *log_file;
static bool log_is_ours;
static GTimer *timer;
static int64_t clock_ns;
static bool line_levels[GSI_COUNT];

int64_t qtest_clock_ns(void)
{
    return clock_ns;
}

/* ---- answers and the log ---- */

/* Long data makes no good log. */
#define LOG_MAX_CHARS 400

static void log_line(char direction, const char *text)
{
    if (log_file) {
        fprintf(log_file, "[%c +%f] %.*s\n", direction, g_timer_elapsed(timer, NULL),
                LOG_MAX_CHARS, text);
        fflush(log_file);
    }
}

static void send_line(GString *line)
{
    log_line('S', line->str);
    g_string_append_c(line, '\n');
    if (chr_fe_write_all(&fe, line->str, line->len) < 0) {
        chr_fe_disconnect(&fe);
    }
}

static void G_GNUC_PRINTF(1, 2) answer(const char *fmt, ...)
{
    g_autoptr(GString) line = g_string_new(NULL);
    va_list ap;

    va_start(ap, fmt);
    g_string_vprintf(line, fmt, ap);
    va_end(ap);
    send_line(line);
}

/* ---- commands: words[0] is the command, then as many arguments as the table says ---- */

static int number(const char *word, uint64_t *value, Error **errp)
{
    return parse_uint64(word, value, errp) ? 0 : -1;
}

/* A number of bytes that can be held and sent. */
static int length(const char *word, uint64_t *value, Error **errp)
{
    if (number(word, value, errp) < 0) {
        return -1;
    }
    if (*value > READ_MAX) {
        error_setg(errp, "%s bytes are too many: at most %u are possible", word, READ_MAX);
        return -1;
    }
    return 0;
}

static unsigned access_size(char letter)
{
    return letter == 'b' ? 1 : letter == 'w' ? 2 : letter == 'l' ? 4 : 8;
}

static int do_read_value(char **words, Error **errp)
{
    uint8_t bytes[8] = {};
    uint64_t gpa;

    if (number(words[1], &gpa, errp) < 0) {
        return -1;
    }
    address_space_read(gpa, bytes, access_size(words[0][4]));
    answer("OK 0x%016" PRIx64, ldq_le_p(bytes));
    return 0;
}

static int do_write_value(char **words, Error **errp)
{
    uint8_t bytes[8];
    uint64_t gpa, value;

    if (number(words[1], &gpa, errp) < 0 || number(words[2], &value, errp) < 0) {
        return -1;
    }
    stq_le_p(bytes, value);
    address_space_write(gpa, bytes, access_size(words[0][5]));
    answer("OK");
    return 0;
}

static int do_in(char **words, Error **errp)
{
    uint64_t port;

    if (number(words[1], &port, errp) < 0) {
        return -1;
    }
    answer("OK 0x%04x", port_read(port, access_size(words[0][2])));
    return 0;
}

static int do_out(char **words, Error **errp)
{
    uint64_t port, value;

    if (number(words[1], &port, errp) < 0 || number(words[2], &value, errp) < 0) {
        return -1;
    }
    port_write(port, value, access_size(words[0][3]));
    answer("OK");
    return 0;
}

static int do_read(char **words, Error **errp)
{
    g_autoptr(GString) line = NULL;
    g_autofree uint8_t *data = NULL;
    uint64_t gpa, n;

    if (number(words[1], &gpa, errp) < 0 || length(words[2], &n, errp) < 0) {
        return -1;
    }
    data = g_malloc(n + 1);
    address_space_read(gpa, data, n);
    line = g_string_sized_new(n * 2 + 8);
    g_string_append(line, "OK 0x");
    for (uint64_t i = 0; i < n; i++) {
        g_string_append_c(line, "0123456789abcdef"[data[i] >> 4]);
        g_string_append_c(line, "0123456789abcdef"[data[i] & 15]);
    }
    send_line(line);
    return 0;
}

static int do_write(char **words, Error **errp)
{
    g_autofree uint8_t *data = NULL;
    const char *hex = words[3];
    uint64_t gpa, n;

    if (number(words[1], &gpa, errp) < 0 || length(words[2], &n, errp) < 0) {
        return -1;
    }
    if (strncmp(hex, "0x", 2)) {
        error_setg(errp, "data must begin with 0x");
        return -1;
    }
    hex += 2;
    data = g_malloc0(n + 1);
    for (uint64_t i = 0; i < n && *hex; i++, hex += 2) {
        if (!g_ascii_isxdigit(hex[0]) || !g_ascii_isxdigit(hex[1])) {
            error_setg(errp, "data are not pairs of hexadecimal digits");
            return -1;
        }
        data[i] = g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]);
    }
    address_space_write(gpa, data, n);
    answer("OK");
    return 0;
}

static int do_b64read(char **words, Error **errp)
{
    g_autofree uint8_t *data = NULL;
    g_autofree char *text = NULL;
    uint64_t gpa, n;

    if (number(words[1], &gpa, errp) < 0 || length(words[2], &n, errp) < 0) {
        return -1;
    }
    data = g_malloc(n + 1);
    address_space_read(gpa, data, n);
    text = g_base64_encode(data, n);
    answer("OK %s", text);
    return 0;
}

static int do_b64write(char **words, Error **errp)
{
    g_autofree uint8_t *data = NULL;
    uint64_t gpa, n;
    gsize got;

    if (number(words[1], &gpa, errp) < 0 || length(words[2], &n, errp) < 0) {
        return -1;
    }
    data = g_base64_decode(words[3], &got);
    if (got != n) {
        error_setg(errp, "data are %zu bytes, not %" PRIu64, got, n);
        return -1;
    }
    address_space_write(gpa, data, n);
    answer("OK");
    return 0;
}

static int do_memset(char **words, Error **errp)
{
    uint64_t gpa, n, byte;

    if (number(words[1], &gpa, errp) < 0 || number(words[2], &n, errp) < 0 ||
        number(words[3], &byte, errp) < 0) {
        return -1;
    }
    if (address_space_set(gpa, byte, n) < 0) {
        error_setg(errp, "not all of these addresses are mapped");
        return -1;
    }
    answer("OK");
    return 0;
}

static void line_changed(unsigned gsi, bool level)
{
    if (gsi < GSI_COUNT && line_levels[gsi] != level) {
        line_levels[gsi] = level;
        answer("IRQ %s %u", level ? "raise" : "lower", gsi);
    }
}

static int do_intercept(char **words, Error **errp)
{
    irq_set_interceptor(line_changed);
    answer("OK");
    return 0;
}

static int do_set_irq(char **words, Error **errp)
{
    uint64_t gsi, level;

    if (number(words[3], &gsi, errp) < 0 || number(words[4], &level, errp) < 0) {
        return -1;
    }
    if (gsi >= GSI_COUNT) {
        error_setg(errp, "there is no interrupt line %" PRIu64, gsi);
        return -1;
    }
    irq_set(gsi, level != 0);
    answer("OK");
    return 0;
}

static int do_clock(char **words, Error **errp)
{
    uint64_t ns = 0;

    if (words[1] && number(words[1], &ns, errp) < 0) {
        return -1;
    }
    if (!strcmp(words[0], "clock_step")) {
        ns = (uint64_t)clock_ns + ns;
    }
    if ((int64_t)ns < clock_ns) {
        error_setg(errp, "the clock never goes back");
        return -1;
    }
    clock_ns = ns;
    answer("OK %" PRIi64, clock_ns);
    return 0;
}

static int do_endianness(char **words, Error **errp)
{
    answer("OK little");
    return 0;
}

static const struct {
    const char *name;
    unsigned min_args, max_args;
    int (*fn)(char **words, Error **errp);      /* answers, or fails */
} commands[] = {
    { "readb", 1, 1, do_read_value }, { "readw", 1, 1, do_read_value },
    { "readl", 1, 1, do_read_value }, { "readq", 1, 1, do_read_value },
    { "writeb", 2, 2, do_write_value }, { "writew", 2, 2, do_write_value },
    { "writel", 2, 2, do_write_value }, { "writeq", 2, 2, do_write_value },
    { "inb", 1, 1, do_in }, { "inw", 1, 1, do_in }, { "inl", 1, 1, do_in },
    { "outb", 2, 2, do_out }, { "outw", 2, 2, do_out }, { "outl", 2, 2, do_out },
    { "read", 2, 2, do_read }, { "write", 3, 3, do_write },
    { "b64read", 2, 2, do_b64read }, { "b64write", 3, 3, do_b64write },
    { "memset", 3, 3, do_memset },
    { "irq_intercept_in", 1, 1, do_intercept }, { "irq_intercept_out", 1, 2, do_intercept },
    { "set_irq_in", 4, 4, do_set_irq },
    { "clock_step", 0, 1, do_clock }, { "clock_set", 1, 1, do_clock },
    { "endianness", 0, 0, do_endianness },
};

static void process_line(const char *line)
{
    g_auto(GStrv) words = g_strsplit(*line ? line : " ", " ", -1);
    unsigned args = g_strv_length(words) - 1;
    Error *err = NULL;

    log_line('R', line);
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(commands[i].name, words[0])) {
            continue;
        }
        if (args < commands[i].min_args || args > commands[i].max_args) {
            answer("FAIL %s takes %u arguments, not %u", words[0], commands[i].max_args, args);
        } else if (commands[i].fn(words, &err) < 0) {
            answer("FAIL %s: %s", words[0], error_get_pretty(err));
            error_free(err);
        }
        return;
    }
    answer("FAIL Unknown command '%s'", words[0]);
}

/* ---- the connection ---- */

static int can_read(void *opaque)
{
    return 64 * 1024;
}

/* Only what is new is searched for the line's end: a line may come in a thousand parts. */
static void take_input(void *opaque, const uint8_t *buf, int size)
{
    size_t start = 0, from = input->len;
    const char *end;

    g_string_append_len(input, (const char *)buf, size);
    while ((end = memchr(input->str + from, '\n', input->len - from))) {
        size_t at = end - input->str;
        g_autofree char *line = g_strndup(input->str + start, at - start);

        if (strlen(line) < at - start) {
            answer("FAIL a line holds a NUL byte");
        } else {
            process_line(g_strchomp(line));
        }
        start = from = at + 1;
    }
    g_string_erase(input, 0, start);
    if (input->len > QTEST_LINE_MAX) {
        g_string_truncate(input, 0);
        chr_fe_disconnect(&fe);
    }
}

static void on_event(void *opaque, ChrEvent event)
{
    switch (event) {
    case CHR_EVENT_OPENED:
        g_timer_start(timer);
        memset(line_levels, 0, sizeof(line_levels));
        g_string_truncate(input, 0);
        log_line('I', "OPENED");
        break;
    case CHR_EVENT_CLOSED:
        irq_set_interceptor(NULL);
        log_line('I', "CLOSED");
        break;
    default:
        break;
    }
}

static int open_log(const char *log, Error **errp)
{
    if (!log) {
        log_file = stderr;
    } else if (strcmp(log, "none")) {
        log_file = fopen(log, "we");
        if (!log_file) {
            error_setg_errno(errp, errno, "Could not open the qtest log '%s'", log);
            return -1;
        }
        log_is_ours = true;
    }
    return 0;
}

int qtest_server_init(const char *device, const char *log, Error **errp)
{
    Chardev *chr;
    Error *err = NULL;

    if (open_log(log, errp) < 0) {
        return -1;
    }
    timer = g_timer_new();
    input = g_string_new(NULL);
    chr = chardev_new_legacy("qtest", device, false, &err);
    if (err || !chr_fe_init(&fe, chr, &err)) {
        error_propagate(errp, err);
        qtest_server_cleanup();
        return -1;
    }
    chr_fe_set_output_limit(&fe, QTEST_LINE_MAX + 1);
    chr_fe_set_handlers(&fe, can_read, take_input, on_event, NULL);
    return 0;
}

void qtest_server_cleanup(void)
{
    if (!timer) {
        return;
    }
    irq_set_interceptor(NULL);
    chr_fe_deinit(&fe, false);
    g_clear_pointer(&timer, g_timer_destroy);
    g_string_free(g_steal_pointer(&input), TRUE);
    if (log_is_ours) {
        fclose(log_file);
        log_is_ours = false;
    }
    log_file = NULL;
}
