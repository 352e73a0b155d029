#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/parts.h"

/*   WAITING (no leader yet, or it is busy) -> SUBMITTED (here: we lead) -> ended
 *                                          -> FORWARDED -> ended, or LEARNED (committed there, not yet applied here)
 *                                          -> WAITING again if that member certainly did not take it
 *
 * A proposal that another member forwarded to us is never WAITING: it is submitted or rejected at once. */
enum proposal_state { WAITING, SUBMITTED, FORWARDED, LEARNED, ENDED };

struct proposal {
    struct raft_apply apply; /* first: libraft gives it back */
    struct proposal *next;
    struct record *record; /* NULL once the record no longer knows it */
    enum proposal_state state;
    uint64_t id; /* for the answer */
    nsec deadline;
    record_done *done; /* ours */
    void *user;
    struct peer *peer; /* whose answer we wait for, or who waits for ours */
    bool foreign;      /* proposed by `peer` */
    uint64_t index;    /* LEARNED */
    bool in_log;       /* libraft holds `apply` */
    size_t length;
    uint8_t command[];
};

#define ENTRY_HEADER 8 /* length and CRC-32 of the command; entries are padded to a multiple of 8 */

static struct proposal *proposal_new(struct record *record, const uint8_t *command, size_t length,
                                     unsigned deadline_ms) {
    struct proposal *proposal = calloc(1, sizeof *proposal + length);
    if (proposal == NULL)
        return NULL;
    proposal->record = record;
    proposal->deadline = time_now() + msec(deadline_ms);
    proposal->length = length;
    memcpy(proposal->command, command, length);
    proposal->id = ++record->proposals_next;
    *record->proposals_end = proposal;
    record->proposals_end = &proposal->next;
    record->proposals_count++;
    return proposal;
}

/* ---- the end of a proposal ---- */

static void foreign_answer(struct proposal *proposal, enum record_outcome outcome, uint64_t index, bool again,
                           const char *why) {
    PeerOutcome answer = PeerOutcome_init_zero;
    if (!peer_reachable(proposal->peer))
        return;
    answer.id = proposal->id;
    answer.outcome = outcome;
    answer.index = index;
    answer.again = again;
    snprintf(answer.why, sizeof answer.why, "%s", why);
    connection_send_message(proposal->peer->messages, FRAME_OUTCOME, PeerOutcome_fields, &answer);
}

static void proposal_end(struct proposal *proposal, enum record_outcome outcome, uint64_t index, const char *why) {
    struct record *record = proposal->record;
    proposal->state = ENDED;
    record_defer(record); /* which frees it */
    if (record_silent(record))
        return;
    if (proposal->foreign)
        foreign_answer(proposal, outcome, index, false, why);
    else
        proposal->done(proposal->user, outcome, index, why);
}

/* ---- submitting ---- */

static void on_applied(struct raft_apply *request, int result, void *unused) {
    struct proposal *proposal = (struct proposal *)request;
    (void)unused;
    proposal->in_log = false;
    if (proposal->record == NULL) {
        free(proposal);
        return;
    }
    if (proposal->state != SUBMITTED)
        return; /* its deadline passed before */
    if (result == 0)
        proposal_end(proposal, RECORD_COMMITTED, request->index, "");
    else
        proposal_end(proposal, RECORD_UNKNOWN, 0, raft_strerror(result));
}

/* The entry as it is in the log; NULL if there is no memory. */
static uint8_t *entry_make(const struct proposal *proposal, size_t *ret_length) {
    size_t length = (ENTRY_HEADER + proposal->length + 7) / 8 * 8;
    uint8_t *entry = raft_calloc(1, length);
    if (entry == NULL)
        return NULL;
    put_u32(entry, (uint32_t)proposal->length);
    put_u32(entry + 4, crc32_update(0, proposal->command, proposal->length));
    memcpy(entry + ENTRY_HEADER, proposal->command, proposal->length);
    *ret_length = length;
    return entry;
}

