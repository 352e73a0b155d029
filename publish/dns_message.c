#include "publish/dns_message.h"

#include <inttypes.h>
#include <ldns/ldns.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "publish/dns_zone.h"

#define MARK_LABEL    "_ttorch"
#define SERVICE_LABEL "_postgresql._tcp"
#define FUDGE_S       300 /* how much our clock and the server's may differ */
#define RECORD_TEXT   (2 * DNS_TEXT_MAX + HOST_MAX_LENGTH + 128)
#define TSIG_MAC      3 /* fields of the record */
#define TSIG_ERROR    5

static const uint16_t address_types[] = {LDNS_RR_TYPE_A, LDNS_RR_TYPE_AAAA, LDNS_RR_TYPE_CNAME};
#define ADDRESS_TYPES (sizeof address_types / sizeof *address_types)

/* ---- the mark ---- */

const char *dns_mark_text(const struct dns_mark *mark, char text[DNS_MARK_TEXT]) {
    snprintf(text, DNS_MARK_TEXT, "cluster=%016" PRIx64 " epoch=%" PRIu32 " index=%" PRIu64, mark->cluster_id,
             mark->epoch, mark->index);
    return text;
}

/* False if it is not exactly as we write it. */
static bool mark_parse(const char *text, struct dns_mark *ret_mark) {
    char again[DNS_MARK_TEXT];
    return sscanf(text, "cluster=%16" SCNx64 " epoch=%" SCNu32 " index=%" SCNu64, &ret_mark->cluster_id,
                  &ret_mark->epoch, &ret_mark->index) == 3 &&
           strcmp(dns_mark_text(ret_mark, again), text) == 0;
}

/* ---- records ---- */

#define NAME_TEXT (DNS_TEXT_MAX + NAME_MAX_LENGTH + 32)
static const char *name_at(const struct dns_place *place, const char *label, char text[NAME_TEXT]) {
    snprintf(text, NAME_TEXT, "%.60s.%s", label, place->domain);
    return text;
}

/* A record without data stands for all of its name and type: there must be some (ANY), none (NONE), or they go. */
static bool push_set(ldns_rr_list *list, const char *name, uint16_t type, ldns_rr_class class) {
    ldns_rr *rr = ldns_rr_new();
    ldns_rdf *owner = ldns_dname_new_frm_str(name);
    if (rr == NULL || owner == NULL) {
        ldns_rr_free(rr);
        ldns_rdf_deep_free(owner);
        return false;
    }
    ldns_rr_set_owner(rr, owner);
    ldns_rr_set_type(rr, type);
    ldns_rr_set_class(rr, class);
    ldns_rr_set_ttl(rr, 0);
    return ldns_rr_list_push_rr(list, rr);
}

static bool push_record(ldns_rr_list *list, const char *text) {
    ldns_rr *rr = NULL;
    return ldns_rr_new_frm_str(&rr, text, 0, NULL, NULL) == LDNS_STATUS_OK && ldns_rr_list_push_rr(list, rr);
}

static bool push_mark(const struct dns_place *place, ldns_rr_list *list, const struct dns_mark *mark, uint32_t ttl_s) {
    char name[NAME_TEXT], text[DNS_MARK_TEXT], record[RECORD_TEXT];
    snprintf(record, sizeof record, "%s %u IN TXT \"%s\"", name_at(place, MARK_LABEL, name), ttl_s,
             dns_mark_text(mark, text));
    return push_record(list, record);
}

/* The members of the group that have a record of this type: all with an address, or the first with a host name, as
 * there can be one alias only, and nothing beside it. */
static unsigned members_of_type(const struct dns_view *view, const struct dns_group *group, uint16_t type,
                                const char *ret_hosts[DATA_MEMBERS_MAX]) {
    const char *alias = NULL;
    unsigned count = 0;
    for (unsigned i = 0; i < group->count; i++) {
        const char *host = view->hosts[group->members[i]].host;
        if (alias == NULL && dns_host_type(host) == LDNS_RR_TYPE_CNAME)
            alias = host;
        if (dns_host_type(host) == type)
            ret_hosts[count++] = host;
    }
    if (alias == NULL)
        return count;
    ret_hosts[0] = alias;
    return type == LDNS_RR_TYPE_CNAME;
}

