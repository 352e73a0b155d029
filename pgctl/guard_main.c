/* ttorch-guard: the parent of the postmaster. */
#include <stdlib.h>

int main(void) { return EXIT_FAILURE; }
