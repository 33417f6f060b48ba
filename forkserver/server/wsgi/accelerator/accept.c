/* Accepting a connection, as Listener.accept and client_address have it, and what its requests say of their client.

   Python's object for a socket costs as much as to read a request. It is made first where something but the plain
   exchange asks for it, and has the descriptor from then on (``detach``); until then this one has it, and closes it.

   Source: accept(2), ip(7), ipv6(7), fcntl(2) on F_DUPFD_CLOEXEC, RFC 4291 section 2.5.5.2. */
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

static PyMethodDef methods[] = {
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
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {0, NULL},
};

PyType_Spec accepted_spec = {
    .name = "forkserver.server.wsgi.accelerator._exchange.AcceptedSocket",
    .basicsize = sizeof(AcceptedSocket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};
