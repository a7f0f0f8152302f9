/*
 * Requests to responses, and events, over the commands of tests/qapi-schema/zoo.json.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <glib.h>
#include <string.h>

#include "qapi/clone-visitor.h"
#include "qapi/dispatch.h"
#include "qapi/event.h"
#include "tests/unit/test-qapi-commands-zoo.h"
#include "tests/unit/test-qapi-events-zoo.h"
#include "tests/unit/test-qapi-init-commands.h"
#include "tests/unit/test-qapi-introspect.h"
#include "tests/unit/test-qapi-visit-zoo.h"
#include "util/keyval.h"

static QmpCommandList cmds;
static GString *calls;          /* what the handlers were called with */

/* The handlers of the zoo */

Animal *qmp_add_animal(const char *house, Animal *animal, bool has_count, int64_t count,
                       bool has_tags, strList *tags, Error **errp)
{
    g_string_append_printf(calls, "add %s to %s, count %s%" G_GINT64_FORMAT ", tags %s%zu;",
                           animal->name, house, has_count ? "" : "absent ", count,
                           has_tags ? "" : "absent ", QAPI_LIST_LENGTH(tags));
    if (strcmp(house, "full") == 0) {
        error_set(errp, ERROR_CLASS_DEVICE_NOT_FOUND, "House '%s' is full", house);
        return NULL;
    }
    return QAPI_CLONE(Animal, animal);
}

void qmp_build_house(House *arg, Error **errp)
{
    g_string_append_printf(calls, "build %s %s;", HouseKind_str(arg->kind), arg->id ?: "-");
}

AnimalList *qmp_list_animals(Error **errp)
{
    return NULL;
}

int64_t qmp_count_legs(Error **errp)
{
    return 42;
}

void qmp_close_gate(const char *name, Error **errp)
{
    g_string_append_printf(calls, "close %s;", name);
    if (strcmp(name, "stuck") == 0) {
        error_setg(errp, "Gate '%s' is stuck", name);
    }
}

void qmp_marshal_echo(struct json_object *args, struct json_object **ret, Error **errp)
{
    *ret = json_object_get(args);
}

/* Requests: single quotes stand for double ones. */

typedef struct Exchange {
    const char *request;
    const char *response;       /* NULL: none */
    const char *calls;          /* NULL: no handler that notes it */
} Exchange;

static struct json_object *parse(const char *text)
{
    g_autofree char *quoted = g_strdelimit(g_strdup(text), "'", '"');
    struct json_object *obj;

    json_parse_text(quoted, &obj, &error_abort);
    return obj;
}

static void check(const Exchange *x, bool oob, QmpCommandFilter *filter)
{
    struct json_object *request = parse(x->request);

    g_string_truncate(calls, 0);
    struct json_object *response = qmp_dispatch(&cmds, request, oob, filter, (void *)"later");
    if (x->response) {
        struct json_object *expected = parse(x->response);
        g_assert_nonnull(response);
        if (!json_object_equal(response, expected)) {
            g_test_message("%s", json_object_to_json_string(response));
            g_assert_cmpstr(json_object_to_json_string(response), ==,
                            json_object_to_json_string(expected));
        }
        json_object_put(expected);
    } else {
        g_assert_null(response);
    }
    g_assert_cmpstr(calls->str, ==, x->calls ?: "");
    json_object_put(response);
    json_object_put(request);
}

/* Quotes inside of messages are single ones, so errors are compared apart. */
static void check_error(const char *request_text, bool oob, QmpCommandFilter *filter,
                        const char *class, const char *desc)
{
    struct json_object *request = parse(request_text), *error, *value;
    struct json_object *response = qmp_dispatch(&cmds, request, oob, filter, (void *)"later");

    g_assert_true(json_object_object_get_ex(response, "error", &error));
    g_assert_false(json_object_object_get_ex(response, "return", NULL));
    g_assert_true(json_object_object_get_ex(error, "desc", &value));
    g_assert_cmpstr(json_object_get_string(value), ==, desc);
    g_assert_true(json_object_object_get_ex(error, "class", &value));
    g_assert_cmpstr(json_object_get_string(value), ==, class);
    json_object_put(response);
    json_object_put(request);
}

