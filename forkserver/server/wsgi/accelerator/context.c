/* What stays the same as long as a worker serves, and two ways in, ``read`` and ``take``; the others are in connection.c.

   ``read(fd, facts)`` receives from a socket; ``take(data, facts)`` is for bytes that were read already, by TLS. Both
   give a Request, or the bytes for the Python code to read: ``read`` gives b"" at the end of the client's bytes, and
   None where nothing has come.

   Source: recv(2), clock_gettime(2). */
#include "exchange.h"
#include "structmember.h"
#include <errno.h>
#include <sys/socket.h>
#include <time.h>

int reserve(Buffer *buffer, Py_ssize_t more) {
    if (more <= buffer->room - buffer->size)
        return 0;
    if (more > PY_SSIZE_T_MAX / 2 - buffer->size) {
        PyErr_NoMemory();
        return -1;
    }
    Py_ssize_t room = (buffer->size + more) * 2;
    char *text = PyMem_Realloc(buffer->text, (size_t)room);
    if (text == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    buffer->text = text;
    buffer->room = room;
    return 0;
}

int as_descriptor(PyObject *number) {
    long value = PyLong_AsLong(number);
    if (value == -1 && PyErr_Occurred())
        return -2;
    if (value < -1 || value > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "%ld is no descriptor", value);
        return -2;
    }
    return (int)value;
}

/* The clock is compared by equality, so that it may be set back. Not strftime: that speaks the locale's language. */
const char *context_date(Context *self) {
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct timespec now;
    struct tm at;
    if (clock_gettime(CLOCK_REALTIME_COARSE, &now) == 0 && now.tv_sec != self->second &&
        gmtime_r(&now.tv_sec, &at) != NULL) {
        const char *day = days + 3 * at.tm_wday, *month = months + 3 * at.tm_mon;
        int year = (at.tm_year + 1900) % 10000;
        PyOS_snprintf(self->date, sizeof self->date, "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d GMT\r\n", day,
                      at.tm_mday, month, year, at.tm_hour, at.tm_min, at.tm_sec);
        PyOS_snprintf(self->log_date, sizeof self->log_date, "[%02d/%.3s/%04d:%02d:%02d:%02d +0000]", at.tm_mday,
                      month, year, at.tm_hour, at.tm_min, at.tm_sec);
        self->second = now.tv_sec;
    }
    return self->date;
}

/* The scoreboard */

static uint64_t *thread_words(Context *self, Py_ssize_t thread) {
    return self->words + ROW_WORDS + thread * THREAD_WORDS;
}

uint64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Add what has passed since then to a histogram, as Row.begin and Row.end do. */
static void measure(uint64_t *histogram, uint64_t since, uint64_t now) {
    static const uint64_t steps[] = {10, 18, 32, 56};  /* of each power of ten, in tenths */
    uint64_t duration = now > since ? now - since : 0, scale = 10000;
    int bucket = 0;
    for (; bucket < BOUNDS && duration > steps[bucket % 4] * scale; bucket++)
        scale *= bucket % 4 == 3 ? 10 : 1;
    histogram[0] += duration;
    histogram[1 + bucket]++;
}

