#include "pgctl/diverged.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "model/model.h"
#include "pgctl/file.h"
#include "pgctl/internal.h"

#define SEGMENTS_MAX  1024
#define PRUNED_MAX    32 /* at once; the next time goes on */
#define WAL_NAME_SIZE 24
#define LIST_NAME     "transactions.txt"

/* ---- segments ---- */

struct segment {
    char name[64]; /* of a segment, or of a history file, which has no size here */
    uint32_t timeline;
    uint64_t start, size;
};

struct segments {
    struct segment list[SEGMENTS_MAX];
    unsigned count;
};

/* What PostgreSQL has made or recycled for WAL to come holds nothing, or old pages: a page tells its own address. */
static bool holds_wal(const char *path, uint64_t start) {
    struct {
        uint16_t magic, info;
        uint32_t timeline;
        uint64_t address;
    } page = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool read = fd >= 0 && pread(fd, &page, sizeof page, 0) == (ssize_t)sizeof page;
    if (fd >= 0)
        close(fd);
    return read && page.magic != 0 && page.address == start;
}

static bool segment_of(struct segment *ret_segment, const char *wal, const char *name, Position from) {
    char path[PATH_MAX + NAME_MAX + 2];
    unsigned timeline, high, low;
    struct stat at;
    struct segment segment = {.start = 0};
    snprintf(segment.name, sizeof segment.name, "%.63s", name);
    if (sscanf(name, "%8X", &timeline) != 1)
        return false;
    segment.timeline = timeline;
    if (strlen(name) == 16 && strcmp(name + 8, ".history") == 0) {
        *ret_segment = segment;
        return true;
    }
    snprintf(path, sizeof path, "%s/%s", wal, name);
    if (strlen(name) != WAL_NAME_SIZE || sscanf(name + 8, "%8X%8X", &high, &low) != 2 || timeline < from.timeline ||
        stat(path, &at) != 0 || at.st_size == 0)
        return false;
    segment.size = (uint64_t)at.st_size;
    segment.start = ((uint64_t)high << 32) + (uint64_t)low * segment.size;
    if (segment.start + segment.size <= from.lsn || !holds_wal(path, segment.start))
        return false;
    *ret_segment = segment;
    return true;
}

static int in_order(const void *left, const void *right) {
    const struct segment *a = left, *b = right;
    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    return a->timeline < b->timeline ? -1 : a->timeline > b->timeline;
}

/* History files first, then WAL from where the histories part. */
static void segments_find(struct segments *segments, const char *wal, Position from) {
    const struct dirent *entry;
    DIR *directory = opendir(wal);
    segments->count = 0;
    while (directory != NULL && segments->count < SEGMENTS_MAX && (entry = readdir(directory)) != NULL)
        segments->count += segment_of(&segments->list[segments->count], wal, entry->d_name, from);
    if (directory != NULL)
        closedir(directory);
    qsort(segments->list, segments->count, sizeof *segments->list, in_order);
}

/* ---- copy ---- */

static status make_directory(const char *path, struct error *error) {
    return mkdir(path, 0700) == 0 || errno == EEXIST ? OK : error_set(error, "%s: %s", path, strerror(errno));
}

static void parent_directory(const struct pgctl *pgctl, char path[PATH_MAX]) {
    snprintf(path, PATH_MAX, "%s/diverged", pgctl->config.state_directory);
}

static status make_kept_directory(struct pgctl *pgctl, struct error *error) {
    struct diverged *diverged = &pgctl->diverged;
    char parent[PATH_MAX];
    parent_directory(pgctl, parent);
    int length = snprintf(diverged->directory, sizeof diverged->directory, "%s/%lld-%" PRIX64, parent,
                          (long long)time(NULL), diverged->from.lsn);
    if (length < 0 || (size_t)length >= sizeof diverged->directory)
        return error_set(error, "%s: too long", parent);
    if (make_directory(parent, error) == FAILED || make_directory(diverged->directory, error) == FAILED)
        return FAILED;
    return OK;
}

bool diverged_is_kept(const struct pgctl *pgctl, Position from) {
    const struct diverged *diverged = &pgctl->diverged;
    return from.lsn != 0 && diverged->from.lsn == from.lsn && diverged->from.timeline == from.timeline &&
           diverged->copy == pgctl->data.copy && diverged->told.bytes != 0;
}

void diverged_forget(struct pgctl *pgctl) {
    transactions_free(pgctl->diverged.transactions);
    memset(&pgctl->diverged, 0, sizeof pgctl->diverged);
}

static void note_timeline(struct diverged *diverged, const struct segment *segment) {
    for (unsigned i = 0; i < diverged->timelines_count; i++)
        if (diverged->timelines[i].timeline == segment->timeline)
            return;
    if (diverged->timelines_count < DIVERGED_TIMELINES_MAX)
        diverged->timelines[diverged->timelines_count++] = (struct diverged_timeline){
            segment->timeline, segment->start > diverged->from.lsn ? segment->start : diverged->from.lsn};
}

