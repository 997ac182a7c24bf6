/* What the servers in C share: reading numbers, patching frames, listening. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, WINDOW_UPDATE = 8, CONTINUATION = 9 };
enum { ACK = 1, END_STREAM = 1, END_HEADERS = 4, PADDED = 8, PRIORITY = 0x20, FRAME = 9, PREFACE = 24 };

static uint32_t be32(const unsigned char *p) { return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3]; }

/* Write the stream's id, 4 bytes, into each of these frames. */
static void patch(unsigned char *p, uint32_t size, const unsigned char *sid) {
    for (uint32_t at = 0; at + FRAME <= size; at += FRAME + (be32(p + at) >> 8)) memcpy(p + at + 5, sid, 4);
}

/* Write a WINDOW_UPDATE of the connection; return its size. */
static size_t window_update(unsigned char *p, uint32_t more) {
    static const unsigned char head[FRAME] = {0, 0, 4, WINDOW_UPDATE};
    more = htonl(more);
    memcpy(p, head, FRAME);
    memcpy(p + FRAME, &more, 4);
    return FRAME + 4;
}

/* Listen on a free port of 127.0.0.1 and print it; return the socket, -1 where that fails. */
static int listen_at_any(void) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof where;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) || listen(listener, 128) ||
        getsockname(listener, (struct sockaddr *)&where, &length))
        return -1;
    printf("%d\n", ntohs(where.sin_port));
    fflush(stdout);
    return listener;
}

/* Take a connection whose writes are sent at once; return its socket. */
static int accept_at_once(int listener) {
    int one = 1, fd = accept(listener, NULL, NULL);
    if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}
