/* No acknowledged commit is lost, without any clock: seal, prepare (cut and pledge), cover, joint rules, timelines.
 *
 * A seal may come at any moment and no guard ever has to fire: a primary whose epoch was sealed may write on for as long
 * as it likes. Whatever may happen may also never happen, or happen much later: that is how messages are lost and
 * delayed, and how hosts are cut off. README.md tells what is left out and which functions each step stands for.
 *
 * Bounds, and the safeguard that is left out, come from the environment when the verifier starts: see check.sh.
 */
#ifndef DATA
#define DATA 3 /* data members; a witness takes no part in any of this */
#endif
#define EPOCHS 3
#define RULES 5

/* ---- what may be left out, and bounds ---- */
#define REACHED    1 /* no safeguard: shows that the last epoch opens and acknowledges */
#define CUT        2 /* an answer is given only after the WAL receiver is gone */
#define JOINT      3 /* old and new rule are recorded together */
#define UNIQTL     4 /* one timeline, one epoch; PostgreSQL by itself takes the next after that of the base */
#define PLEDGE     5 /* what was pledged is on disk. Without it, and without the wait for the record after a start */
#define TAG        6 /* answers to another seal do not count */
#define VOIDSEAL   7 /* a command that was decided on another epoch or rule is void */
#define HIGHEST    8 /* the chosen position is at or past every answer's */
#define COPY       9 /* rules name copies, not members */
#define BASECHK   10 /* the assigned member compares itself with the base */
#define STANDBYRST 11 /* whatever starts a fallen primary again, it is a standby */
#define FOLLOWCHK 12 /* a member attaches only where its WAL is a prefix */
#define SENDERS   13 /* a setting is in force when every WAL sender uses it */
#define ACKNEW    14 /* a change ends when the new rule has what was acknowledged */
#define ONLY_PLEDGE 15 /* as PLEDGE, but a restarted daemon waits */
#define BARRIER   16 /* a restarted daemon acts on nothing until it knows the record's present */
byte without, last_epoch, writes /* of clients */, restarts /* of daemons */, disks /* lost */, changes /* of the rule */;
c_decl {
    static int from_environment(const char *name, int standard) {
        const char *value = getenv(name);
        return value != 0 ? atoi(value) : standard;
    }
}

/* ---- WAL: up to four records in a byte, two bits each: the epoch in which it was written ---- */
#define LENGTH(w)     ((w) >= 64 -> 4 : ((w) >= 16 -> 3 : ((w) >= 4 -> 2 : ((w) >= 1 -> 1 : 0))))
#define RECORD(w, n)  (((w) >> (2 * (n))) & 3)
#define LAST(w)       ((w) >= 64 -> (w) >> 6 : ((w) >= 16 -> (w) >> 4 : ((w) >= 4 -> (w) >> 2 : (w))))
#define PREFIX(w, n)  ((w) & ((1 << (2 * (n))) - 1))
byte timeline[EPOCHS + 1];
#define TIMELINE(e) timeline[e]
#define POSITION(w) (8 * TIMELINE(LAST(w)) + LENGTH(w))
/* The position of w lies in the history of v, as far as timelines and lengths tell. */
#define WITHIN(w, v) \
    ((w) == 0 || (LENGTH(w) <= LENGTH(v) && TIMELINE(RECORD(v, LENGTH(w) - 1)) == TIMELINE(LAST(w))))

/* ---- the record: only its last state; members apply it as a sequence of phases ---- */
byte phase = 1; /* 2e - 1: epoch e is assigned; 2e: it is sealed */
byte opened;    /* bit e: epoch e was opened */
byte promoted;  /* bit e: its primary has begun; it does so at most once */
byte primary[EPOCHS + 1], base[EPOCHS + 1], base_copy[EPOCHS + 1], assigned_S[EPOCHS + 1];
byte rules;
byte rule_S[RULES], rule_primary[RULES], rule_epoch[RULES]; /* S and primary as sets of copies; k = 1, or 0 if S is empty */
#define EPOCH ((phase + 1) / 2)
#define SEALED (phase % 2 == 0)
#define STANDING primary[EPOCH]
#define NEWEST rule_S[rules - 1]
#define PROMOTED(e) (promoted & (1 << (e)))
#define OPENED(e) (opened & (1 << (e)))

