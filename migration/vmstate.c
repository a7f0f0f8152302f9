/*
 * Walking a vmstate table: to save, to load, and to describe what was saved.
 *
 * The description is made while saving, from the same walk, so it cannot disagree with the bytes:
 * a field's size is what the stream grew by. An array whose elements all look alike is described
 * once with its length; otherwise each element gets an entry of its own with its index.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "migration/vmstate.h"

#include <json-c/json.h>
#include <string.h>
#include "migration/savevm-internal.h"

static bool field_present(const VMStateField *field, void *opaque, int version_id)
{
    if (field->field_exists) {
        return field->field_exists(opaque, version_id);
    }
    return field->version_id <= version_id;
}

static void *field_base(const VMStateField *field, void *opaque)
{
    void *p = (uint8_t *)opaque + field->offset;

    return field->flags & VMS_POINTER ? *(void **)p : p;
}

static uint32_t field_count_member(const VMStateField *field, void *opaque)
{
    return *(uint32_t *)((uint8_t *)opaque + field->num_offset);
}

/* How many elements, and how large each; a count beyond the array is an error. */
static int field_extent(const VMStateField *field, void *opaque, uint32_t *n, size_t *size,
                        Error **errp)
{
    *n = field->flags & VMS_ARRAY ? field->num : 1;
    *size = field->size;
    if (field->flags & VMS_VARRAY) {
        *n = field_count_member(field, opaque);
        if (*n > field->num) {
            error_setg(errp, "field '%s' has %u elements, at most %u are possible", field->name,
                       *n, field->num);
            return -1;
        }
    } else if (field->flags & VMS_VBUFFER) {
        *size = field_count_member(field, opaque);
        if (*size > field->size) {
            error_setg(errp, "field '%s' has %zu bytes, at most %zu are possible", field->name,
                       *size, field->size);
            return -1;
        }
    }
    return 0;
}

/* Whether every element described by @vmsd lies in the stream in the same way. */
static bool vmsd_is_uniform(const VMStateDescription *vmsd)
{
    if (vmsd->subsections) {
        return false;
    }
    for (const VMStateField *field = vmsd->fields; field->name; field++) {
        if (field->field_exists || (field->flags & (VMS_VARRAY | VMS_VBUFFER)) ||
            ((field->flags & VMS_STRUCT) && !vmsd_is_uniform(field->vmsd))) {
            return false;
        }
    }
    return true;
}

static struct json_object *desc_field(const VMStateField *field)
{
    struct json_object *desc = json_object_new_object();

    json_object_object_add(desc, "name", json_object_new_string(field->name));
    json_object_object_add(desc, "type",
                           json_object_new_string(field->flags & VMS_STRUCT ? "struct"
                                                                            : field->info->name));
    return desc;
}

static int save_element(MigrationFile *f, const VMStateField *field, void *element, size_t size,
                        struct json_object *desc, Error **errp)
{
    uint64_t before = mfile_transferred(f);
    int ret;

    if (field->flags & VMS_STRUCT) {
        struct json_object *inner = NULL;
        if (desc) {
            inner = json_object_new_object();
            json_object_object_add(desc, "struct", inner);
        }
        ret = vmstate_save_state(f, field->vmsd, element, inner, errp);
    } else {
        ret = field->info->put(f, element, size, field, errp);
    }
    if (desc) {
        json_object_object_add(desc, "size",
                               json_object_new_int64(mfile_transferred(f) - before));
    }
    return ret;
}

static int save_field(MigrationFile *f, const VMStateField *field, void *opaque,
                      struct json_object *fields, Error **errp)
{
    uint32_t n;
    size_t size;

    if (field_extent(field, opaque, &n, &size, errp) < 0) {
        return -1;
    }

    uint8_t *element = field_base(field, opaque);
    bool is_array = field->flags & (VMS_ARRAY | VMS_VARRAY);
    bool once = is_array && n > 1 && (!(field->flags & VMS_STRUCT) || vmsd_is_uniform(field->vmsd));

    for (uint32_t i = 0; i < n; i++) {
        struct json_object *desc = NULL;
        if (fields && (!once || i == 0)) {
            desc = desc_field(field);
            if (is_array) {
                json_object_object_add(desc, once ? "array_len" : "index",
                                       json_object_new_int64(once ? n : i));
            }
            json_object_array_add(fields, desc);
        }
        if (save_element(f, field, element + i * field->size, size, desc, errp) < 0) {
            error_prepend(errp, "field '%s': ", field->name);
            return -1;
        }
    }
    return 0;
}

static int save_subsections(MigrationFile *f, const VMStateDescription *vmsd, void *opaque,
                            struct json_object *desc, Error **errp)
{
    struct json_object *list = NULL;

    for (unsigned i = 0; vmsd->subsections && vmsd->subsections[i]; i++) {
        const VMStateDescription *sub = vmsd->subsections[i];
        struct json_object *inner = NULL;

        if (sub->needed && !sub->needed(opaque)) {
            continue;
        }
        if (desc) {
            if (!list) {
                list = json_object_new_array();
                json_object_object_add(desc, "subsections", list);
            }
            inner = json_object_new_object();
            json_object_array_add(list, inner);
        }
        mfile_put_u8(f, MIG_SUBSECTION);
        mfile_put_counted_string(f, sub->name);
        mfile_put_be32(f, sub->version_id);
        if (vmstate_save_state(f, sub, opaque, inner, errp) < 0) {
            error_prepend(errp, "subsection '%s': ", sub->name);
            return -1;
        }
    }
    return 0;
}

