/* What the programs that check rules share.
 *
 *     PROGRAM --list               names its rules
 *     PROGRAM DIRECTORY NAME       checks one; exit status 0 when it holds
 *
 * DIRECTORY holds a mailstow.toml whose mailboxes are info@, sales@ (Maildirs) and box@ (an mbox)
 * of example.com, below DIRECTORY/vhosts.
 */
#include <dirent.h>
#include <fcntl.h>
#include <mailstow.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Where the site of the rule is. */
static const char *directory;

static inline void fail(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    exit(1);
}

#define CHECK(condition) \
    do { \
        if (!(condition)) \
            fail(__FILE__, __LINE__, #condition); \
    } while (0)

#define IS(expected, call) \
    do { \
        mailstow_result is_ = (call); \
        if (is_ != (expected)) { \
            fprintf(stderr, "%s is %s\n", #call, mailstow_result_name(is_)); \
            fail(__FILE__, __LINE__, "not " #expected); \
        } \
    } while (0)

#define OK(call) IS(MAILSTOW_OK, call)

static inline char *path_of(const char *name) {
    static char path[4][4096];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", directory, name);
    return path[next];
}

static inline mailstow_config *config_of_site(void) {
    mailstow_config *config = NULL;
    OK(mailstow_config_new(&config));
    OK(mailstow_config_set_file(config, path_of("mailstow.toml")));
    return config;
}

static inline mailstow *open_mode(uint32_t mode, const char *name, const char *value) {
    mailstow_config *config = config_of_site();
    mailstow *handle = NULL;
    mailstow_error *error = NULL;
    if (name != NULL)
        OK(mailstow_config_set(config, name, value, NULL));
    mailstow_result result = mailstow_open(config, mode, &handle, &error);
    for (size_t i = 0; i < mailstow_error_count(error); i++)
        fprintf(stderr, "%s\n", mailstow_error_text(error, i));
    OK(result);
    mailstow_config_free(config);
    return handle;
}

static inline mailstow_result add(mailstow_message *message, const char *address, uint32_t deadline_ms) {
    mailstow_recipient recipient = {.struct_size = sizeof recipient,
                                    .deadline_ms = deadline_ms,
                                    .address = address,
                                    .address_length = strlen(address)};
    return mailstow_message_add_recipient(message, &recipient, NULL);
}

static inline mailstow_message *message_for(mailstow *handle, const char *address, const char *text) {
    mailstow_message *message = NULL;
    OK(mailstow_message_new(handle, &message));
    OK(mailstow_message_set_sender(message, "me@example.org", 14));
    OK(add(message, address, 0));
    OK(mailstow_message_write(message, text, strlen(text), NULL));
    return message;
}

/* Delivers one message and confirms it; its state and reply code. */
static inline uint32_t deliver(mailstow *handle, const char *address, const char *text, uint32_t *code) {
    mailstow_results *results = NULL;
    mailstow_outcome outcome = {.struct_size = sizeof outcome};
    OK(mailstow_deliver(handle, message_for(handle, address, text), &results));
    OK(mailstow_results_outcome(results, 0, &outcome));
    if (code != NULL)
        *code = outcome.code;
    OK(mailstow_confirm(results));
    mailstow_results_free(results);
    return outcome.state;
}

static inline int count_files(const char *name) {
    DIR *open = opendir(path_of(name));
    int count = 0;
    for (struct dirent *entry; open != NULL && (entry = readdir(open)) != NULL;)
        count += entry->d_name[0] != '.';
    if (open != NULL)
        closedir(open);
    return count;
}

/* The only file in a directory. */
static inline size_t read_only_file(const char *name, char *text, size_t size) {
    DIR *open = opendir(path_of(name));
    size_t length = 0;
    CHECK(open != NULL);
    for (struct dirent *entry; (entry = readdir(open)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        char path[8192];
        snprintf(path, sizeof path, "%s/%s", path_of(name), entry->d_name);
        FILE *file = fopen(path, "r");
        CHECK(file != NULL);
        length = fread(text, 1, size - 1, file);
        fclose(file);
    }
    closedir(open);
    text[length] = '\0';
    return length;
}

#define RULE(name) \
    { #name, name }

struct rule {
    const char *name;
    void (*check)(void);
};

static inline int run_rule(int argc, char **argv, const struct rule *rules, size_t count) {
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < count; i++)
            puts(rules[i].name);
        return 0;
    }
    if (argc != 3)
        return 2;
    directory = argv[1];
    setenv("DIRECTORY", directory, 1);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(argv[2], rules[i].name) == 0) {
            rules[i].check();
            return 0;
        }
    }
    fprintf(stderr, "there is no rule %s\n", argv[2]);
    return 2;
}
