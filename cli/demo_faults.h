/* The faults that the demo knows. */
#pragma once
#include <stdbool.h>

#include "base/error.h"
#include "cli/demo_cluster.h"

struct fault {
    const char *name;
    const char *told;   /* before the name of the member */
    bool moves_primary; /* a new epoch must follow; else nothing at all may change */
    /* Strikes the primary `member`; `ret_at` = just before the first blow, once all that it needs is known. */
    status (*strike)(struct cluster *cluster, unsigned member, nsec *ret_at, struct error *error);
    /* Of the member that was struck, once writes go on. */
    status (*mend)(struct cluster *cluster, unsigned member, struct error *error);
};

const struct fault *fault_named(const char *name); /* NULL if there is none */
const char *fault_names(void);                     /* "kill|host|..." */
