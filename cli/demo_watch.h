/* What the daemons of the demo say of themselves, and what of it the demo waits for. Knows /v1/status and the
 * cluster's sockets. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "cli/client.h"
#include "cli/demo_cluster.h"

/* The newest word of a member that is in touch with a quorum, else of any that answers, else NULL. The caller gives
 * it back by json_decref. */
json_t *watch_status(const struct cluster *cluster);
json_t *watch_member(const struct cluster *cluster, unsigned member);
struct client watch_client(const struct cluster *cluster, unsigned member);

/* All take NULL for "nobody answers". */
const char *status_primary(const json_t *view); /* "" if there is none */
json_int_t status_epoch(const json_t *view);
bool status_open(const json_t *view); /* a primary that clients may use, as a quorum knows */
/* Open, no rule of the past left to cover, every data member but the primary streams, and its acknowledgement counts.
 */
bool status_redundant(const json_t *view);
/* One line: "epoch 2, primary m1; m2 streaming, m3 down". */
void status_summary(const json_t *view, char *buffer, size_t size);
