/* One request to a daemon, over its unix socket or TCP: HTTP and JSON, answered or failed before it returns. Needs
 * curl_global_init. */
#pragma once
#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"

struct client {
    char socket_path[PATH_MAX_LENGTH + 1]; /* of the daemon; used when `url` is empty */
    char url[HOST_MAX_LENGTH + 32];        /* http://host:port or https://host:port, no path */
    const char *ca, *cert, *key; /* files for https: whom to believe, who we are; NULL: the system's, nobody */
    unsigned timeout_ms;         /* for the whole request; 0 = 5000 */
};

/* The JSON answered with a 2xx status; the caller frees it with json_decref. Fails with the daemon's own sentence for
 * any other status, and with where it was looked for when no daemon answers. */
status client_get(const struct client *client, const char *path, json_t **ret_json, struct error *error) must_check;
status client_post(const struct client *client, const char *path, const json_t *body, json_t **ret_json,
                   struct error *error) must_check;
