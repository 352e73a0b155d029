/* Every static limit and its reason. Limits bound memory and loops; none of them is part of a format: lengths are
 * encoded explicitly wherever bytes leave the process. model/ttorch.options repeats those of the recorded schema,
 * and model/model.c asserts that the two agree. */
#pragma once

#define MEMBERS_MAX 128 /* voters and observers */
#define VOTERS_MAX  16  /* of them; they are 3 to 7 where it is well thought out */
#define DATA_MEMBERS_MAX \
    32 /* of them with a PostgreSQL: whose rows SENDERS_MAX and slots of PostgreSQL have room for */
#define NAME_MAX_LENGTH    31   /* `<member>_<copy>_<epoch>` must fit PostgreSQL's 63-byte application_name */
#define HOST_MAX_LENGTH    253  /* longest host name of RFC 1035 */
#define PATH_MAX_LENGTH    1023 /* longest path that we take from a file */
#define RULES_MAX          16   /* rules in force together: an epoch's own, and one per epoch before it that failed */
#define RULE_CHANGES_MAX   4    /* of them at most these by changes inside an epoch: failed epochs must find room */
#define EPOCHS_MAX         32   /* remembered lineage; a member older than that is rewound or cloned */
#define HISTORY_MAX        64   /* remembered events for `ttorch history` */
#define SENDERS_MAX        32   /* rows of pg_stat_replication that we look at */
#define ERROR_TEXT_MAX     512
#define REASON_MAX_LENGTH  191     /* one sentence in the log and in `ttorch history` */
#define COMMAND_BYTES_MAX  49152   /* largest encoded command: FOUND with MEMBERS_MAX members of the longest names */
#define SNAPSHOT_BYTES_MAX 131072  /* topology with every array full, and history */
#define FRAME_BYTES_MAX    1048576 /* largest frame a peer may send */