/* ---- members ---- */
byte wal[DATA], copy[DATA];
byte runs[DATA];              /* the epoch as whose primary its PostgreSQL runs; 0: a standby */
byte named[DATA];             /* the epoch in its receiver's name; acknowledgements under way outlive the connection */
bool attached[DATA];          /* WAL is received */
byte uses[DATA], used[DATA];  /* primary: S of its setting, and S that some WAL sender may still use */
byte applied[DATA];           /* phase */
bool synced[DATA];            /* has met the present leader since its daemon's start */
byte pledged[DATA];           /* on disk */
#define ITSELF(m) (1 << ((m) + (without == COPY -> 0 : DATA * copy[m])))
#define ANY_COPY(m) ((1 << (m)) | (1 << ((m) + DATA)))
#define ACTS(m) (synced[m] || without == BARRIER || without == PLEDGE)
#define SEES_ASSIGNED(m, e) (ACTS(m) && applied[m] == 2 * (e) - 1)

/* ---- answers to the seal ---- */
byte answers, answer[DATA];
#define ANSWERED(m) (answers & ANY_COPY(m))

byte acknowledged[EPOCHS + 1]; /* length up to which the epoch's primary has told clients that it is safe */
hidden byte i, j, w, new_S, new_primary; /* scratch */

/* I1. Called whenever a primary begins and whenever something is acknowledged. */
inline check_nothing_lost() {
    for (i : 1 .. EPOCHS - 1) {
        for (j : i + 1 .. EPOCHS) {
            assert(acknowledged[i] == 0 || runs[primary[j]] != j ||
                   RECORD(wal[primary[j]], acknowledged[i] - 1) == i)
        }
    }
    skip
}

/* ---- the coordinator; commands that come too late are void, so each is decided and recorded in one step ---- */

#define LATER_ANSWER(m, r) (ANSWERED(m) && TIMELINE(LAST(answer[m])) > TIMELINE(rule_epoch[r]))
#if DATA == 3
#define SOME_LATER(r) (LATER_ANSWER(0, r) || LATER_ANSWER(1, r) || LATER_ANSWER(2, r))
#define AT_LEAST_ALL(c) (NOT_BELOW(c, 0) && NOT_BELOW(c, 1) && NOT_BELOW(c, 2))
#else
#define SOME_LATER(r) (LATER_ANSWER(0, r) || LATER_ANSWER(1, r))
#define AT_LEAST_ALL(c) (NOT_BELOW(c, 0) && NOT_BELOW(c, 1))
#endif
#define COVERED(r) \
    ((r) >= rules || (answers & rule_primary[r]) || (rule_S[r] && !(rule_S[r] & ~answers)) || SOME_LATER(r))
#define ALL_COVERED (COVERED(0) && COVERED(1) && COVERED(2) && COVERED(3) && COVERED(4))
#define NOT_BELOW(c, m) (without == HIGHEST || !ANSWERED(m) || POSITION(answer[c]) >= POSITION(answer[m]))

inline append_rule(S, copies, epoch) {
    w = 0; /* an older one that asks the same goes */
    for (i : 0 .. RULES - 1) {
        if
        :: i < rules && !(rule_S[i] == S && rule_primary[i] == copies) ->
            rule_S[w] = rule_S[i]; rule_primary[w] = rule_primary[i]; rule_epoch[w] = rule_epoch[i]; w++
        :: else
        fi
    }
    w = (without == JOINT -> 0 : w);
    assert(w < RULES);
    rule_S[w] = S; rule_primary[w] = copies; rule_epoch[w] = epoch;
    rules = w + 1;
    forget_rules_from(rules)
}
inline forget_rules_from(n) {
    for (i : n .. RULES - 1) {
        rule_S[i] = 0; rule_primary[i] = 0; rule_epoch[i] = 0
    }
    skip
}
inline keep_newest_rule() {
    rule_S[0] = rule_S[rules - 1]; rule_primary[0] = rule_primary[rules - 1]; rule_epoch[0] = rule_epoch[rules - 1];
    rules = 1;
    forget_rules_from(1)
}
inline forget_answers() {
    if
    :: without != TAG ->
        answers = 0;
        for (i : 0 .. DATA - 1) { answer[i] = 0 }
    :: else
    fi
}

