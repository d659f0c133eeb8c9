/* The connections: non-blocking, kept alive, made anew when they end. */
#ifndef POOL_H
#define POOL_H

#include "load.h"

enum { INPUT_MAX = 16384 };

enum state { STATE_DEAD, STATE_CONNECTING, STATE_FREE, STATE_BUSY };

struct connection {
    int socket;
    enum state state;
    enum kind kind;
    int measured;
    uint64_t since_ns; /* BUSY: when its request was scheduled (open loop) or sent (closed) */
    uint64_t payment;
    size_t input_length;
    struct connection *previous, *next; /* in the list of free ones */
    char input[INPUT_MAX];
};

struct pool {
    int epoll;
    int count;
    int dead;
    int busy;
    uint64_t retry_ns;
    uint64_t available_since_ns; /* since when there has been a free one without a break */
    struct sockaddr_in to;
    struct connection *connections;
    struct connection free; /* head of the list; the longest free comes first, as many clients would take turns */
    struct tally *tally;
};

uint64_t now_ns(void);

int pool_open(struct pool *pool, const struct options *options, struct tally *tally);
void pool_close(struct pool *pool);

/* Makes dead connections anew, at most every 10 ms. */
void pool_mend(struct pool *pool, uint64_t now);

/* The longest free connection, or NULL. It stays in the list until it is sent on. */
struct connection *pool_first_free(struct pool *pool);

/* Returns 0, or -1 when the connection ended instead (counted). */
int pool_send(struct pool *pool, struct connection *connection, const char *bytes, size_t length);

void pool_release(struct pool *pool, struct connection *connection, uint64_t now);
void pool_drop(struct pool *pool, struct connection *connection);

/* A connection that was being made is made. Returns -1 when it could not be (counted). */
int pool_connected(struct pool *pool, struct connection *connection, uint64_t now);

#endif
