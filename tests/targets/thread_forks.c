/* Target: threads that make child processes.
 *
 *     thread_forks STEPS
 *
 * Prints `start`; some threads make STEPS children each, by fork and by posix_spawn, which end with a
 * number that is verified. Prints how many there were. */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 3 };

static int steps;

static void fail(const char *what, int error)
{
    printf("FAIL: %s: %d\n", what, error);
    _exit(1);
}

static void *run(void *number)
{
    char *const arguments[] = {"true", NULL}, *const environment[] = {NULL};

    for (int step = 0; step < steps; step++) {
        int expected = step % 100, status, result;
        pid_t child;

        if ((step + (int)(long)number) % 4 == 0) {
            expected = 0;
            result = posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environment);
            if (result != 0)
                fail("posix_spawn", result);
        } else {
            child = fork();
            if (child < 0)
                fail("fork", errno);
            if (child == 0)
                _exit(expected);
        }
        while (waitpid(child, &status, 0) < 0)
            if (errno != EINTR)
                fail("waitpid", errno);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
            fail("status", status);
        /* A while without a child. */
        for (volatile int n = 0; n < 1000000; n++) {}
    }
    return number;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];

    steps = argc > 1 ? atoi(argv[1]) : 100;
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    puts("start");
    for (long i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, run, (void *)i) != 0)
            return 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("%d\n", THREADS * steps);
    return 0;
}
