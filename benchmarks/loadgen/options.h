/* The command line, checked: loopback addresses only, and a bound on everything. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CONNECTIONS_MAX = 4096,
    SECONDS_MAX = 600,
    RATE_MAX = 1000000,
    COUNT_MAX = 20000000,
    BODY_MAX = 8192,
    HEADERS_MAX = 4096,
};

enum load { LOAD_POST, LOAD_GET, LOAD_MIXED };

struct options {
    enum load load;
    struct sockaddr_in to;
    char host[64];
    int connections;
    double rate;    /* requests a second, scheduled; 0: closed loop */
    double seconds; /* measured */
    double warm_up; /* before that, seconds, not measured */
    double drain;   /* at most, after the end */
    uint64_t count; /* closed loop: end after so many requests; 0: no such end */
    uint64_t seed;
    uint64_t ids;   /* LOAD_GET: payments 0 ... ids - 1 of `seed` exist */
    int any_body;   /* the answer need not hold the payment's id */
    char body[BODY_MAX];
    size_t body_length;
    char headers[HEADERS_MAX];
};

/* Ends the process with code 2 and a sentence when the arguments can't be used. */
void options_parse(int argc, char **argv, struct options *options);

#endif
