/*
 * Devices: a class is a constant table, a device is an instance of it with properties.
 *
 * A device's life: device_new() makes it with every property at its default; properties are set;
 * device_realize() connects it to the machine, after which only properties marked PROP_RUNTIME can
 * be set; device_delete() undoes all of it. A new kind of device is one file with one DeviceClass
 * and one line in hw/devices.c.
 *
 * Names: a device that was given an id is /machine/peripheral/ID; one that a person created without
 * is /machine/peripheral-anon/device[N]; what the board itself made is
 * /machine/unattached/device[N].
 *
 * Everything here is called under the big lock.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef HW_DEVICE_H
#define HW_DEVICE_H

#include <glib.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migration/vmstate.h"
#include "util/error.h"

typedef struct DeviceClass DeviceClass;
typedef struct DeviceState DeviceState;

typedef enum PropertyType {
    PROP_BOOL,
    PROP_UINT8,
    PROP_UINT16,
    PROP_UINT32,
    PROP_UINT64,
    PROP_SIZE,                  /* uint64_t, written with a suffix if one likes */
    PROP_STR,                   /* char *, owned by the device, NULL when not set */
    PROP_CHARDEV,               /* char *, the id of a character device */
    PROP_MEMDEV,                /* char *, the id of a memory backend */
    PROP_DRIVE,                 /* char *, the id of a -drive or the name of a block node */
    PROP_IOTHREAD,              /* char *, the id of an iothread */
} PropertyType;

/* A value on its way in or out; the member that goes with the property's type. */
typedef struct PropertyValue {
    bool boolean;
    uint64_t number;
    char *string;               /* set(): borrowed; get(): newly allocated, or NULL for "" */
} PropertyValue;

typedef enum PropertyFlags {
    PROP_RUNTIME = 1 << 0,      /* may be set after realize too */
    PROP_READ_ONLY = 1 << 1,    /* may never be set; goes without saying with get and no set */
    PROP_REQUIRED = 1 << 2,     /* a string that must be set before realize */
} PropertyFlags;

typedef struct Property {
    const char *name;
    const char *desc;
    PropertyType type;
    unsigned flags;
    size_t offset;              /* of the value in the instance; used where get or set is NULL */
    uint64_t default_number;    /* also of a bool; strings start as NULL */
    /* For values that are not simply a member, and for actions. False with @errp set on failure. */
    bool (*get)(DeviceState *dev, PropertyValue *value, Error **errp);
    bool (*set)(DeviceState *dev, const PropertyValue *value, Error **errp);
} Property;

#define DEFINE_PROP(name_, state_, field_, ctype_, type_, def_, flags_, desc_)       \
    {                                                                                \
        .name = (name_), .desc = (desc_), .type = (type_), .default_number = (def_), \
        .flags = (flags_),                                                           \
        .offset = offsetof(state_, field_) + VMSTATE_CHECK(ctype_, field_, state_)   \
    }
#define DEFINE_PROP_BOOL(n, s, f, def, flags, desc) \
    DEFINE_PROP(n, s, f, bool, PROP_BOOL, def, flags, desc)
#define DEFINE_PROP_UINT8(n, s, f, def, flags, desc) \
    DEFINE_PROP(n, s, f, uint8_t, PROP_UINT8, def, flags, desc)
#define DEFINE_PROP_UINT16(n, s, f, def, flags, desc) \
    DEFINE_PROP(n, s, f, uint16_t, PROP_UINT16, def, flags, desc)
#define DEFINE_PROP_UINT32(n, s, f, def, flags, desc) \
    DEFINE_PROP(n, s, f, uint32_t, PROP_UINT32, def, flags, desc)
#define DEFINE_PROP_UINT64(n, s, f, def, flags, desc) \
    DEFINE_PROP(n, s, f, uint64_t, PROP_UINT64, def, flags, desc)
