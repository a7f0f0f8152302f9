/*
 * A vCPU: its file, its run loop, and how it is made to stop.
 *
 * Kicking without a race. A vCPU looks at exit_request and then enters KVM_RUN; a kick that falls
 * between must not be lost. So a kick sets exit_request, then immediate_exit in the page shared
 * with KVM, and then sends a signal: if the vCPU has not entered yet, immediate_exit makes KVM_RUN
 * return at once; if it has, the signal does. immediate_exit is taken back after such a return,
 * before exit_request is looked at again, so the next kick finds everything in place.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "accel/kvm/kvm-int.h"
#include "qapi/qapi-types-run-state.h"
#include "system/runstate.h"

#define SIG_KICK SIGUSR1

/* A vCPU may be kicked by anybody while its own thread takes it apart. */
static pthread_mutex_t kick_lock = PTHREAD_MUTEX_INITIALIZER;

int kvm_vcpu_ioctl(CPUState *cpu, unsigned long request, void *arg)
{
    KVMVcpu *vcpu = cpu->accel;
    int r = ioctl(vcpu->fd, request, arg);

    return r < 0 ? -errno : r;
}

/* The signal only has to make KVM_RUN return. */
static void kick_handler(int sig)
{
}

static void kick_signal_setup(void)
{
    struct sigaction act = { .sa_handler = kick_handler, .sa_flags = SA_RESTART };
    sigset_t set;

    sigaction(SIG_KICK, &act, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIG_KICK);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static KVMVcpu *vcpu_create(CPUState *cpu, Error **errp)
{
    KVMVcpu *vcpu = g_new0(KVMVcpu, 1);

    vcpu->fd = ioctl(kvm.vm_fd, KVM_CREATE_VCPU, (unsigned long)cpu->apic_id);
    if (vcpu->fd < 0) {
        error_setg_errno(errp, errno, "KVM cannot create vCPU %d", cpu->index);
        g_free(vcpu);
        return NULL;
    }
    vcpu->run = mmap(NULL, kvm.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map the shared page of vCPU %d", cpu->index);
        close(vcpu->fd);
        g_free(vcpu);
        return NULL;
    }
    vcpu->thread = pthread_self();
    return vcpu;
}

void kvm_vcpu_destroy(CPUState *cpu)
{
    KVMVcpu *vcpu = cpu->accel;

    if (!vcpu) {
        return;
    }
    pthread_mutex_lock(&kick_lock);
    cpu->accel = NULL;
    pthread_mutex_unlock(&kick_lock);

    munmap(vcpu->run, kvm.run_bytes);
    close(vcpu->fd);
    g_free(vcpu->power_on);
    g_free(vcpu);
}

int kvm_vcpu_init(CPUState *cpu, Error **errp)
{
    kick_signal_setup();

    KVMVcpu *vcpu = vcpu_create(cpu, errp);
    if (!vcpu) {
        return -1;
    }
    pthread_mutex_lock(&kick_lock);
    cpu->accel = vcpu;
    pthread_mutex_unlock(&kick_lock);

    int khz = kvm_vcpu_ioctl(cpu, KVM_GET_TSC_KHZ, NULL);
    vcpu->tsc_khz = khz > 0 ? khz : 0;
    vcpu->power_on = g_new0(X86CPUState, 1);

    if (kvm_cpuid_set_vcpu(cpu, errp) < 0 || kvm_msrs_init(cpu, errp) < 0 ||
        kvm_read_state(cpu, vcpu->power_on, errp) < 0) {
        kvm_vcpu_destroy(cpu);
        return -1;
    }
    vcpu->power_on->tsc = 0;
    return 0;
}

void kvm_vcpu_kick(CPUState *cpu)
{
    __atomic_store_n(&cpu->exit_request, 1, __ATOMIC_SEQ_CST);

    pthread_mutex_lock(&kick_lock);
    KVMVcpu *vcpu = cpu->accel;
    if (vcpu) {
        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        if (!pthread_equal(vcpu->thread, pthread_self())) {
            pthread_kill(vcpu->thread, SIG_KICK);
        }
    }
    pthread_mutex_unlock(&kick_lock);
}

static CPUExit internal_error(CPUState *cpu, const struct kvm_run *run)
{
    static const char *const suberrors[] = {
        [KVM_INTERNAL_ERROR_EMULATION] = "KVM cannot emulate an instruction",
        [KVM_INTERNAL_ERROR_SIMUL_EX] = "exceptions at the same time",
        [KVM_INTERNAL_ERROR_DELIVERY_EV] = "an exit while an event was delivered",
        [KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "an exit that KVM does not know",
    };
    unsigned suberror = run->internal.suberror;
    const char *name = suberror < G_N_ELEMENTS(suberrors) ? suberrors[suberror] : NULL;
    g_autoptr(GString) text = g_string_new(NULL);

    g_string_printf(text, "KVM internal error. Suberror: %u (%s)", suberror,
                    name ? name : "unknown");
    if (suberror == KVM_INTERNAL_ERROR_EMULATION && run->emulation_failure.ndata >= 3 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
        unsigned size = MIN(run->emulation_failure.insn_size, 15);

        g_string_append(text, "\nInstruction bytes:");
        for (unsigned i = 0; i < size; i++) {
            g_string_append_printf(text, " %02x", run->emulation_failure.insn_bytes[i]);
        }
    } else {
        unsigned n = MIN(run->internal.ndata, G_N_ELEMENTS(run->internal.data));

        for (unsigned i = 0; i < n; i++) {
            g_string_append_printf(text, "\nextra data[%u]: 0x%016llx", i,
                                   (unsigned long long)run->internal.data[i]);
        }
    }
    cpu_report_internal_error(cpu, "%s", text->str);
    return CPU_EXIT_STOPPED;
}

static CPUExit unexpected_exit(CPUState *cpu, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static CPUExit unexpected_exit(CPUState *cpu, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    cpu_report_internal_error(cpu, "%s", text);
    return CPU_EXIT_STOPPED;
}

static uint32_t load_port_data(const uint8_t *p, unsigned size)
{
    uint32_t value = 0;

    memcpy(&value, p, size);
    return value;
}

static void handle_io(struct kvm_run *run)
{
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned size = run->io.size;

    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            port_write(run->io.port, load_port_data(data, size), size);
        } else {
            uint32_t value = port_read(run->io.port, size);

            memcpy(data, &value, size);
        }
    }
}

/* Where nothing is, reads give all ones and writes go nowhere: as on a bus. */
static void handle_mmio(struct kvm_run *run)
{
    address_space_rw(run->mmio.phys_addr, run->mmio.data, MIN(run->mmio.len, 8),
                     run->mmio.is_write);
}

static CPUExit system_event(CPUState *cpu, const struct kvm_run *run)
{
    switch (run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        system_shutdown_request(SHUTDOWN_CAUSE_GUEST_SHUTDOWN);
        return CPU_EXIT_STOPPED;
    case KVM_SYSTEM_EVENT_RESET:
        system_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
        return CPU_EXIT_STOPPED;
    default:
        return unexpected_exit(cpu, "KVM reports system event %u", run->system_event.type);
    }
}

/* One exit; @again is set when the vCPU may go on at once. */
static CPUExit handle_exit(CPUState *cpu, KVMVcpu *vcpu, bool *again)
{
    struct kvm_run *run = vcpu->run;

    *again = false;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        vcpu->io_pending = true;
        handle_io(run);
        *again = true;
        return CPU_EXIT_AGAIN;
    case KVM_EXIT_MMIO:
        vcpu->io_pending = true;
        handle_mmio(run);
        *again = true;
        return CPU_EXIT_AGAIN;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
    case KVM_EXIT_X86_BUS_LOCK:
        return CPU_EXIT_AGAIN;
    case KVM_EXIT_HLT:
        return CPU_EXIT_HALTED;
    case KVM_EXIT_SHUTDOWN:
        /* A triple fault, which resets a PC. */
        system_reset_request(SHUTDOWN_CAUSE_GUEST_RESET);
        return CPU_EXIT_STOPPED;
    case KVM_EXIT_SYSTEM_EVENT:
        return system_event(cpu, run);
    case KVM_EXIT_INTERNAL_ERROR:
        return internal_error(cpu, run);
    case KVM_EXIT_FAIL_ENTRY:
        return unexpected_exit(cpu, "KVM: entry failed, hardware error 0x%llx",
                               (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
    case KVM_EXIT_UNKNOWN:
        return unexpected_exit(cpu, "KVM: unknown exit, hardware reason %llu",
                               (unsigned long long)run->hw.hardware_exit_reason);
    default:
        return unexpected_exit(cpu, "KVM: unhandled exit %u", run->exit_reason);
    }
}

/* KVM_RUN once. Returns 0 with an exit to handle, 1 when interrupted, negative errno. */
static int run_once(KVMVcpu *vcpu)
{
    int r = ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? -errno : 0;

    vcpu->io_pending = false;
    if (r == -EINTR || r == -EAGAIN) {
        __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        return 1;
    }
    return r;
}

CPUExit kvm_vcpu_exec(CPUState *cpu)
{
    KVMVcpu *vcpu = cpu->accel;

    for (;;) {
        bool again;

        if (__atomic_load_n(&cpu->exit_request, __ATOMIC_SEQ_CST)) {
            return CPU_EXIT_AGAIN;
        }
        int r = run_once(vcpu);
        if (r > 0) {
            return CPU_EXIT_AGAIN;
        }
        if (r < 0) {
            return unexpected_exit(cpu, "KVM cannot run the vCPU: %s", strerror(-r));
        }
        CPUExit result = handle_exit(cpu, vcpu, &again);
        if (!again) {
            return result;
        }
    }
}

int kvm_vcpu_complete_io(CPUState *cpu, Error **errp)
{
    KVMVcpu *vcpu = cpu->accel;

    /* An instruction may go on in pieces: across a page, or a string of ports. */
    while (vcpu->io_pending) {
        bool again;

        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        int r = run_once(vcpu);
        if (r < 0) {
            error_setg_errno(errp, -r, "KVM cannot complete an access of vCPU %d", cpu->index);
            return -1;
        }
        if (r == 0) {
            handle_exit(cpu, vcpu, &again);
        }
    }
    return 0;
}
