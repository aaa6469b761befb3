/* A load client for benchmarks: one process, one thread, epoll; HTTP/1.1 on loopback.
 *
 *     client --port N --path P --body FILE [--body FILE ...] [--header "name: value" ...]
 *            [--connections N] [--seconds S | --requests N] [--warm-seconds S] [--ramp-seconds S]
 *            [--rate R] [--events N] [--timeout-seconds S] [--type CONTENT-TYPE]
 *
 * Each connection asks again when it has its answer, and begins within --ramp-seconds; with
 * --rate requests begin at that rate instead, and one that has to wait for a connection has
 * begun when it should have. --events: the answers are streams of so many stamped events (see
 * upstream.c) and [DONE]. What begins within --warm-seconds is made, and not measured. Bodies
 * are sent in turn. Prints one JSON object; times are in microseconds. A request that failed is
 * counted by its kind, and the first one's answer is shown.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_BYTES 16384
#define READ_BYTES 262144
#define TAIL_BYTES 16         /* of a body: where [DONE] is looked for */
#define EXAMPLE_BYTES 160
#define READY_AT_ONCE 512
#define MOST_BODIES 256
#define SECOND 1000000000LL

enum failure { CONNECT, STATUS, CUT_SHORT, TIMEOUT, CONTENT, FAILURES };
static const char *failure_names[] = {"connect", "status", "cut short", "timeout", "content"};

struct samples { int64_t *ns; size_t count, room; };
struct request { char *bytes; size_t size; };

enum state { IDLE, SENDING, HEAD, BODY };
struct connection {
    int fd;                   /* -1: not connected */
    enum state state;
    bool used;                /* it has had an answer */
    bool keeps, chunked, has_length;
    int64_t begun;
    struct request *request;
    size_t sent;
    char head[HEAD_BYTES + 1];
    size_t head_bytes;
    int status;
    uint64_t left;            /* of the body, or of its chunk */
    enum { SIZE, DATA, AFTER_DATA, TRAILER } part;
    bool line_has_text;       /* of the trailer */
    bool in_stamp;
    int64_t stamp;
    long events;
    char tail[TAIL_BYTES];
    bool first_byte_seen;
};

static struct {
    int port, connections;
    long events;
    double seconds, warm, ramp, rate, timeout;
    uint64_t requests;
    const char *path, *type;
    char headers[4096];
} options = {.connections = 1, .path = "/", .type = "application/json", .timeout = 60};

static struct samples total_ns, first_byte_ns, delay_ns;
static uint64_t begun, finished, finished_in_time, all_events, events_in_time, failed[FAILURES];
static uint64_t reconnects;
static char example[EXAMPLE_BYTES + 1];
static struct request bodies[MOST_BODIES];
static int body_count;
static struct connection *connections;
static int epoll, busy;
static int64_t started_at, measured_from, stops_at;
static char buffer[READ_BYTES];

static void fail(const char *what) { perror(what); exit(2); }

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static void note(struct samples *samples, int64_t ns) {
    if (samples->count == samples->room) {
        samples->room = samples->room ? 2 * samples->room : 4096;
        samples->ns = realloc(samples->ns, samples->room * sizeof *samples->ns);
        if (!samples->ns) fail("realloc");
    }
    samples->ns[samples->count++] = ns;
}

static bool is_measured(int64_t at) { return at >= measured_from && at <= stops_at; }

static bool may_begin(int64_t now) {
    return now < stops_at && (!options.requests || begun < options.requests);
}

/* The request's end; the connection is kept for the next if that is possible. */
static void finish(struct connection *c, int64_t now) {
    finished++;
    if (is_measured(c->begun)) note(&total_ns, now - c->begun);
    if (is_measured(now)) finished_in_time++;
    c->state = IDLE;
    c->used = true;
    busy--;
    if (!c->keeps) { close(c->fd); c->fd = -1; }
}

static void give_up(struct connection *c, enum failure why) {
    failed[why]++;
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->state = IDLE;
    busy--;
}

static void watch(struct connection *c, int operation, bool writes) {
    struct epoll_event event = {EPOLLIN | (writes ? EPOLLOUT : 0), {.ptr = c}};
    epoll_ctl(epoll, operation, c->fd, &event);
}

static bool open_connection(struct connection *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) return false;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->used = false;
    if (connect(c->fd, (void *)&address, sizeof address) && errno != EINPROGRESS) return false;
    watch(c, EPOLL_CTL_ADD, true);
    return true;
}

