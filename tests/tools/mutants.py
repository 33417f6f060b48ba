"""Faults put into the extension one by one: each must be found by a test.

    python tests/tools/mutants.py [WORD...]     those whose line or name has one of the words

Each mutant is built in a copy of the package, so that the tree stays as it is. Exits with 1 where one survives.
"""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[2]
FOLDER = Path("forkserver/server/wsgi/accelerator")
READING = tuple(f"tests/unit/server/wsgi/accelerator/test_{name}.py" for name in ("templates", "reading"))
ANSWERS = tuple(
    f"tests/serving/test_plain_{name}.py" for name in ("exchange", "answers", "iterables", "progress", "access_log")
)
CONNECTIONS = tuple(
    f"tests/unit/server/wsgi/accelerator/test_{name}.py" for name in ("accepting", "attaching", "connections")
)
TESTS = (*READING, *CONNECTIONS, *ANSWERS, "tests/unit/server/wsgi/accelerator/test_memory.py")
OF_THE_COPY = ("--override-ini", "pythonpath=tests")  # pytest is not to put the tree's package before it
READERS = ("head.c", "names.c", "environ.c")  # found by READING, as a rule; the other tests take their time


class Mutant(NamedTuple):
    file: str
    before: str
    after: str


MUTANTS = (
    # Reading
    Mutant("head.c", "if (!is((unsigned char)text[at], IN_VALUE))\n                    return false;", ";"),
    Mutant("head.c", "if (!is((unsigned char)*text, IN_VALUE))\n            return false;", ";"),
    Mutant("head.c", "*ascii = !(seen & EACH(0x80));", "*ascii = true;"),
    Mutant("head.c", "deleted = eight ^ EACH(0x7f);", "deleted = UINT64_MAX;"),
    Mutant("head.c", "return number <= most;", "return true;"),
    Mutant("head.c", "if (size > 5)\n        return false;", ""),
    Mutant("head.c", "!memchr(copy, '.', (size_t)size) &&", ""),
    Mutant("head.c", "equals(text, size, shown)", "true"),
    Mutant("head.c", "if (at == text)\n            return false;", ""),
    Mutant("head.c", "size > rules->head || ", ""),
    Mutant("head.c", "if (at + 9 - data > most)\n        return NULL;", ""),
    Mutant("head.c", "stop - start > rules->field_size", "false"),
    Mutant("head.c", "count == rules->fields || ", ""),
    Mutant("head.c", "stop[1] != '\\n'", "false"),
    Mutant("head.c", "(has_host || !head->http11)", "true"),
    Mutant("head.c", "*at != '/')", "false)"),
    Mutant("head.c", "head->escaped = true;", ";"),
    Mutant("head.c", "(at[8] != '1' && at[8] != '0')", "false"),
    Mutant("head.c", "head->http11 = head->persistent = at[8] == '1';", "head->http11 = head->persistent = true;"),
    Mutant("head.c", "head->persistent = false;", ";"),
    Mutant("head.c", "head->persistent = true;\n    else\n        return false;", "head->persistent = true;"),
    Mutant("head.c", "case NEVER_PLAIN:\n        return false;", "case NEVER_PLAIN:\n        return true;"),
    Mutant("head.c", "|| is_plain_host(field->value.at, field->value.size);", "|| true;"),
    Mutant("head.c", "trusted ? rules->forwarded", "true ? rules->forwarded"),
    Mutant("head.c", "*kept = forwarding != DROPPED;", "*kept = true;"),
    Mutant("head.c", "head->client = field->value;", ";"),
    Mutant("head.c", "head->https = 1;", "head->https = 0;"),
    Mutant("head.c", "memcmp(data + size - 4, \"\\r\\n\\r\\n\", 4)", "false"),
    Mutant("head.c", "&& memcmp(line->line, at, (size_t)line->size) == 0", ""),
    Mutant("head.c", "lines[place ^ 1] = *line;", "lines[place ^ 1] = lines[place ^ 2];"),
    Mutant("head.c", "!KNOWN_NAMES[field->known].repeats ||", ""),
    Mutant("head.c", "line->value_at = (int)(field->value.at - field->name.at);", "line->value_at = 0;"),
    Mutant("environ.c", "&head->fields[number], made[number]", "&head->fields[number], made[0]"),
    Mutant("names.c", "['_'] = VISIBLE | IN_TOKEN | IN_HOST", "['_'] = VISIBLE | IN_TOKEN | IN_NAME | IN_HOST"),
    Mutant("names.c", "{\"content-length\", NEVER_PLAIN, ", "{\"content-length\", ORDINARY, "),
    Mutant("names.c", "{\"transfer-encoding\", NEVER_PLAIN, ", "{\"transfer-encoding\", ORDINARY, "),
    Mutant("names.c", "{\"expect\", NEVER_PLAIN, ", "{\"expect\", ORDINARY, "),
    Mutant("names.c", "{\"proxy\", NEVER_PLAIN, ", "{\"proxy\", ORDINARY, "),
    Mutant("names.c", "{\"user-agent\", USER_AGENT, ", "{\"user-agent\", ORDINARY, "),
    Mutant("environ.c", "if (template == NULL && PyDict_GET_SIZE(environ) == before)\n            return 0;", ""),
    Mutant("environ.c", "return has_port > 0 ?", "return false ?"),
    Mutant("environ.c", "path.size - at > 2", "path.size - at > 3"),
    Mutant("environ.c", "return has_hints > 0 ?", "return false ?"),
    Mutant("environ.c", "has_https && PyDict_DelItem(environ, state->https) < 0", "false"),
    Mutant("environ.c", "PyDict_SetItem(environ, state->raw_uri, target) == 0", "true"),
    Mutant("environ.c", "character == '-' ? '_'", "character == '-' ? '-'"),
    Mutant("environ.c", "facts->extra != NULL || head->count > SHAPE_BYTES - 2", "head->count > SHAPE_BYTES - 2"),
    Mutant("environ.c", "facts->extra != NULL || head->count > SHAPE_BYTES - 2", "facts->extra != NULL"),
    Mutant("environ.c", "head->http11 | (head->https", "1 | (head->https"),
    Mutant("environ.c", "(head->https + 1) << 1", "0"),
    Mutant("environ.c", "(head->client.at != NULL) << 3", "0"),
    Mutant("environ.c", "(facts->port != NULL) << 5", "0"),
    Mutant("environ.c", "shape[1] = (unsigned char)head->method;", "shape[1] = 0;"),
    Mutant("environ.c", "template->base == base &&", ""),
    Mutant("environ.c", "template->texts[number] = field->text;", ""),
    Mutant("environ.c", "template == NULL || template->texts[number] != value", "template == NULL"),
    Mutant("environ.c", "failed = PyDict_SetItem(copy, changing[number], Py_None);", ";"),
    Mutant("environ.c", "failed = PyDict_SetItem(copy, state->keys[field->known], Py_None);", ";"),
    # Accepting
    Mutant("connection.c", "SOCK_NONBLOCK | SOCK_CLOEXEC", "SOCK_CLOEXEC"),
    Mutant("connection.c", "SOCK_NONBLOCK | SOCK_CLOEXEC", "SOCK_NONBLOCK"),
    Mutant("connection.c", "if (error == EAGAIN || error == EWOULDBLOCK)\n            return -1;", ""),
    Mutant("connection.c", "if (error != EINTR)", "if (true)"),
    Mutant("connection.c", "if (PyErr_CheckSignals() < 0)", "if (PyErr_CheckSignals() < -1)"),
    Mutant("connection.c", "if (fd < LOW_NUMBERS || fd >= SELECT_LIMIT)", "if (true)"),
    Mutant("connection.c", "if (fd < LOW_NUMBERS || fd >= SELECT_LIMIT)", "if (fd >= SELECT_LIMIT)"),
    Mutant("connection.c", "fcntl(fd, F_DUPFD_CLOEXEC", "fcntl(fd, F_DUPFD"),
    Mutant("connection.c", "        return fd;\n    close(fd);", "        return fd;"),
    Mutant("connection.c", "while (number / unit >= 10)", "while (number / unit > 10)"),
    Mutant("connection.c", "&& IN6_IS_ADDR_V4MAPPED(&ipv6->sin6_addr)", "&& false"),
    Mutant("connection.c", "ipv6->sin6_scope_id)", "0)"),
    Mutant("connection.c", "ntohl(ipv6->sin6_flowinfo)", "7"),
    Mutant("connection.c", "*port = Py_NewRef(Py_None);", "*port = Py_NewRef(PyTuple_GET_ITEM(*peer, 0));"),
    Mutant("connection.c", "trusted ? Py_True : Py_False", "Py_False"),
    Mutant("connection.c", "trusted = said == NULL ? -1 : PyObject_IsTrue(said);", "trusted = said != NULL;"),
    Mutant("connection.c", "if (accepted == NULL)\n        close(fd);", "if (accepted == NULL)\n        ;"),
    Mutant("connection.c", "    self->fd = -1;\n    return PyLong_FromLong(fd);", "    return PyLong_FromLong(fd);"),
    Mutant("connection.c", "    close_descriptor(self);\n    Py_XDECREF", "    Py_XDECREF"),
    # Receiving and serving
    Mutant("connection.c", "PyMethod_GET_FUNCTION(target) != self->readable", "false"),
    Mutant("connection.c", "(PyObject *)Py_TYPE(object) == self->connection_type", "true"),
    Mutant("connection.c", "get(self, connection, SLOT_STATE) != self->reading ||", ""),
    Mutant("connection.c", "get(self, connection, SLOT_QUEUED) != Py_False ||", ""),
    Mutant("connection.c", "&& PyBytes_GET_SIZE(buffer) == 0", ""),
    Mutant("connection.c", "&& PyTuple_GET_SIZE(facts) > 0;", ";"),
    Mutant("connection.c", " && PyLong_CheckExact(fd) ?", " ?"),
    Mutant("connection.c", "        failed = pass_on(self, connection, size);\n", ""),
    Mutant("connection.c", "PyFloat_AS_DOUBLE(seconds) != 0.0", "false"),
    Mutant("connection.c", "waiting == Py_None || ", ""),
    Mutant("connection.c", "set(self, connection, SLOT_WHOLE_AT, now);", ";"),
    Mutant("connection.c", "    set(self, connection, SLOT_STATE, self->ready);\n", ""),
    Mutant("connection.c", "if (size <= 0)  /* the end", "if (size < 0)  /* the end"),
    Mutant("connection.c", "        count_declined(self);\n        failed", "        failed"),
    Mutant("connection.c", "return failed ? blame(self, connection) : 0;", "return failed;"),
    Mutant("connection.c", "self->forgotten || PyDict_GET_SIZE", "PyDict_GET_SIZE"),
    Mutant("connection.c", "PyDict_GET_SIZE(self->unended) ||", ""),
    Mutant("connection.c", "get(self, connection, SLOT_STATE) != self->calling ||", ""),
    Mutant("connection.c", "get(self, connection, SLOT_UPLOAD) != Py_None ||", ""),
    Mutant("connection.c", "|| get(self, connection, SLOT_HANDLER) != Py_None", ""),
    Mutant("connection.c", "|| get(self, connection, SLOT_INTEREST) != self->read_mask", ""),
    Mutant("connection.c", "return out == NULL ? -1 : out == Py_None;", "return out == NULL ? -1 : 1;"),
    Mutant("connection.c", "|| get(self, connection, SLOT_QUEUE) != resting", ""),
    Mutant("connection.c", "least - PyFloat_AS_DOUBLE(seconds) <= PyFloat_AS_DOUBLE(most)", "true"),
    Mutant("connection.c", "if (settled > 0 && PyObject_SetAttr(", "if (false && PyObject_SetAttr("),
    Mutant("connection.c", "        set(self, connection, SLOT_HEAD, Py_None);\n", ""),
    Mutant("connection.c", "        set(self, connection, SLOT_PERSISTENT, Py_True);\n", ""),
    Mutant("connection.c", "get(self, connection, SLOT_STAYS) == Py_False ? 1 : 2", "1"),
    Mutant("connection.c", "get(self, connection, SLOT_STAYS) == Py_False ? 1 : 2", "2"),
    Mutant("connection.c", "may_persist(self, connection) : 0", "may_persist(self, connection) : 1"),
    Mutant("connection.c", "|| get(self, connection, SLOT_STATE) != self->ready)", ")"),
    Mutant("connection.c", "|| ((Request *)request)->context != self)", ")"),
    Mutant("connection.c", "    set(self, connection, SLOT_THREAD, args[2]);\n", ""),
    Mutant("connection.c", "    set(self, connection, SLOT_EXCHANGE, request);\n", ""),
    Mutant("connection.c", "        set(self, connection, SLOT_EXCHANGE, Py_None);\n", "        ;\n"),
    Mutant("connection.c", "PyType_IsSubtype(type,", "(type,"),
    # Answering
    Mutant("response.c", "|| text[0] < '2'", ""),
    Mutant("response.c", "|| text[3] != ' '", ""),
    Mutant("response.c", "||\n        !all_in(text, size, IN_VALUE)", ""),
    Mutant("response.c", "!all_in(name, name_size, IN_TOKEN) ||", ""),
    Mutant("response.c", "!all_in(value, value_size, IN_VALUE)", "false"),
    Mutant("response.c", "name_size == 0 ||", ""),
    Mutant("response.c", "if (is_special(name, name_size))\n        return 0;", ""),
    Mutant("response.c", "|| request->length >= 0)\n", ")\n"),
    Mutant("response.c", "!all_in(value, size, DIGIT)", "false"),
    Mutant("response.c", "size > 18", "size > 19"),
    Mutant("response.c", "request->length >= 0 && request->length != total", "false"),
    Mutant("response.c", "|| request->code == 304", ""),
    Mutant("response.c", "&& request->code != 204", ""),
    Mutant("response.c", "if (muted)\n        size = 0;", ""),
    Mutant("response.c", "else if (!request->http11)", "else if (false)"),
    Mutant("response.c", "if (!PyList_CheckExact(headers))\n        return 0;", ""),
    Mutant("response.c", "!PyBytes_CheckExact(block) ||", "!PyBytes_Check(block) ||"),
    Mutant("response.c", "if (!PyUnicode_CheckExact(object))", "if (!PyUnicode_Check(object))"),
    Mutant("request.c", "&& self->response == NULL && self->code == 0)", "&& self->response == NULL)"),
    Mutant("request.c", "self->code != 0 && self->response == NULL", "self->code != 0"),
    Mutant("response.c", "if (taken < self->answer.size +", "if (false && taken < self->answer.size +"),
    Mutant("response.c", "memcpy(PyBytes_AS_STRING(rest) + head,", "memcpy(PyBytes_AS_STRING(rest),"),
    Mutant("request.c", "    self->began = context_end(context, thread, self->code, self->sent_size);\n", ""),
    Mutant("request.c", "context->log_answer != NULL && log_request(self, environ, self->sent_size) < 0", "false"),
    Mutant("request.c", "context->served++;", ""),
    Mutant("call.c", "attr_outside, Py_True) == 0)", "attr_outside, Py_False) == 0)"),
    Mutant("call.c", "attr_outside, Py_False) < 0)", "attr_outside, Py_True) < 0)"),
    Mutant("call.c", "&& self->length < 0 && !is_muted(self))", "&& self->length < 0)"),
    Mutant("call.c", "if (self->code != 0 && self->length < 0", "if (self->length < 0"),
    Mutant("call.c", "PyExc_TypeError)", "PyExc_ValueError)"),
    Mutant("call.c", "PyBytes_CheckExact(block) && PyBytes_GET_SIZE(block) == 0", "false"),
    Mutant("call.c", "if (has_none)", "if (true)"),
    Mutant("call.c", "PyObject *done = PyObject_CallNoArgs(close);", "PyObject *done = Py_NewRef(close);"),
    Mutant("call.c", "Py_DECREF(close);\n    Py_CLEAR(self->result);", "Py_DECREF(close);"),
    Mutant("call.c", "if (error != NULL && failed == 0)", "if (false)"),
    Mutant("call.c", "if (!met)\n        *block = next_block(self->iterator);", ""),
    Mutant("request.c", "if (self->response != NULL || self->result != NULL)", "if (self->result != NULL)"),
    Mutant("request.c", "self->code == 0 || self->response != NULL || !is_bytes", "self->code == 0 || !is_bytes"),
    Mutant("request.c", "muted || self->length == size ||", "muted || self->length >= 0 ||"),
    Mutant("request.c", "if (met && drop_iterator(self) < 0)\n        return NULL;", ""),
    Mutant("request.c", "if (!met)\n        context_renew(self->context, thread);", ""),
    Mutant("request.c", "Py_XSETREF(self->iterator, PyObject_GetIter(none));", "Py_CLEAR(self->iterator);"),
    Mutant("context.c", "+ self->renewal;", ";"),
    Mutant("context.c", "if (question != NULL)\n        size = question - line;", ""),
    Mutant("context.c", "if (size > ID_AT)\n        size = ID_AT;", ""),
    Mutant("context.c", "return roused == NULL ? -1 : 0;", "return -1;"),
    Mutant("context.c", "if (rouse > 0) {", "if (false) {"),
    Mutant("context.c", "now.tv_sec != self->second &&", "self->second == 0 &&"),
    Mutant("context.c", "size == HEAD_BYTES ? 0 :", ""),
    Mutant("access.c", "| ((quote - EACH(1)) & ~quote)", ""),
    Mutant("access.c", "((backslash - EACH(1)) & ~backslash)", "0"),
    Mutant("access.c", "line->plain = false;  /* it would divide the field */", ";"),
    Mutant("access.c", "        if (sent)\n", "        if (true)\n"),
    Mutant("access.c", "| ((deleted - EACH(1)) & ~deleted)", ""),
    Mutant("access.c", "((eight - EACH(' ')) & ~eight)", "0"),
    Mutant("access.c", "uint64_t rest = EACH(' ');", "uint64_t rest = 0;"),
    Mutant("access.c", "found |= to_escape(rest);", ";"),
    Mutant("access.c", "if (value.at != NULL)\n                line->plain = false;", ""),
    Mutant("access.c", "(last[-1] == ' ' ||", "("),
    Mutant("access.c", "(*value.at == ' ' ||", "("),
    Mutant("access.c", "request->answer.text, request->text_size", "request->answer.text, request->answer.size"),
    Mutant("access.c", "question ? question + 1 : end,", "question ? question : end,"),
    Mutant("access.c", "context->lines_second != context->second &&", "false &&"),
    Mutant("access.c", "    context->lines_size = 0;\n", ""),
    Mutant("context.c", "    self->lines_size = 0;\n", ""),
    Mutant("access.c", "if (size > MOST_BYTES - line->size) {", "if (false) {"),
)  # fmt: skip


