# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The compiled core of the load path: users as rows of an array, requests from templates, answers walked in place.

It does no I/O: bytes and the time go in, bytes, counts and the records of a history come out. Python is entered once a turn of the event loop, and
for what is rare: a frame that is not one of an answer's usual three goes to `wire.receiving`, a request that cannot be
sent now to the client that all other code uses. So each rule of HTTP/2, gRPC and etcd's errors is written once, in
Python. The Python twin of what is here is `loadgen.load.user` over `loadgen.client.transport`; `tests/property` holds
the two equal.

Pointers are read within the bounds that the walkers check, and rows are looked up by numbers that Python got from here.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from collections import deque

cdef extern from *:
    """
    #define rl_leading_zeros(value) __builtin_clzll(value)
    """
    int rl_leading_zeros(unsigned long long value) nogil

cdef enum:
    # What a user is about.
    IDLE, SENT, OPENED, ANSWERED, ENDED, ADOPTED, LENT, OVER, NOBODY
cdef enum:
    # Types of operation.
    GET, PUT, TXN, TYPES
cdef enum:
    DATA_FRAME = 0
    HEADERS_FRAME = 1
    PING_FRAME = 6
    WINDOW_UPDATE_FRAME = 8
    END_STREAM = 1
    END_HEADERS = 4
    LONGEST_FRAME = 16384
    LONGEST_REVISION = 9         # bytes of a varint below 2**63
    MOST_REVISIONS = 1 << 24     # of keys, 8 bytes each
    BLOCKS = 4                   # header blocks of a kind that are known by heart
    BUCKETS = 38912              # of 11 significant bits, up to 2**47 ns
    LAGS = 7296                  # of 8 significant bits, likewise
    MOST_REPLIES = 4096          # see `wire.control`
    ACKNOWLEDGE = 1048576        # see `wire.receiving`
    NEVER = 0x7FFFFFFFFFFFFFFF
cdef enum:
    # Of a history: see `history.format`.
    RECORD_SIZE = 44
    OPERATION_RECORD = 2
    ANSWERED_FLAG = 1
    FULL_HISTORY = 262144        # bytes of messages, see `history.writer`

IDLE_, LENT_, OVER_, ADOPTED_ = IDLE, LENT, OVER, ADOPTED

cdef struct Template:            # a request's message, and where in it what differs between requests stands
    uint8_t *data
    int size, keys, stamp, revision
    int key[3]

cdef struct Row:                 # a user, and its operation
    uint32_t process, key, count, sid
    int32_t conn                 # the place of its connection
    int32_t state, f, at, drawn, message_size, message_room
    bint leaving, measured, committed
    int endpoint                 # the number of its connection's in the history
    int64_t number, expected     # a revision: negative ones are Python's
    uint64_t due, call, end, revision
    uint8_t *types               # drawn beforehand: `drawn` types and keys, of which `at` are used up
    uint32_t *keys
    uint8_t *message

cdef struct Histogram:
    uint32_t *counts
    int64_t total
    uint64_t least, most
    int low, high                # the buckets in use are from low to below high

cdef struct Track:               # one type of operation since the last drain
    int64_t succeeded, committed, warm_succeeded, warm_committed
    uint64_t first_call, first_return, last_return, last_call
    Histogram latency, service

cdef struct Buffer:
    uint8_t *data
    size_t size, room

cdef inline uint32_t be32(const uint8_t *p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]

cdef inline uint8_t *put32(uint8_t *p, uint32_t value) noexcept nogil:
    p[0] = value >> 24; p[1] = (value >> 16) & 255; p[2] = (value >> 8) & 255; p[3] = value & 255
    return p + 4

cdef inline uint8_t *put_frame(uint8_t *p, uint32_t size, int kind, int flags, uint32_t sid) noexcept nogil:
    p = put32(p, size << 8 | <uint32_t>kind)
    p[0] = <uint8_t>flags
    return put32(p + 1, sid)

cdef inline uint8_t *put_little(uint8_t *p, uint64_t value, int size) noexcept nogil:
    cdef int n
    for n in range(size):
        p[n] = <uint8_t>(value >> 8 * n & 255)
    return p + size

cdef uint8_t *extend(Buffer *b, size_t size) except NULL:
    """Return where so many bytes more stand in a buffer."""
    cdef uint8_t *larger
    cdef size_t room
    if b.size + size > b.room:
        room = 2 * (b.size + size)
        larger = <uint8_t *>realloc(b.data, room)
        if larger == NULL:
            raise MemoryError
        b.data, b.room = larger, room
    b.size += size
    return b.data + b.size - size

cdef bytes taken_of(Buffer *b):
    """Return what a buffer holds, and empty it."""
    found = PyBytes_FromStringAndSize(<char *>b.data, b.size)
    b.size = 0
    return found

cdef inline void put_hex(uint8_t *p, uint32_t value) noexcept nogil:
    cdef int n, digit
    for n in range(8):
        digit = (value >> (28 - 4 * n)) & 15
        p[n] = <uint8_t>(digit + 48 if digit < 10 else digit + 87)

cdef inline int bits(uint64_t value) noexcept nogil:
    return 64 - rl_leading_zeros(value) if value else 0

cdef inline int bucket_of(uint64_t value, int significant, int most) noexcept nogil:
    """Return the place of a value's bucket, with so many significant bits, among those of all."""
    cdef int shift = bits(value) - significant
    cdef int place
    if shift <= 0:
        return <int>value
    place = (shift << (significant - 1)) + <int>(value >> shift)
    return place if place < most else most - 1

