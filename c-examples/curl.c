/*
 * libcurl on ringloop, through curl's multi socket interface: downloads all
 * URLs concurrently, each to a file with the name of the URL's last part.
 *
 *     curl FOLDER URL...
 *
 * curl names the sockets to watch and the time of the next call. The program
 * reports ready sockets and expired timers to curl. curl calls on_interest() and
 * on_timeout() inside curl_multi_socket_action(), which is often inside the
 * callback of a watcher. The watcher may then be cancelled or changed.
 */
#include <ringloop.h>

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct client {
    loop_t *loop;
    CURLM *multi;
    loop_handle_t timer;
    unsigned files, failed;
    curl_off_t bytes;
};

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "curl: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

/* A negative result is -errno; loop_last_error() returns a sentence about the error. */
static void expect(int64_t result)
{
    if (result < 0) fail("ringloop", loop_last_error());
}

static void expect_curl(CURLMcode code)
{
    if (code != CURLM_OK) fail("libcurl", curl_multi_strerror(code));
}

/* ---- requests of curl ---- */

static void collect(struct client *client)
{
    CURLMsg *message;
    int left;

    while ((message = curl_multi_info_read(client->multi, &left))) {
        CURL *transfer = message->easy_handle;
        CURLcode result = message->data.result; /* the message is freed with the transfer */
        curl_off_t size = 0;
        char *url = NULL;
        FILE *file = NULL;

        if (message->msg != CURLMSG_DONE) continue;
        curl_easy_getinfo(transfer, CURLINFO_EFFECTIVE_URL, &url);
        curl_easy_getinfo(transfer, CURLINFO_PRIVATE, (char **)&file);
        curl_easy_getinfo(transfer, CURLINFO_SIZE_DOWNLOAD_T, &size);
        if (fclose(file) != 0 && result == CURLE_OK) result = CURLE_WRITE_ERROR;
        if (result == CURLE_OK) {
            client->files++;
            client->bytes += size;
        } else {
            client->failed++;
            fprintf(stderr, "curl: %s: %s\n", url, curl_easy_strerror(result));
        }
        expect_curl(curl_multi_remove_handle(client->multi, transfer));
        curl_easy_cleanup(transfer);
    }
}

static void on_ready(loop_t *loop, int fd, uint32_t events, void *arg)
{
    struct client *client = arg;
    int ready = 0, running;

    (void)loop;
    if (events & (POLLIN | POLLHUP)) ready |= CURL_CSELECT_IN;
    if (events & POLLOUT) ready |= CURL_CSELECT_OUT;
    if (events & (POLLERR | POLLNVAL)) ready |= CURL_CSELECT_ERR;
    expect_curl(curl_multi_socket_action(client->multi, fd, ready, &running));
    collect(client);
}

static void on_time(loop_t *loop, void *arg)
{
    struct client *client = arg;
    int running;

    (void)loop;
    expect_curl(curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running));
    collect(client);
}

/* curl stores one pointer for each socket: to the handle of the watcher. */
static int on_interest(CURL *transfer, curl_socket_t fd, int what, void *arg, void *socket)
{
    struct client *client = arg;
    loop_handle_t *watcher = socket;
    uint32_t events = 0;
    int result;

    (void)transfer;
    if (what == CURL_POLL_REMOVE) {
        /* curl may close the socket now. The kernel has to release it first, so that the server sees the end. */
        expect(loop_forget_fd(client->loop, fd));
        free(watcher);
        return 0;
    }
    if (!watcher) {
        watcher = calloc(1, sizeof *watcher);
        if (!watcher || curl_multi_assign(client->multi, fd, watcher) != CURLM_OK) {
            free(watcher);
            return -1;
        }
    }
    if (what & CURL_POLL_IN) events |= POLLIN;
    if (what & CURL_POLL_OUT) events |= POLLOUT;
    result = loop_watch_update(client->loop, *watcher, events);
    if (result == -ENOENT) { /* a new socket, or a watcher that has ended with an error */
        *watcher = loop_watch_fd(client->loop, fd, events, on_ready, client);
        expect(*watcher);
        result = 0;
    }
    expect(result);
    return 0;
}

/* This callback must not call curl: with 0 ms, on_time() runs in the loop's next iteration. */
static int on_timeout(CURLM *multi, long milliseconds, void *arg)
{
    struct client *client = arg;

    (void)multi;
    loop_cancel(client->loop, client->timer); /* -ENOENT if the timer has run: ignored */
    if (milliseconds < 0) return 0;
    client->timer = loop_call_later(client->loop, LOOP_MSEC(milliseconds), on_time, client);
    return client->timer < 0 ? -1 : 0;
}

/* ---- the program ---- */

static void download(struct client *client, const char *folder, const char *url)
{
    const char *slash = strrchr(url, '/');
    char path[4096];
    CURL *transfer = curl_easy_init();
    FILE *file;

    if (!slash || snprintf(path, sizeof path, "%s%s", folder, slash) >= (int)sizeof path) fail(url, "no file name");
    file = fopen(path, "wb");
    if (!transfer || !file) fail(path, strerror(errno));
    curl_easy_setopt(transfer, CURLOPT_URL, url);
    curl_easy_setopt(transfer, CURLOPT_WRITEDATA, file); /* the default function is fwrite() */
    curl_easy_setopt(transfer, CURLOPT_PRIVATE, file);
    curl_easy_setopt(transfer, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(transfer, CURLOPT_CONNECTTIMEOUT, 10L);
    expect_curl(curl_multi_add_handle(client->multi, transfer)); /* requests a timer, which starts the transfer */
}

int main(int argc, char **argv)
{
    struct client client = {NULL, NULL, 0, 0, 0, 0};
    int i;

    if (argc < 3) fail("usage", "curl FOLDER URL...");
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0 || !(client.multi = curl_multi_init())) fail("libcurl", "out of memory");
    expect(loop_new(NULL, &client.loop));
    curl_multi_setopt(client.multi, CURLMOPT_SOCKETFUNCTION, on_interest);
    curl_multi_setopt(client.multi, CURLMOPT_SOCKETDATA, &client);
    curl_multi_setopt(client.multi, CURLMOPT_TIMERFUNCTION, on_timeout);
    curl_multi_setopt(client.multi, CURLMOPT_TIMERDATA, &client);
    curl_multi_setopt(client.multi, CURLMOPT_MAX_HOST_CONNECTIONS, 100L);
    for (i = 2; i < argc; i++) download(&client, argv[1], argv[i]);
    expect(loop_run(client.loop)); /* until curl has no socket to watch and no timer */

    /* Closes connections that are kept alive, and may call on_interest() and on_timeout(): the loop is closed after. */
    expect_curl(curl_multi_cleanup(client.multi));
    expect(loop_close(client.loop));
    curl_global_cleanup();
    printf("%u files, %" CURL_FORMAT_CURL_OFF_T " bytes, %u failed\n", client.files, client.bytes, client.failed);
    return client.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