inline seal() {
    phase++;
    forget_answers()
}

#define MAY_ASSIGN(c) \
    (SEALED && EPOCH < last_epoch && ANSWERED(c) && ALL_COVERED && AT_LEAST_ALL(c))
inline assign(c) {
    j = phase / 2 + 1;
    primary[j] = c;
    base[j] = answer[c];
    base_copy[j] = (answers & (1 << c) -> 0 : 1);
    timeline[j] = (without == UNIQTL -> TIMELINE(LAST(base[j])) + 1 : j);
    new_S = 0;
    new_primary = answers & ANY_COPY(c);
    for (i : 0 .. DATA - 1) {
        new_S = (i != c && ANSWERED(i) && WITHIN(answer[i], base[j]) -> new_S | (answers & ANY_COPY(i)) : new_S)
    }
    append_rule(new_S, new_primary, j);
    assigned_S[j] = new_S;
    phase++;
    forget_answers()
}

/* k of the newest S have what the primary has acknowledged, or has written durably. */
#define FLUSHED(m, length) \
    (named[m] == EPOCH && (NEWEST & ITSELF(m)) && LENGTH(wal[m]) >= (length))
#if DATA == 3
#define ENOUGH(length) (NEWEST == 0 || FLUSHED(0, length) || FLUSHED(1, length) || FLUSHED(2, length))
#else
#define ENOUGH(length) (NEWEST == 0 || FLUSHED(0, length) || FLUSHED(1, length))
#endif
#define RUNNING (!SEALED && runs[STANDING] == EPOCH)
#define IN_FORCE (uses[STANDING] == NEWEST && (used[STANDING] == NEWEST || without == SENDERS))
#define MAY_OPEN (RUNNING && !OPENED(EPOCH) && IN_FORCE && ENOUGH(LENGTH(base[EPOCH]) + 1))
#define MAY_END_CHANGE \
    (RUNNING && OPENED(EPOCH) && rules > 1 && IN_FORCE && (without == ACKNEW || ENOUGH(acknowledged[EPOCH])))
bool end_under_way; /* a decided "record {new}" that has not reached the record yet: kept only where nothing voids it */

/* One standby joins or leaves. */
#define MAY_CHANGE(m) \
    (changes > 0 && RUNNING && OPENED(EPOCH) && rules < 3 && m != STANDING && \
     ((NEWEST & ANY_COPY(m)) || named[m] == EPOCH))
inline change_rule(m) {
    changes--;
    new_S = (NEWEST & ANY_COPY(m) -> NEWEST & ~ANY_COPY(m) : NEWEST | ITSELF(m));
    new_primary = rule_primary[rules - 1];
    append_rule(new_S, new_primary, EPOCH)
}

/* ---- one member ---- */

#define MAY_PREPARE(m) \
    (ACTS(m) && applied[m] == phase && SEALED && runs[m] == 0 && \
     (pledged[m] < EPOCH || attached[m] || !(answers & ITSELF(m)) || answer[m] != wal[m]))
inline prepare(m) {
    attached[m] = attached[m] && without == CUT;
    pledged[m] = EPOCH;
    answers = (answers & ~ANY_COPY(m)) | ITSELF(m);
    answer[m] = wal[m]
}

#define AT_BASE(m, e) (without == BASECHK || (copy[m] == base_copy[e] && POSITION(wal[m]) == POSITION(base[e])))
#define MAY_PROMOTE(m, e) \
    (SEES_ASSIGNED(m, e) && primary[e] == m && runs[m] == 0 && pledged[m] < e && !PROMOTED(e) && AT_BASE(m, e))
