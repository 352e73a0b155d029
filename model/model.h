/* The recorded and exchanged structs (generated from ttorch.proto), and the pure functions on them that every part
 * needs: positions, names, lookup, lineage, and the codecs. No clock, no socket, no malloc here.
 *
 * Encoding is nanopb's; decoding tolerates unknown fields and refuses malformed bytes with a reason. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "ttorch.pb.h"

#define COMMAND_VERSION  1
#define SNAPSHOT_VERSION 1

/* ---- positions: timeline first, as each timeline belongs to one epoch and starts from what was covered before ---- */
int position_compare(Position a, Position b); /* <0, 0, >0 */
/* "2/1A000028" as PostgreSQL writes an LSN, into a buffer of at least LSN_TEXT_MAX bytes; returns it. */
#define LSN_TEXT_MAX 20
const char *lsn_text(uint64_t lsn, char *buffer);
/* "1.2 kB", into a buffer of at least SIZE_TEXT_MAX bytes; returns it. */
#define SIZE_TEXT_MAX 24
const char *size_text(uint64_t bytes, char *buffer);

/* ---- names ---- */
#define APPLICATION_NAME_MAX 64
/* `<member>_<copy>_<epoch>`: under which a receiver connects and a rule counts it. */
void application_name(char *buffer, const char *member, uint32_t copy, uint32_t epoch);
/* False if `text` is not such a name. */
bool application_name_parse(const char *text, char *member, uint32_t *copy, uint32_t *epoch);

/* ---- lookup: NULL if there is none ---- */
const Member *topology_member(const Topology *topology, uint32_t id);
const Member *topology_member_named(const Topology *topology, const char *name);
const Epoch *topology_epoch(const Topology *topology, uint32_t epoch);
const Epoch *topology_epoch_of_timeline(const Topology *topology, uint32_t timeline);
unsigned topology_data_members(const Topology *topology); /* that may acknowledge commits: observers do not */
unsigned topology_voters(const Topology *topology);
bool topology_votes(const Topology *topology, uint32_t id); /* there is such a member, and it is no observer */
bool copy_equal(Copy a, Copy b);
bool rule_names_copy(const Rule *rule, Copy copy);

/* True if everything up to `position` is also in the history of the primary of `epoch`: it lies on the epoch's own
 * timeline, or on an ancestor at or before the point where the lineage left it. False also when the record no longer
 * knows. */
bool lineage_contains(const Topology *topology, uint32_t epoch, Position position);
/* Up to where `timeline` belongs to that history: UINT64_MAX for the epoch's own, 0 = it does not, as far as known. */
uint64_t lineage_end(const Topology *topology, uint32_t epoch, uint32_t timeline);
/* True if everything up to `position` is also in the history that ends at `base`. */
bool position_is_prefix(const Topology *topology, Position position, Position base);

/* ---- enums for people ---- */
const char *server_state_name(ServerState state);
const char *data_state_name(DataState state);
const char *durability_name(Durability durability);
const char *history_kind_name(HistoryKind kind);

/* ---- codecs: encode returns the length, 0 if the buffer is too small ---- */
size_t command_encode(const Command *command, uint8_t *buffer, size_t size);
status command_decode(Command *ret_command, const uint8_t *bytes, size_t length, struct error *error) must_check;
size_t snapshot_encode(const Snapshot *snapshot, uint8_t *buffer, size_t size);
status snapshot_decode(Snapshot *ret_snapshot, const uint8_t *bytes, size_t length, struct error *error) must_check;
size_t message_encode(const Message *message, uint8_t *buffer, size_t size);
status message_decode(Message *ret_message, const uint8_t *bytes, size_t length, struct error *error) must_check;

/* ---- the record's only mutation ---- */
enum applied { APPLIED, VOID_COMMAND };
/* Applies one committed command to the record; the same on every member, byte for byte. A command that was decided on
 * facts that no longer hold is void and changes nothing but the index; `why` then says which fact. Adds to history. */
enum applied record_apply(Topology *topology, History *history, uint64_t index, const Command *command,
                          struct error *why);
