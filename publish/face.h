/* What the faces have in common: how a member is to be called, and JSON that cannot fail on strange bytes. */
#pragma once
#include <jansson.h>

#include "publish/publish.h"

/* NULL if there is no observation recent enough to speak of the present. */
const Observation *face_seen(const struct face *face, uint32_t member);
/* It replays what the primary sends, as it says itself; of an observer that we do not hear, as we have no vote either,
 * the primary says so. */
bool face_member_streams(const struct face *face, const Member *member);

/* The recorded primary, NULL before the first and once its epoch is sealed. */
const Member *face_primary(const struct face *face);

/* The primary to which clients may be pointed: it is open, and this is fresh; else NULL. */
const Member *face_shown_primary(const struct face *face);

/* "streaming", "catching up", "down", ...: one or two words for people; never NULL. */
const char *face_member_state(const struct face *face, const Member *member);

/* Whether the newest rule counts this member's copy, and it streams. */
bool face_member_sync(const struct face *face, const Member *member);

/* How far the member is behind the primary with what is on its disk, and with what its readers see; JSON null when that
 * is not known. */
json_t *face_lag_bytes(const struct face *face, const Member *member);
json_t *face_replay_lag_bytes(const struct face *face, const Member *member);
json_t *face_lag_ms(const struct face *face, const Member *member);

/* NULL if there is none. */
const Rule *face_newest_rule(const struct face *face);

/* A JSON string; bytes that are not UTF-8 become question marks. */
json_t *face_text(const char *text);

/* Takes over `json`; NULL when memory ran out. */
char *face_dump(json_t *json);

/* The topology; `lag` tells whether to put the lags in, which change all the time. */
json_t *face_topology(const struct face *face, bool lag);
