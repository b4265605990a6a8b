/*
 * libmailstow: mail delivery and recipient look-up in process.
 *
 * Any mail transfer agent, delivery agent, milter or fetcher written in C, or in a language that
 * calls C, can store mail with this library as the LMTP server of mailstow does: in Maildirs and
 * mboxes, found by Postfix's tables, durable before it is acknowledged, and stored once even if it
 * is sent twice.
 *
 * Design
 *
 * There is one handle, `struct mailstow`, in one of three modes; the same calls work in all of
 * them. MAILSTOW_MODE_LOGGED owns a delivery log, so that one flush of the disk acknowledges many
 * messages: for daemons and event loops. MAILSTOW_MODE_DIRECT flushes each message in its mailbox:
 * for programs that deliver one message, in any number of processes. MAILSTOW_MODE_CLIENT passes
 * messages to a running `mailstow serve`: for many processes, such as the children of a server
 * that forks for each delivery, which cannot share a log that one process owns. A program that
 * only looks recipients up opens a handle in client mode, or a recipient map.
 *
 * A message is an object instead of the argument of one call, because receivers get a message
 * piece by piece: first the recipients, each of which is answered at once, then the content.
 * Results are an object because they have two purposes: they hold the answers, and they are the
 * receipt by which the caller confirms, with mailstow_confirm(3), that the answers were passed on.
 * If they are freed without that, the message is in doubt: when it is sent again, the delivery log
 * recognises it and it is not stored twice. MAILSTOW_MODE_DIRECT has no log and remembers nothing:
 * there a repeated message is stored again.
 *
 * Rules
 *
 * Functions return a mailstow_result: MAILSTOW_OK, which is 0, or why nothing was done. Functions
 * that read a configuration, a table or a directory also have a parameter for an error object,
 * which may be NULL. The object holds the problems, each with text, file (NULL when it is in none)
 * and line. The caller frees it with mailstow_error_free(3). With MAILSTOW_OK there is none, and
 * the parameter is not written: set it to NULL before. Output parameters come last, and are
 * written only when the result is MAILSTOW_OK, unless documented otherwise.
 *
 * Text that the program chooses (paths, names, values of settings) ends with a NUL. Text from
 * outside (addresses, keys, content) has a length, and may contain any octets. Text that the
 * library returns ends with a NUL.
 *
 * Structs begin with struct_size, which the program sets to the size of the struct. Structs may
 * grow at their end; the library never reads or writes more bytes than the program knows. Members
 * that a program does not know are 0. Numbers never change their meaning.
 *
 * A handle is NULL or came from a function of the library. For NULL, for a handle that was closed
 * or freed, and for a handle of another kind, functions return an error. C does not allow that for
 * a pointer that never was a handle, or for a handle that was closed long ago.
 *
 * Threads, forks, users
 *
 * `struct mailstow` and `struct mailstow_map` may be used by any number of threads at once.
 * Configurations, messages and map builders are for one thread at a time: another thread gets
 * MAILSTOW_IN_USE. Errors, resolutions and results are immutable. The library's own threads block
 * all signals; a program with a limit on the size of files (RLIMIT_FSIZE) must ignore SIGXFSZ,
 * which otherwise ends it in a call that writes. A thread that is cancelled with pthread_cancel(3)
 * in a call ends after the call. execve(2) closes all descriptors of the library. It keeps no
 * thread-local state, calls no exit handlers, and stays loaded when dlclose(3) is called.
 *
 * After fork(2) the child's calls on handles of its parent return MAILSTOW_FORKED, and change
 * nothing; handles and maps that it opens itself work as usual. A child that does not call
 * execve(2) keeps the lock of its parent's delivery log. It does not keep connections of
 * MAILSTOW_MODE_CLIENT, so that the server notices when its parent closes them or dies, unless it
 * was created without fork(2) of the C library, for example by clone(2).
 *
 * Drop privileges before mailstow_open(3). When the process changes its user later, deliveries
 * fail, and no file of a wrong user becomes visible.
 *
 * A bug in the library ends the call with MAILSTOW_PANIC instead of ending the program. The handle
 * is then unusable: further calls on it return MAILSTOW_POISONED. All other handles continue to
 * work.
 *
 * Functions of the program
 *
 * Functions that the library calls run on its threads. They must not block for long, must not
 * unwind or longjmp(3), and must not call the library except as documented for them.
 *
 * This file is made from the code of the library.
 */

#ifndef MAILSTOW_H
#define MAILSTOW_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/** The version of this header. */
#define MAILSTOW_VERSION "0.1.0"
#define MAILSTOW_VERSION_MAJOR 0
#define MAILSTOW_VERSION_MINOR 1
#define MAILSTOW_VERSION_PATCH 0

/**
 * The handle owns a delivery log: one flush acknowledges many deliveries. For event loops and
 * daemons, one process for each state directory.
 */
#define MAILSTOW_MODE_LOGGED 1

/**
 * Every message is flushed in its mailbox. For programs that deliver one message, and for any
 * number of processes at once.
 */
#define MAILSTOW_MODE_DIRECT 2

/**
 * Messages are passed to a running `mailstow serve`, whose delivery log acknowledges them. For
 * many processes that deliver often.
 */
