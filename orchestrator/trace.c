/* Where the time of a failover went, as the coordinator saw it: kept in the reason of the command that opens the epoch,
 * and so in the history. */
#include <stdio.h>

#include "orchestrator/parts.h"

/* Notes what has come to hold since the last step. */
void trace_step(struct core *core) {
    struct trace *trace = &core->coordinator.trace;
    const Topology *topology = &core->topology;
    if (topology->open)
        return;
    for (unsigned i = 0; topology->sealed && i < topology->members_count; i++) {
        nsec *answered = &trace->answered[topology->members[i].id - 1];
        if (*answered == 0 && candidate_reports(core, topology->members[i].id))
            *answered = core->now;
    }
    bool writes = topology->epoch != 0 && !topology->sealed &&
                  observation(core, topology->primary.member)->running_epoch == topology->epoch;
    if (writes && trace->writes == 0)
        trace->writes = core->now;
}

/* A failover runs from the first suspicion of an epoch that was open, through all that do not open after it. */
void trace_suspected(struct core *core) {
    struct trace *trace = &core->coordinator.trace;
    if (trace->epoch == core->topology.epoch)
        return;
    nsec first = core->topology.open ? core->now : trace->suspected;
    *trace = (struct trace){.epoch = core->topology.epoch, .suspected = first};
}

static int add(char *buffer, size_t size, int length, const char *what, nsec from, nsec at) {
    if (at < from || (size_t)length >= size)
        return length; /* before this coordinator led, or not at all */
    return length + snprintf(buffer + length, size - (size_t)length, "%s +%llu ms, ", what,
                             (unsigned long long)msec_between(from, at));
}

void trace_text(const struct core *core, char *buffer, size_t size) {
    const struct trace *trace = &core->coordinator.trace;
    nsec from = trace->suspected;
    int length = 0;
    buffer[0] = '\0';
    if (from == 0)
        return;
    length = add(buffer, size, length, "sealed", from, core->coordinator.sealed_at);
    for (unsigned i = 0; i < core->topology.members_count; i++) {
        const Member *member = &core->topology.members[i];
        length = add(buffer, size, length, member->name, from, trace->answered[member->id - 1]);
    }
    length = add(buffer, size, length, "assigned", from, core->coordinator.assigned_at);
    length = add(buffer, size, length, "writes", from, trace->writes);
    length = add(buffer, size, length, "acknowledged", from, core->now);
    if (length >= 2 && (size_t)length < size)
        buffer[length - 2] = '\0';
}
