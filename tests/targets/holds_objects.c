/* Target: pipes, counters, timers, signals, epoll sets. See holding.h. */

#include "holding.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

static unsigned round_number;
static int ends[2], fd, other, set;

/* A pipe with bytes in it, of a size of its own, one end without waiting and closed on exec. */

enum { CAPACITY = 1 << 17, BYTES = 100000 };
static unsigned char bytes[BYTES];

static int fill_pipe(void)
{
    fill(bytes, BYTES, round_number);
    EXPECT(BYTES, write(ends[1], bytes, BYTES));
    return 1;
}

static int begin_pipe(void)
{
    DO(pipe(ends));
    DO(fcntl(ends[1], F_SETPIPE_SZ, CAPACITY));
    DO(fcntl(ends[1], F_SETFL, O_NONBLOCK));
    DO(fcntl(ends[0], F_SETFD, FD_CLOEXEC));
    DO(other = dup(ends[0]));
    return fill_pipe();
}

static int check_pipe(void)
{
    EXPECT(CAPACITY, fcntl(ends[0], F_GETPIPE_SZ));
    EXPECT(O_WRONLY | O_NONBLOCK, fcntl(ends[1], F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    EXPECT(O_RDONLY, fcntl(ends[0], F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    EXPECT(FD_CLOEXEC, fcntl(ends[0], F_GETFD));
    EXPECT(0, fcntl(ends[1], F_GETFD));
    for (int done = 0; done < BYTES;) {
        int part = read(done % 2 ? ends[0] : other, bytes + done, BYTES - done);
        EXPECT(1, part > 0);
        done += part;
    }
    EXPECT(1, is_filled(bytes, BYTES, round_number));
    EXPECT(0, readable(ends[0]));
    round_number++;
    return fill_pipe();
}

/* One with nothing in it that is full as soon as it holds a page, and an empty one. */

static int begin_full_pipe(void)
{
    DO(pipe2(ends, O_NONBLOCK));
    DO(fcntl(ends[1], F_SETPIPE_SZ, getpagesize()));
    for (size_t i = 0; i < (size_t)getpagesize(); i++)
        EXPECT(1, write(ends[1], "x", 1));
    return 1;
}

static int check_full_pipe(void)
{
    char byte;
    FAILS(EAGAIN, write(ends[1], "x", 1));
    for (size_t i = 0; i < (size_t)getpagesize(); i++)
        EXPECT(1, read(ends[0], &byte, 1));
    FAILS(EAGAIN, read(ends[0], &byte, 1));
    for (size_t i = 0; i < (size_t)getpagesize(); i++)
        EXPECT(1, write(ends[1], "x", 1));
    return 1;
}

/* Packets. */

static int begin_packets(void)
{
    DO(pipe2(ends, O_DIRECT));
    EXPECT(3, write(ends[1], "one", 3));
    EXPECT(5, write(ends[1], "two--", 5));
    return 1;
}

static int check_packets(void)
{
    char packet[16];
    EXPECT(O_DIRECT, fcntl(ends[1], F_GETFL) & O_DIRECT);
    EXPECT(3, read(ends[0], packet, sizeof packet));
    EXPECT(0, memcmp(packet, "one", 3));
    EXPECT(2, read(ends[0], packet, 2));
    EXPECT(0, readable(ends[0]));
    EXPECT(3, write(ends[1], "one", 3));
    EXPECT(5, write(ends[1], "two--", 5));
    return 1;
}

/* Two pipes of which the other end is closed. */

static int begin_half_pipes(void)
{
    int others[2];
    DO(pipe(ends));
    EXPECT(4, write(ends[1], "left", 4));
    DO(close(ends[1]));
    DO(pipe(others));
    DO(close(others[0]));
    ends[1] = others[1];
    signal(SIGPIPE, SIG_IGN);
    return 1;
}

static int check_half_pipes(void)
{
    char text[8];
    if (round_number++ == 3)
        EXPECT(4, read(ends[0], text, sizeof text));
    if (round_number > 3) {
        EXPECT(0, read(ends[0], text, sizeof text));
    } else {
        EXPECT(1, ioctl(ends[0], FIONREAD, &other) == 0 && other == 4);
    }
    FAILS(EPIPE, write(ends[1], "x", 1));
    return 1;
}

/* A FIFO with both ends here, and the first thing in it read already. */

static int begin_fifo(void)
{
    char byte;
    unlink("fifo");
    DO(mkfifo("fifo", 0600));
    DO(ends[0] = open("fifo", O_RDONLY | O_NONBLOCK));
    DO(ends[1] = open("fifo", O_WRONLY));
    EXPECT(5, write(ends[1], "first", 5));
    EXPECT(1, read(ends[0], &byte, 1));
    return 1;
}

static int check_fifo(void)
{
    char text[8];
    int again;
    EXPECT(4, read(ends[0], text, sizeof text));
    EXPECT(0, memcmp(text, "irst", 4));
    DO(again = open("fifo", O_WRONLY));
    EXPECT(4, write(again, "irst", 4));
    DO(close(again));
    return 1;
}

/* Counters. */

static int begin_counters(void)
{
    DO(fd = eventfd(0, EFD_NONBLOCK));
    DO(other = eventfd(3, EFD_SEMAPHORE | EFD_CLOEXEC));
    DO(ends[0] = eventfd(7, 0));
    DO(ends[1] = eventfd(0, EFD_SEMAPHORE));
    return 1;
}

static int check_counters(void)
{
    uint64_t value;
    FAILS(EAGAIN, read(fd, &value, 8));
    EXPECT(FD_CLOEXEC, fcntl(other, F_GETFD));
    for (int i = 0; i < 3; i++) {
        EXPECT(8, read(other, &value, 8));
        EXPECT(1, value);
    }
    EXPECT(0, readable(other));
    value = 3;
    EXPECT(8, write(other, &value, 8));
    EXPECT(8, read(ends[0], &value, 8));
    EXPECT(7 + round_number, value);
    value = 7 + ++round_number;
    EXPECT(8, write(ends[0], &value, 8));
    EXPECT(0, readable(ends[1]));
    value = 2;
    EXPECT(8, write(ends[1], &value, 8));
    EXPECT(8, read(ends[1], &value, 8));
    EXPECT(8, read(ends[1], &value, 8));
    EXPECT(1, value);
    return 1;
}

/* Timers: one that is not set, one that has fired, one that fires all the time, one far ahead. */

static int begin_timers(void)
{
    struct itimerspec soon = {.it_value = {0, 1}}, always = {{0, 1000000}, {0, 1000000}};
    struct itimerspec late = {{5, 0}, {2000000000, 0}};
    DO(fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
    DO(other = timerfd_create(CLOCK_BOOTTIME, 0));
    DO(timerfd_settime(other, 0, &soon, NULL));
    EXPECT(1, poll(&(struct pollfd){.fd = other, .events = POLLIN}, 1, -1));
    DO(ends[0] = timerfd_create(CLOCK_MONOTONIC, 0));
    DO(timerfd_settime(ends[0], 0, &always, NULL));
    DO(ends[1] = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC));
    DO(timerfd_settime(ends[1], TFD_TIMER_ABSTIME, &late, NULL));
    return 1;
}

static int check_timers(void)
{
    struct itimerspec left;
    struct timespec now;
    uint64_t ticks;
    FAILS(EAGAIN, read(fd, &ticks, 8));
    EXPECT(1, readable(other));
    if (round_number++ == 4) {
        EXPECT(8, read(other, &ticks, 8));
        EXPECT(1, ticks);
        struct itimerspec soon = {.it_value = {0, 1}};
        DO(timerfd_settime(other, 0, &soon, NULL));
        EXPECT(1, poll(&(struct pollfd){.fd = other, .events = POLLIN}, 1, -1));
    }
    for (int i = 0; i < 3; i++) {
        EXPECT(8, read(ends[0], &ticks, 8));
        EXPECT(1, ticks >= 1);
    }
    DO(timerfd_gettime(ends[1], &left));
    DO(clock_gettime(CLOCK_REALTIME, &now));
    EXPECT(5, left.it_interval.tv_sec);
    long end = left.it_value.tv_sec + now.tv_sec;
    EXPECT(1, end >= 1999999998 && end <= 2000000001);
    return 1;
}

/* Signals that are read; one is pending. */

static int begin_signals(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGURG);
    sigaddset(&mask, SIGRTMIN + 2);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    DO(fd = signalfd(-1, &mask, SFD_NONBLOCK));
    DO(raise(SIGURG));
    return 1;
}

static int check_signals(void)
{
    struct signalfd_siginfo info;
    EXPECT(sizeof info, read(fd, &info, sizeof info));
    EXPECT(SIGURG, info.ssi_signo);
    FAILS(EAGAIN, read(fd, &info, sizeof info));
    DO(raise(SIGRTMIN + 2));
    EXPECT(sizeof info, read(fd, &info, sizeof info));
    EXPECT(SIGRTMIN + 2, info.ssi_signo);
    DO(raise(SIGURG));
    return 1;
}

/* An epoll set: one descriptor level-triggered, one edge-triggered, one for once, one by a number that
 * it no longer has, and a set in the set. */

static int inner, moved, silent[2];

static int add(int to, int what, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    DO(epoll_ctl(to, EPOLL_CTL_ADD, what, &event));
    return 1;
}

static int begin_epoll(void)
{
    struct epoll_event event;
    DO(set = epoll_create1(EPOLL_CLOEXEC));
    DO(inner = epoll_create1(0));
    DO(pipe(ends));
    DO(fd = eventfd(0, 0));
    DO(other = eventfd(1, 0));
    EXPECT(1, add(set, ends[0], EPOLLIN, 0x123456789abcdef0));
    EXPECT(1, add(set, fd, EPOLLIN | EPOLLET, 2));
    EXPECT(1, add(inner, other, EPOLLIN | EPOLLONESHOT, 3));
    EXPECT(1, add(set, inner, EPOLLIN, 4));
    /* What has been told once is silent from then on. */
    EXPECT(1, epoll_wait(inner, &event, 1, 0));
    DO(socketpair(AF_UNIX, SOCK_STREAM, 0, silent));
    EXPECT(1, add(inner, silent[0], EPOLLIN | EPOLLOUT | EPOLLONESHOT, 6));
    EXPECT(1, epoll_wait(inner, &event, 1, 0));
    /* The set still has it by the number that the pipe's other end gets now. */
    moved = eventfd(0, 0);
    EXPECT(1, add(set, moved, EPOLLIN, 5));
    int number = moved;
    DO(moved = dup(number));
    DO(dup2(ends[1], number));
    DO(close(ends[1]));
    ends[1] = number;
    return 1;
}

static int check_epoll(void)
{
    struct epoll_event events[8];
    uint64_t one = 1;
    char byte;
    EXPECT(FD_CLOEXEC, fcntl(set, F_GETFD));
    if (silent[1]) DO(close(silent[1]));
    silent[1] = 0;
    EXPECT(0, epoll_wait(inner, events, 8, 0));
    EXPECT(0, epoll_wait(set, events, 8, 0));
    EXPECT(1, write(ends[1], "x", 1));
    EXPECT(1, epoll_wait(set, events, 8, 0));
    EXPECT(1, events[0].data.u64 == 0x123456789abcdef0 && events[0].events == EPOLLIN);
    EXPECT(1, read(ends[0], &byte, 1));
    EXPECT(8, write(fd, &one, 8));
    EXPECT(1, epoll_wait(set, events, 8, 0));
    EXPECT(2, events[0].data.u64);
    EXPECT(0, epoll_wait(set, events, 8, 0));
    EXPECT(8, read(fd, &one, 8));
    EXPECT(8, write(moved, &one, 8));
    EXPECT(1, epoll_wait(set, events, 8, 0));
    EXPECT(5, events[0].data.u64);
    EXPECT(8, read(moved, &one, 8));
    events[0] = (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 3};
    DO(epoll_ctl(inner, EPOLL_CTL_MOD, other, events));
    EXPECT(1, epoll_wait(set, events, 8, 0));
    EXPECT(4, events[0].data.u64);
    EXPECT(1, epoll_wait(inner, events, 8, 0));
    EXPECT(3, events[0].data.u64);
    return 1;
}

/* The process itself. */

static int begin_process(void)
{
    DO(fd = syscall(SYS_pidfd_open, getpid(), O_NONBLOCK));
    return 1;
}

static int check_process(void)
{
    EXPECT(0, syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    EXPECT(O_NONBLOCK, fcntl(fd, F_GETFL) & O_NONBLOCK);
    EXPECT(0, readable(fd));
    char path[64], info[256];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    int file = open(path, O_RDONLY);
    info[read(file, info, sizeof info - 1)] = 0;
    close(file);
    snprintf(path, sizeof path, "Pid:\t%d\n", getpid());
    EXPECT(1, strstr(info, path) != NULL);
    return 1;
}

/* Who gets the signals of a descriptor, and which. */

static volatile sig_atomic_t told;

static void on_ready(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    told = info->si_fd;
}

static int begin_owner(void)
{
    struct sigaction action = {.sa_sigaction = on_ready, .sa_flags = SA_SIGINFO | SA_RESTART};
    DO(sigaction(SIGRTMIN + 3, &action, NULL));
    DO(pipe(ends));
    DO(fcntl(ends[0], F_SETSIG, SIGRTMIN + 3));
    DO(fcntl(ends[0], F_SETOWN, getpid()));
    DO(fcntl(ends[0], F_SETFL, O_ASYNC));
    return 1;
}

static int check_owner(void)
{
    char byte;
    told = -1;
    EXPECT(1, write(ends[1], "x", 1));
    EXPECT(ends[0], told);
    EXPECT(1, read(ends[0], &byte, 1));
    EXPECT(getpid(), fcntl(ends[0], F_GETOWN));
    EXPECT(SIGRTMIN + 3, fcntl(ends[0], F_GETSIG));
    return 1;
}

static const struct kind kinds[] = {
    {"pipe", begin_pipe, check_pipe},
    {"full-pipe", begin_full_pipe, check_full_pipe},
    {"packets", begin_packets, check_packets},
    {"half-pipes", begin_half_pipes, check_half_pipes},
    {"fifo", begin_fifo, check_fifo},
    {"counters", begin_counters, check_counters},
    {"timers", begin_timers, check_timers},
    {"signals", begin_signals, check_signals},
    {"epoll", begin_epoll, check_epoll},
    {"process", begin_process, check_process},
    {"owner", begin_owner, check_owner},
    {0},
};

int main(int argc, char **argv)
{
    return hold(kinds, argc, argv);
}
