/* Target: files that have contents and no name, and what processes share. See holding.h. */

#include "holding.h"
#include <mqueue.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>

static int fd, other, third;
static unsigned round_number;
static unsigned char *map, *second;

/* Whole pages are in PART, be they of 64 KiB. */
enum { SIZE = 300000, PART = 65536 };
static unsigned char bytes[SIZE], found[SIZE];

/* Writes what is expected in this round into `file`, and verifies it. */

static int put(int file)
{
    fill(bytes, SIZE, round_number);
    EXPECT(SIZE, pwrite(file, bytes, SIZE, 0));
    return 1;
}

static int has(int file)
{
    struct stat status;
    DO(fstat(file, &status));
    EXPECT(SIZE, status.st_size);
    EXPECT(SIZE, pread(file, found, SIZE, 0));
    EXPECT(1, is_filled(found, SIZE, round_number));
    return 1;
}

static int open_again(int file, int flags)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return open(path, flags);
}

static int same_file(int a, int b)
{
    struct stat one, two;
    DO(fstat(a, &one));
    DO(fstat(b, &two));
    EXPECT(one.st_ino, two.st_ino);
    EXPECT(one.st_dev, two.st_dev);
    return 1;
}

/* What `/proc` shows as the name of `file`. */
static const char *name_of(int file)
{
    static char name[256];
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    ssize_t length = readlink(path, name, sizeof name - 1);
    name[length < 0 ? 0 : length] = 0;
    return name;
}

/* A memfd: with an offset, opened once more for reading, once for writing, and a duplicate. */

static int begin_memfd(void)
{
    DO(fd = memfd_create("some memory", MFD_CLOEXEC));
    DO(other = open_again(fd, O_RDONLY));
    DO(third = open_again(fd, O_WRONLY | O_APPEND));
    DO(dup(fd));
    DO(fchmod(fd, 0640));
    EXPECT(1234, lseek(fd, 1234, SEEK_SET));
    EXPECT(77, lseek(other, 77, SEEK_SET));
    return put(fd);
}

static int check_memfd(void)
{
    struct stat status;
    EXPECT(1, has(fd));
    EXPECT(1, has(other));
    EXPECT(0, strcmp(name_of(fd), "/memfd:some memory (deleted)"));
    EXPECT(1234, lseek(fd, 0, SEEK_CUR));
    EXPECT(1234, lseek(third + 1, 0, SEEK_CUR));
    EXPECT(77, lseek(other, 0, SEEK_CUR));
    EXPECT(FD_CLOEXEC, fcntl(fd, F_GETFD));
    EXPECT(O_WRONLY | O_APPEND, fcntl(third, F_GETFL) & (O_ACCMODE | O_APPEND));
    EXPECT(1, same_file(fd, other) && same_file(fd, third));
    DO(fstat(fd, &status));
    EXPECT(0640, status.st_mode & 07777);
    EXPECT(F_SEAL_SEAL, fcntl(fd, F_GET_SEALS));
    EXPECT(3, write(third, "end", 3));
    DO(ftruncate(fd, SIZE));
    round_number++;
    return put(fd);
}

/* Seals, and what else is told at the beginning. */

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x10
#endif
#define NOEXEC_SEAL 8 /* MFD_NOEXEC_SEAL, Linux 6.3 */
#define SEAL_EXEC 0x20

enum { SEALED = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL };

static int begin_sealed(void)
{
    DO(fd = memfd_create("sealed", MFD_ALLOW_SEALING));
    EXPECT(1, put(fd));
    DO(fcntl(fd, F_ADD_SEALS, SEALED));
    DO(other = memfd_create("to be sealed", MFD_ALLOW_SEALING));
    DO(ftruncate(other, SIZE));
    map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
    EXPECT(0, map == MAP_FAILED);
    DO(fcntl(other, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    fill(map, SIZE, 9);
    third = memfd_create("no program", NOEXEC_SEAL);
    return 1;
}

static int check_sealed(void)
{
    struct stat status;
    EXPECT(1, has(fd));
    EXPECT(SEALED, fcntl(fd, F_GET_SEALS));
    FAILS(EPERM, write(fd, "x", 1));
    EXPECT(F_SEAL_FUTURE_WRITE, fcntl(other, F_GET_SEALS));
    FAILS(EPERM, write(other, "x", 1));
    EXPECT(1, is_filled(map, SIZE, 9));
    EXPECT(SIZE, pread(other, found, SIZE, 0));
    EXPECT(0, memcmp(found, map, SIZE));
    if (third >= 0) {
        EXPECT(SEAL_EXEC, fcntl(third, F_GET_SEALS));
        DO(fstat(third, &status));
        EXPECT(0666, status.st_mode & 07777);
    }
    return 1;
}

/* One that is mapped twice, in part, and open. */

static int begin_mapped(void)
{
    DO(fd = memfd_create("mapped", 0));
    EXPECT(1, put(fd));
    map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    DO(other = open_again(fd, O_RDONLY));
    second = mmap(NULL, 2 * PART, PROT_READ, MAP_SHARED, other, PART);
    EXPECT(1, map != MAP_FAILED && second != MAP_FAILED);
    return 1;
}

static int check_mapped(void)
{
    EXPECT(1, has(fd));
    EXPECT(0, memcmp(map, bytes, SIZE));
    EXPECT(0, memcmp(second, bytes + PART, 2 * PART));
    FAILS(EACCES, mprotect(second, 2 * PART, PROT_READ | PROT_WRITE));
    round_number++;
    fill(map, SIZE, round_number);
    EXPECT(1, has(fd));
    EXPECT(1, put(fd));
    EXPECT(0, memcmp(map, bytes, SIZE));
    EXPECT(0, memcmp(second, bytes + PART, 2 * PART));
    return 1;
}

/* A deleted file: opened thrice, with a mode and a time of its own, and mapped. */

static int begin_deleted(void)
{
    struct timespec times[2] = {{0, UTIME_OMIT}, {1000000000, 123456789}};
    DO(fd = open("deleted", O_RDWR | O_CREAT | O_TRUNC, 0600));
    DO(other = open("deleted", O_WRONLY | O_APPEND));
    DO(third = open("deleted", O_RDONLY));
    EXPECT(1, put(fd));
    map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    second = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    EXPECT(1, map != MAP_FAILED && second != MAP_FAILED);
    second[5] = 'x';
    DO(fchmod(fd, 0400));
    DO(futimens(fd, times));
    DO(unlink("deleted"));
    EXPECT(11, lseek(third, 11, SEEK_SET));
    return 1;
}

static int check_deleted(void)
{
    struct timespec times[2] = {{0, UTIME_OMIT}, {1000000000, 123456789}};
    struct stat status;
    DO(fstat(fd, &status));
    EXPECT(0400, status.st_mode & 07777);
    EXPECT(0, status.st_nlink);
    EXPECT(1000000000, status.st_mtim.tv_sec);
    EXPECT(123456789, status.st_mtim.tv_nsec);
    EXPECT(geteuid(), status.st_uid);
    EXPECT(1, has(fd));
    EXPECT(1, has(third));
    EXPECT(11, lseek(third, 0, SEEK_CUR));
    EXPECT(0, memcmp(map, bytes, SIZE));
    EXPECT('x', second[5]);
    EXPECT(1, same_file(fd, other) && same_file(fd, third));
    EXPECT(3, write(other, "end", 3));
    EXPECT(3, pread(third, found, 3, SIZE));
    DO(ftruncate(fd, SIZE));
    round_number++;
    fill(map, SIZE, round_number);
    EXPECT(1, has(third));
    EXPECT(1, put(fd));
    DO(futimens(fd, times));
    return 1;
}

/* One in a directory that is gone, too, and one that has been mapped and closed. */

static int begin_gone(void)
{
    DO(mkdir("gone", 0700));
    DO(fd = open("gone/file", O_RDWR | O_CREAT, 0600));
    EXPECT(1, put(fd));
    DO(unlink("gone/file"));
    DO(rmdir("gone"));
    DO(other = open("closed", O_RDWR | O_CREAT, 0600));
    EXPECT(1, put(other));
    map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, other, 0);
    second = mmap(NULL, PART, PROT_READ | PROT_WRITE, MAP_SHARED, other, 2 * PART);
    EXPECT(1, map != MAP_FAILED && second != MAP_FAILED);
    DO(unlink("closed"));
    DO(close(other));
    return 1;
}

static int check_gone(void)
{
    EXPECT(1, has(fd));
    EXPECT(0, memcmp(map, bytes, SIZE));
    EXPECT(0, memcmp(second, bytes + 2 * PART, PART));
    round_number++;
    fill(map, SIZE, round_number);
    EXPECT(0, memcmp(second, map + 2 * PART, PART));
    return put(fd);
}

/* A file without a name from the beginning, of a terabyte, of which nearly all is a hole. */

#define FAR ((off_t)1 << 40)

static int begin_sparse(void)
{
    DO(fd = open(".", O_RDWR | O_TMPFILE, 0600));
    EXPECT(4, pwrite(fd, "near", 4, 1 << 20));
    EXPECT(3, pwrite(fd, "far", 3, FAR - 3));
    DO(other = memfd_create("large", 0));
    DO(ftruncate(other, FAR));
    EXPECT(4, pwrite(other, "near", 4, 0));
    return 1;
}

static int check_sparse(void)
{
    struct stat status;
    for (int i = 0; i < 2; i++) {
        DO(fstat(i ? fd : other, &status));
        EXPECT(FAR, status.st_size);
        EXPECT(1, status.st_blocks < 1024);
    }
    EXPECT(4, pread(fd, found, 4, 1 << 20));
    EXPECT(0, memcmp(found, "near", 4));
    EXPECT(3, pread(fd, found, 4, FAR - 3));
    EXPECT(0, memcmp(found, "far", 3));
    EXPECT(4, pread(other, found, 4, 0));
    EXPECT(0, memcmp(found, "near", 4));
    return 1;
}

/* Files that have lost the name that they were opened by: one has got another one in its directory, one in
 * another directory and is only read, one has been renamed. */

static int begin_renamed(void)
{
    char path[32];
    int files[3];
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "before-%d", i);
        DO(files[i] = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600));
        EXPECT(1, put(files[i]));
    }
    unlink("after-0");
    unlink("directory/after-1");
    mkdir("directory", 0700);
    DO(link("before-0", "after-0"));
    DO(unlink("before-0"));
    DO(link("before-1", "directory/after-1"));
    DO(other = open("before-1", O_RDONLY));
    DO(close(files[1]));
    DO(unlink("before-1"));
    DO(rename("before-2", "after-2"));
    fd = files[0];
    third = files[2];
    return 1;
}

