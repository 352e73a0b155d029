/* Configurations of HAProxy and PgBouncer for a cluster, as `ttorch haproxy-config` and `ttorch pgbouncer-config` print
 * them. Pure: from what the daemon answers to GET /v1/status. */
#pragma once
#include <jansson.h>
#include <stdio.h>

#include "base/error.h"

struct haproxy_options {
    const char *bind; /* address, "*" = all */
    const char *port, *read_port;
    const char *check_port; /* NULL: the port of the daemon that answered */
    const char *check_ca;   /* where HAProxy has the CA of the members' certificates */
    const char *check_cert; /* where it has its own certificate and key; NULL: none */
    const char *lag;        /* most that a standby may lack, as "16MB" */
};

struct pgbouncer_options {
    const char *listen; /* address, "*" = all */
    const char *port;
    const char *include;   /* NULL: publish.pgbouncer_file of the daemon that answered */
    const char *admin;     /* role that may use the console */
    const char *directory; /* of its socket and its pid file */
    const char *users;     /* file with the users' passwords */
    const char *log;
};

/* Fails if `status` lacks what is needed, saying which option or setting gives it. */
status haproxy_config_print(FILE *out, const json_t *cluster, const struct haproxy_options *options,
                            struct error *error) must_check;
status pgbouncer_config_print(FILE *out, const json_t *cluster, const struct pgbouncer_options *options,
                              struct error *error) must_check;
/* Row `output` of what the daemon publishes; NULL if it does not. */
const json_t *published(const json_t *cluster, const char *output);
