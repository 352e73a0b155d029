#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/pooler_config.h"
#include "cli/text.h"

const json_t *published(const json_t *cluster, const char *output) {
    size_t i;
    const json_t *row;
    json_array_foreach(json_object_get(cluster, "publishing"), i,
                       row) if (strcmp(text_of(row, "output"), output) == 0) return row;
    return NULL;
}

/* "0.0.0.0 port 8008" */
static const char *port_of(const json_t *cluster) {
    const json_t *row = published(cluster, "http.listen");
    const char *port = row != NULL ? strstr(text_of(row, "where"), " port ") : NULL;
    return port != NULL ? port + strlen(" port ") : NULL;
}

struct checks {
    const char *port;
    char tls[256]; /* what stands behind the port; "" without TLS */
};

static status read_checks(const json_t *cluster, const struct haproxy_options *options, struct checks *ret_checks,
                          struct error *error) {
    struct checks checks = {.port = options->check_port != NULL ? options->check_port : port_of(cluster)};
    if (checks.port == NULL)
        return error_set(error, "HAProxy asks ttorchd over HTTP: set http.listen on every member, or say --check-port");
    if (published(cluster, "http.client_ca_file") != NULL && options->check_cert == NULL)
        return error_set(error, "ttorchd answers only who has a certificate (http.client_ca_file): name HAProxy's with "
                                "--check-cert");
    if (published(cluster, "http.certificate_file") != NULL)
        snprintf(checks.tls, sizeof checks.tls, " check-ssl verify required ca-file %s%s%s", options->check_ca,
                 options->check_cert != NULL ? " crt " : "", options->check_cert != NULL ? options->check_cert : "");
    *ret_checks = checks;
    return OK;
}

static void print_servers(FILE *out, const json_t *cluster, const struct checks *checks) {
    size_t i;
    const json_t *member;
    json_array_foreach(json_object_get(cluster, "members"), i, member) {
        const char *host = text_of(member, "host");
        if (holds_data(member))
            fprintf(out,
                    strchr(host, ':') != NULL ? "    server %s [%s]:%lld check port %s%s\n"
                                              : "    server %s %s:%lld check port %s%s\n",
                    text_of(member, "name"), host, (long long)number_of(member, "port"), checks->port, checks->tls);
    }
}

static void print_listen(FILE *out, const char *name, const char *bind, const char *port, const char *check) {
    fprintf(out, "\nlisten %s\n    bind %s:%s\n    option httpchk OPTIONS %s\n    http-check expect status 200\n", name,
            bind, port, check);
}

status haproxy_config_print(FILE *out, const json_t *cluster, const struct haproxy_options *options,
                            struct error *error) {
    struct checks checks;
    char replica[64];
    if (json_array_size(json_object_get(cluster, "members")) == 0)
        return error_set(error, "the cluster is not founded yet");
    if (read_checks(cluster, options, &checks, error) != OK)
        return FAILED;
    snprintf(replica, sizeof replica, "/replica?lag=%.32s", options->lag);
    fprintf(out,
            "# HAProxy for the cluster %s: port %s leads to its primary, port %s to its standbys.\n"
            "global\n    maxconn 4000\n\n"
            "defaults\n    mode tcp\n    maxconn 2000\n    timeout connect 3s\n    timeout check 2s\n"
            "    timeout client 1h\n    timeout server 1h\n    option clitcpka\n    option srvtcpka\n"
            "    # Down within 0.6 s after the member says so; sessions with what is not the primary any more end.\n"
            "    default-server inter 500ms fastinter 100ms downinter 200ms fall 2 rise 1 init-addr last,libc,none "
            "on-marked-down shutdown-sessions\n",
            text_of(cluster, "cluster"), options->port, options->read_port);
    print_listen(out, "primary", options->bind, options->port, "/primary");
    print_servers(out, cluster, &checks);
    print_listen(out, "standbys", options->bind, options->read_port, replica);
    fputs("    balance leastconn\n", out);
    print_servers(out, cluster, &checks);
    return OK;
}

static int print(struct cli *cli, const struct haproxy_options *options) {
    struct error error;
    json_t *cluster = cli_status(cli);
    if (cluster == NULL)
        return EXIT_FAILED;
    status result = haproxy_config_print(stdout, cluster, options, &error);
    json_decref(cluster);
    return result == OK ? EXIT_DONE : cli_failed(&error);
}

static int run(const struct verb *verb, struct cli *cli, int argc, char **argv) {
    struct haproxy_options options = {
        .bind = "*", .port = "5000", .read_port = "5001", .check_ca = "@system-ca", .lag = "16MB"};
    const struct option_row rows[] = {
        {"--bind", OPTION_TEXT, "ADDRESS", "address to listen on (all)", &options.bind, NULL},
        {"--port", OPTION_TEXT, "PORT", "port that leads to the primary (5000)", &options.port, NULL},
        {"--read-port", OPTION_TEXT, "PORT", "port that leads to the standbys (5001)", &options.read_port, NULL},
        {"--check-port", OPTION_TEXT, "PORT", "port of every member's HTTP (that of the daemon asked)",
         &options.check_port, NULL},
        {"--check-ca", OPTION_TEXT, "FILE", "on HAProxy's host: the CA of the members' certificates (@system-ca)",
         &options.check_ca, NULL},
        {"--check-cert", OPTION_TEXT, "FILE", "there: HAProxy's own certificate and key in one, if members want one",
         &options.check_cert, NULL},
        {"--lag", OPTION_TEXT, "SIZE", "a standby that lacks more is left out (16MB)", &options.lag, NULL},
        {0}};
    enum parsed parsed = options_parse(verb, cli, rows, argc, argv);
    if (parsed != PARSED)
        return parsed == PARSED_HELP ? EXIT_DONE : EXIT_USAGE;
    return print(cli, &options);
}

const struct verb verb_haproxy_config = {
    "haproxy-config", "[--port PORT] [--read-port PORT] [--lag SIZE]", "a configuration of HAProxy for this cluster",
    "\nttorch haproxy-config >/etc/haproxy/haproxy.cfg: one port for writing, one for reading. HAProxy asks every\n"
    "member over HTTP what it is. Print it again when members are added.\n",
    run};