static void test_success(void)
{
    static const Exchange exchanges[] = {
        { "{'execute':'list-animals'}", "{'return':[]}" },
        { "{'execute':'list-animals','arguments':{}}", "{'return':[]}" },
        { "{'execute':'count-legs','id':null}", "{'return':42,'id':null}" },
        { "{'execute':'count-legs','id':{'a':[1]}}", "{'return':42,'id':{'a':[1]}}" },
        { "{'execute':'build-house','arguments':{'kind':'cage','bars':3,'id':'c'}}",
          "{'return':{}}", "build cage c;" },
        { "{'execute':'add-animal','arguments':{'house':'h','animal':{'name':'a','diet':'meat',"
          "'legs':1}}}",
          "{'return':{'name':'a','diet':'meat','legs':1}}",
          "add a to h, count absent 0, tags absent 0;" },
        { "{'execute':'add-animal','arguments':{'house':'h','animal':{'name':'a','diet':'meat',"
          "'legs':1},'count':7,'tags':['x','y']}}",
          "{'return':{'name':'a','diet':'meat','legs':1}}", "add a to h, count 7, tags 2;" },
        { "{'execute':'echo','arguments':{'value':[null,1.5]}}",
          "{'return':{'value':[null,1.5]}}" },
        { "{'execute':'close_gate','arguments':{'name':'north'},'id':1}", NULL, "close north;" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(exchanges); i++) {
        check(&exchanges[i], false, NULL);
    }
}

static void test_bad_requests(void)
{
    static const char *const cases[][2] = {
        { "null", "QMP input must be a JSON object" },
        { "[]", "QMP input must be a JSON object" },
        { "{}", "QMP input lacks member 'execute'" },
        { "{'execute':1}", "QMP input member 'execute' must be a string" },
        { "{'execute':null}", "QMP input member 'execute' must be a string" },
        { "{'execute':'count-legs\\u0000'}", "QMP input member 'execute' must be a string" },
        { "{'execute':'count-legs','arguments':[]}",
          "QMP input member 'arguments' must be an object" },
        { "{'execute':'count-legs','arguments':null}",
          "QMP input member 'arguments' must be an object" },
        { "{'execute':'count-legs','extra':1}", "QMP input member 'extra' is unexpected" },
        { "{'exec-oob':'count-legs'}", "QMP input member 'exec-oob' is unexpected" },
        { "{'execute':'count-legs','arguments':{'x':1}}", "Parameter 'x' is unexpected" },
        { "{'execute':'add-animal'}", "Parameter 'house' is missing" },
        { "{'execute':'add-animal','arguments':{'house':'h','animal':{'name':'a','diet':'meat',"
          "'legs':true}}}",
          "Invalid parameter type for 'animal.legs', expected: uint64" },
        { "{'execute':'build-house','arguments':{'kind':'cage'}}", "Parameter 'bars' is missing" },
        { "{'execute':'close_gate','arguments':{'name':'stuck'}}", "Gate 'stuck' is stuck" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        check_error(cases[i][0], false, NULL, "GenericError", cases[i][1]);
    }
    check_error("{'execute':'no-such'}", false, NULL, "CommandNotFound",
                "The command no-such has not been found");
    check_error("{'execute':'add-animal','arguments':{'house':'full','animal':{'name':'a',"
                "'diet':'meat','legs':1}}}", false, NULL, "DeviceNotFound", "House 'full' is full");
}

/* An error carries the id as well. */
static void test_error_id(void)
{
    struct json_object *request = parse("{'execute':'no-such','id':'x'}");
    struct json_object *response = qmp_dispatch(&cmds, request, false, NULL, NULL);

    g_assert_cmpstr(json_object_get_string(json_object_object_get(response, "id")), ==, "x");
    json_object_put(response);
    json_object_put(request);
}

static void test_oob(void)
{
    static const Exchange ok = {
        "{'exec-oob':'build-house','arguments':{'kind':'ruin'}}", "{'return':{}}", "build ruin -;"
    };
    struct json_object *request = parse(ok.request);

    check(&ok, true, NULL);
    g_assert_true(qmp_is_oob(request));
    json_object_put(request);
    check_error("{'exec-oob':'count-legs'}", true, NULL, "GenericError",
                "The command count-legs does not support OOB");
    request = parse("{'execute':'a','exec-oob':'b'}");
    g_assert_false(qmp_is_oob(request));
    json_object_put(request);
    check_error("{'execute':'count-legs','exec-oob':'build-house'}", true, NULL, "GenericError",
                "QMP input member 'exec-oob' clashes with 'execute'");
}

static bool only_preconfig(const QmpCommand *cmd, void *opaque, Error **errp)
{
    g_assert_cmpstr(opaque, ==, "later");
    if (cmd->options & QCO_ALLOW_PRECONFIG) {
        return true;
    }
    error_setg(errp, "The command '%s' comes too early", cmd->name);
    return false;
}

static void test_filter(void)
{
    static const Exchange ok = { "{'execute':'list-animals'}", "{'return':[]}" };

    check(&ok, false, only_preconfig);
    check_error("{'execute':'count-legs'}", false, only_preconfig, "GenericError",
                "The command 'count-legs' comes too early");
}

static void test_disable(void)
{
    static const Exchange ok = { "{'execute':'count-legs'}", "{'return':42}" };

    qmp_disable_command(&cmds, "count-legs", "legs are private");
    check_error("{'execute':'count-legs'}", false, NULL, "CommandNotFound",
                "Command count-legs has been disabled: legs are private");
    qmp_disable_command(&cmds, "count-legs", NULL);
    check_error("{'execute':'count-legs'}", false, NULL, "CommandNotFound",
                "Command count-legs has been disabled");
    qmp_enable_command(&cmds, "count-legs");
    check(&ok, false, NULL);
}

static void append_name(const QmpCommand *cmd, void *opaque)
{
    g_string_append_printf(opaque, "%s ", cmd->name);
}

static void test_list(void)
{
    g_autoptr(GString) names = g_string_new(NULL);

    qmp_for_each_command(&cmds, append_name, names);
    g_assert_cmpstr(names->str, ==,
                    "add-animal build-house list-animals count-legs close_gate echo ");
    g_assert_nonnull(qmp_find_command(&cmds, "echo"));
    g_assert_null(qmp_find_command(&cmds, "Echo"));
}

static void test_dispatch_one(void)
{
    Error *err = NULL;
    struct json_object *args = parse("{'name':'stuck'}");
    struct json_object *ret = qmp_dispatch_one(qmp_find_command(&cmds, "count-legs"), NULL,
                                               &error_abort);

    g_assert_cmpint(json_object_get_int(ret), ==, 42);
    json_object_put(ret);
    g_assert_null(qmp_dispatch_one(qmp_find_command(&cmds, "close_gate"), args, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Gate 'stuck' is stuck");
    error_free(err);
    json_object_put(args);
}

static void record_event(const char *name, struct json_object *data, void *opaque)
{
    g_string_append_printf(opaque, "%s %s;", name,
                           data ? json_object_to_json_string_ext(data, JSON_C_TO_STRING_PLAIN)
                                : "-");
    json_object_put(data);
}

static void test_events(void)
{
    g_autoptr(GString) seen = g_string_new(NULL);
    House house = { .kind = HOUSE_KIND_CAGE, .u.cage = { .bars = 9 } };

    qapi_event_send_gate_closed();      /* nobody listens: dropped */
    qapi_event_send_birth("lost", false, 0, false, 0);
    qapi_event_set_emitter(record_event, seen);
    qapi_event_send_gate_closed();
    qapi_event_send_birth("eel", true, 3, false, 0);
    qapi_event_send_birth("ape", false, 0, true, HOUSE_KIND_MEADOW);
    qapi_event_send_house_built(&house);
    qapi_event_set_emitter(NULL, NULL);
    g_assert_cmpstr(seen->str, ==,
                    "GATE_CLOSED -;"
                    "BIRTH {\"name\":\"eel\",\"weight\":3};"
                    "BIRTH {\"name\":\"ape\",\"house\":\"meadow\"};"
                    "HOUSE_BUILT {\"kind\":\"cage\",\"bars\":9};");
}

/* The schema in the program is JSON, and describes the commands that are registered. */
static void test_introspection(void)
{
    struct json_object *schema;
    size_t commands = 0;

    json_parse_text(test_qmp_schema_json, &schema, &error_abort);
    for (size_t i = 0; i < json_object_array_length(schema); i++) {
        struct json_object *info = json_object_array_get_idx(schema, i);
        const char *meta = json_object_get_string(json_object_object_get(info, "meta-type"));
        if (strcmp(meta, "command") == 0) {
            g_assert_nonnull(qmp_find_command(&cmds, json_object_get_string(
                json_object_object_get(info, "name"))));
            commands++;
        }
    }
    g_assert_cmpuint(commands, ==, 6);
    json_object_put(schema);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    calls = g_string_new(NULL);
    test_qmp_init_marshal(&cmds);
    g_test_add_func("/qapi/dispatch/success", test_success);
    g_test_add_func("/qapi/dispatch/bad-requests", test_bad_requests);
    g_test_add_func("/qapi/dispatch/error-id", test_error_id);
    g_test_add_func("/qapi/dispatch/oob", test_oob);
    g_test_add_func("/qapi/dispatch/filter", test_filter);
    g_test_add_func("/qapi/dispatch/disable", test_disable);
    g_test_add_func("/qapi/dispatch/list", test_list);
    g_test_add_func("/qapi/dispatch/one", test_dispatch_one);
    g_test_add_func("/qapi/events", test_events);
    g_test_add_func("/qapi/introspection", test_introspection);
    int ret = g_test_run();
    qmp_command_list_destroy(&cmds);
    g_string_free(calls, TRUE);
    return ret;
}
