#define _GNU_SOURCE
#include "load.h"

#include "pool.h"
#include "response.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

enum {
    EVENTS = 256,
    POLLS_TO_A_POST = 5,
    REMEMBERED = 4096, /* mixed load: acknowledged payments that are polled */
    IDLE_NS = 10000000,
    CONNECT_NS = 2000000000,
};

struct run {
    const struct options *options;
    struct tally *tally;
    struct pool pool;
    struct schedule schedule;
    struct template requests[KINDS];
    uint64_t next;   /* number of the next request */
    uint64_t posted; /* index of the next new payment */
    uint64_t acknowledged[REMEMBERED];
    uint64_t acknowledged_count;
    uint64_t random;
};

static int is_open_loop(const struct run *run)
{
    return run->options->rate > 0;
}

/* When request `number` of an open loop is due. */
static uint64_t due_at(const struct run *run, uint64_t number)
{
    return run->schedule.start_ns + (uint64_t)((double)number * 1e9 / run->options->rate);
}

/* xorshift64*: which payment is polled. */
static uint64_t random_below(struct run *run, uint64_t bound)
{
    run->random ^= run->random >> 12;
    run->random ^= run->random << 25;
    run->random ^= run->random >> 27;
    return (run->random * 0x2545f4914f6cdd1du >> 11) % bound;
}

static enum kind choose(struct run *run, uint64_t *payment)
{
    const struct options *options = run->options;
    if (options->load == LOAD_GET) {
        *payment = random_below(run, options->ids);
        return KIND_GET;
    }
    if (options->load == LOAD_MIXED && run->next % (1 + POLLS_TO_A_POST) != 0 && run->acknowledged_count > 0) {
        uint64_t known = run->acknowledged_count < REMEMBERED ? run->acknowledged_count : REMEMBERED;
        *payment = run->acknowledged[random_below(run, known)];
        return KIND_GET;
    }
    *payment = run->posted++;
    return KIND_POST;
}

static void send_next(struct run *run, struct connection *connection, uint64_t scheduled, uint64_t now)
{
    struct tally *tally = run->tally;
    connection->kind = choose(run, &connection->payment);
    connection->since_ns = scheduled;
    connection->measured = scheduled >= run->schedule.measured_from_ns && scheduled < run->schedule.end_ns;
    run->next++;
    if (connection->measured) {
        tally->started++;
        if (is_open_loop(run)) {
            int waited = run->pool.available_since_ns > scheduled;
            uint64_t possible = waited ? run->pool.available_since_ns : scheduled;
            tally->waited += (uint64_t)waited;
            histogram_record(&tally->lag, now > possible ? now - possible : 0);
        }
    }
    struct template *request = &run->requests[connection->kind];
    request_id(run->options->seed, connection->payment, request->bytes + request->id_at);
    if (pool_send(&run->pool, connection, request->bytes, request->length) != 0 && connection->measured)
        histogram_record(&tally->other, now - scheduled);
}

/* Sends whatever is due and has a connection. Returns when to look again. */
static uint64_t dispatch(struct run *run, uint64_t now)
{
    const struct options *options = run->options;
    for (;;) {
        uint64_t scheduled = is_open_loop(run) ? due_at(run, run->next) : now;
        if (scheduled >= run->schedule.end_ns || (options->count != 0 && run->next >= options->count))
            return now + IDLE_NS;
        if (scheduled > now)
            return scheduled;
        struct connection *connection = pool_first_free(&run->pool);
        if (connection == NULL)
            return now + IDLE_NS;
        send_next(run, connection, scheduled, now);
        now = is_open_loop(run) ? now_ns() : now;
    }
}

static int holds_id(const struct run *run, const struct connection *connection, const struct response *response)
{
    char id[ID_LENGTH];
    if (run->options->any_body)
        return 1;
    request_id(run->options->seed, connection->payment, id);
    return memmem(connection->input + response->head, response->length - response->head, id, ID_LENGTH) != NULL;
}

static void record(struct run *run, struct connection *connection, const struct response *response, uint64_t now)
{
    struct tally *tally = run->tally;
    int expected = response->status == (connection->kind == KIND_POST ? 202 : 200);
    if (expected && !holds_id(run, connection, response)) {
        tally->failures[FAILURE_MISMATCHED]++;
        expected = 0;
    }
    if (expected && connection->kind == KIND_POST)
        run->acknowledged[run->acknowledged_count++ % REMEMBERED] = connection->payment;
    if (now >= run->schedule.measured_from_ns && now < run->schedule.end_ns)
        tally->completed++;
    if (!connection->measured)
        return;
    tally->statuses[response->status < 600 ? response->status : 0]++;
    histogram_record(expected ? &tally->expected[connection->kind] : &tally->other, now - connection->since_ns);
}

static void fail(struct run *run, struct connection *connection, enum failure failure)
{
    run->tally->failures[failure]++;
    if (connection->measured)
        histogram_record(&run->tally->other, now_ns() - connection->since_ns);
    pool_drop(&run->pool, connection);
}

