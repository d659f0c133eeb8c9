#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { RETRY_NS = 10000000 };

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void unlink_free(struct connection *connection)
{
    connection->previous->next = connection->next;
    connection->next->previous = connection->previous;
}

static void mark_dead(struct pool *pool, struct connection *connection)
{
    connection->state = STATE_DEAD;
    connection->socket = -1;
    pool->dead++;
}

static void watch(struct pool *pool, struct connection *connection, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = connection};
    epoll_ctl(pool->epoll, operation, connection->socket, &event);
}

static void begin_connect(struct pool *pool, struct connection *connection)
{
    int on = 1;
    connection->input_length = 0;
    connection->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (connection->socket >= 0) {
        setsockopt(connection->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        const struct sockaddr *to = (const struct sockaddr *)&pool->to;
        if (connect(connection->socket, to, sizeof pool->to) == 0 || errno == EINPROGRESS) {
            connection->state = STATE_CONNECTING;
            watch(pool, connection, EPOLL_CTL_ADD, EPOLLOUT);
            return;
        }
        close(connection->socket);
    }
    pool->tally->failures[FAILURE_CONNECT]++;
    mark_dead(pool, connection);
}

int pool_open(struct pool *pool, const struct options *options, struct tally *tally)
{
    *pool = (struct pool){.to = options->to, .count = options->connections, .tally = tally};
    pool->free.previous = pool->free.next = &pool->free;
    pool->epoll = epoll_create1(EPOLL_CLOEXEC);
    pool->connections = calloc((size_t)pool->count, sizeof *pool->connections);
    if (pool->epoll < 0 || pool->connections == NULL)
        return -1;
    for (int i = 0; i < pool->count; i++)
        begin_connect(pool, &pool->connections[i]);
    return 0;
}

void pool_close(struct pool *pool)
{
    for (int i = 0; i < pool->count; i++)
        if (pool->connections[i].state != STATE_DEAD)
            close(pool->connections[i].socket);
    close(pool->epoll);
    free(pool->connections);
}

void pool_mend(struct pool *pool, uint64_t now)
{
    if (pool->dead == 0 || now < pool->retry_ns)
        return;
    pool->retry_ns = now + RETRY_NS;
    for (int i = 0; i < pool->count; i++) {
        if (pool->connections[i].state != STATE_DEAD)
            continue;
        pool->dead--;
        pool->tally->reconnects++;
        begin_connect(pool, &pool->connections[i]);
    }
}

struct connection *pool_first_free(struct pool *pool)
{
    return pool->free.next == &pool->free ? NULL : pool->free.next;
}

int pool_send(struct pool *pool, struct connection *connection, const char *bytes, size_t length)
{
    unlink_free(connection);
    connection->state = STATE_BUSY;
    pool->busy++;
    ssize_t sent = send(connection->socket, bytes, length, MSG_NOSIGNAL);
    if (sent == (ssize_t)length)
        return 0;
    pool->tally->failures[sent < 0 ? FAILURE_CLOSED : FAILURE_WRITE]++;
    pool_drop(pool, connection);
    return -1;
}

void pool_release(struct pool *pool, struct connection *connection, uint64_t now)
{
    if (connection->state == STATE_BUSY)
        pool->busy--;
    connection->state = STATE_FREE;
    connection->input_length = 0;
    if (pool->free.next == &pool->free)
        pool->available_since_ns = now;
    connection->previous = pool->free.previous;
    connection->next = &pool->free;
    connection->previous->next = connection;
    pool->free.previous = connection;
}

void pool_drop(struct pool *pool, struct connection *connection)
{
    if (connection->state == STATE_FREE)
        unlink_free(connection);
    if (connection->state == STATE_BUSY)
        pool->busy--;
    close(connection->socket);
    mark_dead(pool, connection);
}

int pool_connected(struct pool *pool, struct connection *connection, uint64_t now)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(connection->socket, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) {
        pool->tally->failures[FAILURE_CONNECT]++;
        pool_drop(pool, connection);
        return -1;
    }
    watch(pool, connection, EPOLL_CTL_MOD, EPOLLIN);
    pool_release(pool, connection, now);
    return 0;
}
