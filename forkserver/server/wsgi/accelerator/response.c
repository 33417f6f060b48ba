/* Status, headers and body to the bytes of an answer, and those to the kernel, or to the transport that seals: what ``check``, ``serialize``,
   ``Response._frame`` and ``Transport.send`` make of a plain one.

   The head is written when start_response is called, for the application may change its list later. Whatever has a
   meaning beyond its text, or is wrong, is declined: the Python code sends it, or says what is wrong.

   The descriptor is asked for when all of it is there: the connection may have been closed during the call, and its
   number be another's by then.

   Source: PEP 3333 "The start_response() Callable", RFC 9110 section 8.6, RFC 9112 section 6.3; send(2), sendmsg(2). */
#include "exchange.h"
#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

static void append(Buffer *buffer, const char *text, Py_ssize_t size) {  /* room is reserved */
    memcpy(buffer->text + buffer->size, text, (size_t)size);
    buffer->size += size;
}

/* The characters of an exact str whose text has one byte a character; NULL for every other object. */
static const char *one_byte_text(PyObject *object, Py_ssize_t *size) {
    if (!PyUnicode_CheckExact(object))
        return NULL;
#if PY_VERSION_HEX < 0x030c0000
    if (!PyUnicode_IS_READY(object))
        return NULL;
#endif
    if (PyUnicode_KIND(object) != PyUnicode_1BYTE_KIND)
        return NULL;
    *size = PyUnicode_GET_LENGTH(object);
    return (const char *)PyUnicode_1BYTE_DATA(object);
}

static bool all_in(const char *text, Py_ssize_t size, int class) {
    for (Py_ssize_t at = 0; at < size; at++)
        if (!is((unsigned char)text[at], class))
            return false;
    return true;
}

/* Fields that mean something to the connection, or that the server sets itself; Content-Length apart. */
static bool is_special(const char *name, Py_ssize_t size) {
    static const char *const special[] = {"connection", "date",    "keep-alive",        "proxy-connection", "server",
                                          "te",         "trailer", "transfer-encoding", "upgrade"};
    char first = lower((unsigned char)*name);
    for (size_t number = 0; number < sizeof special / sizeof *special; number++)
        if (first == *special[number] && equals_ignoring_case(name, size, special[number]))
            return true;
    return false;
}

static bool take_length(Request *request, const char *value, Py_ssize_t size) {
    Py_ssize_t length = 0;
    if (size < 1 || size > 18 || !all_in(value, size, DIGIT) || request->length >= 0)
        return false;
    for (Py_ssize_t at = 0; at < size; at++)
        length = length * 10 + (value[at] - '0');
    request->length = length;
    return true;
}

static int serialize_status(Request *request, PyObject *status) {
    Py_ssize_t size;
    const char *text = one_byte_text(status, &size);
    if (text == NULL || size < 4 || text[0] < '2' || text[0] > '9' || !all_in(text, 3, DIGIT) || text[3] != ' ' ||
        !all_in(text, size, IN_VALUE))
        return 0;
    if (reserve(&request->answer, size + 11) < 0)
        return -1;
    append(&request->answer, "HTTP/1.1 ", 9);
    append(&request->answer, text, size);
    append(&request->answer, "\r\n", 2);
    return (text[0] - '0') * 100 + (text[1] - '0') * 10 + (text[2] - '0');
}

static int serialize_header(Request *request, PyObject *header) {
    Py_ssize_t name_size = 0, value_size = 0;
    if (!PyTuple_CheckExact(header) || PyTuple_GET_SIZE(header) != 2)
        return 0;
    const char *name = one_byte_text(PyTuple_GET_ITEM(header, 0), &name_size);
    const char *value = one_byte_text(PyTuple_GET_ITEM(header, 1), &value_size);
    if (name == NULL || value == NULL || name_size == 0 || !all_in(name, name_size, IN_TOKEN) ||
        !all_in(value, value_size, IN_VALUE))
        return 0;
    if (equals_ignoring_case(name, name_size, "content-length"))
        return take_length(request, value, value_size);
    if (request->context->id_header != NULL && equals_ignoring_case(name, name_size, request->context->id_name))
        request->has_id_header = true;
    if (is_special(name, name_size))
        return 0;
    if (value_size > PY_SSIZE_T_MAX / 4 || name_size > PY_SSIZE_T_MAX / 4) {
        PyErr_NoMemory();
        return -1;
    }
    if (reserve(&request->answer, name_size + value_size + 4) < 0)
        return -1;
    append(&request->answer, name, name_size);
    append(&request->answer, ": ", 2);
    append(&request->answer, value, value_size);
    append(&request->answer, "\r\n", 2);
    return 1;
}

int serialize_head(Request *request, PyObject *status, PyObject *headers) {
    request->answer.size = 0;
    request->length = -1;
    request->has_id_header = false;
    if (!PyList_CheckExact(headers))
        return 0;
    int code = serialize_status(request, status);
    if (code <= 0)
        return code;
    for (Py_ssize_t number = 0; number < PyList_GET_SIZE(headers); number++) {
        int plain = serialize_header(request, PyList_GET_ITEM(headers, number));
        if (plain <= 0)
            return plain;
    }
    request->code = code;
    request->text_size = request->answer.size;
    return 1;
}

bool is_muted(const Request *request) {
    return request->method == request->context->state->methods[1] || request->code == 204 || request->code == 304;
}

/* What TLS seals stands twice in memory until the client has taken it: a large body must not. */
bool is_sendable(const Request *request, Py_ssize_t size) { return request->send == NULL || size <= SEAL_BYTES; }

