/* Connections as the loop has them: accepting one, as Listener.accept and client_address have it; receiving from all that
   are ready, and serving one, as Connection.readable and Connection.serve have it.

   Python's object for a socket costs as much as to read a request. It is made first where something but the plain
   exchange asks for it, and has the descriptor from then on (``detach``); until then an AcceptedSocket has it, and
   closes it.

   A connection is an object of the Python code, whose slots are read and written here as that would. Where one is not
   as it must be for a plain request, nothing of it is touched, and the Python code goes on.

   Source: accept(2), ip(7), ipv6(7), fcntl(2) on F_DUPFD_CLOEXEC, RFC 4291 section 2.5.5.2, recv(2). */
#include "exchange.h"
#include "structmember.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOW_NUMBERS = 512, SELECT_LIMIT = 1024 };  /* as descriptor_limit.py has them */

typedef struct {
    PyObject_HEAD
    int fd;          /* -1 once it was closed, or is another's */
    PyObject *kind;  /* family, type and protocol of its socket */
    PyObject *peer;  /* the client's address */
    PyObject *facts;
} AcceptedSocket;

/* Errors of accept4(2) */

/* A descriptor; -1 where no client waits, -2 with an exception set. As PEP 475 has it, a signal does not end it. */
static int accept_one(int listener, struct sockaddr_storage *address, socklen_t *size) {
    for (;;) {
        int fd, error;
        *size = sizeof *address;
        Py_BEGIN_ALLOW_THREADS
        fd = accept4(listener, (struct sockaddr *)address, size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        error = errno;
        Py_END_ALLOW_THREADS
        if (fd >= 0)
            return fd;
        if (error == EAGAIN || error == EWOULDBLOCK)
            return -1;
        if (error != EINTR) {
            errno = error;
            PyErr_SetFromErrno(PyExc_OSError);
            return -2;
        }
        if (PyErr_CheckSignals() < 0)
            return -2;
    }
}

/* As descriptor_limit.move_up: low numbers are the application's. */
static int move_up(int fd) {
    if (fd < LOW_NUMBERS || fd >= SELECT_LIMIT)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, SELECT_LIMIT);
    if (moved < 0)
        return fd;
    close(fd);
    return moved;
}

/* Addresses */

static PyObject *make_ascii(const char *text, Py_ssize_t size) {
    PyObject *made = PyUnicode_New(size, 127);
    if (made != NULL)
        memcpy(PyUnicode_1BYTE_DATA(made), text, (size_t)size);
    return made;
}

static char *put_number(char *to, unsigned number) {
    unsigned unit = 1;
    while (number / unit >= 10)
        unit *= 10;
    for (; unit; unit /= 10)
        *to++ = (char)('0' + number / unit % 10);
    return to;
}

static PyObject *ipv4_host(const unsigned char *bytes) {
    char text[16], *to = text;
    for (int at = 0; at < 4; at++) {
        to = put_number(to, bytes[at]);
        *to++ = '.';
    }
    return make_ascii(text, to - 1 - text);
}

static PyObject *ipv6_host(const struct in6_addr *address) {
    char text[INET6_ADDRSTRLEN];
    if (inet_ntop(AF_INET6, address, text, sizeof text) == NULL)
        return PyErr_SetFromErrno(PyExc_OSError);
    return make_ascii(text, (Py_ssize_t)strlen(text));
}

static PyObject *port_text(in_port_t port) {
    char text[8];
    return make_ascii(text, put_number(text, ntohs(port)) - text);
}

