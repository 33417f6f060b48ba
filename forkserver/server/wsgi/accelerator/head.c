/* Bytes to the parts of a plain request head.

   A plain head is whole, with nothing behind it; announces no body; and has nothing that two readers could understand
   differently. ``read_plain_head`` says false for every other one, right or wrong. It reads no byte outside ``data``,
   and needs time in proportion to its size.

   Browsers and proxies send the same few lines again and again. The last ones are remembered with the text that was
   made of their values, at a place that follows from their first bytes, or beside it; a line that is equal to one of
   them, to its CRLF, needs no reading. A new line takes its place, and the one that had it the place beside it. What a
   field means for its head is asked anew.

   Source: RFC 9112 sections 2, 3 and 9.3, RFC 9110 sections 5 and 7; W3C Trace Context, section 3.2. */
#include "exchange.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { TRACE_BYTES = 55 };  /* of a traceparent */

const char *const METHOD_NAMES[METHODS] = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"};


/* Whether ``text`` may be a field's value; ``ascii`` says whether it is ASCII. */
static bool is_value(const char *text, Py_ssize_t size, bool *ascii) {
    uint64_t seen = 0;
    while (size >= 8) {
        uint64_t eight, deleted;
        memcpy(&eight, text, 8);
        deleted = eight ^ EACH(0x7f);
        uint64_t controls = (eight - EACH(0x20)) & ~eight;
        if ((controls | ((deleted - EACH(1)) & ~deleted)) & EACH(0x80)) {  /* HTAB, or what may not stand there */
            for (int at = 0; at < 8; at++)
                if (!is((unsigned char)text[at], IN_VALUE))
                    return false;
        }
        seen |= eight;
        text += 8;
        size -= 8;
    }
    for (; size > 0; size--, text++) {
        if (!is((unsigned char)*text, IN_VALUE))
            return false;
        seen |= (unsigned char)*text;
    }
    *ascii = !(seen & EACH(0x80));
    return true;
}

static bool is_number(const char *text, Py_ssize_t size, long most) {
    long number = 0;
    if (size > 5)
        return false;
    for (Py_ssize_t at = 0; at < size; at++) {
        if (!is((unsigned char)text[at], DIGIT))
            return false;
        number = number * 10 + (text[at] - '0');
    }
    return number <= most;
}

/* Copy ``text`` for functions that want a NUL behind it. */
static bool copy_text(char *to, size_t room, const char *text, Py_ssize_t size) {
    if (size <= 0 || (size_t)size >= room)
        return false;
    memcpy(to, text, (size_t)size);
    to[size] = 0;
    return true;
}

static bool is_ipv6(const char *text, Py_ssize_t size, struct in6_addr *address) {
    char copy[INET6_ADDRSTRLEN];
    return copy_text(copy, sizeof copy, text, size) && !memchr(copy, '.', (size_t)size) &&
           inet_pton(AF_INET6, copy, address) == 1;
}

/* A name or an address, with a port or without; rarer ones are declined. */
static bool is_plain_host(const char *text, Py_ssize_t size) {
    const char *at = text, *end = text + size;
    if (size && *text == '[') {
        struct in6_addr address;
        at = memchr(text, ']', (size_t)size);
        if (at == NULL || !is_ipv6(text + 1, at - text - 1, &address))
            return false;
        at++;
    } else {
        while (at < end && is((unsigned char)*at, IN_HOST))
            at++;
        if (at == text)
            return false;
    }
    return at == end || (*at == ':' && is_number(at + 1, end - at - 1, 65535));
}

/* Four numbers up to 255, without a zero before them. */
static bool is_plain_ipv4(const char *text, Py_ssize_t size) {
    const char *end = text + size;
    for (int part = 0; part < 4; part++) {
        const char *dot = part < 3 ? memchr(text, '.', (size_t)(end - text)) : end;
        if (dot == NULL || dot == text || dot - text > 3 || !is_number(text, dot - text, 255) ||
            (*text == '0' && dot - text > 1))
            return false;
        text = dot + (part < 3);
    }
    return true;
}

/* An address in the one form in which it is shown. */
static bool is_plain_address(const char *text, Py_ssize_t size) {
    char shown[INET6_ADDRSTRLEN];
    struct in6_addr six;
    return is_plain_ipv4(text, size) || (is_ipv6(text, size, &six) &&
                                         inet_ntop(AF_INET6, &six, shown, sizeof shown) && equals(text, size, shown));
}

