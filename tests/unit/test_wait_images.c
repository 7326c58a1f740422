/* SPDX-License-Identifier: Apache-2.0 */
/* What is found in the import tables of images, against a reader that takes no short cuts; and which pages
 * are opened to write there. The program itself is no PIE and takes the address of a function that it imports:
 * the linker then puts its own symbol for it into the table of what it defines. The libraries are one with exports,
 * one without, and one with a hash table of the old kind. */
#include "wait/images.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test_base.h"
#include "wait/patches.h"
#include "wait/wait.h"

enum { IMPORTS_MAX = 20000 };

/* --- Imports ------------------------------------------------------------------------------------- */

struct found {
    uintptr_t *slots[IMPORTS_MAX];
    const char *names[IMPORTS_MAX];
    size_t count;
};
static struct found by_room, by_test;

static void take(void *ctx, const struct pn__import *import)
{
    struct found *f = ctx;
    assert_true(f->count < IMPORTS_MAX);
    f->slots[f->count] = import->slot;
    f->names[f->count++] = import->name;
}

static uintptr_t entry(const struct pn__image *image, ElfW(Sxword) tag)
{
    for (ElfW(Half) i = 0; i < image->phdr_count; i++) {
        if (image->phdr[i].p_type != PT_DYNAMIC)
            continue;
        const ElfW(Dyn) *dyn = (const void *)(image->base + image->phdr[i].p_vaddr);
        for (; dyn->d_tag != DT_NULL; dyn++)
            if (dyn->d_tag == tag)
                return dyn->d_un.d_val;
    }
    return 0;
}

/* Every relocation is looked at, and its symbol. */
static void read_table(const struct pn__image *image, ElfW(Sxword) table, ElfW(Sxword) size)
{
    const ElfW(Rela) *rela = (const void *)entry(image, table);
    const ElfW(Sym) *symbols = (const void *)entry(image, DT_SYMTAB);
    for (size_t i = 0; i < entry(image, size) / sizeof *rela; i++) {
        unsigned type = ELF64_R_TYPE(rela[i].r_info);
        const ElfW(Sym) *symbol = &symbols[ELF64_R_SYM(rela[i].r_info)];
        unsigned kind = ELF64_ST_TYPE(symbol->st_info);
        if ((type != R_X86_64_JUMP_SLOT && type != R_X86_64_GLOB_DAT && type != R_X86_64_64) ||
            rela[i].r_addend != 0 || symbol->st_shndx != SHN_UNDEF ||
            (kind != STT_FUNC && kind != STT_NOTYPE))
            continue;
        struct pn__import import = {
            .name = (const char *)entry(image, DT_STRTAB) + symbol->st_name,
            .slot = (uintptr_t *)(image->base + rela[i].r_offset),
        };
        take(&by_test, &import);
    }
}

static bool has(const struct found *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->names[i], name) == 0)
            return true;
    return false;
}

static struct pn__image image_of(const struct dl_phdr_info *info)
{
    return (struct pn__image){info->dlpi_addr, info->dlpi_name, info->dlpi_phdr, info->dlpi_phnum};
}

static int compare(struct dl_phdr_info *info, size_t size, void *ctx)
{
    size_t *probes = ctx;
    struct pn__image image = image_of(info);
    (void)size;
    if (strstr(image.name, "linux-vdso"))
        return 0; /* imports nothing, and its addresses are not the linker's */
    by_room.count = by_test.count = 0;
    assert_int_equal(pn__image_imports(&image, take, &by_room), 0);
    read_table(&image, DT_RELA, DT_RELASZ);
    read_table(&image, DT_JMPREL, DT_PLTRELSZ);
    assert_int_equal(by_room.count, by_test.count);
    for (size_t i = 0; i < by_room.count; i++) {
        assert_ptr_equal(by_room.slots[i], by_test.slots[i]);
        assert_string_equal(by_room.names[i], by_test.names[i]);
    }
    if (strstr(image.name, "wait_probe"))
        *probes += has(&by_room, "nanosleep");
    if (!image.name[0])
        assert_true(has(&by_room, "usleep"));
    return 0;
}

/* Kept out of the compiler's reach, so that the address is really taken. */
static int (*volatile address_of_usleep)(useconds_t);

static void every_import_is_found(void **state)
{
    size_t probes = 0;
    (void)state;
    address_of_usleep = usleep;
    usleep(0);
    dl_iterate_phdr(compare, &probes);
    assert_int_equal(probes, 3);
}

/* --- Read-only pages ------------------------------------------------------------------------------ */

static void a_last_page_in_part_is_writable(void **state)
{
    static const ElfW(Phdr) none = {.p_type = PT_LOAD};
    ElfW(Phdr) relro = {.p_type = PT_GNU_RELRO, .p_vaddr = 0x1e10, .p_memsz = 0x21f0};
    uintptr_t base = 0x7000000;
    struct pn__image image = {base, "", &relro, 1};
    struct pn__span span = pn__image_sealed(&image);
    (void)state;
    assert_int_equal(span.start, base + 0x1000);
    assert_int_equal(span.end, base + 0x4000);
    relro.p_memsz--;
    assert_int_equal(pn__image_sealed(&image).end, base + 0x3000);
    image.phdr = &none;
    span = pn__image_sealed(&image);
    assert_false(pn__span_contains(&span, base));
}

