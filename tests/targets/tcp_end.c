/* Target: one end of a TCP connection; the other one is another process of this program. Bytes are numbered,
 * so that one that is lost, doubled or another one shows.
 *
 *     tcp_end HOST
 *
 * It does what the lines of its standard input say, and answers each with a line, `ok` if there is nothing
 * else to be said:
 *
 *     up, down            its network namespace can send to itself, or not
 *     set NAME VALUE      a setting in /proc/sys/net/ipv4
 *     listen              waits for connections at HOST; answers with the port
 *     connect PORT        connects
 *     accept              takes a connection
 *     send COUNT          sends so many bytes
 *     deliver COUNT       the same, and waits until the other end has got them
 *     fill                sends as many as there is room for; answers how many
 *     receive COUNT       receives so many
 *     nothing             makes sure that there is nothing to be received
 *     finish              has sent all
 *     end                 makes sure that the other one has
 *     reset               makes sure that the connection has been reset, all having been received
 *     poke                sends something, though the connection has been lost; answers `reset`
 *     close               has nothing more to do with it
 *     shield              lets the kernel drop what would reset the connection
 *     relay               answers `begins`, then sends and receives as fast as it can; when it is told `finish`
 *                         it sends no more, and receives what there is; answers `ok`, or `reset`
 *     quit
 *
 * It reads through a duplicate of its descriptor, when an epoll set says so. */

#include "holding.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { SEED = 7, MOST = 1 << 16 };

static int listening = -1, end = -1, copy = -1, set = -1;
static unsigned long sent, received;
static unsigned char bytes[MOST];
static struct sockaddr_storage address;
static socklen_t length;

static int set_address(const char *host, int port)
{
    struct sockaddr_in *old = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *new = (struct sockaddr_in6 *)&address;
    memset(&address, 0, sizeof address);
    if (inet_pton(AF_INET, host, &old->sin_addr) == 1) {
        old->sin_family = AF_INET;
        old->sin_port = htons(port);
        length = sizeof *old;
        return 1;
    }
    new->sin6_family = AF_INET6;
    new->sin6_port = htons(port);
    length = sizeof *new;
    return inet_pton(AF_INET6, host, &new->sin6_addr) == 1;
}

static int set_loopback(int flags)
{
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = flags};
    int any = socket(AF_INET, SOCK_DGRAM, 0);
    DO(ioctl(any, SIOCSIFFLAGS, &loopback));
    DO(close(any));
    return 1;
}

static int set_to(const char *name, const char *value)
{
    char path[128];
    snprintf(path, sizeof path, "/proc/sys/net/ipv4/%s", name);
    int file = open(path, O_WRONLY);
    DO(file);
    EXPECT(strlen(value), write(file, value, strlen(value)));
    DO(close(file));
    return 1;
}

static int listen_at(void)
{
    DO(listening = socket(address.ss_family, SOCK_STREAM, 0));
    DO(bind(listening, (struct sockaddr *)&address, length));
    DO(listen(listening, 5));
    DO(getsockname(listening, (struct sockaddr *)&address, &length));
    printf("%d\n", ntohs(((struct sockaddr_in *)&address)->sin_port));
    return 2;
}

static int watch(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = SEED};
    DO(copy = dup(end));
    DO(set = epoll_create1(0));
    DO(epoll_ctl(set, EPOLL_CTL_ADD, end, &event));
    return 1;
}

static int send_some(unsigned long count)
{
    while (count > 0) {
        size_t piece = count < MOST ? count : MOST;
        fill(bytes, piece, sent + SEED);
        ssize_t done = send(end, bytes, piece, MSG_NOSIGNAL);
        DO(done);
        count -= done;
        sent += done;
    }
    return 1;
}

