/* What the header file promises of MAILSTOW_MODE_CLIENT, with the server that MAILSTOW names; see
 * rules.h. */
#define _GNU_SOURCE
#include "rules.h"

#include <errno.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Starts the server, which ends with this process, and waits until it listens. */
static void start_server(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *program = getenv("MAILSTOW");
    CHECK(program != NULL);
    pid_t parent = getpid();
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        execl(program, program, "serve", "--config", path_of("mailstow.toml"), (char *)NULL);
        _exit(127);
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path_of("lmtp"));
    for (int tries = 0;; tries++) {
        int tried = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(tried >= 0);
        int failed = connect(tried, (struct sockaddr *)&address, sizeof address);
        close(tried);
        if (failed == 0)
            return;
        CHECK(tries < 6000);
        usleep(10000);
    }
}

/* Delivers a message that a queue id names, and does not confirm it. */
static mailstow_results *send_as(mailstow *handle, const char *key, const char *address,
                                 uint32_t deadline_ms) {
    mailstow_message *message = NULL;
    mailstow_results *results = NULL;
    OK(mailstow_message_new(handle, &message));
    OK(mailstow_message_set_sender(message, "me@example.org", 14));
    OK(mailstow_message_set_retry_key(message, key, strlen(key)));
    OK(add(message, address, deadline_ms));
    OK(mailstow_message_write(message, "Subject: once\n\ntext\n", 20, NULL));
    OK(mailstow_deliver(handle, message, &results));
    return results;
}

static mailstow_outcome only_outcome(mailstow_results *results) {
    mailstow_outcome outcome = {.struct_size = sizeof outcome};
    CHECK(mailstow_results_count(results) == 1);
    OK(mailstow_results_outcome(results, 0, &outcome));
    return outcome;
}

/* A child that holds what its parent had, until the pipe is closed. */
static void fork_a_child_that_waits(int pipes[2]) {
    CHECK(pipe(pipes) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char byte;
        close(pipes[1]);
        while (read(pipes[0], &byte, 1) < 0 && errno == EINTR) {
        }
        _exit(0);
    }
    close(pipes[0]);
}

static void what_is_in_doubt_is_stored_once_although_a_child_was_forked_meanwhile(void) {
    start_server();
    mailstow *handle = open_mode(MAILSTOW_MODE_CLIENT, NULL, NULL);
    mailstow_results *results = send_as(handle, "1", "info@example.com", 0);
    int pipes[2];
    CHECK(only_outcome(results).state == MAILSTOW_DURABLE);
    fork_a_child_that_waits(pipes);
    mailstow_results_free(results);
    results = send_as(handle, "1", "info@example.com", 0);
    CHECK(only_outcome(results).state == MAILSTOW_DURABLE);
    CHECK(count_files("vhosts/example.com/info/new") == 1);
    /* A connection that the child has no copy of serves the parent. */
    OK(mailstow_confirm(results));
    mailstow_results_free(results);
    CHECK(deliver(handle, "info@example.com", "other\n", NULL) == MAILSTOW_DURABLE);
    CHECK(count_files("vhosts/example.com/info/new") == 2);
    close(pipes[1]);
    OK(mailstow_close(handle));
}

static void what_is_in_doubt_is_stored_once_although_its_sender_died_and_left_a_child(void) {
    start_server();
    int pipes[2], status;
    CHECK(pipe(pipes) == 0);
    pid_t sender = fork();
    CHECK(sender >= 0);
    if (sender == 0) {
        mailstow *handle = open_mode(MAILSTOW_MODE_CLIENT, NULL, NULL);
        mailstow_results *results = send_as(handle, "1", "info@example.com", 0);
        CHECK(only_outcome(results).state == MAILSTOW_DURABLE);
        /* The child waits until the test is over. */
        if (fork() == 0) {
            char byte;
            close(pipes[1]);
            while (read(pipes[0], &byte, 1) < 0 && errno == EINTR) {
            }
            _exit(0);
        }
        kill(getpid(), SIGKILL);
    }
    close(pipes[0]);
    CHECK(waitpid(sender, &status, 0) == sender && WIFSIGNALED(status));
    mailstow *handle = open_mode(MAILSTOW_MODE_CLIENT, NULL, NULL);
    mailstow_results *results = send_as(handle, "1", "info@example.com", 0);
    CHECK(only_outcome(results).state == MAILSTOW_DURABLE);
    mailstow_results_free(results);
    CHECK(count_files("vhosts/example.com/info/new") == 1);
    close(pipes[1]);
    OK(mailstow_close(handle));
}

static void *send_again(void *handle) {
    mailstow_results *results = send_as(handle, "1", "box@example.com", 60000);
    uint32_t state = only_outcome(results).state;
    mailstow_results_free(results);
    return (void *)(uintptr_t)state;
}

static void a_message_sent_again_while_the_server_delivers_it_is_stored_once(void) {
    start_server();
    mailstow *handle = open_mode(MAILSTOW_MODE_CLIENT, NULL, NULL);
    CHECK(deliver(handle, "box@example.com", "first\n", NULL) == MAILSTOW_DURABLE);
    /* Somebody has the mbox. */
    int lock = open(path_of("vhosts/example.com/box.lock"), O_CREAT | O_EXCL | O_RDWR, 0600);
    CHECK(lock >= 0);
    close(lock);
    mailstow_results *results = send_as(handle, "1", "box@example.com", 200);
    CHECK(only_outcome(results).state == MAILSTOW_IN_DOUBT);
    mailstow_results_free(results);
    pthread_t thread;
    void *state = NULL;
    CHECK(pthread_create(&thread, NULL, send_again, handle) == 0);
    /* Whether the server has it by now or not. */
    usleep(50000);
    unlink(path_of("vhosts/example.com/box.lock"));
    CHECK(pthread_join(thread, &state) == 0);
    CHECK((uintptr_t)state == MAILSTOW_DURABLE);
    OK(mailstow_close(handle));
    char text[8192];
    FILE *box = fopen(path_of("vhosts/example.com/box"), "r");
    CHECK(box != NULL);
    text[fread(text, 1, sizeof text - 1, box)] = '\0';
    fclose(box);
    const char *copy = strstr(text, "Subject: once");
    CHECK(copy != NULL && strstr(copy + 1, "Subject: once") == NULL);
}

static const struct rule rules[] = {
    RULE(what_is_in_doubt_is_stored_once_although_a_child_was_forked_meanwhile),
    RULE(what_is_in_doubt_is_stored_once_although_its_sender_died_and_left_a_child),
    RULE(a_message_sent_again_while_the_server_delivers_it_is_stored_once),
};

int main(int argc, char **argv) {
    return run_rule(argc, argv, rules, sizeof rules / sizeof rules[0]);
}