#define MAILSTOW_MODE_CLIENT 3

/**
 * The message is durable in the mailbox, or in the delivery log that will deliver it.
 */
#define MAILSTOW_DURABLE 1

/**
 * The message was not stored, and will not appear later: the failure is permanent (5xx) or
 * temporary (4xx).
 */
#define MAILSTOW_NOT_STORED 2

/**
 * The outcome is unknown: the message may be stored, or appear later, for instance because the
 * disk failed during the flush. Send the message again: with a delivery log it is recognised and
 * not stored twice.
 */
#define MAILSTOW_IN_DOUBT 3

/**
 * `mydestination` and the addresses of this machine.
 */
#define MAILSTOW_CLASS_LOCAL 1

/**
 * `virtual_alias_domains`
 */
#define MAILSTOW_CLASS_VIRTUAL_ALIAS 2

/**
 * `virtual_mailbox_domains`
 */
#define MAILSTOW_CLASS_VIRTUAL_MAILBOX 3

/**
 * `relay_domains`
 */
#define MAILSTOW_CLASS_RELAY 4

/**
 * All other domains.
 */
#define MAILSTOW_CLASS_DEFAULT 5

/**
 * The transport gets the mail.
 */
#define MAILSTOW_DESTINATION_TRANSPORT 1

/**
 * The mail is stored in a virtual mailbox.
 */
#define MAILSTOW_DESTINATION_MAILBOX 2

/**
 * The mail is stored in the mailbox of an account of this machine.
 */
#define MAILSTOW_DESTINATION_USER 3

/**
 * An alias names a file.
 */
#define MAILSTOW_DESTINATION_FILE 4

/**
 * An alias names a command.
 */
#define MAILSTOW_DESTINATION_COMMAND 5

/**
 * The mail is accepted and discarded.
 */
#define MAILSTOW_DESTINATION_DISCARDED 6

/**
 * The mail is returned to its sender, or deferred.
 */
#define MAILSTOW_DESTINATION_REFUSED 7

/**
 * There is no mailbox.
 */
#define MAILSTOW_FORMAT_NONE 0

/**
 * A directory with a file for each message.
 */
#define MAILSTOW_FORMAT_MAILDIR 1

/**
 * One file with all messages.
 */
#define MAILSTOW_FORMAT_MBOX 2

/**
 * There is no delivery log: the mode is not `MAILSTOW_MODE_LOGGED`.
 */
#define MAILSTOW_LOG_STATE_NONE 0

/**
 * Mail is acknowledged through the delivery log.
 */
#define MAILSTOW_LOG_STATE_IN_SERVICE 1

/**
 * The delivery log failed; mail is answered 451 4.3.0 until the library has opened and recovered
 * it again.
 */
#define MAILSTOW_LOG_STATE_FAILED 2

/**
 * Nothing is logged.
 */
#define MAILSTOW_LOG_OFF 0

/**
 * Errors.
 */
#define MAILSTOW_LOG_ERROR 1

/**
 * Errors and warnings.
 */
#define MAILSTOW_LOG_WARNING 2

/**
 * The same, and information for operators.
 */
#define MAILSTOW_LOG_INFO 3

/**
 * Everything.
 */
#define MAILSTOW_LOG_DEBUG 4

/**
 * A map that was changed with mailstow_map_change(3) or `mailstow map set` is not replaced.
 */
#define MAILSTOW_CHANGES_REFUSE 0

/**
 * Such changes are applied to the new map, too.
 */
#define MAILSTOW_CHANGES_KEEP 1

/**
 * Such changes are discarded.
 */
#define MAILSTOW_CHANGES_DISCARD 2

/**
 * The version of the binary interface (ABI). It changes together with the SONAME.
 */
#define MAILSTOW_ABI_VERSION 1

/**
 * The content is stored as it is; its lines end with LF or CRLF.
 */
#define MAILSTOW_CONTENT_PLAIN 0

/**
 * The content has the form that follows DATA on the wire: lines end with CRLF, dots are stuffed,
 * and CRLF "." CRLF ends it. Content without that end is incomplete, and is not delivered.
 */
#define MAILSTOW_CONTENT_WIRE 1

/**
 * Dots are stuffed and a line with a single dot ends the content, but lines end with LF. The
 * content may end without that line.
 */
#define MAILSTOW_CONTENT_DOTS 2

/**
 * The library in one of its three modes. Any number of threads may use it at once.
 */
typedef struct mailstow mailstow;

/**
 * The sources of settings. One thread at a time.
 */
typedef struct mailstow_config mailstow_config;

/**
 * An error of one or more problems: text, file, line. Immutable; any thread may read it.
 */
typedef struct mailstow_error mailstow_error;

/**
 * An open recipient map. Any number of threads may use it at once.
 */
typedef struct mailstow_map mailstow_map;

/**
 * A recipient map under construction. One thread at a time.
 */
typedef struct mailstow_map_builder mailstow_map_builder;

/**
 * A message under construction: envelope, then content. One thread at a time.
 */
typedef struct mailstow_message mailstow_message;

/**
 * The resolution of one address. Immutable; any thread may read it.
 */
typedef struct mailstow_resolution mailstow_resolution;

/**
 * The results of a message: one outcome for each recipient. Any thread may read it.
 */
