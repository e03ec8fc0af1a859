/* A crew: threads of a target that check themselves, each in the state that its role puts it in.
 *
 * A target has a table of roles, and gives the first thread the first of them, the next the next,
 * and so on from the beginning. Between two rounds each thread is in its state: it waits for something,
 * holds something, computes. A round is
 *
 *     wake      (by the first thread of the process) ends the state
 *     check     (by the thread) verifies that everything is as it has to be; then it answers
 *     after     (by the first thread) makes ready for the next state
 *
 * It talks like the other targets (examples/targets/protocol/mod.rs): prints `ready`; makes a round
 * for each line `check` and answers with `ok` or `FAIL: ...`; after `quit`, or the end of stdin, makes
 * a last round, joins all threads, prints `done` and exits with 0. */

#ifndef CREW_H
#define CREW_H

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Verifies that `found` is `expected`; returns 0 from the calling function otherwise. */
#define EXPECT(expected, found)                                                               \
    do {                                                                                      \
        long expected_ = (long)(expected), found_ = (long)(found);                            \
        if (expected_ != found_) {                                                            \
            printf("FAIL: line %d, %s: expected %ld, found %ld\n", __LINE__, #found,          \
                   expected_, found_);                                                        \
            return 0;                                                                         \
        }                                                                                     \
    } while (0)

struct role;

struct worker {
    const struct role *role;
    int variant; /* of the role: how many have it already */
    pthread_t thread;
    pid_t tid;
    pthread_mutex_t mutex; /* with `cond`, the plain way to wake it */
    pthread_cond_t cond;
    int asked;
    sem_t semaphore, go;
    int last;                    /* this is the last round */
    int round, answered, passed; /* under `board` */
    void *more;                  /* what else the role needs */
};

/* What a kind of thread does; what is 0 is not done. */
struct role {
    const char *name;
    int (*begin)(struct worker *); /* by the first thread, before the thread is made */
    int (*body)(struct worker *);
    int (*wake)(struct worker *);
    int (*after)(struct worker *);
};

static pthread_mutex_t board = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t board_changed = PTHREAD_COND_INITIALIZER;

static inline void *checked(void *memory)
{
    if (memory == NULL) {
        perror("malloc");
        exit(1);
    }
    return memory;
}

static inline uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

/* Tells the first thread the result of a check; returns whether there will be another one. */
static inline int answer(struct worker *worker, int passed)
{
    int goes_on;

    pthread_mutex_lock(&board);
    goes_on = !worker->last;
    if (!passed) {
        printf("FAIL: %s, variant %d\n", worker->role->name, worker->variant);
        worker->passed = 0;
    }
    worker->answered++;
    pthread_cond_broadcast(&board_changed);
    pthread_mutex_unlock(&board);
    return goes_on;
}

/* The plain way to wait, and to wake. */
static inline int wait_plainly(struct worker *worker)
{
    EXPECT(0, pthread_mutex_lock(&worker->mutex));
    while (!worker->asked)
        EXPECT(0, pthread_cond_wait(&worker->cond, &worker->mutex));
    worker->asked = 0;
    EXPECT(0, pthread_mutex_unlock(&worker->mutex));
    return 1;
}

static inline int wake_plainly(struct worker *worker)
{
    EXPECT(0, pthread_mutex_lock(&worker->mutex));
    worker->asked = 1;
    EXPECT(0, pthread_cond_signal(&worker->cond));
    EXPECT(0, pthread_mutex_unlock(&worker->mutex));
    return 1;
}

/* A handler makes this return early; POSIX allows it, and programs expect it. */
static inline int wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0)
        EXPECT(EINTR, errno);
    return 1;
}

static inline int wake_by_semaphore(struct worker *worker)
{
    EXPECT(0, sem_post(&worker->semaphore));
    return 1;
}

/* What a role begins by that goes on after an answer only when the first thread has made ready. */
static inline int let_go_on(struct worker *worker)
{
    EXPECT(0, sem_post(&worker->go));
    return 1;
}

static inline void *run_worker(void *argument)
{
    struct worker *worker = argument;

    worker->tid = (pid_t)syscall(SYS_gettid);
    if (!worker->role->body(worker))
        answer(worker, 0);
    return worker;
}

static inline int start_worker(struct worker *worker)
{
    pthread_attr_t attributes;

    EXPECT(0, pthread_attr_init(&attributes));
    EXPECT(0, pthread_attr_setstacksize(&attributes, 128 << 10));
    EXPECT(0, pthread_create(&worker->thread, &attributes, run_worker, worker));
    return 1;
}

static inline int begin_worker(struct worker *worker)
{
    EXPECT(0, pthread_mutex_init(&worker->mutex, NULL));
    EXPECT(0, pthread_cond_init(&worker->cond, NULL));
    EXPECT(0, sem_init(&worker->semaphore, 0, 0));
    EXPECT(0, sem_init(&worker->go, 0, 0));
    worker->passed = 1;
    if (worker->role->begin != NULL && !worker->role->begin(worker))
        return 0;
    return start_worker(worker);
}

static inline int await(struct worker *worker)
{
    worker->round++;
    EXPECT(0, pthread_mutex_lock(&board));
    while (worker->answered < worker->round && worker->passed)
        EXPECT(0, pthread_cond_wait(&board_changed, &board));
    EXPECT(0, pthread_mutex_unlock(&board));
    return worker->passed;
}

static inline int all(struct worker *crew, int size, int (*action)(struct worker *))
{
    int passed = 1;

    for (int i = 0; i < size; i++)
        if (!action(&crew[i])) {
            printf("FAIL: %s, variant %d\n", crew[i].role->name, crew[i].variant);
            passed = 0;
        }
    return passed;
}

static inline int wake(struct worker *worker)
{
    return worker->role->wake(worker);
}

static inline int after(struct worker *worker)
{
    return worker->role->after == NULL || worker->role->after(worker);
}

static inline int mark_last(struct worker *worker)
{
    worker->last = 1;
    return 1;
}

static inline int join(struct worker *worker)
{
    void *result = NULL;

    EXPECT(0, pthread_join(worker->thread, &result));
    EXPECT(1, result == worker || result == PTHREAD_CANCELED);
    return 1;
}

static inline int one_round(struct worker *crew, int size)
{
    return all(crew, size, wake) && all(crew, size, await) && all(crew, size, after);
}

/* Reads a line of stdin, without reading ahead. Returns 1, or 0 at its end, or -1. */
static inline int read_line(char *line, size_t size)
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

/* A target's `main`: a crew of as many as the first argument says, beginning with the role that the
 * second one numbers. */
static inline int crew_main(const struct role *roles, int count, int argc, char **argv)
{
    int size = argc > 1 ? atoi(argv[1]) : 1, first = argc > 2 ? atoi(argv[2]) : 0, result;
    struct worker *crew = checked(calloc((size_t)size, sizeof *crew));
    char line[16];

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    for (int i = 0; i < size; i++) {
        crew[i].role = &roles[(first + i) % count];
        crew[i].variant = (first + i) / count;
        if (!begin_worker(&crew[i]))
            return 1;
    }
    puts("ready");
    while ((result = read_line(line, sizeof line)) == 1 && strcmp(line, "quit") != 0) {
        if (!one_round(crew, size))
            return 1;
        puts("ok");
    }
    if (result < 0) {
        printf("FAIL: read of stdin: %s\n", strerror(errno));
        return 1;
    }
    all(crew, size, mark_last);
    if (!one_round(crew, size) || !all(crew, size, join))
        return 1;
    puts("done");
    return 0;
}

#endif