#define DEFINE_PROP_SIZE(n, s, f, def, flags, desc) \
    DEFINE_PROP(n, s, f, uint64_t, PROP_SIZE, def, flags, desc)
#define DEFINE_PROP_STR(n, s, f, flags, desc) \
    DEFINE_PROP(n, s, f, char *, PROP_STR, 0, flags, desc)
#define DEFINE_PROP_CHARDEV(n, s, f, flags, desc) \
    DEFINE_PROP(n, s, f, char *, PROP_CHARDEV, 0, flags, desc)
#define DEFINE_PROP_MEMDEV(n, s, f, flags, desc) \
    DEFINE_PROP(n, s, f, char *, PROP_MEMDEV, 0, flags, desc)
#define DEFINE_PROP_DRIVE(n, s, f, flags, desc) \
    DEFINE_PROP(n, s, f, char *, PROP_DRIVE, 0, flags, desc)
#define DEFINE_PROP_IOTHREAD(n, s, f, flags, desc) \
    DEFINE_PROP(n, s, f, char *, PROP_IOTHREAD, 0, flags, desc)
/* A property behind functions; @set_ NULL makes it read-only. */
#define DEFINE_PROP_FUNCTIONS(name_, type_, get_, set_, flags_, desc_) { \
    .name = (name_), .desc = (desc_), .type = (type_), .get = (get_), .set = (set_), \
    .flags = (flags_) }
#define DEFINE_PROP_END() { .name = NULL }

struct DeviceClass {
    const char *name;           /* "isa-serial" */
    const char *alias;          /* another name by which it can be asked for, or NULL */
    const char *desc;
    size_t instance_size;       /* the instance struct begins with a DeviceState */
    const Property *properties; /* ends with DEFINE_PROP_END(); NULL: none */
    bool user_creatable;        /* -device and device_add may make one */
    bool hotpluggable;          /* device_add and device_del work on a running machine */
    /* What properties cannot express; may be NULL. */
    void (*init)(DeviceState *dev);
    /* Map ports, take what the properties name. On failure undo what was done. NULL: nothing. */
    bool (*realize)(DeviceState *dev, Error **errp);
    /* The reverse. NULL when there is nothing to undo. */
    void (*unrealize)(DeviceState *dev);
    /* Whether device_del may remove it now; NULL: always, when the class is hotpluggable. */
    bool (*may_unplug)(DeviceState *dev, Error **errp);
    /* Frees what init() made; strings of properties are freed by the framework. */
    void (*finalize)(DeviceState *dev);
    /* Power-on state; called at the end of realize too, and at each machine reset. */
    void (*reset)(DeviceState *dev);
    /* Registered at realize, with the instance struct as opaque; NULL: no state. */
    const VMStateDescription *vmsd;
};

struct DeviceState {
    const DeviceClass *klass;
    char *id;                   /* NULL for devices without one */
    char *path;                 /* "/machine/...", from realize on */
    bool user_created;
    bool hotplugged;
    bool realized;
    uint32_t instance_id;       /* of its section in the stream */
    unsigned anonymous_index;   /* the N of device[N] */
};

/* The instance of a device whose struct has the DeviceState @member_ first. */
#define DEVICE_CAST(type_, dev_) ((type_ *)(dev_))

/* hw/devices.c: all classes, NULL-terminated, in alphabetical order of name. */
extern const DeviceClass *const device_classes[];
/* By name or alias; NULL when there is no such class. */
const DeviceClass *device_class_find(const char *name);

/*
 * device_new:
 * @name: of the class
 * @id: NULL, or a well-formed id that no other device has
 *
 * Returns: a device that is not realized, or NULL with @errp set. The caller owns it until
 * device_realize() succeeded; from then on the machine does.
 */
DeviceState *device_new(const char *name, const char *id, Error **errp);

/*
 * Connect @dev to the machine; checks required properties, registers vmstate and reset handler, and
 * resets it. On failure the device is as before and still the caller's, to free by device_delete().
 */
