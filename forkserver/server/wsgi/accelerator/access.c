/* The line of the access log in combined format, as AccessLog.add writes it, or in JSON, as JsonFormat; where no field
   needs an escape and the line is short.

   The client is as the application leaves it in the environ; the rest is as it came.

   Source: Apache's mod_log_config, "Combined Log Format"; RFC 8259; RFC 3339. */
#include "exchange.h"
#include <time.h>

enum { MOST_BYTES = 2048 };  /* of a line; in what is written to a pipe a longer one is cut */

typedef struct {
    char text[MOST_BYTES];
    Py_ssize_t size;
    bool plain;
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

/* A str, or NULL for none. */
static void add_text(Line *line, PyObject *text) {
    if (text == NULL) {
        add_constant(line, "-");
        return;
    }
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_COMPACT_ASCII(text))
        line->plain = false;
    else if (PyUnicode_GET_LENGTH(text) == 0)
        add_constant(line, "-");
    else
        add_checked(line, (const char *)PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text));
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

static void write_combined(Line *line, const Request *request, PyObject *peer, PyObject *user, Py_ssize_t sent) {
    if (user != NULL && PyUnicode_CheckExact(user) && PyUnicode_FindChar(user, ' ', 0, PY_SSIZE_T_MAX, 1) >= 0)
        line->plain = false;  /* it would divide the field */
    add_text(line, peer);
    add_constant(line, " - ");
    add_text(line, user);
    add_constant(line, " ");
    add_constant(line, request->context->log_date);
    add_constant(line, "\"");
    add_checked(line, PyBytes_AS_STRING(request->raw), request->line_size + 9);
    add_constant(line, "\" ");
    add_number(line, request->code);
    add_constant(line, " ");
    if (sent)
        add_number(line, sent);
    else
        add_constant(line, "-");
    add_constant(line, " \"");
    add_text(line, request->referer);
    add_constant(line, "\" \"");
    add_text(line, request->agent);
    add_constant(line, "\"\n");
}

/* JSON */

static void add_digits(Line *line, unsigned long long number, int count) {
    char digits[20];
    for (int at = count; at-- > 0; number /= 10)
        digits[at] = (char)('0' + number % 10);
    add_bytes(line, digits, count);
}

/* Behind ``name``, which ends with the colon. */
static void add_string(Line *line, const char *name, const char *text, Py_ssize_t size) {
    add_constant(line, name);
    if (size == 0) {
        add_constant(line, "null");
        return;
    }
    add_constant(line, "\"");
    add_checked(line, text, size);
    add_constant(line, "\"");
}

/* A str, or NULL for none. */
static void add_object(Line *line, const char *name, PyObject *text) {
    if (text == NULL)
        add_string(line, name, NULL, 0);
    else if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_COMPACT_ASCII(text))
        line->plain = false;
    else
        add_string(line, name, (const char *)PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text));
}

static void add_seconds(Line *line, const char *name, uint64_t since, uint64_t until) {
    uint64_t microseconds = until > since ? (until - since) / 1000 : 0;
    add_constant(line, name);
    add_number(line, (Py_ssize_t)(microseconds / 1000000));
    add_constant(line, ".");
    add_digits(line, microseconds % 1000000, 6);
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
}

static void write_json(Line *line, const Request *request, PyObject *peer, PyObject *user, PyObject *host,
                       Py_ssize_t sent) {
    const char *raw = PyBytes_AS_STRING(request->raw), *end = raw + request->line_size;
    const char *target = raw + PyUnicode_GET_LENGTH(request->method) + 1;
    const char *question = memchr(target, '?', (size_t)(end - target));
    uint64_t now = nanoseconds();
    if (request->began == 0)  /* there is no scoreboard, and no time in it */
        line->plain = false;
    add_constant(line, "{\"time\":\"");
    add_time(line);
    add_object(line, "Z\",\"client\":", peer);
    add_object(line, ",\"user\":", user);
    add_string(line, ",\"request\":", raw, request->line_size + 9);
    add_string(line, ",\"method\":", raw, PyUnicode_GET_LENGTH(request->method));
    add_string(line, ",\"path\":", target, (question ? question : end) - target);
    add_object(line, ",\"host\":", host);
    add_constant(line, ",\"status\":");
    add_number(line, request->code);
    add_constant(line, ",\"bytes\":");
    add_number(line, sent);
    add_object(line, ",\"referer\":", request->referer);
    add_object(line, ",\"user_agent\":", request->agent);
    add_object(line, ",\"request_id\":", request->id);
    add_seconds(line, ",\"seconds\":", request->whole_since, now);
    add_seconds(line, ",\"wait_seconds\":", request->whole_since, request->began);
    add_seconds(line, ",\"app_seconds\":", request->began, now);
    add_bytes(line, PyBytes_AS_STRING(request->context->json_end), PyBytes_GET_SIZE(request->context->json_end));
}

int log_request(Request *request, PyObject *environ, Py_ssize_t sent) {
    Context *context = request->context;
    State *state = context->state;
    Line line = {.size = 0, .plain = true};
    PyObject *keys[] = {state->remote_addr, state->remote_user, state->http_host}, *found[3] = {NULL, NULL, NULL};
    if (context->add_lines == NULL)
        return call_log_answer(request, environ);
    for (int number = 0; number < 3 && !PyErr_Occurred(); number++)  /* a key of the application's may run its code */
        found[number] = Py_XNewRef(PyDict_GetItemWithError(environ, keys[number]));
    context_date(context);
    if (PyBytes_GET_SIZE(context->json_end))
        write_json(&line, request, found[0], found[1], found[2], sent);
    else
        write_combined(&line, request, found[0], found[1], sent);
    for (int number = 0; number < 3; number++)
        Py_XDECREF(found[number]);
    if (PyErr_Occurred())
        return -1;
    if (!line.plain)
        return call_log_answer(request, environ);
    return gather(context, &line);
}
