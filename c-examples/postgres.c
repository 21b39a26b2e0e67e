/*
 * libpq on ringloop, without threads and blocking calls: several concurrent
 * connections, each with a slow query, a query that fails, and a pipeline of a
 * hundred queries.
 *
 *     postgres CONNINFO        as in psql: "host=127.0.0.1 dbname=postgres"
 *
 * libpq waits for one socket at a time. The result of each call of libpq gives
 * the events to wait for. libpq closes the socket in PQfinish() and while it
 * connects, so the loop has to forget the socket before.
 */
#include <ringloop.h>

#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONNECTIONS = 4, PIPELINED = 100 };

struct session {
    loop_t *loop;
    PGconn *connection;
    loop_handle_t watcher;
    enum { SLOW, BROKEN, PIPELINE } stage;
    int number, answers;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "postgres: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) fail("ringloop", loop_last_error());
}

static void expect_pq(const struct session *session, int ok)
{
    if (!ok) fail("libpq", PQerrorMessage(session->connection));
}

/* ---- queries ---- */

static void ask(struct session *session, const char *query, int number)
{
    char text[16];
    const char *values[1];

    snprintf(text, sizeof text, "%d", number);
    values[0] = text;
    expect_pq(session, PQsendQueryParams(session->connection, query, 1, NULL, values, NULL, NULL, 0));
}

static void begin(struct session *session)
{
    int i;

    session->answers = 0;
    switch (session->stage) {
    case SLOW:
        ask(session, "SELECT $1::int * 111, pg_sleep(0.5)", session->number);
        break;
    case BROKEN:
        ask(session, "SELECT 1 / ($1::int - $1::int)", session->number);
        break;
    case PIPELINE:
        expect_pq(session, PQenterPipelineMode(session->connection));
        for (i = 0; i < PIPELINED; i++) ask(session, "SELECT $1::int * 2", i);
        expect_pq(session, PQpipelineSync(session->connection));
        break;
    }
}

/* Returns whether this is the last result of the stage. A NULL follows the results of each query. */
static bool take(struct session *session, PGresult *result)
{
    bool last = false;

    switch (PQresultStatus(result)) {
    case PGRES_TUPLES_OK:
        if (session->stage == SLOW)
            printf("session %d: %s\n", session->number, PQgetvalue(result, 0, 0));
        else if (atoi(PQgetvalue(result, 0, 0)) != session->answers * 2)
            fail("pipeline", "a wrong answer");
        session->answers++;
        break;
    case PGRES_PIPELINE_SYNC:
        printf("session %d: %d answers\n", session->number, session->answers);
        last = true;
        break;
    default: /* an error of the server, or the end of the connection */
        if (!result) {
            last = session->stage != PIPELINE;
        } else {
            if (session->stage != BROKEN || PQstatus(session->connection) != CONNECTION_OK)
                fail("query", PQerrorMessage(session->connection));
            printf("session %d: %s\n", session->number, PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY));
        }
        break;
    }
    PQclear(result);
    return last;
}

static void on_ready(loop_t *loop, int fd, uint32_t events, void *arg)
{
    struct session *session = arg;
    int unsent;

    /* Reading also reports errors and hang-ups. */
    if (events & ~(uint32_t)POLLOUT) expect_pq(session, PQconsumeInput(session->connection));
    while (!PQisBusy(session->connection)) {
        if (!take(session, PQgetResult(session->connection))) continue;
        if (session->stage == PIPELINE) {
            expect(loop_forget_fd(loop, fd)); /* so that the server sees the end when libpq closes the socket */
            PQfinish(session->connection);
            return;
        }
        session->stage++;
        begin(session);
    }
    unsent = PQflush(session->connection);
    expect_pq(session, unsent >= 0);
    expect(loop_watch_update(loop, session->watcher, unsent ? POLLIN | POLLOUT : POLLIN));
}

/* ---- connecting ---- */

static void on_connecting(loop_t *loop, int fd, uint32_t events, void *arg);

static void watch(struct session *session, uint32_t events, loop_fd_callback_t callback)
{
    session->watcher = loop_watch_fd(session->loop, PQsocket(session->connection), events, callback, session);
    expect(session->watcher);
}

static void on_connecting(loop_t *loop, int fd, uint32_t events, void *arg)
{
    struct session *session = arg;

    (void)events;
    expect(loop_forget_fd(loop, fd)); /* PQconnectPoll() may close the socket and continue with another */
    switch (PQconnectPoll(session->connection)) {
    case PGRES_POLLING_READING:
        watch(session, POLLIN, on_connecting);
        break;
    case PGRES_POLLING_WRITING:
        watch(session, POLLOUT, on_connecting);
        break;
    case PGRES_POLLING_OK:
        expect_pq(session, PQsetnonblocking(session->connection, 1) == 0);
        begin(session);
        watch(session, POLLIN | POLLOUT, on_ready); /* the socket is writable at once, and on_ready() sends the query */
        break;
    default:
        fail("connect", PQerrorMessage(session->connection));
    }
}

int main(int argc, char **argv)
{
    struct session sessions[CONNECTIONS];
    loop_t *loop;
    uint64_t start;
    int i;

    if (argc != 2) fail("usage", "postgres CONNINFO");
    expect(loop_new(NULL, &loop));
    memset(sessions, 0, sizeof sessions);
    start = loop_time(loop);
    for (i = 0; i < CONNECTIONS; i++) {
        sessions[i].loop = loop;
        sessions[i].number = i + 1;
        sessions[i].connection = PQconnectStart(argv[1]);
        if (!sessions[i].connection || PQstatus(sessions[i].connection) == CONNECTION_BAD)
            fail("connect", sessions[i].connection ? PQerrorMessage(sessions[i].connection) : "out of memory");
        watch(&sessions[i], POLLOUT, on_connecting); /* as after PGRES_POLLING_WRITING (libpq) */
    }
    expect(loop_run(loop)); /* until nothing is watched */
    fprintf(stderr, "%d ms\n", (int)((loop_time(loop) - start) / LOOP_MSEC(1)));
    expect(loop_close(loop));
    return EXIT_SUCCESS;
}
