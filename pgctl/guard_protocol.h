/* What a daemon and ttorch-guard say to each other: structs of fixed size over a unix SOCK_SEQPACKET socket, one
 * message each. Both ends are on one machine, and a guard may be older than the daemon that takes it over: a change of
 * layout is a new GUARD_PROTOCOL. A message of any other size or protocol ends the connection.
 *
 * The guard answers every request at once with a report that carries its serial, and pushes a report with serial 0 to
 * every connection when what it has to tell changes, first of all when the connection is made. */
#pragma once
#include <stdint.h>

#define GUARD_PROTOCOL         0x74744701u /* "ttG", 1 */
#define GUARD_SOCKET_PATH_MAX  107         /* sun_path */
#define GUARD_ARGUMENTS_MAX    64
#define GUARD_ARGUMENT_BYTES   8192 /* a path or two and some -c options; a message is sent whole */
#define GUARD_TEXT_MAX         191
#define GUARD_SOCKET_DIRECTORY 0700 /* its mode: the socket obeys whoever can reach it */

enum guard_command {
    GUARD_COMMAND_ATTACH = 1, /* "obey me": the connection that said so last is the only one obeyed */
    GUARD_COMMAND_START,      /* a guard_start_request */
    GUARD_COMMAND_SIGNAL,
    GUARD_COMMAND_KILL,
    GUARD_COMMAND_ARM,
    GUARD_COMMAND_END, /* kill what runs, then exit */
};

struct guard_request {
    uint32_t protocol;
    uint32_t command;
    uint64_t serial;   /* not 0 */
    uint64_t deadline; /* ARM: CLOCK_BOOTTIME, or NSEC_NEVER */
    uint32_t epoch;    /* ARM */
    int32_t signal;    /* SIGNAL */
};

struct guard_start_request {
    struct guard_request request;
    uint32_t argument_count;
    char arguments[GUARD_ARGUMENT_BYTES]; /* each ends with NUL; the first is the program's path */
};

/* How the refusal to arm begins when a watchdog is required and cannot be used: it will not help to ask again soon. */
#define GUARD_NO_WATCHDOG "watchdog: "

enum guard_server { GUARD_DOWN, GUARD_RUNNING, GUARD_KILLING /* killed or exited, not yet all reaped */ };

/* As struct guard_state in pgctl/guard.h. */
struct guard_told {
    uint64_t exits;
    uint64_t deadline;
    uint32_t epoch;
    uint32_t server;
    int32_t guard_pid;
    int32_t postmaster_pid;
    int32_t exit_status;
    uint32_t killed_by_deadline;
    char failure[GUARD_TEXT_MAX + 1]; /* why the last start came to nothing; empty if it did not */
};

struct guard_report {
    uint32_t protocol;
    uint32_t reserved;
    uint64_t serial; /* of the request that this answers, 0 = pushed */
    struct guard_told told;
    char refusal[GUARD_TEXT_MAX + 1]; /* why the request was not obeyed; empty if it was */
};

_Static_assert(sizeof(struct guard_request) == 32, "no padding");
_Static_assert(sizeof(struct guard_start_request) == 32 + 4 + GUARD_ARGUMENT_BYTES + 4, "layout");
_Static_assert(sizeof(struct guard_told) == 40 + GUARD_TEXT_MAX + 1, "no padding: compared bytewise");
_Static_assert(sizeof(struct guard_report) == 16 + sizeof(struct guard_told) + GUARD_TEXT_MAX + 1, "no padding");