static void receive(struct run *run, struct connection *connection)
{
    size_t room = INPUT_MAX - connection->input_length;
    ssize_t got = recv(connection->socket, connection->input + connection->input_length, room, 0);
    uint64_t now = now_ns();
    if (got < 0 && errno == EAGAIN)
        return;
    if (connection->state == STATE_FREE) { /* nobody asked: an idle connection that the server closed */
        if (got > 0)
            run->tally->failures[FAILURE_MALFORMED]++;
        pool_drop(&run->pool, connection);
        return;
    }
    if (got <= 0) {
        fail(run, connection, FAILURE_CLOSED);
        return;
    }
    connection->input_length += (size_t)got;
    struct response response;
    enum parsed parsed = response_parse(connection->input, connection->input_length, &response);
    if (parsed == PARSED_PARTIAL && connection->input_length < INPUT_MAX)
        return;
    if (parsed != PARSED_WHOLE || response.length != connection->input_length) {
        fail(run, connection, FAILURE_MALFORMED);
        return;
    }
    record(run, connection, &response, now);
    if (response.closes) {
        pool_drop(&run->pool, connection);
        run->pool.retry_ns = 0; /* the server's wish, not an error: reconnect at once */
    } else {
        pool_release(&run->pool, connection, now);
    }
}

static void handle(struct run *run, const struct epoll_event *event)
{
    struct connection *connection = event->data.ptr;
    if (connection->state == STATE_CONNECTING)
        pool_connected(&run->pool, connection, now_ns());
    else if (connection->state != STATE_DEAD)
        receive(run, connection);
}

/* Waits for events until `until` and handles them. `after_each` sends what has become possible after each event. */
static void turn(struct run *run, uint64_t until, int after_each)
{
    struct epoll_event events[EVENTS];
    uint64_t now = now_ns();
    uint64_t left = until > now ? until - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
    int count = epoll_pwait2(run->pool.epoll, events, EVENTS, &timeout, NULL);
    uint64_t woken = now_ns();
    for (int i = 0; i < count; i++) {
        handle(run, &events[i]);
        if (after_each)
            dispatch(run, now_ns());
    }
    if (woken >= run->schedule.measured_from_ns && woken < run->schedule.end_ns)
        run->tally->busy_ns += now_ns() - woken;
}

static int connect_all(struct run *run)
{
    uint64_t until = now_ns() + CONNECT_NS;
    run->schedule.measured_from_ns = UINT64_MAX;
    for (;;) {
        int connecting = 0;
        int made = 0;
        for (int i = 0; i < run->pool.count; i++) {
            connecting += run->pool.connections[i].state == STATE_CONNECTING;
            made += run->pool.connections[i].state == STATE_FREE;
        }
        if (connecting == 0 || now_ns() >= until)
            return made > 0 ? 0 : -1;
        turn(run, until, 0);
    }
}

static int is_over(const struct run *run, uint64_t now)
{
    const struct options *options = run->options;
    if (now >= run->schedule.give_up_ns)
        return 1;
    int all_sent = options->count != 0 && run->next >= options->count;
    if (is_open_loop(run))
        all_sent = due_at(run, run->next) >= run->schedule.end_ns;
    else if (now >= run->schedule.end_ns)
        all_sent = 1;
    return all_sent && run->pool.busy == 0;
}

/* What is left open is not forgotten: it counts with the time that it has waited until now. */
static void settle_accounts(struct run *run, uint64_t now)
{
    struct tally *tally = run->tally;
    for (int i = 0; i < run->pool.count; i++) {
        const struct connection *connection = &run->pool.connections[i];
        if (connection->state == STATE_BUSY && connection->measured) {
            tally->unanswered++;
            histogram_record(&tally->other, now - connection->since_ns);
        }
    }
    if (!is_open_loop(run))
        return;
    for (uint64_t due; (due = due_at(run, run->next)) < run->schedule.end_ns; run->next++) {
        if (due >= run->schedule.measured_from_ns) {
            tally->unsent++;
            histogram_record(&tally->other, now > due ? now - due : 0);
        }
    }
}

static void set_schedule(struct run *run)
{
    const struct options *options = run->options;
    struct schedule *schedule = &run->schedule;
    schedule->start_ns = now_ns();
    schedule->measured_from_ns = schedule->start_ns + (uint64_t)(options->warm_up * 1e9);
    schedule->end_ns = schedule->measured_from_ns + (uint64_t)(options->seconds * 1e9);
    schedule->give_up_ns = schedule->end_ns + (uint64_t)(options->drain * 1e9);
}

int load_run(const struct options *options, struct tally *tally)
{
    static struct run run; /* zero; too large for a stack */
    run.options = options;
    run.tally = tally;
    run.random = options->seed | 1;
    if (template_post(&run.requests[KIND_POST], options->host, options->headers, options->body, options->body_length) ||
        template_get(&run.requests[KIND_GET], options->host, options->headers))
        return -1;
    if (pool_open(&run.pool, options, tally) != 0 || connect_all(&run) != 0)
        return -1;
    set_schedule(&run);
    uint64_t now = now_ns();
    while (!is_over(&run, now)) {
        uint64_t until = dispatch(&run, now);
        turn(&run, until, 1);
        now = now_ns();
        pool_mend(&run.pool, now);
    }
    uint64_t end = now < run.schedule.end_ns ? now : run.schedule.end_ns;
    tally->measured_ns = end > run.schedule.measured_from_ns ? end - run.schedule.measured_from_ns : 0;
    settle_accounts(&run, now);
    pool_close(&run.pool);
    return 0;
}
