/* Target: threads that pass signals around.
 *
 *     thread_ring STEPS
 *
 * Prints `start`, lets some signals go round in a ring of threads, each passing on what it gets to the
 * next one, STEPS times in all, and prints the number. Half of the threads wait for the signal, half
 * have it handled. A signal that is lost is missing at the end, and the program does not end. */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 6, SIGNALS = 4 };

static pthread_t threads[THREADS];
static atomic_long left;
static sem_t arrived;
static int signal_number;
static _Thread_local int own;

/* A real-time signal: so many as are sent, come. */
static void pass_on(void)
{
    if (atomic_fetch_sub(&left, 1) <= 0) {
        if (sem_post(&arrived) != 0)
            abort();
    } else if (pthread_kill(threads[(own + 1) % THREADS], signal_number) != 0) {
        abort();
    }
}

static void on_signal(int signal)
{
    (void)signal;
    pass_on();
}

static void *run(void *number)
{
    sigset_t set;
    int got;

    own = (int)(long)number;
    if (own % 2 == 0) {
        sigemptyset(&set);
        for (;;)
            sigsuspend(&set); /* it is blocked else */
    }
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    for (;;)
        if (sigwait(&set, &got) == 0)
            pass_on();
    return number;
}

int main(int argc, char **argv)
{
    long steps = argc > 1 ? atol(argv[1]) : 1000;
    struct sigaction action = {.sa_handler = on_signal};
    sigset_t set;

    signal_number = SIGRTMIN + 1;
    left = steps;
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0 || sem_init(&arrived, 0, 0) != 0 ||
        sigaction(signal_number, &action, NULL) != 0)
        return 1;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    puts("start");
    for (long i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, (void *)i) != 0)
            return 1;
    for (int i = 0; i < SIGNALS; i++)
        if (pthread_kill(threads[i], signal_number) != 0)
            return 1;
    for (int i = 0; i < SIGNALS; i++)
        while (sem_wait(&arrived) != 0)
            if (errno != EINTR) /* which a handler may cause */
                return 1;
    printf("%ld\n", steps);
    return 0;
}
