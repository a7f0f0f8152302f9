/*
 * The board has no firmware, so booting is the board's work: it reads kernel and initrd once, keeps
 * them, and writes them into guest memory at every reset. While an incoming migration is awaited it
 * does not: RAM comes from the other side, and what is written here might come after it.
 *
 *    0                    RAM, up to 3 GiB
 *    3 GiB                nothing (interrupt controllers near the top)
 *    4 GiB                the rest of RAM
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>
#include "block/block-backend.h"
#include "hw/device.h"
#include "hw/virtio/virtio-mmio.h"
#include "hw/x86/boot.h"
#include "hw/x86/vmstate.h"
#include "hw/x86/microvm.h"
#include "io/fd-resolver.h"
#include "system/accel.h"
#include "system/cpus.h"
#include "system/memory.h"
#include "system/reset.h"
#include "system/runstate.h"

#define GIB (1024ull * 1024 * 1024)
#define MIB (1024ull * 1024)
#define BELOW_4G_MAX 0xc0000000ull
#define RAM_MIN (2 * MIB)
#define BOOT_SECTOR_BYTES 512

/*
 * First of the interrupt lines of virtio devices: where ACPI tells of them, and where nobody does.
 */
#define VIRTIO_IRQ_BASE_ACPI 16
#define VIRTIO_IRQ_BASE_ISA 5

typedef struct MicrovmBoot {
    const Machine *machine;
    BootImage *image;           /* NULL: nothing to boot, the processor starts as reset leaves it */
    GBytes *mp_table;
    GBytes *acpi_tables;        /* NULL: none */
} MicrovmBoot;

static uint64_t below_4g(const Machine *machine)
{
    return MIN(machine->ram_bytes, BELOW_4G_MAX);
}

/* A device without an id that belongs to the board. */
static int add_device(const char *name, Error **errp)
{
    DeviceState *dev = device_new(name, NULL, errp);

    if (!dev) {
        return -1;
    }
    if (!device_realize(dev, errp)) {
        device_delete(dev);
        return -1;
    }
    return 0;
}

static int add_clock(const Machine *machine, Error **errp)
{
    DeviceState *dev = device_new("mc146818rtc", NULL, errp);

    if (!dev) {
        return -1;
    }
    if (!device_set_uint(dev, "ram-below-4g", below_4g(machine), errp) ||
        !device_set_uint(dev, "ram-above-4g", machine->ram_bytes - below_4g(machine), errp) ||
        !device_set_uint(dev, "cpus", machine->cpus, errp) || !device_realize(dev, errp)) {
        device_delete(dev);
        return -1;
    }
    return 0;
}

static unsigned virtio_irq_base(const Machine *machine)
{
    return machine->acpi ? VIRTIO_IRQ_BASE_ACPI : VIRTIO_IRQ_BASE_ISA;
}

static int add_virtio_slots(const Machine *machine, Error **errp)
{
    DeviceState *dev = device_new("virtio-mmio", NULL, errp);

    if (!dev) {
        return -1;
    }
    if (!device_set_uint(dev, "irq-base", virtio_irq_base(machine), errp) ||
        !device_realize(dev, errp)) {
        device_delete(dev);
        return -1;
    }
    return 0;
}

static int microvm_init(Machine *machine, Error **errp)
{
    uint64_t low = below_4g(machine), high = machine->ram_bytes - low;

    if (machine->ram_bytes < RAM_MIN) {
        error_setg(errp, "Machine type microvm needs at least 2 MiB of RAM, not %" PRIu64 " bytes",
                   machine->ram_bytes);
        return -1;
    }
    if (memory_map_ram("ram-below-4g", 0, machine->ram, 0, low, false, errp) < 0) {
        return -1;
    }
    if (high &&
        memory_map_ram("ram-above-4g", 4 * GIB, machine->ram, low, high, false, errp) < 0) {
        return -1;
    }
    return x86_vmstate_register(errp) < 0 || add_clock(machine, errp) < 0 ||
           add_device("port92", errp) < 0 || add_device("reset-control", errp) < 0 ||
           (machine->acpi && add_device("acpi-sleep", errp) < 0) ||
           add_virtio_slots(machine, errp) < 0 ? -1 : 0;
}