typedef struct mailstow_results mailstow_results;

/**
 * The result of a call: `MAILSTOW_OK`, or why it did nothing. Numbers are never reused.
 */
typedef uint32_t mailstow_result;

/**
 * Takes a line of the log: its level, its text, which ends with a NUL, and its length. Any thread
 * of the library may call it; it must not call the library and must not unwind.
 */
typedef void (*mailstow_log_callback)(void *userdata,
                                      uint32_t level,
                                      const char *line,
                                      size_t length);

/**
 * The counters of a handle and its current state.
 */
typedef struct mailstow_statistics {
    /**
     * Set to `sizeof(struct mailstow_statistics)` before the call.
     */
    uint32_t struct_size;
    /**
     * State of the delivery log: `MAILSTOW_LOG_STATE_...`
     */
    uint32_t log_state;
    /**
     * Messages passed to the library for delivery.
     */
    uint64_t messages;
    /**
     * Deliveries that are durable.
     */
    uint64_t durable;
    /**
     * Deliveries that were refused permanently (5xx).
     */
    uint64_t refused;
    /**
     * Deliveries to be tried again (4xx).
     */
    uint64_t deferred;
    /**
     * Deliveries in doubt.
     */
    uint64_t in_doubt;
    /**
     * Deliveries whose results were not freed yet.
     */
    uint64_t in_flight;
    /**
     * Maximum of in-flight deliveries.
     */
    uint64_t in_flight_max;
    /**
     * Bytes of the delivery log in use.
     */
    uint64_t log_bytes;
    /**
     * Maximum size of the delivery log, in bytes.
     */
    uint64_t log_bytes_max;
    /**
     * Messages that recovery could not store yet.
     */
    uint64_t waiting;
    /**
     * Recipients looked up.
     */
    uint64_t lookups;
    /**
     * Calls that returned MAILSTOW_BUSY.
     */
    uint64_t busy;
} mailstow_statistics;

/**
 * A reply for one recipient, as SMTP states it.
 */
typedef struct mailstow_reply {
    /**
     * Set to `sizeof(struct mailstow_reply)` before the call.
     */
    uint32_t struct_size;
    /**
     * Reply code, for example 250, 452 or 550.
     */
    uint32_t code;
    /**
     * The equivalent exit status for pipe(8) and others (sysexits.h).
     */
    int32_t sysexits;
    /**
     * Enhanced status code, for example "5.1.1".
     */
    char enhanced[16];
    /**
     * The text on one line, cut to what fits.
     */
    char text[512];
} mailstow_reply;

/**
 * One final recipient of a resolution. The texts live as long as the resolution.
 */
typedef struct mailstow_route {
    /**
     * Set to `sizeof(struct mailstow_route)` before the call.
     */
    uint32_t struct_size;
    /**
     * Address class of its domain: `MAILSTOW_CLASS_...`
     */
    uint32_t address_class;
    /**
     * The destination of its mail: `MAILSTOW_DESTINATION_...`
     */
    uint32_t destination;
    /**
     * Format of the mailbox: `MAILSTOW_FORMAT_...`
     */
    uint32_t format;
    /**
     * Owner of the mailbox or user of the command; 0 when there is none.
     */
    uint32_t uid;
    /**
     * Group of the mailbox or command; 0 when there is none.
     */
    uint32_t gid;
    /**
     * The final recipient, quoted where RFC 5322 requires it.
     */
    const char *recipient;
    /**
     * The transport that Postfix would choose.
     */
    const char *transport;
    /**
     * The nexthop that Postfix would choose.
     */
    const char *nexthop;
    /**
     * The mailbox: `virtual_mailbox_base` joined with its path, which ends with `/` for a Maildir.
     * NULL when the mail is not stored here.
     */
    const char *mailbox;
    /**
     * The command that an alias names; NULL when it names none.
     */
    const char *command;
    /**
     * The sender that replaces that of the message, for example for a mailing list; or NULL.
     */
    const char *sender;
} mailstow_route;

/**
 * A recipient of a message.
 */
typedef struct mailstow_recipient {
    /**
     * Set to `sizeof(struct mailstow_recipient)`.
     */
    uint32_t struct_size;
    /**
     * Milliseconds that the delivery may take; 0: `lmtp.delivery_deadline`, two minutes. A
     * delivery that is being written at its deadline, and cannot be given up, gets another minute
     * until it is in doubt.
     */
    uint32_t deadline_ms;
    /**
     * The address, with or without angle brackets.
     */
    const char *address;
    /**
     * Its length.
     */
    size_t address_length;
    /**
     * The recipient before aliases, which becomes X-Original-To; NULL when unknown.
     */
    const char *original;
    /**
     * Its length.
     */
    size_t original_length;
} mailstow_recipient;

/**
 * A finished message.
 */
typedef struct mailstow_completion {
    /**
     * Set to `sizeof(struct mailstow_completion)` in the first element of the array.
     */
    uint32_t struct_size;
    /**
     * Not used; 0.
     */
    uint32_t reserved;
    /**
     * The token passed to `mailstow_submit`.
     */
    uint64_t token;
    /**
     * Its results; free them.
     */
    struct mailstow_results *results;
} mailstow_completion;

