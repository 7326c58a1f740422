/* SPDX-License-Identifier: Apache-2.0 */
/* Work for soon, for the end of the turn, and for after it: three lists of intrusive nodes. */
#include "loop/loop_state.h"

void pn_task_post(struct pn_loop *loop, struct pn_task *task)
{
    if (pn_list_linked(&task->node))
        return;
    pn_list_push_back(&loop->tasks, &task->node);
    pn__loop_nudge(loop);
}

void pn_task_post_flush(struct pn_loop *loop, struct pn_task *task)
{
    if (pn_list_linked(&task->node))
        return;
    pn_list_push_back(&loop->flushes, &task->node);
    pn__loop_nudge(loop);
}

bool pn__task_step(struct pn_list *list)
{
    struct pn_list *node = pn_list_pop_front(list);
    if (!node)
        return false;
    struct pn_task *task = pn_list_entry(node, struct pn_task, node);
    task->run(task);
    return true;
}

void pn_loop_close_later(struct pn_loop *loop, struct pn_closing *closing,
                         void (*free_fn)(struct pn_closing *))
{
    closing->free = free_fn;
    pn_list_push_back(&loop->closings, &closing->node);
    pn__loop_nudge(loop);
}

bool pn__closing_step(struct pn_loop *loop)
{
    struct pn_list *node = pn_list_pop_front(&loop->closings);
    if (!node)
        return false;
    struct pn_closing *closing = pn_list_entry(node, struct pn_closing, node);
    closing->free(closing);
    return true;
}

void pn_loop_free_closed(struct pn_loop *loop)
{
    while (pn__closing_step(loop))
        ;
}
