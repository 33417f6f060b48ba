/* The line of the access log in combined format, as AccessLog.add writes it, where no field needs an escape and the
   line is short.

   The client is as the application leaves it in the environ; the rest is as it came.

   Source: Apache's mod_log_config, "Combined Log Format". */
#include "exchange.h"

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

int log_request(Request *request, PyObject *environ, Py_ssize_t sent) {
    Context *context = request->context;
    Line line = {.size = 0, .plain = true};
    if (context->add_lines == NULL)
        return call_log_answer(request, environ);
    PyObject *peer = PyDict_GetItemWithError(environ, context->state->remote_addr);
    PyObject *user = peer == NULL && PyErr_Occurred() ? NULL
                                                      : PyDict_GetItemWithError(environ, context->state->remote_user);
    if (PyErr_Occurred())
        return -1;
    if (user != NULL && PyUnicode_CheckExact(user) && PyUnicode_FindChar(user, ' ', 0, PY_SSIZE_T_MAX, 1) >= 0)
        line.plain = false;  /* it would divide the field */
    add_text(&line, peer);
    add_constant(&line, " - ");
    add_text(&line, user);
    add_constant(&line, " ");
    context_date(context);
    add_constant(&line, context->log_date);
    add_constant(&line, "\"");
    add_checked(&line, PyBytes_AS_STRING(request->raw), request->line_size + 9);
    add_constant(&line, "\" ");
    add_number(&line, request->code);
    add_constant(&line, " ");
    if (sent)
        add_number(&line, sent);
    else
        add_constant(&line, "-");
    add_constant(&line, " \"");
    add_text(&line, request->referer);
    add_constant(&line, "\" \"");
    add_text(&line, request->agent);
    add_constant(&line, "\"\n");
    if (!line.plain)
        return call_log_answer(request, environ);
    return gather(context, &line);
}
