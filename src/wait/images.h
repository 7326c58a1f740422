/* SPDX-License-Identifier: Apache-2.0 */
/* The loaded images (ELF objects) of this process: what kind each is, and its import relocations. */
#pragma once

#include <link.h>

#include "base/defs.h"

/* Which table of names an image gets (bits of pn__redirect.images). */
enum pn__image_kind {
    PN__IMAGE_NONE = 0,        /* libc, the dynamic linker, sanitizers, our own: left alone */
    PN__IMAGE_INTERPRETER = 1, /* defines Py_IsInitialized: libpython, or a static python */
    PN__IMAGE_OTHER = 2,       /* every other library, extension module or program */
};

struct pn__image {
    ElfW(Addr) base;
    const char *name; /* the linker's; "" is the program itself */
    const ElfW(Phdr) * phdr;
    ElfW(Half) phdr_count;
};

/* Found once at install; what images are told apart by. */
struct pn__landmarks {
    uintptr_t own;         /* a function of this extension */
    uintptr_t libc;        /* a function that only libc defines */
    uintptr_t interpreter; /* Py_IsInitialized; 0 without Python (C tests) */
};
void pn__landmarks_find(struct pn__landmarks *out);

enum pn__image_kind pn__image_classify(const struct pn__image *image,
                                       const struct pn__landmarks *landmarks);
/* True when ADDRESS lies in one of the image's segments. */
bool pn__image_contains(const struct pn__image *image, uintptr_t address);

/* From start on, up to end. */
struct pn__span {
    uintptr_t start;
    uintptr_t end;
};
static inline bool pn__span_contains(const struct pn__span *span, uintptr_t address)
{
    return address >= span->start && address < span->end;
}
/* The pages that are read-only once the linker is done with them (RELRO). */
struct pn__span pn__image_sealed(const struct pn__image *image);

/* One import: the name, and where the resolved address is kept. */
struct pn__dynamic;
struct pn__import {
    const char *name;
    uintptr_t *slot;
    const struct pn__dynamic *dynamic; /* the image's, for the time of the call */
    size_t symbol;
};
/* Calls FN for each JUMP_SLOT, GLOB_DAT and R_X86_64_64 relocation against an undefined function.
 * 0, or -ENOEXEC when the dynamic section lacks what the ABI asks for. */
int pn__image_imports(const struct pn__image *image,
                      void (*fn)(void *ctx, const struct pn__import *import), void *ctx);

/* True when the import asks for a version of its symbol that one of libc's libraries has. */
bool pn__import_is_of_libc(const struct pn__import *import);

/* The linker's counters of loads and unloads: equal twice means that nothing changed between. */
struct pn__load_counts {
    unsigned long long adds;
    unsigned long long subs;
};
struct pn__load_counts pn__image_counts(void);
