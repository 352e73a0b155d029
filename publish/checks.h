/* Patroni's health checks, by its paths and status codes, so that load balancers configured for it need no change:
 * 200 = this member is what was asked for, 503 = it is not. And what /patroni, /cluster and /history say. */
#pragma once
#include "publish/face.h"

struct check_query {
    nsec now;
    uint64_t lag_bytes_max; /* UINT64_MAX = whatever */
    bool received;          /* the lag of what it has received, not of what it has replayed */
    bool streaming;         /* only while it streams */
};

struct check {
    const char *path;
    bool (*passes)(const struct face *face, const struct check_query *query);
    bool tags; /* Patroni looks at the member's tags here: we have none, so nobody has the one that is asked for */
};

/* NULL if there is none at this path. */
const struct check *check_find(const char *path);

/* May be pointed at for writing: recorded, open, fresh, leased, and its PostgreSQL writes in that epoch. */
bool check_primary(const struct face *face, const struct check_query *query);

/* "1048576", "64kB", "16MB", "1GB". */
bool check_lag(const char *text, uint64_t *ret_bytes);

char *patroni_json(const struct face *face);         /* of this member */
char *patroni_cluster_json(const struct face *face); /* of all */
char *patroni_history_json(const struct face *face);
