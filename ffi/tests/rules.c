/* What the header file promises, one function for each rule; see rules.h. */
#define _GNU_SOURCE
#include "rules.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

static void null_and_closed_and_foreign_handles_are_errors(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, NULL, NULL);
    mailstow_message *message = message_for(handle, "info@example.com", "x\n");
    mailstow_results *results = NULL;
    mailstow_statistics figures = {.struct_size = sizeof figures};

    IS(MAILSTOW_NULL, mailstow_message_new(NULL, &message));
    IS(MAILSTOW_NULL, mailstow_message_new(handle, NULL));
    IS(MAILSTOW_NULL, mailstow_deliver(handle, NULL, &results));
    IS(MAILSTOW_NULL, mailstow_deliver(handle, message, NULL));
    IS(MAILSTOW_NULL, mailstow_message_write(message, NULL, 1, NULL));
    OK(mailstow_message_write(message, NULL, 0, NULL));
    IS(MAILSTOW_NULL, mailstow_config_new(NULL));
    IS(MAILSTOW_NULL, mailstow_close(NULL));
    IS(MAILSTOW_NULL, mailstow_statistics_get(handle, NULL));
    IS(MAILSTOW_NULL, mailstow_confirm(NULL));
    IS(MAILSTOW_WRONG_HANDLE, mailstow_close((mailstow *)message));
    IS(MAILSTOW_WRONG_HANDLE, mailstow_message_write((mailstow_message *)handle, "x", 1, NULL));
    IS(MAILSTOW_WRONG_HANDLE, mailstow_close((mailstow *)(void *)((char *)handle + 1)));
    CHECK(mailstow_results_count(NULL) == 0 && mailstow_error_count(NULL) == 0);
    CHECK(mailstow_error_text(NULL, 0) == NULL);
    mailstow_message_free(NULL);
    mailstow_results_free(NULL);
    mailstow_error_free(NULL);
    mailstow_config_free(NULL);
    mailstow_resolution_free(NULL);
    mailstow_map_close(NULL);
    mailstow_map_builder_free(NULL);

    mailstow_message_free(message);
    IS(MAILSTOW_CLOSED, mailstow_message_write(message, "x", 1, NULL));
    IS(MAILSTOW_CLOSED, mailstow_deliver(handle, message, &results));
    mailstow_message_free(message);
    message = message_for(handle, "info@example.com", "x\n");
    OK(mailstow_close(handle));
    IS(MAILSTOW_CLOSED, mailstow_close(handle));
    IS(MAILSTOW_CLOSED, mailstow_statistics_get(handle, &figures));
    IS(MAILSTOW_CLOSED, mailstow_deliver(handle, message, &results));
    /* What is delivered by another handle is refused, and still there to be freed. */
    handle = open_mode(MAILSTOW_MODE_DIRECT, NULL, NULL);
    IS(MAILSTOW_INVALID, mailstow_deliver(handle, message, &results));
    mailstow_message_free(message);
    OK(mailstow_close(handle));
}

static void calls_for_other_modes_are_errors(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, NULL, NULL);
    mailstow_config *config = config_of_site();
    mailstow_error *error = NULL;
    uint32_t mode = 0;
    OK(mailstow_mode(handle, &mode));
    CHECK(mode == MAILSTOW_MODE_DIRECT);
    IS(MAILSTOW_WRONG_MODE, mailstow_checkpoint(handle, &error));
    CHECK(mailstow_error_result(error) == MAILSTOW_WRONG_MODE && mailstow_error_count(error) == 1);
    mailstow_error_free(error);
    OK(mailstow_close(handle));
    IS(MAILSTOW_INVALID, mailstow_open(config, 99, &handle, NULL));
    mailstow_config_free(config);
}

static void structs_say_how_large_they_are_and_may_grow(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, NULL, NULL);
    mailstow_message *message = NULL;
    /* A program that is built against a later version knows members that this one does not. */
    struct {
        mailstow_statistics known;
        uint64_t later;
    } figures = {.later = 4711};
    figures.known.struct_size = sizeof figures;
    OK(mailstow_statistics_get(handle, &figures.known));
    CHECK(figures.later == 4711 && figures.known.struct_size == sizeof figures);
    CHECK(figures.known.in_flight_max > 0);

    mailstow_statistics unset = {0};
    IS(MAILSTOW_BAD_STRUCT, mailstow_statistics_get(handle, &unset));
    unset.struct_size = 8;
    IS(MAILSTOW_BAD_STRUCT, mailstow_statistics_get(handle, &unset));
    unset.struct_size = UINT32_MAX;
    IS(MAILSTOW_BAD_STRUCT, mailstow_statistics_get(handle, &unset));

    struct {
        mailstow_recipient known;
        uint64_t later[4];
    } recipient = {.known = {.struct_size = sizeof recipient,
                             .address = "info@example.com",
                             .address_length = 16}};
    OK(mailstow_message_new(handle, &message));
    OK(mailstow_message_add_recipient(message, &recipient.known, NULL));
    recipient.known.struct_size = 0;
    IS(MAILSTOW_BAD_STRUCT, mailstow_message_add_recipient(message, &recipient.known, NULL));

    /* Elements of an array are as far apart as the first one says. */
    struct {
        mailstow_completion known;
        uint64_t later;
    } done[2] = {{.later = 1}, {.later = 2}};
    size_t count = 9;
    struct pollfd finished = {.events = POLLIN};
    OK(mailstow_message_write(message, "x\n", 2, NULL));
    OK(mailstow_submit(handle, message, 7));
    OK(mailstow_submit(handle, message_for(handle, "info@example.com", "y\n"), 8));
    OK(mailstow_event_fd(handle, &finished.fd));
    done[0].known.struct_size = sizeof done[0];
    for (size_t got = 0; got < 2;) {
        CHECK(poll(&finished, 1, 60000) == 1);
        OK(mailstow_drain(handle, &done[0].known, 2, &count));
        for (size_t i = 0; i < count; i++, got++) {
            CHECK(done[i].known.token == 7 || done[i].known.token == 8);
            CHECK(done[i].known.struct_size == sizeof done[0] && done[i].later == i + 1);
            mailstow_results_free(done[i].known.results);
        }
    }
    OK(mailstow_close(handle));
}

/* Waits until all other threads sleep. Beside one that is about to allocate, a child of fork(2) may
 * find the allocator of a sanitizer locked for ever. */
static void let_other_threads_sleep(void) {
    for (int busy = 1; busy > 0; usleep(1000)) {
        DIR *tasks = opendir("/proc/self/task");
        CHECK(tasks != NULL);
        busy = 0;
        for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
            char path[512], line[512] = "";
            if (entry->d_name[0] == '.' || atoi(entry->d_name) == getpid())
                continue;
            snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
            FILE *stat = fopen(path, "r");
            const char *name_end = NULL;
            if (stat != NULL && fgets(line, sizeof line, stat) != NULL)
                name_end = strrchr(line, ')');
            if (stat != NULL)
                fclose(stat);
            busy += name_end != NULL && name_end[2] != 'S';
        }
        closedir(tasks);
    }
}

