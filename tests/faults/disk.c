/* A disk that can be slow, hang, fail, and lose its power.
 *
 * usage: disk DIRECTORY BYTES. Mounts a file system with one file, "disk", of that size, for a loop device, and obeys
 * the lines on standard input, each answered by one of its own; at their end it goes.
 *
 *   well       takes what is written, and keeps it at the latest when it is told to flush
 *   slow MS    as that, but each write and flush takes so much longer
 *   hang       answers nothing until the next line
 *   fail       neither writes nor flushes; what it has can be read
 *   off        power is cut: everything fails. When it is back, of each block written since the last flush it is chance
 *              whether it was still written
 *
 * It speaks the kernel's FUSE protocol itself, which for one file is less than a library needs to be told. When it is
 * killed, the kernel lets all go who wait for it: nothing hangs for ever. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define BLOCK     4096U
#define WRITE_MAX (1U << 20)
#define FILE_NODE 2U

enum condition { WELL, SLOW, HANG, FAIL, OFF };

static struct disk {
    int device;
    enum condition condition;
    unsigned slow_ms;
    uint64_t size;
    char *seen;      /* what is read: written, perhaps not yet flushed */
    char *kept;      /* what survives a cut of the power */
    bool *unflushed; /* of each block: in the list */
    uint32_t *list;
    unsigned list_count;
} disk;

static void die(const char *what) {
    fprintf(stderr, "disk: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- the platter ---- */

static void copy_block(char *to, const char *from, uint32_t block) {
    memcpy(to + (size_t)block * BLOCK, from + (size_t)block * BLOCK, BLOCK);
}

static void mark(uint64_t offset, uint64_t size) {
    for (uint64_t block = offset / BLOCK; block * BLOCK < offset + size; block++) {
        if (!disk.unflushed[block])
            disk.list[disk.list_count++] = (uint32_t)block;
        disk.unflushed[block] = true;
    }
}

static void forget_unflushed(void) {
    for (unsigned i = 0; i < disk.list_count; i++)
        disk.unflushed[disk.list[i]] = false;
    disk.list_count = 0;
}

static void flush(void) {
    for (unsigned i = 0; i < disk.list_count; i++)
        copy_block(disk.kept, disk.seen, disk.list[i]);
    forget_unflushed();
}

static void lose_power(void) {
    for (unsigned i = 0; i < disk.list_count; i++)
        if (random() % 2 == 0)
            copy_block(disk.kept, disk.seen, disk.list[i]);
        else
            copy_block(disk.seen, disk.kept, disk.list[i]);
    forget_unflushed();
}

/* ---- the file system ---- */

static struct fuse_attr attributes(uint64_t node) {
    struct fuse_attr attr = {.ino = node, .nlink = 1, .mode = S_IFDIR | 0755, .blksize = BLOCK};
    if (node == FILE_NODE) {
        attr.mode = S_IFREG | 0600;
        attr.size = disk.size;
        attr.blocks = disk.size / 512;
    }
    return attr;
}

static void answer(const struct fuse_in_header *question, int code, const void *data, size_t size) {
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof header + size), .error = -code, .unique = question->unique};
    struct iovec parts[] = {{&header, sizeof header}, {(void *)(uintptr_t)data, size}};
    if (writev(disk.device, parts, 2) < 0 && errno != ENOENT) /* ENOENT: the asker was interrupted */
        die("cannot answer");
}

static void initialize(const struct fuse_in_header *question, const struct fuse_init_in *in) {
    struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
                                .minor = in->minor < 31 ? in->minor : 31,
                                .max_readahead = in->max_readahead,
                                .flags = in->flags & (FUSE_BIG_WRITES | FUSE_MAX_PAGES),
                                .max_write = WRITE_MAX,
                                .max_pages = WRITE_MAX / BLOCK,
                                .time_gran = 1};
    answer(question, 0, &out, sizeof out);
}

static void look_up(const struct fuse_in_header *question, const char *name) {
    struct fuse_entry_out out = {.nodeid = FILE_NODE, .attr = attributes(FILE_NODE), .entry_valid = 3600};
    bool is_there = strcmp(name, "disk") == 0;
    answer(question, is_there ? 0 : ENOENT, &out, is_there ? sizeof out : 0);
}

static void tell_attributes(const struct fuse_in_header *question) {
    struct fuse_attr_out out = {.attr_valid = 3600, .attr = attributes(question->nodeid)};
    answer(question, 0, &out, sizeof out);
}

static void read_blocks(const struct fuse_in_header *question, const struct fuse_read_in *in) {
    uint64_t left = in->offset < disk.size ? disk.size - in->offset : 0;
    answer(question, 0, disk.seen + in->offset, in->size < left ? in->size : (size_t)left);
}