int vmstate_save_state(MigrationFile *f, const VMStateDescription *vmsd, void *opaque,
                       struct json_object *desc, Error **errp)
{
    struct json_object *fields = NULL;
    int ret = 0;

    if (vmsd->pre_save && vmsd->pre_save(opaque, errp) < 0) {
        return -1;
    }
    if (desc) {
        fields = json_object_new_array();
        json_object_object_add(desc, "vmsd_name", json_object_new_string(vmsd->name));
        json_object_object_add(desc, "version", json_object_new_int(vmsd->version_id));
        json_object_object_add(desc, "fields", fields);
    }
    for (const VMStateField *field = vmsd->fields; field->name && ret == 0; field++) {
        if (field_present(field, opaque, vmsd->version_id)) {
            ret = save_field(f, field, opaque, fields, errp);
        }
    }
    if (ret == 0) {
        ret = save_subsections(f, vmsd, opaque, desc, errp);
    }
    if (vmsd->post_save) {
        vmsd->post_save(opaque);
    }
    return ret;
}

static int load_field(MigrationFile *f, const VMStateField *field, void *opaque, int version_id,
                      Error **errp)
{
    uint32_t n;
    size_t size;

    if (field_extent(field, opaque, &n, &size, errp) < 0) {
        return -1;
    }

    uint8_t *element = field_base(field, opaque);
    for (uint32_t i = 0; i < n; i++, element += field->size) {
        int ret = field->flags & VMS_STRUCT
                      ? vmstate_load_state(f, field->vmsd, element, field->vmsd->version_id, errp)
                      : field->info->get(f, element, size, field, errp);
        if (ret < 0 || mfile_check(f, errp) < 0) {
            error_prepend(errp, "field '%s': ", field->name);
            return -1;
        }
    }
    return 0;
}

static const VMStateDescription *find_subsection(const VMStateDescription *vmsd, const char *name)
{
    for (unsigned i = 0; vmsd->subsections && vmsd->subsections[i]; i++) {
        if (strcmp(vmsd->subsections[i]->name, name) == 0) {
            return vmsd->subsections[i];
        }
    }
    return NULL;
}

/*
 * Whether a subsection of @vmsd comes next: the marker, and a name that begins with "NAME/". What
 * follows a table inside another one may happen to be the marker's byte, so both are looked at.
 */
static bool subsection_is_next(MigrationFile *f, const VMStateDescription *vmsd)
{
    size_t have;
    size_t prefix = strlen(vmsd->name);
    const uint8_t *p = mfile_peek(f, 1, &have);

    if (!p || p[0] != MIG_SUBSECTION) {
        return false;
    }
    p = mfile_peek(f, 2, &have);
    if (!p || p[1] <= prefix) {
        return false;
    }
    p = mfile_peek(f, 2 + prefix + 1, &have);
    return p && memcmp(p + 2, vmsd->name, prefix) == 0 && p[2 + prefix] == '/';
}

static int load_subsections(MigrationFile *f, const VMStateDescription *vmsd, void *opaque,
                            Error **errp)
{
    while (subsection_is_next(f, vmsd)) {
        char name[256];

        mfile_get_u8(f);
        if (!mfile_get_counted_string(f, name)) {
            return mfile_check(f, errp);
        }
        uint32_t version = mfile_get_be32(f);
        const VMStateDescription *sub = find_subsection(vmsd, name);
        if (!sub) {
            error_setg(errp, "subsection '%s' is not known to this version", name);
            return -1;
        }
        if (vmstate_load_state(f, sub, opaque, version, errp) < 0) {
            error_prepend(errp, "subsection '%s': ", name);
            return -1;
        }
    }
    return mfile_check(f, errp);
}

int vmstate_load_state(MigrationFile *f, const VMStateDescription *vmsd, void *opaque,
                       int version_id, Error **errp)
{
    if (version_id > vmsd->version_id || version_id < vmsd->minimum_version_id) {
        error_setg(errp, "'%s' has version %d in the stream, versions %d to %d can be loaded",
                   vmsd->name, version_id, vmsd->minimum_version_id, vmsd->version_id);
        return -1;
    }
    if (vmsd->pre_load && vmsd->pre_load(opaque, errp) < 0) {
        return -1;
    }
    for (const VMStateField *field = vmsd->fields; field->name; field++) {
        if (field_present(field, opaque, version_id)) {
            if (load_field(f, field, opaque, version_id, errp) < 0) {
                return -1;
            }
        } else if (field->flags & VMS_MUST_EXIST) {
            error_setg(errp, "field '%s' is missing in version %d of '%s'", field->name,
                       version_id, vmsd->name);
            return -1;
        }
    }
    if (load_subsections(f, vmsd, opaque, errp) < 0) {
        return -1;
    }
    if (vmsd->post_load) {
        return vmsd->post_load(opaque, version_id, errp);
    }
    return 0;
}