/* As Row.begin: the query is left out, for it may hold secrets. */
int context_begin(Context *self, Py_ssize_t thread, const Request *request) {
    const char *line = PyBytes_AS_STRING(request->raw);
    Py_ssize_t size = request->line_size;
    if (self->row == NULL)
        return 0;
    if (thread < 0 || thread >= self->threads) {
        PyErr_Format(PyExc_IndexError, "the scoreboard has no thread %zd", thread);
        return -1;
    }
    char *lines = (char *)thread_words(self, self->threads);
    const char *question = memchr(line, '?', (size_t)size);
    if (question != NULL)
        size = question - line;
    if (size > ID_AT)
        size = ID_AT;
    memcpy(lines + thread * LINE_BYTES, line, (size_t)size);
    Py_ssize_t id_size = PyUnicode_GET_LENGTH(request->id);
    memcpy(lines + thread * LINE_BYTES + ID_AT, PyUnicode_1BYTE_DATA(request->id), (size_t)id_size);  /* ID_BYTES at most */
    uint64_t *words = thread_words(self, thread);
    words[LINE_LENGTH] = (uint64_t)size;
    words[ID_LENGTH] = (uint64_t)id_size;
    uint64_t now = nanoseconds();
    __atomic_store_n(&words[BUSY_SINCE], now, __ATOMIC_SEQ_CST);
    measure(self->words + WAITED, request->whole_since, now);
    PyObject *dozing = PyObject_GetAttr(self->loop, self->state->attr_dozing);
    if (dozing == NULL)
        return -1;
    int rouse = PyObject_IsTrue(dozing);
    Py_DECREF(dozing);
    if (rouse > 0) {
        PyObject *roused = PyObject_CallMethodNoArgs(self->loop, self->state->attr_rouse);
        Py_XDECREF(roused);
        return roused == NULL ? -1 : 0;
    }
    return rouse;
}

/* As RequestDeadline.renew and Row.extend: no reader sees the new time for an old call, or the other way. */
void context_renew(Context *self, Py_ssize_t thread) {
    if (self->row == NULL)
        return;
    uint64_t *words = thread_words(self, thread), since = words[BUSY_SINCE], now = nanoseconds();
    __atomic_store_n(&words[PROGRESS], now, __ATOMIC_RELEASE);
    if (self->renewal == 0)
        return;
    uint64_t deadline = now + self->renewal;
    if (words[DEADLINE_OF] != since || deadline > words[DEADLINE]) {
        __atomic_store_n(&words[DEADLINE_OF], 0, __ATOMIC_SEQ_CST);
        __atomic_store_n(&words[DEADLINE], deadline, __ATOMIC_SEQ_CST);
        __atomic_store_n(&words[DEADLINE_OF], since, __ATOMIC_SEQ_CST);
    }
}

/* A child of the application's may have come back from the call: it has no row any more. */
uint64_t context_end(Context *self, Py_ssize_t thread, int status, Py_ssize_t sent) {
    if (self->row == NULL)
        return 0;
    uint64_t *words = self->words, *of_thread = thread_words(self, thread), since = of_thread[BUSY_SINCE];
    __atomic_store_n(&of_thread[BUSY_SINCE], 0, __ATOMIC_RELEASE);
    words[REQUESTS]++;
    words[ACCELERATED] = self->served;
    measure(words + LASTED, since, nanoseconds());
    words[ANSWERS + (status > 99 && status < 600 ? status / 100 : 0)]++;
    words[ANSWER_BYTES] += (uint64_t)sent;
    return since;
}

void count_declined(Context *self) {
    self->declined++;
    if (self->row != NULL)
        self->words[DECLINED_COUNT] = self->declined;
}

/* Reading */

/* What recv(2) gives, in ``received``. */
ssize_t receive_head(Context *self, int fd) {
    ssize_t size;
    do
        size = recv(fd, self->received, HEAD_BYTES, MSG_DONTWAIT);
    while (size < 0 && errno == EINTR);
    return size;
}

/* 1 and a request, 0 where it is not plain, -1. */
int make_plain_request(Context *self, const char *data, Py_ssize_t size, PyObject *facts, PyObject **request) {
    Facts known;
    Head head;
    if (unpack_facts(facts, &known) < 0)
        return -1;
    if (!read_plain_head(data, size, &self->rules, known.trusted, &self->state->names, self->remembered, &head))
        return 0;
    Request *made = make_request(self, data, size, &head);
    if (made == NULL)
        return -1;
    int plain = fill_environ(made, &head, &known);
    if (plain > 0)
        *request = (PyObject *)made;
    else
        Py_DECREF(made);
    return plain;
}