/**
 * Takes the results of a finished message, with its token. Any thread of the library may call it,
 * and it must return quickly. It may call the library only to read, confirm and free the results,
 * and must not unwind.
 */
typedef void (*mailstow_completion_callback)(void *userdata,
                                             uint64_t token,
                                             struct mailstow_results *results);

/**
 * The outcome of one recipient. The texts live as long as the results.
 */
typedef struct mailstow_outcome {
    /**
     * Set to `sizeof(struct mailstow_outcome)` before the call.
     */
    uint32_t struct_size;
    /**
     * `MAILSTOW_DURABLE`, `MAILSTOW_NOT_STORED` or `MAILSTOW_IN_DOUBT`.
     */
    uint32_t state;
    /**
     * Reply code.
     */
    uint32_t code;
    /**
     * Exit status (sysexits.h).
     */
    int32_t sysexits;
    /**
     * Enhanced status code.
     */
    const char *enhanced;
    /**
     * The text of the reply, on one line.
     */
    const char *text;
    /**
     * The recipient as the program passed it.
     */
    const char *recipient;
    /**
     * The mailbox, or NULL when none was chosen, or the server did not report it.
     */
    const char *mailbox;
    /**
     * Microseconds that the delivery waited for a writer.
     */
    uint64_t queued_us;
    /**
     * Microseconds that writing and flushing took.
     */
    uint64_t stored_us;
} mailstow_outcome;

/**
 * A change of a recipient map.
 */
typedef struct mailstow_map_edit {
    /**
     * Set to `sizeof(struct mailstow_map_edit)` in every element.
     */
    uint32_t struct_size;
    /**
     * Not used; set to 0.
     */
    uint32_t reserved;
    /**
     * The table, by the name of its parameter.
     */
    const char *table;
    /**
     * The key.
     */
    const char *key;
    /**
     * Its length.
     */
    size_t key_length;
    /**
     * The new value; NULL removes the key.
     */
    const char *value;
    /**
     * Its length.
     */
    size_t value_length;
} mailstow_map_edit;

/**
 * The call succeeded.
 */
#define MAILSTOW_OK 0

/**
 * A pointer that must not be NULL is NULL.
 */
#define MAILSTOW_NULL 6501

/**
 * An argument is out of range, or malformed.
 */
#define MAILSTOW_INVALID 6502

/**
 * The first member of a struct, its size, was not set or is too small.
 */
#define MAILSTOW_BAD_STRUCT 6503

/**
 * The handle was closed or freed before.
 */
#define MAILSTOW_CLOSED 6504

/**
 * The pointer is no handle of this kind.
 */
#define MAILSTOW_WRONG_HANDLE 6505

/**
 * The call is not for a handle of this mode.
 */
#define MAILSTOW_WRONG_MODE 6506

/**
 * Another thread is using the handle, which one thread may use at a time, or which is being
 * closed.
 */
#define MAILSTOW_IN_USE 6507

/**
 * The handle was made before fork(2), in the parent process.
 */
#define MAILSTOW_FORKED 6508

/**
 * An earlier call on this handle ended in a panic; close it.
 */
#define MAILSTOW_POISONED 6509

/**
 * The library has a bug: the call ended in a panic. Only this handle is unusable now.
 */
#define MAILSTOW_PANIC 6510

/**
 * Too many deliveries are in progress: nothing was taken. Try again when some have finished.
 */
#define MAILSTOW_BUSY 6511

/**
 * The buffer is too small; the length that is needed was returned.
 */
#define MAILSTOW_TOO_SMALL 6512

/**
 * The table has no such key, or there is nothing with that index.
 */
#define MAILSTOW_NOT_FOUND 6513

/**
 * The recipient or the message is refused; the reply says why.
 */
#define MAILSTOW_REFUSED 6514

/**
 * The content has ended with a line of a single dot.
 */
#define MAILSTOW_END 6515

/**
 * The configuration cannot be used; the error has one entry for each mistake.
 */
#define MAILSTOW_CONFIG 6516

/**
 * A lookup table cannot be opened, or cannot answer now.
 */
#define MAILSTOW_TABLE 6517

/**
 * The mailboxes, the state directory or the delivery log cannot be used.
 */
#define MAILSTOW_STORE 6518

/**
 * A recipient map cannot be read or written.
 */
#define MAILSTOW_MAP 6519

/**
 * A system call failed.
 */
#define MAILSTOW_SYSTEM 6520

/**
 * The process changed its user since the handle was opened.
 */
#define MAILSTOW_USER_CHANGED 6521

/**
 * The handle has no tables to look recipients up in.
 */
#define MAILSTOW_NO_TABLES 6522

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

extern int pthread_setcancelstate(int state, int *old);

/**
 * Returns the version of the binary interface of the library that is running.
 *
 * A program compares it with MAILSTOW_ABI_VERSION of the header it was built with. The dynamic
 * linker does the same with the SONAME, so only programs that load the library with dlopen(3) need
 * this.
 */
uint32_t mailstow_abi_version(void);

/**
 * Returns the version of the library that is running, for example "0.1.0".
 */
const char *mailstow_version(void);

/**
 * Returns the name of a result, for example "MAILSTOW_BUSY".
 *
 * Returns "MAILSTOW_?" for a number that this version does not know.
 */