static bool push_addresses(const struct dns_place *place, ldns_rr_list *list, const char *label,
                           const struct dns_view *view, const struct dns_group *group, uint16_t type, uint32_t ttl_s) {
    static const char *const words[] = {"A", "AAAA", "CNAME"};
    const char *hosts[DATA_MEMBERS_MAX];
    unsigned count = members_of_type(view, group, type, hosts);
    unsigned word = type == LDNS_RR_TYPE_A ? 0 : type == LDNS_RR_TYPE_AAAA ? 1 : 2;
    for (unsigned i = 0; i < count; i++) {
        char name[NAME_TEXT], text[RECORD_TEXT];
        bool dot = type == LDNS_RR_TYPE_CNAME && hosts[i][strlen(hosts[i]) - 1] != '.';
        snprintf(text, sizeof text, "%s %u IN %s %s%s", name_at(place, label, name), ttl_s, words[word], hosts[i],
                 dot ? "." : "");
        if (!push_record(list, text))
            return false;
    }
    return true;
}

/* Where SRV points: it must not name an alias. */
static const char *target_of(const struct dns_place *place, const struct dns_host *host, char ret_target[NAME_TEXT]) {
    if (dns_host_type(host->host) != LDNS_RR_TYPE_CNAME)
        return name_at(place, host->name, ret_target);
    snprintf(ret_target, NAME_TEXT, "%s%s", host->host, host->host[strlen(host->host) - 1] == '.' ? "" : ".");
    return ret_target;
}

static bool push_services(const struct dns_place *place, ldns_rr_list *list, const char *label,
                          const struct dns_view *view, const struct dns_group *group, uint32_t ttl_s) {
    for (unsigned i = 0; i < group->count; i++) {
        const struct dns_host *host = &view->hosts[group->members[i]];
        char name[NAME_TEXT], target[NAME_TEXT], text[RECORD_TEXT];
        bool primary = view->primary.count > 0 && view->primary.members[0] == group->members[i];
        snprintf(text, sizeof text, "%s %u IN SRV %d 1 %u %s", name_at(place, label, name), ttl_s,
                 primary ? DNS_PRIORITY_FIRST : DNS_PRIORITY_LATER, host->port, target_of(place, host, target));
        if (!push_record(list, text))
            return false;
    }
    return true;
}

/* A name with all that stands there: addresses or an alias, or services. */
struct label {
    char name[NAME_MAX_LENGTH + 24];
    struct dns_group group;
    bool service;
};
#define LABELS_MAX (7 + DATA_MEMBERS_MAX)

static void label_add(struct label *labels, unsigned *count, const char *prefix, const char *name,
                      const struct dns_group *group) {
    struct label *label = &labels[(*count)++];
    *label = (struct label){.group = *group, .service = prefix[0] != '\0'};
    snprintf(label->name, sizeof label->name, "%s%s%s", prefix, *prefix != '\0' && *name != '\0' ? "." : "", name);
}

static unsigned labels_of(const struct dns_view *view, struct label ret_labels[LABELS_MAX]) {
    const struct {
        const char *name;
        const struct dns_group *group;
    } groups[] = {{"primary", &view->primary}, {"standbys", &view->standbys}, {"any", &view->any}};
    unsigned count = 0;
    label_add(ret_labels, &count, SERVICE_LABEL, "", &view->any);
    for (unsigned i = 0; i < sizeof groups / sizeof *groups; i++) {
        label_add(ret_labels, &count, "", groups[i].name, groups[i].group);
        label_add(ret_labels, &count, SERVICE_LABEL, groups[i].name, groups[i].group);
    }
    for (unsigned i = 0; i < view->hosts_count; i++) /* where SRV points */
        label_add(ret_labels, &count, "", view->hosts[i].name, &(struct dns_group){.count = 1, .members = {i}});
    return count;
}

