/* How each type of value is written, read and bounded. */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/settings.h"

const char *quoted(const char *text, char buffer[QUOTED_MAX]) {
    size_t length = strlen(text);
    bool cut = length > QUOTED_MAX - 6;
    if (cut)
        for (length = QUOTED_MAX - 6; length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80;)
            length--; /* not inside a UTF-8 character */
    snprintf(buffer, QUOTED_MAX, "\"%.*s%s\"", (int)length, text, cut ? "..." : "");
    for (char *c = buffer; *c != '\0'; c++)
        if (iscntrl((unsigned char)*c))
            *c = '?';
    return buffer;
}

static void *field(const struct setting *setting, void *base) { return (char *)base + setting->offset; }
static const void *const_field(const struct setting *setting, const void *base) {
    return (const char *)base + setting->offset;
}

static status unexpected(const struct setting *setting, const char *text, struct error *error) {
    char found[QUOTED_MAX];
    return error_set(error, "expected %s, found %s", setting->type->expected, quoted(text, found));
}

static bool has_control_character(const char *text) {
    for (; *text != '\0'; text++)
        if (iscntrl((unsigned char)*text))
            return true;
    return false;
}

static void no_bounds(const struct setting *setting, char *text, size_t size) {
    (void)setting;
    snprintf(text, size, "%s", "");
}

/* ---- text, names, paths ---- */

static status store_text(const struct setting *setting, const char *text, void *base, struct error *error) {
    size_t length = strlen(text);
    if (has_control_character(text))
        return error_set(error, "expected one line without control characters");
    if (length < setting->minimum || length > setting->maximum)
        return error_set(error, "must have %d to %d bytes, has %zu", (int)setting->minimum, (int)setting->maximum,
                         length);
    memcpy(field(setting, base), text, length + 1);
    return OK;
}

static void render_text(const struct setting *setting, const void *base, char *text, size_t size) {
    snprintf(text, size, "%s", (const char *)const_field(setting, base));
}

static void text_bounds(const struct setting *setting, char *text, size_t size) {
    snprintf(text, size, "at most %d bytes", (int)setting->maximum);
}

static status parse_name(const struct setting *setting, const char *text, void *base, struct error *error) {
    size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");
    if (length == 0 || length > NAME_MAX_LENGTH || text[length] != '\0' || !islower((unsigned char)text[0]))
        return unexpected(setting, text, error);
    memcpy(field(setting, base), text, length + 1);
    return OK;
}

static status parse_path(const struct setting *setting, const char *text, void *base, struct error *error) {
    if (text[0] == '\0' && setting->minimum == 0)
        return store_text(setting, text, base, error);
    if (text[0] != '/')
        return unexpected(setting, text, error);
    if (store_text(setting, text, base, error) != OK)
        return FAILED;
    char *path = field(setting, base);
    for (size_t length = strlen(path); length > 1 && path[length - 1] == '/'; length--)
        path[length - 1] = '\0';
    return OK;
}

/* What stands here by mistake may be the password itself. */
static status parse_secret_path(const struct setting *setting, const char *text, void *base, struct error *error) {
    if (text[0] != '/')
        return error_set(error, "expected %s, found something else (not shown)", setting->type->expected);
    return parse_path(setting, text, base, error);
}

/* ---- addresses ---- */

static bool is_numeric(const char *host) {
    unsigned char address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static bool is_host_name(const char *host) {
    size_t length = strlen(host);
    if (length == 0 || length > HOST_MAX_LENGTH || host[0] == '-' || host[0] == '.')
        return false;
    if (strspn(host, "0123456789.") == length) /* an IPv4 address that is none */
        return false;
    for (const char *c = host; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && strchr("-._", *c) == NULL)
            return false;
    return true;
}

static status parse_host(const struct setting *setting, const char *text, void *base, struct error *error) {
    if (text[0] != '\0' && !is_numeric(text) && !is_host_name(text))
        return unexpected(setting, text, error);
    memcpy(field(setting, base), text, strlen(text) + 1);
    return OK;
}

/* A decimal number without sign; false also when it is larger than a uint64_t. `ret_end` is what follows it. */
static bool read_number(const char *text, uint64_t *ret_number, const char **ret_end) {
    uint64_t number = 0;
    const char *c = text;
    for (; isdigit((unsigned char)*c); c++)
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*c - '0'), &number))
            return false;
    *ret_number = number;
    *ret_end = c;
    return c != text;
}

