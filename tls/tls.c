#include "tls/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHAIN_MAX 16 /* certificates from the server's to its CA's */

struct tls {
    unsigned users;
    gnutls_certificate_credentials_t credentials;
    bool clients_need_one;
    time_t expires;
};

/* ---- files ---- */

static ssize_t read_some(int fd, unsigned char *bytes, size_t most) {
    size_t length = 0;
    ssize_t got = 0;
    while (length < most && (got = read(fd, bytes + length, most - length)) > 0)
        length += (size_t)got;
    return got < 0 ? got : (ssize_t)length;
}

static status read_file(const char *path, gnutls_datum_t *ret_bytes, struct error *error) {
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    bool regular = fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    unsigned char *bytes = regular ? malloc(TLS_FILE_BYTES_MAX + 1) : NULL;
    ssize_t length = bytes != NULL ? read_some(fd, bytes, TLS_FILE_BYTES_MAX + 1) : -1;
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (length >= 0 && length <= TLS_FILE_BYTES_MAX) {
        *ret_bytes = (gnutls_datum_t){.data = bytes, .size = (unsigned)length};
        return OK;
    }
    free(bytes);
    if (fd >= 0 && !regular)
        return error_set(error, "is no regular file: name one in PEM format");
    if (length > TLS_FILE_BYTES_MAX)
        return error_set(error, "has more than %d bytes: name one in PEM format", TLS_FILE_BYTES_MAX);
    return error_set(error, "cannot be read (%s): let the user who runs ttorchd read it", strerror(why));
}

/* It may hold a key. */
static void forget(gnutls_datum_t *bytes) {
    if (bytes->data != NULL)
        explicit_bzero(bytes->data, bytes->size);
    free(bytes->data);
    *bytes = (gnutls_datum_t){0};
}

/* ---- what is in them ---- */

struct chain {
    unsigned count;
    gnutls_x509_crt_t list[CHAIN_MAX];
};