static void a_child_of_fork_gets_errors_and_opens_its_own(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL);
    mailstow_message *message = message_for(handle, "info@example.com", "x\n");
    mailstow_map_builder *builder = NULL;
    mailstow_map *map = NULL;
    char value[64];
    int status;
    OK(mailstow_map_builder_new(path_of("a.map"), MAILSTOW_CHANGES_REFUSE, &builder, NULL));
    OK(mailstow_map_builder_add(builder, "t", "key", 3, "value", 5, NULL));
    OK(mailstow_map_builder_finish(builder, NULL, NULL));
    OK(mailstow_map_open(path_of("a.map"), &map, NULL));
    let_other_threads_sleep();
    if (fork() == 0) {
        mailstow_results *results = NULL;
        mailstow_reply reply = {.struct_size = sizeof reply};
        IS(MAILSTOW_FORKED, mailstow_deliver(handle, message, &results));
        IS(MAILSTOW_FORKED, mailstow_message_write(message, "x", 1, NULL));
        IS(MAILSTOW_FORKED, mailstow_message_new(handle, &message));
        IS(MAILSTOW_FORKED, mailstow_check_recipient(handle, "a@b", 3, 0, &reply));
        IS(MAILSTOW_FORKED, mailstow_map_lookup(map, "t", "key", 3, value, sizeof value, NULL));
        IS(MAILSTOW_FORKED, mailstow_close(handle));
        mailstow_message_free(message);
        mailstow_map_close(map);
        OK(mailstow_map_open(path_of("a.map"), &map, NULL));
        OK(mailstow_map_lookup(map, "t", "KEY", 3, value, sizeof value, NULL));
        CHECK(strcmp(value, "value") == 0);
        mailstow_map_close(map);
        handle = open_mode(MAILSTOW_MODE_DIRECT, NULL, NULL);
        CHECK(deliver(handle, "sales@example.com", "of the child\n", NULL) == MAILSTOW_DURABLE);
        let_other_threads_sleep();
        if (fork() == 0) {
            IS(MAILSTOW_FORKED, mailstow_close(handle));
            _exit(0);
        }
        CHECK(wait(&status) > 0 && status == 0);
        OK(mailstow_close(handle));
        _exit(0);
    }
    CHECK(wait(&status) > 0 && status == 0);
    /* The parent goes on. */
    mailstow_results *results = NULL;
    OK(mailstow_deliver(handle, message, &results));
    CHECK(mailstow_results_exit_status(results) == 0);
    mailstow_results_free(results);
    OK(mailstow_map_lookup(map, "t", "key", 3, value, sizeof value, NULL));
    mailstow_map_close(map);
    OK(mailstow_close(handle));
    CHECK(count_files("vhosts/example.com/sales/new") == 1);
}

static void content_comes_by_every_way_and_is_stored_the_same(void) {
    static const char lf[] = "Subject: s\n\n.dot\nend\n";
    static const char crlf[] = "Subject: s\r\n\r\n.dot\r\nend\r\n";
    static const char wire[] = "Subject: s\r\n\r\n..dot\r\nend\r\n.\r\nNOOP\r\n";
    static const char dots[] = "Subject: s\n\n..dot\nend\n.\nNOOP\n";
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, NULL, NULL);
    char text[4096];
    for (int way = 0; way < 8; way++) {
        mailstow_message *message = message_for(handle, "info@example.com", "");
        mailstow_results *results = NULL;
        size_t taken = 0;
        int pipes[2];
        struct iovec pieces[3] = {{.iov_base = (void *)lf, .iov_len = 5},
                                  {.iov_base = NULL, .iov_len = 0},
                                  {.iov_base = (void *)(lf + 5), .iov_len = strlen(lf) - 5}};
        mailstow_message_free(message);
        OK(mailstow_message_new(handle, &message));
        OK(add(message, "info@example.com", 0));
        switch (way) {
        case 0:
            OK(mailstow_message_write(message, lf, strlen(lf), &taken));
            CHECK(taken == strlen(lf));
            break;
        case 1:
            OK(mailstow_message_write(message, crlf, strlen(crlf), &taken));
            break;
        case 2:
            for (size_t i = 0; i < strlen(crlf); i++)
                OK(mailstow_message_write(message, crlf + i, 1, NULL));
            break;
        case 3:
            OK(mailstow_message_writev(message, pieces, 3, &taken));
            CHECK(taken == strlen(lf));
            break;
        case 4:
            CHECK(pipe(pipes) == 0 && write(pipes[1], crlf, strlen(crlf)) > 0);
            close(pipes[1]);
            OK(mailstow_message_read_fd(message, pipes[0]));
            close(pipes[0]);
            break;
        case 5:
            OK(mailstow_message_set_form(message, MAILSTOW_CONTENT_WIRE));
            IS(MAILSTOW_END, mailstow_message_write(message, wire, strlen(wire), &taken));
            CHECK(strcmp(wire + taken, "NOOP\r\n") == 0);
            IS(MAILSTOW_END, mailstow_message_write(message, "x", 1, &taken));
            CHECK(taken == 0);
            IS(MAILSTOW_INVALID, mailstow_message_set_form(message, MAILSTOW_CONTENT_PLAIN));
            break;
        case 6:
            OK(mailstow_message_set_form(message, MAILSTOW_CONTENT_WIRE));
            for (size_t i = 0; wire[i] != 'N'; i++) {
                int is_last = wire[i + 1] == 'N';
                IS(is_last ? MAILSTOW_END : MAILSTOW_OK,
                   mailstow_message_write(message, wire + i, 1, NULL));
            }
            break;
        case 7:
            OK(mailstow_message_set_form(message, MAILSTOW_CONTENT_DOTS));
            IS(MAILSTOW_END, mailstow_message_write(message, dots, strlen(dots), &taken));
            CHECK(strcmp(dots + taken, "NOOP\n") == 0);
            break;
        }
        OK(mailstow_deliver(handle, message, &results));
        CHECK(mailstow_results_exit_status(results) == 0);
        mailstow_results_free(results);
        read_only_file("vhosts/example.com/info/new", text, sizeof text);
        const char *content = strstr(text, "Subject:");
        CHECK(content != NULL && strcmp(content, lf) == 0);
        CHECK(strstr(text, "Return-Path: <>\n") == text);
        CHECK(system("rm -f \"$DIRECTORY\"/vhosts/example.com/info/new/*") == 0);
    }
    mailstow_message *message = message_for(handle, "info@example.com", "");
    IS(MAILSTOW_INVALID, mailstow_message_read_fd(message, -1));
    IS(MAILSTOW_SYSTEM, mailstow_message_read_fd(message, 9999));
    mailstow_message_free(message);
    OK(mailstow_close(handle));
}

static void *write_slowly(void *argument) {
    static const char text[] = "Subject: s\r\n\r\n..dot\r\nend\r\n.\r\nNOOP\r\n";
    int to = *(int *)argument;
    for (size_t i = 0; i < strlen(text); i++) {
        usleep(200);
        CHECK(write(to, text + i, 1) == 1);
    }
    return NULL;
}

static void what_follows_the_content_stays_in_the_descriptor(void) {
    static const char wire[] = "Subject: s\r\n\r\n..dot\r\nend\r\n.\r\nNOOP\r\n";
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, NULL, NULL);
    for (int way = 0; way < 5; way++) {
        mailstow_message *message = NULL;
        mailstow_results *results = NULL;
        pthread_t thread;
        int pair[2];
        char text[4096];
        OK(mailstow_message_new(handle, &message));
        OK(mailstow_message_set_form(message, MAILSTOW_CONTENT_WIRE));
        OK(add(message, "info@example.com", 0));
        if (way == 0 || way == 1)
            CHECK(pipe(pair) == 0);
        else if (way == 2 || way == 3)
            CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        else
            pair[0] = pair[1] = open(path_of("content"), O_CREAT | O_TRUNC | O_RDWR, 0600);
        int is_slow = way == 1 || way == 3;
        if (is_slow) {
            CHECK(fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0);
            CHECK(pthread_create(&thread, NULL, write_slowly, &pair[1]) == 0);
        } else {
            CHECK(write(pair[1], wire, strlen(wire)) == (ssize_t)strlen(wire));
        }
        if (way == 4)
            CHECK(lseek(pair[0], 0, SEEK_SET) == 0);
        IS(MAILSTOW_END, mailstow_message_read_fd(message, pair[0]));
        IS(MAILSTOW_END, mailstow_message_read_fd(message, pair[0]));
        if (is_slow)
            CHECK(pthread_join(thread, NULL) == 0);
        CHECK(read(pair[0], text, sizeof text) == 6 && memcmp(text, "NOOP\r\n", 6) == 0);
        close(pair[0]);
        close(pair[1]);
        OK(mailstow_deliver(handle, message, &results));
        CHECK(mailstow_results_exit_status(results) == 0);
        mailstow_results_free(results);
        read_only_file("vhosts/example.com/info/new", text, sizeof text);
        const char *content = strstr(text, "Subject:");
        CHECK(content != NULL && strcmp(content, "Subject: s\n\n.dot\nend\n") == 0);
        CHECK(system("rm -f \"$DIRECTORY\"/vhosts/example.com/info/new/*") == 0);
    }
    OK(mailstow_close(handle));
}

