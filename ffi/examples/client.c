/* client: many processes that hand mail over to a running `mailstow serve`.
 *
 *     client CONFIG CHILDREN MESSAGES RECIPIENT
 *
 * Each child, forked as mail servers do, opens a handle of its own and delivers messages one after
 * the other. The server may be restarted meanwhile: every message is sent until it is answered.
 * A handle that the parent opened is of no use in a child, which is shown, too. Prints how many
 * were stored; every message has a number of its own in its Subject.
 */
#define _POSIX_C_SOURCE 200809L
#include <mailstow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *file, *recipient_text;

static mailstow *open_client(void) {
    mailstow_config *config = NULL;
    mailstow *handle = NULL;
    mailstow_error *error = NULL;
    mailstow_config_new(&config);
    mailstow_config_set_file(config, file);
    mailstow_result result = mailstow_open(config, MAILSTOW_MODE_CLIENT, &handle, &error);
    for (size_t i = 0; i < mailstow_error_count(error); i++)
        fprintf(stderr, "client: %s\n", mailstow_error_text(error, i));
    mailstow_error_free(error);
    mailstow_config_free(config);
    return result == MAILSTOW_OK ? handle : NULL;
}

/* Delivers one message; whether it is stored. */
static int deliver(mailstow *handle, int child, int number) {
    mailstow_message *message = NULL;
    mailstow_results *results = NULL;
    mailstow_recipient recipient = {.struct_size = sizeof recipient,
                                    .address = recipient_text,
                                    .address_length = strlen(recipient_text)};
    mailstow_outcome outcome = {.struct_size = sizeof outcome};
    char key[64], text[256];
    snprintf(key, sizeof key, "%d.%d", child, number);
    snprintf(text, sizeof text, "Subject: message %s\n\nFrom child %d.\n.\n..\n", key, child);
    if (mailstow_message_new(handle, &message) != MAILSTOW_OK ||
        mailstow_message_set_retry_key(message, key, strlen(key)) != MAILSTOW_OK ||
        mailstow_message_add_recipient(message, &recipient, NULL) != MAILSTOW_OK ||
        mailstow_message_write(message, text, strlen(text), NULL) != MAILSTOW_OK ||
        mailstow_deliver(handle, message, &results) != MAILSTOW_OK)
        return 0;
    mailstow_results_outcome(results, 0, &outcome);
    if (outcome.state != MAILSTOW_DURABLE)
        fprintf(stderr, "client: %s: %u %s\n", key, outcome.code, outcome.text);
    mailstow_confirm(results); /* this program has read what became of it */
    int stored = outcome.state == MAILSTOW_DURABLE;
    mailstow_results_free(results);
    return stored;
}

static int run_child(mailstow *of_parent, int child, int messages) {
    mailstow_message *message = NULL;
    if (mailstow_message_new(of_parent, &message) != MAILSTOW_FORKED)
        return 1;
    mailstow *handle = open_client();
    int stored = 0;
    for (int number = 0; handle != NULL && number < messages; number++)
        stored += deliver(handle, child, number);
    mailstow_close(handle);
    return stored == messages ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: client CONFIG CHILDREN MESSAGES RECIPIENT\n");
        return 2;
    }
    int children = atoi(argv[2]), messages = atoi(argv[3]), good = 0, status;
    file = argv[1];
    recipient_text = argv[4];
    mailstow *handle = open_client();
    if (handle == NULL)
        return 1;
    for (int child = 0; child < children; child++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(run_child(handle, child, messages));
        if (pid < 0)
            perror("client: fork");
    }
    while (wait(&status) > 0)
        good += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    mailstow_close(handle);
    printf("%d of %d children stored %d messages each\n", good, children, messages);
    return good == children ? 0 : 1;
}
