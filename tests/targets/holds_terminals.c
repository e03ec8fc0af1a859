/* Target: pseudo-terminals of which it has both ends. See holding.h. */

#include "holding.h"
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

static unsigned round_number;
static int master, terminal, other;
static struct termios modes;
enum { KEYS = 19 }; /* of which the kernel knows */
static struct winsize size = {.ws_row = 31, .ws_col = 99, .ws_xpixel = 5, .ws_ypixel = 6};

static int begin(int raw)
{
    DO(openpty(&master, &terminal, NULL, NULL, NULL));
    DO(tcgetattr(terminal, &modes));
    if (raw)
        cfmakeraw(&modes);
    modes.c_cc[VINTR] = 7;
    modes.c_lflag &= ~ECHO;
    modes.c_oflag |= OPOST | ONLCR;
    DO(cfsetspeed(&modes, B9600));
    DO(tcsetattr(terminal, TCSANOW, &modes));
    DO(ioctl(terminal, TIOCSWINSZ, &size));
    return 1;
}

static int is_set(int end)
{
    struct termios found;
    struct winsize window;
    DO(tcgetattr(end, &found));
    EXPECT(modes.c_iflag, found.c_iflag);
    EXPECT(modes.c_oflag, found.c_oflag);
    EXPECT(modes.c_cflag, found.c_cflag);
    EXPECT(modes.c_lflag, found.c_lflag);
    EXPECT(0, memcmp(modes.c_cc, found.c_cc, KEYS));
    EXPECT(B9600, cfgetospeed(&found));
    DO(ioctl(end, TIOCGWINSZ, &window));
    EXPECT(0, memcmp(&size, &window, sizeof size));
    return 1;
}

/* Reads from an end what has to be there, which may take a moment to arrive, and nothing else. */
static int empty(int end, const void *expected, int size)
{
    unsigned char found[4096];
    for (int done = 0; done < size;) {
        struct pollfd polled = {.fd = end, .events = POLLIN};
        EXPECT(1, poll(&polled, 1, -1));
        int part = read(end, found + done, sizeof found - done);
        EXPECT(1, part > 0);
        done += part;
        EXPECT(1, done <= size);
    }
    EXPECT(0, memcmp(found, expected, size));
    EXPECT(0, readable(end));
    return 1;
}

/* One that reads lines, with nothing on its way, open twice. */

static int begin_lines(void)
{
    EXPECT(1, begin(0));
    DO(fcntl(master, F_SETFD, FD_CLOEXEC));
    DO(fcntl(master, F_SETFL, O_NONBLOCK));
    DO(other = open(ttyname(terminal), O_RDONLY | O_NOCTTY | O_NONBLOCK));
    return 1;
}

static int check_lines(void)
{
    char text[16];
    EXPECT(1, is_set(master));
    EXPECT(1, is_set(terminal));
    EXPECT(FD_CLOEXEC, fcntl(master, F_GETFD));
    EXPECT(O_NONBLOCK, fcntl(master, F_GETFL) & O_NONBLOCK);
    EXPECT(0, fcntl(terminal, F_GETFL) & O_NONBLOCK);
    EXPECT(O_NONBLOCK | O_RDONLY, fcntl(other, F_GETFL) & (O_NONBLOCK | O_ACCMODE));
    FAILS(EAGAIN, read(master, text, sizeof text));
    FAILS(EAGAIN, read(other, text, sizeof text));
    EXPECT(6, write(master, "typed\n", 6));
    EXPECT(1, empty(terminal, "typed\n", 6));
    EXPECT(3, write(terminal, "ab\n", 3));
    EXPECT(1, empty(master, "ab\r\n", 4));
    return 1;
}

/* One that reads keys, with bytes on their way in both directions. */

enum { TYPED = 3000, SHOWN = 3500 };
static unsigned char typed[TYPED], shown[SHOWN];

static int fill_both(void)
{
    fill(typed, TYPED, round_number);
    fill(shown, SHOWN, ~round_number);
    for (int i = 0; i < SHOWN; i++)
        shown[i] |= 128; /* no ends of lines, which are written as two bytes */
    EXPECT(TYPED, write(master, typed, TYPED));
    EXPECT(SHOWN, write(terminal, shown, SHOWN));
    return 1;
}

static int begin_keys(void)
{
    EXPECT(1, begin(1));
    return fill_both();
}

static int check_keys(void)
{
    EXPECT(1, is_set(terminal));
    EXPECT(1, empty(terminal, typed, TYPED));
    EXPECT(1, empty(master, shown, SHOWN));
    round_number++;
    return fill_both();
}

/* One in packet mode, whose terminal nobody else may open. */

static int begin_packets(void)
{
    int yes = 1;
    EXPECT(1, begin(1));
    DO(ioctl(master, TIOCPKT, &yes));
    DO(ioctl(terminal, TIOCEXCL));
    EXPECT(3, write(terminal, "abc", 3));
    return 1;
}

static int check_packets(void)
{
    int exclusive = 0;
    DO(ioctl(terminal, TIOCGEXCL, &exclusive));
    EXPECT(1, exclusive);
    EXPECT(1, empty(master, "\0abc", 4));
    EXPECT(3, write(terminal, "abc", 3));
    return 1;
}

/* Three of which the master alone is open: locked; unlocked; once open and closed. */

static int masters[3];

static int begin_masters(void)
{
    for (int i = 0; i < 3; i++)
        DO(masters[i] = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK));
    DO(unlockpt(masters[1]));
    DO(unlockpt(masters[2]));
    DO(close(open(ptsname(masters[2]), O_RDWR | O_NOCTTY)));
    return 1;
}

static int check_masters(void)
{
    char text[16];
    FAILS(EIO, open(ptsname(masters[0]), O_RDWR | O_NOCTTY));
    FAILS(EAGAIN, read(masters[0], text, sizeof text));
    FAILS(EAGAIN, read(masters[1], text, sizeof text));
    FAILS(EIO, read(masters[2], text, sizeof text));
    return 1;
}

static const struct kind kinds[] = {
    {"lines", begin_lines, check_lines},
    {"keys", begin_keys, check_keys},
    {"packets", begin_packets, check_packets},
    {"masters", begin_masters, check_masters},
    {0},
};

int main(int argc, char **argv)
{
    return hold(kinds, argc, argv);
}
