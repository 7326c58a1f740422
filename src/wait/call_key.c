/* SPDX-License-Identifier: Apache-2.0 */
/* Thread-specific values (POSIX.1-2017 pthread_key_create and kin) by fiber: what a library keeps for each
 * thread, such as OpenSSL's queue of errors, each fiber has for itself. Otherwise one that waits in the
 * middle of a handshake would find another one's error when it goes on.
 *
 * Keys are the kernel thread's own, and so are its values outside of fibers; the values of a fiber stand in
 * a short list of its core. They stay for the next fiber on that core, as those of a thread that never
 * ended: so no destructor is due. The interpreter's image is left alone: its keys follow the thread
 * state. */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/mem.h"
#include "wait/gate.h"

struct value {
    pthread_key_t key;
    uint32_t age; /* of the key when this was set: a later key of the same number has none */
    const void *value;
};

struct values {
    unsigned count;
    unsigned capacity;
    struct value list[];
};

enum { FIRST_CAPACITY = 8 };

/* Process-wide, as keys are. */
static _Atomic uint32_t ages[PTHREAD_KEYS_MAX];

static uint32_t age_of(pthread_key_t key)
{
    return key < PTHREAD_KEYS_MAX ? atomic_load_explicit(&ages[key], memory_order_relaxed) : 0;
}

/* NULL: the calling thread is no fiber. */
static struct pn_core *fiber(void)
{
    struct pn_core *core = pn_core_self();
    if (!core || pn_core_number(core) == 0 || !pn__core_is_fiber(core))
        return NULL;
    return core;
}

static struct value *find(struct values *values, pthread_key_t key)
{
    for (unsigned i = 0; values && i < values->count; i++)
        if (values->list[i].key == key)
            return &values->list[i];
    return NULL;
}

/* A new place in the list; NULL: no memory. */
static struct value *append(struct pn_core *core)
{
    struct values *values = *pn_core_values(core);
    if (!values || values->count == values->capacity) {
        unsigned capacity = values ? values->capacity * 2 : FIRST_CAPACITY;
        struct values *grown =
            pn_try_realloc(values, sizeof *grown + capacity * sizeof(struct value));
        if (!grown)
            return NULL;
        if (!values)
            grown->count = 0;
        grown->capacity = capacity;
        *pn_core_values(core) = values = grown;
    }
    return &values->list[values->count++];
}

int pn__call_pthread_key_create(pthread_key_t *key, void (*destructor)(void *))
{
    int r = pthread_key_create(key, destructor);
    if (r == 0 && *key < PTHREAD_KEYS_MAX)
        atomic_fetch_add_explicit(&ages[*key], 1, memory_order_relaxed);
    return r;
}

void *pn__call_pthread_getspecific(pthread_key_t key)
{
    struct pn_core *core = fiber();
    if (!core)
        return pthread_getspecific(key);
    const struct value *v = find(*pn_core_values(core), key);
    return v && v->age == age_of(key) ? (void *)v->value : NULL;
}

int pn__call_pthread_setspecific(pthread_key_t key, const void *value)
{
    struct pn_core *core = fiber();
    if (!core)
        return pthread_setspecific(key, value);
    if (key >= PTHREAD_KEYS_MAX)
        return EINVAL;
    struct value *v = find(*pn_core_values(core), key);
    if (!v && !value)
        return 0;
    if (!v)
        v = append(core);
    if (!v)
        return ENOMEM;
    *v = (struct value){key, age_of(key), value};
    return 0;
}
