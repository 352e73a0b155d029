/* Everything that the pure core can ask for, in order. The daemon carries each out by one call. */
#pragma once
#include "model/operation.h"
#include "orchestrator/event.h"

enum action_kind {
    ACTION_PROPOSE, /* a command to the record */
    ACTION_SEND,    /* a message to one member, or to all others */
    ACTION_ARM,     /* tell the guard the deadline of the lease */
    ACTION_OPERATE, /* let the hands begin an operation */
    ACTION_MEND,    /* the hands' damaged files are given up, as an operator asked */
    ACTION_ANSWER,  /* an operator's request was accepted or not */
    ACTION_YIELD,   /* hand the Raft leadership to another member */
    ACTION_LOG,     /* a sentence worth a line in the log */
    ACTION_EXIT     /* hand-over done (or the record refused us): end the daemon */
};

enum audience {
    SEND_ONE,
    SEND_VOTERS, /* all others that have a vote */
    SEND_ALL     /* all others; from an observer only voters hear it */
};

struct action {
    enum action_kind kind;
    union {
        struct {
            enum proposer proposer;
            Command command;
        } propose;
        struct {
            enum audience audience;
            uint32_t to; /* SEND_ONE: member id */
            Message message;
        } send;
        struct {
            uint32_t epoch;
            nsec deadline;
        } arm;
        struct operation operation;
        struct {
            uint32_t epoch; /* the newest that can have been pledged */
            uint32_t copy;  /* number of the data directory, if that is known; 0 = it is to be cloned anew */
        } mend;
        struct {
            uint64_t serial;
            uint64_t number; /* of the recorded intent, when accepted */
            int http_status;
            char text[ERROR_TEXT_MAX];
        } answer;
        struct {
            uint32_t to; /* 0 = any */
        } yield;
        struct {
            bool warning;
            char text[ERROR_TEXT_MAX];
        } log;
        struct {
            bool failed;
            char why[REASON_MAX_LENGTH + 1];
        } exit;
    };
};

#define ACTIONS_MAX 16 /* a step proposes at most twice, operates once, sends a few messages, logs a few lines */

struct actions {
    unsigned count;
    struct action list[ACTIONS_MAX];
};
