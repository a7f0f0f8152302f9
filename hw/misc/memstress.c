/*
 * memstress: a device that dirties RAM by DMA, under any accelerator, and can say of every page of
 * its region what it must hold.
 *
 * A thread of its own writes page after page of the region, round after round
 * (memstress-pattern.h). The model of the region's contents is two numbers: the generation being
 * written and the position in its round. Pages before the position hold this generation, the others
 * the one before; in the first round the others have not been written and are not looked at. The
 * two numbers are the device's state in a migration, so the destination can check the RAM it was
 * given, page by page.
 *
 * The thread only writes while the machine runs and "running" is on; park() returns when it stands.
 * Everything that looks at the model beyond a single number parks it first. Lock order: big lock,
 * then the device's lock; the thread never takes the big lock.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>

#include "hw/devices.h"
#include "hw/misc/memstress-pattern.h"
#include "system/memory-backend.h"
#include "system/memory.h"
#include "system/runstate.h"
#include "util/mutex.h"

#define PACE_WAIT_US 5000
#define PACE_LAG_MAX_US 100000

typedef struct Memstress {
    DeviceState parent;
    /* Configuration; constant after realize but for rate. */
    char *memdev;
    uint64_t start, size, seed;
    uint64_t pages, step;

    GThread *thread;
    Mutex lock;                /* guards what follows */
    Cond cond;
    bool go, quit;              /* what the thread shall do */
    bool parked;                /* the thread stands */
    uint64_t rate;              /* pages per second, 0: no limit */
    uint64_t generation, position, index;   /* index: the page at position */
    uint64_t pages_written;

    bool running;               /* as the property was set; the big lock */
    bool machine_runs;
    bool verified;
    uint64_t verify_errors;
    char *verify_detail;        /* of the first bad page, or NULL */
} Memstress;

static uint64_t next_index(const Memstress *s, uint64_t index)
{
    index += s->step;
    return index >= s->pages ? index - s->pages : index;
}

/* Host memory of page @index; realize has made sure that it is there. */
static void *page_map(Memstress *s, uint64_t index, bool is_write)
{
    uint64_t len = TARGET_PAGE_SIZE;
    void *host = address_space_map(s->start + index * TARGET_PAGE_SIZE, &len, is_write);

    g_assert(host && len == TARGET_PAGE_SIZE);
    return host;
}

/* The thread: write the next page. */
static void write_page(Memstress *s)
{
    void *host = page_map(s, s->index, true);

    memstress_pattern_fill(host, s->seed, s->index, s->generation);
    address_space_unmap_write(host, TARGET_PAGE_SIZE);

    mutex_lock(&s->lock);
    s->pages_written++;
    s->index = next_index(s, s->index);
    if (++s->position == s->pages) {
        s->position = 0;
        s->generation++;
    }
    mutex_unlock(&s->lock);
}

/*
 * How many pages are due at @now; @begin is the time at which counting began, and @done how many
 * have been written or forgiven since: those that the thread could not keep up with.
 */
static uint64_t pages_due(uint64_t rate, int64_t now, int64_t begin, uint64_t *done)
{
    uint64_t due = (uint64_t)(((unsigned __int128)rate * (uint64_t)(now - begin)) / 1000000);
    uint64_t lag_max = rate / (1000000 / PACE_LAG_MAX_US) + 1;

    if (due - *done > lag_max) {
        *done = due - lag_max;
    }
    return due - *done;
}

static void write_batch(Memstress *s, uint64_t n)
{
    /* Looked at without the lock only to leave early; the loop looks again under it. */
    for (uint64_t i = 0; i < n && __atomic_load_n(&s->go, __ATOMIC_RELAXED); i++) {
        write_page(s);
    }
}