static unsigned types_of(const struct label *label, const uint16_t **ret_types) {
    static const uint16_t service = LDNS_RR_TYPE_SRV;
    *ret_types = label->service ? &service : address_types;
    return label->service ? 1 : ADDRESS_TYPES;
}

static bool has_records(const struct dns_view *view, const struct label *label, uint16_t type) {
    const char *hosts[DATA_MEMBERS_MAX];
    return label->service ? label->group.count > 0 : members_of_type(view, &label->group, type, hosts) > 0;
}

static bool push_records(const struct dns_place *place, ldns_rr_list *list, const struct label *label,
                         const struct dns_view *view, uint16_t type, uint32_t ttl_s) {
    return label->service ? push_services(place, list, label->name, view, &label->group, ttl_s)
                          : push_addresses(place, list, label->name, view, &label->group, type, ttl_s);
}

/* In the place of whatever stands there. */
static bool push_change(const struct dns_place *place, ldns_rr_list *list, const struct label *label,
                        const struct dns_view *view) {
    const uint16_t *types;
    unsigned count = types_of(label, &types);
    char name[NAME_TEXT];
    bool good = true;
    for (unsigned t = 0; t < count; t++)
        good = good && push_set(list, name_at(place, label->name, name), types[t], LDNS_RR_CLASS_ANY);
    for (unsigned t = 0; t < count; t++)
        good = good && push_records(place, list, label, view, types[t], place->ttl_s);
    return good;
}

/* That it stands there, and nothing else. */
static bool push_condition(const struct dns_place *place, ldns_rr_list *list, const struct label *label,
                           const struct dns_view *view) {
    const uint16_t *types;
    unsigned count = types_of(label, &types);
    char name[NAME_TEXT];
    bool good = true;
    for (unsigned t = 0; t < count; t++)
        good = good && (has_records(view, label, types[t])
                            ? push_records(place, list, label, view, types[t], 0)
                            : push_set(list, name_at(place, label->name, name), types[t], LDNS_RR_CLASS_NONE));
    return good;
}

/* ---- messages ---- */

static bool take_wire(ldns_pkt *packet, struct dns_message *ret_message) {
    const ldns_rr *tsig = ldns_pkt_tsig(packet);
    const ldns_rdf *mac = tsig != NULL ? ldns_rr_rdf(tsig, TSIG_MAC) : NULL;
    uint8_t *wire = NULL;
    if (mac == NULL || ldns_pkt2wire(&wire, packet, &ret_message->length) != LDNS_STATUS_OK)
        return false;
    ret_message->bytes = wire;
    ret_message->signature_length = ldns_rdf_size(mac);
    ret_message->signature = malloc(ldns_rdf_size(mac));
    if (ret_message->signature != NULL)
        memcpy(ret_message->signature, ldns_rdf_data(mac), ldns_rdf_size(mac));
    return ret_message->signature != NULL;
}

static bool is_base64(const char *text) {
    ldns_rdf *data = ldns_rdf_new_frm_str(LDNS_RDF_TYPE_B64, text);
    ldns_rdf_deep_free(data);
    return data != NULL;
}

/* Takes over `packet`. */
static status finish(const struct dns_place *place, ldns_pkt *packet, struct dns_message *ret_message,
                     struct error *error) {
    uint16_t id = 0;
    struct dns_message message = {0};
    char algorithm[32];
    snprintf(algorithm, sizeof algorithm, "%s.", place->algorithm);
    if (packet == NULL)
        return error_set(error, "out of memory");
    if (!is_base64(place->secret)) {
        ldns_pkt_free(packet);
        return error_set(error, "the file of the key %s must hold its secret, in base64", place->key_name);
    }
    /* Guessing it does not help: the answer has to be signed. */
    (void)!getrandom(&id, sizeof id, GRND_NONBLOCK);
    ldns_pkt_set_id(packet, id);
    bool made =
        ldns_pkt_tsig_sign(packet, place->key_name, place->secret, FUDGE_S, algorithm, NULL) == LDNS_STATUS_OK &&
        take_wire(packet, &message);
    ldns_pkt_free(packet);
    if (made) {
        *ret_message = message;
        return OK;
    }
    dns_message_free(&message);
    return error_set(error, "could not sign with the key %s", place->key_name);
}

