/*
 * vmstate: the state of a device as a table, from which saving, loading and the stream's JSON
 * description follow.
 *
 *     static const VMStateDescription vmstate_foo = {
 *         .name = "foo", .version_id = 2, .minimum_version_id = 1,
 *         .post_load = foo_post_load,
 *         .fields = (const VMStateField[]) {
 *             VMSTATE_UINT32(control, FooState),
 *             VMSTATE_UINT8_ARRAY(fifo, FooState, 16),
 *             VMSTATE_UINT64_V(ticks, FooState, 2),
 *             VMSTATE_END_OF_LIST() },
 *         .subsections = (const VMStateDescription *const[]) { &vmstate_foo_timer, NULL },
 *     };
 *     vmstate_register("foo", 0, &vmstate_foo, state, &error_abort);
 *
 * A field that a newer version added says so (the _V macros) and is skipped when an older stream is
 * loaded; a state that is there only sometimes is a subsection with needed(). Names, order and
 * types are the stream format: they never change once released.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef MIGRATION_VMSTATE_H
#define MIGRATION_VMSTATE_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include "util/error.h"

typedef struct MigrationFile MigrationFile;
typedef struct VMStateField VMStateField;
typedef struct VMStateDescription VMStateDescription;

/* How one value is written and read. */
typedef struct VMStateInfo {
    const char *name;           /* the "type" in the JSON description */
    /* Return 0, or -1 with @errp set (a value that is not allowed). */
    int (*get)(MigrationFile *f, void *value, size_t size, const VMStateField *field, Error **errp);
    int (*put)(MigrationFile *f, const void *value, size_t size, const VMStateField *field,
               Error **errp);
} VMStateInfo;

typedef enum VMStateFlags {
    VMS_SINGLE = 0,
    VMS_ARRAY = 1 << 0,         /* num elements of size bytes */
    VMS_VARRAY = 1 << 1,        /* the number of elements is in the uint32_t at num_offset */
    VMS_STRUCT = 1 << 2,        /* each element is described by vmsd */
    VMS_POINTER = 1 << 3,       /* the member is a pointer to the data */
    VMS_VBUFFER = 1 << 4,       /* a buffer; its bytes are in the uint32_t at num_offset */
    VMS_MUST_EXIST = 1 << 5,    /* field_exists() false in what is loaded is an error */
} VMStateFlags;

struct VMStateField {
    const char *name;
    size_t offset;              /* in the struct */
    size_t size;                /* of one element; VMS_VBUFFER: the most bytes that fit */
    uint32_t num;               /* VMS_ARRAY: elements; VMS_VARRAY: most elements */
    size_t num_offset;
    const VMStateInfo *info;
    const VMStateDescription *vmsd;
    unsigned flags;
    int version_id;             /* the field is there from this version on */
    bool (*field_exists)(void *opaque, int version_id);
};

struct VMStateDescription {
    const char *name;
    int version_id;
    int minimum_version_id;
    int (*pre_load)(void *opaque, Error **errp);
    int (*post_load)(void *opaque, int version_id, Error **errp);
    int (*pre_save)(void *opaque, Error **errp);
    void (*post_save)(void *opaque);
    bool (*needed)(void *opaque);           /* subsections and whole sections; NULL: always */
    const VMStateField *fields;             /* ends with VMSTATE_END_OF_LIST() */
    const VMStateDescription *const *subsections;   /* NULL-terminated, or NULL */
};

/*
 * Register @vmsd for @opaque as the section @idstr (1 to 255 bytes) of @instance_id. Sections are
 * written in order of registration. Under the big lock. Fails when the pair exists already.
 */
int vmstate_register(const char *idstr, uint32_t instance_id, const VMStateDescription *vmsd,
                     void *opaque, Error **errp);
void vmstate_unregister(const VMStateDescription *vmsd, void *opaque);

