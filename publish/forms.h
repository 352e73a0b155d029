/* The topology in the forms that programs read: texts of files, made of a face and the operator's names. Pure.
 *
 * None of them names a primary unless the face is fresh and the primary open: forms of one face never disagree. */
#pragma once
#include <stdio.h>

#include "publish/face.h"

struct form {
    const struct face *face;
    const struct publish_config *config;
};

typedef void form_printer(FILE *out, const struct form *form);

void form_topology(FILE *out, const struct form *form);  /* JSON */
void form_freshness(FILE *out, const struct form *form); /* fresh, epoch, index, and when this was written */
void form_env(FILE *out, const struct form *form);       /* NAME="URL" */
void form_service(FILE *out, const struct form *form);   /* libpq's pg_service.conf: rw, ro, any */
void form_pgbouncer(FILE *out, const struct form *form); /* [databases] */

/* The host of the database while there is no primary: one that is not listed would throw its clients out. */
#define PGBOUNCER_NOWHERE "/nonexistent"
/* PgBouncer knows no quotes in names: what it does not take becomes "_". */
void form_pgbouncer_name(const char *database, char *ret_name, size_t size);

/* What `print` prints, malloc'ed; NULL when memory ran out. */
char *form_text(form_printer *print, const struct form *form);

/* ---- parts ---- */

struct hosts {
    unsigned count;
    const Member *list[DATA_MEMBERS_MAX];
};

struct hosts hosts_all(const struct face *face);      /* that hold data; the primary first, if it is known */
struct hosts hosts_standbys(const struct face *face); /* that stream from the primary; none unless fresh */
struct hosts hosts_readers(const struct face *face);  /* the standbys, then the primary; all if none is known */
struct hosts hosts_one(const Member *member);

enum target_session { SESSION_ANY, SESSION_WRITE, SESSION_READ };
/* postgresql://user@host:port,host:port/database?options */
void print_url(FILE *out, const struct form *form, const struct hosts *hosts, enum target_session session);
/* jdbc:postgresql://host:port,host:port/database?options, in pgjdbc's names for them; nothing without hosts */
void print_jdbc_url(FILE *out, const struct form *form, const struct hosts *hosts, enum target_session session);
