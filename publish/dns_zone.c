#include "publish/dns_zone.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <ldns/ldns.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/panic.h"

#define HEADER_BYTES  12
#define QUESTION_TAIL 4 /* type and class */
#define OPT_BYTES     11
#define POINTER       0xC000u                     /* a name that stands elsewhere in the packet */
#define ENTRIES_MAX   (2 * DATA_MEMBERS_MAX + 32) /* two for each member, and those of the groups and the apex */
#define RECORDS_MAX   32 /* that a query may carry behind its question; ours look for EDNS among them */
#define NAME_TEXT_MAX (DNS_NAME_MAX + HOST_MAX_LENGTH)
#define RECORD_TEXT   (2 * NAME_TEXT_MAX + 64)

struct name {
    size_t length;
    uint8_t bytes[DNS_NAME_MAX + 1]; /* on the wire, in small letters */
};

/* Records without the owner of the first ones: it is the name asked for, or a pointer to it. */
struct body {
    unsigned count;
    size_t length;
    uint8_t *bytes;
};

/* A name with a type. Each variant is one order of the same records (or one of several aliases): they take turns. */
struct entry {
    struct name name;
    uint16_t type; /* 0: the name exists, and has nothing */
    unsigned variants_count, next;
    struct body variants[DATA_MEMBERS_MAX];
};

struct dns_zone {
    char text[DNS_NAME_MAX + 1]; /* with the dot at the end */
    char ns[DNS_NAME_MAX + 1];
    uint32_t ttl_s;
    struct name apex;
    bool fresh;
    struct body soa;
    unsigned entries_count;
    struct entry entries[ENTRIES_MAX];
};

/* ---- bytes ---- */

static uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static void put16(uint8_t *at, size_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* ---- names ---- */

static status name_from_text(struct name *ret_name, const char *text) {
    ldns_rdf *dname = ldns_dname_new_frm_str(text);
    if (dname == NULL)
        return FAILED;
    size_t length = ldns_rdf_size(dname);
    bool fits = length <= DNS_NAME_MAX;
    if (fits) {
        ret_name->length = length;
        memcpy(ret_name->bytes, ldns_rdf_data(dname), length);
        for (size_t i = 0; i < length; i++)
            ret_name->bytes[i] = (uint8_t)tolower(ret_name->bytes[i]);
    }
    ldns_rdf_deep_free(dname);
    return fits ? OK : FAILED;
}

static bool name_equal(const struct name *a, const struct name *b) {
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

/* At a boundary of labels: "xdb.example.org" does not lie in "db.example.org". */
static bool name_lies_in(const struct name *name, const struct name *zone) {
    size_t at = 0;
    while (name->length - at > zone->length)
        at += name->bytes[at] + 1u;
    return name->length - at == zone->length && memcmp(name->bytes + at, zone->bytes, zone->length) == 0;
}

/* Reads an uncompressed name; false if it is none. */
static bool name_read(struct name *ret_name, const uint8_t *bytes, size_t length) {
    size_t at = 0;
    for (;;) {
        if (at >= length || at >= DNS_NAME_MAX || bytes[at] >= DNS_LABEL_BYTES)
            return false;
        size_t end = at + 1 + bytes[at];
        if (bytes[at] == 0) {
            ret_name->bytes[at] = 0;
            ret_name->length = end;
            return true;
        }
        if (end >= length || end >= DNS_NAME_MAX)
            return false;
        ret_name->bytes[at] = bytes[at];
        for (at++; at < end; at++)
            ret_name->bytes[at] = (uint8_t)tolower(bytes[at]);
    }
}

/* ---- making the answers ---- */

/* A record as on the wire, behind its owner. NULL if it cannot be made. */
static uint8_t *record_tail(const char *text, size_t *ret_length) {
    ldns_rr *rr = NULL;
    uint8_t *wire = NULL, *tail = NULL;
    size_t length;
    if (ldns_rr_new_frm_str(&rr, text, 0, NULL, NULL) != LDNS_STATUS_OK)
        return NULL;
    size_t owner = ldns_rdf_size(ldns_rr_owner(rr));
    if (ldns_rr2wire(&wire, rr, LDNS_SECTION_ANSWER, &length) == LDNS_STATUS_OK &&
        (tail = malloc(length - owner)) != NULL) {
        *ret_length = length - owner;
        memcpy(tail, wire + owner, length - owner);
    }
    LDNS_FREE(wire);
    ldns_rr_free(rr);
    return tail;
}

/* The owner's pointer is put in when the record is sent, where it is not the name asked for. */
static void body_add(struct body *body, const char *text) {
    size_t length = 0;
    uint8_t *tail = record_tail(text, &length);
    uint8_t *bytes = tail != NULL ? realloc(body->bytes, body->length + 2 + length) : NULL;
    if (bytes != NULL) {
        put16(bytes + body->length, POINTER | HEADER_BYTES);
        memcpy(bytes + body->length + 2, tail, length);
        body->bytes = bytes;
        body->length += 2 + length;
        body->count++;
    }
    free(tail);
}

static struct entry *entry_add(struct dns_zone *zone, const char *name, uint16_t type) {
    require(zone->entries_count < ENTRIES_MAX);
    struct entry *entry = &zone->entries[zone->entries_count];
    memset(entry, 0, sizeof *entry);
    if (name_from_text(&entry->name, name) != OK)
        return NULL;
    entry->type = type;
    zone->entries_count++;
    return entry;
}

uint16_t dns_host_type(const char *host) {
    unsigned char address[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, host, address) == 1)
        return LDNS_RR_TYPE_A;
    return inet_pton(AF_INET6, host, address) == 1 ? LDNS_RR_TYPE_AAAA : LDNS_RR_TYPE_CNAME;
}

static bool is_host_name(const char *host) { return dns_host_type(host) == LDNS_RR_TYPE_CNAME; }

/* Where SRV and NS point: they must not name an alias. */
static const char *target_of(const struct dns_zone *zone, const struct dns_host *host, char text[NAME_TEXT_MAX]) {
    if (is_host_name(host->host))
        snprintf(text, NAME_TEXT_MAX, "%s%s", host->host, host->host[strlen(host->host) - 1] == '.' ? "" : ".");
    else
        snprintf(text, NAME_TEXT_MAX, "%s.%s", host->name, zone->text);
    return text;
}

/* The text of one member's record of that type; false if it has none. */
static bool record_text(const struct dns_zone *zone, const char *name, const struct dns_view *view, unsigned place,
                        uint16_t type, char text[RECORD_TEXT]) {
    const struct dns_host *host = &view->hosts[place];
    char target[NAME_TEXT_MAX];
    bool first = view->primary.count > 0 && view->primary.members[0] == place;
    if (type == LDNS_RR_TYPE_SRV)
        snprintf(text, RECORD_TEXT, "%s %u IN SRV %d 1 %u %s", name, zone->ttl_s,
                 first ? DNS_PRIORITY_FIRST : DNS_PRIORITY_LATER, host->port, target_of(zone, host, target));
    else if (dns_host_type(host->host) != type)
        return false;
    else if (type == LDNS_RR_TYPE_CNAME)
        snprintf(text, RECORD_TEXT, "%s %u IN CNAME %s", name, zone->ttl_s, target_of(zone, host, target));
    else
        snprintf(text, RECORD_TEXT, "%s %u IN %s %s", name, zone->ttl_s, type == LDNS_RR_TYPE_A ? "A" : "AAAA",
                 host->host);
    return true;
}

/* As many variants as there are records: each begins with another one. A name has at most one alias at a time. */
static void entry_of_group(struct dns_zone *zone, const char *name, const struct dns_view *view,
                           const struct dns_group *group, uint16_t type) {
    struct entry *entry = NULL;
    for (unsigned v = 0; v < group->count; v++) {
        struct body body = {0};
        char text[RECORD_TEXT];
        if (!record_text(zone, name, view, group->members[v], type, text))
            continue;
        for (unsigned i = 0; i < (type == LDNS_RR_TYPE_CNAME ? 1 : group->count); i++)
            if (record_text(zone, name, view, group->members[(v + i) % group->count], type, text))
                body_add(&body, text);
        if (entry == NULL)
            entry = entry_add(zone, name, type);
        if (entry == NULL || body.count == 0)
            free(body.bytes);
        else
            entry->variants[entry->variants_count++] = body;
    }
}

static bool has_host_name(const struct dns_view *view, const struct dns_group *group) {
    for (unsigned i = 0; i < group->count; i++)
        if (is_host_name(view->hosts[group->members[i]].host))
            return true;
    return false;
}

/* An alias excludes all else at its name, so a group with a host name has aliases only: a member that is given by its
 * address is named by its own name there. */
static void alias_of_group(struct dns_zone *zone, const char *name, const struct dns_view *view,
                           const struct dns_group *group) {
    struct entry *entry = entry_add(zone, name, LDNS_RR_TYPE_CNAME);
    for (unsigned v = 0; entry != NULL && v < group->count; v++) {
        char text[RECORD_TEXT], target[NAME_TEXT_MAX];
        struct body body = {0};
        snprintf(text, sizeof text, "%s %u IN CNAME %s", name, zone->ttl_s,
                 target_of(zone, &view->hosts[group->members[v]], target));
        body_add(&body, text);
        if (body.count > 0)
            entry->variants[entry->variants_count++] = body;
    }
}

static void addresses_of_group(struct dns_zone *zone, const char *name, const struct dns_view *view,
                               const struct dns_group *group) {
    if (has_host_name(view, group)) {
        alias_of_group(zone, name, view, group);
        return;
    }
    entry_add(zone, name, 0);
    entry_of_group(zone, name, view, group, LDNS_RR_TYPE_A);
    entry_of_group(zone, name, view, group, LDNS_RR_TYPE_AAAA);
}

static void show_group(struct dns_zone *zone, const char *label, const struct dns_view *view,
                       const struct dns_group *group) {
    char name[NAME_TEXT_MAX];
    snprintf(name, sizeof name, "%s.%s", label, zone->text);
    addresses_of_group(zone, name, view, group);
    snprintf(name, sizeof name, "_tcp.%s.%s", label, zone->text);
    entry_add(zone, name, 0);
    snprintf(name, sizeof name, "_postgresql._tcp.%s.%s", label, zone->text);
    entry_add(zone, name, 0);
    entry_of_group(zone, name, view, group, LDNS_RR_TYPE_SRV);
}

static void show_service(struct dns_zone *zone, const struct dns_view *view) {
    char name[NAME_TEXT_MAX];
    snprintf(name, sizeof name, "_tcp.%s", zone->text);
    entry_add(zone, name, 0);
    snprintf(name, sizeof name, "_postgresql._tcp.%s", zone->text);
    entry_add(zone, name, 0);
    entry_of_group(zone, name, view, &view->any, LDNS_RR_TYPE_SRV);
}

static void show_members(struct dns_zone *zone, const struct dns_view *view) {
    for (unsigned i = 0; i < view->hosts_count; i++) {
        char name[NAME_TEXT_MAX];
        const struct dns_group alone = {.count = 1, .members = {i}};
        snprintf(name, sizeof name, "%s.%s", view->hosts[i].name, zone->text);
        entry_add(zone, name, 0);
        entry_of_group(zone, name, view, &alone, dns_host_type(view->hosts[i].host));
    }
}

/* The name of the i-th name server. */
static const char *server_name(const struct dns_zone *zone, const struct dns_view *view, unsigned i,
                               char text[NAME_TEXT_MAX]) {
    if (zone->ns[0] == '\0')
        return target_of(zone, &view->hosts[i], text);
    snprintf(text, NAME_TEXT_MAX, "%s", zone->ns);
    return text;
}

/* Negative answers live as long as the others, and those that hold a copy of the zone are to ask again soon. */
static void show_apex(struct dns_zone *zone, const struct dns_view *view) {
    char text[RECORD_TEXT], server[NAME_TEXT_MAX];
    struct entry *soa = entry_add(zone, zone->text, LDNS_RR_TYPE_SOA);
    struct entry *ns = entry_add(zone, zone->text, LDNS_RR_TYPE_NS);
    if (soa == NULL || ns == NULL || view->hosts_count == 0)
        return;
    snprintf(text, sizeof text, "%s %u IN SOA %s hostmaster.%s %u %u %u %u %u", zone->text, zone->ttl_s,
             server_name(zone, view, 0, server), zone->text, (uint32_t)view->index, 60, 10, 600, zone->ttl_s);
    body_add(&zone->soa, text);
    body_add(&soa->variants[0], text);
    soa->variants_count = 1;
    for (unsigned i = 0; i < (zone->ns[0] == '\0' ? view->hosts_count : 1); i++) {
        snprintf(text, sizeof text, "%s %u IN NS %s", zone->text, zone->ttl_s, server_name(zone, view, i, server));
        body_add(&ns->variants[0], text);
    }
    ns->variants_count = 1;
}

static void zone_clear(struct dns_zone *zone) {
    for (unsigned i = 0; i < zone->entries_count; i++)
        for (unsigned v = 0; v < DATA_MEMBERS_MAX; v++)
            free(zone->entries[i].variants[v].bytes);
    free(zone->soa.bytes);
    zone->soa = (struct body){0};
    zone->entries_count = 0;
    zone->fresh = false;
}

void dns_zone_show(struct dns_zone *zone, const struct dns_view *view) {
    zone_clear(zone);
    if (!view->fresh)
        return;
    show_apex(zone, view);
    show_group(zone, "primary", view, &view->primary);
    show_group(zone, "standbys", view, &view->standbys);
    show_group(zone, "any", view, &view->any);
    show_service(zone, view);
    show_members(zone, view);
    zone->fresh = zone->soa.count > 0; /* without it nothing could be denied */
}

static void with_dot(char text[DNS_NAME_MAX + 1], const char *name) {
    size_t length = strlen(name);
    snprintf(text, DNS_NAME_MAX + 1, "%s%s", name, length > 0 && name[length - 1] != '.' ? "." : "");
}

status dns_zone_open(struct dns_zone **ret_zone, const char *name, const char *ns, uint32_t ttl_s,
                     struct error *error) {
    struct dns_zone *zone = calloc(1, sizeof *zone);
    if (zone == NULL)
        return error_set(error, "out of memory");
    with_dot(zone->text, name);
    with_dot(zone->ns, ns);
    zone->ttl_s = ttl_s;
    if (name_from_text(&zone->apex, zone->text) != OK) {
        free(zone);
        return error_set(error, "%s: not a name", name);
    }
    *ret_zone = zone;
    return OK;
}

void dns_zone_close(struct dns_zone *zone) {
    if (zone != NULL)
        zone_clear(zone);
    free(zone);
}

/* ---- reading a query ---- */

struct query {
    uint8_t flags; /* the first byte of them: opcode, RD */
    struct name name;
    uint16_t type, class;
    bool edns;
    uint8_t edns_version;
    uint16_t udp_size;
    int rcode; /* why it is not looked up; LDNS_RCODE_NOERROR if it is */
};

/* Where the name at `at` ends, pointers not followed; 0 if it does not. */
static size_t skip_name(const uint8_t *bytes, size_t length, size_t at) {
    while (at < length) {
        if (bytes[at] == 0)
            return at + 1;
        if (bytes[at] >= 0xC0)
            return at + 2;
        if (bytes[at] >= DNS_LABEL_BYTES)
            return 0;
        at += 1u + bytes[at];
    }
    return 0;
}

static void read_edns(struct query *query, const uint8_t *fixed, bool at_root) {
    if (query->edns || !at_root) { /* RFC 6891: one, at the root */
        query->rcode = LDNS_RCODE_FORMERR;
        return;
    }
    query->edns = true;
    query->udp_size = get16(fixed + 2);
    query->edns_version = fixed[5];
}

/* What comes behind the question. False if it cannot be read. */
static bool read_records(struct query *query, const uint8_t *bytes, size_t length, size_t at, unsigned count) {
    if (count > RECORDS_MAX)
        return false;
    for (unsigned i = 0; i < count; i++) {
        size_t fixed = skip_name(bytes, length, at);
        if (fixed == 0 || fixed + 10 > length || fixed + 10 + get16(bytes + fixed + 8) > length)
            return false;
        if (get16(bytes + fixed) == LDNS_RR_TYPE_OPT)
            read_edns(query, bytes + fixed, fixed == at + 1);
        at = fixed + 10 + get16(bytes + fixed + 8);
    }
    return true;
}

/* False if it gets no answer. */
static bool read_query(struct query *query, const uint8_t *bytes, size_t length) {
    if (length < HEADER_BYTES || length > DNS_QUERY_MAX || (bytes[2] & 0x80) != 0)
        return false;
    *query = (struct query){.flags = bytes[2], .rcode = LDNS_RCODE_NOERROR};
    if ((bytes[2] >> 3 & 15) != LDNS_PACKET_QUERY)
        query->rcode = LDNS_RCODE_NOTIMPL;
    else if (get16(bytes + 4) != 1)
        query->rcode = LDNS_RCODE_FORMERR;
    if (query->rcode != LDNS_RCODE_NOERROR)
        return true;
    if (!name_read(&query->name, bytes + HEADER_BYTES, length - HEADER_BYTES))
        return false;
    size_t at = HEADER_BYTES + query->name.length;
    if (at + QUESTION_TAIL > length)
        return false;
    query->type = get16(bytes + at);
    query->class = get16(bytes + at + 2);
    unsigned records = get16(bytes + 6) + get16(bytes + 8) + get16(bytes + 10);
    return read_records(query, bytes, length, at + QUESTION_TAIL, records);
}

/* ---- looking up ---- */

struct answer {
    int rcode;
    bool authoritative, truncated;
    const struct body *answers, *authority;
};

static bool is_wanted(const struct entry *entry, uint16_t type) {
    return entry->type == type || entry->type == LDNS_RR_TYPE_CNAME ||
           (type == LDNS_RR_TYPE_ANY && entry->type != 0); /* RFC 8482: one set is enough */
}

static void look_up(struct dns_zone *zone, const struct query *query, struct answer *answer) {
    bool exists = false;
    for (unsigned i = 0; i < zone->entries_count && answer->answers == NULL; i++) {
        struct entry *entry = &zone->entries[i];
        if (!name_equal(&entry->name, &query->name))
            continue;
        exists = true;
        if (entry->variants_count > 0 && is_wanted(entry, query->type))
            answer->answers = &entry->variants[entry->next++ % entry->variants_count];
    }
    answer->authoritative = true;
    answer->authority = answer->answers == NULL ? &zone->soa : NULL;
    answer->rcode = exists ? LDNS_RCODE_NOERROR : LDNS_RCODE_NXDOMAIN;
}

static bool is_transfer(uint16_t type) { return type == LDNS_RR_TYPE_AXFR || type == LDNS_RR_TYPE_IXFR; }

static void decide(struct dns_zone *zone, const struct query *query, struct answer *answer) {
    answer->rcode = query->rcode;
    if (query->rcode != LDNS_RCODE_NOERROR || query->edns_version > 0)
        return;
    if (query->class != LDNS_RR_CLASS_IN || is_transfer(query->type) || !name_lies_in(&query->name, &zone->apex))
        answer->rcode = LDNS_RCODE_REFUSED;
    else if (!zone->fresh)
        answer->rcode = LDNS_RCODE_SERVFAIL;
    else
        look_up(zone, query, answer);
}

/* ---- writing the answer ---- */

static size_t largest(const struct query *query, enum dns_transport transport) {
    if (transport == DNS_TCP)
        return DNS_ANSWER_MAX;
    if (!query->edns || query->udp_size < DNS_UDP_PLAIN)
        return DNS_UDP_PLAIN;
    return query->udp_size < DNS_UDP_MAX ? query->udp_size : DNS_UDP_MAX;
}

static size_t put_body(uint8_t *at, const struct body *body) {
    memcpy(at, body->bytes, body->length);
    return body->length;
}

/* With the zone as the owner: the end of the name asked for. */
static size_t put_soa(const struct dns_zone *zone, const struct query *query, uint8_t *at) {
    size_t length = put_body(at, &zone->soa);
    put16(at, POINTER | (HEADER_BYTES + query->name.length - zone->apex.length));
    return length;
}

static size_t put_edns(const struct query *query, uint8_t *at) {
    memset(at, 0, OPT_BYTES);
    put16(at + 1, LDNS_RR_TYPE_OPT);
    put16(at + 3, DNS_UDP_MAX);
    at[5] = query->edns_version > 0; /* BADVERS, 16: the upper bits of the code stand here */
    return OPT_BYTES;
}

static void put_header(const struct query *query, const struct answer *answer, uint8_t *at) {
    at[2] = (uint8_t)(0x80 | (query->flags & 0x79) | (answer->authoritative ? 4 : 0) | (answer->truncated ? 2 : 0));
    at[3] = (uint8_t)answer->rcode;
    put16(at + 4, query->name.length > 0);
    put16(at + 6, answer->answers != NULL ? answer->answers->count : 0);
    put16(at + 8, answer->authority != NULL ? answer->authority->count : 0);
    put16(at + 10, query->edns);
}

static size_t body_length(const struct body *body) { return body != NULL ? body->length : 0; }

size_t dns_zone_answer(struct dns_zone *zone, enum dns_transport transport, const uint8_t *bytes, size_t length,
                       uint8_t *ret_answer) {
    struct query query;
    struct answer answer = {0};
    if (!read_query(&query, bytes, length))
        return 0;
    decide(zone, &query, &answer);
    size_t at = HEADER_BYTES + (query.name.length > 0 ? query.name.length + QUESTION_TAIL : 0);
    size_t whole = at + body_length(answer.answers) + body_length(answer.authority) + (query.edns ? OPT_BYTES : 0);
    if (transport == DNS_UDP_LIMITED || whole > largest(&query, transport)) {
        answer.truncated = true;
        answer.answers = answer.authority = NULL;
    }
    memcpy(ret_answer, bytes, at); /* the identifier, and the question letter by letter */
    put_header(&query, &answer, ret_answer);
    if (answer.answers != NULL)
        at += put_body(ret_answer + at, answer.answers);
    if (answer.authority != NULL)
        at += put_soa(zone, &query, ret_answer + at);
    if (query.edns)
        at += put_edns(&query, ret_answer + at);
    return at;
}
