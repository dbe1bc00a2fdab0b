"""Some minutes of mixed traffic, about thirty requests a second, for a picture: signed-in users and visitors, a burst of forged
tokens, a page on a wrong origin, a tenant in monitor whose users get better, a backend that is gone for a while.

    python3 load.py GATEWAY_PORT GOOD_TOKEN SECONDS
"""

import concurrent.futures
import http.client
import random
import sys
import time

gateway, good, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
APP = {"Origin": "https://app.example.com"}
ACME = {**APP, "Authorization": "Bearer ab_live_acme_0123456789"}
BETA = {**APP, "Authorization": "Bearer ab_live_beta_0123456789"}
FORGED = good.rpartition(".")[0] + "." + "A" * 43


def one(share):
    """(headers, path) of a request at this share of the time."""
    mix = [
        (60, {**ACME, "X-User-Token": good}, "/varied"),
        (15, ACME, "/varied"),
        (8, BETA, "/varied"),
        (12 * (1 - share), {**BETA, "X-User-Id": "ann"}, "/varied"),
        (1, {**ACME, "X-User-Id": "ann"}, "/chat"),
        (1, {**APP, "Authorization": "Bearer ab_live_nobody_0123456"}, "/chat"),
        (2, ACME, "/pair"),
        (40 if 0.35 < share < 0.45 else 0.3, {**ACME, "X-User-Token": FORGED}, "/chat"),
        (8 if 0.55 < share < 0.75 else 0, {**ACME, "Origin": "https://evil.example"}, "/chat"),
        (15 if 0.8 < share < 0.88 else 0, {**ACME, "X-User-Token": good}, "/gone"),
        (0.3, ACME, "/limited"),
    ]
    _, headers, path = random.choices(mix, weights=[weight for weight, _, _ in mix])[0]
    return headers, path


def caller(begun):
    """One client with a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway, timeout=20)
    while (share := (time.monotonic() - begun) / seconds) < 1:
        headers, path = one(share)
        try:
            connection.request("GET", path, headers=headers)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()
        time.sleep(random.expovariate(6))


with concurrent.futures.ThreadPoolExecutor(8) as callers:
    list(callers.map(caller, [time.monotonic()] * 8))