static void send_request(struct connection *c) {
    while (c->sent < c->request->size) {
        ssize_t sent = send(c->fd, c->request->bytes + c->sent, c->request->size - c->sent,
                            MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
            watch(c, EPOLL_CTL_MOD, true);
            return;
        }
        if (sent < 0) { give_up(c, c->used ? CUT_SHORT : CONNECT); return; }
        c->sent += sent;
    }
    watch(c, EPOLL_CTL_MOD, false);
    c->state = HEAD;
}

static void ask(struct connection *c) {
    c->state = SENDING;
    c->sent = c->head_bytes = 0;
    c->first_byte_seen = c->in_stamp = false;
    c->events = 0;
    memset(c->tail, 0, sizeof c->tail);
    if (c->fd >= 0) send_request(c);
    else if (!open_connection(c)) give_up(c, CONNECT);
}

static void begin(struct connection *c, int64_t at) {
    c->begun = at;
    c->request = &bodies[begun++ % body_count];
    busy++;
    ask(c);
}

/* A kept connection that the server closed just now: the request goes out again, once. */
static void lost(struct connection *c) {
    bool again = c->used && c->head_bytes == 0 && c->state != BODY;
    if (!again) { give_up(c, CUT_SHORT); return; }
    reconnects++;
    close(c->fd);
    c->fd = -1;
    ask(c);
}

static void see_event(struct connection *c, int64_t now) {
    c->events++;
    all_events++;
    if (!is_measured(now)) return;
    events_in_time++;
    note(&delay_ns, now - c->stamp);
}

/* Stamps are @digits@, wherever the pieces were cut. */
static void look_for_stamps(struct connection *c, const char *at, size_t bytes, int64_t now) {
    const char *end = at + bytes;
    while (at < end) {
        if (!c->in_stamp) {
            at = memchr(at, '@', end - at);
            if (!at) return;
            at++;
            c->in_stamp = true;
            c->stamp = 0;
        } else if (*at == '@') {
            at++;
            c->in_stamp = false;
            see_event(c, now);
        } else {
            c->in_stamp = isdigit((unsigned char)*at);
            c->stamp = c->stamp * 10 + (*at++ - '0');
        }
    }
}

static void see_body(struct connection *c, const char *data, size_t bytes, int64_t now) {
    if (!bytes) return;
    if (!c->first_byte_seen) {
        c->first_byte_seen = true;
        if (is_measured(c->begun)) note(&first_byte_ns, now - c->begun);
    }
    if (c->status != 200 && !example[0])
        snprintf(example, sizeof example, "%d %.*s", c->status,
                 (int)(bytes > EXAMPLE_BYTES ? EXAMPLE_BYTES : bytes), data);
    if (!options.events) return;
    look_for_stamps(c, data, bytes, now);
    size_t kept = bytes < TAIL_BYTES ? TAIL_BYTES - bytes : 0;
    memmove(c->tail, c->tail + TAIL_BYTES - kept, kept);
    memcpy(c->tail + kept, data + bytes - (TAIL_BYTES - kept), TAIL_BYTES - kept);
}

static void end_of_answer(struct connection *c, int64_t now) {
    if (c->status != 200) give_up(c, STATUS);
    else if (options.events && (c->events != options.events
                                || !memmem(c->tail, TAIL_BYTES, "[DONE]", 6))) {
        if (!example[0])
            snprintf(example, sizeof example, "%ld events, then %.*s", c->events, TAIL_BYTES,
                     c->tail);
        give_up(c, CONTENT);
    } else finish(c, now);
}

/* True at the body's end. */
static bool read_chunks(struct connection *c, const char *at, size_t bytes, int64_t now) {
    const char *end = at + bytes;
    while (at < end) {
        if (c->part == DATA) {
            size_t here = (size_t)(end - at) < c->left ? (size_t)(end - at) : c->left;
            see_body(c, at, here, now);
            at += here;
            c->left -= here;
            if (!c->left) c->part = AFTER_DATA;
            continue;
        }
        char byte = *at++;
        if (c->part == SIZE && isxdigit((unsigned char)byte)) {
            c->left = c->left * 16 + (isdigit((unsigned char)byte) ? byte - '0'
                                                                   : (byte | 32) - 'a' + 10);
        } else if (c->part == TRAILER && byte != '\n') {
            c->line_has_text |= byte != '\r';
        } else if (byte == '\n') {
            if (c->part == TRAILER && !c->line_has_text) return true;
            c->line_has_text = false;
            c->part = c->part != SIZE ? (c->part == TRAILER ? TRAILER : SIZE)
                                      : (c->left ? DATA : TRAILER);
        }
    }
    return false;
}

