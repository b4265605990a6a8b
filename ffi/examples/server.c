/* server: receives mail over LMTP on a UNIX-domain socket and stores it. One thread, epoll.
 *
 *     server CONFIG SOCKET
 *
 * Any number of deliveries are in flight while the thread serves other clients: messages are
 * submitted, and the library's eventfd wakes the loop when some have finished. Prints how many on
 * SIGUSR1, and what it did when SIGTERM ends it. A small LMTP: no extensions but those that cost
 * nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <mailstow.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2048, EVENTS = 256, DRAINED = 256 };

enum state { COMMANDS, CONTENT, IN_FLIGHT, WAITING_FOR_ROOM, CLOSING };

struct client {
    int fd;
    enum state state;
    mailstow_message *message;
    size_t recipients;
    /* Replies that the client has not been sent, and those that wait for the next command. */
    mailstow_results *unconfirmed;
    struct client *next_waiting;
    struct client *next, **link; /* the list of all */
    size_t in_length;
    char in[LINE_MAX_BYTES];
};

static mailstow *handle;
static int epoll;
static struct client *clients;
static struct client *waiting; /* messages that the library had no room for */
static uint64_t in_flight, in_flight_peak, stored, refused;
static volatile sig_atomic_t stop, asked;

static void on_signal(int number) {
    if (number == SIGUSR1)
        asked = 1;
    else
        stop = 1;
}

static void die(const char *what, mailstow_result result, mailstow_error *error) {
    fprintf(stderr, "server: %s: %s\n", what, mailstow_result_text(result));
    for (size_t i = 0; i < mailstow_error_count(error); i++)
        fprintf(stderr, "server: %s\n", mailstow_error_text(error, i));
    exit(1);
}

/* Replies are short and sockets take them; a client that reads none is cut off. */
static void say(struct client *client, const char *line) {
    size_t length = strlen(line);
    if (send(client->fd, line, length, MSG_NOSIGNAL) != (ssize_t)length)
        client->state = CLOSING;
}

static void forget(struct client *client) {
    mailstow_message_free(client->message);
    client->message = NULL;
    client->recipients = 0;
}

/* The client goes on: it has read what it was told. */
static void confirm(struct client *client) {
    if (client->unconfirmed != NULL) {
        mailstow_confirm(client->unconfirmed);
        mailstow_results_free(client->unconfirmed);
        client->unconfirmed = NULL;
    }
}

static void hang_up(struct client *client) {
    forget(client);
    mailstow_results_free(client->unconfirmed); /* not confirmed: in doubt */
    close(client->fd);
    *client->link = client->next;
    if (client->next != NULL)
        client->next->link = client->link;
    free(client);
}

static void submit(struct client *client) {
    mailstow_result result =
        mailstow_submit(handle, client->message, (uint64_t)(uintptr_t)client);
    if (result == MAILSTOW_OK) {
        client->message = NULL; /* the library has it now */
        client->state = IN_FLIGHT;
        in_flight += client->recipients;
        if (in_flight > in_flight_peak)
            in_flight_peak = in_flight;
    } else if (result == MAILSTOW_BUSY) {
        client->state = WAITING_FOR_ROOM;
        client->next_waiting = waiting;
        waiting = client;
    } else {
        client->state = COMMANDS;
        for (size_t i = 0; i < client->recipients; i++)
            say(client, "451 4.3.0 cannot be delivered now\r\n");
        forget(client);
    }
}

static void land(struct client *client, mailstow_results *results) {
    char line[1024];
    in_flight -= client->recipients;
    client->recipients = 0;
    client->state = COMMANDS;
    for (size_t i = 0; i < mailstow_results_count(results); i++) {
        mailstow_outcome outcome = {.struct_size = sizeof outcome};
        mailstow_results_outcome(results, i, &outcome);
        *(outcome.state == MAILSTOW_DURABLE ? &stored : &refused) += 1;
        snprintf(line, sizeof line, "%u %s %s\r\n", outcome.code, outcome.enhanced, outcome.text);
        say(client, line);
    }
    client->unconfirmed = results;
}

