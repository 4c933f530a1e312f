"""A small Hugging Face Hub on 127.0.0.1, serving folders as repositories.

Example::

    with HubServer({"lab/tiny": folder}) as hub:
        os.environ["HF_ENDPOINT"] = hub.url

It answers what huggingface_hub asks for a download: HEAD and GET of ``/REPO/resolve/main/FILE``
(with the commit and an ETag), and the list of files under ``/api/models``.
"""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"


class HubServer:
    def __init__(self, repositories: dict[str, Path]):
        self.repositories = repositories
        self.requests: list[str] = []

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: HubServer

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urlsplit(self.path).path.strip("/")
        self.owner.requests.append(path)
        for name, folder in self.owner.repositories.items():
            if path.startswith(f"{name}/resolve/"):
                return self._file(folder / path.removeprefix(f"{name}/resolve/").partition("/")[2])
            if path.startswith(f"api/models/{name}/tree/"):
                return self._send(200, json.dumps(self._listing(folder)).encode())
            if path == f"api/models/{name}" or path.startswith(f"api/models/{name}/revision/"):
                files = [{"rfilename": entry["path"]} for entry in self._listing(folder)]
                about = {"id": name, "modelId": name, "sha": COMMIT, "siblings": files}
                return self._send(200, json.dumps(about).encode())
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _listing(self, folder):
        return [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 4}
            for file in sorted(folder.iterdir())
        ]

    def _file(self, file):
        if not file.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        body = file.read_bytes()
        tag = hashlib.sha256(body).hexdigest()
        return self._send(200, body, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def _send(self, status, body, headers=None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