static bool read_port(const char *text, uint16_t *ret_port) {
    uint64_t number;
    const char *end;
    if (!read_number(text, &number, &end) || *end != '\0' || number < 1 || number > 65535)
        return false;
    *ret_port = (uint16_t)number;
    return true;
}

static status parse_domain(const struct setting *setting, const char *text, void *base, struct error *error) {
    if (text[0] != '\0' && !is_host_name(text))
        return unexpected(setting, text, error);
    return store_text(setting, text, base, error);
}

/* One address, or several with commas between them, kept as "10.0.0.1, ::1". */
static status parse_addresses(const struct setting *setting, const char *text, void *base, struct error *error) {
    char list[512] = "", word[INET6_ADDRSTRLEN];
    size_t length = 0;
    for (text += strspn(text, " ,"); *text != '\0'; text += strspn(text, " ,")) {
        size_t size = strcspn(text, " ,");
        snprintf(word, sizeof word, "%.*s", (int)size, text);
        if (size >= sizeof word || !is_numeric(word) || length + size + 3 > sizeof list)
            return unexpected(setting, text, error);
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", length > 0 ? ", " : "", word);
        text += size;
    }
    return store_text(setting, list, base, error);
}

/* Splits "host:port" or "[host]:port"; the host without brackets. */
static bool split_address(const char *text, char host[HOST_MAX_LENGTH + 1], const char **ret_port) {
    bool bracketed = text[0] == '[';
    const char *end = bracketed ? strstr(text, "]:") : strchr(text, ':');
    const char *begin = text + bracketed;
    if (end == NULL || end == begin || (size_t)(end - begin) > HOST_MAX_LENGTH)
        return false;
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';
    *ret_port = end + 1 + bracketed;
    return bracketed == (strchr(host, ':') != NULL);
}

bool pooler_address(const char *text, char ret_host[HOST_MAX_LENGTH + 1], uint16_t *ret_port) {
    const char *port;
    return strlen(text) <= HOST_MAX_LENGTH && split_address(text, ret_host, &port) && read_port(port, ret_port) &&
           (ret_host[0] == '/' || is_numeric(ret_host));
}

/* "fd00::3:7432" may be an address with or without a port: only brackets tell. */
static status missing_brackets(const char *text, struct error *error) {
    const char *colon = strrchr(text, ':');
    return error_set(error, "an IPv6 address needs brackets, and these quotes: write \"[%.*s]:%s\"",
                     (int)(colon - text), text, colon + 1);
}

static bool looks_like_bare_ipv6(const char *text) {
    return strchr(text, ':') != strrchr(text, ':') && strspn(text, "0123456789abcdefABCDEF:.") == strlen(text) &&
           strlen(text) < INET6_ADDRSTRLEN + 6;
}

static status parse_address(const struct setting *setting, const char *text, void *base, struct error *error) {
    char host[HOST_MAX_LENGTH + 1], found[QUOTED_MAX];
    const char *port_text;
    uint16_t port;
    if (looks_like_bare_ipv6(text))
        return missing_brackets(text, error);
    if (!split_address(text, host, &port_text) || (!is_numeric(host) && !is_host_name(host)))
        return unexpected(setting, text, error);
    if (!read_port(port_text, &port))
        return error_set(error, "the port must be a number from 1 to 65535, found %s", quoted(port_text, found));
    if (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0)
        return error_set(error, "%s means every address: write one at which the other members reach it", host);
    memcpy(field(setting, base), host, strlen(host) + 1);
    memcpy((char *)base + setting->port_offset, &port, sizeof port);
    return OK;
}

