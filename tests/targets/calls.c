/* Target: a call that waits, and that ends as if no checkpoint had come.
 *
 *     calls CALL END MILLISECONDS [ALTERNATE]
 *
 * Prints `ready`, makes the call, and checks all that it tells: result, errno, what is left of the
 * time-out, how long it took at least, how often a handler ran, and how much of the stack was used
 * meanwhile. END is what is to end it:
 *
 *     time      the time-out
 *     event     a line on standard input, or what a thread does when it has read one
 *     signal    SIGUSR1, which has a handler
 *     nothing   it ends all the same, where it cannot be made out (docs/limits.md)
 *     jump      SIGUSR1, whose handler jumps out of the call, which would take long; then the call is
 *               made again, to its time-out
 *
 * ALTERNATE is the size of an alternate signal stack, for which its own handler has not asked.
 *
 * Prints `done` and exits with 0, or `FAIL: ...`. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
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
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
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
#if defined __aarch64__ && !defined __GLIBC__
    if (r == 0) /* there is what was left at the checkpoint (docs/limits.md) */
        left = -1;
#endif
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

/* Input and output of a socket with a time-out. Standard input is one. */

static void must(int ok, const char *what)
{
    if (!ok) {
        printf("FAIL: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void set_time_out(int fd, int option, long ms)
{
    struct timeval time = {ms / 1000, ms % 1000 * 1000};
    must(setsockopt(fd, SOL_SOCKET, option, &time, sizeof time) == 0, "setsockopt");
}

/* The result of a call that has failed with `by_time` when the time was over. */
static long ended(long r, int by_time)
{
    return r < 0 && errno == by_time ? 0 : r;
}

static char input[64];

/* The result of a call that has read the line. */
static long has_read(long r)
{
    if (r > 0)
        r = r == 6 && memcmp(input, "event\n", 6) == 0 ? 1 : 100;
    return ended(r, EAGAIN);
}

static long call_read(long ms)
{
    set_time_out(STDIN_FILENO, SO_RCVTIMEO, ms);
    return has_read(read(STDIN_FILENO, input, sizeof input));
}

static long call_readv(long ms)
{
    struct iovec parts[] = {{input, 2}, {NULL, 0}, {input + 2, sizeof input - 2}};
    set_time_out(STDIN_FILENO, SO_RCVTIMEO, ms);
    return has_read(readv(STDIN_FILENO, parts, 3));
}

static long call_recv(long ms)
{
    set_time_out(STDIN_FILENO, SO_RCVTIMEO, ms);
    return has_read(recv(STDIN_FILENO, input, sizeof input, 0));
}

static long call_recvmsg(long ms)
{
    struct iovec parts[] = {{input, 2}, {input + 2, sizeof input - 2}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    set_time_out(STDIN_FILENO, SO_RCVTIMEO, ms);
    return has_read(recvmsg(STDIN_FILENO, &message, 0));
}

static long call_recv_all(long ms)
{
    set_time_out(STDIN_FILENO, SO_RCVTIMEO, ms);
    return has_read(recv(STDIN_FILENO, input, 6, MSG_WAITALL));
}

/* What is to come of a line on standard input. */
static void (*come_of_line)(void);

static void *await_line(void *unused)
{
    if (read(STDIN_FILENO, input, sizeof input) > 0)
        come_of_line();
    return unused;
}

/* Has another thread wait for the line. */
static void on_line(void (*action)(void))
{
    sigset_t set, before;
    pthread_t thread;
    come_of_line = action;
    sigfillset(&set);
    pthread_sigmask(SIG_BLOCK, &set, &before);
    must(pthread_create(&thread, NULL, await_line, NULL) == 0, "pthread_create");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static int pair[2], listener;

static void empty(void)
{
    static char room[1 << 16];
    while (recv(pair[1], room, sizeof room, MSG_DONTWAIT) > 0)
        continue;
}

/* A socket that takes no more, until it has been emptied. */
static void make_full(long ms)
{
    static const char zeros[1 << 16];
    must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    while (send(pair[0], zeros, sizeof zeros, MSG_DONTWAIT) > 0)
        continue;
    set_time_out(pair[0], SO_SNDTIMEO, ms);
    on_line(empty);
}

static long call_send(long ms)
{
    make_full(ms);
    return ended(send(pair[0], "x", 1, 0), EAGAIN);
}

static long call_writev(long ms)
{
    struct iovec parts[] = {{NULL, 0}, {"x", 1}};
    make_full(ms);
    return ended(writev(pair[0], parts, 2), EAGAIN);
}

static long call_sendmsg(long ms)
{
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    make_full(ms);
    return ended(sendmsg(pair[0], &message, 0), EAGAIN);
}

static struct sockaddr_in address = {.sin_family = AF_INET};
static socklen_t address_length = sizeof address;

static void make_listener(void)
{
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    must(bind(listener, (struct sockaddr *)&address, address_length) == 0, "bind");
    must(listen(listener, 0) == 0, "listen");
    must(getsockname(listener, (struct sockaddr *)&address, &address_length) == 0, "getsockname");
}

static int connected(int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    int r = connect(fd, (struct sockaddr *)&address, address_length);
    must(r == 0 || errno == EINPROGRESS, "connect");
    return fd;
}

static void connect_one(void)
{
    connected(0);
}

static long call_accept(long ms)
{
    long r;
    make_listener();
    set_time_out(listener, SO_RCVTIMEO, ms);
    on_line(connect_one);
    r = accept(listener, NULL, NULL);
    return r > 0 ? 1 : ended(r, EAGAIN);
}

static void accept_all(void)
{
    for (;;)
        accept(listener, NULL, NULL);
}

/* The listener takes one connection, and no further one as long as that has not been accepted. */
static long call_connect(long ms)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    long r;
    make_listener();
    connected(0);
    connected(SOCK_NONBLOCK);
    set_time_out(fd, SO_SNDTIMEO, ms);
    on_line(accept_all);
    r = connect(fd, (struct sockaddr *)&address, address_length);
    return r == 0 ? 1 : ended(r, EINPROGRESS);
}

/* Output that takes longer: more than a pipe, a terminal or a socket holds. */

enum { LINES = 16384, LENGTH = 80, PARTS = 100 };

static char lines[LINES * LENGTH + 1];

static void make_lines(void)
{
    for (size_t i = 0; i < LINES; i++)
        snprintf(lines + i * LENGTH, LENGTH + 1, "%*zu\n", LENGTH - 1, i);
}

/* The lines in parts of different lengths. */
static struct iovec *parts_of_lines(void)
{
    static struct iovec parts[PARTS];
    size_t at = 0;
    for (size_t i = 0; i < PARTS; i++) {
        size_t length = i + 1 < PARTS ? i * 200 : LINES * LENGTH - at;
        parts[i] = (struct iovec){lines + at, length};
        at += length;
    }
    return parts;
}

static long whole(long r)
{
    return r == LINES * LENGTH ? 0 : r;
}

static long call_write_all(long ms)
{
    (void)ms;
    return whole(write(STDOUT_FILENO, lines, LINES * LENGTH));
}

static long call_writev_all(long ms)
{
    (void)ms;
    return whole(writev(STDOUT_FILENO, parts_of_lines(), PARTS));
}

static long call_send_all(long ms)
{
    (void)ms;
    set_time_out(STDOUT_FILENO, SO_SNDTIMEO, 1000000);
    return whole(send(STDOUT_FILENO, lines, LINES * LENGTH, 0));
}

static long call_sendmsg_all(long ms)
{
    struct msghdr message = {.msg_iov = parts_of_lines(), .msg_iovlen = PARTS};
    (void)ms;
    return whole(sendmsg(STDOUT_FILENO, &message, 0));
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
    {"read", call_read},
    {"readv", call_readv},
    {"recv", call_recv},
    {"recvmsg", call_recvmsg},
    {"recv_all", call_recv_all},
    {"send", call_send},
    {"writev", call_writev},
    {"sendmsg", call_sendmsg},
    {"accept", call_accept},
    {"connect", call_connect},
    {"write_all", call_write_all},
    {"writev_all", call_writev_all},
    {"send_all", call_send_all},
    {"sendmsg_all", call_sendmsg_all},
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
    make_lines();
    paint();
    puts("ready");
    if (sigsetjmp(out, 1) == 0) {
        start = now();
    } else {
        EXPECT(handlers == 1);
        puts("jumped");
        start = now();
    }
    result = CALLS[index].call(jumps ? 1000 * 1000 : asked);
    error = errno;
    elapsed = now() - start;

    if (strcmp(end, "signal") == 0) {
        EXPECT(result == -1 && error == EINTR && handlers == 1);
        EXPECT(left == -1 || (left <= asked + 1000 && left + elapsed >= asked));
    } else if (strcmp(end, "event") == 0) {
        EXPECT(result == 1 && handlers == 0);
        EXPECT(left == -1 || (left <= asked && left + elapsed >= asked));
    } else if (strcmp(end, "nothing") == 0) {
        EXPECT(result > 0 || (result == -1 && error == EINTR));
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
