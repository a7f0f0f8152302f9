/*
 * Coroutines on stacks of their own. Entering one is a call whose return is the yield: what belongs
 * to the enterer (its stack pointer, its sanitizer state) is kept in the coroutine that it entered,
 * so a plain thread needs nothing of its own.
 *
 * A stack is mapped once and used by one coroutine after the other; a few wait with each thread,
 * more in a pool for all, and what exceeds that is unmapped. The stacks' tops are put at different
 * distances from the page's end, else all would compete for the same lines of the cache.
 *
 * Copyright (C) 2026 The Ferry developers
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "util/coroutine-internal.h"

#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/mman.h>

#include "util/mutex.h"

#ifdef COROUTINE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif
#ifdef COROUTINE_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#define STACK_BYTES (256 * 1024)
#define GUARD_BYTES 4096
#define COLOURS 16
#define COLOUR_BYTES 256
#define LOCAL_POOL 64
#define GLOBAL_POOL 512
#define POOL_BATCH 32

static __thread Coroutine *current;

/*
 * Stacks ----------------------------------------------------------------------------------------
 */

typedef struct Pool {
    Coroutine *first;
    unsigned n;
} Pool;

static __thread Pool local_pool;
static __thread bool local_pool_known;  /* the thread's end will empty it */
static Mutex global_lock;
static Pool global_pool;                /* under global_lock */
static pthread_key_t thread_end_key;
static pthread_once_t thread_end_once = PTHREAD_ONCE_INIT;

static void pool_push(Pool *pool, Coroutine *co)
{
    co->pool_next = pool->first;
    pool->first = co;
    pool->n++;
}

static Coroutine *pool_pop(Pool *pool)
{
    Coroutine *co = pool->first;

    if (co) {
        pool->first = co->pool_next;
        pool->n--;
    }
    return co;
}

static Coroutine *stack_map(void)
{
    static unsigned next_colour;
    unsigned colour = __atomic_fetch_add(&next_colour, 1, __ATOMIC_RELAXED) % COLOURS;
    char *map = mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    Coroutine *co;
    uintptr_t top;

    if (map == MAP_FAILED || mprotect(map, GUARD_BYTES, PROT_NONE) < 0) {
        g_error("cannot map a coroutine's stack: %s", g_strerror(errno));
    }
    top = (uintptr_t)map + GUARD_BYTES + STACK_BYTES - colour * COLOUR_BYTES - sizeof(Coroutine);
    co = (Coroutine *)(top & ~(uintptr_t)63);
    co->stack = map + GUARD_BYTES;
    co->stack_bytes = (char *)co - co->stack;
#ifdef COROUTINE_ASAN
    __lsan_register_root_region(co->stack, STACK_BYTES);
#endif
#ifdef COROUTINE_TSAN
    co->fiber = __tsan_create_fiber(0);
#endif
    return co;
}

static void stack_unmap(Coroutine *co)
{
    char *stack = co->stack;

#ifdef COROUTINE_TSAN
    __tsan_destroy_fiber(co->fiber);
#endif
#ifdef COROUTINE_ASAN
    __lsan_unregister_root_region(stack, STACK_BYTES);
    __asan_unpoison_memory_region(stack, STACK_BYTES);
#endif
    munmap(stack - GUARD_BYTES, GUARD_BYTES + STACK_BYTES);
}

/* Hand over stacks of @from until it has @keep; what the global pool does not take is unmapped. */
static void pool_spill(Pool *from, unsigned keep)
{
    mutex_lock(&global_lock);
    while (from->n > keep && global_pool.n < GLOBAL_POOL) {
        pool_push(&global_pool, pool_pop(from));
    }
    mutex_unlock(&global_lock);
    while (from->n > keep) {
        stack_unmap(pool_pop(from));
    }
}

static void on_thread_end(void *opaque)
{
    pool_spill(&local_pool, 0);
    local_pool_known = false;
}

static void make_thread_end_key(void)
{
    if (pthread_key_create(&thread_end_key, on_thread_end) != 0) {
        g_error("no key for the coroutines of a thread");
    }
}

static void pool_refill(void)
{
    mutex_lock(&global_lock);
    while (local_pool.n < POOL_BATCH && global_pool.n > 0) {
        pool_push(&local_pool, pool_pop(&global_pool));
    }
    mutex_unlock(&global_lock);
}

static Coroutine *stack_get(void)
{
    Coroutine *co = pool_pop(&local_pool);

    if (!co) {
        pool_refill();
        co = pool_pop(&local_pool);
    }
    return co ? co : stack_map();
}

static void stack_put(Coroutine *co)
{
    if (!local_pool_known) {
        pthread_once(&thread_end_once, make_thread_end_key);
        pthread_setspecific(thread_end_key, &local_pool);
        local_pool_known = true;
    }
    pool_push(&local_pool, co);
    if (local_pool.n > LOCAL_POOL) {
        pool_spill(&local_pool, LOCAL_POOL - POOL_BATCH);
    }
}

