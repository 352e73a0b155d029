/* How the members do, for people and alarms: /v1/health and /v1/why. */
#include <string.h>

#include "publish/face.h"

enum severity { SEVERITY_OK, SEVERITY_WARNING, SEVERITY_CRITICAL };
static const char *const severity_names[] = {"ok", "warning", "critical"};

struct verdict {
    enum severity severity;
    const char *reason;
};

static void worsen(struct verdict *verdict, enum severity severity, const char *reason) {
    if (severity <= verdict->severity)
        return;
    verdict->severity = severity;
    verdict->reason = reason;
}

static enum severity beyond(json_int_t value, unsigned warning, unsigned critical) {
    return value > critical ? SEVERITY_CRITICAL : value > warning ? SEVERITY_WARNING : SEVERITY_OK;
}

static void judge_standby(const struct face *face, const Member *member, const struct publish_health *bounds,
                          struct verdict *verdict) {
    json_t *lag = face_lag_ms(face, member);
    if (json_is_integer(lag))
        worsen(verdict, beyond(json_integer_value(lag), bounds->lag_warning_ms, bounds->lag_critical_ms), "it lags");
    else
        worsen(verdict, SEVERITY_WARNING, "its lag is not known");
    json_decref(lag);
    if (strcmp(face_member_state(face, member), "streaming") != 0)
        worsen(verdict, SEVERITY_WARNING, "it does not stream");
}

/* Its own daemon has measured it; others know it in steps. -1: it has not answered yet. */
static json_int_t response_ms(const struct face *face, const Member *member) {
    const Observation *seen = face_seen(face, member->id);
    if (member->id == face->self)
        return face->response_known ? (json_int_t)face->response_ms : -1;
    return seen != NULL && seen->response_ms > 0 ? (json_int_t)seen->response_ms : -1;
}

static struct verdict judge(const struct face *face, const Member *member, const struct publish_health *bounds) {
    struct verdict verdict = {SEVERITY_OK, ""};
    const Observation *seen = face_seen(face, member->id);
    if (seen == NULL && member->observer) { /* nobody waits for it; another observer does not hear it at all */
        if (topology_votes(face->topology, face->self))
            worsen(&verdict, SEVERITY_WARNING, "it is not heard");
        return verdict;
    }
    if (seen == NULL) {
        worsen(&verdict, SEVERITY_CRITICAL, "it is not heard");
        return verdict;
    }
    if (member->witness)
        return verdict;
    if (seen->server != SERVER_PRIMARY && seen->server != SERVER_STANDBY)
        worsen(&verdict, SEVERITY_CRITICAL, "its PostgreSQL does not run");
    else if (member != face_primary(face))
        judge_standby(face, member, bounds, &verdict);
    worsen(&verdict, beyond(response_ms(face, member), bounds->response_warning_ms, bounds->response_critical_ms),
           "its PostgreSQL answers late");
    if (seen->trouble[0] != '\0')
        worsen(&verdict, SEVERITY_WARNING, seen->trouble);
    return verdict;
}

static json_t *lag_seconds(const struct face *face, const Member *member) {
    json_t *lag = face_lag_ms(face, member);
    if (json_is_integer(lag)) {
        json_t *seconds = json_real((double)json_integer_value(lag) / 1000);
        json_decref(lag);
        return seconds;
    }
    return lag;
}

static json_t *member_health(const struct face *face, const Member *member, const struct verdict *verdict) {
    json_int_t response = response_ms(face, member);
    return json_pack("{s:o, s:s, s:o, s:o, s:o, s:s, s:o}", "member", face_text(member->name), "status",
                     face_member_state(face, member), "response_time_ms",
                     response >= 0 ? json_integer(response) : json_null(), "lag_seconds", lag_seconds(face, member),
                     "lag_bytes", face_lag_bytes(face, member), "severity", severity_names[verdict->severity], "reason",
                     face_text(verdict->reason));
}

char *face_health_json(const struct face *face, const struct publish_health *bounds) {
    const Topology *topology = face->topology;
    struct verdict worst = {SEVERITY_OK, ""};
    json_t *members = json_array();
    if (!face->fresh)
        worsen(&worst, SEVERITY_CRITICAL, "this member is not in touch with a majority");
    else if (face_shown_primary(face) == NULL)
        worsen(&worst, SEVERITY_CRITICAL, "there is no open primary");
    for (unsigned i = 0; i < topology->members_count; i++) {
        struct verdict verdict = judge(face, &topology->members[i], bounds);
        worsen(&worst, verdict.severity, verdict.reason);
        json_array_append_new(members, member_health(face, &topology->members[i], &verdict));
    }
    return face_dump(json_pack("{s:o, s:s, s:b, s:o, s:s, s:o, s:o}", "member", face_text(face->name), "version",
                               face->version, "fresh", face->fresh, "waiting", face_text(face->waiting), "severity",
                               severity_names[worst.severity], "reason", face_text(worst.reason), "members", members));
}

/* ---- why ---- */

/* The coordinator's own sentence; its observation carries it to the others, unless it has other work to tell of. */
static const char *sentence(const struct face *face) {
    if (strcmp(face->leader, face->name) == 0)
        return face->why;
    const Member *leader = topology_member_named(face->topology, face->leader);
    const Observation *seen = leader != NULL ? face_seen(face, leader->id) : NULL;
    return seen != NULL ? seen->activity : "";
}

char *face_why_json(const struct face *face) {
    json_t *members = json_array();
    for (unsigned i = 0; i < face->topology->members_count; i++) {
        const Member *member = &face->topology->members[i];
        const Observation *seen = face_seen(face, member->id);
        json_array_append_new(members, json_pack("{s:o, s:s, s:o, s:o}", "member", face_text(member->name), "state",
                                                 face_member_state(face, member), "activity",
                                                 face_text(seen != NULL ? seen->activity : ""), "trouble",
                                                 face_text(seen != NULL ? seen->trouble : "")));
    }
    return face_dump(json_pack("{s:o, s:b, s:o, s:o, s:o}", "coordinator",
                               face->leader[0] != '\0' ? face_text(face->leader) : json_null(), "fresh", face->fresh,
                               "why", face_text(sentence(face)), "waiting", face_text(face->waiting), "members",
                               members));
}
