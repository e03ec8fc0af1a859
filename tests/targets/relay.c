/* Target: numbered lines, on their way from one thread to another through a pipe.
 *
 *     relay COUNT
 *
 * One thread writes the lines, some of them in two pieces, as fast as the pipe takes them; the other
 * reads them in pieces of any size and writes them to standard output. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long count;
static int ends[2];

static void write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0) {
            perror("write");
            _exit(1);
        }
        bytes += written;
        length -= written;
    }
}

static void *write_lines(void *unused)
{
    char line[64];
    for (long i = 0; i < count; i++) {
        int length = snprintf(line, sizeof line, "line %ld of %ld\n", i, count);
        int first = i % 3 ? length : (int)(i % length);
        write_all(ends[1], line, first);
        write_all(ends[1], line + first, length - first);
    }
    close(ends[1]);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t writer;
    char bytes[1000];
    ssize_t length;

    count = argc > 1 ? atol(argv[1]) : 1000;
    if (pipe(ends) != 0 || pthread_create(&writer, NULL, write_lines, NULL) != 0)
        return 1;
    for (long round = 0; (length = read(ends[0], bytes, 1 + round * 37 % sizeof bytes)) > 0; round++)
        write_all(STDOUT_FILENO, bytes, length);
    return length < 0 || pthread_join(writer, NULL) != 0;
}
