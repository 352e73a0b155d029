#include "publish/outputs.h"

#include <stdlib.h>
#include <string.h>

#include "publish/template.h"
#include "publish/writer.h"

#define TICK_MS 1000 /* failed files are tried again, and the freshness file is written */

struct output {
    const char *name; /* of the setting */
    const char *path;
    struct file_manner manner;
    form_printer *print;
    char *template;       /* instead of print */
    char *text;           /* as it shall be; NULL before the first */
    uint64_t index;       /* of the record in `text` */
    uint64_t number;      /* of `text` */
    uint64_t settled;     /* the newest that was written, or could not be */
    uint64_t shown_index; /* of the record in the file */
    bool shown;           /* it was written by us */
    struct error trouble; /* "" = none */
};

struct outputs {
    struct publish_config config;
    struct outputs_callbacks callbacks;
    void *user;
    struct writer *writer;
    uv_timer_t tick;
    unsigned count;
    struct output list[WRITER_FILES_MAX];
    unsigned parts_open;
    void (*closed)(void *user);
    void *closed_user;
};

/* ---- one file ---- */

static bool is_freshness(const struct output *output) { return output->print == form_freshness; }

static void write_it(struct outputs *outputs, struct output *output) {
    struct file_manner manner = output->manner;
    bool only_lags = output->shown && output->index == output->shown_index;
    manner.quick = is_freshness(output) || only_lags;
    char *copy = strdup(output->text);
    if (copy == NULL)
        return; /* the next tick tries again */
    output->number++;
    writer_write(outputs->writer, (unsigned)(output - outputs->list), output->path, &manner, copy, output->number);
}

static char *text_of(const struct output *output, const struct form *form) {
    if (output->template == NULL)
        return form_text(output->print, form);
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return NULL;
    template_print(out, output->template, form);
    fclose(out);
    return text;
}

static void refresh(struct outputs *outputs, struct output *output, const struct face *face) {
    if (output->print == NULL && output->template == NULL)
        return; /* its template or its owner is wrong */
    char *text = text_of(output, &(struct form){.face = face, .config = &outputs->config});
    if (text == NULL || (output->text != NULL && strcmp(text, output->text) == 0)) {
        free(text);
        return;
    }
    free(output->text);
    output->text = text;
    output->index = face->topology->index;
    write_it(outputs, output);
}

static void on_written(void *user, unsigned file, uint64_t number, const struct error *failure) {
    struct outputs *outputs = user;
    struct output *output = &outputs->list[file];
    output->settled = number;
    if (failure == NULL) {
        output->shown = true;
        if (number == output->number)
            output->shown_index = output->index;
        output->trouble.text[0] = '\0';
        outputs->callbacks.written(outputs->user, output->name);
        return;
    }
    if (strcmp(output->trouble.text, failure->text) != 0)
        outputs->callbacks.notice(outputs->user, failure->text); /* told once, until it works again */
    output->trouble = *failure;
}

static void on_tick(uv_timer_t *tick) {
    struct outputs *outputs = tick->data;
    const struct face *face = NULL;
    for (unsigned i = 0; i < outputs->count; i++) {
        struct output *output = &outputs->list[i];
        if (is_freshness(output)) {
            face = face != NULL ? face : outputs->callbacks.face(outputs->user);
            refresh(outputs, output, face);
        }
        if (output->text != NULL && output->trouble.text[0] != '\0' && output->settled == output->number)
            write_it(outputs, output);
    }
}

/* ---- all of them ---- */

void outputs_changed(struct outputs *outputs) {
    const struct face *face = outputs->callbacks.face(outputs->user);
    for (unsigned i = 0; i < outputs->count; i++)
        refresh(outputs, &outputs->list[i], face);
}

void outputs_lags_changed(struct outputs *outputs) {
    const struct face *face = outputs->callbacks.face(outputs->user);
    for (unsigned i = 0; i < outputs->count; i++)
        if (outputs->list[i].print == form_topology)
            refresh(outputs, &outputs->list[i], face);
}

unsigned outputs_rows(const struct outputs *outputs, struct face_output *ret_rows) {
    for (unsigned i = 0; i < outputs->count; i++) {
        const struct output *output = &outputs->list[i];
        ret_rows[i] = (struct face_output){.name = output->name,
                                           .where = output->path,
                                           .shown = output->shown,
                                           .index = output->shown_index,
                                           .trouble = output->trouble.text};
    }
    return outputs->count;
}

bool outputs_settled(const struct outputs *outputs) {
    for (unsigned i = 0; i < outputs->count; i++)
        if (outputs->list[i].settled != outputs->list[i].number)
            return false;
    return true;
}

/* ---- opening and closing ---- */