static void render_address(const struct setting *setting, const void *base, char *text, size_t size) {
    const char *host = const_field(setting, base);
    uint16_t port;
    memcpy(&port, (const char *)base + setting->port_offset, sizeof port);
    if (host[0] == '\0')
        snprintf(text, size, "none");
    else
        snprintf(text, size, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host, port);
}

/* ---- numbers, with and without units ---- */

struct unit {
    const char *name;
    uint64_t factor;
};
/* Smallest first. */
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};
static const struct unit duration_units[] = {{"ms", 1}, {"s", 1000}, {"min", 60000}, {NULL, 0}};
static const struct unit size_units[] = {{"B", 1},           {"kB", 1ull << 10}, {"MB", 1ull << 20},
                                         {"GB", 1ull << 30}, {"TB", 1ull << 40}, {NULL, 0}};

static void write_number(uint64_t number, const struct unit *units, char *text, size_t size) {
    const struct unit *best = units;
    for (const struct unit *unit = units; unit->name != NULL; unit++)
        if (number != 0 && number % unit->factor == 0)
            best = unit;
    snprintf(text, size, "%llu%s", (unsigned long long)(number / best->factor), number == 0 ? "" : best->name);
}

static void number_bounds(const struct setting *setting, const struct unit *units, char *text, size_t size) {
    char minimum[32], maximum[32];
    write_number(setting->minimum, units, minimum, sizeof minimum);
    write_number(setting->maximum, units, maximum, sizeof maximum);
    snprintf(text, size, "%s to %s", minimum, maximum);
}

static status read_with_unit(const struct setting *setting, const char *text, const struct unit *units,
                             uint64_t *ret_number, struct error *error) {
    uint64_t number;
    const char *end;
    char bounds[80], found[QUOTED_MAX];
    if (!isdigit((unsigned char)text[0]))
        return unexpected(setting, text, error);
    bool fits = read_number(text, &number, &end);
    if (fits) {
        end += *end == ' ';
        while (units->name != NULL && strcmp(units->name, end) != 0)
            units++;
        if (units->name == NULL && !(number == 0 && *end == '\0'))
            return unexpected(setting, text, error);
        fits = units->name == NULL || !__builtin_mul_overflow(number, units->factor, &number);
    }
    setting->type->bounds(setting, bounds, sizeof bounds);
    if (!fits || number < setting->minimum || number > setting->maximum)
        return error_set(error, "must be from %s, found %s", bounds, quoted(text, found));
    *ret_number = number;
    return OK;
}

static void store_number(const struct setting *setting, uint64_t number, void *base) {
    uint16_t number16 = (uint16_t)number;
    uint32_t number32 = (uint32_t)number;
    const void *source = setting->size == 2 ? (void *)&number16 : setting->size == 4 ? (void *)&number32 : &number;
    memcpy(field(setting, base), source, setting->size);
}

static uint64_t stored_number(const struct setting *setting, const void *base) {
    uint16_t number16;
    uint32_t number32;
    uint64_t number;
    switch (setting->size) {
    case 2:
        memcpy(&number16, const_field(setting, base), 2);
        return number16;
    case 4:
        memcpy(&number32, const_field(setting, base), 4);
        return number32;
    default:
        memcpy(&number, const_field(setting, base), 8);
        return number;
    }
}

#define NUMBER_TYPE(kind, units)                                                                                   \
    static status parse_##kind(const struct setting *setting, const char *text, void *base, struct error *error) { \
        uint64_t number = 0;                                                                                       \
        if (read_with_unit(setting, text, units, &number, error) != OK)                                            \
            return FAILED;                                                                                         \
        store_number(setting, number, base);                                                                       \
        return OK;                                                                                                 \
    }                                                                                                              \
    static void render_##kind(const struct setting *setting, const void *base, char *text, size_t size) {          \
        write_number(stored_number(setting, base), units, text, size);                                             \
    }                                                                                                              \
    static void kind##_bounds(const struct setting *setting, char *text, size_t size) {                            \
        number_bounds(setting, units, text, size);                                                                 \
    }
NUMBER_TYPE(integer, no_units)
NUMBER_TYPE(duration, duration_units)
NUMBER_TYPE(size, size_units)

