/* Targets that hold descriptors of one kind or another, and check that all is as it has to be.
 *
 *     TARGET KIND
 *
 * A target has a table of kinds. It talks like the other targets (examples/targets/protocol/mod.rs):
 * opens what the kind is about, prints `ready`; for each line `check` verifies it, makes it ready for
 * the next time, and answers with `ok` or `FAIL: ...`; after `quit` prints `done` and exits with 0. */

#ifndef HOLDING_H
#define HOLDING_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Verifies that `found` is `expected`; returns 0 from the calling function otherwise. */
#define EXPECT(expected, found)                                                               \
    do {                                                                                      \
        errno = 0;                                                                            \
        long expected_ = (long)(expected), found_ = (long)(found);                            \
        if (expected_ != found_) {                                                            \
            printf("FAIL: line %d, %s: expected %ld, found %ld (%s)\n", __LINE__, #found,     \
                   expected_, found_, strerror(errno));                                       \
            return 0;                                                                         \
        }                                                                                     \
    } while (0)

/* A system call that must succeed; returns 0 from the calling function otherwise. */
#define DO(call) EXPECT(1, (call) >= 0)

/* A system call that must fail with `error`; returns 0 from the calling function otherwise. */
#define FAILS(error, call) EXPECT(error, (call) == -1 ? errno : 0)

struct kind {
    const char *name;
    int (*begin)(void); /* 1 if all went well */
    int (*check)(void); /* likewise */
};

/* Whether `fd` can be read without waiting. */
static int readable(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    return poll(&polled, 1, 0) == 1;
}

/* `size` bytes that nobody else would write, by `seed`. */
static void fill(unsigned char *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)((i + seed) * 2654435761u >> 11);
}

/* Whether `bytes` are those. */
static int is_filled(const unsigned char *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != (unsigned char)((i + seed) * 2654435761u >> 11))
            return 0;
    return 1;
}

static int hold(const struct kind *kinds, int argc, char **argv)
{
    const struct kind *kind = kinds;
    int passed = 1;
    char line[16];

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    while (kind->name && (argc < 2 || strcmp(kind->name, argv[1]) != 0))
        kind++;
    if (!kind->name || !kind->begin())
        return 1;
    puts("ready");
    while (fgets(line, sizeof line, stdin) && strcmp(line, "quit\n") != 0) {
        if (kind->check())
            puts("ok");
        else
            passed = 0;
    }
    if (!passed)
        return 1;
    puts("done");
    return 0;
}

#endif