struct json_object;
/*
 * Save or load the body of a section. @desc: NULL, or the JSON object to fill with the members
 * "vmsd_name", "version", "fields" and "subsections".
 */
int vmstate_save_state(MigrationFile *f, const VMStateDescription *vmsd, void *opaque,
                       struct json_object *desc, Error **errp);
int vmstate_load_state(MigrationFile *f, const VMStateDescription *vmsd, void *opaque,
                       int version_id, Error **errp);

extern const VMStateInfo vmstate_info_bool, vmstate_info_int8, vmstate_info_int16,
    vmstate_info_int32, vmstate_info_int64, vmstate_info_uint8, vmstate_info_uint16,
    vmstate_info_uint32, vmstate_info_uint64, vmstate_info_buffer, vmstate_info_unused_buffer,
    vmstate_info_uint32_equal, vmstate_info_uint64_equal;

/* A compile-time check that the member has the type that the macro promises. */
#define VMSTATE_CHECK(type, member, state) \
    (0 * sizeof((type *)0 == &((state *)0)->member))
#define VMSTATE_CHECK_ARRAY(type, member, state, n) \
    (0 * sizeof((type(*)[n])0 == &((state *)0)->member))

#define VMSTATE_SINGLE_TEST(member_, state_, test_, version_, info_, type_) { \
    .name = #member_, .version_id = (version_), .field_exists = (test_), .info = &(info_), \
    .size = sizeof(type_), \
    .offset = offsetof(state_, member_) + VMSTATE_CHECK(type_, member_, state_) }
#define VMSTATE_SINGLE(m, s, v, i, t) VMSTATE_SINGLE_TEST(m, s, NULL, v, i, t)

#define VMSTATE_BOOL_V(m, s, v) VMSTATE_SINGLE(m, s, v, vmstate_info_bool, bool)
#define VMSTATE_INT8_V(m, s, v) VMSTATE_SINGLE(m, s, v, vmstate_info_int8, int8_t)
#define VMSTATE_INT16_V(m, s, v) VMSTATE_SINGLE(m, s, v, vmstate_info_int16, int16_t)
#define VMSTATE_INT32_V(m, s, v) VMSTATE_SINGLE(m, s, v, vmstate_info_int32, int32_t)
#define VMSTATE_INT64_V(m, s, v) VMSTATE_SINGLE(m, s, v, vmstate_info_int64, int64_t)
#define VMSTATE_UINT8_V(m, s, v) VMSTATE_SINGLE(m, s, v, vmstate_info_uint8, uint8_t)
#define VMSTATE_UINT16_V(m, s, v) VMSTATE_SINGLE(m, s, v, vmstate_info_uint16, uint16_t)
#define VMSTATE_UINT32_V(m, s, v) VMSTATE_SINGLE(m, s, v, vmstate_info_uint32, uint32_t)
#define VMSTATE_UINT64_V(m, s, v) VMSTATE_SINGLE(m, s, v, vmstate_info_uint64, uint64_t)
#define VMSTATE_BOOL(m, s) VMSTATE_BOOL_V(m, s, 0)
#define VMSTATE_INT8(m, s) VMSTATE_INT8_V(m, s, 0)
#define VMSTATE_INT16(m, s) VMSTATE_INT16_V(m, s, 0)
#define VMSTATE_INT32(m, s) VMSTATE_INT32_V(m, s, 0)
#define VMSTATE_INT64(m, s) VMSTATE_INT64_V(m, s, 0)
#define VMSTATE_UINT8(m, s) VMSTATE_UINT8_V(m, s, 0)
#define VMSTATE_UINT16(m, s) VMSTATE_UINT16_V(m, s, 0)
#define VMSTATE_UINT32(m, s) VMSTATE_UINT32_V(m, s, 0)
#define VMSTATE_UINT64(m, s) VMSTATE_UINT64_V(m, s, 0)
/* The value in the stream must be the one that the machine has already. */
#define VMSTATE_UINT32_EQUAL(m, s) VMSTATE_SINGLE(m, s, 0, vmstate_info_uint32_equal, uint32_t)
#define VMSTATE_UINT64_EQUAL(m, s) VMSTATE_SINGLE(m, s, 0, vmstate_info_uint64_equal, uint64_t)

