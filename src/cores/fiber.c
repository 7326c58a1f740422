/* SPDX-License-Identifier: Apache-2.0 */
/* Switching between stacks, and telling those who watch stacks. The registers are fiber_switch.S's. */
#include "cores/fiber.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/check.h"

#if PN_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if PN_TSAN
#include <sanitizer/tsan_interface.h>
#endif

void pn__fiber_swap(void **save_sp, void *to_sp);
void pn__fiber_start(void);

/* What fiber_switch.S pops, lowest address first. */
struct frame {
    uint32_t mxcsr;
    uint32_t x87_control;
    void *r15, *r14, *r13, *r12, *rbx, *rbp;
    void (*return_to)(void);
};

void pn__fiber_of_thread(struct pn__fiber *fiber)
{
    *fiber = (struct pn__fiber){0};
    pthread_attr_t attr;
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        void *base = NULL;
        if (pthread_attr_getstack(&attr, &base, &fiber->stack_size) == 0)
            fiber->stack_base = base;
        pthread_attr_destroy(&attr);
    }
#if PN_TSAN
    fiber->tsan_fiber = __tsan_get_current_fiber();
#endif
}

void pn__fiber_init(struct pn__fiber *fiber, void *stack_base, size_t stack_size,
                    void (*main_fn)(void *arg), void *arg)
{
    PN_ASSERT(stack_size > 4096);
    *fiber = (struct pn__fiber){.stack_base = stack_base, .stack_size = stack_size};
    uintptr_t top = ((uintptr_t)stack_base + stack_size) & ~(uintptr_t)15;
    /* After "ret" into pn__fiber_start the stack pointer is TOP - 16: aligned, as its call needs. */
    struct frame f = {
        .r13 = (void *)(uintptr_t)main_fn,
        .r12 = arg,
        .return_to = pn__fiber_start,
    };
    /* A fiber begins with the controls that its maker has, as a new thread does. */
    uint16_t control;
    __asm__("stmxcsr %0" : "=m"(f.mxcsr));
    __asm__("fnstcw %0" : "=m"(control));
    f.x87_control = control;
    fiber->sp = (void *)(top - 16 - sizeof(f));
    memcpy(fiber->sp, &f, sizeof(f));
#if PN_TSAN
    fiber->tsan_fiber = __tsan_create_fiber(0);
#endif
}

void pn__fiber_fini(struct pn__fiber *fiber)
{
#if PN_TSAN
    __tsan_destroy_fiber(fiber->tsan_fiber);
#endif
    fiber->sp = NULL;
}

void pn__fiber_begun(struct pn__fiber *fiber)
{
#if PN_ASAN
    __sanitizer_finish_switch_fiber(fiber->fake_stack, NULL, NULL);
#endif
    (void)fiber;
}

/* Inlined whatever the optimiser thinks: TSan counts calls a fiber, and a call that began on one and
 * returned on the other would put both out of step. */
__attribute__((always_inline)) static inline void notice_before(struct pn__fiber *from,
                                                                struct pn__fiber *to, bool last)
{
#if PN_ASAN
    __sanitizer_start_switch_fiber(last ? NULL : &from->fake_stack, to->stack_base, to->stack_size);
#endif
#if PN_TSAN
    __tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
    (void)from;
    (void)to;
    (void)last;
}

void pn__fiber_switch(struct pn__fiber *from, struct pn__fiber *to)
{
    int saved = errno;
    PN_ASSERT(from != to);
    notice_before(from, to, false);
    pn__fiber_swap(&from->sp, to->sp);
#if PN_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
    errno = saved;
}

void pn__fiber_leave(struct pn__fiber *from, struct pn__fiber *to)
{
    notice_before(from, to, true);
    pn__fiber_swap(&from->sp, to->sp);
    PN_WRONG("a fiber that had ended was switched to");
}
