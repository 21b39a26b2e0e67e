"""A name server that knows one domain, over UDP: name_server.py PORT-FILE.

n7.test has the addresses 127.0.0.7 and fd00::7. Other names do not exist, and
those below silent.test are never answered.
"""

import os
import re
import socket
import struct
import sys
import threading

A, AAAA = 1, 28
NAME_ERROR = 3


def answer(query):
    identity, flags, questions = struct.unpack("!HHH", query[:6])
    labels, position = [], 12
    while query[position]:
        labels.append(query[position + 1 : position + 1 + query[position]].decode().lower())
        position += 1 + query[position]
    kind, _ = struct.unpack("!HH", query[position + 1 : position + 5])
    question = query[12 : position + 5]
    name = ".".join(labels)
    if name.endswith("silent.test"):
        return None
    known = re.fullmatch(r"n(\d+)\.test", name)
    records = b""
    if known and kind in (A, AAAA):
        number = int(known[1])
        data = bytes([127, 0, 0, number]) if kind == A else bytes([0xFD] + [0] * 14 + [number])
        records = struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(data)) + data
    code = 0 if known else NAME_ERROR
    return struct.pack("!HHHHHH", identity, 0x8180 | code, questions, bool(records), 0, 0) + question + records


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
with open(sys.argv[1] + ".new", "w") as file:
    print(server.getsockname()[1], file=file)
os.rename(sys.argv[1] + ".new", sys.argv[1])
threading.Timer(300, os._exit, [1]).start()
while True:
    packet, peer = server.recvfrom(4096)
    reply = answer(packet)
    if reply:
        server.sendto(reply, peer)
