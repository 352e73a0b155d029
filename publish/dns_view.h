/* What the names of the zone stand for: the part of the face that both the responder and the updates to a name server
 * tell. Pure: no socket, no clock. */
#pragma once
#include "publish/publish.h"

/* Of SRV records: the primary comes first for those who look at it. */
#define DNS_PRIORITY_FIRST 0
#define DNS_PRIORITY_LATER 10

struct dns_host {
    uint32_t id;
    char name[NAME_MAX_LENGTH + 1];
    char host[HOST_MAX_LENGTH + 1]; /* an address, or a host name */
    uint16_t port;
};

struct dns_group {
    unsigned count;
    unsigned members[DATA_MEMBERS_MAX]; /* places in `hosts` */
};

/* Plain data, zeroed before it is filled, so that two of them compare byte by byte. */
struct dns_view {
    bool fresh; /* nothing else counts while it is not */
    uint64_t cluster_id;
    uint32_t epoch;
    uint64_t index;
    unsigned hosts_count; /* members with data, in the order of their ids */
    struct dns_host hosts[DATA_MEMBERS_MAX];
    struct dns_group primary;  /* none unless it is open */
    struct dns_group standbys; /* that stream and are at most `max_lag` behind; without any, the primary */
    struct dns_group any;      /* the primary and those standbys */
};

/* While there is no open primary nobody knows how far a standby is behind it: then those count that run. */
void dns_view_of(const struct face *face, uint64_t max_lag_bytes, struct dns_view *ret_view);