static void content_from_the_wire_whose_end_did_not_come_is_not_delivered(void) {
    static const char wire[] = "Subject: s\r\n\r\nIf he does not pay\r\n.\r\n";
    mailstow *handle = open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL);
    mailstow_message *message = NULL;
    mailstow_results *results = NULL;
    int pipes[2];
    OK(mailstow_message_new(handle, &message));
    OK(mailstow_message_set_form(message, MAILSTOW_CONTENT_WIRE));
    OK(add(message, "info@example.com", 0));
    for (size_t i = 0; wire[i] != '\0'; i++) {
        IS(MAILSTOW_INVALID, mailstow_deliver(handle, message, &results));
        IS(MAILSTOW_INVALID, mailstow_submit(handle, message, 1));
        IS(wire[i + 1] == '\0' ? MAILSTOW_END : MAILSTOW_OK,
           mailstow_message_write(message, wire + i, 1, NULL));
    }
    CHECK(count_files("vhosts/example.com/info/new") == 0);
    OK(mailstow_deliver(handle, message, &results));
    CHECK(mailstow_results_exit_status(results) == 0);
    mailstow_results_free(results);
    /* A stream that ends is no better. */
    OK(mailstow_message_new(handle, &message));
    OK(mailstow_message_set_form(message, MAILSTOW_CONTENT_WIRE));
    OK(add(message, "info@example.com", 0));
    CHECK(pipe(pipes) == 0 && write(pipes[1], wire, strlen(wire) - 3) > 0);
    close(pipes[1]);
    OK(mailstow_message_read_fd(message, pipes[0]));
    close(pipes[0]);
    IS(MAILSTOW_INVALID, mailstow_deliver(handle, message, &results));
    mailstow_message_free(message);
    /* Text from a program may end with its stream. */
    OK(mailstow_message_new(handle, &message));
    OK(mailstow_message_set_form(message, MAILSTOW_CONTENT_DOTS));
    OK(add(message, "info@example.com", 0));
    OK(mailstow_message_write(message, "Subject: s\n\n..\n", 15, NULL));
    OK(mailstow_deliver(handle, message, &results));
    CHECK(mailstow_results_exit_status(results) == 0);
    mailstow_results_free(results);
    OK(mailstow_close(handle));
    CHECK(count_files("vhosts/example.com/info/new") == 2);
}

static void every_recipient_has_its_outcome(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL);
    mailstow_message *message = NULL;
    mailstow_results *results = NULL;
    mailstow_reply reply = {.struct_size = sizeof reply};
    mailstow_recipient recipient = {.struct_size = sizeof recipient,
                                    .address = "nobody@example.com",
                                    .address_length = 18,
                                    .original = "office@example.com",
                                    .original_length = 18};
    mailstow_outcome outcome = {.struct_size = sizeof outcome};
    char text[4096];
    OK(mailstow_message_new(handle, &message));
    IS(MAILSTOW_INVALID, mailstow_deliver(handle, message, &results));
    IS(MAILSTOW_REFUSED, mailstow_message_add_recipient(message, &recipient, &reply));
    CHECK(reply.code == 550 && strcmp(reply.enhanced, "5.1.1") == 0 && reply.sysexits == 67);
    CHECK(strstr(reply.text, "nobody@example.com") != NULL);
    recipient.address = "info@example.com";
    recipient.address_length = 16;
    OK(mailstow_message_add_recipient(message, &recipient, &reply));
    CHECK(reply.code == 250);
    OK(add(message, "<box@example.com>", 0));
    /* The same mailbox once more: one copy, two outcomes. */
    OK(add(message, "INFO@example.com", 0));
    OK(mailstow_message_set_sender(message, "<me@example.org>", 16));
    IS(MAILSTOW_INVALID, mailstow_message_set_retry_key(message, "a\nb", 3));
    OK(mailstow_message_set_retry_key(message, "4XyZ", 4));
    OK(mailstow_message_write(message, "body\n", 5, NULL));
    OK(mailstow_deliver(handle, message, &results));
    CHECK(mailstow_results_count(results) == 3);
    const char *recipients[] = {"info@example.com", "box@example.com", "INFO@example.com"};
    const char *mailboxes[] = {"/info/", "/box", "/info/"};
    for (size_t i = 0; i < 3; i++) {
        OK(mailstow_results_outcome(results, i, &outcome));
        CHECK(outcome.state == MAILSTOW_DURABLE && outcome.code == 250 && outcome.sysexits == 0);
        CHECK(strcmp(outcome.enhanced, "2.0.0") == 0);
        CHECK(strcmp(outcome.recipient, recipients[i]) == 0);
        size_t end = strlen(outcome.mailbox) - strlen(mailboxes[i]);
        CHECK(strcmp(outcome.mailbox + end, mailboxes[i]) == 0);
    }
    IS(MAILSTOW_NOT_FOUND, mailstow_results_outcome(results, 3, &outcome));
    CHECK(mailstow_results_exit_status(results) == 0);
    OK(mailstow_confirm(results));
    OK(mailstow_confirm(results));
    mailstow_results_free(results);
    CHECK(count_files("vhosts/example.com/info/new") == 1);
    read_only_file("vhosts/example.com/info/new", text, sizeof text);
    CHECK(strstr(text, "X-Original-To: office@example.com\n") != NULL);
    CHECK(strstr(text, "Return-Path: <me@example.org>\n") != NULL);
    OK(mailstow_close(handle));
}

static void a_message_in_doubt_is_stored_once_and_a_confirmed_one_again(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL);
    const char *text = "Subject: twice\n\nbody\n";
    mailstow_results *results = NULL;
    OK(mailstow_deliver(handle, message_for(handle, "info@example.com", text), &results));
    mailstow_results_free(results); /* the reply may be lost */
    CHECK(deliver(handle, "info@example.com", text, NULL) == MAILSTOW_DURABLE);
    CHECK(count_files("vhosts/example.com/info/new") == 1);
    CHECK(deliver(handle, "info@example.com", text, NULL) == MAILSTOW_DURABLE);
    CHECK(count_files("vhosts/example.com/info/new") == 2);
    OK(mailstow_close(handle));
}

static void refused_content_is_answered_for_every_recipient(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, "message_size_limit", "1000");
    mailstow_message *message = message_for(handle, "info@example.com", "");
    mailstow_results *results = NULL;
    mailstow_outcome outcome = {.struct_size = sizeof outcome};
    mailstow_reply reply = {.struct_size = sizeof reply};
    char text[600];
    memset(text, 'x', sizeof text);
    OK(add(message, "sales@example.com", 0));
    OK(mailstow_message_write(message, text, sizeof text, NULL));
    IS(MAILSTOW_REFUSED, mailstow_message_write(message, text, sizeof text, NULL));
    IS(MAILSTOW_REFUSED, mailstow_message_write(message, text, sizeof text, NULL));
    OK(mailstow_deliver(handle, message, &results));
    CHECK(mailstow_results_count(results) == 2);
    OK(mailstow_results_outcome(results, 1, &outcome));
    CHECK(outcome.state == MAILSTOW_NOT_STORED && outcome.code == 552 && outcome.mailbox == NULL);
    CHECK(strcmp(outcome.enhanced, "5.3.4") == 0 && mailstow_results_exit_status(results) == 65);
    mailstow_results_free(results);
    OK(mailstow_check_recipient(handle, "info@example.com", 16, 1001, &reply));
    CHECK(reply.code == 552);
    OK(mailstow_check_recipient(handle, "info@example.com", 16, 1000, &reply));
    CHECK(reply.code == 250);
    OK(mailstow_close(handle));
}

