/* The messages to a name server that keeps our records (RFC 2136), signed (RFC 8945), and what it answers. Pure: no
 * socket. Beside the names that clients ask for there is a mark, TXT at `_ttorch`:
 *
 *     "cluster=0000000000000abc epoch=7 index=4711"
 *
 * Whoever writes has read the mark, writes only over an older one, and makes the server compare: the update holds only
 * if the mark is still the one that was read. So whatever is delayed, an old epoch never overwrites a newer one. */
#pragma once
#include <stddef.h>

#include "publish/dns_view.h"

#define DNS_TEXT_MAX 256 /* of a name, with the zero byte */

struct dns_place {
    char zone[DNS_TEXT_MAX];   /* of the server */
    char domain[DNS_TEXT_MAX]; /* in it, under which our names stand */
    uint32_t ttl_s;
    char key_name[DNS_TEXT_MAX];
    char secret[1026];     /* base64 */
    const char *algorithm; /* "hmac-sha256" */
};

struct dns_mark {
    uint64_t cluster_id;
    uint32_t epoch;
    uint64_t index;
};
#define DNS_MARK_TEXT 80
const char *dns_mark_text(const struct dns_mark *mark, char text[DNS_MARK_TEXT]);

/* On the wire, with its signature, by which the answer's is checked. */
struct dns_message {
    uint8_t *bytes;
    size_t length;
    uint8_t *signature;
    size_t signature_length;
};
void dns_message_free(struct dns_message *message);

/* Asks for the mark. */
status dns_message_read(const struct dns_place *place, struct dns_message *ret_message, struct error *error) must_check;
/* Replaces all records, if the mark is still `before` (NULL: there is none). */
status dns_message_write(const struct dns_place *place, const struct dns_view *view, const struct dns_mark *before,
                         struct dns_message *ret_message, struct error *error) must_check;
/* Changes nothing: conflicts unless all records are as they should be, and there is a mark. */
status dns_message_check(const struct dns_place *place, const struct dns_view *view, struct dns_message *ret_message,
                         struct error *error) must_check;

struct dns_reply {
    bool conflict; /* the mark or the records are not what was supposed */
    bool marked;   /* only of an answer to dns_message_read */
    struct dns_mark mark;
};
/* FAILED if it is not signed with our key, or says that it was not done. */
status dns_reply_read(const struct dns_place *place, const struct dns_message *message, const uint8_t *bytes,
                      size_t length, struct dns_reply *ret_reply, struct error *error) must_check;
