/* The operator's own files: a template in which {{variable}} stands for a value, {{#standbys}}...{{/standbys}} repeats
 * for each streaming standby, {{#variable}}...{{/variable}} is there if the variable is true or not empty,
 * {{^variable}}...{{/variable}} if it is not, and {{! is a comment }}. (Mustache's words; Debian has no library of it
 * for C.) The same variables, in capitals and after TTORCH_, are the hook's environment. */
#pragma once
#include "publish/forms.h"

#define TEMPLATE_BYTES_MAX 65536

/* Says in which line what is wrong: unknown variable, section that does not end. */
status template_check(const char *template, struct error *error) must_check;
void template_print(FILE *out, const char *template, const struct form *form);

/* "TTORCH_PRIMARY_HOST=10.0.0.1", ..., NULL, malloc'ed as one list; NULL when memory ran out. */
char **template_environment(const struct form *form);
void template_environment_free(char **environment);
