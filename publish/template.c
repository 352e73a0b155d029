#include "publish/template.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NESTING_MAX 8

/* ---- variables ---- */

struct scope {
    const struct form *form;
    const struct hosts *standbys;
    const Member *member; /* in {{#standbys}} */
    unsigned number;      /* from 1 */
};

typedef void variable_printer(FILE *out, const struct scope *scope);

static const Member *primary(const struct scope *scope) { return face_shown_primary(scope->form->face); }
static const Topology *topology(const struct scope *scope) { return scope->form->face->topology; }
static const char *word(bool yes) { return yes ? "true" : "false"; }

static void print_cluster(FILE *out, const struct scope *s) { fputs(topology(s)->cluster_name, out); }
static void print_self(FILE *out, const struct scope *s) { fputs(s->form->face->name, out); }
static void print_epoch(FILE *out, const struct scope *s) { fprintf(out, "%" PRIu32, topology(s)->epoch); }
static void print_index(FILE *out, const struct scope *s) { fprintf(out, "%" PRIu64, topology(s)->index); }
static void print_fresh(FILE *out, const struct scope *s) { fputs(word(s->form->face->fresh), out); }
static void print_open(FILE *out, const struct scope *s) {
    fputs(word(topology(s)->open && !topology(s)->sealed), out);
}
static void print_database(FILE *out, const struct scope *s) { fputs(s->form->config->database, out); }
static void print_user(FILE *out, const struct scope *s) { fputs(s->form->config->user, out); }

static void print_primary(FILE *out, const struct scope *s) { fputs(primary(s) != NULL ? primary(s)->name : "", out); }
static void print_primary_host(FILE *out, const struct scope *s) {
    fputs(primary(s) != NULL ? primary(s)->postgres_host : "", out);
}
static void print_primary_port(FILE *out, const struct scope *s) {
    if (primary(s) != NULL)
        fprintf(out, "%" PRIu32, primary(s)->postgres_port);
}
static void print_primary_url(FILE *out, const struct scope *s) {
    struct hosts one = hosts_one(primary(s));
    if (one.count > 0)
        print_url(out, s->form, &one, SESSION_ANY);
}
static void print_write_url(FILE *out, const struct scope *s) {
    struct hosts all = hosts_all(s->form->face);
    print_url(out, s->form, &all, SESSION_WRITE);
}
static void print_read_url(FILE *out, const struct scope *s) {
    struct hosts readers = hosts_readers(s->form->face);
    print_url(out, s->form, &readers, SESSION_READ);
}
static void print_jdbc_write_url(FILE *out, const struct scope *s) {
    struct hosts all = hosts_all(s->form->face);
    print_jdbc_url(out, s->form, &all, SESSION_WRITE);
}
static void print_jdbc_read_url(FILE *out, const struct scope *s) {
    struct hosts readers = hosts_readers(s->form->face);
    print_jdbc_url(out, s->form, &readers, SESSION_READ);
}
/* "m2=10.0.0.2:5432 m3=10.0.0.3:5432" */
static void print_standbys(FILE *out, const struct scope *s) {
    for (unsigned i = 0; i < s->standbys->count; i++) {
        const Member *member = s->standbys->list[i];
        fprintf(out, "%s%s=%s:%" PRIu32, i > 0 ? " " : "", member->name, member->postgres_host, member->postgres_port);
    }
}

static void print_name(FILE *out, const struct scope *s) { fputs(s->member->name, out); }
static void print_host(FILE *out, const struct scope *s) { fputs(s->member->postgres_host, out); }
static void print_port(FILE *out, const struct scope *s) { fprintf(out, "%" PRIu32, s->member->postgres_port); }
static void print_number(FILE *out, const struct scope *s) { fprintf(out, "%u", s->number); }
static void print_sync(FILE *out, const struct scope *s) {
    fputs(word(face_member_sync(s->form->face, s->member)), out);
}
static void print_last(FILE *out, const struct scope *s) { fputs(word(s->number == s->standbys->count), out); }
static void print_member_url(FILE *out, const struct scope *s) {
    struct hosts one = hosts_one(s->member);
    print_url(out, s->form, &one, SESSION_ANY);
}

