/* lookup: who is this recipient?
 *
 *     lookup CONFIG SIZE ADDRESS...          what RCPT with SIZE is answered, and where mail goes
 *     lookup -m MAP TABLE KEY...             what a recipient map has for keys
 */
#include <mailstow.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int fail(const char *what, mailstow_result result, mailstow_error *error) {
    fprintf(stderr, "lookup: %s: %s\n", what, mailstow_result_text(result));
    for (size_t i = 0; i < mailstow_error_count(error); i++)
        fprintf(stderr, "lookup: %s\n", mailstow_error_text(error, i));
    mailstow_error_free(error);
    return 1;
}

static int look_into_map(int count, char **names) {
    mailstow_map *map = NULL;
    mailstow_error *error = NULL;
    mailstow_result result = mailstow_map_open(names[0], &map, &error);
    if (result != MAILSTOW_OK)
        return fail(names[0], result, error);
    for (int i = 2; i < count; i++) {
        char value[1024];
        result = mailstow_map_lookup(map, names[1], names[i], strlen(names[i]), value,
                                     sizeof value, NULL);
        printf("%s: %s\n", names[i],
               result == MAILSTOW_OK ? value : mailstow_result_text(result));
    }
    mailstow_map_close(map);
    return 0;
}

static int resolve(mailstow *handle, uint64_t size, const char *address) {
    mailstow_reply reply = {.struct_size = sizeof reply};
    mailstow_resolution *resolution = NULL;
    mailstow_result result =
        mailstow_check_recipient(handle, address, strlen(address), size, &reply);
    if (result == MAILSTOW_OK)
        result = mailstow_resolve(handle, address, strlen(address), &resolution);
    if (result != MAILSTOW_OK)
        return fail(address, result, NULL);
    printf("%s: %u %s %s\n", address, reply.code, reply.enhanced, reply.text);
    for (size_t i = 0; i < mailstow_resolution_count(resolution); i++) {
        mailstow_route route = {.struct_size = sizeof route};
        mailstow_resolution_route(resolution, i, &route);
        printf("    %s by %s:%s", route.recipient, route.transport, route.nexthop);
        if (route.mailbox != NULL)
            printf(" in %s as %u:%u", route.mailbox, route.uid, route.gid);
        putchar('\n');
    }
    mailstow_resolution_free(resolution);
    return 0;
}

int main(int argc, char **argv) {
    mailstow_config *config = NULL;
    mailstow *handle = NULL;
    mailstow_error *error = NULL;
    mailstow_result result;
    struct stat file;
    int status = 0;

    if (argc > 4 && strcmp(argv[1], "-m") == 0)
        return look_into_map(argc - 2, argv + 2);
    if (argc < 4) {
        fprintf(stderr, "usage: lookup CONFIG SIZE ADDRESS... | lookup -m MAP TABLE KEY...\n");
        return 2;
    }
    mailstow_config_new(&config);
    if (stat(argv[1], &file) == 0 && S_ISDIR(file.st_mode))
        mailstow_config_set_postfix(config, argv[1]);
    else
        mailstow_config_set_file(config, argv[1]);
    /* Client mode delivers nothing itself: it opens tables, and no mailboxes. */
    mailstow_config_set(config, "lmtp.listen", "unix:/run/mailstow/lmtp", NULL);
    result = mailstow_open(config, MAILSTOW_MODE_CLIENT, &handle, &error);
    mailstow_config_free(config);
    if (result != MAILSTOW_OK)
        return fail(argv[1], result, error);
    for (int i = 3; i < argc; i++)
        status |= resolve(handle, strtoull(argv[2], NULL, 10), argv[i]);
    mailstow_close(handle);
    return status;
}
