/* Calling the application, and asking what it has returned for its blocks: its code runs outside the loop lock.

   The mark "outside" is taken back before the lock is, or RequestTimeout strikes the wrong code.

   An iterable is asked for its first block in the same stay outside as the application, and for its end, and to be
   closed, in a second one, when that block is sent. Whatever else it does is the Python code's to answer.

   Source: PEP 3333 "Buffering and Streaming" and "Specification Details". */
#include "exchange.h"

static int return_to_lock(Context *context);

static int leave_lock(Context *context) {
    PyObject *done = PyObject_CallNoArgs(context->release);
    if (done == NULL)
        return -1;
    Py_DECREF(done);
    if (PyObject_SetAttr(context->lock, context->state->attr_outside, Py_True) == 0)
        return 0;
    return_to_lock(context);
    return -1;
}

/* Have the lock again. The exception that is set stays; one that a signal handler raises meanwhile takes its place. */
static int return_to_lock(Context *context) {
    PyObject *type, *error, *traceback, *done;
    int failed = 0;
    PyErr_Fetch(&type, &error, &traceback);
    while (PyObject_SetAttr(context->lock, context->state->attr_outside, Py_False) < 0)
        PyErr_Clear();
    while ((done = PyObject_CallNoArgs(context->acquire)) == NULL) {
        failed = -1;
        Py_CLEAR(type);
        Py_CLEAR(error);
        Py_CLEAR(traceback);
        PyErr_Fetch(&type, &error, &traceback);
    }
    Py_DECREF(done);
    PyErr_Restore(type, error, traceback);
    return failed;
}

/* The next block that is not empty, or is no bytes; NULL at the end, or with an exception set. */
static PyObject *next_block(PyObject *iterator) {
    PyObject *block;
    while ((block = PyIter_Next(iterator)) != NULL && PyBytes_CheckExact(block) && PyBytes_GET_SIZE(block) == 0)
        Py_DECREF(block);
    return block;
}

static PyObject *iterator_of(State *state, PyObject *result) {
    PyObject *iterator = PyObject_GetIter(result);
    if (iterator == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyObject *name = PyType_GetName(Py_TYPE(result));
        if (name != NULL)
            PyErr_Format(state->app_error, "the application returned %U, not an iterable of bytes", name);
        Py_XDECREF(name);
    }
    return iterator;
}

/* Ask what was returned for its first block, where it is to be asked for blocks one by one, and the answer may be plain. */
static int begin_iteration(Request *self, PyObject **block) {
    State *state = self->context->state;
    if (PyList_CheckExact(self->result) || PyTuple_CheckExact(self->result))
        return 0;
    if (self->code != 0 && self->length < 0 && !is_muted(self))
        return 0;  /* a stream */
    int other = PyObject_IsInstance(self->result, state->not_iterated);
    if (other)
        return other < 0 ? -1 : 0;
    self->iterator = iterator_of(state, self->result);
    if (self->iterator == NULL)
        return -1;
    *block = next_block(self->iterator);
    return *block == NULL && PyErr_Occurred() ? -1 : 0;
}

/* A generator that is given up runs to its end where that is the application's code, too. */
int drop_iterator(Request *self) {
    if (leave_lock(self->context) < 0)
        return -1;
    Py_CLEAR(self->iterator);
    return return_to_lock(self->context);
}

int call_application(Request *self, PyObject *app, PyObject *environ, PyObject **block) {
    PyObject *args[] = {NULL, environ, (PyObject *)self};
    *block = NULL;
    if (leave_lock(self->context) < 0)
        return -1;
    self->result = PyObject_Vectorcall(app, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    int failed = self->result == NULL ? -1 : begin_iteration(self, block);
    if (return_to_lock(self->context) < 0)
        failed = -1;
    if (failed)
        Py_CLEAR(*block);
    return failed;
}

PyObject *take_exception(void) {
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return error;
}

/* Close what was returned, if it can be; what that has raised, or NULL. */
static PyObject *close_result(Request *self) {
    PyObject *close = PyObject_GetAttr(self->result, self->context->state->attr_close), *error = NULL;
    if (close == NULL) {
        bool has_none = PyErr_ExceptionMatches(PyExc_AttributeError);
        PyErr_Clear();
        if (has_none)
            Py_CLEAR(self->result);  /* else the Python code asks again, and answers for it */
        return NULL;
    }
    PyObject *done = PyObject_CallNoArgs(close);
    if (done == NULL)
        error = take_exception();
    Py_XDECREF(done);
    Py_DECREF(close);
    Py_CLEAR(self->result);
    return error;
}

/* As the function close_result of the Python code: the answer is as good as before. */
static int report_close(Request *self, PyObject *error) {
    PyObject *message = PyUnicode_FromString("the iterable's close() raised"), *done = NULL;
    if (message != NULL) {
        PyObject *args[] = {message, error};
        done = forward(self, "report", args, 2);
    }
    Py_XDECREF(message);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

int end_iteration(Request *self, bool met, PyObject **block) {
    PyObject *error = NULL;
    *block = NULL;
    if (leave_lock(self->context) < 0)
        return -1;
    if (!met)
        *block = next_block(self->iterator);
    int failed = !met && *block == NULL && PyErr_Occurred() ? -1 : 0;
    if (failed == 0 && *block == NULL) {
        Py_CLEAR(self->iterator);
        error = close_result(self);
    }
    if (return_to_lock(self->context) < 0)
        failed = -1;
    if (error != NULL && failed == 0)
        failed = report_close(self, error);
    Py_XDECREF(error);
    if (failed)
        Py_CLEAR(*block);
    return failed;
}
