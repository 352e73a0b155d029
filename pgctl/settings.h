/* The files that tell PostgreSQL what we want: our settings file (in the state directory, included by one marked line
 * in postgresql.conf), marked blocks in pg_hba.conf and pg_ident.conf, and the password file of its receiver. What
 * else is in those files stays. No password ever goes into a settings file. */
#pragma once
#include "model/operation.h"
#include "pgctl/pgctl.h"

#define NOBODY "ANY 1 (\"ttorch_nobody\")" /* a rule that nobody can acknowledge */

/* What changes at run time; kept in the settings file, from which a restarted daemon reads it back. */
struct settings {
    bool primary;                /* which of the user's parameters apply */
    char primary_conninfo[1024]; /* empty = a standby of nobody */
    char primary_slot_name[64];
    char synchronous_standby_names[VOTERS_MAX * 68 + 16]; /* empty = degraded */
};

/* A standby does not start with less of these than its primary had (pg_control has it). 0 = as configured. */
#define MINIMUMS 5
struct minimums {
    unsigned values[MINIMUMS];
};
/* From what pg_controldata prints. */
void minimums_read(struct minimums *ret_minimums, const char *text);

void settings_of_nobody(struct settings *settings);
/* Standby of `upstream`, under `name`. */
void settings_follow(struct settings *settings, const struct pgctl_config *config, const char *pgpass,
                     const struct upstream *upstream, const char *name);
/* `ANY k ("a", "b")`, or empty when none is needed. */
void settings_rule(char *ret_names, size_t size, const struct rule_setting *rule);
/* As the receiver and PostgreSQL's programs connect to `upstream`; `name` and `database` may be NULL. */
void settings_conninfo(char *ret_conninfo, size_t size, const struct pgctl_config *config, const char *pgpass,
                       const struct upstream *upstream, const char *name, const char *database);
/* `ttorch_<member>`, as slot names allow it. */
#define SLOT_NAME_MAX 64
void slot_name(char *ret_name, const char *member);

/* False: there is none yet; `ret_settings` is then that of nobody. */
bool settings_read(struct settings *ret_settings, const char *path);
/* On disk (fsync) when it returns. */
status settings_write(const struct settings *settings, const struct minimums *minimums, const char *path,
                      const struct pgctl_config *config, struct error *error) must_check;
/* Name of the first parameter of the user's, from `*index` on, that is ours to set; NULL if there is none left. */
const char *settings_overridden(const struct pgctl_config *config, unsigned *index);

/* The include line; needs no server. */
status settings_include(const char *data_directory, const char *settings_path, struct error *error) must_check;
/* Takes what is ours to set out of postgresql.auto.conf, where it would win. Only while the server is down. */
status settings_clean_auto(const char *data_directory, struct error *error) must_check;
/* The marked blocks. `upkeep` may be NULL: the hosts are not known yet, a block that is there stays as it is.
 * `ret_changed`: PostgreSQL has to reload. */
status settings_hba(const struct pgctl_config *config, const struct upkeep *upkeep, bool *ret_changed,
                    struct error *error) must_check;
/* After initdb: clients of the same networks may come with a password. */
status settings_hba_default(const char *data_directory, struct error *error) must_check;
/* From the password file. */
status settings_pgpass(const struct pgctl_config *config, const char *path, struct error *error) must_check;
/* First line of the password file; wipe it after use. */
#define PASSWORD_MAX 256
status password_read(char *ret_password, const char *path, struct error *error) must_check;
