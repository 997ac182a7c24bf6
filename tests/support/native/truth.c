/* A gRPC server that takes a known time to answer, and writes down when it read and answered each request.
 *
 *     truth RECORD [OPTION VALUE]... < ANSWERS
 *
 *     --latency TIME        how long after a request was served it is answered (0)
 *     --slots N             so many requests are served at a time, the others wait in the order in which they came
 *     --service TIME        how long a slot takes for one (0): N slots serve N/TIME requests a second, and no more
 *     --stall AT:FOR        seconds after the first request that is served: nothing is served or answered for so long
 *     --refuse AT:FOR:SHARE the same: such a share of the requests read then is answered with UNAVAILABLE
 *     --seed N              of what is drawn (1)
 *     --spin US             do not sleep for the last microseconds before an answer is due (0)
 *
 * A TIME is in microseconds: `200` always, `exp:200` drawn from an exponential distribution of that mean,
 * `0=200,0.9=5000,1=2000000` drawn from quantiles, with straight lines between them.
 *
 * It listens on a free port of 127.0.0.1, which it prints first, and speaks HTTP/2 with prior knowledge. ANSWERS has the
 * frames of UNAVAILABLE and of UNIMPLEMENTED, each behind its length in 4 bytes; then for each method a byte of flags
 * (see below), its path and the frames that answer it, both behind their length. The mark in an answer, a varint of 5
 * bytes, gives way to the revision, which each write raises.
 *
 * A request whose key ends with a slash, as the prefix of a run's keys does, is none of the load: it is answered at once
 * and not written down.
 *
 * When a request can be served is computed, not waited for, so that no lateness of this process adds up: the rate of
 * the slots is exact. On SIGTERM it writes a `struct record` for each request that it served to the file RECORD.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "hpack.h"
#include "http2.h"

/* The last two: an answer to requests only that have a first field, a second one. */
enum { SERVED = 1, WRITES = 2, WITH_FIRST = 4, WITH_SECOND = 8 };
enum { UNAVAILABLE, UNIMPLEMENTED, METHODS, MOST_METHODS = 64 };
enum { MOST = 1024, IN = 1 << 18, HEAD = 4096, KEY = 40, PATH = 128, SLOTS = 4096, POINTS = 64 };
static const uint64_t MARK = 0x123456789;

/* Times are nanoseconds of the monotonic clock. */
struct record {
    uint64_t read, began, due, answered; /* 0: it was not answered */
    uint8_t method, refused;             /* of ANSWERS, from 0; whether it was answered with UNAVAILABLE */
    uint8_t size, zero[5];               /* of the key */
    char key[KEY];                       /* its first bytes */
};
static struct record *records;
static size_t record_count, record_room;

struct method {
    int flags;
    char path[PATH];
    unsigned char *frames;
    uint32_t size, data; /* bytes of DATA among them, which the client's window must hold */
};
static struct method methods[MOST_METHODS];
static int method_count;

/* A request whose message has not come as a whole. */
struct stream {
    struct stream *next;
    uint32_t id, have; /* bytes of the message's beginning */
    char path[PATH];
    unsigned char head[HEAD];
};

struct answer {
    uint64_t due;
    size_t record; /* none: -1 */
    int connection, method;
    unsigned char stream[4];
};

struct connection {
    int fd, greeted;
    size_t have;
    uint64_t taken; /* bytes of DATA that the client may send again */
    int64_t window; /* bytes of DATA that we may send */
    struct table table;
    struct stream *streams;
    unsigned char *in, *out, *block;
    size_t out_size, out_room, block_size;
    uint32_t block_stream;
    int block_ends;
    struct answer *held; /* by the window; in the order in which they are sent */
    size_t held_count, held_room;
    size_t *unsent; /* records of what is in `out` and was not given to the kernel yet */
    size_t unsent_count, unsent_room;
};
static struct connection *all[MOST];
static int count;

static struct answer *heap;
static size_t heap_size, heap_room;
static uint64_t revision = MARK, first_served;
static volatile sig_atomic_t ended;

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *room(void *of, size_t *have, size_t wanted, size_t size) {
    if (wanted <= *have) return of;
    while (*have < wanted) *have = *have ? *have * 2 : 64;
    of = realloc(of, *have * size);
    if (!of) exit(5);
    return of;
}

/* ---- what is drawn */

struct duration {
    enum { FIXED, EXPONENTIAL, QUANTILES } kind;
    double us;
    int points;
    double share[POINTS], at[POINTS];
};
static struct duration latency, service;
static uint64_t seed = 1;