/*
 * Switching, as sanitizers need to see it -------------------------------------------------------
 */

static void switch_to(Coroutine *co)
{
#ifdef COROUTINE_ASAN
    void *fake = NULL;

    __sanitizer_start_switch_fiber(&fake, co->stack, co->stack_bytes);
#endif
#ifdef COROUTINE_TSAN
    co->caller_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(co->fiber, 0);
#endif
    coroutine_switch(&co->caller_sp, co->sp);
#ifdef COROUTINE_ASAN
    __sanitizer_finish_switch_fiber(fake, NULL, NULL);
#endif
}

static void switch_back(Coroutine *co)
{
#ifdef COROUTINE_ASAN
    void *fake = NULL;

    __sanitizer_start_switch_fiber(&fake, co->caller_stack, co->caller_stack_bytes);
#endif
#ifdef COROUTINE_TSAN
    __tsan_switch_to_fiber(co->caller_fiber, 0);
#endif
    coroutine_switch(&co->sp, co->caller_sp);
#ifdef COROUTINE_ASAN
    __sanitizer_finish_switch_fiber(fake, &co->caller_stack, &co->caller_stack_bytes);
#endif
}

/*
 * The first function on the stack. It does not return, so thread checkers, whose fiber is used
 * again with the stack, are not to count it (nor a function that it calls at its end) as entered.
 */
#ifdef COROUTINE_TSAN
__attribute__((no_sanitize("thread")))
#endif
static void coroutine_main(void *opaque)
{
    Coroutine *co = opaque;

#ifdef COROUTINE_ASAN
    __sanitizer_finish_switch_fiber(NULL, &co->caller_stack, &co->caller_stack_bytes);
#endif
    co->entry(co->opaque);
    co->ended = true;
#ifdef COROUTINE_ASAN
    __sanitizer_start_switch_fiber(NULL, co->caller_stack, co->caller_stack_bytes);
#endif
#ifdef COROUTINE_TSAN
    __tsan_switch_to_fiber(co->caller_fiber, 0);
#endif
    coroutine_switch(&co->sp, co->caller_sp);
    __builtin_unreachable();
}

/*
 * The interface ---------------------------------------------------------------------------------
 */

Coroutine *coroutine_create(CoroutineEntry *entry, void *opaque)
{
    Coroutine *co = stack_get();

#ifdef COROUTINE_ASAN
    __asan_unpoison_memory_region(co->stack, co->stack_bytes);
#endif
    co->entry = entry;
    co->opaque = opaque;
    co->caller = NULL;
    co->ended = false;
    __atomic_store_n(&co->running, false, __ATOMIC_RELAXED);
    __atomic_store_n(&co->scheduled, false, __ATOMIC_RELAXED);
    __atomic_store_n(&co->ctx, aio_current(), __ATOMIC_RELAXED);
    co->sp = coroutine_first_frame(co, coroutine_main, co);
    return co;
}

static void coroutine_free(Coroutine *co)
{
    if (__atomic_load_n(&co->scheduled, __ATOMIC_ACQUIRE)) {
        g_error("a coroutine ended that was to be woken again");
    }
    stack_put(co);
}

/* The thread is the same before and after the switch, so `current` may be used on both sides. */
void __attribute__((noinline)) coroutine_enter(Coroutine *co)
{
    Coroutine *self = current;
    AioContext *ctx = self ? __atomic_load_n(&self->ctx, __ATOMIC_RELAXED) : aio_current();

    if (__atomic_load_n(&co->running, __ATOMIC_ACQUIRE)) {
        g_error("a coroutine was entered that is running");
    }
    __atomic_store_n(&co->running, true, __ATOMIC_RELAXED);
    __atomic_store_n(&co->ctx, ctx, __ATOMIC_RELAXED);
    co->caller = self;
    current = co;
    switch_to(co);
    current = self;
    if (co->ended) {
        coroutine_free(co);
    } else {
        __atomic_store_n(&co->running, false, __ATOMIC_RELEASE);
    }
}

/* After the switch the thread may be another one: nothing thread-local is touched there. */
void __attribute__((noinline)) coroutine_yield(void)
{
    Coroutine *self = current;

    if (!self) {
        g_error("coroutine_yield() outside of a coroutine");
    }
    switch_back(self);
}

/* Not inlined anywhere: a caller would keep the address of `current` across a yield. */
Coroutine *__attribute__((noinline)) coroutine_self(void)
{
    __asm__ volatile("");
    return current;
}

bool coroutine_entered(Coroutine *co)
{
    return __atomic_load_n(&co->running, __ATOMIC_ACQUIRE);
}
