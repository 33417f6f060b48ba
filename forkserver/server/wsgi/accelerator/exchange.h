/* The plain exchange in C: what the files of the extension share.

   head.c         bytes to the parts of a plain request head; knows nothing of Python's objects
   names.c        classes of characters, and the field names that are looked up
   environ.c      a plain head and a base environ to an environ, with the id of the request
   connection.c   a connection: accepted, received from, served; and its client's address
   context.c      what stays the same as long as a worker serves: limits, scoreboard, clock
   request.c      a request, which is its own start_response, and its answer
   call.c         the application's code, outside the loop lock
   response.c     status, headers and body to the bytes of an answer, and those to the kernel
   access.c       the line of the access log
   module.c       the module and its constants

   Everything here declines what is not plain: the Python code, which is the reference, gets the bytes, or goes on with
   the answer. The loop lock is held whenever a method is called, but those that the application calls. */
#ifndef FORKSERVER_EXCHANGE_H
#define FORKSERVER_EXCHANGE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#if PY_VERSION_HEX < 0x030b0000
#error "CPython 3.11 or later is needed"
#endif
#ifdef Py_GIL_DISABLED
#error "the extension relies on the GIL; the Python code serves instead"
#endif

enum {
    HEAD_BYTES = 16 * 1024,   /* of one read while a head is expected, as connection.py has it */
    JOIN_BYTES = 32 * 1024,   /* a body up to this is copied behind its head, as transport.py has it */
    SEAL_BYTES = 256 * 1024,  /* of a body that TLS seals at once; a larger one is sealed piece by piece, in Python */
    SPARE_BYTES = 64 * 1024,  /* a larger buffer of an answer is not kept for the next one */
    MOST_FIELDS = 128,        /* of a plain head */
    NAME_BYTES = 64,          /* the known names are shorter */
    NAME_SLOTS = 256,
    METHODS = 7,
    ID_BYTES = 64,  /* of an id that a proxy gives, as request_id.py has it */
    LINES = 128,      /* of fields that are remembered, a power of two */
    PLACE_BYTES = 16, /* of a line, by which its place is found */
    LINE_TEXT = 200,  /* bytes of such a line, CRLF included */
    TEMPLATES = 8,    /* of environs */
    SHAPE_BYTES = 32, /* of a head that has one: a field each, but for the first two */
};

/* names.c */

enum {  /* of a character */
    IN_TOKEN = 1,
    IN_NAME = 2,  /* a token's without the underscore */
    IN_VALUE = 4,
    IN_TARGET = 8,
    IN_HOST = 16,  /* of a name or an IPv4 address, without what is percent-encoded */
    DIGIT = 32,
    UPPER = 64,
    IN_ID = 128,  /* of a request's */
};
extern const unsigned char CLASS[256];

#define EACH(byte) (UINT64_MAX / 255 * (byte))  /* eight of it in one word */

static inline bool is(unsigned char character, int class) { return CLASS[character] & class; }
static inline char lower(unsigned char character) { return (char)(character | (CLASS[character] & UPPER) >> 1); }

typedef enum {  /* what a field means for the exchange */
    ORDINARY,
    NEVER_PLAIN,
    HOST,
    CONNECTION,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    FORWARDED_HOST,
    FORWARDED_PORT,
    FORWARDED,
    REQUEST_ID,
    CORRELATION_ID,
    TRACEPARENT,
    AMZN_TRACE_ID,
    REFERER,
    USER_AGENT,
} Kind;

typedef struct {
    const char *name;  /* in lower case */
    Kind kind;
    bool repeats;  /* clients say the same in it, and nothing that is secret */
} KnownName;
extern const KnownName KNOWN_NAMES[];
extern const int KNOWN_COUNT;

typedef struct {  /* from a name's hash to its number */
    unsigned char slots[NAME_SLOTS];  /* number + 1, 0 where none is */
} NameTable;

void fill_name_table(NameTable *table);
int find_name(const NameTable *table, const char *name, Py_ssize_t size, unsigned hash);  /* -1: not known */
static inline bool equals(const char *text, Py_ssize_t size, const char *constant) {
    return strlen(constant) == (size_t)size && memcmp(text, constant, (size_t)size) == 0;
}
bool equals_ignoring_case(const char *text, Py_ssize_t size, const char *lower_case);
static inline unsigned next_hash(unsigned hash, char character) { return hash * 33 + (unsigned char)character; }

/* head.c */

typedef struct {
    const char *at;
    Py_ssize_t size;
} Span;