/* The same trouble of several files is told once. */
static void tell_owner_trouble(const struct outputs *outputs, const struct output *output) {
    for (const struct output *before = outputs->list; before < output; before++)
        if (strcmp(before->trouble.text, output->trouble.text) == 0)
            return;
    outputs->callbacks.notice(outputs->user, output->trouble.text);
}

/* Whom it shall belong to. Nobody of that name: it is not written. */
static void choose_manner(const struct outputs *outputs, struct output *output) {
    const struct publish_config *config = &outputs->config;
    struct publish_access access = {.mode = config->file_mode, .owner = config->file_owner};
    const char *setting = "publish.file_owner";
    for (unsigned i = 0; i < config->accesses_count; i++)
        if (strcmp(config->accesses[i].path, output->path) == 0) {
            access = config->accesses[i];
            setting = "publish.file_access";
        }
    output->manner.mode = (mode_t)access.mode;
    if (file_owner(access.owner, &output->manner.uid, &output->manner.gid, &output->trouble) == OK)
        return;
    error_prefix(&output->trouble, "%s", setting);
    tell_owner_trouble(outputs, output);
    output->print = NULL;
}

static struct output *output_add(struct outputs *outputs, const char *name, const char *path, form_printer *print) {
    if (path[0] == '\0' || outputs->count == WRITER_FILES_MAX)
        return NULL;
    struct output *output = &outputs->list[outputs->count++];
    *output = (struct output){.name = name, .path = path, .print = print};
    choose_manner(outputs, output);
    return output;
}

static void template_add(struct outputs *outputs, const struct publish_template *from) {
    struct output *output = output_add(outputs, "publish.templates", from->target, NULL);
    if (output == NULL || output->trouble.text[0] != '\0')
        return;
    struct error *trouble = &output->trouble;
    if (file_load(from->source, TEMPLATE_BYTES_MAX, &output->template, trouble) != OK) {
        outputs->callbacks.notice(outputs->user, trouble->text);
        return;
    }
    if (template_check(output->template, trouble) == OK)
        return;
    error_prefix(trouble, "%s", from->source);
    outputs->callbacks.notice(outputs->user, trouble->text);
    free(output->template);
    output->template = NULL;
}

static void add_all(struct outputs *outputs) {
    const struct publish_config *config = &outputs->config;
    output_add(outputs, "publish.topology_file", config->topology_file, form_topology);
    output_add(outputs, "publish.env_file", config->env_file, form_env);
    output_add(outputs, "publish.service_file", config->service_file, form_service);
    output_add(outputs, "publish.pgbouncer_file", config->pgbouncer_file, form_pgbouncer);
    for (unsigned i = 0; i < config->templates_count; i++)
        template_add(outputs, &config->templates[i]);
    /* Last: who sees there that all is fresh finds the others written. */
    output_add(outputs, "publish.freshness_file", config->freshness_file, form_freshness);
}

static status open_parts(struct outputs *outputs, uv_loop_t *loop, struct error *error) {
    if (writer_open(&outputs->writer, loop, on_written, outputs, error) != OK)
        return FAILED;
    add_all(outputs);
    uv_timer_init(loop, &outputs->tick);
    outputs->tick.data = outputs;
    uv_timer_start(&outputs->tick, on_tick, TICK_MS, TICK_MS);
    outputs->parts_open = 2;
    return OK;
}

status outputs_open(struct outputs **ret_outputs, uv_loop_t *loop, const struct publish_config *config,
                    const struct outputs_callbacks *callbacks, void *user, struct error *error) {
    struct outputs *outputs = calloc(1, sizeof *outputs);
    if (outputs == NULL)
        return error_set(error, "out of memory");
    outputs->config = *config;
    outputs->callbacks = *callbacks;
    outputs->user = user;
    if (open_parts(outputs, loop, error) != OK) {
        free(outputs);
        return FAILED;
    }
    *ret_outputs = outputs;
    return OK;
}

static void part_closed(struct outputs *outputs) {
    if (--outputs->parts_open > 0)
        return;
    for (unsigned i = 0; i < outputs->count; i++) {
        free(outputs->list[i].text);
        free(outputs->list[i].template);
    }
    outputs->closed(outputs->closed_user);
    free(outputs);
}

static void on_writer_closed(void *user) { part_closed(user); }
static void on_tick_closed(uv_handle_t *handle) { part_closed(handle->data); }

void outputs_close(struct outputs *outputs, void (*closed)(void *user), void *user) {
    outputs->closed = closed;
    outputs->closed_user = user;
    struct face last = *outputs->callbacks.face(outputs->user);
    last.fresh = false;
    for (unsigned i = 0; i < outputs->count; i++)
        if (outputs->list[i].text != NULL) /* what we never wrote is none of ours */
            refresh(outputs, &outputs->list[i], &last);
    uv_close((uv_handle_t *)&outputs->tick, on_tick_closed);
    writer_close(outputs->writer, on_writer_closed, outputs);
}
