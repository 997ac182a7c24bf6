/* Header blocks of requests, as far as a server needs them that asks for the path alone (RFC 7541).
 *
 * `static_fields` (from 1) and `huffman` (by length) come from hpack_tables.h, which Python writes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hpack_tables.h"

enum { TABLE = 4096, ENTRIES = TABLE / 32, TEXT = 1 << 16, STATIC = sizeof static_fields / sizeof *static_fields };

struct text {
    const char *at;
    size_t size;
};
struct field {
    struct text name, value;
};
/* The dynamic table of one connection, the newest entry first. */
struct table {
    struct field fields[ENTRIES];
    size_t count, size, most;
};
struct reader {
    const unsigned char *at, *end;
    char *scratch;
    size_t free;
};

static int read_int(struct reader *r, uint32_t bits, uint32_t *value) {
    if (r->at >= r->end) return -1;
    uint32_t most = (1u << bits) - 1, shift = 0;
    *value = *r->at++ & most;
    if (*value < most) return 0;
    for (; r->at < r->end && shift < 28; shift += 7) {
        *value += (uint32_t)(*r->at & 127) << shift;
        if (!(*r->at++ & 128)) return 0;
    }
    return -1;
}

/* Decode Huffman's code into the scratch; what is left at the end is padding. */
static int unpack(struct reader *r, uint32_t size, struct text *text) {
    const unsigned char *end = r->at + size;
    text->at = r->scratch;
    text->size = 0;
    uint32_t code = 0;
    int bits = 0, row = 0;
    for (; r->at < end; r->at++)
        for (int bit = 7; bit >= 0; bit--) {
            code = code << 1 | (*r->at >> bit & 1);
            bits++;
            while (row < 257 && huffman[row].bits < bits) row++;
            for (int n = row; n < 257 && huffman[n].bits == bits; n++)
                if (huffman[n].code == code) {
                    if (text->size == r->free || huffman[n].symbol == 256) return -1;
                    r->scratch[text->size++] = (char)huffman[n].symbol;
                    code = 0, bits = row = 0;
                    break;
                }
        }
    r->scratch += text->size;
    r->free -= text->size;
    return bits < 8 ? 0 : -1;
}

static int read_text(struct reader *r, struct text *text) {
    if (r->at >= r->end) return -1;
    int packed = *r->at & 128;
    uint32_t size;
    if (read_int(r, 7, &size) || size > (size_t)(r->end - r->at)) return -1;
    if (packed) return unpack(r, size, text);
    *text = (struct text){(const char *)r->at, size};
    r->at += size;
    return 0;
}

static int look_up(const struct table *table, uint32_t index, struct field *field) {
    if (index >= 1 && index < STATIC) {
        const char *const *known = static_fields[index];
        *field = (struct field){{known[0], strlen(known[0])}, {known[1], strlen(known[1])}};
        return 0;
    }
    if (!index || index - STATIC >= table->count) return -1;
    *field = table->fields[index - STATIC];
    return 0;
}

static void shrink(struct table *table, size_t most) {
    while (table->size > most) {
        struct field *last = &table->fields[--table->count];
        table->size -= last->name.size + last->value.size + 32;
        free((char *)last->name.at); /* the value lies behind it */
    }
}

static void add(struct table *table, const struct field *field) {
    size_t size = field->name.size + field->value.size + 32;
    if (size > table->most) {
        shrink(table, 0);
        return;
    }
    char *kept = malloc(size);
    memcpy(kept, field->name.at, field->name.size);
    memcpy(kept + field->name.size, field->value.at, field->value.size);
    shrink(table, table->most - size);
    memmove(table->fields + 1, table->fields, table->count++ * sizeof *table->fields);
    table->fields[0] = (struct field){{kept, field->name.size}, {kept + field->name.size, field->value.size}};
    table->size += size;
}

/* Find the path in a header block, and take note of the rest; the path is empty where there is none. -1: malformed. */
static int find_path(struct table *table, const unsigned char *block, size_t size, char *path, size_t room) {
    static char scratch[TEXT];
    struct reader r = {block, block + size, scratch, TEXT};
    path[0] = 0;
    while (r.at < r.end) {
        unsigned char first = *r.at;
        uint32_t index;
        struct field field;
        if ((first & 0xe0) == 0x20) {
            if (read_int(&r, 5, &index) || index > TABLE) return -1;
            table->most = index;
            shrink(table, index);
            continue;
        }
        int kept = (first & 0xc0) == 0x40;
        if (read_int(&r, first & 0x80 ? 7 : kept ? 6 : 4, &index)) return -1;
        if (first & 0x80) {
            if (look_up(table, index, &field)) return -1;
        } else {
            if (index ? look_up(table, index, &field) : read_text(&r, &field.name)) return -1;
            if (read_text(&r, &field.value)) return -1;
        }
        if (field.name.size == 5 && !memcmp(field.name.at, ":path", 5) && field.value.size < room) {
            memcpy(path, field.value.at, field.value.size);
            path[field.value.size] = 0;
        }
        if (kept) add(table, &field);
    }
    return 0;
}
