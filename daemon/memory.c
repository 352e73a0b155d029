/* Most of what a daemon at rest has in memory only its start needed: symbol tables, parsers, what hashed a password.
 * The heap's free pages go back to the kernel. So do the mappings of the libraries' code and constants; the pages stay
 * in the page cache, and what is used again is mapped again within microseconds. Our own code stays mapped. */
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/daemon.h"

#define REST (5 * NSEC_PER_SEC)

/* Only what nobody can have written to: then dropping a page loses nothing. Relocated constants are not among it, as
 * their segment is a writable one. */
static bool is_pristine(const ElfW(Phdr) * segment) {
    return segment->p_type == PT_LOAD && (segment->p_flags & PF_W) == 0;
}

static int library_unmap(struct dl_phdr_info *library, size_t size, void *user) {
    uintptr_t page = *(const uintptr_t *)user;
    (void)size;
    if (library->dlpi_name[0] != '/') /* ourselves, and what the kernel lends us */
        return 0;
    for (unsigned i = 0; i < library->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &library->dlpi_phdr[i];
        uintptr_t from = (library->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        uintptr_t to = (library->dlpi_addr + segment->p_vaddr + segment->p_filesz) & ~(page - 1);
        if (is_pristine(segment) && to > from)
            (void)madvise((void *)from, to - from, MADV_DONTNEED);
    }
    return 0;
}

static void give_back(void) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    malloc_trim(0);
    dl_iterate_phdr(library_unmap, &page);
}

void memory_tick(struct daemon *daemon, nsec now) {
    struct memory *memory = &daemon->memory;
    if (memory->index != daemon->core.topology.index) {
        *memory = (struct memory){.index = daemon->core.topology.index, .busy_at = now};
    } else if (!memory->given_back && now > memory->busy_at + REST) {
        give_back();
        memory->given_back = true;
    }
}
