/* The requests: written once, then only the payment's id changes. */
#ifndef REQUEST_H
#define REQUEST_H

#include <stddef.h>
#include <stdint.h>

enum { ID_LENGTH = 36, TEMPLATE_MAX = 16384 };

struct template {
    char bytes[TEMPLATE_MAX];
    size_t length;
    size_t id_at;
};

/* The id of payment `index` of the run `seed`, in the form of a UUID; different indices have different ids. Nothing
 * about it is sequential: neither a B-tree nor an LSM tree gets an easier life than from real clients. */
void request_id(uint64_t seed, uint64_t index, char id[ID_LENGTH]);

/* `headers` are whole lines, CR LF included. Return 0, or -1 when it does not fit. */
int template_post(struct template *template, const char *host, const char *headers, const char *body, size_t length);
int template_get(struct template *template, const char *host, const char *headers);

#endif
