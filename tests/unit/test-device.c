/*
 * The device framework: -device, properties, names and paths, the qom commands, device_add and
 * device_del, and the small devices that have no test of their own.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "device-harness.h"
#include "qapi/qapi-commands-qdev.h"
#include "qapi/event.h"
#include "system/bql.h"
#include "system/memory.h"
#include "system/object.h"
#include "system/reset.h"
#include "util/keyval.h"

static char *last_event;

static void note_event(const char *name, struct json_object *data, void *opaque)
{
    g_free(last_event);
    last_event = g_strdup_printf("%s %s", name, data ? json_object_get_string(data) : "");
    json_object_put(data);
}

static void test_options(void)
{
    DeviceState *dev, *other;
    char *help = NULL;

    g_assert_true(device_add_text("isa-debug-exit,id=exit,iobase=0xf4,iosize=4", &help,
                                  &error_abort));
    g_assert_null(help);
    dev = device_find("exit");
    g_assert_nonnull(dev);
    g_assert_true(dev == device_find("/machine/peripheral/exit"));
    g_assert_cmpuint(harness_get_uint(dev, "iobase"), ==, 0xf4);
    g_assert_cmpuint(harness_get_uint(dev, "iosize"), ==, 4);
    g_assert_true(harness_get_bool(dev, "realized"));
    g_assert_cmpuint(port_read(0xf4, 1), ==, 0);

    g_assert_true(device_add_text("{\"driver\": \"isa-debug-exit\", \"iobase\": 1281}", &help,
                                  &error_abort));
    other = device_next(dev);
    g_assert_cmpstr(other->path, ==, "/machine/peripheral-anon/device[0]");
    g_assert_cmpuint(harness_get_uint(other, "iobase"), ==, 0x501);
    g_assert_null(device_next(other));
    device_delete_all();
    g_assert_null(device_next(NULL));
    /* The port is free again. */
    g_assert_cmphex(port_read(0xf4, 1), ==, 0xff);
}

static void test_option_errors(void)
{
    harness_device_fails("no-such", "'no-such' is not a valid device model name");
    harness_device_fails("id=x", "Parameter 'driver' is missing");
    harness_device_fails("port92",
                         "Parameter 'driver' expects a pluggable device type, not 'port92'");
    harness_device_fails("isa-debug-exit,foo=1", "Property 'isa-debug-exit.foo' not found");
    harness_device_fails("isa-debug-exit,realized=on",
                         "Property 'isa-debug-exit.realized' is read-only");
    harness_device_fails("isa-debug-exit,id=1x", "Parameter 'id' expects an identifier, not '1x'");
    harness_device_fails("isa-debug-exit,iobase=0x100000000",
                         "Property 'isa-debug-exit.iobase' doesn't take value 4294967296 "
                         "(maximum: 4294967295)");
    harness_device_fails("isa-debug-exit,iobase=65535",
                         "isa-debug-exit: ports 0xffff to 0x10000 do not exist");
    harness_device_fails("{\"driver\": \"isa-debug-exit\", \"iobase\": -1}",
                         "Property 'isa-debug-exit.iobase' doesn't take a negative value");
    harness_device_fails("{\"driver\": \"isa-debug-exit\", \"iobase\": true}",
                         "Invalid parameter type for 'iobase', expected: uint32");
    harness_device_fails("{\"driver\": \"isa-debug-exit\", \"id\": 1}",
                         "Invalid parameter type for 'id', expected: string");
    harness_device_fails("{\"driver\": \"memstress\", \"running\": 1}",
                         "Invalid parameter type for 'running', expected: bool");

    harness_device("isa-debug-exit,id=exit");
    harness_device_fails("isa-debug-exit,id=exit,iobase=0xf4", "Duplicate device ID 'exit'");
    device_delete_all();
}

static void test_help(void)
{
    char *help = NULL;
    Error *err = NULL;

    g_assert_true(device_add_text("help", &help, &error_abort));
    g_assert_nonnull(strstr(help, "name \"isa-debug-exit\", desc \""));
    g_assert_nonnull(strstr(help, "name \"memstress\", desc \""));
    g_assert_null(strstr(help, "port92"));
    g_free(help);
    g_assert_true(device_add_text("isa-debug-exit,help", &help, &error_abort));
    g_assert_true(g_str_has_prefix(help, "isa-debug-exit options:\n  iobase=<uint32>"));
    g_assert_nonnull(strstr(help, "(default: 1281)\n"));
    g_free(help);
    g_assert_false(device_add_text("no-such,help", &help, &err));
    harness_error_is(&err, "'no-such' is not a valid device model name");
    g_assert_null(device_next(NULL));
}

