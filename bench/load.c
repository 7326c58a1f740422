/* SPDX-License-Identifier: Apache-2.0 */
/* The benchmark's own load generator: a fixed count of requests over N keep-alive connections, or
 * over connections that are new for each request, to 127.0.0.1 only. ab speaks HTTP/1.0 and can't
 * do the former as a browser does; wrk is bounded in time, not in count, and callgrind needs a
 * count.
 *
 *   load [-n] [-v] [-b] [-l] [-d SIZE] [-w SIZE] [-p PATH] PORT CONNECTIONS REQUESTS [TIMEOUT_S]
 *
 * One thread, one epoll, one request under way on each connection. Every server gets the same
 * bytes: a GET of PATH ("/") with five headers; with -n the last of them is "Connection: close" and
 * each request has a new connection; with -v each request differs from the one before in one header
 * (of the same length), for servers that remember what a connection asked last; with -b it has the
 * fourteen headers of a browser, and the cookie differs each time; with -d it is a POST with a body of
 * SIZE bytes. With -w the connections are WebSockets, opened before the clock starts, and a request is a
 * text message of SIZE bytes, its answer a message of as many.
 *
 * A response counts when it is "HTTP/1.x 200" and its whole body came (Content-Length, chunked, or
 * to the end when it says close); everything else is an error. The keep-alive connections are open
 * before the clock starts. Prints one line, "requests=N errors=N seconds=S rps=R", with -l also
 * " p50=MS p99=MS max=MS" from a request's first byte to its answer's last; ends with 1 when there
 * was an error or the time was over. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 20000,
    REQUESTS_MAX = 50 * 1000 * 1000,
    TIMEOUT_MAX_S = 600,
    BUFFER_SIZE = 16384,
    EVENTS_MAX = 256,
    HEAD_SIZE = 1024,
    BODY_SIZE_MAX = 15000, /* its echo is to fit the buffer, with a head */
    HANDSHAKE_TIMEOUT_S = 20,
    COUNTER_DIGITS = 8,
};

/* Method, path, a counter of eight digits, and the fifth header are filled in. */
static const char request_format[] = "%s %s HTTP/1.1\r\n"
                                     "Host: 127.0.0.1\r\n"
                                     "User-Agent: pelton-bench/%08ld\r\n"
                                     "Accept: */*\r\n"
                                     "Accept-Encoding: gzip, deflate\r\n"
                                     "%s\r\n"
                                     "\r\n";
static const char browser_format[] =
    "%1$s %2$s HTTP/1.1\r\n"
    "Host: www.example.org\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
    "\r\n"
    "Accept-Language: en-US,en;q=0.5\r\n"
    "Accept-Encoding: gzip, deflate, br\r\n"
    "Referer: https://www.example.org/articles/7/?page=3\r\n"
    "%4$s\r\n"
    "Cookie: sessionid=abcdefghijklmnopqrstuvwxyz012345; id=pelton-bench/%3$08ld\r\n"
    "Upgrade-Insecure-Requests: 1\r\n"
    "Sec-Fetch-Dest: document\r\n"
    "Sec-Fetch-Mode: navigate\r\n"
    "Sec-Fetch-Site: same-origin\r\n"
    "Sec-Fetch-User: ?1\r\n"
    "Priority: u=0, i\r\n"
    "\r\n";
static const char handshake_format[] = "GET %s HTTP/1.1\r\n"
                                       "Host: 127.0.0.1\r\n"
                                       "Upgrade: websocket\r\n"
                                       "Connection: Upgrade\r\n"
                                       "Sec-WebSocket-Version: 13\r\n"
                                       "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                                       "\r\n";
static const char counter_before[] = "pelton-bench/";

/* What is known of a response after some bytes of it. */
enum verdict {
    VERDICT_MORE = 0, /* not whole yet */
    VERDICT_WHOLE = 1,
    VERDICT_BAD = 2,
    VERDICT_TO_END = 3, /* whole when the server closes */
};

struct conn {
    int fd;
    size_t have; /* bytes in buffer */
    bool asked;  /* a request is under way */
    double asked_s;
    char buffer[BUFFER_SIZE];
};