static void *memstress_thread(void *opaque)
{
    Memstress *s = opaque;
    int64_t begin = g_get_monotonic_time();
    uint64_t done = 0, paced_rate = 0, due;

    mutex_lock(&s->lock);
    while (!s->quit) {
        if (!s->go) {
            s->parked = true;
            cond_broadcast(&s->cond);
            cond_wait(&s->cond, &s->lock);
            begin = g_get_monotonic_time();
            done = 0;
            continue;
        }
        s->parked = false;
        if (s->rate != paced_rate) {
            paced_rate = s->rate;
            begin = g_get_monotonic_time();
            done = 0;
        }
        due = s->rate ? pages_due(s->rate, g_get_monotonic_time(), begin, &done) : 64;
        if (!due) {
            cond_wait_until(&s->cond, &s->lock, g_get_monotonic_time() + PACE_WAIT_US);
            continue;
        }
        mutex_unlock(&s->lock);
        write_batch(s, due);
        mutex_lock(&s->lock);
        done += due;
    }
    s->parked = true;
    mutex_unlock(&s->lock);
    return NULL;
}

static void set_go(Memstress *s, bool go)
{
    mutex_lock(&s->lock);
    __atomic_store_n(&s->go, go, __ATOMIC_RELAXED);
    cond_broadcast(&s->cond);
    while (!go && !s->parked) {
        cond_wait(&s->cond, &s->lock);
    }
    mutex_unlock(&s->lock);
}

/* Let the thread stand; when this returns nothing is written any more. */
static void park(Memstress *s)
{
    set_go(s, false);
}

static void go_if_wanted(Memstress *s)
{
    set_go(s, s->running && s->machine_runs);
}

static void run_state_changed(void *opaque, bool running, RunState state)
{
    Memstress *s = opaque;

    s->machine_runs = running;
    go_if_wanted(s);
}

/* ---- properties ---- */

static bool get_running(DeviceState *dev, PropertyValue *value, Error **errp)
{
    value->boolean = DEVICE_CAST(Memstress, dev)->running;
    return true;
}

static bool set_running(DeviceState *dev, const PropertyValue *value, Error **errp)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);

    s->running = value->boolean;
    if (dev->realized) {
        go_if_wanted(s);
    }
    return true;
}

static bool get_rate(DeviceState *dev, PropertyValue *value, Error **errp)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);

    mutex_lock(&s->lock);
    value->number = s->rate;
    mutex_unlock(&s->lock);
    return true;
}

static bool set_rate(DeviceState *dev, const PropertyValue *value, Error **errp)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);

    mutex_lock(&s->lock);
    s->rate = value->number;
    cond_broadcast(&s->cond);
    mutex_unlock(&s->lock);
    return true;
}

static bool get_generation(DeviceState *dev, PropertyValue *value, Error **errp)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);

    mutex_lock(&s->lock);
    value->number = s->generation;
    mutex_unlock(&s->lock);
    return true;
}

static bool get_pages_written(DeviceState *dev, PropertyValue *value, Error **errp)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);

    mutex_lock(&s->lock);
    value->number = s->pages_written;
    mutex_unlock(&s->lock);
    return true;
}

/* Whether the page at @position of the round must hold something, and of which generation. */
static uint64_t generation_at(const Memstress *s, uint64_t position)
{
    return position < s->position ? s->generation : s->generation - 1;
}

static void note_bad_page(Memstress *s, const void *page, uint64_t index, uint64_t generation)
{
    uint64_t found_index, found_generation;

    if (s->verify_errors++ == 0) {
        memstress_pattern_names(page, &found_index, &found_generation);
        s->verify_detail = g_strdup_printf(
            "page %" PRIu64 " at 0x%" PRIx64 " must be of generation %" PRIu64 "; it names page %"
            PRIu64 ", generation %" PRIu64, index, s->start + index * TARGET_PAGE_SIZE, generation,
            found_index, found_generation);
    }
}