PyObject *context_read(Context *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *request;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "read takes a descriptor and facts");
        return NULL;
    }
    int fd = as_descriptor(args[0]);
    if (fd == -2)
        return NULL;
    ssize_t size = receive_head(self, fd);
    if (size < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK)
            Py_RETURN_NONE;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    int plain = size == HEAD_BYTES ? 0 : make_plain_request(self, self->received, size, args[1], &request);
    if (plain < 0)
        return NULL;
    if (plain)
        return request;
    if (size)
        count_declined(self);
    return PyBytes_FromStringAndSize(self->received, size);
}

PyObject *context_take(Context *self, PyObject *const *args, Py_ssize_t count) {
    PyObject *request;
    if (count != 2 || !PyBytes_CheckExact(args[0])) {
        PyErr_SetString(PyExc_TypeError, "take takes bytes and facts");
        return NULL;
    }
    int plain = make_plain_request(self, PyBytes_AS_STRING(args[0]), PyBytes_GET_SIZE(args[0]), args[1], &request);
    if (plain < 0)
        return NULL;
    if (plain)
        return request;
    count_declined(self);
    return Py_NewRef(args[0]);
}

/* The type */

static int context_traverse(Context *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->base_environ);
    Py_VISIT(self->loop);
    Py_VISIT(self->lock);
    Py_VISIT(self->acquire);
    Py_VISIT(self->release);
    Py_VISIT(self->adopt);
    Py_VISIT(self->trusts);
    Py_VISIT(self->read_head);
    Py_VISIT(self->add_lines);
    Py_VISIT(self->log_answer);
    Py_VISIT(self->parts);
    Py_VISIT(self->server_line);
    Py_VISIT(self->id_header);
    Py_VISIT(self->row);
    Py_VISIT(self->connection_type);
    Py_VISIT(self->readable);
    Py_VISIT(self->reading);
    Py_VISIT(self->ready);
    Py_VISIT(self->calling);
    Py_VISIT(self->read_mask);
    Py_VISIT(self->timeouts);
    Py_VISIT(self->clock);
    Py_VISIT(self->submit);
    Py_VISIT(self->unended);
    for (int number = 0; self->templates != NULL && number < TEMPLATES; number++) {
        Py_VISIT(self->templates[number].base);
        Py_VISIT(self->templates[number].environ);
    }
    return 0;
}

static void leave_process(Context *self) {
    self->lines_size = 0;
    Py_CLEAR(self->row);
    Py_CLEAR(self->add_lines);
    Py_CLEAR(self->log_answer);
}

static int context_clear(Context *self) {
    leave_process(self);
    Py_CLEAR(self->base_environ);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->lock);
    Py_CLEAR(self->acquire);
    Py_CLEAR(self->release);
    Py_CLEAR(self->adopt);
    Py_CLEAR(self->trusts);
    Py_CLEAR(self->read_head);
    Py_CLEAR(self->server_line);
    Py_CLEAR(self->id_header);
    Py_CLEAR(self->parts);
    Py_CLEAR(self->connection_type);
    Py_CLEAR(self->readable);
    Py_CLEAR(self->reading);
    Py_CLEAR(self->ready);
    Py_CLEAR(self->calling);
    Py_CLEAR(self->timeouts);
    Py_CLEAR(self->clock);
    Py_CLEAR(self->read_mask);
    Py_CLEAR(self->submit);
    Py_CLEAR(self->unended);
    for (int number = 0; self->templates != NULL && number < TEMPLATES; number++) {
        Py_CLEAR(self->templates[number].base);
        Py_CLEAR(self->templates[number].environ);
    }
    return 0;
}

static void context_dealloc(Context *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    context_clear(self);
    PyMem_Free(self->received);
    PyMem_Free(self->lines);
    for (int number = 0; self->remembered != NULL && number < LINES; number++)
        Py_CLEAR(self->remembered[number].text);
    PyMem_Free(self->remembered);
    PyMem_Free(self->templates);
    PyMem_Free(self->line_parts);
    PyMem_Free(self->spare.text);
    type->tp_free(self);
    Py_DECREF(type);
}