/* True at the body's end. */
static bool read_body(struct connection *c, const char *at, size_t bytes, int64_t now) {
    if (c->chunked) return read_chunks(c, at, bytes, now);
    see_body(c, at, bytes, now);
    if (!c->has_length) return false;
    c->left -= bytes < c->left ? bytes : c->left;
    return !c->left;
}

static void read_head(struct connection *c) {
    c->status = atoi(c->head + 9);
    c->keeps = true;
    c->chunked = c->has_length = c->line_has_text = false;
    c->left = 0;
    c->part = SIZE;
    for (char *line = strchr(c->head, '\n'); line; line = strchr(line, '\n')) {
        line++;
        if (!strncasecmp(line, "content-length:", 15)) {
            c->has_length = true;
            c->left = strtoull(line + 15, NULL, 10);
        } else if (!strncasecmp(line, "transfer-encoding: chunked", 26)) {
            c->chunked = true;
        } else if (!strncasecmp(line, "connection: close", 17)) {
            c->keeps = false;
        }
    }
    c->keeps &= c->chunked || c->has_length;
    c->state = BODY;
}

static void receive(struct connection *c) {
    ssize_t came = recv(c->fd, buffer, sizeof buffer, 0);
    if (came < 0 && (errno == EAGAIN || errno == EINTR)) return;
    int64_t now = now_ns();
    if (came <= 0) {
        bool is_its_end = came == 0 && c->state == BODY && !c->chunked && !c->has_length;
        if (is_its_end) end_of_answer(c, now);
        else lost(c);
        return;
    }
    const char *body = buffer;
    if (c->state != BODY) {
        size_t room = HEAD_BYTES - c->head_bytes, before = c->head_bytes;
        size_t taken = (size_t)came < room ? (size_t)came : room;
        memcpy(c->head + before, buffer, taken);
        c->head_bytes += taken;
        c->head[c->head_bytes] = 0;
        char *end = memmem(c->head, c->head_bytes, "\r\n\r\n", 4);
        if (!end) {
            if (taken == room) give_up(c, CONTENT);
            return;
        }
        end[2] = 0;
        body = buffer + (end + 4 - c->head) - before;
        read_head(c);
    }
    bool ended = read_body(c, body, buffer + came - body, now);
    if (ended || (c->has_length && !c->left && !c->chunked)) end_of_answer(c, now);
}

static void serve(struct connection *c, uint32_t ready) {
    if (c->fd < 0) return;
    if (c->state == IDLE) {   /* the server closed what we kept */
        close(c->fd);
        c->fd = -1;
        return;
    }
    if (c->state == SENDING && ready & EPOLLOUT) send_request(c);
    if (c->fd >= 0 && ready & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        if (c->state == SENDING && !c->used && ready & EPOLLERR) give_up(c, CONNECT);
        else receive(c);
    }
}

/* Begins what may begin now; how long until the next may, in ms. */
static int begin_what_is_due(int64_t now) {
    static int64_t scheduled;
    if (!scheduled) scheduled = started_at;
    int64_t next = now + SECOND / 20;
    for (int i = 0; i < options.connections && may_begin(now); i++) {
        struct connection *c = &connections[i];
        if (c->state != IDLE) continue;
        if (options.rate > 0) {
            if (scheduled > now) break;
            begin(c, scheduled);
            scheduled += SECOND / options.rate;
        } else {
            int64_t from = started_at + options.ramp * SECOND * i / options.connections;
            if (from <= now) begin(c, now_ns());
            else { next = from < next ? from : next; break; }
        }
    }
    if (options.rate > 0 && scheduled < next) next = scheduled > now ? scheduled : now;
    return (int)((next - now) / 1000000);
}

static void end_what_takes_too_long(int64_t now) {
    for (int i = 0; i < options.connections; i++) {
        struct connection *c = &connections[i];
        if (c->state != IDLE && now - c->begun > options.timeout * SECOND) give_up(c, TIMEOUT);
    }
}

static void run(void) {
    struct epoll_event ready[READY_AT_ONCE];
    int64_t looked_at = started_at;
    for (;;) {
        int64_t now = now_ns();
        int wait_ms = begin_what_is_due(now);
        if (!busy && !may_begin(now)) return;
        if (now - looked_at > SECOND / 10) {
            looked_at = now;
            end_what_takes_too_long(now);
        }
        int count = epoll_wait(epoll, ready, READY_AT_ONCE, wait_ms);
        for (int i = 0; i < count; i++) serve(ready[i].data.ptr, ready[i].events);
    }
}