static void recipients_are_checked_and_resolved_without_writing_anything(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, "virtual_mailbox_limit", "20000000");
    mailstow_resolution *resolution = NULL;
    mailstow_reply reply = {.struct_size = sizeof reply};
    mailstow_route route = {.struct_size = sizeof route};
    OK(mailstow_check_recipient(handle, "nobody@example.com", 18, 0, &reply));
    CHECK(reply.code == 550);
    OK(mailstow_check_recipient(handle, "x@far.example", 13, 0, &reply));
    CHECK(reply.code == 250); /* for another server */
    OK(mailstow_check_recipient(handle, "", 0, 0, &reply));
    CHECK(reply.code == 501);
    OK(mailstow_check_recipient(handle, "\xff\xfe@example.com", 14, 0, &reply));
    CHECK(reply.code == 550);
    OK(mailstow_check_recipient(handle, "all@example.com", 15, 0, &reply));
    CHECK(reply.code == 250);
    OK(mailstow_resolve(handle, "all@example.com", 15, &resolution));
    CHECK(mailstow_resolution_count(resolution) == 2);
    OK(mailstow_resolution_reply(resolution, &reply));
    CHECK(reply.code == 250);
    OK(mailstow_resolution_route(resolution, 0, &route));
    CHECK(strcmp(route.recipient, "info@example.com") == 0);
    CHECK(route.address_class == MAILSTOW_CLASS_VIRTUAL_MAILBOX);
    CHECK(route.destination == MAILSTOW_DESTINATION_MAILBOX);
    CHECK(route.format == MAILSTOW_FORMAT_MAILDIR && route.uid != 0 && route.gid != 0);
    CHECK(strstr(route.mailbox, "/vhosts/example.com/info/") != NULL);
    CHECK(strcmp(route.transport, "virtual") == 0 && route.command == NULL);
    OK(mailstow_resolution_route(resolution, 1, &route));
    CHECK(route.format == MAILSTOW_FORMAT_MBOX);
    IS(MAILSTOW_NOT_FOUND, mailstow_resolution_route(resolution, 2, &route));
    mailstow_resolution_free(resolution);
    CHECK(count_files("vhosts") == 1 && count_files("vhosts/example.com") == 0);
    OK(mailstow_close(handle));
}

static void mistakes_have_text_file_and_line(void) {
    mailstow_config *config = config_of_site();
    mailstow_error *error = NULL;
    mailstow *handle = NULL;
    char value[64];
    size_t length = 0;
    IS(MAILSTOW_CONFIG, mailstow_config_set(config, "store.writer", "1", &error));
    CHECK(mailstow_error_result(error) == MAILSTOW_CONFIG && mailstow_error_count(error) == 1);
    CHECK(strstr(mailstow_error_text(error, 0), "store.writers") != NULL);
    CHECK(mailstow_error_file(error, 0) == NULL && mailstow_error_line(error, 0) == 0);
    CHECK(mailstow_error_text(error, 1) == NULL);
    mailstow_error_free(error);
    IS(MAILSTOW_CONFIG, mailstow_config_set(config, "store.writers", "many", NULL));
    OK(mailstow_config_set(config, "store.writers", "3", NULL));
    OK(mailstow_config_get(config, "store.writers", value, sizeof value, &length, NULL));
    CHECK(strcmp(value, "3") == 0 && length == 1);
    OK(mailstow_config_get(config, "virtual_mailbox_domains", value, sizeof value, NULL, NULL));
    CHECK(strcmp(value, "example.com") == 0);
    IS(MAILSTOW_TOO_SMALL,
       mailstow_config_get(config, "virtual_mailbox_domains", value, 11, &length, NULL));
    CHECK(length == 11);
    IS(MAILSTOW_NOT_FOUND, mailstow_config_get(config, "no.such", value, 9, NULL, NULL));
    OK(mailstow_config_check(config, MAILSTOW_MODE_LOGGED, NULL));

    FILE *bad = fopen(path_of("bad.toml"), "w");
    fputs("[store]\nwriters = 1\nflush = \"never\"\ncolour = 1\n", bad);
    fclose(bad);
    OK(mailstow_config_set_file(config, path_of("bad.toml")));
    IS(MAILSTOW_CONFIG, mailstow_open(config, MAILSTOW_MODE_DIRECT, &handle, &error));
    CHECK(mailstow_error_count(error) >= 2);
    int lines = 0;
    for (size_t i = 0; i < mailstow_error_count(error); i++) {
        CHECK(mailstow_error_text(error, i)[0] != '\0');
        if (mailstow_error_file(error, i) != NULL) {
            CHECK(strcmp(mailstow_error_file(error, i), path_of("bad.toml")) == 0);
            lines |= 1 << mailstow_error_line(error, i);
        }
    }
    CHECK(lines == (1 << 3 | 1 << 4));
    mailstow_error_free(error);
    mailstow_config_free(config);

    config = config_of_site();
    OK(mailstow_config_set(config, "virtual_mailbox_maps", "hash:/nonexistent/map", NULL));
    IS(MAILSTOW_TABLE, mailstow_open(config, MAILSTOW_MODE_DIRECT, &handle, &error));
    CHECK(strstr(mailstow_error_text(error, 0), "/nonexistent/map") != NULL);
    mailstow_error_free(error);
    mailstow_config_free(config);
    config = config_of_site();
    OK(mailstow_config_set(config, "virtual_mailbox_base", "/nonexistent/base", NULL));
    IS(MAILSTOW_STORE, mailstow_open(config, MAILSTOW_MODE_DIRECT, &handle, NULL));
    mailstow_config_free(config);
}

/* Checks the site with one more setting, and opens it if that is asked for; the first error. */
static const char *refusal(uint32_t mode, const char *name, const char *value, int opens) {
    static char text[4096];
    mailstow_config *config = config_of_site();
    mailstow_error *error = NULL;
    mailstow *handle = NULL;
    OK(mailstow_config_set(config, name, value, NULL));
    mailstow_result result = opens ? mailstow_open(config, mode, &handle, &error)
                                   : mailstow_config_check(config, mode, &error);
    CHECK((result == MAILSTOW_OK) == (mailstow_error_count(error) == 0));
    snprintf(text, sizeof text, "%u ", result);
    for (size_t i = 0; i < mailstow_error_count(error); i++)
        strncat(text, mailstow_error_text(error, i), sizeof text - strlen(text) - 1);
    mailstow_error_free(error);
    mailstow_config_free(config);
    if (handle != NULL)
        OK(mailstow_close(handle));
    return text;
}

