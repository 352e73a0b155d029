/* The faces of the topology: what this member knows, as JSON, in a file and over HTTP. Knows libmicrohttpd and
 * jansson; knows nothing of Raft, PostgreSQL processes or how decisions are made. Publishing never fences.
 *
 * Everything runs on the caller's libuv loop. */
#pragma once
#include <uv.h>

#include "base/error.h"
#include "base/time.h"
#include "model/model.h"

/* What there is to show; owned by the caller, which fills it anew when asked. */
struct face {
    const Topology *topology;
    const History *history;
    uint32_t self;       /* member id, 0 before founding */
    const char *name;    /* our member name */
    const char *version; /* of ttorchd */
    bool fresh;          /* in touch with a quorum, within one lease */
    const char *leader;  /* Raft leader's member name, "" if unknown */
    uint64_t term;
    const char *waiting; /* while founding or starting: for what; else "" */
    const char *superuser;
    nsec now;
    struct face_member {
        bool heard;      /* an observation has arrived since the start of this daemon */
        uint64_t age_ms; /* since the newest one */
        Observation seen;
    } members[MEMBERS_MAX]; /* by member id - 1 */
};

/* An operator's request, passed to the daemon; the answer comes at once, the outcome is read from status/history. */
struct face_request {
    enum { REQUEST_SWITCHOVER } kind;
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
};

struct publish_config {
    const char *socket_path; /* unix socket, mode 0660 */
    const char *http_listen; /* address, or "" for none */
    uint16_t http_port;
    const char *topology_file; /* or "" */
};

struct publish;

status publish_open(struct publish **ret_publish, uv_loop_t *loop, const struct publish_config *config,
                    const struct publish_callbacks *callbacks, void *user, struct error *error) must_check;
/* Something changed: writes the topology file if its content differs (atomically: write, fsync, rename; off the loop
 * thread is not needed for a few KiB). */
void publish_changed(struct publish *publish);
void publish_close(struct publish *publish, void (*closed)(void *user), void *user);

/* JSON texts (malloc'ed, the caller frees), also used by tests. */
char *face_topology_json(const struct face *face); /* the published file, GET /v1/topology */
char *face_status_json(const struct face *face);   /* GET /v1/status: everything `ttorch status` shows */
char *face_history_json(const struct face *face);  /* GET /v1/history */
