/* load: many LMTP sessions at once, to try a receiver with.
 *
 *     load SOCKET SESSIONS RECIPIENT
 *
 * Every session sends one message and waits for the reply; none begins to send its content before
 * all of them may. Prints how many were stored. One thread, epoll.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct session {
    int fd;
    unsigned lines; /* complete lines that the server has sent */
    int is_ok;
};

/* What the server sends before the content: greeting, three lines for LHLO, MAIL, RCPT, DATA. */
enum { LINES_BEFORE_CONTENT = 7 };

static void send_all(int fd, const char *text) {
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text)) {
        perror("load: send");
        exit(1);
    }
}

/* Reads what there is; the number of lines so far. */
static unsigned lines(struct session *session) {
    char text[512];
    ssize_t got = recv(session->fd, text, sizeof text - 1, MSG_DONTWAIT);
    if (got <= 0) {
        fprintf(stderr, "load: the server closed a session\n");
        exit(1);
    }
    text[got] = '\0';
    for (char *line = text; *line != '\0'; line++)
        session->lines += *line == '\n';
    session->is_ok = strncmp(text, "250 2.0.0", 9) == 0;
    return session->lines;
}

/* Waits until every session has had so many lines. */
static void until(int epoll, struct session *sessions, unsigned long count, unsigned wanted) {
    struct epoll_event events[256];
    unsigned long ready = 0;
    for (unsigned long i = 0; i < count; i++)
        ready += sessions[i].lines >= wanted;
    while (ready < count) {
        int got = epoll_wait(epoll, events, 256, 120000);
        if (got <= 0) {
            fprintf(stderr, "load: only %lu of %lu sessions went on\n", ready, count);
            exit(1);
        }
        for (int i = 0; i < got; i++) {
            struct session *session = events[i].data.ptr;
            unsigned before = session->lines;
            ready += before < wanted && lines(session) >= wanted;
        }
    }
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct rlimit files;
    unsigned long count = argc == 4 ? strtoul(argv[2], NULL, 10) : 0, stored = 0;
    struct session *sessions = calloc(count ? count : 1, sizeof *sessions);
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (count == 0 || sessions == NULL) {
        fprintf(stderr, "usage: load SOCKET SESSIONS RECIPIENT\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", argv[1]);
    for (unsigned long i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &sessions[i]};
        char commands[512];
        sessions[i].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (sessions[i].fd < 0 ||
            connect(sessions[i].fd, (struct sockaddr *)&address, sizeof address) != 0) {
            perror("load: connect");
            return 1;
        }
        epoll_ctl(epoll, EPOLL_CTL_ADD, sessions[i].fd, &event);
        snprintf(commands, sizeof commands,
                 "LHLO load\r\nMAIL FROM:<load@example.org>\r\nRCPT TO:<%s>\r\nDATA\r\n", argv[3]);
        send_all(sessions[i].fd, commands);
    }
    until(epoll, sessions, count, LINES_BEFORE_CONTENT);
    for (unsigned long i = 0; i < count; i++) {
        char content[256];
        snprintf(content, sizeof content, "Subject: load %lu\r\n\r\nmessage %lu\r\n.\r\n", i, i);
        send_all(sessions[i].fd, content);
    }
    printf("sent %lu\n", count);
    fflush(stdout);
    until(epoll, sessions, count, LINES_BEFORE_CONTENT + 1);
    for (unsigned long i = 0; i < count; i++) {
        stored += (unsigned long)sessions[i].is_ok;
        send_all(sessions[i].fd, "QUIT\r\n");
    }
    printf("stored %lu\n", stored);
    free(sessions);
    return stored == count ? 0 : 1;
}
