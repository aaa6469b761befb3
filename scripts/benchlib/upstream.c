/* A fake Azure OpenAI for benchmarks: one process, one thread, epoll.
 *
 *     upstream            prints the port it listens on, on loopback, and serves until it is killed
 *
 * POST /control?answer_bytes=N&events=N&interval_us=N says what later answers are like:
 *
 *   plain    a chat completion of `answer_bytes`
 *   stream   Azure's two events that say nothing, then `events` deltas with `interval_us` between
 *            them (the first at once), the end, the usage if the request asked for it, [DONE]
 *
 * A request is one for a stream if its body has "stream": true. Each delta's text begins with
 * @NANOSECONDS@ of CLOCK_MONOTONIC as of its sending: who receives it on this machine knows how
 * long it was on its way. Each delta is a send() of its own, as from an upstream that thinks.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES 65536
#define BURST_BYTES 8192      /* the most one step of a stream sends */
#define STEPS_IN_A_ROW 64     /* of streams, before sockets are looked at again */
#define READY_AT_ONCE 512

/* Limits as large as those the benchmark gives its instances: a gateway may believe them. */
#define AZURE_HEADERS \
    "x-ratelimit-limit-requests: 100000000\r\n" \
    "x-ratelimit-limit-tokens: 1000000000\r\n" \
    "x-ratelimit-remaining-requests: 99999999\r\n" \
    "x-ratelimit-remaining-tokens: 999999000\r\n" \
    "apim-request-id: 7d3f8a52-93c1-4f4e-8a40-0c6a5de1b7f9\r\n" \
    "x-request-id: c1b0a5d4-2b53-4b0c-9d43-6f0fbb1e4a27\r\n" \
    "strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n" \
    "x-content-type-options: nosniff\r\n" \
    "x-ms-region: Sweden Central\r\n" \
    "x-ms-rai-invoked: true\r\n" \
    "x-ms-deployment-name: gpt-4o\r\n" \
    "azureml-model-session: d042-20250610\r\n" \
    "Date: Thu, 12 Jun 2025 09:00:00 GMT\r\n"

#define FILTER "{\"hate\":{\"filtered\":false,\"severity\":\"safe\"}," \
    "\"self_harm\":{\"filtered\":false,\"severity\":\"safe\"}," \
    "\"sexual\":{\"filtered\":false,\"severity\":\"safe\"}," \
    "\"violence\":{\"filtered\":false,\"severity\":\"safe\"}}"
#define OF_CHUNK "\"created\":1749718800,\"id\":\"chatcmpl-bench\",\"model\":\"gpt-4o-2024-11-20\"," \
    "\"object\":\"chat.completion.chunk\",\"system_fingerprint\":\"fp_bench\""
#define USAGE "\"usage\":{\"completion_tokens\":%d," \
    "\"completion_tokens_details\":{\"reasoning_tokens\":0},\"prompt_tokens\":200," \
    "\"prompt_tokens_details\":{\"cached_tokens\":0},\"total_tokens\":%d}"

struct connection {
    int fd;
    char *in;                 /* what came and is not answered yet */
    size_t in_bytes, in_room;
    size_t request_bytes;     /* of the request at its beginning; 0: its head is not complete */
    size_t head_bytes;
    const char *out;          /* what is still to be sent */
    size_t out_bytes;
    bool waits_for_room;      /* in the socket */
    bool answering, streaming, wants_usage;
    int next_delta;
    int64_t due;
    struct connection *before, *after;  /* in the queue of streams, by `due` */
    bool queued;
    char burst[BURST_BYTES];
};

static struct { long answer_bytes, events, interval_us; } plan = {1000, 100, 20000};
static char *answer;          /* head and body of every plain answer */
static size_t answer_size;
static int epoll, timer;
static struct connection *first, *last;

static void fail(const char *what) { perror(what); exit(1); }

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void unqueue(struct connection *c) {
    if (!c->queued) return;
    if (c->before) c->before->after = c->after; else first = c->after;
    if (c->after) c->after->before = c->before; else last = c->before;
    c->queued = false;
}

/* All streams have the same interval, so the place is nearly always at the end. */
static void queue(struct connection *c) {
    struct connection *ahead = last;
    while (ahead && ahead->due > c->due) ahead = ahead->before;
    c->before = ahead;
    c->after = ahead ? ahead->after : first;
    if (ahead) ahead->after = c; else first = c;
    if (c->after) c->after->before = c; else last = c;
    c->queued = true;
}