static int check_renamed(void)
{
    struct stat status, there;
    EXPECT(1, has(fd) && has(other) && has(third));
    DO(fstat(fd, &status));
    DO(stat("after-0", &there));
    EXPECT(there.st_ino, status.st_ino);
    DO(fstat(third, &status));
    DO(stat("after-2", &there));
    EXPECT(there.st_ino, status.st_ino);
    return 1;
}

/* Shared memory by a name: mapped and open, mapped and closed, and without the name. */

static char names[3][64];
static unsigned char *maps[3];

static void remove_names(void)
{
    shm_unlink(names[0]);
    shm_unlink(names[1]);
    sem_unlink(names[2]);
}

static void make_names(void)
{
    for (int i = 0; i < 3; i++)
        snprintf(names[i], sizeof names[i], "/holds-memory-%d-%d", getpid(), i);
    atexit(remove_names);
}

static int begin_shared(void)
{
    int files[3];
    make_names();
    for (int i = 0; i < 3; i++) {
        DO(files[i] = shm_open(names[i], O_RDWR | O_CREAT | O_EXCL, 0640));
        DO(fchmod(files[i], 0640));
        DO(ftruncate(files[i], SIZE));
        maps[i] = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, files[i], 0);
        EXPECT(0, maps[i] == MAP_FAILED);
        fill(maps[i], SIZE, round_number + i);
    }
    fd = files[0];
    DO(close(files[1]));
    DO(other = files[2]);
    DO(shm_unlink(names[2]));
    return 1;
}

static int check_shared(void)
{
    struct stat status;
    fill(bytes, SIZE, round_number);
    EXPECT(1, has(fd));
    for (int i = 0; i < 3; i++)
        EXPECT(1, is_filled(maps[i], SIZE, round_number + i));
    EXPECT(SIZE, pread(other, found, SIZE, 0));
    EXPECT(0, memcmp(maps[2], found, SIZE));
    DO(fstat(fd, &status));
    EXPECT(0640, status.st_mode & 07777);
    for (int i = 0; i < 2; i++) {
        DO(third = shm_open(names[i], O_RDWR, 0));
        DO(fstat(third, &status));
        EXPECT(SIZE, status.st_size);
        EXPECT(SIZE, pread(third, found, SIZE, 0));
        EXPECT(0, memcmp(maps[i], found, SIZE));
        DO(close(third));
    }
    FAILS(ENOENT, shm_open(names[2], O_RDWR, 0));
    round_number++;
    for (int i = 0; i < 3; i++)
        fill(maps[i], SIZE, round_number + i);
    return 1;
}

/* Semaphores: one with a name, one whose name is gone. */

static sem_t *named, *unnamed;

