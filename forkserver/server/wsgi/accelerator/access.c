/* The line of the access log in any format, as AccessLog.add writes it, where no field needs an escape and the line is
   short.

   A format is a list of parts, which Format.parts gives: literals, and atoms with what cannot stand there unescaped. The
   client is as the application leaves it in the environ; the rest is as it came.

   Source: Apache's mod_log_config, "Combined Log Format"; RFC 8259; RFC 3339. */
#include "exchange.h"
#include <time.h>

enum { MOST_BYTES = 2048 };  /* of a line; in what is written to a pipe a longer one is cut */

typedef struct {
    char text[MOST_BYTES];
    Py_ssize_t size;
    bool plain;
    uint64_t now;  /* of CLOCK_MONOTONIC in ns, once it was asked for */
} Line;

static void add_bytes(Line *line, const char *text, Py_ssize_t size) {
    if (size > MOST_BYTES - line->size) {
        line->plain = false;
        return;
    }
    memcpy(line->text + line->size, text, (size_t)size);
    line->size += size;
}

static void add_constant(Line *line, const char *text) { add_bytes(line, text, (Py_ssize_t)strlen(text)); }

static uint64_t now_of(Line *line) {
    if (line->now == 0)
        line->now = nanoseconds();
    return line->now;
}

/* The high bit of each byte that needs an escape, and perhaps of others behind it. */
static uint64_t to_escape(uint64_t eight) {
    uint64_t deleted = eight ^ EACH(0x7f), quote = eight ^ EACH('"'), backslash = eight ^ EACH('\\');
    return (eight | ((eight - EACH(' ')) & ~eight) | ((deleted - EACH(1)) & ~deleted) | ((quote - EACH(1)) & ~quote) |
            ((backslash - EACH(1)) & ~backslash)) & EACH(0x80);
}

static void add_checked(Line *line, const char *text, Py_ssize_t size) {
    uint64_t found = 0;
    Py_ssize_t at = 0;
    for (; size - at >= 8; at += 8) {
        uint64_t eight;
        memcpy(&eight, text + at, 8);
        found |= to_escape(eight);
    }
    if (at < size) {
        uint64_t rest = EACH(' ');
        memcpy(&rest, text + at, (size_t)(size - at));
        found |= to_escape(rest);
    }
    if (found)
        line->plain = false;
    add_bytes(line, text, size);
}

static void add_number(Line *line, Py_ssize_t number) {
    char digits[20], *from = digits + sizeof digits;
    do
        *--from = (char)('0' + number % 10);
    while (number /= 10);
    add_bytes(line, from, digits + sizeof digits - from);
}

