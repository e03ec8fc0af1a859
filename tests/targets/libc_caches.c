/* Target: what a C library remembers of the process, in its own memory.
 *
 *     libc_caches [abort]
 *
 * A C library keeps the number of the process or thread in places the kernel knows nothing of:
 * the owner of a mutex, of a lock for writing, of a FILE; musl's raise and pthread_kill take it
 * from the thread descriptor. If a restarted process had another number than it remembers, each
 * of these would go wrong in its own way. All are held here while a checkpoint comes. What only
 * happens to contain the same number stays as it is.
 *
 * It talks like the other targets (examples/targets/protocol/mod.rs): prints `ready`; answers
 * each line `check` with `ok` or `FAIL: ...`; after `quit`, or the end of stdin, lets all locks
 * go, prints `done` and exits with 0, or dies by abort() if that was asked for. */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Verifies that `found` is `expected`; returns from the calling function otherwise. */
#define EXPECT(expected, found)                                                               \
    do {                                                                                      \
        long expected_ = (expected), found_ = (found);                                        \
        if (expected_ != found_) {                                                            \
            printf("FAIL: %s: expected %ld, found %ld\n", #found, expected_, found_);         \
            return 0;                                                                         \
        }                                                                                     \
    } while (0)

static pthread_mutex_t normal, recursive, checking, robust, inheriting;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static FILE *stream;
static int has_inheriting; /* priority inheritance needs the kernel's help */
static volatile sig_atomic_t urgent;

/* Numbers in the midst of which is the process's, as in a mutex, but at an address where none is:
 * the upper half of a pointer, say. And where one may be, but followed by what no mutex has. */
enum { DECOYS = 2, WORDS = 12 };
static int decoys[DECOYS][WORDS] __attribute__((aligned(8)));
static int number; /* the process's, when it began */

static int in_decoy(int decoy, int word)
{
    const int owner = decoy == 0 ? 3 : 2;
    return word == owner ? number : 1;
}

static void on_urgent(int signal)
{
    (void)signal;
    urgent++;
}

/* Makes a mutex and locks it; `protocol` is PTHREAD_PRIO_*, `robustness` PTHREAD_MUTEX_*. */
static int make_locked(pthread_mutex_t *mutex, int type, int robustness, int protocol)
{
    pthread_mutexattr_t attributes;
    EXPECT(0, pthread_mutexattr_init(&attributes));
    EXPECT(0, pthread_mutexattr_settype(&attributes, type));
    EXPECT(0, pthread_mutexattr_setrobust(&attributes, robustness));
    if (pthread_mutexattr_setprotocol(&attributes, protocol) != 0)
        return 0;
    if (pthread_mutex_init(mutex, &attributes) != 0)
        return 0;
    EXPECT(0, pthread_mutexattr_destroy(&attributes));
    EXPECT(0, pthread_mutex_lock(mutex));
    return 1;
}

static int set_up(void)
{
    const int stalled = PTHREAD_MUTEX_STALLED, none = PTHREAD_PRIO_NONE;
    struct sigaction action = {.sa_handler = on_urgent, .sa_flags = SA_RESTART};

    number = getpid();
    for (int decoy = 0; decoy < DECOYS; decoy++)
        for (int word = 0; word < WORDS; word++)
            decoys[decoy][word] = in_decoy(decoy, word);

    EXPECT(1, make_locked(&normal, PTHREAD_MUTEX_NORMAL, stalled, none));
    EXPECT(1, make_locked(&recursive, PTHREAD_MUTEX_RECURSIVE, stalled, none));
    EXPECT(0, pthread_mutex_lock(&recursive));
    EXPECT(1, make_locked(&checking, PTHREAD_MUTEX_ERRORCHECK, stalled, none));
    EXPECT(1, make_locked(&robust, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ROBUST, none));
    has_inheriting =
        make_locked(&inheriting, PTHREAD_MUTEX_ERRORCHECK, stalled, PTHREAD_PRIO_INHERIT);
    EXPECT(0, pthread_rwlock_wrlock(&rwlock));
    stream = fdopen(dup(STDOUT_FILENO), "w");
    EXPECT(1, stream != NULL);
    flockfile(stream);
    EXPECT(0, sigaction(SIGURG, &action, NULL));
    return 1;
}

/* The locks know their owner, and the process and its thread know their numbers. */
static int check(void)
{
    int before = urgent;

    EXPECT(0, pthread_mutex_lock(&recursive));
    EXPECT(0, pthread_mutex_unlock(&recursive));
    EXPECT(EDEADLK, pthread_mutex_lock(&checking));
    EXPECT(EBUSY, pthread_mutex_trylock(&normal));
    EXPECT(0, pthread_mutex_lock(&robust));
    EXPECT(0, pthread_mutex_unlock(&robust));
    if (has_inheriting)
        EXPECT(EDEADLK, pthread_mutex_lock(&inheriting));
    EXPECT(EBUSY, pthread_rwlock_tryrdlock(&rwlock));
    EXPECT(0, ftrylockfile(stream));
    funlockfile(stream);

    for (int decoy = 0; decoy < DECOYS; decoy++)
        for (int word = 0; word < WORDS; word++)
            EXPECT(in_decoy(decoy, word), decoys[decoy][word]);

    EXPECT(syscall(SYS_getpid), getpid());
    EXPECT(0, raise(SIGURG));
    EXPECT(before + 1, urgent);
    EXPECT(0, pthread_kill(pthread_self(), SIGURG));
    EXPECT(before + 2, urgent);
    return 1;
}

/* Lets a mutex go and takes it once more. */
static int let_go(pthread_mutex_t *mutex, int times)
{
    for (; times > 0; times--)
        EXPECT(0, pthread_mutex_unlock(mutex));
    EXPECT(0, pthread_mutex_lock(mutex));
    EXPECT(0, pthread_mutex_unlock(mutex));
    EXPECT(0, pthread_mutex_destroy(mutex));
    return 1;
}

static int tear_down(void)
{
    EXPECT(1, let_go(&normal, 1));
    EXPECT(1, let_go(&recursive, 2));
    EXPECT(1, let_go(&checking, 1));
    EXPECT(1, let_go(&robust, 1));
    if (has_inheriting)
        EXPECT(1, let_go(&inheriting, 1));
    EXPECT(0, pthread_rwlock_unlock(&rwlock));
    EXPECT(0, pthread_rwlock_rdlock(&rwlock));
    EXPECT(0, pthread_rwlock_unlock(&rwlock));
    funlockfile(stream);
    EXPECT(0, fclose(stream));
    return 1;
}

/* Reads a line of stdin, without reading ahead. Returns 1, or 0 at its end, or -1. */
static int read_line(char *line, size_t size)
{
    size_t length = 0;
    ssize_t result;
    char byte;

    while ((result = read(STDIN_FILENO, &byte, 1)) == 1) {
        if (byte == '\n') {
            line[length] = 0;
            return 1;
        }
        if (length < size - 1)
            line[length++] = byte;
    }
    return (int)result;
}

int main(int argc, char **argv)
{
    int passed = 1, result;
    char line[16];

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    if (!set_up())
        return 1;
    puts("ready");
    while ((result = read_line(line, sizeof line)) == 1 && strcmp(line, "quit") != 0) {
        if (check())
            puts("ok");
        else
            passed = 0;
    }
    if (result < 0) {
        printf("FAIL: read of stdin: %s\n", strerror(errno));
        return 1;
    }
    passed = check() && tear_down() && passed;
    if (!passed)
        return 1;
    puts("done");
    if (argc > 1 && strcmp(argv[1], "abort") == 0)
        abort();
    return 0;
}
