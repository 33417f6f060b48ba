/* A plain head and a base environ to the environ of its request: what ``make_environ``, ``apply_forwarded`` and
   ``complete_environ`` make of such a head, in the same order.

   A field that is repeated, or has a key that the base has too, is declined: joining is the Python code's.

   Heads come in few shapes: the same fields in the same order. Where one comes again, its environ is not built key by
   key but copied from a template, which has all keys in their places, and the values that are remembered with the lines
   of fields; what else a request says is put there as it is into a new environ, None standing in its place. A template
   holds as long as the base is the same dict, which is replaced and not changed (BaseEnviron in environ.py).

   A request that no trusted proxy has given an id gets one as request_id.py makes it.

   Source: PEP 3333 "environ Variables"; RFC 9562 section 5.7; getrandom(2). */
#include "exchange.h"
#include <sys/random.h>
#include <time.h>

/* Take the reference to ``value``, which may be NULL for one that could not be made. */
static int put(PyObject *environ, PyObject *key, PyObject *value) {
    if (value == NULL)
        return -1;
    int failed = PyDict_SetItem(environ, key, value);
    Py_DECREF(value);
    return failed;
}

static PyObject *make_text(Span span, bool ascii) {
    if (!ascii || span.size < 2)
        return PyUnicode_DecodeLatin1(span.at, span.size, NULL);
    PyObject *text = PyUnicode_New(span.size, 127);
    if (text != NULL)
        memcpy(PyUnicode_1BYTE_DATA(text), span.at, (size_t)span.size);
    return text;
}

