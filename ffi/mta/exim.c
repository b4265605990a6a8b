/* exim: lets Exim ask at RCPT who is known, through ${dlfunc}.
 *
 *     ${dlfunc{/usr/local/lib/mailstow-exim.so}{mailstow_rcpt}{CONFIG}{ADDRESS}{SIZE}}
 *
 * CONFIG is a mailstow.toml, or a directory with Postfix's main.cf; SIZE is $message_size, which
 * is -1 when the client announced none. The value is the reply as Exim's `message` takes it: code,
 * enhanced code, text. It begins with 250 for recipients that exist and for domains that are not
 * ours to judge, and with 451 when the answer is not known now; syslog has the reason when it is
 * the configuration.
 */
#include <mailstow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

enum { EXIM_OK = 0 }; /* OK of Exim's local_scan.h */

int mailstow_rcpt(unsigned char **yield, int argc, unsigned char *argv[]);

/* Each of Exim's processes opens its own handle, at its first recipient. */
static mailstow *handle;
static pid_t opened_by;

static const char *open_once(const char *path) {
    mailstow_config *config = NULL;
    mailstow_error *error = NULL;
    mailstow_result result;
    struct stat file;
    static char problem[400];

    if (handle != NULL && opened_by == getpid())
        return NULL;
    handle = NULL; /* after fork(2) the handle is the parent's */
    mailstow_config_new(&config);
    if (stat(path, &file) == 0 && S_ISDIR(file.st_mode))
        mailstow_config_set_postfix(config, path);
    else
        mailstow_config_set_file(config, path);
    /* Client mode: recipients are looked up, in the server's socketmap where there is one. */
    result = mailstow_open(config, MAILSTOW_MODE_CLIENT, &handle, &error);
    mailstow_config_free(config);
    if (result == MAILSTOW_OK) {
        opened_by = getpid();
        return NULL;
    }
    snprintf(problem, sizeof problem, "%s",
             error != NULL ? mailstow_error_text(error, 0) : mailstow_result_text(result));
    mailstow_error_free(error);
    return problem;
}

int mailstow_rcpt(unsigned char **yield, int argc, unsigned char *argv[]) {
    static char value[600]; /* Exim copies it at once */
    mailstow_reply reply = {.struct_size = sizeof reply};
    mailstow_result result;
    const char *problem;
    const char *address;
    long long size;

    *yield = (unsigned char *)value;
    if (argc != 3) {
        snprintf(value, sizeof value, "451 4.3.5 mailstow_rcpt wants configuration, address, size");
        return EXIM_OK;
    }
    if ((problem = open_once((const char *)argv[0])) != NULL) {
        /* What is wrong here is no business of the client. */
        syslog(LOG_MAIL | LOG_ERR, "mailstow: %s: %s", argv[0], problem);
        snprintf(value, sizeof value, "451 4.3.0 recipients cannot be looked up now");
        return EXIM_OK;
    }
    address = (const char *)argv[1];
    size = strtoll((const char *)argv[2], NULL, 10);
    result = mailstow_check_recipient(handle, address, strlen(address),
                                      size > 0 ? (uint64_t)size : 0, &reply);
    if (result == MAILSTOW_OK)
        snprintf(value, sizeof value, "%u %s %s", reply.code, reply.enhanced, reply.text);
    else
        snprintf(value, sizeof value, "451 4.3.0 recipients cannot be looked up now");
    return EXIM_OK;
}