static double uniform(void) { /* splitmix64; from 0 to just below 1 */
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) / 9007199254740992.0;
}

static uint64_t draw(const struct duration *d) {
    double us = d->us;
    if (d->kind == EXPONENTIAL) us = -us * log(1 - uniform());
    if (d->kind == QUANTILES) {
        double u = uniform();
        int n = 1;
        while (n < d->points - 1 && u >= d->share[n]) n++;
        double width = d->share[n] - d->share[n - 1];
        us = d->at[n - 1] + (width > 0 ? (u - d->share[n - 1]) / width : 1) * (d->at[n] - d->at[n - 1]);
    }
    return (uint64_t)(us * 1000 + 0.5);
}

static int read_duration(const char *text, struct duration *d) {
    memset(d, 0, sizeof *d);
    char *end;
    if (!strncmp(text, "exp:", 4)) {
        d->kind = EXPONENTIAL;
        d->us = strtod(text + 4, &end);
        return *end || end == text + 4 || d->us < 0;
    }
    if (!strchr(text, '=')) {
        d->us = strtod(text, &end);
        return *end || end == text || d->us < 0;
    }
    for (d->kind = QUANTILES; d->points < POINTS; text = end + 1) {
        int n = d->points++;
        d->share[n] = strtod(text, &end);
        if (*end != '=') return 1;
        d->at[n] = strtod(end + 1, &end);
        if (d->at[n] < 0 || (n && d->share[n] < d->share[n - 1])) return 1;
        if (!*end) return d->points < 2 || d->share[0] != 0 || d->share[n] != 1;
        if (*end != ',') return 1;
    }
    return 1;
}

/* ---- when a request is served and answered */

struct fault {
    uint64_t at, until; /* after the first request */
    double share;       /* of the refused; 0: a stall */
};
static struct fault faults[16];
static int fault_count, slot_count;
static uint64_t slots[SLOTS];

/* Return when what would be done at a time is done, since nothing is in a stall. */
static uint64_t after_stall(uint64_t at) {
    for (int n = 0; n < fault_count; n++)
        if (!faults[n].share && at >= first_served + faults[n].at && at < first_served + faults[n].until)
            at = first_served + faults[n].until;
    return at;
}

/* Return when work of so long ends that begins then, as stalls interrupt it. Stalls do not overlap. */
static uint64_t worked(uint64_t from, uint64_t length) {
    uint64_t to = from + length;
    for (int n = 0; n < fault_count; n++)
        if (!faults[n].share && from < first_served + faults[n].at && to > first_served + faults[n].at)
            to += faults[n].until - faults[n].at;
    return to;
}

static void plan(struct record *r) {
    r->began = r->read;
    uint64_t *slot = NULL;
    for (int n = 0; n < slot_count; n++)
        if (!slot || slots[n] < *slot) slot = slots + n;
    if (slot && *slot > r->began) r->began = *slot;
    r->began = after_stall(r->began);
    uint64_t served = worked(r->began, draw(&service));
    if (slot) *slot = served;
    r->due = after_stall(served + draw(&latency));
    for (int n = 0; n < fault_count; n++)
        if (faults[n].share && r->read >= first_served + faults[n].at && r->read < first_served + faults[n].until)
            r->refused |= uniform() < faults[n].share;
}

/* ---- what is due */

static void push(struct answer a) {
    heap = room(heap, &heap_room, heap_size + 1, sizeof *heap);
    size_t n = heap_size++;
    for (; n && heap[(n - 1) / 2].due > a.due; n = (n - 1) / 2) heap[n] = heap[(n - 1) / 2];
    heap[n] = a;
}

static struct answer pop(void) {
    struct answer top = heap[0], last = heap[--heap_size];
    size_t n = 0;
    for (size_t child; (child = 2 * n + 1) < heap_size; n = child) {
        if (child + 1 < heap_size && heap[child + 1].due < heap[child].due) child++;
        if (heap[child].due >= last.due) break;
        heap[n] = heap[child];
    }
    heap[n] = last;
    return top;
}

/* ---- what is sent */

static void put(struct connection *c, const void *data, size_t size) {
    c->out = room(c->out, &c->out_room, c->out_size + size, 1);
    memcpy(c->out + c->out_size, data, size);
    c->out_size += size;
}

static void varint(unsigned char *p, uint64_t value) { /* in 5 bytes */
    for (int n = 0; n < 4; n++, value >>= 7) p[n] = (unsigned char)(value | 128);
    p[4] = (unsigned char)value;
}

