/* SPDX-License-Identifier: Apache-2.0 */
/* From any thread to the loop's owner: a stack that many push to without a lock, and that the owner
 * takes whole and turns round. A sender wakes the loop only when it sleeps. */
#include "loop/loop_state.h"

void pn_message_send(struct pn_loop *loop, struct pn_message *message)
{
    struct pn_message *top = atomic_load_explicit(&loop->inbox, memory_order_relaxed);
    do {
        message->next = top;
    } while (!atomic_compare_exchange_weak(&loop->inbox, &top, message));
    /* From here on the message may be delivered and gone. */
    if (atomic_load(&loop->sleeping))
        pn__loop_wake(loop);
}

void pn__message_collect(struct pn_loop *loop)
{
    if (!atomic_load_explicit(&loop->inbox, memory_order_relaxed))
        return;
    PN_ASSERT(!loop->messages); /* a turn ends when all of its messages are delivered */
    struct pn_message *stack = atomic_exchange(&loop->inbox, NULL);
    while (stack) {
        struct pn_message *next = stack->next;
        stack->next = loop->messages;
        loop->messages = stack;
        stack = next;
    }
}

void pn_loop_deliver(struct pn_loop *loop)
{
    do {
        while (pn__message_step(loop))
            ;
        pn__message_collect(loop);
    } while (loop->messages);
}

bool pn__message_step(struct pn_loop *loop)
{
    struct pn_message *message = loop->messages;
    if (!message)
        return false;
    loop->messages = message->next;
    message->deliver(message);
    return true;
}