cdef uint64_t floor_of(int place, int significant) noexcept:
    """Return the least value of a bucket."""
    cdef int half = 1 << (significant - 1)
    cdef int shift = place // half - 1
    if shift <= 0:
        return <uint64_t>place
    return <uint64_t>(place - shift * half) << shift

cdef int clear(Histogram *h, int size) except -1:
    if h.counts == NULL:
        h.counts = <uint32_t *>calloc(size, sizeof(uint32_t))
        if h.counts == NULL:
            raise MemoryError
    elif h.high > h.low:
        memset(h.counts + h.low, 0, (h.high - h.low) * sizeof(uint32_t))
    h.total, h.least, h.most, h.low, h.high = 0, <uint64_t>NEVER, 0, size, 0
    return 0

cdef inline void add(Histogram *h, uint64_t value, int significant, int size) noexcept nogil:
    cdef int place = bucket_of(value, significant, size)
    h.counts[place] += 1
    h.total += value
    if value < h.least:
        h.least = value
    if value > h.most:
        h.most = value
    if place < h.low:
        h.low = place
    if place >= h.high:
        h.high = place + 1

cdef dict counts_of(Histogram *h, int significant):
    cdef int place
    cdef dict found = {}
    for place in range(h.low, h.high):
        if h.counts[place]:
            found[floor_of(place, significant)] = h.counts[place]
    return found

# ---- answers: etcd's messages (see proto/kv.proto), read strictly; what is not plain is left to protobuf's own reader

cdef inline const uint8_t *varint(const uint8_t *p, const uint8_t *end, uint64_t *value) noexcept nogil:
    """Read a number of at most 63 bits; return where it ends, NULL where there is none."""
    cdef int shift = 0
    cdef uint64_t read = 0
    while p < end and shift < 63:
        read |= <uint64_t>(p[0] & 127) << shift
        if p[0] < 128:
            value[0] = read
            return p + 1
        p += 1
        shift += 7
    return NULL

