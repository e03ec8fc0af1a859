/* Target: a call that waits, and that ends as if no checkpoint had come.
 *
 *     calls CALL END MILLISECONDS [ALTERNATE]
 *
 * Prints `ready`, makes the call, and checks all that it tells: result, errno, what is left of the
 * time-out, how long it took at least, how often a handler ran, and how much of the stack was used
 * meanwhile. END is what is to end it:
 *
 *     time      the time-out
 *     event     a line on standard input
 *     signal    SIGUSR1, which has a handler
 *     jump      SIGUSR1, whose handler jumps out of the call; then the call is made again, to its
 *               time-out
 *
 * ALTERNATE is the size of an alternate signal stack, for which its own handler has not asked.
 *
 * Prints `done` and exits with 0, or `FAIL: ...`. */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Verifies a condition; ends the program otherwise. */
#define EXPECT(condition)                                                                     \
    do {                                                                                      \
        if (!(condition)) {                                                                   \
            printf("FAIL: line %d: %s; result %ld, errno %s, %d handlers, %ld of %ld ms\n",   \
                   __LINE__, #condition, result, strerror(error), handlers, elapsed, asked);  \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

/* So much of the stack may three signal frames and what runs on them use. */
enum { PAINTED = 256 * 1024, ALLOWED = 40 * 1024 };

static volatile sig_atomic_t handlers;
static volatile int jumps;
static sigjmp_buf out;
static long result, asked, elapsed, left = -1;
static int error, epoll;
static unsigned char *painted, *alternate;
static size_t alternate_size;

static void handle(int signal)
{
    unsigned char here;
    (void)signal;
    handlers++;
    if (&here >= alternate && &here < alternate + alternate_size)
        puts("FAIL: the handler runs on the alternate stack");
    if (jumps) {
        jumps = 0;
        siglongjmp(out, 1);
    }
}

static long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static struct timespec timespec_of(long milliseconds)
{
    return (struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000};
}

/* The point of `clock` in so many milliseconds. */
static struct timespec point(clockid_t clock, long milliseconds)
{
    struct timespec time, more = timespec_of(milliseconds);
    clock_gettime(clock, &time);
    time.tv_sec += more.tv_sec;
    time.tv_nsec += more.tv_nsec;
    if (time.tv_nsec >= 1000000000) {
        time.tv_sec++;
        time.tv_nsec -= 1000000000;
    }
    return time;
}

/* Fills the free part of the stack. */
static void __attribute__((noinline)) paint(void)
{
    unsigned char room[PAINTED];
    memset(room, 0xa5, sizeof room);
    __asm__ volatile("" : "=r"(painted) : "0"(room) : "memory");
}

/* How much of it has been used since. */
static long used(void)
{
    long at = 0;
    while (at < PAINTED && painted[at] == 0xa5)
        at++;
    return PAINTED - at;
}

/* The calls, one function each: returns what the call returned, with its error in `errno`. */

static long call_sleep(long ms)
{
    long seconds = sleep((unsigned)(ms + 999) / 1000);
    left = seconds == 0 ? 0 : (seconds + 1) * 1000; /* it rounds down */
    errno = EINTR;
    return left == 0 ? 0 : -1;
}

static long call_nanosleep(long ms)
{
    struct timespec time = timespec_of(ms), rest = {0, 0};
    long r = nanosleep(&time, &rest);
    left = rest.tv_sec * 1000 + (rest.tv_nsec + 999999) / 1000000;
    return r;
}

static long call_nanosleep_only(long ms)
{
    struct timespec time = timespec_of(ms);
    return nanosleep(&time, NULL);
}

static long call_clock_nanosleep(long ms)
{
    struct timespec time = timespec_of(ms), rest = {0, 0};
    errno = clock_nanosleep(CLOCK_MONOTONIC, 0, &time, &rest);
    left = rest.tv_sec * 1000 + (rest.tv_nsec + 999999) / 1000000;
    return errno ? -1 : 0;
}

static long call_until_monotonic(long ms)
{
    struct timespec time = point(CLOCK_MONOTONIC, ms);
    errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
    return errno ? -1 : 0;
}

static long call_until_realtime(long ms)
{
    struct timespec time = point(CLOCK_REALTIME, ms);
    errno = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &time, NULL);
    return errno ? -1 : 0;
}

static long call_poll(long ms)
{
    struct pollfd polled = {STDIN_FILENO, POLLIN, 0};
    long r = poll(&polled, 1, (int)ms);
    if (r == 1 && polled.revents != POLLIN)
        r = 100 + polled.revents;
    return r;
}

static long call_poll_none(long ms)
{
    return poll(NULL, 0, (int)ms);
}

/* With a mask, SIGUSR1 is blocked outside of the call. */
static void block(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static long call_ppoll(long ms)
{
    struct pollfd polled = {STDIN_FILENO, POLLIN, 0};
    struct timespec time = timespec_of(ms);
    sigset_t none;
    sigemptyset(&none);
    block();
    return ppoll(&polled, 1, &time, &none);
}

static long call_select(long ms)
{
    struct timeval time = {ms / 1000, ms % 1000 * 1000};
    fd_set set;
    long r;
    FD_ZERO(&set);
    FD_SET(STDIN_FILENO, &set);
    r = select(STDIN_FILENO + 1, &set, NULL, NULL, &time);
#ifdef __GLIBC__ /* musl does not tell */
    left = time.tv_sec * 1000 + (time.tv_usec + 999) / 1000;
#endif
    if (r == 1 && !FD_ISSET(STDIN_FILENO, &set))
        r = 100;
    return r;
}

static long call_pselect(long ms)
{
    struct timespec time = timespec_of(ms);
    sigset_t none;
    fd_set set;
    FD_ZERO(&set);
    FD_SET(STDIN_FILENO, &set);
    sigemptyset(&none);
    block();
    return pselect(STDIN_FILENO + 1, &set, NULL, NULL, &time, &none);
}

static long call_epoll_wait(long ms)
{
    struct epoll_event event;
    return epoll_wait(epoll, &event, 1, (int)ms);
}

static long call_epoll_pwait(long ms)
{
    struct epoll_event event;
    sigset_t none;
    sigemptyset(&none);
    block();
    return epoll_pwait(epoll, &event, 1, (int)ms, &none);
}

static long call_epoll_pwait2(long ms)
{
    struct epoll_event event;
    struct timespec time = timespec_of(ms);
    sigset_t none;
    sigemptyset(&none);
    block();
    return syscall(SYS_epoll_pwait2, epoll, &event, 1, &time, &none, 8);
}

static long call_pause(long ms)
{
    (void)ms;
    return pause();
}

static long call_sigsuspend(long ms)
{
    sigset_t none;
    (void)ms;
    sigemptyset(&none);
    block();
    return sigsuspend(&none);
}

/* Here the event is SIGURG. */
static long call_sigtimedwait(long ms)
{
    struct timespec time = timespec_of(ms);
    siginfo_t info;
    sigset_t set;
    long r;
    sigemptyset(&set);
    sigaddset(&set, SIGURG);
    sigprocmask(SIG_BLOCK, &set, NULL);
    r = sigtimedwait(&set, &info, &time);
    if (r == SIGURG)
        r = info.si_signo == SIGURG && info.si_code == SI_USER ? 1 : 100;
    if (r < 0 && errno == EAGAIN)
        r = 0;
    return r;
}

static long call_sem_timedwait(long ms)
{
    struct timespec time = point(CLOCK_REALTIME, ms);
    sem_t semaphore;
    long r;
    sem_init(&semaphore, 0, 0);
    r = sem_timedwait(&semaphore, &time);
    if (r < 0 && errno == ETIMEDOUT)
        r = 0;
    return r;
}

static long call_cond_timedwait(long ms)
{
    struct timespec time = point(CLOCK_REALTIME, ms);
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
    pthread_mutex_lock(&mutex);
    do
        errno = pthread_cond_timedwait(&condition, &mutex, &time);
    while (errno == 0);
    pthread_mutex_unlock(&mutex);
    return errno == ETIMEDOUT ? 0 : -1;
}

/* More than a pipe holds. */
static long call_write(long ms)
{
    static char lines[8192][80];
    long r;
    (void)ms;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        memset(lines[i], 'x', sizeof *lines);
        lines[i][sizeof *lines - 1] = '\n';
    }
    r = write(STDOUT_FILENO, lines, sizeof lines);
    return r == sizeof lines ? 0 : r;
}

static const struct {
    const char *name;
    long (*call)(long);
} CALLS[] = {
    {"sleep", call_sleep},
    {"nanosleep", call_nanosleep},
    {"nanosleep_only", call_nanosleep_only},
    {"clock_nanosleep", call_clock_nanosleep},
    {"until_monotonic", call_until_monotonic},
    {"until_realtime", call_until_realtime},
    {"poll", call_poll},
    {"poll_none", call_poll_none},
    {"ppoll", call_ppoll},
    {"select", call_select},
    {"pselect", call_pselect},
    {"epoll_wait", call_epoll_wait},
    {"epoll_pwait", call_epoll_pwait},
    {"epoll_pwait2", call_epoll_pwait2},
    {"pause", call_pause},
    {"sigsuspend", call_sigsuspend},
    {"sigtimedwait", call_sigtimedwait},
    {"sem_timedwait", call_sem_timedwait},
    {"cond_timedwait", call_cond_timedwait},
    {"write", call_write},
};

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = handle};
    static long start;
    static size_t index;
    const char *end;

    setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    while (argc >= 4 && index < sizeof CALLS / sizeof *CALLS && strcmp(CALLS[index].name, argv[1]))
        index++;
    if (argc < 4 || argc > 5 || index == sizeof CALLS / sizeof *CALLS) {
        fputs("usage: calls CALL END MILLISECONDS [ALTERNATE]\n", stderr);
        return 2;
    }
    end = argv[2];
    asked = atol(argv[3]);
    jumps = strcmp(end, "jump") == 0;
    if (jumps || strcmp(end, "signal") == 0)
        sigaction(SIGUSR1, &action, NULL);
    if (strncmp(argv[1], "epoll", 5) == 0) {
        struct epoll_event event = {.events = EPOLLIN};
        epoll = epoll_create1(0);
        epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    }
    if (argc == 5) {
        stack_t stack = {.ss_size = strtoul(argv[4], NULL, 10)};
        alternate = stack.ss_sp = malloc(stack.ss_size);
        alternate_size = stack.ss_size;
        if (alternate == NULL || sigaltstack(&stack, NULL) != 0) {
            perror("calls: sigaltstack");
            return 1;
        }
    }
    paint();
    puts("ready");
    if (sigsetjmp(out, 1) == 0) {
        start = now();
    } else {
        EXPECT(handlers == 1);
        puts("jumped");
        start = now();
    }
    result = CALLS[index].call(asked);
    error = errno;
    elapsed = now() - start;

    if (strcmp(end, "signal") == 0) {
        EXPECT(result == -1 && error == EINTR && handlers == 1);
        EXPECT(left == -1 || (left <= asked + 1000 && left + elapsed >= asked));
    } else if (strcmp(end, "event") == 0) {
        EXPECT(result == 1 && handlers == 0);
        EXPECT(left == -1 || (left <= asked && left + elapsed >= asked));
    } else {
        EXPECT(result == 0 && handlers == (strcmp(end, "jump") == 0));
        EXPECT(elapsed >= asked);
        EXPECT(left <= 0);
    }
    if (used() > ALLOWED) {
        printf("FAIL: %ld bytes of the stack used\n", used());
        return 1;
    }
    puts("done");
    return 0;
}
