/* Assertions that stay on in production. They guard facts that we own (epochs never fall), never what PostgreSQL,
 * a peer or a file says: that is input, and gets an error. */
#pragma once
#include <stdio.h>
#include <stdlib.h>

#define require(fact)                         \
    do {                                      \
        if (!(fact))                          \
            panic(#fact, __FILE__, __LINE__); \
    } while (0)

_Noreturn static inline void panic(const char *fact, const char *file, int line) {
    fprintf(stderr, "ttorch: %s:%d: broken invariant: %s\n", file, line, fact);
    abort();
}
