/* Callbacks append, the loop drains: nothing re-enters. Each item owns what its event points at. */
#pragma once
#include "orchestrator/event.h"

/* As large as its kind needs: a snapshot is a hundred times larger than a tick. */
struct inbox_item {
    struct inbox_item *next;
    struct event event;
    char name[NAME_MAX_LENGTH + 1];
    union {
        Command command;
        Snapshot snapshot;
        Message message;
        struct facts facts;
        struct operation_result result;
    };
};

struct inbox {
    struct inbox_item *first, **last;
};

void inbox_init(struct inbox *inbox);
/* A new item at the end, stamped with the time. Of the union it has only the part of this kind. */
struct inbox_item *inbox_add(struct inbox *inbox, enum event_kind kind);
/* The oldest item, the caller's to free; NULL if there is none. */
struct inbox_item *inbox_take(struct inbox *inbox);
bool inbox_is_empty(const struct inbox *inbox);