static void a_check_finds_what_opening_would_refuse(void) {
    static const struct {
        uint32_t mode;
        const char *name, *value, *expected;
    } cases[] = {
        {MAILSTOW_MODE_CLIENT, "lmtp.listen", "inet:127.0.0.1:24", "lmtp.listen"},
        {MAILSTOW_MODE_DIRECT, "virtual_mailbox_base", "", "virtual_mailbox_base"},
        {MAILSTOW_MODE_DIRECT, "virtual_mailbox_base", "/nonexistent/base", "/nonexistent/base"},
        {MAILSTOW_MODE_LOGGED, "virtual_mailbox_domains", "hash:/nonexistent/d", "/nonexistent/d"},
        {MAILSTOW_MODE_CLIENT, "virtual_mailbox_maps", "regexp:/nonexistent/m", "/nonexistent/m"},
    };
    char checked[4096];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *text = refusal(cases[i].mode, cases[i].name, cases[i].value, 0);
        fprintf(stderr, "%s\n", text);
        CHECK(text[0] != '0' && strstr(text, cases[i].expected) != NULL);
        CHECK(strstr(text, "--") == NULL);
        strcpy(checked, text);
        CHECK(strcmp(refusal(cases[i].mode, cases[i].name, cases[i].value, 1), checked) == 0);
    }
    /* With these nobody gets mail. */
    CHECK(strstr(refusal(MAILSTOW_MODE_DIRECT, "virtual_uid_maps", "static:vmail", 0), "number"));
    CHECK(strstr(refusal(MAILSTOW_MODE_DIRECT, "virtual_gid_maps", "", 0), "not set"));
    CHECK(strcmp(refusal(MAILSTOW_MODE_DIRECT, "store.writers", "1", 0), "0 ") == 0);
    CHECK(strcmp(refusal(MAILSTOW_MODE_CLIENT, "virtual_uid_maps", "static:vmail", 0), "0 ") == 0);
    CHECK(count_files("state") == 0);
    /* A file that is missing is told by its name, and no flag of a command line. */
    mailstow_config *config = NULL;
    mailstow_error *error = NULL;
    OK(mailstow_config_new(&config));
    OK(mailstow_config_set_file(config, "/nonexistent/mailstow.toml"));
    OK(mailstow_config_set_postfix(config, "/nonexistent/postfix"));
    IS(MAILSTOW_CONFIG, mailstow_config_check(config, MAILSTOW_MODE_DIRECT, &error));
    CHECK(mailstow_error_count(error) == 2);
    for (size_t i = 0; i < 2; i++) {
        CHECK(strstr(mailstow_error_text(error, i), "/nonexistent/") != NULL);
        CHECK(strstr(mailstow_error_text(error, i), "--") == NULL);
    }
    mailstow_error_free(error);
    mailstow_config_free(config);
}

static void submitted_messages_wake_the_eventfd_and_are_drained_in_batches(void) {
    enum { MESSAGES = 500 };
    mailstow *handle = open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL);
    struct pollfd finished = {.events = POLLIN};
    mailstow_completion done[64];
    static char seen[MESSAGES];
    size_t count = 1, got = 0;
    OK(mailstow_event_fd(handle, &finished.fd));
    CHECK(poll(&finished, 1, 0) == 0);
    done[0].struct_size = sizeof done[0];
    OK(mailstow_drain(handle, done, 64, &count));
    CHECK(count == 0);
    for (uint64_t i = 0; i < MESSAGES; i++)
        OK(mailstow_submit(handle, message_for(handle, "info@example.com", "x\n"), i));
    while (got < MESSAGES) {
        CHECK(poll(&finished, 1, 60000) == 1);
        OK(mailstow_drain(handle, done, 64, &count));
        CHECK(count <= 64);
        for (size_t i = 0; i < count; i++) {
            CHECK(!seen[done[i].token]++);
            CHECK(mailstow_results_exit_status(done[i].results) == 0);
            OK(mailstow_confirm(done[i].results));
            mailstow_results_free(done[i].results);
        }
        got += count;
    }
    CHECK(poll(&finished, 1, 0) == 0);
    OK(mailstow_checkpoint(handle, NULL));
    mailstow_statistics figures = {.struct_size = sizeof figures};
    OK(mailstow_statistics_get(handle, &figures));
    CHECK(figures.messages == MESSAGES && figures.durable == MESSAGES && figures.in_flight == 0);
    CHECK(figures.log_state == MAILSTOW_LOG_STATE_IN_SERVICE && figures.log_bytes_max > 0);
    char metrics[4096];
    OK(mailstow_metrics(handle, metrics, sizeof metrics, NULL));
    CHECK(strstr(metrics, "mailstow_deliveries_total{state=\"durable\"} 500\n") != NULL);
    CHECK(strcmp(metrics + strlen(metrics) - 6, "# EOF\n") == 0);
    IS(MAILSTOW_TOO_SMALL, mailstow_metrics(handle, metrics, 10, NULL));
    OK(mailstow_close(handle));
    CHECK(count_files("vhosts/example.com/info/new") == MESSAGES);
}

static atomic_int called;

static void on_done(void *userdata, uint64_t token, mailstow_results *results) {
    CHECK(userdata == &called && token < 100);
    CHECK(mailstow_results_exit_status(results) == 0);
    mailstow_confirm(results);
    mailstow_results_free(results);
    atomic_fetch_add(&called, 1);
}

static void a_function_gets_completions_when_it_is_asked_for(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL);
    mailstow_completion done = {.struct_size = sizeof done};
    size_t count = 1;
    OK(mailstow_on_completion(handle, on_done, &called));
    for (uint64_t i = 0; i < 100; i++)
        OK(mailstow_submit(handle, message_for(handle, "sales@example.com", "x\n"), i));
    for (int i = 0; i < 6000 && atomic_load(&called) < 100; i++)
        usleep(10000);
    OK(mailstow_drain(handle, &done, 1, &count));
    CHECK(atomic_load(&called) == 100 && count == 0);
    OK(mailstow_close(handle)); /* also what is under way gets its call */
}

static void more_than_fits_is_busy_and_nothing_is_lost(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_LOGGED, "limits.queued_deliveries", "8");
    struct pollfd finished = {.events = POLLIN};
    mailstow_completion done = {.struct_size = sizeof done};
    mailstow_statistics figures = {.struct_size = sizeof figures};
    size_t count = 0;
    OK(mailstow_event_fd(handle, &finished.fd));
    for (uint64_t i = 0; i < 8; i++)
        OK(mailstow_submit(handle, message_for(handle, "info@example.com", "x\n"), i));
    mailstow_message *message = message_for(handle, "info@example.com", "late\n");
    IS(MAILSTOW_BUSY, mailstow_submit(handle, message, 8));
    mailstow_results *results = NULL;
    IS(MAILSTOW_BUSY, mailstow_deliver(handle, message, &results));
    OK(mailstow_statistics_get(handle, &figures));
    CHECK(figures.in_flight == 8 && figures.busy == 2);
    CHECK(poll(&finished, 1, 60000) == 1);
    OK(mailstow_drain(handle, &done, 1, &count));
    CHECK(count == 1);
    mailstow_results_free(done.results);
    OK(mailstow_submit(handle, message, 8));
    for (int got = 0; got < 8; got += (int)count) {
        CHECK(poll(&finished, 1, 60000) == 1);
        OK(mailstow_drain(handle, &done, 1, &count));
        mailstow_results_free(done.results);
    }
    /* Neither do messages pile up that nobody delivers. */
    mailstow_message *open[9];
    for (int i = 0; i < 8; i++)
        OK(mailstow_message_new(handle, &open[i]));
    IS(MAILSTOW_BUSY, mailstow_message_new(handle, &open[8]));
    mailstow_message_free(open[0]);
    OK(mailstow_message_new(handle, &open[0]));
    for (int i = 0; i < 8; i++)
        mailstow_message_free(open[i]);
    OK(mailstow_close(handle));
    CHECK(count_files("vhosts/example.com/info/new") == 9);
}

static void envelopes_take_bounded_memory(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, "limits.envelope_bytes", "65536");
    mailstow_message *one = NULL, *two = NULL;
    mailstow_recipient recipient = {.struct_size = sizeof recipient,
                                    .address = "info@example.com",
                                    .address_length = 16};
    mailstow_reply reply = {.struct_size = sizeof reply};
    int added = 0;
    OK(mailstow_message_new(handle, &one));
    OK(mailstow_message_new(handle, &two));
    while (mailstow_message_add_recipient(one, &recipient, &reply) == MAILSTOW_OK)
        added++;
    CHECK(added > 50 && added < 500 && reply.code == 452 && strcmp(reply.enhanced, "4.3.1") == 0);
    IS(MAILSTOW_REFUSED, mailstow_message_add_recipient(two, &recipient, &reply));
    mailstow_message_free(one);
    for (; added > 0; added--)
        OK(mailstow_message_add_recipient(two, &recipient, &reply));
    mailstow_message_free(two);
    /* Who is refused takes no memory. */
    OK(mailstow_message_new(handle, &one));
    for (int i = 0; i < 1000; i++) {
        recipient.address = "nobody@example.com";
        recipient.address_length = 18;
        IS(MAILSTOW_REFUSED, mailstow_message_add_recipient(one, &recipient, &reply));
        CHECK(reply.code == 550);
    }
    OK(add(one, "info@example.com", 0));
    mailstow_message_free(one);
    OK(mailstow_close(handle));
}