/* The address between < and >. */
static const char *address_in(const char *line, size_t *length) {
    const char *start = strchr(line, '<'), *end = start ? strrchr(start, '>') : NULL;
    *length = end ? (size_t)(end - start - 1) : 0;
    return end ? start + 1 : "";
}

static void rcpt(struct client *client, const char *line) {
    mailstow_recipient recipient = {.struct_size = sizeof recipient};
    mailstow_reply reply = {.struct_size = sizeof reply};
    char answer[sizeof reply.text + 32];
    recipient.address = address_in(line, &recipient.address_length);
    mailstow_result result =
        mailstow_message_add_recipient(client->message, &recipient, &reply);
    if (result != MAILSTOW_OK && result != MAILSTOW_REFUSED) {
        say(client, "503 5.5.1 MAIL first\r\n");
        return;
    }
    client->recipients += result == MAILSTOW_OK;
    snprintf(answer, sizeof answer, "%u %s %s\r\n", reply.code, reply.enhanced, reply.text);
    say(client, answer);
}

static void command(struct client *client, const char *line) {
    size_t length;
    confirm(client);
    if (strncasecmp(line, "LHLO", 4) == 0) {
        say(client, "250-localhost\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES\r\n");
    } else if (strncasecmp(line, "MAIL FROM:", 10) == 0) {
        const char *sender = address_in(line, &length);
        forget(client);
        if (mailstow_message_new(handle, &client->message) != MAILSTOW_OK) {
            say(client, "452 4.3.2 too many messages\r\n");
        } else if (mailstow_message_set_sender(client->message, sender, length) != MAILSTOW_OK) {
            forget(client);
            say(client, "501 5.1.7 bad sender\r\n");
        } else {
            mailstow_message_set_form(client->message, MAILSTOW_CONTENT_WIRE);
            say(client, "250 2.1.0 ok\r\n");
        }
    } else if (strncasecmp(line, "RCPT TO:", 8) == 0) {
        rcpt(client, line);
    } else if (strcasecmp(line, "DATA") == 0) {
        if (client->recipients == 0) {
            say(client, "503 5.5.1 no recipients\r\n");
        } else {
            client->state = CONTENT;
            say(client, "354 go on\r\n");
        }
    } else if (strcasecmp(line, "QUIT") == 0) {
        say(client, "221 2.0.0 bye\r\n");
        client->state = CLOSING;
    } else if (strcasecmp(line, "RSET") == 0 || strcasecmp(line, "NOOP") == 0) {
        if (line[0] == 'R' || line[0] == 'r')
            forget(client);
        say(client, "250 2.0.0 ok\r\n");
    } else {
        say(client, "500 5.5.2 what?\r\n");
    }
}

/* Uses what has been read, as far as it goes; what follows a message waits for its replies. */
static void go_on(struct client *client) {
    size_t used = 0;
    while (used < client->in_length) {
        char *start = client->in + used;
        size_t left = client->in_length - used;
        if (client->state == CONTENT) {
            size_t taken = 0;
            mailstow_result result =
                mailstow_message_write(client->message, start, left, &taken);
            used += taken;
            if (result == MAILSTOW_END)
                submit(client);
        } else if (client->state == COMMANDS) {
            char *end = memchr(start, '\n', left);
            if (end == NULL)
                break;
            *end = '\0';
            if (end > start && end[-1] == '\r')
                end[-1] = '\0';
            used += (size_t)(end - start) + 1;
            command(client, start);
        } else {
            break;
        }
    }
    client->in_length -= used;
    memmove(client->in, client->in + used, client->in_length);
    if (client->state == COMMANDS && client->in_length == sizeof client->in)
        client->state = CLOSING; /* no line is that long */
}

/* While a message is in flight its client is not listened to: it waits for replies. */
static void listen_to(struct client *client) {
    struct epoll_event event = {.data.ptr = client};
    int is_busy = client->state == IN_FLIGHT || client->state == WAITING_FOR_ROOM;
    event.events = is_busy ? EPOLLET : EPOLLIN; /* a hang-up is told once */
    epoll_ctl(epoll, EPOLL_CTL_MOD, client->fd, &event);
}

