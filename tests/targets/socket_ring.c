/* Target: numbered lines through sockets, as many as the first argument says.
 *
 *     main ── stream ──▶ thread ── messages ──▶ thread ── datagrams ──▶ main ── standard output
 *
 * Each passes on what it receives, in pieces of its own; a line that is lost or doubled, or bytes in another
 * order, show. Standard output has `start` first. */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int pairs[3][2];
static long count;

static void fail(const char *what)
{
    perror(what);
    _exit(1);
}

/* Passes on what comes from `from`, until the end. */
static void *pass_on(void *argument)
{
    int number = (int)(long)argument;
    char bytes[777];
    ssize_t length;
    while ((length = recv(pairs[number][1], bytes, sizeof bytes, 0)) > 0)
        if (send(pairs[number + 1][0], bytes, length, 0) != length)
            fail("send");
    if (length < 0)
        fail("recv");
    send(pairs[number + 1][0], "", 0, 0);
    shutdown(pairs[number + 1][0], SHUT_WR);
    return NULL;
}

/* Writes the lines, in pieces that are not lines. */
static void *begin(void *argument)
{
    char line[32];
    (void)argument;
    for (long number = 0; number < count; number++) {
        int length = sprintf(line, "%ld\n", number * 7919);
        int half = number % length;
        if (write(pairs[0][0], line, half) != half ||
            write(pairs[0][0], line + half, length - half) != length - half)
            fail("write");
    }
    shutdown(pairs[0][0], SHUT_WR);
    return NULL;
}

int main(int argc, char **argv)
{
    static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM};
    pthread_t threads[3];
    char bytes[1000];
    ssize_t length;

    count = argc > 1 ? atol(argv[1]) : 1000;
    for (int i = 0; i < 3; i++)
        if (socketpair(AF_UNIX, types[i], 0, pairs[i]))
            fail("socketpair");
    if (write(1, "start\n", 6) != 6)
        fail("write");
    pthread_create(&threads[0], NULL, begin, NULL);
    for (long i = 0; i < 2; i++)
        pthread_create(&threads[i + 1], NULL, pass_on, (void *)i);
    while ((length = recv(pairs[2][1], bytes, sizeof bytes, 0)) > 0)
        if (write(1, bytes, length) != length)
            fail("write");
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
