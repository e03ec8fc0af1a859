/* Target: System V messages. See holding.h. */

#include "holding.h"
#include <sys/msg.h>

enum { LONGEST = 8192 };

static struct message {
    long type;
    unsigned char text[LONGEST];
} message;

static int id, other, original;
static unsigned round_number;
static const char *argument;

static void remove_queues(void)
{
    msgctl(id, IPC_RMID, NULL);
    msgctl(other, IPC_RMID, NULL);
}

static int key(void)
{
    return 0x5eed0000 | original;
}

static int make(void)
{
    original = getpid();
    DO(id = msgget(key(), IPC_CREAT | IPC_EXCL | 0640));
    DO(other = msgget(IPC_PRIVATE, 0600));
    atexit(remove_queues);
    return 1;
}

/* A message of `length` bytes that nobody else would send, by `seed`. */

static int put(int queue, long type, size_t length, unsigned seed)
{
    message.type = type;
    fill(message.text, length, seed);
    EXPECT(0, msgsnd(queue, &message, length, IPC_NOWAIT));
    return 1;
}

static int gets(int queue, long wanted, long type, size_t length, unsigned seed)
{
    EXPECT(length, msgrcv(queue, &message, LONGEST, wanted, IPC_NOWAIT));
    EXPECT(type, message.type);
    EXPECT(1, is_filled(message.text, length, seed));
    return 1;
}

static int has(int queue, unsigned long messages, unsigned long bytes, unsigned long room, int mode)
{
    struct msqid_ds status;
    DO(msgctl(queue, IPC_STAT, &status));
    EXPECT(messages, status.msg_qnum);
    EXPECT(bytes, status.msg_cbytes);
    EXPECT(room, status.msg_qbytes);
    EXPECT(mode, status.msg_perm.mode);
    EXPECT(geteuid(), status.msg_perm.uid);
    EXPECT(1, status.msg_lspid == getpid() || status.msg_lrpid == getpid());
    return 1;
}

/* How many bytes a queue may have, if that is `wanted`, or else as many as anybody may have. */

static unsigned long let_have(int queue, unsigned long wanted)
{
    struct msqid_ds status;
    if (msgctl(queue, IPC_STAT, &status) == 0 && status.msg_qbytes != wanted) {
        unsigned long before = status.msg_qbytes;
        status.msg_qbytes = wanted;
        if (msgctl(queue, IPC_SET, &status) != 0)
            return before;
    }
    return wanted;
}

static unsigned long usual(void)
{
    struct msqid_ds status;
    return msgctl(id, IPC_STAT, &status) == 0 ? status.msg_qbytes : 0;
}

/* Messages of several types and lengths. */

static unsigned long room;

static int fill_types(void)
{
    return put(id, 5, 11, round_number) && put(id, 1, 0, 0) && put(id, 1L << 40, 1, round_number) &&
           put(id, 5, 5000, round_number + 1) && put(id, 3, LONGEST, round_number);
}

static int begin_types(void)
{
    EXPECT(1, make());
    room = usual();
    EXPECT(1, put(other, 9, 3, 9));
    return fill_types();
}

static int check_types(void)
{
    EXPECT(id, msgget(key(), 0));
    EXPECT(1, has(id, 5, 11 + 1 + 5000 + LONGEST, room, 0640));
    EXPECT(1, has(other, 1, 3, room, 0600));
    EXPECT(1, gets(id, 5, 5, 11, round_number));
    EXPECT(1, gets(id, -4, 1, 0, 0));
    EXPECT(1, gets(id, 0, 1L << 40, 1, round_number));
    EXPECT(1, gets(id, 0, 5, 5000, round_number + 1));
    EXPECT(1, gets(id, 0, 3, LONGEST, round_number));
    FAILS(ENOMSG, msgrcv(id, &message, LONGEST, 0, IPC_NOWAIT));
    EXPECT(1, gets(other, 0, 9, 3, 9));
    EXPECT(1, put(other, 9, 3, 9));
    round_number++;
    return fill_types();
}

/* One with as many messages as it may have, and one that may have fewer than are in it. */

enum { MESSAGES = 10, FEWER = 3 };

static int begin_full(void)
{
    EXPECT(1, make());
    EXPECT(MESSAGES, let_have(id, MESSAGES));
    for (int i = 0; i < MESSAGES; i++)
        EXPECT(1, put(id, i + 1, 0, 0) && put(other, i + 1, 0, 0));
    EXPECT(FEWER, let_have(other, FEWER));
    return 1;
}

