/* A gRPC server that is no limit: it answers each request with the same bytes, patched with the stream's id.
 *
 *     replay CONNECTIONS < ANSWERS
 *
 * It listens on a free port of 127.0.0.1, which it prints. ANSWERS are frames for the first request of a connection,
 * for the second, and for all others, each behind its length in 4 bytes. Each request is
 * known by the DATA frame that ends its stream (RFC 9113). It ends when CONNECTIONS connections have come and gone.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "http2.h"

enum { MOST = 64, IN = 1 << 18, OUT = 1 << 22 };
static unsigned char answers[3][4096];
static uint32_t sizes[3];

struct connection {
    int fd, greeted;
    uint64_t requests, taken;
    size_t have;
    unsigned char in[IN];
};
static struct connection *all[MOST];
static unsigned char out[OUT];

static int put(int fd, const unsigned char *data, size_t size) {
    while (size) {
        ssize_t sent = write(fd, data, size);
        if (sent <= 0) return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static int serve(struct connection *c) {
    static const unsigned char settings[] = {0, 0, 0, SETTINGS, 0, 0, 0, 0, 0};
    static const unsigned char ack[] = {0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0};
    ssize_t got = read(c->fd, c->in + c->have, IN - c->have);
    if (got <= 0) return -1;
    c->have += (size_t)got;
    size_t at = 0, put_out = 0;
    if (!c->greeted) {
        if (c->have < PREFACE) return 0;
        at = PREFACE;
        c->greeted = 1;
        memcpy(out, settings, FRAME);
        put_out = FRAME + window_update(out + FRAME, 0x3f000000);
    }
    while (c->have - at >= FRAME) {
        const unsigned char *p = c->in + at;
        uint32_t size = be32(p) >> 8;
        if (c->have - at < FRAME + size) break;
        if (p[3] == SETTINGS && !(p[4] & ACK)) {
            memcpy(out + put_out, ack, FRAME);
            put_out += FRAME;
        }
        if (p[3] == DATA) c->taken += size;
        if (p[3] == DATA && p[4] & END_STREAM) {
            int which = c->requests < 2 ? (int)c->requests : 2;
            c->requests++;
            memcpy(out + put_out, answers[which], sizes[which]);
            patch(out + put_out, sizes[which], p + 5);
            put_out += sizes[which];
        }
        if (c->taken >= 16384) {
            put_out += window_update(out + put_out, (uint32_t)c->taken);
            c->taken = 0;
        }
        at += FRAME + size;
        if (put_out > OUT - 65536) {
            if (put(c->fd, out, put_out)) return -1;
            put_out = 0;
        }
    }
    memmove(c->in, c->in + at, c->have - at);
    c->have -= at;
    return put(c->fd, out, put_out);
}

int main(int argc, char **argv) {
    int connections = argc > 1 ? atoi(argv[1]) : 1, gone = 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* nobody else ends it where its client is killed first */
    for (int n = 0; n < 3; n++) {
        unsigned char head[4];
        if (fread(head, 1, 4, stdin) != 4 || (sizes[n] = be32(head)) > sizeof answers[n] ||
            fread(answers[n], 1, sizes[n], stdin) != sizes[n])
            return 2;
    }
    int listener = listen_at_any();
    if (listener < 0) return 4;
    int count = 0;
    while (gone < connections) {
        struct pollfd polled[MOST + 1];
        for (int n = 0; n < count; n++) polled[n] = (struct pollfd){all[n]->fd, POLLIN, 0};
        polled[count] = (struct pollfd){count < MOST ? listener : -1, POLLIN, 0};
        if (poll(polled, (nfds_t)count + 1, -1) < 0) return 4;
        int before = count;
        if (polled[count].revents) {
            struct connection *c = calloc(1, sizeof *c);
            c->fd = accept_at_once(listener);
            all[count++] = c;
        }
        for (int n = before - 1; n >= 0; n--)
            if (polled[n].revents && serve(all[n])) {
                close(all[n]->fd);
                free(all[n]);
                all[n] = all[--count];
                gone++;
            }
    }
    return 0;
}
