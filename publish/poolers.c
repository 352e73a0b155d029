#include "publish/poolers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "publish/face.h"
#include "publish/forms.h"
#include "publish/pooler.h"
#include "session/session.h"

struct poolers {
    struct pooler_config config;
    struct pooler_view view;
    struct poolers_callbacks callbacks;
    void *user;
    struct pooler *list[POOLERS_MAX];
    unsigned count;
    struct face face;
    uint32_t epoch; /* the newest that was open */
    bool handing;   /* a switchover was begun, and no primary has been open since */
    void (*paused)(void *user);
    void *paused_user;
    unsigned parts_open;
    void (*closed)(void *user);
    void *closed_user;
};

/* ---- what shall be ---- */

static struct pooler_address address_of(const Member *member) {
    struct pooler_address address = {.port = member->postgres_port};
    snprintf(address.host, sizeof address.host, "%s", member->postgres_host);
    return address;
}

static void look(struct poolers *poolers) {
    struct pooler_view *view = &poolers->view;
    const Topology *topology = poolers->face.topology;
    const Member *primary = face_shown_primary(&poolers->face);
    view->open = primary != NULL && topology->intent.kind == INTENT_NONE;
    view->index = topology->index;
    view->others_count = 0;
    if (primary != NULL)
        view->primary = address_of(primary);
    for (unsigned i = 0; i < topology->members_count; i++)
        if (&topology->members[i] != primary && !topology->members[i].witness)
            view->others[view->others_count++] = address_of(&topology->members[i]);
}

void poolers_changed(struct poolers *poolers) {
    poolers->callbacks.face(poolers->user, &poolers->face);
    bool was_open = poolers->view.open;
    look(poolers);
    const Topology *topology = poolers->face.topology;
    bool open = poolers->view.open, intended = topology->intent.kind != INTENT_NONE;
    bool begins = intended && !poolers->handing;
    bool leads_anew = open && (poolers->handing || topology->epoch != poolers->epoch);
    poolers->handing = (poolers->handing || intended) && !open;
    if (leads_anew)
        poolers->epoch = topology->epoch;
    for (unsigned i = 0; i < poolers->count; i++) {
        if (begins)
            pooler_held(poolers->list[i]);
        if (leads_anew)
            pooler_lead(poolers->list[i]);
        if (open != was_open || leads_anew)
            pooler_told(poolers->list[i]);
    }
}

void poolers_reload(struct poolers *poolers) {
    for (unsigned i = 0; i < poolers->count; i++)
        pooler_reload(poolers->list[i]);
}

/* ---- pausing ---- */

static void on_paused(void *user) {
    struct poolers *poolers = user;
    void (*paused)(void *user) = poolers->paused;
    for (unsigned i = 0; i < poolers->count; i++)
        if (pooler_pausing(poolers->list[i]))
            return;
    poolers->paused = NULL;
    if (paused != NULL)
        paused(poolers->paused_user);
}

void poolers_pause(struct poolers *poolers, void (*done)(void *user), void *user) {
    poolers_changed(poolers); /* the intent is in the record: they know that they are held */
    poolers->paused = done;
    poolers->paused_user = user;
    for (unsigned i = 0; i < poolers->count; i++)
        pooler_pause(poolers->list[i]);
    on_paused(poolers); /* if none is to be waited for */
}

/* ---- how it does ---- */

unsigned poolers_outputs(const struct poolers *poolers, struct face_output ret_rows[POOLERS_MAX]) {
    for (unsigned i = 0; i < poolers->count; i++)
        ret_rows[i] = pooler_row(poolers->list[i]);
    return poolers->count;
}

static void on_notice(void *user, const char *text) {
    struct poolers *poolers = user;
    poolers->callbacks.notice(poolers->user, text);
}

/* ---- opening and closing ---- */

/* The first line; its mode was looked at with the configuration. */
static status read_password(struct pooler_config *config, const char *path, struct error *error) {
    if (path[0] == '\0')
        return OK;
    config->password = calloc(1, SESSION_PASSWORD_MAX + 1);
    FILE *file = fopen(path, "re");
    bool read =
        config->password != NULL && file != NULL && fgets(config->password, SESSION_PASSWORD_MAX + 1, file) != NULL;
    if (file != NULL)
        fclose(file);
    if (!read)
        return error_set(error, "%s: cannot be read", path);
    config->password[strcspn(config->password, "\r\n")] = '\0';
    return OK;
}

static status take_databases(struct pooler_config *config, const struct poolers_config *from, struct error *error) {
    if (from->databases[0] == '\0') {
        form_pgbouncer_name(from->database, config->databases[0], sizeof config->databases[0]);
        config->databases_count = 1;
        return OK;
    }
    for (const char *name = from->databases; *name != '\0'; name += strspn(name, ", ")) {
        size_t length = strcspn(name, ", ");
        if (config->databases_count == POOLER_DATABASES_MAX)
            return error_set(error, "databases: at most %d", POOLER_DATABASES_MAX);
        snprintf(config->databases[config->databases_count++], sizeof config->databases[0], "%.*s", (int)length, name);
        name += length;
    }
    return OK;
}

static void free_all(struct poolers *poolers) {
    free(poolers->config.password);
    free(poolers);
}

static void part_closed(void *user) {
    struct poolers *poolers = user;
    if (--poolers->parts_open > 0)
        return;
    if (poolers->closed != NULL)
        poolers->closed(poolers->closed_user);
    free_all(poolers);
}

static status open_parts(struct poolers *poolers, uv_loop_t *loop, const struct poolers_config *config,
                         struct error *error) {
    static const struct pooler_callbacks callbacks = {on_notice, on_paused, part_closed};
    if (take_databases(&poolers->config, config, error) != OK ||
        read_password(&poolers->config, config->password_file, error) != OK)
        return FAILED;
    for (unsigned i = 0; i < config->count; i++) {
        poolers->list[i] = pooler_new(loop, &config->list[i], &poolers->config, &poolers->view, &callbacks, poolers);
        if (poolers->list[i] == NULL)
            return error_set(error, "out of memory");
        poolers->count++;
        poolers->parts_open++;
    }
    return OK;
}

status poolers_open(struct poolers **ret_poolers, uv_loop_t *loop, const struct poolers_config *config,
                    const struct poolers_callbacks *callbacks, void *user, struct error *error) {
    struct poolers *poolers = calloc(1, sizeof *poolers);
    if (poolers == NULL)
        return error_set(error, "out of memory");
    poolers->callbacks = *callbacks;
    poolers->user = user;
    poolers->config.pause_ms = config->pause_ms;
    poolers->config.hold_ms = config->hold_ms;
    snprintf(poolers->config.user, sizeof poolers->config.user, "%s", config->user);
    poolers->parts_open = 1;
    if (open_parts(poolers, loop, config, error) != OK) {
        poolers_close(poolers, false, NULL, NULL);
        return FAILED;
    }
    *ret_poolers = poolers;
    return OK;
}

void poolers_close(struct poolers *poolers, bool wait, void (*closed)(void *user), void *user) {
    poolers->closed = closed;
    poolers->closed_user = user;
    poolers->paused = NULL;
    poolers->view.open = false; /* from now on nobody tells us */
    for (unsigned i = 0; i < poolers->count; i++)
        pooler_close(poolers->list[i], wait);
    part_closed(poolers);
}