void dns_message_free(struct dns_message *message) {
    free(message->bytes);
    free(message->signature);
    *message = (struct dns_message){0};
}

status dns_message_read(const struct dns_place *place, struct dns_message *ret_message, struct error *error) {
    char name[NAME_TEXT];
    ldns_rdf *owner = ldns_dname_new_frm_str(name_at(place, MARK_LABEL, name));
    if (owner == NULL)
        return error_set(error, "%s: not a name", name);
    return finish(place, ldns_pkt_query_new(owner, LDNS_RR_TYPE_TXT, LDNS_RR_CLASS_IN, 0), ret_message, error);
}

/* Frees the lists. */
static status finish_update(const struct dns_place *place, bool complete, ldns_rr_list *conditions,
                            ldns_rr_list *changes, struct dns_message *ret_message, struct error *error) {
    ldns_rdf *zone = complete ? ldns_dname_new_frm_str(place->zone) : NULL;
    ldns_pkt *packet = zone != NULL ? ldns_update_pkt_new(zone, LDNS_RR_CLASS_IN, conditions, changes, NULL) : NULL;
    ldns_rr_list_deep_free(conditions);
    ldns_rr_list_deep_free(changes);
    if (packet == NULL)
        return error_set(error, "the records of %s cannot be made", place->domain);
    return finish(place, packet, ret_message, error);
}

status dns_message_write(const struct dns_place *place, const struct dns_view *view, const struct dns_mark *before,
                         struct dns_message *ret_message, struct error *error) {
    ldns_rr_list *conditions = ldns_rr_list_new(), *changes = ldns_rr_list_new();
    const struct dns_mark after = {view->cluster_id, view->epoch, view->index};
    struct label labels[LABELS_MAX];
    char name[NAME_TEXT];
    unsigned count = labels_of(view, labels);
    name_at(place, MARK_LABEL, name);
    bool good = conditions != NULL && changes != NULL;
    good = good && (before != NULL ? push_mark(place, conditions, before, 0)
                                   : push_set(conditions, name, LDNS_RR_TYPE_TXT, LDNS_RR_CLASS_NONE));
    good = good && push_set(changes, name, LDNS_RR_TYPE_TXT, LDNS_RR_CLASS_ANY) &&
           push_mark(place, changes, &after, place->ttl_s);
    for (unsigned i = 0; i < count; i++)
        good = good && push_change(place, changes, &labels[i], view);
    return finish_update(place, good, conditions, changes, ret_message, error);
}

status dns_message_check(const struct dns_place *place, const struct dns_view *view, struct dns_message *ret_message,
                         struct error *error) {
    ldns_rr_list *conditions = ldns_rr_list_new(), *changes = ldns_rr_list_new();
    struct label labels[LABELS_MAX];
    char name[NAME_TEXT];
    unsigned count = labels_of(view, labels);
    bool good = conditions != NULL && changes != NULL &&
                push_set(conditions, name_at(place, MARK_LABEL, name), LDNS_RR_TYPE_TXT, LDNS_RR_CLASS_ANY);
    for (unsigned i = 0; i < count; i++)
        good = good && push_condition(place, conditions, &labels[i], view);
    return finish_update(place, good, conditions, changes, ret_message, error);
}

/* ---- answers ---- */

static const char *code_name(uint16_t code) {
    static const char *const tsig[] = {"BADSIG, the secret is another one",
                                       "BADKEY, it does not know the key",
                                       "BADTIME, the clocks differ",
                                       "BADMODE",
                                       "BADNAME",
                                       "BADALG",
                                       "BADTRUNC"};
    if (code >= 16 && code < 16 + sizeof tsig / sizeof *tsig)
        return tsig[code - 16];
    const ldns_lookup_table *row = ldns_lookup_by_id(ldns_rcodes, code);
    return row != NULL ? row->name : "an unknown code";
}