static status read_chain(const gnutls_datum_t *bytes, struct chain *ret_chain, struct error *error) {
    struct chain chain = {.count = CHAIN_MAX};
    int result =
        gnutls_x509_crt_list_import(chain.list, &chain.count, bytes, GNUTLS_X509_FMT_PEM,
                                    GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED | GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
    if (result == GNUTLS_E_CERTIFICATE_LIST_UNSORTED)
        return error_set(error, "holds certificates that do not lead from one to the next: the server's goes first, "
                                "then the one that signed it");
    if (result == GNUTLS_E_SHORT_MEMORY_BUFFER)
        return error_set(
            error, "holds more than %d certificates: only those from the server's to its CA's belong there", CHAIN_MAX);
    if (result < 1)
        return error_set(error,
                         "holds no certificate in PEM format (%s): it begins with \"-----BEGIN CERTIFICATE-----\"",
                         gnutls_strerror(result < 0 ? result : GNUTLS_E_NO_CERTIFICATE_FOUND));
    *ret_chain = chain;
    return OK;
}

static void chain_free(struct chain *chain) {
    for (unsigned i = 0; i < chain->count; i++)
        gnutls_x509_crt_deinit(chain->list[i]);
}

static status read_key(const gnutls_datum_t *bytes, gnutls_x509_privkey_t key, struct error *error) {
    int result = gnutls_x509_privkey_import2(key, bytes, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (result == GNUTLS_E_DECRYPTION_FAILED)
        return error_set(error, "is protected by a password, which nobody could enter: write the key without one");
    if (result != 0)
        return error_set(error, "holds no private key in PEM format (%s)", gnutls_strerror(result));
    return OK;
}

static status take_key(struct tls *tls, struct chain *chain, const gnutls_datum_t *bytes, struct error *error) {
    gnutls_x509_privkey_t key;
    if (gnutls_x509_privkey_init(&key) != 0)
        return error_set(error, "out of memory");
    status result = read_key(bytes, key, error);
    int failure =
        result == OK ? gnutls_certificate_set_x509_key(tls->credentials, chain->list, (int)chain->count, key) : 0;
    gnutls_x509_privkey_deinit(key);
    if (failure == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
        return error_set(error, "does not belong to the certificate: take both from the same order");
    return failure < 0 ? error_set(error, "cannot be used: %s", gnutls_strerror(failure)) : result;
}

static status load_pair(struct tls *tls, const struct tls_files *files, enum tls_part *part, struct error *error) {
    struct chain chain = {0};
    gnutls_datum_t bytes = {0};
    *part = TLS_CERTIFICATE;
    if (read_file(files->paths[TLS_CERTIFICATE], &bytes, error) != OK)
        return FAILED;
    status result = read_chain(&bytes, &chain, error);
    forget(&bytes);
    if (result != OK)
        return FAILED;
    tls->expires = gnutls_x509_crt_get_expiration_time(chain.list[0]);
    *part = TLS_KEY;
    result = read_file(files->paths[TLS_KEY], &bytes, error);
    if (result == OK)
        result = take_key(tls, &chain, &bytes, error);
    forget(&bytes);
    chain_free(&chain);
    return result;
}

/* ---- clients ---- */

/* During the handshake: who has no certificate of that CA, or one that is not for clients, gets no further. */
static int on_verify(gnutls_session_t session) {
    gnutls_typed_vdata_st purpose = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
                                     .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT};
    unsigned wrong = 0;
    int result = gnutls_certificate_verify_peers(session, &purpose, 1, &wrong);
    return result == 0 && wrong == 0 ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

static status load_client_ca(struct tls *tls, const struct tls_files *files, enum tls_part *part, struct error *error) {
    gnutls_datum_t bytes = {0};
    *part = TLS_CLIENT_CA;
    if (files->paths[TLS_CLIENT_CA][0] == '\0')
        return OK;
    if (read_file(files->paths[TLS_CLIENT_CA], &bytes, error) != OK)
        return FAILED;
    int count = gnutls_certificate_set_x509_trust_mem(tls->credentials, &bytes, GNUTLS_X509_FMT_PEM);
    forget(&bytes);
    if (count < 1)
        return error_set(error,
                         "holds no certificate in PEM format (%s): it begins with \"-----BEGIN CERTIFICATE-----\"",
                         gnutls_strerror(count < 0 ? count : GNUTLS_E_NO_CERTIFICATE_FOUND));
    gnutls_certificate_set_verify_function(tls->credentials, on_verify);
    tls->clients_need_one = true;
    return OK;
}

/* ---- all of it ---- */

status tls_load(struct tls **ret_tls, const struct tls_files *files, enum tls_part *ret_part, struct error *error) {
    struct tls *tls = calloc(1, sizeof *tls);
    *ret_part = TLS_CERTIFICATE;
    if (tls == NULL)
        return error_set(error, "out of memory");
    if (gnutls_certificate_allocate_credentials(&tls->credentials) != 0) {
        free(tls);
        return error_set(error, "out of memory");
    }
    tls->users = 1;
    if (load_pair(tls, files, ret_part, error) != OK || load_client_ca(tls, files, ret_part, error) != OK) {
        tls_leave(tls);
        return FAILED;
    }
    *ret_tls = tls;
    return OK;
}

time_t tls_expires(const struct tls *tls) { return tls->expires; }

struct tls *tls_join(struct tls *tls) {
    if (tls != NULL)
        tls->users++;
    return tls;
}

void tls_leave(struct tls *tls) {
    if (tls == NULL || --tls->users > 0)
        return;
    gnutls_certificate_free_credentials(tls->credentials);
    free(tls);
}

/* The client's last message. */
static int on_finished(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                       const gnutls_datum_t *message) {
    const struct tls_watch *watch = gnutls_session_get_ptr(session);
    (void)type, (void)when, (void)message;
    if (incoming)
        watch->done(watch->user);
    return 0;
}

status tls_serve(struct tls *tls, void *session, struct tls_watch *watch) {
    if (gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->credentials) != 0)
        return FAILED;
    gnutls_session_set_ptr(session, watch);
    gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_FINISHED, GNUTLS_HOOK_POST, on_finished);
    if (tls->clients_need_one)
        gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
    return OK;
}