static void test_life_cycle(void)
{
    DeviceState *dev = device_new("isa-debug-exit", NULL, &error_abort);
    Error *err = NULL;

    g_assert_null(device_next(NULL));
    device_set_uint(dev, "iobase", 0x600, &error_abort);
    g_assert_false(device_set_bool(dev, "iobase", true, &err));
    harness_error_is(&err, "Invalid parameter type for 'iobase', expected: uint32");
    g_assert_false(device_set_str(dev, "iobase", "1", &err));
    harness_error_is(&err, "Invalid parameter type for 'iobase', expected: uint32");
    g_assert_true(device_realize(dev, &error_abort));
    g_assert_cmpstr(dev->path, ==, "/machine/unattached/device[0]");
    g_assert_false(device_set_uint(dev, "iobase", 0x700, &err));
    harness_error_is(
        &err, "Attempt to set property 'iobase' on device "
              "'/machine/unattached/device[0]' (type 'isa-debug-exit') after it was realized");

    /* A port that is taken: the second one is refused, and can be freed. */
    harness_device_fails("isa-debug-exit,iobase=0x601,iosize=1", "Cannot map 'isa-debug-exit' at "
                         "0x601-0x601: 'isa-debug-exit' is at 0x600-0x601");
    device_delete(dev);
}

static bool has(ObjectPropertyInfoList *list, const char *name, const char *type)
{
    for (; list; list = list->next) {
        if (!strcmp(list->value->name, name)) {
            g_assert_cmpstr(list->value->type, ==, type);
            return true;
        }
    }
    return false;
}

static bool listed(const char *path, const char *name, const char *type)
{
    ObjectPropertyInfoList *list = qmp_qom_list(path, &error_abort);
    bool found = has(list, name, type);

    qapi_free_ObjectPropertyInfoList(list);
    return found;
}

static void test_qom_tree(void)
{
    struct json_object *value;
    Error *err = NULL;

    harness_device("isa-debug-exit,id=exit");
    g_assert_true(listed("/", "machine", "child<machine>"));
    g_assert_true(listed("/machine", "peripheral", "child<container>"));
    g_assert_false(listed("/machine", "exit", ""));
    g_assert_true(listed("/machine/peripheral/", "exit", "child<isa-debug-exit>"));
    g_assert_true(listed("/machine/peripheral/exit", "iobase", "uint32"));
    g_assert_true(listed("exit", "realized", "bool"));

    value = qmp_qom_get("/machine/peripheral/exit", "iobase", &error_abort);
    g_assert_cmpint(json_object_get_int(value), ==, 0x501);
    json_object_put(value);
    value = qmp_qom_get("exit", "type", &error_abort);
    g_assert_cmpstr(json_object_get_string(value), ==, "isa-debug-exit");
    json_object_put(value);
    value = qmp_qom_get("/machine", "peripheral", &error_abort);
    g_assert_cmpstr(json_object_get_string(value), ==, "/machine/peripheral");
    json_object_put(value);

    g_assert_null(qmp_qom_get("exit", "colour", &err));
    harness_error_is(&err, "Property 'isa-debug-exit.colour' not found");
    g_assert_null(qmp_qom_get("/machine", "colour", &err));
    harness_error_is(&err, "Property 'machine.colour' not found");
    g_assert_null(qmp_qom_list("/machine/nowhere", &err));
    g_assert_cmpint(error_get_class(err), ==, ERROR_CLASS_DEVICE_NOT_FOUND);
    harness_error_is(&err, "Device '/machine/nowhere' not found");
    g_assert_null(qmp_qom_list("", &err));
    harness_error_is(&err, "Device '' not found");
    value = json_object_new_int(1);
    qmp_qom_set("exit", "iobase", value, &err);
    harness_error_is(&err, "Attempt to set property 'iobase' on device 'exit' (type "
                     "'isa-debug-exit') after it was realized");
    qmp_qom_set("/machine", "type", value, &err);
    harness_error_is(&err, "Property 'machine.type' is read-only");
    qmp_qom_set("/machine", "colour", value, &err);
    harness_error_is(&err, "Property 'machine.colour' not found");
    json_object_put(value);
    device_delete_all();
}

