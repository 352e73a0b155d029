/* The faults that the demo knows. */
#pragma once
#include <stdbool.h>

#include "base/error.h"
#include "cli/demo_cluster.h"

struct fault {
    const char *name;
    const char *told;   /* before the name of the member */
    bool moves_primary; /* a new epoch must follow; else nothing at all may change */
    /* Both get the primary that was struck. `mend` comes once writes go on. */
    status (*strike)(struct cluster *cluster, unsigned member, struct error *error);
    status (*mend)(struct cluster *cluster, unsigned member, struct error *error);
};

const struct fault *fault_named(const char *name); /* NULL if there is none */
const char *fault_names(void);                     /* "kill|host|..." */
