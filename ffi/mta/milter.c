/* milter: refuses unknown recipients, and recipients for whom the message is too large, at RCPT.
 *
 *     milter CONFIG SOCKET
 *
 * CONFIG is a mailstow.toml, or a directory with Postfix's main.cf; SOCKET is as libmilter spells
 * it: unix:/path, inet:port@host. It writes nothing and opens no mailbox, so that any user who may
 * read the tables, or the socketmap of `mailstow serve`, can run it.
 */
#include <libmilter/mfapi.h>
#include <mailstow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static mailstow *handle; /* any number of threads may use it */

/* The announced size stays with the connection, from MAIL until the next MAIL. */
static sfsistat at_mail(SMFICTX *context, char **arguments) {
    uint64_t *size = smfi_getpriv(context);
    if (size == NULL) {
        if ((size = malloc(sizeof *size)) == NULL)
            return SMFIS_TEMPFAIL;
        smfi_setpriv(context, size);
    }
    *size = 0;
    for (char **word = arguments + 1; *word != NULL; word++)
        if (strncasecmp(*word, "SIZE=", 5) == 0)
            *size = strtoull(*word + 5, NULL, 10);
    return SMFIS_CONTINUE;
}

/* libmilter takes the text for a format. */
static void without_percent(const char *text, char *copy, size_t size) {
    size_t at = 0;
    for (; *text != '\0' && at + 2 < size; text++) {
        if (*text == '%')
            copy[at++] = '%';
        copy[at++] = *text;
    }
    copy[at] = '\0';
}

static sfsistat at_rcpt(SMFICTX *context, char **arguments) {
    const uint64_t *size = smfi_getpriv(context);
    mailstow_reply reply = {.struct_size = sizeof reply};
    char code[4], text[900];
    mailstow_result result = mailstow_check_recipient(handle, arguments[0], strlen(arguments[0]),
                                                      size != NULL ? *size : 0, &reply);
    if (result != MAILSTOW_OK) {
        fprintf(stderr, "milter: %s\n", mailstow_result_text(result));
        return SMFIS_TEMPFAIL;
    }
    if (reply.code < 400)
        return SMFIS_CONTINUE;
    snprintf(code, sizeof code, "%u", reply.code % 1000);
    without_percent(reply.text, text, sizeof text);
    smfi_setreply(context, code, reply.enhanced, text);
    return reply.code < 500 ? SMFIS_TEMPFAIL : SMFIS_REJECT;
}

static sfsistat at_close(SMFICTX *context) {
    free(smfi_getpriv(context));
    smfi_setpriv(context, NULL);
    return SMFIS_CONTINUE;
}

int main(int argc, char **argv) {
    char name[] = "mailstow";
    struct smfiDesc filter = {.xxfi_name = name,
                              .xxfi_version = SMFI_VERSION,
                              .xxfi_envfrom = at_mail,
                              .xxfi_envrcpt = at_rcpt,
                              .xxfi_close = at_close};
    mailstow_config *config = NULL;
    mailstow_error *error = NULL;
    mailstow_result result;
    struct stat file;

    if (argc != 3) {
        fprintf(stderr, "usage: milter CONFIG SOCKET\n");
        return EX_USAGE;
    }
    mailstow_log_to_fd(STDERR_FILENO, MAILSTOW_LOG_WARNING);
    mailstow_config_new(&config);
    if (stat(argv[1], &file) == 0 && S_ISDIR(file.st_mode))
        mailstow_config_set_postfix(config, argv[1]);
    else
        mailstow_config_set_file(config, argv[1]);
    /* Client mode: recipients are looked up, and no mailboxes opened. */
    result = mailstow_open(config, MAILSTOW_MODE_CLIENT, &handle, &error);
    mailstow_config_free(config);
    if (result != MAILSTOW_OK) {
        fprintf(stderr, "milter: %s: %s\n", argv[1],
                error != NULL ? mailstow_error_text(error, 0) : mailstow_result_text(result));
        mailstow_error_free(error);
        return EX_CONFIG;
    }
    if (smfi_setconn(argv[2]) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS ||
        smfi_opensocket(1) != MI_SUCCESS) {
        fprintf(stderr, "milter: cannot listen on %s\n", argv[2]);
        return EX_UNAVAILABLE;
    }
    result = smfi_main() == MI_SUCCESS ? EX_OK : EX_SOFTWARE;
    mailstow_close(handle);
    return (int)result;
}