inline promote(m, e) {
    promoted = promoted | (1 << (e));
    attached[m] = false; named[m] = 0;
    runs[m] = e;
    uses[m] = assigned_S[e]; used[m] = assigned_S[e];
    wal[m] = wal[m] | (e << (2 * LENGTH(wal[m]))); /* the record that begins the timeline */
    check_nothing_lost()
}

#define MAY_FOLLOW(m, e) \
    (SEES_ASSIGNED(m, e) && primary[e] != m && runs[m] == 0 && pledged[m] < e && \
     !(attached[m] && named[m] == e) && runs[primary[e]] == e)
#define CAN_FOLLOW(m, e) (without == FOLLOWCHK || WITHIN(wal[m], wal[primary[e]]))
/* Else our rewind might destroy the last copy of something acknowledged. */
#define MAY_REWIND(m, e) (OPENED(e) || (EPOCH == e && !SEALED && (NEWEST & ITSELF(m))))

/* A member under rewind or clone does and answers nothing, which any member may do at any time: so it is one step. */
inline rewind(m, e) {
    attached[m] = false; named[m] = 0;
    wal[m] = wal[primary[e]]
}

#define MAY_RECEIVE(m) \
    (attached[m] && runs[primary[named[m]]] == named[m] && LENGTH(wal[m]) < LENGTH(wal[primary[named[m]]]) && \
     WITHIN(wal[m], wal[primary[named[m]]]))
inline receive(m) {
    w = wal[primary[named[m]]];
    assert(wal[m] == PREFIX(w, LENGTH(wal[m]))); /* no timeline has two contents */
    wal[m] = PREFIX(w, LENGTH(wal[m]) + 1)
}

/* What m has is acknowledged by its primary; PostgreSQL compares nothing but lengths. */
#define ITS_PRIMARY(m) primary[named[m]]
#define COMMON(m) \
    (LENGTH(wal[m]) < LENGTH(wal[ITS_PRIMARY(m)]) -> LENGTH(wal[m]) : LENGTH(wal[ITS_PRIMARY(m)]))
#define NEWS(m) \
    (named[m] != 0 && runs[ITS_PRIMARY(m)] == named[m] && ((uses[ITS_PRIMARY(m)] | used[ITS_PRIMARY(m)]) & ITSELF(m)) && \
     acknowledged[named[m]] < COMMON(m) && RECORD(wal[ITS_PRIMARY(m)], COMMON(m) - 1) == named[m])
inline acknowledge(m) {
    acknowledged[named[m]] = COMMON(m);
    check_nothing_lost()
}
#define ALONE(m) \
    (runs[m] != 0 && (uses[m] == 0 || used[m] == 0) && acknowledged[runs[m]] < LENGTH(wal[m]))

/* The record keeps no commit index: a restarted daemon may see an older phase again. */
inline restart(m, back) {
    restarts--;
    synced[m] = false;
    applied[m] = (applied[m] > back -> applied[m] - back : 1);
    pledged[m] = (without == PLEDGE || without == ONLY_PLEDGE -> 0 : pledged[m])
}

/* The directory is lost, and made anew from whichever other member somebody chose. It is then another copy. */
#define MAY_LOSE(m) (disks > 0 && copy[m] == 0 && (SEALED || STANDING != m))
inline lose(m, from) {
    disks--;
    copy[m] = 1;
    wal[m] = wal[from];
    runs[m] = 0; uses[m] = 0; used[m] = 0;
    attached[m] = false; named[m] = 0
}

#define EPOCH_STEPS(m, e) \
    :: d_step { MAY_PROMOTE(m, e) -> promote(m, e) } \
    :: d_step { MAY_FOLLOW(m, e) && CAN_FOLLOW(m, e) -> named[m] = e; attached[m] = true } \
    :: d_step { MAY_FOLLOW(m, e) && !WITHIN(wal[m], wal[primary[e]]) && MAY_REWIND(m, e) -> rewind(m, e) }
#define ALL_EPOCH_STEPS(m) EPOCH_STEPS(m, 1) EPOCH_STEPS(m, 2) EPOCH_STEPS(m, 3)

