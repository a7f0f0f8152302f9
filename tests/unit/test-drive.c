/*
 * -drive: what each text becomes, and what is wrong with those that become nothing.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "block/drive.h"

#include <json-c/json.h>

#include "qapi/json-output-visitor.h"
#include "qapi/qapi-visit-block-core.h"

static char *as_json(BlockdevOptions *opts)
{
    struct json_object *obj = NULL;
    Visitor *v = json_output_visitor_new(&obj);
    char *text;

    visit_type_BlockdevOptions(v, NULL, &opts, &error_abort);
    visit_complete(v, &obj);
    visit_free(v);
    text = g_strdup(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_NOSLASHESCAPE));
    g_strdelimit(text, "\"", '\'');
    json_object_put(obj);
    return text;
}

static void test_node(void)
{
    static const struct {
        const char *text, *json;
    } cases[] = {
        { "file=/d/a,format=raw", "{'driver':'raw','file':{'driver':'file','filename':'/d/a'}}" },
        { "format=qcow2,file=a,,b=c",
          "{'driver':'qcow2','file':{'driver':'file','filename':'a,b=c'}}" },
        { "driver=raw,file=a", "{'driver':'raw','file':{'driver':'file','filename':'a'}}" },
        { "driver=raw,file.filename=a",
          "{'driver':'raw','file':{'driver':'file','filename':'a'}}" },
        { "file=a,format=raw,discard=on",
          "{'driver':'raw','discard':'unmap','file':{'driver':'file','filename':'a'}}" },
        { "file=a,format=raw,discard=off",
          "{'driver':'raw','discard':'ignore','file':{'driver':'file','filename':'a'}}" },
        { "file=a,format=raw,node-name=n,read-only=on,discard=unmap,detect-zeroes=unmap",
          "{'driver':'raw','node-name':'n','discard':'unmap','read-only':true,'detect-zeroes':'"
          "unmap',"
          "'file':{'driver':'file','filename':'a'}}" },
        { "file=a,format=raw,readonly=on,auto-read-only=on",
          "{'driver':'raw','read-only':true,'auto-read-only':true,"
          "'file':{'driver':'file','filename':'a'}}" },
        { "file=a,format=raw,cache=none",
          "{'driver':'raw','cache':{'direct':true,'no-flush':false},"
          "'file':{'driver':'file','filename':'a'}}" },
        { "file=a,format=raw,cache=unsafe",
          "{'driver':'raw','cache':{'direct':false,'no-flush':true},"
          "'file':{'driver':'file','filename':'a'}}" },
        { "file=a,format=raw,cache.direct=on,cache.writeback=off",
          "{'driver':'raw','cache':{'direct':true},'file':{'driver':'file','filename':'a'}}" },
        { "file=a,file.locking=off,format=raw,aio=native",
          "{'driver':'raw','file':{'driver':'file','filename':'a','locking':'off','aio':'native'}"
          "}" },
        { "file.locking=off,file=a,format=file,aio=threads", NULL },
        { "file=a,format=file,aio=threads", "{'driver':'file','filename':'a','aio':'threads'}" },
        { "file.driver=file,file.filename=x,format=raw,offset=4k",
          "{'driver':'raw','file':{'driver':'file','filename':'x'},'offset':4096}" },
        { "format=raw,file=node", "{'driver':'raw','file':{'driver':'file','filename':'node'}}" },
        { "file=a,format=qcow2,lazy-refcounts=on,cache-size=1M,file.read-only=on",
          "{'driver':'qcow2','file':{'driver':'file','read-only':true,'filename':'a'},"
          "'lazy-refcounts':true,'cache-size':1048576}" },
        { "file=a,format=qcow2,backing.driver=raw,backing.file.driver=file,backing.file.filename=b",
          "{'driver':'qcow2','file':{'driver':'file','filename':'a'},"
          "'backing':{'driver':'raw','file':{'driver':'file','filename':'b'}}}" },
        { "file=a,format=qcow2,copy-on-read=on,node-name=n",
          "{'driver':'copy-on-read','file':{'driver':'qcow2','node-name':'n',"
          "'file':{'driver':'file','filename':'a'}}}" },
        { "file=nbd:unix:/s:exportname=e,format=raw",
          "{'driver':'raw','file':{'driver':'nbd','server':{'type':'unix','path':'/"
          "s'},'export':'e'}}" },
        { "file=null-co://,format=raw,file.size=1M",
          "{'driver':'raw','file':{'driver':'null-co','size':1048576}}" },
        { "file=json:{\"driver\":\"null-co\",,\"read-zeroes\":true},node-name=n",
          "{'driver':'null-co','node-name':'n','read-zeroes':true}" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Error *err = NULL;
        DriveOptions *drive = drive_options_parse(cases[i].text, &err);
        g_autofree char *json = drive ? as_json(drive->opts) : NULL;

        if (!json && cases[i].json) {
            g_error("%s: %s", cases[i].text, error_get_pretty(err));
        }
        g_assert_cmpstr(json, ==, cases[i].json);
        error_free(err);
        drive_options_free(drive);
    }
}

static void test_drive(void)
{
    g_autoptr(DriveOptions) d = drive_options_parse("file=a,format=raw", &error_abort);
    g_autoptr(DriveOptions) all =
        drive_options_parse("file=a,format=raw,id=x,if=none,index=7,media=disk,cache=directsync,"
                            "werror=stop,rerror=ignore,"
                            "snapshot=off",
                            &error_abort);
    g_autoptr(DriveOptions) cache = drive_options_parse("file=a,format=raw,cache.writeback=off",
                                                        &error_abort);

    g_assert_null(d->id);
    g_assert_cmpint(d->interface, ==, DRIVE_IF_VIRTIO);
    g_assert_false(d->has_index || d->writethrough);
    g_assert_cmpint(d->on_read_error, ==, BLOCKDEV_ON_ERROR_REPORT);
    g_assert_cmpint(d->on_write_error, ==, BLOCKDEV_ON_ERROR_ENOSPC);
    g_assert_cmpstr(all->id, ==, "x");
    g_assert_cmpint(all->interface, ==, DRIVE_IF_NONE);
    g_assert_true(all->has_index && all->writethrough);
    g_assert_cmpuint(all->index, ==, 7);
    g_assert_cmpint(all->on_read_error, ==, BLOCKDEV_ON_ERROR_IGNORE);
    g_assert_cmpint(all->on_write_error, ==, BLOCKDEV_ON_ERROR_STOP);
    g_assert_true(cache->writethrough);
}

static void test_errors(void)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        { "file=a",
          "Parameter 'format' is missing: write format=raw, format=qcow2 or another; it is not "
          "guessed, as a guest could have written what is guessed from" },
        { "format=raw", "Parameter 'file' is missing" },
        { "id=x", "Parameter 'format' is missing" },
        { "file=a,format=vmdk", "Unknown driver 'vmdk'" },
        { "file=a,format=raw,driver=raw", "'driver' and 'format' can't be used at the same time" },
        { "file=a,format=raw,if=ide", "unsupported bus type 'ide'; there are virtio and none" },
        { "file=a,format=raw,media=cdrom",
          "'cdrom' invalid media; there are only disks (media=disk)" },
        { "file=a,format=raw,index=x", "Parameter 'index': 'x' is not a number" },
        { "file=a,format=raw,cache=maybe", "invalid cache option 'maybe'" },
        { "file=a,format=raw,aio=dma", "Parameter 'file.aio' does not accept value 'dma'" },
        { "file=a,format=raw,werror=panic", "'panic' invalid write error action" },
        { "file=a,format=raw,rerror=enospc", "'enospc' invalid read error action" },
        { "file=a,format=raw,snapshot=on",
          "snapshot=on is not supported: make an overlay with 'ferry-img create -b'" },
        { "file=a,format=raw,throttling.iops-total=1",
          "Property 'throttling' is not supported: limits are an object throttle-group and a node "
          "with "
          "driver=throttle" },
        { "file=a,format=raw,bps=1",
          "Property 'bps' is not supported: limits are an object throttle-group and a node with "
          "driver=throttle" },
        { "file=a,format=raw,serial=1", "Parameter 'serial' is unexpected" },
        { "file=a,format=raw,file.size=1", "Parameter 'file.size' is unexpected" },
        { "file=a,format=raw,readonly=on,read-only=on",
          "'read-only' and its alias 'readonly' can't be used at the same time" },
        { "file=a,format=raw,copy-on-read=on,read-only=on",
          "copy-on-read needs a drive that can be written" },
        { "file=a,format=raw,discard=yes", "Parameter 'discard' does not accept value 'yes'" },
        { "file=floppy:a,format=raw",
          "Unknown protocol 'floppy' in 'floppy:a' (for a file with a colon in its "
          "name write file:floppy:a)" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Error *err = NULL;

        g_assert_null(drive_options_parse(cases[i].text, &err));
        g_assert_nonnull(err);
        if (!g_str_has_prefix(error_get_pretty(err), cases[i].message)) {
            g_error("%s: \"%s\" is not \"%s\"", cases[i].text, error_get_pretty(err),
                    cases[i].message);
        }
        error_free(err);
    }
}

static BlockBackend *make(const char *text, Error **errp)
{
    g_autoptr(DriveOptions) drive = drive_options_parse(text, &error_abort);

    return drive_new(drive, errp);
}

static void expect_error(Error **err, const char *message)
{
    g_assert_nonnull(*err);
    g_assert_cmpstr(error_get_pretty(*err), ==, message);
    error_free(g_steal_pointer(err));
}

static void test_new(void)
{
    BlockBackend *first =
        make("file=null-co://,format=raw,cache=writethrough,werror=ignore", &error_abort);
    BlockBackend *second = make("file=null-co://,format=raw,if=none,node-name=n", &error_abort);
    BlockBackend *third = make("file=null-co://,format=raw", &error_abort);
    BlockBackend *fifth = make("file=null-co://,format=raw,index=4", &error_abort);
    Error *err = NULL;

    g_assert_cmpstr(blk_name(first), ==, "virtio0");
    g_assert_cmpstr(blk_name(second), ==, "none0");
    g_assert_cmpstr(blk_name(third), ==, "virtio1");
    g_assert_cmpstr(blk_name(fifth), ==, "virtio4");
    g_assert_false(blk_enable_write_cache(first));
    g_assert_true(blk_enable_write_cache(second));
    g_assert_cmpint(blk_get_on_error(first, false), ==, BLOCKDEV_ON_ERROR_IGNORE);
    g_assert_true(bdrv_find_node("n") == blk_bs(second));

    g_assert_null(make("file=null-co://,format=raw,index=4", &err));
    expect_error(&err, "drive with if=virtio, index=4 exists");
    g_assert_null(make("file=null-co://,format=raw,id=virtio0", &err));
    expect_error(&err, "Device with id 'virtio0' already exists");
    g_assert_null(make("file=null-co://,format=raw,id=n", &err));
    expect_error(&err, "Device name 'n' conflicts with an existing node name");
    g_assert_null(make("file=null-co://,format=raw,id=1", &err));
    expect_error(&err, "Invalid device name '1'");
    g_assert_null(make("file=null-co://,format=raw,node-name=virtio0", &err));
    expect_error(&err, "node-name=virtio0 is conflicting with a device id");
    g_assert_null(make("file=/does/not/exist,format=raw", &err));
    expect_error(&err, "Could not open '/does/not/exist': No such file or directory");
    bdrv_close_all();
    g_assert_null(bdrv_next_node(NULL));
    g_assert_null(blk_all_next(NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/drive/node", test_node);
    g_test_add_func("/drive/drive", test_drive);
    g_test_add_func("/drive/errors", test_errors);
    g_test_add_func("/drive/new", test_new);
    return g_test_run();
}
