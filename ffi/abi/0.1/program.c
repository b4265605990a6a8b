/* program: what a program does that was built against the first library with the SONAME
 * libmailstow.so.0.1. It and the header file beside it are never changed, so that every later
 * library with that name is proven to run programs that were built before it.
 *
 *     program DIRECTORY       DIRECTORY as for ../../tests/rules.c
 */
#include "mailstow.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

#define OK(call) \
    do { \
        mailstow_result is_ = (call); \
        if (is_ != MAILSTOW_OK) { \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, \
                    mailstow_result_text(is_)); \
            exit(1); \
        } \
    } while (0)

/* Every struct has bytes behind it that the library must leave alone. */
#define STRUCT(type, name) \
    struct { \
        type known; \
        unsigned char guard[64]; \
    } name; \
    memset(&name, 0xa5, sizeof name); \
    memset(&name.known, 0, sizeof name.known); \
    name.known.struct_size = sizeof name.known

static int is_untouched(const unsigned char *guard) {
    for (int i = 0; i < 64; i++)
        if (guard[i] != 0xa5)
            return 0;
    return 1;
}

static mailstow_message *message_for(mailstow *handle, const char *address) {
    mailstow_message *message = NULL;
    STRUCT(mailstow_recipient, recipient);
    STRUCT(mailstow_reply, reply);
    recipient.known.address = address;
    recipient.known.address_length = strlen(address);
    OK(mailstow_message_new(handle, &message));
    OK(mailstow_message_set_sender(message, "me@example.org", 14));
    OK(mailstow_message_add_recipient(message, &recipient.known, &reply.known));
    CHECK(reply.known.code == 250 && is_untouched(reply.guard));
    OK(mailstow_message_write(message, "Subject: x\n\nx\n", 14, NULL));
    return message;
}

static void resolve(mailstow *handle) {
    mailstow_resolution *resolution = NULL;
    STRUCT(mailstow_reply, reply);
    STRUCT(mailstow_route, route);
    OK(mailstow_check_recipient(handle, "info@example.com", 16, 100, &reply.known));
    CHECK(reply.known.code == 250 && strcmp(reply.known.enhanced, "2.1.5") == 0);
    OK(mailstow_check_recipient(handle, "none@example.com", 16, 0, &reply.known));
    CHECK(reply.known.code == 550 && reply.known.sysexits == 67 && is_untouched(reply.guard));
    OK(mailstow_resolve(handle, "all@example.com", 15, &resolution));
    CHECK(mailstow_resolution_count(resolution) == 2);
    OK(mailstow_resolution_route(resolution, 0, &route.known));
    CHECK(route.known.address_class == MAILSTOW_CLASS_VIRTUAL_MAILBOX);
    CHECK(route.known.format == MAILSTOW_FORMAT_MAILDIR && is_untouched(route.guard));
    CHECK(strcmp(route.known.recipient, "info@example.com") == 0);
    CHECK(strstr(route.known.mailbox, "/vhosts/example.com/info/") != NULL);
    mailstow_resolution_free(resolution);
}

static void deliver(mailstow *handle) {
    mailstow_results *results = NULL;
    STRUCT(mailstow_outcome, outcome);
    STRUCT(mailstow_completion, done);
    STRUCT(mailstow_statistics, figures);
    struct pollfd finished = {.events = POLLIN};
    size_t count = 0;
    OK(mailstow_deliver(handle, message_for(handle, "info@example.com"), &results));
    CHECK(mailstow_results_count(results) == 1 && mailstow_results_exit_status(results) == 0);
    OK(mailstow_results_outcome(results, 0, &outcome.known));
    CHECK(outcome.known.state == MAILSTOW_DURABLE && is_untouched(outcome.guard));
    OK(mailstow_confirm(results));
    mailstow_results_free(results);

    OK(mailstow_event_fd(handle, &finished.fd));
    OK(mailstow_submit(handle, message_for(handle, "box@example.com"), 42));
    CHECK(poll(&finished, 1, 60000) == 1);
    OK(mailstow_drain(handle, &done.known, 1, &count));
    CHECK(count == 1 && done.known.token == 42 && is_untouched(done.guard));
    OK(mailstow_confirm(done.known.results));
    mailstow_results_free(done.known.results);

    OK(mailstow_statistics_get(handle, &figures.known));
    CHECK(figures.known.durable == 2 && is_untouched(figures.guard));
}

static void use_map(const char *path) {
    mailstow_map_builder *builder = NULL;
    mailstow_map *map = NULL;
    mailstow_map_edit edit;
    char value[64];
    size_t length = 0;
    uint64_t keys = 0;
    OK(mailstow_map_builder_new(path, MAILSTOW_CHANGES_REFUSE, &builder, NULL));
    OK(mailstow_map_builder_add(builder, "t", "Key", 3, "value", 5, NULL));
    OK(mailstow_map_builder_finish(builder, &keys, NULL));
    CHECK(keys == 1);
    memset(&edit, 0, sizeof edit);
    edit.struct_size = sizeof edit;
    edit.table = "t";
    edit.key = "other";
    edit.key_length = 5;
    edit.value = "new";
    edit.value_length = 3;
    OK(mailstow_map_change(path, &edit, 1, NULL));
    OK(mailstow_map_open(path, &map, NULL));
    OK(mailstow_map_lookup(map, "t", "key", 3, value, sizeof value, &length));
    CHECK(length == 5 && strcmp(value, "value") == 0);
    OK(mailstow_map_lookup(map, "t", "other", 5, value, sizeof value, &length));
    CHECK(strcmp(value, "new") == 0);
    CHECK(mailstow_map_lookup(map, "t", "none", 4, value, sizeof value, NULL) ==
          MAILSTOW_NOT_FOUND);
    mailstow_map_close(map);
}

int main(int argc, char **argv) {
    char path[4096];
    mailstow_config *config = NULL;
    mailstow_error *error = NULL;
    mailstow *handle = NULL;
    CHECK(argc == 2);
    CHECK(mailstow_abi_version() == MAILSTOW_ABI_VERSION);
    OK(mailstow_config_new(&config));
    snprintf(path, sizeof path, "%s/mailstow.toml", argv[1]);
    OK(mailstow_config_set_file(config, path));
    CHECK(mailstow_config_set(config, "no_such_name", "1", &error) != MAILSTOW_OK);
    CHECK(mailstow_error_count(error) == 1 && strlen(mailstow_error_text(error, 0)) > 0);
    mailstow_error_free(error);
    OK(mailstow_open(config, MAILSTOW_MODE_LOGGED, &handle, NULL));
    mailstow_config_free(config);
    resolve(handle);
    deliver(handle);
    OK(mailstow_close(handle));
    CHECK(mailstow_close(handle) == MAILSTOW_CLOSED);
    snprintf(path, sizeof path, "%s/a.map", argv[1]);
    use_map(path);
    return 0;
}