/* Up to the bound for all of them together: what comes first after the histories part is worth most. */
static unsigned choose(struct pgctl *pgctl, const struct segments *segments, const char *argv[]) {
    struct diverged *diverged = &pgctl->diverged;
    uint64_t bytes = 0;
    unsigned count = 0;
    for (unsigned i = 0; i < segments->count; i++) {
        const struct segment *segment = &segments->list[i];
        if (bytes + segment->size > pgctl->config.diverged_keep_bytes) {
            diverged->left_out++;
            continue;
        }
        bytes += segment->size;
        argv[count++] = segment->name;
        if (segment->size == 0)
            continue;
        diverged->segments++;
        note_timeline(diverged, segment);
    }
    return count;
}

static void spawn_copy(struct pgctl *pgctl, const struct segments *segments, const char *wal, const char **argv) {
    static const char script[] = "cd \"$1\" && to=$2 && shift 2 && cp --reflink=auto --target-directory \"$to\" -- "
                                 "\"$@\" && sync -- \"$to\" \"$to\"/*";
    const char *const first[] = {"/bin/sh", "-c", script, "sh", wal, pgctl->diverged.directory};
    unsigned words = sizeof first / sizeof *first;
    memcpy(argv, first, sizeof first);
    argv[words + choose(pgctl, segments, argv + words)] = NULL;
    operate_spawn(pgctl, argv, NULL);
}

void diverged_copy(struct pgctl *pgctl, Position from) {
    struct segments *segments = malloc(sizeof *segments);
    const char **argv = calloc(SEGMENTS_MAX + 8, sizeof *argv);
    char wal[PATH_MAX];
    struct error error;
    diverged_forget(pgctl);
    pgctl->diverged.from = from;
    pgctl->diverged.copy = pgctl->data.copy;
    pgctl->diverged.transactions = transactions_new();
    if (segments == NULL || argv == NULL || pgctl->diverged.transactions == NULL) {
        operate_fail(pgctl, "out of memory");
    } else if (make_kept_directory(pgctl, &error) == FAILED) {
        operate_failed(pgctl, &error);
    } else {
        snprintf(wal, sizeof wal, "%s/pg_wal", pgctl->config.data_directory);
        segments_find(segments, wal, from);
        spawn_copy(pgctl, segments, wal, argv);
    }
    free(argv);
    free(segments);
}

/* ---- prune ---- */

struct kept {
    char name[64];
    uint64_t bytes;
};

static uint64_t directory_bytes(const char *path) {
    uint64_t bytes = 0;
    struct stat at;
    const struct dirent *entry;
    DIR *directory = opendir(path);
    while (directory != NULL && (entry = readdir(directory)) != NULL)
        if (fstatat(dirfd(directory), entry->d_name, &at, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(at.st_mode))
            bytes += (uint64_t)at.st_size;
    if (directory != NULL)
        closedir(directory);
    return bytes;
}

/* Seconds since 1970 have had ten digits since 2001. */
static int by_name(const void *left, const void *right) {
    return strcmp(((const struct kept *)left)->name, ((const struct kept *)right)->name);
}

static unsigned kept_find(struct kept *kept, unsigned max, const char *parent) {
    char path[PATH_MAX + NAME_MAX + 2];
    const struct dirent *entry;
    unsigned count = 0;
    DIR *directory = opendir(parent);
    while (directory != NULL && count < max && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= sizeof kept->name)
            continue;
        snprintf(path, sizeof path, "%s/%s", parent, entry->d_name);
        snprintf(kept[count].name, sizeof kept->name, "%.63s", entry->d_name);
        kept[count++].bytes = directory_bytes(path);
    }
    if (directory != NULL)
        closedir(directory);
    qsort(kept, count, sizeof *kept, by_name);
    return count;
}

bool diverged_prune(struct pgctl *pgctl) {
    struct kept kept[PRUNED_MAX + 1];
    char parent[PATH_MAX];
    uint64_t bytes = 0;
    unsigned words = 6, gone = 0;
    parent_directory(pgctl, parent);
    unsigned count = kept_find(kept, PRUNED_MAX + 1, parent);
    const char *argv[PRUNED_MAX + 8] = {"/bin/sh", "-c", "cd \"$1\" && shift && rm -rf -- \"$@\"", "sh", parent};
    for (unsigned i = 0; i < count; i++)
        bytes += kept[i].bytes;
    const char *newest = strrchr(pgctl->diverged.directory, '/') + 1;
    for (words = 5; gone < count && bytes > pgctl->config.diverged_keep_bytes; gone++) {
        if (strcmp(kept[gone].name, newest) == 0)
            continue;
        bytes -= kept[gone].bytes;
        argv[words++] = kept[gone].name;
    }
    if (words == 5)
        return false;
    operate_spawn(pgctl, argv, NULL);
    return true;
}

/* ---- list ---- */

static void line_taken(void *user, const char *line) {
    struct pgctl *pgctl = user;
    transactions_take(pgctl->diverged.transactions, line);
}

