/*
 * memory-backend-ram, -file and -memfd: from QAPI's properties to a RAMBacking, and who uses them.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "system/memory-backend.h"

#include <string.h>

#include "qapi/qapi-commands-qom.h"

typedef struct MemoryBackend {
    char *id;
    RAMBlock *block;
    bool merge, dump, prealloc;
    bool claimed;
} MemoryBackend;

static const ObjectType backend_types[] = {
    OBJECT_TYPE_MEMORY_BACKEND_FILE,
    OBJECT_TYPE_MEMORY_BACKEND_MEMFD,
    OBJECT_TYPE_MEMORY_BACKEND_RAM,
};

static MemoryBackend *memory_backend_by_id(const char *id)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(backend_types); i++) {
        MemoryBackend *backend = object_by_id(id, backend_types[i]);

        if (backend) {
            return backend;
        }
    }
    return NULL;
}

uint64_t memory_backend_size(const char *id)
{
    MemoryBackend *backend = memory_backend_by_id(id);

    return backend ? backend->block->used_length : 0;
}

RAMBlock *memory_backend_claim(const char *id, Error **errp)
{
    MemoryBackend *backend = memory_backend_by_id(id);

    if (!backend) {
        error_setg(errp, object_exists(id) ? "Object '%s' is not a memory backend"
                                           : "Memory backend '%s' not found", id);
        return NULL;
    }
    if (backend->claimed) {
        error_setg(errp, "Memory backend '%s' is in use already", id);
        return NULL;
    }
    backend->claimed = true;
    return backend->block;
}

void memory_backend_release(const char *id)
{
    MemoryBackend *backend = memory_backend_by_id(id);

    if (backend) {
        backend->claimed = false;
    }
}

/* @backing has what is particular to the kind, and the kind's default of share. */
static MemoryBackend *backend_new(const char *id, const MemoryBackendProperties *props,
                                  RAMBacking *backing, Error **errp)
{
    bool bare = props->has_x_use_canonical_path_for_ramblock_id &&
                !props->x_use_canonical_path_for_ramblock_id;
    g_autofree char *name = bare ? g_strdup(id) : g_strdup_printf("/objects/%s", id);
    MemoryBackend *backend;
    RAMBlock *block;

    if (props->has_prealloc_threads && props->prealloc_threads == 0) {
        error_setg(errp, "Parameter 'prealloc-threads' expects a number greater than zero");
        return NULL;
    }
    if (props->has_share) {
        backing->share = props->share;
    }
    backing->prealloc = props->has_prealloc && props->prealloc;
    backing->prealloc_threads = props->has_prealloc_threads ? props->prealloc_threads : 0;
    backing->merge = !props->has_merge || props->merge;
    backing->dump = !props->has_dump || props->dump;
    block = ram_block_new(name, props->size, backing, errp);
    if (!block) {
        return NULL;
    }
    backend = g_new0(MemoryBackend, 1);
    backend->id = g_strdup(id);
    backend->block = block;
    backend->merge = backing->merge;
    backend->dump = backing->dump;
    backend->prealloc = backing->prealloc;
    return backend;
}

static void *ram_create(const ObjectOptions *opts, Error **errp)
{
    RAMBacking backing = { .kind = RAM_BACKING_ANON };

    return backend_new(opts->id, &opts->u.memory_backend_ram, &backing, errp);
}

static void *file_create(const ObjectOptions *opts, Error **errp)
{
    const MemoryBackendFileProperties *props = &opts->u.memory_backend_file;
    RAMBacking backing = {
        .kind = RAM_BACKING_FILE,
        .path = props->mem_path,
        .offset = props->has_offset ? props->offset : 0,
        .align = props->has_align ? props->align : 0,
        .readonly = props->has_readonly && props->readonly,
    };

    return backend_new(opts->id, qapi_MemoryBackendFileProperties_base(props), &backing, errp);
}

static void *memfd_create_backend(const ObjectOptions *opts, Error **errp)
{
    const MemoryBackendMemfdProperties *props = &opts->u.memory_backend_memfd;
    RAMBacking backing = {
        .kind = RAM_BACKING_MEMFD,
        .share = true,
        .hugetlb = props->has_hugetlb && props->hugetlb,
        .hugetlbsize = props->has_hugetlbsize ? props->hugetlbsize : 0,
        .seal = !props->has_seal || props->seal,
    };

    if (props->has_hugetlbsize && !backing.hugetlb) {
        error_setg(errp, "Parameter 'hugetlbsize' needs 'hugetlb' to be on");
        return NULL;
    }
    return backend_new(opts->id, qapi_MemoryBackendMemfdProperties_base(props), &backing, errp);
}

static bool backend_in_use(void *object)
{
    MemoryBackend *backend = object;

    return backend->claimed || ram_blocks_held();
}

static void backend_destroy(void *object)
{
    MemoryBackend *backend = object;

    ram_block_free(backend->block);
    g_free(backend->id);
    g_free(backend);
}

const UserObjectClass memory_backend_ram_class = {
    .type = OBJECT_TYPE_MEMORY_BACKEND_RAM,
    .desc = "guest memory of this process alone",
    .create = ram_create,
    .in_use = backend_in_use,
    .destroy = backend_destroy,
};

const UserObjectClass memory_backend_file_class = {
    .type = OBJECT_TYPE_MEMORY_BACKEND_FILE,
    .desc = "guest memory in a file",
    .create = file_create,
    .in_use = backend_in_use,
    .destroy = backend_destroy,
};

const UserObjectClass memory_backend_memfd_class = {
    .type = OBJECT_TYPE_MEMORY_BACKEND_MEMFD,
    .desc = "guest memory in a file without a name, to be shared",
    .create = memfd_create_backend,
    .in_use = backend_in_use,
    .destroy = backend_destroy,
};

static void describe_backend(void *object, void *opaque)
{
    MemoryBackend *backend = object;
    MemdevList ***tail = opaque;
    MemdevList *element = g_new0(MemdevList, 1);
    Memdev *dev = g_new0(Memdev, 1);

    dev->id = g_strdup(backend->id);
    dev->size = backend->block->used_length;
    dev->merge = backend->merge;
    dev->dump = backend->dump;
    dev->prealloc = backend->prealloc;
    dev->share = backend->block->shared;
    dev->policy = HOST_MEM_POLICY_DEFAULT;
    element->value = dev;
    **tail = element;
    *tail = &element->next;
}

MemdevList *qmp_query_memdev(Error **errp)
{
    MemdevList *list = NULL, **tail = &list;

    for (unsigned i = 0; i < G_N_ELEMENTS(backend_types); i++) {
        objects_foreach(backend_types[i], describe_backend, &tail);
    }
    return list;
}

void qmp_object_add(ObjectOptions *opts, Error **errp)
{
    object_new(opts, errp);
}

void qmp_object_del(const char *id, Error **errp)
{
    object_delete(id, errp);
}