static bool set_verify(DeviceState *dev, const PropertyValue *value, Error **errp)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);
    uint64_t index = 0;

    if (!value->boolean) {
        return true;
    }
    if (!dev->realized) {
        error_setg(errp,
                   "Property 'memstress.verify' can be set only after the device was realized");
        return false;
    }
    park(s);
    s->verified = true;
    s->verify_errors = 0;
    g_clear_pointer(&s->verify_detail, g_free);
    for (uint64_t position = 0; position < s->pages; position++, index = next_index(s, index)) {
        uint64_t generation = generation_at(s, position);
        const void *page = page_map(s, index, false);

        if (generation && !memstress_pattern_check(page, s->seed, index, generation)) {
            note_bad_page(s, page, index, generation);
        }
    }
    go_if_wanted(s);
    return true;
}

static bool get_verify(DeviceState *dev, PropertyValue *value, Error **errp)
{
    value->boolean = DEVICE_CAST(Memstress, dev)->verified;
    return true;
}

static bool get_verify_errors(DeviceState *dev, PropertyValue *value, Error **errp)
{
    value->number = DEVICE_CAST(Memstress, dev)->verify_errors;
    return true;
}

static bool get_verify_result(DeviceState *dev, PropertyValue *value, Error **errp)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);

    value->string = !s->verified ? g_strdup("not run") :
                    !s->verify_errors ? g_strdup("ok") :
                    g_strdup_printf("failed: %s", s->verify_detail);
    return true;
}

/* ---- life ---- */

static void memstress_init(DeviceState *dev)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);

    mutex_init(&s->lock);
    cond_init(&s->cond);
    s->rate = 1000;
    s->parked = true;
}

static void memstress_finalize(DeviceState *dev)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);

    mutex_destroy(&s->lock);
    cond_destroy(&s->cond);
    g_free(s->verify_detail);
}

/* Give the memory backend its place at "start"; the region is all of it. */
static bool map_memdev(Memstress *s, Error **errp)
{
    RAMBlock *block = memory_backend_claim(s->memdev, errp);

    if (!block) {
        return false;
    }
    if (s->size && s->size != block->used_length) {
        error_setg(errp,
                   "memstress: size is %" PRIu64 " bytes but memory backend '%s' has %" PRIu64,
                   s->size, s->memdev, block->used_length);
    } else if (memory_map_ram("memstress", s->start, block, 0, block->used_length, false,
                              errp) == 0) {
        s->size = block->used_length;
        return true;
    }
    memory_backend_release(s->memdev);
    return false;
}

/* Every page of the region must be RAM that can be written. */
static bool check_region(Memstress *s, Error **errp)
{
    for (uint64_t done = 0; done < s->size;) {
        uint64_t len = s->size - done;

        if (!address_space_map(s->start + done, &len, true) || len % TARGET_PAGE_SIZE) {
            error_setg(errp, "memstress: there is no writable RAM at 0x%" PRIx64, s->start + done);
            return false;
        }
        done += len;
    }
    return true;
}

static bool memstress_realize(DeviceState *dev, Error **errp)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);
    uint64_t end;

    if (s->memdev && !map_memdev(s, errp)) {
        return false;
    }
    if (!s->size || s->size % TARGET_PAGE_SIZE || s->start % TARGET_PAGE_SIZE ||
        __builtin_add_overflow(s->start, s->size, &end)) {
        error_setg(errp, "memstress: start and size must be multiples of %u, and size not 0",
                   TARGET_PAGE_SIZE);
        return false;
    }
    if (!check_region(s, errp)) {
        return false;
    }
    s->pages = s->size / TARGET_PAGE_SIZE;
    s->step = memstress_step(s->pages);
    s->generation = 1;
    s->machine_runs = runstate_is_running();
    s->thread = g_thread_new("memstress", memstress_thread, s);
    runstate_add_notifier(run_state_changed, s);
    go_if_wanted(s);
    return true;
}

static void memstress_unrealize(DeviceState *dev)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);

    runstate_remove_notifier(run_state_changed, s);
    park(s);
    mutex_lock(&s->lock);
    s->quit = true;
    cond_broadcast(&s->cond);
    mutex_unlock(&s->lock);
    g_thread_join(s->thread);
    if (s->memdev) {
        memory_backend_release(s->memdev);
    }
}