/*
 * Read a regular file of at most @max_bytes. What is bigger than the machine's RAM is not read at
 * all.
 */
static GBytes *read_file(const char *what, const char *name, uint64_t max_bytes, Error **errp)
{
    int fd = io_open(name, O_RDONLY, 0, errp);
    g_autofree uint8_t *data = NULL;
    size_t size, done = 0;
    struct stat st;
    ssize_t n;

    if (fd < 0) {
        error_prepend(errp, "Could not load the %s: ", what);
        return NULL;
    }
    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not examine %s '%s'", what, name);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        error_setg(errp, "Could not read %s '%s': it is not a regular file", what, name);
        goto out;
    }
    if (st.st_size > max_bytes) {
        error_setg(errp, "%s '%s' is too large: %" PRIu64 " bytes, and there are %" PRIu64
                   " bytes of RAM", what, name, (uint64_t)st.st_size, max_bytes);
        goto out;
    }
    size = st.st_size;
    data = g_try_malloc(size + 1);
    if (!data) {
        error_setg(errp, "Could not read %s '%s': no memory for %zu bytes", what, name, size);
        goto out;
    }
    while (done < size && (n = pread(fd, data + done, size - done, done)) != 0) {
        if (n < 0 && errno != EINTR) {
            error_setg_errno(errp, errno, "Could not read %s '%s'", what, name);
            goto out;
        }
        done += MAX(n, 0);
    }
    close(fd);
    return g_bytes_new_take(g_steal_pointer(&data), done);

out:
    close(fd);
    return NULL;
}

static BootImage *load_kernel(Machine *machine, BootConfig *config, Error **errp)
{
    g_autoptr(GBytes) kernel = NULL, initrd = NULL;

    kernel = read_file("kernel", machine->kernel, machine->ram_bytes, errp);
    if (!kernel) {
        return NULL;
    }
    if (machine->initrd) {
        initrd = read_file("initrd", machine->initrd, machine->ram_bytes, errp);
        if (!initrd) {
            return NULL;
        }
        config->initrd = initrd;
        config->initrd_name = machine->initrd;
    }
    return boot_kernel_load(config, kernel, machine->kernel, errp);
}

static BootImage *load_sector(const Machine *machine, const BootConfig *config, Error **errp)
{
    BlockBackend *blk = blk_by_name(machine->boot_disk);
    int64_t length = blk ? blk_getlength(blk) : -ENOMEDIUM;
    g_autofree uint8_t *data = g_malloc0(BOOT_SECTOR_BYTES);
    g_autoptr(GBytes) sector = NULL;
    int ret = length;

    if (length >= 0) {
        length = MIN(length, BOOT_SECTOR_BYTES);
        ret = blk_pread(blk, 0, length, data, 0);
    }
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not read the boot sector of disk '%s'",
                         machine->boot_disk);
        return NULL;
    }
    sector = g_bytes_new_take(g_steal_pointer(&data), length);
    return boot_sector_load(config, sector, machine->boot_disk, errp);
}

static void write_table(uint64_t gpa, GBytes *table)
{
    size_t bytes;
    const void *data = g_bytes_get_data(table, &bytes);

    address_space_write(gpa, data, bytes);
}

static BootConfig boot_config(const Machine *machine, const char *cmdline)
{
    return (BootConfig){
        .below_4g = below_4g(machine),
        .above_4g = machine->ram_bytes - below_4g(machine),
        .cpus = machine->cpus,
        .cmdline = cmdline,
        .rsdp = machine->acpi ? BOOT_FIRMWARE_START : 0,
    };
}

static bool boots_from_disk(const Machine *machine)
{
    return !machine->kernel && machine->boot_disk && accel_current()->runs_cpus;
}

/* A machine that came by migration has its disk only now. */
static void load_sector_late(MicrovmBoot *boot)
{
    BootConfig config = boot_config(boot->machine, "");
    Error *err = NULL;

    boot->image = load_sector(boot->machine, &config, &err);
    if (err) {
        error_report_err(err);
    }
}