static void a_late_delivery_is_given_up_and_never_appears(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL);
    mailstow_results *results = NULL;
    mailstow_outcome outcome = {.struct_size = sizeof outcome};
    mailstow_message *message = NULL;
    CHECK(deliver(handle, "box@example.com", "first\n", NULL) == MAILSTOW_DURABLE);
    /* Somebody has the mbox. */
    int lock = open(path_of("vhosts/example.com/box.lock"), O_CREAT | O_EXCL | O_RDWR, 0600);
    CHECK(lock >= 0);
    for (int submitted = 0; submitted < 2; submitted++) {
        OK(mailstow_message_new(handle, &message));
        OK(add(message, "box@example.com", 300));
        OK(add(message, "info@example.com", 0));
        OK(mailstow_message_write(message, "late\n", 5, NULL));
        if (submitted) {
            struct pollfd finished = {.events = POLLIN};
            mailstow_completion done = {.struct_size = sizeof done};
            size_t count = 0;
            OK(mailstow_event_fd(handle, &finished.fd));
            OK(mailstow_submit(handle, message, 0));
            CHECK(poll(&finished, 1, 60000) == 1);
            OK(mailstow_drain(handle, &done, 1, &count));
            results = done.results;
        } else {
            OK(mailstow_deliver(handle, message, &results));
        }
        OK(mailstow_results_outcome(results, 0, &outcome));
        CHECK(outcome.state == MAILSTOW_NOT_STORED && outcome.code == 451);
        CHECK(strcmp(outcome.enhanced, "4.2.1") == 0);
        OK(mailstow_results_outcome(results, 1, &outcome));
        CHECK(outcome.state == MAILSTOW_DURABLE);
        CHECK(mailstow_results_exit_status(results) == 75);
        OK(mailstow_confirm(results));
        mailstow_results_free(results);
    }
    unlink(path_of("vhosts/example.com/box.lock"));
    close(lock);
    CHECK(deliver(handle, "box@example.com", "last\n", NULL) == MAILSTOW_DURABLE);
    OK(mailstow_close(handle));
    char text[4096];
    FILE *box = fopen(path_of("vhosts/example.com/box"), "r");
    CHECK(box != NULL);
    text[fread(text, 1, sizeof text - 1, box)] = '\0';
    fclose(box);
    CHECK(strstr(text, "first") && strstr(text, "last") && !strstr(text, "late"));
}

static void a_changed_table_and_a_reload_are_taken(void) {
    mailstow_config *config = config_of_site();
    mailstow_reply reply = {.struct_size = sizeof reply};
    char setting[4096];
    FILE *table = fopen(path_of("vmailbox"), "w");
    fputs("one@example.com one/\n", table);
    fclose(table);
    snprintf(setting, sizeof setting, "hash:%s", path_of("vmailbox"));
    OK(mailstow_config_set(config, "virtual_mailbox_maps", setting, NULL));
    mailstow *handle = NULL;
    OK(mailstow_open(config, MAILSTOW_MODE_DIRECT, &handle, NULL));
    OK(mailstow_check_recipient(handle, "two@example.com", 15, 0, &reply));
    CHECK(reply.code == 550);
    table = fopen(path_of("vmailbox"), "w");
    fputs("one@example.com one/\ntwo@example.com two/\n", table);
    fclose(table);
    for (int i = 0; i < 500 && reply.code != 250; i++) {
        usleep(10000);
        OK(mailstow_check_recipient(handle, "two@example.com", 15, 0, &reply));
    }
    CHECK(reply.code == 250);
    OK(mailstow_config_set(config, "virtual_mailbox_domains", "example.net", NULL));
    OK(mailstow_config_set(config, "virtual_mailbox_maps", "static:x/", NULL));
    OK(mailstow_reload(handle, config, NULL));
    OK(mailstow_check_recipient(handle, "any@example.net", 15, 0, &reply));
    CHECK(reply.code == 250);
    OK(mailstow_config_set(config, "virtual_mailbox_maps", "hash:/nonexistent", NULL));
    IS(MAILSTOW_TABLE, mailstow_reload(handle, config, NULL));
    OK(mailstow_check_recipient(handle, "any@example.net", 15, 0, &reply));
    CHECK(reply.code == 250);
    mailstow_config_free(config);
    OK(mailstow_close(handle));
}

static void maps_are_built_looked_up_and_changed_without_a_handle(void) {
    mailstow_map_builder *builder = NULL;
    mailstow_map *map = NULL;
    mailstow_error *error = NULL;
    uint64_t keys = 0;
    size_t length = 0;
    char value[16];
    char *path = strdup(path_of("b.map"));
    IS(MAILSTOW_MAP, mailstow_map_open(path, &map, &error));
    CHECK(strstr(mailstow_error_text(error, 0), "b.map") != NULL);
    mailstow_error_free(error);
    OK(mailstow_map_builder_new(path, MAILSTOW_CHANGES_REFUSE, &builder, NULL));
    OK(mailstow_map_builder_add(builder, "t", "Anna@Example.com", 16, "a/", 2, NULL));
    OK(mailstow_map_builder_add(builder, "u", "anna@example.com", 16, "5000", 4, NULL));
    OK(mailstow_map_builder_finish(builder, &keys, NULL));
    CHECK(keys == 1);
    IS(MAILSTOW_CLOSED, mailstow_map_builder_finish(builder, &keys, NULL));
    OK(mailstow_map_open(path, &map, NULL));
    OK(mailstow_map_lookup(map, "t", "ANNA@example.com", 16, value, sizeof value, &length));
    CHECK(strcmp(value, "a/") == 0 && length == 2);
    OK(mailstow_map_lookup(map, "u", "anna@example.com", 16, value, sizeof value, NULL));
    CHECK(strcmp(value, "5000") == 0);
    IS(MAILSTOW_TOO_SMALL, mailstow_map_lookup(map, "u", "anna@example.com", 16, value, 4, &length));
    CHECK(length == 4);
    IS(MAILSTOW_NOT_FOUND, mailstow_map_lookup(map, "t", "x", 1, value, sizeof value, NULL));
    mailstow_map_edit edits[2] = {{.struct_size = sizeof edits[0],
                                   .table = "t",
                                   .key = "bert",
                                   .key_length = 4,
                                   .value = "b/",
                                   .value_length = 2},
                                  {.struct_size = sizeof edits[0],
                                   .table = "t",
                                   .key = "anna@example.com",
                                   .key_length = 16}};
    OK(mailstow_map_change(path, edits, 2, NULL));
    mailstow_result result = MAILSTOW_NOT_FOUND;
    for (int i = 0; i < 500 && result != MAILSTOW_OK; i++) {
        usleep(10000);
        result = mailstow_map_lookup(map, "t", "bert", 4, value, sizeof value, NULL);
    }
    OK(result);
    CHECK(strcmp(value, "b/") == 0);
    IS(MAILSTOW_NOT_FOUND,
       mailstow_map_lookup(map, "t", "anna@example.com", 16, value, sizeof value, NULL));
    mailstow_map_close(map);
    IS(MAILSTOW_CLOSED, mailstow_map_lookup(map, "t", "bert", 4, value, sizeof value, NULL));
    /* Changes that the builder does not know are not lost by accident. */
    IS(MAILSTOW_MAP, mailstow_map_builder_new(path, MAILSTOW_CHANGES_REFUSE, &builder, NULL));
    OK(mailstow_map_builder_new(path, MAILSTOW_CHANGES_KEEP, &builder, NULL));
    mailstow_map_builder_free(builder);
    OK(mailstow_map_builder_new(path, MAILSTOW_CHANGES_DISCARD, &builder, NULL));
    OK(mailstow_map_builder_finish(builder, &keys, NULL));
    CHECK(keys == 0);
    free(path);
}

