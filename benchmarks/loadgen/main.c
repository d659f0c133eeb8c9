/* loadgen: a load generator for payments, closed or open loop. Prints one JSON object.
 *
 * It costs little beside what it measures: one thread, requests written once and only their id exchanged, no
 * allocation while it runs. How busy it was and how late it sent is in the result: a run in which this program was the
 * bottleneck says so. */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static void print_histogram(const char *name, const struct histogram *histogram)
{
    const char *separator = "";
    printf(",\"%s\":{\"count\":%" PRIu64 ",\"max_ns\":%" PRIu64 ",\"buckets\":[", name, histogram->count,
           histogram->max);
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (histogram->buckets[i] == 0)
            continue;
        printf("%s[%zu,%" PRIu64 "]", separator, i, histogram->buckets[i]);
        separator = ",";
    }
    printf("]}");
}

static void print_statuses(const struct tally *tally)
{
    const char *separator = "";
    printf(",\"statuses\":{");
    for (int status = 0; status < 600; status++) {
        if (tally->statuses[status] == 0)
            continue;
        printf("%s\"%d\":%" PRIu64, separator, status, tally->statuses[status]);
        separator = ",";
    }
    printf("}");
}

static void print_failures(const struct tally *tally)
{
    static const char *const names[FAILURES] = {
        [FAILURE_CONNECT] = "connect",       [FAILURE_CLOSED] = "closed", [FAILURE_MALFORMED] = "malformed",
        [FAILURE_MISMATCHED] = "mismatched", [FAILURE_WRITE] = "write",
    };
    printf(",\"failures\":{");
    for (int i = 0; i < FAILURES; i++)
        printf("%s\"%s\":%" PRIu64, i == 0 ? "" : ",", names[i], tally->failures[i]);
    printf("}");
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
    static struct options options;
    static struct tally tally;
    options_parse(argc, argv, &options);
    prctl(PR_SET_TIMERSLACK, 1); /* else a timed wait may end 50 us late */
    if (load_run(&options, &tally) != 0) {
        fprintf(stderr, "loadgen: nothing answers at %s, or the request is too long.\n", options.host);
        return 1;
    }
    printf("{\"started\":%" PRIu64 ",\"completed\":%" PRIu64 ",\"measured_ns\":%" PRIu64 ",\"busy_ns\":%" PRIu64,
           tally.started, tally.completed, tally.measured_ns, tally.busy_ns);
    printf(",\"waited\":%" PRIu64 ",\"unsent\":%" PRIu64 ",\"unanswered\":%" PRIu64 ",\"reconnects\":%" PRIu64,
           tally.waited, tally.unsent, tally.unanswered, tally.reconnects);
    printf(",\"cpu_s\":%.6f", cpu_seconds());
    print_statuses(&tally);
    print_failures(&tally);
    print_histogram("post", &tally.expected[KIND_POST]);
    print_histogram("get", &tally.expected[KIND_GET]);
    print_histogram("other", &tally.other);
    print_histogram("lag", &tally.lag);
    printf("}\n");
    return 0;
}