static void boot_reset(void *opaque)
{
    MicrovmBoot *boot = opaque;

    if (runstate_check(RUN_STATE_INMIGRATE)) {
        return;
    }
    write_table(BOOT_EBDA, boot->mp_table);
    if (boot->acpi_tables) {
        write_table(BOOT_FIRMWARE_START, boot->acpi_tables);
    }
    if (!boot->image && boots_from_disk(boot->machine)) {
        load_sector_late(boot);
    }
    if (boot->image) {
        boot_image_install(boot->image, &cpu_get(0)->env);
    }
}

/* Without ACPI a Linux kernel finds virtio devices only if its command line says where they are. */
static char *kernel_cmdline(const Machine *machine)
{
    GString *text = g_string_new(machine->append);
    uint32_t base;
    unsigned gsi;

    for (unsigned slot = 0; slot < VIRTIO_MMIO_SLOTS; slot++) {
        if (machine->auto_kernel_cmdline && !machine->acpi && virtio_mmio_slot(slot, &base, &gsi)) {
            g_string_append_printf(text, "%svirtio_mmio.device=%u@0x%x:%u", text->len ? " " : "",
                                   VIRTIO_MMIO_SLOT_BYTES, base, gsi);
        }
    }
    return g_string_free(text, FALSE);
}

static void make_tables(MicrovmBoot *boot, const Machine *machine)
{
    uint32_t virtio_lines = ((1u << VIRTIO_MMIO_LINES) - 1) << virtio_irq_base(machine);

    boot->mp_table = boot_mp_table(machine->cpus, BOOT_EBDA, virtio_lines);
    if (machine->acpi) {
        boot->acpi_tables = boot_acpi_tables(machine->cpus, BOOT_FIRMWARE_START);
        g_assert(g_bytes_get_size(boot->acpi_tables) <= BOOT_HIGH_START - BOOT_FIRMWARE_START);
    }
}

/* What there is to boot, if anything: 0, or -1 with @errp set. */
static int load_image(Machine *machine, MicrovmBoot *boot, Error **errp)
{
    g_autofree char *cmdline = kernel_cmdline(machine);
    BootConfig config = boot_config(machine, cmdline);
    bool incoming = runstate_check(RUN_STATE_INMIGRATE);

    if (machine->kernel) {
        boot->image = load_kernel(machine, &config, errp);
        return boot->image ? 0 : -1;
    }
    if (boots_from_disk(machine) && !incoming) {
        boot->image = load_sector(machine, &config, errp);
        return boot->image ? 0 : -1;
    }
    if (!machine->boot_disk && accel_current()->runs_cpus && !incoming) {
        warn_report("there is nothing to boot: neither -kernel nor -drive was given");
    }
    return 0;
}

static int microvm_boot(Machine *machine, Error **errp)
{
    MicrovmBoot *boot = g_new0(MicrovmBoot, 1);

    machine->boot = boot;
    boot->machine = machine;
    make_tables(boot, machine);
    if (load_image(machine, boot, errp) < 0) {
        return -1;
    }
    reset_register(boot_reset, boot);
    return 0;
}

static void microvm_destroy(Machine *machine)
{
    MicrovmBoot *boot = g_steal_pointer(&machine->boot);

    if (!boot) {
        return;
    }
    reset_unregister(boot_reset, boot);
    boot_image_free(boot->image);
    g_bytes_unref(boot->mp_table);
    g_clear_pointer(&boot->acpi_tables, g_bytes_unref);
    g_free(boot);
}

const MachineClass machine_microvm = {
    .name = "microvm",
    .desc = "microvm (no PCI, no firmware)",
    .is_default = true,
    .max_cpus = CPUS_MAX,
    .default_ram_bytes = 128 * MIB,
    .ram_id = "microvm.ram",
    .cpu_type = "qemu64",
    .init = microvm_init,
    .boot = microvm_boot,
    .destroy = microvm_destroy,
};
