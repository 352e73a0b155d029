#include "daemon/inbox.h"

#include <stddef.h>
#include <stdlib.h>

#include "base/panic.h"

void inbox_init(struct inbox *inbox) {
    inbox->first = NULL;
    inbox->last = &inbox->first;
}

static size_t owned_bytes(enum event_kind kind) {
    switch (kind) {
    case EVENT_APPLIED:
        return sizeof(Command);
    case EVENT_RESTORED:
        return sizeof(Snapshot);
    case EVENT_MESSAGE:
        return sizeof(Message);
    case EVENT_FACTS:
        return sizeof(struct facts);
    case EVENT_RESULT:
        return sizeof(struct operation_result);
    default:
        return 0;
    }
}

struct inbox_item *inbox_add(struct inbox *inbox, enum event_kind kind) {
    struct inbox_item *item = calloc(1, offsetof(struct inbox_item, command) + owned_bytes(kind));
    require(item != NULL);
    item->event.kind = kind;
    item->event.now = time_now();
    item->event.wall_ms = time_wall_ms();
    *inbox->last = item;
    inbox->last = &item->next;
    return item;
}

bool inbox_is_empty(const struct inbox *inbox) { return inbox->first == NULL; }

struct inbox_item *inbox_take(struct inbox *inbox) {
    struct inbox_item *item = inbox->first;
    if (item == NULL)
        return NULL;
    inbox->first = item->next;
    if (inbox->first == NULL)
        inbox->last = &inbox->first;
    return item;
}