#define MEMBER_STEPS(m) \
    :: d_step { applied[m] < phase -> applied[m]++ } \
    :: d_step { !synced[m] && applied[m] == phase -> synced[m] = true } \
    :: d_step { MAY_PREPARE(m) -> prepare(m) } \
    ALL_EPOCH_STEPS(m) \
    :: d_step { MAY_RECEIVE(m) -> receive(m) } \
    :: d_step { NEWS(m) -> acknowledge(m) } \
    :: d_step { ALONE(m) -> acknowledged[runs[m]] = LENGTH(wal[m]); check_nothing_lost() } \
    :: d_step { writes > 0 && runs[m] != 0 && LENGTH(wal[m]) < 4 -> \
                writes--; wal[m] = wal[m] | (runs[m] << (2 * LENGTH(wal[m]))) } \
    :: d_step { ACTS(m) && RUNNING && STANDING == m && applied[m] == phase && uses[m] == used[m] && uses[m] != NEWEST -> \
                uses[m] = NEWEST } \
    :: d_step { runs[m] != 0 && uses[m] != used[m] -> used[m] = uses[m] } \
    :: d_step { runs[m] != 0 -> runs[m] = 0; uses[m] = 0; used[m] = 0 } /* killed, fenced, crashed */ \
    :: d_step { restarts > 0 -> restart(m, 1) } \
    :: d_step { restarts > 0 && applied[m] > 2 -> restart(m, 2) } \
    :: d_step { MAY_ASSIGN(m) -> assign(m) } \
    :: d_step { MAY_CHANGE(m) -> change_rule(m) }

init {
    d_step {
        c_code {
            now.without = from_environment("WITHOUT", 0);
            now.last_epoch = from_environment("EPOCHS", 2);
            now.writes = from_environment("WRITES", 1);
            now.restarts = from_environment("RESTARTS", 1);
            now.disks = from_environment("DISKS", 0);
            now.changes = from_environment("CHANGES", 0);
        };
        rules = 1; rule_primary[0] = 1; rule_epoch[0] = 1; opened = 2; promoted = 2; runs[0] = 1;
        timeline[1] = 1;
        for (i : 0 .. DATA - 1) { applied[i] = 1; synced[i] = true }
        for (i : 1 .. DATA - 1) {
            rule_S[0] = rule_S[0] | (1 << i); named[i] = 1; attached[i] = true
        }
        assigned_S[1] = rule_S[0]; uses[0] = rule_S[0]; used[0] = rule_S[0]
    }
    do
    :: d_step { !SEALED && phase < 2 * last_epoch - 1 -> seal() }
    :: d_step { MAY_OPEN -> opened = opened | (1 << EPOCH); keep_newest_rule() }
    :: d_step { MAY_END_CHANGE && without != VOIDSEAL -> keep_newest_rule() }
    :: d_step { MAY_END_CHANGE && without == VOIDSEAL && !end_under_way -> end_under_way = true }
    :: d_step { end_under_way -> end_under_way = false; keep_newest_rule() }
    :: d_step { without == REACHED && OPENED(last_epoch) && acknowledged[1] > 0 && acknowledged[last_epoch] > 0 ->
                assert(false) }
    :: d_step { without == STANDBYRST && restarts > 0 && runs[0] == 0 && LAST(wal[0]) <= 1 ->
                restarts--; runs[0] = 1; uses[0] = assigned_S[1]; used[0] = assigned_S[1] }
    MEMBER_STEPS(0)
    MEMBER_STEPS(1)
    :: d_step { MAY_LOSE(0) -> lose(0, 1) }
    :: d_step { MAY_LOSE(1) -> lose(1, 0) }
#if DATA == 3
    MEMBER_STEPS(2)
    :: d_step { MAY_LOSE(0) -> lose(0, 2) }
    :: d_step { MAY_LOSE(1) -> lose(1, 2) }
    :: d_step { MAY_LOSE(2) -> lose(2, 0) }
    :: d_step { MAY_LOSE(2) -> lose(2, 1) }
#endif
    od
}
