#include "request.h"

#include <stdio.h>
#include <string.h>

#define NO_ID "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"

/* splitmix64's finalizer: a bijection on 64 bits. Source: Vigna, https://prng.di.unimi.it/splitmix64.c */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

void request_id(uint64_t seed, uint64_t index, char id[ID_LENGTH])
{
    static const char digits[] = "0123456789abcdef";
    uint64_t halves[2];
    halves[0] = mix(seed + index * 0x9e3779b97f4a7c15u);
    halves[1] = mix(halves[0] ^ seed);
    int nibble = 0;
    for (int at = 0; at < ID_LENGTH; at++) {
        if (at == 8 || at == 13 || at == 18 || at == 23) {
            id[at] = '-';
            continue;
        }
        id[at] = digits[(halves[nibble / 16] >> (60 - 4 * (nibble % 16))) & 15];
        nibble++;
    }
}

static int finish(struct template *template, int written)
{
    if (written < 0 || written >= TEMPLATE_MAX)
        return -1;
    template->length = (size_t)written;
    template->id_at = (size_t)(strstr(template->bytes, NO_ID) - template->bytes);
    return 0;
}

int template_post(struct template *template, const char *host, const char *headers, const char *body, size_t length)
{
    return finish(template, snprintf(template->bytes, TEMPLATE_MAX,
                                     "POST /v1/payments HTTP/1.1\r\nHost: %s\r\nX-PAYMENT-CHECKOUT-ID: " NO_ID "\r\n"
                                     "Content-Type: application/json\r\nContent-Length: %zu\r\n%s\r\n%.*s",
                                     host, length, headers, (int)length, body));
}

int template_get(struct template *template, const char *host, const char *headers)
{
    return finish(template, snprintf(template->bytes, TEMPLATE_MAX,
                                     "GET /v1/payments/" NO_ID " HTTP/1.1\r\nHost: %s\r\n%s\r\n", host, headers));
}