static int hex_digit(char character) {
    if (character >= '0' && character <= '9')
        return character - '0';
    character = lower((unsigned char)character);
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

/* The path with its escapes decoded: bytes as latin-1. What is no escape stays as it is. */
static PyObject *decode_path(Span path) {
    char *decoded = PyMem_Malloc((size_t)path.size);
    Py_ssize_t size = 0;
    if (decoded == NULL)
        return PyErr_NoMemory();
    for (Py_ssize_t at = 0; at < path.size; at++) {
        char character = path.at[at];
        if (character == '%' && path.size - at > 2) {
            int high = hex_digit(path.at[at + 1]), low = hex_digit(path.at[at + 2]);
            if (high >= 0 && low >= 0) {
                character = (char)(high << 4 | low);
                at += 2;
            }
        }
        decoded[size++] = character;
    }
    PyObject *text = PyUnicode_DecodeLatin1(decoded, size, NULL);
    PyMem_Free(decoded);
    return text;
}

static PyObject *make_key(Span name) {
    PyObject *key = PyUnicode_New(name.size + 5, 127);
    if (key == NULL)
        return NULL;
    char *to = (char *)PyUnicode_1BYTE_DATA(key);
    memcpy(to, "HTTP_", 5);
    for (Py_ssize_t at = 0; at < name.size; at++) {
        char character = lower((unsigned char)name.at[at]);
        to[5 + at] = character == '-' ? '_' : character >= 'a' && character <= 'z' ? (char)(character - 32) : character;
    }
    return key;
}

static int put_target(State *state, PyObject *environ, const Head *head, bool has_template) {
    PyObject *target = make_text(head->target, true);
    int failed = -1;
    if (target == NULL)
        return -1;
    if ((has_template || PyDict_SetItem(environ, state->request_method, state->methods[head->method]) == 0) &&
        put(environ, state->path_info,
            head->escaped ? decode_path(head->path)
            : head->path.size == head->target.size ? Py_NewRef(target)
                                                   : make_text(head->path, true)) == 0 &&
        put(environ, state->query_string, make_text(head->query, true)) == 0 &&
        PyDict_SetItem(environ, state->request_uri, target) == 0 &&
        PyDict_SetItem(environ, state->raw_uri, target) == 0)
        failed = has_template ? 0
                              : PyDict_SetItem(environ, state->server_protocol,
                                               head->http11 ? state->http11 : state->http10);
    Py_DECREF(target);
    return failed;
}

static int put_connection(State *state, PyObject *environ, const Head *head, const Facts *facts) {
    if (facts->server_name != NULL && (PyDict_SetItem(environ, state->server_name, facts->server_name) < 0 ||
                                       PyDict_SetItem(environ, state->server_port, facts->server_port) < 0))
        return -1;
    if (head->client.at != NULL) {
        if (put(environ, state->remote_addr, make_text(head->client, true)) < 0)
            return -1;
        int has_port = PyDict_Contains(environ, state->remote_port);
        return has_port > 0 ? PyDict_DelItem(environ, state->remote_port) : has_port;
    }
    if (PyDict_SetItem(environ, state->remote_addr, facts->address) < 0)
        return -1;
    return facts->port != NULL ? PyDict_SetItem(environ, state->remote_port, facts->port) : 0;
}

/* What decides which keys an environ has, and in which order, but for the base, and the method; its size, or 0 for no
   template. */
static int describe_shape(const Head *head, const Facts *facts, unsigned char *shape) {
    if (facts->extra != NULL || head->count > SHAPE_BYTES - 2)
        return 0;
    shape[0] = (unsigned char)(head->http11 | (head->https + 1) << 1 | (head->client.at != NULL) << 3 |
                               (facts->server_name != NULL) << 4 | (facts->port != NULL) << 5);
    shape[1] = (unsigned char)head->method;
    for (int number = 0; number < head->count; number++) {
        if (head->fields[number].known < 0)
            return 0;
        shape[number + 2] = (unsigned char)head->fields[number].known;
    }
    return head->count + 2;
}

/* The place of the template for such heads, whose shape is noted there if another had it; NULL for none. */
static Template *find_template(Context *context, PyObject *base, const Head *head, const Facts *facts, bool *came) {
    unsigned char shape[SHAPE_BYTES];
    int size = describe_shape(head, facts, shape);
    unsigned hash = 0;
    if (size == 0)
        return NULL;
    for (int at = 0; at < size; at++)
        hash = next_hash(hash, (char)shape[at]);
    Template *template = &context->templates[hash % TEMPLATES];
    *came = template->size == size && template->base == base && memcmp(template->shape, shape, (size_t)size) == 0;
    if (!*came) {
        memcpy(template->shape, shape, (size_t)size);
        template->size = size;
        Py_CLEAR(template->environ);
        Py_XSETREF(template->base, Py_NewRef(base));
    }
    return template;
}

/* Keep ``environ``, which has its fields but not yet what belongs to the call. */
static int keep_template(State *state, Template *template, PyObject *environ, const Head *head, const Facts *facts) {
    PyObject *const changing[] = {state->path_info, state->query_string, state->request_uri, state->raw_uri,
                                  state->remote_addr, state->remote_port};
    bool has_port = facts->port != NULL && head->client.at == NULL;  /* else it is none, or the base's */
    size_t count = Py_ARRAY_LENGTH(changing) - !has_port;
    PyObject *copy = PyDict_Copy(environ);
    int failed = copy == NULL ? -1 : 0;
    for (size_t number = 0; failed == 0 && number < count; number++)
        failed = PyDict_SetItem(copy, changing[number], Py_None);
    for (int number = 0; failed == 0 && number < head->count; number++) {
        const Field *field = &head->fields[number];
        template->texts[number] = field->text;
        if (field->text == NULL)
            failed = PyDict_SetItem(copy, state->keys[field->known], Py_None);
    }
    if (failed == 0)
        template->environ = Py_NewRef(copy);
    Py_XDECREF(copy);
    return failed;
}

/* 0 where a field is repeated. Lines are remembered at the end: fields before that have texts of the memory. */
static int put_fields(Request *request, PyObject *environ, const Head *head, const Template *template) {
    State *state = request->context->state;
    PyObject *made[MOST_FIELDS];  /* borrowed of the environ */
    bool logs = request->context->log_answer != NULL;
    for (int number = 0; number < head->count; number++) {
        const Field *field = &head->fields[number];
        PyObject *value = field->text != NULL ? Py_NewRef(field->text) : make_text(field->value, field->ascii);
        if (value == NULL)
            return -1;
        Py_ssize_t before = PyDict_GET_SIZE(environ);
        int failed = 0;
        if (template == NULL || template->texts[number] != value) {
            PyObject *key = field->known < 0 ? make_key(field->name) : Py_NewRef(state->keys[field->known]);
            failed = key == NULL ? -1 : PyDict_SetItem(environ, key, value);
            Py_XDECREF(key);
        }
        if (logs && failed == 0 && field->known >= 0) {
            Kind kind = KNOWN_NAMES[field->known].kind;
            if (kind == REFERER)
                Py_XSETREF(request->referer, Py_NewRef(value));
            else if (kind == USER_AGENT)
                Py_XSETREF(request->agent, Py_NewRef(value));
        }
        made[number] = value;
        Py_DECREF(value);
        if (failed < 0)
            return -1;
        if (template == NULL && PyDict_GET_SIZE(environ) == before)
            return 0;
    }
    for (int number = 0; number < head->count; number++)
        remember_line(request->context->remembered, &head->fields[number], made[number]);
    return 1;
}

static int put_scheme(State *state, PyObject *environ, int https) {
    if (https < 0)
        return 0;
    if (https) {
        if (PyDict_SetItem(environ, state->https, state->on) < 0)
            return -1;
    } else {
        int has_https = PyDict_Contains(environ, state->https);
        if (has_https < 0 || (has_https && PyDict_DelItem(environ, state->https) < 0))
            return -1;
    }
    return PyDict_SetItem(environ, state->url_scheme, https ? state->https_text : state->http_text);
}

static int put_call(Request *request, PyObject *environ) {
    State *state = request->context->state;
    PyTypeObject *bytes_io = (PyTypeObject *)state->bytes_io;
    PyObject *none = PyTuple_New(0);
    int failed = none == NULL ? -1 : put(environ, state->wsgi_input, bytes_io->tp_new(bytes_io, none, NULL));
    Py_XDECREF(none);
    if (failed < 0)
        return -1;
    if (request->http11)
        return put(environ, state->early_hints, early_hints_of(request));
    int has_hints = PyDict_Contains(environ, state->early_hints);
    return has_hints > 0 ? PyDict_DelItem(environ, state->early_hints) : has_hints;
}

static const char DIGITS[] = "0123456789abcdef";

static void write_hex(char *to, int digits, uint64_t number) {
    while (digits--) {
        to[digits] = DIGITS[number & 15];
        number >>= 4;
    }
}

/* Draw what is random: for a process, and anew in its forked child. */
int seed_ids(IdMaker *maker) {
    uint64_t drawn[2];
    if (getrandom(drawn, sizeof drawn, 0) != sizeof drawn) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    memcpy(maker->text, "00000000-0000-7000-0000-", 24);
    write_hex(maker->text + 19, 4, (drawn[1] & 0x3fff) | 0x8000);
    write_hex(maker->text + 24, 12, drawn[0]);
    maker->count = (uint32_t)(drawn[1] >> 32);
    maker->at = 0;
    return 0;
}

static PyObject *make_id(IdMaker *maker) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t at = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    if (at != maker->at) {
        char digits[12];
        if (at < maker->at && seed_ids(maker) < 0)  /* the clock was set back: the same times come again */
            return NULL;
        write_hex(digits, 12, at);
        memcpy(maker->text, digits, 8);
        memcpy(maker->text + 9, digits + 8, 4);
        maker->at = at;
    }
    write_hex(maker->text + 15, 3, ++maker->count);
    PyObject *id = PyUnicode_New(sizeof maker->text, 127);
    if (id != NULL)
        memcpy(PyUnicode_1BYTE_DATA(id), maker->text, sizeof maker->text);
    return id;
}

