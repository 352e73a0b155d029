#include <stdio.h>

#include "cli/cli.h"

int demo_main(int argc, char **argv) {
    (void)argc;
    fprintf(stderr, "ttorch %s: not in this build\n", argv[0]);
    return 1;
}
