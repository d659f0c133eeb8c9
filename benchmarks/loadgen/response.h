/* Just enough of HTTP/1.1 to know where one answer ends. Pure. */
#ifndef RESPONSE_H
#define RESPONSE_H

#include <stddef.h>

struct response {
    int status;
    size_t head;   /* bytes up to and including the empty line */
    size_t length; /* head and body */
    int closes;    /* the server closes the connection after it */
};

enum parsed { PARSED_MALFORMED = -1, PARSED_PARTIAL = 0, PARSED_WHOLE = 1 };

/* Reads the answer that `bytes` begin with. An answer without Content-Length is malformed here: none of the systems
 * that are measured sends one. */
enum parsed response_parse(const char *bytes, size_t count, struct response *response);

#endif