/* ---- words ---- */

static status parse_boolean(const struct setting *setting, const char *text, void *base, struct error *error) {
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasecmp(text, words[i]) == 0) {
            *(bool *)field(setting, base) = i % 2 == 1;
            return OK;
        }
    return unexpected(setting, text, error);
}

static void render_boolean(const struct setting *setting, const void *base, char *text, size_t size) {
    snprintf(text, size, "%s", *(const bool *)const_field(setting, base) ? "true" : "false");
}

static const char *const durability_words[] = {
    [CONFIG_QUORUM] = "quorum", [CONFIG_STRICT] = "strict", [CONFIG_ASYNC] = "async"};

static status parse_durability(const struct setting *setting, const char *text, void *base, struct error *error) {
    for (unsigned i = CONFIG_QUORUM; i <= CONFIG_ASYNC; i++)
        if (strcmp(text, durability_words[i]) == 0) {
            *(enum config_durability *)field(setting, base) = (enum config_durability)i;
            return OK;
        }
    return unexpected(setting, text, error);
}

static void render_durability(const struct setting *setting, const void *base, char *text, size_t size) {
    snprintf(text, size, "%s", durability_words[*(const enum config_durability *)const_field(setting, base)]);
}

const char *const config_watchdog_words[] = {
    [CONFIG_WATCHDOG_OFF] = "off", [CONFIG_WATCHDOG_AUTOMATIC] = "automatic", [CONFIG_WATCHDOG_REQUIRED] = "required"};

static status parse_watchdog(const struct setting *setting, const char *text, void *base, struct error *error) {
    for (unsigned i = CONFIG_WATCHDOG_OFF; i <= CONFIG_WATCHDOG_REQUIRED; i++)
        if (strcmp(text, config_watchdog_words[i]) == 0) {
            *(enum config_watchdog *)field(setting, base) = (enum config_watchdog)i;
            return OK;
        }
    return unexpected(setting, text, error);
}

static void render_watchdog(const struct setting *setting, const void *base, char *text, size_t size) {
    snprintf(text, size, "%s", config_watchdog_words[*(const enum config_watchdog *)const_field(setting, base)]);
}

/* ---- file modes, names of variables, parameters of libpq ---- */

static status parse_mode(const struct setting *setting, const char *text, void *base, struct error *error) {
    size_t length = strspn(text, "01234567");
    unsigned long mode = strtoul(text, NULL, 8);
    if (length == 0 || length > 5 || text[length] != '\0' || mode < setting->minimum || mode > setting->maximum)
        return unexpected(setting, text, error);
    store_number(setting, mode, base);
    return OK;
}

static void render_mode(const struct setting *setting, const void *base, char *text, size_t size) {
    snprintf(text, size, "%04o", (unsigned)stored_number(setting, base));
}

/* `minimum` says how many # there must be, for a number. */
static status parse_variable(const struct setting *setting, const char *text, void *base, struct error *error) {
    unsigned numbers = 0;
    for (const char *c = text; *c != '\0'; c++) {
        numbers += *c == '#';
        if (!isalpha((unsigned char)*c) && *c != '_' && (c == text || (!isdigit((unsigned char)*c) && *c != '#')))
            return unexpected(setting, text, error);
    }
    size_t length = strlen(text);
    if (numbers != setting->minimum || length == 0 || length > setting->maximum)
        return error_set(error, "expected a name of 1 to %d letters, digits and \"_\", %s \"#\"", (int)setting->maximum,
                         setting->minimum > 0 ? "with one" : "without");
    memcpy(field(setting, base), text, length + 1);
    return OK;
}

static bool is_option(const char *word, size_t length) {
    size_t name = strspn(word, "abcdefghijklmnopqrstuvwxyz_");
    if (name == 0 || name + 1 >= length || word[name] != '=')
        return false;
    for (const char *c = word + name + 1; c < word + length; c++)
        if (!isalnum((unsigned char)*c) && strchr("-_./:,", *c) == NULL)
            return false;
    return memmem(word, name, "password", strlen("password")) == NULL;
}

