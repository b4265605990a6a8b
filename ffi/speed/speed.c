/* speed: how fast the library is from C, and LMTP beside it; `ffi/speed/run` runs all of it.
 *
 *     speed deliver CONFIG SECONDS IN_FLIGHT     in process, one thread, that many in flight
 *     speed lmtp SOCKET PID SECONDS SESSIONS     the same by sessions of a server with this PID
 *     speed calls CONFIG MAP                     nanoseconds of single calls
 *
 * Messages of 4 KiB, each to one of 64 Maildirs u0@example.com to u63@example.com. Prints messages
 * per second and microseconds of processor time for each: of this process, and of the server.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <mailstow.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { MAILBOXES = 64, BYTES = 4096, DRAINED = 64 };

static char content[2 * BYTES];
static unsigned long number;

static void die(const char *what) {
    fprintf(stderr, "speed: %s\n", what);
    exit(1);
}

static void want(mailstow_result result, const char *what) {
    if (result != MAILSTOW_OK) {
        fprintf(stderr, "speed: %s: %s\n", what, mailstow_result_text(result));
        exit(1);
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Processor time of this process, in seconds. */
static double used(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* That of another process. */
static double used_by(const char *pid) {
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%s/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL || fgets(text, sizeof text, file) == NULL)
        die("the server is not there");
    fclose(file);
    const char *end = strrchr(text, ')');
    if (end == NULL ||
        sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        die("/proc is odd");
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

/* The next message, with line ends for the wire or for the store. Only its number is written anew,
   so that what is measured is not the making of messages. */
static size_t next_content(const char *line_end) {
    static size_t length, number_at;
    if (length == 0) {
        number_at = (size_t)sprintf(content, "From: load@example.org%sSubject: ", line_end);
        length = number_at + (size_t)sprintf(content + number_at, "%010lu%s%s", number, line_end,
                                             line_end);
        while (length < BYTES)
            length += (size_t)sprintf(content + length, "%.*s%s", 76,
                                      "The quick brown fox jumps over the lazy dog, and it does so "
                                      "again and again. ",
                                      line_end);
    }
    unsigned long rest = number++;
    for (size_t digit = 10; digit > 0; digit--, rest /= 10)
        content[number_at + digit - 1] = (char)('0' + rest % 10);
    return length;
}

static void report(const char *what, unsigned long count, double time, double own, double server) {
    printf("%s: %.0f messages/s, %.1f us of processor time each (this process %.1f, server %.1f)\n",
           what, (double)count / time, (own + server) / (double)count * 1e6,
           own / (double)count * 1e6, server / (double)count * 1e6);
}

static mailstow *open_handle(const char *file, uint32_t mode) {
    mailstow_config *config = NULL;
    mailstow *handle = NULL;
    mailstow_error *error = NULL;
    want(mailstow_config_new(&config), "config");
    want(mailstow_config_set_file(config, file), file);
    mailstow_result result = mailstow_open(config, mode, &handle, &error);
    for (size_t i = 0; i < mailstow_error_count(error); i++)
        fprintf(stderr, "speed: %s\n", mailstow_error_text(error, i));
    want(result, "open");
    mailstow_config_free(config);
    return handle;
}

static void submit(mailstow *handle, unsigned long slot) {
    char address[64];
    mailstow_message *message = NULL;
    mailstow_recipient recipient = {.struct_size = sizeof recipient, .address = address};
    recipient.address_length =
        (size_t)sprintf(address, "u%lu@example.com", slot % MAILBOXES);
    want(mailstow_message_new(handle, &message), "message");
    want(mailstow_message_set_sender(message, "load@example.org", 16), "sender");
    want(mailstow_message_add_recipient(message, &recipient, NULL), address);
    want(mailstow_message_write(message, content, next_content("\n"), NULL), "content");
    want(mailstow_submit(handle, message, slot), "submit");
}

static void deliver(const char *file, double seconds, unsigned long in_flight) {
    mailstow *handle = open_handle(file, MAILSTOW_MODE_LOGGED);
    struct pollfd finished = {.events = POLLIN};
    mailstow_completion done[DRAINED];
    unsigned long count = 0, open = in_flight;
    want(mailstow_event_fd(handle, &finished.fd), "eventfd");
    double begun = now(), own = used(), end = begun + seconds, last = begun;
    for (unsigned long slot = 0; slot < in_flight; slot++)
        submit(handle, slot);
    while (open > 0) {
        size_t got = 0;
        done[0].struct_size = sizeof done[0];
        poll(&finished, 1, 60000);
        want(mailstow_drain(handle, done, DRAINED, &got), "drain");
        last = now();
        for (size_t i = 0; i < got; i++) {
            if (mailstow_results_exit_status(done[i].results) != 0)
                die("a message was not stored");
            want(mailstow_confirm(done[i].results), "confirm");
            mailstow_results_free(done[i].results);
            count++;
            if (last < end)
                submit(handle, done[i].token);
            else
                open--;
        }
    }
    report("in process", count, last - begun, used() - own, 0);
    mailstow_close(handle);
}

struct session {
    int fd;
    unsigned long slot;
    int lines_to_content, is_content;
    unsigned skipped;
};

static void send_all(int fd, const char *text, size_t length) {
    if (send(fd, text, length, MSG_NOSIGNAL) != (ssize_t)length)
        die("the server takes no more");
}

static void send_commands(struct session *session) {
    char commands[256];
    int length = sprintf(commands, "MAIL FROM:<load@example.org>\r\nRCPT TO:<u%lu@example.com>\r\n"
                                   "DATA\r\n",
                         session->slot % MAILBOXES);
    session->lines_to_content = 3;
    send_all(session->fd, commands, (size_t)length);
}

/* Whether one more message is stored. */
static int answered(struct session *session) {
    char text[4096];
    int is_stored = 0;
    ssize_t got = recv(session->fd, text, sizeof text - 1, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got <= 0)
        die("the server closed a session");
    text[got] = '\0';
    for (char *line = text; *line != '\0';) {
        char *next = strchr(line, '\n');
        if (next == NULL)
            die("half a reply");
        if (session->is_content) {
            if (strncmp(line, "250 ", 4) != 0)
                die(line);
            session->is_content = 0;
            is_stored = 1;
        } else if (line[3] != '-' && --session->lines_to_content == 0) {
            size_t length = next_content("\r\n");
            memcpy(content + length, ".\r\n", 4);
            session->is_content = 1;
            send_all(session->fd, content, length + 3);
        }
        line = next + 1;
    }
    return is_stored;
}

static void lmtp(const char *path, const char *pid, double seconds, unsigned long count) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct session *sessions = calloc(count, sizeof *sessions);
    struct epoll_event events[64];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    unsigned long stored = 0, open = count;
    if (sessions == NULL)
        die("no memory");
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    double begun = now(), own = used(), server = used_by(pid), end = begun + seconds, last = begun;
    for (unsigned long i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &sessions[i]};
        char text[4096];
        sessions[i].slot = i;
        sessions[i].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(sessions[i].fd, (struct sockaddr *)&address, sizeof address) != 0)
            die("the server cannot be reached");
        if (recv(sessions[i].fd, text, sizeof text, 0) <= 0)
            die("no greeting");
        send_all(sessions[i].fd, "LHLO load\r\n", 11);
        if (recv(sessions[i].fd, text, sizeof text, 0) <= 0)
            die("no answer to LHLO");
        epoll_ctl(epoll, EPOLL_CTL_ADD, sessions[i].fd, &event);
        send_commands(&sessions[i]);
    }
    while (open > 0) {
        int got = epoll_wait(epoll, events, 64, 60000);
        if (got <= 0)
            die("the server does not answer");
        last = now();
        for (int i = 0; i < got; i++) {
            struct session *session = events[i].data.ptr;
            if (!answered(session))
                continue;
            stored++;
            if (last < end) {
                send_commands(session);
            } else {
                close(session->fd);
                open--;
            }
        }
    }
    report("LMTP", stored, last - begun, used() - own, used_by(pid) - server);
    free(sessions);
}