static int begin_semaphores(void)
{
    make_names();
    named = sem_open(names[2], O_CREAT | O_EXCL, 0600, 3);
    EXPECT(0, named == SEM_FAILED);
    unnamed = sem_open(names[1], O_CREAT | O_EXCL, 0600, 1);
    EXPECT(0, unnamed == SEM_FAILED);
    DO(sem_unlink(names[1]));
    return 1;
}

static int check_semaphores(void)
{
    int value;
    for (int i = 0; i < 3; i++)
        DO(sem_trywait(named));
    FAILS(EAGAIN, sem_trywait(named));
    sem_t *again = sem_open(names[2], 0);
    EXPECT(0, again == SEM_FAILED);
    for (int i = 0; i < 3; i++)
        DO(sem_post(again));
    DO(sem_close(again));
    DO(sem_getvalue(named, &value));
    EXPECT(3, value);
    DO(sem_trywait(unnamed));
    FAILS(EAGAIN, sem_trywait(unnamed));
    return sem_post(unnamed) == 0;
}

/* System V shared memory: by a key, mapped twice; and one that goes with its last mapping, of which one
 * page cannot be written. */

static int id;

static void remove_segment(void)
{
    shmctl(id, IPC_RMID, NULL);
}

static int begin_segments(void)
{
    snprintf(names[0], sizeof names[0], "-%d", getpid());
    DO(id = shmget(0x5eed0000 | getpid(), SIZE, IPC_CREAT | IPC_EXCL | 0640));
    atexit(remove_segment);
    maps[0] = shmat(id, NULL, 0);
    maps[1] = shmat(id, NULL, SHM_RDONLY);
    DO(other = shmget(IPC_PRIVATE, SIZE, 0600));
    maps[2] = shmat(other, NULL, 0);
    EXPECT(1, maps[0] != (void *)-1 && maps[1] != (void *)-1 && maps[2] != (void *)-1);
    DO(shmctl(other, IPC_RMID, NULL));
    fill(maps[0], SIZE, round_number);
    fill(maps[2], SIZE, 9);
    DO(mprotect(maps[2] + getpagesize(), getpagesize(), PROT_READ));
    return 1;
}

static int check_segments(void)
{
    struct shmid_ds status;
    EXPECT(1, is_filled(maps[0], SIZE, round_number));
    EXPECT(1, is_filled(maps[2], SIZE, 9));
    EXPECT(0, memcmp(maps[0], maps[1], SIZE));
    DO(id = shmget(0x5eed0000 | atoi(strrchr(names[0], '-') + 1), 0, 0));
    DO(shmctl(id, IPC_STAT, &status));
    EXPECT(SIZE, status.shm_segsz);
    EXPECT(2, status.shm_nattch);
    EXPECT(0640, status.shm_perm.mode);
    fill(maps[0], SIZE, ++round_number);
    return 1;
}

/* System V semaphores: a set with a key, of which one is taken until the process ends, one is as nobody has
 * operated on it, and one full; and one without a key that has got a value and no operation. */

enum { FULL = 32767 };

static void remove_sets(void)
{
    semctl(id, 0, IPC_RMID);
    semctl(other, 0, IPC_RMID);
}

static int operate(int set, int number, int change, int flags)
{
    struct sembuf operation = {number, change, IPC_NOWAIT | flags};
    return semop(set, &operation, 1);
}

static int begin_sets(void)
{
    snprintf(names[0], sizeof names[0], "-%d", getpid());
    DO(id = semget(IPC_PRIVATE, 1, 0600)); /* The first id is not always free. */
    DO(semctl(id, 0, IPC_RMID));
    DO(id = semget(0x5eed0000 | getpid(), 3, IPC_CREAT | IPC_EXCL | 0640));
    DO(other = semget(IPC_PRIVATE, 1, 0600));
    atexit(remove_sets);
    DO(semctl(id, 0, SETVAL, 5));
    DO(operate(id, 0, -2, SEM_UNDO));
    DO(semctl(id, 2, SETVAL, FULL));
    DO(semctl(other, 0, SETVAL, 2));
    return 1;
}

static int check_sets(void)
{
    struct semid_ds status;
    EXPECT(id, semget(0x5eed0000 | atoi(strrchr(names[0], '-') + 1), 0, 0));
    DO(semctl(id, 0, IPC_STAT, &status));
    EXPECT(3, status.sem_nsems);
    EXPECT(0640, status.sem_perm.mode);
    EXPECT(1, status.sem_otime != 0);
    EXPECT(3 + round_number, semctl(id, 0, GETVAL));
    EXPECT(0, semctl(id, 1, GETVAL));
    EXPECT(FULL, semctl(id, 2, GETVAL));
    EXPECT(getpid(), semctl(id, 0, GETPID));
    EXPECT(0, semctl(id, 1, GETPID));
    EXPECT(getpid(), semctl(id, 2, GETPID));
    DO(semctl(other, 0, IPC_STAT, &status));
    EXPECT(0, status.sem_otime);
    EXPECT(2, semctl(other, 0, GETVAL));
    FAILS(EAGAIN, operate(id, 1, -1, 0));
    FAILS(ERANGE, operate(id, 2, 1, 0));
    DO(operate(id, 0, 1, 0));
    round_number++;
    return 1;
}

