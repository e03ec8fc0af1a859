/* Target: threads that hold locks, and threads that wait for them.
 *
 *     thread_locks THREADS [FIRST]
 *
 * See crew.h. A C library keeps the number of a lock's owner in the lock itself, where the kernel
 * knows nothing of it. Each lock must know its owner, all others must be kept out, and whoever waits
 * must get it when it is let go. */

#include "crew.h"

struct locks {
    pthread_mutex_t normal, recursive, checking, robust, inheriting;
    pthread_rwlock_t rwlock;
    int rounds;
};

/* Makes a mutex; `protocol` is PTHREAD_PRIO_*, `robustness` PTHREAD_MUTEX_*. */
static int make(pthread_mutex_t *mutex, int type, int robustness, int protocol)
{
    pthread_mutexattr_t attributes;

    EXPECT(0, pthread_mutexattr_init(&attributes));
    EXPECT(0, pthread_mutexattr_settype(&attributes, type));
    EXPECT(0, pthread_mutexattr_setrobust(&attributes, robustness));
    EXPECT(0, pthread_mutexattr_setprotocol(&attributes, protocol));
    EXPECT(0, pthread_mutex_init(mutex, &attributes));
    EXPECT(0, pthread_mutexattr_destroy(&attributes));
    return 1;
}

enum { KINDS = 6 };

/* Makes a mutex of the kind that a variant has. */
static int make_kind(pthread_mutex_t *mutex, int variant)
{
    const int stalled = PTHREAD_MUTEX_STALLED, robust = PTHREAD_MUTEX_ROBUST;
    const int none = PTHREAD_PRIO_NONE, inherit = PTHREAD_PRIO_INHERIT;

    switch (variant % KINDS) {
    case 0:
        return make(mutex, PTHREAD_MUTEX_NORMAL, stalled, none);
    case 1:
        return make(mutex, PTHREAD_MUTEX_ERRORCHECK, stalled, none);
    case 2:
        return make(mutex, PTHREAD_MUTEX_RECURSIVE, stalled, none);
    case 3:
        return make(mutex, PTHREAD_MUTEX_NORMAL, robust, none);
    case 4:
        return make(mutex, PTHREAD_MUTEX_NORMAL, stalled, inherit);
    default:
        return make(mutex, PTHREAD_MUTEX_ERRORCHECK, robust, inherit);
    }
}

static int begin_owner(struct worker *worker)
{
    const int stalled = PTHREAD_MUTEX_STALLED, none = PTHREAD_PRIO_NONE;
    struct locks *locks = worker->more = checked(calloc(1, sizeof *locks));

    EXPECT(0, pthread_rwlock_init(&locks->rwlock, NULL));
    return make(&locks->normal, PTHREAD_MUTEX_NORMAL, stalled, none) &&
           make(&locks->recursive, PTHREAD_MUTEX_RECURSIVE, stalled, none) &&
           make(&locks->checking, PTHREAD_MUTEX_ERRORCHECK, stalled, none) &&
           make(&locks->robust, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ROBUST, none) &&
           make(&locks->inheriting, PTHREAD_MUTEX_ERRORCHECK, stalled, PTHREAD_PRIO_INHERIT);
}

static int take(struct locks *locks)
{
    EXPECT(0, pthread_mutex_lock(&locks->normal));
    EXPECT(0, pthread_mutex_lock(&locks->recursive));
    EXPECT(0, pthread_mutex_lock(&locks->recursive));
    EXPECT(0, pthread_mutex_lock(&locks->checking));
    EXPECT(0, pthread_mutex_lock(&locks->robust));
    EXPECT(0, pthread_mutex_lock(&locks->inheriting));
    EXPECT(0, pthread_rwlock_wrlock(&locks->rwlock));
    return 1;
}

static int let_go(struct locks *locks)
{
    EXPECT(0, pthread_mutex_unlock(&locks->normal));
    EXPECT(0, pthread_mutex_unlock(&locks->recursive));
    EXPECT(0, pthread_mutex_unlock(&locks->recursive));
    EXPECT(EPERM, pthread_mutex_unlock(&locks->recursive));
    EXPECT(0, pthread_mutex_unlock(&locks->checking));
    EXPECT(EPERM, pthread_mutex_unlock(&locks->checking));
    EXPECT(0, pthread_mutex_unlock(&locks->robust));
    EXPECT(0, pthread_mutex_unlock(&locks->inheriting));
    EXPECT(0, pthread_rwlock_unlock(&locks->rwlock));
    return 1;
}

