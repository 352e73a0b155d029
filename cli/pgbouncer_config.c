#include "cli/options.h"
#include "cli/pooler_config.h"
#include "cli/text.h"

/* Each line is there for a reason: what PgBouncer's own default would do is said beside it. */
static const char settings[] =
    "pool_mode = transaction\n"
    "max_client_conn = 1000\n"
    "default_pool_size = 20\n"
    "ignore_startup_parameters = extra_float_digits\n"
    "\n"
    "; A failed connection is tried again after 1 s, not 15 s: the next primary is there by then.\n"
    "server_login_retry = 1\n"
    "server_connect_timeout = 3\n"
    "; A primary whose host is gone without a word is given up after 5 s, not 2 hours.\n"
    "tcp_keepalive = 1\n"
    "tcp_keepidle = 2\n"
    "tcp_keepintvl = 1\n"
    "tcp_keepcnt = 3\n"
    "tcp_user_timeout = 5000\n"
    "; Clients wait through a switchover, or for a primary, for so long.\n"
    "query_wait_timeout = 60\n";

status pgbouncer_config_print(FILE *out, const json_t *cluster, const struct pgbouncer_options *options,
                              struct error *error) {
    const json_t *row = published(cluster, "publish.pgbouncer_file");
    const char *include = options->include != NULL ? options->include : row != NULL ? text_of(row, "where") : NULL;
    if (include == NULL)
        return error_set(error, "PgBouncer reads its databases from a file that ttorchd writes: set "
                                "publish.pgbouncer_file, or say --include");
    fprintf(out,
            "; PgBouncer for the cluster %s. Its databases are written by ttorchd, and by nobody else.\n"
            "[databases]\n%%include %s\n\n"
            "[pgbouncer]\nlisten_addr = %s\nlisten_port = %s\nunix_socket_dir = %s\npidfile = %s/pgbouncer-%s.pid\n"
            "logfile = %s\n"
            "auth_type = scram-sha-256\nauth_file = %s\n"
            "; ttorchd logs in as this role (pgbouncer.user), to hold clients back and to let them go on.\n"
            "admin_users = %s\n\n%s",
            text_of(cluster, "cluster"), include, options->listen, options->port, options->directory,
            options->directory, options->port, options->log, options->users, options->admin, settings);
    return OK;
}

static int print(struct cli *cli, const struct pgbouncer_options *options) {
    struct error error;
    json_t *cluster = cli_status(cli);
    if (cluster == NULL)
        return EXIT_FAILED;
    status result = pgbouncer_config_print(stdout, cluster, options, &error);
    json_decref(cluster);
    return result == OK ? EXIT_DONE : cli_failed(&error);
}

static int run(const struct verb *verb, struct cli *cli, int argc, char **argv) {
    struct pgbouncer_options options = {.listen = "*",
                                        .port = "6432",
                                        .admin = "pgbouncer",
                                        .directory = "/var/run/postgresql",
                                        .users = "/etc/pgbouncer/userlist.txt",
                                        .log = "/var/log/postgresql/pgbouncer.log"};
    const struct option_row rows[] = {
        {"--listen", OPTION_TEXT, "ADDRESS", "address to listen on (all)", &options.listen, NULL},
        {"--port", OPTION_TEXT, "PORT", "port to listen on (6432)", &options.port, NULL},
        {"--include", OPTION_TEXT, "FILE", "its databases (publish.pgbouncer_file of the daemon asked)",
         &options.include, NULL},
        {"--admin", OPTION_TEXT, "ROLE", "who may use its console (pgbouncer)", &options.admin, NULL},
        {"--directory", OPTION_TEXT, "DIRECTORY", "of its socket and pid file (/var/run/postgresql)",
         &options.directory, NULL},
        {"--users", OPTION_TEXT, "FILE", "its users' passwords (/etc/pgbouncer/userlist.txt)", &options.users, NULL},
        {"--log", OPTION_TEXT, "FILE", "its log (/var/log/postgresql/pgbouncer.log)", &options.log, NULL},
        {0}};
    enum parsed parsed = options_parse(verb, cli, rows, argc, argv);
    if (parsed != PARSED)
        return parsed == PARSED_HELP ? EXIT_DONE : EXIT_USAGE;
    return print(cli, &options);
}

const struct verb verb_pgbouncer_config = {
    "pgbouncer-config", "[--port PORT] [--include FILE] ...", "a configuration of PgBouncer for this cluster",
    "\nttorch pgbouncer-config >/etc/pgbouncer/pgbouncer.ini, on a host whose ttorchd writes publish.pgbouncer_file.\n"
    "It never needs to be printed again: what changes stands in that file.\n",
    run};