static int send_all(void)
{
    unsigned long before = sent;
    ssize_t done;
    do {
        fill(bytes, MOST, sent + SEED);
        done = send(end, bytes, MOST, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += done > 0 ? done : 0;
    } while (done > 0);
    FAILS(EAGAIN, send(end, bytes, 1, MSG_DONTWAIT | MSG_NOSIGNAL));
    printf("%lu\n", sent - before);
    return 2;
}

static int receive(unsigned long count)
{
    while (count > 0) {
        struct epoll_event event;
        EXPECT(1, epoll_wait(set, &event, 1, -1));
        EXPECT(SEED, event.data.u64);
        ssize_t done = recv(copy, bytes, count < MOST ? count : MOST, 0);
        if (done <= 0) {
            printf("FAIL: %lu are missing: %s\n", count, done ? strerror(errno) : "the end");
            return 0;
        }
        EXPECT(1, is_filled(bytes, done, received + SEED));
        count -= done;
        received += done;
    }
    return 1;
}

static int has_ended(void)
{
    EXPECT(0, recv(copy, bytes, 1, 0));
    return 1;
}

static int is_reset(void)
{
    FAILS(ECONNRESET, recv(copy, bytes, 1, 0));
    return 1;
}

/* Sends until the other end has answered that there is no connection. */
static int poke(void)
{
    struct pollfd polled = {.fd = end};
    send(end, bytes, 1, MSG_NOSIGNAL);
    DO(poll(&polled, 1, -1));
    puts(polled.revents & POLLERR || send(end, bytes, 1, MSG_NOSIGNAL) < 0 ? "reset" : "FAIL");
    return 2;
}

/* A packet filter sees a segment from its header on. These are structures of linux/filter.h, which musl does
 * not have. */
static int shield(void)
{
    enum { FLAGS = 13, RESET = 4, LOAD_BYTE = 0x30, JUMP_IF_SET = 0x45, RETURN = 6 };
    struct { unsigned short code; unsigned char yes, no; unsigned value; } lines[] = {
        {LOAD_BYTE, 0, 0, FLAGS},
        {JUMP_IF_SET, 0, 1, RESET},
        {RETURN, 0, 0, 0},
        {RETURN, 0, 0, -1},
    };
    struct { unsigned short count; void *lines; } program = {4, lines};
    DO(setsockopt(end, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    return 1;
}

static int deliver(unsigned long count)
{
    int unacknowledged;
    if (!send_some(count))
        return 0;
    do
        DO(ioctl(end, TIOCOUTQ, &unacknowledged));
    while (unacknowledged > 0);
    return 1;
}

static int relaying[2]; /* whether it sends, and receives */

/* Returns why the relay has ended, if it has. */
static const char *receive_piece(void)
{
    ssize_t done = recv(copy, bytes, 1 + received * 17 % 7000, MSG_DONTWAIT);
    if (done < 0)
        return errno == ECONNRESET ? "reset" : "FAIL: recv";
    if (!is_filled(bytes, done, received + SEED))
        return "FAIL: other bytes";
    relaying[1] = done > 0;
    received += done;
    return NULL;
}

static const char *send_piece(void)
{
    size_t piece = 1 + sent * 31 % 5000;
    fill(bytes, piece, sent + SEED);
    ssize_t done = send(end, bytes, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done < 0 && errno != EAGAIN)
        return errno == ECONNRESET || errno == EPIPE ? "reset" : "FAIL: send";
    sent += done > 0 ? done : 0;
    return NULL;
}

/* Pieces of any length in both directions at once. */
static int relay(void)
{
    const char *why = NULL;
    char line[16];
    relaying[0] = relaying[1] = 1;
    puts("begins");
    while (relaying[0] || relaying[1]) {
        short events = (relaying[0] ? POLLOUT : 0) | (relaying[1] ? POLLIN : 0);
        struct pollfd polled[] = {{end, events, 0}, {relaying[0] ? 0 : -1, POLLIN, 0}};
        DO(poll(polled, 2, -1));
        if (polled[0].revents & POLLIN)
            why = receive_piece();
        if (!why && polled[0].revents & POLLOUT)
            why = send_piece();
        if (why) {
            puts(why);
            return 2;
        }
        if (polled[1].revents) {
            DO(fgets(line, sizeof line, stdin) ? 0 : -1);
            DO(shutdown(end, SHUT_WR));
            relaying[0] = 0;
        }
    }
    return 1;
}

/* Whether it went well; 2 if the answer has been given. */
static int obey(const char *line)
{
    char name[64], value[64];
    unsigned long number = 0;
    sscanf(line, "%*s %lu", &number);
#define IS(command) (strncmp(line, command, strlen(command)) == 0)
    if (IS("up"))
        return set_loopback(IFF_UP);
    if (IS("down"))
        return set_loopback(0);
    if (sscanf(line, "set %63s %63[^\n]", name, value) == 2)
        return set_to(name, value);
    if (IS("listen"))
        return listen_at();
    if (IS("connect")) {
        ((struct sockaddr_in *)&address)->sin_port = htons(number);
        DO(end = socket(address.ss_family, SOCK_STREAM, 0));
        DO(connect(end, (struct sockaddr *)&address, length));
        return watch();
    }
    if (IS("accept")) {
        DO(end = accept(listening, NULL, NULL));
        return watch();
    }
    if (IS("send"))
        return send_some(number);
    if (IS("deliver"))
        return deliver(number);
    if (IS("fill"))
        return send_all();
    if (IS("receive"))
        return receive(number);
    if (IS("nothing")) {
        FAILS(EAGAIN, recv(copy, bytes, 1, MSG_DONTWAIT));
        return 1;
    }
    if (IS("finish")) {
        DO(shutdown(end, SHUT_WR));
        return 1;
    }
    if (IS("end"))
        return has_ended();
    if (IS("reset"))
        return is_reset();
    if (IS("close")) {
        DO(close(end));
        DO(close(copy));
        return 1;
    }
    if (IS("poke"))
        return poke();
    if (IS("shield"))
        return shield();
    if (IS("relay"))
        return relay();
    puts("FAIL: what?");
    return 0;
}

int main(int argc, char **argv)
{
    char line[128];
    if (argc < 2 || !set_address(argv[1], 0))
        return 1;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    while (fgets(line, sizeof line, stdin) && strcmp(line, "quit\n") != 0)
        if (obey(line) == 1)
            puts("ok");
    puts("done");
    return 0;
}
