/* Classes of characters, and the names of fields that are looked up.

   The table of names is filled once, from constants: what clients send adds nothing to it. A name that is not in it is
   as plain as one that is, and costs a little more.

   Fields in which many clients say the same have ``true``: their lines are remembered. Cookies and passwords are not:
   how long a comparison takes would tell of another client's.

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
    {"accept", ORDINARY, true}, {"accept-charset", ORDINARY, true}, {"accept-encoding", ORDINARY, true},
    {"accept-language", ORDINARY, true}, {"authorization", ORDINARY, false}, {"cache-control", ORDINARY, true},
    {"cf-connecting-ip", ORDINARY, false}, {"cf-ray", ORDINARY, false}, {"connection", CONNECTION, true},
    {"content-length", NEVER_PLAIN, false}, {"content-type", ORDINARY, true}, {"cookie", ORDINARY, false},
    {"dnt", ORDINARY, true}, {"expect", NEVER_PLAIN, false}, {"forwarded", FORWARDED, false},
    {"from", ORDINARY, false}, {"host", HOST, true}, {"if-match", ORDINARY, false},
    {"if-modified-since", ORDINARY, false}, {"if-none-match", ORDINARY, false}, {"keep-alive", ORDINARY, true},
    {"origin", ORDINARY, true}, {"pragma", ORDINARY, true}, {"priority", ORDINARY, true},
    {"proxy", NEVER_PLAIN, false}, {"range", ORDINARY, false}, {"referer", REFERER, false},
    {"sec-ch-ua", ORDINARY, true}, {"sec-ch-ua-mobile", ORDINARY, true}, {"sec-ch-ua-platform", ORDINARY, true},
    {"sec-fetch-dest", ORDINARY, true}, {"sec-fetch-mode", ORDINARY, true}, {"sec-fetch-site", ORDINARY, true},
    {"sec-fetch-user", ORDINARY, true}, {"sec-gpc", ORDINARY, true}, {"te", ORDINARY, true},
    {"traceparent", TRACEPARENT, false}, {"tracestate", ORDINARY, false}, {"transfer-encoding", NEVER_PLAIN, false},
    {"upgrade", ORDINARY, false}, {"upgrade-insecure-requests", ORDINARY, true}, {"user-agent", USER_AGENT, true},
    {"via", ORDINARY, true}, {"x-amzn-trace-id", AMZN_TRACE_ID, false}, {"x-correlation-id", CORRELATION_ID, false},
    {"x-csrftoken", ORDINARY, false}, {"x-forwarded-for", FORWARDED_FOR, false},
    {"x-forwarded-host", FORWARDED_HOST, true}, {"x-forwarded-port", FORWARDED_PORT, true},
    {"x-forwarded-proto", FORWARDED_PROTO, true}, {"x-real-ip", ORDINARY, false}, {"x-request-id", REQUEST_ID, false},
    {"x-requested-with", ORDINARY, true},
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