/* The rights of the pages of the libraries of this test. */
static size_t rights(char *text, size_t size)
{
    char line[512];
    size_t n = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    text[0] = '\0';
    while (fgets(line, sizeof line, maps))
        if (strstr(line, "wait_probe"))
            n += (size_t)snprintf(text + n, size - n, "%s", line);
    fclose(maps);
    assert_true(n > 0 && n < size);
    return n;
}

static void pages_are_closed_again(void **state)
{
    static char before[16384], patched[16384], after[16384];
    struct pn_wait_config config = {0};
    (void)state;
    rights(before, sizeof before);
    assert_int_equal(pn_wait_install(&config), 0);
    rights(patched, sizeof patched);
    pn_wait_uninstall();
    rights(after, sizeof after);
    assert_string_equal(before, patched);
    assert_string_equal(before, after);
}

/* --- Patches --------------------------------------------------------------------------------------- */

/* Three pages of slots, all of them read-only to the linker. */
struct pages {
    uintptr_t *slots;
    size_t per_page;
    ElfW(Phdr) phdr[2];
    struct pn__image image;
};

static void pages_make(struct pages *p, size_t page_size)
{
    p->per_page = page_size / sizeof *p->slots;
    p->slots =
        mmap(NULL, 3 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p->slots, MAP_FAILED);
    for (size_t i = 0; i < 3 * p->per_page; i++)
        p->slots[i] = i;
    p->phdr[0] = (ElfW(Phdr)){.p_type = PT_GNU_RELRO, .p_memsz = 3 * page_size};
    p->phdr[1] = (ElfW(Phdr)){.p_type = PT_LOAD, .p_memsz = 3 * page_size};
    p->image = (struct pn__image){(uintptr_t)p->slots, "", p->phdr, 2};
    assert_int_equal(mprotect(p->slots, 3 * page_size, PROT_READ), 0);
}

static void plan(struct pn__patches *patches, uintptr_t *slot)
{
    struct pn__patch patch = {slot, *slot, *slot + 1000};
    assert_int_equal(pn__patches_add(patches, &patch), 0);
}

static void patches_are_stored_and_undone(void **state)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    struct pn__patches patches = {0};
    struct pages p;
    (void)state;
    pages_make(&p, page_size);
    plan(&patches, &p.slots[1]);
    plan(&patches, &p.slots[p.per_page]);
    assert_int_equal(pn__patches_store(&patches, 0, &p.image), 0);
    for (size_t i = 2; i < 40; i++)
        plan(&patches, &p.slots[i]);
    assert_int_equal(pn__patches_store(&patches, 2, &p.image), 0);
    assert_int_equal(p.slots[1], 1001);
    assert_int_equal(p.slots[39], 1039);
    assert_int_equal(p.slots[40], 40);
    assert_int_equal(p.slots[p.per_page], p.per_page + 1000);

    /* One was taken by somebody else meanwhile: that stays. */
    assert_int_equal(mprotect(p.slots, page_size, PROT_READ | PROT_WRITE), 0);
    p.slots[5] = 77;
    pn__patches_recheck(&patches, &p.image);
    assert_int_equal(patches.count, 39);
    p.slots[6] = 78;
    assert_int_equal(mprotect(p.slots, page_size, PROT_READ), 0);
    pn__patches_undo(&patches, &p.image);
    assert_int_equal(p.slots[1], 1);
    assert_int_equal(p.slots[5], 77);
    assert_int_equal(p.slots[6], 78);
    assert_int_equal(p.slots[p.per_page], p.per_page);
    pn__patches_free(&patches);
    munmap(p.slots, 3 * page_size);
}

static void what_cannot_be_opened_is_not_written(void **state)
{
    size_t page_size = (size_t)sysconf(_SC_PAGESIZE);
    struct pn__patches patches = {0};
    struct pages p;
    (void)state;
    pages_make(&p, page_size);
    plan(&patches, &p.slots[0]);
    assert_int_equal(pn__patches_store(&patches, 0, &p.image), 0);
    plan(&patches, &p.slots[1]);
    plan(&patches, &p.slots[2 * p.per_page]);
    munmap(p.slots + p.per_page, page_size);
    assert_int_equal(pn__patches_store(&patches, 1, &p.image), -ENOMEM);
    assert_int_equal(patches.count, 1);
    assert_int_equal(p.slots[0], 1000);
    assert_int_equal(p.slots[1], 1);
    assert_int_equal(p.slots[2 * p.per_page], 2 * p.per_page);
    pn__patches_free(&patches);
    munmap(p.slots, 3 * page_size);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_import_is_found),
        cmocka_unit_test(a_last_page_in_part_is_writable),
        cmocka_unit_test(pages_are_closed_again),
        cmocka_unit_test(patches_are_stored_and_undone),
        cmocka_unit_test(what_cannot_be_opened_is_not_written),
    };
    if (argc < 2) {
        print_error("usage: test_wait_images LIBRARY ...\n");
        return 2;
    }
    for (int i = 1; i < argc; i++)
        if (!dlopen(argv[i], RTLD_LAZY | RTLD_LOCAL)) {
            print_error("%s\n", dlerror());
            return 2;
        }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
