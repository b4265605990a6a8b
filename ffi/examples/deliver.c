/* deliver: a local delivery agent. One message from standard input into mailboxes.
 *
 *     deliver CONFIG SENDER RECIPIENT... < message
 *
 * CONFIG is a mailstow.toml, or a directory with Postfix's main.cf. The exit status is one of
 * sysexits.h, so that pipe(8) and others know what to do with the mail: 0, 67, 75, ...
 */
#include <mailstow.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static int fail(const char *what, mailstow_result result, mailstow_error *error) {
    fprintf(stderr, "deliver: %s: %s\n", what, mailstow_result_text(result));
    for (size_t i = 0; i < mailstow_error_count(error); i++) {
        const char *file = mailstow_error_file(error, i);
        fprintf(stderr, "%s:%u: %s\n", file ? file : "-", mailstow_error_line(error, i),
                mailstow_error_text(error, i));
    }
    mailstow_error_free(error);
    return EX_TEMPFAIL; /* our trouble: the queue keeps the mail */
}

int main(int argc, char **argv) {
    mailstow_config *config = NULL;
    mailstow *handle = NULL;
    mailstow_message *message = NULL;
    mailstow_results *results = NULL;
    mailstow_error *error = NULL;
    mailstow_result result;
    struct stat file;
    int refused = EX_OK;

    if (argc < 4) {
        fprintf(stderr, "usage: deliver CONFIG SENDER RECIPIENT... < message\n");
        return EX_TEMPFAIL;
    }
    mailstow_log_to_fd(STDERR_FILENO, MAILSTOW_LOG_WARNING);
    mailstow_config_new(&config);
    if (stat(argv[1], &file) == 0 && S_ISDIR(file.st_mode))
        mailstow_config_set_postfix(config, argv[1]);
    else
        mailstow_config_set_file(config, argv[1]);
    result = mailstow_open(config, MAILSTOW_MODE_DIRECT, &handle, &error);
    mailstow_config_free(config);
    if (result != MAILSTOW_OK)
        return fail(argv[1], result, error);
    if ((result = mailstow_message_new(handle, &message)) != MAILSTOW_OK ||
        (result = mailstow_message_set_sender(message, argv[2], strlen(argv[2]))) != MAILSTOW_OK)
        return fail(argv[2], result, NULL);
    for (int i = 3; i < argc; i++) {
        mailstow_recipient recipient = {.struct_size = sizeof recipient,
                                        .address = argv[i],
                                        .address_length = strlen(argv[i])};
        mailstow_reply reply = {.struct_size = sizeof reply};
        result = mailstow_message_add_recipient(message, &recipient, &reply);
        if (result == MAILSTOW_REFUSED) {
            fprintf(stderr, "%s %s\n", reply.enhanced, reply.text);
            if (refused != EX_TEMPFAIL)
                refused = reply.sysexits;
        } else if (result != MAILSTOW_OK) {
            return fail(argv[i], result, NULL);
        }
    }
    if (refused == EX_OK) { /* one exit status for all: none is delivered while one is refused */
        if ((result = mailstow_message_read_fd(message, STDIN_FILENO)) == MAILSTOW_SYSTEM ||
            (result = mailstow_deliver(handle, message, &results)) != MAILSTOW_OK)
            return fail("the message", result, NULL);
        for (size_t i = 0; i < mailstow_results_count(results); i++) {
            mailstow_outcome outcome = {.struct_size = sizeof outcome};
            mailstow_results_outcome(results, i, &outcome);
            if (outcome.state != MAILSTOW_DURABLE)
                fprintf(stderr, "%s %s\n", outcome.enhanced, outcome.text);
        }
        refused = mailstow_results_exit_status(results);
        mailstow_confirm(results);
        mailstow_results_free(results);
    } else {
        mailstow_message_free(message);
    }
    mailstow_close(handle);
    return refused;
}
