/* Target: threads that have things of their own, and work.
 *
 *     thread_selves THREADS [FIRST]
 *
 * See crew.h. What a thread computes, its thread-local variables, its signal mask, pending signals and
 * alternate stack, its name and its scheduling are its own; so is its number, in all the places where
 * the C library keeps it. */

#include "crew.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

enum { BLOCK = 200000, MANY = 64 };

static pid_t kernel_tid(void)
{
    return (pid_t)syscall(SYS_gettid);
}

/* A chain of numbers, with what the registers of a computation are: integers and doubles. */
static uint64_t chain(uint64_t seed)
{
    double sum = 1, product = 1;

    for (int i = 0; i < BLOCK; i++) {
        seed = mix(seed);
        sum = sum / 2 + (double)(seed >> 40);
        product = product * 0.75 + sum / 3;
    }
    return mix(seed ^ (uint64_t)(sum * 1024) ^ (uint64_t)(product * 1024) << 20);
}

/* Computes all the time, if there are few; else once a round. */
static int compute(struct worker *worker)
{
    const uint64_t seed = (uint64_t)worker->variant, expected = chain(seed);

    do {
        while (worker->variant < 2 && sem_trywait(&worker->semaphore) != 0)
            EXPECT(1, chain(seed) == expected);
        if (worker->variant >= 2 && !wait_for(&worker->semaphore))
            return 0;
        EXPECT(1, chain(seed) == expected);
    } while (answer(worker, 1));
    return 1;
}

/* The same, with every signal blocked that the C library lets it block. */
static int compute_undisturbed(struct worker *worker)
{
    sigset_t full, found;

    sigfillset(&full);
    EXPECT(0, pthread_sigmask(SIG_SETMASK, &full, NULL));
    if (!compute(worker))
        return 0;
    EXPECT(0, pthread_sigmask(SIG_SETMASK, NULL, &found));
    for (int signal = 1; signal < 32; signal++)
        EXPECT(signal != SIGKILL && signal != SIGSTOP, sigismember(&found, signal));
    EXPECT(0, sigpending(&found));
    for (int signal = 1; signal <= SIGRTMAX; signal++)
        EXPECT(1, sigismember(&found, signal) <= 0); /* -1: the library's own */
    return 1;
}

static _Thread_local uint64_t initialised = 0x1234567890abcdef;
static _Thread_local uint64_t plain[100];
static pthread_key_t keys[MANY];
static pthread_once_t made_keys = PTHREAD_ONCE_INIT;

static void make_keys(void)
{
    for (int i = 0; i < MANY; i++)
        if (pthread_key_create(&keys[i], NULL) != 0)
            abort();
}

/* Not to be merged with the address of `plain`: the sum would be none that gcc can encode. */
__attribute__((noinline)) static uint64_t nth(int n)
{
    return mix(initialised + (uint64_t)n);
}

/* Thread-local variables of both kinds, and errno. */
static int have_locals(struct worker *worker)
{
    EXPECT(0, pthread_once(&made_keys, make_keys));
    EXPECT(1, initialised == 0x1234567890abcdef);
    initialised = mix((uint64_t)worker->variant);
    for (int i = 0; i < 100; i++)
        plain[i] = nth(i);
    for (int i = 0; i < MANY; i++)
        EXPECT(0, pthread_setspecific(keys[i], &plain[i]));
    errno = worker->variant + 1000;
    do {
        if (!wait_plainly(worker))
            return 0;
        EXPECT(worker->variant + 1000, errno);
        EXPECT(1, initialised == mix((uint64_t)worker->variant));
        for (int i = 0; i < 100; i++)
            EXPECT(1, plain[i] == nth(i));
        for (int i = 0; i < MANY; i++)
            EXPECT(1, pthread_getspecific(keys[i]) == &plain[i]);
    } while (answer(worker, 1));
    return 1;
}

/* Sends the calling thread a real-time signal with a value. */
static int queue_to_self(int signal, int value)
{
    siginfo_t info = {.si_signo = signal, .si_code = SI_QUEUE};

    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_int = value;
    EXPECT(0, syscall(SYS_rt_tgsigqueueinfo, getpid(), kernel_tid(), signal, &info));
    return 1;
}

