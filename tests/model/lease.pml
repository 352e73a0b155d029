/* Never two writers: the lease alone, for what no rule protects (`async`, reads, degraded).
 *
 * Member 0 is primary of epoch 1, and votes; so do members 1 and 2, of which one may be a witness: a vote needs no data.
 * Epoch 2 may begin on another member. TICK is one step of real time; the primary's clock may lose a tick once, and
 * one voter's may gain one (two majorities need to share but one voter).
 * All that can happen may also not happen, so messages get lost, and are delayed until they are worthless.
 *
 * Bounds, and the safeguard that is left out, come from the environment when the verifier starts: see check.sh.
 */
#define VOTERS 3
#define LEASE  3 /* ticks that a renewal asks for */
#define LONGER 4 /* what it asks for under another recorded setting */
#define MARGIN (without == DRIFT -> 1 : 2) /* the primary's clock may lose a tick, a voter's gain one */

/* ---- what may be left out, and bounds ---- */
#define REACHED   1 /* no safeguard: shows that a lease runs out and the next epoch begins */
#define PRESEAL   2 /* "has run out" counts only when said after the seal */
#define AMNESIA   3 /* a restarted voter counts itself as promised */
#define STALETOPO 4 /* a restarted voter endorses nothing until it knows the record's present */
#define MIXED     5 /* a voter promises the duration in the message */
#define DEADREP   6 /* a PostgreSQL that was reported down is not primary again in its epoch */
#define DRIFT     7 /* the margin covers what clocks may differ by */
#define REPLYTIME 8 /* a lease counts from the sending of the renewal, not from its answer */
byte without, restarts /* of voters */, settings /* changes of the lease's length */;
c_decl {
    static int from_environment(const char *name, int standard) {
        const char *value = getenv(name);
        return value != 0 ? atoi(value) : standard;
    }
}

/* Primary, on its clock. */
bool writes1 = true, writes2; /* PostgreSQL of epoch 1 and of epoch 2 can write */
bool slow;                    /* its clock has lost its tick */
byte duration;
byte granted[VOTERS];         /* ticks left of what this voter has endorsed, margin taken off */

/* The renewal under way to a voter and back: 0 none, 1 asks, 2 endorsed. */
byte renewal[VOTERS], asked[VOTERS], age[VOTERS];

/* Voters, each on its own clock. */
byte promise[VOTERS]; /* ticks left */
bool fast;            /* one voter's clock has gained a tick */
bool sealed[VOTERS];  /* what it has applied of the record */
bool synced[VOTERS];  /* has met the present leader since its start */

/* The coordinator. */
bool seal_recorded, released[VOTERS], fell; /* fell: the primary's daemon has said that its PostgreSQL is down */

#define GOES_ON (writes1 || without == REACHED) /* what comes after cannot hurt */
#define MAJORITY(a, b, c) ((a) + (b) + (c) >= 2)
#define HOLDS_LEASE MAJORITY(granted[0] > 0, granted[1] > 0, granted[2] > 0)

inline send_renewal(v) {
    renewal[v] = 1; asked[v] = duration; age[v] = 0
}

#define MAY_ENDORSE(v) (renewal[v] == 1 && !sealed[v] && (synced[v] || without == STALETOPO))
#define PROMISED(v) (without == MIXED -> LEASE : asked[v])
inline endorse(v) {
    renewal[v] = 2;
    promise[v] = (PROMISED(v) > promise[v] -> PROMISED(v) : promise[v])
}

#define SINCE(v) (without == REPLYTIME -> 0 : age[v])
#define LEFT(v) (asked[v] > MARGIN + SINCE(v) -> asked[v] - MARGIN - SINCE(v) : 0)
inline hear_endorsement(v) {
    granted[v] = (LEFT(v) > granted[v] -> LEFT(v) : granted[v]);
    forget_renewal(v)
}
inline forget_renewal(v) {
    renewal[v] = 0; asked[v] = 0; age[v] = 0
}