static int by_size(const void *one, const void *other) {
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

static void print_samples(const char *name, struct samples *samples) {
    static const double percents[] = {1, 10, 25, 50, 75, 90, 95, 99, 99.9, 100};
    qsort(samples->ns, samples->count, sizeof *samples->ns, by_size);
    printf("\"%s\": {\"count\": %zu", name, samples->count);
    for (size_t i = 0; samples->count && i < sizeof percents / sizeof *percents; i++) {
        size_t rank = samples->count * percents[i] / 100;   /* nearest rank, from 0 */
        if (rank >= samples->count) rank = samples->count - 1;
        printf(", \"p%g\": %.1f", percents[i], samples->ns[rank] / 1000.0);
    }
    printf("}, ");
}

static void print_result(int64_t ended_at) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec
        + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    int64_t until = ended_at < stops_at ? ended_at : stops_at;
    for (char *at = example; *at; at++)
        if (*at == '"' || *at == '\\' || *at < ' ' || *at > '~') *at = '\'';
    printf("{");
    print_samples("total_us", &total_ns);
    print_samples("first_byte_us", &first_byte_ns);
    print_samples("delay_us", &delay_ns);
    printf("\"seconds\": %.6f, \"finished\": %lu, \"finished_in_time\": %lu, \"events\": %lu, "
           "\"events_in_time\": %lu, \"reconnects\": %lu, \"cpu_seconds\": %.3f, "
           "\"example\": \"%s\", \"failed\": {", (until - measured_from) / 1e9, finished,
           finished_in_time, all_events, events_in_time, reconnects, cpu, example);
    bool comma = false;
    for (int i = 0; i < FAILURES; i++)
        if (failed[i]) {
            printf("%s\"%s\": %lu", comma ? ", " : "", failure_names[i], failed[i]);
            comma = true;
        }
    printf("}}\n");
}

static struct request made_request(const char *file) {
    FILE *stream = fopen(file, "rb");
    if (!stream) fail(file);
    fseek(stream, 0, SEEK_END);
    long size = ftell(stream);
    rewind(stream);
    char *bytes = malloc(size + 8192);
    if (!bytes) fail("malloc");
    int head = sprintf(bytes, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s"
        "Content-Type: %s\r\nContent-Length: %ld\r\n\r\n", options.path,
        options.port, options.headers, options.type, size);
    if (fread(bytes + head, 1, size, stream) != (size_t)size) fail(file);
    fclose(stream);
    return (struct request){bytes, head + size};
}

static void read_options(int argc, char **argv) {
    static const struct option known[] = {{"port", 1, 0, 'p'}, {"path", 1, 0, 'u'},
        {"body", 1, 0, 'b'}, {"header", 1, 0, 'h'}, {"connections", 1, 0, 'c'},
        {"seconds", 1, 0, 's'}, {"requests", 1, 0, 'n'}, {"warm-seconds", 1, 0, 'w'},
        {"ramp-seconds", 1, 0, 'r'}, {"rate", 1, 0, 'R'}, {"events", 1, 0, 'e'},
        {"timeout-seconds", 1, 0, 't'}, {"type", 1, 0, 'T'}, {0, 0, 0, 0}};
    const char *files[MOST_BODIES];
    size_t headers = 0;
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (option) {
        case 'p': options.port = atoi(optarg); break;
        case 'u': options.path = optarg; break;
        case 'b': if (body_count < MOST_BODIES) files[body_count++] = optarg; break;
        case 'h': headers += snprintf(options.headers + headers, sizeof options.headers - headers,
                                      "%s\r\n", optarg);
                  if (headers >= sizeof options.headers) exit(2);
                  break;
        case 'c': options.connections = atoi(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'n': options.requests = strtoull(optarg, NULL, 10); break;
        case 'w': options.warm = atof(optarg); break;
        case 'r': options.ramp = atof(optarg); break;
        case 'R': options.rate = atof(optarg); break;
        case 'e': options.events = atol(optarg); break;
        case 't': options.timeout = atof(optarg); break;
        case 'T': options.type = optarg; break;
        default: exit(2);
        }
    if (!body_count || !options.port || options.connections < 1) {
        fprintf(stderr, "--port, --body and at least one connection are needed\n");
        exit(2);
    }
    for (int i = 0; i < body_count; i++) bodies[i] = made_request(files[i]);
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    connections = calloc(options.connections, sizeof *connections);
    if (!connections) fail("calloc");
    for (int i = 0; i < options.connections; i++) connections[i].fd = -1;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    started_at = now_ns();
    measured_from = started_at + options.warm * SECOND;
    stops_at = options.seconds > 0 ? measured_from + options.seconds * SECOND : INT64_MAX;
    run();
    print_result(now_ns());
}
