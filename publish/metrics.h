/* This member in Prometheus's text form. The `patroni_` ones have Patroni's names and meanings, for its dashboards. */
#pragma once
#include "publish/checks.h"

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

char *metrics_text(const struct face *face, nsec now); /* malloc'ed */