/* Put an answer out, or hold it until the client's window takes it. */
static void answer(struct answer a) {
    struct connection *c = all[a.connection];
    if (c->fd < 0) return;
    struct method *m = methods + a.method;
    if (c->window < m->data) {
        c->held = room(c->held, &c->held_room, c->held_count + 1, sizeof *c->held);
        c->held[c->held_count++] = a;
        return;
    }
    c->window -= m->data;
    revision += !!(m->flags & WRITES);
    size_t at = c->out_size;
    put(c, m->frames, m->size);
    patch(c->out + at, m->size, a.stream);
    unsigned char mark[5], *found = c->out + at;
    varint(mark, MARK);
    for (; (found = memmem(found, (size_t)(c->out + c->out_size - found), mark, 5)); found += 5)
        varint(found, revision);
    if (a.record != (size_t)-1) {
        c->unsent = room(c->unsent, &c->unsent_room, c->unsent_count + 1, sizeof *c->unsent);
        c->unsent[c->unsent_count++] = a.record;
    }
}

static void end(struct connection *c) {
    close(c->fd);
    c->fd = -1;
    c->out_size = c->held_count = c->unsent_count = 0;
    shrink(&c->table, 0);
    for (struct stream *s; (s = c->streams);) c->streams = s->next, free(s);
    free(c->in), free(c->block);
}

static int flush(struct connection *c) {
    if (!c->out_size) return 0;
    uint64_t at = now();
    for (size_t n = 0; n < c->unsent_count; n++) records[c->unsent[n]].answered = at;
    c->unsent_count = 0;
    ssize_t sent = write(c->fd, c->out, c->out_size);
    if (sent < 0) return errno == EAGAIN || errno == EINTR ? 0 : -1;
    memmove(c->out, c->out + sent, c->out_size - (size_t)sent);
    c->out_size -= (size_t)sent;
    return 0;
}

/* ---- what is read */

/* Find a field of bytes in a message of protobuf; what was cut off is not there. 0: there is none. */
static int field_of(const unsigned char *p, size_t size, unsigned number, const unsigned char **value, size_t *length) {
    const unsigned char *end = p + size;
    while (p < end) {
        uint64_t tag = 0, of = 0;
        for (int shift = 0; p < end && shift < 63; shift += 7) {
            tag |= (uint64_t)(*p & 127) << shift;
            if (!(*p++ & 128)) break;
        }
        for (int shift = 0; p < end && shift < 63; shift += 7) {
            of |= (uint64_t)(*p & 127) << shift;
            if (!(*p++ & 128)) break;
        }
        if ((tag & 7) == 0) continue;
        if ((tag & 7) != 2) return 0;
        if (tag >> 3 == number) {
            *value = p;
            *length = of < (size_t)(end - p) ? of : (size_t)(end - p);
            return 1;
        }
        if (of > (size_t)(end - p)) return 0;
        p += of;
    }
    return 0;
}

/* Find the key that a request is about; its length, 0 where there is none. */
static size_t find_key(const char *path, const unsigned char *message, size_t size, const unsigned char **key) {
    const unsigned char *compared;
    size_t length, of;
    if (!field_of(message, size, 1, key, &length)) return 0;
    /* A transaction's first field is a comparison, whose third one is the key. */
    if (!strstr(path, "/Txn")) return length;
    if (!field_of(*key, length, 3, &compared, &of)) return 0;
    *key = compared;
    return of;
}

/* Take a request that has come as a whole. */
static void ask(int connection, struct stream *s, uint64_t at) {
    struct answer a = {.due = at, .record = (size_t)-1, .connection = connection, .method = UNIMPLEMENTED};
    uint32_t id = htonl(s->id);
    memcpy(a.stream, &id, 4);
    const unsigned char *message = s->have > 5 ? s->head + 5 : s->head, *value, *key;
    size_t size = s->have > 5 ? s->have - 5 : 0, length;
    for (int n = METHODS; n < method_count; n++)
        if (!strcmp(methods[n].path, s->path) &&
            (!(methods[n].flags & WITH_FIRST) || field_of(message, size, 1, &value, &length)) &&
            (!(methods[n].flags & WITH_SECOND) || field_of(message, size, 2, &value, &length))) {
            a.method = n;
            break;
        }
    length = find_key(s->path, message, size, &key);
    if (methods[a.method].flags & SERVED && length && key[length - 1] != '/') {
        if (!first_served) first_served = at;
        records = room(records, &record_room, record_count + 1, sizeof *records);
        a.record = record_count++;
        struct record *r = records + a.record;
        *r = (struct record){.read = at, .method = (uint8_t)(a.method - METHODS)};
        r->size = (uint8_t)(length < KEY ? length : KEY);
        memcpy(r->key, key, r->size);
        plan(r);
        a.due = r->due;
        if (r->refused) a.method = UNAVAILABLE;
    }
    push(a);
}

