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

static void add_checked(Line *line, const char *text, Py_ssize_t size) {
    for (Py_ssize_t at = 0; at < size; at++)
        if (text[at] < ' ' || text[at] > '~' || text[at] == '"' || text[at] == '\\')
            line->plain = false;
    add_bytes(line, text, size);
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

int log_request(Request *request, PyObject *environ, Py_ssize_t sent) {
    Context *context = request->context;
    Line line = {.size = 0, .plain = true};
    char figures[40];
    if (context->add_line == NULL)
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
    PyOS_snprintf(figures, sizeof figures, sent ? "\" %d %zd \"" : "\" %d - \"", request->code, sent);
    add_constant(&line, figures);
    add_text(&line, request->referer);
    add_constant(&line, "\" \"");
    add_text(&line, request->agent);
    add_constant(&line, "\"\n");
    if (!line.plain)
        return call_log_answer(request, environ);
    PyObject *text = PyUnicode_New(line.size, 127);
    if (text == NULL)
        return -1;
    memcpy(PyUnicode_1BYTE_DATA(text), line.text, (size_t)line.size);
    PyObject *done = PyObject_CallOneArg(context->add_line, text);
    Py_DECREF(text);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}
