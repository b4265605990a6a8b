/* deliver: a local delivery agent. One message from standard input into mailboxes.
 *
 *     deliver mailstow.toml SENDER RECIPIENT... < message
 *
 * The exit status is one of sysexits.h, one for all recipients, as pipe(8) expects it.
 */
#include <err.h>
#include <mailstow.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

static void expect_ok(const char *what, mailstow_result result) {
    if (result != MAILSTOW_OK) /* our trouble: the queue keeps the mail */
        errx(EX_TEMPFAIL, "%s: %s", what, mailstow_result_text(result));
}

int main(int argc, char **argv) {
    mailstow_config *config = NULL;
    mailstow *handle = NULL;
    mailstow_message *message = NULL;
    mailstow_results *results = NULL;
    mailstow_error *error = NULL;

    if (argc < 4)
        errx(EX_TEMPFAIL, "usage: deliver CONFIG SENDER RECIPIENT... < message");
    mailstow_log_to_fd(STDERR_FILENO, MAILSTOW_LOG_WARNING);
    expect_ok("configuration", mailstow_config_new(&config));
    expect_ok(argv[1], mailstow_config_set_file(config, argv[1]));
    mailstow_result opened = mailstow_open(config, MAILSTOW_MODE_DIRECT, &handle, &error);
    for (size_t i = 0; i < mailstow_error_count(error); i++) {
        const char *file = mailstow_error_file(error, i), *text = mailstow_error_text(error, i);
        warnx("%s:%u: %s", file ? file : argv[1], mailstow_error_line(error, i), text);
    }
    expect_ok(argv[1], opened);
    expect_ok("message", mailstow_message_new(handle, &message));
    expect_ok(argv[2], mailstow_message_set_sender(message, argv[2], strlen(argv[2])));
    for (int i = 3; i < argc; i++) {
        mailstow_recipient recipient = {
            .struct_size = sizeof recipient, .address = argv[i], .address_length = strlen(argv[i])};
        mailstow_reply reply = {.struct_size = sizeof reply};
        mailstow_result added = mailstow_message_add_recipient(message, &recipient, &reply);
        if (added == MAILSTOW_REFUSED) { /* then nobody gets the message */
            fprintf(stderr, "%s %s\n", reply.enhanced, reply.text);
            return reply.sysexits;
        }
        expect_ok(argv[i], added);
    }
    if (mailstow_message_read_fd(message, STDIN_FILENO) == MAILSTOW_SYSTEM)
        errx(EX_TEMPFAIL, "standard input cannot be read");
    expect_ok("delivery", mailstow_deliver(handle, message, &results));
    for (size_t i = 0; i < mailstow_results_count(results); i++) {
        mailstow_outcome outcome = {.struct_size = sizeof outcome};
        mailstow_results_outcome(results, i, &outcome);
        if (outcome.state != MAILSTOW_DURABLE)
            fprintf(stderr, "%s %s\n", outcome.enhanced, outcome.text);
    }
    return mailstow_results_exit_status(results); /* nothing to confirm without a delivery log */
}