static void spawn_waldump(struct pgctl *pgctl, const struct diverged_timeline *timeline) {
    char program[PATH_MAX], path[PATH_MAX + 8], start[LSN_TEXT_MAX + 8], number[32], limit[32];
    char lsn[LSN_TEXT_MAX];
    snprintf(path, sizeof path, "--path=%s", pgctl->diverged.directory);
    snprintf(start, sizeof start, "--start=%s", lsn_text(timeline->start, lsn));
    snprintf(number, sizeof number, "--timeline=%" PRIu32, timeline->timeline);
    snprintf(limit, sizeof limit, "--limit=%d", TRANSACTIONS_RECORDS_MAX);
    const char *const argv[] = {pgctl_program(pgctl, "pg_waldump", program), path, number, start, limit, NULL};
    operate_spawn(pgctl, argv, line_taken);
}

static void time_text(char *text, size_t size) {
    time_t now = time(NULL);
    struct tm utc;
    text[0] = '\0';
    if (gmtime_r(&now, &utc) != NULL)
        strftime(text, size, "%Y-%m-%d %H:%M:%S UTC", &utc);
}

static void print_header(FILE *out, const struct pgctl *pgctl, const char *operation,
                         const struct transactions_sum *sum) {
    const struct diverged *diverged = &pgctl->diverged;
    const struct operation *under_way = &pgctl->operate.operation;
    char now[64], lsn[LSN_TEXT_MAX], program[PATH_MAX];
    time_text(now, sizeof now);
    fprintf(out,
            "# WAL of member %s that is not in the history of %s, the primary of epoch %" PRIu32 "\n#\n"
            "# kept         %s, before the %s\n"
            "# diverged at  %s on timeline %" PRIu32 "\n"
            "# WAL          %" PRIu64 " bytes, in %u segments beside this file\n",
            pgctl->config.member, under_way->upstream.name, under_way->epoch, now, operation,
            lsn_text(diverged->from.lsn, lsn), diverged->from.timeline, diverged->told.bytes, diverged->segments);
    if (diverged->left_out > 0)
        fprintf(out, "# not kept     %u more segments: postgresql.diverged_keep bounds what is kept\n",
                diverged->left_out);
    fprintf(out, "# commits      %u, and %u of ttorch's own probe; %u transactions did not commit\n", sum->commits,
            sum->probes, sum->unfinished);
    if (sum->records >= TRANSACTIONS_RECORDS_MAX)
        fprintf(out, "# not listed   what follows the first %d records\n", TRANSACTIONS_RECORDS_MAX);
    fprintf(out,
            "#\n"
            "# A line is one commit: transaction id, commit time, LSN of the commit, its records and bytes, and what\n"
            "# they touched, as tablespace/database/file (records). On the primary, in the database with that oid,\n"
            "#     SELECT pg_filenode_relation(0, FILE)\n"
            "# names the relation, if both histories have it (0: of the database's own tablespace).\n"
            "# Look deeper with\n");
    for (unsigned i = 0; i < diverged->timelines_count; i++)
        fprintf(out, "#     %s --path=%s --timeline=%" PRIu32 " --start=%s\n",
                pgctl_program(pgctl, "pg_waldump", program), diverged->directory, diverged->timelines[i].timeline,
                lsn_text(diverged->timelines[i].start, lsn));
    fputs("#\n", out);
}

static status write_list(struct pgctl *pgctl, const char *operation, const struct transactions_sum *sum,
                         struct error *error) {
    char path[sizeof pgctl->diverged.directory + sizeof LIST_NAME + 1], *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL)
        return error_set(error, "out of memory");
    print_header(out, pgctl, operation, sum);
    fputs(transactions_text(pgctl->diverged.transactions), out);
    snprintf(path, sizeof path, "%s/" LIST_NAME, pgctl->diverged.directory);
    status written = fclose(out) == 0 ? file_write(path, 0600, text, error) : error_set(error, "out of memory");
    free(text);
    return written;
}

/* The WAL is kept; a list that cannot be written is no reason not to go on. */
static void finish_list(struct pgctl *pgctl, const char *operation) {
    struct diverged *diverged = &pgctl->diverged;
    struct transactions_sum sum;
    struct error error;
    transactions_sum(diverged->transactions, &sum);
    diverged->told.bytes = sum.end > diverged->from.lsn ? sum.end - diverged->from.lsn : 0;
    diverged->told.commits = sum.commits;
    memcpy(diverged->told.path, diverged->directory, sizeof diverged->told.path);
    if (write_list(pgctl, operation, &sum, &error) == FAILED)
        pgctl_notice(pgctl, "the diverged WAL is kept, but not listed: %s", error.text);
    transactions_free(diverged->transactions);
    diverged->transactions = NULL;
}

bool diverged_list(struct pgctl *pgctl, const char *operation) {
    struct diverged *diverged = &pgctl->diverged;
    if (diverged->transactions == NULL)
        return false;
    if (diverged->listed < diverged->timelines_count) {
        spawn_waldump(pgctl, &diverged->timelines[diverged->listed++]);
        return true;
    }
    finish_list(pgctl, operation);
    return false;
}

void diverged_tell(struct pgctl *pgctl) {
    pgctl->operate.result.diverged = pgctl->diverged.told;
    diverged_forget(pgctl);
}