typedef struct {
    Span name, value;
    int known;  /* its number in KNOWN_NAMES, -1: none */
    bool ascii;
    Py_ssize_t size; /* of its line, to the CRLF */
    PyObject *text;  /* of the value, where the same line came before; borrowed from the memory of lines */
} Field;

typedef struct {
    int size;  /* 0 where nothing is remembered */
    int known, value_at, value_size;
    PyObject *text;  /* of the value; head.c passes it on */
    char line[LINE_TEXT];
} FieldLine;

static inline unsigned place_of(const char *at) {  /* by PLACE_BYTES, which are there; or beside it */
    uint64_t words[2];
    memcpy(words, at, sizeof words);
    return (unsigned)((words[0] * 0x9e3779b97f4a7c15u ^ words[1] * 0xc2b2ae3d27d4eb4fu) / (UINT64_MAX / LINES + 1));
}

typedef enum { KEPT, DROPPED, READ, DECLINED } Forwarding;  /* of a field in which a proxy speaks for its client */

typedef struct {
    Py_ssize_t request_line, fields, field_size, head;
    Forwarding forwarded[5];  /* of a trusted peer, by its kind from FORWARDED_FOR on */
    bool trust;               /* whether there are trusted peers; else such fields are the application's to read */
    int id_rank[4];           /* of a trusted peer's field with an id, by its kind from REQUEST_ID on; 0: not read */
} Rules;

typedef struct {
    int method;  /* its number in METHOD_NAMES */
    Span line, target, path, query;
    Span client;  /* that a proxy names; no text where none does */
    Span id;      /* likewise, of the field with the rank id_rank, 0 where there is none */
    int id_rank;
    int https;    /* 1 where a proxy says so, 0 where it says http, -1 where it says nothing */
    bool escaped, http11, persistent;
    int count;
    Field fields[MOST_FIELDS];
} Head;

extern const char *const METHOD_NAMES[METHODS];
bool read_plain_head(const char *data, Py_ssize_t size, const Rules *rules, bool trusted, const NameTable *names,
                     FieldLine *lines, Head *head);
void remember_line(FieldLine *lines, const Field *field, PyObject *text);

/* module.c */

typedef struct {
    NameTable names;
    PyTypeObject *context_type, *request_type, *accepted_type;
    PyObject *bytes_io, *app_error;
    PyObject *not_iterated;  /* types of results that are no iterables for the extension, as a tuple */
    PyObject *methods[METHODS];
    PyObject **keys;  /* of KNOWN_NAMES in an environ */
    /* Interned. */
    PyObject *request_method, *path_info, *query_string, *request_uri, *raw_uri, *server_protocol, *server_name;
    PyObject *server_port, *remote_addr, *remote_port, *remote_user, *request_id, *http_host, *wsgi_input, *early_hints, *https, *url_scheme;
    PyObject *http10, *http11, *http_text, *https_text, *on, *empty;
    PyObject *attr_early_hints, *attr_write, *attr_start_response, *attr_environ, *attr_fd, *attr_dozing, *attr_outside;
    PyObject *attr_adopt, *attr_rouse, *attr_borrow, *attr_close;
    PyObject *attr_append, *attr_receive, *attr_handle_fault, *attr_out, *attr_resting, *attr_park_seconds, *attr_now;
    PyObject *attr_closing, *attr_retiring, *attr_conclude;
} State;

extern struct PyModuleDef exchange_module;

/* environ.c: ids */

typedef struct {
    char text[36];   /* of the last one */
    uint64_t at;     /* milliseconds since 1970 that are in it */
    uint32_t count;
} IdMaker;

int seed_ids(IdMaker *maker);

/* access.c: a format */

typedef struct {
    int what;        /* a literal, or which atom */
    bool json;       /* a string in quotes, or null */
    Span text;       /* of a literal; or marks that an atom's value cannot have unescaped */
    PyObject *name;  /* of a field, bytes in lower case; of a variable, a str */
} LinePart;

/* environ.c: templates */

typedef struct {
    int size;  /* bytes of the shape, 0 where none came */
    unsigned char shape[SHAPE_BYTES];
    PyObject *base;     /* the dict that was copied */
    PyObject *environ;  /* its copy with all keys in order; NULL until the shape has come twice */
    PyObject *texts[SHAPE_BYTES];  /* the values of fields that are in it; NULL where it has None */
} Template;

/* connection.c: slots */

