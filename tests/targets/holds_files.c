/* Target: files with names, the locks on them, and what watches them. See holding.h. */

#include "holding.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int fd, other, third;

/* Calls `act` in a child, which others' locks and open files are to be looked at from; returns what it
 * does. */
static int elsewhere(int (*act)(void))
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(act());
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status)
               ? WEXITSTATUS(status)
               : -1;
}

static int ordinary_file(const char *name, int flags)
{
    return open(name, flags | O_CREAT | O_TRUNC, 0600);
}

/* Record locks of the process: shared and exclusive ones, one to the end of the file, by a file that is
 * open three times, and by one that is open for writing only. */

static struct flock lock_of(short type, off_t start, off_t length)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
}

/* What is in the way of locking byte `at` of `of` exclusively. */
static struct flock in_the_way(int of, off_t at)
{
    struct flock lock = lock_of(F_WRLCK, at, 1);
    if (fcntl(of, F_GETLK, &lock) < 0)
        lock.l_type = -1;
    return lock;
}

static int set_lock(int of, short type, off_t start, off_t length)
{
    struct flock lock = lock_of(type, start, length);
    return fcntl(of, F_SETLK, &lock);
}

static int memory;

static int begin_record_locks(void)
{
    DO(fd = ordinary_file("locked", O_RDWR));
    DO(other = open("locked", O_RDONLY));
    DO(third = ordinary_file("pid-file", O_WRONLY));
    EXPECT(100, write(third, "long line\nlong line\nlong line\nlong line\nlong line\n"
                             "long line\nlong line\nlong line\nlong line\nlong line\n", 100));
    DO(set_lock(fd, F_WRLCK, 10, 10));
    DO(set_lock(fd, F_RDLCK, 5000000000, 20));
    DO(set_lock(other, F_RDLCK, 9000000000, 0));
    DO(set_lock(third, F_WRLCK, 0, 0));
    DO(memory = memfd_create("locked", 0));
    EXPECT(4, write(memory, "data", 4));
    DO(set_lock(memory, F_WRLCK, 1, 2));
    return 1;
}

static int look_at_record_locks(void)
{
    struct flock lock = in_the_way(fd, 15);
    EXPECT(F_WRLCK, lock.l_type);
    EXPECT(10, lock.l_start);
    EXPECT(10, lock.l_len);
    EXPECT(getppid(), lock.l_pid);
    lock = in_the_way(fd, 5000000019);
    EXPECT(F_RDLCK, lock.l_type);
    EXPECT(20, lock.l_len);
    lock = in_the_way(fd, 1L << 60);
    EXPECT(F_RDLCK, lock.l_type);
    EXPECT(9000000000, lock.l_start);
    EXPECT(0, lock.l_len);
    EXPECT(F_UNLCK, in_the_way(fd, 9).l_type);
    EXPECT(F_UNLCK, in_the_way(fd, 20).l_type);
    EXPECT(F_WRLCK, in_the_way(third, 50).l_type);
    EXPECT(F_WRLCK, in_the_way(memory, 2).l_type);
    EXPECT(F_UNLCK, in_the_way(memory, 3).l_type);
    return 1;
}

static int check_record_locks(void)
{
    return elsewhere(look_at_record_locks);
}

/* Record locks of open files, two of which share a file without being in each other's way. */

static int set_own_lock(int of, short type, off_t start, off_t length)
{
    struct flock lock = lock_of(type, start, length);
    return fcntl(of, F_OFD_SETLK, &lock);
}

static int begin_own_locks(void)
{
    DO(fd = ordinary_file("locked", O_RDWR));
    DO(other = open("locked", O_RDWR));
    DO(third = dup(fd));
    DO(set_own_lock(fd, F_WRLCK, 0, 10));
    DO(set_own_lock(other, F_WRLCK, 10, 10));
    return 1;
}

static int check_own_locks(void)
{
    FAILS(EAGAIN, set_own_lock(fd, F_WRLCK, 10, 1));
    FAILS(EAGAIN, set_own_lock(other, F_WRLCK, 9, 1));
    DO(set_own_lock(third, F_WRLCK, 0, 5));
    struct flock lock = in_the_way(fd, 0);
    EXPECT(F_WRLCK, lock.l_type);
    EXPECT(-1, lock.l_pid);
    return 1;
}

