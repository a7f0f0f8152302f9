/*
 * The machine as ACPI describes it: processors, serial ports, the clock, and the virtio slots that
 * are in use. The DSDT lists what is there when the machine is built; nothing of that comes or goes
 * later.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/acpi/aml.h"
#include "hw/acpi/sleep.h"
#include "hw/acpi/tables.h"
#include "hw/device.h"
#include "hw/virtio/virtio-mmio.h"
#include "hw/x86/boot.h"

#define RESET_PORT 0xcf9
#define RESET_VALUE 0x06                /* a hard reset, now */
#define SERIAL_PORTS 8
#define STATUS_PRESENT 0xf              /* present, enabled, shown, working */

static void add_processors(GByteArray *scope, unsigned cpus)
{
    for (unsigned i = 0; i < cpus; i++) {
        GByteArray *dev = g_byte_array_new();
        g_autofree char *name = g_strdup_printf("C%03X", i);

        aml_name_string(dev, "_HID", "ACPI0007");
        aml_name_integer(dev, "_UID", i);
        aml_device(scope, name, dev);
    }
}

/* A number among the properties of a device of the board. */
static unsigned get_number(DeviceState *dev, const char *property)
{
    struct json_object *value = device_get_json(dev, property, &error_abort);
    unsigned number = json_object_get_uint64(value);

    json_object_put(value);
    return number;
}

static void add_serial_ports(GByteArray *scope)
{
    unsigned n = 0;

    for (DeviceState *dev = device_next(NULL); dev; dev = device_next(dev)) {
        GByteArray *aml, *crs;
        g_autofree char *name = g_strdup_printf("COM%u", n + 1);

        if (g_strcmp0(dev->klass->name, "isa-serial")) {
            continue;
        }
        aml = g_byte_array_new();
        crs = g_byte_array_new();
        aml_name_eisaid(aml, "_HID", "PNP0501");
        aml_name_integer(aml, "_UID", n + 1);
        aml_name_integer(aml, "_STA", STATUS_PRESENT);
        aml_resource_io(crs, get_number(dev, "iobase"), SERIAL_PORTS);
        aml_resource_irq(crs, get_number(dev, "irq"));
        aml_name_resources(aml, "_CRS", crs);
        aml_device(scope, name, aml);
        n++;
    }
}

static void add_clock(GByteArray *scope)
{
    GByteArray *dev = g_byte_array_new(), *crs = g_byte_array_new();

    aml_name_eisaid(dev, "_HID", "PNP0B00");
    aml_resource_io(crs, 0x70, 2);
    aml_name_resources(dev, "_CRS", crs);
    aml_device(scope, "RTC_", dev);
}

static void add_virtio_slots(GByteArray *scope)
{
    uint32_t base;
    unsigned gsi;

    for (unsigned slot = 0; slot < VIRTIO_MMIO_SLOTS; slot++) {
        GByteArray *dev, *crs;
        g_autofree char *name = g_strdup_printf("VR%02X", slot);

        if (!virtio_mmio_slot(slot, &base, &gsi)) {
            continue;
        }
        dev = g_byte_array_new();
        crs = g_byte_array_new();
        aml_name_string(dev, "_HID", "LNRO0005");
        aml_name_integer(dev, "_UID", slot);
        aml_name_integer(dev, "_STA", STATUS_PRESENT);
        aml_name_integer(dev, "_CCA", 1);
        aml_resource_memory(crs, base, VIRTIO_MMIO_SLOT_BYTES);
        aml_resource_interrupt(crs, gsi);
        aml_name_resources(dev, "_CRS", crs);
        aml_device(scope, name, dev);
    }
}

GBytes *boot_acpi_tables(unsigned cpus, uint64_t gpa)
{
    static const uint64_t s5[] = { ACPI_SLEEP_TYPE_S5, ACPI_SLEEP_TYPE_S5, 0, 0 };
    const AcpiConfig config = {
        .cpus = cpus, .local_apic = BOOT_LOCAL_APIC, .io_apic = BOOT_IO_APIC, .io_apic_id = cpus,
        .sleep_control_port = ACPI_SLEEP_CONTROL_PORT, .sleep_status_port = ACPI_SLEEP_STATUS_PORT,
        .reset_port = RESET_PORT, .reset_value = RESET_VALUE,
    };
    GByteArray *dsdt = g_byte_array_new(), *scope = g_byte_array_new();

    add_processors(scope, cpus);
    add_serial_ports(scope);
    add_clock(scope);
    add_virtio_slots(scope);
    aml_scope(dsdt, "\\_SB_", scope);
    aml_name_package(dsdt, "\\_S5_", s5, G_N_ELEMENTS(s5));
    return acpi_build_tables(&config, gpa, dsdt);
}
