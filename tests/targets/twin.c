/* Target: a computation whose output does not depend on the C library.
 *
 *     twin STEPS
 *
 * Prints a line a step, and nothing else. Each step allocates, sorts, computes with doubles and
 * formats; all that it uses of the C library is defined to the last bit by the standards. It also
 * asks for the time, which must not go back, and does not print it. So a run with glibc, a run
 * with musl and any run that was checkpointed and restarted print the same lines. */

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BLOCKS = 64, LONGEST = 4000 };

static uint64_t state = 1;

static uint64_t random_below(uint64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* The square root by Newton's method: nothing but additions, multiplications and divisions. */
static double root(double x)
{
    double y = x / 2 + 1;
    for (int i = 0; i < 60; i++)
        y = (y + x / y) / 2;
    return y;
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *checked(void *memory)
{
    if (memory == NULL) {
        perror("twin: malloc");
        exit(1);
    }
    return memory;
}

/* Replaces a block by a longer or shorter one, sorts it, and returns its median. */
static uint64_t churn(uint64_t **block)
{
    size_t length = 1 + random_below(LONGEST);

    *block = checked(realloc(*block, length * sizeof **block));
    for (size_t i = 0; i < length; i++)
        (*block)[i] = random_below(UINT64_MAX);
    qsort(*block, length, sizeof **block, compare);
    return (*block)[length / 2];
}

int main(int argc, char **argv)
{
    static uint64_t *blocks[BLOCKS];
    double sum = 0;
    uint64_t last = monotonic_ns();
    char *end = NULL;
    long steps = argc == 2 ? strtol(argv[1], &end, 10) : -1;

    if (steps < 0 || *end != 0) {
        fputs("usage: twin STEPS\n", stderr);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    for (long step = 1; step <= steps; step++) {
        uint64_t median = churn(&blocks[random_below(BLOCKS)]);
        uint64_t now = monotonic_ns();
        char line[100];
        char *copy;

        sum = sum / 2 + root((double)median);
        snprintf(line, sizeof line, "step %ld median %016llx sum %.10f", step,
                 (unsigned long long)median, sum);
        copy = checked(strdup(line));
        puts(copy);
        free(copy);
        if (now < last) {
            puts("FAIL: the monotonic clock went back");
            return 1;
        }
        last = now;
    }
    for (int i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    return 0;
}