/* Locks of whole files: an exclusive one, a shared one by two open files, one of a directory, one of a
 * file that has been deleted. */

static int ends[4];

static int begin_whole_locks(void)
{
    DO(fd = ordinary_file("exclusive", O_WRONLY));
    DO(flock(fd, LOCK_EX));
    DO(other = open("exclusive", O_RDONLY));
    for (int i = 0; i < 2; i++) {
        DO(ends[i] = ordinary_file("shared", O_RDONLY));
        DO(flock(ends[i], LOCK_SH));
    }
    DO(third = open(".", O_RDONLY | O_DIRECTORY));
    DO(flock(third, LOCK_EX));
    DO(ends[2] = ordinary_file("gone", O_RDWR));
    DO(ends[3] = open("gone", O_RDONLY));
    DO(unlink("gone"));
    DO(flock(ends[2], LOCK_EX));
    DO(set_lock(ends[2], F_WRLCK, 0, 3));
    return 1;
}

static int look_at_the_deleted(void)
{
    return in_the_way(ends[2], 0).l_type == F_WRLCK;
}

static int check_whole_locks(void)
{
    int again;
    FAILS(EAGAIN, flock(other, LOCK_SH | LOCK_NB));
    DO(again = open("shared", O_RDONLY));
    DO(flock(again, LOCK_SH | LOCK_NB));
    FAILS(EAGAIN, flock(again, LOCK_EX | LOCK_NB));
    DO(close(again));
    DO(again = open(".", O_RDONLY));
    FAILS(EAGAIN, flock(again, LOCK_SH | LOCK_NB));
    DO(close(again));
    EXPECT(1, elsewhere(look_at_the_deleted));
    return 1;
}

/* Leases: of a file open for reading, and of one that is open for writing. */

static int begin_leases(void)
{
    DO(close(ordinary_file("read", O_WRONLY)));
    DO(fd = open("read", O_RDONLY));
    DO(other = ordinary_file("written", O_RDWR));
    EXPECT(8, write(other, "contents", 8));
    DO(third = ordinary_file("only-written", O_WRONLY));
    EXPECT(8, write(third, "contents", 8));
    DO(fcntl(fd, F_SETLEASE, F_RDLCK));
    DO(fcntl(other, F_SETLEASE, F_WRLCK));
    DO(fcntl(third, F_SETLEASE, F_WRLCK));
    return 1;
}

static int check_leases(void)
{
    EXPECT(F_RDLCK, fcntl(fd, F_GETLEASE));
    EXPECT(F_WRLCK, fcntl(other, F_GETLEASE));
    EXPECT(F_WRLCK, fcntl(third, F_GETLEASE));
    return 1;
}

/* Watches: of a directory, of a file that is open, of a link, of a file that is deep down, of one for a
 * single event, with numbers between them that are free. */

static int watches[5];

/* Whether the next event is of watch `number`, and for `mask` and `name`. */
static int next_is(int number, uint32_t mask, const char *name)
{
    static union { struct inotify_event event; char bytes[512]; } room;
    struct inotify_event *event = &room.event;
    EXPECT(1, readable(fd));
    /* One at a time: of a size that the next one fits in, and no other. */
    int size;
    for (size_t length = sizeof *event;; length += sizeof *event)
        if ((size = read(fd, &room, length)) > 0 || length > 200)
            break;
    EXPECT(1, size >= (int)sizeof *event);
    EXPECT(number, event->wd);
    EXPECT(mask, event->mask);
    EXPECT(0, strcmp(name, event->len ? event->name : ""));
    return 1;
}

static int touch(const char *name)
{
    int touched = open(name, O_WRONLY | O_APPEND | O_CREAT, 0600);
    return touched >= 0 && write(touched, "x", 1) == 1 && close(touched) == 0;
}

