/* One member's settings, read from one YAML file. Knows YAML and the table of settings; knows nothing of Raft,
 * PostgreSQL processes or the record. All mistakes of a file are reported, each as one line
 * "file:line:column: what, and what to write instead". */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"

#define CONFIG_DEFAULT_FILE "/etc/ttorch/ttorch.yaml"
#define CONFIG_LIST_MAX     64 /* parameters or hba lines in one list */
#define CONFIG_TEMPLATE_MAX 8  /* files made of templates */
#define CONFIG_POOLER_MAX   16 /* PgBouncers */
#define CONFIG_ACCESS_MAX   16 /* published files with a mode of their own */

enum config_watchdog { CONFIG_WATCHDOG_OFF, CONFIG_WATCHDOG_AUTOMATIC, CONFIG_WATCHDOG_REQUIRED };
extern const char *const config_watchdog_words[];

enum config_durability { CONFIG_QUORUM, CONFIG_STRICT, CONFIG_ASYNC }; /* same order as Durability of the model */

enum config_tsig { CONFIG_HMAC_SHA256, CONFIG_HMAC_SHA512 };

struct config_member {
    char name[NAME_MAX_LENGTH + 1];
    char peer_host[HOST_MAX_LENGTH + 1];
    uint16_t peer_port;
    char postgres_host[HOST_MAX_LENGTH + 1];
    uint16_t postgres_port;
    bool witness;
    bool observer;     /* has no vote; `postgres_host` is "" if it holds no data either */
    unsigned priority; /* default 100; 0 = never primary */
};

bool config_member_has_data(const struct config_member *member);

struct config_parameter {
    char name[64];
    char value[256];
};

struct config_parameters {
    unsigned count;
    struct config_parameter list[CONFIG_LIST_MAX];
};

struct config_templates {
    unsigned count;
    struct config_template {
        char target[PATH_MAX_LENGTH + 1]; /* the file that is made */
        char source[PATH_MAX_LENGTH + 1]; /* of this template */
    } list[CONFIG_TEMPLATE_MAX];
};

struct config_accesses {
    unsigned count;
    struct config_access {
        char path[PATH_MAX_LENGTH + 1]; /* of a published file */
        unsigned mode;
        char owner[128]; /* "user" or "user:group", "" = as the daemon */
    } list[CONFIG_ACCESS_MAX];
};

struct config_poolers {
    unsigned count;
    struct config_pooler {
        char name[NAME_MAX_LENGTH + 1];
        char host[HOST_MAX_LENGTH + 1]; /* an IP address, or the directory of its socket */
        uint16_t port;
    } list[CONFIG_POOLER_MAX];
};

struct config_shared_line { /* same layout as the record's: what must agree among members before founding */
    char key[96];
    char value[288];
    char file[256];
    int line; /* 0 = a default, not in the file */
};

struct config {
    char file[PATH_MAX_LENGTH + 1];
    char cluster[NAME_MAX_LENGTH + 1];
    char member[NAME_MAX_LENGTH + 1];
    unsigned self; /* index of `member` in members */
    unsigned members_count;
    struct config_member members[MEMBERS_MAX]; /* in the order of their names, m2 before m10: the same everywhere */

    char data_directory[PATH_MAX_LENGTH + 1];    /* ours: raft/, postgresql/ (label, pledge, settings), topology.json */
    char runtime_directory[PATH_MAX_LENGTH + 1]; /* sockets; default = data_directory */
    char http_listen[HOST_MAX_LENGTH + 1];       /* "" = only the unix socket */
    uint16_t http_port;
    char http_certificate_file[PATH_MAX_LENGTH + 1]; /* "" = no TLS; with http_key_file */
    char http_key_file[PATH_MAX_LENGTH + 1];
    char http_client_ca_file[PATH_MAX_LENGTH + 1]; /* "" = clients need no certificate */

    struct {
        char bin_directory[PATH_MAX_LENGTH + 1];
        char data_directory[PATH_MAX_LENGTH + 1];
        char socket_directory[PATH_MAX_LENGTH + 1];
        char listen_addresses[HOST_MAX_LENGTH + 1];
        uint16_t port; /* from the members list, kept here for convenience */
        char superuser[64];
        uint64_t slot_keep_bytes;
        uint64_t diverged_keep_bytes;
        struct config_parameters all, primary, standby;
        unsigned hba_count;
        char hba[CONFIG_LIST_MAX][256];
    } postgresql;

