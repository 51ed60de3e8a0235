/*
 * hostile_attach.c: the hostile app's classes that speak on the attach socket alone.
 */
#include "hostile_app.h"

#include <fcntl.h>

/* A message with descriptors that nobody asked for. */
static void send_with_fds(int sock, const void *data, size_t len)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {.align = {.cmsg_len = CMSG_LEN(2 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {(void *)(uintptr_t)data, len};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    int fds[2] = {0, 1};

    memcpy(CMSG_DATA(&control.align), fds, sizeof fds);
    (void)!sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void post(struct hostile *h, int sock, const void *data, size_t len)
{
    (void)!send(sock, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    h->ops++;
}

static void garble(struct hostile *h, int sock, uint8_t room[65536])
{
    struct attach_hello wish = hello();

    switch (draw(h) % 8) {
    case 0: /* short */
        post(h, sock, room, 1 + draw(h) % (sizeof wish - 1));
        break;
    case 1: /* long */
        post(h, sock, room, sizeof wish + 1 + draw(h) % 60000);
        break;
    case 2: /* of the right length and type */
        memcpy(room, &(uint32_t[]){ATTACH_HELLO, ATTACH_MAGIC}, 8);
        post(h, sock, room, sizeof wish);
        break;
    case 3: /* repeated */
        for (uint32_t i = 0; i < 20; i++)
            post(h, sock, &wish, sizeof wish);
        break;
    case 4:
        for (uint32_t i = 0; i < 20; i++)
            send_with_fds(sock, i ? room : (void *)&wish, sizeof wish);
        h->ops += 20;
        break;
    case 5: /* a token that nobody has */
        wish.resume = 1;
        wish.token[0] = (uint8_t)draw(h);
        post(h, sock, &wish, sizeof wish);
        break;
    case 6: /* out of order */
        post(h, sock, &wish, sizeof wish);
        post(h, sock, &(struct attach_plain){.type = ATTACH_ONLINE}, sizeof(struct attach_plain));
        break;
    default: /* gone at once, or silent */
        break;
    }
}

void attach_garbage(struct hostile *h)
{
    static uint8_t room[65536];
    int open[32], count = 0;

    for (uint32_t i = 0; i < sizeof room; i++)
        room[i] = (uint8_t)draw(h);
    while (now_us() < h->deadline_us) {
        int sock = connect_to(h->path);
        if (sock < 0)
            continue;
        garble(h, sock, room);
        h->ops++;
        if (draw(h) % 4 == 0 && count < 32)
            open[count++] = sock;
        else
            close(sock);
        while (count == 32 || (count > 0 && draw(h) % 8 == 0))
            close(open[--count]);
    }
}

/* Attached, and talking without end; at last something that ends the session. */
void attach_chatter(struct hostile *h)
{
    static const uint8_t garbage[40] = {1, 2, 3};
    uint8_t answer[512];

    (void)fcntl(h->sock, F_SETFL, O_NONBLOCK);
    while (now_us() < h->deadline_us) {
        struct attach_listen m = {.type = draw(h) % 2 ? ATTACH_LISTEN : ATTACH_UNLISTEN,
                                  .seq = draw(h),
                                  .port = (uint16_t)(draw(h) % 2 ? PORT + draw(h) % 100 : draw(h))};
        struct attach_plain online = {.type = ATTACH_ONLINE, .generation = h->welcome.generation};
        post(h, h->sock, &m, sizeof m);
        if (draw(h) % 4 == 0)
            post(h, h->sock, &online, sizeof online);
        if (draw(h) % 4 == 0)
            send_with_fds(h->sock, &m, sizeof m);
        if (draw(h) % 2)
            while (recv(h->sock, answer, sizeof answer, 0) > 0)
                continue;
    }
    (void)fcntl(h->sock, F_SETFL, 0);
    post(h, h->sock, garbage, sizeof garbage);
    (void)!send(h->sock, garbage, sizeof garbage, MSG_NOSIGNAL);
    while (recv(h->sock, answer, sizeof answer, 0) > 0)
        continue; /* until janusd has hung up */
}