struct load {
    struct sockaddr_in address;
    int epoll_fd;
    bool new_each;     /* a new connection for each request */
    bool vary;         /* no two requests alike */
    long message_size; /* of WebSockets; -1: it is HTTP */
    char handshake[HEAD_SIZE];
    char request[HEAD_SIZE + BODY_SIZE_MAX];
    size_t request_length;
    char *counter;      /* in request */
    float *latencies_s; /* of the answers, in their order; NULL: not asked for */
    long wanted;        /* requests in all */
    long started;
    long answered;
    long errors;
    struct conn *conns;
    int conn_count;
};

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The value of a header within the head, which ends with an empty line; NULL when it isn't there. */
static const char *header(const char *head, const char *head_end, const char *name)
{
    size_t length = strlen(name);

    for (const char *p = head; p < head_end;) {
        const char *eol = memchr(p, '\n', (size_t)(head_end - p));
        if (!eol)
            return NULL;
        if ((size_t)(eol - p) > length && !strncasecmp(p, name, length) && p[length] == ':') {
            p += length + 1;
            while (*p == ' ')
                p++;
            return p;
        }
        p = eol + 1;
    }
    return NULL;
}

/* Looks at one response from its first byte; a chunked body ends with the last chunk. */
static enum verdict look(struct conn *conn)
{
    char *head = conn->buffer;
    char *head_end = memmem(head, conn->have, "\r\n\r\n", 4);

    if (!head_end)
        return conn->have == BUFFER_SIZE ? VERDICT_BAD : VERDICT_MORE;
    head_end += 4;
    if (memcmp(head, "HTTP/1.", 7) != 0 || memcmp(head + 8, " 200", 4) != 0)
        return VERDICT_BAD;
    size_t body = conn->have - (size_t)(head_end - head);
    const char *length = header(head, head_end, "Content-Length");
    if (length) {
        unsigned long wanted = strtoul(length, NULL, 10);
        if (body == wanted)
            return VERDICT_WHOLE;
        return body < wanted && wanted < BUFFER_SIZE ? VERDICT_MORE : VERDICT_BAD;
    }
    if (header(head, head_end, "Transfer-Encoding")) {
        bool ended = body >= 5 && !memcmp(head + conn->have - 5, "0\r\n\r\n", 5);
        return ended ? VERDICT_WHOLE : VERDICT_MORE;
    }
    return VERDICT_TO_END;
}

/* The same of a WebSocket's message, in one frame. */
static enum verdict look_at_frame(const struct load *load, const struct conn *conn)
{
    const unsigned char *p = (const unsigned char *)conn->buffer;
    size_t wanted = (size_t)load->message_size, head = wanted < 126 ? 2 : 4;

    if (conn->have < head)
        return VERDICT_MORE;
    size_t size = head == 2 ? p[1] : (size_t)(p[2] << 8 | p[3]);
    if (p[0] != 0x81 || size != wanted || conn->have > head + wanted)
        return VERDICT_BAD;
    return conn->have == head + wanted ? VERDICT_WHOLE : VERDICT_MORE;
}

static void watch(struct load *load, struct conn *conn, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data = {.ptr = conn}};
    if (epoll_ctl(load->epoll_fd, operation, conn->fd, &event) != 0) {
        perror("epoll_ctl");
        exit(2);
    }
}

static void drop(struct conn *conn)
{
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
    conn->have = 0;
    conn->asked = false;
}

static void count_up(char *digits)
{
    for (int i = COUNTER_DIGITS - 1; i >= 0; i--) {
        if (digits[i] < '9') {
            digits[i]++;
            return;
        }
        digits[i] = '0';
    }
}

/* Sends the next request on an open connection, if there is one left to send. */
static bool ask(struct load *load, struct conn *conn)
{
    size_t length = load->request_length;

    if (load->started >= load->wanted)
        return true;
    conn->have = 0;
    if (load->vary)
        count_up(load->counter);
    if (load->latencies_s)
        conn->asked_s = now_s();
    /* A request is far smaller than an empty send buffer: it goes out whole or not at all. */
    if (send(conn->fd, load->request, length, MSG_NOSIGNAL) != (ssize_t)length)
        return false;
    load->started++;
    conn->asked = true;
    return true;
}