static void readable(struct client *client) {
    ssize_t got = recv(client->fd, client->in + client->in_length,
                       sizeof client->in - client->in_length, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        if (client->state != IN_FLIGHT && client->state != WAITING_FOR_ROOM)
            hang_up(client);
        return;
    }
    client->in_length += (size_t)got;
    go_on(client);
    if (client->state == CLOSING)
        hang_up(client);
    else if (client->state != COMMANDS && client->state != CONTENT)
        listen_to(client);
}

static void finished(void) {
    mailstow_completion done[DRAINED];
    size_t count = 0;
    done[0].struct_size = sizeof done[0];
    if (mailstow_drain(handle, done, DRAINED, &count) != MAILSTOW_OK)
        return;
    for (size_t i = 0; i < count; i++) {
        struct client *client = (struct client *)(uintptr_t)done[i].token;
        land(client, done[i].results);
        go_on(client);
        if (client->state == CLOSING)
            hang_up(client);
        else
            listen_to(client);
    }
    /* Results were freed, or will be: there may be room. */
    struct client *list = waiting;
    for (waiting = NULL; list != NULL;) {
        struct client *client = list;
        list = client->next_waiting;
        submit(client);
        if (client->state == CLOSING)
            hang_up(client);
        else
            listen_to(client);
    }
}

static void accept_all(int listener) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct client *client = calloc(1, sizeof *client);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
        if (client == NULL || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
            free(client);
            close(fd);
            continue;
        }
        client->fd = fd;
        client->next = clients;
        client->link = &clients;
        if (clients != NULL)
            clients->link = &client->next;
        clients = client;
        say(client, "220 localhost LMTP\r\n");
    }
}

static int open_socket(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fd, 4096) != 0) {
        perror(path);
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv) {
    mailstow_config *config = NULL;
    mailstow_error *error = NULL;
    mailstow_result result;
    struct epoll_event events[EVENTS];
    struct sigaction action = {.sa_handler = on_signal};
    struct rlimit files;
    int listener, wakeup;

    if (argc != 3) {
        fprintf(stderr, "usage: server CONFIG SOCKET\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    mailstow_log_to_fd(STDERR_FILENO, MAILSTOW_LOG_WARNING);
    mailstow_config_new(&config);
    mailstow_config_set_file(config, argv[1]);
    /* A sixteenth of it may wait for one mbox that another program has locked. */
    result = mailstow_config_set(config, "limits.queued_deliveries", "160000", &error);
    if (result == MAILSTOW_OK)
        result = mailstow_open(config, MAILSTOW_MODE_LOGGED, &handle, &error);
    if (result != MAILSTOW_OK)
        die(argv[1], result, error);
    mailstow_config_free(config);
    mailstow_event_fd(handle, &wakeup);
    listener = open_socket(argv[2]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener,
              &(struct epoll_event){.events = EPOLLIN, .data.ptr = &listener});
    epoll_ctl(epoll, EPOLL_CTL_ADD, wakeup,
              &(struct epoll_event){.events = EPOLLIN, .data.ptr = &wakeup});
    while (!stop) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        int has_finished = 0;
        if (asked) {
            asked = 0;
            printf("%llu in flight\n", (unsigned long long)in_flight);
            fflush(stdout);
        }
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == &listener)
                accept_all(listener);
            else if (events[i].data.ptr == &wakeup)
                has_finished = 1; /* last: it may hang up on clients */
            else
                readable(events[i].data.ptr);
        }
        if (has_finished)
            finished();
    }
    printf("stored %llu, refused %llu, at most %llu in flight\n", (unsigned long long)stored,
           (unsigned long long)refused, (unsigned long long)in_flight_peak);
    unlink(argv[2]);
    while (clients != NULL)
        hang_up(clients);
    mailstow_close(handle); /* stores what was submitted */
    return 0;
}