/* Signals that are pending for this thread alone: one of each number, or several with values. */
static int have_pending(struct worker *worker)
{
    const struct timespec now = {0};
    const int number = SIGRTMIN + 4 + worker->variant % 8;
    sigset_t set, found;
    siginfo_t info;

    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, number);
    EXPECT(0, pthread_sigmask(SIG_BLOCK, &set, NULL));
    do {
        EXPECT(0, pthread_kill(pthread_self(), SIGUSR1));
        for (int i = 0; i < 5; i++)
            if (!queue_to_self(number, worker->variant * 10 + i))
                return 0;
        if (!wait_plainly(worker))
            return 0;
        EXPECT(0, pthread_sigmask(SIG_SETMASK, NULL, &found));
        for (int signal = 1; signal < 32; signal++)
            if (signal != SIGTERM && signal != SIGURG)
                EXPECT(signal == SIGUSR1, sigismember(&found, signal));
        EXPECT(SIGUSR1, sigtimedwait(&set, &info, &now));
        for (int i = 0; i < 5; i++) {
            EXPECT(number, sigtimedwait(&set, &info, &now));
            EXPECT(worker->variant * 10 + i, info.si_value.sival_int);
            EXPECT(SI_QUEUE, info.si_code);
        }
        EXPECT(-1, sigtimedwait(&set, &info, &now));
    } while (answer(worker, 1));
    return 1;
}

static _Thread_local struct worker *handled;

/* Waits in a handler, on the alternate stack, from round to round. */
static void wait_in_handler(int signal)
{
    stack_t stack;
    volatile char here[1000];

    (void)signal;
    memset((void *)here, 'h', sizeof here);
    do {
        if (!wait_plainly(handled) || sigaltstack(NULL, &stack) != 0 ||
            stack.ss_flags != SS_ONSTACK || (char *)stack.ss_sp > (char *)here ||
            (char *)stack.ss_sp + stack.ss_size < (char *)here) {
            answer(handled, 0);
            return;
        }
        for (size_t i = 0; i < sizeof here; i++)
            if (here[i] != 'h')
                answer(handled, 0);
    } while (answer(handled, 1));
}

static int have_stack(struct worker *worker)
{
    struct sigaction action = {.sa_handler = wait_in_handler, .sa_flags = SA_ONSTACK};
    stack_t stack = {.ss_size = 64 << 10}, found;

    stack.ss_sp = checked(malloc(stack.ss_size));
    EXPECT(0, sigaltstack(&stack, NULL));
    handled = worker;
    if (worker->variant % 2) {
        EXPECT(0, sigaction(SIGALRM, &action, NULL));
        EXPECT(0, pthread_kill(pthread_self(), SIGALRM));
    } else {
        do {
            if (!wait_plainly(worker))
                return 0;
            EXPECT(0, sigaltstack(NULL, &found));
            EXPECT(1, found.ss_sp == stack.ss_sp && found.ss_size == stack.ss_size);
            EXPECT(0, found.ss_flags);
        } while (answer(worker, 1));
    }
    EXPECT(0, sigaltstack(NULL, &found));
    EXPECT(1, found.ss_sp == stack.ss_sp);
    return 1;
}