const char *mailstow_result_name(mailstow_result result);

/**
 * Returns the meaning of a result, in one sentence.
 */
const char *mailstow_result_text(mailstow_result result);

/**
 * Sends the lines of the log up to `level` to a function.
 *
 * There is one log for all handles of the process; without it nothing is logged, not even to
 * standard error. MAILSTOW_LOG_OFF ends it, and `callback` may be NULL then. Other threads may
 * still pass lines to it for a moment, so the object behind `userdata` must stay valid.
 */
mailstow_result mailstow_log_to_callback(mailstow_log_callback callback,
                                         void *userdata,
                                         uint32_t level);

/**
 * Sends the lines of the log up to `level` to a file descriptor.
 *
 * Each line is one write(2) of 4096 bytes at most. The caller owns the descriptor and keeps it
 * open until the log goes elsewhere. A line is lost when it cannot be written, or when a pipe or
 * socket is full; a pipe without a reader causes no SIGPIPE. MAILSTOW_LOG_OFF ends the log.
 */
mailstow_result mailstow_log_to_fd(int32_t fd, uint32_t level);

/**
 * Returns the result of the call that returned this error; MAILSTOW_OK for NULL.
 */
mailstow_result mailstow_error_result(const struct mailstow_error *error);

/**
 * Returns the number of problems in an error; 0 for NULL.
 */
size_t mailstow_error_count(const struct mailstow_error *error);

/**
 * Returns the description and remedy of a problem, without the file and the line.
 *
 * The text lives as long as the error. Returns NULL when `index` is not below
 * mailstow_error_count(3).
 */
const char *mailstow_error_text(const struct mailstow_error *error, size_t index);

/**
 * Returns the file of a problem; NULL when it is in no file.
 */
const char *mailstow_error_file(const struct mailstow_error *error, size_t index);

/**
 * Returns the line of a problem, counted from 1; 0 when it is in no file.
 */
uint32_t mailstow_error_line(const struct mailstow_error *error, size_t index);

/**
 * Frees an error. Does nothing for NULL.
 */
void mailstow_error_free(struct mailstow_error *error);

/**
 * Creates an empty configuration.
 *
 * Without any source, mailstow_open(3) reads /etc/mailstow/mailstow.toml. Later sources win: the
 * built-in defaults, main.cf, mailstow.toml, settings of the program. Files are read when a
 * handle is opened.
 */
mailstow_result mailstow_config_new(struct mailstow_config **config);

/**
 * Reads main.cf and master.cf in this directory, as Postfix does.
 *
 * They are read when a handle is opened, or by mailstow_config_check(3) and
 * mailstow_config_get(3), which report a missing main.cf. The last call counts.
 */
mailstow_result mailstow_config_set_postfix(struct mailstow_config *config, const char *directory);

/**
 * Reads this mailstow.toml.
 *
 * It is read when a handle is opened, or by mailstow_config_check(3) and mailstow_config_get(3),
 * which report a missing file. The last call counts.
 */
mailstow_result mailstow_config_set_file(struct mailstow_config *config, const char *path);

/**
 * Sets one setting, which overrides the files.
 *
 * `name` is a Postfix parameter, for example "virtual_mailbox_base", or a setting of mailstow.toml
 * with its table, for example "store.writers" or "limits.queued_deliveries"; `mailstow config
 * --defaults` lists all. `value` is the value in the file, without quotes; $name is replaced by
 * the Postfix parameter of that name. Unknown names and invalid values are refused at once.
 */
mailstow_result mailstow_config_set(struct mailstow_config *config,
                                    const char *name,
                                    const char *value,
                                    struct mailstow_error **error);

/**
 * Copies the effective value of a setting to a buffer.
 *
 * The text ends with a NUL. `length`, which may be NULL, gets its length without the NUL, also
 * when the result is MAILSTOW_TOO_SMALL. Reads the files. Returns MAILSTOW_NOT_FOUND for a name
 * that is no setting, and for a setting whose value depends on the machine.
 */
mailstow_result mailstow_config_get(struct mailstow_config *config,
                                    const char *name,
                                    char *buffer,
                                    size_t size,
                                    size_t *length,
                                    struct mailstow_error **error);

/**
 * Reads the configuration and reports all problems in it.
 *
 * Finds the problems for which mailstow_open(3) would fail in that mode, and those that would keep
 * every recipient from getting mail: tables that cannot be opened, no virtual_mailbox_base, no
 * usable virtual_uid_maps or virtual_gid_maps, no socket of the server. Opens tables briefly;
 * creates, locks and writes nothing. Only mailstow_open(3) finds out that another process has the
 * delivery log, or that the state directory cannot be created.
 */
mailstow_result mailstow_config_check(struct mailstow_config *config,
                                      uint32_t mode,
                                      struct mailstow_error **error);

/**
 * Frees a configuration; handles that were opened with it are not affected. Does nothing for NULL.
 */
void mailstow_config_free(struct mailstow_config *config);

