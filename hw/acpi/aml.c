/*
 * Terms as bytes. Lengths of packages come first and include themselves, in one to four bytes:
 *
 *     length < 64        00LLLLLL
 *     else               NN00LLLL, then NN bytes: the low four bits first, then eight at a time
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/acpi/aml.h"

#include <string.h>

#include "util/bswap.h"

enum {
    OP_ZERO = 0x00, OP_ONE = 0x01, OP_NAME = 0x08, OP_BYTE = 0x0a, OP_WORD = 0x0b, OP_DWORD = 0x0c,
    OP_STRING = 0x0d, OP_QWORD = 0x0e, OP_SCOPE = 0x10, OP_BUFFER = 0x11, OP_PACKAGE = 0x12,
    OP_EXTENDED = 0x5b, OP_EXT_DEVICE = 0x82,
};

enum {
    TAG_IRQ = 0x22, TAG_IO = 0x47, TAG_MEMORY32_FIXED = 0x86, TAG_INTERRUPT = 0x89, TAG_END = 0x79,
};

#define NAME_SEGMENT 4
#define PKG_LENGTH_MAX (1u << 28)

static void put_byte(GByteArray *out, uint8_t byte)
{
    g_byte_array_append(out, &byte, 1);
}

static void put_body(GByteArray *out, GByteArray *body)
{
    g_byte_array_append(out, body->data, body->len);
    g_byte_array_unref(body);
}

static void put_pkg_length(GByteArray *out, uint32_t body_bytes)
{
    unsigned more = body_bytes + 1 < 1 << 6 ? 0 : body_bytes + 2 < 1 << 12 ? 1 :
                    body_bytes + 3 < 1 << 20 ? 2 : 3;
    uint32_t length = body_bytes + 1 + more;

    g_assert(length < PKG_LENGTH_MAX);
    if (more == 0) {
        put_byte(out, length);
        return;
    }
    put_byte(out, more << 6 | (length & 0xf));
    for (unsigned i = 0; i < more; i++) {
        put_byte(out, length >> (4 + 8 * i));
    }
}

static void put_name(GByteArray *out, const char *name)
{
    if (*name == '\\') {
        put_byte(out, *name++);
    }
    g_assert(strlen(name) == NAME_SEGMENT);
    g_byte_array_append(out, (const uint8_t *)name, NAME_SEGMENT);
}

static void put_integer(GByteArray *out, uint64_t value)
{
    uint8_t bytes[8];
    unsigned size = value <= UINT8_MAX ? 1 : value <= UINT16_MAX ? 2 : value <= UINT32_MAX ? 4 : 8;

    if (value <= 1) {
        put_byte(out, value ? OP_ONE : OP_ZERO);
        return;
    }
    put_byte(out, size == 1 ? OP_BYTE : size == 2 ? OP_WORD : size == 4 ? OP_DWORD : OP_QWORD);
    stq_le_p(bytes, value);
    g_byte_array_append(out, bytes, size);
}

/* ---- objects ---- */

void aml_scope(GByteArray *out, const char *name, GByteArray *body)
{
    uint32_t name_bytes = strlen(name);

    put_byte(out, OP_SCOPE);
    put_pkg_length(out, name_bytes + body->len);
    put_name(out, name);
    put_body(out, body);
}

void aml_device(GByteArray *out, const char *name, GByteArray *body)
{
    put_byte(out, OP_EXTENDED);
    put_byte(out, OP_EXT_DEVICE);
    put_pkg_length(out, strlen(name) + body->len);
    put_name(out, name);
    put_body(out, body);
}

static void put_name_op(GByteArray *out, const char *name)
{
    put_byte(out, OP_NAME);
    put_name(out, name);
}

void aml_name_integer(GByteArray *out, const char *name, uint64_t value)
{
    put_name_op(out, name);
    put_integer(out, value);
}

void aml_name_string(GByteArray *out, const char *name, const char *value)
{
    put_name_op(out, name);
    put_byte(out, OP_STRING);
    g_byte_array_append(out, (const uint8_t *)value, strlen(value) + 1);
}

/* Letters in five bits each (A is 1), digits in four, as one big-endian word. */
void aml_name_eisaid(GByteArray *out, const char *name, const char *id)
{
    uint32_t value = 0;
    uint8_t bytes[4];

    g_assert(strlen(id) == 7);
    for (unsigned i = 0; i < 3; i++) {
        g_assert(g_ascii_isupper(id[i]));
        value = value << 5 | (uint32_t)(id[i] - '@');
    }
    for (unsigned i = 3; i < 7; i++) {
        g_assert(g_ascii_isxdigit(id[i]));
        value = value << 4 | (uint32_t)g_ascii_xdigit_value(id[i]);
    }
    stl_be_p(bytes, value);
    put_name_op(out, name);
    put_byte(out, OP_DWORD);
    g_byte_array_append(out, bytes, sizeof(bytes));
}

void aml_name_package(GByteArray *out, const char *name, const uint64_t *values, unsigned n)
{
    GByteArray *body = g_byte_array_new();

    g_assert(n <= UINT8_MAX);
    put_byte(body, n);
    for (unsigned i = 0; i < n; i++) {
        put_integer(body, values[i]);
    }
    put_name_op(out, name);
    put_byte(out, OP_PACKAGE);
    put_pkg_length(out, body->len);
    put_body(out, body);
}

void aml_name_resources(GByteArray *out, const char *name, GByteArray *body)
{
    GByteArray *buffer = g_byte_array_new();

    /* A checksum of 0 says that there is none. */
    g_byte_array_append(body, (const uint8_t[]){ TAG_END, 0 }, 2);
    put_integer(buffer, body->len);
    put_body(buffer, body);
    put_name_op(out, name);
    put_byte(out, OP_BUFFER);
    put_pkg_length(out, buffer->len);
    put_body(out, buffer);
}

/* ---- resource descriptors ---- */

void aml_resource_io(GByteArray *out, uint16_t port, uint8_t n)
{
    uint8_t bytes[8] = { TAG_IO, 1 };   /* decodes 16 bits */

    stw_le_p(bytes + 2, port);          /* lowest and highest place it can have: the same */
    stw_le_p(bytes + 4, port);
    bytes[6] = 1;                       /* alignment */
    bytes[7] = n;
    g_byte_array_append(out, bytes, sizeof(bytes));
}

void aml_resource_memory(GByteArray *out, uint32_t address, uint32_t bytes)
{
    uint8_t descriptor[12] = { TAG_MEMORY32_FIXED, 9, 0, 1 };   /* nine bytes follow; writable */

    stl_le_p(descriptor + 4, address);
    stl_le_p(descriptor + 8, bytes);
    g_byte_array_append(out, descriptor, sizeof(descriptor));
}

void aml_resource_irq(GByteArray *out, unsigned line)
{
    uint8_t bytes[3] = { TAG_IRQ };

    g_assert(line < 16);
    stw_le_p(bytes + 1, 1u << line);
    g_byte_array_append(out, bytes, sizeof(bytes));
}

void aml_resource_interrupt(GByteArray *out, uint32_t gsi)
{
    /* Six bytes follow; consumer and shared; one number. */
    uint8_t bytes[9] = { TAG_INTERRUPT, 6, 0, 1 << 0 | 1 << 3, 1 };

    stl_le_p(bytes + 5, gsi);
    g_byte_array_append(out, bytes, sizeof(bytes));
}