#define VMSTATE_ARRAY(member_, state_, num_, version_, info_, type_) { \
    .name = #member_, .version_id = (version_), .num = (num_), .info = &(info_), \
    .size = sizeof(type_), .flags = VMS_ARRAY, \
    .offset = offsetof(state_, member_) + VMSTATE_CHECK_ARRAY(type_, member_, state_, num_) }
#define VMSTATE_UINT8_ARRAY(m, s, n) VMSTATE_ARRAY(m, s, n, 0, vmstate_info_uint8, uint8_t)
#define VMSTATE_UINT16_ARRAY(m, s, n) VMSTATE_ARRAY(m, s, n, 0, vmstate_info_uint16, uint16_t)
#define VMSTATE_UINT32_ARRAY(m, s, n) VMSTATE_ARRAY(m, s, n, 0, vmstate_info_uint32, uint32_t)
#define VMSTATE_UINT64_ARRAY(m, s, n) VMSTATE_ARRAY(m, s, n, 0, vmstate_info_uint64, uint64_t)

/* A fixed array of bytes as one field. */
#define VMSTATE_BUFFER_V(member_, state_, version_) { \
    .name = #member_, .version_id = (version_), .info = &vmstate_info_buffer, \
    .size = sizeof(((state_ *)0)->member_), .offset = offsetof(state_, member_) }
#define VMSTATE_BUFFER(m, s) VMSTATE_BUFFER_V(m, s, 0)
/*
 * As many bytes of the array member as the uint32_t member @len_ says; that must be a field
 * before this one, and may not be more than the array holds.
 */
#define VMSTATE_VBUFFER_UINT32(member_, state_, len_) { \
    .name = #member_, .info = &vmstate_info_buffer, .flags = VMS_VBUFFER, \
    .size = sizeof(((state_ *)0)->member_), .offset = offsetof(state_, member_), \
    .num_offset = offsetof(state_, len_) + VMSTATE_CHECK(uint32_t, len_, state_) }
/* @size_ bytes that mean nothing any more. */
#define VMSTATE_UNUSED(size_) { \
    .name = "unused", .info = &vmstate_info_unused_buffer, .size = (size_) }

#define VMSTATE_STRUCT(member_, state_, version_, vmsd_, type_) { \
    .name = #member_, .version_id = (version_), .vmsd = &(vmsd_), .size = sizeof(type_), \
    .flags = VMS_STRUCT, \
    .offset = offsetof(state_, member_) + VMSTATE_CHECK(type_, member_, state_) }
#define VMSTATE_STRUCT_ARRAY(member_, state_, num_, version_, vmsd_, type_) { \
    .name = #member_, .version_id = (version_), .vmsd = &(vmsd_), .size = sizeof(type_), \
    .num = (num_), .flags = VMS_STRUCT | VMS_ARRAY, \
    .offset = offsetof(state_, member_) + VMSTATE_CHECK_ARRAY(type_, member_, state_, num_) }
/* The first elements of the array, as many as the uint32_t member @count_ says. */
#define VMSTATE_STRUCT_VARRAY_UINT32(member_, state_, count_, version_, vmsd_, type_) { \
    .name = #member_, .version_id = (version_), .vmsd = &(vmsd_), .size = sizeof(type_), \
    .num = sizeof(((state_ *)0)->member_) / sizeof(type_), .flags = VMS_STRUCT | VMS_VARRAY, \
    .offset = offsetof(state_, member_), \
    .num_offset = offsetof(state_, count_) + VMSTATE_CHECK(uint32_t, count_, state_) }
#define VMSTATE_END_OF_LIST() { .name = NULL }

#endif