/* What /proc says of every thread but the first. */
static void threads_of_the_library_take_no_signals(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL);
    mailstow_completion done = {.struct_size = sizeof done};
    struct pollfd finished = {.events = POLLIN};
    size_t count = 0;
    int threads = 0;
    OK(mailstow_event_fd(handle, &finished.fd));
    OK(mailstow_submit(handle, message_for(handle, "info@example.com", "x\n"), 0));
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        char path[512], line[256];
        unsigned long long blocked = 0;
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *status = fopen(path, "r");
        while (status != NULL && fgets(line, sizeof line, status) != NULL)
            sscanf(line, "SigBlk: %llx", &blocked);
        if (status != NULL)
            fclose(status);
        threads++;
        for (int number = 1; number < 32; number++) {
            if (number != SIGKILL && number != SIGSTOP)
                CHECK(blocked & 1ULL << (number - 1));
        }
    }
    closedir(tasks);
    CHECK(threads >= 5);
    sigset_t mine;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mine) == 0 && !sigismember(&mine, SIGTERM));
    CHECK(poll(&finished, 1, 60000) == 1);
    OK(mailstow_drain(handle, &done, 1, &count));
    mailstow_results_free(done.results);
    OK(mailstow_close(handle));
}

static void all_descriptors_are_closed_by_execve(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL);
    CHECK(deliver(handle, "info@example.com", "x\n", NULL) == MAILSTOW_DURABLE);
    DIR *descriptors = opendir("/proc/self/fd");
    int seen = 0;
    for (struct dirent *entry; (entry = readdir(descriptors)) != NULL;) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd <= 2 || fd == dirfd(descriptors))
            continue;
        seen++;
        int flags = fcntl(fd, F_GETFD);
        if (!(flags & FD_CLOEXEC)) {
            char path[64], target[512];
            snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
            ssize_t length = readlink(path, target, sizeof target - 1);
            target[length > 0 ? length : 0] = '\0';
            /* What this program was started with is not the library's. */
            fprintf(stderr, "descriptor %d: %s\n", fd, target);
            CHECK(strstr(target, directory) == NULL && strstr(target, "anon_inode") == NULL);
        }
    }
    closedir(descriptors);
    CHECK(seen > 3);
    OK(mailstow_close(handle));
}

static atomic_int is_over;

static void *deliver_until_over(void *argument) {
    mailstow *handle = argument;
    long answers = 0;
    while (!atomic_load(&is_over)) {
        mailstow_message *message = NULL;
        mailstow_results *results = NULL;
        mailstow_result result = mailstow_message_new(handle, &message);
        if (result == MAILSTOW_USER_CHANGED)
            continue;
        OK(result);
        OK(add(message, answers % 2 ? "info@example.com" : "sales@example.com", 0));
        OK(mailstow_message_write(message, "x\n", 2, NULL));
        result = mailstow_deliver(handle, message, &results);
        if (result != MAILSTOW_OK) {
            IS(MAILSTOW_USER_CHANGED, result);
            mailstow_message_free(message);
        }
        mailstow_results_free(results);
        answers++;
    }
    return (void *)answers;
}

/* Changes the user of the process and back while four threads deliver. */
static void change_users(mailstow *handle, pthread_t *threads) {
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, deliver_until_over, handle) == 0);
    for (int i = 0; i < 100; i++) {
        usleep(20000);
        CHECK(seteuid(i % 2 ? 1234 : 4321) == 0);
        usleep(500);
        CHECK(seteuid(0) == 0);
    }
}

static void end(pthread_t *threads) {
    atomic_store(&is_over, 1);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    atomic_store(&is_over, 0);
}

static void a_changed_user_gets_errors_and_no_file_of_a_wrong_owner(void) {
    pthread_t threads[4];
    mailstow_message *message = NULL;
    uint32_t state = MAILSTOW_NOT_STORED;
    if (geteuid() != 0) {
        fprintf(stderr, "this takes root\n");
        exit(77);
    }
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, NULL, NULL);
    change_users(handle, threads);
    end(threads);
    OK(mailstow_close(handle));
    CHECK(count_files("vhosts/example.com/info/new") > 10);
    handle = open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL);
    change_users(handle, threads);
    /* The log may have been hit as well; it is opened again by itself. */
    for (int i = 0; i < 300 && state != MAILSTOW_DURABLE; i++, usleep(100000))
        state = deliver(handle, "info@example.com", "back again\n", NULL);
    CHECK(state == MAILSTOW_DURABLE);
    CHECK(setuid(1234) == 0);
    usleep(100000);
    IS(MAILSTOW_USER_CHANGED, mailstow_message_new(handle, &message));
    end(threads);
    mailstow_close(handle);
    /* The owner of the files is looked at by who started this. */
}

static atomic_int lines;

static void on_line(void *userdata, uint32_t level, const char *line, size_t length) {
    CHECK(userdata == &lines && level >= 1 && level <= 4 && strlen(line) == length);
    CHECK(strchr(line, '\n') == NULL);
    atomic_fetch_add(&lines, 1);
}

static void the_log_goes_where_it_is_sent_and_nowhere_else(void) {
    int pipes[2];
    char text[65536];
    IS(MAILSTOW_NULL, mailstow_log_to_callback(NULL, NULL, MAILSTOW_LOG_INFO));
    IS(MAILSTOW_INVALID, mailstow_log_to_callback(on_line, NULL, 9));
    IS(MAILSTOW_INVALID, mailstow_log_to_fd(-1, MAILSTOW_LOG_INFO));
    OK(mailstow_log_to_callback(on_line, &lines, MAILSTOW_LOG_DEBUG));
    OK(mailstow_close(open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL)));
    CHECK(atomic_load(&lines) > 0);
    OK(mailstow_log_to_callback(NULL, NULL, MAILSTOW_LOG_OFF));
    int before = atomic_load(&lines);
    OK(mailstow_close(open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL)));
    CHECK(atomic_load(&lines) == before);
    CHECK(pipe(pipes) == 0);
    OK(mailstow_log_to_fd(pipes[1], MAILSTOW_LOG_INFO));
    OK(mailstow_close(open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL)));
    OK(mailstow_log_to_fd(pipes[1], MAILSTOW_LOG_OFF));
    close(pipes[1]);
    ssize_t length = read(pipes[0], text, sizeof text - 1);
    CHECK(length > 0);
    text[length] = '\0';
    CHECK(strstr(text, "delivery log: ") != NULL && text[length - 1] == '\n');
    close(pipes[0]);
}

static int is_pending(int number) {
    sigset_t pending;
    CHECK(sigpending(&pending) == 0);
    return sigismember(&pending, number);
}

static void a_log_without_a_reader_sends_no_signal(void) {
    int pipes[2], number;
    sigset_t broken_pipe, mask;
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    CHECK(pipe(pipes) == 0);
    close(pipes[0]);
    OK(mailstow_log_to_fd(pipes[1], MAILSTOW_LOG_DEBUG));
    OK(mailstow_close(open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL)));
    CHECK(!is_pending(SIGPIPE));
    CHECK(pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 && !sigismember(&mask, SIGPIPE));
    /* One that the program itself has to take stays. */
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    CHECK(pthread_sigmask(SIG_BLOCK, &broken_pipe, NULL) == 0);
    CHECK(pthread_kill(pthread_self(), SIGPIPE) == 0);
    OK(mailstow_close(open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL)));
    CHECK(is_pending(SIGPIPE));
    CHECK(sigwait(&broken_pipe, &number) == 0 && number == SIGPIPE);
    CHECK(!is_pending(SIGPIPE));
    OK(mailstow_log_to_fd(pipes[1], MAILSTOW_LOG_OFF));
    close(pipes[1]);
}