    struct {
        char user[64];
        char password_file[PATH_MAX_LENGTH + 1];
    } replication;

    enum config_durability durability;
    unsigned lease_ms;       /* 500 to 60000, default 2000 */
    uint64_t max_loss_bytes; /* async only */
    unsigned probe_interval_ms;
    unsigned probe_timeout_ms;
    enum config_watchdog watchdog;
    char watchdog_device[PATH_MAX_LENGTH + 1];

    struct {
        char topology_file[PATH_MAX_LENGTH + 1]; /* default <data_directory>/topology.json; "" = none, as for all */
        char freshness_file[PATH_MAX_LENGTH + 1];
        char env_file[PATH_MAX_LENGTH + 1];
        char env_primary[64], env_replica[64], env_pool[64]; /* names of variables; # in the second one is a number */
        char service_file[PATH_MAX_LENGTH + 1];
        char pgbouncer_file[PATH_MAX_LENGTH + 1];
        struct config_templates templates;
        unsigned file_mode;
        char file_owner[128];               /* "user" or "user:group", "" = as the daemon */
        struct config_accesses file_access; /* instead of these two */
        char database[64], user[64], options[256];
        unsigned libpq; /* oldest major version among the clients */
        char hook[PATH_MAX_LENGTH + 1];
        unsigned hook_timeout_ms;
        struct {
            unsigned lag_warning_ms, lag_critical_ms, response_warning_ms, response_critical_ms;
        } health;
    } publish;

    struct {
        struct config_poolers poolers;
        char user[64];
        char password_file[PATH_MAX_LENGTH + 1]; /* "" = none */
        char databases[512];                     /* separated by ", "; "" = that of `publish` */
        unsigned pause_ms, hold_ms;
    } pgbouncer;

    struct {
        char zone[HOST_MAX_LENGTH + 1]; /* "" = no DNS */
        char listen[512];               /* addresses, separated by ", "; "" = does not answer */
        uint16_t port;
        char ns[HOST_MAX_LENGTH + 1];
        unsigned ttl_ms;
        uint64_t max_lag_bytes;
        unsigned rate_limit; /* answers a second to one network, 0 = no limit */
        struct {
            char server_host[HOST_MAX_LENGTH + 1]; /* an address; "" = sends none */
            uint16_t server_port;
            char zone[HOST_MAX_LENGTH + 1]; /* "" = dns.zone */
            char key_name[HOST_MAX_LENGTH + 1];
            char key_file[PATH_MAX_LENGTH + 1];
            enum config_tsig algorithm;
            unsigned ttl_ms;
        } update;
    } dns;

    unsigned shared_count;
    struct config_shared_line shared[MEMBERS_MAX * 5 + 16];
};

/* Every complaint is given to `complain` (one call a line, no newline). Returns FAILED if there was any. `config` is
 * large: allocate it on the heap. */
typedef void config_complaint(void *user, const char *line);
status config_load(struct config *ret_config, const char *file, config_complaint *complain, void *user) must_check;
/* The same for `ttorch`, which may be run by somebody who is not the daemon: looks at nothing beside the file (the
 * password file, PostgreSQL's programs; bin_directory is "" if it is not in the file). */
status config_load_for_client(struct config *ret_config, const char *file, config_complaint *complain,
                              void *user) must_check;

/* Where `ttorch` finds the daemon: <runtime_directory>/ttorchd.sock. */
void config_socket_path(const struct config *config, char *buffer, size_t size);

/* Compares a reloaded file with the running one: calls `changed` for each setting that differs, telling whether it
 * may change at run time. */
typedef void config_change(void *user, const char *key, const char *before, const char *after, bool at_run_time);
void config_compare(const struct config *before, const struct config *after, config_change *changed, void *user);

/* Takes from a reloaded file what may change at run time, and nothing else. */
void config_take_over(struct config *running, const struct config *reloaded);

/* The table of settings as markdown rows, for docs/CONFIGURATION.md; a test holds the two equal. */
void config_print_table(void);