#define PASS(ticks) ticks = (ticks > 0 -> ticks - 1 : 0)
inline pass_on_primary() {
    PASS(granted[0]); PASS(granted[1]); PASS(granted[2]);
    age_renewal(0); age_renewal(1); age_renewal(2)
}
inline age_renewal(v) {
    if
    :: renewal[v] != 0 -> age[v]++
    :: else
    fi;
    if /* whose answer would grant nothing; as a request it could only lengthen a promise */
    :: renewal[v] != 0 && LEFT(v) == 0 || age[v] > LONGER -> forget_renewal(v)
    :: else
    fi
}

/* Real time goes on; whose clock errs is chosen by which of these steps it is. The guard acts at its deadline. */
inline tick(primary_ticks) {
    PASS(promise[0]); PASS(promise[1]); PASS(promise[2]);
    if
    :: primary_ticks -> pass_on_primary()
    :: else -> slow = true
    fi;
    if
    :: !HOLDS_LEASE -> end_epoch_1()
    :: else
    fi;
    if
    :: without == PRESEAL ->
        released[0] = released[0] || promise[0] == 0;
        released[1] = released[1] || promise[1] == 0;
        released[2] = released[2] || promise[2] == 0
    :: else
    fi
}
inline end_epoch_1() {
    writes1 = false;
    forget_renewal(0); forget_renewal(1); forget_renewal(2);
    granted[0] = 0; granted[1] = 0; granted[2] = 0
}

inline restart(v) {
    restarts--;
    sealed[v] = false; synced[v] = false;
    promise[v] = (without == AMNESIA -> 0 : LONGER)
}

#define VOTER_STEPS(v) \
    :: d_step { writes1 && renewal[v] == 0 -> send_renewal(v) } \
    :: d_step { MAY_ENDORSE(v) -> endorse(v) } \
    :: d_step { renewal[v] == 2 -> hear_endorsement(v) } \
    :: d_step { renewal[v] != 0 -> forget_renewal(v) } \
    :: d_step { writes1 && !fast && promise[v] > 1 -> fast = true; PASS(promise[v]); tick(true) } \
    :: d_step { GOES_ON && seal_recorded && !sealed[v] -> sealed[v] = true } \
    :: d_step { GOES_ON && !synced[v] && sealed[v] == seal_recorded -> synced[v] = true } \
    :: d_step { GOES_ON && sealed[v] && promise[v] == 0 && !released[v] -> released[v] = true }

init {
    d_step {
        c_code {
            now.without = from_environment("WITHOUT", 0);
            now.restarts = from_environment("RESTARTS", 1);
            now.settings = from_environment("SETTINGS", 1);
            now.duration = from_environment("LEASE", 3);
        };
        promise[0] = duration; promise[1] = duration; promise[2] = duration;
        granted[0] = duration - MARGIN; granted[1] = granted[0]; granted[2] = granted[0];
        synced[0] = true; synced[1] = true; synced[2] = true
    }
    do
    VOTER_STEPS(0)
    VOTER_STEPS(1)
    VOTER_STEPS(2)
    :: d_step { writes1 && restarts > 0 -> restart(0) } /* the voters are alike */
    :: d_step { GOES_ON -> tick(true) }
    :: d_step { writes1 && !slow -> tick(false) }
    :: d_step { writes1 && settings > 0 -> settings--; duration = LONGER }
    :: d_step { GOES_ON && !seal_recorded -> seal_recorded = true }
    :: d_step { writes1 && !fell -> fell = true; if :: without != DEADREP -> end_epoch_1() :: else fi }
    :: d_step { GOES_ON && !writes2 && seal_recorded && (fell || MAJORITY(released[0], released[1], released[2])) -> writes2 = true; assert(!writes1) }
    :: d_step { without == REACHED && writes2 && !writes1 && !fell -> assert(false) }
    od
}