/* What is done with a field in which a proxy speaks for its client, by the names of those that it sets. */
static int set_forwarded(Rules *rules, PyObject *named) {
    static const char *const names[] = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port",
                                        "forwarded"};
    rules->trust = named != Py_None;
    for (int number = 0; rules->trust && number < 5; number++) {
        PyObject *name = PyUnicode_FromString(names[number]);
        int is_named = name == NULL ? -1 : PySequence_Contains(named, name);
        Py_XDECREF(name);
        if (is_named < 0)
            return -1;
        rules->forwarded[number] = !is_named ? DROPPED : number < 2 ? READ : DECLINED;
    }
    return 0;
}

/* The fields in which proxies give an id, the one that goes first first. */
static int set_id_fields(Rules *rules, PyObject *fields) {
    static const char *const names[] = {"x-request-id", "x-correlation-id", "traceparent", "x-amzn-trace-id"};
    for (Py_ssize_t at = 0; at < PyTuple_GET_SIZE(fields); at++) {
        PyObject *field = PyTuple_GET_ITEM(fields, at);
        int number = 0;
        while (number < 4 && !(PyUnicode_Check(field) && PyUnicode_CompareWithASCIIString(field, names[number]) == 0))
            number++;
        if (number == 4) {
            PyErr_Format(PyExc_ValueError, "%R is no field with an id that is known here", field);
            return -1;
        }
        if (rules->id_rank[number] == 0)
            rules->id_rank[number] = (int)at + 1;
    }
    return 0;
}

static int set_id_header(Context *self, PyObject *name) {
    Py_ssize_t size = PyBytes_GET_SIZE(name);
    if (size == 0)
        return 0;
    if (size > NAME_BYTES) {
        PyErr_SetString(PyExc_ValueError, "the name of the field for ids is too long");
        return -1;
    }
    for (Py_ssize_t at = 0; at < size; at++)
        self->id_name[at] = lower((unsigned char)PyBytes_AS_STRING(name)[at]);
    self->id_header = Py_NewRef(name);
    return 0;
}

static int set_limits(Rules *rules, PyObject *limits) {
    return PyArg_ParseTuple(limits, "nnnn;limits must be (request line, fields, field size, head)",
                            &rules->request_line, &rules->fields, &rules->field_size, &rules->head)
               ? 0
               : -1;
}

/* A view of its own: one exported by another memoryview must not outlive that, as it may in a circle. */
static int set_row(Context *self, PyObject *row) {
    if (row == Py_None)
        return 0;
    self->row = PyMemoryView_FromObject(row);
    if (self->row == NULL)
        return -1;
    const Py_buffer *view = PyMemoryView_GET_BUFFER(self->row);
    Py_ssize_t thread_bytes = THREAD_WORDS * 8 + LINE_BYTES;
    if (view->readonly || !PyBuffer_IsContiguous(view, 'C') || (uintptr_t)view->buf % 8 || self->threads < 1 ||
        self->threads > (view->len - ROW_WORDS * 8) / thread_bytes) {
        PyErr_SetString(PyExc_ValueError, "the row cannot be written, is not aligned, or too small for its threads");
        return -1;
    }
    self->words = view->buf;
    return 0;
}

