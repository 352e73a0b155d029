#include "cli/demo_faults.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/panic.h"
#include "cli/demo_processes.h"
#include "cli/demo_watch.h"

static status require_postgres(const struct cluster *cluster, unsigned member, struct error *error) {
    if (cluster_postmaster(cluster, member) > 0)
        return OK;
    return error_set(error, "%s: PostgreSQL does not run", cluster->members[member].name);
}

static status mend_nothing(struct cluster *cluster, unsigned member, struct error *error) {
    (void)cluster;
    (void)member;
    (void)error;
    return OK;
}

static status strike_kill(struct cluster *cluster, unsigned member, nsec *ret_at, struct error *error) {
    if (require_postgres(cluster, member, error) != OK)
        return FAILED;
    pid_t postmaster = cluster_postmaster(cluster, member);
    *ret_at = time_now();
    kill(postmaster, SIGKILL);
    return OK;
}

/* Stopped first, so that none can act on the death of another; what was forked meanwhile is found on a second look. */
static status strike_host(struct cluster *cluster, unsigned member, nsec *ret_at, struct error *error) {
    if (require_postgres(cluster, member, error) != OK)
        return FAILED;
    struct processes *host = calloc(1, sizeof *host);
    require(host != NULL);
    cluster->members[member].down = true;
    processes_add(host, cluster->members[member].daemon);
    pid_t guard = process_parent(cluster_postmaster(cluster, member));
    if (guard != getpid()) /* ours if its guard is dead */
        processes_add(host, guard);
    cluster_add_postgres(cluster, member, host);
    *ret_at = time_now();
    for (unsigned before = 0; before != host->count;) {
        before = host->count;
        processes_signal(host, SIGSTOP);
        cluster_add_postgres(cluster, member, host);
    }
    processes_signal(host, SIGKILL);
    free(host);
    return OK;
}

static status mend_host(struct cluster *cluster, unsigned member, struct error *error) {
    return cluster_start(cluster, member, error);
}

/* Returns the time of the first signal. */
static nsec signal_postgres(struct cluster *cluster, unsigned member, int signal) {
    struct processes *postgres = calloc(1, sizeof *postgres);
    require(postgres != NULL);
    cluster_add_postgres(cluster, member, postgres);
    nsec began = time_now();
    for (unsigned before = 0; before != postgres->count;) {
        before = postgres->count;
        processes_signal(postgres, signal);
        cluster_add_postgres(cluster, member, postgres);
    }
    free(postgres);
    return began;
}

static status strike_freeze(struct cluster *cluster, unsigned member, nsec *ret_at, struct error *error) {
    if (require_postgres(cluster, member, error) != OK)
        return FAILED;
    *ret_at = signal_postgres(cluster, member, SIGSTOP);
    return OK;
}

static status mend_freeze(struct cluster *cluster, unsigned member, struct error *error) {
    (void)error;
    signal_postgres(cluster, member, SIGCONT);
    return OK;
}

/* cluster_reap starts it again at once, as systemd would. */
static status strike_daemon(struct cluster *cluster, unsigned member, nsec *ret_at, struct error *error) {
    if (cluster->members[member].daemon <= 0)
        return error_set(error, "%s: ttorchd does not run", cluster->members[member].name);
    *ret_at = time_now();
    kill(cluster->members[member].daemon, SIGKILL);
    return OK;
}

static status strike_switchover(struct cluster *cluster, unsigned member, nsec *ret_at, struct error *error) {
    json_t *body = json_object(), *answer = NULL;
    struct client client = watch_client(cluster, member);
    client.timeout_ms = 5000;
    *ret_at = time_now();
    status outcome = client_post(&client, "/v1/switchover", body, &answer, error);
    json_decref(body);
    json_decref(answer);
    return outcome;
}

static const struct fault faults[] = {
    {"kill", "kill -9 to the PostgreSQL of", true, strike_kill, mend_nothing},
    {"host", "kill -9 to everything at once of", true, strike_host, mend_host},
    {"freeze", "kill -STOP to the PostgreSQL of", true, strike_freeze, mend_freeze},
    {"daemon", "kill -9 to the ttorchd alone of", false, strike_daemon, mend_nothing},
    {"switchover", "switchover away from", true, strike_switchover, mend_nothing},
};

const struct fault *fault_named(const char *name) {
    for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++)
        if (strcmp(faults[i].name, name) == 0)
            return &faults[i];
    return NULL;
}

const char *fault_names(void) { return "kill|host|freeze|daemon|switchover"; }