/**
 * Opens the library in one of its modes.
 *
 * MAILSTOW_MODE_LOGGED opens the delivery log in state_directory (without that setting
 * /var/lib/mailstow for root, for others $XDG_STATE_HOME/mailstow or ~/.local/state/mailstow),
 * recovers the mail that an earlier process left in it, and fails if another process has it.
 * MAILSTOW_MODE_DIRECT opens only the mailboxes. MAILSTOW_MODE_CLIENT opens only tables: it
 * connects when there is mail, to the first UNIX-domain socket of lmtp.listen, and looks
 * recipients up in the socketmap of socketmap.listen, or in the tables of its configuration. An
 * unavailable server is tried for lmtp.connect_timeout, 20 s; then recipients are answered 451
 * 4.4.1.
 *
 * Drop privileges before this call. Mail is written as the owner of its mailbox, which requires
 * root unless all mailboxes belong to the user of the program. Only for root has lmtp.listen a
 * default: other users must set it for MAILSTOW_MODE_CLIENT.
 */
mailstow_result mailstow_open(struct mailstow_config *config,
                              uint32_t mode,
                              struct mailstow **handle,
                              struct mailstow_error **error);

/**
 * Takes the routing parameters of a configuration into use, and reads changed tables at once.
 *
 * Changed tables are also read automatically within two seconds. Mailboxes, delivery log and
 * socket stay open as they are. When the result is not MAILSTOW_OK, the old settings stay in
 * force.
 */
mailstow_result mailstow_reload(struct mailstow *handle,
                                struct mailstow_config *config,
                                struct mailstow_error **error);

/**
 * Returns the mode in which a handle was opened.
 */
mailstow_result mailstow_mode(const struct mailstow *handle, uint32_t *mode);

/**
 * Makes every mailbox durable and frees the delivery log, which otherwise happens periodically.
 * For MAILSTOW_MODE_LOGGED only.
 */
mailstow_result mailstow_checkpoint(struct mailstow *handle, struct mailstow_error **error);

/**
 * Returns the counters of a handle and its current state.
 */
mailstow_result mailstow_statistics_get(const struct mailstow *handle,
                                        struct mailstow_statistics *statistics);

/**
 * Copies the figures of mailstow_statistics_get(3) to a buffer, as OpenMetrics text.
 *
 * The text ends with a NUL. `length`, which may be NULL, gets its length without the NUL, also
 * when the result is MAILSTOW_TOO_SMALL; 4096 bytes are enough.
 */
mailstow_result mailstow_metrics(const struct mailstow *handle,
                                 char *buffer,
                                 size_t size,
                                 size_t *length);

/**
 * Finishes submitted messages, ends the threads of the handle, and frees it.
 *
 * It may wait as long as deliveries take. Completions that were not drained are freed, which
 * leaves their messages in doubt. MAILSTOW_IN_USE means that another call is using the handle,
 * which stays open. A child process gets MAILSTOW_FORKED, and nothing is freed.
 */
mailstow_result mailstow_close(struct mailstow *handle);

/**
 * Returns the reply to RCPT for an address and a message of `size` bytes.
 *
 * Writes nothing, and opens no mailbox. `size` is the size that the client announced with SIZE, or
 * 0. The reply is 250 for domains of the default class, because another server decides about them.
 * mailstow_message_add_recipient(3) accepts fewer recipients: in the modes that store mail
 * themselves it refuses every recipient without a mailbox here, also one for another server, and
 * an alias that lmtp.expand_aliases does not expand. The result is MAILSTOW_OK whatever the reply.
 */
mailstow_result mailstow_check_recipient(const struct mailstow *handle,
                                         const char *address,
                                         size_t length,
                                         uint64_t size,
                                         struct mailstow_reply *reply);

/**
 * Resolves an address: returns every final recipient, and the reply.
 *
 * Aliases are expanded and transports chosen as Postfix does. The result is MAILSTOW_OK whatever
 * the reply; free the resolution with mailstow_resolution_free(3).
 */
mailstow_result mailstow_resolve(const struct mailstow *handle,
                                 const char *address,
                                 size_t length,
                                 struct mailstow_resolution **resolution);

/**
 * Returns the number of final recipients; 0 for NULL.
 */
size_t mailstow_resolution_count(const struct mailstow_resolution *resolution);

/**
 * Describes one final recipient. Its texts live as long as the resolution.
 */
mailstow_result mailstow_resolution_route(const struct mailstow_resolution *resolution,
                                          size_t index,
                                          struct mailstow_route *route);

/**
 * Returns the reply for a client: 250, or why the mail is refused or deferred.
 */
mailstow_result mailstow_resolution_reply(const struct mailstow_resolution *resolution,
                                          struct mailstow_reply *reply);

/**
 * Frees a resolution. Does nothing for NULL.
 */
void mailstow_resolution_free(struct mailstow_resolution *resolution);

/**
 * Begins a message.
 *
 * It uses the tables as they are now, even if they change before it is delivered. MAILSTOW_BUSY
 * means that too many messages were begun and not delivered or freed.
 */
mailstow_result mailstow_message_new(struct mailstow *handle, struct mailstow_message **message);

/**
 * Sets the sender of the envelope, which becomes Return-Path.
 *
 * An empty text, "<>" and MAILER-DAEMON are the null reverse-path, which is also the default.
 * MAILSTOW_INVALID means that the sender is longer than 4096 bytes, that it contains CR, LF or
 * NUL, or in MAILSTOW_MODE_CLIENT that its domain contains a blank, a control character, < or >,
 * which LMTP cannot carry. Any other text is accepted, as Postfix does.
 */