static void forget(struct stream **at) {
    struct stream *s = *at;
    *at = s->next;
    free(s);
}

static int on_headers(int connection, uint64_t at) {
    struct connection *c = all[connection];
    struct stream *s = malloc(sizeof *s);
    s->id = c->block_stream;
    s->have = 0;
    s->next = c->streams;
    c->streams = s;
    if (find_path(&c->table, c->block, c->block_size, s->path, PATH)) return -1;
    int known = 0;
    for (int n = METHODS; n < method_count; n++) known |= !strcmp(methods[n].path, s->path);
    if (c->block_ends || !known) {
        ask(connection, s, at);
        forget(&c->streams);
    }
    return 0;
}

static int on_frame(int connection, const unsigned char *p, uint32_t size, uint64_t at) {
    static const unsigned char ack[] = {0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0};
    struct connection *c = all[connection];
    int kind = p[3], flags = p[4];
    uint32_t id = be32(p + 5) & 0x7fffffff, padding = 0;
    const unsigned char *payload = p + FRAME;
    if (kind == DATA) c->taken += size;
    if ((kind == DATA || kind == HEADERS) && flags & PADDED) {
        if (!size || (padding = *payload) >= size) return -1;
        payload++, size -= 1 + padding;
    }
    if (kind == SETTINGS && !(flags & ACK)) put(c, ack, FRAME);
    if (kind == PING && !(flags & ACK) && size == 8) {
        unsigned char pong[FRAME + 8] = {0, 0, 8, PING, ACK};
        memcpy(pong + FRAME, payload, 8);
        put(c, pong, sizeof pong);
    }
    if (kind == WINDOW_UPDATE && !id && size == 4) {
        c->window += be32(payload) & 0x7fffffff;
        struct answer *held = c->held;
        size_t some = c->held_count;
        c->held = NULL, c->held_count = c->held_room = 0;
        for (size_t n = 0; n < some; n++) answer(held[n]); /* those that it does not take are held again */
        free(held);
    }
    if (kind == HEADERS) {
        uint32_t skip = flags & PRIORITY ? 5 : 0;
        if (size < skip) return -1;
        payload += skip, size -= skip;
        c->block_size = 0, c->block_stream = id, c->block_ends = flags & END_STREAM;
    }
    if (kind == HEADERS || kind == CONTINUATION) {
        if (c->block_size + size > TEXT || id != c->block_stream) return -1;
        memcpy(c->block + c->block_size, payload, size);
        c->block_size += size;
        return flags & END_HEADERS ? on_headers(connection, at) : 0;
    }
    if (kind != DATA && kind != RST_STREAM) return 0;
    for (struct stream **s = &c->streams; *s; s = &(*s)->next)
        if ((*s)->id == id) {
            if (kind == DATA) {
                uint32_t some = HEAD - (*s)->have < size ? HEAD - (*s)->have : size;
                memcpy((*s)->head + (*s)->have, payload, some);
                (*s)->have += some;
                if (!(flags & END_STREAM)) break;
                ask(connection, *s, at);
            }
            forget(s);
            break;
        }
    return 0;
}

static int serve(int connection) {
    /* The windows of streams, and then the connection's, are as large as there are. */
    static const unsigned char settings[] = {0, 0, 6, SETTINGS, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff};
    struct connection *c = all[connection];
    ssize_t got = read(c->fd, c->in + c->have, IN - c->have);
    uint64_t at = now();
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) return -1;
    c->have += (size_t)got;
    size_t done = 0;
    unsigned char update[FRAME + 4];
    if (!c->greeted) {
        if (c->have < PREFACE) return 0;
        if (memcmp(c->in, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PREFACE)) return -1;
        done = PREFACE;
        c->greeted = 1;
        put(c, settings, sizeof settings);
        put(c, update, window_update(update, 0x3f000000));
    }
    while (c->have - done >= FRAME) {
        uint32_t size = be32(c->in + done) >> 8;
        if (size > IN - FRAME) return -1;
        if (c->have - done < FRAME + size) break;
        if (on_frame(connection, c->in + done, size, at)) return -1;
        done += FRAME + size;
    }
    if (c->taken >= 65536) {
        put(c, update, window_update(update, (uint32_t)c->taken));
        c->taken = 0;
    }
    memmove(c->in, c->in + done, c->have - done);
    c->have -= done;
    return 0;
}