#define EACH(times, what, call) \
    do { \
        double best_ = 1e9; \
        for (int round_ = 0; round_ < 100; round_++) { \
            double begun_ = now(); \
            for (unsigned long i = 0; i < (times); i++) \
                call; \
            double each_ = (now() - begun_) / (double)(times)*1e9; \
            best_ = each_ < best_ ? each_ : best_; \
        } \
        printf("C %s: %.0f ns\n", what, best_); \
    } while (0)

static void calls(const char *file, const char *path) {
    mailstow *handle = open_handle(file, MAILSTOW_MODE_DIRECT);
    mailstow_map *map = NULL;
    mailstow_reply reply = {.struct_size = sizeof reply};
    mailstow_resolution *resolution = NULL;
    char value[256];
    uint32_t mode;
    want(mailstow_map_open(path, &map, NULL), path);
    want(mailstow_map_lookup(map, "virtual_mailbox_maps", "u7@example.com", 14, value,
                             sizeof value, NULL),
         "lookup");
    EACH(200000UL, "call that does nothing", mailstow_mode(handle, &mode));
    EACH(50000UL, "map lookup",
         mailstow_map_lookup(map, "virtual_mailbox_maps", "u7@example.com", 14, value,
                             sizeof value, NULL));
    EACH(4000UL, "check of a recipient",
         mailstow_check_recipient(handle, "u7@example.com", 14, 0, &reply));
    EACH(4000UL, "resolution", do {
        want(mailstow_resolve(handle, "u7@example.com", 14, &resolution), "resolve");
        mailstow_resolution_free(resolution);
    } while (0));
    mailstow_map_close(map);
    mailstow_close(handle);
}

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "deliver") == 0)
        deliver(argv[2], atof(argv[3]), strtoul(argv[4], NULL, 10));
    else if (argc == 6 && strcmp(argv[1], "lmtp") == 0)
        lmtp(argv[2], argv[3], atof(argv[4]), strtoul(argv[5], NULL, 10));
    else if (argc == 4 && strcmp(argv[1], "calls") == 0)
        calls(argv[2], argv[3]);
    else
        die("usage: see the head of speed.c");
    return 0;
}