typedef enum {
    SLOT_STATE,
    SLOT_QUEUED,
    SLOT_BUFFER,
    SLOT_FACTS,
    SLOT_FD,
    SLOT_HEAD,
    SLOT_WHOLE_AT,
    SLOT_BACKLOG_SECONDS,
    SLOT_EXCHANGE,
    SLOT_PERSISTENT,
    SLOT_QUEUE,
    SLOT_PARKED_AT,
    SLOT_INTEREST,
    SLOT_UPLOAD,
    SLOT_HANDLER,
    SLOT_TRANSPORT,
    SLOT_THREAD,
    SLOT_STAYS,
    SLOTS,
} Slot;

/* context.c */

typedef struct {
    char *text;
    Py_ssize_t size, room;
} Buffer;

int reserve(Buffer *buffer, Py_ssize_t more);
int as_descriptor(PyObject *number);  /* -2 with an exception set */

typedef struct {
    PyObject_HEAD
    State *state;
    Rules rules;
    PyObject *base_environ;  /* an object whose attribute environ is copied for each request */
    PyObject *loop;          /* whose rouse_driver is called where it is dozing */
    PyObject *lock, *acquire, *release;  /* the loop lock and its methods */
    PyObject *adopt;         /* adopt(connection, request): the Response that goes on with an answer */
    PyObject *trusts;        /* trusts(host): whether a peer speaks for clients; NULL where none does */
    PyObject *read_head;     /* read_head(raw): the head as the Python code reads it */
    PyObject *log_answer;    /* log_answer(connection, request, environ); NULL where there is no access log */
    PyObject *parts;         /* of a line, as a tuple */
    LinePart *line_parts;    /* the same, read */
    PyObject *add_lines;     /* of the access log, for lines that are made here; NULL where they are not wanted */
    PyObject *server_line;   /* bytes */
    PyObject *id_header;     /* bytes: the name of the field that tells a client the request's id; NULL for none */
    char id_name[NAME_BYTES + 1];  /* the same in lower case */
    IdMaker ids;
    PyObject *row;           /* of the scoreboard: a memoryview; NULL where there is none */
    uint64_t *words;         /* its memory */
    Py_ssize_t threads;
    unsigned long long renewal;  /* ns that a call may last from when it has yielded a block; 0: as long as it likes */
    char *received;          /* HEAD_BYTES, used with the GIL held */
    FieldLine *remembered;   /* LINES of fields that came before, from any client */
    Template *templates;     /* TEMPLATES, each at a place that follows from its shape */
    Buffer spare;            /* of the next answer */
    time_t second;           /* for which ``date`` is */
    char date[40];           /* the line Date */
    char log_date[32];       /* the same time as the access log has it */
    char *lines;             /* GATHERED_BYTES of the access log, all of the second ``lines_second`` */
    Py_ssize_t lines_size;
    time_t lines_second;
    unsigned long long served, declined;
    bool forgotten;          /* in a child of the worker's */
    /* Of the loop and its connections; see ``attach``. NULL before that. */
    PyObject *connection_type, *readable;  /* and its function that is called where one is ready */
    PyObject *reading, *ready, *calling;   /* states of one */
    PyObject *read_mask;     /* small, so that what is equal is the same */
    PyObject *timeouts, *clock;
    PyObject *submit;        /* submit(connection, raw): a request waits for the application */
    PyObject *unended;       /* a dict of lines that were begun on ``wsgi.errors`` */
    Py_ssize_t slots[SLOTS]; /* where they are in a connection */
} Context;

extern PyType_Spec context_spec;

enum {  /* of the scoreboard, as scoreboard.py has them */
    ROW_WORDS = 80,
    THREAD_WORDS = 8,
    LINE_BYTES = 256,
    REQUESTS = 4,
    ACCELERATED = 13,
    DECLINED_COUNT = 14,
    BUSY_SINCE = 0,
    LINE_LENGTH = 1,
    DEADLINE = 2,
    DEADLINE_OF = 3,
    ID_LENGTH = 6,
    PROGRESS = 7,
    ID_AT = 192,
};

enum {  /* of the row's figures, as figures.py has them */
    ANSWERS = 16,
    ANSWER_BYTES = 23,
    WAITED = 25,
    LASTED = 52,
    BOUNDS = 25,
};

const char *context_date(Context *self);  /* of now */
uint64_t nanoseconds(void);  /* of CLOCK_MONOTONIC */
void context_renew(Context *self, Py_ssize_t thread);
/* Gives when the call began. */
uint64_t context_end(Context *self, Py_ssize_t thread, int status, Py_ssize_t sent);
void count_declined(Context *self);
ssize_t receive_head(Context *self, int fd);
int make_plain_request(Context *self, const char *data, Py_ssize_t size, PyObject *facts, PyObject **request);
PyObject *context_read(Context *self, PyObject *const *args, Py_ssize_t count);
PyObject *context_take(Context *self, PyObject *const *args, Py_ssize_t count);

