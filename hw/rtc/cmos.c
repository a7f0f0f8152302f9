/*
 * mc146818rtc: the clock is never run, it is computed. What is kept is the difference between the
 * guest's time and the host's; a read of a time register converts the present to the format that
 * register B asks for, a write converts back and changes the difference. While the guest holds the
 * SET bit, time registers are plain memory and count when the bit is dropped.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "hw/rtc/cmos.h"

#include <string.h>
#include <time.h>

#include "hw/devices.h"
#include "system/memory.h"
#include "util/cutils.h"

enum {
    RTC_SECONDS = 0x00, RTC_SECONDS_ALARM, RTC_MINUTES, RTC_MINUTES_ALARM, RTC_HOURS,
    RTC_HOURS_ALARM, RTC_WEEKDAY, RTC_DAY, RTC_MONTH, RTC_YEAR,
    RTC_A = 0x0a, RTC_B, RTC_C, RTC_D,
    RTC_CENTURY = 0x32, RTC_CENTURY_PS2 = 0x37,
};
enum { A_UIP = 0x80, A_RATE = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 0x08, B_BINARY = 0x04,
       B_24H = 0x02 };
enum { C_PERIODIC = 0x40, C_ALARM = 0x20, C_UPDATE = 0x10 };
enum { D_VALID = 0x80 };
enum { HOUR_PM = 0x80, ALARM_ANY = 0xc0 };

#define US_PER_S INT64_C(1000000)
#define UPDATE_TIME_US 244              /* the chip announces an update so long before it */
#define DAY_S 86400

typedef struct Cmos {
    DeviceState parent;
    uint64_t ram_below_4g, ram_above_4g;
    uint32_t cpus;

    uint8_t cmos_data[128];
    uint8_t cmos_index;
    int64_t offset_us;                  /* guest's time less the host's */
    int64_t flags_read_us;              /* guest's time when register C was read last */
} Cmos;

static int64_t (*clock_us)(void) = g_get_real_time;

void cmos_set_clock(int64_t (*now_us)(void))
{
    clock_us = now_us ?: g_get_real_time;
}

static int64_t guest_us(const Cmos *s)
{
    return clock_us() + s->offset_us;
}

static int64_t floor_seconds(int64_t us)
{
    return us / US_PER_S - (us % US_PER_S < 0);
}

static uint8_t encode(const Cmos *s, int value)
{
    return s->cmos_data[RTC_B] & B_BINARY ? value : (value / 10 << 4) + value % 10;
}

static int decode(const Cmos *s, uint8_t value)
{
    return s->cmos_data[RTC_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 0x0f);
}

