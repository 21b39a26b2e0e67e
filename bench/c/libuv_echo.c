/*
 * The case "echo" with libuv: uv_read_start() into one buffer, which all connections share because uv_try_write() sends
 * from it at once. The server copies only the unsent rest, for uv_write(), and reads no more until it is sent. write=1:
 * only uv_write(), each request with the memory that was read into, as in libuv's examples.
 */
#include "echo.h"

#include <uv.h>

static uint64_t open_connections;
static uv_tcp_t listener;

static void must(int result)
{
    if (result < 0) bench_fail(uv_strerror(result));
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
    if (--open_connections == 0) uv_close((uv_handle_t *)&listener, NULL);
}

static void close_connection(uv_stream_t *stream)
{
    if (!uv_is_closing((uv_handle_t *)stream)) uv_close((uv_handle_t *)stream, on_closed);
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buffer);

static void give_shared(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    static char shared[ECHO_CHUNK];

    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(shared, sizeof shared);
}

static void on_rest_written(uv_write_t *write, int status)
{
    uv_stream_t *stream = write->handle;

    free(write);
    if (status < 0)
        close_connection(stream);
    else
        must(uv_read_start(stream, give_shared, on_read));
}

static void write_rest(uv_stream_t *stream, const char *data, size_t length)
{
    uv_write_t *write = bench_array(1, sizeof *write + length);
    uv_buf_t rest = uv_buf_init(memcpy(write + 1, data, length), (unsigned)length);

    must(uv_read_stop(stream));
    must(uv_write(write, stream, &rest, 1, on_rest_written));
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buffer)
{
    uv_buf_t answer;
    int sent;

    if (got == 0) return;
    if (got < 0) {
        close_connection(stream);
        return;
    }
    answer = uv_buf_init(buffer->base, (unsigned)got);
    sent = uv_try_write(stream, &answer, 1);
    if (sent == UV_EAGAIN) sent = 0;
    if (sent < 0)
        close_connection(stream);
    else if (sent < got)
        write_rest(stream, buffer->base + sent, (size_t)(got - sent));
}

/* ---- write=1 ---- */

static void give_own(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(bench_array(1, ECHO_CHUNK), ECHO_CHUNK);
}

static void on_written(uv_write_t *write, int status)
{
    uv_stream_t *stream = write->handle;

    free(write->data);
    free(write);
    if (status < 0) close_connection(stream);
}

static void on_read_own(uv_stream_t *stream, ssize_t got, const uv_buf_t *buffer)
{
    uv_write_t *write;
    uv_buf_t answer;

    if (got <= 0) {
        free(buffer->base);
        if (got < 0) close_connection(stream);
        return;
    }
    write = bench_array(1, sizeof *write);
    write->data = buffer->base;
    answer = uv_buf_init(buffer->base, (unsigned)got);
    must(uv_write(write, stream, &answer, 1, on_written));
}

static void on_connection(uv_stream_t *server, int status)
{
    uv_tcp_t *connection = bench_array(1, sizeof *connection);

    must(status);
    must(uv_tcp_init(server->loop, connection));
    must(uv_accept(server, (uv_stream_t *)connection));
    must(uv_tcp_nodelay(connection, 1));
    open_connections++;
    if (bench_option("write"))
        must(uv_read_start((uv_stream_t *)connection, give_own, on_read_own));
    else
        must(uv_read_start((uv_stream_t *)connection, give_shared, on_read));
}

static void serve(void)
{
    struct sockaddr_in address = echo_address(0);
    uv_loop_t loop;
    uv_os_fd_t fd;

    echo_begin();
    must(uv_loop_init(&loop));
    must(uv_tcp_init(&loop, &listener));
    /* uv_tcp_bind() also sets SO_REUSEADDR. */
    must(uv_tcp_bind(&listener, (struct sockaddr *)&address, 0));
    must(uv_listen((uv_stream_t *)&listener, ECHO_BACKLOG, on_connection));
    must(uv_fileno((uv_handle_t *)&listener, &fd));
    echo_ready(fd);
    must(uv_run(&loop, UV_RUN_DEFAULT));
    must(uv_loop_close(&loop));
}

int main(int argc, char **argv)
{
    return echo_main(argc, argv, uv_version_string(), serve);
}
