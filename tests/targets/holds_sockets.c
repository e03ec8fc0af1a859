/* Target: sockets. See holding.h. */

#include "holding.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

static unsigned round_number;
static int ends[2], others[2], fd, other;

static int option(int socket, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(socket, level, name, &value, &length) ? -1 : value;
}

static int set_option(int socket, int level, int name, int value)
{
    return setsockopt(socket, level, name, &value, sizeof value);
}

/* A message of so many bytes, or fewer, of which the first is `byte`; -1 if there is none. */
static int receive(int socket, char *byte)
{
    char bytes[64] = {0};
    int length = recv(socket, bytes, sizeof bytes, MSG_DONTWAIT);
    *byte = bytes[0];
    return length;
}

#define RECEIVES(length, first, socket)                                                       \
    do {                                                                                      \
        char byte_;                                                                           \
        EXPECT(length, receive(socket, &byte_));                                              \
        EXPECT(first, byte_);                                                                 \
    } while (0)

#define NOTHING_IN(socket)                                                                    \
    do {                                                                                      \
        char byte_;                                                                           \
        FAILS(EAGAIN, receive(socket, &byte_));                                               \
    } while (0)

/* Streams: bytes both ways, one end without waiting and closed on exec, and options. */

enum { BYTES = 100000 };
static unsigned char bytes[BYTES];

static int fill_stream(void)
{
    fill(bytes, BYTES, round_number);
    EXPECT(BYTES, write(ends[0], bytes, BYTES));
    EXPECT(5, write(ends[1], "there", 5));
    return 1;
}

static int begin_stream(void)
{
    struct timeval time = {.tv_sec = 7};
    DO(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    DO(fcntl(ends[0], F_SETFL, O_NONBLOCK));
    DO(fcntl(ends[0], F_SETFD, FD_CLOEXEC));
    DO(set_option(ends[0], SOL_SOCKET, SO_SNDBUF, 150000));
    DO(set_option(ends[1], SOL_SOCKET, SO_RCVBUF, 20000));
    DO(setsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time));
    DO(set_option(ends[1], SOL_SOCKET, SO_KEEPALIVE, 1));
    DO(set_option(ends[1], SOL_SOCKET, SO_PRIORITY, 5));
    DO(other = dup(ends[1]));
    return fill_stream();
}