static int put_id(Request *request, PyObject *environ, const Head *head) {
    request->id = head->id_rank ? make_text(head->id, true) : make_id(&request->context->ids);
    return request->id == NULL ? -1 : PyDict_SetItem(environ, request->context->state->request_id, request->id);
}

int unpack_facts(PyObject *tuple, Facts *facts) {
    if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) != 7) {
        PyErr_SetString(PyExc_TypeError,
                        "facts must be (address, port, server name, server port, trusted, extra, send)");
        return -1;
    }
    PyObject **texts[] = {&facts->address, &facts->port, &facts->server_name, &facts->server_port};
    for (int number = 0; number < 4; number++) {
        PyObject *text = PyTuple_GET_ITEM(tuple, number);
        if (number == 0 ? !PyUnicode_Check(text) : text != Py_None && !PyUnicode_Check(text)) {
            PyErr_SetString(PyExc_TypeError, "facts must be str, or None where they are not known");
            return -1;
        }
        *texts[number] = text == Py_None ? NULL : text;
    }
    if ((facts->server_name == NULL) != (facts->server_port == NULL)) {
        PyErr_SetString(PyExc_TypeError, "a server name and its port belong together");
        return -1;
    }
    facts->trusted = PyTuple_GET_ITEM(tuple, 4) == Py_True;
    PyObject *extra = PyTuple_GET_ITEM(tuple, 5), *send = PyTuple_GET_ITEM(tuple, 6);
    if (extra != Py_None && !PyDict_CheckExact(extra)) {
        PyErr_SetString(PyExc_TypeError, "extra variables must be a dict, or None");
        return -1;
    }
    facts->extra = extra == Py_None ? NULL : extra;
    facts->send = send == Py_None ? NULL : send;
    return 0;
}

int fill_environ(Request *request, const Head *head, const Facts *facts) {
    State *state = request->context->state;
    PyObject *base = PyObject_GetAttr(request->context->base_environ, state->attr_environ);
    if (base == NULL)
        return -1;
    if (!PyDict_CheckExact(base)) {
        PyErr_SetString(PyExc_TypeError, "the base environ must be a dict");
        Py_DECREF(base);
        return -1;
    }
    bool came = false;
    Template *template = find_template(request->context, base, head, facts, &came);
    bool has_template = came && template->environ != NULL;
    PyObject *environ = PyDict_Copy(has_template ? template->environ : base);
    Py_DECREF(base);
    if (environ == NULL)
        return -1;
    int plain = -1;
    if (put_target(state, environ, head, has_template) == 0 && put_connection(state, environ, head, facts) == 0)
        plain = put_fields(request, environ, head, has_template ? template : NULL);
    if (plain > 0 && facts->extra != NULL && PyDict_Update(environ, facts->extra) < 0)
        plain = -1;
    if (plain > 0 && put_scheme(state, environ, head->https) < 0)
        plain = -1;
    if (plain > 0 && came && !has_template && keep_template(state, template, environ, head, facts) < 0)
        plain = -1;
    if (plain > 0 && (put_id(request, environ, head) < 0 || put_call(request, environ) < 0))
        plain = -1;
    if (plain > 0) {
        request->environ = environ;
        request->send = Py_XNewRef(facts->send);
    } else {
        Py_DECREF(environ);
    }
    return plain;
}
