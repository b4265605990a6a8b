//! The bytes of a recipient map and of its change log.
//!
//! All integers are little endian. A *varint* is LEB128: seven bits a byte, least significant
//! first, the high bit set in all bytes but the last; at most 64 bits. CRC-32 is the one of IEEE
//! 802.3 (zlib, gzip). Texts are UTF-8.
//!
//! # The map
//!
//! One file, at most 1 TiB of records. It is never changed in place: a new map is written in the
//! same directory, flushed, renamed over it, and the directory is flushed. Readers may therefore
//! use the old one for any time. **Do not copy a map over one in use** (`cp new.map
//! recipients.map`): lookups are deferred until it is complete. Copy to the same directory and
//! `mv`.
//!
//! mailstow reads the file with pread(2). A program that maps it into memory gets SIGBUS when the
//! file is truncated or its disk fails.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 8 | magic `89 4d 53 4d 41 50 0d 0a` (`\x89MSMAP\r\n`) |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | features a reader must know; none is defined, so 0 |
//! | 16 | 4 | features a reader may ignore; none is defined, so 0 |
//! | 20 | 4 | bytes under one checksum: 4096 |
//! | 24 | 8 | size of the file |
//! | 32 | 8 | seed of the hash, random |
//! | 40 | 16 | name of this very map, random |
//! | 56 | 8 | number of keys |
//! | 64 | 8 | number of values |
//! | 72 | 8 | number of buckets in the index |
//! | 80 | 16 | records: offset (4096), length |
//! | 96 | 16 | long records: offset, length |
//! | 112 | 16 | shared sets of values: offset, length |
//! | 128 | 16 | domains: offset (a multiple of 64), length (32 times the number of cells) |
//! | 144 | 16 | index: offset (a multiple of 64), length (64 times the number of buckets) |
//! | 160 | 16 | segments: offset, length (32 times their number) |
//! | 176 | 16 | table names: offset, length |
//! | 192 | 16 | checksums: offset (a multiple of 4096), length |
//! | 208 | 4 | CRC-32 of the checksums |
//! | 212 | 3880 | zero |
//! | 4092 | 4 | CRC-32 of bytes 0 to 4091 |
//!
//! The sections follow in this order, from byte 4096 on; between the last of them and the checksums
//! there are zeros up to a multiple of 4096. The checksums are the CRC-32 of each block of 4096
//! bytes, 4 bytes each, from the block at 4096 on, and end the file.
//!
//! A lookup mostly waits for memory. Therefore all three places that it reads, the bucket, the
//! record and the domain, can be computed from the key, and be fetched at once. A reader copies
//! blocks into private memory, in huge pages (madvise(2)), on demand: 64 KiB at once at first, 2
//! MiB after more lookups. This memory is at most as large as the map, and is freed when the map is
//! replaced, or when that of one map grows beyond a quarter of the machine's. `mailstow map
//! verify`, `dump` and `merge` and the merging of changes in the server read a map of any size in
//! 32 MiB.
//!
//! Opening checks the header, the checksums' own checksum, the segments and the table names. Every
//! other block is checked when it is copied, in each process; `mailstow map verify` reads all of
//! them.
//!
//! ## Where a key is
//!
//! `h` is XXH3 (64 bits) of the key's bytes with the map's seed. Records are in the order of `h`.
//! The `2^k` segments (at most 256) divide them by the high `k` bits of `h`; `g` are the other
//! bits, `h * 2^k mod 2^64`. A segment is four numbers of eight bytes:
//!
//! | offset | meaning |
//! |---|---|
//! | 0 | offset of its first record in the records section |
//! | 8 | span: bytes over which its records are spread |
//! | 16 | its first bucket |
//! | 24 | number of its buckets that keys hash to, at least 1 |
//!
//! The key belongs to bucket `first + g * number / 2^64`, and its fingerprint is the low twelve
//! bits of `h`. The records of a bucket are consecutive; zeros precede the first where necessary,
//! so that bucket `i` of a segment does not begin before `i * span / number`. Hence a record is
//! about `g * span / 2^64` after its segment's first: mostly less than three cache lines away,
//! which a reader fetches together with the bucket. A bucket is one cache line:
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 5 | offset of the bucket's first record in the records section |
//! | 5 | 1 | bits 0 to 4: number of records, at most 23; bits 5 to 7: overflow |
//! | 6 | 23 | low eight bits of each record's fingerprint |
//! | 29 | 12 | high four bits of each fingerprint, two to a byte, the low half first |
//! | 41 | 23 | length of each record, 1 to 255 |
//!
//! Records that do not fit into a full bucket are at the beginning of the next one. Keys fall into
//! three classes by fingerprint, `fingerprint * 3 / 4096`; bit 5 + class says that a key of this
//! class belongs to this bucket or an earlier one and is in a later one. Buckets after those that
//! keys hash to only take the overflow at the end of the segment.
//!
//! To look a key up: read its bucket; for each equal fingerprint, read the record and compare the
//! key in full; if none matches and the overflow bit of the key's class is set, continue with the
//! next bucket. An absent key costs one cache line, a second one in one case of 45, and a record in
//! one case of 200.
//!
//! ## A record
//!
//! | bytes | meaning |
//! |---|---|
//! | 1 | bit 0: the values are a reference; bit 1: stub; bit 2: the domain has a number; bits 3 to 7: length of the text, or 31 |
//! | varint | only if that length is 31: the length less 31 |
//! | 3 | only with bit 2: the domain's number |
//! | ... | the text: what precedes the key's last `@` with bit 2, else the key |
//! | varint | only with bit 0: offset in the shared sets of values |
//! | ... | only without bit 0: the values, up to the record's end |
//!
//! A stub has only bit 1 set; a varint with an offset in the long records and a varint with a
//! length follow, and the record is there. Each shared set of values is a varint with its length
//! and then its bytes.
//!
//! A domain, the part after a key's last `@`, has a number if many keys end in it: the number of a
//! cell of 32 bytes, which holds the domain's length (0: the cell is empty), the domain and zeros.
//! A domain is in cell `XXH3(domain) * cells / 2^64`, with the map's seed, or in the next free one
//! after it; the first cell follows the last. A key whose domain has a number is always stored with
//! it.
//!
//! The values are, for each table that has the key, in the order of the tables' numbers: a varint
//! with the table's number, then a varint whose low two bits tell the kind of the value and whose
//! other bits are a number `n`:
//!
//! | kind | value |
//! |---|---|
//! | 0 | the text in the next `n` bytes |
//! | 1 | the next `n` bytes, where byte `f8` is replaced by the part before the key's last `@`, `f9` by the part after it, and `fa` by the whole key |
//! | 2 | the decimal number `n`, without leading zeros |
//! | 3 | a usual template by its number `n`, with the bytes of kind 1: 0 `f9 / f8 /`, 1 `f9 / f8`, 2 `f8 /`, 3 `f8`, 4 `fa` |
//!
//! The table names are a varint with their number, then for each a varint with its length and its
//! bytes; numbers count from 0.
//!
//! # The change log
//!
//! `recipients.map.changes` holds the changes that `mailstow map set` and `unset` made since the
//! map was built. It is created by rename, like a map, and then only grows.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 8 | magic `89 4d 53 43 48 47 0d 0a` (`\x89MSCHG\r\n`) |
//! | 8 | 4 | version: 1 |
//! | 12 | 4 | features a reader must know: 0 |
//! | 16 | 16 | name of the map the changes belong to |
//! | 32 | 28 | zero |
//! | 60 | 4 | CRC-32 of bytes 0 to 59 |
//! | 64 | 8 | everything before this offset was flushed (and perhaps more) |
//! | 72 | 4 | CRC-32 of the map's name and the eight bytes before |
//! | 76 | 4 | zero |
//!
//! Frames follow from byte 80 on: the length of the body (4 bytes), the CRC-32 of the map's name,
//! the frame's offset in the file (8 bytes), the length and the body (4 bytes), then the body. It
//! is a list of changes that take effect together: 1 (set) or 2 (unset), then table, key and for
//! "set" the value, each a varint with its length and its bytes.
//!
//! | state found | meaning | action |
//! |---|---|---|
//! | no file | no changes | the map alone answers |
//! | the name of another map | a crash came between a merge and the removal of its log | ignored, with a warning; the next change starts a new log |
//! | an unreadable frame after the flushed offset, no complete frame after it | an append that was interrupted before it was acknowledged | ignored; the next change cuts it off |
//! | anything else unreadable | damage | every lookup defers until an operator decides |