/* The address as a tuple, and its port as text, None where there is none; -1 with an exception set. */
static int read_address(const struct sockaddr_storage *address, PyObject **peer, PyObject **port) {
    const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)address;
    *port = NULL;
    if (address->ss_family == AF_INET) {
        *peer = Py_BuildValue("(NI)", ipv4_host((const unsigned char *)&ipv4->sin_addr), ntohs(ipv4->sin_port));
        *port = port_text(ipv4->sin_port);
    } else if (address->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&ipv6->sin6_addr)) {
        *peer = Py_BuildValue("(NI)", ipv4_host(ipv6->sin6_addr.s6_addr + 12), ntohs(ipv6->sin6_port));
        *port = port_text(ipv6->sin6_port);
    } else if (address->ss_family == AF_INET6) {
        *peer = Py_BuildValue("(NIII)", ipv6_host(&ipv6->sin6_addr), ntohs(ipv6->sin6_port),
                              ntohl(ipv6->sin6_flowinfo), ipv6->sin6_scope_id);
        *port = port_text(ipv6->sin6_port);
    } else {
        *peer = Py_BuildValue("(si)", "", 0);
        *port = Py_NewRef(Py_None);
    }
    return *peer == NULL || *port == NULL ? -1 : 0;
}

/* The tuple that Context.read takes. */
static PyObject *make_facts(Context *context, PyObject *host, PyObject *port, PyObject *names) {
    bool named = names != Py_None;
    int trusted = 0;
    if (context->trusts != NULL) {
        PyObject *said = PyObject_CallOneArg(context->trusts, host);
        trusted = said == NULL ? -1 : PyObject_IsTrue(said);
        Py_XDECREF(said);
        if (trusted < 0)
            return NULL;
    }
    return PyTuple_Pack(7, host, port, named ? PyTuple_GET_ITEM(names, 0) : Py_None,
                        named ? PyTuple_GET_ITEM(names, 1) : Py_None, trusted ? Py_True : Py_False, Py_None, Py_None);
}

