#!/usr/bin/env python3
"""Clients for the examples that are servers, on loopback.

client.py echo PORT COUNT LENGTH   opens COUNT connections at once; each sends LENGTH bytes and gets them back
client.py idle PORT                sends five bytes, and expects the server to close the connection later
client.py gone PORT                expects the server to close the connection at once
"""
import os
import socket
import sys
import threading

sys.tracebacklimit = 1


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    return connection


def receive_all(connection):
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def echo(port, length, failures):
    try:
        with connect(port) as connection:
            data = os.urandom(length)
            sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
            sender.start()
            same = receive_all(connection) == data
            sender.join()
            if not same:
                failures.append("received data differs from sent data")
    except OSError as error:
        failures.append(error)


def main():
    what, port = sys.argv[1], int(sys.argv[2])
    if what == "echo":
        count, length = int(sys.argv[3]), int(sys.argv[4])
        failures = []
        threads = [threading.Thread(target=echo, args=(port, length, failures)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            sys.exit(f"{len(failures)} of {count}: {failures[0]}")
    elif what == "idle":
        with connect(port) as connection:
            connection.sendall(b"hello")
            if receive_all(connection) != b"hello":
                sys.exit("received data differs from sent data")
    else:
        with connect(port) as connection:
            try:
                connection.sendall(b"hello")
                if receive_all(connection):
                    sys.exit("received data")
            except ConnectionResetError:
                pass


main()
