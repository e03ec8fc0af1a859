/* Target: threads that wait, in every way that the C library has.
 *
 *     thread_waits THREADS [FIRST]
 *
 * See crew.h. Each thread waits for the first one, or for a thread of its own, or to be cancelled;
 * and it must get what it waits for, and nothing else. */

#include "crew.h"

#include <poll.h>
#include <time.h>

/* Far enough for no test to last so long. */
static struct timespec in_an_hour(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    time.tv_sec += 3600;
    return time;
}

static int by_condition(struct worker *worker)
{
    do {
        if (!wait_plainly(worker))
            return 0;
    } while (answer(worker, 1));
    return 1;
}

/* With a time-out, by either clock. */
static int begin_timed(struct worker *worker)
{
    clockid_t clock = worker->variant % 2 ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    pthread_condattr_t attributes;

    EXPECT(0, pthread_condattr_init(&attributes));
    EXPECT(0, pthread_condattr_setclock(&attributes, clock));
    EXPECT(0, pthread_cond_init(&worker->cond, &attributes));
    return 1;
}

static int by_timed_condition(struct worker *worker)
{
    clockid_t clock = worker->variant % 2 ? CLOCK_REALTIME : CLOCK_MONOTONIC;

    do {
        struct timespec limit = in_an_hour(clock);

        EXPECT(0, pthread_mutex_lock(&worker->mutex));
        while (!worker->asked)
            EXPECT(0, pthread_cond_timedwait(&worker->cond, &worker->mutex, &limit));
        worker->asked = 0;
        EXPECT(0, pthread_mutex_unlock(&worker->mutex));
    } while (answer(worker, 1));
    return 1;
}

static int by_semaphore(struct worker *worker)
{
    do {
        struct timespec limit = in_an_hour(CLOCK_REALTIME);

        if (worker->variant % 2) {
            /* A handler makes this return early; POSIX allows it. */
            while (sem_timedwait(&worker->semaphore, &limit) != 0)
                EXPECT(EINTR, errno);
        } else if (!wait_for(&worker->semaphore)) {
            return 0;
        }
        EXPECT(-1, sem_trywait(&worker->semaphore));
        EXPECT(EAGAIN, errno);
    } while (answer(worker, 1));
    return 1;
}

static int begin_barrier(struct worker *worker)
{
    pthread_barrier_t *barrier = worker->more = checked(malloc(sizeof *barrier));
    EXPECT(0, pthread_barrier_init(barrier, NULL, 2));
    return 1;
}

/* Of the two that come to a barrier one is told so. */
static atomic_int serial;

static int come_to_barrier(struct worker *worker)
{
    int result = pthread_barrier_wait(worker->more);
    if (result == PTHREAD_BARRIER_SERIAL_THREAD)
        serial++;
    else
        EXPECT(0, result);
    return 1;
}

static int at_barrier(struct worker *worker)
{
    do {
        if (!come_to_barrier(worker))
            return 0;
    } while (answer(worker, 1) && wait_for(&worker->go));
    return 1;
}

static int after_barrier(struct worker *worker)
{
    EXPECT(1, serial >= 1);
    serial--;
    return let_go_on(worker);
}

/* A thread that another one joins. */
static void *joined(void *argument)
{
    struct worker *worker = argument;
    return wait_for(&worker->semaphore) ? &worker->more : NULL;
}

static int by_joining(struct worker *worker)
{
    do {
        pthread_t child;
        void *result;

        EXPECT(0, pthread_create(&child, NULL, joined, worker));
        EXPECT(0, pthread_join(child, &result));
        EXPECT(1, result == &worker->more);
    } while (answer(worker, 1));
    return 1;
}

/* Waits to be cancelled, and answers when it is. */
static void on_cancel(void *argument)
{
    answer(argument, 1);
}