static bool memstress_may_unplug(DeviceState *dev, Error **errp)
{
    Memstress *s = DEVICE_CAST(Memstress, dev);

    if (s->memdev) {
        error_setg(errp, "Device '%s' cannot be removed: its memory backend '%s' is part of the "
                   "machine's RAM", dev->id, s->memdev);
        return false;
    }
    return true;
}

/* ---- migration ---- */

static int memstress_pre_load(void *opaque, Error **errp)
{
    park(opaque);
    return 0;
}

static int memstress_post_load(void *opaque, int version_id, Error **errp)
{
    Memstress *s = opaque;

    if (s->generation < 1 || s->position >= s->pages) {
        error_setg(errp, "memstress: generation %" PRIu64 ", position %" PRIu64 " cannot be in a "
                   "region of %" PRIu64 " pages", s->generation, s->position, s->pages);
        return -1;
    }
    s->index = (uint64_t)((unsigned __int128)s->position * s->step % s->pages);
    s->verified = false;
    go_if_wanted(s);
    return 0;
}

static const VMStateDescription vmstate_memstress = {
    .name = "memstress",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_load = memstress_pre_load,
    .post_load = memstress_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64_EQUAL(start, Memstress),
        VMSTATE_UINT64_EQUAL(size, Memstress),
        VMSTATE_UINT64(seed, Memstress),
        VMSTATE_UINT64(rate, Memstress),
        VMSTATE_BOOL(running, Memstress),
        VMSTATE_UINT64(generation, Memstress),
        VMSTATE_UINT64(position, Memstress),
        VMSTATE_UINT64(pages_written, Memstress),
        VMSTATE_END_OF_LIST() },
};

static const Property memstress_properties[] = {
    DEFINE_PROP_MEMDEV("memdev", Memstress, memdev, 0,
                       "memory backend to map at start and to write"),
    DEFINE_PROP_SIZE("start", Memstress, start, 0, 0, "guest physical address of the region"),
    DEFINE_PROP_SIZE("size", Memstress, size, 0, 0, "bytes of the region"),
    DEFINE_PROP_UINT64("seed", Memstress, seed, 1, 0, "makes contents differ"),
    DEFINE_PROP_FUNCTIONS("rate", PROP_UINT64, get_rate, set_rate, PROP_RUNTIME,
                          "pages written per second, 0: as fast as possible"),
    DEFINE_PROP_FUNCTIONS("running", PROP_BOOL, get_running, set_running, PROP_RUNTIME,
                          "write while the machine runs"),
    DEFINE_PROP_FUNCTIONS("generation", PROP_UINT64, get_generation, NULL, 0,
                          "round being written, from 1"),
    DEFINE_PROP_FUNCTIONS("pages-written", PROP_UINT64, get_pages_written, NULL, 0,
                          "pages written so far"),
    DEFINE_PROP_FUNCTIONS("verify", PROP_BOOL, get_verify, set_verify, PROP_RUNTIME,
                          "set: compare the region with what it must hold"),
    DEFINE_PROP_FUNCTIONS("verify-errors", PROP_UINT64, get_verify_errors, NULL, 0,
                          "bad pages that the last verify found"),
    DEFINE_PROP_FUNCTIONS("verify-result", PROP_STR, get_verify_result, NULL, 0,
                          "\"ok\", \"not run\", or what was wrong"),
    DEFINE_PROP_END(),
};

const DeviceClass device_memstress = {
    .name = "memstress",
    .desc = "dirties RAM by DMA and verifies it",
    .instance_size = sizeof(Memstress),
    .properties = memstress_properties,
    .user_creatable = true,
    .hotpluggable = true,
    .init = memstress_init,
    .realize = memstress_realize,
    .unrealize = memstress_unrealize,
    .may_unplug = memstress_may_unplug,
    .finalize = memstress_finalize,
    .vmsd = &vmstate_memstress,
};