/* What the record of the signature complains of; 0 if of nothing. */
static uint16_t tsig_error(const ldns_pkt *packet) {
    const ldns_rr *tsig = ldns_pkt_tsig(packet);
    const ldns_rdf *code = tsig != NULL && ldns_rr_rd_count(tsig) > TSIG_ERROR ? ldns_rr_rdf(tsig, TSIG_ERROR) : NULL;
    return code != NULL && ldns_rdf_size(code) == 2 ? ldns_rdf2native_int16(code) : 0;
}

static status refused(const struct dns_place *place, const ldns_pkt *packet, struct error *error) {
    uint16_t code = tsig_error(packet);
    if (code != 0)
        return error_set(error, "the server does not accept the key %s: %s", place->key_name, code_name(code));
    return error_set(error, "the server says %s", code_name((uint16_t)ldns_pkt_get_rcode(packet)));
}

static bool is_signed(const struct dns_place *place, const struct dns_message *message, ldns_pkt *packet,
                      const uint8_t *bytes, size_t length) {
    ldns_rdf *mac = ldns_rdf_new_frm_data(LDNS_RDF_TYPE_INT16_DATA, message->signature_length, message->signature);
    ldns_rr *tsig = ldns_pkt_tsig(packet);
    bool valid = mac != NULL && ldns_pkt_tsig_verify(packet, bytes, length, place->key_name, place->secret, mac);
    if (ldns_pkt_tsig(packet) == NULL) /* ldns takes it out, and forgets it if the algorithm is none */
        ldns_pkt_set_tsig(packet, tsig);
    ldns_rdf_deep_free(mac);
    return valid;
}

static status read_mark(const ldns_pkt *packet, struct dns_reply *reply, struct error *error) {
    ldns_rr_list *texts = ldns_pkt_rr_list_by_type(packet, LDNS_RR_TYPE_TXT, LDNS_SECTION_ANSWER);
    size_t count = texts != NULL ? ldns_rr_list_rr_count(texts) : 0;
    const ldns_rdf *data = count == 1 ? ldns_rr_rdf(ldns_rr_list_rr(texts, 0), 0) : NULL;
    char text[DNS_TEXT_MAX] = "";
    if (data != NULL && ldns_rdf_size(data) > 0)
        memcpy(text, ldns_rdf_data(data) + 1, ldns_rdf_size(data) - 1); /* at most 255 bytes behind their length */
    ldns_rr_list_deep_free(texts);
    reply->marked = count > 0;
    if (count > 0 && !mark_parse(text, &reply->mark))
        return error_set(error, "the text at %s is not ttorch's: remove it there", MARK_LABEL);
    return OK;
}

static status read_packet(const struct dns_place *place, const ldns_pkt *packet, struct dns_reply *reply,
                          struct error *error) {
    bool update = ldns_pkt_get_opcode(packet) == LDNS_PACKET_UPDATE;
    switch (ldns_pkt_get_rcode(packet)) {
    case LDNS_RCODE_NOERROR:
        break;
    case LDNS_RCODE_NXDOMAIN:
    case LDNS_RCODE_YXDOMAIN:
    case LDNS_RCODE_YXRRSET:
    case LDNS_RCODE_NXRRSET:
        reply->conflict = update;
        break;
    default:
        return refused(place, packet, error);
    }
    if (update)
        return OK;
    if (!ldns_pkt_aa(packet))
        return error_set(error, "the server does not hold the zone %s", place->zone);
    return read_mark(packet, reply, error);
}

status dns_reply_read(const struct dns_place *place, const struct dns_message *message, const uint8_t *bytes,
                      size_t length, struct dns_reply *ret_reply, struct error *error) {
    ldns_pkt *packet = NULL;
    struct dns_reply reply = {0};
    if (ldns_wire2pkt(&packet, bytes, length) != LDNS_STATUS_OK)
        return error_set(error, "the answer cannot be read");
    status result;
    if (is_signed(place, message, packet, bytes, length))
        result = read_packet(place, packet, &reply, error);
    else if (ldns_pkt_get_rcode(packet) != LDNS_RCODE_NOERROR)
        result = refused(place, packet, error);
    else
        result = error_set(error, "the answer is not signed with the key %s", place->key_name);
    ldns_pkt_free(packet);
    if (result == OK)
        *ret_reply = reply;
    return result;
}