static void make_answer(void) {
    static const char before[] = "{\"choices\":[{\"content_filter_results\":" FILTER
        ",\"finish_reason\":\"stop\",\"index\":0,\"logprobs\":null,\"message\":{\"refusal\":null,"
        "\"role\":\"assistant\",\"content\":\"";
    static const char filler[] = "the answer goes on ";
    char after[1024];
    int after_bytes = snprintf(after, sizeof after,
        "\"}}],\"created\":1749718800,\"id\":\"chatcmpl-bench\",\"model\":\"gpt-4o-2024-11-20\","
        "\"object\":\"chat.completion\",\"system_fingerprint\":\"fp_bench\"," USAGE "}", 100, 300);
    long text = plan.answer_bytes - (long)sizeof before + 1 - after_bytes;
    if (text < 1) text = 1;
    size_t body = sizeof before - 1 + text + after_bytes;
    free(answer);
    answer = malloc(body + 2048);
    if (!answer) fail("malloc");
    char *at = answer + sprintf(answer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        AZURE_HEADERS "Content-Length: %zu\r\n\r\n", body);
    at = mempcpy(at, before, sizeof before - 1);
    for (long i = 0; i < text; i++) *at++ = filler[i % (sizeof filler - 1)];
    at = mempcpy(at, after, after_bytes);
    answer_size = at - answer;
}

static void close_connection(struct connection *c) {
    unqueue(c);
    close(c->fd);
    free(c->in);
    free(c);
}

static void wait_for_room(struct connection *c, bool waits) {
    if (c->waits_for_room == waits) return;
    c->waits_for_room = waits;
    struct epoll_event event = {EPOLLIN | (waits ? EPOLLOUT : 0), {.ptr = c}};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* False if the peer has gone. */
static bool send_out(struct connection *c) {
    while (c->out_bytes) {
        ssize_t sent = send(c->fd, c->out, c->out_bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) {
            if (errno != EAGAIN) return false;
            wait_for_room(c, true);
            return true;
        }
        c->out += sent;
        c->out_bytes -= sent;
    }
    wait_for_room(c, false);
    return true;
}

static char *put_event(char *at, const char *event, int bytes) {
    return at + sprintf(at, "%x\r\n%.*s\r\n", bytes, bytes, event);
}

static char *put_delta(char *at) {
    char event[1024];
    return put_event(at, event, snprintf(event, sizeof event,
        "data: {\"choices\":[{\"content_filter_results\":" FILTER ",\"delta\":{\"content\":"
        "\"@%lld@ word\"},\"finish_reason\":null,\"index\":0,\"logprobs\":null}]," OF_CHUNK "}\n\n",
        (long long)now_ns()));
}

static char *put_beginning(char *at) {
    static const char filtered[] = "data: {\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\","
        "\"object\":\"\",\"prompt_filter_results\":[{\"prompt_index\":0,"
        "\"content_filter_results\":" FILTER "}]}\n\n";
    static const char role[] = "data: {\"choices\":[{\"content_filter_results\":{},\"delta\":{"
        "\"content\":\"\",\"refusal\":null,\"role\":\"assistant\"},\"finish_reason\":null,"
        "\"index\":0,\"logprobs\":null}]," OF_CHUNK "}\n\n";
    at = stpcpy(at, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        AZURE_HEADERS "Transfer-Encoding: chunked\r\n\r\n");
    at = put_event(at, filtered, sizeof filtered - 1);
    return put_event(at, role, sizeof role - 1);
}

static char *put_end(char *at, bool wants_usage) {
    static const char finished[] = "data: {\"choices\":[{\"content_filter_results\":{},"
        "\"delta\":{},\"finish_reason\":\"stop\",\"index\":0,\"logprobs\":null}]," OF_CHUNK "}\n\n";
    char event[1024];
    at = put_event(at, finished, sizeof finished - 1);
    if (wants_usage)
        at = put_event(at, event, snprintf(event, sizeof event,
            "data: {\"choices\":[]," OF_CHUNK "," USAGE "}\n\n",
            (int)plan.events, (int)plan.events + 200));
    at = put_event(at, "data: [DONE]\n\n", 14);
    return stpcpy(at, "0\r\n\r\n");
}

/* Sends the stream's next delta, with what surrounds the first and the last one. False if the
 * peer has gone. */
static bool step(struct connection *c) {
    char *end = c->burst;
    if (c->next_delta == 0) end = put_beginning(end);
    end = put_delta(end);
    if (++c->next_delta >= plan.events) {
        end = put_end(end, c->wants_usage);
        c->streaming = false;
    }
    c->out = c->burst;
    c->out_bytes = end - c->burst;
    return send_out(c);
}

static bool body_has(struct connection *c, const char *one, const char *other) {
    const char *body = c->in + c->head_bytes;
    size_t bytes = c->request_bytes - c->head_bytes;
    return memmem(body, bytes, one, strlen(one)) || memmem(body, bytes, other, strlen(other));
}

static void say(struct connection *c, const char *status) {
    c->out_bytes = sprintf(c->burst, "HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\n{}", status);
    c->out = c->burst;
}

static void control(struct connection *c) {
    struct { const char *name; long *value; } known[] = {{"answer_bytes=", &plan.answer_bytes},
        {"events=", &plan.events}, {"interval_us=", &plan.interval_us}};
    char *line_end = memchr(c->in, '\r', c->head_bytes);
    *line_end = 0;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char *found = strstr(c->in, known[i].name);
        if (found) *known[i].value = atol(found + strlen(known[i].name));
    }
    make_answer();
    say(c, "200 OK");
}

