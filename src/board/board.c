/* SPDX-License-Identifier: Apache-2.0 */
/* The scoreboard's slots in an anonymous shared mapping. */
#include "board/board.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/bounds.h"
#include "base/check.h"
#include "base/mem.h"

enum {
    BOARD_MAGIC = 0x42524431,
    /* Two lines: the prefetcher of x86-64 fetches them in pairs. */
    SLOT_ALIGN = 128,
};

struct slot {
    _Alignas(SLOT_ALIGN) _Atomic int32_t pid;
    _Atomic int32_t state;
    _Atomic int64_t started_ns;
    _Atomic uint64_t accepted;
    _Atomic uint64_t requests;
    _Atomic uint64_t bad_requests;
    _Atomic uint64_t cancelled;
    _Atomic uint64_t waits;
    _Atomic uint64_t hand_overs;
};
PN_STATIC_ASSERT(sizeof(struct slot) == SLOT_ALIGN, "a slot fills its cache lines");

/* This process's handle; only the slots are shared. */
struct pn_board {
    unsigned magic;
    unsigned count;
    struct slot *slots;
};

struct pn_board *pn_board_create(unsigned count)
{
    PN_BUG_ON(count == 0 || count > PN_WORKERS_MAX);
    /* Fresh anonymous memory is zero: every slot is empty. */
    void *shared = mmap(NULL, count * sizeof(struct slot), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return NULL;
    struct pn_board *board = pn_xcalloc(1, sizeof *board);
    board->magic = BOARD_MAGIC;
    board->count = count;
    board->slots = shared;
    return board;
}

void pn_board_destroy(struct pn_board *board)
{
    if (!board)
        return;
    PN_CHECK_MAGIC(board, BOARD_MAGIC);
    munmap(board->slots, board->count * sizeof(struct slot));
    board->magic = 0;
    free(board);
}

unsigned pn_board_count(const struct pn_board *board)
{
    return board->count;
}

static struct slot *slot_at(const struct pn_board *board, unsigned slot)
{
    PN_CHECK_MAGIC(board, BOARD_MAGIC);
    PN_BUG_ON(slot >= board->count);
    return &board->slots[slot];
}

#define SET(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)
#define GET(field)        atomic_load_explicit(&(field), memory_order_relaxed)

void pn_board_publish(struct pn_board *board, unsigned slot, const struct pn_board_figures *figures)
{
    struct slot *s = slot_at(board, slot);
    SET(s->accepted, figures->accepted);
    SET(s->requests, figures->requests);
    SET(s->bad_requests, figures->bad_requests);
    SET(s->cancelled, figures->cancelled);
    SET(s->waits, figures->waits);
    SET(s->hand_overs, figures->hand_overs);
}

void pn_board_set_state(struct pn_board *board, unsigned slot, enum pn_board_state state)
{
    SET(slot_at(board, slot)->state, (int32_t)state);
}

void pn_board_start(struct pn_board *board, unsigned slot, int pid, int64_t now_ns)
{
    static const struct pn_board_figures none;
    struct slot *s = slot_at(board, slot);
    pn_board_publish(board, slot, &none);
    SET(s->started_ns, now_ns);
    SET(s->pid, pid);
    pn_board_set_state(board, slot, PN_BOARD_STARTING);
}

void pn_board_read(const struct pn_board *board, unsigned slot, struct pn_board_view *out)
{
    struct slot *s = slot_at(board, slot);
    *out = (struct pn_board_view){
        .pid = GET(s->pid),
        .state = (enum pn_board_state)GET(s->state),
        .started_ns = GET(s->started_ns),
        .figures =
            {
                .accepted = GET(s->accepted),
                .requests = GET(s->requests),
                .bad_requests = GET(s->bad_requests),
                .cancelled = GET(s->cancelled),
                .waits = GET(s->waits),
                .hand_overs = GET(s->hand_overs),
            },
    };
}

unsigned pn_board_count_state(const struct pn_board *board, enum pn_board_state state)
{
    unsigned found = 0;
    for (unsigned i = 0; i < board->count; i++)
        found += GET(slot_at(board, i)->state) == (int32_t)state;
    return found;
}

const char *pn_board_state_name(enum pn_board_state state)
{
    static const char *const names[] = {
        [PN_BOARD_EMPTY] = "empty", [PN_BOARD_STARTING] = "starting",
        [PN_BOARD_READY] = "ready", [PN_BOARD_STOPPING] = "stopping",
        [PN_BOARD_ENDED] = "ended",
    };
    /* The state comes out of shared memory: what lies there is not taken on trust. */
    return (unsigned)state < PN_ARRAY_LEN(names) ? names[state] : "?";
}
