#!/usr/bin/env python3
"""Hostile clients for a server on loopback, until standard input ends.

hostile.py echo|http PORT

Some clients send and never read, some reset the connection while it is in use, some send half a request and wait, some connect and
close at once. When all of them have begun, the script prints the line "at work".
"""
import socket
import struct
import sys
import threading
import time

what, port = sys.argv[1], int(sys.argv[2])
REQUEST = {"echo": b"x" * 65536, "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500}[what]
HALF = {"echo": b"x", "http": b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf"}[what]
kept, begun = [], threading.Semaphore(0)


def connect():
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    return connection


def send_and_never_read():
    connection = connect()
    kept.append(connection)
    connection.settimeout(0.2)
    begun.release()
    while True:
        try:
            connection.send(REQUEST)
        except TimeoutError:
            pass


def reset_in_the_middle():
    while True:
        connection = connect()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(REQUEST[:20000])
        connection.recv(100)
        connection.close()
        begun.release()


def say_half_and_wait():
    for _ in range(10):
        connection = connect()
        connection.sendall(HALF)
        kept.append(connection)
    begun.release()


def come_and_go():
    while True:
        connect().close()
        time.sleep(0.001)
        begun.release()


def for_ever(act):
    """Repeats `act` despite errors: the server may end at any time."""
    while True:
        try:
            act()
        except OSError:
            time.sleep(0.01)


KINDS = [send_and_never_read] * 6 + [reset_in_the_middle] * 4 + [come_and_go] * 2
for kind in KINDS:
    threading.Thread(target=for_ever, args=(kind,), daemon=True).start()
say_half_and_wait()
for _ in range(2 * len(KINDS)):
    begun.acquire()
print("at work", flush=True)
sys.stdin.read()
