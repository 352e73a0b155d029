#include "raft/resolve.h"

#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "base/limits.h"

#define ANSWER_AGE_MAX (10 * NSEC_PER_SEC)

/* Shared by the thread and the asker; whoever lets go last frees it. */
struct lookup {
    atomic_int holders;
    atomic_bool done;
    char host[HOST_MAX_LENGTH + 1];
    int result;
    struct sockaddr_storage address;
};

static void lookup_release(struct lookup *lookup) {
    if (atomic_fetch_sub(&lookup->holders, 1) == 1)
        free(lookup);
}

static void *lookup_run(void *data) {
    struct lookup *lookup = data;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *answer = NULL;
    lookup->result = getaddrinfo(lookup->host, NULL, &hints, &answer);
    if (lookup->result == 0) {
        memcpy(&lookup->address, answer->ai_addr, answer->ai_addrlen);
        freeaddrinfo(answer);
    }
    atomic_store(&lookup->done, true);
    lookup_release(lookup);
    return NULL;
}

static void lookup_start(struct resolver *resolver, const char *host) {
    pthread_t thread;
    struct lookup *lookup = calloc(1, sizeof *lookup);
    if (lookup == NULL)
        return;
    atomic_init(&lookup->holders, 2);
    snprintf(lookup->host, sizeof lookup->host, "%s", host);
    if (pthread_create(&thread, NULL, lookup_run, lookup) != 0) {
        free(lookup);
        return;
    }
    pthread_detach(thread);
    resolver->lookup = lookup;
}

static void lookup_finish(struct resolver *resolver) {
    struct lookup *lookup = resolver->lookup;
    if (lookup->result == 0) {
        resolver->address = lookup->address;
        resolver->known = true;
    } else {
        snprintf(resolver->why, sizeof resolver->why, "%s", gai_strerror(lookup->result));
    }
    resolver->asked_at = time_now();
    resolver->lookup = NULL;
    lookup_release(lookup);
}

static void port_set(struct sockaddr_storage *address, uint16_t port) {
    if (address->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons(port);
}

bool resolve_numeric(const char *host, uint16_t port, struct sockaddr_storage *ret_address) {
    return uv_ip4_addr(host, port, (struct sockaddr_in *)ret_address) == 0 ||
           uv_ip6_addr(host, port, (struct sockaddr_in6 *)ret_address) == 0;
}

enum resolved resolve(struct resolver *resolver, const char *host, uint16_t port,
                      struct sockaddr_storage *ret_address) {
    if (resolve_numeric(host, port, ret_address))
        return RESOLVED;
    if (resolver->lookup != NULL && atomic_load(&resolver->lookup->done))
        lookup_finish(resolver);
    nsec age_max = resolver->known ? ANSWER_AGE_MAX : NSEC_PER_SEC;
    if (resolver->lookup == NULL && (resolver->asked_at == 0 || time_now() - resolver->asked_at > age_max))
        lookup_start(resolver, host);
    if (!resolver->known)
        return resolver->why[0] != '\0' ? UNRESOLVED : RESOLVING;
    *ret_address = resolver->address;
    port_set(ret_address, port);
    return RESOLVED;
}

void resolver_close(struct resolver *resolver) {
    if (resolver->lookup != NULL)
        lookup_release(resolver->lookup);
    resolver->lookup = NULL;
}