def main(words: list[str]) -> int:
    chosen = [mutant for mutant in MUTANTS if not words or any(word in f"{mutant}" for word in words)]
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        shutil.copytree(TOP / "forkserver", site / "forkserver", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        for number, mutant in enumerate(chosen, 1):
            lives = survives(site, mutant)
            print(f"{number} of {len(chosen)}: {'SURVIVES' if lives else 'found'}: {mutant.file}: {mutant.before!r}")
            sys.stdout.flush()
            if lives:
                survivors.append(mutant)
    print(f"{len(survivors)} of {len(chosen)} survive")
    return 1 if survivors else 0


def survives(site: Path, mutant: Mutant) -> bool:
    source = site / FOLDER / mutant.file
    text = source.read_text()
    assert mutant.before in text, f"no longer there: {mutant}"
    source.write_text(text.replace(mutant.before, mutant.after, 1))
    try:
        build(site / FOLDER)
        environ = os.environ | {"PYTHONPATH": str(site), "EXAMPLES": "100", "REQUESTS": "100"}
        first = READING if mutant.file in READERS else CONNECTIONS if mutant.file == "connection.c" else ANSWERS
        return passes(first, environ) and passes((test for test in TESTS if test not in first), environ)
    finally:
        source.write_text(text)


def passes(tests: Iterable[str], environ: dict[str, str]) -> bool:
    """Whether all of ``tests`` do; the first that does not ends the search."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *OF_THE_COPY]
    command += [str(TOP / test) for test in tests]
    try:
        return not subprocess.run(command, cwd=TOP / "tests", env=environ, capture_output=True, timeout=300).returncode
    except subprocess.TimeoutExpired:  # a loop without an end
        return False


def build(folder: Path, *flags: str) -> None:
    """Build the extension in its folder, without optimisation, which takes longer than it saves."""
    target = folder / f"_exchange{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    compiler = ["cc", "-O0", "-w", "-std=gnu11", "-fPIC", "-shared", f"-I{sysconfig.get_path('include')}"]
    sources = sorted(map(str, folder.glob("*.c")))
    subprocess.run([*compiler, *flags, *sources, "-o", str(target)], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