static AcceptedSocket *make_accepted(Context *context, const struct sockaddr_storage *address, PyObject *kind,
                                     PyObject *names) {
    PyTypeObject *type = context->state->accepted_type;
    PyObject *port = NULL;
    AcceptedSocket *self = (AcceptedSocket *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->fd = -1;
    self->kind = Py_NewRef(kind);
    if (read_address(address, &self->peer, &port) == 0)
        self->facts = make_facts(context, PyTuple_GET_ITEM(self->peer, 0), port, names);
    Py_XDECREF(port);
    if (self->facts == NULL)
        Py_CLEAR(self);
    return self;
}

PyObject *context_accept(Context *self, PyObject *const *args, Py_ssize_t count) {
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t size;
    if (count != 3 || !PyTuple_CheckExact(args[1]) ||
        (args[2] != Py_None && (!PyTuple_CheckExact(args[2]) || PyTuple_GET_SIZE(args[2]) != 2))) {
        PyErr_SetString(PyExc_TypeError, "accept takes a descriptor, the kind of its sockets, and names or None");
        return NULL;
    }
    int listener = as_descriptor(args[0]);
    if (listener == -2)
        return NULL;
    int fd = accept_one(listener, &address, &size);
    if (fd == -1)
        Py_RETURN_NONE;
    if (fd < 0)
        return NULL;
    AcceptedSocket *accepted = make_accepted(self, &address, args[1], args[2]);
    if (accepted == NULL)
        close(fd);
    else
        accepted->fd = move_up(fd);
    return (PyObject *)accepted;
}

/* The type */

static void close_descriptor(AcceptedSocket *self) {
    int fd = self->fd;
    self->fd = -1;
    if (fd >= 0) {
        Py_BEGIN_ALLOW_THREADS
        close(fd);
        Py_END_ALLOW_THREADS
    }
}

static PyObject *accepted_fileno(AcceptedSocket *self, PyObject *Py_UNUSED(ignored)) {
    return PyLong_FromLong(self->fd);
}

static PyObject *accepted_close(AcceptedSocket *self, PyObject *Py_UNUSED(ignored)) {
    close_descriptor(self);
    Py_RETURN_NONE;
}

static PyObject *accepted_detach(AcceptedSocket *self, PyObject *Py_UNUSED(ignored)) {
    int fd = self->fd;
    self->fd = -1;
    return PyLong_FromLong(fd);
}

static void accepted_dealloc(AcceptedSocket *self) {
    PyTypeObject *type = Py_TYPE(self);
    close_descriptor(self);
    Py_XDECREF(self->kind);
    Py_XDECREF(self->peer);
    Py_XDECREF(self->facts);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef accepted_methods[] = {
    {"fileno", (PyCFunction)accepted_fileno, METH_NOARGS, "fileno(): the descriptor, -1 once it is closed."},
    {"close", (PyCFunction)accepted_close, METH_NOARGS, "close(): close the descriptor. Closing twice is once."},
    {"detach", (PyCFunction)accepted_detach, METH_NOARGS, "detach(): the descriptor, which is the caller's to close."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"kind", T_OBJECT, offsetof(AcceptedSocket, kind), READONLY, "family, type and protocol for a socket of it"},
    {"peer", T_OBJECT, offsetof(AcceptedSocket, peer), READONLY, "address of the client"},
    {"facts", T_OBJECT, offsetof(AcceptedSocket, facts), READONLY, "what Context.read takes"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "A connection that was accepted, and does not block."},
    {Py_tp_dealloc, accepted_dealloc},
    {Py_tp_methods, accepted_methods},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec accepted_spec = {
    .name = "forkserver.server.wsgi.accelerator._exchange.AcceptedSocket",
    .basicsize = sizeof(AcceptedSocket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

/* The slots of a connection */

static const char *const SLOT_NAMES[SLOTS] = {"state", "queued", "buffer", "facts", "fd", "head", "whole_at",
                                              "backlog_seconds", "exchange", "persistent", "queue", "parked_at",
                                              "interest", "upload", "handler", "_transport", "thread", "stays"};

static PyObject **slot_of(const Context *self, PyObject *connection, Slot slot) {
    return (PyObject **)((char *)connection + self->slots[slot]);
}

/* Borrowed; NULL where nothing was put there. */
static PyObject *get(const Context *self, PyObject *connection, Slot slot) { return *slot_of(self, connection, slot); }

static void set(const Context *self, PyObject *connection, Slot slot, PyObject *value) {
    PyObject **at = slot_of(self, connection, slot), *before = *at;
    *at = Py_NewRef(value);
    Py_XDECREF(before);
}

/* ``descriptors`` are those of the class, by their names. */
static int find_slots(PyTypeObject *type, PyObject *descriptors, Py_ssize_t *offsets) {
    for (int slot = 0; slot < SLOTS; slot++) {
        PyObject *found = PyDict_GetItemString(descriptors, SLOT_NAMES[slot]);
        bool is_of_type = found != NULL && Py_IS_TYPE(found, &PyMemberDescr_Type) &&
                          PyType_IsSubtype(type, ((PyMemberDescrObject *)found)->d_common.d_type);
        const PyMemberDef *member = is_of_type ? ((PyMemberDescrObject *)found)->d_member : NULL;
        if (member == NULL || member->type != T_OBJECT_EX || member->flags & READONLY) {
            PyErr_Format(PyExc_TypeError, "%s is no slot of a connection", SLOT_NAMES[slot]);
            return -1;
        }
        offsets[slot] = member->offset;
    }
    return 0;
}

PyObject *context_attach(Context *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 6 || !PyType_Check(args[0]) || !PyDict_CheckExact(args[1]) || !PyTuple_CheckExact(args[2]) ||
        PyTuple_GET_SIZE(args[2]) != 3 || !PyDict_CheckExact(args[5])) {
        PyErr_SetString(PyExc_TypeError, "attach takes a class, its slots, three states, timeouts, submit and a dict");
        return NULL;
    }
    Py_ssize_t offsets[SLOTS];
    PyObject *readable = PyObject_GetAttrString(args[0], "readable");
    PyObject *read_mask = PyObject_GetAttrString(args[0], "read_mask");
    PyObject *clock = PyObject_GetAttrString(args[3], "clock");
    if (readable == NULL || read_mask == NULL || clock == NULL || find_slots((PyTypeObject *)args[0], args[1], offsets) < 0) {
        Py_XDECREF(readable);
        Py_XDECREF(read_mask);
        Py_XDECREF(clock);
        return NULL;
    }
    memcpy(self->slots, offsets, sizeof offsets);  /* all at once: they go with the class */
    Py_XSETREF(self->readable, readable);
    Py_XSETREF(self->read_mask, read_mask);
    Py_XSETREF(self->clock, clock);
    Py_XSETREF(self->reading, Py_NewRef(PyTuple_GET_ITEM(args[2], 0)));
    Py_XSETREF(self->ready, Py_NewRef(PyTuple_GET_ITEM(args[2], 1)));
    Py_XSETREF(self->calling, Py_NewRef(PyTuple_GET_ITEM(args[2], 2)));
    Py_XSETREF(self->timeouts, Py_NewRef(args[3]));
    Py_XSETREF(self->submit, Py_NewRef(args[4]));
    Py_XSETREF(self->unended, Py_NewRef(args[5]));
    Py_XSETREF(self->connection_type, Py_NewRef(args[0]));
    Py_RETURN_NONE;
}

static bool is_connection(const Context *self, PyObject *object) {
    return (PyObject *)Py_TYPE(object) == self->connection_type;
}

static bool is_empty(PyObject *buffer) {
    return buffer != NULL && PyBytes_CheckExact(buffer) && PyBytes_GET_SIZE(buffer) == 0;
}

/* Receiving */

/* The connection that ``target`` reads from, where it waits for a head of which nothing has come; borrowed. */
static PyObject *expecting(const Context *self, PyObject *target) {
    if (!PyMethod_Check(target) || PyMethod_GET_FUNCTION(target) != self->readable)
        return NULL;
    PyObject *connection = PyMethod_GET_SELF(target);
    if (!is_connection(self, connection) || get(self, connection, SLOT_STATE) != self->reading ||
        get(self, connection, SLOT_QUEUED) != Py_False || !is_empty(get(self, connection, SLOT_BUFFER)))
        return NULL;
    PyObject *facts = get(self, connection, SLOT_FACTS), *fd = get(self, connection, SLOT_FD);
    bool known = facts != NULL && PyTuple_CheckExact(facts) && PyTuple_GET_SIZE(facts) > 0;
    return known && fd != NULL && PyLong_CheckExact(fd) ? connection : NULL;
}

/* Have the request wait for the application: ``waiting`` is a deque, or None where its owner is to be told. */
static int submit(Context *self, PyObject *connection, PyObject *request, PyObject *waiting, PyObject *now) {
    PyObject *raw = ((Request *)request)->raw, *done = NULL;
    set(self, connection, SLOT_HEAD, request);
    set(self, connection, SLOT_STATE, self->ready);
    PyObject *seconds = get(self, connection, SLOT_BACKLOG_SECONDS);
    if (waiting == Py_None || seconds == NULL || !PyFloat_CheckExact(seconds) || PyFloat_AS_DOUBLE(seconds) != 0.0) {
        done = PyObject_CallFunctionObjArgs(self->submit, connection, raw, NULL);
    } else {
        set(self, connection, SLOT_WHOLE_AT, now);
        PyObject *call = PyTuple_Pack(2, connection, raw);
        if (call != NULL)
            done = PyObject_CallMethodOneArg(waiting, self->state->attr_append, call);
        Py_XDECREF(call);
    }
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Add what is left to be called to the list of that. */
static int leave(PyObject *left, PyObject *target, PyObject *event) {
    PyObject *pair = PyTuple_Pack(2, target, event);
    int failed = pair == NULL ? -1 : PyList_Append(left, pair);
    Py_XDECREF(pair);
    return failed;
}

/* What has come is for the Python code to read: at once, for what is called next may read, close or hand on the connection. */
static int pass_on(Context *self, PyObject *connection, Py_ssize_t size) {
    PyObject *data = PyBytes_FromStringAndSize(self->received, size);
    PyObject *done = data == NULL ? NULL : PyObject_CallMethodOneArg(connection, self->state->attr_receive, data);
    Py_XDECREF(data);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* A fault costs one connection, as in the Python code. */
static int blame(Context *self, PyObject *connection) {
    PyObject *error = take_exception();
    PyObject *done = PyObject_CallMethodObjArgs(self->loop, self->state->attr_handle_fault, connection, error, NULL);
    Py_XDECREF(error);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Receive what ``connection`` has sent; ``target`` and ``event`` are what the Python code would be called with. */
static int receive_for(Context *self, PyObject *connection, PyObject *target, PyObject *event, PyObject *waiting,
                       PyObject *now, PyObject *left) {
    PyObject *request;
    int fd = as_descriptor(get(self, connection, SLOT_FD));
    if (fd == -2)
        return blame(self, connection);
    ssize_t size = receive_head(self, fd);
    if (size <= 0)  /* the end, an error, or nothing: the Python code meets it again */
        return leave(left, target, event);
    PyObject *facts = Py_NewRef(get(self, connection, SLOT_FACTS));
    int plain = size == HEAD_BYTES ? 0 : make_plain_request(self, self->received, size, facts, &request);
    Py_DECREF(facts);
    int failed = plain < 0 ? -1 : 0;
    if (plain > 0) {
        failed = submit(self, connection, request, waiting, now);
        Py_DECREF(request);
    } else if (plain == 0) {
        count_declined(self);
        failed = pass_on(self, connection, size);
    }
    return failed ? blame(self, connection) : 0;
}

PyObject *context_receive_all(Context *self, PyObject *const *args, Py_ssize_t count) {
    if (self->connection_type == NULL || count != 4 || !PyList_CheckExact(args[0]) || !PyDict_CheckExact(args[1]) ||
        !PyFloat_CheckExact(args[3])) {
        PyErr_SetString(PyExc_TypeError, "receive_all takes events, targets, a deque or None, and a time, once attached");
        return NULL;
    }
    PyObject *left = PyList_New(0);
    for (Py_ssize_t number = 0; left != NULL && number < PyList_GET_SIZE(args[0]); number++) {
        PyObject *fd, *event, *pair = Py_NewRef(PyList_GET_ITEM(args[0], number));
        int failed = PyArg_ParseTuple(pair, "OO", &fd, &event) ? 0 : -1;
        PyObject *target = failed ? NULL : PyDict_GetItemWithError(args[1], fd);
        if (target != NULL) {
            Py_INCREF(target);
            PyObject *connection = expecting(self, target);
            failed = connection == NULL ? leave(left, target, event)
                                        : receive_for(self, connection, target, event, args[2], args[3], left);
            Py_DECREF(target);
        }
        Py_DECREF(pair);
        if (failed || (target == NULL && PyErr_Occurred()))
            Py_CLEAR(left);
    }
    return left;
}

/* Serving */

static bool is_at_most(PyObject *seconds, double least, PyObject *most) {
    return seconds != NULL && PyFloat_CheckExact(seconds) && PyFloat_CheckExact(most) &&
           least - PyFloat_AS_DOUBLE(seconds) <= PyFloat_AS_DOUBLE(most);
}

/* Whether nothing is kept for the client: 1, 0, -1. */
static int has_sent_all(Context *self, PyObject *transport) {
    if (transport == NULL || transport == Py_None)
        return transport != NULL;
    PyObject *out = PyObject_GetAttr(transport, self->state->attr_out);
    Py_XDECREF(out);
    return out == NULL ? -1 : out == Py_None;
}

/* As the first case of Connection._settle, where the deadline stays as it is: 0 where it is another one, -1. */
static int settle(Context *self, PyObject *connection) {
    State *state = self->state;
    if (self->forgotten || PyDict_GET_SIZE(self->unended) || get(self, connection, SLOT_STATE) != self->calling ||
        get(self, connection, SLOT_UPLOAD) != Py_None || get(self, connection, SLOT_HANDLER) != Py_None ||
        !is_empty(get(self, connection, SLOT_BUFFER)) || get(self, connection, SLOT_INTEREST) != self->read_mask)
        return 0;
    int all = has_sent_all(self, get(self, connection, SLOT_TRANSPORT));
    if (all <= 0)
        return all;
    PyObject *now = PyObject_CallNoArgs(self->clock);
    PyObject *resting = now == NULL ? NULL : PyObject_GetAttr(self->timeouts, state->attr_resting);
    PyObject *most = resting == NULL ? NULL : PyObject_GetAttr(self->timeouts, state->attr_park_seconds);
    int settled = most == NULL ? -1
                  : !PyFloat_CheckExact(now) || get(self, connection, SLOT_QUEUE) != resting
                      ? 0
                      : is_at_most(get(self, connection, SLOT_PARKED_AT), PyFloat_AS_DOUBLE(now), most);
    if (settled > 0 && PyObject_SetAttr(self->timeouts, state->attr_now, now) < 0)
        settled = -1;
    if (settled > 0) {
        set(self, connection, SLOT_PERSISTENT, Py_True);
        set(self, connection, SLOT_STATE, self->reading);
        set(self, connection, SLOT_HEAD, Py_None);
    }
    Py_XDECREF(most);
    Py_XDECREF(resting);
    Py_XDECREF(now);
    return settled;
}

/* Whether the connection may go on after the answer: 1, 0, -1. */
static int may_persist(Context *self, PyObject *connection) {
    State *state = self->state;
    PyObject *names[] = {state->attr_closing, state->attr_retiring};
    int asked = get(self, connection, SLOT_STAYS) == Py_False ? 1 : 2;
    for (int number = 0; number < asked; number++) {
        PyObject *value = PyObject_GetAttr(self->loop, names[number]);
        int is_true = value == NULL ? -1 : PyObject_IsTrue(value);
        Py_XDECREF(value);
        if (is_true)
            return is_true < 0 ? -1 : 0;
    }
    return 1;
}

/* The Python code goes on, with what the call has given or raised. */
static int conclude(Context *self, PyObject *connection, PyObject *request, PyObject *outcome) {
    PyObject *error = outcome == NULL ? take_exception() : NULL;
    PyObject *done = PyObject_CallMethodObjArgs(connection, self->state->attr_conclude, request,
                                                outcome == NULL ? Py_None : outcome, error == NULL ? Py_None : error,
                                                NULL);
    Py_XDECREF(error);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

PyObject *context_serve(Context *self, PyObject *const *args, Py_ssize_t count) {
    if (count != 3 || self->connection_type == NULL || !PyLong_CheckExact(args[2])) {
        PyErr_SetString(PyExc_TypeError, "serve takes a connection, an application and a thread, once attached");
        return NULL;
    }
    PyObject *connection = args[0];
    if (!is_connection(self, connection) || get(self, connection, SLOT_STATE) != self->ready)
        Py_RETURN_FALSE;
    PyObject *request = get(self, connection, SLOT_HEAD);
    if (request == NULL || !Py_IS_TYPE(request, self->state->request_type) || ((Request *)request)->context != self)
        Py_RETURN_FALSE;
    Py_INCREF(request);
    int persistent = ((Request *)request)->persistent ? may_persist(self, connection) : 0;
    Py_ssize_t thread = persistent < 0 ? -1 : PyLong_AsSsize_t(args[2]);
    if (thread == -1 && PyErr_Occurred()) {
        Py_DECREF(request);
        return NULL;
    }
    set(self, connection, SLOT_THREAD, args[2]);
    set(self, connection, SLOT_EXCHANGE, request);
    set(self, connection, SLOT_STATE, self->calling);
    PyObject *outcome = answer((Request *)request, args[1], connection, thread, persistent);
    if (((Request *)request)->ended)  /* at once: an exception may come before the Python code has done anything */
        set(self, connection, SLOT_EXCHANGE, Py_None);
    int settled = outcome == Py_True ? settle(self, connection) : 0;
    if (settled == 0)
        settled = conclude(self, connection, request, outcome);
    Py_XDECREF(outcome);
    Py_DECREF(request);
    return settled < 0 ? NULL : Py_NewRef(Py_True);
}