static int to_be_cancelled(struct worker *worker)
{
    const struct timespec hour = {.tv_sec = 3600};
    int state;

    pthread_cleanup_push(on_cancel, worker);
    switch (worker->variant % 5) {
    case 0:
        while (sem_wait(&worker->semaphore) != 0) {}
        break;
    case 1:
        for (;;)
            pause();
    case 2:
        for (;;)
            nanosleep(&hour, NULL);
    case 3:
        wait_plainly(worker);
        break;
    default: /* It has been cancelled, and does not know it yet. */
        EXPECT(0, pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state));
        EXPECT(0, pthread_cancel(pthread_self()));
        while (!worker->asked)
            poll(NULL, 0, 1);
        EXPECT(0, pthread_setcancelstate(state, NULL));
        pthread_testcancel();
    }
    pthread_cleanup_pop(0);
    return 0; /* it was not */
}

static int cancel(struct worker *worker)
{
    if (worker->variant % 5 == 4)
        worker->asked = 1;
    else
        EXPECT(0, pthread_cancel(worker->thread));
    return 1;
}

static int replace_cancelled(struct worker *worker)
{
    void *result;

    if (worker->last)
        return 1;
    EXPECT(0, pthread_join(worker->thread, &result));
    EXPECT(1, result == PTHREAD_CANCELED);
    worker->asked = 0;
    EXPECT(0, pthread_mutex_init(&worker->mutex, NULL)); /* that of `wait_plainly` was taken */
    return start_worker(worker);
}

/* The signal may come before the thread has blocked it itself. */
static int begin_sigwait(struct worker *worker)
{
    sigset_t set;

    (void)worker;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    EXPECT(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
    return 1;
}

/* Takes every signal but that of requests, which would be its own then; and gets the one that it was
 * sent. */
static int by_sigwait(struct worker *worker)
{
    sigset_t set;
    siginfo_t info;
    int signal;

    sigfillset(&set);
    EXPECT(0, pthread_sigmask(SIG_SETMASK, &set, NULL));
    sigdelset(&set, SIGUSR2);
    do {
        if (worker->variant % 2) {
            while ((signal = sigwaitinfo(&set, &info)) < 0)
                EXPECT(EINTR, errno);
            EXPECT(getpid(), info.si_pid);
        } else {
            EXPECT(0, sigwait(&set, &signal));
        }
        EXPECT(SIGTERM, signal);
    } while (answer(worker, 1));
    return 1;
}

static int send_sigterm(struct worker *worker)
{
    EXPECT(0, pthread_kill(worker->thread, SIGTERM));
    return 1;
}

static _Thread_local volatile sig_atomic_t urgent;

static void on_urgent(int signal)
{
    (void)signal;
    urgent++;
}

static int begin_interrupted(struct worker *worker)
{
    struct sigaction action = {.sa_handler = on_urgent};
    sigset_t set;

    (void)worker;
    sigemptyset(&set);
    sigaddset(&set, SIGURG);
    EXPECT(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
    EXPECT(0, sigaction(SIGURG, &action, NULL));
    return 1;
}

/* Waits for a signal, that is blocked but while it does. */
static int by_interruption(struct worker *worker)
{
    sigset_t none;

    sigemptyset(&none);
    do {
        int before = urgent;
        while (urgent == before) {
            if (worker->variant % 2)
                EXPECT(-1, sigsuspend(&none));
            else
                EXPECT(-1, ppoll(NULL, 0, NULL, &none));
            EXPECT(EINTR, errno);
        }
        EXPECT(before + 1, urgent);
    } while (answer(worker, 1));
    return 1;
}

static int send_urgent(struct worker *worker)
{
    EXPECT(0, pthread_kill(worker->thread, SIGURG));
    return 1;
}

static const struct role roles[] = {
    {"condition", NULL, by_condition, wake_plainly, NULL},
    {"condition with time-out", begin_timed, by_timed_condition, wake_plainly, NULL},
    {"semaphore", NULL, by_semaphore, wake_by_semaphore, NULL},
    {"barrier", begin_barrier, at_barrier, come_to_barrier, after_barrier},
    {"join", NULL, by_joining, wake_by_semaphore, NULL},
    {"cancellation", NULL, to_be_cancelled, cancel, replace_cancelled},
    {"sigwait", begin_sigwait, by_sigwait, send_sigterm, NULL},
    {"interruption", begin_interrupted, by_interruption, send_urgent, NULL},
};

int main(int argc, char **argv)
{
    return crew_main(roles, sizeof roles / sizeof *roles, argc, argv);
}