bool device_realize(DeviceState *dev, Error **errp);
/* Disconnect and free @dev, realized or not. NULL is allowed. */
void device_delete(DeviceState *dev);
/* Delete every realized device, the youngest first: at the end of the process and in tests. */
void device_delete_all(void);

/* Realized devices, in order of realize: NULL starts, NULL ends. */
DeviceState *device_next(const DeviceState *after);
/* The realized device with that id, or with that path (anything that begins with '/'), or NULL. */
DeviceState *device_find(const char *id_or_path);

/*
 * Properties. The setters fail, naming device and property, when there is no such property, when
 * the value is out of range or of the wrong type, and when the property cannot be set (any more).
 */
bool device_set_bool(DeviceState *dev, const char *name, bool value, Error **errp);
bool device_set_uint(DeviceState *dev, const char *name, uint64_t value, Error **errp);
bool device_set_str(DeviceState *dev, const char *name, const char *value, Error **errp);
/* From text as people write it: "on", "0x501", "64M". */
bool device_set_text(DeviceState *dev, const char *name, const char *text, Error **errp);
/* From a JSON value of the type that goes with the property; a string is read as text. */
bool device_set_json(DeviceState *dev, const char *name, struct json_object *value, Error **errp);
/* The value as JSON, the caller's; NULL with @errp set. */
struct json_object *device_get_json(DeviceState *dev, const char *name, Error **errp);

/* The property of that name, or NULL; all devices have those of device_common_properties too. */
const Property *device_class_property(const DeviceClass *klass, const char *name);
/* "realized", "hotplugged", "type": what every device has. */
extern const Property device_common_properties[];
/* Whether it can never be set. */
bool property_is_read_only(const Property *prop);
/* Whether its values are strings. */
bool property_is_string(const Property *prop);
/* The name of the type as QMP shows it: "bool", "uint32", "link<memory-backend>". */
const char *property_type_name(PropertyType type);
/* "memstress options:" and a line for each property, or the list of classes. g_free() it. */
char *device_class_help(const DeviceClass *klass);
char *device_classes_help(void);

/*
 * Ask @check before a device is added to or removed from a machine that has been built: it returns
 * false with @errp set while that must not be (a migration has the list of sections in its hands).
 */
void device_set_hotplug_check(bool (*check)(Error **errp));
/* What it says; true without one. */
bool device_hotplug_allowed(Error **errp);

/*
 * device_add:
 * @options: "driver", optionally "id", and properties; borrowed
 * @hotplug: the machine has been built already
 *
 * Make and realize the device that the options describe.
 *
 * Returns: the device, owned by the machine, or NULL with @errp set and nothing changed.
 */
DeviceState *device_add(struct json_object *options, bool hotplug, Error **errp);

/*
 * The command line's -device: "NAME,prop=value,..." or a JSON object. @help: set to a text to print
 * when help was asked for ("help", "NAME,help"); nothing is created then. g_free() it.
 *
 * Returns: false with @errp set on failure.
 */
bool device_add_text(const char *text, char **help, Error **errp);

/*
 * -global "DRIVER.PROPERTY=VALUE" or "driver=DRIVER,property=PROPERTY,value=VALUE": device_new()
 * gives every device of that class the property, before anybody else sets any.
 *
 * Returns: false with @errp set when there is no such class or property; a wrong value is
 * device_new()'s error.
 */
bool device_add_global(const char *text, Error **errp);
/* At the end of the process and in tests. */
void device_forget_globals(void);
/* device_new()'s. */
bool device_apply_globals(DeviceState *dev, Error **errp);

/*
 * Store @value, already checked, in the field of @prop, which has neither get() nor set(). Strings
 * are copied; what the field held is freed. For device.c and device-property.c.
 */
void device_store_property(DeviceState *dev, const Property *prop, const PropertyValue *value);

#endif
