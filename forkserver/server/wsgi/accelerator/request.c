/* A request, which is its own start_response: calls the application, and sends an answer that is in memory.

   ``answer`` gives True where the whole answer is sent and the connection goes on, False where it is to be closed; None
   where the client has gone; the bytes that the kernel has not taken; or, in a tuple, what the application returned,
   for the Python code to send. What the application raises is raised; then ``sent`` is False.

   Where the plain way ends, the Python object Response goes on (``response``): made by the context's ``adopt``, always
   with the loop lock, from what was said so far (``code``, ``text``, ``length``). That happens when the application
   calls start_response with what is not plain, or ``write``; when the background driver looks at the answer meanwhile
   (``response``, ``report`` …); or after the call.

   The descriptor is asked for after the call: the connection may have been closed meanwhile, and its number be
   another's. The mark "outside" is taken back before the lock is, or RequestTimeout strikes the wrong code.

   Source: PEP 3333, send(2). */
#include "exchange.h"
#include "structmember.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

static PyObject *start_response(PyObject *callable, PyObject *const *args, size_t flags, PyObject *names);

Request *make_request(Context *context, const char *data, Py_ssize_t size, const Head *head) {
    State *state = context->state;
    Request *self = (Request *)state->request_type->tp_alloc(state->request_type, 0);
    if (self == NULL)
        return NULL;
    self->vectorcall = start_response;
    self->context = (Context *)Py_NewRef(context);
    self->method = Py_NewRef(state->methods[head->method]);
    self->line_size = head->line.size;
    self->http11 = head->http11;
    self->persistent = head->persistent;
    self->length = -1;
    self->raw = PyBytes_FromStringAndSize(data, size);
    if (self->raw == NULL)
        Py_CLEAR(self);
    return self;
}

/* Where the Python code goes on */

/* The Response, with the loop lock. */
static PyObject *adopt(Request *self) {
    if (self->response == NULL) {
        if (self->connection == NULL) {
            PyErr_SetString(self->context->state->app_error, "the call of the application is over");
            return NULL;
        }
        PyObject *made = PyObject_CallFunctionObjArgs(self->context->adopt, self->connection, (PyObject *)self, NULL);
        if (made == NULL)
            return NULL;
        Py_XSETREF(self->response, made);
        count_declined(self->context);
    }
    return Py_NewRef(self->response);
}

static PyObject *request_adopt(Request *self, PyObject *Py_UNUSED(ignored)) { return adopt(self); }

/* The same from within the application, which has not got the lock. */
static PyObject *adopt_outside(Request *self) {
    State *state = self->context->state;
    if (self->response != NULL)
        return Py_NewRef(self->response);
    PyObject *method = PyObject_GetAttr((PyObject *)self, state->attr_adopt);
    if (method == NULL)
        return NULL;
    PyObject *response = PyObject_CallMethodOneArg(self->context->lock, state->attr_borrow, method);
    Py_DECREF(method);
    return response;
}

static PyObject *call_response(Request *self, PyObject *name, PyObject *const *args, size_t count, PyObject *names) {
    PyObject *response = adopt_outside(self);
    if (response == NULL)
        return NULL;
    PyObject *method = PyObject_GetAttr(response, name);
    Py_DECREF(response);
    if (method == NULL)
        return NULL;
    PyObject *result = PyObject_Vectorcall(method, args, count, names);
    Py_DECREF(method);
    return result;
}

/* One that comes when the answer is over reaches no client, least of all the next one. */
static PyObject *request_write(Request *self, PyObject *data) {
    if (self->connection == NULL && self->response == NULL)
        Py_RETURN_NONE;
    return call_response(self, self->context->state->attr_write, &data, 1, NULL);
}

static PyObject *request_early_hints(Request *self, PyObject *headers) {
    return call_response(self, self->context->state->attr_early_hints, &headers, 1, NULL);
}

static PyMethodDef write_method = {"write", (PyCFunction)request_write, METH_O, "write(data): PEP 3333's."};
static PyMethodDef early_hints_method = {"early_hints", (PyCFunction)request_early_hints, METH_O,
                                         "early_hints(headers): as Response has it."};

PyObject *early_hints_of(Request *self) { return PyCFunction_New(&early_hints_method, (PyObject *)self); }

