/* The verbs of `ttorch`, one file each. A verb gets its own arguments (argv[0] is its name) and returns the exit code:
 * 0 done, 1 it could not be done, 2 wrong usage. What it was asked for goes to stdout, complaints to stderr. */
#pragma once

int demo_main(int argc, char **argv);
