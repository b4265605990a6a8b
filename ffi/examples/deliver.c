/* deliver: a local delivery agent. One message from standard input into the mailbox of a recipient.
 *
 *     deliver mailstow.toml SENDER RECIPIENT < message
 *
 * The exit status is one of sysexits.h, as pipe(8) and others expect it. */
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

    if (argc != 4)
        errx(EX_TEMPFAIL, "usage: deliver mailstow.toml SENDER RECIPIENT < message");
    mailstow_log_to_fd(STDERR_FILENO, MAILSTOW_LOG_WARNING);
    expect_ok("configuration", mailstow_config_new(&config));
    expect_ok(argv[1], mailstow_config_set_file(config, argv[1]));
    mailstow_result opened = mailstow_open(config, MAILSTOW_MODE_DIRECT, &handle, &error);
    for (size_t i = 0; i < mailstow_error_count(error); i++)
        if (mailstow_error_file(error, i))
            warnx("%s:%u: %s", mailstow_error_file(error, i), mailstow_error_line(error, i),
                  mailstow_error_text(error, i));
        else
            warnx("%s", mailstow_error_text(error, i));
    expect_ok(argv[1], opened);
    mailstow_config_free(config);
    expect_ok("message", mailstow_message_new(handle, &message));
    expect_ok(argv[2], mailstow_message_set_sender(message, argv[2], strlen(argv[2])));
    mailstow_recipient recipient = {
        .struct_size = sizeof recipient, .address = argv[3], .address_length = strlen(argv[3])};
    mailstow_reply reply = {.struct_size = sizeof reply};
    mailstow_result added = mailstow_message_add_recipient(message, &recipient, &reply);
    if (added == MAILSTOW_REFUSED) {
        fprintf(stderr, "%s %s\n", reply.enhanced, reply.text);
        mailstow_message_free(message);
        mailstow_close(handle);
        return reply.sysexits;
    }
    expect_ok(argv[3], added);
    if (mailstow_message_read_fd(message, STDIN_FILENO) == MAILSTOW_SYSTEM)
        errx(EX_TEMPFAIL, "standard input cannot be read");
    mailstow_outcome outcome = {.struct_size = sizeof outcome};
    expect_ok("delivery", mailstow_deliver(handle, message, &results));
    expect_ok("outcome", mailstow_results_outcome(results, 0, &outcome));
    if (outcome.state != MAILSTOW_DURABLE)
        fprintf(stderr, "%s %s\n", outcome.enhanced, outcome.text);
    mailstow_confirm(results);
    mailstow_results_free(results);
    mailstow_close(handle);
    return outcome.sysexits;
}