static PyObject *context_new(PyTypeObject *type, PyObject *args, PyObject *keywords) {
    static char *names[] = {"limits", "forwarded", "trusts", "id_fields", "id_header", "base_environ", "loop", "loop_lock",
                            "adopt", "read_head", "server_line", "row", "threads", "renewal", "add_lines",
                            "log_answer", "line_parts", NULL};
    PyObject *limits, *forwarded, *trusts, *id_fields, *id_header, *base_environ, *loop, *lock, *adopt, *read_head;
    PyObject *server_line, *row, *add_lines, *log_answer, *line_parts;
    Py_ssize_t threads;
    unsigned long long renewal;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!OOO!SOOOOOSOnKOOO!:Context", names, &PyTuple_Type, &limits,
                                     &forwarded, &trusts, &PyTuple_Type, &id_fields, &id_header, &base_environ, &loop,
                                     &lock, &adopt, &read_head, &server_line, &row, &threads, &renewal,
                                     &add_lines, &log_answer, &PyTuple_Type, &line_parts))
        return NULL;
    Context *self = (Context *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->state = PyType_GetModuleState(type);
    self->threads = threads;
    self->renewal = renewal;
    self->trusts = trusts == Py_None ? NULL : Py_NewRef(trusts);
    self->add_lines = add_lines == Py_None ? NULL : Py_NewRef(add_lines);
    self->log_answer = log_answer == Py_None ? NULL : Py_NewRef(log_answer);
    self->base_environ = Py_NewRef(base_environ);
    self->loop = Py_NewRef(loop);
    self->lock = Py_NewRef(lock);
    self->adopt = Py_NewRef(adopt);
    self->read_head = Py_NewRef(read_head);
    self->server_line = Py_NewRef(server_line);
    self->acquire = PyObject_GetAttrString(lock, "acquire");
    self->release = PyObject_GetAttrString(lock, "release");
    self->received = PyMem_Malloc(HEAD_BYTES);
    self->lines = PyMem_Malloc(GATHERED_BYTES);
    self->remembered = PyMem_Calloc(LINES, sizeof *self->remembered);
    self->templates = PyMem_Calloc(TEMPLATES, sizeof *self->templates);
    bool has_room = self->received != NULL && self->lines != NULL && self->remembered != NULL &&
                    self->templates != NULL;
    if (!has_room)
        PyErr_NoMemory();
    if (!has_room || self->acquire == NULL || self->release == NULL ||
        set_limits(&self->rules, limits) < 0 || set_forwarded(&self->rules, forwarded) < 0 ||
        set_line_parts(self, line_parts) < 0 || set_id_fields(&self->rules, id_fields) < 0 || set_id_header(self, id_header) < 0 ||
        seed_ids(&self->ids) < 0 || set_row(self, row) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *context_forget(Context *self, PyObject *Py_UNUSED(ignored)) {
    leave_process(self);
    self->forgotten = true;
    if (seed_ids(&self->ids) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *context_hand_over_lines(Context *self, PyObject *Py_UNUSED(ignored)) {
    if (hand_over_lines(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"accept", (PyCFunction)(void (*)(void))context_accept, METH_FASTCALL,
     "accept(fd, kind, names): an AcceptedSocket, or None where no client waits. Raises OSError."},
    {"read", (PyCFunction)(void (*)(void))context_read, METH_FASTCALL,
     "read(fd, facts): a Request, the bytes that it is not made of, or None where nothing has come. Raises OSError."},
    {"take", (PyCFunction)(void (*)(void))context_take, METH_FASTCALL,
     "take(data, facts): a Request, or data itself."},
    {"attach", (PyCFunction)(void (*)(void))context_attach, METH_FASTCALL,
     "attach(connection_class, slots, states, timeouts, submit, unended): what receive_all and serve need of the loop."},
    {"receive_all", (PyCFunction)(void (*)(void))context_receive_all, METH_FASTCALL,
     "receive_all(events, targets, waiting, now): receive what is plain; a list of what is left to be called, with its argument."},
    {"serve", (PyCFunction)(void (*)(void))context_serve, METH_FASTCALL,
     "serve(connection, app, thread): whether it was served here, and not left as it was."},
    {"hand_over_lines", (PyCFunction)context_hand_over_lines, METH_NOARGS,
     "hand_over_lines(): give the access log the lines that were gathered here."},
    {"forget", (PyCFunction)context_forget, METH_NOARGS,
     "forget(): in a forked child, leave scoreboard and access log to the worker, and make other ids than it."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"served", T_ULONGLONG, offsetof(Context, served), READONLY, "answers that were sent from here"},
    {"declined", T_ULONGLONG, offsetof(Context, declined), READONLY, "reads and answers that were left to the Python code"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "What the requests of a worker have in common."},
    {Py_tp_new, context_new},
    {Py_tp_dealloc, context_dealloc},
    {Py_tp_traverse, context_traverse},
    {Py_tp_clear, context_clear},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec context_spec = {
    .name = "forkserver.server.wsgi.accelerator._exchange.Context",
    .basicsize = sizeof(Context),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};
