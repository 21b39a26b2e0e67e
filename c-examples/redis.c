/*
 * hiredis on ringloop, through the adapter in ringloop_hiredis.h: thousands of
 * commands in a pipeline, a command that blocks, messages of a channel, and a
 * connection that is closed because no answer arrives in time.
 *
 *     redis PORT
 */
#include "ringloop_hiredis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

enum { COMMANDS = 10000, MESSAGES = 3 };

static struct {
    loop_t *loop;
    redisAsyncContext *writer, *reader, *stuck;
    int answers, messages, open;
} client;

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "redis: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) fail("ringloop", loop_last_error());
}

/* hiredis refuses commands without memory, and on a connection that is being closed. */
static void sent(int result)
{
    if (result != REDIS_OK) fail("hiredis", "a command was refused");
}

/* A NULL reply means that the connection has ended before the answer arrived. */
static const redisReply *answer(const redisAsyncContext *context, const void *reply)
{
    if (!reply) fail("hiredis", context->errstr);
    if (((const redisReply *)reply)->type == REDIS_REPLY_ERROR) fail("server", ((const redisReply *)reply)->str);
    return reply;
}

/* ---- reader: waits for an element of a list, then for messages ---- */

static void on_message(redisAsyncContext *context, void *data, void *arg)
{
    const redisReply *reply = data;

    (void)arg;
    if (!reply) return; /* the subscription has ended with the connection */
    reply = answer(context, data);
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3) fail("message", "not an array of three");
    if (strcmp(reply->element[0]->str, "subscribe") == 0) {
        int i;

        for (i = 1; i <= MESSAGES; i++) sent(redisAsyncCommand(client.writer, NULL, NULL, "PUBLISH news %d", i));
        redisAsyncDisconnect(client.writer); /* when all commands are answered */
    } else if (strcmp(reply->element[0]->str, "message") == 0) {
        printf("message: %s\n", reply->element[2]->str);
        if (++client.messages == MESSAGES) redisAsyncFree(context); /* immediately, in its own callback */
    }
}

static void on_element(redisAsyncContext *context, void *data, void *arg)
{
    const redisReply *reply = answer(context, data);

    (void)arg;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) fail("BLPOP", "not an array of two");
    printf("element: %s\n", reply->element[1]->str);
    sent(redisAsyncCommand(context, on_message, NULL, "SUBSCRIBE news"));
}

/* ---- writer ---- */

static void on_get(redisAsyncContext *context, void *data, void *arg)
{
    const redisReply *reply = answer(context, data);

    (void)arg;
    if (reply->type != REDIS_REPLY_STRING || atoi(reply->str) != client.answers * 3) fail("GET", "a wrong value");
    if (++client.answers < COMMANDS) return;
    printf("answers: %d\n", client.answers);
    sent(redisAsyncCommand(context, NULL, NULL, "RPUSH list %s", "first"));
}

static void write_all(void)
{
    int i;

    for (i = 0; i < COMMANDS; i++) {
        sent(redisAsyncCommand(client.writer, NULL, NULL, "SET key:%d %d", i, i * 3));
        sent(redisAsyncCommand(client.writer, on_get, NULL, "GET key:%d", i));
    }
}

/* ---- a connection without an answer ---- */

static void on_nothing(redisAsyncContext *context, void *data, void *arg)
{
    (void)context;
    (void)arg;
    printf("stuck: %s\n", data ? "answered" : "no answer in time");
}

#if HIREDIS_MAJOR < 1
static void on_time(loop_t *loop, void *arg)
{
    (void)loop;
    redisAsyncFree(arg);
}
#endif

static void ask_in_vain(void)
{
#if HIREDIS_MAJOR >= 1
    struct timeval limit = {0, 300000};

    redisAsyncSetTimeout(client.stuck, limit); /* the adapter sets the timer */
#else
    expect(loop_call_later(client.loop, LOOP_MSEC(300), on_time, client.stuck)); /* hiredis 0 has no timers */
#endif
    sent(redisAsyncCommand(client.stuck, on_nothing, NULL, "BLPOP nothing 0"));
}

/* ---- connections ---- */

static void on_connect(const redisAsyncContext *context, int status)
{
    if (status != REDIS_OK) fail("connect", context->errstr);
}

static void on_disconnect(const redisAsyncContext *context, int status)
{
    const char *name = context == client.writer ? "writer" : context == client.reader ? "reader" : "stuck";

    client.open--;
    if (context != client.stuck) printf("%s: %s\n", name, status == REDIS_OK ? "disconnected" : context->errstr);
}

static redisAsyncContext *open_connection(int port)
{
    redisAsyncContext *context = redisAsyncConnect("127.0.0.1", port);

    if (!context || context->err) fail("connect", context ? context->errstr : "out of memory");
    if (ringloop_hiredis_attach(client.loop, context) != REDIS_OK) fail("attach", loop_last_error());
    redisAsyncSetConnectCallback(context, on_connect);
    redisAsyncSetDisconnectCallback(context, on_disconnect);
    client.open++;
    return context;
}

int main(int argc, char **argv)
{
    if (argc != 2) fail("usage", "redis PORT");
    expect(loop_new(NULL, &client.loop));
    client.writer = open_connection(atoi(argv[1]));
    client.reader = open_connection(atoi(argv[1]));
    client.stuck = open_connection(atoi(argv[1]));

    sent(redisAsyncCommand(client.reader, on_element, NULL, "BLPOP list 0")); /* hiredis keeps it until the connection is open */
    ask_in_vain();
    write_all();
    expect(loop_run(client.loop)); /* until no connection is open */
    expect(loop_close(client.loop));
    printf("open: %d\n", client.open);
    return EXIT_SUCCESS;
}
