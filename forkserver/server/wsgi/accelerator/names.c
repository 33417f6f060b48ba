/* Classes of characters, and the names of fields that are looked up.

   The table of names is filled once, from constants: what clients send adds nothing to it. A name that is not in it is
   as plain as one that is, and costs a little more.

   Source: RFC 9110 sections 5.1 and 5.6.2; RFC 3986 section 3.2.2 for Host. */
#include "exchange.h"

#define VISIBLE (IN_VALUE | IN_TARGET)
#define TOKEN (VISIBLE | IN_TOKEN | IN_NAME)
#define BOTH (TOKEN | IN_HOST)

const unsigned char CLASS[256] = {
    ['\t'] = IN_VALUE, [' '] = IN_VALUE, ['#'] = IN_VALUE | IN_TOKEN | IN_NAME, ['"'] = VISIBLE, [','] = VISIBLE,
    ['/'] = VISIBLE | IN_ID, [':'] = VISIBLE | IN_ID, ['<'] = VISIBLE, ['>' ... '?'] = VISIBLE, ['@'] = VISIBLE | IN_ID,
    ['[' ... ']'] = VISIBLE, ['{'] = VISIBLE, ['}'] = VISIBLE, ['('] = VISIBLE | IN_HOST, [')'] = VISIBLE | IN_HOST,
    [';'] = VISIBLE | IN_HOST | IN_ID, ['='] = VISIBLE | IN_HOST | IN_ID, ['%'] = TOKEN, ['^'] = TOKEN, ['`'] = TOKEN,
    ['|'] = TOKEN, ['!'] = BOTH, ['$'] = BOTH, ['&'] = BOTH, ['\''] = BOTH, ['*'] = BOTH, ['+'] = BOTH | IN_ID,
    ['-'] = BOTH | IN_ID, ['.'] = BOTH | IN_ID, ['~'] = BOTH | IN_ID, ['_'] = VISIBLE | IN_TOKEN | IN_HOST | IN_ID,
    ['0' ... '9'] = BOTH | DIGIT | IN_ID, ['A' ... 'Z'] = BOTH | UPPER | IN_ID, ['a' ... 'z'] = BOTH | IN_ID,
    [0x80 ... 0xff] = IN_VALUE,
};

const KnownName KNOWN_NAMES[] = {
    {"accept", ORDINARY}, {"accept-charset", ORDINARY}, {"accept-encoding", ORDINARY}, {"accept-language", ORDINARY},
    {"authorization", ORDINARY}, {"cache-control", ORDINARY}, {"cf-connecting-ip", ORDINARY}, {"cf-ray", ORDINARY},
    {"connection", CONNECTION}, {"content-length", NEVER_PLAIN}, {"content-type", ORDINARY}, {"cookie", ORDINARY},
    {"dnt", ORDINARY}, {"expect", NEVER_PLAIN}, {"forwarded", FORWARDED}, {"from", ORDINARY}, {"host", HOST},
    {"if-match", ORDINARY}, {"if-modified-since", ORDINARY}, {"if-none-match", ORDINARY}, {"keep-alive", ORDINARY},
    {"origin", ORDINARY}, {"pragma", ORDINARY}, {"priority", ORDINARY}, {"proxy", NEVER_PLAIN}, {"range", ORDINARY},
    {"referer", REFERER}, {"sec-ch-ua", ORDINARY}, {"sec-ch-ua-mobile", ORDINARY}, {"sec-ch-ua-platform", ORDINARY},
    {"sec-fetch-dest", ORDINARY}, {"sec-fetch-mode", ORDINARY}, {"sec-fetch-site", ORDINARY},
    {"sec-fetch-user", ORDINARY}, {"sec-gpc", ORDINARY}, {"te", ORDINARY}, {"traceparent", TRACEPARENT},
    {"tracestate", ORDINARY}, {"transfer-encoding", NEVER_PLAIN}, {"upgrade", ORDINARY},
    {"upgrade-insecure-requests", ORDINARY}, {"user-agent", USER_AGENT}, {"via", ORDINARY},
    {"x-amzn-trace-id", AMZN_TRACE_ID}, {"x-correlation-id", CORRELATION_ID}, {"x-csrftoken", ORDINARY},
    {"x-forwarded-for", FORWARDED_FOR},
    {"x-forwarded-host", FORWARDED_HOST}, {"x-forwarded-port", FORWARDED_PORT}, {"x-forwarded-proto", FORWARDED_PROTO},
    {"x-real-ip", ORDINARY}, {"x-request-id", REQUEST_ID}, {"x-requested-with", ORDINARY},
};
const int KNOWN_COUNT = sizeof KNOWN_NAMES / sizeof *KNOWN_NAMES;

static unsigned hash_of(const char *name) {
    unsigned hash = 0;
    while (*name)
        hash = next_hash(hash, *name++);
    return hash;
}

void fill_name_table(NameTable *table) {
    memset(table, 0, sizeof *table);
    for (int number = 0; number < KNOWN_COUNT; number++) {
        unsigned slot = hash_of(KNOWN_NAMES[number].name) % NAME_SLOTS;
        while (table->slots[slot])
            slot = (slot + 1) % NAME_SLOTS;
        table->slots[slot] = (unsigned char)(number + 1);
    }
}

int find_name(const NameTable *table, const char *name, Py_ssize_t size, unsigned hash) {
    for (unsigned slot = hash % NAME_SLOTS; table->slots[slot]; slot = (slot + 1) % NAME_SLOTS) {
        if (equals(name, size, KNOWN_NAMES[table->slots[slot] - 1].name))
            return table->slots[slot] - 1;
    }
    return -1;
}

bool equals_ignoring_case(const char *text, Py_ssize_t size, const char *lower_case) {
    for (Py_ssize_t at = 0; at < size; at++)
        if (lower((unsigned char)text[at]) != lower_case[at])  /* a NUL ends a comparison with a longer text, too */
            return false;
    return lower_case[size] == 0;
}