/* Name, nice value, policy, CPUs and timer slack. */
static int have_attributes(struct worker *worker)
{
    const int policy = (int[]){SCHED_OTHER, SCHED_BATCH, SCHED_IDLE}[worker->variant % 3];
    const int nice = 1 + worker->variant % 10;
    const struct sched_param parameters = {0};
    char name[16], found[16];
    cpu_set_t cpus, found_cpus;
    int cpu = 0;

    snprintf(name, sizeof name, "thread %d", worker->variant);
    EXPECT(0, prctl(PR_SET_NAME, name));
    EXPECT(0, prctl(PR_SET_TIMERSLACK, 60000 + worker->variant));
    EXPECT(0, syscall(SYS_sched_setscheduler, 0, policy, &parameters));
    EXPECT(0, setpriority(PRIO_PROCESS, 0, nice));
    EXPECT(0, sched_getaffinity(0, sizeof cpus, &cpus));
    /* The first that it may run on, or the second. */
    for (int left = worker->variant % 2 && CPU_COUNT(&cpus) > 1; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &cpus) && left-- == 0)
            break;
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    EXPECT(0, sched_setaffinity(0, sizeof cpus, &cpus));
    do {
        if (!wait_plainly(worker))
            return 0;
        EXPECT(0, prctl(PR_GET_NAME, found));
        EXPECT(0, strcmp(name, found));
        EXPECT(60000 + worker->variant, prctl(PR_GET_TIMERSLACK));
        EXPECT(policy, syscall(SYS_sched_getscheduler, 0));
        EXPECT(nice, getpriority(PRIO_PROCESS, 0));
        EXPECT(0, sched_getaffinity(0, sizeof found_cpus, &found_cpus));
        EXPECT(1, CPU_EQUAL(&cpus, &found_cpus));
    } while (answer(worker, 1));
    return 1;
}

static _Thread_local volatile sig_atomic_t urgent;
static _Thread_local volatile pid_t urgent_tid;

static void on_urgent(int signal)
{
    (void)signal;
    urgent_tid = kernel_tid();
    urgent++;
}

static int begin_known(struct worker *worker)
{
    struct sigaction action = {.sa_handler = on_urgent, .sa_flags = SA_RESTART};

    (void)worker;
    EXPECT(0, sigaction(SIGURG, &action, NULL));
    return 1;
}

/* The thread is found by its pthread_t, and by its number. */
static int be_known(struct worker *worker)
{
    const struct sched_param parameters = {0};
    struct sched_param found;
    struct timespec time;
    clockid_t clock;
    cpu_set_t cpus;
    int policy;

    do {
        int before;

        worker->tid = kernel_tid();
        if (!wait_for(&worker->semaphore))
            return 0;
        before = urgent;
        EXPECT(0, raise(SIGURG));
        EXPECT(before + 1, urgent);
        EXPECT(0, pthread_kill(pthread_self(), SIGURG));
        EXPECT(before + 2, urgent);
        EXPECT(0, syscall(SYS_tgkill, getpid(), kernel_tid(), SIGURG));
        EXPECT(before + 3, urgent);
        EXPECT(kernel_tid(), urgent_tid);
        EXPECT(1, pthread_equal(pthread_self(), worker->thread) != 0);
        EXPECT(syscall(SYS_getpid), getpid());
        EXPECT(0, pthread_getschedparam(pthread_self(), &policy, &found));
        EXPECT(0, pthread_setschedparam(pthread_self(), SCHED_OTHER, &parameters));
        EXPECT(0, pthread_getcpuclockid(pthread_self(), &clock));
        EXPECT(0, clock_gettime(clock, &time));
        EXPECT(0, sched_getaffinity(kernel_tid(), sizeof cpus, &cpus));
    } while (answer(worker, 1));
    return 1;
}

/* Another one sends it a signal, asks for its clock, and lets it go on. */
static int wake_known(struct worker *worker)
{
    struct timespec time;
    clockid_t clock;

    EXPECT(0, pthread_kill(worker->thread, SIGURG));
    EXPECT(0, pthread_getcpuclockid(worker->thread, &clock));
    EXPECT(0, clock_gettime(clock, &time));
    return wake_by_semaphore(worker);
}

static const struct role roles[] = {
    {"computation", NULL, compute, wake_by_semaphore, NULL},
    {"blocked signals", NULL, compute_undisturbed, wake_by_semaphore, NULL},
    {"locals", NULL, have_locals, wake_plainly, NULL},
    {"pending signals", NULL, have_pending, wake_plainly, NULL},
    {"alternate stack", NULL, have_stack, wake_plainly, NULL},
    {"attributes", NULL, have_attributes, wake_plainly, NULL},
    {"numbers", begin_known, be_known, wake_known, NULL},
};

int main(int argc, char **argv)
{
    return crew_main(roles, sizeof roles / sizeof *roles, argc, argv);
}
