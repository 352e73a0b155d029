#include "daemon/inbox.h"

#include <stdlib.h>

#include "base/panic.h"

void inbox_init(struct inbox *inbox) {
    inbox->first = NULL;
    inbox->last = &inbox->first;
}

struct inbox_item *inbox_add(struct inbox *inbox, enum event_kind kind) {
    struct inbox_item *item = calloc(1, sizeof *item);
    require(item != NULL);
    item->event.kind = kind;
    item->event.now = time_now();
    item->event.wall_ms = time_wall_ms();
    *inbox->last = item;
    inbox->last = &item->next;
    return item;
}

struct inbox_item *inbox_take(struct inbox *inbox) {
    struct inbox_item *item = inbox->first;
    if (item == NULL)
        return NULL;
    inbox->first = item->next;
    if (inbox->first == NULL)
        inbox->last = &inbox->first;
    return item;
}