static int check_stream(void)
{
    struct timeval time;
    socklen_t length = sizeof time;
    EXPECT(O_RDWR | O_NONBLOCK, fcntl(ends[0], F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    EXPECT(O_RDWR, fcntl(ends[1], F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    EXPECT(FD_CLOEXEC, fcntl(ends[0], F_GETFD));
    EXPECT(0, fcntl(ends[1], F_GETFD));
    EXPECT(300000, option(ends[0], SOL_SOCKET, SO_SNDBUF));
    EXPECT(40000, option(ends[1], SOL_SOCKET, SO_RCVBUF));
    EXPECT(1, option(ends[1], SOL_SOCKET, SO_KEEPALIVE));
    EXPECT(0, option(ends[0], SOL_SOCKET, SO_KEEPALIVE));
    EXPECT(5, option(ends[1], SOL_SOCKET, SO_PRIORITY));
    EXPECT(-1, option(ends[1], SOL_SOCKET, SO_PEEK_OFF));
    EXPECT(0, option(ends[1], SOL_SOCKET, SO_PASSCRED));
    DO(getsockopt(ends[1], SOL_SOCKET, SO_RCVTIMEO, &time, &length));
    EXPECT(7, time.tv_sec);
    RECEIVES(5, 't', ends[0]);
    NOTHING_IN(ends[0]);
    for (int done = 0; done < BYTES;) {
        int part = read(done % 2 ? ends[1] : other, bytes + done, BYTES - done);
        EXPECT(1, part > 0);
        done += part;
    }
    EXPECT(1, is_filled(bytes, BYTES, round_number));
    NOTHING_IN(ends[1]);
    round_number++;
    return fill_stream();
}

/* Messages of two kinds, both ways; the first is looked at with SO_PEEK_OFF. */

static int kind_of_messages;

static int fill_messages(void)
{
    EXPECT(3, write(ends[0], "one", 3));
    EXPECT(1, write(ends[0], "t", 1));
    EXPECT(5, write(ends[0], "three", 5));
    EXPECT(4, write(ends[1], "back", 4));
    return 1;
}

static int begin_messages(void)
{
    DO(socketpair(AF_UNIX, kind_of_messages, 0, ends));
    DO(set_option(ends[0], SOL_SOCKET, SO_PEEK_OFF, 2));
    return fill_messages();
}

static int begin_packets(void)
{
    kind_of_messages = SOCK_SEQPACKET;
    return begin_messages();
}

static int begin_datagrams(void)
{
    kind_of_messages = SOCK_DGRAM;
    return begin_messages();
}

static int check_messages(void)
{
    EXPECT(kind_of_messages, option(ends[0], SOL_SOCKET, SO_TYPE));
    EXPECT(2, option(ends[0], SOL_SOCKET, SO_PEEK_OFF));
    RECEIVES(3, 'o', ends[1]);
    RECEIVES(1, 't', ends[1]);
    RECEIVES(5, 't', ends[1]);
    NOTHING_IN(ends[1]);
    DO(set_option(ends[0], SOL_SOCKET, SO_PEEK_OFF, -1));
    RECEIVES(4, 'b', ends[0]);
    NOTHING_IN(ends[0]);
    DO(set_option(ends[0], SOL_SOCKET, SO_PEEK_OFF, 2));
    return fill_messages();
}

/* A message without bytes, and the end behind it. */

static int begin_empty(void)
{
    DO(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends));
    EXPECT(2, write(ends[0], "ab", 2));
    EXPECT(0, send(ends[0], "", 0, 0));
    EXPECT(2, write(ends[0], "cd", 2));
    return 1;
}

static int check_empty(void)
{
    /* Once a checkpoint has seen an empty message the next one does not: docs/limits.md. */
    if (round_number++ == 1) {
        RECEIVES(2, 'a', ends[1]);
        RECEIVES(0, 0, ends[1]);
        RECEIVES(2, 'c', ends[1]);
        NOTHING_IN(ends[1]);
    }
    return 1;
}

/* Descriptors on their way: a file that is open besides, and both ends of a pipe that are not; in the
 * queue of a socket that is on its way itself. Each comes with the bytes that it was sent with. */

static int send_descriptors(int socket, const char *text, int count, int first, int second)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec part = {(char *)text, strlen(text)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int passed[] = {first, second};
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(&control.header), passed, count * sizeof(int));
    return sendmsg(socket, &message, 0);
}

/* Receives at most `size` bytes and two descriptors; returns how many descriptors. */
static int receive_descriptors(int socket, char *text, int size, int *passed)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec part = {text, size - 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    struct cmsghdr *header;
    int length;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    length = recvmsg(socket, &message, MSG_DONTWAIT);
    if (length < 0)
        return -1;
    text[length] = 0;
    header = CMSG_FIRSTHDR(&message);
    if (!header)
        return 0;
    memcpy(passed, CMSG_DATA(header), header->cmsg_len - CMSG_LEN(0));
    return (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
}

static int fill_passed(void)
{
    int pipes[2], inner[2];
    DO(pipe(pipes));
    EXPECT(4, write(pipes[1], "pipe", 4));
    DO(socketpair(AF_UNIX, SOCK_DGRAM, 0, inner));
    EXPECT(5, send_descriptors(inner[0], "inner", 2, pipes[0], pipes[1]));
    EXPECT(3, write(ends[0], "abc", 3));
    EXPECT(3, send_descriptors(ends[0], "def", 1, fd, -1));
    EXPECT(3, write(ends[0], "ghi", 3));
    EXPECT(5, send_descriptors(others[0], "outer", 1, inner[1], -1));
    DO(close(pipes[0]));
    DO(close(pipes[1]));
    DO(close(inner[0]));
    DO(close(inner[1]));
    return 1;
}

static int begin_passed(void)
{
    DO(fd = open("/dev/zero", O_RDONLY));
    DO(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    DO(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, others));
    DO(other = open("/dev/null", O_RDONLY)); /* the highest number */
    return fill_passed();
}

static int check_passed(void)
{
    char text[16];
    int passed[2], inner[2];
    EXPECT(other + 1, passed[0] = dup(0)); /* nothing is left open */
    DO(close(passed[0]));
    EXPECT(0, receive_descriptors(ends[1], text, 4, passed));
    EXPECT(0, strcmp(text, "abc"));
    EXPECT(1, receive_descriptors(ends[1], text, 3, passed));
    EXPECT(0, strcmp(text, "de"));
    EXPECT(1, read(passed[0], text, 1));
    EXPECT(0, text[0]);
    DO(close(passed[0]));
    EXPECT(0, receive_descriptors(ends[1], text, 16, passed));
    EXPECT(0, strcmp(text, "fghi"));
    EXPECT(1, receive_descriptors(others[1], text, 16, inner));
    EXPECT(0, strcmp(text, "outer"));
    EXPECT(2, receive_descriptors(inner[0], text, 16, passed));
    EXPECT(0, strcmp(text, "inner"));
    EXPECT(4, read(passed[0], text, sizeof text));
    EXPECT(0, memcmp(text, "pipe", 4));
    EXPECT(1, write(passed[1], "x", 1));
    EXPECT(1, read(passed[0], text, 1));
    DO(close(passed[0]));
    DO(close(passed[1]));
    FAILS(ECONNREFUSED, send(inner[0], "x", 1, 0));
    DO(close(inner[0]));
    return fill_passed();
}

/* More descriptors on their way in one message than there may be numbers for. */

enum { CROWD = 20 };

static int begin_crowd(void)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(CROWD * sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec part = {"crowd", 5};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control};
    message.msg_controllen = sizeof control;
    control.header.cmsg_len = CMSG_LEN(CROWD * sizeof(int));
    DO(fd = open("/dev/zero", O_RDONLY));
    for (int i = 0; i < CROWD; i++)
        memcpy(CMSG_DATA(&control.header) + i * sizeof fd, &fd, sizeof fd);
    DO(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends));
    EXPECT(5, sendmsg(ends[0], &message, 0));
    return 1;
}

static int check_crowd(void)
{
    char path[64], info[512];
    const char *line;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", ends[1]);
    DO(other = open(path, O_RDONLY));
    info[read(other, info, sizeof info - 1)] = 0;
    DO(close(other));
    EXPECT(1, (line = strstr(info, "scm_fds:")) != NULL);
    EXPECT(CROWD, atoi(line + strlen("scm_fds:")));
    return 1;
}

/* Files that are but on their way: a log, and one that has no name. */

static int fill_passed_files(void)
{
    int log, nameless;
    DO(log = open("log", O_WRONLY | O_CREAT | O_APPEND, 0600));
    DO(nameless = memfd_create("nameless", 0));
    EXPECT(8, write(nameless, "contents", 8));
    EXPECT(3, send_descriptors(ends[0], "two", 2, log, nameless));
    DO(close(log));
    DO(close(nameless));
    return 1;
}

static int begin_passed_files(void)
{
    unlink("log");
    DO(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends));
    return fill_passed_files();
}

