#define _GNU_SOURCE
#include "response.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum { STATUS_LINE_MIN = 13 }; /* "HTTP/1.1 200" and CR */

static int has_no_body(int status)
{
    return status == 204 || status == 304;
}

/* Digits only, bounded. Returns -1 for anything else. */
static long parse_length(const char *value, const char *end)
{
    while (value < end && *value == ' ')
        value++;
    long length = value < end ? 0 : -1;
    for (; value < end; value++) {
        if (!isdigit((unsigned char)*value) || length > 100000000)
            return -1;
        length = length * 10 + (*value - '0');
    }
    return length;
}

static int is_header(const char *line, const char *end, const char *name, const char **value)
{
    size_t length = strlen(name);
    if ((size_t)(end - line) <= length || line[length] != ':' || strncasecmp(line, name, length) != 0)
        return 0;
    *value = line + length + 1;
    return 1;
}

enum parsed response_parse(const char *bytes, size_t count, struct response *response)
{
    const char *head_end = memmem(bytes, count, "\r\n\r\n", 4);
    if (head_end == NULL)
        return PARSED_PARTIAL;
    if (head_end - bytes < STATUS_LINE_MIN - 1 || memcmp(bytes, "HTTP/1.1 ", 9) != 0)
        return PARSED_MALFORMED;
    int status = 0;
    for (int i = 9; i < 12; i++) {
        if (!isdigit((unsigned char)bytes[i]))
            return PARSED_MALFORMED;
        status = status * 10 + (bytes[i] - '0');
    }
    long length = has_no_body(status) ? 0 : -1;
    response->closes = 0;
    const char *line = memmem(bytes, count, "\r\n", 2);
    while (line < head_end) {
        line += 2;
        const char *end = memmem(line, (size_t)(head_end + 2 - line), "\r\n", 2);
        const char *value;
        if (is_header(line, end, "content-length", &value)) {
            length = parse_length(value, end);
            if (length < 0)
                return PARSED_MALFORMED;
        } else if (is_header(line, end, "connection", &value)) {
            response->closes = memmem(value, (size_t)(end - value), "close", 5) != NULL;
        }
        line = end;
    }
    if (length < 0)
        return PARSED_MALFORMED;
    response->status = status;
    response->head = (size_t)(head_end - bytes) + 4;
    response->length = response->head + (has_no_body(status) ? 0 : (size_t)length);
    return count >= response->length ? PARSED_WHOLE : PARSED_PARTIAL;
}