static void test_qom_objects(void)
{
    struct json_object *value;
    Error *err = NULL;

    g_assert_nonnull(object_new_from_str("memory-backend-ram,id=mem,size=64K", &error_abort));
    g_assert_true(listed("/", "objects", "child<container>"));
    g_assert_true(listed("/objects", "mem", "child<memory-backend-ram>"));
    g_assert_true(listed("/objects/mem", "size", "size"));
    g_assert_true(listed("mem", "share", "bool"));
    value = qmp_qom_get("/objects/mem", "size", &error_abort);
    g_assert_cmpint(json_object_get_int64(value), ==, 65536);
    json_object_put(value);
    value = qmp_qom_get("mem", "type", &error_abort);
    g_assert_cmpstr(json_object_get_string(value), ==, "memory-backend-ram");
    qmp_qom_set("mem", "size", value, &err);
    harness_error_is(&err, "Property 'memory-backend-ram.size' is read-only");
    json_object_put(value);
    g_assert_null(qmp_qom_get("mem", "colour", &err));
    harness_error_is(&err, "Property 'memory-backend-ram.colour' not found");
    object_delete("mem", &error_abort);
    g_assert_null(qmp_qom_list("/objects/mem", &err));
    harness_error_is(&err, "Device '/objects/mem' not found");
}

static unsigned count_types(const char *implements, bool abstract)
{
    ObjectTypeInfoList *list = qmp_qom_list_types(implements, true, abstract, &error_abort);
    unsigned n = QAPI_LIST_LENGTH(list);

    qapi_free_ObjectTypeInfoList(list);
    return n;
}

static void test_qom_types(void)
{
    ObjectPropertyInfoList *list;
    unsigned classes = 0;
    Error *err = NULL;

    while (device_classes[classes]) {
        /* In order, so that a listing can be read. */
        g_assert_true(!classes || strcmp(device_classes[classes - 1]->name,
                                         device_classes[classes]->name) < 0);
        classes++;
    }
    g_assert_cmpuint(count_types(NULL, false), ==, classes);
    g_assert_cmpuint(count_types(NULL, true), ==, classes + 2);
    g_assert_cmpuint(count_types("device", false), ==, classes);
    g_assert_cmpuint(count_types("memstress", true), ==, 1);
    g_assert_cmpuint(count_types("nothing", true), ==, 0);

    list = qmp_device_list_properties("memstress", &error_abort);
    g_assert_true(has(list, "start", "size"));
    g_assert_true(has(list, "memdev", "link<memory-backend>"));
    g_assert_false(has(list, "generation", ""));
    g_assert_cmpstr(list->value->name, ==, "memdev");
    g_assert_false(list->value->has_default_value);
    g_assert_true(list->next->value->has_default_value);
    g_assert_cmpint(json_object_get_int(list->next->value->default_value), ==, 0);
    qapi_free_ObjectPropertyInfoList(list);
    list = qmp_qom_list_properties("memstress", &error_abort);
    g_assert_true(has(list, "generation", "uint64"));
    g_assert_true(has(list, "realized", "bool"));
    qapi_free_ObjectPropertyInfoList(list);
    g_assert_null(qmp_device_list_properties("no-such", &err));
    g_assert_cmpint(error_get_class(err), ==, ERROR_CLASS_DEVICE_NOT_FOUND);
    harness_error_is(&err, "Device 'no-such' not found");
}

static void add(const char *json, Error **errp)
{
    struct json_object *args = NULL, *ret = NULL;

    json_parse_text(json, &args, &error_abort);
    qmp_marshal_device_add(args, &ret, errp);
    g_assert_null(ret);
    json_object_put(args);
}

static bool busy_check(Error **errp)
{
    error_setg(errp, "busy");
    return false;
}

static void test_hotplug(void)
{
    RAMBlock *ram = ram_block_new("ram", 1024 * TARGET_PAGE_SIZE, NULL, &error_abort);
    Error *err = NULL;

    memory_map_ram("ram", 0, ram, 0, ram->used_length, false, &error_abort);
    add("{\"driver\": \"memstress\", \"id\": \"m\", \"size\": 8192}", &error_abort);
    g_assert_true(harness_get_bool(device_find("m"), "hotplugged"));
    add("{\"driver\": \"memstress\", \"id\": \"m\", \"size\": 8192}", &err);
    harness_error_is(&err, "Duplicate device ID 'm'");
    add("{\"driver\": \"isa-debug-exit\"}", &err);
    harness_error_is(&err, "Device 'isa-debug-exit' does not support hotplugging");
    add("{\"size\": 8192}", &err);
    harness_error_is(&err, "Parameter 'driver' is missing");

    /* Instances are numbered without gaps, and numbers are used again. */
    add("{\"driver\": \"memstress\", \"id\": \"n\", \"size\": 4096}", &error_abort);
    g_assert_cmpuint(device_find("m")->instance_id, ==, 0);
    g_assert_cmpuint(device_find("n")->instance_id, ==, 1);
    qmp_device_del("m", &error_abort);
    g_assert_cmpstr(last_event, ==, "DEVICE_DELETED { \"device\": \"m\", "
                    "\"path\": \"\\/machine\\/peripheral\\/m\" }");
    g_assert_null(device_find("m"));
    add("{\"driver\": \"memstress\", \"size\": 4096}", &error_abort);
    g_assert_cmpuint(device_find("/machine/peripheral-anon/device[0]")->instance_id, ==, 0);
    qmp_device_del("/machine/peripheral-anon/device[0]", &error_abort);

    qmp_device_del("m", &err);
    g_assert_cmpint(error_get_class(err), ==, ERROR_CLASS_DEVICE_NOT_FOUND);
    harness_error_is(&err, "Device 'm' not found");
    harness_device("isa-debug-exit,id=exit");
    qmp_device_del("exit", &err);
    harness_error_is(&err, "Device 'exit' does not support hotplugging");

    /* Not while somebody says no. */
    add("{\"driver\": \"memstress\", \"id\": \"m\", \"size\": 8192}", &error_abort);
    device_set_hotplug_check(busy_check);
    add("{\"driver\": \"memstress\", \"id\": \"o\", \"size\": 8192}", &err);
    harness_error_is(&err, "busy");
    qmp_device_del("m", &err);
    harness_error_is(&err, "busy");
    g_assert_nonnull(device_find("m"));
    device_set_hotplug_check(NULL);
    device_delete_all();
}