static PyObject *start_response(PyObject *callable, PyObject *const *args, size_t flags, PyObject *names) {
    Request *self = (Request *)callable;
    Py_ssize_t count = PyVectorcall_NARGS(flags);
    bool plain_call = names == NULL && (count == 2 || count == 3);  /* nothing was sent for which exc_info is raised */
    if (plain_call && self->connection != NULL && self->response == NULL && self->code == 0) {
        int plain = serialize_head(self, args[0], args[1]);
        if (plain < 0)
            return NULL;
        if (plain)
            return PyCFunction_New(&write_method, callable);
    }
    return call_response(self, self->context->state->attr_start_response, args, (size_t)count, names);
}

/* Calling */

/* The result, with the loop lock again; NULL with an exception set. */
static PyObject *call_application(Context *context, PyObject *app, PyObject *environ, Request *request) {
    PyObject *args[] = {NULL, environ, (PyObject *)request}, *result = NULL, *type, *error, *traceback, *done;
    done = PyObject_CallNoArgs(context->release);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    if (PyObject_SetAttr(context->lock, context->state->attr_outside, Py_True) == 0)
        result = PyObject_Vectorcall(app, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    PyErr_Fetch(&type, &error, &traceback);
    while (PyObject_SetAttr(context->lock, context->state->attr_outside, Py_False) < 0)
        PyErr_Clear();
    while ((done = PyObject_CallNoArgs(context->acquire)) == NULL) {  /* a signal handler has raised */
        Py_CLEAR(result);
        Py_CLEAR(type);
        Py_CLEAR(error);
        Py_CLEAR(traceback);
        PyErr_Fetch(&type, &error, &traceback);
    }
    Py_DECREF(done);
    PyErr_Restore(type, error, traceback);
    return result;
}

/* Sending */

static ssize_t send_once(int fd, const Buffer *answer, PyObject *body) {
    ssize_t sent;
    if (body == NULL) {
        do
            sent = send(fd, answer->text, (size_t)answer->size, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (sent < 0 && errno == EINTR);
        return sent;
    }
    struct iovec parts[] = {{answer->text, (size_t)answer->size},
                            {PyBytes_AS_STRING(body), (size_t)PyBytes_GET_SIZE(body)}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    int code;
    Py_BEGIN_ALLOW_THREADS
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    code = errno;
    Py_END_ALLOW_THREADS
    errno = code;
    return sent;
}

static PyObject *rest_of(const Buffer *answer, PyObject *body, Py_ssize_t taken) {
    Py_ssize_t head = answer->size > taken ? answer->size - taken : 0;
    Py_ssize_t from = taken > answer->size ? taken - answer->size : 0;
    Py_ssize_t size = body == NULL ? 0 : PyBytes_GET_SIZE(body) - from;
    PyObject *rest = PyBytes_FromStringAndSize(NULL, head + size);
    if (rest == NULL)
        return NULL;
    memcpy(PyBytes_AS_STRING(rest), answer->text + answer->size - head, (size_t)head);
    if (size)
        memcpy(PyBytes_AS_STRING(rest) + head, PyBytes_AS_STRING(body) + from, (size_t)size);
    return rest;
}

static int descriptor_of(PyObject *connection, State *state) {
    PyObject *number = PyObject_GetAttr(connection, state->attr_fd);
    if (number == NULL)
        return -2;
    int fd = as_descriptor(number);
    Py_DECREF(number);
    return fd;
}

/* Send what is serialised, with ``body`` behind it. */
static PyObject *send_answer(Request *self, PyObject *body, Py_ssize_t body_size, PyObject *environ, Py_ssize_t thread,
                             bool persistent) {
    Context *context = self->context;
    int fd = descriptor_of(self->connection, context->state);
    if (fd == -2)
        return NULL;
    ssize_t taken = send_once(fd, &self->answer, body);  /* EBADF where it was closed meanwhile */
    if (taken < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        Py_RETURN_NONE;
    if (taken < 0)
        taken = 0;
    Py_ssize_t whole = self->answer.size + (body == NULL ? 0 : PyBytes_GET_SIZE(body));
    self->sent_size = body_size;
    if (taken < whole) {
        PyObject *rest = rest_of(&self->answer, body, taken);
        self->sent = true;
        return rest;
    }
    self->sent = true;
    context->served++;
    context_end(context, thread);
    if (context->add_entry != NULL && log_request(self, environ, body_size) < 0)
        return NULL;
    return Py_NewRef(persistent ? Py_True : Py_False);
}

/* Send ``result``, if it is plain. */
static PyObject *send_result(Request *self, PyObject *result, PyObject *environ, Py_ssize_t thread, bool persistent) {
    Py_ssize_t body_size;
    PyObject *body;
    int plain = self->code != 0 && self->response == NULL
                    ? serialize_rest(self, result, persistent, &body, &body_size)
                    : 0;
    if (plain < 0)
        return NULL;
    if (!plain)
        return PyTuple_Pack(1, result);
    PyObject *outcome = send_answer(self, body, body_size, environ, thread, persistent);
    Py_XDECREF(body);
    return outcome;
}

/* The buffer of one answer becomes the next one's. */
static void take_spare(Request *self) {
    self->answer = self->context->spare;
    self->context->spare = (Buffer){NULL, 0, 0};
}

static void leave_spare(Request *self) {
    Context *context = self->context;
    if (context != NULL && context->spare.text == NULL && self->answer.room <= SPARE_BYTES)
        context->spare = self->answer;
    else
        PyMem_Free(self->answer.text);
    self->answer = (Buffer){NULL, 0, 0};
    self->text_size = 0;
}

static PyObject *request_answer(Request *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "answer takes an application, a connection, a thread and persistent");
        return NULL;
    }
    Py_ssize_t thread = PyLong_AsSsize_t(args[2]);
    int persistent = PyObject_IsTrue(args[3]);
    if ((thread == -1 && PyErr_Occurred()) || persistent < 0)
        return NULL;
    PyObject *environ = self->environ, *outcome = NULL;
    if (environ == NULL || self->connection != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a request is answered once");
        return NULL;
    }
    self->environ = NULL;
    self->connection = Py_NewRef(args[1]);
    take_spare(self);
    if (context_begin(self->context, thread, PyBytes_AS_STRING(self->raw), self->line_size) == 0) {
        PyObject *result = call_application(self->context, args[0], environ, self);
        if (result != NULL) {
            outcome = send_result(self, result, environ, thread, persistent);
            Py_DECREF(result);
        }
    }
    if (outcome == Py_True || outcome == Py_False) {
        Py_DECREF(environ);
        Py_CLEAR(self->connection);
        leave_spare(self);
    } else {
        self->environ = environ;  /* for the Python code, which calls finish() */
    }
    return outcome;
}

static PyObject *request_finish(Request *self, PyObject *Py_UNUSED(ignored)) {
    if (self->connection != NULL && self->environ == NULL) {  /* the application has it, as its start_response */
        PyErr_SetString(PyExc_RuntimeError, "the call of the application is not over");
        return NULL;
    }
    Py_CLEAR(self->environ);
    Py_CLEAR(self->connection);
    Py_CLEAR(self->response);
    leave_spare(self);
    Py_RETURN_NONE;
}

/* What the loop asks the exchange of a connection, while the application is called */

static PyObject *forward(Request *self, const char *name, PyObject *const *args, Py_ssize_t count) {
    PyObject *response = adopt(self), *exchange, *method, *result;
    if (response == NULL)
        return NULL;
    exchange = PyObject_GetAttrString(response, "sink");
    Py_DECREF(response);
    method = exchange == NULL ? NULL : PyObject_GetAttrString(exchange, name);
    Py_XDECREF(exchange);
    result = method == NULL ? NULL : PyObject_Vectorcall(method, args, (size_t)count, NULL);
    Py_XDECREF(method);
    return result;
}

#define FORWARD(name) \
    static PyObject *request_##name(Request *self, PyObject *const *args, Py_ssize_t count) { \
        return forward(self, #name, args, count); \
    }
FORWARD(lose)
FORWARD(log_before_end)
FORWARD(log_out)
FORWARD(report)
FORWARD(expire)
FORWARD(close_socket)
#define FORWARDED_METHOD(name) \
    {#name, (PyCFunction)(void (*)(void))request_##name, METH_FASTCALL, "As Exchange has it."}

static PyMethodDef methods[] = {
    {"answer", (PyCFunction)(void (*)(void))request_answer, METH_FASTCALL,
     "answer(app, connection, thread, persistent): call the application and send what is plain; see the file's head."},
    {"finish", (PyCFunction)request_finish, METH_NOARGS, "finish(): the answer is over, which Python has gone on with."},
    {"adopt", (PyCFunction)request_adopt, METH_NOARGS, "adopt(): the Response that goes on. With the loop lock."},
    FORWARDED_METHOD(lose),
    FORWARDED_METHOD(log_before_end),
    FORWARDED_METHOD(log_out),
    FORWARDED_METHOD(report),
    FORWARDED_METHOD(expire),
    FORWARDED_METHOD(close_socket),
    {NULL, NULL, 0, NULL},
};

/* What the Python code asks of a head and of an answer */

static PyObject *get_response(Request *self, void *Py_UNUSED(closure)) {
    if (self->connection == NULL)
        Py_RETURN_NONE;
    return adopt(self);
}

static PyObject *get_line(Request *self, void *Py_UNUSED(closure)) {
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self->raw), self->line_size);
}

static PyObject *get_protocol(Request *self, void *Py_UNUSED(closure)) {
    return Py_NewRef(self->http11 ? self->context->state->http11 : self->context->state->http10);
}

static PyObject *get_text(Request *self, void *Py_UNUSED(closure)) {
    return PyUnicode_DecodeLatin1(self->answer.text, self->text_size, NULL);
}

static PyObject *get_fields(Request *self, void *Py_UNUSED(closure)) {
    PyObject *head = PyObject_CallOneArg(self->context->read_head, self->raw), *fields;
    if (head == NULL)
        return NULL;
    fields = PyObject_GetAttrString(head, "fields");
    Py_DECREF(head);
    return fields;
}

static PyObject *get_false(Request *Py_UNUSED(self), void *Py_UNUSED(closure)) { Py_RETURN_FALSE; }

static PyGetSetDef properties[] = {
    {"response", (getter)get_response, NULL, "the Response, made now if need be; None outside the call", NULL},
    {"line", (getter)get_line, NULL, "the request line without its version", NULL},
    {"protocol", (getter)get_protocol, NULL, NULL, NULL},
    {"text", (getter)get_text, NULL, "status line and ordinary fields of the answer", NULL},
    {"fields", (getter)get_fields, NULL, "the header fields as the Python code reads them", NULL},
    {"chunked", (getter)get_false, NULL, NULL, NULL},
    {"has_body", (getter)get_false, NULL, NULL, NULL},
    {"websocket", (getter)get_false, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef members[] = {
    {"raw", T_OBJECT, offsetof(Request, raw), READONLY, "the bytes of the head"},
    {"environ", T_OBJECT, offsetof(Request, environ), READONLY, "None while the application has it"},
    {"method", T_OBJECT, offsetof(Request, method), READONLY, NULL},
    {"http11", T_BOOL, offsetof(Request, http11), READONLY, NULL},
    {"persistent", T_BOOL, offsetof(Request, persistent), READONLY, "as the client wishes"},
    {"code", T_INT, offsetof(Request, code), READONLY, "status of the answer, 0 before start_response"},
    {"length", T_PYSSIZET, offsetof(Request, length), READONLY, "its Content-Length, -1 where there is none"},
    {"sent", T_BOOL, offsetof(Request, sent), READONLY, "whether its head has gone out, or is in what was given back"},
    {"sent_size", T_PYSSIZET, offsetof(Request, sent_size), READONLY, "bytes of its body then"},
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Request, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static int request_traverse(Request *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->context);
    Py_VISIT(self->environ);
    Py_VISIT(self->connection);
    Py_VISIT(self->response);
    return 0;
}

static int request_clear(Request *self) {
    Py_CLEAR(self->environ);
    Py_CLEAR(self->connection);
    Py_CLEAR(self->response);
    return 0;
}

static void request_dealloc(Request *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    request_clear(self);
    leave_spare(self);
    Py_CLEAR(self->raw);
    Py_CLEAR(self->method);
    Py_CLEAR(self->referer);
    Py_CLEAR(self->agent);
    Py_CLEAR(self->context);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "A plain request, and its start_response."},
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_traverse, request_traverse},
    {Py_tp_clear, request_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec request_spec = {
    .name = "forkserver.server.wsgi.accelerator._exchange.Request",
    .basicsize = sizeof(Request),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
