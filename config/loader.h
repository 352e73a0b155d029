/* What the steps of loading one file share: the settings so far, where in the file each one stands, and the
 * complaints. The steps, in order: read (the tree), complete (defaults, what is missing), check (what hangs together,
 * and the files named). */
#pragma once
#include <yaml.h>

#include "config/settings.h"

#define COMPLAINTS_MAX   100 /* a file with more mistakes is something else than a configuration */
#define COMPLAINT_MAX    (PATH_MAX_LENGTH + ERROR_TEXT_MAX + 32)
#define SETTINGS_MAX     96
#define ENTRIES_MAX      256 /* of one section or list: no file needs more, and duplicates are sought in squares */
#define DEPTH_MAX        8   /* ours are 3 deep */
#define NODES_MAX        10000
#define FILE_BYTES_MAX   1048576
#define SECRET_BYTES_MAX 1024

struct place {
    int line, column; /* from 1; 0 = not in the file */
};

struct complaint {
    struct place place;
    char text[ERROR_TEXT_MAX];
};

struct loader {
    const char *file;
    bool outside; /* look at what is beside the file, too: the password file, PostgreSQL's programs */
    yaml_document_t document;
    struct config *config;
    struct given {
        struct place key, value;
        bool bad;                       /* complained about: says nothing to later checks */
    } given[SETTINGS_MAX][MEMBERS_MAX]; /* [setting][member], [setting][0] where it is not of a member */
    struct place members;               /* the list itself */
    struct place section[MEMBERS_MAX];  /* of each member; none if it is no section */
    bool found_members;                 /* the list is there and has a member, good or bad */
    unsigned complaints_count;
    bool complaints_left_out;
    struct complaint complaints[COMPLAINTS_MAX];
};

/* complaints.c */
void complain(struct loader *loader, struct place place, const char *format, ...) __attribute__((format(printf, 3, 4)));
struct place place_of_mark(yaml_mark_t mark);
/* All of them in the order of the file. FAILED if there was any. */
status complaints_tell(struct loader *loader, config_complaint *tell, void *user) must_check;

/* read.c: false if there is nothing to go on with */
bool read_document(struct loader *loader, const char *bytes, size_t length);
const char *node_kind(const yaml_node_t *node); /* for "found ..." */
bool node_is_empty(const yaml_node_t *node);    /* nothing was written, or ~ */
/* The scalar as a string. False, with a complaint, if it is no scalar or holds a zero byte. */
bool node_text(struct loader *loader, const yaml_node_t *node, const char *what, const char *expected,
               const char **ret_text);
struct given *given(struct loader *loader, const struct setting *setting, unsigned member);

/* lists.c */
void read_parameters(struct loader *loader, const struct setting *setting, const yaml_node_t *node);
void read_lines(struct loader *loader, const struct setting *setting, const yaml_node_t *node);
void read_accesses(struct loader *loader, const struct setting *setting, const yaml_node_t *node);
void read_templates(struct loader *loader, const struct setting *setting, const yaml_node_t *node);
void read_poolers(struct loader *loader, const struct setting *setting, const yaml_node_t *node);
void read_words(struct loader *loader, const struct setting *setting, const yaml_node_t *node);

/* check.c */
void complete(struct loader *loader);
void check(struct loader *loader);

/* load.c: the whole way from bytes to a config, without opening `file` */
status config_parse(struct config *ret_config, const char *file, const char *bytes, size_t length, bool outside,
                    config_complaint *tell, void *user) must_check;