/* The Python code writes it, in whatever format. */
static int call_log_answer(Request *request, PyObject *environ) {
    PyObject *done = PyObject_CallFunctionObjArgs(request->context->log_answer, request->connection,
                                                  (PyObject *)request, environ, NULL);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

int hand_over_lines(Context *context) {
    if (context->lines_size == 0)
        return 0;
    PyObject *lines = PyBytes_FromStringAndSize(context->lines, context->lines_size);
    if (lines == NULL)
        return -1;
    context->lines_size = 0;
    PyObject *done = PyObject_CallOneArg(context->add_lines, lines);
    Py_DECREF(lines);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Keep it for those that follow in the same second: to give each line to Python costs more than to make it. */
static int gather(Context *context, const Line *line) {
    if (context->lines_second != context->second && hand_over_lines(context) < 0)
        return -1;
    while (line->size > GATHERED_BYTES - context->lines_size)
        if (hand_over_lines(context) < 0)
            return -1;
    memcpy(context->lines + context->lines_size, line->text, (size_t)line->size);
    context->lines_size += line->size;
    context->lines_second = context->second;
    return 0;
}

/* Parts */

typedef enum {
    LITERAL,
    CLIENT,
    USER,
    HOST_NAME,
    REQUEST_LINE,
    METHOD,
    PATH,
    QUERY,
    PROTOCOL,
    REFERER_TEXT,
    AGENT_TEXT,
    ID,
    REQUEST_FIELD,
    ANSWER_FIELD,
    VARIABLE,
    STATUS,
    SIZE,
    SIZE_IF_ANY,
    DATE,
    TIME,
    SECONDS,
    MILLISECONDS,
    MICROSECONDS,
    DECIMAL_SECONDS,
    WAITED_SECONDS,
    CALLED_SECONDS,
} What;

static const struct {
    const char *atom;
    What what;
} ATOMS[] = {
    {"h", CLIENT}, {"u", USER}, {"host", HOST_NAME}, {"r", REQUEST_LINE}, {"m", METHOD}, {"U", PATH}, {"q", QUERY},
    {"H", PROTOCOL}, {"f", REFERER_TEXT}, {"a", AGENT_TEXT}, {"id", ID}, {"i", REQUEST_FIELD}, {"o", ANSWER_FIELD},
    {"e", VARIABLE}, {"s", STATUS}, {"B", SIZE}, {"b", SIZE_IF_ANY}, {"t", DATE}, {"time", TIME}, {"T", SECONDS},
    {"M", MILLISECONDS}, {"D", MICROSECONDS}, {"L", DECIMAL_SECONDS}, {"wait", WAITED_SECONDS}, {"app", CALLED_SECONDS},
};

/* Its text belongs to the tuple of which it is made. */
static int set_part(LinePart *part, PyObject *item) {
    const char *atom, *marks;
    Py_ssize_t size;
    PyObject *name;
    if (PyBytes_CheckExact(item)) {
        *part = (LinePart){.what = LITERAL, .text = {PyBytes_AS_STRING(item), PyBytes_GET_SIZE(item)}};
        return 0;
    }
    if (!PyTuple_CheckExact(item)) {
        PyErr_Format(PyExc_TypeError, "%R is no part of a line", item);
        return -1;
    }
    if (!PyArg_ParseTuple(item, "sz#O;a part must be (atom, marks, name)", &atom, &marks, &size, &name))
        return -1;
    for (size_t number = 0; number < sizeof ATOMS / sizeof *ATOMS; number++)
        if (strcmp(atom, ATOMS[number].atom) == 0)
            *part = (LinePart){.what = ATOMS[number].what, .json = marks == NULL, .text = {marks, size}, .name = name};
    bool named = part->what == REQUEST_FIELD || part->what == ANSWER_FIELD;
    if (part->what == LITERAL || (named && !PyBytes_CheckExact(name)) ||
        (part->what == VARIABLE && !PyUnicode_CheckExact(name))) {
        PyErr_Format(PyExc_ValueError, "%R is no part of a line that is known here", item);
        return -1;
    }
    return 0;
}

int set_line_parts(Context *context, PyObject *parts) {
    Py_ssize_t count = PyTuple_GET_SIZE(parts);
    context->line_parts = PyMem_Calloc((size_t)count + 1, sizeof(LinePart));
    if (context->line_parts == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    context->parts = Py_NewRef(parts);
    for (Py_ssize_t at = 0; at < count; at++)
        if (set_part(&context->line_parts[at], PyTuple_GET_ITEM(parts, at)) < 0)
            return -1;
    return 0;
}

/* As the part shows it: in JSON a string, or null where there is none. */
static void add_value(Line *line, const LinePart *part, const char *text, Py_ssize_t size) {
    if (size == 0) {
        add_constant(line, part->json ? "null" : "-");
        return;
    }
    for (Py_ssize_t at = 0; !part->json && at < part->text.size; at++)
        if (memchr(text, part->text.at[at], (size_t)size) != NULL)
            line->plain = false;  /* it would divide the field */
    if (part->json)
        add_constant(line, "\"");
    add_checked(line, text, size);
    if (part->json)
        add_constant(line, "\"");
}

/* A str, or NULL for none. */
static void add_object(Line *line, const LinePart *part, PyObject *text) {
    if (text == NULL)
        add_value(line, part, NULL, 0);
    else if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_COMPACT_ASCII(text))
        line->plain = false;
    else
        add_value(line, part, (const char *)PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text));
}

static int add_variable(Line *line, const LinePart *part, PyObject *environ, PyObject *key) {
    PyObject *value = Py_XNewRef(PyDict_GetItemWithError(environ, key));  /* a key of the application's may run its code */
    if (value == NULL && PyErr_Occurred())
        return -1;
    add_object(line, part, value);
    Py_XDECREF(value);
    return 0;
}

/* The value of a field among the lines of ``text``; several with that name are left to the Python code. */
static void add_field(Line *line, const LinePart *part, const char *text, Py_ssize_t size) {
    const char *end = text + size, *name = PyBytes_AS_STRING(part->name);
    Span value = {NULL, 0};
    while (text < end) {
        const char *feed = memchr(text, '\n', (size_t)(end - text)), *last = feed ? feed : end;
        const char *colon = memchr(text, ':', (size_t)(last - text));
        if (colon != NULL && equals_ignoring_case(text, colon - text, name)) {
            if (value.at != NULL)
                line->plain = false;
            for (value.at = colon + 1; value.at < last && (*value.at == ' ' || *value.at == '\t'); value.at++)
                continue;
            while (last > value.at && (last[-1] == ' ' || last[-1] == '\t' || last[-1] == '\r'))
                last--;
            value.size = last - value.at;
        }
        text = feed ? feed + 1 : end;
    }
    add_value(line, part, value.at, value.size);
}

static void add_answer_field(Line *line, const LinePart *part, const Request *request) {
    if (strcmp(PyBytes_AS_STRING(part->name), "content-length") != 0)
        add_field(line, part, request->answer.text, request->text_size);
    else if (request->length < 0)
        add_value(line, part, NULL, 0);
    else
        add_number(line, request->length);
}

static void add_digits(Line *line, unsigned long long number, int count) {
    char digits[20];
    for (int at = count; at-- > 0; number /= 10)
        digits[at] = (char)('0' + number % 10);
    add_bytes(line, digits, count);
}

static uint64_t microseconds(uint64_t since, uint64_t until) { return until > since ? (until - since) / 1000 : 0; }

static void add_seconds(Line *line, uint64_t since, uint64_t until) {
    uint64_t passed = microseconds(since, until);
    add_number(line, (Py_ssize_t)(passed / 1000000));
    add_constant(line, ".");
    add_digits(line, passed % 1000000, 6);
}

static void add_time(Line *line) {
    struct timespec now;
    struct tm at;
    if (clock_gettime(CLOCK_REALTIME, &now) < 0 || gmtime_r(&now.tv_sec, &at) == NULL || at.tm_year > 8099) {
        line->plain = false;
        return;
    }
    const int numbers[] = {at.tm_mon + 1, at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec};
    add_digits(line, (unsigned long long)at.tm_year + 1900, 4);
    for (int number = 0; number < 5; number++) {
        add_bytes(line, &"--T::"[number], 1);
        add_digits(line, (unsigned long long)numbers[number], 2);
    }
    add_constant(line, ".");
    add_digits(line, (unsigned long long)now.tv_nsec / 1000000, 3);
    add_constant(line, "Z");
}

static void add_target(Line *line, const LinePart *part, const Request *request) {
    const char *raw = PyBytes_AS_STRING(request->raw), *end = raw + request->line_size;
    const char *target = raw + PyUnicode_GET_LENGTH(request->method) + 1;
    const char *question = memchr(target, '?', (size_t)(end - target));
    if (part->what == PATH)
        add_value(line, part, target, (question ? question : end) - target);
    else
        add_value(line, part, question ? question + 1 : end, question ? end - question - 1 : 0);
}

static int add_part(Line *line, const LinePart *part, const Request *request, PyObject *environ, Py_ssize_t sent) {
    const char *raw = PyBytes_AS_STRING(request->raw);
    Py_ssize_t size = request->line_size;
    State *state = request->context->state;
    switch ((What)part->what) {
    case LITERAL: add_bytes(line, part->text.at, part->text.size); break;
    case CLIENT: return add_variable(line, part, environ, state->remote_addr);
    case USER: return add_variable(line, part, environ, state->remote_user);
    case HOST_NAME: return add_variable(line, part, environ, state->http_host);
    case VARIABLE: return add_variable(line, part, environ, part->name);
    case REQUEST_LINE: add_value(line, part, raw, size + 9); break;  /* with a blank and the protocol */
    case METHOD: add_value(line, part, raw, PyUnicode_GET_LENGTH(request->method)); break;
    case PATH:
    case QUERY: add_target(line, part, request); break;
    case PROTOCOL: add_value(line, part, raw + size + 1, 8); break;
    case REFERER_TEXT: add_object(line, part, request->referer); break;
    case AGENT_TEXT: add_object(line, part, request->agent); break;
    case ID: add_object(line, part, request->id); break;
    case REQUEST_FIELD: add_field(line, part, raw + size, PyBytes_GET_SIZE(request->raw) - size); break;
    case ANSWER_FIELD: add_answer_field(line, part, request); break;
    case STATUS: add_number(line, request->code); break;
    case SIZE: add_number(line, sent); break;
    case SIZE_IF_ANY:
        if (sent)
            add_number(line, sent);
        else
            add_constant(line, "-");
        break;
    case DATE: add_constant(line, request->context->log_date); break;
    case TIME: add_time(line); break;
    case SECONDS: add_number(line, (Py_ssize_t)(microseconds(request->whole_since, now_of(line)) / 1000000)); break;
    case MILLISECONDS: add_number(line, (Py_ssize_t)(microseconds(request->whole_since, now_of(line)) / 1000)); break;
    case MICROSECONDS: add_number(line, (Py_ssize_t)microseconds(request->whole_since, now_of(line))); break;
    case DECIMAL_SECONDS: add_seconds(line, request->whole_since, now_of(line)); break;
    case WAITED_SECONDS:
    case CALLED_SECONDS:
        if (request->began == 0)  /* there is no scoreboard, and no time in it */
            line->plain = false;
        else if (part->what == WAITED_SECONDS)
            add_seconds(line, request->whole_since, request->began);
        else
            add_seconds(line, request->began, now_of(line));
    }
    return 0;
}

int log_request(Request *request, PyObject *environ, Py_ssize_t sent) {
    Context *context = request->context;
    Line line = {.size = 0, .plain = true, .now = 0};
    if (context->add_lines == NULL)
        return call_log_answer(request, environ);
    context_date(context);
    Py_ssize_t count = PyTuple_GET_SIZE(context->parts);
    for (Py_ssize_t at = 0; at < count && line.plain; at++)
        if (add_part(&line, &context->line_parts[at], request, environ, sent) < 0)
            return -1;
    if (!line.plain)
        return call_log_answer(request, environ);
    return gather(context, &line);
}