static void global_fails(const char *text, const char *message)
{
    Error *err = NULL;

    g_assert_false(device_add_global(text, &err));
    harness_error_is(&err, message);
}

static void test_globals(void)
{
    DeviceState *dev;
    Error *err = NULL;

    global_fails("nothing", "Expected '=' after parameter 'nothing'");
    global_fails("driver=memstress,property=size", "'driver=memstress,property=size' is neither "
                 "DRIVER.PROPERTY=VALUE nor driver=DRIVER,property=PROPERTY,value=VALUE");
    global_fails("none.size=1", "'none' is not a valid device model name");
    global_fails("memstress.sise=1", "Property 'memstress.sise' not found");
    device_add_global("isa-debug-exit.iobase=0x700", &error_abort);
    device_add_global("driver=isa-debug-exit,property=iobase,value=0x710", &error_abort);
    device_add_global("virtio-blk.serial=a.b=c", &error_abort);
    dev = harness_device("isa-debug-exit,id=a");
    g_assert_cmphex(harness_get_uint(dev, "iobase"), ==, 0x710);
    dev = harness_device("isa-debug-exit,id=b,iobase=0x720");
    g_assert_cmphex(harness_get_uint(dev, "iobase"), ==, 0x720);
    dev = device_new("virtio-blk-device", NULL, &error_abort);
    {
        g_autofree char *serial = harness_get_str(dev, "serial");

        g_assert_cmpstr(serial, ==, "a.b=c");
    }
    device_delete(dev);
    device_add_global("memstress.size=many", &error_abort);
    g_assert_null(device_new("memstress", NULL, &err));
    g_assert_nonnull(strstr(error_get_pretty(err), "-global memstress.size=many: "));
    error_free(err);
    device_delete_all();
    device_forget_globals();
    device_delete(device_new("memstress", NULL, &error_abort));
}

static void test_ports(void)
{
    DeviceState *port92 = device_new("port92", NULL, &error_abort);
    DeviceState *control = device_new("reset-control", NULL, &error_abort);
    g_autoptr(GBytes) state = NULL;

    device_realize(port92, &error_abort);
    device_realize(control, &error_abort);
    g_assert_cmphex(port_read(0x92, 1), ==, 0x02);
    port_write(0x92, 0x00, 1);
    g_assert_cmphex(port_read(0x92, 1), ==, 0x00);
    port_write(0xcf9, 0x0a, 1);
    g_assert_cmphex(port_read(0xcf9, 1), ==, 0x0a);
    state = harness_save(control);
    reset_run();
    g_assert_cmphex(port_read(0x92, 1), ==, 0x02);
    g_assert_cmphex(port_read(0xcf9, 1), ==, 0x00);
    g_assert_cmpint(harness_load(control, state, &error_abort), ==, 0);
    g_assert_cmphex(port_read(0xcf9, 1), ==, 0x0a);
    device_delete_all();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bql_lock();
    qapi_event_set_emitter(note_event, NULL);
    g_test_add_func("/device/options", test_options);
    g_test_add_func("/device/option-errors", test_option_errors);
    g_test_add_func("/device/help", test_help);
    g_test_add_func("/device/life-cycle", test_life_cycle);
    g_test_add_func("/device/qom-tree", test_qom_tree);
    g_test_add_func("/device/qom-objects", test_qom_objects);
    g_test_add_func("/device/qom-types", test_qom_types);
    g_test_add_func("/device/hotplug", test_hotplug);
    g_test_add_func("/device/globals", test_globals);
    g_test_add_func("/device/ports", test_ports);
    return g_test_run();
}