/* Take the request line up to its CRLF apart; NULL, or where the fields begin. */
static const char *read_line(const char *data, const char *end, Py_ssize_t most, Head *head) {
    const char *at = memchr(data, ' ', (size_t)(end - data < 8 ? end - data : 8));
    if (at == NULL)
        return NULL;
    Py_ssize_t size = at - data;
    for (head->method = 0; head->method < METHODS; head->method++)
        if (equals(data, size, METHOD_NAMES[head->method]))
            break;
    const char *target = ++at, *question = NULL;
    if (head->method == METHODS || at == end || *at != '/')
        return NULL;
    head->escaped = false;
    for (; at < end && is((unsigned char)*at, IN_TARGET); at++) {
        if (*at == '?' && question == NULL)
            question = at;
        else if (*at == '%')
            head->escaped = true;
    }
    if (end - at < 11 || memcmp(at, " HTTP/1.", 8) || (at[8] != '1' && at[8] != '0') || memcmp(at + 9, "\r\n", 2))
        return NULL;
    if (at + 9 - data > most)
        return NULL;
    head->line = (Span){data, at - data};
    head->target = (Span){target, at - target};
    head->path = (Span){target, (question ? question : at) - target};
    head->query = question ? (Span){question + 1, at - question - 1} : (Span){at, 0};
    head->http11 = head->persistent = at[8] == '1';
    return at + 11;
}

/* What a proxy says of its client in ``field``. */
static bool read_forwarded(Head *head, const Field *field, Kind kind) {
    if (kind == FORWARDED_FOR) {
        if (!is_plain_address(field->value.at, field->value.size))
            return false;
        head->client = field->value;
    } else if (equals_ignoring_case(field->value.at, field->value.size, "https")) {
        head->https = 1;
    } else if (equals_ignoring_case(field->value.at, field->value.size, "http")) {
        head->https = 0;
    } else {
        return false;
    }
    return true;
}

static bool is_hex(const char *text, int size) {
    for (int at = 0; at < size; at++)
        if (!is((unsigned char)text[at], DIGIT) && (text[at] < 'a' || text[at] > 'f'))
            return false;
    return true;
}

static bool is_zero(const char *text, int size) {
    for (int at = 0; at < size; at++)
        if (text[at] != '0')
            return false;
    return true;
}

/* The trace id of VERSION-TRACE-PARENT-FLAGS; only a version after 00 may have more behind that. */
static bool read_trace(Span value, Span *id) {
    const char *at = value.at;
    if (value.size < TRACE_BYTES || at[2] != '-' || at[35] != '-' || at[52] != '-' || !is_hex(at, 2) ||
        !is_hex(at + 3, 32) || !is_hex(at + 36, 16) || !is_hex(at + 53, 2))
        return false;
    if (memcmp(at, "ff", 2) == 0 || is_zero(at + 3, 32) || is_zero(at + 36, 16))
        return false;
    if (value.size > TRACE_BYTES && (at[TRACE_BYTES] != '-' || is_zero(at, 2)))
        return false;
    *id = (Span){at + 3, 32};
    return true;
}

/* The id in a field; false where it cannot be one. */
static bool read_id(Span value, Kind kind, Span *id) {
    if (kind == TRACEPARENT)
        return read_trace(value, id);
    if (value.size < 1 || value.size > ID_BYTES)
        return false;
    for (Py_ssize_t at = 0; at < value.size; at++)
        if (!is((unsigned char)value.at[at], IN_ID))
            return false;
    *id = value;
    return true;
}

/* Take the id in ``field``, unless one that goes before it was found. */
static void take_id(Head *head, const Field *field, const Rules *rules, Kind kind) {
    int rank = rules->id_rank[kind - REQUEST_ID];
    if (rank && (head->id_rank == 0 || rank < head->id_rank) && read_id(field->value, kind, &head->id))
        head->id_rank = rank;
}

static bool read_connection(Head *head, const Field *field) {
    if (equals_ignoring_case(field->value.at, field->value.size, "close"))
        head->persistent = false;
    else if (equals_ignoring_case(field->value.at, field->value.size, "keep-alive"))
        head->persistent = true;
    else
        return false;
    return true;
}

/* One field's line up to its CRLF; NULL, or where the next one begins. */
static const char *read_field(const char *at, const char *end, const Rules *rules, const NameTable *names,
                              Field *field) {
    char name[NAME_BYTES];
    unsigned hash = 0;
    Py_ssize_t size = 0;
    const char *start = at;
    for (; at < end && is((unsigned char)*at, IN_NAME); at++, size++) {
        if (size < NAME_BYTES) {
            name[size] = lower((unsigned char)*at);
            hash = next_hash(hash, name[size]);
        }
    }
    if (size == 0 || at == end || *at != ':')
        return NULL;
    field->name = (Span){start, size};
    field->known = size < NAME_BYTES ? find_name(names, name, size, hash) : -1;
    const char *value = at + 1, *stop = memchr(value, '\r', (size_t)(end - value));
    if (stop == NULL || end - stop < 2 || stop[1] != '\n' || stop - start > rules->field_size)
        return NULL;
    if (!is_value(value, stop - value, &field->ascii))
        return NULL;
    at = stop + 2;
    while (value < stop && (*value == ' ' || *value == '\t'))
        value++;
    while (stop > value && (stop[-1] == ' ' || stop[-1] == '\t'))
        stop--;
    field->value = (Span){value, stop - value};
    field->size = at - start;
    field->text = NULL;
    return at;
}

