/* What the files of the core share among themselves. Each part looks at the whole state and appends actions. */
#pragma once
#include "model/planted.h"
#include "orchestrator/core.h"

/* ---- core.c ---- */
/* True once `at` has passed; before that, asks for a step at `at`. */
bool due(struct core *core, nsec at);
/* True also from three quarters of `every` on, when something is under way anyway: new facts, or a message. What is
 * told together costs everyone one waking instead of two. */
bool due_about(struct core *core, const struct actions *actions, nsec last, nsec every);
struct action *act(struct actions *actions, enum action_kind kind);
void say(struct actions *actions, bool warning, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Starts a command decided on the present epoch. NULL while the last proposal of this proposer is under way. */
Command *propose(struct core *core, struct actions *actions, enum proposer proposer, pb_size_t body);
/* Our own id is the primary's of the standing epoch, sealed or not. */
bool is_primary(const struct core *core);
bool is_witness(const struct core *core);  /* we hold no data */
bool is_observer(const struct core *core); /* we have no vote */
#define HEARD_AGE        msec(1000)        /* an observation older than this says nothing about now */
#define OBSERVE_EVERY    msec(200)         /* how often voters tell each other what they see, when nothing changes */
#define OBSERVE_SELDOM   msec(1000)        /* the same between voters and observers */
#define HEARD_AGE_SELDOM msec(3000)        /* HEARD_AGE there; nothing about leases or failovers rests on it */
/* An observation of this member has come within `age`. */
bool heard_within(const struct core *core, uint32_t member, nsec age);
const Observation *observation(const struct core *core, uint32_t member);
const char *member_name(const struct core *core, uint32_t member);
/* Epoch in which our PostgreSQL is writable, told by its timeline; 0 = it is not. */
uint32_t running_epoch(const struct core *core);

/* ---- voter.c ---- */
void voter_reset(struct core *core, bool restarted); /* a new epoch was assigned, or the record was restored */
/* Takes the promise that a renewal asks for; false if it may not be given. */
bool voter_endorses(struct core *core, uint32_t from, const Renew *renew);
void voter_renewed(struct core *core, struct actions *actions, uint32_t from, const Renew *renew);
void voter_relinquished(struct core *core, uint32_t from, uint32_t epoch);
bool voter_expired(struct core *core);

/* ---- lease.c ---- */
void lease_step(struct core *core, struct actions *actions);
void lease_endorsed(struct core *core, struct actions *actions, uint32_t from, const Endorse *endorse);
nsec lease_margin(uint32_t duration_ms);

/* ---- rule.c ---- */
/* How many of the rule's standbys have flushed up to `lsn`, by the rows that the primary sees. */
unsigned rule_flushed(const Topology *topology, const Rule *rule, const Sender *senders, unsigned count, uint64_t lsn);
/* How many of them stream from it, caught up. */
unsigned rule_streaming(const Topology *topology, const Rule *rule, const Sender *senders, unsigned count);
void rule_setting(const Topology *topology, const Rule *rule, struct rule_setting *ret_setting);
const Rule *rule_newest(const Topology *topology);
/* "ANY 1 (m2, m3)", or "none (degraded)" */
void rule_text(const Topology *topology, const Rule *rule, char *buffer, size_t size);
/* Acknowledgements wanted with `standbys` standbys: half of the data members, rounded down. */
unsigned rule_needed(const Topology *topology, unsigned standbys);

/* ---- reconcile.c ---- */
void reconcile_step(struct core *core, struct actions *actions);
void reconcile_result(struct core *core, struct actions *actions, const struct operation_result *result);
/* New facts: since when things are as they are. */
void reconcile_facts(struct core *core);
/* Our data directory is of another system than this cluster's. */
bool data_is_foreign(const struct core *core);
/* The newest epoch that we can have pledged never to attach to again, by the record. */
uint32_t newest_pledge(const struct core *core);

/* ---- decide.c ---- */
void decide_step(struct core *core, struct actions *actions);
void decide_request(struct core *core, struct actions *actions, const struct event *event);
/* The intent that an operator asked for was recorded, found void, or its proposal was lost (`applied` is NULL). */
void decide_answer(struct core *core, struct actions *actions, const enum applied *applied, const char *why);

/* ---- candidate.c ---- */
struct choice {
    bool found;
    uint32_t member;
    Position base;
    uint32_t copy;
    uint64_t lost_bytes;
    char why[REASON_MAX_LENGTH + 1]; /* who and why, or what is missing */
};
void candidate_choose(struct core *core, struct choice *ret_choice);
/* Answers to the standing seal, from a data directory that can start. */
bool candidate_reports(const struct core *core, uint32_t member);
/* Who has more WAL than all that may be primary, and may not be it itself: they stream from it first. 0 = nobody. */
uint32_t candidate_source(const struct core *core);

/* ---- trace.c ---- */
void trace_step(struct core *core);
void trace_suspected(struct core *core);
/* "sealed +8 ms, m2 +39 ms, ...": empty when this coordinator did not see it begin. */
void trace_text(const struct core *core, char *buffer, size_t size);

/* ---- observe.c ---- */
void observe_step(struct core *core, struct actions *actions);
