"""Serves a folder over HTTP/1.1, with persistent connections: file_server.py FOLDER PORT-FILE."""

import functools
import http.server
import os
import sys
import threading


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256


server = Server(("127.0.0.1", 0), functools.partial(Handler, directory=sys.argv[1]))
with open(sys.argv[2] + ".new", "w") as file:
    print(server.server_address[1], file=file)
os.rename(sys.argv[2] + ".new", sys.argv[2])
threading.Timer(300, os._exit, [1]).start()
server.serve_forever()