/* Waits for it, before the clock starts. */
static bool shake_hands(const struct load *load, struct conn *conn)
{
    struct timeval limit = {.tv_sec = HANDSHAKE_TIMEOUT_S};
    size_t length = strlen(load->handshake);

    if (setsockopt(conn->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0 ||
        send(conn->fd, load->handshake, length, MSG_NOSIGNAL) != (ssize_t)length)
        return false;
    conn->have = 0;
    while (!memmem(conn->buffer, conn->have, "\r\n\r\n", 4)) {
        ssize_t got = recv(conn->fd, conn->buffer + conn->have, BUFFER_SIZE - conn->have, 0);
        if (got <= 0)
            return false;
        conn->have += (size_t)got;
    }
    return memcmp(conn->buffer, "HTTP/1.1 101", 12) == 0;
}

static bool connect_conn(struct load *load, struct conn *conn)
{
    int one = 1;

    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (conn->fd < 0 ||
        connect(conn->fd, (struct sockaddr *)&load->address, sizeof load->address) != 0 ||
        setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0 ||
        (load->message_size >= 0 && !shake_hands(load, conn)))
        return false;
    watch(load, conn, EPOLLIN, EPOLL_CTL_ADD);
    return true;
}

/* A new connection, and its first request; an error is counted as an error of one request. */
static void open_conn(struct load *load, struct conn *conn)
{
    while (load->started < load->wanted) {
        if (connect_conn(load, conn) && ask(load, conn))
            return;
        drop(conn);
        load->started++;
        load->errors++;
    }
}

static void good_answer(struct load *load, struct conn *conn)
{
    if (load->latencies_s)
        load->latencies_s[load->answered] = (float)(now_s() - conn->asked_s);
    load->answered++;
}

static void answered(struct load *load, struct conn *conn, bool good)
{
    if (good)
        good_answer(load, conn);
    else
        load->errors++;
    conn->asked = false;
    if (!good || load->new_each || !ask(load, conn)) {
        drop(conn);
        open_conn(load, conn);
    }
}

static void readable(struct load *load, struct conn *conn)
{
    ssize_t got = recv(conn->fd, conn->buffer + conn->have, BUFFER_SIZE - conn->have, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        if (conn->asked) {
            answered(load, conn, got == 0 && conn->have && look(conn) == VERDICT_TO_END);
        } else {
            /* Between two requests a server may close: not an error, but the end of this one. */
            drop(conn);
            open_conn(load, conn);
        }
        return;
    }
    conn->have += (size_t)got;
    switch (load->message_size >= 0 ? look_at_frame(load, conn) : look(conn)) {
    case VERDICT_WHOLE:
        /* Some servers end the connection after a number of requests, and say so. */
        if (!load->new_each && memmem(conn->buffer, conn->have, "onnection: close", 16)) {
            good_answer(load, conn);
            drop(conn);
            open_conn(load, conn);
            break;
        }
        answered(load, conn, true);
        break;
    case VERDICT_BAD:
        answered(load, conn, false);
        break;
    case VERDICT_MORE:
    case VERDICT_TO_END:
        if (conn->have == BUFFER_SIZE)
            answered(load, conn, false);
        break;
    }
}

/* Turns until every request has its answer or its error; false when the time is over first. */
static bool run(struct load *load, double end_s)
{
    struct epoll_event events[EVENTS_MAX];

    /* A connection that could not be opened before the clock started is tried again here. */
    for (int i = 0; i < load->conn_count; i++) {
        struct conn *conn = &load->conns[i];
        if (conn->fd < 0 || !ask(load, conn)) {
            drop(conn);
            open_conn(load, conn);
        }
    }
    while (load->answered + load->errors < load->wanted) {
        int count = epoll_wait(load->epoll_fd, events, EVENTS_MAX, 100);
        for (int i = 0; i < count; i++)
            readable(load, events[i].data.ptr);
        if (now_s() > end_s)
            return false;
    }
    return true;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void print_latencies(struct load *load)
{
    long count = load->answered;

    if (!load->latencies_s || !count)
        return;
    qsort(load->latencies_s, (size_t)count, sizeof *load->latencies_s, by_size);
    printf(" p50=%.2f p99=%.2f max=%.2f", 1e3 * (double)load->latencies_s[count / 2],
           1e3 * (double)load->latencies_s[count * 99 / 100],
           1e3 * (double)load->latencies_s[count - 1]);
}

static long number(const char *text, long min, long max, const char *what)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (*text == '\0' || *end != '\0' || value < min || value > max) {
        fprintf(stderr, "load: %s must be %ld to %ld, not '%s'\n", what, min, max, text);
        exit(2);
    }
    return value;
}

static void usage(void)
{
    fprintf(stderr, "usage: load [-n] [-v] [-b] [-l] [-d SIZE] [-w SIZE] [-p PATH] PORT"
                    " CONNECTIONS REQUESTS [TIMEOUT_S]\n");
    exit(2);
}

/* What a request is made of. */
struct shape {
    const char *path;
    bool browser;
    long body_size; /* -1: none */
};

/* The bytes of a request, which all servers get. */
static void make_request(struct load *load, const struct shape *shape)
{
    const char *method = shape->body_size < 0 ? "GET" : "POST";
    const char *format = shape->browser ? browser_format : request_format;
    const char *other = shape->browser ? "Connection: keep-alive" : "Accept-Language: en";
    char last[128];

    if (shape->body_size < 0)
        snprintf(last, sizeof last, "%s", load->new_each ? "Connection: close" : other);
    else
        snprintf(last, sizeof last,
                 "Content-Type: application/octet-stream\r\nContent-Length: %ld%s",
                 shape->body_size, load->new_each ? "\r\nConnection: close" : "");
    int length = snprintf(load->request, HEAD_SIZE, format, method, shape->path, 1L, last);
    if (length < 0 || length >= HEAD_SIZE)
        usage();
    load->request_length = (size_t)length;
    if (shape->body_size > 0) {
        memset(load->request + length, 'x', (size_t)shape->body_size);
        load->request_length += (size_t)shape->body_size;
    }
}

/* The handshake, and a request that is a message: its mask is zero, which changes no byte. */
static void make_message(struct load *load, const char *path)
{
    unsigned char *p = (unsigned char *)load->request;
    size_t size = (size_t)load->message_size, head = size < 126 ? 2 : 4;
    int length = snprintf(load->handshake, sizeof load->handshake, handshake_format, path);

    if (length < 0 || length >= (int)sizeof load->handshake)
        usage();
    p[0] = 0x81;
    p[1] = (unsigned char)(0x80 | (size < 126 ? size : 126));
    if (head == 4) {
        p[2] = (unsigned char)(size >> 8);
        p[3] = (unsigned char)size;
    }
    memset(p + head, 0, 4);
    memset(p + head + 4, 'x', size);
    load->request_length = head + 4 + size;
}

/* Reads the command line; returns the time-out in seconds. */
static long set_up(struct load *load, int argc, char **argv)
{
    struct shape shape = {.path = "/", .body_size = -1};
    bool latencies = false;

    load->message_size = -1;
    for (int option; (option = getopt(argc, argv, "nvbld:w:p:")) != -1;) {
        if (option == 'n')
            load->new_each = true;
        else if (option == 'v')
            load->vary = true;
        else if (option == 'b')
            load->vary = shape.browser = true;
        else if (option == 'l')
            latencies = true;
        else if (option == 'd')
            shape.body_size = number(optarg, 0, BODY_SIZE_MAX, "SIZE");
        else if (option == 'w')
            load->message_size = number(optarg, 0, BODY_SIZE_MAX, "SIZE");
        else if (option == 'p')
            shape.path = optarg;
        else
            usage();
    }
    argv += optind;
    argc -= optind;
    if (argc < 3 || argc > 4)
        usage();
    load->address.sin_family = AF_INET;
    load->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    load->address.sin_port = htons((uint16_t)number(argv[0], 1, 65535, "PORT"));
    load->conn_count = (int)number(argv[1], 1, CONNECTIONS_MAX, "CONNECTIONS");
    load->wanted = number(argv[2], 1, REQUESTS_MAX, "REQUESTS");
    make_request(load, &shape);
    load->counter = strstr(load->request, counter_before) + sizeof counter_before - 1;
    if (load->message_size >= 0)
        make_message(load, shape.path);
    load->conns = calloc((size_t)load->conn_count, sizeof *load->conns);
    if (latencies)
        load->latencies_s = calloc((size_t)load->wanted, sizeof *load->latencies_s);
    load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!load->conns || (latencies && !load->latencies_s) || load->epoll_fd < 0) {
        perror("load");
        exit(2);
    }
    return argc > 3 ? number(argv[3], 1, TIMEOUT_MAX_S, "TIMEOUT_S") : 60;
}

int main(int argc, char **argv)
{
    struct load load = {0};
    struct rlimit files = {0};
    long timeout_s = set_up(&load, argc, argv);

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files); /* too few show as errors of connect */
    }
    for (int i = 0; i < load.conn_count; i++) {
        load.conns[i].fd = -1;
        if (!load.new_each && !connect_conn(&load, &load.conns[i]))
            drop(&load.conns[i]);
    }
    double start_s = now_s();
    bool whole = run(&load, start_s + (double)timeout_s);
    double took_s = now_s() - start_s;
    if (!whole)
        fprintf(stderr, "load: time is over after %ld s\n", timeout_s);
    printf("requests=%ld errors=%ld seconds=%.3f rps=%.0f", load.answered, load.errors, took_s,
           (double)load.answered / took_s);
    print_latencies(&load);
    printf("\n");
    for (int i = 0; i < load.conn_count; i++)
        drop(&load.conns[i]);
    free(load.conns);
    free(load.latencies_s);
    close(load.epoll_fd);
    return whole && !load.errors ? 0 : 1;
}