mailstow_result mailstow_message_set_sender(struct mailstow_message *message,
                                            const char *sender,
                                            size_t length);

/**
 * Sets the retry key of the message: its id in the queue of the caller.
 *
 * The delivery log stores it, and it appears in the log of the server. Set the same key when the
 * same message is delivered again. Until the results of a message with a key are confirmed or
 * freed, another delivery of it to the same recipient is not made, but in doubt, with 451 4.4.2.
 * In MAILSTOW_MODE_CLIENT the server is asked again for it until the deadline. Without keys, equal
 * messages that are delivered at once are all stored.
 */
mailstow_result mailstow_message_set_retry_key(struct mailstow_message *message,
                                               const char *key,
                                               size_t length);

/**
 * Sets the form of the content: MAILSTOW_CONTENT_PLAIN, the default, MAILSTOW_CONTENT_WIRE or
 * MAILSTOW_CONTENT_DOTS. Call it before the first bytes of the content.
 */
mailstow_result mailstow_message_set_form(struct mailstow_message *message, uint32_t form);

/**
 * Adds a recipient, if it is accepted.
 *
 * MAILSTOW_REFUSED means that it was not accepted and not added; `reply`, which may be NULL, gets
 * the reply for the client. An address that contains CR, LF or NUL is refused, and in
 * MAILSTOW_MODE_CLIENT one whose domain contains characters that LMTP cannot carry
 * (mailstow_message_set_sender(3)). The accepted recipients have their outcomes in the order in
 * which they were added. The envelopes of all messages together use at most limits.envelope_bytes
 * of memory; further recipients are refused with 452 4.3.1.
 */
mailstow_result mailstow_message_add_recipient(struct mailstow_message *message,
                                               const struct mailstow_recipient *recipient,
                                               struct mailstow_reply *reply);

/**
 * Takes the next bytes of the content.
 *
 * `taken`, which may be NULL, gets how many of them were taken: all, unless a line with a single
 * dot ended the content; then the result is MAILSTOW_END, and the rest is the sender's next
 * command. MAILSTOW_REFUSED means that the content cannot be delivered, because it is too large or
 * cannot be stored: more may be written, and the outcome of the delivery has the reason. Content
 * that does not fit into memory is kept in an unnamed file.
 */
mailstow_result mailstow_message_write(struct mailstow_message *message,
                                       const void *data,
                                       size_t length,
                                       size_t *taken);

/**
 * Takes the next bytes of the content from several buffers, as writev(2) does.
 *
 * `taken` and the result are those of mailstow_message_write(3). At most 1024 buffers.
 */
mailstow_result mailstow_message_writev(struct mailstow_message *message,
                                        const struct iovec *iov,
                                        size_t count,
                                        size_t *taken);

/**
 * Takes the content from a file descriptor, up to the end of the file or stream.
 *
 * The caller keeps the descriptor. The result is that of mailstow_message_write(3). With
 * MAILSTOW_END, the bytes after the line with a single dot were not taken, and can be read from
 * the descriptor next; pipes are slow in these forms, because they are read a few bytes at a time.
 * The call waits for the content also if the descriptor is non-blocking (O_NONBLOCK): programs
 * with an event loop should read it themselves. MAILSTOW_SYSTEM means that the descriptor cannot
 * be read; the message is then refused with 451 4.3.0.
 */
mailstow_result mailstow_message_read_fd(struct mailstow_message *message, int32_t fd);

/**
 * Frees a message that was not delivered; none of it is stored. Does nothing for NULL.
 */
void mailstow_message_free(struct mailstow_message *message);

/**
 * Delivers a message and waits for its outcomes.
 *
 * MAILSTOW_OK means only that there are results with an outcome for each recipient; the message is
 * freed then. With any other result the message is unchanged; after MAILSTOW_BUSY, try again.
 * MAILSTOW_INVALID means that no recipient was accepted, that the message belongs to another
 * handle, or that content in the form MAILSTOW_CONTENT_WIRE is incomplete because its sender
 * disconnected. Confirm the results when the replies have been passed on, then free them.
 */
mailstow_result mailstow_deliver(struct mailstow *handle,
                                 struct mailstow_message *message,
                                 struct mailstow_results **results);

/**
 * Submits a message for delivery and returns at once.
 *
 * When every recipient has its outcome, mailstow_drain(3) returns the results with `token`, or the
 * function of mailstow_on_completion(3) gets them, perhaps before this call returns. The message
 * is freed when the result is MAILSTOW_OK, and unchanged otherwise. MAILSTOW_INVALID has the same
 * causes as in mailstow_deliver(3). MAILSTOW_BUSY means that the results of
 * limits.queued_deliveries recipients are in progress or not freed yet.
 */
mailstow_result mailstow_submit(struct mailstow *handle,
                                struct mailstow_message *message,
                                uint64_t token);

/**
 * Returns the eventfd that is readable while finished messages wait to be drained.
 *
 * Poll it with any event loop, level-triggered; do not read it. The library owns it and closes it
 * with the handle.
 */
mailstow_result mailstow_event_fd(const struct mailstow *handle, int32_t *fd);

