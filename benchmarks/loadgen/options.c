#include "options.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void refuse(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("loadgen: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (*text == '\0' || *end != '\0' || !isfinite(value) || value < least || value > most)
        refuse("--%s takes a number from %g to %g, not '%s'.", name, least, most, text);
    return value;
}

static uint64_t whole(const char *name, const char *text, uint64_t most)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text == '\0' || *text == '-' || *end != '\0' || value > most)
        refuse("--%s takes a whole number up to %llu, not '%s'.", name, (unsigned long long)most, text);
    return value;
}

static void parse_address(struct options *options, const char *text)
{
    char host[INET_ADDRSTRLEN];
    const char *colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof host || strlen(text) >= sizeof options->host)
        refuse("--to takes address:port, not '%s'.", text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    options->to.sin_family = AF_INET;
    options->to.sin_port = htons((uint16_t)number("to", colon + 1, 1, 65535));
    if (inet_pton(AF_INET, host, &options->to.sin_addr) != 1 || ntohl(options->to.sin_addr.s_addr) >> 24 != 127)
        refuse("--to takes a loopback address (127.x.x.x), not '%s': this machine measures itself only.", host);
    strcpy(options->host, text);
}

static void read_body(struct options *options, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        refuse("--body: %s can't be opened.", path);
    options->body_length = fread(options->body, 1, BODY_MAX, file);
    if (!feof(file) && fgetc(file) != EOF)
        refuse("--body: %s is longer than %d bytes.", path, BODY_MAX);
    fclose(file);
}

static void add_header(struct options *options, const char *line)
{
    size_t used = strlen(options->headers);
    if (strpbrk(line, "\r\n") != NULL || strchr(line, ':') == NULL)
        refuse("--header takes one line, Name: value.");
    if (used + strlen(line) + 3 > HEADERS_MAX)
        refuse("--header: together at most %d bytes.", HEADERS_MAX);
    snprintf(options->headers + used, HEADERS_MAX - used, "%s\r\n", line);
}

static enum load parse_load(const char *text)
{
    if (strcmp(text, "post") == 0)
        return LOAD_POST;
    if (strcmp(text, "get") == 0)
        return LOAD_GET;
    if (strcmp(text, "mixed") == 0)
        return LOAD_MIXED;
    refuse("--load is post, get or mixed, not '%s'.", text);
    return LOAD_POST;
}

static void check(const struct options *options)
{
    if (options->to.sin_family == 0)
        refuse("--to says where the requests go.");
    if (options->load != LOAD_GET && options->body_length == 0)
        refuse("--body names the file that a POST carries.");
    if (options->load == LOAD_GET && options->ids == 0)
        refuse("--ids says how many payments of --seed there are to GET.");
    if (options->count != 0 && options->rate != 0)
        refuse("--count belongs to a closed loop, --rate makes an open one.");
}

void options_parse(int argc, char **argv, struct options *options)
{
    static const struct option names[] = {
        {"load", required_argument, NULL, 'l'},    {"to", required_argument, NULL, 't'},
        {"rate", required_argument, NULL, 'r'},    {"connections", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 's'}, {"warm-up", required_argument, NULL, 'w'},
        {"drain", required_argument, NULL, 'd'},   {"count", required_argument, NULL, 'n'},
        {"seed", required_argument, NULL, 'S'},    {"ids", required_argument, NULL, 'i'},
        {"any-body", no_argument, NULL, 'a'},      {"body", required_argument, NULL, 'b'},
        {"header", required_argument, NULL, 'H'},  {NULL, 0, NULL, 0},
    };
    memset(options, 0, sizeof *options);
    options->connections = 1;
    options->seconds = 1;
    options->drain = 5;
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (name) {
        case 'l': options->load = parse_load(optarg); break;
        case 't': parse_address(options, optarg); break;
        case 'r': options->rate = number("rate", optarg, 1, RATE_MAX); break;
        case 'c': options->connections = (int)number("connections", optarg, 1, CONNECTIONS_MAX); break;
        case 's': options->seconds = number("seconds", optarg, 0.01, SECONDS_MAX); break;
        case 'w': options->warm_up = number("warm-up", optarg, 0, SECONDS_MAX); break;
        case 'd': options->drain = number("drain", optarg, 0, 60); break;
        case 'n': options->count = whole("count", optarg, COUNT_MAX); break;
        case 'S': options->seed = whole("seed", optarg, UINT64_MAX); break;
        case 'i': options->ids = whole("ids", optarg, COUNT_MAX); break;
        case 'a': options->any_body = 1; break;
        case 'b': read_body(options, optarg); break;
        case 'H': add_header(options, optarg); break;
        default: exit(2);
        }
    }
    if (optind != argc)
        refuse("'%s' is not an option.", argv[optind]);
    check(options);
}
