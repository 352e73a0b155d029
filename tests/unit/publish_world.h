/* A member with something to show, for the tests of publish/: m1 is the primary of epoch 3, m2 and m3 stream, w is a
 * witness; we are m2. And HTTP clients, each in a thread of its own, while the loop runs in the test. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <curl/curl.h>

#include "publish/publish.h"

struct world {
    uv_loop_t loop;
    struct publish *publish;
    char directory[64], socket_path[96], file_path[96];
    uint16_t port;
    struct publish_config config; /* change it between world_close and world_open */
    Topology topology;
    History history;
    struct face face; /* what there is to show */
    Observation seen[MEMBERS_MAX];
    unsigned notices;
    bool closed;
    struct face_request request; /* the last one */
    struct face_answer answer;   /* what to answer */
    bool later;                  /* by world_answer */
    face_answer_callback *pending;
    void *pending_context;
};

extern const struct publish_config no_files;
void world_reset(struct world *w);
Observation *observation(struct world *w, uint32_t id, ServerState server, uint64_t lsn);
void sender(Observation *primary, const char *name, const char *state, uint64_t flush, uint32_t lag_ms);
uint16_t free_port(void);
status world_open(struct world *w, struct error *error);
void world_close(struct world *w);
void on_closed(void *user);    /* of publish_close */
void settle(struct world *w);  /* until all files are written */
void changed(struct world *w); /* publish_changed, and that */
int setup(void **state);
int teardown(void **state);

struct client_job {
    uv_work_t work;
    const struct world *world;
    void (*run)(struct client_job *job);
    bool done;
    /* one HTTP request */
    const char *method, *path, *body;
    bool tcp;
    const char *ca, *cert, *key; /* files; HTTPS is spoken if there is a ca */
    bool chunked;
    long http_status, wait_ms;
    CURLcode code;
    char answer[16384];
    size_t length;
    /* raw bytes */
    const char *bytes;
    size_t bytes_length;
    bool hang_up; /* when all is sent */
    unsigned count;
};

CURL *easy(struct client_job *job);
void run_http(struct client_job *job);
void begin(struct world *w, struct client_job *job);
void finish(struct world *w, struct client_job *job);
void ask(struct world *w, struct client_job *job);
/* What the row `output` of the status says is wrong; "" = nothing. Valid until the next call. */
const char *trouble_of(struct world *w, const char *output);