/* Message queues: one with messages of several priorities, opened twice; a full one whose name is gone. */

static mqd_t queue, writer, full;

static void remove_queue(void)
{
    mq_unlink(names[0]);
}

static int fill_queue(void)
{
    EXPECT(0, mq_send(writer, "low", 3, 0));
    EXPECT(0, mq_send(writer, "high", 4, 30000));
    EXPECT(0, mq_send(writer, "second", 6, 7));
    EXPECT(0, mq_send(writer, "", 0, 7));
    return 1;
}

static int begin_queues(void)
{
    struct mq_attr limits = {.mq_maxmsg = 7, .mq_msgsize = 64};
    make_names();
    atexit(remove_queue);
    DO(queue = mq_open(names[0], O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &limits));
    DO(fchmod(queue, 0640));
    DO(writer = mq_open(names[0], O_WRONLY));
    limits.mq_maxmsg = 1;
    DO(full = mq_open(names[1], O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &limits));
    DO(mq_unlink(names[1]));
    EXPECT(0, mq_send(full, "full", 4, 5));
    return fill_queue();
}

static int receives(mqd_t from, const char *text, unsigned priority)
{
    char message[64];
    unsigned got;
    EXPECT(strlen(text), mq_receive(from, message, sizeof message, &got));
    EXPECT(0, memcmp(message, text, strlen(text)));
    EXPECT(priority, got);
    return 1;
}

static int check_queues(void)
{
    struct mq_attr limits;
    struct stat status;
    mqd_t again;
    DO(mq_getattr(queue, &limits));
    EXPECT(7, limits.mq_maxmsg);
    EXPECT(64, limits.mq_msgsize);
    EXPECT(4, limits.mq_curmsgs);
    EXPECT(O_NONBLOCK, limits.mq_flags);
    DO(fstat(queue, &status));
    EXPECT(0640, status.st_mode & 07777);
    EXPECT(O_WRONLY, fcntl(writer, F_GETFL) & (O_ACCMODE | O_NONBLOCK));
    EXPECT(0, strcmp(name_of(queue), names[0]));
    EXPECT(1, receives(queue, "high", 30000) && receives(queue, "second", 7));
    EXPECT(1, receives(queue, "", 7) && receives(queue, "low", 0));
    FAILS(EAGAIN, mq_receive(queue, (char *)bytes, 64, NULL));
    DO(again = mq_open(names[0], O_RDWR | O_NONBLOCK));
    EXPECT(0, mq_send(again, "through the name", 16, 1));
    EXPECT(1, receives(queue, "through the name", 1));
    DO(mq_close(again));
    FAILS(EAGAIN, mq_send(full, "more", 4, 5));
    EXPECT(1, receives(full, "full", 5));
    FAILS(ENOENT, mq_open(names[1], O_RDWR));
    EXPECT(0, mq_send(full, "full", 4, 5));
    return fill_queue();
}

/* Operates on the set that another has made, whose key is the second argument. */

static const char *argument;

static int begin_user_of_set(void)
{
    DO(id = semget(atoi(argument), 0, 0));
    DO(operate(id, 0, 1, 0));
    return 1;
}

static int check_user_of_set(void)
{
    return 1;
}

static const struct kind kinds[] = {
    {"memfd", begin_memfd, check_memfd},
    {"sealed", begin_sealed, check_sealed},
    {"mapped", begin_mapped, check_mapped},
    {"deleted", begin_deleted, check_deleted},
    {"gone", begin_gone, check_gone},
    {"sparse", begin_sparse, check_sparse},
    {"renamed", begin_renamed, check_renamed},
    {"shared", begin_shared, check_shared},
    {"semaphores", begin_semaphores, check_semaphores},
    {"segments", begin_segments, check_segments},
    {"sets", begin_sets, check_sets},
    {"queues", begin_queues, check_queues},
    {"user-of-set", begin_user_of_set, check_user_of_set},
    {0},
};

int main(int argc, char **argv)
{
    argument = argv[argc - 1];
    return hold(kinds, argc, argv);
}
