#include "cli/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_DEFAULT_MS 5000u
#define ANSWER_BYTES_MAX   (4u << 20)

struct answer {
    char *text;
    size_t length;
};

static size_t on_bytes(char *bytes, size_t one, size_t length, void *user) {
    struct answer *answer = user;
    (void)one;
    if (length > ANSWER_BYTES_MAX - answer->length)
        return 0;
    char *grown = realloc(answer->text, answer->length + length + 1);
    if (grown == NULL)
        return 0;
    memcpy(grown + answer->length, bytes, length);
    answer->text = grown;
    answer->length += length;
    return length;
}

/* ---- asking ---- */

static void aim(CURL *curl, const struct client *client, const char *path, struct answer *answer) {
    char url[sizeof client->url + 64];
    bool local = client->url[0] == '\0';
    snprintf(url, sizeof url, "%s%s", local ? "http://ttorchd" : client->url, path);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    if (local)
        curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, client->socket_path);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*"); /* daemons are not asked through a proxy of the environment */
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS,
                     (long)(client->timeout_ms > 0 ? client->timeout_ms : TIMEOUT_DEFAULT_MS));
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    if (client->ca != NULL)
        curl_easy_setopt(curl, CURLOPT_CAINFO, client->ca);
    curl_easy_setopt(curl, CURLOPT_SSLCERT, client->cert);
    curl_easy_setopt(curl, CURLOPT_SSLKEY, client->key);
}

/* What curl says of TLS does not tell which option would help. */
static status not_trusted(const char *at, CURLcode code, struct error *error) {
    const char *why = curl_easy_strerror(code);
    if (code == CURLE_PEER_FAILED_VERIFICATION)
        return error_set(error,
                         "ttorchd at %s has a certificate of nobody who is believed, or for another host: "
                         "name its CA's with --ca FILE",
                         at);
    if (code == CURLE_SSL_CACERT_BADFILE)
        return error_set(error, "--ca: %s", why);
    return error_set(error, "--cert and --key: %s", why);
}

static status unreachable(CURL *curl, const struct client *client, CURLcode code, struct error *error) {
    long why = 0;
    curl_easy_getinfo(curl, CURLINFO_OS_ERRNO, &why);
    bool local = client->url[0] == '\0';
    const char *at = local ? client->socket_path : client->url;
    if (code == CURLE_OPERATION_TIMEDOUT)
        return error_set(error, "ttorchd at %s did not answer in time", at);
    if (local && why == EACCES)
        return error_set(error, "may not ask ttorchd at %s: run this as a user who may open that socket", at);
    if (code == CURLE_COULDNT_CONNECT && local)
        return error_set(error, "could not reach ttorchd at %s: is the service running? systemctl status 'ttorchd@*'",
                         at);
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE || code == CURLE_SSL_CERTPROBLEM)
        return not_trusted(at, code, error);
    return error_set(error, "could not reach ttorchd at %s: %s", at, curl_easy_strerror(code));
}

/* ---- what was answered ---- */

static status refusal(const json_t *json, long http_status, struct error *error) {
    const char *sentence = json_string_value(json_object_get(json, "error"));
    if (sentence != NULL)
        return error_set(error, "%s", sentence);
    return error_set(error, "ttorchd answered with HTTP status %ld", http_status);
}

static status read_answer(const struct answer *answer, long http_status, json_t **ret_json, struct error *error) {
    json_error_t mistake;
    json_t *json = json_loadb(answer->text != NULL ? answer->text : "", answer->length, 0, &mistake);
    if (http_status < 200 || http_status > 299) {
        status result = refusal(json, http_status, error);
        json_decref(json);
        return result;
    }
    if (!json_is_object(json)) {
        json_decref(json);
        return error_set(error, "the answer is no JSON object: is this ttorchd?");
    }
    *ret_json = json;
    return OK;
}

static status ask(const struct client *client, const char *path, const char *body, json_t **ret_json,
                  struct error *error) {
    CURL *curl = curl_easy_init();
    if (curl == NULL)
        return error_set(error, "out of memory");
    struct answer answer = {0};
    aim(curl, client, path, &answer);
    struct curl_slist *headers = NULL;
    if (body != NULL) {
        headers = curl_slist_append(NULL, "Content-Type: application/json");
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    }
    CURLcode code = curl_easy_perform(curl);
    long http_status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &http_status);
    status result =
        code != CURLE_OK ? unreachable(curl, client, code, error) : read_answer(&answer, http_status, ret_json, error);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    free(answer.text);
    return result;
}

status client_get(const struct client *client, const char *path, json_t **ret_json, struct error *error) {
    return ask(client, path, NULL, ret_json, error);
}

status client_post(const struct client *client, const char *path, const json_t *body, json_t **ret_json,
                   struct error *error) {
    char *text = json_dumps(body, JSON_COMPACT);
    if (text == NULL)
        return error_set(error, "out of memory");
    status result = ask(client, path, text, ret_json, error);
    free(text);
    return result;
}