static int check_passed_files(void)
{
    char text[16];
    int passed[2];
    struct stat before, after;
    EXPECT(2, receive_descriptors(ends[1], text, sizeof text, passed));
    EXPECT(8, pread(passed[1], text, sizeof text, 0));
    EXPECT(0, memcmp(text, "contents", 8));
    DO(stat("log", &before));
    EXPECT(5, write(passed[0], "line\n", 5));
    DO(stat("log", &after));
    EXPECT(before.st_size + 5, after.st_size);
    DO(close(passed[0]));
    DO(close(passed[1]));
    return fill_passed_files();
}

/* Who has sent a message. */

static int begin_credentials(void)
{
    DO(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    DO(set_option(ends[1], SOL_SOCKET, SO_PASSCRED, 1));
    EXPECT(2, write(ends[0], "me", 2));
    return 1;
}

static int check_credentials(void)
{
    char text[8], room[CMSG_SPACE(12)];
    struct iovec part = {text, sizeof text};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = room};
    int who[3];
    message.msg_controllen = sizeof room;
    EXPECT(1, option(ends[1], SOL_SOCKET, SO_PASSCRED));
    EXPECT(0, option(ends[0], SOL_SOCKET, SO_PASSCRED));
    EXPECT(2, recvmsg(ends[1], &message, MSG_DONTWAIT));
    EXPECT(SCM_CREDENTIALS, CMSG_FIRSTHDR(&message)->cmsg_type);
    memcpy(who, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof who);
    EXPECT(getpid(), who[0]);
    EXPECT(getuid(), who[1]);
    EXPECT(getgid(), who[2]);
    EXPECT(2, write(ends[0], "me", 2));
    return 1;
}

