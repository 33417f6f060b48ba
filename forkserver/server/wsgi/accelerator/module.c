/* The module, and the constants that its types use: interned names, and the keys of known fields in an environ.

   One interpreter of a process has it: what it knows of the GIL and of interned strings does not hold elsewhere. */
#include "exchange.h"

/* What the Python code and this module ask of each other (loading.py): counted on with each change of that. */
enum { ABI = 4 };

static int intern_all(State *state) {
    const struct {
        PyObject **to;
        const char *text;
    } names[] = {
        {&state->request_method, "REQUEST_METHOD"}, {&state->path_info, "PATH_INFO"},
        {&state->query_string, "QUERY_STRING"}, {&state->request_uri, "REQUEST_URI"}, {&state->raw_uri, "RAW_URI"},
        {&state->server_protocol, "SERVER_PROTOCOL"}, {&state->server_name, "SERVER_NAME"},
        {&state->server_port, "SERVER_PORT"}, {&state->remote_addr, "REMOTE_ADDR"},
        {&state->remote_port, "REMOTE_PORT"}, {&state->remote_user, "REMOTE_USER"}, {&state->request_id, "forkserver.request_id"}, {&state->http_host, "HTTP_HOST"}, {&state->wsgi_input, "wsgi.input"},
        {&state->early_hints, "wsgi.early_hints"}, {&state->https, "HTTPS"}, {&state->url_scheme, "wsgi.url_scheme"},
        {&state->http10, "HTTP/1.0"}, {&state->http11, "HTTP/1.1"}, {&state->http_text, "http"},
        {&state->https_text, "https"}, {&state->on, "on"}, {&state->empty, ""},
        {&state->attr_early_hints, "early_hints"}, {&state->attr_write, "write"},
        {&state->attr_start_response, "start_response"}, {&state->attr_environ, "environ"}, {&state->attr_fd, "fd"},
        {&state->attr_dozing, "dozing"}, {&state->attr_outside, "outside"}, {&state->attr_adopt, "adopt"},
        {&state->attr_rouse, "rouse_driver"}, {&state->attr_borrow, "borrow"}, {&state->attr_close, "close"},
        {&state->attr_append, "append"}, {&state->attr_receive, "receive"},
        {&state->attr_handle_fault, "handle_fault"}, {&state->attr_out, "out"}, {&state->attr_resting, "resting"},
        {&state->attr_park_seconds, "park_seconds"}, {&state->attr_now, "now"}, {&state->attr_closing, "closing"},
        {&state->attr_retiring, "retiring"}, {&state->attr_conclude, "conclude"},
    };
    for (size_t number = 0; number < sizeof names / sizeof *names; number++)
        if ((*names[number].to = PyUnicode_InternFromString(names[number].text)) == NULL)
            return -1;
    for (int number = 0; number < METHODS; number++)
        if ((state->methods[number] = PyUnicode_InternFromString(METHOD_NAMES[number])) == NULL)
            return -1;
    return 0;
}

static PyObject *intern_key(const char *name) {
    char key[NAME_BYTES + 5] = "HTTP_";
    size_t at = strcmp(name, "content-type") && strcmp(name, "content-length") ? 5 : 0;
    for (; *name; name++)
        key[at++] = *name == '-' ? '_' : *name >= 'a' && *name <= 'z' ? (char)(*name - 32) : *name;
    key[at] = 0;
    return PyUnicode_InternFromString(key);
}

static int fill_keys(State *state) {
    fill_name_table(&state->names);
    state->keys = PyMem_Calloc((size_t)KNOWN_COUNT, sizeof *state->keys);
    if (state->keys == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (int number = 0; number < KNOWN_COUNT; number++)
        if ((state->keys[number] = intern_key(KNOWN_NAMES[number].name)) == NULL)
            return -1;
    return 0;
}

static PyObject *import_from(const char *module, const char *name) {
    PyObject *from = PyImport_ImportModule(module);
    PyObject *found = from == NULL ? NULL : PyObject_GetAttrString(from, name);
    Py_XDECREF(from);
    return found;
}

static int execute(PyObject *module) {
    State *state = PyModule_GetState(module);
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "the extension serves the main interpreter alone");
        return -1;
    }
    if (intern_all(state) < 0 || fill_keys(state) < 0)
        return -1;
    state->bytes_io = import_from("_io", "BytesIO");  /* a type, whatever stands in io */
    state->app_error = import_from("forkserver.errors", "AppError");
    PyObject *file_wrapper = import_from("forkserver.server.wsgi.file_wrapper", "FileWrapper");
    if (file_wrapper != NULL)
        state->not_iterated = PyTuple_Pack(3, &PyList_Type, &PyTuple_Type, file_wrapper);
    Py_XDECREF(file_wrapper);
    state->context_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &context_spec, NULL);
    state->request_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &request_spec, NULL);
    state->accepted_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &accepted_spec, NULL);
    if (state->bytes_io == NULL || state->app_error == NULL || state->not_iterated == NULL ||
        state->context_type == NULL || state->request_type == NULL || state->accepted_type == NULL)
        return -1;
    PyTypeObject *const types[] = {state->context_type, state->request_type, state->accepted_type};
    for (size_t number = 0; number < sizeof types / sizeof *types; number++)
        if (PyModule_AddType(module, types[number]) < 0)
            return -1;
    return PyModule_AddIntConstant(module, "ABI", ABI);
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    State *state = PyModule_GetState(module);
    Py_VISIT(state->context_type);
    Py_VISIT(state->request_type);
    Py_VISIT(state->accepted_type);
    Py_VISIT(state->bytes_io);
    Py_VISIT(state->app_error);
    Py_VISIT(state->not_iterated);
    return 0;
}

static int clear(PyObject *module) {
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->context_type);
    Py_CLEAR(state->request_type);
    Py_CLEAR(state->accepted_type);
    Py_CLEAR(state->bytes_io);
    Py_CLEAR(state->app_error);
    Py_CLEAR(state->not_iterated);
    return 0;
}

/* Interned names stay: an object that outlives the module may use them. */
static void release(void *module) { clear(module); }

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

struct PyModuleDef exchange_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_exchange",
    .m_doc = "The plain exchange in C; the Python code beside it is the reference.",
    .m_size = sizeof(State),
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC PyInit__exchange(void) { return PyModuleDef_Init(&exchange_module); }