static void a_log_that_is_full_holds_nobody_up(void) {
    int pipes[2];
    char text[4096] = {0};
    CHECK(pipe(pipes) == 0);
    CHECK(fcntl(pipes[1], F_SETFL, O_NONBLOCK) == 0);
    while (write(pipes[1], text, sizeof text) > 0) {
    }
    CHECK(fcntl(pipes[1], F_SETFL, 0) == 0);
    OK(mailstow_log_to_fd(pipes[1], MAILSTOW_LOG_DEBUG));
    OK(mailstow_close(open_mode(MAILSTOW_MODE_LOGGED, NULL, NULL)));
    OK(mailstow_log_to_fd(pipes[1], MAILSTOW_LOG_OFF));
    close(pipes[0]);
    close(pipes[1]);
}

static atomic_int has_returned;
static int content_pipe[2];

static void *read_until_the_pipe_ends(void *message) {
    OK(mailstow_message_read_fd(message, content_pipe[0]));
    atomic_store(&has_returned, 1);
    for (;;) {
        pthread_testcancel();
        usleep(1000);
    }
    return NULL;
}

static void a_thread_is_cancelled_after_its_call_and_not_in_it(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, NULL, NULL);
    mailstow_message *message = NULL;
    mailstow_results *results = NULL;
    pthread_t thread;
    void *ended = NULL;
    OK(mailstow_message_new(handle, &message));
    OK(add(message, "info@example.com", 0));
    CHECK(pipe(content_pipe) == 0);
    CHECK(pthread_create(&thread, NULL, read_until_the_pipe_ends, message) == 0);
    /* The pipe is empty when the thread waits for more, or has not begun to read. */
    CHECK(write(content_pipe[1], "Subject: s\n\n", 12) == 12);
    for (int left = 1; left > 0; usleep(1000))
        CHECK(ioctl(content_pipe[0], FIONREAD, &left) == 0);
    CHECK(pthread_cancel(thread) == 0);
    CHECK(write(content_pipe[1], "text\n", 5) == 5);
    close(content_pipe[1]);
    CHECK(pthread_join(thread, &ended) == 0);
    CHECK(ended == PTHREAD_CANCELED && atomic_load(&has_returned));
    close(content_pipe[0]);
    OK(mailstow_deliver(handle, message, &results));
    CHECK(mailstow_results_exit_status(results) == 0);
    mailstow_results_free(results);
    OK(mailstow_close(handle));
}

static mailstow_message *shared_message;

static void *write_for_ever(void *argument) {
    (void)argument;
    char text[4096] = {0};
    long in_use = 0;
    for (int i = 0; i < 20000; i++) {
        mailstow_result result =
            mailstow_message_write(shared_message, text, sizeof text, NULL);
        CHECK(result == MAILSTOW_OK || result == MAILSTOW_REFUSED || result == MAILSTOW_IN_USE);
        in_use += result == MAILSTOW_IN_USE;
    }
    return (void *)in_use;
}

static void two_threads_with_one_message_get_errors_and_no_corruption(void) {
    mailstow *handle = open_mode(MAILSTOW_MODE_DIRECT, NULL, NULL);
    pthread_t threads[4];
    shared_message = message_for(handle, "info@example.com", "x\n");
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, write_for_ever, NULL) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    mailstow_message_free(shared_message);
    OK(mailstow_close(handle));
}

static void results_have_names_and_texts(void) {
    CHECK(strcmp(mailstow_result_name(MAILSTOW_OK), "MAILSTOW_OK") == 0);
    CHECK(strcmp(mailstow_result_name(MAILSTOW_BUSY), "MAILSTOW_BUSY") == 0);
    CHECK(strcmp(mailstow_result_name(1), "MAILSTOW_?") == 0);
    CHECK(strlen(mailstow_result_text(MAILSTOW_FORKED)) > 10);
    CHECK(mailstow_abi_version() == MAILSTOW_ABI_VERSION);
    CHECK(strcmp(mailstow_version(), MAILSTOW_VERSION) == 0);
}

/* A server that is not there, and one that is: see the program that started this. */
static void a_client_says_what_it_cannot_do(void) {
    mailstow_config *config = NULL;
    mailstow *handle = NULL;
    mailstow_error *error = NULL;
    mailstow_reply reply = {.struct_size = sizeof reply};
    uint32_t code = 0;
    OK(mailstow_config_new(&config));
    OK(mailstow_config_set(config, "lmtp.listen", "inet:127.0.0.1:24", NULL));
    IS(MAILSTOW_CONFIG, mailstow_open(config, MAILSTOW_MODE_CLIENT, &handle, &error));
    CHECK(strstr(mailstow_error_text(error, 0), "lmtp.listen") != NULL);
    mailstow_error_free(error);
    OK(mailstow_config_set(config, "lmtp.listen", "unix:/nonexistent/lmtp", NULL));
    /* It does not wait for two minutes. */
    OK(mailstow_config_set(config, "lmtp.delivery_deadline", "1d", NULL));
    OK(mailstow_config_set(config, "lmtp.connect_timeout", "1s", NULL));
    OK(mailstow_open(config, MAILSTOW_MODE_CLIENT, &handle, NULL));
    IS(MAILSTOW_NO_TABLES, mailstow_check_recipient(handle, "a@b", 3, 0, &reply));
    CHECK(deliver(handle, "info@example.com", "x\n", &code) == MAILSTOW_NOT_STORED);
    CHECK(code == 451);
    mailstow_config_free(config);
    OK(mailstow_close(handle));
}

static const struct rule rules[] = {
    RULE(null_and_closed_and_foreign_handles_are_errors),
    RULE(calls_for_other_modes_are_errors),
    RULE(structs_say_how_large_they_are_and_may_grow),
    RULE(a_child_of_fork_gets_errors_and_opens_its_own),
    RULE(content_comes_by_every_way_and_is_stored_the_same),
    RULE(what_follows_the_content_stays_in_the_descriptor),
    RULE(content_from_the_wire_whose_end_did_not_come_is_not_delivered),
    RULE(every_recipient_has_its_outcome),
    RULE(a_message_in_doubt_is_stored_once_and_a_confirmed_one_again),
    RULE(refused_content_is_answered_for_every_recipient),
    RULE(recipients_are_checked_and_resolved_without_writing_anything),
    RULE(mistakes_have_text_file_and_line),
    RULE(a_check_finds_what_opening_would_refuse),
    RULE(submitted_messages_wake_the_eventfd_and_are_drained_in_batches),
    RULE(a_function_gets_completions_when_it_is_asked_for),
    RULE(more_than_fits_is_busy_and_nothing_is_lost),
    RULE(envelopes_take_bounded_memory),
    RULE(a_late_delivery_is_given_up_and_never_appears),
    RULE(a_changed_table_and_a_reload_are_taken),
    RULE(maps_are_built_looked_up_and_changed_without_a_handle),
    RULE(threads_of_the_library_take_no_signals),
    RULE(all_descriptors_are_closed_by_execve),
    RULE(a_changed_user_gets_errors_and_no_file_of_a_wrong_owner),
    RULE(the_log_goes_where_it_is_sent_and_nowhere_else),
    RULE(a_log_without_a_reader_sends_no_signal),
    RULE(a_log_that_is_full_holds_nobody_up),
    RULE(a_thread_is_cancelled_after_its_call_and_not_in_it),
    RULE(two_threads_with_one_message_get_errors_and_no_corruption),
    RULE(results_have_names_and_texts),
    RULE(a_client_says_what_it_cannot_do),
};

int main(int argc, char **argv) {
    return run_rule(argc, argv, rules, sizeof rules / sizeof rules[0]);
}