static const struct variable {
    const char *name;
    bool of_standby;
    variable_printer *print;
} variables[] = {
    {"cluster", false, print_cluster},
    {"member", false, print_self},
    {"epoch", false, print_epoch},
    {"index", false, print_index},
    {"fresh", false, print_fresh},
    {"open", false, print_open},
    {"primary", false, print_primary},
    {"primary_host", false, print_primary_host},
    {"primary_port", false, print_primary_port},
    {"primary_url", false, print_primary_url},
    {"write_url", false, print_write_url},
    {"read_url", false, print_read_url},
    {"jdbc_write_url", false, print_jdbc_write_url},
    {"jdbc_read_url", false, print_jdbc_read_url},
    {"standbys", false, print_standbys},
    {"database", false, print_database},
    {"user", false, print_user},
    {"name", true, print_name},
    {"host", true, print_host},
    {"port", true, print_port},
    {"url", true, print_member_url},
    {"number", true, print_number},
    {"sync", true, print_sync},
    {"last", true, print_last},
};
#define VARIABLES_END (variables + sizeof variables / sizeof *variables)

static const struct variable *find(const char *name, size_t length) {
    for (const struct variable *variable = variables; variable < VARIABLES_END; variable++)
        if (strlen(variable->name) == length && strncmp(variable->name, name, length) == 0)
            return variable;
    return NULL;
}

static char *value(const struct variable *variable, const struct scope *scope) {
    char *text = NULL;
    size_t length;
    FILE *out = open_memstream(&text, &length);
    if (out == NULL)
        return NULL;
    variable->print(out, scope);
    fclose(out);
    return text;
}

static bool is_true(const struct variable *variable, const struct scope *scope) {
    char *text = value(variable, scope);
    bool yes = text != NULL && text[0] != '\0' && strcmp(text, "false") != 0;
    free(text);
    return yes;
}

/* ---- tags ---- */

struct tag {
    const char *begin, *end; /* of all of it in the text */
    char kind;               /* '#', '^', '/', '!', or 0 for a variable */
    const char *name;
    size_t length;
};

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

/* A section's tag that stands alone in its line takes the line with it. */
static void widen(const char *text, struct tag *tag) {
    const char *begin = tag->begin, *end = tag->end;
    if (tag->kind == 0)
        return;
    while (begin > text && is_blank(begin[-1]))
        begin--;
    while (is_blank(*end))
        end++;
    if ((begin > text && begin[-1] != '\n') || (*end != '\n' && *end != '\0'))
        return;
    tag->begin = begin;
    tag->end = end + (*end == '\n');
}

/* The next tag at or after `from`; false if there is none. */
static bool next_tag(const char *text, const char *from, struct tag *ret_tag) {
    const char *begin = strstr(from, "{{"), *close = begin != NULL ? strstr(begin, "}}") : NULL;
    if (close == NULL)
        return false;
    *ret_tag = (struct tag){.begin = begin, .end = close + 2};
    const char *name = begin + 2, *end = close;
    if (*name != '\0' && strchr("#^/!", *name) != NULL)
        ret_tag->kind = *name++;
    while (name < end && isspace((unsigned char)*name))
        name++;
    while (end > name && isspace((unsigned char)end[-1]))
        end--;
    ret_tag->name = name;
    ret_tag->length = (size_t)(end - name);
    widen(text, ret_tag);
    return true;
}

/* ---- checking ---- */

static int line_of(const char *text, const char *at) {
    int line = 1;
    for (; text < at; text++)
        line += *text == '\n';
    return line;
}

static status check_tag(const char *template, const struct tag *tag, struct tag *open, unsigned *depth,
                        struct error *error) {
    int line = line_of(template, tag->name);
    const struct variable *variable = find(tag->name, tag->length);
    bool in_standbys = false;
    for (unsigned i = 0; i < *depth; i++)
        in_standbys |= open[i].kind == '#' && strncmp(open[i].name, "standbys", open[i].length) == 0;
    if (tag->kind == '!')
        return OK;
    if (variable == NULL || (variable->of_standby && !in_standbys))
        return error_set(error, "line %d: there is no variable \"%.*s\"%s", line, (int)(tag->length % 60), tag->name,
                         variable != NULL ? " outside of {{#standbys}}" : "");
    if (tag->kind == 0)
        return OK;
    if (tag->kind != '/') {
        if (*depth == NESTING_MAX)
            return error_set(error, "line %d: more than %d sections in each other", line, NESTING_MAX);
        open[(*depth)++] = *tag;
        return OK;
    }
    if (*depth == 0 || open[*depth - 1].length != tag->length ||
        strncmp(open[*depth - 1].name, tag->name, tag->length) != 0)
        return error_set(error, "line %d: {{/%s}} ends no section that is open here", line, variable->name);
    (*depth)--;
    return OK;
}

