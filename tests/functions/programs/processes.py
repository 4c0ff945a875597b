"""Python's multiprocessing with both start methods, and a pool of threads. On Lambda there are no semaphores, so the
processes communicate by pipes."""

import hashlib
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

TABLE = bytearray(b"x" * (60 << 20))


def read_table(connection):
    connection.send(sum(TABLE[::1_024]))


def hash_block(block):
    digest = block
    for _ in range(40_000):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()


def hash_and_send(connection, block):
    connection.send(hash_block(block))


def start():
    pass


def parallel(method, function, count, *arguments):
    context = multiprocessing.get_context(method)
    children = []
    for _ in range(count):
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=function, args=(sender, *arguments))
        child.start()
        children.append((child, receiver))
    results = [receiver.recv() for _, receiver in children]
    for child, _ in children:
        child.join()
    return results


def handle(event):
    sums = parallel("fork", read_table, 4)
    hashes = parallel("spawn", hash_and_send, 2, b"y")
    block = bytes(4 << 20)
    with ThreadPoolExecutor(3) as threads:
        digests = list(threads.map(lambda number: hashlib.sha256(block + bytes([number])).hexdigest(), range(6)))
    return {"sums": len(sums), "hashes": len(hashes), "digests": len(digests)}