cdef inline const uint8_t *skip_varint(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Return where a number of at most 64 bits ends, NULL where there is none."""
    cdef int n
    for n in range(10):
        if p >= end:
            return NULL
        if p[0] < 128:
            return p + 1 if n < 9 or p[0] < 2 else NULL
        p += 1
    return NULL

cdef inline const uint8_t *length(const uint8_t *p, const uint8_t *end, uint64_t *size) noexcept nogil:
    """Read the length of what follows; return where that begins, NULL where it does not fit."""
    # Protobuf refuses lengths that take more than five bytes, whatever they say.
    p = varint(p, p + 5 if end - p > 5 else end, size)
    return NULL if p == NULL or size[0] > <uint64_t>(end - p) else p

cdef bint numbers_only(const uint8_t *p, const uint8_t *end, int most, uint8_t wanted, uint64_t *value) noexcept nogil:
    """Read a message of numbers alone, with the fields 1 to ``most``; that of the tag ``wanted`` into ``value``."""
    value[0] = 0
    while p < end:
        if p[0] & 7 or not 8 <= p[0] <= most << 3:
            return False
        if p[0] == wanted:
            p = varint(p + 1, end, value)
        else:
            p = skip_varint(p + 1, end)
        if p == NULL:
            return False
    return True

cdef bint key_value(const uint8_t *p, const uint8_t *end, uint64_t *modified) noexcept nogil:
    """Read a KeyValue; its mod revision into ``modified``."""
    cdef uint64_t size = 0
    modified[0] = 0
    while p < end:
        if p[0] == 0x0A or p[0] == 0x2A:                     # key, value
            p = length(p + 1, end, &size)
            if p == NULL:
                return False
            p += size
        elif p[0] == 0x18:                                   # mod_revision
            p = varint(p + 1, end, modified)
        elif p[0] == 0x10 or p[0] == 0x20 or p[0] == 0x30:   # create_revision, version, lease
            p = skip_varint(p + 1, end)
        else:
            return False
        if p == NULL:
            return False
    return True

cdef bint range_answer(const uint8_t *p, const uint8_t *end, bint headed, uint64_t *revision, uint64_t *modified) noexcept nogil:
    """Read a RangeResponse, with a header or without; its revision, and the mod revision of the first key."""
    cdef uint64_t size = 0, other = 0
    cdef bint first = True
    modified[0] = 0
    if headed:
        if p >= end or p[0] != 0x0A:
            return False
        p = length(p + 1, end, &size)
        if p == NULL or not numbers_only(p, p + size, 4, 0x18, revision):
            return False
        p += size
    while p < end:
        if p[0] == 0x12:                                     # kvs
            p = length(p + 1, end, &size)
            if p == NULL or not key_value(p, p + size, modified if first else &other):
                return False
            first = False
            p += size
        elif p[0] == 0x18 or p[0] == 0x20:                   # more, count
            p = skip_varint(p + 1, end)
            if p == NULL:
                return False
        elif p[0] == 0x0A and not headed and first:          # a header within a transaction's answer
            p = length(p + 1, end, &size)
            if p == NULL or not numbers_only(p, p + size, 4, 0x18, &other):
                return False
            p += size
        else:
            return False
    return True

cdef bint put_answer(const uint8_t *p, const uint8_t *end, uint64_t *revision) noexcept nogil:
    """Read a PutResponse that is a header and nothing else."""
    cdef uint64_t size = 0
    if p >= end or p[0] != 0x0A:
        return False
    p = length(p + 1, end, &size)
    return p != NULL and p + size == end and numbers_only(p, end, 4, 0x18, revision)

cdef bint txn_answer(Row *r, const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Read the TxnResponse of a compare-and-swap: one put where it succeeded, else one range.

    Into the row goes the revision at which the key is known to have been modified, 0 for a key that is not there.
    """
    cdef uint64_t size = 0, revision = 0, inner = 0, modified = 0
    cdef const uint8_t *stop
    r.committed = False
    if p >= end or p[0] != 0x0A:
        return False
    p = length(p + 1, end, &size)
    if p == NULL or not numbers_only(p, p + size, 4, 0x18, &revision):
        return False
    p += size
    if end - p >= 2 and p[0] == 0x10:
        if p[1] != 1:
            return False
        r.committed = True
        p += 2
    if p >= end or p[0] != 0x1A:
        return False
    p = length(p + 1, end, &size)
    if p == NULL or p + size != end or p >= end:
        return False
    if r.committed:
        if p[0] != 0x12:
            return False
        p = length(p + 1, end, &size)
        if p == NULL or p + size != end or (size and not put_answer(p, end, &inner)):
            return False
        r.revision = revision
        return True
    if p[0] != 0x0A:
        return False
    p = length(p + 1, end, &size)
    if p == NULL or p + size != end or not range_answer(p, end, False, &inner, &modified):
        return False
    r.revision = modified
    return True

cdef bint read_answer(Row *r, const uint8_t *p, size_t size) noexcept nogil:
    """Read an answer's message into the row; return whether it is a plain one of etcd's."""
    cdef uint64_t unused = 0
    if r.f == PUT:
        return put_answer(p, p + size, &r.revision)
    if r.f == GET:
        return range_answer(p, p + size, True, &r.revision, &unused)
    return txn_answer(r, p, p + size)

# ---- for tests, which hold these to what Python does

def answered(int f, bytes message not None):
    """Return what an answer's message says: its revision, and whether it is one of a first branch.

    Of a branch not taken the revision is that of the key. None where the message is left to Python.
    """
    cdef Row r
    cdef size_t size = PyBytes_GET_SIZE(message)
    cdef uint8_t *exact = <uint8_t *>malloc(size)    # a string has a byte behind its end
    cdef bint plain
    if exact == NULL and size:
        raise MemoryError
    memset(&r, 0, sizeof(Row))
    r.f = f
    if size:
        memcpy(exact, PyBytes_AS_STRING(message), size)
    plain = read_answer(&r, exact, size)
    free(exact)
    return (r.revision, r.committed != 0) if plain else None

def bucket(uint64_t value, bint lag):
    """Return the least value of a time's bucket, or of a lag's."""
    return floor_of(bucket_of(value, 8, LAGS), 8) if lag else floor_of(bucket_of(value, 11, BUCKETS), 11)


cdef class Requests:
    """The messages of a run's requests, as templates.

    Takes the keys' prefix, the digits of a key's number, and for each type (get, put, transaction) that runs a list of
    `requests.Template`; of a transaction one for each length of a revision, from 1.
    """

    cdef Template made[TYPES][LONGEST_REVISION]
    cdef list kept
    cdef bytes prefix
    cdef int digits, skipped

    def __cinit__(self, bytes prefix, int digits, dict templates):
        cdef int f, n, place
        self.kept, self.prefix, self.digits, self.skipped = [], prefix, digits, 0
        memset(self.made, 0, sizeof(self.made))
        for f, each in templates.items():
            if not 0 <= f < TYPES or len(each) > LONGEST_REVISION:
                raise ValueError("no such template")
            for n, template in enumerate(each):
                if len(template.keys) > 3:
                    raise ValueError("too many keys")
                self.kept.append(template.message)
                self.made[f][n].data = <uint8_t *>PyBytes_AS_STRING(template.message)
                self.made[f][n].size = <int>PyBytes_GET_SIZE(template.message)
                self.made[f][n].keys = len(template.keys)
                for place in range(len(template.keys)):
                    self.made[f][n].key[place] = template.keys[place]
                self.made[f][n].stamp = template.stamp
                self.made[f][n].revision = template.revision
                self.skipped = template.skipped or self.skipped

    cdef Template *find(self, int f, int64_t expected) noexcept nogil:
        """Return the template of a type, for a transaction that of a revision's length; NULL where there is none."""
        cdef int place = 0
        if f == TXN:
            if expected < 0:
                return NULL
            place = (bits(expected) + 6) // 7
            place = place - 1 if place else 0
        return &self.made[f][place] if self.made[f][place].data != NULL else NULL

    def message(self, int f, uint32_t key, uint32_t process, uint32_t count, int64_t expected):
        """Return a request's message, as it is sent; None where Python would write it. For tests."""
        cdef Row r
        cdef Template *t
        cdef uint8_t *exact
        if not 0 <= f < TYPES:
            raise ValueError("no such type")
        t = self.find(f, expected)
        if t == NULL:
            return None
        memset(&r, 0, sizeof(Row))
        r.key, r.process, r.count, r.expected = key, process, count, expected
        exact = <uint8_t *>malloc(t.size)
        if exact == NULL:
            raise MemoryError
        self.write(exact, t, &r)
        found = PyBytes_FromStringAndSize(<char *>exact, t.size)
        free(exact)
        return found

    cdef void write(self, uint8_t *p, Template *t, Row *r) noexcept nogil:
        """Copy a message out, and fill in what is this operation's."""
        cdef uint8_t stamp[16]
        cdef uint8_t *at
        cdef uint32_t left
        cdef uint64_t value
        cdef int n, digit
        memcpy(p, t.data, t.size)
        if t.keys:
            at, left = p + t.key[0], r.key
            for digit in range(self.digits - 1, -1, -1):
                at[digit] = <uint8_t>(48 + left % 10)
                left = left // 10
            for n in range(1, t.keys):
                memcpy(p + t.key[n], at, self.digits)
        if t.stamp >= 0:
            put_hex(stamp, r.process)
            put_hex(stamp + 8, r.count)
            memcpy(p + t.stamp, stamp + self.skipped, 16 - self.skipped)
        if t.revision >= 0:
            at, value = p + t.revision, <uint64_t>r.expected
            while value > 127:
                at[0] = <uint8_t>(value & 127 | 128)
                value >>= 7
                at += 1
            at[0] = <uint8_t>value


cdef class Conn:
    """The state of one connection that the core and `wire` share; see `lane`.

    Attributes: those of `wire.sending.Sender` with these names; ``unacknowledged``, bytes of answers that the peer's window
    has not got back; ``chosen``, it was chosen in this turn of the event
    loop and is to be flushed at its end; ``special``, only Python may take the next frame; ``dead``, the connection
    has ended and takes nothing more; ``number``, its place in the core; ``endpoint``, the number of its endpoint in the
    history.
    """

    cdef public int64_t window, room, max_streams, unacknowledged
    cdef public uint64_t queued
    cdef public uint32_t next_id, replies
    cdef public bint accepting, chosen, special, dead
    cdef readonly int number
    cdef public uint16_t endpoint
    cdef readonly int64_t open
    cdef dict streams, blocked
    cdef object waiting
    cdef readonly object lane
    cdef bytes tail
    cdef Buffer out
    cdef int32_t *slots          # a row and 1 by stream id, held against the row
    cdef readonly uint32_t mask  # of the bits of a stream's id that say where it stands
    cdef list opens, closes, blocks

    def __cinit__(self, lane):
        self.lane, self.number = lane, -1
        self.next_id, self.special, self.tail = 1, True, b""
        self.opens, self.closes, self.blocks = [], [], [None] * TYPES
        self.streams, self.blocked, self.waiting = {}, {}, deque()
        self.mask = 255
        self.slots = <int32_t *>calloc(self.mask + 1, sizeof(int32_t))
        if self.slots == NULL:
            raise MemoryError
        extend(&self.out, 32768)
        self.out.size = 0

    def __dealloc__(self):
        free(self.out.data)
        free(self.slots)

    def share(self, dict streams not None, dict blocked not None, waiting):
        """Take Python's own streams by id, those whose bodies the windows hold back, and calls that wait for a stream."""
        self.streams, self.blocked, self.waiting = streams, blocked, waiting

    @property
    def full(self):
        """Whether the peer allows no further stream at present."""
        return self.open + len(self.streams) + len(self.waiting) >= self.max_streams

    # -- output, as `wire.sending` puts it into a list

    def append(self, bytes data not None):
        """Take bytes to write; ``queued`` is counted by whoever puts them here."""
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        if size:
            memcpy(extend(&self.out, size), PyBytes_AS_STRING(data), size)

    def __len__(self):
        return self.out.size

    def take(self):
        """Return what is to be written, once."""
        return taken_of(&self.out)

    # -- header blocks

    def know(self, bytes block not None, bint opens):
        """Take a block of an answer that means the usual beginning, or the usual end, until `forget`."""
        known = self.opens if opens else self.closes
        if len(known) < BLOCKS and block not in known:
            known.append(block)

    def forget(self):
        """Know no block of an answer any more."""
        self.opens.clear()
        self.closes.clear()

    def set_block(self, int f, block):
        """Take the header block of requests of a type, None for none."""
        if not 0 <= f < TYPES:
            raise ValueError("no such type")
        self.blocks[f] = block

    cdef inline bint knows(self, list known, const uint8_t *p, uint32_t size):
        for block in known:
            if PyBytes_GET_SIZE(block) == size and not memcmp(PyBytes_AS_STRING(block), p, size):
                return True
        return False


cdef class Core:
    """The users of one worker, and their operations.

    Takes the owner (see `engine.Engine`: `choose`, `draw`, `begin_measuring`, `turn`, `keep_history`), the requests, how many keys there
    are, how many types the run has, and its operations, -1 for no limit.

    Attributes:
        taken, quota: operations of the measurement that were begun, and how many there are; -1 for no limit.
        closed_loop: a user's next operation follows its last.
        warm_until: when the warm-up ends, in nanoseconds on the monotonic clock.
        measuring: the measurement has begun.
        closing: nothing more is begun.
        active, active_max: operations under way, now and the most there were.
        attention: rows whose greenlet has something to do.
        recording: each operation that ends here is recorded, as `history.writer` does it, until `take_history`.
    """

    cdef public int64_t taken, quota, active, active_max
    cdef public uint64_t warm_until
    cdef public bint closed_loop, measuring, closing, recording
    cdef readonly list attention
    cdef object owner
    cdef Requests requests
    cdef Row *rows
    cdef int users, room, owing
    cdef int32_t *ended          # rows whose answers have come to their end in this read, in that order
    cdef int ended_count
    cdef list conns, free_rows, idle
    cdef Conn current
    cdef int64_t *revisions
    cdef uint32_t key_space
    cdef uint64_t low, high      # the interval of what is counted
    cdef Track tracks[TYPES]
    cdef Histogram lags
    cdef Buffer records, messages     # of the history
    cdef uint32_t recorded

    def __cinit__(self, owner, Requests requests not None, uint32_t key_space, int owing, int64_t quota):
        cdef int f
        self.owner, self.requests, self.key_space, self.owing, self.quota = owner, requests, key_space, owing, quota
        self.closed_loop = True
        self.attention, self.conns, self.free_rows, self.idle = [], [], [], []
        memset(self.tracks, 0, sizeof(self.tracks))
        memset(&self.lags, 0, sizeof(self.lags))
        # A table for billions of keys would find no memory; only transactions compare with a revision.
        if key_space <= MOST_REVISIONS or requests.made[TXN][0].data != NULL:
            self.revisions = <int64_t *>calloc(key_space, sizeof(int64_t))
            if self.revisions == NULL:
                raise MemoryError
        for f in range(TYPES):
            clear(&self.tracks[f].latency, BUCKETS)
            clear(&self.tracks[f].service, BUCKETS)
            self.tracks[f].first_call = <uint64_t>NEVER
        clear(&self.lags, LAGS)

    def __dealloc__(self):
        cdef int n
        for n in range(TYPES):
            free(self.tracks[n].latency.counts)
            free(self.tracks[n].service.counts)
        free(self.lags.counts)
        for n in range(self.users):
            free(self.rows[n].types)
            free(self.rows[n].keys)
            free(self.rows[n].message)
        free(self.rows)
        free(self.ended)
        free(self.revisions)
        free(self.records.data)
        free(self.messages.data)

    cdef Row *row(self, int number) except NULL:
        if not 0 <= number < self.users:
            raise IndexError("no such user")
        return &self.rows[number]

    # ---- connections

    def connect(self, Conn conn not None):
        """Take a connection, until `disconnect`."""
        cdef int place
        for place in range(len(self.conns)):
            if self.conns[place] is None:
                self.conns[place] = conn
                break
        else:
            place = len(self.conns)
            self.conns.append(conn)
        conn.number = place

    def disconnect(self, Conn conn not None):
        """Forget a connection, on which no operation is under way."""
        if conn.open:
            raise ValueError("operations are under way")
        if conn.number >= 0:
            self.conns[conn.number] = None
            conn.number = -1
        if self.current is conn:
            self.current = None

    # ---- users

    def enlist(self, uint32_t process):
        """Add a user; return its row. It does nothing until `start`."""
        cdef int number
        cdef Row *rows
        cdef Row *r
        cdef int32_t *ended
        if self.free_rows:
            number = self.free_rows.pop()
        else:
            if self.users == self.room:
                rows = <Row *>realloc(self.rows, (2 * self.room + 16) * sizeof(Row))
                if rows == NULL:
                    raise MemoryError
                self.rows = rows
                ended = <int32_t *>realloc(self.ended, (2 * self.room + 16) * sizeof(int32_t))
                if ended == NULL:
                    raise MemoryError
                self.ended, self.room = ended, 2 * self.room + 16
            number = self.users
            memset(&self.rows[number], 0, sizeof(Row))
            self.users += 1
        r = &self.rows[number]
        r.process, r.count, r.at, r.drawn, r.state, r.leaving = process, 0, 0, 0, IDLE, False
        return number

    def release(self, int number):
        """Take a user out, which has no operation under way."""
        cdef Row *r = self.row(number)
        if SENT <= r.state <= ENDED or r.state == NOBODY:
            raise ValueError("its operation is under way")
        if r.state == ADOPTED or r.state == LENT:
            self.active -= 1
        if number in self.idle:
            self.idle.remove(number)
        r.state = NOBODY
        self.free_rows.append(number)

    def state(self, int number):
        """Return what a user is about."""
        return self.row(number).state

    def look(self, int number):
        """Return a user's operation: number, type, key, count of its value, due, call, revision that it expects."""
        cdef Row *r = self.row(number)
        return r.number, r.f, r.key, r.count, r.due, r.call, r.expected

    def start(self, int number, uint64_t now):
        """Begin a user's next operation where it has none: of a closed loop, or the end of its work."""
        cdef Row *r = self.row(number)
        if r.state == ADOPTED or r.state == LENT:
            self.active -= 1
            r.state = IDLE
        elif r.state != IDLE:
            return
        self._next(number, now)

    def leave(self, int number):
        """Have a user begin nothing more."""
        cdef Row *r = self.row(number)
        r.leaving = True
        if r.state == IDLE:
            r.state = OVER
            if number in self.idle:
                self.idle.remove(number)
            self.attention.append(number)

    def close(self):
        """Have all users begin nothing more."""
        cdef int number
        self.closing = True
        idle, self.idle = self.idle, []
        for number in idle:
            self.rows[number].state = OVER
            self.attention.append(number)

    def hand(self, int64_t number, uint64_t due, uint64_t now):
        """Begin an operation of an open loop (-1: of the warm-up); return whether an idle user was there for it."""
        cdef int row
        if not self.idle:
            return False
        row = self.idle.pop()
        self._begin(row, number, due, now)
        return True

    def revision(self, uint32_t key):
        """Return at which revision a key was last seen modified; 0: never, it was not there, or there are too many."""
        if key >= self.key_space:
            raise IndexError("no such key")
        return self.revisions[key] if self.revisions != NULL else 0

    def set_revision(self, uint32_t key, int64_t revision):
        """Note at which revision a key was seen modified."""
        if key >= self.key_space:
            raise IndexError("no such key")
        if self.revisions != NULL:
            self.revisions[key] = revision

    # ---- requests

    cdef int _next(self, int number, uint64_t now) except -1:
        cdef Row *r = &self.rows[number]
        cdef int64_t taken = -1
        r.state = IDLE
        if r.leaving or self.closing:
            r.state = OVER
        elif not self.closed_loop:
            self.idle.append(number)
            return 0
        else:
            if not self.measuring and now >= self.warm_until:
                self.measuring = True
                self.owner.begin_measuring()
                r = &self.rows[number]
            if self.measuring:
                if 0 <= self.quota <= self.taken:
                    r.state = OVER
                else:
                    taken = self.taken
                    self.taken += 1
        if r.state == OVER:
            self.attention.append(number)
            return 0
        return self._begin(number, taken, now, now)

    cdef int _begin(self, int number, int64_t taken, uint64_t due, uint64_t now) except -1:
        """Begin an operation: send it, or lend it to Python where that cannot be done here and now."""
        cdef Row *r = &self.rows[number]
        cdef Conn c
        cdef Template *t
        cdef bytes block
        cdef uint8_t *p
        cdef uint32_t size
        r.number, r.measured, r.due, r.call = taken, taken >= 0, due, now
        self.active += 1
        if self.active > self.active_max:
            self.active_max = self.active
        if r.at == r.drawn:
            self._draw(number)
            r = &self.rows[number]
        r.f, r.key = r.types[r.at], r.keys[r.at]
        r.at += 1
        r.expected = self.revisions[r.key] if r.f == TXN else 0
        if 0 <= taken < self.owing:
            # The first operations of a run may have to be of another type than the drawn one.
            return self._lend(number)
        # What is lent goes first, so that the order of choices is that of the requests.
        if self.attention:
            return self._lend(number)
        c = self.current
        if c is None or not c.chosen:
            c = self.current = self.owner.choose(now)
            r = &self.rows[number]
        if c is None or not c.accepting or c.open + len(c.streams) >= c.max_streams or c.waiting or c.next_id > 0x7FFFFFFF:
            return self._lend(number)
        block = c.blocks[r.f]
        t = self.requests.find(r.f, r.expected)
        if block is None or t == NULL:
            return self._lend(number)
        size = t.size + 5
        if size > c.room or size > c.window:
            return self._lend(number)
        p = extend(&c.out, 23 + PyBytes_GET_SIZE(block) + t.size)
        p = put_frame(p, <uint32_t>PyBytes_GET_SIZE(block), HEADERS_FRAME, END_HEADERS, c.next_id)
        memcpy(p, PyBytes_AS_STRING(block), PyBytes_GET_SIZE(block))
        p = put_frame(p + PyBytes_GET_SIZE(block), size, DATA_FRAME, END_STREAM, c.next_id)
        p[0] = 0
        p = put32(p + 1, t.size)
        self.requests.write(p, t, r)
        c.queued += 23 + PyBytes_GET_SIZE(block) + t.size
        c.window -= size
        if r.f != GET:
            r.count += 1
        r.sid, r.conn, r.state, r.end, r.endpoint = c.next_id, c.number, SENT, c.queued, c.endpoint
        c.next_id += 2
        c.open += 1
        return self._enter(c, number)

    cdef int _lend(self, int number) except -1:
        self.rows[number].state = LENT
        self.attention.append(number)
        return 0

    def count_value(self, int number):
        """Return the count of a lent operation's value, which is then used up."""
        cdef Row *r = self.row(number)
        r.count += 1
        return r.count - 1

    cdef int _draw(self, int number) except -1:
        """Have Python draw what a user does next."""
        cdef bytes types, keys
        cdef Row *r
        cdef int n, count
        cdef uint32_t key
        types, keys = self.owner.draw(number)
        count = <int>PyBytes_GET_SIZE(types)
        if count == 0 or PyBytes_GET_SIZE(keys) != 4 * count:
            raise ValueError("nothing was drawn")
        r = &self.rows[number]
        free(r.types)
        free(r.keys)
        r.types, r.keys, r.drawn, r.at = <uint8_t *>malloc(count), <uint32_t *>malloc(4 * count), 0, 0
        if r.types == NULL or r.keys == NULL:
            raise MemoryError
        memcpy(r.types, PyBytes_AS_STRING(types), count)
        memcpy(r.keys, PyBytes_AS_STRING(keys), 4 * count)
        for n in range(count):
            if r.types[n] >= TYPES or r.keys[n] >= self.key_space:
                raise ValueError("a type or a key that there is not")
        r.drawn = count
        return 0

    # ---- streams

    cdef int _enter(self, Conn c, int number) except -1:
        """Enter a row under its stream's id."""
        cdef int32_t other
        cdef int32_t *slots
        cdef uint32_t mask, place = self.rows[number].sid >> 1 & c.mask
        cdef int n
        other = c.slots[place] - 1
        # A row that stood here once may be under way under another id, and elsewhere.
        if other >= 0 and other != number and self._is_open(c, other) and self.rows[other].sid >> 1 & c.mask == place:
            mask = c.mask
            while True:
                mask = 2 * mask + 1
                slots = <int32_t *>calloc(mask + 1, sizeof(int32_t))
                if slots == NULL:
                    raise MemoryError
                for n in range(self.users):
                    if self._is_open(c, n):
                        if slots[self.rows[n].sid >> 1 & mask]:
                            break
                        slots[self.rows[n].sid >> 1 & mask] = n + 1
                else:
                    free(c.slots)
                    c.slots, c.mask = slots, mask
                    return 0
                free(slots)
        c.slots[place] = number + 1
        return 0

    cdef inline bint _is_open(self, Conn c, int number) noexcept nogil:
        cdef int state = self.rows[number].state
        return (state == SENT or state == OPENED or state == ANSWERED) and self.rows[number].conn == c.number

    cdef inline int _find(self, Conn c, uint32_t sid) noexcept nogil:
        cdef int32_t number = c.slots[sid >> 1 & c.mask] - 1
        return number if number >= 0 and self.rows[number].sid == sid and self._is_open(c, number) else -1

    def adopt(self, Conn c not None, int number):
        """Hand an operation under way to Python.

        Returns its stream id, the offset behind its last byte in the output, when it was called, whether the answer has
        begun, and its message, None where none has come.
        """
        cdef Row *r = self.row(number)
        if not self._is_open(c, number):
            raise ValueError("not under way there")
        message = PyBytes_FromStringAndSize(<char *>r.message, r.message_size) if r.state == ANSWERED else None
        begun = r.state != SENT
        r.state = ADOPTED
        c.open -= 1
        return r.sid, r.end, r.call, begun, message

    def open_rows(self, Conn c not None, uint64_t called_until=<uint64_t>NEVER):
        """Return the users with operations under way on a connection, called until then, in the order of their ids."""
        cdef int n
        found = [n for n in range(self.users) if self._is_open(c, n) and self.rows[n].call <= called_until]
        found.sort(key=self._sid)
        return found

    def _sid(self, int number):
        return self.rows[number].sid

    def first_call(self, Conn c not None):
        """Return when the oldest operation under way on a connection was called, None where there is none."""
        cdef int n
        calls = [self.rows[n].call for n in range(self.users) if self._is_open(c, n)] if c.open else ()
        return min(calls, default=None)

    def connection(self, int number):
        """Return the connection of a user's operation that is under way, None where it is not."""
        cdef Row *r = self.row(number)
        if r.state == SENT or r.state == OPENED or r.state == ANSWERED:
            return self.conns[r.conn]
        return None

    # ---- answers

    def feed(self, Conn c not None, bytes data not None, uint64_t now):
        """Take what was read on a connection at a time: count what ended, then begin what follows.

        Calls the lane's ``unusual(frame, user)`` for each frame that is not one of an answer's usual three, and
        ``pump()`` where calls of Python's wait for a stream. As in Python, what follows begins when all that was read
        is known, in the order of the ends. Where ends of Python's are among them, or something is lent, the rest is
        the lane's to `finish`: ``ended(users)`` says where the ends stand among those of Python's.
        """
        cdef const uint8_t *p
        cdef const uint8_t *end
        cdef const uint8_t *at
        cdef uint32_t size, sid, count
        cdef int kind, flags, number, n
        cdef bint mixed = False
        cdef Row *r
        if c.dead:
            return
        self.ended_count = 0
        if c.tail:
            data = c.tail + data
            c.tail = b""
        p = <const uint8_t *>PyBytes_AS_STRING(data)
        end = p + PyBytes_GET_SIZE(data)
        while end - p >= 9:
            size, kind, flags, sid, at = be32(p) >> 8, p[3], p[4], be32(p + 5), p + 9
            if size > LONGEST_FRAME:
                mixed = True
                self._hand_on(c, 0)
                c.lane.unusual(PyBytes_FromStringAndSize(<const char *>p, 9), -1)
                break
            if <size_t>(end - at) < size:
                break
            if not c.special:
                if kind == HEADERS_FRAME:
                    number = self._find(c, sid)
                    if number >= 0:
                        r = &self.rows[number]
                        if flags == END_HEADERS:
                            if r.state == SENT and c.knows(c.opens, at, size):
                                r.state = OPENED
                                p = at + size
                                continue
                        elif flags == END_HEADERS | END_STREAM and r.state == ANSWERED and c.knows(c.closes, at, size):
                            p = at + size
                            r.state = ENDED
                            c.open -= 1
                            self.ended[self.ended_count] = number
                            self.ended_count += 1
                            continue
                elif kind == DATA_FRAME:
                    if flags == 0 and size >= 5 and at[0] == 0 and be32(at + 1) == size - 5:
                        number = self._find(c, sid)
                        if number >= 0 and self.rows[number].state == OPENED:
                            r = &self.rows[number]
                            if read_answer(r, at + 5, size - 5):
                                self._keep(r, at + 5, size - 5)
                                r.state = ANSWERED
                                c.unacknowledged += size
                                p = at + size
                                continue
                elif kind == WINDOW_UPDATE_FRAME:
                    if size == 4 and sid == 0:
                        count = be32(at) & 0x7FFFFFFF
                        # While bodies of Python's wait for the window, it is Python that widens it.
                        if count and c.window + count <= 0x7FFFFFFF and not c.blocked:
                            c.window += count
                            p = at + 4
                            continue
                elif kind == PING_FRAME:
                    if size == 8 and sid == 0 and not flags & 1 and c.replies < MOST_REPLIES:
                        c.replies += 1
                        self._pong(c, at)
                        p = at + 8
                        continue
            number = self._find(c, sid & 0x7FFFFFFF)
            mixed = True
            self._hand_on(c, 0)
            c.lane.unusual(PyBytes_FromStringAndSize(<const char *>p, 9 + size), number)
            p = at + size
            if c.dead:
                break
        if c.dead:
            return
        if p < end:
            c.tail = PyBytes_FromStringAndSize(<const char *>p, end - p)
        if c.unacknowledged >= ACKNOWLEDGE:
            self._acknowledge(c)
        if c.waiting:
            c.lane.pump()
        if mixed:
            self._hand_on(c, 0)
            return
        for n in range(self.ended_count):
            self._succeed(self.ended[n], now)
            if self.attention:
                self._hand_on(c, n + 1)
                return

    cdef int _hand_on(self, Conn c, int first) except -1:
        """Give the ends from one on to the lane, and forget them."""
        cdef int n
        if self.ended_count:
            rows = [self.ended[n] for n in range(first, self.ended_count)]
            self.ended_count = 0
            c.lane.ended(rows)
        return 0

    def finish(self, int number, uint64_t now):
        """Count an operation whose answer has come to its end, and begin the user's next one."""
        if self.row(number).state != ENDED:
            raise ValueError("has not ended")
        self._succeed(number, now)

    cdef int _pong(self, Conn c, const uint8_t *payload) except -1:
        cdef uint8_t *p = extend(&c.out, 17)
        memcpy(put_frame(p, 8, PING_FRAME, 1, 0), payload, 8)
        c.queued += 17
        return 0

    cdef int _acknowledge(self, Conn c) except -1:
        cdef uint8_t *p = extend(&c.out, 13)
        put32(put_frame(p, 4, WINDOW_UPDATE_FRAME, 0, 0), <uint32_t>c.unacknowledged)
        c.queued += 13
        c.unacknowledged = 0
        return 0

    cdef int _keep(self, Row *r, const uint8_t *message, int size) except -1:
        """Keep an answer's message, for the case that its end is unusual."""
        cdef uint8_t *larger
        if size > r.message_room:
            larger = <uint8_t *>realloc(r.message, size)
            if larger == NULL:
                raise MemoryError
            r.message, r.message_room = larger, size
        memcpy(r.message, message, size)
        r.message_size = size
        return 0

    cdef int _succeed(self, int number, uint64_t now) except -1:
        cdef Row *r = &self.rows[number]
        cdef Track *t
        cdef int f = r.f
        self.active -= 1
        if self.recording:
            self._record(r, now)
            if self.messages.size > FULL_HISTORY:
                self.owner.keep_history()
                r = &self.rows[number]
        if r.measured and not self.low <= now < self.high:
            self.low, self.high = self.owner.turn(now)
            r = &self.rows[number]
        t = &self.tracks[f]
        if f != GET and self.revisions != NULL:
            self.revisions[r.key] = <int64_t>r.revision
        if r.measured:
            if not t.succeeded:
                t.first_return = now
            t.succeeded += 1
            t.committed += f == TXN and r.committed
            if r.call < t.first_call:
                t.first_call = r.call
            if now > t.last_return:
                t.last_return = now
            add(&t.latency, now - r.due, 11, BUCKETS)
            if not self.closed_loop:
                add(&t.service, now - r.call, 11, BUCKETS)
                add(&self.lags, r.call - r.due if r.call > r.due else 0, 8, LAGS)
                if r.call > t.last_call:
                    t.last_call = r.call
        else:
            t.warm_succeeded += 1
            t.warm_committed += f == TXN and r.committed
        return self._next(number, now)

    # ---- the history

    cdef int _record(self, Row *r, uint64_t now) except -1:
        """Record an operation that succeeded: its request, written once more, and its answer as it was read."""
        cdef Template *t = self.requests.find(r.f, r.expected)
        cdef uint8_t *p
        if t == NULL:
            raise ValueError("no such request")
        p = extend(&self.records, RECORD_SIZE)
        p[0], p[1], p[2], p[3] = OPERATION_RECORD, 1 if r.f == GET else 2 if r.f == PUT else 4, 0, 0
        p = put_little(p + 4, r.process, 4)
        p = put_little(p, r.endpoint, 2)
        p = put_little(p, ANSWERED_FLAG, 2)
        p = put_little(p, r.due, 8)
        p = put_little(p, r.call, 8)
        p = put_little(p, now, 8)
        p = put_little(p, t.size, 4)
        put_little(p, r.message_size, 4)
        p = extend(&self.messages, <size_t>t.size + r.message_size)
        if r.f == GET:
            self.requests.write(p, t, r)
        else:
            # The count went up when the request was sent.
            r.count -= 1
            self.requests.write(p, t, r)
            r.count += 1
        memcpy(p + t.size, r.message, r.message_size)
        self.recorded += 1
        return 0

    def take_history(self):
        """Return what was recorded since the last call: how many operations, their records, and their messages."""
        count, self.recorded = self.recorded, 0
        return count, taken_of(&self.records), taken_of(&self.messages)

    # ---- counts

    def drain(self, int f):
        """Return what came of a type since the last call, None for nothing.

        Successes and those of the first branch of the measurement, the same of the warm-up, first call, first and last
        return and last call; and of latencies and of service times least, most, sum and counts by bucket (see `stats.hdr`).
        """
        cdef Track *t
        if not 0 <= f < TYPES:
            raise ValueError("no such type")
        t = &self.tracks[f]
        if not t.succeeded and not t.warm_succeeded:
            return None
        found = (
            t.succeeded, t.committed, t.warm_succeeded, t.warm_committed, t.first_call, t.first_return, t.last_return,
            t.last_call,
            (t.latency.least, t.latency.most, t.latency.total, counts_of(&t.latency, 11)),
            (t.service.least, t.service.most, t.service.total, counts_of(&t.service, 11)),
        )
        clear(&t.latency, BUCKETS)
        clear(&t.service, BUCKETS)
        t.succeeded = t.committed = t.warm_succeeded = t.warm_committed = 0
        t.first_call, t.last_return, t.last_call = <uint64_t>NEVER, 0, 0
        return found

    def drain_lags(self):
        """Return how many operations of an open loop were sent how late since the last call, by bucket.

        In buckets of 8 significant bits, by their least value.
        """
        found = counts_of(&self.lags, 8)
        clear(&self.lags, LAGS)
        return found