static int check_full(void)
{
    EXPECT(1, has(id, MESSAGES, 0, MESSAGES, 0640));
    EXPECT(1, has(other, MESSAGES, 0, FEWER, 0600));
    message.type = 1;
    FAILS(EAGAIN, msgsnd(id, &message, 0, IPC_NOWAIT));
    FAILS(EAGAIN, msgsnd(other, &message, 0, IPC_NOWAIT));
    EXPECT(MESSAGES, let_have(other, MESSAGES));
    for (int i = 0; i < MESSAGES; i++) {
        EXPECT(1, gets(id, 0, i + 1, 0, 0) && put(id, i + 1, 0, 0));
        EXPECT(1, gets(other, 0, i + 1, 0, 0) && put(other, i + 1, 0, 0));
    }
    EXPECT(FEWER, let_have(other, FEWER));
    return 1;
}

/* Two that are empty: one has room for nothing. */

static int begin_empty(void)
{
    EXPECT(1, make());
    room = usual();
    EXPECT(1, put(id, 1, 3, 3) && gets(id, 0, 1, 3, 3));
    EXPECT(1, put(other, 1, 3, 3) && gets(other, 0, 1, 3, 3));
    EXPECT(0, let_have(other, 0));
    return 1;
}

static int check_empty(void)
{
    EXPECT(1, has(id, 0, 0, room, 0640));
    EXPECT(1, has(other, 0, 0, 0, 0600));
    return put(id, 1, 3, 3) && gets(id, 0, 1, 3, 3);
}

/* As many messages as anybody may have in a queue; and with a privilege more of them than that. */

enum { SHORT = 3000, MANY = 1 << 20 };

static unsigned count;

static int begin_many(void)
{
    EXPECT(1, make());
    for (int i = 0; i < SHORT; i++)
        EXPECT(1, put(id, 1 + i % 7, i % 2, i));
    room = let_have(other, MANY);
    for (count = 0; (count + 1) * LONGEST <= room; count++)
        EXPECT(1, put(other, 1, LONGEST, count));
    return 1;
}

static int check_many(void)
{
    EXPECT(1, has(other, count, (unsigned long)count * LONGEST, room, 0600));
    for (int i = 0; i < SHORT; i++)
        EXPECT(1, gets(id, 0, 1 + i % 7, i % 2, i) && put(id, 1 + i % 7, i % 2, i));
    for (unsigned i = 0; i < count; i++)
        EXPECT(1, gets(other, 0, 1, LONGEST, i) && put(other, 1, LONGEST, i));
    return 1;
}

/* With a privilege: one that may have more than others, and one with more messages than the library reads. */

enum { CROWD = 40000 };

static int begin_raised(void)
{
    EXPECT(1, make());
    room = usual();
    EXPECT(MANY, let_have(other, MANY));
    return put(id, 1, 3, 3) && put(other, 1, 3, 3);
}

static int check_raised(void)
{
    EXPECT(1, has(id, 1, 3, room, 0640));
    EXPECT(1, has(other, 1, 3, MANY, 0600));
    return 1;
}

static int begin_crowd(void)
{
    EXPECT(1, make());
    EXPECT(CROWD, let_have(id, CROWD));
    for (int i = 0; i < CROWD; i++)
        EXPECT(1, put(id, 1, 0, 0));
    return 1;
}

/* One that nobody may send to. */

static int permit(int queue, int mode)
{
    struct msqid_ds status;
    DO(msgctl(queue, IPC_STAT, &status));
    status.msg_perm.mode = mode;
    return msgctl(queue, IPC_SET, &status) == 0;
}

static int begin_read_only(void)
{
    EXPECT(1, make());
    room = usual();
    EXPECT(1, put(id, 1, 3, 3));
    EXPECT(1, permit(id, 0444));
    return put(other, 1, 3, 3);
}

static int check_read_only(void)
{
    EXPECT(1, has(id, 1, 3, room, 0444));
    EXPECT(1, permit(id, 0600));
    EXPECT(1, gets(id, 0, 1, 3, 3) && put(id, 1, 3, 3));
    return permit(id, 0444);
}

/* Sends to the queue that another has made, whose key is the second argument. */

static int begin_user(void)
{
    DO(id = msgget(atoi(argument), 0));
    return put(id, 77, 3, 3);
}

static int check_user(void)
{
    return gets(id, 77, 77, 3, 3);
}

static const struct kind kinds[] = {
    {"types", begin_types, check_types},
    {"full", begin_full, check_full},
    {"empty", begin_empty, check_empty},
    {"many", begin_many, check_many},
    {"raised", begin_raised, check_raised},
    {"crowd", begin_crowd, check_user},
    {"read-only", begin_read_only, check_read_only},
    {"user", begin_user, check_user},
    {0},
};

int main(int argc, char **argv)
{
    argument = argv[argc - 1];
    return hold(kinds, argc, argv);
}