/* connection.c */

extern PyType_Spec accepted_spec;
PyObject *context_attach(Context *self, PyObject *const *args, Py_ssize_t count);
PyObject *context_receive_all(Context *self, PyObject *const *args, Py_ssize_t count);
PyObject *context_serve(Context *self, PyObject *const *args, Py_ssize_t count);
PyObject *context_accept(Context *self, PyObject *const *args, Py_ssize_t count);

/* request.c */

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Context *context;
    PyObject *raw;         /* the bytes of its head */
    PyObject *environ;     /* but while the application is called: no circle through early_hints */
    PyObject *method;
    PyObject *id;          /* ASCII */
    PyObject *referer, *agent;  /* as they came, for the access log */
    PyObject *connection;  /* while the call lasts */
    PyObject *response;    /* the Python object that goes on with the answer, NULL while C does */
    PyObject *result;      /* what the application has returned, until it is closed */
    PyObject *iterator;    /* over its blocks, until its end was met */
    PyObject *send;        /* send(data): seals and sends by TLS, gives what is left; NULL where the descriptor is sent to */
    Py_ssize_t line_size;
    bool http11, persistent;
    bool kept_open;        /* after this answer, as its head says */
    int code;              /* 0 until start_response was called */
    Py_ssize_t length;     /* Content-Length, -1 where the application gives none */
    Buffer answer;         /* status line and fields of the application, then the rest of the answer */
    Py_ssize_t text_size;  /* of the application's part */
    bool has_id_header;    /* among its fields */
    bool sent;             /* or on its way: its head cannot be taken back */
    bool ended;            /* nothing can go on with it */
    uint64_t whole_since;  /* when it was read, in ns */
    Py_ssize_t sent_size;  /* bytes of its body then */
    unsigned long long began;  /* when the call began, once that is over: CLOCK_MONOTONIC in ns, 0 without a scoreboard */
} Request;

int context_begin(Context *self, Py_ssize_t thread, const Request *request);

extern PyType_Spec request_spec;
PyObject *early_hints_of(Request *self);
PyObject *forward(Request *self, const char *name, PyObject *const *args, Py_ssize_t count);
/* As the method ``answer``; without its reference to the connection afterwards, unless the Python code is to go on. */
PyObject *answer(Request *self, PyObject *app, PyObject *connection, Py_ssize_t thread, bool persistent);
Request *make_request(Context *context, const char *data, Py_ssize_t size, const Head *head);

/* environ.c */

typedef struct {  /* of a connection; borrowed, NULL where it is none */
    PyObject *address, *port, *server_name, *server_port;
    PyObject *extra;  /* a dict: what TLS or a PROXY header says of the client */
    PyObject *send;
    bool trusted;
} Facts;

int unpack_facts(PyObject *tuple, Facts *facts);
int fill_environ(Request *request, const Head *head, const Facts *facts);  /* 0: not plain, -1: an exception is set */

/* response.c */

int serialize_head(Request *request, PyObject *status, PyObject *headers);  /* 0: not plain, -1 */
int serialize_rest(Request *request, PyObject *const *blocks, Py_ssize_t count, Py_ssize_t size,
                   PyObject **body);
bool is_muted(const Request *request);             /* the answer carries no body, whatever it is */
bool is_sendable(const Request *request, Py_ssize_t size);
Py_ssize_t size_of_blocks(const Request *request);  /* of what the application has returned; -1: not plain */

PyObject *send_answer(Request *self, PyObject *body, Py_ssize_t body_size);

/* call.c */

PyObject *take_exception(void);  /* that is set, as an object */
int call_application(Request *self, PyObject *app, PyObject *environ, PyObject **block);  /* an iterable's first one */

int drop_iterator(Request *self);

/* The first block is sent: ask for what follows, unless the end was ``met``, and at the end close what was returned.
   Gives the ``block`` that there is more, if any. */
int end_iteration(Request *self, bool met, PyObject **block);

/* access.c */

enum { GATHERED_BYTES = 4096 };  /* PIPE_BUF: what one write delivers unmixed with others */
int log_request(Request *request, PyObject *environ, Py_ssize_t sent);
int hand_over_lines(Context *context);
int set_line_parts(Context *context, PyObject *parts);

#endif
