#include "pgctl/guard.h"
