/* Counts durations in log-linear buckets: 128 to each power of two, so a reported value is at most 0.8 % above the
 * true one (Gil Tene's HdrHistogram, with two and a bit digits). benchmarks/histogram.py reads them back. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum {
    HISTOGRAM_BITS = 7,
    HISTOGRAM_SUB = 1 << HISTOGRAM_BITS,
    HISTOGRAM_OCTAVES = 40 - HISTOGRAM_BITS, /* up to 2^40 ns, 18 minutes: more than a run may last */
    HISTOGRAM_BUCKETS = (HISTOGRAM_OCTAVES + 1) * HISTOGRAM_SUB,
};

struct histogram {
    uint64_t count;
    uint64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

size_t histogram_bucket(uint64_t nanoseconds);
void histogram_record(struct histogram *histogram, uint64_t nanoseconds);

#endif