status template_check(const char *template, struct error *error) {
    struct tag open[NESTING_MAX], tag;
    unsigned depth = 0;
    const char *at = template;
    for (; next_tag(template, at, &tag); at = tag.end)
        if (check_tag(template, &tag, open, &depth, error) != OK)
            return FAILED;
    if (strstr(at, "{{") != NULL)
        return error_set(error, "line %d: \"{{\" without \"}}\"", line_of(template, strstr(at, "{{")));
    if (depth > 0)
        return error_set(error, "line %d: {{%c%.*s}} is not ended by {{/%.*s}}",
                         line_of(template, open[depth - 1].name), open[depth - 1].kind, (int)open[depth - 1].length,
                         open[depth - 1].name, (int)open[depth - 1].length, open[depth - 1].name);
    return OK;
}

/* ---- printing ---- */

/* Prints from `at` to the end of the section it is in (or of the text), and returns what follows that. */
static const char *print_until_end(FILE *out, const char *template, const char *at, const struct scope *scope);

static const char *print_section(FILE *out, const char *template, const struct tag *tag,
                                 const struct variable *variable, const struct scope *scope) {
    const char *end = print_until_end(NULL, template, tag->end, scope); /* where that is */
    if (out == NULL)
        return end;
    if (tag->kind == '#' && variable->print == print_standbys) {
        for (unsigned i = 0; i < scope->standbys->count; i++) {
            struct scope inner = *scope;
            inner.member = scope->standbys->list[i];
            inner.number = i + 1;
            print_until_end(out, template, tag->end, &inner);
        }
    } else if (is_true(variable, scope) == (tag->kind == '#')) {
        print_until_end(out, template, tag->end, scope);
    }
    return end;
}

static const char *print_until_end(FILE *out, const char *template, const char *at, const struct scope *scope) {
    struct tag tag;
    while (next_tag(template, at, &tag)) {
        const struct variable *variable = find(tag.name, tag.length);
        if (out != NULL)
            fwrite(at, 1, (size_t)(tag.begin - at), out);
        at = tag.end;
        if (tag.kind == '/')
            return at;
        if (tag.kind == '#' || tag.kind == '^')
            at = print_section(out, template, &tag, variable, scope);
        else if (tag.kind == 0 && out != NULL)
            variable->print(out, scope);
    }
    if (out != NULL)
        fputs(at, out);
    return at + strlen(at);
}

void template_print(FILE *out, const char *template, const struct form *form) {
    struct hosts standbys = hosts_standbys(form->face);
    print_until_end(out, template, template, &(struct scope){.form = form, .standbys = &standbys});
}

/* ---- the hook's environment ---- */

static char *assignment(const struct variable *variable, const struct scope *scope) {
    char *text = value(variable, scope), *both = NULL;
    if (text == NULL || asprintf(&both, "TTORCH_%s=%s", variable->name, text) < 0)
        both = NULL;
    free(text);
    for (char *c = both; c != NULL && *c != '='; c++)
        *c = (char)toupper((unsigned char)*c);
    return both;
}

char **template_environment(const struct form *form) {
    struct hosts standbys = hosts_standbys(form->face);
    struct scope scope = {.form = form, .standbys = &standbys};
    char **list = calloc(sizeof variables / sizeof *variables + 1, sizeof *list);
    unsigned count = 0;
    for (const struct variable *variable = variables; list != NULL && variable < VARIABLES_END; variable++) {
        if (variable->of_standby)
            continue;
        list[count] = assignment(variable, &scope);
        if (list[count++] != NULL)
            continue;
        template_environment_free(list);
        return NULL;
    }
    return list;
}

void template_environment_free(char **environment) {
    for (unsigned i = 0; environment != NULL && environment[i] != NULL; i++)
        free(environment[i]);
    free(environment);
}
