/*
 * HMP: looking at memory and ports. Formats are those of a debugger: /COUNT FORMAT SIZE, where
 * FORMAT and SIZE stay what they were when they are left out.
 *
 * What one command may print is limited, as it is built in memory and the machine waits meanwhile.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>
#include <string.h>
#include "monitor/hmp.h"
#include "qapi/qapi-commands-machine.h"
#include "monitor/monitor-internal.h"
#include "system/memory.h"
#include "system/page-walk.h"
#include "util/bswap.h"

#define DUMP_MAX_BYTES (1u << 20)
#define SUM_MAX_BYTES (64u << 20)

static char last_format = 'x';
static int last_size = 4;

typedef struct Format {
    int64_t count;
    char letter;
    int size;                   /* bytes */
} Format;

/* What the arguments say, or what was used last. */
static Format get_format(HMPArgs *args)
{
    Format f = {
        .count = hmp_int(args, "count", 1),
        .letter = (char)hmp_int(args, "format", 0),
        .size = (int)hmp_int(args, "size", 0),
    };

    last_format = f.letter = f.letter ? f.letter : last_format;
    last_size = f.size = f.size ? f.size : last_size;
    if (f.letter == 'i' || f.letter == 's') {
        last_format = 'x';
    }
    return f;
}

static void print_char(GString *out, int c)
{
    const char *escape = c == '\'' ? "\\'" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" :
                         c == '\r' ? "\\r" : NULL;

    if (escape) {
        g_string_append_printf(out, "'%s'", escape);
    } else if (c >= 32 && c <= 126) {
        g_string_append_printf(out, "'%c'", c);
    } else {
        g_string_append_printf(out, "'\\x%02x'", c & 0xff);
    }
}

/* One value of @f->size bytes, padded to the widest that there is. */
static void print_value(GString *out, const Format *f, uint64_t v)
{
    int shift = 64 - f->size * 8;

    switch (f->letter) {
    case 'o':
        g_string_append_printf(out, "%#*" PRIo64, (f->size * 8 + 2) / 3, v);
        break;
    case 'x':
        g_string_append_printf(out, "0x%0*" PRIx64, f->size * 2, v);
        break;
    case 'u':
        g_string_append_printf(out, "%*" PRIu64, (f->size * 80 + 32) / 33, v);
        break;
    case 'd':
        g_string_append_printf(out, "%*" PRId64, (f->size * 80 + 32) / 33,
                               (int64_t)(v << shift) >> shift);
        break;
    case 'c':
        print_char(out, (int)v);
        break;
    }
}

static uint64_t load(const uint8_t *p, int size)
{
    switch (size) {
    case 1:
        return *p;
    case 2:
        return lduw_le_p(p);
    case 4:
        return (uint32_t)ldl_le_p(p);
    default:
        return ldq_le_p(p);
    }
}

/* @env: whose virtual memory, or NULL for physical memory */
static bool read_memory(const X86CPUState *env, uint64_t addr, void *buf, unsigned size)
{
    return (env ? page_walk_read(env, addr, buf, size) : address_space_read(addr, buf, size)) == 0;
}

static bool dump_line(GString *out, const Format *f, const X86CPUState *env, uint64_t addr,
                      unsigned items)
{
    uint8_t buf[16];

    g_string_append_printf(out, "%016" PRIx64 ":", addr);
    if (!read_memory(env, addr, buf, items * f->size)) {
        g_string_append(out, " Cannot access memory\n");
        return false;
    }
    for (unsigned i = 0; i < items; i++) {
        g_string_append_c(out, ' ');
        print_value(out, f, load(buf + i * f->size, f->size));
    }
    g_string_append_c(out, '\n');
    return true;
}

static void dump(Monitor *mon, HMPArgs *args, const X86CPUState *env)
{
    Format f = get_format(args);
    uint64_t addr = hmp_int(args, "addr", 0);
    g_autoptr(GString) out = g_string_new(NULL);
    unsigned per_line;

    if (f.letter == 'i' || f.letter == 's') {
        monitor_printf(mon, "Format '%c' is not supported: there is no %s\n", f.letter,
                       f.letter == 'i' ? "disassembler" : "string format");
        return;
    }
    if (f.letter == 'c') {
        f.size = 1;
    }
    if (f.count > DUMP_MAX_BYTES / f.size) {
        monitor_printf(mon, "Too much memory for one command: at most %u bytes\n",
                       DUMP_MAX_BYTES);
        return;
    }
    per_line = (f.size == 1 ? 8 : 16) / f.size;
    while (f.count > 0) {
        unsigned items = MIN(f.count, per_line);

        if (!dump_line(out, &f, env, addr, items)) {
            break;
        }
        addr += items * f.size;
        f.count -= items;
    }
    monitor_puts(mon, out->str);
}