/**
 * Takes up to `capacity` finished messages; never waits.
 *
 * `count` gets their number. Free the results of each. struct_size of the first element of the
 * array is the size of the elements.
 */
mailstow_result mailstow_drain(struct mailstow *handle,
                               struct mailstow_completion *completions,
                               size_t capacity,
                               size_t *count);

/**
 * Sends finished messages to a function from now on, instead of to mailstow_drain(3).
 *
 * NULL restores mailstow_drain(3). Messages that finished before remain to be drained. A replaced
 * function may still be running on another thread.
 */
mailstow_result mailstow_on_completion(struct mailstow *handle,
                                       mailstow_completion_callback callback,
                                       void *userdata);

/**
 * Returns how many recipients have outcomes; 0 for NULL.
 */
size_t mailstow_results_count(const struct mailstow_results *results);

/**
 * Returns the outcome of one recipient. Its texts live as long as the results.
 */
mailstow_result mailstow_results_outcome(const struct mailstow_results *results,
                                         size_t index,
                                         struct mailstow_outcome *outcome);

/**
 * Returns one exit status for all recipients (sysexits.h): 0 when all are durable, EX_TEMPFAIL
 * when one is to be tried again or is in doubt, otherwise that of the first refused one. 70
 * (EX_SOFTWARE) when there are no results.
 */
int32_t mailstow_results_exit_status(const struct mailstow_results *results);

/**
 * Confirms that the replies were passed on: the sender of the message knows its outcome.
 *
 * After that an equal message is a new message. Without confirmation, stored deliveries are in
 * doubt, and an equal message is answered with success and not stored twice. MAILSTOW_MODE_DIRECT
 * has no delivery log that remembers deliveries in doubt: there this call has no effect, and a
 * repeated message is stored again. The results must still be freed.
 */
mailstow_result mailstow_confirm(struct mailstow_results *results);

/**
 * Frees results; if they were not confirmed, stored deliveries are in doubt (mailstow_confirm(3)).
 * Does nothing for NULL.
 */
void mailstow_results_free(struct mailstow_results *results);

/**
 * Opens a recipient map that `mailstow map build` or mailstow_map_builder_new(3) made.
 *
 * A new map in its place, and changed keys, take effect within a second. A child process must open
 * the map again.
 */
mailstow_result mailstow_map_open(const char *path,
                                  struct mailstow_map **map,
                                  struct mailstow_error **error);

/**
 * Copies the value of a key in a table of the map to a buffer.
 *
 * `table` is the name of a parameter, as "virtual_mailbox_maps". Letters of the key are folded to
 * lower case; no other key is searched for. MAILSTOW_NOT_FOUND means that the table has no such
 * key, MAILSTOW_MAP that the map is damaged and the value is unknown. The text ends with a NUL;
 * `length`, which may be NULL, gets its length without the NUL, also when the result is
 * MAILSTOW_TOO_SMALL.
 */
mailstow_result mailstow_map_lookup(const struct mailstow_map *map,
                                    const char *table,
                                    const char *key,
                                    size_t key_length,
                                    char *buffer,
                                    size_t size,
                                    size_t *length);

/**
 * Closes a map. Does nothing for NULL.
 */
void mailstow_map_close(struct mailstow_map *map);

/**
 * Changes keys of a map durably: all of them or none.
 *
 * Elements whose value is NULL are removed. Letters of keys are folded to lower case. Any number
 * of programs may do this at the same time, also while the map is in use.
 */
mailstow_result mailstow_map_change(const char *path,
                                    const struct mailstow_map_edit *edits,
                                    size_t count,
                                    struct mailstow_error **error);

/**
 * Begins to build a recipient map, which will replace the one at `path`, if any.
 *
 * Waits while another builder for the same map exists, in any process or thread: finish or free it
 * before you begin another in the same thread.
 *
 * `changes` decides about keys that were changed in the old map since it was built:
 * MAILSTOW_CHANGES_REFUSE, MAILSTOW_CHANGES_KEEP or MAILSTOW_CHANGES_DISCARD.
 */
mailstow_result mailstow_map_builder_new(const char *path,
                                         uint32_t changes,
                                         struct mailstow_map_builder **builder,
                                         struct mailstow_error **error);

/**
 * Adds a key to a table of the map.
 *
 * `table` is the name of a parameter, as "virtual_mailbox_maps". Letters of the key are folded to
 * lower case. Of equal keys in a table the first counts.
 */
mailstow_result mailstow_map_builder_add(struct mailstow_map_builder *builder,
                                         const char *table,
                                         const char *key,
                                         size_t key_length,
                                         const char *value,
                                         size_t value_length,
                                         struct mailstow_error **error);

/**
 * Installs the map durably, and frees the builder.
 *
 * `keys`, which may be NULL, gets the number of its keys. The builder is freed in any case; when
 * the result is not MAILSTOW_OK, the old map stays.
 */
mailstow_result mailstow_map_builder_finish(struct mailstow_map_builder *builder,
                                            uint64_t *keys,
                                            struct mailstow_error **error);

/**
 * Discards a map that is being built; the old map stays. Does nothing for NULL.
 */
void mailstow_map_builder_free(struct mailstow_map_builder *builder);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MAILSTOW_H */