static uint8_t encode_hour(const Cmos *s, int hour)
{
    if (s->cmos_data[RTC_B] & B_24H) {
        return encode(s, hour);
    }
    return encode(s, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static int decode_hour(const Cmos *s, uint8_t value)
{
    if (s->cmos_data[RTC_B] & B_24H) {
        return decode(s, value);
    }
    return decode(s, value & ~HOUR_PM) % 12 + (value & HOUR_PM ? 12 : 0);
}

/* Put guest time @us into the time registers. */
static void time_to_registers(Cmos *s, int64_t us)
{
    time_t seconds = (time_t)floor_seconds(us);
    struct tm tm;
    int year;

    if (!gmtime_r(&seconds, &tm)) {
        return;
    }
    year = tm.tm_year + 1900;
    s->cmos_data[RTC_SECONDS] = encode(s, tm.tm_sec);
    s->cmos_data[RTC_MINUTES] = encode(s, tm.tm_min);
    s->cmos_data[RTC_HOURS] = encode_hour(s, tm.tm_hour);
    s->cmos_data[RTC_WEEKDAY] = encode(s, tm.tm_wday + 1);
    s->cmos_data[RTC_DAY] = encode(s, tm.tm_mday);
    s->cmos_data[RTC_MONTH] = encode(s, tm.tm_mon + 1);
    s->cmos_data[RTC_YEAR] = encode(s, year % 100);
    s->cmos_data[RTC_CENTURY] = encode(s, year / 100);
    s->cmos_data[RTC_CENTURY_PS2] = s->cmos_data[RTC_CENTURY];
}

/* Let guest time be what the registers say; the fraction of the second goes on as it was. */
static void time_from_registers(Cmos *s)
{
    int64_t now = guest_us(s);
    struct tm tm = {
        .tm_sec = decode(s, s->cmos_data[RTC_SECONDS]),
        .tm_min = decode(s, s->cmos_data[RTC_MINUTES]),
        .tm_hour = decode_hour(s, s->cmos_data[RTC_HOURS]),
        .tm_mday = decode(s, s->cmos_data[RTC_DAY]),
        .tm_mon = decode(s, s->cmos_data[RTC_MONTH]) - 1,
        .tm_year = decode(s, s->cmos_data[RTC_YEAR]) +
                   decode(s, s->cmos_data[RTC_CENTURY]) * 100 - 1900,
    };

    s->offset_us += (int64_t)timegm(&tm) * US_PER_S - floor_seconds(now) * US_PER_S;
    s->flags_read_us = guest_us(s);
}

static bool is_time_register(uint8_t index)
{
    return index == RTC_SECONDS || index == RTC_MINUTES || index == RTC_HOURS ||
           (index >= RTC_WEEKDAY && index <= RTC_YEAR) || index == RTC_CENTURY ||
           index == RTC_CENTURY_PS2;
}

static bool is_set_held(const Cmos *s)
{
    return s->cmos_data[RTC_B] & B_SET;
}

static bool alarm_part_matches(uint8_t wanted, uint8_t now)
{
    return (wanted & ALARM_ANY) == ALARM_ANY || wanted == now;
}

/* Whether the alarm went off at a second after @from up to @to. */
static bool alarm_since(const Cmos *s, int64_t from, int64_t to)
{
    if (to - from > DAY_S) {
        from = to - DAY_S;
    }
    for (int64_t second = from + 1; second <= to; second++) {
        int of_day = (int)((second % DAY_S + DAY_S) % DAY_S);

        if (alarm_part_matches(s->cmos_data[RTC_SECONDS_ALARM], encode(s, of_day % 60)) &&
            alarm_part_matches(s->cmos_data[RTC_MINUTES_ALARM], encode(s, of_day / 60 % 60)) &&
            alarm_part_matches(s->cmos_data[RTC_HOURS_ALARM], encode_hour(s, of_day / 3600))) {
            return true;
        }
    }
    return false;
}

/* How often the periodic flag is set, or 0: rates 1 and 2 stand for 8 and 9. */
static int64_t period_us(const Cmos *s)
{
    unsigned rate = s->cmos_data[RTC_A] & A_RATE;

    if (!rate) {
        return 0;
    }
    rate = rate < 3 ? rate + 7 : rate;
    return MAX(US_PER_S * (1 << (rate - 1)) / 32768, 1);
}

/* What happened since the flags were read last. */
static uint8_t read_flags(Cmos *s)
{
    int64_t last = s->flags_read_us, now = guest_us(s);
    int64_t last_s = floor_seconds(last), now_s = floor_seconds(now), period = period_us(s);
    uint8_t flags = 0;

    if (is_set_held(s) || now <= last) {
        return 0;
    }
    if (now_s > last_s) {
        flags |= C_UPDATE;
        flags |= alarm_since(s, last_s, now_s) ? C_ALARM : 0;
    }
    if (period && now / period > last / period) {
        flags |= C_PERIODIC;
    }
    s->flags_read_us = now;
    return flags;
}

static uint8_t cmos_get(Cmos *s)
{
    uint8_t index = s->cmos_index;

    if (is_time_register(index) && !is_set_held(s)) {
        time_to_registers(s, guest_us(s));
    }
    switch (index) {
    case RTC_A: {
        int64_t fraction = guest_us(s) - floor_seconds(guest_us(s)) * US_PER_S;
        bool updating = !is_set_held(s) && fraction >= US_PER_S - UPDATE_TIME_US;

        return s->cmos_data[RTC_A] | (updating ? A_UIP : 0);
    }
    case RTC_C:
        return read_flags(s);
    default:
        return s->cmos_data[index];
    }
}

static void write_register_b(Cmos *s, uint8_t value)
{
    bool was_held = is_set_held(s), held = value & B_SET;

    if (!was_held && held) {
        time_to_registers(s, guest_us(s));
    }
    if (was_held && !held) {
        /* The format in force while the registers were written is the one they are in. */
        s->cmos_data[RTC_B] = value | B_SET;
        time_from_registers(s);
    }
    s->cmos_data[RTC_B] = value;
}

static void cmos_put(Cmos *s, uint8_t value)
{
    uint8_t index = s->cmos_index;

    switch (index) {
    case RTC_A:
        s->cmos_data[RTC_A] = value & ~A_UIP;
        return;
    case RTC_B:
        write_register_b(s, value);
        return;
    case RTC_C:
    case RTC_D:
        return;
    }
    if (!is_time_register(index)) {
        s->cmos_data[index] = value;
        return;
    }
    if (!is_set_held(s)) {
        time_to_registers(s, guest_us(s));
    }
    s->cmos_data[index] = value;
    if (index == RTC_CENTURY || index == RTC_CENTURY_PS2) {
        s->cmos_data[RTC_CENTURY] = s->cmos_data[RTC_CENTURY_PS2] = value;
    }
    if (!is_set_held(s)) {
        time_from_registers(s);
    }
}

static uint64_t cmos_read(void *opaque, uint64_t offset, unsigned size)
{
    return offset == 0 ? 0xff : cmos_get(opaque);
}

static void cmos_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    Cmos *s = opaque;

    if (offset == 0) {
        s->cmos_index = value & 0x7f;
    } else {
        cmos_put(s, (uint8_t)value);
    }
}

static const IOOps cmos_ops = {
    .read = cmos_read, .write = cmos_write, .min_size = 1, .max_size = 1,
};

static void put_le16(Cmos *s, uint8_t index, uint64_t value)
{
    value = MIN(value, UINT16_MAX);
    s->cmos_data[index] = value & 0xff;
    s->cmos_data[index + 1] = value >> 8;
}

static uint64_t beyond(uint64_t size, uint64_t start)
{
    return size > start ? size - start : 0;
}

/* The machine's size as PC firmware leaves it in the CMOS. */
static void put_sizes(Cmos *s)
{
    uint64_t above_4g_units = MIN(s->ram_above_4g / (64 * KiB), 0xffffff);

    put_le16(s, 0x15, MIN(s->ram_below_4g / KiB, 640));
    put_le16(s, 0x17, beyond(s->ram_below_4g, MiB) / KiB);
    put_le16(s, 0x30, beyond(s->ram_below_4g, MiB) / KiB);
    put_le16(s, 0x34, beyond(s->ram_below_4g, 16 * MiB) / (64 * KiB));
    s->cmos_data[0x5b] = above_4g_units & 0xff;
    s->cmos_data[0x5c] = above_4g_units >> 8 & 0xff;
    s->cmos_data[0x5d] = above_4g_units >> 16;
    s->cmos_data[0x5f] = s->cpus - 1;
    s->cmos_data[0x14] = 0x02;          /* equipment: a coprocessor, no floppy disks */
}

static bool cmos_realize(DeviceState *dev, Error **errp)
{
    Cmos *s = DEVICE_CAST(Cmos, dev);

    if (s->cpus < 1 || s->cpus > 255) {
        error_setg(errp, "mc146818rtc: %u is no number of vCPUs that the CMOS can hold", s->cpus);
        return false;
    }
    s->cmos_data[RTC_A] = 0x26;
    s->cmos_data[RTC_B] = B_24H;
    s->cmos_data[RTC_D] = D_VALID;
    s->flags_read_us = guest_us(s);
    put_sizes(s);
    return memory_map_ports("rtc", 0x70, 2, &cmos_ops, s, errp) == 0;
}

static void cmos_unrealize(DeviceState *dev)
{
    memory_unmap_opaque(dev);
}

static void cmos_reset(DeviceState *dev)
{
    Cmos *s = DEVICE_CAST(Cmos, dev);

    s->cmos_data[RTC_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    s->flags_read_us = guest_us(s);
}

static int cmos_post_load(void *opaque, int version_id, Error **errp)
{
    Cmos *s = opaque;

    if (s->cmos_index >= sizeof(s->cmos_data)) {
        error_setg(errp, "mc146818rtc: register index 0x%02x does not exist", s->cmos_index);
        return -1;
    }
    /* Keeps sums with the host's clock within 64 bits, whatever the stream says. */
    if (s->offset_us > INT64_MAX / 4 || s->offset_us < INT64_MIN / 4) {
        error_setg(errp, "mc146818rtc: time offset of %" G_GINT64_FORMAT " us is out of range",
                   s->offset_us);
        return -1;
    }
    return 0;
}

static const VMStateDescription vmstate_cmos = {
    .name = "mc146818rtc",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = cmos_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_BUFFER(cmos_data, Cmos),
        VMSTATE_UINT8(cmos_index, Cmos),
        VMSTATE_INT64(offset_us, Cmos),
        VMSTATE_INT64(flags_read_us, Cmos),
        VMSTATE_END_OF_LIST() },
};

static const Property cmos_properties[] = {
    DEFINE_PROP_SIZE("ram-below-4g", Cmos, ram_below_4g, 0, 0, "bytes of RAM below 4 GiB"),
    DEFINE_PROP_SIZE("ram-above-4g", Cmos, ram_above_4g, 0, 0, "bytes of RAM above 4 GiB"),
    DEFINE_PROP_UINT32("cpus", Cmos, cpus, 1, 0, "number of vCPUs"),
    DEFINE_PROP_END(),
};

const DeviceClass device_cmos = {
    .name = "mc146818rtc",
    .desc = "real-time clock and CMOS memory",
    .instance_size = sizeof(Cmos),
    .properties = cmos_properties,
    .realize = cmos_realize,
    .unrealize = cmos_unrealize,
    .reset = cmos_reset,
    .vmsd = &vmstate_cmos,
};