static status parse_options(const struct setting *setting, const char *text, void *base, struct error *error) {
    for (const char *word = text; *word != '\0';) {
        size_t length = strcspn(word, " ");
        if (!is_option(word, length))
            return error_set(error, "expected %s", setting->type->expected); /* it may be a password: not shown */
        word += length + strspn(word + length, " ");
    }
    return store_text(setting, text, base, error);
}

/* Names that PgBouncer takes without quotes. */
static status parse_databases(const struct setting *setting, const char *text, void *base, struct error *error) {
    char list[512] = "";
    size_t length = 0;
    for (text += strspn(text, " ,"); *text != '\0'; text += strspn(text, " ,")) {
        size_t size = strcspn(text, " ,");
        for (size_t i = 0; i < size; i++)
            if (!isalnum((unsigned char)text[i]) && strchr("_.-", text[i]) == NULL)
                return unexpected(setting, text, error);
        if (size > 63 || length + size + 3 > sizeof list)
            return error_set(error, "expected names of at most 63 bytes, all together of at most %zu", sizeof list);
        length +=
            (size_t)snprintf(list + length, sizeof list - length, "%s%.*s", length > 0 ? ", " : "", (int)size, text);
        text += size;
    }
    return store_text(setting, list, base, error);
}

static const char *const tsig_words[] = {[CONFIG_HMAC_SHA256] = "hmac-sha256", [CONFIG_HMAC_SHA512] = "hmac-sha512"};

static status parse_tsig(const struct setting *setting, const char *text, void *base, struct error *error) {
    for (unsigned i = CONFIG_HMAC_SHA256; i <= CONFIG_HMAC_SHA512; i++)
        if (strcmp(text, tsig_words[i]) == 0) {
            *(enum config_tsig *)field(setting, base) = (enum config_tsig)i;
            return OK;
        }
    return unexpected(setting, text, error);
}

static void render_tsig(const struct setting *setting, const void *base, char *text, size_t size) {
    snprintf(text, size, "%s", tsig_words[*(const enum config_tsig *)const_field(setting, base)]);
}

/* ---- lists ---- */

static void render_parameters(const struct setting *setting, const void *base, char *text, size_t size) {
    const struct config_parameters *parameters = const_field(setting, base);
    size_t length = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < parameters->count && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%s = '%s'", i == 0 ? "" : ", ",
                                   parameters->list[i].name, parameters->list[i].value);
}

/* The only setting of this type is postgresql.hba. */
static void render_lines(const struct setting *setting, const void *base, char *text, size_t size) {
    const struct config *config = base;
    size_t length = 0;
    (void)setting;
    text[0] = '\0';
    for (unsigned i = 0; i < config->postgresql.hba_count && length < size; i++)
        length +=
            (size_t)snprintf(text + length, size - length, "%s%s", i == 0 ? "" : " | ", config->postgresql.hba[i]);
}

static void render_templates(const struct setting *setting, const void *base, char *text, size_t size) {
    const struct config_templates *templates = const_field(setting, base);
    size_t length = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < templates->count && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%s of %s", i == 0 ? "" : ", ",
                                   templates->list[i].target, templates->list[i].source);
}

static void templates_bounds(const struct setting *setting, char *text, size_t size) {
    (void)setting;
    snprintf(text, size, "at most %d", CONFIG_TEMPLATE_MAX);
}

static void render_accesses(const struct setting *setting, const void *base, char *text, size_t size) {
    const struct config_accesses *accesses = const_field(setting, base);
    size_t length = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < accesses->count && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%s: %04o%s%s", i == 0 ? "" : ", ",
                                   accesses->list[i].path, accesses->list[i].mode,
                                   accesses->list[i].owner[0] != '\0' ? " " : "", accesses->list[i].owner);
}

static void accesses_bounds(const struct setting *setting, char *text, size_t size) {
    (void)setting;
    snprintf(text, size, "at most %d", CONFIG_ACCESS_MAX);
}

