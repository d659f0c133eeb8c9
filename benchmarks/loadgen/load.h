/* One run against one address: who sends what when, and what came back. Single-threaded, one epoll. */
#ifndef LOAD_H
#define LOAD_H

#include "histogram.h"
#include "options.h"
#include "request.h"

enum kind { KIND_POST, KIND_GET, KINDS };

enum failure {
    FAILURE_CONNECT,    /* a connection could not be made */
    FAILURE_CLOSED,     /* closed or reset before the answer was whole */
    FAILURE_MALFORMED,  /* not an answer that response.c reads, or more than one */
    FAILURE_MISMATCHED, /* the expected status without the payment's id in the body */
    FAILURE_WRITE,      /* the server's side took only a part of a request */
    FAILURES,
};

/* Latencies: from the scheduled time in an open loop, from the send in a closed one. What was sent (or scheduled)
 * within the measured time counts, whenever it was answered; what never was counts with the time it had waited. */
struct tally {
    struct histogram expected[KINDS]; /* 202 to a POST, 200 to a GET */
    struct histogram other;           /* any other status, failures, and what was never answered */
    struct histogram lag;             /* open loop: how late this program sent though a connection was free */
    uint64_t statuses[600];
    uint64_t failures[FAILURES]; /* over the whole run, warm-up included */
    uint64_t started;            /* sent within the measured time */
    uint64_t completed;          /* answered within the measured time */
    uint64_t waited;             /* were due while every connection was busy */
    uint64_t unsent;             /* were due and never got a connection */
    uint64_t unanswered;         /* were sent and not answered before the end of the drain */
    uint64_t reconnects;
    uint64_t measured_ns;
    uint64_t busy_ns; /* within the measured time: not waiting for an event */
};

struct schedule {
    uint64_t start_ns;
    uint64_t measured_from_ns;
    uint64_t end_ns;
    uint64_t give_up_ns;
};

/* Blocks until all is answered or the drain is over. Returns -1 when no connection could be made at all. */
int load_run(const struct options *options, struct tally *tally);

#endif