static void proposal_refused(struct proposal *proposal, int result) {
    if (result == RAFT_NOSPACE)
        record_step_aside(proposal->record, NULL);
    if (result != RAFT_NOTLEADER) {
        proposal_end(proposal, RECORD_REJECTED, 0, raft_strerror(result));
    } else if (proposal->foreign) { /* leadership is being handed over: its proposer finds the next leader */
        foreign_answer(proposal, RECORD_REJECTED, 0, true, raft_strerror(result));
        proposal->state = ENDED;
    }
}

/* After any other error libraft may have taken the entry, and its memory, nevertheless. */
static bool certainly_refused(int result) { return result == RAFT_NOTLEADER || result == RAFT_NOSPACE; }

static void proposal_submit(struct proposal *proposal) {
    struct record *record = proposal->record;
    struct raft_buffer buffer;
    buffer.base = entry_make(proposal, &buffer.len);
    if (buffer.base == NULL) {
        proposal_refused(proposal, RAFT_NOMEM);
        return;
    }
    int result = raft_apply(&record->engine.raft, &proposal->apply, &buffer, 1, on_applied);
    if (result == 0) {
        proposal->state = SUBMITTED;
        proposal->in_log = true;
    } else if (certainly_refused(result)) {
        raft_free(buffer.base);
        proposal_refused(proposal, result);
    } else {
        proposal_end(proposal, RECORD_UNKNOWN, 0, raft_strerror(result));
    }
}

static void proposal_forward(struct proposal *proposal, struct peer *leader) {
    struct record *record = proposal->record;
    PeerPropose *propose = calloc(1, sizeof *propose);
    if (propose == NULL)
        return;
    propose->id = proposal->id;
    propose->term = record->engine.term;
    propose->deadline_ms = (uint32_t)msec_between(time_now(), proposal->deadline);
    propose->command.size = (pb_size_t)proposal->length;
    memcpy(propose->command.bytes, proposal->command, proposal->length);
    connection_send_message(leader->messages, FRAME_PROPOSE, PeerPropose_fields, propose);
    free(propose);
    proposal->state = FORWARDED;
    proposal->peer = leader;
}

static void proposal_try(struct proposal *proposal) {
    struct record *record = proposal->record;
    if (engine_leads(record)) {
        proposal_submit(proposal);
        return;
    }
    struct peer *leader = record->engine.leader;
    if (leader != NULL && leader->index != record->self && peer_reachable(leader))
        proposal_forward(proposal, leader);
}

/* ---- turns ---- */

static void proposal_due(struct proposal *proposal) {
    if (proposal->state == WAITING)
        proposal_end(proposal, RECORD_REJECTED, 0, "no leader within the deadline");
    else if (proposal->state == LEARNED)
        proposal_end(proposal, RECORD_COMMITTED, proposal->index, "");
    else if (proposal->state != ENDED)
        proposal_end(proposal, RECORD_UNKNOWN, 0, "no answer within the deadline");
}

static void proposals_sweep(struct record *record) {
    struct proposal **at = &record->proposals;
    while (*at != NULL) {
        struct proposal *proposal = *at;
        if (proposal->state != ENDED) {
            at = &proposal->next;
            continue;
        }
        *at = proposal->next;
        record->proposals_count--;
        proposal->record = NULL;
        if (!proposal->in_log)
            free(proposal);
    }
    record->proposals_end = at;
}

void proposals_turn(struct record *record, nsec now) {
    for (struct proposal *p = record->proposals; p != NULL; p = p->next) {
        if (p->length == 0 || p->length > COMMAND_BYTES_MAX)
            proposal_end(p, RECORD_REJECTED, 0, "empty command, or longer than COMMAND_BYTES_MAX");
        if (p->state == WAITING && now < p->deadline)
            proposal_try(p);
        if (p->state == LEARNED && engine_applied(record) >= p->index)
            proposal_end(p, RECORD_COMMITTED, p->index, "");
        if (now >= p->deadline)
            proposal_due(p);
    }
    proposals_sweep(record);
}

