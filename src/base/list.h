/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked list. The node lives inside its owner; the list owns nothing. A node that
 * is on no list points to itself, so that removing twice is harmless and "is it linked?" is a test. */
#pragma once

#include "base/defs.h"

struct pn_list {
    struct pn_list *next;
    struct pn_list *prev;
};

static inline void pn_list_init(struct pn_list *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool pn_list_empty(const struct pn_list *head)
{
    return head->next == head;
}

static inline bool pn_list_linked(const struct pn_list *node)
{
    return node->next != node;
}

static inline void pn_list_insert_before(struct pn_list *pos, struct pn_list *node)
{
    node->prev = pos->prev;
    node->next = pos;
    pos->prev->next = node;
    pos->prev = node;
}

/* Appends NODE (which must be on no list) at the end. */
static inline void pn_list_push_back(struct pn_list *head, struct pn_list *node)
{
    pn_list_insert_before(head, node);
}

static inline void pn_list_push_front(struct pn_list *head, struct pn_list *node)
{
    pn_list_insert_before(head->next, node);
}

static inline void pn_list_remove(struct pn_list *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    pn_list_init(node);
}

/* The first node, taken off the list, or NULL. */
static inline struct pn_list *pn_list_pop_front(struct pn_list *head)
{
    struct pn_list *node = head->next;
    if (node == head)
        return NULL;
    pn_list_remove(node);
    return node;
}

/* Moves every node of FROM to the end of TO; FROM is empty afterwards. */
static inline void pn_list_splice_back(struct pn_list *to, struct pn_list *from)
{
    if (pn_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    pn_list_init(from);
}

#define pn_list_entry(node, type, member) pn_container_of(node, type, member)
#define pn_list_for_each(pos, head)       for ((pos) = (head)->next; (pos) != (head); (pos) = (pos)->next)
/* The current node may be removed inside the loop; no other one may. */
#define pn_list_for_each_safe(pos, tmp, head)                        \
    for ((pos) = (head)->next, (tmp) = (pos)->next; (pos) != (head); \
         (pos) = (tmp), (tmp) = (pos)->next)