static void write_blocks(const struct fuse_in_header *question, const struct fuse_write_in *in) {
    struct fuse_write_out out = {.size = in->size};
    if (in->size > disk.size || in->offset > disk.size - in->size) {
        answer(question, ENOSPC, NULL, 0);
        return;
    }
    memcpy(disk.seen + in->offset, in + 1, in->size);
    mark(in->offset, in->size);
    answer(question, 0, &out, sizeof out);
}

static void obey(const struct fuse_in_header *question) {
    struct fuse_open_out opened = {.open_flags = FOPEN_DIRECT_IO};
    struct fuse_statfs_out room = {.st = {.bsize = BLOCK, .namelen = 255}};
    const void *in = question + 1;
    switch (question->opcode) {
    case FUSE_INIT:
        initialize(question, in);
        break;
    case FUSE_LOOKUP:
        look_up(question, in);
        break;
    case FUSE_GETATTR:
    case FUSE_SETATTR:
        tell_attributes(question);
        break;
    case FUSE_OPEN:
        answer(question, 0, &opened, sizeof opened);
        break;
    case FUSE_READ:
        read_blocks(question, in);
        break;
    case FUSE_WRITE:
        write_blocks(question, in);
        break;
    case FUSE_FSYNC:
        flush();
        answer(question, 0, NULL, 0);
        break;
    case FUSE_STATFS:
        answer(question, 0, &room, sizeof room);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break; /* these want no answer */
    case FUSE_RELEASE:
        answer(question, 0, NULL, 0);
        break;
    default:
        answer(question, ENOSYS, NULL, 0);
    }
}

/* ---- its condition ---- */

static bool is_write(const struct fuse_in_header *question) {
    return question->opcode == FUSE_WRITE || question->opcode == FUSE_FSYNC;
}

static void take_question(void) {
    static union {
        struct fuse_in_header header;
        char bytes[WRITE_MAX + 4096];
    } question;
    if (read(disk.device, question.bytes, sizeof question) < 0) {
        if (errno == ENODEV) /* unmounted */
            exit(0);
        if (errno != EINTR && errno != EAGAIN && errno != ENOENT)
            die("cannot read a question");
        return;
    }
    bool is_data = is_write(&question.header) || question.header.opcode == FUSE_READ;
    if ((disk.condition == OFF && is_data) || (disk.condition == FAIL && is_write(&question.header))) {
        answer(&question.header, EIO, NULL, 0);
        return;
    }
    if (disk.condition == SLOW && is_write(&question.header))
        nanosleep(&(struct timespec){.tv_sec = disk.slow_ms / 1000, .tv_nsec = (long)(disk.slow_ms % 1000) * 1000000},
                  NULL);
    obey(&question.header);
}

static void take_command(void) {
    static const char *const names[] = {
        [WELL] = "well", [SLOW] = "slow", [HANG] = "hang", [FAIL] = "fail", [OFF] = "off"};
    char line[64], word[16];
    if (fgets(line, sizeof line, stdin) == NULL)
        exit(0);
    if (sscanf(line, "%15s %u", word, &disk.slow_ms) < 1)
        return;
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(word, names[i]) != 0)
            continue;
        if (disk.condition == OFF && i != OFF)
            lose_power();
        disk.condition = (enum condition)i;
    }
    puts(names[disk.condition]);
}

static void *memory(size_t size) {
    void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        die("no memory");
    return start;
}

static void make(const char *directory, uint64_t size) {
    char options[128];
    disk.size = size / BLOCK * BLOCK;
    disk.seen = memory(disk.size);
    disk.kept = memory(disk.size);
    disk.unflushed = memory(disk.size / BLOCK * sizeof *disk.unflushed);
    disk.list = memory(disk.size / BLOCK * sizeof *disk.list);
    disk.device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (disk.device < 0)
        die("/dev/fuse");
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", disk.device);
    if (mount("disk", directory, "fuse", MS_NOSUID | MS_NODEV, options) != 0)
        die(directory);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fputs("usage: disk DIRECTORY BYTES\n", stderr);
        return 2;
    }
    setvbuf(stdin, NULL, _IONBF, 0); /* what poll does not see must not wait */
    setvbuf(stdout, NULL, _IOLBF, 0);
    make(argv[1], strtoull(argv[2], NULL, 10));
    puts("well");
    for (;;) {
        struct pollfd events[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                  {.fd = disk.condition == HANG ? -1 : disk.device, .events = POLLIN}};
        if (poll(events, 2, -1) < 0 && errno != EINTR)
            die("poll");
        if (events[0].revents != 0)
            take_command();
        else if (events[1].revents != 0)
            take_question();
    }
}
