#include "publish/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- of this member ---- */

struct sample {
    const struct face *face;
    const Observation *seen; /* our own; of zeros if there is none */
    nsec now;
};

static double writable(const struct sample *s) {
    return check_primary(s->face, &(struct check_query){.now = s->now, .lag_bytes_max = UINT64_MAX});
}
static double fresh(const struct sample *s) { return s->face->fresh; }
static double epoch(const struct sample *s) { return s->face->topology->epoch; }
static double record_index(const struct sample *s) { return (double)s->face->topology->index; }
static double is_open(const struct sample *s) { return s->face->topology->open && !s->face->topology->sealed; }
static double term(const struct sample *s) { return (double)s->face->term; }
static double leads(const struct sample *s) { return strcmp(s->face->leader, s->face->name) == 0; }
static double lease_left(const struct sample *s) { return (double)msec_between(s->now, s->face->lease_until) / 1000; }
static double switching(const struct sample *s) { return s->face->topology->intent.kind == INTENT_SWITCHOVER; }
static double rule_needed(const struct sample *s) {
    const Rule *rule = face_newest_rule(s->face);
    return rule != NULL ? rule->needed : 0;
}
static double rules(const struct sample *s) { return s->face->topology->rules_count; }
static double response(const struct sample *s) { return (double)s->face->response_ms / 1000; }

static bool runs(const struct sample *s) {
    return s->seen->server == SERVER_PRIMARY || s->seen->server == SERVER_STANDBY;
}
static double running(const struct sample *s) { return runs(s); }
static double is_primary(const struct sample *s) { return s->seen->server == SERVER_PRIMARY; }
static double is_standby(const struct sample *s) { return s->seen->server == SERVER_STANDBY; }
static double is_sync(const struct sample *s) {
    const Member *self = topology_member(s->face->topology, s->face->self);
    return self != NULL && face_member_sync(s->face, self);
}
static double streaming(const struct sample *s) { return s->seen->streaming; }
static double version(const struct sample *s) { return s->seen->server_version; }
static double timeline(const struct sample *s) { return s->seen->position.timeline; }
static double written(const struct sample *s) { return is_primary(s) > 0 ? (double)s->seen->position.lsn : 0; }
static double replayed(const struct sample *s) { return is_standby(s) > 0 ? (double)s->seen->position.lsn : 0; }
static double received(const struct sample *s) {
    return s->seen->receive_lsn > s->seen->position.lsn ? (double)s->seen->receive_lsn : replayed(s);
}
static double unlocked(const struct sample *s) { return face_primary(s->face) == NULL; }

static const struct metric {
    const char *name, *help;
    double (*value)(const struct sample *sample);
    bool counter;
} metrics[] = {
    {"ttorch_primary", "1 if clients may write here: open, leased, fresh, and PostgreSQL is writable", writable},
    {"ttorch_fresh", "1 while in touch with a majority", fresh},
    {"ttorch_epoch", "Number of the present primary's tenure", epoch, true},
    {"ttorch_record_index", "Last entry of the record that was applied here", record_index, true},
    {"ttorch_open", "1 if the epoch's primary is open for clients", is_open},
    {"ttorch_term", "Term of the record's leader", term, true},
    {"ttorch_coordinator", "1 if this member coordinates", leads},
    {"ttorch_lease_left_seconds", "How long this member may go on writing without hearing of a majority", lease_left},
    {"ttorch_rule_needed", "Standbys that must acknowledge a commit", rule_needed},
    {"ttorch_rules", "Rules in force; more than one while they change", rules},
    {"ttorch_switchover", "1 while a switchover is under way", switching},
    {"ttorch_postgres_response_seconds", "How long PostgreSQL took to answer last", response},
    {"patroni_postgres_running", "1 if PostgreSQL runs", running},
    {"patroni_primary", "1 if PostgreSQL is not in recovery", is_primary},
    {"patroni_replica", "1 if PostgreSQL is a standby", is_standby},
    {"patroni_quorum_standby", "1 if commits may be acknowledged by it", is_sync},
    {"patroni_postgres_streaming", "1 if it streams", streaming},
    {"patroni_postgres_server_version", "Version of PostgreSQL", version},
    {"patroni_postgres_timeline", "Timeline of PostgreSQL", timeline, true},
    {"patroni_xlog_location", "End of WAL on the primary, 0 on a standby", written, true},
    {"patroni_xlog_received_location", "End of WAL received by a standby, 0 on the primary", received, true},
    {"patroni_xlog_replayed_location", "End of WAL replayed by a standby, 0 on the primary", replayed, true},
    {"patroni_cluster_unlocked", "1 if there is no primary in the record", unlocked},
};

static void print_head(FILE *out, const char *name, const char *help, bool counter) {
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, counter ? "counter" : "gauge");
}

static void print_labels(FILE *out, const char *name, const struct face *face) {
    fprintf(out, "%s{scope=\"%s\",name=\"%s\"", name, face->topology->cluster_name, face->name);
}

/* ---- of every member, as seen from here ---- */

static void print_lags(FILE *out, const struct face *face, const char *name, const char *help, double unit,
                       json_t *(*lag_of)(const struct face *face, const Member *member)) {
    print_head(out, name, help, false);
    for (unsigned i = 0; i < face->topology->members_count; i++) {
        json_t *lag = lag_of(face, &face->topology->members[i]);
        if (json_is_integer(lag)) {
            print_labels(out, name, face);
            fprintf(out, ",member=\"%s\"} %.17g\n", face->topology->members[i].name,
                    (double)json_integer_value(lag) / unit);
        }
        json_decref(lag);
    }
}

static void print_heard(FILE *out, const struct face *face) {
    print_head(out, "ttorch_member_heard", "1 if the member was heard within a lease", false);
    for (unsigned i = 0; i < face->topology->members_count; i++) {
        print_labels(out, "ttorch_member_heard", face);
        fprintf(out, ",member=\"%s\"} %d\n", face->topology->members[i].name,
                face_seen(face, face->topology->members[i].id) != NULL);
    }
}

static void print_outputs(FILE *out, const struct face *face) {
    print_head(out, "ttorch_publishing_failed", "1 if a form of publishing fails; the status says why", false);
    for (unsigned i = 0; i < face->outputs_count; i++) {
        print_labels(out, "ttorch_publishing_failed", face);
        fprintf(out, ",output=\"%s\",number=\"%u\"} %d\n", face->outputs[i].name, i + 1,
                face->outputs[i].trouble[0] != '\0');
    }
}

static void print_version(FILE *out, const struct face *face) {
    print_head(out, "ttorch_version_info", "Version of ttorchd", false);
    print_labels(out, "ttorch_version_info", face);
    fprintf(out, ",version=\"%s\"} 1\n", face->version);
}

char *metrics_text(const struct face *face, nsec now) {
    static const Observation nothing;
    const Observation *seen = face_seen(face, face->self);
    struct sample sample = {.face = face, .seen = seen != NULL ? seen : &nothing, .now = now};
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return NULL;
    print_version(out, face);
    for (unsigned i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        print_head(out, metrics[i].name, metrics[i].help, metrics[i].counter);
        print_labels(out, metrics[i].name, face);
        fprintf(out, "} %.17g\n", metrics[i].value(&sample));
    }
    print_lags(out, face, "ttorch_member_lag_bytes", "How far a member is behind the primary", 1, face_lag_bytes);
    print_lags(out, face, "ttorch_member_lag_seconds", "How long its replay is behind", 1000, face_lag_ms);
    print_heard(out, face);
    print_outputs(out, face);
    fclose(out);
    return text;
}
