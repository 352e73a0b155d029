/* The faces of the topology: what this member knows, in files, over HTTP, and told to a hook. Knows libmicrohttpd and
 * jansson; knows nothing of Raft, PostgreSQL processes or how decisions are made. Publishing never fences.
 *
 * Everything runs on the caller's libuv loop. */
#pragma once
#include <uv.h>

#include "base/error.h"
#include "base/time.h"
#include "model/model.h"

#define FACE_OUTPUTS_MAX 18 /* beside those of publish itself */

/* How one form of publishing does. */
struct face_output {
    const char *name;    /* of the setting: "publish.env_file" */
    const char *where;   /* path or address */
    bool shown;          /* it shows something of ours */
    uint64_t index;      /* of the record in what it shows */
    const char *trouble; /* why it could not show more; "" = all is well */
};

/* What there is to show; owned by the caller, which fills it anew when asked. */
struct face {
    const Topology *topology;
    const History *history;
    uint32_t self;        /* member id, 0 before founding */
    const char *name;     /* our member name */
    const char *version;  /* of ttorchd */
    bool fresh;           /* in touch with a quorum, within one lease */
    nsec fresh_until;     /* unless it hears more */
    nsec lease_until;     /* as the recorded primary: we may write until then; else 0 */
    bool response_known;  /* our PostgreSQL has answered since this daemon started */
    uint64_t response_ms; /* how long its newest answer took */
    const char *leader;   /* Raft leader's member name, "" if unknown */
    uint64_t term;
    const char *why;     /* what the coordinator waits for; "" unless that is us */
    const char *waiting; /* while founding or starting: for what; else "" */
    bool record_lost;    /* `waiting` says why; only rejoining helps */
    bool file_damaged;   /* the same for a file that says what this member's data directory is, or what it pledged */
    const char *superuser;
    nsec now;
    const struct face_output *outputs; /* others than those of publish itself, which adds its own */
    unsigned outputs_count;
    struct face_member {
        bool heard;          /* an observation has arrived since the start of this daemon */
        uint64_t age_ms;     /* since the newest one */
    } members[MEMBERS_MAX];  /* by member id - 1 */
    const Observation *seen; /* the newest of each, in the same order */
};

/* An operator's request, passed to the daemon; the answer comes at once, the outcome is read from status/history. */
struct face_request {
    enum { REQUEST_SWITCHOVER, REQUEST_REJOIN } kind;
    char to[NAME_MAX_LENGTH + 1]; /* "" = the best */
};

struct face_answer {
    int http_status; /* 202 accepted, 404 no such member, 409 not now, 503 no quorum */
    char text[ERROR_TEXT_MAX];
    uint64_t number; /* of the intent, when accepted */
};

typedef void face_answer_callback(void *context, const struct face_answer *answer);

struct publish_callbacks {
    void (*face)(void *user, struct face *ret_face);
    /* Must end in exactly one call of `answer`, now or later. */
    void (*request)(void *user, const struct face_request *request, face_answer_callback *answer, void *context);
    void (*notice)(void *user, const char *text);
    void (*written)(void *user, const char *name); /* a file, by its setting; NULL: nobody wants to know */
};

#define PUBLISH_TEMPLATES_MAX 8
#define PUBLISH_ACCESSES_MAX  16

/* The strings must stay valid until all is closed; none is NULL. A path may be "": that form is not wanted. */
struct publish_config {
    const char *socket_path; /* unix socket, mode 0660; copied */
    const char *http_listen; /* address, or "" for none */
    uint16_t http_port;
    const char *http_certificate_file, *http_key_file; /* both or none: without, TCP is plain */
    const char *http_client_ca_file;                   /* "": clients need no certificate */
    const char *topology_file, *freshness_file;
    const char *env_file, *env_primary, *env_replica, *env_pool; /* names of variables: # stands for a number */
    const char *service_file, *pgbouncer_file;
    struct publish_template {
        const char *target, *source;
    } templates[PUBLISH_TEMPLATES_MAX];
    unsigned templates_count;
    unsigned file_mode;
    const char *file_owner; /* "user", "user:group" or "" */
    struct publish_access {
        const char *path; /* of one of the files: instead of these two */
        unsigned mode;
        const char *owner;
    } accesses[PUBLISH_ACCESSES_MAX];
    unsigned accesses_count;
    const char *database, *user; /* user: or "" */
    const char *options;         /* of libpq: "connect_timeout=3 sslmode=require" */
    const char *hook;            /* program, or "" */
    unsigned hook_timeout_ms;
    unsigned libpq; /* oldest major version among the clients */
    struct publish_health {
        unsigned lag_warning_ms, lag_critical_ms, response_warning_ms, response_critical_ms;
    } health;
};

struct publish;

status publish_open(struct publish **ret_publish, uv_loop_t *loop, const struct publish_config *config,
                    const struct publish_callbacks *callbacks, void *user, struct error *error) must_check;
/* Something may have changed: what it shows differently is published. Does not block. */
void publish_changed(struct publish *publish);
/* Reads anew what is renewed while we run: the certificate. */
void publish_reload(struct publish *publish);
/* Nothing waits to be written or told. */
bool publish_settled(const struct publish *publish);
void publish_close(struct publish *publish, void (*closed)(void *user), void *user);

/* JSON texts (malloc'ed, the caller frees), also used by tests. */
char *face_topology_json(const struct face *face); /* the published file, GET /v1/topology */
char *face_status_json(const struct face *face);   /* GET /v1/status: everything `ttorch status` shows */
char *face_history_json(const struct face *face);  /* GET /v1/history */
char *face_members_json(const struct face *face);  /* GET /v1/members */
char *face_why_json(const struct face *face);      /* GET /v1/why */
char *face_health_json(const struct face *face, const struct publish_health *bounds); /* GET /v1/health */
