/* build_map: compiles "KEY VALUE" lines from standard input into a table of a recipient map, and
 * changes single keys of a map that is in use.
 *
 *     build_map MAP TABLE < lines
 *     build_map -s MAP TABLE KEY VALUE
 *     build_map -u MAP TABLE KEY
 */
#include <mailstow.h>
#include <stdio.h>
#include <string.h>

static int fail(const char *what, mailstow_result result, mailstow_error *error) {
    fprintf(stderr, "build_map: %s: %s\n", what, mailstow_result_text(result));
    for (size_t i = 0; i < mailstow_error_count(error); i++)
        fprintf(stderr, "build_map: %s\n", mailstow_error_text(error, i));
    mailstow_error_free(error);
    return 1;
}

static int change(const char *map, const char *table, const char *key, const char *value) {
    mailstow_error *error = NULL;
    mailstow_map_edit edit = {.struct_size = sizeof edit,
                              .table = table,
                              .key = key,
                              .key_length = strlen(key),
                              .value = value,
                              .value_length = value ? strlen(value) : 0};
    mailstow_result result = mailstow_map_change(map, &edit, 1, &error);
    return result == MAILSTOW_OK ? 0 : fail(map, result, error);
}

int main(int argc, char **argv) {
    mailstow_map_builder *builder = NULL;
    mailstow_error *error = NULL;
    mailstow_result result;
    uint64_t keys = 0;
    char line[4096];

    if (argc == 6 && strcmp(argv[1], "-s") == 0)
        return change(argv[2], argv[3], argv[4], argv[5]);
    if (argc == 5 && strcmp(argv[1], "-u") == 0)
        return change(argv[2], argv[3], argv[4], NULL);
    if (argc != 3) {
        fprintf(stderr, "usage: build_map MAP TABLE < lines\n");
        return 2;
    }
    result = mailstow_map_builder_new(argv[1], MAILSTOW_CHANGES_DISCARD, &builder, &error);
    if (result != MAILSTOW_OK)
        return fail(argv[1], result, error);
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *key = strtok(line, " \t\n"), *value = strtok(NULL, "\n");
        if (key == NULL || *key == '#')
            continue;
        value = value ? value + strspn(value, " \t") : "";
        result = mailstow_map_builder_add(builder, argv[2], key, strlen(key), value,
                                          strlen(value), &error);
        if (result != MAILSTOW_OK) {
            mailstow_map_builder_free(builder);
            return fail(key, result, error);
        }
    }
    result = mailstow_map_builder_finish(builder, &keys, &error);
    if (result != MAILSTOW_OK)
        return fail(argv[1], result, error);
    printf("%llu keys\n", (unsigned long long)keys);
    return 0;
}
