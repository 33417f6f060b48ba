/* A request, which is its own start_response: calls the application, and sends an answer that is in memory.

   ``answer`` gives True where the whole answer is sent and the connection goes on, False where it is to be closed; None
   where the client has gone; the bytes that the kernel has not taken, behind which come the blocks of ``iterator``, if
   that is not None; a tuple of the block that comes before those; or an empty tuple where ``result`` is to be sent. What
   the application raises is raised. In all cases but the first two, ``result`` is to be closed by the Python code.

   Where the plain way ends, the Python object Response goes on (``response``): made by the context's ``adopt``, always
   with the loop lock, from what was said so far (``code``, ``text``, ``length``). That happens when the application
   calls start_response with what is not plain, or ``write``; when the background driver looks at the answer meanwhile
   (``response``, ``report`` …); or after the call.

   Source: PEP 3333. */
#include "exchange.h"
#include "structmember.h"

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
    self->whole_since = nanoseconds();
    self->raw = PyBytes_FromStringAndSize(data, size);
    if (self->raw == NULL)
        Py_CLEAR(self);
    return self;
}

/* Where the Python code goes on */

/* The Response, with the loop lock; when the call is over, one that reaches no client. */
static PyObject *adopt(Request *self) {
    if (self->response == NULL) {
        PyObject *connection = self->connection == NULL ? Py_None : self->connection;
        PyObject *made = PyObject_CallFunctionObjArgs(self->context->adopt, connection, (PyObject *)self, NULL);
        if (made == NULL)
            return NULL;
        Py_XSETREF(self->response, made);
        if (self->connection != NULL)
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

static PyObject *request_write(Request *self, PyObject *data) {
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

/* Answering */

/* Send ``count`` blocks of ``size`` bytes in all; as send_answer. */
static PyObject *send_blocks(Request *self, PyObject *const *blocks, Py_ssize_t count, Py_ssize_t size) {
    PyObject *body;
    if (serialize_rest(self, blocks, count, size, &body) < 0)
        return NULL;
    PyObject *outcome = send_answer(self, body, is_muted(self) ? 0 : size);
    Py_XDECREF(body);
    return outcome;
}

/* All of the answer is sent, and the call is over. */
static PyObject *conclude(Request *self, PyObject *environ, Py_ssize_t thread) {
    Context *context = self->context;
    if (self->response != NULL || self->result != NULL)
        return PyBytes_FromStringAndSize(NULL, 0);
    self->ended = true;
    context->served++;
    self->began = context_end(context, thread, self->code, self->sent_size);
    if (context->log_answer != NULL && log_request(self, environ, self->sent_size) < 0)
        return NULL;
    return Py_NewRef(self->kept_open ? Py_True : Py_False);
}

/* The answer whose blocks are all there. */
static PyObject *answer_whole(Request *self, PyObject *environ, Py_ssize_t thread) {
    Py_ssize_t size = self->code != 0 && self->response == NULL ? size_of_blocks(self) : -1;
    if (size < 0)
        return PyTuple_New(0);
    PyObject *outcome = send_blocks(self, PySequence_Fast_ITEMS(self->result), PySequence_Fast_GET_SIZE(self->result),
                                    size);
    if (outcome != Py_True)
        return outcome;
    Py_DECREF(outcome);
    Py_CLEAR(self->result);
    return conclude(self, environ, thread);
}

/* Nothing more is to be asked of the iterable. */
static PyObject *hand_over_end(Request *self) {
    PyObject *none = PyTuple_New(0);
    if (none == NULL)
        return NULL;
    Py_XSETREF(self->iterator, PyObject_GetIter(none));
    Py_DECREF(none);
    return self->iterator == NULL ? NULL : PyBytes_FromStringAndSize(NULL, 0);
}

/* The answer that an iterable gives in one block, or in none. */
static PyObject *answer_iterated(Request *self, PyObject *block, PyObject *environ, Py_ssize_t thread) {
    bool muted = is_muted(self), is_bytes = block == NULL || PyBytes_CheckExact(block);
    bool met = block == NULL || muted;
    Py_ssize_t size = met || !is_bytes ? 0 : PyBytes_GET_SIZE(block);
    bool has_length = muted || self->length == size || (self->length < 0 && block == NULL);
    if (self->code == 0 || self->response != NULL || !is_bytes || !has_length || !is_sendable(self, size))
        return block == NULL ? hand_over_end(self) : PyTuple_Pack(1, block);
    if (met && drop_iterator(self) < 0)
        return NULL;
    PyObject *outcome = send_blocks(self, &block, !met, size);
    if (outcome != Py_True)
        return outcome;
    Py_DECREF(outcome);
    if (!met)
        context_renew(self->context, thread);
    PyObject *more;
    if (end_iteration(self, met, &more) < 0)
        return NULL;
    if (more == NULL)
        return conclude(self, environ, thread);
    outcome = PyTuple_Pack(1, more);
    Py_DECREF(more);
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

PyObject *answer(Request *self, PyObject *app, PyObject *connection, Py_ssize_t thread, bool persistent) {
    PyObject *environ = self->environ, *outcome = NULL;
    if (environ == NULL || self->connection != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a request is answered once");
        return NULL;
    }
    self->environ = NULL;
    self->connection = Py_NewRef(connection);
    self->kept_open = persistent;
    take_spare(self);
    if (context_begin(self->context, thread, self) == 0) {
        PyObject *block;
        if (call_application(self, app, environ, &block) == 0)
            outcome = self->iterator == NULL ? answer_whole(self, environ, thread)
                                             : answer_iterated(self, block, environ, thread);
        Py_XDECREF(block);
    }
    if (outcome == Py_True || outcome == Py_False) {
        Py_DECREF(environ);
        Py_CLEAR(self->connection);
        Py_CLEAR(self->send);
        leave_spare(self);
    } else {
        self->environ = environ;  /* for the Python code, which calls finish() */
    }
    return outcome;
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
    return answer(self, args[0], args[1], thread, persistent);
}

static int request_clear(Request *self) {
    Py_CLEAR(self->environ);
    Py_CLEAR(self->connection);
    Py_CLEAR(self->response);
    Py_CLEAR(self->result);
    Py_CLEAR(self->iterator);
    Py_CLEAR(self->send);
    return 0;
}

static PyObject *request_finish(Request *self, PyObject *Py_UNUSED(ignored)) {
    if (self->connection != NULL && self->environ == NULL) {  /* the application has it, as its start_response */
        PyErr_SetString(PyExc_RuntimeError, "the call of the application is not over");
        return NULL;
    }
    request_clear(self);
    leave_spare(self);
    Py_RETURN_NONE;
}

/* What the loop asks the exchange of a connection, while the application is called */

PyObject *forward(Request *self, const char *name, PyObject *const *args, Py_ssize_t count) {
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
    {"request_id", T_OBJECT, offsetof(Request, id), READONLY, NULL},
    {"http11", T_BOOL, offsetof(Request, http11), READONLY, NULL},
    {"persistent", T_BOOL, offsetof(Request, persistent), READONLY, "as the client wishes"},
    {"kept_open", T_BOOL, offsetof(Request, kept_open), READONLY, "whether the connection goes on after the answer"},
    {"code", T_INT, offsetof(Request, code), READONLY, "status of the answer, 0 before start_response"},
    {"length", T_PYSSIZET, offsetof(Request, length), READONLY, "its Content-Length, -1 where there is none"},
    {"result", T_OBJECT, offsetof(Request, result), READONLY, "what the application has returned, until it is closed"},
    {"iterator", T_OBJECT, offsetof(Request, iterator), READONLY, "over its blocks; None where none is to be asked for"},
    {"referer", T_OBJECT, offsetof(Request, referer), READONLY, "as it came; None where there is none"},
    {"agent", T_OBJECT, offsetof(Request, agent), READONLY, "likewise"},
    {"whole_since", T_ULONGLONG, offsetof(Request, whole_since), 0, "when it was read, in ns; earlier, if it waited before"},
    {"began", T_ULONGLONG, offsetof(Request, began), READONLY, "when its call began, in ns, once it was noted as over"},
    {"sent", T_BOOL, offsetof(Request, sent), READONLY, "whether its head has gone out, or is in what was given back"},
    {"ended", T_BOOL, offsetof(Request, ended), READONLY, "whether its call was noted as over"},
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
    Py_VISIT(self->result);
    Py_VISIT(self->iterator);
    Py_VISIT(self->send);
    return 0;
}

static void request_dealloc(Request *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    request_clear(self);
    leave_spare(self);
    Py_CLEAR(self->raw);
    Py_CLEAR(self->method);
    Py_CLEAR(self->id);
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
