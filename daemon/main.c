/* ttorchd [--config FILE] [--check] */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#include "config/config.h"
#include "daemon/daemon.h"

static void usage(FILE *out) {
    fprintf(out, "ttorchd keeps one PostgreSQL of a replicated cluster, and agrees with the other members which of\n"
                 "them is the primary.\n\n"
                 "Usage: ttorchd [--config FILE] [--check]\n\n"
                 "  --config FILE  settings of this member (default " CONFIG_DEFAULT_FILE ")\n"
                 "  --check        only check the file: exit status 0 if it is right, 1 if not\n"
                 "  --version      print the version\n\n"
                 "Signals: SIGTERM hands over, stops PostgreSQL and ends; SIGUSR1 ends at once and leaves\n"
                 "PostgreSQL to its guard; SIGHUP reads the file again.\n");
}

static void complain(void *user, const char *line) {
    (void)user;
    fprintf(stderr, "%s\n", line);
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    const char *file = CONFIG_DEFAULT_FILE;
    bool check = false;
    int option;
    while ((option = getopt_long(argc, argv, "c:", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            file = optarg;
            break;
        case 'k':
            check = true;
            break;
        case 'h':
            usage(stdout);
            return 0;
        case 'v':
            printf("ttorchd %s\n", TTORCH_VERSION);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "ttorchd: what is \"%s\"? the file is given with --config\n", argv[optind]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* a peer's death is an error to handle, not a signal to die of */
    struct config *config = calloc(1, sizeof *config);
    if (config == NULL || config_load(config, file, complain, NULL) != OK) {
        free(config);
        return check ? 1 : EX_CONFIG; /* at which systemd does not try again */
    }
    if (check) {
        printf("%s: right\n", file);
        free(config);
        return 0;
    }
    return daemon_run(config);
}
