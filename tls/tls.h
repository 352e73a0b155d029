/* A server's certificate and key, and whose certificates its clients must have: read from files, checked, and given to
 * the sessions of TLS. Knows gnutls; knows neither HTTP nor settings. */
#pragma once
#include <time.h>

#include "base/error.h"

#define TLS_FILE_BYTES_MAX 1048576 /* some systems' list of CAs has a quarter of that */

enum tls_part { TLS_CERTIFICATE, TLS_KEY, TLS_CLIENT_CA, TLS_PARTS };

struct tls_files {
    const char *paths[TLS_PARTS]; /* of a client CA "" = clients need no certificate */
};

struct tls;

/* All files are PEM: the certificate first, then those that lead to its CA; a key without a password. On failure
 * `error` says what is wrong and what to do, and `ret_part` with which of the files. Reads files: may wait for a disk.
 */
status tls_load(struct tls **ret_tls, const struct tls_files *files, enum tls_part *ret_part,
                struct error *error) must_check;
/* After this no client takes the certificate. */
time_t tls_expires(const struct tls *tls);

/* Users are counted: it goes when the last one leaves. NULL is left out. */
struct tls *tls_join(struct tls *tls);
void tls_leave(struct tls *tls);

/* Who wants to know when a handshake is over. */
struct tls_watch {
    void (*done)(void *user);
    void *user;
};

/* `session` is a gnutls_session_t of a server before its handshake, nobody else's pointer set; whoever has it must have
 * joined `tls`, and `watch` must live as long. */
status tls_serve(struct tls *tls, void *session, struct tls_watch *watch) must_check;
