/* Target: a computation by threads that come and go.
 *
 *     thread_churn STEPS
 *
 * Prints `start`, and at the end one line with the result, which depends on STEPS alone. In each step
 * some threads are made; of these some are joined, some are detached, some make another and join it,
 * some are cancelled. All add their results to one sum, under a lock. */

#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { MANY = 6 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_done = PTHREAD_COND_INITIALIZER;
static uint64_t sum;
static int detached; /* how many of these are under way */
static _Thread_local uint64_t own;

static void must(int result)
{
    if (result != 0) {
        printf("FAIL: error %d\n", result);
        _Exit(1);
    }
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    return x ^ x >> 31;
}

/* What a thread computes from `seed`, in a variable of its own and a block of its own. */
static void compute(uint64_t seed)
{
    uint64_t *block = malloc(1000 * sizeof *block);

    must(block == NULL);
    own = seed;
    for (int i = 0; i < 1000; i++)
        block[i] = own = mix(own);
    for (int i = 0; i < 1000; i++)
        own ^= block[i] * (uint64_t)(i + 1);
    free(block);
    must(pthread_mutex_lock(&lock));
    sum += own;
    must(pthread_mutex_unlock(&lock));
}

static void *plain(void *seed)
{
    compute((uint64_t)seed);
    return seed;
}

static void *unattended(void *seed)
{
    compute((uint64_t)seed);
    must(pthread_mutex_lock(&lock));
    if (--detached == 0)
        must(pthread_cond_signal(&all_done));
    must(pthread_mutex_unlock(&lock));
    return NULL;
}

static void *parent(void *seed)
{
    pthread_t child;
    void *result;

    must(pthread_create(&child, NULL, plain, (void *)((uint64_t)seed ^ 1u << 30)));
    compute((uint64_t)seed);
    must(pthread_join(child, &result));
    return seed;
}

static void *victim(void *seed)
{
    sem_t never;

    compute((uint64_t)seed);
    must(sem_init(&never, 0, 0));
    for (;;)
        sem_wait(&never); /* which a handler may interrupt */
    return seed;
}

int main(int argc, char **argv)
{
    int steps = argc > 1 ? atoi(argv[1]) : 100;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    puts("start");
    for (int step = 0; step < steps; step++) {
        void *(*const kinds[MANY])(void *) = {plain, unattended, parent, plain, unattended, victim};
        pthread_t threads[MANY];

        must(pthread_mutex_lock(&lock));
        detached = 2;
        must(pthread_mutex_unlock(&lock));
        for (int i = 0; i < MANY; i++) {
            must(pthread_create(&threads[i], NULL, kinds[i], (void *)(uint64_t)(step * MANY + i)));
            if (kinds[i] == unattended)
                must(pthread_detach(threads[i]));
        }
        must(pthread_cancel(threads[MANY - 1]));
        for (int i = 0; i < MANY; i++) {
            void *result, *expected = (void *)(uint64_t)(step * MANY + i);

            if (kinds[i] == unattended)
                continue;
            must(pthread_join(threads[i], &result));
            must(result != (kinds[i] == victim ? PTHREAD_CANCELED : expected));
        }
        must(pthread_mutex_lock(&lock));
        while (detached > 0)
            must(pthread_cond_wait(&all_done, &lock));
        must(pthread_mutex_unlock(&lock));
    }
    printf("%016llx\n", (unsigned long long)sum);
    return 0;
}
