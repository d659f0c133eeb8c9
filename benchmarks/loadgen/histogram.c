#include "histogram.h"

size_t histogram_bucket(uint64_t nanoseconds)
{
    if (nanoseconds < HISTOGRAM_SUB)
        return (size_t)nanoseconds;
    unsigned shift = 63u - (unsigned)__builtin_clzll(nanoseconds) - HISTOGRAM_BITS;
    size_t bucket = (size_t)(shift + 1) * HISTOGRAM_SUB + (size_t)((nanoseconds >> shift) - HISTOGRAM_SUB);
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

void histogram_record(struct histogram *histogram, uint64_t nanoseconds)
{
    histogram->count++;
    histogram->buckets[histogram_bucket(nanoseconds)]++;
    if (nanoseconds > histogram->max)
        histogram->max = nanoseconds;
}
