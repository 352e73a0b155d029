/* Whether PostgreSQL lets new sessions in: its postmaster may hang while the sessions that are there go on.
 *
 * A knock is the first word of a session, answered by the process that the postmaster forks for it; then it is broken
 * off. It costs a fork, no login, and no line in PostgreSQL's log unless that has every connection. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct door;

typedef void door_opened(void *user);

/* NULL when out of memory. */
struct door *door_new(uv_loop_t *loop, const char *socket_directory, uint16_t port);
/* `opened` comes from the loop once there is an answer; never while there is only silence. That nobody listens is an
 * answer, too: why, others see. Not while one is under way. */
void door_knock(struct door *door, door_opened *opened, void *user);
bool door_knocking(const struct door *door);
/* What is under way is forgotten. */
void door_drop(struct door *door);
void door_free(struct door *door);
