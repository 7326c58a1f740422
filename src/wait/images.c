/* SPDX-License-Identifier: Apache-2.0 */
/* Reads what the dynamic linker left in memory: program headers, dynamic sections, relocations
 * (System V ABI, chapter 5; AMD64 supplement, 4.4). Nothing is read from disk. */
#include "wait/images.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

void pn__landmarks_find(struct pn__landmarks *out)
{
    *out = (struct pn__landmarks){.own = (uintptr_t)&pn__landmarks_find};
    /* By the handle of libc itself: a sanitizer may stand in front of any name in the global scope. */
    void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
    if (libc) {
        out->libc = (uintptr_t)dlsym(libc, "gnu_get_libc_version");
        dlclose(libc);
    }
    out->interpreter = (uintptr_t)dlsym(RTLD_DEFAULT, "Py_IsInitialized");
}

bool pn__image_contains(const struct pn__image *image, uintptr_t address)
{
    for (ElfW(Half) i = 0; i < image->phdr_count; i++) {
        const ElfW(Phdr) *p = &image->phdr[i];
        uintptr_t start = image->base + p->p_vaddr;
        if (p->p_type == PT_LOAD && address >= start && address - start < p->p_memsz)
            return true;
    }
    return false;
}

static bool is_system_name(const char *name)
{
    static const char *const beginnings[] = {"linux-vdso", "ld-linux",    "libc.so",
                                             "libasan.so", "libtsan.so",  "libubsan",
                                             "liblsan.so", "libclang_rt."};
    const char *slash = strrchr(name, '/');
    const char *file = slash ? slash + 1 : name;
    for (size_t i = 0; i < PN_ARRAY_LEN(beginnings); i++)
        if (strncmp(file, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    return false;
}

enum pn__image_kind pn__image_classify(const struct pn__image *image,
                                       const struct pn__landmarks *landmarks)
{
    if (is_system_name(image->name))
        return PN__IMAGE_NONE;
    if (pn__image_contains(image, landmarks->own) || pn__image_contains(image, landmarks->libc))
        return PN__IMAGE_NONE;
    if (landmarks->interpreter && pn__image_contains(image, landmarks->interpreter))
        return PN__IMAGE_INTERPRETER;
    return PN__IMAGE_OTHER;
}

struct pn__dynamic {
    const ElfW(Sym) * symbols;
    const char *strings;
    const ElfW(Rela) * tables[2]; /* DT_RELA, DT_JMPREL */
    size_t sizes[2];
    size_t relative_count;       /* the first so many of DT_RELA name no symbol */
    size_t first_defined;        /* symbols from here on are its own */
    const ElfW(Half) * versions; /* by symbol; NULL: none */
    const ElfW(Verneed) * needed;
};

/* glibc relocates the addresses in an image's dynamic section, but not in those it may not write
 * (vdso): a value below the base is still an offset. */
static const void *dynamic_address(const struct pn__image *image, ElfW(Addr) value)
{
    return (const void *)(value < image->base ? image->base + value : value);
}

/* A GNU hash table holds the symbols that an image defines, and these are the last of all: so the index alone
 * tells most relocations apart that bind a library to itself. A program's table also holds functions of libraries
 * whose address the program takes; of an image that defines nothing it says 1. */
static size_t first_defined(const struct pn__image *image, const uint32_t *hash_table)
{
    for (ElfW(Half) i = 0; i < image->phdr_count; i++)
        if (image->phdr[i].p_type == PT_INTERP)
            return SIZE_MAX;
    return hash_table[1] > 1 ? hash_table[1] : SIZE_MAX;
}

static bool dynamic_find(const struct pn__image *image, struct pn__dynamic *d)
{
    const ElfW(Dyn) *dyn = NULL;
    *d = (struct pn__dynamic){.first_defined = SIZE_MAX};
    for (ElfW(Half) i = 0; i < image->phdr_count; i++)
        if (image->phdr[i].p_type == PT_DYNAMIC)
            dyn = (const ElfW(Dyn) *)(image->base + image->phdr[i].p_vaddr);
    if (!dyn)
        return false;
    for (; dyn->d_tag != DT_NULL; dyn++) {
        switch (dyn->d_tag) {
        case DT_SYMTAB:
            d->symbols = dynamic_address(image, dyn->d_un.d_ptr);
            break;
        case DT_STRTAB:
            d->strings = dynamic_address(image, dyn->d_un.d_ptr);
            break;
        case DT_RELA:
            d->tables[0] = dynamic_address(image, dyn->d_un.d_ptr);
            break;
        case DT_RELASZ:
            d->sizes[0] = dyn->d_un.d_val;
            break;
        case DT_GNU_HASH:
            d->first_defined = first_defined(image, dynamic_address(image, dyn->d_un.d_ptr));
            break;
        case DT_RELACOUNT:
            d->relative_count = dyn->d_un.d_val;
            break;
        case DT_JMPREL:
            d->tables[1] = dynamic_address(image, dyn->d_un.d_ptr);
            break;
        case DT_VERSYM:
            d->versions = dynamic_address(image, dyn->d_un.d_ptr);
            break;
        case DT_VERNEED:
            d->needed = dynamic_address(image, dyn->d_un.d_ptr);
            break;
        case DT_PLTRELSZ:
            d->sizes[1] = dyn->d_un.d_val;
            break;
        default:
            break;
        }
    }
    return true;
}

struct pn__span pn__image_sealed(const struct pn__image *image)
{
    uintptr_t page_mask = ~((uintptr_t)sysconf(_SC_PAGESIZE) - 1);
    for (ElfW(Half) i = 0; i < image->phdr_count; i++) {
        const ElfW(Phdr) *p = &image->phdr[i];
        uintptr_t start = image->base + p->p_vaddr;
        /* As the linker rounds it: a last page that isn't all of it stays writable. */
        if (p->p_type == PT_GNU_RELRO)
            return (struct pn__span){start & page_mask, (start + p->p_memsz) & page_mask};
    }
    return (struct pn__span){0, 0};
}

static bool is_import(const ElfW(Rela) * rela, const ElfW(Sym) * symbol)
{
    switch (ELF64_R_TYPE(rela->r_info)) {
    case R_X86_64_JUMP_SLOT:
    case R_X86_64_GLOB_DAT:
    case R_X86_64_64:
        break;
    default:
        return false;
    }
    if (rela->r_addend != 0)
        return false;
    /* An undefined symbol of no type is what old toolchains write for functions. */
    unsigned type = ELF64_ST_TYPE(symbol->st_info);
    return symbol->st_shndx == SHN_UNDEF && (type == STT_FUNC || type == STT_NOTYPE);
}

int pn__image_imports(const struct pn__image *image,
                      void (*fn)(void *ctx, const struct pn__import *import), void *ctx)
{
    struct pn__dynamic d;
    if (!dynamic_find(image, &d))
        return 0; /* a static image imports nothing */
    if (!d.symbols || !d.strings)
        return -ENOEXEC;
    struct pn__import import = {.dynamic = &d};
    for (size_t t = 0; t < PN_ARRAY_LEN(d.tables); t++) {
        const ElfW(Rela) *rela = d.tables[t];
        size_t count = rela ? d.sizes[t] / sizeof *rela : 0;
        /* Two thirds of all, and in memory that nothing else needs. */
        for (size_t i = t == 0 ? d.relative_count : 0; i < count; i++) {
            import.symbol = ELF64_R_SYM(rela[i].r_info);
            if (import.symbol >= d.first_defined)
                continue;
            const ElfW(Sym) *symbol = &d.symbols[import.symbol];
            if (!is_import(&rela[i], symbol))
                continue;
            import.name = d.strings + symbol->st_name;
            import.slot = (uintptr_t *)(image->base + rela[i].r_offset); /* NOLINT: an address */
            fn(ctx, &import);
        }
    }
    return 0;
}

static bool is_libc_file(const char *name)
{
    static const char *const files[] = {"libc.so", "libpthread.so", "librt.so", "libdl.so",
                                        "ld-linux"};
    for (size_t i = 0; i < PN_ARRAY_LEN(files); i++)
        if (strncmp(name, files[i], strlen(files[i])) == 0)
            return true;
    return false;
}

static const void *after(const void *entry, size_t offset)
{
    return (const char *)entry + offset;
}

/* Linux Standard Base, symbol versioning: a list of files, each with a list of its versions. */
bool pn__import_is_of_libc(const struct pn__import *import)
{
    const struct pn__dynamic *d = import->dynamic;
    const ElfW(Verneed) *file = d->versions ? d->needed : NULL;
    if (!file)
        return false;
    ElfW(Half) version = d->versions[import->symbol] & 0x7fff;
    for (;; file = after(file, file->vn_next)) {
        const ElfW(Vernaux) *aux = after(file, file->vn_aux);
        for (ElfW(Half) i = 0; i < file->vn_cnt; i++, aux = after(aux, aux->vna_next))
            if (aux->vna_other == version)
                return is_libc_file(d->strings + file->vn_file);
        if (file->vn_next == 0)
            return false;
    }
}

static int read_counts(struct dl_phdr_info *info, size_t size, void *ctx)
{
    struct pn__load_counts *counts = ctx;
    if (size >= offsetof(struct dl_phdr_info, dlpi_subs) + sizeof info->dlpi_subs)
        *counts = (struct pn__load_counts){info->dlpi_adds, info->dlpi_subs};
    return 1; /* the first image tells: no need for the others */
}

struct pn__load_counts pn__image_counts(void)
{
    struct pn__load_counts counts = {0, 0};
    dl_iterate_phdr(read_counts, &counts);
    return counts;
}