static bool is_line(const FieldLine *line, const char *at, const char *end) {
    return line->size != 0 && line->size <= end - at && memcmp(line->line, at, (size_t)line->size) == 0;
}

/* Take the field whose line came before, to the byte; NULL, or where the next one begins. */
static const char *recall_field(const char *at, const char *end, FieldLine *lines, Field *field) {
    if (end - at < PLACE_BYTES)
        return NULL;
    unsigned place = place_of(at);
    const FieldLine *line = &lines[place];
    if (!is_line(line, at, end)) {
        line = &lines[place ^ 1];
        if (!is_line(line, at, end))
            return NULL;
    }
    field->name = (Span){at, 0};
    field->value = (Span){at + line->value_at, line->value_size};
    field->known = line->known;
    field->ascii = false;
    field->size = line->size;
    field->text = line->text;
    return at + line->size;
}

/* Of a field that was read, with the text that was made of its value. */
void remember_line(FieldLine *lines, const Field *field, PyObject *text) {
    if (field->text != NULL || field->known < 0 || !KNOWN_NAMES[field->known].repeats || field->size < PLACE_BYTES ||
        field->size > LINE_TEXT)
        return;
    unsigned place = place_of(field->name.at);
    FieldLine *line = &lines[place];
    Py_XSETREF(lines[place ^ 1].text, NULL);
    lines[place ^ 1] = *line;
    line->text = NULL;
    line->size = (int)field->size;
    line->known = field->known;
    line->value_at = (int)(field->value.at - field->name.at);
    line->value_size = (int)field->value.size;
    memcpy(line->line, field->name.at, (size_t)field->size);
    line->text = Py_NewRef(text);
}

/* Note what ``field`` means, if anything; whether it is plain. ``kept`` says whether it stays. */
static bool take_field(Head *head, const Field *field, const Rules *rules, bool trusted, bool *has_host, bool *kept) {
    Kind kind = field->known < 0 ? ORDINARY : KNOWN_NAMES[field->known].kind;
    Forwarding forwarding = KEPT;
    *kept = true;
    switch (kind) {
    case NEVER_PLAIN:
        return false;
    case HOST:
        *has_host = true;
        return field->text != NULL || is_plain_host(field->value.at, field->value.size);
    case CONNECTION:
        return read_connection(head, field);
    case FORWARDED_FOR:
    case FORWARDED_PROTO:
    case FORWARDED_HOST:
    case FORWARDED_PORT:
    case FORWARDED:
        if (rules->trust)
            forwarding = trusted ? rules->forwarded[kind - FORWARDED_FOR] : DECLINED;
        *kept = forwarding != DROPPED;
        return forwarding == READ ? read_forwarded(head, field, kind) : forwarding != DECLINED;
    case REQUEST_ID:
    case CORRELATION_ID:
    case TRACEPARENT:
    case AMZN_TRACE_ID:
        if (trusted)
            take_id(head, field, rules, kind);
        return true;
    default:
        return true;
    }
}

bool read_plain_head(const char *data, Py_ssize_t size, const Rules *rules, bool trusted, const NameTable *names,
                     FieldLine *lines, Head *head) {
    if (size < 4 || size > rules->head || memcmp(data + size - 4, "\r\n\r\n", 4))
        return false;
    const char *end = data + size - 2, *at = read_line(data, end, rules->request_line, head);
    bool has_host = false, kept;
    head->client = (Span){NULL, 0};
    head->id_rank = 0;
    head->https = -1;
    head->count = 0;
    for (Py_ssize_t count = 0; at != NULL && at != end; count++) {
        if (count == rules->fields || head->count == MOST_FIELDS)
            return false;
        Field *field = &head->fields[head->count];
        const char *next = recall_field(at, end, lines, field);
        at = next != NULL ? next : read_field(at, end, rules, names, field);
        if (at == NULL || !take_field(head, field, rules, trusted, &has_host, &kept))
            return false;
        head->count += kept;
    }
    return at != NULL && (has_host || !head->http11);
}
