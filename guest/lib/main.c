/*
 * The C side of start-up: the tables a processor needs to fault decently, the choice of the way
 * into ring 3, and what happens first in ring 3.
 *
 * tables_setup() and exception_report() run in ring 0 and so possibly in an emulator of single
 * instructions: they are short and use plain moves and arithmetic.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "guest.h"
#include "internal.h"

#define STACK0_BYTES 0x1000
#define STUB_BYTES 16
#define KERNEL_CS 0x18
#define IO_PORTS 0x1000
#define DEBUG_EXIT_PORT 0x501

typedef struct __attribute__((packed, aligned(16))) TSS {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1, ist[7], reserved2;
    uint16_t reserved3, io_bitmap_offset;
    /*
     * Ports that ring 3 may use: all below IO_PORTS. IOPL 3 says the same, but a KVM without
     * hardware virtualisation loses IOPL when it runs ring 3, and then asks this.
     */
    uint8_t io_bitmap[IO_PORTS / 8], io_bitmap_end;
} TSS;

typedef struct IDTEntry {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
} IDTEntry;

extern uint64_t gdt_tss[];
extern char stacks0[], exception_stubs[];
extern IDTEntry idt[32];

IDTEntry idt[32] __attribute__((aligned(16)));
extern uint8_t sysexit_usable;
uint8_t sysexit_usable;
static TSS tss[GUEST_CPUS_MAX];

/*
 * Intel processors have SYSEXIT in long mode; KVM emulates it whatever the processor. Elsewhere it
 * is an invalid opcode, which some emulators do not deliver to the guest, so it is not tried there.
 */
static bool is_sysexit_usable(void)
{
    uint32_t a, b, c, d;

    cpuid(0, &a, &b, &c, &d);
    if (b == 0x756e6547) {              /* "Genu" */
        return true;
    }
    cpuid(1, &a, &b, &c, &d);
    if (!(c & (1u << 31))) {
        return false;
    }
    cpuid(0x40000000, &a, &b, &c, &d);
    return b == 0x4b4d564b;             /* "KVMK" */
}

void tables_setup(unsigned cpu)
{
    uint64_t base = (uintptr_t)&tss[cpu];

    if (cpu == 0) {
        for (unsigned i = 0; i < 32; i++) {
            uint64_t stub = (uintptr_t)exception_stubs + i * STUB_BYTES;

            idt[i].offset_low = (uint16_t)stub;
            idt[i].offset_middle = (uint16_t)(stub >> 16);
            idt[i].selector = KERNEL_CS;
            idt[i].type = 0x8e;
        }
        sysexit_usable = is_sysexit_usable();
    }
    tss[cpu].rsp[0] = (uintptr_t)stacks0 + (cpu + 1) * STACK0_BYTES;
    tss[cpu].io_bitmap_offset = offsetof(TSS, io_bitmap);
    tss[cpu].io_bitmap_end = 0xff;
    gdt_tss[cpu * 2] = (sizeof(TSS) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
                       (base >> 24 & 0xff) << 56;
    gdt_tss[cpu * 2 + 1] = base >> 32;
}

void exception_report(const ExceptionFrame *frame)
{
    uint64_t cr2;

    __asm__ volatile("mov %%cr2, %0" : "=r"(cr2));
    print("guest: EXCEPTION %lu error %lx rip %lx cs %lx flags %lx rsp %lx cr2 %lx\n",
          frame->vector, frame->error_code, frame->rip, frame->cs, frame->rflags, frame->rsp, cr2);
    guest_exit(0x7f);
}

void ring3_main(unsigned cpu)
{
    if (cpu) {
        ap_main(cpu);
    }
    serial_init();
    boot_info_init();
    time_init();
    guest_main();
    guest_exit(0);
}

void guest_exit(uint8_t code)
{
    out8((uint16_t)boot_option("exitport", DEBUG_EXIT_PORT), code);
    time_wait(2 * time_hz());           /* the machine may run on for a moment */
    print("guest: no debug exit device, standing still\n");
    for (;;) {
        pause_cpu();
    }
}