static int begin_watches(void)
{
    int spare;
    DO(mkdir("watched", 0700));
    DO(mkdir("deep", 0700));
    DO(mkdir("deep/down", 0700));
    EXPECT(1, touch("deep/down/file"));
    EXPECT(1, touch("here"));
    DO(symlink("here", "link"));
    DO(other = ordinary_file("open", O_WRONLY));
    DO(fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    DO(third = dup(fd));
    DO(watches[0] = inotify_add_watch(fd, "watched", IN_CREATE | IN_DELETE | IN_ONLYDIR));
    DO(spare = inotify_add_watch(fd, "/", IN_DELETE_SELF));
    DO(watches[1] = inotify_add_watch(fd, "open", IN_MODIFY));
    DO(watches[2] = inotify_add_watch(fd, "link", IN_ATTRIB | IN_DONT_FOLLOW));
    DO(inotify_rm_watch(fd, spare));
    DO(watches[3] = inotify_add_watch(fd, "deep/down/file", IN_MODIFY));
    DO(watches[4] = inotify_add_watch(fd, "here", IN_MODIFY | IN_ONESHOT));
    EXPECT(1, next_is(spare, IN_IGNORED, ""));
    return 1;
}

static int check_watches(void)
{
    char nothing[100];
    FAILS(EAGAIN, read(fd, nothing, sizeof nothing));
    EXPECT(FD_CLOEXEC, fcntl(fd, F_GETFD));
    EXPECT(1, touch("watched/new"));
    EXPECT(1, next_is(watches[0], IN_CREATE, "new"));
    DO(unlink("watched/new"));
    EXPECT(1, next_is(watches[0], IN_DELETE, "new"));
    EXPECT(1, write(other, "x", 1));
    EXPECT(1, next_is(watches[1], IN_MODIFY, ""));
    DO(utimensat(AT_FDCWD, "link", NULL, AT_SYMLINK_NOFOLLOW));
    EXPECT(1, next_is(watches[2], IN_ATTRIB, ""));
    EXPECT(1, touch("deep/down/file"));
    EXPECT(1, next_is(watches[3], IN_MODIFY, ""));
    EXPECT(1, touch("here"));
    EXPECT(1, touch("here"));
    EXPECT(1, next_is(watches[4], IN_MODIFY, ""));
    EXPECT(1, next_is(watches[4], IN_IGNORED, ""));
    int next;
    DO(next = inotify_add_watch(fd, "here", IN_MODIFY | IN_ONESHOT));
    EXPECT(watches[4] + 1, next);
    watches[4] = next;
    FAILS(EAGAIN, read(third, nothing, sizeof nothing));
    return 1;
}

/* Directories that have been read in part: the rest is told, and then the whole once more. */

enum { ENTRIES = 300 };
static DIR *listed;
static unsigned char seen[ENTRIES];

/* Takes in `count` entries, or all that come. */
static int list(int count)
{
    struct dirent *entry;
    while (count != 0 && (entry = readdir(listed)))
        if (entry->d_name[0] != '.') {
            seen[atoi(entry->d_name)]++;
            count--;
        }
    return count;
}

static int begin_directories(void)
{
    char name[64];
    DO(mkdir("many", 0700));
    for (int i = 0; i < ENTRIES; i++) {
        snprintf(name, sizeof name, "many/%d-with-a-name-that-is-rather-long", i);
        EXPECT(1, touch(name));
    }
    EXPECT(1, (listed = opendir("many")) != NULL);
    EXPECT(0, list(20));
    return 1;
}

static int check_directories(void)
{
    list(-1);
    for (int i = 0; i < ENTRIES; i++)
        EXPECT(1, seen[i]);
    memset(seen, 0, sizeof seen);
    rewinddir(listed);
    EXPECT(0, list(100));
    struct stat status;
    EXPECT(0, fstatat(dirfd(listed), "0-with-a-name-that-is-rather-long", &status, 0) != 0);
    return 1;
}

/* Descriptors by which only a place is known (O_PATH): of a file that may not be read, a directory, a
 * link, a device. */

static int begin_places(void)
{
    EXPECT(1, touch("secret"));
    DO(chmod("secret", 0));
    DO(symlink("nowhere", "dangling"));
    DO(ends[0] = open("secret", O_PATH));
    DO(ends[1] = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    DO(ends[2] = open("dangling", O_PATH | O_NOFOLLOW));
    DO(ends[3] = open("/dev/null", O_PATH));
    return 1;
}

static int check_places(void)
{
    struct stat status;
    char target[16];
    char byte;
    DO(fstat(ends[0], &status));
    EXPECT(1, status.st_size);
    EXPECT(O_PATH, fcntl(ends[0], F_GETFL) & O_PATH);
    FAILS(EBADF, read(ends[0], &byte, 1));
    DO(fstatat(ends[1], "secret", &status, 0));
    EXPECT(FD_CLOEXEC, fcntl(ends[1], F_GETFD));
    EXPECT(7, readlinkat(ends[2], "", target, sizeof target));
    DO(fstat(ends[3], &status));
    EXPECT(1, S_ISCHR(status.st_mode));
    return 1;
}

/* Files that are written in one way or another, and plain devices. */

static int begin_writing(void)
{
    DO(ends[0] = ordinary_file("appended", O_WRONLY | O_APPEND));
    DO(ends[1] = ordinary_file("synced", O_RDWR | O_DSYNC | O_NONBLOCK));
    DO(ends[2] = open("/dev/full", O_WRONLY));
    DO(ends[3] = open("/dev/urandom", O_RDONLY));
    DO(fd = open("/dev/zero", O_RDWR | O_CLOEXEC));
    DO(other = dup(ends[1]));
    EXPECT(3, write(ends[0], "abc", 3));
    EXPECT(3, write(ends[1], "abc", 3));
    return 1;
}

static int check_writing(void)
{
    char bytes[8] = "xxxxxxx";
    struct stat status;
    EXPECT(O_APPEND | O_WRONLY, fcntl(ends[0], F_GETFL) & (O_APPEND | O_ACCMODE));
    DO(fstat(ends[0], &status));
    DO(lseek(ends[0], 0, SEEK_SET));
    EXPECT(1, write(ends[0], "d", 1));
    EXPECT(status.st_size + 1, lseek(ends[0], 0, SEEK_CUR));
    int way = O_RDWR | O_DSYNC | O_NONBLOCK;
    EXPECT(way, fcntl(ends[1], F_GETFL) & (O_ACCMODE | O_DSYNC | O_NONBLOCK));
    EXPECT(3, lseek(other, 0, SEEK_CUR));
    DO(lseek(ends[1], 0, SEEK_SET));
    EXPECT(3, read(other, bytes, sizeof bytes));
    EXPECT(0, memcmp(bytes, "abc", 3));
    FAILS(ENOSPC, write(ends[2], "x", 1));
    EXPECT(8, read(ends[3], bytes, 8));
    EXPECT(8, read(fd, bytes, 8));
    EXPECT(0, bytes[7]);
    EXPECT(FD_CLOEXEC, fcntl(fd, F_GETFD));
    return 1;
}

/* A file that never had a name. */

static int begin_nameless(void)
{
    DO(fd = open(".", O_TMPFILE | O_RDWR, 0600));
    EXPECT(8, write(fd, "contents", 8));
    return 1;
}

static int check_nameless(void)
{
    char bytes[16];
    struct stat status;
    EXPECT(8, lseek(fd, 0, SEEK_CUR));
    EXPECT(8, pread(fd, bytes, sizeof bytes, 0));
    EXPECT(0, memcmp(bytes, "contents", 8));
    DO(fstat(fd, &status));
    EXPECT(0, status.st_nlink);
    return 1;
}

/* Files of the kernel: of the process itself, which is another one after a restart, of a process that is
 * not, and of none. */

static int begin_kernel(void)
{
    char bytes[4];
    DO(ends[0] = open("/proc/self/stat", O_RDONLY));
    DO(ends[1] = open("/proc/self", O_RDONLY | O_DIRECTORY));
    DO(ends[2] = open("/proc/1/stat", O_RDONLY | O_CLOEXEC));
    DO(ends[3] = open("/sys/kernel", O_PATH));
    DO(fd = open("/proc/version", O_RDONLY));
    DO(other = open("/proc/self/comm", O_RDWR));
    DO(third = open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY));
    EXPECT(4, read(fd, bytes, 4));
    EXPECT(4, read(third, bytes, 4));
    return 1;
}

/* The number that a file begins with. */
static int number_in(int of)
{
    char text[16] = "";
    return pread(of, text, sizeof text - 1, 0) > 0 ? atoi(text) : -1;
}

static int check_kernel(void)
{
    char bytes[64], others[64];
    int file;
    EXPECT(getpid(), number_in(ends[0]));
    DO(file = openat(ends[1], "stat", O_RDONLY));
    EXPECT(getpid(), number_in(file));
    DO(close(file));
    EXPECT(1, number_in(ends[2]));
    EXPECT(FD_CLOEXEC, fcntl(ends[2], F_GETFD));
    EXPECT(0, faccessat(ends[3], "mm", F_OK, 0));
    EXPECT(4, lseek(fd, 0, SEEK_CUR));
    EXPECT(8, read(fd, bytes, 8));
    EXPECT(8, pread(fd, others, 8, 4));
    EXPECT(0, memcmp(bytes, others, 8));
    DO(lseek(fd, 4, SEEK_SET));
    EXPECT(4, lseek(third, 0, SEEK_CUR));
    EXPECT(5, write(other, "named", 5));
    DO(lseek(other, 0, SEEK_SET));
    EXPECT(6, read(other, bytes, sizeof bytes));
    EXPECT(0, memcmp(bytes, "named\n", 6));
    return 1;
}

/* Files of another thread, by its process and by its own id; and an epoll set that watches one. */

static pthread_barrier_t barrier;
static int set;
static pid_t tid;

static void *idle(void *unused)
{
    tid = syscall(SYS_gettid);
    pthread_barrier_wait(&barrier);
    for (;;)
        pause();
    return unused;
}

static int begin_threads(void)
{
    char name[64];
    pthread_t thread;
    struct epoll_event event = {.events = EPOLLPRI, .data.u64 = 7};
    pthread_barrier_init(&barrier, NULL, 2);
    EXPECT(0, pthread_create(&thread, NULL, idle, NULL));
    pthread_barrier_wait(&barrier);
    snprintf(name, sizeof name, "/proc/self/task/%d/comm", (int)tid);
    DO(ends[0] = open(name, O_RDWR));
    snprintf(name, sizeof name, "/proc/%d/comm", (int)tid);
    DO(ends[1] = open(name, O_RDONLY));
    DO(ends[2] = dup(ends[0]));
    DO(fd = open("/proc/self/mounts", O_RDONLY));
    DO(set = epoll_create1(0));
    DO(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
    return 1;
}

static int check_threads(void)
{
    char text[32];
    struct epoll_event event = {.events = EPOLLPRI};
    EXPECT(6, write(ends[2], "worker", 6));
    for (int i = 0; i < 2; i++) {
        EXPECT(7, pread(ends[i], text, sizeof text, 0));
        EXPECT(0, memcmp(text, "worker\n", 7));
    }
    DO(epoll_ctl(set, EPOLL_CTL_MOD, fd, &event));
    return 1;
}

static const struct kind kinds[] = {
    {"nameless", begin_nameless, check_nameless},
    {"kernel", begin_kernel, check_kernel},
    {"threads", begin_threads, check_threads},
    {"watches", begin_watches, check_watches},
    {"directories", begin_directories, check_directories},
    {"places", begin_places, check_places},
    {"writing", begin_writing, check_writing},
    {"record-locks", begin_record_locks, check_record_locks},
    {"own-locks", begin_own_locks, check_own_locks},
    {"whole-locks", begin_whole_locks, check_whole_locks},
    {"leases", begin_leases, check_leases},
    {0},
};

/* Works in a directory of its own. */
int main(int argc, char **argv)
{
    char name[16];
    snprintf(name, sizeof name, "%d", (int)getpid());
    if (mkdir(name, 0700) != 0 || chdir(name) != 0)
        return 1;
    return hold(kinds, argc, argv);
}