static void render_poolers(const struct setting *setting, const void *base, char *text, size_t size) {
    const struct config_poolers *poolers = const_field(setting, base);
    size_t length = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < poolers->count && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%s at %s:%u", i == 0 ? "" : ", ",
                                   poolers->list[i].name, poolers->list[i].host, poolers->list[i].port);
}

static void poolers_bounds(const struct setting *setting, char *text, size_t size) {
    (void)setting;
    snprintf(text, size, "at most %d", CONFIG_POOLER_MAX);
}

static void list_bounds(const struct setting *setting, char *text, size_t size) {
    (void)setting;
    snprintf(text, size, "at most %d", CONFIG_LIST_MAX);
}

#define NAME_EXPECTED "a name of at most 31 small letters, digits and \"-\" that begins with a letter, such as m1"
#define PATH_EXPECTED "an absolute path such as /var/lib/ttorch"

/* clang-format off */
const struct value_type
    value_name = {"name", NAME_EXPECTED, parse_name, render_text, no_bounds},
    value_text = {"text", "text", store_text, render_text, text_bounds},
    value_path = {"path", PATH_EXPECTED, parse_path, render_text, text_bounds},
    value_secret_path = {"path", "the absolute path of a file that holds the secret, such as "
                         "/etc/ttorch/replication.password", parse_secret_path, render_text, text_bounds},
    value_host = {"address", "an address such as 10.0.0.1 or 0.0.0.0", parse_host, render_text, no_bounds},
    value_address = {"host:port", "host:port such as 10.0.0.1:7432 or, with the quotes, \"[fd00::3]:7432\"",
                     parse_address, render_address, no_bounds},
    value_integer = {"number", "a whole number", parse_integer, render_integer, integer_bounds},
    value_boolean = {"true or false", "true or false", parse_boolean, render_boolean, no_bounds},
    value_duration = {"duration", "a duration such as 500ms, 2s or 1min", parse_duration, render_duration,
                      duration_bounds},
    value_size = {"size", "a size such as 512kB, 16MB or 10GB", parse_size, render_size, size_bounds},
    value_durability = {"one of the words", "quorum, strict or async", parse_durability, render_durability, no_bounds},
    value_watchdog = {"one of the words", "off, automatic or required", parse_watchdog, render_watchdog, no_bounds},
    value_mode = {"file mode", "a file mode such as 0640", parse_mode, render_mode, no_bounds},
    value_variable = {"name of a variable", "the name of a variable such as DATABASE_URL", parse_variable, render_text,
                      no_bounds},
    value_options = {"parameters of libpq", "parameters of libpq such as connect_timeout=3 sslmode=require, but no "
                     "password", parse_options, render_text, text_bounds},
    value_templates = {"templates", "a file to make and its template, such as "
                       "{/run/ttorch/primary.conf: /etc/ttorch/primary.conf.in}", NULL, render_templates,
                       templates_bounds},
    value_accesses = {"modes of files", "a published file, its mode and owner, such as "
                      "{/run/ttorch/databases.ini: \"0640 postgres:pgbouncer\"}", NULL, render_accesses, accesses_bounds},
    value_tsig = {"one of the words", "hmac-sha256 or hmac-sha512", parse_tsig, render_tsig, no_bounds},
    value_domain = {"domain", "a domain such as db.example.org", parse_domain, render_text, no_bounds},
    value_addresses = {"list of addresses", "addresses such as [10.0.0.1, \"::1\"]", parse_addresses, render_text,
                       no_bounds},
    value_poolers = {"names and addresses", "a name and an address such as {app1: 10.0.1.1:6432, app2: \"[fd00::2]:6432\"} "
                     "or the directory of a socket, as {here: /run/postgresql:6432}", NULL, render_poolers, poolers_bounds},
    value_databases = {"list of names", "names of databases such as [shop, billing]", parse_databases, render_text,
                       no_bounds},
    value_parameters = {"parameters", "parameters of PostgreSQL such as {work_mem: 16MB}", NULL, render_parameters,
                        list_bounds},
    value_lines = {"list of lines", "a list of lines such as [\"host all app 10.0.0.0/8 scram-sha-256\"]", NULL,
                   render_lines, list_bounds};
/* clang-format on */
