/* `ANY k (S)`: which standbys acknowledge commits, and how many must (DESIGN 7). */
#include <stdio.h>
#include <string.h>

#include "orchestrator/parts.h"

const Rule *rule_newest(const Topology *topology) {
    return topology->rules_count == 0 ? NULL : &topology->rules[topology->rules_count - 1];
}

unsigned rule_needed(const Topology *topology, unsigned standbys) {
    if (topology->settings.durability == DURABILITY_ASYNC)
        return 0;
    unsigned half = topology_data_members(topology) / 2;
    return half < standbys ? half : standbys;
}

/* The member and copy that a receiver's name stands for, if it is one of this epoch. */
static bool sender_copy(const Topology *topology, const Sender *sender, uint32_t epoch, Copy *ret_copy) {
    char name[NAME_MAX_LENGTH + 1];
    uint32_t copy, of_epoch;
    if (!application_name_parse(sender->name, name, &copy, &of_epoch) || (of_epoch != epoch && !planted(NAMES)))
        return false;
    const Member *member = topology_member_named(topology, name);
    if (member == NULL)
        return false;
    *ret_copy = (Copy){.member = member->id, .copy = copy};
    return true;
}

static bool is_standby(const Topology *topology, const Rule *rule, unsigned number, const Sender *sender) {
    Copy copy;
    return sender_copy(topology, sender, rule->epoch, &copy) && copy_equal(copy, rule->standbys[number]);
}

unsigned rule_flushed(const Topology *topology, const Rule *rule, const Sender *senders, unsigned count, uint64_t lsn) {
    unsigned flushed = 0;
    for (unsigned i = 0; i < rule->standbys_count; i++) {
        bool has = false;
        for (unsigned j = 0; j < count && !has; j++)
            has = senders[j].flush_lsn >= lsn && is_standby(topology, rule, i, &senders[j]);
        flushed += has;
    }
    return flushed;
}

unsigned rule_streaming(const Topology *topology, const Rule *rule, const Sender *senders, unsigned count) {
    unsigned streaming = 0;
    for (unsigned i = 0; i < rule->standbys_count; i++) {
        bool streams = false;
        for (unsigned j = 0; j < count && !streams; j++)
            streams = strcmp(senders[j].state, "streaming") == 0 && is_standby(topology, rule, i, &senders[j]);
        streaming += streams;
    }
    return streaming;
}

void rule_setting(const Topology *topology, const Rule *rule, struct rule_setting *ret_setting) {
    memset(ret_setting, 0, sizeof *ret_setting);
    ret_setting->generation = rule->generation;
    ret_setting->needed = rule->needed;
    for (unsigned i = 0; i < rule->standbys_count; i++) {
        const Member *member = topology_member(topology, rule->standbys[i].member);
        if (member != NULL)
            application_name(ret_setting->names[ret_setting->names_count++], member->name, rule->standbys[i].copy,
                             rule->epoch);
    }
}

void rule_text(const Topology *topology, const Rule *rule, char *buffer, size_t size) {
    if (rule->needed == 0) {
        snprintf(buffer, size, "none");
        return;
    }
    int length = snprintf(buffer, size, "ANY %u (", rule->needed);
    for (unsigned i = 0; i < rule->standbys_count && (size_t)length < size; i++) {
        const Member *member = topology_member(topology, rule->standbys[i].member);
        length += snprintf(buffer + length, size - (size_t)length, "%s%s", i == 0 ? "" : ", ",
                           member != NULL ? member->name : "?");
    }
    if ((size_t)length < size)
        snprintf(buffer + length, size - (size_t)length, ")");
}