/* The owner finds that it is. */
static int are_mine(struct locks *locks)
{
    EXPECT(EBUSY, pthread_mutex_trylock(&locks->normal));
    EXPECT(0, pthread_mutex_lock(&locks->recursive));
    EXPECT(0, pthread_mutex_unlock(&locks->recursive));
    EXPECT(EDEADLK, pthread_mutex_lock(&locks->checking));
    EXPECT(0, pthread_mutex_lock(&locks->robust));
    EXPECT(0, pthread_mutex_unlock(&locks->robust));
    EXPECT(EDEADLK, pthread_mutex_lock(&locks->inheriting));
    EXPECT(EBUSY, pthread_rwlock_tryrdlock(&locks->rwlock));
    return 1;
}

/* Another one finds that it is not. */
static int are_anothers(struct locks *locks)
{
    EXPECT(EBUSY, pthread_mutex_trylock(&locks->normal));
    EXPECT(EBUSY, pthread_mutex_trylock(&locks->recursive));
    EXPECT(EPERM, pthread_mutex_unlock(&locks->recursive));
    EXPECT(EBUSY, pthread_mutex_trylock(&locks->checking));
    EXPECT(EPERM, pthread_mutex_unlock(&locks->checking));
    EXPECT(EBUSY, pthread_mutex_trylock(&locks->robust));
    EXPECT(EPERM, pthread_mutex_unlock(&locks->robust));
    EXPECT(EBUSY, pthread_mutex_trylock(&locks->inheriting));
    EXPECT(EBUSY, pthread_rwlock_tryrdlock(&locks->rwlock));
    EXPECT(EBUSY, pthread_rwlock_trywrlock(&locks->rwlock));
    return 1;
}

static int own(struct worker *worker)
{
    struct locks *locks = worker->more;

    if (!take(locks))
        return 0;
    do {
        if (!wait_plainly(worker) || !are_mine(locks))
            return 0;
        /* Now and then they are taken anew. */
        if (locks->rounds++ % 2 == 1 && !(let_go(locks) && take(locks) && are_mine(locks)))
            return 0;
    } while (answer(worker, 1));
    return let_go(locks);
}

static int wake_owner(struct worker *worker)
{
    /* The first time it may not have taken them yet. */
    struct locks *locks = worker->more;
    return (locks->rounds == 0 || are_anothers(locks)) && wake_plainly(worker);
}

/* A mutex that the first thread holds, and lets go for the time of a round. */
static int begin_waiter(struct worker *worker)
{
    worker->more = checked(malloc(sizeof(pthread_mutex_t)));
    if (!make_kind(worker->more, worker->variant))
        return 0;
    EXPECT(0, pthread_mutex_lock(worker->more));
    return 1;
}

static int wait_for_mutex(struct worker *worker)
{
    do {
        EXPECT(0, pthread_mutex_lock(worker->more));
        EXPECT(0, pthread_mutex_unlock(worker->more));
    } while (answer(worker, 1) && wait_for(&worker->go));
    return 1;
}

static int unlock_for(struct worker *worker)
{
    EXPECT(0, pthread_mutex_unlock(worker->more));
    return 1;
}

static int lock_again(struct worker *worker)
{
    EXPECT(0, pthread_mutex_lock(worker->more));
    return let_go_on(worker);
}

static int begin_rwlock(struct worker *worker)
{
    worker->more = checked(malloc(sizeof(pthread_rwlock_t)));
    EXPECT(0, pthread_rwlock_init(worker->more, NULL));
    return 1;
}

/* Holds it for reading, twice. */
static int own_for_reading(struct worker *worker)
{
    EXPECT(0, pthread_rwlock_rdlock(worker->more));
    EXPECT(0, pthread_rwlock_rdlock(worker->more));
    do {
        if (!wait_plainly(worker))
            return 0;
        EXPECT(EBUSY, pthread_rwlock_trywrlock(worker->more));
        EXPECT(0, pthread_rwlock_tryrdlock(worker->more));
        EXPECT(0, pthread_rwlock_unlock(worker->more));
    } while (answer(worker, 1));
    EXPECT(0, pthread_rwlock_unlock(worker->more));
    EXPECT(0, pthread_rwlock_unlock(worker->more));
    EXPECT(0, pthread_rwlock_wrlock(worker->more));
    EXPECT(0, pthread_rwlock_unlock(worker->more));
    return 1;
}

/* Waits for one that the first thread has taken: to read what is written, or the other way round. */
static int begin_rwlock_waiter(struct worker *worker)
{
    if (!begin_rwlock(worker))
        return 0;
    EXPECT(0, worker->variant % 2 ? pthread_rwlock_wrlock(worker->more)
                                  : pthread_rwlock_rdlock(worker->more));
    return 1;
}