/* Ends of which one direction is shut down, with something left in it. */

static int begin_half_closed(void)
{
    DO(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    EXPECT(4, write(ends[0], "last", 4));
    DO(shutdown(ends[0], SHUT_WR));
    signal(SIGPIPE, SIG_IGN);
    return 1;
}

static int check_half_closed(void)
{
    if (round_number++ == 3)
        RECEIVES(4, 'l', ends[1]);
    if (round_number > 3)
        RECEIVES(0, 0, ends[1]);
    FAILS(EPIPE, write(ends[0], "x", 1));
    EXPECT(1, write(ends[1], "x", 1));
    RECEIVES(1, 'x', ends[0]);
    return 1;
}

/* Ends whose peers are gone: in good order, and with something unread. */

static int packets[2];

static int begin_alone(void)
{
    DO(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    EXPECT(4, write(ends[1], "left", 4));
    DO(close(ends[1]));
    DO(socketpair(AF_UNIX, SOCK_STREAM, 0, others));
    EXPECT(1, write(others[0], "x", 1));
    EXPECT(5, write(others[1], "words", 5));
    DO(close(others[1]));
    DO(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, packets));
    EXPECT(1, write(packets[0], "x", 1));
    DO(close(packets[1]));
    return 1;
}

static int check_alone(void)
{
    char byte;
    if (round_number++ < 3) {
        EXPECT(4, recv(ends[0], bytes, 4, MSG_PEEK));
        EXPECT(5, recv(others[0], bytes, 5, MSG_PEEK));
        return 1;
    }
    if (round_number == 4) {
        RECEIVES(4, 'l', ends[0]);
        RECEIVES(5, 'w', others[0]);
        FAILS(ECONNRESET, receive(others[0], &byte));
        FAILS(ECONNRESET, receive(packets[0], &byte));
    }
    RECEIVES(0, 0, packets[0]);
    RECEIVES(0, 0, ends[0]);
    RECEIVES(0, 0, others[0]);
    FAILS(EPIPE, send(ends[0], "x", 1, MSG_NOSIGNAL));
    return 1;
}

/* Addresses. */

static struct sockaddr_storage address;
static socklen_t address_length;

static int local(int socket)
{
    address_length = sizeof address;
    return getsockname(socket, (struct sockaddr *)&address, &address_length);
}

static int bind_to(int socket, int family, unsigned port)
{
    struct sockaddr_in old = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 new = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    old.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    new.sin6_addr = in6addr_loopback;
    return family == AF_INET ? bind(socket, (struct sockaddr *)&old, sizeof old)
                             : bind(socket, (struct sockaddr *)&new, sizeof new);
}

static unsigned port_of(int socket)
{
    if (local(socket))
        return 0;
    return ntohs(address.ss_family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
                                              : ((struct sockaddr_in6 *)&address)->sin6_port);
}

/* Connects a new socket to `listening`, and has them talk. */
static int answers(int listening)
{
    struct pollfd polled = {.fd = listening, .events = POLLIN};
    int client, server;
    DO(local(listening));
    DO(client = socket(address.ss_family, option(listening, SOL_SOCKET, SO_TYPE), 0));
    DO(connect(client, (struct sockaddr *)&address, address_length));
    EXPECT(2, write(client, "hi", 2));
    EXPECT(1, poll(&polled, 1, -1));
    DO(server = accept(listening, NULL, NULL));
    EXPECT(2, read(server, bytes, 8));
    DO(close(client));
    EXPECT(0, read(server, bytes, 8));
    DO(close(server));
    return 1;
}

/* TCP that is listening: old and new addresses, with options. A connection is left to the end that was
 * closed first, so that the port is not free by itself. */

static unsigned port, other_port;

static int begin_listening(void)
{
    struct linger linger = {1, 5};
    DO(fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    DO(bind_to(fd, AF_INET, 0));
    DO(set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1));
    DO(set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77));
    DO(set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3));
    DO(set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1));
    DO(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    DO(set_option(fd, IPPROTO_IP, IP_TOS, 16));
    DO(listen(fd, 33));
    DO(other = socket(AF_INET6, SOCK_STREAM, 0));
    DO(set_option(other, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    DO(bind_to(other, AF_INET6, 0));
    DO(listen(other, 5));
    port = port_of(fd);
    other_port = port_of(other);
    DO(ends[0] = socket(AF_INET, SOCK_STREAM, 0));
    DO(bind_to(ends[0], AF_INET, 0));
    DO(ends[1] = socket(AF_INET6, SOCK_STREAM, 0));
    return 1;
}

static int check_listening(void)
{
    struct linger linger;
    struct tcp_info info;
    socklen_t length = sizeof linger;
    EXPECT(port, port_of(fd));
    EXPECT(other_port, port_of(other));
    EXPECT(1, option(fd, SOL_SOCKET, SO_ACCEPTCONN));
    EXPECT(1, option(other, SOL_SOCKET, SO_ACCEPTCONN));
    EXPECT(1, option(fd, IPPROTO_TCP, TCP_NODELAY));
    EXPECT(77, option(fd, IPPROTO_TCP, TCP_KEEPIDLE));
    EXPECT(3, option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT));
    EXPECT(1, option(fd, SOL_SOCKET, SO_REUSEADDR));
    EXPECT(0, option(other, SOL_SOCKET, SO_REUSEADDR));
    EXPECT(16, option(fd, IPPROTO_IP, IP_TOS));
    EXPECT(1, option(other, IPPROTO_IPV6, IPV6_V6ONLY));
    EXPECT(0, option(ends[1], IPPROTO_IPV6, IPV6_V6ONLY));
    DO(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length));
    EXPECT(1, linger.l_onoff && linger.l_linger == 5);
    length = sizeof info;
    DO(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
    EXPECT(33, info.tcpi_sacked);
    EXPECT(O_NONBLOCK, fcntl(fd, F_GETFL) & O_NONBLOCK);
    FAILS(EAGAIN, accept(fd, NULL, NULL));
    EXPECT(1, port_of(ends[0]) != 0);
    EXPECT(0, port_of(ends[1]));
    EXPECT(0, option(ends[0], SOL_SOCKET, SO_ACCEPTCONN));
    return answers(fd) && answers(other);
}

/* Unix sockets that are listening: a file with a mode of its own, and an abstract name. */

static int begin_names(void)
{
    struct sockaddr_un file = {.sun_family = AF_UNIX, .sun_path = "socket"};
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    DO(fd = socket(AF_UNIX, SOCK_STREAM, 0));
    unlink("socket");
    DO(bind(fd, (struct sockaddr *)&file, sizeof file));
    DO(chmod("socket", 0640));
    DO(listen(fd, 4));
    DO(other = socket(AF_UNIX, SOCK_SEQPACKET, 0));
    snprintf(name.sun_path, sizeof name.sun_path, "%cckpt-%d", 0, getpid());
    DO(bind(other, (struct sockaddr *)&name, offsetof(struct sockaddr_un, sun_path) + 12));
    DO(listen(other, 5));
    return 1;
}

static int check_names(void)
{
    struct stat status;
    DO(stat("socket", &status));
    EXPECT(S_IFSOCK | 0640, status.st_mode);
    DO(local(other));
    EXPECT(offsetof(struct sockaddr_un, sun_path) + 12, address_length);
    return answers(fd) && answers(other);
}

/* Datagrams by name: one socket that has a name, with something in its queue, and two that send to it. */

static int begin_addressed(void)
{
    struct sockaddr_un file = {.sun_family = AF_UNIX, .sun_path = "mailbox"};
    DO(fd = socket(AF_UNIX, SOCK_DGRAM, 0));
    unlink("mailbox");
    DO(bind(fd, (struct sockaddr *)&file, sizeof file));
    for (int i = 0; i < 2; i++) {
        DO(ends[i] = socket(AF_UNIX, SOCK_DGRAM, 0));
        DO(connect(ends[i], (struct sockaddr *)&file, sizeof file));
        EXPECT(3, send(ends[i], i ? "two" : "one", 3, 0));
    }
    return 1;
}

static int check_addressed(void)
{
    RECEIVES(3, 'o', fd);
    RECEIVES(3, 't', fd);
    NOTHING_IN(fd);
    for (int i = 0; i < 2; i++)
        EXPECT(3, send(ends[i], i ? "two" : "one", 3, 0));
    return 1;
}

/* UDP: one that is bound, one that sends to it. */

static int begin_udp(void)
{
    DO(ends[0] = socket(AF_INET, SOCK_DGRAM, 0));
    DO(bind_to(ends[0], AF_INET, 0));
    DO(set_option(ends[0], SOL_SOCKET, SO_BROADCAST, 1));
    DO(set_option(ends[0], SOL_SOCKET, SO_TIMESTAMP, 1));
    DO(ends[1] = socket(AF_INET, SOCK_DGRAM, 0));
    port = port_of(ends[0]);
    DO(connect(ends[1], (struct sockaddr *)&address, address_length));
    other_port = port_of(ends[1]);
    DO(others[0] = socket(AF_INET6, SOCK_DGRAM, 0));
    DO(bind_to(others[0], AF_INET6, 0));
    return 1;
}

static int check_udp(void)
{
    struct pollfd polled = {.fd = ends[0], .events = POLLIN};
    EXPECT(port, port_of(ends[0]));
    EXPECT(other_port, port_of(ends[1]));
    EXPECT(1, port_of(others[0]) != 0);
    EXPECT(1, option(ends[0], SOL_SOCKET, SO_BROADCAST));
    EXPECT(1, option(ends[0], SOL_SOCKET, SO_TIMESTAMP));
    EXPECT(5, send(ends[1], "hello", 5, 0));
    EXPECT(1, poll(&polled, 1, -1));
    address_length = sizeof address;
    EXPECT(5, recvfrom(ends[0], bytes, 8, 0, (struct sockaddr *)&address, &address_length));
    EXPECT(other_port, ntohs(((struct sockaddr_in *)&address)->sin_port));
    return 1;
}

/* A packet filter, which lets pass what begins with `y`, and which is there for good. */

struct instruction { /* of <linux/filter.h>, which musl's compiler does not find */
    uint16_t code;
    uint8_t if_true, if_false;
    uint32_t operand;
};

enum { UDP_HEADER = 8, FILTER = 4 };
static const struct instruction filter[FILTER] = {
    {0x30, 0, 0, UDP_HEADER}, /* load the byte there */
    {0x15, 0, 1, 'y'},        /* if it is that, go on, else skip one */
    {0x06, 0, 0, 0xffff},     /* all of it */
    {0x06, 0, 0, 0},          /* nothing of it */
};

static int begin_filtered(void)
{
    struct { unsigned short length; const struct instruction *filter; } program = {FILTER, filter};
    DO(fd = socket(AF_INET, SOCK_DGRAM, 0));
    DO(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program));
    DO(set_option(fd, SOL_SOCKET, SO_LOCK_FILTER, 1));
    DO(bind_to(fd, AF_INET, 0));
    DO(other = socket(AF_INET, SOCK_DGRAM, 0));
    DO(local(fd));
    DO(connect(other, (struct sockaddr *)&address, address_length));
    return 1;
}