void hmp_memory_dump(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    CPUState *cpu = hmp_current_cpu(mon, &err);

    if (!hmp_handle_error(mon, err)) {
        dump(mon, args, &cpu->env);
    }
}

void hmp_physical_memory_dump(Monitor *mon, HMPArgs *args)
{
    dump(mon, args, NULL);
}

void hmp_print(Monitor *mon, HMPArgs *args)
{
    Format f = get_format(args);
    int64_t v = hmp_int(args, "val", 0);
    g_autoptr(GString) c = g_string_new(NULL);

    switch (f.letter) {
    case 'o':
        monitor_printf(mon, "%#" PRIo64 "\n", v);
        break;
    case 'x':
        monitor_printf(mon, "%#" PRIx64 "\n", v);
        break;
    case 'u':
        monitor_printf(mon, "%" PRIu64 "\n", v);
        break;
    case 'c':
        print_char(c, (int)v);
        monitor_printf(mon, "%s\n", c->str);
        break;
    default:
        monitor_printf(mon, "%" PRId64 "\n", v);
        break;
    }
}

/* ---- ports ---- */

/* A port access takes 1, 2 or 4 bytes; without a size, as anything else, one byte. */
static unsigned port_size(HMPArgs *args)
{
    int64_t size = hmp_int(args, "size", 1);

    return size == 2 || size == 4 ? size : 1;
}

void hmp_ioport_read(Monitor *mon, HMPArgs *args)
{
    unsigned size = port_size(args);
    uint16_t port = hmp_int(args, "addr", 0);
    uint32_t value;

    if (hmp_has(args, "index")) {
        port_write(port, hmp_int(args, "index", 0) & 0xff, 1);
        port++;
    }
    value = port_read(port, size);
    monitor_printf(mon, "port%c[0x%04x] = 0x%0*x\n", size == 1 ? 'b' : size == 2 ? 'w' : 'l', port,
                   size * 2, value);
}

void hmp_ioport_write(Monitor *mon, HMPArgs *args)
{
    port_write(hmp_int(args, "addr", 0), hmp_int(args, "val", 0), port_size(args));
}

/* ---- whole ranges ---- */

/* The 16-bit rotating checksum of a range of physical memory. */
void hmp_sum(Monitor *mon, HMPArgs *args)
{
    uint64_t addr = hmp_int(args, "start", 0), size = hmp_int(args, "size", 0);
    uint16_t sum = 0;
    uint8_t buf[4096];

    if (size > SUM_MAX_BYTES) {
        monitor_printf(mon, "Too much memory for one command: at most %u bytes\n", SUM_MAX_BYTES);
        return;
    }
    while (size > 0) {
        uint64_t n = MIN(size, sizeof(buf));

        if (address_space_read(addr, buf, n) < 0) {
            monitor_printf(mon, "Cannot access memory\n");
            return;
        }
        for (uint64_t i = 0; i < n; i++) {
            sum = (sum >> 1) | (sum << 15);
            sum += buf[i];
        }
        addr += n;
        size -= n;
    }
    monitor_printf(mon, "%05d\n", sum);
}

void hmp_memsave(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;
    CPUState *cpu = hmp_current_cpu(mon, &err);

    if (cpu) {
        qmp_memsave(hmp_int(args, "val", 0), (uint64_t)hmp_int(args, "size", 0),
                    hmp_str(args, "filename"), true, cpu->index, &err);
    }
    hmp_handle_error(mon, err);
}

void hmp_pmemsave(Monitor *mon, HMPArgs *args)
{
    Error *err = NULL;

    qmp_pmemsave(hmp_int(args, "val", 0), (uint64_t)hmp_int(args, "size", 0),
                 hmp_str(args, "filename"), &err);
    hmp_handle_error(mon, err);
}