/* Begins the answer to the request that is complete. */
static bool begin(struct connection *c) {
    static const char posts_control[] = "POST /control";
    c->answering = true;
    if (!memcmp(c->in, posts_control, sizeof posts_control - 1)) {
        control(c);
    } else if (memcmp(c->in, "POST ", 5)) {
        say(c, "404 Not Found");
    } else if (body_has(c, "\"stream\":true", "\"stream\": true")) {
        c->wants_usage = body_has(c, "\"include_usage\":true", "\"include_usage\": true");
        c->streaming = true;
        c->next_delta = 0;
        c->due = now_ns();
        return step(c);
    } else {
        c->out = answer;
        c->out_bytes = answer_size;
    }
    return send_out(c);
}

/* After something was sent: the next delta has its time, or the answer is at its end. */
static void go_on(struct connection *c) {
    if (c->out_bytes || !c->answering) return;
    if (c->streaming) {
        if (!c->queued) {
            c->due = plan.interval_us ? c->due + plan.interval_us * 1000 : now_ns();
            queue(c);
        }
        return;
    }
    c->in_bytes -= c->request_bytes;
    memmove(c->in, c->in + c->request_bytes, c->in_bytes);
    c->request_bytes = c->head_bytes = 0;
    c->answering = false;
}

static void look_for_head(struct connection *c) {
    char *end = memmem(c->in, c->in_bytes, "\r\n\r\n", 4);
    if (!end) return;
    size_t length = 0;
    for (char *line = c->in; line && line < end; line = memchr(line, '\n', end - line)) {
        if (*line == '\n') line++;
        if (!strncasecmp(line, "content-length:", 15)) length = strtoul(line + 15, NULL, 10);
    }
    c->head_bytes = end + 4 - c->in;
    c->request_bytes = c->head_bytes + length;
}

/* False if the peer has gone. */
static bool receive(struct connection *c) {
    if (c->in_room - c->in_bytes < READ_BYTES) {
        c->in_room = 2 * c->in_room + READ_BYTES;
        c->in = realloc(c->in, c->in_room + 1);
        if (!c->in) fail("realloc");
    }
    ssize_t came = recv(c->fd, c->in + c->in_bytes, c->in_room - c->in_bytes, 0);
    if (came < 0) return errno == EAGAIN || errno == EINTR;
    c->in_bytes += came;
    c->in[c->in_bytes] = 0;
    return came > 0;
}

static void serve(struct connection *c, uint32_t ready) {
    if (ready & EPOLLOUT) {
        if (!send_out(c)) { close_connection(c); return; }
        go_on(c);
    }
    if (ready & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        if (!receive(c)) { close_connection(c); return; }
    }
    while (!c->answering && c->in_bytes) {
        if (!c->request_bytes) look_for_head(c);
        if (!c->request_bytes || c->in_bytes < c->request_bytes) return;
        if (!begin(c)) { close_connection(c); return; }
        go_on(c);
    }
}

static void step_streams(void) {
    int64_t now = now_ns();
    for (int steps = 0; first && first->due <= now && steps < STEPS_IN_A_ROW; steps++) {
        struct connection *c = first;
        unqueue(c);
        if (!step(c)) { close_connection(c); continue; }
        go_on(c);
    }
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct connection *c = calloc(1, sizeof *c);
        if (!c) fail("calloc");
        c->fd = fd;
        struct epoll_event event = {EPOLLIN, {.ptr = c}};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on_loopback(void) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (void *)&address, size) || listen(listener, 4096)) fail("listen");
    getsockname(listener, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

/* Wakes epoll when the first stream is due; at once if it is already. */
static int wait_ms(void) {
    if (!first) return -1;
    if (first->due <= now_ns()) return 0;
    struct itimerspec at = {{0, 0}, {first->due / 1000000000LL, first->due % 1000000000LL}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
    return -1;
}

int main(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    make_answer();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int listener = listen_on_loopback();
    struct epoll_event accepts = {EPOLLIN, {.ptr = &listener}}, ticks = {EPOLLIN, {.ptr = &timer}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &accepts);
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &ticks);
    struct epoll_event ready[READY_AT_ONCE];
    for (;;) {
        int count = epoll_wait(epoll, ready, READY_AT_ONCE, wait_ms());
        for (int i = 0; i < count; i++) {
            uint64_t expirations;
            if (ready[i].data.ptr == &listener) accept_all(listener);
            else if (ready[i].data.ptr == &timer) (void)!read(timer, &expirations, 8);
            else serve(ready[i].data.ptr, ready[i].events);
        }
        step_streams();
    }
}
