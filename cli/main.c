#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "demo") == 0)
        return demo_main(argc - 1, argv + 1);
    fprintf(stderr, "usage: ttorch VERB\n");
    return 2;
}
