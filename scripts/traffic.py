#!/usr/bin/env python3
"""Sends a mixture of commands, queries and searches to a server, at a rate that rises and falls.

    scripts/traffic.py URL SECONDS
"""

import http.client
import json
import math
import random
import sys
import threading
import time
from urllib.parse import urlsplit

WORDS = "the quick brown fox jumps over a lazy dog while seven kind wizards quietly mix bright jars of honey".split()
CLIENTS = 8


class Client:
    """A client on a connection of its own."""

    def __init__(self, host):
        self.connection = http.client.HTTPConnection(host, timeout=20)

    def request(self, method, path, body=None):
        headers = {"Content-Type": "application/json"}
        self.connection.request(method, "/api/v1" + path, json.dumps(body) if body else None, headers)
        response = self.connection.getresponse()
        text = response.read()
        return json.loads(text) if text else None


def run(host, until, number):
    randomness, client = random.Random(number), Client(host)
    app = client.request("POST", "/apps", {"name": f"app {number}"})["data"]["app_token"]
    messages = f"/apps/{app}/chats/1/messages"
    client.request("POST", f"/apps/{app}/chats")
    started, last = time.time(), 0
    while time.time() < until:
        wave = 1.2 + math.sin((time.time() - started) / 23)
        time.sleep(randomness.expovariate(9 * wave))
        kind = randomness.random()
        one = f"{messages}/{randomness.randint(1, last + 1)}"
        if last < 20 or kind < 0.35:
            text = " ".join(randomness.choices(WORDS, k=randomness.randint(3, 20)))
            last = client.request("POST", messages, {"body": text})["message_number"]
        elif kind < 0.4:
            client.request("PUT", one, {"body": " ".join(randomness.choices(WORDS, k=9))})
        elif kind < 0.42:
            client.request("DELETE", one)
        elif kind < 0.65:
            client.request("GET", f"{messages}?limit=20")
        elif kind < 0.75:
            client.request("GET", one)
        elif kind < 0.8:
            client.request("GET", f"/apps/{app}/chats")
        else:
            client.request("POST", f"{messages}/search", {"query": randomness.choice(WORDS)})


if __name__ == "__main__":
    host, until = urlsplit(sys.argv[1]).netloc, time.time() + float(sys.argv[2])
    clients = [threading.Thread(target=run, args=(host, until, number)) for number in range(CLIENTS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
