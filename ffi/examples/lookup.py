"""lookup.py: who is this recipient, asked from Python through ctypes; then a message for it.

    lookup.py CONFIG ADDRESS < message

Prints what RCPT is answered and what became of the message. CONFIG is a mailstow.toml.
"""

import ctypes
import sys
from ctypes import POINTER, byref, c_char, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p

MODE_DIRECT = 2


class Reply(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("code", c_uint32),
        ("sysexits", c_int32),
        ("enhanced", c_char * 16),
        ("text", c_char * 512),
    ]


class Recipient(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("deadline_ms", c_uint32),
        ("address", c_char_p),
        ("address_length", c_size_t),
        ("original", c_char_p),
        ("original_length", c_size_t),
    ]


class Outcome(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("state", c_uint32),
        ("code", c_uint32),
        ("sysexits", c_int32),
        ("enhanced", c_char_p),
        ("text", c_char_p),
        ("recipient", c_char_p),
        ("mailbox", c_char_p),
        ("queued_us", c_uint64),
        ("stored_us", c_uint64),
    ]


library = ctypes.CDLL("libmailstow.so")
library.mailstow_result_text.restype = c_char_p
library.mailstow_error_text.restype = c_char_p
library.mailstow_error_text.argtypes = [c_void_p, c_size_t]
library.mailstow_config_set_file.argtypes = [c_void_p, c_char_p]
library.mailstow_open.argtypes = [c_void_p, c_uint32, POINTER(c_void_p), POINTER(c_void_p)]
library.mailstow_check_recipient.argtypes = [
    c_void_p, c_char_p, c_size_t, c_uint64, POINTER(Reply),
]
library.mailstow_message_new.argtypes = [c_void_p, POINTER(c_void_p)]
library.mailstow_message_add_recipient.argtypes = [c_void_p, POINTER(Recipient), POINTER(Reply)]
library.mailstow_message_write.argtypes = [c_void_p, c_char_p, c_size_t, c_void_p]
library.mailstow_deliver.argtypes = [c_void_p, c_void_p, POINTER(c_void_p)]
library.mailstow_results_outcome.argtypes = [c_void_p, c_size_t, POINTER(Outcome)]
for name in ["config_free", "close", "confirm", "results_free", "error_free"]:
    getattr(library, "mailstow_" + name).argtypes = [c_void_p]


def check(result, error=None):
    """Ends the program when a call did nothing."""
    if result != 0:
        text = library.mailstow_error_text(error, 0) or library.mailstow_result_text(result)
        sys.exit("lookup.py: " + text.decode(errors="replace"))


def main(config_file, address):
    config, handle, error = c_void_p(), c_void_p(), c_void_p()
    check(library.mailstow_config_new(byref(config)))
    check(library.mailstow_config_set_file(config, config_file.encode()))
    check(library.mailstow_open(config, MODE_DIRECT, byref(handle), byref(error)), error)
    library.mailstow_config_free(config)

    address = address.encode()
    reply = Reply(struct_size=ctypes.sizeof(Reply))
    content = sys.stdin.buffer.read()
    check(library.mailstow_check_recipient(handle, address, len(address), len(content), reply))
    print(address.decode(), reply.code, reply.enhanced.decode(), reply.text.decode())
    if reply.code == 250:
        message, results = c_void_p(), c_void_p()
        recipient = Recipient(ctypes.sizeof(Recipient), 0, address, len(address))
        check(library.mailstow_message_new(handle, byref(message)))
        check(library.mailstow_message_add_recipient(message, recipient, None))
        check(library.mailstow_message_write(message, content, len(content), None))
        check(library.mailstow_deliver(handle, message, byref(results)))
        outcome = Outcome(struct_size=ctypes.sizeof(Outcome))
        check(library.mailstow_results_outcome(results, 0, outcome))
        print(outcome.code, outcome.enhanced.decode(), outcome.mailbox.decode())
        check(library.mailstow_confirm(results))
        library.mailstow_results_free(results)
    check(library.mailstow_close(handle))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: lookup.py CONFIG ADDRESS < message")
    main(sys.argv[1], sys.argv[2])