static int wait_for_rwlock(struct worker *worker)
{
    do {
        EXPECT(0, worker->variant % 2 ? pthread_rwlock_rdlock(worker->more)
                                      : pthread_rwlock_wrlock(worker->more));
        EXPECT(0, pthread_rwlock_unlock(worker->more));
    } while (answer(worker, 1) && wait_for(&worker->go));
    return 1;
}

static int unlock_rwlock(struct worker *worker)
{
    EXPECT(0, pthread_rwlock_unlock(worker->more));
    return 1;
}

static int lock_rwlock_again(struct worker *worker)
{
    EXPECT(0, worker->variant % 2 ? pthread_rwlock_wrlock(worker->more)
                                  : pthread_rwlock_rdlock(worker->more));
    return let_go_on(worker);
}

/* Dies with a robust mutex, which the next owner is told. */
static int begin_mortal(struct worker *worker)
{
    worker->more = checked(malloc(sizeof(pthread_mutex_t)));
    return make(worker->more, worker->variant % 3, PTHREAD_MUTEX_ROBUST,
                worker->variant % 2 ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE);
}

static int die_with_mutex(struct worker *worker)
{
    EXPECT(0, pthread_mutex_lock(worker->more));
    if (!wait_plainly(worker))
        return 0;
    answer(worker, 1);
    return 1;
}

static int inherit(struct worker *worker)
{
    EXPECT(EOWNERDEAD, pthread_mutex_lock(worker->more));
    EXPECT(0, pthread_mutex_consistent(worker->more));
    EXPECT(0, pthread_mutex_unlock(worker->more));
    if (worker->last)
        return 1;
    EXPECT(0, pthread_join(worker->thread, NULL));
    return start_worker(worker);
}

/* Waits for a condition with a mutex of each kind, and holds it afterwards. */
static int wait_with_kind(struct worker *worker)
{
    pthread_mutex_t *mutex = worker->more;

    EXPECT(0, pthread_mutex_lock(mutex));
    do {
        while (!worker->asked)
            EXPECT(0, pthread_cond_wait(&worker->cond, mutex));
        worker->asked = 0;
        /* Taken already: only a recursive one can be taken again. */
        EXPECT(worker->variant % KINDS == 2, pthread_mutex_trylock(mutex) == 0);
        if (worker->variant % KINDS == 2)
            EXPECT(0, pthread_mutex_unlock(mutex));
    } while (answer(worker, 1));
    EXPECT(0, pthread_mutex_unlock(mutex));
    return 1;
}

static int begin_with_kind(struct worker *worker)
{
    worker->more = checked(malloc(sizeof(pthread_mutex_t)));
    return make_kind(worker->more, worker->variant);
}

static int wake_with_kind(struct worker *worker)
{
    EXPECT(0, pthread_mutex_lock(worker->more));
    worker->asked = 1;
    EXPECT(0, pthread_cond_signal(&worker->cond));
    EXPECT(0, pthread_mutex_unlock(worker->more));
    return 1;
}

/* Holds a stream of the standard I/O library. */
static int own_stream(struct worker *worker)
{
    FILE *stream = worker->more = checked(fopen("/dev/null", "w"));

    flockfile(stream);
    do {
        if (!wait_plainly(worker))
            return 0;
        EXPECT(0, ftrylockfile(stream));
        EXPECT(1, fputs("mine\n", stream) >= 0);
        funlockfile(stream);
    } while (answer(worker, 1));
    funlockfile(stream);
    return 1;
}

static int wake_stream(struct worker *worker)
{
    if (worker->round > 0)
        EXPECT(1, ftrylockfile(worker->more) != 0);
    return wake_plainly(worker);
}

static const struct role roles[] = {
    {"owner", begin_owner, own, wake_owner, NULL},
    {"mutex", begin_waiter, wait_for_mutex, unlock_for, lock_again},
    {"reader", begin_rwlock, own_for_reading, wake_plainly, NULL},
    {"read-write lock", begin_rwlock_waiter, wait_for_rwlock, unlock_rwlock, lock_rwlock_again},
    {"mortal", begin_mortal, die_with_mutex, wake_plainly, inherit},
    {"condition", begin_with_kind, wait_with_kind, wake_with_kind, NULL},
    {"stream", NULL, own_stream, wake_stream, NULL},
};

int main(int argc, char **argv)
{
    return crew_main(roles, sizeof roles / sizeof *roles, argc, argv);
}