Py_ssize_t size_of_blocks(const Request *request) {
    PyObject *result = request->result;
    Py_ssize_t total = 0;
    if (!PyList_CheckExact(result) && !PyTuple_CheckExact(result))
        return -1;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(result);
    for (Py_ssize_t number = 0; number < count; number++) {
        PyObject *block = PySequence_Fast_GET_ITEM(result, number);
        if (!PyBytes_CheckExact(block) || PyBytes_GET_SIZE(block) > PY_SSIZE_T_MAX - total)
            return -1;
        total += PyBytes_GET_SIZE(block);
    }
    if (!is_muted(request) && request->length >= 0 && request->length != total)
        return -1;
    return (total <= JOIN_BYTES || count == 1) && is_sendable(request, total) ? total : -1;
}

/* Bytes of the field that tells the request's id; 0 where there is none. */
static Py_ssize_t id_line_size(const Request *request) {
    PyObject *name = request->context->id_header;
    return name == NULL || request->has_id_header ? 0 : PyBytes_GET_SIZE(name) + PyUnicode_GET_LENGTH(request->id) + 4;
}

static void append_id_line(const Request *request, Buffer *answer) {
    append(answer, PyBytes_AS_STRING(request->context->id_header), PyBytes_GET_SIZE(request->context->id_header));
    append(answer, ": ", 2);
    append(answer, (const char *)PyUnicode_1BYTE_DATA(request->id), PyUnicode_GET_LENGTH(request->id));
    append(answer, "\r\n", 2);
}

static void append_length(Buffer *answer, Py_ssize_t length) {
    char digits[20];
    int at = sizeof digits;
    do
        digits[--at] = (char)('0' + length % 10);
    while (length /= 10);
    append(answer, "Content-Length: ", 16);
    append(answer, digits + at, (Py_ssize_t)sizeof digits - at);
    append(answer, "\r\n", 2);
}

/* End the head, and copy the blocks of ``size`` bytes behind it, or give a reference to the one that follows it. */
int serialize_rest(Request *request, PyObject *const *blocks, Py_ssize_t count, Py_ssize_t size,
                   PyObject **body) {
    Context *context = request->context;
    Buffer *answer = &request->answer;
    Py_ssize_t length = request->length;
    bool head = request->method == context->state->methods[1], muted = is_muted(request);
    if (length < 0 && (!muted || (head && size > 0)))
        length = size;
    if (muted)
        size = 0;
    const char *date = context_date(context);
    Py_ssize_t date_size = (Py_ssize_t)strlen(date), server_size = PyBytes_GET_SIZE(context->server_line);
    Py_ssize_t id_size = id_line_size(request);
    bool joined = size <= JOIN_BYTES;
    if (server_size > PY_SSIZE_T_MAX / 4 ||
        reserve(answer, date_size + server_size + id_size + 96 + (joined ? size : 0)) < 0) {
        if (!PyErr_Occurred())
            PyErr_NoMemory();
        return -1;
    }
    append(answer, date, date_size);
    append(answer, PyBytes_AS_STRING(context->server_line), server_size);
    if (id_size)
        append_id_line(request, answer);
    if (length >= 0 && request->code != 204)
        append_length(answer, length);
    if (!request->kept_open)
        append(answer, "Connection: close\r\n", 19);
    else if (!request->http11)
        append(answer, "Connection: keep-alive\r\n", 24);
    append(answer, "\r\n", 2);
    *body = joined ? NULL : Py_NewRef(blocks[0]);  /* another thread may take it out of the list */
    for (Py_ssize_t number = 0; joined && size && number < count; number++)
        append(answer, PyBytes_AS_STRING(blocks[number]), PyBytes_GET_SIZE(blocks[number]));
    return 0;
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

/* As send_answer, where the transport seals: what it gives back is sealed. */
static PyObject *send_by_transport(Request *self, PyObject *body, Py_ssize_t body_size) {
    PyObject *answer = PyBytes_FromStringAndSize(self->answer.text, self->answer.size);
    if (answer == NULL)
        return NULL;
    PyObject *parts[] = {answer, body};
    PyObject *rest = PyObject_Vectorcall(self->send, parts, body == NULL ? 1 : 2, NULL);
    Py_DECREF(answer);
    self->sent = true;
    if (rest == Py_None)
        return rest;
    self->sent_size = body_size;
    if (rest != NULL && !PyBytes_CheckExact(rest)) {
        PyErr_SetString(PyExc_TypeError, "the transport gives the bytes that were not taken, or None");
        Py_CLEAR(rest);
    }
    self->ended = rest == NULL;  /* it must not seem whole */
    if (rest == NULL || PyBytes_GET_SIZE(rest))
        return rest;
    Py_DECREF(rest);
    Py_RETURN_TRUE;
}

/* True where all of it is sent; the bytes that are not, or None where the client has gone. */
PyObject *send_answer(Request *self, PyObject *body, Py_ssize_t body_size) {
    if (self->send != NULL)
        return send_by_transport(self, body, body_size);
    int fd = descriptor_of(self->connection, self->context->state);
    if (fd == -2)
        return NULL;
    ssize_t taken = send_once(fd, &self->answer, body);  /* EBADF where it was closed meanwhile */
    self->sent = true;
    if (taken < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        Py_RETURN_NONE;
    if (taken < 0)
        taken = 0;
    self->sent_size = body_size;
    if (taken < self->answer.size + (body == NULL ? 0 : PyBytes_GET_SIZE(body))) {
        PyObject *rest = rest_of(&self->answer, body, taken);
        self->ended = rest == NULL;  /* it must not seem whole */
        return rest;
    }
    Py_RETURN_TRUE;
}