bool proposals_submitted(const struct record *record) {
    for (const struct proposal *p = record->proposals; p != NULL; p = p->next)
        if (p->state == SUBMITTED)
            return true;
    return false;
}

/* ---- between members ---- */

static status propose_received(struct record *record, struct peer *peer, const struct frame *frame,
                               struct error *error) {
    PeerPropose *propose = calloc(1, sizeof *propose);
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    if (propose == NULL || !pb_decode(&stream, PeerPropose_fields, propose) || propose->command.size == 0) {
        free(propose);
        return error_set(error, "malformed proposal");
    }
    struct proposal refused = {.peer = peer, .foreign = true, .id = propose->id}, *proposal = NULL;
    if (!engine_leads(record) || propose->term != record->engine.term)
        foreign_answer(&refused, RECORD_REJECTED, 0, true, "not the leader of that term");
    else if (record->proposals_count >= PROPOSALS_MAX ||
             (proposal = proposal_new(record, propose->command.bytes, propose->command.size, propose->deadline_ms)) ==
                 NULL)
        foreign_answer(&refused, RECORD_REJECTED, 0, false, "too many proposals");
    else {
        proposal->peer = peer;
        proposal->foreign = true;
        proposal->id = propose->id;
        proposal_submit(proposal);
    }
    free(propose);
    return OK;
}

static struct proposal *proposal_forwarded(struct record *record, const struct peer *peer, uint64_t id) {
    for (struct proposal *p = record->proposals; p != NULL; p = p->next)
        if (p->state == FORWARDED && p->peer == peer && p->id == id)
            return p;
    return NULL;
}

static status outcome_received(struct record *record, struct peer *peer, const struct frame *frame,
                               struct error *error) {
    PeerOutcome answer = PeerOutcome_init_zero;
    pb_istream_t stream = pb_istream_from_buffer(frame->payload, frame->length);
    if (!pb_decode(&stream, PeerOutcome_fields, &answer) || answer.outcome > RECORD_UNKNOWN)
        return error_set(error, "malformed outcome");
    struct proposal *proposal = proposal_forwarded(record, peer, answer.id);
    if (proposal == NULL)
        return OK;
    if (answer.outcome == RECORD_COMMITTED) {
        proposal->state = LEARNED;
        proposal->index = answer.index;
    } else if (answer.outcome == RECORD_REJECTED && answer.again) {
        proposal->state = WAITING; /* tried again on the next tick, when the roles may be clearer */
        proposal->peer = NULL;
        return OK;
    } else {
        proposal_end(proposal, (enum record_outcome)answer.outcome, 0, answer.why);
    }
    record_defer(record);
    return OK;
}

status proposals_frame(struct record *record, struct peer *peer, const struct frame *frame, struct error *error) {
    return frame->type == FRAME_PROPOSE ? propose_received(record, peer, frame, error)
                                        : outcome_received(record, peer, frame, error);
}

void proposals_disconnected(struct record *record, struct peer *peer) {
    for (struct proposal *p = record->proposals; p != NULL; p = p->next)
        if (p->state == FORWARDED && p->peer == peer)
            proposal_end(p, RECORD_UNKNOWN, 0, "connection to the leader lost");
}

void proposals_close(struct record *record) {
    for (struct proposal *p = record->proposals; p != NULL; p = p->next)
        p->state = ENDED;
    proposals_sweep(record);
}

/* ---- the contract ---- */

void record_propose(struct record *record, const uint8_t *command, size_t length, unsigned deadline_ms,
                    record_done *done, void *user) {
    if (record_silent(record))
        return;
    struct proposal *proposal = proposal_new(record, command, length, deadline_ms);
    if (proposal == NULL) {
        record_fatal(record, "out of memory");
        return;
    }
    proposal->done = done;
    proposal->user = user;
    record_defer(record);
}
