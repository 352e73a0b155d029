/* Bugs planted on purpose: each leaves out one safeguard of the protocol, to prove that the simulator would find it.
 * Only the simulator's build of the core has them; in the product `planted()` is the constant false. */
#pragma once

#ifdef PLANTED_BUGS
enum planted_bug {
    PLANTED_CUT,        /* prepare does not end the WAL receiver */
    PLANTED_JOINT,      /* a new rule replaces the old one at once */
    PLANTED_UNIQTL,     /* a timeline is the base's + 1, not the epoch's own */
    PLANTED_BARRIER,    /* a restarted daemon acts before it knows the present */
    PLANTED_PLEDGE,     /* the pledge is not kept on disk */
    PLANTED_TAG,        /* answers to an older seal count */
    PLANTED_VOIDSEAL,   /* a late rule command is not void */
    PLANTED_HIGHEST,    /* the best eligible answer need not be the highest of all */
    PLANTED_FOLLOWCHK,  /* attaches without comparing histories */
    PLANTED_NAMES,      /* a receiver of an older epoch acknowledges */
    PLANTED_COPY,       /* any copy of a member counts for its rule */
    PLANTED_BASECHK,    /* promotes at another position than the chosen one */
    PLANTED_NOBROKEN,   /* a half-rewound data directory counts as complete (and towards anyone is rewound) */
    PLANTED_STANDBYRST, /* a primary that crashed comes up as a primary again */
    PLANTED_SENDERS,    /* a rule counts as in force before every WAL sender uses it */
    PLANTED_DEFINED,    /* and before the checkpointer lets commits wait */
    PLANTED_ACKNEW,     /* and before its standbys have what was acknowledged under the old one */
    PLANTED_DOMIN,      /* a later timeline does not cover older rules */
    PLANTED_RETRY,      /* a candidate that failed is not tried again */
    PLANTED_PRESEAL,    /* a promise that ran out before the seal counts as released */
    PLANTED_AMNESIA,    /* a restarted voter forgets its promise */
    PLANTED_STALETOPO,  /* a restarted voter endorses by what it knew when it went down */
    PLANTED_MIXED,      /* the primary counts on a longer lease than its voters promise */
    PLANTED_DEADREP,    /* a PostgreSQL that was reported dead may be started again as primary */
    PLANTED_DRIFT,      /* no margin for clocks and for the kill */
    PLANTED_REPLYTIME,  /* the lease is counted from the reply */
    PLANTED_EARLY,      /* a proposal is taken for committed */
    PLANTED_UNOPENED,   /* a primary is published when it is assigned */
    PLANTED_UNFLUSHED,  /* a standby acknowledges what it has written and not flushed */
    PLANTED_COUNT
};

extern unsigned long planted_bugs; /* bits of 1 << enum planted_bug */
#define planted(bug) ((planted_bugs >> PLANTED_##bug & 1) != 0)
#else
#define planted(bug) false
#endif