/* ---- beginning and end */

static unsigned char *read_some(uint32_t *size) {
    unsigned char head[4], *data;
    if (fread(head, 1, 4, stdin) != 4) return NULL;
    *size = be32(head);
    data = malloc(*size + 1);
    if (!data || fread(data, 1, *size, stdin) != *size) return NULL;
    data[*size] = 0;
    return data;
}

static int read_answers(void) {
    for (method_count = 0; method_count < MOST_METHODS; method_count++) {
        struct method *m = methods + method_count;
        if (method_count >= METHODS) {
            uint32_t size;
            if ((m->flags = getchar()) == EOF) return 0;
            unsigned char *path = read_some(&size);
            if (!path || size >= PATH) return -1;
            memcpy(m->path, path, size + 1);
            free(path);
        }
        if (!(m->frames = read_some(&m->size))) return -1;
        for (uint32_t at = 0; at + FRAME <= m->size; at += FRAME + (be32(m->frames + at) >> 8))
            if (m->frames[at + 3] == DATA) m->data += be32(m->frames + at) >> 8;
    }
    return -1;
}

static void on_signal(int number) {
    (void)number;
    ended = 1;
}

static int option(const char *name, const char *value, uint64_t *spin) {
    double at, length, share = 0;
    if (!strcmp(name, "--latency")) return read_duration(value, &latency);
    if (!strcmp(name, "--service")) return read_duration(value, &service);
    if (!strcmp(name, "--slots")) return (slot_count = atoi(value)) < 1 || slot_count > SLOTS;
    if (!strcmp(name, "--seed")) return seed = strtoull(value, NULL, 10), 0;
    if (!strcmp(name, "--spin")) return *spin = strtoull(value, NULL, 10) * 1000, 0;
    int refuses = !strcmp(name, "--refuse");
    if ((!refuses && strcmp(name, "--stall")) || fault_count == 16) return 1;
    if (sscanf(value, "%lf:%lf:%lf", &at, &length, &share) != 2 + refuses || (refuses && share <= 0)) return 1;
    faults[fault_count++] = (struct fault){(uint64_t)(at * 1e9), (uint64_t)((at + length) * 1e9), share};
    return 0;
}

int main(int argc, char **argv) {
    uint64_t spin = 0;
    for (int n = 2; n < argc; n += 2)
        if (n + 1 == argc || option(argv[n], argv[n + 1], &spin)) return fprintf(stderr, "bad: %s\n", argv[n]), 2;
    FILE *record = argc > 1 ? fopen(argv[1], "w") : NULL;
    sigset_t none, term;
    sigemptyset(&none);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL); /* it comes while we wait, and at no other time, from the port on */
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* nobody else ends it where the test is killed */
    int listener = listen_at_any();
    if (!record || listener < 0) return 4;
    if (read_answers()) return 2;
    while (!ended) {
        uint64_t at = now();
        while (heap_size && heap[0].due <= at) answer(pop());
        struct pollfd polled[MOST + 1];
        for (int n = 0; n < count; n++) {
            if (all[n]->fd >= 0 && flush(all[n])) end(all[n]);
            polled[n] = (struct pollfd){all[n]->fd, all[n]->out_size ? POLLIN | POLLOUT : POLLIN, 0};
        }
        polled[count] = (struct pollfd){count < MOST ? listener : -1, POLLIN, 0};
        at = now();
        uint64_t left = !heap_size || heap[0].due <= at + spin ? 0 : heap[0].due - at - spin;
        struct timespec wait = {(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
        if (ppoll(polled, (nfds_t)count + 1, heap_size ? &wait : NULL, &none) < 0) continue;
        for (int n = 0; n < count; n++)
            if (polled[n].revents & (POLLIN | POLLERR | POLLHUP) && serve(n)) end(all[n]);
        if (polled[count].revents) {
            struct connection *c = calloc(1, sizeof *c);
            c->fd = accept_at_once(listener);
            if (c->fd < 0) {
                free(c);
                continue;
            }
            fcntl(c->fd, F_SETFL, O_NONBLOCK);
            c->window = 65535;
            c->table.most = TABLE;
            c->in = malloc(IN), c->block = malloc(TEXT);
            all[count++] = c;
        }
    }
    fwrite(records, sizeof *records, record_count, record);
    return fclose(record) ? 6 : 0;
}
