"""ttorchd's HTTP API over its unix socket."""
import http.client
import json
import socket


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def get_text(socket_path, resource, timeout=2):
    """The answer as (HTTP status, text); OSError or HTTPException when nobody answers."""
    connection = _UnixConnection(str(socket_path), timeout)
    try:
        connection.request("GET", resource)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def get(socket_path, resource, timeout=2):
    """The same as (HTTP status, JSON)."""
    status, text = get_text(socket_path, resource, timeout)
    return status, json.loads(text)
