/* A gRPC server that is no limit: it answers each request with the same bytes, patched with the stream's id.
 *
 *     replay CONNECTIONS < ANSWERS
 *
 * It listens on a free port of 127.0.0.1, which it prints. ANSWERS are frames for the first request of a connection,
 * for the second, and for all others, each behind its length in 4 bytes. Each request is
 * known by the DATA frame that ends its stream (RFC 9113). It ends when CONNECTIONS connections have come and gone.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static uint32_t be32(const unsigned char *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

static void patch(unsigned char *p, uint32_t size, const unsigned char *sid) {
    for (uint32_t at = 0; at + 9 <= size; at += 9 + (be32(p + at) >> 8)) memcpy(p + at + 5, sid, 4);
}

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
    static const unsigned char settings[] = {0, 0, 0, 4, 0, 0, 0, 0, 0}, ack[] = {0, 0, 0, 4, 1, 0, 0, 0, 0};
    static const unsigned char window[] = {0, 0, 4, 8, 0, 0, 0, 0, 0, 0x3f, 0, 0, 0};
    ssize_t got = read(c->fd, c->in + c->have, IN - c->have);
    if (got <= 0) return -1;
    c->have += (size_t)got;
    size_t at = 0, put_out = 0;
    if (!c->greeted) {
        if (c->have < 24) return 0;
        at = 24;
        c->greeted = 1;
        memcpy(out, settings, 9);
        memcpy(out + 9, window, 13);
        put_out = 22;
    }
    while (c->have - at >= 9) {
        const unsigned char *p = c->in + at;
        uint32_t size = be32(p) >> 8;
        if (c->have - at < 9 + size) break;
        if (p[3] == 4 && !(p[4] & 1)) {
            memcpy(out + put_out, ack, 9);
            put_out += 9;
        }
        if (p[3] == 0) c->taken += size;
        if (p[3] == 0 && p[4] & 1) {
            int which = c->requests < 2 ? (int)c->requests : 2;
            c->requests++;
            memcpy(out + put_out, answers[which], sizes[which]);
            patch(out + put_out, sizes[which], p + 5);
            put_out += sizes[which];
        }
        if (c->taken >= 16384) {
            unsigned char update[13] = {0, 0, 4, 8};
            uint32_t n = htonl((uint32_t)c->taken);
            memcpy(update + 9, &n, 4);
            memcpy(out + put_out, update, 13);
            put_out += 13;
            c->taken = 0;
        }
        at += 9 + size;
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
    int connections = argc > 1 ? atoi(argv[1]) : 1, gone = 0, one = 1;
    for (int n = 0; n < 3; n++) {
        unsigned char head[4];
        if (fread(head, 1, 4, stdin) != 4 || (sizes[n] = be32(head)) > sizeof answers[n] ||
            fread(answers[n], 1, sizes[n], stdin) != sizes[n])
            return 2;
    }
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof where;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) || listen(listener, 64) ||
        getsockname(listener, (struct sockaddr *)&where, &length))
        return 4;
    printf("%d\n", ntohs(where.sin_port));
    fflush(stdout);
    int count = 0;
    while (gone < connections) {
        struct pollfd polled[MOST + 1];
        for (int n = 0; n < count; n++) polled[n] = (struct pollfd){all[n]->fd, POLLIN, 0};
        polled[count] = (struct pollfd){count < MOST ? listener : -1, POLLIN, 0};
        if (poll(polled, (nfds_t)count + 1, -1) < 0) return 4;
        int before = count;
        if (polled[count].revents) {
            struct connection *c = calloc(1, sizeof *c);
            c->fd = accept(listener, NULL, NULL);
            setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
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