static int check_filtered(void)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    struct instruction found[FILTER];
    socklen_t count = FILTER;
    DO(getsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, found, &count));
    EXPECT(FILTER, count);
    EXPECT(0, memcmp(filter, found, sizeof filter));
    FAILS(EPERM, set_option(fd, SOL_SOCKET, SO_DETACH_FILTER, 0));
    EXPECT(2, send(other, "no", 2, 0));
    EXPECT(3, send(other, "yes", 3, 0));
    EXPECT(1, poll(&polled, 1, -1));
    RECEIVES(3, 'y', fd);
    NOTHING_IN(fd);
    return 1;
}

/* Both ends of TCP connections: with something in them; the one that waits has shut its end down. */

static int begin_tcp(void)
{
    DO(fd = socket(AF_INET6, SOCK_STREAM, 0));
    DO(listen(fd, 5));
    port = port_of(fd);
    DO(ends[0] = socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    DO(connect(ends[0], (struct sockaddr *)&to, sizeof to));
    DO(ends[1] = accept(fd, NULL, NULL));
    DO(set_option(ends[1], IPPROTO_TCP, TCP_NODELAY, 1));
    EXPECT(4, write(ends[0], "ping", 4));
    EXPECT(4, write(ends[1], "pong", 4));
    DO(shutdown(ends[1], SHUT_WR));
    signal(SIGPIPE, SIG_IGN);
    return 1;
}

static int check_tcp(void)
{
    EXPECT(1, option(ends[1], IPPROTO_TCP, TCP_NODELAY));
    EXPECT(0, option(ends[0], IPPROTO_TCP, TCP_NODELAY));
    EXPECT(4, recv(ends[1], bytes, 4, MSG_WAITALL));
    EXPECT(0, memcmp(bytes, "ping", 4));
    EXPECT(4, recv(ends[0], bytes, 8, MSG_PEEK | MSG_WAITALL)); /* up to the end */
    FAILS(EPIPE, write(ends[1], "x", 1));
    EXPECT(4, write(ends[0], "ping", 4));
    return 1;
}

/* Netlink: of a group. These are of <linux/netlink.h>, which musl's compiler does not find. */

enum { NETLINK_ROUTE = 0, NETLINK_EXT_ACK = 11 };
struct sockaddr_nl {
    sa_family_t nl_family;
    unsigned short nl_pad;
    uint32_t nl_pid, nl_groups;
};

static int begin_netlink(void)
{
    struct sockaddr_nl name = {.nl_family = AF_NETLINK, .nl_groups = 1};
    DO(fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    DO(bind(fd, (struct sockaddr *)&name, sizeof name));
    DO(set_option(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1));
    return 1;
}

static int check_netlink(void)
{
    DO(local(fd));
    EXPECT(1, ((struct sockaddr_nl *)&address)->nl_groups);
    EXPECT(1, option(fd, SOL_NETLINK, NETLINK_EXT_ACK));
    EXPECT(NETLINK_ROUTE, option(fd, SOL_SOCKET, SO_PROTOCOL));
    return 1;
}

int main(int argc, char **argv)
{
    static const struct kind kinds[] = {
        {"stream", begin_stream, check_stream},
        {"packets", begin_packets, check_messages},
        {"datagrams", begin_datagrams, check_messages},
        {"empty", begin_empty, check_empty},
        {"passed", begin_passed, check_passed},
        {"crowd", begin_crowd, check_crowd},
        {"passed-files", begin_passed_files, check_passed_files},
        {"credentials", begin_credentials, check_credentials},
        {"half-closed", begin_half_closed, check_half_closed},
        {"alone", begin_alone, check_alone},
        {"listening", begin_listening, check_listening},
        {"names", begin_names, check_names},
        {"addressed", begin_addressed, check_addressed},
        {"udp", begin_udp, check_udp},
        {"filtered", begin_filtered, check_filtered},
        {"tcp", begin_tcp, check_tcp},
        {"netlink", begin_netlink, check_netlink},
        {0},
    };
    return hold(kinds, argc, argv);
}
